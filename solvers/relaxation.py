"""Successive over-relaxation, as a solver, and made symmetric as a preconditioner.

With A = D + L + U (diagonal, strictly lower, strictly upper) and 0 < omega < 2,

    SOR:   x += (D/omega + L)^-1 (b - A x)
    SSOR:  B = (2 - omega)/omega (D/omega + U)^-1 D (D/omega + L)^-1

(Young 1971; Axelsson 1994, section 7.4). B is symmetric for symmetric A, and definite where D is
positive. SSOR with omega = 1 is symmetric Gauss-Seidel.

The unknowns are relaxed in their own order (row-major on a grid), not colour by colour as a
multigrid smoother does: coloured, omega gains nothing. Iterations of SSOR-CG, Poisson on 128^2:

    omega        1     1.2   1.5   1.9
    row-major    112   -     66    37
    four colours 138   136   156   238
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.solvers.inverse import Action, PerSample, matrices
from sciml.solvers.iteration import StationaryMethod, check_options
from sciml.solvers.triangular import Splitting, split


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
    adjoints = actions if symmetric else [_symmetric_sweep(part.adjoint, omega) for part in parts]
    definite = symmetric and all((part.diagonal > 0).all() for part in parts)
    return PerSample(A, actions, adjoints, symmetric=symmetric, definite=definite)


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
