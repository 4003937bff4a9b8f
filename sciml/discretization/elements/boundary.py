"""Conditions on the named boundaries of a mesh, and the unknowns that they leave.

A Dirichlet value is taken at the nodes. With free nodes F and fixed ones D, of value g,

    A_FF x = b_F - A_FD g,

which keeps A symmetric. A node on two Dirichlet boundaries takes the value of the one named first.
Values that are not free of one another, those of periodic sides and of walls along which a body may
slide, are u = T x, and A becomes T^T A T.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.condition import NO_WAVES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem
from sciml.core.problem.quadrature import (
    Quadrature,
    at_facet_nodes,
    at_nodes,
    load,
    on_facets,
    on_support,
    whole,
)
from sciml.core.problem.reader import Regions
from sciml.core.run.status import Doubt
from sciml.discretization.elements.data import MeshData, evaluate, mesh_data


@dataclass(frozen=True)
class Side:
    """A named boundary with its condition: its facets to integrate over, its nodes to fix.

    ``numbers``: those of its facets.
    """

    name: str
    condition: Condition
    numbers: np.ndarray
    facets: Quadrature
    nodes: Quadrature

    @property
    def key(self) -> str:
        """The dotted key of the condition's value in a spec."""
        return f"{self.place}.{self.condition.kind}"

    @property
    def place(self) -> str:
        """The dotted key of the boundary in a spec."""
        return f"problem.boundary.{self.name}"

    def own(self, field: str) -> tuple[Condition, str]:
        """The condition of a field, and the key of its value."""
        if self.condition.by_field is None:
            return self.condition, self.key
        given = self.condition.by_field[field]
        return given, f"{self.place}.{field}.{given.kind}"


def sides(problem: Problem, data: MeshData, open_too: bool = False) -> list[Side]:
    """One per named part; InputError for names that do not match the mesh's, or that overlap.

    ``open_too``: whether waves may leave through some.
    """
    mesh = data.mesh
    outer = mesh.topology.boundary_facets()
    numbers = _parts_of_sides(problem, data)
    _check_names(problem.boundary, mesh, numbers, outer)
    seen: dict[int, str] = {}
    found = []
    for name, condition in problem.boundary.items():
        key = f"problem.boundary.{name}"
        if condition.kind == "absorbing" and not open_too:
            raise InputError(f"{NO_WAVES}; give dirichlet, neumann or robin", key)
        if name in mesh.supports:
            facets = on_support(mesh, name, 2 * mesh.degree + 1)
            place = at_nodes(mesh, np.unique(facets.nodes.numpy()))
            found.append(Side(name, condition, np.empty(0, dtype=np.int64), facets, place))
            continue
        for other in {seen[n] for n in numbers[name].tolist() if n in seen}:
            raise InputError(f"'{name}' and '{other}' share facets; give each facet once", key)
        seen |= dict.fromkeys(numbers[name].tolist(), name)
        facets = on_facets(mesh, numbers[name], 2 * mesh.degree + 1)
        nodes = np.unique(facets.nodes.numpy())
        around = at_facet_nodes(mesh, numbers[name])
        faced = replace(at_nodes(mesh, nodes), normal=_at_nodes(around, nodes))
        if not np.isin(numbers[name], outer).all():
            # Within the mesh there is no outward normal: what is given there is a source.
            facets, faced = replace(facets, normal={}), at_nodes(mesh, nodes)
        found.append(Side(name, condition, numbers[name], facets, faced))
    bare = len(np.setdiff1d(outer, np.concatenate([*numbers.values(), []])))
    if bare:
        data.notes.append(f"{bare} boundary facets have no name: neumann 0 holds there")
    return found


def beside(coefficient: Any, side: Side, data: MeshData, key: str) -> torch.Tensor:
    """A coefficient of the elements at the facets of a side, by their regions where it has some."""
    if isinstance(coefficient, (list, tuple)):
        raise InputError(
            "waves leave through a side where K is one number; give robin there instead", key
        )
    if not isinstance(coefficient, Regions):
        return evaluate(coefficient, side.facets, data, key)
    mesh, part = data.mesh, side.facets
    owner = mesh.topology.f2t[0, side.numbers]
    found = torch.ones(part.points[0].shape, dtype=torch.float64)
    for name, entry in coefficient.regions.items():
        index = torch.from_numpy(np.flatnonzero(np.isin(owner, mesh.subdomains[name])))
        if len(index):
            own = evaluate(entry, part.of(index), data, f"{key}.regions.{name}")
            shape = torch.broadcast_shapes(own.shape, (len(index), found.shape[-1]))
            found = found.expand(*shape[:-2], *found.shape[-2:])
            found = found.index_copy(-2, index, own.expand(shape))
    return found


def check_sides(problem: Problem, mesh: Mesh) -> None:
    """Raise InputError where the conditions are not those of this mesh, by name or dimension."""
    numbers = _parts_of_sides(problem, mesh_data(problem, mesh))
    _check_names(problem.boundary, mesh, numbers, mesh.topology.boundary_facets())
    directed = problem.equation.vectors(mesh.dimension)
    for name, condition in problem.boundary.items() if directed else ():
        parts = {"": condition} if condition.by_field is None else condition.by_field
        for field, own in parts.items():
            key = ".".join(filter(None, ("problem.boundary", name, field, own.kind)))
            for given in (own.dirichlet, own.neumann):
                if isinstance(given, (list, tuple)) and len(given) != mesh.dimension:
                    raise InputError(
                        f"the mesh lies in {mesh.dimension} dimensions, and this list has "
                        f"{len(given)} entries, which should be one per axis",
                        key,
                    )


def facets_of(problem: Problem, data: MeshData, name: str, key: str) -> np.ndarray:
    """The facets of a boundary by its name, which may be that of a condition with ``where``."""
    known = _parts_of_sides(problem, data)
    if name in data.mesh.supports and name in problem.boundary:
        return np.empty(0, dtype=np.int64)
    if name not in known:
        tail = did_you_mean(name, known)
        raise InputError(
            f"the mesh has no boundary '{name}'; it has {', '.join(sorted(known))}"
            + (tail if "did you mean" in tail else ""),
            key,
        )
    return known[name]


def _parts_of_sides(problem: Problem, data: MeshData) -> dict[str, np.ndarray]:
    """The mesh's named boundaries, less what conditions with ``where`` take, and these parts."""
    mesh, found = data.mesh, dict(data.mesh.facets)
    parts = {name: c.where for name, c in problem.boundary.items() if c.where is not None}
    taken: dict[str, np.ndarray] = {}
    for name, text in parts.items():
        key = f"problem.boundary.{name}.where"
        if name in mesh.supports:
            raise InputError(f"where: is for facets; '{name}' is of points or lines", key)
        among = mesh.facets.get(name, mesh.topology.boundary_facets())
        middle = mesh.points[mesh.topology.facets[:, among]].mean(axis=0)
        columns = tuple(torch.from_numpy(axis.copy())[:, None] for axis in middle.T)
        place = replace(at_nodes(mesh, np.empty(0, dtype=np.int64)), points=columns)
        inside = evaluate(f"where({text}, 1, 0)", place, data, key).expand(len(among), 1)[:, 0] > 0
        taken[name] = among[inside.numpy()]
        if not len(taken[name]):
            raise InputError(f"no facet has its middle where {text}", key)
    for name, numbers in found.items() if taken else ():
        others = [facets for part, facets in taken.items() if part != name]
        found[name] = np.setdiff1d(numbers, np.concatenate([*others, np.empty(0, dtype=np.int64)]))
    return {name: numbers for name, numbers in (found | taken).items() if len(numbers)}


def _at_nodes(facets: Quadrature, nodes: np.ndarray) -> dict[str, torch.Tensor]:
    """Unit normals at the ``nodes`` of a boundary, (n, 1) each: means over the facets around.

    ``facets``: at their own nodes.
    """
    place = torch.from_numpy(np.searchsorted(nodes, facets.nodes.numpy()))
    means = []
    for n in facets.normal.values():
        share = (n * facets.scale).expand(place.shape)
        means.append(n.new_zeros(len(nodes)).index_add(0, place.flatten(), share.flatten()))
    length = torch.stack(means).norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    return {name: (m / length)[:, None] for name, m in zip(facets.normal, means, strict=True)}


def _check_names(
    given: Mapping[str, Condition],
    mesh: Mesh,
    known: Mapping[str, np.ndarray],
    outer: np.ndarray,
) -> None:
    named = mesh.facets
    for name in given:
        if name in mesh.supports:
            continue
        if name in named and name not in known:
            raise InputError(
                f"nothing is left of '{name}': conditions with where: take all of it",
                f"problem.boundary.{name}",
            )
        if name not in known:
            guess = did_you_mean(name, known)
            raise InputError(
                f"the mesh has no boundary '{name}'; it has {', '.join(sorted(known))}"
                + (guess if "did you mean" in guess else ""),
                f"problem.boundary.{name}",
            )
    # A facet of several groups needs one condition, not one for each of them.
    covered = [known[name] for name in given if name in known]
    bare = np.setdiff1d(outer, np.concatenate([*covered, []]))
    left = [n for n, f in named.items() if np.isin(f, bare).any()]
    missing = [f"the rest of {n}" if n in given else n for n in left]
    if missing:
        raise InputError(
            f"no boundary condition on {', '.join(sorted(missing))}; give each boundary of the "
            "mesh one of dirichlet, neumann, robin",
            "problem.boundary",
        )


_CORNER = 0.87  # cosine between the normals of neighbours below which they meet in a corner
_SAYS = 0.25  # of int |phi|, what int phi n must be to name a direction
_ROUND = 1e-4  # share of the mesh between facets and curve that is worth a note
_COARSE = 0.03  # one that makes the answer doubtful


def straightened(mesh: Mesh) -> list[str]:
    """A note where P2 elements have straight facets on a round boundary, with what they cut off.

    Of a mesh with curved elements there is none.

    Neighbouring facets whose normals turn by theta over the distance d between their middles have
    the curvature theta / d, unless only one neighbour turns, as at a kink. A chord of length L is
    then off the curve by kappa L^2 / 8, by two thirds of that in the mean; an equilateral triangle
    of edge L by kappa L^2 / 6, by kappa L^2 / 8 in the mean.
    """
    if mesh.degree == 1 or mesh.dimension == 1 or mesh.middles is not None:
        return []
    d = mesh.dimension
    outer = mesh.topology.boundary_facets()
    part = on_facets(mesh, outer, 1)
    corners = mesh.topology.facets[:, outer].T
    middle = mesh.points[corners].mean(1)
    normal = torch.stack([n.mean(-1) for n in part.normal.values()], -1).numpy()
    # Neighbours share a corner in the plane, an edge in space.
    count = corners.shape[1]
    turned = [np.roll(corners, -k, axis=1)[:, : d - 1] for k in range(count)]
    ridges = np.concatenate([np.sort(ridge, axis=1) for ridge in turned])
    order = np.lexsort(ridges.T)
    same = np.flatnonzero((ridges[order][1:] == ridges[order][:-1]).all(1))
    one, other = order[same], order[same + 1]
    first, second = one % len(outer), other % len(outer)
    cosine = (normal[first] * normal[second]).sum(1).clip(-1, 1)
    step = middle[second] - middle[first]
    turn = np.where(cosine > _CORNER, np.arccos(cosine), 0.0)
    bends = np.zeros(len(ridges))
    bends[one] = -np.sign((step * normal[first]).sum(1)) * turn / np.linalg.norm(step, axis=1)
    bends[other] = bends[one]
    around = bends.reshape(count, len(outer))
    ranked = np.take_along_axis(around, np.argsort(-np.abs(around), axis=0), axis=0)
    curvature = np.where(ranked[0] * ranked[1] > 0, np.abs(ranked[1]), 0.0)
    size = (part.scale * part.tables.weights).sum(-1).numpy()
    edge = size**2 if d == 2 else 4 / np.sqrt(3) * size
    off, mean = (curvature * edge / k for k in ((8, 12) if d == 2 else (6, 8)))
    cells = whole(mesh, 1)
    share = float((mean * size).sum() / (cells.scale * cells.tables.weights).sum())
    if share < _ROUND:
        return []
    farthest = outer[off.argmax()]
    name = next((n for n, numbers in mesh.facets.items() if farthest in numbers), "the boundary")
    note = (
        f"{name} is round and its facets are straight, up to {off.max():.2g} off the curve: "
        f"{100 * share:.2g} % of the mesh lie between, and {mesh.element} is no better than that; "
        "write the mesh in second order (gmsh -order 2), or refine there"
    )
    return [Doubt(note) if share > _COARSE else note]


@dataclass(frozen=True)
class Pattern:
    """Which pairs of nodes share an element: compressed rows, and where local entries go.

    ``ids``: the (nodes, nodes) pattern, its data the entries' own numbers.
    """

    ids: scipy.sparse.csr_matrix

    def entries(self, nodes: torch.Tensor) -> torch.Tensor:
        """For local matrices (k, N, N) on ``nodes`` (k, N): the entry of each, (k, N, N) int64."""
        count = nodes.shape[1]
        rows = np.repeat(nodes.numpy(), count, axis=1).ravel()
        columns = np.tile(nodes.numpy(), (1, count)).ravel()
        places = np.asarray(self.ids[rows, columns]).ravel()
        return torch.from_numpy(places.astype(np.int64)).reshape(-1, count, count)


def pattern(mesh: Mesh) -> Pattern:
    """The pattern of a scalar matrix on the mesh."""
    nodes = mesh.cell_nodes
    count, size = nodes.shape[1], mesh.shape[0]
    rows = np.repeat(nodes, count, axis=1).ravel()
    columns = np.tile(nodes, (1, count)).ravel()
    ones = np.ones(len(rows), dtype=np.int8)
    ids = scipy.sparse.coo_matrix((ones, (rows, columns)), shape=(size, size)).tocsr()
    ids.sort_indices()
    ids.data = np.arange(ids.nnz, dtype=np.int64)
    return Pattern(ids)


def scatter(local: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
    """Sum local entries (*batch, *places.shape) into (*batch, size)."""
    batch = local.shape[: local.ndim - places.ndim]
    flat = local.reshape(*batch, -1)
    index = places.reshape(-1)
    total = flat.new_zeros(*batch, size)
    if not batch:
        return total.index_add(0, index, flat)
    return total.scatter_add(-1, index.expand_as(flat), flat)


@dataclass(frozen=True)
class Ties:
    """u = T x: ``matrix`` is T, (n, n), whose columns are orthogonal, those that are gone empty."""

    matrix: scipy.sparse.csr_matrix

    @cached_property
    def gone(self) -> np.ndarray:
        """Which x there are not, (n,) bool."""
        found: np.ndarray = self.matrix.getnnz(axis=0) == 0
        return found

    @cached_property
    def _entries(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        coo = self.matrix.tocoo()
        rows, columns = (torch.from_numpy(i.astype(np.int64)) for i in (coo.row, coo.col))
        return rows, columns, torch.from_numpy(coo.data.astype(np.float64))

    def lift(self, x: torch.Tensor) -> torch.Tensor:
        """T x, (*batch, n)."""
        rows, columns, weights = (t.to(x.device) for t in self._entries)
        return scatter(x[..., columns] * weights.to(x.dtype), rows, len(self.gone))

    def gather(self, b: torch.Tensor) -> torch.Tensor:
        """T^T b, (*batch, n)."""
        rows, columns, weights = (t.to(b.device) for t in self._entries)
        return scatter(b[..., rows] * weights.to(b.dtype), columns, len(self.gone))

    def drop(self, u: torch.Tensor) -> torch.Tensor:
        """The x of u, in the mean where several values are one."""
        _, columns, weights = self._entries
        size = scatter(weights.square(), columns, len(self.gone)).to(u)
        return self.gather(u) / torch.where(size > 0, size, 1.0)

    def folding(self, ids: scipy.sparse.csr_matrix) -> Folding:
        """How entries of a matrix A of this pattern, whose data number them, make T^T A T."""
        entries, places = ids.tocoo(), self.matrix
        counts = np.diff(places.indptr)

        def spread(
            numbers: np.ndarray, of: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Of entries in the rows ``of`` of T: which they are, columns, and weights."""
            many = counts[of]
            which = np.repeat(numbers, many)
            within = np.arange(len(which)) - np.repeat(np.cumsum(many) - many, many)
            at = np.repeat(places.indptr[of], many) + within
            return which, places.indices[at], places.data[at]

        first, a, left = spread(np.arange(len(entries.row)), entries.row)
        second, b, right = spread(np.arange(len(first)), entries.col[first])
        rows, columns = a[second], b
        weights = torch.from_numpy(left[second] * right)
        n = len(self.gone)
        folded = scipy.sparse.coo_matrix(
            (np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n)
        ).tocsr()
        folded.sort_indices()
        folded.data = np.arange(folded.nnz, dtype=np.int64)
        index = torch.from_numpy(np.asarray(folded[rows, columns]).ravel().astype(np.int64))
        source = torch.from_numpy(entries.data[first[second]].astype(np.int64))
        return Folding(folded, source, weights, index)

    def fold(self, whole: Whole) -> Whole:
        """T^T A T and T^T b."""
        folding = self.folding(whole.ids)
        return Whole(folding.ids, folding.values(whole.values), self.gather(whole.b))


@dataclass(frozen=True)
class Folding:
    """T^T A T of the entries of A: entry ``index`` is the sum of ``weights`` times ``source``."""

    ids: scipy.sparse.csr_matrix
    source: torch.Tensor
    weights: torch.Tensor
    index: torch.Tensor

    def values(self, entries: torch.Tensor) -> torch.Tensor:
        """Its entries by ``ids``, of those of A, (*batch, entries)."""
        return scatter(entries[..., self.source] * self.weights, self.index, self.ids.nnz)


def owners(boundary: list[Side], mesh: Mesh) -> np.ndarray | None:
    """For every node the one whose value it has; None where no side is periodic.

    Periodic sides are paired by the vector that takes the nodes of one to those of the other.
    Raises InputError where there is none.
    """
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    left = [side for side in boundary if side.condition.kind == "periodic"]
    if not left:
        return None
    size, pairs = float(np.ptp(mesh.nodes, axis=0).max()), []
    while left:
        own = left.pop(0)
        here = own.nodes.nodes[:, 0].numpy()
        for other in left:
            there = other.nodes.nodes[:, 0].numpy()
            if len(there) != len(here):
                continue
            shift = mesh.nodes[there].mean(axis=0) - mesh.nodes[here].mean(axis=0)
            gap, match = cKDTree(mesh.nodes[there]).query(mesh.nodes[here] + shift)
            if gap.max() <= 1e-6 * size and len(np.unique(match)) == len(match):
                pairs.append(np.stack([here, there[match]]))
                left.remove(other)
                break
        else:
            raise InputError(
                f"periodic: no other periodic side is '{own.name}' moved by one vector, node by "
                "node; mesh the two alike (Periodic Curve in Gmsh)",
                f"{own.place}.periodic",
            )
    rows, columns = np.concatenate(pairs, axis=1)
    n = len(mesh.nodes)
    links = scipy.sparse.coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), (n, n))
    labels = connected_components(links, directed=False)[1]
    first = np.full(labels.max() + 1, n)
    np.minimum.at(first, labels, np.arange(n))
    found: np.ndarray = first[labels]
    return found


_PARALLEL = 1e-6  # sine of an angle between walls below which they are one
_SMOOTH = 0.985  # cosine between the normals of two sides above which they are one wall


@dataclass(frozen=True)
class Tied:
    """Values u = T x of which not all are free of one another, and which of x are known.

    ``mask``: those, and what there is not of x. ``source``: what they are, (n, n + m), of the given
    u and then of what the walls give, node after node.
    """

    ties: Ties
    mask: np.ndarray
    source: scipy.sparse.csr_matrix

    def known(self, values: torch.Tensor, of_walls: list[torch.Tensor]) -> torch.Tensor:
        """The known x, zero elsewhere, of given u (*batch, n) and of walls (*batch, nodes)."""
        given = [values, *of_walls]
        batch = torch.broadcast_shapes(*(g.shape[:-1] for g in given))
        stacked = torch.cat([g.expand(*batch, g.shape[-1]) for g in given], -1)
        coo = self.source.tocoo()
        rows, columns = (torch.from_numpy(i.astype(np.int64)) for i in (coo.row, coo.col))
        weights = torch.from_numpy(coo.data).to(stacked.dtype)
        return scatter(stacked[..., columns] * weights, rows, len(self.mask))

    def fixed(self, values: torch.Tensor, of_walls: list[torch.Tensor]) -> Fixed:
        """With the values themselves."""
        return Fixed(self.mask, self.known(values, of_walls), self.ties)


def tied(
    boundary: list[Side],
    mesh: Mesh,
    mask: np.ndarray,
    n: int,
    walls: list[tuple[Side, int]],
) -> Tied | None:
    """Of n values at each node, (node, value) numbered node by node; None where all are free.

    ``mask`` (nodes n,): which are given. ``walls``: sides that give a vector along their normal,
    with the number of its first component. On periodic sides a value that is given on one is given
    on the other. At a node of several walls, or of a wall and components that are
    given, all of these hold as far as they are independent: with the normals N = Q R and u = Q y,
    R^T y is what is given.
    """
    owner = owners(boundary, mesh)
    if owner is None and not walls:
        return None
    total, d = len(mask), mesh.dimension
    owner = np.arange(mesh.shape[0]) if owner is None else owner
    own = (owner[:, None] * n + np.arange(n)).ravel()
    known = np.flatnonzero(mask)[::-1]
    held, source = np.zeros(total, dtype=bool), np.arange(total)
    # The first of those that are known gives its value to all.
    held[own[known]], source[own[known]] = True, known
    plain, turn = held.copy(), scipy.sparse.identity(total, format="lil")
    rows: list[tuple[int, int, float]] = []
    for (node, first), met in _met(walls, mesh, owner, total).items():
        dofs = np.arange(d) + node * n + first
        given = [
            (axis, source[dof]) for axis, dof in zip(np.eye(d), dofs, strict=True) if held[dof]
        ]
        basis: list[np.ndarray] = []
        sources = []
        for normal, number in [*given, *met]:
            rest = normal - sum((normal @ q) * q for q in basis)
            size = np.linalg.norm(rest)
            if size > _PARALLEL:
                basis.append(rest / size)
                sources.append((normal, number))
        full = np.linalg.qr(np.column_stack([*basis, np.eye(d)]))[0][:, :d]
        full[:, : len(basis)] = np.column_stack(basis)
        R = full[:, : len(basis)].T @ np.column_stack([normal for normal, _ in sources])
        share = np.linalg.inv(R.T)
        turn[dofs[0] : dofs[0] + d, dofs[0] : dofs[0] + d] = full
        held[dofs], plain[dofs] = np.arange(d) < len(basis), False
        rows += [
            (int(dof), int(number), float(share[k, j]))
            for k, dof in enumerate(dofs[: len(basis)])
            for j, (_, number) in enumerate(sources)
        ]
    rows += [(int(dof), int(source[dof]), 1.0) for dof in np.flatnonzero(plain)]
    width = total + sum(len(side.nodes.nodes) for side, _ in walls)
    places, numbers, shares = (np.array([row[k] for row in rows]) for k in range(3))
    given_by = scipy.sparse.csr_matrix(
        (shares.astype(np.float64), (places.astype(np.int64), numbers.astype(np.int64))),
        shape=(total, width),
    )
    copies = scipy.sparse.csr_matrix((np.ones(total), (np.arange(total), own)), shape=(total,) * 2)
    matrix = (copies @ turn.tocsr()).tocsr()
    # What is no node's own is gone, turned or not.
    kept = scipy.sparse.diags((np.bincount(own, minlength=total) > 0).astype(np.float64))
    matrix = (matrix @ kept).tocsr()
    matrix.eliminate_zeros()
    ties = Ties(matrix)
    return Tied(ties, held | ties.gone, given_by)


def along_normal(side: Side, given: Any, key: str, data: MeshData) -> torch.Tensor:
    """What a wall gives along its normal, at its nodes, (*batch, nodes)."""
    g = evaluate(given, side.nodes, data, key)[..., 0]
    return g.expand(*g.shape[:-1], len(side.nodes.nodes))


def _met(
    walls: list[tuple[Side, int]], mesh: Mesh, owner: np.ndarray, start: int
) -> dict[tuple[int, int], list[tuple[np.ndarray, int]]]:
    """By node and first component the walls there: unit normals, and the number of what is given.

    The normal of node i is that of int phi_i n over the facets around it: then the flux through the
    wall of what slides along it is zero as a whole (Engelman, Sani and Gresho 1982). Where this
    integral says nothing, as at the vertices of quadratic triangles in space, it is the mean of the
    normals there. Facets of a side that meet in a corner are walls of their own.
    """
    found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray, int, Side]]] = {}
    for side, first in walls:
        if not side.facets.normal:
            raise InputError("the outward normal is known on the outer boundary only", side.key)
        around = at_facet_nodes(mesh, side.numbers)
        here = torch.stack([n.expand(around.nodes.shape) for n in around.normal.values()], -1)
        tested = torch.stack([load(side.facets, n) for n in side.facets.normal.values()], -1)
        size = (side.facets.measure @ side.facets.tables.values.abs())[..., None]
        told = tested.norm(dim=-1, keepdim=True) > _SAYS * size
        tested = torch.where(told, tested, here * size)
        nodes = side.nodes.nodes[:, 0].numpy()
        at = start + np.searchsorted(nodes, around.nodes.numpy())
        for node, number, normal, weighed in zip(
            owner[around.nodes.numpy()].ravel().tolist(),
            at.ravel().tolist(),
            here.flatten(0, 1).numpy(),
            tested.flatten(0, 1).numpy(),
            strict=True,
        ):
            met = found.setdefault((node, first), [])
            for k, (total, one, given, other) in enumerate(met):
                if one @ normal > (_CORNER if other is side else _SMOOTH):
                    met[k] = (total + weighed, one, given, other)
                    break
            else:
                met.append((weighed, normal, number, side))
        start += len(nodes)
    return {
        place: [(total / np.linalg.norm(total), number) for total, _, number, _ in met]
        for place, met in found.items()
    }


@dataclass(frozen=True)
class Fixed:
    """Degrees of freedom whose value is known: a mask (n,) and the values (*batch, n).

    With ``ties`` these are those of x, and what there is not of it counts as known, 0.
    """

    mask: np.ndarray
    values: torch.Tensor
    ties: Ties | None = None

    @property
    def held(self) -> np.ndarray:
        """Those that a condition gives, (n,) bool."""
        return self.mask if self.ties is None else self.mask & ~self.ties.gone

    @property
    def free(self) -> torch.Tensor:
        """The numbers of the others, int64."""
        return torch.from_numpy(np.flatnonzero(~self.mask))


@dataclass(frozen=True)
class Embedding:
    """Between unknowns and nodal values: ``shape`` is (nodes,), or (fields, nodes)."""

    fixed: Fixed
    shape: tuple[int, ...]

    def lift(self, x: torch.Tensor) -> torch.Tensor:
        """Unknowns (*batch, n) to values (*batch, *shape)."""
        values = self.fixed.values.to(x)
        batch = torch.broadcast_shapes(x.shape[:-1], values.shape[:-1])
        index = self.fixed.free.to(x.device)
        full = values.expand(*batch, -1).clone()
        full = full.index_copy(-1, index, x.expand(*batch, len(index)))
        full = full if self.fixed.ties is None else self.fixed.ties.lift(full)
        if len(self.shape) == 1:
            return full
        return torch.unflatten(full, -1, self.shape[::-1]).mT.contiguous()

    def restrict(self, value: torch.Tensor) -> torch.Tensor:
        """Values (*batch, *shape) to the unknowns."""
        flat = value if len(self.shape) == 1 else value.mT.flatten(-2)
        flat = flat if self.fixed.ties is None else self.fixed.ties.drop(flat)
        return flat[..., self.fixed.free.to(value.device)]


@dataclass(frozen=True)
class Whole:
    """A system before elimination: ``ids`` is the pattern over all degrees of freedom.

    Its data number the entries of ``values`` (*batch, entries); ``b`` is (*batch, n).
    """

    ids: scipy.sparse.csr_matrix
    values: torch.Tensor
    b: torch.Tensor


def eliminate(
    whole: Whole,
    fixed: Fixed,
    build: Callable[[np.ndarray, np.ndarray, torch.Tensor], PatternMatrix],
) -> tuple[PatternMatrix, torch.Tensor]:
    """A_FF, made by ``build(indptr, columns, values)``, and b_F - A_FD g."""
    whole = whole if fixed.ties is None else fixed.ties.fold(whole)
    if fixed.mask.all():
        raise InputError(
            "every node lies on a dirichlet boundary: refine the mesh", "problem.boundary"
        )
    rows = whole.ids[~fixed.mask] if fixed.mask.any() else whole.ids
    inner = rows[:, ~fixed.mask] if fixed.mask.any() else rows
    inner.sort_indices()
    A = build(inner.indptr, inner.indices, whole.values[..., torch.from_numpy(inner.data)])
    b = whole.b[..., fixed.free]
    if fixed.mask.any() and bool((fixed.values != 0).any()):
        outer = rows[:, fixed.mask].tocoo()
        known = fixed.values[..., torch.from_numpy(np.flatnonzero(fixed.mask))]
        columns = torch.from_numpy(outer.col.astype(np.int64))
        moved = whole.values[..., torch.from_numpy(outer.data)] * known[..., columns]
        b = b - scatter(moved, torch.from_numpy(outer.row.astype(np.int64)), b.shape[-1])
    return A, b


def system_of(
    A: PatternMatrix,
    b: torch.Tensor,
    embedding: Embedding,
    data: MeshData,
    fields: tuple[str, ...],
    defect: torch.Tensor | None = None,
) -> LinearSystem:
    """The system, its right-hand side given the batch that A has."""
    lead = torch.broadcast_shapes(b.shape[:-1], A.batch)
    return LinearSystem(
        A,
        b.expand(*lead, b.shape[-1]).contiguous(),
        data.mesh,
        embedding.lift,
        embedding.restrict,
        tuple(data.notes),
        defect,
        fields=fields,
    )


def parts_of(mesh: Mesh, owner: np.ndarray | None = None) -> np.ndarray:
    """For every node, the number of the connected part of the mesh that it belongs to.

    ``owner``: for every node one that is connected with it.
    """
    # Most of what loads this module has no mesh.
    from scipy.sparse.csgraph import connected_components

    nodes = mesh.cell_nodes
    rows = np.repeat(nodes[:, 0], nodes.shape[1] - 1)
    columns = nodes[:, 1:].ravel()
    if owner is not None:
        rows = np.concatenate([rows, np.arange(len(owner))])
        columns = np.concatenate([columns, owner])
    links = scipy.sparse.coo_matrix(
        (np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(mesh.shape[0],) * 2
    )
    labels: np.ndarray = connected_components(links, directed=False)[1]
    return labels
