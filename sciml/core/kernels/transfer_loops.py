"""Restriction of the residual and prolongation as numba loops over rows, laid out as in ``loops``.

The columns 2 C and 2 C + 1 of a fine row are taken apart first, or put together last, so that the
weights of every coarse row meet contiguous numbers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from sciml.core.kernels.jit import INLINED, Loop, fill, wrap
from sciml.core.kernels.rows import residual


@njit(**INLINED)
def _parent(f, factor, which):
    """One of the two coarse indices C that fine index f contributes to, and f - (2 C + 1).

    Along an axis that is not coarsened (f, 0); an offset of 9 means that there is no such parent.
    """
    if factor == 1 or f % 2 == 1:
        return f // factor, 0 if which == 0 else 9
    return (f // 2, -1) if which == 0 else (f // 2 - 1, 1)


@njit(**INLINED)
def _plane(dz, dy, factors):
    """The first weight plane of the row offsets (dz, dy)."""
    fz, fy, fx = factors
    k = (dz + fz - 1) * (3 if fy == 2 else 1) + dy + fy - 1
    return k * (3 if fx == 2 else 1)


@njit(**INLINED)
def take_apart(even, odd, r, ring):
    """even[C] = r[2 C] for C <= m, zero beyond an end that does not wrap; odd[C] = r[2 C + 1]."""
    m, n = odd.shape[0], r.shape[0]
    for j in range(m):
        even[j] = r[2 * j]
        odd[j] = r[2 * j + 1]
    even[m] = 0
    if n == 2 * m + 1:
        even[m] = r[n - 1]
    elif ring:
        even[m] = r[0]


def _restrict_residual(coarse, x, b, a, p, factors, ring, slabs):
    """coarse = P^T (b - A x), one pass over the fine rows; slabs of coarse planes per thread."""
    nb, mz, my, m = coarse.shape
    nz, ny, n = x.shape[1], x.shape[2], x.shape[3]
    fz, fy, fx = factors
    for i in prange(nb * slabs):
        s, z0, z1 = i // slabs, i % slabs * mz // slabs, (i % slabs + 1) * mz // slabs
        sp, pmz, pmy = s % p.shape[0], p.shape[2] - 1, p.shape[3] - 1
        r = np.empty(n, dtype=x.dtype)
        even, odd = np.empty(m + 1, dtype=x.dtype), np.empty(m, dtype=x.dtype)
        for f in range(fz * z0, fz * z1 + fz - 1 if z1 > z0 else 0):
            z = wrap(f, nz, ring[0])
            for g in range(fy * my + fy - 1):
                y = wrap(g, ny, ring[1])
                if z < 0 or y < 0:
                    continue
                residual(r, b, x, a, s, z, y, ring)
                if fx == 2:
                    take_apart(even, odd, r, ring[2])
                for q in range(4):
                    zc, dz = _parent(f, fz, q // 2)
                    yc, dy = _parent(g, fy, q % 2)
                    if dz == 9 or dy == 9 or not (z0 <= zc < z1 and 0 <= yc < my):
                        continue
                    if dz == 1 - fz and dy == 1 - fy:
                        fill(coarse[s, zc, yc], 0)
                    k, pz, py = _plane(dz, dy, factors), min(zc, pmz), min(yc, pmy)
                    if fx == 1:
                        for j in range(m):
                            coarse[s, zc, yc, j] += p[sp, k, pz, py, j] * r[j]
                        continue
                    for j in range(m):
                        coarse[s, zc, yc, j] += (
                            p[sp, k, pz, py, j] * even[j]
                            + p[sp, k + 1, pz, py, j] * odd[j]
                            + p[sp, k + 2, pz, py, j] * even[j + 1]
                        )


def _prolong_add(x, coarse, p, factors, ring, slabs):
    """x += P coarse."""
    nb, nz, ny, n = x.shape
    mz, my, m = coarse.shape[1], coarse.shape[2], coarse.shape[3]
    pmz, pmy = p.shape[2] - 1, p.shape[3] - 1
    fz, fy, fx = factors
    for slab in prange(slabs):
        even, odd = np.empty(m + 1, dtype=x.dtype), np.empty(m, dtype=x.dtype)
        for i in range(slab * nb * nz * ny // slabs, (slab + 1) * nb * nz * ny // slabs):
            s, z, y = i // (nz * ny), i // ny % nz, i % ny
            sp = s % p.shape[0]
            fill(even, 0)
            fill(odd, 0)
            for q in range(4):
                zc, dz = _parent(z, fz, q // 2)
                yc, dy = _parent(y, fy, q % 2)
                if dz == 9 or dy == 9:
                    continue
                zc, yc = wrap(zc, mz, ring[0]), wrap(yc, my, ring[1])
                if zc < 0 or yc < 0:
                    continue
                k, pz, py = _plane(dz, dy, factors), min(zc, pmz), min(yc, pmy)
                if fx == 1:
                    for j in range(m):
                        odd[j] += p[sp, k, pz, py, j] * coarse[s, zc, yc, j]
                    continue
                for j in range(m):
                    odd[j] += p[sp, k + 1, pz, py, j] * coarse[s, zc, yc, j]
                    even[j] += p[sp, k, pz, py, j] * coarse[s, zc, yc, j]
                for j in range(m):
                    even[j + 1] += p[sp, k + 2, pz, py, j] * coarse[s, zc, yc, j]
            if fx == 1:
                for j in range(m):
                    x[s, z, y, j] += odd[j]
                continue
            if n == 2 * m + 1:
                x[s, z, y, n - 1] += even[m]
            elif ring[2]:
                even[0] += even[m]
            for j in range(m):
                x[s, z, y, 2 * j] += even[j]
                x[s, z, y, 2 * j + 1] += odd[j]


restrict_rows = Loop(_restrict_residual)
prolong_rows = Loop(_prolong_add)
