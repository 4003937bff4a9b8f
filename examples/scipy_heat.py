"""Implicit heat conduction in a plate of two materials, with SciPy.

u_t = div(k grad u) on the unit square, u = 0 around, a hot spot at the start; backward Euler on
cells with harmonic means of k on the faces: (I + dt L) u_new = u, by conjugate gradients.
"""

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import cg

n, steps, dt = 96, 10, 0.01


def stiffness(k):
    """L of -div(k grad u), k on n x n cells."""
    h, size = 1.0 / n, n * n
    index = np.arange(size).reshape(n, n)
    L = sp.csr_matrix((size, size))
    for i, j, a, b in (
        (index[:-1], index[1:], k[:-1], k[1:]),
        (index[:, :-1], index[:, 1:], k[:, :-1], k[:, 1:]),
    ):
        face = (2 * a * b / (a + b)).ravel() / h**2
        D = sp.csr_matrix((np.ones(i.size), (np.arange(i.size), i.ravel())), (i.size, size))
        D -= sp.csr_matrix((np.ones(j.size), (np.arange(j.size), j.ravel())), (j.size, size))
        L = L + D.T @ sp.diags(face) @ D
    rim = np.zeros((n, n))
    for side in (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1]):
        rim[side] += 2 * k[side] / h**2
    return (L + sp.diags(rim.ravel())).tocsr()


x, y = np.meshgrid((np.arange(n) + 0.5) / n, (np.arange(n) + 0.5) / n, indexing="ij")
k = np.where((np.floor(8 * x) + np.floor(8 * y)) % 2 == 0, 1.0, 0.001)
A = (sp.identity(n * n) + dt * stiffness(k)).tocsr()
u = np.exp(-50 * ((x - 0.4) ** 2 + (y - 0.6) ** 2)).ravel()
M = sp.diags(1 / A.diagonal())

iterations = []
for _ in range(steps):
    before = u
    u, failed = cg(A, before, x0=before, rtol=1e-8, maxiter=10000, M=M, callback=iterations.append)
    assert not failed
residual = np.linalg.norm(before - A @ u) / np.linalg.norm(before)
print(f"{len(iterations)} iterations, residual {residual:.1e}, mean temperature {u.mean():.8f}")
