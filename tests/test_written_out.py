"""Equations that are written out: derivatives of any order, two conditions a side, integrals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import sciml
from sciml import Box, Condition, Equation, Grid, InputError, Integral, Problem, Time, WrittenOut
from sciml.core.problem.equation import derivative
from sciml.core.problem.expression import parse
from sciml.core.problem.reader import Unknown
from sciml.discretization.points.jet import jet_of
from sciml.discretization.points.strong import strong_form
from sciml.solvers.exact import check_exact
from sciml.solvers.trained import PINN, GaussNewton, RandomFeatures

LINE, HELD = Box((0.0,), (1.0,)), Condition(dirichlet=0.0)
ENDS = {"left": HELD, "right": HELD}


def features(count: int = 100, rtol: float = 1e-9) -> RandomFeatures:
    return RandomFeatures(count=count, rtol=rtol, bandwidths=(4.0,))


def test_a_sum_is_taken_apart_without_changing_its_value() -> None:
    text = "-(a - 2*b)*(a + c)/(1 + b**2) + 3 - (a + b)**2"
    whole = parse(text, ("a", "b", "c"))
    values = {n: torch.rand(5, dtype=torch.float64) for n in "abc"}
    assert len(whole.terms) == 6
    total = sum(term(**values) for term in whole.terms)
    torch.testing.assert_close(total, whole(**values), rtol=1e-14, atol=1e-14)


def test_derivatives_are_told_by_their_names() -> None:
    assert derivative("uxxt", ("u", "v"), ("x", "y", "t")) == (0, (0, 0, 2))
    assert derivative("vyx", ("u", "v"), ("x", "y", "t")) == (1, (0, 1))
    assert derivative("ux10x1", ("u",), tuple(f"x{k + 1}" for k in range(10))) == (0, (0, 9))
    assert derivative("u", ("u",), ("x",)) is None
    assert derivative("uz", ("u",), ("x", "y")) is None


def test_what_is_written_out_is_what_the_coefficient_form_says() -> None:
    """Burgers with a source, a wave and a system: the same residual of the same function."""
    box = Box((0.0, 0.0), (1.0, 1.0))
    sides = dict.fromkeys(box.sides, HELD)
    time: dict = {"time": Time(1.0), "initial": 0.0}
    K = "1 + x*y + u**2"
    known = Problem(box, Equation(d=1.0, K=K, b=("u", "2"), c="t", f="sin(x)"), sides, **time)
    text = (
        f"ut - ({K})*(uxx + uyy) - (y + 2*u*ux)*ux - (x + 2*u*uy)*uy + u*ux + 2*uy + t*u - sin(x)"
    )
    written = Problem(box, WrittenOut((text,)), sides, **time)
    x = torch.rand(7, 3, dtype=torch.float64)

    def u(p: torch.Tensor) -> torch.Tensor:
        return (torch.sin(p @ p.new_tensor([2.0, -1.0, 3.0])) + p[:, 0] * p[:, 2] ** 2)[:, None]

    found = []
    for problem in (known, written):
        form = strong_form(problem)
        found.append(form.residual(x, jet_of(u, x, form.pairs)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_a_clamped_beam_to_rounding_with_its_moment() -> None:
    clamped, free = Condition(residuals=("u", "ux")), Condition(residuals=("uxx", "uxxx"))
    sides = {"left": clamped, "right": free}
    problem = Problem(LINE, WrittenOut(("k*uxxxx - 48",)), sides, parameters={"k": 2.0})
    solution = sciml.solve(problem, features(), on=Grid((33,)))
    assert solution.error(lambda x: x**2 * (x**2 - 4 * x + 6)) < 1e-11
    moment = solution.quantity(at=(0.0,), of="k*uxx")  # at the wall, q L^2 / 2
    assert float(moment) == pytest.approx(24.0, rel=1e-9)


def test_a_plate_with_mixed_derivatives() -> None:
    box = Box((0.0, 0.0), (1.0, 1.0))

    def plate(uxxxx, uxxyy, uyyyy, x, y):  # type: ignore[no-untyped-def]
        load = 4 * math.pi**4 * torch.sin(math.pi * x) * torch.sin(math.pi * y)
        return uxxxx, 2 * uxxyy, uyyyy, -load

    held = Condition(residuals=("u", "uxx + uyy"))
    problem = Problem(box, WrittenOut((plate,)), dict.fromkeys(box.sides, held))
    solution = sciml.solve(problem, features(150, 1e-5), on=Grid((9, 9)))
    exact = lambda x, y: torch.sin(math.pi * x) * torch.sin(math.pi * y)  # noqa: E731
    assert solution.error(exact) < 1e-6


def test_ordinary_differential_equations_have_no_domain(tmp_path) -> None:  # type: ignore[no-untyped-def]
    equation = WrittenOut(("ut - v", "vt + u"), ("u", "v"))
    problem = Problem(None, equation, time=Time(6.0, frames=7), initial={"u": 1.0, "v": 0.0})
    solution = sciml.solve(problem, features(100, 1e-10))
    t = solution.times
    wanted = torch.stack([torch.cos(t), -torch.sin(t)], 1)
    assert (solution.value[..., 0] - wanted).abs().max() < 1e-11
    solution.save(tmp_path)
    kept = sciml.load_function(tmp_path)
    torch.testing.assert_close(kept(t[:, None]), solution.value[..., 0], rtol=0, atol=1e-14)


def test_a_nonlinear_oscillator_as_scipy_has_it() -> None:
    problem = Problem(
        None, WrittenOut(("utt + 0.1*ut + sin(u)",)), time=Time(4.0, frames=5),
        initial={"u": 1.2, "ut": 0.0},
    )  # fmt: skip
    solver = PINN(width=16, depth=2, points=150, rtol=1e-5, optimiser=GaussNewton(150))
    solution = sciml.solve(problem, solver)
    known = solve_ivp(
        lambda t, y: (y[1], -0.1 * y[1] - np.sin(y[0])), (0, 4), (1.2, 0), rtol=1e-11, atol=1e-12,
        t_eval=np.linspace(0, 4, 5),
    )  # fmt: skip
    assert np.abs(solution.value[:, 0].numpy() - known.y[0]).max() < 1e-5


def test_an_integral_over_what_was_before() -> None:
    """u' + u = int_0^x e^(s - x) u ds, u(0) = 1 (Volterra): e^-x cosh x."""
    memory = {"memory": Integral("exp(s - x)*u", 0.0, "x")}
    sides = {"left": Condition(dirichlet=1.0), "right": Condition(residuals=())}
    box = Box((0.0,), (2.0,))
    problem = Problem(box, WrittenOut(("ux + u - memory",), integrals=memory), sides)
    solution = sciml.solve(problem, features(60), on=Grid((17,)))
    assert solution.error(lambda x: torch.exp(-x) * torch.cosh(x)) < 1e-9


def test_an_integral_over_the_whole_interval_with_a_derivative() -> None:
    """u'' = 2 - int_0^1 u' ds + (u(1) - u(0)): x (x - 1), whatever the last two terms are."""
    whole = {"rise": Integral("s*ux", 0.0, 1.0)}
    problem = Problem(LINE, WrittenOut(("uxx - 2 + rise - 1/6",), integrals=whole), ENDS)
    solution = sciml.solve(problem, features(60), on=Grid((17,)))
    assert solution.error(lambda x: x * (x - 1)) < 1e-10


def test_a_parameter_is_found_from_readings() -> None:
    problem = Problem(
        LINE, WrittenOut(("k*uxx - 1",)), ENDS, parameters={"k": Unknown(0.5)},
        observations={"x": (0.25, 0.5), "u": (-0.046875, -0.0625)},
    )  # fmt: skip
    solution = sciml.solve(problem, features(60, 1e-5), on=Grid((17,)))
    assert solution.parameters["k"] == pytest.approx(2.0, rel=1e-6)


def test_auto_trains_what_is_linear_first_and_says_so() -> None:
    problem = Problem(LINE, WrittenOut(("uxx - exp(x)",)), ENDS)
    solution = sciml.solve(problem, on=Grid((17,)))
    assert solution.status.success
    assert any("random_features" in note for note in solution.notes)


def test_an_exact_solution_that_is_none_is_refused() -> None:
    sides = {"left": Condition(residuals=("u",)), "right": Condition(residuals=("ux - 1",))}
    right = Problem(LINE, WrittenOut(("uxx - 1",)), sides, exact="x**2/2")
    assert check_exact(right, Grid((9,))) == ()
    for wrong, where in (("x**2", "the equation"), ("x**2/2 + x/100", "the condition on right")):
        with pytest.raises(InputError, match=where):
            check_exact(Problem(LINE, WrittenOut(("uxx - 1",)), sides, exact=wrong), Grid((9,)))


def _solved(equation: WrittenOut, **more) -> None:  # type: ignore[no-untyped-def]
    sciml.solve(Problem(LINE, equation, ENDS, **more), PINN(points=20), on=Grid((9,)))


@pytest.mark.parametrize(
    ("equation", "key", "message"),
    [
        (WrittenOut(("uxx",)), "residuals[0]", "one term"),
        (WrittenOut(("ut - uxx",)), "residuals[0]", "no time"),
        (WrittenOut(("uyy - uxx",)), "residuals[0]", "no such coordinate"),
        (WrittenOut(("uxx - q",)), "residuals[0]", "unknown name 'q'"),
        (WrittenOut(("uxxxxxxxxx - 1",)), "residuals", "order 9"),
        (WrittenOut((lambda uxx: uxx - 1,)), "residuals[0]", "must return its terms"),
        (WrittenOut((lambda uxx, q: (uxx, q),)), "residuals[0]", "takes 'q'"),
        (WrittenOut((3.0,)), "residuals[0]", "text or a function"),
        (WrittenOut(("uxx - I",), integrals={"I": Integral("u", 0, 1, "y")}), "I.along", "no axis"),
        (WrittenOut(("uxx - I",), integrals={"I": Integral("q", 0, 1)}), "I.of", "unknown name"),
        (WrittenOut(("uxx - I",), integrals={"I": Integral("u", 0, 3)}), "I", "leaves the domain"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said(equation: WrittenOut, key: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _solved(equation)
    assert (caught.value.key or "").endswith(key)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WrittenOut(()), "is a list"),
        (lambda: WrittenOut(("u - 1",), ("u", "ux")), "derivative of another"),
        (lambda: WrittenOut(("u - 1",), ("u", "u")), "two functions"),
        (lambda: Problem(LINE, WrittenOut(("uxx + v",), ("u", "v")), ENDS), "2 functions need as"),
        (lambda: WrittenOut(("u - ux",), integrals={"ux": Integral("u", 0, 1)}), "is taken"),
        (lambda: Integral("u", 0, 1, points=0), "1 to 1000"),
        (lambda: Problem(LINE, WrittenOut(("uxx - 1",)), {**ENDS, "left": Condition(neumann=0.0)}),
         "says nothing of a flux"),
        (lambda: Problem(LINE, Equation(), {**ENDS, "left": Condition(residuals=("u",))}),
         "kind residual"),
        (lambda: Problem(None, WrittenOut(("ut + u",))), "functions of t alone"),
        (lambda: _solved(WrittenOut(("uxx - ux",)), parameters={"ux": 1.0}), "name is taken"),
        (lambda: sciml.solve(Problem(None, WrittenOut(("ut + u",)), time=Time(1.0), initial=1.0),
                             PINN(points=9), on=Grid((9,))), "no place"),
        (lambda: sciml.solve(Problem(LINE, WrittenOut(("uxx - 1",)), ENDS), sciml.solvers.CG(),
                             on=Grid((9,))), "residual"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        make()


def test_functions_of_time_go_on_from_window_to_window() -> None:
    """u'' = -u from numbers, texts or functions of nothing; each window from values and slopes."""
    for first in (0.0, "0", lambda: 0.0):
        problem = Problem(
            None,
            WrittenOut(("utt + u",)),
            time=Time(9.0, frames=10),
            initial={"u": first, "ut": 1.0},
        )
        solver = RandomFeatures(count=30, rtol=1e-9, bandwidths=(3.0,), windows=6)
        solution = sciml.solve(problem, solver)
        t = torch.linspace(0, 9, 50, dtype=torch.float64)[:, None]
        assert solution.function is not None
        torch.testing.assert_close(solution.function(t), t.sin(), rtol=0, atol=1e-9)


def test_unknowns_beside_an_integral_and_in_its_kernel() -> None:
    """u' + u = k int_0^x exp(r (s - x)) u(s) ds, u(0) = a: all three from twelve readings."""
    x = torch.linspace(0.2, 4.8, 12, dtype=torch.float64)
    memory = Integral("exp(r*(s - x))*u", 0.0, "x")
    problem = Problem(
        Box((0.0,), (5.0,)),
        WrittenOut(("ux + u - k*memory",), integrals={"memory": memory}),
        {"left": Condition(dirichlet="a"), "right": Condition(residuals=())},
        parameters={"k": Unknown(0.7), "r": Unknown(1.3), "a": Unknown(0.8)},
        observations={"x": x, "u": torch.exp(-x) * torch.cosh(x)},
    )
    solution = sciml.solve(problem, features(40, 1e-8), on=Grid((9,)))
    assert solution.parameters == pytest.approx({"k": 1.0, "r": 1.0, "a": 1.0}, abs=1e-8)
    objective = PINN(width=4, depth=1, points=9).init(problem, Grid((9,))).objective
    cubes = [torch.rand(7, piece.free, dtype=torch.float64) for piece in objective.pieces]
    objective.place([p.place(c) for p, c in zip(objective.pieces, cubes, strict=True)])
    theta, h = objective.theta, 1e-6
    _, J = objective.jacobian()
    for k in range(len(theta)):
        ends = []
        for sign in (1, -1):
            moved = theta.clone()
            moved[k] += sign * h
            objective.assign(moved)
            ends.append(objective.vector())
        torch.testing.assert_close(J[:, k], (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-8)
    moving = replace(memory, upper="k")
    wrong = replace(problem, equation=WrittenOut(("ux - m",), integrals={"m": moving}))
    with pytest.raises(InputError, match="end cannot be unknown"):
        sciml.solve(wrong, features(), on=Grid((9,)))
