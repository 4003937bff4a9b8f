"""Python functions as coefficients: coordinates by place, the state and parameters by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sciml.core.errors import InputError


def named_arguments(function: Callable[..., Any], dimension: int) -> frozenset[str]:
    """The names of what a function takes after its coordinates; none where Python cannot say."""
    try:
        arguments = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return frozenset()
    placed = [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
    first = sum(a.kind is a.POSITIONAL_ONLY for a in arguments)
    named = [a.name for a in arguments if a.kind is a.KEYWORD_ONLY]
    return frozenset((*placed[max(0, dimension - first) :], *named))


def call_named(
    function: Callable[..., Any],
    places: Sequence[Any],
    known: Mapping[str, Any],
    absent: Mapping[str, str],
    key: str,
) -> Any:
    """``function(*places)`` with those of ``known`` that it names.

    ``absent``: names that mean something elsewhere, and why they do not here. Raises InputError for
    one of these, and where the function cannot be called so.
    """
    names = named_arguments(function, len(places))
    for name in sorted(names & (absent.keys() - known.keys())):
        raise InputError(f"the function takes '{name}': {absent[name]}", key)
    named = {name: value for name, value in known.items() if name in names}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return function(*places, **named)
    try:
        signature.bind(*places, **named)
    except TypeError as error:
        more = f", then by name any of {', '.join(sorted(known))}" if known else ""
        raise InputError(
            f"the function takes {signature} and is given {len(places)} coordinates{more}: {error}",
            key,
        ) from None
    return function(*places, **named)
