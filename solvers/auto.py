"""The automatic choice of a solver, with its reason.

A problem in time or nonlinear is judged by its equation (``choose_for``), a steady linear one by
its operator (``choose``), in this order: fast transforms where the stencil is separable; a
factorisation where the system is small or one-dimensional; else the Krylov method that the
operator's symmetry and definiteness admit, with multigrid on stencils. A definite matrix without a
grid is judged by its bandwidth in the order of reverse Cuthill and McKee, n^(1/2) on surfaces and
n^(2/3) in space: a factorisation up to 20,000 unknowns and then algebraic multigrid in the plane,
incomplete Cholesky in space (crossovers as measured on finite differences and P1 elements).

What the choice cannot set up, or does not solve, is tried by what assumes less: a factorisation
where it is affordable, MINRES where the operator is symmetric, GMRES with an incomplete
factorisation. The notes say so, and a sample that no method solves keeps the status of the first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import Dispatch
from sciml.core.problem.equation import (
    Elasticity,
    Equation,
    Hyperelasticity,
    NavierStokes,
    Plasticity,
    Stokes,
    System,
)
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.place import discrete
from sciml.core.problem.problem import Problem
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Observe, Progress, Solver
from sciml.core.run.status import Status
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import (
    ELIMINATED,
    SMALL,
    Direct,
    affordable,
    in_the_plane,
    quickest,
)
from sciml.solvers.linear.fast_poisson import FastPoisson, recognise
from sciml.solvers.linear.incomplete import ILU, IncompleteCholesky
from sciml.solvers.linear.inverse import matrices
from sciml.solvers.linear.iteration import LinearSolver, check_options, linear_system
from sciml.solvers.linear.krylov import CG, GMRES, MINRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.relaxation import Jacobi
from sciml.solvers.linear.saddle import blocked
from sciml.solvers.linear.shifted_laplacian import ShiftedLaplacian
from sciml.solvers.trained.unknowns import all_unknowns

if TYPE_CHECKING:
    from sciml.core.problem.grid import Points

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

    def init(self, problem: Problem | LinearSystem, on: Grid | Mesh | None = None) -> AutoState:
        """Discretise if need be, choose, and set up what was chosen."""
        if isinstance(problem, Problem) and problem.equation.written_out:
            return self._trained(problem, on)
        if isinstance(problem, Problem) and all_unknowns(problem):
            return self._fitted(problem, on)
        if on is not None:
            discrete(on)
        if isinstance(problem, Problem) and not problem.linear:
            name, reason = choose_for(problem, on)
            options = {} if self.rtol is None else {"rtol": self.rtol}
            evolving = getattr(importlib.import_module("sciml.solvers"), name)(**options)
            return AutoState(evolving, evolving.init(problem, on), _note(evolving.kind, reason))
        system = linear_system(problem, on)
        A = system.A.detach()
        solver, note = choose(A, self.tolerance)
        try:
            return AutoState(solver, solver.init(system), note, system)
        except InputError as error:
            for other in _others(A, self.tolerance, solver.kind):
                try:
                    begun = other.init(system)
                except InputError:
                    continue
                told = f"{note}; it refused ({error.message}), {_named(other)} took over"
                return AutoState(other, begun, told, system)
            raise

    def _fitted(self, problem: Problem, on: Grid | Mesh | Points | None) -> AutoState:
        """What finds the unknowns, with this choice for every guess at them."""
        fit = importlib.import_module("sciml.solvers").Fit(solver=self)
        note = _note("fit", f"{', '.join(all_unknowns(problem))} is to be found")
        return AutoState(fit, fit.init(problem, on), note)

    def _trained(self, problem: Problem, on: Grid | Mesh | Points | None) -> AutoState:
        """A function, where no discretisation knows the equation: first one that is linear."""
        trained = importlib.import_module("sciml.solvers.trained")
        options = {} if self.rtol is None else {"rtol": self.rtol}
        first, then = trained.RandomFeatures(**options), trained.PINN(**options)
        note = _note(first.kind, "no grid knows what is written out")
        begun = first.init(problem, on)
        return AutoState(first, begun, note, then=lambda: (then, then.init(problem, on)))

    def run(
        self,
        state: AutoState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
        observe: Observe | None = None,
    ) -> Solution:
        """Run what was chosen; ``frames`` and ``observe`` are for problems in time."""
        given = {"frames": frames, "observe": observe}
        more = {name: value for name, value in given.items() if value is not None}
        solution = state.solver.run(state.inner, initial=initial, b=b, progress=progress, **more)
        if state.then is not None and not solution.status.success:
            other, inner = state.then()
            found: Solution = other.run(inner, initial=initial, b=b, progress=progress, **more)
            met = f"{state.solver.kind} ended at a residual of {float(solution.residual):.1e}"
            note = f"auto: {met}; {other.kind} took over"
            return replace(found, solver=self, notes=(*found.notes, note))
        if state.system is not None and not solution.status.success:
            solution = self._taken_over(state, state.system, solution, b, progress)
        return replace(solution, solver=self, notes=(*solution.notes, state.note))

    def _taken_over(
        self,
        state: AutoState,
        system: LinearSystem,
        solution: Solution,
        b: torch.Tensor | None,
        progress: Progress | None,
    ) -> Solution:
        """The samples that failed, by other methods; the solution itself where none helps."""
        for other in _others(system.A.detach(), self.tolerance, state.solver.kind):
            failed = [s for s in solution.statuses if not s.success]
            if not failed or all(s in _HOPELESS for s in failed):
                break
            try:
                found = other.run(other.init(system), b=b, progress=progress)
            except InputError:
                continue
            solution = _completed(solution, found, _named(other))
        return solution


# No method finds what is not there.
_HOPELESS = (Status.INCOMPATIBLE, Status.LOST_TO_ROUNDING)


def _completed(solution: Solution, found: Solution, name: str) -> Solution:
    """The solution with the samples that ``found`` has solved and it has not."""
    pairs = list(zip(solution.statuses, found.statuses, strict=True))
    better = [not old.success and new.success for old, new in pairs]
    if not any(better):
        return solution
    shape = solution.residual.shape
    taken = torch.tensor(better, device=solution.value.device).reshape(shape)
    wide = taken.reshape(*shape, *(1,) * (solution.value.ndim - len(shape)))
    count = f" in {sum(better)} of {len(better)} samples" if len(better) > 1 else ""
    first = next(old for old, new in pairs if not old.success and new.success)
    note = f"auto: {first.name.lower().replace('_', ' ')} at first; {name} took over{count}"
    return replace(
        found,
        value=torch.where(wide, found.value, solution.value),
        residual=torch.where(taken, found.residual, solution.residual),
        statuses=tuple(new if b else old for (old, new), b in zip(pairs, better, strict=True)),
        notes=(*solution.notes, *(n for n in found.notes if n not in solution.notes), note),
    )


@dataclass(frozen=True)
class AutoState:
    """The chosen solver, its own state, and the reason; ``then``: another, if it does not do."""

    solver: Solver
    inner: Any
    note: str
    system: LinearSystem | None = None
    then: Callable[[], tuple[Any, Any]] | None = None


def choose_for(problem: Problem, on: Grid | Mesh | Points | None) -> tuple[str, str]:
    """The name in ``sciml.solvers`` for a nonlinear problem or one in time, and why."""
    if problem.bounded:
        return "ActiveSet", "the answer lies between bounds"
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


@chooses(Equation, Mesh)
@chooses(System, Mesh)
@chooses(NavierStokes, Mesh)
@chooses(Stokes, Mesh)
@chooses(Elasticity, Mesh)
@chooses(Hyperelasticity, Mesh)
def _on_mesh(problem: Problem) -> tuple[str, str]:
    if problem.time is None:
        coupled = len(problem.unknowns) > 1 and bool(problem.equation.conditioned)
        return "Newton", "the fields are coupled" if coupled else "the equation is nonlinear"
    return "SDIRK", "the mass matrix of elements is not diagonal, so that every method is implicit"


@chooses(Plasticity, Mesh)
def _for_plasticity(problem: Problem) -> tuple[str, str]:
    return "QuasiStatic", "the body remembers its loads, and moves slowly"


@chooses(Equation, Grid)
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
    if A.saddle is not None and not A.batch:
        if quickest(A):
            return Direct(rtol=rtol), _note("direct", "the saddle point is small")
        return blocked(rtol), _note("gmres with saddle_point", "the matrix is a saddle point")
    if A.symmetric and not A.definite:
        return MINRES(rtol=rtol), _note("minres", f"{described} is symmetric but not definite")
    known = A.near_nullspace is not None and A.kernel is None
    if A.symmetric and not isinstance(A, Stencil) and not known:
        return _choose_definite(A, rtol)
    solid = A.near_nullspace is not None and A.near_nullspace.shape[1] > 1
    if A.symmetric and solid and A.size <= ELIMINATED and not A.batch and in_the_plane(A):
        # Multigrid takes hundreds of steps near Poisson's ratio 0.5.
        return Direct(rtol=rtol), _note("direct", "the solid is plane, and small")
    name, preconditioner = _preconditioner(A)
    if A.symmetric:
        return CG(preconditioner=preconditioner, rtol=rtol), _note(
            f"cg with {name}", f"{described} is symmetric positive definite"
        )
    return GMRES(preconditioner=preconditioner, rtol=rtol), _note(
        f"gmres with {name}", f"{described} is not symmetric"
    )


def _choose_definite(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    """For a symmetric positive definite matrix without a grid."""
    if A.nullspace:
        return CG(preconditioner=AMG(), rtol=rtol), _note(
            "cg with amg", "the matrix is symmetric and semidefinite"
        )
    if in_the_plane(A):
        if A.size <= ELIMINATED and not A.batch:
            return Direct(rtol=rtol), _note("direct", "the matrix is that of a surface")
        return CG(preconditioner=AMG(), rtol=rtol), _note(
            "cg with amg", "the matrix is symmetric positive definite, and that of a surface"
        )
    if A.size <= _INCOMPLETE:
        # With entries above zero relaxation breaks down, and shifts make the set-up dear.
        off = matrices(A)[0].tocoo()
        relaxed = bool((off.data[off.row != off.col] <= 0).all())
        M = IncompleteCholesky(0.98 if relaxed else 0.0, "reverse_cuthill_mckee")
        return CG(preconditioner=M, rtol=rtol), _note(
            "cg with incomplete_cholesky",
            "the matrix is symmetric positive definite, and that of a volume",
        )
    return CG(preconditioner=AMG(method="smoothed_aggregation"), rtol=rtol), _note(
        "cg with amg", "the matrix is symmetric positive definite, and that of a large volume"
    )


_INCOMPLETE = 300_000  # unknowns in space up to which incomplete Cholesky beats multigrid


def _others(A: LinearMap, rtol: float, kind: str) -> Iterator[LinearSolver]:
    """What to try where the solver of this kind has failed."""
    if kind != "direct" and affordable(A):
        yield Direct(rtol=rtol)
    if A.self_adjoint and kind != "minres":
        positive = bool((A.diagonal().real > 0).all())
        M = Jacobi() if positive else None
        yield MINRES(preconditioner=M, rtol=rtol, max_iterations=_TRIED)
    yield GMRES(preconditioner=ILU(), rtol=rtol, max_iterations=_TRIED)
    if A.size <= SMALL:
        yield GMRES(rtol=rtol, restart=min(A.size, 300), max_iterations=_TRIED)


_TRIED = 3000  # iterations of a method that takes over


def _named(solver: LinearSolver) -> str:
    preconditioner = getattr(solver, "preconditioner", None)
    return solver.kind if preconditioner is None else f"{solver.kind} with {preconditioner.kind}"


def _choose_complex(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    if A.self_adjoint:
        return _choose_hermitian(A, rtol)
    if not isinstance(A, Stencil):
        if affordable(A):
            return Direct(rtol=rtol), _note("direct", "the matrix is complex")
        return GMRES(preconditioner=ILU(), rtol=rtol), _note(
            "gmres with ilu", "the matrix is complex, and not Hermitian"
        )
    most = _FACTORISED[A.dimension]
    if A.size <= most:
        return Direct(rtol=rtol), _note(
            "direct", f"waves in {A.dimension} dimensions are factorised up to {most} unknowns"
        )
    return GMRES(preconditioner=ShiftedLaplacian(), rtol=rtol, restart=100), _note(
        "gmres with shifted_laplacian",
        f"waves in {A.dimension} dimensions are factorised only up to {most} unknowns",
    )


def _choose_hermitian(A: LinearMap, rtol: float) -> tuple[LinearSolver, str]:
    M = Jacobi() if bool((A.diagonal().real > 0).all()) else None
    if not A.definite:
        return MINRES(preconditioner=M, rtol=rtol), _note(
            "minres", "the matrix is Hermitian but not definite"
        )
    if A.size <= ELIMINATED and in_the_plane(A):
        return Direct(rtol=rtol), _note("direct", "the matrix is that of a surface")
    return CG(preconditioner=M, rtol=rtol), _note(
        "cg with jacobi", "the matrix is Hermitian positive definite"
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
