"""What every optimiser of collocation shares: when to stop, what to tell, when points change."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.solvers.collocation.objective import Objective


class Sampler(Protocol):
    """Where the equation is asked to hold; a frozen dataclass of options.

    ``every``: iterations between exchanges of points, 0 for none.
    """

    @property
    def every(self) -> int:
        """Iterations between exchanges."""

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """New points per piece, (N, D) each; ``objective`` holds the ones before, if any."""


@dataclass(frozen=True)
class Course:
    """How a minimisation went: ``losses`` per iteration, and why it ended."""

    losses: tuple[float, ...]
    status: Status
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass
class Training:
    """One minimisation: its points, its budget, its record.

    ``tolerance``: the loss at which to stop. ``seconds``: wall time at which to stop, or None.
    """

    sampler: Sampler
    counts: Sequence[int]
    generator: torch.Generator
    tolerance: float
    seconds: float | None = None
    progress: Progress | None = None
    relative: Callable[[float], float] = math.sqrt
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    status: Status = Status.MAX_ITERATIONS
    begun: float = field(default_factory=time.perf_counter)

    def exchange(self, objective: Objective) -> bool:
        """Draw points at the start and every ``every`` iterations; whether it did."""
        count, every = len(self.losses), self.sampler.every
        if objective.batches and not (every and count and count % every == 0):
            return False
        objective.place(self.sampler.points(objective, self.counts, self.generator))
        return True

    def ended(self, loss: float, objective: Objective) -> bool:
        """Record an iteration's loss; whether to stop before the next."""
        self.losses.append(loss)
        if self.progress is not None:
            self.progress(len(self.losses) - 1, self.relative(loss))
        if not math.isfinite(loss):
            self.status = Status.NOT_FINITE
            self.notes.append(
                f"no finite loss at iteration {len(self.losses) - 1}: {_culprit(objective)}"
            )
            return True
        if loss <= self.tolerance:
            self.status = Status.CONVERGED
            return True
        return self.seconds is not None and time.perf_counter() - self.begun > self.seconds

    def stalled(self) -> Course:
        """The course where no step lowers the loss any more."""
        self.status = Status.STAGNATED
        return self.course()

    def course(self) -> Course:
        """What was recorded."""
        seconds = time.perf_counter() - self.begun
        return Course(tuple(self.losses), self.status, seconds, tuple(self.notes))


def _culprit(objective: Objective) -> str:
    """Which piece's residual is not finite, and where."""
    with torch.no_grad():
        for batch in objective.batches:
            bad = ~torch.isfinite(objective.residual(batch)).all(-1)
            if bad.any():
                place = [f"{c:.4g}" for c in batch.points[: len(bad)][bad][0].tolist()]
                return f"the residual of '{batch.piece.name}' at ({', '.join(place)})"
    return "the parameters"
