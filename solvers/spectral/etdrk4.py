"""Periodic problems in time by Fourier modes and exponential time differencing.

The run is made twice side by side, with steps h and 2 h. Where the two differ at a frame by more
than ``rtol`` the step is halved: the run with h takes the place of the one with 2 h, and the one
with h / 2 is made from the start. As the order is 4, what they differ by is the error of the run
with 2 h to within a fifteenth, and that of the run with h, whose frames are returned, is some
fifteen times less.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.frames import Frames, fingerprint
from sciml.core.grid import Grid
from sciml.core.problem import Problem
from sciml.core.solution import Solution, Statistics
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.solvers.spectral.evolution import Evolution, evolution
from sciml.solvers.spectral.exponential import Stepper, stepper

_TAIL = 1e-3  # share of the norm in the highest modes from which a run is called under-resolved
_LOOK = 10  # steps between two looks for infinities
_SAME = 0.02  # blow-up at two step sizes within this share of the time passed is no coincidence


@dataclass(frozen=True)
class ETDRK4:
    """Fourier pseudo-spectral ETDRK4 with 2/3 dealiasing, periodic in 1-3 D, float64, batched.

    ``step``: at most so long a step, fixed; without it the step is halved until two runs agree to
    ``rtol``, with at most ``max_steps`` steps. A batch shares its step. Either way
    ``Solution.residual`` is, per sample, the largest difference at any frame from a run with twice
    the step, relative in L2 to the largest norm so far, of the worst field; where it is above
    ``rtol`` the status is INACCURATE_IN_TIME. ``init`` raises InputError for sides that are not
    periodic, obstacles, and terms without a symbol. Cox and Matthews 2002; Kassam and Trefethen
    2005.
    """

    kind: Literal["etdrk4"] = "etdrk4"
    rtol: float = 1e-6
    step: float | None = None
    max_steps: int = 1_000_000

    def __post_init__(self) -> None:
        if not 0 < self.rtol < 1:
            raise InputError(
                f"etdrk4: rtol must lie between 0 and 1; got {self.rtol:g}", "solver.rtol"
            )
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise InputError(f"etdrk4: step must be positive; got {self.step:g}", "solver.step")
        if self.max_steps < 2:
            raise InputError(
                f"etdrk4: max_steps must be at least 2; got {self.max_steps}", "solver.max_steps"
            )

    def init(
        self,
        problem: Problem,
        on: Grid | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> SpectralState:
        """The problem as an evolution of Fourier coefficients on ``device``."""
        begin = time.perf_counter()
        if not isinstance(problem, Problem):
            raise InputError("etdrk4 solves a problem in time, not a linear system", "solver.kind")
        if on is None:
            raise InputError("a problem needs a grid to be solved on: pass on=Grid((129, 129))")
        if problem.time is None:
            raise InputError(
                "etdrk4 integrates in time: give time: {end: ...} and initial: ...", "problem.time"
            )
        found = evolution(problem, on, torch.device(device))
        seconds = time.perf_counter() - begin
        return SpectralState(problem, found, problem.time.instants, seconds)

    def run(
        self,
        state: SpectralState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
    ) -> Solution:
        """The frames; ``initial``, values (*batch, [fields], *grid), replaces the problem's own."""
        if b is not None:
            raise InputError("a problem in time has no right-hand side b; state f in its equation")
        begin = time.perf_counter()
        first = _first(state.evolution, initial)
        mark = "" if frames is None else fingerprint(state.problem, state.grid, self, first)
        kept = Frames(state.times, frames, mark)
        with torch.no_grad():
            course = Course(self, state, kept, first, progress)
            course.complete()
            return _solution(self, state, course, begin)


@dataclass(frozen=True)
class SpectralState:
    """A problem set up: its evolution and the times of its frames."""

    problem: Problem
    evolution: Evolution
    times: tuple[float, ...]
    setup_seconds: float

    @property
    def grid(self) -> Grid:
        """The grid, bound to the problem's box."""
        return self.evolution.fourier.grid

    @property
    def interval(self) -> float:
        """The time from one frame to the next."""
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


@dataclass
class Course:
    """A run on its way. A frame's state: values at the steps h and 2 h, steps per interval, error.

    ``error``: per sample the largest relative difference at any frame so far.
    """

    solver: ETDRK4
    state: SpectralState
    frames: Frames
    first: torch.Tensor
    progress: Progress | None
    steps: int = 2
    error: torch.Tensor = field(init=False)
    blown_up: torch.Tensor | None = None
    work: int = 0
    _steppers: dict[int, Stepper] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d = self.state.evolution.fourier.dimension
        self.error = torch.zeros(self.first.shape[: -d - 1], dtype=torch.float64)
        if self.solver.step is not None:
            ratio = self.state.interval / self.solver.step
            self.steps = 2 * max(1, math.ceil(ratio / 2 * (1 - 1e-12)))
        if self.frames.count:
            device = self.first.device
            self.frames.states = [tuple(p.to(device) for p in s) for s in self.frames.states]
            _, _, steps, error = self.frames.states[-1]
            self.steps, self.error = int(steps), error.cpu()
        else:
            self._append(self.first, self.first)

    def complete(self) -> None:
        """Compute the frames that are missing, until one is not finite."""
        while self.frames.count < len(self.state.times) and self.blown_up is None:
            fine, coarse = self._next()
            if self.blown_up is None:
                self.error = torch.maximum(self.error, self._difference(fine, coarse).cpu())
                self._append(fine, coarse)

    def _append(self, fine: torch.Tensor, coarse: torch.Tensor) -> None:
        self.frames.append(fine, coarse, torch.tensor(self.steps), self.error)

    def _next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next frame at the steps h and 2 h, h halved as need be."""
        last = self.frames.count - 1
        before, before_coarse = self.frames.states[-1][:2]
        coarse, _ = self._advance(before_coarse, last, last + 1, self.steps // 2)
        fine, reached = self._advance(before, last, last + 1, self.steps)
        # Errors add up, so the first interval is held to its share; it is the cheapest to repeat.
        goal = self.solver.rtol / (len(self.state.times) - 1 if last == 0 else 1)
        gap = self._worst(fine, coarse)
        agreements = 0
        while self.solver.step is None and gap > goal and agreements < 2:
            if 2 * self.steps * (len(self.state.times) - 1) > self.solver.max_steps:
                break
            self.steps *= 2
            coarse, former, former_gap = fine, reached, gap
            fine, reached = self._advance(self.frames.states[0][0], 0, last + 1, self.steps)
            gap = self._worst(fine, coarse)
            if math.isinf(gap):
                passed = reached - self.state.times[0]
                agreements += abs(reached - former) <= _SAME * passed and not _finite(fine)
            elif gap > 0.5 * former_gap:
                break
        if not _finite(fine):
            d = self.state.evolution.fourier.dimension
            self.blown_up = ~torch.isfinite(fine).flatten(-d - 1).all(-1).cpu()
        return fine, coarse

    def _advance(
        self, value: torch.Tensor, begin: int, end: int, steps: int
    ) -> tuple[torch.Tensor, float]:
        """From frame ``begin`` to ``end`` in so many steps per interval, and the time reached.

        It stops early at a value that is not finite.
        """
        if not _finite(value):
            return value, self.state.times[begin]
        space, stepper = self.state.evolution.fourier, self._stepper(steps)
        for frame in range(begin, end):
            U, start = space.forward(value), self.state.times[frame]
            for s in range(steps):
                U = stepper.step(U, start + s * stepper.h)
                self.work += 1
                if self.progress is not None and steps == self.steps:
                    self.progress(self.work, start + (s + 1) * stepper.h)
                if s % _LOOK == _LOOK - 1 and not _finite(U):
                    return space.backward(U), start + (s + 1) * stepper.h
            value = space.backward(U)
        return value, self.state.times[end]

    def _stepper(self, steps: int) -> Stepper:
        if steps not in self._steppers:
            h = self.state.interval / steps
            made = stepper(self.state.evolution.linear, self.state.evolution.nonlinear, h)
            self._steppers = {n: s for n, s in self._steppers.items() if n == steps // 2}
            self._steppers[steps] = made
        return self._steppers[steps]

    def _worst(self, fine: torch.Tensor, coarse: torch.Tensor) -> float:
        gap = float(self._difference(fine, coarse).max())
        return math.inf if math.isnan(gap) else gap

    def _difference(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """The relative difference of the worst field, shape batch; infinite where not finite."""
        d = self.state.evolution.fourier.dimension
        scale = _norm(fine, d)
        for (value, *_) in self.frames.states:
            scale = torch.maximum(scale, _norm(value, d))
        gap = _norm(fine - coarse, d) / scale.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.nan_to_num(gap, nan=torch.inf, posinf=torch.inf).amax(-1)
