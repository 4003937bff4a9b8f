"""HINTS: what a correction does to relaxation, from an exact one to an untrained network's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.core.run.serialise import dump
from sciml.discretization import discretize
from sciml.operators import DeepONet, Operator, Signature, save_operator
from sciml.solvers import CG, FCG, HINTS, SOR, Direct
from sciml.solvers.learned.hints import Period, Stationary

torch.set_num_threads(1)

GRID = Grid((10, 10))
BOX = Box((0.0, 0.0), (1.0, 1.0))
PLACES = {"f": "problem.equation.f"}


def darcy(f: Any, K: Any = "1 + x") -> Problem:
    boundary = {side: Condition(dirichlet=0.5) for side in BOX.sides}
    return Problem(BOX, Equation(K=K, f=f), boundary)


SYSTEM = discretize(darcy("1 + sin(3*x)"), GRID)


def network(folder: Path, places: dict[str, str] = PLACES) -> str:
    """An untrained operator with the provenance of a trained one."""
    signature = Signature(tuple(places), ("u",), GRID.bind(BOX), ("dirichlet", "dirichlet"))
    operator = Operator.build(DeepONet(modes=8, branch=(8,), trunk=(8,)), signature, seed=1)
    spec = json.loads(json.dumps(dump(darcy("1"))))
    operator.provenance = {"places": places, "spec": spec}
    save_operator(operator, folder)
    return str(folder)


def exact(q: torch.Tensor) -> torch.Tensor:
    """The error itself, at another scale: the step length has to find the size."""
    return -7.0 * Direct().setup(SYSTEM.A).apply(q)


def useless(q: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(q.shape, generator=generator, dtype=q.dtype)


def smooth(q: torch.Tensor) -> torch.Tensor:
    """A network that knows smooth functions only: the six lowest modes."""
    values, modes = torch.linalg.eigh(torch.from_numpy(SYSTEM.A.to_scipy().toarray()))
    low = modes[:, :6]
    return (q.reshape(-1, len(modes)) @ low / values[:6] @ low.T).reshape(q.shape)


def test_an_exact_network_needs_one_period() -> None:
    period = Period(SYSTEM.A, exact, every=4, omega=1.0)
    for solver in (Stationary(period), FCG(period)):  # type: ignore[arg-type]
        solution = sciml.solve(SYSTEM, solver)
        truth = sciml.solve(SYSTEM, Direct())
        assert int(solution.stats.iterations) == 1
        assert torch.allclose(solution.value, truth.value, atol=1e-8)


def test_no_network_leaves_relaxation() -> None:
    period = Period(SYSTEM.A, torch.zeros_like, every=2, omega=1.3)
    q = useless(SYSTEM.b)
    assert torch.allclose(period.apply(q), SOR(1.3).setup(SYSTEM.A).apply(q))


@pytest.mark.parametrize("correction", [useless, lambda q: q * torch.nan, lambda q: -q])
def test_a_bad_network_does_no_harm(correction: Any) -> None:
    A = SYSTEM.A
    relaxed = Period(A, torch.zeros_like, every=5, omega=1.0)
    corrected = Period(A, correction, every=5, omega=1.0)
    truth = torch.as_tensor(sciml.solve(SYSTEM, Direct(rtol=1e-12)).value)
    error = SYSTEM.restrict(truth)
    q = A.apply(error)
    energies = []
    for period in (relaxed, corrected):
        e = error - period.apply(q)
        energies.append(float((e * A.apply(e)).sum()))
    assert energies[1] <= energies[0] * (1 + 1e-12) < float((error * q).sum())
    assert sciml.solve(SYSTEM, Stationary(corrected)).converged


def test_a_network_of_smooth_functions_saves_most_periods() -> None:
    bare = Stationary(Period(SYSTEM.A, torch.zeros_like, every=5, omega=1.0))
    hybrid = Stationary(Period(SYSTEM.A, smooth, every=5, omega=1.0))
    counts = [int(sciml.solve(SYSTEM, solver).stats.iterations) for solver in (bare, hybrid)]
    assert counts[1] < 0.4 * counts[0]


def test_a_period_has_no_size_and_no_place_in_cg() -> None:
    period = Period(SYSTEM.A, smooth, every=3, omega=1.0)
    q = useless(SYSTEM.b)
    assert torch.allclose(period.apply(1e-30 * q), 1e-30 * period.apply(q), atol=1e-40)
    assert not period.apply(torch.zeros_like(q)).any()
    with pytest.raises(InputError, match="fcg"):
        CG(period).setup(SYSTEM.A)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["stationary", "fcg", "gmres"])
def test_an_untrained_network_gives_the_right_answer(tmp_path: Path, method: Any) -> None:
    path, problem = network(tmp_path), darcy("1 + sin(3*x)")
    solution = sciml.solve(problem, HINTS(path, every=6, method=method), on=GRID)
    truth = sciml.solve(problem, Direct(), on=GRID)
    assert solution.converged and float(solution.residual) <= 1.01e-8
    assert torch.allclose(solution.value, truth.value, atol=1e-6)
    assert solution.solver.kind == "hints"


def test_a_batch_of_problems(tmp_path: Path) -> None:
    f = torch.stack([torch.ones(10, 10), torch.zeros(10, 10), 3 + torch.rand(10, 10)]).double()
    solver = HINTS(network(tmp_path), every=6, method="stationary")
    together = sciml.solve(darcy(f), solver, on=GRID)
    for k in range(3):
        truth = sciml.solve(darcy(f[k]), Direct(), on=GRID)
        assert torch.allclose(together.value[k], truth.value, atol=1e-6)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = network(tmp_path / "source")
    with pytest.raises(InputError, match="another problem"):
        sciml.solve(darcy("1", K="2 + x"), HINTS(path), on=GRID)
    with pytest.raises(InputError, match="problem on a grid"):
        sciml.solve(LinearSystem(SYSTEM.A, SYSTEM.b), HINTS(path))
    with pytest.raises(InputError, match="source f"):
        blind = network(tmp_path / "blind", {"a": "problem.equation.K"})
        sciml.solve(darcy("1"), HINTS(blind), on=GRID)
    with pytest.raises(InputError) as caught:
        sciml.solve(darcy("1"), HINTS(str(tmp_path / "nowhere")), on=GRID)
    assert caught.value.key == "solver.path"
    with pytest.raises(InputError, match="every"):
        HINTS(path, every=0)
