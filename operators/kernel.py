"""Kernel regression: an operator by linear algebra, the baseline that a network has to beat.

    f(a) = m + sum_{j=1..q} phi_j sum_{i=1..n} k(z(a), z(a_i)) alpha_ij,

Batlle, Darcy, Hosseini and Owhadi (2024), arXiv 2304.13202. z(a) are the coefficients of the input
in the principal components of the training inputs, those of component k divided by the power 0 or
1/2 of its deviation, then all by one number, so that their mean square is 1; phi_j are the
principal components of the training outputs y_i (POD), as in a POD-DeepONet. alpha solves
(K + lambda I) alpha = coefficients of the y_i, K_ij = k(z(a_i), z(a_j)), in float64. With
r = |z - z'|:

    linear     1 + z . z'                 (POD regression: the best linear map of the coefficients)
    quadratic  (1 + z . z' / l^2)^2
    matern     (1 + s + s^2 / 3) e^-s,  s = sqrt(5) r / l
    gaussian   e^(-r^2 / (2 l^2))

Kernel, power, l and lambda are those with the least leave-one-out error, which the eigenvectors of
one K give for every lambda: what sample i would get from the n - 1 others is missed by
alpha_i / ((K + lambda I)^-1)_ii (Allen 1974). They are chosen on at most 500 samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.operators.deeponet import check_points, check_positive, combined, principal
from sciml.operators.operator import Signature, resample

Form = Literal["auto", "linear", "quadratic", "matern", "gaussian"]
_FORMS = ("linear", "quadratic", "matern", "gaussian")
_LENGTHS = tuple(2.0**k for k in range(-2, 6))
_POWERS = (0.0, 0.5)
_CHOSEN_ON = 500  # samples
_ROUNDING = 1e-12  # of the largest eigenvalue: what a factorisation leaves of a ridge


@dataclass(frozen=True)
class Kernel:
    """Kernel regression between principal components; solved, not trained by descent.

    form: linear, quadratic, matern, gaussian, or auto, the one with the least leave-one-out error.
    modes: principal components of the inputs, and of the outputs, at most.
    samples: room for so many training samples; a matrix of samples^2 numbers is factorised.
    """

    form: Form = "auto"
    modes: int = 256
    samples: int = 2000
    kind: Literal["kernel"] = "kernel"

    def __post_init__(self) -> None:
        check_positive(self.kind, "modes", (self.modes,))
        check_positive(self.kind, "samples", (self.samples,))
        known = ("auto", *_FORMS)
        if self.form not in known:
            raise InputError(
                f"kernel: no form '{self.form}'{did_you_mean(self.form, known)}", "operator.form"
            )

    def build(self, signature: Signature) -> KernelNetwork:
        """The network for ``signature``; it answers zero until it is regressed."""
        return KernelNetwork(self, signature)


class KernelNetwork(nn.Module):
    """(B, C_in, *opened grid) to (B, C_out, *opened grid), or at points to (B, C_out, P)."""

    takes_points = True
    centre: Tensor
    encoder: Tensor
    places: Tensor
    mean: Tensor
    basis: Tensor
    chosen: Tensor

    def __init__(self, options: Kernel, signature: Signature) -> None:
        super().__init__()
        self.options, self.signature = options, signature
        into = (len(signature.inputs), *signature.opened)
        out = (len(signature.outputs), *signature.opened)
        p, q = (min(options.modes, math.prod(shape)) for shape in (into, out))
        self.register_buffer("centre", torch.zeros(into))
        self.register_buffer("encoder", torch.zeros(p, *into))
        self.register_buffer("places", torch.zeros(options.samples, p))
        self.register_buffer("mean", torch.zeros(out))
        self.register_buffer("basis", torch.zeros(q, *out))
        self.register_buffer("chosen", torch.zeros(2))  # the form's number and l
        self.weights = nn.Parameter(torch.zeros(options.samples, q), requires_grad=False)

    def regress(self, x: Tensor, y: Tensor) -> Tensor:
        """Take scaled samples (n, C, *the training grid, opened); what each gets from the others.

        Raises InputError for more samples than there is room for, or on another grid.
        """
        if x.shape[1:] != self.centre.shape or y.shape[1:] != self.mean.shape:
            raise InputError(
                "kernel: it needs inputs and outputs on the training grid, "
                f"{tuple(self.mean.shape)} each; got {tuple(y.shape[1:])}",
                "data",
            )
        n, room = len(x), self.options.samples
        if n > room:
            raise InputError(
                f"kernel: there are {n:,} samples and room for {room:,}; operator.samples: {n} "
                f"takes them all (a matrix of {8 * n * n / 1e9:.2g} GB), data.train: {room} fewer",
                "operator.samples",
            )
        inputs, outputs = x.double().flatten(1), y.double().flatten(1)
        centre, axes, deviations = principal(inputs)
        axes, deviations = axes[: len(self.encoder)], deviations[: len(self.encoder)]
        mean, phi, _ = principal(outputs)
        phi = phi[: len(self.basis)]
        coefficients = (inputs - centre) @ axes.T
        targets = (outputs - mean) @ phi.T
        at = torch.linspace(0, n - 1, min(n, _CHOSEN_ON)).long()
        precision = max(float(torch.finfo(self.weights.dtype).eps), _ROUNDING)
        _, power, (form, length, ridge) = min(
            (error, power, found)
            for power in _POWERS
            for error, found in _tried(
                self.options.form,
                coefficients[at] * _weights(deviations, power),
                targets[at],
                precision,
            )
        )
        weights = _weights(deviations, power)
        z = coefficients * weights
        K = _kernel(form, z, z, length)
        K.diagonal().add_(ridge)
        factor = torch.linalg.cholesky(K)
        alpha = torch.cholesky_solve(targets, factor)
        inverse = torch.cholesky_inverse(factor).diagonal()
        self.centre.copy_(centre.view_as(self.centre))
        self.mean.copy_(mean.view_as(self.mean))
        for kept in (self.encoder, self.basis, self.places, self.weights):
            kept.zero_()
        self.encoder[: len(axes)] = (axes * weights[:, None]).view(-1, *self.centre.shape)
        self.basis[: len(phi)] = phi.view(-1, *self.mean.shape)
        self.places[:n, : z.shape[1]] = z
        self.weights[:n, : alpha.shape[1]] = alpha
        self.chosen.copy_(torch.tensor([_FORMS.index(form), length]))
        left_out = targets - alpha / inverse[:, None]
        return (mean + left_out @ phi).view(y.shape)

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        """Scaled values; ``points`` (P, d) or (B, P, d), scaled to [0, 1]^d."""
        shape = tuple(z.shape[2:])
        if shape != self.signature.opened:
            z = resample(z, self.signature, self.signature.opened)
        if points is not None:
            check_points(points, len(z))
        seen = (z - self.centre).flatten(1) @ self.encoder.flatten(1).T
        form, length = _FORMS[int(self.chosen[0])], float(self.chosen[1]) or 1.0
        coefficients = _kernel(form, seen, self.places, length) @ self.weights
        return combined(coefficients, self.mean, self.basis, self.signature, shape, points)


def _weights(deviations: Tensor, power: float) -> Tensor:
    """By what each coefficient is multiplied."""
    weights: Tensor = deviations**-power
    return weights / (weights * deviations).square().sum().sqrt()


def _kernel(form: str, z: Tensor, other: Tensor, length: float) -> Tensor:
    """k of all pairs of rows, (rows of z, rows of other)."""
    products = z @ other.T
    if form == "linear":
        return 1 + products
    if form == "quadratic":
        return (1 + products / length**2).square()
    squares = z.square().sum(1)[:, None] + other.square().sum(1) - 2 * products
    squares = squares.clamp_min(0) / length**2
    if form == "gaussian":
        return torch.exp(-squares / 2)
    s = (5 * squares).sqrt()
    return (1 + s + s * s / 3) * torch.exp(-s)


def _tried(
    form: str, z: Tensor, targets: Tensor, precision: float
) -> Iterator[tuple[float, tuple[str, float, float]]]:
    """Leave-one-out error, and form, length and ridge, of all that are tried."""
    for name in _FORMS if form == "auto" else (form,):
        for length in (1.0,) if name == "linear" else _LENGTHS:
            values, vectors = torch.linalg.eigh(_kernel(name, z, z, length))
            projected, squares = vectors.T @ targets, vectors.square()
            # Weights of another precision answer as if K were uncertain by so much.
            least = precision * float(values[-1])
            for ridge in (least * 10.0**k for k in range(7 if precision > 1e-10 else 12)):
                gain = 1 / (values + ridge)
                missed = (vectors @ (gain[:, None] * projected)) / (squares @ gain)[:, None]
                yield float(missed.square().sum()), (name, length, ridge)
