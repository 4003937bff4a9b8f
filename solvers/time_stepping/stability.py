"""How large a step an explicit method may take.

With B = M^-1 dF/du, its symmetric part S and its skew part T, the eigenvalues of -B lie in the
rectangle [-max S, 0] x i [-rho(T), rho(T)] (Bendixson), whose sides Gershgorin's discs bound. For
constant coefficients in one dimension they fill the ellipse inscribed in it, which is taken here:

    z(phi) = h (-s / 2 (1 - cos phi) + i a sin phi),

diffusion alone s = 4 K / dx^2 on the real axis, advection alone a = |b| / dx on the imaginary one,
first-order upwinding the circle s / 2 = a. The largest step keeps |R(z)| <= 1 on all of it. Of
inertia u'' + F = 0 the ellipse is i [-sqrt(rho), sqrt(rho)], widened by the damping to its left.
"""

from __future__ import annotations

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.stencil import Stencil
from sciml.solvers.time_stepping.march import first_state

_LARGEST = 40.0  # no explicit method here is stable beyond |z| = 40
_SLACK = 1e-9  # by which rounding lifts |R| above 1


def spectral_bounds(system: NonlinearSystem, t: float) -> tuple[float, float]:
    """(s, a) of the ellipse at the start, the largest of all samples."""
    J = system.linearise(first_state(system)[0], t)
    if system.inertia is not None:
        damping = 0.0
        if system.mass is not None:
            damping = float((system.mass / system.inertia).max())
        return damping, _radius(J.coefficients, J, system.inertia) ** 0.5
    assert system.mass is not None
    if J.symmetric:
        return _radius(J.coefficients, J, system.mass), 0.0
    mirrored = J.transpose().coefficients
    symmetric, skew = (J.coefficients + mirrored) / 2, (J.coefficients - mirrored) / 2
    return _radius(symmetric, J, system.mass), _radius(skew, J, system.mass)


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
