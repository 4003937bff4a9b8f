"""Descent in function space, preconditioned by the Sobolev inner product.

    u <- u - eta (-Lap + I)^-1 E'(u),

the gradient of the energy E in H^1 rather than in L^2: E' maps H^1 to its dual and (-Lap + I)^-1
back, so that where E'' lies between l and L in the norm of H^1 each step multiplies the distance
to the minimum by at most (L - l) / (L + l) with eta = 2 / (L + l), on any mesh: the iteration of
which Marwah et al. (ICML 2023, arXiv 2210.12101) show that networks can follow it. On a grid E' is
the residual F of the discretised problem and (-Lap + I)^-1 a solve by conjugate gradients with
multigrid. With a ``projection`` every iterate v is replaced by the network nearest to it,

    min over theta of (N_theta - v) . M (N_theta - v),      M = -Lap + I on the grid,

by Levenberg-Marquardt, (J^T M J + mu I) s = -J^T M (N_theta - v).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.discretization import semidiscretize
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.linear.direct import Direct, small
from sciml.solvers.linear.iteration import LinearSolver, check_options, spread
from sciml.solvers.linear.krylov import CG
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.nonlinear.descent import (
    Continuation,
    Course,
    Iterate,
    NonlinearState,
    answer,
    counting,
    descend,
    prepare,
)
from sciml.solvers.trained.function import TrainedFunction
from sciml.solvers.trained.networks import Activation, Perceptron, Tape, derivatives, perceptron
from sciml.solvers.trained.objective import Objective, objective_of

_INNER = 1e-3  # relative residual of the preconditioner's solves
_PATIENCE = 10  # projected steps without a tenth's fall of the residual, and it has stagnated
_FALL = 0.9
_LARGEST = 1e6
_NEAR = 1e-4  # of the distance to what is projected, at which the projection is near enough


@dataclass(frozen=True)
class NetworkProjection:
    """The network that every iterate is projected onto, by at most ``steps`` of Gauss-Newton.

    Too few of them leave more than the network does: it is the projection that ends the descent.
    """

    width: int = 16
    depth: int = 2
    activation: Activation = "tanh"
    steps: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "steps"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}",
                    f"solver.projection.{name}",
                )


@dataclass(frozen=True)
class FunctionDescent:
    """Gradient descent in H^1 with a line search, for steady nonlinear problems on grids.

    ``step``: eta, the largest that is tried. ``rtol`` and ``continuation`` as for Newton, which
    needs fewer iterations and second derivatives of the energy. With ``projection`` the answer is a
    network, ``solution.function``, and the residual stays at what that can represent.
    """

    step: float = 1.0
    rtol: float = 1e-8
    max_iterations: int = 500
    projection: NetworkProjection | None = None
    continuation: Continuation | None = None
    kind: Literal["function_descent"] = "function_descent"
    reads_problem: ClassVar[bool] = True  # itself, not its discretisation

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.step <= 0:
            raise InputError(f"step must be positive; got {self.step:g}", "solver.step")
        if self.projection is not None and self.continuation is not None:
            raise InputError(
                "a projected descent takes no continuation; leave one of the two out",
                "solver.continuation",
            )

    def init(self, problem: Problem | LinearSystem, on: Grid | None = None) -> NonlinearState:
        """Discretise; raises InputError for a problem in time or a linear system."""
        if isinstance(on, Mesh):
            raise InputError("function_descent works on grids; on a mesh use newton", "solver.kind")
        return prepare(self.kind, problem, on)

    def run(
        self,
        state: NonlinearState,
        *,
        initial: Tensor | None = None,
        b: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Descend from ``initial``, a value on the grid; else from zero or a linear answer."""
        progress = counting(progress)
        assert isinstance(state.system.on, Grid)
        metric = Metric(state.problem, state.system.on)
        projector = None
        if self.projection is not None:
            projector = Projector(state, metric.M, self.projection)

        def direction(here: Iterate, running: Tensor) -> tuple[Tensor, Tensor]:
            share = self.step * spread(running.to(here.F.dtype), len(here.system.shape))
            return -share * metric.gradient(here.F), torch.zeros_like(running)

        def steps(system: NonlinearSystem, u: Tensor, count: int) -> Course:
            return descend(
                system, u, direction, rtol=self.rtol, max_iterations=count, progress=progress
            )

        def solve(system: NonlinearSystem, u: Tensor) -> Course:
            if projector is None:
                return steps(system, u, self.max_iterations)
            return _projected(system, u, steps, projector, self.max_iterations)

        solution = answer(self, state, initial, b, solve, lambda: metric.note)
        return solution if projector is None else replace(solution, function=projector.function)


class Metric:
    """M = -Lap + I on a problem's unknowns, with homogeneous conditions of the same kinds."""

    def __init__(self, problem: Problem, on: Grid) -> None:
        natural, fixed = Condition(neumann=0.0), Condition(dirichlet=0.0)
        boundary = {
            side: c if c.kind == "periodic" else (fixed if c.kind == "dirichlet" else natural)
            for side, c in problem.boundary.items()
        }
        # The same scheme as the problem's own: others differ by more than a factor on rough grids.
        equation = Equation(c=1.0)
        if problem.form.energy is not None:
            slopes = " + ".join(f"u{axis}**2" for axis in problem.box.axes)
            equation = Equation(energy=f"0.5*({slopes} + u**2)")
        plain = replace(problem, equation=equation, boundary=boundary, parameters={}, exact=None)
        system = semidiscretize(plain, on)
        M = system.stencil(torch.zeros(system.shape, dtype=torch.float64), 0.0)
        self.M = M
        self.solver: LinearSolver = Direct()
        if not small(M):
            self.solver = CG(preconditioner=Multigrid(), rtol=_INNER)
        self.prepared = self.solver.setup(M)
        self.solves = self.inner = 0

    def gradient(self, F: Tensor) -> Tensor:
        """M^-1 F, for F (*batch, *shape)."""
        found = self.solver.iterate(self.M, self.prepared, F, None, None)
        self.solves += 1
        self.inner += int(found.iterations.max())
        return found.x

    @property
    def note(self) -> str:
        """One line on the preconditioner."""
        name = "a factorisation" if isinstance(self.solver, Direct) else "cg with multigrid"
        return f"function_descent: -Lap + I by {name}, {self.inner} iterations in {self.solves}"


class Projector:
    """The network nearest to values on the grid, in the norm of M."""

    def __init__(self, state: NonlinearState, M: Stencil, options: NetworkProjection) -> None:
        if state.system.batch:
            raise InputError("one problem at a time is projected", "solver.projection")
        self.M, self.options, self.system = M, options, state.system

        def network(form: StrongForm) -> Perceptron:
            return perceptron(form, options.seed, options.width, options.depth, options.activation)

        self.objective: Objective = objective_of(state.problem, network, True, {})
        columns = state.system.on.coordinates()
        self.points = torch.stack(
            [state.system.restrict(column.to(torch.float64)).flatten() for column in columns], -1
        )
        self.known = self.objective.ansatz.known(self.points, ())
        self.mu: float | None = None

    @property
    def function(self) -> TrainedFunction:
        """The network, as it is now."""
        return TrainedFunction.of(self.objective)

    def nearest(self, v: Tensor) -> Tensor:
        """Its values after at most ``steps`` steps towards v, both (*shape)."""
        theta, first = self.objective.theta, float("inf")
        for _ in range(self.options.steps):
            u, J = self._tangent()
            gap = u - v
            weighted = self.M.apply(gap)
            before = float((gap * weighted).sum())
            first = before if first == float("inf") else first
            if before < _NEAR**2 * first:
                break
            MJ = self.M.apply(J.T.reshape(-1, *self.M.shape)).flatten(1)
            gram, slope = MJ @ J, J.T @ weighted.flatten()
            taken = self._stepped(theta, v, gram, slope, before)
            if taken is None:
                break
            theta = taken
        self.objective.assign(theta)
        return self.values()

    def _stepped(
        self, theta: Tensor, v: Tensor, gram: Tensor, slope: Tensor, before: float
    ) -> Tensor | None:
        scale = float(gram.diagonal().max())
        self.mu = 1e-4 * scale if self.mu is None else self.mu
        while self.mu <= _LARGEST * scale:
            damped = gram.clone()
            damped.diagonal().add_(self.mu)
            factor, info = torch.linalg.cholesky_ex(damped)
            if not int(info):
                step = -torch.cholesky_solve(slope[:, None], factor)[:, 0]
                self.objective.assign(theta + step)
                gap = self.values() - v
                if float((gap * self.M.apply(gap)).sum()) < before:
                    self.mu = max(self.mu / 5, 1e-16 * scale)
                    return theta + step
            self.mu *= 5
        self.mu = None
        return None

    @torch.no_grad()
    def values(self) -> Tensor:
        """Those of the network at the unknowns, (*shape)."""
        found = self.objective.ansatz.jet(self.points, (), self.known).value[:, 0]
        return found.reshape(self.M.shape)

    def _tangent(self) -> tuple[Tensor, Tensor]:
        """u (*shape) and du/dtheta (N, P)."""
        tape: Tape = []
        ansatz = self.objective.ansatz
        with torch.enable_grad():
            u = ansatz.jet(self.points, (), self.known, tape).value[:, 0]
            deltas = torch.autograd.grad(u.sum(), [out for _, _, out in tape])
        with torch.no_grad():
            J = derivatives(tape, deltas, ansatz.network.blocks())
        return u.detach().reshape(self.M.shape), J


def _projected(
    system: NonlinearSystem,
    u: Tensor,
    steps: Callable[[NonlinearSystem, Tensor, int], Course],
    projector: Projector,
    max_iterations: int,
) -> Course:
    """Descent whose every iterate is projected; ends where the residual hardly falls any more."""
    u, best, best_at = projector.nearest(u), float("inf"), 0
    history, status, convex = [], Status.MAX_ITERATIONS, torch.tensor(True)
    for count in range(max_iterations + 1):
        step = steps(system, u, 1)
        relative = float(step.residuals[0])
        history.append(step.residuals[0])
        if relative < _FALL * best:
            best, best_at = relative, count
        if int(step.iterations) == 0:
            # It stood where it was: at the tolerance, or no step lowered the energy.
            status = step.statuses[0]
        elif count - best_at >= _PATIENCE:
            status = Status.STAGNATED
        if status is not Status.MAX_ITERATIONS or count == max_iterations:
            break
        u, convex = projector.nearest(step.u), step.convex
    return Course(
        u, (status,), torch.tensor(len(history) - 1), torch.stack(history), history[-1], convex
    )
