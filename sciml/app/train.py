"""``sciml train``: a YAML file that states data, an operator and how to train it, and its run.

A folder of data is one that ``sciml generate`` wrote, relative to the current directory as its
``--out`` was; the family of a stream is a spec, relative to the file that names it.

A spec with ``preconditioner:`` for ``operator:`` trains a preconditioner on matrices: of one
problem, of samples of a family, or in a folder of files.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import scipy.io
import scipy.sparse
import torch

from sciml.app.families import dataset_family, load_family
from sciml.app.progress import Report, clock, training
from sciml.app.run import Setting, versions
from sciml.app.spec import check_purpose, explain, first_error, load_spec, override, tuples
from sciml.app.yaml_source import Place, Source, SpecError, read_yaml
from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.files import write_json, write_text
from sciml.core.linear import LinearMap, SparseMatrix
from sciml.core.place import discrete
from sciml.core.plain import dump
from sciml.core.training_run import HISTORY
from sciml.datasets.loader import Times
from sciml.operators.losses import needs_equation
from sciml.solvers import learned
from sciml.training import Files, Fresh, Training, TrainingData, fit, open_data

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from sciml.operators import Operator

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
    spec: TrainSpec = _read(source, overrides, "data, operator, training", _adapter)
    return spec


def _read(
    source: Source, overrides: Iterable[str], keys: str, made: Callable[[], TypeAdapter[Any]]
) -> Any:
    """The spec that an adapter makes of YAML."""
    from pydantic import ValidationError

    check_purpose(source, "sciml train")
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError(f"a training spec is a mapping with the keys {keys}", place)
    try:
        spec = made().validate_python(tuples(source.data))
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
    anything. Shows a progress bar, or lines where there is no terminal. Raises TrainingError where
    the loss stops being a number.
    """
    Setting(device)  # checks it
    data = opened(spec)
    first = os.environ.get("RANK", "0") == "0"
    bar: AbstractContextManager[Report | None] = nullcontext()
    if first:
        bar = training(spec.training.epochs)
    with bar as progress, _placed(spec):
        operator = fit(spec.operator, data, spec.training, out, device=device, progress=progress)
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
    from sciml.app.plot_training import plot_training
    from sciml.app.report import page

    rows = read_history(out)
    # The last epoch need not have been validated.
    last = {name: value for row in rows for name, value in row.items()}
    signature = operator.signature
    grid = " x ".join(map(str, signature.grid.shape))
    summary = {
        "format": FORMAT,
        "description": (
            f"{spec.operator.kind}: {', '.join(signature.inputs)} to "
            f"{', '.join(signature.outputs[:3])}{', ...' if len(signature.outputs) > 3 else ''} "
            f"on {grid} {signature.grid.centring}s"
        ),
        "parameters": sum(p.numel() for p in operator.parameters()),
        "epochs": int(last["epoch"]),
        "last": last,
        "dtype": spec.training.precision,
        "seed": spec.training.seed,
        **_origin(spec, device, overrides),
    }
    picture = out / "loss.png"
    plot_training(rows, spec.training.loss.kind, picture, spec.title)
    verdict = "Trained. What it is worth on samples of its own: sciml evaluate."
    figures = {"Loss and validation errors": picture}
    write_json(out / RECORD, summary)
    text = page(summary, verdict, training_facts(summary), figures, solved=True)
    write_text(out / "report.html", text)
    return summary


def _origin(
    spec: TrainSpec | PreconditionerSpec, device: str, overrides: Iterable[str]
) -> dict[str, Any]:
    """What a run's record says of where it comes from."""
    return {
        "title": spec.title,
        "notes": [],
        "spec_file": str(Path(spec.source.name).resolve()) if spec.source else "",
        "overrides": list(overrides),
        "spec": dump(spec),
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["sciml", *sys.argv[1:]]),
    }


@contextmanager
def _placed(spec: TrainSpec, about: str | None = None) -> Iterator[None]:
    """An InputError raised here is told at its line and column of the spec, or at ``about``."""
    try:
        yield
    except InputError as error:
        found = error if error.key else InputError(error.message, about)
        raise InputError(explain(found, spec.source)) from None


PRECONDITIONER_FORMAT = "sciml preconditioner 1"
PICTURE, REPORT = "loss.png", "report.html"


@dataclass(frozen=True)
class OneProblem:
    """The matrix of a problem: ``spec``, relative to this file; ``changes`` replace its values."""

    spec: str
    changes: tuple[str, ...] = ()
    kind: Literal["problem"] = "problem"


@dataclass(frozen=True)
class Samples:
    """The matrices of the first ``count`` samples of a family, relative to this file."""

    family: str
    count: int
    changes: tuple[str, ...] = ()
    seed: int = 0
    kind: Literal["family"] = "family"


@dataclass(frozen=True)
class Matrices:
    """The Matrix Market (.mtx, .mtx.gz) and SciPy (.npz) files in a folder, in order of name."""

    folder: str
    kind: Literal["matrices"] = "matrices"


@dataclass(frozen=True)
class PreconditionerSpec:
    """Matrices, and what is trained on them: one of ``sciml.solvers.learned.TRAININGS``.

    ``source`` is the text it was read from.
    """

    data: OneProblem | Samples | Matrices
    preconditioner: Any
    name: str = ""
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    @property
    def title(self) -> str:
        """Its name, or that of its file."""
        return self.name or (
            Path(self.source.name).stem if self.source else self.preconditioner.kind
        )


def trains_preconditioner(source: Source) -> bool:
    """Whether a spec that was read is of a preconditioner to be trained."""
    return isinstance(source.data, dict) and "preconditioner" in source.data


def load_preconditioner_training(
    path: str | Path, overrides: Iterable[str] = ()
) -> PreconditionerSpec:
    """The spec in a YAML file; ``overrides`` such as ``"preconditioner.epochs=10"``.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    return read_preconditioner_training(read_yaml(path), overrides)


def read_preconditioner_training(
    source: Source, overrides: Iterable[str] = ()
) -> PreconditionerSpec:
    """The spec in YAML that was read before; see :func:`load_preconditioner_training`."""
    spec: PreconditionerSpec = _read(
        source, overrides, "data, preconditioner", _preconditioner_adapter
    )
    return spec


@cache
def _preconditioner_adapter() -> TypeAdapter[Any]:
    from sciml.app.schema import adapter

    return adapter(PreconditionerSpec, [getattr(learned, name) for name in learned.TRAININGS])


def matrices(spec: PreconditionerSpec) -> dict[str, LinearMap]:
    """The matrices that the spec names, by where each is from; InputError where there are none."""
    home = Path(spec.source.name).parent if spec.source else Path()
    data = spec.data
    if isinstance(data, OneProblem):
        stated = load_spec(home / data.spec, data.changes)
        return {f"'{data.spec}'": discretize(stated.problem, discrete(stated.on)).A}
    if isinstance(data, Matrices):
        return _stored(Path(data.folder))
    if data.count < 1:
        raise InputError(f"count must be at least 1; got {data.count}", "data.count")
    family = load_family(home / data.family, data.changes)
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


def train_preconditioner(
    source: Source, out: Path, device: str = "cpu", overrides: Iterable[str] = ()
) -> dict[str, str]:
    """Train what a spec names, going on where an earlier call was stopped; the run's table.

    Writes the weights, a record and a report into ``out``. Shows a progress bar, or lines where
    there is no terminal.
    """
    Setting(device)  # checks it
    spec = read_preconditioner_training(source, overrides)
    options = spec.preconditioner
    try:
        given = matrices(spec)
        with training(_epochs(options)) as progress:
            weights = options.train(given, out, device=device, progress=progress)
    except InputError as error:
        raise InputError(explain(error, spec.source)) from None
    record = _write_preconditioner_report(spec, given.values(), out, device, overrides)
    files = {name: str(out / file) for name, file in (("plot", PICTURE), ("report", REPORT))}
    return {**preconditioner_facts(record), **files, "weights": str(weights)}


def preconditioner_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """The lines of the run's table, by name, from its record."""
    last = record["last"]
    lines = {
        "preconditioner": record["spec"]["preconditioner"]["kind"],
        "matrices": record["description"],
        "epochs": str(record["epochs"]),
        "training loss": f"{last['loss']:.3e}",
    }
    if "valid_loss" in last:
        lines["validation loss"] = f"{last['valid_loss']:.3e} (on what was not trained on)"
    return {**lines, "time": clock(last["seconds"])}


def _epochs(options: Any) -> int:
    """How many epochs, or rounds, a training has: the rows of its history."""
    total: int = options.epochs if hasattr(options, "epochs") else options.rounds
    return total


def _write_preconditioner_report(
    spec: PreconditionerSpec,
    given: Collection[LinearMap],
    out: Path,
    device: str,
    overrides: Iterable[str],
) -> dict[str, Any]:
    from sciml.app.plot_training import plot_training
    from sciml.app.report import page

    rows = read_history(out)
    sizes = sorted({A.size for A in given})
    unknowns = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    record = {
        "format": PRECONDITIONER_FORMAT,
        "description": f"{len(given)} of {unknowns} unknowns",
        "epochs": len(rows),
        "last": rows[-1],
        "dtype": "float32",
        "seed": spec.preconditioner.seed,
        **_origin(spec, device, overrides),
    }
    plot_training(rows, spec.preconditioner.kind, out / PICTURE, spec.title)
    write_json(out / RECORD, record)
    verdict = "Trained. What it is worth: the iterations it saves on systems of its own."
    figures = {"Loss by epoch": out / PICTURE}
    text = page(record, verdict, preconditioner_facts(record), figures, solved=True)
    write_text(out / REPORT, text)
    return record
