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
from dataclasses import dataclass

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.dispatch import forces
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.quantities import Measurement, Quantity
from sciml.discretization.volumes.coefficients import Data, evaluate
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
    walls = _Surroundings.of(problem, grid)

    def measured(value: torch.Tensor, t: float | None) -> Measurement:
        if tuple(value.shape[-2:]) != grid.shape:
            raise InputError("a force is measured of velocity and pressure at the cells' centres")
        batch = tuple(value.shape[:-3])
        flat = value.detach().to("cpu", torch.float64).reshape(-1, *value.shape[-3:]).numpy()
        state = walls.state(flat, batch, t)
        found = walls.on_obstacle(state) if side is None else walls.on_side(state, *side)
        total = torch.from_numpy(np.stack(found, -1)) @ direction
        return Measurement(total.reshape(batch))

    return measured


@dataclass(frozen=True)
class _State:
    """Velocities on the faces and p, ghost points included, the walls' data and the force.

    ``force``: per component (1 or samples, *faces). ``gain``: of each wall's normal velocity, its
    change per unit of time.
    """

    faces: tuple[np.ndarray, np.ndarray]
    p: np.ndarray
    walls: Walls
    gain: dict[tuple[int, int], np.ndarray]
    force: tuple[np.ndarray, np.ndarray]
    viscosity: np.ndarray


@dataclass(frozen=True)
class _Surroundings:
    """The staggered grid of a flow with its walls."""

    problem: Problem
    grid: Grid
    info: Data
    faces: tuple[Component, Component]

    @classmethod
    def of(cls, problem: Problem, grid: Grid) -> _Surroundings:
        """Of a problem on cells."""
        _, info, _, faces = lay_out(problem, grid)
        return cls(problem, grid, info, faces)

    def state(self, value: np.ndarray, batch: tuple[int, ...], t: float | None) -> _State:
        """What belongs to values (samples, 3, *cells) at time t."""
        info = self.info if t is None else self.info.at_time(t)
        now = 0.0 if t is None else t
        equation, nu_key = self.problem.equation_as(NavierStokes), "problem.equation.viscosity"
        openings = self.faces[0].open, self.faces[1].open
        sides = Sides(self.problem, self.grid, self.info, batch, openings)
        walls = sides.at(now)
        assert self.problem.time is not None
        step = 1e-6 * (self.problem.time.end - self.problem.time.start)
        soon, before = sides.at(now + step), sides.at(now - step)
        gain = {(a, e): (soon[a, e][a] - before[a, e][a]) / (2 * step) for a, e in walls}
        nu = evaluate(equation.viscosity, info.own, info, nu_key)
        nu = nu[..., 0, 0] if nu.ndim >= 2 else nu
        viscosity = nu.expand(batch).reshape(-1).numpy() if batch else nu.reshape(-1).numpy()
        velocities = _velocities(self.faces, value, walls)
        p = np.pad(np.nan_to_num(value[:, 2]), ((0, 0), (1, 1), (1, 1)))
        fill_pressure(p, self.faces[0].ends)
        force = self._body(equation, info, batch)
        return _State(velocities, p, walls, gain, force, viscosity)

    def _body(
        self, equation: NavierStokes, info: Data, batch: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for k, component in enumerate(self.faces):
            shape = component.free.shape
            if equation.force is None:
                found.append(np.zeros((1, *shape)))
                continue
            value = evaluate(
                equation.force[k], places(self.grid, k), info, f"problem.equation.force[{k}]"
            )
            found.append(np.asarray(sampled(value, batch, shape)))
        return found[0], found[1]

    def on_obstacle(self, state: _State) -> list[np.ndarray]:
        """Both components of the force on the obstacle, each (samples,)."""
        total = []
        for k, component in enumerate(self.faces):
            solid, free = _solid(component), _counted(component)
            force = np.zeros(len(state.p))
            for axis in (0, 1):
                beside = [free & _beside(solid, axis, end, component) for end in (0, 1)]
                for end in (0, 1):
                    index = np.nonzero(beside[end])
                    given = self._given(state, k, axis, end, index)
                    force += given.sum(-1) * self.grid.spacing[1 - axis]
                index = np.nonzero(beside[0] | beside[1])
                force -= self._shear(state, k, axis, index)
            total.append(force)
        return total

    def on_side(self, state: _State, axis: int, end: int) -> list[np.ndarray]:
        """Both components of the force on a wall, each (samples,)."""
        total = []
        for k, component in enumerate(self.faces):
            if k == axis:
                total.append(self._normal(state, axis, end))
                continue
            solid, free = _solid(component), _counted(component)
            last = np.zeros_like(free)
            _along(last, axis)[-1 if end else 0] = True
            touching = _beside(solid, axis, 0, component) | _beside(solid, axis, 1, component)
            total.append(-self._shear(state, k, axis, np.nonzero(last & free & ~touching)))
        return total

    def _shear(self, state: _State, k: int, axis: int, index: tuple[np.ndarray, ...]) -> np.ndarray:
        """What faces get along an axis, but not from free neighbours, summed: (samples,)."""
        component, w = self.faces[k], state.faces[k]
        h, across = self.grid.spacing[axis], self.grid.spacing[1 - axis]
        here, free = w[:, index[0] + 1, index[1] + 1], component.free > 0
        rest = np.zeros_like(here)
        for end, step in ((0, -1), (1, 1)):
            i, j = (n + 1 + step * (a == axis) for a, n in enumerate(index))
            gap = w[:, i, j] - here
            link = component.links[2 * axis + end][index]
            inner = _near_free(free, axis, end, component)[index]
            rest += gap * (link - inner / h**2)
        return np.asarray(rest.sum(-1) * state.viscosity * h * across)

    def _given(
        self, state: _State, k: int, axis: int, end: int, index: tuple[np.ndarray, ...]
    ) -> np.ndarray:
        """The pressure and the momentum carried out of faces towards one end, (samples, faces)."""
        w, other = state.faces[k], state.faces[1 - k]
        i, j = index[0] + 1, index[1] + 1
        there = [n + (1 if end else -1) * (a == axis) for a, n in enumerate((i, j))]
        mean = 0.5 * (w[:, i, j] + w[:, there[0], there[1]])
        sign = 1 if end else -1
        if axis == k:
            cell = [n - 1 + end * (a == axis) if a == axis else n for a, n in enumerate((i, j))]
            pressure = state.p[:, cell[0], cell[1]]
            return np.asarray(sign * (pressure + mean**2))
        # The corner between two faces of the other velocity, on both sides along k.
        first = [n + (end if a == axis else -1) for a, n in enumerate((i, j))]
        second = [n + (end if a == axis else 0) for a, n in enumerate((i, j))]
        carrier = 0.5 * (other[:, first[0], first[1]] + other[:, second[0], second[1]])
        return np.asarray(sign * carrier * mean)

    def _normal(self, state: _State, axis: int, end: int) -> np.ndarray:
        """The normal force on a wall: the balance of the half cells beside it."""
        component, w = self.faces[axis], _line(state.faces[axis], axis)
        h, across = self.grid.spacing[axis], self.grid.spacing[1 - axis]
        wall, inner = (-2, -3) if end else (1, 2)
        at_wall, near = w[:, wall, 1:-1], w[:, inner, 1:-1]
        p = _line(state.p, axis)[:, -2 if end else 1, 1:-1]
        outward = 1 if end else -1
        carried = (0.5 * (at_wall + near)) ** 2 - at_wall**2
        bend = outward * (at_wall - near) / h * state.viscosity[:, None]
        body = _line(state.force[axis], axis)[:, -1 if end else 0]
        pushed = (body - state.gain[axis, end]) * (h / 2)
        stress = outward * (p + carried - bend) + pushed
        wet = _along(component.open, axis)[-1 if end else 0] > 0
        return np.asarray((stress * wet).sum(-1) * across)


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
        held = np.ones(lines, dtype=bool)
        if kinds[0] == "wall":
            first = np.broadcast_to(walls[axis, 0][axis], sums[:, 0].shape)
        elif kinds[1] == "wall":
            first = signs[n] * walls[axis, 1][axis] - sums[:, n]
        elif kinds[0] == "periodic" and n % 2:
            first = -0.5 * sums[:, n]
        else:
            held = solid.any(0)
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
