"""How a nonlinear iteration presents itself: F(u) = 0, a batch in lockstep, verified at the end.

    u <- u + s d,      s = 1, 1/2, 1/4, ... until the merit falls enough,

the merit being the energy where there is one (Armijo: E(u + s d) <= E(u) + 1e-4 s F . d), else
||F||. The relative residual is ||F(u)|| / ||P(u) u - F(u)||, P the diffusion linearised at u: the
denominator is the right-hand side of the linear problem frozen at u, so that for a linear problem
this is ||b - A u|| / ||b||, whatever the start.

Continuation solves a hard problem by way of easier ones, along a named parameter, which goes from
``start`` to the problem's own value; every answer starts the next solve. A step that fails is
halved. Where a branch of solutions turns back, as Bratu's does at its fold, no step succeeds
beyond, and the last parameter reached is told.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem, free_mean
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import Grid
from sciml.core.problem.place import discrete
from sciml.core.problem.problem import Problem
from sciml.core.problem.table import Table, looked_up_outside
from sciml.core.run.differentiate import Map, attach
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.diagnosis import unbalanced
from sciml.solvers.linear.direct import Direct, quickest, small
from sciml.solvers.linear.iteration import LinearSolver, dot, norm, spread, verified
from sciml.solvers.linear.krylov import CG, GMRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.saddle import SaddlePoint, blocked

_HALVINGS = 6
_FAR = 1e6  # by how much a guess's residual exceeds that of zero where it is none


@dataclass(frozen=True)
class Continuation:
    """From ``start`` to the problem's own value of ``parameter``, in ``steps`` equal steps."""

    parameter: str
    start: float
    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"continuation takes at least one step; got {self.steps}",
                "solver.continuation.steps",
            )


def follow(
    continuation: Continuation,
    problem: Problem,
    system: NonlinearSystem,
    u: torch.Tensor,
    solve: Callable[[NonlinearSystem, torch.Tensor], Course],
) -> tuple[Course, str]:
    """The last course, and a line on how far the parameter came.

    Where the parameter's own value is not reached the course is that of the failed attempt at it.
    """
    from sciml.discretization import semidiscretize

    name = continuation.parameter
    if name not in problem.parameters:
        raise InputError(
            f"the problem has no parameter '{name}'{did_you_mean(name, problem.parameters)}",
            "solver.continuation.parameter",
        )
    if isinstance(problem.parameters[name], Table):
        raise InputError(
            f"'{name}' is a table; continuation goes along a parameter that is a number",
            "solver.continuation.parameter",
        )
    target = torch.as_tensor(problem.parameters[name], dtype=torch.float64)

    def at(share: float) -> NonlinearSystem:
        if share == 1:
            return system
        value = continuation.start + share * (target - continuation.start)
        changed = {**problem.parameters, name: value}
        return semidiscretize(replace(problem, parameters=changed), system.on)

    course = solve(at(0.0), u)
    share, step, solves = 0.0, 1 / continuation.steps, 1
    smallest = step / 2**_HALVINGS
    while course.success and share < 1:
        ahead = min(1.0, share + step)
        # A last step must not be a sliver left by rounding.
        ahead = 1.0 if 1 - ahead < 1e-9 else ahead
        trial = solve(at(ahead), course.u)
        solves += 1
        if trial.success:
            course, share = trial, ahead
        elif step / 2 < smallest:
            reached = _told(continuation.start + share * (target - continuation.start))
            return trial, f"continuation: no solution found beyond {name} = {reached}"
        else:
            step /= 2
    if not course.success:
        return course, f"continuation: no solution at the start, {name} = {continuation.start:g}"
    return course, f"continuation: {name} from {continuation.start:g} in {solves} solves"


def _told(value: torch.Tensor) -> str:
    return ", ".join(f"{v:.6g}" for v in value.flatten().tolist())


@dataclass(frozen=True)
class NonlinearState:
    """The problem and its discretisation."""

    problem: Problem
    system: NonlinearSystem
    setup_seconds: float


class NonlinearSolver(ABC):
    """Interface of the methods for F(u) = 0; a leaf gives ``iterate``.

    ``rtol``: ||F(u)|| relative to the right-hand side of the linear problem frozen at u.
    """

    kind: str
    rtol: float
    max_iterations: int
    continuation: Continuation | None

    @abstractmethod
    def iterate(
        self, system: NonlinearSystem, u: torch.Tensor, progress: Progress | None
    ) -> tuple[Course, str]:
        """The iteration from ``u`` (*batch, *shape), and one line on it."""

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> NonlinearState:
        """Discretise; raises InputError for a problem in time or a linear system."""
        return prepare(self.kind, problem, on)

    def run(
        self,
        state: NonlinearState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Solve from ``initial``, a value on the grid; else from zero or a linear answer."""
        progress, notes = counting(progress), [""]

        def solve(system: NonlinearSystem, u: torch.Tensor) -> Course:
            course, notes[0] = self.iterate(system, u, progress)
            return course

        return answer(self, state, initial, b, solve, lambda: notes[0])


def prepare(kind: str, problem: Problem | LinearSystem, on: Grid | None) -> NonlinearState:
    """Discretise a steady problem; raises InputError for anything else."""
    from sciml.discretization import semidiscretize

    if not isinstance(problem, Problem):
        raise InputError(f"{kind} needs a problem; for a linear system use cg or gmres", "solver")
    if on is None:
        raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
    discrete(on)
    if problem.time is not None:
        raise InputError(
            f"{kind} is for steady problems; use sdirk, or leave time and initial out",
            "solver.kind",
        )
    start = time.perf_counter()
    system = semidiscretize(problem, on)
    return NonlinearState(problem, system, time.perf_counter() - start)


def answer(
    solver: Any,
    state: NonlinearState,
    initial: torch.Tensor | None,
    b: torch.Tensor | None,
    solve: Callable[[NonlinearSystem, torch.Tensor], Course],
    describe: Callable[[], str],
) -> Solution:
    """Start, continuation, solution and verification, for every method of ``descent``."""
    if b is not None:
        raise InputError(f"{solver.kind} takes no other right-hand side; change f in the problem")
    system, notes = state.system, []
    begun = time.perf_counter()
    with torch.no_grad():
        u = _start(system, initial)
        if solver.continuation is None:
            course = solve(system, u)
        else:
            course, remark = follow(solver.continuation, state.problem, system, u, solve)
            notes.append(remark)
        seconds = time.perf_counter() - begun
        last = at(system, course.u)
    outside = system.outside()
    statuses = tuple(
        verified(status, value, solver.rtol).given(outside)
        for status, value in zip(course.statuses, last.relative.flatten().tolist(), strict=True)
    )
    statuses, reasons = unbalanced(system, course.u, statuses, solver.rtol)
    if system.potential is not None and not (last.J.definite or bool(course.convex.all())):
        notes.append("the energy is not convex at the answer, which may be no minimum")
    value = system.lift(differentiable(system, course.u, last), 0.0)
    if system.measure is not None:
        value = value - free_mean(value, system.measure, len(system.shape))
    return Solution(
        value=value,
        residual=last.relative.cpu(),
        statuses=statuses,
        stats=Statistics(course.iterations, course.residuals, state.setup_seconds, seconds),
        on=system.on,
        solver=solver,
        notes=(
            *system.notes,
            *system.remarks(course.u, 0.0),
            describe(),
            *notes,
            *reasons,
            *looked_up_outside(outside),
        ),
        fields=system.fields,
        outside=outside,
        measure=system.measure,
    )


def _start(system: NonlinearSystem, initial: torch.Tensor | None) -> torch.Tensor:
    """The first iterate (*batch, *shape): the user's, the linear guess, or zero."""
    shape = (*system.batch, *system.shape)
    if initial is not None:
        return system.restrict(initial.to(torch.float64)).expand(shape).clone()
    zero = torch.zeros(shape, dtype=torch.float64)
    if system.guess is None:
        return zero
    A, b = system.guess.A.detach(), system.guess.b.detach()
    # A rough answer will do.
    solver: LinearSolver = CG(preconditioner=coarsened(A), rtol=1e-3)
    if small(A) or (isinstance(A, PatternMatrix) and not A.definite and quickest(A)):
        solver = Direct()
    elif A.saddle is not None:
        solver = blocked(1e-3)
    elif not A.definite:
        solver = GMRES(preconditioner=coarsened(A), rtol=1e-3)
    try:
        found = solver.iterate(A, solver.setup(A), b.expand(shape).contiguous(), None, None).x
    except InputError:  # of what nothing holds as long as it is linear
        return zero
    if not bool(torch.isfinite(found).all()):
        return zero
    d = len(system.shape)
    beside, here = (norm(system.residual(u, 0.0), d) for u in (zero, found))
    far = ~torch.isfinite(here) | (here > _FAR * beside)
    return torch.where(spread(far, d), zero, found)


def differentiable(system: NonlinearSystem, u: torch.Tensor, last: Iterate) -> torch.Tensor:
    """u with the graph of F, by the implicit function theorem: one solve with J transposed."""
    if not torch.is_grad_enabled():
        return u

    def residual(fixed: torch.Tensor) -> torch.Tensor:
        return -system.residual(fixed, 0.0)

    return attach(u, residual, lambda gradient: tangents(system, last)[1](gradient))


def tangents(system: NonlinearSystem, last: Iterate) -> tuple[Map, Map]:
    """What solves with J, and with J transposed, at an answer, to near rounding."""
    J = last.J if system.level is None else OnZeroMean(last.J, system.level)

    def by(A: LinearMap) -> Map:
        def solve(right: torch.Tensor) -> torch.Tensor:
            M: Any = inverse(last.P) if system.level is not None else coarsened(A)
            solver: LinearSolver = GMRES(preconditioner=M, rtol=1e-10)
            if system.level is None and small(A):
                solver = Direct()
            return solver.iterate(A, solver.setup(A), right, None, None).x

        return solve

    return by(J), by(J if J.symmetric else J.transpose())


def inverse(P: LinearMap) -> LinearMap:
    """What the diffusion gives as a preconditioner: its factorisation, or a cycle."""
    return (Direct() if small(P) else coarsened(P)).setup(P)


def coarsened(A: LinearMap) -> Multigrid | AMG | SaddlePoint:
    """The preconditioner of a map on a grid, or on a mesh."""
    if isinstance(A, Stencil):
        return Multigrid()
    return AMG() if A.saddle is None else SaddlePoint("triangular")


def counting(progress: Progress | None) -> Progress | None:
    """``progress`` that counts through, over every solve of a continuation."""
    if progress is None:
        return None
    count = 0

    def counted(_: int, relative: float) -> None:
        nonlocal count
        count += 1
        progress(count, relative)

    return counted


_STATUSES = tuple(Status)
_RUNNING = -1
_TRIALS = 14
# Relative to the energy's own size: what rounding may add to it.
_ROUNDING = 1e-13
# A line search that fails this near to the tolerance has met the precision, not a bad direction.
_NEAR = 1e3


@dataclass(frozen=True)
class Iterate:
    """Where the iteration stands: u and F(u), (*batch, *shape); what is dear is made on demand."""

    system: NonlinearSystem
    u: torch.Tensor
    F: torch.Tensor

    @cached_property
    def J(self) -> LinearMap:
        """dF/du at u."""
        return self.system.linearise(self.u, 0.0).detach()

    @cached_property
    def P(self) -> LinearMap:
        """J where that is symmetric and definite, or taken for it, else the diffusion at u."""
        system = self.system
        if system.diffusion == system.linearise or (system.symmetric and self.J.definite):
            return self.J
        return self.system.diffusion(self.u, 0.0).detach()

    @cached_property
    def relative(self) -> torch.Tensor:
        """||F|| relative to the frozen right-hand side, per sample."""
        d, affine = len(self.system.shape), self.system.affine
        if self.system.scale is not None:
            size = self.system.scale(self.u, 0.0)
            return norm(self.F, d) / torch.where(size > 0, size, torch.ones_like(size))
        zero = torch.zeros_like(self.u)
        right = -self.system.residual(zero, 0.0) if affine else self.P.apply(self.u) - self.F
        scale = norm(right, d)
        usable = (scale > 0) & torch.isfinite(scale)
        return norm(self.F, d) / torch.where(usable, scale, torch.ones_like(scale))


class OnZeroMean(LinearMap):
    """A Jacobian on arrays of zero mean, J P with P v = v - w . v, w the weights of sum one.

    J takes these to arrays that sum to zero, which is made sure of: Q J P, Q that of equal weights.
    Of a system whose level is free it is dF/du: constants span its kernel and that of P^T J^T Q.
    """

    nullspace = True
    symmetric = definite = False

    def __init__(self, J: LinearMap, weights: torch.Tensor, turned: bool = False) -> None:
        self.J, self.weights, self.turned = J, weights / weights.sum(), turned
        self.shape, self.batch, self.dtype, self.device = J.shape, J.batch, J.dtype, J.device

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``Q J P u``, or ``P^T J Q u`` where turned."""
        return self._mapped(self.J.apply, u, self.turned)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """The transposed of that."""
        return self._mapped(self.J.adjoint, u, not self.turned)

    def transpose(self) -> OnZeroMean:
        """The map of the transpose."""
        return OnZeroMean(self.J.transpose(), self.weights, not self.turned)

    def diagonal(self) -> torch.Tensor:
        """That of J."""
        return self.J.diagonal()

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """Dense, and therefore refused."""
        raise InputError("a Jacobian on arrays of zero mean is no sparse matrix")

    def _mapped(
        self, J: Callable[[torch.Tensor], torch.Tensor], u: torch.Tensor, turned: bool
    ) -> torch.Tensor:
        dims = tuple(range(-len(self.shape), 0))
        if turned:
            v = J(u - u.mean(dims, keepdim=True))
            return v - self.weights * v.sum(dims, keepdim=True)
        v = J(u - (self.weights * u).sum(dims, keepdim=True))
        return v - v.mean(dims, keepdim=True)


# direction(iterate, running): the step d for all samples, and where the energy is seen to be
# not convex; (*batch, *shape) and (*batch).
Direction = Callable[[Iterate, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Course:
    """The outcome: u, statuses and iterations per sample, relative residuals (steps, *batch).

    ``convex``: per sample whether no direction of negative curvature was met at the last step.
    """

    u: torch.Tensor
    statuses: tuple[Status, ...]
    iterations: torch.Tensor
    residuals: torch.Tensor
    relative: torch.Tensor
    convex: torch.Tensor

    def then(self, other: Course) -> Course:
        """This course and one that began where it ended, as one."""
        residuals = torch.cat([self.residuals, other.residuals[1:]])
        iterations = self.iterations + other.iterations
        return replace(other, iterations=iterations, residuals=residuals)

    @property
    def success(self) -> bool:
        """Whether every sample has converged."""
        return all(status.success for status in self.statuses)


def at(system: NonlinearSystem, u: torch.Tensor) -> Iterate:
    """The iterate at u, its residual evaluated anew."""
    return Iterate(system, u, system.residual(u, 0.0))


@torch.no_grad()
def descend(
    system: NonlinearSystem,
    u: torch.Tensor,
    direction: Direction,
    *,
    rtol: float,
    max_iterations: int,
    progress: Progress | None,
    sufficient: float = 1e-4,
) -> Course:
    """Iterate from ``u`` (*batch, *shape) until no sample runs.

    ``sufficient``: the share of the merit's predicted fall with which a step is content.
    """
    here = at(system, u)
    codes = torch.full(here.relative.shape, _RUNNING, dtype=torch.int64, device=u.device)
    iterations, history = torch.zeros_like(codes), [here.relative]
    curved = torch.zeros_like(codes, dtype=torch.bool)

    def stop(where: torch.Tensor, status: Status) -> None:
        nonlocal codes
        codes = torch.where((codes == _RUNNING) & where, _STATUSES.index(status), codes)

    for step in range(1, max_iterations + 1):
        stop(~torch.isfinite(here.relative), Status.NOT_FINITE)
        stop(here.relative <= rtol, Status.CONVERGED)
        running = codes == _RUNNING
        if not bool(running.any()):
            break
        d, curved = direction(here, running)
        length, failed = _line_search(system, here, d, running, sufficient)
        stop(failed & (here.relative <= _NEAR * rtol), Status.STAGNATED)
        if system.potential is not None and not here.J.definite:
            stop(failed, Status.NOT_CONVEX)
        stop(failed, Status.LINE_SEARCH_FAILED)
        if not bool((codes == _RUNNING).any()):
            break
        here = at(system, here.u + spread(length, len(system.shape)) * d)
        history.append(here.relative)
        iterations = iterations + (codes == _RUNNING)
        if progress is not None:
            progress(step, float(here.relative.max()))
    stop(~torch.isfinite(here.relative), Status.NOT_FINITE)
    stop(here.relative <= rtol, Status.CONVERGED)
    if system.potential is not None:
        stop(curved, Status.NOT_CONVEX)
    stop(codes == _RUNNING, Status.MAX_ITERATIONS)
    statuses = tuple(_STATUSES[code] for code in codes.flatten().tolist())
    residuals = torch.stack(history).cpu()
    return Course(here.u, statuses, iterations.cpu(), residuals, here.relative, ~curved)


def _line_search(
    system: NonlinearSystem,
    here: Iterate,
    d: torch.Tensor,
    running: torch.Tensor,
    sufficient: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step lengths per sample, zero where none was found or none wanted; and where none was."""
    dims = len(system.shape)
    energy = system.potential
    length = torch.where(running, 1.0, 0.0).to(here.F.dtype)
    if energy is None:
        before, slope = norm(here.F, dims), -norm(here.F, dims)
        slack = torch.zeros_like(before)
    else:
        before, slope = energy(here.u, 0.0), dot(here.F, d, dims)
        slack = _ROUNDING * before.abs()
    pending = running & (slope < 0)
    failed = running & ~pending
    for _ in range(_TRIALS):
        if not bool(pending.any()):
            break
        trial = here.u + spread(length, dims) * d
        after = norm(system.residual(trial, 0.0), dims) if energy is None else energy(trial, 0.0)
        enough = after <= before + sufficient * length * slope + slack
        pending &= ~(enough & torch.isfinite(after))
        length = torch.where(pending, _shorter(length, before, slope, after), length)
    failed |= pending
    return torch.where(failed, 0.0, length), failed


def _shorter(
    length: torch.Tensor, before: torch.Tensor, slope: torch.Tensor, after: torch.Tensor
) -> torch.Tensor:
    """Where the parabola through what is known is least, from a tenth to a half of ``length``."""
    excess = after - before - length * slope
    least = -0.5 * slope * length.square() / excess
    least = torch.where(torch.isfinite(least) & (excess > 0), least, 0.5 * length)
    return torch.minimum(torch.maximum(least, 0.1 * length), 0.5 * length)
