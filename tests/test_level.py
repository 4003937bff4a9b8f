"""Where a problem leaves a constant free, the answer is that of zero integral over the domain."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import j1
from torch import Tensor

from sciml import Box, Condition, Equation, Grid, Mesh, Obstacle, Problem, Time, solve
from sciml.core.problem.equation import NavierStokes, System
from sciml.core.problem.problem import Robin
from sciml.core.problem.quadrature import whole
from sciml.core.run.solution import load_solution
from sciml.discretization import discretize
from sciml.solvers import AMG, CG, GMRES, Auto, Direct, FastPoisson, Multigrid, Newton
from sciml.solvers.trained import (
    PINN,
    DeepRitz,
    Gaussians,
    GaussNewton,
    NaturalGradient,
    RandomFeatures,
    VariableProjection,
)
from sciml.solvers.trained.level import free_constants
from sciml.solvers.trained.verify import measure

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


TRAINED = (
    PINN(width=10, points=200, seed=2, optimiser=GaussNewton(iterations=40)),
    Gaussians(count=40, optimiser=VariableProjection(iterations=3)),
    RandomFeatures(count=60, bandwidths=(2.0,)),
    DeepRitz(width=10, points=200, optimiser=NaturalGradient(iterations=30)),
)
ON_LINE = Problem(LINE, Equation(f=SOURCE), CLOSED)
CIRCLE = Problem(LINE, Equation(f="4*pi**2*cos(2*pi*x)"), {"all": Condition(periodic=True)})


@pytest.mark.parametrize("solver", TRAINED, ids=lambda solver: solver.kind)
@pytest.mark.parametrize("problem", [ON_LINE, CIRCLE], ids=["closed", "periodic"])
def test_a_trained_function_has_zero_integral(problem: Problem, solver: Any) -> None:
    solution = solve(problem, solver, on=Grid((65,)), throw=False)
    assert solution.function is not None and solution.measure is not None
    x, w = np.polynomial.legendre.leggauss(60)
    points = torch.from_numpy((x[:, None] + 1) / 2)
    assert abs(float(torch.from_numpy(w) @ solution.function(points)[:, 0])) < 1e-9

    def exact(x: Tensor) -> Tensor:
        return (2 * math.pi * x).cos() if problem is CIRCLE else wanted(x)

    at_nodes = torch.linspace(0, 1, 65, dtype=torch.float64)
    assert float((solution.value - exact(at_nodes)).abs().max()) < 2e-2
    assert float(solution.error(lambda x: exact(x) + 1e4)) < 1e-2
    assert any(note.startswith("u: known up to a constant") for note in solution.notes)


def test_a_large_constant_makes_no_residual_small() -> None:
    """Residuals of the sides are compared with u less its mean: the constant is free."""
    objective = PINN(width=6).pose(ON_LINE)
    before = measure(objective, 200)
    bias = objective.ansatz.network.blocks()[-1].bias
    with torch.no_grad():
        bias += 1e6
    after = measure(objective, 200)
    assert after == pytest.approx(before, rel=1e-6)


def pair(**others: Any) -> Problem:
    equations = {
        "u": Equation(f="pi**2*cos(pi*x) + v"), "v": Equation(c=1.0, f="cos(pi*x)"), **others
    }  # fmt: skip
    return Problem(LINE, System(equations=equations), CLOSED)


STILL = {side: Condition(dirichlet=[0.0, 0.0]) for side in SQUARE.sides}
FLOW = Problem(SQUARE, NavierStokes(viscosity=0.1), STILL)
MOVING = replace(FLOW, time=Time(1.0), initial={"u": 0.0, "v": 0.0})


@pytest.mark.parametrize(
    ("problem", "kernel"),
    [
        (ON_LINE, [[1.0]]),
        (replace(ON_LINE, equation=Equation(c=1e-6)), [[0.0]]),
        (replace(ON_LINE, boundary={"all": Condition(1.0)}), [[0.0]]),
        (replace(ON_LINE, boundary={"all": Condition(robin=Robin(1e-3, 0.0))}), [[0.0]]),
        (replace(ON_LINE, equation=Equation(d=1.0), time=Time(1.0), initial=0.0), [[0.0]]),
        (replace(ON_LINE, equation=Equation(K="1 + ux**2", f="x - 0.5")), [[1.0]]),
        (replace(ON_LINE, equation=Equation(K="1 + u**2")), [[0.0]]),
        (replace(ON_LINE, observations={"x": [0.5], "u": [3.0]}), [[0.0]]),
        (pair(), [[1.0, 0.0], [0.0, 0.0]]),
        (pair(u=Equation(f="sin(pi*x) + v - u"), v=Equation(f="u - v")), [[0.5, 0.5], [0.5, 0.5]]),
        (FLOW, np.diag([0.0, 0.0, 1.0]).tolist()),
        (MOVING, np.diag([0.0, 0.0, 1.0]).tolist()),
    ],
)  # fmt: skip
def test_which_constants_are_free(problem: Problem, kernel: list[list[float]]) -> None:
    wanted = torch.tensor(kernel, dtype=torch.float64)
    for hard in (True, False):
        found = free_constants(PINN(width=4, hard=hard).pose(problem))
        torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def test_a_pressure_has_no_mean_at_any_instant() -> None:
    solver = PINN(width=6, points=60, optimiser=GaussNewton(iterations=3))
    lid = {**STILL, "top": Condition(dirichlet=["16*x**2*(1 - x)**2*t", 0.0])}
    solution = solve(replace(MOVING, boundary=lid), solver, on=Grid((5, 5)), throw=False)
    x, w = np.polynomial.legendre.leggauss(30)
    square = torch.cartesian_prod(*[torch.from_numpy((x + 1) / 2)] * 2)
    weights = torch.from_numpy(np.outer(w, w).ravel() / 4)
    assert solution.function is not None
    for t in (0.1, 0.77):
        value = solution.function(torch.cat([square, torch.full((900, 1), t).double()], 1))
        assert abs(float(weights @ value[:, 2])) < 1e-9
        assert abs(float(weights @ value[:, 0])) > 1e-6
    assert solution.measure is not None and solution.measure.shape == (3, 5, 5)
    raised = solution.last.clone()
    raised[2] += 1e3
    assert float(solution.error(raised)) < 1e-12


def test_windows_start_with_data_and_leave_nothing_free() -> None:
    heat = Problem(LINE, Equation(d=1.0), CLOSED, time=Time(0.1), initial="x")
    solver = PINN(width=4, points=40, windows=2, optimiser=GaussNewton(iterations=2))
    assert solve(heat, solver, on=Grid((9,)), throw=False).measure is None
