"""Waves in a box with absorbing sides: GMRES with a shifted Laplacian beside SuperLU.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/helmholtz.py [--cubes]

-Lap u - k^2 u = f on the unit square (or cube), n . grad u = i k u on every side, f a source of
about the wavelength's size, at least 10 points per wavelength, relative residual 1e-8. Seconds are
the least of three runs of each, taken in turn in one process with one thread; set-up + solve.
SuperLU is scipy.sparse.linalg.splu as it comes (COLAMD).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.equation import Helmholtz
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem
from sciml.discretization import discretize
from sciml.solvers import GMRES, ShiftedLaplacian
from sciml.solvers.solve import solve

RUNS = 3
RTOL = 1e-8
METHODS = {
    "beta 0.5": GMRES(ShiftedLaplacian(beta=0.5), rtol=RTOL, restart=200),
    "beta 0.2": GMRES(ShiftedLaplacian(beta=0.2), rtol=RTOL, restart=200),
}


def waves(k: float, d: int) -> LinearSystem:
    """The system with the fewest nodes, a multiple of 8 and one, that give 10 a wavelength."""
    n = math.ceil(10 * k / (2 * math.pi) / 8) * 8 + 1
    box = Box((0.0,) * d, (1.0,) * d)
    distance = " + ".join(f"({x} - {0.3 + 0.1 * i})**2" for i, x in enumerate("xyz"[:d]))
    equation = Helmholtz(wavenumber=k, f=f"{k * k}*exp(-{k * k / 4}*({distance}))")
    sides = {side: Condition(absorbing=True) for side in box.sides}
    return discretize(Problem(box, equation, sides), Grid((n,) * d))


def superlu(system: LinearSystem) -> tuple[float, float, str]:
    """Seconds of factorisation and solution, and the factors' entries."""
    matrix, b = system.A.to_scipy().tocsc(), system.b.numpy().ravel()
    start = time.perf_counter()
    factors = scipy.sparse.linalg.splu(matrix)
    middle = time.perf_counter()
    x = factors.solve(b)
    end = time.perf_counter()
    residual = np.linalg.norm(b - matrix @ x) / np.linalg.norm(b)
    note = "" if residual <= RTOL else f", residual {residual:.1e}"
    return middle - start, end - middle, f"{factors.nnz / 1e6:.3g} M entries{note}"


def gmres(system: LinearSystem, solver: GMRES) -> tuple[float, float, str]:
    """Seconds of set-up and solution, and the iterations."""
    solution = solve(system, solver, throw=False)
    note = "" if solution.converged else f", {solution.status.name.lower()}"
    stats = solution.stats
    return stats.setup_seconds, stats.solve_seconds, f"{int(stats.iterations)} iterations{note}"


def row(k: float, d: int) -> str:
    """One line of the table."""
    system = waves(k, d)
    methods: list[Callable[[], tuple[float, float, str]]] = [lambda: superlu(system)]
    methods += [lambda s=solver: gmres(system, s) for solver in METHODS.values()]
    runs = [[method() for method in methods] for _ in range(RUNS)]
    cells = []
    for taken in zip(*runs, strict=True):
        setup, solution, note = min(taken, key=lambda run: run[0] + run[1])
        cells.append(f"{setup:.3f} + {solution:.3f} s, {note}")
    points = system.notes[-1].split(" points")[0]
    shape = f"{system.A.shape[0]}^{d}"
    return f"| {k:g} | {shape} | {points} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print one Markdown table."""
    torch.set_num_threads(1)
    solve(waves(10.0, 2), METHODS["beta 0.5"])
    print("| k | nodes | points per wavelength | SuperLU | " + " | ".join(METHODS) + " |")
    print("|---|---|---|---|" + "---|" * len(METHODS), flush=True)
    cubes = "--cubes" in sys.argv
    for k in (10.0, 15.0, 20.0) if cubes else (20.0, 40.0, 80.0, 160.0):
        print(row(k, 3 if cubes else 2), flush=True)


if __name__ == "__main__":
    main()
