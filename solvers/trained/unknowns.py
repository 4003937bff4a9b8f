"""Parameters that are to be found: where they stand, and how they keep between their bounds.

A bounded parameter p is a function of a free coordinate s, which is what an optimiser moves:

    p = s,    lower + exp s,    upper - exp s,    lower + (upper - lower) / (1 + exp -s),

so that no step leaves the bounds, and one that is above zero is found in its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.problem import Problem, Unknown
from sciml.core.problem.reader import free_names
from sciml.discretization.points.strong import StrongForm

_NUDGE = 0.37  # of a coordinate, to see whether what holds at the guess holds beside it


def unknowns_of(problem: Problem) -> dict[str, Unknown]:
    """The parameters that are to be found, by name."""
    return {name: p for name, p in problem.parameters.items() if isinstance(p, Unknown)}


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


def check_named(form: StrongForm, extension: Mapping[str, float | str] | None) -> None:
    """Raise InputError for an unknown on which neither the equation nor a condition depends.

    The exact solution and the weights of a solver are no such place.
    """
    problem, used = form.problem, set[str]()
    for value in _data(form, extension):
        used |= free_names(value)
    for name in unknowns_of(problem):
        if name not in used:
            near = did_you_mean(name, used - {*form.data.box.axes, "t", *form.fields})
            raise InputError(
                f"'{name}' is to be found, but neither the equation nor a condition names it{near}",
                f"problem.parameters.{name}",
            )


def _data(form: StrongForm, extension: Mapping[str, float | str] | None) -> Iterable[Any]:
    """Everything that the answer depends on."""
    alone = form.flow or form.written
    for equation in form.equations if alone is None else (alone,):
        yield from (getattr(equation, f.name) for f in fields(equation) if f.name != "kind")
    yield from (integral.stated.of for integral in form.integrals)
    obstacle = form.problem.obstacle
    rim = () if obstacle is None else (obstacle.boundary,)
    for condition in (*form.problem.boundary.values(), *rim):
        yield from (condition.dirichlet, condition.neumann, condition.residuals)
        if condition.robin is not None:
            yield from (condition.robin.alpha, condition.robin.g)
    yield from form.problem.first.values()
    yield from (extension or {}).values()
