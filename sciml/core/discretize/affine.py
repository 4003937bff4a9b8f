"""``A(t) u - b(t)``: the linear part of a problem, evaluated again only as far as t enters it.

Where K, b, c, the Robin coefficients and an obstacle's rim do not depend on t, A is assembled once
and the sides' data and the source are evaluated anew at every time; those of them that do not
depend on t are kept too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sciml.core.discretize.assemble import (
    Assembly,
    assemble,
    compatible,
    integrated_source,
    right,
)
from sciml.core.discretize.coefficients import Data, depends_on
from sciml.core.discretize.instant import AtTime
from sciml.core.errors import InputError
from sciml.core.problem import Condition, Problem

_KEY = "problem.equation"


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
        self.moving = "t" in operator | _of_operator(problem, info)
        self._source_moves = self.moving or "t" in depends_on(form.f, info, f"{_KEY}.f")
        self._sides_move = self.moving or "t" in _of_sides(problem, info)
        parts = assemble(problem, info)
        self._source = integrated_source(problem, parts, info)
        b = right(problem, parts, info, self._source)
        if balanced and parts.A.nullspace and problem.time is None:
            b, _ = compatible(b, parts, info)
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


def _data(condition: Condition) -> tuple[object, ...]:
    if condition.robin is not None:
        return (condition.robin.g,)
    return tuple(v for v in (condition.dirichlet, condition.neumann) if v is not None)


def _of_sides(problem: Problem, info: Data) -> frozenset[str]:
    """What the sides' data depend on."""
    found: frozenset[str] = frozenset()
    for name, condition in problem.boundary.items():
        found |= depends_on(_data(condition), info, f"problem.boundary.{name}.{condition.kind}")
    return found


def _of_operator(problem: Problem, info: Data) -> frozenset[str]:
    """What the Robin coefficients and the rim's data depend on."""
    found: frozenset[str] = frozenset()
    for name, condition in problem.boundary.items():
        if condition.robin is not None:
            key = f"problem.boundary.{name}.robin.alpha"
            found |= depends_on(condition.robin.alpha, info, key)
    if problem.obstacle is not None:
        rim = problem.obstacle.boundary
        found |= depends_on(_data(rim), info, "problem.obstacle.boundary")
        if rim.robin is not None:
            found |= depends_on(rim.robin.alpha, info, "problem.obstacle.boundary.robin.alpha")
    return found
