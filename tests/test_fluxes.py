"""Numerical fluxes: A is the Jacobian of the flux residual, one scheme for one equation, jumps."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from test_mesh import unit_mesh

from sciml import solve
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes, System
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem, Robin, Time
from sciml.discretization import discretize, semidiscretize
from sciml.discretization.fields import values_on
from sciml.discretization.volumes.assemble import assemble
from sciml.discretization.volumes.coefficients import data
from sciml.discretization.volumes.fluxes import SCHEMES
from sciml.discretization.volumes.layout import layout
from sciml.discretization.volumes.quasilinear import Quasilinear
from sciml.solvers import BDF, ETDRK4, IMEX, SDIRK, Newton, Projection, RungeKutta

D, N, R, P = "dirichlet", "neumann", "robin", "periodic"
CONDITIONS = {
    D: Condition(dirichlet="1 + x"),
    N: Condition(neumann="0.3"),
    R: Condition(robin=Robin("1 + x", "0.7")),
    P: Condition(periodic=True),
}
ENDS = (
    [D, D], [N, D], [R, N], [P, P], [D, N, R, D], [P, P, R, N], [N, R, D, R], [D, N, P, P, R, D]
)  # fmt: skip
LINEAR = [name for name, scheme in SCHEMES.items() if scheme.limiter is None]
DISK = "(x - 0.52)**2 + (y - 0.46)**2 < 0.04"


def random(shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def box(d):
    return Box((0.0,) * d, (1.0, 1.3, 0.8)[:d])


def stated(kinds, **equation):
    d = len(kinds) // 2
    names = [name for pair in SIDES[:d] for name in pair]
    boundary = {name: CONDITIONS[kind] for name, kind in zip(names, kinds, strict=True)}
    more = {
        "K": "0.02*(1.2 + sin(2*pi*x))",
        "b": ("cos(2*pi*x)", "1 + y", "-0.7")[:d],
        "c": "1 + x",
    }
    return Problem(box(d), Equation(**{**more, "f": "x", **equation}), boundary)


def contexts(problem, grid):
    grid = grid.bind(problem.box)
    info = data(problem, layout(problem, grid, torch.float64, "cpu"), torch.float64, "cpu")
    return Quasilinear(problem, info), assemble(problem, info)


def dense(A):
    return torch.from_numpy(A.to_scipy().toarray())


def jacobian(residual, u):
    columns = []
    for k in range(u.numel()):
        way = torch.zeros(u.numel(), dtype=u.dtype)
        way[k] = 1
        columns.append(torch.func.jvp(residual, (u,), (way.reshape(u.shape),))[1].flatten())
    return torch.stack(columns, 1)


# --- A is the Jacobian of the residual ----------------------------------------------------------


@pytest.mark.parametrize("scheme", LINEAR)
@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("kinds", ENDS, ids=" ".join)
def test_the_stencil_is_the_jacobian_of_the_flux_residual(kinds, centring, scheme):
    d = len(kinds) // 2
    problem = stated(kinds)
    fluxes, parts = contexts(problem, Grid((8, 6, 5)[:d], centring, scheme=scheme))
    u, way = random(parts.A.shape), random(parts.A.shape, 1)
    product = torch.func.jvp(lambda v: fluxes.residual(v, 0.0), (u,), (way,))[1]
    torch.testing.assert_close(product, parts.A.apply(way))


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("kinds", ENDS, ids=" ".join)
def test_without_its_limiter_the_limited_scheme_is_the_hybrid_one(kinds, centring):
    d = len(kinds) // 2
    timed = replace(
        stated(kinds), equation=replace(stated(kinds).equation, d=1.0), time=Time(1.0), initial="x"
    )
    fluxes, parts = contexts(timed, Grid((8, 6, 5)[:d], centring))
    assert fluxes.scheme == "limited"
    u, way = random(parts.A.shape), random(parts.A.shape, 1)
    compact = torch.func.jvp(lambda v: fluxes.residual(v, 0.0, compact=True), (u,), (way,))[1]
    torch.testing.assert_close(compact, parts.A.apply(way))
    system = semidiscretize(timed, Grid((8, 6, 5)[:d], centring))
    torch.testing.assert_close(system.residual(u, 0.0), fluxes.residual(u, 0.0))
    torch.testing.assert_close(dense(system.linearise(u, 0.0)), dense(parts.A))
    assert not system.affine


EXTRA = {
    "dirichlet rim": (Condition(dirichlet="y"), None),
    "neumann rim": (Condition(neumann=0.2), None),
    "robin rim": (Condition(robin=Robin(0.7, "x")), None),
    "tensor": (None, (("0.03", "0.01*x"), ("0.01*x", "0.02"))),
}


@pytest.mark.parametrize("scheme", LINEAR)
@pytest.mark.parametrize("name", EXTRA)
def test_the_semidiscrete_residual_has_the_stencil_as_jacobian(name, scheme):
    rim, K = EXTRA[name]
    more = {} if K is None else {"K": K}
    problem = stated([D, N, R, D], d=1.0, **more)
    hole = None if rim is None else Obstacle(DISK, rim)
    problem = replace(problem, obstacle=hole, time=Time(1.0), initial="x")
    system = semidiscretize(problem, Grid((11, 12), scheme=scheme))
    steady = replace(problem, equation=replace(problem.equation, d=0.0), time=None, initial=None)
    A = discretize(steady, Grid((11, 12), scheme=scheme)).A
    u = random(A.shape)
    J = jacobian(lambda v: system.residual(v, 0.0), u)
    torch.testing.assert_close(J, dense(A))
    assert system.affine


@pytest.mark.parametrize("name", EXTRA)
def test_limited_fluxes_take_nothing_away_and_add_nothing(name):
    """What the limiter adds is a flux: away from the sides its sum over the unknowns is zero."""
    rim, K = EXTRA[name]
    more = {} if K is None else {"K": K}
    problem = stated([P] * 4, d=1.0, b=("1 + 0.2*sin(2*pi*x)", "-0.6"), **more)
    hole = None if rim is None else Obstacle(DISK, rim)
    problem = replace(problem, obstacle=hole, time=Time(1.0), initial="x")
    grids = [Grid((17, 18), scheme=scheme) for scheme in ("limited", "hybrid")]
    first, second = (semidiscretize(problem, grid) for grid in grids)
    u = random(first.shape)
    added = first.residual(u, 0.0) - second.residual(u, 0.0)
    assert float(added.abs().max()) > 1e-3
    assert abs(float(added.sum())) < 1e-12


def test_central_has_no_upwinding_and_upwind_keeps_the_signs():
    problem = stated([D, D], K=1e-3, b=("1",), c=0.0)
    A = {s: discretize(problem, Grid((33,), scheme=s)).A.coefficients[:, 5] for s in LINEAR}
    h, K = 1 / 32, 1e-3
    expected = {
        "central": [2 * K / h, -K / h - 0.5, -K / h + 0.5],
        "upwind": [2 * K / h + 1, -K / h - 1, -K / h],
        "hybrid": [1.0, -1.0, 0.0],
    }
    for scheme, row in expected.items():
        torch.testing.assert_close(A[scheme], torch.tensor(row, dtype=torch.float64))


# --- One scheme for one equation ----------------------------------------------------------------


def gaussian(x, t, K=1e-3):
    total = torch.zeros_like(x)
    for k in range(-2, 4):
        total += torch.exp(-200 * (x - 0.5 - t + k) ** 2 / (1 + 800 * K * t))
    return total / math.sqrt(1 + 800 * K * t)


def transported(K, solver, grid, end=1.0):
    problem = Problem(
        Box((0.0,), (1.0,)), Equation(d=1.0, K=K, b=(1.0,)), {"all": CONDITIONS[P]},
        time=Time(end), initial="exp(-200*(x - 0.5)**2)",
    )  # fmt: skip
    solution = solve(problem, solver, on=grid)
    (x,) = grid.bind(problem.box).axes()
    exact = gaussian(x, end)
    return solution, float((solution.value[-1] - exact).norm() / exact.norm())


@pytest.mark.parametrize("centring, n", (("node", 401), ("cell", 400)))
def test_a_linear_and_a_quasilinear_text_give_the_same_transport(centring, n):
    grid = Grid((n,), centring)
    (linear, error), (disguised, other) = (
        transported(K, RungeKutta(), grid) for K in (1e-3, "1e-3 + 0*u")
    )
    assert error == pytest.approx(0.0035, abs=3e-4)
    assert other == pytest.approx(error, rel=1e-8)
    torch.testing.assert_close(linear.value, disguised.value, rtol=0, atol=1e-10)
    assert [n for n in linear.notes if "upwind" in n] == [
        n for n in disguised.notes if "upwind" in n
    ]


@pytest.mark.parametrize("solver", (SDIRK(), IMEX(), BDF(rtol=1e-4)), ids=lambda s: s.kind)
def test_every_integrator_transports_by_the_limited_scheme(solver):
    limited = transported(1e-3, solver, Grid((201,)), 0.25)[1]
    hybrid = transported(1e-3, solver, Grid((201,), scheme="hybrid"), 0.25)[1]
    assert limited < 0.01 and hybrid > 0.09


def test_the_scheme_is_named_and_what_it_cannot_do_is_refused():
    errors = {
        scheme: transported(1e-3, RungeKutta(), Grid((201,), scheme=scheme), 0.25)[1]
        for scheme in SCHEMES
    }
    # Second order with and without a limiter, first order with less and with all diffusion.
    assert max(errors["limited"], errors["central"]) < 0.01
    assert 0.09 < errors["hybrid"] < 0.7 * errors["upwind"]
    for scheme, message in (("limited", "problems in time"), ("upwnd", "did you mean 'upwind'")):
        for make in (discretize, semidiscretize):
            with pytest.raises(InputError, match=message) as caught:
                make(stated([D, D]), Grid((9,), scheme=scheme))
            assert caught.value.key == "grid.scheme"


@pytest.mark.parametrize("name", EXTRA)
def test_transport_beside_obstacles_and_with_tensors_is_of_second_order(name):
    """A smooth wave in a channel, far from the hole; u_t + u_x = K Lap u."""
    rim, K = EXTRA[name]
    rate = 1e-5
    steady = name == "tensor"
    domain = Box((0.0, 0.0), (1.0, 0.25))
    hole = (
        None
        if rim is None
        else Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.05", Condition(neumann=0))
    )
    K = ((rate, 1e-12), (1e-12, rate)) if steady else rate
    problem = Problem(
        domain, Equation(d=1.0, K=K, b=(1.0, 0.0)),
        {"left": CONDITIONS[P], "right": CONDITIONS[P], "bottom": Condition(neumann=0),
         "top": Condition(neumann=0)},
        hole, time=Time(0.5), initial="sin(2*pi*x)",
    )  # fmt: skip
    errors = []
    for n in (33, 65):
        grid = Grid((n, 9)).bind(domain)
        value = solve(problem, RungeKutta(rtol=1e-7), on=grid).value[-1, :, :3]
        x = grid.coordinates()[0][:, :3]
        exact = math.exp(-rate * 4 * math.pi**2 * 0.5) * torch.sin(2 * math.pi * (x - 0.5))
        errors.append(float((value - exact).abs().mean()))
    assert errors[1] < 0.005
    assert math.log2(errors[0] / errors[1]) > 1.7


def test_a_field_of_a_system_is_transported_as_it_is_alone():
    equation = Equation(d=1.0, K=1e-3, b=(1.0,))
    coupled = System({"u": equation, "v": replace(equation, f="0*u")})
    problem = Problem(
        Box((0.0,), (1.0,)), coupled, {"all": CONDITIONS[P]}, time=Time(0.25),
        initial={"u": "exp(-200*(x - 0.5)**2)", "v": "exp(-200*(x - 0.5)**2)"},
    )  # fmt: skip
    value = solve(problem, IMEX(), on=Grid((201,))).value[-1]
    alone = transported(1e-3, IMEX(), Grid((201,)), 0.25)[0].value[-1]
    for k in (0, 1):
        torch.testing.assert_close(value[k], alone, rtol=0, atol=1e-4)


def test_an_operator_in_time_is_affine_where_the_limiter_has_nothing_to_do():
    problem = replace(
        stated([D, N, R, D], K=1.0, d=1.0), time=Time(1.0), initial="x"
    )  # fmt: skip
    assert semidiscretize(problem, Grid((17, 18))).affine
    thin = replace(problem, equation=replace(problem.equation, K="0.001*(1 + 1000*t)"))
    assert not semidiscretize(thin, Grid((17, 18))).affine


# --- Jumps --------------------------------------------------------------------------------------

STEP = ("where(x < 0.5, 1, 10)", "1 + 9*step(x - 0.5)", "1 + 9*(x >= 0.5)",
        lambda x: torch.where(x < 0.5, 1.0, 10.0))  # fmt: skip


@pytest.mark.parametrize("K", STEP)
@pytest.mark.parametrize("grid", (Grid((41,)), Grid((40,), "cell")), ids=("node", "cell"))
def test_a_jump_at_a_node_has_the_flux_of_one_at_a_face(grid, K):
    ends = {"left": Condition(dirichlet=0), "right": Condition(dirichlet=1)}
    for equation, tolerance in ((Equation(K=K), 1e-12), (Equation(K=K, b=("1e-12*u",)), 1e-9)):
        value = solve(Problem(Box((0.0,), (1.0,)), equation, ends), on=grid).value
        assert float((value[1] - value[0]) * 40) == pytest.approx(20 / 11, rel=tolerance)


def test_a_function_is_watched_wherever_it_stands():
    """It jumps on a line and not in a square, or not before what it knows has changed."""
    known = {"jumps": False}

    def of_axes(*x):
        return torch.where(x[0] < 0.5, 1.0, 10.0) if len(x) == 1 else 1 + 0 * x[0]

    def of_state(x):
        return torch.where(x < 0.5, 1.0, 10.0) if known["jumps"] else 1 + 0 * x

    ends = {"left": Condition(dirichlet=0), "right": Condition(dirichlet=1)}
    line = Problem(Box((0.0,), (1.0,)), Equation(K=of_axes), ends)
    square = Problem(
        Box((0.0, 0.0), (1.0, 1.0)), Equation(K=of_axes), {"all": Condition(dirichlet=0)}
    )
    solve(square, on=Grid((9, 9)))
    solve(replace(line, equation=Equation(K=of_state)), on=Grid((41,)))
    known["jumps"] = True
    for K in (of_axes, of_state):
        value = solve(replace(line, equation=Equation(K=K)), on=Grid((41,))).value
        assert float((value[1] - value[0]) * 40) == pytest.approx(20 / 11, rel=1e-12)


def test_an_inclusion_whose_sides_lie_on_nodes_is_of_second_order():
    inclusion = "where(abs(x - 0.5) < 0.25 and abs(y - 0.5) < 0.25, 1e-4, 1)"
    domain = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(domain, Equation(K=inclusion, f=1.0), {"all": Condition(dirichlet=0)})
    most = [float(solve(problem, on=Grid((n, n))).value.max()) for n in (17, 33, 65, 129)]
    steps = [b - a for a, b in pairwise(most)]
    orders = [math.log2(a / b) for a, b in pairwise(steps)]
    assert orders[-1] == pytest.approx(2, abs=0.1)
    assert most[-1] + steps[-1] / 3 == pytest.approx(184.235, abs=0.01)


def test_a_smooth_function_and_its_text_have_the_same_entries():
    texts = Equation(K="1 + 0.9*sin(5*x)", c="exp(x)", f="cos(x)")
    called = Equation(
        K=lambda x: 1 + 0.9 * torch.sin(5 * x), c=lambda x: torch.exp(x), f=lambda x: torch.cos(x)
    )
    systems = [
        discretize(Problem(Box((0.0,), (1.0,)), e, {"all": Condition(dirichlet=0)}), Grid((17,)))
        for e in (texts, called)
    ]
    assert torch.equal(systems[0].A.coefficients, systems[1].A.coefficients)
    assert torch.equal(systems[0].b, systems[1].b)


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_a_source_and_a_reaction_that_jump_at_an_unknown_are_integrated(centring):
    """Second order in the maximum norm, for f and c that jump at x = 1/2."""
    # -u'' + c u = f, u(0) = u(1) = 0; c = 1 left, 4 right of 1/2; f from u = sinh-like pieces.
    f = "where(x < 0.5, 1, 3)"
    problem = Problem(Box((0.0,), (1.0,)), Equation(f=f), {"all": Condition(dirichlet=0)})
    errors = []
    for n in (9, 17, 33):
        grid = Grid((n if centring == "node" else n - 2,), centring).bind(problem.box)
        (x,) = grid.axes()
        # -u'' = 1 | 3: u = a x - x^2/2 | b (1 - x) - 3 (1 - x)^2 / 2, u and u' continuous at 1/2.
        a, b = 0.75, 1.25
        exact = torch.where(x < 0.5, a * x - x**2 / 2, b * (1 - x) - 1.5 * (1 - x) ** 2)
        errors.append(float((solve(problem, on=grid).value - exact).abs().max()))
    if centring == "node":
        # The integrals are exact, and so is the answer.
        assert max(errors) < 1e-12
    else:
        # Odd numbers of cells: the jump lies in the middle of one.
        assert math.log2(errors[0] / errors[2]) / math.log2(31 / 7) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("name", ("neumann", "robin"))
def test_side_data_that_jump_at_a_node_are_integrated(name):
    """What goes in through the left side, 1 on half of it, is its integral."""
    g = "where(y < 0.5, 1, 0)"
    given = Condition(neumann=g) if name == "neumann" else Condition(robin=Robin(1e-9, g))
    domain = Box((0.0, 0.0), (1.0, 1.0))
    boundary = {"left": given, "right": Condition(dirichlet=0), "bottom": Condition(neumann=0),
                "top": Condition(neumann=0)}  # fmt: skip
    for n in (9, 17):
        value = solve(Problem(domain, Equation(), boundary), on=Grid((n, n))).value
        weights = torch.ones(n, dtype=torch.float64)
        weights[[0, -1]] = 0.5
        through = float(((value[-2] - value[-1]) * weights).sum())
        assert through == pytest.approx(0.5, rel=1e-6)


def test_a_mass_that_jumps_at_a_node_is_integrated():
    problem = Problem(
        Box((0.0,), (1.0,)), Equation(d="where(x < 0.5, 1, 3)"), {"all": Condition(neumann=0)},
        time=Time(1.0), initial=1.0,
    )  # fmt: skip
    mass = semidiscretize(problem, Grid((5,))).mass
    torch.testing.assert_close(
        mass, torch.tensor([0.125, 0.25, 0.5, 0.75, 0.375], dtype=torch.float64)
    )


def test_a_jump_on_a_periodic_side_is_taken_from_within_the_box():
    """K of period one jumps at x = 0 as it does at x = 1/4."""
    K = "where(x < 0.25, 1, 4)"
    problem = Problem(Box((0.0,), (1.0,)), Equation(K=K, c=1.0), {"all": CONDITIONS[P]})
    A = discretize(problem, Grid((9,))).A.to_scipy().toarray()
    links = [-A[i, (i + 1) % 8] / 8 for i in range(8)]
    assert links == pytest.approx([1, 1, 4, 4, 4, 4, 4, 4])


# --- Conditions that name the solution, the normal, the time --------------------------------------


def manufactured_radiation(centring, n, d, K="1 + 0.3*x"):
    """U = 1 + x/2 + y^2/4 with alpha(u) = 1 + u^3 and a Neumann datum of u; the normal is named."""
    domain = Box((0.0,) * d, (1.0,) * d)
    exact = "1 + 0.5*x + 0.25*sin(2*x)" + (" + 0.25*y**2" if d == 2 else "")
    ux = "(0.5 + 0.5*cos(2*x))"
    flux = f"(1 + 0.3*x)*({ux}*nx" + (" + 0.5*y*ny)" if d == 2 else ")")
    laplacian = "-sin(2*x)" + (" + 0.5" if d == 2 else "")
    f = f"-(0.3*{ux} + (1 + 0.3*x)*({laplacian}))"
    robin = Condition(robin=Robin("1 + u**3", f"{flux} + (1 + ({exact})**3)*({exact})"))
    neumann = Condition(neumann=f"{flux} - 0.5*(u**2 - ({exact})**2)")
    boundary = {"left": robin, "right": neumann}
    if d == 2:
        boundary |= {"bottom": Condition(dirichlet=exact), "top": robin}
    problem = Problem(domain, Equation(K=K, f=f), boundary, exact=exact)
    assert not problem.linear
    grid = Grid((n,) * d, centring).bind(domain)
    solution = solve(problem, Newton(rtol=1e-11), on=grid)
    gap = solution.value - values_on(problem, grid, exact, "exact")
    return float(gap.abs().max())


@pytest.mark.parametrize("K", ("1 + 0.3*x", "1 + 0.3*x + 0*u"), ids=("semilinear", "quasilinear"))
@pytest.mark.parametrize("d", (1, 2))
@pytest.mark.parametrize("centring", ("node", "cell"))
def test_second_order_with_sides_that_name_the_solution(centring, d, K):
    sizes = (33, 65) if d == 1 else (17, 33)
    coarse, fine = (manufactured_radiation(centring, n, d, K) for n in sizes)
    steps = [n - 1 if centring == "node" else n for n in sizes]
    assert math.log(coarse / fine) / math.log(steps[1] / steps[0]) == pytest.approx(2, abs=0.15)


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_a_rod_that_radiates_meets_its_closed_form(centring):
    """u'' = 0, u(0) = 2, -K u'(1) = h u + sigma u^4: exact on every grid."""
    h, sigma, K = 0.5, 0.3, 1.7
    problem = Problem(
        Box((0.0,), (1.0,)), Equation(K=K),
        {"left": Condition(dirichlet=2.0),
         "right": Condition(robin=Robin("h + sigma*u**3", "0.1*nx"))},
        parameters={"h": h, "sigma": sigma},
    )  # fmt: skip
    end = 1.0
    for _ in range(60):
        gap = K * (end - 2) + h * end + sigma * end**4 - 0.1
        end -= gap / (K + h + 4 * sigma * end**3)
    grid = Grid((9,), centring).bind(problem.box)
    (x,) = grid.axes()
    solution = solve(problem, on=grid)
    assert any("newton" in note for note in solution.notes)
    torch.testing.assert_close(solution.value, 2 + (end - 2) * x, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("K", ("1 + x", "1 + x + 0.1*u"), ids=("semilinear", "quasilinear"))
@pytest.mark.parametrize("centring", ("node", "cell"))
def test_the_jacobian_has_the_sides_that_name_the_solution(centring, K):
    alpha = Condition(robin=Robin("1 + u**2", "x + sin(u)"))
    boundary = {"left": alpha, "right": Condition(neumann="-u*abs(u)"), "bottom": alpha,
                "top": Condition(dirichlet=1.0)}  # fmt: skip
    problem = Problem(box(2), Equation(K=K, b=("0.3", "-0.2"), f="x"), boundary)
    system = semidiscretize(problem, Grid((6, 7), centring))
    u = random(system.shape) + 1
    J = jacobian(lambda v: system.residual(v, 0.0), u)
    torch.testing.assert_close(dense(system.linearise(u, 0.0)), J)


def test_a_rod_cools_by_radiation():
    """It conducts quickly: u' = -2 sigma u^4, and so u = (1 + 6 sigma t)^(-1/3)."""
    sides = {"all": Condition(robin=Robin("sigma*u**3"))}
    for centring in ("node", "cell"):
        problem = Problem(
            Box((0.0,), (1.0,)), Equation(d=1.0, K=1e4), sides,
            parameters={"sigma": 0.2}, time=Time(1.0), initial=1.0,
        )  # fmt: skip
        solution = solve(problem, SDIRK(rtol=1e-8), on=Grid((9,), centring))
        expected = (1 + 6 * 0.2) ** (-1 / 3)
        torch.testing.assert_close(
            solution.value[-1], torch.full((9,), expected, dtype=torch.float64), rtol=1e-4, atol=0
        )


def test_side_data_of_a_system_name_other_fields():
    """v follows u through the left side: the flux into v is u there."""
    equations = {"u": Equation(d=1.0, K=1.0), "v": Equation(d=1.0, K=1.0)}
    for centring in ("node", "cell"):
        problem = Problem(
            Box((0.0,), (1.0,)), System(equations),
            {"left": Condition(neumann="v - u"), "right": Condition(neumann=0)},
            time=Time(0.1), initial={"u": 1.0, "v": "2.0 + 0*x"},
        )  # fmt: skip
        value = solve(problem, SDIRK(), on=Grid((17,), centring)).value[-1]
        # Both fields have the same datum, and so the same gain: their difference stays 1, but for
        # h^2 that a cell's own value on the side is off from another field's.
        gap = float((value[1] - value[0] - 1).abs().max())
        assert gap < (1e-6 if centring == "node" else 1 / 17**2)
        weights = torch.ones(17, dtype=torch.float64)
        weights[[0, -1]] = 0.5 if centring == "node" else 1.0
        mean = float((weights * value[0]).sum() / weights.sum())
        assert mean == pytest.approx(1.1, abs=1e-4 if centring == "node" else 1e-3)


@pytest.mark.parametrize(
    "condition, message",
    (
        (Condition(dirichlet="1 + u"), "Dirichlet value may not depend"),
        (Condition(neumann="ux"), "not its slopes"),
        (Condition(robin=Robin("uy", 0.0)), "not its slopes"),
    ),
)
def test_what_a_side_may_not_name_is_refused(condition, message):
    problem = Problem(box(1), Equation(f=1.0), {"left": Condition(dirichlet=0), "right": condition})
    with pytest.raises(InputError, match=message) as caught:
        semidiscretize(problem, Grid((9,)))
    assert caught.value.key.startswith("problem.boundary.right")


def test_normals_point_out_of_the_fluid_on_sides_and_rims():
    """u = x has n . grad u = nx on every side, and on the rim of a hole."""
    for centring in ("node", "cell"):
        problem = Problem(
            Box((0.0, 0.0), (1.0, 1.0)), Equation(),
            {"left": Condition(dirichlet="x"), "right": Condition(neumann="nx"),
             "bottom": Condition(neumann="nx"), "top": Condition(robin=Robin(1.0, "x + nx"))},
            Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", Condition(neumann="nx")),
        )  # fmt: skip
        grid = Grid((33, 33), centring).bind(problem.box)
        value = solve(problem, on=grid).value
        gap = (value - grid.coordinates()[0])[~value.isnan()]
        assert float(gap.abs().max()) < 2e-3


@pytest.mark.parametrize("d", (1, 2, 3))
def test_normals_point_out_of_a_mesh(d):
    """A linear u is met to rounding by its flux, n . grad u, through all boundaries but one."""
    slope = (2.0, -3.0, 0.5)[:d]
    u = " + ".join(f"({s})*{a}" for s, a in zip(slope, "xyz", strict=False))
    g = " + ".join(f"({s})*n{a}" for s, a in zip(slope, "xyz", strict=False))
    for element in ("P1", "P2"):
        mesh = unit_mesh(3, d, element, jitter=0.1)
        sides = dict.fromkeys(mesh.boundaries, Condition(neumann=g))
        sides["left"] = Condition(dirichlet=u)
        sides["right"] = Condition(robin=Robin(1.5, f"1.5*({u}) + {g}"))
        solution = solve(Problem(None, Equation(), sides, exact=u), on=mesh)
        points = [torch.from_numpy(p) for p in mesh.nodes.T]
        exact = sum(s * p for s, p in zip(slope, points, strict=True))
        torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="this problem has no time"):
        solve(Problem(None, Equation(), {**sides, "right": Condition(neumann="t")}), on=mesh)
    with pytest.raises(InputError, match="outward normal is known in"):
        solve(Problem(None, Equation(f="nx"), sides), on=mesh)


def test_a_quasilinear_jacobian_is_that_of_the_flux_without_its_limiter():
    """Burgers in time: compact, and exact for what it leaves in."""
    problem = Problem(
        box(2), Equation(d=1.0, K="0.01 + 0.01*u**2", b=("u", "1 - u")),
        {"left": CONDITIONS[D], "right": CONDITIONS[N], "bottom": CONDITIONS[R],
         "top": CONDITIONS[R]},
        time=Time(1.0), initial="x",
    )  # fmt: skip
    for centring in ("node", "cell"):
        grid = Grid((6, 7), centring).bind(problem.box)
        info = data(problem, layout(problem, grid, torch.float64, "cpu"), torch.float64, "cpu")
        fluxes = Quasilinear(problem, info.at_time(0.0))
        system = semidiscretize(problem, grid)
        u = random(system.shape)
        J = jacobian(lambda v, F=fluxes: F.residual(v, 0.0, compact=True), u)
        torch.testing.assert_close(dense(system.linearise(u, 0.0)), J)
        gap = system.residual(u, 0.0) - fluxes.residual(u, 0.0, compact=True)
        assert float(gap.abs().max()) > 1e-4


@pytest.mark.parametrize("solver", (ETDRK4(), Projection()), ids=lambda s: s.kind)
def test_solvers_without_these_fluxes_refuse_a_scheme(solver):
    walls = {"all": CONDITIONS[P] if solver.kind == "etdrk4" else Condition(dirichlet=(0.0, 0.0))}
    equation = Equation(d=1.0) if solver.kind == "etdrk4" else NavierStokes(viscosity=0.1)
    initial = 0.0 if solver.kind == "etdrk4" else {"u": 0.0, "v": 0.0}
    problem = Problem(Box((0.0, 0.0), (1.0, 1.0)), equation, walls, time=Time(0.1), initial=initial)
    with pytest.raises(InputError) as caught:
        solve(problem, solver, on=Grid((9, 9), scheme="central"))
    assert caught.value.key == "grid.scheme"


def test_a_parameter_cannot_take_the_name_of_the_normal():
    problem = Problem(box(1), Equation(), {"all": Condition(dirichlet=0)}, parameters={"nx": 1.0})
    with pytest.raises(InputError, match="the name is taken"):
        discretize(problem, Grid((9,)))


@pytest.mark.parametrize("side", [{"dirichlet": 0.0}, {"neumann": 0.0}, {"periodic": True}])
def test_the_fields_of_a_system_may_have_any_names(side):
    def last(first: str, second: str) -> torch.Tensor:
        system = System(
            {
                first: Equation(d=1.0, K=0.1, f=f"1 - {first}*{second}*x"),
                second: Equation(d=1.0, K=0.1, f=f"{first}*x"),
            }
        )
        line = Box((0.0,), (1.0,))
        problem = Problem(
            line, system, {name: Condition(**side) for name in line.sides},
            time=Time(end=0.05), initial={first: "sin(2*pi*x)", second: "x*(1 - x)"},
        )  # fmt: skip
        return solve(problem, SDIRK(), on=Grid((17,))).value[-1]

    assert torch.equal(last("a", "b"), last("u", "v"))


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_a_batch_of_robin_coefficients_with_a_quasilinear_equation(centring):
    line = Box((0.0,), (1.0,))

    def answer(alpha) -> torch.Tensor:
        sides = {name: Condition(robin=Robin("a")) for name in line.sides}
        problem = Problem(
            line, Equation(K="1 + ux**2", f=1.0), sides, parameters={"a": alpha}
        )  # fmt: skip
        return solve(problem, on=Grid((17,), centring)).value

    together = answer([1.0, 2.0, 3.0])
    for k, alpha in enumerate((1.0, 2.0, 3.0)):
        torch.testing.assert_close(together[k], answer(alpha), rtol=1e-7, atol=1e-9)


def test_a_mass_may_be_an_array():
    line = Box((0.0,), (1.0,))
    walls = dict.fromkeys(line.sides, Condition(dirichlet=0.0))

    def last(d) -> torch.Tensor:
        problem = Problem(
            line, Equation(d=d), walls, time=Time(end=0.1), initial="sin(pi*x)"
        )  # fmt: skip
        return solve(problem, SDIRK(), on=Grid((17,))).value[-1]

    assert torch.equal(last(torch.full((17,), 2.0, dtype=torch.float64)), last(2.0))


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (Condition(neumann="ux"), "may name u, but not its slopes"),
        (Condition(dirichlet="u"), "a Dirichlet value may not depend on the solution"),
    ],
)
def test_auto_says_what_a_side_may_not_name(condition, message):
    line = Box((0.0,), (1.0,))
    sides = {"left": Condition(dirichlet=0.0), "right": condition}
    with pytest.raises(InputError, match=message):
        solve(Problem(line, Equation(), sides), on=Grid((17,)))
