"""How a linear solver presents itself: set-up, iteration in lockstep, verification, gradients.

Interfaces first: of all solvers of A x = b, of stationary and of direct methods (Krylov methods
have theirs in ``krylov``). Then the loop around a method, the ledger of who has finished and why,
and the vector algebra of batches.

A batch is iterated in lockstep, but each sample has its own scalars, count and status. A sample
that has finished is frozen: its step lengths are zero, so that nothing of it is touched again.
Convergence is claimed on the recursively updated residual and granted on the true one,

    ||b - A x|| <= rtol ||b||;

where the two have drifted apart the method restarts from the true residual (van der Vorst and Ye
2000), and stops as stagnated once a restart no longer halves it. Of a singular operator whose
kernel is known, the constants or other vectors, the residual of a symmetric system is projected
onto what is orthogonal to it, and so is every answer (unweighted over the unknowns).

||b - A x|| / ||b|| says nothing about the small rows where a few large ones dominate b. With D the
rows' sizes, what has converged is looked at once more in the norm ||D^-1 (b - A x)|| / ||D^-1 b||;
where that is above 100 rtol, the method goes on with the system scaled on both sides,
D^-1/2 A D^-1/2, for the residual that is left. Rows whose sizes differ by less than a factor 100
cannot hide that much, and are not scaled. Where the rounding of A x, eps || |A| |x| ||, exceeds the
residual that was computed, it is what is reported.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem, without_kernel
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.differentiate import attach
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.linear.diagnosis import explained

_STATUSES = tuple(Status)
_RUNNING, _CLAIMED = -1, -2
_FALL = 0.99  # a new best residual must be this much smaller to count as progress
# The growth of the residual above which a first guess is left out: single precision may fail at
# contrasts of 1e6, and smooth guesses that help have had 2.
_FARTHEST = 10.0
# Between the sizes of rows above which they are looked at one by one, and of what rtol is then.
_ALIKE = 100.0
_ROUNDS = 8  # of going on with the scaled system
_EPS = 2.0**-53
_ENTRIES = 30.0  # of a row, beside the largest: for a bound of |A| |x| that costs no product
_LOST = 1e-4  # rounding above this share of b leaves no answer
_DIVERGED = 1e4  # growth of a residual that a stationary method does not come back from


@dataclass(frozen=True)
class Outcome:
    """What a linear method hands back before anything is verified.

    ``x``: (*batch, *shape). ``statuses``: one per sample. ``iterations``: int (*batch).
    ``residuals``: (steps, *batch) relative norms. ``true_residual``: ||b - A x|| / ||b|| of this x,
    recomputed in float64 as the last thing, or None; at least the rounding of A x, and of scaled
    rows where those have not converged. ``corrected``: the preconditioner improved the
    start. ``notes``: remarks for the Solution.
    """

    x: torch.Tensor
    statuses: tuple[Status, ...]
    iterations: torch.Tensor
    residuals: torch.Tensor
    work_units: float | None = None
    true_residual: torch.Tensor | None = None
    corrected: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinearState:
    """A linear solver's set-up: the system, what ``setup`` returned, and how long it took."""

    system: LinearSystem
    prepared: Any
    setup_seconds: float


class LinearSolver(ABC):
    """Interface of the solvers of ``A x = b``; a leaf gives ``setup`` and ``iterate``.

    ``rtol`` is the relative residual ||b - A x|| / ||b|| at which a sample has converged.
    """

    kind: str
    rtol: float

    @abstractmethod
    def setup(self, A: LinearMap) -> Any:
        """Factorise, build a hierarchy, or check the tags; raises InputError if A does not suit."""

    @abstractmethod
    def iterate(
        self,
        A: LinearMap,
        prepared: Any,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Solve for one (batch of) right-hand side(s)."""

    def init(self, problem: Problem | LinearSystem, on: Grid | Mesh | None = None) -> LinearState:
        """Discretise if need be, then set up."""
        system = linear_system(problem, on)
        start = time.perf_counter()
        try:
            prepared = self.setup(system.A.detach())
        except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:
            raise InputError(
                f"{self.kind} cannot be set up, the operator or a coarse one being singular; "
                "use minres, gmres or direct",
                "solver.kind",
            ) from error
        return LinearState(system, prepared, time.perf_counter() - start)

    def run(
        self,
        state: LinearState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve, then recompute the residual in float64; ``initial`` is a value on the grid.

        The value is differentiable in whatever A and b are, by one adjoint solve.
        """
        system = state.system
        A, data = system.A.detach(), system.b if b is None else b
        right = data.detach()
        guess = None if initial is None else system.restrict(initial).to(right)
        start = time.perf_counter()
        result = self.iterate(A, state.prepared, right, guess, progress)
        seconds = time.perf_counter() - start
        residual = result.true_residual
        if residual is None:
            residual = relative_residual(A, result.x, right)
        stats = Statistics(
            result.iterations, result.residuals, state.setup_seconds, seconds, result.work_units
        )
        statuses = _all_verified(result.statuses, residual, self.rtol)
        reasons: tuple[str, ...] = ()
        if not all(status.success for status in statuses):
            statuses, reasons = explained(A, right, statuses, self.rtol)
        x = result.x
        if torch.is_grad_enabled() and (system.A.requires_grad or data.requires_grad):
            x = attach(
                x,
                lambda fixed: data - system.A.apply(fixed),
                lambda gradient: adjoint(self, state, gradient),
            )
        return Solution(
            system.value(x),
            residual,
            statuses,
            stats,
            system.on,
            self,
            (*system.notes, *getattr(state.prepared, "notes", ()), *result.notes, *reasons),
            fields=system.fields,
            measure=system.measure,
        )


class StationaryMethod(LinearSolver):
    """Interface of ``x += M (b - A x)``; a leaf gives ``setup``, which returns M, and a window."""

    max_iterations: int

    @property
    @abstractmethod
    def window(self) -> int:
        """Iterations without a 1 % fall of the best residual after which a sample stagnates."""

    def iterate(
        self,
        A: LinearMap,
        prepared: LinearMap,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Repeat until the tolerance is met."""
        result = iterate_verified(
            _stationary,
            A,
            prepared,
            b,
            initial,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            window=self.window,
            progress=progress,
            first_guess=prepared.first_guess,
        )
        return counted(result, prepared)


class DirectMethod(LinearSolver):
    """Interface of exact inverses; a leaf gives ``setup``, which returns one, and ``refinements``.

    A first guess is not looked at: the inverse makes it needless.
    """

    @property
    @abstractmethod
    def refinements(self) -> int:
        """Steps of iterative refinement that are always made; more only where they are needed."""

    def iterate(
        self,
        A: LinearMap,
        prepared: LinearMap,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Apply the inverse and refine."""
        return iterate_verified(
            partial(_direct, self.refinements),
            A,
            prepared,
            b,
            None,
            rtol=self.rtol,
            max_iterations=5,
            window=5,
            progress=progress,
        )


def _stationary(
    A: LinearMap, M: LinearMap | None, x: torch.Tensor, r: torch.Tensor, ledger: Ledger
) -> None:
    singular, dimension = singular_symmetric(A), len(A.shape)
    while ledger.active:
        step = precondition(A, M, r)
        axpy(ledger.running.to(r.dtype), step, x)
        axpy(-ledger.running.to(r.dtype), A.apply(step), r)
        if singular:
            without_kernel(A, r)
        ledger.record(norm(r, dimension))
        ledger.stop(ledger.history[-1] > _DIVERGED * ledger.history[0], Status.DIVERGED)


def _direct(
    refinements: int,
    A: LinearMap,
    M: LinearMap | None,
    x: torch.Tensor,
    r: torch.Tensor,
    ledger: Ledger,
) -> None:
    share = ledger.running.to(r.dtype)
    for _ in range(refinements):
        step = precondition(A, M, r)
        axpy(share, step, x)
        r.sub_(A.apply(step))
    axpy(share, precondition(A, M, r), x)
    # Whether it converged is decided on the true residual alone.
    ledger.record(torch.zeros_like(ledger.scale))


def adjoint(solver: LinearSolver, state: LinearState, gradient: torch.Tensor) -> torch.Tensor:
    """``A^-H gradient`` by the solver and the set-up that answered the problem itself.

    A nonsymmetric A needs a set-up of its own for its transpose. Raises SolveError where the
    solver does not converge.
    """
    A, prepared = state.system.A.detach(), state.prepared
    if not (A.symmetric or A.hermitian):
        A = A.transpose()
        prepared = solver.setup(A)
    right = gradient if A.hermitian else gradient.conj().resolve_conj()
    if A.nullspace:
        # The answer has nothing of the kernel whatever the data, so that its gradient neither.
        right = without_kernel(A, right.clone())
    result = solver.iterate(A, prepared, right, None, None)
    residual = relative_residual(A, result.x, right)
    for status in _all_verified(result.statuses, residual, solver.rtol):
        if not status.success:
            raise SolveError(f"the adjoint solve of a gradient: {status}")
    return result.x if A.hermitian else result.x.conj().resolve_conj()


def relative_residual(A: LinearMap, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """||b - A x|| / ||b|| per sample, recomputed in float64; ||b|| = 0 counts as 1."""
    dimension = len(A.shape)
    gap = b - A.apply(x.to(torch.promote_types(b.dtype, x.dtype)))
    scale, size = norm(b, dimension), norm(gap, dimension)
    return size / torch.where(scale > 0, scale, torch.ones_like(scale))


def verified(status: Status, residual: float, rtol: float) -> Status:
    """The status corrected by the true residual: it alone decides what has converged."""
    if residual <= 1.01 * rtol:
        return Status.CONVERGED
    if residual != residual:
        return Status.NOT_FINITE
    return Status.RESIDUAL_MISMATCH if status.success else status


def _all_verified(
    statuses: tuple[Status, ...], residual: torch.Tensor, rtol: float
) -> tuple[Status, ...]:
    pairs = zip(statuses, residual.flatten().tolist(), strict=True)
    return tuple(verified(status, value, rtol) for status, value in pairs)


def linear_system(problem: Problem | LinearSystem, on: Grid | Mesh | None) -> LinearSystem:
    """The problem's discretisation on ``on``, a linear system itself; InputError without a grid."""
    if isinstance(problem, LinearSystem):
        return problem
    if not isinstance(problem, Problem):
        raise InputError(
            "a solver takes a Problem or a LinearSystem(A, b), of a spec spec.problem, on=spec.on; "
            f"got {type(problem).__name__}"
        )
    if on is None:
        raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
    # Those who bring a matrix do not wait for it to load.
    from sciml.discretization import discretize

    return discretize(problem, on)


Method: TypeAlias = Callable[
    [LinearMap, LinearMap | None, torch.Tensor, torch.Tensor, "Ledger"], None
]


@torch.no_grad()
def iterate_verified(
    method: Method,
    A: LinearMap,
    M: LinearMap | None,
    b: torch.Tensor,
    initial: torch.Tensor | None,
    *,
    rtol: float,
    max_iterations: int,
    window: int,
    progress: Progress | None,
    first_guess: Callable[[torch.Tensor], torch.Tensor | None] | None = None,
) -> Outcome:
    """Run ``method`` from x and r = b - A x until the true residual bears it out, row by row too.

    ``method(A, M, x, r, ledger)`` improves x and r in place until no sample runs, or a restart is
    due. x is zero or ``initial``, corrected by ``first_guess`` of its residual where that helps.
    """
    dimension = len(A.shape)
    right = batched_right_side(A, b)
    singular = singular_symmetric(A)
    size = norm(right, dimension)
    _refuse_underflow(right, size)
    ledger = Ledger(size, rtol, max_iterations, window, progress)
    if singular:
        right = without_kernel(A, right.clone())
    x, r = torch.zeros_like(right), right.clone()
    if initial is not None:
        _refuse_misshapen(initial, x)
        x.copy_(initial)
        _true_residual(A, x, right, singular, r)
    norms, correction = norm(r, dimension), None
    if first_guess is not None and bool((norms > rtol * ledger.scale).any()):
        correction = first_guess(r)
        if correction is not None:
            norms = _corrected(A, right, singular, initial, correction, x, r, norms)
    ledger.start(norms)
    while ledger.active:
        method(A, M, x, r, ledger)
        _true_residual(A, x, right, singular, r)
        norms = norm(r, dimension)
        ledger.verify(norms)
    sizes = A.row_sizes()
    scaled = None if sizes is None else _row_by_row(method, A, M, x, r, right, sizes, ledger)
    if scaled is not None or A.nullspace:
        if A.nullspace:
            without_kernel(A, x)
        relative = relative_residual(A, x, b)
    else:
        relative = norms / ledger.scale
    notes: tuple[str, ...] = ()
    if scaled is not None:
        notes = scaled.notes
        relative = torch.where(scaled.poor, torch.maximum(relative, scaled.residual), relative)
    if sizes is not None:
        relative, told = _above_rounding(A, x, relative, sizes, ledger)
        notes = (*notes, *told)
    result = ledger.result(x, relative)
    return replace(result, corrected=correction is not None, notes=notes)


@dataclass(frozen=True)
class _RowByRow:
    """The scaled residual, per sample; where it stayed too large; and what was done about it."""

    residual: torch.Tensor
    poor: torch.Tensor
    notes: tuple[str, ...]


def _row_by_row(
    method: Method,
    A: LinearMap,
    M: LinearMap | None,
    x: torch.Tensor,
    r: torch.Tensor,
    right: torch.Tensor,
    sizes: torch.Tensor,
    ledger: Ledger,
) -> _RowByRow | None:
    """Go on with samples that have converged in the large rows alone; x and r in place.

    None where no sample's rows differ, or none has converged so.
    """
    sizes, dimension = sizes.double(), len(A.shape)
    smallest, largest = sizes.flatten(-dimension).aminmax(dim=-1)
    if not bool(torch.isfinite(largest).all()):
        return None
    if bool((smallest == 0).any()):
        positive = torch.where(sizes > 0, sizes, torch.inf)
        smallest = positive.amin(tuple(range(-dimension, 0)))
        sizes = torch.maximum(sizes, spread(smallest, dimension))
    if not bool((largest.amax() > _ALIKE * smallest).any()):
        return None
    claimed, first = ledger.codes == _STATUSES.index(Status.CONVERGED), ledger.count
    scaled = right / sizes
    scale = norm(scaled, dimension)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    residual = norm(torch.div(r, sizes, out=scaled), dimension) / scale
    target, before = _ALIKE * ledger.rtol, torch.full_like(scale, torch.inf)
    if not bool((claimed & (residual > target)).any()):
        return None
    singular, root = singular_symmetric(A), sizes.rsqrt()
    inverse = None if M is None else _Rescaled(M, root.reciprocal(), A if singular else None)
    rescaled = _Rescaled(A, root), inverse
    poor = claimed & ~(residual <= target)
    for _ in range(_ROUNDS):
        due = poor & (residual <= 0.5 * before)
        if not bool(due.any()) or ledger.count >= ledger.max_iterations:
            break
        before = residual
        left = r * root
        aim = float((ledger.rtol / residual[due]).min().clamp(1e-14, 0.1))
        inner = ledger.again(norm(left, dimension), aim, due)
        step = torch.zeros_like(x)
        method(*rescaled, step, left, inner)
        ledger.take(inner)
        found = torch.isfinite(step).flatten(-dimension).all(-1) & due
        x += torch.where(spread(found, dimension), step * root, 0.0)
        _true_residual(A, x, right, singular, r)
        residual = norm(r / sizes, dimension) / scale
        poor = claimed & ~(residual <= target)
    ledger.codes = torch.where(poor, _STATUSES.index(Status.STAGNATED), ledger.codes)
    worst = float(residual[claimed].max())
    note = (
        f"a few large rows dominate the right-hand side; {ledger.count - first} more iterations "
        f"took the residual of rows scaled to one size to {worst:.1e}"
    )
    return _RowByRow(residual, poor, (note,))


class _Rescaled(LinearMap):
    """``S X S`` for a diagonal S, between the two without the kernel of ``singular``."""

    def __init__(
        self, X: LinearMap, scale: torch.Tensor, singular: LinearMap | None = None
    ) -> None:
        self.X, self.scale, self.singular = X, scale, singular
        self.shape, self.batch, self.device = X.shape, X.batch, X.device
        self.dtype = torch.promote_types(X.dtype, torch.float64)
        self.symmetric, self.definite, self.nullspace = X.symmetric, X.definite, False
        self.hermitian = X.hermitian
        self.linear, self.trusted = X.linear, X.trusted

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``S X S u``."""
        image = self.X.apply(self.scale * u).to(torch.promote_types(u.dtype, torch.float64))
        if self.singular is not None:
            without_kernel(self.singular, image)
        return self.scale * image

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``S X^H S u``."""
        return self.scale * self.X.adjoint(self.scale * u)

    def diagonal(self) -> torch.Tensor:
        """``s_i^2 x_ii``."""
        return self.scale.square() * self.X.diagonal()

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix; InputError for a batch."""
        S = scipy.sparse.diags(self.scale.expand(self.shape).flatten().cpu().numpy())
        return (S @ self.X.to_scipy() @ S).tocsr()


def _above_rounding(
    A: LinearMap, x: torch.Tensor, relative: torch.Tensor, sizes: torch.Tensor, ledger: Ledger
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The residuals, none below the rounding of A x, and what there is to say of that."""
    dimension = len(A.shape)
    claimed = ledger.codes == _STATUSES.index(Status.CONVERGED)
    largest = sizes.double().amax(tuple(range(-dimension, 0)))
    bound = _ENTRIES * _EPS * largest * norm(x, dimension) / ledger.scale
    if not bool((claimed & (bound > relative)).any()):
        return relative, ()
    image = A.magnitude(x)
    if image is None:
        return relative, ()
    floor = _EPS * norm(image, dimension) / ledger.scale
    lost = claimed & (floor > max(_ALIKE * ledger.rtol, _LOST))
    ledger.codes = torch.where(lost, _STATUSES.index(Status.LOST_TO_ROUNDING), ledger.codes)
    shown = claimed & ((floor <= ledger.rtol) | lost)
    notes: tuple[str, ...] = ()
    hidden = claimed & (floor > ledger.rtol) & (floor > relative)
    if bool(hidden.any()):
        worst = float(floor[hidden].max())
        notes = (f"rounding of A x is up to {worst:.1e} of b, more than the residual computed",)
    return torch.where(shown, torch.maximum(relative, floor), relative), notes


def _corrected(
    A: LinearMap,
    b: torch.Tensor,
    singular: bool,
    initial: torch.Tensor | None,
    correction: torch.Tensor,
    x: torch.Tensor,
    r: torch.Tensor,
    norms: torch.Tensor,
) -> torch.Tensor:
    """Add the correction to x and renew r, but for samples that it throws far; their norms."""
    x += correction
    _true_residual(A, x, b, singular, r)
    found = norm(r, len(A.shape))
    far = ~(found <= _FARTHEST * norms)
    if not far.any():
        return found
    start = torch.zeros_like(x)
    if initial is not None:
        start.copy_(initial)
    x[far] = start[far]
    _true_residual(A, x, b, singular, r)
    return torch.where(far, norms, found)


def counted(result: Outcome, M: LinearMap | None, products: int = 1) -> Outcome:
    """The result with its work: per iteration ``products`` with A and applications of M.

    A corrected start costs one more product, for its residual. Unknown where M does not count its
    own work.
    """
    iterations = float(result.iterations.max()) if result.iterations.numel() else 0.0
    if M is None:
        return replace(result, work_units=iterations * products)
    if M.work_units is None:
        return result
    start = M.first_guess_units + 1 if result.corrected else 0.0
    return replace(result, work_units=start + iterations * products * (1 + M.work_units))


def batched_right_side(A: LinearMap, b: torch.Tensor) -> torch.Tensor:
    """``b`` in float64 (complex128 where it or A is complex) on A's device, A's batch leading.

    Raises InputError where shapes differ.
    """
    dimension = len(A.shape)
    if tuple(b.shape[b.ndim - dimension :]) != A.shape or b.ndim < dimension:
        raise InputError(
            f"the right-hand side has shape {list(b.shape)}; "
            f"its last axes must be the operator's {list(A.shape)}"
        )
    try:
        lead = torch.broadcast_shapes(A.batch, b.shape[: b.ndim - dimension])
    except RuntimeError as error:
        raise InputError(
            f"the right-hand side's batch {list(b.shape[: b.ndim - dimension])} does not go with "
            f"the operator's batch {list(A.batch)}"
        ) from error
    dtype = torch.promote_types(torch.promote_types(b.dtype, A.dtype), torch.float64)
    return b.to(A.device, dtype).expand(*lead, *A.shape).contiguous()


def _refuse_underflow(right: torch.Tensor, size: torch.Tensor) -> None:
    # The squares of such a residual underflow: zero would pass for the answer.
    if bool((size < 1e-140).any()) and bool((right[size < 1e-140] != 0).any()):
        raise InputError(
            "the right-hand side is so small (norm below 1e-140) that residuals underflow; "
            "scale it and the answer",
            "problem.equation.f",
        )


def _refuse_misshapen(initial: torch.Tensor, x: torch.Tensor) -> None:
    try:
        suits = torch.broadcast_shapes(initial.shape, x.shape) == x.shape
    except RuntimeError:
        suits = False
    if not suits:
        raise InputError(
            f"the first guess has shape {list(initial.shape)}; the unknowns have {list(x.shape)}"
        )


def _true_residual(
    A: LinearMap, x: torch.Tensor, right: torch.Tensor, singular: bool, r: torch.Tensor
) -> None:
    torch.sub(right, A.apply(x), out=r)
    if singular:
        without_kernel(A, r)


def check_options(kind: str, rtol: float, max_iterations: int = 1, **counts: int) -> None:
    """Raise InputError unless 0 < rtol < 1 and every count is at least 1."""
    if not 0 < rtol < 1:
        raise InputError(f"{kind}: rtol must lie between 0 and 1; got {rtol:g}", "solver.rtol")
    for name, count in {"max_iterations": max_iterations, **counts}.items():
        if count < 1:
            raise InputError(f"{kind}: {name} must be at least 1; got {count}", f"solver.{name}")


class Ledger:
    """Who is still running: per-sample status, iteration count and residual history.

    ``scale``: ||b|| per sample, with 1 for 0. ``window``: iterations without a 1 % fall of the
    best residual after which a sample has stagnated.
    """

    def __init__(
        self,
        scale: torch.Tensor,
        rtol: float,
        max_iterations: int,
        window: int,
        progress: Progress | None,
    ) -> None:
        self.scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        self.rtol, self.max_iterations, self.window = rtol, max_iterations, window
        self.progress = progress
        self.codes = torch.full_like(scale, _RUNNING, dtype=torch.int64)
        self.iterations = torch.zeros_like(self.codes)
        self.count = 0
        self.history: list[torch.Tensor] = []
        self.best = torch.full_like(scale, torch.inf)
        self.best_at = torch.zeros_like(self.codes)
        self.verified = self.best.clone()

    @property
    def running(self) -> torch.Tensor:
        """Mask of the samples that still iterate, shape batch."""
        return self.codes == _RUNNING

    @property
    def active(self) -> bool:
        """Whether any sample still iterates."""
        return bool(self.running.any())

    def stop(self, where: torch.Tensor, status: Status) -> None:
        """End the running samples in ``where``."""
        self.codes = torch.where(self.running & where, _STATUSES.index(status), self.codes)

    def start(self, norms: torch.Tensor) -> None:
        """Take in the true residual norms before the first iteration."""
        relative = norms / self.scale
        self.history.append(relative)
        self.stop(~torch.isfinite(relative), Status.NOT_FINITE)
        self.stop(relative <= self.rtol, Status.CONVERGED)
        self.best, self.verified = relative, relative

    def record(self, norms: torch.Tensor) -> None:
        """Take in the residual norms after one iteration and decide who goes on."""
        running = self.running
        relative = torch.where(running, norms / self.scale, self.history[-1])
        self.history.append(relative)
        self.count += 1
        self.iterations = self.iterations + running
        fell = running & (relative < _FALL * self.best)
        self.best = torch.where(fell, relative, self.best)
        self.best_at = torch.where(fell, self.count, self.best_at)
        self.stop(~torch.isfinite(relative), Status.NOT_FINITE)
        self.codes = torch.where(self.running & (relative <= self.rtol), _CLAIMED, self.codes)
        if self.count >= self.max_iterations:
            self.stop(running, Status.MAX_ITERATIONS)
        self.stop(self.count - self.best_at >= self.window, Status.STAGNATED)
        if self.progress is not None:
            self.progress(self.count, float(relative.max()))

    def verify(self, norms: torch.Tensor) -> None:
        """Grant or refuse the claims of convergence on the true residual norms."""
        relative = norms / self.scale
        claimed = self.codes == _CLAIMED
        undecided = claimed | self.running
        improved = relative <= 0.5 * self.verified
        self.codes = torch.where(undecided, _RUNNING, self.codes)
        self.stop(relative <= self.rtol, Status.CONVERGED)
        self.stop(~torch.isfinite(relative), Status.NOT_FINITE)
        self.stop(claimed & ~improved, Status.STAGNATED)
        if self.count >= self.max_iterations:
            self.stop(self.running, Status.MAX_ITERATIONS)
        self.verified = torch.where(undecided, relative, self.verified)
        self.history[-1] = torch.where(undecided, relative, self.history[-1])

    def again(self, norms: torch.Tensor, rtol: float, where: torch.Tensor) -> Ledger:
        """A ledger for residuals of these norms, to be lowered by ``rtol``, in the samples given.

        The iterations that are left are its limit; it has no restarts and verifies nothing.
        """
        left = self.max_iterations - self.count
        inner = Ledger(norms, rtol, left, self.window, None)
        inner.start(torch.where(where, norms, 0.0))
        return inner

    def take(self, inner: Ledger) -> None:
        """Add the iterations of a ledger made by ``again``."""
        self.count += inner.count
        self.iterations = self.iterations + inner.iterations

    def result(self, x: torch.Tensor, true_residual: torch.Tensor | None = None) -> Outcome:
        """The outcome; the caller recomputes the residual of x unless it is given here."""
        statuses = tuple(_STATUSES[code] for code in self.codes.flatten().tolist())
        residuals = torch.stack(self.history).cpu()
        return Outcome(x, statuses, self.iterations.cpu(), residuals, true_residual=true_residual)


def dot(u: torch.Tensor, v: torch.Tensor, dimension: int) -> torch.Tensor:
    """<u, v> over the last ``dimension`` axes; shape batch."""
    product: torch.Tensor = torch.linalg.vecdot(u.flatten(-dimension), v.flatten(-dimension))
    return product


def norm(u: torch.Tensor, dimension: int) -> torch.Tensor:
    """Euclidean norm over the last ``dimension`` axes; shape batch."""
    length: torch.Tensor = torch.linalg.vector_norm(u.flatten(-dimension), dim=-1)
    return length


def spread(scalars: torch.Tensor, dimension: int) -> torch.Tensor:
    """Per-sample scalars shaped to multiply arrays (*batch, *shape)."""
    return scalars[(..., *(None,) * dimension)]


def axpy(alpha: torch.Tensor, p: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``x += alpha p`` in place, alpha per sample; returns x."""
    if alpha.ndim == 0 and x.device.type == "cpu":
        return x.add_(p, alpha=alpha.item())
    return x.addcmul_(p, spread(alpha.to(x.dtype), x.ndim - alpha.ndim))


def xpay(z: torch.Tensor, beta: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """``p = z + beta p`` in place, beta per sample; returns p."""
    if beta.ndim == 0 and p.device.type == "cpu":
        return torch.add(z, p, alpha=beta.item(), out=p)
    return torch.addcmul(z, p, spread(beta.to(p.dtype), p.ndim - beta.ndim), out=p)


def ratio(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """``a / b`` for the samples in ``where`` with b != 0, and zero for the others."""
    usable = where & (b != 0)
    return torch.where(usable, a / torch.where(usable, b, torch.ones_like(b)), 0.0)


def precondition(A: LinearMap, M: LinearMap | None, r: torch.Tensor) -> torch.Tensor:
    """``z = M r`` in r's dtype, without the kernel of a singular A; r without an M."""
    if M is None:
        return r
    z = M.apply(r).to(r.dtype)
    return without_kernel(A, z) if singular_symmetric(A) else z


def singular_symmetric(A: LinearMap) -> bool:
    """Whether residuals have nothing of the kernel, which is that of A and of its adjoint."""
    return A.nullspace and A.self_adjoint
