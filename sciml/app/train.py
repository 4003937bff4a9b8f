"""``sciml train``: a YAML file that states data, an operator and how to train it, and its run.

A folder of data is one that ``sciml generate`` wrote, relative to the current directory as its
``--out`` was; the family of a stream is a spec, relative to the file that names it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from sciml.app.generate import dataset_family, load_family
from sciml.app.progress import Report, clock, training
from sciml.app.run import Setting, versions
from sciml.app.spec import check_purpose, explain, first_error, override, tuples
from sciml.app.yaml import Place, Source, SpecError, read_yaml
from sciml.core.errors import InputError, SolveError
from sciml.core.files import write_json, write_text
from sciml.core.plain import dump
from sciml.datasets.loader import Times
from sciml.operators.losses import needs_equation
from sciml.training import Files, Fresh, Training, TrainingData, TrainingError, fit, open_data

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from sciml.operators import Operator

HISTORY = "history.csv"
RECORD = "run.json"
FORMAT = "sciml training 1"


@dataclass(frozen=True)
class Solved:
    """Problems of a family that are solved while the network trains; no files.

    family: its spec, relative to this one.
    changes: values of it to replace, such as ``"grid.shape=[33,33]"``.
    batches: batches in an epoch.
    seed: of the training samples; the validation samples are other ones.
    valid: how many validation samples, solved once.
    times: which frames of a trajectory are input and which output.
    """

    family: str
    batches: int
    changes: tuple[str, ...] = ()
    seed: int = 0
    valid: int = 100
    times: Times | None = None
    kind: Literal["stream"] = "stream"


@dataclass(frozen=True)
class TrainSpec:
    """Data, an operator to fit to it, and how.

    ``operator`` is one of ``sciml.operators.OPERATORS``. ``source`` is the text it was read from.
    """

    data: Files | Solved
    operator: Any
    training: Training = field(default_factory=Training)
    name: str = ""
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    @property
    def title(self) -> str:
        """Its name, or that of its file."""
        return self.name or (Path(self.source.name).stem if self.source else self.operator.kind)


def load_training(path: str | Path, overrides: Iterable[str] = ()) -> TrainSpec:
    """The training spec in a YAML file; ``overrides`` such as ``"training.epochs=10"``.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    return read_training(read_yaml(path), overrides)


def read_training(source: Source, overrides: Iterable[str] = ()) -> TrainSpec:
    """The training spec in YAML that was read before; see :func:`load_training`."""
    from pydantic import ValidationError

    check_purpose(source, "sciml train")
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError(
            "a training spec is a mapping with the keys data, operator, training", place
        )
    try:
        spec: TrainSpec = _adapter().validate_python(tuples(source.data))
    except ValidationError as error:
        raise first_error(error, source) from None
    return dataclasses.replace(spec, source=source)


@cache
def _adapter() -> TypeAdapter[Any]:
    import sciml.operators
    from sciml.app.schema import adapter

    return adapter(TrainSpec, [getattr(sciml.operators, n) for n in sciml.operators.OPERATORS])


def opened(spec: TrainSpec) -> TrainingData:
    """The data that the spec names, opened; raises InputError placed in the spec."""
    with _placed(spec, "data"):
        if isinstance(spec.data, Files):
            stated = needs_equation(spec.training.loss)
            return open_data(spec.data, dataset_family(spec.data.folder) if stated else None)
        home = Path(spec.source.name).parent if spec.source else Path()
        family = load_family(home / spec.data.family, spec.data.changes)
        taken = {name: getattr(spec.data, name) for name in ("batches", "seed", "valid", "times")}
        return open_data(Fresh(family, **taken))


def train(
    spec: TrainSpec, out: Path, device: str = "cpu", overrides: Iterable[str] = ()
) -> dict[str, Any] | None:
    """Fit the operator, going on where an earlier call was stopped; write it, and a report.

    Returns what ``run.json`` says. Under torchrun the first process alone shows, writes and returns
    anything. Shows a progress bar, or lines where there is no terminal. Raises SolveError where the
    loss stops being a number.
    """
    Setting(device)  # checks it
    data = opened(spec)
    first = os.environ.get("RANK", "0") == "0"
    bar: AbstractContextManager[Report | None] = nullcontext()
    if first:
        bar = training(spec.training.epochs)
    with bar as progress, _placed(spec):
        try:
            operator = fit(
                spec.operator, data, spec.training, out, device=device, progress=progress
            )
        except TrainingError as error:
            raise SolveError(str(error)) from None
    return _write_report(spec, operator, out, device, overrides) if first else None


def read_history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run's ``history.csv``; what was not measured in an epoch is left out."""
    with open(folder / HISTORY, encoding="utf-8", newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def read_record(folder: Path, wanted: str = FORMAT) -> dict[str, Any]:
    """What ``run.json`` in the folder of a training run says; ``wanted`` is its format."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"'{folder}' has no record {RECORD} of a finished training") from None
    if record.get("format") != wanted:
        raise InputError(f"'{folder / RECORD}' is no record of a training")
    return record


def training_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The lines of a training run's table, by name, from its record."""
    last = record["last"]
    lines = {
        "operator": f"{record['spec']['operator']['kind']}, {record['parameters']:,} parameters",
        "epochs": f"{record['epochs']}",
        "training loss": f"{last['loss']:.3e}",
    }
    for name, norm in (("valid_l2", "L2"), ("valid_h1", "H1")):
        if name in last:
            lines[f"relative {norm} error"] = f"{last[name]:.3e} (validation samples, mean)"
    per_epoch = last["seconds"] / record["epochs"]
    lines["time"] = f"{clock(last['seconds'])}, {per_epoch:.3g} s per epoch"
    return lines


def _write_report(
    spec: TrainSpec, operator: Operator, out: Path, device: str, overrides: Iterable[str]
) -> dict[str, Any]:
    from sciml.app.figures_learning import plot_training
    from sciml.app.report import page

    rows = read_history(out)
    # The last epoch need not have been validated.
    last = {name: value for row in rows for name, value in row.items()}
    signature = operator.signature
    grid = " x ".join(map(str, signature.grid.shape))
    summary = {
        "format": FORMAT,
        "title": spec.title,
        "description": (
            f"{spec.operator.kind}: {', '.join(signature.inputs)} to "
            f"{', '.join(signature.outputs[:3])}{', ...' if len(signature.outputs) > 3 else ''} "
            f"on {grid} {signature.grid.centring}s"
        ),
        "parameters": sum(p.numel() for p in operator.parameters()),
        "epochs": int(last["epoch"]),
        "last": last,
        "notes": [],
        "spec_file": str(Path(spec.source.name).resolve()) if spec.source else "",
        "overrides": list(overrides),
        "spec": dump(spec),
        "device": device,
        "dtype": spec.training.precision,
        "seed": spec.training.seed,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["sciml", *sys.argv[1:]]),
    }
    picture = out / "loss.png"
    plot_training(rows, spec.training.loss.kind, picture, spec.title)
    verdict = "Trained. What it is worth on samples of its own: sciml evaluate."
    figures = {"Loss and validation errors": picture}
    write_json(out / RECORD, summary)
    text = page(summary, verdict, training_facts(summary), figures, solved=True)
    write_text(out / "report.html", text)
    return summary


@contextmanager
def _placed(spec: TrainSpec, about: str | None = None) -> Iterator[None]:
    """An InputError raised here is told at its line and column of the spec, or at ``about``."""
    try:
        yield
    except InputError as error:
        found = error if error.key else InputError(error.message, about)
        raise InputError(explain(found, spec.source)) from None
