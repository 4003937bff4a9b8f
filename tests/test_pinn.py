"""Physics-informed networks: their Jacobians, optimisers, weights, windows, and what they reach."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.status import Status
from sciml.discretization.points.strong import strong_form
from sciml.solvers.trained import PINN, GaussNewton, Sobol, VariableProjection
from sciml.solvers.trained.conditions import Piece, extent
from sciml.solvers.trained.gauss_newton import DampedSystem, EnergyNaturalGradient
from sciml.solvers.trained.gradient_methods import (
    LBFGS,
    AdamDescent,
    Probe,
    SelfScaledBroyden,
    self_scaled,
    strong_wolfe,
    two_loops,
    value_and_gradient,
)
from sciml.solvers.trained.minimisation import Minimisation, train
from sciml.solvers.trained.networks import InputScaling, Perceptron
from sciml.solvers.trained.objective import (
    Ansatz,
    Causal,
    GradientNorm,
    NeuralTangent,
    Objective,
    PlacedPiece,
)
from sciml.solvers.trained.verify import measure
from sciml.solvers.trained.windows import Glued

WALLS = {side: Condition(dirichlet=0.0) for side in ("left", "right", "bottom", "top")}
ENDS = {side: Condition(dirichlet=0.0) for side in ("left", "right")}


def poisson(boundary: dict[str, Condition] = WALLS) -> Problem:
    return Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        Equation(K=1.0, f="2*pi**2*sin(pi*x)*sin(pi*y)"),
        boundary,
        exact="sin(pi*x)*sin(pi*y)",
    )


def heat(end: float = 0.2) -> Problem:
    """u = exp(-t) sin(pi x)."""
    return Problem(
        Box((0.0,), (1.0,)),
        Equation(d=1.0, K=1.0, f="(pi**2 - 1)*exp(-t)*sin(pi*x)"),
        ENDS,
        initial="sin(pi*x)",
        time=Time(end),
        exact="exp(-t)*sin(pi*x)",
    )


def wave() -> Problem:
    """u = cos(pi t) sin(pi x)."""
    return Problem(
        Box((0.0,), (1.0,)),
        Equation(m=1.0, K=1.0),
        ENDS,
        initial={"u": "sin(pi*x)"},
        time=Time(1.0, frames=3),
        exact="cos(pi*t)*sin(pi*x)",
    )


def error(problem: Problem, solution: sciml.Solution, count: int = 2000) -> float:
    """The relative L2 error of the trained function at fresh points of space and time."""
    lower, upper = list(problem.box.lower), list(problem.box.upper)
    if problem.time is not None:
        lower, upper = [*lower, problem.time.start], [*upper, problem.time.end]
    cube = torch.quasirandom.SobolEngine(len(lower), True, 5).draw(count, dtype=torch.float64)
    x = torch.tensor(lower) + cube * (torch.tensor(upper) - torch.tensor(lower))
    exact = strong_form(problem).data(problem.exact, "exact", x)
    assert solution.function is not None
    return float((solution.function(x)[:, 0] - exact).norm() / exact.norm())


def objective_of(solver: PINN, problem: Problem) -> Objective:
    objective = solver.init(problem, Points(10)).objective
    counts = [7] * len(objective.pieces)
    objective.place(Sobol().points(objective, counts, torch.Generator().manual_seed(3)))
    return objective


def training(objective: Objective, count: int = 200, **options: object) -> Minimisation:
    counts = [count if p.name == "equation" else count // 4 for p in objective.pieces]
    generator = torch.Generator().manual_seed(0)
    return Minimisation(Sobol(), counts, generator, 0.0, **options)  # type: ignore[arg-type]


NETWORKS = {
    "plain": PINN(width=4, depth=2),
    "sin": PINN(width=4, depth=2, activation="sin"),
    "features": PINN(width=4, depth=1, features=3, feature_scale=2.0),
    "modified": PINN(width=4, depth=2, modified=True),
    "factorised": PINN(width=4, depth=2, factorised=True),
    "all": PINN(width=3, depth=2, features=2, modified=True, factorised=True, hard=False),
}
NONLINEAR = Problem(
    Box((0.0,), (1.0,)),
    Equation(d=1.0, K="1 + u*u", b=("u",), c=1.0, f="x*t"),
    {"left": Condition(dirichlet="t"), "right": Condition(neumann=1.0)},
    initial="x",
    time=Time(1.0),
)


class TestJacobian:
    @pytest.mark.parametrize("name", NETWORKS)
    @pytest.mark.parametrize("problem", [poisson(), NONLINEAR], ids=["poisson", "nonlinear"])
    def test_rows_are_the_derivatives_of_the_residuals(self, name: str, problem: Problem) -> None:
        objective = objective_of(NETWORKS[name], problem)
        r, J = objective.jacobian()
        theta = objective.theta
        torch.testing.assert_close(r, objective.vector())
        generator = torch.Generator().manual_seed(1)
        for _ in range(2):
            v = torch.randn(len(theta), dtype=torch.float64, generator=generator)
            sides = []
            for h in (1e-5, -1e-5):
                objective.assign(theta + h * v)
                sides.append(objective.vector())
            objective.assign(theta)
            slope = (sides[0] - sides[1]) / 2e-5
            torch.testing.assert_close(J @ v, slope, rtol=2e-6, atol=2e-6 * float(slope.norm()))

    @pytest.mark.parametrize("name", ["modified", "factorised", "all"])
    def test_rows_add_up_to_autograds_gradient(self, name: str) -> None:
        objective = objective_of(NETWORKS[name], poisson())
        r, J = objective.jacobian()
        loss, slope = value_and_gradient(objective)
        assert loss == pytest.approx(float(r @ r), rel=1e-12)
        torch.testing.assert_close(2 * J.T @ r, slope)

    def test_weights_of_points_enter_loss_vector_and_jacobian_alike(self) -> None:
        objective = objective_of(NETWORKS["all"], poisson())
        share = torch.linspace(0.1, 1.0, 7, dtype=torch.float64)
        objective.batches[0] = replace(objective.batches[0], share=share, weight=3.0)
        r, J = objective.jacobian()
        loss, slope = value_and_gradient(objective)
        torch.testing.assert_close(r, objective.vector())
        assert loss == pytest.approx(float(r @ r), rel=1e-12)
        torch.testing.assert_close(2 * J.T @ r, slope)

    @pytest.mark.parametrize("name", NETWORKS)
    def test_jets_are_autograds_derivatives(self, name: str) -> None:
        network = objective_of(NETWORKS[name], poisson()).ansatz.network
        x = torch.rand(5, 2, dtype=torch.float64)
        jet = network(x, ((0, 0), (0, 1), (1, 1)))

        def value(point: torch.Tensor) -> torch.Tensor:
            return network(point[None], ()).value[0, 0]

        slopes = torch.func.vmap(torch.func.grad(value))(x)
        curves = torch.func.vmap(torch.func.hessian(value))(x)
        torch.testing.assert_close(jet.gradient[:, :, 0].T, slopes)
        torch.testing.assert_close(jet.second(0, 1)[:, 0], curves[:, 0, 1])
        torch.testing.assert_close(jet.second(1, 1)[:, 0], curves[:, 1, 1])

    def test_factorisation_leaves_the_function_at_the_start(self) -> None:
        torch.manual_seed(0)
        dense = PINN(width=5, factorised=True).init(poisson(), Points(4)).objective
        for block in dense.ansatz.network.blocks():
            wanted = block.scale.exp()[:, None] * block.weight
            torch.testing.assert_close(block.matrix(), wanted)
            assert float(block.matrix().detach().std()) < 2.0

    def test_periodic_axes_repeat(self) -> None:
        low, high = torch.tensor([-1.0]), torch.tensor([2.0])
        network = Perceptron(InputScaling(low, high, (True,)), 4, 1, 1).double()
        ends = torch.tensor([[-1.0], [2.0]], dtype=torch.float64)
        jet = network(ends, ((0, 0),)).data
        torch.testing.assert_close(jet[:, 0], jet[:, 1])


class TestDampedSystem:
    @pytest.mark.parametrize("shape", [(30, 12), (12, 30)], ids=["tall", "wide"])
    @pytest.mark.parametrize(("decades", "bound"), [(1, 1e-12), (4, 1e-7), (10, 1e-4)])
    def test_is_the_regularised_least_squares_solution(
        self, shape: tuple[int, int], decades: int, bound: float
    ) -> None:
        """Against the SVD, far below what the normal equations alone can resolve."""
        torch.manual_seed(0)
        U, _, Vh = torch.linalg.svd(torch.randn(shape, dtype=torch.float64), full_matrices=False)
        S = torch.logspace(0, -decades, 12, dtype=torch.float64)
        b, mu = torch.randn(shape[0], dtype=torch.float64), float(S[-1]) ** 2
        system = DampedSystem((U * S) @ Vh)
        assert system.damp(mu)
        exact = Vh.T @ (S / (S**2 + mu) * (U.T @ b))
        found = system.solve(b)
        assert float((found - exact).norm() / exact.norm()) < bound

    def test_takes_another_damping_without_another_product(self) -> None:
        J = torch.randn(9, 4, dtype=torch.float64)
        b = torch.randn(9, dtype=torch.float64)
        system = DampedSystem(J)
        for mu in (1.0, 1e-3):
            assert system.damp(mu)
            matrix = J.T @ J + mu * torch.eye(4, dtype=torch.float64)
            torch.testing.assert_close(system.solve(b), torch.linalg.solve(matrix, J.T @ b))


class TestLineSearch:
    @pytest.mark.parametrize("first", [1e-3, 0.3, 1.0, 40.0])
    @pytest.mark.parametrize("stretch", [0.05, 1.0, 30.0])
    def test_step_fulfils_the_strong_wolfe_conditions(self, first: float, stretch: float) -> None:
        def phi(at: float) -> Probe:
            s = at / stretch
            value = (s - 1) ** 2 * (1 + 0.3 * math.sin(3 * s)) + 0.05 * s
            slope = (
                2 * (s - 1) * (1 + 0.3 * math.sin(3 * s))
                + (s - 1) ** 2 * 0.9 * math.cos(3 * s)
                + 0.05
            )
            return Probe(at, value, slope / stretch)

        zero = phi(0.0)
        at = strong_wolfe(phi, zero, first)
        assert at is not None
        new = phi(at)
        assert new.value <= zero.value + 1e-4 * at * zero.slope
        assert abs(new.slope) <= 0.9 * abs(zero.slope)

    def test_finds_none_where_the_function_rises(self) -> None:
        assert strong_wolfe(lambda a: Probe(a, a, 1.0), Probe(0.0, 0.0, -1e-9), 1.0) is None

    def test_two_loops_are_the_bfgs_matrix(self) -> None:
        """Against the product form of the inverse update, Nocedal and Wright (7.16)."""
        torch.manual_seed(0)
        A = torch.randn(5, 5, dtype=torch.float64)
        A = A @ A.T + torch.eye(5, dtype=torch.float64)
        pairs = [(s, A @ s) for s in torch.randn(3, 5, dtype=torch.float64)]
        s, y = pairs[-1]
        identity = torch.eye(5, dtype=torch.float64)
        H = (s @ y) / (y @ y) * identity
        for s, y in pairs:
            V = identity - torch.outer(y, s) / (s @ y)
            H = V.T @ H @ V + torch.outer(s, s) / (s @ y)
        g = torch.randn(5, dtype=torch.float64)
        torch.testing.assert_close(two_loops(g, deque(pairs)), H @ g)


OPTIMISERS = {
    "gauss_newton": (GaussNewton(iterations=25), 3e-4),
    "energy_natural_gradient": (EnergyNaturalGradient(iterations=25), 3e-3),
    "lbfgs": (LBFGS(iterations=250), 1e-2),
    "ssbroyden": (SelfScaledBroyden(iterations=250), 3e-3),
    "adam": (AdamDescent(iterations=400, rate=1e-2), 5e-2),
}


class TestOptimisers:
    @pytest.mark.parametrize("name", OPTIMISERS)
    def test_reaches_the_manufactured_solution(self, name: str) -> None:
        optimiser, bound = OPTIMISERS[name]
        solver = PINN(width=10, depth=1, points=150, optimiser=optimiser, rtol=1e-9)
        solution = sciml.solve(poisson(), solver, on=Points(50), throw=False)
        assert error(poisson(), solution) < bound
        assert int(solution.stats.iterations) <= optimiser.iterations

    @pytest.mark.parametrize(
        "name", ["gauss_newton", "energy_natural_gradient", "lbfgs", "ssbroyden"]
    )
    def test_never_raises_the_loss(self, name: str) -> None:
        objective = PINN(width=6, depth=1).init(poisson(), Points(4)).objective
        optimiser = replace(OPTIMISERS[name][0], iterations=12)
        losses = optimiser.minimise(objective, training(objective)).losses
        assert all(b < a for a, b in pairwise(losses))

    def test_gauss_newton_solves_a_linear_least_squares_problem_at_once(self) -> None:
        """The last layer alone is linear: two steps are within rounding of lstsq."""
        objective = PINN(width=12, depth=1).init(poisson(), Points(4)).objective
        last = objective.ansatz.network.blocks()[-1]
        objective.place(Sobol().points(objective, [60], torch.Generator().manual_seed(0)))
        r, J = objective.jacobian([last])
        best = torch.linalg.lstsq(J, -r[:, None]).solution[:, 0]
        system = DampedSystem(J)
        assert system.damp(1e-24)
        least = float((r + J @ best).norm())
        assert float((r + J @ system.solve(-r)).norm()) == pytest.approx(least, rel=1e-6)

    def test_lbfgs_goes_on_at_small_losses(self) -> None:
        """Losses scaled by 1e-20 take the same path: there is no absolute tolerance."""
        courses = []
        for weight in (1.0, 1e-20):
            objective = (
                PINN(width=6, depth=1, weights={"equation": weight})
                .init(poisson(), Points(4))
                .objective
            )
            optimiser = LBFGS(iterations=40)
            courses.append(optimiser.minimise(objective, training(objective)).losses)
        assert len(courses[1]) == len(courses[0]) == 40
        assert courses[1][-1] / courses[1][0] < 3 * courses[0][-1] / courses[0][0] + 1e-3

    def test_self_scaled_steps_keep_the_secant_equation_and_definiteness(self) -> None:
        """H y = s and H > 0 after each step on a quadratic whose Hessian A is badly scaled."""
        generator = torch.Generator().manual_seed(0)
        n = 12
        Q = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64, generator=generator)).Q
        A = Q @ torch.diag(torch.logspace(-3, 3, n, dtype=torch.float64)) @ Q.T
        H = torch.eye(n, dtype=torch.float64)
        x = torch.randn(n, dtype=torch.float64, generator=generator)
        for _ in range(4 * n):
            gradient = A @ x
            direction = -(H @ gradient)
            length = float(-(gradient @ direction) / (direction @ A @ direction))
            s = length * direction
            y = A @ s
            bent = float(s @ torch.linalg.solve(H, s))
            assert bent == pytest.approx(length * float(-(s @ gradient)), rel=1e-6)
            self_scaled(H, s, y, H @ y, length * float(-(s @ gradient)))
            assert torch.allclose(H @ y, s, rtol=1e-7, atol=1e-9 * float(s.norm()))
            assert float(torch.linalg.eigvalsh(H)[0]) > 0
            x = x + s
            if float((A @ x).norm()) < 1e-8:
                break
        assert float((A @ x).norm()) < 1e-6

    def test_several_follow_one_another_on_one_record(self) -> None:
        objective = PINN(width=6, depth=1).init(poisson(), Points(4)).objective
        seen: list[int] = []
        given = training(objective, progress=lambda iteration, _: seen.append(iteration))
        stages = (AdamDescent(iterations=30, rate=1e-2), GaussNewton(iterations=5))
        course = train(stages, objective, given)
        assert seen == list(range(35)) and len(course.losses) == 35
        assert course.losses[-1] < 0.1 * course.losses[29]

    def test_rates_fall_as_they_should(self) -> None:
        for decay, middle in (("none", 1.0), ("exponential", 0.1), ("cosine", 0.505)):
            adam = AdamDescent(iterations=3, rate=2.0, decay=decay, last=1e-2)
            assert adam.rate_at(0) == pytest.approx(2.0)
            assert adam.rate_at(1) == pytest.approx(2.0 * middle)
            assert adam.rate_at(2) == pytest.approx(2.0 if decay == "none" else 0.02)

    def test_adam_is_torchs(self) -> None:
        objectives = [objective_of(PINN(width=4, depth=1), poisson()) for _ in range(2)]
        given = training(objectives[0])
        given.sampler = _Held()
        AdamDescent(iterations=5, rate=1e-2, decay="none").minimise(objectives[0], given)
        other = torch.optim.Adam(objectives[1].columns, lr=1e-2)
        for _ in range(5):
            other.zero_grad()
            objectives[1].loss()[0].backward()
            other.step()
        torch.testing.assert_close(objectives[0].theta, objectives[1].theta)

    def test_mini_batches_are_what_the_sampler_draws(self) -> None:
        objective = PINN(width=4, depth=1).init(poisson(), Points(4)).objective
        given = training(objective, 20)
        given.sampler = Sobol(every=1)
        first: list[torch.Tensor] = []
        given.progress = lambda *_: first.append(objective.batches[0].points[0])
        AdamDescent(iterations=3).minimise(objective, given)
        assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])


class _Held:
    """The points as they are."""

    every = 0

    def points(self, objective: Objective, *_: object) -> list[torch.Tensor]:
        return [batch.points for batch in objective.batches]


class TestRecord:
    def test_keeps_terms_error_and_time_left(self) -> None:
        solver = PINN(width=8, depth=1, points=100, hard=False, rtol=1e-12)
        solver = replace(solver, optimiser=GaussNewton(iterations=8))
        state = solver.init(poisson(), Points(4))
        calls: list[tuple[int, float]] = []
        solver.run(state, progress=lambda i, r: calls.append((i, r)))
        assert [i for i, _ in calls] == list(range(8)) and calls[-1][1] < calls[0][1]
        assert set(state.record) == {"iteration", "loss", "terms", "error", "left"}
        assert set(state.record["terms"]) == {"equation", *WALLS}
        assert 0 < state.record["error"] < 10 and state.record["left"] >= 0

    def test_terms_add_up_to_the_loss(self) -> None:
        objective = objective_of(NETWORKS["all"], poisson())
        given = training(objective, record={})
        given.ended(float(objective.loss()[0]), objective)
        assert given.record is not None
        total = sum(term**2 for term in given.record["terms"].values())
        assert given.record["loss"] == pytest.approx(total)

    @pytest.mark.parametrize(
        "optimiser",
        [AdamDescent(), LBFGS(), SelfScaledBroyden(), GaussNewton()],
        ids=lambda o: o.kind,
    )
    def test_stops_at_the_first_nan_and_names_the_term(self, optimiser: object) -> None:
        equation = Equation(K=1.0, f=lambda x, y: torch.where(x > 0.5, torch.nan, 1.0))
        problem = replace(poisson(), equation=equation, exact=None)
        solver = PINN(width=4, depth=1, points=40, optimiser=optimiser, hard=False)  # type: ignore[arg-type]
        solution = sciml.solve(problem, solver, on=Points(20), throw=False)
        assert solution.status is Status.NOT_FINITE
        assert int(solution.stats.iterations) == 1
        assert "no finite loss at iteration 0: the residual of 'equation' at (" in solution.notes[0]

    def test_the_next_optimiser_does_not_go_on_from_a_nan(self) -> None:
        equation = Equation(K=1.0, f=lambda x, y: torch.full_like(x, torch.nan))
        problem = replace(poisson(), equation=equation, exact=None)
        solver = PINN(width=4, depth=1, points=9, optimiser=(AdamDescent(), GaussNewton()))
        solution = sciml.solve(problem, solver, on=Points(5), throw=False)
        assert int(solution.stats.iterations) == 1

    def test_time_that_is_over_ends_all_optimisers(self) -> None:
        solver = PINN(width=4, depth=1, points=9, optimiser=(AdamDescent(), LBFGS()), seconds=0.0)
        solution = sciml.solve(poisson(), solver, on=Points(5), throw=False)
        assert int(solution.stats.iterations) == 1
        assert solution.status is Status.TRAINING_ENDED


class TestWeighting:
    def test_causal_weights_are_the_formulas(self) -> None:
        objective = objective_of(PINN(width=4, depth=1), heat())
        batch: PlacedPiece = objective.batches[0]
        assert Causal(epsilon=0.5, slices=3).weigh(objective, 0, lambda loss: 2.0 * loss**0.5)
        share = objective.batches[0].share
        assert share is not None
        slices = (batch.points[:, 1] / 0.2 * 3).long().numpy()
        squares = objective.residual(batch).detach().square().sum(-1).numpy()
        means = [squares[slices == k].mean() if (slices == k).any() else 0.0 for k in range(3)]
        wanted = [math.exp(-0.5 * 4.0 * sum(means[:k])) for k in slices]
        np.testing.assert_allclose(share.numpy(), wanted, rtol=1e-12)

    def test_causal_training_reaches_the_solution_and_opens_all_times(self) -> None:
        solver = PINN(width=10, depth=1, points=200, causal=Causal(epsilon=10.0), rtol=1e-6)
        solver = replace(solver, optimiser=GaussNewton(iterations=25))
        state = solver.init(heat(), Grid((9,)))
        solution = solver.run(state)
        share = state.objective.batches[0].share
        assert share is not None and float(share.min()) > 0.99
        assert error(heat(), solution) < 1e-4

    def test_gradient_norms_of_weighted_terms_are_equal(self) -> None:
        objective = objective_of(NETWORKS["all"], poisson())
        balance = GradientNorm(memory=0.5)
        assert balance.weigh(objective, 0, math.sqrt) and not balance.weigh(objective, 7, math.sqrt)
        norms = []
        for batch in objective.batches:
            loss = batch.weight * objective.residual(batch).square().sum(-1).mean()
            parts = torch.autograd.grad(loss, objective.columns, allow_unused=True)
            norms.append(float(torch.cat([p.flatten() for p in parts if p is not None]).norm()))
        np.testing.assert_allclose(norms, norms[0], rtol=1e-10)

    def test_tangent_kernels_of_weighted_terms_have_equal_traces(self) -> None:
        objective = objective_of(NETWORKS["all"], poisson())
        assert NeuralTangent().weigh(objective, 0, math.sqrt)
        _, J = objective.jacobian()
        traces = J.square().sum(1).reshape(len(objective.batches), -1).sum(1)
        torch.testing.assert_close(traces, traces[0].expand_as(traces))

    def test_weights_stay_at_new_points(self) -> None:
        objective = objective_of(NETWORKS["all"], poisson())
        GradientNorm().weigh(objective, 0, math.sqrt)
        before = [batch.weight for batch in objective.batches]
        objective.place(Sobol().points(objective, [5] * 5, torch.Generator().manual_seed(9)))
        assert [batch.weight for batch in objective.batches] == before

    def test_balance_makes_soft_conditions_hold(self) -> None:
        """From weights that all but leave the sides out."""
        weights = dict.fromkeys(WALLS, 1e-8)
        solver = PINN(width=8, depth=1, points=100, hard=False, weights=weights, rtol=1e-9)
        solver = replace(solver, boundary_points=20, optimiser=GaussNewton(15))
        found = [
            sciml.solve(poisson(), replace(solver, balance=balance), on=Points(9), throw=False)
            for balance in (None, NeuralTangent(every=5, memory=0.0))
        ]
        plain, balanced = (error(poisson(), solution) for solution in found)
        assert balanced < 0.1 < plain


class TestWindows:
    @pytest.mark.parametrize("problem", [heat(), wave()], ids=["heat", "wave"])
    @pytest.mark.parametrize("hard", [True, False], ids=["hard", "soft"])
    def test_reach_the_solution(self, problem: Problem, hard: bool) -> None:
        solver = PINN(
            width=10, depth=1, points=120, boundary_points=25, windows=2, hard=hard, rtol=1e-9,
            optimiser=GaussNewton(iterations=20),
        )  # fmt: skip
        solution = sciml.solve(problem, solver, on=Grid((17,)), throw=False)
        assert error(problem, solution) < (3e-3 if hard else 2e-2)
        assert int(solution.stats.iterations) == 40
        joint = [note for note in solution.notes if "joint at" in note]
        assert bool(joint) is not hard

    def test_are_continuous_where_the_start_is_built_in(self) -> None:
        problem = wave()
        solver = PINN(width=6, depth=1, points=40, windows=3, optimiser=GaussNewton(2))
        solution = sciml.solve(problem, solver, on=Grid((9,)), throw=False)
        assert solution.function is not None
        x = torch.linspace(0, 1, 7, dtype=torch.float64)
        for t in (1 / 3, 2 / 3):
            before, after = (
                solution.function(torch.stack([x, torch.full_like(x, t + h)], -1))
                for h in (-1e-9, 1e-9)
            )
            torch.testing.assert_close(before, after, rtol=0, atol=1e-6)

    def test_glued_function_is_each_window_in_its_own_time(self) -> None:
        parts = [PINN(width=3, depth=1, seed=k).init(heat(), Points(4)).objective.ansatz
                 for k in range(2)]  # fmt: skip
        glued = Glued(tuple(parts), (0.1,))
        x = torch.rand(20, 2, dtype=torch.float64) * torch.tensor([1.0, 0.2])
        pairs = ((0, 0),)
        jet = glued(x, pairs)
        for k, rows in enumerate((x[:, 1] < 0.1, x[:, 1] >= 0.1)):
            own = parts[k].jet(x[rows], pairs, parts[k].known(x[rows], pairs))
            torch.testing.assert_close(jet.data[:, rows], own.data)

    def test_steady_problems_have_none(self) -> None:
        for options in ({"windows": 2}, {"causal": Causal()}):
            with pytest.raises(InputError, match="problems in time"):
                PINN(**options).init(poisson(), Points(4))  # type: ignore[arg-type]


class TestAnswers:
    def test_poisson_reaches_1e_6(self) -> None:
        solver = PINN(width=16, points=500, optimiser=GaussNewton(iterations=60), rtol=1e-9)
        solution = sciml.solve(poisson(), solver, on=Grid((33, 33)), throw=False)
        assert error(poisson(), solution) < 1.5e-6

    def test_a_jump_between_soft_windows_is_a_residual_of_the_answer(self) -> None:
        solver = PINN(width=3, depth=1, points=20, boundary_points=5, windows=2, hard=False)
        solver = replace(solver, optimiser=GaussNewton(iterations=1), rtol=1e-9)
        solution = sciml.solve(heat(), solver, on=Grid((9,)), throw=False)
        assert "joint at 0.1" in solution.notes[-1] and not solution.converged

    def test_an_ansatz_that_is_the_solution_has_no_residual(self) -> None:
        """The verification itself, with u in the place of a network."""
        form = strong_form(poisson())
        exact = _Exact()
        piece = Piece("equation", *extent(form), form.residual, pairs=form.pairs)
        objective = Objective(form, Ansatz(exact), [piece])  # type: ignore[arg-type]
        assert measure(objective, 100)["equation"] < 1e-12


class _Exact:
    def __call__(self, points: torch.Tensor, pairs: tuple, tape: object = None) -> object:
        from sciml.discretization.points.jet import jet_of

        return jet_of(
            lambda x: torch.sin(math.pi * x[:, :1]) * torch.sin(math.pi * x[:, 1:]), points, pairs
        )

    def blocks(self) -> list:
        return []


class TestWaves:
    """What a first layer as it is drawn else learns late or never."""

    def test_waves_of_unlike_lengths_are_learnt_by_default(self) -> None:
        box = Box((-1.0, -1.0), (1.0, 1.0))
        exact = "sin(pi*x)*sin(4*pi*y)"
        equation = Equation(K=1.0, c=-1.0, f=f"(17*pi**2 - 1)*{exact}")
        sides = dict.fromkeys(box.sides, Condition(dirichlet=0.0))
        problem = Problem(box, equation, sides, exact=exact)
        solution = sciml.solve(problem, PINN(rtol=1e-6), on=Points(50))
        assert error(problem, solution) < 1e-6
        assert any("first layer" in note for note in solution.notes)

    def test_and_two_standing_waves(self) -> None:
        problem = Problem(
            Box((0.0,), (1.0,)),
            Equation(m=1.0, K=4.0),
            ENDS,
            initial={"u": "sin(pi*x) + 0.5*sin(4*pi*x)"},
            time=Time(1.0, frames=3),
            exact="sin(pi*x)*cos(2*pi*t) + 0.5*sin(4*pi*x)*cos(8*pi*t)",
        )
        solution = sciml.solve(problem, PINN(rtol=1e-3), on=Points(50))
        assert error(problem, solution) < 1e-3

    def test_what_is_smooth_begins_as_ever(self) -> None:
        network = PINN(width=6, depth=1).init(poisson(), Points(4)).objective.ansatz.network
        other = PINN(width=6, depth=1, bandwidth=None).init(poisson(), Points(4)).objective
        assert network.options == other.ansatz.network.options
        own, theirs = network.hidden[0].weight, other.ansatz.network.hidden[0].weight
        assert torch.equal(own, theirs)

    def test_a_band_that_is_given_bounds_the_first_layer(self) -> None:
        for factorised in (False, True):
            solver = PINN(width=200, depth=1, bandwidth=(3.0, 12.0), factorised=factorised)
            first = solver.init(poisson(), Points(4)).objective.ansatz.network.hidden[0]
            largest = first.matrix().detach().abs().max(0).values
            assert 2.8 < float(largest[0]) <= 3.0 and 11.2 < float(largest[1]) <= 12.0


class TestBadOptions:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: GaussNewton(iterations=0), "iterations must be at least 1"),
            (lambda: GaussNewton(damping=0.0), "damping must be positive"),
            (lambda: EnergyNaturalGradient(iterations=0), "iterations must be at least 1"),
            (lambda: LBFGS(memory=0), "memory must be at least 1"),
            (lambda: AdamDescent(rate=-1.0), "rate must be positive"),
            (lambda: AdamDescent(momentum=1.0), r"momentum must be in \[0, 1\)"),
            (lambda: PINN(bandwidth=(2.0, -1.0)), "bandwidth must be one or more positive"),
            (lambda: PINN(bandwidth=2.0, features=4), "a first layer without features"),
            (
                lambda: PINN(optimiser=VariableProjection(), factorised=True),
                "needs a last layer that is linear",
            ),
            (lambda: PINN(windows=0), "windows must be at least 1"),
            (lambda: Causal(epsilon=0.0), "epsilon must be positive"),
            (lambda: GradientNorm(every=0), "every must be at least 1"),
            (lambda: NeuralTangent(memory=1.0), r"memory must be in \[0, 1\)"),
        ],
    )
    def test_is_one_line(self, make: object, message: str) -> None:
        with pytest.raises(InputError, match=message):
            make()  # type: ignore[operator]
