"""The backward differentiation formula of second order with variable steps.

With w = h / h_before,

    u_new = (1 + w)^2 / (1 + 2 w) u - w^2 / (1 + 2 w) u_before + h (1 + w) / (1 + 2 w) f(u_new),

A-stable and L-stable at constant steps, zero-stable up to w = 1 + sqrt 2 (Grigorieff 1983). Its
local error is (1 + w)^2 / (6 w (1 + 2 w)) h^3 u''', with u''' from the third divided difference.
One stage a step, against five of SDIRK; the first two steps are taken by SDIRK.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.nonlinear import NonlinearSystem
from sciml.solvers.time_stepping.implicit import (
    ImplicitRungeKutta,
    predicted,
    recovered,
    stage_remark,
)
from sciml.solvers.time_stepping.march import (
    Attempt,
    Integrator,
    Memory,
    Scheme,
    check_time_options,
)
from sciml.solvers.time_stepping.tableaux import ARK4


@dataclass(frozen=True)
class BDF(Integrator):
    """The two-step backward differentiation formula, steps variable (Gear 1971)."""

    kind: Literal["bdf"] = "bdf"
    rtol: float = 1e-4
    atol: float = 1e-9
    step: float | None = None

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        return BackwardDifferences(system, self.rtol)


class BackwardDifferences(Scheme):
    """Steps of the formula; the memory holds the two states before and their distances."""

    name, exponent, growth, frugal = "BDF2", 3, 2.0, True

    def __init__(self, system: NonlinearSystem, rtol: float) -> None:
        self.system = system
        self.starter = ImplicitRungeKutta(system, ARK4, rtol)
        self.stages = self.starter.stages

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """y', twice no state before, and distances of zero for that."""
        return (*self.starter.begin(y, t), y, y, torch.zeros(2, dtype=torch.float64))

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> Attempt:
        """One stage, or a whole step of the starter while two states before are missing."""
        derivative, before, earlier, gaps = memory
        last, last_but_one = gaps.tolist()
        distances = torch.tensor([h, last], dtype=torch.float64)
        if last_but_one == 0:
            started = self.starter.advance(y, (derivative,), t, h, alive)
            kept = (*started.memory, y, before, distances)
            return Attempt(started.y, kept, started.error, started.residual, started.solved)
        w = h / last
        share = 1 + 2 * w
        tau = h * (1 + w) / share
        base = ((1 + w) ** 2 / share) * y - (w**2 / share) * before
        found = self.stages.solve(
            tau, base, t + h, predicted(base, tau, derivative), alive, self.system.residual
        )
        new, slope = recovered(found.value, base, tau)
        third = _third_difference((new, y, before, earlier), (h, last, last_but_one))
        error = (1 + w) ** 2 / (w * share) * h**3 * third
        return Attempt(new, (slope, y, before, distances), error, found.residual, found.solved)

    def forget(self) -> None:
        """Of nonlinear equations the Jacobian."""
        self.stages.forget()

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)


def _third_difference(
    states: tuple[torch.Tensor, ...], gaps: tuple[float, float, float]
) -> torch.Tensor:
    """The divided difference u[t_0, t_-1, t_-2, t_-3] = u''' / 6."""
    first = [(a - b) / g for a, b, g in zip(states, states[1:], gaps, strict=False)]
    second = [
        (a - b) / (g + q) for a, b, g, q in zip(first, first[1:], gaps, gaps[1:], strict=False)
    ]
    return (second[0] - second[1]) / sum(gaps)
