"""What a mesh is made of: its regions, boundaries and supports, how many of what, how large."""

from __future__ import annotations

import numpy as np
import torch

from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.quadrature import Quadrature, on_facets, on_support, whole

_OF_DIMENSION = ("point", "length", "area", "volume")


def facts(mesh: Mesh) -> dict[str, str]:
    """The mesh as a whole, in words."""
    low, high = mesh.nodes.min(axis=0), mesh.nodes.max(axis=0)
    part = whole(mesh, 2)
    sizes = (part.scale * part.tables.weights).sum(-1).numpy()
    shape = "curved" if mesh.middles is not None else "straight"
    found = {
        "elements": f"{len(mesh.cells)} {mesh.element} {mesh.kind.plural}, {shape}",
        "nodes": f"{mesh.shape[0]}, {len(mesh.points)} of them vertices",
        "extent": ", ".join(
            f"{axis} {a:.6g} to {b:.6g}" for axis, a, b in zip(AXES, low, high, strict=False)
        ),
        "sizes": f"{_OF_DIMENSION[mesh.dimension]} {sizes.sum():.6g} in all; elements from "
        f"{sizes.min():.3g} to {sizes.max():.3g}",
    }
    if mesh.axisymmetric:
        found["sizes"] += ", of the half section"
    return found


def groups(mesh: Mesh) -> list[list[str]]:
    """A table: every named part, what it is, its members, its size and where it lies."""
    d = mesh.dimension
    rows = [["group", "is", "count", "size", *AXES[:d]]]
    cells = whole(mesh, 2)
    for name, members in mesh.subdomains.items():
        index = torch.from_numpy(np.asarray(members, dtype=np.int64))
        rows.append([name, "region", *_row(mesh, cells.of(index), mesh.kind.plural, d)])
    for name, numbers in mesh.facets.items():
        of = on_facets(mesh, numbers, 2)
        rows.append([name, "boundary", *_row(mesh, of, "facets", d - 1)])
    for name in mesh.supports:
        of = on_support(mesh, name, 2)
        rows.append([name, "support", *_row(mesh, of, "members", min(of.nodes.shape[1] - 1, 1))])
    return rows


def _row(mesh: Mesh, part: Quadrature, what: str, dimension: int) -> list[str]:
    """Count, size and extent of a part; sizes are those in the plane of the mesh."""
    count = f"{len(part.nodes)} {what}"
    if not len(part.nodes):
        return [count, "", *[""] * mesh.dimension]
    size = float((part.scale * part.tables.weights).sum())
    told = f"{_OF_DIMENSION[dimension]} {size:.6g}" if dimension else ""
    places = mesh.nodes[torch.unique(part.nodes).numpy()]
    spans = [
        f"{a:.4g}" if a == b else f"{a:.4g} to {b:.4g}"
        for a, b in zip(places.min(axis=0), places.max(axis=0), strict=True)
    ]
    return [count, told, *spans]
