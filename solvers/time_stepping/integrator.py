"""The face that every integrator in time shows: ``init`` and ``run``, ending in a Solution."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import torch

from sciml.core.discretize import semidiscretize
from sciml.core.errors import InputError
from sciml.core.frames import Frames, fingerprint
from sciml.core.grid import Grid
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.problem import Problem
from sciml.core.solution import Solution, Statistics
from sciml.core.solve import Progress
from sciml.solvers.iteration import check_options
from sciml.solvers.time_stepping.first_order import check_masses
from sciml.solvers.time_stepping.march import Journal, March, Position, Tolerances
from sciml.solvers.time_stepping.replay import replay, wants_gradient
from sciml.solvers.time_stepping.scheme import Scheme


@dataclass(frozen=True)
class TimeState:
    """A system of ODEs with the times of its frames, and a text that identifies the run."""

    system: NonlinearSystem
    times: tuple[float, ...]
    fingerprint: str = ""
    setup_seconds: float = 0.0


class Integrator(ABC):
    """Interface of the integrators of ``inertia u'' + mass u' + F(u, t) = 0``.

    ``rtol``: the estimated error of one step relative to the solution, both as root mean squares
    over the grid; with ``atol`` added where that is small. ``step``: a fixed step, lowered so that
    a whole number of them joins two frames; its estimated errors are still held against ``rtol``.
    """

    kind: str
    rtol: float
    atol: float
    step: float | None

    @abstractmethod
    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method set up for a system that starts at ``start``; InputError if it is unfit."""

    def init(self, problem: Problem, on: Grid | None = None) -> TimeState:
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
        check_masses(system)
        with torch.no_grad():
            self.scheme(system, problem.time.start)
        seconds = time.perf_counter() - start
        return TimeState(system, problem.time.instants, fingerprint(problem, on, self), seconds)

    def run(
        self,
        state: TimeState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: str | Path | None = None,
    ) -> Solution:
        """March to the last frame; ``initial`` replaces u at the start, on the grid.

        ``frames``: a file that keeps the frames, from whose last one a run that was killed goes on.
        The value is differentiable in coefficients and data, for the steps that were taken.
        """
        if b is not None:
            raise InputError("a problem in time has no right-hand side apart from its equation")
        system = state.system if initial is None else _begun_at(state.system, initial)
        check_masses(system)
        mark = state.fingerprint if initial is None else fingerprint(state.fingerprint, initial)
        start = time.perf_counter()
        with torch.no_grad():
            scheme = self.scheme(system, state.times[0])
            kept = Frames(state.times, frames, mark)
            found = kept.count
            step = scheme.fixed_step if self.step is None else self.step
            tolerances = Tolerances(self.rtol, self.atol, step)
            march = March(scheme, system, kept, tolerances, progress)
            position = march.run()
            seconds = time.perf_counter() - start
            reached = kept.times[kept.count - 1]
            notes = (
                *system.notes,
                *system.remarks(position.y[0], reached),
                *_remarks(self.kind, scheme, march.journal, found),
            )
        states = [state[0] for state in kept.states]
        if wants_gradient(system, state.times[0]):
            if found or not kept.complete:
                notes = (*notes, "no gradient: it needs a whole run that was not interrupted")
            else:
                scheme = self.scheme(system, state.times[0])
                states = replay(scheme, system, kept.times, march.journal)
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
        several = len(system.fields) > 1
        behind = len(system.shape) + several
        p = p.over_fields() if several else p
        values = [system.lift(u, t) for u, t in zip(states, frames.times, strict=False)]
        errors = [e.amax(-1) if several else e for e in march.journal.errors] or [p.worst[0]]
        statistics = Statistics(p.steps, torch.stack(errors), *seconds)
        return Solution(
            value=torch.stack(values, dim=-behind - 1),
            residual=p.worst.amax(0),
            statuses=p.statuses(self.rtol),
            stats=statistics,
            on=system.on,
            solver=self,
            notes=notes,
            fields=system.fields,
            times=torch.tensor(frames.times[: frames.count], dtype=torch.float64),
        )


def check_time_options(kind: str, rtol: float, atol: float, step: float | None) -> None:
    """Raise InputError for tolerances or a step that make no sense."""
    check_options(kind, rtol, 1)
    if not (atol >= 0 and isfinite(atol)):
        raise InputError(f"{kind}: atol must not be negative; got {atol:g}", "solver.atol")
    if step is not None and not (step > 0 and isfinite(step)):
        raise InputError(f"{kind}: step must be positive; got {step:g}", "solver.step")


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
