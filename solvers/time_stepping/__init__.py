"""Integrators in time for what the discretisation in space leaves: a system of ODEs."""

from __future__ import annotations

from sciml.solvers.time_stepping.explicit import RungeKutta, Verlet
from sciml.solvers.time_stepping.implicit import BDF, IMEX, SDIRK

__all__ = ["BDF", "IMEX", "SDIRK", "RungeKutta", "Verlet"]
