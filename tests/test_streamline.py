"""SUPG in the general form: what is nonlinear, coupled or in time and carried along."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_elements import blocks
from test_general_form import error, everywhere, orders, square

import sciml
from sciml.core.problem.condition import Condition
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import Equation, NavierStokes, System
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.run.quantities import Quantity
from sciml.core.run.status import Doubt
from sciml.discretization import discretize, semidiscretize
from sciml.solvers import SDIRK, Newton

HELD = everywhere(Condition(dirichlet=0.0))


@pytest.mark.parametrize("element", ["P1", "P2", "Q2"])
def test_a_linear_problem_has_the_same_system_by_either_assembly(element: Any) -> None:
    tensor = (("1e-3*(1 + x)", 2e-4), (2e-4, "1e-3*(2 - y)"))
    equation = Equation(K=tensor, b=("1 + y", "x - 0.3"), c="1 + x", f="sin(3*x)*y")
    mesh = blocks(3, 2, element) if element == "Q2" else square(3, element)
    problem = Problem(None, equation, {**HELD, "right": Condition(neumann="y")})
    linear, general = discretize(problem, mesh), semidiscretize(problem, mesh)
    zero = torch.zeros(general.shape, dtype=torch.float64)
    A = general.linearise(zero, 0.0).to_scipy()
    assert abs(A - linear.A.to_scipy()).max() < 1e-12 * abs(A).max()
    torch.testing.assert_close(-general.residual(zero, 0.0), linear.b, rtol=0, atol=1e-12)
    assert abs(A - A.T).max() > 1e-3


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_jacobian_is_that_of_the_residual_and_of_what_is_stored(element: Any) -> None:
    carried = Equation(d="1 + w**2", K="2e-3*(1 + u**2)", b=("u", "1 + 0*w"), c="w", f="u**3 + x")
    other = Equation(d=1.0, K=1e-3, b=("w + y", "ux + 2"), f="u*w")
    system = System({"u": carried, "w": other})
    sides = everywhere(Condition(dirichlet="0.1*x"))
    problem = Problem(None, system, sides, time=Time(1.0), initial={"u": "x*y", "w": "x - y"})
    made = semidiscretize(problem, replace(square(2, element), scheme="supg"))
    generator = torch.Generator().manual_seed(3)
    x, way, speed = (
        torch.rand(made.shape, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    step = 1e-6
    storage = made.storage
    assert storage is not None
    for function, derived in (
        (lambda u: made.residual(u, 0.0), made.linearise(x, 0.0)),
        (lambda u: storage.apply(u, speed, 0.0), storage.slope(x, speed, 0.0)),
    ):
        wanted = (function(x + step * way) - function(x - step * way)) / (2 * step)
        torch.testing.assert_close(derived.apply(way), wanted, rtol=0, atol=1e-8)
    along = storage.apply(x, speed + way, 0.0) - storage.apply(x, speed, 0.0)
    torch.testing.assert_close(storage.matrix(x, 0.0).apply(way), along, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("element", "expected"), [("P1", 2), ("P2", 3)])
def test_nonlinear_advection_keeps_the_order(element: Any, expected: int) -> None:
    u, ux, uy = "sin(2*x)*cos(y)", "2*cos(2*x)*cos(y)", "-sin(2*x)*sin(y)"
    source = f"(1 + {u})*({ux}) + 0.5*({uy}) + 5e-3*{u}"
    equation = Equation(K=1e-3, b=("1 + u", 0.5), f=source)
    problem = Problem(None, equation, everywhere(Condition(dirichlet=u)))
    errors = []
    for n in (12, 24) if element == "P1" else (8, 16):
        mesh = replace(square(n, element), scheme="supg")
        solution = sciml.solve(problem, Newton(rtol=1e-10), on=mesh)
        assert solution.status.success and int(solution.stats.iterations) <= 10
        assert any("stabilised by SUPG" in note for note in solution.notes)
        errors.append(error(mesh, solution.value, lambda x, y: torch.sin(2 * x) * torch.cos(y)))
    assert orders(errors)[0] == pytest.approx(expected, abs=0.1)


def test_in_time_the_rate_belongs_to_the_residual() -> None:
    """Without d u_t beside b . grad u the order would be one."""
    u = "sin(2*x + y - t)"
    source = f"1.5*cos(2*x + y - t) + 5e-4*{u}"
    equation = Equation(d=1.0, K=1e-4, b=(1.0, 0.5), f=source)
    held = everywhere(Condition(dirichlet=u))
    problem = Problem(None, equation, held, time=Time(0.5), initial="sin(2*x + y)")
    errors = []
    for n in (10, 20):
        mesh = square(n)
        value = sciml.solve(problem, SDIRK(rtol=1e-6), on=mesh).value[-1]
        errors.append(error(mesh, value, lambda x, y: torch.sin(2 * x + y - 0.5)))
    assert orders(errors)[0] == pytest.approx(2, abs=0.1)


def test_a_cone_goes_round_and_leaves_no_wiggles() -> None:
    cone = "where((x - 0.5)**2 + (y - 0.75)**2 < 0.0225, 1, 0)"
    equation = Equation(d=1.0, K=1e-7, b=("0.5 - y", "x - 0.5"))
    problem = Problem(None, equation, HELD, time=Time(math.pi), initial=cone)
    below = {}
    for scheme in ("galerkin", None):
        mesh = replace(square(16), scheme=scheme)
        solution = sciml.solve(problem, SDIRK(rtol=1e-3), on=mesh)
        value = solution.value[-1]
        far = torch.from_numpy(np.linalg.norm(mesh.nodes - [0.5, 0.25], axis=1) > 0.32)
        below[scheme] = float(value[far].abs().max())
        assert any(isinstance(n, Doubt) for n in solution.notes) is (scheme == "galerkin")
    assert below[None] < 0.3 * below["galerkin"]


def test_an_outflow_layer_of_burgers_oscillates_no_more() -> None:
    """u u_x = K u_xx, from 1 to 0, the layer within the last element."""
    sides = {"left": Condition(dirichlet=1.0), "right": Condition(dirichlet=0.0)}
    sides |= {"bottom": Condition(neumann=0.0), "top": Condition(neumann=0.0)}
    problem = Problem(None, Equation(K=2e-3, b=("u", 0.0)), sides)
    over = {}
    for scheme in ("galerkin", "supg"):
        solution = sciml.solve(problem, on=replace(square(10), scheme=scheme))
        assert solution.status.success
        over[scheme] = float(solution.value.max()) - 1
    assert over["galerkin"] > 0.1 and over["supg"] < 0.2 * over["galerkin"]


def test_heat_that_a_flow_carries() -> None:
    """Both fields sought; what enters leaves."""
    sides = {s: {"flow": Condition(dirichlet=0.0), "T": Condition(neumann=0.0)} for s in HELD}
    sides["left"]["T"], sides["right"]["T"] = Condition(dirichlet=1.0), Condition(dirichlet=0.0)
    flow = NavierStokes(0.71, force=(0.0, "Ra*0.71*T"))
    equation = System({"flow": flow, "T": Equation(b=("u", "v"))})
    problem = Problem(None, equation, sides, parameters={"Ra": 1e4})  # type: ignore[arg-type]
    mesh = replace(square(10, "P2", graded=True), scheme="supg")
    solution = sciml.solve(problem, on=mesh)
    prepared = measures.look_up(equation, Mesh)(problem, mesh)
    nusselt = [
        float(prepared(Quantity(flux="T", on=side), "q")(solution.value, None).value)
        for side in ("left", "right")
    ]
    assert nusselt == pytest.approx([-2.2448, 2.2448], rel=3e-3)
    assert sum(nusselt) == pytest.approx(0, abs=1e-7)


def test_in_time_heat_and_the_flow_that_carries_it() -> None:
    """With a speed that is sought what is stored changes, and the pressure has no rate."""
    sides = {s: {"flow": Condition(dirichlet=0.0), "T": Condition(neumann=0.0)} for s in HELD}
    flow = NavierStokes(0.05, force=(0.0, "5*T"))
    equation = System({"flow": flow, "T": Equation(d=1.0, K=1e-3, b=("u", "v"))})
    start = {"T": "exp(-20*((x - 0.4)**2 + (y - 0.3)**2))"}
    problem = Problem(None, equation, sides, time=Time(0.2), initial={"u": 0.0, "v": 0.0, **start})  # type: ignore[arg-type]
    part = []
    for scheme in ("galerkin", "supg"):
        mesh = replace(square(4, "P2"), scheme=scheme)
        solution = sciml.solve(problem, SDIRK(rtol=1e-3), on=mesh)
        assert solution.status.success
        part.append(solution.value[-1][3])
    assert error(mesh, part[0], part[1]) < 0.1  # type: ignore[arg-type]


def test_gradients_go_through_what_is_stabilised() -> None:
    k = torch.tensor(2e-2, dtype=torch.float64, requires_grad=True)
    equation = Equation(d=1.0, K="k", b=(1.0, 0.5), f="u*(1 - u)")
    start = "sin(pi*x)*sin(pi*y)"
    sides, t = everywhere(Condition(dirichlet=0.0)), Time(0.01)
    problem = Problem(None, equation, sides, parameters={"k": k}, time=t, initial=start)
    mesh = replace(square(3), scheme="supg")

    def total(k: Any) -> torch.Tensor:
        found = sciml.solve(replace(problem, parameters={"k": k}), SDIRK(rtol=1e-6), on=mesh)
        return found.value[-1].square().sum()

    (slope,) = torch.autograd.grad(total(k), k)
    wanted = (total(2e-2 + 1e-6) - total(2e-2 - 1e-6)) / 2e-6
    assert float(slope) == pytest.approx(float(wanted), rel=1e-4)


def test_where_there_is_no_supg_nobody_is_sent_to_it() -> None:
    waves = Equation(m=1.0, K=1e-3, b=(1.0, 0.0))
    start = {"u": "x*y*(1 - x)*(1 - y)", "ut": 0.0}
    problem = Problem(None, waves, HELD, time=Time(0.01), initial=start)
    mesh = replace(square(3), scheme="supg")
    notes = sciml.solve(problem, SDIRK(rtol=1e-2), on=mesh).notes
    (doubt,) = (n for n in notes if isinstance(n, Doubt))
    assert "without u_tt" in doubt and "scheme" not in doubt
