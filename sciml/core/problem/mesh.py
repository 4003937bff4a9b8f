"""Unstructured meshes: intervals, triangles, quadrilaterals, tetrahedra, hexahedra.

On every simplex the solution is a polynomial of degree 1 (P1, a value at every vertex) or 2 (P2, at
every edge's middle too); on quadrilaterals and hexahedra of that degree along each axis (Q1, Q2).
The *nodes*, where values live, are the vertices in their order, then the middles of edges, facets
and elements. Where these do not lie midway the elements are curved: of degree 2 such a mesh is
isoparametric, its elements the images of the reference element under the polynomials of the
solution (Ciarlet and Raviart 1972); of degree 1 its elements are those between the vertices.
Elements, quadrature, edges and the search for points are scikit-fem's (Gustafsson and McBain 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sciml.core.errors import InputError
from sciml.core.problem.cells import FACETS, KINDS, Kind, kind_of, plurals
from sciml.core.problem.grid import AXES

if TYPE_CHECKING:
    import skfem
    import torch

    from sciml.core.problem.geometry import Geometry

Element = Literal["P1", "P2", "Q1", "Q2"]
Scheme = Literal["galerkin", "supg"]
MEASURES = {1: "length", 2: "area", 3: "volume"}
# A volume below this fraction of the longest edge's power is rounding.
_FLAT = 1e-12
# Middles nearer to midway than this share of their edge are there but for rounding.
MIDWAY = 1e-8
# Curved elements are looked at on a lattice of this many points along each edge, so many at once.
_LATTICE = 6
_AT_ONCE = 1 << 13
# Of reference coordinates: how far outside a point is still inside, by rounding and at a rim whose
# curve is not the polynomial's.
_OUTSIDE = 1e-3


@dataclass(frozen=True, eq=False)
class Mesh:
    """Points, elements and named parts of both; where an answer lives.

    ``points``: (n, d) float64. ``cells``: (m, corners) indices of points, all of one kind, numbered
    as VTK does. ``subdomains``: indices of cells by name. ``boundaries``: by name the vertices
    (k, corners) of the facets; those that were not named at all, where nothing is, are called
    ``boundary``. ``element``: P1 or P2, on quadrilaterals and hexahedra Q1 or Q2 (P1 there means
    Q1). ``middles``: the nodes of the second order beyond the points, (nodes, d), where they do not
    all lie midway; :meth:`curved` takes them element by element. ``axisymmetric``: the mesh is the
    half section of a body of revolution, x the distance from its axis and y the place along it; all
    integrals are of the whole revolution. ``scheme``: of advection, ``galerkin`` or ``supg``, by
    default the latter where an element's Peclet number exceeds 1. ``supports``: by name the
    vertices (k, 1) of single points, or (k, 2) of edges in space. ``notes``: remarks on how it came
    to be, which go with every answer. ``geometry``: the shapes that it is a mesh of. Elements
    numbered clockwise are turned round. Raises InputError for flat, folded or repeated elements,
    for facets with more than two elements or two on the same side, and for facets that are no
    element's.
    """

    points: np.ndarray
    cells: np.ndarray
    subdomains: Mapping[str, np.ndarray] = field(default_factory=dict)
    boundaries: Mapping[str, np.ndarray] = field(default_factory=dict)
    element: Element = "P1"
    middles: np.ndarray | None = None
    axisymmetric: bool = False
    scheme: Scheme | None = None
    supports: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    geometry: Geometry | None = None

    def __post_init__(self) -> None:
        points = np.ascontiguousarray(self.points, dtype=np.float64)
        cells = np.ascontiguousarray(self.cells, dtype=np.int64)
        if points.ndim != 2 or not 1 <= points.shape[1] <= 3:
            raise InputError(f"points must be (n, d), d up to 3; got {list(points.shape)}", "mesh")
        kind = _check_cells(points, cells)
        if self.scheme not in (None, *get_args(Scheme)):
            raise InputError(
                f"unknown scheme '{self.scheme}'; known: {', '.join(get_args(Scheme))}",
                "mesh.scheme",
            )
        object.__setattr__(self, "element", _element(self.element, kind))
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "cells", _oriented(points, cells, kind))
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
        self._check_middles()
        for name in self.supports:
            self._edges_of(name)
        if self.axisymmetric:
            self._check_axis()

    def _check_axis(self) -> None:
        """InputError where the mesh is no half section."""
        if self.dimension != 2:
            raise InputError(
                f"axisymmetric needs a mesh in the plane of x = r and y = z; this one has "
                f"{self.dimension} dimensions",
                "mesh.axisymmetric",
            )
        least = float(self.places(2)[:, 0].min())
        if least < -_FLAT * float(np.ptp(self.points, axis=0).max()):
            raise InputError(
                f"axisymmetric: x is the distance from the axis and the mesh reaches "
                f"x = {least:g}; keep the half with x >= 0, the axis at x = 0",
                "mesh.axisymmetric",
            )

    def _check_sides(self) -> None:
        """InputError where two elements lie on the same side of the facet they share."""
        sides = np.zeros(self.topology.facets.shape[1])
        for corners, numbers in zip(self._outward, self.topology.t2f, strict=True):
            sides += np.bincount(numbers, _turn(self.cells[:, corners], corners), len(sides))
        folded = np.flatnonzero(np.abs(sides) > 1)
        if len(folded):
            where = location(self.points, self.topology.facets[:, folded[0]])
            raise InputError(
                f"elements overlap: {len(folded)} facets have two on the same side, the first "
                f"{where}",
                "mesh",
            )

    def _check_middles(self) -> None:
        """Keep middles only where some are not midway; InputError where an element folds."""
        bent = np.arange(len(self.cells))
        if self.middles is not None:
            middles = np.ascontiguousarray(self.middles, dtype=np.float64)
            straight = self._midway()
            if middles.shape != straight.shape or not np.isfinite(middles).all():
                raise InputError(
                    f"middles must be finite, {list(straight.shape)}: a place for every node of "
                    f"the second order; got {list(middles.shape)}",
                    "mesh",
                )
            spans = np.concatenate(
                [np.ptp(self.points[p], axis=1).max(axis=1) for p in self.parents]
            )
            off = np.abs(middles - straight).max(axis=1) > MIDWAY * spans
            object.__setattr__(self, "middles", middles if off.any() else None)
            added = nodes_of(self, 2)[:, self.kind.corners :] - len(self.points)
            bent = np.flatnonzero(off[added].any(axis=1))
        if not self.kind.simplex or self.middles is not None:
            self._check_folds(bent)

    def _check_folds(self, among: np.ndarray) -> None:
        """InputError where det J of the elements ``among`` vanishes or changes its sign."""
        d, folded = self.dimension, []
        shape = Shape(self, 1 if self.middles is None else 2)
        ticks = [np.linspace(0, 1, _LATTICE + 1)] * d
        lattice = np.stack([g.ravel() for g in np.meshgrid(*ticks)])
        if self.kind.simplex:
            lattice = lattice[:, lattice.sum(axis=0) < 1 + _FLAT]
        slopes = basis_at(shape.element, lattice)[1]
        for first in range(0, len(among), _AT_ONCE):
            part = among[first : first + _AT_ONCE]
            places = shape.places[shape.nodes[part]]
            J = np.einsum("kia,qil->kqal", places, slopes)
            size = np.ptp(places, axis=1).max(axis=1)
            least = determinants(J.reshape(-1, d, d)).reshape(len(part), -1).min(axis=1)
            folded.append(part[least <= _FLAT * size**d])
        wrong = np.concatenate(folded)
        if len(wrong):
            raise InputError(
                f"element {wrong[0]} {location(self.points, self.cells[wrong[0]])} is folded: "
                f"{'it is not convex' if self.middles is None else 'its curved sides cross'} "
                f"({len(wrong)} such elements)",
                "mesh",
            )

    @property
    def dimension(self) -> int:
        """Number of space dimensions, 1 to 3."""
        return int(self.points.shape[1])

    @property
    def kind(self) -> Kind:
        """Of which kind the elements are."""
        kind = kind_of(self.dimension, self.cells.shape[1])
        assert kind is not None
        return kind

    @property
    def degree(self) -> int:
        """1 or 2, the polynomials' degree."""
        return int(self.element[1])

    @property
    def affine(self) -> bool:
        """Whether every element is an affine image of the reference element."""
        return self.kind.simplex and (self.middles is None or self.degree == 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """(number of nodes,), the trailing shape of a value."""
        return (len(self.nodes),)

    @cached_property
    def nodes(self) -> np.ndarray:
        """Where the values live, (nodes, d) float64."""
        return self.places(self.degree)

    def places(self, degree: int) -> np.ndarray:
        """Where the nodes of polynomials of ``degree`` lie, (nodes, d)."""
        if degree == 1:
            return self.points
        middles = self._midway() if self.middles is None else self.middles
        return np.concatenate([self.points, middles])

    def _midway(self) -> np.ndarray:
        """The second order's nodes of straight elements."""
        return np.concatenate([self.points[p].mean(axis=1) for p in self.parents])

    @cached_property
    def cell_nodes(self) -> np.ndarray:
        """The nodes of every element, (m, nodes per element), in scikit-fem's order."""
        return nodes_of(self, self.degree)

    @cached_property
    def parents(self) -> tuple[np.ndarray, ...]:
        """The vertices (k, 2), (k, 4) or (k, 8) between which the second order's nodes lie.

        Those of edges, of hexahedra's facets, of quadrilaterals and hexahedra themselves.
        """
        d, found = self.dimension, []
        for first, _ in self.kind.groups:
            size = len(self.kind.middles[first])
            if size == self.kind.corners:
                found.append(self.cells)
            elif size == 2 and d == 3:
                found.append(self.topology.edges.T)
            else:
                found.append(self.topology.facets.T)
        return tuple(found)

    def curved(self, places: np.ndarray) -> Mesh:
        """The mesh with the second order's nodes at ``places`` (m, nodes, d), by element.

        They stand in VTK's order; where a place is not finite the node lies midway. Raises
        InputError where elements that share a node have it in different places.
        """
        middles, taken, start = self._midway(), [], 0
        for (first, last), parents in zip(self.kind.groups, self.parents, strict=True):
            count = last - first
            if parents is self.cells:
                numbers = np.arange(len(self.cells))
            else:
                rows = [self.cells[:, self.kind.middles[k]] for k in range(first, last)]
                wanted = np.sort(np.stack(rows, axis=1), axis=2)
                numbers = self._find(wanted.reshape(-1, wanted.shape[2]), parents)
            given = places[:, first:last].reshape(len(self.cells) * count, -1)
            known = np.isfinite(given).all(axis=1)
            middles[start + numbers[known]] = given[known]
            taken.append((start + numbers[known], given[known]))
            start += len(parents)
        for index, given in taken:
            gap = np.abs(middles[index] - given).max(axis=1)
            if len(gap) and gap.max() > 1e-6 * np.ptp(self.points, axis=0).max():
                worst = int(index[gap.argmax()])
                where = location(middles, np.array([worst]))
                raise InputError(f"elements that meet {where} do not agree on their side", "mesh")
        return replace(self, middles=middles)

    @cached_property
    def topology(self) -> skfem.Mesh:
        """The mesh as scikit-fem has it: facets, edges and how they hang together."""
        import skfem

        made = {
            "line": skfem.MeshLine,
            "triangle": skfem.MeshTri,
            "quad": skfem.MeshQuad,
            "tetra": skfem.MeshTet,
            "hexahedron": skfem.MeshHex,
        }[self.kind.files[0]]
        return made(
            np.ascontiguousarray(self.points.T),
            np.ascontiguousarray(self.cells[:, self.kind.order].T),
            sort_t=False,
            validate=False,
        )

    @property
    def _outward(self) -> list[tuple[int, ...]]:
        """The corners of scikit-fem's facets of an element, turning outwards."""
        kind = self.kind
        given = [{kind.order[c] for c in facet} for facet in self.topology.elem.refdom.facets]
        return [next(o for o in kind.outward if set(o) == facet) for facet in given]

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
        vertices = len(self.points)
        if self.dimension == 2:
            return np.column_stack([corners, vertices + facets])
        round_ = FACETS[corners.shape[1]].middles
        pairs = np.stack([corners[:, pair] for pair in round_ if len(pair) == 2], axis=1)
        edges = self._find(np.sort(pairs, axis=2).reshape(-1, 2), self.topology.edges.T)
        found = [corners, vertices + edges.reshape(len(corners), -1)]
        if not self.kind.simplex:
            found.append(vertices + self.topology.edges.shape[1] + facets[:, None])
        return np.concatenate(found, axis=1)

    def support_nodes(self, name: str) -> np.ndarray:
        """The nodes (k, 1) of a support's points, (k, 2) or (k, 3) of its edges."""
        corners = self.supports[name]
        if self.degree == 1 or corners.shape[1] == 1:
            return corners
        return np.column_stack([corners, len(self.points) + self._edges_of(name)])

    def _edges_of(self, name: str) -> np.ndarray:
        """The numbers of a support's edges; InputError where one is no element's."""
        corners = self.supports[name]
        if corners.min(initial=0) < 0 or corners.max(initial=0) >= len(self.points):
            raise InputError(f"'{name}' has a point that does not exist", "mesh")
        if corners.shape[1] == 1:
            return corners[:, 0]
        edges = self._find(np.sort(corners, axis=1), self.topology.edges.T)
        if (edges < 0).any():
            where = location(self.points, corners[int(np.argmax(edges < 0))])
            raise InputError(f"'{name}' has an edge {where} that is no element's", "mesh")
        return edges

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


def _element(given: str, kind: Kind) -> str:
    """The element that ``given`` means on this kind; InputError where it means none."""
    if given in kind.elements:
        return given
    if given in ("P1", "P2"):
        return kind.elements[int(given[1]) - 1]
    known = " and ".join(kind.elements)
    if given in ("Q1", "Q2"):
        raise InputError(f"{kind.plural} have {known}; got '{given}'", "mesh.element")
    raise InputError(
        f"unknown element '{given}'; known: {', '.join(kind.elements)}", "mesh.element"
    )


def _turn(rows: np.ndarray, corners: tuple[int, ...]) -> np.ndarray:
    """Of facets by their vertices (k, corners) the sense in which they turn, 1 or -1."""
    count = len(corners)
    if count == 1:
        return np.full(len(rows), 1.0 - 2.0 * corners[0])
    if count == 2:
        return np.where(rows[:, 0] < rows[:, 1], 1.0, -1.0)
    least = rows.argmin(axis=1)
    each = np.arange(len(rows))
    ahead, behind = rows[each, (least + 1) % count], rows[each, (least - 1) % count]
    return np.where(ahead < behind, 1.0, -1.0)


def nodes_of(mesh: Mesh, degree: int) -> np.ndarray:
    """The nodes of every element for polynomials of ``degree``, in scikit-fem's order."""
    from skfem.assembly.dofs import Dofs

    found = Dofs(mesh.topology, reference(mesh, degree)).element_dofs
    return np.ascontiguousarray(found.T)


def basis_at(element: skfem.Element, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The N basis functions at points X (d, Q) of the reference element, (Q, N), and their slopes.

    The latter are (Q, N, d).
    """
    pairs = [element.lbasis(X, i) for i in range(element.doflocs.shape[0])]
    values = np.stack([np.broadcast_to(v, X.shape[1:]) for v, _ in pairs], axis=-1)
    slopes = np.stack([np.broadcast_to(g, X.shape) for _, g in pairs], axis=-1)
    return values, slopes.transpose(1, 2, 0)


@dataclass(frozen=True)
class Shape:
    """How a mesh's elements lie: x = sum_i places[nodes[:, i]] phi_i(X), of ``degree`` 1 or 2."""

    mesh: Mesh
    degree: int

    @property
    def element(self) -> skfem.Element:
        """Whose basis functions the phi_i are."""
        return reference(self.mesh, self.degree)

    @cached_property
    def nodes(self) -> np.ndarray:
        """(m, N)."""
        return nodes_of(self.mesh, self.degree)

    @property
    def places(self) -> np.ndarray:
        """(nodes, d)."""
        return self.mesh.places(self.degree)


def shape_of(mesh: Mesh) -> Shape:
    """That of the mesh's own elements: of its degree where it is curved, else of degree 1."""
    return Shape(mesh, 1 if mesh.middles is None else mesh.degree)


def refined(mesh: Mesh) -> Mesh:
    """The mesh with every edge halved, its groups kept; sides keep the form that they had."""
    quadratic = replace(mesh, element="P2")
    kind, d = mesh.kind, mesh.dimension
    cells = quadratic.cell_nodes[:, vtk_order(quadratic)]
    children = np.concatenate([cells[:, child] for child in kind.children])
    count = len(mesh.cells)
    subdomains = {
        name: np.concatenate([np.asarray(m) + k * count for k in range(len(kind.children))])
        for name, m in mesh.subdomains.items()
    }
    boundaries = {}
    for name, facets in mesh.facets.items():
        nodes = quadratic.facet_nodes(facets)
        parts = ((0,),) if d == 1 else FACETS[mesh.topology.facets.shape[0]].children
        boundaries[name] = np.concatenate([nodes[:, part] for part in parts])
    finer = replace(
        mesh,
        points=quadratic.nodes,
        cells=children,
        subdomains=subdomains,
        boundaries=boundaries,
        middles=None,
        supports={
            name: nodes
            if (nodes := quadratic.support_nodes(name)).shape[1] == 1
            else np.concatenate([nodes[:, child] for child in FACETS[2].children])
            for name in mesh.supports
        },
    )
    if mesh.middles is None:
        return finer
    shape = Shape(mesh, 2)
    corners = shape.element.doflocs[vtk_order(quadratic)]
    places = []
    for child in kind.children:
        X = np.stack([corners[[child[c] for c in middle]].mean(axis=0) for middle in kind.middles])
        values = basis_at(shape.element, X.T)[0]
        places.append(np.einsum("qi,kia->kqa", values, shape.places[shape.nodes]))
    return finer.curved(np.concatenate(places))


def reference(mesh: Mesh, degree: int | None = None) -> skfem.Element:
    """scikit-fem's element of the mesh, or that of another degree."""
    import skfem

    kinds: dict[str, tuple[Any, Any]] = {
        "line": (skfem.ElementLineP1, skfem.ElementLineP2),
        "triangle": (skfem.ElementTriP1, skfem.ElementTriP2),
        "quad": (skfem.ElementQuad1, skfem.ElementQuad2),
        "tetra": (skfem.ElementTetP1, skfem.ElementTetP2),
        "hexahedron": (skfem.ElementHex1, skfem.ElementHex2),
    }
    return kinds[mesh.kind.files[0]][(degree or mesh.degree) - 1]()


def mesh_of(nodes: np.ndarray, cell_nodes: np.ndarray) -> Mesh:
    """The mesh with these :attr:`Mesh.nodes` and :attr:`Mesh.cell_nodes`, without its names."""
    d, count = nodes.shape[1], cell_nodes.shape[1]
    kind = next(k for k in KINDS if k.dimension == d and count in k.counts)
    corners = np.empty_like(cell_nodes[:, : kind.corners])
    corners[:, list(kind.order)] = cell_nodes[:, : kind.corners]
    points = nodes[: corners.max() + 1]
    if count == kind.corners:
        return Mesh(points, corners)
    mesh = Mesh(points, corners, element="P2")
    return mesh.curved(nodes[cell_nodes[:, vtk_order(mesh)[kind.corners :]]])


def vtk_order(mesh: Mesh) -> np.ndarray:
    """Where VTK's nodes of an element stand in ``cell_nodes``."""
    places = reference(mesh).doflocs
    corners = np.empty((mesh.kind.corners, mesh.dimension))
    corners[list(mesh.kind.order)] = places[: mesh.kind.corners]
    middles = [corners[list(m)].mean(axis=0) for m in mesh.kind.middles]
    wanted = np.concatenate([corners, middles])[: len(places)]
    gaps = np.abs(wanted[:, None] - places[None]).sum(axis=2)
    order: np.ndarray = gaps.argmin(axis=1)
    return order


def sample(mesh: Mesh, value: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The finite element function at ``points`` (n, d); ``value`` (*lead, nodes) gives (*lead, n).

    Raises InputError for a point outside the mesh.
    """
    import torch

    values = value.cpu() if value.is_complex() else value.cpu().double()
    owners, shares = located(mesh, points)
    nodes = torch.from_numpy(mesh.cell_nodes[owners].astype(np.int64))
    sampled: torch.Tensor = (values[..., nodes] * torch.from_numpy(shares)).sum(-1)
    return sampled


def located(mesh: Mesh, points: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The elements (n,) that hold ``points`` (n, d), and their basis functions there (n, N).

    Raises InputError for a point outside the mesh.
    """
    where = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if not mesh.affine:
        owners, X = _inside(mesh, where)
        known = owners >= 0
    else:
        where, known = _moved_inside(mesh, where)
    if not known.all():
        raise InputError("a point to sample at lies outside the mesh")
    if mesh.affine:
        owners = np.asarray(mesh.topology.element_finder()(*where.T))
        J = edge_vectors(mesh.points, mesh.cells[owners])
        gap = where - mesh.points[mesh.cells[owners, 0]]
        X = np.linalg.solve(J, gap[..., None])[..., 0]
    return owners, basis_at(reference(mesh), X.T)[0].copy()


def inside(mesh: Mesh, points: torch.Tensor) -> torch.Tensor:
    """Which of ``points`` (n, d) lie in the mesh or on its boundary, (n,)."""
    import torch

    where = np.atleast_2d(np.asarray(points, dtype=np.float64))
    if not mesh.affine:
        return torch.from_numpy(_inside(mesh, where)[0] >= 0)
    return torch.from_numpy(_moved_inside(mesh, where)[1])


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


def _inside(mesh: Mesh, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The elements that hold points (n, d), -1 where none does, and X there, by Newton's method."""
    shape, d = shape_of(mesh), mesh.dimension
    places = shape.places[shape.nodes]
    low, high = places.min(axis=1), places.max(axis=1)
    room = 0.25 * (high - low).max(axis=1, keepdims=True)
    owners, found = np.full(len(where), -1), np.zeros_like(where)
    centre = shape.element.doflocs[: mesh.kind.corners].mean(axis=0)
    for n, x in enumerate(where):
        near = np.flatnonzero(((x >= low - room) & (x <= high + room)).all(axis=1))
        X, local = np.tile(centre, (len(near), 1)), places[near]
        for _ in range(20):
            values, slopes = basis_at(shape.element, X.T)
            J = np.einsum("kia,kil->kal", local, slopes)
            gap = x - np.einsum("ki,kia->ka", values, local)
            # Far from its element a point has no X: those that run away are held near it.
            sound = np.abs(determinants(J)) > 0
            J[~sound] = np.eye(d)
            X = np.clip(X + np.linalg.solve(J, gap[..., None])[..., 0], -1.0, 2.0)
        beyond = np.maximum(-X.min(axis=1), X.max(axis=1) - 1)
        if mesh.kind.simplex:
            beyond = np.maximum(-X.min(axis=1), X.sum(axis=1) - 1)
        values = basis_at(shape.element, X.T)[0]
        gap = np.abs(x - np.einsum("ki,kia->ka", values, local)).max(axis=1)
        beyond[gap > 1e-9 * np.ptp(local, axis=1).max(axis=1)] = np.inf
        if len(near) and beyond.min() <= _OUTSIDE:
            owners[n], found[n] = near[beyond.argmin()], X[beyond.argmin()]
    return owners, found


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


def _check_cells(points: np.ndarray, cells: np.ndarray) -> Kind:
    d = points.shape[1]
    if not np.isfinite(points).all():
        first = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise InputError(f"point {first} of the mesh is not finite: {points[first]}", "mesh")
    kind = kind_of(d, cells.shape[1]) if cells.ndim == 2 and len(cells) else None
    if kind is None:
        raise InputError(
            f"a mesh in {d} dimensions needs cells of {plurals(d)}; got {list(cells.shape)}",
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
    return kind


def _oriented(points: np.ndarray, cells: np.ndarray, kind: Kind) -> np.ndarray:
    """The cells with positive orientation; InputError for flat ones."""
    d = points.shape[1]
    # A quadrilateral or hexahedron is spanned by the edges from its first corner.
    frame = cells if kind.simplex else cells[:, [0, 1, 3, 4][: d + 1]]
    edges = edge_vectors(points, frame)
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
        cells[inverted] = cells[inverted][:, turned_round(kind)]
    return cells


def turned_round(kind: Kind) -> tuple[int, ...]:
    """The corners of an element in the order in which it is turned the other way round."""
    if kind.simplex:
        return (1, 0, *range(2, kind.corners))
    return {4: (0, 3, 2, 1), 8: (4, 5, 6, 7, 0, 1, 2, 3)}[kind.corners]


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
    """Its own remarks, and those on parts that do not touch and on points that lie twice."""
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
    notes = list(mesh.notes)
    if parts > 1:
        notes.append(f"the mesh has {parts} parts that share no point: nothing passes between them")
    if twice:
        notes.append(
            f"{twice} pairs of the mesh's points lie in the same place and are two all the same; "
            f"mesh: {{merge: {1e-9 * size:.1g}}} makes them one"
        )
    return tuple(notes)
