"""Plain data as YAML that reads back equal: short lists and mappings on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sciml.app.yaml_source import scalar

_WIDTH = 88
# Texts that need no quotes: they begin with a letter and hold nothing that YAML gives a meaning to.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./+*()-]*")


def to_yaml(tree: Any) -> str:
    """The YAML text of dicts, lists, numbers and strings, a line feed at its end."""
    return "\n".join(_lines(tree, 0)) + "\n"


def one_line(tree: Any) -> str:
    """The same in flow style, on one line."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{_text(k)}: {one_line(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, (list, tuple)):
        return f"[{', '.join(map(one_line, tree))}]"
    return _text(tree)


def _lines(tree: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _entry(f"{indent}{_text(key)}:", value, depth)
    elif isinstance(tree, (list, tuple)) and tree:
        for value in tree:
            yield from _entry(f"{indent}-", value, depth)
    else:
        yield indent + one_line(tree)


def _entry(lead: str, value: Any, depth: int) -> Iterator[str]:
    flow = f"{lead} {one_line(value)}"
    nested = isinstance(value, (Mapping, list, tuple)) and bool(value)
    if not nested or (depth > 0 and len(flow) <= _WIDTH):
        yield flow
    else:
        yield lead
        yield from _lines(value, depth + 1)


def _text(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not value.endswith(" "):
        try:
            return value if scalar(value) == value else json.dumps(value)
        except ValueError:
            return json.dumps(value)
    quoted = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
