"""Random features: exactness, the Jacobian, conditions of every kind, the choice of bandwidth."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, System
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.problem import Condition, Problem, Robin, Time, Unknown
from sciml.discretization.points.jet import jet_of
from sciml.discretization.points.strong import strong_form
from sciml.solvers.solve import solve
from sciml.solvers.trained.objective import objective_of
from sciml.solvers.trained.random_features import (
    RandomFeatures,
    independent,
    least_squares,
    random_network,
)

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
WAVE = "sin(pi*x)*sin(pi*y)"
D0 = Condition(dirichlet=0.0)


def around(domain, condition=D0):
    return dict.fromkeys(domain.sides, condition)


def wave(x, y):
    return torch.sin(math.pi * x) * torch.sin(math.pi * y)


POISSON = Problem(SQUARE, Equation(kind="poisson", f=f"2*pi**2*{WAVE}"), around(SQUARE))
CUBIC = Problem(SQUARE, Equation(c="u**2", f=f"2*pi**2*{WAVE} + ({WAVE})**3"), around(SQUARE))


@pytest.mark.parametrize("activation", ("sin", "tanh"))
@pytest.mark.parametrize("periodic", (False, True))
def test_jets_of_features_are_derivatives(activation, periodic):
    side = Condition(periodic=True) if periodic else D0
    problem = Problem(SQUARE, Equation(f=0.0), around(SQUARE, side))
    network = random_network(strong_form(problem), 5, 3.0, activation, 0)
    pairs = ((0, 0), (0, 1), (1, 1))
    x = torch.rand(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mine = network.features(x, pairs)

    def plain(points):
        inputs = network.embedding(points, ()).value
        z = inputs @ network.waves.T + network.shifts
        return z.sin() if activation == "sin" else z.tanh()

    other = jet_of(plain, x, pairs) if not periodic else None
    if other is None:
        # The embedding's own jets are held to autograd elsewhere; here, periodicity.
        shifted = network.features(x + torch.tensor([1.0, -2.0]), pairs)
        assert torch.allclose(mine.data, shifted.data, atol=1e-11)
    else:
        assert torch.allclose(mine.data, other.data, atol=1e-11)


def test_least_squares_of_dependent_columns():
    g = torch.Generator().manual_seed(0)
    A = torch.randn(30, 6, dtype=torch.float64, generator=g)
    A[:, 5] = 0.0
    A[:, 4] = A[:, 0]
    A[:, 3] *= 1e9
    b = torch.randn(30, dtype=torch.float64, generator=g)
    gap = b - A @ least_squares(A, b)
    assert torch.isfinite(gap).all()
    assert float((A.T @ gap / A.norm(dim=0).clamp(min=1)).abs().max()) < 1e-8


def test_what_lies_in_the_span_is_found_exactly():
    """A right-hand side made of the features themselves, hard conditions and all."""
    options = RandomFeatures(count=40, bandwidths=(3.0,), seed=3)
    network = random_network(strong_form(POISSON), 40, 3.0, "sin", 3)
    with torch.no_grad():
        network.last.weight.copy_(
            torch.randn(1, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        )
    ansatz = objective_of(POISSON, lambda form: network, True, {}).ansatz

    def source(x, y):
        points = torch.stack([x.flatten(), y.flatten()], -1)
        pairs = ((0, 0), (1, 1))
        jet = ansatz.jet(points, pairs, ansatz.known(points, pairs))
        return -(jet.second(0, 0) + jet.second(1, 1)).detach()[:, 0].reshape(x.shape)

    problem = Problem(SQUARE, Equation(kind="poisson", f=source), around(SQUARE))
    solution = solve(problem, options, on=Points(300), throw=False)
    exact = ansatz.value(torch.stack(solution.on.coordinates(), -1))[:, 0]
    assert float((solution.value - exact).norm() / exact.norm()) < 1e-11


@pytest.mark.parametrize("problem", (POISSON, CUBIC), ids=("linear", "cubic"))
def test_reaches_rounding_on_a_smooth_solution(problem):
    options = RandomFeatures(count=150, bandwidths=(5.0,), rtol=1e-7)
    solution = solve(problem, options, on=Grid((17, 17)))
    assert float(solution.error(wave)) < 1e-8


def test_linear_problems_take_one_step_and_nonlinear_ones_converge_quadratically():
    options = RandomFeatures(count=150, bandwidths=(4.0,))
    linear = solve(POISSON, options, on=Grid((9, 9)))
    assert len(linear.stats.residuals) == 2
    sizes = solve(CUBIC, options, on=Grid((9, 9))).stats.residuals
    assert float(sizes[3]) < 20 * float(sizes[2]) ** 2
    assert len(sizes) <= 6


def test_soft_conditions_of_every_kind():
    """u = cos x exp y with Dirichlet, Neumann and Robin sides, none of them built in."""
    boundary = {
        "left": Condition(dirichlet="exp(y)"),
        "right": Condition(robin=Robin(2.0, "(2*cos(1) - sin(1))*exp(y)")),
        "bottom": Condition(neumann="-cos(x)"),
        "top": Condition(neumann="cos(x)*exp(1)"),
    }
    problem = Problem(SQUARE, Equation(f=0.0), boundary)
    for hard in (True, False):
        options = RandomFeatures(count=200, bandwidths=(4.0,), hard=hard)
        solution = solve(problem, options, on=Grid((17, 17)))
        assert float(solution.error(lambda x, y: torch.cos(x) * torch.exp(y))) < 1e-9


def test_time_is_one_more_axis():
    line = Box((0.0,), (1.0,))
    heat = Problem(
        line, Equation(kind="heat"), around(line), time=Time(0.1, frames=3), initial="sin(pi*x)"
    )
    wave = Problem(
        line, Equation(kind="wave"), around(line), time=Time(0.5, frames=3),
        initial={"u": "sin(pi*x)", "ut": 0.0},
    )  # fmt: skip
    for problem, last in ((heat, math.exp(-0.1 * math.pi**2)), (wave, math.cos(0.5 * math.pi))):
        solution = solve(problem, RandomFeatures(count=200, bandwidths=(4.0,)), on=Grid((17,)))
        (x,) = solution.on.coordinates()
        gap = solution.last - last * torch.sin(math.pi * x)
        assert float(gap.abs().max()) < 1e-8


def test_periodic_axes_and_advection():
    line = Box((0.0,), (2.0,))
    problem = Problem(
        line, Equation(kind="advection", b=(1.0,)), around(line, Condition(periodic=True)),
        time=Time(0.5), initial="sin(pi*x)",
    )  # fmt: skip
    solution = solve(problem, RandomFeatures(count=200), on=Grid((17,)))
    (x,) = solution.on.coordinates()
    assert float((solution.last - torch.sin(math.pi * (x - 0.5))).abs().max()) < 1e-8


def test_systems():
    """-u'' = v, -v'' = u + (2 pi)^4 sin(2 pi x) - sin(2 pi x), coupled both ways."""
    line = Box((0.0,), (1.0,))
    k = 2 * math.pi
    pair = System({"u": Equation(f="v"), "v": Equation(f=f"u + ({k}**4 - 1)*sin(2*pi*x)")})
    coupled = Problem(line, pair, around(line))
    solution = solve(coupled, RandomFeatures(count=80, bandwidths=(8.0,)), on=Grid((17,)))
    (x,) = solution.on.coordinates()
    exact = torch.stack([torch.sin(k * x), k**2 * torch.sin(k * x)])
    assert float((solution.value - exact).norm() / exact.norm()) < 1e-9


def test_an_unknown_parameter_is_found_with_the_weights():
    """-div(k grad u) = f, u seen at some points: k = 1.7 from the guess 1."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 30, dtype=torch.float64, generator=g)
    problem = Problem(
        SQUARE, Equation(K="k", f=f"2*pi**2*{WAVE}"), around(SQUARE),
        parameters={"k": Unknown(1.0)}, observations={"x": x, "y": y, "u": wave(x, y) / 1.7},
    )  # fmt: skip
    options = RandomFeatures(count=100, bandwidths=(4.0,), rtol=1e-5)
    solution = solve(problem, options, on=Grid((9, 9)))
    assert solution.parameters["k"] == pytest.approx(1.7, abs=1e-6)


def test_the_bandwidth_with_the_least_residual_is_taken():
    options = RandomFeatures(count=150, bandwidths=(4.0, 300.0))
    solution = solve(POISSON, options, on=Grid((9, 9)))
    assert any(note.startswith("bandwidth 4;") for note in solution.notes)


def test_an_axis_may_have_a_bandwidth_of_its_own():
    """Frequencies fill that box, periodic axes as circles; one number for all is the same."""
    periodic = dict.fromkeys(("left", "right"), Condition(periodic=True))
    problem = Problem(SQUARE, Equation(f=0.0), around(SQUARE) | periodic)
    waves = random_network(strong_form(problem), 4000, (2.0, 30.0), "sin", 0).waves
    assert waves.shape == (4000, 3)
    torch.testing.assert_close(
        waves.abs().amax(0), torch.tensor([2.0, 2.0, 30.0], dtype=torch.float64), rtol=1e-3, atol=0
    )
    same = [random_network(strong_form(POISSON), 9, b, "tanh", 1).waves for b in (3.0, (3.0, 3.0))]
    assert torch.equal(*same)
    with pytest.raises(InputError, match=r"or 2 of them, time last; got \[1.0, 2.0, 3.0\]"):
        random_network(strong_form(POISSON), 9, (1.0, 2.0, 3.0), "sin", 0)


def test_features_as_narrow_as_the_solution_along_each_axis_find_it():
    thin = "sin(8*pi*x)*sin(pi*y)"
    problem = Problem(SQUARE, Equation(f=f"65*pi**2*{thin}"), around(SQUARE), exact=thin)

    def error(bandwidth):
        options = RandomFeatures(count=300, bandwidths=(bandwidth,))
        solution = solve(problem, options, on=Points(500), throw=False)
        x, y = solution.on.coordinates()
        exact = (8 * math.pi * x).sin() * (math.pi * y).sin()
        return float((solution.value - exact).norm() / exact.norm())

    assert error((16.0, 3.0)) < 1e-4 * error(16.0)


def test_progress_is_readable_where_the_first_iterate_has_no_terms():
    """u = 0 and f = 0: only the soft start is wrong."""
    heat = Problem(
        Box((0.0,), (1.0,)), Equation(d=1.0), {"left": D0, "right": D0}, time=Time(0.1),
        initial="sin(pi*x)",
    )  # fmt: skip
    seen = []
    options = RandomFeatures(count=60, bandwidths=(4.0,), hard=False)
    solve(heat, options, on=Grid((9,)), throw=False, progress=lambda k, r: seen.append(r))
    assert 0 < seen[0] < 1e3


def test_runs_are_repeatable_and_leave_the_global_generator_alone():
    options = RandomFeatures(count=50, bandwidths=(4.0,), seed=5, rtol=1e-3)
    torch.manual_seed(1)
    first = solve(POISSON, options, on=Grid((9, 9)), throw=False).value
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first, solve(POISSON, options, on=Grid((9, 9)), throw=False).value)


def test_what_features_cannot_represent_is_said():
    """Bratu's right-hand side does not vanish in the corners, where Lap u must."""
    problem = Problem(SQUARE, Equation(kind="bratu"), around(SQUARE), parameters={"lam": 1.0})
    options = RandomFeatures(count=100, bandwidths=(4.0,))
    solution = solve(problem, options, on=Grid((9, 9)), throw=False)
    assert not solution.converged
    assert float(solution.residual) > options.rtol


@pytest.mark.parametrize(
    "options, key",
    (
        ({"count": 0}, "solver.count"),
        ({"bandwidths": ()}, "solver.bandwidths"),
        ({"bandwidths": (1.0, -1.0)}, "solver.bandwidths"),
        ({"bandwidths": (1.0, (4.0, 0.0))}, "solver.bandwidths"),
        ({"points": 0}, "solver.points"),
    ),
)
def test_bad_options(options, key):
    with pytest.raises(InputError) as caught:
        RandomFeatures(**options)
    assert caught.value.key == key


def test_number_and_bandwidths_by_themselves():
    """One wave along x and four along y, of which the search is told nothing."""
    box = Box((-1.0, -1.0), (1.0, 1.0))
    exact = "sin(pi*x)*sin(4*pi*y)"
    problem = Problem(
        box, Equation(c=-1.0, f=f"(17*pi**2 - 1)*{exact}"), around(box), exact=exact
    )  # fmt: skip
    solution = solve(problem, RandomFeatures(), on=Grid((65, 65)))
    wanted = lambda x, y: torch.sin(math.pi * x) * torch.sin(4 * math.pi * y)  # noqa: E731
    assert float(solution.error(wanted)) < 1e-12
    (chosen,) = [note for note in solution.notes if note.startswith("bandwidth")]
    along_x, along_y = map(float, chosen.split(",")[0].removeprefix("bandwidth ").split(" x "))
    assert along_y == 4 * along_x


def test_independent_features_are_counted_field_by_field():
    g = torch.Generator().manual_seed(0)
    first, second = (
        torch.randn(60, r, dtype=torch.float64, generator=g)
        @ torch.randn(r, 12, dtype=torch.float64, generator=g)
        for r in (5, 9)
    )
    scale = 10.0 ** torch.arange(12, dtype=torch.float64)
    assert independent(torch.cat([first * scale, second], 1), 2, 12) == 5
    assert independent(torch.cat([second, second.flip(1)], 1), 2, 12) == 9
