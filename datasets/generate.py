"""Datasets from families: problems drawn, solved, checked, and stored shard by shard.

Shard k of a split tries the samples k m ... (k + 1) m - 1 of that split. A sample is its seed and
its number and nothing else, and shards share nothing, so that any number of processes in any order
makes the same files. What has not converged is left out, counted and named; further shards try as
many further samples, until the split is full.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.solution import Solution
from sciml.core.solve import solve
from sciml.datasets.distributions import SCALARS
from sciml.datasets.family import Family
from sciml.datasets.statistics import write_statistics
from sciml.datasets.store import Entry, Manifest, Shard, read_manifest, write_shard

SPLITS = ("train", "valid", "test")
_APART = 1_000_000_000  # sample numbers of the splits lie this far apart
_BATCH_UNKNOWNS = 20_000  # on a CPU larger batches leave the cache and gain nothing
_PATIENCE = 20  # rejects before a family with more rejects than samples is given up

# progress(samples stored, samples wanted, rejects)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class Task:
    """One shard to make: its split, its number, and the samples it tries."""

    split: str
    number: int
    first: int
    count: int

    @property
    def file(self) -> str:
        """Its path within a dataset's folder."""
        return f"data/{self.split}/{self.number:05d}.hdf5"

    @property
    def indices(self) -> range:
        """The numbers of its samples."""
        start = SPLITS.index(self.split) * _APART + self.first
        return range(start, start + self.count)


@dataclass(frozen=True)
class Outcome:
    """What became of a task: entries of its files, samples stored, rejects and why."""

    task: Task
    entries: tuple[Entry, ...]
    stored: int
    rejects: Mapping[str, str]


def generate(
    family: Family,
    out: str | Path,
    *,
    spec: Mapping[str, Any],
    versions: Mapping[str, str],
    engine: str = "local",
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Manifest:
    """Make, or go on making, the dataset of ``family`` in the folder ``out``.

    ``spec``: the family as plain data, which an existing dataset must agree with. ``engine``:
    ``local`` (``workers`` processes; 1 is this one), ``dask://host:port`` or ``mpi``. Raises
    InputError for a foreign dataset, too little disk, or a family that does not converge.
    """
    out = Path(out)
    manifest = _opened(out, spec, versions)
    check_shapes(family)
    _check_disk(family, out, manifest)
    done = {entry.path: entry.samples for entry in manifest.shards}
    total = sum(family.dataset.splits.values())
    with _executor(engine, workers) as pool:
        for split, wanted in family.dataset.splits.items():
            for outcome in _fill(family, split, wanted, done, pool, out, device):
                _acknowledge(manifest, outcome, out)
                done = {entry.path: entry.samples for entry in manifest.shards}
                _give_up(manifest, done)
                if progress is not None:
                    progress(_stored(done), total, len(manifest.rejects))
    write_statistics(out, "train" if "train" in family.dataset.splits else next(iter(SPLITS)))
    return manifest


def _stored(done: Mapping[str, int]) -> int:
    return sum(count for path, count in done.items() if path.startswith("data/"))


def _fill(
    family: Family,
    split: str,
    wanted: int,
    done: Mapping[str, int],
    pool: Executor | None,
    out: Path,
    device: str,
) -> Iterator[Outcome]:
    """Outcomes of the tasks of one split, until it is full."""
    size, known = family.dataset.shard, dict(done)
    first = number = 0
    missing = wanted
    while missing > 0:
        counts = [size] * (missing // size) + ([missing % size] if missing % size else [])
        tasks = []
        for count in counts:
            tasks.append(Task(split, number, first, count))
            first, number = first + count, number + 1
        todo = [task for task in tasks if task.file not in known]
        for outcome in _run(todo, family, pool, out, device):
            known[outcome.task.file] = outcome.stored
            yield outcome
        missing -= sum(known[task.file] for task in tasks)


def _run(
    tasks: Sequence[Task], family: Family, pool: Executor | None, out: Path, device: str
) -> Iterator[Outcome]:
    if pool is None:
        for task in tasks:
            yield make_shard(family, task, out, device)
        return
    waiting: set[Future[Outcome]] = {
        pool.submit(make_shard, family, task, out, device) for task in tasks
    }
    try:
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        for future in waiting:
            future.cancel()


def _acknowledge(manifest: Manifest, outcome: Outcome, out: Path) -> None:
    manifest.shards = sorted([*manifest.shards, *outcome.entries], key=lambda entry: entry.path)
    manifest.rejects = dict(sorted({**manifest.rejects, **outcome.rejects}.items()))
    manifest.write(out)


def _give_up(manifest: Manifest, done: Mapping[str, int]) -> None:
    rejects = manifest.rejects
    if len(rejects) >= _PATIENCE and len(rejects) > _stored(done):
        reasons = sorted(set(rejects.values()), key=list(rejects.values()).count)
        raise InputError(
            f"{len(rejects)} of the first {len(rejects) + _stored(done)} samples did not converge "
            f"({reasons[-1]}); change the family or its solver",
            "solver",
        )


def make_shard(family: Family, task: Task, out: Path, device: str = "cpu") -> Outcome:
    """Draw, solve and check the samples of one task, and write them at every resolution."""
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
    parts, rejects = [], {}
    step = max(1, _BATCH_UNKNOWNS // prod(family.on.shape)) if device == "cpu" else task.count
    step = 1 if family.problem.obstacle is not None else step
    for start in range(0, task.count, step):
        indices = list(task.indices[start : start + step])
        drawn = family.draw(family.dataset.seed, indices, device)
        solution = solve(family.problems(drawn), family.solver, on=family.on, throw=False)
        kept = [k for k, status in enumerate(solution.statuses) if status.success]
        for k, status in enumerate(solution.statuses):
            if not status.success:
                rejects[str(indices[k])] = status.name.lower()
        if kept:
            parts.append(_samples(family, drawn, solution, indices, kept))
    entries = tuple(_write(family, task, out, parts)) if parts else ()
    stored = entries[0].samples if entries else 0
    if not entries:
        entries = (Entry(task.file, task.split, 0, ""),)
    return Outcome(task, entries, stored, rejects)


def _samples(
    family: Family,
    drawn: Mapping[str, torch.Tensor],
    solution: Solution,
    indices: Sequence[int],
    kept: Sequence[int],
) -> Shard:
    """The accepted samples of one batch, on the grid they were solved on."""
    lead = len(indices)
    d = len(family.on.shape)
    value = solution.value.cpu()
    if solution.residual.ndim == 0:
        value = value[None]
    if solution.times is None:
        value = value.unsqueeze(1)
    if len(solution.fields) == 1:
        value = value.unsqueeze(-d - 1)
    fields: dict[str, np.ndarray] = {}
    scalars: dict[str, np.ndarray] = {}
    places = family.places
    for name, place in family.inputs.items():
        part = drawn[place].cpu().numpy()[list(kept)]
        (scalars if isinstance(places[place], SCALARS) else fields)[name] = part
    constant = tuple(fields)
    for k, name in enumerate(solution.fields):
        fields[name] = value.select(-d - 1, k).numpy()[list(kept)]
    times = torch.zeros(1) if solution.times is None else solution.times.cpu()
    return Shard(
        name=family.dataset.name or family.problem.name,
        fields=fields,
        constant=constant,
        scalars=scalars,
        time=times.numpy(),
        axes=tuple(axis.numpy() for axis in family.on.axes()),
        boundary={side: c.kind for side, c in family.problem.boundary.items()},
        indices=np.array([indices[k] for k in kept]),
        residuals=solution.residual.reshape(lead).cpu().numpy()[list(kept)],
        inputs=tuple(family.inputs),
        outputs=solution.fields,
    )


def _write(family: Family, task: Task, out: Path, parts: Sequence[Shard]) -> Iterator[Entry]:
    whole = _joined(parts)
    for shape in shapes(family):
        reduced = _subsampled(whole, family.on, shape)
        folder = "" if shape == shapes(family)[0] else f"at-{'x'.join(map(str, shape))}/"
        value = write_shard(out / folder / task.file, reduced)
        yield Entry(folder + task.file, task.split, whole.samples, value)


def _joined(parts: Sequence[Shard]) -> Shard:
    first = parts[0]
    return dataclasses.replace(
        first,
        fields={n: np.concatenate([p.fields[n] for p in parts]) for n in first.fields},
        scalars={n: np.concatenate([p.scalars[n] for p in parts]) for n in first.scalars},
        indices=np.concatenate([p.indices for p in parts]),
        residuals=np.concatenate([p.residuals for p in parts]),
    )


def shapes(family: Family) -> tuple[tuple[int, ...], ...]:
    """The resolutions to store, the first of them in the dataset's own folder."""
    return family.dataset.shapes or (family.on.shape,)


def check_shapes(family: Family) -> None:
    """Raise InputError for a resolution that the grid's points do not contain."""
    for position, shape in enumerate(shapes(family)):
        if len(shape) != len(family.on.shape) or any(
            _stride(n, m, family.on) is None for n, m in zip(family.on.shape, shape, strict=True)
        ):
            raise InputError(
                f"{list(shape)} is no resolution within {list(family.on.shape)}: "
                + (
                    "each number less one must divide the grid's less one"
                    if family.on.centring == "node"
                    else "the grid must have an odd multiple of its cells"
                ),
                f"dataset.shapes.{position}",
            )


def _stride(points: int, wanted: int, on: Grid) -> int | None:
    if on.centring == "node":
        stride, rest = divmod(points - 1, max(wanted - 1, 1))
        return stride if rest == 0 and stride > 0 else None
    stride, rest = divmod(points, max(wanted, 1))
    return stride if rest == 0 and stride % 2 == 1 else None


def _subsampled(shard: Shard, on: Grid, shape: tuple[int, ...]) -> Shard:
    """Every so many points: nodes of the coarse grid, or centres of its cells."""
    strides = [_stride(n, m, on) or 1 for n, m in zip(on.shape, shape, strict=True)]
    first = [0 if on.centring == "node" else s // 2 for s in strides]
    cut = tuple(slice(f, None, s) for f, s in zip(first, strides, strict=True))
    key: Any = (..., *cut)
    return dataclasses.replace(
        shard,
        fields={n: v[key] for n, v in shard.fields.items()},
        axes=tuple(axis[c] for axis, c in zip(shard.axes, cut, strict=True)),
    )


def _opened(out: Path, spec: Mapping[str, Any], versions: Mapping[str, str]) -> Manifest:
    found = read_manifest(out)
    if found is None:
        return Manifest(spec, versions)
    if found.spec != spec:
        keys = ", ".join(_differences(found.spec, spec)) or "its form"
        raise InputError(
            f"'{out}' holds a dataset of another spec; it differs in {keys}. Name another folder"
        )
    return found


def _differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}, key=str):
            below = f"{key}.{name}" if key else str(name)
            yield from _differences(old.get(name), new.get(name), below)
    elif old != new:
        yield key


def _check_disk(family: Family, out: Path, manifest: Manifest) -> None:
    """Raise InputError where what is still to be stored does not fit on the disk."""
    frames = 1 if family.problem.time is None else family.problem.time.frames
    fields = frames + sum(not isinstance(d, SCALARS) for d in family.places.values())
    missing = sum(family.dataset.splits.values())
    missing -= sum(e.samples for e in manifest.shards if e.path.startswith("data/"))
    wanted = 4 * max(missing, 0) * fields * sum(prod(shape) for shape in shapes(family))
    out.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out).free
    if wanted > free:
        raise InputError(
            f"the dataset needs about {wanted / 1e9:.3g} GB and '{out}' has {free / 1e9:.3g} GB "
            "free; store fewer samples or resolutions"
        )


@contextmanager
def _executor(engine: str, workers: int) -> Iterator[Executor | None]:
    """An executor of the standard library's kind; None runs in this process."""
    if engine == "local" and workers == 1:
        yield None
    elif engine == "local":
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            yield pool
    elif engine.startswith("dask://"):
        with _dask(engine) as pool:
            yield pool
    elif engine == "mpi":
        with _mpi() as pool:
            yield pool
    else:
        raise InputError(f"unknown engine '{engine}'; write local, dask://host:port or mpi")


@contextmanager
def _dask(engine: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--engine dask:// needs pip install distributed") from None
    with Client("tcp://" + engine.removeprefix("dask://")) as client:
        yield client.get_executor()


@contextmanager
def _mpi() -> Iterator[Executor]:
    try:
        from mpi4py.futures import MPIPoolExecutor
    except ImportError:
        raise InputError("--engine mpi needs pip install mpi4py") from None
    with MPIPoolExecutor() as pool:
        yield pool
