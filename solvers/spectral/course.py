"""A run of ETDRK4 with its verification, from frame to frame.

The run is made twice side by side, with steps h and 2 h. Where the two differ at a frame by more
than the tolerance the step is halved: the run with h takes the place of the one with 2 h, and the
one with h / 2 is made from the start. As the order is 4, what they differ by is the error of the
run with 2 h to within a fifteenth, and that of the run with h, whose frames are kept, is some
fifteen times less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from sciml.core.frames import Frames
from sciml.core.grid import Grid
from sciml.core.problem import Problem
from sciml.core.solve import Progress
from sciml.solvers.spectral.evolution import Evolution
from sciml.solvers.spectral.exponential import Stepper, stepper

_CACHED = 2**15  # values of a piece of a batch; some twenty such arrays stay in the cache
_LOOK = 10  # steps between two looks for infinities
_SAME = 0.02  # blow-up at two step sizes within this share of the time passed is no coincidence

_UNSTABLE = 10.0  # relative differences above this tell of an unstable step, not of its error


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
    """A run on its way. A frame's state: values with steps h and 2 h, steps per interval, error.

    ``first``: values (*batch, fields, *shape) at the start. ``error``: shape batch, the largest
    relative difference at any frame so far; ``scale``: (*batch, fields), the largest norm.
    ``blown_up``: bool of shape batch, where the next frame is not finite; None while all is well.
    ``work``: steps taken in all, those of discarded runs too.
    """

    rtol: float
    step: float | None
    max_steps: int
    state: SpectralState
    frames: Frames
    first: torch.Tensor
    progress: Progress | None
    steps: int = 2
    error: torch.Tensor = field(init=False)
    scale: torch.Tensor = field(init=False)
    blown_up: torch.Tensor | None = None
    work: float = 0.0
    _steppers: dict[int, Stepper] = field(default_factory=dict)

    def __post_init__(self) -> None:
        d = self.state.evolution.fourier.dimension
        self.error = torch.zeros(self.first.shape[: -d - 1], dtype=torch.float64, device="cpu")
        self.scale = _norm(self.first, d)
        if self.step is not None:
            ratio = self.state.interval / self.step
            self.steps = 2 * max(1, math.ceil(ratio / 2 * (1 - 1e-12)))
        if self.frames.count:
            device = self.first.device
            self.frames.states = [tuple(p.to(device) for p in s) for s in self.frames.states]
            _, _, steps, error = self.frames.states[-1]
            self.steps, self.error = int(steps), error.cpu()
            for value, *_ in self.frames.states:
                self.scale = torch.maximum(self.scale, _norm(value, d))
        else:
            self._append(self.first, self.first)

    def complete(self) -> None:
        """Compute the frames that are missing, until one is not finite."""
        while self.frames.count < len(self.state.times) and self.blown_up is None:
            fine, coarse = self._next()
            if self.blown_up is None:
                self.error = torch.maximum(self.error, self._difference(fine, coarse).cpu())
                d = self.state.evolution.fourier.dimension
                self.scale = torch.maximum(self.scale, _norm(fine, d))
                self._append(fine, coarse)

    def _append(self, fine: torch.Tensor, coarse: torch.Tensor) -> None:
        self.frames.append(fine, coarse, torch.tensor(self.steps, device="cpu"), self.error)

    def _next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next frame at the steps h and 2 h, h halved as need be."""
        last = self.frames.count - 1
        before, before_coarse = self.frames.states[-1][:2]
        coarse, _ = self._advance(before_coarse, last, last + 1, self.steps // 2)
        fine, reached = self._advance(before, last, last + 1, self.steps)
        # Errors add up, so the first interval is held to its share; it is the cheapest to repeat.
        goal = self.rtol / (len(self.state.times) - 1 if last == 0 else 1)
        gap = self._worst(fine, coarse)
        agreements = stalled = 0
        while self.step is None and gap > goal and max(agreements, stalled) < 2:
            if 2 * self.steps * (len(self.state.times) - 1) > self.max_steps:
                break
            self.steps *= 2
            coarse, former, former_gap = fine, reached, gap
            fine, reached = self._advance(self.frames.states[0][0], 0, last + 1, self.steps)
            gap = self._worst(fine, coarse)
            near = _SAME * (reached - self.state.times[0])
            resolved = _LOOK * self.state.interval / self.steps <= near
            agreements += not _finite(fine) and resolved and abs(reached - former) <= near
            stalled = stalled + 1 if 0.5 * former_gap < gap < _UNSTABLE else 0
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
        pieces = self._pieces(value)
        found = []
        for index, piece in enumerate(pieces):
            found.append(self._march(piece, (begin, end), steps, (index, len(pieces))))
        reached = min(reached for _, reached in found)
        return torch.cat([piece for piece, _ in found]).reshape(value.shape), reached

    def _pieces(self, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The samples of a batch, so many at a time as a processor's cache holds."""
        found = self.state.evolution
        if found.batch or value.device.type != "cpu":
            return (value,)
        flat = value.reshape(-1, *value.shape[-found.fourier.dimension - 1 :])
        return flat.split(max(1, _CACHED // flat[0].numel()))

    def _march(
        self,
        value: torch.Tensor,
        frames: tuple[int, int],
        steps: int,
        share: tuple[int, int],
    ) -> tuple[torch.Tensor, float]:
        """One piece of a batch from frame to frame; ``share``: its index, and how many there are.

        Progress is told the mean of the times that the pieces have reached.
        """
        space, stepper = self.state.evolution.fourier, self._stepper(steps)
        times, (index, count) = self.state.times, share
        begin, span = times[frames[0]], times[frames[1]] - times[frames[0]]
        for frame in range(*frames):
            U = space.forward(value)
            for s in range(steps):
                U = stepper.step(U, times[frame] + s * stepper.h)
                t = times[frame] + (s + 1) * stepper.h
                self.work += 1 / count
                if self.progress is not None and steps == self.steps:
                    self.progress(round(self.work), begin + (t - begin + index * span) / count)
                if s % _LOOK == _LOOK - 1 and not _finite(U):
                    return space.backward(U), t
            value = space.backward(U)
        return value, times[frames[1]]

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
        scale = torch.maximum(self.scale, _norm(fine, d))
        gap = _norm(fine - coarse, d) / scale.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.nan_to_num(gap, nan=torch.inf, posinf=torch.inf).amax(-1)


def _finite(value: torch.Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def _norm(value: torch.Tensor, dimension: int) -> torch.Tensor:
    return torch.linalg.vector_norm(value.flatten(-dimension), dim=-1)
