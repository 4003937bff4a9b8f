"""The mesh of a shard: where its values live, in HDF5 and for a reader.

The Well's layout has no unstructured grids; this is what lies closest. ``grid_type`` is
``unstructured``; a field is (sample, [time,] node, *components); ``dimensions`` holds ``points``
(node, d) float64, where the values live, and ``cells`` (m, k) int64, the nodes of every element:
its d + 1 corners first, for P2 then the middles of its edges. A boundary's group has a mask over
the nodes and, since the name of a group cannot hold all that a mesh's name can, its ``name``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h5py
import numpy as np

if TYPE_CHECKING:
    from sciml.core.mesh import Element, Mesh


@dataclass(frozen=True, eq=False)
class Unstructured:
    """``points`` (n, d) float64, ``cells`` (m, k) int64, and by boundary the nodes on it."""

    points: np.ndarray
    cells: np.ndarray
    sides: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, mesh: Mesh) -> Unstructured:
        """The nodes and elements of a mesh."""
        sides = {name: np.unique(mesh.facet_nodes(part)) for name, part in mesh.facets.items()}
        return cls(mesh.nodes, mesh.cell_nodes.astype(np.int64), sides)

    @property
    def dimension(self) -> int:
        """Number of space dimensions."""
        return int(self.points.shape[1])

    @property
    def mesh(self) -> Mesh:
        """The mesh again, without the names of its boundaries."""
        from sciml.core.mesh import Mesh

        corners = self.cells[:, : self.dimension + 1]
        element: Element = "P1" if self.cells.shape[1] == self.dimension + 1 else "P2"
        return Mesh(self.points[: corners.max() + 1], corners, element=element)

    def same(self, other: Unstructured) -> bool:
        """Whether nodes and elements are the very same."""
        return np.array_equal(self.points, other.points) and np.array_equal(self.cells, other.cells)


def write_unstructured(
    file: h5py.File, place: Unstructured, kinds: Mapping[str, str], well: Mapping[str, str]
) -> None:
    """Points, cells and boundaries, whose conditions are ``kinds``; ``well``: The Well's names."""
    n, d = place.points.shape
    _scale(file, "node", n)
    _scale(file, "cell", len(place.cells))
    _scale(file, f"corner_{place.cells.shape[1]}", place.cells.shape[1])
    _scale(file, f"component_{d}", d)
    _array(file, "points", place.points.astype(np.float64), ("node", f"component_{d}"))
    corners = f"corner_{place.cells.shape[1]}"
    _array(file, "cells", place.cells.astype(np.int64), ("cell", corners))
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = ["points"]
    for name in ("time", "points", "cells"):
        group[name] = file[name]
        group[name].attrs.update(sample_varying=False, time_varying=False)
    group = file.create_group("boundary_conditions")
    for number, (name, nodes) in enumerate(place.sides.items()):
        entry = group.create_group(f"{number}_" + re.sub(r"\W", "_", name))
        entry.attrs["name"] = np.bytes_(name.encode())
        entry.attrs["associated_dims"] = ["node"]
        entry.attrs["associated_fields"] = np.array([], dtype=h5py.string_dtype())
        entry.attrs["bc_type"] = well.get(kinds.get(name, ""), "WALL")
        entry.attrs["exact_type"] = kinds.get(name, "neumann")
        entry.attrs.update(sample_varying=False, time_varying=False)
        mask = np.zeros(n, dtype=bool)
        mask[nodes] = True
        entry.create_dataset("mask", data=mask, chunks=mask.shape, fletcher32=True)
        entry["mask"].dims[0].attach_scale(file["node"])


def read_unstructured(file: h5py.File) -> Unstructured | None:
    """The mesh of an open shard; None for one on a grid."""
    if "cells" not in file:
        return None
    sides = {
        bytes(entry.attrs["name"]).decode(): np.flatnonzero(entry["mask"][()])
        for entry in file["boundary_conditions"].values()
    }
    return Unstructured(file["points"][()], file["cells"][()], sides)


def _scale(file: h5py.File, name: str, count: int) -> None:
    if name not in file:
        file.create_dataset(name, data=np.arange(count), chunks=(count,), fletcher32=True)
        file[name].make_scale(name)


def _array(file: h5py.File, name: str, values: np.ndarray, scales: tuple[str, ...]) -> None:
    entry = file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
    for position, scale in enumerate(scales):
        entry.dims[position].attach_scale(file[scale])
