"""Jets to the fourth derivative, and the equations that need them, at points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sciml
from sciml import Box, Condition, Equation, Grid, Problem, Time
from sciml.core.errors import InputError
from sciml.core.problem.grid import Points
from sciml.discretization.points.jet import closed, coordinates, jet_of
from sciml.discretization.points.strong import strong_form
from sciml.solvers import ETDRK4
from sciml.solvers.trained import PINN, Gaussians, RandomFeatures
from sciml.solvers.trained.correction import _functions

FOURTH = closed([(0, 0, 0, 0), (0, 0, 1, 1), (1, 1, 1, 2)])
RING = Box((0.0,), (2 * math.pi,))
SQUARE = Box((0.0, 0.0), (2 * math.pi, 2 * math.pi))


def around(box: Box) -> dict[str, Condition]:
    return dict.fromkeys(box.sides, Condition(periodic=True))


def cloud(count: int, dimension: int) -> Tensor:
    return torch.rand(count, dimension, dtype=torch.float64, generator=torch.manual_seed(0))


def test_closed_holds_what_a_derivative_is_made_of() -> None:
    assert closed([(0, 1, 1)]) == ((0, 1), (1, 1), (0, 1, 1))
    assert closed([(2, 2), (0, 0)]) == ((0, 0), (2, 2))


@pytest.mark.parametrize("sine", [True, False], ids=["sin", "tanh"])
def test_products_and_functions_have_all_derivatives_of_the_chain(sine: bool) -> None:
    """Against reverse mode, four times over."""
    x = cloud(6, 3)

    def inner(y: Tensor) -> Tensor:
        phase = y[:, 0] * y[:, 1] + (y[:, 2] * y[:, 1]).sin() + y[:, 0] ** 3
        return torch.stack([phase, (y[:, 0] - y[:, 2]).exp() * y[:, 1]], -1)

    plain = coordinates(x, FOURTH)
    assert float(plain.data[4:].abs().max()) == 0
    jet = jet_of(inner, x, FOURTH)
    network = PINN(width=2, depth=1, activation="sin" if sine else "tanh")
    activation = network.init(
        Problem(SQUARE, Equation(), around(SQUARE)), Points(3)
    ).objective.ansatz.network.activation
    outer: Callable[[Tensor], Tensor] = torch.sin if sine else torch.tanh
    wanted = jet_of(lambda y: outer(inner(y)), x, FOURTH)
    torch.testing.assert_close(activation(jet).data, wanted.data, rtol=1e-10, atol=1e-9)
    product = jet_of(lambda y: inner(y) * inner(y).flip(1), x, FOURTH)
    found = jet * jet.like(jet.data.flip(-1))
    torch.testing.assert_close(found.data, product.data, rtol=1e-10, atol=1e-9)


def test_legendre_and_fourier_functions_have_their_derivatives() -> None:
    s = (2 * cloud(5, 1)[:, 0] - 1).requires_grad_()
    for ring in (True, False):
        found = _functions(s, 8, ring)
        for below, above in pairwise(found):
            for k in range(1, 8):
                whole = below[:, k].sum() + 0 * s.sum()  # a constant has no graph of its own
                (slope,) = torch.autograd.grad(whole, s, retain_graph=True)
                torch.testing.assert_close(slope, above[:, k], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("equation", "box", "u"),
    [
        (Equation(d=1.0, K=0.0, b=("u",), dispersion="0.3"), RING,
         lambda y: torch.sin(y[:, 0] - 0.7 * y[:, 1])),
        (Equation(d=1.0, biharmonic=0.2, K=-1.0), RING,
         lambda y: torch.sin(2 * y[:, 0]) * y[:, 1].cos()),
        (Equation(K=0.0, biharmonic="g", c=1.0), SQUARE,
         lambda y: torch.sin(y[:, 0]) * torch.cos(2 * y[:, 1])),
    ],
    ids=["third", "fourth", "plate"],
)  # fmt: skip
def test_the_residual_of_any_function_is_the_equation(
    equation: Equation, box: Box, u: Callable[[Tensor], Tensor]
) -> None:
    """Term by term, by what sines are known to be."""
    timed = equation.d != 0.0
    problem = Problem(box, equation, around(box), parameters={"g": 0.5})
    if timed:
        problem = Problem(box, equation, around(box), time=Time(1.0), initial=0.0)
    form, x = strong_form(problem), cloud(7, 2)
    jet = jet_of(lambda y: u(y)[:, None], x, form.pairs)
    v, ux = jet.value[:, 0], jet.gradient[0, :, 0]
    if equation.dispersion != 0.0:
        wanted = jet.gradient[1, :, 0] + v * ux - 0.3 * ux
    elif box is RING:
        wanted = jet.gradient[1, :, 0] + 0.2 * 16 * v - 4 * v
    else:
        wanted = 0.5 * 25 * v + v
    torch.testing.assert_close(form.residual(x, jet)[:, 0], wanted)


def test_a_plate_is_found() -> None:
    """Lap^2 u + u = f on a torus."""
    f = "26*sin(x)*cos(2*y)"
    plate = Problem(SQUARE, Equation(K=0.0, biharmonic=1.0, c=1.0, f=f), around(SQUARE))
    solver = RandomFeatures(count=150, bandwidths=(1.0,), rtol=1e-4)
    solution = sciml.solve(plate, solver, on=Grid((9, 9), "cell"), throw=False)
    error = float(solution.error(lambda x, y: x.sin() * (2 * y).cos()))
    assert solution.converged and error < 1e-3


@pytest.mark.parametrize(
    ("equation", "start", "end"),
    [
        (Equation(kind="kdv"), "cos(x)", 0.1),
        (Equation(kind="kuramoto_sivashinsky"), "cos(x) + 0.3*sin(2*x)", 0.5),
    ],
    ids=["kdv", "kuramoto_sivashinsky"],
)
def test_waves_agree_with_the_exponential_integrator(
    equation: Equation, start: str, end: float
) -> None:
    problem = Problem(RING, equation, around(RING), time=Time(end, frames=3), initial=start)
    on = Grid((64,), "cell")
    wanted = sciml.solve(problem, ETDRK4(), on=on)
    solver = RandomFeatures(count=200, bandwidths=((4.0, 3.0),))
    found = sciml.solve(problem, solver, on=on, throw=False)
    assert float((found.value - wanted.value).abs().max()) < 2e-3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"boundary": dict.fromkeys(RING.sides, Condition(0.0))}, "all sides are periodic"),
        ({"domain": SQUARE, "boundary": around(SQUARE)}, "one dimension"),
    ],
)
def test_what_has_too_few_conditions_is_refused(change: dict[str, Any], told: str) -> None:
    problem = Problem(
        RING, Equation(d=1.0, dispersion=1.0), around(RING), time=Time(1.0), initial="0"
    )
    with pytest.raises(InputError, match=told) as caught:
        strong_form(replace(problem, **change))
    assert caught.value.key == "problem.equation.dispersion"
    with pytest.raises(InputError, match="derivatives to the second"):
        Gaussians(count=5).init(problem, Points(4))
