"""The meshes of ``configs/reference``: mappings of a square, and what Gmsh makes.

    python benchmarks/reference_meshes.py

The channels and disks need ``pip install 'sciml-pde[gmsh]'``; without it their files stay.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
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


def laminated_strip() -> None:
    """Half of a laminated strip of 50 x 1, plies of 0 and 90 degrees, its support and its load."""
    plies = np.array([0, 1, 2, 3, 5, 7, 8, 9, 10]) / 10
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 25, 101), np.sort([*plies, 0.4, 0.6]))
    along = np.digitize(mesh.p[1, mesh.t].mean(0), [0.1, 0.2, 0.3, 0.7, 0.8, 0.9]) % 2 == 0
    x, y = mesh.p
    middle = mesh.facets[:, abs(mesh.p[0, mesh.facets].mean(0) - 25) < 1e-9].T
    rim = mesh.facets[:, mesh.boundary_facets()].T
    rim = rim[abs(x[rim].mean(1) - 25) > 1e-9]
    tags = {"zero": 1, "ninety": 2, "middle": 3, "free": 4, "support": 5, "load": 6}
    spots = {
        "support": np.flatnonzero((x == 10) & (y == 0)),
        "load": np.flatnonzero((x == 25) & (y == 1)),
    }
    lines = ["$MeshFormat", "2.2 0 8", "$EndMeshFormat", "$PhysicalNames", str(len(tags))]
    dims = {"zero": 2, "ninety": 2, "middle": 1, "free": 1, "support": 0, "load": 0}
    lines += [f'{dims[name]} {tag} "{name}"' for name, tag in tags.items()]
    lines += ["$EndPhysicalNames", "$Nodes", str(len(x))]
    lines += [f"{k + 1} {a:.12g} {b:.12g} 0" for k, (a, b) in enumerate(mesh.p.T)]
    rows = [f"15 2 {tags[n]} {tags[n]} {int(k[0]) + 1}" for n, k in spots.items()]
    for name, facets in (("middle", middle), ("free", rim)):
        rows += [f"1 2 {tags[name]} {tags[name]} {a + 1} {b + 1}" for a, b in facets]
    for ply, (a, b, c) in zip(along, mesh.t.T, strict=True):
        tag = tags["zero" if ply else "ninety"]
        rows.append(f"2 2 {tag} {tag} {a + 1} {b + 1} {c + 1}")
    lines += ["$EndNodes", "$Elements", str(len(rows))]
    lines += [f"{k + 1} {row}" for k, row in enumerate(rows)]
    (HOME / "laminated-strip.msh").write_text("\n".join([*lines, "$EndElements", ""]))


def channel(name: str, rim: float, wake: float, far: float, reach: float) -> None:
    """2.2 x 0.41 with a cylinder at (0.2, 0.2), triangles of second order that follow its rim.

    ``rim``, ``wake``, ``far``: the elements' sizes there; ``reach``: how far the rim is felt.
    """
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
    for side, curves in sides.items():
        gmsh.model.addPhysicalGroup(1, curves, name=side)
    gmsh.model.addPhysicalGroup(2, [t for _, t in gmsh.model.getEntities(2)], name="fluid")
    near, graded, behind = (fields.add(kind) for kind in ("Distance", "Threshold", "Box"))
    fields.setNumbers(near, "CurvesList", sides["cylinder"])
    fields.setNumber(near, "Sampling", 200)
    sizes = {"InField": near, "SizeMin": rim, "SizeMax": far, "DistMin": 0.005, "DistMax": reach}
    box = {"VIn": wake, "VOut": far, "XMin": 0.15, "XMax": 1.2, "YMin": 0.1, "YMax": 0.31}
    for number, options in ((graded, sizes), (behind, {**box, "Thickness": 0.2})):
        for option, value in options.items():
            fields.setNumber(number, option, value)
    least = fields.add("Min")
    fields.setNumbers(least, "FieldsList", [graded, behind])
    fields.setAsBackgroundMesh(least)
    for source in ("ExtendFromBoundary", "FromPoints", "FromCurvature"):
        gmsh.option.setNumber(f"Mesh.MeshSize{source}", 0)
    gmsh.option.setNumber("Mesh.MshFileVersion", 2.2)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(2)
    path = HOME / f"{name}.msh"
    gmsh.write(str(path))
    gmsh.finalize()
    path.write_text("\n".join(_shortened(path.read_text().splitlines())) + "\n")


def _shortened(lines: list[str]) -> Iterator[str]:
    """A file of version 2.2 whose coordinates have eleven digits."""
    inside = False
    for line in lines:
        inside = line == "$Nodes" or (inside and line != "$EndNodes")
        entries = line.split()
        if inside and len(entries) == 4:
            line = " ".join([entries[0], *(f"{float(x):.11g}" for x in entries[1:])])
        yield line


def backward_step() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A channel 1 high and 15 long behind a step of half its height, finer at its corner."""

    def behind(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across = 2 * y - 1
        return 8 * x**1.3 + 7 * x**4, np.sign(across) * abs(across) ** 1.3 / 2

    points, cells, facets = mapped(120, 20, behind, {"right": "outlet"})
    above = points[facets["left"]][:, :, 1].mean(1) > 0
    left = facets.pop("left")
    walls = np.concatenate([facets.pop("top"), left[~above]])
    return points, cells, {**facets, "inlet": left[above], "walls": walls}


def round_inclusion(name: str, side: float, radius: float, size: float, quarter: bool) -> None:
    """A disk in a square, triangles of second order; of ``quarter`` the part x, y > 0 alone."""
    import gmsh

    gmsh.initialize()
    gmsh.option.setNumber("General.Terminal", 0)
    build = gmsh.model.occ
    low = 0.0 if quarter else -side / 2
    length = side / 2 if quarter else side
    square = build.addRectangle(low, low, 0, length, length)
    disk = build.addDisk(0, 0, 0, radius, radius)
    if quarter:
        corner = build.addRectangle(0, 0, 0, radius, radius)
        [(_, disk)], _ = build.intersect([(2, disk)], [(2, corner)])
    build.fragment([(2, square)], [(2, disk)])
    build.synchronize()
    named: dict[str, list[int]] = {"left": [], "right": [], "bottom": [], "top": [], "rim": []}
    ends = (
        ("left", 0, low),
        ("right", 0, low + length),
        ("bottom", 1, low),
        ("top", 1, low + length),
    )
    for _, curve in gmsh.model.getEntities(1):
        place = build.getCenterOfMass(1, curve)
        on = [end for end, axis, at in ends if abs(place[axis] - at) < 1e-6]
        named[on[0] if on else "rim"].append(curve)
    for part, curves in named.items():
        gmsh.model.addPhysicalGroup(1, curves, name=part)
    for _, area in gmsh.model.getEntities(2):
        inside = gmsh.model.getBoundingBox(2, area)[3] < radius + 1e-3
        gmsh.model.addPhysicalGroup(2, [area], name="disk" if inside else "matrix")
    if not quarter:
        for (a, b), axis in ((("left", "right"), 0), (("bottom", "top"), 1)):
            shift = np.eye(4)
            shift[axis, 3] = side
            gmsh.model.mesh.setPeriodic(1, named[b], named[a], shift.ravel().tolist())
    near = gmsh.model.mesh.field.add("Distance")
    gmsh.model.mesh.field.setNumbers(near, "CurvesList", named["rim"])
    gmsh.model.mesh.field.setNumber(near, "Sampling", 200)
    graded = gmsh.model.mesh.field.add("Threshold")
    sizes = {"SizeMin": size * radius, "SizeMax": side / 10, "DistMin": 0.1 * radius}
    for option, value in {"InField": near, **sizes, "DistMax": side / 2}.items():
        gmsh.model.mesh.field.setNumber(graded, option, value)
    gmsh.model.mesh.field.setAsBackgroundMesh(graded)
    for source in ("ExtendFromBoundary", "FromPoints", "FromCurvature"):
        gmsh.option.setNumber(f"Mesh.MeshSize{source}", 0)
    gmsh.option.setNumber("Mesh.MshFileVersion", 2.2)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(2)
    gmsh.write(str(HOME / f"{name}.msh"))
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
    pipe = {"left": "axis", "right": "wall", "bottom": "inlet", "top": "outlet"}
    write("pipe", *mapped(4, 8, lambda x, y: (x, 2 * y), pipe))
    write("l-shape", *l_shape())
    write("sheet-pile", *sheet_pile())
    laminated_strip()
    write("roll", *mapped(8, 6, lambda x, y: (np.sqrt(2) * x, y), {}))
    write("unit-square", *mapped(16, 16, lambda x, y: (x, y), {}))
    write("strip", *mapped(50, 1, lambda x, y: (x, 0.02 * y), {}))
    write("step", *backward_step())
    write("plate", *mapped(8, 12, lambda x, y: (1 + x, 0.1 * y**2.5), {}))
    if importlib.util.find_spec("gmsh"):
        channel("channel", 0.003, 0.03, 0.055, 0.35)
        channel("channel-wake", 0.007, 0.032, 0.075, 0.3)
        channel("channel-street", 0.006, 0.02, 0.05, 0.5)
        round_inclusion("hot-spot", 20, 1, 0.12, quarter=True)
        round_inclusion("cell", 1, float(np.sqrt(0.5 / np.pi)), 0.15, quarter=False)


if __name__ == "__main__":
    main()
