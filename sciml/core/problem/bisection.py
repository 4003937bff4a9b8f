"""Local refinement of simplices: longest edges are halved, kept conforming (Rivara 1984).

An edge that is to be halved makes the longest edge of every element around it one too, until the
longest edge of each element that has such an edge is among them; all these elements are divided
there, and the children looked at in the same way. Which of two edges of equal length is the longer
one is decided by their numbers, the same in all elements. It ends with every marked edge halved and
no vertex hanging, in any dimension; angles stay above half of the smallest one in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh


def bisected(mesh: Mesh, marked: np.ndarray) -> Mesh:
    """The mesh with all edges of the elements ``marked``, by their numbers, halved.

    Names of parts go along. Raises InputError for elements that are no straight simplices.
    """
    if not mesh.kind.simplex or mesh.middles is not None:
        raise InputError(
            "only meshes of straight simplices are refined in places; these are "
            f"{'curved' if mesh.kind.simplex else mesh.kind.plural}",
            "mesh",
        )
    halves = _Halves(mesh.points)
    halves.mark(mesh.cells[np.unique(marked)])
    cells, parents = halves.divided(mesh.cells, closing=True)
    subdomains = {
        name: np.flatnonzero(np.isin(parents, members)) for name, members in mesh.subdomains.items()
    }
    parts = {
        name: halves.divided(rows, closing=False)[0]
        for group in (mesh.boundaries, mesh.supports)
        for name, rows in group.items()
    }
    return replace(
        mesh,
        points=halves.points,
        cells=cells,
        subdomains=subdomains,
        boundaries={name: parts[name] for name in mesh.boundaries},
        supports={name: parts[name] for name in mesh.supports},
    )


@dataclass
class _Halves:
    """Edges by the numbers of their ends: those marked, and the middles of those halved.

    ``keys``: of the edges that are to be halved, sorted; ``halved`` and ``middles``: of those that
    are, sorted alike.
    """

    points: np.ndarray
    keys: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    halved: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    middles: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def mark(self, cells: np.ndarray) -> None:
        """Ask for all edges of these elements."""
        self.keys = np.union1d(self.keys, _keys(_ends(cells)))

    def divided(self, rows: np.ndarray, closing: bool) -> tuple[np.ndarray, np.ndarray]:
        """Simplices divided at the edges asked for, and the rows that they came from.

        ``closing``: whether longest edges may be asked for, too, and middles be made.
        """
        origins = np.arange(len(rows))
        if rows.shape[1] < 2:
            return rows, origins
        while True:
            ends = _ends(rows)
            keys = _keys(ends)
            open_ = np.isin(keys, self.keys).reshape(len(rows), -1).any(axis=1)
            if not open_.any():
                return rows, origins
            longest = _longest(self.points, ends[open_])
            chosen = ends[open_][np.arange(len(longest)), longest]
            if closing:
                before = len(self.keys)
                self.keys = np.union1d(self.keys, _keys(chosen[:, None]))
                if len(self.keys) > before:
                    continue
                self._halve(chosen)
            middles = self.middles[np.searchsorted(self.halved, _keys(chosen[:, None]))]
            old = rows[open_]
            first, second = (np.where(old == chosen[:, k, None], middles[:, None], old)
                             for k in (1, 0))  # fmt: skip
            rows = np.concatenate([rows[~open_], first, second])
            origins = np.concatenate([origins[~open_], origins[open_], origins[open_]])

    def _halve(self, edges: np.ndarray) -> None:
        """Make the middles of edges (k, 2) that have none."""
        keys, first = np.unique(_keys(edges[:, None]), return_index=True)
        new = ~np.isin(keys, self.halved)
        keys, edges = keys[new], edges[first[new]]
        numbers = len(self.points) + np.arange(len(keys))
        self.points = np.concatenate([self.points, self.points[edges].mean(axis=1)])
        halved = np.concatenate([self.halved, keys])
        order = np.argsort(halved)
        self.halved = halved[order]
        self.middles = np.concatenate([self.middles, numbers])[order]


def _ends(rows: np.ndarray) -> np.ndarray:
    """The edges of simplices by their ends in order, (k, edges, 2)."""
    pairs = np.array(list(combinations(range(rows.shape[1]), 2)))
    return np.sort(rows[:, pairs], axis=2)


def _keys(ends: np.ndarray) -> np.ndarray:
    """One number for each edge, flat; points are fewer than 2^31."""
    found: np.ndarray = (ends[..., 0].astype(np.int64) << 31 | ends[..., 1]).ravel()
    return found


def _longest(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which edge of each simplex is the longest; of equal ones that of the largest number."""
    length = np.square(points[ends[..., 1]] - points[ends[..., 0]]).sum(axis=-1)
    keys = _keys(ends).reshape(length.shape)
    most = length.max(axis=1, keepdims=True)
    ties = length == most
    found: np.ndarray = np.where(ties, keys, -1).argmax(axis=1)
    return found
