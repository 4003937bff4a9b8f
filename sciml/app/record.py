"""What is written about a run, a training or an evaluation: enough to repeat it and to judge it.

A record is one JSON file, written whole or not at all, with a hash of itself. It has its format,
what was asked for with every option written out, what came of it, the machine and the versions, and
the hashes of the files beside it that are read back.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import sciml
from sciml.core.disk import digest, read_record, write_record
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import Grid
from sciml.core.problem.reader import FieldFile, RunField
from sciml.core.run.files import FUNCTION, read_solution
from sciml.core.run.serialise import differences, dump

FILE = "run.json"
RUN, EVALUATION = "sciml run 1", "sciml evaluation 1"
OPERATOR, PRECONDITIONER = "sciml training 1", "sciml preconditioner 1"
MODES = "sciml modes 1"
FOLDERS = (RUN, OPERATOR, PRECONDITIONER, MODES)  # each of a folder of its own
# What makes a folder with such a record, to tell those who name another.
_COMMANDS = {
    RUN: "solve",
    EVALUATION: "evaluate",
    OPERATOR: "train",
    PRECONDITIONER: "train",
    MODES: "modes",
}
_PACKAGES = ("torch", "numpy", "scipy", "pyamg", "numba", "h5py", "matplotlib", "pydantic")


def made(format_: str, **found: Any) -> dict[str, Any]:
    """A record of ``found``, and of where, when and with what it was found."""
    return {
        "format": format_,
        **found,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions(),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["sciml", *sys.argv[1:]]),
    }


def of_spec(
    format_: str,
    spec: Any,
    *,
    title: str,
    description: str,
    overrides: Iterable[str],
    device: str,
    dtype: str,
    seed: int,
    notes: Iterable[str] = (),
    **found: Any,
) -> dict[str, Any]:
    """The record of what a spec came to; ``spec`` is its dataclass, which is written out."""
    return made(
        format_,
        title=title,
        description=description,
        **found,
        notes=list(notes),
        spec_file=str(Path(spec.source.name).resolve()) if spec.source else "",
        overrides=list(overrides),
        spec=_absolute(dump(spec)),
        device=device,
        dtype=dtype,
        seed=seed,
    )


def write(folder: Path, record: Mapping[str, Any], file: str = FILE) -> Path:
    """Write a record into a folder, in place of the one that may be there; its path."""
    try:
        write_record(folder / file, record)
    except OSError as error:
        raise InputError(f"cannot write to '{folder}': {error.strerror or error}") from None
    return folder / file


def read(folder: Path, *formats: str) -> dict[str, Any]:
    """The record in a folder, of one of ``formats``; raises InputError for another folder."""
    path, command = folder / FILE, _COMMANDS[formats[0]]
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"'{folder}' {what}; {_neighbours(folder, command)}")
    try:
        found = read_record(path, sealed=False)  # those of earlier versions have no hash
    except FileNotFoundError:
        raise InputError(f"'{folder}' holds no {FILE}; {_neighbours(folder, command)}") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"cannot read '{path}': {error}; sciml {command} writes it anew") from None
    kind = found.get("format")
    if kind not in formats:
        by = f"by sciml {_COMMANDS[kind]}" if kind in _COMMANDS else "by another program"
        raise InputError(f"'{path}' was written {by}; name a folder that sciml {command} wrote")
    return dict(found)


def replaced(folder: Path, spec: Any) -> str | None:
    """What a run of another spec, which is in a folder, differs in; None where there is none."""
    try:
        held = read_record(folder / FILE, sealed=False)
    except (OSError, ValueError):
        return None
    if held.get("format") != RUN:
        return None
    new = json.loads(json.dumps(_absolute(dump(spec))))
    changed = [
        f"{key} was {_short(before)}, now {_short(after)}"
        for key, before, after in differences(held.get("spec"), new)
    ]
    if not changed:
        return None
    more = len(changed) - _TOLD
    tail = f"; {more} more" if more > 0 else ""
    return f"'{folder}' held a run with another spec: {'; '.join(changed[:_TOLD])}{tail}"


_TOLD = 3  # differences are said


def _short(value: Any) -> str:
    text = "not given" if value is None else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def hashes(folder: Path, *files: str) -> dict[str, str]:
    """The SHA-256 of files in a folder, by name, for its record."""
    return {file: digest(folder / file) for file in files}


def check(folder: Path, record: Mapping[str, Any]) -> None:
    """Raise InputError where a file of a record is no longer what it was."""
    for file, hashed in record.get("hashes", {}).items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"'{path}' is missing, which '{folder / FILE}' tells of")
        if digest(path) != hashed:
            raise InputError(f"'{path}' was damaged or changed since it was written")


def fields_of_run(folder: Path) -> dict[str, FieldFile | RunField]:
    """The fields of a run by name, in time as they were at the end, to begin or feed another.

    Of a trained function itself, with the rates where it has them built in, else of values on a
    grid. Raises InputError for a run that failed, or is none.
    """
    summary = read(folder, RUN)
    check(folder, summary)
    if any(name != "converged" for name in summary["statuses"]):
        raise InputError(f"the run in '{folder}' failed: {summary['advice']}")
    if (folder / FUNCTION).is_file():
        return _of_function(folder)
    path = folder / "solution.h5"
    on, fields = (read_solution(path)[name] for name in ("on", "fields"))
    if not isinstance(on, Grid):
        raise InputError(f"the run in '{folder}' is not one on a grid")
    return {name: FieldFile(str(path), "u", on.centring, name) for name in fields}


def _of_function(folder: Path) -> dict[str, FieldFile | RunField]:
    from sciml.solvers.trained.load import load_function

    function, home = load_function(folder), str(folder)
    found: dict[str, FieldFile | RunField] = {
        name: RunField(home, name, False, function.field(name)) for name in function.fields
    }
    if function.has_rates:
        found |= {
            f"{name}t": RunField(home, name, True, function.field(name, rate=True))
            for name in function.fields
        }
    return found


def versions() -> dict[str, str]:
    """The versions of Python, of this package and of those it stands on."""
    found = {"python": platform.python_version(), "sciml-pde": sciml.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _neighbours(folder: Path, command: str) -> str:
    """What to write instead: a run nearby by a similar name, or how runs come to be."""
    home = folder.parent if folder.parent.is_dir() else Path("runs")
    runs = [str(path.parent) for path in sorted(home.glob(f"*/{FILE}"))]
    if not runs:
        return f"name the directory that sciml {command} wrote, such as runs/darcy"
    return f"name the directory of a run{did_you_mean(str(folder), runs[:20])}"


# By the key that names a file, what else may stand beside it.
_FILES = {
    "file": {
        "file",
        "dataset",
        "centring",
        "saved_field",
        "element",
        "merge",
        "axisymmetric",
        "scheme",
    },
    "table": {"table", "of", "column", "outside"},
    "run": {"run", "field", "rate"},
}


def _absolute(tree: Any) -> Any:
    """Files of data by their absolute path, so that the record can be read from anywhere."""
    if isinstance(tree, dict):
        fixed = {
            name: str(Path(tree[name]).resolve())
            for name, known in _FILES.items()
            if name in tree and tree.keys() <= known
        }
        return {key: _absolute(value) for key, value in tree.items()} | fixed
    return [_absolute(value) for value in tree] if isinstance(tree, list) else tree
