"""Corrections on islands: a few points bound tightly to each other and loosely to the rest.

High cells in low ones are the example. A smoother hardly moves the mean over an island, and no
coarse grid represents it where its shape does not fit. Two points are bound where

    a_ij < 0,      a_ij^2 > theta^2 a_ii a_jj;

a connected component with indicator e is an island if e . A e is small beside e . D e, with D the
diagonal of A: a mode that Gauss-Seidel leaves alone. With one indicator as each row of R,

    x += R^T (R A R^T)^-1 R (b - A x)

takes the error to its A-orthogonal complement of the islands' span. An island that touches one kept
before is left out, so that R A R^T is diagonal. R A is formed once: inside an island its entries
all but cancel, which a single precision residual would not survive. Set-up is on the CPU.

The loops run over (batch, plane, z, y, x) stencils. ``links``: (count, 4) = (plane, dz, dy, dx) of
a stencil's entries off the centre; the first half of them point to points that come earlier in
row-major order, or wrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sciml.core.algebra.kernels.jit import fast, wrap
from sciml.core.algebra.kernels.rows import Ring
from sciml.core.algebra.stencil import Stencil
from sciml.core.algebra.transfer import padded

BOUND = 0.1  # theta
SLOW = 0.2  # the largest share of e . D e that an island's energy may be
LARGEST = 64  # points of an island: a larger one is small enough on a coarser level
CROWDED = 0.25  # the share of all points above which components are no islands (lines, say)
_ROUNDING = 16  # units of rounding below which an energy is none


@dataclass(frozen=True, eq=False)
class Islands:
    """Index lists into the flattened points of all samples of an operator, int64.

    ``points`` of island k begin at ``point_starts[k]``; ``columns`` and ``values`` of row k of R A
    at ``column_starts[k]``. ``inverse``: 1 / (R A R^T)_kk. ``unknowns``: points of all samples.
    """

    points: torch.Tensor
    point_starts: torch.Tensor
    columns: torch.Tensor
    values: torch.Tensor
    column_starts: torch.Tensor
    inverse: torch.Tensor
    unknowns: int

    def __len__(self) -> int:
        return len(self.inverse)

    def correct(self, x: torch.Tensor, b: torch.Tensor) -> None:
        """x += R^T (R A R^T)^-1 R (b - A x) in place; x, b (*batch, *shape)."""
        x, b = x.view(-1, self.unknowns), b.view(-1, self.unknowns)
        if x.device.type == "cpu":
            _correct(x.numpy(), b.numpy(), *self._arrays)
        else:
            self.correct_by_index(x, b)

    def correct_by_index(self, x: torch.Tensor, b: torch.Tensor) -> None:
        """``correct`` in torch, on any device; x, b (samples, unknowns)."""
        owner, row = self._owners
        step = x.new_zeros(len(x), len(self)).index_add_(1, owner, b[:, self.points])
        step.index_add_(1, row, self.values * x[:, self.columns], alpha=-1)
        x.index_add_(1, self.points, (self.inverse * step)[:, owner])

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        tensors = (self.points, self.point_starts, self.columns, self.values, self.column_starts)
        return tuple(tensor.numpy() for tensor in (*tensors, self.inverse))

    @cached_property
    def _owners(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The island of each point, and of each entry of R A."""
        islands = torch.arange(len(self), device=self.points.device)
        return tuple(  # type: ignore[return-value]  # of two
            islands.repeat_interleave(starts.diff())
            for starts in (self.point_starts, self.column_starts)
        )


def find(A: Stencil, dtype: torch.dtype) -> Islands | None:
    """The islands of a symmetric operator, values in ``dtype``; None where there are none.

    An operator none of whose couplings is weak is told by one pass over its coefficients.
    """
    d = A.dimension
    if not A.symmetric or all(s == 0 for s in A.coefficients.stride()[-d:]):
        return None
    stored = A.coefficients.detach().cpu().contiguous()
    a = stored.reshape(-1, len(A.offsets), *(1,) * (3 - d), *A.shape).numpy()
    centre = A.offsets.index((0,) * d)
    others = sorted((offset, k) for k, offset in enumerate(A.offsets) if k != centre)
    links = np.array([(k, *padded(offset)) for offset, k in others], dtype=np.int64)
    earlier, periodic = links[: len(links) // 2], (False,) * (3 - d) + A.periodic
    if not _any_weak(a, centre, earlier, periodic, BOUND):
        return None
    rounding = _ROUNDING * float(torch.finfo(A.dtype).eps)
    parts = []
    for sample in a:
        roots = _label(sample, centre, earlier, periodic, BOUND)
        parts.append(_select(sample, centre, links, periodic, roots, LARGEST, SLOW, rounding))
    points, sizes, columns, values, lengths, energies = zip(*parts, strict=True)
    if not 0 < sum(map(len, points)) <= CROWDED * A.size * len(a):
        return None
    return Islands(
        _joined(points, A.size).to(A.device),
        _starts(sizes).to(A.device),
        _joined(columns, A.size).to(A.device),
        torch.from_numpy(np.concatenate(values)).to(A.device, dtype),
        _starts(lengths).to(A.device),
        torch.from_numpy(np.concatenate(energies)).reciprocal().to(A.device, dtype),
        A.size * len(a),
    )


def _joined(indices: tuple[np.ndarray, ...], size: int) -> torch.Tensor:
    """Indices into single samples as indices into all of them, one after the other."""
    return torch.from_numpy(np.concatenate([i + s * size for s, i in enumerate(indices)]))


def _starts(lengths: tuple[np.ndarray, ...]) -> torch.Tensor:
    return torch.from_numpy(np.cumsum(np.concatenate([[0], *lengths])).astype(np.int64))


@fast(cache=True)
def _any_weak(a: np.ndarray, centre: int, links: np.ndarray, periodic: Ring, theta: float) -> bool:
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
def _label(
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
def _select(
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
def _correct(
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
