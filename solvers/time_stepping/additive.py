"""Implicit-explicit Runge-Kutta methods, where the stiff part of the equation is linear.

    F(u, t) = I(u, t) + E(u, t),    I(u, t) = L (u - u_0) + F(u_0, t),    E = F - I,

L the symmetric diffusion of F at u_0: whatever F is, this holds exactly, and E vanishes at u_0.
Diffusion, sources and boundary data that change in time are implicit, reaction and advection
explicit, so a stage is one linear solve and the matrix mass / tau + L is the same for the whole run
while the step is (Kennedy and Carpenter 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.discretize.affine import AtTime
from sciml.core.errors import InputError
from sciml.core.nonlinear import NonlinearSystem
from sciml.solvers.time_stepping.first_order import blank_rates, combine, first_state
from sciml.solvers.time_stepping.implicit import predicted, recovered, stage_remark, stage_tolerance
from sciml.solvers.time_stepping.integrator import Integrator, check_time_options
from sciml.solvers.time_stepping.scheme import Attempt, Memory, Scheme
from sciml.solvers.time_stepping.stages import StageSolver
from sciml.solvers.time_stepping.tableaux import ARK3, ARK4, Tableau


@dataclass(frozen=True)
class IMEX(Integrator):
    """Additive Runge-Kutta: diffusion implicit, reaction and advection explicit.

    ``order`` 3 or 4: ARK3(2)4L[2]SA and ARK4(3)6L[2]SA (Kennedy and Carpenter 2003). For equations
    of first order in time; where the diffusion itself changes much with u, or advection on a fine
    grid bounds the explicit part, SDIRK is better.
    """

    kind: Literal["imex"] = "imex"
    rtol: float = 1e-6
    atol: float = 1e-9
    step: float | None = None
    order: int = 4

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if self.order not in (3, 4):
            raise InputError(f"imex: order must be 3 or 4; got {self.order}", "solver.order")

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system; raises InputError for one of second order."""
        if system.inertia is not None:
            raise InputError(
                "imex is for equations of first order in time; use sdirk or runge_kutta",
                "solver.kind",
            )
        return AdditiveRungeKutta(system, ARK4 if self.order == 4 else ARK3, self.rtol, start)


class AdditiveRungeKutta(Scheme):
    """Steps of a pair of tables."""

    frugal = True

    def __init__(
        self, system: NonlinearSystem, tableau: Tableau, rtol: float, start: float
    ) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = tableau.name, tableau.embedded + 1
        self.u0 = first_state(system)[0]
        self.L = system.diffusion(self.u0, start)
        self._source: AtTime[torch.Tensor] = AtTime()
        self.stages = StageSolver(system, stage_tolerance(rtol), rtol, self.L)

    def _implicit(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """I(u, t)."""
        source = self._source.get(t, lambda: self.system.residual(self.u0, t))
        return self.L.apply(u - self.u0) + source

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """Nothing: both derivatives are taken anew at every step."""
        return ()

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> Attempt:
        """Stage by stage."""
        table, system, mass = self.tableau, self.system, self.system.mass
        assert mass is not None
        slow, fast = (blank_rates(y, table.stages) for _ in range(2))
        tau = h * table.gamma
        fast[0] = -self._implicit(y[0], t)[None] / mass
        slow[0] = -system.residual(y[0], t)[None] / mass - fast[0]
        residual, solved = torch.zeros_like(alive, dtype=y.dtype), torch.ones_like(alive)
        for i in range(1, table.stages):
            now = t + table.c[i] * h
            base = combine(y, h, table.weights[i], fast)
            base = combine(base, h, table.explicit_weights[i], slow)
            guess = predicted(base, tau, fast[i - 1])
            found = self.stages.solve(tau, base, now, guess, alive, self._implicit)
            _, fast[i] = recovered(found.value, base, tau)
            rest = system.residual(found.value, now) - self._implicit(found.value, now)
            slow[i] = -rest[None] / mass
            residual, solved = torch.maximum(residual, found.residual), solved & found.solved
        new = combine(combine(y, h, table.final, fast), h, table.final, slow)
        error = combine(torch.zeros_like(y), h, table.estimate, fast)
        error = combine(error, h, table.estimate, slow)
        return Attempt(new, (), error, residual, solved)

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)
