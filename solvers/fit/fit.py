"""Unknowns of a problem from observations of its answer: numbers, fields, laws.

Of the readings d_n, with the deviations w_n of their noise, the unknowns s minimise

    |rho(s)|^2,        rho_n = (m_n(u(s), s) - d_n) / w_n,

u(s) the answer of the problem by any solver, J = d rho / ds exact for steady problems
(``sensitivities``): numbers alone by ``least_squares``, functions by ``regularised``, with a prior.
Bounds are those of ``trained.unknowns``: a bounded number is found in a free coordinate.

At the answer cov = sigma^2 (J^T J)^-1, sigma the noise as stated or as estimated from what is left,
|rho|^2 over the degrees of freedom. Of several fields without stated noise each has its own,
found by weighing anew. Beside functions the covariance is that of the posterior.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import scipy.sparse
import torch
from scipy.stats import t as student
from torch import Tensor

from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError, SolveError, did_you_mean
from sciml.core.problem.grid import Grid, Points, axis_names
from sciml.core.problem.mesh import Mesh, inside
from sciml.core.problem.problem import Problem, Unknown
from sciml.core.problem.reader import short
from sciml.core.problem.unknown import Law, Network, UnknownField, leaves, put
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.auto import Auto
from sciml.solvers.fit.functions import (
    FieldFunction,
    LawFunction,
    field_start,
    law_deviation,
    law_start,
    reach,
)
from sciml.solvers.fit.least_squares import Course, Trials, least_squares
from sciml.solvers.fit.priors import field_precision, free_precision, law_precision
from sciml.solvers.fit.regularised import regularised
from sciml.solvers.fit.sensitivities import Experiment
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct
from sciml.solvers.linear.fast_poisson import FastPoisson
from sciml.solvers.linear.iteration import check_options
from sciml.solvers.linear.krylov import CG, GMRES, MINRES
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.nonlinear.newton import Newton, Picard
from sciml.solvers.solve import solve
from sciml.solvers.time import BDF, IMEX, SDIRK, Newmark, RungeKutta, Verlet
from sciml.solvers.time.etdrk4 import ETDRK4
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
    Auto
    | CG
    | MINRES
    | GMRES
    | Direct
    | Multigrid
    | AMG
    | FastPoisson
    | Newton
    | Picard
    | SDIRK
    | IMEX
    | BDF
    | RungeKutta
    | Verlet
    | Newmark
    | ETDRK4
)

_LIKELY = 0.95  # of an interval
_APART = 1e6  # sizes of the domain between the readings of two experiments
_MOVED = 1e-3  # of its size, that an unknown of a problem in time is moved for differences
_SAME = 1e-9  # relative distance of two values of a parameter that are one
_MOST_NODES = (1, 129, 33, 13)  # of a field along an axis, by the number of these
_MOST_UNKNOWNS = 5000  # of a field: its deviation is found node by node


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
    """What is observed of which problem, and where the unknowns begin, (P,).

    ``numbers``: by name, the first of the unknowns in their order. ``functions``: by their place,
    the next.
    """

    problem: Problem
    numbers: Mapping[str, Unknown]
    functions: Mapping[str, Function]
    experiment: Experiment
    start: Tensor

    def found(self, s: Tensor) -> dict[str, Any]:
        """The functions at unknowns s (P,), by their place."""
        return _functions_at(self.functions, s[len(self.numbers) :])

    def precision(self, s: Tensor) -> scipy.sparse.csc_matrix:
        """Of the prior, with next to nothing for the numbers."""
        sizes = [1.0 if _bounded(u) else abs(u.unknown) or 1.0 for u in self.numbers.values()]
        parts = [free_precision(sizes)] if sizes else []
        rest = s[len(self.numbers) :].split([f.size for f in self.functions.values()])
        for function, own in zip(self.functions.values(), rest, strict=True):
            parts.append(function.precision(own))
        return scipy.sparse.block_diag(parts, format="csc")

    @property
    def strength(self) -> float | None:
        """That of the prior as stated; it is within the precision."""
        return 1.0 if any(f.strength is not None for f in self.functions.values()) else None


@dataclass(frozen=True)
class Function:
    """An unknown function: its ``start`` (size,), what it is at values, and its prior there.

    ``linear``: whether that prior is Gaussian, so that a deviation means something.
    """

    start: Tensor
    strength: float | None
    at: Callable[[Tensor], FieldFunction | LawFunction]
    prior: Callable[[Tensor], scipy.sparse.csc_matrix]
    linear: bool = True

    @property
    def size(self) -> int:
        """How many unknowns it has."""
        return len(self.start)

    def precision(self, s: Tensor) -> scipy.sparse.csc_matrix:
        """R at its unknowns s, as strong as stated."""
        return self.prior(s) * (self.strength or 1.0)


def _functions_at(functions: Mapping[str, Function], s: Tensor) -> dict[str, Any]:
    parts = s.split([f.size for f in functions.values()])
    return {key: f.at(own) for (key, f), own in zip(functions.items(), parts, strict=True)}


@dataclass(frozen=True)
class Fit:
    """Finds the unknowns of a problem on a grid or a mesh from observations.

    ``solver`` answers the problem at every guess, as accurately as it says. ``rtol``: of the
    readings' spread, what a misfit may be that is no noise. ``iterations``: steps of the method.
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
        problem.check_unbounded()
        on = on.bind(problem.box) if isinstance(on, Grid) else on
        numbers, stated = unknowns_of(problem), leaves(problem, (Unknown, Law))
        if not numbers and not stated:
            raise InputError(
                "nothing is unknown: write parameters: {k: {unknown: 1.0}}, 1.0 the first guess",
                "problem.parameters",
            )
        check_named(problem)
        observed, sample = _observed(problem, on)
        _check_prior(stated, observed)
        functions = _functions(problem, on, self.solver, observed, numbers, stated)
        names = list(numbers)

        def problem_at(s: Tensor) -> Problem:
            found = {name: value_at(numbers[name], s[..., k]) for k, name in enumerate(names)}
            known = replace(problem, parameters={**problem.parameters, **found})
            return put(known, _functions_at(functions, s[len(names) :]) if functions else {})

        start = torch.tensor([coordinate_of(u) for u in numbers.values()], dtype=torch.float64)
        start = torch.cat([start, *(f.start for f in functions.values())])
        if problem.time is not None and stated:
            key = f"problem.{next(iter(stated))}"
            raise InputError(
                f"{short(key)} is a function: of problems in time unknown numbers alone are found",
                key,
            )
        steps = [1.0 if _bounded(u) else abs(u.unknown) or 1.0 for u in numbers.values()]
        moved = _MOVED * torch.tensor(steps, dtype=torch.float64)
        count = max([len(p) for p in problem.parameters.values() if _listed(p)], default=1)
        experiment = Experiment(problem_at, on, self.solver, observed, sample, count, moved)
        return FitState(problem, numbers, functions, experiment, start)

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
        trials = Trials(state.experiment, self.iterations, progress)
        try:
            if state.functions:
                course = regularised(trials, state.start, initial, state.precision, state.strength)
            else:
                course = least_squares(trials, state.start, initial)
        except torch.linalg.LinAlgError as error:
            raise SolveError(f"the step of a fit: {error}") from None
        return _answered(self, state, course, time.perf_counter() - begun)


def _check_prior(stated: Mapping[str, Any], observed: Observations) -> None:
    """Raise InputError where a prior's strength cannot be told."""
    if stated and observed.noise is None:
        raise InputError(
            f"{short(f'problem.{next(iter(stated))}')} is a function: state noise:, the standard "
            "deviation of a reading, by which is told how much of it the readings determine",
            "problem.noise",
        )
    given = {key: _options(leaf).strength is not None for key, leaf in stated.items()}
    if len(set(given.values())) > 1:
        key = next(key for key, there in given.items() if not there)
        raise InputError(
            f"{short(f'problem.{key}')} has no strength and others have: give all of them one, or "
            "none",
            f"problem.{key}",
        )


def _options(leaf: Unknown | Law) -> Any:
    return leaf.network if isinstance(leaf, Law) else leaf.unknown


def _functions(
    problem: Problem,
    on: Grid | Mesh,
    solver: Any,
    observed: Observations,
    numbers: Mapping[str, Unknown],
    stated: Mapping[str, Any],
) -> dict[str, Function]:
    """The unknown functions of a problem, by their place."""
    lower, upper = _corners(problem, on)
    found, seen = dict[str, Function](), None
    for key, leaf in stated.items():
        options = _options(leaf)
        if isinstance(options, UnknownField):
            found[key] = _field(options, on, lower, upper, f"problem.{key}")
            continue
        if not isinstance(options, Network):
            raise InputError("an unknown number is a parameter: {k: {unknown: 1.0}}, and K: k",
                             f"problem.{key}")  # fmt: skip
        if seen is None and set(options.of) - set(axis_names(len(lower))):
            guesses = {name: u.unknown for name, u in numbers.items()}
            at_first = replace(problem, parameters={**problem.parameters, **guesses})
            constants = {each: _options(of).start for each, of in stated.items()}
            first = solve(put(at_first, constants), solver, on=on, throw=False)
            seen = first
        low, high = _ranges(options.of, seen, observed, lower, upper, f"problem.{key}")
        found[key] = Function(
            law_start(options),
            options.strength,
            partial(LawFunction, options, low=low, high=high),
            partial(_law_prior, options),
        )
    return found


def _law_prior(network: Network, s: Tensor) -> scipy.sparse.csc_matrix:
    return law_precision(network)


def _field(
    options: UnknownField,
    on: Grid | Mesh,
    lower: tuple[float, ...],
    upper: tuple[float, ...],
    key: str,
) -> Function:
    most = _MOST_NODES[len(lower)]
    shape = options.shape
    if shape is None:
        own = on.shape if isinstance(on, Grid) else (most,) * len(lower)
        shape = tuple(min(n, most) for n in own)
    if len(shape) != len(lower):
        raise InputError(f"shape has {len(lower)} entries here; got {list(shape)}", key)
    if math.prod(shape) > _MOST_UNKNOWNS:
        raise InputError(
            f"shape {list(shape)} makes {math.prod(shape):,} unknowns; at most {_MOST_UNKNOWNS:,}",
            key,
        )
    sizes = [b - a for a, b in zip(lower, upper, strict=True)]
    log = options.field == "log"

    def at(s: Tensor) -> FieldFunction:
        return FieldFunction(s.reshape(shape), lower, upper, log)

    def prior(s: Tensor) -> scipy.sparse.csc_matrix:
        return field_precision(options, shape, sizes, s)

    linear = options.prior != "tv"
    return Function(field_start(options, shape), options.strength, at, prior, linear)


def _corners(problem: Problem, on: Grid | Mesh) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if isinstance(on, Mesh):
        return tuple(on.nodes.min(0).tolist()), tuple(on.nodes.max(0).tolist())
    return problem.box.lower, problem.box.upper


def _ranges(
    of: Sequence[str],
    seen: Solution | None,
    observed: Observations,
    lower: Sequence[float],
    upper: Sequence[float],
    key: str,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Between what each quantity lies: by the readings, and by the answer at the start."""
    axes, low, high = axis_names(len(lower)), [], []
    for name in of:
        if name in axes:
            low.append(lower[axes.index(name)])
            high.append(upper[axes.index(name)])
            continue
        if seen is None or name not in seen.fields:
            known = (*axes, *(() if seen is None else seen.fields))
            raise InputError(
                f"a law is of coordinates and fields, not of '{name}'{did_you_mean(name, known)}",
                f"{key}.network.of",
            )
        least, most = reach(seen, name)
        if name in observed.names:
            column = observed.seen[:, observed.names.index(name)]
            least, most = min(least, float(column.min())), max(most, float(column.max()))
        low.append(least)
        high.append(most if most > least else least + 1.0)
    return tuple(low), tuple(high)


def _observed(problem: Problem, on: Grid | Mesh) -> tuple[Observations, Tensor | None]:
    """The readings, and of which sample of a batch each of them is."""
    axes, time = axis_names(len(on.coordinates())), problem.time
    axes = axes if time is None else (*axes, "t")
    batched = {n: p for n, p in problem.parameters.items() if _listed(p)}
    fields = problem.unknowns
    lower, upper = _corners(problem, on)
    if time is not None:
        lower, upper = (*lower, time.start), (*upper, time.end)
    corners = torch.tensor(lower).double(), torch.tensor(upper).double()
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
        refuse_outside(inside(on, observed.points[:, : on.dimension]))
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


def _bounded(unknown: Unknown) -> bool:
    return (unknown.lower, unknown.upper) != (None, None)


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


def _answered(solver: Fit, state: FitState, course: Course, seconds: float) -> Solution:
    """The solution at the unknowns found, judged."""
    answer, observed = course.answer, state.experiment.observed
    solution, fields = answer.solution, observed.seen.shape[1]
    if state.problem.time is not None:  # at its own frames
        inner: Any = solver.solver
        told = state.experiment.problem_at(answer.s.detach())
        solution = inner.run(inner.init(told, state.experiment.on))
    count = len(course.answer.s)
    gap = (answer.readings - observed.seen.flatten()).reshape(-1, fields)
    values = solution.value.detach()
    axis = -len(state.experiment.on.shape) - 1
    wide = values.movedim(axis, 0) if len(solution.fields) > 1 else values[None]
    spread = observed.spread(wide.flatten(1).T.nan_to_num(0.0))
    misfit = judge(_apart(observed, state.experiment.sample), gap, spread, solver.rtol, count)
    found = {
        name: float(value_at(unknown, answer.s.detach()[k]))
        for k, (name, unknown) in enumerate(state.numbers.items())
    }
    known, notes = Identification({}, ()), list[str]()
    functions = state.found(answer.s.detach())
    deviations = dict[str, Any]()
    if solution.status.success and found:
        known, notes = _identified(state, course, found, misfit.deviation)
    if solution.status.success and functions:
        deviations = _deviations(state, course)
        notes += _told_functions(state, course, functions, solution)
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
    beside = f"{each} linear ones at each step, one for each {way}"
    if answer.tangent is None:
        beside = f"{2 * count} beside these at each step, in one batch"
    said = (
        f"fit: {len(course.misfits) - 1} steps, {course.solves} solves, and {beside}; misfits of "
        f"{_sizes(observed, misfit.size)}"
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
        functions=functions,
        deviations=deviations,
    )


def _deviations(state: FitState, course: Course) -> dict[str, Any]:
    """Of each function its standard deviation, of what is positive that of the logarithm."""
    assert course.covariance is not None
    s, begin, found = course.answer.s.detach(), len(state.numbers), dict[str, Any]()
    for key, function in state.functions.items():
        own, at_values = s[begin : begin + function.size], function.at
        place = torch.zeros(len(s), function.size, dtype=s.dtype)
        place[begin : begin + function.size] = torch.eye(function.size, dtype=s.dtype)
        covariance = course.covariance(place)[begin : begin + function.size]
        known = at_values(own)
        if isinstance(known, FieldFunction) and function.linear:
            size = covariance.diagonal().clamp(min=0.0).sqrt()
            found[key] = replace(known, values=size.reshape(known.values.shape), log=False)
        elif isinstance(known, LawFunction):
            found[key] = partial(law_deviation, known, covariance)
        begin += function.size
    return found


def _told_functions(
    state: FitState, course: Course, functions: Mapping[str, Any], solution: Solution
) -> list[str]:
    """A line on each function: how much of it the readings tell, and where it is known."""
    assert course.strength is not None and course.covariance is not None
    lines = []
    for key, function in functions.items():
        name = short(f"problem.{key}")
        if isinstance(function, FieldFunction):
            nodes = function.at_nodes()
            least, most = float(nodes.min()), float(nodes.max())
            lines.append(
                f"found {name} = {least:.4g} to {most:.4g}, a field of {nodes.numel()} nodes"
            )
            continue
        known = [
            f"{of} from {low:.4g} to {high:.4g}"
            for of in function.network.of
            if of in solution.fields
            for low, high in (reach(solution, of),)
        ]
        told = (
            f"known for {' and '.join(known)}, beyond which it only goes on" if known else "found"
        )
        lines.append(f"{name}, a law of {', '.join(function.network.of)}: {told}")
    lines.append(f"the prior weighs {course.strength:.3g} in units of the noise")
    return lines


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
    """Standard errors of the numbers, and a line on each."""
    observed, s, count = state.experiment.observed, course.answer.s.detach(), len(found)
    noise = deviation.expand_as(observed.seen).flatten()
    slope = torch.tensor([slope_at(u, s[k]) for k, u in enumerate(state.numbers.values())])
    slope = slope.where(slope != 0, torch.ones_like(slope)).to(s)
    if course.covariance is None:
        K = course.J / noise.where(noise > 0, course.weights)[:, None]
        told = (noise > 0).to(K)
    else:
        # What is left of J^T J for the numbers where the functions are free to follow.
        some = course.covariance(torch.eye(len(s), count, dtype=s.dtype))[:count]
        K = torch.linalg.cholesky(torch.linalg.inv((some + some.T) / 2)).T
        told = torch.ones(count, dtype=s.dtype)
    missing = max(0, count - len(K))
    K = torch.cat([K / slope, K.new_zeros(missing, count)])
    told = torch.cat([told, K.new_zeros(missing)])
    p = torch.tensor([found[name] for name in state.numbers], dtype=K.dtype)
    known = judged(
        state.numbers,
        p,
        K,
        K.new_zeros(len(K)),
        told,
        K.norm(dim=0),
        len(noise),
        told=bool(deviation.any()),
    )
    freedom = math.inf if observed.noise is not None else len(noise) - count
    lines = []
    for k, (name, unknown) in enumerate(state.numbers.items()):
        error = known.errors.get(name)
        line = f"found {name} = {found[name]:.8g}"
        if error is not None and math.isfinite(error):
            reach = float(student.ppf((1 + _LIKELY) / 2, freedom)) * error / abs(float(slope[k]))
            ends = sorted(float(value_at(unknown, s[k] + way)) for way in (-reach, reach))
            line += f" +- {error:.2g}, {_LIKELY:.0%} of the time in {ends[0]:.6g} to {ends[1]:.6g}"
        lines.append(line)
    return known, lines
