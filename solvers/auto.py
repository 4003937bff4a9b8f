"""The automatic choice of a solver, with its reason.

A problem in time or nonlinear is judged by its equation (``choose_for``), a steady linear one by
its operator (``choose``), in this order: fast transforms where the stencil is separable; a
factorisation where the system is small or one-dimensional; else the Krylov method that the
operator's symmetry and definiteness admit, with multigrid on stencils and algebraic multigrid on
matrices.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import Dispatch
from sciml.core.problem.equation import Equation, NavierStokes, System
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Progress, Solver
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import SMALL, Direct
from sciml.solvers.linear.fast_poisson import FastPoisson, recognise
from sciml.solvers.linear.iteration import LinearSolver, check_options, linear_system
from sciml.solvers.linear.krylov import CG, GMRES, MINRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.shifted_laplacian import ShiftedLaplacian

# (problem): the name in ``sciml.solvers``, and why.
chooses: Dispatch[tuple[str, str]] = Dispatch("solved in time or by Newton's method")

_RTOL = 1e-8
# Complex unknowns up to which SuperLU beats a shifted Laplacian (benchmarks/helmholtz.py).
_FACTORISED = {2: 300_000, 3: 3_000}


@dataclass(frozen=True)
class Auto:
    """Chooses a solver; ``Solution.notes`` says in one line which and why.

    ``rtol``: 1e-8 for algebraic equations, the integrator's own for a problem in time, unless it
    is given.
    """

    kind: Literal["auto"] = "auto"
    rtol: float | None = None

    def __post_init__(self) -> None:
        check_options(self.kind, self.tolerance, 1)

    @property
    def tolerance(self) -> float:
        """The relative residual of algebraic equations."""
        return _RTOL if self.rtol is None else self.rtol

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> AutoState:
        """Discretise if need be, choose, and set up what was chosen."""
        if isinstance(on, Points):
            raise InputError(
                "auto chooses solvers on grids and meshes; at scattered points name one, such as "
                "solver: {kind: pinn}",
                "solver.kind",
            )
        if isinstance(problem, Problem) and not problem.linear:
            name, reason = choose_for(problem, on)
            options = {} if self.rtol is None else {"rtol": self.rtol}
            evolving = getattr(importlib.import_module("sciml.solvers"), name)(**options)
            return AutoState(evolving, evolving.init(problem, on), _note(evolving.kind, reason))
        system = linear_system(problem, on)
        solver, note = choose(system.A.detach(), self.tolerance)
        return AutoState(solver, solver.init(system), note)

    def run(
        self,
        state: AutoState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
    ) -> Solution:
        """Run what was chosen; ``frames`` is for problems in time."""
        more = {} if frames is None else {"frames": frames}
        solution = state.solver.run(state.inner, initial=initial, b=b, progress=progress, **more)
        return replace(solution, solver=self, notes=(*solution.notes, state.note))


@dataclass(frozen=True)
class AutoState:
    """The chosen solver, its own state, and the reason."""

    solver: Solver
    inner: Any
    note: str


def choose_for(problem: Problem, on: Grid | Mesh | Points | None) -> tuple[str, str]:
    """The name in ``sciml.solvers`` for a nonlinear problem or one in time, and why."""
    return chooses.look_up(problem.equation, type(on))(problem)


@chooses(NavierStokes, Grid)
def _for_flow(problem: Problem) -> tuple[str, str]:
    if all(problem.periodic):
        return "ETDRK4", "the flow is periodic on all sides"
    return "Projection", "the flow has walls"


@chooses(System, Grid)
def _for_system(problem: Problem) -> tuple[str, str]:
    if all(problem.periodic):
        return "ETDRK4", "the system is periodic on all sides"
    return "IMEX", "the system's diffusion is stiff and its reaction is not"


@chooses(Equation, Grid, Mesh)
def _for_form(problem: Problem) -> tuple[str, str]:
    form = problem.form
    if problem.time is None:
        return "Newton", "the equation is nonlinear"
    if not (_is_zero(form.dispersion) and _is_zero(form.biharmonic)):
        return "ETDRK4", "derivatives of third and fourth order are taken by Fourier transforms"
    if not _is_zero(form.m):
        return "RungeKutta", "the equation is of second order in time"
    if _is_zero(form.K):
        return "RungeKutta", "the equation has no diffusion"
    if not form.linear_with(problem.parameters) and replace(
        form, c=0.0, f=0.0, kind="general"
    ).linear_with(problem.parameters):
        return "IMEX", "diffusion is stiff and reaction is not"
    return "SDIRK", "diffusion is stiff"


def _is_zero(coefficient: Any) -> bool:
    return isinstance(coefficient, Real) and coefficient == 0


def choose(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    """The solver for ``A`` and one line that says why."""
    if _separable(A):
        return FastPoisson(rtol=rtol), _note(
            "fast_poisson", "the coefficients are constant and every side suits a fast transform"
        )
    if A.size <= SMALL:
        return Direct(rtol=rtol), _note("direct", f"there are only {A.size} unknowns")
    if isinstance(A, Stencil) and A.dimension == 1:
        return Direct(rtol=rtol), _note("direct", "a one-dimensional stencil is tridiagonal")
    if A.dtype.is_complex:
        return _choose_complex(A, rtol)
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


def _choose_complex(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    if not isinstance(A, Stencil):
        return Direct(rtol=rtol), _note("direct", "the matrix is complex")
    most = _FACTORISED[A.dimension]
    if A.size <= most:
        return Direct(rtol=rtol), _note(
            "direct", f"waves in {A.dimension} dimensions are factorised up to {most} unknowns"
        )
    return GMRES(preconditioner=ShiftedLaplacian(), rtol=rtol, restart=100), _note(
        "gmres with shifted_laplacian",
        f"waves in {A.dimension} dimensions are factorised only up to {most} unknowns",
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
