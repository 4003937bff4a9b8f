"""Random features, deep Ritz and descent in function space, beside our solvers on grids.

OMP_NUM_THREADS=1 python benchmarks/variational.py run --out runs/variational --seeds 0 1 2
python benchmarks/variational.py report --out runs/variational > variational.md

One JSON file per run; runs that are there are not repeated. Errors are relative, in L2, of the last
iterate at 40,000 Sobol points that no training saw, against the exact solution (for Bratu's problem
with zero sides Newton on two grids, extrapolated, on the finer one). Seconds are CPU seconds of one
thread, the verification of the answer among them. Beside each stands what the solver on a grid
takes to that error, or the best that its largest grid gives.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.disk import write_text
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.core.run.solution import Solution
from sciml.discretization.fields import values_on
from sciml.discretization.points.pointwise import Pointwise
from sciml.solvers import CG, Multigrid, Newton
from sciml.solvers.solve import solve
from sciml.solvers.trained import (
    DeepRitz,
    FunctionDescent,
    NaturalGradient,
    NetworkProjection,
    RandomFeatures,
)

UNIT, SQUARE, LINE = Box((0.0, 0.0), (1.0, 1.0)), Box((-1.0,) * 2, (1.0,) * 2), Box((-1.0,), (1.0,))
WAVE = "sin(pi*x)*sin(pi*y)"
SLOPES = "(ux**2 + uy**2)"
CUSP = "-(2/3)*0.5**0.5*(x**2 + y**2)**0.75"
SCHERK = "log(cos(x)/cos(y))"
LIOUVILLE = "log(8/(1 + x**2 + y**2)**2)"
# The root of theta = sqrt(2) cosh(theta / 4) on the lower branch, for lam = 1.
THETA = 1.5171645990507543
BRATU_LINE = f"-2*log(cosh((x - 0.5)*{THETA}/2)/cosh({THETA}/4))"
SIZES = {1: (33, 129, 513, 2049, 8193), 2: (17, 33, 65, 129, 257, 513)}
POINTS = 40_000


@dataclass(frozen=True)
class Case:
    """A problem, how it is solved, and what is asked for: an error within so many seconds."""

    problem: Problem
    solver: Callable[[int], Any]
    asked: str = "-"
    nodes: int = 129


def given(domain: Box, value: str | float) -> dict[str, Condition]:
    """The value on every side."""
    return dict.fromkeys(domain.sides, Condition(dirichlet=value))


def stated(
    domain: Box, exact: str | None, known: str | float | None = None, **equation: Any
) -> Any:
    """A problem with its exact solution, or else ``known``, on the sides."""
    sides = given(domain, exact if known is None else known)  # type: ignore[arg-type]
    return Problem(
        domain, Equation(**equation), sides, exact=exact,
        parameters={"lam": 1.0} if equation.get("kind") == "bratu" else {},
    )  # fmt: skip


def ritz(iterations: int, **options: Any) -> Callable[[int], DeepRitz]:
    """Natural gradient steps from a seed."""
    return lambda seed: DeepRitz(
        seed=seed, optimiser=NaturalGradient(iterations=iterations), **options
    )


def features(**options: Any) -> Callable[[int], RandomFeatures]:
    """Random features from a seed."""
    return lambda seed: RandomFeatures(seed=seed, **options)


CUBIC_SOURCE = f"2*pi**2*{WAVE} + ({WAVE})**3"
CASES = {
    "random features: Poisson": Case(
        stated(UNIT, WAVE, 0.0, kind="poisson", f=f"2*pi**2*{WAVE}"), features(), "1e-10 in 5 s"
    ),
    "random features: -Lap u + u^3": Case(
        stated(UNIT, WAVE, 0.0, c="u**2", f=CUBIC_SOURCE), features()
    ),
    "random features: Bratu, Liouville's solution": Case(
        stated(UNIT, LIOUVILLE, kind="bratu"), features()
    ),
    "random features: Bratu 1-D": Case(
        stated(Box((0.0,), (1.0,)), BRATU_LINE, 0.0, kind="bratu"), features(count=100), nodes=257
    ),
    "random features: Bratu, zero sides": Case(
        stated(UNIT, None, 0.0, kind="bratu"), features()
    ),
    "random features: Helmholtz (1, 4)": Case(
        stated(
            SQUARE, "sin(pi*x)*sin(4*pi*y)", 0.0, c=-1.0,
            f="(17*pi**2 - 1)*sin(pi*x)*sin(4*pi*y)",
        ),
        features(count=1000, bandwidths=(8.0, 16.0, 24.0)), "(Gaussians 2e-5 in 10 min)",
    ),
    "deep Ritz: u'^2/2 + u^4/4 - f u": Case(
        Problem(
            LINE,
            Equation(energy="0.5*ux**2 + 0.25*u**4 - (pi**2*cos(pi*x) + cos(pi*x)**3)*u"),
            dict.fromkeys(LINE.sides, Condition(neumann=0.0)),
            exact="cos(pi*x)",
        ),
        ritz(300, width=12, points=60), "1e-5 in 5 min", 257,
    ),
    "deep Ritz: p-Laplace, p = 3": Case(
        stated(SQUARE, CUSP, energy=f"{SLOPES}**1.5/3 - u"),
        ritz(200, width=16), "1e-3 in 5 min",
    ),
    "deep Ritz: minimal surface (Scherk)": Case(
        stated(Box((-1.2, -1.2), (1.2, 1.2)), SCHERK, energy=f"sqrt(1 + {SLOPES})"),
        ritz(100, width=16, points=900), "1e-4 in 5 min",
    ),
    "deep Ritz: |grad u|^2/2 + u^4/4 - f u": Case(
        stated(UNIT, WAVE, 0.0, energy=f"0.5*{SLOPES} + 0.25*u**4 - ({CUBIC_SOURCE})*u"),
        ritz(150, width=16, points=900), "-",
    ),
    "deep Ritz: Poisson": Case(
        stated(UNIT, WAVE, 0.0, kind="poisson", f=f"2*pi**2*{WAVE}"),
        ritz(150, width=16, points=900), "-",
    ),
}  # fmt: skip


def run(name: str, case: Case, seed: int) -> dict[str, Any]:
    """One run, measured."""
    grid = Grid((case.nodes,) * case.problem.box.dimension)
    begun = time.process_time()
    solution = solve(case.problem, case.solver(seed), on=grid, throw=False)
    seconds = time.process_time() - begun
    return {
        "name": name,
        "seed": seed,
        "error": error(case.problem, solution),
        "seconds": seconds,
        "residual": float(solution.residual),
        "status": solution.status.name.lower(),
        "notes": list(solution.notes),
    }


def error(problem: Problem, solution: Solution) -> float:
    """Relative, in L2: of the function at points, or of a solver on a grid at its nodes."""
    if problem.exact is None:
        return float(solution.error(extrapolated(problem, solution.on.shape[0])))  # type: ignore[union-attr]
    if solution.function is None:
        grid = solution.on
        assert isinstance(grid, Grid)
        return float(solution.error(values_on(problem, grid, problem.exact, "problem.exact")))
    x = torch.stack(Points(POINTS).bind(problem.box).coordinates(), -1)
    exact = Pointwise(problem, parameters=problem.parameters)(problem.exact, "problem.exact", x)
    found = solution.function(x)[:, 0]
    return float((found - exact).norm() / exact.norm())


def extrapolated(problem: Problem, nodes: int) -> Tensor:
    """(4 u_h - u_2h) / 3 of Newton's answers, h a quarter of the grid's spacing, on its nodes."""
    fine = [2**k * (nodes - 1) + 1 for k in (2, 1)]
    u, v = (solve(problem, Newton(rtol=1e-10), on=Grid((n, n))).value for n in fine)
    return (4 * u[::4, ::4] - v[::2, ::2]) / 3


def on_grids(problem: Problem, wanted: float) -> dict[str, Any]:
    """The coarsest grid on which our own solver is as exact, or the finest there is."""
    solver = CG(preconditioner=Multigrid(), rtol=1e-11)
    if problem.linear and float(problem.form.c) < 0:
        solver = Newton(rtol=1e-11)  # type: ignore[assignment]
    chosen = solver if problem.linear else Newton(rtol=1e-10)
    found: dict[str, Any] = {}
    for n in SIZES[problem.box.dimension]:
        seconds = []
        for _ in range(2):
            begun = time.process_time()
            solution = solve(problem, chosen, on=Grid((n,) * problem.box.dimension), throw=False)
            seconds.append(time.process_time() - begun)
        gap = error(problem, solution)
        found = {"nodes": n, "error": gap, "seconds": min(seconds), "kind": chosen.kind}
        if gap <= wanted or min(seconds) > 20:
            break
    return found


def rates() -> list[str]:
    """Iterations of the descent in function space on finer and finer grids."""
    rows = [
        "| problem | nodes | iterations | mean rate | relative residual | L2 error | CPU s | "
        "Newton: iterations, CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    cubic = CASES["random features: -Lap u + u^3"].problem
    plans = (
        ("-Lap u + u^3 = f", cubic, FunctionDescent(), (33, 65, 129, 257)),
        ("its energy", CASES["deep Ritz: |grad u|^2/2 + u^4/4 - f u"].problem,
         FunctionDescent(), (33, 65, 129)),
        ("-Lap u + u^3 = f, projected", cubic,
         FunctionDescent(rtol=1e-8, projection=NetworkProjection()), (17, 33)),
        ("Scherk's energy", CASES["deep Ritz: minimal surface (Scherk)"].problem,
         FunctionDescent(), (17, 33, 65)),
    )  # fmt: skip
    for name, problem, solver, sizes in plans:
        for n in sizes:
            grid = Grid((n, n)).bind(problem.box)
            begun = time.process_time()
            mine = solve(problem, solver, on=grid, throw=False)
            middle = time.process_time()
            other = solve(problem, Newton(), on=grid, throw=False)
            end = time.process_time()
            r = mine.stats.residuals
            rate = float((r[-1] / r[0]) ** (1 / (len(r) - 1)))
            gap = float(mine.error(values_on(problem, grid, problem.exact, "problem.exact")))
            state = "" if mine.converged else f" ({mine.status.name.lower()})"
            rows.append(
                f"| {name} | {n}^2 | {int(mine.stats.iterations)}{state} | {rate:.3f} | "
                f"{float(mine.residual):.1e} | {gap:.2e} | {middle - begun:.2f} | "
                f"{int(other.stats.iterations)}, {end - middle:.2f} |"
            )
            print(rows[-1], flush=True)
    return rows


def table(folder: Path) -> list[str]:
    """Mean and worst of the seeds, and our own solver to the worst of these errors."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("run-*.json")):
        one = json.loads(path.read_text())
        runs.setdefault(one["name"], []).append(one)
    rows = [
        "| case | asked | error, mean | worst | seeds | CPU s, mean | strong residual, worst | "
        "on a grid: nodes, error, CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (name for name in CASES if name in runs):
        own = runs[name]
        errors = [one["error"] for one in own]
        path = folder / f"grid-{slug(name)}.json"
        grid = json.loads(path.read_text()) if path.exists() else None
        beside = "-"
        if grid is not None:
            reached = "" if grid["error"] <= max(errors) else ", not reached"
            beside = (
                f"{grid['kind']}: {grid['nodes']}, {grid['error']:.1e}{reached}, "
                f"{grid['seconds']:.2f}"
            )
        title = name.replace("|", "\\|")
        rows.append(
            f"| {title} | {CASES[name].asked} | {math.fsum(errors) / len(errors):.1e} | "
            f"{max(errors):.1e} | {len(own)} | "
            f"{math.fsum(one['seconds'] for one in own) / len(own):.1f} | "
            f"{max(one['residual'] for one in own):.1e} | {beside} |"
        )
    return rows


def slug(name: str) -> str:
    """A name for a file."""
    return "".join(c if c.isalnum() else "-" for c in name.lower())


def measure(folder: Path, seeds: Sequence[int], only: str) -> None:
    """Run what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    # What is compiled or loaded on first use is not counted.
    warm = CASES["random features: -Lap u + u^3"].problem
    for solver in (RandomFeatures(count=20), Newton(), FunctionDescent()):
        solve(warm, solver, on=Grid((65, 65)), throw=False)
    for name, case in CASES.items():
        if only not in name:
            continue
        errors = []
        for seed in seeds:
            path = folder / f"run-{slug(name)}-{seed}.json"
            if not path.exists():
                write_text(path, json.dumps(run(name, case, seed), indent=1))
            errors.append(json.loads(path.read_text())["error"])
            print(name, seed, f"{errors[-1]:.2e}", flush=True)
        beside = folder / f"grid-{slug(name)}.json"
        if not beside.exists() and case.problem.exact is not None:
            write_text(beside, json.dumps(on_grids(case.problem, max(errors)), indent=1))
    path = folder / "rates.md"
    if only in "rates" and not path.exists():
        write_text(path, "\n".join(rates()) + "\n")


def main() -> None:
    """Measure, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=("run", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/variational"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", default="", help="run the cases whose names hold this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.task == "run":
        measure(options.out, options.seeds, options.only)
        return
    print("\n".join(table(options.out)))
    path = options.out / "rates.md"
    if path.exists():
        print("\nDescent in function space\n\n" + path.read_text())


if __name__ == "__main__":
    main()
