"""The instants at which a problem's data change: where the steps of an integrator must land.

Error estimates compare what a method sees at its stages. While the data are quiet the steps grow,
and a pulse that begins and ends between two stages is seen by none of them. So the data that depend
on t are sampled beforehand, at evenly spaced instants and scattered points, and steps land where
they begin to change after a quiet time, and where they cease to. A pulse shorter than the distance
of two samples is still unseen: its instants belong into ``time: {breaks: [...]}``, where steps end
before and begin anew after. The knots of a table in t are instants by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES
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


@dataclass(frozen=True)
class Instants:
    """``breaks``: where data jump, as the problem says; ``edges``: where they begin to change."""

    breaks: tuple[float, ...]
    edges: tuple[float, ...]

    @property
    def shortest(self) -> float:
        """The least distance between any two; infinite where there are none."""
        found = sorted({*self.breaks, *self.edges})
        return min((b - a for a, b in pairwise(found)), default=torch.inf)


def instants(problem: Problem) -> Instants:
    """Those of a problem in time, inside it."""
    span = problem.time
    if span is None:
        return Instants((), ())
    data = [d for d in _data(problem) if "t" in free_names(d, problem.parameters)]
    tables = {d for d in data if isinstance(d, Table)}
    tables |= {p for p in problem.parameters.values() if isinstance(p, Table) and data}
    edges = {t for table in tables if table.of == "t" for t in _knots(table)}
    edges |= {t for d in data if d not in tables for t in _edges(d, problem)}
    inside = tuple(sorted(t for t in edges if span.start < t < span.end))
    return Instants(span.breaks, tuple(t for t in inside if t not in span.breaks))


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


def _edges(coefficient: Any, problem: Problem) -> list[float]:
    """Where a datum turns from quiet to changing, or back."""
    span = problem.time
    assert span is not None
    t = torch.linspace(span.start, span.end, _SAMPLES + 1, dtype=torch.float64)
    value = _sampled(coefficient, problem, t[:, None])
    if value is None:
        return []
    # Any sample and point alone: what is small beside its neighbours counts by its own size.
    flat = value.reshape(-1, *value.shape[-2:]).transpose(-1, -2).reshape(-1, _SAMPLES + 1)
    change = flat.diff(dim=-1).abs()
    whole = flat.amax(-1, keepdim=True) - flat.amin(-1, keepdim=True)
    busy = (change > _QUIET * whole.clamp_min(torch.finfo(t.dtype).tiny)).any(0).tolist()
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


def _sampled(coefficient: Any, problem: Problem, t: torch.Tensor) -> torch.Tensor | None:
    """A datum at scattered points and all instants, (..., T, P); None where it cannot be had."""
    generator = torch.Generator().manual_seed(0)
    axes = AXES if problem.domain is None else problem.box.axes
    shares = torch.rand(len(axes), 1, _PROBES, generator=generator, dtype=torch.float64)
    bounds = zip(problem.box.lower, problem.box.upper, strict=True) if problem.domain else ()
    points = [low + (high - low) * s for s, (low, high) in zip(shares, bounds, strict=True)]
    known = {k: v for k, v in problem.parameters.items() if not isinstance(v, Unknown)}
    try:
        numbers, tables = read_parameters(known, ())
        state = state_names(problem.equation.fields(len(axes)), AXES)
        context = Context(
            axes, True, state, tuple(numbers), NORMAL, tuple(tables.items()) if tables else ()
        )
        read = compile(coefficient, context, "")
        values = {name: p.reshape(*p.shape, 1, 1) for name, p in numbers.items()}
        values |= dict.fromkeys((*state, *NORMAL), torch.zeros(1, 1, dtype=torch.float64))
        try:
            value = read.at(points, {**values, "t": t})
            value = value.expand(torch.broadcast_shapes(value.shape, (len(t), _PROBES)))
        except (RuntimeError, TypeError, ValueError):  # a function that takes one instant at a time
            each = [read.at(points, {**values, "t": s}) for s in t[:, 0]]
            value = torch.cat([v.expand(*v.shape[:-2], 1, _PROBES) for v in each], -2)
    except (InputError, RuntimeError, TypeError, ValueError, ArithmeticError):
        return None  # it is read again, and complained of, where it is used
    return torch.nan_to_num(value.detach().double())
