"""Learned multigrid against our own tuned multigrid and PyAMG: trained and unseen families.

OPENBLAS_NUM_THREADS=1 python benchmarks/learned_multigrid.py [WEIGHTS ...] [sizes=127,255,511]
                                                              [repeats=3]

``WEIGHTS``: files or folders of other training seeds, each with a column of its own beside the
shipped ones (seed 0), made by

sciml train configs/train/learned-multigrid.yaml --out OUT --seed 1

A cell: iterations to 1e-6, to 1e-10; set-up + solve to 1e-10 = both, and both with ten right-hand
sides; in CPU milliseconds of one thread, the least of some runs in turn (PyAMG once).
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyamg
import torch

from sciml.app.bench import coefficient, contrast
from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, LearnedMultigrid, Multigrid
from sciml.solvers.solve import solve

SHIPPED = "rotated-anisotropy"
TOLERANCES = (1e-6, 1e-10)


def rotated(n: int, degrees: float, ratio: float) -> LinearSystem:
    """Anisotropy 1:ratio turned by an angle on n^2 unknowns, normal right-hand side."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    K = ((ratio * c * c + s * s, (ratio - 1) * c * s), ((ratio - 1) * c * s, ratio * s * s + c * c))
    domain = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    system = discretize(Problem(domain, Equation(K=K, f=1.0), walls), Grid((n + 2, n + 2)))
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    return LinearSystem(system.A, b)


FAMILIES: dict[str, Callable[[int], LinearSystem]] = {
    "30 deg, 1:1000": lambda n: rotated(n, 30, 1000.0),
    "45 deg, 1:100": lambda n: rotated(n, 45, 100.0),
    "60 deg, 1:30": lambda n: rotated(n, 60, 30.0),
    "20 deg, 1:300": lambda n: rotated(n, 20, 300.0),
    "unseen: 30 deg, 1:10^5": lambda n: rotated(n, 30, 1e5),
    "unseen: 120 deg, 1:1000": lambda n: rotated(n, 120, 1000.0),
    "unseen: 10 deg, 1:1000": lambda n: rotated(n, 10, 1000.0),
    "unseen: Poisson": lambda n: rotated(n, 0, 1.0),
    "unseen: cells, 1e4": lambda n: contrast(coefficient("cells", n, 2)),
    "unseen: blocks, 1e4": lambda n: contrast(coefficient("blocks", n, 2)),
    "unseen: field, 1e4": lambda n: contrast(coefficient("field", n, 2)),
}


@dataclass(frozen=True)
class Ready:
    """A preconditioner set up before."""

    prepared: LinearMap
    kind: str = "ready"

    def setup(self, A: LinearMap) -> LinearMap:
        """What was made."""
        return self.prepared


@dataclass
class Cost:
    """Least CPU milliseconds of set-up and of solves by tolerance, and their iterations."""

    setup: float = math.inf
    solve: tuple[float, ...] = (math.inf,) * len(TOLERANCES)
    iterations: tuple[int, ...] = ()
    failed: bool = False

    def __str__(self) -> str:
        its = ", ".join(map(str, self.iterations))
        one, ten = (self.setup + k * self.solve[-1] for k in (1, 10))
        times = " + ".join(f"{t:.1f}" for t in (self.setup, self.solve[-1]))
        return f"{its}; {times} = {one:.0f}; {ten:.0f}" + (" failed" if self.failed else "")


def measure(system: LinearSystem, options: Any, cost: Cost) -> None:
    """One set-up and one solve for each tolerance."""
    start = time.process_time()
    prepared = options.setup(system.A)
    cost.setup = min(cost.setup, 1e3 * (time.process_time() - start))
    times, counts = [], []
    for rtol in TOLERANCES:
        solver = CG(preconditioner=Ready(prepared), rtol=rtol, max_iterations=300)
        start = time.process_time()
        solution = solve(system, solver, throw=False)
        times.append(1e3 * (time.process_time() - start))
        counts.append(int(solution.stats.iterations))
        cost.failed |= not solution.converged
    cost.solve = tuple(map(min, cost.solve, times))
    cost.iterations = tuple(counts)


def measure_pyamg(system: LinearSystem, build: Callable[..., Any], cost: Cost) -> None:
    """The same with PyAMG's hierarchy under its CG."""
    A, b = system.A.to_scipy().tocsr(), system.b.numpy().ravel()
    start = time.process_time()
    levels = build(A)
    cost.setup = 1e3 * (time.process_time() - start)
    times, counts = [], []
    for rtol in TOLERANCES:
        residuals: list[float] = []
        start = time.process_time()
        levels.solve(b, tol=rtol, accel="cg", maxiter=300, residuals=residuals)
        times.append(1e3 * (time.process_time() - start))
        counts.append(len(residuals) - 1)
    cost.solve, cost.iterations = tuple(times), tuple(counts)


def table(weights: list[str], sizes: list[int], repeats: int) -> None:
    """One Markdown row for each family and size."""
    ours = {
        "multigrid (auto)": Multigrid(),
        "multigrid, alternating": Multigrid(cycle="alternating"),
        "multigrid, V": Multigrid(cycle="V"),
        **{f"learned, seed {k}": LearnedMultigrid(w) for k, w in enumerate([SHIPPED, *weights])},
        "learned, seed 0, untried": LearnedMultigrid(SHIPPED, trial=False),
    }
    theirs = {"PyAMG RS": pyamg.ruge_stuben_solver, "PyAMG SA": pyamg.smoothed_aggregation_solver}
    print("| system | " + " | ".join([*ours, *theirs]) + " |")
    print("|---|" + "---|" * (len(ours) + len(theirs)))
    for family, make in FAMILIES.items():
        for n in sizes:
            system, costs = make(n), {name: Cost() for name in [*ours, *theirs]}
            for _ in range(repeats):
                for name, options in ours.items():
                    measure(system, options, costs[name])
            for name, build in theirs.items():
                measure_pyamg(system, build, costs[name])
            print(f"| {family}, {n}^2 | " + " | ".join(map(str, costs.values())) + " |", flush=True)


def main() -> None:
    """Read the words, print the table."""
    torch.set_num_threads(1)
    words = dict(word.split("=") for word in sys.argv[1:] if "=" in word)
    sizes = [int(n) for n in words.get("sizes", "127,255,511").split(",")]
    weights = [word for word in sys.argv[1:] if "=" not in word]
    table(weights, sizes, int(words.get("repeats", 3)))


if __name__ == "__main__":
    main()
