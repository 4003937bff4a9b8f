"""Poisson's equation with a reaction in discs, with PETSc's KSP through petsc4py.

-lap u + c u = 1 on n x n interior nodes of the unit square, u = 0 around, c = 1000 in discs.

Needs petsc4py; docs/preconditioners.md says where to get it.
"""

import numpy as np
import scipy.sparse as sp
from petsc4py import PETSc

n = 96
h = 1.0 / (n + 1)
x = h * np.arange(1, n + 1)
T = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)) / h**2
inside = np.hypot((4 * x % 1)[:, None] - 0.5, (4 * x % 1)[None, :] - 0.5) < 0.3
matrix = sp.kron(T, sp.identity(n)) + sp.kron(sp.identity(n), T) + sp.diags(1000.0 * inside.ravel())
csr = matrix.tocsr()
A = PETSc.Mat().createAIJ(size=csr.shape, csr=(csr.indptr, csr.indices, csr.data))
A.assemble()
u, b = A.createVecs()
b.set(1.0)

ksp = PETSc.KSP().create()
ksp.setType("fcg")
ksp.getPC().setType("icc")
ksp.setOperators(A)
ksp.setTolerances(rtol=1e-8, max_it=10000)
ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
ksp.solve(b, u)
assert ksp.getConvergedReason() > 0
residual = np.linalg.norm(b.array - csr @ u.array) / np.linalg.norm(b.array)
mean = u.array.mean()
print(f"{ksp.getIterationNumber()} iterations, residual {residual:.1e}, mean {mean:.8f}")
ksp.destroy()
