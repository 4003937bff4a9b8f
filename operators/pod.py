"""POD-DeepONet: a DeepONet whose trunk is the proper orthogonal basis of the training outputs.

    G(a) = m + sum_{k=1..p} b_k(a) phi_k / sqrt(p),

Lu et al. (2022), arXiv 2111.05512. m is the mean of the training outputs y_i and
phi_k the right singular vectors of the matrix with rows y_i - m, all channels and points together,
of unit mean square over these. No other data enters the basis. All b_k are scaled alike: scaled by
the deviation of its coefficient each, they trained worse, for errors in them weigh alike. On other
grids and at points m and phi_k are interpolated multilinearly. What is linear and holds for all
training outputs, such as a value on the boundary, holds for answers too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.operators.deeponet import (
    Activation,
    Branch,
    check_activation,
    check_points,
    check_positive,
)
from sciml.operators.interpolation import at_places, resample
from sciml.operators.operator import Signature


@dataclass(frozen=True)
class PODDeepONet:
    """A branch that gives the coefficients of a basis found by ``Operator.prepare``.

    modes: the number p of basis functions, at most.
    energy: the share of the training outputs' variance that the basis carries: where fewer modes
    than ``modes`` have it, the others are left out.
    branch: widths of the hidden dense layers.
    convolutions: channels of 5^d convolutions of stride 2 before these.
    activation: gelu, relu, silu or tanh, after every layer but the last.
    sensors: points of the branch along each axis, as in a DeepONet.
    """

    modes: int = 64
    energy: float = 1.0
    branch: tuple[int, ...] = (128, 128)
    convolutions: tuple[int, ...] = ()
    activation: Activation = "gelu"
    sensors: tuple[int, ...] | None = None
    kind: Literal["pod_deeponet"] = "pod_deeponet"

    def __post_init__(self) -> None:
        check_positive(self.kind, "modes", (self.modes,))
        for name in ("branch", "convolutions", "sensors"):
            check_positive(self.kind, name, getattr(self, name) or ())
        check_activation(self.kind, self.activation)
        if not 0 < self.energy <= 1:
            raise InputError(
                f"{self.kind}: energy is a share above 0 and at most 1; got {self.energy:g}",
                "operator.energy",
            )

    def build(self, signature: Signature) -> PODNetwork:
        """The network for ``signature``; its basis is random until it is prepared."""
        return PODNetwork(self, signature)


class PODNetwork(nn.Module):
    """(B, C_in, *opened grid) to (B, C_out, *opened grid), or at points to (B, C_out, P)."""

    takes_points = True
    mean: Tensor
    basis: Tensor

    def __init__(self, options: PODDeepONet, signature: Signature) -> None:
        super().__init__()
        self.options = options
        self.signature = signature
        shape = (len(signature.outputs), *signature.opened)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("basis", torch.randn(options.modes, *shape))
        self.branch = Branch(
            signature,
            sensors=options.sensors,
            convolutions=options.convolutions,
            widths=(*options.branch, options.modes),
            activation=options.activation,
        )

    def prepare(self, z: Tensor) -> None:
        """Mean and basis from scaled training outputs (N, C_out, *the training grid, opened)."""
        if z.shape[1:] != self.mean.shape:
            raise InputError(
                f"the basis needs outputs on the training grid, {tuple(self.mean.shape)} each; "
                f"got {tuple(z.shape[1:])}"
            )
        rows = z.double().flatten(1)
        mean = rows.mean(0)
        _, singular, vectors = torch.linalg.svd(rows - mean, full_matrices=False)
        kept = self._count(singular)
        vectors = vectors[:kept] * _signs(vectors[:kept])
        self.mean.copy_(mean.view_as(self.mean))
        self.basis.zero_()
        self.basis[:kept] = (vectors * math.sqrt(rows.shape[1])).view(kept, *self.mean.shape)

    def _count(self, singular: Tensor) -> int:
        """How many modes are kept: of those above rounding, the first that have the energy."""
        rank = int((singular > 1e-7 * singular[0]).sum())
        share = torch.cumsum(singular**2, 0) / (singular**2).sum()
        needed = int((share < self.options.energy).sum()) + 1
        return min(self.options.modes, rank, needed)

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Scaled values; ``points`` (P, d) or (B, P, d), scaled to [0, 1]^d."""
        coefficients = self.branch(z) / math.sqrt(self.options.modes)
        if points is None:
            return self._on_grid(coefficients, tuple(z.shape[2:]))
        check_points(points, len(z))
        fields = torch.cat([self.mean[None], self.basis])
        values = at_places(fields, self.signature, points.unbind(-1))
        if points.ndim == 2:
            return values[0] + torch.einsum("bk,kcp->bcp", coefficients, values[1:])
        values = values.movedim(2, 0)
        return values[:, 0] + torch.einsum("bk,bkcp->bcp", coefficients, values[:, 1:])

    def _on_grid(self, coefficients: Tensor, shape: tuple[int, ...]) -> Tensor:
        mean, basis = self.mean, self.basis
        if shape != self.signature.opened:
            mean, basis = (resample(field, self.signature, shape) for field in (mean, basis))
        found: Tensor = torch.tensordot(coefficients, basis, dims=1)
        return mean + found


def _signs(vectors: Tensor) -> Tensor:
    """(K, 1) signs that make each row's largest entry positive, so that a basis is repeatable."""
    largest = vectors.abs().argmax(1, keepdim=True)
    return vectors.gather(1, largest).sign()
