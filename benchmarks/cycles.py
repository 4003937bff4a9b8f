"""The cycles side by side: iterations, seconds of set-up and of solve, medians of three.

OPENBLAS_NUM_THREADS=1 python benchmarks/cycles.py
"""

from __future__ import annotations

import math
import statistics

import torch

from sciml.app.bench import coefficient, contrast, poisson
from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, Multigrid
from sciml.solvers.solve import solve

CYCLES = ("auto", "V", "alternating", "W")
CONTRAST = (
    *(("blocks", n, 2) for n in (63, 127, 255, 511, 1023, 2047)),
    *((kind, n, 2) for kind in ("field", "cells") for n in (511, 1023)),
    ("checkerboard", 511, 2),
    *((kind, 63, 3) for kind in ("blocks", "field", "cells")),
)


def rotated(n: int) -> LinearSystem:
    """Anisotropy 1:1000 turned by 30 degrees on n^2 unknowns, f = 1."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    K = ((1000 * c * c + s * s, 999 * c * s), (999 * c * s, 1000 * s * s + c * c))
    domain = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    return discretize(Problem(domain, Equation(K=K, f=1.0), walls), Grid((n + 2, n + 2)))


def main() -> None:
    """Print one Markdown table."""
    torch.set_num_threads(1)
    print("| system | " + " | ".join(CYCLES) + " |\n|---|" + "---|" * len(CYCLES))
    systems = [
        ("constant 1023^2", lambda: poisson(1023, 2)),
        ("constant 63^3", lambda: poisson(63, 3)),
    ]
    for kind, n, d in CONTRAST:
        systems.append((f"{kind} {n}^{d}", lambda k=kind, n=n, d=d: contrast(coefficient(k, n, d))))
    systems += [(f"rotated {n}^2", lambda n=n: rotated(n)) for n in (127, 255, 511)]
    for name, make in systems:
        system = make()
        row = [cell(system, cycle) for cycle in CYCLES]
        print(f"| {name} | " + " | ".join(row) + " |", flush=True)


def cell(system: LinearSystem, cycle: str) -> str:
    """Iterations, seconds of set-up and solve of CG with this cycle; the status if it failed."""
    solver = CG(preconditioner=Multigrid(cycle=cycle))
    runs = [solve(system, solver, throw=False) for _ in range(3)]
    setup, seconds = (
        statistics.median(getattr(run.stats, name) for run in runs)
        for name in ("setup_seconds", "solve_seconds")
    )
    solution = runs[-1]
    note = "" if solution.converged else f" {solution.status.name.lower()}"
    return f"{int(solution.stats.iterations)}, {setup:.3f} + {seconds:.3f} s{note}"


if __name__ == "__main__":
    main()
