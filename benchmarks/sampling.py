"""Where collocation points should lie: samplers at equal points and equal CPU time.

OMP_NUM_THREADS=1 python benchmarks/sampling.py run --out runs/sampling --seconds 120
python benchmarks/sampling.py report --out runs/sampling > sampling.md
python benchmarks/sampling.py picture --out runs/sampling --file docs/images/sampling.png

One JSON file per run, and the trained parameters beside it; runs that are there are not repeated.
Errors are relative, in L2, of the last iterate. CPU seconds exclude the measuring of errors.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sciml import solve
from sciml.app.figures import STYLE, draw_points, residual_field
from sciml.core.disk import atomic_write, write_text
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.problem import Condition, Problem
from sciml.discretization.fields import values_on
from sciml.solvers.trained import (
    DASG,
    DASR,
    PINN,
    R3,
    RAD,
    RAR,
    AdversarialSampling,
    GaussNewton,
    Sobol,
    UniformSampling,
)
from sciml.solvers.trained.adversarial import DensityTraining
from sciml.solvers.trained.gradient_methods import AdamDescent
from sciml.solvers.trained.minimisation import Sampler
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.sampling import sobol

PEAK = "exp(-1000*((x-0.5)**2+(y-0.5)**2))"
TWIN = "exp(-1000*((x+0.5)**2+(y+0.5)**2))"
STEEPNESS = 10.0  # of the peak in ten dimensions
SHOWN = ("uniform", "sobol", "rar", "rad", "r3", "das_g", "das_r", "aas")
CURVE = 15  # errors recorded along a run


def squared(sign: str) -> str:
    """Distance squared from one of the two peaks, as an expression."""
    return f"((x{sign}0.5)**2+(y{sign}0.5)**2)"


def square_box(equation: Equation, exact: str) -> Problem:
    """On [-1, 1]^2 with the exact values (below 1e-108) on the sides."""
    box = Box((-1.0, -1.0), (1.0, 1.0))
    return Problem(box, equation, dict.fromkeys(box.sides, Condition(dirichlet=0.0)), exact=exact)


def one_peak() -> Problem:
    """-Lap u = f."""
    return square_box(Equation(f=f"(4000-4e6*{squared('-')})*{PEAK}"), PEAK)


def two_peaks() -> Problem:
    """div(u grad(x^2 + y^2)) - Lap u = f, that is -Lap u + (2x, 2y) . grad u + 4 u = f.

    The papers have the equation with the other sign.
    """
    f = "+".join(
        f"(4000-4e6*{squared(s)}-4000*(x*(x{s}0.5)+y*(y{s}0.5))+4)*{peak}"
        for s, peak in (("-", PEAK), ("+", TWIN))
    )
    return square_box(Equation(b=("2*x", "2*y"), c=4.0, f=f), f"{PEAK}+{TWIN}")


def ten_dimensions() -> Problem:
    """-Lap u + u - u^3 = f on [-1, 1]^10, u = exp(-10 |x|^2)."""
    box = Box((-1.0,) * 10, (1.0,) * 10)

    def exact(*x: Tensor) -> Tensor:
        return (-STEEPNESS * sum(c.square() for c in x)).exp()  # type: ignore[union-attr]

    def f(*x: Tensor) -> Tensor:
        r, u = sum(c.square() for c in x), exact(*x)
        return (2 * STEEPNESS * 10 - 4 * STEEPNESS**2 * r + 1) * u - u**3

    sides = dict.fromkeys(box.sides, Condition(dirichlet=exact))
    return Problem(box, Equation(c="1-u**2", f=f), sides, exact=exact)


@dataclass(frozen=True)
class Test:
    """A problem, the network for it, and points with weights at which errors are measured.

    ``every``: iterations of Gauss-Newton between exchanges of points.
    """

    title: str
    problem: Callable[[], Problem]
    solver: PINN
    on: Grid | Points
    measured: Callable[[], tuple[Tensor, Tensor, Tensor]]
    flow: DensityTraining = field(default_factory=DensityTraining)
    every: int = 25


def on_grid(exact: Callable[[Tensor], Tensor], nodes: int = 257) -> tuple[Tensor, Tensor, Tensor]:
    """Points (N, 2), weights and exact values (N,) on a dense grid."""
    ticks = torch.linspace(-1.0, 1.0, nodes, dtype=torch.float64)
    points = torch.cartesian_prod(ticks, ticks)
    return points, torch.ones(len(points), dtype=torch.float64), exact(points)


def peaks(points: Tensor, *centres: float) -> Tensor:
    """The peaks' sum, (N,)."""
    parts = [(-1000 * (points - c).square().sum(1)).exp() for c in centres]
    return torch.stack(parts).sum(0)


def around_the_centre(count: int = 20_000) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the points uniform, half with the density of u^2 in ten dimensions; weights 1/q."""
    generator = torch.Generator().manual_seed(5)
    cube = sobol(count, 10, generator)
    deviation = (4 * STEEPNESS) ** -0.5
    normal = deviation * math.sqrt(2) * torch.erfinv(2 * cube.clamp(1e-9, 1 - 1e-9) - 1)
    inside = normal[(normal.abs() < 1).all(1)]
    points = torch.cat([inside, 2 * sobol(len(inside), 10, generator) - 1])
    r = points.square().sum(1)
    bell = (-2 * STEEPNESS * r).exp() / (deviation * math.sqrt(2 * math.pi)) ** 10
    return points, 1 / (bell + 0.5**10), (-STEEPNESS * r).exp()


TESTS = {
    "one_peak": Test(
        "one peak", one_peak, PINN(width=16, depth=3, points=2000), Grid((33, 33)),
        lambda: on_grid(lambda x: peaks(x, 0.5)),
    ),
    "two_peaks": Test(
        "two peaks", two_peaks, PINN(width=16, depth=3, points=2000), Grid((33, 33)),
        lambda: on_grid(lambda x: peaks(x, 0.5, -0.5)),
    ),
    "ten": Test(
        "ten dimensions, nonlinear", ten_dimensions,
        PINN(width=16, depth=2, points=1000, boundary_points=20, hard=False), Points(1000),
        around_the_centre,
        DensityTraining(layers=1, steps=8, rate=0.03, batch=300, candidates=4000), 10,
    ),
}  # fmt: skip
SLOWER = {"gauss_newton": 1, "adam": 10}  # iterations of the same cost
OPTIMISERS: dict[str, Any] = {
    "gauss_newton": GaussNewton(iterations=1_000_000),
    "adam": AdamDescent(iterations=1_000_000, decay="none"),
}


def samplers(test: Test, every: int) -> dict[str, Sampler]:
    """Those compared, points exchanged every so many iterations."""
    return {
        "uniform": UniformSampling(),
        "sobol": Sobol(),
        "rar": RAR(every=every),
        "rad": RAD(every=every),
        "r3": R3(every=every),
        "das_g": DASG(every=every, flow=test.flow),
        "das_r": DASR(every=every, flow=test.flow),
        "aas": AdversarialSampling(every=every, flow=test.flow),
    }


class Spent(Exception):
    """The budget of CPU seconds is used up."""


@dataclass
class Clock:
    """CPU seconds of the training alone, and the error along it."""

    objective: Objective
    measured: tuple[Tensor, Tensor, Tensor]
    seconds: float

    def __post_init__(self) -> None:
        self.curve: list[tuple[float, float]] = []
        self.iterations = 0
        self.begun = time.process_time()

    def __call__(self, iteration: int, relative: float) -> None:
        """Called at every iteration; raises Spent at the end."""
        spent = time.process_time() - self.begun
        self.iterations = iteration
        if spent >= len(self.curve) * self.seconds / CURVE:
            self.curve.append((spent, self.error()))
            self.begun = time.process_time() - spent
        if spent >= self.seconds:
            raise Spent

    def error(self) -> float:
        """Relative, in L2."""
        points, weights, exact = self.measured
        u = torch.cat([self.objective.ansatz.value(part)[:, 0] for part in points.split(2**14)])
        return float(((weights * (u - exact) ** 2).sum() / (weights * exact**2).sum()).sqrt())


def run(test: Test, sampler: Sampler, optimiser: Any, seed: int, seconds: float) -> dict[str, Any]:
    """Train until the CPU seconds are spent, or no step lowers the loss."""
    solver = replace(test.solver, sampler=sampler, optimiser=optimiser, seed=seed, rtol=1e-12)
    state = solver.init(test.problem(), test.on)
    objective = state.objective
    clock = Clock(objective, test.measured(), seconds)
    ended = "stalled"
    try:
        solver.run(state, progress=clock)
    except Spent:
        ended = "budget"
    return {
        "error": clock.error(),
        "iterations": clock.iterations,
        "seconds": clock.curve[-1][0],
        "ended": ended,
        "curve": clock.curve,
        "theta": objective.theta.tolist(),
        "points": objective.batches[0].points.tolist(),
    }


def run_all(chosen: argparse.Namespace) -> None:
    """What is asked for and not there yet, one file a run."""
    chosen.out.mkdir(parents=True, exist_ok=True)
    for seed in chosen.seeds:
        for case in chosen.cases:
            test = TESTS[case]
            for method in chosen.optimisers:
                for name, sampler in samplers(test, test.every * SLOWER[method]).items():
                    file = chosen.out / f"{case}-{method}-{name}-{seed}.json"
                    if file.exists() or (chosen.samplers and name not in chosen.samplers):
                        continue
                    found = run(test, sampler, OPTIMISERS[method], seed, chosen.seconds)
                    found |= {"case": case, "optimiser": method, "sampler": name, "seed": seed}
                    write_text(file, json.dumps(found))
                    print(f"{file.stem}: {found['error']:.2e}, {found['iterations']} iterations, "
                          f"{found['seconds']:.0f} s, {found['ended']}", flush=True)  # fmt: skip


def results(out: Path) -> list[dict[str, Any]]:
    """Every run that was made."""
    return [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]


def report(out: Path) -> Iterator[str]:
    """The tables, line by line."""
    runs = results(out)
    for case, test in TESTS.items():
        for method in OPTIMISERS:
            own = [r for r in runs if (r["case"], r["optimiser"]) == (case, method)]
            if own:
                yield from table(test, method, own)


def table(test: Test, method: str, runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One problem by one optimiser."""
    title = f"{test.title}, {method.replace('_', '-')}, {test.solver.points} points"
    yield f"\n{title}, {max(r['seconds'] for r in runs):.0f} CPU s\n"
    yield "| points | mean error | least | worst | seeds | uniform's mean / this | iterations |"
    yield "|---|---|---|---|---|---|---|"
    errors = {
        name: [r["error"] for r in runs if r["sampler"] == name]
        for name in samplers(test, 1)
        if any(r["sampler"] == name for r in runs)
    }
    base = np.mean(errors.get("uniform", [math.nan]))
    for name, found in errors.items():
        steps = np.mean([r["iterations"] for r in runs if r["sampler"] == name])
        yield (
            f"| {name} | {np.mean(found):.2e} | {min(found):.2e} | {max(found):.2e} | "
            f"{len(found)} | {base / np.mean(found):.2g} | {steps:.0f} |"
        )
    if isinstance(test.on, Grid):
        yield classical(test, min(min(found) for found in errors.values()))


def classical(test: Test, error: float) -> str:
    """How long the solver on a grid takes to the least error of a table."""
    problem, nodes = test.problem(), 33
    while True:
        begun = time.process_time()
        solution = solve(problem, on=Grid((nodes, nodes)))
        spent = time.process_time() - begun
        exact = values_on(problem, solution.on, problem.exact, "problem.exact")
        found = float(solution.error(exact))
        if found <= error or nodes > 1024:
            return f"\nOn a grid of {nodes}^2, solved in {spent:.2f} CPU s: {found:.1e}."
        nodes = 2 * nodes - 1


def picture(out: Path, file: Path, method: str, seed: int) -> None:
    """The points over the residual, one row a problem, and the errors against CPU time."""
    runs = {
        (r["case"], r["sampler"]): r
        for r in results(out)
        if r["optimiser"] == method and r["seed"] == seed
    }
    cases = [case for case in TESTS if any(key[0] == case for key in runs)]
    names = [name for name in SHOWN if any(key[1] == name for key in runs)]
    with matplotlib.rc_context({**STYLE, "font.size": 9, "axes.titlesize": 9}):
        figure = Figure(figsize=(2.4 * len(names) + 3.2, 2.4 * len(cases)), layout="constrained")
        grid = figure.subplots(
            len(cases), len(names) + 1, squeeze=False, width_ratios=[*[1.0] * len(names), 1.2]
        )
        for row, case in zip(grid, cases, strict=True):
            row_of(figure, row, TESTS[case], {name: runs.get((case, name)) for name in names})
        with atomic_write(file) as temporary:
            figure.savefig(temporary, format="png", dpi=130)


def row_of(
    figure: Figure, row: Sequence[Axes], test: Test, runs: dict[str, dict[str, Any] | None]
) -> None:
    """One problem: every sampler on one colour scale, then the errors."""
    made = {name: (found, trained(test, found)) for name, found in runs.items() if found}
    top = max(float(residual_field(objective)[2].max()) for _, objective in made.values())
    for axes, name in zip(row[:-1], runs, strict=True):
        if name not in made:
            axes.set_axis_off()
            continue
        found, objective = made[name]
        points = torch.tensor(found["points"], dtype=torch.float64)
        image = draw_points(axes, objective, points, (top * 1e-5, top))
        axes.set(title=f"{name}: {found['error']:.1e}", xlabel="", ylabel="", aspect="equal")
        axes.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        row[-1].semilogy(*zip(*found["curve"], strict=True), label=name)
    figure.colorbar(image, ax=row[-2], label="|residual|")
    row[-1].set(title=f"{test.title}: error", xlabel="CPU s")
    row[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def trained(test: Test, found: dict[str, Any]) -> Objective:
    """The function that a run ended with."""
    solver = replace(test.solver, seed=found["seed"])
    objective = solver.init(test.problem(), test.on).objective
    objective.assign(torch.tensor(found["theta"], dtype=torch.float64))
    return objective


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "report", "picture"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--file", type=Path, default=Path("docs/images/sampling.png"))
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cases", nargs="+", choices=TESTS, default=list(TESTS))
    parser.add_argument("--samplers", nargs="+", default=[])
    parser.add_argument("--optimisers", nargs="+", choices=OPTIMISERS, default=list(OPTIMISERS))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.action == "run":
        run_all(chosen)
    elif chosen.action == "report":
        print("\n".join(report(chosen.out)))
    else:
        picture(chosen.out, chosen.file, chosen.optimisers[0], chosen.seeds[0])


if __name__ == "__main__":
    main()
