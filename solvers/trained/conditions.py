"""What must hold where: the equation inside, conditions on sides, data at the start.

A condition is either soft, one more residual to make small, or built in: with the boundary data
carried into the box by a function G and a function phi that vanishes exactly where u is known,

    u = G + phi N

meets them whatever N is. G is the Boolean sum of one interpolation per axis (Gordon's transfinite
interpolation, which wants data that agree where sides meet: :func:`disagreement`), or is given, say
with the singularities that the solution has where data jump; phi is the product of the
distances s to the sides, 4 s (1 - s) where both are known. In time phi has a factor t, or t^2 where
u_t is known too. Sides with Neumann, Robin or periodic conditions stay soft; periodic axes are
better built into the network's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.body import Body
from sciml.core.problem.condition import Condition, flux_data
from sciml.core.problem.problem import Unknown
from sciml.core.problem.reader import NORMAL, free_names
from sciml.discretization.points.jet import Jet, Pairs, jet_of
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.region import Boxed, Hole, Shaped
from sciml.discretization.points.strong import StrongForm, derivatives_in, sum_of
from sciml.discretization.points.vanishing import joined, shares, vanishing

_AGREEMENT = 1e-6
OBSTACLE = "obstacle"  # the piece of its rim
_RIM = "problem.obstacle.boundary.dirichlet"
PointResidual = Callable[[Tensor, Jet], Tensor]


@dataclass(frozen=True)
class Piece:
    """A residual that holds on a part of the box: between ``lower`` and ``upper``, D each.

    On a side both are equal along its axis. ``residual(points, jet)`` gives (N, E). ``beside``:
    from points (N, D) to others at which it needs the jet too, block by block of N, ``blocks`` in
    all; points and jet then hold the points, then those beside them. ``flux``: it is a condition on
    n . K grad u rather than on u. ``fixed``: the points (N, D) themselves, where there is no choice
    (observations). ``hole``: what the part is without, or where it is the ``rim``, what it bounds.
    ``part``: where it lies in space, of a domain that is no box. ``pairs``: the derivatives from
    the second on that the residual needs. ``terms``: what adds up to it, where their sizes in all
    of the domain say what of it is small.
    """

    name: str
    lower: Tensor
    upper: Tensor
    residual: PointResidual
    beside: Callable[[Tensor], Tensor] | None = None
    blocks: int = 1
    flux: bool = False
    fixed: Tensor | None = None
    hole: Hole | None = None
    rim: bool = False
    part: Part | None = None
    pairs: Pairs = ()
    terms: Callable[[Tensor, Jet], list[Tensor]] | None = None

    @property
    def of_value(self) -> bool:
        """Whether it gives values of u, which may be built in."""
        return not self.flux and self.terms is None

    def seen(self, points: Tensor) -> Tensor:
        """All points at which the residual at ``points`` needs the jet, (blocks N, D)."""
        return points if self.beside is None else torch.cat([points, self.beside(points)])

    @property
    def free(self) -> int:
        """The dimension of the part."""
        if self.part is not None:
            moving = self.timed and bool(self.upper[-1] > self.lower[-1])
            return self.part.free + int(moving)
        return int((self.upper > self.lower).sum())

    @property
    def timed(self) -> bool:
        """Whether the last coordinate is no place."""
        return self.part is not None and len(self.lower) > self.part.dimension

    def place(self, cube: Tensor) -> Tensor:
        """Points (N, D) of the part for points (N, free) of the unit cube."""
        if self.fixed is not None:
            return self.fixed
        if self.part is not None:
            space = self.part.place(cube[:, : self.part.free])
            if not self.timed:
                return space
            low, high = self.lower[-1], self.upper[-1]
            share = cube[:, -1:] if bool(high > low) else cube.new_zeros(len(cube), 1)
            return torch.cat([space, low + share * (high - low)], 1)
        points = self._in_box(cube)
        if self.hole is None:
            return points
        return (self.hole.rim if self.rim else self.hole.cleared)(points, self._drawn)

    def _drawn(self, count: int, generator: torch.Generator) -> Tensor:
        return self._in_box(torch.rand(count, self.free, dtype=torch.float64, generator=generator))

    def _in_box(self, cube: Tensor) -> Tensor:
        points = self.lower.expand(len(cube), -1).clone()
        axes = self.upper > self.lower
        points[:, axes] = (self.lower + 0.0)[axes] + cube * (self.upper - self.lower)[axes]
        return points


@dataclass(frozen=True)
class Part:
    """The inside of a region of this ``dimension``, or a side: uniform points for points of a cube.

    ``place``: (N, ``free``) to (N, dimension).
    """

    dimension: int
    free: int
    place: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Stated:
    """Data as they are stated, one of each field: of points (N, D) their values (N, F).

    None is for fields that are free: zero. ``keys``: where each stands. ``normal``: of the side.
    """

    data: Pointwise
    values: tuple[Any, ...]
    keys: tuple[str, ...]
    normal: tuple[float, ...] | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """(N, F); ``len`` would fix N in an exported program."""
        columns = [
            points.new_zeros(points.shape[0])
            if value is None
            else self.data(value, key, points, normal=self.normal).expand(points.shape[0])
            for value, key in zip(self.values, self.keys, strict=True)
        ]
        return torch.stack(columns, -1)


@dataclass(frozen=True)
class BuiltIn:
    """u = G + phi N of D coordinates and F fields; ``given``: G where it is no interpolation.

    ``moving``: G depends on parameters that are to be found. ``rim``: that of an obstacle;
    ``walls``: sides of a domain that is no box.
    """

    dimension: int
    fields: int
    constraints: tuple[Constraint, ...]
    given: Stated | None = None
    moving: bool = False
    rim: Rim | None = None
    walls: tuple[Wall, ...] = ()

    def carried(self, points: Tensor, pairs: Pairs) -> Jet:
        """The jet of G as the unknowns are now, with a graph by them where one is wanted."""
        return jet_of(self.extension, points, pairs, torch.is_grad_enabled())

    def jets(self, points: Tensor, pairs: Pairs) -> tuple[Jet, Jet]:
        """Those of G and phi, without a graph."""
        return jet_of(self.extension, points, pairs), jet_of(self.distance, points, pairs)

    def distance(self, x: Tensor) -> Tensor:
        """phi, (N, F)."""
        total = x.new_ones(x.shape[0], self.fields)
        for c in self.constraints:
            total = total * c.distance(x)
        if self.walls:
            known = [wall.distance(x) for wall in self.walls]
            columns = []
            for k in range(self.fields):
                own = [d[:, k] for d, w in zip(known, self.walls, strict=True) if w.known[k]]
                columns.append(joined(own) if own else torch.ones_like(x[:, 0]))
            total = total * torch.stack(columns, -1)
        return total if self.rim is None else total * self.rim.distance(x)

    def extension(self, x: Tensor) -> Tensor:
        """G, (N, F)."""
        if self.given is not None:
            return self.given(x)
        return self._interpolated(x, len(self.constraints))

    def _interpolated(self, x: Tensor, count: int) -> Tensor:
        """The Boolean sum of the first ``count`` constraints, (N, F)."""
        found = self._of_sides(x, count)
        if self.rim is None or count != self.rim.after:
            return found
        walls = x.new_ones(x.shape[0], self.fields)
        for c in self.constraints[:count]:
            walls = walls * c.distance(x)
        # One on the rim, zero on the sides that are known.
        share = walls / (walls + self.rim.distance(x))
        gap = self.rim.data(x) - found
        return found + share * torch.where(self.rim.known.to(x.device), gap, 0.0)

    def _of_sides(self, x: Tensor, count: int) -> Tensor:
        """The last of ``count`` constraints added to those before."""
        if count == 0:
            return self._from_walls(x)
        c, total = self.constraints[count - 1], self._interpolated(x, count - 1)
        s = ((x[:, c.axis] - c.low) / (c.high - c.low))[:, None]
        shares = {"low": (torch.ones_like(s),), "high": (torch.ones_like(s),), "both": (1 - s, s)}
        places = {"low": (c.low,), "high": (c.high,), "both": (c.low, c.high)}[c.ends]
        for share, place, data in zip(shares[c.ends], places, c.data, strict=True):
            at = _moved(x, c.axis, place)
            gap = data(at) - self._interpolated(at, count - 1)
            total = total + share * torch.where(c.known.to(x.device), gap, 0.0)
        if c.slope is not None:
            at = _moved(x, c.axis, c.low)
            before = self._slope(at, c.axis, count)
            gap = c.slope(at) - before
            rise = (x[:, c.axis] - c.low)[:, None]
            total = total + rise * torch.where(c.known.to(x.device), gap, 0.0)
        return total

    def _from_walls(self, x: Tensor) -> Tensor:
        """What is known on sides that are no box's, carried inside by their distances."""
        columns = []
        for k in range(self.fields):
            own = [wall for wall in self.walls if wall.known[k]]
            parts = shares([wall.distance(x)[:, k] for wall in own]) if own else []
            data = [part * wall.data(x)[:, k] for part, wall in zip(parts, own, strict=True)]
            columns.append(sum_of(data) if data else x.new_zeros(x.shape[0]))
        return torch.stack(columns, -1)

    def _slope(self, at: Tensor, axis: int, count: int) -> Tensor:
        """d/dx_axis of what is built in so far, the value of this constraint included."""
        if torch.compiler.is_exporting():
            raise InputError(
                "where u_t is built in, G needs a derivative that torch.export does not trace; "
                "train with hard: false to export it"
            )
        tracked = torch.is_grad_enabled()
        with torch.enable_grad():
            at = at if at.requires_grad else at.detach().requires_grad_()
            value = self._interpolated(at, count - 1)
            if not value.requires_grad:
                return torch.zeros_like(value)
            columns = [
                torch.autograd.grad(
                    value[:, k].sum(), at, create_graph=True, allow_unused=True,
                    materialize_grads=True,
                )[0][:, axis]
                for k in range(self.fields)
            ]  # fmt: skip
        found = torch.stack(columns, -1)
        return found if tracked else found.detach()


@dataclass(frozen=True)
class Constraint:
    """Known values at one or both ends of an axis; ``known``: bool (F,), for which fields.

    ``data``: one function per end, (N, D) to (N, F). ``order`` 2 and ``slope`` where du/dx_axis is
    known too.
    """

    axis: int
    low: float
    high: float
    ends: str
    known: Tensor
    data: tuple[Stated, ...]
    order: int = 1
    slope: Stated | None = None

    def distance(self, x: Tensor) -> Tensor:
        """What vanishes where the values are known, and is one of fields that are free, (N, F)."""
        s = ((x[:, self.axis] - self.low) / (self.high - self.low))[:, None]
        factor = {"low": s**self.order, "high": 1 - s, "both": 4 * s * (1 - s)}[self.ends]
        return torch.where(self.known.to(x.device), factor, 1.0)


@dataclass(frozen=True)
class Rim:
    """Known values on an obstacle's rim; ``known``: bool (F,), for which fields.

    ``after``: how many constraints come before it, which are those of the sides.
    """

    hole: Hole
    known: Tensor
    data: Stated
    after: int

    def distance(self, x: Tensor) -> Tensor:
        """As that of a side, (N, F)."""
        return torch.where(self.known.to(x.device), self.hole.distance(x)[:, None], 1.0)


@dataclass(frozen=True)
class Wall:
    """Known values on a side of shapes, whose ``faces`` these are by number; see ``Rim``."""

    body: Body
    faces: tuple[int, ...]
    known: Tensor
    data: Stated

    @cached_property
    def _zero(self) -> Callable[[Tensor], Tensor]:
        solids = self.body.points
        found = vanishing(solids, [solids.faces[k] for k in self.faces])
        if found is None:
            name = solids.faces[self.faces[0]].names[-1]
            raise InputError(
                f"no smooth function is known that vanishes on '{name}' alone: leave hard out",
                "solver.hard",
            )
        return found

    def distance(self, x: Tensor) -> Tensor:
        """What vanishes on the side, (N, F): one of fields that are free."""
        zero = self._zero(x[:, : self.body.dimension])[:, None]
        return torch.where(self.known.to(x.device), zero, 1.0)


def _walls(form: StrongForm) -> tuple[Wall, ...]:
    """The sides with Dirichlet data of a domain that is no box; InputError where one has a turn."""
    region, found = form.region, list[Wall]()
    if isinstance(region, Boxed):
        return ()
    for name in region.sides:
        condition, key = form.problem.boundary[name], f"problem.boundary.{name}.dirichlet"
        if condition.kind != "dirichlet":
            continue
        values = _values(form, condition.dirichlet, key)
        turned = any(free_names(v) & {*NORMAL} for v in values if v is not None)
        if not isinstance(region, Shaped) or condition.where is not None or turned:
            why = "names the normal" if turned else "is no whole side of shapes"
            raise InputError(f"'{name}' {why}: it is not built in; leave hard out", "solver.hard")
        faces = tuple(k for k, face in enumerate(region.body.points.faces)
                      if face in region.faces_of(name))  # fmt: skip
        known = torch.tensor([value is not None for value in values])
        wall = Wall(region.body, faces, known,
                    Stated(form.data, tuple(values), (key,) * len(values)))  # fmt: skip
        wall.distance(region.inside(torch.full((1, region.box.dimension), 0.5).double()))
        found.append(wall)
    return tuple(found)


def built_in(form: StrongForm, walls: bool = False) -> BuiltIn | None:
    """What can be built in: Dirichlet sides and the start; None where there is nothing.

    ``walls``: those of a domain that is no box, too.
    """
    problem, (lower, upper) = form.problem, extent(form)
    found = []
    for axis, (low, high) in enumerate(_pairs(_box_sides(form))):
        ends = [side for side in (low, high) if problem.boundary[side].kind == "dirichlet"]
        if not ends:
            continue
        data = tuple(_dirichlet(form, side) for side in ends)
        known = _constrained(form, ends)
        which = "both" if len(ends) == 2 else ("low" if ends[0] == low else "high")
        found.append(Constraint(axis, float(lower[axis]), float(upper[axis]), which, known, data))
    rim = _rim(form, len(found))
    if problem.time is not None:
        axis, second = form.data.box.dimension, second_order(form)
        found.append(
            Constraint(
                axis, float(lower[axis]), float(upper[axis]), "low", _started(form),
                (_initial(form, ""),), 2 if second else 1, _initial(form, "t") if second else None,
            )
        )  # fmt: skip
    sides = _walls(form) if walls else ()
    if not found and rim is None and not sides:
        return None
    return BuiltIn(
        len(lower), len(form.fields), tuple(found), moving=_moves(form), rim=rim, walls=sides
    )


def _rim(form: StrongForm, after: int) -> Rim | None:
    """An obstacle's rim with Dirichlet data."""
    obstacle, hole = form.problem.obstacle, form.hole
    if obstacle is None or hole is None or obstacle.boundary.kind != "dirichlet":
        return None
    values = _values(form, obstacle.boundary.dirichlet, _RIM)
    known = torch.tensor([value is not None for value in values])
    return Rim(hole, known, Stated(form.data, tuple(values), (_RIM,) * len(values)), after)


def beside_rim(form: StrongForm) -> Stated | None:
    """The data of an obstacle's rim wherever they are asked for, where they are values of u."""
    rim = _rim(form, 0)
    return None if rim is None else rim.data


def _moves(form: StrongForm) -> bool:
    """Whether data that are built in name a parameter that is to be found."""
    obstacle = form.problem.obstacle
    rim = () if obstacle is None else (obstacle.boundary,)
    sides = (*form.problem.boundary.values(), *rim)
    data = [c.dirichlet for c in sides] + list(form.problem.first.values())
    used = frozenset().union(*(free_names(value) for value in data))
    return any(isinstance(form.problem.parameters.get(name), Unknown) for name in used)


@torch.no_grad()
def disagreement(form: StrongForm, base: BuiltIn, count: int = 64) -> str | None:
    """The condition that G does not meet, if there is one: where a lid slides along a wall."""
    generator = torch.Generator().manual_seed(0)
    for piece in pieces(form, hard=False, periodic_built_in=True)[1:]:
        if not piece.of_value:
            continue
        if piece.part is not None and piece.name != "start" and not base.walls:
            continue
        cube = torch.rand(count, piece.free, generator=generator, dtype=torch.float64)
        x = piece.place(cube)
        known, _ = base.jets(x, ())
        gap = piece.residual(x, known).abs().max()
        if gap > _AGREEMENT * (1 + known.value.abs().max()):
            return piece.name
    return None


def pieces(
    form: StrongForm, hard: bool, periodic_built_in: bool, walls: bool = False
) -> tuple[Piece, ...]:
    """The equation, and every condition that is not built in; ``walls``: see :func:`built_in`."""
    problem, (lower, upper) = form.problem, extent(form)
    hole, region, inside = form.hole, form.region, None
    if not isinstance(region, Boxed):
        inside = Part(region.box.dimension, region.box.dimension, region.inside)
    beside = form.beside if form.blocks > 1 else None
    found = [
        Piece("equation", lower, upper, form.residual, beside, form.blocks, hole=hole,
              part=inside, pairs=form.pairs)
    ]  # fmt: skip
    sides = [] if inside is None else _side_pieces(form)
    found += [side for side in sides if not (side.of_value and hard and walls)]
    for axis, (low, high) in enumerate(_pairs(_box_sides(form))):
        if problem.boundary[low].kind == "periodic":
            if not periodic_built_in:
                found.append(_periodic(form, axis, low))
            continue
        for side, at in ((low, lower), (high, upper)):
            condition = problem.boundary[side]
            if condition.kind == "dirichlet" and hard:
                continue
            a, b = _pinned(lower, upper, axis, float(at[axis]))
            if condition.residuals is not None:
                key, own = f"problem.boundary.{side}", Piece(side, a, b, form.residual, hole=hole)
                facing = partial(_straight, outward(form, side))
                found += _written_out(form, condition.residuals, key, own, facing)
                continue
            residual = _condition(form, condition, side)
            flux = condition.kind != "dirichlet"
            found.append(Piece(side, a, b, residual, flux=flux, hole=hole))
    if problem.obstacle is not None and not (
        hard and problem.obstacle.boundary.kind == "dirichlet"
    ):
        found += _rim_piece(form, problem.obstacle.boundary)
    if problem.time is not None and not hard:
        axis = form.data.box.dimension
        a, b = _pinned(lower, upper, axis, float(lower[axis]))
        found.append(Piece("start", a, b, _start(form), hole=hole, part=inside))
    return tuple(found)


def _box_sides(form: StrongForm) -> tuple[str, ...]:
    """The sides of a box in pairs; none where the domain is none."""
    return form.problem.box.sides if isinstance(form.region, Boxed) else ()


def _side_pieces(form: StrongForm) -> list[Piece]:
    """The conditions on the sides of a domain that is no box, all soft."""
    (lower, upper), found = extent(form), []
    d = form.region.box.dimension
    for name, side in form.region.sides.items():
        condition, key = form.problem.boundary[name], f"problem.boundary.{name}"
        if condition.kind in ("absorbing", "contact"):
            raise InputError(f"{condition.kind} sides are for grids and meshes", key)
        facing = partial(_facing, side.normal, d)
        if condition.residuals is not None:
            own = Piece(name, lower, upper, form.residual, part=Part(d, side.free, side.place))
            found += _written_out(form, condition.residuals, key, own, facing)
            continue
        if condition.kind == "dirichlet":
            values = _values(form, condition.dirichlet, f"{key}.dirichlet")
            residual = _dirichlet_at(form, values, f"{key}.dirichlet", facing)
        else:
            residual = _flux_condition(form, condition, key, facing)
        part = Part(d, side.free, side.place)
        flux = condition.kind != "dirichlet"
        found.append(Piece(name, lower, upper, residual, flux=flux, part=part))
    return found


def _facing(normal: Callable[[Tensor], Tensor], dimension: int, points: Tensor) -> Sequence[Tensor]:
    return normal(points.detach()[:, :dimension]).unbind(1)


def _dirichlet_at(
    form: StrongForm, values: Sequence[Any], key: str, facing: Callable[[Tensor], Sequence[Tensor]]
) -> PointResidual:
    """u - g, where g may name the normal of a side that turns."""
    known = [k for k, value in enumerate(values) if value is not None]
    turned = any(free_names(values[k]) & {*NORMAL} for k in known)

    def residual(points: Tensor, jet: Jet) -> Tensor:
        normal = facing(points) if turned else None
        data = [form.data(values[k], key, points, normal=normal).expand(len(points)) for k in known]
        return jet.value[:, known] - torch.stack(data, -1)

    return residual


def _rim_piece(form: StrongForm, condition: Condition) -> list[Piece]:
    """The condition on an obstacle's rim, where the normal is another at every point."""
    hole, (lower, upper) = form.hole, extent(form)
    assert hole is not None
    if condition.kind == "dirichlet":
        data = _rim(form, 0)
        assert data is not None
        given, known = data.data, data.known
        return [Piece(OBSTACLE, lower, upper, lambda x, jet: (jet.value - given(x))[:, known],
                      hole=hole, rim=True)]  # fmt: skip
    key = "problem.obstacle.boundary"
    if condition.residuals is not None:
        own = Piece(OBSTACLE, lower, upper, form.residual, hole=hole, rim=True)
        return _written_out(form, condition.residuals, key, own, hole.normal)
    residual = _flux_condition(form, condition, key, hole.normal)
    return [Piece(OBSTACLE, lower, upper, residual, flux=True, hole=hole, rim=True)]


def _written_out(
    form: StrongForm,
    residuals: Sequence[Any],
    key: str,
    own: Piece,
    facing: Callable[[Tensor], Sequence[float | Tensor]],
) -> list[Piece]:
    """The piece ``own`` with residuals as they are written, if any; n = ``facing`` the points."""
    if not residuals:
        return []

    def terms(points: Tensor, jet: Jet) -> list[Tensor]:
        return form.written_out(residuals, f"{key}.residuals", points, jet, facing(points))

    def residual(points: Tensor, jet: Jet) -> Tensor:
        return sum_of(terms(points, jet))

    pairs = derivatives_in(form.data, residuals)
    return [replace(own, residual=residual, pairs=pairs, terms=terms)]


def _straight(normal: Sequence[float], points: Tensor) -> Sequence[float]:
    """The normal of a side that is plane."""
    return normal


def extent(form: StrongForm) -> tuple[Tensor, Tensor]:
    """The corners of the box, time last, float64 (D,)."""
    box, time = form.data.box, form.problem.time
    low = (*box.lower, *(() if time is None else (time.start,)))
    high = (*box.upper, *(() if time is None else (time.end,)))
    return torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)


def second_order(form: StrongForm) -> bool:
    """Whether the equation has u_tt."""
    return form.problem.time is not None and any(
        axes == (form.data.box.dimension,) * 2 for axes in form.pairs
    )


def _pairs(sides: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(sides[::2], sides[1::2], strict=True))


def _pinned(lower: Tensor, upper: Tensor, axis: int, value: float) -> tuple[Tensor, Tensor]:
    a, b = lower.clone(), upper.clone()
    a[axis] = b[axis] = value
    return a, b


def _moved(x: Tensor, axis: int, value: float) -> Tensor:
    """x with one coordinate replaced, differentiable in the others."""
    mask = x.new_zeros(x.shape[1])
    mask[axis] = 1.0
    return x * (1 - mask) + value * mask


def _values(form: StrongForm, given: Any, key: str) -> list[Any]:
    """A side's value per field: a list for a velocity, else the same for all; None where free."""
    if form.flow is not None:
        d = form.data.box.dimension
        listed = list(given) if isinstance(given, (list, tuple)) else [given] * d
        if len(listed) != d:
            raise InputError(f"a velocity has {d} components; got {len(listed)}", key)
        return [*listed, None]
    if isinstance(given, (list, tuple)):
        raise InputError("this equation's values are no lists", key)
    return [given] * len(form.fields)


def outward(form: StrongForm, side: str) -> tuple[float, ...]:
    """The unit normal of a side, out of the box."""
    axis, end = divmod(form.problem.box.sides.index(side), 2)
    sign = 1.0 if end else -1.0
    return tuple(sign if k == axis else 0.0 for k in range(form.problem.box.dimension))


def _dirichlet(form: StrongForm, side: str) -> Stated:
    key = f"problem.boundary.{side}.dirichlet"
    values = _values(form, form.problem.boundary[side].dirichlet, key)
    return Stated(form.data, tuple(values), (key,) * len(values), outward(form, side))


def _constrained(form: StrongForm, sides: Sequence[str]) -> Tensor:
    """Which fields the Dirichlet conditions of these sides give."""
    side = sides[0]
    given = form.problem.boundary[side].dirichlet
    values = _values(form, given, f"problem.boundary.{side}.dirichlet")
    return torch.tensor([value is not None for value in values])


def _started(form: StrongForm) -> Tensor:
    return torch.tensor([name in form.problem.first for name in form.fields])


def _initial(form: StrongForm, suffix: str) -> Stated:
    """The initial values, or with the suffix "t" the initial rates (zero where not given)."""
    first = form.problem.first
    if not suffix and not _started(form).any():
        raise InputError(f"no initial data for {', '.join(form.fields)}", "problem.initial")
    values = tuple(first.get(name + suffix) for name in form.fields)
    return Stated(form.data, values, ("problem.initial",) * len(values))


def _start(form: StrongForm) -> PointResidual:
    value, known = _initial(form, ""), _started(form)
    rate = _initial(form, "t") if second_order(form) else None
    axis = form.data.box.dimension

    def residual(points: Tensor, jet: Jet) -> Tensor:
        gap = (jet.value - value(points))[:, known]
        if rate is None:
            return gap
        return torch.cat([gap, (jet.gradient[axis] - rate(points))[:, known]], -1)

    return residual


def _condition(form: StrongForm, condition: Condition, side: str) -> PointResidual:
    key = f"problem.boundary.{side}"
    if condition.kind == "absorbing":
        raise InputError("absorbing sides are for grids and meshes", key)
    if condition.kind == "dirichlet":
        value, known = _dirichlet(form, side), _constrained(form, [side])
        return lambda points, jet: (jet.value - value(points))[:, known]
    normal = outward(form, side)
    return _flux_condition(form, condition, key, lambda points: normal)


def _flux_condition(
    form: StrongForm,
    condition: Condition,
    key: str,
    facing: Callable[[Tensor], Sequence[float | Tensor]],
) -> PointResidual:
    """n . K grad u + alpha u - g, n = ``facing`` of the points: a number or (N,) per axis."""
    if form.flow is not None:
        raise InputError("a flow's sides take dirichlet alone here", f"{key}.{condition.kind}")

    def residual(points: Tensor, jet: Jet) -> Tensor:
        normal = facing(points)

        def read(given: Any, where: str) -> Tensor:
            columns = [
                form.data(value, where, points, jet.value, normal=normal).expand(len(points))
                for value in _values(form, given, where)
            ]
            return torch.stack(columns, -1)

        alpha, g = flux_data(condition, f"{key}.{condition.kind}", read)
        flux = form.flux(points, jet)
        across = [
            (n[:, None] if isinstance(n, Tensor) else n) * q
            for n, q in zip(normal, flux, strict=True)
            if isinstance(n, Tensor) or n
        ]
        return sum_of(across) - g + alpha * jet.value

    return residual


def _periodic(form: StrongForm, axis: int, low: str) -> Piece:
    lower, upper = extent(form)
    a, b = _pinned(lower, upper, axis, float(lower[axis]))
    shift = torch.zeros_like(lower)
    shift[axis] = upper[axis] - lower[axis]

    def residual(points: Tensor, jet: Jet) -> Tensor:
        half = len(points) // 2
        gap = jet.data[[0, 1 + axis]]
        return torch.cat(list(gap[:, :half] - gap[:, half:]), -1)

    return Piece(low, a, b, residual, lambda points: points + shift, 2)
