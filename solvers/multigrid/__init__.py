"""Black-box multigrid for stencils on tensor grids."""

from sciml.solvers.multigrid.solver import Multigrid

__all__ = ["Multigrid"]
