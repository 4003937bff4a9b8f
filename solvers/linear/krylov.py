"""Krylov methods: what they share, and five of them.

Each is a leaf of :class:`KrylovMethod`: its ``traits`` say what it takes, ``method`` is its
recurrence in the order of the textbook, and whatever else makes it a solver of batched systems is
in the interface and in ``iteration``. With an approximate inverse M ~ A^-1,

    CG      alpha = <r, z> / <p, A p>,   x += alpha p,   r -= alpha A p,
            z = M r,   beta = <r, z>_new / <r, z>,   p = z + beta p

(Hestenes and Stiefel 1952); FCG makes the new direction A-orthogonal to the last few ones
explicitly, so that M may change from step to step (Notay 2000). MINRES takes symmetric, indefinite
operators (Paige and Saunders 1975). BiCGStab and GMRES take any, preconditioned from the right: the
system (A M) y = b, x = M y keeps the residual b - A x what it is, so that stopping tests see the
true one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch

from sciml.core.algebra import kernels
from sciml.core.algebra.maps import LinearMap, without_kernel
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.linear.iteration import (
    Ledger,
    LinearSolver,
    Outcome,
    axpy,
    batched_right_side,
    check_options,
    counted,
    dot,
    iterate_verified,
    norm,
    precondition,
    ratio,
    singular_symmetric,
    spread,
    xpay,
)
from sciml.solvers.linear.preconditioner import Preconditioner, setup_preconditioner
from sciml.solvers.linear.safeguard import (
    blamed,
    for_one_solve,
    guard,
    noted,
    require_suitable,
    watch,
)

# Without a preconditioner a residual may wander for hundreds of iterations before it falls.
_WINDOW = 1000


@dataclass(frozen=True)
class Traits:
    """What a Krylov method takes, and what one iteration of it is.

    ``operator``: which A, ``definite`` being symmetric positive definite. ``preconditioner``: which
    M; ``linear`` is a fixed map, ``flexible`` may change from step to step, and is watched.
    ``complex``: whether the recurrence carries complex numbers; where A has to be symmetric, a
    complex one has to be Hermitian. ``products``: those with A, and
    applications of M, in one iteration. ``first_guess``: whether M's own, such as full multigrid,
    corrects the start.
    """

    operator: Literal["any", "symmetric", "definite"]
    preconditioner: Literal["flexible", "linear", "definite"]
    complex: bool = False
    products: int = 1
    first_guess: bool = False


@dataclass(frozen=True)
class KrylovState:
    """A Krylov method's set-up: the preconditioner's map, or None for the identity."""

    M: LinearMap | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the preconditioner's set-up has to say."""
        return getattr(self.M, "notes", ())


@dataclass(frozen=True)
class KrylovMethod(LinearSolver):
    """Interface of Krylov methods; a leaf gives ``traits``, ``window`` and ``method``.

    Options of a leaf's own that are integers are counts, at least 1.
    """

    preconditioner: Preconditioner | None = None
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        counts = {f.name: getattr(self, f.name) for f in fields(self) if f.type in (int, "int")}
        check_options(self.kind, self.rtol, **counts)

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What the method takes."""

    @property
    @abstractmethod
    def window(self) -> int:
        """Iterations without a 1 % fall of the best residual after which a sample stagnates."""

    @abstractmethod
    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """Improve x and r = b - A x in place until no sample runs, or a restart is due."""

    def setup(self, A: LinearMap) -> KrylovState:
        """Set up the preconditioner; raises InputError where it or A is not what traits say."""
        needs = self.traits
        if needs.operator == "definite":
            require_definite(self.kind, A)
        elif needs.operator == "symmetric":
            require_symmetric(self.kind, A)
        M = setup_preconditioner(self.preconditioner, A)
        if needs.preconditioner == "flexible":
            return KrylovState(guard(A, M, descent=needs.operator == "definite"))
        flexible = "fcg" if needs.operator == "definite" else "gmres"
        if needs.preconditioner == "definite":
            require_definite_preconditioner(self.kind, M, flexible)
        else:
            require_linear(self.kind, M, flexible)
        require_suitable(self.kind, needs.preconditioner, M, A)
        return KrylovState(M)

    def iterate(
        self,
        A: LinearMap,
        prepared: KrylovState,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Run to the tolerance."""
        if A.dtype.is_complex and not self.traits.complex:
            _refuse_complex(self.kind)
        if b.is_complex() and not A.dtype.is_complex and not self._takes_both:
            return self._by_parts(A, prepared, b, initial, progress)
        M = for_one_solve(prepared.M)
        guess = M.first_guess if self.traits.first_guess and M is not None else None
        result = iterate_verified(
            self.method,
            A,
            M,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=self.window,
            progress=progress,
            first_guess=guess,
        )
        return noted(counted(result, M, self.traits.products), M)

    @property
    def _takes_both(self) -> bool:
        """Whether a complex right-hand side of a real operator is solved as it is."""
        return self.traits.complex and self.traits.operator == "any"

    def _by_parts(
        self,
        A: LinearMap,
        prepared: KrylovState,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Real and imaginary part as a batch of two; of a sample's two statuses the worse."""
        right = batched_right_side(A, b)
        start = None
        if initial is not None:
            guess = initial.to(right).expand(right.shape)
            start = torch.stack([guess.real, guess.imag])
        parts = torch.stack([right.real, right.imag])
        result = self.iterate(A, prepared, parts, start, progress)
        half = len(result.statuses) // 2
        pairs = zip(result.statuses[:half], result.statuses[half:], strict=True)
        residual = result.true_residual
        return replace(
            result,
            x=torch.complex(result.x[0], result.x[1]),
            statuses=tuple(second if first.success else first for first, second in pairs),
            iterations=result.iterations.amax(0),
            residuals=result.residuals.amax(1),
            # Of the two relative residuals the larger bounds that of the whole.
            true_residual=None if residual is None else residual.amax(0),
        )


@dataclass(frozen=True)
class CG(KrylovMethod):
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952).

    Needs a symmetric positive definite operator and preconditioner; raises InputError where the
    tags say otherwise, naming the method to use instead.
    """

    kind: Literal["cg"] = "cg"
    traits = Traits(operator="definite", preconditioner="definite", complex=True, first_guess=True)
    window = _WINDOW

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """The recurrence above; its three passes through memory are the functions below."""
        q, p, norms = torch.empty_like(r), torch.zeros_like(r), norm(r, len(A.shape))
        rz = torch.zeros_like(norms)
        while ledger.active:
            z, factor, rz_next = _precondition(A, M, r, norms)
            _stop_at_slope(rz_next, ledger)
            if not ledger.active:
                return
            _turn(p, z, factor, ratio(rz_next, rz, ledger.running))
            rz = rz_next
            curvature = _image(A, p, q)
            _stop_at_curvature(curvature, ledger)
            norms = _step(x, r, p, q, ratio(rz, curvature, ledger.running))
            ledger.record(norms)


# The steps of CG that stream through memory stand together, so that a kernel can fuse each; there
# are none for complex numbers.


def _image(A: LinearMap, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """``q = A p``; returns <p, q>."""
    if isinstance(A, Stencil) and A.dtype == p.dtype and not p.is_complex():
        return kernels.of(p).apply_dot(A, p, q)
    A.apply_into(p, q)
    return dot(p, q, len(A.shape)).real


def _step(
    x: torch.Tensor, r: torch.Tensor, p: torch.Tensor, q: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """``x += alpha p``, ``r -= alpha q`` in place; returns ||r||."""
    if x.is_complex():
        axpy(alpha, p, x)
        return norm(axpy(-alpha, q, r), x.ndim - alpha.ndim)
    return kernels.of(x).step(x, r, p, q, alpha).sqrt()


def _turn(p: torch.Tensor, z: torch.Tensor, factor: torch.Tensor, beta: torch.Tensor) -> None:
    """``p = factor z + beta p`` in place."""
    if p.is_complex():
        xpay(z * spread(factor, p.ndim - factor.ndim), beta, p)
    else:
        kernels.of(p).turn(p, z, factor, beta)


def _precondition(
    A: LinearMap, M: LinearMap | None, r: torch.Tensor, norms: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``M r = factor z`` and <r, M r>; without the kernel of a singular A."""
    if M is None:
        return r, torch.ones_like(norms), norms.square()
    z, factor = M.apply_scaled(r, norms)
    if singular_symmetric(A):
        without_kernel(A, z)
    if r.is_complex():
        return z, factor, factor * dot(r, z.to(r.dtype), len(A.shape)).real
    return z, factor, factor * kernels.of(r).inner(r, z, len(A.shape))


def _stop_at_curvature(curvature: torch.Tensor, ledger: Ledger) -> None:
    ledger.stop(~torch.isfinite(curvature), Status.NOT_FINITE)
    ledger.stop(curvature <= 0, Status.INDEFINITE_OPERATOR)


def _stop_at_slope(slope: torch.Tensor, ledger: Ledger) -> None:
    ledger.stop(~torch.isfinite(slope), Status.NOT_FINITE)
    ledger.stop(slope <= 0, Status.INDEFINITE_PRECONDITIONER)


@dataclass(frozen=True)
class FCG(KrylovMethod):
    """Flexible conjugate gradients, truncated to ``directions`` previous ones (Notay 2000).

    The preconditioner may be nonlinear or change between steps (learned, or an inner iteration);
    one that is nonlinear or untrusted is watched, and gives way to a classical one where it fails,
    which ``Solution.notes`` then says.
    """

    kind: Literal["fcg"] = "fcg"
    directions: int = 2
    traits = Traits(operator="definite", preconditioner="flexible", complex=True)
    window = _WINDOW

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """Notay's FCG(directions)."""
        dimension = len(A.shape)
        previous: deque[tuple[torch.Tensor, ...]] = deque(maxlen=self.directions)
        while ledger.active:
            watch(M, r, ledger)
            z = precondition(A, M, r)
            p = z.clone()
            for direction, image, curvature in previous:
                gamma = ratio(dot(image, z, dimension), curvature, ledger.running)
                axpy(-gamma, direction, p)
            slope = dot(p, r, dimension)
            _stop_at_slope(slope.real, ledger)
            q = A.apply(p)
            curvature = dot(p, q, dimension).real
            _stop_at_curvature(curvature, ledger)
            alpha = ratio(slope, curvature, ledger.running)
            axpy(alpha, p, x)
            ledger.record(norm(axpy(-alpha, q, r), dimension))
            previous.append((p, q, curvature))


@dataclass(frozen=True)
class MINRES(KrylovMethod):
    """Preconditioned minimal residuals (Paige and Saunders 1975).

    Needs a symmetric operator and a symmetric positive definite preconditioner; raises InputError
    where the tags say otherwise. The Lanczos process with the preconditioner's inner product gives
    A Z_j = V_{j+1} T_j with T_j tridiagonal; Givens rotations reduce T_j to triangular form, and
    x_j minimises the residual in the M-norm over the Krylov space (in the form of Elman, Silvester
    and Wathen 2014, algorithm 4.1). The residual itself follows from
    r_j = s_j^2 r_{j-1} + c_j eta_j v_{j+1}, so that the stopping test is on its Euclidean norm.
    """

    kind: Literal["minres"] = "minres"
    traits = Traits(operator="symmetric", preconditioner="definite", complex=True)
    window = _WINDOW

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """The Lanczos process, rotated, from the residual r."""
        dimension, project = len(A.shape), singular_symmetric(A)
        v, v_old = r.clone(), torch.zeros_like(r)
        z = precondition(A, M, v)
        gamma = _lanczos_norm(z, v, ledger)
        w, w_old = torch.zeros_like(r), torch.zeros_like(r)
        zero, one = torch.zeros_like(gamma), torch.ones_like(gamma)
        eta, gamma_old = gamma, one
        s_old, s, c_old, c = zero, zero, one, one
        while ledger.active:
            z = z * spread(ratio(one, gamma, ledger.running), dimension)
            v_next = A.apply(z)
            if project:
                without_kernel(A, v_next)
            delta = dot(v_next, z, dimension).real
            ledger.stop(~torch.isfinite(delta), Status.NOT_FINITE)
            axpy(-ratio(delta, gamma, ledger.running), v, v_next)
            axpy(-ratio(gamma, gamma_old, ledger.running), v_old, v_next)
            z_next = precondition(A, M, v_next)
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


def _lanczos_norm(z: torch.Tensor, v: torch.Tensor, ledger: Ledger) -> torch.Tensor:
    square = dot(z, v, v.ndim - ledger.scale.ndim).real
    ledger.stop(square < 0, Status.INDEFINITE_PRECONDITIONER)
    return square.clamp(min=0.0).sqrt()


@dataclass(frozen=True)
class BiCGStab(KrylovMethod):
    """Stabilised biconjugate gradients, preconditioned from the right (van der Vorst 1992).

    Little memory, two applications of A and M per iteration; the preconditioner must be linear.
    """

    kind: Literal["bicgstab"] = "bicgstab"
    traits = Traits(operator="any", preconditioner="linear", complex=True, products=2)
    window = _WINDOW

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """Inner products are conjugate in the first factor."""
        dimension = len(A.shape)
        shadow, p = r.clone(), r.clone()
        rho = dot(shadow, r, dimension)
        while ledger.active:
            y = precondition(A, M, p)
            v = A.apply(y)
            slope = dot(shadow, v, dimension)
            ledger.stop(~torch.isfinite(slope), Status.NOT_FINITE)
            ledger.stop(slope == 0, Status.BREAKDOWN)
            alpha = ratio(rho, slope, ledger.running)
            axpy(alpha, y, x)
            axpy(-alpha, v, r)
            z = precondition(A, M, r)
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


@dataclass(frozen=True)
class GMRES(KrylovMethod):
    """Flexible generalised minimal residuals, restarted (Saad and Schultz 1986; Saad 1993).

    ``restart``: vectors kept before a restart, two arrays each: the preconditioned ones Z = M V are
    stored themselves. Any preconditioner will do; one that is nonlinear or untrusted is watched,
    and gives way to a classical one where it fails.
    """

    kind: Literal["gmres"] = "gmres"
    restart: int = 30
    traits = Traits(operator="any", preconditioner="flexible", complex=True)

    @property
    def window(self) -> int:
        """Several restarts, over which a residual may stand still."""
        return max(300, 5 * self.restart)

    def method(
        self, A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
    ) -> None:
        """One cycle, from the residual r."""
        dimension = len(A.shape)
        watch(M, r, ledger)
        size = norm(r, dimension)
        rotated = _LeastSquares(size, self.restart)
        basis = [r * spread(ratio(torch.ones_like(size), size, ledger.running), dimension)]
        images: list[torch.Tensor] = []
        for _ in range(self.restart):
            running = ledger.running
            images.append(precondition(A, M, basis[-1]))
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


def require_symmetric(kind: str, A: LinearMap) -> None:
    """Refuse an operator that is not symmetric, or Hermitian where it is complex."""
    if not A.self_adjoint:
        wanted = "Hermitian" if A.dtype.is_complex else "symmetric"
        found = "complex without being so" if A.dtype.is_complex else "not"
        raise InputError(
            f"{kind} needs a {wanted} operator and this one is {found}; use gmres or bicgstab",
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
    if M is not None and not (M.self_adjoint and M.definite):
        trouble = "positive definite" if M.self_adjoint else "symmetric"
        raise InputError(
            f"{kind} needs a symmetric positive definite preconditioner and this one is not "
            f"{trouble}; use gmres",
            "solver.preconditioner",
        )


def _refuse_complex(kind: str) -> None:
    raise InputError(
        f"{kind} needs real numbers and the operator's are complex; use gmres", "solver.kind"
    )
