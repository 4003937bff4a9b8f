"""Forces of a flow on its walls and on an obstacle, from the balance of momentum as it is solved.

Every free velocity obeys its discrete equation, and what two free neighbours exchange, momentum
that is carried and shear, both have with opposite signs. What is left in the sum over all free
faces is what they give to faces that are not free. With lap the scheme's own second difference
along an axis of spacing h, a face of the grid has from its free neighbours (w_near - w) / h^2 of
it, and the rest is the shear of the wall or rim there, of second order at walls. Next to a rim the
pressure, which acts at the cells' centres, and the momentum carried across the steps of the
staircase belong to the obstacle; the normal force on a wall is the balance of the half cells there.
So in a steady flow all forces and the momentum that enters and leaves balance to rounding; that on
an obstacle whose rim is not along the grid is of first order, as the flow is.

Per unit of density, and of depth; the stress is -p + viscosity grad(u, v), which on walls at rest
has the same resultant as the symmetric one.

Faces come back from the values at the cells' centres, their means: from a wall or the obstacle on,
every next one is known. Where a line of faces meets neither, an even number of them between
periodic sides or two outlets, its first is the one for which cells let nothing out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import forces
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.quantities import Measure, Measurement, Prepare, Quantity
from sciml.discretization.volumes.boundary import End
from sciml.discretization.volumes.coefficients import Data, depends_on, evaluate
from sciml.discretization.volumes.functionals import OBSTACLE, side_of
from sciml.solvers.flow.flow import lay_out
from sciml.solvers.flow.staggered import (
    Component,
    Sides,
    Walls,
    fill_pressure,
    places,
    sampled,
)


@forces(NavierStokes, Grid)
def forces_of_flow(problem: Problem, on: Grid) -> Prepare:
    """How forces are measured; raises InputError for one that means nothing here."""
    grid = on.bind(problem.box).cells

    @cache
    def around() -> _Surroundings:
        _, info, _, faces = lay_out(problem, grid)
        return _Surroundings(problem, grid, info, faces)

    def prepare(quantity: Quantity, key: str) -> Measure:
        side = _side(problem, quantity, key)
        direction = np.array(quantity.force)
        acting = around().on_obstacle if side is None else around().on_side(*side)

        def measured(value: torch.Tensor, t: float | None) -> Measurement:
            if tuple(value.shape[-2:]) != grid.shape:
                message = "a force is measured of velocity and pressure at the cells' centres"
                raise InputError(message)
            total = acting.total(value, t) @ direction
            return Measurement(torch.from_numpy(total.reshape(value.shape[:-3])))

        return measured

    return prepare


def _side(problem: Problem, quantity: Quantity, key: str) -> End | None:
    """The wall on which a force acts, None for the obstacle."""
    assert quantity.force is not None and quantity.on is not None
    if problem.box.dimension != 2 or (all(problem.periodic) and problem.obstacle is None):
        raise InputError("a force acts on a wall or an obstacle; this flow has none", f"{key}.on")
    if len(quantity.force) != 2:
        raise InputError("a direction here has 2 components", f"{key}.force")
    if quantity.on == OBSTACLE and problem.obstacle is not None:
        return None
    side = side_of(problem, quantity.on, f"{key}.on")
    if problem.boundary[quantity.on].kind != "dirichlet":
        raise InputError(f"'{quantity.on}' is an outlet, on which nothing acts", f"{key}.on")
    return side


@dataclass(frozen=True)
class _Given:
    """What the problem gives at a time, of a batch.

    ``gain``: of each wall's normal velocity, its change per unit of time. ``force``: per component
    (1 or samples, *faces). ``viscosity`` (samples,).
    """

    walls: Walls
    gain: dict[tuple[int, int], np.ndarray]
    force: tuple[np.ndarray, np.ndarray]
    viscosity: np.ndarray


@dataclass(frozen=True)
class _State:
    """Velocities on the faces and p, ghost points included, and what the problem gives."""

    faces: tuple[np.ndarray, np.ndarray]
    p: np.ndarray
    given: _Given


# Places in a flattened array, and what the values there are multiplied with.
_Weighted = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Carried:
    """Momentum of component ``k`` that velocity ``by`` carries across, the product of two means.

    ``places``: two of the one and two of the other, (4, n), flattened; ``factor`` (n,).
    """

    k: int
    by: int
    places: np.ndarray
    factor: np.ndarray

    def of(self, faces: list[np.ndarray]) -> np.ndarray:
        """Their sum, (samples,)."""
        here, beyond, first, second = self.places
        w, v = faces[self.k], faces[self.by]
        twice = w[:, here] + w[:, beyond]
        carrying = twice if self.by == self.k else v[:, first] + v[:, second]
        return np.asarray((twice * carrying) @ self.factor) / 4


@dataclass(frozen=True)
class _Acting:
    """What acts on an obstacle, or on the wall ``side``: a linear part and what is carried.

    ``shear``: per component of the force of its velocity, per unit of viscosity; ``push``: of p.
    ``latest``: the value and time that were asked for last and the force, since drag and lift are
    of the same one.
    """

    around: _Surroundings
    shear: tuple[_Weighted, _Weighted]
    push: tuple[_Weighted, _Weighted]
    carried: tuple[_Carried, ...]
    lines: tuple[_Lines, _Lines]
    side: End | None = None
    latest: list[tuple[torch.Tensor, float | None, np.ndarray]] = field(default_factory=list)

    def total(self, value: torch.Tensor, t: float | None) -> np.ndarray:
        """The force (samples, 2)."""
        if not (self.latest and self.latest[0][0] is value and self.latest[0][1] == t):
            self.latest[:] = [(value, t, self._total(value, t))]
        return self.latest[0][2]

    def _total(self, value: torch.Tensor, t: float | None) -> np.ndarray:
        state = self.around.state(value, t, self.lines)
        flat = [w.reshape(len(w), -1) for w in state.faces]
        p = state.p.reshape(len(state.p), -1)
        found = np.zeros((len(p), 2))
        for k in (0, 1):
            (places, weights), (cells, lengths) = self.shear[k], self.push[k]
            found[:, k] = (flat[k][:, places] @ weights) * state.given.viscosity
            found[:, k] += p[:, cells] @ lengths
        for part in self.carried:
            found[:, part.k] += part.of(flat)
        if self.side is not None:
            found[:, self.side[0]] += self.around.normal(state, *self.side)
        return found


@dataclass(frozen=True)
class _Surroundings:
    """The staggered grid of a flow. ``kept``: what the problem gives to a batch at all times."""

    problem: Problem
    grid: Grid
    info: Data
    faces: tuple[Component, Component]
    kept: dict[tuple[int, ...], _Given] = field(default_factory=dict)

    def state(self, value: torch.Tensor, t: float | None, lines: tuple[_Lines, _Lines]) -> _State:
        """What belongs to values (*batch, 3, *cells) at time t, on these lines of faces."""
        batch = tuple(value.shape[:-3])
        flat = value.detach().to("cpu", torch.float64).reshape(-1, *value.shape[-3:]).numpy()
        given = self.kept.get(batch) or self._given(batch, 0.0 if t is None else t)
        velocities = _velocities(self.faces, lines, flat, given.walls)
        p = np.zeros((len(flat), *(n + 2 for n in self.grid.shape)))
        p[:, 1:-1, 1:-1] = flat[:, 2]
        fill_pressure(p, self.faces[0].ends)
        return _State(velocities, p, given)

    def _given(self, batch: tuple[int, ...], t: float) -> _Given:
        info, equation = self.info.at_time(t), self.problem.equation_as(NavierStokes)
        sides = Sides(
            self.problem, self.grid, self.info, batch, (self.faces[0].open, self.faces[1].open)
        )
        assert self.problem.time is not None
        walls, step = sides.at(t), 1e-6 * (self.problem.time.end - self.problem.time.start)
        soon, before = sides.at(t + step), sides.at(t - step)
        gain = {(a, e): (soon[a, e][a] - before[a, e][a]) / (2 * step) for a, e in walls}
        nu = evaluate(equation.viscosity, info.own, info, "problem.equation.viscosity")
        nu = (nu[..., 0, 0] if nu.ndim >= 2 else nu).expand(batch).reshape(-1)
        given = _Given(walls, gain, self._body(equation, info, batch), nu.numpy())
        key = "problem.equation.force"
        if sides.steady and "t" not in depends_on(equation.force or (), self.info, key):
            self.kept[batch] = given
        return given

    def _body(
        self, equation: NavierStokes, info: Data, batch: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for k, component in enumerate(self.faces):
            shape = component.free.shape
            if equation.force is None:
                found.append(np.zeros((1, *shape)))
                continue
            key = f"problem.equation.force[{k}]"
            value = evaluate(equation.force[k], places(self.grid, k), info, key)
            found.append(np.asarray(sampled(value, batch, shape)))
        return found[0], found[1]

    @cached_property
    def on_obstacle(self) -> _Acting:
        """What acts on the obstacle."""
        parts, push, carried = [], [], []
        for k, component in enumerate(self.faces):
            solid, free = _solid(component), _counted(component)
            beside = [
                [free & _beside(solid, axis, end, component) for end in (0, 1)] for axis in (0, 1)
            ]
            parts.append(
                [self._shear(k, axis, low | high) for axis, (low, high) in enumerate(beside)]
            )
            push.append(_joined([self._pushed(k, end, beside[k][end]) for end in (0, 1)]))
            for axis in (0, 1):
                ends = [self._carried(k, axis, end, beside[axis][end]) for end in (0, 1)]
                places = np.concatenate([part.places for part in ends], axis=1)
                factor = np.concatenate([part.factor for part in ends])
                carried.append(_Carried(k, axis, places, factor))
        shear = _joined(parts[0]), _joined(parts[1])
        lines = self._lines(shear, carried)
        return _Acting(self, shear, (push[0], push[1]), tuple(carried), lines)

    def on_side(self, axis: int, end: int) -> _Acting:
        """What acts on a wall."""
        across = self.faces[1 - axis]
        solid, last = _solid(across), np.zeros(across.free.shape, dtype=bool)
        _along(last, axis)[-1 if end else 0] = True
        touching = _beside(solid, axis, 0, across) | _beside(solid, axis, 1, across)
        free, nothing = _counted(across) & last & ~touching, _joined([])
        of_wall = self._shear(1 - axis, axis, free)
        shear = (nothing, of_wall) if axis == 0 else (of_wall, nothing)
        return _Acting(self, shear, (nothing, nothing), (), self._all_lines(), (axis, end))

    def _all_lines(self) -> tuple[_Lines, _Lines]:
        u, v = (_Lines.of(c, slice(None), c.free.shape[c.axis] - 1) for c in self.faces)
        return u, v

    def _lines(
        self, shear: tuple[_Weighted, _Weighted], carried: list[_Carried]
    ) -> tuple[_Lines, _Lines]:
        """The lines that count; all where some are told by what the cells let out."""
        if any("wall" not in component.ends[k] for k, component in enumerate(self.faces)):
            return self._all_lines()
        found = []
        for k, component in enumerate(self.faces):
            index = [shear[k][0]]
            index += [part.places[:2].ravel() for part in carried if part.k == k]
            index += [part.places[2:].ravel() for part in carried if part.by == k]
            places = np.unravel_index(np.concatenate(index), _ghosted(component))
            along, across = places[k] - 1, places[1 - k] - 1
            # One more on both sides, from which ghost points are filled.
            band = slice(0, 1)
            if len(across):
                band = slice(max(int(across.min()) - 1, 0), int(across.max()) + 2)
            n = component.free.shape[k] - 1
            from_low = component.ends[k][0] == "wall"
            found.append(
                _Lines.of(component, band, min(int(along.max(initial=0)) + 1, n) if from_low else n)
            )
        return found[0], found[1]

    def _shear(self, k: int, axis: int, there: np.ndarray) -> _Weighted:
        """What faces do not get along an axis from free neighbours, with opposite sign."""
        component, index = self.faces[k], np.nonzero(there)
        h, free = self.grid.spacing[axis], component.free > 0
        low, high = (
            component.links[2 * axis + end][index]
            - _near_free(free, axis, end, component)[index] / h**2
            for end in (0, 1)
        )
        places = [self._place(k, index, axis, step) for step in (0, -1, 1)]
        area = self.grid.spacing[0] * self.grid.spacing[1]
        return np.concatenate(places), area * np.concatenate([low + high, -low, -high])

    def _pushed(self, k: int, end: int, there: np.ndarray) -> _Weighted:
        """The pressure in the cells towards one end."""
        index = np.nonzero(there)
        cells = [n + 1 + (end - 1) * (a == k) for a, n in enumerate(index)]
        shape = tuple(n + 2 for n in self.grid.shape)
        sign = self.grid.spacing[1 - k] * (1 if end else -1)
        return np.ravel_multi_index(cells, shape), np.full(len(cells[0]), sign)

    def _carried(self, k: int, axis: int, end: int, there: np.ndarray) -> _Carried:
        """The momentum carried out of faces towards one end."""
        index, sign = np.nonzero(there), 1 if end else -1
        pairs = [self._place(k, index, axis, step) for step in (0, sign)]
        if axis != k:
            # Of the other velocity both faces at the corner there.
            i, j = (n + 1 + end * (a == axis) for a, n in enumerate(index))
            shape = _ghosted(self.faces[1 - k])
            corner = (i - (k == 0), j - (k == 1)), (i, j)
            pairs += [np.ravel_multi_index(place, shape) for place in corner]
        else:
            pairs += pairs
        length = sign * self.grid.spacing[1 - axis]
        return _Carried(k, axis, np.stack(pairs), np.full(len(pairs[0]), length))

    def _place(self, k: int, index: tuple[np.ndarray, ...], axis: int, step: int) -> np.ndarray:
        """Where faces have their values, flattened, or so many steps along an axis."""
        place = [n + 1 + step * (a == axis) for a, n in enumerate(index)]
        return np.ravel_multi_index(place, _ghosted(self.faces[k]))

    def normal(self, state: _State, axis: int, end: int) -> np.ndarray:
        """The normal force on a wall: the balance of the half cells beside it."""
        component, w = self.faces[axis], _line(state.faces[axis], axis)
        h, across = self.grid.spacing[axis], self.grid.spacing[1 - axis]
        wall, inner = (-2, -3) if end else (1, 2)
        at_wall, near = w[:, wall, 1:-1], w[:, inner, 1:-1]
        p = _line(state.p, axis)[:, -2 if end else 1, 1:-1]
        outward = 1 if end else -1
        carried = (0.5 * (at_wall + near)) ** 2 - at_wall**2
        bend = outward * (at_wall - near) / h * state.given.viscosity[:, None]
        body = _line(state.given.force[axis], axis)[:, -1 if end else 0]
        pushed = (body - state.given.gain[axis, end]) * (h / 2)
        stress = outward * (p + carried - bend) + pushed
        wet = _along(component.open, axis)[-1 if end else 0] > 0
        return np.asarray((stress * wet).sum(-1) * across)


def _joined(parts: list[_Weighted]) -> _Weighted:
    """All of them."""
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    return np.concatenate([p for p, _ in parts]), np.concatenate([w for _, w in parts])


def _ghosted(component: Component) -> tuple[int, int]:
    """The shape of its faces, ghost points included."""
    n, m = component.free.shape
    return n + 2, m + 2


def _line(array: np.ndarray, axis: int) -> np.ndarray:
    """A view of (samples, ...) with ``axis`` as the first after the samples."""
    return array if axis == 0 else array.swapaxes(1, 2)


def _along(array: np.ndarray, axis: int) -> np.ndarray:
    """A view with ``axis`` first."""
    return array if axis == 0 else array.T


def _solid(component: Component) -> np.ndarray:
    """The faces that an obstacle closes."""
    return np.asarray(component.open == 0)


def _counted(component: Component) -> np.ndarray:
    """The free faces, that on a periodic side once."""
    free = component.free > 0
    if component.ends[component.axis][0] == "periodic":
        _along(free, component.axis)[-1] = False
    return free


def _beside(solid: np.ndarray, axis: int, end: int, component: Component) -> np.ndarray:
    """The faces whose neighbour towards an end is solid."""
    there = np.roll(solid, -1 if end else 1, axis)
    if component.ends[axis][0] != "periodic":
        _along(there, axis)[-1 if end else 0] = False
    return there


def _near_free(free: np.ndarray, axis: int, end: int, component: Component) -> np.ndarray:
    """Whether the neighbour towards an end is free too, or lies beyond an outlet."""
    there = np.roll(free, -1 if end else 1, axis)
    if component.ends[axis][end] != "periodic":
        _along(there, axis)[-1 if end else 0] = component.ends[axis][end] == "outlet"
    return there


def _velocities(
    faces: tuple[Component, Component],
    lines: tuple[_Lines, _Lines],
    centred: np.ndarray,
    walls: Walls,
) -> tuple[np.ndarray, np.ndarray]:
    """Both velocities on their faces, ghost points filled, whose means are (samples, 2, *cells).

    Zero where there are no ``lines``.
    """
    sums = [own.sums(centred[:, k]) for k, own in enumerate(lines)]
    firsts = [own.first(part, walls) for own, part in zip(lines, sums, strict=True)]
    found = []
    for k, (component, own) in enumerate(zip(faces, lines, strict=True)):
        first = firsts[k]
        if not own.all_held:
            across = lines[1 - k].from_first(firsts[1 - k], sums[1 - k])
            first = _without_outflow(own, lines[1 - k], first, sums[k], across)
        w = np.zeros((len(centred), *_ghosted(component)))
        _line(w, k)[:, 1 : own.cells + 2, 1:-1][..., own.band] = own.from_first(first, sums[k])
        component.fill(w, walls)
        found.append(w)
    return found[0], found[1]


@dataclass(frozen=True)
class _Lines:
    """The lines of faces along a component's axis that are in a ``band``, that axis first.

    As far as so many ``cells`` go. Of the first value a of a line the others are ``signs`` (a +
    sums), zero in an obstacle; signs (cells + 1, lines). ``held`` (lines,): those whose first is
    known.
    """

    component: Component
    band: slice
    cells: int
    signs: np.ndarray
    held: np.ndarray
    all_held: bool

    @classmethod
    def of(cls, component: Component, band: slice, cells: int) -> _Lines:
        """Those of a component in a band."""
        axis, kinds = component.axis, component.ends[component.axis]
        wet = _along(component.open, axis)[: cells + 1, band] > 0
        known = "wall" in kinds or (kinds[0] == "periodic" and cells % 2 == 1)
        held = np.ones(wet.shape[1], dtype=bool) if known else np.asarray(~wet.all(0))
        signs = _alternating(cells + 1) * wet
        return cls(component, band, cells, signs, held, bool(held.all()))

    def sums(self, centred: np.ndarray) -> np.ndarray:
        """From values at the centres (samples, *cells) what is added to the first of each line."""
        c = _line(centred, self.component.axis)[:, : self.cells, self.band]
        sums = np.zeros((len(c), self.cells + 1, c.shape[2]))
        np.multiply(c, -2 * _alternating(self.cells), out=sums[:, 1:])
        np.cumsum(sums[:, 1:], axis=1, out=sums[:, 1:])
        return sums

    def first(self, sums: np.ndarray, walls: Walls) -> np.ndarray:
        """The first of each line, as far as it is held, (samples, lines)."""
        axis, n = self.component.axis, self.cells
        kinds = self.component.ends[axis]
        if kinds[0] == "wall":
            return np.broadcast_to(walls[axis, 0][axis][:, self.band], sums[:, 0].shape)
        if kinds[1] == "wall":
            return np.asarray((-1) ** n * walls[axis, 1][axis][:, self.band] - sums[:, n])
        if kinds[0] == "periodic" and n % 2:
            return np.asarray(-0.5 * sums[:, n])
        at = np.broadcast_to((self.signs != 0).argmin(0), sums[:, 0].shape)
        return np.asarray(-np.take_along_axis(sums, at[:, None], 1)[:, 0])

    def from_first(self, first: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The faces, zero in an obstacle."""
        return np.asarray(self.signs * (first[:, None] + sums))


def _alternating(n: int) -> np.ndarray:
    """1, -1, 1, ..., (n, 1)."""
    return np.where(np.arange(n) % 2, -1.0, 1.0)[:, None]


def _without_outflow(
    own: _Lines, other: _Lines, first: np.ndarray, sums: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """The first of each line, where it is not held that for which cells let nothing out.

    ``across``: the faces of the other component.
    """
    axis, normal = own.component.axis, other.component.axis
    h, k = own.component.spacing[axis], own.component.spacing[normal]
    passing = across * _along(other.component.open, normal)
    gain = -(h / k) * np.diff(passing, axis=1).swapaxes(1, 2)
    opening = _along(own.component.open, axis)
    told = (opening[1:] == 1) & (opening[:-1] == 1) & other.held[:, None]
    signs = -_alternating(gain.shape[1])
    each = (signs * gain - sums[:, 1:] - sums[:, :-1]) / 2
    mean = (each * told).sum(1) / np.maximum(told.sum(0), 1)
    whole: np.ndarray = np.where(own.held, first, mean)
    return whole
