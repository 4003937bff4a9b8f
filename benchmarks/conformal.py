"""Conformal sets: the share of 1,000 unseen samples that they hold, within the family and outside.

    python benchmarks/conformal.py [--seeds 0 1 2] [--keep]

Darcy {3, 12} at 29 x 29: 1,000 samples to train on, 1,000 to calibrate, 1,000 to test; and 1,000 of
other families, in which the contrast is higher or the field smoother.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import Any

import results
import torch

from sciml.app.read import load_family
from sciml.core.problem.grid import Grid
from sciml.datasets.stream import Stream
from sciml.operators import FNO, Kernel, Operator, Signature
from sciml.operators.seen import unlike
from sciml.training import TensorData, Training, TrainingData, fit
from sciml.training.conformal import ConformalSet, scores

SPEC = Path(__file__).resolve().parents[1] / "configs" / "datasets" / "darcy.yaml"
SMALL = ["grid.shape=[29,29]", "dataset.shapes=[]"]
COUNT = 1000
FIELD = "problem.equation.K"
OUTSIDE = {
    "contrast 16, not 4": [f"{FIELD}.through=where(a > 0, 48, 3)"],
    "half as rough, tau 1.5": [f"{FIELD}.tau=1.5"],
}
OPERATORS: dict[str, tuple[Any, Training]] = {
    "kernel": (Kernel(), Training()),
    "FNO, 20 epochs": (FNO(modes=8, width=16), Training(epochs=20, batch=20)),
}


def drawn(changes: list[str], seed: int, count: int = COUNT) -> TensorData:
    """Coefficients and solutions, solved and verified."""
    found = next(iter(Stream(load_family(SPEC, [*SMALL, *changes]), seed, count)))
    return TensorData(found["x"], found["y"])


@torch.no_grad()
def covered(operator: Operator, data: TensorData) -> float:
    """The share of the truths that lie in the operator's set."""
    found = ConformalSet.from_json(operator.provenance["conformal"])
    parts = zip(data.x.split(100), data.y.split(100), strict=True)
    every = torch.cat([scores(operator(x), y) for x, y in parts])
    return float((every <= found.radius).double().mean())


def flagged(operator: Operator, data: TensorData) -> float:
    """The share of the inputs that are told to be unlike all that were trained on."""
    told = unlike(operator.provenance["seen"], data.x, operator.signature)
    return sum(map(bool, told)) / len(told)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    family = load_family(SPEC, SMALL)
    on = Grid((29, 29), "node", family.problem.box)
    signature = Signature(("a",), ("u",), on, ("dirichlet", "dirichlet"))
    rows: list[list[results.Cell]] = []
    for seed in given.seeds:
        train, valid, test = (drawn([], 10 * seed + k) for k in range(3))
        others = {name: drawn(changes, 10 * seed + 5) for name, changes in OUTSIDE.items()}
        for name, (options, training) in OPERATORS.items():
            start = time.process_time()
            operator = fit(options, TrainingData(train, valid, signature), training)
            spent = time.process_time() - start
            radius = 100 * operator.provenance["conformal"]["radius"]
            shares = [100 * covered(operator, data) for data in (test, *others.values())]
            rows.append([name, seed, f"{spent:.0f}", radius, *(f"{s:.1f}" for s in shares)])
            strange = [100 * flagged(operator, data) for data in (test, *others.values())]
            rows[-1] += [f"{s:.1f}" for s in strange]
            print(rows[-1], flush=True)
    table = results.Table(
        "Conformal sets of 90 %: what they hold",
        str(datetime.date.today()),
        "2 shared x86-64 cores, one thread, no GPU",
        "python benchmarks/conformal.py --keep",
        (
            *("operator", "seed", "CPU s", "radius %", "unseen: within %"),
            *(f"{name}: within %" for name in OUTSIDE),
            "unseen: flagged %",
            *(f"{name}: flagged %" for name in OUTSIDE),
        ),
        rows,
        "1,000 samples to train on, 1,000 to calibrate by, 1,000 of each kind to test.",
    )
    if given.keep:
        results.keep("conformal", table)


if __name__ == "__main__":
    main()
