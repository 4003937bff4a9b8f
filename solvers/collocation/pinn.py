"""Physics-informed networks: a network whose residual of the equation is made small at points.

Raissi, Perdikaris, Karniadakis (2019). Dirichlet data and the start are built in where ``hard``
(Lagaris et al. 1998; Sukumar and Srivastava 2022), periodic axes always. What decides the accuracy
is the optimiser: Gauss-Newton reaches 1e-7 where Adam stops at 1e-3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from sciml.solvers.collocation.conditions import extent
from sciml.solvers.collocation.gauss_newton import EnergyNaturalGradient, GaussNewton
from sciml.solvers.collocation.lbfgs import LBFGS
from sciml.solvers.collocation.networks import Activation, Embedding, Perceptron
from sciml.solvers.collocation.objective import Objective
from sciml.solvers.collocation.posed import posed, stated
from sciml.solvers.collocation.samplers import AnySampler
from sciml.solvers.collocation.sampling import Sobol, sobol
from sciml.solvers.collocation.training import Course, Training, train
from sciml.solvers.collocation.verify import Polish, answered, largest, measure, scales_of
from sciml.solvers.collocation.weighting import AnyBalance, Causal
from sciml.solvers.collocation.windows import in_windows

AnyOptimiser = GaussNewton | EnergyNaturalGradient | LBFGS | Adam


@dataclass(frozen=True)
class PINN:
    """A network trained on the equation itself; float64.

    ``rtol``: the relative residual at fresh points (see ``collocation.verify``) at which it has
    converged. ``points`` inside, ``boundary_points`` on every side with a soft condition and at the
    start. ``hard``: build Dirichlet data and the start into the ansatz. ``features``: that many
    random Fourier features of deviation ``feature_scale``. ``modified``, ``factorised``: see
    ``collocation.networks``. ``optimiser``: one, or several that follow one another.

    ``weights``: of the soft conditions, by side, or ``start``; ``balance``: how they are chosen as
    training goes on. ``causal``: weights that let late times wait for early ones. ``windows``:
    pieces of time trained one after the other. ``seconds``: wall time at which the training ends,
    whatever was reached. ``polish``: a solver that goes on from the answer on the grid, to its own
    tolerance.
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
    optimiser: AnyOptimiser | tuple[AnyOptimiser, ...] = field(default_factory=GaussNewton)
    weights: Mapping[str, float] = field(default_factory=dict)
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

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> PINNState:
        """Read the equation off the problem and draw the network's first weights."""
        start = time.perf_counter()
        stated_problem, place = stated(problem, on)
        if stated_problem.time is None and (self.windows > 1 or self.causal is not None):
            name = "causal" if self.causal is not None else "windows"
            raise InputError(f"{name} is for problems in time", f"solver.{name}")
        objective = self._posed(stated_problem)
        if self.windows > 1 and (objective.unknown or stated_problem.observations is not None):
            raise InputError("windows are for problems without unknowns", "solver.windows")
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
        objective, record = state.objective, state.record
        if self.windows == 1:
            course = self._trained(objective, record, progress, self.seconds)
        else:
            begun = time.perf_counter()

            def window(part: Objective, left: int, before: int) -> Course:
                spent = time.perf_counter() - begun
                share = None if self.seconds is None else max(self.seconds - spent, 0.0) / left
                return self._trained(part, record, _shifted(progress, before), share)

            objective, course = in_windows(objective, self.windows, self._posed, window, self.hard)
        return answered(self, objective, course, state.on, state.setup_seconds, self.rtol)

    def _posed(self, problem: Problem) -> Objective:
        return posed(problem, self._network, self.hard, self.weights)

    def _trained(
        self,
        objective: Objective,
        record: dict[str, Any],
        progress: Progress | None,
        seconds: float | None,
    ) -> Course:
        optimisers = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        scale = max(scales_of(objective).equation, 1e-300)
        training = Training(
            self.sampler,
            [
                self.points if piece.name == "equation" else self.boundary_points
                for piece in objective.pieces
            ],
            torch.Generator().manual_seed(self.seed),
            tolerance=(0.5 * self.rtol * scale) ** 2,
            seconds=seconds,
            progress=progress,
            relative=lambda loss: loss**0.5 / scale,
            confirmed=lambda: largest(measure(objective, 2000)) <= self.rtol,
            weightings=[w for w in (self.balance, self.causal) if w is not None],
            error=exact_error(objective),
            total=sum(optimiser.iterations for optimiser in optimisers),
            record=record,
        )
        return train(optimisers, objective, training)

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
    """The objective, its network untrained, and where the answer is wanted.

    ``record``: how far the training is, that of the present window where there are several, kept
    up to date by it (see ``training.Training``).
    """

    objective: Objective
    on: Grid | Points
    setup_seconds: float
    record: dict[str, Any] = field(default_factory=dict)


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
