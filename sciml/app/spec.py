"""A spec: a YAML file that states a problem, a grid and a solver.

``load_spec("configs/darcy.yaml")`` gives the very objects that one would write in Python. Whatever
is wrong with the file is one line, ``file:line:column: key: message``.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.app.yaml_source import Key, Place, Source, SpecError, parse_yaml, read_yaml
from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import AXES, MOST_DIMENSIONS, Grid, axis_names
from sciml.core.mesh import Mesh
from sciml.core.mesh_file import MeshFile
from sciml.core.mesh_geometry import Geometry
from sciml.core.place import check_place, placed
from sciml.core.points import Points
from sciml.core.problem import Problem

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

    from sciml.app.coefficients import Scope


@dataclass(frozen=True)
class Spec:
    """A problem, the grid or mesh to solve it on, and the solver.

    Exactly one of ``grid``, ``mesh``, ``geometry`` and ``points`` is given. ``solver`` is one of
    ``sciml.solvers``; ``Auto()`` where the file gives none. ``source`` is the text it was read
    from.
    """

    problem: Problem
    grid: Grid | None = None
    mesh: MeshFile | None = None
    geometry: Geometry | None = None
    points: Points | None = None
    solver: Any = None
    source: Source | None = field(default=None, repr=False, compare=False, metadata={"yaml": False})

    def __post_init__(self) -> None:
        check_place(self.problem, self.grid, self.mesh, self.geometry, self.points)
        if self.points is not None and not getattr(self.solver, "reads_problem", False):
            raise InputError(
                "points are for solvers that train a function, such as pinn; give grid: instead",
                "points",
            )
        if self.solver is not None and not hasattr(self.solver, "run"):
            raise InputError(
                f"{self.solver.kind} is a preconditioner, not a solver; "
                f"write {{kind: cg, preconditioner: {{kind: {self.solver.kind}}}}}",
                "solver.kind",
            )

    @cached_property
    def on(self) -> Grid | Mesh | Points:
        """The grid, points or mesh: ``solve(spec.problem, spec.solver, on=spec.on)``."""
        try:
            return placed(self.problem, self.grid, self.mesh, self.geometry, self.points)
        except InputError as error:
            if self.source is None:
                raise
            key = error.key or "mesh"
            raise SpecError(error.message, _place(self.source, _path(key)), key) from None

    @property
    def path(self) -> str:
        """The file it was read from."""
        return self.source.name if self.source else "spec"

    @property
    def text(self) -> str:
        """The YAML text it was read from, without overrides."""
        return self.source.text if self.source else ""

    def locate(self, key: str) -> str:
        """``file:line:column`` of a dotted key, or of the nearest key above it."""
        return locate(self.source, key) if self.source else self.path


def load_spec(path: str | Path, overrides: Iterable[str] = ()) -> Spec:
    """The spec in a YAML file; ``overrides`` such as ``"solver.rtol=1e-6"`` replace its values.

    Raises InputError, placed at line and column, for anything that is wrong with it. Field files
    are found relative to the spec.
    """
    return read_spec(read_yaml(path), overrides)


def read_spec(source: Source, overrides: Iterable[str] = ()) -> Spec:
    """The spec in YAML that was read before; see :func:`load_spec`."""
    from pydantic import ValidationError

    check_purpose(source, "sciml solve")
    for text in overrides:
        source = override(source, text)
    if not isinstance(source.data, dict):
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError(
            "a spec is a mapping with the keys problem, grid, solver; sciml new writes one", place
        )
    try:
        spec = _adapter().validate_python(tuples(source.data), context=scope_of(source))
    except ValidationError as error:
        raise first_error(error, source) from None
    solver = solver_classes()[0]() if spec.solver is None else spec.solver
    return dataclasses.replace(spec, solver=solver, source=source)


def check_purpose(source: Source, command: str) -> None:
    """Raise SpecError where ``command`` is given a training spec, or train another one."""
    keys = source.data if isinstance(source.data, dict) else {}
    own_keys = {"operator", "preconditioner", "training"}
    trains = "problem" not in keys and bool(own_keys & keys.keys())
    if keys and trains != (command == "sciml train") and (trains or "problem" in keys):
        own = "train" if trains else "generate" if "dataset" in keys else "solve"
        place = source.values.get((), Place(source.name, 1, 1))
        raise SpecError(f"this spec is for sciml {own}, not for {command}", place)


def override(source: Source, text: str) -> Source:
    """``source`` with one value replaced: ``"grid.shape=[65, 65]"``, the value read as YAML."""
    name, equals, value_text = text.partition("=")
    place = Place(f"--set {text if len(text) <= 60 else text[:57] + '...'}")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise SpecError("write key.path=value, for example solver.rtol=1e-6", place)
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


def _index(data: Any, part: str, path: Key, place: Place) -> str | int:
    if isinstance(data, list):
        if not (part.isdecimal() and int(part) < len(data)):
            raise SpecError(
                f"the list has {len(data)} entries, counted from 0; got '{part}'", place
            )
        return int(part)
    if data is not None and not isinstance(data, dict):
        raise SpecError(f"{_dotted(path) or 'the spec'} is a value; nothing can be below it", place)
    return part


def _replaced(data: Any, path: Key, value: Any) -> Any:
    if not path:
        return value
    if isinstance(data, list):
        return [_replaced(v, path[1:], value) if i == path[0] else v for i, v in enumerate(data)]
    inner = (data or {}).get(path[0])
    return {**(data or {}), path[0]: _replaced(inner, path[1:], value)}


def locate(source: Source, key: str) -> str:
    """``file:line:column`` of a dotted key such as ``problem.equation.K``, or the nearest above."""
    return str(_place(source, source.find(_path(key))))


def explain(error: InputError, source: Spec | Source | None = None) -> str:
    """The one line that tells a user what is wrong, and where in the spec."""
    text = source.source if isinstance(source, Spec) else source
    if isinstance(error, SpecError) or text is None:
        return str(error)
    if error.key is None:
        return f"{text.name}: {error.message}"
    return f"{locate(text, error.key)}: {error.key}: {error.message}"


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec, for editors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = _adapter().json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def solver_classes() -> list[type]:
    """The classes that may stand as ``solver:``, the default first."""
    import sciml.solvers

    return [getattr(sciml.solvers, name) for name in sciml.solvers.SOLVERS]


@cache
def _adapter() -> TypeAdapter[Any]:
    from sciml.app.schema import adapter

    return adapter(Spec, solver_classes())


def scope_of(source: Source) -> Scope:
    """What the coefficients need to know before anything is checked: axes, names, time."""
    from sciml.app.coefficients import SOLUTION, Scope, tables_of

    problem = source.data.get("problem")
    stated: dict[str, Any] = problem if isinstance(problem, dict) else {}
    domain, names, equation = (stated.get(k) for k in ("domain", "parameters", "equation"))
    lower = domain.get("lower") if isinstance(domain, dict) else None
    most = MOST_DIMENSIONS
    dimension = min(max(len(lower), 1), most) if isinstance(lower, list) else 3
    parameters = tuple(names) if isinstance(names, dict) else ()
    solution: tuple[str, ...] = SOLUTION
    if isinstance(equation, dict):
        solution = _unknown_fields(equation, dimension)
    timed = stated.get("time") is not None
    folder, meshed = Path(source.name).parent, not {"grid", "points"} & source.data.keys()
    tables = tables_of(names, folder)
    return Scope(folder, dimension, parameters, solution, timed, meshed, tables=tables)


def _unknown_fields(equation: dict[str, Any], dimension: int) -> tuple[str, ...]:
    """The names of the fields that the equation is for, and of their derivatives."""
    system = equation.get("equations")
    fields = tuple(map(str, system)) if isinstance(system, dict) else ("u",)
    axes = AXES if dimension <= len(AXES) else axis_names(dimension)
    return tuple(f"{field}{axis}" for field in fields for axis in ("", *axes))


def tuples(data: Any) -> Any:
    """Lists as tuples, which is what the dataclasses hold."""
    if isinstance(data, dict):
        return {key: tuples(value) for key, value in data.items()}
    return tuple(tuples(value) for value in data) if isinstance(data, list) else data


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


def first_error(error: ValidationError, source: Source) -> SpecError:
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
    return SpecError(message, place, _dotted(path) or None)


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
    from sciml.app.coefficients import UnknownKey, describe

    path, kind = source.find(entry["loc"]), entry["type"]
    cause = entry.get("ctx", {}).get("error")
    if isinstance(cause, InputError):
        path = _cause_path(path, cause, source)
        places = source.keys if isinstance(cause, UnknownKey) else source.values
        return _place(source, path, places), path, cause.message, ""
    if kind == "missing":
        return _place(source, path), path, f"'{entry['loc'][-1]}' is missing", ""
    got = f"got {describe(entry['input'])}"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        tail = did_you_mean(str(entry["input"]), known) if known else ""
        return _place(source, path), path, got + tail, entry["ctx"]["expected"]
    if kind in _EXPECTED:
        return _place(source, path), path, got, _EXPECTED[kind]
    return _place(source, path), path, f"{entry['msg'].lower()}; {got}", ""


def _cause_path(path: Key, cause: InputError, source: Source) -> Key:
    """Where an InputError raised while ``path`` was built belongs: at its key, if that is below.

    A key that starts with a dot is relative; an option's own key (``solver.rtol``) is taken by its
    last part where the object stands elsewhere, as a preconditioner does.
    """
    if cause.key is None:
        return path
    if cause.key.startswith("."):
        return (*path, *_path(cause.key))
    absolute = _path(cause.key)
    if absolute[: len(path)] == path and source.find(absolute)[: len(path)] == path:
        return absolute
    return (*path, absolute[-1]) if (*path, absolute[-1]) in source.values else path


def _place(source: Source, path: Key, places: Mapping[Key, Place] | None = None) -> Place:
    places = source.values if places is None else places
    return places.get(path) or source.values.get(source.find(path)) or Place(source.name, 1, 1)


def _path(key: str) -> Key:
    return tuple(int(p) if p.isdecimal() else p for p in re.split(r"[.\[\]]+", key) if p)


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in path)
