"""The projection method: observed orders, the wake of a cylinder, the cost of a step, as tables.

    OMP_NUM_THREADS=1 python benchmarks/flow.py --out runs/flow

The wake's frames are kept under --out: a run that was killed goes on where it stood.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator

import sciml
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Time
from sciml.core.run.solution import Solution
from sciml.solvers import Projection

NU = 0.02
REST = Condition(dirichlet=(0.0, 0.0))
# Taylor and Green's vortices, carried along at the speed (1, 1/2).
U = "1 + sin(2*pi*(x - t))*cos(2*pi*(y - t/2))*exp(-8*pi**2*0.02*t)"
V = "0.5 - cos(2*pi*(x - t))*sin(2*pi*(y - t/2))*exp(-8*pi**2*0.02*t)"
WAKE = 0.08460  # length of the recirculation, Schaefer and Turek (1996), case 2D-1


def vortices(walls: bool) -> Problem:
    side = Condition(dirichlet=(U, V)) if walls else Condition(periodic=True)
    box = Box((0.1, 0.2), (1.1, 1.2))
    sides = dict.fromkeys(box.sides, side)
    return Problem(box, NavierStokes(NU), sides, time=Time(0.2), initial={"u": U, "v": V})


def errors(solution: Solution) -> list[float]:
    x, y = (2 * math.pi * (a - 0.2 * s) for a, s in zip(solution.on.coordinates(), (1.0, 0.5)))
    decay = math.exp(-8 * math.pi**2 * NU * 0.2)
    p = ((2 * x).cos() + (2 * y).cos()) / 4 * decay**2
    u, v = 1 + x.sin() * y.cos() * decay, 0.5 - x.cos() * y.sin() * decay
    gaps = solution.last - torch.stack([u, v, p - p.mean()])
    return gaps.square().mean((-2, -1)).sqrt().tolist()


def orders() -> None:
    print("\n| sides | cells | step | error of u | v | p | orders |\n|" + "---|" * 7)
    for walls in (False, True):
        before = None
        for n in (16, 32, 64, 128):
            step = 0.15 / n
            solution = sciml.solve(vortices(walls), Projection(step=step), on=Grid((n, n), "cell"))
            now = errors(solution)
            seen = (
                ""
                if before is None
                else ", ".join(f"{math.log2(a / b):.2f}" for a, b in zip(before, now, strict=True))
            )
            values = " | ".join(f"{e:.2e}" for e in now)
            print(
                f"| {'walls' if walls else 'periodic'} | {n}^2 | {step:.2g} | {values} | {seen} |"
            )
            before = now
    print("\n| sides | steps | order of u and v in time alone, 32^2 |\n|" + "---|" * 3)
    for walls in (False, True):
        grid = Grid((32, 32), "cell")
        runs = [
            sciml.solve(vortices(walls), Projection(step=k), on=grid).last[:2]
            for k in (0.005, 0.0025, 0.00125, 0.000625)
        ]
        gaps = [float((a - b).norm()) for a, b in pairwise(runs)]
        seen = ", ".join(f"{math.log2(a / b):.2f}" for a, b in pairwise(gaps))
        print(f"| {'walls' if walls else 'periodic'} | 0.005 to 0.000625 | {seen} |")


def wake(out: Path) -> None:
    print("\n| cells | cells per diameter | recirculation | gap | steps |\n|" + "---|" * 5)
    inlet = Condition(dirichlet=("1.2*y*(0.41 - y)/0.41**2", 0.0))
    sides = {"left": inlet, "right": Condition(neumann=0.0), "bottom": REST, "top": REST}
    problem = Problem(
        Box((0.0, 0.0), (2.2, 0.41)),
        NavierStokes(1e-3),
        sides,
        obstacle=Obstacle("(x - 0.2)**2 + (y - 0.2)**2 < 0.05**2", REST),
        time=Time(12.0, frames=13),
        initial={"u": 0.0, "v": 0.0},
    )
    solver = Projection(steady_tolerance=3e-4)
    for shape in ((176, 33), (352, 66), (528, 98)):
        file = out / f"wake-{shape[0]}.h5"
        solution = sciml.solve(problem, solver, on=Grid(shape, "cell"), frames=file)
        x, y = (a.numpy() for a in solution.on.axes())
        u = RegularGridInterpolator((x, y), solution.last[0].numpy())
        line = np.linspace(0.27, 0.5, 20001)
        values = u(np.stack([line, np.full_like(line, 0.2)], axis=1))
        end = line[np.nonzero(values > 0)[0][0]] - 0.25
        print(
            f"| {shape[0]} x {shape[1]} | {0.1 * shape[0] / 2.2:.0f} | {end:.5f} | "
            f"{100 * (end / WAKE - 1):+.1f} % | {int(solution.stats.iterations)} |",
            flush=True,
        )


def cost() -> None:
    print("\n| cells | ms per step, cavity | with an obstacle |\n|---|---|---|")
    sides = dict.fromkeys(("left", "right", "bottom"), REST)
    sides["top"] = Condition(dirichlet=(1.0, 0.0))
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.02", REST)
    for n in (64, 128, 256):
        found = []
        for obstacle in (None, hole):
            problem = Problem(
                Box((0.0, 0.0), (1.0, 1.0)),
                NavierStokes(1e-3),
                sides,
                obstacle=obstacle,
                time=Time(50 / (2 * n)),
                initial={"u": 0.0, "v": 0.0},
            )
            solver = Projection()
            state = solver.init(problem, Grid((n, n), "cell"))
            runs = [solver.run(state) for _ in range(4)]
            found.append(min(r.stats.solve_seconds / int(r.stats.iterations) for r in runs))
        print(f"| {n}^2 | {1e3 * found[0]:.1f} | {1e3 * found[1]:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/flow"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    orders()
    cost()
    wake(given.out)


if __name__ == "__main__":
    main()
