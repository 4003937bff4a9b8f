"""Learned multigrid: what a network may not break, its training, and what it is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.core.algebra.kernels import reference
from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil, box_offsets
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.core.run.training_run import CHECKPOINT
from sciml.core.run.weights import FILE, write_weights
from sciml.discretization import discretize
from sciml.solvers import CG, FCG, LearnedMultigrid, Multigrid, MultigridTraining
from sciml.solvers.learned.multigrid import (
    KIND,
    CoarseningModule,
    CoarseningNetwork,
    LearnedCoarsening,
    coarsened,
    energy,
    entries,
    error_after,
    formula_weights,
    fully_coarsened,
    galerkin_product,
    hierarchy,
    iterations_per_digit,
    load_coarsening,
    most_bend,
    plain,
    uniform,
)
from sciml.solvers.learned.weights import read_stored
from sciml.solvers.linear.interop import as_scipy
from sciml.solvers.linear.multigrid.cycle import MultigridCycle
from sciml.solvers.linear.multigrid.hierarchy import build
from sciml.solvers.linear.safeguard import check_preconditioner
from sciml.solvers.solve import solve

BOX = Box((0.0, 0.0), (1.0, 1.0))
SMALL = MultigridTraining(width=4, points=15, vectors=1, power=2, rounds=2, steps=3, batch=2)
SHIPPED = "rotated-anisotropy"


def rotated(n: int, degrees: float = 30.0, ratio: float = 1000.0, b: float = 0.0) -> Stencil:
    """Rotated anisotropy on n^2 unknowns, with a reaction b u."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    K = ((ratio * c * c + s * s, (ratio - 1) * c * s), ((ratio - 1) * c * s, ratio * s * s + c * c))
    walls = {side: Condition(dirichlet=0.0) for side in BOX.sides}
    A = discretize(Problem(BOX, Equation(K=K, c=b, f=1.0), walls), Grid((n + 2, n + 2))).A
    assert isinstance(A, Stencil)
    return A


def cells(n: int) -> Stencil:
    """-div(K grad u) with independent log-uniform cells of contrast 1e4."""
    K = torch.from_numpy(1e4 ** np.random.default_rng(0).random((n, n)))
    walls = {side: Condition(dirichlet=0.0) for side in BOX.sides}
    A = discretize(Problem(BOX, Equation(K=K, f=1.0), walls), Grid((n, n), "cell")).A
    assert isinstance(A, Stencil)
    return A


def noisy(seed: int, size: float = 1.0) -> CoarseningModule:
    """A network that says anything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = CoarseningModule(CoarseningNetwork(6))
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=size)
    return module.eval().requires_grad_(False)


def saved(module: CoarseningModule, folder: Path) -> str:
    path = folder / FILE
    write_weights(path, KIND, plain(module.options), module.state_dict(), {})
    return str(path)


def normal(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def symbol(a: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """sum_k a_k exp(i theta . o_k) of a symmetric stencil; theta (frequencies, 2)."""
    return torch.cos(theta @ theta.new_tensor(box_offsets(2)).T) @ a


ANY = {
    "degrees": st.floats(5.0, 85.0),
    "ratio": st.floats(1.0, 1e3),
    "seed": st.integers(0, 1000),
}


@settings(max_examples=15, deadline=None)
@given(**ANY)
def test_coarse_stencils_stay_symmetric_positive_and_consistent(
    degrees: float, ratio: float, seed: int
) -> None:
    a, module = entries(rotated(9, degrees, ratio)), noisy(seed)
    module.last.bias[2] = -1e9  # exp(s) at its least, so that it can be divided out
    module.last.weight[2] = 0.0
    theta = (2 * torch.rand((500, 2), dtype=torch.float64) - 1) * math.pi
    moments = torch.tensor([[i * i, i * j, j * j] for i, j in box_offsets(2)], dtype=torch.float64)
    for _ in range(3):
        weights, coarse = coarsened(a, formula_weights(a), module)
        torch.testing.assert_close(coarse, coarse.flip(-1))
        assert (symbol(coarse, theta) > 0).all()
        # Zero and second moments are those of P^T A P, of which a bend touches fourth ones alone.
        product = math.exp(-0.2) * galerkin_product(a, weights)
        scale = product.abs().max()
        assert abs(coarse.sum() - product.sum()) < 1e-10 * scale
        torch.testing.assert_close(coarse @ moments, product @ moments, rtol=0, atol=1e-10 * scale)
        formula = reference.interpolate(
            Stencil(a[:, None, None].expand(9, 3, 3), box_offsets(2)), (2, 2)
        )
        change = (weights - formula.weights[:, 0, 0]).reshape(3, 3)
        assert change[1].abs().max() < 1e-15
        assert change[:, 1].abs().max() < 1e-15
        # The four corners are the four weights of one row.
        assert abs(change.sum()) < 1e-12
        a = coarse


def test_answers_follow_the_symmetries_of_the_grid() -> None:
    module = noisy(0)
    seen = torch.tensor([-0.1, -0.4, -0.2, 0.1])
    x, y, d, e = seen
    answer = module(seen)
    torch.testing.assert_close(module(torch.stack([y, x, d, e])), answer)
    mirrored = answer * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(module(torch.stack([x, y, e, d])), mirrored)


def test_closed_products_are_those_of_the_kernels() -> None:
    a = entries(rotated(17, 20.0, 50.0, b=30.0))
    A = Stencil(a[:, None, None].expand(9, 17, 17).contiguous(), box_offsets(2))
    P = reference.interpolate(A, (2, 2))
    product = reference.galerkin(A, P).coefficients[:, 4, 4]
    torch.testing.assert_close(galerkin_product(a, P.weights[:, 4, 4]), product)


def test_most_bend_is_where_the_symbol_touches_zero() -> None:
    a = entries(rotated(9, 40.0, 300.0))
    bent = torch.tensor([1.0, -2.0, 1.0, -2.0, 4.0, -2.0, 1.0, -2.0, 1.0], dtype=torch.float64)
    theta = (
        math.pi / 64 * torch.cartesian_prod(*[torch.arange(-64.0, 65.0, dtype=torch.float64)] * 2)
    )
    least = symbol(a - most_bend(a) * bent, theta).min()
    assert abs(least) < 2e-3 * a.max()
    assert symbol(a - 0.95 * most_bend(a) * bent, theta).min() > -1e-12
    assert symbol(a - 1.1 * most_bend(a) * bent, theta).min() < 0


def test_untrained_network_is_the_formula(tmp_path: Path) -> None:
    A = rotated(63)
    path = saved(CoarseningModule(CoarseningNetwork(4)), tmp_path)
    learned = LearnedMultigrid(path, cycle="V", trial=False, dtype="float64").setup(A)
    r = normal(A.shape)
    expected = Multigrid(cycle="V", dtype="float64").setup(A).apply(r)
    torch.testing.assert_close(learned.apply(r), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_network_gives_a_symmetric_definite_cycle(seed: int) -> None:
    A = uniform(rotated(31))
    assert A is not None
    levels = build(A, torch.float64, LearnedCoarsening(noisy(seed)))
    assert len(levels.levels) > 1
    dense = MultigridCycle(A, levels, "V", "gauss_seidel", 1).to_scipy().toarray()
    np.testing.assert_allclose(dense, dense.T, atol=1e-12 * abs(dense).max())
    assert np.linalg.eigvalsh((dense + dense.T) / 2).min() > 0
    formula = MultigridCycle(A, build(A, torch.float64), "V", "gauss_seidel", 1)
    assert not np.allclose(dense, formula.to_scipy().toarray())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_in_plain_scipy_cg(dtype: str, tmp_path: Path) -> None:
    A = rotated(31)
    learned = LearnedMultigrid(
        saved(noisy(3, 0.1), tmp_path),
        trial=False,
        dtype=dtype,  # type: ignore[arg-type]
    )
    assert "cg" in check_preconditioner(learned, A).suits
    matrix, b = A.to_scipy(), np.random.default_rng(0).standard_normal(A.size)
    x, info = scipy.sparse.linalg.cg(matrix, b, rtol=1e-9, M=as_scipy(learned, A), maxiter=200)
    assert info == 0
    assert np.linalg.norm(b - matrix @ x) < 1e-8 * np.linalg.norm(b)


def test_trial_refuses_a_bad_network_and_says_so(tmp_path: Path) -> None:
    A = rotated(63)
    path = saved(noisy(1, 3.0), tmp_path)
    with_trial = LearnedMultigrid(path, cycle="V").setup(A)
    assert "the formula's coarse grids" in with_trial.notes[0]
    r = normal(A.shape)
    assert torch.equal(with_trial.apply(r), Multigrid(cycle="V").setup(A).apply(r))
    without = LearnedMultigrid(path, cycle="V", trial=False).setup(A)
    assert not torch.equal(without.apply(r), with_trial.apply(r))


def test_without_a_trial_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> float:
        raise AssertionError("a trial")

    monkeypatch.setattr("sciml.solvers.learned.multigrid.iterations_per_digit", refuse)
    learned = LearnedMultigrid(saved(noisy(0), tmp_path), trial=False).setup(rotated(31))
    assert "not tried: the network's coarse grids" in learned.notes[0]


@pytest.mark.parametrize("A", [cells(31), rotated(32)], ids=["varying", "even"])
def test_what_is_not_constant_on_every_level_keeps_the_formula(A: Stencil, tmp_path: Path) -> None:
    learned = LearnedMultigrid(saved(noisy(0), tmp_path), trial=False).setup(A)
    assert "the formula's coarse grids" in learned.notes[0]
    r = normal(A.shape)
    assert torch.equal(learned.apply(r), Multigrid().setup(A).apply(r))


def test_network_that_is_not_finite_gives_way_to_the_formula() -> None:
    A = rotated(31)
    module = noisy(0)
    module.last.bias.fill_(float("nan"))
    levels = build(A, torch.float64, LearnedCoarsening(module)).levels
    for level, formula in zip(levels, build(A, torch.float64).levels, strict=True):
        torch.testing.assert_close(level.A.coefficients, formula.A.coefficients)


def test_a_stored_array_of_one_stencil_is_recognised() -> None:
    A = rotated(15)
    planes = A.coefficients.clone(memory_format=torch.contiguous_format)
    for k, (i, j) in enumerate(A.offsets):
        outside = torch.ones(A.shape, dtype=torch.bool)
        outside[max(0, -i) : 15 - max(0, i), max(0, -j) : 15 - max(0, j)] = False
        planes[k][outside] = 0.0
    stored = Stencil(planes, A.offsets, symmetric=True, definite=True)
    same = uniform(stored)
    assert same is not None
    assert (same.to_scipy() != stored.to_scipy()).nnz == 0
    planes[0, 7, 7] *= 1.001
    assert uniform(stored) is None


def test_batch_is_its_samples() -> None:
    parts = [uniform(rotated(31, degrees)) for degrees in (30.0, 50.0)]
    together = torch.stack([entries(part) for part in parts if part is not None])
    for part, weights, coarse in zip(
        together, *coarsened(together, formula_weights(together), noisy(2)), strict=True
    ):
        own = coarsened(part, formula_weights(part), noisy(2))
        torch.testing.assert_close(weights, own[0], rtol=1e-5, atol=1e-5)  # float32 inside
        torch.testing.assert_close(coarse, own[1], rtol=1e-5, atol=1e-5 * float(coarse.max()))


@pytest.mark.parametrize("cycle", ["V", "alternating"])
def test_training_runs_the_cycle_that_is_used(cycle: str) -> None:
    """Down to the training's coarsest grid, by the kernels' own transfers and sweeps."""
    A, module = rotated(31), noisy(0)
    levels = hierarchy(entries(A)[None], 31, module)

    def step(depth: int, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a, weights = levels[depth]
        n = x.shape[-1]
        operator = Stencil(a[0][:, None, None].expand(9, n, n).contiguous(), box_offsets(2))
        if weights is None:
            dense = torch.from_numpy(operator.to_scipy().toarray())
            return torch.linalg.solve(dense, b.reshape(-1)).reshape(b.shape)
        P = reference.interpolate(operator, (2, 2))
        P = replace(P, weights=weights[0][:, None, None].expand(9, n // 2, n // 2))
        for _ in range(2):
            reference.sweep(operator, x, b, reverse=True, from_zero=False)
        coarse_b = x.new_empty(P.shape)
        reference.restrict_residual(operator, P, x, b, coarse_b)
        twice = cycle == "alternating" and depth % 2 == 0 and levels[depth + 1][1] is not None
        coarse_x = torch.zeros_like(coarse_b)
        for _ in range(2 if twice else 1):
            coarse_x = step(depth + 1, coarse_x, coarse_b)
        reference.prolong_add(P, x, coarse_x)
        for _ in range(2):
            reference.sweep(operator, x, b, reverse=False, from_zero=False)
        return x

    v = normal((31, 31))
    single = [(a.float(), None if w is None else w.float()) for a, w in levels]
    ours = error_after(single, v.float()[None, None], cycle, 2)[0, 0]
    theirs = step(0, v.clone(), torch.zeros_like(v))
    gap = (ours.double() - theirs)[None, None]
    assert energy(levels[0][0], gap) < 1e-6 * energy(levels[0][0], theirs[None, None])


def test_trial_counts_what_cg_takes() -> None:
    A = rotated(31)
    B = Multigrid(cycle="V").setup(A)
    e = normal(A.shape)
    system = LinearSystem(A, A.apply(e))
    errors = [
        e
        - solve(
            # CG itself, but for its start from full multigrid.
            system,
            FCG(preconditioner=Multigrid(cycle="V"), max_iterations=k, directions=1),
            throw=False,
        ).value
        for k in (1, 5)
    ]
    early, late = (float((x * A.apply(x)).sum()) for x in errors)
    digits = math.log10(early / late) / 2
    assert abs(iterations_per_digit(A, B) - 4 / digits) < 1e-3 * 4 / digits
    negative = SimpleNamespace(apply=lambda r: -B.apply(r))
    assert iterations_per_digit(A, negative) == math.inf  # type: ignore[arg-type]


def test_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    A = [rotated(15, degrees) for degrees in (30.0, 50.0)]
    whole = SMALL.train(A, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(done: int, rounds: int, row: Mapping[str, float]) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        SMALL.train(A, tmp_path / "parts", progress=stop)
    again = SMALL.train(A, tmp_path / "parts")
    ours, theirs = (read_stored(path, KIND) for path in (whole, again))
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())
    assert any(value.any() for name, value in ours.tensors.items() if name.startswith("last"))
    assert (tmp_path / "parts" / CHECKPOINT).is_file()
    with pytest.raises(InputError, match="steps was 3, now 4"):
        replace(SMALL, steps=4).train(A, tmp_path / "parts")


@pytest.mark.parametrize(
    ("degrees", "ratio", "axes"), [(30.0, 1e3, 0), (20.0, 300.0, 1), (10.0, 1e3, 2)]
)
def test_training_is_on_the_level_that_a_network_corrects(
    degrees: float, ratio: float, axes: int
) -> None:
    """The first that is coarsened along both axes, after ``axes`` that were along one."""
    A = rotated(63, degrees, ratio)
    levels = build(A, torch.float64).levels
    factors = [level.P.factors for level in levels[: axes + 1] if level.P is not None]
    assert [sum(f) for f in factors] == [3] * axes + [4]
    expected = entries(levels[axes].A)
    torch.testing.assert_close(fully_coarsened(entries(A)), expected)


def test_training_lowers_the_contraction_on_a_larger_grid(tmp_path: Path) -> None:
    options = replace(SMALL, width=8, points=31, rounds=6, steps=4, rate=2e-2)
    A = rotated(15)
    rows: list[Mapping[str, float]] = []
    path = options.train([A], tmp_path, progress=lambda i, n, row: rows.append(row))
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    large = uniform(rotated(63))
    assert large is not None
    learned = LearnedCoarsening(load_coarsening(str(path)))
    after, before = (
        MultigridCycle(large, levels, "alternating", "gauss_seidel", 2).contraction(0, 10)
        for levels in (build(large, torch.float64, learned), build(large, torch.float64))
    )
    assert after < 0.8 * before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": 32}, "points must be 15, 31, 63"),
        ({"points": 7}, "points must be 15, 31, 63"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"width": 0}, "width must be at least 1"),
    ],
)
def test_training_options_are_checked(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultigridTraining(**changes)  # type: ignore[arg-type]


def test_what_does_not_suit_is_refused(tmp_path: Path) -> None:
    A = rotated(15)
    path = saved(noisy(0), tmp_path)
    skew = Stencil(A.coefficients, A.offsets)
    with pytest.raises(InputError, match="symmetric positive definite"):
        LearnedMultigrid(path).setup(skew)
    with pytest.raises(InputError, match="two dimensions"):
        LearnedMultigrid(path).setup(Stencil(A.coefficients[:3, 0], [(0,), (-1,), (1,)]))
    with pytest.raises(InputError, match="no weights"):
        LearnedMultigrid(str(tmp_path / "nothing")).setup(A)
    with pytest.raises(InputError, match="not symmetric"):
        LearnedMultigrid(path, cycle="F")
    unfit = (
        ([skew], "symmetric positive"),
        ([], "a matrix"),
        ([cells(15)], "constant coefficients"),
    )
    for bad, message in unfit:
        with pytest.raises(InputError, match=message):
            MultigridTraining().train(bad, tmp_path / "run")


@pytest.mark.parametrize(
    ("degrees", "ratio", "least"), [(30.0, 1000.0, 1.25), (45.0, 100.0, 1.25), (20.0, 300.0, 1.5)]
)
def test_shipped_weights_save_iterations(degrees: float, ratio: float, least: float) -> None:
    """At the same work an iteration: both take the alternating cycle, with nine-point stencils."""
    A = rotated(127, degrees, ratio)
    system = LinearSystem(A, normal(A.shape))
    learned, formula = (
        solve(system, CG(preconditioner=M, rtol=1e-10))
        for M in (LearnedMultigrid(SHIPPED), Multigrid(cycle="alternating"))
    )
    assert learned.converged
    assert float((system.b - A.apply(learned.value)).norm() / system.b.norm()) < 1e-10
    ours, theirs = (int(solution.stats.iterations) for solution in (learned, formula))
    assert least * ours <= theirs
