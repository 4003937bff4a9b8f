"""Threads change how long an answer takes, never the answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization import discretize
from sciml.solvers import CG, Multigrid


@pytest.fixture
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rough(batch: tuple[int, ...], shape: tuple[int, ...]) -> LinearSystem:
    """-div(K grad u) = 1 with independent log-uniform cells in every sample."""
    box = Box((0.0,) * len(shape), (1.0,) * len(shape))
    K = 100 ** torch.rand((*batch, *shape), dtype=torch.float64)
    walls = {side: Condition(dirichlet=0.0) for side in box.sides}
    return discretize(Problem(box, Equation(K=K, f=1.0), walls), Grid(shape, "cell"))


@pytest.mark.usefixtures("_threads_put_back")
@pytest.mark.parametrize(
    ("batch", "shape"),
    [
        pytest.param((3,), (63, 60), id="batch"),  # the coarsest operators are inverted together
        pytest.param((), (240, 230), id="plane"),  # large enough for the parallel twins
        pytest.param((2,), (30, 31, 32), id="batch-3d"),
    ],
)
def test_two_threads_find_what_one_finds(batch: tuple[int, ...], shape: tuple[int, ...]) -> None:
    system = rough(batch, shape)
    solver = CG(preconditioner=Multigrid(), rtol=1e-8)
    torch.set_num_threads(1)
    one = sciml.solve(system, solver)
    torch.set_num_threads(2)
    two = sciml.solve(system, solver)
    assert torch.equal(one.stats.iterations, two.stats.iterations)
    assert torch.allclose(one.value, two.value, rtol=0, atol=1e-6 * float(one.value.abs().max()))
