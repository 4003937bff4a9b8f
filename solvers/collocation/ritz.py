"""Deep Ritz: a network that makes the problem's energy least.

E and Yu (2018, arXiv 1710.00211), with Dirichlet data built in, Gauss' quadrature in place of
random points in up to three dimensions, and the energy natural gradient in place of Adam. The
energy needs first derivatives alone, and its Neumann and Robin conditions are met of themselves;
its precision limits the answer: an error of 1e-8 in the energy norm changes the energy by 1e-16.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import Progress
from sciml.core.strong import StrongForm
from sciml.solvers.collocation.adam import Adam
from sciml.solvers.collocation.energy import EnergyObjective, Rule
from sciml.solvers.collocation.natural_gradient import NaturalGradient
from sciml.solvers.collocation.networks import Activation, Perceptron, perceptron
from sciml.solvers.collocation.posed import posed
from sciml.solvers.collocation.trained import TrainedState, begin, refuse
from sciml.solvers.collocation.training import Course, Training, train
from sciml.solvers.collocation.verify import Polish, answered

RitzOptimiser = NaturalGradient | Adam


@dataclass(frozen=True)
class DeepRitz:
    """A network trained on the problem's energy; float64.

    For a steady problem of one field with an ``energy``, or with a linear equation with symmetric K
    and no advection; energies without a lower bound are not recognised. ``points`` inside and
    ``boundary_points`` on every Neumann or Robin side, rounded up to a tensor product of Gauss'
    rule in up to three dimensions, Sobol points beyond; they are drawn anew at every iteration.
    ``optimiser``: one, or several that follow one another. ``rtol``: the relative
    residual of the *strong* equation at fresh points (see ``collocation.verify``) that counts as
    converged: the energy is made as small as it gets in any case. ``seconds``: wall time at which
    the training ends. ``polish``: a solver that goes on from the answer on the grid.
    """

    width: int = 24
    depth: int = 2
    activation: Activation = "tanh"
    points: int = 1600
    boundary_points: int = 100
    optimiser: RitzOptimiser | tuple[RitzOptimiser, ...] = field(default_factory=NaturalGradient)
    rtol: float = 1e-3
    seconds: float | None = None
    polish: Polish | None = None
    seed: int = 0
    kind: Literal["deep_ritz"] = "deep_ritz"
    reads_problem: ClassVar[bool] = True  # itself, not its discretisation

    def __post_init__(self) -> None:
        for name in ("width", "depth", "points", "boundary_points"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"solver.{name}"
                )

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> TrainedState:
        """Read the energy off the problem and draw the network's first weights."""
        return begin(problem, on, self._posed)

    def run(
        self,
        state: TrainedState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: Any = None,
    ) -> Solution:
        """Train, then verify the strong residual at fresh points and the one on the grid."""
        refuse(initial, b)
        objective = state.objective
        rule = Rule(self.points, self.boundary_points)
        training = Training(
            rule,  # type: ignore[arg-type]
            rule.counts(objective),
            torch.Generator().manual_seed(self.seed),
            tolerance=-float("inf"),
            seconds=self.seconds,
            progress=progress,
        )
        training.relative = lambda _: _distance(*training.losses[-2:])
        optimisers = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        course = train(optimisers, objective, training)  # type: ignore[arg-type]
        note = f"energy {objective.value():.10g}"
        return answered(
            self, objective.residuals, _heights(course), state.on, state.setup_seconds, self.rtol,
            [note],
        )  # fmt: skip

    def _posed(self, problem: Problem) -> EnergyObjective:
        if problem.observations is not None:
            raise InputError(
                "an energy knows nothing of observations; use pinn", "problem.observations"
            )
        return EnergyObjective(posed(problem, self._network, True, {}))

    def _network(self, form: StrongForm) -> Perceptron:
        return perceptron(form, self.seed, self.width, self.depth, self.activation)


def _distance(before: float, after: float | None = None) -> float:
    """About how far apart the two functions are in the energy norm, relative."""
    return 1.0 if after is None else (abs(after - before) / max(abs(after), 1e-300)) ** 0.5


def _heights(course: Course) -> Course:
    """Energies as their heights above the last, relative: the squares of relative distances."""
    last = course.losses[-1]
    return replace(course, losses=tuple(_distance(e, last) ** 2 for e in course.losses))
