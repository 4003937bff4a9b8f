"""What every optimiser of collocation shares: when to stop, what to tell, when points change.

Optimisers may follow one another on one minimisation: its iterations, points and budget go on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.trained.objective import Objective


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


class Weighting(Protocol):
    """How the residuals are weighed against each other; a frozen dataclass of options."""

    def weigh(
        self, objective: Objective, iteration: int, relative: Callable[[float], float]
    ) -> bool:
        """Weigh the residuals anew where it is time to; whether it did.

        ``relative``: from a mean square of the equation's residual to its relative root.
        """


class Optimiser(Protocol):
    """A frozen dataclass of options; ``iterations``: at most so many."""

    @property
    def iterations(self) -> int:
        """At most so many."""

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it.

        Every iteration begins with ``minimisation.exchange``, after which the loss is another where
        that says so, and asks ``minimisation.ended``.
        """


@dataclass(frozen=True)
class OptimiserResult:
    """How a minimisation went: ``losses`` per iteration, and why it ended."""

    losses: tuple[float, ...]
    status: Status
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Budget:
    """The wall time that a training has, who is told, and the record that it keeps.

    See :class:`Minimisation`.
    """

    seconds: float | None = None
    progress: Progress | None = None
    record: dict[str, Any] | None = None

    def after(self, iterations: int, seconds: float | None) -> Budget:
        """That of a training which goes on with other wall time after so many iterations."""
        told = self.progress
        if told is None:
            return replace(self, seconds=seconds)
        return replace(
            self,
            seconds=seconds,
            progress=lambda iteration, residual: told(iterations + iteration, residual),
        )


@dataclass
class Minimisation:
    """One minimisation: its points, its budget, its record.

    ``tolerance``: the loss at which to stop, if the answer is ``confirmed`` at fresh points; else
    it is lowered. ``seconds``: wall time at which to stop, or None. ``record``: what is kept for
    those who watch, about once a second: ``iteration``, ``loss``, ``terms`` (root mean squares by
    name), ``error`` (that of ``error()``, where given) and ``left``, the seconds that remain at
    most. ``total``: the iterations of all optimisers.
    """

    sampler: Sampler
    counts: Sequence[int]
    generator: torch.Generator
    tolerance: float
    seconds: float | None = None
    progress: Progress | None = None
    relative: Callable[[float], float] = math.sqrt
    confirmed: Callable[[], bool] = lambda: True
    weightings: Sequence[Weighting] = ()
    error: Callable[[], float] | None = None
    total: int | None = None
    record: dict[str, Any] | None = None
    losses: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    status: Status = Status.TRAINING_ENDED
    begun: float = field(default_factory=time.perf_counter)
    quiet_until: float = 0.0

    def exchange(self, objective: Objective) -> bool:
        """Draw points at the start and every ``every`` iterations, and weigh the residuals anew.

        Whether the loss is another now.
        """
        count, every = len(self.losses), self.sampler.every
        drawn = not objective.batches or bool(every and count and count % every == 0)
        if drawn:
            objective.place(self.sampler.points(objective, self.counts, self.generator))
        weighed = [w.weigh(objective, count, self.relative) for w in self.weightings]
        return drawn or any(weighed)

    def ended(self, loss: float, objective: Objective) -> bool:
        """Record an iteration's loss; whether to stop before the next."""
        self.losses.append(loss)
        self._tell(loss, objective)
        if self.progress is not None:
            self.progress(len(self.losses) - 1, self.relative(loss))
        if not math.isfinite(loss):
            self.status = Status.NOT_FINITE
            self.notes.append(
                f"no finite loss at iteration {len(self.losses) - 1}: {_culprit(objective)}"
            )
            return True
        if loss <= self.tolerance:
            if self.confirmed():
                self.status = Status.CONVERGED
                return True
            self.tolerance /= 4
        return self.late

    @property
    def late(self) -> bool:
        """Whether the wall time is over."""
        return self.seconds is not None and time.perf_counter() - self.begun > self.seconds

    def _tell(self, loss: float, objective: Objective) -> None:
        """Bring the record up to date; at most a twentieth of the time goes into it."""
        start = time.perf_counter()
        if self.record is None or start < self.quiet_until:
            return
        count, spent = len(self.losses), start - self.begun
        with torch.no_grad():
            terms = {name: square**0.5 for name, square in objective.loss()[1].items()}
        bounds = [] if self.seconds is None else [self.seconds - spent]
        if self.total is not None:
            bounds.append(spent / count * (self.total - count))
        self.record |= {
            "iteration": count - 1,
            "loss": loss,
            "terms": terms,
            "error": None if self.error is None else self.error(),
            "left": max(min(bounds), 0.0) if bounds else None,
        }
        end = time.perf_counter()
        self.quiet_until = end + max(1.0, 20 * (end - start))

    def overflowed(self, what: str) -> OptimiserResult:
        """The course where a step's own numbers are not finite, though the loss is."""
        self.status = Status.NOT_FINITE
        self.notes.append(f"not finite at iteration {len(self.losses) - 1}: {what}")
        return self.result()

    def stalled(self) -> OptimiserResult:
        """The course where no step lowers the loss any more."""
        self.status = Status.STAGNATED
        return self.result()

    def result(self) -> OptimiserResult:
        """What was recorded."""
        seconds = time.perf_counter() - self.begun
        return OptimiserResult(tuple(self.losses), self.status, seconds, tuple(self.notes))


def train(
    optimisers: Sequence[Optimiser], objective: Objective, minimisation: Minimisation
) -> OptimiserResult:
    """Let the optimisers follow one another until one of them converges, or fails for good.

    Raises InputError where there are none.
    """
    if not optimisers:
        raise InputError("at least one optimiser is needed", "solver.optimiser")
    for optimiser in optimisers:
        minimisation.status = Status.TRAINING_ENDED
        course = optimiser.minimise(objective, minimisation)
        if course.status in (Status.CONVERGED, Status.NOT_FINITE) or minimisation.late:
            break
    return course


def _culprit(objective: Objective) -> str:
    """Which piece's residual is not finite, and where."""
    with torch.no_grad():
        for batch in objective.batches:
            bad = ~torch.isfinite(objective.residual(batch)).all(-1)
            if bad.any():
                place = [f"{c:.4g}" for c in batch.points[: len(bad)][bad][0].tolist()]
                return f"the residual of '{batch.piece.name}' at ({', '.join(place)})"
    return "the parameters"
