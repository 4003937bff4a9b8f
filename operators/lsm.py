"""Latent spectral models (Wu et al., ICML 2023, arXiv 2301.12664).

A U-shaped network, whose grids are halved by maxima and doubled by linear interpolation, with a
neural spectral block on each scale before its features join the way up. A block cuts its grid into
patches. In each patch it goes over to a few latent tokens t by cross-attention to a learned query
q, solves there in a spectral basis, and goes back by attention (eq. 3 to 6 of the paper):

    t = q + softmax(q . K(v)) V(v)
    t_c <- t_c + sum_m  a_cm sin(pi m t_c / M) + b_cm cos(pi m t_c / M),    m = 0 .. M - 1
    v <- v + softmax(Q(v) . t) t

The grid is filled with zeros to patch x 2^(scales - 1) points, so that the coarsest grid is one
patch. That is how the authors chose every patch of theirs: 6 for 85 points, 4 for 64, 9 for 129.
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
from sciml.operators.operator import Signature

_CONVOLUTION = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALISATION = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOLING = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_INTERPOLATION = ("linear", "bilinear", "trilinear")
# Width of the last pointwise perceptron, and the smallest patch that the authors used in 2 D.
_PROJECTION, _PATCH = 128, 3


@dataclass(frozen=True)
class LSM:
    """A latent spectral model, on grids of any size in 1 to 3 dimensions.

    width: channels on the finest scale, doubled from scale to scale; a multiple of heads.
    scales: at most so many grids; fewer where the coarsest would have less than 3 points.
    basis: frequencies M of the spectral basis.
    tokens: latent tokens per head.
    heads: heads of the attention.
    """

    width: int = 64
    scales: int = 5
    basis: int = 12
    tokens: int = 4
    heads: int = 8
    kind: Literal["lsm"] = "lsm"

    def __post_init__(self) -> None:
        for name in ("width", "scales", "basis", "tokens", "heads"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"lsm: {name} must be at least 1; got {value}", f"operator.{name}")
        if self.width % self.heads:
            raise InputError(
                f"lsm: width must be a multiple of heads ({self.heads}); got {self.width}",
                "operator.width",
            )

    def build(self, signature: Signature) -> LSMNetwork:
        """The network, with new weights from torch's global generator."""
        return LSMNetwork(self, signature)


class LSMNetwork(nn.Module):
    """The network of ``LSM``: (B, C_in, *grid) to (B, C_out, *grid), any grid.

    Scales and patches are chosen for the signature's grid; others are filled to fit them.
    """

    takes_points = False

    def __init__(self, options: LSM, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        d, width = signature.dimension, options.width
        scales = fitting_scales(signature.opened, options.scales)
        self.coarsening = 2 ** (scales - 1)
        self.patch = tuple(-(-n // self.coarsening) for n in signature.opened)
        widths = [width * 2**scale for scale in range(scales)]
        if scales > 1:
            widths[-1] //= 2  # the coarsest scale is as wide as the one above it
        self.lifting = nn.Linear(len(signature.inputs) + d, width)
        self.first = two_convolutions(d, width, width, width)
        self.down = nn.ModuleList(two_convolutions(d, a, b, b) for a, b in pairwise(widths))
        self.blocks = nn.ModuleList(SpectralBlock(w, self.patch, options) for w in widths)
        self.up = nn.ModuleList(
            two_convolutions(d, 2 * w, w, max(w // 2, width)) for w in widths[:-1]
        )
        self.mixing = nn.Linear(width, width)
        self.projection = nn.Sequential(
            nn.Linear(width, _PROJECTION), nn.GELU(), nn.Linear(_PROJECTION, len(signature.outputs))
        )

    def forward(self, z: Tensor) -> Tensor:
        """``z (B, C_in, *grid)`` to ``(B, C_out, *grid)``."""
        shape = tuple(z.shape[2:])
        x = self.signature.coordinates(shape).to(z).expand(len(z), -1, *shape)
        v = self._fill(self.lifting(torch.cat([z, x], 1).movedim(1, -1)).movedim(-1, 1))
        d = len(shape)
        features = [self.first(v)]
        for convolutions in self.down:
            features.append(convolutions(_POOLING[d - 1](features[-1], 2)))
        features = [block(v) for block, v in zip(self.blocks, features, strict=True)]
        v = features.pop()
        for convolutions in reversed(self.up):
            fine = features.pop()
            v = functional.interpolate(
                v, fine.shape[2:], mode=_INTERPOLATION[d - 1], align_corners=True
            )
            v = convolutions(torch.cat([fine, v], 1))
        for axis, n in enumerate(shape, 2):
            v = v.narrow(axis, 0, n)
        found: Tensor = self.projection(self.mixing(v.movedim(1, -1))).movedim(-1, 1)
        return found

    def _fill(self, v: Tensor) -> Tensor:
        blocks = [p * self.coarsening for p in self.patch]
        added = [-n % block for n, block in zip(v.shape[2:], blocks, strict=True)]
        return functional.pad(v, [m for n in reversed(added) for m in (0, n)])


def fitting_scales(shape: tuple[int, ...], most: int) -> int:
    """The largest number of grids, up to ``most``, whose coarsest has 3 points on every axis."""
    scales = most
    while scales > 1 and -(-min(shape) // 2 ** (scales - 1)) < _PATCH:
        scales -= 1
    return scales


def two_convolutions(d: int, inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Twice: a convolution over 3 points per axis, zero outside; batch normalisation; ReLU."""
    convolution, normalisation = _CONVOLUTION[d - 1], _NORMALISATION[d - 1]
    return nn.Sequential(
        convolution(inputs, hidden, 3, padding=1, bias=False),
        normalisation(hidden),
        nn.ReLU(),
        convolution(hidden, outputs, 3, padding=1, bias=False),
        normalisation(outputs),
        nn.ReLU(),
    )


class SpectralBlock(nn.Module):
    """The neural spectral block of the formulas above, patch by patch."""

    def __init__(self, width: int, patch: tuple[int, ...], options: LSM) -> None:
        super().__init__()
        self.patch = patch
        self.heads, self.basis = options.heads, options.basis
        channels = width // options.heads
        self.query = nn.Parameter(torch.rand(options.heads, options.tokens, channels) / width)
        self.weights = nn.Parameter(torch.rand(options.heads, channels, 2 * options.basis) / width)
        self.encode = nn.Linear(width, 2 * width)
        self.decode = nn.Linear(width, width)

    def forward(self, v: Tensor) -> Tensor:
        """``v (B, width, *grid)``, the grid a multiple of the patch, to the same shape."""
        points = self._cut(v)
        keys, values = self._heads(self.encode(points)).chunk(2, dim=-1)
        tokens = self.query + attend(self.query, keys, values)
        tokens = tokens + self._solve(tokens)
        found = attend(self._heads(self.decode(points)), tokens, tokens)
        return self._join(found.transpose(1, 2).flatten(2), v.shape) + v

    def _solve(self, tokens: Tensor) -> Tensor:
        modes = torch.arange(self.basis, device=tokens.device) * (math.pi / self.basis)
        angles = tokens.unsqueeze(-1) * modes.to(tokens.dtype)
        basis = torch.cat([angles.sin(), angles.cos()], -1)
        return torch.einsum("bhtcm,hcm->bhtc", basis, self.weights)

    def _heads(self, points: Tensor) -> Tensor:
        """(patches, points, heads x channels) to (patches, heads, points, channels)."""
        heads: Tensor = points.unflatten(-1, (self.heads, -1))
        return heads.transpose(1, 2)

    def _cut(self, v: Tensor) -> Tensor:
        """(B, width, *grid) to (B x patches, points of a patch, width)."""
        d = len(self.patch)
        for axis in reversed(range(d)):
            v = v.unflatten(2 + axis, (-1, self.patch[axis]))
        order = (0, *range(2, 2 + 2 * d, 2), *range(3, 3 + 2 * d, 2), 1)
        return v.permute(order).reshape(-1, math.prod(self.patch), v.shape[1])

    def _join(self, points: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of ``_cut``, for functions of shape ``shape``."""
        d = len(self.patch)
        counts = [n // p for n, p in zip(shape[2:], self.patch, strict=True)]
        v = points.view(shape[0], *counts, *self.patch, shape[1])
        order = (0, 1 + 2 * d, *(axis for i in range(d) for axis in (1 + i, 1 + d + i)))
        return v.permute(order).reshape(shape)


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(q . k) v over the last but one axis of keys and values, unscaled as the authors'."""
    return torch.softmax(queries @ keys.mT, -1) @ values
