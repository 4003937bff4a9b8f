"""Diagonally implicit Runge-Kutta methods for stiff equations: heat, diffusion with reaction.

    U_i = y + h sum_{j<i} a_ij k_j + h gamma f(t + c_i h, U_i),      y_new = U_s.

The first stage is explicit, which gives every stage order two: with stage order one, as Euler's
method has it, stiff sources and boundary data that change in time reduce the order of the whole
to about one and a half (Hairer and Wanner 1996, IV.15). k_1 is the last stage of the step before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.nonlinear import NonlinearSystem
from sciml.solvers.time_stepping.march import (
    Attempt,
    Integrator,
    Memory,
    Scheme,
    blank_rates,
    check_time_options,
    combine,
    rate,
)
from sciml.solvers.time_stepping.stages import StageSolver
from sciml.solvers.time_stepping.tableaux import ARK3, ARK4, Tableau


@dataclass(frozen=True)
class SDIRK(Integrator):
    """Singly diagonally implicit Runge-Kutta methods, L-stable and stiffly accurate.

    ``order`` 3 or 4: the implicit tables of ARK3(2)4L[2]SA and ARK4(3)6L[2]SA (Kennedy and
    Carpenter 2003), three and five implicit stages. One linear solve a stage where the equation is
    linear, Newton's method otherwise; second order in time costs no more.
    """

    kind: Literal["sdirk"] = "sdirk"
    rtol: float = 1e-6
    atol: float = 1e-9
    step: float | None = None
    order: int = 4

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if self.order not in (3, 4):
            raise InputError(f"sdirk: order must be 3 or 4; got {self.order}", "solver.order")

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        return ImplicitRungeKutta(system, ARK4 if self.order == 4 else ARK3, self.rtol)


class ImplicitRungeKutta(Scheme):
    """Steps of a method with an explicit first stage and one gamma after it."""

    frugal = True

    def __init__(self, system: NonlinearSystem, tableau: Tableau, rtol: float) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = f"{tableau.name}, implicit table", tableau.embedded + 1
        self.stages = StageSolver(system, stage_tolerance(rtol), rtol)

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """y' at the start."""
        return (rate(self.system, y, t),)

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> Attempt:
        """Stage by stage."""
        table = self.tableau
        rates = blank_rates(y, table.stages)
        rates[0] = memory[0]
        tau, value = h * table.gamma, y
        residual, solved = torch.zeros_like(alive, dtype=y.dtype), torch.ones_like(alive)
        for i in range(1, table.stages):
            base = combine(y, h, table.weights[i], rates)
            guess = predicted(base, tau, rates[i - 1])
            found = self.stages.solve(
                tau, base, t + table.c[i] * h, guess, alive, self.system.residual
            )
            value, rates[i] = recovered(found.value, base, tau)
            residual, solved = torch.maximum(residual, found.residual), solved & found.solved
        error = combine(torch.zeros_like(y), h, table.estimate, rates)
        return Attempt(value, (rates[-1],), error, residual, solved)

    def forget(self) -> None:
        """Of nonlinear equations the Jacobian."""
        self.stages.forget()

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)


def stage_tolerance(rtol: float) -> float:
    """To what residual stages are solved, so that it does not show in the error estimate."""
    return max(1e-2 * rtol, 1e-13)


def predicted(base: torch.Tensor, tau: float, before: torch.Tensor) -> torch.Tensor:
    """A guess for U from the derivative at the stage before."""
    return base[0] + tau * (before[0] if len(base) == 1 else base[1] + tau * before[1])


def recovered(U: torch.Tensor, base: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole stage and its derivative, from its first part."""
    velocity = (U - base[0]) / tau
    if len(base) == 1:
        return U[None], velocity[None]
    return torch.stack([U, velocity]), torch.stack([velocity, (velocity - base[1]) / tau])


def stage_remark(stages: StageSolver) -> str:
    """What the implicit stages cost."""
    return f"{stages.note}, {stages.solves} solves with {stages.setups} set-ups"
