"""Stored samples against an endless stream: the same network, the same CPU time.

    python benchmarks/stream.py train --kind stored --minutes 10 --seed 0
    python benchmarks/stream.py train --kind stream --minutes 10 --seed 0
    python benchmarks/stream.py report

MgNO on Darcy flow at 33 x 33 (configs/train/mgno-darcy-33.yaml and mgno-darcy-stream.yaml): epochs
of 125 batches of 8, from 1000 stored samples or from problems solved while it trains, whose
solving counts. ``data/darcy-33`` is made by the command in mgno-darcy-33.yaml. The budget is CPU
time of one thread; a trial of a few steps gives the number of epochs, so that the schedule of the
learning rate ends with it. Errors are those of the test samples, which neither has seen. A run that
was stopped goes on by the same command.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from sciml.app.read import load_training
from sciml.app.train import opened
from sciml.core.disk import write_json
from sciml.datasets.loader import OperatorData
from sciml.training import Training, evaluate, fit

ROOT = Path(__file__).resolve().parents[1]
SPECS = {"stored": "mgno-darcy-33.yaml", "stream": "mgno-darcy-stream.yaml"}
TRIAL = 3  # epochs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, act in (("train", train), ("report", report)):
        command = commands.add_parser(name)
        command.set_defaults(act=act)
        command.add_argument("--out", type=Path, default=Path("runs/stream"))
        if name == "train":
            command.add_argument("--kind", choices=SPECS, required=True)
            command.add_argument("--minutes", type=float, default=10)
            command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.act(options)


def train(options: argparse.Namespace) -> None:
    """One run, from data to its errors in one JSON file."""
    torch.set_num_threads(1)
    spec = load_training(ROOT / "configs" / "train" / SPECS[options.kind])
    folder = options.out / f"{options.kind}-{options.seed}"
    plan = folder / "plan.json"
    if not plan.is_file():
        with tempfile.TemporaryDirectory() as trial:
            fit(spec.operator, opened(spec), replace(spec.training, epochs=TRIAL), trial)
            spent = [row["cpu_seconds"] for row in _history(Path(trial))]
        # The first epoch compiles kernels.
        epoch = min(b - a for a, b in pairwise(spent))
        write_json(plan, {"epochs": max(1, int(60 * options.minutes / epoch))})
    epochs = json.loads(plan.read_text())["epochs"]
    training: Training = replace(
        spec.training, epochs=epochs, seed=options.seed, validate=max(1, epochs // 20)
    )
    operator = fit(spec.operator, opened(spec), training, folder, progress=_line)
    found = evaluate(operator, OperatorData("data/darcy-33", "test"))
    last = _history(folder)[-1]
    record = {
        "kind": options.kind,
        "seed": options.seed,
        "epochs": epochs,
        "samples seen": 1000 * epochs,
        "different samples": 1000 * (epochs if options.kind == "stream" else 1),
        "CPU seconds": last["cpu_seconds"],
        "training loss": last["loss"],
        "relative L2 %": 100 * float(found.relative_l2.mean()),
        "relative H1 %": 100 * float(found.relative_h1.mean()),
    }
    write_json(options.out / f"{options.kind}-{options.seed}.json", record)


def _line(epoch: int, epochs: int, row: Any) -> None:
    print(f"epoch {epoch} of {epochs}: {dict(row)}", flush=True)


def _history(folder: Path) -> list[dict[str, float]]:
    with open(folder / "history.csv", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def report(options: argparse.Namespace) -> None:
    """A Markdown table of the runs that have ended."""
    records = [json.loads(file.read_text()) for file in sorted(options.out.glob("*.json"))]
    if not records:
        raise SystemExit(f"no results in {options.out}")
    print("| " + " | ".join(records[0]) + " |\n" + "|---" * len(records[0]) + "|")
    for record in records:
        shown = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in record.values())
        print("| " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
