"""How far a trained function is from the solution, by what its residual leaves: one correction.

A small residual r says little of the error e where the operator L makes something small: near an
eigenvalue, |e| may be |r| / |lambda|. With L the equation and its conditions, linearised at u,

    min over e of || r + L e ||,        e = phi sum_k a_k P_k(x),

P_k products of Legendre polynomials, on periodic axes of sines and cosines, phi what vanishes where
data are built in. That is one step of Newton's method for smooth e, in a basis that resolves to
rounding what an operator amplifies most; ||e|| / ||u|| is an estimate of the error. What of r the
basis does not hold is rough, and an elliptic operator's inverse makes that small.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sciml.core.problem.problem import Problem
from sciml.discretization.points.jet import Jet, Pairs
from sciml.solvers.trained.conditions import Piece, pieces
from sciml.solvers.trained.level import free_constants
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.observations import OBSERVED
from sciml.solvers.trained.sampling import sobol

_FUNCTIONS, _ENOUGH = 256, 144  # of the basis, all fields together: at most, and what will do
_MOST = 24  # along an axis
_PER_FUNCTION = 3  # points inside
_ROUNDING = 1e-14


def far_from_singular(problem: Problem) -> bool:
    """Whether the equation alone says so: -K Lap u + c u = f, K > 0, c >= 0, u given on a side."""
    form = problem.equation.coefficient_form
    if form is None or problem.time is not None or not problem.linear or form.energy is not None:
        return False
    K, c = form.K, form.c
    if not (isinstance(K, (int, float)) and isinstance(c, (int, float)) and K > 0 and c >= 0):
        return False
    plain = form.b is None and form.dispersion == form.biharmonic == 0
    kinds = {side.kind for side in problem.boundary.values()}
    if problem.obstacle is not None:
        kinds.add(problem.obstacle.boundary.kind)
    return plain and "dirichlet" in kinds and "robin" not in kinds


def estimated_error(objective: Objective, size_of: Callable[[Piece], float]) -> float:
    """||e|| / ||u||; ``size_of``: what the residual of a piece is relative to.

    Zero where there is too little room for a basis.
    """
    form = objective.form
    count = len(form.fields)
    axes = len(objective.pieces[0].lower)
    each = min(_MOST, max(3, int((_ENOUGH / count) ** (1 / axes) + 1e-9)))
    if count * each**axes > _FUNCTIONS:
        return 0.0
    objective.settle()
    generator = torch.Generator().manual_seed(2)
    rows, left = [], []
    inside = _PER_FUNCTION * each**axes
    for piece in _asked(objective):
        points = piece.place(
            sobol(inside if piece.free == axes else inside // each, piece.free, generator)
        )
        J, r = _linearised(objective, piece, points, each)
        scale = max(size_of(piece), 1e-300) * len(points) ** 0.5
        rows.append(J / scale)
        left.append(r / scale)
    J, r = torch.cat(rows), torch.cat(left)
    norms = J.norm(dim=0).clamp_min(1e-300)
    found = torch.linalg.lstsq(J / norms, -r[:, None], rcond=_ROUNDING, driver="gelsy")
    a = found.solution[:, 0] / norms
    piece = objective.pieces[0]
    points = piece.place(sobol(inside, axes, torch.Generator().manual_seed(3)))
    error = torch.einsum("nkf,kf->nf", _basis(objective, points, (), each)[0], a.reshape(-1, count))
    u = objective.ansatz.value(points)
    free = free_constants(objective)
    error, u = (v - v.mean(0) @ free.T for v in (error, u))
    return float(error.norm() / u.norm().clamp_min(1e-300))


def _asked(objective: Objective) -> tuple[Piece, ...]:
    """The equation, and all conditions that phi does not meet by itself.

    Of windows in time glued together the conditions were built into each.
    """
    if objective.ansatz.built_in is None:
        return pieces(objective.form, hard=False, periodic_built_in=True)
    return tuple(piece for piece in objective.pieces if piece.name != OBSERVED)


def _linearised(
    objective: Objective, piece: Piece, points: Tensor, each: int
) -> tuple[Tensor, Tensor]:
    """L of every basis function, (N E, K F), and r, (N E,), at a piece's points."""
    pairs = piece.pairs
    points = piece.seen(points)
    with torch.no_grad():
        jet = objective.ansatz.jet(points, pairs, objective.ansatz.known(points, pairs))
    with torch.enable_grad():
        data = jet.data.detach().requires_grad_()
        r = piece.residual(points, Jet(data, jet.dimension, pairs))
        slopes = [
            torch.autograd.grad(
                r[:, k].sum(), data, retain_graph=True, allow_unused=True, materialize_grads=True
            )[0]
            for k in range(r.shape[1])
        ]
    basis = _basis(objective, points, pairs, each)
    columns = []
    for slope in slopes:
        part = torch.einsum("rnf,rnkf->nkf", slope, basis).flatten(1)
        columns.append(part.unflatten(0, (piece.blocks, len(r))).sum(0))
    return torch.cat(columns), r.detach().T.flatten()


def _basis(objective: Objective, points: Tensor, pairs: Pairs, each: int) -> Tensor:
    """The jets of phi P_k, (rows, N, K, F)."""
    form = objective.form
    piece = objective.pieces[0]
    timed = form.problem.time is not None
    rings = (*form.data.periodic, *([False] if timed else []))
    s = 2 * (points - piece.lower) / (piece.upper - piece.lower) - 1
    stretch = 2 / (piece.upper - piece.lower)
    tables = [_functions(s[:, k], each, ring) for k, ring in enumerate(rings)]

    def product(orders: list[int]) -> Tensor:
        total = points.new_ones(len(points), 1)
        for k, order in enumerate(orders):
            values = tables[k][order] * stretch[k] ** order
            total = (total[:, :, None] * values[:, None, :]).flatten(1)
        return total

    D = len(rings)
    wanted = [[0] * D, *([int(j == i) for j in range(D)] for i in range(D))]
    wanted += [[axes.count(j) for j in range(D)] for axes in pairs]
    plain = torch.stack([product(orders) for orders in wanted])
    if objective.ansatz.built_in is None:
        return plain[..., None].expand(*plain.shape, len(form.fields))
    known = objective.ansatz.known(points, pairs)
    assert known is not None
    phi, whole = known[1], Jet(plain, D, pairs)
    fields = [
        (Jet(phi.data[..., f : f + 1], D, pairs) * whole).data for f in range(len(form.fields))
    ]
    return torch.stack(fields, -1)


def _functions(s: Tensor, count: int, ring: bool) -> tuple[Tensor, ...]:
    """Values, slopes and derivatives to the fourth on [-1, 1], (N, count) each."""
    if ring:
        number = torch.arange(count, dtype=s.dtype)
        k = torch.div(number + 1, 2, rounding_mode="floor") * torch.pi
        turned = (number % 2) * (torch.pi / 2)
        angle = s[:, None] * k - turned  # cosines, and sines as turned cosines
        c, d = angle.cos(), angle.sin()
        return c, -k * d, -k.square() * c, k**3 * d, k**4 * c
    P = [torch.ones_like(s), s]
    for n in range(2, count):
        P.append(((2 * n - 1) * s * P[n - 1] - (n - 1) * P[n - 2]) / n)
    found = [P]
    for order in range(1, 5):
        lower = found[-1]
        own = [torch.zeros_like(s), torch.full_like(s, float(order == 1))]
        for n in range(2, count):
            own.append(own[n - 2] + (2 * n - 1) * lower[n - 1])
        found.append(own)
    return tuple(torch.stack(rows[:count], -1) for rows in found)
