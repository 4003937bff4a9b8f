"""Sparse triangular systems, row by row in the order of the unknowns.

    (P^-1 + T) x = b,      T strictly lower or upper triangular, P diagonal,

solved in place by substitution: x_i = p_i (b_i - sum_k t_ik x_k), i ascending where T is lower,
descending where it is upper. Sequential, in NumPy's memory, compiled by numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse
from numba import njit

from sciml.core.kernels.jit import FAST


@dataclass(frozen=True, eq=False)
class Triangle:
    """A strictly triangular matrix T of n rows, compressed: ``starts`` (n + 1,), ``columns``."""

    starts: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    upper: bool

    def solve(self, pivots: np.ndarray, x: np.ndarray) -> None:
        """``x <- (P^-1 + T)^-1 x`` in place; pivots (n,) the diagonal of P, x (samples, n)."""
        substitute = _backward if self.upper else _forward
        substitute(self.starts, self.columns, self.values, pivots, x)

    def transpose(self) -> Triangle:
        """``T^H``, columns ascending in every row."""
        n = len(self.starts) - 1
        T = scipy.sparse.csr_matrix((self.values, self.columns, self.starts), (n, n))
        H = T.conj().T.tocsr()
        return Triangle(H.indptr, H.indices, H.data, not self.upper)


@dataclass(frozen=True, eq=False)
class Splitting:
    """``A = D + L + U``: diagonal (n,), strictly lower and strictly upper triangle."""

    diagonal: np.ndarray
    lower: Triangle
    upper: Triangle

    @cached_property
    def adjoint(self) -> Splitting:
        """The splitting of ``A^H = D^H + U^H + L^H``."""
        return Splitting(self.diagonal.conj(), self.upper.transpose(), self.lower.transpose())


def split(matrix: scipy.sparse.csr_matrix) -> Splitting:
    """The three parts of a square matrix, columns ascending in every row."""
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    rows = np.repeat(np.arange(matrix.shape[0], dtype=matrix.indices.dtype), np.diff(matrix.indptr))
    below, above = matrix.indices < rows, matrix.indices > rows
    return Splitting(
        matrix.diagonal(), _part(matrix, rows, below, False), _part(matrix, rows, above, True)
    )


def _part(
    matrix: scipy.sparse.csr_matrix, rows: np.ndarray, kept: np.ndarray, upper: bool
) -> Triangle:
    starts = np.zeros_like(matrix.indptr)
    np.cumsum(np.bincount(rows[kept], minlength=matrix.shape[0]), out=starts[1:])
    return Triangle(starts, matrix.indices[kept], matrix.data[kept], upper)


@njit(cache=True, **FAST)
def _forward(starts, columns, values, pivots, x):
    for s in range(x.shape[0]):
        for i in range(x.shape[1]):
            t = x[s, i]
            for k in range(starts[i], starts[i + 1]):
                t -= values[k] * x[s, columns[k]]
            x[s, i] = t * pivots[i]


@njit(cache=True, **FAST)
def _backward(starts, columns, values, pivots, x):
    for s in range(x.shape[0]):
        for i in range(x.shape[1] - 1, -1, -1):
            t = x[s, i]
            for k in range(starts[i], starts[i + 1]):
                t -= values[k] * x[s, columns[k]]
            x[s, i] = t * pivots[i]
