"""Convolutions with three-point kernels whose padding is the boundary condition's.

    y_i = sum_o w_o x_{s i + o},  o = -1, 0, 1 per axis, stride s = 1 or 2
    y_i = sum_j w_{i - 2 j} x_j   (the transposed one, to the finer grid)

Beyond the ends x is zero (Dirichlet), repeated (periodic) or mirrored (Neumann: about the last
node, or about the face of the last cell). Coarse point j lies on fine point 2 j, n points become
ceil(n / 2), and the transposed convolution gives back any n.

A kernel is trained at spacing h0. In pixels it is the same numbers on any grid. In physical units
it is a function, w interpolated linearly, and a sum over points is a quadrature: on a grid of
spacing h, with H = max(h, h0),

    W_j = sum_o w_o (h / H) max(0, 1 - |j h - o h0| / H),

so that its size in space is that of training (Berner et al., arXiv 2506.10973). On coarser grids,
h > h0, this interpolates x instead of w; sums of kernels are kept on all grids.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.core.errors import InputError
from sciml.operators.operator import Signature

Kernel = Literal["pixels", "physical"]
Ratio = tuple[float, ...] | None  # h / h0 per axis; None: kernels as they are

_CONVOLVE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


class Convolution(nn.Module):
    """Three points per axis, stride 1 or 2: (B, C_in, *n) -> (B, C_out, *ceil(n / stride))."""

    def __init__(
        self, signature: Signature, inputs: int, outputs: int, stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__()
        self.signature, self.stride = signature, stride
        dimension = signature.dimension
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(3,) * dimension))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor, ratio: Ratio = None) -> Tensor:
        """``ratio``: the grid's spacing over the training grid's, for kernels in physical units."""
        weight = self.weight if ratio is None else resampled(self.weight, ratio)
        reach = tuple(n // 2 for n in weight.shape[2:])
        x, zeros = padded(x, reach, self.signature)
        convolve = _CONVOLVE[self.signature.dimension]
        return convolve(x, weight, self.bias, stride=self.stride, padding=zeros)


class Prolongation(nn.Module):
    """Transposed convolution of stride 2 from ceil(n / 2) to any n points per axis.

    Its kernel has three points along axes where the training grid has odd n, four (one more on the
    right) where even, as in the published networks.
    """

    def __init__(
        self, signature: Signature, inputs: int, outputs: int, shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.signature = signature
        kernel = (4 - n % 2 for n in shape)
        self.weight = nn.Parameter(torch.empty(inputs, outputs, *kernel))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, shape: tuple[int, ...], ratio: Ratio = None) -> Tensor:
        """``x (B, C_in, *ceil(shape / 2))`` to (B, C_out, *shape)."""
        weight = self.weight if ratio is None else resampled(self.weight, ratio)
        left = (1,) * len(shape) if ratio is None else tuple(_reach(3, r)[0] for r in ratio)
        right = tuple(n - 1 - a for n, a in zip(weight.shape[2:], left, strict=True))
        coarse = x.shape[2:]
        extra = tuple(max(b // 2, (a + 1) // 2) for a, b in zip(left, right, strict=True))
        x, zeros = padded(x, extra, self.signature)
        # Axes left to zeros need no padding: a transposed convolution adds nothing from there.
        crop = tuple(a + 2 * (q - z) for a, q, z in zip(left, extra, zeros, strict=True))
        given = (2 * m - 1 + b - a for m, a, b in zip(coarse, left, right, strict=True))
        more = tuple(max(0, n - g) for n, g in zip(shape, given, strict=True))
        transpose = _TRANSPOSE[self.signature.dimension]
        y = transpose(x, weight, stride=2, padding=crop, output_padding=more)
        for axis, n in enumerate(shape, 2):
            y = y if y.shape[axis] == n else y.narrow(axis, 0, n)
        return y


class PointwiseLinear(nn.Module):
    """The same affine map of the channels at every point: (B, C_in, *n) -> (B, C_out, *n)."""

    def __init__(self, dimension: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.convolve = _CONVOLVE[dimension]
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *(1,) * dimension))
        nn.init.uniform_(self.weight, -bound, bound)
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` on any grid or at any points."""
        return self.convolve(x, self.weight, self.bias)


def check_kernel(kernel: str) -> None:
    """Raises InputError for anything but "pixels" and "physical"."""
    if kernel not in ("pixels", "physical"):
        raise InputError(f"kernel is 'pixels' or 'physical'; got '{kernel}'", "operator.kernel")


def coarse_shapes(
    shape: tuple[int, ...], levels: int | None, most: int = 6
) -> list[tuple[int, ...]]:
    """The shapes of ``levels`` grids, n to ceil(n / 2) per axis, the finest first.

    None: halved while four points per axis are left, at most ``most`` grids. Raises InputError
    where an axis would have fewer than two points on the coarsest.
    """
    if levels is None:
        halvings = min(math.ceil(math.log2(min(shape) / 3)) - 1, most - 1)
        levels = 1 + max(halvings, 0)
    if levels > 1 and min(shape) <= 2 ** (levels - 1):
        raise InputError(
            f"{levels} levels need at least {2 ** (levels - 1) + 1} points per axis; the grid has "
            f"{' x '.join(map(str, shape))}",
            "operator.levels",
        )
    return [tuple(-(-n // 2**level) for n in shape) for level in range(levels)]


def channels_last(x: Tensor) -> Tensor:
    """``x`` with its channels innermost in memory, where convolutions on the CPU are fastest."""
    if x.device.type != "cpu" or x.ndim < 4:
        return x
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x.contiguous(memory_format=layout)


def spacing_ratio(signature: Signature, shape: tuple[int, ...], kernel: Kernel) -> Ratio:
    """h / h0 per axis of an opened grid of ``shape``; None for kernels in pixels or equal grids."""
    if kernel == "pixels":
        return None
    here, trained = signature.spacing(shape), signature.spacing(signature.opened)
    ratio = tuple(h / h0 for h, h0 in zip(here, trained, strict=True))
    return None if all(abs(r - 1) < 1e-6 for r in ratio) else ratio


def padded(
    x: Tensor, reach: tuple[int, ...], signature: Signature
) -> tuple[Tensor, tuple[int, ...]]:
    """``x`` with ``reach`` more points at both ends of periodic and Neumann axes.

    Returns the widths still to be padded with zeros, which convolutions do themselves.
    """
    zeros = list(reach)
    for axis, (width, side) in enumerate(zip(reach, signature.boundary, strict=True)):
        if side != "dirichlet" and width:
            x = _extended(x, axis - signature.dimension, width, _mode(side, signature))
            zeros[axis] = 0
    return x, tuple(zeros)


def resampled(weight: Tensor, ratio: tuple[float, ...]) -> Tensor:
    """The kernel ``weight (.., .., *k)`` of spacing h0 on a grid of spacing ``ratio`` h0."""
    for axis, r in enumerate(ratio, 2):
        weights = _interpolation(weight.shape[axis], r).to(weight)
        weight = torch.movedim(torch.tensordot(weight, weights, dims=([axis], [1])), -1, axis)
    return weight


def _interpolation(kernel: int, r: float) -> Tensor:
    left, right = _reach(kernel, r)
    width = max(r, 1.0)
    here = torch.arange(-left, right + 1, dtype=torch.float64)[:, None] * r
    trained = torch.arange(-1, kernel - 1, dtype=torch.float64)
    weights = (1 - (here - trained).abs() / width).clamp(min=0)
    return weights / weights.sum(0)


def _reach(kernel: int, r: float) -> tuple[int, int]:
    """How many points of spacing r the kernel reaches left and right of its centre."""
    width = max(r, 1.0)
    left, right = ((n + width) / r - 1e-9 for n in (1, kernel - 2))
    return math.ceil(left) - 1, math.ceil(right) - 1


def _mode(side: str, signature: Signature) -> str:
    if side == "periodic":
        return "circular"
    return "reflect" if signature.grid.centring == "node" else "symmetric"


def _extended(x: Tensor, axis: int, width: int, mode: str) -> Tensor:
    n = x.shape[axis]
    if mode == "circular":
        left, right = x.narrow(axis, n - width, width), x.narrow(axis, 0, width)
    else:
        skip = 1 if mode == "reflect" else 0
        left = x.narrow(axis, skip, width).flip(axis)
        right = x.narrow(axis, n - skip - width, width).flip(axis)
    return torch.cat([left, x, right], axis)
