"""Labels: what fields, coordinates, parameters and numbers are called, and their units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sciml.core.errors import InputError


@dataclass(frozen=True)
class Label:
    """What something is called in figures, tables and files, and its unit; one of them or both.

    Units are words, such as ``degree C``: nothing is converted.
    """

    name: str | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        if self.name is None and self.unit is None:
            raise InputError("a label needs a name, a unit or both")
        for key, text in (("name", self.name), ("unit", self.unit)):
            if text is not None and not text.strip():
                raise InputError(f"an empty {key} says nothing; leave it out", f".{key}")
            if text is not None and not text.isprintable():
                raise InputError(f"a {key} is one line of letters and signs", f".{key}")


Labels = Mapping[str, Label]


def called(labels: Labels, key: str) -> str:
    """The name given to ``key``, or itself."""
    label = labels.get(key)
    return (label.name if label else None) or key


def unit_of(labels: Labels, *keys: str) -> str:
    """The unit of the first of ``keys`` that has one; "" where none has."""
    units = (labels[key].unit for key in keys if key in labels)
    return next((unit for unit in units if unit), "")


def named(labels: Labels, key: str, *others: str) -> str:
    """``temperature (degree C)``: the name of ``key``, and its unit or that of the ``others``."""
    unit = unit_of(labels, key, *others)
    return f"{called(labels, key)} ({unit})" if unit else called(labels, key)
