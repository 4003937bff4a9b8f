"""Periodic problems in time by Fourier modes and exponential time differencing of order 4.

The symbol and the rest of an equation are told apart in ``evolution``, one step is stated in
``exponential``, and how a run is verified in ``course``.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
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
from sciml.solvers.spectral.course import Course, SpectralState
from sciml.solvers.spectral.evolution import Evolution, common_batch, evolution

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
        found = evolution(problem, on, torch.get_default_device())
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
            course = Course(self.rtol, self.step, self.max_steps, state, kept, first, progress)
            course.complete()
            return _solution(self, state, course, begin)


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


def _solution(solver: ETDRK4, state: SpectralState, course: Course, begin: float) -> Solution:
    found = state.evolution
    space, d, count = found.fourier, found.fourier.dimension, len(found.names)
    kept = course.frames.stack(d + 1).narrow(-d - 1, 0, count)
    value = space.lift(kept if count > 1 else kept.squeeze(-d - 1))
    error = course.error
    if course.blown_up is not None:
        error = torch.where(course.blown_up, torch.inf, error)
    steps = course.steps * (course.frames.count - 1)
    stats = Statistics(
        torch.full(error.shape, steps, device="cpu"),
        error.unsqueeze(0),
        state.setup_seconds,
        time.perf_counter() - begin,
        float(course.work),
    )
    notes = [*found.notes, _note_on_steps(course), *_note_on_space(found, kept, state.times)]
    return Solution(
        value=value,
        residual=error,
        statuses=tuple(_statuses(solver, course, error)),
        stats=stats,
        on=space.grid,
        solver=solver,
        notes=tuple(notes),
        times=torch.tensor(state.times[: course.frames.count], dtype=torch.float64, device="cpu"),
        fields=found.names,
    )


def _statuses(solver: ETDRK4, course: Course, error: torch.Tensor) -> list[Status]:
    blown = torch.zeros_like(error, dtype=torch.bool)
    blown = blown if course.blown_up is None else course.blown_up
    return [
        Status.BLOWN_UP if gone else _accuracy(size, solver.rtol)
        for gone, size in zip(blown.flatten().tolist(), error.flatten().tolist(), strict=True)
    ]


def _accuracy(error: float, rtol: float) -> Status:
    return Status.CONVERGED if error <= rtol else Status.INACCURATE_IN_TIME


def _note_on_steps(course: Course) -> str:
    h = course.state.interval / course.steps
    chosen = "halved until two runs agreed" if course.step is None else "as given"
    return (
        f"etdrk4: steps of {h:.4g}, {chosen}; the frames differ by at most "
        f"{float(course.error.max()):.2g} from those of a run with twice the step"
    )


def _note_on_space(found: Evolution, kept: torch.Tensor, times: tuple[float, ...]) -> list[str]:
    """A line where the grid is too coarse for the solution, else none."""
    tails = found.fourier.tail(found.fourier.forward(kept), found.limited).amax(-1)
    share, frame = tails.reshape(-1, tails.shape[-1]).amax(0).max(-1)
    if float(share) <= _TAIL:
        return []
    return [
        f"under-resolved in space: at t = {times[int(frame)]:.4g} the highest third of the modes "
        f"holds {float(share):.2g} of the norm; take a finer grid"
    ]
