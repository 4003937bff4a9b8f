"""Attack the integrators: every ``converged`` must be true, and a run may be stopped anywhere.

    python benchmarks/attack_integrators.py [--runs 60] [--seed 0] [--journal FILE]

Every integrator meets every problem that it takes, with tolerances from 1e-2 to 1e-14: decay, stiff
decay, oscillation, growth, rest, pulses, jumps, reaction, waves, tiny and huge units; as many of
these as are asked for, drawn at random, all tolerances in turn. The truth is that of the same
system of ODEs, by SciPy's DOP853 at 1e-13, from jump to jump. A run is *silently wrong* where it
says ``converged`` and its last frame is further from the truth than ``FACTOR`` times rtol, or than
twice as many rtol as it took steps, relative to the largest rms that the truth has had: rtol and as
much of the largest norm are what one step may be off, and the steps' errors add up. Then it is run
again, stopped after a random step, and taken up from its file of frames: it is *lost* where that
does not give the same frames to the last bit, or none. A case that the journal has is not run
again.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack import ANSWERED, LOST, REFUSED, STOPPED, TRACEBACK, WRONG, Journal
from scipy.integrate import solve_ivp

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.discretization import semidiscretize
from sciml.solvers import BDF, ETDRK4, IMEX, SDIRK, RungeKutta, Verlet
from sciml.solvers.time.march import first_state, rate

FAMILY = "integrators"
FACTOR = 100.0
SECONDS, FRAMES = 120.0, 5
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
LINE = Box((0.0,), (1.0,))
HELD = {"all": Condition(dirichlet=0.0)}
CLOSED = {"all": Condition(neumann=0.0)}
PERIODIC = {"all": Condition(periodic=True)}


def parabolic(sides: Any = HELD, end: float = 0.1, initial: Any = "sin(pi*x)", **form: Any) -> Any:
    breaks = form.pop("breaks", ())
    equation = Equation(**{"kind": "general", "d": 1.0, **form})
    return Problem(LINE, equation, sides, initial=initial,
                   time=Time(end, frames=FRAMES, breaks=breaks))  # fmt: skip


PROBLEMS: dict[str, tuple[Problem, tuple[float, ...]]] = {
    "decay": (parabolic(), ()),
    "tiny": (parabolic(initial="1e-12*sin(pi*x)"), ()),
    "huge": (parabolic(initial="1e12*sin(pi*x)"), ()),
    "stiff": (parabolic(K="1 + 20*x", initial="x*(1 - x)", end=0.5, f="1 + x"), ()),
    "oscillating": (parabolic(f="100*sin(200*t)*x", initial=0.0), ()),
    "growing": (parabolic(c=-40.0, end=0.5), ()),
    "at rest": (parabolic(initial=0.0), ()),
    "from rest": (parabolic(initial=0.0, f="x"), ()),
    "box": (parabolic(CLOSED, 1.0, 0.0, f="where(abs(t - 0.55) < 0.005, 100, 0)*(1 + x)"),
            (0.545, 0.555)),
    "bell": (parabolic(CLOSED, 1.0, 0.0, f="exp(-((t - 0.63)/0.004)**2)*(1 + x)"),
             (0.59, 0.63, 0.67)),
    "shot": (parabolic(CLOSED, 1.0, 0.0, f="where(abs(t - 0.5) < 1e-5, 1e4, 0)*(1 + x)",
                       breaks=(0.49999, 0.50001)), (0.49999, 0.50001)),
    "switch": (parabolic(f="where(t < 0.03, 50, 0)", breaks=(0.03,)), (0.03,)),
    "reaction": (parabolic(f="20*u*(1 - u)", initial="0.1*sin(pi*x)", end=1.0), ()),
    "carried": (parabolic(PERIODIC, 0.5, "sin(2*pi*x)", K=0.01, b=(1.0,)), ()),
    "wave": (parabolic(initial="sin(pi*x)", end=2.0, d=0.0, m=1.0), ()),
    "damped wave": (parabolic(initial={"u": 0.0, "ut": "sin(2*pi*x)"}, end=2.0, m=1.0), ()),
}  # fmt: skip
METHODS: dict[str, Any] = {
    "sdirk": SDIRK, "sdirk 3": lambda rtol: SDIRK(rtol=rtol, order=3), "bdf": BDF, "imex": IMEX,
    "runge_kutta": RungeKutta, "verlet": Verlet, "etdrk4": ETDRK4,
    "bogacki_shampine": lambda rtol: RungeKutta("runge_kutta", "bogacki_shampine", rtol=rtol),
}  # fmt: skip


_LOW = ("bdf", "bogacki_shampine", "verlet", "sdirk 3")  # orders


def truth(problem: Problem, on: Grid, jumps: tuple[float, ...]) -> tuple[torch.Tensor, float]:
    """u at the end of the system of ODEs, and the largest rms of u at the jumps and both ends."""
    system, span = semidiscretize(problem, on), problem.time
    assert span is not None
    y = first_state(system)
    shape, largest = y.shape, float(y[0].square().mean().sqrt())

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        return rate(system, torch.from_numpy(flat).reshape(shape), t).flatten().numpy()

    # On either side of a jump, where the data are those of that side.
    side = 1e-14
    stops = [span.start, *jumps, span.end]
    for a, b in pairwise(stops):
        flat = y.flatten().numpy()
        scale = max(float(np.abs(flat).max()), 1e-30)
        found = solve_ivp(
            slope, (a + side * (a > span.start), b - side * (b < span.end)), flat,
            method="DOP853", rtol=1e-13, atol=1e-15 * scale, max_step=(b - a) / 4,
        )  # fmt: skip
        assert found.success, found.message
        sizes = np.sqrt(np.square(found.y[: flat.size // shape[0]]).mean(0))
        largest = max(largest, float(sizes.max()))
        y = torch.from_numpy(np.ascontiguousarray(found.y[:, -1])).reshape(shape)
    return system.lift(y[0], span.end), largest


def spectral_truth(on: Grid) -> tuple[torch.Tensor, float]:
    """The exact solution of ``carried``, which its modes hold."""
    (x,) = on.bind(LINE).coordinates()
    decayed = math.exp(-0.01 * (2 * math.pi) ** 2 * 0.5)
    return decayed * torch.sin(2 * math.pi * (x - 0.5)), 0.5**0.5


def cases(count: int, seed: int) -> list[tuple[str, str, float]]:
    """Method, problem and tolerance of so many runs, the tolerances in turn."""
    columns = []
    for rtol in TOLERANCES:
        column = []
        for method in METHODS:
            for name, (problem, _) in PROBLEMS.items():
                second = problem.form.m != 0.0
                if method == "verlet" and not second:
                    continue
                if (method == "imex" and second) or (method == "etdrk4" and name != "carried"):
                    continue
                if method in _LOW and 1e-13 < rtol < 1e-8:
                    continue  # millions of steps
                column.append((method, name, rtol))
        random.Random(f"{seed} {rtol}").shuffle(column)
        columns.append(column)
    return [case for row in zip_longest(*columns) for case in row if case is not None][:count]


class _Stopped(Exception):
    """What ends a run from outside."""


@dataclass
class Watch:
    """Counts the steps of a run, and ends it after ``last`` of them, or of too many seconds."""

    last: int | None = None
    steps: int = 0
    begin: float = 0.0

    def __call__(self, count: int, t: float) -> None:
        self.begin = self.begin or time.process_time()
        self.steps += 1
        if self.steps == self.last or time.process_time() - self.begin > SECONDS:
            raise _Stopped


def resumed(run: Callable[..., Any], whole: Any, last: int) -> str:
    """What is lost where the run is stopped after that step and taken up again; else nothing."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.h5"
        with contextlib.suppress(_Stopped):
            run(progress=Watch(last), frames=file)
        again = run(frames=file)
    if again.statuses != whole.statuses:
        return f"{again.status.name} where it was {whole.status.name}"
    a, b = again.value, whole.value
    same = torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    return "" if same else f"frames differ by {float((a - b).abs().max()):.1e}"


def attempt(
    method: str, name: str, rtol: float, draw: random.Random, known: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """One run, judged; and what explains it."""
    problem, jumps = PROBLEMS[name]
    on, found, watch = Grid((17,)), dict[str, Any](), Watch()

    def run(**more: Any) -> Any:
        return sciml.solve(problem, METHODS[method](rtol=rtol), on=on, throw=False, **more)

    try:
        solution = run(progress=watch)
        found = {"steps": watch.steps, "status": solution.status.name}
        lost = resumed(run, solution, draw.randint(1, max(watch.steps, 1)))
    except InputError as error:
        return REFUSED, {"why": error.message}
    except _Stopped:
        return STOPPED, {"why": f"did not end within {SECONDS:g} s", "steps": watch.steps}
    except Exception:
        return TRACEBACK, {"why": traceback.format_exc()[-600:]}
    if solution.status.success:
        key = f"{name} {method == 'etdrk4'}"
        if key not in known:
            known[key] = spectral_truth(on) if method == "etdrk4" else truth(problem, on, jumps)
        value, largest = known[key]
        gap = float((solution.last - value).square().mean().sqrt())
        found["error"] = gap / largest if largest > 0 else gap
        if not found["error"] <= max(FACTOR, 2 * watch.steps) * rtol:
            return WRONG, found
    return (LOST, {**found, "why": lost}) if lost else (ANSWERED, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=Path("runs/attack/integrators.jsonl"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    journal, known = Journal(chosen.journal), dict[str, Any]()
    done = journal.done()
    for method, name, rtol in cases(chosen.runs, chosen.seed):
        case = f"{chosen.seed} {method}, {name}, {rtol:g}"
        if (FAMILY, case) in done:
            continue
        begin = time.perf_counter()
        draw = random.Random(case)
        verdict, found = attempt(method, name, rtol, draw, known)
        journal.add(FAMILY, case, verdict, seconds=time.perf_counter() - begin, **found)
    print(journal.counts())


if __name__ == "__main__":
    main()
