"""Python functions as coefficients: on grids, on meshes and at points, with the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from sciml import Box, Condition, Equation, Grid, Problem
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.reader import Context, compile
from sciml.discretization import discretize
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.volumes.coefficients import data, depends_on, evaluate
from sciml.discretization.volumes.layout import layout

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
        (wrong_name, "takes 'contrst'.*did you mean 'contrast'"),
        (lambda x, y, _z: x, "takes '_z', which is neither a name"),
        (lambda x, y, t: x + t, "takes 't': this problem has no time"),
        (lambda x, y, u: u, "takes 'u': the solution cannot stand here"),
    ],
)
def test_what_cannot_be_called_is_one_line_with_the_key(function: Callable[..., Any], said: str):
    with pytest.raises(InputError, match=said) as raised:
        product(function, {"contrast": 2.0})
    assert raised.value.key is not None
    assert "problem.equation.K" in raised.value.key


CONTEXT = Context(("x", "y"), True, ("u", "ux"), ("k",), refused=(("v", "there is no v"),))


@pytest.mark.parametrize(
    ("function", "names", "right"),
    [
        (lambda x, y, t, *, k: t * k, {"x", "y", "t", "k"}, 20.0),
        (lambda y, u: y + u, {"y", "u"}, 7.0),
        (lambda u: u, {"u"}, 4.0),
        (lambda a, b: a - 2 * b, {"x", "y"}, -5.0),
        (lambda a, t: a * t, {"x", "t"}, 2.0),
        (lambda *p, k: p[0] + p[1] * k, {"x", "y", "k"}, 31.0),
        (lambda x, *rest: len(rest) * x, {"x", "y"}, 1.0),
        (lambda u, *p: len(p) * u, {"x", "y", "u"}, 8.0),
        (lambda u, scale=3.0: scale * u, {"u"}, 12.0),
        (lambda u, v=3.0: v * u, {"u"}, 12.0),
        (partial(lambda x, q, k: q * k, q=3.0), {"x", "k"}, 30.0),
        (torch.add, {"x", "y"}, 4.0),
    ],
)
def test_arguments_go_by_their_names_and_the_others_by_their_places(
    function: Callable[..., Any], names: set[str], right: float
):
    x, y, t, u, ux, k = (
        torch.tensor(v, dtype=torch.float64) for v in (1.0, 3.0, 2.0, 4.0, 5.0, 10.0)
    )
    read = compile(function, CONTEXT, "key")
    assert read.names == names
    assert float(read.at((x, y), {"t": t, "u": u, "ux": ux, "k": k})) == right


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda v: v, "takes 'v': there is no v"),
        (lambda u, a: a, "takes 'a', which is neither"),
        (lambda y, a: a, "takes 'a', which is neither"),
        (lambda a, b, c: a, "takes 'c', which is neither"),
        (lambda a, z: a, "takes 'z', which is neither"),
        (lambda x, *, uk: x, "takes 'uk', which is neither"),
        (torch.sin, "cannot take the 2 coordinates"),
        (lambda x: "1", "returned a str"),
        (lambda x: torch.zeros(3), "returned shape"),
    ],
)
def test_what_a_function_cannot_be_given_is_refused(function: Callable[..., Any], said: str):
    with pytest.raises(InputError, match=said) as raised:
        compile(function, CONTEXT, "key").at((torch.ones(5), torch.ones(5)), {})
    assert raised.value.key == "key"


def test_a_number_that_a_function_returns_keeps_its_digits():
    value = compile(lambda x: 0.1, CONTEXT, "key").at((torch.ones(5), torch.ones(5)), {})
    assert float(value) == 0.1


def test_further_names_may_be_known_at_a_place():
    problem = Problem(SQUARE, Equation(), WALLS)
    lay = layout(problem, GRID.bind(SQUARE), torch.float64, "cpu")
    info = data(problem, lay, torch.float64, torch.device("cpu"))
    side = replace(info, variables={"nx": torch.tensor(-1.0), "w": info.own[0]})
    for coefficient in ("nx*w + y", lambda x, y, nx, w: nx * w + y, lambda w, y, *, nx: nx * w + y):
        value = evaluate(coefficient, info.own, side, "problem.boundary.left.neumann")
        torch.testing.assert_close(value, info.own[1] - info.own[0], rtol=0, atol=0)
        assert depends_on(coefficient, side, "key") == {"w"}
        assert "nx" in compile(coefficient, side.context, "key").names
    with pytest.raises(InputError, match="normal is known in the data of a side"):
        evaluate("nx", info.own, info, "problem.equation.K")
