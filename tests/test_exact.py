"""An exact solution that is stated has to be one: the equation, every condition, the start."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from sciml.app.read import load_spec
from sciml.app.run import Setting, answer
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, Helmholtz, System
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time, Unknown
from sciml.solvers.exact import check_exact

LINE, SQUARE = Box((0.0,), (1.0,)), Box((0.0, 0.0), (1.0, 1.0))
ENDS = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=0.0)}
RING = {"left": Condition(periodic=True), "right": Condition(periodic=True)}
SIDES = {side: Condition(dirichlet="x*y") for side in SQUARE.sides}
HEAT = Problem(
    LINE, Equation(d=1.0), ENDS, time=Time(1.0), initial="sin(pi*x)",
    exact="exp(-pi**2*t)*sin(pi*x)",
)  # fmt: skip
SOLITON = Problem(
    Box((-20.0,), (20.0,)), Equation(kind="kdv"), RING, time=Time(1.0), initial="2/cosh(x)**2",
    exact="2/cosh(x - 4*t)**2",
)  # fmt: skip
ROBIN = Problem(
    SQUARE, Equation(K="1 + x", f="-y"),
    {**SIDES, "left": Condition(neumann="-y"), "right": Condition(robin=Robin(1.0, "3*y"))},
    exact="x*y",
)  # fmt: skip
HOLE = Problem(
    SQUARE, Equation(), SIDES, Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04",
    Condition(dirichlet="x*y")), exact="x*y",
)  # fmt: skip
# n . grad(x y) on the rim, n towards its middle.
INTO = "-((x - 0.5)*y + (y - 0.5)*x)/0.2"
FLUX = replace(HOLE, obstacle=replace(HOLE.obstacle, boundary=Condition(neumann=INTO)))
BALANCE = Condition(robin=Robin(2.0, f"2*x*y + (1 + x)*{INTO}"))
MIXED = replace(
    HOLE,
    equation=Equation(K="1 + x", f="-y"),
    obstacle=replace(HOLE.obstacle, boundary=BALANCE),
)
BATCH = Problem(
    LINE, Equation(K="k", f=1.0), ENDS, parameters={"k": [1.0, 2.0]}, exact="x*(1 - x)/(2*k)"
)
WAVES = Problem(
    LINE, Helmholtz(5.0),
    {"left": Condition(dirichlet=1.0), "right": Condition(dirichlet="cos(5)")}, exact="cos(5*x)",
)  # fmt: skip
JUMP = Problem(
    LINE, Equation(K="where(x < 0.5, 1, 10)"), {**ENDS, "right": Condition(dirichlet=1.0)},
    exact="where(x < 0.5, 20*x/11, 1 - 2*(1 - x)/11)",
)  # fmt: skip


def ring(n: int, element: str) -> Mesh:
    """Between radius 1/2 and 1, n unequal facets around."""
    uneven = 0.3 * np.random.default_rng(0).uniform(-1, 1, n)
    angles = 2 * np.pi * (np.arange(n) + uneven) / n
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    points = np.concatenate([r * circle for r in np.linspace(0.5, 1, 4)])
    edge = np.stack([np.arange(n), (np.arange(n) + 1) % n], -1)
    layers = [edge + j * n for j in range(4)]
    cells = [
        triangle
        for low, high in pairwise(layers)
        for triangle in (np.c_[low[:, 0], high[:, 0], low[:, 1]], np.c_[low[:, 1], high])
    ]
    sides = {"hole": layers[0], "outer": layers[-1]}
    return Mesh(points, np.concatenate(cells), boundaries=sides, element=element)


def around(outer: Condition) -> Problem:
    sides = {"outer": outer, "hole": Condition(dirichlet="log(0.5)")}
    return Problem(None, Equation(), sides, exact="log(sqrt(x**2 + y**2))")


@pytest.mark.parametrize(
    "problem", [HEAT, SOLITON, ROBIN, HOLE, FLUX, MIXED, BATCH, WAVES, JUMP],
    ids=["heat", "soliton", "robin", "hole", "flux", "mixed", "batch", "waves", "jump"],
)  # fmt: skip
def test_exact_solutions_pass_without_a_word(problem: Problem) -> None:
    assert check_exact(problem, Grid((65,) * problem.box.dimension)) == ()


@pytest.mark.parametrize(
    ("problem", "exact", "missed"),
    [
        (HEAT, "exp(-9*t)*sin(pi*x)", "the equation"),
        (HEAT, "2*exp(-pi**2*t)*sin(pi*x)", "the initial data"),
        (HEAT, "exp(-pi**2*t)*cos(pi*x)", "the condition on left"),
        (HEAT, "exp(-1)*cos(pi*x)", "the condition on left"),
        (SOLITON, "2/cosh(x - 3*t)**2", "the equation"),
        (ROBIN, "x*y + 0.01*y", "the equation"),
        (BATCH, "x*(1 - x)/2", "the equation"),
        (WAVES, "cos(5.1*x)", "the equation"),
        (JUMP, "x", "the equation"),
    ],
)
def test_what_solves_another_problem_is_refused(problem: Problem, exact: str, missed: str) -> None:
    if problem is JUMP:  # -div(K grad x) is zero inside both halves, and the sides are met
        problem = replace(problem, equation=Equation(K="where(x < 0.5, 1, 10)", c=1.0))
    if problem is ROBIN:
        problem = replace(problem, equation=Equation(K="1 + x", c=1.0, f="x*y - y"))
    with pytest.raises(InputError, match=f"exact does not meet {missed}") as caught:
        check_exact(replace(problem, exact=exact), Grid((65,) * problem.box.dimension))
    assert caught.value.key == "problem.exact"


@pytest.mark.parametrize("side", ["left", "right"])
def test_fluxes_of_sides_are_looked_at(side: str) -> None:
    wrong = Condition(neumann="-y + 0.1") if side == "left" else Condition(robin=Robin(2.0, "3*y"))
    problem = replace(ROBIN, boundary={**ROBIN.boundary, side: wrong})
    with pytest.raises(InputError, match=f"the condition on {side}"):
        check_exact(problem, Points(10))


def test_the_rim_of_a_hole_is_looked_at() -> None:
    hole = replace(HOLE.obstacle, boundary=Condition(dirichlet=0.2))
    with pytest.raises(InputError, match="the condition on the obstacle"):
        check_exact(replace(HOLE, obstacle=hole), Grid((33, 33)))
    for turned in (Condition(neumann=f"-({INTO})"), Condition(robin=Robin(2.0, INTO))):
        with pytest.raises(InputError, match="the condition on the obstacle"):
            hole = replace(HOLE.obstacle, boundary=turned)
            check_exact(replace(HOLE, obstacle=hole), Grid((33, 33)))


def test_waves_that_leave_have_no_real_solution() -> None:
    """Of exp(5 i x) the real part meets the equation, and has an error of 100 %."""
    leaving = replace(WAVES, boundary={**WAVES.boundary, "right": Condition(absorbing=True)})
    with pytest.raises(InputError, match="the condition on right"):
        check_exact(leaving, Grid((65,)))
    calm = {"left": Condition(dirichlet=0.0), "right": Condition(absorbing=True)}
    assert check_exact(replace(leaving, boundary=calm, exact="0*x"), Grid((65,))) == ()


def test_a_state_at_the_end_need_not_solve_the_equation_in_time() -> None:
    once_round = Problem(
        LINE, Equation(kind="advection", b=(1.0,)), RING, time=Time(1.0),
        initial="sin(2*pi*x)", exact="sin(2*pi*x)",
    )  # fmt: skip
    assert check_exact(once_round, Grid((64,))) == ()


@pytest.mark.parametrize(("n", "element"), [(24, "P1"), (96, "P2")])
def test_meshes_of_round_parts(n: int, element: str) -> None:
    mesh = ring(n, element)
    for outer in (
        Condition(dirichlet=0.0), Condition(robin=Robin(2.0, 1.0)), Condition(neumann=1.0),
        Condition(neumann="nx*x + ny*y"),
    ):  # fmt: skip
        assert check_exact(around(outer), mesh) == ()
    for outer in (Condition(dirichlet=0.01), Condition(robin=Robin(2.0, 1.7))):
        with pytest.raises(InputError, match="the condition on outer"):
            check_exact(around(outer), mesh)
    wrong = replace(around(Condition(dirichlet=0.0)), equation=Equation(f=0.1))
    with pytest.raises(InputError, match="the equation"):
        check_exact(wrong, mesh)


def test_what_nearly_is_one_is_noted() -> None:
    problem = replace(HEAT, exact="exp(-3.1416**2*t)*sin(pi*x)")
    (note,) = check_exact(problem, Grid((65,)))
    assert "the equation only to" in note


def test_several_fields_have_no_single_exact_solution() -> None:
    system = System({"u": Equation(d=1.0), "v": Equation(d=1.0)})
    problem = Problem(LINE, system, RING, time=Time(1.0), initial={"u": 0, "v": 0}, exact="x")
    with pytest.raises(InputError, match="the fields u, v"):
        check_exact(problem, Grid((33,)))


def test_what_is_not_looked_at_is_said() -> None:
    array = replace(BATCH, equation=Equation(f=np.ones(65)), exact="x", boundary=ENDS | {
        "right": Condition(dirichlet=1.0)})  # fmt: skip
    (note,) = check_exact(array, Grid((65,)))
    assert note == "exact was not checked against the equation: data are given as an array"
    with pytest.raises(InputError, match="the condition on right"):
        check_exact(replace(array, exact="2*x"), Grid((65,)))
    opaque = replace(array, exact=lambda x: x.detach() + 0)
    (note,) = check_exact(replace(opaque, equation=Equation(f="1")), Grid((65,)))
    assert note == "exact was not checked against the equation: exact has no derivatives"
    with pytest.raises(InputError, match="the condition on left"):
        check_exact(replace(opaque, exact=lambda x: x.detach() + 1), Grid((65,)))
    sought = replace(
        BATCH, parameters={"k": Unknown(1.0)}, exact="sin(pi*x)",
        observations={"x": np.array([0.5]), "u": np.array([1.0])},
    )  # fmt: skip
    (note,) = check_exact(sought, Grid((65,)))
    assert note == "exact was not checked against the equation: data name k, which is to be found"
    with pytest.raises(InputError, match="the condition on left"):
        check_exact(replace(sought, exact="cos(pi*x)"), Grid((65,)))
    (note,) = check_exact(replace(sought, exact="k*x"), Grid((65,)))
    assert note.startswith("exact was not checked against the problem")
    sides = {"outer": Condition(dirichlet=0.0), "hole": Condition(neumann=np.ones(1))}
    notes = check_exact(replace(around(sides["outer"]), boundary=sides), ring(24, "P1"))
    assert notes == (
        "exact was not checked against the condition on hole: data are given as an array",
    )


def test_a_run_stops_before_it_solves() -> None:
    spec = load_spec("configs/poisson.yaml", ["problem.exact=sin(pi*x)*sin(pi*y)"])
    with pytest.raises(InputError, match=r"problem\.exact: exact does not meet"):
        answer(spec, Setting())
