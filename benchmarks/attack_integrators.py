"""Attack the integrators: every ``converged`` must be true.

    python benchmarks/attack_integrators.py [--out attack_integrators.jsonl] [--seconds 1200]

Every integrator meets every problem that it takes, with tolerances from 1e-2 to 1e-14: decay, stiff
decay, oscillation, growth, rest, pulses, jumps, reaction, waves, tiny and huge units. The truth is
that of the same system of ODEs, by SciPy's DOP853 or Radau at 1e-13, from jump to jump. A run is
*silently wrong* where it says ``converged`` and its last frame is further from the truth than
``FACTOR`` times rtol, relative to the largest rms that the truth has had: rtol is the error of one
step, and the steps' errors add up. *Lost*: no answer and no status. Cases that the file holds are
not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.discretization import semidiscretize
from sciml.solvers import BDF, ETDRK4, IMEX, SDIRK, RungeKutta, Verlet
from sciml.solvers.time.march import first_state, rate

FACTOR = 100.0
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10, 1e-12, 1e-14)
LINE = Box((0.0,), (1.0,))
HELD = {"all": Condition(dirichlet=0.0)}
CLOSED = {"all": Condition(neumann=0.0)}
PERIODIC = {"all": Condition(periodic=True)}


def parabolic(sides: Any = HELD, end: float = 0.1, initial: Any = "sin(pi*x)", **form: Any) -> Any:
    breaks = form.pop("breaks", ())
    equation = Equation(**{"kind": "general", "d": 1.0, **form})
    return Problem(LINE, equation, sides, time=Time(end, breaks=breaks), initial=initial)


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


def cases() -> Iterator[tuple[str, str, float]]:
    for rtol in TOLERANCES:
        for method in METHODS:
            for name, (problem, _) in PROBLEMS.items():
                second = problem.form.m != 0.0
                if method == "verlet" and not second:
                    continue
                if (method == "imex" and second) or (method == "etdrk4" and name != "carried"):
                    continue
                if method in _LOW and 1e-13 < rtol < 1e-8:
                    continue  # millions of steps
                yield method, name, rtol


def attempt(method: str, name: str, rtol: float, known: dict[str, Any]) -> dict[str, Any]:
    """One run, judged: refused, not converged, true, wrong, or a traceback."""
    problem, jumps = PROBLEMS[name]
    on = Grid((17,))
    started = time.perf_counter()
    found: dict[str, Any] = {"method": method, "problem": name, "rtol": rtol}
    try:
        solver = METHODS[method](rtol=rtol)
        solution = sciml.solve(problem, solver, on=on, throw=False)
    except InputError as error:
        return {**found, "outcome": "refused", "message": error.message}
    except Exception:
        return {**found, "outcome": "traceback", "message": traceback.format_exc()[-600:]}
    found["seconds"] = time.perf_counter() - started
    found["steps"] = int(solution.stats.iterations.max())
    if not solution.status.success:
        return {**found, "outcome": "not converged", "status": solution.status.name}
    key = f"{name} {method == 'etdrk4'}"
    if key not in known:
        known[key] = spectral_truth(on) if method == "etdrk4" else truth(problem, on, jumps)
    value, largest = known[key]
    gap = float((solution.last - value).square().mean().sqrt())
    found["error"] = gap / largest if largest > 0 else gap
    wrong = not found["error"] <= FACTOR * rtol
    return {**found, "outcome": "wrong" if wrong else "true"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("attack_integrators.jsonl"))
    parser.add_argument("--seconds", type=float, default=1200.0)
    options = parser.parse_args()
    lines = options.out.read_text().splitlines() if options.out.is_file() else []
    done = [json.loads(line) for line in lines]
    seen = {(d["method"], d["problem"], d["rtol"]) for d in done}
    begin, known = time.perf_counter(), {}
    with options.out.open("a") as file:
        for case in cases():
            if case in seen or time.perf_counter() - begin > options.seconds:
                continue
            done.append(attempt(*case, known))
            file.write(json.dumps(done[-1]) + "\n")
            file.flush()
    counts = Counter(d["outcome"] for d in done)
    for d in done:
        if d["outcome"] in ("wrong", "traceback"):
            print(d)
    worst = max((d["error"] / d["rtol"] for d in done if d["outcome"] == "true"), default=0.0)
    print(dict(counts), f"worst true one: {worst:.3g} rtol")
    print({"tried": len(done), "silently wrong": counts["wrong"],
           "tracebacks": counts["traceback"], "lost": 0})  # fmt: skip


if __name__ == "__main__":
    main()
