"""What every solver by a trained function is: how it begins, is trained, verified and polished.

A leaf says how a problem becomes an objective and how that is made small. Of those that make
residuals small at points, :class:`Collocation`, a leaf gives the ansatz and its minimisation; the
data that are built in, the points, the weights and the windows of time are here.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.solution import Solution
from sciml.core.run.solve import Progress
from sciml.discretization import semidiscretize
from sciml.discretization.points.region import Meshed
from sciml.discretization.points.strong import StrongForm
from sciml.discretization.volumes.memory import check_memory
from sciml.solvers.trained.choices import AnySampler
from sciml.solvers.trained.function import begin
from sciml.solvers.trained.level import free_constants
from sciml.solvers.trained.minimisation import (
    Budget,
    Minimisation,
    OptimiserResult,
    Weighting,
)
from sciml.solvers.trained.objective import Network, Objective, objective_of
from sciml.solvers.trained.sampling import Sobol, sobol
from sciml.solvers.trained.verify import Polish, answered, met, scales_of
from sciml.solvers.trained.windows import in_windows

_WORDS = 10  # for every point: its place, the values, their slopes
_GRIDDED = 3  # dimensions of a grid
_COARSE = 25  # its points along an axis
_PER_SIDE = 10  # points inside for each on a side with a soft condition


@dataclass
class TrainedState:
    """The problem, the objective of its function, and where the answer is wanted.

    ``record``: how far the training is, that of the present window where there are several, kept
    up to date by it (see ``minimisation.Minimisation``). ``trained``: whether the function is no
    longer the one that training begins with.
    """

    problem: Problem
    objective: Objective
    on: Grid | Points | Mesh
    setup_seconds: float
    record: dict[str, Any] = field(default_factory=dict)
    trained: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedSolver(ABC):
    """A function trained on the problem itself; float64.

    ``points`` inside and ``boundary_points`` on every side with a soft condition and at the start
    (None: a tenth of those inside).
    ``rtol``: the relative residual at fresh points (see ``trained.verify``) that counts as
    converged. ``seconds``: wall time at which the training ends, whatever was reached. ``polish``:
    a solver that goes on from the answer on the grid, to its own tolerance. ``seed``: of the first
    parameters and of the points. ``start``: the folder of a run whose function the training goes
    on from, of a network of the same layers.
    """

    points: int | None = None
    boundary_points: int | None = None
    rtol: float = 1e-4
    seconds: float | None = None
    polish: Polish | None = None
    seed: int = 0
    start: str | None = None
    reads_problem: ClassVar[bool] = True  # itself, not its discretisation

    def __post_init__(self) -> None:
        if not self.seed < 2**63:
            raise InputError(f"seed must be below 2**63; got {self.seed}", "solver.seed")
        at_least(self, 1, "boundary_points", "windows")
        at_least(self, 0, "rtol", "seconds", "seed")
        if not self.rtol < 1:
            raise InputError(f"rtol must be less than 1; got {self.rtol:g}", "solver.rtol")
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise InputError for an option of its own that is out of range."""

    @abstractmethod
    def pose(self, problem: Problem, mesh: Mesh | None = None) -> Objective:
        """What is asked of the function, before it is trained; ``mesh``: of a problem on one."""

    @property
    @abstractmethod
    def trainings(self) -> int:
        """How many functions are trained one after the other, for windows of time."""

    def posed(self, problem: Problem, window: int = 0, mesh: Mesh | None = None) -> Objective:
        """The same, its function that of the run ``start``; see ``function.begin``."""
        objective = self.pose(problem, mesh)
        if self.start is not None:
            begin(objective, self.start, window, self.trainings)
        return objective

    @abstractmethod
    def train(self, objective: Objective, budget: Budget) -> tuple[Objective, OptimiserResult]:
        """Train within the budget; the objective of the function that is the answer."""

    def init(
        self, problem: Problem | LinearSystem, on: Grid | Mesh | Points | None = None
    ) -> TrainedState:
        """Read the equation off the problem and draw the first parameters."""
        begun = time.perf_counter()
        given, place = bound(problem, on)
        device = torch.get_default_device()
        if isinstance(place, Grid):
            check_memory(given, place, torch.float64, device, words=_WORDS)
        if self.points:
            try:
                check_memory(given, Grid((self.points,)), torch.float64, device, words=_WORDS)
            except InputError:
                raise InputError(
                    f"{self.points} points are more than fit into memory", "solver.points"
                ) from None
        objective = self.posed(given, mesh=_mesh(place))
        _check_balance(given, objective, place)
        return TrainedState(given, objective, place, time.perf_counter() - begun)

    def run(
        self,
        state: TrainedState,
        *,
        initial: Tensor | None = None,
        b: Tensor | None = None,
        progress: Progress | None = None,
        frames: Any = None,
    ) -> Solution:
        """Train, then verify at fresh points and on the grid; the same again for the same state.

        Raises InputError for a start or a right-hand side: a trained function takes neither.
        """
        if b is not None or initial is not None:
            raise InputError("a function is trained from its own start; leave initial and b out")
        if state.trained:
            again = self.posed(state.problem, mesh=_mesh(state.on))
            vars(state.objective).update(vars(again))
        state.trained = True
        budget = Budget(self.seconds, progress, state.record)
        objective, result = self.train(state.objective, budget)
        return answered(self, objective, result, state.on, state.setup_seconds, self.rtol)


@dataclass(frozen=True, kw_only=True)
class Collocation(TrainedSolver):
    """A function whose residuals are made small at points; float64.

    ``hard``: build Dirichlet data and the start into the ansatz, by default on boxes, elsewhere the
    start alone; ``extension``: carried into the
    box by these expressions, by field, which may hold what is singular of the solution.
    ``weights``: of the equation, of soft conditions by side, of ``start``; numbers, or expressions
    of the place such as ``(x*(1 - x))**2``. ``windows``: pieces of time trained one after the
    other, each with its share of the wall time that is left.
    """

    hard: bool | None = None
    extension: Mapping[str, float | str] | None = None
    sampler: AnySampler = field(default_factory=Sobol)
    weights: Mapping[str, float | str] = field(default_factory=dict)
    windows: int = 1

    @abstractmethod
    def ansatz(self, form: StrongForm) -> Network:
        """The function before it is trained."""

    @abstractmethod
    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """Train the function of one objective."""

    def pose(self, problem: Problem, mesh: Mesh | None = None) -> Objective:
        """The residuals of the equation, its conditions and what was observed.

        Raises InputError for windows where there is no time, or that begin with data which no
        extension knows.
        """
        several = self.windows > 1
        if several and self.extension is not None:
            raise InputError(
                "windows begin with data that no extension knows; leave one of the two out",
                "solver.extension",
            )
        if several and problem.time is None:
            raise InputError("windows is for problems in time", "solver.windows")
        objective = objective_of(
            problem, self.ansatz, self.hard, self.weights, self.extension, mesh
        )
        if several and (objective.unknown or problem.observations is not None):
            raise InputError("windows are for problems without unknowns", "solver.windows")
        return objective

    def train(self, objective: Objective, budget: Budget) -> tuple[Objective, OptimiserResult]:
        """As a whole, or window by window."""
        if self.windows == 1:
            return objective, self.minimise(objective, budget)
        begun = time.perf_counter()

        def window(part: Objective, left: int, before: int) -> OptimiserResult:
            spent, share = time.perf_counter() - begun, None
            if budget.seconds is not None:
                share = max(budget.seconds - spent, 0.0) / left
            return self.minimise(part, budget.after(before, share))

        region = objective.form.region
        mesh = region.mesh if isinstance(region, Meshed) else None
        return in_windows(
            objective, self.windows, partial(self.posed, mesh=mesh), window, self.hard is not False
        )

    @property
    def trainings(self) -> int:
        """The windows."""
        return self.windows

    def minimisation(
        self,
        objective: Objective,
        inside: int,
        generator: torch.Generator,
        budget: Budget,
        total: int,
        weightings: Sequence[Weighting] = (),
    ) -> Minimisation:
        """Of residuals at ``inside`` points; ends at half of ``rtol``, confirmed at fresh ones."""
        scale = max(scales_of(objective).equation, 1e-300)
        return Minimisation(
            self.sampler,
            self.counts(objective, inside),
            generator,
            tolerance=(0.5 * self.rtol * scale) ** 2,
            seconds=budget.seconds,
            progress=budget.progress,
            record=budget.record,
            relative=lambda loss: loss**0.5 / scale,
            confirmed=lambda: met(objective, self.rtol),
            weightings=weightings,
            error=exact_error(objective),
            total=total,
        )

    def counts(self, objective: Objective, inside: int) -> list[int]:
        """How many points each piece has."""
        beside = self.boundary_points or max(2, inside // _PER_SIDE)
        return [inside if piece.name == "equation" else beside for piece in objective.pieces]


def at_least(options: Any, least: float, *names: str, key: str = "solver") -> None:
    """Raise InputError for a number among the options ``names`` below ``least``, infinite, or NaN.

    Options that are None, or that there are not, say nothing.
    """
    for name in names:
        value = getattr(options, name, None)
        if value is not None and not least <= value < math.inf:
            said = "must not be negative" if least == 0 else f"must be at least {least:g}"
            said = "must be finite" if value == math.inf else said
            raise InputError(f"{name} {said}; got {value}", f"{key}.{name}")


def bound(
    problem: Problem | LinearSystem, on: Grid | Mesh | Points | None
) -> tuple[Problem, Grid | Points | Mesh]:
    """The problem and where its answer is wanted, bound to its domain.

    A linear system stands for the problem that it was made of. Raises InputError for a matrix, or
    nowhere.
    """
    if isinstance(problem, LinearSystem):
        origin, on = problem.problem, problem.on
        if origin is None:
            raise InputError("a function is trained on a problem, not on a matrix", "solver.kind")
        problem = origin
    if problem.of_time_alone and not (on is None or isinstance(on, Points)):
        raise InputError("functions of t alone have no place: leave on out", "grid")
    if on is None and problem.of_time_alone:
        on = Points(1)
    if on is None:
        raise InputError(
            "a problem needs a place for its answer: pass on=Grid((129, 129)) or on=Points(1000)"
        )
    if isinstance(on, Mesh):
        return problem, on
    if isinstance(on, Points) and problem.domain is not None:
        return problem, on.bind(problem.domain)
    return problem, on.bind(problem.box)


def _mesh(on: Grid | Points | Mesh) -> Mesh | None:
    return on if isinstance(on, Mesh) else None


def _check_balance(problem: Problem, objective: Objective, on: Grid | Points | Mesh) -> None:
    """Raise IncompatibleData where no solution is, as a discretisation on a coarse grid does."""
    d = objective.form.data.box.dimension
    if problem.time is not None or objective.unknown or d > _GRIDDED:
        return
    if not bool(free_constants(objective).any()):
        return
    try:
        semidiscretize(problem, on if isinstance(on, Mesh) else Grid((_COARSE,) * d))
    except IncompatibleData:
        raise
    except InputError:
        pass  # what a grid cannot do, points may


def exact_error(objective: Objective) -> Callable[[], float] | None:
    """The relative L2 error at fixed points, where the problem says its exact solution.

    In time that of the end, as everywhere, and absolute beside zero: see ``Solution.error``.
    """
    form = objective.form
    exact = form.problem.exact
    if exact is None or len(form.fields) > 1:
        return None
    piece = objective.pieces[0]
    points = piece.place(sobol(2000, piece.free, torch.Generator().manual_seed(1)))
    if form.problem.time is not None:
        points[:, -1] = form.problem.time.end
    form.data(exact, "problem.exact", points)
    free = bool(free_constants(objective).any())

    @torch.no_grad()
    def error() -> float:
        wanted = form.data(exact, "problem.exact", points).expand(len(points))
        wanted = wanted - wanted.mean() if free else wanted
        gap = objective.ansatz.value(points)[:, 0] - wanted
        gap = gap - gap.mean() if free else gap
        size = float(wanted.norm())
        return float(gap.norm()) / (size if size > 0 else len(points) ** 0.5)

    return error
