"""Corrections on islands: a few points bound tightly to each other and loosely to the rest.

High cells in low ones are the example. A smoother hardly moves the mean over an island, and no
coarse grid represents it where its shape does not fit. Two points are bound where

    a_ij < 0,      a_ij^2 > theta^2 a_ii a_jj;

a connected component with indicator e is an island if e . A e is small beside e . D e, with D the
diagonal of A: a mode that Gauss-Seidel leaves alone. With one indicator as each row of R,

    x += R^T (R A R^T)^-1 R (b - A x)

takes the error to its A-orthogonal complement of the islands' span. An island that touches one kept
before is left out, so that R A R^T is diagonal. R A is formed once: inside an island its entries
all but cancel, which a single precision residual would not survive. Set-up is on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sciml.core.stencil import Stencil
from sciml.core.transfer import padded
from sciml.solvers.multigrid import island_loops

BOUND = 0.1  # theta
SLOW = 0.2  # the largest share of e . D e that an island's energy may be
LARGEST = 64  # points of an island: a larger one is small enough on a coarser level
CROWDED = 0.25  # the share of all points above which components are no islands (lines, say)
_ROUNDING = 16  # units of rounding below which an energy is none


@dataclass(frozen=True, eq=False)
class Islands:
    """Index lists into the flattened points of all samples of an operator, int64.

    ``points`` of island k begin at ``point_starts[k]``; ``columns`` and ``values`` of row k of R A
    at ``column_starts[k]``. ``inverse``: 1 / (R A R^T)_kk. ``unknowns``: points of all samples.
    """

    points: torch.Tensor
    point_starts: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor
    column_starts: torch.Tensor
    inverse: torch.Tensor
    unknowns: int

    def __len__(self) -> int:
        return len(self.inverse)

    def correct(self, x: torch.Tensor, b: torch.Tensor) -> None:
        """x += R^T (R A R^T)^-1 R (b - A x) in place; x, b (*batch, *shape)."""
        x, b = x.view(-1, self.unknowns), b.view(-1, self.unknowns)
        if x.device.type == "cpu":
            island_loops.correct(x.numpy(), b.numpy(), *self._arrays)
        else:
            self.correct_by_index(x, b)

    def correct_by_index(self, x: torch.Tensor, b: torch.Tensor) -> None:
        """``correct`` in torch, on any device; x, b (samples, unknowns)."""
        owner, row = self._owners
        step = x.new_zeros(len(x), len(self)).index_add_(1, owner, b[:, self.points])
        step.index_add_(1, row, self.values * x[:, self.columns], alpha=-1)
        x.index_add_(1, self.points, (self.inverse * step)[:, owner])

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        tensors = (self.points, self.point_starts, self.columns, self.values, self.column_starts)
        return tuple(tensor.numpy() for tensor in (*tensors, self.inverse))

    @cached_property
    def _owners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The island of each point, and of each entry of R A."""
        islands = torch.arange(len(self), device=self.points.device)
        return tuple(  # type: ignore[return-value]  # of two
            islands.repeat_interleave(starts.diff())
            for starts in (self.point_starts, self.column_starts)
        )


def find(A: Stencil, dtype: torch.dtype) -> Islands | None:
    """The islands of a symmetric operator, values in ``dtype``; None where there are none.

    An operator none of whose couplings is weak is told by one pass over its coefficients.
    """
    d = A.dimension
    if not A.symmetric or all(s == 0 for s in A.coefficients.stride()[-d:]):
        return None
    stored = A.coefficients.detach().cpu().contiguous()
    a = stored.reshape(-1, len(A.offsets), *(1,) * (3 - d), *A.shape).numpy()
    centre = A.offsets.index((0,) * d)
    others = sorted((offset, k) for k, offset in enumerate(A.offsets) if k != centre)
    links = np.array([(k, *padded(offset)) for offset, k in others], dtype=np.int64)
    earlier, periodic = links[: len(links) // 2], (False,) * (3 - d) + A.periodic
    if not island_loops.any_weak(a, centre, earlier, periodic, BOUND):
        return None
    rounding = _ROUNDING * float(torch.finfo(A.dtype).eps)
    parts = []
    for sample in a:
        roots = island_loops.label(sample, centre, earlier, periodic, BOUND)
        parts.append(
            island_loops.select(sample, centre, links, periodic, roots, LARGEST, SLOW, rounding)
        )
    points, sizes, columns, values, lengths, energies = zip(*parts, strict=True)
    if not 0 < sum(map(len, points)) <= CROWDED * A.size * len(a):
        return None
    return Islands(
        _joined(points, A.size).to(A.device),
        _starts(sizes).to(A.device),
        _joined(columns, A.size).to(A.device),
        torch.from_numpy(np.concatenate(values)).to(A.device, dtype),
        _starts(lengths).to(A.device),
        torch.from_numpy(np.concatenate(energies)).reciprocal().to(A.device, dtype),
        A.size * len(a),
    )


def _joined(indices: tuple[np.ndarray, ...], size: int) -> torch.Tensor:
    """Indices into single samples as indices into all of them, one after the other."""
    return torch.from_numpy(np.concatenate([i + s * size for s, i in enumerate(indices)]))


def _starts(lengths: tuple[np.ndarray, ...]) -> torch.Tensor:
    return torch.from_numpy(np.cumsum(np.concatenate([[0], *lengths])).astype(np.int64))
