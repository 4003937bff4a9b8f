"""Multigrid to a surrogate's error, certificates against true errors, and iterations saved."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from evaluated import family
from torch import Tensor

from sciml import certify, solve
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Problem
from sciml.solvers import CG, Direct, Multigrid
from sciml.training import bracket, multigrid_time, polishing
from sciml.training.evaluation import METHODS, Method

COUNT = 3
GRID = Grid((33, 33), domain=Box((0.0, 0.0), (1.0, 1.0)))
DRAWN = replace(family(), grid=Grid((65, 65))).draw(5, range(COUNT))["problem.equation.K"]


def problem(which: Tensor, points: int = 33) -> Problem:
    step = 64 // (points - 1)
    return family().problems({"problem.equation.K": DRAWN[which][:, ::step, ::step]})


def sample(i: int, which: Tensor) -> Problem:
    return problem(which + i)


ALL = torch.arange(COUNT)
EXACT = solve(problem(ALL), Direct(), on=GRID).value
FINE = solve(problem(ALL, 65), Direct(), on=Grid((65, 65))).value


def distance(u: Tensor, v: Tensor) -> Tensor:
    return (u - v).flatten(1).norm(dim=1) / v.flatten(1).norm(dim=1)


def iterate(k: int) -> Tensor:
    """k steps of multigrid-CG from zero."""
    if k == 0:
        return torch.zeros_like(EXACT)
    solver = CG(preconditioner=Multigrid(), rtol=1e-15, max_iterations=k)
    return solve(problem(ALL), solver, on=GRID, throw=False).value


@pytest.mark.parametrize("error", [1.5, 1e-1, 1e-2, 1e-4, 1e-6])
def test_iterations_are_the_fewest_that_come_so_near(error: float) -> None:
    found = multigrid_time(problem, GRID, torch.full((COUNT,), error), method="cg")
    for i, count in enumerate(found.iterations.tolist()):
        assert float(distance(iterate(count), EXACT)[i]) <= error
        assert count == 0 or float(distance(iterate(count - 1), EXACT)[i]) > error
    assert bool((found.seconds > 0).all()) and found.seconds_batched > 0
    assert float(found.floor.max()) < 1e-9


def test_each_sample_has_its_own_error_and_count() -> None:
    errors = torch.tensor([1e-1, 1e-6, 1e-3])
    together = multigrid_time(problem, GRID, errors, method="cg").iterations
    for i, error in enumerate(errors):
        shifted = functools.partial(sample, i)
        alone = multigrid_time(shifted, GRID, error[None], method="cg")
        assert alone.iterations.tolist() == [together[i]]


def test_full_multigrid_alone_is_nearer_than_the_grid_is_to_the_truth() -> None:
    floor = distance(EXACT, FINE[:, ::2, ::2])
    found = multigrid_time(problem, GRID, 2 * floor, FINE[:, ::2, ::2])
    assert found.iterations.tolist() == [0] * COUNT
    torch.testing.assert_close(found.floor, floor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_an_error_below_that_of_the_grid_is_out_of_reach(method: Method) -> None:
    truth = FINE[:, ::2, ::2]
    errors = distance(EXACT, truth) * torch.tensor([0.5, 2.0, 0.9])
    found = multigrid_time(problem, GRID, errors, truth, method=method)
    assert found.reached.tolist() == [False, True, False]
    assert found.seconds.isnan().tolist() == [True, False, True]
    none = multigrid_time(problem, GRID, errors * 0, truth, method=method)
    plain = none.to_json()
    assert plain["reached"] == 0 and plain["seconds"] is None and plain["seconds_batched"] is None


def test_the_truth_may_live_on_fewer_points() -> None:
    found = multigrid_time(problem, GRID, torch.full((COUNT,), 0.1), FINE[:, ::8, ::8])
    floor = distance(EXACT[:, ::4, ::4], FINE[:, ::8, ::8])
    torch.testing.assert_close(found.floor, floor, rtol=1e-6, atol=0)
    with pytest.raises(InputError, match="33 points does not contain the reference's 30"):
        multigrid_time(problem, GRID, torch.full((COUNT,), 0.1), torch.ones(COUNT, 30, 30))


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1.0])
def test_bounds_hold_the_true_error(size: float, steps: int) -> None:
    u = EXACT * (1 + size * torch.randn_like(EXACT))
    certificate = certify(u, problem(ALL), GRID, steps=steps)
    found = bracket(u, certificate, problem(ALL), GRID)
    assert found.held.tolist() == [True] * COUNT and found.steps == steps
    # Two steps from an error of 1e-6 the upper bound is sharp to 3e-12: rounding of the truth.
    slack = 1 + 1e-10
    assert bool((found.lower <= slack * found.error).all())
    assert bool((found.error <= slack * found.upper).all())
    assert float((found.lower / found.error).min()) > (0.999 if steps else 0.9)


def test_bounds_that_are_wrong_are_found_out() -> None:
    u = EXACT * (1 + 0.01 * torch.randn_like(EXACT))
    right = certify(u, problem(ALL), GRID, steps=3)
    scale = torch.tensor([1.0, 1.001, 1.0])
    low = bracket(u, replace(right, lower=right.upper * scale), problem(ALL), GRID)
    assert not bool(low.held[1])
    high = bracket(u, replace(right, upper=right.lower / scale), problem(ALL), GRID)
    assert not bool(high.held[1]) and high.to_json()["held"] < 1


def test_nothing_is_left_to_polish_of_the_solution() -> None:
    found = polishing(EXACT, problem(ALL), GRID)
    assert found.by_residual.tolist() == [0] * COUNT and found.saved == 1
    assert found.by_energy.tolist() == [0] * COUNT and found.saved_in_energy == 1
    assert float(found.residual.max()) < 1e-10 and float(found.energy.max()) < 1e-10


def test_nothing_is_saved_from_zero() -> None:
    found = polishing(0 * EXACT, problem(ALL), GRID)
    assert found.saved == 0 and found.saved_in_energy == 0
    torch.testing.assert_close(found.residual, torch.ones(COUNT, dtype=torch.float64))
    torch.testing.assert_close(found.energy, torch.ones(COUNT, dtype=torch.float64))


def test_a_factor_costs_nothing() -> None:
    """The best multiple is taken first, so that a wrong scale needs no iterations."""
    rough = EXACT * (1 + 1e-3 * torch.randn_like(EXACT))
    one, other = (polishing(t * rough, problem(ALL), GRID) for t in (1.0, -40.0))
    assert one.by_residual.tolist() == other.by_residual.tolist()
    assert float(other.energy.min()) > 1 > float(one.energy.max())


def test_iterations_from_zero_are_those_of_the_solver() -> None:
    solver = CG(preconditioner=Multigrid(), rtol=1e-6)
    zero = torch.zeros(GRID.shape, dtype=torch.float64)
    own = solve(problem(ALL), solver, on=GRID, initial=zero).stats.iterations
    found = polishing(EXACT * 0.9, problem(ALL), GRID)
    assert found.by_residual_from_zero.tolist() == own.tolist()


def test_a_nearer_start_saves_more() -> None:
    noise = torch.randn_like(EXACT)
    saved = [
        polishing(EXACT * (1 + size * noise), problem(ALL), GRID).saved_in_energy
        for size in (1e-1, 1e-3, 1e-5)
    ]
    assert saved == sorted(saved) and saved[0] < saved[-1]
