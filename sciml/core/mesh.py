"""Unstructured meshes of straight-sided simplices: intervals, triangles, tetrahedra.

On every element the solution is a polynomial of degree 1 (P1, a value at every vertex) or 2 (P2, at
every edge's middle too). The *nodes*, where values live, are the vertices in their order, then,
for P2, the middles. Elements, quadrature, edges and the search for points are scikit-fem's
(Gustafsson and McBain 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciml.core.errors import InputError
from sciml.core.grid import AXES

if TYPE_CHECKING:
    import skfem
    import torch

Element = Literal["P1", "P2"]
PLURALS = {1: "intervals", 2: "triangles", 3: "tetrahedra"}
MEASURES = {1: "length", 2: "area", 3: "volume"}
# A volume below this fraction of the longest edge's power is rounding.
_FLAT = 1e-12


@dataclass(frozen=True, eq=False)
class Mesh:
    """Points, simplices and named parts of both; where an answer lives.

    ``points``: (n, d) float64. ``cells``: (m, d + 1) indices of points. ``subdomains``: indices of
    cells by name. ``boundaries``: by name the vertices (k, d) of the facets; those that were not
    named at all, where nothing is, are called ``boundary``. ``element``: P1 or P2. Elements
    numbered clockwise throughout are turned round. Raises InputError for inverted, flat or repeated
    elements, for facets with more than two elements, and for facets that are no element's.
    """

    points: np.ndarray
    cells: np.ndarray
    subdomains: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundaries: Mapping[str, np.ndarray] = field(default_factory=dict)
    element: Element = "P1"

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, dtype=np.float64)
        cells = np.ascontiguousarray(self.cells, dtype=np.int64)
        if self.element not in ("P1", "P2"):
            raise InputError(f"unknown element '{self.element}'; known: P1, P2", "mesh.element")
        if points.ndim != 2 or not 1 <= points.shape[1] <= 3:
            raise InputError(f"points must be (n, d), d up to 3; got {list(points.shape)}", "mesh")
        _check_cells(points, cells)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "cells", _oriented(points, cells))
        for name, members in self.subdomains.items():
            if len(members) and not 0 <= np.min(members) <= np.max(members) < len(cells):
                raise InputError(f"subdomain '{name}' has elements that do not exist", "mesh")
        named = {k: np.asarray(v, dtype=np.int64) for k, v in self.boundaries.items()}
        outer = self.topology.boundary_facets()
        if not named:
            named = {"boundary": self.topology.facets[:, outer].T.copy()}
        object.__setattr__(self, "boundaries", named)
        crowded = np.flatnonzero(np.bincount(self.topology.t2f.ravel()) > 2)
        if len(crowded):
            corners = self.topology.facets[:, crowded[0]]
            raise InputError(
                f"{len(crowded)} facets have more than two elements, the first "
                f"{place(points, corners)}: elements overlap",
                "mesh",
            )
        if not all(len(numbers) for numbers in self.facets.values()):
            raise InputError("a boundary is named but has no facets", "mesh")

    @property
    def dimension(self) -> int:
        """Number of space dimensions, 1 to 3."""
        return int(self.points.shape[1])

    @property
    def degree(self) -> int:
        """1 or 2, the polynomials' degree."""
        return int(self.element[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of nodes,), the trailing shape of a value."""
        return (len(self.nodes),)

    @cached_property
    def nodes(self) -> np.ndarray:
        """Where the values live, (nodes, d) float64."""
        if self.degree == 1:
            return self.points
        pairs = self._edges()
        return np.concatenate([self.points, self.points[pairs].mean(axis=0)])

    @cached_property
    def cell_nodes(self) -> np.ndarray:
        """The nodes of every element, (m, nodes per element), in scikit-fem's order."""
        from skfem.assembly.dofs import Dofs

        return np.ascontiguousarray(Dofs(self.topology, reference(self)).element_dofs.T)

    @cached_property
    def topology(self) -> skfem.Mesh:
        """The mesh as scikit-fem has it: facets, edges and how they hang together."""
        import skfem

        kind = {1: skfem.MeshLine, 2: skfem.MeshTri, 3: skfem.MeshTet}[self.dimension]
        return kind(
            np.ascontiguousarray(self.points.T),
            np.ascontiguousarray(self.cells.T),
            sort_t=False,
            validate=False,
        )

    @cached_property
    def facets(self) -> Mapping[str, np.ndarray]:
        """The numbers of every named boundary's facets; InputError where one is no element's."""
        names, sizes = list(self.boundaries), [len(v) for v in self.boundaries.values()]
        wanted = np.concatenate([np.sort(v, axis=1) for v in self.boundaries.values()])
        outer = self.topology.boundary_facets()
        found = self._find(wanted, self.topology.facets.T[outer])
        found = np.where(found < 0, -1, outer[found])
        if (found < 0).any():
            found[found < 0] = self._find(wanted[found < 0], self.topology.facets.T)
        owners = np.repeat(np.arange(len(names)), sizes)
        if (found < 0).any():
            first = np.flatnonzero(found < 0)[0]
            raise InputError(
                f"boundary '{names[owners[first]]}' has a facet {place(self.points, wanted[first])}"
                " that is no element's",
                "mesh",
            )
        return {name: np.unique(found[owners == k]) for k, name in enumerate(names)}

    def facet_nodes(self, facets: np.ndarray) -> np.ndarray:
        """The nodes of numbered facets, (k, nodes per facet), in scikit-fem's order."""
        corners: np.ndarray = self.topology.facets[:, facets].T
        if self.degree == 1 or self.dimension == 1:
            return corners
        if self.dimension == 2:
            return np.column_stack([corners, len(self.points) + facets])
        pairs = np.stack([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [0, 2]]], axis=1)
        edges = self._find(np.sort(pairs, axis=2).reshape(-1, 2), self.topology.edges.T)
        return np.concatenate([corners, len(self.points) + edges.reshape(-1, 3)], axis=1)

    def coordinates(self) -> tuple[torch.Tensor, ...]:
        """Tensors x, y, z at the nodes, (nodes,) each, float64."""
        import torch

        return tuple(torch.from_numpy(np.ascontiguousarray(axis)) for axis in self.nodes.T)

    @cached_property
    def _keys(self) -> np.ndarray:
        """One random number per vertex; a set of vertices is known by their sum."""
        return np.random.default_rng(0).integers(2**63, size=len(self.points), dtype=np.uint64)

    def _find(self, wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
        """Where each row of vertices stands in ``among``, whose rows are sorted; -1 if nowhere."""
        keys = self._keys[among].sum(axis=1)
        order = np.argsort(keys)
        place = np.searchsorted(keys, self._keys[wanted].sum(axis=1), sorter=order)
        found = order[np.minimum(place, len(order) - 1)]
        return np.where((np.sort(among[found], axis=1) == wanted).all(axis=1), found, -1)

    def _edges(self) -> np.ndarray:
        """The two ends of every edge, (2, edges), in the order of the P2 nodes."""
        if self.dimension == 1:
            return self.cells.T
        ends: np.ndarray = self.topology.facets if self.dimension == 2 else self.topology.edges
        return ends


def reference(mesh: Mesh) -> skfem.Element:
    """scikit-fem's element of the mesh."""
    import skfem

    kinds: dict[int, tuple[Any, Any]] = {
        1: (skfem.ElementLineP1, skfem.ElementLineP2),
        2: (skfem.ElementTriP1, skfem.ElementTriP2),
        3: (skfem.ElementTetP1, skfem.ElementTetP2),
    }
    return kinds[mesh.dimension][mesh.degree - 1]()


def sample(mesh: Mesh, value: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The finite element function at ``points`` (n, d); ``value`` (*lead, nodes) gives (*lead, n).

    Raises InputError for a point outside the mesh.
    """
    import skfem
    import torch

    where = np.atleast_2d(np.asarray(points, dtype=np.float64))
    basis = skfem.Basis(mesh.topology, reference(mesh))
    try:
        probes = basis.probes(where.T)
    except (ValueError, IndexError):
        raise InputError("a point to sample at lies outside the mesh") from None
    flat = value.detach().cpu().double().reshape(-1, mesh.shape[0]).numpy()
    return torch.from_numpy((probes @ flat.T).T.copy()).reshape(*value.shape[:-1], len(where))


def relative_error(
    mesh: Mesh,
    value: torch.Tensor,
    exact: Callable[..., Any] | Any,
    lead: int = 0,
    slope: bool = False,
) -> torch.Tensor:
    """||u - exact|| / ||exact|| in L2 per sample, ``value`` (*batch, [fields,] nodes).

    ``lead``: the number of batch dimensions; ``slope``: of the gradients instead (H1 seminorm). By
    quadrature of degree 2 p + 4, against a function of x, y, z between the nodes too; values at
    the nodes are compared as finite element functions, that is in the mass matrix's norm.
    """
    from sciml.core.discretize.elements_tables import error_norms

    return error_norms(mesh, value, exact, lead, slope)


def place(points: np.ndarray, vertices: np.ndarray) -> str:
    """``at x = 0.5, y = 1`` for the middle of some vertices."""
    middle = points[vertices].mean(axis=0)
    return "at " + ", ".join(f"{a} = {c:.6g}" for a, c in zip(AXES, middle, strict=False))


def edge_vectors(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """J of every element, (m, d, d): column k is its edge from vertex 0 to vertex k + 1."""
    return np.stack([points[c] - points[cells[:, 0]] for c in cells[:, 1:].T], axis=2)


def determinants(J: np.ndarray) -> np.ndarray:
    """det J of (m, d, d), written out: LAPACK would take one small matrix at a time."""
    determinant: np.ndarray
    if J.shape[-1] == 1:
        determinant = J[:, 0, 0]
    elif J.shape[-1] == 2:
        determinant = J[:, 0, 0] * J[:, 1, 1] - J[:, 0, 1] * J[:, 1, 0]
    else:
        determinant = np.einsum("ma,ma->m", J[:, :, 0], np.cross(J[:, :, 1], J[:, :, 2]))
    return determinant


def _check_cells(points: np.ndarray, cells: np.ndarray) -> None:
    d = points.shape[1]
    if not np.isfinite(points).all():
        first = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError(f"point {first} of the mesh is not finite: {points[first]}", "mesh")
    if cells.ndim != 2 or cells.shape[1] != d + 1 or not len(cells):
        raise InputError(
            f"a mesh in {d} dimensions needs cells of {d + 1} vertices; got {list(cells.shape)}",
            "mesh",
        )
    if cells.min() < 0 or cells.max() >= len(points):
        raise InputError(f"an element names point {cells.max()} of {len(points)}", "mesh")
    used = np.zeros(len(points), dtype=bool)
    used[cells] = True
    if not used.all():
        raise InputError("the mesh has points that no element uses", "mesh")
    keys = np.random.default_rng(1).integers(2**63, size=len(points), dtype=np.uint64)
    sums = keys[cells].sum(axis=1)
    order = np.argsort(sums, kind="stable")
    again = np.flatnonzero(sums[order][1:] == sums[order][:-1])
    if len(again):
        first, second = sorted((int(order[again[0]]), int(order[again[0] + 1])))
        raise InputError(
            f"elements {first} and {second} have the same vertices, "
            f"{place(points, cells[first])} ({len(again)} duplicates)",
            "mesh",
        )


def _oriented(points: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The cells with positive orientation; InputError for flat or inverted ones."""
    d = points.shape[1]
    edges = edge_vectors(points, cells)
    volume = determinants(edges)
    longest = np.sqrt((edges**2).sum(axis=1).max(axis=1))
    flat = np.flatnonzero(np.abs(volume) <= _FLAT * longest**d)
    if len(flat):
        raise InputError(
            f"element {flat[0]} {place(points, cells[flat[0]])} has no {MEASURES[d]} "
            f"({len(flat)} such elements)",
            "mesh",
        )
    inverted = np.flatnonzero(volume < 0)
    if 0 < len(inverted) < len(cells):
        first = inverted[0]
        raise InputError(
            f"element {first} {place(points, cells[first])} is inverted: its {MEASURES[d]} is "
            f"{volume[first] / [1, 2, 6][d - 1]:.3g} ({len(inverted)} such elements)",
            "mesh",
        )
    if len(inverted):
        cells = cells.copy()
        cells[:, [0, 1]] = cells[:, [1, 0]]
    return cells
