"""Small shards and datasets of numbers that are known in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sciml.core.problem.grid import SIDES
from sciml.datasets.statistics import write_statistics
from sciml.datasets.store import Entry, Manifest, Shard, write_shard


def shard(
    samples: int = 3,
    grid: tuple[int, ...] = (9, 5),
    frames: int = 1,
    first: int = 0,
    vectors: bool = False,
    hole: bool = False,
) -> Shard:
    """Constant input a, output u in time, parameter nu, and, where asked for, a velocity."""
    d = len(grid)
    generator = np.random.default_rng((7, first))
    u = generator.normal(size=(samples, frames, *grid))
    if hole:
        u[(..., *(n // 2 for n in grid))] = np.nan
    fields = {"a": 3 + generator.normal(size=(samples, *grid)), "u": u}
    if vectors:
        fields["velocity"] = generator.normal(size=(samples, frames, *grid, d)) * np.arange(
            1, d + 1
        )
    return Shard(
        name="Darcy",
        fields=fields,
        constant=("a",),
        scalars={"nu": generator.uniform(size=samples)},
        time=np.linspace(0, 1, frames) if frames > 1 else np.zeros(1),
        axes=tuple(np.linspace(0, 1 + axis, n) for axis, n in enumerate(grid)),
        boundary={side: "dirichlet" for pair in SIDES[:d] for side in pair},
        indices=np.arange(first, first + samples),
        residuals=np.full(samples, 1e-9),
        inputs=("a",),
        outputs=("u",),
    )


def dataset(folder: Path, sizes: tuple[int, ...] = (3, 2), **options: object) -> list[Shard]:
    """A dataset whose split train has shards of these sizes and test one of two samples."""
    shards, entries, first = [], [], 0
    for number, size in enumerate((*sizes, 2)):
        split = "train" if number < len(sizes) else "test"
        path = f"data/{split}/{number:05d}.hdf5"
        part = shard(size, first=first, **options)  # type: ignore[arg-type]
        entries.append(Entry(path, split, size, write_shard(folder / path, part)))
        shards.append(part)
        first += size
    Manifest({"dataset": {"name": "darcy"}}, {"sciml": "0"}, entries).write(folder)
    write_statistics(folder, "train")
    return shards
