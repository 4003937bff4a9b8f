"""Linear maps with leading batch dimensions, and linear systems made of them.

A map acts on arrays ``(*batch, *shape)``; a solver looks only at ``apply`` and the tags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.saddle import Saddle
from sciml.core.errors import InputError

if TYPE_CHECKING:
    from sciml.core.problem.grid import Grid
    from sciml.core.problem.mesh import Mesh
    from sciml.core.problem.problem import Problem


class LinearMap(ABC):
    """A linear operator from arrays ``(*batch, *shape)`` to arrays of the same shape.

    Tags: ``symmetric`` (A = A^T, of complex maps too); ``hermitian`` (A = A^H, of complex maps);
    ``definite`` (self-adjoint and positive definite, or semidefinite with ``nullspace``);
    ``nullspace`` (True where the map is singular and its kernel is known: the constants, or
    what ``kernel`` spans, orthonormal rows (k, *shape)); ``linear`` (False for a learned or
    truncated map that is not linear: Krylov methods then need a flexible variant); ``trusted``
    (False where weights or foreign code decide what the map is: a Krylov method then probes the
    other tags, and a flexible one falls back from the map where it fails).
    """

    shape: tuple[int, ...]
    batch: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    symmetric: bool
    definite: bool
    nullspace: bool
    hermitian: bool = False
    kernel: torch.Tensor | None = None
    linear: bool = True
    trusted: bool = True
    # (n, k) vectors that the map makes small, such as rigid motions, and unknowns per node: what
    # algebraic multigrid can use; (n, m) what a subspace of lower degree gives, one entry of 1 in a
    # row of its own for each of its m functions, on which the coarse levels are then built.
    near_nullspace: np.ndarray | None = None
    block: int = 1
    coarse: scipy.sparse.csr_matrix | None = None
    # How the unknowns of a saddle point fall apart.
    saddle: Saddle | None = None

    @abstractmethod
    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u`` for ``u`` of shape (*batch, *shape), in ``u``'s dtype or better."""

    def apply_into(self, u: torch.Tensor, out: torch.Tensor) -> None:
        """``out = A u``; maps that can do so without allocating say so by their own version."""
        out.copy_(self.apply(u))

    def apply_scaled(
        self, u: torch.Tensor, norms: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``A u = factor v`` as (v, factor per sample), given the norms of u.

        v may be of lower precision than u, and is overwritten by the next call.
        """
        return self.apply(u), torch.ones_like(norms)

    def first_guess(self, b: torch.Tensor) -> torch.Tensor | None:
        """Of an approximate inverse: a guess at the solution, closer to it than one application.

        ``b``: the right-hand side. None where the map has no such guess.
        """
        return None

    def magnitude(self, u: torch.Tensor) -> torch.Tensor | None:
        """``|A| |u|``, entry by entry: what rounding errors of ``A u`` are shares of.

        u (*batch, *shape). None where the map does not know its entries.
        """
        return None

    def row_sizes(self) -> torch.Tensor | None:
        """How large each row is, to be broadcast to (*batch, *shape): what rows are scaled by.

        The diagonal of a definite map, which no entry exceeds; else the row sums of |A|. None where
        the map does not know its entries.
        """
        return None

    @property
    def work_units(self) -> float | None:
        """Of an approximate inverse: the cost of one application, in those of what it inverts.

        None where the map does not count it.
        """
        return None

    @property
    def first_guess_units(self) -> float:
        """What ``first_guess`` costs, in the same unit."""
        return 0.0

    @abstractmethod
    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u`` (``A^H u`` where complex), such that <A u, v> = <u, A^T v> over ``shape``."""

    @abstractmethod
    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (*batch, *shape)."""

    @abstractmethod
    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix in row-major (C) order of ``shape``; raises InputError for a batch."""

    @property
    def self_adjoint(self) -> bool:
        """A = A^H: symmetric where real, Hermitian where complex."""
        return self.hermitian if self.dtype.is_complex else self.symmetric

    def transpose(self) -> LinearMap:
        """The adjoint as a map of its own; for a symmetric one, the map itself."""
        if self.symmetric:
            return self
        raise InputError(
            f"a gradient through a nonsymmetric {type(self).__name__} needs its transpose"
        )

    def detach(self) -> LinearMap:
        """The same map without a graph for gradients."""
        return self

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted with respect to the map itself."""
        return False

    @property
    def size(self) -> int:
        """Unknowns per sample."""
        return int(np.prod(self.shape))


class SparseMatrix(LinearMap):
    """A SciPy sparse matrix as a LinearMap on vectors of shape (n,); any batch leads.

    ``matrix`` is a copy, sorted and summed, that nobody writes to: what is set up for it stays
    true. ``symmetric`` is found by comparing with the transpose unless given, each entry beside
    sqrt(|a_ii a_jj|), and so is ``hermitian`` of a complex one; ``definite`` is taken from the
    user, or guessed from these, a positive diagonal and |a_ij|^2 <= a_ii a_jj. ``near_nullspace``:
    (n, k) vectors that the matrix makes small; ``block``: unknowns per node, where they stand
    together; ``coarse``: see :class:`LinearMap`. ``nullspace``: True where constants are in the
    kernel, or the vector (n,) or the vectors (n, k) that span it. Raises InputError for one that
    the matrix does not annihilate.
    """

    def __init__(
        self,
        matrix: scipy.sparse.spmatrix | scipy.sparse.sparray | np.ndarray,
        *,
        symmetric: bool | None = None,
        hermitian: bool | None = None,
        definite: bool | None = None,
        nullspace: bool | np.ndarray = False,
        near_nullspace: np.ndarray | None = None,
        block: int = 1,
        coarse: scipy.sparse.csr_matrix | None = None,
    ) -> None:
        try:
            csr = scipy.sparse.csr_matrix(matrix, copy=True)
        except (TypeError, ValueError) as error:
            raise InputError(f"the matrix must hold numbers: {error}") from error
        if csr.shape[0] != csr.shape[1]:
            raise InputError(f"the matrix must be square; got {csr.shape[0]} x {csr.shape[1]}")
        if csr.shape[0] == 0:
            raise InputError("the matrix has no rows")
        if csr.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
            csr = csr.astype(np.complex128 if csr.dtype.kind == "c" else np.float64)
        if not np.isfinite(csr.data).all():
            raise InputError("the matrix holds a NaN or an infinity; look for one in its entries")
        csr.sum_duplicates()
        for stored in (csr.data, csr.indices, csr.indptr):
            stored.flags.writeable = False
        self.matrix = csr
        self.shape, self.batch = (csr.shape[0],), ()
        self.dtype = torch.from_numpy(self.matrix.data[:0].copy()).dtype
        self.device = torch.device("cpu")
        self.symmetric = _agree(csr, csr.T) if symmetric is None else symmetric
        if self.dtype.is_complex:
            self.hermitian = _agree(csr, csr.conj().T) if hermitian is None else hermitian
        guessed = self.self_adjoint and _may_be_definite(csr)
        self.definite = guessed if definite is None else definite
        self.nullspace = nullspace is not False
        self.near_nullspace, self.block, self.coarse = near_nullspace, block, coarse
        if not isinstance(nullspace, bool):
            self.kernel = _spanning(nullspace, csr)
            if near_nullspace is None and not self.kernel.is_complex():
                self.near_nullspace = self.kernel.numpy().T.copy()

    def _times(self, matrix: scipy.sparse.csr_matrix, u: torch.Tensor) -> torch.Tensor:
        flat = u.detach().reshape(-1, self.size).numpy()
        return torch.from_numpy(np.ascontiguousarray((matrix @ flat.T).T)).reshape(u.shape)

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u``; u of shape (*batch, n)."""
        return self._times(self.matrix, u)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u``, the conjugate transpose where A is complex."""
        return self._times(self.matrix.conj().T.tocsr(), u)

    def magnitude(self, u: torch.Tensor) -> torch.Tensor:
        """``|A| |u|``; u of shape (*batch, n)."""
        return self._times(abs(self.matrix), u.abs())

    def row_sizes(self) -> torch.Tensor:
        """The diagonal where definite, else the row sums of |A|; (n,)."""
        if self.self_adjoint and self.definite:
            return self.diagonal().abs()
        return self.magnitude(torch.ones(self.shape, dtype=torch.float64))

    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (n,)."""
        return torch.from_numpy(np.ascontiguousarray(self.matrix.diagonal()))

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix itself."""
        return self.matrix


_KERNEL = 1e-10  # of |A| |v|: A v beside it is rounding


def _spanning(given: Any, matrix: scipy.sparse.csr_matrix) -> torch.Tensor:
    """Orthonormal rows (k, n) for the vectors (n,) or (n, k) of a kernel."""
    key, n = "nullspace", matrix.shape[0]
    try:
        vectors = np.array(given, dtype=np.complex128 if np.iscomplexobj(given) else np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("nullspace holds vectors of numbers", key) from error
    vectors = vectors.reshape(-1, 1) if vectors.ndim == 1 else vectors
    if np.iscomplexobj(vectors) and not np.iscomplexobj(matrix):
        # A real matrix annihilates both parts; one of them may be nothing.
        parts = np.concatenate([vectors.real, vectors.imag], axis=-1)
        vectors = parts[..., np.abs(parts).max(0) > 0] if parts.ndim == 2 else parts
    if vectors.ndim != 2 or len(vectors) != n or not 1 <= vectors.shape[1] <= n:
        raise InputError(
            f"nullspace holds vectors as columns, ({n},) or ({n}, k); got shape {vectors.shape}",
            key,
        )
    lengths = np.linalg.norm(vectors, axis=0)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise InputError("the vectors of a nullspace are finite, and none is zero", key)
    vectors = vectors / lengths
    left, right = np.abs(matrix @ vectors).max(0), (abs(matrix) @ np.abs(vectors)).max(0)
    wrong = np.flatnonzero(left > _KERNEL * right)
    if len(wrong):
        share = left[wrong[0]] / right[wrong[0]]
        raise InputError(
            f"column {wrong[0]} of nullspace is not in the kernel: A v is {share:.1e} of |A| |v|",
            key,
        )
    basis, values, _ = np.linalg.svd(vectors, full_matrices=False)
    kept = basis[:, values > 1e-8 * values[0]]
    return torch.from_numpy(np.ascontiguousarray(kept.T))


def without_kernel(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    """Subtract from u (*batch, *shape) in place what lies in the kernel of a singular A."""
    dimension = len(A.shape)
    if A.kernel is None:
        return u.sub_(u.mean(tuple(range(-dimension, 0)), keepdim=True))
    flat, rows = u.flatten(-dimension), A.kernel.flatten(1).to(u.device)
    rows = rows.to(torch.promote_types(rows.dtype, u.dtype))
    share = (flat.to(rows.dtype) @ rows.mH) @ rows
    return u.sub_(
        share.reshape(u.shape).to(u.dtype) if u.is_complex() else share.real.reshape(u.shape)
    )


_ASYMMETRY = 1e-12  # of an entry beside sqrt(|a_ii a_jj|): rounding


def _beside_diagonal(
    matrix: scipy.sparse.csr_matrix, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """sqrt(|a_ii a_jj|) for the places (rows, columns)."""
    root = np.sqrt(np.abs(matrix.diagonal()).astype(np.float64))
    return np.asarray(root[rows] * root[columns])


def _agree(matrix: scipy.sparse.csr_matrix, mirrored: scipy.sparse.spmatrix) -> bool:
    """Whether the matrix is what it is mirrored at its diagonal, up to rounding."""
    gap = (matrix - mirrored).tocoo()
    found = np.abs(gap.data) > _ASYMMETRY * _beside_diagonal(matrix, gap.row, gap.col)
    if not found.any():
        return True
    # Beside a zero on the diagonal an entry is compared with itself.
    gaps, rows, columns = np.abs(gap.data[found]), gap.row[found], gap.col[found]
    sizes = np.abs(np.asarray(matrix[rows, columns]).ravel())
    return bool((gaps <= _ASYMMETRY * sizes).all())


def _may_be_definite(matrix: scipy.sparse.csr_matrix) -> bool:
    """Whether no diagonal entry and no minor of two rows says otherwise."""
    if not (matrix.diagonal().real > 0).all():
        return False
    entries = matrix.tocoo()
    largest = (1 + _ASYMMETRY) * _beside_diagonal(matrix, entries.row, entries.col)
    return bool((np.abs(entries.data) <= largest).all())


@dataclass(frozen=True)
class LinearSystem:
    """``A x = b`` with what is needed to turn ``x`` back into a field.

    ``b``: (*batch, *A.shape) float64. ``lift`` maps the unknowns to the value on ``on`` (adding
    the boundary values known beforehand); ``restrict`` is its left inverse. ``notes``: one-line
    remarks of the discretisation, printed by the command line. ``defect``: for a singular
    system, what was subtracted per sample to make the data compatible, relative to the source.
    ``fields``: the names of the value's fields. ``problem``: what was discretised, None for a bare
    matrix. ``measure``: where the solution is free up to a constant, the volume that belongs to
    each entry of the value, over which its integral is then zero; None elsewhere.
    """

    A: LinearMap
    b: torch.Tensor
    on: Grid | Mesh | None = None
    lift: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    restrict: Callable[[torch.Tensor], torch.Tensor] = lambda value: value
    notes: tuple[str, ...] = ()
    defect: torch.Tensor | None = None
    fields: tuple[str, ...] = ("u",)
    problem: Problem | None = None
    measure: torch.Tensor | None = None

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The value on ``on`` for unknowns ``x``, of zero integral where a constant is free."""
        value = self.lift(x)
        if self.measure is None:
            return value
        return value - free_mean(value, self.measure, self.measure.ndim)


def free_mean(value: torch.Tensor, measure: torch.Tensor, dimension: int) -> torch.Tensor:
    """The mean of ``value`` over its last ``dimension`` axes, kept with size 1.

    Weighted by ``measure``, which broadcasts against the value; NaN does not count. Zero where the
    weights are zero: a field whose constant is not free.
    """
    weights = torch.where(torch.isfinite(value), measure.to(value), 0.0)
    dims = tuple(range(-dimension, 0))
    total = weights.sum(dims, keepdim=True)
    sums = (weights * torch.where(torch.isfinite(value), value, 0.0)).sum(dims, keepdim=True)
    return torch.where(total > 0, sums / torch.where(total > 0, total, 1.0), 0.0)
