"""A problem's data as values on a grid: coefficients, the exact solution, the hole.

What is plotted, compared or written beside an answer; the discretisation itself evaluates
coefficients where its scheme needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Real

import numpy as np
import torch

from sciml.core.problem.dispatch import accompanies
from sciml.core.problem.equation import Equation, Regions
from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import at_nodes, whole
from sciml.discretization.elements.data import evaluate as on_elements
from sciml.discretization.elements.data import mesh_data
from sciml.discretization.points.pointwise import Pointwise, numeric_parameters
from sciml.discretization.volumes.coefficients import Data, call, data, evaluate, expression
from sciml.discretization.volumes.layout import layout


def values_on(
    problem: Problem,
    on: Grid | Mesh | Points,
    coefficient: Coefficient,
    key: str,
    unused: torch.Tensor | None = None,
    t: float | None = None,
) -> torch.Tensor:
    """A coefficient at the grid's points, float64 of shape (*batch, *grid); see :func:`on_mesh`.

    In time at ``t``, or else at the start. The value is 1 where the mask ``unused`` holds. Raises
    InputError, with ``key``, where it cannot be evaluated or is not finite.
    """
    if isinstance(on, Mesh):
        return on_mesh(problem, on, coefficient, key)
    if isinstance(on, Points):
        return at_points(problem, on, coefficient, key, t)
    grid = on.bind(problem.box)
    info = _context(problem, grid)
    info = info if t is None else info.at_time(t)
    value = evaluate(coefficient, info.own, info, key, unused)
    batch = value.shape[: value.ndim - len(grid.shape)]
    return value.expand(*batch, *grid.shape)


def at_points(
    problem: Problem, on: Points, coefficient: Coefficient, key: str, t: float | None = None
) -> torch.Tensor:
    """A coefficient at scattered points, (count,)."""
    columns = on.bind(problem.domain or problem.box).coordinates()
    if problem.time is not None:
        now = problem.time.start if t is None else t
        columns = (*columns, torch.full((on.count,), now, dtype=torch.float64))
    read = Pointwise(problem, (), numeric_parameters(problem))
    return read(coefficient, key, torch.stack(columns, -1)).expand(on.count)


def on_mesh(problem: Problem, mesh: Mesh, coefficient: Coefficient, key: str) -> torch.Tensor:
    """A coefficient at a mesh's nodes, (*batch, nodes); given by regions, of its elements."""
    info = mesh_data(problem, mesh)
    if isinstance(coefficient, Regions):
        value = on_elements(coefficient, whole(mesh, 2), info, key).mean(-1)
        return value.expand(*value.shape[:-1], len(mesh.cells))
    value = on_elements(coefficient, at_nodes(mesh, np.arange(len(mesh.nodes))), info, key)[..., 0]
    return value.expand(*value.shape[:-1], len(mesh.nodes))


def exact_on_mesh(problem: Problem, mesh: Mesh) -> Callable[..., torch.Tensor]:
    """The exact solution as a function of points (k, Q) each; gives (*batch, k, Q)."""
    info, exact = mesh_data(problem, mesh), problem.exact

    def function(*points: torch.Tensor) -> torch.Tensor:
        place = replace(at_nodes(mesh, np.array([], dtype=np.int64)), points=points)
        value = on_elements(exact, place, info, "problem.exact")
        return value.expand(torch.broadcast_shapes(value.shape, points[0].shape))

    return function


def beside(
    problem: Problem, on: Grid | Mesh | Points, value: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Named arrays on the place that go with an answer ``value``: coefficients, stresses."""
    if not accompanies.knows(problem.equation, type(on)):
        return {}
    return accompanies.look_up(problem.equation, type(on))(problem, on, value)


@accompanies(Equation, Grid, Mesh, Points)
def _conductivity(
    problem: Problem, on: Grid | Mesh | Points, value: torch.Tensor
) -> dict[str, torch.Tensor]:
    """K where it varies: ``K``, or ``K_x``, ``K_y``, ``K_z`` of a diagonal one."""
    K = problem.equation_as(Equation).K
    if isinstance(K, (tuple, list)):
        named = {f"K_{axis}": entry for axis, entry in zip("xyz", K, strict=False)}
    else:
        named = {"K": K}
    hole = hole_on(problem, on)
    found = {}
    for name, entry in named.items():
        of_solution = not Equation(K=entry).linear_with(problem.parameters)
        if isinstance(entry, (Real, tuple, list)) or of_solution:
            continue
        values = values_on(problem, on, entry, "problem.equation.K", hole)
        found[name] = values if hole is None else torch.where(hole, torch.nan, values)
    return found


def hole_on(problem: Problem, on: Grid | Mesh | Points) -> torch.Tensor | None:
    """True at the grid's points inside the obstacle, bool of shape ``grid``; None without one."""
    if problem.obstacle is None or isinstance(on, (Mesh, Points)):
        return None
    grid = on.bind(problem.box)
    info = _context(problem, grid)
    inside = expression(problem.obstacle.inside, info, "problem.obstacle.inside")
    return call(inside, info.own, info).expand(grid.shape)


def _context(problem: Problem, grid: Grid) -> Data:
    device = torch.device("cpu")
    return data(problem, layout(problem, grid, torch.float64, device), torch.float64, device)
