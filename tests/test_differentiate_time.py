"""Gradients through a march in time equal central differences, for every integrator."""

from __future__ import annotations

import math

import pytest
import torch

import sciml
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.differentiate import attach
from sciml.core.run.solve import Solver
from sciml.solvers import BDF, IMEX, SDIRK, RungeKutta, Verlet

LINE = sciml.Box((0.0,), (1.0,))
N = 7
ON = sciml.Grid((N,))
COLD = {side: Condition(dirichlet=0.0) for side in LINE.sides}


def field(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    return values.requires_grad_()


def value_of(problem: Problem, solver: Solver) -> torch.Tensor:
    # A fixed step may be less accurate than rtol, which here only sets how far stages are solved.
    return sciml.solve(problem, solver, on=ON, throw=False).value


def equal(function: object, *inputs: torch.Tensor) -> bool:
    return bool(torch.autograd.gradcheck(function, inputs, atol=1e-6, rtol=1e-5, fast_mode=True))


STIFF = [
    SDIRK(step=0.025, rtol=1e-8),
    SDIRK(step=0.025, rtol=1e-8, order=3),
    IMEX(step=0.025, rtol=1e-8),
    BDF(step=0.025, rtol=1e-8),
]


@pytest.mark.parametrize("solver", [*STIFF, RungeKutta(step=0.004)], ids=lambda s: s.kind)
def test_heat_in_conductivity_initial_data_and_source(solver: Solver) -> None:
    def answer(K: torch.Tensor, u: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        equation = Equation(d=1.0, K=K, f=f)
        return value_of(Problem(LINE, equation, COLD, time=Time(0.1, frames=3), initial=u), solver)

    assert equal(answer, field(N), field(N, seed=1), field(N, seed=2))


@pytest.mark.parametrize("solver", STIFF, ids=lambda s: s.kind)
def test_reaction_with_boundary_data_that_move(solver: Solver) -> None:
    def answer(rate: torch.Tensor, g: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        sides = {"left": Condition(dirichlet="g*exp(-t)"), "right": Condition(neumann="g*t")}
        equation = Equation(d=1.0, K=0.05, f="rate*(u - u**3)*(1 + t)")
        parameters = {"rate": rate, "g": g}
        problem = Problem(
            LINE, equation, sides, parameters=parameters, time=Time(0.1, frames=3), initial=u
        )
        return value_of(problem, solver)

    assert equal(answer, field(), field(seed=1), field(N, seed=2))


@pytest.mark.parametrize(
    "solver", [SDIRK(step=0.05, rtol=1e-8), RungeKutta(step=0.02), Verlet()], ids=lambda s: s.kind
)
def test_damped_wave_in_speed_displacement_and_velocity(solver: Solver) -> None:
    def answer(K: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        equation = Equation(m=1.0, d=0.1, K=K)
        initial = {"u": u, "ut": v}
        problem = Problem(LINE, equation, COLD, time=Time(0.2, frames=3), initial=initial)
        return value_of(problem, solver)

    assert equal(answer, field(N), field(N, seed=1), field(N, seed=2))


def test_burgers_in_viscosity_and_initial_data() -> None:
    def answer(K: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        equation = Equation(kind="burgers", K=K)
        problem = Problem(LINE, equation, COLD, time=Time(0.1), initial=u)
        return value_of(problem, SDIRK(step=0.025, rtol=1e-8))

    assert equal(answer, field(), field(N, seed=1))


def test_a_batch_is_differentiated_sample_by_sample() -> None:
    weight = field(2, 2, N, seed=3).detach()
    start = field(2, N, seed=1)
    solver = SDIRK(step=0.05, rtol=1e-8)

    def answer(u: torch.Tensor) -> torch.Tensor:
        equation = Equation(d=1.0, f="u - u**3")
        return value_of(Problem(LINE, equation, COLD, time=Time(0.1), initial=u), solver)

    (together,) = torch.autograd.grad((weight * answer(start)).sum(), start)
    for sample in range(2):
        alone = start[sample].detach().requires_grad_()
        (gradient,) = torch.autograd.grad((weight[sample] * answer(alone)).sum(), alone)
        assert torch.allclose(gradient, together[sample], rtol=1e-7, atol=1e-10)


def test_the_value_with_a_graph_is_that_without() -> None:
    for solver in (*STIFF, RungeKutta(rtol=1e-4), SDIRK(rtol=1e-4)):
        start = field(N)
        equation = Equation(d=1.0, K="1 + x", f="u*(1 - u)")
        problem = Problem(LINE, equation, COLD, time=Time(0.1, frames=3), initial=start)
        with_graph = value_of(problem, solver)
        with torch.no_grad():
            without = value_of(problem, solver)
        assert with_graph.requires_grad and not without.requires_grad
        assert torch.allclose(with_graph, without, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "equation",
    [
        Equation(d=1.0, K="1 + s*u**2", c="s*x", f="s*sin(3*x)*(1 + t)"),
        Equation(d=1.0, energy="0.5*(1 + s*x)*ux**2 + 0.25*s*u**4 - s*u*(1 + t)"),
    ],
    ids=["fluxes", "energy"],
)
def test_parameters_of_a_nonlinear_equation_and_of_its_sides(equation: Equation) -> None:
    """What was evaluated without a graph must not stand in for what has one."""

    def answer(s: torch.Tensor, g: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        sides = {"left": Condition(dirichlet="g"), "right": Condition(neumann="h")}
        parameters = {"s": s, "g": g, "h": h}
        problem = Problem(
            LINE, equation, sides, parameters=parameters, time=Time(0.1), initial="g + 0*x"
        )
        return value_of(problem, SDIRK(step=0.025, rtol=1e-9))

    assert equal(answer, field(), field(seed=1), field(seed=2))


def heated(source: str, k: torch.Tensor, **time: object) -> Problem:
    """u_t = u_xx + source from rest between insulated ends: the mean of u is its integral."""
    sides = {"all": Condition(neumann=0.0)}
    span = Time(1.0, **time)  # type: ignore[arg-type]
    equation = Equation(d=1.0, f=source)
    return Problem(LINE, equation, sides, parameters={"k": k}, time=span, initial=0.0)


@pytest.mark.parametrize("solver", [SDIRK(), BDF(rtol=1e-6), IMEX()], ids=lambda s: s.kind)
@pytest.mark.parametrize(
    ("source", "breaks", "truth"),
    [("k*where(t < 0.3, 1, 0)", (0.3,), 0.3), ("k*cos(t)", (), math.sin(1.0))],
    ids=["jump", "cosine"],
)
def test_stages_that_need_no_solve_have_the_gradient_of_their_equation(
    solver: Solver, source: str, breaks: tuple[float, ...], truth: float
) -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = sciml.solve(heated(source, k, breaks=breaks), solver, on=sciml.Grid((17,))).last
    (slope,) = torch.autograd.grad(value.mean(), k)
    # The steps are linear in k = 1, so that their gradient is their value.
    assert float(slope) == pytest.approx(float(value.detach().mean()), rel=1e-8)
    assert float(slope) == pytest.approx(truth, rel=1e-4)


def test_an_answer_has_no_gradient_by_its_guess() -> None:
    a = torch.tensor([4.0], dtype=torch.float64, requires_grad=True)
    guess = a / 2
    root = attach(guess, lambda x: a - x * x, lambda g: g / (2 * guess.detach()))
    assert torch.autograd.grad(root.sum(), a)[0].tolist() == [0.25]
    apart = attach(guess, lambda x: 2 - x, lambda g: g)
    assert not apart.requires_grad


@pytest.mark.parametrize(
    ("solver", "nonlinear"),
    [
        (STIFF[0], True),
        (STIFF[1], False),
        (STIFF[2], False),
        (STIFF[3], True),
        (RungeKutta(step=0.005), True),
    ],
    ids=["sdirk", "sdirk of order 3", "imex", "bdf", "runge_kutta"],
)
def test_data_that_jump_in_source_conductivity_and_sides(solver: Solver, nonlinear: bool) -> None:
    def answer(theta: torch.Tensor) -> torch.Tensor:
        on = "where(t < 0.02, 1, 0.25)"
        K = f"0.2 + q*{on} + 0.1*u**2" if nonlinear else f"0.2 + q*{on}"
        equation = Equation(d=1.0, K=K, f=f"k*{on} - a*u")
        sides = {
            "left": Condition(dirichlet=f"g*{on}"),
            "right": Condition(neumann=f"g*{on}"),
        }
        parameters = dict(zip("kqga", theta, strict=True))
        time = Time(0.06, breaks=(0.02,))
        problem = Problem(LINE, equation, sides, parameters=parameters, time=time, initial="g+k*x")
        return value_of(problem, solver)

    assert equal(answer, field(4))


def test_steps_that_only_a_smooth_solution_bears_have_no_gradient() -> None:
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    free = sciml.solve(heated("k*cos(t)", k), RungeKutta(), on=sciml.Grid((17,)))
    assert not free.value.requires_grad
    assert any("no gradient: runge_kutta took steps that enlarge" in note for note in free.notes)
    short = sciml.solve(heated("k*cos(t)", k), RungeKutta(step=0.01), on=sciml.Grid((7,)))
    (slope,) = torch.autograd.grad(short.last.mean(), k)
    assert float(slope) == pytest.approx(math.sin(1.0), rel=1e-6)


def test_a_run_that_ended_early_has_no_gradient_by_its_sides_alone() -> None:
    g = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    sides = {side: Condition(dirichlet="g") for side in LINE.sides}
    equation = Equation(d=1.0, f="1000*u**2")
    problem = Problem(
        LINE, equation, sides, parameters={"g": g}, time=Time(1.0, frames=5), initial="g"
    )
    solution = sciml.solve(problem, SDIRK(), on=ON, throw=False)
    assert not all(status.success for status in solution.statuses)
    assert any("no gradient" in note for note in solution.notes)
    assert not solution.value.requires_grad
