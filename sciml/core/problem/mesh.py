"""Unstructured meshes of straight-sided simplices: intervals, triangles, tetrahedra.

On every element the solution is a polynomial of degree 1 (P1, a value at every vertex) or 2 (P2, at
every edge's middle too). The *nodes*, where values live, are the vertices in their order, then,
for P2, the middles. Elements, quadrature, edges and the search for points are scikit-fem's
(Gustafsson and McBain 2020). A :class:`Geometry`, a shape in a few numbers, is meshed by Gmsh
(Geuzaine and Remacle 2009), which is an extra: ``pip install sciml-pde[gmsh]``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES, SIDES

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
    numbered clockwise are turned round. Raises InputError for flat or repeated elements, for facets
    with more than two elements or two on the same side, and for facets that are no element's.
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
                f"{location(points, corners)}: elements overlap",
                "mesh",
            )
        self._check_sides()
        if not all(len(numbers) for numbers in self.facets.values()):
            raise InputError("a boundary is named but has no facets", "mesh")

    def _check_sides(self) -> None:
        """InputError where two elements lie on the same side of the facet they share."""
        d, cells = self.dimension, self.cells.T
        sides = np.zeros(self.topology.facets.shape[1])
        for corners, numbers in zip(
            self.topology.elem.refdom.facets, self.topology.t2f, strict=True
        ):
            omitted = d * (d + 1) // 2 - sum(corners)
            # The facet as this element's orientation has it, against the sorted one.
            turns = np.full(cells.shape[1], omitted)
            for a, b in combinations(corners, 2):
                turns += cells[a] > cells[b]
            np.add.at(sides, numbers, 1.0 - 2.0 * (turns % 2))
        folded = np.flatnonzero(np.abs(sides) > 1)
        if len(folded):
            where = location(self.points, self.topology.facets[:, folded[0]])
            raise InputError(
                f"elements overlap: {len(folded)} facets have two on the same side, the first "
                f"{where}",
                "mesh",
            )

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
        pairs = self.edge_ends()
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
                f"boundary '{names[owners[first]]}' has a facet "
                f"{location(self.points, wanted[first])} that is no element's",
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

    def edge_ends(self) -> np.ndarray:
        """The two ends of every edge, (2, edges), in the order of the P2 nodes."""
        if self.dimension == 1:
            return self.cells.T
        ends: np.ndarray = self.topology.facets if self.dimension == 2 else self.topology.edges
        return ends


# The children of a simplex by its vertices, then its edges' middles in scikit-fem's order.
_CHILDREN = {
    1: ((0, 2), (2, 1)),
    2: ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
    3: (
        *((0, 4, 6, 7), (4, 1, 5, 8), (6, 5, 2, 9), (7, 8, 9, 3)),
        *((4, 9, 5, 8), (4, 9, 8, 7), (4, 9, 7, 6), (4, 9, 6, 5)),
    ),
}


def refined(mesh: Mesh) -> Mesh:
    """The mesh with every edge halved, its groups kept; sides that were straight stay so."""
    quadratic = replace(mesh, element="P2")
    d, cells = mesh.dimension, quadratic.cell_nodes
    children = np.concatenate([cells[:, child] for child in _CHILDREN[d]])
    count = len(mesh.cells)
    subdomains = {
        name: np.concatenate([np.asarray(m) + k * count for k in range(len(_CHILDREN[d]))])
        for name, m in mesh.subdomains.items()
    }
    boundaries = {}
    for name, facets in mesh.facets.items():
        nodes = quadratic.facet_nodes(facets)
        parts = ((0,),) if d == 1 else ((0, 2), (2, 1)) if d == 2 else _CHILDREN_OF_FACETS
        boundaries[name] = np.concatenate([nodes[:, part] for part in parts])
    return Mesh(quadratic.nodes, children, subdomains, boundaries, mesh.element)


_CHILDREN_OF_FACETS = ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5))


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

    where, known = _moved_inside(mesh, np.atleast_2d(np.asarray(points, dtype=np.float64)))
    if not known.all():
        raise InputError("a point to sample at lies outside the mesh")
    probes = skfem.Basis(mesh.topology, reference(mesh)).probes(where.T)
    entries = probes.tocoo()
    row, column = (torch.from_numpy(v.astype(np.int64)) for v in (entries.row, entries.col))
    values = value.cpu() if value.is_complex() else value.cpu().double()
    parts = values[..., column] * torch.from_numpy(entries.data)
    found = parts.new_zeros(*value.shape[:-1], len(where))
    return found.index_add(-1, row, parts)


def inside(mesh: Mesh, points: torch.Tensor) -> torch.Tensor:
    """Which of ``points`` (n, d) lie in the mesh or on its boundary, (n,)."""
    import torch

    return torch.from_numpy(_moved_inside(mesh, np.atleast_2d(np.asarray(points)))[1])


_ROUNDED = 1e-9  # in barycentric coordinates: points of a boundary lie a rounding outside


def _moved_inside(mesh: Mesh, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, d), those on the boundary a rounding further inside, and which are in the mesh."""
    finder = mesh.topology.element_finder()

    def found(some: np.ndarray) -> bool:
        try:
            finder(*some.T)
        except (ValueError, IndexError):
            return False
        return True

    known = np.ones(len(points), dtype=bool)
    if found(points):
        return points, known
    moved, corners = points.copy(), mesh.points[mesh.cells]
    centres = corners.mean(1)
    for k, point in enumerate(points):
        if found(point[None]):
            continue
        near = np.argsort(np.square(centres - point).sum(1))[:32]
        edges = (corners[near, 1:] - corners[near, :1]).swapaxes(1, 2)
        inner = np.linalg.solve(edges, (point - corners[near, 0])[..., None])[..., 0]
        least = np.minimum(inner.min(1), 1 - inner.sum(1))
        best = int(least.argmax())
        moved[k] += 10 * _ROUNDED * (centres[near[best]] - point)
        known[k] = least[best] >= -_ROUNDED and found(moved[k : k + 1])
    return moved, known


def location(points: np.ndarray, vertices: np.ndarray) -> str:
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
            f"{location(points, cells[first])} ({len(again)} duplicates)",
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
            f"element {flat[0]} {location(points, cells[flat[0]])} has no {MEASURES[d]} "
            f"({len(flat)} such elements)",
            "mesh",
        )
    inverted = volume < 0
    if inverted.any():
        cells = cells.copy()
        cells[inverted, :2] = cells[inverted, 1::-1]
    return cells


def joined(
    points: np.ndarray, cells: np.ndarray, boundaries: Mapping[str, np.ndarray], distance: float
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Points nearer to each other than ``distance`` made one; the facets named, once each.

    A named facet that lies between two elements afterwards stays named.
    """
    import scipy.sparse
    from scipy.spatial import cKDTree

    pairs = cKDTree(points).query_pairs(distance, output_type="ndarray")
    near = scipy.sparse.coo_matrix(
        (np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(points), len(points))
    )
    count, owner = scipy.sparse.csgraph.connected_components(near, directed=False)
    _, first = np.unique(owner, return_index=True)
    place_of = np.argsort(np.argsort(first))[owner]
    kept = points[np.sort(first)]
    assert len(kept) == count
    cells = place_of[cells]
    spent = np.sort(cells, axis=1)
    if (spent[:, 1:] == spent[:, :-1]).any():
        raise InputError(
            f"merge: {distance:g} is too far: it makes two corners of an element one", "mesh.merge"
        )
    named = {
        name: np.unique(np.sort(place_of[facets], axis=1), axis=0)
        for name, facets in boundaries.items()
    }
    return kept, cells, named


def seams(mesh: Mesh) -> tuple[str, ...]:
    """Remarks on parts that do not touch and on points that lie twice."""
    import scipy.sparse
    from scipy.spatial import cKDTree

    n, (m, k) = len(mesh.points), mesh.cells.shape
    links = scipy.sparse.coo_matrix(
        (np.ones(m * (k - 1)), (np.repeat(mesh.cells[:, 0], k - 1), mesh.cells[:, 1:].ravel())),
        shape=(n, n),
    )
    parts, _ = scipy.sparse.csgraph.connected_components(links, directed=False)
    rim = np.unique(mesh.topology.facets[:, mesh.topology.boundary_facets()])
    size = float(np.ptp(mesh.points, axis=0).max())
    twice = len(cKDTree(mesh.points[rim]).query_pairs(1e-9 * size, output_type="ndarray"))
    notes = []
    if parts > 1:
        notes.append(f"the mesh has {parts} parts that share no point: nothing passes between them")
    if twice:
        notes.append(
            f"{twice} pairs of the mesh's points lie in the same place and are two all the same; "
            f"mesh: {{merge: {1e-9 * size:.1g}}} makes them one"
        )
    return tuple(notes)


_INSTALL = "a geometry needs gmsh, which is not installed: pip install sciml-pde[gmsh]"


@dataclass(frozen=True)
class Hole:
    """A disk (in 3-D a ball) cut out of the shape; its rim is the boundary ``name``.

    ``circle``: [x, y, r], or [x, y, z, r] in a box. ``size``: the elements' size at the rim.
    """

    circle: tuple[float, ...]
    name: str = "hole"
    size: float | None = None


@dataclass(frozen=True)
class Geometry:
    """A rectangle or a box, or a disk or ball, with holes, to be meshed by Gmsh.

    ``rectangle`` and ``box`` reach from ``lower`` to ``upper``, their sides called ``left``,
    ``right``, ``bottom``, ``top``, ``back``, ``front``; ``disk`` and ``ball`` have ``centre`` and
    ``radius``, their rim called ``boundary``. ``size``: the elements' edge length.
    ``element``: P1 or P2, by default what suits the equation: P2 for elasticity, else P1.
    """

    size: float
    shape: Literal["rectangle", "box", "disk", "ball"] = "rectangle"
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None
    centre: tuple[float, ...] | None = None
    radius: float | None = None
    holes: tuple[Hole, ...] = ()
    element: Element | None = None

    def __post_init__(self) -> None:
        d = self.dimension
        if not self.size > 0:
            raise InputError(f"size must be positive; got {self.size:g}", "geometry.size")
        needed, unused = ("lower", "upper"), ("centre", "radius")
        if self.shape in ("disk", "ball"):
            needed, unused = unused, needed
        for name in needed:
            value = getattr(self, name)
            if value is None:
                raise InputError(f"a {self.shape} needs {name}", f"geometry.{name}")
            if name != "radius" and len(value) != d:
                raise InputError(
                    f"{name} needs {d} numbers for a {self.shape}; got {len(value)}",
                    f"geometry.{name}",
                )
        for name in unused:
            if getattr(self, name) is not None:
                raise InputError(f"a {self.shape} has no {name}", f"geometry.{name}")
        if self.lower and self.upper and not all(map(float.__lt__, *self._corners())):
            raise InputError("each lower must be below its upper", "geometry.lower")
        if self.radius is not None and not self.radius > 0:
            raise InputError("radius must be positive", "geometry.radius")
        for number, hole in enumerate(self.holes):
            if len(hole.circle) != d + 1 or not hole.circle[-1] > 0:
                raise InputError(
                    f"a hole in a {self.shape} is circle: [{', '.join('xyz'[:d])}, r] with r > 0",
                    f"geometry.holes.{number}.circle",
                )

    def _corners(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return tuple(map(float, self.lower or ())), tuple(map(float, self.upper or ()))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return 2 if self.shape in ("rectangle", "disk") else 3

    def mesh(self) -> Mesh:
        """The mesh, made anew; raises InputError where gmsh is missing or cannot mesh the shape."""
        try:
            import gmsh
        except (ImportError, OSError) as error:
            raise InputError(
                _INSTALL if isinstance(error, ImportError) else f"gmsh cannot be loaded: {error}",
                "geometry",
            ) from None
        # Gmsh has one global state: what an outer user had open stays as it was.
        outer = gmsh.isInitialized()
        if not outer:
            gmsh.initialize(interruptible=False)
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.model.add("sciml")
            self._draw(gmsh)
            gmsh.model.mesh.generate(self.dimension)
            return self._collect(gmsh)
        except Exception as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"gmsh cannot mesh this geometry: {error}", "geometry") from None
        finally:
            gmsh.model.remove() if outer else gmsh.finalize()

    def _draw(self, gmsh: Any) -> None:
        shapes, d = gmsh.model.occ, self.dimension
        if self.shape in ("rectangle", "box"):
            lower, upper = self._corners()
            lengths = [b - a for a, b in zip(lower, upper, strict=True)]
            add = shapes.addRectangle if d == 2 else shapes.addBox
            body = add(*lower, *((0.0,) if d == 2 else ()), *lengths)
        else:
            assert self.centre is not None and self.radius is not None
            body = self._round(shapes, (*self.centre, self.radius))
        holes = [(d, self._round(shapes, hole.circle)) for hole in self.holes]
        if holes:
            shapes.cut([(d, body)], holes)
        shapes.synchronize()
        gmsh.option.setNumber("Mesh.MeshSizeMax", self.size)
        for hole in self.holes:
            if hole.size is not None:
                near = [e for e in gmsh.model.getEntities(d - 1) if _on_rim(gmsh, e, hole.circle)]
                rim = gmsh.model.getBoundary(near, combined=False, recursive=True)
                gmsh.model.mesh.setSize(rim, hole.size)

    def _round(self, shapes: Any, circle: tuple[float, ...]) -> int:
        if self.dimension == 2:
            x, y, r = circle
            return int(shapes.addDisk(x, y, 0.0, r, r))
        return int(shapes.addSphere(*circle))

    def _collect(self, gmsh: Any) -> Mesh:
        d = self.dimension
        tags, flat, _ = gmsh.model.mesh.getNodes()
        where = np.zeros((int(tags.max()) + 1, d))
        where[tags.astype(np.int64)] = np.asarray(flat).reshape(-1, 3)[:, :d]
        kind = {2: (1, 2), 3: (2, 4)}[d]
        _, nodes = gmsh.model.mesh.getElementsByType(kind[1])
        used = np.unique(nodes.astype(np.int64))
        number = np.full(len(where), -1, dtype=np.int64)
        number[used] = np.arange(len(used))
        kept = where[used]
        named: dict[str, list[np.ndarray]] = {}
        for entity in gmsh.model.getEntities(d - 1):
            _, facets = gmsh.model.mesh.getElementsByType(kind[0], entity[1])
            rows = number[facets.astype(np.int64)].reshape(-1, d)
            if len(rows):
                named.setdefault(self._name(kept[rows]), []).append(rows)
        cells = number[nodes.astype(np.int64)].reshape(-1, d + 1)
        boundaries = {name: np.concatenate(rows) for name, rows in named.items()}
        return Mesh(kept, cells, {}, boundaries, self.element or "P1")

    def _name(self, corners: np.ndarray) -> str:
        """The boundary that facets with these vertices (k, d, d) lie on."""
        points = corners.reshape(-1, self.dimension)
        for hole in self.holes:
            gap = np.linalg.norm(points - hole.circle[:-1], axis=1) - hole.circle[-1]
            if np.abs(gap).max() < 1e-6 * hole.circle[-1]:
                return hole.name
        if self.shape in ("rectangle", "box"):
            for axis, ends in enumerate(zip(*self._corners(), strict=True)):
                for end, name in zip(ends, SIDES[axis], strict=True):
                    if np.abs(points[:, axis] - end).max() < 1e-9 * max(abs(end), self.size):
                        return name
        return "boundary"


def _on_rim(gmsh: Any, entity: tuple[int, int], circle: tuple[float, ...]) -> bool:
    box = np.asarray(gmsh.model.getBoundingBox(*entity)).reshape(2, 3)[:, : len(circle) - 1]
    middle, r = np.asarray(circle[:-1]), circle[-1]
    return bool(np.abs(box - middle).max() < 1.001 * r and math.isfinite(r))
