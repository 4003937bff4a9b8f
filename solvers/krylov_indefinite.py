"""MINRES for symmetric, possibly indefinite systems.

The Lanczos process with the preconditioner's inner product gives A Z_j = V_{j+1} T_j with T_j
tridiagonal; Givens rotations reduce T_j to triangular form, and x_j minimises the residual in the
M-norm over the Krylov space (Paige and Saunders 1975; in the form of Elman, Silvester and Wathen
2014, algorithm 4.1). The residual itself follows from r_j = s_j^2 r_{j-1} + c_j eta_j v_{j+1}, so
that the stopping test is on its Euclidean norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.linear import LinearMap
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.solvers.iteration import (
    Iterate,
    Ledger,
    LinearSolver,
    Method,
    axpy,
    check_options,
    dot,
    iterate_verified,
    norm,
    precondition,
    ratio,
    remove_mean,
    require_real,
    singular_symmetric,
    spread,
)
from sciml.solvers.preconditioner import (
    KrylovState,
    Preconditioner,
    require_definite_preconditioner,
    require_symmetric,
    setup_preconditioner,
)
from sciml.solvers.probing import require_suitable


@dataclass(frozen=True)
class MINRES(LinearSolver):
    """Preconditioned minimal residuals (Paige and Saunders 1975).

    Needs a symmetric operator and a symmetric positive definite preconditioner; raises InputError
    where the tags say otherwise.
    """

    preconditioner: Preconditioner | None = None
    kind: Literal["minres"] = "minres"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner and check the tags."""
        require_symmetric(self.kind, A)
        M = setup_preconditioner(self.preconditioner, A)
        require_definite_preconditioner(self.kind, M, nonlinear="gmres")
        require_suitable(self.kind, M, A)
        return KrylovState(M)

    def iterate(
        self,
        A: LinearMap,
        prepared: KrylovState,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Iterate:
        """Run to the tolerance."""
        require_real(self.kind, A, b)
        return iterate_verified(
            minimal_residuals(A, prepared.M),
            A,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=1000,
            progress=progress,
        )


def minimal_residuals(A: LinearMap, M: LinearMap | None) -> Method:
    """MINRES from the residual r, as a method for ``iterate_verified``."""
    dimension, project = len(A.shape), singular_symmetric(A)

    def method(x: torch.Tensor, r: torch.Tensor, ledger: Ledger) -> None:
        v, v_old = r.clone(), torch.zeros_like(r)
        z = precondition(M, v, project)
        gamma = _lanczos_norm(z, v, ledger)
        w, w_old = torch.zeros_like(r), torch.zeros_like(r)
        zero, one = torch.zeros_like(gamma), torch.ones_like(gamma)
        eta, gamma_old = gamma, one
        s_old, s, c_old, c = zero, zero, one, one
        while ledger.active:
            z = z * spread(ratio(one, gamma, ledger.running), dimension)
            v_next = A.apply(z)
            if project:
                remove_mean(v_next, dimension)
            delta = dot(v_next, z, dimension)
            ledger.stop(~torch.isfinite(delta), Status.NOT_FINITE)
            axpy(-ratio(delta, gamma, ledger.running), v, v_next)
            axpy(-ratio(gamma, gamma_old, ledger.running), v_old, v_next)
            z_next = precondition(M, v_next, project)
            gamma_next = _lanczos_norm(z_next, v_next, ledger)

            diagonal = c * delta - c_old * s * gamma
            radius = torch.hypot(diagonal, gamma_next)
            ledger.stop(radius == 0, Status.BREAKDOWN)
            above = s * delta + c_old * c * gamma
            above_two = s_old * gamma
            c_old, c = c, ratio(diagonal, radius, ledger.running)
            s_old, s = s, ratio(gamma_next, radius, ledger.running)

            running = ledger.running
            axpy(-above_two, w_old, z)
            axpy(-above, w, z)
            w_old, w = w, z.mul_(spread(ratio(one, radius, running), dimension))
            axpy(torch.where(running, c * eta, 0.0), w, x)
            eta = -s * eta
            # Residual update; a frozen sample keeps its r, so the factors are 1 and 0 there.
            kept = torch.where(running, s.square(), 1.0)
            added = ratio(c * eta, gamma_next, running)
            r.mul_(spread(kept, dimension))
            axpy(added, v_next, r)
            ledger.record(norm(r, dimension))
            v_old, v, z = v, v_next, z_next
            gamma_old, gamma = gamma, gamma_next

    return method


def _lanczos_norm(z: torch.Tensor, v: torch.Tensor, ledger: Ledger) -> torch.Tensor:
    square = dot(z, v, v.ndim - ledger.scale.ndim)
    ledger.stop(square < 0, Status.INDEFINITE_PRECONDITIONER)
    return square.clamp(min=0.0).sqrt()
