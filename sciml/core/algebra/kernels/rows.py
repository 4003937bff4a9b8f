"""Rows of stencils, written out: one fused loop for each set of offsets.

For a row (z, y) of a stencil with the planes a_k and the offsets o_k,

    product    t[j] = sum_k a_k[j] u[j + o_k],
    residual   t[j] = b[j] - sum_k a_k[j] u[j + o_k],
    relax      the columns of one parity, then those of the other, solve their own equation.

A loop over offsets inside that over columns would not vectorise, and a pass for each offset loads
and stores the row as often. So the source is generated with one term for each offset, and numba
inlines it into the loops of a kernel. Rows outside the array get the factor zero; the two ends of a
row are computed apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count
from string import Template
from typing import Any

import numpy as np

from sciml.core.algebra.kernels.jit import ONE, U, fast, wrap

Offset = tuple[int, int, int]
Ring = tuple[bool, ...]  # whether the axes z, y, x are periodic
_CENTRE = (0, 0)
_INSIDE = {-1: "j - ONE", 0: "j", 1: "j + ONE"}  # the columns j + dx by dx
_AT_END = {-1: "left", 0: "j", 1: "right"}


@fast()
def _colour(i: int, n: int, ring: bool) -> int:
    """The parity of i; an odd periodic axis has a third colour, its last index."""
    return 2 if ring and n % 2 == 1 and i == n - 1 else i % 2


@fast()
def rank(z: int, y: int, u: np.ndarray, ring: Ring, reverse: bool) -> int:
    """When the row (z, y) is relaxed: rows of a lower rank come before it."""
    place = 3 * _colour(z, u.shape[1], ring[0]) + _colour(y, u.shape[2], ring[1])
    return 8 - place if reverse else place


def product(
    t: np.ndarray, u: np.ndarray, a: np.ndarray, s: int, z: int, y: int, ring: Ring
) -> float:
    """t = A u on the row (z, y) of sample s, returned <t, u> on it; a (batch, plane, z, y, x)."""
    raise NotImplementedError("generated for each shape")


def residual(
    t: np.ndarray, b: np.ndarray, u: np.ndarray, a: np.ndarray, s: int, z: int, y: int, ring: Ring
) -> None:
    """t = b - A u on the row, t of one axis."""
    raise NotImplementedError("generated for each shape")


def relax(
    t: np.ndarray,
    v: np.ndarray,
    u: np.ndarray,
    b: np.ndarray,
    a: np.ndarray,
    inverse: np.ndarray,
    s: int,
    z: int,
    y: int,
    ring: Ring,
    reverse: bool,
    known: int,
) -> None:
    """One sweep of u over the row; t and v are workspace, ``inverse`` is 1 / diagonal.

    Rows of rank ``known`` and above count as zero, none where it is negative.
    """
    raise NotImplementedError("generated for each shape")


_COMMON: dict[str, Any] = {"wrap": wrap, "rank": rank, "U": U, "ONE": ONE}

_PROLOGUE = """
    n, sa = u.shape[3], s % a.shape[0]
    az, ay = min(z, a.shape[2] - 1), min(y, a.shape[3] - 1)
    zero, one = u.dtype.type(0), u.dtype.type(1)
"""

_NEIGHBOUR = Template("""
    z$g, y$g, f$g = wrap(z + $dz, u.shape[1], ring[0]), wrap(y + $dy, u.shape[2], ring[1]), one
    if z$g < 0 or y$g < 0 or $skip:
        z$g, y$g, f$g = z, y, zero
    az$g, ay$g = min(z$g, a.shape[2] - 1), min(y$g, a.shape[3] - 1)
""")

_END = """
        j = U(end * (m - 1))
        left, right = U((end * (m - 1) - 1) % n), U((end * (m - 1) + 1) % n)
        fl = one if ring[2] or end > 0 else zero
        fr = one if ring[2] or end * (m - 1) < n - 1 else zero
"""

_PRODUCT = Template("""
def product(t, u, a, s, z, y, ring):
    $prologue
    m, total = n, 0.0
    for j in range(ONE, U(n - 1)):
        t[s, z, y, j] = $inner
    for end in range(min(n, 2)):
        $end
        t[s, z, y, j] = $outer
    for j in range(n):
        total += t[s, z, y, j] * u[s, z, y, j]
    return total
""")

_RESIDUAL = Template("""
def residual(t, b, u, a, s, z, y, ring):
    $prologue
    m = n
    for j in range(ONE, U(n - 1)):
        t[j] = b[s, z, y, j] - ($inner)
    for end in range(min(n, 2)):
        $end
        t[j] = b[s, z, y, j] - ($outer)
""")

# t: what the other rows leave of the right-hand side, over the diagonal; v: the relaxed row as if
# all its columns were of the first parity. With an odd ring the last column is a colour by itself.
_RELAX = Template("""
def relax(t, v, u, b, a, inverse, s, z, y, ring, reverse, known):
    $prologue
    m = n
    $scalars
    for j in range(ONE, U(n - 1)):
        t[j] = (b[s, z, y, j] - ($inner)) * $d
        v[j] = t[j] - $d * ($w * u[s, z, y, j - ONE] + $e * u[s, z, y, j + ONE])
    for end in range(min(n, 2)):
        $end
        t[j] = (b[s, z, y, j] - ($outer)) * $d
        v[j] = t[j] - $d * (fl * $left * u[s, z, y, left] + fr * $e * u[s, z, y, right])
    third = ring[2] and n % 2 == 1 and n > 1
    if third:
        m = n - 1
        if reverse:
            u[s, z, y, m] = v[m]
            j = U(n - 2)
            v[j] = t[j] - $d * ($w * u[s, z, y, j - ONE] + $e * u[s, z, y, j + ONE])
        else:
            v[m] = u[s, z, y, m]
    first = U(1 if reverse else 0)
    for j in range(ONE, U(m - 1)):
        other = t[j] - $d * ($w * v[j - ONE] + $e * v[j + ONE])
        u[s, z, y, j] = v[j] if j & ONE == first else other
    for end in range(min(m, 2)):
        $end
        if j & ONE == first:
            u[s, z, y, j] = v[j]
        else:
            u[s, z, y, j] = t[j] - $d * (fl * $left * v[left] + fr * $e * v[right])
    if third and not reverse:
        j = U(m)
        u[s, z, y, j] = t[j] - $d * ($w * u[s, z, y, j - ONE] + $e * u[s, z, y, U(0)])
""")


@dataclass(frozen=True, eq=False)
class RowShape:
    """A stencil as its rows see it: offsets (dz, dy, dx) by plane; whether rows are constant.

    Where it is ``symmetric`` a_{-o}[i] is read as a_o[i - o], so that the planes of half of the
    offsets are never touched: most rows wait for memory.
    """

    offsets: tuple[Offset, ...]
    constant: bool
    symmetric: bool = False

    @cached_property
    def name(self) -> str:
        """A letter for each offset and one for constant or variable rows."""
        places = "".join(chr(78 + 9 * dz + 3 * dy + dx) for dz, dy, dx in self.offsets)
        kind = "constant" if self.constant else "mirrored" if self.symmetric else "variable"
        return f"{places.replace('[', 'z')}_{kind}"

    @cached_property
    def functions(self) -> dict[str, Any]:
        """``product``, ``residual`` and ``relax``, to be called from compiled loops."""
        space = dict(_COMMON)
        exec(self.source(), space)
        named = {
            name: fast(forceinline=True)(space[name]) for name in ("product", "residual", "relax")
        }
        return {**named, "rank": rank}

    def source(self) -> str:
        """The three functions as Python."""
        whole = {
            "prologue": self._prologue("False"),
            "end": _END.strip(),
            "inner": self._sum(own=True, end=False),
            "outer": self._sum(own=True, end=True),
        }
        own = {dx: self._coefficient(k, "", _INSIDE) for dx, k in self._groups[_CENTRE]}
        end = {dx: self._coefficient(k, "", _AT_END) for dx, k in self._groups[_CENTRE]}
        relaxed = {
            "prologue": self._prologue("known >= 0 and rank(z$g, y$g, u, ring, reverse) >= known"),
            "end": _END.strip(),
            "inner": self._sum(own=False, end=False),
            "outer": self._sum(own=False, end=True),
            "w": own.get(-1, "zero"),
            "left": end.get(-1, "zero"),
            "e": own.get(1, "zero"),
            "d": "d" if self.constant else "inverse[si, az, ay, j]",
            "scalars": "si = s % inverse.shape[0]"
            + ("; d = inverse[si, az, ay, 0]" if self.constant else ""),
        }
        return _PRODUCT.substitute(whole) + _RESIDUAL.substitute(whole) + _RELAX.substitute(relaxed)

    @cached_property
    def _groups(self) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """By row (dz, dy): the entries (dx, plane)."""
        groups: dict[tuple[int, int], list[tuple[int, int]]] = {_CENTRE: []}
        for k, (dz, dy, dx) in enumerate(self.offsets):
            groups.setdefault((dz, dy), []).append((dx, k))
        return groups

    def _coefficient(self, k: int, row: str, columns: Mapping[int, str]) -> str:
        """a_k[j], or in a symmetric stencil that of the opposite offset in the other point.

        ``row``: which neighbouring row the offset points to, "" for the row itself.
        """
        if self.constant:
            return f"c{k}"
        offset = self.offsets[k]
        opposite: Any = tuple(-o for o in offset)
        if self.symmetric and offset < opposite and opposite in self.offsets:
            plane = self.offsets.index(opposite)
            return f"a[sa, {plane}, az{row}, ay{row}, {columns[offset[2]]}]"
        return f"a[sa, {k}, az, ay, j]"

    def _prologue(self, skip: str) -> str:
        text = _PROLOGUE
        for g, ((dz, dy), entries) in enumerate(self._groups.items()):
            if g > 0:
                text += _NEIGHBOUR.substitute(g=g, dz=dz, dy=dy, skip=skip.replace("$g", str(g)))
            if self.constant:
                factor = f"f{g} * " if g > 0 else ""
                text += "".join(f"    c{k} = {factor}a[sa, {k}, az, ay, 0]\n" for _, k in entries)
        return text.strip()

    def _sum(self, *, own: bool, end: bool) -> str:
        """sum_k a_k[j] u[j + o_k], with or without the row's own entries, inside or at an end."""
        columns = _AT_END if end else _INSIDE
        factors = {-1: "fl * ", 0: "", 1: "fr * "} if end else dict.fromkeys((-1, 0, 1), "")
        parts = []
        for g, entries in zip(count(), self._groups.values()):
            if g == 0 and not own:
                continue
            which = str(g or "")
            terms = " + ".join(
                f"{factors[dx]}{self._coefficient(k, which, columns)} "
                f"* u[s, z{which}, y{which}, {columns[dx]}]"
                for dx, k in entries
            )
            parts.append(terms if self.constant or g == 0 else f"f{g} * ({terms})")
        return " + ".join(parts) or "zero"


@lru_cache
def row_shape(offsets: tuple[Offset, ...], constant: bool, symmetric: bool) -> RowShape:
    """The one object for this shape."""
    return RowShape(offsets, constant, symmetric)
