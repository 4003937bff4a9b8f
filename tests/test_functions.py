"""Python functions as coefficients: on grids, on meshes and at points, with the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from sciml import Box, Condition, Equation, Grid, Problem
from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.functions import call_named, named_arguments
from sciml.core.mesh import Mesh
from sciml.core.pointwise import Pointwise

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
WALLS = dict.fromkeys(SQUARE.sides, Condition(dirichlet=0.0))
GRID = Grid((9, 8))
# Four triangles around the centre of the square.
MESH = Mesh(
    np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], dtype=float),
    np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]),
    {},
    {"left": np.array([[0, 3]]), "rest": np.array([[0, 1], [1, 2], [2, 3]])},
)
ROUND = {"left": Condition(dirichlet=0.0), "rest": Condition(neumann=0.0)}


def product(K: Any, parameters: dict[str, Any], on: Grid | Mesh = GRID) -> torch.Tensor:
    """-div(K grad .) times a fixed vector, on a grid or on the elements of a mesh."""
    domain, sides = (SQUARE, WALLS) if isinstance(on, Grid) else (None, ROUND)
    A = discretize(Problem(domain, Equation(K=K), sides, parameters=parameters), on).A
    return A.apply(torch.linspace(0, 1, A.size, dtype=torch.float64).reshape(A.shape).sin())


@pytest.mark.parametrize("on", [GRID, MESH], ids=["grid", "mesh"])
@pytest.mark.parametrize("contrast", [3.0, [1.0, 2.0, 5.0]], ids=["one", "batch"])
def test_a_function_sees_the_parameters_as_an_expression_does(
    contrast: float | list[float], on: Grid | Mesh
):
    written = product("1 + contrast*x*y", {"contrast": contrast}, on)
    called = product(lambda x, y, contrast: 1 + contrast * x * y, {"contrast": contrast}, on)
    torch.testing.assert_close(called, written, rtol=0, atol=0)


def test_the_same_at_points():
    problem = Problem(SQUARE, Equation(), WALLS, parameters={"k": 2.0})
    at = Pointwise(problem, parameters={"k": 2.0})
    points = torch.rand(5, 2, dtype=torch.float64)
    called = at(lambda x, y, k: k * x + y, "problem.equation.f", points)
    torch.testing.assert_close(called, at("k*x + y", "problem.equation.f", points))


def test_a_default_stands_where_nothing_has_the_name():
    torch.testing.assert_close(product(lambda x, y, k=2.0: k + x, {}), product("2 + x", {}))


def wrong_name(x: Any, y: Any, contrst: Any) -> Any:
    return contrst + x + y


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (wrong_name, "missing a required argument: 'contrst'"),
        (lambda x: x, "given 2 coordinates"),
        (lambda x, y, t: x + t, "takes 't': this problem has no time"),
        (lambda x, y, u: u, "takes 'u': the solution cannot stand here"),
    ],
)
def test_what_cannot_be_called_is_one_line_with_the_key(function: Callable[..., Any], said: str):
    with pytest.raises(InputError, match=said) as raised:
        product(function, {"contrast": 2.0})
    assert raised.value.key is not None
    assert "problem.equation.K" in raised.value.key


def test_names_after_the_coordinates():
    assert named_arguments(lambda x, y, t, *, k: 0, 2) == {"t", "k"}
    assert named_arguments(lambda *x, k: 0, 3) == {"k"}
    assert named_arguments(torch.sin, 1) == frozenset()
    assert call_named(abs, (-3.0,), {"k": 1.0}, {}, "key") == 3.0
