"""Parameters that are to be found: where they stand, and how they keep between their bounds.

A bounded parameter p is a function of a free coordinate s, which is what an optimiser moves:

    p = s,    lower + exp s,    upper - exp s,    lower + (upper - lower) / (1 + exp -s),

so that no step leaves the bounds, and one that is above zero is found in its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.condition import Condition, Robin
from sciml.core.problem.equation import Integral
from sciml.core.problem.grid import AXES
from sciml.core.problem.problem import Problem, Unknown
from sciml.core.problem.reader import free_names
from sciml.core.problem.unknown import Law, leaves

_NUDGE = 0.37  # of a coordinate, to see whether what holds at the guess holds beside it


def unknowns_of(problem: Problem) -> dict[str, Unknown]:
    """The parameters that are to be found, by name."""
    return {name: p for name, p in problem.parameters.items() if isinstance(p, Unknown)}


def all_unknowns(problem: Problem) -> tuple[str, ...]:
    """The names of all numbers, and the places of all functions, that are to be found."""
    return (*unknowns_of(problem), *leaves(problem, (Unknown, Law)))


def value_at(unknown: Unknown, s: Tensor) -> Tensor:
    """p at its coordinate s, of any shape; differentiable."""
    low, high = unknown.lower, unknown.upper
    if low is not None and high is not None:
        return low + (high - low) * s.sigmoid()
    if low is not None:
        return low + s.exp()
    return s if high is None else high - s.exp()


def coordinate_of(unknown: Unknown) -> float:
    """s of the first guess."""
    p, low, high = unknown.unknown, unknown.lower, unknown.upper
    if low is not None and high is not None:
        return math.log((p - low) / (high - p))
    if low is not None:
        return math.log(p - low)
    return p if high is None else math.log(high - p)


def beside(unknowns: Mapping[str, Unknown]) -> dict[str, Tensor]:
    """Values a step away from the first guesses, (1,) each, within the bounds."""
    found = {}
    for k, (name, unknown) in enumerate(unknowns.items()):
        free = unknown.lower is None and unknown.upper is None
        step = _NUDGE / (k + 1) * ((abs(unknown.unknown) or 1.0) if free else 1.0)
        s = torch.tensor([coordinate_of(unknown) + step], dtype=torch.float64)
        found[name] = value_at(unknown, s)
    return found


def slope_at(unknown: Unknown, s: Tensor) -> float:
    """dp/ds."""
    with torch.enable_grad():
        at = s.detach().clone().requires_grad_()
        (found,) = torch.autograd.grad(value_at(unknown, at).sum(), at)
    return float(found)


def check_named(problem: Problem, extension: Mapping[str, float | str] | None = None) -> None:
    """Raise InputError for an unknown on which neither the equation nor a condition depends.

    The exact solution and the weights of a solver are no such place. ``extension``: what else the
    answer depends on.
    """
    used = set[str]()
    for value in _data(problem, extension):
        used |= free_names(value)
    for name in unknowns_of(problem):
        if name not in used:
            near = did_you_mean(name, used - {*AXES, "t", *problem.unknowns})
            raise InputError(
                f"'{name}' is to be found, but neither the equation nor a condition names it{near}",
                f"problem.parameters.{name}",
            )


def _data(problem: Problem, extension: Mapping[str, float | str] | None) -> Iterable[Any]:
    """Everything that the answer depends on."""
    yield from _within(problem.equation)
    for _, condition in problem.conditions:
        yield from _within(condition)
    yield from problem.first.values()
    yield from (extension or {}).values()


def _within(stated: Any) -> Iterable[Any]:
    """The coefficients in an equation or a condition, of a system in each of its equations."""
    if isinstance(stated, Mapping):
        for each in stated.values():
            yield from _within(each)
    elif isinstance(stated, (Integral, Condition, Robin)) or (
        is_dataclass(stated) and "kind" in vars(stated)  # of a system, an equation
    ):
        for name, value in vars(stated).items():
            if name != "kind":
                yield from _within(value)
    else:
        yield stated
