"""What every solver of nonlinear steady problems shares: set-up, start, verification, gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sciml.core.differentiate import attach
from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.place import discrete
from sciml.core.problem import Problem
from sciml.core.solution import Solution, Statistics
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.core.stencil import Stencil
from sciml.solvers.continuation import follow
from sciml.solvers.descent import Course, Iterate, at
from sciml.solvers.direct import Direct
from sciml.solvers.iteration import LinearSolver
from sciml.solvers.krylov import CG, GMRES
from sciml.solvers.multigrid import Multigrid

_SMALL = 2000  # unknowns up to which a factorisation takes no longer than starting an iteration


@dataclass(frozen=True)
class NonlinearState:
    """The problem and its discretisation."""

    problem: Problem
    system: NonlinearSystem
    setup_seconds: float


def prepare(kind: str, problem: Problem | LinearSystem, on: Grid | None) -> NonlinearState:
    """Discretise a steady problem; raises InputError for anything else."""
    from sciml.core.discretize import semidiscretize

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
    statuses = tuple(
        _verified(status, value, solver.rtol)
        for status, value in zip(course.statuses, last.relative.flatten().tolist(), strict=True)
    )
    if system.potential is not None and not (last.J.definite or bool(course.convex.all())):
        notes.append("the energy is not convex at the answer, which may be no minimum")
    return Solution(
        value=system.lift(_differentiable(system, course.u, last), 0.0),
        residual=last.relative.cpu(),
        statuses=statuses,
        stats=Statistics(course.iterations, course.residuals, state.setup_seconds, seconds),
        on=system.on,
        solver=solver,
        notes=(*system.notes, *system.remarks(course.u, 0.0), describe(), *notes),
    )


def _verified(status: Status, relative: float, rtol: float) -> Status:
    if relative <= 1.01 * rtol:
        return Status.CONVERGED
    if relative != relative:
        return Status.NOT_FINITE if status.success else status
    return Status.RESIDUAL_MISMATCH if status.success else status


def _start(system: NonlinearSystem, initial: torch.Tensor | None) -> torch.Tensor:
    """The first iterate (*batch, *shape): the user's, the linear guess, or zero."""
    shape = (*system.batch, *system.shape)
    if initial is not None:
        return system.restrict(initial.to(torch.float64)).expand(shape).clone()
    zero = torch.zeros(shape, dtype=torch.float64)
    if system.guess is None:
        return zero
    A, b = system.guess.A.detach(), system.guess.b.detach()
    assert isinstance(A, Stencil)
    # A rough answer will do.
    solver: LinearSolver = Direct() if small(A) else CG(preconditioner=Multigrid(), rtol=1e-3)
    found = solver.iterate(A, solver.setup(A), b.expand(shape).contiguous(), None, None).x
    return found if bool(torch.isfinite(found).all()) else zero


def _differentiable(system: NonlinearSystem, u: torch.Tensor, last: Iterate) -> torch.Tensor:
    """u with the graph of F, by the implicit function theorem: one solve with J transposed."""
    if not torch.is_grad_enabled():
        return u
    residual = -system.residual(u, 0.0)

    def adjoint(gradient: torch.Tensor) -> torch.Tensor:
        A = last.J if last.J.symmetric else last.J.transpose()
        solver: LinearSolver = GMRES(preconditioner=Multigrid(), rtol=1e-10)
        solver = Direct() if small(A) else solver
        return solver.iterate(A, solver.setup(A), gradient, None, None).x

    return attach(u, residual, adjoint)


def small(A: LinearMap) -> bool:
    """Whether a factorisation is the cheapest way to solve with A."""
    return A.size <= _SMALL or len(A.shape) == 1


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
