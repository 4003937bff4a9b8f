"""BiCGStab and restarted GMRES for nonsymmetric systems, preconditioned from the right.

The right-preconditioned system (A M) y = b, x = M y keeps the residual b - A x what it is, so
that stopping tests see the true one. GMRES stores the preconditioned vectors Z = M V themselves
(Saad 1993), so that M may change from step to step. Complex systems take complex inner products,
conjugate in the first factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.solvers.guard import blamed, for_one_solve, guard, noted, watch
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
    singular_symmetric,
    spread,
    xpay,
)
from sciml.solvers.preconditioner import (
    KrylovState,
    Preconditioner,
    require_linear,
    setup_preconditioner,
)
from sciml.solvers.probing import require_suitable


@dataclass(frozen=True)
class BiCGStab(LinearSolver):
    """Stabilised biconjugate gradients, preconditioned from the right (van der Vorst 1992).

    Little memory, two applications of A and M per iteration; the preconditioner must be linear.
    """

    preconditioner: Preconditioner | None = None
    kind: Literal["bicgstab"] = "bicgstab"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner and check the tags."""
        M = setup_preconditioner(self.preconditioner, A)
        require_linear(self.kind, M, "gmres")
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
        return iterate_verified(
            stabilised_biconjugate_gradients(A, prepared.M),
            A,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=1000,
            progress=progress,
        )


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Flexible generalised minimal residuals, restarted (Saad and Schultz 1986; Saad 1993).

    ``restart``: vectors kept before a restart, two arrays each. Any preconditioner will do; one
    that is nonlinear or untrusted is watched, and gives way to a classical one where it fails.
    """

    preconditioner: Preconditioner | None = None
    kind: Literal["gmres"] = "gmres"
    rtol: float = 1e-8
    max_iterations: int = 10_000
    restart: int = 30

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.restart < 1:
            raise InputError(
                f"gmres: restart must be at least 1; got {self.restart}", "solver.restart"
            )

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner."""
        return KrylovState(guard(A, setup_preconditioner(self.preconditioner, A), descent=False))

    def iterate(
        self,
        A: LinearMap,
        prepared: KrylovState,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Iterate:
        """Run to the tolerance."""
        M = for_one_solve(prepared.M)
        result = iterate_verified(
            generalised_minimal_residuals(A, M, self.restart),
            A,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=max(300, 5 * self.restart),
            progress=progress,
        )
        return noted(result, M)


def stabilised_biconjugate_gradients(A: LinearMap, M: LinearMap | None) -> Method:
    """BiCGStab from the residual r, as a method for ``iterate_verified``."""
    dimension, project = len(A.shape), singular_symmetric(A)

    def method(x: torch.Tensor, r: torch.Tensor, ledger: Ledger) -> None:
        shadow, p = r.clone(), r.clone()
        rho = dot(shadow, r, dimension)
        while ledger.active:
            y = precondition(M, p, project)
            v = A.apply(y)
            slope = dot(shadow, v, dimension)
            ledger.stop(~torch.isfinite(slope), Status.NOT_FINITE)
            ledger.stop(slope == 0, Status.BREAKDOWN)
            alpha = ratio(rho, slope, ledger.running)
            axpy(alpha, y, x)
            axpy(-alpha, v, r)
            z = precondition(M, r, project)
            t = A.apply(z)
            omega = ratio(dot(t, r, dimension), dot(t, t, dimension), ledger.running)
            axpy(omega, z, x)
            axpy(-omega, t, r)
            ledger.record(norm(r, dimension))
            rho_next = dot(shadow, r, dimension)
            ledger.stop((rho_next == 0) | (omega == 0), Status.BREAKDOWN)
            running = ledger.running
            beta = ratio(rho_next, rho, running) * ratio(alpha, omega, running)
            axpy(-omega, v, p)
            xpay(r, beta, p)
            rho = rho_next

    return method


def generalised_minimal_residuals(A: LinearMap, M: LinearMap | None, restart: int) -> Method:
    """One cycle of flexible GMRES from the residual r, as a method for ``iterate_verified``."""
    dimension, project = len(A.shape), singular_symmetric(A)

    def method(x: torch.Tensor, r: torch.Tensor, ledger: Ledger) -> None:
        watch(M, r, ledger)
        size = norm(r, dimension)
        rotated = _LeastSquares(size, restart)
        basis = [r * spread(ratio(torch.ones_like(size), size, ledger.running), dimension)]
        images: list[torch.Tensor] = []
        for _ in range(restart):
            running = ledger.running
            images.append(precondition(M, basis[-1], project))
            v = A.apply(images[-1])
            column = []
            for direction in basis:
                h = dot(direction, v, dimension)
                axpy(-h, direction, v)
                column.append(h)
            length = norm(v, dimension)
            residual = rotated.append([*column, length], running)
            if blamed(M, rotated.singular):
                break
            ledger.stop(rotated.singular, Status.BREAKDOWN)
            ledger.record(residual)
            basis.append(v.mul_(spread(ratio(torch.ones_like(length), length, running), dimension)))
            if not ledger.active:
                break
        for weight, z in zip(rotated.solve(), images, strict=True):
            axpy(weight, z, x)

    return method


class _LeastSquares:
    """min ||size e_1 - H y|| by (complex) Givens rotations, column by column, for each sample.

    Once a sample is frozen its columns are those of the identity with right-hand side zero, so
    that the corresponding weights vanish.
    """

    def __init__(self, size: torch.Tensor, restart: int) -> None:
        self.columns: list[torch.Tensor] = []
        self.rotations: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.right: list[torch.Tensor] = []
        self.tail = size
        self.restart = restart
        self.singular = torch.zeros_like(size, dtype=torch.bool)

    def append(self, column: list[torch.Tensor], running: torch.Tensor) -> torch.Tensor:
        """Take in a column of H (one scalar per sample each); returns the residual norms."""
        for i, (c, s) in enumerate(self.rotations):
            upper, lower = column[i], column[i + 1]
            column[i], column[i + 1] = c.conj() * upper + s * lower, c * lower - s * upper
        radius = torch.hypot(column[-2].abs(), column[-1].abs())
        c, s = ratio(column[-2], radius, running), ratio(column[-1], radius, running)
        self.singular = running & (radius == 0)
        usable = running & (radius > 0)
        entries = [torch.where(usable, entry, 0.0) for entry in column[:-2]]
        padding = [torch.zeros_like(c)] * (self.restart - len(entries) - 1)
        diagonal = torch.where(usable, radius, 1.0).to(c.dtype)
        self.columns.append(torch.stack([*entries, diagonal, *padding], dim=-1))
        self.right.append(torch.where(usable, c.conj() * self.tail, 0.0))
        self.tail = torch.where(usable, -s * self.tail, self.tail)
        self.rotations.append((c, s))
        return self.tail.abs()

    def solve(self) -> list[torch.Tensor]:
        """The weights y, one scalar per sample each."""
        count = len(self.columns)
        triangle = torch.stack(self.columns, dim=-1)[..., :count, :]
        right = torch.stack(self.right, dim=-1).unsqueeze(-1)
        y = torch.linalg.solve_triangular(triangle, right, upper=True).squeeze(-1)
        return list(y.unbind(dim=-1))
