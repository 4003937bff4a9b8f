"""The automatic choice of a solver, with its reason.

In this order: fast transforms where the stencil is separable; a factorisation where the system is
small or one-dimensional; else the Krylov method that the operator's symmetry and definiteness
admit, with multigrid on stencils and algebraic multigrid on matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import LinearSolver, LinearState, Progress, lower, with_solver
from sciml.core.stencil import Stencil
from sciml.solvers.amg import AMG
from sciml.solvers.direct import Direct
from sciml.solvers.fast_poisson import FastPoisson
from sciml.solvers.iteration import check_options
from sciml.solvers.krylov import CG
from sciml.solvers.krylov_indefinite import MINRES
from sciml.solvers.krylov_nonsymmetric import GMRES
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.separable import recognise

_SMALL = 2000  # unknowns up to which a factorisation takes no longer than starting an iteration


@dataclass(frozen=True)
class Auto:
    """Chooses a solver from the operator; ``Solution.notes`` says in one line which and why."""

    kind: Literal["auto"] = "auto"
    rtol: float = 1e-8

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, 1)

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> AutoState:
        """Discretise if need be, choose, and set up what was chosen."""
        system = problem if isinstance(problem, LinearSystem) else lower(problem, on)
        solver, note = choose(system.A.detach(), self.rtol)
        return AutoState(solver, solver.init(system), note)

    def run(
        self,
        state: AutoState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Run what was chosen."""
        solution = state.solver.run(state.inner, initial=initial, b=b, progress=progress)
        return with_solver(solution, self, state.note)


@dataclass(frozen=True)
class AutoState:
    """The chosen solver, its own state, and the reason."""

    solver: LinearSolver
    inner: LinearState
    note: str


def choose(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    """The solver for ``A`` and one line that says why."""
    if _separable(A):
        return FastPoisson(rtol=rtol), _note(
            "fast_poisson", "the coefficients are constant and every side suits a fast transform"
        )
    if A.size <= _SMALL:
        return Direct(rtol=rtol), _note("direct", f"there are only {A.size} unknowns")
    if isinstance(A, Stencil) and A.dimension == 1:
        return Direct(rtol=rtol), _note("direct", "a one-dimensional stencil is tridiagonal")
    described = _description(A)
    if A.symmetric and not A.definite:
        return MINRES(rtol=rtol), _note("minres", f"{described} is symmetric but not definite")
    name, preconditioner = _preconditioner(A)
    if A.symmetric:
        return CG(preconditioner=preconditioner, rtol=rtol), _note(
            f"cg with {name}", f"{described} is symmetric positive definite"
        )
    return GMRES(preconditioner=preconditioner, rtol=rtol), _note(
        f"gmres with {name}", f"{described} is not symmetric"
    )


def _note(choice: str, reason: str) -> str:
    return f"auto: {choice}, because {reason}"


def _separable(A: LinearMap) -> bool:
    try:
        recognise(A)
    except InputError:
        return False
    return True


def _description(A: LinearMap) -> str:
    if not isinstance(A, Stencil):
        return "the matrix"
    return "the operator, with its variable coefficients or mixed conditions,"


def _preconditioner(A: LinearMap) -> tuple[str, Multigrid | AMG]:
    return ("multigrid", Multigrid()) if isinstance(A, Stencil) else ("amg", AMG())
