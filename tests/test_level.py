"""Where a problem leaves a constant free, the answer is that of zero integral over the domain."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import j1
from torch import Tensor

from sciml import Box, Condition, Equation, Grid, Mesh, Obstacle, Problem, solve
from sciml.core.problem.quadrature import whole
from sciml.core.run.solution import load_solution
from sciml.discretization import discretize
from sciml.solvers import AMG, CG, GMRES, Auto, Direct, FastPoisson, Multigrid, Newton

LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
CLOSED = {"all": Condition(neumann=0.0)}
# -u'' of u = cos(2 pi x) + 6 x^2 - 4 x^3, whose values at evenly spaced nodes have another mean.
SOURCE = "4*pi**2*cos(2*pi*x) - 12 + 24*x"


def wanted(x: Tensor, *_: Tensor) -> Tensor:
    """Of integral zero."""
    return (2 * math.pi * x).cos() + 6 * x**2 - 4 * x**3 - 1


def trapezoid(n: int) -> Tensor:
    weights = torch.full((n,), 1 / (n - 1), dtype=torch.float64)
    weights[[0, -1]] /= 2
    return weights


@pytest.mark.parametrize("solver", [Auto(), Direct(), FastPoisson(), CG(Multigrid()), GMRES(AMG())])
def test_the_integral_over_a_grid_is_zero_and_not_the_sum(solver: Any) -> None:
    """The nodes of closed sides have half a control volume: the means differ by the order of h."""
    n = 33
    solution = solve(Problem(LINE, Equation(f=SOURCE), CLOSED), solver, on=Grid((n,)))
    assert abs(float(trapezoid(n) @ solution.value)) < 1e-13
    assert abs(float(solution.value.mean())) > 1e-2
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    assert float((solution.value - wanted(x)).abs().max()) < 6e-3
    same = solution.error(wanted(x))
    assert float(same) < 6e-3
    torch.testing.assert_close(solution.error(lambda x: wanted(x) + 1e3), same, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "equation",
    [
        Equation(f=SOURCE),
        Equation(K="1 + 0*ux**2", f=SOURCE),
        Equation(energy=f"0.5*ux**2 - ({SOURCE})*u"),
    ],
    ids=["linear", "quasilinear", "energy"],
)
def test_newton_fixes_the_constant_alike(equation: Equation) -> None:
    problem, start = Problem(LINE, equation, CLOSED), torch.full((33,), 7.0, dtype=torch.float64)
    solution = Newton().run(Newton().init(problem, Grid((33,))), initial=start)
    assert abs(float(trapezoid(33) @ solution.value)) < 1e-12
    assert float(solution.error(lambda x: wanted(x) - 3)) < 6e-3


def test_a_level_in_the_equation_is_no_free_constant() -> None:
    problem = Problem(LINE, Equation(energy="0.5*ux**2 + 0.25*u**4 - 8*u"), CLOSED)
    solution = solve(problem, Newton(), on=Grid((17,)), initial=torch.ones(17))
    assert solution.measure is None
    torch.testing.assert_close(solution.value, torch.full((17,), 2.0, dtype=torch.float64))
    assert float(solution.error(lambda x: 3 + 0 * x)) == pytest.approx(1 / 3)


def test_the_fluid_alone_counts_around_a_hole() -> None:
    radius, centre = 0.2, 0.3
    hole = Obstacle(f"(x - {centre})**2 + (y - 0.5)**2 < {radius}**2", Condition(neumann=0.0))
    # The source's integral over the hole, which the rest of it makes good.
    missed = 2 * radius * float(j1(math.pi * radius)) * math.cos(math.pi * centre)
    level = missed / (1 - math.pi * radius**2)
    problem = Problem(SQUARE, Equation(f=f"cos(pi*x) + {level}"), CLOSED, hole)
    system = discretize(problem, Grid((41, 41)))
    solution = solve(system, Direct())
    assert system.measure is not None
    fluid = torch.isfinite(solution.value)
    area = float(system.measure.sum())
    assert area == pytest.approx(1 - 0.04 * math.pi, rel=1e-2)
    assert abs(float((system.measure * solution.value.nan_to_num(0.0)).sum())) < 1e-12
    assert not bool(system.measure[~fluid].any())


def graded(element: str, power: float = 3.0, n: int = 40) -> Mesh:
    """An interval whose elements crowd at its left end."""
    points = np.linspace(0, 1, n + 1)[:, None] ** power
    cells = np.stack([np.arange(n), np.arange(1, n + 1)], 1)
    ends = {"left": np.array([[0]]), "right": np.array([[n]])}
    return Mesh(points, cells, boundaries=ends, element=element)


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_integral_over_a_graded_mesh_is_zero(element: str, tmp_path: Path) -> None:
    mesh = graded(element)
    problem = Problem(
        None, Equation(f=SOURCE), dict.fromkeys(("left", "right"), Condition(neumann=0.0))
    )
    solution = solve(problem, on=mesh)
    part = whole(mesh, 4)
    assert abs(float((part.measure * part.at_points(solution.value)).sum())) < 1e-12
    assert abs(float(solution.value.mean())) > 0.1
    error = solution.error(wanted)
    assert float(error) < {"P1": 1.2e-2, "P2": 3e-4}[element]
    torch.testing.assert_close(solution.error(lambda x: wanted(x) + 50), error, rtol=1e-9, atol=0)
    solution.save(str(tmp_path))
    torch.testing.assert_close(load_solution(tmp_path).error(lambda x: wanted(x) + 50), error)


def test_a_constant_gradient_moves_nothing_and_the_rest_is_that_of_the_integral_mean() -> None:
    """d/df of sum w u, w any: by central differences."""
    grid, x = Grid((9,)), torch.linspace(0, 1, 9, dtype=torch.float64)
    w = torch.tensor([3.0, -1, 2, 0, 1, 5, -2, 1, 1], dtype=torch.float64)

    def total(f: Tensor) -> Tensor:
        return (w * solve(Problem(LINE, Equation(f=f), CLOSED), Direct(), on=grid).value).sum()

    f = (math.pi * x).cos().requires_grad_()
    (slope,) = torch.autograd.grad(total(f), f)
    way = (2 * math.pi * x).cos() * 1e-3
    way = way - trapezoid(9) @ way
    with torch.no_grad():
        found = (total(f + way) - total(f - way)) / 2
    assert float(slope @ way) == pytest.approx(float(found), rel=1e-6)
