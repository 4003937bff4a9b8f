"""The kernels as numba loops over rows, for CPU tensors.

Every array is viewed as ``(batch, z, y, x)`` and every stencil as ``(batch, plane, z, y, x)``,
lower dimensions with leading ones; the last axis is contiguous and vectorised. Coefficient axes of
length one broadcast, so a constant stencil is one row that stays in the cache. No ghost ring is
stored: rows outside the array are skipped, row ends are peeled.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba.core.compiler import Compiler



class _Distinct(Compiler):
    """numba's compiler, told that array arguments never overlap, as they never do here.

    Without it every short loop checks its pointers for overlap at run time: twice the time.
    """

    def __init__(
        self, typingctx, targetctx, library, args, return_type, flags, locals
    ):  # numba calls with these names
        flags.noalias = True
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)


_FAST = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
    "pipeline_class": _Distinct,
}


@njit(**_FAST)
def _wrap(i, n, periodic):
    """Index i on an axis of n, wrapped if periodic, -1 if outside."""
    if 0 <= i < n:
        return i
    return i % n if periodic else -1


@njit(**_FAST)
def _subtract_triplet(t, w, c, e, u, periodic):
    """t[j] -= w[j] u[j-1] + c[j] u[j] + e[j] u[j+1]; coefficient rows of length one broadcast."""
    n, last = t.shape[0], w.shape[0] - 1
    if last == 0:
        w0, c0, e0 = w[0], c[0], e[0]
        for j in range(1, n - 1):
            t[j] -= w0 * u[j - 1] + c0 * u[j] + e0 * u[j + 1]
    else:
        for j in range(1, n - 1):
            t[j] -= w[j] * u[j - 1] + c[j] * u[j] + e[j] * u[j + 1]
    t[0] -= c[0] * u[0]
    if n > 1:
        t[0] -= e[0] * u[1]
        t[n - 1] -= w[last] * u[n - 2] + c[last] * u[n - 1]
    if periodic:
        t[0] -= w[0] * u[n - 1]
        t[n - 1] -= e[last] * u[0]


@njit(**_FAST)
def _subtract_row(t, c, u):
    """t[j] -= c[j] u[j]."""
    if c.shape[0] == 1:
        c0 = c[0]
        for j in range(t.shape[0]):
            t[j] -= c0 * u[j]
    else:
        for j in range(t.shape[0]):
            t[j] -= c[j] * u[j]


@njit(**_FAST)
def _subtract_pair(t, c, u, d, v):
    """t[j] -= c[j] u[j] + d[j] v[j]."""
    if c.shape[0] == 1:
        c0, d0 = c[0], d[0]
        for j in range(t.shape[0]):
            t[j] -= c0 * u[j] + d0 * v[j]
    else:
        for j in range(t.shape[0]):
            t[j] -= c[j] * u[j] + d[j] * v[j]


@njit(**_FAST)
def _subtract_rows(t, u, a, rows, first, z, y, periodic):
    """t -= (the stencil's row at (z, y) applied to u), from row group ``first`` on.

    Neighbouring groups of one entry each (the arms of a cross) are taken two at a time.
    """
    nz, ny = u.shape[0], u.shape[1]
    az, ay = min(z, a.shape[1] - 1), min(y, a.shape[2] - 1)
    waiting = -1
    for r in range(first, rows.shape[0]):
        zz = _wrap(z + rows[r, 0], nz, periodic[0])
        yy = _wrap(y + rows[r, 1], ny, periodic[1])
        if zz < 0 or yy < 0:
            continue
        c = a[rows[r, 3], az, ay]
        if rows[r, 2] >= 0:
            w, e = a[rows[r, 2], az, ay], a[rows[r, 4], az, ay]
            _subtract_triplet(t, w, c, e, u[zz, yy], periodic[2])
        elif waiting < 0:
            waiting, wz, wy = r, zz, yy
        else:
            _subtract_pair(t, a[rows[waiting, 3], az, ay], u[wz, wy], c, u[zz, yy])
            waiting = -1
    if waiting >= 0:
        _subtract_row(t, a[rows[waiting, 3], az, ay], u[wz, wy])


def _apply(out, u, a, rows, periodic):
    """out = A u."""
    nb, nz, ny, _ = u.shape
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        t = out[s, z, y]
        t[:] = 0
        _subtract_rows(t, u[s], a[s % a.shape[0]], rows, 0, z, y, periodic)
        for j in range(t.shape[0]):
            t[j] = -t[j]


@njit(**_FAST)
def _relax_columns(x, t, w, e, inverse, step, mask, periodic):
    """x[j] = (t[j] - w[j] x[j-1] - e[j] x[j+1]) inverse[j] where the mask is one, not zero.

    All columns are computed and the mask picks: that vectorises, strided columns do not.
    """
    n, end = x.shape[0], w.shape[0] - 1
    if n == 1:
        x[0] = t[0] * inverse[0]
        return
    if end == 0:
        w0, e0, i0 = w[0], e[0], inverse[0]
        for j in range(1, n - 1):
            step[j] = (t[j] - w0 * x[j - 1] - e0 * x[j + 1]) * i0 - x[j]
    else:
        for j in range(1, n - 1):
            step[j] = (t[j] - w[j] * x[j - 1] - e[j] * x[j + 1]) * inverse[j] - x[j]
    first, last = t[0] - e[0] * x[1], t[n - 1] - w[end] * x[n - 2]
    if periodic:
        first -= w[0] * x[n - 1]
        last -= e[end] * x[0]
    step[0] = first * inverse[0] - x[0]
    step[n - 1] = last * inverse[end] - x[n - 1]
    for j in range(n):
        x[j] += mask[j] * step[j]


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


def _sweep(x, b, a, inverse, rows, periodic, reverse, from_zero, slabs):
    """One coloured Gauss-Seidel sweep; ``reverse`` gives its adjoint ordering.

    Colours: the parities of z, y and x. Rows of one colour are cut into slabs, one per thread.
    """
    nb, nz, ny, nx = x.shape
    kz, ky, kx = (
        _colours(nz, periodic[0]), _colours(ny, periodic[1]), _colours(nx, periodic[2])
    )
    masks = np.zeros((kx, nx), dtype=x.dtype)
    for k in range(kx):
        start, count = _members(nx, kx, k)
        masks[k, start : start + 2 * count : 2] = 1
    if from_zero:
        x[:] = 0
    for c in range(kz * ky):
        colour = kz * ky - 1 - c if reverse else c
        z0, mz = _members(nz, kz, colour // ky)
        y0, my = _members(ny, ky, colour % ky)
        total = nb * mz * my
        for slab in prange(slabs):
            t, step = np.empty(nx, dtype=x.dtype), np.empty(nx, dtype=x.dtype)
            for i in range(slab * total // slabs, (slab + 1) * total // slabs):
                s, z, y = i // (mz * my), z0 + 2 * (i // my % mz), y0 + 2 * (i % my)
                stencil = a[s % a.shape[0]]
                az, ay = min(z, a.shape[2] - 1), min(y, a.shape[3] - 1)
                t[:] = b[s, z, y]
                if not (from_zero and c == 0):
                    _subtract_rows(t, x[s], stencil, rows, 1, z, y, periodic)
                w, e = stencil[rows[0, 2], az, ay], stencil[rows[0, 4], az, ay]
                diagonal = inverse[s % inverse.shape[0], az, ay]
                for k in range(kx):
                    mask = masks[kx - 1 - k if reverse else k]
                    _relax_columns(x[s, z, y], t, w, e, diagonal, step, mask, periodic[2])


@njit(**_FAST)
def _parents(f, factor):
    """Coarse indices and offsets of fine index f: (C1, d1, C2, d2), the second -9 if absent."""
    if factor == 1:
        return f, 0, -9, 0
    if f % 2 == 1:
        return f // 2, 0, -9, 0
    return f // 2, -1, f // 2 - 1, 1


@njit(**_FAST)
def _restrict_row(out, r, w, c, e, factor, periodic):
    """out[C] += w[C] r[2C] + c[C] r[2C+1] + e[C] r[2C+2] (factor 2), or c[C] r[C]."""
    m, n = out.shape[0], r.shape[0]
    if factor == 1:
        for j in range(m):
            out[j] += c[j] * r[j]
        return
    for j in range(m - 1):
        out[j] += w[j] * r[2 * j] + c[j] * r[2 * j + 1] + e[j] * r[2 * j + 2]
    j = m - 1
    out[j] += w[j] * r[2 * j] + c[j] * r[2 * j + 1]
    if 2 * j + 2 < n:
        out[j] += e[j] * r[2 * j + 2]
    elif periodic:
        out[j] += e[j] * r[0]


@njit(**_FAST)
def _restrict_slab(coarse, x, b, a, p, rows, factors, periodic, z0, z1, y0, y1):
    """coarse[z0:z1, y0:y1] = P^T (b - A x), one pass over the fine rows it needs."""
    nz, ny = x.shape[0], x.shape[1]
    fz, fy, fx = factors
    px = 3 if fx == 2 else 1
    py = 3 if fy == 2 else 1
    coarse[z0:z1, y0:y1] = 0
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
            r[:] = b[z, y]
            _subtract_rows(r, x, a, rows, 0, z, y, periodic)
            yc1, dy1, yc2, dy2 = _parents(g, fy)
            for i in range(4):
                zc, dz = (zc1, dz1) if i < 2 else (zc2, dz2)
                yc, dy = (yc1, dy1) if i % 2 == 0 else (yc2, dy2)
                if z0 <= zc < z1 and y0 <= yc < y1:
                    k = (dz + (1 if fz == 2 else 0)) * py + dy + (1 if fy == 2 else 0)
                    wz, wy = min(zc, p.shape[1] - 1), min(yc, p.shape[2] - 1)
                    k *= px
                    _restrict_row(coarse[zc, yc], r, p[k, wz, wy], p[k + px // 2, wz, wy],
                                  p[k + px - 1, wz, wy], fx, periodic[2])


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
def _prolong_row(x, u, w, c, e, factor, periodic):
    """x[2C] += w[C] u[C] + e[C-1] u[C-1], x[2C+1] += c[C] u[C] (factor 2), or x[C] += c[C] u[C]."""
    m, n = u.shape[0], x.shape[0]
    if factor == 1:
        for j in range(m):
            x[j] += c[j] * u[j]
        return
    x[0] += w[0] * u[0]
    if periodic:
        x[0] += e[m - 1] * u[m - 1]
    x[1] += c[0] * u[0]
    for j in range(1, m):
        x[2 * j] += w[j] * u[j] + e[j - 1] * u[j - 1]
        x[2 * j + 1] += c[j] * u[j]
    if n == 2 * m + 1:
        x[2 * m] += e[m - 1] * u[m - 1]


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
            wz, wy = min(zc, weights.shape[1] - 1), min(yc, weights.shape[2] - 1)
            _prolong_row(x[s, z, y], coarse[s, zc, yc], weights[k, wz, wy],
                         weights[k + px // 2, wz, wy], weights[k + px - 1, wz, wy], fx,
                         periodic[2])


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
        out[s, :, zc, yc] = 0
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
                t[:] = 0
                continue
            source, d = out[s, pairs[q, 1], zz, yy], pairs[q, 4]
            low, high = max(0, -d), min(n, n - d)
            t[:low] = 0
            t[high:] = 0
            t[low:high] = source[low + d : high + d]
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
            t[:] = 0
            if z < 0 or y < 0:
                continue
            total[:] = 0
            centre[:] = 0
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
        for row in range(slab * nz * ny // slabs, (slab + 1) * nz * ny // slabs):
            z, y = row // ny, row % ny
            t, v = out[s, z, y], u[s, z, y]
            t[:] = 0
            _subtract_rows(t, u[s], a[s % a.shape[0]], rows, 0, z, y, periodic)
            for j in range(nx):
                t[j] = -t[j]
            for j in range(nx):
                total += t[j] * v[j]
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
        self.serial = njit(cache=True, **_FAST)(loops)
        self.parallel = njit(cache=True, parallel=True, **_FAST)(loops)

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
