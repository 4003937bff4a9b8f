"""Multilinear interpolation between evenly spaced points, differentiable in torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch


def interpolate(
    values: torch.Tensor, points: Sequence[torch.Tensor], ticks: Sequence[torch.Tensor]
) -> torch.Tensor:
    """``values`` (*batch, *grid) at ``points``, one tensor per axis, which broadcast together.

    ``ticks``: the evenly spaced places of the grid's points, (n,) per axis. The result has the
    shape (*batch, *points); beyond the first and last tick it is extended linearly.
    """
    pairs = [between(p, t) for p, t in zip(points, ticks, strict=True)]
    return weighed(values, [low for low, _ in pairs], [weight for _, weight in pairs])


def between(point: torch.Tensor, ticks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tick below a point, and the point's distance from it in spacings."""
    position = (point - ticks[0]) / (ticks[-1] - ticks[0]) * (len(ticks) - 1)
    index = position.floor().clamp(0, len(ticks) - 2)
    return index.long(), position - index


def weighed(
    values: torch.Tensor, low: Sequence[torch.Tensor], shares: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Values (*batch, *grid) between the points ``low`` and the next ones, one tensor per axis."""
    weight = [share.to(values.dtype) for share in shares]
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    for corner in product((0, 1), repeat=len(weight)):
        place: Any = (Ellipsis, *(i + s for i, s in zip(low, corner, strict=True)))
        factors = [w if s else 1 - w for w, s in zip(weight, corner, strict=True)]
        total = total + math.prod(factors[1:], start=factors[0]) * values[place]
    return total


def on_box(
    values: torch.Tensor,
    points: Sequence[torch.Tensor],
    lower: Sequence[float],
    upper: Sequence[float],
    centring: str | None,
    periodic: Sequence[bool],
) -> torch.Tensor:
    """Values (*batch, *grid) of a grid that spans a box, at points.

    Given at the nodes, the first and last on the box's sides, or at the centres of its ``cell``s.
    Between a side and the centres next to it they go on linearly, or, where that would change
    their sign, as they are; across a ``periodic`` side to the other one.
    """
    d = len(lower)
    device = values.device
    ticks = []
    for axis, (a, b) in enumerate(zip(lower, upper, strict=True)):
        n = values.shape[axis - d]
        if centring == "cell":
            h = (b - a) / n
            values = _with_ghosts(values, axis - d, periodic[axis])
            a, b, n = a - h / 2, b + h / 2, n + 2
        ticks.append(torch.linspace(a, b, n, dtype=points[axis].dtype, device=device))
    return interpolate(values, points, ticks)


def _with_ghosts(values: torch.Tensor, dim: int, periodic: bool) -> torch.Tensor:
    """The values with one more beyond each end of an axis."""
    first, last = values.narrow(dim, 0, 1), values.narrow(dim, -1, 1)
    if periodic:
        return torch.cat([last, values, first], dim)
    second, before = values.narrow(dim, 1, 1), values.narrow(dim, -2, 1)
    return torch.cat([_beyond(first, second), values, _beyond(last, before)], dim)


def _beyond(end: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """The value beyond an end, such that the side half-way has the end's sign."""
    further = 2 * end - inner
    return torch.where((further + end) * end >= 0, further, end)
