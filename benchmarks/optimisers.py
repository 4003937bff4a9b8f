"""Optimisers of a network at equal CPU seconds: ``python benchmarks/optimisers.py``.

The network and the points of jNO's example of Poisson's equation, 2 x 32 and 1000; every run in a
process of its own, on one thread. The error is the relative L2 error at 2000 fixed points at the
last iteration before that time.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pinn_cases
import torch
from results import Table, keep

from sciml.core.problem.grid import Grid
from sciml.solvers.trained import LBFGS, PINN, GaussNewton, SelfScaledBroyden, VariableProjection
from sciml.solvers.trained.solver import exact_error

OPTIMISERS: dict[str, Any] = {
    "gauss_newton": GaussNewton(iterations=10**6),
    "ssbroyden": SelfScaledBroyden(iterations=10**6),
    "lbfgs": LBFGS(iterations=10**6),
    "variable_projection": VariableProjection(iterations=10**6),
}
SECONDS = (1, 3, 10, 30)
PROBLEMS = {"Poisson": (pinn_cases.poisson(), PINN(width=32, points=1000, rtol=1e-13))}


class _Over(Exception):
    pass


def run(name: str, optimiser: str, seed: int) -> list[tuple[int, float]]:
    """The iterations and the error at each of the seconds."""
    torch.set_num_threads(1)
    problem, solver = PROBLEMS[name]
    solver = replace(solver, optimiser=OPTIMISERS[optimiser], seed=seed)
    state = solver.init(problem, Grid((17,) * problem.box.dimension))
    error = exact_error(state.objective)
    assert error is not None
    begun, found = time.process_time(), []

    def watch(iteration: int, residual: float) -> None:
        spent = time.process_time() - begun
        while len(found) < len(SECONDS) and spent >= SECONDS[len(found)]:
            found.append((iteration, error()))
        if len(found) == len(SECONDS):
            raise _Over

    try:
        solver.run(state, progress=watch)
        last = (-1, error())
        found += [last] * (len(SECONDS) - len(found))
    except _Over:
        pass
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all of them, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=3, metavar=("PROBLEM", "OPTIMISER", "SEED"))
    asked = parser.parse_args(arguments)
    if asked.one:
        print(json.dumps(run(asked.one[0], asked.one[1], int(asked.one[2]))))
        return
    rows = []
    for name in PROBLEMS:
        for optimiser in OPTIMISERS:
            every = []
            for seed in range(asked.seeds):
                command = [sys.executable, __file__, "--one", name, optimiser, str(seed)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                every.append(json.loads(done.stdout.splitlines()[-1]))
            worst = [max(each[k][1] for each in every) for k in range(len(SECONDS))]
            mean = sum(each[-1][1] for each in every) / len(every)
            counts = [each[-1][0] for each in every]
            rows.append(
                [name, optimiser, *[f"{e:.1e}" for e in worst], f"{mean:.1e}", f"{max(counts)}"]
            )
            print(rows[-1], flush=True)
    head = ("problem", "optimiser", *[f"worst at {s} s" for s in SECONDS], "mean at the last")
    today = datetime.now(timezone.utc).date().isoformat()
    machine = f"{platform.machine()}, one thread beside other programs, {asked.seeds} seeds"
    note = (
        "Relative L2 errors at so many CPU seconds of training; 2 x 32, 1000 Sobol points, hard "
        "conditions."
    )
    table = Table(
        "Optimisers", today, machine, "python benchmarks/optimisers.py",
        (*head, "iterations"), rows, note,
    )  # fmt: skip
    keep("optimisers", table)


if __name__ == "__main__":
    main()
