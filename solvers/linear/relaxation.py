"""Relaxation: Jacobi, SOR, and SSOR, from the splitting of a matrix.

With A = D + L + U (diagonal, strictly lower, strictly upper) and 0 < omega < 2,

    Jacobi:  B = D^-1
    SOR:     x += (D/omega + L)^-1 (b - A x)
    SSOR:    B = (2 - omega)/omega (D/omega + U)^-1 D (D/omega + L)^-1

(Young 1971; Axelsson 1994, section 7.4). SSOR's B is symmetric for symmetric A, and definite where
D is positive. SSOR with omega = 1 is symmetric Gauss-Seidel.

The unknowns are relaxed in their own order (row-major on a grid), not colour by colour as a
multigrid smoother does: coloured, omega gains nothing. Iterations of SSOR-CG, Poisson on 128^2:

    omega        1     1.2   1.5   1.9
    row-major    112   -     66    37
    four colours 138   136   156   238

Triangular systems (P^-1 + T) x = b, T strictly triangular and P diagonal, are solved in place by
substitution, row by row: x_i = p_i (b_i - sum_k t_ik x_k), compiled by numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.kernels.jit import fast
from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Action, PerSample, matrices
from sciml.solvers.linear.iteration import StationaryMethod, check_options


@dataclass(frozen=True)
class Jacobi:
    """The inverse of the diagonal as a preconditioner; InputError for a zero on the diagonal."""

    kind: Literal["jacobi"] = "jacobi"

    def setup(self, A: LinearMap) -> DiagonalInverse:
        """Invert the diagonal."""
        return DiagonalInverse(A)


class DiagonalInverse(LinearMap):
    """``diag(A)^-1``; definite where every diagonal entry is positive."""

    def __init__(self, A: LinearMap) -> None:
        diagonal = A.diagonal()
        diagonal = diagonal.real if A.hermitian else diagonal
        diagonal = diagonal.to(torch.promote_types(diagonal.dtype, torch.float64))
        if bool((diagonal == 0).any()):
            raise InputError("jacobi needs a diagonal without zeros; use another preconditioner")
        self.shape, self.batch, self.device = A.shape, A.batch, A.device
        self.dtype = diagonal.dtype
        self.symmetric, self.nullspace = not self.dtype.is_complex, False
        self.definite = self.symmetric and bool((diagonal > 0).all())
        self.inverse = diagonal.reciprocal()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``u / diag(A)``; u (*batch, *shape)."""
        return self.inverse * u

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """The same, conjugated where complex: a diagonal is symmetric."""
        return self.inverse.conj() * u

    def diagonal(self) -> torch.Tensor:
        """The reciprocals, shape (*batch, *shape)."""
        return self.inverse

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """A diagonal matrix; InputError for a batch."""
        if self.batch:
            raise InputError(f"a batch of {self.batch} maps is no single SciPy matrix")
        return scipy.sparse.diags(self.inverse.flatten().cpu().numpy()).tocsr()


@dataclass(frozen=True)
class SSOR:
    """Symmetric successive over-relaxation as a preconditioner; 0 < ``omega`` < 2.

    Runs on the CPU, whatever the device of A: a sweep is sequential. ``setup`` raises InputError
    for a zero on the diagonal.
    """

    omega: float = 1.0
    kind: Literal["ssor"] = "ssor"

    def __post_init__(self) -> None:
        check_omega(self.kind, self.omega, "solver.preconditioner.omega")

    def setup(self, A: LinearMap) -> PerSample:
        """Split the matrix of every sample into its triangles."""
        return ssor(A, splittings(A), self.omega)


@dataclass(frozen=True)
class SOR(StationaryMethod):
    """Successive over-relaxation with a fixed 0 < ``omega`` < 2 (Young 1954; Frankel 1950).

    Converges for every symmetric positive definite operator (Ostrowski 1954). ``setup`` returns one
    step from zero as a LinearMap, and raises InputError for a zero on the diagonal.
    """

    omega: float = 1.5
    kind: Literal["sor"] = "sor"
    rtol: float = 1e-8
    max_iterations: int = 100_000
    window = 1000  # with a poor omega it falls by 1 % only every few hundred steps

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        check_omega(self.kind, self.omega, "solver.omega")

    def setup(self, A: LinearMap) -> PerSample:
        """Split the matrix of every sample into its triangles."""
        return sor(A, splittings(A), self.omega)


def check_omega(kind: str, omega: float, key: str) -> None:
    """Raise InputError unless 0 < omega < 2."""
    if not 0 < omega < 2:
        raise InputError(f"{kind}: omega must lie between 0 and 2; got {omega:g}", key)


def splittings(A: LinearMap) -> list[Splitting]:
    """``D + L + U`` of every sample; raises InputError for a zero on the diagonal."""
    parts = [split(matrix) for matrix in matrices(A)]
    if any((part.diagonal == 0).any() for part in parts):
        raise InputError(
            "over-relaxation needs a diagonal without zeros; use another preconditioner"
        )
    return parts


def ssor(A: LinearMap, parts: list[Splitting], omega: float) -> PerSample:
    """SSOR from zero, given the splittings of A."""
    symmetric = A.symmetric and not A.dtype.is_complex
    actions = [_symmetric_sweep(part, omega) for part in parts]
    mirrored = symmetric or A.hermitian
    adjoints = actions if mirrored else [_symmetric_sweep(part.adjoint, omega) for part in parts]
    definite = mirrored and all((part.diagonal.real > 0).all() for part in parts)
    return PerSample(
        A, actions, adjoints, symmetric=symmetric, definite=definite, hermitian=A.hermitian
    )


def sor(A: LinearMap, parts: list[Splitting], omega: float) -> PerSample:
    """One step of SOR from zero, ``(D/omega + L)^-1``, given the splittings of A."""
    actions = [_sweep(part, omega) for part in parts]
    adjoints = [_adjoint_sweep(part, omega) for part in parts]
    return PerSample(A, actions, adjoints, symmetric=False, definite=False)


def _symmetric_sweep(part: Splitting, omega: float) -> Action:
    pivots, middle = omega / part.diagonal, (2 - omega) / omega * part.diagonal

    def action(right: np.ndarray) -> np.ndarray:
        x = np.array(right.T, order="C")
        part.lower.solve(pivots, x)
        x *= middle
        part.upper.solve(pivots, x)
        return x.T

    return action


def _sweep(part: Splitting, omega: float) -> Action:
    pivots = omega / part.diagonal

    def action(right: np.ndarray) -> np.ndarray:
        x = np.array(right.T, order="C")
        part.lower.solve(pivots, x)
        return x.T

    return action


def _adjoint_sweep(part: Splitting, omega: float) -> Action:
    def action(right: np.ndarray) -> np.ndarray:
        x = np.array(right.T, order="C")
        part.adjoint.upper.solve(omega / part.adjoint.diagonal, x)
        return x.T

    return action


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


@fast(cache=True)
def _forward(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, pivots: np.ndarray, x: np.ndarray
) -> None:
    for s in range(x.shape[0]):
        for i in range(x.shape[1]):
            t = x[s, i]
            for k in range(starts[i], starts[i + 1]):
                t -= values[k] * x[s, columns[k]]
            x[s, i] = t * pivots[i]


@fast(cache=True)
def _backward(
    starts: np.ndarray, columns: np.ndarray, values: np.ndarray, pivots: np.ndarray, x: np.ndarray
) -> None:
    for s in range(x.shape[0]):
        for i in range(x.shape[1] - 1, -1, -1):
            t = x[s, i]
            for k in range(starts[i], starts[i + 1]):
                t -= values[k] * x[s, columns[k]]
            x[s, i] = t * pivots[i]
