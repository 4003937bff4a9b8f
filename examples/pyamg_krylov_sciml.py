"""Flow through ground of uneven permeability, with PyAMG's Krylov methods.

-div(K grad p) = 1 on n x n cells of the unit square, p = 0 around, log K normally distributed.
"""

import numpy as np
import pyamg
import scipy.sparse as sp

import sciml

n = 96
rng = np.random.default_rng(0)
K = np.exp(2.0 * rng.standard_normal((n + 2, n + 2)))
index = np.arange(n * n).reshape(n, n)


def face(axis, shift):
    """Harmonic means of K between each cell and its neighbour."""
    here, there = K[1:-1, 1:-1], np.roll(K, -shift, axis)[1:-1, 1:-1]
    return 2 * here * there / (here + there) * n**2


west, east, south, north = face(0, -1), face(0, 1), face(1, -1), face(1, 1)
A = sp.diags((west + east + south + north).ravel())
for links, i, j in (
    (west[1:], index[1:], index[:-1]),
    (east[:-1], index[:-1], index[1:]),
    (south[:, 1:], index[:, 1:], index[:, :-1]),
    (north[:, :-1], index[:, :-1], index[:, 1:]),
):
    A = A - sp.coo_matrix((links.ravel(), (i.ravel(), j.ravel())), A.shape)
A = A.tocsr()
b = np.ones(n * n)
M = sciml.as_scipy(sciml.solvers.Multigrid(), A, shape=(n, n))

residuals = []
p, failed = pyamg.krylov.fgmres(A, b, tol=1e-8, maxiter=200, restart=200, M=M, residuals=residuals)
assert not failed
residual = np.linalg.norm(b - A @ p) / np.linalg.norm(b)
print(f"{len(residuals) - 1} iterations, residual {residual:.1e}, mean pressure {p.mean():.8f}")
