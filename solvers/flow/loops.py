"""The loops of a time step, compiled: tendencies of both velocities, tridiagonal sweeps.

Velocities come with one ring of ghost points: face (i, j) of u, i = 0 .. n, j = 0 .. m - 1, is
``u[b, i + 1, j + 1]``, and cell (i, j) of p likewise. Other arrays are on the faces alone.
"""

from __future__ import annotations

import numpy as np

from sciml.core.algebra.kernels.jit import fast

Links = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@fast(cache=True)
def tendency_u(
    u: np.ndarray,
    v: np.ndarray,
    p: np.ndarray,
    old: np.ndarray,
    force: np.ndarray,
    links: Links,
    free: np.ndarray,
    nu: np.ndarray,
    dt: float,
    now: float,
    before: float,
    hx: float,
    hy: float,
    out: np.ndarray,
) -> None:
    """``out = dt (-now H + before H_old + nu Lap u - p_x + f)`` on free faces; ``old = H``.

    H = (u u)_x + (u v)_y with averages on the control volume's faces (Harlow and Welch 1965).
    """
    west, east, south, north = links
    for b in range(out.shape[0]):
        f = b % force.shape[0]
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                c = u[b, i + 1, j + 1]
                right, left = u[b, i + 2, j + 1], u[b, i, j + 1]
                up, down = u[b, i + 1, j + 2], u[b, i + 1, j]
                ue, uw = 0.5 * (right + c), 0.5 * (left + c)
                vn = 0.5 * (v[b, i, j + 2] + v[b, i + 1, j + 2])
                vs = 0.5 * (v[b, i, j + 1] + v[b, i + 1, j + 1])
                H = (ue * ue - uw * uw) / hx + 0.5 * (vn * (up + c) - vs * (down + c)) / hy
                lap = west[i, j] * (left - c) + east[i, j] * (right - c)
                lap += south[i, j] * (down - c) + north[i, j] * (up - c)
                slope = (p[b, i + 1, j + 1] - p[b, i, j + 1]) / hx
                rate = before * old[b, i, j] - now * H + nu[b] * lap - slope + force[f, i, j]
                out[b, i, j] = free[i, j] * dt * rate
                old[b, i, j] = H


@fast(cache=True)
def tendency_v(
    u: np.ndarray,
    v: np.ndarray,
    p: np.ndarray,
    old: np.ndarray,
    force: np.ndarray,
    links: Links,
    free: np.ndarray,
    nu: np.ndarray,
    dt: float,
    now: float,
    before: float,
    hx: float,
    hy: float,
    out: np.ndarray,
) -> None:
    """The same for v, with H = (u v)_x + (v v)_y."""
    west, east, south, north = links
    for b in range(out.shape[0]):
        f = b % force.shape[0]
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                c = v[b, i + 1, j + 1]
                right, left = v[b, i + 2, j + 1], v[b, i, j + 1]
                up, down = v[b, i + 1, j + 2], v[b, i + 1, j]
                vn, vs = 0.5 * (up + c), 0.5 * (down + c)
                ue = 0.5 * (u[b, i + 2, j] + u[b, i + 2, j + 1])
                uw = 0.5 * (u[b, i + 1, j] + u[b, i + 1, j + 1])
                H = (vn * vn - vs * vs) / hy + 0.5 * (ue * (right + c) - uw * (left + c)) / hx
                lap = west[i, j] * (left - c) + east[i, j] * (right - c)
                lap += south[i, j] * (down - c) + north[i, j] * (up - c)
                slope = (p[b, i + 1, j + 1] - p[b, i + 1, j]) / hy
                rate = before * old[b, i, j] - now * H + nu[b] * lap - slope + force[f, i, j]
                out[b, i, j] = free[i, j] * dt * rate
                old[b, i, j] = H


@fast(cache=True)
def survey(
    u: np.ndarray,
    v: np.ndarray,
    open_u: np.ndarray,
    open_v: np.ndarray,
    hx: float,
    hy: float,
    divergence: np.ndarray,
    peaks: np.ndarray,
) -> None:
    """``divergence = D (u, v)``; ``peaks`` (*B, 3) of |D|, |u| / hx + |v| / hy, max(|u|, |v|).

    The first peak is NaN where any velocity is not finite.
    """
    for b in range(divergence.shape[0]):
        worst, rate, fastest, total = 0.0, 0.0, 0.0, 0.0
        for i in range(divergence.shape[1]):
            for j in range(divergence.shape[2]):
                west, east = u[b, i + 1, j + 1], u[b, i + 2, j + 1]
                south, north = v[b, i + 1, j + 1], v[b, i + 1, j + 2]
                d = (open_u[i + 1, j] * east - open_u[i, j] * west) / hx
                d += (open_v[i, j + 1] * north - open_v[i, j] * south) / hy
                divergence[b, i, j] = d
                across, along = max(abs(west), abs(east)), max(abs(south), abs(north))
                worst, total = max(worst, abs(d)), total + d
                rate = max(rate, across / hx + along / hy)
                fastest = max(fastest, max(across, along))
        peaks[b, 0] = worst + 0.0 * total
        peaks[b, 1] = rate
        peaks[b, 2] = fastest


@fast(cache=True)
def sweep(
    d: np.ndarray,
    lower: np.ndarray,
    diagonal: np.ndarray,
    upper: np.ndarray,
    a: np.ndarray,
    cyclic: bool,
    c: np.ndarray,
    q: np.ndarray,
) -> None:
    """Solve ``(1 + a T) x = d`` in place along axis 1 of d (*B, n, m), all m at once.

    T has ``diagonal`` and, with a minus, ``lower`` and ``upper`` (n, m); its corners count where
    ``cyclic`` (Sherman and Morrison's formula). c and q (n, m) are work space.
    """
    n, m = d.shape[1], d.shape[2]
    for b in range(d.shape[0]):
        s = a[b]
        for i in range(n):
            for j in range(m):
                pivot = 1.0 + s * diagonal[i, j]
                right, corner = d[b, i, j], 0.0
                if cyclic and i == 0:
                    corner = -pivot
                    pivot *= 2.0
                elif cyclic and i == n - 1:
                    first = 1.0 + s * diagonal[0, j]
                    pivot += s * s * lower[0, j] * upper[n - 1, j] / first
                    corner = -s * upper[n - 1, j]
                if i > 0:
                    low = -s * lower[i, j]
                    pivot -= low * c[i - 1, j]
                    right -= low * d[b, i - 1, j]
                    if cyclic:
                        corner -= low * q[i - 1, j]
                inverse = 1.0 / pivot
                c[i, j] = -s * upper[i, j] * inverse
                d[b, i, j] = right * inverse
                if cyclic:
                    q[i, j] = corner * inverse
        for i in range(n - 2, -1, -1):
            for j in range(m):
                d[b, i, j] -= c[i, j] * d[b, i + 1, j]
                if cyclic:
                    q[i, j] -= c[i, j] * q[i + 1, j]
        if cyclic:
            for j in range(m):
                # beta / gamma of the formula, with gamma = - the first pivot.
                share = s * lower[0, j] / (1.0 + s * diagonal[0, j])
                top = d[b, 0, j] + share * d[b, n - 1, j]
                c[0, j] = top / (1.0 + q[0, j] + share * q[n - 1, j])
            for i in range(n):
                for j in range(m):
                    d[b, i, j] -= c[0, j] * q[i, j]
