"""Trained functions on boxes with obstacles: the same statement as a grid's, the same answer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Box, Condition, Equation, Grid, Obstacle, Problem, Robin, Time
from sciml.core.errors import InputError
from sciml.core.problem.expression import level_set, parse
from sciml.core.problem.grid import Points
from sciml.core.problem.problem import Unknown
from sciml.core.run.quantities import Quantity
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.region import Hole
from sciml.discretization.points.strong import strong_form
from sciml.solvers.trained import (
    DASR,
    PINN,
    DeepRitz,
    Gaussians,
    GaussNewton,
    RandomFeatures,
)
from sciml.solvers.trained.adversarial import DensityTraining
from sciml.solvers.trained.conditions import pieces
from sciml.solvers.trained.objective import Objective

SQUARE = Box((-1.0, -1.0), (1.0, 1.0))
EXACT = "x*y + exp(x)*cos(y)"  # harmonic
SLOPE = "nx*(y + exp(x)*cos(y)) + ny*(x - exp(x)*sin(y))"
SIDES = dict.fromkeys(SQUARE.sides, Condition(EXACT))
DISC = Obstacle("x**2 + y**2 < r**2", Condition(EXACT))
LAPLACE = Problem(SQUARE, Equation(), SIDES, DISC, {"r": 0.4}, exact=EXACT)
TWO = "x**2 + (y - 0.5)**2 < 0.04 or abs(x) < 0.3 and y < -0.2 and y > -0.6"
FEATURES = RandomFeatures(count=150, bandwidths=(4.0,), rtol=1e-3)


def hole(inside: str, box: Box = SQUARE, **parameters: float) -> Hole:
    sides = dict.fromkeys(box.sides, Condition(0.0))
    problem = Problem(box, Equation(), sides, Obstacle(inside, Condition(0.0)), parameters)
    return Hole(Pointwise(problem, ("u",), problem.parameters), inside)


def posed(problem: Problem, solver: Any) -> Objective:
    objective: Objective = solver.init(problem, Points(50)).objective
    return objective


def exact(x: Tensor) -> Tensor:
    return x[:, 0] * x[:, 1] + x[:, 0].exp() * x[:, 1].cos()


def test_smooth_levels_have_the_sign_and_the_rim_of_the_others() -> None:
    mask = parse(TWO, ("x", "y"))
    x, y = 2 * torch.rand(2, 4000, dtype=torch.float64, generator=torch.manual_seed(0)) - 1
    sharp, smooth = level_set(mask)(x=x, y=y), level_set(mask, smooth=True)(x=x, y=y)
    assert torch.equal(sharp < 0, smooth < 0)
    assert torch.equal(sharp < 0, mask(x=x, y=y))
    # Where one part is zero, Rvachev's function is: here the disc's rim.
    t = torch.linspace(0, 6, 20, dtype=torch.float64)
    on_rim = level_set(mask, smooth=True)(x=0.2 * t.cos(), y=0.5 + 0.2 * t.sin())
    assert float(on_rim.abs().max()) < 1e-15


@pytest.mark.parametrize("dimension", [2, 3, 10])
def test_points_of_a_rim_lie_on_it_evenly_with_normals_into_it(dimension: int) -> None:
    box = Box((-1.0,) * dimension, (1.0,) * dimension)
    ball = hole(" + ".join(f"{a}**2" for a in box.axes) + " < r**2", box, r=0.6)
    cube = torch.rand(400, dimension, dtype=torch.float64, generator=torch.manual_seed(0))
    piece = next(p for p in pieces(strong_form(ball.data.problem), False, True) if p.rim)
    x = piece.place(cube)
    assert x.shape == (400, dimension)
    torch.testing.assert_close(
        x.norm(dim=1), torch.full((400,), 0.6, dtype=torch.float64), rtol=1e-9, atol=0
    )
    n = torch.stack(ball.normal(x), -1)
    torch.testing.assert_close(n, -x / 0.6)
    # Even: no mean, and the second moments of a sphere, within four deviations.
    assert float(n.mean(0).abs().max()) < 4 / math.sqrt(400 * dimension)
    assert (
        float((n.T @ n / 400 - torch.eye(dimension) / dimension).abs().max()) < 4 / 20 / dimension
    )


def test_no_sampler_puts_a_point_into_the_hole() -> None:
    for sampler in (PINN().sampler, DASR(every=1, flow=DensityTraining(layers=1, steps=2))):
        solver = PINN(width=4, depth=1, points=60, sampler=sampler, hard=False,
                      optimiser=GaussNewton(iterations=2))  # fmt: skip
        state = solver.init(replace(LAPLACE, obstacle=Obstacle(TWO, Condition(1.0))), Points(9))
        solver.run(state)
        inside = parse(TWO, ("x", "y"))
        for batch in state.objective.batches:
            x, y = batch.points.T
            assert (len(x) and not bool(inside(x=x * (1 - 1e-9), y=y * (1 - 1e-9)).any())) or (
                batch.piece.rim
            )


def test_data_on_rim_sides_and_start_are_met_whatever_the_network_is() -> None:
    heat = replace(
        LAPLACE, equation=Equation(d=1.0), time=Time(0.5), initial=EXACT, exact=None,
        obstacle=Obstacle("x**2 + y**2 < r**2", Condition(EXACT)),
    )  # fmt: skip
    for problem in (LAPLACE, heat):
        objective = posed(problem, PINN(width=5, depth=1))
        assert [piece.name for piece in objective.pieces] == ["equation"]
        for piece in pieces(objective.form, hard=False, periodic_built_in=True)[1:]:
            cube = torch.rand(40, piece.free, dtype=torch.float64, generator=torch.manual_seed(0))
            x = piece.place(cube)
            torch.testing.assert_close(objective.ansatz(x)[:, 0], exact(x), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("rim", "error"),
    [
        (Condition(EXACT), 3e-5),
        (Condition(neumann=SLOPE), 1e-12),
        (Condition(robin=Robin(3.0, f"{SLOPE} + 3*({EXACT})")), 1e-12),
    ],
    ids=["dirichlet", "neumann", "robin"],
)
def test_the_rim_agrees_with_the_exact_solution(rim: Condition, error: float) -> None:
    """To rounding where the features are all that is found, in the hole as on a grid."""
    problem = replace(LAPLACE, obstacle=replace(DISC, boundary=rim))
    solution = sciml.solve(problem, FEATURES, on=Grid((17, 17)))
    x, y = solution.on.coordinates()  # type: ignore[union-attr]
    inside = x**2 + y**2 < 0.16
    assert torch.equal(solution.value.isnan(), inside & (rim.kind != "dirichlet"))
    gap = solution.value - exact(torch.stack([x.flatten(), y.flatten()], -1)).reshape(17, 17)
    assert float(gap[~inside].abs().max()) < error
    assert not any("nan" in note for note in solution.notes)


def test_the_same_statement_is_answered_by_a_grid() -> None:
    """Features are smooth in the hole, where the solution need not be: it takes more of them."""
    problem = replace(
        LAPLACE, obstacle=replace(DISC, boundary=Condition(neumann=0.5)), exact=None,
        equation=Equation(c=1.0, f="1 + y"),
    )  # fmt: skip
    on, gaps = Grid((33, 33)), []
    grid = sciml.solve(problem, on=on)
    for count, bandwidth in ((150, 4.0), (450, 7.0)):
        solver = replace(FEATURES, count=count, bandwidths=(bandwidth,))
        points = sciml.solve(problem, solver, on=on, throw=False)
        known = grid.value.isfinite() & points.value.isfinite()
        gap = (grid.value - points.value)[known]
        assert int(known.sum()) > 900
        gaps.append(float(gap.norm() / grid.value[known].norm()))
    assert gaps[1] < 3e-3 < gaps[0]


def test_volumes_and_probes_know_of_the_hole() -> None:
    solution = sciml.solve(LAPLACE, replace(FEATURES, count=60), on=Points(4096), throw=False)
    one = solution.quantity(Quantity(integral="1 + 0*u"))
    assert float(one.value) == pytest.approx(4 - math.pi * 0.16, rel=1e-2)
    with pytest.raises(InputError, match="lies in the obstacle"):
        solution.quantity(at=(0.1, 0.1))
    value = solution.function(torch.tensor([[0.0, 0.1], [0.9, 0.0]]))  # type: ignore[misc]
    assert value.isnan().tolist() == [[True], [False]]


def test_a_kept_function_has_its_hole(tmp_path: Any) -> None:
    state = PINN(width=4, depth=1, points=40, optimiser=GaussNewton(iterations=1))
    solution = sciml.solve(LAPLACE, state, on=Points(20), throw=False)
    solution.save(str(tmp_path))
    again = sciml.load_function(tmp_path)
    x = 2 * torch.rand(40, 2, dtype=torch.float64, generator=torch.manual_seed(0)) - 1
    assert torch.equal(again(x).nan_to_num(7.0), solution.function(x).nan_to_num(7.0))  # type: ignore[misc]
    assert bool(again(x).isnan().any())
    with pytest.raises(InputError, match="not known inside its obstacle"):
        again.field("u")(x[:, 0], x[:, 1])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"obstacle": Obstacle("x < 2", Condition(0.0))}, "leaves nothing"),
        ({"obstacle": Obstacle("x**2 + y**2 < t", Condition(0.0)), "time": Time(1.0),
          "equation": Equation(d=1.0), "initial": 0.0}, "does not move"),
        ({"obstacle": Obstacle("y < 1", Condition(0.0)), "exact": None}, "leaves nothing|sliver"),
        ({"obstacle": Obstacle("x < -7", Condition(0.0))}, "no rim"),
        ({"parameters": {"r": Unknown(0.4)}, "observations": {"x": [0.9], "y": [0.9], "u": [1.0]},
          "exact": None, "equation": Equation(f="r")}, "the shape of an obstacle is not found"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(change: dict[str, Any], told: str) -> None:
    solver = PINN(width=4, depth=1, points=20, hard=False, optimiser=GaussNewton(iterations=1))
    with pytest.raises(InputError, match=told) as caught:
        solver.run(solver.init(replace(LAPLACE, **change), Points(9)))
    assert caught.value.key in ("problem.obstacle.inside", "problem.obstacle")
    with pytest.raises(InputError, match="with an obstacle use pinn"):
        DeepRitz(width=4, depth=1).init(LAPLACE, Points(9))


def test_gaussians_and_flows_take_them_too() -> None:
    solution = sciml.solve(
        LAPLACE, Gaussians(count=60, points=400, rtol=0.1), on=Points(500), throw=False
    )
    assert float(solution.residual) < 0.1
