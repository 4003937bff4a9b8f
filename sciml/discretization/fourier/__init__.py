"""Periodic problems in time on their Fourier coefficients: U' = L U + N(U, t)."""

from __future__ import annotations

# Loaded for the evolution that it registers.
from sciml.discretization.fourier import vorticity  # noqa: F401
