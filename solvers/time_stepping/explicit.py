"""Explicit methods, for waves and advection: no equation is solved.

Runge-Kutta on y = (u) or (u, u'), and the method of Stoermer and Verlet for second order in time,

    v+ = v + h/2 a(u, v),   u_new = u + h v+,   v_new = v+ + h/2 a(u_new, v_new),

which is symplectic: the energy of a linear wave oscillates by O(h^2) and does not drift, since
v . M v + u . (A - h^2/4 A M^-1 A) u is conserved exactly (Hairer, Lubich, Wanner 2006, I.1 and IX).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.nonlinear import NonlinearSystem
from sciml.solvers.time_stepping import stability, tableaux
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
from sciml.solvers.time_stepping.tableaux import Tableau

Method = Literal["dormand_prince", "bogacki_shampine", "classical", "strong_stability"]
_TABLEAUX: dict[str, Tableau] = {
    "dormand_prince": tableaux.DORMAND_PRINCE,
    "bogacki_shampine": tableaux.BOGACKI_SHAMPINE,
    "classical": tableaux.CLASSICAL,
    "strong_stability": tableaux.STRONG_STABILITY,
}


@dataclass(frozen=True)
class RungeKutta(Integrator):
    """Explicit Runge-Kutta methods of order 5, 3, 4 and 3, each with an estimate of its error.

    A fixed ``step`` beyond the stability bound raises InputError, which names the largest one.
    """

    kind: Literal["runge_kutta"] = "runge_kutta"
    method: Method = "dormand_prince"
    rtol: float = 1e-6
    atol: float = 1e-9
    step: float | None = None

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if self.method not in _TABLEAUX:
            raise InputError(
                f"runge_kutta: method must be one of {', '.join(_TABLEAUX)}; got {self.method}",
                "solver.method",
            )

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        tableau = _TABLEAUX[self.method]
        if self.step is not None:
            bounds = stability.spectral_bounds(system, start)
            largest = stability.largest_step(tableau.stability, *bounds)
            stability.check_step(self.step, largest, tableau.name)
        return ExplicitRungeKutta(system, tableau)


class ExplicitRungeKutta(Scheme):
    """Steps of an explicit table."""

    def __init__(self, system: NonlinearSystem, tableau: Tableau) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = tableau.name, tableau.embedded + 1

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
        stage = y
        for i in range(1, table.stages):
            stage = combine(y, h, table.weights[i], rates)
            rates[i] = rate(self.system, stage, t + table.c[i] * h)
        error = combine(torch.zeros_like(y), h, table.estimate, rates)
        if table.first_same_as_last:
            last = rates[-1]
        else:
            stage = combine(y, h, table.final, rates)
            last = rate(self.system, stage, t + h)
        none = torch.zeros_like(alive, dtype=y.dtype)
        return Attempt(stage, (last,), error, none, torch.ones_like(alive))


@dataclass(frozen=True)
class Verlet(Integrator):
    """The method of Stoermer and Verlet for waves: second order, symplectic, one F a step.

    ``step`` is fixed; left out it is half the stability bound.
    """

    kind: Literal["verlet"] = "verlet"
    rtol: float = 1e-2
    atol: float = 1e-9
    step: float | None = None

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system; raises InputError for one of first order."""
        largest = _largest_verlet(system, start)
        if self.step is not None:
            stability.check_step(self.step, largest, "verlet")
        return StoermerVerlet(system, largest / 2 if self.step is None else self.step)


def _largest_verlet(system: NonlinearSystem, start: float) -> float:
    """2 / omega of the fastest mode."""
    if system.inertia is None:
        raise InputError(
            "verlet is for equations of second order in time; use runge_kutta or sdirk",
            "solver.kind",
        )
    return 2 / stability.spectral_bounds(system, start)[1]


class StoermerVerlet(Scheme):
    """Steps of size ``step``; damping is explicit in the first half step, implicit in the other."""

    name, exponent = "Stoermer-Verlet", 3

    def __init__(self, system: NonlinearSystem, step: float) -> None:
        self.system, self.fixed_step = system, step

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """-F / inertia at the start."""
        return (self._pull(y[0], t),)

    def _pull(self, u: torch.Tensor, t: float) -> torch.Tensor:
        assert self.system.inertia is not None
        return -self.system.residual(u, t) / self.system.inertia

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> Attempt:
        """Kick, drift, kick."""
        (u, v), (before,) = y, memory
        mass, inertia = self.system.mass, self.system.inertia
        assert inertia is not None
        damping = torch.zeros(()) if mass is None else mass / inertia
        half = v + h / 2 * (before - damping * v)
        moved = u + h * half
        after = self._pull(moved, t + h)
        velocity = (half + h / 2 * after) / (1 + h / 2 * damping)
        # The leading term of the local error is h^3/6 u''' in u, and h^3/12 of the pull in v.
        error = torch.stack([h * h / 6 * (after - before), torch.zeros_like(v)])
        none = torch.zeros_like(alive, dtype=y.dtype)
        return Attempt(
            torch.stack([moved, velocity]), (after,), error, none, torch.ones_like(alive)
        )
