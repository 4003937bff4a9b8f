"""Unknowns of a problem from observations of its answer, by Gauss, Newton, Levenberg, Marquardt.

Of the readings d_n, with the deviations w_n of their noise, the unknowns s minimise

    |rho(s)|^2 / 2,        rho_n = (m_n(u(s), s) - d_n) / w_n,

u(s) the answer of the problem by any solver of steady problems, J = d rho / ds exact
(``sensitivities``). A step solves (J^T J + lambda D) p = -J^T rho, D the largest squares of J's
columns so far, lambda after Nielsen (1999). It ends where what the linear model could still gain,
|P rho| with P onto the range of J, is below 1e-4 of what is noise per degree of freedom (the
relative offset of Bates and Watts 1981), or below 1e-7 of the readings where these have none.
Bounds are those of ``trained.unknowns``: a bounded number is found in a free coordinate.

At the answer cov = sigma^2 (J^T J)^-1, sigma the noise as stated or as estimated from what is left,
|rho|^2 over the degrees of freedom. Of several fields without stated noise each has its own,
found by weighing anew.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args

import torch
from scipy.stats import t as student
from torch import Tensor

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import Grid, Points, axis_names
from sciml.core.problem.mesh import Mesh, inside
from sciml.core.problem.problem import Problem, Unknown
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.auto import Auto
from sciml.solvers.fit.sensitivities import Answer, Experiment, jacobian, solved
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct
from sciml.solvers.linear.fast_poisson import FastPoisson
from sciml.solvers.linear.iteration import check_options
from sciml.solvers.linear.krylov import CG, GMRES, MINRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.nonlinear.newton import Newton, Picard
from sciml.solvers.solve import solve
from sciml.solvers.trained.identification import Identification, judged
from sciml.solvers.trained.observations import (
    Observations,
    judge,
    read_observations,
    refuse_outside,
)
from sciml.solvers.trained.unknowns import (
    check_named,
    coordinate_of,
    slope_at,
    unknowns_of,
    value_at,
)

Inner: TypeAlias = (
    Auto | CG | MINRES | GMRES | Direct | Multigrid | AMG | FastPoisson | Newton | Picard
)

_OFFSET = 1e-4  # of the noise per degree of freedom, that a step may still gain
_ACCEPTED = 1e-2  # of it, where the answers are not accurate enough to gain anything
_EXACT = 1e-7  # of the readings' size: as exact as they are read
_FIRST, _LARGEST = 1e-3, 1e12  # dampings
_RANK = 1e-10  # of the largest singular value of J with columns of length one
_REWEIGHED = 3  # times that several fields' noises are found anew
_LIKELY = 0.95  # of an interval
_APART = 1e6  # sizes of the domain between the readings of two experiments
_SAME = 1e-9  # relative distance of two values of a parameter that are one


def fit(
    problem: Problem,
    observations: Any = None,
    solver: Any = None,
    *,
    on: Grid | Mesh,
    unknowns: Mapping[str, Unknown] | None = None,
    noise: float | Mapping[str, float] | None = None,
    initial: Tensor | None = None,
    throw: bool = True,
    progress: Progress | None = None,
) -> Solution:
    """The solution of a problem whose unknowns are found from observations, with their errors.

    ``observations``: columns by name, coordinates and fields, or a CSV file; those of the problem
    where none are given here. ``unknowns``: parameters that are to be found, which the problem has
    as numbers, ``{"k": Unknown(1.0, lower=0)}``. ``noise``: the standard deviation of readings.
    ``solver``: what answers at every guess, or a :class:`Fit`, or a solver that trains a function.
    ``throw=True`` raises SolveError where the unknowns were not found.
    """
    given = {"observations": observations, "noise": noise}
    stated = {name: value for name, value in given.items() if value is not None}
    parameters = {**problem.parameters, **(unknowns or {})}
    problem = replace(problem, parameters=parameters, **stated)
    chosen = Auto() if solver is None else solver
    if isinstance(chosen, get_args(Inner)):
        chosen = Fit(solver=chosen)
    return solve(problem, chosen, on=on, initial=initial, throw=throw, progress=progress)


@dataclass(frozen=True)
class FitState:
    """What is observed of which problem, and where the unknowns begin, (P,)."""

    problem: Problem
    unknowns: Mapping[str, Unknown]
    experiment: Experiment
    start: Tensor


@dataclass(frozen=True)
class Fit:
    """Finds the unknowns of a steady problem on a grid or a mesh from observations.

    ``solver`` answers the problem at every guess, as accurately as it says. ``rtol``: of the
    readings' spread, what a misfit may be that is no noise. ``iterations``: steps of Levenberg's
    and Marquardt's method.
    """

    kind: Literal["fit"] = "fit"
    solver: Inner = field(default_factory=Auto)
    rtol: float = 1e-3
    iterations: int = 50
    reads_problem = True  # itself, not its discretisation
    progresses = "step {step}, a misfit of {reached:.3e} of the readings"

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.iterations)

    def init(self, problem: Problem | LinearSystem, on: Any = None) -> FitState:
        """Read the observations; raises InputError for a problem that leaves nothing to find."""
        if isinstance(problem, LinearSystem):
            raise InputError("a matrix has no unknowns but its solution: fit takes a Problem")
        if on is None or isinstance(on, Points):
            raise InputError(
                "fit solves on a grid or a mesh; at points pinn finds unknowns", "points"
            )
        if problem.time is not None:
            raise InputError(
                "unknowns of problems in time are found by pinn, gaussians, random_features",
                "problem.time",
            )
        problem.check_unbounded()
        on = on.bind(problem.box) if isinstance(on, Grid) else on
        unknowns = unknowns_of(problem)
        if not unknowns:
            raise InputError(
                "nothing is unknown: write parameters: {k: {unknown: 1.0}}, 1.0 the first guess",
                "problem.parameters",
            )
        check_named(problem)
        observed, sample = _observed(problem, on)
        names = list(unknowns)

        def problem_at(s: Tensor) -> Problem:
            found = {name: value_at(unknowns[name], s[k]) for k, name in enumerate(names)}
            return replace(problem, parameters={**problem.parameters, **found})

        start = torch.tensor([coordinate_of(u) for u in unknowns.values()], dtype=torch.float64)
        experiment = Experiment(problem_at, on, self.solver, observed, sample)
        return FitState(problem, unknowns, experiment, start)

    def run(
        self,
        state: FitState,
        *,
        initial: Tensor | None = None,
        b: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Until no step gains more; ``progress(step, misfit)`` after each, relative."""
        if b is not None:
            raise InputError("a fit has readings in place of a right-hand side; leave b out")
        begun = time.perf_counter()
        search = Search(state.experiment, self.iterations, progress)
        try:
            course = search.run(state.start, initial)
        except torch.linalg.LinAlgError as error:
            raise SolveError(f"the step of a fit: {error}") from None
        return _answered(self, state, course, time.perf_counter() - begun)


@dataclass(frozen=True)
class Course:
    """Where a search ended: its ``answer``, the ``status`` of the search, and J, (N f, P).

    ``weights`` (N f,): what misfits were divided by; ``misfits``: relative, of every step.
    """

    answer: Answer
    status: Status
    J: Tensor
    weights: Tensor
    misfits: tuple[float, ...]
    solves: int


class Search:
    """Levenberg's and Marquardt's method; counts its solves."""

    def __init__(self, experiment: Experiment, iterations: int, progress: Progress | None) -> None:
        self.experiment, self.iterations, self.progress = experiment, iterations, progress
        observed = experiment.observed
        self.seen = observed.seen.flatten()
        self.solves = 0
        self.misfits: list[float] = []

    def run(self, start: Tensor, initial: Tensor | None) -> Course:
        """From ``start``; with several fields whose noise is not stated, weighed anew."""
        observed = self.experiment.observed
        answer = self._solved(start, initial)
        _check_readings(answer.readings)
        fields = observed.seen.shape[1]
        own = observed.noise if observed.noise is not None else _spread(observed.seen)
        rounds = _REWEIGHED if observed.noise is None and fields > 1 else 1
        for _ in range(rounds):
            weights = own.expand_as(observed.seen).flatten()
            answer, status, J = self._least(answer, weights)
            gap = (answer.readings - self.seen).reshape(-1, fields)
            own = torch.maximum(gap.square().mean(0).sqrt(), _EXACT * _spread(observed.seen))
            if status is not Status.CONVERGED:
                break
        return Course(answer, status, J, weights, tuple(self.misfits), self.solves)

    def _least(self, answer: Answer, weights: Tensor) -> tuple[Answer, Status, Tensor]:
        """The least squares from an answer, with misfits divided by ``weights``."""
        size = float((self.seen / weights).norm()) or 1.0
        damping, growth = _FIRST, 2.0
        J = jacobian(self.experiment, answer)
        rho = (answer.readings - self.seen) / weights
        D = torch.zeros_like(answer.s)
        for step in range(self.iterations + 1):
            if step == 0:
                self._told(rho, size)
            A = J / weights[:, None]
            gain = _gain(A, rho)
            freedom = max(len(rho) - len(D), 1)
            noise = float(rho.norm()) * (len(D) / freedom) ** 0.5
            if gain <= max(_OFFSET * noise, _EXACT * size):
                return answer, Status.CONVERGED, J
            if step == self.iterations:
                break
            D = torch.maximum(D, A.square().sum(0))
            scale = D.where(D > 0, torch.ones_like(D)).sqrt()
            while True:
                p = _step(A, rho, scale, damping)
                trial = self._tried(answer, p)
                new = (trial.readings - self.seen) / weights
                predicted = float(rho.square().sum() - (rho + A @ p).square().sum())
                fell = float(rho.square().sum() - new.square().sum())
                good = trial is not answer and math.isfinite(fell) and fell > 0
                if good:
                    damping *= max(1 / 3, 1 - (2 * fell / predicted - 1) ** 3)
                    growth = 2.0
                    break
                if gain <= max(_ACCEPTED * noise, 100 * _EXACT * size):
                    return answer, Status.CONVERGED, J
                damping, growth = damping * growth, growth * 2
                if damping > _LARGEST:
                    return answer, Status.STAGNATED, J
            answer, rho = trial, new
            self._told(rho, size)
            J = jacobian(self.experiment, answer)
        return answer, Status.MAX_ITERATIONS, J

    def _solved(self, s: Tensor, initial: Tensor | None) -> Answer:
        self.solves += 1
        return solved(self.experiment, s, initial)

    def _tried(self, answer: Answer, p: Tensor) -> Answer:
        """The answer a step on, or this one where there is none: a step too far."""
        try:
            trial = self._solved(answer.s.detach() + p, answer.solution.value)
        except (InputError, SolveError):
            return answer
        return trial if trial.solution.status.success else answer

    def _told(self, rho: Tensor, size: float) -> None:
        self.misfits.append(float(rho.norm()) / size)
        if self.progress is not None:
            self.progress(len(self.misfits) - 1, self.misfits[-1])


def _gain(A: Tensor, rho: Tensor) -> float:
    """|P rho|, P onto the range of A (n, p), directions left out that it all but lacks."""
    length = A.norm(dim=0)
    U, s, _ = torch.linalg.svd(A / length.where(length > 0, torch.ones_like(length)),
                               full_matrices=False)  # fmt: skip
    return float((U[:, s > _RANK * s[0]].T @ rho).norm())


def _step(A: Tensor, rho: Tensor, scale: Tensor, damping: float) -> Tensor:
    """The least |rho + A p|^2 + damping |scale p|^2, by orthogonal transformations."""
    rows = torch.cat([A, damping**0.5 * torch.diag(scale)])
    right = torch.cat([-rho, torch.zeros_like(scale)])
    found: Tensor = torch.linalg.lstsq(rows, right[:, None]).solution[:, 0]
    return found


def _spread(seen: Tensor) -> Tensor:
    """The deviation of each field's readings (f,), or where they do not deviate their size."""
    own, size = seen.std(0, correction=0), seen.square().mean(0).sqrt()
    found = own.where(own > 0, size)
    return found.where(found > 0, torch.ones_like(found))


def _observed(problem: Problem, on: Grid | Mesh) -> tuple[Observations, Tensor | None]:
    """The readings, and of which sample of a batch each of them is."""
    axes = axis_names(len(on.coordinates()))
    batched = {n: p for n, p in problem.parameters.items() if _listed(p)}
    fields = problem.unknowns
    if isinstance(on, Mesh):
        nodes = torch.as_tensor(on.nodes, dtype=torch.float64)
        corners = nodes.amin(0), nodes.amax(0)
    else:
        box = problem.box
        corners = torch.tensor(box.lower).double(), torch.tensor(box.upper).double()
    observed, told = read_observations(problem, axes, fields, corners, tuple(batched))
    gaps = (~observed.read).nonzero()
    if len(gaps):
        row, k = gaps[0].tolist()
        raise InputError(
            f"observation {row + 1} does not read {observed.names[k]}: a fit by a solver on a grid "
            "or a mesh reads every field at every place",
            "problem.observations",
        )
    if isinstance(on, Mesh):
        refuse_outside(inside(on, observed.points))
    for k, name in enumerate(observed.names):
        column = observed.seen[:, k]
        if len(column) > 2 and bool((column == column[0]).all()):
            raise InputError(
                f"all {len(column)} observations of {name} are {float(column[0]):g}: a sensor that "
                "does not move tells nothing of the unknowns",
                "problem.observations",
            )
    if not batched:
        return observed, None
    return observed, _samples(batched, told)


def _listed(parameter: Any) -> bool:
    return isinstance(parameter, (list, tuple)) or getattr(parameter, "ndim", 0) == 1


def _samples(batched: Mapping[str, Any], told: Mapping[str, Tensor]) -> Tensor:
    """Which sample each reading is of, (N,), by its parameters' values."""
    if not told:
        raise InputError(
            f"the problem is several, one for each {' and '.join(batched)}: give the observations "
            f"a column {next(iter(batched))}, whose value says which",
            "problem.observations",
        )
    away = torch.zeros(())
    for name, column in told.items():
        values = torch.as_tensor(batched[name], dtype=torch.float64)
        size = float(values.abs().max()) or 1.0
        away = away + (column[:, None] - values).abs() / size
    far, which = away.min(1)
    if bool((far > _SAME).any()):
        row = int((far > _SAME).nonzero()[0])
        at = ", ".join(f"{name} = {float(column[row]):g}" for name, column in told.items())
        raise InputError(
            f"observation {row + 1} at {at} is of none of the problems, {', '.join(told)} of which "
            f"are {'; '.join(str(list(batched[n])) for n in told)}",
            "problem.observations",
        )
    if bool(((away <= _SAME).sum(1) > 1).any()):
        raise InputError(
            f"{', '.join(told)} does not tell the problems apart; give columns of "
            f"{', '.join(batched)}",
            "problem.observations",
        )
    return which


def _check_readings(readings: Tensor) -> None:
    bad = (~torch.isfinite(readings)).nonzero()
    if len(bad):
        raise InputError(
            f"observation {int(bad[0]) + 1} lies where there is no answer: inside an obstacle, or "
            "where the first guess gives none",
            "problem.observations",
        )


def _answered(solver: Fit, state: FitState, course: Course, seconds: float) -> Solution:
    """The solution at the unknowns found, judged."""
    answer, observed = course.answer, state.experiment.observed
    solution, fields = answer.solution, observed.seen.shape[1]
    count = len(state.unknowns)
    gap = (answer.readings - observed.seen.flatten()).reshape(-1, fields)
    values = solution.value.detach()
    axis = -len(state.experiment.on.shape) - 1
    wide = values.movedim(axis, 0) if len(solution.fields) > 1 else values[None]
    spread = observed.spread(wide.flatten(1).T.nan_to_num(0.0))
    misfit = judge(_apart(observed, state.experiment.sample), gap, spread, solver.rtol, count)
    found = {
        name: float(value_at(unknown, answer.s.detach()[k]))
        for k, (name, unknown) in enumerate(state.unknowns.items())
    }
    known, notes = Identification({}, ()), list[str]()
    if solution.status.success:
        known, notes = _identified(state, course, found, misfit.deviation)
    faults = [*([misfit.fault] if misfit.fault else []), *known.open]
    status = solution.status
    if status.success and course.status is not Status.CONVERGED:
        status = course.status
        faults.append(f"the fit ended after {solver.iterations} steps, or could take none")
    elif status.success and misfit.fault:
        status = Status.MISFIT
    elif status.success and known.open:
        status = Status.UNDETERMINED
    way = "unknown" if count <= observed.seen.numel() else "reading"
    each = count if way == "unknown" else observed.seen.numel()
    said = (
        f"fit: {len(course.misfits) - 1} steps, {course.solves} solves, and {each} linear ones at "
        f"each step, one for each {way}; misfits of {_sizes(observed, misfit.size)}"
    )
    iterations = torch.full_like(solution.stats.iterations, len(course.misfits) - 1)
    history = torch.tensor(course.misfits, dtype=torch.float64)
    history = history.reshape(-1, *(1,) * iterations.ndim).expand(-1, *iterations.shape)
    return replace(
        solution,
        value=values,
        statuses=tuple(status if old.success else old for old in solution.statuses),
        stats=Statistics(iterations, history, 0.0, seconds),
        solver=solver,
        notes=(*solution.notes, said, *notes, *faults, *known.notes),
        parameters=found,
        standard_errors=known.errors,
    )


def _sizes(observed: Observations, size: Tensor) -> str:
    parts = zip(observed.names, size.tolist(), strict=True)
    return ", ".join(f"{value:.3g} in {name}" for name, value in parts) + " (root mean square)"


def _apart(observed: Observations, sample: Tensor | None) -> Observations:
    """The readings such that those of other experiments are no neighbours."""
    if sample is None:
        return observed
    points = torch.cat([observed.points, sample[:, None].double()], -1)
    extent = torch.cat([observed.extent, observed.extent.new_tensor([1 / _APART])])
    return replace(observed, points=points, extent=extent)


def _identified(
    state: FitState, course: Course, found: Mapping[str, float], deviation: Tensor
) -> tuple[Identification, list[str]]:
    """Standard errors, and a line on each unknown."""
    observed, s = state.experiment.observed, course.answer.s.detach()
    noise = deviation.expand_as(observed.seen).flatten()
    weights = noise.where(noise > 0, course.weights)
    slope = torch.tensor([slope_at(u, s[k]) for k, u in enumerate(state.unknowns.values())])
    slope = slope.where(slope != 0, torch.ones_like(slope))
    K = course.J / weights[:, None] / slope
    missing = max(0, K.shape[1] - K.shape[0])
    K = torch.cat([K, K.new_zeros(missing, K.shape[1])])
    told = torch.cat([(noise > 0).to(K), K.new_zeros(missing)])
    p = torch.tensor([found[name] for name in state.unknowns], dtype=K.dtype)
    known = judged(
        state.unknowns,
        p,
        K,
        K.new_zeros(len(K)),
        told,
        K.norm(dim=0),
        len(noise),
        told=bool(deviation.any()),
    )
    freedom = math.inf if observed.noise is not None else len(noise) - K.shape[1]
    lines = []
    for k, (name, unknown) in enumerate(state.unknowns.items()):
        error = known.errors.get(name)
        line = f"found {name} = {found[name]:.8g}"
        if error is not None and math.isfinite(error):
            reach = float(student.ppf((1 + _LIKELY) / 2, freedom)) * error / abs(float(slope[k]))
            ends = sorted(float(value_at(unknown, s[k] + way)) for way in (-reach, reach))
            line += f" +- {error:.2g}, {_LIKELY:.0%} of the time in {ends[0]:.6g} to {ends[1]:.6g}"
        lines.append(line)
    return known, lines
