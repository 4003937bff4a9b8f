"""The march from frame to frame, with steps that keep the estimated error at the tolerance.

A step is accepted where for every sample and part of the state

    q = ||error||_rms / (atol + rtol scale) <= 1,      scale = max(||y||_rms, ||y_new||_rms)

(of a second-order equation the largest norms so far, since displacement and velocity vanish in
turn). The next one is h 0.9 q^(-0.7/p) q_before^(0.4/p) (Gustafsson 1991), p the exponent of the
estimate, or h 0.9 q^(-1/p), if that is another step worth a set-up. Every frame is hit exactly:
what is left of an interval is cut into equal steps.

A batch goes in lockstep, with one step for all. A sample that blows up, or that asks for ever
smaller steps, is dropped: NaN from there on, while the others go on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil

import torch

from sciml.core.frames import Frames
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.solvers.iteration import spread
from sciml.solvers.time_stepping.first_order import first_state, rate
from sciml.solvers.time_stepping.scheme import Attempt, Memory, Scheme

_TINY = 1e-13  # relative to the time passed: steps that rounding swallows
_GROWN = 1e6  # how far a solution has grown that is said to have blown up
_STATUSES = tuple(Status)
_ALIVE = -1


@dataclass(frozen=True)
class Tolerances:
    """The local error allowed per step; ``step`` is the fixed one, or None."""

    rtol: float
    atol: float
    step: float | None


@dataclass
class Position:
    """Where a run stands; with the system it decides everything that follows.

    ``y``, ``memory``: see :class:`Attempt`. ``scale``: (parts, *batch). ``worst``: (2, *batch), the
    largest relative error and stage residual so far. ``codes``: index of the status that ended a
    sample, or -1. ``steps``: (*batch) accepted ones. ``clock``: the step wished for, the last q.
    """

    y: torch.Tensor
    scale: torch.Tensor
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

    ``marks``: how many steps had been accepted at each frame after the first.
    """

    sizes: list[float]
    errors: list[torch.Tensor]
    marks: list[int] = field(default_factory=list)
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
    ) -> None:
        self.scheme, self.system, self.frames = scheme, system, frames
        self.tolerances, self.progress = tolerances, progress
        self.first = first_state(system)
        self.dimension = len(system.shape)
        self.journal = Journal([], [])
        self.position = self._start()

    def _start(self) -> Position:
        if self.frames.count:
            return self._restored(self.frames.states[-1])
        y, t = self.first, self.frames.times[0]
        scale = self._rms(y)
        batch = scale.shape[1:]
        position = Position(
            y,
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
        return u, *p.y[1:], p.scale, p.worst, p.codes, p.steps, p.clock, *p.memory

    def _restored(self, state: tuple[torch.Tensor, ...]) -> Position:
        parts = len(self.first)
        y = torch.stack(state[:parts])
        scale, worst, codes, steps, clock = state[parts : parts + 5]
        alive = spread(codes == _ALIVE, self.dimension)
        return Position(
            torch.where(alive, y, self.first), scale, worst, codes, steps, clock, state[parts + 5 :]
        )

    def _rms(self, y: torch.Tensor) -> torch.Tensor:
        """Root mean squares over the unknowns, (parts, *batch)."""
        flat = y.flatten(-self.dimension)
        return torch.linalg.vector_norm(flat, dim=-1) / flat.shape[-1] ** 0.5

    def _first_step(self, y: torch.Tensor, t: float, alive: torch.Tensor) -> float:
        """A step over which the solution changes by about the p-th root of the tolerance."""
        if self.tolerances.step is not None:
            return self.tolerances.step
        span = self.frames.times[-1] - self.frames.times[0]
        slope = self._rms(rate(self.system, y, t))
        # Of the position alone: the velocity may start from zero.
        allowed = self.tolerances.atol + self._rms(y)
        share = torch.where(alive & (slope > 0), allowed / slope, span)[0]
        share = torch.where(torch.isfinite(share), share, span)
        wanted = 0.1 * self.tolerances.rtol ** (1 / self.scheme.exponent) * float(share.min())
        return min(max(wanted, 1e-8 * span), span)

    def run(self) -> Position:
        """March until the last frame, or until no sample is left."""
        times = self.frames.times
        mean = (times[-1] - times[0]) / (len(times) - 1)
        while not self.frames.complete and bool(self.position.alive.any()):
            self.scheme.forget()
            start, end = times[self.frames.count - 1], times[self.frames.count]
            # Between frames that lie evenly the same number to the last bit, and so the same
            # step, which keeps its set-up.
            interval = mean if abs(end - start - mean) < 1e-9 * mean else end - start
            if self._reach(end, interval):
                self.journal.marks.append(len(self.journal.sizes))
                self.frames.append(*self._record(self.position))
            else:
                break
        return self.position

    def _reach(self, end: float, interval: float) -> bool:
        """Advance to ``end``; False where no sample is left."""
        p = self.position
        left = _pieces(interval, float(p.clock[0]))
        h, calm = interval / left, True
        while left:
            t, alive = end - left * h, p.alive
            attempt = self.scheme.advance(p.y, p.memory, t, h, alive)
            q = self._quotient(attempt, p)
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
        return True

    def _quotient(self, attempt: Attempt, p: Position) -> torch.Tensor:
        """q per sample; infinite where the step failed, zero for samples already dropped."""
        size = self._rms(attempt.y)
        scale = torch.maximum(p.scale, size)
        allowed = self.tolerances.atol + self.tolerances.rtol * scale
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
        if smaller < _TINY * max(abs(t), span):
            attempt = self.scheme.advance(p.y, p.memory, t, h, p.alive)
            self._drop(self._quotient(attempt, p) > 1, Status.STEP_TOO_SMALL, t)
            smaller = self._first_step(p.y, t, p.alive)
        left = _pieces(remaining, smaller)
        return left, remaining / left

    def _accept(self, attempt: Attempt, q: torch.Tensor, h: float) -> None:
        p, alive = self.position, self.position.alive
        p.y = torch.where(spread(alive, self.dimension), attempt.y, self.first)
        p.memory = attempt.memory
        size = self._rms(attempt.y)
        # Of first order what has decayed is judged by its present size.
        p.scale = torch.maximum(p.scale, size) if len(p.y) > 1 else size
        error = torch.where(alive, q * self.tolerances.rtol, p.worst[0])
        residual = torch.where(alive, attempt.residual, p.worst[1])
        p.worst = torch.maximum(p.worst, torch.stack([error, residual]))
        p.steps = p.steps + alive
        self.journal.sizes.append(h)
        self.journal.errors.append(error)

    def _drop_failed(self, attempt: Attempt, t: float) -> None:
        """With a fixed step: end the samples whose step cannot be taken."""
        finite = torch.isfinite(self._rms(attempt.y)).all(0)
        self._drop(~finite, Status.BLOWN_UP, t)
        self._drop(~attempt.solved, Status.STAGNATED, t)

    def _drop(self, where: torch.Tensor, status: Status, t: float) -> None:
        p = self.position
        where = where & p.alive
        if len(self.system.fields) > 1:
            where = where.any(-1, keepdim=True).expand_as(where)
        if not bool(where.any()):
            return
        start = self._rms(self.first)[0]
        grown = self._rms(p.y)[0] > _GROWN * torch.where(start > 0, start, 1.0)
        blown = status is Status.BLOWN_UP
        code = torch.where(grown | blown, _STATUSES.index(Status.BLOWN_UP), _STATUSES.index(status))
        p.codes = torch.where(where, code, p.codes)
        p.y = torch.where(spread(p.alive, self.dimension), p.y, self.first)
        p.memory = self.scheme.begin(p.y, t)
        self.journal.stopped = t


def _pieces(length: float, step: float) -> int:
    """Into how many equal steps, none longer than ``step``, a length is cut."""
    return max(1, ceil(length / step - 1e-9))
