"""Quantities of an answer on a grid: integrals, extrema, values at points, what leaves a side.

Expressions are evaluated at all points of the grid, slopes by differences of second order, and
integrated over the control volumes that these have where every side is insulated, less what an
obstacle or a region takes of them. Across an obstacle's rim the answer is carried on linearly, so
that what lies between points near it is of second order too.

What leaves through a side is what is left of the discrete equation: with F the residual of the same
problem, but n . K grad u = 0 on all sides, the flux into the control volumes at a Dirichlet side is
F(u) + d u_t there, so that sources and fluxes balance to rounding (Carey 1982). Neumann and Robin
conditions say themselves what passes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, cached_property, partial
from itertools import product
from math import prod
from numbers import Real
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.nonlinear import NonlinearSystem, times
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import derives, forces, measures, samples, semidiscretises
from sciml.core.problem.equation import Equation, Helmholtz, NavierStokes, System
from sciml.core.problem.expression import CONSTANTS, level_set
from sciml.core.problem.grid import AXES, SIDES, Box, Grid
from sciml.core.problem.interpolation import between, weighed
from sciml.core.problem.problem import Condition, FieldFile, Obstacle, Problem, Time
from sciml.core.problem.reader import (
    NORMAL,
    Compiled,
    Context,
    compile,
    expression,
    read_parameters,
    state_names,
)
from sciml.core.run.derived import Derivation
from sciml.core.run.quantities import Measure, Measurement, Prepare, Quantity
from sciml.discretization.volumes import obstacle
from sciml.discretization.volumes.assemble import assemble, right
from sciml.discretization.volumes.boundary import (
    End,
    flux_of_state,
    insulated,
    outward,
    state_residual,
    with_end,
)
from sciml.discretization.volumes.coefficients import Data, call, data, evaluate
from sciml.discretization.volumes.fluxes import scheme_of
from sciml.discretization.volumes.layout import Layout, at_end, layout, lie_along
from sciml.discretization.volumes.nonlinear import semidiscretize, spread
from sciml.discretization.volumes.systems import by_itself

OBSTACLE = "obstacle"
_ON_RIM = 1e-9  # of the largest level: a point this little inside is on the rim


@measures(Equation, Grid)
@measures(Helmholtz, Grid)
def measures_on_grid(problem: Problem, on: Grid) -> Prepare:
    """How quantities are measured; raises InputError for one that means nothing here."""
    return partial(_prepared, cache(lambda: place_of(problem, on)))


@measures(System, Grid)
def measures_of_system(problem: Problem, on: Grid) -> Prepare:
    """The same of several fields, whose fluxes are each by its own equation."""
    place = cache(lambda: place_of(problem, on))

    def prepare(quantity: Quantity, key: str) -> Measure:
        if quantity.flux in problem.unknowns:
            return _of_field(place(), quantity, key)
        return _prepared(place, quantity, key)

    return prepare


@measures(NavierStokes, Grid)
def measures_of_flow(problem: Problem, on: Grid) -> Prepare:
    """The same of a flow, which has forces where it has walls."""
    place, known = cache(lambda: place_of(problem, on)), forces.knows(problem.equation, Grid)
    of_force: Callable[[], Prepare] = cache(
        lambda: forces.look_up(problem.equation, Grid)(problem, on)
    )

    def prepare(quantity: Quantity, key: str) -> Measure:
        if quantity.flux is not None:
            message = "what a flow carries through a side is {integral: u*nx + v*ny, on: side}"
            raise InputError(message, f"{key}.flux")
        if quantity.force is not None and known:
            return of_force()(quantity, key)
        return _prepared(place, quantity, key)

    return prepare


def _prepared(place: Callable[[], Place], quantity: Quantity, key: str) -> Measure:
    if quantity.raw:
        raise InputError("on a grid nothing is recovered: leave raw: out", f"{key}.raw")
    if quantity.force is not None:
        raise InputError("a force is of a flow, or of an elastic body on a mesh", f"{key}.force")
    if quantity.flux is not None:
        return _flux(place(), quantity, key)
    if quantity.at is not None:
        return _at(place(), quantity, key)
    return _over(place(), quantity, key)


@dataclass(frozen=True)
class Place:
    """A grid with all its points as unknowns: the layout of the problem whose sides are insulated.

    ``hole``: bool on the layout's points, or None. ``cut``: what an obstacle does to the problem's
    own equation.
    """

    problem: Problem
    natural: Problem
    layout: Layout
    info: Data
    fields: tuple[str, ...]
    hole: torch.Tensor | None
    cut: obstacle.Cut | None

    @cached_property
    def open(self) -> torch.Tensor:
        """The share of each control volume that an obstacle leaves, or 1."""
        if self.problem.obstacle is None:
            return torch.ones(())
        rim = replace(self.problem.obstacle, boundary=Condition(neumann=0.0))
        cut = obstacle.cut(replace(self.natural, obstacle=rim), self.layout, self.info)
        assert cut is not None and cut.volumes is not None
        return torch.as_tensor(cut.volumes)

    @cached_property
    def derived(self) -> Mapping[str, tuple[Derivation, int | None]]:
        """What is derived from the fields, slopes apart: by the name of a component its place."""
        if not derives.knows(self.problem.equation, Grid):
            return {}
        found: dict[str, tuple[Derivation, int | None]] = {}
        own = {*state_names(self.fields, AXES), *AXES, "t", *self.problem.parameters, *CONSTANTS}
        grid = self.layout.grid
        for how in derives.look_up(self.problem.equation, Grid)(self.problem, grid).values():
            several = len(how.components) > 1
            for k, name in enumerate(how.components):
                if name not in own:
                    found[name] = how, k if several else None
        return found

    @property
    def dimension(self) -> int:
        """Number of space dimensions."""
        return self.layout.dimension

    def at_time(self, t: float | None) -> Data:
        """The context at a time."""
        return self.info if t is None else self.info.at_time(t)

    def state(
        self,
        value: torch.Tensor,
        names: Collection[str] | None = None,
        near: Near | None = None,
    ) -> dict[str, torch.Tensor]:
        """Fields, all by default, at the layout's points, carried on into an obstacle."""
        d, hole = self.dimension, self.hole if near is None else near.hole
        parts = value.unbind(-d - 1) if len(self.fields) > 1 else (value,)
        found = {}
        for name, part in zip(self.fields, parts, strict=True):
            if names is None or name in names:
                own = self.layout.to_unknowns(part)
                own = own if near is None else near.of(own)
                found[name] = own if hole is None else carried_on(own, hole, d)
        return found

    def slope(self, u: torch.Tensor, axis: int) -> torch.Tensor:
        """du/dx at every point (*batch, *shape), carried on into an obstacle."""
        line = self.layout.axes[axis]
        found = from_faces(jumps(u, axis, self.layout) / line.spacing, axis, self.layout, self.hole)
        return found if self.hole is None else carried_on(found, self.hole, self.dimension)


def place_of(problem: Problem, on: Grid) -> Place:
    """The place of a problem's answer on a grid."""
    grid = on.bind(problem.box)
    ends = [(axis, end) for axis in range(len(grid.shape)) for end in (0, 1)]
    closed = [(a, e) for a, e in ends if problem.boundary[SIDES[a][e]].kind != "periodic"]
    natural = insulated(problem, closed)
    cpu = torch.device("cpu")
    lay = layout(natural, grid, torch.float64, cpu)
    info = data(natural, lay, torch.float64, cpu)
    fields = problem.equation.fields(len(grid.shape), tuple(problem.first))
    cut = obstacle.cut(natural, lay, info)
    hole = None if cut is None else lay.to_unknowns(cut.unused)
    return Place(problem, natural, lay, info, fields, hole, cut)


def carried_on(value: torch.Tensor, hole: torch.Tensor, d: int) -> torch.Tensor:
    """``value`` (*lead, *shape), in two layers of a ``hole`` continued linearly along the axes.

    Where only one point is known in a direction, its own value. NaN further inside.
    """
    found, known = torch.where(hole, torch.nan, value), ~hole
    for _ in range(2):
        total, count = torch.zeros_like(found), torch.zeros(hole.shape)
        once, single = torch.zeros_like(found), torch.zeros(hole.shape)
        for axis in range(-d, 0):
            for step in (1, -1):
                first, there = _shifted(found, known, axis, step)
                second, beyond = _shifted(found, known, axis, 2 * step)
                both = there & beyond
                total = total + torch.where(both, 2 * first - second, 0.0)
                count = count + both
                once = once + torch.where(there, first, 0.0)
                single = single + there
        linear, constant = total / count.clamp(min=1), once / single.clamp(min=1)
        fill = torch.where(count > 0, linear, constant)
        new = ~known & (single > 0)
        found, known = torch.where(new, fill, found), known | new
    return found


def _shifted(
    value: torch.Tensor, known: torch.Tensor, axis: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The neighbours' values ``step`` points along an axis, zero where unknown, and which are."""
    n = known.shape[axis]
    there = torch.roll(known, -step, axis)
    wrapped = there.narrow(axis, 0 if step < 0 else max(n - step, 0), min(abs(step), n))
    wrapped.fill_(False)
    return torch.where(there, torch.roll(value, -step, axis), 0.0), there


# --- Expressions ----------------------------------------------------------------------------------


def read_on(
    what: Any,
    place: Place,
    key: str,
    normal: bool = False,
    slopes: Sequence[str] | None = None,
    derived: bool = False,
) -> Compiled:
    """What may be asked for: an expression of coordinates, t, parameters, fields and slopes.

    ``slopes``: along which axes they may be named, by default those of the grid. ``derived``:
    whether components of derived fields may be, too.
    """
    axes = AXES[: place.dimension]
    problem = place.problem
    parameters, tables = read_parameters(problem.parameters, ())
    refused = {} if normal else dict.fromkeys(NORMAL, "the outward normal is known on a side only")
    if problem.time is None:
        refused["t"] = "this problem has no time"
    context = Context(
        axes,
        problem.time is not None,
        state_names(place.fields, axes if slopes is None else slopes),
        tuple(parameters),
        (*(NORMAL[: place.dimension] if normal else ()), *(place.derived if derived else ())),
        tuple(tables.items()),
        tuple(refused.items()),
    )
    return compile(what, context, key)


def known_at(
    read: Compiled, place: Place, value: torch.Tensor, t: float | None, near: Near | None = None
) -> Mapping[str, torch.Tensor]:
    """What an expression may name, at the layout's points, or at those that are ``near``."""
    info, d = place.at_time(t), place.dimension
    slopes = {f"{name}{x}": (name, k) for name in place.fields for k, x in enumerate(AXES[:d])}
    wanted = {name: slopes[name] for name in read.names if name in slopes}
    used = {name for name in place.fields if name in read.names}
    known = place.state(value, used | {name for name, _ in wanted.values()}, near)
    found = {name: known[name] for name in used}
    for name, (field, axis) in wanted.items():
        if near is None:
            found[name] = place.slope(known[field], axis)
        else:
            h = place.layout.axes[axis].spacing
            found[name] = torch.gradient(known[field], spacing=h, dim=axis - d, edge_order=2)[0]
    for name in read.names & place.derived.keys() if read.names - found.keys() else ():
        how, k = place.derived[name]
        whole = how.value(value, t)
        part = place.layout.to_unknowns(whole if k is None else whole.select(-d - 1, k))
        hole = place.hole if near is None else near.hole
        part = part if near is None else near.of(part)
        found[name] = part if hole is None else carried_on(part, hole, d)
    for name, p in info.parameters.items():
        if name in read.names:
            found[name] = p.reshape(*p.shape, *(1,) * d) if p.ndim else p
    return {**found, **{n: v for n, v in info.variables.items() if n in read.names}}


def jumps(u: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """u_{i+1} - u_i between neighbours, (*batch, *shape), across a periodic side last."""
    dim = axis - lay.dimension
    if lay.periodic[axis]:
        return torch.roll(u, -1, dim) - u
    return u.diff(dim=dim)


def from_faces(
    values: torch.Tensor, axis: int, lay: Layout, hole: torch.Tensor | None
) -> torch.Tensor:
    """Values on the faces between neighbours to the points, of second order: (*batch, *shape).

    ``values``: as :func:`jumps` has them. A point takes the mean of its two faces; at an end, or
    beside a ``hole``, what the two next faces on the other side come to, where there are two.
    """
    d, wraps, n = lay.dimension, lay.periodic[axis], lay.shape[axis]
    dim, shape = axis - d, list(lay.shape)
    if hole is None and wraps:
        return (values + torch.roll(values, 1, dim)) / 2
    if hole is None:
        first, second, before, last = (values.narrow(dim, k, 1) for k in (0, 1, n - 3, n - 2))
        inner = (values.narrow(dim, 0, n - 2) + values.narrow(dim, 1, n - 2)) / 2
        return torch.cat([1.5 * first - 0.5 * second, inner, 1.5 * last - 0.5 * before], dim)
    both = ~(hole | torch.roll(hole, -1, dim))
    known = both if wraps else both.narrow(dim, 0, n - 1)
    if wraps:
        known, values = (
            torch.cat([v.narrow(dim, n - 2, 2), v, v.narrow(dim, 0, 1)], dim)
            for v in (known, values)
        )
    else:
        shape[dim] = 2
        nothing = known.new_zeros(shape)
        known = torch.cat([nothing, known, nothing], dim)
        zero = values.new_zeros(*values.shape[:-d], *shape)
        values = torch.cat([zero, values, zero], dim)
    values = torch.where(known, values, 0.0)
    far, low, high, further = (values.narrow(dim, k, n) for k in range(4))
    two_left, left, right, two_right = (known.narrow(dim, k, n) for k in range(4))
    from_right = torch.where(two_right, 1.5 * high - 0.5 * further, high)
    from_left = torch.where(two_left, 1.5 * low - 0.5 * far, low)
    one_sided = torch.where(right, from_right, from_left)
    return torch.where(left & right, (low + high) / 2, one_sided)


# --- Parts ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Points of the layout that count, on a side or inside, with their weights for integrals.

    ``points``: all of a product of lines, whose ``weights`` are then one vector per axis, or else
    a list of those that ``index`` picks of the flattened shape, with a single vector.
    """

    place: Place
    points: tuple[torch.Tensor, ...]
    weights: tuple[torch.Tensor, ...]
    index: torch.Tensor | None = None
    side: End | None = None

    def values(self, read: Compiled, value: torch.Tensor, t: float | None) -> torch.Tensor:
        """An expression there, (*batch, *shape), or of a list (*batch, n)."""
        d, lay = self.place.dimension, self.place.layout
        known, shape = dict(known_at(read, self.place, value, t)), list(lay.shape)
        if self.side is not None:
            axis, end = self.side
            shape[axis] = 1
            for name, v in known.items():
                given = _given_on(self.place, name, axis, end) if lay.cells else None
                if given is not None:
                    there = lay.points({axis: lay.axes[axis].edges[[0, -1]][end : end + 1]})
                    here = outward(self.place.at_time(t), axis, end)
                    known[name] = evaluate(given[0], there, here, given[1])
                elif v.ndim >= d and v.shape[axis - d] > 1:
                    known[name] = _on_side(v, axis, end, lay)
            for k, name in enumerate(NORMAL[:d]):
                known[name] = torch.tensor((1.0 if end else -1.0) if k == axis else 0.0)
        if self.index is not None:
            known = {name: self._listed(v, shape) for name, v in known.items()}
            shape = [len(self.index)]
        found = read.at(self.points, known)
        return found.expand(np.broadcast_shapes(found.shape, tuple(shape)))

    def _listed(self, v: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        d = len(shape)
        if v.ndim < d:
            return v
        if v.shape[-d:].numel() == 1:
            return v.flatten(-d)
        return v.expand(*v.shape[:-d], *shape).flatten(-d)[..., self.index]

    def integral(self, values: torch.Tensor) -> torch.Tensor:
        """Of values there, (*batch)."""
        for weights in reversed(self.weights):
            kind = torch.promote_types(values.dtype, weights.dtype)
            values = values.to(kind) @ weights.to(kind)
        return values

    @property
    def size(self) -> torch.Tensor:
        """The volume or area."""
        return torch.stack([weights.sum() for weights in self.weights]).prod()

    def extremum(self, kind: str, values: torch.Tensor) -> Measurement:
        """The largest or least of values there, and its place."""
        if values.is_complex():
            raise InputError(f"the {kind} of complex values means nothing; write abs(...)")
        d = 1 if self.index is not None else self.place.dimension
        flat = values.flatten(-d)
        bare = flat.detach().numpy()  # whose search is ten times as fast
        place = torch.as_tensor(bare.argmax(-1) if kind == "max" else bare.argmin(-1))
        found = flat.gather(-1, place[..., None])[..., 0]
        if self.index is not None:
            return Measurement(found, torch.stack([p[place] for p in self.points], -1))
        rest, places = place, []
        for points, n in zip(reversed(self.points), reversed(values.shape[-d:]), strict=True):
            places.append(points.flatten()[rest % n])
            rest = rest // n
        return Measurement(found, torch.stack(places[::-1], -1))


def _on_side(v: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """Values at a side: those of its nodes, or carried on from the last two cells."""
    d = lay.dimension
    last = at_end(v, axis, d, end)
    if not lay.cells:
        return last
    before = v.narrow(axis - d, 1 if end == 0 else v.shape[axis - d] - 2, 1)
    return 1.5 * last - 0.5 * before


def side_of(problem: Problem, name: str, key: str) -> End:
    """The axis and end of a side; raises InputError for a name that is none, or periodic."""
    names = [*problem.box.sides, *([OBSTACLE] if problem.obstacle is not None else [])]
    if name not in problem.box.sides:
        raise InputError(
            f"there is no part '{name}' of the boundary; there are {', '.join(names)}"
            + _guess(name, names),
            key,
        )
    if problem.boundary[name].kind == "periodic":
        raise InputError(f"'{name}' is periodic: nothing ends there", key)
    return next((a, e) for a, pair in enumerate(SIDES) for e, n in enumerate(pair) if n == name)


def _guess(name: str, known: list[str]) -> str:
    tail = did_you_mean(name, known)
    return tail if "did you mean" in tail else ""


def _over(place: Place, quantity: Quantity, key: str) -> Measure:
    """An integral, a mean or an extremum over a part."""
    kind, part = quantity.kind, _part(place, quantity, key)
    on_side = quantity.on is not None
    read = read_on(quantity.what, place, f"{key}.{kind}", normal=on_side, derived=True)
    size = part.size if kind == "mean" else None

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        values = part.values(read, value, t)
        if kind in ("max", "min"):
            return part.extremum(kind, values)
        total = part.integral(values)
        return Measurement(total if size is None else total / size)

    return measured


def _part(place: Place, quantity: Quantity, key: str) -> Part:
    lay, hole, side = place.layout, place.hole, None
    widths = [line.widths for line in lay.axes]
    if quantity.on is not None:
        if quantity.on == OBSTACLE:
            raise InputError("of an obstacle's rim only the flux is measured", f"{key}.on")
        axis, end = side = side_of(place.problem, quantity.on, f"{key}.on")
        line = lay.axes[axis]
        points = lay.points({axis: line.edges[[0, -1]][end : end + 1]})
        widths[axis] = torch.ones(1, dtype=torch.float64)
        hole = None if hole is None else at_end(hole, axis, lay.dimension, end)
    else:
        points = lay.points()
    share = torch.ones(()) if side is not None else place.open
    inside = None if hole is None else ~hole
    if quantity.region is not None:
        of_region, within = _region(quantity.region, place, f"{key}.region")
        share, inside = share * of_region, within if inside is None else inside & within
    if inside is None:
        return Part(place, points, tuple(widths), None, side)
    shape = inside.shape
    if quantity.kind in ("integral", "mean") and side is None:
        # Volumes of which only the centre is in the hole count too.
        inside = share.expand(shape) > 0
    index = inside.flatten().nonzero()[:, 0]
    if not len(index):
        part = "region" if quantity.region is not None else "on"
        where = quantity.region or quantity.on or "the domain"
        raise InputError(f"no point of the grid lies in '{where}'", f"{key}.{part}")
    d = lay.dimension
    weights = share * prod(lie_along(w, k, d) for k, w in enumerate(widths))
    listed = tuple(p.expand(shape).flatten()[index] for p in points)
    return Part(place, listed, (weights.expand(shape).flatten()[index],), index, side)


def _region(text: str, place: Place, key: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The share of each control volume in a region, and which points are."""
    problem = replace(place.natural, obstacle=None)
    try:
        phi = expression(text, place.info.context)
        if not phi.is_mask:
            raise InputError("a region is a condition such as x < 0.5")
        signed = level_set(phi)
    except InputError as error:
        raise InputError(error.message, key) from None
    out = Obstacle(text, Condition(neumann=0.0))
    cut = obstacle.cut(replace(problem, obstacle=out), place.layout, place.info)
    assert cut is not None and cut.volumes is not None
    inside = call(signed, place.layout.points(), place.info) <= 0
    return 1.0 - cut.volumes, inside.expand(place.layout.shape)


def _at(place: Place, quantity: Quantity, key: str) -> Measure:
    point, box = quantity.at, place.problem.box
    assert point is not None
    if len(point) != box.dimension:
        raise InputError(
            f"a point here has {box.dimension} coordinates; got {len(point)}", f"{key}.at"
        )
    if not all(a <= x <= b for a, x, b in zip(box.lower, point, box.upper, strict=True)):
        raise InputError(
            f"({', '.join(f'{x:g}' for x in point)}) lies outside the domain", f"{key}.at"
        )
    read = read_on(quantity.of or place.fields[0], place, f"{key}.of", derived=True)
    where = tuple(torch.tensor([x], dtype=torch.float64) for x in point)
    if place.problem.obstacle is not None:
        phi = level_set(expression(place.problem.obstacle.inside, place.info.context))
        size = call(phi, place.layout.points(), place.info).abs().max()
        if bool((call(phi, where, place.info) < -_ON_RIM * size).any()):
            raise InputError("the point lies inside the obstacle", f"{key}.at")
    plain = read.names <= {*place.fields} and quantity.what in (None, *read.names)
    near = _near(point, place) if not plain or place.hole is not None else None
    if plain and (near is None or near.hole is None):
        look = _sampled(place, torch.tensor([point], dtype=torch.float64), next(iter(read.names)))
        return lambda value, t: Measurement(look(value, t)[..., 0])
    assert near is not None
    points = tuple(
        lie_along(line.positions[index], axis, place.dimension)
        for axis, (line, index) in enumerate(zip(place.layout.axes, near.index, strict=True))
    )
    shape = tuple(len(index) for index in near.index)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        found = read.at(points, known_at(read, place, value, t, near))
        values = found.expand(np.broadcast_shapes(found.shape, shape))
        return Measurement(weighed(values, near.low, near.share)[..., 0])

    return measured


# So many points beyond those around a place decide what it has: four for values that are carried on
# into an obstacle, one more for their slopes.
_REACH = 5


@dataclass(frozen=True)
class Near:
    """The points of a layout around a place.

    ``index``: per axis which they are. ``low``: per axis the last of them that does not lie beyond
    the place, ``share`` the distance from it in spacings. ``hole``: those in an obstacle, None
    where there are none.
    """

    index: tuple[torch.Tensor, ...]
    low: tuple[torch.Tensor, ...]
    share: tuple[torch.Tensor, ...]
    hole: torch.Tensor | None

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """Values (*batch, *shape) at these points."""
        for axis, index in enumerate(self.index):
            values = values.index_select(axis - len(self.index), index)
        return values


def _near(point: tuple[float, ...], place: Place) -> Near:
    found = []
    for axis, x in enumerate(point):
        ticks, shift = _ticks(axis, place.layout)
        low, share = between(torch.tensor([x], dtype=torch.float64), ticks)
        k, n = int(low) - shift, len(place.layout.axes[axis].positions)
        if place.layout.periodic[axis]:
            first, index = k - _REACH, torch.arange(k - _REACH, k + 2 + _REACH) % n
        else:
            first = max(k - _REACH, 0)
            index = torch.arange(first, min(k + 2 + _REACH, n))
        found.append((index, torch.tensor([k - first]), share))
    windows, lows, shares = zip(*found, strict=True)
    near = Near(windows, lows, shares, None)
    hole = None if place.hole is None else near.of(place.hole)
    return near if hole is None or not hole.any() else replace(near, hole=hole)


def _ticks(axis: int, lay: Layout) -> tuple[torch.Tensor, int]:
    """The places of an axis between which values are interpolated, and how many are put before.

    Across a periodic side values go on, from the last node to the first, from cells both ways.
    """
    line = lay.axes[axis]
    here = line.positions
    if not lay.periodic[axis]:
        return here, 0
    here = torch.cat([here, here[-1:] + line.spacing])
    return (torch.cat([here[:1] - line.spacing, here]), 1) if lay.cells else (here, 0)


# A value (*batch, [fields], *grid) and its time to values at some points, (*batch, n).
Look = Callable[[torch.Tensor, float | None], torch.Tensor]


@samples(Equation, Grid)
@samples(System, Grid)
@samples(NavierStokes, Grid)
@samples(Helmholtz, Grid)
def sample_on_grid(problem: Problem, on: Grid, points: torch.Tensor, what: Any, key: str) -> Look:
    """How values at points (n, d) are found, (*batch, [fields], n).

    Of an expression (*batch, n), NaN in an obstacle and outside the box.
    """
    place = place_of(problem, on)
    if what is not None:
        return _expressed(place, points, what, key)
    looks = [_sampled(place, points, name) for name in place.fields]
    if len(looks) == 1:
        return looks[0]
    return lambda value, t: torch.stack([look(value, t) for look in looks], -2)


def _expressed(place: Place, points: torch.Tensor, what: Any, key: str) -> Look:
    read_on(what, place, key, derived=True)
    looks: list[Measure | None] = []
    for point in points.tolist():
        try:
            looks.append(_at(place, Quantity(at=tuple(point), of=what), key))
        except InputError:
            looks.append(None)

    def look(value: torch.Tensor, t: float | None) -> torch.Tensor:
        unknown = torch.full((), torch.nan, dtype=torch.float64)
        found = [unknown if at is None else at(value, t).value for at in looks]
        return torch.stack(list(torch.broadcast_tensors(*found)), -1)

    return look


def _sampled(place: Place, points: torch.Tensor, name: str) -> Look:
    """A field at points (n, d): linearly between the grid's, carried on into an obstacle.

    Between the last cells and a side on which it is given, between their values and that.
    """
    d, lay, hole = place.dimension, place.layout, place.hole
    moved, factor, walls = _beside_walls(place, points, name)
    index: list[torch.Tensor] = []
    weights = factor[:, None]
    for axis in range(d):
        ticks, shift = _ticks(axis, lay)
        low, share = between(moved[:, axis], ticks)
        pair = torch.stack([low, low + 1], -1) - shift
        if lay.periodic[axis]:
            pair = pair % lay.shape[axis]
        old = weights.shape[1]
        index = [i.repeat_interleave(2, 1) for i in index] + [pair.repeat(1, old)]
        both = torch.stack([1 - share, share], -1)
        weights = weights.repeat_interleave(2, 1) * both.repeat(1, old)
    places: Any = (..., *index)
    beside = hole is not None and bool(hole[places].any())
    k = place.fields.index(name) if len(place.fields) > 1 else None
    shape, starts = lay.grid.shape, [axis.start for axis in lay.axes]
    flat = torch.from_numpy(
        np.ravel_multi_index([i.numpy() + n for i, n in zip(index, starts, strict=True)], shape)
    )

    def look(value: torch.Tensor, t: float | None) -> torch.Tensor:
        own = value if k is None else value.select(-d - 1, k)
        if hole is not None and beside:
            own = carried_on(lay.to_unknowns(own), hole, d)[places]
        else:
            own = own.flatten(-d)[..., flat]
        found = (own * weights.to(own.dtype)).sum(-1)
        for wall in walls:
            found = found + wall(t)
        return found

    return look


def _beside_walls(
    place: Place, points: torch.Tensor, name: str
) -> tuple[torch.Tensor, torch.Tensor, list[Callable[[float | None], torch.Tensor]]]:
    """Points (n, d) moved to the last cells' centres, the share of those, and what sides add."""
    moved, factor = points.to(torch.float64).clone(), torch.ones(len(points), dtype=torch.float64)
    lay, walls = place.layout, list[Callable[[float | None], torch.Tensor]]()
    for axis, end in product(range(place.dimension), (0, 1)):
        given = _given_on(place, name, axis, end)
        if not lay.cells or given is None:
            continue
        bound, line = (lay.grid.box.lower, lay.grid.box.upper)[end][axis], lay.axes[axis]
        share = ((moved[:, axis] - bound).abs() / (line.spacing / 2)).clamp(max=1.0)
        if bool((share < 1).any()):
            there = moved.clone()
            there[:, axis] = bound
            walls.append(partial(_on_wall, place, given, there, (1 - share) * factor, (axis, end)))
            centre = line.positions[-1 if end else 0]
            moved[:, axis] = torch.where(share < 1, centre, moved[:, axis])
            factor = factor * share
    return moved, factor, walls


def _given_on(place: Place, name: str, axis: int, end: int) -> tuple[Any, str] | None:
    """What a field is on a side, and the key of that; None where it is not given by a formula."""
    if name not in place.fields:
        return None
    side = SIDES[axis][end]
    condition, key = place.problem.boundary[side], f"problem.boundary.{side}"
    if condition.by_field is not None:
        condition, key = condition.by_field[name], f"{key}.{name}"
    given = condition.dirichlet
    if isinstance(given, (list, tuple)):
        k = place.fields.index(name)
        given, key = given[k] if k < len(given) else None, f"{key}.dirichlet.{k}"
    return None if given is None or has_arrays(given) else (given, key)


def _on_wall(
    place: Place,
    given: tuple[Any, str],
    points: torch.Tensor,
    share: torch.Tensor,
    side: End,
    t: float | None,
) -> torch.Tensor:
    value = evaluate(given[0], tuple(points.T), outward(place.at_time(t), *side), given[1])
    return torch.where(share > 0, value, 0.0) * share


# --- What leaves through a side -------------------------------------------------------------------


def _flux(place: Place, quantity: Quantity, key: str) -> Measure:
    problem, lay = place.problem, place.layout
    if quantity.flux not in place.fields:
        raise InputError(
            f"there is no field '{quantity.flux}'; there is {', '.join(place.fields)}",
            f"{key}.flux",
        )
    form = problem.form
    if form.energy is not None:
        raise InputError("an energy says nothing of a flux", f"{key}.flux")
    assert quantity.on is not None
    if quantity.on == OBSTACLE and problem.obstacle is not None:
        return _through_rim(place)
    axis, end = side_of(problem, quantity.on, f"{key}.on")
    if not lay.cells and problem.boundary[quantity.on].kind != "dirichlet":
        return lambda value, t: _by_condition(place, axis, end, value, t)

    @cache
    def passes() -> tuple[Measure, bool]:
        near = _beside_side(place, axis, end)
        return (_of_cells if lay.cells else _of_nodes)(near, axis, end), near is not place

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        measure, thin = passes()
        if thin:
            first = 0 if end == 0 else value.shape[axis - lay.dimension] - _STRIP
            value = value.narrow(axis - lay.dimension, first, _STRIP)
        return measure(value, t)

    return measured


# So many layers of points decide what passes through a side, however its fluxes are limited.
_STRIP = 8


def _beside_side(place: Place, axis: int, end: int) -> Place:
    """The layers of points next to a side as a place of their own, insulated behind.

    The place itself where it is hardly thicker, or where arrays belong to all of its points.
    """
    problem, grid = place.problem, place.layout.grid
    data = (problem.equation, problem.boundary)
    if grid.shape[axis] < 2 * _STRIP or problem.obstacle is not None or has_arrays(data):
        return place
    box, h = problem.box, grid.spacing[axis]
    length = h * (_STRIP - (0 if grid.centring == "cell" else 1))
    lower, upper = list(box.lower), list(box.upper)
    if end == 0:
        upper[axis] = lower[axis] + length
    else:
        lower[axis] = upper[axis] - length
    thin = Box(tuple(lower), tuple(upper))
    shape = tuple(_STRIP if k == axis else n for k, n in enumerate(grid.shape))
    behind = {SIDES[axis][1 - end]: Condition(neumann=0.0)}
    part = replace(problem, domain=thin, boundary={**problem.boundary, **behind})
    return place_of(part, replace(grid, shape=shape, domain=thin))


def has_arrays(data: Any) -> bool:
    """Whether there are values at points among coefficients and conditions."""
    if isinstance(data, Mapping):
        return any(map(has_arrays, data.values()))
    if isinstance(data, (list, tuple)):
        return any(map(has_arrays, data))
    if is_dataclass(data) and not isinstance(data, FieldFile):
        return any(has_arrays(getattr(data, entry.name)) for entry in fields(data))
    return isinstance(data, (torch.Tensor, np.ndarray, FieldFile))


def _through_rim(place: Place) -> Measure:
    """What the rim's terms add to the equation of the points beside it."""
    problem, grid = place.problem, place.layout.grid
    if not problem.linear and problem.form.linear_with(problem.parameters) is False:
        raise InputError("the flux through a rim is measured where K does not depend on u")
    lay = layout(problem, grid, torch.float64, torch.device("cpu"))
    info = data(problem, lay, torch.float64, torch.device("cpu"))

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        parts = assemble(problem, info if t is None else info.at_time(t))
        u = torch.nan_to_num(lay.to_unknowns(value)).flatten(-lay.dimension)
        total = torch.zeros(u.shape[:-1], dtype=u.dtype)
        assert parts.rim is not None
        for _, v in parts.rim.right:
            total = total - v.sum(-1)
        for index, v in parts.rim.diagonal:
            total = total + (v * u[..., index]).sum(-1)
        return Measurement(total)

    return measured


def _by_condition(
    place: Place, axis: int, end: int, value: torch.Tensor, t: float | None
) -> Measurement:
    """-(g - alpha u) over a side, u there."""
    lay, d = place.layout, place.dimension
    info = place.at_time(t)
    u = place.state(value, {"u"})["u"]
    here = at_end(u, axis, d, end)
    passing = flux_of_state(place.problem, axis, end, here, info)
    area = torch.as_tensor(lay.measure(without=axis), dtype=torch.float64)
    if place.hole is not None:
        area = area * ~at_end(place.hole, axis, d, end)
    return Measurement(-(passing * area).sum(tuple(range(-d, 0))))


def _of_cells(place: Place, axis: int, end: int) -> Measure:
    """The flux between the last cells and a side: F without the side less F with it."""
    problem, grid, cpu = place.problem, place.layout.grid, torch.device("cpu")
    still = replace(problem.form, kind="general", b=None, c=0.0, f=0.0, m=0.0, d=1.0)
    span = problem.time or Time(1.0)
    with_side = replace(problem, equation=still, time=span, initial=0.0)
    closed = insulated(with_side, [(axis, end)])
    open_, shut = (
        semidiscretize(p, grid, dtype=torch.float64, device=cpu) for p in (with_side, closed)
    )

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        now, u = 0.0 if t is None else t, torch.nan_to_num(open_.restrict(value))
        gap = shut.residual(u, now) - open_.residual(u, now)
        return Measurement(-gap.sum(tuple(range(-place.dimension, 0))))

    return measured


def _of_nodes(place: Place, axis: int, end: int) -> Measure:
    """F + d u_t at a Dirichlet side's nodes, less what other sides pass.

    Where two such sides meet, what is left belongs to both: each takes what its flux, carried on
    linearly from its own nodes, comes to, and the rest is shared by their areas.
    """
    lay, d, balance = place.layout, place.dimension, _balance(place)
    kinds = {
        (a, e): "closed" if _closed(side) else side.kind
        for a in range(d)
        for e in (0, 1)
        if not lay.periodic[a]
        for side in (place.problem.boundary[SIDES[a][e]],)
    }
    shared = _shared((axis, end), [at for at in kinds if kinds[at] == "dirichlet"], lay)
    passed = {at: _area(at, lay) for at in kinds if kinds[at] not in ("dirichlet", "closed")}

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        info, u = place.at_time(t), torch.nan_to_num(lay.to_unknowns(value))
        rest = balance(u, t)
        for (a, e), area in passed.items():
            passing = flux_of_state(place.problem, a, e, at_end(u, a, d, e), info)
            rest = rest - _embedded(passing * area, a, e, lay)
        return shared(rest)

    return measured


def _area(at: End, lay: Layout) -> torch.Tensor:
    """The areas of a side's faces, that axis having size 1."""
    area = torch.as_tensor(lay.measure(without=at[0]), dtype=torch.float64)
    return area.expand(lay.shape).narrow(at[0], 0, 1)


def _closed(condition: Condition) -> bool:
    """Whether nothing passes."""
    return isinstance(condition.neumann, Real) and condition == Condition(neumann=0.0)


def _shared(side: End, held: list[End], lay: Layout) -> Callable[[torch.Tensor], Measurement]:
    """Of what is left at the nodes of the sides that are ``held``, what leaves through one."""
    (axis, end), d = side, lay.dimension
    areas = {at: _area(at, lay) for at in held}
    whole = sum(_embedded(areas[at], *at, lay) for at in held)
    share = areas[side] / at_end(torch.as_tensor(whole), axis, d, end)

    def measured(rest: torch.Tensor) -> Measurement:
        flows = {at: _carried_to_ends(rest, at, held, areas[at], lay) for at in held}
        for (a, e), flow in flows.items():
            rest = rest - _embedded(flow, a, e, lay)
        total = flows[side] + at_end(rest, axis, d, end) * share
        return Measurement(-total.sum(tuple(range(-d, 0))))

    return measured


def _of_field(place: Place, quantity: Quantity, key: str) -> Measure:
    """The flux of one field of a system: by its own equation, the other fields as data.

    On nodes whose values are given it is what is left of the coupled equations there.
    """
    problem, lay, d = place.problem, place.layout, place.dimension
    name = str(quantity.flux)
    equation, k = problem.equation_as(System).forms[name], place.fields.index(name)
    side = side_of(problem, quantity.on or "", f"{key}.on")
    own = by_itself(problem, equation, name)
    kinds = {
        (a, e): own.boundary[SIDES[a][e]].kind
        for a in range(d)
        for e in (0, 1)
        if not lay.periodic[a]
    }
    if lay.cells and kinds[side] == "dirichlet":
        others = [end for end in kinds if end != side]
        of_cells = cache(lambda: _of_cells(replace(place, problem=insulated(own, others)), *side))
        return lambda value, t: of_cells()(value.select(-d - 1, k), t)
    cpu = torch.device("cpu")
    lower = semidiscretises.look_up(problem.equation, Grid)
    system = lower(place.natural, lay.grid, dtype=torch.float64, device=cpu)
    stored = _storage(place, system)

    held = [at for at in kinds if kinds[at] == "dirichlet"]

    def passed(value: torch.Tensor, t: float | None, at: End) -> torch.Tensor:
        """What passes by the condition of a side, on the unknowns there."""
        fields = {n: torch.nan_to_num(v) for n, v in place.state(value, place.fields).items()}
        scheme = scheme_of(own, lay.grid)
        info = place.at_time(t)
        return state_residual(own, [at], fields[name], info, scheme, fields=fields, own=name)

    def by_condition(value: torch.Tensor, t: float | None) -> Measurement:
        return Measurement(passed(value, t, side).sum(tuple(range(-d, 0))))

    if side not in held:
        return by_condition
    shared = _shared(side, held, lay)

    def by_balance(value: torch.Tensor, t: float | None) -> Measurement:
        now = 0.0 if t is None else t
        rest = system.residual(torch.nan_to_num(lay.to_unknowns(value)), now)
        rest = (rest + stored(now)).select(-d - 1, k)
        for at, kind in kinds.items():
            if kind != "dirichlet":
                rest = rest + passed(value, t, at)
        return shared(rest)

    return by_balance


def _embedded(slab: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """Values on a side, zero elsewhere."""
    d = lay.dimension
    shape = tuple(1 if k == axis else n for k, n in enumerate(lay.shape))
    slab = slab.expand(*slab.shape[:-d], *shape)
    return with_end(slab.new_zeros(lay.shape), slab, axis, end, d)


def _carried_to_ends(
    rest: torch.Tensor, side: End, held: list[End], area: torch.Tensor, lay: Layout
) -> torch.Tensor:
    """What passes through a side's faces; at its edges with others that are ``held`` carried on."""
    (axis, end), d = side, lay.dimension
    density = at_end(rest, axis, d, end) / area
    for a, e in held:
        n = density.shape[a - d]
        if a == axis or n < 3:
            continue
        inner = density.narrow(a - d, 1 if e == 0 else n - 2, 1)
        further = density.narrow(a - d, 2 if e == 0 else n - 3, 1)
        edge = 2 * inner - further if n > 4 else inner
        parts = [edge, density.narrow(a - d, 1, n - 1)]
        if e == 1:
            parts = [density.narrow(a - d, 0, n - 1), edge]
        density = torch.cat(parts, a - d)
    return density * area


# u at the layout's points and a time to what is left of the equations there.
Rest = Callable[[torch.Tensor, float | None], torch.Tensor]


def _balance(place: Place) -> Rest:
    """F + d u_t + m u_tt of the insulated problem, where u is given in time."""
    problem, grid, info = place.natural, place.layout.grid, place.info
    steady = problem.time is None
    if steady and problem.linear and problem.form.b is None and problem.obstacle is None:
        parts = assemble(problem, info)
        A, b = parts.A, right(problem, parts, info)
        return lambda u, t: A.apply(spread(u, A)) - b
    grid = replace(grid, scheme=scheme_of(place.problem, grid))
    if steady:
        # It is given a time, in which nothing need balance.
        form = replace(problem.form, kind="general", d=1.0)
        problem = replace(problem, equation=form, time=Time(1.0), initial=0.0)
    system = semidiscretize(problem, grid, dtype=torch.float64, device=torch.device("cpu"))
    if steady:
        return lambda u, t: system.residual(u, 0.0)
    stored = _storage(place, system)

    def rest(u: torch.Tensor, t: float | None) -> torch.Tensor:
        now = 0.0 if t is None else t
        return system.residual(u, now) + stored(now)

    return rest


def _storage(place: Place, system: NonlinearSystem) -> Callable[[float], torch.Tensor]:
    """d u_t + m u_tt of the Dirichlet values, zero elsewhere; differences in time of the data.

    A system that is steady in truth has none.
    """
    problem, lay = place.problem, place.layout
    if problem.time is None:
        return lambda t: torch.zeros((), dtype=torch.float64)
    lower = semidiscretises.look_up(problem.equation, Grid)
    held = lower(problem, lay.grid, dtype=torch.float64, device=torch.device("cpu"))
    step = 1e-4 * (problem.time.end - problem.time.start)
    lead = (len(place.fields),) if len(place.fields) > 1 else ()
    zero = torch.zeros((*lead, *held.shape), dtype=torch.float64)

    def stored(t: float) -> torch.Tensor:
        before, now, after = (lay.to_unknowns(held.lift(zero, t + k * step)) for k in (-1, 0, 1))
        total = torch.zeros_like(now)
        if system.mass is not None:
            total = total + times(system.mass, after - before) / (2 * step)
        if system.inertia is not None:
            total = total + times(system.inertia, after - 2 * now + before) / step**2
        return total

    return stored
