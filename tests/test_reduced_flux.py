"""A flux on grids where it is that of the coefficient form: the same systems, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sciml
from sciml import Box, Condition, Equation, Grid, InputError, Problem, Time
from sciml.core.problem.expression import linear_parts
from sciml.discretization import semidiscretize

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
SIDES = {
    "left": Condition(dirichlet=1.0),
    "right": Condition(neumann=0.0),
    "bottom": Condition(dirichlet="x"),
    "top": Condition(robin=sciml.Robin(2.0, "1 + x")),
}


@pytest.mark.parametrize(
    ("flux", "source", "form"),
    [
        (("k*ux", "k*uy"), "sin(x) - 2*u", Equation(K="k", c=2.0, f="sin(x)")),
        (("(1 + u**2)*ux", "(1 + u**2)*uy"), "u**3 - x", Equation(K="1 + u**2", f="u**3 - x")),
        (("(ux*2 - -ux)/4*(1 + x)", "uy"), "y", Equation(K=("0.75*(1 + x)", 1.0), f="y")),
        (("2*ux + y*uy", "y*ux + 3*uy"), 1.0, Equation(K=((2.0, "y"), ("y", 3.0)), f=1.0)),
        (("ux", "uy"), "1 - 3*ux - u*uy", Equation(b=(3.0, "u"), f=1.0)),
    ],
)
@pytest.mark.parametrize("centring", ["node", "cell"])
def test_both_ways_of_writing_it_are_one(
    flux: Any, source: Any, form: Equation, centring: Any
) -> None:
    if isinstance(form.K, tuple) and isinstance(form.K[0], tuple) and centring == "cell":
        pytest.skip("a full tensor needs nodes")
    grid = Grid((6, 5), centring=centring)
    given = {"k": 0.7}
    systems = [
        semidiscretize(Problem(SQUARE, equation, SIDES, parameters=given), grid)
        for equation in (form, Equation(flux=flux, source=source))
    ]
    u = torch.rand(
        systems[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    first, second = (system.residual(u, 0.0) for system in systems)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_it_is_solved_and_stepped() -> None:
    grid, moving, still = Grid((9, 9)), [], []
    written: list[dict[str, Any]] = [
        {"K": "1 + u", "c": 1.0},
        {"flux": ("ux*(1 + u)", "(1 + u)*uy"), "source": "-u"},
    ]
    for form in written:
        problem = Problem(SQUARE, Equation(d=1.0, **form), SIDES, time=Time(0.02), initial="x")
        moving.append(sciml.solve(problem, on=grid).value[-1])
        still.append(sciml.solve(Problem(SQUARE, Equation(**form), SIDES), on=grid).value)
    torch.testing.assert_close(moving[0], moving[1], rtol=0, atol=1e-9)
    torch.testing.assert_close(still[0], still[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("flux", "source", "told", "key"),
    [
        (("ux**3", "uy"), 0.0, "'ux ** 3' is not linear in ux", "flux.0"),
        (("ux", "sqrt(1 + ux**2)*uy"), 0.0, "is not linear in ux, uy", "flux.1"),
        (("ux - u", "uy"), 0.0, "has a part without a slope", "flux.0"),
        (("ux", "uy"), "ux**2", "'ux ** 2' is not linear in ux", "source"),
        ((lambda x, y, ux: ux, "uy"), 0.0, "of texts; this is none: use a mesh", "flux.0"),
    ],
)
def test_what_is_no_coefficient_form_is_said(flux: Any, source: Any, told: str, key: str) -> None:
    problem = Problem(SQUARE, Equation(flux=flux, source=source), SIDES)
    with pytest.raises(InputError) as error:
        sciml.solve(problem, on=Grid((6, 5)))
    assert told in error.value.message and error.value.key == f"problem.equation.{key}"


def test_parts_of_a_text_add_up() -> None:
    text = "a*(2*p - q/(1 + x)) - (-p)*3 + x*a - +q"
    parts = linear_parts(text, ["p", "q"])
    assert set(parts) == {"", "p", "q"}
    at = {"a": 1.3, "x": 0.4, "p": -0.7, "q": 2.1}
    whole, each = (
        eval(t, {}, at) for t in (text, f"{parts['']} + p*({parts['p']}) + q*({parts['q']})")
    )
    assert whole == pytest.approx(each, rel=1e-14)
