"""The error that a trained function's residual leaves, and what a table that is left comes to."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.core.problem.table import Table
from sciml.core.run.status import Status
from sciml.solvers import PINN, Gaussians, RandomFeatures
from sciml.solvers.solve import solve
from sciml.solvers.trained.correction import estimated_error, far_from_singular
from sciml.solvers.trained.solver import exact_error
from sciml.solvers.trained.verify import scales_of

LINE, ENDS = Box((0.0,), (1.0,)), {s: Condition(dirichlet=0.0) for s in ("left", "right")}
COARSE = RandomFeatures(count=8, bandwidths=(4.0,), rtol=1e-3)


def resonant(c: float) -> Problem:
    """-u'' + c u = f with u = sin(2 pi x); the first eigenvalue is pi^2 + c."""
    f = f"(4*pi**2 + {c})*sin(2*pi*x)"
    return Problem(LINE, Equation(kind="reaction_diffusion", c=c, f=f), ENDS)


def wave(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * math.pi * x)


@pytest.mark.parametrize(
    ("c", "status"), [(-9.8696, Status.NEARLY_SINGULAR), (-9.0, Status.CONVERGED)]
)
def test_a_small_residual_near_an_eigenvalue_is_no_small_error(c: float, status: Status) -> None:
    found = solve(resonant(c), COARSE, on=Grid((65,)), throw=False)
    error = float(found.error(wave))
    assert float(found.residual) < 1e-3
    assert (error > 0.01) == (status is Status.NEARLY_SINGULAR)
    assert found.status is status


@pytest.mark.parametrize(
    "solver",
    [RandomFeatures(count=60, bandwidths=(4.0,)), Gaussians()],
    ids=lambda s: s.kind,
)
def test_near_an_eigenvalue_a_residual_may_be_small_enough(solver: RandomFeatures) -> None:
    found = solve(resonant(-9.8696), solver, on=Grid((65,)))
    assert float(found.error(wave)) < 1e-5 and found.status is Status.CONVERGED


@pytest.mark.parametrize(
    ("equation", "far"),
    [
        (Equation(K=2.0, c=1.0, f="x"), True),
        (Equation(c=-1.0), False),
        (Equation(K="1 + x"), False),
        (Equation(K="1 + u**2"), False),
        (Equation(b=(1.0,)), False),
    ],
)
def test_what_cannot_be_near_an_eigenvalue_is_not_corrected(equation: Equation, far: bool) -> None:
    assert far_from_singular(Problem(LINE, equation, ENDS)) is far
    free = {side: Condition(neumann=0.0) for side in ENDS}
    assert not far_from_singular(Problem(LINE, equation, free))


HEAT = Problem(
    LINE, Equation(d=1.0, K=0.1), ENDS, time=Time(1.0), initial="sin(pi*x)"
)  # fmt: skip
RING = Problem(
    LINE, Equation(c=1.0, f="(1 + 4*pi**2)*sin(2*pi*x)"),
    {s: Condition(periodic=True) for s in ("left", "right")},
)  # fmt: skip
PLATE = Problem(
    Box((0.0, 0.0), (1.0, 1.0)), Equation(f="5*pi**2*sin(pi*x)*sin(2*pi*y)"),
    {"all": Condition(dirichlet=0.0)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("problem", "count"), [(resonant(0.0), 10), (HEAT, 40), (RING, 20), (PLATE, 30)]
)
def test_the_estimate_is_the_error(problem: Problem, count: int) -> None:
    on = Grid((33,) * problem.box.dimension)
    near, good = (
        solve(problem, RandomFeatures(count=n, bandwidths=(4.0,), rtol=0.5), on=on)
        for n in (count, 4 * count)
    )
    error = float((near.value - good.value).norm() / good.value.norm())
    assert error > 1e-10
    found = estimated_error(near.trained, scales_of(near.trained).of)
    assert found == pytest.approx(error, rel=0.5)


def test_a_table_that_training_leaves_is_said() -> None:
    table = Table(columns={"u": [0, 0.05, 0.1], "k": [1.0, 1.1, 1.3]}, of="u")
    of_place = Table(columns={"x": [0, 0.5], "k": [1.0, 1.1]}, of="x")
    for equation, parameters in (
        (Equation(K="k", f=10.0), {"k": table}), (Equation(f="k"), {"k": of_place}),
    ):  # fmt: skip
        problem = Problem(LINE, equation, ENDS, parameters=parameters)
        found = solve(problem, PINN(points=50), on=Grid((33,)), throw=False)
        assert found.status is Status.OUTSIDE_TABLE
        assert found.outside and found.outside[0] in " ".join(found.notes)


def test_beside_a_truth_of_zero_the_error_of_training_is_absolute() -> None:
    problem = Problem(LINE, Equation(), ENDS, exact="0*x")
    objective = PINN(width=4, depth=1, points=10).init(problem, Grid((9,))).objective
    error = exact_error(objective)
    assert error is not None
    x = torch.linspace(0, 1, 5001, dtype=torch.float64)[:, None]
    rms = objective.ansatz.value(x).square().mean().sqrt()
    assert error() == pytest.approx(float(rms), rel=0.01)
