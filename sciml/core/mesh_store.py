"""Meshes inside a solution's files: a group of an HDF5 file, and VTK's unstructured grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import meshio
import numpy as np

from sciml.core.mesh import Element, Mesh

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
