"""The handful of loops that all time is spent in, each one pass over its arrays.

Two twins with the same functions: ``reference`` (torch: batched, differentiable, any device) and
``compiled`` (numba, for CPU tensors that need no gradient). Tests hold them equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from sciml.core.algebra.kernels.reference import Operator, StencilOperator
    from sciml.core.algebra.transfer import Transfer


class Kernels(Protocol):
    """The functions of a twin; u, x, b, r, z (*batch, *shape), scalars per sample."""

    def apply(self, A: StencilOperator, u: torch.Tensor, /) -> torch.Tensor:
        """``A u``."""

    def apply_dot(self, A: StencilOperator, u: torch.Tensor, out: torch.Tensor, /) -> torch.Tensor:
        """``out = A u``; returns <u, A u>."""

    def step(
        self,
        x: torch.Tensor,
        r: torch.Tensor,
        p: torch.Tensor,
        q: torch.Tensor,
        alpha: torch.Tensor,
        /,
    ) -> torch.Tensor:
        """``x += alpha p``, ``r -= alpha q`` in place; returns <r, r>."""

    def scale(self, u: torch.Tensor, factor: torch.Tensor, out: torch.Tensor, /) -> None:
        """``out = factor u``."""

    def inner(self, r: torch.Tensor, z: torch.Tensor, dimension: int, /) -> torch.Tensor:
        """<r, z> in float64."""

    def turn(
        self, p: torch.Tensor, z: torch.Tensor, factor: torch.Tensor, beta: torch.Tensor, /
    ) -> None:
        """``p = factor z + beta p`` in place."""

    def sweep(
        self,
        A: StencilOperator,
        x: torch.Tensor,
        b: torch.Tensor,
        /,
        *,
        reverse: bool,
        from_zero: bool,
        count: int = 1,
    ) -> None:
        """``count`` coloured Gauss-Seidel sweeps on x in place; ``reverse`` gives their adjoint."""

    def restrict_residual(
        self,
        A: StencilOperator,
        P: Transfer,
        x: torch.Tensor,
        b: torch.Tensor,
        out: torch.Tensor,
        /,
    ) -> None:
        """``out = P^T (b - A x)``."""

    def prolong_add(self, P: Transfer, x: torch.Tensor, coarse: torch.Tensor, /) -> None:
        """``x += P coarse``."""

    def interpolate(self, A: StencilOperator, factors: tuple[int, ...], /) -> Transfer:
        """The operator-dependent prolongation of ``sciml.core.algebra.transfer``."""

    def galerkin(self, A: Operator, P: Transfer, /) -> Operator:
        """``P^T A P`` as a box stencil."""


def of(u: torch.Tensor) -> Kernels:
    """The kernels for this tensor: compiled on the CPU, reference elsewhere or where derived.

    Derived: under autograd, or inside a transform of torch.func.
    """
    recorded = u.requires_grad and torch.is_grad_enabled()
    if u.device.type == "cpu" and not recorded and torch.func.debug_unwrap(u) is u:
        from sciml.core.algebra.kernels import compiled

        return compiled
    from sciml.core.algebra.kernels import reference

    return reference
