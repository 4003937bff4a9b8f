"""Attack the reader of meshes: files damaged at random.

    python benchmarks/attack_meshes.py [--tried 1500] [--journal FILE]

Bytes, numbers, names and lines of small meshes in every format are changed, moved or taken away.
Each must give one line that says what is wrong, or a mesh. A mesh that is given must be sound:
elements with a volume that fill the union of what they cover once, every group of elements and
facets that exist, and, where only numbers of coordinates were left alone, the same volume as before
or fewer elements than before. Lost is what does not end.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
import traceback
from math import factorial
from pathlib import Path
from typing import Any

import meshio
import numpy as np
from attack import ANSWERED, LOST, REFUSED, TRACEBACK, WRONG, Journal

from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh, determinants, edge_vectors
from sciml.core.problem.mesh_file import read_mesh

SECONDS = 5  # of the processor


def written(folder: Path) -> list[Path]:
    """The meshes to be damaged: a square of eight triangles in two regions, with its sides."""
    ticks = np.linspace(0, 1, 3)
    x, y = np.meshgrid(ticks, ticks, indexing="ij")
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    cells = []
    for i in range(2):
        for j in range(2):
            a, b, c, d = 3 * i + j, 3 * i + j + 3, 3 * i + j + 4, 3 * i + j + 1
            cells += [[a, b, c], [a, c, d]]
    sides = [[0, 3], [3, 6], [6, 7], [7, 8], [8, 5], [5, 2], [2, 1], [1, 0]]
    blocks = [("triangle", np.array(cells)), ("line", np.array(sides))]
    tags = [np.array([1, 1, 1, 1, 2, 2, 2, 2]), np.array([3, 3, 4, 4, 5, 5, 6, 6])]
    names = {"one": [1, 2], "two": [2, 2], "bottom": [3, 1], "right": [4, 1]}
    named = {k: np.array(v) for k, v in names.items()}
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    made = []
    for name, kind, options in (
        ("text.msh", "gmsh22", {"binary": False}),
        ("binary.msh", "gmsh22", {"binary": True}),
        ("four.msh", "gmsh", {"binary": False}),
        ("fourbinary.msh", "gmsh", {"binary": True}),
        ("m.vtu", "vtu", {"binary": False}),
        ("b.vtu", "vtu", {}),
        ("m.xdmf", "xdmf", {"data_format": "XML"}),
        ("h.xdmf", "xdmf", {}),
        ("m.vtk", "vtk", {"binary": False}),
        ("m.inp", "abaqus", {}),
        ("m.bdf", "nastran", {}),
        ("m.mesh", "medit", {}),
        ("fluent.msh", "ansys", {"binary": False}),
        ("fluentbinary.msh", "ansys", {"binary": True}),
    ):
        mesh = meshio.Mesh(points, blocks, cell_data=data, field_data=named)
        if kind == "gmsh":
            mesh.point_data["gmsh:dim_tags"] = np.array([[2, 1 + (k > 4)] for k in range(9)])
            whole = [np.full(8, 1), np.full(8, 3)]
            mesh.cell_data = {"gmsh:physical": whole, "gmsh:geometrical": whole}
        if kind == "ansys":  # its writer knows no sides
            mesh = meshio.Mesh(points, blocks[:1])
        try:
            meshio.write(folder / name, mesh, file_format=kind, **options)
        except Exception as error:
            print(f"{name} is not written: {error}")
            continue
        made.append(folder / name)
    # meshio's own file in this format cannot be written.
    marked = {"bottom": sides[:2], "right": sides[2:4], "others": sides[4:]}
    rows = ["NDIME= 2", f"NELEM= {len(cells)}", *(f"5 {a} {b} {c}" for a, b, c in cells)]
    rows += [f"NPOIN= {len(points)}", *(f"{x:g} {y:g}" for x, y, _ in points), "NMARK= 3"]
    for name, found in marked.items():
        rows += [f"MARKER_TAG= {name}", f"MARKER_ELEMS= {len(found)}"]
        rows += [f"3 {a} {b}" for a, b in found]
    (folder / "m.su2").write_text("\n".join(rows) + "\n")
    return [*made, folder / "m.su2"]


def damaged(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """The data with one fault, and its kind."""
    kind = str(rng.choice(["bytes", "number", "word", "line", "cut", "swap"]))
    raw = bytearray(data)
    if kind == "bytes":
        for place in rng.integers(len(raw), size=int(rng.integers(1, 6))):
            raw[place] = int(rng.integers(256))
        return bytes(raw), kind
    if kind == "cut":
        return bytes(raw[: int(rng.integers(len(raw)))]), kind
    lines = data.split(b"\n")
    k = int(rng.integers(len(lines)))
    if kind == "line":
        lines[k : k + 1] = [] if rng.random() < 0.5 else [lines[k], lines[k]]
    elif kind == "swap":
        j = int(rng.integers(len(lines)))
        lines[k], lines[j] = lines[j], lines[k]
    else:
        words = lines[k].split(b" ")
        place = int(rng.integers(len(words)))
        choices = (
            [b"-1", b"0", b"3", b"99", b"1e308", b"nan", b"-2147483649", b"99999999999999999999"]
            if kind == "number"
            else [b"", b"$End", b"\xff\xfe", b"<", b'"', b"left", b"'"]
        )
        words[place] = choices[int(rng.integers(len(choices)))]
        lines[k] = b" ".join(words)
    return b"\n".join(lines), kind


def unsound(mesh: Mesh) -> str:
    """What is wrong with a mesh that was accepted; nothing where it is sound."""
    volumes = determinants(edge_vectors(mesh.points, mesh.cells)) / factorial(mesh.dimension)
    if not (volumes > 0).all():
        return "an element without volume"
    if any(len(np.unique(v)) != len(v) for v in mesh.subdomains.values()):
        return "a group names an element twice"
    if mesh.dimension == 2:
        outer = mesh.topology.facets[:, mesh.topology.boundary_facets()].T
        ends = mesh.points[outer]
        # Gauss: the area from the rim, each facet as its one element has it.
        owner = mesh.cells[mesh.topology.f2t[0, mesh.topology.boundary_facets()]]
        inner = mesh.points[owner].mean(axis=1)
        edge, normal = ends[:, 1] - ends[:, 0], None
        normal = np.stack([edge[:, 1], -edge[:, 0]], axis=1)
        middle = ends.mean(axis=1)
        normal *= np.sign(((middle - inner) * normal).sum(axis=1))[:, None]
        area = float((middle * normal).sum() / 2)
        if abs(area - volumes.sum()) > 1e-9 * abs(volumes).sum():
            return "the elements do not fill what their rim encloses"
    return ""


class _TooLong(BaseException):
    """An alarm; not an Exception, so that nobody swallows it."""


def _alarm(*_: Any) -> None:
    raise _TooLong


def verdict(path: Path, before: Mesh) -> tuple[str, str]:
    """How the reading of a damaged file ends, and why."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        mesh = read_mesh(path)
    except InputError as error:
        text = str(error)
        return (
            (TRACEBACK, f"not one line: {text[:200]!r}") if "\n" in text else (REFUSED, text[:200])
        )
    except _TooLong:
        return LOST, f"did not end within {SECONDS} s"
    except BaseException:
        return TRACEBACK, traceback.format_exc()[-400:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    fault = unsound(mesh)
    if not fault and len(mesh.cells) > len(before.cells):
        fault = "more elements than before"
    return (WRONG, fault) if fault else (ANSWERED, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tried", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=Path("runs/attack/meshes.jsonl"))
    chosen = parser.parse_args()
    journal, family = Journal(chosen.journal), "meshes, damaged files"
    signal.signal(signal.SIGPROF, _alarm)
    done = journal.done()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = written(folder)
        whole = {file: read_mesh(file) for file in files}
        place = folder / "damaged"
        place.mkdir()
        for companion in folder.glob("*.h5"):
            (place / companion.name).write_bytes(companion.read_bytes())
        for number in range(chosen.tried):
            case = f"{chosen.seed}-{number}"
            if (family, case) in done:
                continue
            begin, file = time.perf_counter(), files[number % len(files)]
            rng = np.random.default_rng((chosen.seed, number))
            data, fault = damaged(file.read_bytes(), rng)
            (place / file.name).write_bytes(data)
            found, why = verdict(place / file.name, whole[file])
            seconds = time.perf_counter() - begin
            journal.add(family, case, found, file=file.name, fault=fault, why=why, seconds=seconds)
    print(journal.counts())


if __name__ == "__main__":
    main()
