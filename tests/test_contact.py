"""Obstacles and contact: the active set's answers against exact ones, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import skfem
import torch
from test_general_form import error, everywhere, orders, square

import sciml
from sciml import InputError
from sciml.core.algebra.inequality import touching, with_rows
from sciml.core.problem.condition import Condition
from sciml.core.problem.dispatch import derives, measures
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.quantities import Quantity
from sciml.core.run.solution import Solution
from sciml.discretization import discretize, semidiscretize
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.krylov import GMRES
from sciml.solvers.resolution import with_stiffness

WALL = Condition(dirichlet=0.0)

# A string over a parabola: psi = 1/2 - 4 (x - 1/2)^2, u = 0 at both ends, touching where its
# tangent through the end leaves: x_0^2 = 1/8.
PSI = "0.5 - 4*(x - 0.5)**2"
TANGENT = 1 / math.sqrt(8)
SLOPE = 4 - 8 * TANGENT


def on_string(x: np.ndarray) -> np.ndarray:
    near = np.minimum(x, 1 - x)
    return np.where(near < TANGENT, SLOPE * near, 0.5 - 4 * (x - 0.5) ** 2)


def quantity(problem: Problem, mesh: Mesh, solution: Solution, asked: Quantity) -> float:
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    return float(prepared(asked, "q")(solution.value, None).value)


def steps(solution: Solution) -> int:
    return int(solution.stats.iterations.max())


def test_a_string_over_a_parabola_is_of_second_order_in_few_steps() -> None:
    errors, taken = [], []
    for n in (33, 513):
        problem = Problem(
            Box((0.0,), (1.0,)), Equation(lower=PSI), {"all": Condition(dirichlet=0.0)}
        )
        solution = sciml.solve(problem, on=Grid((n,)))
        assert solution.status.success and float(solution.residual) < 1e-8
        gap = solution.value.numpy() - on_string(np.linspace(0, 1, n))
        errors.append(float(np.sqrt((gap**2).mean())))
        taken.append(steps(solution))
    assert math.log2(errors[0] / errors[1]) / 4 > 1.8
    # Sixteen times the points: without springs at first it would be sixteen times the steps.
    assert max(taken) <= 13


def test_a_membrane_leaves_a_ball_at_the_published_radius_with_order_two() -> None:
    """u = -A ln(r/2) beyond r = a (Bueler 2021, chapter 12); a quarter of it, r = 4 |x|."""
    a = 0.6979651482233
    A = a**2 / math.sqrt(1 - a**2)

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r = 4 * (x**2 + y**2).sqrt().clamp(min=1e-12)
        return torch.where(r < a, (1 - r**2).abs().sqrt(), -A * torch.log(r / 2))

    far, near = Condition(dirichlet="-A*log(2*sqrt(x**2 + y**2))"), Condition(neumann=0.0)
    ball = "where(x**2 + y**2 < 0.05, sqrt(abs(1 - 16*(x**2 + y**2))), -1)"
    problem = Problem(
        None,
        Equation(lower=ball),
        {"left": near, "bottom": near, "right": far, "top": far},
        parameters={"A": A},
    )
    errors = []
    for n in (24, 48):
        mesh = square(n)
        solution = sciml.solve(problem, on=mesh)
        errors.append(error(mesh, solution.value, exact))
        assert steps(solution) <= 8
        touched = quantity(
            problem, mesh, solution, Quantity(integral="where(contact > 1e-9, 1, 0)")
        )
    assert orders(errors)[0] == pytest.approx(2, abs=0.1)
    # Elements that have a node in contact lie up to one beyond it.
    assert 0 < math.sqrt(4 * touched / math.pi) - a / 4 < 2 / 48


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_membrane_between_two_obstacles_meets_the_conditions_of_complementarity(
    element: str,
) -> None:
    """Nothing pushes where it touches neither, and what pushes balances the load."""
    problem = Problem(
        None,
        Equation(K="1 + x", b=(1.0, 0.0), f="60*sin(2*pi*x)", lower="-0.2", upper="0.3*x"),
        everywhere(Condition(dirichlet=0.0)),
    )
    mesh = square(12, element)
    solution = sciml.solve(problem, on=mesh)
    assert solution.status.success
    system = semidiscretize(problem, mesh)
    held = system.inequality
    assert held is not None
    u = system.restrict(solution.value)
    F = held.free.residual(u, 0.0)
    assert bool((u >= held.lower - 1e-12).all()) and bool((u <= held.upper + 1e-12).all())
    assert float(F[(u > held.lower + 1e-10) & (u < held.upper - 1e-10)].abs().max()) < 1e-8
    assert float(F[u <= held.lower + 1e-10].min()) > -1e-8
    assert float(F[u >= held.upper - 1e-10].max()) < 1e-8
    below, above = touching(held, u, F)
    assert int(below.sum()) > 10 and int(above.sum()) > 10
    pushed = quantity(problem, mesh, solution, Quantity(integral="contact"))
    assert pushed == pytest.approx(float(F[below | above].sum()), abs=1e-10)
    out = quantity(problem, mesh, solution, Quantity(integral="-(60*sin(2*pi*x) - ux)"))
    out += sum(
        quantity(problem, mesh, solution, Quantity(flux="u", on=side))
        for side in ("left", "right", "bottom", "top")
    )
    assert pushed == pytest.approx(out, rel=1e-6)


def block(gap: float | str, top: Condition) -> Problem:
    return Problem(
        None,
        Elasticity(10.0, 0.3),
        {
            "left": Condition(dirichlet=(0.0, None)),
            "right": Condition(dirichlet=(0.0, None)),
            "bottom": Condition(contact=gap),
            "top": top,
        },
    )


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_block_is_pressed_through_a_gap_onto_a_floor(element: str) -> None:
    """Uniaxial strain by what is left of the way: exact on any mesh."""
    modulus = 10 * 0.7 / (1.3 * 0.4)
    mesh = square(3, element)
    problem = block(0.04, Condition(dirichlet=(None, -0.1)))
    solution = sciml.solve(problem, on=mesh)
    assert solution.status.success
    exact = torch.from_numpy(-0.04 - 0.06 * mesh.nodes[:, 1])
    torch.testing.assert_close(solution.value[1], exact, rtol=0, atol=1e-10)
    pressure = modulus * 0.06
    for asked, value in (
        (Quantity(max="contact", on="bottom"), pressure),
        (Quantity(integral="contact", on="bottom"), pressure),
        (Quantity(force=(0.0, 1.0), on="bottom"), pressure),
        (Quantity(force=(0.0, 1.0), on="top"), -pressure),
    ):
        assert quantity(problem, mesh, solution, asked) == pytest.approx(value, abs=1e-9)
    found = derives.look_up(problem.equation, Mesh)(problem, mesh)["contact"]
    assert float(found.value(solution.value, None).max()) == pytest.approx(pressure)
    # Nothing but the floor holds it here, and it is a gap away at first.
    pushed = block(0.04, Condition(neumann=(0.0, -pressure)))
    again = sciml.solve(pushed, on=mesh)
    assert again.status.success
    torch.testing.assert_close(again.value, solution.value, rtol=0, atol=1e-9)


def test_a_body_slides_along_an_inclined_floor() -> None:
    """The square turned by 30 degrees: pressures and the way along the floor are the same."""
    turn = torch.tensor([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]],
                        dtype=torch.float64)  # fmt: skip
    flat = square(4, "P2")
    mesh = Mesh(flat.points @ turn.numpy().T, flat.cells, boundaries=dict(flat.boundaries),
                element="P2")  # fmt: skip
    pull, found = torch.tensor([0.3, -0.8], dtype=torch.float64), []
    for place, R in ((flat, torch.eye(2, dtype=torch.float64)), (mesh, turn)):
        top = tuple((R @ pull).tolist())
        spring = Condition(robin=sciml.Robin(2.0, top))
        problem = Problem(
            None,
            Elasticity(10.0, 0.3),
            {
                "left": Condition(neumann=0.0),
                "right": Condition(neumann=0.0),
                "bottom": Condition(contact=0.01),
                "top": spring,
            },
        )
        solution = sciml.solve(problem, on=place)
        assert solution.status.success
        found.append(R.T @ solution.value)
        assert quantity(problem, place, solution, Quantity(integral="contact", on="bottom")) > 0.1
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-10)


def test_a_gradient_goes_through_what_touches() -> None:
    def height(psi: torch.Tensor, load: torch.Tensor) -> torch.Tensor:
        problem = Problem(
            Box((0.0,), (1.0,)),
            Equation(f="f", lower="p - 2*(x - 0.5)**2"),
            {"all": Condition(dirichlet=0.0)},
            parameters={"p": psi, "f": load},
        )
        return sciml.solve(problem, on=Grid((33,))).value[12]

    given = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, -0.5)]
    height(*given).backward()
    for k, step in enumerate((1e-6, 1e-6)):
        ends = []
        for sign in (1, -1):
            moved = [v.detach().clone() for v in given]
            moved[k] += sign * step
            ends.append(float(height(*moved)))
        assert float(given[k].grad) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_what_no_side_holds_lies_on_its_obstacle() -> None:
    """Sides without a level, and an equation that is not stiff at all where it is flat."""
    sides = everywhere(Condition(neumann=0.0))
    pressed = Problem(Box((0.0, 0.0), (1.0, 1.0)), Equation(f=-1.0, lower="0.1*x"), sides)
    value = sciml.solve(pressed, on=Grid((9, 9))).value
    assert bool(
        (value >= 0.1 * torch.linspace(0, 1, 9, dtype=torch.float64)[:, None] - 1e-12).all()
    )
    meshed = replace(pressed, domain=None)
    again = sciml.solve(meshed, on=square(8))
    pushed = quantity(meshed, square(8), again, Quantity(integral="contact"))
    assert pushed == pytest.approx(1.0, abs=1e-10)
    flat = Equation(kind="p_laplace", f=-8.0, lower=-0.1)
    walls = everywhere(WALL)
    found = sciml.solve(replace(pressed, equation=flat, boundary=walls, parameters={"p": 4.0}),
                        on=Grid((13, 13)))  # fmt: skip
    assert found.status.success and float(found.value.min()) == pytest.approx(-0.1)


def test_a_minimal_surface_over_an_obstacle_and_a_batch() -> None:
    """A nonlinear equation, samples that touch in different places and one that does not at all."""
    problem = Problem(
        Box((-1.0, -1.0), (1.0, 1.0)),
        Equation(kind="minimal_surface", lower="h - 2*x**2 - 2*y**2"),
        {"all": Condition(dirichlet=0.0)},
        parameters={"h": [0.6, 0.3, -0.5]},
    )
    solution = sciml.solve(problem, on=Grid((25, 25)))
    assert all(status.success for status in solution.statuses)
    assert float(solution.value[2].abs().max()) < 1e-12
    alone = Problem(problem.domain, problem.equation, problem.boundary, parameters={"h": 0.6})
    single = sciml.solve(alone, on=Grid((25, 25))).value
    torch.testing.assert_close(solution.value[0], single, rtol=0, atol=1e-9)
    assert float(single[12, 12]) == pytest.approx(0.6)


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_what_obstacles_push_with_on_a_grid_balances_what_leaves(centring: str) -> None:
    problem = Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        Equation(f="40*sin(2*pi*x)", lower=-0.2, upper="0.3*x"),
        {"all": WALL, "top": Condition(neumann=0.5)},
    )
    grid = Grid((16, 12), centring=centring)  # type: ignore[arg-type]
    solution = sciml.solve(problem, on=grid)
    contact = derives.look_up(problem.equation, Grid)(problem, grid)["contact"]
    pushed = contact.value(solution.value, None)
    spacing = [1 / 15, 1 / 11] if centring == "node" else [1 / 16, 1 / 12]
    weights = [
        torch.full((n,), h, dtype=torch.float64) for n, h in zip((16, 12), spacing, strict=True)
    ]
    x = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    if centring == "node":
        x = torch.linspace(0, 1, 16, dtype=torch.float64)
        for along in weights:
            along[[0, -1]] /= 2
    source = torch.sin(2 * math.pi * x)
    area = weights[0][:, None] * weights[1]
    prepared = measures.look_up(problem.equation, Grid)(problem, grid)
    out = sum(
        float(prepared(Quantity(flux="u", on=side), "q")(solution.value, None).value)
        for side in problem.boundary
    )
    total = float((area * (pushed + 40 * source[:, None])).sum())
    assert float(pushed.max()) > 1 and float(pushed.min()) < -1
    assert total == pytest.approx(out, abs=1e-9)
    found = prepared(Quantity(integral="contact"), "q")(solution.value, None).value
    assert float(found) == pytest.approx(float((area * pushed).sum()), abs=1e-10)


def test_a_solid_of_bilinear_elements_is_compared_with_quadratic_ones() -> None:
    problem, mesh = block(0.04, Condition(dirichlet=(None, -0.1))), square(2)
    told = with_stiffness(problem, mesh, sciml.solve(problem, on=mesh)).notes[-1]
    assert float(told.split()[2]) < 1e-9


@pytest.mark.parametrize(
    ("equation", "sides", "said"),
    [
        (Equation(lower="x", upper=0.2), WALL, "above upper, 0.2 there"),
        (Equation(lower="1 - x"), WALL, "above the value given on the boundary, 0 there"),
        (Equation(upper=-0.1), WALL, "above upper, -0.1 there"),
        (Equation(lower="u"), WALL, r"not on the solution|coordinates only"),
        (Equation(lower="log(x - 2)"), WALL, "lower"),
        (Equation(lower=-1.0), Condition(contact=0.1), "contact is of an elastic body"),
    ],
)
def test_what_obstacles_do_not_go_with_is_one_line(
    equation: Equation, sides: Condition, said: str
) -> None:
    for on, domain in ((square(3), None), (Grid((5, 5)), Box((0.0, 0.0), (1.0, 1.0)))):
        with pytest.raises(InputError, match=said):
            sciml.solve(Problem(domain, equation, everywhere(sides)), on=on)


def test_who_does_not_know_of_obstacles_refuses_them() -> None:
    from sciml.core.problem.problem import Time
    from sciml.discretization import pencil
    from sciml.solvers import CG, PINN, ActiveSet, DeepRitz

    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(box, Equation(f=-1.0, lower=-0.01), everywhere(WALL))
    for solver in (CG(), PINN(), DeepRitz()):
        with pytest.raises(InputError, match=r"inequality|nonlinear"):
            sciml.solve(problem, solver, on=Grid((9, 9)))
    for lower in (discretize, pencil):
        with pytest.raises(InputError, match="inequality"):
            lower(problem, Grid((9, 9)))
    with pytest.raises(InputError, match="has none"):
        sciml.solve(Problem(box, Equation(f=1.0), everywhere(WALL)), ActiveSet(), on=Grid((9, 9)))
    with pytest.raises(InputError, match="steady"):
        Problem(box, Equation(d=1.0, lower=0.0), everywhere(WALL), time=Time(1.0), initial=0.0)
    with pytest.raises(InputError, match="cannot be called 'contact'"):
        replace(problem, parameters={"contact": 1.0})
    with pytest.raises(InputError, match="nothing holds"):
        sciml.solve(block(0.1, Condition(neumann=(0.0, 1.0))), on=square(3, "P2"))


def test_rigid_motions_reach_the_multigrid_of_a_body_in_contact() -> None:
    counts = []
    for n in (4, 8):
        places = np.linspace(0, 1, n + 1)
        made = skfem.MeshTet.init_tensor(places, places, places)
        outer = made.facets[:, made.boundary_facets()].T
        z = made.p[2][outer].mean(1)
        named = {"bottom": outer[z < 1e-9], "top": outer[z > 1 - 1e-9]}
        named["sides"] = outer[(z > 1e-9) & (z < 1 - 1e-9)]
        body = Problem(
            None,
            Elasticity(10.0, 0.3),
            {
                "bottom": Condition(contact="0.001*x"),
                "top": Condition(dirichlet=(0.0, 0.0, -0.1)),
                "sides": Condition(neumann=0.0),
            },
        )
        system = semidiscretize(body, Mesh(made.p.T.copy(), made.t.T.copy(), boundaries=named))
        held = system.inequality
        assert held is not None
        J = held.free.linearise(torch.zeros(system.shape, dtype=torch.float64), 0.0)
        A = with_rows(J, torch.isfinite(held.upper), held.weights, columns=True)
        solver = GMRES(preconditioner=AMG(), rtol=1e-9)
        found = solver.iterate(A, solver.setup(A), torch.ones(A.size).double(), None, None)
        counts.append(int(found.iterations))
    assert counts[1] <= counts[0] + 5 and counts[1] < 20
