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

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import forces
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.quantities import Measurement, Quantity
from sciml.discretization.volumes.coefficients import Data, depends_on, evaluate
from sciml.discretization.volumes.functionals import OBSTACLE, has_arrays, side_of
from sciml.solvers.flow.flow import lay_out
from sciml.solvers.flow.staggered import (
    Component,
    Sides,
    Walls,
    fill_pressure,
    places,
    sampled,
)

# A value (*batch, 3, *cells) and its time to what was measured.
Measure = Callable[[torch.Tensor, float | None], Measurement]


@forces(NavierStokes, Grid)
def force_of_flow(problem: Problem, on: Grid, quantity: Quantity, key: str) -> Measure:
    """A force of a flow; raises InputError for one that means nothing here."""
    grid = on.bind(problem.box).cells
    assert quantity.force is not None and quantity.on is not None
    if problem.box.dimension != 2 or (all(problem.periodic) and problem.obstacle is None):
        raise InputError("a force acts on a wall or an obstacle; this flow has none", f"{key}.on")
    if len(quantity.force) != 2:
        raise InputError("a direction here has 2 components", f"{key}.force")
    direction = torch.tensor(quantity.force, dtype=torch.float64)
    side = None
    if quantity.on != OBSTACLE or problem.obstacle is None:
        side = side_of(problem, quantity.on, f"{key}.on")
        if problem.boundary[quantity.on].kind != "dirichlet":
            raise InputError(f"'{quantity.on}' is an outlet, on which nothing acts", f"{key}.on")
    around = _Surroundings.of(problem, grid)
    acting = around.on_obstacle() if side is None else around.on_side(*side)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        if tuple(value.shape[-2:]) != grid.shape:
            raise InputError("a force is measured of velocity and pressure at the cells' centres")
        state, batch = around.state(value, t), tuple(value.shape[:-3])
        total = np.zeros((len(state.p), 2))
        for k, act in acting:
            total[:, k] += act(state)
        return Measurement((torch.from_numpy(total) @ direction).reshape(batch))

    return measured


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


_Index = tuple[slice, np.ndarray, np.ndarray]
# A state to a part of a component of a force, (samples,).
_Act = Callable[[_State], np.ndarray]


@dataclass(frozen=True)
class _Surroundings:
    """The staggered grid of a flow.

    ``kept``: what the problem gives to a batch at all times. ``latest``: the value and time that
    were asked for last, and the state, since drag and lift are of the same one.
    """

    problem: Problem
    grid: Grid
    info: Data
    faces: tuple[Component, Component]
    kept: dict[tuple[int, ...], _Given] = field(default_factory=dict)
    latest: list[tuple[torch.Tensor, float | None, _State]] = field(default_factory=list)

    @classmethod
    def of(cls, problem: Problem, grid: Grid) -> _Surroundings:
        """Of a problem on cells: the last one again where it is the same."""
        if has_arrays((problem.equation, problem.boundary, problem.parameters)):
            _, info, _, faces = lay_out(problem, grid)
            return cls(problem, grid, info, faces)
        if not (_RECENT and _RECENT[0].problem is problem and _RECENT[0].grid == grid):
            _, info, _, faces = lay_out(problem, grid)
            _RECENT[:] = [cls(problem, grid, info, faces)]
        return _RECENT[0]

    def state(self, value: torch.Tensor, t: float | None) -> _State:
        """What belongs to values (*batch, 3, *cells) at time t."""
        if self.latest and self.latest[0][0] is value and self.latest[0][1] == t:
            return self.latest[0][2]
        batch = tuple(value.shape[:-3])
        flat = value.detach().to("cpu", torch.float64).reshape(-1, *value.shape[-3:]).numpy()
        given = self.kept.get(batch) or self._given(batch, 0.0 if t is None else t)
        velocities = _velocities(self.faces, flat, given.walls)
        p = np.pad(np.nan_to_num(flat[:, 2]), ((0, 0), (1, 1), (1, 1)))
        fill_pressure(p, self.faces[0].ends)
        state = _State(velocities, p, given)
        self.latest[:] = [(value, t, state)]
        return state

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

    def on_obstacle(self) -> list[tuple[int, _Act]]:
        """What acts on the obstacle, with the component of the force that it belongs to."""
        acting = []
        for k, component in enumerate(self.faces):
            solid, free = _solid(component), _counted(component)
            for axis in (0, 1):
                beside = [free & _beside(solid, axis, end, component) for end in (0, 1)]
                acting += [(k, self._passed(k, axis, end, beside[end])) for end in (0, 1)]
                acting.append((k, self._shear(k, axis, beside[0] | beside[1])))
        return acting

    def on_side(self, axis: int, end: int) -> list[tuple[int, _Act]]:
        """What acts on a wall, with the component of the force that it belongs to."""
        across = self.faces[1 - axis]
        solid, last = _solid(across), np.zeros(across.free.shape, dtype=bool)
        _along(last, axis)[-1 if end else 0] = True
        touching = _beside(solid, axis, 0, across) | _beside(solid, axis, 1, across)
        free = _counted(across) & last & ~touching
        shear = self._shear(1 - axis, axis, free)
        return [(axis, lambda state: self._normal(state, axis, end)), (1 - axis, shear)]

    def _shear(self, k: int, axis: int, there: np.ndarray) -> _Act:
        """What faces do not get along an axis from free neighbours, with opposite sign, summed."""
        component, index = self.faces[k], np.nonzero(there)
        h, free = self.grid.spacing[axis], component.free > 0
        share = [
            component.links[2 * axis + end][index]
            - _near_free(free, axis, end, component)[index] / h**2
            for end in (0, 1)
        ]
        here, low, high = (_shifted(index, axis, step) for step in (0, -1, 1))
        area = self.grid.spacing[0] * self.grid.spacing[1]

        def act(state: _State) -> np.ndarray:
            w = state.faces[k]
            own = w[here]
            rest = (w[low] - own) @ share[0] + (w[high] - own) @ share[1]
            return np.asarray(-rest * state.given.viscosity * area)

        return act

    def _passed(self, k: int, axis: int, end: int, there: np.ndarray) -> _Act:
        """The pressure and the momentum carried out of faces towards one end, summed."""
        index, sign, length = np.nonzero(there), 1 if end else -1, self.grid.spacing[1 - axis]
        here, beyond = _shifted(index, axis, 0), _shifted(index, axis, sign)
        # Of cells the one towards the end, of the other velocity both faces at the corner there.
        cell = _shifted(index, axis, end - 1)
        second = _shifted(index, axis, end)
        first = second[0], second[1] - (k == 0), second[2] - (k == 1)

        def act(state: _State) -> np.ndarray:
            w, other = state.faces[k], state.faces[1 - k]
            mean = 0.5 * (w[here] + w[beyond])
            if axis == k:
                passed = state.p[cell] + mean**2
            else:
                passed = 0.5 * (other[first] + other[second]) * mean
            return np.asarray(sign * passed.sum(-1) * length)

        return act

    def _normal(self, state: _State, axis: int, end: int) -> np.ndarray:
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


# The walls of the flow whose forces were asked for last: laying them out costs as much as a step.
_RECENT: list[_Surroundings] = []


def _line(array: np.ndarray, axis: int) -> np.ndarray:
    """A view of (samples, ...) with ``axis`` as the first after the samples."""
    return array if axis == 0 else array.swapaxes(1, 2)


def _along(array: np.ndarray, axis: int) -> np.ndarray:
    """A view with ``axis`` first."""
    return array if axis == 0 else array.T


def _solid(component: Component) -> np.ndarray:
    """The faces that an obstacle closes."""
    return np.asarray(component.open == 0)


def _shifted(index: tuple[np.ndarray, ...], axis: int, step: int) -> _Index:
    """Where faces have their values among ghost points, or so many steps along an axis."""
    return slice(None), index[0] + 1 + step * (axis == 0), index[1] + 1 + step * (axis == 1)


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
    faces: tuple[Component, Component], centred: np.ndarray, walls: Walls
) -> tuple[np.ndarray, np.ndarray]:
    """Both velocities on their faces, ghost points filled, whose means are (samples, 2, *cells)."""
    lines = [_Lines.of(component, centred[:, k], walls) for k, component in enumerate(faces)]
    found = []
    for k, (component, own) in enumerate(zip(faces, lines, strict=True)):
        first = own.first if own.held.all() else _without_outflow(lines[k], lines[1 - k])
        w = np.pad(_line(own.from_first(first), k), ((0, 0), (1, 1), (1, 1)))
        component.fill(w, walls)
        found.append(w)
    return found[0], found[1]


@dataclass(frozen=True)
class _Lines:
    """The lines of faces along a component's axis, that axis first: (samples, n + 1, lines).

    Of the first value a of a line the others are signs (a + ``sums``). ``held``: the lines whose
    first is known.
    """

    component: Component
    signs: np.ndarray
    sums: np.ndarray
    first: np.ndarray
    held: np.ndarray

    @classmethod
    def of(cls, component: Component, centred: np.ndarray, walls: Walls) -> _Lines:
        """Of values at the centres (samples, *cells)."""
        axis, kinds = component.axis, component.ends[component.axis]
        c, solid = _line(centred, axis), _along(_solid(component), axis)
        n, lines = c.shape[1], c.shape[2]
        signs = np.where(np.arange(n + 1) % 2, -1.0, 1.0)
        sums = np.zeros((len(c), n + 1, lines))
        np.cumsum(-2 * signs[:n, None] * c, axis=1, out=sums[:, 1:])
        held: np.ndarray = np.ones(lines, dtype=bool)
        if kinds[0] == "wall":
            first = np.broadcast_to(walls[axis, 0][axis], sums[:, 0].shape)
        elif kinds[1] == "wall":
            first = signs[n] * walls[axis, 1][axis] - sums[:, n]
        elif kinds[0] == "periodic" and n % 2:
            first = -0.5 * sums[:, n]
        else:
            held = np.asarray(solid.any(0))
            at = np.broadcast_to(solid.argmax(0), sums[:, 0].shape)
            first = -np.take_along_axis(sums, at[:, None], 1)[:, 0]
        return cls(component, signs, sums, first, held)

    def from_first(self, first: np.ndarray) -> np.ndarray:
        """The faces, zero in an obstacle."""
        solid = _along(_solid(self.component), self.component.axis)
        return np.where(solid, 0.0, self.signs[:, None] * (first[:, None] + self.sums))


def _without_outflow(own: _Lines, other: _Lines) -> np.ndarray:
    """The first of each line, where it is not held that for which cells let nothing out."""
    axis, across = own.component.axis, other.component.axis
    h, k = own.component.spacing[axis], own.component.spacing[across]
    passing = other.from_first(other.first) * _along(other.component.open, across)
    gain = -(h / k) * np.diff(passing, axis=1).swapaxes(1, 2)
    opening = _along(own.component.open, axis)
    told = (opening[1:] == 1) & (opening[:-1] == 1) & other.held[:, None]
    each = (own.signs[1:, None] * gain - own.sums[:, 1:] - own.sums[:, :-1]) / 2
    mean = (each * told).sum(1) / np.maximum(told.sum(0), 1)
    return np.where(own.held, own.first, mean)
