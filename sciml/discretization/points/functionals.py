"""Quantities of an answer at scattered points, and of a trained function wherever it is asked.

Integrals over the domain, a region of it or a side are means over Sobol's points there times the
volume or the area; their error is estimated from the means over eight blocks of the points. On
sides of shapes in the plane, and in meshes, they are by Gauss' rules. A trained
function is evaluated itself at probes, along lines and on sides, with its slopes; of an answer
without its function only the values at its own points are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import Equation, NavierStokes, System, WrittenOut, derivative
from sciml.core.problem.expression import level_set
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.quadrature import whole
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
from sciml.discretization.points.region import Boxed, Meshed, Region, region_of
from sciml.discretization.points.strong import strong_form

_BLOCKS = 8
_COUNT = 4096  # points on a side of a grid's box
_MANY = 2**14  # and in shapes
_UNKNOWN = (
    "between scattered points, and of slopes there, only the trained function tells: ask in the "
    "run that trains it"
)
# Points (n, D), time last, to the fields there (n, fields).
Function = Callable[[torch.Tensor], torch.Tensor]


@measures(Equation, Points)
@measures(System, Points)
@measures(NavierStokes, Points)
@measures(WrittenOut, Points)
@measures(WrittenOut, Grid)
def measures_at_points(
    problem: Problem, on: Points | Grid | Mesh, function: Function | None = None
) -> Prepare:
    """How quantities are measured; raises InputError for one that means nothing here."""
    return partial(_prepared, problem, on, function)


def _prepared(
    problem: Problem,
    on: Points | Grid | Mesh,
    function: Function | None,
    quantity: Quantity,
    key: str,
) -> Measure:
    numbers, tables = read_parameters(problem.parameters, ())
    region = region_of(Pointwise(problem, (), numbers), on if isinstance(on, Mesh) else None)
    box = region.box
    fields = problem.equation.fields(box.dimension, tuple(problem.first))
    if quantity.force is not None or (quantity.flux is not None and isinstance(region, Boxed)):
        raise InputError(
            "at points a flux is written out: {integral: -K*(ux*nx + uy*ny), on: side}",
            f"{key}.{quantity.kind}",
        )
    axes, faced = box.axes, quantity.on is not None
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
    part = _part(region, on, quantity, context, numbers, key)
    if quantity.flux is not None:
        return _outflow(problem, on, quantity.flux, part, function, fields, f"{key}.flux")
    name = "of" if quantity.at is not None else quantity.kind
    read = compile(what, context, f"{key}.{name}")
    known = _Known(read, fields, derivatives, part, numbers, function)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        found = known.values(value, t)
        if quantity.at is not None:
            return Measurement(found[..., 0])
        if quantity.kind in ("max", "min"):
            place = found.argmax(-1) if quantity.kind == "max" else found.argmin(-1)
            return Measurement(found.gather(-1, place[..., None])[..., 0], part.points[place])
        size = 1.0 if quantity.kind == "mean" else part.size
        if part.shares is not None:
            return Measurement(size * (found * part.shares).sum(-1))
        error = None
        if found.shape[-1] >= 2 * _BLOCKS:
            means = torch.stack([block.mean(-1) for block in found.tensor_split(_BLOCKS, -1)])
            error = size * means.detach().std(0) / math.sqrt(_BLOCKS)
        return Measurement(size * found.mean(-1), error=error)

    return measured


@dataclass(frozen=True)
class _Part:
    """Points (n, d) in a part of a region of this ``size``, a volume or an area.

    ``own``: which of the answer's own points they are, None where they are others. ``normal``: of
    a side, (n, d). ``shares``: their weights in a mean, where these differ.
    """

    points: torch.Tensor
    size: float
    own: torch.Tensor | None = None
    normal: torch.Tensor | None = None
    shares: torch.Tensor | None = None


def _part(
    region: Region,
    on: Points | Grid | Mesh,
    quantity: Quantity,
    context: Context,
    numbers: dict[str, torch.Tensor],
    key: str,
) -> _Part:
    box = region.box
    if quantity.at is not None:
        return _Part(_placed(region, quantity.at, key), 0.0)
    if quantity.on is not None:
        return _beside(region, on, quantity.on, f"{key}.on")
    if isinstance(region, Meshed):
        cells = whole(region.mesh, 2 * region.mesh.degree + 2)
        points = torch.stack([axis.flatten() for axis in cells.points], 1)
        weights = cells.measure.expand(cells.points[0].shape).flatten()
        volume = float(weights.sum())
        part = _Part(points, volume, None, None, weights / volume)
    elif isinstance(on, Mesh):
        part = _Part(region.inside(_cube(box.dimension)), region.volume)
    else:
        cloud = on if isinstance(on, Points) else Points(_COUNT, domain=box)
        points = torch.stack(cloud.bind(box).coordinates(), -1)
        own, volume = torch.arange(len(points)), region.volume
        hole = region.hole if isinstance(region, Boxed) else None
        if hole is not None:
            own = own[hole.outside(points)]
            volume = math.prod(b - a for a, b in zip(box.lower, box.upper, strict=True))
            volume *= len(own) / len(points)
        part = _Part(points[own], volume, own)
    if quantity.region is not None:
        part = _within(part, quantity.region, context, numbers, f"{key}.region")
    if quantity.kind in ("max", "min") and not isinstance(region, Boxed):
        rims = [side.rule()[0] for side in region.sides.values()] if isinstance(on, Mesh) else []
        return _Part(torch.cat([part.points, *rims]), part.size, None if rims else part.own)
    return part


def _placed(region: Region, at: Sequence[float], key: str) -> torch.Tensor:
    """A point of the region, (1, d); InputError for another."""
    box = region.box
    if len(at) != box.dimension:
        raise InputError(
            f"a point here has {box.dimension} coordinates; got {len(at)}", f"{key}.at"
        )
    told = ", ".join(f"{x:g}" for x in at)
    if not all(a <= x <= b for a, x, b in zip(box.lower, at, box.upper, strict=True)):
        raise InputError(f"({told}) lies outside the domain", f"{key}.at")
    place = torch.tensor([at], dtype=torch.float64)
    if not bool(region.contains(place)):
        where = "in the obstacle" if isinstance(region, Boxed) else "outside the domain"
        raise InputError(f"({told}) lies {where}", f"{key}.at")
    return place


def _beside(region: Region, on: Points | Grid | Mesh, name: str, key: str) -> _Part:
    """A side of it."""
    if name not in region.sides:
        tail = did_you_mean(name, region.sides)
        raise InputError(f"there is no part '{name}' of the boundary{tail}", key)
    if not isinstance(region, Boxed):
        points, normal, weights = region.sides[name].rule()
        size = float(weights.sum())
        return _Part(points, size, None, normal, weights / size)
    box, cloud = region.box, on if isinstance(on, Points) else Points(_COUNT, domain=region.box)
    points = torch.stack(cloud.bind(box).coordinates(), -1)
    axis, end = divmod(box.sides.index(name), 2)
    points[:, axis] = (box.lower, box.upper)[end][axis]
    lengths = [b - a for a, b in zip(box.lower, box.upper, strict=True)]
    area = math.prod(length for k, length in enumerate(lengths) if k != axis)
    if region.hole is not None:
        bare = region.hole.outside(points)
        points, area = points[bare], area * float(bare.double().mean())
    normal = torch.zeros_like(points)
    normal[:, axis] = 1.0 if end else -1.0
    return _Part(points, area, normal=normal)


def _within(
    part: _Part, text: str, context: Context, numbers: dict[str, torch.Tensor], key: str
) -> _Part:
    """What of a part lies where a condition holds."""
    try:
        phi = expression(text, context)
        if not phi.is_mask:
            raise InputError("a region is a condition such as x < 0.5")
        signed = level_set(phi)
    except InputError as error:
        raise InputError(error.message, key) from None
    named = dict(zip(context.axes, part.points.T, strict=True)) | numbers
    inside = signed(**{name: v for name, v in named.items() if name in signed.names}) <= 0
    there = inside.expand(len(part.points))
    if not bool(there.any()):
        raise InputError(f"no point lies in '{text}'", key)
    own = None if part.own is None else part.own[there]
    if part.shares is None:
        return _Part(part.points[there], part.size * int(there.sum()) / len(there), own)
    shares = part.shares[there]
    left = float(shares.sum())
    return _Part(part.points[there], part.size * left, own, None, shares / left)


def _outflow(
    problem: Problem,
    on: Points | Grid | Mesh,
    field: str,
    part: _Part,
    function: Function | None,
    fields: tuple[str, ...],
    key: str,
) -> Measure:
    """The integral of -n . K grad u of a field over a side, of a trained function."""
    if field not in fields:
        raise InputError(f"there is no field '{field}'{did_you_mean(field, fields)}", key)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        if function is None:
            raise InputError(_UNKNOWN)
        form = strong_form(problem, mesh=on if isinstance(on, Mesh) else None)
        x = part.points
        if t is not None:
            x = torch.cat([x, torch.full_like(x[:, :1], t)], -1)
        across = form.flux(x, jet_of(function, x, ()))[:, :, fields.index(field)]
        assert part.normal is not None and part.shares is not None
        return Measurement(-part.size * (across.T * part.normal).sum(1) @ part.shares)

    return measured


def _cube(dimension: int) -> torch.Tensor:
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=0)
    return engine.draw(_MANY, dtype=torch.float64)


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
            found |= zip(NORMAL, self.part.normal.T, strict=False)
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
            raise InputError(_UNKNOWN)
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
