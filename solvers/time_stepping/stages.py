"""The equations of implicit stages, and their solution with a set-up that is kept.

With tau the step times the diagonal entry of the method, every implicit stage is one equation

    G(U) = D U + F(U, t) - r = 0,
    mass u' + F = 0:                D = mass / tau,     r = D base,
    inertia u'' + mass u' + F = 0:  D = inertia / tau^2 + mass / tau,
                                    r = D base + inertia / tau base',

for the second the system (u, u') has its velocity eliminated: twice the unknowns are never solved
for. Newton's method uses one matrix D + J for many stages and steps (Hairer and Wanner 1996, IV.8):
J is taken anew where it no longer contracts, and where J cannot change one linear solve is a stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from sciml.core.differentiate import attach
from sciml.core.discretize.nonlinear import add_diagonal
from sciml.core.errors import InputError, SolveError
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.stencil import Stencil
from sciml.solvers.direct import Direct
from sciml.solvers.fast_poisson import FastPoisson, recognise
from sciml.solvers.iteration import LinearSolver, norm, spread
from sciml.solvers.krylov import CG, GMRES
from sciml.solvers.multigrid import Multigrid

_ITERATIONS = 20
_REFINEMENTS, _ADJOINT = 40, 1e-10
_CONTRACTION = 0.2  # a rate above which Newton's matrix is taken anew
_SMALL = 2000  # unknowns up to which a factorisation is kept


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
    A: Stencil
    solver: LinearSolver
    prepared: Any


class StageSolver:
    """Solves the stages of one system to ``tolerance``; up to ``accepted`` if they stagnate there.

    ``setups`` counts hierarchies and factorisations, ``solves`` linear solves. ``linear``: for a
    splitting, whose implicit part is affine, the stencil that stands in for the Jacobian.
    """

    def __init__(
        self,
        system: NonlinearSystem,
        tolerance: float,
        accepted: float,
        linear: Stencil | None = None,
    ) -> None:
        self.system, self.tolerance, self.accepted = system, tolerance, accepted
        self.fixed = linear is not None or (system.affine and system.steady)
        self.setups = self.solves = 0
        self.note = ""
        self._J = None if linear is None else linear.detach()
        self._matrix: _Matrix | None = None

    def forget(self) -> None:
        """Drop a Jacobian that belongs to states of the past, so that a run can start here."""
        if not self.fixed:
            self._J = self._matrix = None

    def shift(self, tau: float) -> torch.Tensor:
        """D of the stage equation."""
        mass, inertia = self.system.mass, self.system.inertia
        if inertia is None:
            assert mass is not None
            return mass / tau
        return inertia / tau**2 if mass is None else inertia / tau**2 + mass / tau

    def right(self, tau: float, base: torch.Tensor) -> torch.Tensor:
        """r of the stage equation from base (parts, *batch, *shape)."""
        r = self.shift(tau) * base[0]
        return r if self.system.inertia is None else r + self.system.inertia / tau * base[1]

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
        U = found.value
        gap = self.right(tau, base) - self.shift(tau) * U - residual(U, t)
        attached = attach(U, gap, lambda g: self._adjoint(tau, U, t, residual, g))
        return replace(found, value=attached)

    def _adjoint(
        self, tau: float, U: torch.Tensor, t: float, residual: Any, gradient: torch.Tensor
    ) -> torch.Tensor:
        """(D + dF/dU)^-T gradient, by refinement with the transpose of the stage's matrix.

        The matrix may be a Jacobian of states before, or of a scheme without its limiter; the
        products are exact. Raises SolveError where the refinement does not converge.
        """
        with torch.enable_grad():
            pullback = torch.func.vjp(lambda u: residual(u, t), U)[1]
        D = self.shift(tau).detach()
        J = self._J if self.fixed and self._J is not None else self.system.linearise(U, t).detach()
        A = _tagged(add_diagonal(J, D))
        A = A if A.symmetric else A.transpose()
        solver, prepared = _prepare(A)
        x, r = torch.zeros_like(gradient), gradient
        for _ in range(_REFINEMENTS):
            if isinstance(solver, (Direct, FastPoisson)):
                x = x + prepared.apply(r)
            else:
                inner = replace(solver, rtol=1e-4)  # type: ignore[type-var]
                x = x + inner.iterate(A, prepared, r, None, None).x
            r = gradient - D * x - pullback(x)[0]
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
        G = D * U + force - r
        size = norm(G, dimension)
        scale = torch.maximum(self._scale(tau, base, r, force), size)
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        size = torch.where(alive, size / scale, 0.0)
        fresh = self.fixed
        for _ in range(_ITERATIONS):
            if bool((size <= self.tolerance).all()) or not bool(torch.isfinite(size).all()):
                break
            matrix = self._ready(tau, D, U, t)
            going = spread(size > self.tolerance, dimension)
            trial = U - going * self._correction(matrix, G, size)
            G_trial = D * trial + residual(trial, t) - r
            size_trial = torch.where(alive, norm(G_trial, dimension) / scale, 0.0)
            fell = bool((size_trial <= torch.clamp(_CONTRACTION * size, self.tolerance)).all())
            useless = fresh and not fell
            if bool(size_trial.max() <= size.max()):
                U, G, size, fresh = trial, G_trial, size_trial, self.fixed
            if useless:
                break
            if not fell:
                self._J, self._matrix, fresh = None, None, True
        return StageResult(U, size, size <= self.accepted)

    def _scale(
        self, tau: float, base: torch.Tensor, r: torch.Tensor, force: torch.Tensor
    ) -> torch.Tensor:
        """What the residual is small beside: of second order the terms that make the velocity."""
        dimension, inertia = len(self.system.shape), self.system.inertia
        if inertia is None:
            return norm(r, dimension)
        return torch.maximum(norm(inertia / tau * base[1], dimension), norm(force, dimension))

    def _ready(self, tau: float, D: torch.Tensor, U: torch.Tensor, t: float) -> _Matrix:
        if self._J is None:
            self._J = self.system.linearise(U, t).detach()
            self._matrix = None
        if self._matrix is None or self._matrix.tau != tau:
            A = _tagged(add_diagonal(self._J, D))
            solver, prepared = _prepare(A)
            self._matrix = _Matrix(tau, A, solver, prepared)
            self.setups += 1
            self.note = f"stages solved by {_name(solver)}"
        return self._matrix

    def _correction(self, matrix: _Matrix, G: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """(D + J)^-1 G, as far as the tolerance of the stage asks for."""
        self.solves += 1
        if isinstance(matrix.solver, (Direct, FastPoisson)):
            return matrix.prepared.apply(G)
        wanted = float((0.3 * self.tolerance / size.clamp(min=self.tolerance)).min())
        # A nonlinear stage is not solved further than its matrix is right.
        rtol = max(wanted, 1e-12 if self.fixed else 1e-3)
        solver = replace(matrix.solver, rtol=min(rtol, 0.1))  # type: ignore[type-var]
        return solver.iterate(matrix.A, matrix.prepared, G, None, None).x


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


def _prepare(A: Stencil) -> tuple[LinearSolver, Any]:
    solver = _choose(A)
    return solver, solver.setup(A)


def _choose(A: Stencil) -> LinearSolver:
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
