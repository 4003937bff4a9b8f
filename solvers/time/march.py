"""A system of ODEs marched from frame to frame, and the face that every integrator shows.

The system is one of first order, y = (u) or y = (u, u'):

    mass u' + F(u, t) = 0:                  u' = -F / mass
    inertia u'' + mass u' + F(u, t) = 0:    u' = v,  v' = -(F + mass v) / inertia

A state y is one tensor (parts, *batch, *shape) of one or two parts. A method gives one step with an
estimate of its error (:class:`Scheme`). It is accepted where for every sample and part of the state

    q = ||error||_rms / (atol + rtol scale) <= 1,      scale = max(||y||_rms, ||y_new||_rms)

(of a second-order equation the largest norms so far, since displacement and velocity vanish in
turn). Unless it is given, atol is a billionth of the largest norm so far, or rtol times it where
that is less, so that a problem in other units takes the same steps. The next one is
h 0.9 q^(-0.7/p) q_before^(0.4/p) (Gustafsson 1991), p the exponent of the estimate, or
h 0.9 q^(-1/p), if that is another step worth a set-up. Every frame is hit exactly: what is left of
an interval is cut into equal steps. So are the instants at which data begin or cease to change
(:mod:`sciml.discretization.instants`); where they jump, a step ends just before and the method
begins anew just after.

A batch goes in lockstep, with one step for all. A sample that blows up, or that asks for ever
smaller steps, is dropped: NaN from there on, while the others go on.

The march itself keeps no graph, and its choice of steps is not differentiated. For a gradient its
steps are taken again, frame by frame, each interval under a checkpoint: the backward pass keeps one
state per frame and recomputes the steps between two of them (Griewank and Walther 2000). For an
equation given by an energy all steps are kept. Implicit stages are differentiated by the implicit
function theorem.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from pathlib import Path
from typing import ClassVar

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch.utils.checkpoint import checkpoint

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import Inertia, NonlinearSystem, times
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.table import looked_up_outside
from sciml.core.run.differentiate import attach
from sciml.core.run.frames import Frames, Lineage, fingerprint, lineage_of
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Observe, Progress
from sciml.core.run.status import Status
from sciml.discretization import semidiscretize
from sciml.discretization.instants import Instants, instants
from sciml.solvers.linear.direct import Direct, small
from sciml.solvers.linear.iteration import LinearSolver, check_options, norm, spread
from sciml.solvers.linear.krylov import CG, GMRES
from sciml.solvers.linear.relaxation import Jacobi


def check_masses(system: NonlinearSystem) -> None:
    """Raise InputError unless there is a time derivative at every unknown."""
    leading, name = (system.mass, "d") if system.inertia is None else (system.inertia, "m")
    if isinstance(leading, LinearMap) or system.history is not None:
        return
    if leading is None:
        raise InputError(
            "the equation has no time derivative: give d (before u_t) or m (before u_tt)",
            "problem.equation",
        )
    if not bool((leading > 0).all()):
        raise InputError(
            f"{name} must be positive everywhere; it is {float(leading.min()):.3g} somewhere",
            f"problem.equation.{name}",
        )


def first_state(system: NonlinearSystem) -> torch.Tensor:
    """y at the start, with the whole batch leading."""
    parts = system.first if system.inertia is not None else system.first[:1]
    batch = torch.broadcast_shapes(
        system.batch, *(p.shape[: p.ndim - len(system.shape)] for p in parts)
    )
    return torch.stack([p.to(torch.float64).expand(*batch, *system.shape) for p in parts])


def rate(system: NonlinearSystem, y: torch.Tensor, t: float) -> torch.Tensor:
    """y' at time t."""
    force = _force(system, y[0], t)
    if system.groups is not None and bool((system.groups < 0).any()):
        return _constrained(system, y[0], t, force)[None]
    if system.storage is not None:
        return -divided(force, system.storage.matrix(y[0], t))[None]
    if system.inertia is None:
        assert system.mass is not None
        return -divided(force, system.mass)[None]
    if system.mass is not None:
        force = force + times(system.mass, y[1])
    return torch.stack([y[1], -divided(force, system.inertia)])


def _force(system: NonlinearSystem, u: torch.Tensor, t: float) -> torch.Tensor:
    """F, with what given values that move add to what is stored."""
    force = system.residual(u, t)
    if system.storage is None:
        return force
    return force + system.storage.apply(u, torch.zeros_like(u), t)


_AHEAD = 1e-7  # of the time, over which a constraint is seen to move


def _constrained(
    system: NonlinearSystem, u: torch.Tensor, t: float, force: torch.Tensor
) -> torch.Tensor:
    """u' where some unknowns have no rate of their own; zero for these.

    Of M u' + F(u, p) = 0 and 0 = G(u, t), which does not name p, it is that of M k + F_p q = -F and
    G_u k = -G_t (Hairer and Wanner 1996, VII.1). What else has no rate follows from u.
    """
    step = _AHEAD * max(abs(t), 1.0)
    ahead = (_force(system, u, t + step) - force) / step
    found = torch.zeros(torch.broadcast_shapes(u.shape, force.shape), dtype=torch.float64)
    for sample in _samples(system, u, t, (force, ahead)):
        moving = sample.moving
        k = sample.projected(-sample.values[0], -sample.values[1])[: len(moving)]
        found.reshape(-1, found.shape[-1])[sample.number, moving] = torch.from_numpy(k)
    return found


@torch.no_grad()
def consistent(system: NonlinearSystem, t: float) -> NonlinearSystem:
    """The system, beginning with what follows from u for the unknowns that have no rate.

    Of u itself the nearest that keeps the constraints, as a velocity without divergence: of another
    an implicit step would make it in no time, and an error that does not shrink with the step. What
    its own equation gives, as a chemical potential's, by Newton's method; what keeps a
    constraint, as a pressure does, from the rate that keeps it.
    """
    if system.groups is None or system.inertia is not None or bool((system.groups >= 0).all()):
        return system
    u = first_state(system)[0].clone()
    flat = u.reshape(-1, u.shape[-1])
    for _ in range(_CONSISTENT):
        moved = 0.0
        for sample in _samples(system, u, t, (system.residual(u, t),)):
            own = sample.given
            if len(own):
                change = sample.solved(own, -sample.values[0])
                flat[sample.number, own] += torch.from_numpy(change)
                moved = max(moved, float(np.abs(change).max()))
        if moved <= 1e-12 * float(flat.abs().max()):
            break
    for sample in _samples(system, u, t, (system.residual(u, t),)):
        if len(sample.constraints):
            m = sample.moving
            k = sample.projected(np.zeros(u.shape[-1]), -sample.values[0])[: len(m)]
            flat[sample.number, m] += torch.from_numpy(k)
    step = _AHEAD * max(abs(t), 1.0)
    force = _force(system, u, t)
    ahead = (_force(system, u, t + step) - force) / step
    for sample in _samples(system, u, t, (force, ahead)):
        held = sample.constraints
        if len(held):
            q = sample.projected(-sample.values[0], -sample.values[1])[len(sample.moving) :]
            flat[sample.number, held] += torch.from_numpy(q)
    if not bool(torch.isfinite(flat).all()):
        return system
    return replace(system, first=(u, *system.first[1:]))


_CONSISTENT = 20  # steps of Newton's method at the start


@dataclass(frozen=True)
class _Sample:
    """One sample's matrices at a state: dF/du, M, and vectors (n,).

    ``moving``: the unknowns with a rate; ``given``: those that their own equation gives;
    ``constraints``: those whose equation does not name them, nor the others of their kind.
    """

    number: int
    A: scipy.sparse.csr_matrix
    M: scipy.sparse.csr_matrix
    values: tuple[np.ndarray, ...]
    moving: np.ndarray
    given: np.ndarray
    constraints: np.ndarray

    def solved(self, rows: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Of these rows alone."""
        found: np.ndarray = scipy.sparse.linalg.spsolve(self.A[rows][:, rows].tocsc(), right[rows])
        return np.atleast_1d(found)

    def projected(self, force: np.ndarray, constraint: np.ndarray) -> np.ndarray:
        """(k, q) of M k + F_p q = force and G_u k = constraint."""
        m, h = self.moving, self.constraints
        mass, zero = self.M[m][:, m], scipy.sparse.csr_matrix((len(h), len(h)))
        whole = scipy.sparse.bmat([[mass, self.A[m][:, h]], [self.A[h][:, m], zero]])
        right = np.concatenate([force[m], constraint[h]])
        found: np.ndarray = scipy.sparse.linalg.spsolve(whole.tocsc(), right)
        return found


def _samples(
    system: NonlinearSystem, u: torch.Tensor, t: float, vectors: tuple[torch.Tensor, ...]
) -> Iterator[_Sample]:
    J, M = system.linearise(u, t).detach(), system.mass
    if system.storage is not None:
        M = system.storage.matrix(u, t)
    assert isinstance(J, PatternMatrix) and isinstance(M, PatternMatrix)
    assert system.groups is not None
    n, matrices, masses = u.shape[-1], J.matrices(), M.detach().matrices()
    still = np.flatnonzero((system.groups < 0).numpy())
    moving = np.flatnonzero((system.groups >= 0).numpy())
    rows = [v.detach().expand(u.shape).reshape(-1, n).numpy() for v in vectors]
    for number in range(rows[0].shape[0]):
        A, own = matrices[number % len(matrices)], masses[number % len(masses)]
        named = np.asarray(abs(A[still][:, still]).sum(axis=1)).ravel() > 0
        given, held = still[named], still[~named]
        yield _Sample(number, A, own, tuple(r[number] for r in rows), moving, given, held)


def divided(force: torch.Tensor, mass: Inertia) -> torch.Tensor:
    """``mass^-1 force``, differentiable; of a matrix to rounding."""
    if isinstance(mass, torch.Tensor):
        return force / mass
    plain = mass.detach() if isinstance(mass, PatternMatrix) else mass

    def inverse(A: LinearMap, right: torch.Tensor) -> torch.Tensor:
        krylov = CG(Jacobi(), rtol=_MASS) if A.symmetric else GMRES(Jacobi(), rtol=_MASS)
        solver: LinearSolver = Direct() if small(A) else krylov
        return solver.iterate(A, solver.setup(A), right, None, None).x

    with torch.no_grad():
        found = inverse(plain, force)
    if not torch.is_grad_enabled():
        return found
    turned = plain if plain.symmetric else plain.transpose()
    return attach(found, lambda x: force - times(mass, x), lambda g: inverse(turned, g))


# The rates k of a step: one tensor whose rows are filled, or a list where a graph is kept of them.
Rates = torch.Tensor | list[torch.Tensor]


def blank_rates(y: torch.Tensor, stages: int) -> Rates:
    """Room for the rates of a step, to be filled by index."""
    if torch.is_grad_enabled():
        return [y] * stages
    return y.new_empty(stages, *y.shape)


def combine(y: torch.Tensor, h: float, weights: torch.Tensor, rates: Rates) -> torch.Tensor:
    """y + h sum_j w_j k_j."""
    if not len(weights):
        return y
    known = rates[: len(weights)]
    stacked = torch.stack(known) if isinstance(known, list) else known
    return torch.add(y, torch.tensordot(weights, stacked, 1), alpha=h)


Memory = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class TimeStep:
    """One step taken on trial.

    ``y``: the new state (parts, *batch, *shape). ``memory``: what the next step wants to know of
    this one. ``error``: the estimated local error, shaped as y. ``residual``: the largest residual
    of the implicit stages, shape batch. ``solved``: whether all stages were, shape batch.
    """

    y: torch.Tensor
    memory: Memory
    error: torch.Tensor
    residual: torch.Tensor
    solved: torch.Tensor


class Scheme(ABC):
    """A method set up for one system; a leaf gives ``begin`` and ``advance``.

    ``exponent``: the error estimate is O(h^exponent). ``growth``: the largest factor from one step
    to the next. ``frugal``: a change of the step costs a set-up, so small ones are not made.
    ``fixed_step``: the step of a method that has no other, unless the user gives one.
    ``explicit``: steps may be longer than is stable, where the solution does not show it.
    ``failed``: the status of a sample whose fixed step is not solved.
    """

    name: str
    exponent: int
    growth: float = 5.0
    frugal: bool = False
    explicit: bool = False
    fixed_step: float | None = None
    failed: Status = Status.STAGNATED

    def settled(self, y: torch.Tensor, t: float) -> torch.Tensor:
        """The state at the start, where something of it follows from the loads there."""
        return y

    @abstractmethod
    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """The memory before the first step; its shapes never change afterwards."""

    @abstractmethod
    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """The step from t to t + h; only the samples that are ``alive`` matter."""

    def forget(self) -> None:
        """Keep nothing that does not follow from state and memory: a run may be taken up here."""
        return None

    def remark(self) -> str:
        """What the steps were made with, as part of a note."""
        return ""


_TINY = 1e-13  # relative to the time passed: steps that rounding swallows
_GROWN = 1e6  # how far a solution has grown that is said to have blown up
_STATUSES = tuple(Status)
_ALIVE = -1


_MASS = 1e-13  # relative residual to which a mass matrix is inverted
_SIDE = 1e-14  # how far from a jump, relative to the time passed, the steps beside it end
_FINEST = 1e-13  # the least local error that rounding leaves to be estimated
_ATOL = 1e-9  # of the largest norm so far, and no more than rtol: what was asked is met beside it
_FROM_REST = 1e-3  # of the whole time, in the place of a size over a rate
_SQUARED = 1e-140  # a norm whose square is near the end of the range of numbers
_NOTHING = 1e-300  # so that no error beside no allowance is no error
_DISTURBANCE = 1e-12  # of the largest norm, to see whether steps are stable
_AMPLIFIED = 1e8  # by which rounding would show in a gradient
_MOST_STEPS = 1e8  # a fixed step that asks for more would not end
_ENDLESS, _SETTLED = 1e9, 1000  # so many steps ahead after so many taken: nor would this


@dataclass(frozen=True)
class Tolerances:
    """The local error allowed per step; ``step`` is the fixed one, or None.

    ``atol``: None for a share of the solution's largest norm.
    """

    rtol: float
    atol: float | None
    step: float | None

    def allowed(self, size: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        """atol + rtol ``size``, of the shape of both."""
        atol = min(_ATOL, self.rtol) * largest if self.atol is None else self.atol
        return atol + self.rtol * size


@dataclass
class Position:
    """Where a run stands; with the system it decides everything that follows.

    ``y``, ``memory``: see :class:`TimeStep`. ``scale``, ``largest``: (parts groups, *batch), the
    norms that errors are relative to, and the largest so far. ``worst``: (2, *batch), the largest
    relative error and stage residual so far. ``codes``: index of the status that ended
    a sample, or -1. ``steps``: (*batch) accepted ones. ``clock``: the step wished for, the last q.
    """

    y: torch.Tensor
    scale: torch.Tensor
    largest: torch.Tensor
    worst: torch.Tensor
    codes: torch.Tensor
    steps: torch.Tensor
    clock: torch.Tensor
    memory: Memory

    @property
    def alive(self) -> torch.Tensor:
        """Mask of the samples that still run, shape batch."""
        return self.codes == _ALIVE

    def over_fields(self) -> Position:
        """The same with the last batch dimension, that of the fields, taken together."""
        return replace(
            self, worst=self.worst.amax(-1), codes=self.codes[..., 0], steps=self.steps[..., 0]
        )

    def statuses(self, rtol: float) -> tuple[Status, ...]:
        """One status per sample, in row-major order."""
        accurate = (self.worst.amax(0) <= 1.01 * rtol).flatten().tolist()
        ended = self.codes.flatten().tolist()
        return tuple(
            _STATUSES[code]
            if code != _ALIVE
            else (Status.CONVERGED if fine else Status.INACCURATE_IN_TIME)
            for code, fine in zip(ended, accurate, strict=True)
        )


@dataclass
class Journal:
    """What this process did: accepted and rejected steps, their sizes, errors, where it ended.

    ``marks``: how many steps had been accepted at each frame after the first. ``jumps``: the same
    where the method began anew, and at what time.
    """

    sizes: list[float]
    errors: list[torch.Tensor]
    marks: list[int] = field(default_factory=list)
    jumps: list[tuple[int, float]] = field(default_factory=list)
    rejected: int = 0
    stopped: float | None = None


class March:
    """One run of a scheme over the frames of a system."""

    def __init__(
        self,
        scheme: Scheme,
        system: NonlinearSystem,
        frames: Frames,
        tolerances: Tolerances,
        progress: Progress | None,
        instants: Instants,
        observe: Observe | None = None,
    ) -> None:
        self.scheme, self.system, self.frames = scheme, system, frames
        self.instants, self.observe = instants, observe
        self.tolerances, self.progress = tolerances, progress
        self.first = first_state(system)
        self.dimension = len(system.shape)
        # A field is judged by itself: another may be larger by its unit alone.
        self.groups: list[torch.Tensor | None] = [None]
        if system.groups is not None:
            numbers = sorted(n for n in system.groups.unique().tolist() if n >= 0)
            self.groups = [torch.nonzero(system.groups == n)[:, 0] for n in numbers]
        self.journal = Journal([], [])
        self.position = self._start()

    def _start(self) -> Position:
        if self.frames.count:
            return self._restored(self.frames.states[-1])
        t = self.frames.times[0]
        y = self.first = self.scheme.settled(self.first, t)
        scale = self._rms(y)
        batch = scale.shape[1:]
        position = Position(
            y,
            scale,
            scale,
            torch.zeros(2, *batch, dtype=y.dtype),
            torch.full(batch, _ALIVE),
            torch.zeros(batch, dtype=torch.int64),
            torch.tensor([0.0, 1.0], dtype=torch.float64),
            self.scheme.begin(y, t),
        )
        position.clock[0] = self._first_step(y, t, position.alive)
        self.frames.append(*self._record(position))
        return position

    def _record(self, p: Position) -> tuple[torch.Tensor, ...]:
        u = torch.where(spread(p.alive, self.dimension), p.y[0], torch.nan)
        return u, *p.y[1:], p.scale, p.largest, p.worst, p.codes, p.steps, p.clock, *p.memory

    def _restored(self, state: tuple[torch.Tensor, ...]) -> Position:
        parts = len(self.first)
        y = torch.stack(state[:parts])
        scale, largest, worst, codes, steps, clock = state[parts : parts + 6]
        alive = spread(codes == _ALIVE, self.dimension)
        y, memory = torch.where(alive, y, self.first), state[parts + 6 :]
        return Position(y, scale, largest, worst, codes, steps, clock, memory)

    def _rms(self, y: torch.Tensor) -> torch.Tensor:
        """Root mean squares over the unknowns of each group, (parts groups, *batch)."""
        flat = y.flatten(-self.dimension)
        rows = [self._rms_of(flat if g is None else flat[..., g]) for g in self.groups]
        return torch.stack(rows, 1).flatten(0, 1)

    def _rms_of(self, flat: torch.Tensor) -> torch.Tensor:
        root: float = flat.shape[-1] ** 0.5
        found = norm(flat, 1) / root
        if bool(((found < _SQUARED) | (found > 1 / _SQUARED)).any()):
            # Squares leave the range of numbers: what is small would seem to be at rest.
            unit = flat.abs().amax(-1, keepdim=True)
            unit = torch.where((unit > 0) & torch.isfinite(unit), unit, 1.0)
            found = norm(flat / unit, 1) * unit[..., 0] / root
        return found

    def _first_step(self, y: torch.Tensor, t: float, alive: torch.Tensor) -> float:
        """A step over which the solution changes by about the p-th root of the tolerance."""
        if self.tolerances.step is not None:
            return self.tolerances.step
        span = self.frames.times[-1] - self.frames.times[0]
        slope = self._rms(rate(self.system, y, t))
        # Of the position alone: the velocity may start from zero.
        allowed = (self.tolerances.atol or 0.0) + self._rms(y)
        share = torch.where(alive & (slope > 0), allowed / slope, span)[: len(self.groups)]
        # From rest there is no size that a change could be a part of.
        share = torch.where(share > 0, share, _FROM_REST * span)
        share = torch.where(torch.isfinite(share), share, span)
        part: float = 0.1 * self.tolerances.rtol ** (1 / self.scheme.exponent)
        return min(max(part * float(share.min()), 1e-8 * span), span)

    def run(self) -> Position:
        """March until the last frame, or until no sample is left."""
        times = self.frames.times
        mean = (times[-1] - times[0]) / (len(times) - 1)
        self._show(times[self.frames.count - 1])
        while not self.frames.complete and bool(self.position.alive.any()):
            self.scheme.forget()
            start, end = times[self.frames.count - 1], times[self.frames.count]
            # Between frames that lie evenly the same number to the last bit, and so the same
            # step, which keeps its set-up.
            interval = mean if abs(end - start - mean) < 1e-9 * mean else end - start
            if self._pass(start, end, interval):
                self.journal.marks.append(len(self.journal.sizes))
                self.frames.append(*self._record(self.position))
            else:
                break
        return self.position

    def _pass(self, start: float, end: float, interval: float) -> bool:
        """From frame to frame, by the instants between; False where no sample is left."""
        side = _SIDE * max(abs(start), abs(end), self.frames.times[-1] - self.frames.times[0])
        jumps = {t for t in self.instants.breaks if start - side <= t <= end + side}
        stops = {t for t in self.instants.edges if start + side < t < end - side}
        if not (jumps or stops):
            return self._reach(end, interval)
        now = start
        for stop in (*sorted(t for t in jumps | stops if start + side < t < end - side), end):
            if any(abs(now - t) <= side for t in jumps):
                now += side
                self._anew(now)
            ahead = stop - side if any(abs(stop - t) <= side for t in jumps) else stop
            if not self._reach(ahead, ahead - now):
                return False
            now = stop
        return True

    def _anew(self, t: float) -> None:
        """Begin after a jump: nothing that was known of the time before goes on."""
        p = self.position
        p.memory = self.scheme.begin(p.y, t)
        if self.tolerances.step is None:
            first = min(float(p.clock[0]), self._first_step(p.y, t, p.alive))
            p.clock.copy_(torch.tensor([first, 1.0]))
        self.journal.jumps.append((len(self.journal.sizes), t))

    def _reach(self, end: float, interval: float) -> bool:
        """Advance to ``end``; False where no sample is left."""
        p = self.position
        left = _pieces(interval, float(p.clock[0]))
        h, calm = interval / left, True
        while left:
            t, alive = end - left * h, p.alive
            attempt = self.scheme.advance(p.y, p.memory, t, h, alive)
            q = self._quotient(attempt, p, h)
            worst = float(q.max())
            if self.tolerances.step is not None:
                self._drop_failed(attempt, t)
            elif worst > 1:
                left, h = self._retry(t, h, left, worst)
                calm = False
                if not bool(p.alive.any()):
                    return False
                continue
            if not bool(p.alive.any()):
                self.journal.stopped = t
                return False
            self._accept(attempt, q, h)
            left -= 1
            if self.tolerances.step is None:
                remaining, factor = left * h, self._factor(worst, calm)
                p.clock.copy_(torch.tensor([h * factor, max(worst, 1e-4)]))
                if factor != 1 and left:
                    left = _pieces(remaining, h * factor)
                    h = remaining / left
                calm = True
            if self.progress is not None:
                self.progress(int(p.steps.max()), end - left * h)
            self._show(end - left * h)
        return True

    def _show(self, t: float) -> None:
        if self.observe is not None:
            y = self.position.y[0]
            self.observe(self.system.moment(y, t), lambda: self.system.lift(y, t))

    def _quotient(self, attempt: TimeStep, p: Position, h: float) -> torch.Tensor:
        """q per sample; infinite where the step failed, zero for samples already dropped."""
        size = self._rms(attempt.y)
        scale, largest = torch.maximum(p.scale, size), torch.maximum(p.largest, size)
        # What was at rest is as large as it would be if it went on like this to the end.
        span = self.frames.times[-1] - self.frames.times[0]
        largest = torch.where(p.largest > 0, largest, largest * (span / h))
        allowed = self.tolerances.allowed(scale, largest).clamp_min(_NOTHING)
        q = (self._rms(attempt.error) / allowed).amax(0)
        fine = torch.isfinite(q) & torch.isfinite(size).all(0) & attempt.solved
        return torch.where(p.alive, torch.where(fine, q, torch.inf), 0.0)

    def _factor(self, q: float, calm: bool) -> float:
        power, frugal = 1 / self.scheme.exponent, self.scheme.frugal
        q, before = max(q, 1e-10), float(self.position.clock[1])
        # Between rare changes of the step there is no slope of q to be damped.
        wanted = q**-power if frugal else q ** (-0.7 * power) * before ** (0.4 * power)
        factor = min(max(0.9 * wanted, 0.2), self.scheme.growth if calm else 1.0)
        return 1.0 if frugal and 0.9 <= factor < 1.25 else factor

    def _retry(self, t: float, h: float, left: int, q: float) -> tuple[int, float]:
        """How many steps of which size to try instead; drops who asks for too small ones."""
        self.journal.rejected += 1
        p, remaining = self.position, left * h
        power = 1 / self.scheme.exponent
        smaller = h * (max(0.9 * q**-power, 0.1) if q < torch.inf else 0.25)
        span = self.frames.times[-1] - self.frames.times[0]
        ahead = (self.frames.times[-1] - t) / smaller
        endless = ahead > _ENDLESS and len(self.journal.sizes) > _SETTLED
        if smaller < _TINY * max(abs(t), span) or endless:
            attempt = self.scheme.advance(p.y, p.memory, t, h, p.alive)
            self._drop(self._quotient(attempt, p, h) > 1, Status.STEP_TOO_SMALL, t)
            smaller = self._first_step(p.y, t, p.alive)
        left = _pieces(remaining, smaller)
        return left, remaining / left

    def _accept(self, attempt: TimeStep, q: torch.Tensor, h: float) -> None:
        p, alive = self.position, self.position.alive
        p.y = torch.where(spread(alive, self.dimension), attempt.y, self.first)
        p.memory = attempt.memory
        size = self._rms(attempt.y)
        # Of first order what has decayed is judged by its present size.
        p.scale = torch.maximum(p.scale, size) if len(p.y) > 1 else size
        p.largest = torch.maximum(p.largest, size)
        error = torch.where(alive, q * self.tolerances.rtol, p.worst[0])
        residual = torch.where(alive, attempt.residual, p.worst[1])
        p.worst = torch.maximum(p.worst, torch.stack([error, residual]))
        p.steps = p.steps + alive
        self.journal.sizes.append(h)
        self.journal.errors.append(error)

    def _drop_failed(self, attempt: TimeStep, t: float) -> None:
        """With a fixed step: end the samples whose step cannot be taken."""
        finite = torch.isfinite(self._rms(attempt.y)).all(0)
        self._drop(~finite, Status.BLOWN_UP, t)
        self._drop(~attempt.solved, self.scheme.failed, t)

    def _drop(self, where: torch.Tensor, status: Status, t: float) -> None:
        p = self.position
        where = where & p.alive
        if self.system.by_field:
            where = where.any(-1, keepdim=True).expand_as(where)
        if not bool(where.any()):
            return
        start = self._rms(self.first)[: len(self.groups)]
        grown = self._rms(p.y)[: len(self.groups)] > _GROWN * torch.where(start > 0, start, 1.0)
        grown = grown.any(0)
        blown = status is Status.BLOWN_UP
        code = torch.where(grown | blown, _STATUSES.index(Status.BLOWN_UP), _STATUSES.index(status))
        p.codes = torch.where(where, code, p.codes)
        p.y = torch.where(spread(p.alive, self.dimension), p.y, self.first)
        p.memory = self.scheme.begin(p.y, t)
        self.journal.stopped = t


def _pieces(length: float, step: float) -> int:
    """Into how many equal steps, none longer than ``step``, a length is cut."""
    return max(1, ceil(length / step - 1e-9))


def wants_gradient(system: NonlinearSystem, start: float) -> bool:
    """Whether a gradient may be asked for: something in the system has a graph."""
    if not torch.is_grad_enabled():
        return False
    if system.storage is not None:
        return False
    y = first_state(system)
    given = [y, system.residual(y[0], start), system.lift(y[0], start)]
    for mass in (system.mass, system.inertia):
        if isinstance(mass, PatternMatrix):
            given.append(mass.values)
        elif isinstance(mass, torch.Tensor):
            given.append(mass)
    return any(tensor.requires_grad for tensor in given)


def replay(
    scheme: Scheme, system: NonlinearSystem, times: tuple[float, ...], journal: Journal
) -> list[torch.Tensor]:
    """u at every frame, with a graph; the steps are those of ``journal``."""
    y = scheme.settled(first_state(system), times[0])
    memory = scheme.begin(y, times[0])
    states = [y[0]]
    for start, sizes, jumps in _intervals(times, journal):

        def interval(
            y: torch.Tensor,
            *memory: torch.Tensor,
            start: float = start,
            sizes: tuple[float, ...] = sizes,
            jumps: Mapping[int, float] = jumps,
        ) -> tuple[torch.Tensor, ...]:
            return _steps(scheme, y, memory, start, sizes, jumps, len(system.shape))

        if system.potential is None:
            y, *rest = checkpoint(interval, y, *memory, use_reentrant=False)
        else:  # the gradient of an energy cannot be taken under a checkpoint
            y, *rest = interval(y, *memory)
        memory = tuple(rest)
        states.append(y[0])
    return states


def amplification(
    scheme: Scheme, system: NonlinearSystem, frames: Frames, journal: Journal, size: torch.Tensor
) -> float:
    """By how much the steps of ``journal`` enlarge a small disturbance in each of them.

    ``size``: (parts, *batch), what it is small beside. A solution that is smooth by nature lets an
    explicit method take steps that are not stable; its gradient, which is not smooth, does not.
    """
    dimension = len(system.shape)
    y = first_state(system)
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, y.shape, generator=generator).to(y) * 2 - 1
    size = _DISTURBANCE * torch.where(size > 0, size, torch.ones_like(size))
    noise = spread(size, dimension) * signs
    memory, largest = scheme.begin(y, frames.times[0]), 0.0
    intervals = _intervals(frames.times, journal)
    for (start, sizes, jumps), state in zip(intervals, frames.states[1:], strict=True):
        y, *rest = _steps(scheme, y, memory, start, sizes, jumps, dimension, noise)
        memory, known = tuple(rest), torch.isfinite(state[0])
        grown = torch.where(known, (y[0] - state[0]).abs(), 0.0) / noise[0].abs()
        largest = max(largest, float(grown.nan_to_num(nan=torch.inf).max()))
    return largest


def _intervals(
    times: tuple[float, ...], journal: Journal
) -> Iterator[tuple[float, tuple[float, ...], Mapping[int, float]]]:
    """Of every interval between frames its start, its steps, and after which of them data jump."""
    done = 0
    for start, mark in zip(times, journal.marks, strict=False):
        jumps = {k - done: t for k, t in journal.jumps if done <= k < mark}
        yield start, tuple(journal.sizes[done:mark]), jumps
        done = mark


def _steps(
    scheme: Scheme,
    y: torch.Tensor,
    memory: Memory,
    start: float,
    sizes: tuple[float, ...],
    jumps: Mapping[int, float],
    dimension: int,
    noise: torch.Tensor | None = None,
) -> tuple[torch.Tensor, ...]:
    scheme.forget()
    alive = torch.ones(y.shape[1 : y.ndim - dimension], dtype=torch.bool)
    t = start
    for k, h in enumerate(sizes):
        if k in jumps:
            t = jumps[k]
            memory = scheme.begin(y, t)
        attempt = scheme.advance(y, memory, t, h, alive)
        y, memory, t = attempt.y, attempt.memory, t + h
        if noise is not None:
            y = y + noise
    return y, *memory


_NOWHERE = Instants((), ())


@dataclass(frozen=True)
class TimeState:
    """A system of ODEs, the times of its frames, where steps land, what identifies the run.

    ``lineage``: what identifies it without its end.
    """

    system: NonlinearSystem
    times: tuple[float, ...]
    instants: Instants = _NOWHERE
    fingerprint: str = ""
    lineage: str = ""
    setup_seconds: float = 0.0


class Integrator(ABC):
    """Interface of the integrators of ``inertia u'' + mass u' + F(u, t) = 0``.

    ``rtol``: the estimated error of one step relative to the solution, both as root mean squares
    over the grid; with ``atol`` added where that is small, left out 1e-9 of the largest so far, or
    rtol where that is less.
    ``step``: a fixed step, lowered so that
    a whole number of them joins two frames; its estimated errors are still held against ``rtol``.
    ``remembers``: whether it is for bodies that remember their loads, and for these alone.
    """

    kind: str
    rtol: float
    atol: float | None
    step: float | None
    remembers: ClassVar[bool] = False

    @abstractmethod
    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method set up for a system that starts at ``start``; InputError if it is unfit."""

    def init(self, problem: Problem, on: Grid | Mesh | None = None) -> TimeState:
        """Discretise in space; raises InputError for a problem without time, or an unfit step."""
        if not isinstance(problem, Problem) or problem.time is None:
            raise InputError(
                f"{self.kind} integrates in time: give the problem time: {{end: ...}} and initial",
                "problem.time",
            )
        if on is None:
            raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
        start = time.perf_counter()
        system = semidiscretize(problem, on)
        if (system.history is not None) != self.remembers:
            raise InputError(
                f"{self.kind} is for bodies that remember their loads, as kind: plasticity"
                if self.remembers
                else f"{self.kind} does not carry what the body remembers; use quasi_static",
                "solver.kind",
            )
        check_masses(system)
        found = instants(problem, on if isinstance(on, Mesh) else None)
        with torch.no_grad():
            scheme = self.scheme(system, problem.time.start)
        step = scheme.fixed_step if self.step is None else self.step
        length = problem.time.end - problem.time.start
        if step is not None and length > _MOST_STEPS * step:
            raise InputError(
                f"{self.kind}: {length / step:.1e} steps of {step:.3g} from {problem.time.start:g} "
                f"to {problem.time.end:g} would not end; take larger ones",
                "solver.step",
            )
        seconds = time.perf_counter() - start
        marks = fingerprint(problem, on, self), lineage_of(problem, on, self)
        return TimeState(system, problem.time.instants, found, *marks, seconds)

    def run(
        self,
        state: TimeState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
        observe: Observe | None = None,
    ) -> Solution:
        """March to the last frame; ``initial`` replaces u at the start, on the grid.

        ``frames``: a file that keeps the frames, from whose last one a run that was killed goes on.
        ``observe(t, value)`` is called after every step, ``value()`` being that on the grid.
        The value is differentiable in coefficients and data, for the steps that were taken.
        """
        if b is not None:
            raise InputError("a problem in time has no right-hand side apart from its equation")
        system = state.system if initial is None else _begun_at(state.system, initial)
        check_masses(system)
        mark = state.fingerprint if initial is None else fingerprint(state.fingerprint, initial)
        start = time.perf_counter()
        with torch.no_grad():
            system = consistent(system, state.times[0])
            scheme = self.scheme(system, state.times[0])
            begun = Lineage(state.lineage, system.restrict) if initial is None else None
            kept = Frames(state.times, frames, mark, begun)
            found = kept.count
            step = scheme.fixed_step if self.step is None else self.step
            tolerances = Tolerances(self.rtol, self.atol, step)
            march = March(scheme, system, kept, tolerances, progress, state.instants, observe)
            position = march.run()
            _refuse_underflow(position.largest)
            seconds = time.perf_counter() - start
            reached = kept.times[kept.count - 1]
            notes = (
                *system.notes,
                *system.remarks(position.y[0], reached),
                *_remarks(self.kind, scheme, march.journal, found),
                *looked_up_outside(system.outside()),
            )
        states, tracked = [state[0] for state in kept.states], False
        if wants_gradient(system, state.times[0]):
            if found or not kept.complete:
                notes = (*notes, "no gradient: it needs a whole run that was not interrupted")
            else:
                fading = step is not None or not scheme.explicit
                if not fading:
                    with torch.no_grad():
                        grown = amplification(scheme, system, kept, march.journal, position.largest)
                    fading = grown < _AMPLIFIED
                if fading:
                    scheme = self.scheme(system, state.times[0])
                    states = replay(scheme, system, kept.times, march.journal)
                    tracked = True
                else:
                    notes = (
                        *notes,
                        f"no gradient: {self.kind} took steps that enlarge rounding {grown:.1g} "
                        "times, which only a smooth solution bears; give a step, or take sdirk",
                    )
        # Without the steps' graph that of the sides' data alone would be a wrong one.
        with torch.set_grad_enabled(tracked):
            return self._solution(march, position, states, (state.setup_seconds, seconds), notes)

    def _solution(
        self,
        march: March,
        p: Position,
        states: list[torch.Tensor],
        seconds: tuple[float, float],
        notes: tuple[str, ...],
    ) -> Solution:
        system, frames = march.system, march.frames
        several = system.by_field
        behind = len(system.shape) + (len(system.fields) > 1)
        p = p.over_fields() if several else p
        values = [system.lift(u, t) for u, t in zip(states, frames.times, strict=False)]
        outside = system.outside()
        history = None
        if system.history is not None:
            kept = [system.history.parted(u)[1] for u in states]
            history = torch.stack(kept, dim=-len(system.history.shape) - 1)
        errors = [e.amax(-1) if several else e for e in march.journal.errors] or [p.worst[0]]
        statistics = Statistics(p.steps, torch.stack(errors), *seconds)
        return Solution(
            value=torch.stack(values, dim=-behind - 1),
            residual=p.worst.amax(0),
            statuses=tuple(status.given(outside) for status in p.statuses(self.rtol)),
            stats=statistics,
            on=system.on,
            solver=self,
            notes=notes,
            fields=system.fields,
            times=torch.tensor(frames.times[: frames.count], dtype=torch.float64),
            outside=outside,
            history=history,
        )


def check_time_options(kind: str, rtol: float, atol: float | None, step: float | None) -> None:
    """Raise InputError for tolerances or a step that make no sense, or that rounding does not."""
    check_options(kind, rtol, 1)
    if rtol < _FINEST:
        raise InputError(
            f"{kind}: rounding is above rtol {rtol:g}, which cannot be met; take {_FINEST:g} or "
            "more",
            "solver.rtol",
        )
    if atol is not None and not (atol >= 0 and isfinite(atol)):
        raise InputError(f"{kind}: atol must not be negative; got {atol:g}", "solver.atol")
    if step is not None and not (step > 0 and isfinite(step)):
        raise InputError(f"{kind}: step must be positive; got {step:g}", "solver.step")


def _refuse_underflow(largest: torch.Tensor) -> None:
    # Products of such numbers, in limiters and in the equations of implicit steps, are zero.
    if bool(((largest > 0) & (largest < _SQUARED)).any()):
        raise InputError(
            f"the solution is so small ({float(largest[largest > 0].min()):.1g}) that products of "
            "its values underflow; scale the data and the answer"
        )


def _begun_at(system: NonlinearSystem, initial: torch.Tensor) -> NonlinearSystem:
    u = system.restrict(torch.as_tensor(initial, dtype=torch.float64))
    return replace(system, first=(u, *system.first[1:]))


def _remarks(kind: str, scheme: Scheme, journal: Journal, found: int) -> tuple[str, ...]:
    """One line on the steps, and one each on a run taken up and on one that ended early."""
    lines = []
    if found:
        lines.append(f"{kind}: went on from frame {found} of the file")
    if journal.sizes:
        low, high = min(journal.sizes), max(journal.sizes)
        sizes = f"of {low:.3g}" if high - low < 1e-3 * high else f"from {low:.3g} to {high:.3g}"
        rejected = f", {journal.rejected} rejected" if journal.rejected else ""
        made = f"; {scheme.remark()}" if scheme.remark() else ""
        lines.append(f"{kind}: {scheme.name}, {len(journal.sizes)} steps {sizes}{rejected}{made}")
    if journal.stopped is not None:
        lines.append(f"{kind}: a solution ended at t = {journal.stopped:.6g}")
    return tuple(lines)
