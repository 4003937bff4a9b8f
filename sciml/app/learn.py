"""``sciml train`` of a learned preconditioner: a spec with ``preconditioner:`` for ``operator:``.

It is trained on matrices: of one problem, of samples of a family, or in a folder of files.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import scipy.io
import scipy.sparse
import torch

from sciml.app.generate import load_family
from sciml.app.progress import clock, training
from sciml.app.run import Setting, versions
from sciml.app.spec import check_purpose, explain, first_error, load_spec, override, tuples
from sciml.app.train import RECORD, read_history
from sciml.app.yaml import Place, Source, SpecError, read_yaml
from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.files import write_json, write_text
from sciml.core.linear import LinearMap, SparseMatrix
from sciml.core.place import discrete
from sciml.core.plain import dump
from sciml.solvers import learned

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = "sciml preconditioner 1"
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
class LearnSpec:
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


def is_learning(source: Source) -> bool:
    """Whether a spec that was read is of a preconditioner to be trained."""
    return isinstance(source.data, dict) and "preconditioner" in source.data


def load_learning(path: str | Path, overrides: Iterable[str] = ()) -> LearnSpec:
    """The spec in a YAML file; ``overrides`` such as ``"preconditioner.epochs=10"``.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    return read_learning(read_yaml(path), overrides)


def read_learning(source: Source, overrides: Iterable[str] = ()) -> LearnSpec:
    """The spec in YAML that was read before; see :func:`load_learning`."""
    from pydantic import ValidationError

    check_purpose(source, "sciml train")
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError("a training spec is a mapping with the keys data, preconditioner", place)
    try:
        spec: LearnSpec = _adapter().validate_python(tuples(source.data))
    except ValidationError as error:
        raise first_error(error, source) from None
    return dataclasses.replace(spec, source=source)


@cache
def _adapter() -> TypeAdapter[Any]:
    from sciml.app.schema import adapter

    return adapter(LearnSpec, [getattr(learned, name) for name in learned.TRAININGS])


def matrices(spec: LearnSpec) -> dict[str, LinearMap]:
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


def learn(
    source: Source, out: Path, device: str = "cpu", overrides: Iterable[str] = ()
) -> dict[str, str]:
    """Train what a spec names, going on where an earlier call was stopped; the run's table.

    Writes the weights, a record and a report into ``out``. Shows a progress bar, or lines where
    there is no terminal.
    """
    Setting(device)  # checks it
    spec = read_learning(source, overrides)
    options = spec.preconditioner
    try:
        given = matrices(spec)
        with training(_epochs(options)) as progress:
            weights = options.train(given, out, device=device, progress=progress)
    except InputError as error:
        raise InputError(explain(error, spec.source)) from None
    record = _write_report(spec, given.values(), out, device, overrides)
    files = {name: str(out / file) for name, file in (("plot", PICTURE), ("report", REPORT))}
    return {**learning_facts(record), **files, "weights": str(weights)}


def learning_facts(record: Mapping[str, Any]) -> dict[str, str]:
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


def _write_report(
    spec: LearnSpec,
    given: Collection[LinearMap],
    out: Path,
    device: str,
    overrides: Iterable[str],
) -> dict[str, Any]:
    from sciml.app.figures_learning import plot_training
    from sciml.app.report import page

    rows = [{"epoch": k + 1.0, **row} for k, row in enumerate(read_history(out))]
    sizes = sorted({A.size for A in given})
    unknowns = " to ".join(f"{size:,}" for size in dict.fromkeys((sizes[0], sizes[-1])))
    record = {
        "format": FORMAT,
        "title": spec.title,
        "description": f"{len(given)} of {unknowns} unknowns",
        "epochs": len(rows),
        "last": rows[-1],
        "notes": [],
        "spec_file": str(Path(spec.source.name).resolve()) if spec.source else "",
        "overrides": list(overrides),
        "spec": dump(spec),
        "device": device,
        "dtype": "float32",
        "seed": spec.preconditioner.seed,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["sciml", *sys.argv[1:]]),
    }
    plot_training(rows, spec.preconditioner.kind, out / PICTURE, spec.title)
    write_json(out / RECORD, record)
    verdict = "Trained. What it is worth: the iterations it saves on systems of its own."
    figures = {"Loss by epoch": out / PICTURE}
    text = page(record, verdict, learning_facts(record), figures, solved=True)
    write_text(out / REPORT, text)
    return record
