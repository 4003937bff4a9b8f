"""``kill -9`` at random moments of a solve in time, of a generation and of trainings.

    python benchmarks/attack_kills.py [--kills 50] [--seed 0] [--journal FILE]

Each command runs in a folder until it is killed, three times over, and then to its end. What it
leaves is compared, to the last bit, with what an undisturbed run leaves: the frames of a solution
and what its probes saw of every step, the bytes of every shard, an operator's weights, the values
of a function that is trained on the equation. *Silently wrong* where they differ, *lost* where the
last run does not end well, *traceback* where any says more than a line. A case is one kill; those
of one folder are in the journal once its last run has ended, and are not tried again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from attack import ANSWERED, LOST, TRACEBACK, WRONG, Journal

from sciml.app import cli, figures, generate, report, train  # noqa: F401  so that a fork has them
from sciml.core.run.files import read_solution
from sciml.operators.checkpoint import load_operator

ROOT = Path(__file__).resolve().parents[1]
KILLS = 3  # in one folder
SMALL = ("--set", "grid.shape=[33,33]", "--set", "dataset.shapes=[]")
IN_TIME = """
problem:
  name: Heat
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: heat}
  boundary: {all: {dirichlet: 0}}
  time: {end: 0.2, frames: 21}
  initial: "sin(pi*x)*sin(2*pi*y)"
grid: {shape: [65, 65]}
solver: {kind: sdirk, rtol: 1.0e-7}
output:
  probes: {middle: [0.5, 0.3]}
"""
TRAINING = """
operator: {{kind: mgno, width: 4, layers: 1, levels: 2}}
data: {{kind: files, folder: {data}}}
training: {{epochs: 60, batch: 8, checkpoint: 0.05, validate: 30}}
"""
TRAINED = ("--set", "grid.shape=[17,17]", "--set", "solver.points=300",
           "--set", "solver.optimiser.iterations=60")  # fmt: skip

Found = Callable[[Path], list[Any]]


@dataclass(frozen=True)
class Command:
    """What is killed, and what is compared of what it leaves."""

    words: tuple[Any, ...]
    found: Found


def values(folder: Path) -> list[Any]:
    """A solution, and where there are probes their table."""
    table = folder / "probes.csv"
    seen = table.read_text() if table.is_file() else ""
    return [read_solution(folder)["value"], torch.tensor(list(seen.encode()))]


def shards(folder: Path) -> list[Any]:
    """The bytes of a dataset's files, in the order of their names."""
    files = sorted((folder / "data").rglob("*.hdf5"))
    return [torch.frombuffer(bytearray(f.read_bytes()), dtype=torch.uint8) for f in files]


def weights(folder: Path) -> list[Any]:
    """An operator's tensors."""
    return list(load_operator(folder).state_dict().values())


def commands(home: Path) -> dict[str, Command]:
    """Each by its name."""
    data, family = home / "for-training", ROOT / "configs" / "datasets" / "darcy.yaml"
    code, told = finished(("generate", family, "--count", 40, *SMALL), data)
    assert code == 0, told
    spec, in_time = home / "train.yaml", home / "in-time.yaml"
    spec.write_text(TRAINING.format(data=data))
    in_time.write_text(IN_TIME)
    made = ("generate", family, "--count", 40, "--set", "dataset.shard=4", *SMALL)
    return {
        "a solve in time": Command(("solve", in_time), values),
        "a generation": Command(made, shards),
        "the training of an operator": Command(("train", spec), weights),
        "a physics-informed network": Command(
            ("solve", ROOT / "configs" / "pinn.yaml", *TRAINED), values
        ),
    }


def run(words: Sequence[Any], out: Path, told: Path) -> None:
    """A command as the command line runs it, what it says in a file; it ends the process."""
    with told.open("w") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    cli.app([*map(str, words), "--out", str(out)], standalone_mode=True)


def started(words: Sequence[Any], out: Path, told: Path) -> Any:
    """The process of a command: forked, as a new one would spend its time on importing torch."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(words, out, told))
    process.start()
    return process


def finished(words: Sequence[Any], out: Path) -> tuple[int, str]:
    """How a command that nobody disturbs ends, and what it says."""
    told = out.with_suffix(".log")
    process = started(words, out, told)
    process.join()
    return process.exitcode, told.read_text()


def killed(words: Sequence[Any], out: Path, after: float) -> tuple[bool, str]:
    """Whether a command died by the kill, and what it had said."""
    told = out.with_suffix(".log")
    process = started(words, out, told)
    time.sleep(after)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL, told.read_text()


def attempt(
    command: Command, moments: Sequence[float], out: Path, code: int, whole: list[Any]
) -> list[tuple[str, bool]]:
    """Of every kill its verdict, and whether the command had not ended before.

    ``code``, ``whole``: how an undisturbed run ends, and what it leaves.
    """
    verdicts = []
    for after in moments:
        died, told = killed(command.words, out, after)
        verdicts.append((TRACEBACK if "Traceback" in told else ANSWERED, died))
    last, (ended, told) = LOST, finished(command.words, out)
    if ended == code:
        parts = command.found(out)
        same = len(parts) == len(whole) and all(map(torch.equal, parts, whole))
        last = ANSWERED if same else WRONG
    if "Traceback" in told:
        last = TRACEBACK
    if last != ANSWERED:
        verdicts[-1] = last, verdicts[-1][1]
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=ROOT / "runs" / "attack" / "kills.jsonl")
    chosen = parser.parse_args()
    journal = Journal(chosen.journal)
    done = journal.done()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for number, (title, command) in enumerate(commands(home).items()):
            family = f"kills: {title}"
            share = chosen.kills // 4 + (number < chosen.kills % 4)
            rounds = [range(k, min(k + KILLS, share)) for k in range(0, share, KILLS)]
            left = [r for r in rounds if any((family, f"{chosen.seed}-{k}") not in done for k in r)]
            if not left:
                continue
            begin = time.monotonic()
            code, _ = finished(command.words, home / f"whole-{number}")
            seconds = time.monotonic() - begin
            whole = command.found(home / f"whole-{number}")
            for kills in left:
                draw, begin = random.Random(f"{chosen.seed} {title} {kills[0]}"), time.monotonic()
                moments = [draw.uniform(0.2, 1.0) * seconds for _ in kills]
                out = home / f"parts-{number}-{kills[0]}"
                verdicts = attempt(command, moments, out, code, whole)
                each = (time.monotonic() - begin) / len(kills)
                for k, (verdict, died) in zip(kills, verdicts, strict=True):
                    journal.add(family, f"{chosen.seed}-{k}", verdict, died=died, seconds=each)
    print(journal.counts())


if __name__ == "__main__":
    main()
