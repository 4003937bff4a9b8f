"""Equations that no form covers, by trained functions: ``python benchmarks/written_out.py``.

Against exact solutions; CPU seconds of one thread.
"""

from __future__ import annotations

import platform
import time
from datetime import datetime, timezone

import torch
from results import Cell, Table, keep

import sciml
from sciml import Box, Condition, Grid, Integral, Problem, Time, WrittenOut
from sciml.core.problem.expression import parse
from sciml.solvers import PINN, RandomFeatures

_BEAM = Problem(
    Box((0.0,), (1.0,)),
    WrittenOut(("2*uxxxx - 48",)),
    {"left": Condition(residuals=("u", "ux")), "right": Condition(residuals=("uxx", "uxxx"))},
    exact="x**2*(x**2 - 4*x + 6)",
)
_HELD = Condition(residuals=("u", "uxx + uyy"))
_SQUARE = Box((0.0, 0.0), (1.0, 1.0))
_PLATE = Problem(
    _SQUARE,
    WrittenOut(("uxxxx + 2*uxxyy + uyyyy - 4*pi**4*sin(pi*x)*sin(pi*y)",)),
    dict.fromkeys(_SQUARE.sides, _HELD),
    exact="sin(pi*x)*sin(pi*y)",
)
_OSCILLATOR = Problem(
    None,
    WrittenOut(("ut - v", "vt + u"), ("u", "v")),
    time=Time(6.0, frames=61),
    initial={"u": 1.0, "v": 0.0},
)
_MEMORY = Problem(
    Box((0.0,), (5.0,)),
    WrittenOut(("ux + u - memory",), integrals={"memory": Integral("exp(s - x)*u", 0.0, "x")}),
    {"left": Condition(dirichlet=1.0), "right": Condition(residuals=())},
    exact="exp(-x)*cosh(x)",
)
_FEATURES, _NETWORK = RandomFeatures(rtol=1e-6), PINN(rtol=1e-6)
CASES = (
    ("a clamped beam under its weight", _BEAM, Grid((129,)), (_FEATURES, _NETWORK)),
    ("a plate on simple supports", _PLATE, Grid((33, 33)), (_FEATURES,)),
    ("u'' = -u as a system, t < 6", _OSCILLATOR, None, (_FEATURES, _NETWORK)),
    ("an equation with memory, x < 5", _MEMORY, Grid((101,)), (_FEATURES, _NETWORK)),
)


def main() -> None:
    """Solve every case and write the table."""
    rows: list[list[Cell]] = []
    for name, problem, on, solvers in CASES:
        for solver in solvers:
            begun = time.process_time()
            solution = sciml.solve(problem, solver, on=on, throw=False)
            seconds = time.process_time() - begun
            rows.append([name, solver.kind, f"{_error(problem, solution):.1e}",
                         solution.status.name.lower(), f"{seconds:.1f}"])  # fmt: skip
            print(rows[-1], flush=True)
    keep(
        "written-out",
        Table(
            "Equations that are written out",
            datetime.now(timezone.utc).date().isoformat(),
            f"{platform.machine()}, one thread",
            "python benchmarks/written_out.py",
            ("case", "solver", "relative L2 error", "status", "CPU s"),
            rows,
            "Random features as they were by default then: 600, five bandwidths tried; "
            "PINN: 2 x 24.",
        ),
    )


def _error(problem: Problem, solution: sciml.Solution) -> float:
    if problem.exact is None:
        t = solution.times
        assert t is not None
        gap = solution.value[:, 0, 0] - torch.cos(t)
        return float(gap.norm() / torch.cos(t).norm())
    exact = parse(str(problem.exact), problem.box.axes)

    def known(*points: torch.Tensor) -> torch.Tensor:
        return exact(**dict(zip(problem.box.axes, points, strict=True)))

    return float(solution.error(known))


if __name__ == "__main__":
    main()
