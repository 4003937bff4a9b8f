"""What the sides of the box prescribe: walls and inflows, outlets, periodic pairs.

A wall gives both velocities, at the places where they live: its normal component on the m faces
along it, its tangential component on the m + 1 faces beside it. An outlet is n . grad(u, v) = 0
with p = 0.
"""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

import numpy as np
import torch

from sciml.core.discretize.coefficients import Data, depends_on, evaluate
from sciml.core.discretize.layout import lie_along
from sciml.core.errors import InputError
from sciml.core.grid import SIDES, Grid
from sciml.core.problem import Condition, Problem

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
            "t" in depends_on(self._given(axis, end), info, self._key(axis, end))
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
                value = evaluate(
                    given, (points[0], points[1]), info, f"{self._key(axis, end)}[{component}]"
                )
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
