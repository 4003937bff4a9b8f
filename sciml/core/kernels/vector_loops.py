"""The vector updates of an iteration as numba loops, on (batch, size) arrays."""

from __future__ import annotations

from numba import prange

from sciml.core.kernels.jit import Loop


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


def _inner(r, z, sums, slabs):
    """sums[sample, slab] = the slab's part of <r, z>, in double precision."""
    nb, n = r.shape
    for i in prange(nb * slabs):
        s, slab = i // slabs, i % slabs
        low, high = slab * n // slabs, (slab + 1) * n // slabs
        rs, zs, total = r[s, low:high], z[s, low:high], 0.0
        for j in range(high - low):
            total += rs[j] * zs[j]
        sums[s, slab] = total


def _turn(p, z, factor, beta, slabs):
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
