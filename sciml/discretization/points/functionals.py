"""Quantities of an answer at scattered points, and of a trained function wherever it is asked.

Integrals over the box, a region or a side are means over Sobol's points there times the volume or
the area; their error is estimated from the means over eight blocks of the points. A trained
function is evaluated itself at probes, along lines and on sides, with its slopes; of an answer
without its function only the values at its own points are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import Equation, NavierStokes, Residual, System, derivative
from sciml.core.problem.expression import level_set
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import (
    NORMAL,
    Compiled,
    Context,
    compile,
    expression,
    free_names,
    read_parameters,
    state_names,
)
from sciml.core.run.quantities import Measure, Measurement, Prepare, Quantity
from sciml.discretization.points.jet import closed, jet_of
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.region import hole_of

_BLOCKS = 8
_COUNT = 4096  # points on a side of a grid's box
# Points (n, D), time last, to the fields there (n, fields).
Function = Callable[[torch.Tensor], torch.Tensor]


@measures(Equation, Points)
@measures(System, Points)
@measures(NavierStokes, Points)
@measures(Residual, Points)
@measures(Residual, Grid)
def measures_at_points(
    problem: Problem, on: Points | Grid, function: Function | None = None
) -> Prepare:
    """How quantities are measured; raises InputError for one that means nothing here."""
    return partial(_prepared, problem, on, function)


def _prepared(
    problem: Problem, on: Points | Grid, function: Function | None, quantity: Quantity, key: str
) -> Measure:
    if quantity.flux is not None or quantity.force is not None:
        raise InputError(
            "at points a flux is written out: {integral: -K*(ux*nx + uy*ny), on: side}",
            f"{key}.{quantity.kind}",
        )
    box, fields = problem.box, problem.equation.fields(problem.box.dimension, tuple(problem.first))
    axes, faced = box.axes, quantity.on is not None
    numbers, tables = read_parameters(problem.parameters, ())
    places = axes if problem.time is None else (*axes, "t")
    what = fields[0] if quantity.what is None else quantity.what
    named = {n: derivative(n, fields, places) for n in free_names(what)}
    derivatives = {n: of for n, of in named.items() if of is not None}
    context = Context(
        axes,
        problem.time is not None,
        tuple(dict.fromkeys((*state_names(fields, axes), *derivatives))),
        tuple(numbers),
        NORMAL[: box.dimension] if faced else (),
        tuple(tables.items()),
        () if problem.time is not None else (("t", "this problem has no time"),),
    )
    name = "of" if quantity.at is not None else quantity.kind
    read = compile(what, context, f"{key}.{name}")
    part = _part(problem, on, quantity, context, numbers, key)
    known = _Known(read, fields, derivatives, part, numbers, function)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        found = known.values(value, t)
        if quantity.at is not None:
            return Measurement(found[..., 0])
        if quantity.kind in ("max", "min"):
            place = found.argmax(-1) if quantity.kind == "max" else found.argmin(-1)
            return Measurement(found.gather(-1, place[..., None])[..., 0], part.points[place])
        size = 1.0 if quantity.kind == "mean" else part.size
        error = None
        if found.shape[-1] >= 2 * _BLOCKS:
            means = torch.stack([block.mean(-1) for block in found.tensor_split(_BLOCKS, -1)])
            error = size * means.detach().std(0) / math.sqrt(_BLOCKS)
        return Measurement(size * found.mean(-1), error=error)

    return measured


@dataclass(frozen=True)
class _Part:
    """Points (n, d) in a part of the box of this ``size``, a volume or an area.

    ``own``: which of the answer's own points they are, None where they are others. ``normal``: of
    a side, its axis and sign.
    """

    points: torch.Tensor
    size: float
    own: torch.Tensor | None = None
    normal: tuple[int, float] | None = None


def _part(
    problem: Problem,
    on: Points | Grid,
    quantity: Quantity,
    context: Context,
    numbers: dict[str, torch.Tensor],
    key: str,
) -> _Part:
    box = problem.box
    lengths = [b - a for a, b in zip(box.lower, box.upper, strict=True)]
    if quantity.at is not None:
        if len(quantity.at) != box.dimension:
            raise InputError(
                f"a point here has {box.dimension} coordinates; got {len(quantity.at)}", f"{key}.at"
            )
        if not all(a <= x <= b for a, x, b in zip(box.lower, quantity.at, box.upper, strict=True)):
            told = ", ".join(f"{x:g}" for x in quantity.at)
            raise InputError(f"({told}) lies outside the domain", f"{key}.at")
        place = torch.tensor([quantity.at], dtype=torch.float64)
        hole = hole_of(Pointwise(problem, (), numbers))
        if hole is not None and not bool(hole.outside(place)):
            told = ", ".join(f"{x:g}" for x in quantity.at)
            raise InputError(f"({told}) lies in the obstacle", f"{key}.at")
        return _Part(place, 0.0)
    cloud = on if isinstance(on, Points) else Points(_COUNT, domain=box)
    points = torch.stack(cloud.bind(box).coordinates(), -1)
    hole = hole_of(Pointwise(problem, (), numbers))
    if quantity.on is not None:
        if quantity.on not in box.sides:
            tail = did_you_mean(quantity.on, box.sides)
            raise InputError(f"there is no part '{quantity.on}' of the boundary{tail}", f"{key}.on")
        axis, end = divmod(box.sides.index(quantity.on), 2)
        points[:, axis] = (box.lower, box.upper)[end][axis]
        area = math.prod(length for k, length in enumerate(lengths) if k != axis)
        if hole is not None:
            bare = hole.outside(points)
            points, area = points[bare], area * float(bare.double().mean())
        return _Part(points, area, normal=(axis, 1.0 if end else -1.0))
    volume, own = math.prod(lengths), torch.arange(len(points))
    if hole is not None:
        own = own[hole.outside(points)]
        volume *= len(own) / len(points)
    if quantity.region is not None:
        try:
            phi = expression(quantity.region, context)
            if not phi.is_mask:
                raise InputError("a region is a condition such as x < 0.5")
            signed = level_set(phi)
        except InputError as error:
            raise InputError(error.message, f"{key}.region") from None
        named = dict(zip(box.axes, points.T, strict=True)) | numbers
        inside = signed(**{name: v for name, v in named.items() if name in signed.names}) <= 0
        there, before = inside.expand(len(points))[own], len(own)
        own = own[there]
        if not len(own):
            raise InputError(f"no point lies in '{quantity.region}'", f"{key}.region")
        volume *= len(own) / before
    return _Part(points[own], volume, own)


@dataclass(frozen=True)
class _Known:
    """What an expression may name, at a part's points; ``derivatives``: the field and the axes."""

    read: Compiled
    fields: tuple[str, ...]
    derivatives: Mapping[str, tuple[int, tuple[int, ...]]]
    part: _Part
    numbers: dict[str, torch.Tensor]
    function: Function | None

    def values(self, value: torch.Tensor, t: float | None) -> torch.Tensor:
        """The expression (*batch, n)."""
        points, found = self.part.points, dict(self.numbers)
        found |= self._evaluated(t) if self.function is not None else self._given(value)
        if t is not None:
            found["t"] = torch.tensor(t, dtype=torch.float64)
        if self.part.normal is not None:
            axis, sign = self.part.normal
            for k, name in enumerate(NORMAL[: points.shape[1]]):
                found[name] = torch.tensor(sign if k == axis else 0.0, dtype=torch.float64)
        there = {name: v for name, v in found.items() if name in self.read.names}
        result = self.read.at(tuple(points.T), there)
        return (
            result.expand(*result.shape[:-1], len(points))
            if result.ndim
            else (result.expand(len(points)))
        )

    def _given(self, value: torch.Tensor) -> dict[str, torch.Tensor]:
        own = self.part.own
        if own is None or self.read.names & self.derivatives.keys():
            raise InputError(
                "between scattered points, and of slopes there, only the trained function tells: "
                "ask in the run that trains it"
            )
        several = len(self.fields) > 1
        parts = value.unbind(-2) if several else (value,)
        return {n: v[..., own] for n, v in zip(self.fields, parts, strict=True)}

    def _evaluated(self, t: float | None) -> dict[str, torch.Tensor]:
        assert self.function is not None
        x, wanted = self.part.points, self.derivatives
        if t is not None:
            x = torch.cat([x, torch.full_like(x[:, :1], t)], -1)
        if not wanted:
            value = self.function(x).detach()
            return {n: value[:, k] for k, n in enumerate(self.fields)}
        jet = jet_of(self.function, x, closed(axes for _, axes in wanted.values()))
        found = {n: jet.value[:, k] for k, n in enumerate(self.fields)}
        for name, (k, axes) in wanted.items():
            slope = jet.gradient[axes[0]] if len(axes) == 1 else jet.derivative(*axes)
            found[name] = slope[:, k]
        return found
