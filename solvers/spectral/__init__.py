"""Fourier pseudo-spectral solvers for problems that are periodic on all sides.

Which modes a grid carries is said in ``fourier``, how an equation falls into a linear symbol and a
nonlinear rest in ``evolution`` (``vorticity`` for incompressible flow), the exponential integrator
in ``exponential``, and the solver, whose run verifies itself in time, in ``etdrk4``.
"""

from __future__ import annotations

# Loaded for the evolution that it registers.
from sciml.solvers.spectral import vorticity  # noqa: F401
from sciml.solvers.spectral.etdrk4 import ETDRK4

__all__ = ["ETDRK4"]
