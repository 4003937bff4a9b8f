"""A family in YAML: a spec with distributions in it, and a block on what is stored of it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.app.run import versions
from sciml.app.spec import dump, first_error, override, scope_of, solver_classes, tuples
from sciml.app.yaml_source import Place, SpecError, read_yaml

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from sciml.datasets.family import Family


def load_family(path: str | Path, overrides: Iterable[str] = ()) -> Family:
    """The family in a YAML file; ``overrides`` such as ``"dataset.seed=1"`` replace its values.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    from pydantic import ValidationError

    source = read_yaml(path)
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError("a family is a mapping with the keys problem, grid, dataset", place)
    context = dataclasses.replace(scope_of(source), random=True)
    try:
        family: Family = _adapter().validate_python(tuples(source.data), context=context)
    except ValidationError as error:
        raise first_error(error, source) from None
    if family.solver is None:
        family = dataclasses.replace(family, solver=solver_classes()[0]())
    return family


def make_dataset(family: Family, out: Path, *, engine: str, workers: int, device: str) -> None:
    """Generate with a progress bar (or plain lines), then say what there is."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from sciml.datasets.generate import count_stored, generate

    total = sum(family.dataset.splits.values())
    console, start = Console(stderr=True), time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("generating", total=total)
        found: list[int] = []  # what an earlier run had stored

        def report(stored: int, wanted: int, rejects: int) -> None:
            found.append(stored)
            rate = (stored - found[0]) / (time.monotonic() - start)
            line = f"{rate:.3g} samples/s, {rejects} rejected"
            bar.update(task, completed=stored, description=line)
            if not console.is_terminal:
                console.print(f"{stored} of {wanted}, {line}", highlight=False)

        manifest = generate(
            family,
            out,
            spec=_plain(family),
            versions=versions(),
            engine=engine,
            workers=workers,
            device=device,
            progress=report,
        )
    line = f"{count_stored(manifest)} samples in {out}; {len(manifest.rejects)} rejected"
    console.print(line, highlight=False)


def _plain(family: Family) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dump(family)))
    return plain


@cache
def _adapter() -> TypeAdapter[Any]:
    from sciml.app.schema import adapter
    from sciml.datasets.family import Family

    return adapter(Family, solver_classes())
