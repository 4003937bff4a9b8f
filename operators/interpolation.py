"""Functions on the grids of a signature at other places: multilinear, round periodic axes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sciml.core.interpolation import interpolate
from sciml.operators.operator import Signature


def ticks(signature: Signature, shape: Sequence[int]) -> list[Tensor]:
    """Positions in [0, 1] along each axis of an opened grid, float64; a lone point is at 0."""
    cell = signature.grid.centring == "cell"
    ends = [not cell and side != "periodic" for side in signature.boundary]
    return [
        (torch.arange(n, dtype=torch.float64) + 0.5 * cell) / max(n - end, 1)
        for n, end in zip(shape, ends, strict=True)
    ]


def resample(values: Tensor, signature: Signature, shape: Sequence[int]) -> Tensor:
    """``values`` (..., *opened grid) on the opened grid of another shape, multilinearly."""
    places = torch.meshgrid(*ticks(signature, shape), indexing="ij")
    return at_places(values, signature, [s.to(values.device) for s in places])


def at_places(values: Tensor, signature: Signature, places: Sequence[Tensor]) -> Tensor:
    """``values`` (..., *opened grid) at places in [0, 1] per axis, multilinearly, wrapped round."""
    grid = values.shape[values.ndim - signature.dimension :]
    axes = [s.to(values.device) for s in ticks(signature, grid)]
    for axis, side in enumerate(signature.boundary):
        if side == "periodic":
            dim, s = axis - signature.dimension, axes[axis]
            first, last = values.narrow(dim, 0, 1), values.narrow(dim, -1, 1)
            values = torch.cat([last, values, first], dim)
            axes[axis] = torch.cat([s[-1:] - 1, s, s[:1] + 1])
    return interpolate(values, places, axes)
