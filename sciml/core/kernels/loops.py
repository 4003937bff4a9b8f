"""The kernels of a cycle as numba loops over rows, for CPU tensors.

Every array is viewed as ``(batch, z, y, x)`` and every stencil as ``(batch, plane, z, y, x)``,
lower dimensions with leading ones; the last axis is contiguous and vectorised. Coefficient axes of
length one broadcast, so a constant stencil is one row that stays in the cache. No ghost ring is
stored: rows outside the array are skipped, row ends are peeled.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from sciml.core.kernels.jit import FAST, Twin, fill, wrap


# Rows are named by their indices: a view of one costs more than the sum over a short row.
@njit(**FAST)
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


@njit(**FAST)
def _subtract_row(t, a, k, az, ay, u, z, y):
    """t[j] -= c[j] u[j]."""
    if a.shape[3] == 1:
        c = a[k, az, ay, 0]
        for j in range(t.shape[0]):
            t[j] -= c * u[z, y, j]
    else:
        for j in range(t.shape[0]):
            t[j] -= a[k, az, ay, j] * u[z, y, j]


@njit(**FAST)
def _subtract_pair(t, a, k, m, az, ay, u, z, y, zz, yy):
    """t[j] -= c[j] u[j] + d[j] v[j], two rows at once."""
    if a.shape[3] == 1:
        c, d = a[k, az, ay, 0], a[m, az, ay, 0]
        for j in range(t.shape[0]):
            t[j] -= c * u[z, y, j] + d * u[zz, yy, j]
    else:
        for j in range(t.shape[0]):
            t[j] -= a[k, az, ay, j] * u[z, y, j] + a[m, az, ay, j] * u[zz, yy, j]


@njit(**FAST)
def _subtract_rows(t, u, a, rows, first, z, y, periodic):
    """t -= (the stencil's row at (z, y) applied to u), from row group ``first`` on.

    Neighbouring groups of one entry each (the arms of a cross) are taken two at a time.
    """
    nz, ny = u.shape[0], u.shape[1]
    az, ay = min(z, a.shape[1] - 1), min(y, a.shape[2] - 1)
    waiting, wz, wy = -1, 0, 0
    for r in range(first, rows.shape[0]):
        zz = wrap(z + rows[r, 0], nz, periodic[0])
        yy = wrap(y + rows[r, 1], ny, periodic[1])
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
        fill(t, 0)
        _subtract_rows(t, u[s], a[s % a.shape[0]], rows, 0, z, y, periodic)
        for j in range(t.shape[0]):
            t[j] = -t[j]


@njit(**FAST)
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


@njit(**FAST)
def _colours(n, periodic):
    """Number of colours of an axis: an odd periodic one has a third, its last index."""
    return min(n, 3 if periodic and n % 2 == 1 else 2)


@njit(**FAST)
def _members(n, colours, colour):
    """First index and count of an axis' colour, whose stride is 2."""
    if colour == 2:
        return n - 1, 1
    return colour, (n - (1 if colours == 3 else 0) - colour + 1) // 2


@njit(**FAST)
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
            _relax_columns(
                x,
                z,
                y,
                t,
                a,
                rows[0, 2],
                rows[0, 4],
                inverse,
                az,
                ay,
                step,
                masks,
                colour,
                periodic[2],
            )


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
        fill(x.reshape(-1), 0)
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
                    _relax_plane(
                        x[s],
                        b[s],
                        stencil,
                        diagonal,
                        rows,
                        masks,
                        periodic,
                        0,
                        i,
                        i + many,
                        start,
                        reverse,
                        from_zero and c == 0,
                        t,
                        step,
                    )
                    low += many
                    continue
                for d in range(ky):
                    y0, my = _members(ny, ky, ky - 1 - d if reverse else d)
                    _relax_plane(
                        x[s],
                        b[s],
                        stencil,
                        diagonal,
                        rows,
                        masks,
                        periodic,
                        start + 2 * i,
                        0,
                        my,
                        y0,
                        reverse,
                        from_zero and c == 0 and d == 0,
                        t,
                        step,
                    )
                low += 1


@njit(**FAST)
def _parents(f, factor):
    """Coarse indices and offsets of fine index f: (C1, d1, C2, d2), the second -9 if absent."""
    if factor == 1:
        return f, 0, -9, 0
    if f % 2 == 1:
        return f // 2, 0, -9, 0
    return f // 2, -1, f // 2 - 1, 1


@njit(**FAST)
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


@njit(**FAST)
def _restrict_slab(coarse, x, b, a, p, rows, factors, periodic, z0, z1, y0, y1):
    """coarse[z0:z1, y0:y1] = P^T (b - A x), one pass over the fine rows it needs."""
    nz, ny = x.shape[0], x.shape[1]
    fz, fy, fx = factors
    px = 3 if fx == 2 else 1
    py = 3 if fy == 2 else 1
    for z in range(z0, z1):
        for y in range(y0, y1):
            fill(coarse[z, y], 0)
    r = np.empty_like(x[0, 0])
    for f in range(fz * z0, fz * z1 + fz - 1):
        z = wrap(f, nz, periodic[0])
        if z < 0:
            continue
        zc1, dz1, zc2, dz2 = _parents(f, fz)
        for g in range(fy * y0, fy * y1 + fy - 1):
            y = wrap(g, ny, periodic[1])
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
            _restrict_slab(
                coarse[s],
                x[s],
                b[s],
                a[s % a.shape[0]],
                p[s % p.shape[0]],
                rows,
                factors,
                periodic,
                z0,
                z1,
                y0,
                y1,
            )


@njit(**FAST)
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
            zc, yc = wrap(zc, mz, periodic[0]), wrap(yc, my, periodic[1])
            if zc < 0 or yc < 0:
                continue
            k = ((dz + (1 if fz == 2 else 0)) * py + dy + (1 if fy == 2 else 0)) * px
            _prolong_row(x[s], z, y, coarse[s], zc, yc, weights, k, fx, periodic[2])


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
            fill(t, 0)
            _subtract_rows(t, field, stencil, rows, 0, z, y, periodic)
            for j in range(nx):
                t[j] = -t[j]
            for j in range(nx):
                total += t[j] * v[j]
            y += 1
            if y == ny:
                y, z = 0, z + 1
        sums[s, slab] = total


apply_rows = Twin(_apply)
sweep_rows = Twin(_sweep)
restrict_rows = Twin(_restrict_residual)
prolong_rows = Twin(_prolong_add)
apply_dot_rows = Twin(_apply_dot)
