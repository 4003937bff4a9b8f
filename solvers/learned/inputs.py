"""A network's inputs, read off a problem, and whether it is the problem the network was trained on.

Which part of the problem an input is, its place, is a dotted key: ``problem.equation.K``. What
stands there may be anything that a coefficient can be; it is evaluated as ``discretize`` does. All
the rest of the problem has to be as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from sciml.core.equation import KINDS
from sciml.core.errors import InputError
from sciml.core.fields import values_on
from sciml.core.grid import Grid
from sciml.core.plain import differences, dump
from sciml.core.problem import Problem

_PARAMETERS = "problem.parameters."
# What makes no other problem: presets are told apart by their coefficients.
_FREE = ("problem.name", "problem.exact")
_SHOWN = 3


def channels(
    problem: Problem, on: Grid, names: tuple[str, ...], places: Mapping[str, str]
) -> torch.Tensor:
    """The inputs ``names`` of a network, float64 of shape (*batch, len(names), *grid).

    A number is a constant channel. Raises InputError where nothing stands at a place, or what
    stands there cannot be evaluated on the grid.
    """
    values = [values_on(problem, on, _at(problem, places[n]), places[n]) for n in names]
    return torch.stack(torch.broadcast_tensors(*values), dim=-1 - len(on.shape))


def _at(problem: Problem, place: str) -> Any:
    """What stands at a place; a parameter is its own name, which is an expression."""
    if place.startswith(_PARAMETERS) and place.removeprefix(_PARAMETERS) in problem.parameters:
        return place.removeprefix(_PARAMETERS)
    value: Any = problem
    for part in place.split(".")[1:]:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, (tuple, list)):
            value = value[int(part)] if part.isdecimal() and int(part) < len(value) else None
        else:
            value = getattr(value, part, None)
    if value is None or isinstance(value, (tuple, list)):
        raise InputError("the network needs a number or a field here", place)
    return value


def check_same(trained: Mapping[str, Any], problem: Problem, places: Mapping[str, str]) -> None:
    """Raise InputError, with the first key, where the problem is not the one trained on.

    ``trained``: the problem as plain data. The places of the inputs are free.
    """
    found = list(_other(trained, problem, tuple(places.values())))
    if not found:
        return
    told = [f"{key} ({_told(old)} in training, {_told(new)} here)" for key, old, new in found]
    more = "" if len(told) <= _SHOWN else f" and {len(told) - _SHOWN} more"
    raise InputError(
        f"the network was trained on another problem, which differs in "
        f"{', '.join(told[:_SHOWN])}{more}",
        found[0][0],
    )


def _other(
    trained: Mapping[str, Any], problem: Problem, places: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    for key, old, new in differences(trained, dump(problem), "problem"):
        if key in _FREE or any(f"{key}.".startswith(f"{place}.") for place in places):
            continue
        if key == "problem.equation.kind" and old in KINDS and new in KINDS:
            continue
        # A parameter that training did not know is in none of its expressions.
        if (key.startswith(_PARAMETERS) and old is None) or _number(old) == _number(new):
            continue
        yield key, old, new


def _number(value: Any) -> Any:
    """Numbers as such where they are written as text, and other text without blanks."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return "".join(value.split())


def _told(value: Any) -> str:
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
