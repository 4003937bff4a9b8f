"""The loops that find islands and correct on them, over ``(batch, plane, z, y, x)`` stencils.

``links``: (count, 4) = (plane, dz, dy, dx) of a stencil's entries off the centre; the first half of
them point to points that come earlier in row-major order, or wrap.
"""

from __future__ import annotations

import numpy as np

from sciml.core.kernels.jit import fast, wrap
from sciml.core.kernels.rows import Ring


@fast(cache=True)
def any_weak(a: np.ndarray, centre: int, links: np.ndarray, periodic: Ring, theta: float) -> bool:
    """Whether some link is weak; an operator without one has no islands."""
    nb, _, nz, ny, nx = a.shape
    for row in range(nb * nz * ny):
        s, z, y = row // (nz * ny), row // ny % nz, row % ny
        for k in range(links.shape[0]):
            zz, yy = wrap(z + links[k, 1], nz, periodic[0]), wrap(y + links[k, 2], ny, periodic[1])
            if zz < 0 or yy < 0:
                continue
            plane, dx, weak = links[k, 0], links[k, 3], 0
            for x in range(max(0, -dx), min(nx, nx - dx)):
                bound = theta * theta * a[s, centre, z, y, x] * a[s, centre, zz, yy, x + dx]
                value = a[s, plane, z, y, x]
                weak += value * value <= bound
            if weak:
                return True
    return False


@fast(cache=True)
def _root(parents: np.ndarray, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = parents[i]
    return i


@fast(cache=True)
def label(
    a: np.ndarray, centre: int, links: np.ndarray, periodic: Ring, theta: float
) -> np.ndarray:
    """Per point, the first point of its strongly connected component (union-find); one sample."""
    _, nz, ny, nx = a.shape
    parents = np.empty(nz * ny * nx, np.int32)
    for i in range(parents.shape[0]):
        parents[i] = i
    for z in range(nz):
        for y in range(ny):
            start = (z * ny + y) * nx
            for k in range(links.shape[0]):
                zz = wrap(z + links[k, 1], nz, periodic[0])
                yy = wrap(y + links[k, 2], ny, periodic[1])
                if zz < 0 or yy < 0:
                    continue
                other, plane = (zz * ny + yy) * nx, links[k, 0]
                for x in range(nx):
                    xx = wrap(x + links[k, 3], nx, periodic[2])
                    if xx < 0:
                        continue
                    value = a[plane, z, y, x]
                    bound = theta * theta * a[centre, z, y, x] * a[centre, zz, yy, xx]
                    if value < 0 and value * value > bound:
                        one, two = parents[start + x], parents[other + xx]
                        if one != two:
                            one, two = _root(parents, one), _root(parents, two)
                            parents[max(one, two)] = min(one, two)
    for i in range(parents.shape[0]):
        parents[i] = parents[parents[i]]
    return parents


@fast(cache=True)
def _candidates(roots: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """A number per point's component of 2 to ``largest`` points, else -1; and the components."""
    counts = np.zeros(roots.shape[0], np.int32)
    for i in range(roots.shape[0]):
        counts[roots[i]] += 1
    numbers, found = np.full(roots.shape[0], -1, np.int32), 0
    for i in range(roots.shape[0]):
        if 2 <= counts[roots[i]] <= largest:
            if roots[i] == i:
                numbers[i] = found
                found += 1
            numbers[i] = numbers[roots[i]]
    sizes = np.zeros(found, np.int64)
    for i in range(roots.shape[0]):
        if numbers[i] >= 0:
            sizes[numbers[i]] += 1
    return numbers, sizes


@fast(cache=True)
def _row(
    a: np.ndarray,
    centre: int,
    links: np.ndarray,
    periodic: Ring,
    numbers: np.ndarray,
    i: int,
    columns: np.ndarray,
    values: np.ndarray,
    at: int,
) -> int:
    """Append the row of R A that point i brings: what stays inside first, then each link out.

    Returns the end of the row.
    """
    _, nz, ny, nx = a.shape
    z, y, x = i // (ny * nx), i // nx % ny, i % nx
    columns[at], values[at], end = i, a[centre, z, y, x], at + 1
    for k in range(links.shape[0]):
        zz = wrap(z + links[k, 1], nz, periodic[0])
        yy = wrap(y + links[k, 2], ny, periodic[1])
        xx = wrap(x + links[k, 3], nx, periodic[2])
        if zz < 0 or yy < 0 or xx < 0:
            continue
        j, value = (zz * ny + yy) * nx + xx, a[links[k, 0], z, y, x]
        if numbers[j] == numbers[i]:
            values[at] += value
        elif value != 0:
            columns[end], values[end] = j, value
            end += 1
    return end


@fast(cache=True)
def select(
    a: np.ndarray,
    centre: int,
    links: np.ndarray,
    periodic: Ring,
    roots: np.ndarray,
    largest: int,
    slow: float,
    rounding: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Islands of one sample: points and counts; columns, values and counts of R A; energies.

    A component is an island if its indicator's energy is below ``slow`` of its diagonal and above
    ``rounding`` of it, and if it touches no island before it.
    """
    _, _, ny, nx = a.shape
    numbers, sizes = _candidates(roots, largest)
    starts = np.zeros(len(sizes) + 1, np.int64)
    starts[1:] = np.cumsum(sizes)
    members, ends = np.empty(starts[-1], np.int64), starts[:-1].copy()
    for i in range(numbers.shape[0]):
        if numbers[i] >= 0:
            members[ends[numbers[i]]] = i
            ends[numbers[i]] += 1
    points, columns = np.empty_like(members), np.empty(len(members) * (len(links) + 1), np.int64)
    values, energies = np.empty(len(columns)), np.empty(len(sizes))
    counts, lengths = np.empty_like(sizes), np.empty_like(sizes)
    kept = np.zeros(len(sizes), np.bool_)
    islands, p, c = 0, 0, 0
    for k in range(len(sizes)):
        energy, diagonal, end, free = 0.0, 0.0, c, True
        for i in members[starts[k] : starts[k + 1]]:
            own = end
            end = _row(a, centre, links, periodic, numbers, i, columns, values, own)
            for j in columns[own + 1 : end]:
                free = free and (numbers[j] < 0 or not kept[numbers[j]])
            diagonal += a[centre, i // (ny * nx), i // nx % ny, i % nx]
            energy += values[own]
        if free and rounding * diagonal < energy < slow * diagonal:
            points[p : p + sizes[k]] = members[starts[k] : starts[k + 1]]
            counts[islands], lengths[islands], energies[islands] = sizes[k], end - c, energy
            kept[k] = True
            islands, p, c = islands + 1, p + sizes[k], end
    return (
        points[:p].copy(),
        counts[:islands].copy(),
        columns[:c].copy(),
        values[:c].copy(),
        lengths[:islands].copy(),
        energies[:islands].copy(),
    )


@fast(cache=True)
def correct(
    x: np.ndarray,
    b: np.ndarray,
    points: np.ndarray,
    point_starts: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    column_starts: np.ndarray,
    inverse: np.ndarray,
) -> None:
    """x += R^T (R A R^T)^-1 R (b - A x); x, b (samples, unknowns)."""
    for s in range(x.shape[0]):
        for k in range(inverse.shape[0]):
            t = inverse[k] * 0
            for i in range(point_starts[k], point_starts[k + 1]):
                t += b[s, points[i]]
            for i in range(column_starts[k], column_starts[k + 1]):
                t -= values[i] * x[s, columns[i]]
            t *= inverse[k]
            for i in range(point_starts[k], point_starts[k + 1]):
                x[s, points[i]] += t
