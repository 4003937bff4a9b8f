"""HINTS: a DeepONet between steps of Gauss-Seidel, beside relaxation, CG and multigrid.

    OMP_NUM_THREADS=1 python benchmarks/hints.py [--seeds 0 1 2] [--out runs/hints]

-Lap u = f on the unit square, zero on its sides; f a Gaussian field. The DeepONet (a linear branch,
since the solution is linear in f) is trained at 33^2 on problems solved meanwhile; training is
resumed and skipped where it is done. Then one f that it never saw, at 33^2, 65^2 and 129^2, to both
tolerances. *Products*: applications of the matrix, a step of relaxation being one; HINTS takes 15
steps, the last the network's, and one product more. CPU seconds of one thread, the least of three
solves, set-up apart.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sciml.app.read import read_family
from sciml.app.yaml import parse_yaml
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization import discretize
from sciml.operators import DeepONet
from sciml.solvers import CG, HINTS, SOR, SSOR, Multigrid
from sciml.training import Adam, Fresh, OneCycle, Training, fit, open_data

FAMILY = """
problem:
  domain: {{kind: box, lower: [0, 0], upper: [1, 1]}}
  equation: {{kind: poisson, f: {{kind: gaussian_field, alpha: 2, tau: 3}}}}
  boundary: {{all: {{dirichlet: 0}}}}
grid: {{shape: [{n}, {n}]}}
dataset: {{name: sources, splits: {{train: 10}}}}
"""
OPERATOR = DeepONet(modes=64, branch=(), trunk=(64, 64), fourier_features=32, fourier_scale=2.0)
TRAINED, SIZES, TOLERANCES, UNSEEN = 33, (33, 65, 129), (1e-6, 1e-10), 10**6
ROUNDS = 3


def family(n: int) -> Any:
    """The problems on n^2 nodes."""
    return read_family(parse_yaml(FAMILY.format(n=n)))


def trained(seed: int, out: Path) -> tuple[str, float, float]:
    """The folder of a network, its CPU seconds of training and its validation error."""
    folder = out / f"deeponet-{seed}"
    data = open_data(Fresh(family(TRAINED), batches=50, seed=seed, valid=50))
    schedule = Training(60, 32, Adam(3e-3), OneCycle(0.2, 0.04, 1e-3), seed=seed, validate=60)
    fit(OPERATOR, data, schedule, folder)
    with (folder / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    return str(folder), float(last["cpu_seconds"]), float(last["valid_l2"])


def methods(folders: dict[str, str]) -> dict[str, tuple[Callable[[float], Any], int]]:
    """Solvers by tolerance, and the products of one of their iterations."""
    found: dict[str, tuple[Callable[[float], Any], int]] = {
        "Gauss-Seidel": (lambda rtol: SOR(omega=1.0, rtol=rtol), 1),
        "CG": (lambda rtol: CG(rtol=rtol), 1),
        "SSOR-CG, omega 1.5": (lambda rtol: CG(SSOR(omega=1.5), rtol=rtol), 3),
        "multigrid-CG": (lambda rtol: CG(Multigrid(), rtol=rtol), 0),
    }
    for name, folder in folders.items():
        for method in ("stationary", "fcg"):
            found[f"HINTS, {method}, {name}"] = (
                lambda rtol, f=folder, m=method: HINTS(f, method=m, rtol=rtol),
                16,
            )
    return found


def row(name: str, n: int, problem: Problem, build: Callable[[float], Any], cost: int) -> str:
    """One line of the table."""
    system = discretize(problem, Grid((n, n)))
    cells = []
    for rtol in TOLERANCES:
        solver = build(rtol)
        begun = time.process_time()
        state = solver.init(system if not isinstance(solver, HINTS) else problem, Grid((n, n)))
        setup = time.process_time() - begun
        least = float("inf")
        for _ in range(ROUNDS):
            begun = time.process_time()
            solution = solver.run(state)
            least = min(least, time.process_time() - begun)
        count = int(solution.stats.iterations)
        products = str(cost * count) if cost else f"{solution.stats.work_units:.0f}"
        said = f"{count}, {products}, {least:.3g}"
        cells.append(said if solution.converged else f"{said}: {solution.status.name.lower()}")
    return f"| {n}^2 | {name} | {setup:.2g} | {' | '.join(cells)} |"


def main() -> None:
    """Train what is not trained yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/hints"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    folders = {}
    for seed in options.seeds:
        folder, seconds, error = trained(seed, options.out)
        folders[f"seed {seed}"] = folder
        print(f"seed {seed}: trained in {seconds:.0f} CPU s, relative L2 error {100 * error:.2g} %")
    head = "its, products, s to"
    print(f"\n| nodes | method | set-up s | {head} 1e-6 | {head} 1e-10 |\n|---|---|---|---|---|")
    for n in SIZES:
        problem = family(n).sample(UNSEEN, [0])
        for name, (build, cost) in methods(folders).items():
            print(row(name, n, problem, build, cost), flush=True)


if __name__ == "__main__":
    main()
