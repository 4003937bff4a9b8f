"""Datasets: samples per second, the statistics of random fields, and what survives ``kill -9``.

    python benchmarks/generate.py darcy [--shape 421] [--count 120] [--workers 1 2] [--device cpu]
    python benchmarks/generate.py flow [--count 4] [--end 20] [--device cpu]
    python benchmarks/generate.py fields [--count 10000]
    python benchmarks/generate.py kills [--count 100]

``darcy`` times whole runs of ``generate``, drawing and writing included, in turn with a loop over
the same matrices in PyAMG (Ruge-Stuben, CG, the same tolerance), whose time leaves out drawing the
coefficient, assembling the matrix and writing.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyamg
import torch

from sciml.app.read import load_family
from sciml.core.problem.grid import Box, Grid
from sciml.datasets.distributions import stream
from sciml.datasets.family import Family
from sciml.datasets.generate import generate
from sciml.datasets.random_fields import covariance, gaussian_field
from sciml.datasets.store import read_manifest
from sciml.discretization import discretize

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "datasets"
WARM = 1  # shards of each worker before the clock starts


def sized(name: str, shape: int, *more: str) -> Family:
    """A preset on so many nodes along each axis."""
    return load_family(
        CONFIGS / f"{name}.yaml", [f"grid.shape=[{shape},{shape}]", "dataset.shapes=[]", *more]
    )


def with_splits(family: Family, count: int, shard: int, seed: int = 0) -> Family:
    """``count`` training samples and nothing else."""
    options = replace(family.dataset, splits={"train": count}, shard=shard, seed=seed)
    return replace(family, dataset=options)


def run(family: Family, out: Path, workers: int, device: str) -> float:
    """Samples per second of one run, from the first shards on: workers take seconds to start."""
    marks: list[tuple[float, int]] = []
    generate(
        family,
        out,
        spec={},
        versions={},
        workers=workers,
        device=device,
        progress=lambda stored, *_: marks.append((time.perf_counter(), stored)),
    )
    (start, first), (end, last) = marks[min(WARM * workers, len(marks) - 2)], marks[-1]
    return (last - first) / (end - start)


def pyamg_rate(family: Family, count: int) -> tuple[float, float]:
    """Solves per second of PyAMG on the matrices of the first samples, and the worst residual."""
    seconds, worst = 0.0, 0.0
    for i in range(count):
        drawn = family.draw(family.dataset.seed, [i])
        alone = family.problems({place: value[0] for place, value in drawn.items()})
        system = discretize(alone, family.on)
        A, b = system.A.to_scipy(), system.b.reshape(-1).numpy()
        start = time.perf_counter()
        x = pyamg.ruge_stuben_solver(A).solve(b, tol=1e-8, accel="cg")
        seconds += time.perf_counter() - start
        worst = max(worst, float(np.linalg.norm(b - A @ x) / np.linalg.norm(b)))
    return count / seconds, worst


def darcy(shape: int, count: int, workers: list[int], device: str, rounds: int) -> None:
    """Rates of generate and of PyAMG, the best of several rounds in turn."""
    family = sized("darcy", shape)
    rates: dict[str, float] = {}
    peer, reached = "PyAMG RS + CG, solve only", 0.0
    for turn in range(rounds):
        for n in workers:
            tasks = with_splits(family, count * n, max(1, count // 6), seed=turn)
            with tempfile.TemporaryDirectory() as folder:
                rate = run(tasks, Path(folder), n, device)
            name = f"generate, {n} worker{'s' if n > 1 else ''}, {device}"
            rates[name] = max(rates.get(name, 0.0), rate)
        rate, worst = pyamg_rate(family, max(2, count // 8))
        reached = max(reached, worst)
        rates[peer] = max(rates.get(peer, 0.0), rate)
    print(f"| Darcy {shape} x {shape}, rtol 1e-8 | samples per second | times PyAMG |")
    print("|---|---|---|")
    for name, rate in rates.items():
        print(f"| {name} | {rate:.3g} | {rate / rates[peer]:.3g} |")
    print(f"\nPyAMG's largest relative residual: {reached:.1e}")


def flow(count: int, end: float, device: str) -> None:
    """Trajectories per second of the Navier-Stokes preset."""
    family = load_family(
        CONFIGS / "navier-stokes-1e-5.yaml",
        [f"problem.time.end={end}", f"problem.time.frames={int(end) + 1}"],
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        manifest = generate(
            with_splits(family, count, count), folder, spec={}, versions={}, device=device
        )
        seconds = time.perf_counter() - start
    print("| Navier-Stokes, nu = 1e-5, 64 x 64 | trajectories | per second | rejected |")
    print("|---|---|---|---|")
    print(f"| T = {end:g}, {device} | {count} | {count / seconds:.3g} | {len(manifest.rejects)} |")


def fields(count: int) -> None:
    """Mean and covariance of many fields at chosen points, in standard errors of theory."""
    on = Grid((65, 65)).bind(Box((0.0, 0.0), (1.0, 1.0)))
    places = [(8, 8), (16, 40), (32, 32), (40, 16), (60, 50)]
    print(f"| {count} fields, 65 x 65, (-Lap + 9)^-2 | largest gap | in standard errors |")
    print("|---|---|---|")
    for kind in ("neumann", "dirichlet", "periodic"):
        values = np.concatenate(
            [
                gaussian_field(
                    [stream(0, i, "K") for i in range(start, min(start + 100, count))],
                    on, alpha=2.0, tau=3.0, scale=9.0, kind=kind,  # type: ignore[arg-type]
                )[:, [p[0] for p in places], [p[1] for p in places]].numpy()
                for start in range(0, count, 100)
            ]
        )  # fmt: skip
        points = [tuple(k / 64 for k in place) for place in places]
        theory = np.array(
            [
                [covariance(on, p, q, alpha=2.0, tau=3.0, scale=9.0, kind=kind) for q in points]  # type: ignore[arg-type]
                for p in points
            ]
        )
        spread = np.diag(theory)
        error = np.sqrt((spread[:, None] * spread + theory**2) / count)
        gap = np.abs(values.T @ values / count - theory)
        share = (gap / error).max()
        print(f"| {kind}, covariance | {gap.max():.2e} of {theory.max():.2e} | {share:.2f} |")
        mean = np.abs(values.mean(axis=0))
        share = (mean / np.sqrt(spread / count)).max()
        print(f"| {kind}, mean | {mean.max():.2e} | {share:.2f} |")


def victim(out: str) -> None:
    """What ``kills`` starts and kills: a small dataset."""
    family = with_splits(sized("darcy", 33), 60, 2)
    family = replace(family, dataset=replace(family.dataset, shapes=((33, 33), (17, 17))))
    torch.set_num_threads(1)
    family.draw(0, [0])
    print("ready", flush=True)
    generate(family, out, spec={}, versions={})


def kills(count: int) -> None:
    """``kill -9`` at random moments; the dataset is begun again whenever it is finished."""
    moments, lost, unreadable, finished, different, killed = random.Random(0), 0, 0, 0, 0, 0
    program = [sys.executable, str(Path(__file__).resolve()), "victim"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*program, f"{folder}/whole"], check=True, stdout=subprocess.DEVNULL)
        whole = _contents(Path(folder) / "whole")
        acknowledged: dict[str, str] = {}
        while killed < count:
            out = Path(folder) / f"{finished}"
            process = subprocess.Popen([*program, str(out)], stdout=subprocess.PIPE)
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(math.exp(moments.uniform(math.log(0.02), math.log(1.0))))
            except subprocess.TimeoutExpired:
                process.kill()
                killed += 1
            process.wait()
            manifest = read_manifest(out)
            if manifest is not None:
                try:
                    manifest.check(out)
                except ValueError:
                    unreadable += 1
                now = {entry.path: entry.sha256 for entry in manifest.shards}
                lost += not acknowledged.items() <= now.items()
                acknowledged = now
            if process.returncode == 0:
                different += _contents(out) != whole
                finished, acknowledged = finished + 1, {}
        subprocess.run([*program, str(Path(folder) / f"{finished}")], check=True, stdout=-3)
        different += _contents(Path(folder) / f"{finished}") != whole
    print("| kills | datasets finished after them | differ in a byte | shards lost | damaged |")
    print("|---|---|---|---|---|")
    print(f"| {killed} | {finished + 1} | {different} | {lost} | {unreadable} |")


def _contents(folder: Path) -> Mapping[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def main() -> None:
    """Read the command line and run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("darcy", "flow", "fields", "kills", "victim"))
    parser.add_argument("out", nargs="?")
    parser.add_argument("--shape", type=int, default=421)
    parser.add_argument("--count", type=int)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--end", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    if given.suite == "darcy":
        darcy(given.shape, given.count or 120, given.workers, given.device, given.rounds)
    elif given.suite == "flow":
        flow(given.count or 4, given.end, given.device)
    elif given.suite == "fields":
        fields(given.count or 10_000)
    elif given.suite == "kills":
        kills(given.count or 100)
    else:
        victim(given.out)


if __name__ == "__main__":
    main()
