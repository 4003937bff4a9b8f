"""Sparse direct solution: P A Q = L U (SuperLU), or L L^T (CHOLMOD) where it can be had.

A singular system whose kernel is the constants is solved with its last unknown pinned to zero,
which leaves a regular matrix, and shifted to zero mean afterwards: for a symmetric matrix that is
exactly the pseudo-inverse. Of a kernel of k vectors as many unknowns are pinned, those on which the
vectors differ most (QR with pivoting), and what is left of the kernel is taken out. One step of
iterative refinement follows (Skeel 1980).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
from scipy.sparse.csgraph import reverse_cuthill_mckee

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Action, PerSample, matrices, projected
from sciml.solvers.linear.iteration import DirectMethod, check_options

SMALL = 2000  # unknowns up to which a factorisation takes no longer than starting an iteration


@dataclass(frozen=True)
class Direct(DirectMethod):
    """Sparse LU or Cholesky factorisation, one per sample; also an exact preconditioner.

    ``setup`` returns the inverse as a LinearMap; raises InputError for a singular matrix.
    """

    kind: Literal["direct"] = "direct"
    rtol: float = 1e-8
    refinements = 1

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol)

    def setup(self, A: LinearMap) -> PerSample:
        """Factorise every sample."""
        definite = A.self_adjoint and A.definite
        pairs = [_inverse(matrix, A, definite) for matrix in matrices(A)]
        actions, adjoints = zip(*pairs, strict=True)
        return PerSample(
            A,
            actions,
            adjoints,
            symmetric=A.symmetric,
            definite=definite,
            hermitian=A.hermitian,
        )


def small(A: LinearMap) -> bool:
    """Whether a factorisation is the cheapest way to solve with A."""
    return A.size <= SMALL or (isinstance(A, Stencil) and A.dimension == 1)


ELIMINATED = 20_000  # unknowns up to which a factorisation is affordable, whatever the matrix


def affordable(A: LinearMap) -> bool:
    """Whether a factorisation fits into memory and time."""
    if A.size <= ELIMINATED:
        return True
    if isinstance(A, Stencil):
        return A.dimension < 3 and A.size <= 300_000
    return A.size <= 300_000 and not A.batch and in_the_plane(A)


# Unknowns of a saddle point up to which a factorisation is quicker than blocks with multigrid, in
# the plane and in space.
_SADDLE = (20_000, 3_000)


def quickest(A: LinearMap) -> bool:
    """Whether a factorisation is affordable, and no other method is known to be quicker."""
    if A.saddle is None or A.batch:
        return affordable(A)
    plane, space = _SADDLE
    return A.size <= space or (A.size <= plane and in_the_plane(A))


# The exponent of the mean bandwidth above which a matrix is one of three dimensions: 0.45 to 0.59
# were measured on grids and triangulations of the plane, 0.595 to 0.77 in space.
_IN_SPACE = 0.593


def in_the_plane(A: LinearMap) -> bool:
    """Whether the mean bandwidth after reverse Cuthill-McKee is that of a line or a surface."""
    matrix = matrices(A)[0]
    matrix = abs(matrix) if A.dtype.is_complex else matrix
    place = np.empty(A.size, dtype=np.int64)
    place[reverse_cuthill_mckee(matrix, symmetric_mode=True)] = np.arange(A.size)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    first = np.minimum.reduceat(place[matrix.indices], matrix.indptr[rows])
    band = float(np.maximum(place[rows] - first, 1).mean())
    return math.log(band) <= _IN_SPACE * math.log(max(A.size, 2))


def _inverse(
    matrix: scipy.sparse.csr_matrix, A: LinearMap, definite: bool
) -> tuple[Action, Action]:
    """The actions of the inverse and of its transpose, conjugated where complex."""
    if not A.nullspace:
        return _factorise(matrix, definite)
    free = np.ones(A.size, dtype=bool)
    free[_pinned(A)] = False
    forward, backward = _factorise(matrix[free][:, free], definite)
    return _pseudo(forward, A, free), _pseudo(backward, A, free)


def _pinned(A: LinearMap) -> np.ndarray:
    if A.kernel is None:
        return np.array([A.size - 1])
    rows = A.kernel.flatten(1).cpu().numpy()
    order: np.ndarray = scipy.linalg.qr(rows, mode="r", pivoting=True)[1]
    return order[: len(rows)]


def _pseudo(solve: Action, A: LinearMap, free: np.ndarray) -> Action:
    def action(right: np.ndarray) -> np.ndarray:
        # Only a symmetric matrix is known to have the same left kernel.
        compatible = projected(A, right) if A.self_adjoint else right
        x = np.zeros_like(compatible)
        x[free] = solve(compatible[free])
        return projected(A, x)

    return action


def _factorise(matrix: scipy.sparse.spmatrix, definite: bool) -> tuple[Action, Action]:
    cholesky = _cholmod() if definite else None
    if cholesky is not None:
        factor = cholesky(matrix.tocsc())
        return factor, factor
    columns = matrix.tocsc()
    factors = _on_the_diagonal(columns, definite)
    if factors is None:
        try:
            factors = scipy.sparse.linalg.splu(columns)
        except RuntimeError as error:
            raise InputError(
                "the matrix is singular: fix u somewhere with a dirichlet side or add a reaction "
                "term (of a matrix say what its kernel is: nullspace=True for the constants, or "
                "its vectors)"
            ) from error
    solve = factors.solve
    return (
        lambda right: solve(np.asfortranarray(right)),
        lambda right: solve(np.asfortranarray(right), "H"),
    )


_PIVOT = 1e-4  # of the largest entry of its column, for a diagonal entry to be taken before others
_HOLES = 0.25  # share of the diagonal that may be empty, as that of pressures is
_BACKWARD = 1e-10  # error beyond which pivots were too small; one step of refinement squares it


def _on_the_diagonal(matrix: scipy.sparse.csc_matrix, definite: bool) -> Any:
    """Factors with few pivots off the diagonal, ordered for least fill of A + A^T; or None.

    Of a matrix whose pattern is symmetric they have half the entries that rows in any order leave
    (George and Ng 1985), but a pivot may be small: that is seen from one solution.
    """
    turned = None if definite else _turned(matrix)
    if not definite and turned is None:
        return None
    try:
        factors = scipy.sparse.linalg.splu(
            matrix,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0 if definite else _PIVOT,
            options={"SymmetricMode": True},
        )
    except RuntimeError:
        return None
    if turned is None:
        return factors
    right = np.random.default_rng(0).standard_normal(matrix.shape[0]).astype(matrix.dtype)
    with np.errstate(all="ignore"):
        x = factors.solve(right)
        gap = np.abs(matrix @ x - right).max(initial=0.0)
        size = float(abs(turned).sum(0).max()) * np.abs(x).max(initial=0.0)
        sound = bool(gap <= _BACKWARD * (size + np.abs(right).max(initial=0.0)))
    return factors if sound else None


def _turned(matrix: scipy.sparse.csc_matrix) -> scipy.sparse.csc_matrix | None:
    """A^T where it has the places of A and its diagonal few holes."""
    if np.count_nonzero(matrix.diagonal()) < (1 - _HOLES) * matrix.shape[0]:
        return None
    if not matrix.has_sorted_indices:
        matrix.sort_indices()
    turned = matrix.T.tocsc()
    alike = np.array_equal(turned.indptr, matrix.indptr)
    alike = alike and np.array_equal(turned.indices, matrix.indices)
    return turned if alike else None


def _cholmod() -> Callable[..., Action] | None:
    try:
        from sksparse.cholmod import cholesky
    except ImportError:
        return None
    found: Callable[..., Action] = cholesky
    return found
