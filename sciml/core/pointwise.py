"""A problem's data at scattered points: coefficients as functions of x, t, u and its slopes.

Discretisation evaluates coefficients where its scheme needs them; here they are evaluated at any
points, so that they can be differentiated there. A coefficient given as values on a grid has no
derivative to speak of: it may stand where none is needed (f, c, boundary data), interpolated
linearly, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml.core.discretize.coefficients import load
from sciml.core.equation import FieldFile
from sciml.core.errors import InputError
from sciml.core.expression import Expression, parse
from sciml.core.functions import call_named, named_arguments
from sciml.core.interpolation import interpolate
from sciml.core.problem import Problem, Unknown

_ABSENT = {
    "t": "this problem has no time; give it time: {end: ...} and initial:, or leave t out",
    "u": "the solution cannot stand here",
}


@dataclass(frozen=True)
class Pointwise:
    """Evaluates a problem's coefficients at points (N, D), time last where there is one.

    ``parameters``: numbers, or tensors that broadcast to (N,). ``fields``: names of the solution's
    functions, which a coefficient may use with their slopes (``u``, ``ux``; ``v``, ``vy``).
    """

    problem: Problem
    fields: tuple[str, ...] = ("u",)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of a point's coordinates, t among them."""
        names = self.problem.box.axes
        return names if self.problem.time is None else (*names, "t")

    @property
    def slopes(self) -> dict[str, tuple[int, int]]:
        """``ux`` and so on, to the field's number and the axis's."""
        return {
            f"{name}{axis}": (k, i)
            for k, name in enumerate(self.fields)
            for i, axis in enumerate(self.problem.box.axes)
        }

    def names(self, coefficient: Any, key: str) -> frozenset[str]:
        """Which coordinates, fields and slopes a coefficient, or one of a list, depends on."""
        if isinstance(coefficient, (list, tuple)):
            parts = [self.names(c, f"{key}[{i}]") for i, c in enumerate(coefficient)]
            return frozenset().union(*parts)
        if isinstance(coefficient, str):
            return self._expression(coefficient, key).names
        if callable(coefficient):
            names = named_arguments(coefficient, len(self.problem.box.axes))
            return names | frozenset(self.axes)
        return frozenset(self.axes) if _is_field(coefficient) else frozenset()

    def smooth(self, coefficient: Any, key: str) -> None:
        """Raise InputError where a coefficient's derivatives are needed but say nothing."""
        if isinstance(coefficient, (list, tuple)):
            for i, entry in enumerate(coefficient):
                self.smooth(entry, f"{key}[{i}]")
        elif _is_field(coefficient):
            raise InputError(
                "the equation at a point needs this coefficient's derivatives, which values on a "
                "grid do not have; give an expression, or use a solver on the grid such as cg",
                key,
            )
        elif isinstance(coefficient, str):
            jumps = self._expression(coefficient, key).jumps
            if jumps:
                raise InputError(
                    f"'{sorted(jumps)[0]}' jumps, and the equation at a point needs this "
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
    ) -> Tensor:
        """The coefficient at the points, (N,) or a scalar tensor; differentiable.

        ``values`` (N, F) and ``slopes`` (D, N, F) are those of the solution. Raises InputError for
        a kind that is none of the known ones.
        """
        if isinstance(coefficient, Real):
            return points.new_tensor(float(coefficient))
        if isinstance(coefficient, str):
            known = self._known(points, values, slopes)
            return self._expression(coefficient, key)(**known).to(points.dtype)
        if _is_field(coefficient):
            return self._interpolated(coefficient, key, points)
        if callable(coefficient):
            d = len(self.problem.box.axes)
            known = self._known(points, values, slopes)
            places = points.unbind(1)[:d]
            value = call_named(coefficient, places, known, _ABSENT, key)
            return torch.as_tensor(value).to(points.dtype)
        raise InputError(
            "must be a number, an expression, a field or a function; "
            f"got {type(coefficient).__name__}",
            key,
        )

    def _known(
        self, points: Tensor, values: Tensor | None, slopes: Tensor | None
    ) -> dict[str, Tensor]:
        known = dict(zip(self.axes, points.unbind(1), strict=True))
        known |= {name: torch.as_tensor(p).to(points) for name, p in self.parameters.items()}
        if values is not None:
            known |= dict(zip(self.fields, values.unbind(1), strict=True))
            # Slopes along axes that the box lacks are zero, as on grids.
            known |= {
                f"{name}{axis}": points.new_zeros(()) for name in self.fields for axis in "xyz"
            }
        if slopes is not None:
            known |= {name: slopes[i, :, k] for name, (k, i) in self.slopes.items()}
        return known

    def _expression(self, text: str, key: str) -> Expression:
        state = [f"{name}{axis}" for name in self.fields for axis in ("", *"xyz")]
        known = dict.fromkeys((*self.axes, *self.parameters, *self.fields, *state, *self.slopes))
        try:
            return _parsed(text, tuple(known))
        except InputError as error:
            raise InputError(error.message, error.key or key) from None

    def _interpolated(self, coefficient: Any, key: str, points: Tensor) -> Tensor:
        if isinstance(coefficient, FieldFile):
            coefficient = load(coefficient, key)
        values = torch.as_tensor(coefficient).to(points)
        box = self.problem.box
        if values.ndim == 0:
            return values
        if values.ndim != box.dimension or min(values.shape) < 2:
            raise InputError(
                f"values on a grid must have the domain's {box.dimension} axes, at least 2 points "
                f"each; got shape {list(values.shape)}",
                key,
            )
        ticks = tuple(
            torch.linspace(a, b, n, dtype=points.dtype)
            for a, b, n in zip(box.lower, box.upper, values.shape, strict=True)
        )
        return interpolate(values, points.unbind(1)[: box.dimension], ticks)


def numeric_parameters(problem: Problem) -> dict[str, Any]:
    """The parameters as numbers, of unknown ones the guess; InputError for a batch of them."""
    found = {}
    for name, value in problem.parameters.items():
        try:
            found[name] = float(value.unknown if isinstance(value, Unknown) else value)
        except (TypeError, ValueError):
            raise InputError(
                f"this solver answers one problem at a time; parameter '{name}' must be one number",
                f"problem.parameters.{name}",
            ) from None
    return found


@lru_cache(maxsize=256)
def _parsed(text: str, known: tuple[str, ...]) -> Expression:
    return parse(text, known, {k: why for k, why in _ABSENT.items() if k not in known})


def _is_field(coefficient: Any) -> bool:
    return isinstance(coefficient, (FieldFile, Tensor, np.ndarray))
