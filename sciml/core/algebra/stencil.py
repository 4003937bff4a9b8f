"""Matrix-free stencils on tensor grids.

    (A u)[i] = sum_k a_k[i] u[i + o_k],      o_k the k-th offset,

where entries that point outside the array count as zero, or wrap on periodic axes. Constant
coefficients are stored once: ``coefficients`` is then an expanded (stride-0) tensor.

A sparse matrix is read back as the stencil that it is on a tensor grid (``stencil_of``).
Row i and column j are points of the grid in row-major (C) order; entry a_ij is the coefficient at
i of the offset o = j - i, taken around the grid where it spans it from end to end:

    a_k[i] = a_ij,      j = i + o_k,      o_k in {-1, 0, 1}^d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra import kernels
from sciml.core.algebra.kernels.reference import shifted
from sciml.core.algebra.maps import LinearMap, SparseMatrix
from sciml.core.algebra.transfer import Offset
from sciml.core.errors import InputError


def cross_offsets(dimension: int) -> tuple[Offset, ...]:
    """The 2 d + 1 offsets of the cross: the centre, then minus and plus along each axis."""
    centre = (0,) * dimension
    arms = [
        tuple(s if a == axis else 0 for a in range(dimension))
        for axis in range(dimension)
        for s in (-1, 1)
    ]
    return (centre, *arms)


def box_offsets(dimension: int) -> tuple[Offset, ...]:
    """The 3^d offsets of the box, in row-major order."""
    return tuple(product((-1, 0, 1), repeat=dimension))


class Stencil(LinearMap):
    """A stencil with coefficients ``(*batch, len(offsets), *shape)`` on a tensor grid.

    ``offsets``: d-tuples of -1, 0, 1, the centre among them. ``periodic``: per axis.
    """

    def __init__(
        self,
        coefficients: torch.Tensor,
        offsets: Sequence[Offset],
        *,
        periodic: Sequence[bool] | None = None,
        symmetric: bool = False,
        definite: bool = False,
        nullspace: bool = False,
        hermitian: bool = False,
    ) -> None:
        self.coefficients = coefficients
        self.offsets = tuple(tuple(o) for o in offsets)
        dimension = len(self.offsets[0])
        self.shape = tuple(coefficients.shape[-dimension:])
        self.batch = tuple(coefficients.shape[: -dimension - 1])
        self.periodic = tuple(periodic) if periodic is not None else (False,) * dimension
        self.dtype, self.device = coefficients.dtype, coefficients.device
        self.symmetric, self.definite, self.nullspace = symmetric, definite, nullspace
        self.hermitian = hermitian
        if coefficients.shape[-dimension - 1] != len(self.offsets):
            raise InputError(
                f"{coefficients.shape[-dimension - 1]} coefficient planes for "
                f"{len(self.offsets)} offsets"
            )

    @property
    def dimension(self) -> int:
        """Number of grid axes."""
        return len(self.shape)

    def entry(self, offset: Offset) -> torch.Tensor:
        """The coefficient plane of one offset, shape (*batch, *shape)."""
        return self.coefficients.select(-self.dimension - 1, self.offsets.index(offset))

    def to(self, dtype: torch.dtype) -> Stencil:
        """The same stencil with coefficients in another dtype, constant axes still expanded."""
        if dtype == self.dtype:
            return self
        return self.like(self._stored().to(dtype).expand(self.coefficients.shape))

    def detach(self) -> Stencil:
        """The same stencil without a graph."""
        return self.like(self.coefficients.detach()) if self.requires_grad else self

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted with respect to the coefficients."""
        return self.coefficients.requires_grad

    def like(self, coefficients: torch.Tensor, offsets: Sequence[Offset] | None = None) -> Stencil:
        """A stencil with the same tags and other coefficients, of these offsets or the same."""
        return Stencil(
            coefficients,
            self.offsets if offsets is None else offsets,
            periodic=self.periodic,
            symmetric=self.symmetric,
            definite=self.definite,
            nullspace=self.nullspace,
            hermitian=self.hermitian,
        )

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u`` for u of shape (*batch, *shape)."""
        # A gradient may be wanted with respect to A as well as to u; a complex A wants complex u.
        decisive = self.coefficients if self.coefficients.requires_grad else u
        if self.dtype.is_complex and not u.is_complex():
            u = u.to(self.dtype)
        return kernels.of(decisive).apply(self, u)

    def transpose(self) -> Stencil:
        """The transpose as a stencil, not conjugated: a^T_k[i] = a_{-k}[i + o_k]."""
        planes = []
        for offset in self.offsets:
            mirror = tuple(-s for s in offset)
            planes.append(shifted(self.entry(mirror), offset, self.periodic))
        return self.like(torch.stack(planes, dim=-self.dimension - 1))

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u``, the conjugate transpose ``A^H u`` where A is complex."""
        if self.dtype.is_complex:
            return self.transpose().apply(u.conj().resolve_conj()).conj().resolve_conj()
        return self.apply(u) if self.symmetric else self.transpose().apply(u)

    def magnitude(self, u: torch.Tensor) -> torch.Tensor:
        """``|A| |u|``; u (*batch, *shape)."""
        sizes = self._stored().detach().abs().expand(self.coefficients.shape)
        absolute = Stencil(sizes, self.offsets, periodic=self.periodic)
        return absolute.apply(u.detach().abs())

    def row_sizes(self) -> torch.Tensor:
        """The diagonal where definite, else the sums of |a_k|; an axis of 1 where all are equal."""
        planes = self._stored().detach()
        if self.self_adjoint and self.definite:
            centre = self.offsets.index((0,) * self.dimension)
            return planes.select(-self.dimension - 1, centre).abs()
        return planes.abs().sum(-self.dimension - 1)

    def _stored(self) -> torch.Tensor:
        """The coefficients, with an axis of 1 where they are the same along it."""
        stored = self.coefficients
        for axis in range(-self.dimension, 0):
            if stored.stride(axis) == 0:
                stored = stored.narrow(axis, 0, 1)
        return stored

    def diagonal(self) -> torch.Tensor:
        """The centre plane, shape (*batch, *shape)."""
        return self.entry((0,) * self.dimension)

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix in row-major order of ``shape``; raises InputError for a batch."""
        if self.batch:
            raise InputError(
                f"a batch of {self.batch} systems is no single SciPy matrix; index it first"
            )
        index = np.arange(self.size).reshape(self.shape)
        rows, columns, values = [], [], []
        for k, offset in enumerate(self.offsets):
            inside = np.ones(self.shape, dtype=bool)
            for axis, step in enumerate(offset):
                if step and not self.periodic[axis]:
                    edge = [slice(None)] * self.dimension
                    edge[axis] = slice(-1, None) if step > 0 else slice(0, 1)
                    inside[tuple(edge)] = False
            neighbour = np.roll(index, [-s for s in offset], axis=tuple(range(self.dimension)))
            rows.append(index[inside])
            columns.append(neighbour[inside])
            values.append(self.coefficients[k].cpu().numpy()[inside])
        triplet = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        matrix = scipy.sparse.csr_matrix(triplet, shape=(self.size, self.size))
        matrix.eliminate_zeros()
        return matrix


_ROUNDING = 64 * 2.0**-52  # row sums that small beside those of the absolute values are zero


def stencil_of(A: SparseMatrix, shape: Sequence[int]) -> Stencil:
    """``A`` as a Stencil on a grid of ``shape``, with A's tags; matrix-free from then on.

    Coefficients that are the same all over the grid are stored once. An axis is periodic where an
    entry couples its two ends. ``nullspace`` is found from the row sums of a symmetric matrix.
    Raises InputError where an entry couples points that are not neighbours.
    """
    shape = _checked(shape, A.size)
    if A.kernel is not None:
        raise InputError(
            "on a grid a nullspace is that of constants: say nullspace=True", "nullspace"
        )
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
    return Stencil(
        _compact(planes, offsets, np.bincount(place, minlength=len(offsets)), periodic),
        offsets,
        periodic=periodic,
        symmetric=A.symmetric,
        definite=A.definite,
        nullspace=A.nullspace or (A.self_adjoint and _annihilates_constants(A.matrix)),
        hermitian=A.hermitian,
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
    one = np.ones(matrix.shape[0])
    return bool((np.abs(matrix @ one) <= _ROUNDING * (abs(matrix) @ one)).all())


def _no_stencil(entries: scipy.sparse.coo_matrix, which: int, shape: tuple[int, ...]) -> InputError:
    i, j = int(entries.row[which]), int(entries.col[which])
    points = [tuple(int(s) for s in np.unravel_index(k, shape)) for k in (i, j)]
    return InputError(
        f"the matrix is no stencil on a grid of shape {shape}, counted row by row: entry "
        f"({i}, {j}) couples the points {points[0]} and {points[1]}, which are not neighbours",
        "shape",
    )
