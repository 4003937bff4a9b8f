"""Samplers: the laws that they draw from, what they keep, how many points they give."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor

from sciml.app.figures import plot_points, residual_field
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.solvers.trained import (
    DASG,
    DASR,
    PINN,
    R3,
    RAD,
    RAR,
    AdversarialSampling,
    GaussNewton,
    LatinHypercube,
    Sobol,
    UniformSampling,
)
from sciml.solvers.trained.adversarial import (
    DensityTraining,
    KRnet,
    candidates,
    entropy_loss,
    trained,
)
from sciml.solvers.trained.objective import Objective

FLOW = DensityTraining(layers=2, width=8, bins=8, rounds=1, steps=3, batch=50, candidates=200)
GROWING = (RAR(start=0.5, added=0.2, pool=300), DASG(start=0.5, added=0.2, flow=FLOW))
STEADY = (
    UniformSampling(every=1), Sobol(every=1), LatinHypercube(every=1), RAD(pool=300), R3(),
    DASR(flow=FLOW), AdversarialSampling(flow=FLOW),
)  # fmt: skip


def poisson() -> Problem:
    box = Box((0.0, -1.0), (2.0, 1.0))
    return Problem(box, Equation(f="10*exp(-5*x)"), dict.fromkeys(box.sides, Condition(0.0)))


def heat() -> Problem:
    box = Box((0.0,), (1.0,))
    sides = dict.fromkeys(box.sides, Condition(0.0))
    return Problem(
        box, Equation(d=1.0, K=0.1), sides, time=Time(end=2.0), initial={"u": "sin(pi*x)"}
    )


def line() -> Problem:
    box = Box((0.0,), (1.0,))
    return Problem(box, Equation(f=1.0), dict.fromkeys(box.sides, Condition(0.0)))


def posed(problem: Problem, residual: Callable[[Tensor], Tensor] | None = None) -> Objective:
    """The objective of a small network, its residual replaced where one is given."""
    on = Grid((9,) * problem.box.dimension)
    objective = PINN(width=4, depth=1, hard=False).init(problem, on).objective
    if residual is not None:
        objective.pointwise = residual  # type: ignore[method-assign]
    return objective


def exchanged(sampler: Any, objective: Objective, count: int, times: int, seed: int = 0) -> Tensor:
    """The equation's points after so many exchanges, the first placing included."""
    generator = torch.Generator().manual_seed(seed)
    counts = [count, *[5] * (len(objective.pieces) - 1)]
    for _ in range(times):
        objective.place(sampler.points(objective, counts, generator))
    return objective.batches[0].points


def is_inside(objective: Objective) -> bool:
    return all(
        bool(((b.points >= b.piece.lower) & (b.points <= b.piece.upper)).all())
        for b in objective.batches
    )


@pytest.mark.parametrize("problem", [poisson, heat, line])
@pytest.mark.parametrize("sampler", STEADY, ids=lambda s: s.kind)
def test_counts_stay_and_points_are_inside(problem: Callable[[], Problem], sampler: Any) -> None:
    objective = posed(problem())
    first = exchanged(sampler, objective, 60, 1)
    second = exchanged(sampler, objective, 60, 2, seed=1)
    assert len(first) == len(second) == 60
    assert [len(b.points) for b in objective.batches[1:]] == [5] * (len(objective.pieces) - 1)
    assert is_inside(objective)
    assert not torch.equal(first, second)
    assert not first.requires_grad
    assert not second.requires_grad


@pytest.mark.parametrize("sampler", GROWING, ids=lambda s: s.kind)
def test_points_are_added_up_to_the_count(sampler: Any) -> None:
    objective = posed(poisson())
    seen = [exchanged(sampler, objective, 50, 1, seed=k) for k in range(6)]
    assert [len(points) for points in seen] == [25, 35, 45, 50, 50, 50]
    for before, after in pairwise(seen):
        assert torch.equal(after[: len(before)], before)
    assert is_inside(objective)


@pytest.mark.parametrize("sampler", (*STEADY, *GROWING), ids=lambda s: s.kind)
def test_the_same_seed_gives_the_same_points(sampler: Any) -> None:
    first, second = (exchanged(sampler, posed(poisson()), 40, 3, seed=7) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("power", "floor"), [(1.0, 1.0), (2.0, 0.0), (0.0, 1.0)])
def test_rad_draws_from_its_law(power: float, floor: float) -> None:
    """|r| = 3 x on the unit interval, ten bins, by the chi-square test."""
    objective = posed(line(), lambda x: 3 * x[:, 0])
    sampler = RAD(power=power, floor=floor, pool=200_000)
    x = exchanged(sampler, objective, 2000, 2)
    edges = torch.linspace(0, 1, 11, dtype=torch.float64)
    odds = (edges[1:] ** (power + 1) - edges[:-1] ** (power + 1)) + floor * 0.1
    expected = odds / odds.sum() * len(x)
    found = torch.histogram(x[:, 0], edges).hist
    statistic = float(((found - expected) ** 2 / expected).sum())
    assert statistic < chi2.ppf(0.999, 9)
    if power:
        even = float(((found - 200) ** 2 / 200).sum())
        assert even > chi2.ppf(0.999, 9)


def test_r3_retains_what_is_above_the_mean() -> None:
    objective = posed(poisson(), lambda x: x[:, 0].square())
    before = exchanged(R3(), objective, 200, 1)
    above = before[:, 0].square() > before[:, 0].square().mean()
    after = exchanged(R3(), objective, 200, 1, seed=1)
    kept = int(above.sum())
    assert 0 < kept < 200
    assert torch.equal(after[:kept], before[above])
    assert not (after[kept:, None] == before[None]).all(-1).any()


def test_the_adversary_renews_the_oldest_points() -> None:
    objective = posed(poisson())
    sampler = AdversarialSampling(renewed=0.25, flow=FLOW)
    seen = [exchanged(sampler, objective, 40, 1, seed=k) for k in range(5)]
    for before, after in pairwise(seen):
        assert torch.equal(after[:30], before[10:])
    assert not (seen[-1][:, None] == seen[0][None]).all(-1).any()


def test_rar_adds_the_largest_of_its_pool() -> None:
    objective = posed(poisson(), lambda x: -(x[:, 1] - 0.3).abs() + 5)
    exchanged(RAR(), objective, 100, 1)
    added = exchanged(RAR(added=0.1, pool=1000), objective, 100, 1)[50:]
    # Ten of a thousand lie in a strip of one hundredth of the height 2, on average.
    assert len(added) == 10
    assert float((added[:, 1] - 0.3).abs().max()) < 0.02


def wave(x: Tensor) -> Tensor:
    """|r| with r^2 = 1 + 0.9 cos(2 pi x), of mean one on the unit interval."""
    return (1 + 0.9 * (2 * math.pi * x[:, 0]).cos()).sqrt()


def density_after(sampler: Any, objective: Objective, times: int) -> tuple[Tensor, Tensor]:
    """Midpoints of the unit interval and the learned density there."""
    exchanged(sampler, objective, 10, times)
    ticks = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    with torch.no_grad():
        return ticks, objective.density.log_density(ticks[:, None]).exp()


LEARNING = DensityTraining(bins=12, rounds=2, steps=60, rate=0.02, batch=1000, candidates=4000)


def test_the_adversary_reaches_its_stationary_density() -> None:
    """p - 1 = (-d2/dx2)^-1 (r^2 - 1) / (2 beta), here a cosine of half height."""
    beta = 0.9 / (2 * (2 * math.pi) ** 2 * 0.5)
    objective = posed(line(), lambda x: 7 * wave(x))
    x, p = density_after(AdversarialSampling(beta=beta, flow=LEARNING), objective, 3)
    exact = 1 + 0.5 * (2 * math.pi * x).cos()
    assert float((p - exact).abs().mean()) < 0.25 * float((1 - exact).abs().mean())


def test_das_fits_the_squared_residual() -> None:
    objective = posed(line(), lambda x: 7 * wave(x))
    x, p = density_after(DASR(flow=LEARNING), objective, 3)
    exact = wave(x[:, None]).square()
    assert float((p - exact).abs().mean()) < 0.15 * float((1 - exact).abs().mean())


def test_a_larger_penalty_makes_a_flatter_density() -> None:
    spreads = []
    for beta in (0.02, 0.2):
        objective = posed(line(), wave)
        _, p = density_after(AdversarialSampling(beta=beta, flow=LEARNING), objective, 2)
        spreads.append(float(p.std()))
    assert spreads[1] < 0.5 * spreads[0]


def test_a_peak_is_found_and_sampled() -> None:
    """A residual on one thousandth of a square: a tenth of the points at least go there."""
    centre = torch.tensor([1.4, 0.3], dtype=torch.float64)
    objective = posed(poisson(), lambda x: (-500 * (x - centre).square().sum(1)).exp())
    flow = DensityTraining(
        layers=2, width=12, bins=16, steps=25, rate=0.03, batch=200, candidates=2000
    )
    points = exchanged(AdversarialSampling(beta=1e-3, flow=flow), objective, 1000, 3)
    near = ((points - centre).square().sum(1) < 0.1**2).double().mean()
    assert float(near) > 0.1  # 0.008 of them if they were uniform


def test_candidates_weigh_by_what_they_were_drawn_from() -> None:
    """An integral over the cube by candidates of a density that is far from uniform."""
    objective = posed(poisson(), lambda x: x[:, 0])
    density = KRnet(torch.zeros(2), torch.ones(2), 2, 8, 8)
    objective.density = density
    flow = DensityTraining(
        layers=2, width=8, bins=8, rounds=1, steps=40, rate=0.05, candidates=2000
    )
    generator = torch.Generator().manual_seed(0)
    trained(objective, flow, lambda d, c: entropy_loss(d, c, 200, generator), generator)
    pool = candidates(objective, density, 20_000, generator)
    assert float(density.log_density(pool.points).exp().max().detach()) > 2
    integral = (pool.points.prod(1) / pool.density).mean()
    assert float(integral) == pytest.approx(0.25, rel=0.02)
    assert float((pool.law * pool.density).sqrt().max()) == pytest.approx(1)


def test_no_residual_means_uniform_points() -> None:
    for sampler in (*STEADY, *GROWING):
        objective = posed(poisson(), lambda x: torch.zeros_like(x[:, 0]))
        exchanged(sampler, objective, 40, 3)
        assert is_inside(objective)


@pytest.mark.parametrize("sampler", (*STEADY, *GROWING), ids=lambda s: s.kind)
def test_every_sampler_trains_a_network(sampler: Any) -> None:
    exact = "sin(pi*x)*sin(pi*y)"
    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(
        box, Equation(f=f"2*pi**2*{exact}"), dict.fromkeys(box.sides, Condition(0.0)), exact=exact
    )
    often = type(sampler)(**{**vars(sampler), "every": 8})
    solver = PINN(width=8, depth=1, points=200, sampler=often, optimiser=GaussNewton(iterations=30))
    grid = Grid((17, 17))
    solution = solver.run(solver.init(problem, grid))
    x, y = solution.on.coordinates()
    assert float(solution.error((math.pi * x).sin() * (math.pi * y).sin())) < 2e-2


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (lambda: RAR(every=0), "every"),
        (lambda: RAR(start=0.0), "start"),
        (lambda: RAD(floor=-1.0), "sampler"),
        (lambda: RAD(pool=0), "pool"),
        (lambda: R3(every=-1), "every"),
        (lambda: AdversarialSampling(beta=0.0), "beta"),
        (lambda: AdversarialSampling(renewed=1.5), "renewed"),
        (lambda: DASG(added=2.0), "added"),
        (lambda: DASR(every=0), "every"),
        (lambda: DensityTraining(bins=0), "bins"),
        (lambda: DensityTraining(rate=0.0), "rate"),
    ],
)
def test_bad_options_are_named(made: Callable[[], Any], key: str) -> None:
    with pytest.raises(InputError) as caught:
        made()
    assert str(caught.value.key).endswith(key)


def test_an_infinite_box_is_refused() -> None:
    with pytest.raises(InputError, match="along y the box is inf long"):
        Box((0.0, 0.0), (1.0, math.inf))


def test_points_are_drawn_over_the_residual(tmp_path: Path) -> None:
    objective = posed(heat(), lambda x: 1 + x[:, 0] + 10 * x[:, 1])
    exchanged(Sobol(), objective, 30, 1)
    file = tmp_path / "points.png"
    figure = plot_points(objective, file=file, title="heat")
    assert file.stat().st_size > 1000
    assert figure.axes[0].get_xlabel() == "x"
    assert figure.axes[0].get_ylabel() == "t"
    assert len(figure.axes[0].collections[1].get_offsets()) == 30
    x, t, size = residual_field(objective, 5)
    assert size == pytest.approx(1 + x[:, None] + 10 * t[None])
    with pytest.raises(InputError, match="two axes"):
        plot_points(posed(line()))
