"""Conjugate gradients for symmetric positive definite systems.

    alpha = <r, z> / <p, A p>,   x += alpha p,   r -= alpha A p,
    z = M r,   beta = <r, z>_new / <r, z>,   p = z + beta p

(Hestenes and Stiefel 1952), and Notay's flexible variant, whose preconditioner may change from
step to step: the new direction is made A-orthogonal to the last few ones explicitly.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core import kernels
from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.core.stencil import Stencil
from sciml.solvers.guard import for_one_solve, guard, noted, watch
from sciml.solvers.iteration import (
    Iterate,
    Ledger,
    LinearSolver,
    Method,
    axpy,
    check_options,
    counted,
    dot,
    iterate_verified,
    norm,
    precondition,
    ratio,
    remove_mean,
    require_real,
    singular_symmetric,
)
from sciml.solvers.preconditioner import (
    KrylovState,
    Preconditioner,
    require_definite,
    require_definite_preconditioner,
    setup_preconditioner,
)
from sciml.solvers.probing import require_suitable

# Without a preconditioner CG's residual may wander for hundreds of iterations before it falls.
_WINDOW = 1000


@dataclass(frozen=True)
class CG(LinearSolver):
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952).

    Needs a symmetric positive definite operator and preconditioner; raises InputError where the
    tags say otherwise, naming the method to use instead.
    """

    preconditioner: Preconditioner | None = None
    kind: Literal["cg"] = "cg"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner and check the tags."""
        require_definite(self.kind, A)
        M = setup_preconditioner(self.preconditioner, A)
        require_definite_preconditioner(self.kind, M, nonlinear="fcg")
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
        M = prepared.M
        result = iterate_verified(
            conjugate_gradients(A, M),
            A,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=_WINDOW,
            progress=progress,
            first_guess=None if M is None else M.first_guess,
        )
        return counted(result, M)


@dataclass(frozen=True)
class FCG(LinearSolver):
    """Flexible conjugate gradients, truncated to ``directions`` previous ones (Notay 2000).

    The preconditioner may be nonlinear or change between steps (learned, or an inner iteration);
    one that is nonlinear or untrusted is watched, and gives way to a classical one where it fails,
    which ``Solution.notes`` then says.
    """

    preconditioner: Preconditioner | None = None
    kind: Literal["fcg"] = "fcg"
    rtol: float = 1e-8
    max_iterations: int = 10_000
    directions: int = 2

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.directions < 1:
            raise InputError(
                f"fcg: directions must be at least 1; got {self.directions}", "solver.directions"
            )

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner; only the operator's tags matter."""
        require_definite(self.kind, A)
        return KrylovState(guard(A, setup_preconditioner(self.preconditioner, A), descent=True))

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
        M = for_one_solve(prepared.M)
        result = iterate_verified(
            flexible_conjugate_gradients(A, M, self.directions),
            A,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=_WINDOW,
            progress=progress,
        )
        return noted(result, M)


def conjugate_gradients(A: LinearMap, M: LinearMap | None) -> Method:
    """CG from the residual r, as a method for ``iterate_verified``."""

    def method(x: torch.Tensor, r: torch.Tensor, ledger: Ledger) -> None:
        q, p, norms = torch.empty_like(r), torch.zeros_like(r), norm(r, len(A.shape))
        rz = torch.zeros_like(norms)
        while ledger.active:
            z, factor, rz_next = _precondition(A, M, r, norms)
            _stop_at_slope(rz_next, ledger)
            if not ledger.active:
                return
            kernels.of(p).turn(p, z, factor, ratio(rz_next, rz, ledger.running))
            rz = rz_next
            curvature = _image(A, p, q)
            _stop_at_curvature(curvature, ledger)
            norms = _step(x, r, p, q, ratio(rz, curvature, ledger.running))
            ledger.record(norms)

    return method


# The three steps of CG that stream through memory stand together, so that a kernel can fuse each.


def _image(A: LinearMap, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """``q = A p``; returns <p, q>."""
    if isinstance(A, Stencil) and A.dtype == p.dtype:
        return kernels.of(p).apply_dot(A, p, q)
    A.apply_into(p, q)
    return dot(p, q, len(A.shape))


def _step(
    x: torch.Tensor, r: torch.Tensor, p: torch.Tensor, q: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """``x += alpha p``, ``r -= alpha q`` in place; returns ||r||."""
    return kernels.of(x).step(x, r, p, q, alpha).sqrt()


def _precondition(
    A: LinearMap, M: LinearMap | None, r: torch.Tensor, norms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``M r = factor z`` and <r, M r>; of zero mean where A has constants in its kernel."""
    if M is None:
        return r, torch.ones_like(norms), norms.square()
    z, factor = M.apply_scaled(r, norms)
    if singular_symmetric(A):
        remove_mean(z, len(A.shape))
    return z, factor, factor * kernels.of(r).inner(r, z, len(A.shape))


def flexible_conjugate_gradients(A: LinearMap, M: LinearMap | None, keep: int) -> Method:
    """Notay's FCG(keep) from the residual r, as a method for ``iterate_verified``."""
    dimension, project = len(A.shape), singular_symmetric(A)

    def method(x: torch.Tensor, r: torch.Tensor, ledger: Ledger) -> None:
        previous: deque[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = deque(maxlen=keep)
        while ledger.active:
            watch(M, r, ledger)
            z = precondition(M, r, project)
            p = z.clone()
            for direction, image, curvature in previous:
                gamma = ratio(dot(z, image, dimension), curvature, ledger.running)
                axpy(-gamma, direction, p)
            slope = dot(p, r, dimension)
            _stop_at_slope(slope, ledger)
            q = A.apply(p)
            curvature = dot(p, q, dimension)
            _stop_at_curvature(curvature, ledger)
            alpha = ratio(slope, curvature, ledger.running)
            axpy(alpha, p, x)
            ledger.record(norm(axpy(-alpha, q, r), dimension))
            previous.append((p, q, curvature))

    return method


def _stop_at_curvature(curvature: torch.Tensor, ledger: Ledger) -> None:
    ledger.stop(~torch.isfinite(curvature), Status.NOT_FINITE)
    ledger.stop(curvature <= 0, Status.INDEFINITE_OPERATOR)


def _stop_at_slope(slope: torch.Tensor, ledger: Ledger) -> None:
    ledger.stop(~torch.isfinite(slope), Status.NOT_FINITE)
    ledger.stop(slope <= 0, Status.INDEFINITE_PRECONDITIONER)
