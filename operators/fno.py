"""The Fourier neural operator (Li et al., ICLR 2021, arXiv 2010.08895).

    v_0 = P(a, x)                                        lifting, pointwise
    w_l = gelu(W_l v_l + b_l + F^-1 (R_l . F v_l))       eq. 2 and 4 of the paper
    v_(l+1) = gelu(Q_l(w_l) + s_l v_l)                   pointwise, Q_l a two-layer perceptron
    u = Q(v_L)                                           projection, pointwise

without either gelu in the last layer. F is the discrete Fourier transform, of which the lowest
modes are kept, and R_l one complex matrix per mode. The perceptron Q_l with the gate s_l, the
widths and the initial weights are those of the `neuraloperator` package, version 2.

Few modes are kept, so F is applied axis by axis as a dense real matrix with 2 rows per mode, at a
cost per point that does not grow with the grid. With the axes of the grid first and the samples
and channels last, a transform, the product with R_l and a pointwise layer are each one matrix
product, and nothing is transposed in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sciml.core.errors import InputError
from sciml.operators.operator import Signature

# Hidden widths of the pointwise perceptrons, as multiples of the width.
_LIFTING, _PROJECTION, _MIXING = 2.0, 2.0, 0.5


@dataclass(frozen=True)
class FNO:
    """A Fourier neural operator, on grids of any size in 1 to 3 dimensions.

    modes: frequencies kept per axis, from -modes/2 to (modes-1)/2; a grid of fewer points uses
        those it has.
    width: channels of the hidden functions.
    layers: number of Fourier layers.
    padding: the part of each non-periodic axis that is added to it, filled with zeros, before the
        Fourier layers and cut off behind them.
    coordinates: whether the position is given as further input channels; without them, and with
        periodic sides, the network commutes with shifts.
    """

    modes: int = 12
    width: int = 32
    layers: int = 4
    padding: float = 0.0
    coordinates: bool = True
    kind: Literal["fno"] = "fno"

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("layers", self.layers)):
            if value < 1:
                raise InputError(f"fno: {name} must be at least 1; got {value}", f"operator.{name}")
        if self.modes < 2:
            raise InputError(f"fno: modes must be at least 2; got {self.modes}", "operator.modes")
        if not 0.0 <= self.padding <= 1.0:
            raise InputError(
                f"fno: padding is a part of each axis, from 0 to 1; got {self.padding}",
                "operator.padding",
            )

    def build(self, signature: Signature) -> FNONetwork:
        """The network, with new weights from torch's global generator."""
        return FNONetwork(self, signature)


class FNONetwork(nn.Module):
    """The network of ``FNO``: (B, C_in, *grid) to (B, C_out, *grid), any grid."""

    takes_points = False

    def __init__(self, options: FNO, signature: Signature) -> None:
        super().__init__()
        self.options = options
        self.signature = signature
        d, width = signature.dimension, options.width
        inputs = len(signature.inputs) + (d if options.coordinates else 0)
        self.lifting = PointwisePerceptron(inputs, round(_LIFTING * width), width)
        self.layers = nn.ModuleList(
            FourierLayer(width, (options.modes,) * d, last=index == options.layers - 1)
            for index in range(options.layers)
        )
        self.projection = PointwisePerceptron(
            width, round(_PROJECTION * width), len(signature.outputs)
        )

    def forward(self, z: Tensor) -> Tensor:
        """``z (B, C_in, *grid)`` to ``(B, C_out, *grid)``."""
        shape = tuple(z.shape[2:])
        v = z.movedim((0, 1), (-2, -1))
        if self.options.coordinates:
            x = self.signature.coordinates(shape).to(z).movedim(0, -1).unsqueeze(-2)
            v = torch.cat([v, x.expand(*shape, len(z), -1)], -1)
        v = self._pad(self.lifting(v))
        transform = Transform(tuple(v.shape[:-2]), self.options.modes, like=v)
        for layer in self.layers:
            v = layer(v, transform)
        for axis, n in enumerate(shape):
            v = v.narrow(axis, 0, n)
        projected: Tensor = self.projection(v)
        return projected.movedim((-2, -1), (0, 1))

    def _pad(self, v: Tensor) -> Tensor:
        boundary = self.signature.boundary
        added = [
            0 if side == "periodic" else round(self.options.padding * n)
            for side, n in zip(boundary, v.shape, strict=False)
        ]
        if not any(added):
            return v
        return functional.pad(v, (0, 0, 0, 0, *(m for n in reversed(added) for m in (0, n))))


class PointwisePerceptron(nn.Module):
    """W_2 gelu(W_1 v + b_1) + b_2, on the last axis."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, outputs)

    def forward(self, v: Tensor) -> Tensor:
        """``v (..., inputs)`` to ``(..., outputs)``."""
        found: Tensor = self.second(functional.gelu(self.first(v)))
        return found


class FourierLayer(nn.Module):
    """One layer v_l -> v_(l+1) of the formula above, on functions of shape (*grid, B, width)."""

    def __init__(self, width: int, modes: tuple[int, ...], *, last: bool) -> None:
        super().__init__()
        self.last = last
        # By the symmetry of a real function's transform, half the first axis says it all.
        kept = (modes[0] // 2 + 1, *modes[1:])
        deviation = 1 / math.sqrt(width)
        # R_l: per mode a matrix from in to (real, imaginary) times out.
        self.spectrum = nn.Parameter(
            torch.randn(*kept, width, 2, width) * deviation / math.sqrt(2.0)
        )
        self.skip = nn.Linear(width, width)
        nn.init.normal_(self.skip.bias, std=deviation)
        self.mixing = PointwisePerceptron(width, round(_MIXING * width), width)
        self.gate = nn.Parameter(torch.ones(width))

    def forward(self, v: Tensor, transform: Transform) -> Tensor:
        """``v (*grid, B, width)`` to the same shape."""
        w = transform.inverse(multiply(transform(v), transform.low(self.spectrum)), self.skip(v))
        if self.last:
            return torch.addcmul(self.mixing(w), self.gate, v)
        return functional.gelu(torch.addcmul(self.mixing(functional.gelu(w)), self.gate, v))


def multiply(modes: Tensor, spectrum: Tensor) -> Tensor:
    """R_l . F v: complex products mode by mode.

    modes: (M, 2, B, in), real and imaginary parts. spectrum: (M, in, 2, out). To (M, 2, B, out).
    """
    count, _, batch, inputs = modes.shape
    products = torch.bmm(modes.reshape(count, 2 * batch, inputs), spectrum.flatten(2))
    parts = products.view(count, 2, batch, 2, -1)
    real, imaginary = parts[:, 0], parts[:, 1]
    return torch.stack([real[:, :, 0] - imaginary[:, :, 1], real[:, :, 1] + imaginary[:, :, 0]], 1)


class Transform:
    """The lowest modes of functions of shape (*grid, B, C), and back; real matrices.

    Frequencies k of the first axis: 0 to modes/2; of the others -modes/2 to (modes-1)/2, fewer
    where the grid has fewer points. F carries the factor 1 over the number of points.
    """

    def __init__(self, shape: tuple[int, ...], modes: int, *, like: Tensor) -> None:
        self.shape = shape
        half = min(modes, shape[0]) // 2 + 1
        ranges = [(0, half)]
        for n in shape[1:]:
            kept = min(modes, n)
            ranges.append((-(kept // 2), kept - kept // 2))
        self.counts = tuple(stop - start for start, stop in ranges)
        self._low = [slice(0, half)]
        self._low += [slice(start + modes // 2, stop + modes // 2) for start, stop in ranges[1:]]
        waves = [_waves(*r, n, like.device) for r, n in zip(ranges, shape, strict=True)]
        # A real function has no imaginary part to start from, and none to end with.
        waves[0] = waves[0][:, : shape[0]]
        # Its modes k and -k are conjugate: both are met by counting k twice, but for those k that
        # are their own negatives.
        k = torch.arange(half, device=like.device)
        twice = torch.where((k == 0) | (2 * k == shape[0]), 1.0, 2.0).repeat_interleave(2)
        back = [waves[0] * twice[:, None], *waves[1:]]
        self._forward = [(w / n).to(like) for w, n in zip(waves, shape, strict=True)]
        self._back = [w.T.contiguous().to(like) for w in back]

    def __call__(self, v: Tensor) -> Tensor:
        """F: ``v (*grid, B, C)`` to ``(M, 2, B, C)``, M the number of all modes."""
        batch, channels = v.shape[-2:]
        modes = self._forward[0] @ v.reshape(self.shape[0], -1)
        done = self.counts[0]
        for matrix, count in zip(self._forward[1:], self.counts[1:], strict=True):
            modes = matrix @ modes.view(done, matrix.shape[1], -1)
            done *= count
        return modes.view(done, 2, batch, channels)

    def inverse(self, modes: Tensor, offset: Tensor) -> Tensor:
        """``offset + F^-1 modes``: ``(M, 2, B, C)`` to ``(*grid, B, C)``, the shape of offset."""
        done = modes.shape[0]
        for matrix, count in zip(self._back[:0:-1], self.counts[:0:-1], strict=True):
            done //= count
            modes = matrix @ modes.reshape(done, 2 * count, -1)
        rows = self.shape[0]
        value = torch.addmm(offset.view(rows, -1), self._back[0], modes.reshape(2 * done, -1))
        return value.view(offset.shape)

    def low(self, spectrum: Tensor) -> Tensor:
        """What the grid has of ``spectrum (*modes, in, 2, out)``, as ``(M, in, 2, out)``."""
        return spectrum[tuple(self._low)].flatten(0, len(self.shape) - 1)


def _waves(start: int, stop: int, n: int, device: torch.device) -> Tensor:
    """exp(-2 pi i k j / n) as a real matrix from (re/im, j) to (k, re/im); float64."""
    k = torch.arange(start, stop, device=device)
    j = torch.arange(n, device=device)
    angle = (k[:, None] * j % n).double() * (2 * math.pi / n)
    cosine, sine = angle.cos(), angle.sin()
    real = torch.stack([cosine, sine], 1)
    imaginary = torch.stack([-sine, cosine], 1)
    return torch.stack([real, imaginary], 1).reshape(2 * len(k), 2 * n)
