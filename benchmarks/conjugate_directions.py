"""Deep conjugate directions on Poisson's equation with obstacles: train at one size, use at others.

    python benchmarks/conjugate_directions.py train --dimension 2 --variant levels --seed 0
    python benchmarks/conjugate_directions.py compare --dimension 2 --sizes 128 256 512
    python benchmarks/conjugate_directions.py report --dimension 2

Unit box, value 0 on its sides and on the rims of holes, cell grids. Variants: ``paper``, its
network on one matrix, the box without a hole, and no mask; ``mask``, eight boxes with two random
balls each, and the cells as an input; ``levels``, the same with a network whose levels are repeated
down to four cells, and no biases. Tests have a ball, a bar and a ring that no training matrix has,
and two right sides: f = 1, and white noise off the holes.

``train`` goes on where it was stopped; ``--minutes`` of CPU time end it after the epoch in which
they pass, and the weights of the best epoch so far are there. ``compare`` writes one JSON file per
measurement and skips those that are there. Every method is run to the same relative residual, the
true one recomputed. Times are the least of ``--repeats`` runs, the methods in turn; one thread.
Where a network does not halve the residual in some steps multigrid takes over; the table counts it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.disk import write_json
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, FCG, ConjugateDirections, IncompleteCholesky, Jacobi, Multigrid
from sciml.solvers.learned.conjugate_directions import (
    ConjugateTraining,
    linked,
)

NETWORKS: dict[str, dict[str, Any]] = {
    "paper": {},
    "mask": {"mask": True},
    "levels": {"mask": True, "repeat": True, "convolutions": (2, 2, 4, 2, 2)},
}
VARIANTS = tuple(NETWORKS)
SMALLEST = {2: 128, 3: 32}
TOLERANCES = (1e-6, 1e-10)
MOST = 2000  # iterations of a learned method
BOXES = 8  # training matrices of the variants with a mask


def poisson(n: int, dimension: int, inside: str | None) -> LinearSystem:
    """-lap u = 1 in the unit box of n^d cells, u = 0 on its sides and on the rim of the hole."""
    box = Box((0.0,) * dimension, (1.0,) * dimension)
    problem = Problem(
        domain=box,
        equation=Equation(K=1.0, f=1.0),
        boundary={side: Condition(dirichlet=0.0) for side in box.sides},
        obstacle=None if inside is None else Obstacle(inside, Condition(dirichlet=0.0)),
    )
    return discretize(problem, Grid((n,) * dimension, "cell"))


def ball(centre: Any, radius: float) -> str:
    """The inside of a ball."""
    squares = (f"({x} - {c:.4f})**2" for x, c in zip("xyz", centre, strict=False))
    return f"{' + '.join(squares)} < {radius**2:.6f}"


def unseen(dimension: int) -> dict[str, str | None]:
    """The holes of the tests."""
    ring = "0.3**2 < (x - 0.5)**2 + (y - 0.5)**2 and (x - 0.5)**2 + (y - 0.5)**2 < 0.38**2"
    cut = "" if dimension == 2 else " and z > 0.3 and z < 0.7"
    return {
        "none": None,
        "ball": ball((0.35, 0.6, 0.5)[:dimension], 0.18),
        "bar": f"x > 0.2 and x < 0.8 and y > 0.45 and y < 0.55{cut}",
        "ring": f"{ring} and x > 0.25{cut}",
    }


def training_systems(options: argparse.Namespace) -> Iterator[LinearSystem]:
    """The systems whose matrices a variant is trained on."""
    n, d = options.size or SMALLEST[options.dimension], options.dimension
    if options.variant == "paper":
        yield poisson(n, d, None)
        return
    draw = np.random.default_rng(2023)
    for _ in range(BOXES):
        balls = (ball(draw.uniform(0.2, 0.8, d), draw.uniform(0.06, 0.16)) for _ in range(2))
        yield poisson(n, d, " or ".join(balls))


def folder(options: argparse.Namespace, variant: str, seed: int) -> Path:
    return Path(options.out) / f"{options.dimension}d" / f"{variant}-{seed}"


class OutOfTime(Exception):
    """The budget is spent; the state is on disk."""


def train(options: argparse.Namespace) -> None:
    """One network, for so many epochs or minutes."""
    settings = ConjugateTraining(
        **NETWORKS[options.variant],
        ritz=options.ritz,
        vectors=options.vectors,
        epochs=options.epochs,
        batch=options.batch,
        rate=options.rate,
        cosine=options.variant == "levels",
        seed=options.seed,
    )

    def report(epoch: int, epochs: int, row: Any) -> None:
        print(
            f"epoch {epoch} of {epochs}: loss {row['loss']:.3e}, validation "
            f"{row['valid_loss']:.3e}, {row['cpu_seconds'] / 60:.3g} CPU minutes",
            flush=True,
        )
        if row["cpu_seconds"] > 60 * options.minutes:
            raise OutOfTime

    out = folder(options, options.variant, options.seed)
    ritz = out.parent / f"ritz-{options.variant}"
    matrices = [system.A for system in training_systems(options)]
    start = time.perf_counter()
    try:
        settings.train(matrices, out, device=options.device, progress=report, cache=ritz)
    except OutOfTime:
        print("the time is up; the same command with more --minutes goes on")
    print(f"{time.perf_counter() - start:.3g} s in this call; weights in {out}")


def methods(options: argparse.Namespace) -> dict[str, Any]:
    """Solvers by name, without a tolerance."""
    found: dict[str, Any] = {
        "CG": (CG, None),
        "Jacobi-CG": (CG, Jacobi()),
        "IC(0)-CG": (CG, IncompleteCholesky()),
        "multigrid-CG": (CG, Multigrid()),
    }
    for variant in VARIANTS:
        for home in sorted(folder(options, variant, 0).parent.glob(f"{variant}-*")):
            if (home / "weights.safetensors").is_file():
                found[f"DCDM, {home.name}"] = (FCG, ConjugateDirections(str(home)))
    return found


def right_sides(system: LinearSystem) -> dict[str, torch.Tensor]:
    """f = 1, and white noise off the holes."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(system.b.shape, generator=generator, dtype=torch.float64)
    return {"f = 1": system.b, "noise": noise * linked(system.A)}  # type: ignore[arg-type]


def compare(options: argparse.Namespace) -> None:
    """Every method on every hole, right side, size and tolerance."""
    for n in options.sizes or [SMALLEST[options.dimension]]:
        for hole, inside in unseen(options.dimension).items():
            system = poisson(n, options.dimension, inside)
            for right, b in right_sides(system).items():
                for rtol in TOLERANCES:
                    _measure(options, n, hole, right, rtol, system, b)


def _measure(
    options: argparse.Namespace,
    n: int,
    hole: str,
    right: str,
    rtol: float,
    system: LinearSystem,
    b: torch.Tensor,
) -> None:
    home = Path(options.out) / f"{options.dimension}d" / "results"
    pending: dict[str, tuple[Path, Any, Any]] = {}
    for name, (solver, preconditioner) in methods(options).items():
        stem = "-".join((str(n), hole, right, f"{rtol:g}", name)).replace(" ", "_")
        path = home / f"{stem.replace('/', '_')}.json"
        if path.is_file():
            continue
        learned = isinstance(preconditioner, ConjugateDirections)
        more = {"max_iterations": MOST, "directions": 2} if learned else {}
        pending[name] = (path, solver(preconditioner=preconditioner, rtol=rtol, **more), learned)
    best: dict[str, tuple[float, float]] = {}
    last: dict[str, Any] = {}
    for turn in range(options.repeats):
        for name, (_, method, learned) in pending.items():
            # What takes minutes is not repeated.
            if turn and learned and best[name][1] > 20:
                continue
            state = method.init(system)
            solution = method.run(state, b=b)
            seconds = (state.setup_seconds, solution.stats.solve_seconds)
            before = best.get(name, seconds)
            best[name] = min(seconds[0], before[0]), min(seconds[1], before[1])
            last[name] = solution
    for name, (path, _, _) in pending.items():
        solution = last[name]
        row = {
            "n": n,
            "hole": hole,
            "right": right,
            "rtol": rtol,
            "method": name,
            "status": solution.status.name.lower(),
            "iterations": int(solution.stats.iterations),
            "residual": float(solution.residual),
            "replaced": [note for note in solution.notes if "took over" in note],
            "setup": best[name][0],
            "solve": best[name][1],
        }
        write_json(path, row)
        print(json.dumps(row), flush=True)


def report(options: argparse.Namespace) -> None:
    """Markdown: the median over holes and right sides, and the worst, of iterations and times."""
    home = Path(options.out) / f"{options.dimension}d" / "results"
    rows = [json.loads(path.read_text()) for path in sorted(home.glob("*.json"))]
    names = list(dict.fromkeys(row["method"] for row in rows))
    names = [name for name in methods(options) if name in names]
    for rtol in TOLERANCES:
        print(f"\nRelative residual {rtol:g}; median (worst) over holes and right sides\n")
        print("| cells | method | iterations | set-up s | solve s | gave way | not solved |")
        print("|---|---|---|---|---|---|---|")
        for n in sorted({row["n"] for row in rows}):
            for name in names:
                own = [r for r in rows if (r["n"], r["rtol"], r["method"]) == (n, rtol, name)]
                if not own:
                    continue
                steps, setup, solve = (
                    [r[key] for r in own] for key in ("iterations", "setup", "solve")
                )
                failed = sum(r["status"] != "converged" for r in own)
                gave_way = sum(bool(r["replaced"]) for r in own)
                print(
                    f"| {n}^{options.dimension} | {name} | {np.median(steps):.0f} ({max(steps)}) "
                    f"| {np.median(setup):.3g} | {np.median(solve):.3g} ({max(solve):.3g}) "
                    f"| {gave_way} | {failed} of {len(own)} |"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for command in (train, compare, report):
        own = commands.add_parser(command.__name__)
        own.set_defaults(command=command)
        own.add_argument("--dimension", type=int, choices=(2, 3), default=2)
        own.add_argument("--out", default="runs/conjugate-directions")
        if command is train:
            own.add_argument("--variant", choices=VARIANTS, default="levels")
            own.add_argument("--seed", type=int, default=0)
            own.add_argument("--size", type=int, help="cells per axis; 128 in 2-D, 32 in 3-D")
            own.add_argument("--ritz", type=int, default=1500)
            own.add_argument("--vectors", type=int, default=4000)
            own.add_argument("--epochs", type=int, default=150)
            own.add_argument("--batch", type=int, default=10)
            own.add_argument("--rate", type=float, default=1e-4)
            own.add_argument("--minutes", type=float, default=1e9)
            own.add_argument("--device", default="cpu")
        if command is compare:
            own.add_argument("--sizes", type=int, nargs="+")
            own.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.command(options)


if __name__ == "__main__":
    main()
