"""Random features, their number and bandwidths given or found: ``python benchmarks/features.py``.

Every problem with 600 features and the best of five bandwidths for all axes, and as they are by
default. Errors are relative, in L2 over the box, and over time too.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import pinn_cases
import torch
from results import Table, keep
from torch import Tensor

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.solvers.solve import solve
from sciml.solvers.trained import RandomFeatures
from sciml.solvers.trained.sampling import sobol

WAVE = "sin(pi*x)*sin(pi*y)"
SQUARE, LINE = Box((-1.0, -1.0), (1.0, 1.0)), Box((0.0,), (1.0,))


def _helmholtz(x: int, y: int) -> Problem:
    wave = f"sin({x}*pi*x)*sin({y}*pi*y)"
    equation = Equation(c=-1.0, f=f"({x * x + y * y}*pi**2 - 1)*{wave}")
    return Problem(SQUARE, equation, _rest(SQUARE), exact=wave)


def _rest(box: Box) -> dict[str, Condition]:
    return dict.fromkeys(box.sides, Condition(dirichlet=0.0))


CUBIC = Equation(c="u**2", f=f"2*pi**2*{WAVE} + ({WAVE})**3")
CASES = {
    "Poisson": pinn_cases.poisson(),
    "-Lap u + u^3": Problem(
        Box((0.0, 0.0), (1.0, 1.0)), CUBIC, _rest(Box((0.0, 0.0), (1.0, 1.0))), exact=WAVE
    ),
    "Helmholtz (1, 4)": _helmholtz(1, 4),
    "Helmholtz (4, 4)": _helmholtz(4, 4),
    "wave, two modes": Problem(
        LINE,
        Equation(kind="wave", K=4.0),
        _rest(LINE),
        time=Time(1.0, frames=11),
        initial={"u": "sin(pi*x) + 0.5*sin(4*pi*x)", "ut": 0.0},
        exact="sin(pi*x)*cos(2*pi*t) + 0.5*sin(4*pi*x)*cos(8*pi*t)",
    ),
    "Allen-Cahn 1e-3, sides": pinn_cases.allen_cahn(1e-3, True),
    "Burgers 0.01/pi": pinn_cases.burgers(),
}
STORED = {
    "Allen-Cahn 1e-3, sides": ("allen-cahn-1e-3", pinn_cases.dirichlet_reference),
    "Burgers 0.01/pi": ("burgers", pinn_cases.burgers_reference),
}
SOLVERS = {
    "600, five bandwidths": RandomFeatures(count=600, bandwidths=(2.0, 4.0, 8.0, 16.0, 32.0)),
    "found": RandomFeatures(),
}


def wanted(name: str, out: Path) -> tuple[Tensor, Tensor]:
    """Points (N, D), time last, and what is right there, (N, 1)."""
    problem = CASES[name]
    if name in STORED:
        return pinn_cases.stored(*STORED[name], out)
    d, lower, upper = problem.box.dimension, [*problem.box.lower], [*problem.box.upper]
    if problem.time is not None:
        d, lower, upper = d + 1, [*lower, problem.time.start], [*upper, problem.time.end]
    low, high = torch.tensor(lower).double(), torch.tensor(upper).double()
    points = low + (high - low) * sobol(5000, d, torch.Generator().manual_seed(5))
    read = Pointwise(problem, (), numeric_parameters(problem))
    return points, read(problem.exact, "problem.exact", points).expand(len(points))[:, None]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all of them, and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/features"))
    asked = parser.parse_args(arguments)
    asked.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = []
    for name, problem in CASES.items():
        points, values = wanted(name, asked.out)
        for label, solver in SOLVERS.items():
            begun = time.process_time()
            on = Grid((33,) * problem.box.dimension)
            solution = solve(problem, solver, on=on, throw=False)
            seconds = time.process_time() - begun
            assert solution.function is not None
            gap = solution.function(points).detach() - values
            said = [note for note in solution.notes if "bandwidth" in note or "features" in note]
            chosen = said[0].split(",")[0].split(";")[0].removeprefix("bandwidth ")
            count = said[1].split(":")[0] if len(said) > 1 else "600 features"
            rows.append(
                [name, label, f"{float(gap.norm() / values.norm()):.1e}",
                 f"{float(solution.residual):.1e}", f"{seconds:.1f}", chosen, count]
            )  # fmt: skip
            print(rows[-1], flush=True)
    head = ("problem", "number and bandwidths", "error", "residual", "CPU s", "B", "taken")
    today = datetime.now(timezone.utc).date().isoformat()
    machine = f"{platform.machine()}, one thread beside other programs, one seed"
    note = "Relative L2 error over box and time. Burgers and Allen-Cahn have layers."
    command = "python benchmarks/features.py"
    keep("random-features", Table("Random features", today, machine, command, head, rows, note))


if __name__ == "__main__":
    main()
