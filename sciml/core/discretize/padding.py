"""The solution beyond its unknowns, as the sides say, and its differences.

Along every axis the values are padded by one at each end, at the places ``Axis.extended``:

* ``value``: the Dirichlet value, on the boundary node or the boundary face of a cell;
* ``wrap``: the unknown at the other end;
* ``closed``: linear extrapolation, so that a central difference becomes one-sided. The flux through
  a closed side is its condition's own and never a difference of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sciml.core.discretize.boundary import flux_condition, nonnegative_alpha
from sciml.core.discretize.coefficients import Data, evaluate
from sciml.core.discretize.layout import Layout, Points, at_end, lie_along
from sciml.core.grid import SIDES
from sciml.core.problem import Problem


@dataclass(frozen=True)
class Sides:
    """The sides' data, by (axis, end): on the unknowns next to it, that axis having size 1.

    ``value``: Dirichlet values. ``known``: the same on whole sides of node grids, for the
    transfer. ``flux``: (alpha, g) of closed sides, ``inside`` the unknowns' places next to them.
    """

    value: dict[tuple[int, int], torch.Tensor]
    known: tuple[tuple[int, int, torch.Tensor], ...]
    flux: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]]
    inside: dict[tuple[int, int], Points]


def side_data(problem: Problem, info: Data) -> Sides:
    """The data of all sides at the time of ``info``."""
    lay = info.layout
    value: dict[tuple[int, int], torch.Tensor] = {}
    flux: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
    inside: dict[tuple[int, int], Points] = {}
    known = []
    for axis, line in enumerate(lay.axes):
        for end, kind in enumerate(line.ends):
            name = SIDES[axis][end]
            condition = problem.boundary[name]
            key = f"problem.boundary.{name}.{condition.kind}"
            if kind == "value" and lay.cells:
                place = line.extended[[0, -1]][end : end + 1]
                g = evaluate(condition.dirichlet, lay.points({axis: place}), info, key)
                value[axis, end] = g
            elif kind == "value":
                points = tuple(
                    at_end(p, k, lay.dimension, end) if k == axis else p
                    for k, p in enumerate(info.own)
                )
                whole = evaluate(condition.dirichlet, points, info, key)
                known.append((axis, end, whole))
                value[axis, end] = lay.to_unknowns(whole, skip=axis)
            elif kind == "closed":
                points = lay.points({axis: line.edges[[0, -1]][end : end + 1]})
                robin = flux_condition(condition)
                alpha = evaluate(robin.alpha, points, info, f"{key}.alpha")
                nonnegative_alpha(alpha, points, f"{key}.alpha")
                g = evaluate(robin.g, points, info, f"{key}.g" if condition.robin else key)
                flux[axis, end] = alpha, g
                inside[axis, end] = lay.points({axis: line.positions[[0, -1]][end : end + 1]})
    return Sides(value, tuple(known), flux, inside)


def padded(u: torch.Tensor, sides: Sides, lay: Layout) -> torch.Tensor:
    """``u`` (*batch, *shape) with one more value at each end of every axis."""
    d, result = lay.dimension, u
    for axis, line in enumerate(lay.axes):
        ends = []
        for end, kind in enumerate(line.ends):
            if kind == "wrap":
                slab = at_end(result, axis, d, 1 - end)
            elif kind == "value":
                slab = sides.value[axis, end]
                for before in range(axis):
                    slab = extended(slab, before, lay)
            else:
                slab = _beyond(result, axis, end, lay)
            ends.append(slab)
        result = joined([ends[0], result, ends[1]], axis, d)
    return result


def joined(parts: Sequence[torch.Tensor], axis: int, d: int) -> torch.Tensor:
    """The parts one after the other along an axis, all other sizes broadcast."""
    lead = torch.broadcast_shapes(*(p.shape[:-d] for p in parts))
    sizes = torch.broadcast_shapes(
        *(tuple(1 if k == axis else n for k, n in enumerate(p.shape[-d:])) for p in parts)
    )
    whole = [
        p.expand(*lead, *(p.shape[k - d] if k == axis else n for k, n in enumerate(sizes)))
        for p in parts
    ]
    return torch.cat(whole, axis - d)


def _beyond(value: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """Linear extrapolation to the place beyond an end of the unknowns."""
    dim, line = axis - lay.dimension, lay.axes[axis]
    n = value.shape[dim]
    if n < 2:
        return value
    near, next_one = (n - 1, n - 2) if end else (0, 1)
    ratio = float(line.lengths[-1 if end else 0]) / line.spacing
    first = value.narrow(dim, near, 1)
    return first + ratio * (first - value.narrow(dim, next_one, 1))


def extended(slab: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """A side's values, one more at each end of another axis; size 1 stays."""
    d = lay.dimension
    if slab.shape[axis - d] == 1:
        return slab
    if lay.periodic[axis]:
        ends = [at_end(slab, axis, d, 1), at_end(slab, axis, d, 0)]
    else:
        ends = [_beyond(slab, axis, end, lay) for end in (0, 1)]
    return torch.cat([ends[0], slab, ends[1]], axis - d)


def difference(whole: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """du/dx along a padded axis at its unknowns, exact for parabolas; other axes stay padded."""
    d, line = lay.dimension, lay.axes[axis]
    dim, n = axis - d, whole.shape[axis - d]
    if n == 1:
        return torch.zeros_like(whole)
    lengths = lie_along(line.lengths, axis, d).to(whole.dtype)
    below, above = lengths.narrow(dim, 0, n - 2), lengths.narrow(dim, 1, n - 2)
    low = (whole.narrow(dim, 1, n - 2) - whole.narrow(dim, 0, n - 2)) / below
    high = (whole.narrow(dim, 2, n - 2) - whole.narrow(dim, 1, n - 2)) / above
    return (above * low + below * high) / (below + above)


def outward_difference(u: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """du/dx between the last two unknowns at an end of an axis."""
    dim, n = axis - lay.dimension, lay.shape[axis]
    if n == 1:
        return torch.zeros_like(u)
    low = n - 2 if end else 0
    return (u.narrow(dim, low + 1, 1) - u.narrow(dim, low, 1)) / lay.axes[axis].spacing


def with_end(value: torch.Tensor, slab: torch.Tensor, axis: int, end: int, d: int) -> torch.Tensor:
    """``value`` with another slab at one end of an axis."""
    dim = axis - d
    rest = value.narrow(dim, 1 - end, value.shape[dim] - 1)
    return joined([rest, slab] if end else [slab, rest], axis, d)
