"""What solvers by trained functions share: how they begin, how they train in windows of time.

A solver says how a problem becomes an objective (``pose``) and how an objective is trained
(``train``); the rest is here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.problem import Problem
from sciml.core.solve import Progress
from sciml.solvers.collocation.objective import Objective, stated
from sciml.solvers.collocation.sampling import sobol
from sciml.solvers.collocation.training import Course, Sampler, Training, Weighting
from sciml.solvers.collocation.verify import largest, measure, scales_of
from sciml.solvers.collocation.windows import in_windows

Pose = Callable[[Problem], Objective]
# Of an objective, who is told, and the wall time that is left for it.
Train = Callable[[Objective, Progress | None, float | None], Course]


@dataclass(frozen=True)
class TrainedState:
    """The objective, its function untrained, and where the answer is wanted.

    ``record``: how far the training is, that of the present window where there are several, kept
    up to date by it (see ``training.Training``).
    """

    objective: Any
    on: Grid | Points
    setup_seconds: float
    record: dict[str, Any] = field(default_factory=dict)


class Windowed(Protocol):
    """Options of a solver that trains a long time piece by piece."""

    @property
    def windows(self) -> int:
        """Pieces of time."""

    @property
    def hard(self) -> bool:
        """Whether the start of each is built in."""

    @property
    def seconds(self) -> float | None:
        """Wall time of all of them."""


class Residual(Protocol):
    """Options of a solver that makes residuals small."""

    @property
    def sampler(self) -> Sampler:
        """Where the equation is asked to hold."""

    @property
    def points(self) -> int:
        """Inside."""

    @property
    def boundary_points(self) -> int:
        """On every side with a soft condition, and at the start."""

    @property
    def rtol(self) -> float:
        """The relative residual that counts as converged."""

    @property
    def seed(self) -> int:
        """Of the points."""


def begin(
    problem: Problem | LinearSystem,
    on: Grid | Mesh | Points | None,
    pose: Callable[[Problem], Any],
    windows: int = 1,
) -> TrainedState:
    """Read the equation off the problem. Raises InputError for windows where there is no time."""
    start = time.perf_counter()
    given, place = stated(problem, on)
    if windows > 1 and given.time is None:
        raise InputError("windows is for problems in time", "solver.windows")
    objective = pose(given)
    if windows > 1 and (objective.unknown or given.observations is not None):
        raise InputError("windows are for problems without unknowns", "solver.windows")
    return TrainedState(objective, place, time.perf_counter() - start)


def refuse(initial: Tensor | None, b: Tensor | None) -> None:
    """Raise InputError for a start or a right-hand side: a trained function takes neither."""
    if b is not None or initial is not None:
        raise InputError("a function is trained from its own start; leave initial and b out")


def trained(
    solver: Windowed, objective: Objective, pose: Pose, train: Train, progress: Progress | None
) -> tuple[Objective, Course]:
    """Trained as a whole, or window by window, each with its share of the wall time left."""
    if solver.windows == 1:
        return objective, train(objective, progress, solver.seconds)
    begun = time.perf_counter()

    def window(part: Objective, left: int, before: int) -> Course:
        spent = time.perf_counter() - begun
        share = None if solver.seconds is None else max(solver.seconds - spent, 0.0) / left
        return train(part, _shifted(progress, before), share)

    return in_windows(objective, solver.windows, pose, window, solver.hard)


def counts(solver: Residual, objective: Objective, inside: int) -> list[int]:
    """How many points each piece has."""
    return [
        inside if piece.name == "equation" else solver.boundary_points for piece in objective.pieces
    ]


def training_of(
    solver: Residual,
    objective: Objective,
    inside: int,
    generator: torch.Generator,
    *,
    total: int,
    progress: Progress | None,
    seconds: float | None,
    record: dict[str, Any],
    weightings: Sequence[Weighting] = (),
) -> Training:
    """The training of residuals with ``inside`` points; ends at half of ``rtol``, confirmed."""
    scale = max(scales_of(objective).equation, 1e-300)
    return Training(
        solver.sampler,
        counts(solver, objective, inside),
        generator,
        tolerance=(0.5 * solver.rtol * scale) ** 2,
        seconds=seconds,
        progress=progress,
        relative=lambda loss: loss**0.5 / scale,
        confirmed=lambda: largest(measure(objective, 2000)) <= solver.rtol,
        weightings=weightings,
        error=exact_error(objective),
        total=total,
        record=record,
    )


def exact_error(objective: Objective) -> Callable[[], float] | None:
    """The relative L2 error at fixed points, where the problem says its exact solution."""
    form = objective.form
    exact = form.problem.exact
    if exact is None or len(form.fields) > 1:
        return None
    piece = objective.pieces[0]
    points = piece.place(sobol(2000, piece.free, torch.Generator().manual_seed(1)))
    wanted = form.data(exact, "problem.exact", points).expand(len(points))

    def error() -> float:
        gap = objective.ansatz.value(points)[:, 0] - wanted
        return float(gap.norm() / wanted.norm().clamp_min(1e-300))

    return error


def _shifted(progress: Progress | None, before: int) -> Progress | None:
    """The progress of a window, its iterations counted from the first window's."""
    if progress is None:
        return None
    return lambda iteration, residual: progress(before + iteration, residual)
