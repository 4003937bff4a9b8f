"""The kernels as numba loops over rows, for CPU tensors.

Every array is viewed as ``(batch, z, y, x)`` and every stencil as ``(batch, plane, z, y, x)``; one
axis is x, two are z and x. The last axis is contiguous and vectorised. Coefficient axes of length
one broadcast, so a constant stencil is one row that stays in the cache; the set-up loops, which
look their fine rows up, want all coefficients in memory. No ghost ring is stored.

What is imported from ``rows`` stands for the rows of the stencil at hand: each nest is compiled for
every shape of stencil that is used.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from sciml.core.algebra.kernels.jit import Loop, copy, fast, fill, wrap
from sciml.core.algebra.kernels.rows import Ring, product, rank, relax, residual

Factors = tuple[int, int, int]  # how the axes z, y, x are coarsened: by 2, or not, 1


# Products and sweeps


def _apply(
    out: np.ndarray, u: np.ndarray, a: np.ndarray, ring: Ring, sums: np.ndarray, slabs: int
) -> None:
    """out = A u and sums[sample, slab] = the slab's part of <u, A u>."""
    nb, nz, ny, _ = u.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        total = 0.0
        for k in range(slab * nz * ny // slabs, (slab + 1) * nz * ny // slabs):
            total += product(out, u, a, s, k // ny, k % ny, ring)
        sums[s, slab] = total


def _sweep(
    x: np.ndarray,
    b: np.ndarray,
    a: np.ndarray,
    inverse: np.ndarray,
    ring: Ring,
    reverse: bool,
    from_zero: bool,
    planes: np.ndarray,
    starts: np.ndarray,
    fresh: np.ndarray,
    rows: np.ndarray,
    slabs: int,
) -> None:
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


# Vectors


def _step(
    x: np.ndarray,
    r: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    alpha: np.ndarray,
    sums: np.ndarray,
    slabs: int,
) -> None:
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


def _scale(out: np.ndarray, u: np.ndarray, factor: np.ndarray, slabs: int) -> None:
    """out = factor u, from one precision to another."""
    nb, n = out.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        target, source, f = out[s, low:high], u[s, low:high], factor[s]
        for j in range(high - low):
            target[j] = f * source[j]


def _inner(r: np.ndarray, z: np.ndarray, sums: np.ndarray, slabs: int) -> None:
    """sums[sample, slab] = the slab's part of <r, z>, in double precision."""
    nb, n = r.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        rs, zs, total = r[s, low:high], z[s, low:high], 0.0
        for j in range(high - low):
            total += rs[j] * zs[j]
        sums[s, slab] = total


def _turn(p: np.ndarray, z: np.ndarray, factor: np.ndarray, beta: np.ndarray, slabs: int) -> None:
    """p = factor z + beta p."""
    nb, n = p.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        ps, zs, f, g = p[s, low:high], z[s, low:high], factor[s], beta[s]
        for j in range(high - low):
            ps[j] = f * zs[j] + g * ps[j]


step_rows = Loop(_step)
scale_rows = Loop(_scale)
inner_rows = Loop(_inner)
turn_rows = Loop(_turn)


# Transfers. The columns 2 C and 2 C + 1 of a fine row are taken apart first, or put together last,
# so that the weights of every coarse row meet contiguous numbers.


@fast(forceinline=True)
def _parent(f: int, factor: int, which: int) -> tuple[int, int]:
    """One of the two coarse indices C that fine index f contributes to, and f - (2 C + 1).

    Along an axis that is not coarsened (f, 0); an offset of 9 means that there is no such parent.
    """
    if factor == 1 or f % 2 == 1:
        return f // factor, 0 if which == 0 else 9
    return (f // 2, -1) if which == 0 else (f // 2 - 1, 1)


@fast(forceinline=True)
def _plane(dz: int, dy: int, factors: Factors) -> int:
    """The first weight plane of the row offsets (dz, dy)."""
    fz, fy, fx = factors
    k = (dz + fz - 1) * (3 if fy == 2 else 1) + dy + fy - 1
    return k * (3 if fx == 2 else 1)


@fast(forceinline=True)
def _take_apart(even: np.ndarray, odd: np.ndarray, r: np.ndarray, ring: bool) -> None:
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


def _restrict_residual(
    coarse: np.ndarray,
    x: np.ndarray,
    b: np.ndarray,
    a: np.ndarray,
    p: np.ndarray,
    factors: Factors,
    ring: Ring,
    slabs: int,
) -> None:
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
                    _take_apart(even, odd, r, ring[2])
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


def _prolong_add(
    x: np.ndarray, coarse: np.ndarray, p: np.ndarray, factors: Factors, ring: Ring, slabs: int
) -> None:
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


# Set-up: prolongation, Galerkin product, symmetry


@fast(forceinline=True)
def _split(parts: np.ndarray, a: np.ndarray, z: int, y: int, factor: int, ring: bool) -> None:
    """The row (z, y) of every plane by the parity of its columns: see ``_take_apart``."""
    m = parts.shape[2] - 1
    for k in range(a.shape[0]):
        if factor == 2:
            _take_apart(parts[k, 0], parts[k, 1, :m], a[k, z, y], ring)
        else:
            copy(parts[k, 1, :m], a[k, z, y])


@fast(forceinline=True)
def _column(parts: np.ndarray, k: int, d: int) -> np.ndarray:
    """Plane k at the fine columns factor C + factor - 1 + d, by C."""
    m = parts.shape[2] - 1
    return parts[k, 1, :m] if d == 0 else parts[k, 0, :m] if d < 0 else parts[k, 0, 1:]


def _galerkin(
    out: np.ndarray, a: np.ndarray, p: np.ndarray, table: np.ndarray, factors: Factors, ring: Ring
) -> None:
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
            z = wrap(fz * zc + fz - 1 + table[q, 4], nz, ring[0])
            y = wrap(fy * yc + fy - 1 + table[q, 5], ny, ring[1])
            if z < 0 or y < 0:
                continue
            if q == 0 or table[q, 4] != table[q - 1, 4] or table[q, 5] != table[q - 1, 5]:
                _split(parts, fine, z, y, fx, ring[2])
            ze = wrap(zc + table[q, 7], mz, ring[0])
            ye = wrap(yc + table[q, 8], my, ring[1])
            if ze < 0 or ye < 0:
                continue
            t, c = out[s, table[q, 0], zc, yc], _column(parts, table[q, 1], table[q, 6])
            left, right = weights[table[q, 2], zc, yc], weights[table[q, 3], ze, ye]
            e = table[q, 9]
            low, high = max(0, -e), min(m, m - e)
            ts, ls, cs, rs = t[low:high], left[low:], c[low:], right[low + e :]
            for j in range(high - low):
                ts[j] += ls[j] * cs[j] * rs[j]
            if ring[2] and low > 0:
                t[0] += left[0] * c[0] * right[m - 1]
            if ring[2] and high < m:
                t[m - 1] += left[m - 1] * c[m - 1] * right[0]


def _mirror(out: np.ndarray, pairs: np.ndarray, ring: Ring) -> None:
    """Planes of a symmetric stencil from their opposites: out_{-e}[C] = out_e[C - e].

    ``pairs`` rows: (plane of -e, plane of e, -e along z, y, x).
    """
    nb, _, nz, ny, n = out.shape
    for i in prange(nb * nz * ny):
        s, z, y = i // (nz * ny), i // ny % nz, i % ny
        for q in range(pairs.shape[0]):
            t = out[s, pairs[q, 0], z, y]
            zz = wrap(z + pairs[q, 2], nz, ring[0])
            yy = wrap(y + pairs[q, 3], ny, ring[1])
            if zz < 0 or yy < 0:
                fill(t, 0)
                continue
            source, d = out[s, pairs[q, 1], zz, yy], pairs[q, 4]
            low, high = max(0, -d), min(n, n - d)
            fill(t[:low], 0)
            fill(t[high:], 0)
            copy(t[low:high], source[low + d : high + d])
            if ring[2] and low > 0:
                t[0] = source[n - 1]
            if ring[2] and high < n:
                t[n - 1] = source[0]


def _interpolate(
    out: np.ndarray,
    a: np.ndarray,
    terms: np.ndarray,
    starts: np.ndarray,
    factors: Factors,
    ring: Ring,
) -> None:
    """Operator-dependent weights (Dendy 1982): see ``sciml.core.algebra.transfer`` for the formula.

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
            z = wrap(fz * zc + fz - 1 + terms[first, 3], nz, ring[0])
            y = wrap(fy * yc + fy - 1 + terms[first, 4], ny, ring[1])
            if z < 0 or y < 0:
                fill(t, 0)
                continue
            if z != held_z or y != held_y:
                _split(parts, fine, z, y, fx, ring[2])
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
