"""V-, F- and W-cycles side by side: iterations and seconds (set-up and solve, median of three).

OPENBLAS_NUM_THREADS=1 python benchmarks/cycles.py
"""

from __future__ import annotations

import math
import statistics

import torch

from sciml.app.bench_systems import coefficient, contrast, poisson
from sciml.core.discretize import discretize
from sciml.core.grid import Box, Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Condition, Equation, Problem
from sciml.core.solve import solve
from sciml.solvers import CG, Multigrid


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
    print("| system | V | F | W |\n|---|---|---|---|")
    systems = [("constant 1023^2", lambda: poisson(1023, 2))]
    for kind, n, d in (
        ("blocks", 511, 2),
        ("blocks", 1023, 2),
        ("field", 1023, 2),
        ("cells", 1023, 2),
        ("field", 63, 3),
    ):
        systems.append((f"{kind} {n}^{d}", lambda k=kind, n=n, d=d: contrast(coefficient(k, n, d))))
    systems += [(f"rotated {n}^2", lambda n=n: rotated(n)) for n in (127, 255, 511)]
    for name, make in systems:
        system = make()
        print(
            f"| {name} | " + " | ".join(cell(system, c) for c in ("V", "F", "W")) + " |", flush=True
        )


def cell(system: LinearSystem, cycle: str) -> str:
    """Iterations and seconds of CG with this cycle, or the status where it did not converge."""
    runs = []
    for _ in range(3):
        solution = solve(system, CG(preconditioner=Multigrid(cycle=cycle)), throw=False)
        runs.append(solution.stats.setup_seconds + solution.stats.solve_seconds)
    note = "" if solution.converged else f" {solution.status.name.lower()}"
    return f"{int(solution.stats.iterations)}, {statistics.median(runs):.3f} s{note}"


if __name__ == "__main__":
    main()
