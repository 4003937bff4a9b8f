"""What a grid leaves out: data between its points, the error of space beside that of time."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import MeshFile
from sciml.core.problem.place import placed
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.status import Status
from sciml.discretization.unseen import unseen
from sciml.solvers import CG, SDIRK, RungeKutta
from sciml.solvers.resolution import error_of_space

LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
HELD, PERIODIC = {"all": Condition(dirichlet=0.0)}, {"all": Condition(periodic=True)}
PI = math.pi


def test_a_source_that_vanishes_at_all_nodes_is_not_solved() -> None:
    problem = Problem(SQUARE, Equation(f="sin(40*pi*x)*sin(40*pi*y)"), HELD)
    coarse = sciml.solve(problem, CG(), on=Grid((33, 33)), throw=False)
    assert coarse.status is Status.UNDER_RESOLVED and not coarse.converged
    assert any("does not see" in note and "of f" in note for note in coarse.notes)
    fine = sciml.solve(problem, on=Grid((257, 257)))
    assert fine.converged and not any("does not see" in note for note in fine.notes)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"equation": Equation(f=lambda x: torch.sin(64 * PI * x))}, "f"),
        ({"equation": Equation(K="1.1 + sin(64*pi*x)", f=1.0)}, "K"),
        ({"equation": Equation(kind="reaction_diffusion", c="sin(64*pi*x)", f=1.0)}, "c"),
        ({"time": Time(1.0), "initial": "sin(64*pi*x)"}, "initial.u"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_every_datum_is_compared(change: dict[str, Any], key: str) -> None:
    problem = Problem(**{"domain": LINE, "equation": Equation(), "boundary": HELD, **change})
    assert unseen(problem, Grid((65,)).bind(LINE))[key] > 0.4
    side = {"all": Condition(dirichlet="sin(64*pi*y)")}
    shares = unseen(Problem(SQUARE, Equation(), side), Grid((65, 65)).bind(SQUARE))
    assert shares["boundary.left.dirichlet"] > 0.9


def test_the_share_of_a_resolved_datum_is_that_of_interpolation() -> None:
    problem = Problem(LINE, Equation(f="sin(2*pi*x)"), HELD)
    share = unseen(problem, Grid((65,)).bind(LINE))["f"]
    assert share == pytest.approx((2 * PI / 64) ** 2 / 8, rel=0.02)
    # What jumps is integrated, an array has nothing between its points.
    for f in ("where(x < 0.3, 1, 0)", torch.ones(65), 3.0, lambda x: (x < 0.3).double()):
        assert unseen(Problem(LINE, Equation(f=f), HELD), Grid((65,)).bind(LINE)) == {}


def advection(initial: str) -> Problem:
    carried = Equation(kind="general", K=0.0, d=1.0, b=(1.0,))
    return Problem(LINE, carried, PERIODIC, time=Time(1.0), initial=initial)


def heat(**more: Any) -> Problem:
    given = {"initial": "sin(pi*x)", "time": Time(0.1), **more}
    f = given.pop("f", 0.0)
    return Problem(LINE, Equation(kind="general", d=1.0, f=f), HELD, **given)


X = (torch.arange(64, dtype=torch.float64) + 0.5) / 64
ROUND = Grid((64,), "cell")


@pytest.mark.parametrize(
    ("problem", "method", "on", "exact", "within"),
    [
        (advection("sin(2*pi*x)"), RungeKutta(rtol=1e-4), ROUND, torch.sin(2 * PI * X), 1.5),
        (
            advection("where(abs(x - 0.5) < 0.2, 1, 0)"),
            RungeKutta(rtol=1e-4), ROUND, ((X - 0.5).abs() < 0.2).double(), 2.5,
        ),
        (
            advection("exp(-((x - 0.5)/0.05)**2)"),
            RungeKutta(rtol=1e-4), ROUND, torch.exp(-(((X - 0.5) / 0.05) ** 2)), 2.0,
        ),
        (
            heat(), SDIRK(), Grid((33,)),
            lambda x: math.exp(-PI**2 / 10) * torch.sin(PI * x), 1.5,
        ),
        (
            heat(f="pi**2*sin(pi*x)", initial=0.0, time=Time(3.0)), SDIRK(), Grid((33,)),
            lambda x: torch.sin(PI * x), 1.5,
        ),
        (
            Problem(
                LINE, Equation(kind="general", m=1.0), HELD, time=Time(2.3), initial="sin(3*pi*x)"
            ),
            SDIRK(), Grid((65,)), lambda x: math.cos(6.9 * PI) * torch.sin(3 * PI * x), 1.5,
        ),
    ],
    ids=["sine", "box", "bell", "heat", "forced", "wave"],
)  # fmt: skip
def test_the_error_of_space_is_told_within_a_factor(
    problem: Problem, method: Any, on: Grid, exact: Any, within: float
) -> None:
    solution = sciml.solve(problem, method, on=on)
    told = error_of_space(problem, on, method, solution)
    assert told is not None
    assert 1 / within < told / float(solution.error(exact)) < within


def test_the_error_of_space_falls_as_the_grid_is_refined_in_two_dimensions() -> None:
    decaying = Equation(kind="general", d=1.0)
    problem = Problem(
        SQUARE, decaying, HELD, time=Time(0.05), initial="sin(pi*x)*sin(pi*y)"
    )  # fmt: skip
    on = Grid((65, 65))
    solution = sciml.solve(problem, SDIRK(), on=on)
    true = float(
        solution.error(lambda x, y: math.exp(-(PI**2) / 10) * torch.sin(PI * x) * torch.sin(PI * y))
    )
    told = error_of_space(problem, on, SDIRK(), solution)
    assert told is not None and told == pytest.approx(true, rel=0.6)
    batch = Problem(
        SQUARE, decaying, HELD, time=Time(0.05), initial="k*x*y", parameters={"k": [1.0, 2.0]}
    )
    several = sciml.solve(batch, SDIRK(), on=on)
    assert error_of_space(batch, on, SDIRK(), several) is None


def test_an_error_is_against_a_function_or_values() -> None:
    solution = sciml.solve(Problem(LINE, Equation(f=1.0), HELD), on=Grid((9,)))
    with pytest.raises(InputError, match="not a text"):
        solution.error("x*(1 - x)/2")  # type: ignore[arg-type]
    # Nothing can be relative to zero: then the error is the root mean square.
    truth = solution.value
    assert float(solution.error(torch.zeros(9))) == pytest.approx(
        float(truth.square().mean().sqrt())
    )


def cantilever(element: Any, nu: float = 0.3, plane: Any = "stress") -> Any:
    """A beam of 1 x 0.1, two elements across, clamped on the left and pulled down on the right."""
    grid = skfem.MeshTri.init_tensor(np.linspace(0, 1, 21), np.linspace(0, 0.1, 3))
    ends = {"left": 0.0, "right": 1.0}
    named = {
        name: grid.facets[:, grid.facets_satisfying(lambda x, at=at: np.isclose(x[0], at))].T
        for name, at in ends.items()
    }
    mesh = Mesh(grid.p.T.copy(), grid.t.T.copy(), {}, named, element)
    sides = {
        "left": Condition(dirichlet=(0.0, 0.0)),
        "right": Condition(neumann=(0.0, -1.0)),
    }
    return sciml.solve(Problem(None, Elasticity(1e6, nu, plane=plane), sides), on=mesh)


def test_p2_bends_as_a_beam_does_and_p1_is_noted() -> None:
    # Euler and Bernoulli's F l^3 / (3 E I) and Timoshenko's share of shear.
    force, inertia, shear = 0.1, 0.1**3 / 12, 1e6 / 2.6 * 0.1 * 5 / 6
    deflection = -force / (3 * 1e6 * inertia) - force / shear
    exact, stiff = cantilever("P2"), cantilever("P1")
    assert float(exact.value[1].min()) == pytest.approx(deflection, rel=0.01)
    assert float(stiff.value[1].min()) > 0.8 * deflection
    assert any("too stiff in bending" in note and "P2" in note for note in stiff.notes)
    assert not any("locks" in note for note in stiff.notes)
    assert any("locks" in note for note in cantilever("P1", 0.49, "strain").notes)
    assert not any("too stiff" in note for note in exact.notes)


def test_elasticity_has_p2_unless_p1_is_asked_for() -> None:
    source = MeshFile(str(Path(__file__).parents[1] / "configs/meshes/inclusion.msh"))
    elastic = Problem(None, Elasticity(1.0), {})
    assert placed(elastic, None, source, None).element == "P2"  # type: ignore[union-attr]
    asked = replace(source, element="P1")
    assert placed(elastic, None, asked, None).element == "P1"  # type: ignore[union-attr]
    heat_flow = Problem(None, Equation(f=1.0), {})
    assert placed(heat_flow, None, source, None).element == "P1"  # type: ignore[union-attr]
