"""Physics-informed networks: what they reach, in what time, beside classical solvers and peers.

OMP_NUM_THREADS=1 python benchmarks/pinn.py run --out runs/pinn --seeds 0 1 2
python benchmarks/pinn.py peers --out runs/pinn --programs ../peers
python benchmarks/pinn.py report --out runs/pinn > pinn.md

One JSON file per run; runs that are there are not repeated. Errors are relative, in L2, of the last
iterate on a dense grid (in 5-D at 20,000 Sobol points), of a flow that of the velocity, against the
exact solution or a reference that is itself converged (``pinn_cases.py``). Seconds are CPU seconds
of one thread without the measuring. Beside each stands the time of a solver on a grid to the same
error.

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
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cavity as flow
import numpy as np
import torch
from pinn_cases import (
    FINEST,
    REYNOLDS,
    allen_cahn,
    burgers,
    cases,
    cavity_reference,
    cells,
    chebyshev_allen_cahn,
    cole_hopf,
    poisson,
)

from sciml.core.disk import write_text
from sciml.core.problem.grid import Grid, Points
from sciml.solvers import CG, ETDRK4, SDIRK, Multigrid
from sciml.solvers.solve import solve


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
        ansatz, fields = state.objective.ansatz, wanted.shape[1]
        parts = [ansatz.value(p)[:, :fields] for p in points.split(2**14)]
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


def classical(name: str, error: float, out: Path) -> tuple[float, int] | None:
    """CPU seconds and points an axis of a solver on a grid that has this error; None in 5-D."""
    if name == "cavity":
        return _cavity_on_grids(error, out)
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
    elif name == "allen-cahn-1e-3":
        sizes, solver, problem = (513, 1025, 2049), SDIRK(rtol=1e-7), allen_cahn(1e-3, True)
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
        elif name == "allen-cahn-1e-3":
            instants = np.array(problem.time.instants)
            exact = torch.from_numpy(chebyshev_allen_cahn(axes[0].numpy(), instants, 1e-3))
        else:
            fine = solve(problem, solver, on=Grid((2049,))).value if fine is None else fine
            exact = fine[:, :: 2048 // (n - 1)]
        if float((found.value - exact).norm() / exact.norm()) <= error:
            return seconds, n
    return None


def _cavity_on_grids(error: float, out: Path) -> tuple[float, int] | None:
    """From rest, against the means of the reference over each cell."""
    fine = cavity_reference(out)[1].T.reshape(2, FINEST, FINEST)
    for n in (16, 32, 64, 128):
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = cells(flow.steady(REYNOLDS, n, None, Path(folder)))[1]
        seconds = time.process_time() - begun
        exact = torch.nn.functional.avg_pool2d(fine, FINEST // n).flatten(1).T
        if float((found - exact).norm() / exact.norm()) <= error:
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
        grid = classical(name, mean, out)
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
