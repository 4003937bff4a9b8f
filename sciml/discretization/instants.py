"""The instants at which a problem's data change: where the steps of an integrator must land.

Error estimates compare what a method sees at its stages. While the data are quiet the steps grow,
and a pulse that begins and ends between two stages is seen by none of them. So the data that depend
on t are sampled beforehand, at evenly spaced instants and scattered points, and steps land where
they begin to change after a quiet time, and where they cease to. The knots of a table in t are
instants by themselves.

Across a jump the estimates mean nothing: all stages but the first may lie behind it. Where the data
jump at once, at a quarter or more of the points at which they vary at all, the instant is found by
bisection, to the last bit. Steps end before it and begin anew after, as they do at the instants of
``time: {breaks: [...]}``; there belong those of a pulse that is shorter than the distance of two
samples, which is still unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import (
    NORMAL,
    Context,
    Unknown,
    compile,
    free_names,
    read_parameters,
    state_names,
)
from sciml.core.problem.table import Table

_SAMPLES = 1024  # intervals of the whole time
_PROBES = 64
_QUIET = 1e-4  # of all that a datum changes by, between two samples
_LONG = 20  # intervals from which on a quiet time is one
_LONE = 3.0  # by how much an interval with a jump changes more than the one before or after it
_KEPT = 0.25  # of a change that is left in the half where it is: smooth data keep half and less
_NOISE = 1e-9  # of all that a datum changes by: less may be rounding
_AT_ONCE = 0.25  # of the points where a datum varies


Points = list[torch.Tensor]


@dataclass(frozen=True)
class Instants:
    """``breaks``: where data jump, said or found; ``edges``: where they begin to change."""

    breaks: tuple[float, ...]
    edges: tuple[float, ...]

    @property
    def shortest(self) -> float:
        """The least distance between any two; infinite where there are none."""
        found = sorted({*self.breaks, *self.edges})
        return min((b - a for a, b in pairwise(found)), default=torch.inf)


def instants(problem: Problem, mesh: Mesh | None = None) -> Instants:
    """Those of a problem in time, inside it; on a mesh, its nodes are where data are looked at."""
    span = problem.time
    if span is None:
        return Instants((), ())
    data = [d for d in _data(problem) if "t" in free_names(d, problem.parameters)]
    tables = {d for d in data if isinstance(d, Table)}
    tables |= {p for p in problem.parameters.values() if isinstance(p, Table) and data}
    edges = {t for table in tables if table.of == "t" for t in _knots(table)}
    sampled, breaks = set[float](), list(span.breaks)
    points = _scattered(problem, mesh)
    length = span.end - span.start
    same = 1e-12 * max(abs(span.start), abs(span.end), length)
    for datum in data:
        if datum in tables:
            continue
        turns, jumps = _turns(datum, problem, points)
        sampled |= set(turns)
        # What several data have in common is one instant, and what was said is exact.
        breaks += [t for t in jumps if all(abs(t - known) > same for known in breaks)]
    # The samples on either side of a jump are where it was seen, and no more.
    beside = 1.5 * length / _SAMPLES
    edges |= {t for t in sampled if all(abs(t - known) > beside for known in breaks)}
    inside = tuple(sorted(t for t in edges if span.start < t < span.end))
    return Instants(tuple(sorted(breaks)), tuple(t for t in inside if t not in breaks))


def _data(problem: Problem) -> Iterator[Any]:
    """All coefficients and boundary data of a problem."""
    yield from _leaves(problem.equation)
    yield from _leaves(problem.boundary)
    if problem.obstacle is not None:
        yield from _leaves(problem.obstacle.boundary)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (str, Table)) or callable(value):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from _leaves(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _leaves(entry)
    elif is_dataclass(value):
        for field in fields(value):
            if field.name != "kind":
                yield from _leaves(getattr(value, field.name))


def _knots(table: Table) -> list[float]:
    found = read_parameters({"table": table}, ())[1]["table"]
    return [float(t) for t in found.knots]


def _turns(coefficient: Any, problem: Problem, points: Points) -> tuple[list[float], list[float]]:
    """Where a datum turns from quiet to changing, or back; and where it jumps."""
    span = problem.time
    assert span is not None
    t = torch.linspace(span.start, span.end, _SAMPLES + 1, dtype=torch.float64)
    flat = _sampled(coefficient, problem, points, t)
    if flat is None:
        return [], []
    # Any sample and point alone: what is small beside its neighbours counts by its own size.
    change = flat.diff(dim=-1).abs()
    whole = flat.amax(-1, keepdim=True) - flat.amin(-1, keepdim=True)
    whole = whole.clamp_min(torch.finfo(t.dtype).tiny)
    return _edges(t, change, whole), _jumps(coefficient, problem, points, t, flat, whole)


def _edges(t: torch.Tensor, change: torch.Tensor, whole: torch.Tensor) -> list[float]:
    busy = (change > _QUIET * whole).any(0).tolist()
    edges: set[int] = set()
    k = 0
    while k < _SAMPLES:
        end = k
        while end < _SAMPLES and busy[end] == busy[k]:
            end += 1
        if end - k >= _LONG and not busy[k]:
            edges |= {k, end}
        k = end
    # A method of one stage sees nothing of a step but its end: between two quiet times it has four.
    marks = sorted(edges)
    for a, b in pairwise(marks):
        if busy[a]:
            edges |= {a + (b - a) * part // 4 for part in (1, 2, 3)}
    return [float(t[k]) for k in sorted(edges)]


def _jumps(
    coefficient: Any,
    problem: Problem,
    points: Points,
    t: torch.Tensor,
    flat: torch.Tensor,
    whole: torch.Tensor,
) -> list[float]:
    """By bisection of the intervals that change much more than a neighbour, all at a time."""
    change = flat.diff(dim=-1).abs()
    before, after = change[:, :-1], change[:, 1:]
    beside = torch.minimum(
        torch.cat([after[:, :1], before], 1), torch.cat([after, before[:, -1:]], 1)
    )
    lone = (change > _LONE * beside) & (change > _NOISE * whole)
    needed = max(1.0, _AT_ONCE * float((change > 0).any(-1).sum()))
    k = torch.nonzero(lone.sum(0) >= needed)[:, 0]
    low, high, a, b = t[k], t[k + 1], flat[:, k], flat[:, k + 1]
    least = torch.where(lone, _KEPT * change, torch.inf)[:, k]
    finest = float(t[-1] - t[0]) * 2.0**-60  # near zero numbers lie closer than that
    while len(low):
        middle = low + (high - low) / 2
        if not bool(((middle > low) & (middle < high) & (high - low > finest)).any()):
            break
        found = _sampled(coefficient, problem, points, middle)
        if found is None:
            return []
        left = ((found - a).abs() / whole).sum(0) >= ((b - found).abs() / whole).sum(0)
        low, high = torch.where(left, low, middle), torch.where(left, middle, high)
        a, b = torch.where(left, a, found), torch.where(left, found, b)
        kept = ((b - a).abs() >= least).sum(0) >= needed
        low, high, a, b, least = low[kept], high[kept], a[:, kept], b[:, kept], least[:, kept]
    return (low + (high - low) / 2).tolist()


def _scattered(problem: Problem, mesh: Mesh | None) -> Points:
    """Points of the place, one tensor (1, probes) per axis."""
    generator = torch.Generator().manual_seed(0)
    if mesh is not None:
        chosen = torch.randint(mesh.shape[0], (1, _PROBES), generator=generator)
        return [axis[chosen] for axis in mesh.coordinates()]
    box = problem.box if problem.domain is None else problem.domain.box
    shares = torch.rand(len(box.axes), 1, _PROBES, generator=generator, dtype=torch.float64)
    bounds = zip(box.lower, box.upper, strict=True)
    return [low + (high - low) * s for s, (low, high) in zip(shares, bounds, strict=True)]


def _sampled(
    coefficient: Any, problem: Problem, points: Points, t: torch.Tensor
) -> torch.Tensor | None:
    """A datum at instants (T,), (samples and scattered points, T); None where it cannot be had."""
    axes = AXES[: len(points)] if problem.domain is None else problem.domain.axes
    known = {k: v for k, v in problem.parameters.items() if not isinstance(v, Unknown)}
    try:
        numbers, tables = read_parameters(known, ())
        state = state_names(problem.equation.fields(len(axes)), AXES)
        context = Context(
            axes, True, state, tuple(numbers), NORMAL, tuple(tables.items()) if tables else ()
        )
        read = compile(coefficient, context, "")
        values = {name: p.reshape(*p.shape, 1, 1) for name, p in numbers.items()}
        # At zero what is a multiple of the solution, or of a normal, would vanish.
        values |= dict.fromkeys((*state, *NORMAL), torch.full((1, 1), 0.5, dtype=torch.float64))
        try:
            value = read.at(points, {**values, "t": t[:, None]})
            value = value.expand(torch.broadcast_shapes(value.shape, (len(t), _PROBES)))
        except (RuntimeError, TypeError, ValueError):  # a function that takes one instant at a time
            each = [read.at(points, {**values, "t": s}) for s in t]
            value = torch.cat([v.expand(*v.shape[:-2], 1, _PROBES) for v in each], -2)
    except (InputError, RuntimeError, TypeError, ValueError, ArithmeticError):
        return None  # it is read again, and complained of, where it is used
    value = torch.nan_to_num(value.detach().double())
    return value.reshape(-1, *value.shape[-2:]).transpose(-1, -2).reshape(-1, len(t))
