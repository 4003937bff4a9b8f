"""Incomplete factorisations of sparse matrices as preconditioners.

IC(0): A + alpha diag(A) ~ C C^T with C lower triangular on the pattern of A's lower triangle,

    c_ij = (a_ij - sum_{k<j} c_ik c_jk) / c_jj,      c_ii^2 = a_ii - sum_{k<i} c_ik^2,

so that C C^T equals A on that pattern (Meijerink and van der Vorst 1977); B = C^-T C^-1. It exists
for every M-matrix. For others a pivot may fail to be positive: then a multiple alpha of the
diagonal is added, first 1e-3, doubled until the pivots are positive (Manteuffel 1980; Lin and More
1999), and a note says so.

ILU: L U ~ A by SuperLU with dropping and partial pivoting (Li and Shao 2011), for matrices that are
not symmetric definite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse.linalg
from numba import njit

from sciml.core.errors import InputError
from sciml.core.kernels.jit import FAST
from sciml.core.linear import LinearMap
from sciml.solvers.inverse import Action, PerSample, matrices
from sciml.solvers.triangular import Triangle, split

_FIRST_SHIFT = 1e-3
_SHIFTS = 20
_SMALLEST_PIVOT = 1e-10  # of the matrix's own diagonal entry


@dataclass(frozen=True)
class IncompleteCholesky:
    """IC(0), symmetric positive definite, for symmetric matrices with a positive diagonal."""

    kind: Literal["incomplete_cholesky"] = "incomplete_cholesky"

    def setup(self, A: LinearMap) -> PerSample:
        """Factorise every sample; raises InputError where A is complex or not definite."""
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                "incomplete_cholesky needs a real symmetric positive definite operator; use ilu",
                "solver.preconditioner",
            )
        factors = [factorise(matrix) for matrix in matrices(A)]
        actions = [factor.solve for factor in factors]
        inverse = PerSample(A, actions, actions, symmetric=True, definite=True)
        shift = max(factor.shift for factor in factors)
        if shift:
            inverse.notes = (
                f"incomplete Cholesky broke down; {shift:g} of the diagonal was added to it",
            )
        return inverse


@dataclass(frozen=True)
class ILU:
    """SuperLU's incomplete factorisation, for gmres and bicgstab; not symmetric.

    ``drop``: entries below this share of their column's norm are dropped. ``fill``: the most
    entries of the factors, as a multiple of the matrix's.
    """

    drop: float = 1e-3
    fill: float = 10.0
    kind: Literal["ilu"] = "ilu"

    def __post_init__(self) -> None:
        if not 0 <= self.drop < 1:
            raise InputError(
                f"ilu: drop must lie between 0 and 1; got {self.drop:g}",
                "solver.preconditioner.drop",
            )
        if self.fill < 1:
            raise InputError(
                f"ilu: fill must be at least 1; got {self.fill:g}", "solver.preconditioner.fill"
            )

    def setup(self, A: LinearMap) -> PerSample:
        """Factorise every sample; raises InputError for a singular factor."""
        pairs = [self._factorise(matrix) for matrix in matrices(A)]
        actions, adjoints = zip(*pairs, strict=True)
        return PerSample(A, actions, adjoints, symmetric=False, definite=False)

    def _factorise(self, matrix: scipy.sparse.csr_matrix) -> tuple[Action, Action]:
        try:
            factors = scipy.sparse.linalg.spilu(
                matrix.tocsc(), drop_tol=self.drop, fill_factor=self.fill
            )
        except RuntimeError as error:
            raise InputError(
                "the incomplete factor of the matrix is singular; use jacobi, or a smaller drop",
                "solver.preconditioner",
            ) from error
        return (
            lambda right: factors.solve(np.asfortranarray(right)),
            lambda right: factors.solve(np.asfortranarray(right), "H"),
        )


@dataclass(frozen=True, eq=False)
class CholeskyFactor:
    """``C = lower + diag(1 / pivots)`` and its transpose; ``shift`` is the alpha it needed."""

    lower: Triangle
    upper: Triangle
    pivots: np.ndarray
    shift: float

    def solve(self, right: np.ndarray) -> np.ndarray:
        """``C^-T C^-1 right``; right (n, columns)."""
        x = np.array(right.T, order="C")
        self.lower.solve(self.pivots, x)
        self.upper.solve(self.pivots, x)
        return x.T

    def matrix(self) -> scipy.sparse.csr_matrix:
        """C itself."""
        n, T = len(self.pivots), self.lower
        strict = scipy.sparse.csr_matrix((T.values, T.columns, T.starts), (n, n))
        return (strict + scipy.sparse.diags(1 / self.pivots)).tocsr()


def factorise(matrix: scipy.sparse.csr_matrix) -> CholeskyFactor:
    """IC(0) of a real symmetric matrix; InputError where no shift of the diagonal is enough."""
    parts, shift = split(matrix), 0.0
    T, diagonal = parts.lower, parts.diagonal
    if not (diagonal > 0).all():
        raise InputError(
            "incomplete_cholesky needs a positive diagonal; use ilu", "solver.preconditioner"
        )
    values, pivots = np.empty_like(T.values), np.empty_like(diagonal)
    for attempt in range(_SHIFTS):
        shifted = (1 + shift) * diagonal
        if _factorise(T.starts, T.columns, T.values, shifted, values, pivots, _SMALLEST_PIVOT):
            lower = Triangle(T.starts, T.columns, values, upper=False)
            return CholeskyFactor(lower, lower.transpose(), pivots, shift)
        shift = _FIRST_SHIFT * 2**attempt
    raise InputError(
        "incomplete_cholesky broke down, whatever was added to the diagonal; use amg or jacobi",
        "solver.preconditioner",
    )


@njit(cache=True, **FAST)
def _factorise(starts, columns, entries, diagonal, values, pivots, smallest):
    """Fill ``values`` and the reciprocal ``pivots``; False at a pivot that is not positive."""
    for i in range(diagonal.shape[0]):
        square = diagonal[i]
        for at in range(starts[i], starts[i + 1]):
            j, t = columns[at], entries[at]
            p, q = starts[i], starts[j]
            while p < at and q < starts[j + 1]:
                if columns[p] == columns[q]:
                    t -= values[p] * values[q]
                    p += 1
                    q += 1
                elif columns[p] < columns[q]:
                    p += 1
                else:
                    q += 1
            t *= pivots[j]
            values[at] = t
            square -= t * t
        if not square > smallest * diagonal[i]:
            return False
        pivots[i] = 1 / np.sqrt(square)
    return True
