"""A problem's data as values on a grid: coefficients, the exact solution, the hole.

What is plotted, compared or written beside an answer; the discretisation itself evaluates
coefficients where its scheme needs them.
"""

from __future__ import annotations

import torch

from sciml.core.discretize.coefficients import Data, call, data, evaluate, expression
from sciml.core.discretize.layout import layout
from sciml.core.grid import Grid
from sciml.core.problem import Coefficient, Problem


def values_on(
    problem: Problem,
    on: Grid,
    coefficient: Coefficient,
    key: str,
    unused: torch.Tensor | None = None,
) -> torch.Tensor:
    """A coefficient at the grid's points, float64 of shape (*batch, *grid).

    The value is 1 where the mask ``unused`` holds. Raises InputError, with ``key``, where it
    cannot be evaluated or is not finite.
    """
    grid = on.bind(problem.box)
    info = _context(problem, grid)
    value = evaluate(coefficient, info.own, info, key, unused)
    batch = value.shape[: value.ndim - len(grid.shape)]
    return value.expand(*batch, *grid.shape)


def hole_on(problem: Problem, on: Grid) -> torch.Tensor | None:
    """True at the grid's points inside the obstacle, bool of shape ``grid``; None without one."""
    if problem.obstacle is None:
        return None
    grid = on.bind(problem.box)
    info = _context(problem, grid)
    inside = expression(problem.obstacle.inside, info, "problem.obstacle.inside")
    return call(inside, info.own, info).expand(grid.shape)


def _context(problem: Problem, grid: Grid) -> Data:
    device = torch.device("cpu")
    return data(problem, layout(problem, grid, torch.float64, device), torch.float64, device)
