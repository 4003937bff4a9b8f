"""Functions with their derivatives at scattered points, carried through a computation in one sweep.

The jet of u at a point is (u, u_1 .. u_D, and those second derivatives u_ij that are asked for). It
goes through sums unchanged, and through products and pointwise functions by

    (v w)_i  = v_i w + v w_i,             (v w)_ij  = v_ij w + v_i w_j + v_j w_i + v w_ij,
    s(v)_i   = s'(v) v_i,                 s(v)_ij   = s''(v) v_i v_j + s'(v) v_ij,

Taylor-mode differentiation of second order: each derivative costs one more evaluation, and all of
them are one tensor, so that a layer of a network is one matrix product. Higher derivatives go on by
Leibniz and Faa di Bruno: with A the axes of one, such as (0, 0, 0, 0) for u_xxxx,

    (v w)_A = sum over the subsets B of A of v_B w_(A less B),
    s(v)_A  = sum over the partitions of A of s^(m)(v) v_B1 ... v_Bm,    m its number of blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from itertools import combinations

import torch
from torch import Tensor

# The axes of derivatives from the second on, each in order; see ``closed``.
Pairs = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Jet:
    """``data``: (1 + D + len(pairs), N, F), the value, its D first derivatives, then u_ij.

    ``pairs`` are the (i, j), i <= j, in the order kept, and the axes of higher derivatives after
    them, each with all lower ones that it is made of (:func:`closed`). N points, F functions; all
    axes of a point count alike, time last.
    """

    data: Tensor
    dimension: int
    pairs: Pairs

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The value (1, N, F), the first derivatives, those above.

        Taken apart once: the gradient of every slice by itself would be as large as ``data``.
        """
        value, first, above = self.data.split([1, self.dimension, len(self.pairs)])
        return value, first, above

    @property
    def value(self) -> Tensor:
        """(N, F)."""
        return self.parts[0][0]

    @property
    def gradient(self) -> Tensor:
        """(D, N, F)."""
        return self.parts[1]

    def second(self, i: int, j: int) -> Tensor:
        """u_ij, (N, F); KeyError where it was not asked for."""
        return self.derivative(i, j)

    def derivative(self, *axes: int) -> Tensor:
        """That of second or higher order by these axes, (N, F); KeyError where not asked for."""
        wanted = tuple(sorted(axes))
        if wanted not in self.pairs:
            raise KeyError(f"the derivative {wanted} was not asked for; known are {self.pairs}")
        return self.data[1 + self.dimension + self.pairs.index(wanted)]

    @property
    def order(self) -> int:
        """Of the highest derivative."""
        return max(map(len, self.pairs), default=1)

    def like(self, data: Tensor) -> Jet:
        """Another jet of the same derivatives."""
        return Jet(data, self.dimension, self.pairs)

    def select(self, rows: slice | Tensor) -> Jet:
        """The jet at some of the points."""
        return self.like(self.data[:, rows])

    def columns(self) -> tuple[list[int], list[int]]:
        """Where the two first derivatives of each second one stand in ``data``."""
        seconds = [pair for pair in self.pairs if len(pair) == 2]
        return [1 + i for i, _ in seconds], [1 + j for _, j in seconds]

    def __add__(self, other: Jet) -> Jet:
        return self.like(self.data + other.data)

    def __mul__(self, other: Jet) -> Jet:
        first, second = self.columns()
        a, b, d = self.data, other.data, 1 + self.dimension
        low = torch.cat([a[:1] * b[:1], a[1:d] * b[:1] + a[:1] * b[1:d]])
        if not self.pairs:
            return self.like(low)
        mixed, e = a[first] * b[second] + a[second] * b[first], d + len(first)
        parts = [low, a[d:e] * b[:1] + mixed + a[:1] * b[d:e]]
        for terms in _leibniz(self.dimension, self.pairs):
            rows = [times * a[i] * b[j] for times, i, j in terms]
            parts.append(reduce(torch.add, rows)[None])
        return self.like(torch.cat(parts))

    def through(self, s: Tensor, ds: Tensor, dds: Tensor, *more: Tensor) -> Jet:
        """s(u) of the values s, s' and s'' at u, (N, F) each, and ``more`` of higher order."""
        higher = (ds, dds, *more)
        _, first, above = self.parts
        parts = [s[None], ds * first]
        seconds = [pair for pair in self.pairs if len(pair) == 2]
        if seconds:
            slopes = first.unbind()
            bends = above if len(seconds) == len(above) else above[: len(seconds)]
            mixed = torch.stack([slopes[i] * slopes[j] for i, j in seconds])
            parts.append(torch.addcmul(ds * bends, mixed, dds))
        for terms in _faa_di_bruno(self.dimension, self.pairs):
            rows = [
                times * reduce(torch.mul, [self.data[row] for row in blocks], higher[m - 1])
                for times, m, blocks in terms
            ]
            parts.append(reduce(torch.add, rows)[None])
        return self.like(torch.cat(parts))


def closed(wanted: Iterable[tuple[int, ...]]) -> Pairs:
    """These derivatives with all lower ones that they are made of, the second ones first."""
    found = set()
    for axes in wanted:
        for size in range(2, len(axes) + 1):
            found |= {tuple(sorted(part)) for part in combinations(axes, size)}
    return tuple(sorted(found, key=lambda axes: (len(axes), axes)))


def _row(axes: tuple[int, ...], dimension: int, pairs: Pairs) -> int:
    """Where a derivative stands in ``data``; of no axes the value."""
    if len(axes) < 2:
        return sum(1 + axis for axis in axes)
    return 1 + dimension + pairs.index(tuple(sorted(axes)))


@lru_cache(maxsize=64)
def _leibniz(dimension: int, pairs: Pairs) -> tuple[list[tuple[int, int, int]], ...]:
    """Per derivative above the second: how often, and the rows of both factors."""
    found = []
    for axes in pairs:
        if len(axes) < 3:
            continue
        count: Counter[tuple[int, int]] = Counter()
        for chosen in range(2 ** len(axes)):
            parts = [
                tuple(axis for k, axis in enumerate(axes) if chosen >> k & 1 == side)
                for side in (1, 0)
            ]
            one, other = (_row(part, dimension, pairs) for part in parts)
            count[one, other] += 1
        found.append([(times, *rows) for rows, times in count.items()])
    return tuple(found)


@lru_cache(maxsize=64)
def _faa_di_bruno(
    dimension: int, pairs: Pairs
) -> tuple[list[tuple[int, int, tuple[int, ...]]], ...]:
    """Per derivative above the second: how often, the order of s, and the rows of the blocks."""
    found = []
    for axes in pairs:
        if len(axes) < 3:
            continue
        count = Counter(
            tuple(sorted(_row(tuple(axes[k] for k in block), dimension, pairs) for block in blocks))
            for blocks in _partitions(tuple(range(len(axes))))
        )
        found.append([(times, len(rows), rows) for rows, times in count.items()])
    return tuple(found)


def _partitions(members: tuple[int, ...]) -> Iterator[list[tuple[int, ...]]]:
    """All ways to divide them into blocks."""
    if not members:
        yield []
        return
    first, rest = members[0], members[1:]
    for size in range(len(rest) + 1):
        for others in combinations(rest, size):
            left = tuple(member for member in rest if member not in others)
            for blocks in _partitions(left):
                yield [(first, *others), *blocks]


def coordinates(points: Tensor, pairs: Pairs) -> Jet:
    """The jet of the points (N, D) themselves: F = D functions, the identity as their gradient."""
    count, dimension = points.shape
    data = points.new_zeros(1 + dimension + len(pairs), count, dimension)
    data[0] = points
    for i in range(dimension):
        data[1 + i, :, i] = 1.0
    return Jet(data, dimension, pairs)


def jet_of(
    function: Callable[[Tensor], Tensor], points: Tensor, pairs: Pairs, graph: bool = False
) -> Jet:
    """The jet of any differentiable ``function``, (N, D) -> (N, F), by reverse mode twice.

    Without a ``graph`` for what does not change while a network is trained, else with that of what
    the function depends on besides the points; where these have a graph, with theirs.
    """
    tracked = points.requires_grad and torch.is_grad_enabled()
    with torch.enable_grad():
        x = points if tracked else points.detach().requires_grad_()
        value = function(x)
        columns = [_scalar_jet(value[:, k], x, pairs) for k in range(value.shape[1])]
        data = torch.stack(columns, -1)
    return Jet(data if graph or tracked else data.detach(), points.shape[1], pairs)


def _scalar_jet(value: Tensor, x: Tensor, pairs: Pairs) -> Tensor:
    """(1 + D + len(pairs), N)."""
    slopes = _slopes(value, x)
    known: dict[tuple[int, ...], Tensor] = {(i,): s for i, s in enumerate(slopes.unbind(1))}
    for size in sorted({len(axes) for axes in pairs}):
        wanted = [axes for axes in pairs if len(axes) == size]
        lower = {head: _slopes(known[head], x) for head in sorted({a[:-1] for a in wanted})}
        known |= {axes: lower[axes[:-1]][:, axes[-1]] for axes in wanted}
    return torch.stack([value, *slopes.unbind(1), *(known[axes] for axes in pairs)])


def _slopes(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(
        value.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
    )
    return found
