"""Products and Gauss-Seidel sweeps as numba loops over rows, for CPU tensors.

Every array is viewed as ``(batch, z, y, x)`` and every stencil as ``(batch, plane, z, y, x)``; one
axis is x, two are z and x. The last axis is contiguous and vectorised. Coefficient axes of length
one broadcast, so a constant stencil is one row that stays in the cache. No ghost ring is stored.

What is imported from ``rows`` stands for the rows of the stencil at hand: each nest is compiled for
every shape of stencil that is used.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from sciml.core.kernels.jit import Loop, fill
from sciml.core.kernels.rows import product, rank, relax


def _apply(out, u, a, ring, sums, slabs):
    """out = A u and sums[sample, slab] = the slab's part of <u, A u>."""
    nb, nz, ny, _ = u.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        total = 0.0
        for k in range(slab * nz * ny // slabs, (slab + 1) * nz * ny // slabs):
            total += product(out, u, a, s, k // ny, k % ny, ring)
        sums[s, slab] = total


def _sweep(x, b, a, inverse, ring, reverse, from_zero, planes, starts, fresh, rows, slabs):
    """Coloured Gauss-Seidel sweeps; ``reverse`` gives their adjoint ordering.

    ``planes`` in phases ``starts``, ``rows`` in a plane: the order in which they are relaxed, with
    the same result as colour by colour. A phase's planes of a sample go to the threads in slabs.
    From zero, planes that come for the first time (``fresh``) are not read.
    """
    nb, nx = x.shape[0], x.shape[3]
    for phase in range(starts.shape[0] - 1):
        first, many = starts[phase], starts[phase + 1] - starts[phase]
        for slab in prange(slabs):
            t, v = np.empty(nx, dtype=x.dtype), np.empty(nx, dtype=x.dtype)
            for i in range(slab * nb * many // slabs, (slab + 1) * nb * many // slabs):
                s, turn = i // many, first + i % many
                z = planes[turn]
                for k in range(rows.shape[0]):
                    y, known = rows[k], -1
                    if from_zero and fresh[turn]:
                        known = rank(z, y, x, ring, reverse)
                        fill(x[s, z, y], 0)
                    relax(t, v, x, b, a, inverse, s, z, y, ring, reverse, known)


apply_rows = Loop(_apply)
sweep_rows = Loop(_sweep)
