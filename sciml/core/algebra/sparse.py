"""Sparse matrices with one pattern and any batch of values, differentiable in the values.

(A u)_i = sum over the entries e of row i of  values_e u_column(e)
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.saddle import Saddle
from sciml.core.errors import InputError


class PatternMatrix(LinearMap):
    """Compressed rows: ``indptr`` (n + 1,), ``columns`` (nnz,), ``values`` (*batch, nnz).

    ``near_nullspace``: (n, k) vectors that the matrix makes small, such as rigid motions, for
    algebraic multigrid; ``block``: unknowns per node, where they stand together. ``coarse``,
    ``saddle``: see :class:`LinearMap`.
    """

    def __init__(
        self,
        indptr: np.ndarray,
        columns: np.ndarray,
        values: torch.Tensor,
        *,
        symmetric: bool,
        definite: bool,
        nullspace: bool = False,
        near_nullspace: np.ndarray | None = None,
        block: int = 1,
        coarse: scipy.sparse.csr_matrix | None = None,
        saddle: Saddle | None = None,
    ) -> None:
        self.indptr, self.columns, self.values = indptr, columns, values
        self.shape, self.batch = (len(indptr) - 1,), tuple(values.shape[:-1])
        self.dtype, self.device = values.dtype, values.device
        self.symmetric, self.definite, self.nullspace = symmetric, definite, nullspace
        self.near_nullspace, self.block = near_nullspace, block
        self.coarse, self.saddle = coarse, saddle
        self._plain = self.device.type == "cpu" and not values.requires_grad
        self._samples = self._matrices() if self._plain else []
        self._sizes: torch.Tensor | None = None

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u``; u (*batch, n)."""
        if self._plain and not u.requires_grad:
            return self._loop([m.__matmul__ for m in self._samples], u)
        rows, columns = self.places()
        return self._gather(u, rows, columns, self.values)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u``, the conjugate transpose where A is complex; u (*batch, n)."""
        if self._plain and not u.requires_grad:
            conjugate = self.dtype.is_complex
            turned = [(m.conj() if conjugate else m).T for m in self._samples]
            return self._loop([m.__matmul__ for m in turned], u)
        rows, columns = self.places()
        return self._gather(u, columns, rows, self.values.conj())

    def magnitude(self, u: torch.Tensor) -> torch.Tensor:
        """``|A| |u|``; u (*batch, n)."""
        rows, columns = self.places()
        terms = self.values.detach().abs() * u.detach().abs()[..., columns]
        return terms.new_zeros(*terms.shape[:-1], self.size).index_add(-1, rows, terms)

    def row_sizes(self) -> torch.Tensor:
        """The diagonal where definite, else the row sums of |A|; (*batch, n)."""
        if self.symmetric and self.definite:
            if self._sizes is None:
                self._sizes = self.diagonal().detach().abs()
            return self._sizes
        return self.magnitude(torch.ones(self.shape, dtype=self.dtype, device=self.device))

    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (*batch, n)."""
        rows, columns = self.places()
        on = rows == columns
        diagonal = self.values.new_zeros(*self.batch, *self.shape)
        return diagonal.index_add(-1, rows[on], self.values[..., on])

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix; raises InputError for a batch."""
        if self.batch:
            raise InputError(
                f"a batch of {self.batch} matrices is no single SciPy matrix; index it first"
            )
        return self.matrices()[0]

    def matrices(self) -> list[scipy.sparse.csr_matrix]:
        """One SciPy matrix per sample, in row-major order of ``batch``."""
        return self._samples if self._plain else self._matrices()

    def transpose(self) -> PatternMatrix:
        """A^T with a pattern of its own."""
        if self.symmetric:
            return self
        ids = scipy.sparse.csr_matrix(
            (np.arange(len(self.columns)), self.columns, self.indptr), (self.size, self.size)
        ).T.tocsr()
        index = torch.from_numpy(np.asarray(ids.data, dtype=np.int64)).to(self.device)
        return PatternMatrix(
            ids.indptr,
            ids.indices,
            self.values[..., index],
            symmetric=False,
            definite=False,
            nullspace=False,
            block=self.block,
            coarse=self.coarse,
            saddle=None if self.saddle is None else self.saddle.transpose(),
        )

    def plus(self, other: PatternMatrix, share: float = 1.0) -> PatternMatrix:
        """A + share B of a B that has the same pattern and, with share > 0, is semidefinite."""
        return PatternMatrix(
            self.indptr,
            self.columns,
            self.values + share * other.values,
            symmetric=self.symmetric and other.symmetric,
            definite=other.definite and (self.definite or self.nullspace),
            near_nullspace=self.near_nullspace,
            block=self.block,
            coarse=self.coarse,
            saddle=None
            if self.saddle is None
            else self.saddle.with_mass(lambda: share * other.diagonal().detach().numpy()),
        )

    def scaled(self, share: float) -> PatternMatrix:
        """share A, share > 0."""
        return PatternMatrix(
            self.indptr,
            self.columns,
            share * self.values,
            symmetric=self.symmetric,
            definite=self.definite,
            nullspace=self.nullspace,
            near_nullspace=self.near_nullspace,
            block=self.block,
            coarse=self.coarse,
            saddle=self.saddle,
        )

    def detach(self) -> PatternMatrix:
        """The same matrix without a graph for gradients."""
        return self.like(self.values.detach()) if self.requires_grad else self

    def like(self, values: torch.Tensor) -> PatternMatrix:
        """A matrix of the same pattern and tags with other values (*batch, nnz)."""
        return PatternMatrix(
            self.indptr,
            self.columns,
            values,
            symmetric=self.symmetric,
            definite=self.definite,
            nullspace=self.nullspace,
            near_nullspace=self.near_nullspace,
            block=self.block,
            coarse=self.coarse,
            saddle=self.saddle,
        )

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted with respect to the values."""
        return self.values.requires_grad

    def _matrices(self) -> list[scipy.sparse.csr_matrix]:
        flat = self.values.detach().cpu().reshape(-1, len(self.columns)).numpy()
        shape = (self.size, self.size)
        return [scipy.sparse.csr_matrix((v, self.columns, self.indptr), shape) for v in flat]

    def places(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The row and the column of every entry, (nnz,) int64 each."""
        rows = np.repeat(np.arange(self.size), np.diff(self.indptr))
        pair = (torch.from_numpy(np.asarray(i, dtype=np.int64)) for i in (rows, self.columns))
        first, second = (i.to(self.device) for i in pair)
        return first, second

    def _gather(
        self, u: torch.Tensor, to: torch.Tensor, source: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        terms = values * u[..., source]
        return terms.new_zeros(*terms.shape[:-1], self.size).index_add(-1, to, terms)

    def _loop(self, products: list[scipy.sparse.csr_matrix], u: torch.Tensor) -> torch.Tensor:
        if not self.batch:
            flat = u.detach().reshape(-1, self.size).numpy()
            result = products[0](flat[0]) if len(flat) == 1 else products[0](flat.T).T
            return torch.from_numpy(np.ascontiguousarray(result)).reshape(u.shape)
        full = torch.broadcast_shapes(u.shape, (*self.batch, *self.shape))
        rows = u.detach().expand(full).reshape(-1, self.size).numpy()
        which = np.arange(len(products)).reshape(self.batch)
        samples = np.broadcast_to(which, full[:-1]).ravel()
        images = [products[k](row) for k, row in zip(samples, rows, strict=True)]
        return torch.from_numpy(np.stack(images)).reshape(full)
