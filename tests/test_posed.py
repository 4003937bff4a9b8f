"""Problems made ready for training: Jacobians, what is unknown, observations, scattered points."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sciml import Box, Condition, Equation, Grid, Problem, Time, solve
from sciml.app.spec import Spec
from sciml.core.errors import InputError
from sciml.core.problem.equation import System
from sciml.core.problem.grid import Points
from sciml.core.problem.problem import Robin, Unknown
from sciml.core.run.files import save_solution
from sciml.core.run.solution import load_solution
from sciml.core.run.status import Status
from sciml.discretization.points.strong import strong_form
from sciml.solvers import CG, PINN, FunctionDescent, Gaussians, Multigrid, Newton, RandomFeatures
from sciml.solvers.trained import Causal, GaussNewton, Sobol
from sciml.solvers.trained.conditions import built_in
from sciml.solvers.trained.objective import Objective, objective_of

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
ZERO = {"all": Condition(dirichlet=0.0)}
POISSON = Problem(SQUARE, Equation(f="2*pi**2*sin(pi*x)*sin(pi*y)"), ZERO)


def seen(count: int = 30) -> dict[str, torch.Tensor]:
    """Temperatures exp(-0.7 pi^2 t) sin(pi x) of a rod."""
    generator = torch.Generator().manual_seed(0)
    x, t = torch.rand(2, count, generator=generator, dtype=torch.float64)
    t = t / 2
    return {"x": x, "t": t, "u": (-0.7 * math.pi**2 * t).exp() * (math.pi * x).sin()}


ROD = Problem(
    Box((0.0,), (1.0,)), Equation(kind="heat", K="k"), ZERO, time=Time(0.5, frames=3),
    initial="sin(pi*x)", parameters={"k": Unknown(2.0)}, observations=seen(),
)  # fmt: skip

PROBLEMS = {
    "poisson": POISSON,
    "p-laplace": replace(POISSON, equation=Equation(kind="p_laplace", f=1.0), parameters={"p": 3}),
    "energy": replace(POISSON, equation=Equation(energy="0.5*(ux**2+uy**2) + 0.25*u**4 - x*u")),
    "mixed": replace(
        POISSON,
        equation=Equation(K="1 + x*u**2", b=(1.0, "u"), f="y"),
        boundary={
            "left": Condition(periodic=True),
            "right": Condition(periodic=True),
            "bottom": Condition(neumann="x"),
            "top": Condition(robin=Robin(2.0, 1.0)),
        },
    ),
    "rod": ROD,
    "system": Problem(
        Box((0.0,), (1.0,)), System(kind="gray_scott"), {"all": Condition(neumann=0.0)},
        parameters={"Du": 0.2, "Dv": 0.1, "feed": 0.03, "kill": 0.06}, time=Time(1.0),
        initial={"u": 1.0, "v": "x"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_jacobian_is_the_derivative_of_the_residuals(name: str, hard: bool) -> None:
    """One backward sweep per equation against central differences along random directions."""
    solver = PINN(width=5, depth=2, hard=hard, seed=1)
    weights = {"start": 3.0, "equation": "1 + x"}
    objective = objective_of(PROBLEMS[name], solver.ansatz, hard, weights)
    generator = torch.Generator().manual_seed(0)
    objective.place(Sobol().points(objective, [8] * len(objective.pieces), generator))
    theta, (r, J) = objective.theta, objective.jacobian()
    torch.testing.assert_close(r, objective.vector())
    torch.testing.assert_close(r.square().sum(), objective.loss()[0].detach())
    assert J.shape == (len(r), len(theta))
    for _ in range(3):
        direction = torch.randn(len(theta), generator=generator, dtype=torch.float64)
        ends = []
        for step in (1e-6, -1e-6):
            objective.assign(theta + step * direction)
            ends.append(objective.vector())
        slope = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(J @ direction, slope, atol=2e-7, rtol=2e-6)


def test_the_rate_at_the_start_is_built_in_without_a_graph_too() -> None:
    """Sides that move give G a rate of its own, which is differentiated even under no_grad."""
    u = "x*sin(2*t) + (1 - x)*exp(t)"
    box = Box((0.0,), (1.0,))
    problem = Problem(
        box, Equation(m=1.0, K=1.0), {side: Condition(dirichlet=u) for side in box.sides},
        time=Time(1.0), initial={"u": "1 - x", "ut": "1 - x + 2*x**2"},
    )  # fmt: skip
    base = built_in(strong_form(problem))
    assert base is not None
    x, h = torch.linspace(0.1, 0.9, 9, dtype=torch.float64), 1e-5

    def at(t: float) -> torch.Tensor:
        return base.extension(torch.stack([x, torch.full_like(x, t)], -1))[:, 0]

    with torch.no_grad():
        values, rates = at(0.0), (at(h) - at(-h)) / (2 * h)
    torch.testing.assert_close(values, 1 - x)
    torch.testing.assert_close(rates, 1 - x + 2 * x**2, atol=1e-9, rtol=1e-9)
    assert torch.equal(values, at(0.0).detach())


@pytest.mark.parametrize("weight", [4.0, "4", "4 + 0*x"])
def test_weights_are_numbers_or_expressions(weight: float | str) -> None:
    solver, points = PINN(width=4, depth=1, hard=False), torch.rand(9, 2, dtype=torch.float64)
    plain, weighed = (
        objective_of(POISSON, solver.ansatz, False, weights)
        for weights in ({}, {"equation": weight, "left": weight})
    )
    for objective in (plain, weighed):
        objective.place([points] * len(objective.pieces))
    r, weighted = plain.vector(), weighed.vector()
    torch.testing.assert_close(weighted, torch.cat([2 * r[:18], r[18:]]))


def test_a_weight_that_depends_on_the_place_goes_with_the_causal_ones() -> None:
    objective = objective_of(ROD, PINN(width=4).ansatz, True, {"equation": "x**2"})
    objective.place([torch.rand(20, 2, dtype=torch.float64), *objective_points(objective)])
    batch = objective.batches[0]
    torch.testing.assert_close(batch.share, batch.points[:, 0] ** 2)
    size = objective.pointwise(batch.points)
    torch.testing.assert_close(size / 20**0.5, objective.vector()[:20].abs())
    Causal(epsilon=1e-12).weigh(objective, 0, lambda square: square**0.5)
    torch.testing.assert_close(objective.batches[0].share, batch.points[:, 0] ** 2)


def objective_points(objective: Objective) -> list[torch.Tensor]:
    """Points of all pieces but the equation."""
    return [torch.rand(3, 2, dtype=torch.float64) if p.fixed is None else p.fixed
            for p in objective.pieces[1:]]  # fmt: skip


ANGLE = "2/pi*atan2(y, x)"  # zero on y = 0, one on x = 0: the data jump at the origin


def test_a_jump_of_the_data_is_carried_by_an_extension() -> None:
    exact = f"{ANGLE} + sin(pi*x)*sin(pi*y)"
    problem = replace(
        POISSON, boundary={side: Condition(dirichlet=exact) for side in SQUARE.sides}, exact=exact
    )
    solver = PINN(
        width=10, points=200, extension={"u": ANGLE}, optimiser=GaussNewton(iterations=20)
    )
    solution = solve(problem, solver, on=Points(500), throw=False)
    x, y = solution.on.coordinates()
    wanted = 2 / math.pi * torch.atan2(y, x) + (math.pi * x).sin() * (math.pi * y).sin()
    assert float((solution.value - wanted).norm() / wanted.norm()) < 1e-4
    side = torch.stack([torch.zeros(9), torch.linspace(0.1, 1, 9)], -1).double()
    assert torch.allclose(solution.function(side), torch.ones(9, 1).double(), atol=1e-14)


@pytest.mark.parametrize(
    ("options", "said", "key"),
    [
        ({"extension": {"u": "x"}}, "does not meet the data of 'right'", "extension"),
        ({"extension": {"v": "x"}}, "no field is called 'v'", "extension.v"),
        ({"extension": {"u": 0}, "hard": False}, "carries data that are built in", "extension"),
        ({"extension": {"u": 0}, "windows": 2}, "no extension knows", "extension"),
        ({"weights": {"equation": "x - 0.5"}}, "must not be negative", "weights.equation"),
        ({"weights": {"equation": "1/(x - x)"}}, "must not be negative", "weights.equation"),
        ({"weights": {"equation": "1 + u"}}, "'u'", "weights.equation"),
        ({"weights": {"equation": "1 + q"}}, "'q'", "weights.equation"),
    ],
)
def test_extensions_and_weights_that_do_not_fit_are_refused(
    options: dict[str, Any], said: str, key: str
) -> None:
    with pytest.raises(InputError, match=said) as caught:
        PINN(**options).init(POISSON, Grid((9, 9)))
    assert caught.value.key == f"solver.{key}"


def test_an_unknown_parameter_is_found() -> None:
    solver = PINN(width=10, points=300, optimiser=GaussNewton(iterations=60), rtol=1e-3)
    solution = solve(ROD, solver, on=Grid((17,)))
    assert solution.status is Status.CONVERGED
    assert abs(solution.parameters["k"] - 0.7) < 1e-3
    assert any("found k = 0.7" in note or "found k = 0.69" in note for note in solution.notes)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"x": [0.5], "t": [0.9], "u": [1.0]}, "observation 1 at x = 0.5, t = 0.9 lies outside"),
        ({"x": [0.5], "u": [1.0]}, "lack the column 't'"),
        ({"x": [0.5], "t": [0.1]}, "lack the column 'u'"),
        ({"x": [0.5], "t": [0.1], "v": [1.0]}, "unknown column 'v'"),
    ],
)
def test_observations_that_do_not_fit_are_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PINN().init(replace(ROD, observations=changed), Grid((17,)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,t,u\n", "a line of names"),
        ("x,t,u\n0.1,0.2\n", "line 2: expected 3 finite numbers"),
        ("x,t,u\n0.1,0.2,1\n0.1,nan,1\n", "line 3"),
        ("x,t,u\n0.1,0.2,warm\n", "line 2"),
    ],
)
def test_damaged_files_of_observations_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        PINN().init(replace(ROD, observations=str(file)), Grid((17,)))


def test_what_is_unknown_needs_observations_and_a_solver_that_finds_it() -> None:
    with pytest.raises(InputError, match="give observations"):
        replace(ROD, observations=None)
    steady = replace(ROD, equation=Equation(K="k"), time=None, initial=None, observations={"x": []})
    with pytest.raises(InputError, match="'k' is unknown"):
        solve(steady, CG(), on=Grid((17,)))


def test_the_answer_at_points_is_the_function_itself(tmp_path: Path) -> None:
    box = Box((0.0,) * 4, (1.0,) * 4)
    problem = Problem(box, Equation(f="2"), {"all": Condition(dirichlet="x1*(1 - x1)")})
    solver = PINN(width=8, points=200, rtol=1e-6)
    # The data carried into the box are the solution, so that phi N has to vanish.
    solution = solve(problem, solver, on=Points(300, seed=5), throw=False)
    x = torch.stack(solution.on.coordinates(), -1)
    assert solution.function is not None
    torch.testing.assert_close(solution.value, solution.function(x)[:, 0])
    assert float(solution.error(x[:, 0] * (1 - x[:, 0]))) < 1e-3
    save_solution(solution, tmp_path)
    again = load_solution(tmp_path)
    assert again.on == solution.on
    torch.testing.assert_close(again.value, solution.value)


@pytest.mark.parametrize(
    ("problem", "polish"),
    [
        (POISSON, CG(preconditioner=Multigrid(), rtol=1e-9)),
        (replace(POISSON, equation=Equation(c="u**2", f=10.0)), Newton(rtol=1e-9)),
    ],
)
@pytest.mark.parametrize(
    "solver",
    [PINN(width=8, points=200, rtol=1e-2), Gaussians(count=40, rtol=1e-2), RandomFeatures(60)],
    ids=lambda solver: solver.kind,
)
def test_polish_ends_at_the_solution_of_the_grid(
    problem: Problem, polish: Any, solver: Any
) -> None:
    solver = replace(solver, polish=polish)
    solution = solve(problem, solver, on=Grid((33, 33)))
    direct = solve(problem, polish, on=Grid((33, 33)))
    torch.testing.assert_close(solution.value, direct.value, atol=1e-7, rtol=1e-6)
    assert float(solution.residual) <= 1.01e-9
    assert int(direct.stats.iterations) > 0
    assert any(note.startswith("polish: ") for note in solution.notes)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (replace(POISSON, parameters={"a": (1.0, 2.0)}), "one problem at a time"),
        (replace(POISSON, equation=Equation(K="1 + step(x - 0.5)")), "jumps"),
    ],
)
def test_problems_that_cannot_be_trained_on_are_refused(problem: Problem, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PINN().init(problem, Grid((17, 17)))


def test_weights_name_conditions() -> None:
    with pytest.raises(InputError, match="did you mean 'left'"):
        PINN(hard=False, weights={"lef": 2.0}).init(POISSON, Grid((17, 17)))


@pytest.mark.parametrize("solver", [None, CG(), Newton(), FunctionDescent()], ids=repr)
def test_points_are_for_trained_functions(solver: Any) -> None:
    with pytest.raises(InputError, match=r"give grid|needs grid|such as pinn"):
        spec = Spec(POISSON, points=Points(100), solver=solver)
        solve(spec.problem, spec.solver, on=spec.on)
