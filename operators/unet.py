"""U-Net: a plain encoder and decoder with skip connections, as a rival on grids.

Ronneberger, Fischer, Brox, 2015, arXiv 1505.04597, in the form used for functions (Gupta and
Brandstetter, arXiv 2209.15616: GELU and group normalisation):

    block   u <- GELU(G(K_2 GELU(G(K_1 u))))      K: 3^d convolutions, G: group normalisations
    down    u_l = block(D_l u_{l-1})              D: 3^d convolutions of stride 2
    up      u_{l-1} <- block(Q_l u_l, u_{l-1})    Q: transposed convolutions; channels are stacked
    last    y = C u_0                             C: a 1x1 convolution

Level l has 2^l width channels. Convolutions pad by the boundary condition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.core.errors import InputError
from sciml.operators.convolution import (
    Convolution,
    Kernel,
    PointwiseLinear,
    Prolongation,
    Ratio,
    channels_last,
    check_kernel,
    coarse_shapes,
    spacing_ratio,
)
from sciml.operators.operator import Signature


@dataclass(frozen=True)
class UNet:
    """U-Net; any grid of at least 2^(levels - 1) + 1 points per axis.

    width: channels on the finest grid, doubled on each coarser one.
    levels: number of grids; by default halved while four points per axis are left, at most five.
    kernel: "pixels" keeps the kernels' numbers on other grids, "physical" their size in space.
    """

    width: int = 32
    levels: int | None = None
    kernel: Kernel = "pixels"
    kind: Literal["unet"] = "unet"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"unet: width must be at least 1; got {self.width}", "operator.width")
        if self.levels is not None and self.levels < 1:
            raise InputError(
                f"unet: levels must be at least 1; got {self.levels}", "operator.levels"
            )
        check_kernel(self.kernel)

    def build(self, signature: Signature) -> UNetNetwork:
        """The network for the signature's channels, boundary and training grid."""
        return UNetNetwork(self, signature)


class UNetNetwork(nn.Module):
    """The U-Net: (B, C_in, *grid) -> (B, C_out, *grid)."""

    def __init__(self, options: UNet, signature: Signature) -> None:
        super().__init__()
        self.signature, self.kernel = signature, options.kernel
        shapes = coarse_shapes(signature.opened, options.levels, most=5)
        self.levels = len(shapes)
        widths = [options.width * 2**level for level in range(self.levels)]
        pairs = list(pairwise(widths))
        self.first = Block(signature, len(signature.inputs), options.width)
        self.down = nn.ModuleList(Convolution(signature, a, b, 2, bias=True) for a, b in pairs)
        self.encode = nn.ModuleList(Block(signature, b, b) for _, b in pairs)
        self.up = nn.ModuleList(
            Prolongation(signature, b, a, shape)
            for (a, b), shape in zip(pairs, shapes, strict=False)
        )
        self.decode = nn.ModuleList(Block(signature, 2 * a, a) for a, _ in pairs)
        self.last = PointwiseLinear(signature.dimension, options.width, len(signature.outputs))

    def forward(self, z: Tensor) -> Tensor:
        """``z``: scaled inputs on an opened grid; raises InputError where it is too small."""
        shape = tuple(z.shape[2:])
        coarse_shapes(shape, self.levels)
        ratio = spacing_ratio(self.signature, shape, self.kernel)
        u = self.first(z, ratio)
        kept = []
        for down, encode in zip(self.down, self.encode, strict=True):
            kept.append(u)
            u = encode(down(u, ratio), ratio)
        levels = zip(reversed(kept), reversed(self.up), reversed(self.decode), strict=True)
        for fine, up, decode in levels:
            u = decode(torch.cat([up(u, tuple(fine.shape[2:]), ratio), fine], 1), ratio)
        out: Tensor = self.last(u)
        return out.contiguous()


class Block(nn.Module):
    """Two convolutions, each normalised in groups of channels and followed by GELU."""

    def __init__(self, signature: Signature, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Convolution(signature, inputs, outputs)
        self.second = Convolution(signature, outputs, outputs)
        groups = math.gcd(8, outputs)
        self.norms = nn.ModuleList(nn.GroupNorm(groups, outputs) for _ in range(2))

    def forward(self, u: Tensor, ratio: Ratio = None) -> Tensor:
        """``u (B, C_in, *grid)`` to (B, C_out, *grid)."""
        u = channels_last(self.first(u, ratio))
        u = functional.gelu(self.norms[0](u))
        return functional.gelu(self.norms[1](self.second(u, ratio)))
