"""A family in YAML: a spec with distributions in it, and a block on what is stored of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.app.spec import first_error, override, scope_of, solver_classes, tuples
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


@cache
def _adapter() -> TypeAdapter[Any]:
    from sciml.app.schema import adapter
    from sciml.datasets.family import Family

    return adapter(Family, solver_classes())
