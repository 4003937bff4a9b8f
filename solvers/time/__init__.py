"""Integrators in time for what the discretisation in space leaves: a system of ODEs."""

from __future__ import annotations

from sciml.solvers.time.etdrk4 import ETDRK4
from sciml.solvers.time.explicit import RungeKutta, Verlet
from sciml.solvers.time.implicit import BDF, IMEX, SDIRK
from sciml.solvers.time.newmark import Newmark
from sciml.solvers.time.quasi_static import QuasiStatic

__all__ = ["BDF", "ETDRK4", "IMEX", "SDIRK", "Newmark", "QuasiStatic", "RungeKutta", "Verlet"]
