"""The verb: ``solve(problem, solver, on)``, and the face that every solver shows it.

``solve = run . init``: ``init`` does the set-up that many right-hand sides can share (as in
CommonSolve.jl and lineax), ``run`` answers one of them.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import scipy.sparse
import torch

from sciml.core.differentiate import attach
from sciml.core.errors import InputError, SolveError
from sciml.core.grid import Grid
from sciml.core.linear import LinearMap, LinearSystem, SparseMatrix
from sciml.core.mesh import Mesh
from sciml.core.problem import Problem
from sciml.core.solution import Solution, Statistics
from sciml.core.status import Status

Progress = Callable[[int, float], None]


@runtime_checkable
class Solver(Protocol):
    """Anything that answers a problem: a frozen dataclass of options with these two methods."""

    kind: str

    def init(self, problem: Problem | LinearSystem, on: Grid | Mesh | None) -> Any:
        """Set-up, reusable over right-hand sides."""

    def run(
        self,
        state: Any,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Answer one right-hand side."""


@dataclass(frozen=True)
class Iterate:
    """What a linear method hands back before anything is verified.

    ``x``: (*batch, *shape). ``statuses``: one per sample. ``iterations``: int (*batch).
    ``residuals``: (steps, *batch) relative norms. ``true_residual``: ||b - A x|| / ||b|| of this x,
    recomputed in float64 as the last thing, or None. ``corrected``: the preconditioner improved the
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
    ) -> Iterate:
        """Solve for one (batch of) right-hand side(s)."""

    def init(self, problem: Problem | LinearSystem, on: Grid | Mesh | None = None) -> LinearState:
        """Discretise if need be, then set up."""
        system = problem if isinstance(problem, LinearSystem) else lower(problem, on)
        start = time.perf_counter()
        prepared = self.setup(system.A.detach())
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
        statuses = _verified(result.statuses, residual, self.rtol)
        x = result.x
        if torch.is_grad_enabled() and (system.A.requires_grad or data.requires_grad):
            gap = data - system.A.apply(x)
            x = attach(x, gap, lambda gradient: adjoint(self, state, gradient))
        return Solution(
            system.lift(x),
            residual,
            statuses,
            stats,
            system.on,
            self,
            (*system.notes, *getattr(state.prepared, "notes", ()), *result.notes),
            fields=system.fields,
        )


def adjoint(solver: LinearSolver, state: LinearState, gradient: torch.Tensor) -> torch.Tensor:
    """``A^-H gradient`` by the solver and the set-up that answered the problem itself.

    A nonsymmetric A needs a set-up of its own for its transpose. Raises SolveError where the
    solver does not converge.
    """
    A, prepared = state.system.A.detach(), state.prepared
    if not A.symmetric:
        A = A.transpose()
        prepared = solver.setup(A)
    right = gradient.conj().resolve_conj()
    if A.nullspace:
        # The answer has zero mean whatever the data, so that a constant gradient moves nothing.
        right = right - right.mean(tuple(range(-len(A.shape), 0)), keepdim=True)
    result = solver.iterate(A, prepared, right, None, None)
    residual = relative_residual(A, result.x, right)
    for status in _verified(result.statuses, residual, solver.rtol):
        if not status.success:
            raise SolveError(f"the adjoint solve of a gradient: {status}")
    return result.x.conj().resolve_conj()


def relative_residual(A: LinearMap, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """||b - A x|| / ||b|| per sample, recomputed in float64; ||b|| = 0 counts as 1."""
    axis = -len(A.shape)
    gap = b - A.apply(x.to(torch.promote_types(b.dtype, x.dtype)))
    scale = torch.linalg.vector_norm(b.flatten(axis), dim=-1)
    size = torch.linalg.vector_norm(gap.flatten(axis), dim=-1)
    return size / torch.where(scale > 0, scale, torch.ones_like(scale))


def _verified(
    statuses: tuple[Status, ...], residual: torch.Tensor, rtol: float
) -> tuple[Status, ...]:
    """Statuses corrected by the true residual: it alone decides what has converged."""
    checked = []
    for status, value in zip(statuses, residual.flatten().tolist(), strict=True):
        if value <= 1.01 * rtol:
            checked.append(Status.CONVERGED)
        elif value != value:
            checked.append(Status.NOT_FINITE)
        else:
            checked.append(Status.RESIDUAL_MISMATCH if status.success else status)
    return tuple(checked)


def lower(problem: Problem, on: Grid | Mesh | None) -> LinearSystem:
    """The linear system of a problem on a grid; raises InputError without a grid."""
    from sciml.core.discretize import discretize

    if on is None:
        raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
    return discretize(problem, on)


def init(problem: Any, solver: Solver, on: Grid | Mesh | None = None) -> Any:
    """Set-up once for many right-hand sides; answer them with ``solver.run(state, b=...)``."""
    return solver.init(problem, on)


def solve(
    problem: Any,
    *arguments: Any,
    solver: Solver | None = None,
    on: Grid | Mesh | None = None,
    initial: torch.Tensor | None = None,
    throw: bool = True,
    progress: Progress | None = None,
    frames: str | Path | None = None,
) -> Solution:
    """Solve ``solve(problem, solver, on=grid)`` or ``solve(A, b, solver)``.

    ``A`` is a LinearMap or a SciPy sparse matrix, ``b`` a vector. ``initial`` is a first guess on
    the grid. ``throw=True`` raises SolveError when any sample has not converged; with False the
    Solution says so. ``progress(iteration, residual)`` is called once per iteration, in time
    ``progress(step, t)`` once per step. ``frames``: a file that keeps the frames of a problem in
    time while they come; the same call goes on from it after an interruption.
    """
    rest = list(arguments)
    if isinstance(problem, LinearMap) or scipy.sparse.issparse(problem):
        if not rest or isinstance(rest[0], Solver):
            raise InputError("solve(A, b, solver) needs the right-hand side b after the matrix")
        A = problem if isinstance(problem, LinearMap) else SparseMatrix(problem)
        b = torch.as_tensor(rest.pop(0))
        b = b.to(torch.promote_types(b.dtype, torch.float64))
        problem = LinearSystem(A, b)
    if rest:
        solver = rest.pop(0)
    if rest or solver is None:
        raise InputError("solve takes (problem, solver, on=grid) or (A, b, solver)")
    more: dict[str, Any] = {}
    if isinstance(problem, Problem) and problem.time is not None:
        more["frames"] = frames
    elif frames is not None:
        raise InputError("frames are kept for a problem in time; this one has no time")
    solution = solver.run(solver.init(problem, on), initial=initial, progress=progress, **more)
    if throw and not solution.status.success:
        worst = float(solution.residual.max())
        raise SolveError(f"{solution.status} (worst relative residual {worst:.2e})")
    return solution


def with_solver(solution: Solution, solver: Any, note: str) -> Solution:
    """The same solution, in the name of the solver that the user asked for, with a note."""
    return replace(solution, solver=solver, notes=(*solution.notes, note))
