"""Picard's method: the coefficients are frozen at u_k, and a linear diffusion problem is solved.

    P(u_k) d = -F(u_k),      u_{k+1} = u_k + s_k d,

P the diffusion with K(u_k), which for F(u) = P(u) u - b and s = 1 is P(u_k) u_{k+1} = b. It
converges linearly where it does, and needs no derivative of K: for degenerate equations far from
the solution, or to start Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import Progress
from sciml.solvers.continuation import Continuation
from sciml.solvers.descent import Course, Iterate, descend
from sciml.solvers.direct import Direct
from sciml.solvers.iteration import LinearSolver, check_options, spread
from sciml.solvers.krylov import CG
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.steady import NonlinearState, answer, counting, prepare, small

_FORCING = 0.01
# Where the full step overshoots, ||F|| falls a little for ever: a shorter one is worth its trial.
_SUFFICIENT = 0.3


@dataclass(frozen=True)
class Picard:
    """Fixed-point iteration on the coefficients, with a line search.

    ``rtol`` and ``continuation`` as for Newton.
    """

    kind: Literal["picard"] = "picard"
    rtol: float = 1e-8
    max_iterations: int = 500
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> NonlinearState:
        """Discretise; raises InputError for a problem in time or a linear system."""
        return prepare(self.kind, problem, on)

    def run(
        self,
        state: NonlinearState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve from ``initial``, a value on the grid; else from zero or a linear answer."""
        progress = counting(progress)

        def solve(system: NonlinearSystem, u: torch.Tensor) -> Course:
            return frozen(system, u, self.rtol, self.max_iterations, progress)

        return answer(self, state, initial, b, solve, lambda: "picard: coefficients frozen")


def frozen(
    system: NonlinearSystem,
    u: torch.Tensor,
    rtol: float,
    max_iterations: int,
    progress: Progress | None,
) -> Course:
    """Picard's iteration from ``u`` (*batch, *shape)."""
    return descend(
        system,
        u,
        frozen_direction,
        rtol=rtol,
        max_iterations=max_iterations,
        progress=progress,
        sufficient=_SUFFICIENT,
    )


def frozen_direction(here: Iterate, running: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """d, and nowhere a direction of negative curvature."""
    right = -here.F * spread(running.to(here.F.dtype), len(here.P.shape))
    solver: LinearSolver = Direct()
    if not small(here.P):
        solver = CG(preconditioner=Multigrid(), rtol=_FORCING)
    found = solver.iterate(here.P, solver.setup(here.P), right, None, None)
    return found.x, torch.zeros_like(running)
