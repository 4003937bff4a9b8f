"""Integrals over elements, facets and nodes of a mesh, by quadrature on the reference element.

With x(X) the map from the reference element, J its derivative, phi_i the element's basis functions
and w_q, X_q its quadrature rule (both scikit-fem's),

    int_e c phi_i phi_j  ~  sum_q (w_q |det J| c_q) phi_i(X_q) phi_j(X_q),    grad = J^-T grad_X.

Integrals over an axisymmetric mesh are those of the whole revolution: 2 pi r stands beside |det J|.
Of straight simplices x = p_0 + J X with one J for all points; of quadrilaterals, hexahedra and
curved elements J differs from point to point.

Every local integral is a product of what differs between the elements (the coefficient and J) with
a table that does not, one matrix product for all elements, samples and quadrature points; so it is
linear, and differentiable, in the coefficient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sciml.core.problem.cells import FACETS
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh, basis_at, edge_vectors, reference, shape_of

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

    ``nodes`` (k, N) int64; ``scale`` (k, Q): |det J|; ``inverse`` (k, Q, d, d): J^-1, of elements
    only; ``points``: x, y, z of the quadrature points, (k, Q) each. ``normal``: of facets the unit
    normal out of the mesh, (k, Q) each, by its names nx, ny, nz. Where J is the same at all points
    Q is 1 in ``scale``, ``inverse`` and ``normal``. ``around`` (k, Q): 2 pi r of an axisymmetric
    mesh. ``members`` (k,): the numbers of elements that are not all those of the mesh.
    """

    tables: Tables
    nodes: torch.Tensor
    scale: torch.Tensor
    points: tuple[torch.Tensor, ...]
    inverse: torch.Tensor | None = None
    normal: Mapping[str, torch.Tensor] = field(default_factory=dict)
    around: torch.Tensor | None = None
    members: torch.Tensor | None = None

    @property
    def density(self) -> torch.Tensor:
        """What an integral over the reference element is multiplied by, (k, Q), Q 1 if constant."""
        return self.scale if self.around is None else self.scale * self.around

    @property
    def measure(self) -> torch.Tensor:
        """w_q |det J|, (k, Q), of an axisymmetric mesh times 2 pi r."""
        return self.density * self.tables.weights

    @cached_property
    def by_entry(self) -> torch.Tensor:
        """J^-1 entry by entry, (d, d, k, Q): products with it then run through memory in order."""
        assert self.inverse is not None
        return self.inverse.permute(2, 3, 0, 1).contiguous()

    def of(self, index: torch.Tensor) -> Quadrature:
        """The elements or facets of these numbers alone."""
        return Quadrature(
            self.tables,
            self.nodes[index],
            self.scale[index],
            tuple(axis[index] for axis in self.points),
            None if self.inverse is None else self.inverse[index],
            {name: n[index] for name, n in self.normal.items()},
            None if self.around is None else self.around[index],
            index if self.members is None else self.members[index],
        )

    def mean(self, inner: torch.Tensor) -> torch.Tensor:
        """The means over each, (*lead, k), of values (*lead, k, Q)."""
        weights = self.tables.weights if self.density.shape[-1] == 1 else self.measure
        return (inner * (weights / weights.sum(-1, keepdim=True))).sum(-1)

    def at_points(self, nodal: torch.Tensor) -> torch.Tensor:
        """Values (*lead, nodes of the mesh) at the quadrature points, (*lead, k, Q)."""
        return nodal[..., self.nodes] @ self.tables.values.T.to(nodal.dtype)


def tables(element: skfem.Element, degree: int) -> Tables:
    """The reference element with a rule exact for polynomials of ``degree``."""
    from skfem.quadrature import get_quadrature

    X, weights = get_quadrature(element, degree)
    values, slopes = basis_at(element, X)
    return Tables(
        torch.from_numpy(X.T.copy()),
        torch.from_numpy(np.asarray(weights, dtype=np.float64).copy()),
        torch.from_numpy(values.copy()),
        torch.from_numpy(slopes.copy()),
    )


def whole(mesh: Mesh, degree: int) -> Quadrature:
    """All elements of the mesh."""
    entries = tables(reference(mesh), degree)
    nodes = torch.from_numpy(mesh.cell_nodes.astype(np.int64))
    if mesh.affine:
        J = torch.from_numpy(edge_vectors(mesh.points, mesh.cells))
        start = torch.from_numpy(mesh.points[mesh.cells[:, 0]])
        x, J = _mapped(start, J, entries.points), J[:, None]
        scale, around = torch.linalg.det(J).abs(), _around(mesh, x)
        return Quadrature(entries, nodes, scale, x, torch.linalg.inv(J), around=around)
    shape = shape_of(mesh)
    basis = basis_at(shape.element, entries.points.numpy().T)
    x, J = _bent(shape.places[shape.nodes], *basis)
    scale, around = torch.linalg.det(J).abs(), _around(mesh, x)
    return Quadrature(entries, nodes, scale, x, torch.linalg.inv(J), around=around)


def _around(mesh: Mesh, x: tuple[torch.Tensor, ...]) -> torch.Tensor | None:
    """2 pi r at points x, (k, Q)."""
    return 2 * math.pi * x[0].abs() if mesh.axisymmetric else None


def _bent(
    places: np.ndarray, values: np.ndarray, slopes: np.ndarray
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """x, (k, Q) per axis, and J (k, Q, d, r), of the map with ``places`` (k, N, d)."""
    x = torch.from_numpy(np.einsum("qi,kia->akq", values, places))
    J = torch.from_numpy(np.einsum("qil,kia->kqal", slopes, places))
    return tuple(axis.contiguous() for axis in x), J


def on_facets(mesh: Mesh, facets: np.ndarray, degree: int) -> Quadrature:
    """Numbered facets: points, edges, triangles or quadrilaterals."""
    if mesh.dimension == 1:
        return _facets(mesh, facets, _POINT)
    return _facets(mesh, facets, tables(_facet(mesh), degree))


def on_support(mesh: Mesh, name: str, degree: int) -> Quadrature:
    """A support of the mesh: single points, of weight 1, or edges in space."""
    nodes = mesh.support_nodes(name)
    index = torch.from_numpy(nodes.astype(np.int64))
    if nodes.shape[1] == 1:
        place = at_nodes(mesh, nodes[:, 0])
        return replace(place, around=_around(mesh, place.points))
    import skfem

    element = skfem.ElementLineP2() if nodes.shape[1] == 3 else skfem.ElementLineP1()
    entries = tables(element, degree)
    x, J = _bent(mesh.nodes[nodes], *basis_at(element, entries.points.numpy().T))
    return Quadrature(entries, index, J[..., 0].norm(dim=-1), x)


def at_facet_nodes(mesh: Mesh, facets: np.ndarray) -> Quadrature:
    """Numbered facets with their own nodes for points, in the order of ``nodes``, and weights 1."""
    if mesh.dimension == 1:
        return _facets(mesh, facets, _POINT)
    element = _facet(mesh)
    X = torch.from_numpy(element.doflocs.copy())
    values, slopes = basis_at(element, element.doflocs.T)
    ones = torch.ones(len(X), dtype=torch.float64)
    entries = Tables(X, ones, torch.from_numpy(values.copy()), torch.from_numpy(slopes.copy()))
    return _facets(mesh, facets, entries)


def _facet(mesh: Mesh, degree: int | None = None) -> skfem.Element:
    """The element of the mesh's facets."""
    import skfem

    kinds: dict[int, tuple[Any, Any]] = {
        2: (skfem.ElementLineP1, skfem.ElementLineP2),
        3: (skfem.ElementTriP1, skfem.ElementTriP2),
        4: (skfem.ElementQuad1, skfem.ElementQuad2),
    }
    return kinds[mesh.topology.facets.shape[0]][(degree or mesh.degree) - 1]()


def _facets(mesh: Mesh, facets: np.ndarray, entries: Tables) -> Quadrature:
    nodes = torch.from_numpy(mesh.facet_nodes(facets).astype(np.int64))
    corners = mesh.topology.facets[:, facets].T
    start = torch.from_numpy(mesh.points[corners[:, 0]])
    if mesh.dimension == 1:
        scale = torch.ones(len(nodes), 1, dtype=torch.float64)
        normal = _outward(mesh, facets, start, torch.ones_like(start)[:, None])
        return Quadrature(entries, nodes, scale, (start,), normal=normal)
    if mesh.affine or (mesh.middles is None and FACETS[corners.shape[1]].simplex):
        J = torch.from_numpy(edge_vectors(mesh.points, corners))
        scale = torch.linalg.det(J.mT @ J).sqrt()[:, None]
        normal = _outward(mesh, facets, start, _across(J)[:, None])
        x = _mapped(start, J, entries.points)
        return Quadrature(entries, nodes, scale, x, None, normal, _around(mesh, x))
    curved = mesh.middles is not None and mesh.degree == 2
    rows = nodes.numpy() if curved else corners
    basis = basis_at(_facet(mesh, 1 + curved), entries.points.numpy().T)
    places = mesh.nodes[rows]
    x, J = _bent(places, *basis)
    scale = torch.linalg.det(J.mT @ J).sqrt()
    middle = torch.from_numpy(places.mean(axis=1))
    normal = _outward(mesh, facets, middle, _across(J))
    return Quadrature(entries, nodes, scale, x, None, normal, _around(mesh, x))


def _across(J: torch.Tensor) -> torch.Tensor:
    """A vector at right angles to the columns of J (..., d, d - 1)."""
    if J.shape[-1] == 1:
        return torch.stack([J[..., 1, 0], -J[..., 0, 0]], -1)
    found: torch.Tensor = torch.linalg.cross(J[..., 0], J[..., 1])
    return found


def _outward(
    mesh: Mesh, facets: np.ndarray, start: torch.Tensor, across: torch.Tensor
) -> dict[str, torch.Tensor]:
    """The unit normals of facets, out of the element that each belongs to first.

    ``start`` (k, d) a point of each, ``across`` (k, Q, d) at right angles to it, all on one side.
    """
    cells = mesh.topology.t[:, mesh.topology.f2t[0, facets]]
    middle = torch.from_numpy(mesh.points[cells].mean(0))
    ahead = across[:, 0] if across.shape[1] == 1 else across.mean(1)
    outward = ((start - middle) * ahead).sum(-1, keepdim=True).sign()[:, None]
    normal = outward * across / across.norm(dim=-1, keepdim=True)
    return {f"n{axis}": n for axis, n in zip(AXES, normal.unbind(-1), strict=False)}


_ONE = torch.ones(1, dtype=torch.float64)
_POINT = Tables(_ONE[:, None][:, :0], _ONE, _ONE[:, None], _ONE[:, None, None][..., :0])


def at_nodes(mesh: Mesh, nodes: np.ndarray) -> Quadrature:
    """Numbered nodes, one point each."""
    where = torch.from_numpy(mesh.nodes[nodes])
    index = torch.from_numpy(np.asarray(nodes, dtype=np.int64))[:, None]
    ones = torch.ones(len(nodes), 1, dtype=torch.float64)
    return Quadrature(_POINT, index, ones, tuple(axis[:, None] for axis in where.T))


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


def tensor_mass(part: Quadrature, c: torch.Tensor) -> torch.Tensor:
    """int (c psi_j) . psi_i of vectors, (*batch, k, N, d, N, d), for c (*batch, k, Q, d, d)."""
    entries = part.tables
    table = torch.einsum("qi,qj->qij", entries.values, entries.values)
    weighted = c * part.measure[..., None, None]
    return torch.einsum("...kqab,qij->...kiajb", weighted, table)


def stiffness(part: Quadrature, K: torch.Tensor) -> torch.Tensor:
    """int (K grad phi_j) . grad phi_i: (*batch, k, N, N).

    K is (*batch, k, Q, 1, 1) times the identity, or (*batch, k, Q, d, d); k and Q may be 1.
    """
    assert part.inverse is not None
    entries, inverse = part.tables, part.inverse
    table = torch.einsum("q,qik,qjl->qklij", entries.weights, entries.slopes, entries.slopes)
    metric = inverse @ inverse.mT if K.shape[-1] == 1 else inverse @ K @ inverse.mT
    metric = metric * part.density[..., None, None]
    metric = metric * K if K.shape[-1] == 1 else metric
    return _product(metric, table)


def advection(part: Quadrature, b: torch.Tensor) -> torch.Tensor:
    """int (b . grad phi_j) phi_i for b (*batch, k, Q, d): (*batch, k, N, N)."""
    assert part.inverse is not None
    entries = part.tables
    table = torch.einsum("q,qi,qjl->qlij", entries.weights, entries.values, entries.slopes)
    return _product(pulled_back(part, b) * part.density[..., None], table)


def pulled_back(part: Quadrature, b: torch.Tensor) -> torch.Tensor:
    """J^-1 b for b (*batch, k, Q, d): the direction on the reference element, of the same shape."""
    assert part.inverse is not None
    if part.inverse.shape[1] == 1:
        return torch.einsum("kla,...kqa->...kql", part.inverse[:, 0], b)
    return torch.einsum("kqla,...kqa->...kql", part.inverse, b)


def gradients(part: Quadrature, c: torch.Tensor) -> torch.Tensor:
    """int c (d phi_i / d x_a) (d phi_j / d x_b), (*batch, k, N, d, N, d), for c (*batch, k, Q)."""
    assert part.inverse is not None
    entries, (count, d) = part.tables, part.tables.slopes.shape[1:]
    weighted = c * part.measure
    points = entries.slopes
    if part.inverse.shape[1] == 1 and torch.equal(points, points[:1].expand_as(points)):
        weighted, points = weighted.sum(-1, keepdim=True), points[:1]
    done = []
    for first in range(0, len(part.nodes), _CHUNK):
        span = slice(first, first + _CHUNK)
        slope = (points @ part.inverse[span]).flatten(-2)
        done.append((slope * weighted[..., span, :, None]).mT @ slope)
    whole: torch.Tensor = torch.cat(done, dim=-3).unflatten(-1, (count, d))
    found: torch.Tensor = whole.unflatten(-3, (count, d))
    return found


def along(part: Quadrature, b: torch.Tensor) -> torch.Tensor:
    """b . grad phi_i for b (*batch, k, Q, d): (*batch, k, Q, N)."""
    return torch.einsum("...kql,qil->...kqi", pulled_back(part, b), part.tables.slopes)


def slope_of(part: Quadrature) -> torch.Tensor:
    """grad phi_i at the quadrature points of elements, (k, Q, N, d)."""
    assert part.inverse is not None
    return part.tables.slopes @ part.inverse.expand(-1, len(part.tables.points), -1, -1)


def corner_tables(mesh: Mesh, given: Tables) -> Tables:
    """The basis functions of the first degree at the same points of the reference element."""
    values, slopes = basis_at(reference(mesh, 1), given.points.numpy().T)
    basis = torch.from_numpy(values.copy()), torch.from_numpy(slopes.copy())
    return Tables(given.points, given.weights, *basis)


def divergence(mesh: Mesh, part: Quadrature, flux: torch.Tensor) -> torch.Tensor:
    """div q at the quadrature points of elements, (*batch, k, Q), of q (*batch, k, Q, d) there.

    Of the polynomial through these points, on the reference element; exact where q is one.
    """
    assert part.inverse is not None
    X = part.tables.points.numpy()
    most = round(len(X) ** (1 / X.shape[1])) if not mesh.kind.simplex else len(X)
    powers = [p for p in np.ndindex(*(4,) * X.shape[1]) if max(p) < most]
    if mesh.kind.simplex:
        count = next(n for n in (3, 2, 1) if math.comb(n + X.shape[1], n) <= len(X))
        powers = [p for p in powers if sum(p) <= count]
    terms = np.stack([np.prod(X ** np.array(p), axis=1) for p in powers], axis=1)
    fit = np.linalg.pinv(terms)
    slopes_of = []
    for axis in range(X.shape[1]):
        lower = [tuple(n - (a == axis) for a, n in enumerate(p)) for p in powers]
        rows = [
            p[axis] * np.prod(X ** np.maximum(np.array(q), 0), axis=1)
            for p, q in zip(powers, lower, strict=True)
        ]
        slopes_of.append(np.stack(rows, axis=1) @ fit)
    table = torch.from_numpy(np.stack(slopes_of))
    found: torch.Tensor = torch.einsum(
        "lqp,kqla,...kpa->...kq", table, part.inverse.expand(-1, len(X), -1, -1), flux
    )
    if part.around is not None:
        found = found + flux[..., 0] / part.points[0]
    return found


def hoops(part: Quadrature, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int c (phi_i / r) d phi_j / d x_b, (*batch, k, N, N, d), and int c (phi_i / r) (phi_j / r).

    For c (*batch, k, Q); r = x, the distance from an axis on which no quadrature point lies.
    """
    assert part.inverse is not None
    ring = part.tables.values / part.points[0][..., None]
    slope, weighted = part.tables.slopes @ part.inverse, c * part.measure
    left = weighted[..., None] * ring
    return torch.einsum("...kqi,kqjb->...kijb", left, slope), left.mT @ ring


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
    function: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> torch.Tensor:
    """||u - exact|| / ||exact|| in L2 per sample, ``value`` (*batch, [fields,] nodes).

    Where the exact function is zero everywhere it is absolute: the root of the mean square.
    ``lead``: the number of batch dimensions; ``slope``: of the gradients instead (H1 seminorm). By
    quadrature of degree 2 p + 4, against a function of x, y, z between the nodes too; values at
    the nodes are compared as finite element functions, that is in the mass matrix's norm. ``free``:
    the exact function up to a constant, relative to that of the value's integral. ``function``: of
    points (n, d) values (fields, n), which stands in the place of the finite element function;
    where it is not known it is left out.
    """
    part = whole(mesh, 2 * mesh.degree + 4)
    value = value.detach().cpu().to(torch.complex128 if value.is_complex() else torch.float64)
    found = slopes(part, value) if slope else part.at_points(value)
    if function is not None and not slope:
        places = torch.stack([axis.flatten() for axis in part.points], 1)
        found = function(places).detach().double().reshape(found.shape)
    if callable(exact):
        x = tuple(p.clone().requires_grad_(slope) for p in part.points)
        truth = exact(*x)
        truth = torch.stack(list(truth)) if isinstance(truth, (tuple, list)) else truth
        truth = torch.as_tensor(truth)
        truth = truth if truth.is_complex() else truth.double()
        truth = _exact_slopes(truth, x) if slope else truth
    else:
        nodal = torch.as_tensor(exact, dtype=value.dtype)
        truth = slopes(part, nodal) if slope else part.at_points(nodal)
    dims = tuple(range(lead, found.ndim))
    if function is not None:
        found = torch.where(found.isnan(), truth, found)
    if free:
        truth = (
            truth + (part.measure * (found - truth)).sum(dims, keepdim=True) / part.measure.sum()
        )
    size = (part.measure * truth.abs().square()).expand_as(found).sum(dims)
    room = part.measure.expand_as(found).sum(dims)
    gap = (part.measure * (found - truth).abs().square()).sum(dims)
    return (gap / torch.where(size > 0, size, room)).sqrt()


def slopes(part: Quadrature, value: torch.Tensor) -> torch.Tensor:
    """grad u at the elements' quadrature points, (*lead, d, k, Q), of values (*lead, nodes)."""
    table, inverse = part.tables.slopes.to(value.dtype), part.by_entry.to(value.dtype)
    local, d = value[..., part.nodes], table.shape[-1]
    on_reference = (local @ table.permute(1, 2, 0).flatten(1)).unflatten(-1, (d, -1))
    along = on_reference.unbind(-2)
    return torch.stack([_summed(inverse[:, a], along) for a in range(d)], -3)


def _summed(factors: torch.Tensor, terms: Sequence[torch.Tensor]) -> torch.Tensor:
    """sum_l factors_l terms_l."""
    total = factors[0] * terms[0]
    for factor, term in zip(factors[1:], terms[1:], strict=True):
        total = torch.addcmul(total, factor, term)
    return total


def tested(part: Quadrature, flux: Sequence[torch.Tensor], slopes: torch.Tensor) -> torch.Tensor:
    """int F . grad phi_i, local: (*batch, k, N), of functions with ``slopes`` (Q, N, d).

    ``flux``: a tensor (*batch, k, Q) or broadcastable for each axis.
    """
    measure = part.measure
    shape = torch.broadcast_shapes(measure.shape, *(f.shape for f in flux))
    pulled = [(_summed(row, flux) * measure).expand(shape) for row in part.by_entry]
    return torch.cat(pulled, -1) @ slopes.permute(2, 0, 1).flatten(0, 1)


def _exact_slopes(truth: torch.Tensor, x: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The gradient of every field, (*fields, d, k, Q)."""
    rows = []
    for u in truth.reshape(-1, *x[0].shape):
        row = torch.autograd.grad(u.sum(), x, retain_graph=True, allow_unused=True)
        rows.append(torch.stack([torch.zeros_like(a) if g is None else g for g, a in zip(row, x)]))
    return torch.stack(rows).reshape(*truth.shape[:-2], len(x), *x[0].shape).detach()
