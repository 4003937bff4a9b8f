"""A body made of shapes by its points: which lie in it, which on its sides.

The shapes and their unions, differences and intersections are those of
:mod:`sciml.core.problem.geometry`, in the plane and in space, and balls and blocks in up to ten
dimensions. Nothing is meshed:

    inside   uniform points of the unit cube become uniform points of the body: each shape has a map
             of constant Jacobian (in a ball the coordinates are those of Beta distributions, one
             after the other), several are chosen by volume, and what the operations take away is
             drawn again;
    sides    a point of a shape's face is on the boundary where a step along the normal leaves the
             body, or enters it: which says where n points, too;
    measures of faces are closed formulas where all of the face is left, in the plane also where a
             part of it is (its ends by bisection), else a share counted at Sobol's points; volumes
             are by the divergence theorem where faces are exact.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.geometry import Primitive, Stretch, stretches, tree_of
from sciml.core.problem.grid import Box

_STEP = 1e-9  # across a face, in sizes of the body
_ON = 1e-9  # a point this near to a face lies on it
_SCANNED = 2048  # places of a curve between which its ends on the body are looked for
_BISECTED = 60
_COUNTED = 2**14  # points of a face, and eight times as many of a body, whose share is counted
_ROUNDS = 200
_ENOUGH = 1e-5  # of what is drawn lies in the body, at least
_GAUSS, _CUT = 16, 8  # nodes on every piece of a curve, and these

Predicate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solids:
    """``shapes`` put together as the text ``region`` says, ``names`` those of their faces.

    All shapes are of one dimension, and the text is a region of them.
    """

    shapes: Mapping[str, Primitive]
    region: str
    names: Mapping[str, tuple[tuple[str, ...], ...]]

    @property
    def dimension(self) -> int:
        """2 to 10."""
        return next(iter(self.shapes.values())).dimension

    @cached_property
    def box(self) -> Box:
        """One around it."""
        solids = [self._solids[k] for k in self._around]
        low = torch.stack([s.lower for s in solids]).amin(0)
        high = torch.stack([s.upper for s in solids]).amax(0)
        return Box(tuple(low.tolist()), tuple(high.tolist()))

    @cached_property
    def size(self) -> float:
        """The longest side of the box around it."""
        return max(b - a for a, b in zip(self.box.lower, self.box.upper, strict=True))

    def contains(self, points: Tensor) -> Tensor:
        """Whether points (N, d) lie in it, bool (N,); those on its sides do, up to rounding."""
        found = self._holds(points)
        if bool(found.all()):
            return found
        rows = (~found).nonzero()[:, 0]
        beside = torch.zeros(len(rows), dtype=torch.bool)
        for face in self.faces:
            near = face.gap(points[rows]).abs() <= _ON * self.size
            if bool(near.any()):
                ahead, behind = self._across(face, points[rows][near])
                beside[near.nonzero()[:, 0]] |= ahead | behind
        return found.index_put((rows,), beside)

    @cached_property
    def volume(self) -> float:
        """Its measure; see the module."""
        if all(face.whole for face in self.faces):
            # The divergence theorem, a shape at a time: all of its faces have one sign.
            total = 0.0
            for k, solid in enumerate(self._solids.values()):
                signs = [face.sign for face in self.faces if face.solid == k]
                if len(set(signs)) > 1 or len(signs) not in (0, len(solid.faces)):
                    break
                total += signs[0] * solid.volume if signs else 0.0
            else:
                return total
        if self.dimension == 2:
            x, n, w = (torch.cat(rows) for rows in zip(*map(self._gauss, self.faces), strict=True))
            return float((w * (x * n).sum(1)).sum()) / 2
        return self._counted

    @cached_property
    def _counted(self) -> float:
        points = self._mixed(_sobol(8 * _COUNTED, self.dimension))
        total = sum(self._solids[name].volume for name in self._around)
        return total * float(self._holds(points).double().mean())

    def inside(self, cube: Tensor) -> Tensor:
        """Uniform points (N, d) for points (N, d) of the unit cube.

        Of several shapes those of the box around them as far as they lie inside, so that points
        near to each other come from such of the cube.
        """
        one = len(self._around) == 1
        low, high = (_row(corner) for corner in (self.box.lower, self.box.upper))
        points = self._mixed(cube) if one else low + cube * (high - low)

        def draw(count: int, generator: torch.Generator) -> Tensor:
            fresh = self._mixed(_random(count, self.dimension, generator))
            return fresh[self._holds(fresh)]

        kept = self._holds(points)
        return filled(points, kept, draw, "the domain is next to nothing of its shapes")

    def _mixed(self, cube: Tensor) -> Tensor:
        """Points of the shapes around it, each place once; NaN where a shape before has it too."""
        solids = [self._solids[name] for name in self._around]
        if len(solids) == 1:
            return solids[0].place(cube)
        which, cube = chosen(cube, torch.tensor([s.volume for s in solids], dtype=torch.float64))
        points = torch.empty_like(cube)
        for k, solid in enumerate(solids):
            rows = which == k
            own = solid.place(cube[rows])
            for other in solids[:k]:
                own[other.holds(own)] = math.nan
            points[rows] = own
        return points

    def on(self, face: Face, cube: Tensor) -> Tensor:
        """Uniform points (N, d) of what is left of a face, for points (N, d - 1) of a cube."""
        if face.spans is not None:
            low, length = face.spans[:, 0], face.spans[:, 1] - face.spans[:, 0]
            which, own = chosen(cube, length)
            return face.place(low[which, None] + own * length[which, None])
        points = face.place(cube)
        if face.whole:
            return points

        def draw(count: int, generator: torch.Generator) -> Tensor:
            fresh = face.place(_random(count, self.dimension - 1, generator))
            return fresh[self._bounding(face, fresh)]

        return filled(points, self._bounding(face, points), draw, "a sliver is left of a side")

    def normal(self, face: Face, points: Tensor) -> Tensor:
        """Out of the body, (N, d), at points of a face."""
        ahead, _ = self._across(face, points)
        n = face.normal(points)
        return torch.where(ahead[:, None], -n, n)

    @cached_property
    def faces(self) -> tuple[Face, ...]:
        """Those of its shapes of which something is on the boundary."""
        found = []
        for k, (name, solid) in enumerate(self._solids.items()):
            for names, face in zip(self.names[name], solid.faces, strict=True):
                here = self._left(Face(names, k, face.length, face.place, face.normal, face.gap))
                if here is not None:
                    found.append(here)
        if not found:
            raise InputError("nothing is left of the shapes", "problem.domain.region")
        return tuple(found)

    def _left(self, face: Face) -> Face | None:
        """What of a face is on the boundary."""
        one = self.dimension == 2
        if one:
            ends = torch.linspace(0, 1, _SCANNED + 1, dtype=torch.float64)
            cube = ((ends[1:] + ends[:-1]) / 2)[:, None]
        else:
            cube = _sobol(_COUNTED, self.dimension - 1)
        points = face.place(cube)
        ahead, behind = self._across(face, points)
        there = ahead != behind
        share = float(there.double().mean())
        if share == 0.0:
            return None
        signs = (~ahead)[there]
        sign = 1 if bool(signs.all()) else -1 if not bool(signs.any()) else 0
        spans = None
        if one and share < 1.0:
            spans = self._spans(face, cube[:, 0], there)
            share = float((spans[:, 1] - spans[:, 0]).sum())
        return Face(
            face.names, face.solid, face.length, face.place, face.normal, face.gap, share, sign,
            spans,
        )  # fmt: skip

    def _spans(self, face: Face, middles: Tensor, there: Tensor) -> Tensor:
        """The intervals (K, 2) of a curve's parameter that are on the boundary."""
        turns = (there[1:] != there[:-1]).nonzero()[:, 0]
        low, high = middles[turns], middles[turns + 1]
        first = there[turns]
        for _ in range(_BISECTED):
            middle = (low + high) / 2
            same = self._bounding(face, face.place(middle[:, None])) == first
            low, high = torch.where(same, middle, low), torch.where(same, high, middle)
        ends = [] if not there[0] else [middles.new_zeros(1)]
        ends += [(low + high) / 2]
        ends += [] if not there[-1] else [middles.new_ones(1)]
        return torch.cat(ends).reshape(-1, 2)

    def _bounding(self, face: Face, points: Tensor) -> Tensor:
        ahead, behind = self._across(face, points)
        return ahead != behind

    def _across(self, face: Face, points: Tensor) -> tuple[Tensor, Tensor]:
        """Whether the body is ahead of a face, along its normal, and behind it."""
        step = _STEP * self._span * face.normal(points)
        return self._holds(points + step), self._holds(points - step)

    @cached_property
    def _span(self) -> float:
        return max(float((s.upper - s.lower).max()) for s in self._solids.values())

    def _gauss(self, face: Face) -> tuple[Tensor, Tensor, Tensor]:
        """Points, normals and weights of Gauss' rule on a curve."""
        spans = face.spans
        if spans is None:
            spans = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
        cuts = torch.linspace(0, 1, _CUT + 1, dtype=torch.float64)
        ends = spans[:, :1] + (spans[:, 1:] - spans[:, :1]) * cuts
        spans = torch.stack([ends[:, :-1].flatten(), ends[:, 1:].flatten()], 1)
        nodes, weights = np.polynomial.legendre.leggauss(_GAUSS)
        s, w = (torch.from_numpy(v)[None] for v in ((nodes + 1) / 2, weights / 2))
        length = (spans[:, 1] - spans[:, 0])[:, None]
        x = face.place((spans[:, :1] + s * length).reshape(-1, 1))
        return x, self.normal(face, x), (w * length * face.length).flatten()

    def quadrature(self, face: Face) -> tuple[Tensor, Tensor, Tensor]:
        """Points (N, d), normals and weights on a face: Gauss' rule in the plane, else Sobol's."""
        if self.dimension == 2:
            return self._gauss(face)
        x = self.on(face, _sobol(_COUNTED, self.dimension - 1))
        w = torch.full((len(x),), face.measure / len(x), dtype=torch.float64)
        return x, self.normal(face, x), w

    @cached_property
    def _tree(self) -> ast.expr:
        return tree_of(self.region, self.shapes, ".region")

    @cached_property
    def _solids(self) -> dict[str, Solid]:
        return {name: _solid(primitive) for name, primitive in self.shapes.items()}

    def _holds(self, points: Tensor) -> Tensor:
        known: dict[str, Tensor] = {}

        def holds(tree: ast.expr) -> Tensor:
            if isinstance(tree, ast.Name):
                if tree.id not in known:
                    known[tree.id] = self._solids[tree.id].holds(points)
                return known[tree.id]
            assert isinstance(tree, ast.BinOp)
            one, other = holds(tree.left), holds(tree.right)
            if isinstance(tree.op, ast.Add):
                return one | other
            return one & (other if isinstance(tree.op, ast.Mult) else ~other)

        return holds(self._tree)

    @cached_property
    def _around(self) -> tuple[str, ...]:
        """Shapes whose union holds it, of little volume."""

        def around(tree: ast.expr) -> list[str]:
            if isinstance(tree, ast.Name):
                return [tree.id]
            assert isinstance(tree, ast.BinOp)
            one, other = around(tree.left), around(tree.right)
            if isinstance(tree.op, ast.Sub):
                return one
            if isinstance(tree.op, ast.Mult):
                return min(one, other, key=lambda n: sum(self._solids[k].volume for k in n))
            return one + other

        return tuple(dict.fromkeys(around(self._tree)))


@dataclass(frozen=True)
class Face:
    """A face of shape number ``solid``, called by these ``names``; ``length``: its measure.

    ``place``: (N, d - 1) of the unit cube to (N, d), of constant Jacobian. ``normal``: out of the
    shape; ``gap``: how far points lie from it. ``share``: how much of it bounds the body; ``sign``:
    1 where the body lies within the shape there, -1 outside, 0 both. ``spans``: of a curve the
    parts that do, (K, 2).
    """

    names: tuple[str, ...]
    solid: int
    length: float
    place: Callable[[Tensor], Tensor]
    normal: Callable[[Tensor], Tensor]
    gap: Callable[[Tensor], Tensor]
    share: float = 1.0
    sign: int = 1
    spans: Tensor | None = None

    @property
    def whole(self) -> bool:
        """Whether all of it bounds the body."""
        return self.share == 1.0

    @property
    def measure(self) -> float:
        """Of what is left of it."""
        return self.share * self.length


def chosen(cube: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """One of several parts by its size, by the first coordinate, which is left uniform in it."""
    ends = sizes.cumsum(0) / sizes.sum()
    which = torch.bucketize(cube[:, 0].contiguous(), ends[:-1].contiguous(), right=True)
    start = torch.cat([ends.new_zeros(1), ends])[which]
    own = cube.clone()
    own[:, 0] = ((cube[:, 0] - start) / (sizes / sizes.sum())[which]).clamp(0, 1)
    return which, own


def filled(
    points: Tensor,
    kept: Tensor,
    draw: Callable[[int, torch.Generator], Tensor],
    otherwise: str,
) -> Tensor:
    """The points, others in the place of those that are not ``kept``; the same every time.

    ``draw(count, generator)`` tries so many and gives those that are good. Raises InputError, of
    the text ``otherwise``, where next to none are.
    """
    wanted = int((~kept).sum())
    if not wanted:
        return points
    seed = int(points.detach().abs().sum().mul(1e6).remainder(2**31))
    generator = torch.Generator().manual_seed(seed)
    found, tried, good = list[Tensor](), 0, 0
    for _ in range(_ROUNDS):
        rate = max(good / tried, _ENOUGH) if good else 0.5 if not tried else 1 / (2 * tried)
        count = min(max(64, int(1.2 * (wanted - good) / rate) + 1), 2**18)
        fresh = draw(count, generator)
        found.append(fresh)
        tried, good = tried + count, good + len(fresh)
        if good >= wanted:
            full = points.clone()
            full[~kept] = torch.cat(found)[:wanted]
            return full
    raise InputError(otherwise, "problem.domain")


def _sobol(count: int, dimension: int) -> Tensor:
    if not dimension:
        return torch.zeros(count, 0, dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=0)
    return engine.draw(count, dtype=torch.float64)


def _random(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """As even as those in whose place they come."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=seed)
    return engine.draw(count, dtype=torch.float64)


# The shapes, one by one.


@dataclass(frozen=True)
class Solid:
    """A shape by points: its box, its volume, what it holds, a map of the cube, its faces."""

    lower: Tensor
    upper: Tensor
    volume: float
    holds: Predicate
    place: Callable[[Tensor], Tensor]
    faces: tuple[Face, ...]


def _solid(primitive: Primitive) -> Solid:
    if primitive.kind in ("rectangle", "box", "block"):
        lower, upper = (torch.tensor(c, dtype=torch.float64) for c in primitive.corners)
        return _block(lower, upper)
    if primitive.polygon is not None:
        return _polygon(stretches(primitive.polygon))
    if primitive.cylinder is not None:
        body = primitive.cylinder
        return _cylinder(_row(body.start), _row(body.end), body.radius)
    if primitive.ellipse is not None:
        x, y, a, b = primitive.ellipse
        return _ellipse(_row((x, y)), _row((a, b)))
    *centre, radius = primitive.circle or primitive.sphere or primitive.ball or ()
    return _ball(_row(centre), radius)


def _row(values: Sequence[float]) -> Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64)


def _norm(x: Tensor) -> Tensor:
    found: Tensor = x.norm(dim=1)
    return found


def _unit(x: Tensor) -> Tensor:
    return x / _norm(x)[:, None].clamp_min(1e-300)


def _face(
    length: float,
    place: Callable[[Tensor], Tensor],
    normal: Callable[[Tensor], Tensor],
    gap: Callable[[Tensor], Tensor],
) -> Face:
    return Face((), 0, length, place, normal, gap)


def _block(lower: Tensor, upper: Tensor) -> Solid:
    d, size = len(lower), upper - lower

    def face(axis: int, end: int) -> Face:
        others = [k for k in range(d) if k != axis]
        at, sign = (lower, upper)[end][axis], (-1.0, 1.0)[end]

        def place(cube: Tensor) -> Tensor:
            x = at.expand(len(cube), d).clone()
            x[:, others] = lower[others] + cube * size[others]
            return x

        def normal(x: Tensor) -> Tensor:
            n = torch.zeros_like(x)
            n[:, axis] = sign
            return n

        def gap(x: Tensor) -> Tensor:
            beyond = torch.maximum(lower - x, x - upper).clamp_min(0.0)
            beyond = torch.cat([beyond[:, others], (x[:, axis] - at)[:, None]], 1)
            return _norm(beyond)

        return _face(float(size[others].prod()), place, normal, gap)

    faces = tuple(face(axis, end) for axis in range(d) for end in (0, 1))
    return Solid(
        lower, upper, float(size.prod()),
        lambda x: ((x >= lower) & (x <= upper)).all(1),
        lambda cube: lower + cube * size, faces,
    )  # fmt: skip


def _sphere_point(cube: Tensor) -> Tensor:
    """Points of the unit sphere in one dimension more than the cube (N, d - 1).

    A coordinate of one is (1 + x) / 2 ~ Beta((d - 1) / 2, (d - 1) / 2), the others a sphere again.
    """
    from scipy.special import betaincinv

    left, columns = cube.shape[1] + 1, list[Tensor]()
    room = torch.ones(len(cube), dtype=torch.float64)
    while left > 2:
        half = (left - 1) / 2
        share = torch.from_numpy(np.asarray(betaincinv(half, half, cube[:, len(columns)].numpy())))
        columns.append(room * (2 * share - 1))
        # 1 - x^2 without cancellation near the poles.
        room = room * 2 * (share * (1 - share)).clamp_min(0).sqrt()
        left -= 1
    angle = 2 * math.pi * cube[:, -1]
    return torch.stack([*columns, room * angle.cos(), room * angle.sin()], 1)


def _ball(centre: Tensor, radius: float) -> Solid:
    d = len(centre)
    volume = math.pi ** (d / 2) / math.gamma(d / 2 + 1) * radius**d

    def place(cube: Tensor) -> Tensor:
        r = radius * cube[:, :1] ** (1 / d)
        return centre + r * _sphere_point(cube[:, 1:])

    def normal(x: Tensor) -> Tensor:
        out = x - centre
        return _unit(out)

    face = _face(
        d * volume / radius, lambda cube: centre + radius * _sphere_point(cube), normal,
        lambda x: ((x - centre).norm(dim=1) - radius).abs(),
    )  # fmt: skip
    return Solid(
        centre - radius, centre + radius, volume,
        lambda x: (x - centre).norm(dim=1) <= radius, place, (face,),
    )  # fmt: skip


def _ellipse(centre: Tensor, axes: Tensor) -> Solid:
    # The angle at which so much of the rim's length is passed, by Newton's method on a table.
    table = torch.linspace(0, 2 * math.pi, 4097, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(8))

    def speed(t: Tensor) -> Tensor:
        return torch.hypot(axes[0] * t.sin(), axes[1] * t.cos())

    step = float(table[1])
    inner = table[:-1, None] + step * (nodes + 1) / 2
    pieces = (speed(inner) * weights).sum(1) * step / 2
    passed = torch.cat([pieces.new_zeros(1), pieces.cumsum(0)])
    length = float(passed[-1])

    def rim(cube: Tensor) -> Tensor:
        wanted = cube[:, 0] * length
        k = (torch.bucketize(wanted.contiguous(), passed) - 1).clamp(0, len(table) - 2)
        t = table[k] + (wanted - passed[k]) / speed(table[k])
        for _ in range(3):
            part = table[k][:, None] + (t - table[k])[:, None] * (nodes + 1) / 2
            gone = (speed(part) * weights).sum(1) * (t - table[k]) / 2
            t = t - (passed[k] + gone - wanted) / speed(t)
        return centre + axes * torch.stack([t.cos(), t.sin()], 1)

    def normal(x: Tensor) -> Tensor:
        out = (x - centre) / axes.square()
        return _unit(out)

    def gap(x: Tensor) -> Tensor:
        scaled = (x - centre) / axes
        size, steep = scaled.norm(dim=1), (scaled / axes).norm(dim=1).clamp_min(1e-300)
        found: Tensor = (size * (size - 1) / steep).abs()
        return found

    def place(cube: Tensor) -> Tensor:
        return centre + axes * cube[:, :1].sqrt() * _sphere_point(cube[:, 1:])

    return Solid(
        centre - axes, centre + axes, math.pi * float(axes.prod()),
        lambda x: ((x - centre) / axes).norm(dim=1) <= 1, place,
        (_face(length, rim, normal, gap),),
    )  # fmt: skip


def _cylinder(start: Tensor, end: Tensor, radius: float) -> Solid:
    length = float((end - start).norm())
    along = (end - start) / length
    one = torch.zeros(3, dtype=torch.float64)
    one[along.abs().argmin()] = 1.0
    across = torch.linalg.cross(along, one)
    across = across / across.norm()
    third = torch.linalg.cross(along, across)
    frame = torch.stack([across, third])

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        height = (x - start) @ along
        return height, (x - start) - height[:, None] * along

    def disc(cube: Tensor) -> Tensor:
        return radius * cube[:, :1].sqrt() * _sphere_point(cube[:, 1:2]) @ frame

    def cap(at: Tensor, n: Tensor) -> Face:
        def gap(x: Tensor) -> Tensor:
            return torch.hypot((x - at) @ n, (split(x)[1].norm(dim=1) - radius).clamp_min(0))

        return _face(math.pi * radius**2, lambda cube: at + disc(cube), lambda x: n.expand_as(x),
                     gap)  # fmt: skip

    def wall_gap(x: Tensor) -> Tensor:
        height, off = split(x)
        beyond = torch.maximum(-height, height - length).clamp_min(0)
        return torch.hypot(beyond, off.norm(dim=1) - radius)

    def wall_normal(x: Tensor) -> Tensor:
        off = split(x)[1]
        return _unit(off)

    wall = _face(
        2 * math.pi * radius * length,
        lambda cube: start + cube[:, :1] * (end - start)
        + radius * _sphere_point(cube[:, 1:]) @ frame,
        wall_normal, wall_gap,
    )  # fmt: skip

    def holds(x: Tensor) -> Tensor:
        height, off = split(x)
        found: Tensor = (height >= 0) & (height <= length) & (_norm(off) <= radius)
        return found

    reach = radius * (1 - along.square()).clamp_min(0).sqrt()
    return Solid(
        torch.minimum(start, end) - reach, torch.maximum(start, end) + reach,
        math.pi * radius**2 * length, holds,
        lambda cube: start + cube[:, :1] * (end - start) + disc(cube[:, 1:]),
        (cap(start, -along), cap(end, along), wall),
    )  # fmt: skip


def _polygon(sides: Sequence[Stretch]) -> Solid:
    starts, ends = (_rows([getattr(s, n) for s in sides]) for n in ("start", "end"))
    twice = starts[:, 0] * ends[:, 1] - starts[:, 1] * ends[:, 0]
    area = float(twice.sum()) / 2
    for s in sides:
        if s.centre is not None:
            radius = math.dist(s.centre, s.start)
            area += radius**2 / 2 * (s.turns - math.sin(s.turns))
    turn = math.copysign(1.0, area)
    reached = [s.at(k / 64) for s in sides for k in range(65)]
    slack = max((math.dist(s.centre, s.start) for s in sides if s.centre is not None), default=0.0)
    all_points = _rows(reached)
    lower = all_points.amin(0) - 2e-3 * slack
    upper = all_points.amax(0) + 2e-3 * slack

    def holds(x: Tensor) -> Tensor:
        """An odd number of chords to the right, but for what lies between an arc and its chord."""
        a, b = starts[None], ends[None]
        y = x[:, None, 1]
        spans = (a[..., 1] > y) != (b[..., 1] > y)
        rise = torch.where(spans, b[..., 1] - a[..., 1], 1.0)
        cut = a[..., 0] + (y - a[..., 1]) * (b[..., 0] - a[..., 0]) / rise
        inside = (spans & (x[:, None, 0] < cut)).sum(1) % 2 == 1
        for s in sides:
            if s.centre is not None:
                inside = inside ^ _in_segment(s, x)
        return inside

    faces = tuple(_stretch(s, turn) for s in sides)
    size = upper - lower
    return Solid(lower, upper, abs(area), holds, _drawn(lower, size, holds), faces)


def _rows(points: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([list(p) for p in points], dtype=torch.float64)


def _drawn(lower: Tensor, size: Tensor, holds: Predicate) -> Callable[[Tensor], Tensor]:
    def place(cube: Tensor) -> Tensor:
        points = lower + cube * size

        def draw(count: int, generator: torch.Generator) -> Tensor:
            fresh = lower + _random(count, len(size), generator) * size
            return fresh[holds(fresh)]

        return filled(points, holds(points), draw, "a polygon is next to nothing of its box")

    return place


def _in_segment(s: Stretch, x: Tensor) -> Tensor:
    """Which points lie between an arc and its chord."""
    assert s.centre is not None
    centre, start, end = _row(s.centre), _row(s.start), _row(s.end)
    near = (x - centre).norm(dim=1) <= (start - centre).norm()
    chord = end - start
    left = chord[0] * (x[:, 1] - start[1]) - chord[1] * (x[:, 0] - start[0]) > 0
    found: Tensor = near & (left != (s.turns > 0))
    return found


def _stretch(s: Stretch, turn: float) -> Face:
    """A side of a polygon that is passed counterclockwise where ``turn`` is 1."""
    start, end = _row(s.start), _row(s.end)
    if s.centre is None:
        length = float((end - start).norm())
        along = (end - start) / length
        out = turn * torch.stack([along[1], -along[0]])

        def gap(x: Tensor) -> Tensor:
            share = ((x - start) @ along).clamp(0, length)
            return _norm(x - start - share[:, None] * along)

        return _face(length, lambda cube: start + cube * (end - start), lambda x: out.expand_as(x),
                     gap)  # fmt: skip
    centre = _row(s.centre)
    radius = float((start - centre).norm())
    first = math.atan2(*(start - centre).flip(0).tolist())
    sense = turn * math.copysign(1.0, s.turns)

    def place(cube: Tensor) -> Tensor:
        angle = first + cube[:, 0] * s.turns
        return centre + radius * torch.stack([angle.cos(), angle.sin()], 1)

    def normal(x: Tensor) -> Tensor:
        out = x - centre
        return sense * _unit(out)

    def arc_gap(x: Tensor) -> Tensor:
        out = x - centre
        angle = torch.atan2(out[:, 1], out[:, 0]) - first
        angle = (math.copysign(1.0, s.turns) * angle).remainder(2 * math.pi)
        ends = torch.minimum((x - start).norm(dim=1), (x - end).norm(dim=1))
        within = angle <= abs(s.turns)
        return torch.where(within, (out.norm(dim=1) - radius).abs(), ends)

    return _face(radius * abs(s.turns), place, normal, arc_gap)
