"""Continuation: a hard problem by way of easier ones, along a named parameter.

The parameter goes from ``start`` to the problem's own value; every answer starts the next solve.
A step that fails is halved. Where a branch of solutions turns back, as Bratu's does at its fold,
no step succeeds beyond, and the last parameter reached is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.problem import Problem
from sciml.solvers.descent import Course

_HALVINGS = 6


@dataclass(frozen=True)
class Continuation:
    """From ``start`` to the problem's own value of ``parameter``, in ``steps`` equal steps."""

    parameter: str
    start: float
    steps: int = 5

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"continuation takes at least one step; got {self.steps}",
                "solver.continuation.steps",
            )


def follow(
    continuation: Continuation,
    problem: Problem,
    system: NonlinearSystem,
    u: torch.Tensor,
    solve: Callable[[NonlinearSystem, torch.Tensor], Course],
) -> tuple[Course, str]:
    """The last course, and a line on how far the parameter came.

    Where the parameter's own value is not reached the course is that of the failed attempt at it.
    """
    from sciml.core.discretize import semidiscretize

    name = continuation.parameter
    if name not in problem.parameters:
        raise InputError(
            f"the problem has no parameter '{name}'{did_you_mean(name, problem.parameters)}",
            "solver.continuation.parameter",
        )
    target = torch.as_tensor(problem.parameters[name], dtype=torch.float64)

    def at(share: float) -> NonlinearSystem:
        if share == 1:
            return system
        value = continuation.start + share * (target - continuation.start)
        changed = {**problem.parameters, name: value}
        return semidiscretize(replace(problem, parameters=changed), system.on)

    course = solve(at(0.0), u)
    share, step, solves = 0.0, 1 / continuation.steps, 1
    smallest = step / 2**_HALVINGS
    while course.success and share < 1:
        ahead = min(1.0, share + step)
        # A last step must not be a sliver left by rounding.
        ahead = 1.0 if 1 - ahead < 1e-9 else ahead
        trial = solve(at(ahead), course.u)
        solves += 1
        if trial.success:
            course, share = trial, ahead
        elif step / 2 < smallest:
            reached = _told(continuation.start + share * (target - continuation.start))
            return trial, f"continuation: no solution found beyond {name} = {reached}"
        else:
            step /= 2
    if not course.success:
        return course, f"continuation: no solution at the start, {name} = {continuation.start:g}"
    return course, f"continuation: {name} from {continuation.start:g} in {solves} solves"


def _told(value: torch.Tensor) -> str:
    return ", ".join(f"{v:.6g}" for v in value.flatten().tolist())
