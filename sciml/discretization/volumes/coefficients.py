"""Coefficients on grids: what :mod:`sciml.core.problem.reader` reads, at a layout's points.

Everything is evaluated at ``points``, coordinate tensors that broadcast against one another, and
comes back in a shape ``(*batch, ...)`` that broadcasts against them: a number costs one number,
a function of x alone one vector. Arrays are values at the grid's own points, at the unknowns of
one of its sides, or on a grid that spans the domain, between whose points they are interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem import reader
from sciml.core.problem.expression import Expression
from sciml.core.problem.grid import AXES
from sciml.core.problem.interpolation import interpolate, on_box
from sciml.core.problem.problem import Coefficient, FieldFile, Problem
from sciml.core.problem.reader import (
    NO_NORMAL,
    NO_TIME,
    NORMAL,
    Compiled,
    Context,
    compile,
    names_of,
    outside,
    read_parameters,
    short,
    state_names,
)
from sciml.core.problem.table import Curve
from sciml.discretization.volumes.layout import Layout, Points

SLOPES = ("ux", "uy", "uz")
STATE = ("u", *SLOPES)
_NO_STATE = "the solution cannot stand here, or the equation is nonlinear: use newton or auto"


@dataclass(frozen=True)
class Data:
    """What evaluation needs to know; ``parameters`` are tensors of shape batch.

    ``notes`` collects remarks for the user. ``own`` are the points of the grid itself, at which
    arrays on the grid are taken as they are. ``variables``: the time, the solution and its slopes
    at the points of evaluation, (*batch, *points), and whatever else may be named there, as far as
    it is known. ``tables``: those among the parameters. ``fields``: the solution's. ``files``:
    what has been read of them. ``left``: ranges of tables that an iterate has been outside.
    ``watched``: by the identity of functions, these and whether they were seen to jump.
    """

    layout: Layout
    parameters: Mapping[str, torch.Tensor]
    dtype: torch.dtype
    device: torch.device
    own: Points
    notes: list[str] = field(default_factory=list)
    variables: Mapping[str, torch.Tensor] = field(default_factory=dict)
    tables: Mapping[str, Curve] = field(default_factory=dict)
    fields: tuple[str, ...] = ("u",)
    files: dict[FieldFile, torch.Tensor] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    watched: dict[int, tuple[Any, bool]] = field(default_factory=dict)

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

    @property
    def context(self) -> Context:
        """Which names mean what where these are the data."""
        tables = tuple(self.tables.items()) if self.tables else ()
        names = (tuple(self.variables), tuple(self.parameters))
        return _context(self.layout.dimension, *names, self.fields, tables, False)

    @property
    def every(self) -> Context:
        """The same where the solution and a side's normal are known too."""
        tables = tuple(self.tables.items()) if self.tables else ()
        names = (tuple(self.variables), tuple(self.parameters))
        return _context(self.layout.dimension, *names, self.fields, tables, True)


@lru_cache(maxsize=256)
def _context(
    dimension: int,
    variables: tuple[str, ...],
    parameters: tuple[str, ...],
    fields: tuple[str, ...],
    tables: tuple[tuple[str, Curve], ...],
    solved: bool,
) -> Context:
    state = state_names(fields, AXES)
    known = tuple(name for name in state if solved or name in variables)
    others = tuple(name for name in variables if name != "t" and name not in state)
    if solved:
        others = tuple(dict.fromkeys((*others, *NORMAL[:dimension])))
    axes = AXES[:dimension]
    refused = {"t": NO_TIME, **dict.fromkeys(state, _NO_STATE)}
    refused |= dict.fromkeys(NORMAL[:dimension], NO_NORMAL)
    return Context(
        axes, "t" in variables, known, parameters, others, tables, tuple(refused.items())
    )


def data(problem: Problem, layout: Layout, dtype: torch.dtype, device: torch.device) -> Data:
    """The evaluation context, at the start of a problem in time.

    Raises InputError for a parameter that is not numeric.
    """
    taken = (*AXES[: problem.box.dimension], "t", *STATE, *NORMAL)
    parameters, tables = read_parameters(problem.parameters, taken, device)
    context = Data(layout, parameters, dtype, device, layout.grid_points(), tables=tables)
    return context if problem.time is None else context.at_time(problem.time.start)


def compiled(coefficient: Any, data: Data, key: str) -> Compiled:
    """A coefficient, read where these data are known."""
    return compile(coefficient, data.context, key, data.files)


def expression(text: str, data: Data, key: str) -> Expression:
    """Parse an expression of what the context knows; errors carry the key."""
    try:
        return reader.expression(text, data.context)
    except InputError as error:
        raise InputError(error.message, error.key or key) from None


def depends_on(coefficient: Any, data: Data, key: str) -> frozenset[str]:
    """Which of t, the fields and their slopes a coefficient, or one of a list, depends on."""
    context = data.every
    fixed = (*context.axes, *context.parameters, *NORMAL)
    return names_of(coefficient, context, key).difference(fixed)


def jumps(coefficient: Any, data: Data, key: str) -> bool | None:
    """Whether a coefficient, or one of a list of them, may jump between points close together.

    A text does where it has a comparison, ``where``, ``step``, ``sign``, ``floor``, ``round`` or
    ``mod``. None where nobody can say: of a function, of an array.
    """
    if isinstance(coefficient, (list, tuple)):
        found = [jumps(entry, data, key) for entry in coefficient]
        return True if True in found else None if None in found else False
    words = compile(coefficient, data.every, key).jumps
    return None if words is None else bool(words)


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
    read = compiled(coefficient, data, key)

    def locate(
        values: torch.Tensor, centring: str | None, points: Sequence[torch.Tensor], key: str
    ) -> torch.Tensor:
        return _field(values, centring, tuple(points), data, key)

    value = read.at(points, _known(read.names, points, data), locate)
    if value.is_complex():
        raise InputError(f"{short(key)} must be real; it is complex", key)
    value = value.to(device=data.device, dtype=data.dtype)
    missing = points[0].ndim - value.ndim
    if missing > 0:
        value = value.reshape((1,) * missing + tuple(value.shape))
    if unused is not None:
        value = torch.where(unused, value.new_full((), fill), value)
    # An iteration may pass through states where a coefficient is not finite; it sees that itself.
    solving = not data.variables.keys().isdisjoint(data.fields)
    if not solving or (read.curves and read.names.isdisjoint(state_names(data.fields))):
        try:
            require(value, points, key, finite=True)
        except InputError as error:
            raise InputError(error.message + outside(read), key) from None
    elif read.curves and bool(value.detach().isnan().any()):
        data.left.update(curve.range for curve in read.curves)
    return value


def call(expression: Expression, points: Points, data: Data) -> torch.Tensor:
    """An expression at points; parameters lead as batch dimensions."""
    values = _known(expression.names, points, data)
    return expression(**dict(zip(AXES, points, strict=False)), **values)


def _known(names: frozenset[str], points: Points, data: Data) -> Mapping[str, torch.Tensor]:
    """Variables, and the parameters that are named, as they broadcast against the points."""
    if names.isdisjoint(data.parameters):
        return data.variables
    trailing = (1,) * points[0].ndim
    values = {
        name: p.reshape(*p.shape, *trailing) if p.ndim else p
        for name, p in data.parameters.items()
        if name in names
    }
    return {**values, **data.variables}


def _field(
    values: torch.Tensor, centring: str | None, points: Points, data: Data, key: str
) -> torch.Tensor:
    """An array at points: as it is on its own grid, else interpolated linearly.

    An array of the grid's own shape is the grid's own, one of n cells between the n + 1 nodes of
    the grid the cells'; others are at nodes unless ``centring`` says cells.
    """
    values = values.to(device=data.device)
    layout, d, shape = data.layout, data.layout.dimension, data.layout.grid.shape
    own = "cell" if layout.cells else "node"
    trailing = tuple(values.shape[max(0, values.ndim - d) :])
    if trailing == shape and centring in (None, own):
        if points is data.own:
            return values
        return interpolate(values, points, tuple(axis.points for axis in layout.axes))
    if points[0].ndim == d and (side := _side_values(values, points, layout)) is not None:
        return side
    if len(trailing) < d or min(trailing) < 2:
        raise InputError(
            f"{short(key)} has shape {list(values.shape)}; it must end in the grid's shape "
            f"{list(shape)} (or a coarser or finer one that spans the domain), batch first",
            key,
        )
    if centring is None and own == "node" and trailing == tuple(n - 1 for n in shape):
        centring = "cell"
    note = f"{short(key)}: interpolated linearly from {_times(trailing)} to {_times(shape)} points"
    if centring == "cell":
        note += ", as values at the centres of cells"
    if note not in data.notes:
        data.notes.append(note)
    box = layout.grid.box
    return on_box(values, points, box.lower, box.upper, centring, layout.periodic)


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


def check_order(
    lower: torch.Tensor, upper: torch.Tensor, points: Points, key: str, above: str = "upper"
) -> None:
    """Raise InputError where ``lower`` exceeds ``upper``, called ``above``, by more than rounding.

    What is no number bounds nothing.
    """
    low, high = torch.broadcast_tensors(lower.detach(), upper.detach())
    size = torch.maximum(low.abs(), high.abs())
    bad = (low - high > 1e-9 * torch.where(torch.isfinite(size), size, 0.0)) & ~torch.isnan(size)
    if bool(bad.any()):
        place = describe(low, bad, points, key)
        raise InputError(f"{place}, above {above}, {float(high[bad][0]):.6g} there", key)


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
    return f"{short(key)} = {float(value[first].detach()):.6g} at {', '.join(where)}{sample}"


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
