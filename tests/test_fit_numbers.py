"""What a problem leaves open, found by a classical solver: values, errors, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor
from typer.testing import CliRunner

import sciml
from sciml import Status
from sciml.app import cli
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh, inside
from sciml.core.problem.problem import Condition, Problem, Robin, Time, Unknown
from sciml.core.problem.unknown import UnknownField
from sciml.solvers import CG, Auto, Fit, Multigrid
from sciml.solvers.fit.sensitivities import jacobian, solved

CONFIGS = Path(__file__).parent.parent / "configs"
LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
SOURCES = (1.0, -0.5, 2.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sides(box: Box, value: Any = 0.0, **other: Condition) -> dict[str, Condition]:
    return {**dict.fromkeys(box.sides, Condition(value)), **other}


def plate(**parameters: Any) -> Problem:
    """Advection, diffusion and reaction, five numbers in all of its data."""
    equation = Equation(kind="general", K="a*(1 + x)", b=("v", 0.0), c="c", f="10*sin(pi*y)")
    known = {"a": 0.5, "v": 2.0, "c": 3.0, "g": 0.5, "h": 2.0} | parameters
    right = Condition(robin=Robin("h", "1 + y"))
    return Problem(SQUARE, equation, sides(SQUARE, "g*y", right=right), parameters=known)


def rod(**parameters: Any) -> Problem:
    """-(K(u) u')' = s, several experiments."""
    equation = Equation(kind="diffusion", K="a + b*u**2", f="s")
    return Problem(LINE, equation, sides(LINE), parameters={"a": 0.1, "b": 1.0} | parameters)


def triangles() -> Mesh:
    """The square without its last quarter, by the nodes of a grid."""
    n = 8
    x, y = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, n + 1), indexing="ij")
    index = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
    corners = [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]]
    a, b, c, d = (k.ravel() for k in corners)
    cells = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return Mesh(np.stack([x.ravel(), y.ravel()], 1), cells)


def unknown(problem: Problem, observations: Any, noise: Any = None, **guesses: Any) -> Problem:
    found = {n: g if isinstance(g, Unknown) else Unknown(g) for n, g in guesses.items()}
    parameters = {**problem.parameters, **found}
    return replace(problem, parameters=parameters, observations=observations, noise=noise)


def readings(problem: Problem, on: Any, points: Tensor, noise: float = 0.0, seed: int = 1) -> Any:
    """What a problem reads at points (n, d), with noise."""
    seen = sciml.solve(problem, on=on).sample(points)
    error = torch.randn(seen.shape, generator=generator(seed), dtype=torch.float64)
    return dict(zip("xy", points.T, strict=False)) | {"u": seen + noise * error}


def scattered(count: int, dimension: int = 2) -> Tensor:
    return torch.rand(count, dimension, generator=generator(), dtype=torch.float64)


def on_a_mesh() -> tuple[Problem, Any, Tensor]:
    mesh = triangles()
    problem = Problem(
        None, rod().equation, {"boundary": Condition(0.0)}, parameters=rod().parameters
    )
    return replace(problem, parameters=problem.parameters | {"s": 5.0}), mesh, scattered(12)


CASES: dict[str, tuple[Problem, Any, Tensor, dict[str, float]]] = {
    "linear": (plate(), Grid((17, 17)), scattered(12), {"a": 0.4, "v": 1.0, "c": 1.0, "g": 0.3,
                                                         "h": 1.0}),
    "cells": (plate(), Grid((12, 12), "cell"), scattered(12), {"a": 0.4, "g": 0.3, "h": 1.0}),
    "nonlinear": (rod(s=1.0), Grid((33,)), scattered(12, 1), {"a": 0.3, "b": 0.3}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_jacobian_is_that_of_differences_from_both_sides(name: str) -> None:
    problem, grid, points, guesses = CASES[name]
    stated = unknown(problem, readings(problem, grid, points), **guesses)
    state = Fit(solver=Auto(rtol=1e-12)).init(stated, grid)
    answer = solved(state.experiment, state.start)
    forward, backward = (jacobian(state.experiment, answer, by) for by in ("unknown", "reading"))
    torch.testing.assert_close(
        forward, backward, rtol=1e-9, atol=1e-10 * float(forward.abs().max())
    )
    h = 1e-4
    for k, e in enumerate(h * torch.eye(len(guesses), dtype=torch.float64)):
        ends = [solved(state.experiment, state.start + way * e).readings for way in (1, -1)]
        torch.testing.assert_close(
            forward[:, k], (ends[0] - ends[1]) / (2 * h), rtol=1e-5, atol=1e-6
        )


def test_errors_are_those_that_scipy_finds_on_the_same_residual() -> None:
    grid, points = Grid((17, 17)), scattered(25)
    problem = plate()
    seen = readings(problem, grid, points, noise=0.002)
    guesses = {"a": 0.4, "v": 1.0, "g": 0.3}
    found = sciml.fit(unknown(problem, seen, **guesses), on=grid)

    def residual(p: np.ndarray) -> np.ndarray:
        known = problem.parameters | dict(zip(guesses, p.tolist(), strict=True))
        answer = sciml.solve(replace(problem, parameters=known), on=grid)
        return (answer.sample(points) - seen["u"]).numpy()

    theirs = least_squares(residual, list(guesses.values()), x_scale="jac", xtol=1e-12)
    variance = 2 * theirs.cost / (len(points) - len(guesses))
    errors = np.sqrt(variance * np.linalg.inv(theirs.jac.T @ theirs.jac).diagonal())
    assert [found.parameters[n] for n in guesses] == pytest.approx(theirs.x, rel=1e-4)
    assert [found.standard_errors[n] for n in guesses] == pytest.approx(errors, rel=1e-3)


def test_estimates_scatter_as_their_standard_errors_say() -> None:
    """(p - p*) / error of 25 draws: chi^2 per degree of freedom within its own 99.9 %."""
    grid, points, noise = Grid((9, 9)), scattered(30), 0.003
    problem, truth = plate(), {"a": 0.5, "g": 0.5}
    exact, off = readings(problem, grid, points), []
    for seed in range(25):
        error = torch.randn(30, generator=generator(seed), dtype=torch.float64)
        seen = {**exact, "u": exact["u"] + noise * error}
        found = sciml.fit(unknown(problem, seen, noise, a=Unknown(0.3, lower=0.0), g=0.2), on=grid,
                          throw=False)  # fmt: skip
        off.append([(found.parameters[n] - v) / found.standard_errors[n] for n, v in truth.items()])
    squares = np.square(off).mean(0)
    assert ((squares > 0.33) & (squares < 2.20)).all()


def test_experiments_are_fitted_at_once_each_reading_with_its_own() -> None:
    grid, x = Grid((33,)), torch.linspace(0.05, 0.95, 11, dtype=torch.float64)
    problem = rod(s=SOURCES)
    value = sciml.solve(problem, on=grid).sample(x[:, None])
    order = torch.randperm(33, generator=generator())
    seen = {
        "x": x.repeat(3)[order],
        "s": torch.tensor(SOURCES, dtype=torch.float64).repeat_interleave(11)[order],
        "u": value.flatten()[order],
    }
    found = sciml.fit(unknown(problem, seen, a=Unknown(0.5, lower=0.0), b=Unknown(0.3, lower=0.0)),
                      on=grid)  # fmt: skip
    assert found.parameters["a"] == pytest.approx(0.1, rel=1e-5)
    assert found.parameters["b"] == pytest.approx(1.0, rel=1e-5)
    wrong = {**seen, "s": torch.where(seen["s"] == 2, 2.5, seen["s"])}
    with pytest.raises(InputError, match=r"at s = 2.5 is of none of the problems"):
        sciml.fit(unknown(problem, wrong, a=0.5), on=grid)
    with pytest.raises(InputError, match="one for each s: give the observations a column s"):
        sciml.fit(unknown(problem, {n: seen[n] for n in "xu"}, a=0.5), on=grid)


def test_a_mesh_is_fitted_as_a_grid_is() -> None:
    problem, mesh, points = on_a_mesh()
    assert bool(inside(mesh, points).all())
    seen = readings(problem, mesh, points)
    found = sciml.fit(unknown(problem, seen, a=Unknown(0.5, lower=0.0), b=Unknown(0.3, lower=0.0)),
                      on=mesh)  # fmt: skip
    assert found.parameters["a"] == pytest.approx(0.1, rel=1e-4)
    assert found.parameters["b"] == pytest.approx(1.0, rel=1e-4)


def test_a_bound_that_is_met_is_told_and_not_crossed() -> None:
    problem, grid, points = rod(s=1.0), Grid((33,)), scattered(12, 1)
    seen = readings(problem, grid, points)
    found = sciml.fit(unknown(problem, seen, 1e-3, b=Unknown(2.0, lower=1.5)), on=grid, throw=False)
    assert found.parameters["b"] >= 1.5
    assert not found.status.success


def test_what_no_reading_tells_is_named_with_what_would_do_as_well() -> None:
    grid, points = Grid((17, 17)), scattered(12)
    stated = Problem(SQUARE, Equation(kind="diffusion", K="a*b", f=1.0), sides(SQUARE),
                     parameters={"a": 2.0, "b": 0.5})  # fmt: skip
    seen = readings(stated, grid, points, noise=1e-4)
    found = sciml.fit(unknown(stated, seen, a=1.0, b=2.0), on=grid, throw=False)
    assert found.status is Status.UNDETERMINED
    assert any("only a*b is determined by the observations" in note for note in found.notes)
    assert found.parameters["a"] * found.parameters["b"] == pytest.approx(1.0, rel=0.01)
    # A sink beyond a wall of zeros: nothing of it comes through.
    apart = Problem(LINE, Equation(kind="general", K=1.0, c="q*where(x > 0.5, 1, 0)", f="p"),
                    sides(LINE), parameters={"p": 1.0, "q": 0.0})  # fmt: skip
    seen = {"x": [0.0, 0.0, 0.0], "u": [0.0, 0.01, -0.01]}
    found = sciml.fit(unknown(apart, seen, 0.01, p=1.0, q=1.0), on=Grid((17,)), throw=False)
    assert found.status is Status.UNDETERMINED
    assert any("p and q are not determined" in note for note in found.notes)
    assert not any(math.isfinite(e) for e in found.standard_errors.values())


def test_an_unknown_that_ran_to_its_bound_leaves_the_others_open_too() -> None:
    unknown = {name: Unknown(0.5, lower=0.0) for name in ("a", "b")}
    one = {"x": [0.5], "u": [0.58]}
    problem, on = rod(s=1.0), Grid((33,))
    solution = sciml.fit(problem, one, on=on, unknowns=unknown, noise=0.003, throw=False)
    assert solution.status is Status.UNDETERMINED
    assert not any(math.isfinite(e) for e in solution.standard_errors.values()), solution.notes


def test_a_model_that_cannot_explain_the_readings_has_a_misfit() -> None:
    grid, points = Grid((33,)), scattered(25, 1)
    seen = readings(rod(s=1.0), grid, points, noise=1e-3)
    constant = rod(s=1.0, b=0.0)
    for noise in (1e-3, None):
        found = sciml.fit(unknown(constant, seen, noise, a=0.2), on=grid, throw=False)
        assert found.status is Status.MISFIT


def test_a_guess_from_which_nothing_is_found_is_no_success() -> None:
    problem, grid, points = rod(s=1.0), Grid((33,)), scattered(12, 1)
    stated = unknown(problem, readings(problem, grid, points), a=0.5, b=0.3)
    found = sciml.fit(stated, solver=Fit(iterations=1), on=grid, throw=False)
    assert found.status is Status.MAX_ITERATIONS
    assert not found.standard_errors or found.status is not Status.CONVERGED


GOOD: dict[str, Any] = {"x": [0.2, 0.5, 0.7], "u": [0.1, 0.2, 0.15]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": [0.2, 1.5, 0.7]}, "observation 2 at x = 1.5 lies outside the domain"),
        ({"u": [0.1, 0.1, 0.1]}, "all 3 observations of u are 0.1"),
        ({"w": [0.1, 0.2, 0.1]}, "unknown column 'w'"),
        ({"u": [0.1, math.nan, 0.1]}, "observation 2: u is not finite"),
        ({"u": torch.ones(3, dtype=torch.complex128)}, "a list of numbers"),
    ],
)
def test_observations_that_say_nothing_are_refused(changed: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sciml.fit(unknown(rod(s=1.0), GOOD | changed, a=0.5), on=Grid((17,)))
    assert caught.value.key == "problem.observations"


def test_what_cannot_be_fitted_is_refused() -> None:
    problem, grid = rod(s=1.0, z=2.0), Grid((17,))
    with pytest.raises(InputError, match="'z' is to be found, but neither"):
        sciml.fit(unknown(problem, GOOD, z=0.5), on=grid)
    with pytest.raises(InputError, match="nothing is unknown"):
        sciml.solve(replace(problem, observations=GOOD), Fit(), on=grid)
    with pytest.raises(InputError, match="'a' is unknown: fit finds it"):
        sciml.solve(unknown(problem, GOOD, a=0.5), CG(), on=grid)


def test_the_command_finds_what_the_readings_were_made_with(tmp_path: Path) -> None:
    """k = 2 and h = 5 made them on another grid; a run says so, and how sure it is."""
    run = CliRunner().invoke(
        cli.app, ["fit", str(CONFIGS / "conductivity.yaml"), "--set", "grid.shape=[49,25]",
                  "--out", str(tmp_path)]
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    record = json.loads((tmp_path / "run.json").read_text())
    for name, truth in (("k", 2.0), ("h", 5.0)):
        found = record["parameters"][name]
        assert abs(found["value"] - truth) < 3 * found["standard_error"]
    run = CliRunner().invoke(cli.app, ["fit", str(CONFIGS / "poisson.yaml")])
    assert run.exit_code == 2
    assert "nothing is unknown" in run.output


def test_an_unknown_is_found_whichever_solver_answers() -> None:
    grid, points = Grid((17, 17)), scattered(20)
    stated = unknown(plate(), readings(plate(), grid, points, noise=1e-3), a=0.3)
    found = [
        sciml.solve(stated, solver, on=grid).parameters["a"]
        for solver in (Auto(), Fit(), Fit(solver=sciml.solvers.GMRES(preconditioner=Multigrid())))
    ]
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


def test_a_number_of_a_problem_in_time_is_found_with_its_error() -> None:
    """u = exp(-k pi^2 t) sin(pi x): k, and its error as the exact derivative says."""
    x = torch.rand(30, generator=generator(), dtype=torch.float64)
    t, noise = 0.05 * (torch.arange(30) % 4 + 1), 4e-3
    exact = (-0.7 * math.pi**2 * t).exp() * (math.pi * x).sin()
    error = torch.randn(30, generator=generator(1), dtype=torch.float64)
    problem = Problem(
        LINE, Equation(kind="heat", K="k"), sides(LINE), time=Time(0.2, frames=3),
        initial="sin(pi*x)", parameters={"k": Unknown(0.5, lower=0.0)}, noise=noise,
        observations={"x": x, "t": t, "u": exact + noise * error},
    )  # fmt: skip
    found = sciml.fit(problem, on=Grid((33,)))
    size = noise / float((math.pi**2 * t * exact).norm())
    assert abs(found.parameters["k"] - 0.7) < 3 * size
    assert found.standard_errors["k"] == pytest.approx(size, rel=0.03)
    assert found.times is not None and len(found.times) == 3  # its own frames
    field = Unknown(UnknownField())
    with pytest.raises(InputError, match="of problems in time unknown numbers alone"):
        heat = replace(problem, equation=Equation(kind="heat", K=field), parameters={})
        sciml.fit(heat, on=Grid((17,)))
