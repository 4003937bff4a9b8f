"""The general form on meshes: orders, exact Jacobians, coupling, time, gradients, balances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import sciml
from sciml import InputError
from sciml.core.problem.condition import Condition, Robin
from sciml.core.problem.dispatch import measures
from sciml.core.problem.equation import Elasticity, Equation, NavierStokes, Stokes, System
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem, Time
from sciml.core.problem.quadrature import relative_error
from sciml.core.run.quantities import Quantity
from sciml.core.run.serialise import dump
from sciml.core.run.status import Doubt
from sciml.discretization import semidiscretize
from sciml.solvers import BDF, IMEX, SDIRK, Newton, Verlet

pi = math.pi
Exact = Callable[..., torch.Tensor]


def square(n: int, element: str = "P1", graded: bool = False) -> Mesh:
    """The unit square, its sides named; ``graded``: finer towards them."""
    x = np.linspace(0, 1, n + 1)
    points = np.stack([v.ravel() for v in np.meshgrid(x, x, indexing="ij")], 1)
    a = np.arange(n * (n + 1)).reshape(n, n + 1)[:, :-1].ravel()
    cells = np.concatenate(
        [np.stack([a, a + n + 1, a + n + 2], 1), np.stack([a, a + n + 2, a + 1], 1)]
    )
    bare = Mesh(points, cells)
    facets = bare.topology.facets[:, bare.topology.boundary_facets()].T
    middle = points[facets].mean(1)
    sides = {
        "left": middle[:, 0] < 1e-9,
        "right": middle[:, 0] > 1 - 1e-9,
        "bottom": middle[:, 1] < 1e-9,
        "top": middle[:, 1] > 1 - 1e-9,
    }
    if graded:
        points = 0.35 * (1 - np.cos(pi * points)) + 0.3 * points
    named = {name: facets[there] for name, there in sides.items()}
    return Mesh(points, cells, boundaries=named, element=element)  # type: ignore[arg-type]


CUBE = (
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]),
    np.array([[0, 1, 2, 3]]),
)


def everywhere(condition: Condition) -> dict[str, Condition]:
    return dict.fromkeys(("left", "right", "bottom", "top"), condition)


def orders(errors: list[float]) -> list[float]:
    return [math.log2(a / b) for a, b in pairwise(errors)]


def error(mesh: Mesh, value: torch.Tensor, exact: Exact) -> float:
    return float(relative_error(mesh, value, exact))


def waves(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sin(pi * x) * torch.sin(pi * y)


# -div((1 + u^2) grad u) of u = sin(pi x) sin(pi y)
SOURCE = (
    "2*pi**2*sin(pi*x)*sin(pi*y)*(1 + (sin(pi*x)*sin(pi*y))**2) - 2*sin(pi*x)*sin(pi*y)*pi**2"
    "*(cos(pi*x)**2*sin(pi*y)**2 + sin(pi*x)**2*cos(pi*y)**2)"
)
QUASILINEAR = [
    Equation(K="1 + u**2", f=SOURCE),
    Equation(flux=("(1 + u**2)*ux", "(1 + u**2)*uy"), source=SOURCE),
    Equation(flux=(lambda u, ux: (1 + u**2) * ux, lambda u, uy: (1 + u**2) * uy), source=SOURCE),
]


@pytest.mark.parametrize("equation", QUASILINEAR, ids=["coefficients", "texts", "functions"])
@pytest.mark.parametrize(("element", "order"), [("P1", 2), ("P2", 3)])
def test_quasilinear_problems_have_the_order_of_their_elements(
    equation: Equation, element: str, order: int
) -> None:
    errors = []
    for n in (8, 16):
        mesh = square(n, element)
        problem = Problem(None, equation, everywhere(Condition(dirichlet=0.0)))
        solution = sciml.solve(problem, Newton(), on=mesh)
        assert solution.status.success and int(solution.stats.iterations) <= 6
        errors.append(error(mesh, solution.value, waves))
    assert orders(errors)[0] == pytest.approx(order, abs=0.1)


def test_a_linear_problem_has_the_same_answer_by_either_assembly() -> None:
    mesh = square(6, "P2")
    sides = {
        "left": Condition(dirichlet="y"),
        "right": Condition(robin=Robin(2.0, "x*y")),
        "bottom": Condition(neumann="sin(x)"),
        "top": Condition(neumann=0.0),
    }
    K, b, c, f = ((2.0, "x*y"), ("x*y", 1.5)), ("1 + y", "x"), 3.0, "x*y"
    plain = sciml.solve(Problem(None, Equation(K=K, b=b, c=c, f=f), sides), on=mesh)
    flux = ("2*ux + x*y*uy", "x*y*ux + 1.5*uy")
    source = "x*y - (1 + y)*ux - x*uy - 3*u"
    given = sciml.solve(
        Problem(None, Equation(flux=flux, source=source), sides), Newton(rtol=1e-13), on=mesh
    )
    assert int(given.stats.iterations) <= 3
    torch.testing.assert_close(given.value, plain.value, rtol=1e-10, atol=1e-12)


SYSTEM = System(
    {
        "u": Equation(d=1.0, K="1 + 0.1*x", b=("y", "v"), f="u**2*v - ux*v"),
        "v": Equation(d=2.0, flux=("vx + 0.3*uy*v", "vy*(1 + u**2)"), source="sin(u)*vy - v"),
    }
)


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_the_jacobian_is_that_of_the_residual(element: str) -> None:
    """All of it: columns by differences would be wrong in the eighth digit, these to rounding."""
    mesh = square(2, element)
    mixed = {"u": Condition(robin=Robin("1 + v**2", "u*v")), "v": Condition(dirichlet="x")}
    problem = Problem(
        None,
        SYSTEM,
        {**everywhere(Condition(neumann="0.1*u")), "left": mixed},  # type: ignore[dict-item]
        time=Time(1.0),
        initial={"u": 1.0, "v": 2.0},
    )
    system = semidiscretize(problem, mesh)
    x = torch.rand(system.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = torch.func.jacfwd(lambda u: system.residual(u, 0.3))(x)
    J = torch.from_numpy(system.linearise(x, 0.3).to_scipy().toarray())
    torch.testing.assert_close(J, dense, rtol=1e-11, atol=1e-12 * float(dense.abs().max()))


def test_what_conducts_nothing_at_zero_begins_with_what_is_harmonic() -> None:
    """div(u grad u) = 0: u^2 is harmonic."""
    sides = everywhere(Condition(dirichlet="sqrt(1 + x + x*y)"))
    for law in (Equation(flux=("u*ux", "u*uy")), Equation(K="u")):
        mesh = square(3, "P2")
        solution = sciml.solve(Problem(None, law, sides), on=mesh)
        assert solution.status.success
        assert error(mesh, solution.value, lambda x, y: torch.sqrt(1 + x + x * y)) < 1e-4


def test_an_energy_is_minimised() -> None:
    """Scherk's minimal surface, log(cos y / cos x), and the p-Laplacian's r^(p/(p-1))."""
    mesh = square(12, "P2")
    scherk = Problem(
        None,
        Equation(energy="sqrt(1 + ux**2 + uy**2)"),
        everywhere(Condition(dirichlet="log(cos(y)/cos(x))")),
    )
    solution = sciml.solve(scherk, on=mesh)
    exact = lambda x, y: torch.log(torch.cos(y) / torch.cos(x))  # noqa: E731
    assert solution.status.success
    assert error(mesh, solution.value, exact) < 1e-4
    same = replace(scherk, equation=Equation(kind="minimal_surface"))
    other = sciml.solve(same, on=mesh)
    torch.testing.assert_close(other.value, solution.value, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", [SDIRK(rtol=1e-7), BDF(rtol=1e-6), IMEX(rtol=1e-7)])
def test_heat_in_time_has_the_order_of_its_elements(solver: object) -> None:
    decay, errors = math.exp(-0.1 * pi**2), []
    problem = Problem(
        None,
        Equation(d=1.0, K=0.05),
        everywhere(Condition(dirichlet=0.0)),
        time=Time(1.0),
        initial="sin(pi*x)*sin(pi*y)",
    )
    for n in (6, 12):
        mesh = square(n)
        solution = sciml.solve(problem, solver, on=mesh)
        errors.append(error(mesh, solution.value[-1], lambda x, y: decay * waves(x, y)))
    assert orders(errors)[0] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("given", ["sin(t)*x + y**2*t", lambda x, y, t: np.sin(t) * x + y**2 * t])
def test_given_values_that_move_keep_the_order_in_time(given: object) -> None:
    """The exact solution is in the space of P2, so that all that is left is the steps' error."""
    problem = Problem(
        None,
        Equation(d=1.0, f="x*cos(t) + y**2 - 2*t"),
        everywhere(Condition(dirichlet=given)),
        time=Time(1.0),
        initial=0.0,
    )
    mesh, errors = square(4, "P2"), []
    for step in (0.25, 0.125):
        solution = sciml.solve(problem, SDIRK(rtol=1e-3, step=step), on=mesh)
        errors.append(error(mesh, solution.value[-1], lambda x, y: math.sin(1) * x + y**2))
    assert errors[1] < 2e-6 and orders(errors)[0] > 3


@pytest.mark.parametrize("solver", [SDIRK(rtol=1e-4), BDF(rtol=1e-4)])
def test_what_stands_before_u_t_may_depend_on_u(solver: object) -> None:
    """(1 + u) u_t = Lap u + s of exp(-t) x y, which is in the space of P2."""
    u = "exp(-t)*x*y"
    problem = Problem(
        None,
        Equation(d="1 + u", f=f"-(1 + {u})*{u}"),
        everywhere(Condition(dirichlet=u)),
        time=Time(0.5),
        initial="x*y",
    )
    mesh = square(2, "P2")
    solution = sciml.solve(problem, solver, on=mesh)
    assert error(mesh, solution.value[-1], lambda x, y: math.exp(-0.5) * x * y) < 2e-4
    with pytest.raises(InputError, match="use sdirk or bdf"):
        sciml.solve(problem, IMEX(), on=mesh)


def stored(
    u: str, ut: str, ux: str, uy: str, laplacian: str, start: str, end: float = 1.0
) -> Problem:
    """(1 + u) u_t = div((1 + u) grad u) + s, the flux given on two sides, on one beside u."""
    along = {"right": f"(1 + {u})*({ux})", "left": f"-(1 + {u})*({ux})"}
    sides = {name: Condition(neumann=flux) for name, flux in along.items()}
    sides["bottom"] = Condition(robin=Robin(2.0, f"2*{u} - (1 + {u})*({uy})"))
    sides["top"] = Condition(dirichlet=u)
    source = f"(1 + {u})*({ut}) - ({ux})**2 - ({uy})**2 - (1 + {u})*({laplacian})"
    law = Equation(d="1 + u", flux=("(1 + u)*ux", "(1 + u)*uy"), source=source)
    return Problem(None, law, sides, time=Time(end), initial=start)


def test_given_fluxes_with_what_stands_before_u_t_keep_the_orders() -> None:
    """In time with an exact solution in the space of P2, in space with one that is in none."""
    u, errors = "(2 + sin(t) + x*cos(t) + y/2)", []
    problem = stored(u, "cos(t) - x*sin(t)", "cos(t)", "0.5", "0", "2 + x + y/2")
    for step in (1 / 8, 1 / 16):
        found = sciml.solve(problem, BDF(rtol=1e-6, step=step), on=square(1, "P2"), throw=False)
        errors.append(error(square(1, "P2"), found.last, lambda x, y: 2 + math.sin(1)
                            + x * math.cos(1) + y / 2))  # fmt: skip
    assert orders(errors)[0] == pytest.approx(2, abs=0.1)
    wave, errors = "exp(-t)*sin(x + 2*y)", []
    problem = stored(f"(2 + {wave})", f"-{wave}", "exp(-t)*cos(x + 2*y)",
                     "2*exp(-t)*cos(x + 2*y)", f"-5*{wave}", "2 + sin(x + 2*y)", 0.25)  # fmt: skip
    for n in (3, 6):
        mesh = square(n)
        found = sciml.solve(problem, SDIRK(rtol=1e-3, step=0.125), on=mesh)
        errors.append(
            error(mesh, found.last, lambda x, y: 2 + math.exp(-0.25) * torch.sin(x + 2 * y))
        )
    assert orders(errors)[0] == pytest.approx(2, abs=0.1)


def test_waves_on_a_mesh_return() -> None:
    mesh = square(8, "P2")
    problem = Problem(
        None,
        Equation(m=1.0),
        everywhere(Condition(dirichlet=0.0)),
        time=Time(math.sqrt(2)),
        initial={"u": "sin(pi*x)*sin(pi*y)", "ut": 0.0},
    )
    solution = sciml.solve(problem, SDIRK(rtol=1e-6), on=mesh)
    assert solution.status.success
    assert error(mesh, solution.value[-1], waves) < 2e-3


def test_what_no_one_leaves_stays() -> None:
    """d/dt int u = int s - what leaves, to the tolerance of the stages; radiation is a flux."""
    mesh = square(5, "P2")
    problem = Problem(
        None,
        System(
            {
                "u": Equation(d=1.0, K="0.1*(1 + u**2)", f="-u*v"),
                "v": Equation(d=1.0, K=0.02, f="u*v"),
            }
        ),
        everywhere(Condition(neumann=0.0)),
        time=Time(0.5, frames=3),
        initial={"u": "1 + x", "v": "0.1 + y**2"},
    )
    solution = sciml.solve(problem, on=mesh)
    look = measures.look_up(problem.equation, Mesh)(problem, mesh)(Quantity(integral="u + v"), "q")
    totals = [float(look(value, 0.0).value) for value in solution.value]
    assert solution.fields == ("u", "v")
    assert totals == pytest.approx([1.5 + 0.1 + 1 / 3] * 3, rel=1e-8)


def test_fluxes_balance_the_source_in_a_nonlinear_problem() -> None:
    mesh = square(4, "P2")
    sides = {
        "left": Condition(dirichlet=1.0),
        "right": Condition(dirichlet="1 + y"),
        "bottom": Condition(neumann="1 - u**4"),
        "top": Condition(neumann=0.0),
    }
    problem = Problem(None, Equation(K="1 + u**2", f="2 + x"), sides)
    solution = sciml.solve(problem, Newton(rtol=1e-13), on=mesh)
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    leaving = [
        float(prepared(Quantity(flux="u", on=side), "q")(solution.value, None).value)
        for side in sides
    ]
    assert sum(leaving) == pytest.approx(2.5, rel=1e-10)


def test_gradients_through_newton_and_through_time() -> None:
    mesh = square(3, "P2")
    steady = Problem(
        None, Equation(K="1 + k*u**2", f=3.0), everywhere(Condition(dirichlet=0.0)),
        parameters={"k": 1.0},
    )  # fmt: skip
    moving = replace(
        steady, equation=Equation(d=1.0, K="1 + k*u**2", f=3.0), time=Time(0.1), initial=0.0
    )
    for problem, solver in ((steady, Newton(rtol=1e-12)), (moving, SDIRK(rtol=1e-8, step=0.02))):

        def total(
            k: torch.Tensor, problem: Problem = problem, solver: Newton | SDIRK = solver
        ) -> torch.Tensor:
            asked = replace(problem, parameters={"k": k})
            value = solver.run(solver.init(asked, mesh)).value
            return (value[-1] if problem.time is not None else value).square().sum()

        k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(total(k), k)
        low, high = (total(torch.tensor(1.0 + s, dtype=torch.float64)) for s in (-1e-3, 1e-3))
        assert float(slope) == pytest.approx(float(high - low) / 2e-3, rel=1e-5)


NU = 1 / 40
LAMBDA = 1 / (2 * NU) - math.sqrt(1 / (4 * NU**2) + 4 * pi**2)


def test_kovasznay_by_taylor_and_hood() -> None:
    """Third order in u, second in p, four steps of Newton's method."""
    wall = Condition(dirichlet=("1 - exp(lam*x)*cos(2*pi*y)", "lam/(2*pi)*exp(lam*x)*sin(2*pi*y)"))
    problem = Problem(None, NavierStokes(NU), everywhere(wall), parameters={"lam": LAMBDA})
    exact: list[Exact] = [
        lambda x, y: 1 - torch.exp(LAMBDA * x) * torch.cos(2 * pi * y),
        lambda x, y: LAMBDA / (2 * pi) * torch.exp(LAMBDA * x) * torch.sin(2 * pi * y),
        lambda x, y: (math.exp(2 * LAMBDA) - 1) / (4 * LAMBDA) - torch.exp(2 * LAMBDA * x) / 2,
    ]
    errors: list[list[float]] = [[], [], []]
    for n in (8, 16):
        mesh = square(n, "P2")
        solution = sciml.solve(problem, on=mesh)
        assert solution.status.success and int(solution.stats.iterations) <= 5
        for k in range(3):
            errors[k].append(error(mesh, solution.value[k], exact[k]))
    assert orders(errors[0])[0] == pytest.approx(3, abs=0.1)
    assert orders(errors[1])[0] == pytest.approx(3, abs=0.1)
    assert orders(errors[2])[0] > 1.9


def test_stokes_is_linear_symmetric_and_divergence_free() -> None:
    mesh = square(6, "P2")
    lid = {**everywhere(Condition(dirichlet=0.0)), "top": Condition(dirichlet=("x*(1-x)", 0.0))}
    system = sciml.discretize(Problem(None, Stokes(), lid), mesh)
    A = system.A.to_scipy()
    assert abs(A - A.T).max() < 1e-14
    solution = sciml.solve(Problem(None, Stokes(), lid), on=mesh)
    assert solution.status.success and solution.fields == ("u", "v", "p")
    x = system.restrict(solution.value)
    assert float((system.b - system.A.apply(x)).abs().max()) < 1e-9


def test_poiseuille_leaves_an_outlet_and_pushes_its_walls() -> None:
    mesh = square(3, "P2")
    problem = Problem(
        None,
        NavierStokes(0.5),
        {
            "left": Condition(dirichlet=("4*y*(1 - y)", 0.0)),
            "right": Condition(neumann=0.0),
            "bottom": Condition(dirichlet=0.0),
            "top": Condition(dirichlet=(0.0, 0.0)),
        },
    )
    solution = sciml.solve(problem, Newton(rtol=1e-12), on=mesh)
    exact = torch.from_numpy(4 * mesh.nodes[:, 1] * (1 - mesh.nodes[:, 1]))
    torch.testing.assert_close(solution.value[0], exact, rtol=0, atol=1e-10)
    pressure = torch.from_numpy(4.0 * (1 - mesh.nodes[:, 0]))
    torch.testing.assert_close(solution.value[2], pressure, rtol=0, atol=1e-9)
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    pushed = [prepared(Quantity(force=(1.0, 0.0), on=s), "q") for s in ("left", "bottom", "top")]
    forces = [float(push(solution.value, None).value) for push in pushed]
    assert sum(forces) == pytest.approx(0.0, abs=1e-9)  # no pressure pushes at the outlet
    assert forces == pytest.approx([-4.0, 2.0, 2.0], abs=1e-8)


@pytest.mark.parametrize("solver", [SDIRK(rtol=1e-6), BDF(rtol=1e-5)])
def test_taylor_and_green_decay(solver: object) -> None:
    wall = Condition(
        dirichlet=(
            "-cos(pi*x)*sin(pi*y)*exp(-2*pi**2*nu*t)",
            "sin(pi*x)*cos(pi*y)*exp(-2*pi**2*nu*t)",
        )
    )
    problem = Problem(
        None,
        NavierStokes("nu"),
        everywhere(wall),
        parameters={"nu": 0.05},
        time=Time(0.2),
        initial={"u": "-cos(pi*x)*sin(pi*y)", "v": "sin(pi*x)*cos(pi*y)"},
    )
    mesh = square(6, "P2")
    solution = sciml.solve(problem, solver, on=mesh)
    decay = math.exp(-0.02 * pi**2)
    assert solution.status.success
    u, _, p = solution.value[-1]
    assert error(mesh, u, lambda x, y: -decay * torch.cos(pi * x) * torch.sin(pi * y)) < 5e-3
    exact = lambda x, y: -(decay**2) / 4 * (torch.cos(2 * pi * x) + torch.cos(2 * pi * y))  # noqa: E731
    assert error(mesh, p, exact) < 0.06


def cavity(rayleigh: float) -> Problem:
    """Air between a warm and a cold wall (de Vahl Davis 1983)."""
    wall = Condition(dirichlet=(0.0, 0.0))
    warm = {"left": 1.0, "right": 0.0}
    sides = {
        side: {
            "flow": wall,
            "T": Condition(dirichlet=warm[side]) if side in warm else Condition(neumann=0.0),
        }
        for side in ("left", "right", "bottom", "top")
    }
    flow = NavierStokes(0.71, force=(0.0, "Ra*0.71*T"))
    equation = System({"flow": flow, "T": Equation(b=("u", "v"))})
    return Problem(None, equation, sides, parameters={"Ra": rayleigh})  # type: ignore[arg-type]


def test_natural_convection_carries_what_is_published() -> None:
    problem, mesh = cavity(1e4), square(10, "P2", graded=True)
    solution = sciml.solve(problem, on=mesh)
    assert solution.fields == ("u", "v", "p", "T")
    prepared = measures.look_up(problem.equation, Mesh)(problem, mesh)
    nusselt = [
        float(prepared(Quantity(flux="T", on=side), "q")(solution.value, None).value)
        for side in ("left", "right")
    ]
    assert nusselt == pytest.approx([-2.2448, 2.2448], rel=2e-3)
    assert sum(nusselt) == pytest.approx(0, abs=1e-7)


def bad_problems() -> list[tuple[Problem, str, str | None]]:
    held = everywhere(Condition(dirichlet=0.0))
    flow = Problem(None, NavierStokes(1.0), everywhere(Condition(dirichlet=(0.0, 0.0))))
    good = Problem(None, Equation(K="1 + u**2"), held)
    key = "problem.equation"
    return [
        (replace(good, equation=Equation(flux=("ux",))), "needs 2", f"{key}.flux"),
        (replace(good, equation=Equation(K="1 + w")), "unknown name 'w'", f"{key}.K"),
        (replace(good, equation=Equation(K="1 + u*t")), "no time", f"{key}.K"),
        (
            replace(good, equation=Equation(d=1.0, K=-1.0), time=Time(1.0), initial=0.0),
            "K = -1 .*must be positive",
            f"{key}.K",
        ),
        (
            replace(good, equation=Equation(d="ux"), time=Time(1.0), initial=0.0),
            "coordinates and the fields",
            f"{key}.d",
        ),
        (replace(flow, boundary=held), "", None),
        (replace(flow, equation=NavierStokes(-1.0)), "must be positive", f"{key}.viscosity"),
        (
            replace(flow, boundary=everywhere(Condition(dirichlet=(0.0,)))),
            "list of 2",
            "problem.boundary.left.dirichlet",
        ),
    ]


@pytest.mark.parametrize("case", bad_problems(), ids=lambda case: case[1][:20] or "zero")
def test_bad_problems(case: tuple[Problem, str, str | None]) -> None:
    problem, message, key = case
    mesh = square(2, "P2")
    if key is None:
        assert sciml.solve(problem, on=mesh).status.success
        return
    with pytest.raises(InputError, match=message) as caught:
        sciml.solve(problem, on=mesh)
    assert caught.value.key == key


def test_what_cannot_be_said() -> None:
    with pytest.raises(InputError, match="goes with flux"):
        Equation(source=1.0)
    with pytest.raises(InputError, match="leave K out"):
        Equation(flux=("ux", "uy"), K=2.0)
    for given in (1, 1.0, "1"):
        with pytest.raises(InputError, match="leave K out"):
            Equation(flux=("ux", "uy"), K=given)
        with pytest.raises(InputError, match="leave K out"):
            Equation(energy="0.5*ux**2", K=given)
    for law in (Equation(flux=["ux", "uy"], c=0, f=0.0), Equation(energy="0.5*ux**2 - u")):
        assert Equation(**dump(law)) == law == replace(law, d=0.0)
    plate, cube = Elasticity(1.0, plane="stress"), Mesh(*CUBE)
    for body in (plate, System({"solid": plate})):
        with pytest.raises(InputError, match="3 dimensions is whole"):
            problem = Problem(None, body, {})
            sciml.solve(problem, Newton(), on=cube)
    with pytest.raises(InputError, match="two fields of the system are called 'u'"):
        System({"u": Equation(), "flow": Stokes()})
    flow = Problem(None, NavierStokes(1.0), everywhere(Condition(dirichlet=0.0)))
    with pytest.raises(InputError, match="element: P2"):
        sciml.solve(flow, on=square(2))
    moving = Problem(None, Equation(m=1.0), everywhere(Condition(dirichlet=0.0)), time=Time(1.0),
                     initial=0.0)  # fmt: skip
    with pytest.raises(InputError, match="no explicit method is explicit"):
        sciml.solve(moving, Verlet(), on=square(2))


def test_where_a_law_is_not_elliptic_is_said() -> None:
    problem = Problem(
        None,
        Equation(flux=("ux*(1 - ux**2)", "uy")),
        {
            "left": Condition(dirichlet=0.0),
            "right": Condition(dirichlet=0.9),
            "bottom": Condition(neumann=0.0),
            "top": Condition(neumann=0.0),
        },
    )
    solution = sciml.solve(problem, Newton(), on=square(2))
    doubts = [n for n in solution.notes if isinstance(n, Doubt)]
    assert any("not elliptic" in n for n in doubts)


def test_advection_that_dominates_is_said() -> None:
    problem = Problem(
        None,
        Equation(d=1.0, K=1e-3, b=(1.0, 0.5)),
        everywhere(Condition(dirichlet=0.0)),
        time=Time(0.01),
        initial="x*y*(1 - x)*(1 - y)",
    )
    solution = sciml.solve(problem, SDIRK(rtol=1e-2), on=square(2))
    doubts = [n for n in solution.notes if isinstance(n, Doubt)]
    assert not doubts and any("stabilised by SUPG" in n for n in solution.notes)
    plain = sciml.solve(problem, SDIRK(rtol=1e-2), on=replace(square(2), scheme="galerkin"))
    doubts = [n for n in plain.notes if isinstance(n, Doubt)]
    assert any("Peclet number" in n and "scheme: supg" in n for n in doubts)


def test_fields_without_a_rate_begin_with_what_follows() -> None:
    """A chemical potential from its own equation, a pressure from the constraint that it keeps."""
    separation = System(
        {
            "c": Equation(d=1.0, flux=("wx", "wy")),
            "w": Equation(flux=("e*e*cx", "e*e*cy"), source="w - c**3 + c"),
        }
    )
    problem = Problem(
        None,
        separation,
        everywhere(Condition(neumann=0.0)),
        parameters={"e": 0.1},
        time=Time(0.02, frames=3),
        initial={"c": "0.1*cos(pi*x)"},
    )
    mesh = square(8, "P2")
    solution = sciml.solve(problem, SDIRK(rtol=1e-3), on=mesh)
    c = 0.1 * torch.cos(pi * mesh.coordinates()[0])
    w = c**3 - c + 0.01 * pi**2 * c
    assert float((solution.value[0, 1] - w).abs().max()) < 0.02 * float(w.abs().max())
    prepared = measures.look_up(separation, Mesh)(problem, mesh)
    energy = prepared(Quantity(integral="(c**2 - 1)**2/4 + e*e/2*(cx**2 + cy**2)"), "q")
    amount = prepared(Quantity(integral="c"), "q")
    falls = [float(energy(value, 0.0).value) for value in solution.value]
    assert falls[0] > falls[1] > falls[2]
    kept = [float(amount(value, 0.0).value) for value in solution.value]
    assert kept == pytest.approx([kept[0]] * 3, abs=1e-8)

    flow = Problem(
        None,
        Stokes(force=("0", "1 + x")),
        everywhere(Condition(dirichlet=0.0)),
        time=Time(0.01),
        initial=0,
    )
    first = sciml.solve(flow, SDIRK(rtol=1e-3), on=square(4, "P2")).value[0]
    assert float(first[:2].abs().max()) == 0
    # div(force - grad p) = 0 at once: the part of the force that is a gradient is p's alone.
    assert float(first[2].max()) > 0.4
