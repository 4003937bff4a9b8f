"""Problems and options as plain data: for records, datasets and checkpoints, and comparisons."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from sciml.core.problem.condition import Condition
from sciml.core.problem.grid import Grid


def dump(value: Any) -> Any:
    """A spec, or any part of one, as plain data: every option with its value.

    Reading the result back gives an equal spec. Python-only values (tensors, functions) become
    their repr.
    """
    if isinstance(value, Condition) and value.by_field is not None:
        return dump(value.by_field)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        entries = ((f, getattr(value, f.name)) for f in dataclasses.fields(value))
        # A field that Python does not allow its name, import, has PEP 8's underscore.
        shown = {
            f.name.rstrip("_"): dump(v) for f, v in entries if v is not None and _is_shown(value, f)
        }
        return dict(sorted(shown.items(), key=lambda item: item[0] != "kind"))
    if isinstance(value, Mapping):
        return {str(key): dump(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [dump(entry) for entry in value]
    plain = value is None or isinstance(value, (str, int, float, bool))
    return value if plain else repr(value)


def _is_shown(owner: Any, entry: dataclasses.Field[Any]) -> bool:
    replaced = any(
        getattr(owner, name) is not None for name in entry.metadata.get("replaced_by", ())
    )
    return (
        entry.metadata.get("yaml", True)
        and not replaced
        and not (isinstance(owner, Grid) and entry.name == "domain")
    )


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two trees of plain data differ: dotted key, old and new value, None where missing.

    Lists of one length are compared entry by entry, others as a whole.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}, key=str):
            below = f"{key}.{name}" if key else str(name)
            yield from differences(old.get(name), new.get(name), below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, after, f"{key}.{index}" if key else str(index))
    elif old != new:
        yield key, old, new
