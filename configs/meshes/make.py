"""Makes the example meshes beside it with Gmsh: ``python configs/meshes/make.py``."""

from __future__ import annotations

from pathlib import Path

import gmsh

HERE = Path(__file__).parent


def start(name: str, size: float) -> None:
    """Begin a model whose triangles have edges of at most ``size``."""
    gmsh.model.add(name)
    gmsh.option.setNumber("Mesh.MeshSizeMax", size)


def finish(name: str, groups: dict[tuple[int, str], list[int]]) -> None:
    """Name the groups, mesh, and write ``name.msh``."""
    for (dimension, label), entities in groups.items():
        gmsh.model.addPhysicalGroup(dimension, entities, name=label)
    gmsh.model.mesh.generate(2)
    gmsh.write(str(HERE / f"{name}.msh"))


def curves_at(axis: int, value: float) -> list[int]:
    """The curves on which a coordinate has a value."""
    found = []
    for dimension, tag in gmsh.model.getEntities(1):
        box = gmsh.model.getBoundingBox(dimension, tag)
        if abs(box[axis] - value) < 1e-5 and abs(box[axis + 3] - value) < 1e-5:
            found.append(tag)
    return found


def refine(curves: list[tuple[int, int]], size: float) -> None:
    """Make the elements at the curves of that size."""
    ends = gmsh.model.getBoundary(curves, combined=False, recursive=True)
    gmsh.model.mesh.setSize(ends, size)


def plate() -> None:
    """A plate of 2 by 1 with a hole of radius 0.2 in its middle."""
    start("plate", 0.12)
    body = gmsh.model.occ.addRectangle(0, 0, 0, 2, 1)
    hole = gmsh.model.occ.addDisk(1, 0.5, 0, 0.2, 0.2)
    gmsh.model.occ.cut([(2, body)], [(2, hole)])
    gmsh.model.occ.synchronize()
    sides = {
        "left": curves_at(0, 0), "right": curves_at(0, 2),
        "bottom": curves_at(1, 0), "top": curves_at(1, 1),
    }  # fmt: skip
    taken = {tag for tags in sides.values() for tag in tags}
    rim = [tag for _, tag in gmsh.model.getEntities(1) if tag not in taken]
    refine([(1, tag) for tag in rim], 0.03)
    faces = [tag for _, tag in gmsh.model.getEntities(2)]
    groups = {(1, name): tags for name, tags in {**sides, "hole": rim}.items()}
    finish("plate", {**groups, (2, "plate"): faces})


def inclusion() -> None:
    """A square from -1 to 1 in which a disk of radius 0.4 is another material."""
    start("inclusion", 0.1)
    square = gmsh.model.occ.addRectangle(-1, -1, 0, 2, 2)
    disk = gmsh.model.occ.addDisk(0, 0, 0, 0.4, 0.4)
    _, parts = gmsh.model.occ.fragment([(2, square)], [(2, disk)])
    gmsh.model.occ.synchronize()
    inner = [tag for _, tag in parts[1]]
    outer = [tag for _, tag in parts[0] if tag not in inner]
    rim = gmsh.model.getBoundary([(2, t) for t in inner], oriented=False)
    refine(rim, 0.05)
    edges = [t for axis in (0, 1) for end in (-1, 1) for t in curves_at(axis, end)]
    finish("inclusion", {(1, "outer"): edges, (2, "disk"): inner, (2, "matrix"): outer})


if __name__ == "__main__":
    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.option.setNumber("Mesh.MshFileVersion", 2.2)
    plate()
    inclusion()
    gmsh.finalize()
