"""MgNO: multigrid cycles as the linear operators between neurons.

He, Liu, Xu, ICLR 2024, arXiv 2310.19809:

    layer        u <- GELU(V u + C u + c),  C a 1x1 convolution
    last layer   u <- C u
    V f = u_0:   u_0 = S_0 f_0,  f_0 = f
        down     u_l = P_l u_{l-1},  f_l = R_l f_{l-1}     3^d convolutions of stride 2
                 u_l <- u_l + S_l (f_l - A_l u_l)          3^d convolutions; twice on the coarsest
        up       u_{l-1} <- u_{l-1} + Q_l u_l              transposed convolutions

V is linear. Its convolutions have no constants and pad by the boundary condition (section 3.2 of
the paper); f itself is restricted, not its residual, as in the authors' runs. In the first layer f
has as many channels as the operator has inputs, elsewhere ``width``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
class MgNO:
    """Multigrid neural operator; any grid of at least 2^(levels - 1) + 1 points per axis.

    width: channels of the hidden layers.
    layers: number of V-cycle layers.
    levels: grids per V-cycle; by default halved while four points per axis are left, at most six.
    kernel: "pixels" keeps the kernels' numbers on other grids, "physical" their size in space.
    """

    width: int = 24
    layers: int = 5
    levels: int | None = None
    kernel: Kernel = "pixels"
    kind: Literal["mgno"] = "mgno"

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("layers", self.layers)):
            if value < 1:
                raise InputError(
                    f"mgno: {name} must be at least 1; got {value}", f"operator.{name}"
                )
        if self.levels is not None and self.levels < 1:
            raise InputError(
                f"mgno: levels must be at least 1; got {self.levels}", "operator.levels"
            )
        check_kernel(self.kernel)

    def build(self, signature: Signature) -> MgNONetwork:
        """The network for the signature's channels, boundary and training grid."""
        return MgNONetwork(self, signature)


class MgNONetwork(nn.Module):
    """The layers of MgNO: (B, C_in, *grid) -> (B, C_out, *grid)."""

    def __init__(self, options: MgNO, signature: Signature) -> None:
        super().__init__()
        self.signature, self.kernel = signature, options.kernel
        shapes = coarse_shapes(signature.opened, options.levels)
        self.levels = len(shapes)
        widths = [len(signature.inputs)] + [options.width] * options.layers
        self.cycles = nn.ModuleList(
            Cycle(signature, inputs, options.width, shapes) for inputs in widths[:-1]
        )
        dimension = signature.dimension
        self.direct = nn.ModuleList(
            PointwiseLinear(dimension, inputs, options.width) for inputs in widths[:-1]
        )
        self.last = PointwiseLinear(dimension, options.width, len(signature.outputs), bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """``z``: scaled inputs on an opened grid; raises InputError where it is too small."""
        shape = tuple(z.shape[2:])
        coarse_shapes(shape, self.levels)
        ratio = spacing_ratio(self.signature, shape, self.kernel)
        z = channels_last(z)
        for cycle, direct in zip(self.cycles, self.direct, strict=True):
            z = functional.gelu(cycle(z, ratio) + direct(z))
        out: Tensor = self.last(z)
        return out.contiguous()


class Cycle(nn.Module):
    """One V-cycle, linear: (B, C_in, *grid) -> (B, width, *grid)."""

    def __init__(
        self, signature: Signature, inputs: int, width: int, shapes: list[tuple[int, ...]]
    ) -> None:
        super().__init__()
        coarser = shapes[1:]
        self.first = Convolution(signature, inputs, width)
        self.restrict_u = nn.ModuleList(Convolution(signature, width, width, 2) for _ in coarser)
        self.restrict_f = nn.ModuleList(Convolution(signature, inputs, inputs, 2) for _ in coarser)
        self.smooth = nn.ModuleList(Smoothing(signature, inputs, width) for _ in coarser)
        self.coarsest = Smoothing(signature, inputs, width)
        self.prolong = nn.ModuleList(
            Prolongation(signature, width, width, shape) for shape in shapes[:-1]
        )

    def forward(self, f: Tensor, ratio: Ratio = None) -> Tensor:
        """V f; ``ratio`` as in Convolution."""
        u: Tensor = channels_last(self.first(f, ratio))
        kept = []
        for restrict_u, restrict_f, smooth in zip(
            self.restrict_u, self.restrict_f, self.smooth, strict=True
        ):
            kept.append(u)
            u, f = restrict_u(u, ratio), restrict_f(f, ratio)
            u = smooth(u, f, ratio)
        u = self.coarsest(u, f, ratio)
        for fine, prolong in zip(reversed(kept), reversed(self.prolong), strict=True):
            u = fine + prolong(u, tuple(fine.shape[2:]), ratio)
        return u


class Smoothing(nn.Module):
    """u + S (f - A u), with convolutions A (width -> C_in) and S (C_in -> width)."""

    def __init__(self, signature: Signature, inputs: int, width: int) -> None:
        super().__init__()
        self.A = Convolution(signature, width, inputs)
        self.S = Convolution(signature, inputs, width)

    def forward(self, u: Tensor, f: Tensor, ratio: Ratio = None) -> Tensor:
        """``u`` (B, width, *grid) and ``f`` (B, C_in, *grid) on one grid."""
        update: Tensor = self.S(f - self.A(u, ratio), ratio)
        return u + update
