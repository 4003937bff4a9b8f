"""A function of a box kept by its values: products of Chebyshev's polynomials or of waves.

    u(x) = sum_kl c_kl B_k(x) B_l(y),

B the polynomials T_k on [-1, 1], or 1, cos and sin of an angle where the axis is periodic,
from its values at Chebyshev's points or at even ones. Derivatives are those of the series: each is
one of other coefficients, so that none needs the graph of another, and a window of time that begins
where another ended does not hold on to it (Trefethen 2013, *Approximation Theory and Approximation
Practice*, chapters 3 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SIZES = {1: (32, 64, 128, 256, 512), 2: (24, 48, 96), 3: (16, 32)}  # of an axis, by dimensions
_TRIED = 200  # places at which a series is held against its function
_EXACT = 1e-9  # the largest difference there, over the largest value
_ROUNDING = 1e-15  # coefficients below this share of the largest are left out


@dataclass(frozen=True, eq=False)
class Series:
    """``coefficients`` (M1, .., Md) on the box from ``lower`` to ``upper``; see the module."""

    coefficients: Tensor
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    periodic: tuple[bool, ...]

    def __call__(self, points: Tensor) -> Tensor:
        """Values (N,) at points (N, d), with all their derivatives."""
        return _evaluated(points, self.coefficients, self)

    def values(self, points: Tensor, coefficients: Tensor) -> Tensor:
        """Those of other coefficients, without a graph."""
        bases = [
            _basis(points[:, axis], *each, coefficients.shape[axis])
            for axis, each in enumerate(zip(self.lower, self.upper, self.periodic, strict=True))
        ]
        found: Tensor = torch.tensordot(bases[0], coefficients, 1)
        for basis in bases[1:]:
            found = torch.einsum("nm,nm...->n...", basis, found)
        return found

    def slope(self, coefficients: Tensor, axis: int) -> Tensor:
        """Coefficients of the derivative along an axis."""
        c, size = coefficients.movedim(axis, 0), self.upper[axis] - self.lower[axis]
        found = torch.zeros_like(c)
        if self.periodic[axis]:
            k = torch.arange(1, (len(c) + 1) // 2, dtype=c.dtype, device=c.device)
            k = k.reshape(-1, *(1,) * (c.ndim - 1)) * 2 * math.pi / size
            found[1::2], found[2::2] = k * c[2::2], -k * c[1::2]
        else:
            for n in range(len(c) - 2, -1, -1):
                after = found[n + 2] if n + 2 < len(c) else 0.0
                found[n] = after + 2 * (n + 1) * c[n + 1]
            found[0] = found[0] / 2
            found = found * 2 / size
        return found.movedim(0, axis)


class _Evaluated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, coefficients: Tensor, series: Series) -> Tensor:
        ctx.save_for_backward(points, coefficients)
        ctx.series = series
        return series.values(points.detach(), coefficients)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        points, coefficients = ctx.saved_tensors
        series = ctx.series
        columns = [
            slope * _evaluated(points, series.slope(coefficients, axis), series)
            for axis in range(points.shape[1])
        ]
        return torch.stack(columns, -1), None, None


_evaluated: Callable[[Tensor, Tensor, Series], Tensor] = _Evaluated.apply


def _basis(x: Tensor, low: float, high: float, periodic: bool, count: int) -> Tensor:
    """(N, count)."""
    if periodic:
        angle = 2 * math.pi * (x - low) / (high - low)
        waves = torch.arange(1, (count + 1) // 2, dtype=x.dtype, device=x.device) * angle[:, None]
        both = torch.stack([waves.cos(), waves.sin()], -1).flatten(1)
        return torch.cat([torch.ones_like(x)[:, None], both], 1)
    s = (2 * (x - low) / (high - low) - 1).clamp(-1.0, 1.0)
    orders = torch.arange(count, dtype=x.dtype, device=x.device)
    return (orders * s.acos()[:, None]).cos()


def _nodes(low: float, high: float, periodic: bool, count: int) -> Tensor:
    k = torch.arange(count, dtype=torch.float64)
    if periodic:
        return low + (high - low) * k / count
    return low + (high - low) * (1 + (math.pi * (k + 0.5) / count).cos()) / 2


@torch.no_grad()
def series_of(
    function: Callable[[Tensor], Tensor],
    lower: Sequence[float],
    upper: Sequence[float],
    periodic: Sequence[bool],
    scale: float = 0.0,
) -> Series | None:
    """That of a function of points (N, d), (N,); None where none is within 1e-9 of it.

    Relative to its largest value, or to ``scale`` if that is larger. Sizes are odd on periodic
    axes: a constant, and cosines and sines in pairs.
    """
    d = len(lower)
    low, high = torch.tensor(lower).double(), torch.tensor(upper).double()
    cube = torch.rand(_TRIED, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = low + (high - low) * cube
    wanted = function(places)
    largest = max(scale, float(wanted.abs().max()))
    for size in _SIZES.get(d, ()):
        counts = [size + 1 if p else size for p in periodic]
        series = fitted(function, lower, upper, periodic, counts)
        gap = float((series.values(places, series.coefficients) - wanted).abs().max())
        if gap <= _EXACT * largest:
            return series
    return None


@torch.no_grad()
def fitted(
    function: Callable[[Tensor], Tensor],
    lower: Sequence[float],
    upper: Sequence[float],
    periodic: Sequence[bool],
    counts: Sequence[int],
) -> Series:
    """That with so many terms along every axis, whatever it leaves."""
    axes = [*zip(lower, upper, periodic, counts, strict=True)]
    nodes = [_nodes(*each) for each in axes]
    found = function(torch.cartesian_prod(*nodes).reshape(-1, len(axes))).reshape(*counts)
    for axis, (at, each) in enumerate(zip(nodes, axes, strict=True)):
        basis = _basis(at, *each)
        scale = basis.square().sum(0)
        found = torch.tensordot(basis.T / scale[:, None], found, ([1], [axis])).movedim(0, axis)
    found = torch.where(found.abs() > _ROUNDING * found.abs().max(), found, 0.0)
    return Series(found, tuple(lower), tuple(upper), tuple(periodic))
