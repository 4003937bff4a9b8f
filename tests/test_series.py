"""Series that stand for a function: their derivatives, and what they refuse."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.discretization.points.jet import jet_of
from sciml.solvers.solve import solve
from sciml.solvers.trained import RandomFeatures
from sciml.solvers.trained.series import series_of
from sciml.solvers.trained.windows import FieldOf, Glued


def smooth(p):
    return (2 * math.pi * p[:, 0]).sin().exp() * (3 * p[:, 1]).cos()


def test_derivatives_to_the_fourth_on_both_kinds_of_axes_and_at_the_ends():
    series = series_of(smooth, (0.0, -1.0), (1.0, 2.0), (True, False))
    assert series is not None
    g = torch.Generator().manual_seed(0)
    x = torch.rand(40, 2, dtype=torch.float64, generator=g) * torch.tensor([1.0, 3.0])
    x = x + torch.tensor([0.0, -1.0])
    x[0], x[1] = torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])
    pairs = ((0, 0), (0, 1), (1, 1), (1, 1, 1), (0, 0, 0, 0))
    pairs = (*pairs[:3], (0, 0, 0), *pairs[3:])
    own = jet_of(lambda p: series(p)[:, None], x, pairs).data
    wanted = jet_of(lambda p: smooth(p)[:, None], x, pairs).data
    gap = (own - wanted).flatten(1).abs().max(1).values
    assert float((gap / wanted.flatten(1).abs().max(1).values).max()) < 1e-8


def test_a_kink_has_none():
    assert series_of(lambda p: (p[:, 0] - 0.3).abs(), (0.0,), (1.0,), (False,)) is None


def test_windows_begin_with_series_that_are_as_good():
    line = Box((0.0,), (1.0,))
    problem = Problem(
        line, Equation(kind="wave"), dict.fromkeys(line.sides, Condition(dirichlet=0.0)),
        time=Time(1.0, frames=3), initial={"u": "sin(pi*x)", "ut": 0.0},
    )  # fmt: skip
    solver = RandomFeatures(count=100, bandwidths=(4.0,), windows=4)
    solution = solve(problem, solver, on=Grid((17,)))
    (x,) = solution.on.coordinates()
    assert float((solution.last + torch.sin(math.pi * x)).abs().max()) < 1e-6
    glued = solution.trained.ansatz.network
    assert isinstance(glued, Glued)
    data = [
        value
        for part in glued.parts[1:]
        for constraint in part.built_in.constraints
        for stated in (*constraint.data, *([constraint.slope] if constraint.slope else []))
        for value in stated.values
        if isinstance(value, FieldOf)
    ]
    assert len(data) == 2 * 3 and all(value.series is not None for value in data)
    at = torch.linspace(0, 1, 9, dtype=torch.float64)
    for value in data[:4]:
        assert torch.allclose(value(at), replace(value, series=None)(at), atol=1e-9)
