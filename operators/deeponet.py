"""DeepONet: an operator as a sum of products of functions of the input and functions of the place.

    G(a)(y) = sum_{k=1..p} b_k(a(x_1), ..., a(x_m)) t_k(y) / sqrt(p) + b_0,

Lu, Jin, Pang, Zhang, Karniadakis (2021), arXiv 1910.03193. The branch b sees the input at m
fixed sensors, through dense layers or, first, convolutions of stride 2 (Lu et al. 2022, arXiv
2111.05512); the trunk t sees the place. The root of p keeps the sum of order one when weights are
drawn. Each output channel has coefficients b of its own; all share the functions t.

A place y in [0, 1]^d enters the trunk as 2 y - 1 or, on a periodic axis, as cos 2 pi y, sin 2 pi y,
so that answers are periodic; beside these, if asked for, as random Fourier features (Tancik et al.
2020, arXiv 2006.10739)

    cos 2 pi B y,  sin 2 pi B y,    B_ij ~ N(0, scale^2), rounded on periodic axes.

A hard boundary multiplies G by prod 4 y_i (1 - y_i) over the axes with Dirichlet ends (Lu et al.
2022).

*POD-DeepONet*: a DeepONet whose trunk is the proper orthogonal basis of the training outputs.

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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.operators.operator import Signature, at_places, resample

Activation = Literal["gelu", "relu", "silu", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}
_KERNEL = 5  # points of a branch's convolution along each axis
_STRIDE = 2


@dataclass(frozen=True)
class DeepONet:
    """Branch and trunk; answers on any grid and at any points.

    modes: the number p of products.
    branch, trunk: widths of their hidden dense layers.
    convolutions: channels of the branch's 5^d convolutions of stride 2, before its dense layers.
    activation: gelu, relu, silu or tanh, after every layer but the branch's last.
    fourier_features: how many random frequencies the trunk sees; fourier_scale: their standard
    deviation, in periods per length of the box.
    hard_boundary: answers vanish on sides with Dirichlet ends (zero data only).
    sensors: points of the branch along each axis, without a periodic axis's repeated last one; the
    training grid's if left out. Inputs on another grid are interpolated to them.
    """

    modes: int = 128
    branch: tuple[int, ...] = (128, 128)
    trunk: tuple[int, ...] = (128, 128, 128)
    convolutions: tuple[int, ...] = ()
    activation: Activation = "gelu"
    fourier_features: int = 0
    fourier_scale: float = 1.0
    hard_boundary: bool = False
    sensors: tuple[int, ...] | None = None
    kind: Literal["deeponet"] = "deeponet"

    def __post_init__(self) -> None:
        check_positive(self.kind, "modes", (self.modes,))
        for name in ("branch", "trunk", "convolutions", "sensors"):
            check_positive(self.kind, name, getattr(self, name) or ())
        check_activation(self.kind, self.activation)
        if self.fourier_features < 0 or not self.fourier_scale > 0:
            raise InputError(
                f"{self.kind}: fourier_features counts frequencies and fourier_scale is positive; "
                f"got {self.fourier_features} and {self.fourier_scale:g}",
                "operator.fourier_features",
            )

    def build(self, signature: Signature) -> DeepONetNetwork:
        """The network for ``signature``; raises InputError where it does not allow the options."""
        return DeepONetNetwork(self, signature)


class DeepONetNetwork(nn.Module):
    """(B, C_in, *opened grid) to (B, C_out, *opened grid), or at points to (B, C_out, P)."""

    takes_points = True

    def __init__(self, options: DeepONet, signature: Signature) -> None:
        super().__init__()
        self.signature = signature
        dirichlet = [axis for axis, s in enumerate(signature.boundary) if s == "dirichlet"]
        self.hard = dirichlet if options.hard_boundary else []
        if options.hard_boundary and not dirichlet:
            raise InputError(
                f"deeponet: a hard boundary needs an axis with Dirichlet ends; the outputs have "
                f"{', '.join(signature.boundary)}",
                "operator.hard_boundary",
            )
        channels, modes = len(signature.outputs), options.modes
        self.branch = Branch(
            signature,
            sensors=options.sensors,
            convolutions=options.convolutions,
            widths=(*options.branch, channels * modes),
            activation=options.activation,
        )
        self.trunk = Trunk(options, signature)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Scaled values; ``points`` (P, d) or (B, P, d), scaled to [0, 1]^d."""
        coefficients = self.branch(z).unflatten(1, (len(self.signature.outputs), -1))
        if points is None:
            shape = tuple(z.shape[2:])
            places = self.signature.coordinates(shape).to(z).flatten(1).T
            found: Tensor = self.evaluate(coefficients, places).unflatten(2, shape)
            return found
        check_points(points, len(z))
        return self.evaluate(coefficients, points)

    def evaluate(self, coefficients: Tensor, places: Tensor) -> Tensor:
        """The sum of products: (B, C, p) and (P, d) or (B, P, d) to (B, C, P)."""
        functions = self.trunk(places) / math.sqrt(coefficients.shape[-1])
        value: Tensor = coefficients @ functions.mT + self.bias[:, None]
        if not self.hard:
            return value
        s = places[..., self.hard]
        bubble: Tensor = (4 * s * (1 - s)).prod(-1)
        return value * (bubble if places.ndim == 2 else bubble[:, None])

    def prepare(self, z: Tensor) -> None:
        """Check that a hard boundary agrees with scaled outputs on the training grid's nodes."""
        on_grid = tuple(z.shape[2:]) == self.signature.opened
        if self.signature.grid.centring == "cell" or not on_grid:
            return
        for axis in self.hard:
            ends = z.movedim(2 + axis, -1)[..., [0, -1]].abs().max()
            if ends > 1e-4 * z.abs().max():
                raise InputError(
                    "deeponet: hard_boundary makes answers vanish on the sides of axis "
                    f"{axis}, but training outputs do not: up to {ends:.2g} of their deviation",
                    "operator.hard_boundary",
                )


class Trunk(nn.Module):
    """The functions of the place: (..., d) in [0, 1]^d to (..., p)."""

    frequencies: Tensor

    def __init__(self, options: DeepONet, signature: Signature) -> None:
        super().__init__()
        self.periodic = [side == "periodic" for side in signature.boundary]
        frequencies = options.fourier_scale * torch.randn(
            options.fourier_features, signature.dimension
        )
        rounded = torch.tensor(self.periodic)
        frequencies = torch.where(rounded, frequencies.round(), frequencies)
        self.register_buffer("frequencies", frequencies)
        inputs = signature.dimension + sum(self.periodic) + 2 * options.fourier_features
        self.layers = dense(inputs, (*options.trunk, options.modes), options.activation)
        self.layers.append(ACTIVATIONS[options.activation]())

    def forward(self, places: Tensor) -> Tensor:
        """The last layer has its activation too, as in the paper."""
        features: Tensor = self.layers(self.features(places))
        return features

    def features(self, places: Tensor) -> Tensor:
        """What the first layer sees."""
        parts = []
        for axis, periodic in enumerate(self.periodic):
            s = places[..., axis : axis + 1]
            parts += _waves(s) if periodic else [2 * s - 1]
        if len(self.frequencies):
            parts += _waves(places @ self.frequencies.T)
        return torch.cat(parts, dim=-1)


class Branch(nn.Module):
    """The coefficients: (B, C_in, *opened grid) to (B, widths[-1])."""

    def __init__(
        self,
        signature: Signature,
        *,
        sensors: tuple[int, ...] | None,
        convolutions: tuple[int, ...],
        widths: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        self.signature = signature
        self.sensors = sensors or signature.opened
        if len(self.sensors) != signature.dimension:
            raise InputError(
                f"sensors need one number per axis, {signature.dimension}; got "
                f"{list(self.sensors)}",
                "operator.sensors",
            )
        layers, size, channels = [], self.sensors, len(signature.inputs)
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[signature.dimension - 1]
        for width in convolutions:
            size = tuple((n - _KERNEL) // _STRIDE + 1 for n in size)
            layers += [initialised(kind(channels, width, _KERNEL, stride=_STRIDE))]
            layers += [ACTIVATIONS[activation]()]
            channels = width
        if min(size) < 1:
            least = 1
            for _ in convolutions:
                least = (least - 1) * _STRIDE + _KERNEL
            raise InputError(
                f"a branch with {len(convolutions)} convolutions needs at least {least} points "
                f"along each axis; it has {list(self.sensors)}",
                "operator.convolutions",
            )
        dense_layers = dense(channels * math.prod(size), widths, activation)
        self.layers = nn.Sequential(*layers, nn.Flatten(), *dense_layers)

    def forward(self, z: Tensor) -> Tensor:
        """Functions on another grid than the sensors' are interpolated to these."""
        if tuple(z.shape[2:]) != self.sensors:
            z = resample(z, self.signature, self.sensors)
        coefficients: Tensor = self.layers(z)
        return coefficients


def dense(inputs: int, widths: Sequence[int], activation: str) -> nn.Sequential:
    """Dense layers of these widths with activations between them; Glorot-normal weights."""
    layers: list[nn.Module] = []
    for before, width in zip((inputs, *widths), widths, strict=False):
        layers += [initialised(nn.Linear(before, width)), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def initialised(layer: nn.Module) -> nn.Module:
    """The layer with Glorot-normal weights and no bias to begin with, as in the papers."""
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        else:
            nn.init.zeros_(parameter)
    return layer


def check_points(points: Tensor, batch: int) -> None:
    """Raise InputError unless ``points`` is (P, d) or (batch, P, d)."""
    if points.ndim not in (2, 3) or (points.ndim == 3 and len(points) != batch):
        raise InputError(
            f"points need shape (P, d), or ({batch}, P, d) for {batch} inputs; got "
            f"{tuple(points.shape)}"
        )


def check_positive(kind: str, name: str, numbers: Sequence[int]) -> None:
    """Raise InputError unless all of an option's numbers are at least 1."""
    if any(n < 1 for n in numbers):
        raise InputError(
            f"{kind}: {name} must be at least 1; got {list(numbers)}", f"operator.{name}"
        )


def check_activation(kind: str, activation: str) -> None:
    """Raise InputError for an activation that is not known."""
    if activation not in ACTIVATIONS:
        raise InputError(
            f"{kind}: no activation '{activation}'{did_you_mean(activation, ACTIVATIONS)}",
            "operator.activation",
        )


def _waves(phase: Tensor) -> list[Tensor]:
    turn = 2 * math.pi * phase
    return [torch.cos(turn), torch.sin(turn)]


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
        mean, axes, deviations = principal(z.double().flatten(1))
        share = torch.cumsum(deviations**2, 0) / (deviations**2).sum()
        needed = int((share < self.options.energy).sum()) + 1
        kept = min(self.options.modes, len(axes), needed)
        self.mean.copy_(mean.view_as(self.mean))
        self.basis.zero_()
        self.basis[:kept] = (axes[:kept] * math.sqrt(axes.shape[1])).view(kept, *self.mean.shape)

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Scaled values; ``points`` (P, d) or (B, P, d), scaled to [0, 1]^d."""
        coefficients = self.branch(z) / math.sqrt(self.options.modes)
        shape = tuple(z.shape[2:])
        if points is not None:
            check_points(points, len(z))
        return combined(coefficients, self.mean, self.basis, self.signature, shape, points)


def principal(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), principal axes (K, D) and deviations along them (K,) of rows (N, D).

    Axes have length 1 and a positive largest entry; those that are rounding are left out.
    """
    mean = rows.mean(0)
    _, singular, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    rank = int((singular > 1e-7 * singular[0]).sum())
    axes, singular = axes[:rank], singular[:rank]
    largest = axes.abs().argmax(1, keepdim=True)
    return mean, axes * axes.gather(1, largest).sign(), singular / math.sqrt(len(rows))


def combined(
    coefficients: Tensor,
    mean: Tensor,
    basis: Tensor,
    signature: Signature,
    shape: tuple[int, ...],
    points: Tensor | None,
) -> Tensor:
    """mean + coefficients (B, K) . basis (K, C, *opened grid) on an opened grid, or at points.

    Interpolated multilinearly where the grid is another; (B, C, *shape) or (B, C, P).
    """
    if points is None:
        if shape != signature.opened:
            mean, basis = (resample(field, signature, shape) for field in (mean, basis))
        found: Tensor = torch.tensordot(coefficients, basis, dims=1)
        return mean + found
    values = at_places(torch.cat([mean[None], basis]), signature, points.unbind(-1))
    if points.ndim == 2:
        return values[0] + torch.einsum("bk,kcp->bcp", coefficients, values[1:])
    values = values.movedim(2, 0)
    return values[:, 0] + torch.einsum("bk,bkcp->bcp", coefficients, values[:, 1:])
