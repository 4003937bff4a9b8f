"""A sum of Gaussians whose places and shapes are trained too: a mesh that moves to where it counts.

    u = G + phi sum_i w_i g_i,

or a small network of several such sums (Kang et al., ICLR 2025, arXiv 2412.05994). Every derivative
is in closed form (``gaussian_layer``), the weights are solved for exactly at every step
(``variable_projection``), and between stages Gaussians that count for nothing are dropped and new
ones are put where the residual is largest, narrower than what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.core.strong import StrongForm
from sciml.solvers.collocation.conditions import extent
from sciml.solvers.collocation.gaussian_layer import GaussianNetwork, Shape
from sciml.solvers.collocation.gaussian_refinement import refined
from sciml.solvers.collocation.objective import Ansatz, Objective
from sciml.solvers.collocation.pinn import AnyOptimiser
from sciml.solvers.collocation.posed import posed
from sciml.solvers.collocation.samplers import AnySampler
from sciml.solvers.collocation.sampling import Sobol, sobol
from sciml.solvers.collocation.trained import (
    TrainedState,
    begin,
    counts,
    refuse,
    trained,
    training_of,
)
from sciml.solvers.collocation.training import Course
from sciml.solvers.collocation.variable_projection import VariableProjection, Weights
from sciml.solvers.collocation.verify import Polish, answered

_MARGIN = 0.1  # of the extent, on either side, within which the first means lie
_OVERLAPS = (1.5, 2.2, 3.2, 4.7, 7.0)  # first widths tried, over the mean distance


@dataclass(frozen=True)
class Gaussians:
    """Gaussians trained on the equation itself; float64.

    ``count``: of each channel at the start. ``width``: their first widths, in the units of the
    coordinates, one or one per axis (time last); None: the one of several multiples of the mean
    distance whose residual is least. ``covariance``: "full" lets
    them turn, from the second stage on. ``channels``, ``hidden``: sums that a tanh layer of that
    many units takes in; 0: one sum per field, the answer is linear in the weights. ``points``
    inside (0: three per parameter at the start); ``hard``, ``boundary_points``,
    ``weights``, ``rtol``, ``seconds``, ``windows``, ``polish`` as for ``PINN``. ``stages`` of the
    optimiser's iterations each; before the next, Gaussians below ``drop`` of the largest are left
    out and a share ``grow`` is added.
    """

    count: int = 100
    width: float | tuple[float, ...] | None = None
    covariance: Literal["diagonal", "full"] = "diagonal"
    channels: int = 4
    hidden: int = 0
    windows: int = 1
    stages: int = 1
    drop: float = 1e-8
    grow: float = 0.25
    hard: bool = True
    points: int = 0
    boundary_points: int = 100
    sampler: AnySampler = field(default_factory=Sobol)
    optimiser: VariableProjection | AnyOptimiser = field(default_factory=VariableProjection)
    weights: Mapping[str, float | str] = field(default_factory=dict)
    rtol: float = 1e-4
    seconds: float | None = None
    polish: Polish | None = None
    seed: int = 0
    kind: Literal["gaussians"] = "gaussians"
    reads_problem: ClassVar[bool] = True  # itself, not its discretisation

    def __post_init__(self) -> None:
        for name in ("count", "channels", "windows", "stages", "boundary_points"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"solver.{name}"
                )
        for name in ("hidden", "drop", "grow", "points"):
            if getattr(self, name) < 0:
                raise InputError(
                    f"{name} must not be negative; got {getattr(self, name)}", f"solver.{name}"
                )
        if self.covariance == "full" and self.stages == 1:
            raise InputError(
                "a full covariance starts from the diagonal fit; give stages: 2 or more",
                "solver.covariance",
            )

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> TrainedState:
        """Read the equation off the problem and place the first Gaussians."""
        return begin(problem, on, self._posed, self.windows)

    def run(
        self,
        state: TrainedState,
        *,
        initial: Tensor | None = None,
        b: Tensor | None = None,
        progress: Progress | None = None,
        frames: Any = None,
    ) -> Solution:
        """Train stage by stage, then verify at fresh points and on the grid."""
        refuse(initial, b)
        through = partial(self._trained, state.record)
        objective, course = trained(self, state.objective, self._posed, through, progress)
        return answered(self, objective, course, state.on, state.setup_seconds, self.rtol)

    def _posed(self, problem: Problem) -> Objective:
        return posed(problem, self._network, self.hard, self.weights)

    def _trained(
        self,
        record: dict[str, Any],
        objective: Objective,
        progress: Progress | None,
        seconds: float | None,
    ) -> Course:
        # Those of a window before lie in its own time.
        objective.ansatz = Ansatz(self._network(objective.form), objective.ansatz.built_in)
        inside = self.points or 3 * len(objective.theta)
        generator = torch.Generator().manual_seed(self.seed)
        per_piece = counts(self, objective, inside)
        objective.place(self.sampler.points(objective, per_piece, generator))
        _start(objective, _OVERLAPS if self.width is None else (_OVERLAPS[0],))
        training = training_of(
            self, objective, inside, generator, total=self.stages * self.optimiser.iterations,
            progress=progress, seconds=seconds, record=record,
        )  # fmt: skip
        numbers = [_count(objective)]
        course = self.optimiser.minimise(objective, training)
        for _ in range(1, self.stages):
            if training.late or course.status in (Status.CONVERGED, Status.NOT_FINITE):
                break
            self._refine(objective)
            numbers.append(_count(objective))
            training.status = Status.TRAINING_ENDED
            course = self.optimiser.minimise(objective, training)
        said = "Gaussians by stage: " + ", ".join(map(str, numbers))
        return replace(course, notes=(*course.notes, said))

    def _refine(self, objective: Objective) -> None:
        network = refined(objective, self.drop, self.grow, self.covariance == "full")
        objective.ansatz = Ansatz(network, objective.ansatz.built_in)

    def _network(self, form: StrongForm) -> GaussianNetwork:
        lower, upper = extent(form)
        fields = len(form.fields)
        channels = self.channels if self.hidden else fields
        sizes = upper - lower
        axes = (*form.problem.periodic, *(() if form.problem.time is None else (False,)))
        periods = tuple(float(s) if p else None for s, p in zip(sizes, axes, strict=True))
        margin = torch.tensor([0.0 if p else _MARGIN for p in axes], dtype=torch.float64) * sizes
        generator = torch.Generator().manual_seed(self.seed)
        total = channels * self.count
        cubes = [sobol(self.count, len(sizes), generator) for _ in range(channels)]
        means = lower - margin + torch.cat(cubes) * (sizes + 2 * margin)
        widths = self._widths(sizes)
        shape = Shape(
            means,
            (-widths.log()).expand(total, -1),
            torch.arange(channels).repeat_interleave(self.count),
        )
        weights = torch.zeros(total, dtype=torch.float64)
        if self.hidden:
            weights = torch.randn(total, dtype=torch.float64, generator=generator)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return GaussianNetwork(
                shape, weights / self.count**0.5, widths, periods, channels, fields, self.hidden
            )

    def _widths(self, sizes: Tensor) -> Tensor:
        """The first widths, (D,)."""
        if self.width is None:
            return _OVERLAPS[0] * sizes * self.count ** (-1 / len(sizes))
        given = self.width if isinstance(self.width, tuple) else (self.width,) * len(sizes)
        if len(given) != len(sizes) or min(given) <= 0:
            raise InputError(
                f"needs a positive number, or {len(sizes)} of them, time last; got {self.width}",
                "solver.width",
            )
        return torch.tensor(given, dtype=torch.float64)


def _start(objective: Objective, overlaps: Sequence[float]) -> None:
    """Solve for the weights, with that one of these widths which leaves the least residual.

    ``overlaps``: widths, the present ones counted as the first.
    """
    bank, weights = objective.ansatz.network.blocks()[0], Weights.of(objective)
    first, found = objective.theta, []
    sharpness = bank.sharpness.detach().clone()
    for overlap in overlaps:
        objective.assign(first)
        with torch.no_grad():
            bank.sharpness.copy_(sharpness - math.log(overlap / overlaps[0]))
        weights.solve()
        r = objective.vector()
        found.append((float(r @ r), objective.theta))
    objective.assign(min(found, key=lambda pair: pair[0])[1])


def _count(objective: Objective) -> int:
    return len(objective.ansatz.network.blocks()[0].means)
