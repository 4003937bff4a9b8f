"""Obstacles: holes in the domain, given by a level set phi that is negative inside.

Dirichlet rim (Gibou, Fedkiw, Cheng and Kang 2002): points inside are decoupled; a link from a
fluid point that meets the rim at the share theta of its length l adds K |f| / (theta l) to the
diagonal and that times g to the right, nothing beside the diagonal: symmetric, of second order.

Neumann and Robin rims (Ng, Min and Gibou 2009; Papac, Gibou and Ratsch 2010): control volumes are
cut. The open share of each face multiplies its flux, the open share of the volume f and c. By the
divergence theorem the rim's area vector in a control volume is the sum of its faces' open areas;
with d the signed distance of the point to the rim, alpha u + n . K grad u = g adds
|rim| alpha / (1 + alpha d / K) to the diagonal and |rim| g / (1 + alpha d / K) to the right; where
alpha and g depend on u, the slope of alpha u - g stands for alpha in the denominator.

Open shares are those of lines on which phi is taken as linear, averaged by the midpoint rule over
lines in the direction in which phi changes most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.condition import flux_data
from sciml.core.problem.expression import level_set
from sciml.core.problem.problem import Obstacle, Problem
from sciml.discretization.volumes.boundary import facing
from sciml.discretization.volumes.coefficients import Data, call, evaluate, expression
from sciml.discretization.volumes.fluxes import Faces, Limited
from sciml.discretization.volumes.layout import (
    Layout,
    Points,
    high_faces,
    lie_along,
    low_faces,
    pick,
)

_LINES = 8
_LEAST_THETA = 1e-3
_LEAST_VOLUME = 1e-6
# Flux across the rim relative to the fluid's, where holes must not split the kernel of A.
_LEAK = 1e-8
_KEY = "problem.obstacle"

Level = Callable[[Points], torch.Tensor]


@dataclass(frozen=True)
class Cut:
    """What an obstacle does to the system; arrays on the unknowns unless said otherwise.

    ``unused``: bool on the grid, points whose coefficients are ignored. ``solid``: bool, decoupled
    unknowns. ``volumes``: open share of each control volume; ``openings``: per axis the open share
    of the faces 0 .. m; both None for a Dirichlet rim.
    """

    obstacle: Obstacle
    level: Level
    unused: torch.Tensor
    solid: torch.Tensor
    volumes: torch.Tensor | None = None
    openings: tuple[torch.Tensor, ...] | None = None


@dataclass(frozen=True)
class RimTerms:
    """Additions at scattered unknowns: ``index`` (N,) is flat, ``values`` (*batch, N)."""

    diagonal: list[tuple[torch.Tensor, torch.Tensor]]
    right: list[tuple[torch.Tensor, torch.Tensor]]
    grounded: bool
    definite: bool = True


def cut(problem: Problem, layout: Layout, data: Data) -> Cut | None:
    """The geometry of the problem's obstacle, or None; raises InputError where no fluid is left."""
    obstacle = problem.obstacle
    if obstacle is None:
        return None
    phi = expression(obstacle.inside, data, f"{_KEY}.inside")
    if any(data.parameters[name].ndim for name in phi.names & set(data.parameters)):
        raise InputError(
            "an obstacle cannot vary over a batch: use parameters that are single numbers in "
            "'inside'",
            f"{_KEY}.inside",
        )
    try:
        signed = level_set(phi)
    except InputError as error:
        raise InputError(error.message, f"{_KEY}.inside") from None

    def level(points: Points) -> torch.Tensor:
        shape = np.broadcast_shapes(*(p.shape for p in points))
        return call(signed, points, data).expand(shape)

    inside = level(data.own) < 0
    solid = layout.to_unknowns(inside)
    if obstacle.boundary.kind == "dirichlet":
        result = Cut(obstacle, level, inside, solid)
    else:
        result = _cut_volumes(obstacle, level, layout, inside)
    if bool(result.solid.all()):
        raise InputError(
            "no grid point lies outside the obstacle: make the grid finer or the obstacle smaller",
            f"{_KEY}.inside",
        )
    if not bool(inside.any()) and (result.volumes is None or bool((result.volumes == 1).all())):
        data.notes.append(
            "the obstacle holds no grid point: it lies outside the domain or is smaller than a cell"
        )
    return result


def _cut_volumes(obstacle: Obstacle, level: Level, layout: Layout, inside: torch.Tensor) -> Cut:
    d, shape = layout.dimension, layout.shape
    edges = layout.points({k: axis.edges for k, axis in enumerate(layout.axes)})
    corners = level(edges)
    centres = level(layout.points())
    volumes = _shares(level, layout, None, corners, centres)
    openings = [_shares(level, layout, k, corners, None) for k in range(d)]
    open_sides = sum(low_faces(o, k, d) + high_faces(o, k, d) for k, o in enumerate(openings))
    solid = (volumes < _LEAST_VOLUME) | (open_sides < _LEAST_VOLUME)
    volumes = torch.where(solid, 0.0, volumes)
    for k in range(d):
        openings[k] = openings[k] * ~_touches(solid, k, layout)
    unused = inside.clone()
    layout.to_unknowns(unused).copy_(solid.expand(shape))
    return Cut(obstacle, level, unused, solid, volumes, tuple(openings))


def _touches(solid: torch.Tensor, axis: int, layout: Layout) -> torch.Tensor:
    """Faces 0 .. m with a solid unknown on either side."""
    dim = axis - layout.dimension
    first, last = solid.narrow(dim, 0, 1), solid.narrow(dim, solid.shape[dim] - 1, 1)
    wraps = layout.periodic[axis]
    below = torch.cat([last if wraps else first, solid], dim)
    above = torch.cat([solid, first if wraps else last], dim)
    return below | above


def _shares(
    level: Level,
    layout: Layout,
    normal: int | None,
    corners: torch.Tensor,
    centres: torch.Tensor | None,
) -> torch.Tensor:
    """Open share of the control volumes, or of the faces normal to an axis."""
    d = layout.dimension
    spanned = [k for k in range(d) if k != normal]
    shape = tuple(n + 1 if k == normal else n for k, n in enumerate(layout.shape))
    hits = torch.zeros(shape, dtype=torch.int16, device=corners.device)
    for corner in product((0, 1), repeat=len(spanned)):
        part = corners
        for k, s in zip(spanned, corner, strict=True):
            part = part.narrow(k, s, layout.shape[k])
        hits += part > 0
    whole = 2 ** len(spanned)
    share: torch.Tensor = (hits == whole).to(torch.float64)
    mixed = (hits > 0) & (hits < whole)
    if centres is not None:
        mixed |= (centres > 0) != (hits == whole)
    index = mixed.nonzero(as_tuple=True)
    if not index[0].numel() or not spanned:
        return share
    middle, width = [], []
    for k, (axis, i) in enumerate(zip(layout.axes, index, strict=True)):
        low = axis.edges[i]
        high = low if k == normal else axis.edges[i + 1]
        middle.append((low + high) / 2)
        width.append(high - low)
    share[index] = _open_share(level, tuple(middle), tuple(width), spanned)
    return share


def _open_share(
    level: Level, middle: Points, width: Points, spanned: Sequence[int]
) -> torch.Tensor:
    """Share of boxes (N,) where phi > 0, by lines along the axis of steepest change."""
    change = torch.stack([_change(level, middle, width, k) for k in spanned])
    steepest = change.argmax(0)
    share = torch.zeros_like(middle[0])
    for choice, along in enumerate(spanned):
        chosen = steepest == choice
        if not bool(chosen.any()):
            continue
        centre = tuple(m[chosen] for m in middle)
        span = tuple(w[chosen] for w in width)
        across = [k for k in spanned if k != along]
        total = torch.zeros_like(centre[0])
        for place in product(range(_LINES), repeat=len(across)):
            line = list(centre)
            for k, i in zip(across, place, strict=True):
                line[k] = centre[k] + ((i + 0.5) / _LINES - 0.5) * span[k]
            total += _line_share(level, line, span[along], along)
        share[chosen] = total / _LINES ** len(across)
    return share


def _change(level: Level, middle: Points, width: Points, axis: int) -> torch.Tensor:
    ends = [_moved(middle, axis, s * width[axis] / 2) for s in (-1, 1)]
    return (level(ends[1]) - level(ends[0])).abs()


def _moved(points: Sequence[torch.Tensor], axis: int, step: torch.Tensor) -> Points:
    return tuple(p + step if k == axis else p for k, p in enumerate(points))


def _line_share(
    level: Level, line: Sequence[torch.Tensor], length: torch.Tensor, along: int
) -> torch.Tensor:
    """Share of a line where phi > 0, phi being linear on each half of it."""
    steps = torch.tensor([[-0.5], [0.0], [0.5]], dtype=length.dtype, device=length.device)
    a, m, b = level(_moved(line, along, steps * length))
    return (_positive_share(a, m) + _positive_share(m, b)) / 2


def _positive_share(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    positive = a.clamp(min=0) + b.clamp(min=0)
    total = a.abs() + b.abs()
    return torch.where(total > 0, positive / torch.where(total > 0, total, 1.0), 0.0)


def join_holes(obstacle: Cut, layout: Layout) -> tuple[torch.Tensor, ...]:
    """Openings for a singular system: holes stay linked to themselves and, barely, to the fluid.

    Constants are then the whole kernel of A; decoupled unknowns would each add to it.
    """
    assert obstacle.openings is not None
    joined = []
    for k, opening in enumerate(obstacle.openings):
        dim = k - layout.dimension
        solid = obstacle.solid
        wraps = layout.periodic[k]
        first, last = solid.narrow(dim, 0, 1), solid.narrow(dim, solid.shape[dim] - 1, 1)
        both = torch.cat([last if wraps else first, solid], dim) & torch.cat(
            [solid, first if wraps else last], dim
        )
        joined.append(torch.where(both, 1.0, opening.clamp(min=_LEAK)))
    return tuple(joined)


@dataclass(frozen=True)
class Rim:
    """Where control volumes meet a Neumann or Robin rim, N of them.

    ``index``: of their unknowns, per axis; ``flat``: the same as one number. ``area``: that of the
    rim in each, ``share`` (d, N) the squares of its normal; ``nearest``: its point nearest to the
    unknown, at the signed ``distance``, ``normal`` there, out of the fluid.
    """

    index: tuple[torch.Tensor, ...]
    flat: torch.Tensor
    area: torch.Tensor
    share: torch.Tensor
    nearest: Points
    distance: torch.Tensor
    normal: list[torch.Tensor]

    def conductivity(self, K: Sequence[torch.Tensor], layout: Layout) -> torch.Tensor:
        """n . K n of a diagonal K, given on the unknowns per axis."""
        parts = [
            _gather(k, self.index, layout) * share.to(k.dtype)
            for k, share in zip(K, self.share, strict=True)
        ]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)


def rim_of(obstacle: Cut, layout: Layout) -> Rim:
    """The rim of cut control volumes."""
    assert obstacle.openings is not None
    d = layout.dimension
    vector = []
    for k, opening in enumerate(obstacle.openings):
        net = high_faces(opening, k, d) - low_faces(opening, k, d)
        vector.append(net * layout.measure(without=k))
    size = torch.stack(torch.broadcast_tensors(*vector)).square().sum(0).sqrt()
    floor = 1e-12 * prod(axis.spacing for axis in layout.axes) ** (1 - 1 / d)
    rim = (size > floor) & ~obstacle.solid
    index = rim.nonzero(as_tuple=True)
    points = tuple(axis.positions[i] for axis, i in zip(layout.axes, index, strict=True))
    nearest = _nearest(obstacle.level, points, layout)
    gaps = torch.stack([a - b for a, b in zip(points, nearest, strict=True)])
    squares = torch.stack([v[index] for v in torch.broadcast_tensors(*vector)]).square()
    return Rim(
        index,
        _flatten(index, layout.shape),
        size[index],
        squares / squares.sum(0),
        nearest,
        gaps.square().sum(0).sqrt() * obstacle.level(points).sign(),
        _normal(obstacle.level, nearest, layout),
    )


def _through(rim: Rim, alpha: torch.Tensor, conductivity: torch.Tensor) -> torch.Tensor:
    """``|rim| / (1 + alpha d / K)``, per unknown."""
    # The point may lie behind the rim; the floor keeps a strong alpha from changing the sign.
    factor = 1 + alpha * rim.distance.to(alpha.dtype) / conductivity
    return rim.area.to(alpha.dtype) / factor.clamp(min=0.1)


def flux_rim(obstacle: Cut, layout: Layout, data: Data, K: Sequence[torch.Tensor]) -> RimTerms:
    """Neumann and Robin terms of the rim; ``K`` on the unknowns, per axis."""
    rim, condition = rim_of(obstacle, layout), obstacle.obstacle.boundary
    here = facing(data, rim.normal)
    alpha, g = flux_data(
        condition,
        f"{_KEY}.boundary.{condition.kind}",
        lambda value, name: evaluate(value, rim.nearest, here, name),
    )
    factor = _through(rim, alpha, rim.conductivity(K, layout))
    grounded = bool((alpha.detach() != 0).any())
    definite = bool((alpha.detach() >= 0).all())
    diagonal = [(rim.flat, factor * alpha)] if grounded else []
    return RimTerms(diagonal, [(rim.flat, factor * g)], grounded, definite)


def rim_residual(
    problem: Problem, rim: Rim, u: torch.Tensor, data: Data, K: Sequence[torch.Tensor]
) -> torch.Tensor:
    """What a rim whose data name the solution adds to the residual, on the unknowns.

    The value on the rim is found from that at the unknown, ``u`` (*batch, *shape), by one step of
    Newton's method, which for linear data is the formula of :func:`flux_rim`.
    """
    assert problem.obstacle is not None
    condition, lay = problem.obstacle.boundary, data.layout
    facing_rim = facing(data, rim.normal)

    def flux(v: torch.Tensor) -> torch.Tensor:
        here = replace(facing_rim, variables={**facing_rim.variables, "u": v})
        alpha, g = flux_data(
            condition,
            f"{_KEY}.boundary.{condition.kind}",
            lambda value, name: evaluate(value, rim.nearest, here, name),
        )
        return g - alpha * v

    own = pick(u, rim.index)
    outward, slope = torch.func.jvp(flux, (own,), (torch.ones_like(own),))[:2]
    added = outward * _through(rim, -slope, rim.conductivity(K, lay))
    total = torch.zeros_like(u).flatten(-lay.dimension).index_add(-1, rim.flat, -added)
    found: torch.Tensor = total.unflatten(-1, u.shape[-lay.dimension :])
    return found


def _flatten(index: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    flat = torch.zeros_like(index[0])
    for i, n in zip(index, shape, strict=True):
        flat = flat * n + i
    return flat


def _gather(value: torch.Tensor, index: Sequence[torch.Tensor], layout: Layout) -> torch.Tensor:
    """``value[..., i, j]`` where axes of size 1 stand for all."""
    d = layout.dimension
    picks = tuple(i if value.shape[k - d] > 1 else torch.zeros_like(i) for k, i in enumerate(index))
    return pick(value, picks)


def _nearest(level: Level, points: Points, layout: Layout) -> Points:
    """The points' projections onto the rim, by Newton steps along the gradient of phi."""
    place = points
    for _ in range(4):
        slopes = _slopes(level, place, layout)
        steep = torch.stack(slopes).square().sum(0)
        way = torch.where(steep > 0, level(place) / torch.where(steep > 0, steep, 1.0), 0.0)
        # A point near where phi is flat must not leave its neighbourhood.
        place = tuple(
            p + (-way * s).clamp(-axis.spacing, axis.spacing)
            for p, s, axis in zip(place, slopes, layout.axes, strict=True)
        )
    return place


def _slopes(level: Level, place: Points, layout: Layout) -> list[torch.Tensor]:
    """The gradient of phi by central differences."""
    slopes = []
    for k, axis in enumerate(layout.axes):
        step = torch.full_like(place[k], 1e-4 * axis.spacing)
        rise = level(_moved(place, k, step)) - level(_moved(place, k, -step))
        slopes.append(rise / (2e-4 * axis.spacing))
    return slopes


def _normal(level: Level, place: Points, layout: Layout) -> list[torch.Tensor]:
    """The unit normal out of the fluid, into the hole, where phi falls."""
    slopes = _slopes(level, place, layout)
    size = torch.stack(slopes).square().sum(0).sqrt()
    return [-s / torch.where(size > 0, size, 1.0) for s in slopes]


def rim_value(
    obstacle: Cut, points: Points, data: Data, unused: torch.Tensor | None = None
) -> torch.Tensor:
    """The Dirichlet value of the rim, carried on beyond it; zero where ``unused`` holds."""
    here = facing(data, _normal(obstacle.level, points, data.layout))
    value = obstacle.obstacle.boundary.dirichlet
    return evaluate(value, points, here, f"{_KEY}.boundary.dirichlet", unused)


def cut_links(
    obstacle: Cut,
    faces: Sequence[Faces],
    layout: Layout,
    data: Data,
    K: Sequence[torch.Tensor],
) -> tuple[list[Faces], RimTerms]:
    """Dirichlet rim: faces without the links that meet the hole, and what replaces these.

    ``K``: per axis, on the unknowns.
    """
    result, diagonal, right = [], [], []
    for axis, face in enumerate(faces):
        line, d = layout.axes[axis], layout.dimension
        dim = axis - d
        points = layout.points({axis: line.extended})
        inside = obstacle.level(points) < 0
        n = inside.shape[dim]
        below, above = inside.narrow(dim, 0, n - 1), inside.narrow(dim, 1, n - 1)
        up, down, diffusive = (
            f.expand(*f.shape[:-d], *below.shape) for f in (face.up, face.down, face.diffusive)
        )
        for fluid_below, entries in ((True, up), (False, down)):
            own_side, beyond = (below, above) if fluid_below else (above, below)
            index = (~own_side & beyond & _belongs(layout, axis, fluid_below)).nonzero(
                as_tuple=True
            )
            index = _conducting(index, diffusive)
            if not index[0].numel():
                continue
            own = list(index)
            if fluid_below:
                own[axis] = index[axis] - 1
            start = tuple(a.positions[i] for a, i in zip(layout.axes, own, strict=True))
            length = line.lengths[index[axis]]
            theta = meeting(obstacle.level, start, axis, length if fluid_below else -length)
            place = _moved(start, axis, theta * (length if fluid_below else -length))
            g = rim_value(obstacle, place, data)
            area = layout.measure(without=axis)
            if isinstance(area, torch.Tensor):
                area = _gather(area, own, layout).to(data.dtype)
            share = theta.clamp(min=_LEAST_THETA) * length
            link = _gather(K[axis], own, layout) * area / share.to(data.dtype)
            link = link - (pick(entries, index) - pick(diffusive, index))
            flat = _flatten(own, layout.shape)
            diagonal.append((flat, link))
            right.append((flat, link * g))
        closed = below | above
        up, down, diffusive = (f.masked_fill(closed, 0.0) for f in (up, down, diffusive))
        part = face.limited
        if part is not None:
            part = Limited(torch.where(closed, 0.0, part.strength), part.forward, ~closed)
        result.append(Faces(up, down, diffusive, part))
    return result, RimTerms(diagonal, right, True)


def _belongs(layout: Layout, axis: int, fluid_below: bool) -> torch.Tensor:
    """Faces whose fluid point is an unknown (not the point beyond the end of the axis)."""
    mask = torch.ones(
        layout.shape[axis] + 1, dtype=torch.bool, device=layout.axes[axis].edges.device
    )
    mask[0 if fluid_below else -1] = False
    return lie_along(mask, axis, layout.dimension)


def _conducting(
    index: tuple[torch.Tensor, ...], diffusive: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Leave out faces on closed ends, which carry no link."""
    if not index[0].numel():
        return index
    entries = pick(diffusive, index).detach()
    some = (entries != 0).reshape(-1, index[0].numel()).any(0)
    return tuple(i[some] for i in index)


# Each round divides the way in so many parts, together in as many as rounding tells apart.
_PARTS, _ROUNDS = 32, 10


def meeting(level: Level, start: Points, axis: int, way: torch.Tensor) -> torch.Tensor:
    """Share of the way, in (0, 1], at which phi turns negative, by multisection."""
    low, length = torch.zeros_like(way), 1.0
    steps = torch.arange(1, _PARTS, dtype=way.dtype, device=way.device) / _PARTS
    for _ in range(_ROUNDS):
        tried = low + length * lie_along(steps, 0, 1 + way.ndim)
        fluid = level(_moved(start, axis, tried * way)) >= 0
        low = low + (length / _PARTS) * fluid.cumprod(0).sum(0)
        length /= _PARTS
    return low + length
