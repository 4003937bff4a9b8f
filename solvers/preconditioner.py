"""Which solvers may stand as a preconditioner, and what each Krylov method asks of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.solvers.amg import AMG
from sciml.solvers.direct import Direct
from sciml.solvers.fast_poisson import FastPoisson
from sciml.solvers.jacobi import Jacobi
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.shifted_laplacian import ShiftedLaplacian

Preconditioner: TypeAlias = Direct | AMG | FastPoisson | Multigrid | Jacobi | ShiftedLaplacian


@dataclass(frozen=True)
class KrylovState:
    """A Krylov method's set-up: the preconditioner's map, or None for the identity."""

    M: LinearMap | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the preconditioner's set-up has to say."""
        return getattr(self.M, "notes", ())


def setup_preconditioner(preconditioner: Any, A: LinearMap) -> LinearMap | None:
    """The map ``M ~ A^-1`` of a preconditioner's options, of a LinearMap (itself), or of None."""
    if preconditioner is None or isinstance(preconditioner, LinearMap):
        return preconditioner
    if isinstance(preconditioner, type) or not hasattr(preconditioner, "setup"):
        raise InputError(
            f"{preconditioner!r} is no preconditioner; pass an instance such as Multigrid()",
            "solver.preconditioner",
        )
    M = preconditioner.setup(A)
    if not isinstance(M, LinearMap):
        raise InputError(
            f"{preconditioner.kind} is no preconditioner: it is not a fixed approximate inverse; "
            "use multigrid, amg, fast_poisson, direct or jacobi",
            "solver.preconditioner",
        )
    return M


def require_symmetric(kind: str, A: LinearMap) -> None:
    """Refuse a nonsymmetric operator."""
    if not A.symmetric:
        raise InputError(
            f"{kind} needs a symmetric operator and this one is not; use gmres or bicgstab",
            "solver.kind",
        )


def require_definite(kind: str, A: LinearMap) -> None:
    """Refuse an operator that is not symmetric positive definite."""
    require_symmetric(kind, A)
    if not A.definite:
        raise InputError(
            f"{kind} needs a positive definite operator and this one is not tagged so; use minres",
            "solver.kind",
        )


def require_linear(kind: str, M: LinearMap | None, instead: str) -> None:
    """Refuse a preconditioner that is not a fixed linear map."""
    if M is not None and not M.linear:
        raise InputError(
            f"{kind} needs a linear preconditioner and this one is not; use {instead}",
            "solver.preconditioner",
        )


def require_definite_preconditioner(kind: str, M: LinearMap | None, nonlinear: str) -> None:
    """Refuse a preconditioner that is not a symmetric positive definite linear map."""
    require_linear(kind, M, nonlinear)
    if M is not None and not (M.symmetric and M.definite):
        trouble = "positive definite" if M.symmetric else "symmetric"
        raise InputError(
            f"{kind} needs a symmetric positive definite preconditioner and this one is not "
            f"{trouble}; use gmres",
            "solver.preconditioner",
        )
