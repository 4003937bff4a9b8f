"""``sciml train``: an operator fitted to data, or a preconditioner to matrices, and its record."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import scipy.io
import scipy.sparse

from sciml.app import record
from sciml.app.console import Report, clock, training
from sciml.app.read import dataset_family, explain, named_by, read_family, read_spec
from sciml.app.report import drawn, page
from sciml.app.run import Setting
from sciml.app.training_spec import Matrices, OneProblem, OperatorSpec, PreconditionerSpec
from sciml.app.yaml import SpecError
from sciml.core.algebra.maps import LinearMap, SparseMatrix
from sciml.core.disk import write_text
from sciml.core.errors import InputError
from sciml.core.problem.place import discrete
from sciml.core.run.weights import FILE
from sciml.discretization import discretize
from sciml.operators.losses import needs_equation
from sciml.operators.module import Module, check_trusted
from sciml.operators.operator import Operator
from sciml.training import Files, Fresh, TrainingData, fit, open_data

HISTORY = "history.csv"
PICTURE, REPORT = "loss.png", "report.html"


def train(
    spec: OperatorSpec | PreconditionerSpec,
    out: Path,
    device: str = "cpu",
    overrides: Iterable[str] = (),
) -> dict[str, Any] | None:
    """Train what a spec states, going on where an earlier call was stopped; write a report.

    Returns what ``run.json`` says. Under torchrun the first process alone shows, writes and returns
    anything. Shows a progress bar, or lines where there is no terminal. Raises SolveError where the
    loss stops being a number.
    """
    Setting(device)  # checks it
    if isinstance(spec, PreconditionerSpec):
        return _train_preconditioner(spec, out, device, overrides)
    return _train_operator(spec, out, device, overrides)


def facts(found: Mapping[str, Any]) -> dict[str, str]:
    """The lines of a training's table, by name, from its record."""
    told = _operator_facts if found["format"] == record.OPERATOR else _preconditioner_facts
    return told(found)


def opened(spec: OperatorSpec) -> TrainingData:
    """The data that the spec names, opened; raises InputError placed in the spec."""
    with _placed(spec, "data"):
        if isinstance(spec.data, Files):
            stated = needs_equation(spec.training.loss)
            return open_data(spec.data, dataset_family(spec.data.path) if stated else None)
        family = read_family(
            named_by(spec.source, "data.family", spec.data.family), spec.data.changes
        )
        taken = {name: getattr(spec.data, name) for name in ("batches", "seed", "valid", "times")}
        return open_data(Fresh(family, **taken))


def matrices(spec: PreconditionerSpec) -> dict[str, LinearMap]:
    """The matrices that the spec names, by where each is from; InputError where there are none."""
    data = spec.data
    if isinstance(data, OneProblem):
        stated = read_spec(named_by(spec.source, "data.spec", data.spec), data.changes)
        return {f"'{data.spec}'": discretize(stated.problem, discrete(stated.on)).A}
    if isinstance(data, Matrices):
        return _stored(Path(data.folder))
    if data.count < 1:
        raise InputError(f"count must be at least 1; got {data.count}", "data.count")
    family = read_family(named_by(spec.source, "data.family", data.family), data.changes)
    found = {}
    for index in range(data.count):
        # One at a time: each may have a domain of its own.
        drawn = {place: value[0] for place, value in family.draw(data.seed, [index]).items()}
        A = discretize(family.problems(drawn), family.on).A
        found[f"sample {index} of '{data.family}'"] = A
    return found


def _stored(folder: Path) -> dict[str, LinearMap]:
    names = (".mtx", ".mtx.gz", ".npz")
    files = sorted(path for path in folder.glob("*") if path.name.endswith(names))
    if not files:
        raise InputError(
            f"no matrix in '{folder}'; put files there that end in {', '.join(names)}",
            "data.folder",
        )
    found: dict[str, LinearMap] = {}
    for path in files:
        try:
            stored = path.suffix == ".npz"
            matrix = scipy.sparse.load_npz(path) if stored else scipy.io.mmread(path)
            found[f"'{path}'"] = SparseMatrix(matrix)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"cannot read a matrix from '{path}': {error}", "data.folder"
            ) from None
    return found


def _train_operator(
    spec: OperatorSpec, out: Path, device: str, overrides: Iterable[str]
) -> dict[str, Any] | None:
    if isinstance(spec.operator, Module):
        with _placed(spec):
            check_trusted(spec.operator.import_, "operator.import")
    data = opened(spec)
    first = os.environ.get("RANK", "0") == "0"
    bar: AbstractContextManager[Report | None] = nullcontext()
    if first:
        bar = training(spec.training.epochs)
    with bar as progress, _placed(spec):
        operator = fit(
            spec.operator,
            data,
            spec.training,
            out,
            start=spec.start,
            device=device,
            progress=progress,
        )
    return _keep_operator(spec, operator, out, device, overrides) if first else None


def _train_preconditioner(
    spec: PreconditionerSpec, out: Path, device: str, overrides: Iterable[str]
) -> dict[str, Any]:
    options = spec.preconditioner
    with _placed(spec):
        given = matrices(spec)
        with training(rounds(options)) as progress:
            weights = options.train(given, out, device=device, progress=progress)
    rows = [{"epoch": k + 1.0, **row} for k, row in enumerate(read_history(out))]
    sizes = sorted({A.size for A in given.values()})
    unknowns = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    found = record.of_spec(
        record.PRECONDITIONER,
        spec,
        title=spec.title,
        description=f"{len(given)} of {unknowns} unknowns",
        overrides=overrides,
        device=device,
        dtype="float32",
        seed=options.seed,
        epochs=len(rows),
        last=rows[-1],
        weights=Path(weights).name,
    )
    verdict = "Trained. What it is worth: the iterations it saves on systems of its own."
    _write(found, rows, options.kind, out, verdict)
    return found


def rounds(options: Any) -> int:
    """How many epochs, or rounds, a preconditioner's training has: the rows of its history."""
    total: int = options.epochs if hasattr(options, "epochs") else options.rounds
    return total


def _keep_operator(
    spec: OperatorSpec, operator: Operator, out: Path, device: str, overrides: Iterable[str]
) -> dict[str, Any]:
    rows = read_history(out)
    # The last epoch need not have been validated.
    last = {name: value for row in rows for name, value in row.items()}
    signature = operator.signature
    grid = " x ".join(map(str, signature.grid.shape))
    found = record.of_spec(
        record.OPERATOR,
        spec,
        title=spec.title,
        description=(
            f"{spec.operator.kind}: {', '.join(signature.inputs)} to "
            f"{', '.join(signature.outputs[:3])}{', ...' if len(signature.outputs) > 3 else ''} "
            f"on {grid} {signature.grid.centring}s"
        ),
        overrides=overrides,
        device=device,
        dtype=spec.training.precision,
        seed=spec.training.seed,
        parameters=sum(p.numel() for p in operator.parameters()),
        epochs=int(last["epoch"]),
        last=last,
        weights=FILE,
        left_out=operator.left_out,
    )
    verdict = "Trained. What it is worth on samples of its own: sciml evaluate."
    _write(found, rows, spec.training.loss.kind, out, verdict)
    return found


def _write(
    found: Mapping[str, Any], rows: list[dict[str, float]], loss: str, out: Path, verdict: str
) -> None:
    """The record first, which nothing that is drawn can lose, then the picture and the report."""
    from sciml.app.figures import shown
    from sciml.app.figures_learning import plot_training

    record.write(out, found)
    title = shown(found["title"])
    note = drawn(out / PICTURE, lambda path: plot_training(rows, loss, path, title))
    figures = {"Loss by epoch, and errors where they were validated": out / PICTURE}
    if note is not None:
        figures, found = {}, {**found, "notes": [*found["notes"], note]}
        record.write(out, found)
    write_text(out / REPORT, page(found, verdict, facts(found), figures, solved=True))


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's ``history.csv``; what was not measured in an epoch is left out."""
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _operator_facts(found: Mapping[str, Any]) -> dict[str, str]:
    last = found["last"]
    kind = found["spec"]["operator"]["kind"]
    lines = {
        "operator": f"{kind}, {found['parameters']:,} parameters",
        "epochs": f"{found['epochs']}",
        "training loss": f"{last['loss']:.3e}",
    }
    left_out = found.get("left_out")
    if left_out is not None:
        lines["epochs"] = "none: solved for"
        lines["left one out"] = f"{left_out:.3e} (L2 error of each training sample by the others)"
    for name, norm in (("valid_l2", "L2"), ("valid_h1", "H1")):
        if name in last:
            lines[f"relative {norm} error"] = f"{last[name]:.3e} (validation samples, mean)"
    per_epoch = last["seconds"] / found["epochs"]
    each = f", {per_epoch:.3g} s per epoch" if left_out is None else ""
    lines["time"] = f"{clock(last['seconds'])}{each}"
    return lines


def _preconditioner_facts(found: Mapping[str, Any]) -> dict[str, str]:
    last = found["last"]
    lines = {
        "preconditioner": found["spec"]["preconditioner"]["kind"],
        "matrices": found["description"],
        "epochs": str(found["epochs"]),
        "training loss": f"{last['loss']:.3e}",
    }
    if "valid_loss" in last:
        lines["validation loss"] = f"{last['valid_loss']:.3e} (on what was not trained on)"
    return {**lines, "time": clock(last["seconds"])}


@contextmanager
def _placed(spec: OperatorSpec | PreconditionerSpec, about: str | None = None) -> Iterator[None]:
    """An InputError raised here is told at its line and column of the spec, or at ``about``."""
    try:
        yield
    except InputError as error:
        if isinstance(error, SpecError):
            raise
        found = error if error.key else InputError(error.message, about)
        raise InputError(explain(found, spec.source)) from None
