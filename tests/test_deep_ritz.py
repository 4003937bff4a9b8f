"""Energies of networks, their natural gradient, and descent in function space."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.problem import Condition, Problem, Robin, Time
from sciml.core.run.status import Status
from sciml.solvers import Newton
from sciml.solvers.solve import solve
from sciml.solvers.trained.deep_ritz import (
    DeepRitz,
    EnergyObjective,
    NaturalGradient,
    Rule,
)
from sciml.solvers.trained.function_descent import (
    FunctionDescent,
    Metric,
    NetworkProjection,
    Projector,
)
from sciml.solvers.trained.gradient_methods import AdamDescent
from sciml.solvers.trained.sampling import gauss_legendre

SQUARE, LINE = Box((0.0, 0.0), (1.0, 1.0)), Box((-1.0,), (1.0,))
WAVE = "sin(pi*x)*sin(pi*y)"
D0 = Condition(dirichlet=0.0)
SLOPES = "(ux**2 + uy**2)"


def around(domain, condition=D0):
    return dict.fromkeys(domain.sides, condition)


MIXED = {
    "left": Condition(dirichlet="y"),
    "right": Condition(robin=Robin("1 + y", "x*y")),
    "bottom": Condition(neumann="x"),
    "top": Condition(dirichlet=1.0),
}
ENERGIES = {
    "quartic": Equation(energy=f"0.5*{SLOPES} + 0.25*u**4 - x*u"),
    "minimal": Equation(energy=f"sqrt(1 + {SLOPES})"),
    "p_laplace": Equation(energy=f"(0.1 + {SLOPES})**1.5/3 - u"),
    "linear": Equation(K=((2.0, "0.5*x"), ("0.5*x", "1 + y")), c=3.0, f="sin(x)"),
}
QUARTIC_LINE = Problem(
    LINE,
    Equation(energy="0.5*ux**2 + 0.25*u**4 - (pi**2*cos(pi*x) + cos(pi*x)**3)*u"),
    around(LINE, Condition(neumann=0.0)),
)
CUBIC = Problem(SQUARE, Equation(c="u**2", f=f"2*pi**2*{WAVE} + ({WAVE})**3"), around(SQUARE))
QUARTIC = Problem(
    SQUARE,
    Equation(energy=f"0.5*{SLOPES} + 0.25*u**4 - (2*pi**2*{WAVE} + ({WAVE})**3)*u"),
    around(SQUARE),
)


def wave(x, y):
    return torch.sin(math.pi * x) * torch.sin(math.pi * y)


def placed(problem, count=900, **options):
    objective = EnergyObjective(DeepRitz(width=6, **options).init(problem, Points(1)).objective)
    rule = Rule(count, 40)
    objective.place(
        rule.points(objective, rule.counts(objective), torch.Generator().manual_seed(0))
    )
    return objective


# --- Quadrature -------------------------------------------------------------------------------


@pytest.mark.parametrize("dimension", (0, 1, 2, 3))
def test_gauss_legendre_integrates_polynomials(dimension):
    breaks = torch.linspace(0.35, 0.6, dimension, dtype=torch.float64)
    x, w = gauss_legendre(6**dimension, breaks)
    assert len(x) >= 6**dimension
    # Three points on either side: degree five.
    assert float(w @ (x**5).prod(1)) == pytest.approx(6.0**-dimension, rel=1e-13)


# --- The energy and its derivatives -----------------------------------------------------------


@pytest.mark.parametrize("name", ENERGIES)
def test_gradient_is_that_of_finite_differences(name):
    objective = placed(Problem(SQUARE, ENERGIES[name], MIXED), 100)
    energy, gradient, _ = objective.derivatives()
    theta = objective.theta
    step = torch.randn(len(theta), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = []
    for h in (-1e-4, 1e-4):
        objective.assign(theta + h * step)
        values.append(objective.value())
    objective.assign(theta)
    assert objective.value() == pytest.approx(energy, rel=1e-13)
    assert (values[1] - values[0]) / 2e-4 == pytest.approx(float(gradient @ step), rel=1e-6)


@pytest.mark.parametrize("name", ENERGIES)
def test_gradient_is_the_strong_residual_weakly(name):
    """dE/dtheta_i = int r du/dtheta_i + what the Neumann and Robin sides leave."""
    objective = placed(Problem(SQUARE, ENERGIES[name], MIXED))
    _, gradient, _ = objective.derivatives()
    total = torch.zeros_like(gradient)
    for batch, piece in zip(objective.batches, objective.residuals.pieces, strict=True):
        pairs = objective.residuals.form.pairs
        ansatz = objective.residuals.ansatz
        jet = ansatz.jet(batch.points, pairs, ansatz.known(batch.points, pairs))
        r = piece.residual(batch.points, jet).detach()[:, 0]
        _, J = objective.tangent(batch)
        total += torch.einsum("n,np->p", batch.weights * r, J[0])
    assert float((gradient - total).norm() / gradient.norm()) < 1e-8


@pytest.mark.parametrize("name", ENERGIES)
def test_gram_matrix_is_the_second_derivative_along_the_tangent(name):
    """Symmetric, semidefinite, and the Hessian of E in the parameters that enter linearly."""
    objective = placed(Problem(SQUARE, ENERGIES[name], MIXED), 100)
    _, _, root = objective.derivatives()
    G = root.T @ root
    assert torch.allclose(G, G.T, rtol=0.0, atol=1e-14 * float(G.max()))
    assert float(torch.linalg.eigvalsh(G)[0]) > -1e-12 * float(G.diagonal().max())
    last = objective.residuals.ansatz.network.last
    theta, n = objective.theta, last.weight.numel() + last.bias.numel()
    columns = range(len(theta) - n, len(theta))
    for column in list(columns)[::3]:
        shifted = []
        for h in (-1e-5, 1e-5):
            moved = theta.clone()
            moved[column] += h
            objective.assign(moved)
            shifted.append(objective.derivatives()[1])
        found = (shifted[1] - shifted[0]) / 2e-5
        assert torch.allclose(found[-n:], G[-n:, column], rtol=1e-5, atol=1e-7 * float(G.max()))


def test_the_gram_matrix_of_a_double_well_leaves_negative_curvature_out():
    well = Problem(LINE, Equation(energy="0.001*ux**2 + 0.25*(u**2 - 1)**2"), around(LINE))
    _, _, root = placed(well, 60).derivatives()
    assert torch.isfinite(root).all()


# --- Deep Ritz --------------------------------------------------------------------------------


def test_quartic_energy_with_natural_conditions():
    solver = DeepRitz(width=10, points=60, optimiser=NaturalGradient(iterations=60), rtol=1e-2)
    solution = solve(QUARTIC_LINE, solver, on=Grid((65,)))
    assert float(solution.error(lambda x: torch.cos(math.pi * x))) < 1e-4
    assert any(note.startswith("energy -5.4973") for note in solution.notes)


def test_linear_equation_by_its_quadratic_energy():
    """u = x exp y with every kind of side but the periodic one."""
    boundary = {
        "left": D0,
        "right": Condition(robin=Robin(1.0, "2*exp(y)")),
        "bottom": Condition(neumann="-x"),
        "top": Condition(dirichlet="x*exp(1)"),
    }
    problem = Problem(SQUARE, Equation(c=1.0, f=0.0), boundary)
    solver = DeepRitz(width=8, points=256, optimiser=NaturalGradient(iterations=40), rtol=1e-2)
    solution = solve(problem, solver, on=Grid((17, 17)))
    assert float(solution.error(lambda x, y: x * torch.exp(y))) < 1e-4


def test_no_function_hides_between_the_points():
    """With a fixed rule of so few points the energy sinks below the least there is."""
    cusp = "-(2/3)*0.5**0.5*(x**2 + y**2)**0.75"
    domain = Box((-1.0, -1.0), (1.0, 1.0))
    problem = Problem(
        domain, Equation(energy=f"{SLOPES}**1.5/3 - u"), around(domain, Condition(dirichlet=cusp))
    )
    solver = DeepRitz(width=8, points=256, optimiser=NaturalGradient(iterations=50))
    solution = solve(problem, solver, on=Grid((17, 17)), throw=False)

    def exact(x, y):
        return -(2 / 3) * 0.5**0.5 * (x**2 + y**2) ** 0.75

    assert float(solution.error(exact)) < 1e-2


def test_adam_lowers_the_energy_and_may_come_first():
    least = DeepRitz(width=8, points=60, optimiser=AdamDescent(iterations=60, rate=1e-2))
    first = solve(QUARTIC_LINE, least, on=Grid((33,)), throw=False)
    assert float(first.stats.residuals[0]) > 0.1
    both = DeepRitz(
        width=8, points=60, optimiser=(AdamDescent(iterations=60, rate=1e-2), NaturalGradient(30))
    )
    second = solve(QUARTIC_LINE, both, on=Grid((33,)), throw=False)
    assert len(second.stats.residuals) > 60
    assert float(second.residual) < float(first.residual)


def test_beyond_three_dimensions():
    """-Lap u = f in 4-D: what Sobol's quadrature of an energy allows with so few points."""
    domain = Box((0.0,) * 4, (1.0,) * 4)

    def product(*x):
        return torch.stack([4 * c * (1 - c) for c in x]).prod(0)

    def source(*x):
        return sum(8 * product(*x[:i], *x[i + 1 :]) for i in range(4))

    problem = Problem(domain, Equation(kind="poisson", f=source), around(domain))
    solver = DeepRitz(width=8, points=1024, optimiser=NaturalGradient(iterations=10))
    solution = solve(problem, solver, on=Points(400), throw=False)
    assert float(solution.error(product)) < 0.15


@pytest.mark.parametrize(
    "problem, key",
    (
        (Problem(SQUARE, Equation(b=(1.0, 0.0), f=1.0), around(SQUARE)), "problem.equation.b"),
        (CUBIC, "problem.equation"),
        (
            Problem(SQUARE, Equation(K=((1.0, 0.5), (0.2, 1.0)), f=1.0), around(SQUARE)),
            "problem.equation.K",
        ),
        (
            Problem(SQUARE, Equation(kind="heat"), around(SQUARE), time=Time(1.0), initial=0.0),
            "solver.kind",
        ),
    ),
)
def test_problems_without_an_energy_are_refused(problem, key):
    with pytest.raises(InputError) as caught:
        DeepRitz().init(problem, Points(10))
    assert caught.value.key == key


# --- Descent in function space ----------------------------------------------------------------


@pytest.mark.parametrize(
    "problem, sizes",
    ((CUBIC, (17, 33, 65)), (QUARTIC, (17, 49))),
    ids=("coefficients", "energy"),
)
def test_the_rate_does_not_depend_on_the_mesh(problem, sizes):
    counts, rates = [], []
    for n in sizes:
        solution = solve(problem, FunctionDescent(rtol=1e-8), on=Grid((n, n)))
        r = solution.stats.residuals
        counts.append(int(solution.stats.iterations))
        rates.append(float((r[-1] / r[1]) ** (1 / (len(r) - 2))))
    assert len(set(counts)) == 1
    assert max(rates) < 1.15 * min(rates)
    # E'' - (-Lap + I) = 3 u^2 - 1 lies in [-1, 2], -Lap + I above 2 pi^2 + 1.
    assert max(rates) < 2 / (2 * math.pi**2 + 1)


@pytest.mark.parametrize("problem", (CUBIC, QUARTIC), ids=("coefficients", "energy"))
def test_descent_and_newton_agree(problem):
    grid = Grid((17, 17))
    mine = solve(problem, FunctionDescent(rtol=1e-10), on=grid)
    other = solve(problem, Newton(rtol=1e-12), on=grid)
    assert float((mine.value - other.value).abs().max()) < 1e-9
    assert float(mine.residual) <= 1e-10


def test_a_shorter_step_is_slower():
    full, half = (
        solve(CUBIC, FunctionDescent(step=step), on=Grid((17, 17))) for step in (1.0, 0.5)
    )
    assert int(half.stats.iterations) > 2 * int(full.stats.iterations)


def test_the_metric_is_the_sobolev_inner_product():
    """<sin, M sin> = (pi^2 + 1) / 2 on the unit line, and its gradient inverts it."""
    line = Box((0.0,), (1.0,))
    grid = Grid((201,)).bind(line)
    for equation in (Equation(c="u**2"), Equation(energy="ux**4 - u")):
        metric = Metric(Problem(line, equation, around(line)), grid)
        x = grid.coordinates()[0][1:-1]
        u = torch.sin(math.pi * x)
        assert float(u @ metric.M.apply(u)) == pytest.approx((math.pi**2 + 1) / 2, rel=1e-3)
        assert torch.allclose(metric.gradient(metric.M.apply(u)), u, atol=1e-10)


def test_a_function_of_the_network_is_projected_onto_itself():
    state = FunctionDescent().init(QUARTIC, Grid((17, 17)))
    metric = Metric(QUARTIC, state.system.on)
    target = Projector(state, metric.M, NetworkProjection(width=5, depth=1, seed=1))
    projector = Projector(state, metric.M, NetworkProjection(width=5, depth=1, seed=1, steps=20))
    v = target.values()
    theta = projector.objective.theta
    projector.objective.assign(theta + 0.05 * torch.sin(torch.arange(len(theta)).double()))
    before = projector.values() - v
    gap = projector.nearest(v) - v
    assert float((gap * metric.M.apply(gap)).sum()) < 1e-7 * float(
        (before * metric.M.apply(before)).sum()
    )


def test_projected_descent_ends_on_a_network():
    solver = FunctionDescent(rtol=1e-3, projection=NetworkProjection(width=10))
    solution = solve(CUBIC, solver, on=Grid((17, 17)))
    assert solution.status is Status.CONVERGED
    points = torch.stack([c.flatten() for c in solution.on.coordinates()], -1)
    values = solution.function(points).reshape(17, 17)
    assert torch.allclose(values, solution.value, atol=1e-12)
    assert float(solution.error(wave)) < 1e-2


def test_projected_descent_says_where_the_network_ends():
    solver = FunctionDescent(rtol=1e-9, projection=NetworkProjection(width=2, depth=1))
    solution = solve(CUBIC, solver, on=Grid((9, 9)), throw=False)
    assert solution.status is Status.STAGNATED
    assert float(solution.residual) > 1e-9


@pytest.mark.parametrize(
    "make, key",
    (
        (lambda: FunctionDescent(step=0.0), "solver.step"),
        (lambda: FunctionDescent(rtol=2.0), "solver.rtol"),
        (lambda: NetworkProjection(width=0), "solver.projection.width"),
        (lambda: DeepRitz(points=0), "solver.points"),
    ),
)
def test_bad_options(make, key):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key
