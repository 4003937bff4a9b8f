"""``kill -9`` at random moments of a solve in time, a generation and a training, then the results.

    python benchmarks/attack_kills.py [--kills 50] [--seed 0]

Each command runs until it is killed, again and again in the same folder, and at the end to its end.
What it leaves is compared, to the last bit, with what an undisturbed run leaves: the values of a
solution, the bytes of every shard, an operator's weights. Prints a Markdown table; ends with 1
where they differ, or where a run that went on said more than a line.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sciml.core.run.files import read_solution
from sciml.operators.checkpoint import load_operator

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("--set", "grid.shape=[33,33]", "--set", "dataset.shapes=[]")


def values(folder: Path) -> list[torch.Tensor]:
    """The frames of a solution."""
    return [read_solution(folder)["value"]]


def shards(folder: Path) -> list[torch.Tensor]:
    """The bytes of a dataset's files, in the order of their names."""
    files = sorted((folder / "data").rglob("*.hdf5"))
    return [torch.frombuffer(bytearray(f.read_bytes()), dtype=torch.uint8) for f in files]


def weights(folder: Path) -> list[torch.Tensor]:
    """An operator's tensors."""
    return list(load_operator(folder).state_dict().values())


def commands(home: Path) -> dict[str, tuple[Sequence[Any], Callable[[Path], list[torch.Tensor]]]]:
    """What is killed, and what is compared."""
    data = home / "for-training"
    family = ROOT / "configs" / "datasets" / "darcy.yaml"
    finished([*("generate", family, "--count", 40, *SMALL), "--out", data])
    spec = home / "train.yaml"
    spec.write_text(
        f"operator: {{kind: mgno, width: 4, layers: 1, levels: 2}}\n"
        f"data: {{kind: files, folder: {data}}}\n"
        f"training: {{epochs: 60, batch: 8, checkpoint: 0.05, validate: 30}}\n"
    )
    made = ["generate", family, "--count", 40, "--set", "dataset.shard=4", *SMALL]
    return {
        "solve in time": (["solve", ROOT / "configs" / "allen-cahn.yaml"], values),
        "generate": (made, shards),
        "train": (["train", spec], weights),
    }


def line(words: Sequence[Any]) -> list[str]:
    return [sys.executable, "-m", "sciml.app.cli", *map(str, words)]


def finished(words: Sequence[Any]) -> float:
    """Run a command to its end; its seconds."""
    begin = time.monotonic()
    told = subprocess.run(line(words), cwd=ROOT, capture_output=True, text=True)
    if told.returncode != 0:
        raise SystemExit(told.stderr)
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw, faults = random.Random(chosen.seed), 0
    print("| command | kills | died by them | tracebacks | differs | lost |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for number, (title, (words, found)) in enumerate(commands(home).items()):
            whole, parts = home / f"whole-{number}", home / f"parts-{number}"
            seconds = finished([*words, "--out", whole])
            share = chosen.kills // 3 + (number < chosen.kills % 3)
            died = tracebacks = 0
            for _ in range(share):
                process = subprocess.Popen(
                    line([*words, "--out", parts]), cwd=ROOT, stdout=-1, stderr=-1, text=True
                )
                time.sleep(draw.uniform(0.2, 1.0) * seconds)
                process.kill()
                told = process.communicate()[1]
                died += process.returncode == -signal.SIGKILL
                tracebacks += "Traceback" in told
            end = subprocess.run(
                line([*words, "--out", parts]), cwd=ROOT, capture_output=True, text=True
            )
            lost = int(end.returncode != 0)
            tracebacks += "Traceback" in end.stderr
            a, b = found(whole), [] if lost else found(parts)
            differs = int(len(a) != len(b) or not all(map(torch.equal, a, b)))
            print(f"| {title} | {share} | {died} | {tracebacks} | {differs} | {lost} |", flush=True)
            faults += tracebacks + differs + lost
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
