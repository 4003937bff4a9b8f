"""Physics-informed networks: a network whose residual of the equation is made small at points.

Raissi, Perdikaris, Karniadakis (2019). Dirichlet data and the start are built in where ``hard``
(Lagaris et al. 1998; Sukumar and Srivastava 2022), periodic axes always. What decides the accuracy
is the optimiser: Gauss-Newton reaches 1e-7 where Adam stops at 1e-3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
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
from sciml.solvers.collocation.adam import LBFGS, Adam
from sciml.solvers.collocation.gauss_newton import EnergyNaturalGradient, GaussNewton
from sciml.solvers.collocation.networks import Activation, Perceptron, perceptron
from sciml.solvers.collocation.objective import AnyBalance, Causal, Objective, posed
from sciml.solvers.collocation.samplers import AnySampler
from sciml.solvers.collocation.sampling import Sobol
from sciml.solvers.collocation.trained import TrainedState, begin, refuse, trained, training_of
from sciml.solvers.collocation.training import Course, train
from sciml.solvers.collocation.verify import Polish, answered

AnyOptimiser = GaussNewton | EnergyNaturalGradient | LBFGS | Adam


@dataclass(frozen=True)
class PINN:
    """A network trained on the equation itself; float64.

    ``rtol``: the relative residual at fresh points (see ``collocation.verify``) at which it has
    converged. ``points`` inside, ``boundary_points`` on every side with a soft condition and at the
    start. ``hard``: build Dirichlet data and the start into the ansatz; ``extension``: carried into
    the box by these expressions, by field, which may hold what is singular of the solution.
    ``features``: that many random Fourier features of deviation ``feature_scale``. ``modified``,
    ``factorised``: see ``collocation.networks``. ``optimiser``: one, or several that follow one
    another.

    ``weights``: of the equation, of soft conditions by side, of ``start``; numbers, or expressions
    of the place such as ``(x*(1 - x))**2``; ``balance``: how they are chosen as training goes on.
    ``causal``: weights that let late times wait for early ones. ``windows``: pieces of time trained
    one after the other. ``seconds``: wall time at which the training ends, whatever was reached.
    ``polish``: a solver that goes on from the answer on the grid, to its own tolerance.
    """

    width: int = 24
    depth: int = 2
    activation: Activation = "tanh"
    features: int = 0
    feature_scale: float = 1.0
    modified: bool = False
    factorised: bool = False
    hard: bool = True
    extension: Mapping[str, float | str] | None = None
    points: int = 1000
    boundary_points: int = 100
    sampler: AnySampler = field(default_factory=Sobol)
    optimiser: AnyOptimiser | tuple[AnyOptimiser, ...] = field(default_factory=GaussNewton)
    weights: Mapping[str, float | str] = field(default_factory=dict)
    balance: AnyBalance | None = None
    causal: Causal | None = None
    windows: int = 1
    rtol: float = 1e-4
    seconds: float | None = None
    polish: Polish | None = None
    seed: int = 0
    kind: Literal["pinn"] = "pinn"
    reads_problem: ClassVar[bool] = True  # itself, not its discretisation

    def __post_init__(self) -> None:
        for name in ("width", "depth", "points", "boundary_points", "windows"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"solver.{name}"
                )
        if self.extension is not None and self.windows > 1:
            raise InputError(
                "windows begin with data that no extension knows; leave one of the two out",
                "solver.extension",
            )

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> TrainedState:
        """Read the equation off the problem and draw the network's first weights."""
        return begin(problem, on, self._posed, self.windows)

    def run(
        self,
        state: TrainedState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: Any = None,
    ) -> Solution:
        """Train, then verify at fresh points and on the grid."""
        refuse(initial, b)
        through = partial(self._trained, state.record)
        objective, course = trained(self, state.objective, self._posed, through, progress)
        return answered(self, objective, course, state.on, state.setup_seconds, self.rtol)

    def _posed(self, problem: Problem) -> Objective:
        if self.causal is not None and problem.time is None:
            raise InputError("causal is for problems in time", "solver.causal")
        return posed(problem, self._network, self.hard, self.weights, self.extension)

    def _trained(
        self,
        record: dict[str, Any],
        objective: Objective,
        progress: Progress | None,
        seconds: float | None,
    ) -> Course:
        optimisers = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        generator = torch.Generator().manual_seed(self.seed)
        training = training_of(
            self, objective, self.points, generator,
            total=sum(optimiser.iterations for optimiser in optimisers),
            progress=progress, seconds=seconds, record=record,
            weightings=[w for w in (self.balance, self.causal) if w is not None],
        )  # fmt: skip
        return train(optimisers, objective, training)

    def _network(self, form: StrongForm) -> Perceptron:
        return perceptron(
            form, self.seed, self.width, self.depth, self.activation, self.features,
            self.feature_scale, self.modified, self.factorised,
        )  # fmt: skip
