"""The meshes of ``configs/reference``: mappings of a square, and by Gmsh a channel.

    python benchmarks/reference_meshes.py

The channel needs ``pip install 'sciml-pde[gmsh]'``; without it its file stays as it is.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skfem

HOME = Path(__file__).parents[1] / "configs" / "reference" / "meshes"
Map = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
SIDES = ("left", "right", "bottom", "top")


def mapped(nx: int, ny: int, to: Map, names: dict[str, str]) -> tuple[np.ndarray, np.ndarray, dict]:
    """Points, triangles and facets by name of the unit square's triangulation, moved by ``to``."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 1, nx + 1), np.linspace(0, 1, ny + 1))
    x, y = mesh.p[:, mesh.facets].mean(1)
    on = dict(zip(SIDES, (x < 1e-9, x > 1 - 1e-9, y < 1e-9, y > 1 - 1e-9), strict=True))
    facets = {names.get(side, side): mesh.facets[:, there].T for side, there in on.items()}
    return np.stack(to(*mesh.p), -1), mesh.t.T, facets


def write(name: str, points: np.ndarray, cells: np.ndarray, facets: dict[str, np.ndarray]) -> None:
    """A Gmsh file of version 2.2."""
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$PhysicalNames", str(len(facets) + 1)]
    tags = {group: k + 2 for k, group in enumerate(facets)}
    lines += ['2 1 "body"', *(f'1 {tag} "{group}"' for group, tag in tags.items())]
    lines += ["$EndPhysicalNames", "$Nodes", str(len(points))]
    lines += [f"{k + 1} {x:.12g} {y:.12g} 0" for k, (x, y) in enumerate(points)]
    rows = [f"1 2 {tags[g]} {tags[g]} {a + 1} {b + 1}" for g, f in facets.items() for a, b in f]
    rows += [f"2 2 1 1 {a + 1} {b + 1} {c + 1}" for a, b, c in cells]
    lines += ["$EndNodes", "$Elements", str(len(rows))]
    lines += [f"{k + 1} {row}" for k, row in enumerate(rows)]
    HOME.mkdir(parents=True, exist_ok=True)
    (HOME / f"{name}.msh").write_text("\n".join([*lines, "$EndElements", ""]))


def l_shape() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """[-1, 1]^2 but for its lower right quarter; ``leg`` is y = 0, x > 0, ``other`` x = 0."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    x, y = mesh.p[:, mesh.t].mean(1)
    mesh = mesh.remove_elements(np.flatnonzero((x > 0) & (y < 0)))
    outer = mesh.boundary_facets()
    x, y = mesh.p[:, mesh.facets[:, outer]].mean(1)
    leg, other = (abs(y) < 1e-9) & (x > 0), (abs(x) < 1e-9) & (y < 0)
    facets = mesh.facets[:, outer].T
    return (
        mesh.p.T,
        mesh.t.T,
        {"leg": facets[leg], "other": facets[other], "outer": facets[~leg & ~other]},
    )


def sheet_pile() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Half of the ground around a sheet pile that goes half-way down: 5 wide, 1 deep."""
    points, cells, facets = mapped(25, 10, lambda x, y: (5 * x, y), {"top": "ground"})
    below = points[facets["left"]][:, :, 1].mean(1) < 0.5
    left = facets.pop("left")
    return points, cells, {**facets, "gap": left[below], "pile": left[~below]}


def channel() -> None:
    """2.2 x 0.41 with a cylinder at (0.2, 0.2), triangles of second order that follow its rim."""
    import gmsh

    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    build, fields = gmsh.model.occ, gmsh.model.mesh.field
    whole, hole = build.addRectangle(0, 0, 0, 2.2, 0.41), build.addDisk(0.2, 0.2, 0, 0.05, 0.05)
    build.cut([(2, whole)], [(2, hole)])
    build.synchronize()
    sides: dict[str, list[int]] = {"inlet": [], "outlet": [], "walls": [], "cylinder": []}
    for _, curve in gmsh.model.getEntities(1):
        x, y, _ = build.getCenterOfMass(1, curve)
        end = "inlet" if x < 1e-6 else "outlet" if x > 2.2 - 1e-6 else "cylinder"
        sides["walls" if min(y, 0.41 - y) < 1e-6 else end].append(curve)
    for name, curves in sides.items():
        gmsh.model.addPhysicalGroup(1, curves, name=name)
    gmsh.model.addPhysicalGroup(2, [t for _, t in gmsh.model.getEntities(2)], name="fluid")
    near, graded, wake = (fields.add(kind) for kind in ("Distance", "Threshold", "Box"))
    fields.setNumbers(near, "CurvesList", sides["cylinder"])
    fields.setNumber(near, "Sampling", 200)
    sizes = {"InField": near, "SizeMin": 0.012, "SizeMax": 0.08, "DistMin": 0.01, "DistMax": 0.4}
    box = {"VIn": 0.04, "VOut": 0.08, "XMin": 0.15, "XMax": 1.2, "YMin": 0.1, "YMax": 0.31}
    for number, options in ((graded, sizes), (wake, {**box, "Thickness": 0.15})):
        for name, value in options.items():
            fields.setNumber(number, name, value)
    least = fields.add("Min")
    fields.setNumbers(least, "FieldsList", [graded, wake])
    fields.setAsBackgroundMesh(least)
    for source in ("ExtendFromBoundary", "FromPoints", "FromCurvature"):
        gmsh.option.setNumber(f"Mesh.MeshSize{source}", 0)
    gmsh.option.setNumber("Mesh.MshFileVersion", 2.2)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(2)
    gmsh.write(str(HOME / "channel.msh"))
    gmsh.finalize()


def main() -> None:
    """Write all of them."""
    quarter = np.pi / 2

    def graded(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        near = [0.35 * (1 - np.cos(np.pi * t)) + 0.3 * t for t in (x, y)]
        return near[0], near[1]

    def le1(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b = 2 + 1.25 * x, 1 + 1.75 * x
        return a * np.cos(quarter * y), b * np.sin(quarter * y)

    def kirsch(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        c, s = np.cos(quarter * y), np.sin(quarter * y)
        far, share = 5 / np.maximum(c, s), x**2
        r = (1 - share) + share * far
        return r * c, r * s

    def cook(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 48 * x, 44 * x + y * (44 - 28 * x)

    ends = {"bottom": "y0", "top": "x0"}
    write("le1", *mapped(16, 32, le1, {**ends, "left": "inner", "right": "outer"}))
    write("kirsch", *mapped(24, 32, kirsch, {**ends, "left": "hole", "right": "outer"}))
    write("cook", *mapped(8, 8, cook, {}))
    write("cantilever", *mapped(20, 2, lambda x, y: (x, 0.1 * y), {}))
    write("cavity", *mapped(12, 12, graded, {}))
    write("bar", *mapped(10, 1, lambda x, y: (0.1 * x, 0.01 * y), {}))
    write("l-shape", *l_shape())
    write("sheet-pile", *sheet_pile())
    if importlib.util.find_spec("gmsh"):
        channel()


if __name__ == "__main__":
    main()
