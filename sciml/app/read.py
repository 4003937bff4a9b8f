"""The reader of specs: a YAML file that any command takes, read into the objects that it states.

``load_spec("configs/darcy.yaml")`` gives the very objects that one would write in Python. Which
kind of spec a file holds is told by its keys. Whatever is wrong with it is one line,
``file:line:column: key: message``.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.app.spec import Spec
from sciml.app.yaml import (
    Key,
    Place,
    Source,
    SpecError,
    UnknownKey,
    describe,
    dotted,
    override,
    parse_yaml,
    path_of,
    read_yaml,
    tuples,
)
from sciml.core.errors import InputError, did_you_mean
from sciml.core.lazy import exported
from sciml.core.problem.grid import AXES, MOST_DIMENSIONS, axis_names

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from sciml.app.coefficients import Scope
    from sciml.app.training_spec import OperatorSpec, PreconditionerSpec
    from sciml.datasets.family import Family


@dataclass(frozen=True)
class Kind:
    """A kind of spec: what it is called, the command that takes it, and its keys.

    ``parts``: gives the dataclass that states it, and what may stand wherever an interface does.
    """

    name: str
    command: str
    keys: tuple[str, ...]
    parts: Callable[[], tuple[type, list[type]]]


def solver_classes() -> list[type]:
    """The classes that may stand as ``solver:``, the default first."""
    import sciml.solvers

    default = sciml.solvers.Auto
    return sorted(exported(sciml.solvers, "run"), key=lambda cls: cls is not default)


def _family() -> tuple[type, list[type]]:
    from sciml.datasets.family import Family

    return Family, solver_classes()


def _operator_training() -> tuple[type, list[type]]:
    from sciml.app.training_spec import OperatorSpec
    from sciml.operators.module import choices

    return OperatorSpec, choices()


def _preconditioner_training() -> tuple[type, list[type]]:
    import sciml.solvers
    from sciml.app.training_spec import PreconditionerSpec

    return PreconditionerSpec, exported(sciml.solvers, "train")


PROBLEM = Kind(
    "a problem", "solve", ("problem", "grid", "solver"), lambda: (Spec, solver_classes())
)
FAMILY = Kind("a family of problems", "generate", ("problem", "grid", "dataset"), _family)
OPERATOR = Kind("a training spec", "train", ("data", "operator", "training"), _operator_training)
PRECONDITIONER = Kind(
    "a training spec of a preconditioner",
    "train",
    ("data", "preconditioner"),
    _preconditioner_training,
)
KINDS = (PROBLEM, FAMILY, OPERATOR, PRECONDITIONER)


def kind_of(source: Source) -> Kind | None:
    """Which kind of spec the keys are of; None where they are of none."""
    keys = source.data.keys() if isinstance(source.data, dict) else set()
    if "problem" in keys:
        return FAMILY if "dataset" in keys else PROBLEM
    if "preconditioner" in keys:
        return PRECONDITIONER
    return OPERATOR if {"operator", "training"} & keys else None


def read(source: Source, overrides: Iterable[str] = (), takes: Sequence[Kind] = KINDS) -> Any:
    """What the YAML in ``source`` states, as the dataclass of its kind.

    ``overrides`` such as ``"solver.rtol=1e-6"`` replace its values. ``takes``: the kinds that the
    caller has use for. Raises SpecError, placed at line and column, for a spec of another kind, and
    for anything that is wrong with it.
    """
    from pydantic import ValidationError

    kind = kind_of(source) or takes[0]
    if kind not in takes:
        message = f"this spec is for sciml {kind.command}, not for sciml {takes[0].command}"
        raise SpecError(message, source.place())
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        keys = ", ".join(kind.keys)
        message = f"a spec is a mapping with the keys {keys}; sciml new writes one"
        raise SpecError(message, source.place())
    context = _scope(source, random=kind is FAMILY)
    try:
        spec = _adapter(kind).validate_python(tuples(source.data), context=context)
    except ValidationError as error:
        raise _first_error(error, source) from None
    if kind in (PROBLEM, FAMILY) and spec.solver is None:
        spec = dataclasses.replace(spec, solver=solver_classes()[0]())
    return spec if kind is FAMILY else dataclasses.replace(spec, source=source)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Any:
    """The spec in a YAML file, of whichever kind; see :func:`read`."""
    return read(read_yaml(path), overrides)


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """The problem in a YAML file; ``overrides`` such as ``"solver.rtol=1e-6"`` replace its values.

    Raises InputError, placed at line and column, for anything that is wrong with it. Field files
    are found relative to the spec.
    """
    return read_spec(read_yaml(path), overrides)


def read_spec(source: Source, overrides: Iterable[str] = ()) -> Spec:
    """The problem in YAML that was read before; see :func:`load_spec`."""
    spec: Spec = read(source, overrides, (PROBLEM,))
    return spec


def load_family(path: str | Path, overrides: Iterable[str] = ()) -> Family:
    """The family in a YAML file; ``overrides`` such as ``"dataset.seed=1"`` replace its values.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    return read_family(read_yaml(path), overrides)


def read_family(source: Source, overrides: Iterable[str] = ()) -> Family:
    """The family in YAML that was read before; see :func:`load_family`."""
    family: Family = read(source, overrides, (FAMILY,))
    return family


def load_training(
    path: str | Path, overrides: Iterable[str] = ()
) -> OperatorSpec | PreconditionerSpec:
    """The training spec in a YAML file; ``overrides`` such as ``"training.epochs=10"``.

    Raises InputError, placed at line and column, for anything that is wrong with it.
    """
    return read_training(read_yaml(path), overrides)


def read_training(
    source: Source, overrides: Iterable[str] = ()
) -> OperatorSpec | PreconditionerSpec:
    """The training spec in YAML that was read before; see :func:`load_training`."""
    spec: OperatorSpec | PreconditionerSpec = read(source, overrides, (OPERATOR, PRECONDITIONER))
    return spec


def named_by(source: Source | None, key: str, name: str) -> Source:
    """The YAML file ``name``, relative to the spec that names it at ``key``.

    Raises SpecError, placed there, where it cannot be read.
    """
    if source is None:
        return read_yaml(name)
    path = Path(source.name).parent / name
    try:
        return read_yaml(path)
    except SpecError:
        raise
    except InputError as error:
        raise SpecError(error.message, source.place(path_of(key)), key) from None


def dataset_family(folder: str | Path) -> Family:
    """The family that the dataset in ``folder`` was made from, as its manifest states it."""
    from sciml.datasets.foreign import is_foreign
    from sciml.datasets.store import MANIFEST, read_manifest

    home = Path(folder)
    if home.name.startswith("at-") and not (home / MANIFEST).is_file():
        home = home.parent
    manifest = read_manifest(home)
    foreign = manifest is None and is_foreign(Path(folder))
    if foreign or (manifest is not None and "source" in manifest.spec):
        raise InputError(
            f"'{folder}' is another program's and states no equation, by which anything could be "
            "solved or certified"
        )
    if manifest is None:
        raise InputError(f"'{folder}' is no dataset: no {MANIFEST}; sciml generate makes one")
    if not manifest.spec:
        raise InputError(f"'{home / MANIFEST}' does not say which family the dataset was made from")
    return read_family(parse_yaml(json.dumps(manifest.spec, indent=2), str(home / MANIFEST)))


def json_schema(kind: Kind = PROBLEM) -> dict[str, Any]:
    """The JSON Schema of a kind of spec, for editors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some defaults have no JSON is no news
        schema = _adapter(kind).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _adapter(kind: Kind) -> TypeAdapter[Any]:
    root, choices = kind.parts()
    return _adapter_of(root, tuple(choices))  # which grow where somebody registers one


@cache
def _adapter_of(root: type, choices: tuple[type, ...]) -> TypeAdapter[Any]:
    from sciml.app.coefficients import FIELD_TYPES
    from sciml.app.schema import adapter

    return adapter(root, choices, FIELD_TYPES)


def explain(error: InputError, source: Spec | Source | None = None) -> str:
    """The one line that tells a user what is wrong, and where in the spec."""
    text = source.source if isinstance(source, Spec) else source
    if isinstance(error, SpecError) or text is None:
        return str(error)
    if error.key is None:
        return f"{text.name}: {error.message}"
    return f"{text.locate(error.key)}: {error.key}: {error.message}"


def _scope(source: Source, *, random: bool) -> Scope:
    """What the coefficients need to know before anything is checked: axes, names, time."""
    from sciml.app.coefficients import SOLUTION, Scope, tables_of
    from sciml.core.problem.equation import COMPLEX_KINDS

    problem = source.data.get("problem")
    stated: dict[str, Any] = problem if isinstance(problem, dict) else {}
    domain, names, equation = (stated.get(k) for k in ("domain", "parameters", "equation"))
    lower = _extents(domain) if isinstance(domain, dict) else None
    most = MOST_DIMENSIONS
    dimension = min(max(len(lower), 1), most) if isinstance(lower, list) else 3
    parameters = tuple(names) if isinstance(names, dict) else ()
    solution: tuple[str, ...] = SOLUTION
    if isinstance(equation, dict):
        fields = _unknown_fields(equation, dimension) + _derivatives(stated, equation, dimension)
        solution = tuple(n for n in dict.fromkeys(fields) if n not in parameters)
    timed = stated.get("time") is not None
    folder, meshed = Path(source.name).parent, not {"grid", "points"} & source.data.keys()
    tables = tables_of(names, folder)
    complex_ = isinstance(equation, dict) and str(equation.get("kind")) in COMPLEX_KINDS
    return Scope(folder, dimension, parameters, solution, timed, meshed, random, complex_, tables)


def _derivatives(
    stated: Mapping[str, Any], equation: Mapping[str, Any], dimension: int
) -> tuple[str, ...]:
    """The derivatives of any order that residuals which are written out name."""
    from sciml.core.problem.equation import derivative
    from sciml.core.problem.reader import free_names

    if equation.get("kind") != "residual":
        return ()
    boundary, obstacle = stated.get("boundary"), stated.get("obstacle")
    sides = [*boundary.values()] if isinstance(boundary, dict) else []
    sides += [obstacle.get("boundary")] if isinstance(obstacle, dict) else []
    given = [part.get("residuals") for part in (equation, *sides) if isinstance(part, dict)]
    integrals = equation.get("integrals")
    if isinstance(integrals, dict):
        given += [[part.get("of")] for part in integrals.values() if isinstance(part, dict)]
    named = frozenset().union(*(free_names(g) for g in given if isinstance(g, list)))
    placed = stated.get("domain") is not None or boundary
    axes = (*(axis_names(dimension) if placed else ()), "t")
    functions = _functions(equation)
    found = {n for n in named if derivative(n, functions, axes) is not None}
    return (*sorted(found), *(map(str, integrals) if isinstance(integrals, dict) else ()))


def _functions(equation: Mapping[str, Any]) -> tuple[str, ...]:
    given = equation.get("functions", ("u",))
    return tuple(map(str, given)) if isinstance(given, list) else ("u",)


def _extents(domain: dict[str, Any]) -> Any:
    """As many entries as a domain has axes."""
    shapes = domain.get("shapes")
    if not (isinstance(shapes, dict) and shapes):
        return domain.get("lower")
    first = next(iter(shapes.values()))
    given = first if isinstance(first, dict) else {}
    if isinstance(given.get("ball"), list):
        return given["ball"][:-1]
    block = given.get("block")
    if isinstance(block, list) and block:
        return block[0]
    return [0, 0, 0] if {"box", "sphere", "cylinder"} & given.keys() else [0, 0]


_FLOWS = ("stokes", "navier_stokes")  # whose force may name every component


def _unknown_fields(equation: dict[str, Any], dimension: int) -> tuple[str, ...]:
    """The names of the fields that the equation is for, and of their derivatives."""
    system = equation.get("equations")
    fields = _fields_of("u", equation) if equation.get("kind") in _FLOWS else ("u",)
    fields = _functions(equation) if equation.get("kind") == "residual" else fields
    if isinstance(system, dict):
        fields = tuple(f for name, part in system.items() for f in _fields_of(str(name), part))
    axes = AXES if dimension <= len(AXES) else axis_names(dimension)
    return tuple(f"{field}{axis}" for field in fields for axis in ("", *axes))


def _fields_of(name: str, part: Any) -> tuple[str, ...]:
    """Those of an equation of a system, whose kind may have names of its own."""
    from sciml.core.problem.equation import COMPONENTS, KINDS

    kind = part.get("kind", "general") if isinstance(part, dict) else "general"
    return (name,) if kind in KINDS else (*COMPONENTS, "p")


_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "none_required": "nothing",
}


def _first_error(error: ValidationError, source: Source) -> SpecError:
    """The first fault in the order of the text, its place found and its reason in our words."""
    faults = _nearest([_fault(entry, source) for entry in error.errors(include_url=False)])
    place, path = min(
        ((place, path) for place, path, _, _ in faults), key=lambda f: (f[0].line, f[0].column)
    )
    here = [fault for fault in faults if fault[1] == path]
    expected = [wanted for _, _, _, wanted in here if wanted]
    message = here[0][2]
    if expected:
        message = f"expected {' or '.join(dict.fromkeys(expected))}; {message}"
    return SpecError(message, place, dotted(path) or None)


Fault = tuple[Place, Key, str, str]


def _nearest(faults: list[Fault]) -> list[Fault]:
    """Without those of the alternatives that what was given does not even look like.

    Where one of several was expected, a list or a mapping say, only that one complains of what
    stands inside.
    """
    paths = [path for _, path, _, _ in faults]

    def foreign(fault: Fault) -> bool:
        _, path, message, wanted = fault
        deeper = any(len(p) > len(path) and p[: len(path)] == path for p in paths)
        return deeper and bool(wanted or message.startswith("expected"))

    return [fault for fault in faults if not foreign(fault)]


def _fault(entry: Mapping[str, Any], source: Source) -> Fault:
    """Place, path, message, and for a wrong type what was expected."""
    path, kind = source.find(entry["loc"]), entry["type"]
    cause = entry.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        path = _cause_path(path, cause, source)
        return source.place(path, of_key=isinstance(cause, UnknownKey)), path, cause.message, ""
    if kind == "missing":
        return source.place(path), path, f"'{entry['loc'][-1]}' is missing", ""
    got = f"got {describe(entry['input'])}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        tail = did_you_mean(str(entry["input"]), known) if known else ""
        return source.place(path), path, got + tail, entry["ctx"]["expected"]
    if kind in _EXPECTED:
        return source.place(path), path, got, _EXPECTED[kind]
    return source.place(path), path, f"{entry['msg'].lower()}; {got}", ""


def _cause_path(path: Key, cause: InputError, source: Source) -> Key:
    """Where an InputError raised while ``path`` was built belongs: at its key, if that is below.

    A key that starts with a dot is relative; an option's own key (``solver.rtol``) is taken by its
    last part where the object stands elsewhere, as a preconditioner does.
    """
    if cause.key is None:
        return path
    if cause.key.startswith("."):
        return (*path, *path_of(cause.key))
    absolute = path_of(cause.key)
    if absolute[: len(path)] == path and source.find(absolute)[: len(path)] == path:
        return absolute
    return (*path, absolute[-1]) if (*path, absolute[-1]) in source.values else path
