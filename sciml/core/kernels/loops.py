"""The kernels as numba loops over rows, for CPU tensors.

Every array is viewed as ``(batch, z, y, x)`` and every stencil as ``(batch, plane, z, y, x)``,
lower dimensions with leading ones; the last axis is contiguous and vectorised. Coefficient axes of
length one broadcast, so a constant stencil is one row that stays in the cache. No ghost ring is
stored: rows outside the array are skipped, row ends are peeled.
"""

from __future__ import annotations

from types import FunctionType

import numpy as np
from numba import njit, prange

_FAST = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
}


@njit(**_FAST)
def _wrap(i, n, periodic):
    """Index i on an axis of n, wrapped if periodic, -1 if outside."""
    if 0 <= i < n:
        return i
    return i % n if periodic else -1


# numba turns `t[:] = u` into a slow generic copy; these loops vectorise.
@njit(**_FAST)
def _fill(t, value):
    for j in range(t.shape[0]):
        t[j] = value


@njit(**_FAST)
def _copy(t, u):
    for j in range(t.shape[0]):
        t[j] = u[j]


# Rows are named by their indices: a view of one costs more than the sum over a short row.
@njit(**_FAST)
def _subtract_triplet(t, a, kw, kc, ke, az, ay, u, z, y, periodic):
    """t[j] -= w[j] u[j-1] + c[j] u[j] + e[j] u[j+1]; coefficient rows of length one broadcast."""
    n, last = t.shape[0], a.shape[3] - 1
    if last == 0:
        w, c, e = a[kw, az, ay, 0], a[kc, az, ay, 0], a[ke, az, ay, 0]
        for j in range(1, n - 1):
            t[j] -= w * u[z, y, j - 1] + c * u[z, y, j] + e * u[z, y, j + 1]
    else:
        for j in range(1, n - 1):
            t[j] -= (
                a[kw, az, ay, j] * u[z, y, j - 1]
                + a[kc, az, ay, j] * u[z, y, j]
                + a[ke, az, ay, j] * u[z, y, j + 1]
            )
    t[0] -= a[kc, az, ay, 0] * u[z, y, 0]
    if n > 1:
        t[0] -= a[ke, az, ay, 0] * u[z, y, 1]
        t[n - 1] -= a[kw, az, ay, last] * u[z, y, n - 2] + a[kc, az, ay, last] * u[z, y, n - 1]
    if periodic:
        t[0] -= a[kw, az, ay, 0] * u[z, y, n - 1]
        t[n - 1] -= a[ke, az, ay, last] * u[z, y, 0]


@njit(**_FAST)
def _subtract_row(t, a, k, az, ay, u, z, y):
    """t[j] -= c[j] u[j]."""
    if a.shape[3] == 1:
        c = a[k, az, ay, 0]
        for j in range(t.shape[0]):
            t[j] -= c * u[z, y, j]
    else:
        for j in range(t.shape[0]):
            t[j] -= a[k, az, ay, j] * u[z, y, j]


@njit(**_FAST)
def _subtract_pair(t, a, k, m, az, ay, u, z, y, zz, yy):
    """t[j] -= c[j] u[j] + d[j] v[j], two rows at once."""
    if a.shape[3] == 1:
        c, d = a[k, az, ay, 0], a[m, az, ay, 0]
        for j in range(t.shape[0]):
            t[j] -= c * u[z, y, j] + d * u[zz, yy, j]
    else:
        for j in range(t.shape[0]):
            t[j] -= a[k, az, ay, j] * u[z, y, j] + a[m, az, ay, j] * u[zz, yy, j]


@njit(**_FAST)
def _subtract_rows(t, u, a, rows, first, z, y, periodic):
    """t -= (the stencil's row at (z, y) applied to u), from row group ``first`` on.

    Neighbouring groups of one entry each (the arms of a cross) are taken two at a time.
    """
    nz, ny = u.shape[0], u.shape[1]
    az, ay = min(z, a.shape[1] - 1), min(y, a.shape[2] - 1)
    waiting, wz, wy = -1, 0, 0
    for r in range(first, rows.shape[0]):
        zz = _wrap(z + rows[r, 0], nz, periodic[0])
        yy = _wrap(y + rows[r, 1], ny, periodic[1])
        if zz < 0 or yy < 0:
            continue
        kw, kc, ke = rows[r, 2], rows[r, 3], rows[r, 4]
        if kw >= 0:
            _subtract_triplet(t, a, kw, kc, ke, az, ay, u, zz, yy, periodic[2])
        elif waiting < 0:
            waiting, wz, wy = kc, zz, yy
        else:
            _subtract_pair(t, a, waiting, kc, az, ay, u, wz, wy, zz, yy)
            waiting = -1
    if waiting >= 0:
        _subtract_row(t, a, waiting, az, ay, u, wz, wy)


def _apply(out, u, a, rows, periodic):
    """out = A u."""
    nb, nz, ny, _ = u.shape
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        t = out[s, z, y]
        _fill(t, 0)
        _subtract_rows(t, u[s], a[s % a.shape[0]], rows, 0, z, y, periodic)
        for j in range(t.shape[0]):
            t[j] = -t[j]


@njit(**_FAST)
def _relax_columns(x, z, y, t, a, kw, ke, inverse, az, ay, step, masks, colour, periodic):
    """x[j] = (t[j] - w[j] x[j-1] - e[j] x[j+1]) inverse[j] where the colour's mask is one.

    All columns are computed and the mask picks: that vectorises, strided columns do not.
    """
    n, end = t.shape[0], a.shape[3] - 1
    if n == 1:
        x[z, y, 0] = t[0] * inverse[az, ay, 0]
        return
    if end == 0:
        w, e, factor = a[kw, az, ay, 0], a[ke, az, ay, 0], inverse[az, ay, 0]
        for j in range(1, n - 1):
            step[j] = (t[j] - w * x[z, y, j - 1] - e * x[z, y, j + 1]) * factor - x[z, y, j]
    else:
        for j in range(1, n - 1):
            value = t[j] - a[kw, az, ay, j] * x[z, y, j - 1] - a[ke, az, ay, j] * x[z, y, j + 1]
            step[j] = value * inverse[az, ay, j] - x[z, y, j]
    first = t[0] - a[ke, az, ay, 0] * x[z, y, 1]
    last = t[n - 1] - a[kw, az, ay, end] * x[z, y, n - 2]
    if periodic:
        first -= a[kw, az, ay, 0] * x[z, y, n - 1]
        last -= a[ke, az, ay, end] * x[z, y, 0]
    step[0] = first * inverse[az, ay, 0] - x[z, y, 0]
    step[n - 1] = last * inverse[az, ay, end] - x[z, y, n - 1]
    for j in range(n):
        x[z, y, j] += masks[colour, j] * step[j]


@njit(**_FAST)
def _colours(n, periodic):
    """Number of colours of an axis: an odd periodic one has a third, its last index."""
    return min(n, 3 if periodic and n % 2 == 1 else 2)


@njit(**_FAST)
def _members(n, colours, colour):
    """First index and count of an axis' colour, whose stride is 2."""
    if colour == 2:
        return n - 1, 1
    return colour, (n - (1 if colours == 3 else 0) - colour + 1) // 2


@njit(**_FAST)
def _relax_plane(
    x, b, a, inverse, rows, masks, periodic, z, first, last, y0, reverse, alone, t, step
):
    """Rows y0 + 2 i, first <= i < last, of the plane z; ``alone``: the other rows are zero."""
    az = min(z, a.shape[1] - 1)
    for i in range(first, last):
        y = y0 + 2 * i
        ay = min(y, a.shape[2] - 1)
        for j in range(t.shape[0]):
            t[j] = b[z, y, j]
        if not alone:
            _subtract_rows(t, x, a, rows, 1, z, y, periodic)
        for k in range(masks.shape[0]):
            colour = masks.shape[0] - 1 - k if reverse else k
            _relax_columns(x, z, y, t, a, rows[0, 2], rows[0, 4], inverse, az, ay, step, masks,
                           colour, periodic[2])


def _sweep(x, b, a, inverse, rows, periodic, reverse, from_zero, slabs):
    """One coloured Gauss-Seidel sweep; ``reverse`` gives its adjoint ordering.

    Colours: the parities of z, y and x. Planes of one colour are independent, so that in 3-D a
    plane's row colours follow each other while it is in the cache; slabs of planes, or in 2-D of
    rows, go to the threads.
    """
    nb, nz, ny, nx = x.shape
    kz, ky, kx = (_colours(nz, periodic[0]), _colours(ny, periodic[1]), _colours(nx, periodic[2]))
    masks = np.zeros((kx, nx), dtype=x.dtype)
    for k in range(kx):
        start, count = _members(nx, kx, k)
        masks[k, start : start + 2 * count : 2] = 1
    if from_zero:
        _fill(x.reshape(-1), 0)
    flat = nz == 1
    for c in range(ky if flat else kz):
        colour = (ky if flat else kz) - 1 - c if reverse else c
        start, count = _members(ny, ky, colour) if flat else _members(nz, kz, colour)
        total = nb * count
        for slab in prange(slabs):
            t, step = np.empty(nx, dtype=x.dtype), np.empty(nx, dtype=x.dtype)
            low, high = slab * total // slabs, (slab + 1) * total // slabs
            while low < high:
                s, i = low // count, low % count
                stencil, diagonal = a[s % a.shape[0]], inverse[s % inverse.shape[0]]
                if flat:
                    many = min(count - i, high - low)
                    _relax_plane(x[s], b[s], stencil, diagonal, rows, masks, periodic, 0, i,
                                 i + many, start, reverse, from_zero and c == 0, t, step)
                    low += many
                    continue
                for d in range(ky):
                    y0, my = _members(ny, ky, ky - 1 - d if reverse else d)
                    _relax_plane(x[s], b[s], stencil, diagonal, rows, masks, periodic,
                                 start + 2 * i, 0, my, y0, reverse,
                                 from_zero and c == 0 and d == 0, t, step)
                low += 1


@njit(**_FAST)
def _parents(f, factor):
    """Coarse indices and offsets of fine index f: (C1, d1, C2, d2), the second -9 if absent."""
    if factor == 1:
        return f, 0, -9, 0
    if f % 2 == 1:
        return f // 2, 0, -9, 0
    return f // 2, -1, f // 2 - 1, 1


@njit(**_FAST)
def _restrict_row(out, z, y, r, p, k, factor, periodic):
    """out[C] += w[C] r[2C] + c[C] r[2C+1] + e[C] r[2C+2] (factor 2), or c[C] r[C]."""
    m, n = out.shape[2], r.shape[0]
    pz, py = min(z, p.shape[1] - 1), min(y, p.shape[2] - 1)
    if factor == 1:
        for j in range(m):
            out[z, y, j] += p[k, pz, py, j] * r[j]
        return
    for j in range(m - 1):
        out[z, y, j] += (
            p[k, pz, py, j] * r[2 * j]
            + p[k + 1, pz, py, j] * r[2 * j + 1]
            + p[k + 2, pz, py, j] * r[2 * j + 2]
        )
    j = m - 1
    out[z, y, j] += p[k, pz, py, j] * r[2 * j] + p[k + 1, pz, py, j] * r[2 * j + 1]
    if 2 * j + 2 < n:
        out[z, y, j] += p[k + 2, pz, py, j] * r[2 * j + 2]
    elif periodic:
        out[z, y, j] += p[k + 2, pz, py, j] * r[0]


@njit(**_FAST)
def _restrict_slab(coarse, x, b, a, p, rows, factors, periodic, z0, z1, y0, y1):
    """coarse[z0:z1, y0:y1] = P^T (b - A x), one pass over the fine rows it needs."""
    nz, ny = x.shape[0], x.shape[1]
    fz, fy, fx = factors
    px = 3 if fx == 2 else 1
    py = 3 if fy == 2 else 1
    for z in range(z0, z1):
        for y in range(y0, y1):
            _fill(coarse[z, y], 0)
    r = np.empty_like(x[0, 0])
    for f in range(fz * z0, fz * z1 + fz - 1):
        z = _wrap(f, nz, periodic[0])
        if z < 0:
            continue
        zc1, dz1, zc2, dz2 = _parents(f, fz)
        for g in range(fy * y0, fy * y1 + fy - 1):
            y = _wrap(g, ny, periodic[1])
            if y < 0:
                continue
            for j in range(r.shape[0]):
                r[j] = b[z, y, j]
            _subtract_rows(r, x, a, rows, 0, z, y, periodic)
            yc1, dy1, yc2, dy2 = _parents(g, fy)
            for i in range(4):
                zc, dz = (zc1, dz1) if i < 2 else (zc2, dz2)
                yc, dy = (yc1, dy1) if i % 2 == 0 else (yc2, dy2)
                if z0 <= zc < z1 and y0 <= yc < y1:
                    k = (dz + (1 if fz == 2 else 0)) * py + dy + (1 if fy == 2 else 0)
                    _restrict_row(coarse, zc, yc, r, p, px * k, fx, periodic[2])


def _restrict_residual(coarse, x, b, a, p, rows, factors, periodic, slabs):
    """coarse = P^T (b - A x), the outermost axis cut into slabs, one per thread."""
    nb, mz, my, _ = coarse.shape
    along_z = mz > 1
    m = mz if along_z else my
    for i in prange(nb * slabs):
        s, c = i // slabs, i % slabs
        low, high = c * m // slabs, (c + 1) * m // slabs
        z0, z1 = (low, high) if along_z else (0, mz)
        y0, y1 = (0, my) if along_z else (low, high)
        if low < high:
            _restrict_slab(coarse[s], x[s], b[s], a[s % a.shape[0]],
                           p[s % p.shape[0]], rows, factors, periodic, z0, z1, y0, y1)


@njit(**_FAST)
def _prolong_row(x, z, y, u, zc, yc, p, k, factor, periodic):
    """x[2C] += w[C] u[C] + e[C-1] u[C-1], x[2C+1] += c[C] u[C] (factor 2), or x[C] += c[C] u[C]."""
    m, n = u.shape[2], x.shape[2]
    pz, py = min(zc, p.shape[1] - 1), min(yc, p.shape[2] - 1)
    if factor == 1:
        for j in range(m):
            x[z, y, j] += p[k, pz, py, j] * u[zc, yc, j]
        return
    x[z, y, 0] += p[k, pz, py, 0] * u[zc, yc, 0]
    if periodic:
        x[z, y, 0] += p[k + 2, pz, py, m - 1] * u[zc, yc, m - 1]
    x[z, y, 1] += p[k + 1, pz, py, 0] * u[zc, yc, 0]
    for j in range(1, m):
        left = p[k + 2, pz, py, j - 1] * u[zc, yc, j - 1]
        x[z, y, 2 * j] += p[k, pz, py, j] * u[zc, yc, j] + left
        x[z, y, 2 * j + 1] += p[k + 1, pz, py, j] * u[zc, yc, j]
    if n == 2 * m + 1:
        x[z, y, 2 * m] += p[k + 2, pz, py, m - 1] * u[zc, yc, m - 1]


def _prolong_add(x, coarse, p, factors, periodic):
    """x += P coarse."""
    nb, nz, ny, _ = x.shape
    mz, my = coarse.shape[1], coarse.shape[2]
    fz, fy, fx = factors
    px = 3 if fx == 2 else 1
    py = 3 if fy == 2 else 1
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        zc1, dz1, zc2, dz2 = _parents(z, fz)
        yc1, dy1, yc2, dy2 = _parents(y, fy)
        weights = p[s % p.shape[0]]
        for q in range(4):
            zc, dz = (zc1, dz1) if q < 2 else (zc2, dz2)
            yc, dy = (yc1, dy1) if q % 2 == 0 else (yc2, dy2)
            if zc == -9 or yc == -9:
                continue
            zc, yc = _wrap(zc, mz, periodic[0]), _wrap(yc, my, periodic[1])
            if zc < 0 or yc < 0:
                continue
            k = ((dz + (1 if fz == 2 else 0)) * py + dy + (1 if fy == 2 else 0)) * px
            _prolong_row(x[s], z, y, coarse[s], zc, yc, weights, k, fx, periodic[2])


@njit(**_FAST)
def _columns(d, e, factor, n, m):
    """Coarse columns C with fine column factor C + (factor - 1) + d and C + e inside: [low, high)."""
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
            _fill(out[s, k, zc, yc], 0)
        left, fine = p[s], a[s % a.shape[0]]
        for q in range(table.shape[0]):
            z = _wrap(fz * zc + fz - 1 + table[q, 4], nz, periodic[0])
            y = _wrap(fy * yc + fy - 1 + table[q, 5], ny, periodic[1])
            ze = _wrap(zc + table[q, 7], mz, periodic[0])
            ye = _wrap(yc + table[q, 8], my, periodic[1])
            if z < 0 or y < 0 or ze < 0 or ye < 0:
                continue
            t, c = out[s, table[q, 0], zc, yc], fine[table[q, 1], z, y]
            l, r = left[table[q, 2], zc, yc], left[table[q, 3], ze, ye]
            d, e = table[q, 6], table[q, 9]
            low, high = _columns(d, e, fx, n, m)
            if fx == 2:
                cs, rs = c[2 * low + 1 + d:], r[low + e:]
                ts, ls = t[low:], l[low:]
                for j in range(high - low):
                    ts[j] += ls[j] * cs[2 * j] * rs[j]
            else:
                for j in range(low, high):
                    t[j] += l[j] * c[j] * r[j + e]
            if periodic[2]:
                for j in range(low):
                    t[j] += l[j] * c[(fx * j + fx - 1 + d) % n] * r[(j + e) % m]
                for j in range(high, m):
                    t[j] += l[j] * c[(fx * j + fx - 1 + d) % n] * r[(j + e) % m]


def _mirror(out, pairs, periodic):
    """Planes of a symmetric stencil from their opposites: out_{-e}[C] = out_e[C - e].

    ``pairs`` rows: (plane of -e, plane of e, -e along z, y, x).
    """
    nb, _, nz, ny, n = out.shape
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        for q in range(pairs.shape[0]):
            t = out[s, pairs[q, 0], z, y]
            zz = _wrap(z + pairs[q, 2], nz, periodic[0])
            yy = _wrap(y + pairs[q, 3], ny, periodic[1])
            if zz < 0 or yy < 0:
                _fill(t, 0)
                continue
            source, d = out[s, pairs[q, 1], zz, yy], pairs[q, 4]
            low, high = max(0, -d), min(n, n - d)
            _fill(t[:low], 0)
            _fill(t[high:], 0)
            _copy(t[low:high], source[low + d : high + d])
            if periodic[2] and low > 0:
                t[0] = source[n - 1]
            if periodic[2] and high < n:
                t[n - 1] = source[0]


def _interpolate(out, a, terms, starts, factors, periodic):
    """Operator-dependent weights (Dendy 1982): see ``multigrid.transfer`` for the formula.

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
            z = _wrap(fz * zc + fz - 1 + terms[first, 3], nz, periodic[0])
            y = _wrap(fy * yc + fy - 1 + terms[first, 4], ny, periodic[1])
            _fill(t, 0)
            if z < 0 or y < 0:
                continue
            _fill(total, 0)
            _fill(centre, 0)
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
                t[j] = total[j] / centre[j]


def _apply_dot(out, u, a, rows, periodic, sums, slabs):
    """out = A u and sums[sample, slab] = the slab's part of <u, A u>."""
    nb, nz, ny, nx = u.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        total = 0.0
        first, last = slab * nz * ny // slabs, (slab + 1) * nz * ny // slabs
        field, stencil = u[s], a[s % a.shape[0]]
        z, y = first // ny, first % ny
        for _ in range(last - first):
            t, v = out[s, z, y], field[z, y]
            _fill(t, 0)
            _subtract_rows(t, field, stencil, rows, 0, z, y, periodic)
            for j in range(nx):
                t[j] = -t[j]
            for j in range(nx):
                total += t[j] * v[j]
            y += 1
            if y == ny:
                y, z = 0, z + 1
        sums[s, slab] = total


def _step(x, r, p, q, alpha, sums, slabs):
    """x += alpha p, r -= alpha q and sums[sample, slab] = the slab's part of <r, r>."""
    nb, n = x.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        xs, rs, ps, qs = x[s, low:high], r[s, low:high], p[s, low:high], q[s, low:high]
        factor, total = alpha[s], 0.0
        for j in range(high - low):
            xs[j] += factor * ps[j]
        for j in range(high - low):
            rs[j] -= factor * qs[j]
            total += rs[j] * rs[j]
        sums[s, slab] = total


def _scale(out, u, factor, slabs):
    """out = factor u, from one precision to another."""
    nb, n = out.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        target, source, f = out[s, low:high], u[s, low:high], factor[s]
        for j in range(high - low):
            target[j] = f * source[j]


class _Twin:
    """One loop nest compiled twice: serial, and parallel for arrays worth the threads' start."""

    worth_threads = 50_000

    def __init__(self, loops):
        # numba's disk cache tells functions apart by name only, not by their options.
        alias = FunctionType(
            loops.__code__.replace(co_name=f"{loops.__name__}_parallel"), loops.__globals__
        )
        alias.__qualname__ = alias.__name__
        self.serial = njit(cache=True, **_FAST)(loops)
        self.parallel = njit(cache=True, parallel=True, **_FAST)(alias)

    def __call__(self, threads, size, *arguments):
        kernel = self.parallel if threads > 1 and size > self.worth_threads else self.serial
        kernel(*arguments)


apply_rows = _Twin(_apply)
sweep_rows = _Twin(_sweep)
restrict_rows = _Twin(_restrict_residual)
prolong_rows = _Twin(_prolong_add)
galerkin_rows = _Twin(_galerkin)
interpolate_rows = _Twin(_interpolate)
apply_dot_rows = _Twin(_apply_dot)
step_rows = _Twin(_step)
scale_rows = _Twin(_scale)
mirror_rows = _Twin(_mirror)
