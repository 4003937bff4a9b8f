"""Physics-informed networks: what they reach, in what time, beside classical solvers and peers.

OMP_NUM_THREADS=1 python benchmarks/pinn.py run --out runs/pinn --seeds 0 1 2
python benchmarks/pinn.py peers --out runs/pinn --programs ../peers
python benchmarks/pinn.py report --out runs/pinn > pinn.md

One JSON file per run; runs that are there are not repeated. Errors are relative, in L2, of the last
iterate on a dense grid (in 5-D at 20,000 Sobol points), against the exact solution or a reference
that is itself converged: Burgers by the Cole-Hopf transform, Allen-Cahn by ETDRK4 on 2049 points,
and with Dirichlet data by Chebyshev collocation. Seconds are CPU seconds of one thread without the
measuring. Beside each stands the time of a solver on a grid to the same error.

``peers`` runs other people's programs as they are: deepxde_pinn.py and pina_pinn.py of a folder,
each in an environment of its own, .peers/<name>, made by the folder's ``make-env deepxde`` and
``make-env pina`` (about a gigabyte each). They get as many iterations as fill our budget by a short
run of theirs before, and the same share of Adam and L-BFGS as in their documentation.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.interpolate import BarycentricInterpolator
from torch import Tensor

from sciml.core.files import write_text
from sciml.core.grid import Box, Grid
from sciml.core.points import Points
from sciml.core.problem import Condition, Equation, Problem, Time
from sciml.core.solve import solve
from sciml.solvers import CG, ETDRK4, Multigrid
from sciml.solvers.collocation import PINN, RAD, GaussNewton
from sciml.solvers.collocation.sampling import sobol

VISCOSITY = 0.01 / math.pi
INSTANTS = 101
WAVE = "sin(pi*x)*sin(pi*y)"
SUM = " + ".join(f"sin(pi*x{i})" for i in range(1, 6))
Array = NDArray[np.float64]
Reference = tuple[Tensor, Tensor]  # points (N, D), time last, and values (N,)


@dataclass(frozen=True)
class Case:
    """A problem, how it is solved, what is wanted: an error within so many seconds."""

    problem: Problem
    solver: PINN
    reference: Callable[[Path], Reference]
    error: float
    seconds: float


def poisson() -> Problem:
    """u = sin(pi x) sin(pi y) on the unit square."""
    box = Box((0.0, 0.0), (1.0, 1.0))
    walls = {side: Condition(dirichlet=0.0) for side in box.sides}
    return Problem(box, Equation(K=1.0, f=f"2*pi**2*{WAVE}"), walls, exact=WAVE)


def poisson_5d() -> Problem:
    """u = the sum of sin(pi x_i), as in Mueller and Zeinhofer (2023)."""
    box = Box((0.0,) * 5, (1.0,) * 5)
    walls = {side: Condition(dirichlet=SUM) for side in box.sides}
    return Problem(box, Equation(K=1.0, f=f"pi**2*({SUM})"), walls, exact=SUM)


def in_time(equation: Equation, initial: str, condition: Condition) -> Problem:
    """On [-1, 1] x [0, 1], the same condition on both sides."""
    box = Box((-1.0,), (1.0,))
    sides = {side: condition for side in box.sides}
    return Problem(box, equation, sides, initial=initial, time=Time(1.0, frames=INSTANTS))


def burgers(periodic: bool = False) -> Problem:
    """Viscosity 0.01 / pi; an odd start, so that periodic and zero sides have one solution."""
    condition = Condition(periodic=True) if periodic else Condition(dirichlet=0.0)
    return in_time(Equation(d=1.0, K=VISCOSITY, b=("u",)), "-sin(pi*x)", condition)


def allen_cahn(diffusion: float = 1e-4, dirichlet: bool = False) -> Problem:
    """u_t = diffusion u_xx + 5 u - 5 u^3, u = x^2 cos(pi x) at the start."""
    condition = Condition(dirichlet=-1.0) if dirichlet else Condition(periodic=True)
    equation = Equation(d=1.0, K=diffusion, f="5*u - 5*u**3")
    return in_time(equation, "x**2*cos(pi*x)", condition)


def cole_hopf(x: Array, t: Array, nodes: int = 160) -> Array:
    """Burgers' solution, (T, X), by Gauss-Hermite quadrature of the Cole-Hopf formula."""
    z, w = np.polynomial.hermite.hermgauss(nodes)
    found = np.empty((len(t), len(x)))
    for k, now in enumerate(t):
        y = x[:, None] - z * math.sqrt(4 * VISCOSITY * now)
        exponent = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
        weight = np.exp(exponent - exponent.max(1, keepdims=True)) * w
        found[k] = -(np.sin(np.pi * y) * weight).sum(1) / weight.sum(1)
    return found


def chebyshev_allen_cahn(x: Array, t: Array, diffusion: float, nodes: int = 400) -> Array:
    """The Dirichlet problem, (T, X), by Chebyshev collocation (Trefethen 2000, chapter 6)."""
    s = np.cos(np.pi * np.arange(nodes + 1) / nodes)
    c = np.r_[2, np.ones(nodes - 1), 2] * (-1.0) ** np.arange(nodes + 1)
    D = np.outer(c, 1 / c) / (s[:, None] - s[None, :] + np.eye(nodes + 1))
    D -= np.diag(D.sum(1))
    D2 = diffusion * (D @ D)
    inner = D2[1:-1, 1:-1]
    sides = D2[1:-1, [0, -1]] @ np.array([-1.0, -1.0])
    start = (s**2 * np.cos(np.pi * s))[1:-1]
    found = solve_ivp(
        lambda _, u: inner @ u + sides + 5 * u - 5 * u**3, (0.0, 1.0), start, "BDF", t,
        jac=lambda _, u: inner + np.diag(5 - 15 * u**2), rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    whole = np.pad(found.y.T, ((0, 0), (1, 1)), constant_values=-1.0)
    return BarycentricInterpolator(s, whole.T)(x).T


def gridded(x: Array, t: Array, values: Array) -> Reference:
    """Values (T, X) as points of space and time."""
    times, places = np.meshgrid(t, x, indexing="ij")
    points = np.stack([places.ravel(), times.ravel()], -1)
    return torch.from_numpy(points), torch.from_numpy(values.ravel())


def stored(name: str, make: Callable[[], tuple[Array, Array, Array]], out: Path) -> Reference:
    """A reference x, t, u (X, T) in ``out``, as the peers read it, made where it is not there."""
    path = out / f"{name}.npz"
    if not path.exists():
        x, t, u = make()
        out.mkdir(parents=True, exist_ok=True)
        np.savez(path, x=x, t=t, u=u.T)
    held = np.load(path)
    return gridded(held["x"], held["t"], held["u"].T)


def burgers_reference() -> tuple[Array, Array, Array]:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, INSTANTS)
    return x, t, cole_hopf(x, t)


def periodic_reference() -> tuple[Array, Array, Array]:
    on = Grid((2049,))
    found = solve(allen_cahn(), ETDRK4(rtol=1e-8), on=on)
    x = on.bind(allen_cahn().box).coordinates()[0]
    return x[::4].numpy(), np.array(allen_cahn().time.instants), found.value[:, ::4].numpy()


def dirichlet_reference() -> tuple[Array, Array, Array]:
    x, t = np.linspace(-1, 1, 401), np.linspace(0, 1, INSTANTS)
    return x, t, chebyshev_allen_cahn(x, t, 1e-3)


def at_points(problem: Problem, exact: Callable[[Tensor], Tensor], out: Path) -> Reference:
    """A dense grid in 2-D, Sobol points beyond."""
    if problem.box.dimension == 2:
        axis = torch.linspace(0, 1, 201, dtype=torch.float64)
        points = torch.cartesian_prod(axis, axis)
    else:
        points = sobol(20_000, problem.box.dimension, torch.Generator().manual_seed(11))
    return points, exact(points)


def cases() -> dict[str, Case]:
    """All of them."""
    tail = {"rtol": 1e-10}  # never reached: the iterations are the budget
    return {
        "poisson": Case(
            poisson(),
            PINN(width=32, points=1000, optimiser=GaussNewton(iterations=60), **tail),
            partial(at_points, poisson(), lambda p: (math.pi * p).sin().prod(1)),
            1e-6, 30,
        ),
        "burgers": Case(
            burgers(),
            PINN(
                width=20, depth=3, points=6000, sampler=RAD(every=10, pool=60_000),
                optimiser=GaussNewton(iterations=400), **tail,
            ),
            partial(stored, "burgers", burgers_reference),
            1e-5, 600,
        ),
        "allen-cahn": Case(
            allen_cahn(),
            PINN(
                width=24, depth=3, points=6000, boundary_points=1000, hard=False,
                weights={"start": 100.0}, sampler=RAD(every=10, pool=60_000),
                optimiser=GaussNewton(iterations=600), **tail,
            ),
            partial(stored, "allen-cahn", periodic_reference),
            1e-4, 1800,
        ),
        "poisson-5d": Case(
            poisson_5d(),
            PINN(
                width=48, depth=1, points=2000, boundary_points=100, hard=False,
                weights=dict.fromkeys(poisson_5d().box.sides, 10.0),
                optimiser=GaussNewton(iterations=100), **tail,
            ),
            partial(at_points, poisson_5d(), lambda p: (math.pi * p).sin().sum(1)),
            1e-5, 600,
        ),
        "allen-cahn-1e-3": Case(
            allen_cahn(1e-3, True),
            PINN(
                width=20, depth=3, points=4000, sampler=RAD(every=10, pool=40_000),
                optimiser=GaussNewton(iterations=300), **tail,
            ),
            partial(stored, "allen-cahn-1e-3", dirichlet_reference),
            1e-4, 600,
        ),
    }  # fmt: skip


def run(name: str, seed: int, out: Path) -> None:
    """One run, with its error along the way."""
    path = out / f"{name}-{seed}.json"
    if path.exists():
        return
    case = cases()[name]
    points, wanted = case.reference(out)
    solver = replace(case.solver, seed=seed)
    state = solver.init(case.problem, Points(10) if case.problem.time is None else Grid((9,)))
    begun, measuring, curve = time.process_time(), 0.0, []

    def relative() -> float:
        parts = [state.objective.ansatz.value(p)[:, 0] for p in points.split(2**14)]
        return float((torch.cat(parts) - wanted).norm() / wanted.norm())

    def watch(iteration: int, residual: float) -> None:
        nonlocal measuring
        now = time.process_time()
        spent = now - begun - measuring
        if not curve or spent > 1.15 * curve[-1][1] + 0.2:
            curve.append((iteration, spent, relative(), residual))
            print(f"{name} {seed}: " + ", ".join(f"{v:.3g}" for v in curve[-1]), flush=True)
        measuring += time.process_time() - now

    solution = solver.run(state, progress=watch)
    cpu = time.process_time() - begun - measuring
    record = {
        "case": name, "seed": seed, "error": relative(), "cpu_seconds": cpu, "curve": curve,
        "iterations": int(solution.stats.iterations), "status": solution.status.name,
        "residual": float(solution.residual), "parameters": state.objective.theta.numel(),
        "notes": solution.notes,
    }  # fmt: skip
    write_text(path, json.dumps(record))


def classical(name: str, error: float) -> tuple[float, int] | None:
    """CPU seconds and points an axis of a solver on a grid that has this error; None in 5-D."""
    if name == "poisson":
        sizes, solver, problem = (
            (65, 129, 257, 513, 1025, 2049),
            CG(Multigrid(), rtol=1e-10),
            poisson(),
        )
    elif name == "burgers":
        sizes, solver, problem = (257, 513, 1025, 2049), ETDRK4(rtol=1e-7), burgers(True)
    elif name == "allen-cahn":
        sizes, solver, problem = (129, 257, 513, 1025), ETDRK4(rtol=1e-7), allen_cahn()
    else:
        return None
    fine = None
    for n in sizes:
        on = Grid((n,) * problem.box.dimension)
        begun = time.process_time()
        found = solve(problem, solver, on=on, throw=False)
        seconds = time.process_time() - begun
        axes = on.bind(problem.box).coordinates()
        if name == "poisson":
            exact = (math.pi * axes[0]).sin() * (math.pi * axes[1]).sin()
        elif name == "burgers":
            instants = np.array(burgers().time.instants)
            exact = torch.from_numpy(cole_hopf(axes[0].numpy(), instants))
        else:
            fine = solve(problem, solver, on=Grid((2049,))).value if fine is None else fine
            exact = fine[:, :: 2048 // (n - 1)]
        if float((found.value - exact).norm() / exact.norm()) <= error:
            return seconds, n
    return None


PEERS = {  # the program, its problem, our case, precisions, share of Adam in its documentation
    "deepxde-poisson": ("deepxde", "poisson", "poisson", 0.5),
    "deepxde-burgers": ("deepxde", "burgers", "burgers", 0.5),
    "deepxde-allen-cahn": ("deepxde", "allen_cahn", "allen-cahn-1e-3", 0.7),
    "pina-poisson": ("pina", "poisson", "poisson", 1.0),
}


def peer(name: str, double: bool, seed: int, out: Path, programs: Path, seconds: float) -> str:
    """Run a peer's program once; what it needs, or what it reached."""
    which, problem, ours, share = PEERS[name]
    label = f"{name}-{64 if double else 32}"
    path = out / f"peer-{label}-{seed}.json"
    if path.exists():
        return f"{label}: there already"
    python = Path(".peers") / which / "bin" / "python"
    if not python.exists():
        return f"{label}: needs {python}; make it with {programs / 'make-env'} {which}"
    command = [str(python), str(programs / f"{which}_pinn.py"), "--seed", str(seed)]
    if which == "deepxde":
        command += [problem, *(["--float64"] if double else [])]
    if problem != "poisson":
        cases()[ours].reference(out)
        command += ["--reference", str(out / f"{ours}.npz")]

    def launch(first: int, second: int) -> dict[str, Any]:
        amount = ["--epochs", str(first)]
        if which == "deepxde":
            amount = ["--adam", str(first), "--lbfgs", str(second)]
        done = subprocess.run([*command, *amount], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.strip().splitlines()[-1])

    trial = 200
    rate = _last(launch(trial, 0))[0] / trial
    total = seconds / rate
    found = launch(round(share * total), round((1 - share) * total))
    found["settings"] = f"{round(share * total)} Adam, {round((1 - share) * total)} L-BFGS"
    write_text(path, json.dumps(found | {"ours": ours, "label": label}))
    return f"{label}: error {_last(found)[1]:.2e} in {_last(found)[0]:.0f} s"


def _last(found: dict[str, Any]) -> tuple[float, float]:
    """Seconds and error of a peer's last stage."""
    last = found["stages"][-1] if "stages" in found else found
    return float(last["seconds"]), float(last["relative_l2"])


def report(out: Path) -> str:
    """The tables."""
    lines = [
        "| case | parameters | runs | error, mean | worst | CPU s, mean | wanted "
        "| on a grid, same error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    runs: dict[str, list[dict[str, Any]]] = {}
    for name, case in cases().items():
        found = [json.loads(p.read_text()) for p in sorted(out.glob(f"{name}-[0-9].json"))]
        if not found:
            continue
        runs[name] = found
        errors = [record["error"] for record in found]
        mean = sum(errors) / len(errors)
        seconds = sum(record["cpu_seconds"] for record in found) / len(found)
        grid = classical(name, mean)
        beside = "-" if grid is None else f"{grid[0]:.2g} s, {grid[1]} points an axis"
        lines.append(
            f"| {name} | {found[0]['parameters']} | {len(found)} | {mean:.1e} | {max(errors):.1e} "
            f"| {seconds:.3g} | {case.error:.0e} in {case.seconds:.0f} s | {beside} |"
        )
    return "\n".join([*lines, "", *_peer_table(out, runs)])


def _peer_table(out: Path, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    lines = [
        "| peer | settings | s | error | ours in that time | ours to that error, s | error ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(out.glob("peer-*.json")):
        found = json.loads(path.read_text())
        seconds, error = _last(found)
        curve = [point for point in runs.get(found["ours"], [{"curve": []}])[0]["curve"]]
        within = [e for _, s, e, _ in curve if s <= seconds]
        reached = [s for _, s, e, _ in curve if e <= error]
        best = f"{within[-1]:.1e}" if within else "-"
        first = f"{reached[0]:.2g}" if reached else "-"
        ratio = f"{error / within[-1]:.0f}" if within else "-"
        lines.append(
            f"| {found['peer']}, {found['label']} | {found['settings']} | {seconds:.0f} "
            f"| {error:.1e} | {best} | {first} | {ratio} |"
        )
    return lines if len(lines) > 2 else ["No peer has been run here."]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "peers", "report"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=list(cases()), default=list(cases()))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--programs", type=Path, default=Path("peers"))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seconds", type=float, help="a peer's budget; our case's own by default")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.command == "report":
        print(report(given.out))
        return
    for seed in given.seeds:
        for name in given.cases if given.command == "run" else ():
            run(name, seed, given.out)
        for name in given.peers if given.command == "peers" else ():
            seconds = given.seconds or cases()[PEERS[name][2]].seconds
            for double in (False, True) if name.startswith("deepxde") else (False,):
                print(peer(name, double, seed, given.out, given.programs, seconds), flush=True)


if __name__ == "__main__":
    main()
