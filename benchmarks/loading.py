"""Reading and writing of datasets measured: OMP_NUM_THREADS=1 python benchmarks/loading.py FOLDER.

Datasets of random numbers with one input and one output, 64^2 and 421^2, are made in FOLDER where
they are missing. Samples are read in random order from the page cache; each figure is the best of
several passes, taken in turn.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from sciml.core.problem.grid import SIDES
from sciml.datasets.loader import OperatorData
from sciml.datasets.statistics import Normaliser, write_statistics
from sciml.datasets.store import Entry, Manifest, Shard, digest, write_shard

CASES = ((64, 4000, 500), (421, 200, 50))  # points along a side, samples, samples per shard
PASSES = 5


def make(folder: Path, points: int, samples: int, per_shard: int) -> float:
    """Write a dataset; the seconds it took per byte of its fields."""
    generator = np.random.default_rng(points)
    axis = np.linspace(0, 1, points)
    entries, seconds = [], 0.0
    for k in range(samples // per_shard):
        shape = (per_shard, points, points)
        a = generator.normal(size=shape).astype(np.float32)
        shard = Shard(
            name="numbers",
            fields={"a": a, "u": -a[:, None]},
            constant=("a",),
            scalars={},
            time=np.zeros(1),
            axes=(axis, axis),
            boundary={side: "dirichlet" for pair in SIDES[:2] for side in pair},
            indices=np.arange(k * per_shard, (k + 1) * per_shard),
            residuals=np.zeros(per_shard),
            inputs=("a",),
            outputs=("u",),
        )
        path = f"data/train/{k:05d}.hdf5"
        start = time.perf_counter()
        value = write_shard(folder / path, shard)
        seconds += time.perf_counter() - start
        entries.append(Entry(path, "train", per_shard, value))
    Manifest({}, {}, entries).write(folder)
    write_statistics(folder, "train")
    return seconds / (8 * samples * points**2)


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def drain(items: Iterable[object]) -> None:
    for _ in items:
        pass


def measure(folder: Path, points: int) -> None:
    plain = OperatorData(folder, "train")
    scaled = OperatorData(folder, "train", normaliser=Normaliser.read(folder))
    order = np.random.default_rng(0).permutation(len(plain)).tolist()
    single = DataLoader(scaled, batch_size=16, shuffle=True)
    spawned = DataLoader(
        scaled, batch_size=16, shuffle=True, num_workers=2, multiprocessing_context="spawn",
        persistent_workers=True,
    )  # fmt: skip
    drain(spawned)  # starts the workers
    work: dict[str, Callable[[], None]] = {
        "samples": lambda: drain(plain[i] for i in order),
        "samples, normalised": lambda: drain(scaled[i] for i in order),
        "batches of 16, normalised": lambda: drain(single),
        "batches of 16, two spawned workers": lambda: drain(spawned),
        "whole files, hashed": lambda: drain(digest(path) for path in plain.reader.paths),
    }
    best = dict.fromkeys(work, float("inf"))
    for _ in range(PASSES):
        for name, run in work.items():
            best[name] = min(best[name], timed(run))
    size = 8e-6 * len(plain) * points**2
    for name, seconds in best.items():
        rate, speed = len(plain) / seconds, size / seconds
        print(f"| {points}^2 | {name} | {rate:,.0f} | {speed:,.0f} |", flush=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print("| grid | read | samples/s | MB/s |\n|---|---|---|---|")
    for points, samples, per_shard in CASES:
        folder = place / str(points)
        if not (folder / "manifest.json").is_file():
            cost = make(folder, points, samples, per_shard)
            print(f"| {points}^2 | written, hashed, flushed | | {1e-6 / cost:,.0f} |")
        measure(folder, points)
