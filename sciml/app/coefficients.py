"""What a spec may write for a coefficient, checked where it stands.

A coefficient is a number, an expression of the coordinates and parameters, a table, or a field
file; where a plain number stands, it may be an expression without names such as ``2*pi``. K may be
a list of d of them (diagonal) or d lists of d (full tensor), b a list of d.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import PlainValidator, ValidationError, ValidationInfo, WithJsonSchema
from typing_extensions import TypeAliasType

from sciml.app.record import fields_of_run
from sciml.app.yaml import UnknownKey, describe
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.condition import DIRICHLET_OF_STATE
from sciml.core.problem.equation import (
    RUNNING,
    Elasticity,
    Equation,
    Helmholtz,
    Hyperelasticity,
    Integral,
    NavierStokes,
    Plasticity,
    Sponge,
    Stokes,
    WrittenOut,
)
from sciml.core.problem.expression import CONSTANTS, FUNCTIONS, Expression, level_set, parse
from sciml.core.problem.grid import AXES, Box, axis_names
from sciml.core.problem.mesh_file import MeshFile, check_suffix
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.core.problem.reader import (
    IMAGINARY,
    NO_NORMAL,
    NORMAL,
    Context,
    FieldFile,
    Normal,
    Regions,
    RunField,
    Unknown,
    compile,
    state_names,
)
from sciml.core.problem.reader import expression as read_text
from sciml.core.problem.table import Table, curve
from sciml.core.problem.unknown import Law, Network, UnknownField
from sciml.core.run.quantities import Line, Output, Quantity

if TYPE_CHECKING:
    from sciml.datasets.distributions import Distribution

T = TypeVar("T")
# The solution and its derivatives, in an equation's coefficients.
SOLUTION = state_names(("u",))
RESERVED = (*AXES, "t", "ut", *SOLUTION, *NORMAL, *CONSTANTS, *FUNCTIONS)
_NO_TIME = "the problem has no time: {end: ...}"
_DATA_ONLY = "only an equation's coefficients, neumann and robin data may depend on the solution"
_SUFFIXES = (".npy", ".h5", ".hdf5")
# What only a table has.
_OF_TABLES = {"table", "columns", "of"}


@dataclass(frozen=True)
class Scope:
    """What an expression or a file name in a spec is read against.

    ``solution``: the names of the unknown fields and their derivatives. ``timed``: whether t is
    known. ``meshed``: the dimension is the mesh's, known only once that is read.
    ``complex``: whether the solution is, and the imaginary unit known.
    ``random``: distributions are admitted, as in a family. ``tables``: those among the parameters.
    ``normal``: whether the outward normal is known. ``no_state``: why the solution is not, where it
    is not.
    """

    folder: Path
    dimension: int
    parameters: tuple[str, ...] = ()
    solution: tuple[str, ...] = SOLUTION
    timed: bool = False
    meshed: bool = False
    random: bool = False
    complex: bool = False
    tables: tuple[tuple[str, Table], ...] = ()
    normal: bool = False
    no_state: str = _DATA_ONLY

    def context(self, of_solution: bool = False) -> Context:
        """Which names mean what here."""
        axes = axis_names(self.dimension)
        absent = f"the domain has only the coordinates {', '.join(axes)}"
        refused = {name: absent for name in AXES if name not in axes}
        refused |= dict.fromkeys(self.solution, self.no_state) | {"t": _NO_TIME}
        refused |= dict.fromkeys(NORMAL[: self.dimension], NO_NORMAL)
        refused |= dict.fromkeys(NORMAL[self.dimension :], absent)
        tables = dict(self.tables)
        return Context(
            axes,
            self.timed,
            self.solution if of_solution else (),
            (*(n for n in self.parameters if n not in tables), *(IMAGINARY,) * self.complex),
            NORMAL[: self.dimension] if self.normal else (),
            tables=self.tables,
            refused=tuple(refused.items()),
        )

    def expression(self, text: str, of_solution: bool = False) -> Expression:
        """``text`` parsed; raises InputError for a name that does not exist here."""
        if text.strip().lower().endswith(_SUFFIXES):
            raise InputError(f"values from a file are {{file: {text.strip()[:60]}}}; got a text")
        return read_text(text, self.context(of_solution))


def tables_of(parameters: Any, folder: Path) -> tuple[tuple[str, Table], ...]:
    """The tables among a spec's parameters, as far as they say what they are of."""
    found = []
    for name, value in parameters.items() if isinstance(parameters, Mapping) else ():
        if isinstance(value, Mapping) and "of" in value:
            try:
                found.append((str(name), _table(value, folder)))
            except InputError:
                continue
    return tuple(found)


def number(value: Any, scope: Scope | None = None) -> float:
    """A real number, or an expression without names; a boolean is none."""
    if isinstance(value, str):
        try:
            value = float(parse(value, ())())
        except InputError as error:
            raise InputError(f"expected a number; got {describe(value)}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"expected a number; got {describe(value)}")
    if not math.isfinite(value):
        raise InputError("expected a finite number")
    return float(value)


def numbers(value: Any, scope: Scope) -> tuple[float, ...]:
    """A list of numbers."""
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list of numbers; got {describe(value)}")
    return tuple(_at(f".{i}", number, entry) for i, entry in enumerate(value))


def scalar(
    value: Any, scope: Scope, of_solution: bool = False
) -> float | str | FieldFile | RunField | Table | Regions | Unknown | Law | Distribution:
    """A coefficient with one value per point; ``of_solution``: it may depend on u and its slope."""
    if isinstance(value, str):
        if scope.expression(value, of_solution).is_mask:
            raise InputError(
                f"'{value[:60]}' is a condition, not a number; write where(condition, a, b)"
            )
        return value
    if isinstance(value, Mapping):
        if "kind" in value:
            return _distribution(value, scope)
        if "unknown" in value:
            _check_keys(value, ("unknown",))
            return Unknown(_at(".unknown", _unknown_field, value["unknown"]))
        if "network" in value:
            _check_keys(value, ("network",))
            return Law(_at(".network", _network, value["network"], scope))
        if value.keys() & _OF_TABLES:
            table = _table(value, scope.folder)
            _at(".of", compile, table, scope.context(of_solution), "")
            return table
        if "run" in value:
            return _field_of_run(value, scope)
        return _regions(value, scope) if "regions" in value else _field_file(value, scope)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(
            "expected a number, an expression, {file: name.npy} or {table: name.csv, of: ...}; got "
            + describe(value)
        )
    return number(value)


def of_solution(
    value: Any, scope: Scope
) -> float | str | FieldFile | RunField | Table | Regions | Unknown | Law | Distribution:
    """A coefficient that may depend on the solution."""
    return scalar(value, scope, of_solution=True)


def scalar_or_vector(value: Any, scope: Scope) -> Any:
    """One value, or a list of d for a velocity or a displacement."""
    if not isinstance(value, (list, tuple)):
        return scalar(value, scope)
    return tuple(_at(f".{i}", scalar, entry, scope) for i, entry in enumerate(value))


def side_data(value: Any, scope: Scope) -> Any:
    """Neumann or Robin data, which may depend on the solution and on the outward normal."""
    scope = replace(scope, normal=True)
    if isinstance(value, Mapping) and "normal" in value:
        return _normal(value, of_solution, scope)
    if not isinstance(value, (list, tuple)):
        return of_solution(value, scope)
    return tuple(_at(f".{i}", of_solution, entry, scope) for i, entry in enumerate(value))


def gap(value: Any, scope: Scope) -> Any:
    """The way to what a side may touch, which may depend on the outward normal."""
    return scalar(value, replace(scope, normal=True))


def _normal(value: Mapping[str, Any], read: Callable[[Any, Scope], Any], scope: Scope) -> Normal:
    """The component along the normal, ``{normal: value}``."""
    _check_keys(value, ("normal",))
    return Normal(_at(".normal", read, value["normal"], scope))


def share_of_waves(value: Any, scope: Scope) -> Any:
    """True, or which share of a wave's own admittance an absorbing side has."""
    return value if isinstance(value, bool) else scalar(value, scope)


def part_of_side(value: Any, scope: Scope) -> str:
    """The condition that holds on a part of a boundary."""
    if not isinstance(value, str):
        raise InputError(f"expected a condition such as x > 0.5; got {describe(value)}")
    level_set(scope.expression(value))
    return value


def by_name(value: Any, scope: Scope) -> Any:
    """One coefficient, or a mapping of the fields' names to theirs."""
    if isinstance(value, Mapping) and "run" in value:
        return _of_run(value, scope)
    if isinstance(value, (list, tuple)):
        fields = [name for name in scope.solution if name[:-1] not in scope.solution]
        names, tail = fields, ""
        if len(fields) == 1:
            names, tail = [*fields, "ut"], ", ut of an equation of second order in time"
        told = ", ".join(f"{name}: ..." for name in names)
        raise InputError(
            f"several initial data go by name, {{{told}}}{tail}; got {describe(value)}"
        )
    if not isinstance(value, Mapping) or {"file", "regions", "kind", *_OF_TABLES} & value.keys():
        return scalar(value, scope)
    return {name: _at(f".{name}", scalar_or_vector, v, scope) for name, v in value.items()}


def energy(value: Any, scope: Scope) -> str:
    """An energy density, an expression of the solution and its slope."""
    if not isinstance(value, str):
        raise InputError(f"expected an expression such as 0.5*ux**2 - u; got {describe(value)}")
    return str(of_solution(value, scope))


def displacement(value: Any, scope: Scope) -> Any:
    """A Dirichlet value, which may name the normal; null in a list leaves a component free."""
    scope = replace(scope, normal=True, no_state=DIRICHLET_OF_STATE)
    if isinstance(value, Mapping) and "normal" in value:
        return _normal(value, scalar, scope)
    if not isinstance(value, (list, tuple)):
        return scalar(value, scope)
    return tuple(
        None if entry is None else _at(f".{i}", scalar, entry, scope)
        for i, entry in enumerate(value)
    )


def observations(value: Any, scope: Scope) -> str | dict[str, tuple[float | None, ...]]:
    """A CSV file, found relative to the spec, or columns of numbers by name."""
    if isinstance(value, Mapping):
        return {name: _column(name, numbers, value) for name, numbers in value.items()}
    if not isinstance(value, str):
        raise InputError(
            "expected the name of a CSV file, or columns {x: [...], u: [...]}; got "
            + describe(value)
        )
    path = scope.folder / value
    if "\0" in value or not path.is_file():
        raise InputError(f"cannot find the file '{value}' in '{scope.folder}'")
    return str(path)


def noise(value: Any, scope: Scope) -> float | dict[str, float]:
    """A standard deviation, or one by the name of each field that was observed."""
    if isinstance(value, Mapping):
        return {name: _at(f".{name}", number, entry) for name, entry in value.items()}
    return number(value)


def _column(name: str, numbers: Any, columns: Mapping[str, Any]) -> tuple[float | None, ...]:
    """A list of numbers, or nothing, as long as the first of the columns."""
    if not isinstance(numbers, (list, tuple)) or not numbers:
        raise InputError(f"expected a list of numbers; got {describe(numbers)}", f".{name}")
    for index, number in enumerate(numbers):
        if isinstance(number, bool) or not isinstance(number, (int, float, type(None))):
            raise InputError(f"expected a number; got {describe(number)}", f".{name}.{index}")
    first, wanted = next(iter(columns.items()))
    if len(numbers) != len(wanted):
        raise InputError(
            f"columns are equally long; {name} has {len(numbers)}, {first} {len(wanted)}",
            f".{name}",
        )
    return tuple(None if number is None else float(number) for number in numbers)


def asked(value: Any, scope: Scope) -> str | float:
    """What a quantity is of, an expression: which names it may use, its place decides."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"expected an expression such as u or ux**2; got {describe(value)}")
    return number(value)


def points(value: Any, scope: Scope) -> dict[str, tuple[float, ...]]:
    """Points by name."""
    if not isinstance(value, Mapping):
        raise InputError(f"expected points by name, such as tip: [1, 0.5]; got {describe(value)}")
    return {str(n): _at(f".{n}", numbers, point, scope) for n, point in value.items()}


def mesh_path(value: Any, scope: Scope) -> str:
    """A mesh's file, found relative to the spec."""
    if not isinstance(value, str):
        raise InputError(f"expected the name of a file; got {describe(value)}")
    check_suffix(Path(value))
    path = scope.folder / value
    if "\0" in value or not path.is_file():
        raise InputError(f"cannot find the file '{value}' in '{scope.folder}'")
    return str(path)


def vector(value: Any, scope: Scope) -> tuple[Any, ...]:
    """A list of d coefficients, which may depend on the solution."""
    listed = isinstance(value, (list, tuple))
    if scope.meshed and listed and 1 <= len(value) <= scope.dimension:
        scope = replace(scope, dimension=len(value))
    if not listed or len(value) != scope.dimension:
        got = f"{len(value)} entries" if isinstance(value, (list, tuple)) else describe(value)
        raise InputError(
            f"expected a list of {scope.dimension} coefficients, one per axis; got {got}"
        )
    return tuple(_at(f".{i}", of_solution, entry, scope) for i, entry in enumerate(value))


def residuals(value: Any, scope: Scope) -> tuple[str, ...]:
    """Texts of what vanishes, which may name the solution and its derivatives."""
    if not isinstance(value, (list, tuple)):
        raise InputError(
            f'expected a list of what vanishes, such as ["uxxxx - 1"]; got {describe(value)}'
        )
    return tuple(_at(f".{i}", _vanishing, entry, scope) for i, entry in enumerate(value))


def _vanishing(value: Any, scope: Scope) -> str:
    if not isinstance(value, str):
        raise InputError(f"expected an expression such as uxx - sin(x); got {describe(value)}")
    return str(of_solution(value, scope))


def integrand(value: Any, scope: Scope) -> str:
    """What is integrated, in which s runs along the axis."""
    return _vanishing(value, replace(scope, solution=(*scope.solution, RUNNING)))


def residuals_of_side(value: Any, scope: Scope) -> tuple[str, ...]:
    """The same where the outward normal is known."""
    return residuals(value, replace(scope, normal=True))


def strains(value: Any, scope: Scope) -> Any:
    """One value that may depend on the solution, or one for each axis of the material."""
    if not isinstance(value, (list, tuple)):
        return of_solution(value, scope)
    return tuple(_at(f".{i}", of_solution, entry, scope) for i, entry in enumerate(value))


def frame(value: Any, scope: Scope) -> Any:
    """Directions of axes, each a list of components."""
    if not isinstance(value, (list, tuple)):
        raise InputError(
            f"expected directions, such as [[1, 0, 0], [0, 1, 0]]; got {describe(value)}"
        )
    return tuple(_at(f".{i}", scalar_or_vector, row, scope) for i, row in enumerate(value))


def tensor(value: Any, scope: Scope) -> Any:
    """A scalar, a list of d (diagonal) or d lists of d (full symmetric tensor)."""
    if not isinstance(value, (list, tuple)):
        return of_solution(value, scope)
    d = min(len(value), scope.dimension) if scope.meshed else scope.dimension
    rows = [isinstance(row, (list, tuple)) for row in value]
    if len(value) != d or (any(rows) and not all(rows)):
        raise InputError(
            f"expected one coefficient, a list of {d} (diagonal) or {d} lists of {d} (full); "
            f"got a list of {len(value)}"
        )
    if not any(rows):
        return vector(value, scope)
    return tuple(_at(f".{i}", vector, row, scope) for i, row in enumerate(value))


def inside(value: Any, scope: Scope) -> str:
    """The condition that holds within an obstacle."""
    if not isinstance(value, str):
        raise InputError(f"expected a condition such as x**2 + y**2 < 0.04; got {describe(value)}")
    level_set(scope.expression(value))
    return value


def exact(value: Any, scope: Scope) -> float | str:
    """The exact solution: a number or an expression."""
    if isinstance(value, str):
        return str(scalar(value, scope))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"expected a number or an expression; got {describe(value)}")
    return number(value)


def parameters(value: Any, scope: Scope) -> dict[str, Any]:
    """Named numbers, or lists of numbers of one length: a batch."""
    if not isinstance(value, Mapping):
        raise InputError(f"expected a mapping of names to numbers; got {describe(value)}")
    named = {name: _at(f".{name}", _parameter, name, entry, scope) for name, entry in value.items()}
    lengths = {name: len(entry) for name, entry in named.items() if isinstance(entry, tuple)}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise InputError(f"lists of parameters make a batch and need one length; {listed}")
    return named


def _parameter(name: str, value: Any, scope: Scope) -> Any:
    if name in (*RESERVED, *axis_names(scope.dimension)):
        raise InputError(f"'{name}' already has a meaning in expressions; choose another name")
    if not (name.isascii() and name.isidentifier()):
        raise InputError(f"'{name}' is no name; use letters, digits and _, a letter first")
    if isinstance(value, Mapping) and "kind" in value:
        return _distribution(value, scope, scalars_only=True)
    if isinstance(value, Mapping) and value.keys() & _OF_TABLES:
        return _table(value, scope.folder)
    if isinstance(value, Mapping) and "unknown" in value:
        _check_keys(value, ("unknown", "lower", "upper"))
        return Unknown(**{key: _at(f".{key}", number, entry) for key, entry in value.items()})
    if isinstance(value, (list, tuple)):
        if not value:
            raise InputError("expected a number or a list of numbers; got an empty list")
        return tuple(_at(f".{i}", number, entry) for i, entry in enumerate(value))
    return number(value)


def _distribution(
    value: Mapping[str, Any], scope: Scope, scalars_only: bool = False
) -> Distribution:
    """A distribution in the place of a coefficient or a parameter."""
    if not scope.random:
        raise InputError(
            "a distribution makes a family of problems: use sciml generate, or give one value here",
            ".kind",
        )
    from sciml.app.schema import distributions

    try:
        drawn: Distribution = distributions(scalars_only).validate_python(value)
    except ValidationError as error:
        raise _inner_fault(error, value) from None
    return drawn


def _inner_fault(error: ValidationError, value: Mapping[str, Any]) -> InputError:
    """The first fault within a value, its place relative to it."""
    entry = error.errors(include_url=False)[0]
    key, inside = "", dict(value)
    for part in map(str, entry["loc"]):
        if isinstance(inside, Mapping) and part in inside:
            key, inside = f"{key}.{part}", inside[part]
    cause = entry.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        below = cause.key if cause.key and cause.key.startswith(".") else ""
        return type(cause)(cause.message, (key + below) or None)
    if entry["type"] == "missing":
        return InputError(f"'{entry['loc'][-1]}' is missing", key or None)
    return InputError(f"{entry['msg'].lower()}; got {describe(entry['input'])}", key or None)


def _unknown_field(value: Any) -> UnknownField:
    """A field that is to be found."""
    known = ("field", "start", "prior", "length", "strength", "shape")
    if not isinstance(value, Mapping):
        raise InputError(
            "an unknown function is {unknown: {field: log, start: 1}}; an unknown number is a "
            "parameter: write K: k, and parameters: {k: {unknown: 1}}"
        )
    _check_keys(value, known)
    given = dict(value)
    for name in ("start", "length", "strength"):
        if name in given:
            given[name] = _at(f".{name}", number, given[name])
    if "shape" in given:
        given["shape"] = _at(".shape", _counts, given["shape"])
    return UnknownField(**given)


def _network(value: Any, scope: Scope) -> Network:
    """A law that is to be found, of names that mean something."""
    known = ("of", "width", "start", "positive", "monotone", "strength")
    if not isinstance(value, Mapping):
        raise InputError(f"a law is {{network: {{of: [u], width: 8}}}}; got {describe(value)}")
    _check_keys(value, known)
    of = value.get("of")
    if not isinstance(of, (list, tuple)) or not all(isinstance(name, str) for name in of):
        raise InputError(f"of: [u] names what the law is of; got {describe(of)}", ".of")
    context = scope.context(of_solution=True)
    meant = (*context.axes, *(name for name in context.state if name[-1:] not in AXES))
    for k, name in enumerate(of):
        if name not in meant:
            raise InputError(
                f"a law is of coordinates and fields, not of '{name}'{did_you_mean(name, meant)}",
                f".of.{k}",
            )
    given = {**value, "of": tuple(of)}
    for name in ("start", "strength"):
        if name in given:
            given[name] = _at(f".{name}", number, given[name])
    for name in ("positive", "monotone"):
        if not isinstance(given.get(name, False), bool):
            raise InputError(f"expected true or false; got {describe(given[name])}", f".{name}")
    if "width" in given:
        (given["width"],) = _at(".width", _counts, [given["width"]])
    return Network(**given)


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected a list of whole numbers; got {describe(value)}")
    for k, entry in enumerate(value):
        if isinstance(entry, bool) or not isinstance(entry, int):
            raise InputError(f"expected a whole number; got {describe(entry)}", f".{k}")
    return tuple(value)


def _regions(value: Mapping[str, Any], scope: Scope) -> Regions:
    entries = value["regions"]
    if len(value) > 1 or not isinstance(entries, Mapping) or not entries:
        raise InputError("regions are {regions: {name: coefficient, ...}} and nothing else")
    checked = {n: _at(f".regions.{n}", scalar, v, scope) for n, v in entries.items()}
    return Regions(checked)


def _field_file(value: Mapping[str, Any], scope: Scope) -> FieldFile:
    _check_keys(value, ("file", "dataset", "centring", "saved_field"))
    name, dataset, centring = (value.get(key) for key in ("file", "dataset", "centring"))
    field = value.get("saved_field")
    if field is not None:
        if not isinstance(field, str):
            raise InputError(f"expected the name of a field; got {describe(field)}", ".saved_field")
        dataset = "u" if dataset is None else dataset
    if not isinstance(name, str) or not name:
        raise InputError(f"a field is {{file: name.npy}}; got {describe(name)} for file")
    if dataset is not None and not isinstance(dataset, str):
        raise InputError(f"expected the name of a dataset; got {describe(dataset)}", ".dataset")
    path = scope.folder / name
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"a field file ends in {', '.join(_SUFFIXES)}; got '{name}'", ".file")
    if path.suffix.lower() == ".npy" and dataset is not None:
        raise InputError("a .npy file has no datasets; leave dataset out", ".dataset")
    if path.suffix.lower() != ".npy" and dataset is None:
        raise InputError(f"name the dataset in '{name}': {{file: {name}, dataset: ...}}")
    if "\0" in name or not path.is_file():
        raise InputError(f"cannot find the file '{name}' in '{scope.folder}'", ".file")
    if centring not in (None, "node", "cell"):
        raise InputError(f"centring is node or cell; got {describe(centring)}", ".centring")
    return FieldFile(str(path), dataset, centring, field)


def _of_run(value: Mapping[str, Any], scope: Scope) -> Any:
    """A run's field as it was at the end, or several by name."""
    found = _fields_of(value, scope)
    if "field" in value:
        return _chosen(value, found)
    # The pressure of a flow follows from its velocities.
    flow = tuple(found) == ("u", "v", "p") and "p" not in scope.solution
    wanted = {field: file for field, file in found.items() if not (flow and field == "p")}
    return wanted if len(wanted) > 1 else next(iter(wanted.values()))


def _field_of_run(value: Mapping[str, Any], scope: Scope) -> FieldFile | RunField:
    """One field of a run as it was at the end."""
    return _chosen(value, _fields_of(value, scope))


def _fields_of(value: Mapping[str, Any], scope: Scope) -> dict[str, FieldFile | RunField]:
    _check_keys(value, ("run", "field", "rate"))
    name = value["run"]
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"expected the folder of a run; got {describe(name)}", ".run")
    folder = scope.folder / name
    return _at(".run", fields_of_run, folder if folder.is_dir() else Path(name))


def _chosen(
    value: Mapping[str, Any], found: Mapping[str, FieldFile | RunField]
) -> FieldFile | RunField:
    name, rate = value.get("field"), value.get("rate", False)
    known = [field for field, of in found.items() if not (isinstance(of, RunField) and of.rate)]
    if name is None and len(known) > 1:
        raise InputError(f"say which field: of the run's {', '.join(known)}", ".run")
    name = known[0] if name is None else name
    if name not in known:
        raise InputError(f"the run has no field {describe(name)}; it has {', '.join(known)}",
                         ".field")  # fmt: skip
    if rate is not False and f"{name}t" not in found:
        raise InputError("the run keeps no rate of this field; leave rate out", ".rate")
    return found[f"{name}t" if rate else name]


def _table(value: Mapping[str, Any], folder: Path) -> Table:
    """A table of one variable, its file found relative to the spec."""
    _check_keys(value, ("table", "columns", "of", "column", "outside"))
    for key in ("table", "of", "column", "outside"):
        if key in value and not isinstance(value[key], str):
            raise InputError(f"expected a name; got {describe(value[key])}", f".{key}")
    file, columns = value.get("table"), value.get("columns")
    if file is not None:
        path = folder / file
        if "\0" in file or not path.is_file():
            raise InputError(f"cannot find the file '{file}' in '{folder}'", ".table")
        file = str(path)
    if columns is not None:
        if not isinstance(columns, Mapping):
            raise InputError(f"expected columns by name; got {describe(columns)}", ".columns")
        columns = {n: _at(".columns", _column, n, v, columns) for n, v in columns.items()}
    table = Table(
        file, columns, value.get("of", ""), value.get("column"), value.get("outside", "refuse")
    )
    curve(table)
    return table


def _check_keys(value: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            raise UnknownKey(f"unknown key '{key}'{did_you_mean(key, known)}", f".{key}")


def _at(suffix: str, check: Callable[..., T], *arguments: Any) -> T:
    """``check(*arguments)``, any error placed at ``suffix`` below the value under test."""
    try:
        return check(*arguments)
    except InputError as error:
        raise type(error)(error.message, suffix + (error.key or "")) from None


_FIELD = {
    "type": "object",
    "description": "Values in a .npy file, or in a dataset of an HDF5 file.",
    "properties": {
        "file": {"type": "string"},
        "dataset": {"type": "string"},
        "centring": {"enum": ["node", "cell"]},
        "saved_field": {"type": "string", "description": "Of a saved solution, its last frame."},
    },
    "required": ["file"],
    "additionalProperties": False,
}
_RUN = {
    "type": "object",
    "description": "A field of a run, by its folder, in time its last frame.",
    "properties": {
        "run": {"type": "string"},
        "field": {"type": "string"},
        "rate": {"type": "boolean", "description": "Its derivative by t, if that was built in."},
    },
    "required": ["run"],
    "additionalProperties": False,
}
_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_TABLE = {
    "type": "object",
    "description": "A table of one variable, in a CSV file or in columns, interpolated.",
    "properties": {
        "table": {"type": "string"},
        "columns": {"type": "object", "additionalProperties": _NUMBERS},
        "of": {"type": "string"},
        "column": {"type": "string"},
        "outside": {"enum": ["refuse", "hold"], "default": "refuse"},
    },
    "required": ["of"],
    "additionalProperties": False,
}
_UNKNOWN_FIELD = {
    "type": "object",
    "description": "A function of the place that is to be found from the observations.",
    "properties": {
        "unknown": {
            "type": "object",
            "properties": {
                "field": {"enum": ["log", "plain"], "default": "log"},
                "start": {"type": "number", "default": 1.0},
                "prior": {"enum": ["h1", "tv", "gaussian"], "default": "h1"},
                "length": {"type": "number"},
                "strength": {"type": "number"},
                "shape": {"type": "array", "items": {"type": "integer"}},
            },
            "additionalProperties": False,
        }
    },
    "required": ["unknown"],
    "additionalProperties": False,
}
_LAW = {
    "type": "object",
    "description": "A law of other quantities that is to be found from the observations.",
    "properties": {
        "network": {
            "type": "object",
            "properties": {
                "of": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                "width": {"type": "integer", "default": 8},
                "start": {"type": "number", "default": 1.0},
                "positive": {"type": "boolean", "default": False},
                "monotone": {"type": "boolean", "default": False},
                "strength": {"type": "number"},
            },
            "required": ["of"],
            "additionalProperties": False,
        }
    },
    "required": ["network"],
    "additionalProperties": False,
}
_NUMBER_OR_TEXT = [
    {"type": "number"},
    {"type": "string", "description": "An expression of x, y, z and the parameters."},
]
_REGIONS = {
    "type": "object",
    "description": "On a mesh, one coefficient for each named subdomain.",
    "properties": {
        "regions": {"type": "object", "additionalProperties": {"anyOf": _NUMBER_OR_TEXT}}
    },
    "required": ["regions"],
    "additionalProperties": False,
}
_SCALAR = {"anyOf": [*_NUMBER_OR_TEXT, _FIELD, _RUN, _TABLE, _REGIONS, _UNKNOWN_FIELD, _LAW]}
_LIST = {"type": "array", "items": _SCALAR, "minItems": 1, "maxItems": 3}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_OR_NULL = {**_LIST, "items": {"anyOf": [_SCALAR, {"type": "null"}]}}
_MATRIX = {"type": "array", "items": _LIST, "minItems": 1, "maxItems": 3}
_CONSTANT = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "description": "An expression of numbers, such as 2*pi."},
    ]
}
_CONSTANTS = {"type": "array", "items": _CONSTANT, "minItems": 1}
_UNKNOWN = {
    "type": "object",
    "description": "To be found from the observations, from this first guess.",
    "properties": {"unknown": _CONSTANT, "lower": _CONSTANT, "upper": _CONSTANT},
    "required": ["unknown"],
    "additionalProperties": False,
}
_NOISE = {"type": "object", "additionalProperties": _CONSTANT}
_READINGS = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 1}
_COLUMNS = {"anyOf": [{"type": "string"}, {"type": "object", "additionalProperties": _READINGS}]}


def _type(name: str, check: Callable[[Any, Scope], Any], schema: dict[str, Any]) -> Any:
    def validate(value: Any, info: ValidationInfo) -> Any:
        scope: Any = info.context
        return check(value, scope)

    return TypeAliasType(name, Annotated[Any, PlainValidator(validate), WithJsonSchema(schema)])


Scalar = _type("Coefficient", scalar, _SCALAR)
_NONLINEAR = _type("NonlinearCoefficient", of_solution, _SCALAR)
_NORMAL = {
    "type": "object",
    "description": "Of a vector the component along the outward normal.",
    "properties": {"normal": _SCALAR},
    "required": ["normal"],
    "additionalProperties": False,
}
_SIDES = _type("SideValues", side_data, {"anyOf": [_SCALAR, _LIST, _NORMAL]})
_GAP = _type("Gap", gap, _SCALAR)
_ASKED = _type("Asked", asked, {"anyOf": _NUMBER_OR_TEXT})
_FORCE = _type("Force", vector, _LIST)
_VECTOR = _type("Vector", vector, _LIST)
_NUMBER = _type("Constant", number, _CONSTANT)
_BOUNDS = _type("Bounds", numbers, _CONSTANTS)
_BY_NAME = {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, _LIST]}}

# The fields whose annotation in core, Any, admits Python objects that YAML cannot write.
FIELD_TYPES: dict[tuple[type, str], Any] = {
    **{(Equation, name): _NONLINEAR for name in ("c", "f", "m", "d", "source")},
    **{(Equation, name): Scalar for name in ("dispersion", "biharmonic", "lower", "upper")},
    (Equation, "energy"): _type("Energy", energy, {"type": "string"}),
    (Equation, "K"): _type("Tensor", tensor, {"anyOf": [_SCALAR, _LIST, _MATRIX]}),
    **{(Equation, name): _VECTOR for name in ("b", "flux")},
    (NavierStokes, "viscosity"): Scalar,
    (Stokes, "viscosity"): Scalar,
    (Stokes, "force"): _FORCE,
    (NavierStokes, "vorticity_source"): Scalar,
    (NavierStokes, "force"): _FORCE,
    **{(Helmholtz, name): Scalar for name in ("wavenumber", "f", "K")},
    **{
        (Elasticity, name): _type("Moduli", scalar_or_vector, {"anyOf": [_SCALAR, _LIST]})
        for name in ("young", "poisson_ratio")
    },
    (Elasticity, "thermal_strain"): _type("Strains", strains, {"anyOf": [_SCALAR, _LIST]}),
    **{(Elasticity, name): Scalar for name in ("density", "angle")},
    (Elasticity, "shear"): _type("Shear", scalar_or_vector, _LIST),
    (Elasticity, "frame"): _type("Frame", frame, _MATRIX),
    **{(Hyperelasticity, name): Scalar for name in ("young", "poisson_ratio", "density")},
    (Hyperelasticity, "force"): _FORCE,
    **{
        (Plasticity, name): Scalar
        for name in (
            "young",
            "poisson_ratio",
            "yield_stress",
            "hardening",
            "kinematic_hardening",
        )
    },
    (Plasticity, "force"): _FORCE,
    (Elasticity, "force"): _FORCE,
    (Condition, "dirichlet"): _type(
        "Dirichlet", displacement, {"anyOf": [_SCALAR, _OR_NULL, _NORMAL]}
    ),
    (Condition, "neumann"): _SIDES,
    (Condition, "contact"): _GAP,
    (Condition, "residuals"): _type("SideResiduals", residuals_of_side, _TEXTS),
    (WrittenOut, "residuals"): _type("Residuals", residuals, _TEXTS),
    (Integral, "of"): _type("Integrand", integrand, _SCALAR),
    **{(Integral, name): Scalar for name in ("lower", "upper")},
    (Condition, "absorbing"): _type(
        "Absorbing", share_of_waves, {"anyOf": [{"type": "boolean"}, _SCALAR]}
    ),
    (MeshFile, "file"): _type("MeshPath", mesh_path, {"type": "string"}),
    (Condition, "where"): _type("Where", part_of_side, {"type": "string"}),
    (Robin, "alpha"): _SIDES,
    (Robin, "g"): _SIDES,
    (Obstacle, "inside"): _type("Inside", inside, {"type": "string"}),
    **{(Box, name): _BOUNDS for name in ("lower", "upper")},
    **{(Time, name): _NUMBER for name in ("start", "end")},
    **{(Sponge, name): _NUMBER for name in ("width", "strength")},
    **{(Quantity, name): _ASKED for name in ("integral", "mean", "max", "min", "of")},
    **{(Quantity, name): _BOUNDS for name in ("at", "force")},
    **{(Quantity, name): _NUMBER for name in ("published", "after")},
    **{(Line, name): _BOUNDS for name in ("start", "end")},
    (Output, "probes"): _type(
        "Probes", points, {"type": "object", "additionalProperties": _CONSTANTS}
    ),
    (Problem, "exact"): _type("Exact", exact, {"anyOf": _NUMBER_OR_TEXT}),
    (Problem, "initial"): _type("Initial", by_name, {"anyOf": [_SCALAR, _BY_NAME]}),
    (Problem, "observations"): _type("Observations", observations, _COLUMNS),
    (Problem, "noise"): _type("Noise", noise, {"anyOf": [_CONSTANT, _NOISE]}),
    (Problem, "parameters"): _type(
        "Parameters",
        parameters,
        {
            "type": "object",
            "additionalProperties": {"anyOf": [_CONSTANT, _CONSTANTS, _UNKNOWN, _TABLE]},
        },
    ),
}
