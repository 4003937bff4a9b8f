"""The kernels for CPU tensors: those of ``loops``, called without a copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch

from sciml.core.kernels import loops, setup_loops, vector_loops
from sciml.core.stencil import Stencil, box_offsets
from sciml.core.transfer import (
    Transfer,
    coarse_shape,
    galerkin_table,
    interpolation_table,
    mirror_table,
    transfer_offsets,
)


@dataclass(frozen=True, eq=False)
class Packed:
    """Coefficients as ``(batch, plane, z, y, x)``, axes along which they are constant of length 1.

    ``rows``: (groups, 5) = (dz, dy, plane at x-1, plane at x, plane at x+1), -1 for none, the
    group of the row itself first.
    """

    coefficients: np.ndarray
    rows: np.ndarray
    periodic: tuple[bool, bool, bool]

    @cached_property
    def inverse_diagonal(self) -> np.ndarray:
        """1 / diagonal, (batch, z, y, x)."""
        return np.reciprocal(self.coefficients[:, self.rows[0, 3]])


def packed_weights(P: Transfer) -> np.ndarray:
    """A transfer's weights in canonical form, made once and kept with it."""
    weights = P.__dict__.get("_packed")
    if weights is None:
        weights = canonical(P.weights, len(P.factors), keep_last=True)
        P.__dict__["_packed"] = weights
    return weights


def canonical(planes: torch.Tensor, dimension: int, *, keep_last: bool = False) -> np.ndarray:
    """``(*batch, plane, *shape)`` as a contiguous (batch, plane, z, y, x) array, copied if need be.

    Expanded (stride-0) axes become of length one, but for the last with ``keep_last``.
    """
    u = planes.detach()
    for axis in range(-dimension, -1 if keep_last else 0):
        if u.stride(axis) == 0 and u.shape[axis] > 1:
            u = u.narrow(axis, 0, 1)
    spatial = u.shape[-dimension:]
    u = u.reshape(-1, u.shape[-dimension - 1], *(1,) * (3 - dimension), *spatial)
    return u.contiguous().numpy()


def pack(A: Stencil) -> Packed:
    """The stencil's packed form, made once and kept with it."""
    packed = A.__dict__.get("_packed")
    if packed is None:
        packed = Packed(
            canonical(A.coefficients, A.dimension), _row_groups(A), _three(A.periodic, False)
        )
        A.__dict__["_packed"] = packed
    return packed


def _three(values, fill):
    return (fill,) * (3 - len(values)) + tuple(values)


def _row_groups(A: Stencil) -> np.ndarray:
    groups: dict[tuple[int, ...], list[int]] = {(0, 0): [-1, -1, -1]}
    for plane, offset in enumerate(A.offsets):
        dz, dy, dx = _three(offset, 0)
        groups.setdefault((dz, dy), [-1, -1, -1])[dx + 1] = plane
    return np.array([(*key, *planes) for key, planes in groups.items()], dtype=np.int64)


def field(u: torch.Tensor, dimension: int) -> np.ndarray:
    """A view of u as (batch, z, y, x)."""
    return u.detach().numpy().reshape(-1, *(1,) * (3 - dimension), *u.shape[u.ndim - dimension :])


def threads() -> int:
    """torch's number of threads, which numba is made to follow.

    Starting numba's threads resets OpenMP's count, which is torch's too; it is put back.
    """
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when imported
    wanted = min(torch.get_num_threads(), most)
    if wanted > 1 and numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)
        torch.set_num_threads(wanted)
    return wanted


def apply(A: Stencil, u: torch.Tensor) -> torch.Tensor:
    """``A u`` for u of shape (*batch, *shape) in A's dtype."""
    packed = pack(A)
    u = u.contiguous()
    u = u.expand(torch.broadcast_shapes(u.shape, (*A.batch, *A.shape))).contiguous()
    out = torch.empty_like(u)
    loops.apply_rows(
        threads(),
        u.numel(),
        field(out, A.dimension),
        field(u, A.dimension),
        packed.coefficients,
        packed.rows,
        packed.periodic,
    )
    return out


def apply_dot(A: Stencil, u: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out = A u`` and <u, A u> per sample, in one pass; u (*batch, *shape)."""
    packed, d = pack(A), A.dimension
    sums = _partial_sums(u, d)
    loops.apply_dot_rows(
        threads(),
        u.numel(),
        field(out, d),
        field(u, d),
        packed.coefficients,
        packed.rows,
        packed.periodic,
        sums,
        sums.shape[1],
    )
    return _total(sums, u, d)


def step(
    x: torch.Tensor, r: torch.Tensor, p: torch.Tensor, q: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """``x += alpha p``, ``r -= alpha q`` in place, alpha per sample; returns <r, r>."""
    d = x.ndim - alpha.ndim
    sums = _partial_sums(x, d)
    vector_loops.step_rows(
        threads(),
        x.numel(),
        *(_flat(u, d) for u in (x, r, p, q)),
        alpha.reshape(-1).numpy(),
        sums,
        sums.shape[1],
    )
    return _total(sums, x, d)


def scale(u: torch.Tensor, factor: torch.Tensor, out: torch.Tensor) -> None:
    """``out = factor u``, factor per sample; the two may differ in precision."""
    d = u.ndim - factor.ndim
    vector_loops.scale_rows(
        threads(), u.numel(), _flat(out, d), _flat(u, d), factor.reshape(-1).numpy(), threads()
    )


def _flat(u: torch.Tensor, dimension: int) -> np.ndarray:
    return u.detach().flatten(-dimension).reshape(-1, math.prod(u.shape[-dimension:])).numpy()


def _partial_sums(u: torch.Tensor, dimension: int) -> np.ndarray:
    samples = u.numel() // math.prod(u.shape[-dimension:])
    return np.empty((samples, threads()))


def _total(sums: np.ndarray, u: torch.Tensor, dimension: int) -> torch.Tensor:
    return torch.from_numpy(sums.sum(1)).reshape(u.shape[:-dimension])


def sweep(A: Stencil, x: torch.Tensor, b: torch.Tensor, *, reverse: bool, from_zero: bool) -> None:
    """One coloured Gauss-Seidel sweep on x in place; ``reverse`` orders it as its adjoint."""
    packed = pack(A)
    loops.sweep_rows(
        threads(),
        x.numel(),
        field(x, A.dimension),
        field(b, A.dimension),
        packed.coefficients,
        packed.inverse_diagonal,
        packed.rows,
        packed.periodic,
        reverse,
        from_zero,
        threads(),
    )


def restrict_residual(
    A: Stencil, P: Transfer, x: torch.Tensor, b: torch.Tensor, out: torch.Tensor
) -> None:
    """out = P^T (b - A x)."""
    packed, d = pack(A), A.dimension
    loops.restrict_rows(
        threads(),
        x.numel(),
        field(out, d),
        field(x, d),
        field(b, d),
        packed.coefficients,
        packed_weights(P),
        packed.rows,
        _three(P.factors, 1),
        packed.periodic,
        threads(),
    )


def prolong_add(P: Transfer, x: torch.Tensor, coarse: torch.Tensor) -> None:
    """x += P coarse."""
    d = len(P.factors)
    loops.prolong_rows(
        threads(),
        x.numel(),
        field(x, d),
        field(coarse, d),
        packed_weights(P),
        _three(P.factors, 1),
        _three(P.periodic, False),
    )


def interpolate(A: Stencil, factors: tuple[int, ...]) -> Transfer:
    """The operator-dependent prolongation of ``sciml.core.transfer``."""
    d = A.dimension
    offsets = transfer_offsets(factors)
    shape = coarse_shape(A.shape, factors)
    weights = torch.empty((*A.batch, len(offsets), *shape), dtype=A.dtype)
    weights.select(-d - 1, offsets.index((0,) * d)).fill_(1.0)
    rows, starts = interpolation_table(A.offsets, factors)
    setup_loops.interpolate_rows(
        threads(),
        A.size,
        canonical(weights, d),
        _full(A),
        rows,
        starts,
        _three(factors, 1),
        _three(A.periodic, False),
    )
    return Transfer(weights, factors, A.periodic, A.shape)


def galerkin(A: Stencil, P: Transfer) -> Stencil:
    """P^T A P as a box stencil."""
    d = A.dimension
    offsets = box_offsets(d)
    planes = torch.empty((*A.batch, len(offsets), *P.shape), dtype=A.dtype)
    out, periodic = canonical(planes, d), _three(A.periodic, False)
    table = galerkin_table(A.offsets, P.factors, offsets)
    if A.symmetric:
        table = table[table[:, 0] >= len(offsets) // 2]
    setup_loops.galerkin_rows(
        threads(),
        A.size,
        out,
        _full(A),
        canonical(P.weights, d),
        table,
        _three(P.factors, 1),
        periodic,
    )
    if A.symmetric:
        setup_loops.mirror_rows(threads(), A.size, out, mirror_table(offsets), periodic)
    return Stencil(
        planes,
        offsets,
        periodic=A.periodic,
        symmetric=A.symmetric,
        definite=A.definite,
        nullspace=A.nullspace,
    )


def _full(A: Stencil) -> np.ndarray:
    """All coefficients in memory: the set-up loops index every row."""
    return canonical(A.coefficients.contiguous(), A.dimension)
