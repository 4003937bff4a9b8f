"""What it costs that a mesh of several kinds is cut into triangles or tetrahedra.

    python benchmarks/mixed.py [--keep]

The same points twice: quadrilaterals or hexahedra as they are, and from a file in which one of them
is a triangle's or a prism's neighbour, so that all are cut. Manufactured waves on a twisted square
and cube, and a slender beam bent by its end. ``--keep`` writes ``benchmarks/results/mixed.json``.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
import time
from pathlib import Path

import meshio
import numpy as np
import results
import torch
from meshes import wave_problem

import sciml
from sciml import solvers
from sciml.core.problem.equation import Elasticity
from sciml.core.problem.mesh import Element
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.quadrature import relative_error

LENGTH = 10.0


def lattice(d: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Points of [0, 1]^d and its quadrilaterals or hexahedra, as VTK numbers their corners."""
    ticks = [np.linspace(0, 1, n + 1) for n in shape]
    points = np.stack([g.ravel() for g in np.meshgrid(*ticks, indexing="ij")], 1)
    number = np.arange(len(points)).reshape([n + 1 for n in shape])
    low, high = slice(None, -1), slice(1, None)
    square = ((low, low), (high, low), (high, high), (low, high))
    corners = square if d == 2 else [(*c, z) for z in (low, high) for c in square]
    return points, np.stack([number[c].ravel() for c in corners], 1)


def twisted(points: np.ndarray) -> np.ndarray:
    """The square or cube, moved smoothly."""
    bump = np.prod(np.sin(np.pi * points), axis=1, keepdims=True)
    return points + 0.12 * bump * np.roll([1.0, -0.6, 0.4][: points.shape[1]], 0)


def read(points: np.ndarray, cells: np.ndarray, element: Element, cut: bool) -> sciml.Mesh:
    """From a file, in which the last element is two triangles or prisms where it is to be cut."""
    d = points.shape[1]
    blocks = [("quad" if d == 2 else "hexahedron", cells)]
    if cut:
        halves = ((0, 1, 2), (0, 2, 3)) if d == 2 else ((0, 1, 2, 4, 5, 6), (0, 2, 3, 4, 6, 7))
        pieces = cells[-1:][:, halves].reshape(2, -1)
        blocks = [(blocks[0][0], cells[:-1]), ("triangle" if d == 2 else "wedge", pieces)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.vtu"
        meshio.write(path, meshio.Mesh(np.pad(points, ((0, 0), (0, 3 - d))), blocks))
        return read_mesh(path, element=element)


def wave(d: int, elastic: bool, n: int, element: Element, cut: bool) -> tuple[int, float, float]:
    """Unknowns, the error of the slopes relative to the exact ones, seconds."""
    problem, exact = wave_problem(d, elastic)
    points, cells = lattice(d, (n,) * d)
    mesh = read(twisted(points), cells, element, cut)
    start = time.process_time()
    solver = solvers.CG(preconditioner=solvers.AMG(), rtol=1e-9)
    value = sciml.solve(problem, solver, on=mesh).value
    spent = time.process_time() - start
    return value.numel(), float(relative_error(mesh, value, exact, slope=True)), spent


def beam(n: int, element: Element, cut: bool) -> tuple[int, float, float]:
    """Unknowns, the deflection's relative distance to Timoshenko's, seconds."""
    points, cells = lattice(2, (8 * n, n))
    mesh = read(points * [LENGTH, 1.0], cells, element, cut)
    at = mesh.points[mesh.boundaries["boundary"]].mean(1)[:, 0]
    ends = {"held": abs(at) < 1e-9, "pulled": abs(at - LENGTH) < 1e-9}
    ends["free"] = ~(ends["held"] | ends["pulled"])
    sides = {name: mesh.boundaries["boundary"][which] for name, which in ends.items()}
    mesh = sciml.Mesh(mesh.points, mesh.cells, boundaries=sides, element=element)
    problem = sciml.Problem(
        None,
        Elasticity(1.0, 0.0, plane="stress"),
        {
            "held": sciml.Condition(dirichlet=(0.0, 0.0)),
            "pulled": sciml.Condition(neumann=(0.0, -1e-6)),
            "free": sciml.Condition(neumann=0.0),
        },
    )
    start = time.process_time()
    value = sciml.solve(problem, solvers.CG(preconditioner=solvers.AMG(), rtol=1e-9), on=mesh).value
    spent = time.process_time() - start
    tip = np.flatnonzero(mesh.nodes[:, 0] > LENGTH - 1e-9)
    exact = -1e-6 * (4 * LENGTH**3 + 2.4 * LENGTH)
    return value.numel(), abs(float(value[1, torch.from_numpy(tip)].mean()) / exact - 1), spent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    rows = []
    wave(2, False, 4, "P1", False)  # what is loaded and compiled at the first solve
    orders: tuple[Element, ...] = ("P1", "P2")
    for name, d, elastic, n in (
        ("heat, a twisted square", 2, False, 48),
        ("heat, a twisted cube", 3, False, 10),
        ("elasticity, a twisted square", 2, True, 32),
        ("elasticity, a twisted cube", 3, True, 8),
    ):
        for element in orders:
            pair = [wave(d, elastic, n, element, cut) for cut in (False, True)]
            rows.append(row(f"{name}, slopes", element, pair))
    for element in orders:
        pair = [beam(4, element, cut) for cut in (False, True)]
        rows.append(row("a beam of 10 x 1, its tip", element, pair))
    table = results.Table(
        "Quadrilaterals and hexahedra as they are, and cut because the file is mixed",
        datetime.date.today().isoformat(),
        "2 shared x86-64 cores, one thread, no GPU",
        "python benchmarks/mixed.py --keep",
        ("case", "degree", "unknowns", "error", "error, cut", "ratio", "seconds", "seconds, cut"),
        rows,
        "Errors are relative; seconds are the processor's.",
    )
    if given.keep:
        results.keep("mixed", table)


def row(name: str, element: Element, pair: list[tuple[int, float, float]]) -> list[str]:
    """One row, shown too."""
    (count, error, spent), (cut_count, cut_error, cut_spent) = pair
    assert count == cut_count, "cutting adds no nodes"
    entries = [name, element[1], f"{count:,}", f"{error:.2e}", f"{cut_error:.2e}"]
    entries += [f"{cut_error / error:.2f}", f"{spent:.2f}", f"{cut_spent:.2f}"]
    print(" | ".join(entries), flush=True)
    return entries


if __name__ == "__main__":
    main()
