"""Incomplete factorisations of sparse matrices as preconditioners.

IC(0): A + alpha diag(A) ~ C C^T with C lower triangular on the pattern of A's lower triangle,

    c_ij = (a_ij - sum_{k<j} c_ik c_jk) / c_jj,      c_ii^2 = a_ii - sum_{k<i} c_ik^2,

so that C C^T equals A on that pattern (Meijerink and van der Vorst 1977); B = C^-T C^-1. It exists
for every M-matrix. For others a pivot may fail to be positive: then a multiple alpha of the
diagonal is added, first 1e-3, doubled until the pivots are positive (Manteuffel 1980; Lin and More
1999), and a note says so.

Relaxed: the share omega of every entry dropped is taken off the diagonal of its row, so that
C C^T 1 = A 1 for omega = 1 (Gustafsson 1978; Axelsson and Lindskog 1986). C depends on the order of
the unknowns; on meshes that of reverse Cuthill and McKee is a good one (Duff and Meurant 1989).

ILU: L U ~ A by SuperLU with dropping and partial pivoting (Li and Shao 2011), for matrices that are
not symmetric definite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.csgraph import reverse_cuthill_mckee

from sciml.core.algebra.kernels.jit import fast
from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Action, PerSample, matrices
from sciml.solvers.linear.relaxation import Triangle, split

Ordering = Literal["given", "reverse_cuthill_mckee"]
_FIRST_SHIFT = 1e-3
_SHIFTS = 20
_SMALLEST_PIVOT = 1e-10  # of the matrix's own diagonal entry


@dataclass(frozen=True)
class IncompleteCholesky:
    """IC(0), symmetric positive definite, for symmetric matrices with a positive diagonal.

    ``relaxation``: the share of the dropped entries that goes to the diagonal, 0 to 1; 0.98 suits
    discretised elliptic equations. ``ordering``: of the unknowns while factorising.
    """

    relaxation: float = 0.0
    ordering: Ordering = "given"
    kind: Literal["incomplete_cholesky"] = "incomplete_cholesky"

    def __post_init__(self) -> None:
        check_relaxation(self.relaxation, "solver.preconditioner.relaxation")

    def setup(self, A: LinearMap) -> PerSample:
        """Factorise every sample; raises InputError where A is complex or not definite."""
        if A.dtype.is_complex or not (A.symmetric and A.definite):
            raise InputError(
                "incomplete_cholesky needs a real symmetric positive definite operator; use ilu",
                "solver.preconditioner",
            )
        factors = [self._factorise(matrix) for matrix in matrices(A)]
        actions = [factor.solve for factor in factors]
        inverse = PerSample(A, actions, actions, symmetric=True, definite=True)
        shift = max(factor.shift for factor in factors)
        if shift:
            inverse.notes = (
                f"incomplete Cholesky broke down; {shift:g} of the diagonal was added to it",
            )
        return inverse

    def _factorise(self, matrix: scipy.sparse.csr_matrix) -> CholeskyFactor | OrderedFactor:
        if self.ordering == "given":
            return factorise(matrix, self.relaxation)
        order, moved = reordered(matrix)
        return OrderedFactor(order, factorise(moved, self.relaxation))


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


@dataclass(frozen=True, eq=False)
class OrderedFactor:
    """A factor of ``A[order][:, order]``."""

    order: np.ndarray
    factor: CholeskyFactor

    @property
    def shift(self) -> float:
        """What the diagonal needed."""
        return self.factor.shift

    def solve(self, right: np.ndarray) -> np.ndarray:
        """``A^-1 right``, nearly; right (n, columns), in A's own order."""
        x = np.empty_like(right)
        x[self.order] = self.factor.solve(right[self.order])
        return x


def reordered(matrix: scipy.sparse.csr_matrix) -> tuple[np.ndarray, scipy.sparse.csr_matrix]:
    """The order of reverse Cuthill and McKee (n,), and ``matrix[order][:, order]``."""
    order = reverse_cuthill_mckee(matrix, symmetric_mode=True)
    moved = matrix[order][:, order].tocsr()
    moved.sum_duplicates()
    return order, moved


def check_relaxation(relaxation: float, key: str) -> None:
    """Refuse what is no share."""
    if not 0 <= relaxation <= 1:
        raise InputError(f"relaxation must lie between 0 and 1; got {relaxation:g}", key)


def factorise(matrix: scipy.sparse.csr_matrix, relaxation: float = 0.0) -> CholeskyFactor:
    """IC(0) of a real symmetric matrix; InputError where no shift of the diagonal is enough."""
    parts, shift = split(matrix), 0.0
    T, diagonal = parts.lower, parts.diagonal
    if not (diagonal > 0).all():
        raise InputError(
            "incomplete_cholesky needs a positive diagonal; use ilu", "solver.preconditioner"
        )
    values, pivots = np.empty_like(T.values), np.empty_like(diagonal)
    below = _columns(T.starts, T.columns)
    for attempt in range(_SHIFTS):
        shifted = (1 + shift) * diagonal
        values[:], pivots[:] = T.values, shifted
        if _factorise(T.starts, T.columns, *below, relaxation, values, pivots, _SMALLEST_PIVOT):
            lower = Triangle(T.starts, T.columns, values, upper=False)
            return CholeskyFactor(lower, lower.transpose(), pivots, shift)
        shift = _FIRST_SHIFT * 2**attempt
    raise InputError(
        "incomplete_cholesky broke down, whatever was added to the diagonal; use amg or jacobi",
        "solver.preconditioner",
    )


@fast(cache=True)
def _columns(starts: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of a lower triangle by column: where each begins, their rows and places."""
    n = starts.shape[0] - 1
    begins, rows, places = np.zeros(n + 1, np.int64), np.empty_like(columns), np.empty_like(columns)
    for j in columns:
        begins[j + 1] += 1
    for j in range(n):
        begins[j + 1] += begins[j]
    following = begins[:-1].copy()
    for i in range(n):
        for at in range(starts[i], starts[i + 1]):
            j = columns[at]
            rows[following[j]], places[following[j]] = i, at
            following[j] += 1
    return begins, rows, places


@fast(cache=True)
def _factorise(
    starts: np.ndarray,
    columns: np.ndarray,
    begins: np.ndarray,
    rows: np.ndarray,
    places: np.ndarray,
    relaxation: float,
    values: np.ndarray,
    pivots: np.ndarray,
    smallest: float,
) -> bool:
    """A's entries to those of C and its diagonal to reciprocal pivots, in place, column by column.

    False at a pivot that is not positive.
    """
    least = smallest * pivots
    found = np.full(pivots.shape[0], -1)
    for j in range(pivots.shape[0]):
        if not pivots[j] > least[j]:
            return False
        pivots[j] = 1 / np.sqrt(pivots[j])
        for s in range(begins[j], begins[j + 1]):
            values[places[s]] *= pivots[j]
        for s in range(begins[j], begins[j + 1]):
            i, c = rows[s], values[places[s]]
            pivots[i] -= c * c
            for at in range(starts[i], starts[i + 1]):
                found[columns[at]] = at
            for t in range(begins[j], s):
                k, product = rows[t], c * values[places[t]]
                if found[k] >= 0:
                    values[found[k]] -= product
                else:
                    pivots[i] -= relaxation * product
                    pivots[k] -= relaxation * product
            for at in range(starts[i], starts[i + 1]):
                found[columns[at]] = -1
    return True
