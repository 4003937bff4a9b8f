"""YAML 1.2 text as plain data, with the line and column of every key and value, and back.

The scanner is ruamel.yaml's; scalars follow the core schema of YAML 1.2 (section 10.3.2), so that
``1e-5`` is a number and ``no`` a string. Size, depth and the nodes that aliases expand to are
capped; duplicate keys, tags, several documents, inf and nan are errors. What is written reads back
equal, short lists and mappings on one line.
"""

from __future__ import annotations

import difflib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sciml.core.errors import InputError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_NODES = 50_000

Key = tuple["str | int", ...]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class Place:
    """Where something stands: ``source:line:column``, counted from one; line 0 has no line."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Source:
    """Plain data (dicts, lists, numbers, strings) read from YAML, and where each piece stands.

    ``values`` and ``keys`` map a path such as ``("problem", "equation", "K")`` to the place of the
    value and of its key.
    """

    name: str
    text: str
    data: Any
    values: Mapping[Key, Place] = field(repr=False)
    keys: Mapping[Key, Place] = field(repr=False)

    def find(self, path: Key) -> Key:
        """The longest known path along ``path``; parts that the text does not have are skipped."""
        found: Key = ()
        for part in path:
            if (*found, part) in self.values:
                found = (*found, part)
        return found

    def place(self, path: Key = (), *, of_key: bool = False) -> Place:
        """Where the value at ``path``, or its key, stands; else the nearest value above it."""
        found = self.keys.get(path) if of_key else None
        return found or self.values.get(self.find(path)) or Place(self.name, 1, 1)

    def locate(self, key: str) -> str:
        """``file:line:column`` of a dotted key such as ``problem.equation.K``, or the nearest."""
        return str(self.place(path_of(key)))


class SpecError(InputError):
    """An InputError that knows its place; its text is ``file:line:column: key: message``."""

    def __init__(self, message: str, place: Place, key: str | None = None) -> None:
        super().__init__(_one_line(message), key)
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: {self.key}" if self.key else str(self.place)
        return f"{where}: {self.message}"


class UnknownKey(InputError):
    """A key that nothing is known about; its place is the key's, not the value's."""


def path_of(key: str) -> Key:
    """A dotted key as a path: its numbers count the entries of a list."""
    return tuple(int(p) if p.isdecimal() else p for p in re.split(r"[.\[\]]+", key) if p)


def dotted(path: Sequence[str | int]) -> str:
    """A path as a dotted key."""
    return ".".join(str(part) for part in path)


def describe(value: Any) -> str:
    """A YAML value in words, for the end of an error message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value:g}" if isinstance(value, float) else f"the number {value}"[:40]
    if isinstance(value, str):
        return f"the text '{value if len(value) <= 40 else value[:37] + '...'}'"
    return "a mapping" if isinstance(value, Mapping) else "a list"


def tuples(data: Any) -> Any:
    """Lists as tuples, which is what the dataclasses hold."""
    if isinstance(data, dict):
        return {key: tuples(value) for key, value in data.items()}
    return tuple(tuples(value) for value in data) if isinstance(data, list) else data


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def read_yaml(path: str | Path) -> Source:
    """The source in a file; raises InputError if it cannot be read, or SpecError at its place."""
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"there is no file '{path}'; {_instead(Path(path))}") from None
    except IsADirectoryError:
        raise InputError(f"'{path}' is a directory; name a YAML file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise InputError(f"cannot read '{path}': {reason}") from None
    if len(raw) > MAX_BYTES:
        raise InputError(
            f"'{path}' is over {MAX_BYTES} bytes; a spec is small: put data into a field file"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not UTF-8 text (byte {error.start})") from None
    return parse_yaml(text, str(path))


def _instead(path: Path) -> str:
    """A file with a similar name in the same folder, or how to come by one."""
    known = {found.stem: found for found in sorted(path.parent.glob("*.y*ml"))}
    close = difflib.get_close_matches(path.stem, known, n=1)
    return f"did you mean '{known[close[0]]}'?" if close else "start one with sciml new"


def parse_yaml(text: str, name: str = "spec") -> Source:
    """The source in a string; raises SpecError at the place of the first fault."""
    if len(text) > MAX_BYTES:
        raise SpecError(f"over {MAX_BYTES} characters", Place(name, 1, 1))
    builder = _Builder(name)
    data = builder.document(_events(text, name))
    return Source(name, text, data, builder.values, builder.keys)


def override(source: Source, text: str) -> Source:
    """``source`` with one value replaced: ``"grid.shape=[65, 65]"``, the value read as YAML.

    Without a value, ``"solver="``, the key is removed.
    """
    name, equals, value_text = text.partition("=")
    place = Place(f"--set {text if len(text) <= 60 else text[:57] + '...'}")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise SpecError("write key.path=value, for example solver.rtol=1e-6", place)
    if not value_text.strip():
        return _without(source, parts, place)
    try:
        given = parse_yaml(value_text.strip(), place.source)
    except SpecError as error:
        raise SpecError(error.message, place) from None
    path: Key = ()
    data: Any = source.data
    for part in parts:
        path = (*path, _index(data, part, path, place))
        data = data[int(part)] if isinstance(data, list) else (data or {}).get(part)
    values = {k: v for k, v in source.values.items() if k[: len(path)] != path}
    keys = {k: v for k, v in source.keys.items() if k[: len(path)] != path}
    above = [path[:length] for length in range(1, len(path))]
    for key in (*above, *((*path, *below) for below in given.values)):
        values.setdefault(key, place)
        keys.setdefault(key, place)
    return Source(source.name, source.text, _replaced(source.data, path, given.data), values, keys)


def _without(source: Source, parts: list[str], place: Place) -> Source:
    """``source`` without a key."""
    path: Key = ()
    above, data = source.data, source.data
    for part in parts:
        path, above = (*path, _index(data, part, path, place)), data
        if isinstance(above, list):
            place_in = int(part)
            data = above[place_in]
        elif part in (above or {}):
            data = above[part]
        else:
            known = ", ".join(map(str, above or {})) or "nothing"
            where = dotted(path[:-1]) or "the spec"
            raise SpecError(f"'{part}' cannot be removed; {where} has {known}", place)
    if isinstance(above, list):
        rest: Any = [entry for k, entry in enumerate(above) if k != path[-1]]
        # The entries after the one that is gone have other numbers now.
        path = path[:-1]
        values, keys = (
            {k: v for k, v in found.items() if k[: len(path)] != path or k == path}
            for found in (source.values, source.keys)
        )
        return Source(source.name, source.text, _replaced(source.data, path, rest), values, keys)
    rest = {name: entry for name, entry in above.items() if name != path[-1]}
    values, keys = (
        {k: v for k, v in found.items() if k[: len(path)] != path}
        for found in (source.values, source.keys)
    )
    return Source(source.name, source.text, _replaced(source.data, path[:-1], rest), values, keys)


def _index(data: Any, part: str, path: Key, place: Place) -> str | int:
    if isinstance(data, list):
        if not (part.isdecimal() and int(part) < len(data)):
            raise SpecError(
                f"the list has {len(data)} entries, counted from 0; got '{part}'", place
            )
        return int(part)
    if data is not None and not isinstance(data, dict):
        raise SpecError(f"{dotted(path) or 'the spec'} is a value; nothing can be below it", place)
    return part


def _replaced(data: Any, path: Key, value: Any) -> Any:
    if not path:
        return value
    if isinstance(data, list):
        return [_replaced(v, path[1:], value) if i == path[0] else v for i, v in enumerate(data)]
    inner = (data or {}).get(path[0])
    return {**(data or {}), path[0]: _replaced(inner, path[1:], value)}


def scalar(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2; raises ValueError for inf and nan."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text, 10)
    if _OCTAL.fullmatch(text):
        return _integer(text[2:], 8)
    if _HEXADECIMAL.fullmatch(text):
        return _integer(text[2:], 16)
    if _FLOAT.fullmatch(text):
        return _finite(text)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    return text


def _integer(digits: str, base: int) -> int:
    # Beyond this an integer may have no float, and Python itself caps how long it may be.
    if len(digits) > 250:
        raise ValueError("the number is too large for a float")
    return int(digits, base)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text if len(text) < 30 else 'the number'} is too large for a float")
    return value


def _events(text: str, name: str) -> Iterator[Any]:
    """ruamel.yaml's events; any fault of its scanner becomes a SpecError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        yield from YAML(typ="safe", pure=True).parse(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name, 1, 1)
        problem = " ".join(str(error.problem or error.context or "not YAML").split())
        raise SpecError(f"this is not YAML: {problem}{_tab_hint(problem)}", place) from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        # The scanner lets slip a few plain exceptions on malformed directives and escapes.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SpecError(f"this is not YAML: {reason[:120]}", Place(name, 1, 1)) from None


def _tab_hint(problem: str) -> str:
    return "; indent with spaces, not tabs" if "\\t" in problem else ""


class _Builder:
    """Builds data out of events, remembering places and counting what aliases expand to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values: dict[Key, Place] = {}
        self.keys: dict[Key, Place] = {}
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.open_anchors: set[str] = set()
        self.count = 0

    def document(self, events: Iterator[Any]) -> Any:
        """The only document's data; None for an empty one."""
        data, documents = None, 0
        for event in events:
            match type(event).__name__:
                case "DocumentStartEvent":
                    documents += 1
                    if documents > 1:
                        raise self._error("a spec is one YAML document; this starts another", event)
                    data = self._value(next(events), events, ())
        return data

    def _value(self, event: Any, events: Iterator[Any], path: Key) -> Any:
        place = self._place(event)
        self.values[path] = place
        self.count += 1
        if self.count > MAX_NODES:
            raise self._error(f"the spec has over {MAX_NODES} values; use a field file", event)
        if len(path) > MAX_DEPTH:
            raise self._error(f"nested over {MAX_DEPTH} deep", event)
        kind = type(event).__name__
        if kind == "AliasEvent":
            return self._alias(event)
        if event.ctag is not None:
            raise self._error(f"tags such as {event.tag} are not allowed in a spec", event)
        before = self.count
        if event.anchor is not None:
            self.open_anchors.add(event.anchor)
        data = {"ScalarEvent": self._scalar, "SequenceStartEvent": self._sequence,
                "MappingStartEvent": self._mapping}[kind](event, events, path)  # fmt: skip
        if event.anchor is not None:
            self.open_anchors.discard(event.anchor)
            self.anchors[event.anchor] = (data, 1 + self.count - before)
        return data

    def _scalar(self, event: Any, events: Iterator[Any], path: Key) -> Any:
        text = self._text(event)
        if event.style is not None:
            return text
        try:
            return scalar(text)
        except ValueError as error:
            raise self._error(str(error), event) from None

    def _text(self, event: Any) -> str:
        """As JSON writes what lies beyond 16 bits, in two halves, is one character."""
        try:
            return str(event.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            said = "half of a character: \\ud800 to \\udfff stand in pairs"
            raise self._error(said, event) from None

    def _sequence(self, event: Any, events: Iterator[Any], path: Key) -> list[Any]:
        items: list[Any] = []
        while type(item := next(events)).__name__ != "SequenceEndEvent":
            items.append(self._value(item, events, (*path, len(items))))
        return items

    def _mapping(self, event: Any, events: Iterator[Any], path: Key) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while type(item := next(events)).__name__ != "MappingEndEvent":
            key = self._key(item)
            if key in items:
                first = self.keys[(*path, key)]
                raise self._error(f"duplicate key '{key}'; first given on line {first.line}", item)
            self.keys[(*path, key)] = self._place(item)
            items[key] = self._value(value := next(events), events, (*path, key))
            if getattr(value, "value", None) == "" and value.style is None:
                # The scanner places a value that is not there at the next thing it meets.
                self.values[(*path, key)] = self.keys[(*path, key)]
        return items

    def _key(self, event: Any) -> str:
        if type(event).__name__ != "ScalarEvent" or event.anchor is not None or event.ctag:
            raise self._error("a key must be a plain word", event)
        if event.style is None and event.value == "<<":
            raise self._error("merge keys '<<' belong to YAML 1.1; write the keys out", event)
        key = str(event.value)
        if not key.isprintable() or len(key) > 100:
            raise self._error("a key must be a plain word", event)
        return key

    def _alias(self, event: Any) -> Any:
        if event.anchor in self.open_anchors:
            raise self._error(f"the alias *{event.anchor} contains itself", event)
        if event.anchor not in self.anchors:
            raise self._error(f"the alias *{event.anchor} has no anchor &{event.anchor}", event)
        data, size = self.anchors[event.anchor]
        self.count += size
        if self.count > MAX_NODES:
            raise self._error(f"aliases expand to over {MAX_NODES} values", event)
        return data

    def _place(self, event: Any) -> Place:
        return Place(self.name, event.start_mark.line + 1, event.start_mark.column + 1)

    def _error(self, message: str, event: Any) -> SpecError:
        return SpecError(message, self._place(event))


_WIDTH = 88
# Texts that need no quotes: they begin with a letter and hold nothing that YAML gives a meaning to.
_UNQUOTED = re.compile(r"[A-Za-z][A-Za-z0-9 _./+*()-]*")


def to_yaml(tree: Any) -> str:
    """The YAML text of dicts, lists, numbers and strings, a line feed at its end."""
    return "\n".join(_lines(tree, 0)) + "\n"


def one_line(tree: Any) -> str:
    """The same in flow style, on one line."""
    if isinstance(tree, Mapping):
        return "{" + ", ".join(f"{_scalar_text(k)}: {one_line(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, (list, tuple)):
        return f"[{', '.join(map(one_line, tree))}]"
    return _scalar_text(tree)


def _lines(tree: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _entry(f"{indent}{_scalar_text(key)}:", value, depth)
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


def _scalar_text(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        text = repr(value)
        return text if "e" not in text or "." in text else text.replace("e", ".0e")
    if isinstance(value, str) and _UNQUOTED.fullmatch(value) and not value.endswith(" "):
        try:
            return value if scalar(value) == value else json.dumps(value)
        except ValueError:
            return json.dumps(value)
    quoted = json.dumps(value, ensure_ascii=False, default=str)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in quoted)
