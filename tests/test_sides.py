"""Conditions on sides, wherever they stand: their data name u, t, other fields, the normal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skfem
import torch
from test_mesh import unit_mesh

from sciml import (
    Box,
    Condition,
    Elasticity,
    Equation,
    Grid,
    Helmholtz,
    Mesh,
    NavierStokes,
    Obstacle,
    Problem,
    Robin,
    System,
    Table,
    Time,
    discretize,
    load_spec,
    solve,
)
from sciml.app.formula import statement
from sciml.core.errors import InputError
from sciml.core.problem.grid import Points
from sciml.core.run.serialise import dump
from sciml.discretization import semidiscretize
from sciml.discretization.fields import values_on
from sciml.discretization.points.jet import jet_of
from sciml.discretization.points.strong import strong_form
from sciml.solvers import ETDRK4, SDIRK, Auto, Gaussians, Newton, Picard, Projection
from sciml.solvers.trained.conditions import built_in, pieces

BOX = Box((0.0, 0.0), (1.0, 1.0))
U = "1 + 0.5*x + 0.25*sin(2*x) + 0.3*y**2"
UX, UY = "(0.5 + 0.5*cos(2*x))", "0.6*y"
K = "(1 + 0.3*x)"
FLUX = f"{K}*({UX}*nx + {UY}*ny)"
F = f"-(0.3*{UX} + {K}*(-sin(2*x) + 0.6))"
RADIATES = Condition(robin=Robin("1 + u**3", f"{FLUX} + (1 + ({U})**3)*({U})"))
NEUMANN = Condition(neumann=f"{FLUX} - 0.5*(u**2 - ({U})**2)")
GIVEN = Condition(dirichlet=U)
FLOW = {"time": Time(0.1), "initial": {"u": 0.0, "v": 0.0}}
SIDES = {"left": RADIATES, "right": NEUMANN, "bottom": RADIATES, "top": GIVEN}


def radiating(places: list, sides: dict[str, Condition], obstacle: Obstacle | None = None) -> list:
    """Errors of the manufactured solution U, whose sides, or rim, radiate."""
    errors = []
    for place in places:
        on_mesh = not isinstance(place, Grid)
        problem = Problem(None if on_mesh else BOX, Equation(K=K, f=F), sides, obstacle, exact=U)
        assert not problem.linear
        solution = solve(problem, Newton(rtol=1e-10), on=place)
        if on_mesh:
            errors.append(float(solution.error(lambda x, y: values_of(x, y))))
        else:
            gap = solution.value - values_on(problem, place.bind(BOX), U, "exact")
            errors.append(float(gap[~gap.isnan()].square().mean().sqrt()))
    return errors


def values_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 1 + 0.5 * x + 0.25 * (2 * x).sin() + 0.3 * y**2


@pytest.mark.parametrize(("element", "order"), [("P1", 2), ("P2", 3)])
def test_a_mesh_radiates_at_the_order_of_its_elements(element: str, order: int):
    errors = radiating([unit_mesh(n, 2, element) for n in (4, 8, 16)], SIDES)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_a_rim_radiates_as_accurately_as_where_it_is_linear(centring: str):
    inside, walls = "(x - 0.5)**2 + (y - 0.45)**2 < 0.05", dict.fromkeys(BOX.sides, GIVEN)
    grids = [Grid((n, n), centring) for n in (17, 33, 65)]
    errors = radiating(grids, walls, Obstacle(inside, RADIATES))
    assert math.log2(errors[0] / errors[2]) / 2 > 1.6
    # With alpha frozen at the answer the linear discretisation must be met by the same formula.
    linear = Condition(robin=Robin(f"1 + ({U})**3", f"{FLUX} + (1 + ({U})**3)*({U})"))
    problem = Problem(BOX, Equation(K=K, f=F), walls, Obstacle(inside, linear))
    gap = solve(problem, on=grids[2]).value - values_on(problem, grids[2].bind(BOX), U, "exact")
    assert errors[2] < 2 * float(gap[~gap.isnan()].square().mean().sqrt())


def test_the_rim_of_linear_data_named_as_nonlinear_ones_is_the_linear_rim():
    """alpha u + n . K grad u = g, with all of it in g: the same equations but for the clamp."""

    def system(condition: Condition):
        obstacle = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.06", condition)
        problem = Problem(BOX, Equation(K="1 + x"), dict.fromkeys(BOX.sides, GIVEN), obstacle)
        return semidiscretize(problem, Grid((17, 17)))

    linear = system(Condition(robin=Robin("1 + y", "x*nx")))
    named = system(Condition(neumann="x*nx - (1 + y)*u"))
    u = torch.rand(linear.shape, dtype=torch.float64)
    torch.testing.assert_close(named.residual(u, 0.0), linear.residual(u, 0.0))
    J = torch.func.jvp(lambda v: named.residual(v, 0.0), (u,), (u,))[1]
    torch.testing.assert_close(named.linearise(u, 0.0).apply(u), J)


def test_a_disc_in_a_room_cools_by_radiation_of_its_rim():
    """K = 1e4 equalises: |fluid| u' = -|rim| sigma u^4."""
    obstacle = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.09", Condition(robin=Robin("0.2*u**3")))
    walls = dict.fromkeys(BOX.sides, Condition(neumann=0.0))
    problem = Problem(
        BOX, Equation(d=1.0, K=1e4), walls, obstacle, time=Time(0.5), initial=1.0
    )  # fmt: skip
    value = solve(problem, SDIRK(), on=Grid((33, 33))).last
    rate = 0.2 * 2 * math.pi * 0.3 / (1 - math.pi * 0.09)
    expected = (1 + 3 * rate * 0.5) ** (-1 / 3)
    assert float(value[0, 0]) == pytest.approx(expected, rel=2e-3)


def test_a_bar_of_elements_meets_the_closed_form_of_its_radiation():
    """u'' = 0, u(0) = 2, -1.7 u'(1) = 0.5 u + 0.3 u^4 - 0.1: exact on any mesh."""
    end = 1.0
    for _ in range(60):
        gap = 1.7 * (end - 2) + 0.5 * end + 0.3 * end**4 - 0.1
        end -= gap / (1.7 + 0.5 + 1.2 * end**3)
    sides = {
        "left": Condition(dirichlet=2.0),
        "right": Condition(robin=Robin("h + 0.3*u**3", "0.1*nx")),
    }
    problem = Problem(None, Equation(K=1.7), sides, parameters={"h": (0.5, 0.0)})
    mesh = unit_mesh(5, 1)
    solution = solve(problem, on=mesh)
    assert any("newton" in note for note in solution.notes)
    x = torch.from_numpy(mesh.nodes[:, 0])
    torch.testing.assert_close(solution.value[0], 2 + (end - 2) * x, rtol=1e-7, atol=1e-8)
    assert float((solution.value[1] - solution.value[0]).max()) > 0.01


def test_a_mesh_whose_sides_all_radiate_has_a_level_and_a_gradient():
    """-Lap u = f with u^3 + n . grad u = 0: in one dimension u_end^3 = f/2 and u'' = -f."""
    f = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    sides = dict.fromkeys(("left", "right"), Condition(robin=Robin("u**2")))
    problem = Problem(None, Equation(f=f), sides)
    mesh = unit_mesh(6, 1, "P2")
    value = solve(problem, Newton(rtol=1e-12), on=mesh).value
    x = torch.from_numpy(mesh.nodes[:, 0])
    torch.testing.assert_close(value.detach(), 1 + x * (1 - x), rtol=1e-8, atol=1e-8)
    (slope,) = torch.autograd.grad(value[0], f)
    # d/df (f/2)^(1/3)
    assert float(slope) == pytest.approx(1 / 6, rel=1e-6)


def test_newton_on_a_large_mesh_goes_by_algebraic_multigrid():
    mesh = unit_mesh(80, 2)
    solution = solve(Problem(None, Equation(K=K, f=F), SIDES), Newton(rtol=1e-9), on=mesh)
    assert any("cg with amg" in note for note in solution.notes)
    x, y = (torch.from_numpy(p) for p in mesh.nodes.T)
    assert float((solution.value - values_of(x, y)).abs().max()) < 2e-4


def test_a_table_that_an_iterate_leaves_is_named_on_a_mesh():
    table = Table(columns={"u": [5.0, 6.0], "k": [1.0, 2.0]}, of="u")
    sides = {"left": Condition(dirichlet=0.0), "right": Condition(neumann="k(u)")}
    problem = Problem(None, Equation(), sides, parameters={"k": table})
    solution = solve(problem, Newton(), on=unit_mesh(4, 1), throw=False)
    assert not solution.statuses[0].success
    assert any("of u from 5 to 6" in note for note in solution.notes)


def test_sources_of_a_flux_law_must_balance_where_nothing_else_does():
    line = Box((0.0,), (1.0,))
    sides = {"left": Condition(neumann=0.0), "right": Condition(neumann=-0.5)}
    with pytest.raises(InputError, match=r"incompatible data.* integrate to 0.5, must be 0"):
        solve(Problem(line, Equation(K="1 + ux**2", f=1.0), sides), on=Grid((33,)))
    # (1 + s^2) s = -x^2/2 for the slope s, whose mean level is zero.
    solution = solve(Problem(line, Equation(K="1 + ux**2", f="x"), sides), on=Grid((201,)))
    x = torch.linspace(0, 1, 201, dtype=torch.float64)
    slope = (solution.value[2:] - solution.value[:-2]) / 0.01
    torch.testing.assert_close((1 + slope**2) * slope, -(x[1:-1] ** 2) / 2, rtol=0, atol=1e-4)


def test_auto_has_no_solver_at_points_and_says_so():
    line = Box((0.0,), (1.0,))
    sides = dict.fromkeys(line.sides, Condition(dirichlet=0.0))
    problem = Problem(line, Equation(d=1.0), sides, time=Time(1.0), initial=0.0)
    with pytest.raises(InputError, match="points") as caught:
        solve(problem, on=Points(100))
    assert caught.value.key


# --- Conditions by field --------------------------------------------------------------------------

LINE = Box((0.0,), (1.0,))
OWN = {
    "left": {"u": Condition(dirichlet=1.0), "v": Condition(neumann="-0.2*nx")},
    "right": {"u": Condition(robin=Robin("1 + u**2", 0.3)), "v": Condition(dirichlet="t")},
}


@pytest.mark.parametrize("centring", ["cell", "node"])
def test_fields_that_are_not_coupled_have_the_answers_of_their_own_problems(centring: str):
    sides = dict(OWN)
    if centring == "node":
        # There a side is dirichlet for all fields or for none.
        sides["left"] = {"u": Condition(dirichlet=1.0), "v": Condition(dirichlet="0.1*t")}
        sides["right"] = {"u": OWN["right"]["u"], "v": Condition(neumann="t")}
    equations = {"u": Equation(d=1.0, K="1 + x"), "v": Equation(d=2.0, f="x")}
    grid, initial = Grid((24,), centring), {"u": 1.0, "v": 0.0}
    together = Problem(LINE, System(equations), sides, time=Time(0.2), initial=initial)
    found = solve(together, SDIRK(rtol=1e-5), on=grid).last
    for k, name in enumerate(("u", "v")):
        alone = Problem(
            LINE, equations[name], {side: own[name] for side, own in sides.items()},
            time=Time(0.2), initial=initial[name],
        )  # fmt: skip
        right = solve(alone, SDIRK(rtol=1e-5), on=grid).last
        torch.testing.assert_close(found[k], right, rtol=0, atol=1e-4)


def test_a_side_of_one_field_names_another():
    """v is let in by u on the left alone: the integral of v is that of u there, t."""
    sides = {
        "left": {"u": Condition(neumann=0.0), "v": Condition(neumann="u")},
        "right": Condition(neumann=0.0),
    }
    equations = {"u": Equation(d=1.0), "v": Equation(d=1.0)}
    problem = Problem(
        LINE, System(equations), sides, time=Time(0.3), initial={"u": 2.0, "v": 0.0}
    )  # fmt: skip
    u, v = solve(problem, SDIRK(rtol=1e-5), on=Grid((16,), "cell")).last
    torch.testing.assert_close(u, torch.full_like(u, 2.0))
    assert float(v.mean()) == pytest.approx(0.6, abs=1e-5)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"left": {"u": GIVEN}}, "give a condition for v too"),
        ({"left": {"u": GIVEN, "w": GIVEN}}, "the system has no field 'w'"),
        ({"left": {"u": GIVEN, "v": Condition(periodic=True)}}, "periodic for all fields or for"),
        ({"left": {"u": Condition(dirichlet="v"), "v": GIVEN}}, "a Dirichlet value may not depend"),
        ({"left": {"u": GIVEN, "v": Condition(neumann=0.0)}}, "for all fields or for none; use"),
    ],
)
def test_what_conditions_by_field_lack_is_said(sides: dict, message: str):
    equation, rest = System({"u": Equation(d=1.0), "v": Equation(d=1.0)}), {"right": GIVEN}
    with pytest.raises(InputError, match=message):
        semidiscretize(Problem(LINE, equation, sides | rest, **FLOW), Grid((9,)))


def test_an_equation_of_one_condition_a_side_refuses_conditions_by_field():
    sides = {side: {"u": Condition(dirichlet=0.0)} for side in LINE.sides}
    with pytest.raises(InputError, match="conditions by field are for systems") as caught:
        Problem(LINE, Equation(), sides)
    assert caught.value.key == "problem.boundary.left"
    equation = System({"u": Equation(d=1.0), "v": Equation(d=1.0)})
    each = {"u": Condition(dirichlet=0.0), "v": Condition(neumann=0.0)}
    own = {side: dict(each) for side in LINE.sides}
    with pytest.raises(InputError, match="at points one serves all fields"):
        strong_form(Problem(LINE, equation, own, **FLOW))


SPEC = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: system, equations: {u: {d: 1}, v: {d: 1, f: u}}}
  boundary:
    left: {u: {dirichlet: 1}, v: {neumann: 0}}
    right: {u: {robin: {alpha: "1 + v", g: 0}}, v: {dirichlet: t}}
  time: {end: 0.05}
  initial: {u: 1, v: 0}
grid: {shape: [32], centring: cell}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("u: {dirichlet: 1}", "u: {dirichet: 1}", "6:16: problem.boundary.left.u.dirichet"),
        ("left: {u:", "left: {w:", "the system has no field 'w'"),
        ("{u: {dirichlet: 1}, v: {neumann: 0}}", "{dirichet: {file: a}}", "mean 'dirichlet'"),
    ],
)
def test_a_spec_has_conditions_by_field(old: str, new: str, said: str, tmp_path: Path):
    (tmp_path / "spec.yaml").write_text(SPEC.replace(old, new))
    if said:
        with pytest.raises(InputError, match=said):
            load_spec(tmp_path / "spec.yaml")
        return
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.problem.boundary_of("v")["right"] == Condition(dirichlet="t")
    plain = dump(spec.problem)
    assert plain["boundary"]["left"]["v"]["neumann"] == 0
    assert statement(plain).count("<mi>v</mi>") > 3


# --- The same conditions at points, in flows, for waves -------------------------------------------


def test_a_function_that_meets_its_conditions_has_no_residual_at_points():
    problem = Problem(
        BOX, Equation(K=K, f=F), SIDES | {"top": Condition(dirichlet=f"{U} + ny - 1")}
    )
    form = strong_form(problem)
    for piece in pieces(form, hard=False, periodic_built_in=True):
        x = piece.place(torch.rand(20, piece.free, dtype=torch.float64))
        jet = jet_of(lambda p: values_of(p[:, 0], p[:, 1])[:, None], x, form.pairs)
        assert float(piece.residual(x, jet).abs().max()) < 1e-12
        wrong = jet_of(lambda p: 1.1 * values_of(p[:, 0], p[:, 1])[:, None], x, form.pairs)
        assert float(piece.residual(x, wrong).abs().max()) > 1e-2
    base = built_in(form)
    assert base is not None
    top = torch.tensor([[0.3, 1.0]], dtype=torch.float64)
    assert float(base.extension(top)) == pytest.approx(float(values_of(*top.unbind(1))))


def test_sides_at_points_name_other_fields_and_t():
    sides = {"left": Condition(neumann="v - 2*u + t"), "right": Condition(neumann=0.0)}
    line, fields = Box((0.0,), (1.0,)), {"u": Equation(d=1.0), "v": Equation(d=1.0)}
    problem = Problem(line, System(fields), sides, time=Time(1.0), initial={"u": 0.0, "v": 0.0})
    form = strong_form(problem)
    left = next(p for p in pieces(form, hard=True, periodic_built_in=True) if p.name == "left")
    x = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    jet = jet_of(lambda p: torch.stack([p[:, 0] + 1, 3 * p[:, 1]], -1), x, form.pairs)
    # n . grad (u, v) = (-1, 0), less v - 2 u + t = 1.5 - 2 + 0.5.
    torch.testing.assert_close(left.residual(x, jet), torch.tensor([[-1.0, 0.0]]).double())


def test_a_wall_of_a_flow_names_the_normal():
    """An inflow and an outflow written once: u = -nx is in on the left, out on the right."""
    through = Condition(dirichlet=("abs(nx)", 0.0))
    problem = Problem(
        BOX, NavierStokes(0.1), {"all": through, "bottom": Condition(dirichlet=("1 + 0*ny", 0.0)),
        "top": Condition(dirichlet=("ny", 0.0))}, time=Time(0.05), initial={"u": 1.0, "v": 0.0},
    )  # fmt: skip
    value = solve(problem, Projection(), on=Grid((8, 8), "cell")).last
    torch.testing.assert_close(value[0], torch.ones(8, 8).double(), rtol=1e-9, atol=1e-9)


def test_an_open_side_of_waves_names_the_normal():
    """A wave exp(i k x) enters on the left and leaves on the right, by one condition for both."""
    k = 6.0
    line = Box((0.0,), (1.0,))
    enters = Condition(robin=Robin(-1j * k, lambda x, nx: -1j * k * (1 - nx)))
    sides = {"left": enters, "right": enters}
    # n . grad u - i k u = -2 i k on the left, where n = -1, and 0 on the right.
    value = solve(Problem(line, Helmholtz(wavenumber=k), sides), on=Grid((401,))).value
    x = torch.linspace(0, 1, 401, dtype=torch.float64)
    assert float((value - torch.exp(1j * k * x)).abs().max()) < 1e-3


# --- One line where a name may not stand ----------------------------------------------------------

MESH = unit_mesh(2, 2)


def stated(place: str, condition: Condition):
    """A problem with this condition on its top side, to be discretised."""
    fixed = dict.fromkeys(BOX.sides, Condition(dirichlet=0.0)) | {"top": condition}
    if place == "grid":
        return lambda: semidiscretize(Problem(BOX, Equation(), fixed), Grid((5, 5)))
    if place == "auto":
        return lambda: solve(Problem(BOX, Equation(), fixed), Auto(), on=Grid((5, 5)))
    if place == "rim":
        hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.06", condition)
        walls = fixed | {"top": Condition(dirichlet=0.0)}
        return lambda: semidiscretize(Problem(BOX, Equation(), walls, hole), Grid((9, 9)))
    if place == "mesh":
        return lambda: solve(Problem(None, Equation(), fixed), on=MESH)
    if place == "points":
        return lambda: strong_form(Problem(BOX, Equation(), fixed))
    if place == "system":
        equation = System({"u": Equation(d=1.0), "v": Equation(d=1.0)})
        return lambda: semidiscretize(Problem(BOX, equation, fixed, **FLOW), Grid((5, 5)))
    if place == "waves":
        return lambda: discretize(Problem(BOX, Helmholtz(wavenumber=1.0), fixed), Grid((5, 5)))
    value = condition.dirichlet if condition.neumann is None else condition.neumann
    listed = Condition(**{condition.kind: (value, 0.0)})
    still = dict.fromkeys(BOX.sides, Condition(dirichlet=(0.0, 0.0))) | {"top": listed}
    if place == "solid":
        return lambda: solve(Problem(None, Elasticity(1.0), still), on=MESH)
    assert place == "flow"
    return lambda: solve(Problem(BOX, NavierStokes(0.1), still, **FLOW), on=Grid((4, 4), "cell"))


PLACES = ("grid", "auto", "rim", "mesh", "points", "system", "waves", "solid", "flow")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", ["1 + u", "1 + ux", lambda x, y, u: u])
def test_a_dirichlet_value_that_names_the_solution_is_refused_alike(place: str, value):
    with pytest.raises(InputError, match="a Dirichlet value may not depend on") as caught:
        stated(place, Condition(dirichlet=value))()
    where = "obstacle.boundary" if place == "rim" else "boundary.top"
    assert caught.value.key is not None
    assert caught.value.key.startswith(f"problem.{where}.dirichlet")


@pytest.mark.parametrize("place", PLACES)
def test_slopes_are_refused_alike(place: str):
    linear = place in ("waves", "solid")
    match = "is linear: the data of its sides" if linear else "but not (its|their) slopes"
    with pytest.raises(InputError, match=match) as caught:
        stated(place, Condition(neumann="ux"))()
    assert caught.value.key is not None
    assert ".neumann" in caught.value.key


@pytest.mark.parametrize("place", ["waves", "solid"])
def test_an_equation_that_is_linear_says_so_of_its_sides(place: str):
    with pytest.raises(InputError, match=r"(helmholtz|elasticity) is linear: the data of its"):
        stated(place, Condition(neumann="u"))()


@pytest.mark.parametrize("place", ["grid", "mesh", "points", "waves", "solid", "flow", "rim"])
def test_a_dirichlet_value_names_the_normal_everywhere(place: str):
    stated(place, Condition(dirichlet="0*ny"))()


def test_periodic_flow_keeps_its_own_refusal_of_sides():
    problem = Problem(
        BOX, NavierStokes(0.1), {"all": Condition(dirichlet=("u", 0.0))}, **FLOW
    )  # fmt: skip
    with pytest.raises(InputError):
        solve(problem, ETDRK4(), on=Grid((4, 4), "cell"))


def gains(kind: str, d: int) -> tuple[Problem, Callable[..., torch.Tensor]]:
    """alpha = -1/2 on the right: u' = u/2 + g there. -Lap u + c u = f with u = exp(x) (1 + y)."""
    u = "exp(x)" if d == 1 else "exp(x)*(1 + y)"
    domain = Box((0.0,) * d, (1.0,) * d)
    sides = dict.fromkeys(domain.sides, Condition(dirichlet=u))
    sides["right"] = Condition(robin=Robin(-0.5, f"0.5*{u}"))
    equation = {
        "linear": Equation(f=f"-{u}"),
        "nonlinear": Equation(f=f"({u})**3 - u**3 - {u}"),
        "quasilinear": Equation(K="1 + u", f=f"-({u} + 2*({u})**2)"),
        "energy": Equation(energy=("0.5*ux**2" if d == 1 else "0.5*(ux**2 + uy**2)") + f" + {u}*u"),
    }[kind]
    if kind == "quasilinear":
        sides["right"] = Condition(robin=Robin(-0.5, f"(1 + {u})*{u} - 0.5*{u}"))
    exact = (lambda x: x.exp()) if d == 1 else (lambda x, y: x.exp() * (1 + y))
    return Problem(domain, equation, sides, exact=u), exact


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize(
    ("kind", "d"),
    [("linear", 1), ("linear", 2), ("nonlinear", 1), ("quasilinear", 1), ("energy", 2)],
)
def test_a_side_may_give_more_than_it_takes(kind: str, d: int, centring: str) -> None:
    problem, exact = gains(kind, d)
    if kind == "energy" and centring == "cell":
        pytest.skip("energies live on nodes")
    extra = centring == "node"
    errors = []
    for n in (8, 16):
        found = solve(problem, on=Grid((n + extra,) * d, centring))
        errors.append(float(found.error(exact)))
        if kind == "linear":
            A = discretize(problem, Grid((n + extra,) * d, centring)).A
            assert not A.definite and not A.nullspace and A.symmetric
    # A product of functions of one axis each is exact at the nodes of the energy's elements.
    assert errors[1] < 1e-6 or abs(math.log2(errors[0] / errors[1]) - 2) < 0.3, errors


def test_a_negative_alpha_means_the_same_everywhere() -> None:
    line = skfem.MeshLine().refined(5)
    ends = {"left": np.array([[0]]), "right": np.array([[1]])}
    mesh = Mesh(line.p.T.copy(), line.t.T.copy(), {}, ends)
    problem, exact = gains("linear", 1)
    beside = replace(problem, domain=None)
    places: list[tuple[Problem, Any, Any]] = [
        (problem, Grid((33,)), None), (beside, mesh, None), (problem, Grid((33,)), Gaussians()),
        (problem, Grid((33,)), Picard()),
    ]  # fmt: skip
    for stated, on, solver in places:
        assert float(solve(stated, solver, on=on).error(exact)) < 1e-3
    moving = replace(
        problem, equation=Equation(d=1.0, f="-exp(x)"), time=Time(0.1), initial="exp(x)"
    )
    assert float(solve(moving, on=Grid((33,))).error(exact)) < 1e-3
    disk = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", Condition(robin=Robin(-1.0, 0.0)))
    holed = Problem(
        Box((0.0, 0.0), (1.0, 1.0)), Equation(f=1.0), {"all": Condition(dirichlet=0.0)}, disk
    )
    solid = discretize(holed, Grid((33, 33)))
    assert not solid.A.definite and solve(holed, on=Grid((33, 33))).converged
    with pytest.raises(InputError, match="take smaller cells"):
        coarse = replace(problem.boundary["right"], robin=Robin(-20.0, 0.0))
        solve(replace(problem, boundary={**problem.boundary, "right": coarse}),
              on=Grid((4,), "cell"))  # fmt: skip
