"""Datasets from families: problems drawn, solved, checked, and stored shard by shard.

Shard k of a split tries the samples k m ... (k + 1) m - 1 of that split. A sample is its seed and
its number and nothing else, and shards share nothing, so that any number of processes in any order
makes the same files. What has not converged is left out, counted and named; further shards try as
many further samples, until the split is full.

A shard is acknowledged by its entry in the manifest, with its hash, once it is on the disk. So a
process may die at any moment: what is acknowledged stays, what is not is made again, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from sciml.core.disk import claimed, digest, remove_litter
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh
from sciml.core.run.serialise import differences
from sciml.datasets.distributions import SCALARS
from sciml.datasets.family import Family
from sciml.datasets.samples import (
    attempt,
    check_shapes,
    check_yield,
    numbers,
    shapes,
    subsampled,
)
from sciml.datasets.statistics import write_statistics
from sciml.datasets.store import (
    Entry,
    Manifest,
    Unstructured,
    read_manifest,
    read_shard,
    write_shard,
)

# progress(samples stored, samples wanted, rejects)
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: its split, its number, and the samples it tries."""

    split: str
    number: int
    first: int
    count: int

    @property
    def file(self) -> str:
        """Its path within a dataset's folder."""
        return f"data/{self.split}/{self.number:05d}.hdf5"


@dataclass(frozen=True)
class ShardOutcome:
    """What became of a task: entries of its files, samples stored, rejects and why."""

    task: ShardTask
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
    InputError for a foreign dataset, a disk too small or failing, or a family that does not
    converge: more rejects than samples, and 20 at least.
    """
    out = Path(out)
    check_shapes(family)
    total = sum(family.dataset.splits.values())
    with claimed(out, "making the dataset in"):
        manifest = _opened(out, spec, versions)
        _check_mesh(family, out, manifest)
        _check_disk(family, out, manifest)
        with _writing(out):
            manifest.write(out)
            remove_litter(out.rglob(".*"))
        _report(manifest, total, progress)
        with executor(engine, workers) as pool:
            for split, wanted in family.dataset.splits.items():
                for outcome in _fill(family, split, wanted, manifest, pool, out, device):
                    with _writing(out):
                        _acknowledge(manifest, outcome, out)
                    _report(manifest, total, progress)
        with _writing(out):
            write_statistics(out, next(iter(family.dataset.splits)))
    return manifest


def count_stored(manifest: Manifest) -> int:
    """How many samples are stored, each counted once whatever the resolutions."""
    return sum(entry.samples for entry in manifest.shards if entry.path.startswith("data/"))


def _report(manifest: Manifest, total: int, progress: Progress | None) -> None:
    """Tell how far it is; raises InputError where it leads nowhere."""
    stored = count_stored(manifest)
    check_yield(manifest.rejects, stored)
    if progress is not None:
        progress(stored, total, len(manifest.rejects))


def _fill(
    family: Family,
    split: str,
    wanted: int,
    manifest: Manifest,
    pool: Executor | None,
    out: Path,
    device: str,
) -> Iterator[ShardOutcome]:
    """Outcomes of the tasks of one split, until it is full."""
    size = family.dataset.shard
    known = {entry.path: entry.samples for entry in manifest.shards}
    first = number = 0
    missing = wanted
    while missing > 0:
        counts = [size] * (missing // size) + ([missing % size] if missing % size else [])
        tasks = []
        for count in counts:
            tasks.append(ShardTask(split, number, first, count))
            first, number = first + count, number + 1
        todo = [task for task in tasks if task.file not in known]
        for outcome in _run(todo, family, pool, out, device):
            known[outcome.task.file] = outcome.stored
            yield outcome
        missing -= sum(known[task.file] for task in tasks)


def _run(
    tasks: Sequence[ShardTask], family: Family, pool: Executor | None, out: Path, device: str
) -> Iterator[ShardOutcome]:
    if pool is None:
        for task in tasks:
            yield make_shard(family, task, out, device)
        return
    waiting: set[Future[ShardOutcome]] = {
        pool.submit(make_shard, family, task, out, device) for task in tasks
    }
    try:
        while waiting:
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenExecutor:
        raise InputError(
            "a worker was killed, perhaps for want of memory; the finished shards are intact: run "
            "the same command again, with fewer workers"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


def make_shard(family: Family, task: ShardTask, out: Path, device: str = "cpu") -> ShardOutcome:
    """Draw, solve and check the samples of one task, and write them at every resolution."""
    seed, indices = family.dataset.seed, numbers(task.split, task.first, task.count)
    with _one_thread(device):
        found = attempt(family, seed, indices, device)
    rejects = {str(index): reason for index, reason in found.rejects.items()}
    whole = found.accepted
    if whole is None:
        return ShardOutcome(task, (Entry(task.file, task.split, 0, ""),), 0, rejects)
    entries = []
    for shape in shapes(family):
        folder = "" if shape == shapes(family)[0] else f"at-{'x'.join(map(str, shape))}/"
        path = out / folder / task.file
        with _writing(path):
            value = write_shard(path, subsampled(whole, family.on, shape))
        entries.append(Entry(folder + task.file, task.split, whole.samples, value))
    return ShardOutcome(task, tuple(entries), whole.samples, rejects)


@contextmanager
def _one_thread(device: str) -> Iterator[None]:
    """One on a CPU, where processes share the cores and sums must not depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device == "cpu" else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns a failing disk into an InputError that names ``path``."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot write '{path}': {reason}; the finished shards are intact: run the same "
            "command again to go on"
        ) from None


def _acknowledge(manifest: Manifest, outcome: ShardOutcome, out: Path) -> None:
    manifest.shards = sorted([*manifest.shards, *outcome.entries], key=lambda entry: entry.path)
    manifest.rejects = dict(sorted({**manifest.rejects, **outcome.rejects}.items()))
    manifest.write(out)


def _opened(out: Path, spec: Mapping[str, Any], versions: Mapping[str, str]) -> Manifest:
    """The manifest, without the shards that are gone or damaged; they are made again."""
    manifest = read_manifest(out)
    if manifest is None and (out / "data").exists():
        raise InputError(f"'{out}' has data without a manifest; name another folder")
    if manifest is None:
        return Manifest(spec, versions)
    if manifest.spec != spec:
        keys = ", ".join(key for key, _, _ in differences(manifest.spec, spec)) or "its form"
        raise InputError(
            f"'{out}' holds a dataset of another spec; it differs in {keys}. Name another folder"
        )
    lost = {_task(entry) for entry in manifest.shards if not _intact(out, entry)}
    manifest.shards = [entry for entry in manifest.shards if _task(entry) not in lost]
    return manifest


def _check_mesh(family: Family, out: Path, manifest: Manifest) -> None:
    """Raise InputError where what is stored is on another mesh: its file, or Gmsh, has changed."""
    stored = next((entry for entry in manifest.shards if entry.samples), None)
    if stored is None or not isinstance(family.on, Mesh):
        return
    found = read_shard(out / stored.path).mesh
    if found is None or not found.same(Unstructured.of(family.on)):
        raise InputError(
            f"'{out}' holds a dataset on another mesh; the same file, or the same version of Gmsh, "
            "goes on with it. Name another folder",
            "mesh" if family.mesh else "geometry",
        )


def _task(entry: Entry) -> str:
    """What the files of one task at all resolutions have in common."""
    return entry.path[entry.path.index("data/") :]


def _intact(out: Path, entry: Entry) -> bool:
    path = out / entry.path
    return not entry.samples or (path.is_file() and digest(path) == entry.sha256)


def _check_disk(family: Family, out: Path, manifest: Manifest) -> None:
    """Raise InputError where what is still to be stored does not fit on the disk."""
    problem = family.problem
    frames = 1 if problem.time is None else problem.time.frames
    inputs = sum(not isinstance(family.places[p], SCALARS) for p in family.inputs.values())
    fields = frames * _outputs(family) + inputs
    missing = sum(family.dataset.splits.values()) - count_stored(manifest)
    wanted = 4 * missing * fields * sum(prod(shape) for shape in shapes(family))
    free = shutil.disk_usage(out).free
    if wanted > free:
        raise InputError(
            f"the dataset needs about {wanted / 1e9:.3g} GB and '{out}' has {free / 1e9:.3g} GB "
            "free; store fewer samples or resolutions"
        )


def _outputs(family: Family) -> int:
    """How many real fields a solution has."""
    equation, on = family.problem.equation, family.on
    dimension = on.dimension if isinstance(on, Mesh) else family.problem.box.dimension
    count = len(equation.fields(dimension, family.problem.first))
    return 2 * count if equation.complex else count


# Where shards are made: executors of the standard library's kind; nothing here schedules.


@contextmanager
def executor(engine: str, workers: int) -> Iterator[Executor | None]:
    """``local``, ``dask://host:port`` or ``mpi``; None stands for this process.

    Raises InputError for another engine, or one whose package is missing.
    """
    if engine == "local" and workers == 1:
        yield None
    elif engine == "local":
        others = set(active_children())
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_attend) as pool:
            try:
                yield pool
            except KeyboardInterrupt:
                for worker in set(active_children()) - others:
                    worker.terminate()
                raise
    elif engine.startswith("dask://"):
        with _dask(engine) as pool:
            yield pool
    elif engine == "mpi":
        with _mpi() as pool:
            yield pool
    else:
        raise InputError(f"unknown engine '{engine}'; write local, dask://host:port or mpi")


def _attend() -> None:
    """A worker dies with its parent, which may be killed, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


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
