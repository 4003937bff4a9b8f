"""Functions with their derivatives at scattered points, carried through a computation in one sweep.

The jet of u at a point is (u, u_1 .. u_D, and those second derivatives u_ij that are asked for). It
goes through sums unchanged, and through products and pointwise functions by

    (v w)_i  = v_i w + v w_i,             (v w)_ij  = v_ij w + v_i w_j + v_j w_i + v w_ij,
    s(v)_i   = s'(v) v_i,                 s(v)_ij   = s''(v) v_i v_j + s'(v) v_ij,

Taylor-mode differentiation of second order: each derivative costs one more evaluation, and all of
them are one tensor, so that a layer of a network is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Jet:
    """``data``: (1 + D + len(pairs), N, F), the value, its D first derivatives, then u_ij.

    ``pairs`` are the (i, j), i <= j, in the order kept. N points, F functions; all axes of a point
    count alike, time last.
    """

    data: Tensor
    dimension: int
    pairs: Pairs

    @property
    def value(self) -> Tensor:
        """(N, F)."""
        return self.data[0]

    @property
    def gradient(self) -> Tensor:
        """(D, N, F)."""
        return self.data[1 : 1 + self.dimension]

    def second(self, i: int, j: int) -> Tensor:
        """u_ij, (N, F); KeyError where it was not asked for."""
        pair = (i, j) if i <= j else (j, i)
        if pair not in self.pairs:
            raise KeyError(f"the derivative {pair} was not asked for; known are {self.pairs}")
        return self.data[1 + self.dimension + self.pairs.index(pair)]

    def like(self, data: Tensor) -> Jet:
        """Another jet of the same derivatives."""
        return Jet(data, self.dimension, self.pairs)

    def select(self, rows: slice | Tensor) -> Jet:
        """The jet at some of the points."""
        return self.like(self.data[:, rows])

    def columns(self) -> tuple[list[int], list[int]]:
        """Where the two first derivatives of each pair stand in ``data``."""
        return [1 + i for i, _ in self.pairs], [1 + j for _, j in self.pairs]

    def __add__(self, other: Jet) -> Jet:
        return self.like(self.data + other.data)

    def __mul__(self, other: Jet) -> Jet:
        first, second = self.columns()
        a, b, d = self.data, other.data, 1 + self.dimension
        low = torch.cat([a[:1] * b[:1], a[1:d] * b[:1] + a[:1] * b[1:d]])
        if not self.pairs:
            return self.like(low)
        mixed = a[first] * b[second] + a[second] * b[first]
        return self.like(torch.cat([low, a[d:] * b[:1] + mixed + a[:1] * b[d:]]))

    def through(self, s: Tensor, ds: Tensor, dds: Tensor) -> Jet:
        """s(u) of the values s, s' and s'' at u, (N, F) each."""
        d = 1 + self.dimension
        parts = [s[None], ds * self.data[1:d]]
        if self.pairs:
            first, second = self.columns()
            parts.append(dds * self.data[first] * self.data[second] + ds * self.data[d:])
        return self.like(torch.cat(parts))


def coordinates(points: Tensor, pairs: Pairs) -> Jet:
    """The jet of the points (N, D) themselves: F = D functions, the identity as their gradient."""
    count, dimension = points.shape
    data = points.new_zeros(1 + dimension + len(pairs), count, dimension)
    data[0] = points
    for i in range(dimension):
        data[1 + i, :, i] = 1.0
    return Jet(data, dimension, pairs)


def jet_of(
    function: Callable[[Tensor], Tensor], points: Tensor, pairs: Pairs, graph: bool = False
) -> Jet:
    """The jet of any differentiable ``function``, (N, D) -> (N, F), by reverse mode twice.

    Without a ``graph`` for what does not change while a network is trained, else with that of what
    the function depends on besides the points; where these have a graph, with theirs.
    """
    tracked = points.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        x = points if tracked else points.detach().requires_grad_()
        value = function(x)
        columns = [_scalar_jet(value[:, k], x, pairs) for k in range(value.shape[1])]
        data = torch.stack(columns, -1)
    return Jet(data if graph or tracked else data.detach(), points.shape[1], pairs)


def _scalar_jet(value: Tensor, x: Tensor, pairs: Pairs) -> Tensor:
    """(1 + D + len(pairs), N)."""
    slopes = _slopes(value, x)
    seconds = {i: _slopes(slopes[:, i], x) for i in sorted({i for i, _ in pairs})}
    rows = [value, *slopes.unbind(1), *(seconds[i][:, j] for i, j in pairs)]
    return torch.stack(rows)


def _slopes(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(
        value.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return found
