"""The kernels for CPU tensors: those of ``loops``, called without a copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numba
import numpy as np
import torch

from sciml.core.algebra.kernels import loops
from sciml.core.algebra.kernels.reference import Operator, StencilOperator
from sciml.core.algebra.kernels.rows import RowShape, row_shape
from sciml.core.algebra.transfer import (
    Transfer,
    coarse_shape,
    galerkin_table,
    interpolation_table,
    mirror_table,
    transfer_offsets,
)


@dataclass(frozen=True, eq=False)
class Packed:
    """Coefficients (batch, plane, z, y, x), axes along which they are constant of length one.

    ``half``: the shape for what need not read all planes of a symmetric stencil; products do, since
    residuals are verified by them.
    """

    coefficients: np.ndarray
    shape: RowShape
    half: RowShape
    centre: int
    ring: tuple[bool, bool, bool]

    @cached_property
    def inverse(self) -> np.ndarray:
        """1 / diagonal, (batch, z, y, x)."""
        inverse: np.ndarray = np.reciprocal(self.coefficients[:, self.centre])
        return inverse


def spread(values: Sequence[Any], fill: Any) -> tuple[Any, Any, Any]:
    """One value for each of the axes z, y, x of the loops; see ``leading`` for those of the set-up.

    A grid of one axis has x, one of two has z and x: threads share the planes along z.
    """
    if len(values) == 1:
        return fill, fill, values[0]
    return values[0], fill if len(values) == 2 else values[1], values[-1]


def leading(values: Sequence[Any], fill: Any) -> tuple[Any, ...]:
    """One value for each of the axes z, y, x of the set-up loops: a plane has y and x."""
    return (fill,) * (3 - len(values)) + tuple(values)


def stored(planes: torch.Tensor, dimension: int, *, keep_last: bool = False) -> torch.Tensor:
    """``(*batch, plane, *shape)`` as contiguous (batch, plane, *shape), copied if need be.

    Expanded (stride-0) axes become of length one, but for the last with ``keep_last``.
    """
    u = planes.detach()
    for axis in range(-dimension, -1 if keep_last else 0):
        if u.stride(axis) == 0 and u.shape[axis] > 1:
            u = u.narrow(axis, 0, 1)
    return u.reshape(-1, *u.shape[-dimension - 1 :]).contiguous()


def packed_weights(P: Transfer) -> np.ndarray:
    """A transfer's weights as (batch, plane, z, y, x), made once and kept with it."""
    weights: np.ndarray | None = vars(P).get("_packed")
    if weights is None:
        planes = stored(P.weights, len(P.factors), keep_last=True)
        weights = planes.reshape(*planes.shape[:2], *spread(planes.shape[2:], 1)).numpy()
        vars(P)["_packed"] = weights
    return weights


def pack(A: StencilOperator) -> Packed:
    """The stencil's packed form, made once and kept with it."""
    packed: Packed | None = vars(A).get("_packed")
    if packed is None:
        planes = stored(A.coefficients, A.dimension)
        coefficients = planes.reshape(*planes.shape[:2], *spread(planes.shape[2:], 1)).numpy()
        offsets = tuple(spread(o, 0) for o in A.offsets)
        shape, half = (
            row_shape(offsets, planes.shape[-1] == 1, symmetric)
            for symmetric in (False, A.symmetric)
        )
        centre = A.offsets.index((0,) * A.dimension)
        packed = Packed(coefficients, shape, half, centre, spread(A.periodic, False))
        vars(A)["_packed"] = packed
    return packed


def field(u: torch.Tensor, dimension: int) -> np.ndarray:
    """A view of u as (batch, z, y, x)."""
    return u.detach().numpy().reshape(-1, *spread(u.shape[u.ndim - dimension :], 1))


@lru_cache(maxsize=1000)
def _order(
    n: int, ring: bool, reverse: bool, pipelined: bool, sweeps: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indices of an axis in the order of their colours, sweep after sweep.

    With them where the phases start, and which indices come for the first time. Pipelined, in one
    phase, an index of the second colour follows its two neighbours at once, and the next sweep
    follows three indices behind: what is relaxed twice is still in the cache.
    """
    last = [n - 1] if ring and n % 2 == 1 and n > 1 else []
    m = n - len(last)
    phases = [list(range(0, m, 2)), list(range(1, m, 2)), last] * sweeps
    if pipelined and ring:
        phases = [(sorted(range(m), key=lambda i: i + 1.5 * (i % 2)) + last) * sweeps]
    elif pipelined:
        visits = [(i + 1.5 * (i % 2) + 3 * s, i) for s in range(sweeps) for i in range(n)]
        phases = [[i for _, i in sorted(visits)]]
    if reverse:
        phases = [phase[::-1] for phase in phases[::-1]]
    order = np.array([i for phase in phases for i in phase])
    fresh = np.zeros(len(order), dtype=bool)
    fresh[np.unique(order, return_index=True)[1]] = True
    return order, np.cumsum([0, *map(len, phases)]), fresh


def threads() -> int:
    """torch's number of threads, which numba is made to follow.

    Starting numba's threads resets OpenMP's count, which is torch's too; it is put back.
    """
    most = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when imported
    wanted: int = min(torch.get_num_threads(), most)
    if wanted > 1 and numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)
        torch.set_num_threads(wanted)
    return wanted


def apply(A: StencilOperator, u: torch.Tensor) -> torch.Tensor:
    """``A u`` for u of shape (*batch, *shape) in A's dtype."""
    u = u.expand(torch.broadcast_shapes(u.shape, (*A.batch, *A.shape))).contiguous()
    out = torch.empty_like(u)
    apply_dot(A, u, out)
    return out


def apply_dot(A: StencilOperator, u: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """``out = A u`` and <u, A u> per sample, in one pass; u (*batch, *shape)."""
    packed, d = pack(A), A.dimension
    sums = _partial_sums(u, d)
    loops.apply_rows(
        threads(),
        u.numel(),
        field(out, d),
        field(u, d),
        packed.coefficients,
        packed.ring,
        sums,
        sums.shape[1],
        variant=packed.shape,
    )
    return _total(sums, u, d)


def step(
    x: torch.Tensor, r: torch.Tensor, p: torch.Tensor, q: torch.Tensor, alpha: torch.Tensor
) -> torch.Tensor:
    """``x += alpha p``, ``r -= alpha q`` in place, alpha per sample; returns <r, r>."""
    d = x.ndim - alpha.ndim
    sums = _partial_sums(x, d)
    loops.step_rows(
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
    loops.scale_rows(
        threads(), u.numel(), _flat(out, d), _flat(u, d), factor.reshape(-1).numpy(), threads()
    )


def inner(r: torch.Tensor, z: torch.Tensor, dimension: int) -> torch.Tensor:
    """<r, z> per sample in float64; the two may differ in precision."""
    sums = _partial_sums(r, dimension)
    loops.inner_rows(
        threads(), r.numel(), _flat(r, dimension), _flat(z, dimension), sums, sums.shape[1]
    )
    return _total(sums, r, dimension)


def turn(p: torch.Tensor, z: torch.Tensor, factor: torch.Tensor, beta: torch.Tensor) -> None:
    """``p = factor z + beta p`` in place, scalars per sample; z may be of lower precision."""
    d = p.ndim - beta.ndim
    scalars = (factor.reshape(-1).numpy(), beta.reshape(-1).numpy())
    loops.turn_rows(threads(), p.numel(), _flat(p, d), _flat(z, d), *scalars, threads())


def _flat(u: torch.Tensor, dimension: int) -> np.ndarray:
    return u.detach().flatten(-dimension).reshape(-1, math.prod(u.shape[-dimension:])).numpy()


def _partial_sums(u: torch.Tensor, dimension: int) -> np.ndarray:
    samples = u.numel() // math.prod(u.shape[-dimension:])
    return np.empty((samples, threads()), dtype=np.complex128 if u.is_complex() else np.float64)


def _total(sums: np.ndarray, u: torch.Tensor, dimension: int) -> torch.Tensor:
    return torch.from_numpy(sums.sum(1)).reshape(u.shape[:-dimension])


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
    packed, slabs, values = pack(A), threads(), field(x, A.dimension)
    samples, nz, ny, _ = values.shape
    planes = _order(nz, packed.ring[0], reverse, samples % slabs == 0, count)
    rows = _order(ny, packed.ring[1], reverse, True)
    loops.sweep_rows(
        slabs,
        x.numel(),
        values,
        field(b, A.dimension),
        packed.coefficients,
        packed.inverse,
        packed.ring,
        reverse,
        from_zero,
        *planes,
        rows[0],
        slabs,
        variant=packed.half,
    )


def restrict_residual(
    A: StencilOperator, P: Transfer, x: torch.Tensor, b: torch.Tensor, out: torch.Tensor
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
        spread(P.factors, 1),
        packed.ring,
        threads(),
        variant=packed.half,
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
        spread(P.factors, 1),
        spread(P.periodic, False),
        threads(),
    )


def interpolate(A: StencilOperator, factors: tuple[int, ...]) -> Transfer:
    """The operator-dependent prolongation of ``sciml.core.algebra.transfer``."""
    d = A.dimension
    offsets = transfer_offsets(factors)
    shape = coarse_shape(A.shape, factors)
    weights = torch.empty((*A.batch, len(offsets), *shape), dtype=A.dtype)
    weights.select(-d - 1, offsets.index((0,) * d)).fill_(1.0)
    rows, starts = interpolation_table(A.offsets, factors)
    loops.interpolate_rows(
        threads(),
        A.size,
        _whole(weights, d),
        _whole(A.coefficients, d),
        rows,
        starts,
        leading(factors, 1),
        leading(A.periodic, False),
    )
    return Transfer(weights, factors, A.periodic, A.shape)


def galerkin(A: Operator, P: Transfer) -> Operator:
    """P^T A P as a box stencil."""
    d = A.dimension
    offsets = transfer_offsets((2,) * d)
    planes = torch.empty((*A.batch, len(offsets), *P.shape), dtype=A.dtype)
    out, periodic = _whole(planes, d), leading(A.periodic, False)
    table = galerkin_table(A.offsets, P.factors, offsets)
    if A.symmetric:
        table = table[table[:, 0] >= len(offsets) // 2]
    loops.galerkin_rows(
        threads(),
        A.size,
        out,
        _whole(A.coefficients, d),
        _whole(P.weights, d),
        table,
        leading(P.factors, 1),
        periodic,
    )
    if A.symmetric:
        loops.mirror_rows(threads(), A.size, out, mirror_table(offsets), periodic)
    return A.like(planes, offsets)


def _whole(planes: torch.Tensor, dimension: int) -> np.ndarray:
    """(batch, plane, z, y, x) with all planes in memory: the set-up loops index every row."""
    u = stored(planes.contiguous(), dimension)
    return u.reshape(*u.shape[:2], *leading(u.shape[2:], 1)).numpy()
