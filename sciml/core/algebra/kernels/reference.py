"""The kernels in torch: the definition that the compiled twins are tested against.

Batched, differentiable (but for the in-place ``sweep`` and ``prolong_add``), on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, Protocol, TypeVar

import torch

from sciml.core.algebra.transfer import (
    Offset,
    Transfer,
    coarse_shape,
    galerkin_terms,
    interpolation_terms,
    transfer_offsets,
)

Operator = TypeVar("Operator", bound="StencilOperator")


class StencilOperator(Protocol):
    """What the kernels see of a stencil: :class:`sciml.core.algebra.stencil.Stencil`."""

    coefficients: torch.Tensor
    offsets: tuple[Offset, ...]
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    periodic: tuple[bool, ...]
    dtype: torch.dtype
    device: torch.device
    symmetric: bool

    @property
    def dimension(self) -> int:
        """Number of grid axes."""

    @property
    def size(self) -> int:
        """Number of unknowns of one sample."""

    def entry(self, offset: Offset) -> torch.Tensor:
        """The coefficient plane of one offset."""

    def diagonal(self) -> torch.Tensor:
        """The centre plane."""

    def like(
        self: Operator, coefficients: torch.Tensor, offsets: Sequence[Offset] | None = None
    ) -> Operator:
        """A stencil with the same tags and other coefficients."""


def shifted(u: torch.Tensor, offset: Offset, periodic: Sequence[bool]) -> torch.Tensor:
    """``u[i + offset]`` on the trailing axes, zero outside or wrapped on periodic axes."""
    dimension = len(offset)
    axes = tuple(range(-dimension, 0))
    moved = torch.roll(u, tuple(-s for s in offset), dims=axes) if any(offset) else u
    for axis, step in zip(axes, offset, strict=True):
        if step and not periodic[axis]:
            moved = moved.index_fill(
                axis, torch.tensor([u.shape[axis] - 1 if step > 0 else 0], device=u.device), 0.0
            )
    return moved


def apply(A: StencilOperator, u: torch.Tensor) -> torch.Tensor:
    """``sum_k a_k[i] u[i + o_k]``; u (*batch, *shape)."""
    total = torch.zeros_like(u)
    for offset in A.offsets:
        total = total + A.entry(offset) * shifted(u, offset, A.periodic)
    return total


def apply_dot(A: StencilOperator, u: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out = A u`` and <u, A u> per sample."""
    out.copy_(apply(A, u))
    return (u * out).flatten(-A.dimension).sum(-1)


def step(
    x: torch.Tensor, r: torch.Tensor, p: torch.Tensor, q: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """``x += alpha p``, ``r -= alpha q`` in place, alpha per sample; returns <r, r>."""
    factor = alpha[(..., *(None,) * (x.ndim - alpha.ndim))]
    x += factor * p
    r -= factor * q
    return r.square().sum(tuple(range(alpha.ndim, x.ndim)))


def scale(u: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    """``out = factor u``, factor per sample; the two may differ in precision."""
    out.copy_(u * factor[(..., *(None,) * (u.ndim - factor.ndim))])


def inner(r: torch.Tensor, z: torch.Tensor, dimension: int) -> torch.Tensor:
    """<r, z> per sample in float64; the two may differ in precision."""
    return (r.double() * z).flatten(-dimension).sum(-1)


def turn(p: torch.Tensor, z: torch.Tensor, factor: torch.Tensor, beta: torch.Tensor) -> None:
    """``p = factor z + beta p`` in place, scalars per sample; z may be of lower precision."""
    where = (..., *(None,) * (p.ndim - beta.ndim))
    p.mul_(beta[where]).add_(factor[where] * z)


def colours(shape: tuple[int, ...], periodic: tuple[bool, ...]) -> list[tuple[slice, ...]]:
    """Index sets of coloured Gauss-Seidel: parities, and the last index of an odd periodic axis."""
    axes = []
    for n, ring in zip(shape, periodic, strict=True):
        odd = ring and n % 2 == 1
        sets = [slice(p, n - 1 if odd else n, 2) for p in range(min(2, n))]
        axes.append([*sets, slice(n - 1, n)] if odd and n > 2 else sets)
    return list(product(*axes))


def sweep(
    A: StencilOperator,
    x: torch.Tensor,
    b: torch.Tensor,
    *,
    reverse: bool,
    from_zero: bool,
    count: int = 1,
) -> None:
    """``count`` coloured Gauss-Seidel sweeps on x in place; ``reverse`` gives their adjoint."""
    if from_zero:
        x.zero_()
    inverse = A.diagonal().reciprocal()
    order = colours(A.shape, A.periodic)[:: -1 if reverse else 1]
    for colour in order * count:
        where: tuple[Any, ...] = (..., *colour)
        x[where] += (inverse * (b - apply(A, x)))[where]


def restrict_residual(
    A: StencilOperator, P: Transfer, x: torch.Tensor, b: torch.Tensor, out: torch.Tensor
) -> None:
    """out = P^T (b - A x)."""
    residual = b - apply(A, x)
    out.zero_()
    for plane, d in enumerate(P.offsets):
        out += _plane(P.weights, plane, P.factors) * at_coarse(residual, d, P.factors, P.periodic)


def prolong_add(P: Transfer, x: torch.Tensor, coarse: torch.Tensor) -> None:
    """x += P coarse."""
    for plane, d in enumerate(P.offsets):
        term = _plane(P.weights, plane, P.factors) * coarse
        spread = x.new_zeros((*term.shape[: -len(P.factors)], *P.fine_shape))
        where: tuple[Any, ...] = (..., *(slice(f - 1, None, f) for f in P.factors))
        spread[where] = term
        x += shifted(spread, tuple(-s for s in d), P.periodic)


def interpolate(A: StencilOperator, factors: tuple[int, ...]) -> Transfer:
    """The operator-dependent prolongation of ``sciml.core.algebra.transfer``."""
    weights: dict[int, torch.Tensor] = {}
    offsets = transfer_offsets(factors)
    centre = offsets.index((0,) * len(factors))
    shape = (*A.batch, *coarse_shape(A.shape, factors))
    ones = torch.ones(A.shape, dtype=A.dtype, device=A.device)
    weights[centre] = A.coefficients.new_ones(shape)
    for plane, terms in interpolation_terms(A.offsets, factors):
        d = offsets[plane]
        total, diagonal = A.coefficients.new_zeros(shape), A.coefficients.new_zeros(shape)
        for k, known in terms:
            a = at_coarse(A.entry(A.offsets[k]), d, factors, A.periodic)
            if known < 0:
                diagonal = diagonal + a
            else:
                total = total - a * weights[known]
        inside = (at_coarse(ones, d, factors, A.periodic) > 0) & (diagonal != 0)
        weights[plane] = torch.where(inside, total / torch.where(inside, diagonal, 1.0), 0.0)
    stacked = torch.stack([weights[i] for i in range(len(offsets))], dim=-len(factors) - 1)
    return Transfer(stacked, factors, A.periodic, A.shape)


def galerkin(A: Operator, P: Transfer) -> Operator:
    """P^T A P as a box stencil."""
    dimension = len(P.factors)
    offsets = transfer_offsets((2,) * dimension)
    planes: list[torch.Tensor] = [P.weights.new_zeros(())] * len(offsets)
    for out, k, left, right, d, e in galerkin_terms(A.offsets, P.factors, offsets):
        a = at_coarse(A.entry(A.offsets[k]), d, P.factors, P.periodic)
        term = _plane(P.weights, left, P.factors) * a
        planes[out] = planes[out] + term * shifted(
            _plane(P.weights, right, P.factors), e, P.periodic
        )
    shape = (*P.weights.shape[: -dimension - 1], *P.shape)
    stacked = torch.stack([p.expand(shape) for p in planes], dim=-dimension - 1)
    return A.like(stacked, offsets)


def at_coarse(
    u: torch.Tensor, d: Offset, factors: tuple[int, ...], periodic: tuple[bool, ...]
) -> torch.Tensor:
    """``u[2 C + 1 + d]`` for every coarse point C, zero outside."""
    where: tuple[Any, ...] = (..., *(slice(f - 1, None, f) for f in factors))
    return shifted(u, d, periodic)[where]


def _plane(weights: torch.Tensor, plane: int, factors: tuple[int, ...]) -> torch.Tensor:
    return weights.select(-len(factors) - 1, plane)
