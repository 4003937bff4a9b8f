"""The spec reference: each mapping that a YAML file may hold, from the JSON Schema of the specs.

The schema of ``sciml solve`` is ``configs/schema.json``; those of ``sciml generate`` and
``sciml train`` are made by the same function. What a key means is taken from the docstring of the
dataclass that the mapping becomes: a line ``key: ...``, or the sentence with the key in it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
Node = Mapping[str, Any]
# Keys that mean the same everywhere, where the docstring does not speak of them.
_COMMON = {
    "activation": "Of the hidden layers.",
    "atol": "Absolute tolerance of the error of a step.",
    "changes": "Values to replace, as by `--set`.",
    "data": "What it is trained on.",
    "depth": "Hidden layers.",
    "iterations": "At most so many.",
    "name": "What it is called in titles and reports.",
    "optimiser": "What makes the loss small.",
    "sampler": "Where the points lie, and when they move.",
    "width": "Neurons in a hidden layer.",
    "rtol": "Relative residual at which it has converged.",
    "max_iterations": "Iterations after which it gives up.",
    "seed": "Start of its random numbers.",
    "every": "Iterations between two exchanges.",
    "kind": "",
}
# What no YAML names is called by what it is.
_TITLES = {
    "Spec": "The file",
    "OperatorSpec": "The file, of an operator",
    "PreconditionerSpec": "The file, of a preconditioner",
    "DatasetOptions": "`dataset`",
}
_PLAIN = {"number": "number", "integer": "integer", "boolean": "`true` or `false`"}


@dataclass(frozen=True)
class Chapter:
    """A page: its file, title, first words, and the mappings on it, by the names of the schema."""

    file: str
    title: str
    words: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Book:
    """A schema with the dataclasses behind it, and the chapter in which each mapping stands.

    ``choice``: what the reference AnySolver of the schema stands for, in words.
    """

    schema: Node
    classes: Mapping[str, type]
    chapters: tuple[Chapter, ...]
    choice: str = "a [solver](solvers.md)"

    def place(self, name: str) -> str:
        """The address of a mapping, seen from another chapter."""
        file = next((c.file for c in self.chapters if name in c.names), self.chapters[0].file)
        return f"{file}#{name.lower()}"


def on_files(files: Files, *, config: Any) -> Files:
    """Add a page for each chapter."""
    for book in (solving(), generating(), training()):
        for chapter in book.chapters:
            text = "\n\n".join(pages(book, chapter)) + "\n"
            files.append(File.generated(config, f"reference/spec/{chapter.file}", content=text))
    return files


def solving() -> Book:
    """What ``sciml solve`` reads."""
    from sciml.app.read import solver_classes
    from sciml.app.spec import Spec

    schema = json.loads((ROOT / "configs" / "schema.json").read_text())
    defined = schema["$defs"]
    equations = alternatives(defined["Problem"]["properties"]["equation"])
    solvers = alternatives(defined["AnySolver"])
    preconditioners = alternatives(defined["CG"]["properties"]["preconditioner"])
    known = {*equations, *solvers, *preconditioners, "AnySolver"}
    stated = {key: value for key, value in keys(schema).items() if key != "solver"}
    first = [name for name in mentioned(schema, stated) if name not in known]
    first.sort(key=lambda name: not keys(defined[name]))  # what are no mappings at the end
    parts = [name for name in mentioned(schema, schema) if name not in {*known, *first}]
    chapters = (
        Chapter("index.md", "Spec", _SPEC, ("Spec", *first)),
        Chapter("equations.md", "Equations", "What may stand as `equation:`.", equations),
        Chapter("solvers.md", "Solvers", "What may stand as `solver:`.", solvers),
        Chapter("preconditioners.md", "Preconditioners", _PRECONDITIONERS,
                tuple(name for name in preconditioners if name not in solvers)),
        Chapter("parts.md", "Parts of solvers", _PARTS, tuple(parts)),
    )  # fmt: skip
    return Book(schema, dataclasses_below(Spec, *solver_classes()), chapters)


def generating() -> Book:
    """What ``sciml generate`` reads beyond that, and the distributions."""
    from sciml.app.read import FAMILY, json_schema
    from sciml.app.schema import distributions
    from sciml.datasets.distributions import FIELDS, SCALARS
    from sciml.datasets.family import DatasetOptions

    schema = {"$defs": {**quiet(distributions(False))["$defs"]}}
    classes = dataclasses_below(DatasetOptions, *FIELDS, *SCALARS)
    names = ("DatasetOptions", *schema["$defs"])
    schema["$defs"]["DatasetOptions"] = json_schema(FAMILY)["$defs"]["DatasetOptions"]
    return Book(schema, classes, (Chapter("datasets.md", "Datasets", _DATASETS, names),))


def training() -> Book:
    """What ``sciml train`` reads: of operators, and of preconditioners."""
    from sciml.app.read import OPERATOR, PRECONDITIONER, json_schema

    schemas = json_schema(OPERATOR), json_schema(PRECONDITIONER)
    defined = {name: node for schema in schemas for name, node in schema["$defs"].items()}
    roots = {"OperatorSpec": schemas[0], "PreconditionerSpec": schemas[1]}
    book = {"$defs": {**defined, **roots}}
    names = (name for root in roots for name in (root, *mentioned(book, roots[root])))
    order = tuple(dict.fromkeys(name for name in names if name != "AnySolver"))
    kinds = [kind.parts() for kind in (OPERATOR, PRECONDITIONER)]
    classes = dataclasses_below(*(cls for root, parts in kinds for cls in (root, *parts)))
    chapter = Chapter("training.md", "Training", _TRAINING, order)
    return Book(book, classes, (chapter,), "one of those below")


_SPEC = """\
A file for `sciml solve`. It states a problem, where to solve it, and the solver. `sciml schema`
prints the JSON Schema that these pages are made from; with the first line
`# yaml-language-server: $schema=schema.json` editors complete the keys. `--set key.path=value`
replaces any value from the command line."""
_PRECONDITIONERS = """\
What may stand as `preconditioner:`, beside the [solvers](solvers.md) `direct`, `amg`,
`fast_poisson` and `multigrid`."""
_PARTS = """\
Samplers, optimisers, weights and the like, which stand inside a [solver](solvers.md) that trains a
function."""
_DATASETS = """\
A file for `sciml generate` is a [spec](index.md) with a block `dataset:` and with distributions
where coefficients, data or parameters stood. [Datasets](../../datasets.md) explains them."""
_TRAINING = """\
A file for `sciml train`: of an operator (`data`, `operator`, `training`), or of a preconditioner
(`data`, `preconditioner`). [Training](../../training.md) explains them."""


def mentioned(schema: Node, start: Any) -> list[str]:
    """The names of the mappings below one, level by level."""
    names: list[str] = []
    waiting: list[Any] = [start]
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, Mapping):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name and name not in names:
                names.append(name)
                waiting.append(schema["$defs"][name])
            waiting += [value for key, value in node.items() if key != "$defs"]
    return names


def quiet(types: Any) -> Node:
    """A type adapter's schema; that some defaults have no JSON is no news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema: Node = types.json_schema()
    return schema


def dataclasses_below(*roots: type) -> dict[str, type]:
    """The dataclasses in the fields of some, and in theirs, by name."""
    found: dict[str, type] = {}
    waiting: list[Any] = list(roots)
    while waiting:
        hint = waiting.pop()
        waiting += typing.get_args(hint)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint.__name__ not in found:
            found[hint.__name__] = hint
            # The marker in front of fields by keyword is no type, says Python 3.10.
            waiting += typing.get_type_hints(hint, localns={"KW_ONLY": object}).values()
    return found


def alternatives(node: Node) -> tuple[str, ...]:
    """The names of the mappings that a value may be."""
    names: list[str] = []
    for key in ("oneOf", "anyOf"):
        for entry in node.get(key, ()):
            names += [entry["$ref"].rpartition("/")[2]] if "$ref" in entry else alternatives(entry)
    return tuple(names)


def keys(node: Node) -> Node:
    """The keys of a mapping with their types."""
    found: Node = node.get("properties", {})
    return found


def pages(book: Book, chapter: Chapter) -> Iterator[str]:
    """The Markdown of a chapter, block by block."""
    yield f"# {chapter.title}\n\n{chapter.words}"
    for name in chapter.names:
        node = book.schema if name == "Spec" else book.schema["$defs"][name]
        if not keys(node):
            yield f"## {name} {{ #{name.lower()} }}\n\n{type_of(book, node)}."
            continue
        cls = book.classes.get(name)
        lead, said, rest = explained(cls)
        yield f"## {heading(node, name)} {{ #{name.lower()} }}\n\n{lead}"
        rows = [
            f"| `{key}` | {type_of(book, value)} | {default(cls, key, value, node)} "
            f"| {said.get(key) or usual(key, lead)} |"
            for key, value in keys(node).items()
            if not (key == "kind" and "const" in value)
        ]
        if rows:
            yield "\n".join(["| key | type | default | |", "|---|---|---|---|", *rows])
        if rest:
            yield rest


def usual(key: str, lead: str) -> str:
    """What a key means everywhere, unless the first paragraph has told."""
    return "" if f"``{key}``" in lead else _COMMON.get(key, "")


def heading(node: Node, name: str) -> str:
    """The kind that one writes, or the name of a mapping that has none."""
    kind = keys(node).get("kind", {})
    return f"`{kind['const']}`" if "const" in kind else _TITLES.get(name, name)


def type_of(book: Book, node: Node) -> str:
    """What a value may be, in words."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name == "AnySolver":
            return book.choice
        return f"[{heading(book.schema['$defs'][name], name)}]({book.place(name)})"
    if "anyOf" in node or "oneOf" in node:
        return one_of(book, node)
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    kind = node.get("type")
    if kind == "array":
        return array(book, node)
    if kind == "object":
        inside = node.get("additionalProperties")
        if isinstance(inside, Mapping):
            return f"mapping from names to {type_of(book, inside)}"
        shown = ", ".join(f"{key}: {type_of(book, value)}" for key, value in keys(node).items())
        return f"mapping ({shown})"
    if kind == "string":
        return "expression" if "expression" in node.get("description", "") else "text"
    return _PLAIN.get(str(kind), "anything")


def one_of(book: Book, node: Node) -> str:
    """Alternatives; the long list of preconditioners by its name."""
    entries = [*node.get("anyOf", ()), *node.get("oneOf", ())]
    names = alternatives(node)
    if {"Jacobi", "SSOR", "IncompleteCholesky"} <= set(names):
        return "a [preconditioner](preconditioners.md)"
    shown = [type_of(book, entry) for entry in entries if entry.get("type") != "null"]
    return (", " if len(shown) > 3 else " or ").join(dict.fromkeys(shown))


def array(book: Book, node: Node) -> str:
    """A list, of as many entries as are said."""
    if "prefixItems" in node:
        return f"[{', '.join(type_of(book, entry) for entry in node['prefixItems'])}]"
    return f"list of {type_of(book, node.get('items', {}))}"


def default(cls: type | None, key: str, value: Node, node: Node) -> str:
    """The default as one would write it."""
    if key in node.get("required", ()):
        return "required"
    if "default" in value:
        return f"`{json.dumps(value['default'])}`" if value["default"] != "" else ""
    field = next((f for f in dataclasses.fields(cls) if f.name == key), None) if cls else None  # type: ignore[arg-type]
    if field is None:
        return ""
    given = field.default
    if field.default_factory is not dataclasses.MISSING:
        given = field.default_factory()
    return "" if given is None or given is dataclasses.MISSING else written(given)


def written(value: Any) -> str:
    """A default value as YAML; of a mapping, what differs from its own defaults."""
    from sciml.core.run.serialise import dump

    plain = dump(value)
    if dataclasses.is_dataclass(value) and "kind" not in plain:
        return ""  # its own defaults stand with it
    if isinstance(plain, Mapping) and "kind" in plain:
        try:
            own: Any = dump(type(value)())
        except TypeError:
            own = {}
        plain = {k: v for k, v in plain.items() if k == "kind" or v != own.get(k)}
        return f"`{{{', '.join(f'{k}: {v}' for k, v in plain.items())}}}`"
    return f"`{json.dumps(plain)}`" if plain else ""


def explained(cls: type | None) -> tuple[str, dict[str, str], str]:
    """A docstring's first paragraph, what it says of each key, and what is left."""
    if cls is None or not cls.__doc__:
        return "", {}, ""
    lead, *paragraphs = inspect.cleandoc(cls.__doc__).split("\n\n")
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    said: dict[str, str] = {}
    rest: list[str] = []
    for paragraph in paragraphs:
        for sentence in sentences(paragraph, fields):
            subjects = named(sentence, fields)
            text = re.sub(r"^`{0,2}\w+`{0,2}: ", "", sentence) if len(subjects) == 1 else sentence
            for key in subjects:
                said[key] = f"{said[key]} {text}" if key in said else text
            rest += [] if subjects else [sentence]
    return " ".join(lead.split()), {k: table_cell(v) for k, v in said.items()}, " ".join(rest)


def sentences(paragraph: str, fields: set[str]) -> list[str]:
    """Sentences, those of a list of keys whole."""
    starts = rf"^(?=(?:{'|'.join(map(re.escape, sorted(fields)))})(?:, \w+)*: )"
    listed = [" ".join(part.split()) for part in re.split(starts, paragraph, flags=re.M) if part]
    found: list[str] = []
    for part in listed:
        one = re.match(r"\w+(?:, \w+)*: ", part) and len(listed) > 1
        found += [part] if one else re.split(r"(?<=\.) (?=[A-Z`])", part)
    return found


def named(sentence: str, fields: set[str]) -> list[str]:
    """The keys that a sentence is about."""
    if match := re.match(r"(\w+(?:, \w+)*): ", sentence):
        return [name for name in match[1].split(", ") if name in fields]
    quoted = re.findall(r"``(\w+)``", sentence)
    return [name for name in dict.fromkeys(quoted) if name in fields]


def table_cell(text: str) -> str:
    """Text without what would end a cell."""
    return (text[:1].upper() + text[1:]).replace("|", "\\|")
