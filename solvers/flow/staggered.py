"""The staggered grid: what its sides prescribe, which faces are free, how they are linked.

Harlow and Welch's grid (1965) has p at the cells' centres, u in the middle of the faces normal to
x, v in the middle of those normal to y. The Laplacian of a velocity along one axis, its neighbours
at distances s h and t h (1 but for walls at 1/2 and rims in between; Shortley and Weller 1938), is

    2 / ((s + t) h^2) ((w_low - w) / s + (w_high - w) / t),

of second order in the solution and exact for parabolas. Obstacles are at rest: faces whose middle
lies inside keep u = 0, the others meet the rim at its distance, and the open share o of a face
weighs its flux, so that for every cell D u = sum(o u . n |f|) / |cell| = 0.

A wall gives both velocities, at the places where they live: its normal component on the m faces
along it, its tangential component on the m + 1 faces beside it. An outlet is n . grad(u, v) = 0
with p = 0, but for the velocity that carries itself out: see ``Component.carry_out``.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import SIDES, Grid
from sciml.core.problem.problem import Condition, Problem
from sciml.discretization.volumes.boundary import names_of, outward
from sciml.discretization.volumes.coefficients import Data, evaluate
from sciml.discretization.volumes.layout import lie_along
from sciml.discretization.volumes.obstacle import Cut, meeting
from sciml.solvers.flow.loops import Links, sweep

End = Literal["wall", "outlet", "periodic"]
# Per (axis, end) of a wall the velocities (u, v) there, each (1 or samples, places).
Walls = dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]


def ends(problem: Problem) -> tuple[tuple[End, End], ...]:
    """Per axis what the two ends are; raises InputError for what is none of the three."""
    result = []
    for pair in SIDES[:2]:
        low, high = (_end(problem.boundary[name], name) for name in pair)
        result.append((low, high))
    return tuple(result)


def _end(condition: Condition, name: str) -> End:
    key = f"problem.boundary.{name}"
    if condition.kind == "periodic":
        return "periodic"
    if condition.kind == "dirichlet":
        if not (isinstance(condition.dirichlet, (list, tuple)) and len(condition.dirichlet) == 2):
            raise InputError(
                "a wall or inflow gives both velocities: dirichlet: [u, v]", f"{key}.dirichlet"
            )
        return "wall"
    if condition.kind == "neumann":
        values = condition.neumann
        listed = values if isinstance(values, (list, tuple)) else (values,)
        if not all(isinstance(v, Real) and v == 0 for v in listed):
            raise InputError(
                "an outlet is neumann: 0; other values are not taken", f"{key}.neumann"
            )
        return "outlet"
    raise InputError(
        "a side of a flow is dirichlet: [u, v], neumann: 0 or periodic: true, "
        f"not {condition.kind}",
        key,
    )


NO_GRADIENTS = "projection gives no gradients: detach what its data are made of"


def places(grid: Grid, component: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of the faces of u (0) or v (1), which broadcast against one another."""
    cells = grid.axes()
    result = []
    for axis, (centres, h, n) in enumerate(zip(cells, grid.spacing, grid.shape, strict=True)):
        faces = grid.box.lower[axis] + h * torch.arange(n + 1, dtype=torch.float64)
        result.append(lie_along(faces if axis == component else centres, axis, 2))
    return result[0], result[1]


def sampled(value: torch.Tensor, batch: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """A coefficient's value as an array (samples, *shape), or (1, *shape) where all are equal."""
    if value.requires_grad:
        raise InputError(NO_GRADIENTS)
    lead = batch if value.ndim > len(shape) else ()
    try:
        return value.expand(*lead, *shape).reshape(-1, *shape).numpy()
    except RuntimeError:
        own = list(value.shape[: -len(shape)])
        raise InputError(
            f"a value has a batch of {own}, the problem's parameters one of {list(batch)}; give "
            "batched initial flows to run(initial=...)"
        ) from None


class Sides:
    """The walls' velocities in time.

    ``openings``: per component the open share of its faces, by which fluxes are weighted. Where no
    outlet can take up a difference, what the quadrature leaves of the net flux is taken off the
    flow through the sides in proportion; InputError where it is more than that.
    """

    def __init__(
        self,
        problem: Problem,
        grid: Grid,
        info: Data,
        batch: tuple[int, ...],
        openings: tuple[np.ndarray, np.ndarray],
    ) -> None:
        self.problem, self.grid, self.info, self.batch = problem, grid, info, batch
        self.ends = ends(problem)
        self.openings = openings
        self.walls = [
            (axis, end) for axis in (0, 1) for end in (0, 1) if self.ends[axis][end] == "wall"
        ]
        self.steady = not any(
            "t" in names_of(problem.boundary[SIDES[axis][end]], info, self._key(axis, end)).data
            for axis, end in self.walls
        )
        self.closed = not any("outlet" in pair for pair in self.ends)
        self._known = self._evaluate(info) if self.steady else None

    def at(self, t: float) -> Walls:
        """The velocities at time t."""
        return self._evaluate(self.info.at_time(t)) if self._known is None else self._known

    def _given(self, axis: int, end: int) -> Any:
        return self.problem.boundary[SIDES[axis][end]].dirichlet

    def _key(self, axis: int, end: int) -> str:
        return f"problem.boundary.{SIDES[axis][end]}.dirichlet"

    def _evaluate(self, info: Data) -> Walls:
        walls = {}
        for axis, end in self.walls:
            pair = []
            for component, given in enumerate(self._given(axis, end)):
                points = list(places(self.grid, component))
                bound = (self.grid.box.lower, self.grid.box.upper)[end][axis]
                points[axis] = torch.full_like(points[axis][:1, :1], bound)
                shape = tuple(max(p.shape[k] for p in points) for k in (0, 1))
                here, key = outward(info, axis, end), f"{self._key(axis, end)}[{component}]"
                value = evaluate(given, (points[0], points[1]), here, key)
                found = sampled(value, self.batch, shape)
                pair.append(found.reshape(len(found), -1))
            walls[axis, end] = (pair[0], pair[1])
        return self._balanced(walls) if self.closed else walls

    def _balanced(self, walls: Walls) -> Walls:
        """The walls' velocities with no net flux through the sides."""
        net, size = np.zeros(1), np.zeros(1)
        for axis, end in self.walls:
            flux = walls[axis, end][axis] * self._open(axis, end) * self.grid.spacing[1 - axis]
            net = net + (flux.sum(-1) if end else -flux.sum(-1))
            size = size + np.abs(flux).sum(-1)
        tolerated = 0.01 + 4 * sum(1 / n**2 for n in self.grid.shape)
        if (np.abs(net) > tolerated * size).any():
            raise InputError(
                f"the sides let out {float(net[np.abs(net).argmax()]):.4g} more than they let in, "
                "which an incompressible flow cannot: make one side an outlet (neumann: 0)",
                "problem.boundary",
            )
        share = (net / np.where(size > 0, size, 1.0))[:, None]
        if not share.any():
            return walls
        for axis, end in self.walls:
            pair = list(walls[axis, end])
            pair[axis] = pair[axis] - (share if end else -share) * np.abs(pair[axis])
            walls[axis, end] = (pair[0], pair[1])
        return walls

    def _open(self, axis: int, end: int) -> np.ndarray:
        share = self.openings[axis]
        return share[-1 if end else 0] if axis == 0 else share[:, -1 if end else 0]

    def speed(self, walls: Walls) -> np.ndarray:
        """The largest |u| / hx + |v| / hy on the walls, per sample."""
        hx, hy = self.grid.spacing
        rates = [np.abs(u).max(-1) / hx + np.abs(v).max(-1) / hy for u, v in walls.values()]
        result = np.zeros(1)
        for rate in rates:
            result = np.maximum(result, rate)
        return result


# A rim nearer than this share of the spacing is taken to be there.
_LEAST_DISTANCE = 0.1

Ends = tuple[tuple[End, End], ...]


@dataclass(frozen=True)
class Rows:
    """The second difference along one axis, that axis first: (active faces, others)."""

    lower: np.ndarray
    diagonal: np.ndarray
    upper: np.ndarray
    cyclic: bool


@dataclass(frozen=True)
class Component:
    """One velocity: u (``axis`` 0) or v (1), on faces (n, m).

    ``free``: 1 where it is an unknown, else 0. ``open``: the open share of each face. ``links``:
    of the Laplacian, to the west, east, south, north. ``rows``: the same as matrices, per axis.
    ``ends``: of the box; arrays carry one ring of ghost points where said so.
    """

    axis: int
    free: np.ndarray
    open: np.ndarray
    links: Links
    rows: tuple[Rows, Rows]
    ends: Ends
    spacing: tuple[float, float]

    def fill(self, w: np.ndarray, walls: Walls) -> None:
        """Set the walls' faces and the ghost points of w, (samples, n + 2, m + 2), in place."""
        for axis in (self.axis, 1 - self.axis):
            line = _first(w, axis)
            for end in (0, 1):
                kind = self.ends[axis][end]
                if kind == "wall":
                    given = walls[axis, end][self.axis]
                    if axis == self.axis:
                        line[:, -2 if end else 1, 1:-1] = given
                    else:
                        inner = line[:, -2 if end else 1, 1:-1]
                        line[:, -1 if end else 0, 1:-1] = 2 * given - inner
                elif kind == "outlet":
                    mirror = (-3, 2) if axis == self.axis else (-2, 1)
                    line[:, -1 if end else 0] = line[:, mirror[1 - end]]
            if self.ends[axis][0] == "periodic":
                _wrap(line, faces=axis == self.axis)

    def carry_out(self, H: np.ndarray, change: np.ndarray, w: np.ndarray, k: float) -> None:
        """Correct H and k H, taken off the ``change``, on the faces of outlets, in place.

        There w w_n is of the faces upstream: of the one inside, where w leaves; where it comes in,
        from rest, as if the pressure there were -w^2 / 2 (Bruneau and Fabrie 1994). What the loops
        have is w times the other velocity's slope, which is -w_n and feeds vortices that leave.
        """
        h = self.spacing[self.axis]
        for end, kind in enumerate(self.ends[self.axis]):
            if kind != "outlet":
                continue
            line, place = _first(w, self.axis), -1 if end else 0
            last, inner = line[:, -2 if end else 1, 1:-1], line[:, -3 if end else 2, 1:-1]
            outward = last if end else -last
            inside = np.abs(outward) * np.where(outward > 0, last - inner, 0.0)
            delta = outward * (last - inner) + inside + np.minimum(outward, 0.0) * -last
            delta *= _first(self.free[None], self.axis)[0, place] / h
            _first(H, self.axis)[:, place] += delta
            _first(change, self.axis)[:, place] -= k * delta

    def diffuse(self, d: np.ndarray, a: np.ndarray, before: Walls, after: Walls) -> None:
        """Solve ``(1 - a D_xx) (1 - a D_yy) w = d`` in place for the change w of the velocity.

        d (samples, n, m), a (samples,). On walls w is known, ``after`` less ``before``.
        """
        changes = {} if before is after else self._changes(before, after)
        for axis in (0, 1):
            rows, line = self.rows[axis], _first(d, axis)
            for (along, end), change in changes.items():
                if along == axis:
                    self._impose(line, axis, end, change, a)
            active = line[:, : len(rows.diagonal)]
            work = np.ascontiguousarray(active)
            c, q = np.empty_like(rows.diagonal), np.empty_like(rows.diagonal)
            sweep(work, rows.lower, rows.diagonal, rows.upper, a, rows.cyclic, c, q)
            active[...] = work

    def _changes(self, before: Walls, after: Walls) -> dict[tuple[int, int], np.ndarray]:
        moved = {place: after[place][self.axis] - before[place][self.axis] for place in after}
        return {place: change for place, change in moved.items() if change.any()}

    def _impose(
        self, line: np.ndarray, axis: int, end: int, change: np.ndarray, a: np.ndarray
    ) -> None:
        place = -1 if end else 0
        if axis == 0:
            # After the first sweep the unknown is (1 - a D_yy) w, on the wall too.
            bend = np.diff(change, 2, axis=-1) / self.spacing[1] ** 2
            change = change - a[:, None] * np.pad(bend, ((0, 0), (1, 1)), mode="edge")
        if axis == self.axis:
            line[:, place] = change
        else:
            link = _first(self.links[2 * axis + end][None], axis)[0, place]
            line[:, place] += 2 * a[:, None] * link * change

    def gradient(self, p: np.ndarray) -> np.ndarray:
        """The difference quotient of p, ghost points included, on the free faces."""
        inner = p[:, :, 1:-1] if self.axis == 0 else p[:, 1:-1]
        line = _first(inner, self.axis)
        slope = _first(line[:, 1:] - line[:, :-1], self.axis)
        slope *= self.free / self.spacing[self.axis]
        return slope

    def centred(self, w: np.ndarray, out: np.ndarray) -> None:
        """Into ``out`` the mean over the two faces of each cell; w with ghost points."""
        inner, mean = (_first(array, self.axis) for array in (w[:, 1:-1, 1:-1], out))
        np.add(inner[:, 1:], inner[:, :-1], out=mean)
        mean *= 0.5

    def spread(self, value: np.ndarray) -> np.ndarray:
        """Values at the centres (samples, *cells) on the faces between them, with ghost points."""
        line = _first(value, self.axis)
        inner = 0.5 * (line[:, 1:] + line[:, :-1])
        faces = np.concatenate([line[:, :1], inner, line[:, -1:]], axis=1)
        if self.ends[self.axis][0] == "periodic":
            faces[:, 0] = faces[:, -1] = 0.5 * (line[:, 0] + line[:, -1])
        return np.pad(_first(faces, self.axis), ((0, 0), (1, 1), (1, 1)))


def fill_pressure(p: np.ndarray, ends: Ends) -> None:
    """Set the ghost points of p (samples, n + 2, m + 2): -p beyond an outlet, where p = 0."""
    for axis, pair in enumerate(ends):
        line = _first(p, axis)
        for end, kind in enumerate(pair):
            if kind == "outlet":
                line[:, -1 if end else 0] = -line[:, -2 if end else 1]
        if pair[0] == "periodic":
            _wrap(line, faces=False)


def _first(array: np.ndarray, axis: int) -> np.ndarray:
    """A view with ``axis`` as the first after the samples."""
    return array if axis == 0 else array.swapaxes(1, 2)


def _wrap(line: np.ndarray, faces: bool) -> None:
    if faces:
        line[:, -2] = line[:, 1]
        line[:, 0], line[:, -1] = line[:, -3], line[:, 2]
    else:
        line[:, 0], line[:, -1] = line[:, -2], line[:, 1]


def component_of(axis: int, grid: Grid, ends: Ends, hole: Cut | None) -> Component:
    """The faces of one velocity."""
    shape = tuple(n + (k == axis) for k, n in enumerate(grid.shape))
    opening, free = np.ones(shape), np.ones(shape)
    inside = None
    if hole is not None and hole.openings is not None:
        points = places(grid, axis)
        inside = (hole.level(points) < 0).numpy()
        opening = hole.openings[axis].expand(shape).numpy().copy()
        free = np.where(inside | (opening == 0), 0.0, 1.0)
        opening *= free
    for end, place in ((0, 0), (1, -1)):
        if ends[axis][end] == "wall":
            _first(free[None], axis)[0, place] = 0.0
    links: list[np.ndarray] = []
    rows = []
    for along in (0, 1):
        low, high = _distances(along, axis, grid, ends, inside, hole)
        square = grid.spacing[along] ** 2
        pair = [free * 2 / ((low + high) * s * square) for s in (low, high)]
        if along != axis:
            for end, kind in enumerate(ends[along]):
                if kind == "wall":
                    # The ghost point lies twice as far as the wall.
                    _first(pair[end][None], along)[0, -1 if end else 0] /= 2
        links += pair
        rows.append(_rows(pair[0], pair[1], along, axis, ends[along]))
    return Component(
        axis,
        free,
        opening,
        (links[0], links[1], links[2], links[3]),
        (rows[0], rows[1]),
        ends,
        (grid.spacing[0], grid.spacing[1]),
    )


def _distances(
    along: int, axis: int, grid: Grid, ends: Ends, inside: np.ndarray | None, hole: Cut | None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the next points along one axis, below and above, in units of the spacing."""
    shape = tuple(n + (k == axis) for k, n in enumerate(grid.shape))
    pair = np.ones((2, *shape))
    for end in (0, 1):
        if along != axis and ends[along][end] == "wall":
            _first(pair[end][None], along)[0, -1 if end else 0] = 0.5
    if inside is not None and hole is not None:
        beside = []
        for end, step in ((0, 1), (1, -1)):
            there = np.roll(inside, step, axis=along)
            if ends[along][0] != "periodic":
                _first(there[None], along)[0, -1 if end else 0] = False
            beside.append(there & ~inside)
        index = np.nonzero(np.stack(beside))
        points = [p.expand(shape)[index[1:]] for p in places(grid, axis)]
        way = torch.from_numpy(np.where(index[0] == 0, -1.0, 1.0) * grid.spacing[along])
        share = meeting(hole.level, (points[0], points[1]), along, way)
        pair[index] = np.maximum(share.numpy(), _LEAST_DISTANCE)
    return pair[0], pair[1]


def _rows(low: np.ndarray, high: np.ndarray, along: int, axis: int, pair: tuple[End, End]) -> Rows:
    """The links along one axis as a tridiagonal matrix of the free faces' changes."""
    lower, upper = (_first(link[None], along)[0].copy() for link in (low, high))
    diagonal = lower + upper
    cyclic = pair[0] == "periodic"
    active = len(diagonal) - (1 if cyclic and along == axis else 0)
    for end, kind in enumerate(pair):
        place, outer, inner = (-1, upper, lower) if end else (0, lower, upper)
        if kind == "outlet" and along == axis:
            inner[place] += outer[place]
        elif kind == "outlet":
            diagonal[place] -= outer[place]
        elif kind == "wall" and along != axis:
            diagonal[place] += outer[place]
    parts = [np.ascontiguousarray(part[:active]) for part in (lower, diagonal, upper)]
    return Rows(parts[0], parts[1], parts[2], cyclic)
