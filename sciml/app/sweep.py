"""``sciml sweep``: the quantities of a spec against its parameters, solved where it counts.

The curve is first a Chebyshev series on 5, 9, 17, ... points, each set part of the next: as long as
its last coefficients shrink at every doubling, and until they are below the tolerance. A curve that
is not so smooth is a cubic spline of the same points' angle, whose intervals are halved until it
meets the values in their middles, and its integral Simpson's rule, after it has nearly met those of
the interval before (Vitenti et al. 2024, arXiv 2412.13423). What was solved before serves both. The
points of a round are one batch, solved together; each starts from the answers around it. Over
several parameters there is a product of such series.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import BarycentricInterpolator, CubicSpline
from scipy.optimize import minimize_scalar

from sciml.app.output import heads, last
from sciml.app.read import explain
from sciml.app.run import Setting, answer
from sciml.app.spec import Range, Spec, Sweep
from sciml.core.disk import atomic_write
from sciml.core.errors import InputError, SolveError
from sciml.core.run.labels import named

# Values of all quantities (points, quantities) at places (points,) or (points, parameters).
Evaluate = Callable[[np.ndarray], np.ndarray]
_FIRST, _MOST = 5, 2000
_TRIED = 17  # points of a series, by which it must have shown that its coefficients shrink
_SHRINKS = 0.3
_PASSES = 2
_FALLS = 16  # so much a spline's error falls when its intervals are halved
_NARROW = 1e-6  # an interval, of 1, that is halved no more: the curve jumps


@dataclass(frozen=True)
class Over:
    """The parameter that is swept, and its range."""

    name: str
    range: Range

    def at(self, s: np.ndarray) -> np.ndarray:
        """The parameter at places -1 to 1."""
        share, low, high = (np.asarray(s) + 1) / 2, self.range.low, self.range.high
        if self.range.log:
            return np.asarray(low * (high / low) ** share)
        return np.asarray(low + share * (high - low))

    def place(self, parameter: np.ndarray) -> np.ndarray:
        """The places of values of the parameter."""
        value, low, high = np.asarray(parameter, np.float64), self.range.low, self.range.high
        if self.range.log:
            return np.asarray(2 * np.log(value / low) / np.log(high / low) - 1)
        return np.asarray(2 * (value - low) / (high - low) - 1)


def read_over(text: str) -> Over:
    """``k=1:100:log``; raises InputError for anything else."""
    name, equals, rest = text.partition("=")
    parts = rest.split(":")
    try:
        low, high = float(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        low = high = np.nan
    known = len(parts) == 2 or parts[2:] == ["log"]
    if not (equals and known and np.isfinite([low, high]).all()):
        raise InputError(
            f"--over '{text}': write a parameter and its range, k=1:100 or k=1:100:log"
        )
    try:
        return Over(name.strip(), Range(low, high, len(parts) == 3))
    except InputError as error:
        raise InputError(f"--over '{text}': {error.message}") from None


@dataclass(frozen=True)
class Curve:
    """Quantities against a parameter: where they were solved, their values, and what joins them.

    ``places`` (n,), increasing, of ``parameter`` (n,), ``values`` (n, quantities). ``kind``:
    chebyshev or spline. ``error``: the largest distance, relative to each quantity's largest value,
    that the last round found. ``converged``: whether that is within the tolerance.
    """

    names: tuple[str, ...]
    over: Over
    places: np.ndarray
    values: np.ndarray
    kind: str
    error: float
    converged: bool

    @property
    def parameter(self) -> np.ndarray:
        """The parameter where it was solved."""
        return self.over.at(self.places)

    def __call__(self, parameter: np.ndarray) -> np.ndarray:
        """The curve at other values of the parameter, (points, quantities)."""
        place = np.clip(self.over.place(parameter), -1, 1)
        if self.kind == "chebyshev":
            return np.asarray(BarycentricInterpolator(self.places, self.values)(place))
        own, angle = (np.arccos(-np.clip(s, -1, 1)) / np.pi for s in (self.places, place))
        return np.asarray(CubicSpline(own, self.values)(angle))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of solves along the parameter."""
        return (len(self.places),)

    def extremes(self) -> dict[str, tuple[tuple[float, tuple[float]], tuple[float, tuple[float]]]]:
        """Of each quantity the least and the largest value on the curve, each with its place."""
        found = {}
        for k, name in enumerate(self.names):
            least, most = self._least(k, 1.0), self._least(k, -1.0)
            found[name] = (least, (-most[0], most[1]))
        return found

    def _least(self, k: int, sign: float) -> tuple[float, tuple[float]]:
        """The least value of a quantity times a sign, and where."""

        def function(places: np.ndarray) -> np.ndarray:
            return sign * self(self.over.at(places))[:, k]

        tried = np.linspace(-1, 1, 4001)
        values = function(tried)
        at = int(np.argmin(values))
        bounds = tried[max(at - 1, 0)], tried[min(at + 1, len(tried) - 1)]
        found = minimize_scalar(
            lambda s: float(function(np.array([s]))[0]),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-10},
        )
        value, place = min((float(values[at]), tried[at]), (float(found.fun), found.x))
        return value, (float(self.over.at(place)),)


@dataclass(frozen=True)
class Table:
    """Quantities against several parameters, on a product of Chebyshev points.

    ``places``: per parameter (n,), increasing; ``values`` (n, m, ..., quantities). ``error``,
    ``converged``: as of a curve.
    """

    names: tuple[str, ...]
    overs: tuple[Over, ...]
    places: tuple[np.ndarray, ...]
    values: np.ndarray
    error: float
    converged: bool

    def __call__(self, *parameters: np.ndarray) -> np.ndarray:
        """The table at a product of other values, one vector per parameter."""
        found = self.values
        for axis, (over, own, wanted) in enumerate(
            zip(self.overs, self.places, parameters, strict=True)
        ):
            joined = BarycentricInterpolator(own, found, axis=axis)
            found = np.asarray(joined(over.place(wanted)))
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of solves along each parameter."""
        return self.values.shape[:-1]

    def extremes(self) -> dict[str, tuple[tuple[float, tuple[float, ...]], ...]]:
        """Of each quantity the least and the largest value that was solved, each with its place."""
        found = {}
        for k, name in enumerate(self.names):
            of = self.values[..., k]
            pair = []
            for index in (of.argmin(), of.argmax()):
                places = np.unravel_index(int(index), of.shape)
                where = (
                    float(o.at(p[i]))
                    for o, p, i in zip(self.overs, self.places, places, strict=True)
                )
                pair.append((float(of[places]), tuple(where)))
            found[name] = tuple(pair)
        return found


def stated(
    spec: Spec, over: Sequence[str], tolerance: float | None
) -> tuple[tuple[Over, ...], float]:
    """What a command and a spec say is swept, and the tolerance; the command goes before."""
    own = spec.sweep
    if not over and own is None:
        raise InputError(
            "say what is swept: --over k=1:100, or sweep: {over: {k: {low: 1, high: 100}}} "
            "in the spec"
        )
    if tolerance is None:
        tolerance = Sweep.tolerance if own is None else own.tolerance
    if over or own is None:
        return tuple(map(read_over, over)), tolerance
    return tuple(Over(name, given) for name, given in own.over.items()), tolerance


def sweep(
    spec: Spec,
    over: Over | Sequence[Over],
    tolerance: float,
    setting: Setting,
    told: Callable[[str], None] = lambda line: None,
) -> Curve | Table:
    """The curves of all quantities, or their table over several parameters.

    To a relative ``tolerance``. Raises InputError, SolveError.
    """
    overs = (over,) if isinstance(over, Over) else tuple(over)
    if spec.output is None or not spec.output.quantities:
        raise InputError(
            explain(InputError("give output: {quantities: ...}, what is swept for"), spec)
        )
    if not 1e-12 < tolerance < 1:
        raise InputError(f"--tolerance {tolerance:g}: give one between 1e-12 and 1")
    for k, one in enumerate(overs):
        if one.name in [other.name for other in overs[:k]]:
            raise InputError(f"--over: '{one.name}' is swept twice")
        try:
            spec.check_swept(one.name)
        except InputError as error:
            raise InputError(f"--over: {error.message}") from None
    names, solves = tuple(heads(spec).values()), Solves(spec, overs, setting, told)
    shown = tuple(replace(one, name=named(spec.labels, one.name)) for one in overs)
    if len(overs) == 1:
        return traced(lambda s: solves(s[:, None]), names, shown[0], tolerance)
    return tabulated(solves, names, shown, tolerance)


_KEPT = 2**28  # bytes of answers that start others


class Solves:
    """Quantities at places (n, parameters) of -1 to 1, solved as one batch: (n, quantities).

    A steady answer starts from those that were found before: along one parameter from what lies
    between its neighbours, of several from the nearest. ``count``, ``iterations``: in all.
    """

    def __init__(
        self,
        spec: Spec,
        overs: Sequence[Over],
        setting: Setting,
        told: Callable[[str], None] = lambda line: None,
        started: bool = True,
    ) -> None:
        self.spec, self.overs, self.setting, self.told = spec, tuple(overs), setting, told
        trained = getattr(spec.solver, "reads_problem", False)
        self.started = started and spec.problem.time is None and not trained
        self.count = self.iterations = 0
        self.places = np.empty((0, len(self.overs)))
        self.answers: torch.Tensor | None = None

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """Those of a batch, in time of the last frame; raises SolveError where one fails."""
        parameters = [over.at(column) for over, column in zip(self.overs, places.T, strict=True)]
        given = {o.name: tuple(map(float, p)) for o, p in zip(self.overs, parameters, strict=True)}
        problem = self.spec.problem
        spec = replace(
            self.spec, problem=replace(problem, parameters={**problem.parameters, **given}),
            sweep=None,
        )  # fmt: skip
        guess = self._guess(places)
        if guess is not None and getattr(spec.solver, "continuation", None) is not None:
            spec = replace(spec, solver=replace(spec.solver, continuation=None))
        result = answer(spec, self.setting, initial=guess)
        for status, *where in zip(result.solution.statuses, *parameters, strict=False):
            if not status.success:
                at = ", ".join(f"{o.name} = {k:g}" for o, k in zip(self.overs, where, strict=True))
                raise SolveError(f"at {at}: {status}")
        new = int(result.solution.stats.iterations.sum())
        self.count, self.iterations = self.count + len(places), self.iterations + new
        self.told(f"{len(places)} solves, {self.count} in all, {self.iterations} iterations")
        self._keep(places, result.solution.value)
        assert result.measured is not None
        columns = []
        for name, measurement in result.measured.quantities.items():
            value = last(measurement, result.solution).detach()
            columns.append(np.broadcast_to(value.numpy(), (len(places),)))
            untold = ~np.isfinite(columns[-1])
            if untold.any():
                first = [float(p[untold][0]) for p in parameters]
                told = ", ".join(
                    f"{o.name} = {k:g}" for o, k in zip(self.overs, first, strict=True)
                )
                raise SolveError(f"'{name}' cannot be told at {told}: leave it out of the sweep")
        return np.stack(columns, -1)

    def _keep(self, places: np.ndarray, value: torch.Tensor) -> None:
        size = value.numel() * value.element_size()
        if not self.started or len(value) != len(places):
            return
        known = self.answers
        if known is not None and known.numel() * known.element_size() + size > _KEPT:
            return
        self.places = np.concatenate([self.places, places])
        self.answers = value if known is None else torch.cat([known, value])

    def _guess(self, places: np.ndarray) -> torch.Tensor | None:
        if self.answers is None:
            return None
        if len(self.overs) > 1:
            gap = np.square(places[:, None] - self.places[None]).sum(-1)
            return self.answers[gap.argmin(1)].nan_to_num(0.0)
        order = np.argsort(self.places[:, 0])
        known, here = self.places[order, 0], places[:, 0]
        right = np.clip(np.searchsorted(known, here), 1, len(known) - 1)
        share = (here - known[right - 1]) / (known[right] - known[right - 1])
        weight = torch.from_numpy(np.clip(share, 0, 1)).reshape(-1, *(1,) * (self.answers.ndim - 1))
        low, high = self.answers[order[right - 1]], self.answers[order[right]]
        return torch.lerp(low, high, weight.to(low.dtype)).nan_to_num(0.0)


def tabulated(
    evaluate: Evaluate, names: Sequence[str], overs: Sequence[Over], tolerance: float
) -> Table:
    """A table on Chebyshev points, twice as many along each parameter until the series converges.

    ``evaluate`` takes places (n, parameters).
    """
    sizes, known = [_FIRST] * len(overs), dict[tuple[float, ...], np.ndarray]()
    while True:
        axes = [np.cos(np.pi * np.arange(n) / (n - 1))[::-1].round(15) for n in sizes]
        points = list(product(*(map(float, axis) for axis in axes)))
        new = [p for p in points if p not in known]
        known |= dict(zip(new, evaluate(np.array(new)), strict=True))
        values = np.array([known[p] for p in points]).reshape(*sizes, len(names))
        tails = [_tail(np.moveaxis(values, k, 0).reshape(n, -1)) for k, n in enumerate(sizes)]
        finer = [2 * n - 1 if t > tolerance else n for n, t in zip(sizes, tails, strict=True)]
        done = finer == sizes
        if done or np.prod(finer) > _MOST:
            error = float(max(tails))
            return Table(tuple(names), tuple(overs), tuple(axes), values, error, done)
        sizes = finer


def traced(evaluate: Evaluate, names: Sequence[str], over: Over, tolerance: float) -> Curve:
    """The curve to a tolerance, by a Chebyshev series or a spline."""
    places = np.cos(np.pi * np.arange(_FIRST) / (_FIRST - 1))[::-1]
    values, before = evaluate(places), np.inf
    while True:
        tail = _tail(values)
        if tail <= tolerance:
            return Curve(tuple(names), over, places, values, "chebyshev", tail, True)
        hopeless = len(places) >= _TRIED and tail > _SHRINKS * before
        if hopeless or 2 * len(places) > _MOST:
            break
        before = tail
        n = 2 * (len(places) - 1)
        finer = np.cos(np.pi * np.arange(n + 1) / n)[::-1]
        new = np.empty((n + 1, values.shape[1]))
        new[::2], new[1::2] = values, evaluate(finer[1::2])
        places, values = finer, new
    return _splined(evaluate, tuple(names), over, tolerance, places, values)


def _tail(values: np.ndarray) -> float:
    """The larger of the last two Chebyshev coefficients, relative to each quantity's size."""
    n = len(values) - 1
    full = np.concatenate([values[::-1], values[1:-1]])
    coefficients = np.abs(np.fft.rfft(full, axis=0)) / n
    size = np.abs(values).max(0)
    relative = coefficients[-2:].max(0) / np.where(size > 0, size, 1.0)
    return float(relative.max())


def _splined(
    evaluate: Evaluate,
    names: tuple[str, ...],
    over: Over,
    tolerance: float,
    places: np.ndarray,
    values: np.ndarray,
) -> Curve:
    """Intervals of the angle halved until each has met its middle twice; what is known serves."""
    angles = np.arange(len(places)) / (len(places) - 1)
    known = dict(zip(angles.tolist(), values, strict=True))
    angles = angles[:: (len(places) - 1) // (_FIRST - 1)]
    passed, worst, converged = np.zeros(_FIRST - 1, dtype=int), np.inf, True
    while (passed < _PASSES).any():
        left = np.flatnonzero(passed < _PASSES)
        middles = (angles[left] + angles[left + 1]) / 2
        new = np.array([m for m in middles.tolist() if m not in known])
        if len(known) + len(new) > _MOST or np.diff(angles)[left].min() < _NARROW:
            converged = False
            break
        if len(new):
            known |= dict(zip(new.tolist(), evaluate(_of_angle(new)), strict=True))
        values = np.array([known[m] for m in angles.tolist()])
        spline, found = CubicSpline(angles, values), np.array([known[m] for m in middles.tolist()])
        size = np.abs(values).max(0)
        scale = np.where(size > 0, size, 1.0)
        gap = np.abs(spline(middles) - found) / scale
        width = (angles[left + 1] - angles[left])[:, None]
        simpson = (values[left] + 4 * found + values[left + 1]) / 6
        whole = np.stack([spline.integrate(angles[i], angles[i + 1]) for i in left]) / width
        worst_of = np.maximum(gap, np.abs(whole - simpson) / scale).max(1)
        worst = float(worst_of.max())
        near, met = worst_of <= _FALLS * tolerance, worst_of <= tolerance
        marks = np.where(met & (passed[left] > 0), _PASSES, np.where(near, 1, 0))
        passed[left] = marks
        passed, angles = np.insert(passed, left + 1, marks), np.insert(angles, left + 1, middles)
    angles = np.array(sorted(known))
    values = np.array([known[m] for m in angles.tolist()])
    return Curve(names, over, _of_angle(angles), values, "spline", worst, converged)


def _of_angle(angle: np.ndarray) -> np.ndarray:
    """The place, -1 to 1, of an angle in half turns: Chebyshev points are those of even angles."""
    return np.asarray(-np.cos(np.pi * angle))


def write(found: Curve | Table, folder: Path) -> list[Path]:
    """``sweep.csv``, a row for every solve, and ``sweep.png``; the paths.

    The picture has curves against one parameter, maps over two, and is left out for more.
    """
    from sciml.app.figures import plot_curves, plot_maps

    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / "sweep.csv", folder / "sweep.png"
    overs = (found.over,) if isinstance(found, Curve) else found.overs
    axes = (found.places,) if isinstance(found, Curve) else found.places
    parameters = [over.at(own) for over, own in zip(overs, axes, strict=True)]
    with atomic_write(table) as temporary, open(temporary, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(over.name for over in overs), *found.names])
        solved = found.values.reshape(-1, len(found.names))
        rows.writerows([*p, *row] for p, row in zip(product(*parameters), solved, strict=True))
    if isinstance(found, Curve):
        over, dense = found.over, found.over.at(np.linspace(-1, 1, 400))
        lines: Mapping[str, np.ndarray] = dict(zip(found.names, found(dense).T, strict=True))
        marks = dict(zip(found.names, found.values.T, strict=True))
        plot_curves(
            dense, lines, over.name, picture, marks=(parameters[0], marks), log=over.range.log
        )
    elif len(overs) == 2:
        fine = [over.at(np.linspace(-1, 1, 160)) for over in overs]
        values = found(*fine)
        maps = {name: values[..., k] for k, name in enumerate(found.names)}
        logs = overs[0].range.log, overs[1].range.log
        plot_maps(fine[0], fine[1], maps, (overs[0].name, overs[1].name), picture, logs=logs)
    else:
        return [table]
    return [table, picture]
