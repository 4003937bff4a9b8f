"""Losses: how far a prediction p is from the truth t, one number per sample, in physical units.

    relative L2    |p - t| / |t|,                          |u|^2   = sum_i u_i^2
    relative H1    |p - t|_1 / |t|_1,                      |u|_1^2 = sum_i u_i^2 + |grad u|_i^2
    residual       |b - A p| / |b|, the discrete equation
    combined       sum_k w_k loss_k

The sums go over channels and points and give all points the same weight, as in the papers of FNO
(Li et al. 2021) and MgNO (He, Liu, Xu 2024). On node grids they are thus no quadrature, where
boundary points would count by half. The last points of periodic axes, which repeat the first, are
left out. Gradients are in physical units, so that on [0, 1]^d the gradient dominates the H1 norm.

Values of half precision are compared in float32. Where the truth is zero, the loss is infinite or
very large unless the prediction is zero too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Union

import torch
from torch import Tensor

from sciml.core.errors import InputError

if TYPE_CHECKING:
    from sciml.operators.operator import Signature

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
ResidualFunction = Callable[[Tensor, Tensor], Tensor]
_KEY = "training.loss"


@dataclass(frozen=True)
class RelativeL2:
    """Relative L2 error, of functions on grids of any resolution or at points (B, C, P)."""

    kind: Literal["relative_l2"] = "relative_l2"

    def build(self, signature: Signature, residual: ResidualFunction | None = None) -> LossFunction:
        """``loss(prediction, truth, x)`` -> (B,)."""

        def loss(prediction: Tensor, truth: Tensor, x: Tensor) -> Tensor:
            p, t = _precise(prediction), _precise(truth)
            if _on_grid(p, x, signature):
                p, t = signature.open(p), signature.open(t)
            return _ratio(_size(p - t), _size(t))

        return loss


@dataclass(frozen=True)
class RelativeH1:
    """Relative H1 error, of values and gradients; of functions on grids of any resolution.

    ``derivative``: ``differences``, second order, central inside and one-sided at the ends, or
    wrapping on periodic axes; they do not see what alternates from point to point. ``spectral``:
    by Fourier series on periodic axes; on others the straight line between the values at the ends
    is taken off and the rest continued as an odd function, so that no boundary value need be zero.
    It needs a grid fine enough for the function, and knows no jumps.
    """

    derivative: Literal["differences", "spectral"] = "differences"
    kind: Literal["relative_h1"] = "relative_h1"

    def __post_init__(self) -> None:
        if self.derivative not in ("differences", "spectral"):
            raise InputError(
                f"derivative is 'differences' or 'spectral'; got '{self.derivative}'",
                f"{_KEY}.derivative",
            )

    def build(self, signature: Signature, residual: ResidualFunction | None = None) -> LossFunction:
        """``loss(prediction, truth, x)`` -> (B,); raises InputError for values at points."""
        differentiate = _central if self.derivative == "differences" else _spectral

        def parts(u: Tensor) -> list[Tensor]:
            spacing = signature.spacing(tuple(u.shape[2:]))
            return [u, *(differentiate(u, k, h, signature) for k, h in enumerate(spacing))]

        def loss(prediction: Tensor, truth: Tensor, x: Tensor) -> Tensor:
            if not _on_grid(prediction, x, signature):
                raise InputError(
                    "the H1 error needs values on a grid, not at points; use relative_l2", _KEY
                )
            p, t = (signature.open(_precise(u)) for u in (prediction, truth))
            return _ratio(_size(*parts(p - t)), _size(*parts(t)))

        return loss


@dataclass(frozen=True)
class Residual:
    """Relative residual of the discrete equation: needs no solutions, only the inputs."""

    kind: Literal["residual"] = "residual"

    def build(self, signature: Signature, residual: ResidualFunction | None = None) -> LossFunction:
        """``loss(prediction, truth, x)`` -> (B,), with ``residual(prediction, x)`` -> (B,).

        Raises InputError without ``residual``: where the equation of the data is not known.
        """
        if residual is None:
            raise InputError(
                "the residual loss needs the equation: data from a family, steady and linear", _KEY
            )
        return lambda prediction, truth, x: residual(prediction, x)


Term = Union[RelativeL2, RelativeH1, Residual]  # noqa: UP007  (read by the schema)


@dataclass(frozen=True)
class Weighted:
    """One term of a sum of losses."""

    loss: Term
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InputError(
                f"a weight must be positive and finite; got {self.weight:g}", f"{_KEY}.terms"
            )


@dataclass(frozen=True)
class Combined:
    """A weighted sum of losses."""

    terms: tuple[Weighted, ...]
    kind: Literal["combined"] = "combined"

    def __post_init__(self) -> None:
        if not self.terms:
            raise InputError("a combined loss needs at least one term", f"{_KEY}.terms")

    def build(self, signature: Signature, residual: ResidualFunction | None = None) -> LossFunction:
        """``loss(prediction, truth, x)`` -> (B,); raises InputError as its terms do."""
        parts = [(term.weight, term.loss.build(signature, residual)) for term in self.terms]

        def loss(prediction: Tensor, truth: Tensor, x: Tensor) -> Tensor:
            values = [weight * part(prediction, truth, x) for weight, part in parts]
            return sum(values[1:], start=values[0])

        return loss


Loss = Union[RelativeL2, RelativeH1, Residual, Combined]  # noqa: UP007  (read by the schema)


def needs_equation(loss: Loss) -> bool:
    """Whether it is the residual, or has it among its terms."""
    terms = [term.loss for term in loss.terms] if isinstance(loss, Combined) else [loss]
    return any(isinstance(term, Residual) for term in terms)


def _on_grid(u: Tensor, x: Tensor, signature: Signature) -> bool:
    # Points along a line look like a grid, but for their number.
    return u.ndim == x.ndim and (signature.dimension > 1 or u.shape[2:] == x.shape[2:])


def _precise(u: Tensor) -> Tensor:
    return u.float() if u.dtype in (torch.float16, torch.bfloat16) else u


def _size(*parts: Tensor) -> Tensor:
    """The norm of several (B, ...) together, (B,)."""
    size: Tensor = torch.linalg.vector_norm(torch.cat([p.flatten(1) for p in parts], 1), dim=1)
    return size


def _ratio(error: Tensor, truth: Tensor) -> Tensor:
    return error / truth.clamp_min(torch.finfo(truth.dtype).tiny)


def _central(u: Tensor, axis: int, h: float, signature: Signature) -> Tensor:
    """du/dx along a space axis of u (B, C, *opened grid)."""
    dim = axis + 2
    if signature.boundary[axis] == "periodic":
        return (u.roll(-1, dim) - u.roll(1, dim)) / (2 * h)
    (slope,) = torch.gradient(u, spacing=h, dim=dim, edge_order=2)
    return slope


def _spectral(u: Tensor, axis: int, h: float, signature: Signature) -> Tensor:
    """du/dx along a space axis of u (B, C, *opened grid) by Fourier series."""
    u = u.movedim(axis + 2, -1)
    if signature.boundary[axis] == "periodic":
        slope = _fourier(u, h)
    elif signature.grid.centring == "node":
        slope = _odd_nodes(u, h)
    else:
        slope = _odd_cells(u, h)
    return slope.movedim(-1, axis + 2)


def _fourier(u: Tensor, h: float) -> Tensor:
    """Derivative along the last axis of a periodic function; the highest even mode has none."""
    n = u.shape[-1]
    modes = torch.fft.rfft(u)
    k = 2 * math.pi * torch.fft.rfftfreq(n, h, dtype=u.dtype, device=u.device)
    if n % 2 == 0:
        k[-1] = 0
    slope: Tensor = torch.fft.irfft(1j * k * modes, n=n)
    return slope


def _odd_nodes(u: Tensor, h: float) -> Tensor:
    n = u.shape[-1]
    low, high = u[..., :1], u[..., -1:]
    slope = (high - low) / ((n - 1) * h)
    rest = u - low - slope * h * torch.arange(n, dtype=u.dtype, device=u.device)
    odd = torch.cat([rest, -rest[..., 1:-1].flip(-1)], -1)
    return _fourier(odd, h)[..., :n] + slope


def _odd_cells(u: Tensor, h: float) -> Tensor:
    """The values at the ends, half a cell outside the centres, are extrapolated linearly."""
    n = u.shape[-1]
    low = 1.5 * u[..., :1] - 0.5 * u[..., 1:2]
    high = 1.5 * u[..., -1:] - 0.5 * u[..., -2:-1]
    slope = (high - low) / (n * h)
    rest = u - low - slope * h * (torch.arange(n, dtype=u.dtype, device=u.device) + 0.5)
    odd = torch.cat([rest, -rest.flip(-1)], -1)
    return _fourier(odd, h)[..., :n] + slope
