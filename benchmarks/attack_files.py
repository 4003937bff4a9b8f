"""Files of ours attacked: single bits flipped, two writers in one folder, a disk that is full.

    python benchmarks/attack_files.py [--flips 100] [--seed 0] [--journal FILE]

Of every kind of file that is read back one is written, then so many times one bit of it is flipped
and the file is read again. *Silently wrong*: it is read, and what was read differs from what was
written. *Traceback*: anything but one line. *Lost*: a run whose answer was computed and is on no
disk. A case that the journal has is not tried again.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attack import ANSWERED, LOST, REFUSED, TRACEBACK, WRONG, Journal

from sciml.app import record
from sciml.core.disk import GrowingFile, vouched
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import FieldFile
from sciml.core.problem.reader import load
from sciml.core.run.files import load_fields, save_solution
from sciml.core.run.frames import Frames
from sciml.core.run.solution import Solution, Statistics, load_solution
from sciml.core.run.status import Status
from sciml.core.run.training_run import CHECKPOINT
from sciml.core.run.weights import FILE, read_file
from sciml.datasets.loader import OperatorData
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import read_manifest
from sciml.operators import MgNO
from sciml.operators.checkpoint import load_operator
from sciml.operators.operator import Signature
from sciml.solvers.learned.weights import read_stored, shipped
from sciml.training import TensorData, Training, TrainingData, fit

ROOT = Path(__file__).resolve().parents[1]
TIMES = (0.0, 0.5, 1.0, 1.5)
FLIPPED, CROWDED, FULL = "files, one bit flipped: ", "files, two writers", "files, a full disk"
LIMITS = (0, 20_000, 200_000)  # bytes
ROWS = ["t,u\r\n", *(f"{k / 8},{k**0.5}\r\n" for k in range(9))]
# What is not there of them is made again; what is there must be right.
GROWING = ("frames.h5", "probes.csv", "probes.csv.sha256")

Reader = Callable[[], Any]


def sciml(*words: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which may write files of ``limit`` bytes at most."""

    def narrow() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.run(
        [sys.executable, "-m", "sciml.app.cli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        preexec_fn=narrow,
    )


def same(a: Any, b: Any) -> bool:
    """Whether two things that were read are equal, arrays by every value."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def of_solution(path: Path) -> Any:
    found = load_solution(path)
    return (found.value, found.residual, found.stats.residuals, found.fields, str(found.on),
            [s.name for s in found.statuses], load_fields(path))  # fmt: skip


def of_frames(path: Path) -> Any:
    """The first frame that is there; fewer of them are computed again, and no fault."""
    found = Frames(TIMES, path, "one")
    return [torch.equal(u[0], frame(k)[0]) for k, u in enumerate(found.states)] or [True]


def frame(k: int) -> tuple[torch.Tensor, ...]:
    u = torch.arange(600, dtype=torch.float64).reshape(20, 30) + k
    return u, u.sin()


def written(folder: Path) -> dict[str, tuple[Path, Reader]]:
    """One file of every kind, and how it is read."""
    draw = torch.Generator().manual_seed(0)
    grid = Grid((20, 30), "node", Box((0.0, 0.0), (1.0, 1.0)))
    value = torch.rand(grid.shape, generator=draw, dtype=torch.float64)
    stats = Statistics(torch.tensor(3), torch.rand(4).double(), 0.1, 0.2)
    residual = torch.tensor(1e-9, dtype=torch.float64)
    solution = Solution(value, residual, (Status.CONVERGED,), stats, grid, "CG", ("a note",))
    save_solution(solution, folder / "grid", {"K": value + 1})
    axis = np.linspace(0, 1, 9)
    points = np.stack([a.ravel() for a in np.meshgrid(axis, axis, indexing="ij")], axis=1)
    index = np.arange(81).reshape(9, 9)
    low = np.stack([index[:-1, :-1], index[1:, :-1], index[1:, 1:]], axis=-1).reshape(-1, 3)
    high = np.stack([index[:-1, :-1], index[1:, 1:], index[:-1, 1:]], axis=-1).reshape(-1, 3)
    mesh = Mesh(points, np.concatenate([low, high]))
    on_mesh = Solution(value.flatten()[:81], residual, (Status.CONVERGED,), stats, mesh, "CG")
    save_solution(on_mesh, folder / "mesh")
    frames = Frames(TIMES, folder / "frames.h5", "one")
    for k in range(3):
        frames.append(*frame(k))
    del frames
    table = GrowingFile(folder / "probes.csv", "[]", ROWS[0])
    for row in ROWS[1:]:
        table.append(row)
    table.close()
    spec, small = ROOT / "configs" / "poisson.yaml", ("--set", "grid.shape=[9,9]")
    assert sciml("solve", spec, *small, "--out", folder / "run").returncode == 0
    family = ROOT / "configs" / "datasets" / "darcy.yaml"
    made = sciml("generate", family, "--count", "10", "--out", folder / "data", *small,
                 "--set", "dataset.shapes=[]")  # fmt: skip
    assert made.returncode == 0, made.stderr
    x = torch.rand(8, 1, 17, generator=draw)
    signature = Signature(("a",), ("u",), Grid((17,), "node", Box((0.0,), (1.0,))), ("dirichlet",))
    data = TrainingData(TensorData(x, x), TensorData(x, x), signature, name="x")
    fit(MgNO(width=4, layers=1, levels=2), data, Training(epochs=2, batch=8), folder / "operator")
    net = folder / "operator"
    weights = folder / FILE
    source = next(iter(shipped().values()))
    shutil.copyfile(source, weights)
    kind = _kind(weights)
    shard = next((folder / "data" / "data" / "train").glob("*.hdf5"))

    def operator() -> Any:
        found = load_operator(net)
        return {**found.state_dict()}, str(found.options), str(found.signature)

    def samples() -> Any:
        found = OperatorData(folder / "data", "train")
        return [(found[k]["x"], found[k]["y"]) for k in range(len(found))], found.input_channels

    def stored(path: Path, kind: str) -> Any:
        found = read_file(path, kind) if path.name == CHECKPOINT else read_stored(path, kind)
        return found.tensors, found.options, found.provenance

    def manifest() -> Any:
        found = read_manifest(folder / "data")
        return None if found is None else vars(found)

    def normaliser() -> Any:
        return vars(Normaliser.read(folder / "data"))

    def cells() -> Any:
        found = read_mesh(folder / "mesh" / "solution.vtu")
        return found.points, found.cells

    on_grid, on_cells = folder / "grid" / "solution.h5", folder / "mesh" / "solution.h5"
    state, run = net / CHECKPOINT, folder / "run"
    sums = folder / "probes.csv.sha256"
    kinds: dict[str, tuple[Path, Reader]] = {
        "solution.h5 on a grid": (on_grid, lambda: of_solution(on_grid)),
        "solution.h5 on a mesh": (on_cells, lambda: of_solution(on_cells)),
        "solution.h5 as a field": (on_grid, lambda: load(FieldFile(str(on_grid), "u"), "K")),
        "solution.vtu as a mesh": (folder / "mesh" / "solution.vtu", cells),
        "frames.h5": (folder / "frames.h5", lambda: of_frames(folder / "frames.h5")),
        "run.json": (run / record.FILE, lambda: record.read(run, record.RUN)),
        "checkpoint.safetensors": (state, lambda: stored(state, "training run")),
        "an operator's weights": (net / FILE, operator),
        "a preconditioner's weights": (weights, lambda: stored(weights, kind)),
        "a dataset's shard": (shard, samples),
        "manifest.json": (folder / "data" / "manifest.json", manifest),
        "stats.yaml": (folder / "data" / "stats.yaml", normaliser),
        "probes.csv": (folder / "probes.csv", lambda: of_table(folder / "probes.csv")),
        "probes.csv.sha256": (sums, lambda: of_table(folder / "probes.csv")),
    }  # fmt: skip
    return kinds


def _kind(path: Path) -> str:
    """What kind of weights a file says that it holds."""
    try:
        read_stored(path, "")
    except InputError as error:
        return error.message.split("of kind '")[1].split("'")[0]
    raise AssertionError("a file of no kind")


def of_table(path: Path) -> list[bool]:
    """Whether what is believed of a table is what was written, as far as it goes."""
    return ["".join(ROWS).startswith(vouched(path)[1])]


def read_again(read: Reader, before: Any, grows: bool) -> tuple[str, str]:
    """How the reading of a damaged file ends, and why."""
    try:
        now = read()
    except InputError as error:
        text = str(error)
        return (TRACEBACK, repr(text)) if "\n" in text else (REFUSED, text)
    except Exception:
        return TRACEBACK, traceback.format_exc()[-600:]
    good = all(now) if grows else same(before, now)
    return (ANSWERED, "") if good else (WRONG, "what was read is not what was written")


def flipped(folder: Path, flips: int, seed: int, journal: Journal) -> None:
    """So many flips of every kind of file."""
    done = journal.done()
    for kind, (name, (path, read)) in enumerate(written(folder).items()):
        family, before = FLIPPED + name, read()
        whole = path.read_bytes()
        for number in range(flips):
            case, begin = f"{seed}-{number}", time.perf_counter()
            if (family, case) in done:
                continue
            rng, data = np.random.default_rng((seed, kind, number)), bytearray(whole)
            place, bit = int(rng.integers(len(data))), int(rng.integers(8))
            data[place] ^= 1 << bit
            path.write_bytes(data)
            found, why = read_again(read, before, name in GROWING)
            at = f"bit {bit} of byte {place} of {len(data)}"
            journal.add(family, case, found, at=at, why=why, seconds=time.perf_counter() - begin)
        path.write_bytes(whole)


def crowded(folder: Path, journal: Journal) -> None:
    """Pairs of commands at once in one folder: one is refused by name, or both are whole."""
    small = ("--set", "grid.shape=[33,33]", "--set", "dataset.shapes=[]")
    commands: dict[str, tuple[Any, ...]] = {
        "solve": (ROOT / "configs" / "heat.yaml",),
        "generate": (ROOT / "configs" / "datasets" / "darcy.yaml", "--count", "20", *small),
    }
    for verb, words in commands.items():
        if (CROWDED, verb) in journal.done():
            continue
        line = [sys.executable, "-m", "sciml.app.cli", verb, *map(str, words),
                "--out", str(folder / verb)]  # fmt: skip
        begin = time.perf_counter()
        pair = [subprocess.Popen(line, cwd=ROOT, stdout=-1, stderr=-1, text=True) for _ in range(2)]
        ends = [process.communicate()[1] for process in pair]
        codes = [process.returncode for process in pair]
        found = REFUSED if any("another run is" in text for text in ends) else ANSWERED
        if 0 not in codes or (verb == "solve" and not load_solution(folder / verb).converged):
            found = LOST
        found = TRACEBACK if any("Traceback" in text for text in ends) else found
        seconds = time.perf_counter() - begin
        journal.add(CROWDED, verb, found, why=[text[-300:] for text in ends], seconds=seconds)


def full(folder: Path, journal: Journal) -> None:
    """Commands that may write small files only, as on a disk that is full; then with room."""
    options = {"allen-cahn": ("--set", "solver.rtol=1e-3"), "poisson": ()}
    for name, more in options.items():
        for limit in LIMITS:
            case, begin = f"{name}, {limit} bytes", time.perf_counter()
            if (FULL, case) in journal.done():
                continue
            out = folder / f"{name}-{limit}"
            words = ("solve", ROOT / "configs" / f"{name}.yaml", *more, "--out", out)
            told = sciml(*words, limit=limit)
            again = sciml(*words)
            found = REFUSED if told.returncode == 2 else ANSWERED
            if again.returncode != 0 or not load_solution(out).converged:
                found = LOST
            if told.returncode not in (0, 2) or told.stderr.partition("sciml: ")[2].count("\n") > 1:
                found = TRACEBACK  # or the signal that ended it
            seconds = time.perf_counter() - begin
            journal.add(FULL, case, found, why=told.stderr[-300:], seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--flips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=ROOT / "runs" / "attack" / "files.jsonl")
    chosen = parser.parse_args()
    journal = Journal(chosen.journal)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flipped(folder, chosen.flips, chosen.seed, journal)
        crowded(folder, journal)
        full(folder, journal)
    for family, counts in journal.counts().items():
        print(family, dict(counts))


if __name__ == "__main__":
    main()
