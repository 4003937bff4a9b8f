"""Where the unknowns lie, and the control volume of each.

Along one axis the m unknowns sit at ``positions``. Faces k = 0 .. m lie between unknowns k - 1 and
k; their places, ``edges``, bound the control volumes. Each end of an axis is

* ``value``: a Dirichlet side; the end face joins the last unknown to a point of known value, at
  distance h (the boundary node) or, on cell grids, h / 2 (the boundary face);
* ``closed``: a Neumann or Robin side; no link leaves the array, and on node grids the control
  volume of the boundary node is a half cell;
* ``wrap``: periodic; face 0 and face m are the same. On node grids the last node is the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import torch

from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem

End = Literal["value", "closed", "wrap"]
Points = tuple[torch.Tensor, ...]
_END: dict[str, End] = {
    "dirichlet": "value",
    "neumann": "closed",
    "robin": "closed",
    "periodic": "wrap",
    "absorbing": "closed",
    "residuals": "closed",
}


@dataclass(frozen=True)
class Axis:
    """One axis of the unknowns: float64 tensors on the device of the system.

    ``points`` (n,) are the grid's own; ``positions`` (m,) those of the unknowns, which are
    ``points[start:stop]``; ``extended`` (m + 2,) adds the point beyond each end; ``edges`` (m + 1,)
    bound the control volumes; ``lengths`` (m + 1,) join neighbours in ``extended``; ``widths``
    (m,) are the control volumes' own.
    """

    points: torch.Tensor
    start: int
    stop: int
    extended: torch.Tensor
    edges: torch.Tensor
    lengths: torch.Tensor
    widths: torch.Tensor
    spacing: float
    ends: tuple[End, End]

    @property
    def positions(self) -> torch.Tensor:
        """The places of the unknowns, (m,)."""
        return self.points[self.start : self.stop]

    @property
    def count(self) -> int:
        """Number of unknowns m."""
        return self.stop - self.start

    @property
    def even(self) -> bool:
        """Whether all control volumes are equally wide."""
        return bool((self.widths == self.spacing).all())


@dataclass(frozen=True)
class Layout:
    """The unknowns of a problem on a grid, axis by axis; ``dtype`` is that of the system."""

    grid: Grid
    axes: tuple[Axis, ...]
    dtype: torch.dtype

    @property
    def dimension(self) -> int:
        """Number of space dimensions d."""
        return len(self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Unknowns per axis."""
        return tuple(axis.count for axis in self.axes)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes wrap."""
        return tuple(axis.ends[0] == "wrap" for axis in self.axes)

    @property
    def cells(self) -> bool:
        """Whether the grid is cell-centred."""
        return self.grid.centring == "cell"

    def measure(self, without: int | None = None) -> float | torch.Tensor:
        """Product of the control widths, leaving one axis out: volumes, or face areas.

        A float where all are equal, else a tensor that broadcasts to ``shape``.
        """
        kept = [(k, axis) for k, axis in enumerate(self.axes) if k != without]
        uneven = [
            lie_along(a.widths.to(self.dtype), k, self.dimension) for k, a in kept if not a.even
        ]
        return prod(uneven, start=prod(a.spacing for _, a in kept if a.even))

    def points(self, replace: dict[int, torch.Tensor] | None = None) -> Points:
        """Coordinates of the unknowns, one axis or more with other positions; they broadcast."""
        replace = replace or {}
        return tuple(
            lie_along(replace.get(k, axis.positions), k, self.dimension)
            for k, axis in enumerate(self.axes)
        )

    def grid_points(self) -> Points:
        """Coordinates of all grid points, boundary nodes included."""
        return tuple(lie_along(a.points, k, self.dimension) for k, a in enumerate(self.axes))

    def to_unknowns(self, value: torch.Tensor, skip: int | None = None) -> torch.Tensor:
        """The part of a tensor on the grid that belongs to the unknowns; sizes of 1 stay.

        ``skip`` leaves one axis whole.
        """
        for k, axis in enumerate(self.axes):
            dim = k - self.dimension
            if k != skip and value.shape[dim] == len(axis.points):
                value = value.narrow(dim, axis.start, axis.count)
        return value


def measure_of(lay: Layout, volume: float | torch.Tensor) -> torch.Tensor:
    """The control volumes on the whole grid; zero where a grid point is no unknown, or its copy."""
    whole = torch.zeros(lay.grid.shape, dtype=torch.float64)
    lay.to_unknowns(whole).copy_(torch.as_tensor(volume))
    return whole


def lie_along(vector: torch.Tensor, axis: int, dimension: int) -> torch.Tensor:
    """A vector as a tensor of ``dimension`` axes that varies along one of them."""
    return vector.reshape([-1 if k == axis else 1 for k in range(dimension)])


def layout(problem: Problem, grid: Grid, dtype: torch.dtype, device: torch.device | str) -> Layout:
    """The layout of a problem's unknowns on a bound grid."""
    sides = problem.box.sides
    axes = []
    for k, points in enumerate(grid.axes()):
        low, high = (_END[problem.boundary[name].kind] for name in sides[2 * k : 2 * k + 2])
        bounds = grid.box.lower[k], grid.box.upper[k]
        make = _cell_axis if grid.centring == "cell" else _node_axis
        axes.append(make(points.to(device), grid.spacing[k], (low, high), bounds))
    return Layout(grid, tuple(axes), dtype)


def _node_axis(
    points: torch.Tensor, h: float, ends: tuple[End, End], bounds: tuple[float, float]
) -> Axis:
    start = 1 if ends[0] == "value" else 0
    stop = len(points) - (0 if ends[1] == "closed" else 1)
    p = points[start:stop]
    edges = torch.cat([p[:1] - h / 2, p + h / 2])
    widths = torch.full_like(p, h)
    for place, end in ((0, ends[0]), (-1, ends[1])):
        if end == "closed":
            edges[place] = p[place]
            widths[place] = h / 2
    extended = torch.cat([p[:1] - h, p, p[-1:] + h])
    return Axis(
        points, start, stop, extended, edges, torch.full_like(edges, h), widths, h, ends
    )  # fmt: skip


def _cell_axis(
    points: torch.Tensor, h: float, ends: tuple[End, End], bounds: tuple[float, float]
) -> Axis:
    edges = torch.cat([points[:1] - h / 2, points + h / 2])
    extended = torch.cat([points[:1] - h, points, points[-1:] + h])
    lengths = torch.full_like(edges, h)
    for place, end, bound in ((0, ends[0], bounds[0]), (-1, ends[1], bounds[1])):
        if end != "wrap":
            extended[place] = bound
            lengths[place] = h / 2
    return Axis(
        points, 0, len(points), extended, edges, lengths, torch.full_like(points, h), h, ends
    )  # fmt: skip


def pick(value: torch.Tensor, index: Sequence[torch.Tensor]) -> torch.Tensor:
    """``value[..., i, j]`` for one index tensor per trailing axis."""
    key: Any = (Ellipsis, *index)
    return value[key]


def low_faces(value: torch.Tensor, axis: int, dimension: int) -> torch.Tensor:
    """Of values on the faces 0 .. m, those on the low side of each unknown; size 1 stays."""
    dim = axis - dimension
    size = value.shape[dim]
    return value if size == 1 else value.narrow(dim, 0, size - 1)


def high_faces(value: torch.Tensor, axis: int, dimension: int) -> torch.Tensor:
    """Of values on the faces 0 .. m, those on the high side of each unknown; size 1 stays."""
    dim = axis - dimension
    size = value.shape[dim]
    return value if size == 1 else value.narrow(dim, 1, size - 1)


def at_end(value: torch.Tensor, axis: int, dimension: int, end: int) -> torch.Tensor:
    """The slab of ``value`` at the low (0) or high (1) end of an axis; the axis stays, size 1."""
    dim = axis - dimension
    return value.narrow(dim, 0 if end == 0 else value.shape[dim] - 1, 1)


@dataclass(frozen=True)
class Embedding:
    """Between the unknowns and the value on the whole grid.

    ``known``: per Dirichlet side of a node grid, (axis, end, values on the side).
    ``hole``: bool on the grid, True where there is no value (NaN), or None.
    """

    layout: Layout
    known: tuple[tuple[int, int, torch.Tensor], ...]
    hole: torch.Tensor | None

    def lift(self, u: torch.Tensor) -> torch.Tensor:
        """Unknowns (*batch, *A.shape) to the value (*batch, *grid.shape).

        Where two Dirichlet sides meet, the x side's value wins, then y's.
        """
        d, shape = self.layout.dimension, self.layout.grid.shape
        batch = np.broadcast_shapes(u.shape[:-d], *(g.shape[:-d] for _, _, g in self.known))
        value = u.new_zeros(*batch, *shape)
        self.layout.to_unknowns(value).copy_(u)
        for axis, end, g in reversed(self.known):
            at_end(value, axis, d, end).copy_(g)
        for k, wraps in enumerate(self.layout.periodic):
            if wraps and not self.layout.cells:
                at_end(value, k, d, 1).copy_(at_end(value, k, d, 0).clone())
        return value if self.hole is None else value.masked_fill(self.hole, torch.nan)

    def restrict(self, value: torch.Tensor) -> torch.Tensor:
        """The value on the grid to the unknowns; points without a value become 0."""
        u = self.layout.to_unknowns(value)
        if self.hole is None:
            return u
        return u.masked_fill(self.layout.to_unknowns(self.hole), 0.0)
