"""Implicit methods for stiff equations: the equation of a stage, and the methods made of stages.

With tau the step times the diagonal entry of the method, every implicit stage is one equation

    G(U) = D U + F(U, t) - r = 0,
    mass u' + F = 0:                D = mass / tau,     r = D base,
    inertia u'' + mass u' + F = 0:  D = inertia / tau^2 + mass / tau,
                                    r = D base + inertia / tau base',

for the second the system (u, u') has its velocity eliminated: twice the unknowns are never solved
for. Newton's method uses one matrix D + J for many stages and steps (Hairer and Wanner 1996, IV.8),
its steps bettered by what those before them at the stage did to G (Anderson 1965). J is taken anew
where even so it no longer contracts; where it cannot change one linear solve is a stage.

Diagonally implicit Runge-Kutta methods (SDIRK), for heat, diffusion with reaction:

    U_i = y + h sum_{j<i} a_ij k_j + h gamma f(t + c_i h, U_i),      y_new = U_s.

The first stage is explicit, which gives every stage order two: with stage order one, as Euler's
method has it, stiff sources and boundary data that change in time reduce the order of the whole
to about one and a half (Hairer and Wanner 1996, IV.15). k_1 is the last stage of the step before.

The backward differentiation formula of second order with variable steps (BDF). With
w = h / h_before,

    u_new = (1 + w)^2 / (1 + 2 w) u - w^2 / (1 + 2 w) u_before + h (1 + w) / (1 + 2 w) f(u_new),

A-stable and L-stable at constant steps, zero-stable up to w = 1 + sqrt 2 (Grigorieff 1983). Its
local error is (1 + w)^2 / (6 w (1 + 2 w)) h^3 u''', with u''' from the third divided difference.
One stage a step, against five of SDIRK; the first two steps are taken by SDIRK.

Implicit-explicit Runge-Kutta methods (IMEX), where the stiff part of the equation is linear:

    F(u, t) = I(u, t) + E(u, t),    I(u, t) = L (u - u_0) + F(u_0, t),    E = F - I,

L the symmetric diffusion of F at u_0: whatever F is, this holds exactly, and E vanishes at u_0.
Diffusion, sources and boundary data that change in time are implicit, reaction and advection
explicit, so a stage is one linear solve and the matrix mass / tau + L is the same for the whole run
while the step is (Kennedy and Carpenter 2003).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from sciml.core.algebra.nonlinear import Inertia, NonlinearSystem, times
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError, SolveError
from sciml.core.run.differentiate import attach
from sciml.discretization.volumes.affine import AtTime
from sciml.discretization.volumes.nonlinear import add_diagonal
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct, quickest
from sciml.solvers.linear.fast_poisson import FastPoisson, recognise
from sciml.solvers.linear.iteration import LinearSolver, dot, norm, spread
from sciml.solvers.linear.krylov import CG, GMRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.saddle import Patience
from sciml.solvers.time.march import (
    Integrator,
    Memory,
    Scheme,
    TimeStep,
    blank_rates,
    check_time_options,
    combine,
    divided,
    first_state,
    rate,
)
from sciml.solvers.time.tableaux import ARK3, ARK4, Tableau

_ITERATIONS = 20
_MOST = 10_000  # steps of the blocks of a saddle point that cannot be factorised
_REFINEMENTS, _ADJOINT = 40, 1e-10
_CONTRACTION = 0.2  # a rate above which Newton's matrix is taken anew
_KEPT = 0.3  # the same of a factorisation, which costs as much as many steps with it
_COMBINED = 1e-6  # of a change, what is left of it beside those before where that is rounding
_SMALL = 2000  # unknowns up to which a factorisation is kept
_FACTORISED = 20_000  # the same on a mesh, where it serves many steps
# dF/du as a matrix to which something can be added.
Jacobian = Stencil | PatternMatrix


@dataclass(frozen=True)
class StageResult:
    """U (*batch, *shape), and per sample ||G|| / max(scale, ||G(guess)||) and success.

    The scale is ||r||, of second order in time max(||inertia base'|| / tau, ||F||).
    """

    value: torch.Tensor
    residual: torch.Tensor
    solved: torch.Tensor


@dataclass(frozen=True)
class _Matrix:
    """D + J with its set-up, for one tau."""

    tau: float
    A: Jacobian
    solver: LinearSolver
    prepared: Any


class _Secants:
    """Changes of G by changes of U at one stage, by which a step with an old matrix M is bettered.

    U <- U - S g - M^-1 (G - Y g),  g that for which ||G - Y g|| is least: Y holds changes of G,
    S those of U that made them, sample by sample, Y orthonormal (Fang and Saad 2009, type II).
    """

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.pairs: list[tuple[torch.Tensor, torch.Tensor]] = []

    def explained(self, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """S g, and G - Y g."""
        d, step, rest = self.dimension, torch.zeros_like(G), G
        for s, y in self.pairs:
            share = spread(dot(y, rest, d), d)
            step, rest = step + share * s, rest - share * y
        return step, rest

    def learn(self, s: torch.Tensor, y: torch.Tensor) -> None:
        """Take a pair, but of samples whose change is a combination of those before."""
        d, whole = self.dimension, norm(y, self.dimension)
        for s_before, y_before in self.pairs:
            share = spread(dot(y_before, y, d), d)
            s, y = s - share * s_before, y - share * y_before
        size = norm(y, d)
        new = size > _COMBINED * whole
        scale = spread(torch.where(new, 1 / torch.where(new, size, 1.0), 0.0), d)
        self.pairs.append((scale * s, scale * y))


class StageSolver:
    """Solves the stages of one system to ``tolerance``; up to ``accepted`` if they stagnate there.

    ``setups`` counts hierarchies and factorisations, ``solves`` linear solves. ``linear``: for a
    splitting, whose implicit part is affine, the map that stands in for the Jacobian.
    """

    def __init__(
        self,
        system: NonlinearSystem,
        tolerance: float,
        accepted: float,
        linear: Jacobian | None = None,
    ) -> None:
        self.system, self.tolerance, self.accepted = system, tolerance, accepted
        unchanging = system.affine and system.steady and system.storage is None
        self.fixed = linear is not None or unchanging
        self.setups = self.solves = 0
        self.note = ""
        self._J = None if linear is None else linear.detach()
        self._matrix: _Matrix | None = None
        self._shift: tuple[float, Inertia] | None = None
        self._patience = Patience()

    def forget(self) -> None:
        """Drop a Jacobian that belongs to states of the past, so that a run can start here."""
        if not self.fixed:
            self._J = self._matrix = None

    def shift(self, tau: float) -> Inertia:
        """D of the stage equation."""
        if torch.is_grad_enabled() or self._shift is None or self._shift[0] != tau:
            self._shift = (tau, self._shifted_by(tau))
        return self._shift[1]

    def _shifted_by(self, tau: float) -> Inertia:
        mass, inertia = self.system.mass, self.system.inertia
        if inertia is None:
            assert mass is not None
            return _scaled(mass, 1 / tau)
        leading = _scaled(inertia, 1 / tau**2)
        if mass is None:
            return leading
        if isinstance(leading, PatternMatrix) and isinstance(mass, PatternMatrix):
            return leading.plus(mass, 1 / tau)
        assert isinstance(leading, torch.Tensor) and isinstance(mass, torch.Tensor)
        return leading + mass / tau

    def right(self, tau: float, base: torch.Tensor) -> torch.Tensor:
        """r of the stage equation from base (parts, *batch, *shape)."""
        r, inertia = times(self.shift(tau), base[0]), self.system.inertia
        return r if inertia is None else r + times(inertia, base[1]) / tau

    def solve(
        self,
        tau: float,
        base: torch.Tensor,
        t: float,
        guess: torch.Tensor,
        alive: torch.Tensor,
        residual: Any,
    ) -> StageResult:
        """U with D U + residual(U, t) = r; samples that are not ``alive`` are left as they fall.

        Where a graph is kept, U is differentiable by the implicit function theorem.
        """
        with torch.no_grad():
            found = self._solve(tau, base, t, guess, alive, residual)
        if not torch.is_grad_enabled():
            return found

        def gap(U: torch.Tensor) -> torch.Tensor:
            force: torch.Tensor = residual(U, t)
            return self.right(tau, base) - times(self.shift(tau), U) - force

        U = found.value.detach()
        attached = attach(U, gap, lambda g: self._adjoint(tau, U, t, residual, g))
        return replace(found, value=attached)

    def finish(
        self, tau: float, base: torch.Tensor, t: float, U: torch.Tensor, residual: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole stage and its derivative, from its first part.

        Where a graph is kept the numbers are the same, but their gradient is that of the equation
        and not of (U - base) / tau: what the adjoint misses of the difference would grow by h / tau
        from step to step.
        """
        found = recovered(U.detach(), base.detach(), tau)
        if not torch.is_grad_enabled():
            return found
        mass, inertia, force = self.system.mass, self.system.inertia, residual(U, t)
        if inertia is None:
            assert mass is not None
            return U[None], valued(found[1], -divided(force, mass)[None])
        leading = inertia
        if mass is not None:
            force, leading = force + times(mass, base[1]), self.damped(inertia, mass, tau)
        pull = -divided(force, leading)
        velocity = base[1] + tau * pull
        stage, slope = torch.stack([U, velocity]), torch.stack([velocity, pull])
        return valued(found[0], stage), valued(found[1], slope)

    @staticmethod
    def damped(inertia: Inertia, mass: Inertia, tau: float) -> Inertia:
        """inertia + tau mass."""
        if isinstance(inertia, PatternMatrix) and isinstance(mass, PatternMatrix):
            return inertia.plus(mass, tau)
        assert isinstance(inertia, torch.Tensor) and isinstance(mass, torch.Tensor)
        return inertia + tau * mass

    def _adjoint(
        self, tau: float, U: torch.Tensor, t: float, residual: Any, gradient: torch.Tensor
    ) -> torch.Tensor:
        """(D + dF/dU)^-T gradient, by refinement with the transpose of the stage's matrix.

        The matrix may be a Jacobian of states before, or of a scheme without its limiter; the
        products are exact. Raises SolveError where the refinement does not converge.
        """
        with torch.enable_grad():
            state = U.detach().requires_grad_()
            force = residual(state, t)
        D = self.shift(tau)
        D = D.detach() if isinstance(D, (torch.Tensor, PatternMatrix)) else D
        turned = D.transpose() if isinstance(D, PatternMatrix) and not D.symmetric else D
        J = self._J if self.fixed and self._J is not None else _jacobian(self.system, U, t)
        A = _shifted(J, D)
        A = A if A.symmetric else A.transpose()
        solver = _choose(A, self._patience)
        prepared = solver.setup(A)
        x, r = torch.zeros_like(gradient), gradient
        for _ in range(_REFINEMENTS):
            if isinstance(solver, (Direct, FastPoisson)):
                x = x + prepared.apply(r)
            else:
                inner = replace(solver, rtol=1e-4)  # type: ignore[type-var]
                x = x + inner.iterate(A, prepared, r, None, None).x
            (pulled,) = torch.autograd.grad(force, state, x, retain_graph=True)
            r = gradient - times(turned, x) - pulled
            if float(r.norm()) <= _ADJOINT * float(gradient.norm()):
                return x
        raise SolveError("the adjoint of an implicit stage did not converge; take smaller steps")

    def _solve(
        self,
        tau: float,
        base: torch.Tensor,
        t: float,
        guess: torch.Tensor,
        alive: torch.Tensor,
        residual: Any,
    ) -> StageResult:
        dimension, D, r = len(self.system.shape), self.shift(tau), self.right(tau, base)
        U = guess
        force = residual(U, t)
        G = self._gap(tau, D, base, r, U, t) + force
        size = norm(G, dimension)
        scale = torch.maximum(self._scale(tau, base, r, force), size)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        size = torch.where(alive, size / scale, 0.0)
        fresh, secants = self.fixed, _Secants(dimension)
        for _ in range(_ITERATIONS):
            if bool((size <= self.tolerance).all()) or not bool(torch.isfinite(size).all()):
                break
            matrix = self._ready(tau, D, base, U, t)
            going = spread(size > self.tolerance, dimension)
            known, rest = secants.explained(G)
            trial = U - going * (known + self._correction(matrix, rest, size))
            G_trial = self._gap(tau, D, base, r, trial, t) + residual(trial, t)
            size_trial = torch.where(alive, norm(G_trial, dimension) / scale, 0.0)
            kept = (
                _KEPT
                if isinstance(matrix.solver, Direct) and U.shape[-1] > _SMALL
                else _CONTRACTION
            )
            fell = bool((size_trial <= torch.clamp(kept * size, self.tolerance)).all())
            useless = fresh and not fell
            if not self.fixed and bool(torch.isfinite(size_trial).all()):
                secants.learn(trial - U, G_trial - G)
            if bool(size_trial.max() <= size.max()):
                U, G, size, fresh = trial, G_trial, size_trial, self.fixed
            if useless:
                break
            if not fell:
                self._J, self._matrix, fresh = None, None, True
                secants = _Secants(dimension)
        return StageResult(U, size, size <= self.accepted)

    def _gap(
        self,
        tau: float,
        D: Inertia,
        base: torch.Tensor,
        r: torch.Tensor,
        U: torch.Tensor,
        t: float,
    ) -> torch.Tensor:
        """D U - r."""
        storage = self.system.storage
        if storage is None:
            return times(D, U) - r
        return storage.apply(U, (U - base[0]) / tau, t)

    def _scale(
        self, tau: float, base: torch.Tensor, r: torch.Tensor, force: torch.Tensor
    ) -> torch.Tensor:
        """What the residual is small beside: of second order the terms that make the velocity."""
        dimension, inertia = len(self.system.shape), self.system.inertia
        if inertia is None:
            return norm(r, dimension)
        pushed = times(inertia, base[1]) / tau
        return torch.maximum(norm(pushed, dimension), norm(force, dimension))

    def _ready(
        self, tau: float, D: Inertia, base: torch.Tensor, U: torch.Tensor, t: float
    ) -> _Matrix:
        storage = self.system.storage
        if storage is not None:
            if self._matrix is not None and self._matrix.tau != tau:
                self._J = self._matrix = None  # both have the storage's slope over the old tau
            if self._J is None or self._matrix is None:
                D = _scaled(storage.matrix(U, t), 1 / tau)
        if self._J is None:
            self._J = _jacobian(self.system, U, t)
            self._matrix = None
            if storage is not None:
                slope = storage.slope(U, (U - base[0]) / tau, t)
                assert isinstance(self._J, PatternMatrix) and isinstance(slope, PatternMatrix)
                self._J = self._J.plus(slope)
        if self._matrix is None or self._matrix.tau != tau:
            A = _shifted(self._J, D)
            self._matrix = self._set_up(tau, A, _choose(A, self._patience))
        return self._matrix

    def _set_up(self, tau: float, A: Jacobian, solver: LinearSolver) -> _Matrix:
        self.setups += 1
        self.note = f"stages solved by {_name(solver)}"
        return _Matrix(tau, A, solver, solver.setup(A))

    def _correction(self, matrix: _Matrix, G: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """(D + J)^-1 G, as far as the tolerance of the stage asks for."""
        self.solves += 1
        if isinstance(matrix.solver, (Direct, FastPoisson)):
            found: torch.Tensor = matrix.prepared.apply(G)
            return found
        wanted = float((0.3 * self.tolerance / size.clamp(min=self.tolerance)).min())
        # A nonlinear stage is not solved further than its matrix is right.
        rtol = max(wanted, 1e-12 if self.fixed else 1e-3)
        solver = replace(matrix.solver, rtol=min(rtol, 0.1))  # type: ignore[type-var]
        result = solver.iterate(matrix.A, matrix.prepared, G, None, None)
        if matrix.A.saddle is None or not self._patience.ends(matrix.A, result.statuses):
            return result.x
        self._matrix = self._set_up(matrix.tau, matrix.A, Direct())
        exact: torch.Tensor = self._matrix.prepared.apply(G)
        return exact


def _scaled(mass: Inertia, share: float) -> Inertia:
    return mass.scaled(share) if isinstance(mass, PatternMatrix) else mass * share  # type: ignore


def _jacobian(system: NonlinearSystem, u: torch.Tensor, t: float) -> Jacobian:
    """dF/du, without a graph."""
    J = system.linearise(u, t).detach()
    assert isinstance(J, (Stencil, PatternMatrix))
    return J


def _shifted(J: Jacobian, D: Inertia) -> Jacobian:
    """J + D."""
    if isinstance(J, PatternMatrix):
        assert isinstance(D, PatternMatrix)
        return J.plus(D)
    assert isinstance(D, torch.Tensor)
    return _tagged(add_diagonal(J, D))


def _tagged(A: Stencil) -> Stencil:
    """A with its definiteness found by Gershgorin's discs where it is not known."""
    if not A.symmetric or A.definite:
        return A
    others = A.coefficients.abs().sum(-A.dimension - 1) - A.diagonal().abs()
    definite = bool((A.diagonal() > others).all())
    # Without definiteness GMRES with multigrid is better than any method for symmetric matrices.
    return Stencil(
        A.coefficients,
        A.offsets,
        periodic=A.periodic,
        symmetric=definite,
        definite=definite,
    )


def _choose(A: Jacobian, patience: Patience) -> LinearSolver:
    if isinstance(A, PatternMatrix):
        if A.saddle is not None and not A.batch:
            return Direct() if quickest(A) else patience.method(A, 1e-8, _MOST)
        if not A.batch and (A.size <= _FACTORISED or (not A.definite and quickest(A))):
            return Direct()
        return CG(preconditioner=AMG()) if A.definite else GMRES(preconditioner=AMG())
    if A.dimension == 1 or (A.size <= _SMALL and not A.batch):
        return Direct()
    if _separable(A):
        return FastPoisson()
    if A.symmetric:
        return CG(preconditioner=Multigrid())
    return GMRES(preconditioner=Multigrid())


def _separable(A: Stencil) -> bool:
    """Whether a fast transform diagonalises A."""
    try:
        recognise(A)
    except InputError:
        return False
    return True


def _name(solver: LinearSolver) -> str:
    inner = getattr(solver, "preconditioner", None)
    return solver.kind if inner is None else f"{solver.kind} with {inner.kind}"


@dataclass(frozen=True)
class SDIRK(Integrator):
    """Singly diagonally implicit Runge-Kutta methods, L-stable and stiffly accurate.

    ``order`` 3 or 4: the implicit tables of ARK3(2)4L[2]SA and ARK4(3)6L[2]SA (Kennedy and
    Carpenter 2003), three and five implicit stages. One linear solve a stage where the equation is
    linear, Newton's method otherwise; second order in time costs no more.
    """

    kind: Literal["sdirk"] = "sdirk"
    rtol: float = 1e-6
    atol: float | None = None
    step: float | None = None
    order: int = 4

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if self.order not in (3, 4):
            raise InputError(f"sdirk: order must be 3 or 4; got {self.order}", "solver.order")

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        return ImplicitRungeKutta(system, ARK4 if self.order == 4 else ARK3, self.rtol)


class ImplicitRungeKutta(Scheme):
    """Steps of a method with an explicit first stage and one gamma after it."""

    frugal = True

    def __init__(self, system: NonlinearSystem, tableau: Tableau, rtol: float) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = f"{tableau.name}, implicit table", tableau.embedded + 1
        self.stages = StageSolver(system, stage_tolerance(rtol), rtol)

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """y' at the start."""
        return (rate(self.system, y, t),)

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """Stage by stage."""
        table = self.tableau
        rates = blank_rates(y, table.stages)
        rates[0] = memory[0]
        tau, value = h * table.gamma, y
        residual, solved = torch.zeros_like(alive, dtype=y.dtype), torch.ones_like(alive)
        for i in range(1, table.stages):
            base = combine(y, h, table.weights[i], rates)
            guess = predicted(base, tau, rates[i - 1])
            found = self.stages.solve(
                tau, base, t + table.c[i] * h, guess, alive, self.system.residual
            )
            value, rates[i] = self.stages.finish(
                tau, base, t + table.c[i] * h, found.value, self.system.residual
            )
            residual, solved = torch.maximum(residual, found.residual), solved & found.solved
        error = combine(torch.zeros_like(y), h, table.estimate, rates)
        return TimeStep(value, (rates[-1],), error, residual, solved)

    def forget(self) -> None:
        """Of nonlinear equations the Jacobian."""
        self.stages.forget()

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)


def stage_tolerance(rtol: float) -> float:
    """To what residual stages are solved, so that it does not show in the error estimate."""
    return max(1e-2 * rtol, 1e-13)


def predicted(base: torch.Tensor, tau: float, before: torch.Tensor) -> torch.Tensor:
    """A guess for U from the derivative at the stage before."""
    return base[0] + tau * (before[0] if len(base) == 1 else base[1] + tau * before[1])


def recovered(U: torch.Tensor, base: torch.Tensor, tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole stage and its derivative, from its first part."""
    velocity = (U - base[0]) / tau
    if len(base) == 1:
        return U[None], velocity[None]
    return torch.stack([U, velocity]), torch.stack([velocity, (velocity - base[1]) / tau])


def valued(value: torch.Tensor, graph: torch.Tensor) -> torch.Tensor:
    """The numbers of ``value`` with the gradient of ``graph``."""
    return value + (graph - graph.detach())


def stage_remark(stages: StageSolver) -> str:
    """What the implicit stages cost."""
    return f"{stages.note}, {stages.solves} solves with {stages.setups} set-ups"


@dataclass(frozen=True)
class BDF(Integrator):
    """The two-step backward differentiation formula, steps variable (Gear 1971)."""

    kind: Literal["bdf"] = "bdf"
    rtol: float = 1e-4
    atol: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        return BackwardDifferences(system, self.rtol)


class BackwardDifferences(Scheme):
    """Steps of the formula; the memory holds the two states before and their distances."""

    name, exponent, growth, frugal = "BDF2", 3, 2.0, True

    def __init__(self, system: NonlinearSystem, rtol: float) -> None:
        self.system = system
        self.starter = ImplicitRungeKutta(system, ARK4, rtol)
        self.stages = self.starter.stages

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """y', twice no state before, and distances of zero for that."""
        return (*self.starter.begin(y, t), y, y, torch.zeros(2, dtype=torch.float64))

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """One stage, or a whole step of the starter while two states before are missing."""
        derivative, before, earlier, gaps = memory
        last, last_but_one = gaps.tolist()
        distances = torch.tensor([h, last], dtype=torch.float64)
        if last_but_one == 0:
            started = self.starter.advance(y, (derivative,), t, h, alive)
            kept = (*started.memory, y, before, distances)
            return TimeStep(started.y, kept, started.error, started.residual, started.solved)
        w = h / last
        share = 1 + 2 * w
        tau = h * (1 + w) / share
        base = ((1 + w) ** 2 / share) * y - (w**2 / share) * before
        found = self.stages.solve(
            tau,
            base,
            t + h,
            _ahead(y, before, earlier, (h, last, last_but_one)),
            alive,
            self.system.residual,
        )
        new, slope = self.stages.finish(tau, base, t + h, found.value, self.system.residual)
        third = _third_difference((new, y, before, earlier), (h, last, last_but_one))
        error = (1 + w) ** 2 / (w * share) * h**3 * third
        return TimeStep(new, (slope, y, before, distances), error, found.residual, found.solved)

    def forget(self) -> None:
        """Of nonlinear equations the Jacobian."""
        self.stages.forget()

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)


def _ahead(
    y: torch.Tensor, before: torch.Tensor, earlier: torch.Tensor, gaps: tuple[float, float, float]
) -> torch.Tensor:
    """The parabola through the last three states, at the end of the step."""
    h, last, last_but_one = gaps
    slope = (y[0] - before[0]) / last
    curve = (slope - (before[0] - earlier[0]) / last_but_one) / (last + last_but_one)
    return y[0] + h * (slope + (h + last) * curve)


def _third_difference(
    states: tuple[torch.Tensor, ...], gaps: tuple[float, float, float]
) -> torch.Tensor:
    """The divided difference u[t_0, t_-1, t_-2, t_-3] = u''' / 6."""
    first = [(a - b) / g for a, b, g in zip(states, states[1:], gaps, strict=False)]
    second = [
        (a - b) / (g + q) for a, b, g, q in zip(first, first[1:], gaps, gaps[1:], strict=False)
    ]
    return (second[0] - second[1]) / sum(gaps)


@dataclass(frozen=True)
class IMEX(Integrator):
    """Additive Runge-Kutta: diffusion implicit, reaction and advection explicit.

    ``order`` 3 or 4: ARK3(2)4L[2]SA and ARK4(3)6L[2]SA (Kennedy and Carpenter 2003). For equations
    of first order in time; where the diffusion itself changes much with u, or advection on a fine
    grid bounds the explicit part, SDIRK is better.
    """

    kind: Literal["imex"] = "imex"
    rtol: float = 1e-6
    atol: float | None = None
    step: float | None = None
    order: int = 4

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if self.order not in (3, 4):
            raise InputError(f"imex: order must be 3 or 4; got {self.order}", "solver.order")

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system; raises InputError for one of second order."""
        if system.storage is not None:
            raise InputError(
                "imex needs d that does not depend on the solution; use sdirk or bdf", "solver.kind"
            )
        if system.inertia is not None:
            raise InputError(
                "imex is for equations of first order in time; use sdirk or runge_kutta",
                "solver.kind",
            )
        return AdditiveRungeKutta(system, ARK4 if self.order == 4 else ARK3, self.rtol, start)


class AdditiveRungeKutta(Scheme):
    """Steps of a pair of tables."""

    frugal = explicit = True

    def __init__(
        self, system: NonlinearSystem, tableau: Tableau, rtol: float, start: float
    ) -> None:
        self.system, self.tableau = system, tableau
        self.name, self.exponent = tableau.name, tableau.embedded + 1
        self.u0 = first_state(system)[0]
        L = system.diffusion(self.u0, start)
        assert isinstance(L, (Stencil, PatternMatrix))
        self.L: Jacobian = L
        self._source: AtTime[torch.Tensor] = AtTime()
        self.stages = StageSolver(system, stage_tolerance(rtol), rtol, self.L)

    def _implicit(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """I(u, t)."""
        source = self._source.get(t, lambda: self.system.residual(self.u0, t))
        return self.L.apply(u - self.u0) + source

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """Nothing: both derivatives are taken anew at every step."""
        return ()

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """Stage by stage."""
        table, system, mass = self.tableau, self.system, self.system.mass
        assert mass is not None
        slow, fast = (blank_rates(y, table.stages) for _ in range(2))
        tau = h * table.gamma
        fast[0] = -divided(self._implicit(y[0], t), mass)[None]
        slow[0] = -divided(system.residual(y[0], t), mass)[None] - fast[0]
        residual, solved = torch.zeros_like(alive, dtype=y.dtype), torch.ones_like(alive)
        for i in range(1, table.stages):
            now = t + table.c[i] * h
            base = combine(y, h, table.weights[i], fast)
            base = combine(base, h, table.explicit_weights[i], slow)
            guess = predicted(base, tau, fast[i - 1])
            found = self.stages.solve(tau, base, now, guess, alive, self._implicit)
            _, fast[i] = self.stages.finish(tau, base, now, found.value, self._implicit)
            rest = system.residual(found.value, now) - self._implicit(found.value, now)
            slow[i] = -divided(rest, mass)[None]
            residual, solved = torch.maximum(residual, found.residual), solved & found.solved
        new = combine(combine(y, h, table.final, fast), h, table.final, slow)
        error = combine(torch.zeros_like(y), h, table.estimate, fast)
        error = combine(error, h, table.estimate, slow)
        return TimeStep(new, (), error, residual, solved)

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)
