"""Neural operators side by side: the same data, one thread, the same CPU time.

    python benchmarks/operators.py train --model mgno --seed 0 --minutes 10
    python benchmarks/operators.py peer --seed 0 --minutes 10 --script FILE --python PYTHON
    python benchmarks/operators.py all --minutes 10 --seeds 0 1 2 --jobs 2 --script ... --python ...
    python benchmarks/operators.py report --minutes 10 [--multigrid]

Data: ``data/darcy``, made by ``sciml generate configs/datasets/darcy.yaml --out data/darcy --set
"dataset.shapes=[[85,85],[61,61],[31,31],[29,29],[15,15]]"``; 1000 training and 100 test samples at
29 x 29. The settings of a model are ``configs/train/<model>-darcy.yaml``.

The budget is CPU time of the process (``time.process_time``, or that of the child for the peer), of
one thread: the machine is shared, and wall time would measure the neighbours. A few steps are timed
first; the number of epochs follows, so that the schedule of the learning rate ends at the end of
the budget, and nothing is stopped half-way. The peer is neuraloperator's FNO by an unedited
program that trains on an ``.npz`` file, here with the same samples; its answers are taken from its
variables when it ends, and judged as ours are. It cannot be resumed; our runs can. It counts a
complex weight as one parameter; ours are counted as two. It scales its outputs point by point, by
which they vanish on the boundary, ours by one mean and deviation. MgNO and the U-Net minimise the
sum of the relative L2 and H1 errors, the others L2. Curves are on the validation samples, the
peer's, which is given none, on the test samples. The clock is that of training alone. Every
finished run is one JSON file, and ``all`` skips those that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PEER = "neuraloperator"
MODELS = {
    "mgno": "MgNO",
    "fno": "FNO",
    "unet": "U-Net",
    "deeponet": "DeepONet",
    "pod-deeponet": "POD-DeepONet",
    "lsm": "LSM",
    PEER: "FNO of neuraloperator",
}
TRAIN, VALID, TEST = 1000, 100, 100
TRIAL_SAMPLES, TRIAL_EPOCHS = 200, 4
# Samples to time multigrid on, and how many times finer than the data its grid may be.
CLOCKED, FINEST = 20, 12
# Runs a program as it is, then keeps what its network answers on its test samples.
WITNESS = """
import runpy, sys
import numpy, torch
sys.argv = sys.argv[2:]
answers = sys.argv.pop()
left = runpy.run_path(sys.argv[0], run_name="__main__")
model, size = left["model"].eval(), left["options"].batch
with torch.no_grad():
    found = [model(a) * left["u_std"] + left["u_mean"] for a in left["test_a"].split(size)]
numpy.save(answers, torch.cat(found).cpu().numpy())
"""
PICTURE = ROOT / "docs" / "images" / "operators.png"


def home(options: argparse.Namespace) -> Path:
    """Where the runs of one comparison are."""
    shape = "x".join(map(str, options.shape))
    return Path(options.out) / f"{shape}-{options.minutes:g}-minutes"


def result_file(options: argparse.Namespace, model: str, seed: int) -> Path:
    return home(options) / f"{model}-{seed}.json"


def train(options: argparse.Namespace) -> None:
    """One of our models, trained for the budget and tested."""
    import torch

    from sciml.app.read import load_training
    from sciml.app.train import opened
    from sciml.core.disk import write_json
    from sciml.training import fit

    torch.set_num_threads(1)
    spec = load_training(ROOT / "configs" / "train" / f"{options.model}-darcy.yaml")
    files = replace(
        spec.data, folder=str(options.data), shape=tuple(options.shape), train=TRAIN, valid=VALID
    )
    spec = replace(spec, data=files)
    folder = home(options) / f"{options.model}-{options.seed}"
    plan = _plan(folder, spec, 60 * options.minutes)
    schedule = replace(
        spec.training,
        epochs=plan["epochs"],
        seed=options.seed,
        validate=max(1, plan["epochs"] // 40),
    )
    wall = time.perf_counter()
    operator = fit(spec.operator, opened(spec), schedule, folder, progress=_line)
    wall = time.perf_counter() - wall
    history = _history(folder)
    cpu = history[-1]["cpu_seconds"]
    write_json(
        result_file(options, options.model, options.seed),
        {
            "model": options.model,
            "seed": options.seed,
            "minutes": options.minutes,
            "epochs": plan["epochs"],
            "parameters": sum(p.numel() for p in operator.parameters()),
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "seconds_per_epoch": cpu / plan["epochs"],
            **_test(operator, options),
            "curve": [
                [row["cpu_seconds"], row["valid_l2"]] for row in history if row.get("valid_l2")
            ],
            "curve_of": "validation",
        },
    )


def _plan(folder: Path, spec: Any, budget: float) -> dict[str, Any]:
    """How many epochs the budget is good for; kept, so that a resumed run has the same."""
    from sciml.app.train import opened
    from sciml.core.disk import write_json
    from sciml.training import fit

    file = folder / "plan.json"
    if file.is_file():
        return json.loads(file.read_text())
    some = opened(replace(spec, data=replace(spec.data, train=TRIAL_SAMPLES, valid=1)))
    with tempfile.TemporaryDirectory() as trial:
        fit(spec.operator, some, replace(spec.training, epochs=TRIAL_EPOCHS), trial)
        spent = [row["cpu_seconds"] for row in _history(Path(trial))]
    epoch = min(b - a for a, b in pairwise(spent)) * TRAIN / TRIAL_SAMPLES
    plan = {"epochs": max(1, int(budget / epoch)), "seconds_per_epoch": epoch}
    write_json(file, plan)
    return plan


def _line(epoch: int, epochs: int, record: Mapping[str, Any]) -> None:
    shown = ", ".join(f"{name} {value:.4g}" for name, value in record.items() if name != "epoch")
    print(f"epoch {epoch} of {epochs}: {shown}", flush=True)


def _history(folder: Path) -> list[dict[str, float]]:
    import csv

    with open(folder / "history.csv", encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _test(operator: Any, options: argparse.Namespace) -> dict[str, float]:
    """Mean relative errors on the test samples."""
    from sciml.training.evaluation import evaluate

    found = evaluate(operator, _stored(options, "test"))
    return {
        "relative_l2": float(found.relative_l2[:TEST].mean()),
        "relative_h1": float(found.relative_h1[:TEST].mean()),
    }


def _stored(options: argparse.Namespace, split: str) -> Any:
    from sciml.datasets.loader import OperatorData

    return OperatorData(options.data / f"at-{'x'.join(map(str, options.shape))}", split)


def peer(options: argparse.Namespace) -> None:
    """The unedited program for neuraloperator's FNO, for as many epochs as the budget allows."""
    if not (options.script and options.python):
        raise SystemExit("the peer needs --script (its program) and --python (its environment)")
    import numpy as np

    from sciml.core.disk import write_json

    file = home(options) / "darcy.npz"
    if not file.is_file():
        _export(options, file)
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.npy"
        _, one = _peer_run(options, file, 1, answers)
        _, three = _peer_run(options, file, 3, answers)
        epoch = (three - one) / 2
        epochs = max(1, int(60 * options.minutes / epoch))
        found, cpu = _peer_run(options, file, epochs, answers)
        cpu -= one - epoch  # its start and its last test
        errors = _compared(np.load(answers), options)
    write_json(
        result_file(options, PEER, options.seed),
        {
            "model": PEER,
            "seed": options.seed,
            "minutes": options.minutes,
            "epochs": found["epochs"],
            "parameters": found["parameters"],
            "cpu_seconds": cpu,
            "wall_seconds": found["seconds"],
            "seconds_per_epoch": cpu / found["epochs"],
            **errors,
            "curve": [[cpu * e / found["epochs"], error] for e, _, error in found["curve"]],
            "curve_of": "test",
            "program": found["peer"],
            "printed_relative_l2": found["relative_l2"],
        },
    )


def _compared(answers: Any, options: argparse.Namespace) -> dict[str, float]:
    """Errors of answers (N, 1, *grid) on the test samples, by the losses that judge our own."""
    import torch

    from sciml.operators import RelativeH1, RelativeL2
    from sciml.training import Files, open_data

    signature = open_data(Files(str(options.data), shape=tuple(options.shape))).signature
    data = _stored(options, "test")
    truth = torch.stack([data[i]["y"] for i in range(TEST)])
    losses = {"relative_l2": RelativeL2(), "relative_h1": RelativeH1()}
    return {
        name: float(loss.build(signature)(torch.from_numpy(answers), truth, truth).mean())
        for name, loss in losses.items()
    }


def _export(options: argparse.Namespace, file: Path) -> None:
    """The same samples for the peer; whole or not at all, as two jobs may write it."""
    import numpy as np

    from sciml.core.disk import atomic_write

    arrays = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        data = _stored(options, split)
        samples = [data[i] for i in range(count)]
        arrays[f"a_{split}"] = np.stack([sample["x"][0].numpy() for sample in samples])
        arrays[f"u_{split}"] = np.stack([sample["y"][0].numpy() for sample in samples])
    with atomic_write(file) as temporary:
        np.savez(temporary, **arrays)


def _peer_run(
    options: argparse.Namespace, file: Path, epochs: int, answers: Path
) -> tuple[dict[str, Any], float]:
    """What the program prints, and its CPU seconds; its own wall-clock limit is kept out of it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [options.python, "-c", WITNESS, "-", options.script, str(file)]
    command += ["--epochs", str(epochs), "--seed", str(options.seed), "--threads", "1"]
    command += ["--minutes", "100000", str(answers)]
    done = subprocess.run(command, env=_one_thread(), capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout.strip().splitlines()[-1]), spent


def _one_thread() -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def everything(options: argparse.Namespace) -> None:
    """All models and seeds, so many processes at a time; seeds outermost, for an early report."""
    wanted = [(model, seed) for seed in options.seeds for model in options.models]
    with ThreadPoolExecutor(options.jobs) as pool:
        failed = [name for name in pool.map(lambda job: _job(options, *job), wanted) if name]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def _job(options: argparse.Namespace, model: str, seed: int) -> str | None:
    """One run in a process of its own; its name where it failed."""
    name = f"{model}-{seed}"
    if result_file(options, model, seed).is_file():
        return None
    if model == PEER and not (options.script and options.python):
        print(f"{name}: left out, no --script and --python", flush=True)
        return None
    command = [sys.executable, __file__, "peer" if model == PEER else "train"]
    command += ["--seed", str(seed), "--minutes", str(options.minutes), "--out", str(options.out)]
    command += ["--data", str(options.data), "--shape", *map(str, options.shape)]
    if model == PEER:
        command += ["--script", options.script, "--python", options.python]
    else:
        command += ["--model", model]
    home(options).mkdir(parents=True, exist_ok=True)
    with open(home(options) / f"{name}.log", "a", encoding="utf-8") as log:
        code = subprocess.run(command, env=_one_thread(), stdout=log, stderr=log).returncode
    print(f"{name}: {'done' if code == 0 else f'failed, see {log.name}'}", flush=True)
    return name if code else None


def report(options: argparse.Namespace) -> None:
    """The table as Markdown, and the picture."""
    found = _results(options)
    if not found:
        raise SystemExit(f"no results in {home(options)}")
    clock = _multigrid(found, options) if options.multigrid else {}
    names = [
        "model", "relative L2 %", "relative H1 %", "parameters", "CPU s per epoch", "epochs",
        "runs", "multigrid to the same error, ms per sample",
    ]  # fmt: skip
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for model, runs in found.items():
        cells = [
            MODELS[model],
            _spread([100 * run["relative_l2"] for run in runs]),
            _spread([100 * run["relative_h1"] for run in runs if run["relative_h1"] is not None]),
            f"{runs[0]['parameters']:,}",
            _spread([run["seconds_per_epoch"] for run in runs]),
            _spread([run["epochs"] for run in runs], "{:.0f}"),
            str(len(runs)),
            clock.get(model, "-"),
        ]
        print(f"| {' | '.join(cells)} |")
    _draw(found, options)


def _results(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The finished runs by model, in the order of MODELS."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in MODELS:
        files = [result_file(options, model, seed) for seed in options.seeds]
        runs = [json.loads(file.read_text()) for file in files if file.is_file()]
        if runs:
            found[model] = runs
    return found


def _spread(values: Sequence[float], form: str = "{:.3g}") -> str:
    """Mean and range."""
    if not values:
        return "-"
    mean, low, high = (
        form.format(v) for v in (sum(values) / len(values), min(values), max(values))
    )
    return mean if low == high else f"{mean} ({low} to {high})"


def _multigrid(
    found: Mapping[str, list[dict[str, Any]]], options: argparse.Namespace
) -> dict[str, str]:
    """Milliseconds per sample of our multigrid to each model's error, on the grid that it takes.

    The data was solved on a finer grid, and on the models' own grid the error of discretisation may
    be above theirs. So the grid is the coarsest that contains theirs on which nine samples in ten
    reach the error.
    """
    import torch

    from sciml.app.read import dataset_family
    from sciml.core.problem.grid import Grid
    from sciml.datasets.store import read_shard
    from sciml.training.evaluation import multigrid_time

    data = _stored(options, "test")
    numbers = read_shard(data.reader.paths[0]).indices[:CLOCKED].tolist()
    truth = torch.stack([data[i]["y"][0] for i in range(len(numbers))])
    family = dataset_family(options.data)

    def clock(error: float) -> str:
        for factor in range(1, FINEST + 1):
            shape = tuple(factor * (n - 1) + 1 for n in options.shape)
            dataset = replace(family.dataset, shapes=())
            sized = replace(family, grid=Grid(shape), dataset=dataset)
            drawn = sized.draw(family.dataset.seed, numbers)

            def problem(which: Any, sized: Any = sized, drawn: Any = drawn) -> Any:
                return sized.problems({place: value[which] for place, value in drawn.items()})

            errors = torch.full((len(numbers),), error)
            took = multigrid_time(problem, sized.on, errors, truth)
            if took.reached.double().mean() >= 0.9:
                milliseconds = 1e3 * float(took.seconds[took.reached].mean())
                return f"{milliseconds:.3g} on {' x '.join(map(str, shape))}"
        return "not reached"

    return {
        model: clock(sum(run["relative_l2"] for run in runs) / len(runs))
        for model, runs in found.items()
    }


def _draw(found: Mapping[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    from sciml.app.figures import STYLE, save

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.8, 4.4), layout="constrained")
        axes = figure.subplots()
        for number, (model, runs) in enumerate(found.items()):
            for run in runs:
                seconds, errors = zip(*run["curve"], strict=True)
                label = MODELS[model] if run is runs[0] else None
                errors = [100 * error for error in errors]
                axes.plot(seconds, errors, color=f"C{number}", lw=1.1, alpha=0.8, label=label)
        axes.set(xlabel="CPU seconds of one thread", ylabel="mean relative $L^2$ error, %")
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
        axes.tick_params(which="minor", labelsize=8)
        axes.grid(True, which="both", color="0.9", lw=0.5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, options.picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, act in (("train", train), ("peer", peer), ("all", everything), ("report", report)):
        command = commands.add_parser(name)
        command.set_defaults(act=act)
        command.add_argument("--minutes", type=float, default=10)
        command.add_argument("--out", type=Path, default=Path("runs/operators"))
        command.add_argument("--data", type=Path, default=Path("data/darcy"))
        command.add_argument("--shape", type=int, nargs="+", default=[29, 29])
        if name in ("train", "peer"):
            command.add_argument("--seed", type=int, default=0)
        else:
            command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
        if name == "train":
            command.add_argument("--model", choices=[m for m in MODELS if m != PEER], required=True)
        if name == "all":
            command.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
            command.add_argument("--jobs", type=int, default=2)
        if name in ("peer", "all"):
            command.add_argument("--script")
            command.add_argument("--python")
        if name == "report":
            command.add_argument("--multigrid", action="store_true")
            command.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
