"""Nonlinear systems and their solvers: orders, exact Jacobians, convergence, statuses."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from manufactured import gradient, smooth, waves

from sciml.core.algebra.stencil import Stencil, box_offsets
from sciml.core.errors import InputError, SolveError
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem, Robin, Time
from sciml.core.run.status import Status
from sciml.discretization import discretize, semidiscretize
from sciml.discretization.fields import values_on
from sciml.discretization.volumes.jacobian import box_jacobian
from sciml.solvers import CG, GMRES, PINN, SDIRK, Auto, DeepRitz, Direct, Newton, Picard
from sciml.solvers.nonlinear.descent import Continuation
from sciml.solvers.solve import solve

D, N, R, P = "dirichlet", "neumann", "robin", "periodic"
ZERO = Condition(dirichlet=0.0)


def box(d, low=0.0, high=1.0):
    return Box((low,) * d, (high,) * d)


def all_sides(domain, condition):
    return dict.fromkeys(domain.sides, condition)


CONDITIONS = {
    D: Condition(dirichlet="1 + x*x"),
    N: Condition(neumann="0.3*x + 0.1"),
    R: Condition(robin=Robin(1.3, "x")),
    P: Condition(periodic=True),
}


def stated(kinds, **equation):
    domain = box(len(kinds) // 2)
    boundary = {s: CONDITIONS[k] for s, k in zip(domain.sides, kinds, strict=True)}
    return Problem(domain, Equation(**equation), boundary)


# --- Orders -----------------------------------------------------------------------------------


def conductivity(u, *slopes):
    return 1 + 0.3 * u * u + 0.2 * sum(s * s for s in slopes)


def quasilinear(u, kinds, carried=0.0):
    """``-div(K(u, grad u) grad u) + carried u u_x + u^2 u = f`` with the data that u asks for."""
    d = len(kinds) // 2
    domain = box(d)

    def flow(points):
        x = [p.detach().clone().requires_grad_() for p in points]
        slopes = gradient(u, x)
        K = conductivity(u(*x), *slopes)
        return x, [K * s for s in slopes]

    def f(*points):
        x, carried_flux = flow(points)
        total = u(*x) ** 3 + carried * u(*x) * gradient(u, x)[0]
        for k, q in enumerate(carried_flux):
            total = total - torch.autograd.grad(q.sum(), x[k], retain_graph=True)[0]
        return total.detach()

    def side(kind, axis, outward):
        def normal(*points):
            return (outward * flow(points)[1][axis]).detach()

        if kind == P:
            return Condition(periodic=True)
        if kind == D:
            return Condition(dirichlet=u)
        if kind == N:
            return Condition(neumann=normal)
        return Condition(robin=Robin(1.5, lambda *p: 1.5 * u(*p) + normal(*p)))

    boundary = {
        SIDES[k // 2][k % 2]: side(kind, k // 2, 1 if k % 2 else -1) for k, kind in enumerate(kinds)
    }
    slopes = ("ux", "uy", "uz")[:d]
    K = f"1 + 0.3*u**2 + 0.2*({'+'.join(s + '**2' for s in slopes)})"
    b = (f"{carried}*u", *(0.0,) * (d - 1)) if carried else None
    return Problem(domain, Equation(K=K, b=b, c="u**2", f=f), boundary, exact=u)


def error(problem, n, centring):
    grid = Grid((n,) * problem.box.dimension, centring).bind(problem.box)
    gap = solve(problem, Newton(rtol=1e-9), on=grid).value - problem.exact(*grid.coordinates())
    if centring == "node":
        for axis in range(gap.ndim):
            gap.select(axis, 0).mul_(0.5**0.5)
            gap.select(axis, -1).mul_(0.5**0.5)
    return float((gap.square().sum() * math.prod(grid.spacing)).sqrt())


def order(problem, sizes, centring):
    first, second = (error(problem, n, centring) for n in sizes)
    gaps = [n - (centring == "node") for n in sizes]
    return math.log(first / second) / math.log(gaps[1] / gaps[0])


SIZES = {1: (65, 129), 2: (17, 33), 3: (9, 15)}


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize(
    "u, kinds, carried",
    (
        (smooth, [D, D], 0.0), (smooth, [D, R], 1.0), (waves, [P, P], 0.0),
        (smooth, [D] * 4, 1.0), (smooth, [R, D, N, D], 0.0), (waves, [P] * 4, 0.0),
        (smooth, [D, D, N, D, R, D], 0.0),
    ),
)  # fmt: skip
def test_quasilinear_problems_are_solved_to_second_order(u, kinds, carried, centring):
    problem = quasilinear(u, kinds, carried)
    assert order(problem, SIZES[len(kinds) // 2], centring) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("d", (1, 2, 3))
def test_energies_are_minimised_to_second_order(d):
    s = "*".join(f"sin(pi*{x})" for x in "xyz"[:d])
    slopes = "+".join(f"{u}**2" for u in ("ux", "uy", "uz")[:d])
    energy = f"0.5*({slopes}) + 0.25*u**4 - u*({d}*pi**2*{s} + ({s})**3)"
    domain = box(d)
    problem = Problem(domain, Equation(energy=energy), all_sides(domain, ZERO),
                      exact=lambda *x: math.prod(torch.sin(math.pi * p) for p in x))  # fmt: skip
    assert order(problem, SIZES[d], "node") == pytest.approx(2, abs=0.1)


def test_natural_conditions_of_an_energy_are_met_to_second_order():
    # u = exp(x + y/2): n . grad u = g - alpha u with the alpha and g below.
    u = "exp(x + y/2)"
    domain = box(2)
    boundary = {
        "left": Condition(neumann=f"-{u}"),
        "right": Condition(robin=Robin(2.0, f"3*{u}")),
        "bottom": Condition(dirichlet="exp(x)"),
        "top": Condition(neumann=f"0.5*{u}"),
    }
    equation = Equation(energy=f"0.5*(ux**2 + uy**2) + 1.25*u*{u}")
    problem = Problem(domain, equation, boundary, exact=lambda x, y: torch.exp(x + y / 2))
    assert order(problem, (17, 33), "node") == pytest.approx(2, abs=0.1)


# --- Jacobians --------------------------------------------------------------------------------

QUASILINEAR = {
    1: {"K": "1 + u**2 + 0.5*ux**2", "b": ("u",), "c": "u", "f": "x*ux"},
    2: {"K": ("1 + uy**2", "1 + u**2 + ux**2"), "b": ("u", "ux"), "c": "u", "f": "x*uy"},
    3: {"K": "1 + u**2 + 0.5*(ux**2 + uy**2 + uz**2)", "f": "sin(u)"},
}
SIDES_OF = ([D, N], [R, D], [P, P], [D, R, N, N], [P, P, D, R], [R] * 4, [P] * 4,
            [D, N, R, R, P, P])  # fmt: skip


def dense(J):
    return torch.from_numpy(J.to_scipy().toarray())


def random(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_columns(F, u):
    return torch.func.jacfwd(F)(u).reshape(u.numel(), -1)


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("kinds", SIDES_OF, ids=" ".join)
def test_the_jacobian_of_a_quasilinear_residual_is_exact(kinds, centring):
    d = len(kinds) // 2
    system = semidiscretize(stated(kinds, **QUASILINEAR[d]), Grid((7, 6, 5)[:d], centring))
    u = random(system.shape)
    J = dense(system.linearise(u, 0.0))
    torch.testing.assert_close(J, by_columns(lambda v: system.residual(v, 0.0), u))
    way, h = random(system.shape, 1), 1e-6
    rise = system.residual(u + h * way, 0.0) - system.residual(u - h * way, 0.0)
    torch.testing.assert_close(
        J @ way.flatten(), rise.flatten() / (2 * h), rtol=1e-6, atol=1e-7 * float(J.abs().max())
    )


@pytest.mark.parametrize("kinds", SIDES_OF, ids=" ".join)
def test_the_hessian_of_an_energy_is_exact_and_symmetric(kinds):
    d = len(kinds) // 2
    slopes = "+".join(f"{s}**2" for s in ("ux", "uy", "uz")[:d])
    problem = stated(kinds, energy=f"0.25*({slopes})**2*(1 + 0.1*u**2) - cos(3*u)*(1 + x)")
    system = semidiscretize(problem, Grid((7, 6, 5)[:d]))
    u = random(system.shape)
    J = dense(system.linearise(u, 0.0))
    torch.testing.assert_close(J, by_columns(lambda v: system.residual(v, 0.0), u))
    torch.testing.assert_close(J, J.mT)
    gradient_of_E = torch.func.grad(lambda v: system.potential(v, 0.0))(u)
    torch.testing.assert_close(system.residual(u, 0.0), gradient_of_E)
    P = system.diffusion(u, 0.0)
    assert P.definite and float(torch.linalg.eigvalsh(dense(P))[0]) > 0


@pytest.mark.parametrize("centring", ("node", "cell"))
def test_the_jacobian_of_a_batch_is_that_of_each_sample(centring):
    problem = stated([D, R, N, N], K="1 + a*u**2", f="exp(u) + a")
    for equation in (problem.equation, Equation(K="1 + x", f="a*exp(u)", c="u*a")):
        several = Problem(problem.box, equation, problem.boundary, parameters={"a": [0.5, 2.0]})
        system = semidiscretize(several, Grid((6, 5), centring))
        assert system.batch == (2,)
        u = random((2, *system.shape))
        J = system.linearise(u, 0.0)
        for k, a in enumerate((0.5, 2.0)):
            one = Problem(problem.box, equation, problem.boundary, parameters={"a": a})
            alone = semidiscretize(one, Grid((6, 5), centring)).linearise(u[k], 0.0)
            torch.testing.assert_close(
                J.coefficients[k], alone.coefficients.expand_as(J.coefficients[k])
            )


@given(
    st.lists(st.tuples(st.integers(3, 8), st.booleans()), min_size=1, max_size=2),
    st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_coloured_products_recover_any_box_stencil(axes, seed):
    shape, periodic = tuple(n for n, _ in axes), tuple(wraps for _, wraps in axes)
    offsets = box_offsets(len(shape))
    A = Stencil(random((len(offsets), *shape), seed), offsets, periodic=periodic)
    found = Stencil(box_jacobian(A.apply, random(shape), periodic), offsets, periodic=periodic)
    torch.testing.assert_close(dense(found), dense(A))


def test_products_taken_a_few_at_a_time_give_the_same_jacobian(monkeypatch):
    A = Stencil(random((9, 7, 8)), box_offsets(2), periodic=(True, False))
    whole = box_jacobian(A.apply, random((7, 8)), A.periodic)
    monkeypatch.setattr("sciml.discretization.volumes.jacobian._ENTRIES", 2 * 56)
    torch.testing.assert_close(box_jacobian(A.apply, random((7, 8)), A.periodic), whole)


def test_functions_may_take_the_solution_and_time_by_name():
    domain, grid = box(2), Grid((9, 8))
    sides = all_sides(domain, CONDITIONS[D])
    u = random((7, 6))
    written = Equation(K="1 + u**2 + ux**2", f="x*u", c="uy**2")
    called = Equation(
        K=lambda x, y, u, ux: 1 + u**2 + ux**2, f=lambda x, y, u: x * u, c=lambda *x, uy: uy**2
    )
    first, second = (semidiscretize(Problem(domain, e, sides), grid) for e in (written, called))
    torch.testing.assert_close(first.residual(u, 0.0), second.residual(u, 0.0))
    heat = Equation(d=1.0, f=lambda x, y, t: x * t)
    system = semidiscretize(Problem(domain, heat, sides, time=Time(1.0), initial=0.0), grid)
    assert not torch.equal(system.residual(u, 0.0), system.residual(u, 0.5))
    with pytest.raises(InputError, match="takes 'u'"):
        discretize(Problem(domain, Equation(f=lambda x, y, u: u), sides), grid)


def test_a_semilinear_jacobian_is_the_operator_and_a_diagonal():
    system = semidiscretize(stated([D, N, R, D], K="1 + x", f="-u**3", c="x"), Grid((9, 8)))
    u = random(system.shape)
    J = system.linearise(u, 0.0)
    torch.testing.assert_close(dense(J), by_columns(lambda v: system.residual(v, 0.0), u))
    assert J.symmetric and J.definite
    unsure = semidiscretize(stated([D, N, R, D], f="50*u"), Grid((9, 8))).linearise(u, 0.0)
    assert unsure.symmetric and not unsure.definite


# --- Agreement with the linear discretisation ---------------------------------------------------

LINEAR = {"K": "1 + x", "b": ("0.3 + x", "2.0", "-1.0"), "c": "1 + x", "f": "x"}


def linear(kinds):
    d = len(kinds) // 2
    return stated(kinds, **{**LINEAR, "b": LINEAR["b"][:d]})


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("kinds", SIDES_OF, ids=" ".join)
def test_an_affine_residual_is_that_of_the_linear_system(kinds, centring):
    grid = Grid((7, 6, 5)[: len(kinds) // 2], centring)
    system, known = semidiscretize(linear(kinds), grid), discretize(linear(kinds), grid)
    u = random(system.shape)
    assert system.affine
    torch.testing.assert_close(system.residual(u, 0.0), known.A.apply(u) - known.b)
    # The same coefficients through face fluxes: 0*u keeps them from being linear by their text.
    disguised = {**LINEAR, "b": tuple(f"{v} + 0*u" for v in LINEAR["b"][: len(kinds) // 2])}
    fluxes = semidiscretize(stated(kinds, **disguised), grid)
    torch.testing.assert_close(fluxes.residual(u, 0.0), known.A.apply(u) - known.b)


def test_an_affine_problem_takes_one_step_to_the_linear_answer():
    for kinds in ([D, N, R, D], [N] * 4):
        problem = stated(kinds, K="1 + x", f="cos(pi*x)" if D not in kinds else "x")
        if D not in kinds:
            problem = Problem(box(2), problem.equation, all_sides(box(2), Condition(neumann=0.0)))
        for n in (17, 65):
            one = solve(problem, Newton(rtol=1e-10), on=Grid((n, n)))
            known = solve(problem, Direct(), on=Grid((n, n)))
            assert int(one.stats.iterations) == 1
            torch.testing.assert_close(one.value, known.value, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "boundary", (ZERO, Condition(neumann=0.0), Condition(robin=Robin(1.0, "t")))
)
def test_time_enters_data_and_operator(boundary):
    domain = box(2)
    equation = Equation(d="1 + x", K="1 + t*x", f="exp(-t)*y", c="t")
    sides = {**all_sides(domain, CONDITIONS[N]), "left": Condition(dirichlet="sin(t) + y")}
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", boundary)
    problem = Problem(domain, equation, sides, hole, time=Time(1.0), initial="x")
    system = semidiscretize(problem, Grid((17, 17)))
    assert system.affine and not system.steady and system.mass.shape == system.shape
    u, t = system.first[0], 0.7

    rim = boundary if boundary.robin is None else Condition(robin=Robin(1.0, 0.7))
    steady = Problem(
        domain,
        Equation(K="1 + 0.7*x", f="exp(-0.7)*y", c=0.7),
        {**sides, "left": Condition(dirichlet="sin(0.7) + y")},
        Obstacle(hole.inside, rim),
    )
    known = discretize(steady, Grid((17, 17)))
    torch.testing.assert_close(system.residual(u, t), known.A.apply(u) - known.b)
    torch.testing.assert_close(system.lift(u, t), known.lift(u), equal_nan=True)


# --- Solvers ------------------------------------------------------------------------------------


def bratu(lam, d=2):
    return Problem(box(d), Equation(kind="bratu"), all_sides(box(d), ZERO), parameters={"lam": lam})


def test_bratu_in_one_dimension_meets_its_closed_form():
    # u = 2 log(cosh(a) / cosh(a (1 - 2 x))), a = sqrt(lam / 8) cosh(a).
    a = 0.0
    for _ in range(200):
        a = math.sqrt(1 / 8) * math.cosh(a)
    peak = float(solve(bratu(1.0, 1), Newton(), on=Grid((513,))).value.max())
    assert peak == pytest.approx(2 * math.log(math.cosh(a)), rel=1e-5)
    assert peak == pytest.approx(0.14054, abs=2e-5)


def test_convergence_is_quadratic_at_the_end():
    solution = solve(bratu(5.0), Newton(rtol=1e-13, linear=Direct()), on=Grid((25, 25)))
    last = [math.log(float(r)) for r in solution.stats.residuals[-4:-1]]
    assert (last[2] - last[1]) / (last[1] - last[0]) > 1.7


def test_newton_takes_as_many_steps_on_every_mesh():
    domain = box(2, -1.2, 1.2)
    height = "log(cos(x)/cos(y))"
    sides = all_sides(domain, Condition(dirichlet=height))
    for equation in (
        Equation(kind="minimal_surface"),
        Equation(energy="sqrt(1 + ux**2 + uy**2)"),
    ):
        problem = Problem(domain, equation, sides)
        counts = [
            int(solve(problem, Newton(), on=Grid((n, n))).stats.iterations) for n in (33, 65, 97)
        ]
        assert max(counts) <= min(counts) + 2 and max(counts) <= 8


def radial(p, equation):
    exact = "-(p - 1)/p*0.5**(1/(p - 1))*(x**2 + y**2)**(p/(2*p - 2))"
    domain = box(2, -1.0, 1.0)
    return Problem(domain, equation, all_sides(domain, Condition(dirichlet=exact)), exact=exact,
                   parameters={"p": p})  # fmt: skip


@pytest.mark.parametrize("p", (1.5, 3.0, 4.0))
@pytest.mark.parametrize("solver", (Newton(), Picard()), ids=("newton", "picard"))
def test_p_laplace_converges_as_its_solution_is_smooth(p, solver):
    # u ~ |x|^(p / (p - 1)), so that the error at the origin is of that order, at most 2.
    problem = radial(p, Equation(kind="p_laplace", f=1.0))
    errors = []
    for n in (33, 65):
        grid = Grid((n, n)).bind(problem.box)
        gap = solve(problem, solver, on=grid).value - values_on(
            problem, grid, problem.exact, "exact"
        )
        errors.append(float(gap.abs().max()))
    expected = min(2.0, p / (p - 1))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("p", (1.5, 3.0, 4.0))
def test_p_laplace_by_its_energy(p):
    problem = radial(p, Equation(energy="(ux**2 + uy**2 + 1e-12)**(p/2)/p - u"))
    grid = Grid((33, 33)).bind(problem.box)
    value = solve(problem, Newton(), on=grid).value
    assert float((value - values_on(problem, grid, problem.exact, "exact")).abs().max()) < 2e-3


def test_a_batch_is_solved_as_its_samples_are():
    together = solve(bratu([1.0, 3.0, 6.0, 7.5]), Newton(), on=Grid((49, 49)), throw=False)
    assert together.converged.tolist() == [True, True, True, False]
    assert together.statuses[3] is Status.LINE_SEARCH_FAILED
    assert together.stats.residuals.shape[1:] == (4,)
    for k, lam in enumerate((1.0, 3.0, 6.0)):
        alone = solve(bratu(lam), Newton(), on=Grid((49, 49)))
        torch.testing.assert_close(together.value[k], alone.value, rtol=1e-6, atol=1e-8)


def test_the_residual_reported_is_the_true_one():
    problem, grid = bratu(4.0), Grid((49, 49))
    solution = solve(problem, Newton(rtol=1e-6), on=grid)
    system = semidiscretize(problem, grid)
    u = system.restrict(solution.value)
    right = system.diffusion(u, 0.0).apply(u) - system.residual(u, 0.0)
    known = system.residual(u, 0.0).norm() / right.norm()
    assert float(solution.residual) == pytest.approx(float(known)) and known <= 1e-6


def floating(f, domain, **more):
    neumann = all_sides(domain, Condition(neumann=0.0))
    return Problem(domain, Equation(K="1 + u**2", f=f), neumann, **more)


UNEVEN = "cos(pi*x) + 2*cos(2*pi*x)"


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_where_only_K_names_u_the_answer_has_zero_mean(centring):
    """With w = u + u^3/3 the equation is -w'' = f, so that w is known but for a constant."""
    errors = []
    for n in (32, 64):
        grid = Grid((n + (centring == "node"),), centring)
        found = solve(floating(UNEVEN, box(1)), Newton(), on=grid)
        u = found.value
        weights = torch.ones_like(u)
        if centring == "node":
            weights[[0, -1]] = 0.5
        assert abs(float((weights * u).sum())) < 1e-12
        assert float(u.max() - u.min()) > 0.2
        assert any("nothing holds the level of u" in note for note in found.notes)
        x = grid.bind(box(1)).axes()[0]
        exact = (math.pi * x).cos() / math.pi**2 + (2 * math.pi * x).cos() / (2 * math.pi**2)
        gap = u + u**3 / 3 - exact
        errors.append(float(gap.max() - gap.min()))
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_what_is_carried_round_a_periodic_box_has_zero_mean_too():
    domain, grid = box(1), Grid((33,))
    periodic = all_sides(domain, Condition(periodic=True))
    problem = Problem(domain, Equation(K="1 + u**2", b=(1.0,), f="cos(2*pi*x)"), periodic)
    start = 2 + values_on(problem, grid, "0*x", "problem.exact")
    for initial in (None, start):
        value = solve(problem, Newton(rtol=1e-12), on=grid, initial=initial).value
        assert abs(float(value[:-1].mean())) < 1e-14
        assert float(value.max()) > 0.01
    with pytest.raises(InputError, match="incompatible"):
        solve(Problem(domain, Equation(K="1 + u**2", b=(1.0,), f=1.0), periodic), on=grid)


def test_a_level_that_is_free_is_found_from_any_start_and_by_multigrid():
    grid, problem = Grid((49, 49)), floating("cos(pi*x)*(1 + y)", box(2))
    right = solve(problem, Newton(), on=grid)
    assert "gmres with multigrid" in " ".join(right.notes)
    start = 3 + values_on(problem, grid, "0.1*x", "problem.exact")
    for solver in (Newton(linear=GMRES()), Picard()):
        found = solve(problem, solver, on=grid, initial=start).value
        torch.testing.assert_close(found, right.value, rtol=0, atol=1e-7)
    with pytest.raises(InputError, match="nothing holds the level of u") as error:
        solve(problem, Newton(linear=Direct()), on=grid)
    assert error.value.key == "solver.linear"


@pytest.mark.parametrize("K", ["1 + u**2", "1 + ux**2"])
def test_sources_that_no_level_can_meet_are_refused(K):
    problem = floating("cos(pi*x) + 0.5", box(1))
    problem = Problem(problem.box, Equation(K=K, f=problem.form.f), problem.boundary)
    for solver in (Newton(), Picard()):
        with pytest.raises(InputError, match=r"incompatible data.* integrate to 0\.5"):
            solve(problem, solver, on=Grid((33,)))


def test_an_answer_of_zero_mean_is_differentiable():
    grid, rng = Grid((17,)), torch.Generator().manual_seed(0)
    x = grid.bind(box(1)).axes()[0]
    weights = torch.randn(17, generator=rng, dtype=torch.float64)

    def loss(s):
        f = s * (math.pi * x).cos() + 2 * (2 * math.pi * x).cos()
        return (weights * solve(floating(f, box(1)), Newton(rtol=1e-12), on=grid).value).sum()

    s = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(s), s)
    h = 1e-4
    central = (loss(s.detach() + h) - loss(s.detach() - h)) / (2 * h)
    assert float(slope) == pytest.approx(float(central), rel=1e-6)


def test_a_good_first_guess_is_accepted_as_it_is():
    problem, grid = radial(3.0, Equation(kind="p_laplace", f=1.0)), Grid((33, 33))
    answer = solve(problem, Newton(), on=grid)
    again = solve(problem, Newton(), on=grid, initial=answer.value)
    assert again.converged and int(again.stats.iterations) == 0


def test_continuation_reaches_what_a_cold_start_does_not_and_tells_the_fold():
    grid = Grid((33, 33))
    near = Newton(continuation=Continuation("lam", 1.0, 4))
    cold, warm = (solve(bratu(6.79), s, on=grid, throw=False) for s in (Newton(), near))
    assert warm.converged and any("continuation: lam from 1" in note for note in warm.notes)
    if cold.converged:
        torch.testing.assert_close(cold.value, warm.value, rtol=1e-4, atol=1e-5)
    beyond = solve(bratu(7.2), near, on=grid, throw=False)
    assert beyond.status is Status.LINE_SEARCH_FAILED
    (told,) = [note for note in beyond.notes if "no solution found beyond lam" in note]
    assert float(told.split("=")[1]) == pytest.approx(6.80, abs=0.03)


def test_a_nonconvex_energy_gets_one_line():
    domain = box(2)
    equation = Equation(energy="0.5*(ux**2 + uy**2) - u**4 - u")
    problem = Problem(domain, equation, all_sides(domain, Condition(neumann=0.0)))
    for n in (17, 49):
        with pytest.raises(SolveError, match="not convex") as caught:
            solve(problem, Newton(max_iterations=10), on=Grid((n, n)))
        assert "\n" not in str(caught.value)


def test_a_double_well_goes_down_past_negative_curvature():
    domain = box(2)
    equation = Equation(energy="0.005*(ux**2 + uy**2) + 0.25*(u**2 - 1)**2")
    sides = all_sides(domain, Condition(neumann=0.0))
    problem = Problem(domain, equation, sides)
    for n in (17, 49):
        start = torch.full((n, n), 0.05, dtype=torch.float64)
        solution = solve(problem, Newton(), on=Grid((n, n)), initial=start)
        torch.testing.assert_close(solution.value, torch.ones(n, n).double(), rtol=0, atol=1e-6)


def test_the_note_counts_the_linear_systems_of_picards_steps():
    problem = stated([D, D], K="1 + u**2", f="1")
    few, many = (solve(problem, Newton(picard=n, rtol=1e-6), on=Grid((33,))) for n in (2, 40))
    assert any("2 linear systems of picard's steps first, then" in n for n in few.notes)
    steps = int(many.stats.iterations)
    assert f"newton: {steps} linear systems of picard's steps first" in many.notes


def test_limits_and_choices_are_told():
    few = solve(bratu(6.0), Newton(max_iterations=1), on=Grid((33, 33)), throw=False)
    assert few.status is Status.MAX_ITERATIONS and not few.converged
    auto = solve(bratu(1.0), Auto(), on=Grid((33, 33)))
    assert auto.converged and any("newton" in note for note in auto.notes)
    for linear_solver in (CG(), GMRES()):
        assert solve(
            stated([D] * 4, f="-u**3"), Newton(linear=linear_solver), on=Grid((17, 17))
        ).converged


def test_steady_burgers_notes_where_it_is_upwind():
    domain = box(1, -1.0, 1.0)
    sides = {"left": Condition(dirichlet=1.0), "right": Condition(dirichlet=0.5)}
    for K, upwind in ((0.1, False), (0.005, True)):
        problem = Problem(domain, Equation(K=K, b=("u",)), sides)
        solution = solve(problem, Newton(), on=Grid((65,)))
        assert any("upwind" in note for note in solution.notes) == upwind
        # u = a tanh(a (s - x) / (2 K)) with a constant: the layer is at the outflow.
        assert float(solution.value[20]) == pytest.approx(1.0, abs=0.02)


def test_the_answer_is_differentiable_in_a_source():
    f = random((9, 9)).requires_grad_()
    domain = box(2)

    def total(source):
        problem = Problem(domain, Equation(K="1 + u**2", f=source), all_sides(domain, ZERO))
        return solve(problem, Newton(rtol=1e-12), on=Grid((9, 9))).value.square().sum()

    (slope,) = torch.autograd.grad(total(f), f)
    way, h = random((9, 9), 1), 1e-5
    with torch.no_grad():
        rise = (total(f + h * way) - total(f - h * way)) / (2 * h)
    assert float((slope * way).sum()) == pytest.approx(float(rise), rel=1e-6)


HOLE = "(x - 0.4)**2 + (y - 0.5)**2 < 0.05"


@pytest.mark.parametrize(
    ("rim", "centring"),
    [
        (Condition(dirichlet=1.0), "node"),
        (Condition(neumann=2.0), "cell"),
        (Condition(robin=Robin(3.0, 1.0)), "node"),
    ],
)
def test_conductivities_of_the_solution_beside_an_obstacle(rim, centring):
    """The answer is that of the linear problem with the conductivity that it has."""
    sides = all_sides(box(2), Condition(dirichlet="x + y**2"))
    grid = Grid((13, 13), centring)

    def posed(**law):
        return Problem(box(2), Equation(f=5.0, **law), sides, Obstacle(HOLE, rim))

    found = solve(posed(K="1 + u**2", b=("u", 0.0), c="u"), Newton(rtol=1e-12), on=grid).value
    u = found.nan_to_num(0.0)
    linear = posed(K=1 + u**2, b=(u, 0.0), c=u)
    again = solve(linear, Direct(), on=grid).value
    torch.testing.assert_close(found, again, rtol=1e-8, atol=1e-10, equal_nan=True)


def test_nothing_is_lost_round_an_obstacle_while_the_conductivity_changes():
    closed, start = Condition(neumann=0.0), "1 + cos(pi*x)*y"
    problem = Problem(box(2), Equation(d=1.0, K="1 + u"), all_sides(box(2), closed),
                      Obstacle(HOLE, closed), time=Time(0.05), initial=start)  # fmt: skip
    grid = Grid((9, 9), "cell")
    system = semidiscretize(problem, grid)
    found = solve(problem, SDIRK(rtol=1e-3), on=grid)
    kept = [(system.mass * system.restrict(value.nan_to_num(0.0))).sum() for value in found.value]
    torch.testing.assert_close(kept[0], kept[-1], rtol=1e-6, atol=0.0)


TIMED = {"time": Time(1.0), "initial": 0.0}
BAD = {
    "slopes beside an obstacle": (lambda: Problem(box(2), Equation(K="1 + ux**2"),
                                  all_sides(box(2), ZERO), Obstacle("x > 0.5", ZERO)), "node",
                                  "on u, not on its slopes"),
    "sides beside an obstacle": (lambda: Problem(box(2), Equation(K="1 + u"), all_sides(box(2),
                                 Condition(neumann="u")), Obstacle("x > 0.5", ZERO)), "node",
                                 "may not depend on it too"),
    "no level beside an obstacle": (lambda: Problem(box(2), Equation(K="1 + u"), all_sides(box(2),
                                    Condition(neumann=0.0)), Obstacle("x > 0.5",
                                    Condition(neumann=0.0))), "node", "hold its level"),
    "tensor": (lambda: stated([D] * 4, K=(("1 + u", 0.1), (0.1, 1.0))), "node",
               "scalar or diagonal"),
    "energy on cells": (lambda: stated([D] * 4, energy="ux**2"), "cell", "needs a node grid"),
    "solution in a side": (lambda: Problem(box(1), Equation(f="u"), {"left": ZERO,
                           "right": Condition(dirichlet="u")}), "node", "may not depend on the"),
    "time in a steady problem": (lambda: stated([D] * 4, f="u*t"), "node", "has no time"),
    "a mass in a steady problem": (lambda: stated([D] * 4, f="u", d=1.0), "node", "leave d out"),
    "nonlinear mass": (lambda: Problem(box(1), Equation(d="u"), all_sides(box(1), ZERO), **TIMED),
                       "node", "coordinates only"),
    "a moving obstacle": (lambda: Problem(box(2), Equation(d=1.0), all_sides(box(2), ZERO),
                          Obstacle("x > 0.5 + t", ZERO), **TIMED), "node", "cannot move"),
    "initial velocity": (lambda: Problem(box(1), Equation(d=1.0), all_sides(box(1), ZERO),
                         time=Time(1.0), initial={"u": 0.0, "ut": 1.0}), "node", "no initial 'ut'"),
    "K not positive": (lambda: stated([D] * 2, K="x - 0.5", f="u"), "node", "must be positive"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_line(name):
    make, centring, message = BAD[name]
    problem = make()
    with pytest.raises(InputError, match=message) as caught:
        semidiscretize(problem, Grid((9,) * problem.box.dimension, centring))
    assert caught.value.key and "\n" not in str(caught.value)


def test_solvers_refuse_what_is_not_theirs():
    timed = Problem(box(1), Equation(kind="heat"), all_sides(box(1), ZERO), **TIMED)
    for solver in (Newton(), Picard()):
        with pytest.raises(InputError, match="steady"):
            solve(timed, solver, on=Grid((9,)))
        with pytest.raises(InputError, match="linear system"):
            solver.init(discretize(stated([D] * 2, f=1.0), Grid((9,))))
    with pytest.raises(InputError, match="did you mean 'lam'"):
        solve(bratu(1.0), Newton(continuation=Continuation("lamb", 0.5)), on=Grid((9, 9)))
    with pytest.raises(InputError, match="use newton"):
        solve(bratu(1.0), CG(), on=Grid((9, 9)))


@pytest.mark.parametrize("kind", ["neumann", "periodic"])
def test_energies_whose_source_no_level_can_meet_are_refused(kind):
    side = Condition(neumann=0.0) if kind == "neumann" else Condition(periodic=True)
    domain, n = box(1), 33 if kind == "neumann" else 32
    stretched = "sqrt(1 + ux**2) - {}*u"
    for source, total in (("0.5", "0.5"), ("(x + 0.25)", "0.75")):
        problem = Problem(
            domain, Equation(energy=stretched.format(source)), all_sides(domain, side)
        )
        with pytest.raises(InputError, match=rf"incompatible data.* integrate to {total}") as error:
            solve(problem, Newton(), on=Grid((n,)))
        assert error.value.key == "problem.equation.energy"
    # Data that balance up to the quadrature are made to balance.
    sides = all_sides(domain, Condition(neumann=0.0))
    sides["right"] = Condition(neumann=-0.1 * (math.e - 1))
    problem = Problem(domain, Equation(energy="0.5*ux**2 - 0.1*exp(x)*u"), sides)
    found = solve(problem, Newton(), on=Grid((33,)))
    x = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert float(found.error(0.1 * (x - x.exp()))) < 1e-4


def test_data_that_no_solution_meets_are_told_by_every_kind_of_solver():
    walls = all_sides(box(2), Condition(neumann=0.0))
    forms = {"f": Equation(f="x"), "energy": Equation(energy="(ux**2 + uy**2)/2 - x*u")}
    for solver in (DeepRitz(points=20), PINN(points=20), Newton()):
        for name, equation in forms.items():
            with pytest.raises(InputError, match=r"incompatible data.* integrate to 0\.5") as error:
                solver.init(Problem(box(2), equation, walls), Grid((17, 17)))
            assert error.value.key == f"problem.equation.{name}"
    # Where it seems to depend on u it is found by trial.
    hidden = Problem(
        box(2), Equation(f="k + x - 0.5 + u - sin(u)**2*u - cos(u)**2*u"), walls,
        parameters={"k": [0.0, 0.1]},
    )  # fmt: skip
    found = solve(hidden, Newton(), on=Grid((17, 17)), throw=False)
    assert found.statuses == (Status.CONVERGED, Status.INCOMPATIBLE)
    assert any("sum to 0.1 whatever u is" in note for note in found.notes)


def test_the_level_is_that_of_zero_integral_on_every_grid():
    """Nodes have half volumes at the ends, so that means over nodes and cells differ by O(h)."""
    domain, found = box(1), []
    problem = Problem(
        domain, Equation(K="1 + u + u**2", f="cos(pi*x) + x**3 - 0.25"),
        all_sides(domain, Condition(neumann=0.0)),
    )  # fmt: skip
    for n in (17, 33, 65):
        found.append(float(solve(problem, Newton(), on=Grid((n,))).value[-1]))
    assert 3.5 < (found[0] - found[1]) / (found[1] - found[2]) < 4.5


def test_an_energy_is_solved_without_torchs_compiler() -> None:
    """It takes seconds to load."""
    program = (
        "import sys, sciml\n"
        "from sciml.core.problem.equation import Equation\n"
        "square = sciml.Box((0.0, 0.0), (1.0, 1.0))\n"
        "sides = {'all': sciml.Condition(dirichlet=0.0)}\n"
        "energy = Equation(energy='0.5*(ux**2 + uy**2) + 0.25*u**4 - u')\n"
        "found = sciml.solve(sciml.Problem(square, energy, sides), on=sciml.Grid((9, 9)))\n"
        "assert found.status.success\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
