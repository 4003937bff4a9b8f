"""Learned multigrid against the same cycle with the formula's interpolation, on several families.

OPENBLAS_NUM_THREADS=1 python benchmarks/learned_multigrid.py train OUT
OPENBLAS_NUM_THREADS=1 python benchmarks/learned_multigrid.py table WEIGHTS [SIZES]

Trained on independent log-uniform cells of contrast up to 1e4 on 95^2; the other families are
unseen. ``trial off`` uses the network everywhere. Seconds are the least of three, in turn.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch

from sciml.app.bench_systems import coefficient, contrast
from sciml.core.discretize import discretize
from sciml.core.grid import Box, Grid
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.problem import Condition, Equation, Problem
from sciml.core.solve import solve
from sciml.solvers import CG, LearnedMultigrid, Multigrid, MultigridTraining

FAMILIES = ("cells", "blocks", "field", "checkerboard", "rotated")
SIZES = (65, 129, 257)
MATRICES = 64


def rotated(n: int) -> LinearSystem:
    """Anisotropy 1:1000 turned by 30 degrees on n^2 unknowns, normal right-hand side."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    K = ((1000 * c * c + s * s, 999 * c * s), (999 * c * s, 1000 * s * s + c * c))
    domain = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in domain.sides}
    system = discretize(Problem(domain, Equation(K=K, f=1.0), walls), Grid((n + 2, n + 2)))
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    return LinearSystem(system.A, b)


def matrices(count: int, n: int = 95) -> list[LinearMap]:
    """Independent cells; every other matrix of contrast 1e4, the rest between 10 and 1e4."""
    parts = []
    for i in range(count):
        random = np.random.default_rng(1000 + i)
        decades = 4.0 if i % 2 else random.uniform(1.0, 4.0)
        parts.append(contrast(10.0 ** (decades * random.random((n, n)))).A)
    return parts


def train(out: str) -> None:
    """The network of this page, resumable: some ten minutes of one quiet core."""
    options = MultigridTraining(rounds=100, steps=100, batch=16, rate=2e-3)

    def progress(done: int, rounds: int, row: object) -> None:
        print(done, rounds, row, flush=True)

    print(options.train(matrices(MATRICES), out, progress=progress))


def table(weights: str, sizes: tuple[int, ...]) -> None:
    """One Markdown row for each family and size: iterations, set-up + solve seconds."""
    names = ("multigrid", "learned", "learned, trial off")
    solvers = (
        Multigrid(),
        LearnedMultigrid(weights),
        LearnedMultigrid(weights, trial=False),
    )
    print("| system | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for family in FAMILIES:
        for n in sizes:
            system = rotated(n) if family == "rotated" else contrast(coefficient(family, n, 2))
            print(f"| {family} {n}^2 | " + " | ".join(cells(system, solvers)) + " |", flush=True)


def cells(system: LinearSystem, preconditioners: tuple[object, ...]) -> list[str]:
    """Per preconditioner of CG the iterations, the seconds, and the status where it failed."""
    runs = [
        [
            solve(system, CG(preconditioner=M, rtol=1e-8, max_iterations=200), throw=False)
            for M in preconditioners
        ]
        for _ in range(3)
    ]
    texts = []
    for own in zip(*runs, strict=True):
        setup, seconds = (
            min(getattr(run.stats, name) for run in own)
            for name in ("setup_seconds", "solve_seconds")
        )
        note = "" if own[-1].converged else f" {own[-1].status.name.lower()}"
        texts.append(f"{int(own[-1].stats.iterations)}, {setup:.3f} + {seconds:.3f} s{note}")
    return texts


def main() -> None:
    """Train or tabulate."""
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["train", out]:
            train(out)
        case ["table", weights, *sizes]:
            table(weights, tuple(map(int, sizes)) or SIZES)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
