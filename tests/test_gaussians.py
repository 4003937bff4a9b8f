"""Gaussians: jets, Jacobians, variable projection, refinement, and what they reach."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.discretization.points.jet import coordinates, jet_of
from sciml.solvers.trained.gaussians import (
    GaussianNetwork,
    Gaussians,
    Shape,
    contribution,
    grown,
    pruned,
)
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.sampling import sobol
from sciml.solvers.trained.variable_projection import Reduced, VariableProjection, Weights

WALLS = {side: Condition(dirichlet=0.0) for side in ("left", "right", "bottom", "top")}
WAVE = "sin(pi*x)*sin(pi*y)"
PAIRS = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2))
FREE, TURNING = (None, None, None), (None, 2.0, None)


def poisson(c: float | str = 0.0, f: str = f"2*pi**2*{WAVE}") -> Problem:
    return Problem(Box((0.0, 0.0), (1.0, 1.0)), Equation(K=1.0, c=c, f=f), WALLS, exact=WAVE)


def network(
    full: bool, hidden: int = 0, periods: tuple[float | None, ...] = FREE, channels: int = 1
) -> GaussianNetwork:
    """Ten Gaussians in three dimensions."""
    draw = torch.Generator().manual_seed(1)
    means = 2 * torch.rand(10, 3, dtype=torch.float64, generator=draw) - 1
    sharpness = 1.2 + 0.2 * torch.randn(10, 3, dtype=torch.float64, generator=draw)
    shape = Shape(means, sharpness, torch.arange(10) % channels)
    if full:
        shape = shape.sheared()
        assert shape.shear is not None
        shape.shear.copy_(0.5 * torch.randn(10, 3, dtype=torch.float64, generator=draw))
    weights = torch.randn(10, dtype=torch.float64, generator=draw)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unit = torch.tensor([0.5, 0.3, 2.0], dtype=torch.float64)
        return GaussianNetwork(shape, weights, unit, periods, channels, 1, hidden)


def places(count: int, dimension: int = 3) -> Tensor:
    return 2 * sobol(count, dimension, torch.Generator().manual_seed(2)) - 1


def objective(problem: Problem, points: int = 150, **options: object) -> Objective:
    found = Gaussians(**{"count": 12, "width": 0.3, **options}).init(problem, Grid((5, 5)))  # type: ignore[arg-type]
    found.objective.place(
        [p.place(sobol(points, p.free, torch.Generator().manual_seed(0)))
         for p in found.objective.pieces]
    )  # fmt: skip
    return found.objective


def differences(of: object, theta: Tensor, h: float = 1e-6) -> Tensor:
    columns = []
    for k in range(len(theta)):
        e = torch.zeros_like(theta)
        e[k] = h
        columns.append((of(theta + e) - of(theta - e)) / (2 * h))  # type: ignore[operator]
    return torch.stack(columns, -1)


@pytest.mark.parametrize("hidden", [0, 5])
@pytest.mark.parametrize("periods", [FREE, TURNING])
@pytest.mark.parametrize("full", [False, True])
def test_jets_are_those_of_the_function(
    full: bool, periods: tuple[float | None, ...], hidden: int
) -> None:
    net, x = network(full, hidden, periods, 2 if hidden else 1), places(9)
    plain = jet_of(lambda p: net(p, ()).value, x, PAIRS)
    torch.testing.assert_close(net(x, PAIRS).data.detach(), plain.data, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("full", [False, True])
def test_the_function_is_the_formula(full: bool) -> None:
    net, x = network(full), places(7)
    shape, weights = net.bank.shape, net.channels.weight.detach()
    total = np.zeros(7)
    for i in range(10):
        L = np.eye(3)
        if shape.shear is not None:
            L[np.tril_indices(3, -1)] = shape.shear[i]
        L = L @ np.diag(np.exp(shape.sharpness[i].numpy()))
        z = (x - shape.means[i]).numpy() @ L
        total += float(weights[i]) * np.exp(-0.5 * (z * z).sum(1))
    np.testing.assert_allclose(net(x, ()).value[:, 0].detach().numpy(), total, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1])
def test_periodic_axes(axis: int) -> None:
    """The function repeats along a periodic axis and along no other."""
    net, x = network(True, periods=TURNING), places(7)
    shift = torch.zeros(3, dtype=torch.float64)
    shift[axis] = 2.0
    gap = (net(x + shift, PAIRS).data - net(x, PAIRS).data).detach().abs().max()
    assert float(gap) < 1e-12 if axis == 1 else float(gap) > 1e-3


@pytest.mark.parametrize("periods", [FREE, TURNING])
@pytest.mark.parametrize("full", [False, True])
def test_rows_of_the_bank(full: bool, periods: tuple[float | None, ...]) -> None:
    """The closed form against central differences, and its sum against the graph's gradient."""
    bank, x = network(full, periods=periods).bank, places(6)
    count = 1 + 3 + len(PAIRS)
    delta = torch.randn(count, 6, 10, dtype=torch.float64, generator=torch.manual_seed(3))
    theta = torch.cat([p.detach().flatten() for p in bank.columns()])

    @torch.no_grad()
    def weighed(values: Tensor) -> Tensor:
        parts = values.split([p.numel() for p in bank.columns()])
        for p, part in zip(bank.columns(), parts, strict=True):
            p.copy_(part.view_as(p))
        return (bank.evaluate(x, PAIRS) * delta).sum((0, 2))

    expected = differences(weighed, theta)
    weighed(theta)
    rows = bank.jacobian(coordinates(x, PAIRS), delta)
    torch.testing.assert_close(rows, expected, rtol=1e-6, atol=1e-6)
    (bank(x, PAIRS).data * delta).sum().backward()
    gradient = torch.cat([p.grad.flatten() for p in bank.columns()])  # type: ignore[union-attr]
    torch.testing.assert_close(gradient, rows.sum(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("hidden", "c"), [(0, "u"), (4, 0.0), (4, "u")])
def test_jacobian_of_the_objective(hidden: int, c: float | str) -> None:
    o = objective(poisson(c), points=20, count=4, hidden=hidden, channels=2)
    theta = o.theta + 0.1

    def vector(values: Tensor) -> Tensor:
        o.assign(values)
        return o.vector()

    expected = differences(vector, theta)
    o.assign(theta)
    r, J = o.jacobian()
    torch.testing.assert_close(r, o.vector(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(J, expected, rtol=1e-5, atol=1e-5)
    last = o.ansatz.network.blocks()[-1]
    torch.testing.assert_close(o.jacobian([last])[1], J[:, Weights.of(o).columns])


def test_weights_are_the_least_squares_solution() -> None:
    o = objective(poisson())
    r, A = o.jacobian([o.ansatz.network.blocks()[-1]])
    w = o.theta[Weights.of(o).columns]
    expected = np.linalg.lstsq(A.numpy(), -(r - A @ w).numpy(), rcond=None)[0]
    Weights.of(o).solve(1)
    np.testing.assert_allclose(o.theta[Weights.of(o).columns], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("hidden", [0, 4])
def test_gradient_of_what_is_left(hidden: int) -> None:
    """K^T r against differences of the loss with the weights solved for at every point."""
    o = objective(poisson(), points=60, count=4, hidden=hidden, channels=2)
    weights = Weights.of(o)
    weights.solve(1)
    r, J = o.jacobian()
    reduced, theta = Reduced(r, J, weights.columns), o.theta
    own = (~reduced.linear).nonzero()[:, 0]

    def loss(values: Tensor) -> Tensor:
        full = theta.clone()
        full[own] = values
        o.assign(full)
        weights.solve(1)
        return o.vector().square().sum() / 2

    expected = differences(loss, theta[own], 1e-5)
    scale = float(expected.abs().max())
    torch.testing.assert_close(reduced.slope, expected, rtol=1e-4, atol=1e-5 * scale)


@settings(max_examples=15, deadline=None)
@given(drop=st.floats(0.0, 0.9), seed=st.integers(0, 99))
def test_pruning_keeps_the_function(drop: float, seed: int) -> None:
    """What is left out bounds, by the triangle inequality, what changes."""
    net, x = network(True), places(200)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        net.channels.weight.mul_(10 ** (-4 * torch.rand(10, dtype=torch.float64, generator=draw)))
    size = contribution(net, x)
    less = pruned(net, x, drop)
    gap = (less(x, ()).value - net(x, ()).value).detach().square().mean().sqrt()
    left_out = size[size <= drop * size.max()]
    assert len(less.bank.means) == 10 - len(left_out)
    assert float(gap) <= float(left_out.sum()) * (1 + 1e-12) + 1e-15


@pytest.mark.parametrize("hidden", [0, 4])
def test_growing_and_turning_keep_the_function(hidden: int) -> None:
    net, x = network(False, hidden, channels=2 if hidden else 1), places(200)
    residual = (x - 0.25).square().sum(1).reciprocal()
    more = grown(net, x, residual, 3)
    assert len(more.bank.means) == 13
    torch.testing.assert_close(more.bank.means[10], x[residual.argmax()])
    assert len(torch.unique(more.bank.means[10:], dim=0)) == 3
    shape = more.bank.shape.sheared()
    for other in (more, more.replaced(shape, more.channels.weight.detach())):
        gap = (other(x, PAIRS).data - net(x, PAIRS).data).abs().max()
        assert float(gap) < 1e-12


@pytest.mark.parametrize(
    ("problem", "solver", "bound"),
    [
        pytest.param(
            poisson(), Gaussians(60, 0.4, optimiser=VariableProjection(10)), 1e-6, id="2d",
        ),
        pytest.param(poisson(), Gaussians(100), 1e-5, id="width-chosen"),
        pytest.param(
            poisson("u", f"2*pi**2*{WAVE} + ({WAVE})**2"),
            Gaussians(60, 0.4, optimiser=VariableProjection(10)), 1e-6, id="nonlinear",
        ),
        pytest.param(
            poisson(),
            Gaussians(20, 0.3, hidden=8, channels=3, optimiser=VariableProjection(20)), 1e-3,
            id="hidden",
        ),
        pytest.param(
            poisson(),
            Gaussians(20, 0.3, stages=3, covariance="full", optimiser=VariableProjection(10)),
            1e-4, id="full",
        ),
    ],
)  # fmt: skip
def test_manufactured(problem: Problem, solver: Gaussians, bound: float) -> None:
    solution = sciml.solve(problem, solver, on=Grid((41, 41)), throw=False)
    x, y = solution.on.coordinates()  # type: ignore[union-attr]
    exact = torch.sin(math.pi * x) * torch.sin(math.pi * y)
    assert float(solution.error(exact)) < bound
    assert solution.converged == (float(solution.residual) <= solver.rtol)


def test_windows_and_a_periodic_axis() -> None:
    """Advection and diffusion of a wave on a circle, in two windows."""
    wave = "exp(-0.1*pi**2*t)*sin(pi*(x - t))"
    problem = Problem(
        Box((-1.0,), (1.0,)), Equation(d=1.0, K=0.1, b=(1.0,), f=0.0),
        {side: Condition(periodic=True) for side in ("left", "right")}, time=Time(1.0),
        initial="sin(pi*x)", exact=wave,
    )  # fmt: skip
    solver = Gaussians(
        40, (0.3, 0.5), windows=2, points=300, rtol=1e-5, optimiser=VariableProjection(2)
    )
    told: list[int] = []
    solution = sciml.solve(
        problem, solver, on=Grid((65,)), throw=False, progress=lambda k, _: told.append(k)
    )
    assert told == list(range(6)), "iterations are counted through the windows"
    (x,) = solution.on.coordinates()  # type: ignore[union-attr]
    exact = math.exp(-0.1 * math.pi**2) * torch.sin(math.pi * (x - 1))
    assert float(solution.error(exact)) < 1e-4


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"count": 0}, "solver.count"),
        ({"grow": -1.0}, "solver.grow"),
        ({"covariance": "full"}, "solver.covariance"),
        ({"width": (0.1,)}, "solver.width"),
        ({"windows": 2}, "solver.windows"),
    ],
)
def test_bad_options(options: dict[str, object], key: str) -> None:
    with pytest.raises(InputError) as caught:
        Gaussians(**options).init(poisson(), Grid((9, 9)))  # type: ignore[arg-type]
    assert caught.value.key == key
