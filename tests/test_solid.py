"""Solids by the general form: large deformations, motion in time, heat that strains."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_general_form import error, everywhere, orders, square

import sciml
from sciml import InputError
from sciml.core.problem.condition import Condition
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import Elasticity, Equation, Hyperelasticity, System
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.run.quantities import Quantity
from sciml.discretization import semidiscretize
from sciml.solvers import SDIRK

E, NU = 10.0, 0.3
FIRST, SECOND = E * NU / ((1 + NU) * (1 - 2 * NU)), E / (2 * (1 + NU))


def force(problem: Problem, mesh: Mesh, value: torch.Tensor, on: str) -> list[float]:
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    unit = ((1.0, 0.0), (0.0, 1.0))
    return [float(prepared(Quantity(force=e, on=on), "q")(value, 0.0).value) for e in unit]


def test_a_strip_of_rubber_is_drawn_to_twice_its_length() -> None:
    """Plane strain: the free side's stretch is the root of P_yy = 0, and P_xx follows."""
    stretch = 2.0
    low, high = 0.3, 1.2
    for _ in range(60):
        middle = (low + high) / 2
        wanted = SECOND * (middle - 1 / middle) + FIRST * math.log(stretch * middle) / middle
        low, high = (low, middle) if wanted > 0 else (middle, high)
    pull = SECOND * (stretch - 1 / stretch) + FIRST * math.log(stretch * low) / stretch
    problem = Problem(
        None,
        Hyperelasticity(E, NU),
        {
            "left": Condition(dirichlet=(0.0, None)),
            "right": Condition(dirichlet=("s - 1", None)),
            "bottom": Condition(dirichlet=(None, 0.0)),
            "top": Condition(neumann=0.0),
        },
        parameters={"s": stretch},
    )
    mesh = square(2, "P2")
    solution = sciml.solve(problem, on=mesh)
    exact = torch.from_numpy(mesh.nodes[:, 1] * (low - 1))
    torch.testing.assert_close(solution.value[1], exact, rtol=0, atol=1e-7)
    assert force(problem, mesh, solution.value, "right") == pytest.approx([pull, 0.0], abs=1e-6)
    assert force(problem, mesh, solution.value, "left") == pytest.approx([-pull, 0.0], abs=1e-6)


def test_large_deformations_become_small_ones() -> None:
    mesh = square(3, "P2")
    sides = {**everywhere(Condition(neumann=0.0)), "left": Condition(dirichlet=0.0)}
    answers = []
    for equation in (Elasticity(E, NU, force=("f", "-f")), Hyperelasticity(E, NU, ("f", "-f"))):
        problem = Problem(None, equation, sides, parameters={"f": 1e-6})
        answers.append(sciml.solve(problem, on=mesh).value)
    torch.testing.assert_close(*answers, rtol=1e-5, atol=1e-12)


def test_one_stiffness_by_either_assembly() -> None:
    mesh = square(2, "P2")
    sides = {**everywhere(Condition(neumann=0.0)), "left": Condition(dirichlet=0.0)}
    for plane in ("strain", "stress"):
        equation = Elasticity("1 + x", 0.3, plane=plane)  # type: ignore[arg-type]
        problem = Problem(None, equation, sides)
        plain = sciml.discretize(problem, mesh).A.to_scipy()
        system = semidiscretize(problem, mesh)
        zero = torch.zeros(system.shape, dtype=torch.float64)
        given = system.linearise(zero, 0.0).to_scipy()
        assert abs(plain - given).max() < 1e-13 * abs(plain).max()


def test_a_rod_swings_with_its_own_period() -> None:
    """Held at one end, sides without shear: u = sin(pi x / 2) has the period 4 / c."""
    problem = Problem(
        None,
        Elasticity(E, NU, density=2.0),
        {
            "left": Condition(dirichlet=0.0),
            "right": Condition(neumann=0.0),
            "bottom": Condition(dirichlet=(None, 0.0)),
            "top": Condition(dirichlet=(None, 0.0)),
        },
        time=Time(4 / math.sqrt((FIRST + 2 * SECOND) / 2.0), frames=3),
        initial={"u": "0.01*sin(pi*x/2)", "v": 0.0},
    )
    mesh = square(4, "P2")
    solution = sciml.solve(problem, SDIRK(rtol=1e-4), on=mesh)
    first, half, last = solution.value
    torch.testing.assert_close(last, first, rtol=0, atol=2e-5)
    torch.testing.assert_close(half, -first, rtol=0, atol=2e-5)
    held = force(problem, mesh, first, "left")[0]
    assert held == pytest.approx(-(FIRST + 2 * SECOND) * 0.01 * math.pi / 2, rel=2e-3)


def test_heat_strains_a_body_that_may_move_without_stress() -> None:
    """T = x is free of stress: u = alpha (x^2 - y^2) / 2, v = alpha x y, P2 has it exactly."""
    alpha = 0.01
    held = Condition(dirichlet=("a*(x**2 - y**2)/2", "a*x*y"))
    sides = {
        name: {
            "T": Condition(dirichlet="x") if name in ("left", "right") else Condition(neumann=0.0),
            "body": held if name in ("left", "bottom") else Condition(neumann=0.0),
        }
        for name in ("left", "right", "bottom", "top")
    }
    for plane in ("strain", "stress"):
        # Plane strain keeps the length along z, which a free body of plane stress would not.
        grown = alpha * (1 + NU) if plane == "strain" else alpha
        body = Elasticity(E, NU, plane=plane, thermal_strain="0.01*T")  # type: ignore[arg-type]
        problem = Problem(
            None,
            System({"T": Equation(), "body": body}),
            sides,  # type: ignore[arg-type]
            parameters={"a": grown},
        )
        mesh = square(2, "P2")
        solution = sciml.solve(problem, on=mesh)
        x, y = mesh.coordinates()
        assert solution.fields == ("T", "u", "v")
        expected = torch.stack([x, grown * (x**2 - y**2) / 2, grown * x * y])
        torch.testing.assert_close(solution.value, expected, rtol=0, atol=1e-10)


def test_large_deformations_have_the_order_of_their_elements() -> None:
    """u = 0.2 (sin(pi x) y, x^2 y), the force made to it by differences of the exact stress."""

    def stress(p: torch.Tensor) -> torch.Tensor:
        a, b = p[..., 0], p[..., 1]
        pi = math.pi
        F = torch.stack(
            [
                torch.stack([1 + 0.2 * pi * torch.cos(pi * a) * b, 0.2 * torch.sin(pi * a)], -1),
                torch.stack([0.4 * a * b, 1 + 0.2 * a**2], -1),
            ],
            -2,
        )
        inverse = torch.linalg.inv(F).mT
        volume = torch.log(torch.linalg.det(F))[..., None, None]
        return SECOND * (F - inverse) + FIRST * volume * inverse

    def pulled(component: int):  # type: ignore[no-untyped-def]
        def given(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            p = torch.stack(torch.broadcast_tensors(x, y), -1)
            along = [
                torch.func.jvp(stress, (p,), (torch.eye(2, dtype=p.dtype)[k].expand_as(p),))[1]
                for k in (0, 1)
            ]
            total = along[0][..., component, 0] + along[1][..., component, 1]
            return -total

        return given

    held = Condition(dirichlet=("0.2*sin(pi*x)*y", "0.2*x**2*y"))
    problem = Problem(None, Hyperelasticity(E, NU, (pulled(0), pulled(1))), everywhere(held))
    errors = []
    for n in (4, 8):
        mesh = square(n, "P2")
        solution = sciml.solve(problem, on=mesh)
        assert int(solution.stats.iterations) <= 6
        errors.append(error(mesh, solution.value[0], lambda x, y: 0.2 * torch.sin(math.pi * x) * y))
    assert orders(errors)[0] == pytest.approx(3, abs=0.15)


def test_bad_solids() -> None:
    good = Problem(None, Hyperelasticity(E, NU), everywhere(Condition(dirichlet=0.0)))
    mesh = square(2, "P2")
    for equation, message in (
        (Hyperelasticity(-1.0), "young must be positive"),
        (Hyperelasticity(E, 0.5), "between -1 and 0.5"),
        (Hyperelasticity(E, NU, (1.0,)), "list of 2"),
    ):
        with pytest.raises(InputError, match=message):
            sciml.solve(replace(good, equation=equation), on=mesh)
