"""An equation of one's own: a dataclass and what is registered for it, and the rest of the house.

The beam E I u'''' = f between supports, u = u'' = 0, by second differences taken twice; and
pendulums, u_tt + sin u = 0 at every point, to be stepped in time.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_origin

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import ellipk

import sciml
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.core.problem import equation as equations
from sciml.core.problem.dispatch import Dispatch, accompanies, discretises, semidiscretises
from sciml.core.problem.equation import (
    PDE,
    Elasticity,
    Equation,
    Helmholtz,
    NavierStokes,
    Stokes,
    System,
)
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.discretization import discretize, semidiscretize
from sciml.discretization.fields import beside
from sciml.discretization.points.strong import strong_form
from sciml.solvers import CG, Auto, Direct, Newton, RungeKutta
from sciml.solvers.auto import chooses

ROOT = Path(__file__).resolve().parents[1]
LINE = Box((0.0,), (1.0,))
ENDS = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=0.0)}


@dataclass(frozen=True)
class Beam(PDE):
    """E I u'''' = f on a simply supported beam."""

    load: float
    stiffness: float = 1.0
    kind: Literal["beam"] = "beam"
    title: ClassVar[str] = "beam"

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        return True

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        return ("u",)


@discretises(Beam, Grid)
def discretize_beam(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    equation, grid = problem.equation_as(Beam), on.bind(problem.box)
    (n,), (h,) = grid.shape, grid.spacing
    second = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n - 2, n - 2)) / h**2
    A = SparseMatrix(equation.stiffness * second @ second, symmetric=True, definite=True)
    return LinearSystem(
        A,
        torch.full((n - 2,), equation.load, dtype=dtype),
        grid,
        lambda x: torch.nn.functional.pad(x, (1, 1)),
        lambda value: value[..., 1:-1],
    )


@accompanies(Beam, Grid)
def moment(problem: Problem, on: Grid, value: torch.Tensor) -> dict[str, torch.Tensor]:
    h = on.bind(problem.box).spacing[0]
    bend = value[..., 2:] - 2 * value[..., 1:-1] + value[..., :-2]
    return {
        "moment": -problem.equation_as(Beam).stiffness
        / h**2
        * torch.nn.functional.pad(bend, (1, 1))
    }


@dataclass(frozen=True)
class Pendulums(PDE):
    """u_tt + sin u = 0 at every point."""

    kind: Literal["pendulums"] = "pendulums"
    title: ClassVar[str] = "pendulums"

    def linear_with(self, parameters: Mapping[str, Any]) -> bool:
        return False

    def fields(self, dimension: int, initial: Collection[str] = ()) -> tuple[str, ...]:
        return ("u",)


@semidiscretises(Pendulums, Grid)
def swing(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> NonlinearSystem:
    grid = on.bind(problem.box)
    first = torch.full(grid.shape, float(problem.first["u"]), dtype=dtype)

    def slope(u: torch.Tensor, t: float) -> Stencil:
        planes = torch.stack([u.cos(), torch.zeros_like(u), torch.zeros_like(u)], -2)
        return Stencil(planes, cross_offsets(1), symmetric=True)

    return NonlinearSystem(
        residual=lambda u, t: u.sin(),
        linearise=slope,
        diffusion=slope,
        shape=grid.shape,
        batch=(),
        on=grid,
        lift=lambda u, t: u,
        restrict=lambda value: value,
        first=(first, torch.zeros_like(first)),
        inertia=torch.ones(grid.shape, dtype=dtype),
    )


@chooses(Pendulums, Grid)
def by_steps(problem: Problem) -> tuple[str, str]:
    return "RungeKutta", "pendulums are not stiff"


@pytest.mark.parametrize("solver", [None, Direct(), CG(max_iterations=2000)])
def test_a_new_equation_is_solved_by_every_linear_solver(solver) -> None:
    """u = f (x^4 - 2 x^3 + x) / 24 E I, with second order."""
    problem = Problem(LINE, Beam(48.0, 2.0), ENDS)
    errors = []
    for n in (17, 33, 65):
        solution = sciml.solve(problem, solver, on=Grid((n,))) if solver else sciml.solve(
            problem, on=Grid((n,))
        )  # fmt: skip
        assert solution.converged and solution.on == Grid((n,), domain=LINE)
        errors.append(float(solution.error(lambda x: x**4 - 2 * x**3 + x)))
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert errors[-1] < 3e-4 and (np.abs(rates - 2) < 0.1).all()


def test_what_accompanies_a_new_equation_is_found() -> None:
    """The bending moment of the beam under a constant load is f x (1 - x) / 2, at the nodes too."""
    problem, grid = Problem(LINE, Beam(48.0, 2.0), ENDS), Grid((33,))
    value = sciml.solve(problem, Direct(), on=grid).value
    x = grid.bind(LINE).axes()[0]
    found = beside(problem, grid, value)
    assert list(found) == ["moment"]
    torch.testing.assert_close(found["moment"], 24 * x * (1 - x), rtol=1e-8, atol=1e-8)
    assert beside(replace(problem, equation=Pendulums()), grid, value) == {}


@pytest.mark.parametrize("solver", [Auto(rtol=1e-8), RungeKutta(rtol=1e-8)])
def test_a_new_equation_is_stepped_in_time(solver) -> None:
    """From rest at the angle a the period is 4 K(sin(a / 2)), K the complete elliptic integral."""
    angle = 2.0
    period = 4 * float(ellipk(np.sin(angle / 2) ** 2))
    problem = Problem(LINE, Pendulums(), ENDS, time=Time(period, frames=3), initial=angle)
    solution = sciml.solve(problem, solver, on=Grid((5,)))
    assert solution.converged
    expected = torch.tensor([angle, -angle, angle], dtype=torch.float64)[:, None].expand(3, 5)
    torch.testing.assert_close(solution.value, expected, rtol=1e-6, atol=1e-6)


SQUARE = Box((0.0, 0.0), (1.0, 1.0))
WALLS = {"all": Condition(dirichlet=0.0)}
GRID = Grid((9, 9))
MESH = Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0, 1, 2]]))
MOVING = {"time": Time(1.0), "initial": {"u": 0.0, "v": 0.0}}
PAIR = System({"u": Equation(d=1.0), "v": Equation(d=1.0)})


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (
            lambda: discretize(Problem(SQUARE, Elasticity(1.0), WALLS), GRID),
            "'elasticity' is solved as a linear system on meshes, not on grids",
        ),
        (
            lambda: discretize(Problem(SQUARE, Stokes(1.0), WALLS), GRID),
            "'stokes' is solved as a linear system on meshes, not on grids",
        ),
        (
            lambda: discretize(Problem(None, NavierStokes(1.0), WALLS), MESH),
            "'navier_stokes' is not of the coefficient form, stokes, helmholtz or elasticity; only "
            "such equations are solved as a linear system on meshes",
        ),
        (
            lambda: semidiscretize(Problem(SQUARE, NavierStokes(1.0), WALLS, **MOVING), GRID),
            "'navier_stokes' is stepped in time or solved by Newton's method on meshes, not on "
            "grids",
        ),
        (
            lambda: semidiscretize(Problem(None, Helmholtz(1.0), WALLS), MESH),
            "'helmholtz' is not of the coefficient form, a system, navier_stokes, stokes",
        ),
        (
            lambda: strong_form(Problem(SQUARE, Helmholtz(1.0), WALLS)),
            "'helmholtz' is not of the coefficient form, a system, navier_stokes or residual; only "
            "such equations are solved at points",
        ),
        (
            lambda: Dispatch("made").look_up(Beam(1.0), Grid),
            "'beam' is not made on grids; no equation is",
        ),
    ],
)
def test_what_is_not_registered_is_refused_and_what_is_is_listed(refused, message: str) -> None:
    with pytest.raises(InputError) as caught:
        refused()
    assert message in str(caught.value)
    assert caught.value.key == "problem.equation.kind"


def test_a_steady_system_is_told_to_take_time() -> None:
    """Newton's method meets the system that integrators take; it must not be asked for a start."""
    with pytest.raises(InputError, match="is solved in time: give time") as caught:
        sciml.solve(Problem(SQUARE, PAIR, WALLS), Newton(), on=GRID)
    assert caught.value.key == "problem.time"


def test_a_grid_is_no_word() -> None:
    with pytest.raises(InputError, match="on grids or on meshes, not on str"):
        discretize(Problem(SQUARE, Equation(), WALLS), "grid")


def test_without_a_place_a_grid_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"needs a grid .* on=Grid"):
        semidiscretize(Problem(LINE, Pendulums(), ENDS, time=Time(1.0), initial=1.0), None)


@pytest.mark.parametrize(
    ("equation", "initial", "fields", "linear", "complex_"),
    [
        (Equation(f="x"), (), ("u",), True, False),
        (Equation(f="u**2"), (), ("u",), False, False),
        (PAIR, ("u", "v"), ("u", "v"), False, False),
        (NavierStokes(1.0), ("u", "v"), ("u", "v", "p"), False, False),
        (NavierStokes(1.0), ("vorticity",), ("vorticity",), False, False),
        (Helmholtz(1.0), (), ("u",), True, True),
        (Elasticity(1.0), (), ("u", "v"), True, False),
    ],
)
def test_what_equations_say_of_themselves(equation, initial, fields, linear, complex_) -> None:
    assert equation.fields(2, initial) == fields
    assert equation.linear is linear
    assert equation.complex is complex_


def test_every_equation_of_the_house_is_solved_somewhere() -> None:
    from sciml.solvers.flow.solver import flows

    known = {e for asked in (discretises, semidiscretises, flows) for e, _ in asked.functions}
    assert {Equation, System, NavierStokes, Helmholtz, Elasticity} <= known


def asks_for_a_type(tree: ast.AST, types: set[str]) -> list[int]:
    """Lines that ask which type an equation is: isinstance, issubclass, type(...) is, case."""

    def names(node: ast.AST) -> set[str]:
        found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}

    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            asked = node.func.id in ("isinstance", "issubclass") and names(node.args[1]) & types
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Call):
            called = isinstance(node.left.func, ast.Name) and node.left.func.id == "type"
            asked = called and set().union(*map(names, node.comparators)) & types
        elif isinstance(node, ast.MatchClass):
            asked = names(node.cls) & types
        else:
            continue
        if asked:
            lines.append(node.lineno)
    return lines


TYPES = {"AnyEquation"} | {
    name
    for name, entry in vars(equations).items()
    if inspect.isclass(entry) and get_origin(entry) is None and issubclass(entry, PDE)
}
FOLDERS = ("sciml", "solvers", "operators", "datasets")
SOURCES = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))


def test_no_module_asks_which_type_an_equation_is() -> None:
    assert len(TYPES) == 11 and len(SOURCES) > 100
    found = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := asks_for_a_type(ast.parse(path.read_text()), TYPES))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "isinstance(problem.equation, Helmholtz)",
        "isinstance(e, (Equation, equation.System))",
        "type(problem.equation) is Elasticity",
        "type(e) in (NavierStokes, System)",
        "match e:\n    case Helmholtz():\n        pass",
    ],
)
def test_the_rule_on_types_catches_what_it_should(line: str) -> None:
    assert asks_for_a_type(ast.parse(line), TYPES)
    assert not asks_for_a_type(ast.parse("isinstance(problem, LinearSystem)"), TYPES)
