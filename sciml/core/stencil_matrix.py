"""A sparse matrix read back as the stencil that it is on a tensor grid.

Row i and column j are points of the grid in row-major (C) order; entry a_ij is the coefficient at
i of the offset o = j - i, taken around the grid where it spans it from end to end:

    a_k[i] = a_ij,      j = i + o_k,      o_k in {-1, 0, 1}^d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch

from sciml.core.errors import InputError
from sciml.core.linear import SparseMatrix
from sciml.core.stencil import Stencil, box_offsets, cross_offsets
from sciml.core.transfer import Offset

_ROUNDING = 1e-12  # row sums that small beside the diagonal are zero


def stencil_of(A: SparseMatrix, shape: Sequence[int]) -> Stencil:
    """``A`` as a Stencil on a grid of ``shape``, with A's tags; matrix-free from then on.

    Coefficients that are the same all over the grid are stored once. An axis is periodic where an
    entry couples its two ends. ``nullspace`` is found from the row sums of a symmetric matrix.
    Raises InputError where an entry couples points that are not neighbours.
    """
    shape = _checked(shape, A.size)
    entries = A.matrix.tocoo()
    entries.sum_duplicates()
    entries.eliminate_zeros()
    rows = np.stack(np.unravel_index(entries.row, shape))
    steps = np.stack(np.unravel_index(entries.col, shape)) - rows
    periodic = _unwrap(steps, shape)
    far = np.abs(steps).max(axis=0, initial=0) > 1
    if far.any():
        raise _no_stencil(entries, int(np.argmax(far)), shape)
    dimension = len(shape)
    cross = bool((np.abs(steps).sum(axis=0) <= 1).all())
    offsets = cross_offsets(dimension) if cross else box_offsets(dimension)
    planes = np.zeros((len(offsets), *shape), dtype=entries.data.dtype)
    codes = [_code(np.array(offset)) for offset in offsets]
    place = np.argsort(codes)[np.searchsorted(np.sort(codes), _code(steps))]
    planes[(place, *rows)] = entries.data
    symmetric, definite = A.symmetric, A.definite
    return Stencil(
        _compact(planes, offsets, np.bincount(place, minlength=len(offsets)), periodic),
        offsets,
        periodic=periodic,
        symmetric=symmetric,
        definite=definite,
        nullspace=A.nullspace or (symmetric and _annihilates_constants(A.matrix)),
    )


def _checked(shape: Sequence[int], size: int) -> tuple[int, ...]:
    try:
        given = tuple(int(n) for n in shape)
        whole = all(n == float(m) and n > 0 for n, m in zip(given, shape, strict=True))
    except (TypeError, ValueError):
        whole = False
    if not whole or not 1 <= len(given) <= 3:
        raise InputError(f"shape must be one to three positive integers; got {shape!r}", "shape")
    if math.prod(given) != size:
        raise InputError(
            f"a grid of shape {given} has {math.prod(given)} points; the matrix has {size} rows",
            "shape",
        )
    return given


def _unwrap(steps: np.ndarray, shape: tuple[int, ...]) -> tuple[bool, ...]:
    """Turn steps from end to end into steps across the seam, in place; which axes have them."""
    periodic = []
    for step, n in zip(steps, shape, strict=True):
        around = (np.abs(step) == n - 1) & (n > 2)
        step[around] = -np.sign(step[around])
        periodic.append(bool(around.any()))
    return tuple(periodic)


def _code(offset: np.ndarray) -> np.ndarray:
    """Offsets (d, ...) of -1, 0, 1 as numbers to the base three."""
    code = np.zeros(offset.shape[1:], dtype=np.int64)
    for step in offset:
        code = 3 * code + step + 1
    return code


def _compact(
    planes: np.ndarray, offsets: Sequence[Offset], counts: np.ndarray, periodic: Sequence[bool]
) -> torch.Tensor:
    """The coefficients, expanded from one point where each plane holds one number throughout."""
    shape, values = planes.shape[1:], np.zeros(len(offsets), dtype=planes.dtype)
    for k, (offset, plane, count) in enumerate(zip(offsets, planes, counts, strict=True)):
        inside = math.prod(
            n - (1 if step and not ring else 0)
            for n, step, ring in zip(shape, offset, periodic, strict=True)
        )
        values[k] = plane.flat[np.abs(plane).argmax()]
        if count not in (0, inside) or (count and (plane[plane != 0] != values[k]).any()):
            return torch.from_numpy(planes)
    return torch.from_numpy(values).reshape(-1, *(1,) * len(shape)).expand(planes.shape)


def _annihilates_constants(matrix: scipy.sparse.csr_matrix) -> bool:
    sums = np.abs(matrix @ np.ones(matrix.shape[0]))
    return bool(sums.max(initial=0.0) <= _ROUNDING * np.abs(matrix.diagonal()).max(initial=0.0))


def _no_stencil(entries: scipy.sparse.coo_matrix, which: int, shape: tuple[int, ...]) -> InputError:
    i, j = int(entries.row[which]), int(entries.col[which])
    points = [tuple(int(s) for s in np.unravel_index(k, shape)) for k in (i, j)]
    return InputError(
        f"the matrix is no stencil on a grid of shape {shape}, counted row by row: entry "
        f"({i}, {j}) couples the points {points[0]} and {points[1]}, which are not neighbours",
        "shape",
    )
