"""Periodic problems in time by Fourier modes and exponential time differencing of order 4.

The symbol and the rest of an equation are told apart in ``evolution``, one step is stated in
``exponential``. A run is made twice side by side, with steps h and 2 h. Where the two differ at a
frame by more than the tolerance the step is halved: the run with h takes the place of the one with
2 h, and the one with h / 2 is made from the start. As the order is 4, what they differ by is the
error of the run with 2 h to within a fifteenth, and that of the run with h, whose frames are kept,
is some fifteen times less.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.problem.table import looked_up_outside
from sciml.core.run.frames import Frames, Lineage, fingerprint, lineage_of
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Observe, Progress
from sciml.core.run.status import Doubt, Status
from sciml.discretization.fourier.evolution import Evolution, common_batch, evolution
from sciml.discretization.fourier.exponential import Stepper, stepper
from sciml.discretization.instants import Instants, instants
from sciml.discretization.volumes.memory import check_memory
from sciml.solvers.linear.iteration import norm

_CACHED = 2**15  # values of a piece of a batch; some twenty such arrays stay in the cache
_LOOK = 10  # steps between two looks for infinities
_SAME = 0.02  # blow-up at two step sizes within this share of the time passed is no coincidence

_WORDS = 40  # for every point: spectra, coefficients of the exponentials, stages
_UNSTABLE = 10.0  # relative differences above this tell of an unstable step, not of its error


@dataclass(frozen=True)
class SpectralState:
    """A problem set up: its evolution, the times of its frames, where its data change."""

    problem: Problem
    evolution: Evolution
    times: tuple[float, ...]
    instants: Instants
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
class StepDoubling:
    """A run on its way, with steps h and 2 h (Richardson).

    A frame's state: values with steps h and 2 h, steps per interval, error.

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
        self.scale = norm(self.first, d)
        if self.step is not None:
            ratio = self.state.interval / self.step
            self.steps = 2 * max(1, math.ceil(ratio / 2 * (1 - 1e-12)))
        elif self.state.instants.shortest < self.state.interval:
            # Steps of either size must see a pulse before their difference can tell of it.
            ratio = 2 * self.state.interval / self.state.instants.shortest
            whole = self.max_steps // (len(self.state.times) - 1)
            self.steps = max(2, min(2 ** math.ceil(math.log2(ratio)), whole // 2 * 2))
        if self.frames.count:
            device = self.first.device
            self.frames.states = [tuple(p.to(device) for p in s) for s in self.frames.states]
            _, _, steps, error = self.frames.states[-1]
            self.steps, self.error = int(steps), error.cpu()
            for value, *_ in self.frames.states:
                self.scale = torch.maximum(self.scale, norm(value, d))
        else:
            self._append(self.first, self.first)

    def complete(self) -> None:
        """Compute the frames that are missing, until one is not finite."""
        while self.frames.count < len(self.state.times) and self.blown_up is None:
            fine, coarse = self._next()
            if self.blown_up is None:
                self.error = torch.maximum(self.error, self._difference(fine, coarse).cpu())
                d = self.state.evolution.fourier.dimension
                self.scale = torch.maximum(self.scale, norm(fine, d))
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
        pieces: tuple[torch.Tensor, ...] = flat.split(max(1, _CACHED // flat[0].numel()))
        return pieces

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
        scale = torch.maximum(self.scale, norm(fine, d))
        gap = norm(fine - coarse, d) / scale.clamp_min(torch.finfo(torch.float64).tiny)
        return torch.nan_to_num(gap, nan=torch.inf, posinf=torch.inf).amax(-1)


def _finite(value: torch.Tensor) -> bool:
    return bool(torch.isfinite(value).all())


_FINEST = 1e-13  # the least difference of two runs that is not rounding
_REST = 1e-10  # of a field's largest norm: what is left of one that came to rest
_TAIL = 1e-3  # share of the norm in the highest modes from which a run is called under-resolved


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
        if self.rtol < _FINEST:
            raise InputError(
                f"etdrk4: rounding is above rtol {self.rtol:g}, which cannot be met; take "
                f"{_FINEST:g} or more",
                "solver.rtol",
            )
        if self.step is not None and not (math.isfinite(self.step) and self.step > 0):
            raise InputError(f"etdrk4: step must be positive; got {self.step:g}", "solver.step")
        if self.max_steps < 2:
            raise InputError(
                f"etdrk4: max_steps must be at least 2; got {self.max_steps}", "solver.max_steps"
            )

    def init(self, problem: Problem, on: Grid | None = None) -> SpectralState:
        """The problem as an evolution of Fourier coefficients on torch's default device."""
        begin = time.perf_counter()
        if not isinstance(problem, Problem):
            raise InputError("etdrk4 solves a problem in time, not a linear system", "solver.kind")
        if not isinstance(on, Grid):
            raise InputError("etdrk4 needs a grid to solve on: pass on=Grid((129, 129))", "grid")
        if on.scheme is not None:
            raise InputError(
                "etdrk4 takes derivatives by Fourier transforms and has no scheme: leave it out",
                "grid.scheme",
            )
        if problem.time is None:
            raise InputError(
                "etdrk4 integrates in time: give time: {end: ...} and initial: ...", "problem.time"
            )
        device = torch.get_default_device()
        check_memory(problem, on.bind(problem.box), torch.float64, device, words=_WORDS)
        found = evolution(problem, on, device)
        seconds = time.perf_counter() - begin
        return SpectralState(problem, found, problem.time.instants, instants(problem), seconds)

    def run(
        self,
        state: SpectralState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
        observe: Observe | None = None,
    ) -> Solution:
        """The frames; ``initial``, values (*batch, [fields], *grid), replaces the problem's own.

        ``observe(t, value)`` is called for every frame at the end, since steps are taken on trial
        until then.
        """
        if b is not None:
            raise InputError("a problem in time has no right-hand side b; state f in its equation")
        begin = time.perf_counter()
        first = _first(state.evolution, initial)
        mark = "" if frames is None else fingerprint(state.problem, state.grid, self, first)
        begun = None
        if frames is not None:
            # Steps are counted per interval between frames.
            own = lineage_of(state.problem, state.interval, state.grid, self, first)
            begun = Lineage(own, partial(_first, state.evolution))
        kept = Frames(state.times, frames, mark, begun)
        with torch.no_grad():
            run = StepDoubling(self.rtol, self.step, self.max_steps, state, kept, first, progress)
            run.complete()
            found = _solution(self, state, run, begin)
        if observe is not None and found.times is not None:
            frames_of = found.value.unbind(found.residual.ndim)
            for t, value in zip(found.times.tolist(), frames_of, strict=True):
                observe(t, partial(torch.clone, value))
        return found


def _first(found: Evolution, initial: torch.Tensor | None) -> torch.Tensor:
    """The state at the start, its leading fields replaced by ``initial`` where there is one."""
    if initial is None:
        return found.first
    space, count = found.fourier, len(found.names)
    d = space.dimension
    wanted = (count, *space.grid.shape) if count > 1 else space.grid.shape
    if tuple(initial.shape[initial.ndim - len(wanted) :]) != wanted:
        raise InputError(
            f"initial has shape {list(initial.shape)}; its last axes must be {list(wanted)}"
        )
    value = space.restrict(initial if count > 1 else initial.unsqueeze(-d - 1))
    rest = found.first.narrow(-d - 1, count, found.first.shape[-d - 1] - count)
    rest = rest if rest.numel() else rest.new_zeros(0, *space.shape)
    batch = common_batch([part.shape[: -d - 1] for part in (value, rest)] + [found.batch])
    parts = [part.expand(*batch, *part.shape[-d - 1 :]) for part in (value, rest)]
    return torch.cat(parts, dim=-d - 1)


def _solution(solver: ETDRK4, state: SpectralState, run: StepDoubling, begin: float) -> Solution:
    found = state.evolution
    space, d, count = found.fourier, found.fourier.dimension, len(found.names)
    kept = run.frames.stack(d + 1).narrow(-d - 1, 0, count)
    value = space.lift(kept if count > 1 else kept.squeeze(-d - 1))
    error = run.error
    if run.blown_up is not None:
        error = torch.where(run.blown_up, torch.inf, error)
    steps = run.steps * (run.frames.count - 1)
    stats = Statistics(
        torch.full(error.shape, steps, device="cpu"),
        error.unsqueeze(0),
        state.setup_seconds,
        time.perf_counter() - begin,
        float(run.work),
    )
    outside = tuple(sorted(found.left))
    notes = [*found.notes, _note_on_steps(run), *_note_on_space(found, kept, state.times)]
    notes += looked_up_outside(outside)
    return Solution(
        value=value,
        residual=error,
        statuses=tuple(status.given(outside) for status in _statuses(solver, run, error)),
        stats=stats,
        on=space.grid,
        solver=solver,
        notes=tuple(notes),
        times=torch.tensor(state.times[: run.frames.count], dtype=torch.float64, device="cpu"),
        fields=found.names,
        outside=outside,
    )


def _statuses(solver: ETDRK4, run: StepDoubling, error: torch.Tensor) -> list[Status]:
    blown = torch.zeros_like(error, dtype=torch.bool)
    blown = blown if run.blown_up is None else run.blown_up
    return [
        Status.BLOWN_UP if gone else _accuracy(size, solver.rtol)
        for gone, size in zip(blown.flatten().tolist(), error.flatten().tolist(), strict=True)
    ]


def _accuracy(error: float, rtol: float) -> Status:
    return Status.CONVERGED if error <= rtol else Status.INACCURATE_IN_TIME


def _note_on_steps(run: StepDoubling) -> str:
    h = run.state.interval / run.steps
    chosen = "halved until two runs agreed" if run.step is None else "as given"
    return (
        f"etdrk4: steps of {h:.4g}, {chosen}; the frames differ by at most "
        f"{float(run.error.max()):.2g} from those of a run with twice the step"
    )


def _note_on_space(found: Evolution, kept: torch.Tensor, times: tuple[float, ...]) -> list[str]:
    """A line where the grid is too coarse for the solution, else none."""
    space, modes = found.fourier, found.fourier.forward(kept)
    # Of a field that has come to rest the modes hold nothing but rounding.
    rest = _REST * space.norm(modes).amax(-2, keepdim=True)
    tails = space.tail(modes, found.limited, rest).amax(-1)
    share, frame = tails.reshape(-1, tails.shape[-1]).amax(0).max(-1)
    if float(share) <= _TAIL:
        return []
    return [
        Doubt(
            f"under-resolved in space: at t = {times[int(frame)]:.4g} the highest third of the "
            f"modes holds {float(share):.2g} of the norm; take a finer grid"
        )
    ]
