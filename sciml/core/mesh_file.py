"""Meshes in files: Gmsh's, VTK's and XDMF's, read by meshio, and those beside a solution.

Of ``.msh`` (2.2 and 4.1), ``.vtu`` and ``.xdmf`` the cells of the highest dimension are the
elements, those of one dimension less the boundaries. Groups of either have names:

* ``.msh``: the physical groups' own names; a group without one is called ``tag_7`` by its number;
* ``.vtu`` and ``.xdmf`` know no names, so integer cell arrays make the groups: cells where the
  array ``hole`` is 1 are the group ``hole`` if it holds 0 and 1 only, else those where the array
  ``part`` is 3 are ``part_3``; 0 means none.

Points that no element uses are left out. Quadratic cells give their corners, if they are straight.
A solution's mesh is a group of its HDF5 file, and VTK's unstructured grid for ParaView.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sciml.core.errors import InputError
from sciml.core.mesh import Element, Mesh

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".msh", ".vtu", ".xdmf")
# Cells by meshio's name: dimension and number of corners. Vertices are read and left alone.
_KINDS = {
    "vertex": (0, 1),
    "line": (1, 2),
    "line3": (1, 2),
    "triangle": (2, 3),
    "triangle6": (2, 3),
    "tetra": (3, 4),
    "tetra10": (3, 4),
}
# The corners between which each further node of a quadratic cell lies.
_MIDDLES = {
    "line3": [(0, 1)],
    "triangle6": [(0, 1), (1, 2), (0, 2)],
    "tetra10": [(0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)],
}
# Arrays that meshio or Gmsh write beside the groups.
_IGNORED = ("gmsh:geometrical", "gmsh:dim_tags", "medit:ref")


@dataclass(frozen=True)
class MeshFile:
    """A mesh in a file; ``element`` is P1 or P2."""

    file: str
    element: Element = "P1"

    def mesh(self) -> Mesh:
        """The mesh, read anew."""
        return read_mesh(self.file, self.element)


def read_mesh(path: str | Path, element: Element = "P1") -> Mesh:
    """The mesh in a ``.msh``, ``.vtu`` or ``.xdmf`` file, with its named groups.

    A mesh of triangles in a plane z = const is two-dimensional, one of lines along x
    one-dimensional. Raises InputError for a missing or unreadable file, elements other than
    intervals, triangles and tetrahedra, curved or mixed ones, and for what :class:`Mesh` refuses.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"a mesh file ends in {', '.join(SUFFIXES)}; got '{path.name}'", "mesh.file"
        )
    if not path.is_file():
        raise InputError(f"mesh file not found: {path}", "mesh.file")
    raw = _read(path)
    blocks = [(b.type, np.asarray(b.data, dtype=np.int64)) for b in raw.cells]
    unknown = sorted({kind for kind, _ in blocks if kind not in _KINDS})
    if unknown:
        raise InputError(
            f"{path.name} has elements that are not supported: {', '.join(unknown)}; "
            "use intervals, triangles or tetrahedra",
            "mesh.file",
        )
    d = max((_KINDS[kind][0] for kind, data in blocks if len(data)), default=0)
    if d == 0:
        raise InputError(f"{path.name} has no elements", "mesh.file")
    points = np.asarray(raw.points, dtype=np.float64)
    _check_straight(points, blocks)
    corners = [data[:, : _KINDS[kind][1]] for kind, data in blocks]
    dimensions = [_KINDS[kind][0] for kind, _ in blocks]
    groups = _groups(raw)
    cells = np.concatenate([c for c, n in zip(corners, dimensions, strict=True) if n == d])
    used = np.zeros(len(points), dtype=bool)
    used[cells] = True
    renumber = np.where(used, np.cumsum(used) - 1, -1)
    boundaries = {
        name: np.unique(np.sort(renumber[found], axis=1), axis=0)
        for name, members in groups.items()
        if len(found := _gather(corners, dimensions, members, d - 1))
    }
    subdomains = {
        name: found
        for name, members in groups.items()
        if len(found := _numbers(dimensions, corners, members, d))
    }
    return Mesh(_flat(points[used], d, path), renumber[cells], subdomains, boundaries, element)


def _read(path: Path) -> Any:
    import meshio

    try:
        # meshio prints, and exits the process, where it cannot read a file.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return meshio.read(path)
    except (SystemExit, Exception) as error:
        reason = str(error).splitlines()
        raise InputError(
            f"cannot read {path.name}" + (f": {reason[0]}" if reason and reason[0] else ""),
            "mesh.file",
        ) from None


def _check_straight(points: np.ndarray, blocks: list[tuple[str, np.ndarray]]) -> None:
    for kind, data in blocks:
        first = _KINDS[kind][1]
        for column, (a, b) in enumerate(_MIDDLES.get(kind, ()), start=first):
            ends = points[data[:, a]], points[data[:, b]]
            gap = np.abs(points[data[:, column]] - (ends[0] + ends[1]) / 2).max(axis=1)
            if (gap > 1e-8 * np.abs(ends[1] - ends[0]).max(axis=1)).any():
                raise InputError(
                    f"the mesh has curved elements ({kind}): only straight ones are supported; "
                    "write linear elements and use element: P2",
                    "mesh.file",
                )


def _groups(raw: Any) -> dict[str, list[np.ndarray]]:
    """By name, for every block of cells the numbers of the members."""
    found: dict[str, list[np.ndarray]] = {}
    names = {
        (int(value[0]), int(value[1])): name
        for name, value in raw.field_data.items()
        if np.size(value) == 2
    }
    for array, blocks in raw.cell_data.items():
        values = [np.asarray(block) for block in blocks]
        if array in _IGNORED or any(v.dtype.kind not in "iu" or v.ndim != 1 for v in values):
            continue
        tags = np.unique(np.concatenate(values)) if values else np.array([], dtype=int)
        tags = tags[tags != 0]
        physical = array == "gmsh:physical"
        for tag in tags.tolist():
            for number, block in enumerate(raw.cells):
                members = np.flatnonzero(values[number] == tag)
                if physical:
                    name = names.get((tag, _KINDS[block.type][0]), f"tag_{tag}")
                else:
                    name = array if tags.tolist() == [1] else f"{array}_{tag}"
                entry = found.setdefault(name, [np.array([], dtype=np.int64)] * len(raw.cells))
                old = entry[number]
                entry[number] = np.union1d(old, members) if len(old) else members
    for name, sets in raw.cell_sets.items():
        if not name.startswith("gmsh:") and len(sets) == len(raw.cells) and name not in found:
            found[name] = [np.asarray([] if s is None else s, dtype=np.int64) for s in sets]
    return found


def _gather(
    corners: list[np.ndarray], dimensions: list[int], members: list[np.ndarray], d: int
) -> np.ndarray:
    rows = [c[m] for c, n, m in zip(corners, dimensions, members, strict=True) if n == d]
    return np.concatenate(rows) if rows else np.empty((0, d + 1), dtype=np.int64)


def _numbers(
    dimensions: list[int], corners: list[np.ndarray], members: list[np.ndarray], d: int
) -> np.ndarray:
    """The members' numbers among all cells of dimension d."""
    found, before = [], 0
    for n, block, chosen in zip(dimensions, corners, members, strict=True):
        if n == d:
            found.append(chosen.astype(np.int64) + before)
            before += len(block)
    return np.concatenate(found) if found else np.array([], dtype=np.int64)


def _flat(points: np.ndarray, d: int, path: Path) -> np.ndarray:
    """The first d coordinates, where the others do not vary."""
    rest = points[:, d:]
    if rest.size and (np.ptp(rest, axis=0) > 1e-12 * max(np.ptp(points), 1e-300)).any():
        kind = "triangles must lie in a plane z = const" if d == 2 else "lines must lie along x"
        raise InputError(f"{path.name}: {kind}", "mesh.file")
    return np.ascontiguousarray(points[:, :d])


# Per dimension and degree VTK's cell, and where its nodes stand in ours.
_CELLS: dict[tuple[int, int], tuple[str, list[int]]] = {
    (1, 1): ("line", [0, 1]),
    (1, 2): ("line3", [0, 1, 2]),
    (2, 1): ("triangle", [0, 1, 2]),
    (2, 2): ("triangle6", [0, 1, 2, 3, 4, 5]),
    (3, 1): ("tetra", [0, 1, 2, 3]),
    (3, 2): ("tetra10", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
}


def write_mesh_group(group: h5py.Group, mesh: Mesh) -> None:
    """``points``, ``cells``, ``subdomains``, ``boundaries`` with their names, and ``element``."""
    group.attrs["element"] = mesh.element
    group["points"], group["cells"] = mesh.points, mesh.cells
    for kind, named in (("subdomains", mesh.subdomains), ("boundaries", mesh.boundaries)):
        inner = group.create_group(kind)
        # Links would split a name at its slashes.
        inner.attrs["names"] = list(named)
        for number, members in enumerate(named.values()):
            inner[str(number)] = np.asarray(members, dtype=np.int64)


def read_mesh_group(group: h5py.Group) -> Mesh:
    """The mesh that :func:`write_mesh_group` wrote."""
    named = {
        kind: {
            str(name): group[f"{kind}/{number}"][()]
            for number, name in enumerate(group[kind].attrs["names"])
        }
        for kind in ("subdomains", "boundaries")
    }
    element: Element = "P2" if group.attrs["element"] == "P2" else "P1"
    return Mesh(group["points"][()], group["cells"][()], **named, element=element)


def write_vtu(path: Path, mesh: Mesh, arrays: Mapping[str, np.ndarray]) -> None:
    """The mesh with ``arrays`` of a value per node or per element; (3, nodes) is a vector.

    Named subdomains go along as cell arrays of 0 and 1, as ``read_mesh`` takes them.
    """
    import meshio

    kind, order = _CELLS[mesh.dimension, mesh.degree]
    points = np.zeros((len(mesh.nodes), 3))
    points[:, : mesh.dimension] = mesh.nodes
    at_nodes = {k: v.T.copy() for k, v in arrays.items() if v.shape[-1] == len(points)}
    at_cells = {k: [v] for k, v in arrays.items() if k not in at_nodes}
    for name, members in mesh.subdomains.items():
        mask = np.zeros(len(mesh.cells), dtype=np.int32)
        mask[members] = 1
        at_cells.setdefault(name, [mask])
    out = meshio.Mesh(
        points, [(kind, mesh.cell_nodes[:, order])], point_data=at_nodes, cell_data=at_cells
    )
    meshio.write(path, out, file_format="vtu", compression=None)
