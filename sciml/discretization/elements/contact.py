"""Obstacles and contact on a mesh: bounds of the unknowns of a finite element equation.

    lower <= u <= upper        at the nodes of a field between obstacles,
    n . u <= gap               at the nodes of a side that may touch a rigid body (Signorini),

n the outward normal at the node, in axes that are turned there so that n . u is an unknown by
itself. What holds a node back is the rest of the weak form there, which is the contact force times
the basis function; a node whose function has no integral, as the vertices of quadratic triangles,
is no node to push at, and is bounded by its neighbours alone (Brezzi, Hager and Raviart 1977).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.inequality import between
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Coefficient
from sciml.core.problem.quadrature import Quadrature, at_nodes, load, whole
from sciml.discretization.elements.boundary import Side, Ties, scatter
from sciml.discretization.elements.data import MeshData, evaluate
from sciml.discretization.volumes.coefficients import check_order

_GIVEN = "the value given on the boundary"
_HELD = 1e-6  # of a normal, what must lie along axes that are free, to bound anything
_PUSHED = 1e-10  # of the largest integral of a basis function, below which there is none


def pushed(mesh: Mesh, part: Quadrature) -> torch.Tensor:
    """The integral of every node's function over a part, zero where a node is not pushed there."""
    total = scatter(load(part, torch.ones(1, 1)), part.nodes, mesh.shape[0])
    return torch.where(total > _PUSHED * total.max(), total, 0.0)


def obstacles(
    mesh: Mesh, data: MeshData, given: Mapping[str, Coefficient | None], key: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """``lower`` and ``upper`` of a field, (*batch, nodes); InputError where they cross."""
    everywhere = at_nodes(mesh, np.arange(mesh.shape[0]))
    found = []
    for name, none in (("lower", -torch.inf), ("upper", torch.inf)):
        if given[name] is None:
            found.append(torch.full((mesh.shape[0],), none, dtype=torch.float64))
            continue
        value = evaluate(given[name], everywhere, data, f"{key}.{name}")[..., 0]
        found.append(value.expand(*value.shape[:-1], mesh.shape[0]))
    lower, upper = torch.broadcast_tensors(*found)
    points = tuple(x[:, 0] for x in everywhere.points)
    check_order(lower, upper, points, f"{key}.lower")
    return lower, upper


def bounded(
    free: NonlinearSystem,
    mesh: Mesh,
    data: MeshData,
    *,
    fields: int,
    given: Mapping[int, tuple[Mapping[str, Coefficient | None], str]],
    sides: Sequence[Side],
    fixed: np.ndarray,
    known: torch.Tensor,
) -> NonlinearSystem:
    """``free`` with the obstacles ``given``, by the field's number, and the sides that touch.

    ``fixed`` (nodes fields,) which values are prescribed, ``known`` (*batch, nodes fields) as what.
    """
    n, nodes = fields, mesh.shape[0]
    lower, upper = (torch.full((nodes, n), v, dtype=torch.float64) for v in (-torch.inf, torch.inf))
    points = tuple(x[:, 0] for x in at_nodes(mesh, np.arange(nodes)).points)
    alive = pushed(mesh, whole(mesh, 2 * mesh.degree)) > 0
    prescribed = torch.from_numpy(fixed).unflatten(-1, (nodes, n))
    for j, (bounds, key) in given.items():
        low, high = obstacles(mesh, data, bounds, key)
        value = known.unflatten(-1, (nodes, n))[..., j]
        here = prescribed[:, j]
        there = tuple(x[here] for x in points)
        check_order(low[..., here], value[..., here], there, f"{key}.lower", _GIVEN)
        check_order(value[..., here], high[..., here], there, "problem.boundary")
        low, high = torch.where(alive, low, -torch.inf), torch.where(alive, high, torch.inf)
        lead = torch.broadcast_shapes(lower.shape[:-2], low.shape[:-1])
        own = torch.arange(n) == j
        lower = torch.where(own, low.expand(*lead, nodes)[..., None], lower)
        upper = torch.where(own, high.expand(*lead, nodes)[..., None], upper)
    turn: dict[int, np.ndarray] = {}
    for side in sides:
        number, block, gap = _touching(side, mesh, data, n, fixed, known)
        lead = torch.broadcast_shapes(upper.shape[:-2], gap.shape[:-1])
        flat = upper.expand(*lead, nodes, n).flatten(-2)
        upper = flat.index_copy(-1, number, gap.expand(*lead, len(number))).unflatten(
            -1, (nodes, n)
        )
        turn |= block
    index = torch.from_numpy(np.flatnonzero(~fixed))
    lower, upper = (v.flatten(-2)[..., index] for v in torch.broadcast_tensors(lower, upper))
    if turn:
        matrix = scipy.sparse.identity(nodes * n, format="lil")
        for node, axes in turn.items():
            its = slice(node * n, node * n + n)
            matrix[its, its] = axes
        kept = index.numpy()
        free = turned(free, Ties(matrix.tocsr()[kept][:, kept]))
    return between(free, lower, upper)


def _touching(
    side: Side, mesh: Mesh, data: MeshData, n: int, fixed: np.ndarray, known: torch.Tensor
) -> tuple[torch.Tensor, dict[int, np.ndarray], torch.Tensor]:
    """Of a side's nodes the unknowns n . u, the axes (n, n) turned there, and their gaps."""
    if not side.nodes.normal:
        raise InputError("the outward normal is known on the outer boundary only", side.key)
    alive = pushed(mesh, side.facets)
    nodes = side.nodes.nodes[:, 0]
    gap = evaluate(side.condition.contact, side.nodes, data, side.key)[..., 0]
    gap = gap.expand(*gap.shape[:-1], len(nodes))
    normals = torch.cat(list(side.nodes.normal.values()), -1)
    own = known.unflatten(-1, (-1, n))[..., nodes, :]
    held = torch.from_numpy(fixed).unflatten(-1, (-1, n))[nodes]
    moved = torch.where(held, normals * own, 0.0).sum(-1)
    open_ = torch.where(held, 0.0, normals)
    size = open_.norm(dim=-1)
    bound = (gap - moved) / size.clamp(min=_HELD)
    kept = (size > _HELD) & (alive[nodes] > 0)
    numbers, blocks = [], {}
    for node, normal, loose, use in zip(
        nodes.tolist(), (open_ / size.clamp(min=_HELD)[:, None]).numpy(), (~held).numpy(),
        kept.tolist(), strict=True,
    ):  # fmt: skip
        if not use:
            continue
        # The normal first, then what completes it, among the components that are free.
        where = np.flatnonzero(loose)
        full = np.linalg.qr(np.column_stack([normal[where], np.eye(len(where))]))[0][
            :, : len(where)
        ]
        full[:, 0] = normal[where]
        block = np.eye(n)
        block[np.ix_(where, where)] = full
        blocks[node] = block
        numbers.append(node * n + int(where[0]))
    return torch.tensor(numbers, dtype=torch.int64), blocks, bound[..., kept]


def pressures(
    mesh: Mesh,
    left: torch.Tensor,
    *,
    fields: Sequence[str],
    given: Sequence[int],
    sides: Sequence[Side],
    fixed: np.ndarray,
) -> dict[str, torch.Tensor]:
    """What the bounds push with, per volume or per area, at the nodes: (*batch, nodes) by name.

    ``left``: the rest of the weak form, (*batch, nodes fields). Of an obstacle positive where it
    pushes u up; of sides that touch a pressure, zero on others.
    """
    n, found = len(fields), dict[str, torch.Tensor]()
    rows = left.unflatten(-1, (mesh.shape[0], n))
    free = ~torch.from_numpy(fixed).unflatten(-1, (mesh.shape[0], n))
    volume = pushed(mesh, whole(mesh, 2 * mesh.degree))
    for j in given:
        name = f"{fields[j]}_contact" if n > 1 else "contact"
        density = rows[..., j] / torch.where(volume > 0, volume, torch.inf)
        found[name] = torch.where(free[:, j], density, 0.0)
    total = torch.zeros(rows.shape[:-1], dtype=torch.float64)
    for side in sides:
        area, nodes = pushed(mesh, side.facets), side.nodes.nodes[:, 0]
        normals = torch.cat(list(side.nodes.normal.values()), -1) * free[nodes]
        inward = -(rows[..., nodes, :] * normals).sum(-1)
        inward = inward / normals.square().sum(-1).clamp(min=_HELD)
        density = inward / torch.where(area > 0, area, torch.inf)[nodes]
        total = total.index_add(-1, nodes, density)
    return found | ({"contact": total} if sides else {})


def turned(system: NonlinearSystem, ties: Ties) -> NonlinearSystem:
    """The same for unknowns y, u = T y, T orthogonal."""
    T = ties.matrix

    def matrix(J: LinearMap) -> PatternMatrix:
        assert isinstance(J, PatternMatrix)
        folded = [(T.T @ each @ T).tocsr() for each in J.matrices()]
        for each in folded:
            each.sort_indices()
        values = torch.from_numpy(np.stack([each.data for each in folded]))
        return PatternMatrix(
            folded[0].indptr,
            folded[0].indices,
            values.reshape(*J.batch, -1),
            symmetric=J.symmetric,
            definite=J.definite,
            near_nullspace=None if J.near_nullspace is None else T.T @ J.near_nullspace,
        )

    return replace(
        system,
        residual=lambda y, t: ties.gather(system.residual(ties.lift(y), t)),
        linearise=lambda y, t: matrix(system.linearise(ties.lift(y), t)),
        diffusion=lambda y, t: matrix(system.diffusion(ties.lift(y), t)),
        lift=lambda y, t: system.lift(ties.lift(y), t),
        restrict=lambda value: ties.gather(system.restrict(value)),
        remarks=lambda y, t: system.remarks(ties.lift(y), t),
    )
