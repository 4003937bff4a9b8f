"""Buckling: by which factors a load grows until an elastic body gives way sideways.

    K u = -lambda G u,

K the stiffness and G what the stresses of the body under its load add to it, linear in them. K is
positive, G is not, so that the lowest nu of G u = nu K u are found, which are negative, and
lambda = -1 / nu: bounds and counts are those of other modes (:mod:`sciml.solvers.eigen.modes`), and

    |d lambda| = lambda^2 |d nu|.

The load is the whole of the problem's: forces, tractions, given displacements, heat. Displacements
before buckling are small, and so is their effect on K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.pencil import Pencil
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import poses_buckling
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.eigenmodes import Eigenmodes
from sciml.solvers.auto import choose
from sciml.solvers.eigen.lobpcg import LOBPCG
from sciml.solvers.eigen.modes import modes_of, succeeded
from sciml.solvers.linear.direct import Direct, affordable
from sciml.solvers.linear.iteration import LinearSolver
from sciml.solvers.solve import solve

_STEPS = 20  # of the power method, for what only scales
_SAFE = 2.0  # by which its largest eigenvalue is raised, and its least lowered
_NONE = 1e-9  # of the largest |nu|: no eigenvalue


def buckling(
    problem: Problem,
    on: Grid | Mesh,
    count: int = 1,
    method: LOBPCG | None = None,
    *,
    throw: bool = True,
    progress: Callable[[int, float], None] | None = None,
) -> Eigenmodes:
    """The lowest ``count`` factors of a steady linear load under which an elastic body buckles.

    ``values`` (*batch, count) ascending, all positive, float64, differentiable as those of
    eigenmodes; ``fields`` how it gives way, u . K u = 1. Raises InputError for a problem that
    cannot buckle, or not in so many ways under this load, SolveError where the stresses or the
    factors are not found, unless ``throw`` is False.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"count is a whole number of modes, 1 or more; got {count!r}", "count")
    problem.check_unbounded()
    pose = poses_buckling.look_up(problem.equation, type(on))
    if problem.time is not None:
        raise InputError(
            "buckling is under a load that stands still: leave time and initial out", "problem.time"
        )
    stressed = solve(problem, on=on).value
    posed = _scaled(pose(problem, on, stressed, device=torch.device("cpu")))
    options = LOBPCG() if method is None else method
    if options.preconditioner is None and affordable(posed.M):
        options = replace(options, preconditioner=Direct())
    found = modes_of(posed, count, options, progress)
    nu = found.values
    positive = nu < -_NONE * abs(posed.floor)
    if not bool(positive.all()):
        many = int(positive.sum(-1).min())
        raise InputError(
            f"under this load the body buckles in {many} ways alone, of {count} asked for: lower "
            "count, or turn the load round"
            if many
            else "under this load nothing buckles: it does not press the body anywhere, or it has "
            "no load",
            "count" if many else "problem",
        )
    # A bound that reaches zero is none.
    bounds = torch.where(found.bounds < 0, -1 / found.bounds, torch.nan)
    factors = replace(found, values=-1 / nu, bounds=bounds, residuals=found.residuals / nu**2)
    return succeeded(factors, problem, throw)


@torch.no_grad()
def _scaled(posed: Pencil) -> Pencil:
    """With share, scale and floor, by the power method on K^-1 G and on D^1/2 K^-1 D^1/2."""
    largest, share = 0.0, 1.0
    for sample in posed.samples():
        G, K = sample.A.detach(), sample.M.detach()
        solver: LinearSolver = Direct() if affordable(K) else choose(K, 1e-6)[0]
        prepared, root = solver.setup(K), K.diagonal().sqrt()

        def inverse(b: torch.Tensor, solver: LinearSolver = solver, K: LinearMap = K,
                    prepared: object = prepared) -> torch.Tensor:  # fmt: skip
            return solver.iterate(K, prepared, b, None, None).x

        generator = torch.Generator().manual_seed(0)
        x = torch.randn(K.size, generator=generator, dtype=torch.float64)
        y, nu, stretch = x, 0.0, 1.0
        for _ in range(_STEPS):
            image = G.apply(x)
            moved = inverse(image)
            nu = float((image @ moved / (x @ K.apply(x))).clamp(min=0).sqrt())
            x = moved / moved.abs().max().clamp(min=1e-300)
            grown = root * inverse(root * y)
            stretch = float(grown.norm() / y.norm())
            y = grown / grown.norm()
        largest, share = max(largest, nu), min(share, 1 / (_SAFE * stretch))
    if not largest > 0:
        raise InputError("under this load nothing buckles: it leaves no stress", "problem")
    return replace(posed, share=share, scale=1e-6 * largest, floor=-_SAFE * largest)
