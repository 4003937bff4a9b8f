"""Incompressible flow between walls by a projection method on a staggered grid."""

from __future__ import annotations

from sciml.solvers.flow import forces  # noqa: F401  # loaded for what it registers
from sciml.solvers.flow.solver import Projection

__all__ = ["Projection"]
