"""Coefficients as tensors: numbers, expressions, functions, arrays and files.

Everything is evaluated at ``points``, coordinate tensors that broadcast against one another, and
comes back in a shape ``(*batch, ...)`` that broadcasts against them: a number costs one number,
a function of x alone one vector. Where the time and the solution are known, expressions may name
t, u, ux, uy and uz. A function may have arguments of these names, and of the parameters', after its
coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sciml.core.discretize.layout import Layout, Points
from sciml.core.errors import InputError
from sciml.core.expression import Call, Expression, Node, parse
from sciml.core.functions import call_named, named_arguments
from sciml.core.grid import AXES
from sciml.core.interpolation import interpolate
from sciml.core.problem import Coefficient, FieldFile, Problem, Unknown

SLOPES = ("ux", "uy", "uz")
STATE = ("u", *SLOPES)
NORMAL = ("nx", "ny", "nz")
_JUMPS = {"<", "<=", ">", ">=", "==", "!=", "step", "sign", "floor", "round", "mod", "where"}
_REFUSED = {
    "t": "this problem has no time; give it time: {end: ...} and initial:, or leave t out",
    **dict.fromkeys(
        STATE, "the solution cannot stand here, or the equation is nonlinear: use newton or auto"
    ),
    **dict.fromkeys(NORMAL, "the outward normal is known in the data of a side or a rim only"),
}


@dataclass(frozen=True)
class Data:
    """What evaluation needs to know; ``parameters`` are tensors of shape batch.

    ``notes`` collects remarks for the user. ``own`` are the points of the grid itself, at which
    arrays on the grid are taken as they are. ``variables``: the time, and the solution and its
    slopes at the points of evaluation, (*batch, *points), as far as they are known.
    """

    layout: Layout
    parameters: Mapping[str, torch.Tensor]
    dtype: torch.dtype
    device: torch.device
    own: Points
    notes: list[str] = field(default_factory=list)
    variables: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def at_time(self, t: float) -> Data:
        """The same at time t."""
        now = torch.tensor(float(t), dtype=torch.float64, device=self.device)
        return replace(self, variables={**self.variables, "t": now})

    def with_state(self, u: torch.Tensor, slopes: Sequence[torch.Tensor] = ()) -> Data:
        """The same where the solution is u; slopes of absent axes are zero."""
        zero = u.new_zeros(())
        state = dict.fromkeys(SLOPES, zero) if slopes else {}
        return replace(
            self,
            variables={
                **self.variables,
                "u": u,
                **state,
                **dict(zip(SLOPES, slopes, strict=False)),
            },
        )


def data(problem: Problem, layout: Layout, dtype: torch.dtype, device: torch.device) -> Data:
    """The evaluation context, at the start of a problem in time.

    Raises InputError for a parameter that is not numeric.
    """
    parameters = {}
    for name, value in problem.parameters.items():
        key = f"problem.parameters.{name}"
        if isinstance(value, Unknown):
            raise InputError(f"'{name}' is unknown: solvers that find it are pinn, gaussians", key)
        try:
            tensor = torch.as_tensor(value, dtype=torch.float64, device=device)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"parameter '{name}' must be a number or a list of numbers; got {value!r}", key
            ) from None
        if name in (*AXES[: problem.box.dimension], *_REFUSED):
            raise InputError(f"a parameter cannot be called '{name}': the name is taken", key)
        if not torch.isfinite(tensor).all():
            raise InputError(f"parameter '{name}' must be finite; got {value!r}", key)
        parameters[name] = tensor
    batches = {name: tuple(p.shape) for name, p in parameters.items() if p.ndim}
    try:
        torch.broadcast_shapes(*batches.values())
    except RuntimeError:
        counts = ", ".join(f"{name} has {list(shape)}" for name, shape in batches.items())
        raise InputError(
            f"parameters given as lists must be equally long: {counts}", "problem.parameters"
        ) from None
    context = Data(layout, parameters, dtype, device, layout.grid_points())
    return context if problem.time is None else context.at_time(problem.time.start)


def expression(text: str, data: Data, key: str) -> Expression:
    """Parse an expression of what the context knows; errors carry the key."""
    known = (*AXES[: data.layout.dimension], *data.parameters, *data.variables)
    try:
        return _parsed(text, known)
    except InputError as error:
        raise InputError(error.message, error.key or key) from None


@lru_cache(maxsize=256)
def _parsed(text: str, known: tuple[str, ...]) -> Expression:
    return parse(text, known, {k: v for k, v in _REFUSED.items() if k not in known})


def depends_on(coefficient: Any, data: Data, key: str) -> frozenset[str]:
    """Which of t, u, ux, uy, uz a coefficient, or one of a list of them, depends on."""
    if isinstance(coefficient, (list, tuple)):
        return frozenset().union(*(depends_on(entry, data, key) for entry in coefficient))
    if isinstance(coefficient, str):
        every = {**dict.fromkeys(STATE, torch.zeros(())), **data.variables}
        found = expression(coefficient, replace(data, variables=every), key).names
    elif callable(coefficient):
        found = named_arguments(coefficient, data.layout.dimension)
    else:
        return frozenset()
    return found & {"t", *STATE}


def jumps(coefficient: Any, data: Data, key: str) -> bool | None:
    """Whether a coefficient, or one of a list of them, may jump between points close together.

    A text does where it has a comparison, ``where``, ``step``, ``sign``, ``floor``, ``round`` or
    ``mod``. None where nobody can say: of a function, of an array.
    """
    if isinstance(coefficient, (list, tuple)):
        found = [jumps(entry, data, key) for entry in coefficient]
        return True if True in found else None if None in found else False
    if isinstance(coefficient, str):
        every = (*AXES[: data.layout.dimension], *data.parameters, *data.variables)
        try:
            return _jumps(_parsed(coefficient, (*every, *(n for n in STATE if n not in every))))
        except InputError as error:
            raise InputError(error.message, error.key or key) from None
    return False if isinstance(coefficient, Real) else None


@lru_cache(maxsize=256)
def _jumps(expression: Expression) -> bool:
    def found(node: Node) -> bool:
        if not isinstance(node, Call):
            return False
        return node.function in _JUMPS or any(found(argument) for argument in node.arguments)

    return found(expression.root)


def evaluate(
    coefficient: Coefficient,
    points: Points,
    data: Data,
    key: str,
    unused: torch.Tensor | None = None,
    fill: float = 0.0,
) -> torch.Tensor:
    """The coefficient at ``points``, in ``data.dtype``; broadcasts to (*batch, *points).

    Where the mask ``unused`` holds (inside an obstacle) it is ``fill``, whatever it was. Raises
    InputError where it is none of the known kinds, has a wrong shape or a value that is NaN or
    infinite, and says at which point.
    """
    value = _raw(coefficient, points, data, key)
    if not torch.is_floating_point(value):
        value = value.to(data.dtype)
    value = value.to(device=data.device, dtype=data.dtype)
    missing = points[0].ndim - value.ndim
    if missing > 0:
        value = value.reshape((1,) * missing + tuple(value.shape))
    if unused is not None:
        value = torch.where(unused, value.new_full((), fill), value)
    # An iteration may pass through states where a coefficient is not finite; it sees that itself.
    if "u" not in data.variables:
        require(value, points, key, finite=True)
    return value


def _raw(coefficient: Coefficient, points: Points, data: Data, key: str) -> torch.Tensor:
    if isinstance(coefficient, Real):
        return torch.tensor(float(coefficient), dtype=data.dtype, device=data.device)
    if isinstance(coefficient, str):
        return call(expression(coefficient, data, key), points, data)
    if isinstance(coefficient, FieldFile):
        coefficient = load(coefficient, key)
    if isinstance(coefficient, (torch.Tensor, np.ndarray)):
        return _field(torch.as_tensor(coefficient), points, data, key)
    if callable(coefficient):
        return _call_function(coefficient, points, data, key)
    raise InputError(
        f"{_name(key)} must be a number, an expression, a field or a function; "
        f"got {type(coefficient).__name__}",
        key,
    )


def call(expression: Expression, points: Points, data: Data) -> torch.Tensor:
    """An expression at points; parameters lead as batch dimensions."""
    return expression(**dict(zip(AXES, points, strict=False)), **_known(points, data))


def _known(points: Points, data: Data) -> dict[str, torch.Tensor]:
    """Parameters and variables, as they broadcast against the points."""
    trailing = (1,) * points[0].ndim
    values = {
        name: p.reshape(*p.shape, *trailing) if p.ndim else p for name, p in data.parameters.items()
    }
    return {**values, **data.variables}


def _call_function(
    function: Callable[..., Any], points: Points, data: Data, key: str
) -> torch.Tensor:
    shape = torch.broadcast_shapes(*(p.shape for p in points))
    places = [p.expand(shape) for p in points]
    value = torch.as_tensor(
        call_named(function, places, _known(points, data), _REFUSED, key), device=data.device
    )
    tail = value.shape[-len(shape) :]
    if any(size not in (1, n) for size, n in zip(reversed(tail), reversed(shape), strict=False)):
        raise InputError(
            f"the function for {_name(key)} returned shape {list(value.shape)} for coordinates of "
            f"shape {list(shape)}; it must return one value per point, batch dimensions first",
            key,
        )
    return value


def _field(values: torch.Tensor, points: Points, data: Data, key: str) -> torch.Tensor:
    """An array at points: as it is on its own grid, else interpolated linearly."""
    if values.ndim == 0:
        return values
    values = values.to(device=data.device)
    d, shape = data.layout.dimension, data.layout.grid.shape
    if values.ndim >= d and tuple(values.shape[-d:]) == shape:
        if points is data.own:
            return values
        return interpolate(values, points, tuple(axis.points for axis in data.layout.axes))
    if points[0].ndim == d and (side := _side_values(values, points, data.layout)) is not None:
        return side
    if values.ndim < d or min(values.shape[-d:]) < 2:
        raise InputError(
            f"{_name(key)} has shape {list(values.shape)}; it must end in the grid's shape "
            f"{list(shape)} (or a coarser or finer one that spans the domain), batch first",
            key,
        )
    sizes = tuple(values.shape[-d:])
    note = f"{_name(key)}: interpolated linearly from {_times(sizes)} to {_times(shape)} points"
    if note not in data.notes:
        data.notes.append(note)
    box = data.layout.grid.box
    ticks = tuple(
        torch.linspace(a, b, n, dtype=torch.float64, device=data.device)
        for a, b, n in zip(box.lower, box.upper, sizes, strict=True)
    )
    return interpolate(values, points, ticks)


def _side_values(values: torch.Tensor, points: Points, layout: Layout) -> torch.Tensor | None:
    """Values given on one side of the grid, its own axis left out; None if they are not."""
    fixed = [k for k, p in enumerate(points) if p.numel() == 1]
    if len(fixed) != 1:
        return None
    shape = layout.grid.shape
    side = tuple(n for k, n in enumerate(shape) if k != fixed[0])
    if tuple(values.shape[values.ndim - len(side) :]) != side:
        return None
    values = values.unsqueeze(fixed[0] - len(shape))
    there = tuple(p.numel() for p in points)
    # Fluxes are wanted at the unknowns alone, Dirichlet values on the whole side.
    own = values if there == values.shape[-len(shape) :] else layout.to_unknowns(values)
    return own if tuple(own.shape[-len(shape) :]) == there else None


def load(source: FieldFile, key: str) -> np.ndarray:
    """The array of a field file; raises InputError where there is none."""
    path = Path(source.file)
    if not path.is_file():
        raise InputError(f"file not found: {source.file}", key)
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
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
    return np.array(array, dtype=np.float64)


def _load_hdf5(path: Path, source: FieldFile, key: str) -> np.ndarray:
    import h5py

    with h5py.File(path, "r") as file:
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
        return np.asarray(file[wanted][...])


def require(
    value: torch.Tensor, points: Points, key: str, *, finite: bool = False, positive: bool = False
) -> None:
    """Raise InputError, with the place, where a value is not finite or not positive."""
    low, high = torch.aminmax(value.detach())
    if positive and not low > 0:
        bad, must = ~(value > 0), "positive"
    elif finite and not (torch.isfinite(low) and torch.isfinite(high)):
        bad, must = ~torch.isfinite(value), "finite"
    else:
        return
    raise InputError(f"{describe(value, bad, points, key)} (must be {must})", key)


def describe(value: torch.Tensor, bad: torch.Tensor, points: Points, key: str) -> str:
    """``K = -0.3 at x = 0.5, y = 0.25 in sample 2`` for the first of the bad values."""
    first = tuple(int(i) for i in bad.nonzero()[0])
    ndim = points[0].ndim
    batch, place = first[: len(first) - ndim], first[len(first) - ndim :]
    where = []
    for name, p in zip(AXES, points, strict=False):
        index = tuple(i if n > 1 else 0 for i, n in zip(place, p.shape, strict=True))
        where.append(f"{name} = {float(p[index]):.6g}")
    sample = f" in sample {list(batch) if len(batch) > 1 else batch[0]}" if batch else ""
    return f"{_name(key)} = {float(value[first]):.6g} at {', '.join(where)}{sample}"


def _name(key: str) -> str:
    return key.removeprefix("problem.").removeprefix("equation.")


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
