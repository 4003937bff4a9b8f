"""What of a problem's data lies between the points of a grid, where the discretisation never looks.

A smooth datum g stands for itself by its values at the grid's points. How much of it these miss is
seen half way between them, beside what interpolation makes of their values:

    share = ||g - I g|| / max(||g||, ||I g||)      at the middles of the grid's cells,

h^2 |g''| / 8 of a datum that the grid resolves, and all of sin(40 pi x) on a grid of 1/32. A datum
that jumps is integrated over the control volumes instead, an array has nothing between its points.
Some thousand points are looked at, whatever the grid's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import Context, Unknown, compile, read_parameters, short
from sciml.core.problem.table import Table

_CELLS = {1: 512, 2: 32, 3: 8}  # per axis
_APART = ("kind", "energy", "alpha")


def unseen(problem: Problem, grid: Grid) -> dict[str, float]:
    """The share of each datum that the grid does not see, by its key; of what can be evaluated.

    ``grid`` is bound. In time at the start.
    """
    box, found = problem.box, {}
    data: list[tuple[str, Any, tuple[int, float] | None]]
    data = [(key, value, None) for key, value in _leaves(problem.equation, "problem.equation")]
    data += [(f"problem.initial.{name}", value, None) for name, value in problem.first.items()]
    for number, side in enumerate(box.sides):
        end = number // 2, (box.lower, box.upper)[number % 2][number // 2]
        leaves = _leaves(problem.boundary[side], f"problem.boundary.{side}")
        data += [(key, value, end) for key, value in leaves]
    for key, value, place in data:
        share = _share(value, problem, grid, place)
        if share is not None:
            found[short(key)] = share
    return found


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (str, Table)) or callable(value):
        yield key, value
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _leaves(entry, f"{key}.{name}")
    elif isinstance(value, (list, tuple)):
        for k, entry in enumerate(value):
            yield from _leaves(entry, f"{key}[{k}]")
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in _APART:
                yield from _leaves(getattr(value, field.name), f"{key}.{field.name}")


def _share(
    coefficient: Any, problem: Problem, grid: Grid, place: tuple[int, float] | None
) -> float | None:
    """None for what jumps, depends on the solution, or cannot be evaluated here."""
    d, axes = len(grid.shape), problem.box.axes
    known = {k: v for k, v in problem.parameters.items() if not isinstance(v, Unknown)}
    ends, middles = [], []
    for k, points in enumerate(grid.axes()):
        if place is not None and place[0] == k:
            at = torch.tensor([place[1]], dtype=torch.float64)
            ends.append(at)
            middles.append(at)
            continue
        cells = min(_CELLS[d], len(points) - 1)
        generator = torch.Generator().manual_seed(k)
        chosen = torch.randperm(len(points) - 1, generator=generator)[:cells].sort().values
        low, high = points[chosen].cpu(), points[chosen + 1].cpu()
        ends.append(torch.cat([low, high]))
        middles.append((low + high) / 2)
    try:
        numbers, tables = read_parameters(known, ())
        timed = problem.time is not None
        context = Context(
            axes, timed, (), tuple(numbers), (), tuple(tables.items()) if tables else ()
        )
        read = compile(coefficient, context, "")
        if read.names.isdisjoint(axes) or read.jumps or any(p.ndim for p in numbers.values()):
            return None
        start = 0.0 if problem.time is None else problem.time.start
        values = {**numbers, "t": torch.tensor(start, dtype=torch.float64)}
        corner, middle = (
            read.at(_crossed(points), values).expand([len(p) for p in points]).detach()
            for points in (ends, middles)
        )
    except (InputError, RuntimeError, TypeError, ValueError, ArithmeticError):
        return None  # it is read again, and complained of, where it is used
    for k in range(d):
        if place is None or place[0] != k:
            low, high = corner.chunk(2, k)
            corner = (low + high) / 2
    size = max(float(middle.norm()), float(corner.norm()))
    # Of a function nobody can say whether it jumps: then the two differ, but not by all of it.
    share = float((middle - corner).norm()) / size if 0 < size < torch.inf else 0.0
    return share if read.jumps is not None or share > 0.9 else None


def _crossed(points: list[torch.Tensor]) -> list[torch.Tensor]:
    d = len(points)
    return [p.reshape([-1 if j == k else 1 for j in range(d)]) for k, p in enumerate(points)]
