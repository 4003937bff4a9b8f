"""Problems with a known smooth solution: data by automatic differentiation, orders by SciPy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem, Robin
from sciml.discretization import discretize

Function = Callable[..., torch.Tensor]


def smooth(*x: torch.Tensor) -> torch.Tensor:
    """No symmetry, no zero on a side, nothing that a second-order scheme gets exactly."""
    rates = (1.3, 1.7, 0.9)
    total = sum(math.sqrt(1 + k) * r * p for k, (r, p) in enumerate(zip(rates, x, strict=False)))
    return torch.sin(total + 0.3) + 0.3 * torch.cos(2.1 * x[0]) * torch.exp(0.4 * x[-1])


def waves(*x: torch.Tensor) -> torch.Tensor:
    """Periodic on the unit box, with zero mean."""
    return torch.sin(2 * math.pi * sum(x) + 0.4)


def cosines(*x: torch.Tensor) -> torch.Tensor:
    """No flux through the sides of the unit box, with zero mean."""
    return math.prod(torch.cos(math.pi * (k + 1) * p) for k, p in enumerate(x))


def gradient(u: Function, x: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of ``u`` at points, differentiable again."""
    grads = torch.autograd.grad(u(*x).sum(), x, create_graph=True, allow_unused=True)
    return tuple(g if g is not None else torch.zeros_like(p) for g, p in zip(grads, x, strict=True))


def _leaves(x: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [p.detach().clone().requires_grad_() for p in x]


def _at(coefficient: object, x: Sequence[torch.Tensor]) -> torch.Tensor | float:
    return coefficient(*x) if callable(coefficient) else coefficient  # type: ignore[return-value]


def flux(u: Function, K: object, x: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """``K grad u`` for K scalar, diagonal or a full tensor."""
    grad = gradient(u, x)
    if not isinstance(K, (list, tuple)):
        return [_at(K, x) * g for g in grad]
    if not isinstance(K[0], (list, tuple)):
        return [_at(k, x) * g for k, g in zip(K, grad, strict=True)]
    return [sum(_at(k, x) * g for k, g in zip(row, grad, strict=True)) for row in K]


def source(u: Function, K: object = 1.0, b: Sequence[object] | None = None, c: object = 0.0):
    """The right-hand side f that makes ``u`` the solution."""

    def f(*points: torch.Tensor) -> torch.Tensor:
        x = _leaves(points)
        total = _at(c, x) * u(*x)
        for k, q in enumerate(flux(u, K, x)):
            (second,) = torch.autograd.grad(q.sum(), x[k], retain_graph=True)
            total = total - second
        if b is not None:
            total = total + sum(_at(v, x) * g for v, g in zip(b, gradient(u, x), strict=True))
        return total.detach()

    return f


def condition(
    kind: str, u: Function, K: object, axis: int, outward: int, alpha: object = 1.5
) -> Condition:
    """The condition of a kind that ``u`` satisfies on a side."""
    if kind == "periodic":
        return Condition(periodic=True)
    if kind == "dirichlet":
        return Condition(dirichlet=u)

    def normal_flux(*points: torch.Tensor) -> torch.Tensor:
        return outward * flux(u, K, _leaves(points))[axis].detach()

    if kind == "neumann":
        return Condition(neumann=normal_flux)
    return Condition(
        robin=Robin(alpha, lambda *p: _at(alpha, p) * u(*p) + normal_flux(*p))  # type: ignore[operator]
    )


def rim(kind: str, u: Function, K: object, centre: Sequence[float]) -> Condition:
    """The same on the rim of a ball."""
    if kind == "dirichlet":
        return Condition(dirichlet=u)

    def normal_flux(*points: torch.Tensor) -> torch.Tensor:
        away = [p - c for p, c in zip(points, centre, strict=True)]
        length = sum(a.square() for a in away).sqrt()
        q = flux(u, K, _leaves(points))
        return -sum(f * a for f, a in zip(q, away, strict=True)).detach() / length

    if kind == "neumann":
        return Condition(neumann=normal_flux)
    return Condition(robin=Robin(1.5, lambda *p: 1.5 * u(*p) + normal_flux(*p)))


def manufactured(
    u: Function,
    kinds: Sequence[str],
    *,
    K: object = 1.0,
    b: Sequence[object] | None = None,
    c: object = 0.0,
    upper: Sequence[float] | None = None,
    obstacle: Obstacle | None = None,
) -> Problem:
    """A problem on a box from the origin that ``u`` solves; one kind per side."""
    d = len(kinds) // 2
    box = Box((0.0,) * d, tuple(upper or (1.0,) * d))
    names = [name for pair in SIDES[:d] for name in pair]
    boundary = {
        name: condition(kind, u, K, i // 2, 1 if i % 2 else -1)
        for i, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }
    equation = Equation(K=K, b=b, c=c, f=source(u, K, b, c))
    return Problem(box, equation, boundary, obstacle, exact=u)


def solve_directly(system: LinearSystem) -> torch.Tensor:
    """The value by SciPy's direct solver; the zero-mean one where constants are in the kernel."""
    matrix = system.A.to_scipy().tocsc()
    right = system.b.detach().numpy().ravel()
    if not system.A.nullspace:
        x = scipy.sparse.linalg.spsolve(matrix, right)
    else:
        x = np.zeros_like(right)
        x[1:] = scipy.sparse.linalg.spsolve(matrix[1:, 1:], right[1:])
        x -= x.mean()
    return system.lift(torch.from_numpy(x).reshape(system.A.shape))


def error(problem: Problem, grid: Grid) -> float:
    """Discrete L2 error of the direct solution, its mean left out where that is free."""
    system = discretize(problem, grid)
    value = solve_directly(system)
    assert system.on is not None
    gap = value - problem.exact(*system.on.coordinates())  # type: ignore[operator,misc]
    known = torch.isfinite(gap)
    weights = _weights(system.on)[known]
    gap = gap[known]
    if system.A.nullspace:
        gap = gap - (gap * weights).sum() / weights.sum()
    return float((gap.square() * weights).sum().sqrt())


def _weights(grid: Grid) -> torch.Tensor:
    """Those of the midpoint rule on cells, of the trapezoidal rule on nodes."""
    weights = torch.full(grid.shape, math.prod(grid.spacing), dtype=torch.float64)
    if grid.centring == "node":
        for axis in range(len(grid.shape)):
            for place in (0, -1):
                weights.select(axis, place).mul_(0.5)
    return weights


def order(problem: Problem, sizes: tuple[int, int], centring: str) -> float:
    """Observed order of the error from a grid to one of about half its spacing."""
    d = problem.domain.dimension
    errors, spacings = [], []
    for n in sizes:
        grid = Grid((n,) * d, centring=centring).bind(problem.domain)  # type: ignore[arg-type]
        errors.append(error(problem, grid))
        spacings.append(max(grid.spacing))
    return math.log(errors[0] / errors[1]) / math.log(spacings[0] / spacings[1])
