"""Integrators in time: orders, invariants, exact solutions, and what happens when it goes wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.equation import System
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.status import Status
from sciml.discretization import semidiscretize
from sciml.solvers import BDF, IMEX, SDIRK, RungeKutta, Verlet
from sciml.solvers.auto import choose_for
from sciml.solvers.time import tableaux
from sciml.solvers.time.explicit import largest_step, spectral_bounds
from sciml.solvers.time.implicit import _Secants
from tests.evolution import (
    decay,
    decayed,
    evolve,
    march,
    on_line,
    order,
    oscillator,
    pointwise,
    swung,
)

# options without a step, order of the method, steps of the coarser of two runs
FIRST_ORDER = [
    (SDIRK(rtol=1e-10), 4, 32),
    (SDIRK(order=3, rtol=1e-9), 3, 64),
    (BDF(rtol=1e-9), 2, 64),
    (IMEX(rtol=1e-10), 4, 32),
    (IMEX(order=3, rtol=1e-9), 3, 32),
    (RungeKutta(method="bogacki_shampine"), 3, 64),
    (RungeKutta(method="classical"), 4, 32),
    (RungeKutta(method="strong_stability"), 3, 64),
]
SECOND_ORDER = [
    (SDIRK(rtol=1e-10), 4, 16),
    (SDIRK(order=3, rtol=1e-9), 3, 32),
    (BDF(rtol=1e-9), 2, 64),
    (RungeKutta(), 5, 64),
    (RungeKutta(method="bogacki_shampine"), 3, 32),
    (RungeKutta(method="classical"), 4, 16),
    (RungeKutta(method="strong_stability"), 3, 16),
    (Verlet(), 2, 16),
]


def _named(case: Any) -> str | None:
    if hasattr(case, "kind"):
        return f"{case.kind}-{getattr(case, 'method', getattr(case, 'order', ''))}"
    return None


def _with_step(integrator: Any, step: float) -> Any:
    return type(integrator)(**{**vars(integrator), "step": step})


@pytest.mark.parametrize(("integrator", "theory", "steps"), FIRST_ORDER, ids=_named)
def test_order_of_a_first_order_system(integrator: Any, theory: int, steps: int) -> None:
    errors = []
    for n in (steps, 2 * steps):
        solution = march(decay(), _with_step(integrator, 2 / n), 0.0, 2.0)
        errors.append(float((solution.value[-1] - decayed(2.0)).norm()))
    assert order(errors) == pytest.approx(theory, abs=0.1)


@pytest.mark.parametrize(("integrator", "theory", "steps"), SECOND_ORDER, ids=_named)
def test_order_of_a_second_order_system(integrator: Any, theory: int, steps: int) -> None:
    errors = []
    for n in (steps, 2 * steps):
        solution = march(oscillator(), _with_step(integrator, 2 / n), 0.0, 2.0)
        errors.append(float((solution.value[-1] - swung(2.0)).norm()))
    assert order(errors) == pytest.approx(theory, abs=0.1)


TABLES = [
    tableaux.DORMAND_PRINCE,
    tableaux.BOGACKI_SHAMPINE,
    tableaux.CLASSICAL,
    tableaux.STRONG_STABILITY,
    tableaux.ARK3,
    tableaux.ARK4,
]


@pytest.mark.parametrize("table", TABLES, ids=lambda t: t.name)
def test_order_conditions(table: tableaux.Tableau) -> None:
    """Up to order four, of the method and of its embedded one, mixed ones of both tables too."""
    tables = [table.matrix]
    if table.explicit_rows:
        explicit = np.zeros_like(table.matrix)
        for i, row in enumerate(table.explicit_rows):
            explicit[i, : len(row)] = row
        tables.append(explicit)
        np.testing.assert_allclose(explicit.sum(1), table.c, atol=1e-14)
    c = np.array(table.c)
    b = np.array(table.b)
    for weights, p in ((b, table.order), (b - np.array(table.d), table.embedded)):
        gaps = {1: [weights.sum() - 1], 2: [weights @ c - 1 / 2], 3: [weights @ c**2 - 1 / 3]}
        gaps[4] = [weights @ c**3 - 1 / 4]
        for A in tables:
            gaps[3].append(weights @ A @ c - 1 / 6)
            gaps[4] += [weights @ (c * (A @ c)) - 1 / 8, weights @ A @ c**2 - 1 / 12]
            gaps[4] += [weights @ A @ B @ c - 1 / 24 for B in tables]
        for q in range(1, min(p, 4) + 1):
            np.testing.assert_allclose(gaps[q], 0, atol=1e-14)


@pytest.mark.parametrize("table", [tableaux.ARK3, tableaux.ARK4], ids=lambda t: t.name)
def test_implicit_tables_are_stable_for_every_stiff_decay(table: tableaux.Tableau) -> None:
    """|R| <= 1 on the imaginary axis and R(-infinity) = 0: A- and L-stable."""
    one, b = np.ones(table.stages), np.array(table.b)
    for y in np.geomspace(1e-3, 1e4, 100):
        z = 1j * y
        R = 1 + z * b @ np.linalg.solve(np.eye(table.stages) - z * table.matrix, one)
        assert abs(R) <= 1 + 1e-12
    z = -1e9
    assert abs(1 + z * b @ np.linalg.solve(np.eye(table.stages) - z * table.matrix, one)) < 1e-6


HEAT = Equation(kind="heat")


@pytest.mark.parametrize(
    "integrator",
    [SDIRK(), SDIRK(order=3), IMEX(), BDF(rtol=1e-6), RungeKutta()],
    ids=_named,
)
def test_heat_is_the_exponential_of_its_matrix(integrator: Any) -> None:
    problem = on_line(HEAT, "dirichlet", 0.1, "sin(pi*x) + x*(1 - x)", frames=3)
    grid = Grid((33,))
    solution = evolve(problem, integrator, 33)
    system = semidiscretize(problem, grid)
    A = system.linearise(system.first[0], 0.0).to_scipy().toarray()
    M = np.diag(system.mass.expand(system.shape).numpy())
    for value, t in zip(solution.value, solution.times, strict=True):
        exact = scipy.linalg.expm(-float(t) * np.linalg.solve(M, A)) @ system.first[0].numpy()
        gap = np.linalg.norm(value.numpy()[1:-1] - exact) / np.linalg.norm(exact)
        assert gap < 100 * integrator.rtol
    assert solution.converged
    assert float(solution.residual) <= integrator.rtol


@pytest.mark.parametrize("integrator", [RungeKutta(), SDIRK()], ids=_named)
def test_a_solution_whose_squares_are_no_numbers_is_not_at_rest(integrator: Any) -> None:
    def value(unit: float) -> torch.Tensor:
        problem = on_line(HEAT, "dirichlet", 0.1, f"{unit!r}*sin(pi*x)")
        return evolve(problem, integrator, 17).value

    torch.testing.assert_close(value(1e130) / 1e130, value(1.0), rtol=1e-6, atol=1e-9)
    with pytest.raises(InputError, match=r"so small \(\de-201\) that products"):
        value(1e-200)


@pytest.mark.parametrize(
    ("integrator", "times"), [(RungeKutta(rtol=1e-12), 20), (SDIRK(rtol=1e-11), 200)], ids=_named
)
def test_a_tolerance_below_a_billionth_is_met(integrator: Any, times: float) -> None:
    """An absolute one that nobody gave does not stand in its way; sines grow as is known."""
    growing = Equation(kind="general", d=1.0, c=-40.0)
    solution = evolve(on_line(growing, "dirichlet", 0.2, "sin(pi*x)"), integrator, 17)
    rate = 40 - (2 - 2 * math.cos(math.pi / 16)) * 16**2
    exact = math.exp(0.2 * rate) * torch.sin(math.pi * torch.linspace(0, 1, 17).double())
    assert solution.converged
    assert float(solution.error(exact)) < times * integrator.rtol


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
def test_heat_converges_to_second_order_in_space(side: str, centring: str) -> None:
    mode = {"dirichlet": "sin(pi*x)", "neumann": "cos(pi*x)", "periodic": "sin(2*pi*x)"}[side]
    rate = 4 * math.pi**2 if side == "periodic" else math.pi**2
    errors = []
    for n in (16, 32):
        integrator = SDIRK(rtol=1e-8)
        grid = Grid((n + (centring == "node"),), centring=centring)  # type: ignore[arg-type]
        solution = integrator.run(integrator.init(on_line(HEAT, side, 0.05, mode), grid))
        exact = math.exp(-rate * 0.05) * solution.value[0]
        errors.append(float((solution.value[-1] - exact).norm() / exact.norm()))
    assert order(errors) == pytest.approx(2, abs=0.1)


def test_moving_dirichlet_data_reach_the_boundary_and_the_inside() -> None:
    """u = exp(-t) sin(x + 1): data that change in time, where stiffness costs order."""
    side = Condition(dirichlet="exp(-t)*sin(x + 1)")
    problem = on_line(HEAT, side, 1.0, "sin(x + 1)", frames=3)
    solution = evolve(problem, SDIRK(rtol=1e-8), 65)
    (x,) = solution.on.coordinates()
    exact = torch.exp(-solution.times)[:, None] * torch.sin(x + 1)
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=2e-5)
    torch.testing.assert_close(solution.value[:, 0], exact[:, 0], rtol=0, atol=1e-14)


def test_heat_between_insulated_walls_keeps_its_mass() -> None:
    problem = on_line(
        Equation(kind="heat", K="1 + x"), "neumann", 0.2, "exp(-20*(x - 0.3)**2)", frames=5
    )
    solution = evolve(problem, SDIRK(), 65)
    weights = torch.ones(65, dtype=torch.float64)
    weights[0] = weights[-1] = 0.5
    mass = solution.value @ weights
    torch.testing.assert_close(mass, mass[:1].expand(5), rtol=1e-7, atol=0)


def test_two_dimensional_heat_uses_one_set_up_for_a_fixed_step() -> None:
    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = on_line(
        Equation(kind="heat", K="1 + x*y"), "dirichlet", 0.1, "sin(pi*x)*sin(pi*y)", box=box
    )
    coarse = evolve(problem, SDIRK(step=0.02, rtol=1e-4), 49, 49)
    fine = evolve(problem, RungeKutta(rtol=1e-8), 49, 49)
    assert any("25 solves with 1 set-ups" in note for note in coarse.notes)
    gap = (coarse.value[-1] - fine.value[-1]).norm() / fine.value[-1].norm()
    assert gap < 5e-4


WAVE = Equation(kind="wave")
STANDING = {"u": "sin(pi*x)", "ut": "0"}


@pytest.mark.parametrize("integrator", [RungeKutta(rtol=1e-8), SDIRK(rtol=1e-8)], ids=_named)
def test_a_string_swings_with_the_frequency_of_its_grid(integrator: Any) -> None:
    """The discrete mode has omega = (2 / h) sin(pi h / 2), so that time alone makes an error."""
    solution = evolve(on_line(WAVE, "dirichlet", 3.0, STANDING, frames=4), integrator, 33)
    h = 1 / 32
    omega = 2 / h * math.sin(math.pi * h / 2)
    exact = torch.cos(omega * solution.times)[:, None] * solution.value[0]
    torch.testing.assert_close(solution.value, exact, rtol=0, atol=1e-6)


def test_waves_converge_to_second_order_in_space() -> None:
    errors = []
    for n in (17, 33):
        solution = evolve(on_line(WAVE, "dirichlet", 0.7, STANDING), RungeKutta(rtol=1e-8), n)
        exact = math.cos(0.7 * math.pi) * solution.value[0]
        errors.append(float((solution.value[-1] - exact).norm() / exact.norm()))
    assert order(errors) == pytest.approx(2, abs=0.1)


def test_verlet_keeps_its_energy_to_rounding() -> None:
    """v . M v + u . (A - h^2/4 A M^-1 A) u over a thousand steps."""
    problem = on_line(WAVE, "dirichlet", 10.0, {"u": "exp(-80*(x - 0.4)**2)", "ut": "x*(1 - x)"})
    system = semidiscretize(problem, Grid((33,)))
    solver = Verlet(step=0.01)
    scheme = solver.scheme(system, 0.0)
    A, M = system.linearise(system.first[0], 0.0), system.inertia
    y, alive, h = torch.stack(system.first), torch.tensor(True), 0.01
    memory, energies = scheme.begin(y, 0.0), []
    for step in range(1000):
        u, v = y
        Au = A.apply(u)
        energies.append(float((v * M * v).sum() + (u * Au).sum() - h * h / 4 * (Au * Au / M).sum()))
        attempt = scheme.advance(y, memory, step * h, h, alive)
        y, memory = attempt.y, attempt.memory
    np.testing.assert_allclose(energies, energies[0], rtol=1e-11)


@pytest.mark.parametrize("velocity", [1.0, -1.0])
def test_advection_converges_to_second_order(velocity: float) -> None:
    errors = []
    for n in (65, 129):
        problem = on_line(Equation(kind="advection", b=(velocity,)), "periodic", 1.0, "sin(2*pi*x)")
        solution = evolve(problem, RungeKutta(rtol=1e-6), n)
        errors.append(float((solution.value[-1] - solution.value[0]).norm() / n**0.5))
    assert order(errors) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("velocity", [1.0, -1.0])
def test_a_step_is_transported_without_oscillation(velocity: float) -> None:
    step = "0.25*(1 + tanh(1000*(x - 0.25)))*(1 - tanh(1000*(x - 0.6)))"
    problem = on_line(Equation(kind="advection", b=(velocity,)), "periodic", 1.0, step)
    value = evolve(problem, RungeKutta(rtol=1e-4), 201).value[-1]
    assert value.min() > -0.02
    assert value.max() < 1.02


def _cole_hopf(x: torch.Tensor, t: float, nu: float) -> torch.Tensor:
    """Burgers from -sin(pi x) by Gauss-Hermite quadrature (Basdevant et al. 1986)."""
    nodes, weights = np.polynomial.hermite.hermgauss(120)
    eta = torch.tensor(nodes * math.sqrt(4 * nu * t))
    places = math.pi * (x[:, None] - eta)
    kernel = torch.tensor(weights) * torch.exp(-torch.cos(places) / (2 * math.pi * nu))
    return -(kernel * torch.sin(places)).sum(1) / kernel.sum(1)


@pytest.mark.parametrize("integrator", [IMEX(), SDIRK()], ids=_named)
def test_burgers_against_cole_and_hopf(integrator: Any) -> None:
    nu, errors = 0.05, []
    box = Box((-1.0,), (1.0,))
    for n in (65, 129):
        problem = on_line(Equation(kind="burgers", K=nu), "dirichlet", 0.5, "-sin(pi*x)", box=box)
        solution = evolve(problem, integrator, n)
        exact = _cole_hopf(solution.on.coordinates()[0], 0.5, nu)
        errors.append(float((solution.value[-1] - exact).norm() / exact.norm()))
    assert errors[-1] < 1e-3
    assert order(errors) == pytest.approx(2, abs=0.1)


def test_allen_cahn_is_the_same_by_four_methods() -> None:
    equation = Equation(kind="allen_cahn", K=1e-3, f="5*u - 5*u**3")
    box = Box((-1.0,), (1.0,))
    problem = on_line(equation, "periodic", 0.5, "x**2*cos(pi*x)", box=box)
    values = [
        evolve(problem, integrator, 65).value[-1]
        for integrator in (RungeKutta(rtol=1e-9), SDIRK(), IMEX(), BDF(rtol=1e-6))
    ]
    for value in values[1:]:
        assert float((value - values[0]).norm() / values[0].norm()) < 1e-4


def test_a_klein_gordon_breather_returns_after_its_period() -> None:
    """u_tt - u_xx + sin u = 0: 4 arctan(s cos(w t) / (w cosh(s x))), s^2 + w^2 = 1."""
    w = 0.8
    s = math.sqrt(1 - w * w)
    first = f"4*atan({s / w}*2/(exp({s}*x) + exp(-{s}*x)))"
    box = Box((-20.0,), (20.0,))
    equation = Equation(kind="klein_gordon", f="u - sin(u)")
    errors = []
    for n in (129, 257):
        problem = on_line(equation, "dirichlet", 2 * math.pi / w, {"u": first, "ut": 0.0}, box=box)
        solution = evolve(problem, RungeKutta(), n)
        errors.append(float((solution.value[-1] - solution.value[0]).norm() / n**0.5))
    assert order(errors) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "integrator",
    [
        SDIRK(step=0.01, rtol=1e-6),
        IMEX(step=0.01, rtol=1e-6),
        BDF(step=0.01, rtol=1e-3),
        RungeKutta(step=0.0005),
    ],
    ids=_named,
)
def test_a_batch_is_its_samples_one_by_one(integrator: Any) -> None:
    def problem(rate: Any) -> Problem:
        return on_line(
            Equation(kind="diffusion_reaction", K=0.2, f="rate*u*(1 - u)"),
            "neumann",
            0.1,
            "0.5 + 0.4*cos(pi*x)",
            parameters={"rate": rate},
        )

    rates = (1.0, 3.0, 8.0)
    batch = evolve(problem(rates), integrator, 17)
    assert batch.value.shape == (3, 2, 17)
    for rate, value in zip(rates, batch.value, strict=True):
        single = evolve(problem(rate), integrator, 17).value
        torch.testing.assert_close(value, single, rtol=3e-9, atol=0)


def test_one_set_up_takes_a_batch_of_initial_data() -> None:
    problem = on_line(HEAT, "dirichlet", 0.1, "sin(pi*x)")
    solver = SDIRK(step=0.02, rtol=1e-3)
    state = solver.init(problem, Grid((17,)))
    (x,) = state.system.on.coordinates()
    first = torch.stack([torch.sin(math.pi * x), x * (1 - x)])
    batch = solver.run(state, initial=first)
    assert batch.value.shape == (2, 2, 17)
    torch.testing.assert_close(batch.value[0], solver.run(state).value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "integrator", "largest"),
    [
        # Verlet: h / c. Classical: 2 sqrt 2 of h / 2c for waves, 2.785 h^2 / 4K for heat.
        (WAVE, Verlet(), 1 / 32),
        (WAVE, RungeKutta(method="classical"), math.sqrt(2) / 32),
        (HEAT, RungeKutta(method="classical"), 2.7852935634 / 4 / 32**2),
        # Upwind: the circle; of SSP3 it lies in the stability region up to 1.2564.
        (Equation(kind="advection", b=(1.0,)), RungeKutta(method="strong_stability"), 1.2564 / 32),
    ],
    ids=["wave-verlet", "wave-classical", "heat-classical", "advection-ssp"],
)
def test_a_step_beyond_stability_is_refused_by_name(
    equation: Equation, integrator: Any, largest: float
) -> None:
    side = "periodic" if equation.kind == "advection" else "dirichlet"
    problem = on_line(equation, side, 1.0, "sin(2*pi*x)")
    with pytest.raises(InputError, match="the largest admissible one is") as caught:
        _with_step(integrator, 1.01 * largest).init(problem, Grid((33,)))
    assert caught.value.key == "solver.step"
    _with_step(integrator, 0.99 * largest).init(problem, Grid((33,)))


def test_the_bound_is_where_runs_turn_unstable() -> None:
    problem = on_line(WAVE, "dirichlet", 20.0, {"u": "exp(-300*(x - 0.4)**2)"})
    system = semidiscretize(problem, Grid((33,)))
    h = largest_step(tableaux.BOGACKI_SHAMPINE.stability, *spectral_bounds(system, 0.0))
    scheme = RungeKutta(method="bogacki_shampine").scheme(system, 0.0)
    sizes = []
    for step in (0.98 * h, 1.04 * h):
        y, alive = torch.stack(system.first), torch.tensor(True)
        memory = scheme.begin(y, 0.0)
        for k in range(600):
            attempt = scheme.advance(y, memory, k * step, step, alive)
            y, memory = attempt.y, attempt.memory
        sizes.append(float(y[0].norm()))
    assert sizes[0] < 10
    assert sizes[1] > 1e3


@pytest.mark.parametrize(
    "integrator",
    [RungeKutta(), RungeKutta(step=1 / 64), SDIRK(rtol=1e-4), IMEX(rtol=1e-4), BDF(rtol=1e-5)],
    ids=_named,
)
def test_blow_up_keeps_the_frames_before(integrator: Any) -> None:
    """u' = u^2 from 1 is infinite at t = 1."""
    system = pointwise(
        lambda u, t: -(u**2), lambda u, t: -2 * u, (torch.ones(3, dtype=torch.float64),)
    )
    times = tuple(0.3 * k for k in range(7))
    solution = march(system, integrator, *times)
    assert solution.status is Status.BLOWN_UP
    assert not solution.converged
    found = solution.times.tolist()
    assert found == list(times[: len(found)])
    assert solution.value.shape[0] == len(found)
    assert torch.isfinite(solution.value).all()
    if integrator.step is None:
        assert len(found) == 4
        note = next(note for note in solution.notes if "ended at t =" in note)
        assert float(note.split("=")[-1]) == pytest.approx(1.0, abs=1e-2)
        torch.testing.assert_close(
            solution.value[:, 0], 1 / (1 - solution.times), rtol=5e-2, atol=0
        )


def test_one_sample_that_blows_up_does_not_end_the_others() -> None:
    first = torch.tensor([[1.0], [0.25]], dtype=torch.float64).expand(2, 3)
    system = pointwise(lambda u, t: -(u**2), lambda u, t: -2 * u, (first,))
    solution = march(system, RungeKutta(), 0.0, 0.5, 1.5, 2.0)
    assert [s.name for s in solution.statuses] == ["BLOWN_UP", "CONVERGED"]
    assert solution.value[0, :, 0].isnan().tolist() == [False, False, True, True]
    torch.testing.assert_close(solution.value[1, :, 0], 1 / (4 - solution.times), rtol=1e-5, atol=0)


def test_a_kink_that_no_step_resolves_is_said_to_be_one() -> None:
    def jump(u: torch.Tensor, t: float) -> torch.Tensor:
        return torch.full_like(u, -1.0 if t < 0.5 else math.nan)

    system = pointwise(jump, lambda u, t: 0 * u, (torch.ones(3, dtype=torch.float64),))
    solution = march(system, RungeKutta(), 0.0, 0.25, 1.0)
    assert solution.status is Status.STEP_TOO_SMALL
    assert solution.times.tolist() == [0.0, 0.25]


def test_a_fixed_step_that_is_too_coarse_says_so() -> None:
    solution = march(decay(), RungeKutta(step=0.5), 0.0, 2.0)
    assert solution.status is Status.INACCURATE_IN_TIME
    assert float(solution.residual) > 1e-6


def test_frames_are_hit_exactly_and_progress_is_told() -> None:
    seen: list[tuple[int, float]] = []
    solution = evolve(
        on_line(HEAT, "dirichlet", 0.3, "sin(pi*x)", frames=7),
        SDIRK(),
        17,
        progress=lambda step, t: seen.append((step, t)),
    )
    assert solution.times.tolist() == list(Time(0.3, frames=7).instants)
    assert [step for step, _ in seen] == list(range(1, int(solution.stats.iterations) + 1))
    reached = [t for _, t in seen]
    for t in solution.times[1:].tolist():
        assert min(abs(t - r) for r in reached) < 1e-14
    assert reached[-1] == solution.times[-1]


def test_tolerance_is_kept() -> None:
    """The error at the end falls with rtol, and is of its size."""
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        solution = march(oscillator(), SDIRK(rtol=rtol), 0.0, 2.0)
        errors.append(float((solution.value[-1] - swung(2.0)).norm() / swung(2.0).norm()))
        assert errors[-1] < 30 * rtol
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(
    ("make", "text", "key"),
    [
        (lambda: SDIRK(order=5), "order must be 3 or 4", "solver.order"),
        (lambda: RungeKutta(method="rk5"), "method must be one of", "solver.method"),  # type: ignore[arg-type]
        (lambda: SDIRK(step=-1.0), "step must be positive", "solver.step"),
        (lambda: BDF(atol=-1.0), "atol must not be negative", "solver.atol"),
        (lambda: _begun(WAVE, IMEX()), "sdirk or runge_kutta", "solver.kind"),
        (lambda: _begun(HEAT, Verlet()), "second order in time", "solver.kind"),
        (lambda: _begun(Equation(), SDIRK()), "no time derivative", "problem.equation"),
    ],
)  # fmt: skip
def test_bad_options_are_one_line(make: Any, text: str, key: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        make()
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


def _begun(equation: Equation, integrator: Any) -> Any:
    return integrator.init(on_line(equation, "dirichlet", 1.0, "x"), Grid((9,)))


def test_a_steady_problem_is_refused() -> None:
    problem = Problem(
        Box((0.0,), (1.0,)), Equation(), dict.fromkeys(("left", "right"), Condition(dirichlet=0.0))
    )
    with pytest.raises(InputError, match="give the problem time"):
        SDIRK().init(problem, Grid((9,)))


def test_the_automatic_choice_marches() -> None:
    solution = sciml.solve(on_line(HEAT, "dirichlet", 0.1, "sin(pi*x)"), on=Grid((17,)))
    assert solution.converged
    assert any(note.startswith("auto: sdirk") for note in solution.notes)


MILD = Equation(d=1.0)


def _two_fields(parameters: dict[str, Any], coupling: str = "w - z") -> Problem:
    """z_t = D Lap z + coupling, w_t = D Lap w - coupling on a closed interval."""
    equations = {
        "z": Equation(d=1.0, K="D", f=coupling),
        "w": Equation(d=1.0, K="D", f=f"-({coupling})"),
    }
    return Problem(
        Box((0.0,), (1.0,)),
        System(equations),
        dict.fromkeys(("left", "right"), Condition(neumann=0.0)),
        parameters=parameters,
        time=Time(0.5, frames=3),
        initial={"z": "1 + cos(pi*x)", "w": "1 - cos(pi*x)"},
    )


@pytest.mark.parametrize(
    "integrator",
    [IMEX(rtol=1e-7), SDIRK(rtol=1e-7), BDF(rtol=1e-6), RungeKutta(rtol=1e-7)],
    ids=_named,
)
def test_two_coupled_fields_against_their_modes(integrator: Any) -> None:
    """z - w decays with 2 on top of the grid's own diffusion, z + w does not change."""
    solution = evolve(_two_fields({"D": [0.02, 0.1]}), integrator, 33)
    assert solution.value.shape == (2, 3, 2, 33)
    assert solution.fields == ("z", "w")
    assert solution.converged.tolist() == [True, True]
    assert solution.residual.shape == solution.stats.iterations.shape == (2,)
    (x,) = solution.on.coordinates()
    for D, value in zip((0.02, 0.1), solution.value, strict=True):
        rate = 2 + D * (64 * math.sin(math.pi / 64)) ** 2
        wave = torch.exp(-rate * solution.times)[:, None] * torch.cos(math.pi * x)
        exact = torch.stack([1 + wave, 1 - wave], dim=1)
        torch.testing.assert_close(value, exact, rtol=0, atol=5e-5)


def test_of_two_fields_one_cannot_outlive_the_other() -> None:
    problem = _two_fields({"D": [0.02, 0.0201]}, coupling="40*(z*z - 1)")
    solution = evolve(problem, RungeKutta(rtol=1e-3), 17)
    assert solution.status is Status.BLOWN_UP
    assert len(solution.statuses) == 2
    assert solution.value.shape == (2, len(solution.times), 2, 17)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"initial": {"z": "1"}}, "give w at the start"),
        ({"initial": {"z": "1", "w": "1", "v": "1"}}, "the system has no field 'v'"),
        ({"equation": System({"z": Equation(d=1.0, K="w"), "w": MILD})}, "K may depend on"),
        ({"equation": System({"z": Equation(m=1.0), "w": MILD})}, "every field needs d"),
    ],
)  # fmt: skip
def test_bad_systems_are_one_line(changed: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        IMEX().init(replace(_two_fields({"D": 0.1}), **changed), Grid((9,)))


def test_the_automatic_choice_splits_where_only_the_rest_is_nonlinear() -> None:
    for equation, kind in (
        (Equation(kind="allen_cahn", K=0.01), "imex"),
        (Equation(kind="burgers", K=0.05), "sdirk"),
        (Equation(d=1.0, K="1 + u**2"), "sdirk"),
        (Equation(kind="klein_gordon"), "runge_kutta"),
        (Equation(kind="advection", b=(1.0,)), "runge_kutta"),
    ):
        name, _ = choose_for(on_line(equation, "periodic", 0.1, "sin(2*pi*x)"), Grid((33,)))
        assert getattr(sciml.solvers, name)().kind == kind


def test_secants_end_where_krylov_methods_do() -> None:
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(2, 40, 3, generator=generator, dtype=torch.float64) for _ in "lr")
    A = torch.eye(40) + left @ right.mT / 40  # I and three directions, of two samples
    b = torch.randn(2, 40, generator=generator, dtype=torch.float64)

    def gap(U: torch.Tensor) -> torch.Tensor:
        return (A @ U[..., None])[..., 0] - b

    U, secants = torch.zeros(2, 40, dtype=torch.float64), _Secants(1)
    G, sizes = gap(U), []
    for _ in range(6):
        known, rest = secants.explained(G)
        trial = U - known - rest
        secants.learn(trial - U, gap(trial) - G)
        U, G = trial, gap(trial)
        sizes.append(float(G.norm()))
    assert sizes[2] > 1e-6 and sizes[4] < 1e-10 * float(b.norm())
