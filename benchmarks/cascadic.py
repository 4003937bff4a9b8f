"""A batch of Darcy problems by cascadic Jacobi and by our multigrid, to equal error, on one device.

    python benchmarks/cascadic.py --device cuda [--size 256] [--count 64]

Cascadic Jacobi is the recipe of PhysicsNeMo's ``Darcy2D`` data pipe (not its code, and not its
kernels: both methods run here on our discretisation and in torch): solve on the coarsest of four
grids, carry the answer bilinearly to the next, on each at most 30,000 sweeps of Jacobi, until none
changes a value by more than 1e-6, looked at every 1,000 sweeps. The coefficient is averaged over
cells. Afterwards our CG with multigrid runs at the loosest tolerance among 1e-1, 1e-2, ... whose
largest relative error is not above Jacobi's; errors are those against a solve to 1e-12.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import sciml
from sciml.app.bench import darcy_batch
from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.grid import Grid
from sciml.discretization import discretize
from sciml.solvers import CG, Multigrid

LEVELS, SWEEPS, CHECK, CHANGE = 4, 30_000, 1_000, 1e-6
ROUNDS = 3


def main() -> None:
    """Solve both ways, after a warm-up, and print the table; the best of three rounds each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--count", type=int, default=64)
    options = parser.parse_args()
    systems = cascade(options.count, options.size, options.device)
    exact = multigrid(systems[-1], 1e-12)
    jacobi, jacobi_seconds = timed(lambda: cascadic_jacobi(systems), options.device)
    allowed = error(jacobi, exact)
    rtol = next(t for t in powers() if error(multigrid(systems[-1], t), exact) <= allowed)
    ours, our_seconds = timed(lambda: multigrid(systems[-1], rtol), options.device)
    print(f"{options.count} Darcy problems on {options.size}^2 cells, {options.device}\n")
    print("| method | seconds | samples per second | largest relative error |")
    print("|---|---|---|---|")
    for name, seconds, answer in (
        ("cascadic Jacobi", jacobi_seconds, jacobi),
        (f"CG with multigrid, rtol {rtol:g}", our_seconds, ours),
    ):
        rate = options.count / seconds
        print(f"| {name} | {seconds:.3g} | {rate:.3g} | {error(answer, exact):.1e} |")
    print(f"\nratio {jacobi_seconds / our_seconds:.3g}")


def cascade(count: int, size: int, device: str) -> list[LinearSystem]:
    """The problems on grids of size/8, size/4, size/2 and size cells along each axis."""
    problem, _ = darcy_batch(count, size)
    fields: Tensor = problem.equation.K  # type: ignore[assignment]
    systems = []
    for level in reversed(range(LEVELS)):
        K = avg_pool2d(fields[:, None], 2**level)[:, 0]
        coarse = replace(problem, equation=replace(problem.equation, K=K))
        systems.append(discretize(coarse, Grid(tuple(K.shape[1:]), "cell"), device=device))
    return systems


def cascadic_jacobi(systems: list[LinearSystem]) -> Tensor:
    """The answer on the last grid, (B, n, n)."""
    x = torch.zeros_like(systems[0].b.expand(systems[0].A.batch + systems[0].A.shape))
    for system in systems:
        shape = system.A.shape
        if x.shape[1:] != shape:
            x = interpolate(x[:, None], size=shape, mode="bilinear")[:, 0]
        inverse = 1 / system.A.diagonal()
        for sweep in range(1, SWEEPS + 1):
            change = inverse * (system.b - system.A.apply(x))
            x = x + change
            if sweep % CHECK == 0 and change.abs().max() < CHANGE:
                break
    return x


def multigrid(system: LinearSystem, rtol: float) -> Tensor:
    """Our answer, (B, n, n)."""
    return sciml.solve(system, CG(preconditioner=Multigrid(), rtol=rtol)).value


def powers() -> list[float]:
    """Tolerances from loose to tight."""
    return [10.0**-k for k in range(1, 12)]


def error(answer: Tensor, exact: Tensor) -> float:
    """The largest relative L2 error in the batch."""
    missing = (answer - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    return float(missing.max())


def timed(action: Callable[[], Tensor], device: str) -> tuple[Tensor, float]:
    """The answer and the seconds of the fastest of three runs, set-up included."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        answer = action()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return answer, min(seconds)


if __name__ == "__main__":
    main()
