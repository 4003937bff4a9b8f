"""Coefficients for a spectral evolution: constant, fixed in time, or new at every stage.

What a coefficient depends on decides where it goes: constants into the linear symbol, functions of
x alone are evaluated once, and whatever depends on t, on the solution or on its slope is evaluated
on the grid at every stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.reader import Context, compile, outside, short
from sciml.core.problem.table import Curve
from sciml.discretization.fields import values_on
from sciml.discretization.fourier.modes import Fourier
from sciml.discretization.volumes.coefficients import data
from sciml.discretization.volumes.layout import layout

# Values by name: t, parameters, fields and their slopes, which broadcast together.
Values = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Term:
    """A coefficient at the unknowns; ``at(values)`` broadcasts to (*batch, *shape).

    ``constant``: the same at all points and times. ``names``: t and the fields and slopes that it
    depends on; without any it is fixed in time.
    """

    at: Callable[[Values], torch.Tensor]
    constant: bool
    names: frozenset[str] = frozenset()

    @property
    def fixed(self) -> bool:
        """Whether it never changes in time."""
        return not self.names

    @property
    def of_solution(self) -> bool:
        """Whether it depends on a field or a slope."""
        return bool(self.names - {"t"})

    @property
    def value(self) -> torch.Tensor:
        """The value of a fixed term."""
        assert self.fixed
        return self.at({})

    @property
    def zero(self) -> bool:
        """Whether it is the constant 0."""
        return self.constant and not bool(self.value.any())


@dataclass(frozen=True)
class Reader:
    """Reads a problem's coefficients; ``slopes`` maps u, ux, ... to field and axis (None: none).

    ``parameters``: (*batch, 1, ..., 1) on the device, one trailing axis per space dimension;
    ``tables`` are those among them. ``left``: ranges of tables that the solution has been outside.
    """

    problem: Problem
    fourier: Fourier
    parameters: Values
    slopes: Mapping[str, tuple[int, int | None]]
    tables: Mapping[str, Curve]
    left: set[str] = field(default_factory=set)

    @property
    def start(self) -> float:
        """The time at which a run begins."""
        return 0.0 if self.problem.time is None else self.problem.time.start

    def instant(self, t: float) -> torch.Tensor:
        """The time as a value on the device."""
        return torch.full((), t, dtype=torch.float64, device=self.fourier.device)

    @cached_property
    def context(self) -> Context:
        """Which names mean what: all of them have a value at every stage."""
        return Context(
            AXES[: self.fourier.dimension],
            True,
            tuple(self.slopes),
            tuple(self.parameters),
            tables=tuple(self.tables.items()),
        )

    def read(self, coefficient: Coefficient, key: str) -> Term:
        """The coefficient as a Term; raises InputError where it cannot be evaluated."""
        found, points = compile(coefficient, self.context, key), self.fourier.points
        changing = found.names & {"t", *self.slopes}
        if changing:

            def at(values: Values) -> torch.Tensor:
                value = found.at(points, values)
                if found.curves and bool(value.isnan().any()):
                    if changing == {"t"}:
                        when = float(values["t"])
                        raise InputError(
                            f"{short(key)} is not finite at t = {when:g}{outside(found)}", key
                        )
                    self.left.update(curve.range for curve in found.curves)
                return value

            return Term(at, False, changing)
        if not found.constant:
            return _fixed(self.values(coefficient, key), constant=False)
        value = found.at(points, self.parameters)
        if not torch.isfinite(value).all():
            raise InputError(f"'{coefficient}' must be finite; it is not{outside(found)}", key)
        ones = (1,) * self.fourier.dimension
        return _fixed(
            value.to(self.fourier.device, torch.float64).reshape(*value.shape[: -len(ones)], *ones),
            True,
        )

    def values(self, coefficient: Coefficient, key: str) -> torch.Tensor:
        """A coefficient of x alone at the unknowns, (*batch, *shape)."""
        return self.fourier.restrict(values_on(self.problem, self.fourier.grid, coefficient, key))

    def constant(self, coefficient: Coefficient, key: str) -> torch.Tensor:
        """The value of a coefficient that must be constant, (*batch, 1, ..., 1)."""
        term = self.read(coefficient, key)
        if not term.constant:
            name = key.rpartition(".")[2]
            raise InputError(
                f"etdrk4 needs a constant {name}, a number or a parameter; got {coefficient!r}", key
            )
        return term.value


def reader(problem: Problem, fourier: Fourier, fields: tuple[str, ...]) -> Reader:
    """The reader for a problem in these fields; raises InputError for ambiguous names."""
    d = fourier.dimension
    slopes: dict[str, tuple[int, int | None]] = {}
    for index, name in enumerate(fields):
        slopes[name] = (index, None)
        slopes |= {f"{name}{axis}": (index, i) for i, axis in enumerate(AXES[:d])}
    cpu = torch.device("cpu")
    context = data(problem, layout(problem, fourier.grid, torch.float64, cpu), torch.float64, cpu)
    parameters = {
        name: value.to(fourier.device).reshape(*value.shape, *(1,) * d)
        for name, value in context.parameters.items()
    }
    for name in problem.parameters:
        if name in slopes or name == "t":
            raise InputError(
                f"a parameter cannot be called '{name}': the name is taken",
                f"problem.parameters.{name}",
            )
    return Reader(problem, fourier, parameters, slopes, context.tables)


def _fixed(value: torch.Tensor, constant: bool) -> Term:
    return Term(lambda values: value, constant)
