"""``sciml sweep``: the quantities of a spec against one of its parameters, solved where it counts.

The curve is first a Chebyshev series on 5, 9, 17, ... points, each set part of the next: as long as
its last coefficients shrink at every doubling, and until they are below the tolerance. A curve that
is not so smooth is a cubic spline, whose intervals are halved until it meets the values in their
middles twice in a row, and its integral Simpson's rule (Vitenti et al. 2024, arXiv 2412.13423).
What was solved before serves both. The points of a round are one batch, solved together.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.interpolate import BarycentricInterpolator, CubicSpline

from sciml.app.output import heads, last
from sciml.app.read import explain
from sciml.app.run import Setting, answer
from sciml.app.spec import Spec
from sciml.core.disk import atomic_write
from sciml.core.errors import InputError, SolveError, did_you_mean
from sciml.core.run.labels import named

# Values of all quantities (points, quantities) at parameters (points,).
Evaluate = Callable[[np.ndarray], np.ndarray]
_FIRST, _MOST = 5, 2000
_TRIED = 17  # points of a series, by which it must have shown that its coefficients shrink
_SHRINKS = 0.3
_PASSES = 2
_NARROW = 1e-6  # an interval, of 2, that is halved no more: the curve jumps


@dataclass(frozen=True)
class Over:
    """The parameter that is swept: ``name=low:high``, evenly in its logarithm with ``:log``."""

    name: str
    low: float
    high: float
    log: bool = False

    def at(self, s: np.ndarray) -> np.ndarray:
        """The parameter at places -1 to 1."""
        share = (np.asarray(s) + 1) / 2
        if self.log:
            return np.asarray(self.low * (self.high / self.low) ** share)
        return np.asarray(self.low + share * (self.high - self.low))


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
    if not low < high:
        raise InputError(f"--over '{text}': {low:g} is not below {high:g}")
    if len(parts) == 3 and not low > 0:
        raise InputError(f"--over '{text}': a logarithm needs a range above zero")
    return Over(name.strip(), low, high, len(parts) == 3)


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
        share = np.asarray(parameter, dtype=np.float64)
        if self.over.log:
            share = np.log(share / self.over.low) / np.log(self.over.high / self.over.low)
        else:
            share = (share - self.over.low) / (self.over.high - self.over.low)
        if self.kind == "spline":
            return np.asarray(CubicSpline(self.places, self.values)(2 * share - 1))
        return np.asarray(BarycentricInterpolator(self.places, self.values)(2 * share - 1))


def sweep(
    spec: Spec,
    over: Over,
    tolerance: float,
    setting: Setting,
    told: Callable[[str], None] = lambda line: None,
) -> Curve:
    """The curves of all quantities to a relative ``tolerance``; raises InputError, SolveError."""
    if spec.output is None or not spec.output.quantities:
        raise InputError(
            explain(InputError("give output: {quantities: ...}, what is swept for"), spec)
        )
    if not 1e-12 < tolerance < 1:
        raise InputError(f"--tolerance {tolerance:g}: give one between 1e-12 and 1")
    known = spec.problem.parameters
    if over.name not in known:
        tail = did_you_mean(over.name, known) if known else ": the problem has no parameters"
        raise InputError(f"--over: there is no parameter '{over.name}'{tail}")
    count = 0

    def evaluate(places: np.ndarray) -> np.ndarray:
        nonlocal count
        count += len(places)
        told(f"{len(places)} solves, {count} in all")
        return _solved(spec, over, over.at(places), setting)

    shown = replace(over, name=named(spec.labels, over.name))
    return traced(evaluate, tuple(heads(spec).values()), shown, tolerance)


def _solved(spec: Spec, over: Over, parameters: np.ndarray, setting: Setting) -> np.ndarray:
    """The quantities of a batch, (points, quantities); in time those of the last frame."""
    given = {**spec.problem.parameters, over.name: tuple(map(float, parameters))}
    result = answer(replace(spec, problem=replace(spec.problem, parameters=given)), setting)
    for status, k in zip(result.solution.statuses, parameters, strict=False):
        if not status.success:
            raise SolveError(f"at {over.name} = {k:g}: {status}")
    assert result.measured is not None
    columns = []
    for measurement in result.measured.quantities.values():
        value = last(measurement, result.solution).detach()
        columns.append(np.broadcast_to(value.numpy(), parameters.shape))
    return np.stack(columns, -1)


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
    """Intervals halved until each has met its middle twice."""
    passed = np.zeros(len(places) - 1, dtype=int)
    worst = np.inf
    while (passed < _PASSES).any():
        left = np.flatnonzero(passed < _PASSES)
        narrowest = np.diff(places)[left].min()
        if len(places) + len(left) > _MOST or narrowest < _NARROW:
            return Curve(names, over, places, values, "spline", worst, False)
        spline = CubicSpline(places, values)
        middles = (places[left] + places[left + 1]) / 2
        found = evaluate(middles)
        size = np.abs(values).max(0)
        scale = np.where(size > 0, size, 1.0)
        gap = np.abs(spline(middles) - found) / scale
        width = (places[left + 1] - places[left])[:, None]
        simpson = (values[left] + 4 * found + values[left + 1]) / 6
        whole = np.stack([spline.integrate(places[i], places[i + 1]) for i in left]) / width
        worst_of = np.maximum(gap, np.abs(whole - simpson) / scale).max(1)
        worst = float(worst_of.max())
        marks = np.where(worst_of <= tolerance, passed[left] + 1, 0)
        passed[left] = marks
        passed = np.insert(passed, left + 1, marks)
        places = np.insert(places, left + 1, middles)
        values = np.insert(values, left + 1, found, axis=0)
    return Curve(names, over, places, values, "spline", worst, True)


def write(curve: Curve, folder: Path) -> list[Path]:
    """``sweep.csv``, a row for every solve, and ``sweep.png``; the paths."""
    from sciml.app.figures import plot_curves

    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / "sweep.csv", folder / "sweep.png"
    with atomic_write(table) as temporary, open(temporary, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([curve.over.name, *curve.names])
        rows.writerows([k, *row] for k, row in zip(curve.parameter, curve.values, strict=True))
    dense = curve.over.at(np.linspace(-1, 1, 400))
    lines: Mapping[str, np.ndarray] = dict(zip(curve.names, curve(dense).T, strict=True))
    marks = dict(zip(curve.names, curve.values.T, strict=True))
    plot_curves(
        dense, lines, curve.over.name, picture, marks=(curve.parameter, marks), log=curve.over.log
    )
    return [table, picture]
