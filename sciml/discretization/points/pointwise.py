"""A problem's data at scattered points: coefficients as functions of x, t, u and its slopes.

Discretisation evaluates coefficients where its scheme needs them; here they are evaluated at any
points, so that they can be differentiated there. A coefficient given as values on a grid has no
derivative to speak of: it may stand where none is needed (f, c, boundary data), interpolated
linearly, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.equation import derivative
from sciml.core.problem.grid import AXES, Box
from sciml.core.problem.interpolation import on_box
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import (
    NO_NORMAL,
    NO_TIME,
    NORMAL,
    Context,
    FieldFile,
    Unknown,
    compile,
    compile_terms,
    free_names,
    is_array,
    names_of,
    outside,
    read_parameters,
    short,
    state_names,
)
from sciml.core.problem.table import Curve, Table
from sciml.discretization.points.jet import Jet

_NO_AXIS = "the domain has no such coordinate"


@dataclass(frozen=True)
class Pointwise:
    """Evaluates a problem's coefficients at points (N, D), time last where there is one.

    ``parameters``: numbers, or tensors that broadcast to (N,); ``tables`` among them. ``fields``:
    names of the solution's functions, which a coefficient may use with their slopes (``u``,
    ``ux``; ``v``, ``vy``). ``files``: what has been read of them. ``left``: ranges of tables of the
    solution that it has been outside. ``around``: the box around a mesh.
    """

    problem: Problem
    fields: tuple[str, ...] = ("u",)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    files: dict[FieldFile, Tensor] = field(default_factory=dict, compare=False)
    left: set[str] = field(default_factory=set, compare=False)
    around: Box | None = None

    @property
    def box(self) -> Box:
        """The problem's, or the one around its domain."""
        if self.around is not None:
            return self.around
        domain = self.problem.domain
        return self.problem.box if domain is None else domain.box

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        if isinstance(self.problem.domain, Box):
            return self.problem.periodic
        return (False,) * self.box.dimension

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of a point's coordinates, t among them."""
        names = self.box.axes
        return names if self.problem.time is None else (*names, "t")

    @property
    def slopes(self) -> dict[str, tuple[int, int]]:
        """``ux`` and so on, to the field's number and the axis's."""
        return {
            f"{name}{axis}": (k, i)
            for k, name in enumerate(self.fields)
            for i, axis in enumerate(self.box.axes)
        }

    def context(self, solved: bool = True, faced: bool = False) -> Context:
        """Which names mean what at points; the solution and a side's normal where known."""
        return _context(
            self.box.axes,
            self.problem.time is not None,
            self.fields,
            tuple(self.parameters),
            _tables(self.problem),
            solved,
            faced,
        )

    def derivatives(self, residual: Any) -> dict[str, tuple[int, tuple[int, ...]]]:
        """The derivatives that a residual which is written out names: the field and the axes."""
        found = {n: derivative(n, self.fields, self.axes) for n in free_names(residual)}
        return {name: of for name, of in found.items() if of is not None}

    def terms(
        self,
        residual: Any,
        key: str,
        points: Tensor,
        jet: Jet,
        normal: Sequence[float | Tensor] | None = None,
        more: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """What adds up to a residual that is written out, (terms, N); a graph of the jet's.

        ``more``: what else it may name, (N,) each. Raises InputError for names that mean nothing at
        a point.
        """
        named, more = self.derivatives(residual), more or {}
        context = self.context(faced=normal is not None)
        others, refused = (*context.others, *more), dict(context.refused)
        for name in free_names(residual) - named.keys():
            if derivative(name, self.fields, (*AXES, "t")) is not None:
                refused[name] = NO_TIME if name.endswith("t") else _NO_AXIS
        context = replace(
            context,
            state=(*self.fields, *named),
            others=others,
            refused=tuple(refused.items()),
        )
        read = compile_terms(residual, context, key)
        known = self._known(read.names, points, jet.value, None) | self._facing(points, normal)
        known |= more
        for name, (k, axes) in named.items():
            slope = jet.gradient[axes[0]] if len(axes) == 1 else jet.derivative(*axes)
            known[name] = slope[:, k]
        found = read.at(points.unbind(1)[: self.box.dimension], known)
        return found.to(points).expand(-1, len(points))

    def _facing(self, points: Tensor, normal: Sequence[float | Tensor] | None) -> dict[str, Tensor]:
        return {
            n: torch.as_tensor(v, dtype=points.dtype, device=points.device)
            for n, v in zip(NORMAL, normal or (), strict=False)
        }

    def names(self, coefficient: Any, key: str) -> frozenset[str]:
        """Which coordinates, fields and slopes a coefficient, or one of a list, depends on."""
        return names_of(coefficient, self.context(), key)

    def smooth(self, coefficient: Any, key: str) -> None:
        """Raise InputError where a coefficient's derivatives are needed but say nothing."""
        if isinstance(coefficient, (list, tuple)):
            for i, entry in enumerate(coefficient):
                self.smooth(entry, f"{key}[{i}]")
        elif not isinstance(coefficient, Real):
            read = compile(coefficient, self.context(), key)
            array = isinstance(coefficient, FieldFile) or is_array(coefficient)
            if array and not read.constant:
                raise InputError(
                    "the equation at a point needs this coefficient's derivatives, which values on "
                    "a grid do not have; give an expression, or use a solver on the grid such as "
                    "cg",
                    key,
                )
            if read.jumps:
                raise InputError(
                    f"'{sorted(read.jumps)[0]}' jumps, and the equation at a point needs this "
                    "coefficient's derivatives; smooth it, e.g. by tanh, or use a solver on a grid",
                    key,
                )

    def __call__(
        self,
        coefficient: Any,
        key: str,
        points: Tensor,
        values: Tensor | None = None,
        slopes: Tensor | None = None,
        normal: Sequence[float | Tensor] | None = None,
    ) -> Tensor:
        """The coefficient at the points, (N,) or a scalar tensor; differentiable.

        ``values`` (N, F) and ``slopes`` (D, N, F) are those of the solution, ``normal`` is that of
        the side on which all points lie, or of the rim at each (N,). Raises InputError for a kind
        that is none of the known ones.
        """
        context = self.context(values is not None, normal is not None)
        read = compile(coefficient, context, key, self.files)
        known = self._known(read.names, points, values, slopes)
        known |= self._facing(points, normal)
        places = points.unbind(1)[: self.box.dimension]
        value = read.at(places, known, self._interpolated)
        if value.ndim > 1 or value.is_complex():
            raise InputError(
                f"{short(key)} must be one real number per point; it has the shape "
                f"{list(value.shape)} at {len(points)} points",
                key,
            )
        if read.curves and values is None and not bool(torch.isfinite(value).all()):
            raise InputError(f"{short(key)} is not finite{outside(read)}", key)
        if read.curves and values is not None and bool(value.detach().isnan().any()):
            self.left.update(c.range for c in read.curves)
        return value.to(points)

    def _known(
        self, names: frozenset[str], points: Tensor, values: Tensor | None, slopes: Tensor | None
    ) -> dict[str, Tensor]:
        known = {
            # A Python number would become a float32 on the way.
            name: torch.as_tensor(p, dtype=points.dtype, device=points.device)
            for name, p in self.parameters.items()
            if name in names and not isinstance(p, Table)
        }
        if "t" in names:
            known["t"] = points[:, -1]
        if values is not None:
            for k, name in enumerate(self.fields):
                known[name] = values[:, k]
                # Slopes along axes that the box lacks are zero, as on grids.
                known |= {f"{name}{a}": points.new_zeros(()) for a in AXES if f"{name}{a}" in names}
        if slopes is not None:
            here = self.slopes
            known |= {n: slopes[here[n][1], :, here[n][0]] for n in names & here.keys()}
        return known

    def _interpolated(
        self, values: Tensor, centring: str | None, points: Sequence[Tensor], key: str
    ) -> Tensor:
        box = self.box
        if values.ndim != box.dimension or min(values.shape) < 2:
            raise InputError(
                f"values on a grid must have the domain's {box.dimension} axes, at least 2 points "
                f"each; got shape {list(values.shape)}",
                key,
            )
        periodic = self.periodic
        return on_box(values.to(points[0]), points, box.lower, box.upper, centring, periodic)


@lru_cache(maxsize=256)
def _context(
    axes: tuple[str, ...],
    timed: bool,
    fields: tuple[str, ...],
    parameters: tuple[str, ...],
    tables: tuple[tuple[str, Curve], ...],
    solved: bool,
    faced: bool,
) -> Context:
    state = tuple(dict.fromkeys((*state_names(fields), *state_names(fields, axes))))
    normal = normal_names(axes)
    refused = {"t": NO_TIME, **dict.fromkeys(("u", *state), "the solution cannot stand here")}
    refused |= dict.fromkeys(normal, NO_NORMAL)
    numbers = tuple(name for name in parameters if name not in dict(tables))
    known, others = state if solved else (), normal if faced else ()
    return Context(axes, timed, known, numbers, others, tables, tuple(refused.items()))


def normal_names(axes: Sequence[str]) -> tuple[str, ...]:
    """The components of a side's normal by name, up to three."""
    return NORMAL[: len(axes)] if len(axes) <= len(AXES) else ()


def _tables(problem: Problem) -> tuple[tuple[str, Curve], ...]:
    tables = {name: p for name, p in problem.parameters.items() if isinstance(p, Table)}
    return tuple(read_parameters(tables, ())[1].items()) if tables else ()


def numeric_parameters(problem: Problem) -> dict[str, Any]:
    """The parameters as numbers, of unknown ones the guess; InputError for a batch of them.

    Tables are not among them.
    """
    found = {}
    for name, value in problem.parameters.items():
        if isinstance(value, Table):
            continue
        try:
            found[name] = float(value.unknown if isinstance(value, Unknown) else value)
        except (TypeError, ValueError):
            raise InputError(
                f"this solver answers one problem at a time; parameter '{name}' must be one number",
                f"problem.parameters.{name}",
            ) from None
    return found
