"""Makes the meshes beside it that are images of blocks: ``python make.py``.

A block of n cells along each axis is mapped into place, its lattice of 2 n + 1 points along each
axis with it, so that its elements are quadrilaterals or hexahedra of second order, curved as the
body is. Lengths are in metres.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# Gmsh's numbers of elements of second order, and where their nodes lie in a lattice of 3 points.
_TYPES = {0: 15, 1: 8, 2: 10, 3: 12}
_NODES = {
    0: [()],
    1: [(0,), (2,), (1,)],
    2: [(0, 0), (2, 0), (2, 2), (0, 2), (1, 0), (2, 1), (1, 2), (0, 1), (1, 1)],
    3: [
        *((0, 0, 0), (2, 0, 0), (2, 2, 0), (0, 2, 0), (0, 0, 2), (2, 0, 2), (2, 2, 2), (0, 2, 2)),
        *((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 0), (2, 0, 1), (1, 2, 0), (2, 2, 1), (0, 2, 1)),
        *((1, 0, 2), (0, 1, 2), (2, 1, 2), (1, 2, 2)),
        *((1, 1, 0), (1, 0, 1), (0, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (1, 1, 1)),
    ],
}


@dataclass(frozen=True)
class Part:
    """A named part of a block: along each axis a place of the lattice, or a range of cells."""

    at: tuple[int | slice, ...]


def write(
    name: str, cells: Sequence[int], place: Callable[..., np.ndarray], parts: Mapping[str, Part]
) -> None:
    """The block with so many ``cells``, at ``place(lattice indices)``, in Gmsh's format 2.2."""
    d, shape = len(cells), [2 * n + 1 for n in cells]
    lattice = np.indices(shape).reshape(d, -1)
    points = np.pad(place(*lattice), ((0, 0), (0, 3 - d)))
    number = np.arange(1, len(points) + 1).reshape(shape)
    rows, names = [], []
    every = {"body": Part(tuple(slice(0, n) for n in cells)), **parts}
    for tag, (label, part) in enumerate(every.items(), start=1):
        free = [axis for axis, at in enumerate(part.at) if isinstance(at, slice)]
        names.append(f'{len(free)} {tag} "{label}"')
        for first in product(*(range(*part.at[axis].indices(cells[axis])) for axis in free)):
            nodes = []
            for offset in _NODES[len(free)]:
                index = list(part.at)
                for axis, cell, step in zip(free, first, offset, strict=True):
                    index[axis] = 2 * cell + step
                nodes.append(int(number[tuple(index)]))
            rows.append((_TYPES[len(free)], tag, nodes))
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$PhysicalNames", str(len(names)), *names]
    lines += ["$EndPhysicalNames", "$Nodes", str(len(points))]
    lines += [f"{k} " + " ".join(f"{c:.12g}" for c in p) for k, p in enumerate(points, start=1)]
    lines += ["$EndNodes", "$Elements", str(len(rows))]
    lines += [
        f"{k} {kind} 2 {tag} {tag} " + " ".join(map(str, nodes))
        for k, (kind, tag, nodes) in enumerate(rows, start=1)
    ]
    (HERE / f"{name}.msh").write_text("\n".join([*lines, "$EndElements", ""]))


def graded(index: np.ndarray, cells: int, power: float) -> np.ndarray:
    """Places from 0 to 1 of a lattice whose cells grow like a power, its odd points midway."""
    ends = (np.arange(cells + 1) / cells) ** power
    return np.interp(index, 2 * np.arange(cells + 1), ends)


def axisymmetric() -> None:
    """The wall of a hollow cylinder in r, z, heated from z = 0.04 to 0.1 on its inner side."""
    parts = {
        "heated": Part((0, slice(4, 10))),
        "lower": Part((0, slice(0, 4))),
        "upper": Part((0, slice(10, 14))),
        "outer": Part((16, slice(0, 14))),
        "bottom": Part((slice(0, 8), 0)),
        "top": Part((slice(0, 8), 28)),
    }
    write("axisymmetric", (8, 14), lambda i, j: np.stack([0.02 + 0.005 * i, 0.005 * j], 1), parts)


def le10() -> None:
    """A quarter of an elliptic plate 0.6 thick with an elliptic hole, D its corner (2, 0, 0.6)."""
    n, floors = (8, 8, 6), (0, 0.15, 0.3, 0.42, 0.51, 0.57, 0.6)

    def place(i: np.ndarray, j: np.ndarray, k: np.ndarray) -> np.ndarray:
        out, turn = graded(i, n[0], 2.4), graded(j, n[1], 2.2) * np.pi / 2
        height = np.interp(k, 2 * np.arange(n[2] + 1), floors)
        inner = np.stack([2 * np.cos(turn), np.sin(turn)], 1)
        outer = np.stack([3.25 * np.cos(turn), 2.75 * np.sin(turn)], 1)
        flat = inner + out[:, None] * (outer - inner)
        return np.column_stack([flat, height])

    whole = [slice(0, m) for m in n]
    parts = {
        "hole": Part((0, whole[1], whole[2])),
        "rim": Part((2 * n[0], whole[1], whole[2])),
        "y0": Part((whole[0], 0, whole[2])),
        "x0": Part((whole[0], 2 * n[1], whole[2])),
        "lower": Part((whole[0], whole[1], 0)),
        "upper": Part((whole[0], whole[1], 2 * n[2])),
        "midline": Part((2 * n[0], whole[1], 4)),
    }
    write("le10", n, place, parts)


def le11() -> None:
    """The section, in r and z, of a sphere that tapers into a cylinder; A its corner (1, 0)."""
    across, pieces = 6, (6, 4, 4, 4)
    arc = np.pi / 180

    def inside(s: np.ndarray) -> np.ndarray:
        """A to C and E on the sphere of radius 1, then up."""
        angle = np.interp(s, [0, 1, 2], [0, 22.5, 45]) * arc
        height = np.interp(s, [2, 4], [np.sin(45 * arc), 1.79])
        return np.stack([np.cos(angle), np.where(s > 2, height, np.sin(angle))], 1)

    def outside(s: np.ndarray) -> np.ndarray:
        """B to D on the sphere of radius 1.4, then G, then up."""
        angle = np.interp(s, [0, 1], [0, 30]) * arc
        r = np.interp(s, [1, 3, 4], [1.4 * np.cos(30 * arc), 1.0, 1.0])
        z = np.interp(s, [1, 3, 4], [0.7, 1.39, 1.79])
        return np.stack(
            [np.where(s > 1, r, 1.4 * np.cos(angle)), np.where(s > 1, z, 1.4 * np.sin(angle))], 1
        )

    def place(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        ends = np.cumsum([0, *pieces]) * 2
        s = np.interp(j, ends, range(len(ends)))
        share = graded(i, across, 1.3)[:, None]
        return inside(s) + share * (outside(s) - inside(s))

    total = sum(pieces)
    parts = {
        "bottom": Part((slice(0, across), 0)),
        "top": Part((slice(0, across), 2 * total)),
        "inner": Part((0, slice(0, total))),
        "outer": Part((2 * across, slice(0, total))),
    }
    write("le11", (across, total), place, parts)


def roller() -> None:
    """Half of a body of 1 by 1 that touches a floor about the origin, in radii of a roller."""
    n = 16
    parts = {
        "middle": Part((0, slice(0, n))),
        "free": Part((2 * n, slice(0, n))),
        "bottom": Part((slice(0, n), 0)),
        "top": Part((slice(0, n), 2 * n)),
    }
    write("roller", (n, n), lambda i, j: np.stack([graded(i, n, 2.5), graded(j, n, 2.5)], 1), parts)


if __name__ == "__main__":
    axisymmetric()
    le10()
    le11()
    roller()
