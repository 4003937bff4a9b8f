"""DeepONet and POD-DeepONet on three problems with published errors.

    OMP_NUM_THREADS=1 python benchmarks/deeponet.py --seeds 0 1 2 [--cases CASE ...]
    python benchmarks/deeponet.py --report

Every run is a folder of its own, trained by ``fit``; the same command goes on where it was stopped
and skips what is finished. Cases:

* ``antiderivative``: s' = u, s(0) = 0, as in Lu et al. (2021): 10,000 triples
  (u, y, s(y)), one place y for each function u, for training, 100,000 for testing. u is a Gaussian
  field with covariance exp(-(x - x')^2 / (2 l^2)), l = 0.2, by its Karhunen-Loeve series: the
  covariance on 1001 nodes with trapezoidal weights is diagonalised, the modes are continued by
  cubic splines, and s is the exact integral of these. 100 sensors.
* ``advection``: u_t + u_x = 0 on a ring, from square waves of height [1, 2], width [0.3, 0.6] and
  centre [0.3, 0.7] to u on 40 x 40 points (x, t), both ends included (Lu et al. 2022). On these
  points a wave moves by whole points, so that the data are exact. 1000 waves each.
* ``darcy``: the coefficient of two phases, 3 and 12, to the pressure on 29 x 29 nodes, from our
  solver: ``sciml generate configs/datasets/darcy.yaml --out data/darcy --set
  "dataset.shapes=[[85,85],[61,61],[31,31],[29,29],[15,15]]" --set dataset.splits.test=200``. 1000
  for training, 200 for testing.

The published errors are those of larger networks after 50,000 steps of Adam (the antiderivative) or
100,000 on the full batch. Ours are those after the last step of a schedule; the settings below come
from a few short trials on the same data. The first two operators are linear, which a branch without
hidden layers makes use of; ``hidden 512`` is the published branch.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from sciml.core.disk import atomic_write
from sciml.core.problem.grid import Box, Grid
from sciml.datasets import OperatorData
from sciml.operators import DeepONet, Operator, PODDeepONet, Signature
from sciml.operators.losses import LossFunction, RelativeL2, ResidualFunction
from sciml.training import Adam, AdamW, OneCycle, TensorData, Training, TrainingData, fit

SENSORS, FINE, LENGTH = 100, 1001, 0.2
WAVE = 40
BATCH = 1000  # of answers
RESULT = "result.json"
CYCLE = OneCycle(share=0.2, start=0.04, end=1e-4)


@dataclass(frozen=True)
class MeanSquare:
    """The mean square of what is missing: for single values, relative errors mean little."""

    kind: Literal["mean_square"] = "mean_square"

    def build(self, signature: Signature, residual: ResidualFunction | None = None) -> LossFunction:
        """``loss(prediction, truth, x)`` -> (B,)."""
        return lambda prediction, truth, x: ((prediction - truth) ** 2).flatten(1).mean(1)


SQUARE: Any = MeanSquare()  # not among the losses that a spec can name


@dataclass(frozen=True)
class Model:
    """One row of the table; ``published``: the error in the paper, or "" where it has none."""

    options: DeepONet | PODDeepONet
    training: Training
    published: str = ""


@dataclass(frozen=True)
class Case:
    """A problem; ``data("train")`` and ``data("test")`` are its samples."""

    title: str
    error: Literal["mean square", "relative L2"]
    signature: Signature
    data: Callable[[str], TensorData]
    models: Mapping[str, Model]


def antiderivative_data(split: str) -> TensorData:
    """Triples: (N, 1, sensors), places (N, 1, 1) and values (N, 1, 1)."""
    x, modes = field_modes()
    curves = CubicSpline(x, modes)
    seed, count = {"train": (0, 10_000), "test": (1, 100_000)}[split]
    stream = np.random.default_rng(seed)
    weights = stream.standard_normal((count, modes.shape[1]))
    places = stream.random(count)
    functions = weights @ curves(np.linspace(0, 1, SENSORS)).T
    values = (weights * curves.antiderivative()(places)).sum(1)
    column = (count, 1, 1)
    return TensorData(
        single(functions[:, None]), single(values.reshape(column)), single(places.reshape(column))
    )


@lru_cache(maxsize=1)
def field_modes() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and the modes of the field on them, each times its standard deviation."""
    x = np.linspace(0, 1, FINE)
    covariance = np.exp(-((x[:, None] - x) ** 2) / (2 * LENGTH**2))
    weights = np.full(FINE, 1 / (FINE - 1))
    weights[[0, -1]] /= 2
    root = np.sqrt(weights)
    variance, vectors = np.linalg.eigh(root[:, None] * covariance * root)
    kept = variance > 1e-12 * variance[-1]
    return x, vectors[:, kept] / root[:, None] * np.sqrt(variance[kept])


def advection_data(split: str) -> TensorData:
    """Waves: u(x, 0), the same at all t, and u(x, t); (N, 1, 40, 40) both."""
    stream = np.random.default_rng({"train": 0, "test": 1}[split])
    height, width, centre = (
        low + size * stream.random((1000, 1, 1)) for low, size in ((1, 1), (0.3, 0.3), (0.3, 0.4))
    )
    steps = np.arange(WAVE)
    origin = (steps[:, None] - steps) % (WAVE - 1) / (WAVE - 1)
    waves = single(height * (abs(origin - centre) <= width / 2))[:, None]
    return TensorData(waves[..., :1].expand_as(waves).contiguous(), waves)


def darcy_data(split: str) -> TensorData:
    """Coefficients and pressures, (N, 1, 29, 29)."""
    stored = OperatorData("data/darcy/at-29x29", split)
    samples = [stored[i] for i in range({"train": 1000, "test": 200}[split])]
    return TensorData(*(torch.stack([s[part] for s in samples]) for part in ("x", "y")))


def single(values: np.ndarray) -> Tensor:
    """As float32."""
    return torch.from_numpy(values.astype(np.float32))


def unit_box(*shape: int) -> Grid:
    """A node grid on [0, 1]^d."""
    return Grid(shape, "node", Box((0.0,) * len(shape), (1.0,) * len(shape)))


CASES = {
    "antiderivative": Case(
        title="antiderivative",
        error="mean square",
        signature=Signature(("u",), ("s",), unit_box(SENSORS), ("neumann",)),
        data=antiderivative_data,
        models={
            "DeepONet": Model(
                DeepONet(modes=40, branch=(), trunk=(40, 40), fourier_features=10),
                Training(1000, 1000, Adam(5e-3), CYCLE, SQUARE),
                "9.27e-7",
            ),
        },
    ),
    "advection": Case(
        title="advection I, 40 x 40",
        error="relative L2",
        signature=Signature(("u0",), ("u",), unit_box(WAVE, WAVE), ("periodic", "neumann")),
        data=advection_data,
        models={
            "DeepONet": Model(
                DeepONet(
                    modes=256,
                    branch=(),
                    trunk=(),
                    fourier_features=768,
                    fourier_scale=6.0,
                    sensors=(39, 1),
                ),
                Training(400, 100, Adam(3e-2), CYCLE, SQUARE),
                "0.22 %",
            ),
            "POD-DeepONet": Model(
                PODDeepONet(modes=39, branch=(), sensors=(39, 1)),
                Training(400, 100, Adam(3e-2), CYCLE, SQUARE),
                "0.04 %",
            ),
            "POD-DeepONet, hidden 512": Model(
                PODDeepONet(modes=39, branch=(512,), activation="relu", sensors=(39, 1)),
                Training(1000, 100, Adam(1e-3), CYCLE, SQUARE),
                "0.04 %",
            ),
        },
    ),
    "darcy": Case(
        title="Darcy {3, 12}, 29 x 29",
        error="relative L2",
        signature=Signature(("a",), ("u",), unit_box(29, 29), ("dirichlet", "dirichlet")),
        data=darcy_data,
        models={
            "DeepONet": Model(
                DeepONet(
                    modes=128,
                    branch=(256,),
                    trunk=(128, 128, 128),
                    convolutions=(16, 32),
                    fourier_features=64,
                    fourier_scale=3.0,
                    hard_boundary=True,
                ),
                Training(400, 50, AdamW(3e-3, 0.3), CYCLE, RelativeL2()),
                "2.98 %",
            ),
            "POD-DeepONet": Model(
                PODDeepONet(modes=115, branch=(256,), convolutions=(16, 32)),
                Training(500, 50, AdamW(3e-3, 1.0), CYCLE, RelativeL2()),
                "2.32 %",
            ),
        },
    ),
}


def run(name: str, model: str, seed: int, folder: Path) -> None:
    """Train one model, or go on training it, and write what it came to."""
    case, chosen = CASES[name], CASES[name].models[model]
    training = replace(chosen.training, seed=seed, validate=chosen.training.epochs)
    data = TrainingData(case.data("train"), None, case.signature, name=name)
    operator = fit(chosen.options, data, training, folder)
    with (folder / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    record = {
        "parameters": sum(p.numel() for p in operator.parameters()),
        "steps": int(last["steps"]),
        "cpu_seconds": float(last["cpu_seconds"]),
        "error": test_error(operator, case),
    }
    with atomic_write(folder / RESULT) as path:
        path.write_text(json.dumps(record, indent=2))


@torch.no_grad()
def test_error(operator: Operator, case: Case) -> float:
    """Mean square, or mean of the relative L2 errors, over the test samples."""
    test, found = case.data("test"), []
    for part in torch.arange(len(test)).split(BATCH):
        given = () if test.points is None else (test.points[part],)
        truth = test.y[part].flatten(1)
        missing = operator(test.x[part], *given).flatten(1) - truth
        if case.error == "relative L2":
            found.append(missing.norm(dim=1) / truth.norm(dim=1))
        else:
            found.append((missing**2).mean(1))
    return float(torch.cat(found).mean())


def report(out: Path) -> Iterator[str]:
    """The table of the runs that are finished, line by line."""
    yield "| case | model | parameters | steps | CPU s | error | published |"
    yield "|---|---|---|---|---|---|---|"
    for name, case in CASES.items():
        for model, chosen in case.models.items():
            paths = sorted(out.glob(f"{name}-{slug(model)}-[0-9]*/{RESULT}"))
            found = [json.loads(path.read_text()) for path in paths]
            if found:
                seconds = mean(record["cpu_seconds"] for record in found)
                errors = shown([record["error"] for record in found], case.error)
                yield (
                    f"| {case.title} | {model} | {found[0]['parameters']:,} "
                    f"| {found[0]['steps']:,} | {seconds:.0f} | {errors} | {chosen.published} |"
                )


def slug(model: str) -> str:
    """The model's name as part of a folder's."""
    return model.replace(",", "").replace(" ", "-")


def shown(errors: Sequence[float], kind: str) -> str:
    """The mean and, in brackets, the standard deviation over the seeds."""
    percent = kind == "relative L2"
    values = [100 * error if percent else error for error in errors]
    digits, unit = (".3f", " %") if percent else (".2e", "")
    text = f"{mean(values):{digits}}{unit}"
    return text + (f" ({stdev(values):{digits}})" if len(values) > 1 else "")


def main() -> None:
    """Run what is not finished yet, seed by seed, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--models", nargs="+", help="all of a case if left out")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/deeponet"))
    parser.add_argument("--report", action="store_true", help="only print the table")
    given = parser.parse_args()
    for seed, name in product([] if given.report else given.seeds, given.cases):
        for model in CASES[name].models:
            folder = given.out / f"{name}-{slug(model)}-{seed}"
            wanted = given.models is None or model in given.models
            if wanted and not (folder / RESULT).exists():
                run(name, model, seed, folder)
    print("\n".join(report(given.out)))


if __name__ == "__main__":
    main()
