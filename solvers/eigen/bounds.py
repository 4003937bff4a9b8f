"""Two-sided bounds of eigenvalues of A u = lambda M u, and the count that makes them certain.

Of M-orthonormal Ritz vectors X with values Theta and residuals R = A X - M X Theta,

* the i-th Ritz value is no smaller than lambda_i (Courant and Fischer);
* with exactly j eigenvalues below rho, those of the first j vectors, P = rho - Theta > 0 and
  G = R^T M^-1 R,

      lambda_i  >=  the i-th eigenvalue of  Theta - P^-1/2 G P^-1/2,    i = 1 .. j

  (Lehmann 1949; Maehly 1952, in the form that X^T R = 0 allows). For one vector that is
  theta - |r|^2 / (rho - theta) of Temple and Kato. It asks for no gap among the j, so that multiple
  eigenvalues are bounded as well as others.

How many eigenvalues lie below rho is how many negative pivots A - rho M = L D L^T has (Sylvester).
The factorisation is that of a matrix nearby, whose eigenvalues are off by at most

    gamma max_i (|L| |D L^T| 1)_i / (share M_ii)         (Higham 2002, theorem 9.3);

a count is taken where none of the Ritz values found lies that near. Rounding in A x, of the size of
|x|^T |A| |x|, is part of every bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.solvers.eigen.lobpcg import Form

_UNIT = torch.finfo(torch.float64).eps / 2
# Unknowns up to which A - rho M is factorised, by dimension: fill grows as n log n, then n^(4/3).
AFFORDABLE = {1: 10_000_000, 2: 250_000, 3: 20_000}


@dataclass(frozen=True)
class Count:
    """``below``: how many eigenvalues lie below rho, up to ``error`` in rho."""

    below: int
    error: float


def count_below(
    A: scipy.sparse.csr_matrix, M: scipy.sparse.csr_matrix, rho: float, share: float
) -> Count | None:
    """By the signs of pivots; None where the factorisation had to exchange rows, or failed."""
    masses = M.diagonal()
    kept = masses > 0
    shifted = (A - rho * M).tocsc()
    if not kept.all():
        shifted, masses = shifted[kept][:, kept], masses[kept]
    try:
        factors = scipy.sparse.linalg.splu(
            shifted.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True, "Equil": False},
        )
    except RuntimeError:
        return None
    if not np.array_equal(factors.perm_r, factors.perm_c):
        return None
    L, U = factors.L, factors.U
    pivots = U.diagonal()
    growth = abs(L) @ (abs(U) @ np.ones(len(masses)))
    place = np.empty_like(factors.perm_c)
    place[factors.perm_c] = np.arange(len(masses))
    terms = np.diff(L.tocsr().indptr).max() + 4
    error = float(terms * _UNIT * (growth / masses[place]).max() / share)
    if not (np.isfinite(pivots).all() and (pivots != 0).all() and np.isfinite(error)):
        return None
    return Count(int((pivots < 0).sum()), error)


@dataclass(frozen=True)
class Evidence:
    """What is known of Ritz pairs in M^-1's norm.

    ``values`` (p,); ``residuals`` (p,): upper bounds of |A x - theta M x|; ``gram`` (p, p): of the
    residuals, no smaller than theirs; ``rounding`` (p,): how far off the Ritz values may be,
    ``floor`` (p,): the residuals.
    """

    values: torch.Tensor
    residuals: torch.Tensor
    gram: torch.Tensor
    rounding: torch.Tensor
    floor: torch.Tensor


def evidence(form: Form, X: torch.Tensor, share: float, terms: int) -> Evidence:
    """From the vectors anew; ``terms``: the entries of A's fullest row."""
    AX, MX = form.A(X), form.M(X)
    theta = (X * AX).sum(-1) / (X * MX).sum(-1)
    R = AX - theta[:, None] * MX
    size = form.magnitude(X) + theta.abs()[:, None] * MX.abs()
    # The sum of n products is taken in halves.
    unit = (terms + 2 * np.log2(X.shape[-1]) + 8) * _UNIT
    rounding = unit * ((X.abs() * size).sum(-1) + theta.abs())
    Y, left = _solved(form, R, share)
    gram = R @ Y.T
    gram = (gram + gram.T) / 2
    off = unit * form.norm(size) / share**0.5
    lengths = gram.diagonal().clamp(min=0).sqrt() + left + off
    # What the solves with M and rounding leave out of the Gram matrix, whole.
    slack = left + off
    missed = 2 * lengths.norm() * slack.norm() + slack.norm() ** 2
    gram = gram + missed * torch.eye(len(X), dtype=gram.dtype, device=gram.device)
    return Evidence(theta, lengths, gram, rounding, off)


def _solved(form: Form, R: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Y ~ M^-1 R by conjugate gradients with M's diagonal, and bounds of |R - M Y| in M^-1."""
    has = form.weights > 0
    inverse = torch.where(has, 1 / torch.where(has, form.weights, 1.0), 0.0)
    Y = R * inverse
    E = R - form.M(Y)
    Z = E * inverse
    P, product = Z, (E * Z).sum(-1, keepdim=True)
    wanted = 1e-16 * (R * R * inverse).sum(-1, keepdim=True)
    for _ in range(200):
        if not bool((product > wanted).any()):
            break
        MP = form.M(P)
        curve = (P * MP).sum(-1, keepdim=True)
        step = torch.where(curve > 0, product / torch.where(curve > 0, curve, 1.0), 0.0)
        Y, E = Y + step * P, E - step * MP
        Z = E * inverse
        before, product = product, (E * Z).sum(-1, keepdim=True)
        P = Z + product / torch.where(before > 0, before, 1.0) * P
    E = R - form.M(Y)
    return Y, (E * E * inverse).sum(-1).sqrt() / share**0.5


def separation(values: torch.Tensor, residuals: torch.Tensor, count: int) -> tuple[int, float]:
    """j >= count, and a rho that only j of the Ritz values lie below; (0, nan) where none is seen.

    rho lies in the middle between the j-th Ritz value and what the next one's eigenvalue may be.
    """
    for j in range(count, len(values)):
        low, high = float(values[j - 1]), float(values[j] - residuals[j])
        wide = max(1e-3 * (high - float(values[0])), 1e-7 * max(abs(low), abs(high)))
        if high - low > max(wide, 10 * float(residuals[j - 1])):
            return j, (low + high) / 2
    return 0, float("nan")


def lower_bounds(found: Evidence, j: int, rho: float) -> torch.Tensor:
    """Those of the first j eigenvalues, of which there are j below rho.

    Where the vectors span the whole space (rho infinite), no eigenvalue is farther from its Ritz
    value than the norm of the residuals.
    """
    theta = found.values[:j]
    if rho == torch.inf:
        reach: torch.Tensor = torch.linalg.eigvalsh(found.gram)[-1].sqrt()
        return theta - reach - found.rounding[:j]
    room = (rho - theta).rsqrt()
    T = torch.diag(theta) - room[:, None] * found.gram[:j, :j] * room
    lower: torch.Tensor = torch.linalg.eigvalsh(T)
    return torch.minimum(lower, theta) - found.rounding[:j]
