"""Black-box multigrid for stencils on tensor grids."""

from __future__ import annotations

from sciml.solvers.linear.multigrid.cycle import Multigrid

__all__ = ["Multigrid"]
