"""The set-up kernels as numba loops over rows: prolongation, Galerkin product, symmetry.

Arrays are laid out as in ``loops``, coefficients in full: every coarse row looks its fine rows up.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from sciml.core.kernels.jit import INLINED, Loop, copy, fill, wrap
from sciml.core.kernels.transfer_loops import take_apart


@njit(**INLINED)
def _split(parts, a, z, y, factor, ring):
    """The row (z, y) of every plane by the parity of its columns: see ``take_apart``."""
    m = parts.shape[2] - 1
    for k in range(a.shape[0]):
        if factor == 2:
            take_apart(parts[k, 0], parts[k, 1, :m], a[k, z, y], ring)
        else:
            copy(parts[k, 1, :m], a[k, z, y])


@njit(**INLINED)
def _column(parts, k, d):
    """Plane k at the fine columns factor C + factor - 1 + d, by C."""
    m = parts.shape[2] - 1
    return parts[k, 1, :m] if d == 0 else parts[k, 0, :m] if d < 0 else parts[k, 0, 1:]


def _galerkin(out, a, p, table, factors, periodic):
    """out = P^T A P; ``table`` rows: (out plane, a plane, left P, right P, d, e), ordered by d.

    out_e[C] = sum_{d, k} P_d[C] a_k[f] P_{d'}[C + e],   f = 2 C + 1 + d,  d' = d + k - 2 e.
    """
    nb, _, mz, my, m = out.shape
    nz, ny = a.shape[2], a.shape[3]
    fz, fy, fx = factors
    for i in prange(nb * mz * my):
        s, zc, yc = i // (mz * my), i // my % mz, i % my
        for k in range(out.shape[1]):
            fill(out[s, k, zc, yc], 0)
        weights, fine = p[s], a[s % a.shape[0]]
        parts = np.empty((a.shape[1], 2, m + 1), dtype=a.dtype)
        for q in range(table.shape[0]):
            z = wrap(fz * zc + fz - 1 + table[q, 4], nz, periodic[0])
            y = wrap(fy * yc + fy - 1 + table[q, 5], ny, periodic[1])
            if z < 0 or y < 0:
                continue
            if q == 0 or table[q, 4] != table[q - 1, 4] or table[q, 5] != table[q - 1, 5]:
                _split(parts, fine, z, y, fx, periodic[2])
            ze = wrap(zc + table[q, 7], mz, periodic[0])
            ye = wrap(yc + table[q, 8], my, periodic[1])
            if ze < 0 or ye < 0:
                continue
            t, c = out[s, table[q, 0], zc, yc], _column(parts, table[q, 1], table[q, 6])
            left, right = weights[table[q, 2], zc, yc], weights[table[q, 3], ze, ye]
            e = table[q, 9]
            low, high = max(0, -e), min(m, m - e)
            ts, ls, cs, rs = t[low:high], left[low:], c[low:], right[low + e :]
            for j in range(high - low):
                ts[j] += ls[j] * cs[j] * rs[j]
            if periodic[2] and low > 0:
                t[0] += left[0] * c[0] * right[m - 1]
            if periodic[2] and high < m:
                t[m - 1] += left[m - 1] * c[m - 1] * right[0]


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
    nz, ny = a.shape[2], a.shape[3]
    fz, fy, fx = factors
    for i in prange(nb * mz * my):
        s, zc, yc = i // (mz * my), i // my % mz, i % my
        fine, parts = a[s % a.shape[0]], np.empty((a.shape[1], 2, m + 1), dtype=a.dtype)
        total, centre = np.empty(m, dtype=a.dtype), np.empty(m, dtype=a.dtype)
        held_z, held_y = -1, -1
        for q in range(starts.shape[0] - 1):
            first = starts[q]
            t = out[s, terms[first, 0], zc, yc]
            z = wrap(fz * zc + fz - 1 + terms[first, 3], nz, periodic[0])
            y = wrap(fy * yc + fy - 1 + terms[first, 4], ny, periodic[1])
            if z < 0 or y < 0:
                fill(t, 0)
                continue
            if z != held_z or y != held_y:
                _split(parts, fine, z, y, fx, periodic[2])
                held_z, held_y = z, y
            fill(total, 0)
            fill(centre, 0)
            for r in range(first, starts[q + 1]):
                c = _column(parts, terms[r, 1], terms[r, 5])
                if terms[r, 2] < 0:
                    for j in range(m):
                        centre[j] += c[j]
                else:
                    known = out[s, terms[r, 2], zc, yc]
                    for j in range(m):
                        total[j] -= c[j] * known[j]
            for j in range(m):
                # A point outside, or without links along the coarsened axes, takes nothing.
                t[j] = total[j] / centre[j] if centre[j] != 0 else centre[j]


galerkin_rows = Loop(_galerkin)
interpolate_rows = Loop(_interpolate)
mirror_rows = Loop(_mirror)
