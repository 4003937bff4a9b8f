"""Gradients through a solve, by the implicit function theorem.

At the answer x of F(x, theta) = 0, dx/dtheta = -(dF/dx)^-1 dF/dtheta. So the answer found without
any graph gets one: x is handed on as it is, and its gradient g goes to the residual

    r(theta) = b(theta) - A(theta) x    (or -F(x, theta)),    x held fixed,

as lambda = (dF/dx)^-H g: one adjoint solve by the same solver, then the ordinary backward pass of
one residual. Memory does not depend on how many iterations either solve takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.autograd.function import once_differentiable

Map = Callable[[torch.Tensor], torch.Tensor]


class _Implicit(torch.autograd.Function):
    """Forward: ``x``. Backward: the gradient of the residual by ``adjoint``; none for ``x``."""

    @staticmethod
    def forward(
        context: torch.autograd.function.FunctionCtx,
        residual: torch.Tensor,
        x: torch.Tensor,
        adjoint: Map,
    ) -> torch.Tensor:
        context.adjoint = adjoint  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(
        context: torch.autograd.function.FunctionCtx, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, None, None]:
        return context.adjoint(gradient), None, None  # type: ignore[attr-defined]


def attach(x: torch.Tensor, residual: Map, adjoint: Map) -> torch.Tensor:
    """``x`` with the graph of ``residual``: the same numbers, differentiable once.

    ``residual(x)``: of x's shape, called with a graph at the detached ``x``, whatever graph that
    has itself: an iteration that had nothing to do hands its guess on, and with it the guess's
    history, which is not that of the answer. ``adjoint(g)`` solves (dF/dx)^H lambda = g for g of
    x's shape. Where the residual has no graph the answer has none.
    """
    x = x.detach()
    gap = residual(x)
    if not gap.requires_grad:
        return x
    implicit: Callable[..., torch.Tensor] = _Implicit.apply
    return implicit(gap, x, adjoint)


@contextmanager
def local_graph() -> Iterator[None]:
    """A graph that is used up within, whatever keeps those around it, as a checkpoint does.

    Forwards torch multiplies what is constant by way of its compiler, which takes seconds to load.
    """
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    with torch.enable_grad(), hooks:
        yield
