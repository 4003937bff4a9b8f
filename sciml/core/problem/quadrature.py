"""Integrals over elements, facets and nodes of a mesh, by quadrature on the reference element.

With x = p_0 + J X the map from the reference element, phi_i its basis functions and w_q, X_q its
quadrature rule (both scikit-fem's),

    int_e c phi_i phi_j  ~  sum_q (w_q |det J| c_q) phi_i(X_q) phi_j(X_q),    grad = J^-T grad_X.

Every local integral is a product of what differs between the elements (the coefficient and J) with
a table that does not, one matrix product for all elements, samples and quadrature points; so it is
linear, and differentiable, in the coefficient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, edge_vectors, reference

if TYPE_CHECKING:
    import skfem

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Tables:
    """The reference element at its Q quadrature points: N basis functions.

    ``points`` (Q, d), ``weights`` (Q,), ``values`` (Q, N), ``slopes`` (Q, N, d), float64.
    """

    points: torch.Tensor
    weights: torch.Tensor
    values: torch.Tensor
    slopes: torch.Tensor


@dataclass(frozen=True)
class Quadrature:
    """k elements, facets or nodes of a mesh, with where and how to integrate over them.

    ``nodes`` (k, N) int64; ``scale`` (k,): |det J|; ``inverse`` (k, d, d): J^-1, of elements only;
    ``points``: x, y, z of the quadrature points, (k, Q) each. ``normal``: of facets the unit normal
    out of the mesh, (k, 1) each, by its names nx, ny, nz.
    """

    tables: Tables
    nodes: torch.Tensor
    scale: torch.Tensor
    points: tuple[torch.Tensor, ...]
    inverse: torch.Tensor | None = None
    normal: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def measure(self) -> torch.Tensor:
        """w_q |det J|, (k, Q)."""
        return self.scale[:, None] * self.tables.weights

    def at_points(self, nodal: torch.Tensor) -> torch.Tensor:
        """Values (*lead, nodes of the mesh) at the quadrature points, (*lead, k, Q)."""
        return nodal[..., self.nodes] @ self.tables.values.T


def tables(element: skfem.Element, degree: int) -> Tables:
    """The reference element with a rule exact for polynomials of ``degree``."""
    from skfem.quadrature import get_quadrature

    X, weights = get_quadrature(element, degree)
    count = element.doflocs.shape[0]
    pairs = [element.lbasis(X, i) for i in range(count)]
    values = np.stack([np.broadcast_to(v, X.shape[1:]) for v, _ in pairs], axis=-1)
    slopes = np.stack([np.broadcast_to(g, X.shape) for _, g in pairs], axis=-1)
    return Tables(
        torch.from_numpy(X.T.copy()),
        torch.from_numpy(np.asarray(weights, dtype=np.float64).copy()),
        torch.from_numpy(values.copy()),
        torch.from_numpy(slopes.transpose(1, 2, 0).copy()),
    )


def whole(mesh: Mesh, degree: int) -> Quadrature:
    """All elements of the mesh."""
    entries = tables(reference(mesh), degree)
    J = torch.from_numpy(edge_vectors(mesh.points, mesh.cells))
    start = torch.from_numpy(mesh.points[mesh.cells[:, 0]])
    return Quadrature(
        entries,
        torch.from_numpy(mesh.cell_nodes.astype(np.int64)),
        torch.linalg.det(J).abs(),
        _mapped(start, J, entries.points),
        torch.linalg.inv(J),
    )


def on_facets(mesh: Mesh, facets: np.ndarray, degree: int) -> Quadrature:
    """Numbered facets: points, edges or triangles."""
    import skfem

    nodes = torch.from_numpy(mesh.facet_nodes(facets).astype(np.int64))
    corners = mesh.topology.facets[:, facets].T
    start = torch.from_numpy(mesh.points[corners[:, 0]])
    if mesh.dimension == 1:
        one = torch.ones(1, dtype=torch.float64)
        entries = Tables(one[:, None][:, :0], one, one[:, None], one[:, None, None][..., :0])
        scale = torch.ones(len(nodes), dtype=torch.float64)
        return Quadrature(
            entries, nodes, scale, (start,), normal=_normal(mesh, facets, start, None)
        )
    kinds = {
        2: (skfem.ElementLineP1, skfem.ElementLineP2),
        3: (skfem.ElementTriP1, skfem.ElementTriP2),
    }[mesh.dimension]
    entries = tables(kinds[mesh.degree - 1](), degree)
    J = torch.from_numpy(edge_vectors(mesh.points, corners))
    scale = torch.linalg.det(J.mT @ J).sqrt()
    normal = _normal(mesh, facets, start, J)
    return Quadrature(entries, nodes, scale, _mapped(start, J, entries.points), normal=normal)


def _normal(
    mesh: Mesh, facets: np.ndarray, start: torch.Tensor, J: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    """The unit normals of facets, out of the element that each belongs to first.

    ``start`` (k, d) a corner of each, ``J`` (k, d, d - 1) the edges from there.
    """
    if J is None:
        normal = torch.ones_like(start)
    elif J.shape[-1] == 1:
        normal = torch.stack([J[:, 1, 0], -J[:, 0, 0]], -1)
    else:
        normal = torch.linalg.cross(J[..., 0], J[..., 1])
    cells = mesh.topology.t[:, mesh.topology.f2t[0, facets]]
    middle = torch.from_numpy(mesh.points[cells].mean(0))
    outward = ((start - middle) * normal).sum(-1, keepdim=True).sign()
    normal = outward * normal / normal.norm(dim=-1, keepdim=True)
    return {f"n{axis}": n[:, None] for axis, n in zip(AXES, normal.unbind(-1), strict=False)}


def at_nodes(mesh: Mesh, nodes: np.ndarray) -> Quadrature:
    """Numbered nodes, one point each."""
    one = torch.ones(1, dtype=torch.float64)
    entries = Tables(one[:, None][:, :0], one, one[:, None], one[:, None, None][..., :0])
    where = torch.from_numpy(mesh.nodes[nodes])
    index = torch.from_numpy(np.asarray(nodes, dtype=np.int64))[:, None]
    ones = torch.ones(len(nodes), dtype=torch.float64)
    return Quadrature(entries, index, ones, tuple(axis[:, None] for axis in where.T))


def _mapped(start: torch.Tensor, J: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """p_0 + J X at all points X (Q, d), one (k, Q) tensor per axis."""
    return tuple(
        (start[:, a, None] + J[:, a, :] @ points.T).contiguous() for a in range(start.shape[1])
    )


def load(part: Quadrature, f: torch.Tensor) -> torch.Tensor:
    """int f phi_i for f (*batch, k, Q) or broadcastable: (*batch, k, N)."""
    return (f * part.measure) @ part.tables.values


def mass(part: Quadrature, c: torch.Tensor) -> torch.Tensor:
    """int c phi_i phi_j for c (*batch, k, Q) or broadcastable: (*batch, k, N, N)."""
    entries = part.tables
    table = torch.einsum("qi,qj->qij", entries.values, entries.values)
    return _product((c * part.measure), table)


def stiffness(part: Quadrature, K: torch.Tensor) -> torch.Tensor:
    """int (K grad phi_j) . grad phi_i: (*batch, k, N, N).

    K is (*batch, k, Q, 1, 1) times the identity, or (*batch, k, Q, d, d); k and Q may be 1.
    """
    assert part.inverse is not None
    entries, inverse = part.tables, part.inverse[:, None]
    table = torch.einsum("q,qik,qjl->qklij", entries.weights, entries.slopes, entries.slopes)
    metric = inverse @ inverse.mT if K.shape[-1] == 1 else inverse @ K @ inverse.mT
    metric = metric * part.scale[:, None, None, None]
    metric = metric * K if K.shape[-1] == 1 else metric
    return _product(metric, table)


def advection(part: Quadrature, b: torch.Tensor) -> torch.Tensor:
    """int (b . grad phi_j) phi_i for b (*batch, k, Q, d): (*batch, k, N, N)."""
    assert part.inverse is not None
    entries = part.tables
    table = torch.einsum("q,qi,qjl->qlij", entries.weights, entries.values, entries.slopes)
    speed = torch.einsum("kla,...kqa->...kql", part.inverse, b) * part.scale[:, None, None]
    return _product(speed, table)


def gradients(part: Quadrature, c: torch.Tensor) -> torch.Tensor:
    """int c (d phi_i / d x_a) (d phi_j / d x_b), (*batch, k, N, d, N, d), for c (*batch, k, Q)."""
    assert part.inverse is not None
    entries, (count, d) = part.tables, part.tables.slopes.shape[1:]
    weighted = c * part.measure
    points = entries.slopes
    if torch.equal(points, points[:1].expand_as(points)):
        weighted, points = weighted.sum(-1, keepdim=True), points[:1]
    done = []
    for first in range(0, len(part.nodes), _CHUNK):
        span = slice(first, first + _CHUNK)
        slope = (points @ part.inverse[span, None]).flatten(-2)
        done.append((slope * weighted[..., span, :, None]).mT @ slope)
    whole: torch.Tensor = torch.cat(done, dim=-3).unflatten(-1, (count, d))
    found: torch.Tensor = whole.unflatten(-3, (count, d))
    return found


def _product(varying: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """sum over (q, ...) of (*batch, k, Q, ...) and (Q, ..., N, N); Q = 1 means constant."""
    inner = table.ndim - 3
    lead = varying.shape[: varying.ndim - 1 - inner]
    if varying.shape[len(lead)] == 1:
        table = table.sum(0, keepdim=True)
    count = table.shape[-1]
    flat = varying.reshape(*lead, -1) @ table.reshape(-1, count * count)
    found: torch.Tensor = flat.unflatten(-1, (count, count))
    return found


def relative_error(
    mesh: Mesh,
    value: torch.Tensor,
    exact: Callable[..., Any] | Any,
    lead: int = 0,
    slope: bool = False,
    free: bool = False,
) -> torch.Tensor:
    """||u - exact|| / ||exact|| in L2 per sample, ``value`` (*batch, [fields,] nodes).

    Where the exact function is zero everywhere it is absolute: the root of the mean square.
    ``lead``: the number of batch dimensions; ``slope``: of the gradients instead (H1 seminorm). By
    quadrature of degree 2 p + 4, against a function of x, y, z between the nodes too; values at
    the nodes are compared as finite element functions, that is in the mass matrix's norm. ``free``:
    the exact function up to a constant, relative to that of the value's integral.
    """
    part = whole(mesh, 2 * mesh.degree + 4)
    value = value.detach().cpu().double()
    found = slopes(part, value) if slope else part.at_points(value)
    if callable(exact):
        x = tuple(p.clone().requires_grad_(slope) for p in part.points)
        truth = exact(*x)
        truth = torch.stack(list(truth)) if isinstance(truth, (tuple, list)) else truth
        truth = torch.as_tensor(truth, dtype=torch.float64)
        truth = _exact_slopes(truth, x) if slope else truth
    else:
        nodal = torch.as_tensor(exact, dtype=torch.float64)
        truth = slopes(part, nodal) if slope else part.at_points(nodal)
    dims = tuple(range(lead, found.ndim))
    if free:
        truth = (
            truth + (part.measure * (found - truth)).sum(dims, keepdim=True) / part.measure.sum()
        )
    size = (part.measure * truth.square()).expand_as(found).sum(dims)
    room = part.measure.expand_as(found).sum(dims)
    gap = (part.measure * (found - truth).square()).sum(dims)
    return (gap / torch.where(size > 0, size, room)).sqrt()


def slopes(part: Quadrature, value: torch.Tensor) -> torch.Tensor:
    """grad u at the elements' quadrature points, (*lead, d, k, Q), of values (*lead, nodes)."""
    local = value[..., part.nodes]
    on_reference = torch.einsum("...ki,qil->...klq", local, part.tables.slopes)
    return torch.einsum("...klq,kla->...akq", on_reference, part.inverse)


def _exact_slopes(truth: torch.Tensor, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The gradient of every field, (*fields, d, k, Q)."""
    rows = []
    for u in truth.reshape(-1, *x[0].shape):
        row = torch.autograd.grad(u.sum(), x, retain_graph=True, allow_unused=True)
        rows.append(torch.stack([torch.zeros_like(a) if g is None else g for g, a in zip(row, x)]))
    return torch.stack(rows).reshape(*truth.shape[:-2], len(x), *x[0].shape).detach()
