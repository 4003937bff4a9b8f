"""``A(t) u - b(t)``: the linear part of a problem, evaluated again only as far as t enters it.

Where K, b, c, the Robin coefficients and an obstacle's rim do not depend on t, A is assembled once
and the sides' data and the source are evaluated anew at every time; those of them that do not
depend on t are kept too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from sciml.core.errors import InputError
from sciml.core.problem.problem import Problem
from sciml.discretization.volumes.assemble import (
    Assembly,
    assemble,
    compatible,
    integrated_source,
    right,
)
from sciml.discretization.volumes.boundary import names_of_rim, names_of_sides
from sciml.discretization.volumes.coefficients import Data, depends_on

_KEY = "problem.equation"
Value = TypeVar("Value")


class AtTime(Generic[Value]):
    """What depends on the time alone, kept until another time is asked for.

    Where a graph is recorded it is made anew: a graph serves one pass, and a value made without a
    graph would otherwise stand in for one with it, and its gradient be lost.
    """

    def __init__(self) -> None:
        self._last: tuple[float, Value] | None = None

    def get(self, t: float, make: Callable[[], Value]) -> Value:
        """The value at ``t``, by ``make`` where it is not at hand."""
        if torch.is_grad_enabled() or self._last is None or self._last[0] != t:
            self._last = (t, make())
        return self._last[1]


@dataclass(frozen=True)
class Instant:
    """The linear part at one time: its operator with the sides' data, and b (*batch, *shape)."""

    parts: Assembly
    b: torch.Tensor


class Affine:
    """``A(t) u - b(t)`` for a problem whose coefficients do not depend on the solution.

    ``moving``: whether A depends on t. The b of a steady problem whose A has constants in its
    kernel is made compatible if ``balanced``, where nothing else is to hold the level of u.
    """

    def __init__(self, problem: Problem, info: Data, balanced: bool) -> None:
        form, obstacle = problem.form, problem.obstacle
        if obstacle is not None and "t" in depends_on(obstacle.inside, info, "problem.obstacle"):
            raise InputError("an obstacle cannot move: leave t out", "problem.obstacle.inside")
        self.problem, self.info = problem, info
        operator = depends_on((form.K, form.b or (), form.c), info, _KEY)
        sides, rim = names_of_sides(problem, info), names_of_rim(problem, info)
        self.moving = "t" in operator | sides.alpha | rim.alpha | rim.data
        self._source_moves = self.moving or "t" in depends_on(form.f, info, f"{_KEY}.f")
        self._sides_move = self.moving or "t" in sides.data
        parts = assemble(problem, info)
        self._source = integrated_source(problem, parts, info)
        b = right(problem, parts, info, self._source)
        if balanced and parts.A.nullspace and problem.time is None:
            b, _ = compatible(b, parts.volume, info)
        start = 0.0 if problem.time is None else problem.time.start
        self._first = (start, Instant(parts, b))
        self._later: AtTime[Instant] = AtTime()

    def at(self, t: float) -> Instant:
        """The linear part at time t."""
        if not (self._source_moves or self._sides_move) or t == self._first[0]:
            return self._first[1]
        return self._later.get(t, lambda: self._made(t))

    def _made(self, t: float) -> Instant:
        info, parts, source = self.info.at_time(t), self._first[1].parts, self._source
        if self.moving:
            parts = assemble(self.problem, info)
        elif self._sides_move:
            parts = parts.at_time(self.problem, info)
        if self._source_moves:
            source = integrated_source(self.problem, parts, info)
        return Instant(parts, right(self.problem, parts, info, source))
