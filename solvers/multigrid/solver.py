"""Multigrid as a solver and as a preconditioner.

Black-box multigrid (Dendy 1982): operator-dependent prolongation, Galerkin coarse stencils, any
grid size, so that jumping coefficients, embedded obstacles and reaction terms need no care from the
user. As a preconditioner one cycle from a zero guess, symmetric for a symmetric operator and
computed in float32 inside a float64 Krylov method; on its own, cycles repeated on the residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.core.stencil import Stencil
from sciml.solvers.iteration import StationaryMethod, check_options
from sciml.solvers.multigrid.choice import choose
from sciml.solvers.multigrid.cycle import Cycle, MultigridCycle, Smoother
from sciml.solvers.multigrid.hierarchy import build

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Multigrid(StationaryMethod):
    """Matrix-free black-box multigrid for the stencils of tensor grids.

    ``cycle``: V, W, F, alternating (see ``cycle``), or auto: V, or alternating where a trial on a
    coarse level says that it pays (see ``choice``). ``smoother``: coloured Gauss-Seidel, or
    Chebyshev of degree 2 ``sweeps``. ``sweeps`` before and after each coarse correction. ``full``:
    correct the start, as a solver and in CG, by full multigrid on its residual. ``dtype`` of the
    cycle; residuals are always float64.
    """

    kind: Literal["multigrid"] = "multigrid"
    cycle: Cycle | Literal["auto"] = "auto"
    smoother: Smoother = "gauss_seidel"
    sweeps: int = 2
    full: bool = True
    dtype: Literal["float32", "float64"] = "float32"
    rtol: float = 1e-8
    max_iterations: int = 200
    window = 50

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.sweeps < 1:
            raise InputError(f"multigrid: sweeps must be at least 1; got {self.sweeps}")

    @torch.no_grad()
    def setup(self, A: LinearMap) -> MultigridCycle:
        """Build the hierarchy; raises InputError for a matrix that is no stencil."""
        if not isinstance(A, Stencil):
            raise InputError(
                "multigrid needs a stencil on a tensor grid; use amg for a sparse matrix, or say "
                "which grid it lives on: shape=(n, n) in sciml.cg, as_scipy or as_petsc",
                "solver.kind",
            )
        if A.dtype.is_complex:
            raise InputError(
                "multigrid needs a real operator; for a complex one use gmres with "
                "shifted_laplacian, or direct",
                "solver.kind",
            )
        hierarchy = build(A, DTYPES[self.dtype])
        if self.cycle == "auto":
            return choose(A, hierarchy, self.smoother, self.sweeps, self.full)
        return MultigridCycle(A, hierarchy, self.cycle, self.smoother, self.sweeps, self.full)
