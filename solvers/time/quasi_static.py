"""Loads that change slowly, on a body that remembers them: an equilibrium after every step.

    F(u_new, t + h; h_old) = 0,        h_new = advance(u_new; h_old),

with h what the body remembers, as plastic strains; the time only orders the loads. Newton's method
begins where the load that is new would take the body if it were elastic, and F is small beside the
largest forces so far. Where it finds no equilibrium the step is halved, and so it is where taking
the way of the strains in two pieces instead of one shows that it is too long: the return to the
yield surface is backward Euler, exact along a straight way of the stress, of first order else, and
twice the difference, beside the strains themselves, estimates its error. What happens between the
ends of a step is not seen but in the loads: these are looked at within it, and where they leave the
straight way from the old ones to the new it is halved too; at which pace they go is all one. What
the body remembers is taken on once its step is done, so that a run goes on from any frame, bit for
bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch

from sciml.core.algebra.nonlinear import History, Moment, NonlinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.run.status import Status
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct, quickest, small
from sciml.solvers.linear.iteration import LinearSolver, norm
from sciml.solvers.linear.krylov import GMRES
from sciml.solvers.nonlinear.descent import Course, at, differentiable
from sciml.solvers.nonlinear.newton import Newton
from sciml.solvers.time.march import Integrator, Memory, Scheme, TimeStep, check_time_options

_HALVINGS = 10  # of a step that is too long
_GIVEN_UP = 5  # the same of one without an equilibrium
_ITERATIONS = 20  # of Newton's method: one that takes more seldom arrives
_LOOKS, _FEWER = 16, 4  # at the loads within a step, and within its parts
_COLLAPSED = 1.0  # a strain that is no small one
_GOLDEN = 0.5 * (5**0.5 - 1)  # whose multiples lie evenly, and where no period does


@dataclass(frozen=True)
class QuasiStatic(Integrator):
    """Load steps for a body that remembers, each an equilibrium by Newton's method.

    ``rtol``: the estimated error of a step's strains, relative to these, and how far the loads may
    leave a straight way within it, relative to the largest so far. ``step``: the longest step, by
    default from frame to frame; steps are halved where they must be.
    ``equilibrium``: what is left of the forces, relative to the largest so far.
    """

    kind: Literal["quasi_static"] = "quasi_static"
    rtol: float = 1e-3
    atol: float | None = None
    step: float | None = None
    equilibrium: float = 1e-9
    remembers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if not 1e-13 <= self.equilibrium < 1:
            raise InputError(
                f"quasi_static: equilibrium lies between 1e-13 and 1; got {self.equilibrium:g}",
                "solver.equilibrium",
            )

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system."""
        return LoadSteps(system, self, start)


@dataclass(frozen=True)
class _Way:
    """What a way led to: u, h, the largest forces so far, relative error, residual, success."""

    u: torch.Tensor
    h: torch.Tensor
    size: torch.Tensor
    error: torch.Tensor
    residual: torch.Tensor
    solved: torch.Tensor


class LoadSteps(Scheme):
    """Steps from equilibrium to equilibrium; the memory is the largest forces so far."""

    name, exponent, fixed_step, failed = "load steps", 2, torch.inf, Status.NO_EQUILIBRIUM

    def __init__(self, system: NonlinearSystem, options: QuasiStatic, start: float) -> None:
        assert system.history is not None
        self.history: History = system.history
        self.options, self.start = options, start
        self.solves = self.iterations = self.halved = 0
        self.reached: float | None = None
        self._elastic: tuple[LinearSolver, PatternMatrix, Any] | None = None

    def settled(self, y: torch.Tensor, t: float) -> torch.Tensor:
        """The equilibrium under the loads at the start; raises InputError where there is none."""
        u, h = self.history.parted(y[0])
        size = self.history.forces(u, Moment(t, h)).expand(u.shape[:-1])
        alive = torch.ones_like(size, dtype=torch.bool)
        found = self._step(_Way(u, h, size, size, size, alive), None, t)
        if not bool(found.solved.all()):
            raise InputError(
                f"there is no equilibrium under the loads at the start, t = {t:g}: let them grow "
                "with t",
                "problem.time.start",
            )
        return self.history.joined(found.u, found.h)[None]

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """The forces."""
        u, h = self.history.parted(y[0])
        with torch.no_grad():
            return (self.history.forces(u, Moment(t, h)).expand(u.shape[:-1]).clone(),)

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """One step, in as many parts as it takes."""
        u, remembered = self.history.parted(y[0])
        none = torch.zeros_like(memory[0])
        begun = _Way(u, remembered, memory[0], none, none, alive)
        found = self._across(begun, t, h, _HALVINGS)
        # A share of the strains is the same share of the displacements that they are the slopes of.
        share = found.error[..., None] * found.u.detach()
        error = self.history.joined(share, torch.zeros_like(found.h))
        new = self.history.joined(found.u, found.h)
        return TimeStep(new[None], (found.size,), error[None], found.residual, found.solved)

    def remark(self) -> str:
        """Solves and steps of Newton's method."""
        told = f"{self.solves} equilibria, {self.iterations} steps of newton"
        told += f", {self.halved} steps halved" if self.halved else ""
        if self.reached is not None:
            told += f"; no equilibrium was found beyond t = {self.reached:.6g}"
        return told

    def _across(self, here: _Way, t: float, h: float, halvings: int) -> _Way:
        """The way from t to t + h; samples of ``here`` that are not solved are left as they are."""
        bend, rtol = self._bend(here, t, h, halvings), self.options.rtol
        if not halvings or bool(((bend <= rtol) | ~here.solved).all()):
            found = self._step(here, t, t + h)
            found = replace(found, error=torch.maximum(found.error, bend))
            good = found.solved & (found.error <= rtol)
            lost = here.solved & ~found.solved
            hopeless = bool(lost.any()) and halvings <= _HALVINGS - _GIVEN_UP
            if not halvings or hopeless or bool((good | ~here.solved).all()):
                if self.reached is None and bool(lost.any()):
                    self.reached = t
                return self._after(here, found)
        self.halved += 1
        first = self._across(here, t, h / 2, halvings - 1)
        if not bool(first.solved.any()):
            return first
        return self._across(first, t + h / 2, h / 2, halvings - 1)

    @torch.no_grad()
    def _bend(self, here: _Way, t: float, h: float, halvings: int) -> torch.Tensor:
        """How far the loads within a step are from the straight way, beside the largest forces."""
        rest = torch.zeros_like(here.u.detach())
        start = self.history.plain.residual(rest, float(t))
        way = self.history.plain.residual(rest, float(t + h)) - start
        length = way.square().sum(-1)
        size = torch.maximum(here.size, torch.maximum(norm(start, 1), norm(start + way, 1)))
        worst = torch.zeros_like(size)
        for k in range(_LOOKS if halvings == _HALVINGS else _FEWER):
            within = self.history.plain.residual(rest, t + h * ((k + 1) * _GOLDEN % 1))
            off = within - start
            share = (off * way).sum(-1) / torch.where(length > 0, length, 1.0)
            gap = norm(off - share.clamp(0, 1)[..., None] * way, 1)
            worst, size = torch.maximum(worst, gap), torch.maximum(size, norm(within, 1))
        return worst / torch.where(size > 0, size, 1.0)

    def _after(self, here: _Way, found: _Way) -> _Way:
        return replace(
            found,
            error=torch.maximum(here.error, found.error),
            residual=torch.maximum(here.residual, found.residual),
            solved=here.solved & found.solved,
        )

    def _step(self, here: _Way, t: float | None, to: float) -> _Way:
        """The equilibrium at a time from that at t, or from no loads at all."""
        history, plain, now = self.history, self.history.plain, Moment(to, here.h)
        at_once = to if t is None else t

        def linearise(u: torch.Tensor, _: float) -> PatternMatrix:
            J = plain.linearise(u, now)
            assert isinstance(J, PatternMatrix)
            return J

        with torch.no_grad():
            guess = here.u + self._elastically(here.u, t, to)
            # Not beside the forces of any iterate: beyond a limit load these grow with it.
            size = torch.maximum(here.size, history.forces(guess, now))
        system = replace(
            plain,
            residual=lambda u, _: plain.residual(u, now),
            linearise=linearise,
            diffusion=linearise,
            scale=lambda u, _: size,
        )
        with torch.no_grad():
            u, course = self._equilibrium(system, guess)
        if torch.is_grad_enabled():
            u = differentiable(system, u, at(system, u))
        new = history.advance(here.u, at_once, u, to, here.h, 1)
        with torch.no_grad():
            finer = history.advance(here.u, at_once, u, to, here.h, 2)
            before, after = history.strain(here.u, at_once), history.strain(u, to)
            strain = torch.maximum(norm(before, 3), norm(after, 3))
            gap = norm(2 * (finer - new), 3)
            error = gap / torch.where(strain > 0, strain, torch.ones_like(strain))
            good = [status.success for status in course.statuses]
            solved = torch.tensor(good).reshape(course.relative.shape)
            # Elements too stiff to flow freely find an equilibrium beyond a limit load, far off.
            solved &= after.abs().amax((-3, -2, -1)) < _COLLAPSED
            reached = torch.maximum(here.size, history.forces(u, now))
            size = torch.where(solved, reached, here.size)
        return _Way(u, new, size, error, course.relative, solved)

    def _equilibrium(
        self, system: NonlinearSystem, guess: torch.Tensor
    ) -> tuple[torch.Tensor, Course]:
        newton = Newton(rtol=self.options.equilibrium, max_iterations=_ITERATIONS)
        course, _ = newton.iterate(system, guess, None)
        self.solves += 1
        self.iterations += int(course.iterations.max())
        return course.u, course

    def _elastically(self, u: torch.Tensor, t: float | None, to: float) -> torch.Tensor:
        """What loads from t to another time, or all of these, would add to an elastic body."""
        plain = self.history.plain
        load = plain.residual(u, float(to))
        load = load - plain.residual(u, float(t)) if t is not None else load
        if self._elastic is None:
            A = plain.linearise(torch.zeros_like(u), self.start).detach()
            assert isinstance(A, PatternMatrix)
            solver: LinearSolver = GMRES(preconditioner=AMG(), rtol=1e-3)
            solver = Direct() if small(A) or quickest(A) else solver
            self._elastic = solver, A, solver.setup(A)
        solver, A, prepared = self._elastic
        return -solver.iterate(A, prepared, load, None, None).x
