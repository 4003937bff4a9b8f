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
    low, weight = [], []
    for p, t in zip(points, ticks, strict=True):
        position = (p - t[0]) / (t[-1] - t[0]) * (len(t) - 1)
        index = position.floor().clamp(0, len(t) - 2)
        low.append(index.long())
        weight.append((position - index).to(values.dtype))
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    for corner in product((0, 1), repeat=len(ticks)):
        place: Any = (Ellipsis, *(i + s for i, s in zip(low, corner, strict=True)))
        factors = [w if s else 1 - w for w, s in zip(weight, corner, strict=True)]
        total = total + math.prod(factors[1:], start=factors[0]) * values[place]
    return total
