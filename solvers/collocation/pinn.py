"""Physics-informed networks: a network whose residual of the equation is made small at points.

Raissi, Perdikaris, Karniadakis (2019). Dirichlet data and the start are built in where ``hard``
(Lagaris et al. 1998; Sukumar and Srivastava 2022), periodic axes always. What decides the accuracy
is the optimiser: Gauss-Newton reaches 1e-7 where Adam stops at 1e-3.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.solve import Progress
from sciml.core.strong import StrongForm, strong_form
from sciml.solvers.collocation.conditions import built_in, extent, pieces
from sciml.solvers.collocation.gauss_newton import GaussNewton
from sciml.solvers.collocation.networks import Activation, Embedding, Perceptron
from sciml.solvers.collocation.objective import Ansatz, Objective
from sciml.solvers.collocation.sampling import LatinHypercube, Sobol, Uniform
from sciml.solvers.collocation.training import Training
from sciml.solvers.collocation.verify import answered, place_of, scales_of

AnySampler = Uniform | Sobol | LatinHypercube
AnyOptimiser = GaussNewton


@dataclass(frozen=True)
class PINN:
    """A network trained on the equation itself; float64.

    ``rtol``: the relative residual at fresh points (see ``collocation.verify``) at which it has
    converged. ``points`` inside, ``boundary_points`` on every side with a soft condition and at the
    start. ``hard``: build Dirichlet data and the start into the ansatz. ``features``: that many
    random Fourier features of deviation ``feature_scale``. ``weights``: of the soft conditions, by
    side, or ``start``. ``seconds``: wall time at which the training ends, whatever was reached.
    """

    width: int = 24
    depth: int = 2
    activation: Activation = "tanh"
    features: int = 0
    feature_scale: float = 1.0
    modified: bool = False
    factorised: bool = False
    hard: bool = True
    points: int = 1000
    boundary_points: int = 100
    sampler: AnySampler = field(default_factory=Sobol)
    optimiser: AnyOptimiser = field(default_factory=GaussNewton)
    weights: dict[str, float] = field(default_factory=dict)
    rtol: float = 1e-4
    seconds: float | None = None
    seed: int = 0
    kind: Literal["pinn"] = "pinn"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "points", "boundary_points"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"solver.{name}"
                )

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> PINNState:
        """Read the equation off the problem and draw the network's first weights."""
        if not isinstance(problem, Problem):
            raise InputError("a network is trained on a problem, not on a matrix", "solver.kind")
        start = time.perf_counter()
        place = place_of(on, problem)
        form = strong_form(problem)
        objective = Objective(
            form,
            Ansatz(self._network(form), built_in(form) if self.hard else None),
            pieces(form, self.hard, True),
            self.weights,
        )
        return PINNState(objective, place, time.perf_counter() - start)

    def run(
        self,
        state: PINNState,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
        frames: Any = None,
    ) -> Solution:
        """Train, then verify at fresh points and on the grid."""
        if b is not None or initial is not None:
            raise InputError("a network is trained from its own start; leave initial and b out")
        objective = state.objective
        counts = [
            self.points if piece.name == "equation" else self.boundary_points
            for piece in objective.pieces
        ]
        scale = max(scales_of(objective).equation, 1e-300)
        training = Training(
            self.sampler,
            counts,
            torch.Generator().manual_seed(self.seed),
            tolerance=(0.5 * self.rtol * scale) ** 2,
            seconds=self.seconds,
            progress=progress,
            relative=lambda loss: loss**0.5 / scale,
        )
        course = self.optimiser.minimise(objective, training)
        return answered(self, objective, course, state.on, state.setup_seconds, self.rtol)

    def _network(self, form: StrongForm) -> Perceptron:
        lower, upper = extent(form)
        problem = form.problem
        axes = (*problem.periodic, *(() if problem.time is None else (False,)))
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            plain = Embedding(lower, upper, axes)
            drawn = None
            if self.features:
                drawn = self.feature_scale * torch.randn(plain.size, self.features)
            embedding = Embedding(lower, upper, axes, drawn)
            network = Perceptron(
                embedding, self.width, self.depth, len(form.fields), self.activation,
                self.modified, self.factorised,
            )  # fmt: skip
        return network.double()


@dataclass(frozen=True)
class PINNState:
    """The objective, its network untrained, and where the answer is wanted."""

    objective: Objective
    on: Grid | Points
    setup_seconds: float
