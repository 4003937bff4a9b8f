"""What a coefficient is: the one place that reads numbers, texts, tables, files, arrays, functions.

    compile(coefficient, context, key) -> Compiled(names, constant, jumps, at(points, values))

A :class:`Context` says which names mean something where the coefficient stands; a
:class:`Compiled` says which of them it uses, for texts, functions and tables alike. From this, and
from nothing else, follows whether an equation is linear, steady, coupled, or needs a parameter.

A function takes by name what has a name: a coordinate, ``t``, a field, a slope, a parameter,
wherever it stands among the arguments. Leading arguments of other names are coordinates by their
place, ``*args`` all that are left of these; an argument with a default need not be known.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sciml.core.disk import is_sealed, refuse_links
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.expression import Expression, names_in, parse
from sciml.core.problem.table import Curve, Table, curve
from sciml.core.problem.unknown import Law, UnknownField

if TYPE_CHECKING:
    import torch

# The outward normal of a side, and what to say of names where they are not known.
NORMAL = ("nx", "ny", "nz")
IMAGINARY = "i"  # the imaginary unit, in texts of an equation whose solution is complex
NO_NORMAL = "the outward normal is known in the data of a side or a rim only"
NO_TIME = "this problem has no time; give it time: {end: ...} and initial:, or leave t out"
_COORDINATES = ("x", "y", "z")


@dataclass(frozen=True)
class FieldFile:
    """Values read from a ``.npy`` file, or from ``dataset`` of an HDF5 file.

    The array's trailing axes are x, y, z; leading axes are batch. Values on the problem's own
    grid are taken as they are, others are interpolated linearly from a grid that spans the domain,
    given at its nodes or at the centres of its cells as ``centring`` says. Where it says nothing,
    n values for a grid of n cells between n + 1 nodes are the cells', all others the nodes'.
    ``saved_field``: of a saved solution the field of this name, in time as its last frame has it,
    zero inside an obstacle.
    """

    file: str
    dataset: str | None = None
    centring: Literal["node", "cell"] | None = None
    saved_field: str | None = None


@dataclass(frozen=True)
class RunField:
    """A field of the trained function that a run kept, in time as it was at the end.

    ``rate``: its derivative by t there. ``function``: what it is, of the coordinates.
    """

    run: str
    field: str
    rate: bool = False
    function: Callable[..., torch.Tensor] | None = dataclasses.field(
        default=None, repr=False, compare=False, metadata={"yaml": False}
    )

    def __call__(self, *axes: torch.Tensor) -> torch.Tensor:
        """The values; raises InputError outside the box that the function is known in."""
        if self.function is None:
            raise InputError(f"the run in '{self.run}' was not read")
        return self.function(*axes)


@dataclass(frozen=True)
class Regions:
    """On a mesh, one coefficient for each named subdomain."""

    regions: Mapping[str, Any]


@dataclass(frozen=True)
class Normal:
    """Of a vector on a boundary the component along the outward normal alone."""

    normal: Any


@dataclass(frozen=True)
class Unknown:
    """A parameter that is to be found, from this first guess, such that observations are met.

    ``lower``, ``upper``: what it stays above, and below; None where there is no such bound. Raises
    InputError for a guess that does not lie between. Where a coefficient stands, ``unknown`` is an
    :class:`UnknownField`.
    """

    unknown: Any
    lower: float | None = None
    upper: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.unknown, UnknownField):
            if (self.lower, self.upper) != (None, None):
                raise InputError("a field has no bounds; field: log keeps it above zero", ".lower")
            return
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        try:
            inside = math.isfinite(self.unknown) and low < self.unknown < high
        except TypeError:
            raise InputError(
                f"an unknown and its bounds are numbers; got {self.unknown!r}", ".unknown"
            ) from None
        if not inside:
            between = "" if self.lower is self.upper is None else f" between {low:g} and {high:g}"
            raise InputError(
                f"the first guess must be a finite number{between}; got {self.unknown:g}",
                ".unknown",
            )


@dataclass(frozen=True)
class Context:
    """Which names mean what where a coefficient stands.

    ``axes``: the coordinates in their order. ``timed``: whether ``t`` is known. ``state``: fields
    and their slopes (``u``, ``ux``; ``v``, ``vy``). ``parameters``; ``tables`` among them, by name.
    ``others``: all else that is known, such as the normal. ``refused``: names that mean something
    elsewhere, each with the reason why not here.
    """

    axes: tuple[str, ...]
    timed: bool = False
    state: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    tables: tuple[tuple[str, Any], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def known(self) -> tuple[str, ...]:
        """All names that have a value."""
        time = ("t",) if self.timed else ()
        return (*self.axes, *time, *self.state, *self.parameters, *self.others)

    @property
    def absent(self) -> dict[str, str]:
        """The names that are refused, but for those that are known."""
        known = frozenset(self.known)
        return {name: why for name, why in self.refused if name not in known}


# An array with its centring (None: unsaid), its points and its key, to its values at the points.
Locate = Callable[["torch.Tensor", "str | None", Sequence["torch.Tensor"], str], "torch.Tensor"]
_Value = Callable[
    [Sequence["torch.Tensor"], Mapping[str, "torch.Tensor"], "Locate | None"], "torch.Tensor"
]


@dataclass(frozen=True)
class Compiled:
    """A coefficient, read.

    ``names``: what it uses of coordinates, ``t``, fields, slopes, parameters. ``constant``: the
    same at all points, times and states, parameters aside. ``jumps``: what in it may jump between
    points close together, such as ``where``; None where nobody can say. ``curves``: the tables
    that it looks into.
    """

    names: frozenset[str]
    constant: bool
    jumps: frozenset[str] | None
    value: _Value
    curves: tuple[Curve, ...] = ()

    def at(
        self,
        points: Sequence[torch.Tensor],
        values: Mapping[str, torch.Tensor],
        locate: Locate | None = None,
    ) -> torch.Tensor:
        """The value at ``points``, one tensor per axis; broadcasts to (*batch, *points).

        ``values``: the names besides the coordinates, which broadcast against the points.
        ``locate`` finds values of arrays at the points. Not checked for being finite.
        """
        value = self.value(points, values, locate)
        return value if value.is_floating_point() or value.is_complex() else value.double()


def compile(
    coefficient: Any,
    context: Context,
    key: str,
    files: dict[FieldFile, torch.Tensor] | None = None,
) -> Compiled:
    """Read a coefficient; raises InputError, with ``key``, for what means nothing here.

    ``files`` keeps the arrays of files, so that each is loaded once.
    """
    if isinstance(coefficient, str):
        return _text(coefficient, context, key)
    if isinstance(coefficient, Real):
        return _number(float(coefficient))
    if isinstance(coefficient, Table):
        return _table(coefficient, context, key)
    if isinstance(coefficient, FieldFile):
        return _file(coefficient, context, key, {} if files is None else files)
    if isinstance(coefficient, (Unknown, Law)):
        raise InputError(
            f"{short(key)} is a function that is to be found: fit finds it, on a grid or a mesh",
            key,
        )
    if isinstance(coefficient, Regions):
        raise InputError(
            "regions are the named parts of a mesh; elsewhere write where(condition, a, b)", key
        )
    if isinstance(coefficient, Normal):
        raise InputError("normal: is for the sides of a body or a flow on a mesh", key)
    if is_array(coefficient):
        return _array(coefficient, context, key)
    if callable(coefficient):
        return _function(coefficient, context, key)
    raise InputError(
        f"{short(key)} must be a number, an expression, a table, a field or a function; "
        f"got {type(coefficient).__name__}",
        key,
    )


def compile_terms(coefficient: Any, context: Context, key: str) -> Compiled:
    """Read a sum: as :func:`compile`, but its value has one more axis, the first: its terms.

    A text is taken apart; a function gives its terms itself, as a tuple or a list.
    """
    if isinstance(coefficient, str):
        try:
            return _read_terms(coefficient, context)
        except InputError as error:
            raise InputError(error.message, error.key or key) from None
    if callable(coefficient):
        return _function(coefficient, context, key, _checked_terms)
    raise InputError(
        f"{short(key)} must be a text or a function, of what vanishes; "
        f"got {type(coefficient).__name__}",
        key,
    )


@lru_cache(maxsize=512)
def _read_terms(text: str, context: Context) -> Compiled:
    found, axes = expression(text, context), context.axes
    terms = found.terms

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        import torch

        known = {**dict(zip(axes, points, strict=False)), **values}
        return torch.stack(torch.broadcast_tensors(*(term(**known).double() for term in terms)))

    constant = found.names <= frozenset(context.parameters)
    return Compiled(found.names, constant, found.jumps, value, found.curves)


def expression(text: str, context: Context) -> Expression:
    """A text, parsed; raises InputError, without a key, for what means nothing here."""
    return parse(text, context.known, context.absent, dict(context.tables))


def names_of(coefficient: Any, context: Context, key: str) -> frozenset[str]:
    """What a coefficient, or one of a list or of the regions of a mesh, uses."""
    if isinstance(coefficient, Regions):
        coefficient = tuple(coefficient.regions.values())
    if isinstance(coefficient, (list, tuple)):
        return frozenset().union(*(names_of(entry, context, key) for entry in coefficient))
    if coefficient is None:
        return frozenset()
    return compile(coefficient, context, key).names


def free_names(coefficient: Any, parameters: Mapping[str, Any] | None = None) -> frozenset[str]:
    """What a coefficient, or one of a list, may use, before it is known what means something.

    Those of a text that cannot be read are none: reading it says why. Where a name is that of a
    table among the ``parameters``, the table's own variable is used.
    """
    if isinstance(coefficient, Regions):
        coefficient = tuple(coefficient.regions.values())
    if isinstance(coefficient, Normal):
        return free_names(coefficient.normal, parameters)
    if isinstance(coefficient, Law):
        return frozenset(coefficient.network.of)
    if isinstance(coefficient, (list, tuple)):
        return frozenset().union(*(free_names(entry, parameters) for entry in coefficient))
    if isinstance(coefficient, Table):
        return frozenset({coefficient.of})
    if isinstance(coefficient, str):
        found = names_in(coefficient)
        tables = ((n, t) for n, t in (parameters or {}).items() if isinstance(t, Table))
        return found | {table.of for name, table in tables if name in found}
    if callable(coefficient):
        return frozenset(argument.name for argument in _arguments(coefficient) or ())
    return frozenset()


def state_names(fields: Iterable[str], axes: Sequence[str] = _COORDINATES) -> tuple[str, ...]:
    """The fields and their slopes: u, ux, uy, uz, v, ..."""
    return tuple(f"{name}{axis}" for name in fields for axis in ("", *axes))


def is_array(coefficient: Any) -> bool:
    """Whether it is an array or a tensor."""
    import numpy as np
    import torch

    return isinstance(coefficient, (torch.Tensor, np.ndarray))


def short(key: str) -> str:
    """The key as messages have it: ``K``, ``boundary.left.dirichlet``."""
    return key.removeprefix("problem.").removeprefix("equation.")


def read_parameters(
    parameters: Mapping[str, Any],
    taken: Iterable[str],
    device: torch.device | str = "cpu",
) -> tuple[dict[str, torch.Tensor], dict[str, Curve]]:
    """The named parameters, float64 of shape batch, and the tables among them.

    Raises InputError for a name that is ``taken``, for what is no number or unknown, and for
    batches of different lengths.
    """
    import torch

    taken, numbers, tables = frozenset(taken), {}, {}
    for name, value in parameters.items():
        key = f"problem.parameters.{name}"
        if name in taken:
            raise InputError(f"a parameter cannot be called '{name}': the name is taken", key)
        if isinstance(value, Table):
            tables[name] = _curve(value, key)
            continue
        if isinstance(value, Unknown):
            raise InputError(
                f"'{name}' is unknown: fit finds it, or pinn, gaussians, random_features",
                key,
            )
        try:
            tensor = torch.as_tensor(value, dtype=torch.float64, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"parameter '{name}' must be a number or a list of numbers; got {value!r}", key
            ) from None
        if not torch.isfinite(tensor).all():
            raise InputError(f"parameter '{name}' must be finite; got {value!r}", key)
        numbers[name] = tensor
    batches = {name: tuple(p.shape) for name, p in numbers.items() if p.ndim}
    try:
        torch.broadcast_shapes(*batches.values())
    except RuntimeError:
        counts = ", ".join(f"{name} has {list(shape)}" for name, shape in batches.items())
        raise InputError(
            f"parameters given as lists must be equally long: {counts}", "problem.parameters"
        ) from None
    return numbers, tables


def outside(compiled: Compiled) -> str:
    """What to say of a value that is no number: the ranges of the tables that gave it."""
    return "".join(f"; {c.range}, write outside: hold to keep its ends" for c in compiled.curves)


def load(source: FieldFile, key: str) -> torch.Tensor:
    """The array of a field file, float64; raises InputError where there is none."""
    import numpy as np
    import torch

    path = Path(source.file)
    if not path.is_file():
        raise InputError(f"file not found: {source.file}", key)
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise InputError(
                    f"{source.file} is an archive, as numpy.savez writes it: save the array that "
                    "is meant by numpy.save",
                    key,
                )
        else:
            array = _load_hdf5(path, source, key)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = "numpy.save did not write it" if path.suffix == ".npy" else error
        raise InputError(f"cannot read {source.file}: {reason}", key) from None
    if array.dtype.kind not in "fiu":
        raise InputError(f"{source.file} holds {array.dtype}; it must hold real numbers", key)
    # A private copy: the map is read-only and torch tensors are not.
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _load_hdf5(path: Path, source: FieldFile, key: str) -> Any:
    import h5py
    import numpy as np

    is_sealed(path)  # raises where it is a damaged one of ours
    with h5py.File(path, "r") as file:
        refuse_links(file, source.file, key)
        names: list[str] = []
        file.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None)
        wanted = source.dataset or (names[0] if len(names) == 1 else None)
        if wanted is None or wanted.strip("/") not in names:
            raise InputError(
                f"{source.file} has no dataset '{source.dataset}'; name one of: {', '.join(names)}"
                if source.dataset
                else f"name the dataset of {source.file}: one of {', '.join(names)}",
                key,
            )
        if source.saved_field is not None:
            return _of_solution(file, source, key)
        if wanted.strip("/") == "u" and "times" in file and "residual" in file:
            raise InputError(
                f"{source.file} holds {len(file['times'])} frames of a run, not a batch: write "
                f"{{run: {path.parent}}}, whose last frame is taken",
                key,
            )
        return np.asarray(file[wanted][...])


def _fields(file: Any) -> list[str]:
    """The names of a saved solution's fields."""
    return [str(name) for name in file["u"].attrs.get("fields", ())]


def _of_solution(file: Any, source: FieldFile, key: str) -> Any:
    """A field of a saved solution, (*batch, *grid)."""
    import numpy as np

    if "u" not in file or "residual" not in file:
        raise InputError(f"{source.file} holds no solution, of which a field could be taken", key)
    fields, values = _fields(file), np.asarray(file["u"][...])
    if source.saved_field not in fields:
        raise InputError(
            f"{source.file} has no field '{source.saved_field}'; it has {', '.join(fields)}", key
        )
    batch = file["residual"].ndim
    if "times" in file:
        values = values.take(-1, axis=batch)
    if len(fields) > 1:
        values = values.take(fields.index(str(source.saved_field)), axis=batch)
    return np.nan_to_num(values)


def _number(number: float) -> Compiled:
    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        import torch

        return torch.tensor(number, dtype=torch.float64)

    return Compiled(frozenset(), True, frozenset(), value)


def _text(text: str, context: Context, key: str) -> Compiled:
    try:
        return _read_text(text, context)
    except InputError as error:
        raise InputError(error.message, error.key or key) from None


@lru_cache(maxsize=512)
def _read_text(text: str, context: Context) -> Compiled:
    found, axes = expression(text, context), context.axes

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        return found(**dict(zip(axes, points, strict=False)), **values)

    constant = found.names <= frozenset(context.parameters)
    return Compiled(found.names, constant, found.jumps, value, found.curves)


def _table(table: Table, context: Context, key: str) -> Compiled:
    found, of = _curve(table, key), table.of
    if of not in context.known:
        why = context.absent.get(of) or f"unknown here{did_you_mean(of, context.known)}"
        raise InputError(
            f"{table.name} is of '{of}': {why}; as a parameter k it is looked up by k(...)", key
        )
    place = context.axes.index(of) if of in context.axes else None

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        return found(values[of] if place is None else points[place])

    return Compiled(frozenset({of}), of in context.parameters, frozenset(), value, (found,))


def _curve(table: Table, key: str) -> Curve:
    try:
        return curve(table)
    except InputError as error:
        raise InputError(error.message, key + (error.key or "")) from None


def _file(
    source: FieldFile, context: Context, key: str, files: dict[FieldFile, torch.Tensor]
) -> Compiled:
    """A file, loaded when its values are first wanted."""

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        if source not in files:
            files[source] = load(source, key)
        return _located(files[source], source.centring, points, locate, key)

    return Compiled(frozenset(context.axes), False, None, value)


def _array(array: Any, context: Context, key: str) -> Compiled:
    import torch

    try:
        tensor = torch.as_tensor(array)
    except (TypeError, ValueError) as error:
        raise InputError(f"{short(key)} must hold numbers: {error}", key) from None

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        return _located(tensor, None, points, locate, key)

    if not tensor.ndim:
        return Compiled(frozenset(), True, frozenset(), value)
    return Compiled(frozenset(context.axes), False, None, value)


def _located(
    array: torch.Tensor, centring: str | None, points: Any, locate: Locate | None, key: str
) -> torch.Tensor:
    if array.ndim == 0:
        return array
    if locate is None:
        raise InputError(f"{short(key)} cannot be an array here; give an expression", key)
    return locate(array, centring, points, key)


def _arguments(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...] | None:
    """A function's arguments; None where Python cannot say."""
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


@dataclass(frozen=True)
class _Call:
    """How a function is called: names of coordinates and values by place and by keyword.

    ``defaults``: the places of arguments that keep their default.
    """

    placed: tuple[str, ...]
    named: tuple[str, ...]
    defaults: Mapping[int, Any]


def _function(
    function: Callable[..., Any],
    context: Context,
    key: str,
    checked: Callable[[Any, Sequence[int], torch.device, str], torch.Tensor] | None = None,
) -> Compiled:
    """``checked`` makes a tensor of what it returned."""
    arguments = _arguments(function)
    plan = _Call(context.axes, (), {}) if arguments is None else _plan(arguments, context, key)
    wanted = (*plan.placed, *plan.named)
    curves = {name: found for name, found in context.tables if name in wanted}
    axes = context.axes
    used = [name for name in wanted if name in axes]

    def value(points: Any, values: Any, locate: Any) -> torch.Tensor:
        import torch

        shape = torch.broadcast_shapes(*(p.shape for p in points))
        known = {name: points[axes.index(name)].expand(shape) for name in used} | curves
        placed = [
            plan.defaults[k] if k in plan.defaults else _one(name, known, values)
            for k, name in enumerate(plan.placed)
        ]
        named = {name: _one(name, known, values) for name in plan.named}
        if arguments is None:
            try:
                found = function(*placed)
            except TypeError as error:
                raise InputError(
                    f"the function cannot take the {len(placed)} coordinates: {error}", key
                ) from None
        else:
            found = function(*placed, **named)
        beside = [*points, *values.values()]  # nothing where a function is of nothing
        device = beside[0].device if beside else torch.get_default_device()
        return (checked or _checked)(found, shape, device, key)

    kept = {plan.placed[k] for k in plan.defaults}
    names = frozenset(wanted) - kept - curves.keys()
    return Compiled(
        names, names <= frozenset(context.parameters), None, value, tuple(curves.values())
    )


def _one(name: str, known: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    return known[name] if name in known else values[name]


def _plan(arguments: Sequence[inspect.Parameter], context: Context, key: str) -> _Call:
    known = frozenset((*context.known, *(name for name, _ in context.tables)))
    axes, absent = context.axes, context.absent
    # Names that mean something, if not here.
    other = {*absent, *_COORDINATES, "t"}
    placed: list[str] = []
    named: list[str] = []
    defaults: dict[int, Any] = {}
    for argument in arguments:
        name, place = argument.name, len(placed)
        if argument.kind is argument.VAR_KEYWORD:
            continue
        if argument.kind is argument.VAR_POSITIONAL:
            placed += [axis for axis in axes if axis not in placed]
        elif argument.kind is argument.KEYWORD_ONLY:
            if name in known:
                named.append(name)
            elif argument.default is argument.empty:
                raise _unknown_argument(name, known, absent, key)
        elif name in known:
            placed.append(name)
        elif argument.default is not argument.empty:
            defaults[place] = argument.default
            placed.append(name)
        # A coordinate by its place, as long as all before it are coordinates at theirs.
        elif name not in other and place < len(axes) and tuple(placed) == axes[:place]:
            placed.append(axes[place])
        else:
            raise _unknown_argument(name, known, absent, key)
    return _Call(tuple(placed), tuple(named), defaults)


def _unknown_argument(
    name: str, known: Iterable[str], absent: Mapping[str, str], key: str
) -> InputError:
    if name in absent:
        return InputError(f"the function takes '{name}': {absent[name]}", key)
    return InputError(
        f"the function takes '{name}', which is neither a name that is known here nor the place "
        f"of a coordinate{did_you_mean(name, known)}",
        key,
    )


def _checked_terms(
    found: Any, shape: Sequence[int], device: torch.device, key: str
) -> torch.Tensor:
    """The terms that a function returned, the first axis; InputError where it returned none."""
    import torch

    if not isinstance(found, (tuple, list)) or not found:
        raise InputError(
            f"the function for {short(key)} must return its terms, (a, b, ...): their sizes say "
            "what of their sum is small",
            key,
        )
    parts = [_checked(part, shape, device, key) for part in found]
    return torch.stack(torch.broadcast_tensors(*parts))


def _checked(found: Any, shape: Sequence[int], device: torch.device, key: str) -> torch.Tensor:
    """What a function returned, as a tensor; InputError where it is not one value per point."""
    import torch

    # A Python number must not become a float32.
    dtype = torch.complex128 if isinstance(found, complex) else torch.float64
    try:
        value = torch.as_tensor(found, dtype=None if is_array(found) else dtype, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"the function for {short(key)} returned a {type(found).__name__}; it must return one "
            "number per point",
            key,
        ) from None
    tail = value.shape[-len(shape) :] if shape else ()
    if any(size not in (1, n) for size, n in zip(reversed(tail), reversed(shape), strict=False)):
        raise InputError(
            f"the function for {short(key)} returned shape {list(value.shape)} for coordinates of "
            f"shape {list(shape)}; it must return one value per point, batch dimensions first",
            key,
        )
    return value
