"""What a sparse factor L is trained on: the error that conjugate gradients leave, or distances.

Preconditioned by M = L L^T, k steps of CG from zero leave the error e_k = p(M^-1 A) e_0, where the
polynomial p of degree k, p(0) = 1, is the one that makes its energy norm least. The loss

    energy:     mean (||e_k||_A / ||e_0||_A)^(1/k), the factor per step,

has therefore the gradient that it has with CG's step lengths held: p is stationary, so that its own
change does not matter to first order. Through what is left, linear recurrences, go

    z = M^-1 r,    g = dloss/dz:    dloss/dr = h,    dloss/dL_ij = -(h_i y_j + z_i q_j),

with y = L^-1 r, q = L^-1 g and h = L^-T q. The others are mean ||(M - A) w||^2 / ||A w||^2, in the
norm of D^-1, D the diagonal of A, with

    frobenius:  w = D^-1/2 n, n of N(0, 1)   (Haeusner et al. 2023, arXiv 2305.16368),
    solutions:  w = A^-1 b, b of N(0, 1)     (Trifonov et al. 2024, arXiv 2405.15557).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from sciml.solvers.incomplete import CholeskyFactor
from sciml.solvers.learned.neural_ic import FactorGraph
from sciml.solvers.relaxation import Triangle

Loss = Literal["energy", "frobenius", "solutions"]
_LEAST = 1e-20  # of an error's squared norm, below which it is rounding


@dataclass(frozen=True, eq=False)
class Batch:
    """Several matrices as one block-diagonal one.

    ``block`` (n,): to which each unknown belongs. ``b``, ``x`` (vectors, n), float64: A x = b.
    """

    graph: FactorGraph
    matrix: scipy.sparse.csr_matrix
    block: Tensor
    b: Tensor
    x: Tensor

    @classmethod
    def of(cls, parts: Sequence[Batch]) -> Batch:
        """All blocks of ``parts``, which have equally many vectors."""
        if len(parts) == 1:
            return parts[0]
        counts = [int(part.block[-1]) + 1 for part in parts]
        return cls(
            _joined([part.graph for part in parts]),
            scipy.sparse.block_diag([part.matrix for part in parts], format="csr"),
            torch.cat([p.block + at for p, at in zip(parts, _starts(counts), strict=True)]),
            torch.cat([part.b for part in parts], 1),
            torch.cat([part.x for part in parts], 1),
        )

    def dot(self, u: Tensor, v: Tensor) -> Tensor:
        """<u, v> per vector and block, (vectors, blocks)."""
        zero = u.new_zeros(u.shape[0], int(self.block[-1]) + 1)
        return zero.index_add(1, self.block, u * v)

    def spread(self, values: Tensor) -> Tensor:
        """A number per block, (vectors, blocks), for each of its unknowns."""
        return values[:, self.block]


def loss_of(kind: Loss, batch: Batch, diagonal: Tensor, lower: Tensor, steps: int) -> Tensor:
    """The loss of L, diagonal (n,) and the entries below it (m,), float64; a scalar."""
    if kind == "energy":
        return energy_left(batch, diagonal, lower, steps)
    square = torch.from_numpy(batch.matrix.diagonal())
    w = batch.x if kind == "solutions" else batch.b * square.rsqrt()
    graph, image = batch.graph, _Product.apply(w, batch.matrix)
    below = (diagonal * w).index_add(1, graph.columns, lower * w[:, graph.rows])
    product = (diagonal * below).index_add(1, graph.rows, lower * below[:, graph.columns])
    gap = product - image
    return (batch.dot(gap, gap / square) / batch.dot(image, image / square)).mean()


def energy_left(batch: Batch, diagonal: Tensor, lower: Tensor, steps: int) -> Tensor:
    """The mean of (||e_k||_A / ||e_0||_A)^(1/k) after k = ``steps`` steps of CG."""
    factor = _factor(batch.graph, diagonal, lower)
    r, x = batch.b, torch.zeros_like(batch.b)
    p, rho = x, torch.ones_like(batch.dot(r, r))
    for _ in range(steps):
        z = _Solve.apply(r, diagonal, lower, factor, batch.graph)
        before, rho = rho, batch.dot(r.detach(), z.detach())
        p = z + batch.spread(rho / before) * p
        q = _Product.apply(p, batch.matrix)
        alpha = batch.spread(rho / batch.dot(p.detach(), q.detach()))
        x, r = x + alpha * p, r - alpha * q
    error = batch.x - x
    left = batch.dot(error, _Product.apply(error, batch.matrix)) / batch.dot(batch.x, batch.b)
    return (left.clamp(min=_LEAST) ** (0.5 / steps)).mean()


class _Solve(torch.autograd.Function):
    """z = (L L^T)^-1 r for rows r (vectors, n)."""

    @staticmethod
    def forward(
        ctx: Any, r: Tensor, diagonal: Tensor, lower: Tensor, factor: Any, graph: FactorGraph
    ) -> Tensor:
        y = r.detach().clone()
        factor.lower.solve(factor.pivots, y.numpy())
        z = y.clone()
        factor.upper.solve(factor.pivots, z.numpy())
        ctx.factor, ctx.graph, ctx.found = factor, graph, (y, z)
        return z

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (y, z), factor, graph = ctx.found, ctx.factor, ctx.graph
        q = gradients[0].clone()
        factor.lower.solve(factor.pivots, q.numpy())
        h = q.clone()
        factor.upper.solve(factor.pivots, h.numpy())
        i, j = graph.rows, graph.columns
        on_lower = -(h[:, i] * y[:, j] + z[:, i] * q[:, j]).sum(0)
        return h, -(h * y + z * q).sum(0), on_lower, None, None


class _Product(torch.autograd.Function):
    """A u for rows u (vectors, n) and a symmetric matrix A."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, matrix: scipy.sparse.csr_matrix) -> Tensor:
        ctx.matrix = matrix
        return _times(matrix, u)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _times(ctx.matrix, gradients[0]), None


def _times(matrix: scipy.sparse.csr_matrix, u: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray((matrix @ u.detach().numpy().T).T))


def _factor(graph: FactorGraph, diagonal: Tensor, lower: Tensor) -> CholeskyFactor:
    n = len(graph.diagonal)
    counts = np.bincount(graph.rows.numpy(), minlength=n)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    columns = graph.columns.numpy().astype(np.int32)
    triangle = Triangle(starts, columns, lower.detach().numpy(), upper=False)
    return CholeskyFactor(triangle, triangle.transpose(), 1 / diagonal.detach().numpy(), 0.0)


def _joined(graphs: Sequence[FactorGraph]) -> FactorGraph:
    """The graphs beside each other."""
    starts = _starts([len(graph.diagonal) for graph in graphs])
    return FactorGraph(
        torch.cat([graph.nodes for graph in graphs]),
        torch.cat([graph.edges for graph in graphs]),
        torch.cat([graph.rows + at for graph, at in zip(graphs, starts, strict=True)]),
        torch.cat([graph.columns + at for graph, at in zip(graphs, starts, strict=True)]),
        torch.cat([graph.diagonal for graph in graphs]),
        torch.cat([graph.lower for graph in graphs]),
    )


def _starts(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:k]) for k in range(len(counts))]
