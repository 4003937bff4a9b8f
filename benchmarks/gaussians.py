"""Gaussians: what they reach, in what time, beside a solver on a grid to the same error.

OMP_NUM_THREADS=1 python benchmarks/gaussians.py run --out runs/gaussians --seeds 0 1 2
python benchmarks/gaussians.py report --out runs/gaussians > gaussians.md

One JSON file per run; runs that are there are not repeated; ``--case`` runs some of them alone.
Errors are relative, in L2, of the last iterate: on 201 x 201 points in two dimensions, on 64 x 64
points at 11 instants in time, against the exact solution or, for nonlinear diffusion, the automatic
solver on 257 x 257 nodes. Seconds are CPU seconds of one thread without the measuring.

The cases are those of Kang et al. (ICLR 2025, arXiv 2412.05994). ``-fixed`` solves for the weights
alone. Klein-Gordon's solution is bilinear in x and y, so that the interpolation of its boundary
data, which is built in, already is the solution: with soft conditions it is a problem. Two cases
are better served by other functions: flow mixing by a network (``PINN``), nonlinear diffusion by
``RandomFeatures``; its start does not vanish on the sides, where the solution has layers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from sciml.core.disk import write_text
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.discretization.points.pointwise import Pointwise
from sciml.solvers import Auto
from sciml.solvers.solve import solve
from sciml.solvers.trained import (
    PINN,
    RAD,
    Gaussians,
    GaussNewton,
    RandomFeatures,
    VariableProjection,
)

FRAMES = 11
SQUARE = Box((-1.0, -1.0), (1.0, 1.0))


@dataclass(frozen=True)
class Case:
    """A problem, how it is solved, what is wanted: an error within so many seconds.

    ``sizes``: nodes an axis of the grids compared; the automatic solver takes them.
    """

    problem: Problem
    solver: Gaussians | PINN | RandomFeatures
    error: float
    seconds: float
    sizes: Sequence[int]


def on_sides(box: Box, value: str | float) -> dict[str, Condition]:
    """The value on every side."""
    return dict.fromkeys(box.sides, Condition(dirichlet=value))


def helmholtz() -> Problem:
    """Lap u + u = q, u = sin(pi x) sin(4 pi y)."""
    u = "sin(pi*x)*sin(4*pi*y)"
    equation = Equation(K=1.0, c=-1.0, f=f"(17*pi**2 - 1)*{u}")
    return Problem(SQUARE, equation, on_sides(SQUARE, 0.0), exact=u)


def klein_gordon() -> Problem:
    """u_tt - Lap u + u^2 = f, u = (x + y) cos 2t + x y sin 2t."""
    u = "((x + y)*cos(2*t) + x*y*sin(2*t))"
    equation = Equation(m=1.0, d=0.0, K=1.0, c="u", f=f"-4*{u} + {u}**2")
    initial = {"u": "x + y", "ut": "2*x*y"}
    span = Time(10.0, frames=FRAMES)
    return Problem(SQUARE, equation, on_sides(SQUARE, u), time=span, initial=initial, exact=u)


def flow_mixing() -> Problem:
    """Two fluids turned by a vortex: pure advection."""
    r = "sqrt(x**2 + y**2)"
    w = f"(tanh({r})/cosh({r})**2/(0.385*{r}))"
    u = f"-tanh(y/2*cos({w}*t) - x/2*sin({w}*t))"
    box = Box((-4.0, -4.0), (4.0, 4.0))
    equation = Equation(d=1.0, K=0.0, b=(f"-y*{w}", f"x*{w}"))
    return Problem(
        box, equation, on_sides(box, u), time=Time(4.0, frames=FRAMES), initial="-tanh(y/2)",
        exact=u,
    )  # fmt: skip


def diffusion() -> Problem:
    """u_t = 0.05 div(u grad u), three bumps."""
    u = (
        "0.25*exp(-((x - 0.3)**2 + (y - 0.2)**2)/0.1)"
        " + 0.4*exp(-15*((x + 0.5)**2 + (y + 0.1)**2)) + 0.3*exp(-20*(x**2 + (y + 0.5)**2))"
    )
    equation = Equation(d=1.0, K="0.05*u")
    span = Time(1.0, frames=FRAMES)
    return Problem(SQUARE, equation, on_sides(SQUARE, 0.0), time=span, initial=u)


def cases() -> dict[str, Case]:
    """All of them."""
    tail = {"rtol": 1e-12}  # never reached: the iterations are the budget
    alone = VariableProjection(iterations=0)
    plane, space = (65, 129, 257, 513), (16, 32, 64, 128)
    return {
        "helmholtz": Case(
            helmholtz(),
            Gaussians(300, points=3000, optimiser=VariableProjection(8), **tail),
            2e-5, 600, plane,
        ),
        "helmholtz-fixed": Case(
            helmholtz(), Gaussians(300, points=3000, optimiser=alone, **tail), 2e-5, 600, plane
        ),
        "helmholtz-100": Case(
            helmholtz(),
            Gaussians(100, points=1500, optimiser=VariableProjection(60), **tail),
            2e-5, 600, plane,
        ),
        "helmholtz-100-fixed": Case(
            helmholtz(), Gaussians(100, points=1500, optimiser=alone, **tail), 2e-5, 600, plane
        ),
        "klein-gordon": Case(
            klein_gordon(), Gaussians(20, optimiser=alone, **tail), 3.7e-4, 1800, space
        ),
        "klein-gordon-soft": Case(
            klein_gordon(),
            Gaussians(
                600, (2.0, 2.0, 0.9), hard=False, points=3000, boundary_points=400,
                weights=dict.fromkeys(("start", *SQUARE.sides), 100.0),
                optimiser=alone, seconds=1800, **tail,
            ),
            3.7e-4, 1800, space,
        ),
        "flow-mixing": Case(
            flow_mixing(),
            Gaussians(
                1000, (0.8, 0.8, 1.0), points=4000, windows=8, optimiser=alone, seconds=1800,
                **tail,
            ),
            2.7e-4, 1800, space,
        ),
        "flow-mixing-network": Case(
            flow_mixing(),
            PINN(
                width=28, depth=3, points=8000, sampler=RAD(every=10, pool=40_000),
                optimiser=GaussNewton(iterations=150), **tail,
            ),
            2.7e-4, 1800, (*space, 256, 512),
        ),
        "diffusion": Case(
            diffusion(),
            Gaussians(
                1200, (0.25, 0.25, 0.8), points=5000, boundary_points=500, hard=False,
                weights=dict.fromkeys(("start", *SQUARE.sides), 10.0),
                optimiser=alone, seconds=1800, **tail,
            ),
            1.4e-3, 1800, space,
        ),
        "diffusion-features": Case(
            diffusion(),
            RandomFeatures(
                5000, bandwidths=((32.0, 32.0, 4.0),), hard=False, points=17_000,
                boundary_points=2000, **tail,
            ),
            1.4e-3, 1800, space,
        ),
    }  # fmt: skip


def places(problem: Problem) -> Tensor:
    """Where errors are measured, (N, D), time last; none at the vortex's centre."""
    count = 201 if problem.time is None else 64
    corners = zip(problem.box.lower, problem.box.upper, strict=True)
    axes = [torch.linspace(a, b, count, dtype=torch.float64) for a, b in corners]
    if problem.time is not None:
        axes.append(torch.tensor(problem.time.instants, dtype=torch.float64))
    return torch.cartesian_prod(*axes)


def wanted(name: str, out: Path) -> Tensor:
    """The solution at these places, (N,)."""
    problem = cases()[name].problem
    if problem.exact is not None:
        return Pointwise(problem, ())(problem.exact, "problem.exact", places(problem))
    path = out / f"{name}.pt"
    if not path.exists():
        found = solve(problem, Auto(), on=Grid((257, 257)), throw=False)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(found.sample(places(problem)[::FRAMES, :2]).T.flatten(), path)
    return torch.load(path, weights_only=True)


def run(name: str, seed: int, out: Path) -> None:
    """One run, with its error along the way."""
    path = out / f"{name}-{seed}.json"
    if path.exists():
        return
    case = cases()[name]
    points, truth = places(case.problem), wanted(name, out)
    solver = replace(case.solver, seed=seed)
    begun, measuring, curve = time.process_time(), 0.0, []
    state = solver.init(case.problem, Grid((9, 9)))
    # What is trained as a whole can be looked at on the way.
    whole = not isinstance(solver, RandomFeatures) and solver.windows == 1

    def watch(iteration: int, residual: float) -> None:
        nonlocal measuring
        now = time.process_time()
        spent = now - begun - measuring
        if not curve or spent > 1.3 * curve[-1][1]:
            error = relative(state.objective.ansatz.value, points, truth) if whole else None
            curve.append((iteration, spent, error, residual))
            print(f"{name} {seed}: {curve[-1]}", flush=True)
        measuring += time.process_time() - now

    solution = solver.run(state, progress=watch)
    cpu = time.process_time() - begun - measuring
    assert solution.function is not None
    record = {
        "case": name, "seed": seed, "error": relative(solution.function, points, truth),
        "cpu_seconds": cpu, "curve": curve, "iterations": int(solution.stats.iterations),
        "status": solution.status.name, "residual": float(solution.residual),
        "parameters": solution.trained.theta.numel(), "notes": solution.notes,
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record))


def relative(function: Callable[[Tensor], Tensor], points: Tensor, truth: Tensor) -> float:
    """The relative L2 error."""
    found = torch.cat([function(part)[:, 0] for part in points.split(2**14)])
    return float((found - truth).norm() / truth.norm())


def classical(name: str, error: float, out: Path) -> dict[str, float]:
    """The automatic solver on finer and finer grids until it has this error, or the last of them.

    At the nodes of the grid against an exact solution, else at the places of ``wanted``.
    """
    path = out / f"{name}-grid-{error:.1e}.json"
    if path.exists():
        return json.loads(path.read_text())
    case = cases()[name]
    problem, found = case.problem, {}
    for n in case.sizes:
        on = Grid((n, n)).bind(problem.box)
        begun = time.process_time()
        solution = solve(problem, Auto(), on=on, throw=False)
        cpu = time.process_time() - begun
        if problem.exact is None:
            got = solution.sample(places(problem)[::FRAMES, :2]).T.flatten()
            truth = wanted(name, out)
        else:
            nodes = torch.stack([c.flatten() for c in on.coordinates()], -1)
            times = () if problem.time is None else problem.time.instants
            frames = [torch.cat([nodes, torch.full_like(nodes[:, :1], t)], -1) for t in times]
            at = torch.cat(frames) if frames else nodes
            got, truth = (
                solution.value.flatten(),
                Pointwise(problem, ())(problem.exact, "problem.exact", at),
            )
        found = {"n": n, "cpu": cpu, "error": float((got - truth).norm() / truth.norm())}
        if found["error"] <= error:
            break
    write_text(path, json.dumps(found))
    return found


def report(out: Path) -> None:
    """The table of all runs that are there."""
    print("| case | wanted | parameters | error, mean | worst | runs | CPU s, mean | on a grid |")
    print("|---|---|---|---|---|---|---|---|")
    for name, case in cases().items():
        found = [json.loads(p.read_text()) for p in sorted(out.glob(f"{name}-[0-9]*.json"))]
        runs = [record for record in found if record.get("case") == name]
        if not runs:
            continue
        errors = [r["error"] for r in runs]
        seconds = fmean(r["cpu_seconds"] for r in runs)
        grid = classical(name, max(errors), out)
        print(
            f"| {name} | {case.error:.1e} in {case.seconds:g} s | {runs[0]['parameters']} | "
            f"{fmean(errors):.1e} | {max(errors):.1e} | {len(runs)} | {seconds:.1f} | "
            f"{grid['error']:.1e} in {grid['cpu']:.2f} s ({grid['n']:g}^2) |"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--out", type=Path, default=Path("runs/gaussians"))
    parser.add_argument("--case", nargs="*", choices=list(cases()), default=list(cases()))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.command == "report":
        report(given.out)
        return
    for seed in given.seeds:
        for name in given.case:
            run(name, seed, given.out)


if __name__ == "__main__":
    main()
