"""The set-up kernels as numba loops over rows: prolongation, Galerkin product, symmetry.

Arrays are laid out as in ``loops``, coefficients in full: every coarse row looks its fine rows up.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from sciml.core.kernels.jit import FAST, Loop, copy, fill, wrap


@njit(**FAST)
def _columns(d, e, factor, n, m):
    """Coarse columns C in [low, high): fine column factor C + factor - 1 + d and C + e inside."""
    low, high = 0, m
    shift = d + factor - 1
    while low < m and (factor * low + shift < 0 or low + e < 0):
        low += 1
    while high > low and (factor * (high - 1) + shift >= n or high - 1 + e >= m):
        high -= 1
    return low, high


def _galerkin(out, a, p, table, factors, periodic):
    """out = P^T A P; ``table`` rows: (out plane, a plane, left P, right P, d, e) per term.

    out_e[C] = sum_{d, k} P_d[C] a_k[f] P_{d'}[C + e],   f = 2 C + 1 + d,  d' = d + k - 2 e.
    """
    nb, _, mz, my, m = out.shape
    nz, ny, n = a.shape[2], a.shape[3], a.shape[4]
    fz, fy, fx = factors
    for i in prange(nb * mz * my):
        s, zc, yc = i // (mz * my), i // my % mz, i % my
        for k in range(out.shape[1]):
            fill(out[s, k, zc, yc], 0)
        weights, fine = p[s], a[s % a.shape[0]]
        for q in range(table.shape[0]):
            z = wrap(fz * zc + fz - 1 + table[q, 4], nz, periodic[0])
            y = wrap(fy * yc + fy - 1 + table[q, 5], ny, periodic[1])
            ze = wrap(zc + table[q, 7], mz, periodic[0])
            ye = wrap(yc + table[q, 8], my, periodic[1])
            if z < 0 or y < 0 or ze < 0 or ye < 0:
                continue
            t, c = out[s, table[q, 0], zc, yc], fine[table[q, 1], z, y]
            left, right = weights[table[q, 2], zc, yc], weights[table[q, 3], ze, ye]
            d, e = table[q, 6], table[q, 9]
            low, high = _columns(d, e, fx, n, m)
            if fx == 2:
                cs, rs = c[2 * low + 1 + d :], right[low + e :]
                ts, ls = t[low:], left[low:]
                for j in range(high - low):
                    ts[j] += ls[j] * cs[2 * j] * rs[j]
            else:
                for j in range(low, high):
                    t[j] += left[j] * c[j] * right[j + e]
            if periodic[2]:
                for j in range(low):
                    t[j] += left[j] * c[(fx * j + fx - 1 + d) % n] * right[(j + e) % m]
                for j in range(high, m):
                    t[j] += left[j] * c[(fx * j + fx - 1 + d) % n] * right[(j + e) % m]


def _mirror(out, pairs, periodic):
    """Planes of a symmetric stencil from their opposites: out_{-e}[C] = out_e[C - e].

    ``pairs`` rows: (plane of -e, plane of e, -e along z, y, x).
    """
    nb, _, nz, ny, n = out.shape
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        for q in range(pairs.shape[0]):
            t = out[s, pairs[q, 0], z, y]
            zz = wrap(z + pairs[q, 2], nz, periodic[0])
            yy = wrap(y + pairs[q, 3], ny, periodic[1])
            if zz < 0 or yy < 0:
                fill(t, 0)
                continue
            source, d = out[s, pairs[q, 1], zz, yy], pairs[q, 4]
            low, high = max(0, -d), min(n, n - d)
            fill(t[:low], 0)
            fill(t[high:], 0)
            copy(t[low:high], source[low + d : high + d])
            if periodic[2] and low > 0:
                t[0] = source[n - 1]
            if periodic[2] and high < n:
                t[n - 1] = source[0]


def _interpolate(out, a, terms, starts, factors, periodic):
    """Operator-dependent weights (Dendy 1982): see ``sciml.core.transfer`` for the formula.

    ``starts[q]:starts[q+1]`` are the terms of the q-th weight in order of computation:
    (weight plane, a plane, known weight plane or -1 for the denominator, dz, dy, dx).
    """
    nb, _, mz, my, m = out.shape
    nz, ny, n = a.shape[2], a.shape[3], a.shape[4]
    fz, fy, fx = factors
    for i in prange(nb * mz * my):
        s, zc, yc = i // (mz * my), i // my % mz, i % my
        fine = a[s % a.shape[0]]
        total, centre = np.empty_like(out[s, 0, zc, yc]), np.empty_like(out[s, 0, zc, yc])
        for q in range(starts.shape[0] - 1):
            first = starts[q]
            t = out[s, terms[first, 0], zc, yc]
            dx = terms[first, 5]
            z = wrap(fz * zc + fz - 1 + terms[first, 3], nz, periodic[0])
            y = wrap(fy * yc + fy - 1 + terms[first, 4], ny, periodic[1])
            fill(t, 0)
            if z < 0 or y < 0:
                continue
            fill(total, 0)
            fill(centre, 0)
            low, high = _columns(dx, 0, fx, n, m)
            for r in range(first, starts[q + 1]):
                c = fine[terms[r, 1], z, y]
                if terms[r, 2] < 0:
                    for j in range(low, high):
                        centre[j] += c[fx * j + fx - 1 + dx]
                    if high < m and periodic[2]:
                        centre[m - 1] += c[0]
                else:
                    known = out[s, terms[r, 2], zc, yc]
                    for j in range(low, high):
                        total[j] -= c[fx * j + fx - 1 + dx] * known[j]
                    if high < m and periodic[2]:
                        total[m - 1] -= c[0] * known[m - 1]
            if high < m and periodic[2]:
                high = m
            for j in range(low, high):
                c = centre[j]
                # A point without links along the coarsened axes takes nothing from them.
                t[j] = total[j] / c if c != 0 else c


galerkin_rows = Loop(_galerkin)
interpolate_rows = Loop(_interpolate)
mirror_rows = Loop(_mirror)
