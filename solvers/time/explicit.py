"""Explicit methods, for waves and advection: no equation is solved.

Runge-Kutta on y = (u) or (u, u'), and the method of Stoermer and Verlet for second order in time,

    v+ = v + h/2 a(u, v),   u_new = u + h v+,   v_new = v+ + h/2 a(u_new, v_new),

which is symplectic: the energy of a linear wave oscillates by O(h^2) and does not drift, since
v . M v + u . (A - h^2/4 A M^-1 A) u is conserved exactly (Hairer, Lubich, Wanner 2006, I.1 and IX).

How large a step may be: with B = M^-1 dF/du, its symmetric part S and its skew part T, the
eigenvalues of -B lie in the rectangle [-max S, 0] x i [-rho(T), rho(T)] (Bendixson), whose sides
Gershgorin's discs bound. For constant coefficients in one dimension they fill the ellipse inscribed
in it, which is taken here:

    z(phi) = h (-s / 2 (1 - cos phi) + i a sin phi),

diffusion alone s = 4 K / dx^2 on the real axis, advection alone a = |b| / dx on the imaginary one,
first-order upwinding the circle s / 2 = a. The largest step keeps |R(z)| <= 1 on all of it. Of
inertia u'' + F = 0 the ellipse is i [-sqrt(rho), sqrt(rho)], widened by the damping to its left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import Inertia, NonlinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.solvers.time import tableaux
from sciml.solvers.time.march import (
    Integrator,
    Memory,
    Scheme,
    TimeStep,
    blank_rates,
    check_time_options,
    combine,
    first_state,
    rate,
)
from sciml.solvers.time.tableaux import Tableau

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
    atol: float | None = None
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
            bounds = spectral_bounds(system, start)
            largest = largest_step(tableau.stability, *bounds)
            check_step(self.step, largest, tableau.name)
        return ExplicitRungeKutta(system, tableau)


class ExplicitRungeKutta(Scheme):
    """Steps of an explicit table."""

    explicit = True

    def __init__(self, system: NonlinearSystem, tableau: Tableau) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = tableau.name, tableau.embedded + 1

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """y' at the start."""
        return (rate(self.system, y, t),)

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
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
        return TimeStep(stage, (last,), error, none, torch.ones_like(alive))


@dataclass(frozen=True)
class Verlet(Integrator):
    """The method of Stoermer and Verlet for waves: second order, symplectic, one F a step.

    ``step`` is fixed; left out it is half the stability bound.
    """

    kind: Literal["verlet"] = "verlet"
    rtol: float = 1e-2
    atol: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system; raises InputError for one of first order."""
        largest = _largest_verlet(system, start)
        if self.step is not None:
            check_step(self.step, largest, "verlet")
        return StoermerVerlet(system, largest / 2 if self.step is None else self.step)


def diagonal(mass: Inertia | None) -> torch.Tensor | None:
    """What stands before a derivative; InputError where it is a matrix."""
    if isinstance(mass, LinearMap):
        raise InputError(
            "on a mesh the mass is a matrix, with which no explicit method is explicit: use sdirk "
            "or bdf",
            "solver.kind",
        )
    return mass


def _largest_verlet(system: NonlinearSystem, start: float) -> float:
    """2 / omega of the fastest mode."""
    if system.inertia is None:
        raise InputError(
            "verlet is for equations of second order in time; use runge_kutta or sdirk",
            "solver.kind",
        )
    return 2 / spectral_bounds(system, start)[1]


class StoermerVerlet(Scheme):
    """Steps of size ``step``; damping is explicit in the first half step, implicit in the other."""

    name, exponent = "Stoermer-Verlet", 3

    def __init__(self, system: NonlinearSystem, step: float) -> None:
        self.system, self.fixed_step = system, step

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """-F / inertia at the start."""
        return (self._pull(y[0], t),)

    def _pull(self, u: torch.Tensor, t: float) -> torch.Tensor:
        inertia = diagonal(self.system.inertia)
        assert inertia is not None
        return -self.system.residual(u, t) / inertia

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """Kick, drift, kick."""
        (u, v), (before,) = y, memory
        mass, inertia = diagonal(self.system.mass), diagonal(self.system.inertia)
        assert inertia is not None
        damping = torch.zeros(()) if mass is None else mass / inertia
        half = v + h / 2 * (before - damping * v)
        moved = u + h * half
        after = self._pull(moved, t + h)
        velocity = (half + h / 2 * after) / (1 + h / 2 * damping)
        # The leading term of the local error is h^3/6 u''' in u, and h^3/12 of the pull in v.
        error = torch.stack([h * h / 6 * (after - before), torch.zeros_like(v)])
        none = torch.zeros_like(alive, dtype=y.dtype)
        return TimeStep(
            torch.stack([moved, velocity]), (after,), error, none, torch.ones_like(alive)
        )


_LARGEST = 40.0  # no explicit method here is stable beyond |z| = 40
_SLACK = 1e-9  # by which rounding lifts |R| above 1


def spectral_bounds(system: NonlinearSystem, t: float) -> tuple[float, float]:
    """(s, a) of the ellipse at the start, the largest of all samples."""
    mass, inertia = diagonal(system.mass), diagonal(system.inertia)
    J = system.stencil(first_state(system)[0], t)
    if inertia is not None:
        damping = 0.0
        if mass is not None:
            damping = float((mass / inertia).max())
        return damping, _radius(J.coefficients, J, inertia) ** 0.5
    assert mass is not None
    if J.symmetric:
        return _radius(J.coefficients, J, mass), 0.0
    mirrored = J.transpose().coefficients
    symmetric, skew = (J.coefficients + mirrored) / 2, (J.coefficients - mirrored) / 2
    return _radius(symmetric, J, mass), _radius(skew, J, mass)


def _radius(coefficients: torch.Tensor, J: Stencil, mass: torch.Tensor) -> float:
    """Gershgorin's bound of the spectral radius of M^-1 times a stencil."""
    return float((coefficients.abs().sum(-J.dimension - 1) / mass).detach().max())


def largest_step(polynomial: np.ndarray, s: float, a: float) -> float:
    """The largest h for which |R| <= 1 on the ellipse and on all smaller ones."""
    if s == 0 and a == 0:
        return float("inf")
    angles = np.linspace(0, np.pi, 181)
    shape = (-s / 2 * (1 - np.cos(angles)) + 1j * a * np.sin(angles)) / max(s, a)

    def stable(size: float) -> bool:
        return bool(np.abs(np.polyval(polynomial[::-1], size * shape)).max() <= 1 + _SLACK)

    sizes = np.geomspace(1e-2, _LARGEST, 400)
    first = next((k for k, size in enumerate(sizes) if not stable(size)), len(sizes))
    low, high = (sizes[first - 1] if first else 0.0), sizes[min(first, len(sizes) - 1)]
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if stable(middle) else (low, middle)
    return float(low / max(s, a))


def check_step(step: float, largest: float, method: str) -> None:
    """Raise InputError for a step beyond the stability bound (Courant, Friedrichs, Lewy 1928)."""
    if step > largest * (1 + 1e-6):
        raise InputError(
            f"step {step:g} is unstable for {method} on this grid: the largest admissible one is "
            f"{largest:.4g}; take that, leave step out, or use an implicit method such as sdirk",
            "solver.step",
        )
