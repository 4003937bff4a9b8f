"""Learned multigrid: what a network may not break, its training, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.core.discretize import discretize
from sciml.core.errors import InputError
from sciml.core.grid import Box, Grid
from sciml.core.kernels import reference
from sciml.core.problem import Condition, Equation, Problem
from sciml.core.stencil import Stencil
from sciml.core.transfer import Transfer
from sciml.solvers import CG, LearnedMultigrid, Multigrid, MultigridTraining
from sciml.solvers.interop import as_scipy
from sciml.solvers.learned.multigrid import (
    KIND,
    LearnedInterpolation,
    TransferModule,
    TransferNetwork,
    corrected,
    features,
    load_transfer,
    plain,
    window,
)
from sciml.solvers.learned.multigrid_training import (
    STATE,
    coarse_inverse,
    energy_left,
    train_learned_multigrid,
    two_grid,
)
from sciml.solvers.learned.weights import FILE, read_stored, write_weights
from sciml.solvers.multigrid.cycle import MultigridCycle
from sciml.solvers.multigrid.hierarchy import build
from sciml.solvers.probing import check_preconditioner

BOX = Box((0.0, 0.0), (1.0, 1.0))
SMALL = MultigridTraining(channels=4, window=9, vectors=2, power=2, rounds=2, steps=3, batch=2)


def cells(n: int, seed: int = 0, *, ring: bool = False) -> Stencil:
    """-div(K grad u) + u with independent log-uniform cells of contrast 1e4."""
    K = torch.from_numpy(1e4 ** np.random.default_rng(seed).random((n, n)))
    sides = [side for side in BOX.sides if not (ring and side.startswith(("left", "right")))]
    conditions = {side: Condition(dirichlet=0.0) for side in sides}
    if ring:
        conditions |= {s: Condition(periodic=True) for s in BOX.sides if s not in sides}
    A = discretize(Problem(BOX, Equation(K=K, f=1.0), conditions), Grid((n, n), "cell")).A
    assert isinstance(A, Stencil)
    return A


def noisy(seed: int, size: float = 1.0) -> TransferModule:
    """A network that says anything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = TransferModule(TransferNetwork(6))
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=size)
    return module.eval().requires_grad_(False)


def saved(module: TransferModule, folder: Path) -> str:
    path = folder / FILE
    write_weights(path, KIND, plain(module.options), module.state_dict(), {})
    return str(path)


def matrix(P: Transfer) -> torch.Tensor:
    """P as a dense matrix (fine, coarse)."""
    n = P.weights[0].numel()
    x = P.weights.new_zeros((n, *P.fine_shape))
    reference.prolong_add(P, x, torch.eye(n, dtype=P.weights.dtype).reshape(n, *P.shape))
    return x.reshape(n, -1).T


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(5, 10), st.integers(5, 10)),
    rings=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 1000),
)
def test_correction_keeps_rows_sums_pattern_and_coarse_points(
    shape: tuple[int, int], rings: tuple[bool, bool], seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    periodic = tuple(ring and n % 2 == 0 for ring, n in zip(rings, shape, strict=True))
    offsets = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
    planes = -torch.rand((5, *shape), generator=g, dtype=torch.float64)
    planes[0] = 1 - planes[1:].sum(0)
    P = reference.interpolate(Stencil(planes, offsets, periodic=periodic), (2, 2))
    answer = 2 * torch.rand((6, *P.shape), generator=g, dtype=torch.float64) - 1
    before, after = matrix(P), matrix(corrected(P, answer))
    torch.testing.assert_close(after.sum(1), before.sum(1))
    assert not after[before == 0].any()
    kept = (before == 1).any(1)
    assert torch.equal(after[kept], before[kept])
    assert not torch.equal(after, before)


def test_features_do_not_change_with_the_scale_of_the_operator() -> None:
    A = cells(12)
    scaled = Stencil(1e-7 * A.coefficients, A.offsets)
    seen = [features(B, reference.interpolate(B, (2, 2))) for B in (A, scaled)]
    torch.testing.assert_close(seen[0], seen[1])


def test_untrained_network_is_the_formula(tmp_path: Path) -> None:
    A = cells(33)
    path = saved(TransferModule(TransferNetwork(4)), tmp_path)
    learned = LearnedMultigrid(path, cycle="V", trial=False).setup(A)
    r = torch.randn(A.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(learned.apply(r), Multigrid(cycle="V").setup(A).apply(r))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_any_network_gives_a_symmetric_definite_cycle(seed: int) -> None:
    A = cells(20, seed)
    hierarchy = build(A, torch.float64, LearnedInterpolation(noisy(seed)))
    assert len(hierarchy.levels) > 1
    B = MultigridCycle(A, hierarchy, "V", "gauss_seidel", 1)
    dense = B.to_scipy().toarray()
    np.testing.assert_allclose(dense, dense.T, atol=1e-12 * abs(dense).max())
    L = np.linalg.cholesky(A.to_scipy().toarray())
    spectrum = np.linalg.eigvalsh(L.T @ (dense + dense.T) @ L / 2)
    assert spectrum.min() > 0
    assert spectrum.max() <= 1 + 1e-9


def test_in_plain_scipy_cg(tmp_path: Path) -> None:
    A = cells(40)
    learned = LearnedMultigrid(saved(noisy(3, 0.1), tmp_path), trial=False)
    # In float32 a contrast of 1e4 leaves more rounding than the check lets pass, in any multigrid.
    exact = replace(learned, dtype="float64")
    assert "cg" in check_preconditioner(exact, A).suits
    matrix, b = A.to_scipy(), np.random.default_rng(0).standard_normal(A.size)
    x, info = scipy.sparse.linalg.cg(matrix, b, rtol=1e-9, M=as_scipy(learned, A), maxiter=200)
    assert info == 0
    assert np.linalg.norm(b - matrix @ x) < 1e-8 * np.linalg.norm(b)


def test_trial_refuses_a_bad_network_and_says_so(tmp_path: Path) -> None:
    A = cells(40)
    path = saved(noisy(0, 3.0), tmp_path)
    with_trial = LearnedMultigrid(path, cycle="V").setup(A)
    assert "formula's interpolation stays" in with_trial.notes[0]
    r = torch.randn(A.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(with_trial.apply(r), Multigrid(cycle="V").setup(A).apply(r))
    without = LearnedMultigrid(path, cycle="V", trial=False).setup(A)
    assert not torch.equal(without.apply(r), with_trial.apply(r))


def test_network_that_is_not_finite_gives_way_to_the_formula() -> None:
    A = cells(20)
    module = noisy(0)
    module.last.bias.fill_(float("nan"))
    P = LearnedInterpolation(module)(A, (2, 2))
    torch.testing.assert_close(P.weights, reference.interpolate(A, (2, 2)).weights)


def test_constant_coefficients_are_set_up_on_a_patch() -> None:
    c, s = 0.866, 0.5
    K = ((100 * c * c + s * s, 99 * c * s), (99 * c * s, 100 * s * s + c * c))
    walls = {side: Condition(dirichlet=0.0) for side in BOX.sides}
    A = discretize(Problem(BOX, Equation(K=K, f=1.0), walls), Grid((33, 33))).A
    assert isinstance(A, Stencil)
    full = Stencil(
        A.coefficients.clone(memory_format=torch.contiguous_format),
        A.offsets,
        symmetric=True,
        definite=True,
    )
    learned = LearnedInterpolation(noisy(1, 0.3))
    patch, whole = (build(B, torch.float64, learned).levels for B in (A, full))
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert patch[0].P is not None
    assert whole[0].P is not None
    torch.testing.assert_close(patch[0].P.weights[inner], whole[0].P.weights[inner])
    torch.testing.assert_close(patch[1].A.coefficients[inner], whole[1].A.coefficients[inner])


def test_batch_is_its_samples() -> None:
    A = [cells(20, seed) for seed in (0, 1)]
    together = Stencil(
        torch.stack([part.coefficients for part in A]),
        A[0].offsets,
        symmetric=True,
        definite=True,
    )
    learned = LearnedInterpolation(noisy(2))
    P = learned(together, (2, 2))
    for k, part in enumerate(A):
        ours = learned(part, (2, 2)).weights
        torch.testing.assert_close(P.weights[k], ours, rtol=1e-3, atol=1e-3)  # float32 inside


def test_energy_left_and_its_gradient_are_those_of_the_dense_two_grid_method() -> None:
    A = cells(11)
    P = reference.interpolate(A, (2, 2))
    v = torch.randn((1, 11, 11), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = torch.from_numpy(A.to_scipy().toarray())
    w = v.clone()
    reference.sweep(A, w, torch.zeros_like(w), reverse=False, from_zero=False)
    w, e = w.reshape(-1), v.reshape(-1)

    def exact(weights: torch.Tensor) -> torch.Tensor:
        Q = matrix(replace(P, weights=weights))
        y = w - Q @ torch.linalg.solve(Q.T @ dense @ Q, Q.T @ dense @ w)
        return (y @ dense @ y) / (e @ dense @ e)

    ours, theirs = (P.weights.clone().requires_grad_() for _ in range(2))
    rho = energy_left(A, replace(P, weights=ours), v, 1)
    expected = exact(theirs)
    torch.testing.assert_close(rho.squeeze(), expected)
    rho.sum().backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-12)


def test_two_grid_steps_converge_to_the_slowest_mode() -> None:
    A = window(cells(20), [3, 4], [7, 7])
    P = reference.interpolate(A, (2, 2))
    v = torch.randn((1, 7, 7), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    slow = two_grid(A, P, v, 1, 300)
    dense = torch.from_numpy(A.to_scipy().toarray())
    Q = matrix(P)
    T = torch.eye(49, dtype=torch.float64) - Q @ coarse_inverse(A, P) @ Q.T @ dense
    S = torch.eye(49, dtype=torch.float64).reshape(49, 7, 7)
    reference.sweep(A, S, torch.zeros_like(S), reverse=False, from_zero=False)
    L = torch.linalg.cholesky(dense)
    step = L.T @ T @ S.reshape(49, 49).T @ torch.linalg.inv(L.T)
    largest = torch.linalg.svdvals(step).max() ** 2
    torch.testing.assert_close(energy_left(A, P, slow, 1).squeeze(), largest, rtol=1e-4, atol=0)


def test_training_resumes_to_the_same_bits(tmp_path: Path) -> None:
    A = [cells(19, seed) for seed in (0, 1)]
    whole = train_learned_multigrid(SMALL, A, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(done: int, rounds: int, row: Mapping[str, float]) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train_learned_multigrid(SMALL, A, tmp_path / "parts", progress=stop)
    again = train_learned_multigrid(SMALL, A, tmp_path / "parts")
    ours, theirs = (read_stored(path, KIND) for path in (whole, again))
    assert all(torch.equal(value, theirs.tensors[name]) for name, value in ours.tensors.items())
    assert any(value.any() for name, value in ours.tensors.items() if name.startswith("last"))
    assert (tmp_path / "parts" / STATE).is_file()
    with pytest.raises(InputError, match="steps was 3, now 4"):
        train_learned_multigrid(replace(SMALL, steps=4), A, tmp_path / "parts")


def test_training_lowers_the_contraction_of_what_it_sees(tmp_path: Path) -> None:
    options = replace(SMALL, channels=8, rounds=2, steps=40, rate=1e-2, batch=4, window=15)
    rows: list[Mapping[str, float]] = []
    path = train_learned_multigrid(
        options, [cells(15)], tmp_path, progress=lambda i, n, row: rows.append(row)
    )
    A = cells(15)
    v = torch.randn((4, 15, 15), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    P = reference.interpolate(A, (2, 2))
    before = energy_left(A, P, two_grid(A, P, v, 2, 20), 2).max()
    Q = LearnedInterpolation(load_transfer(str(path)))(A, (2, 2))
    after = energy_left(A, Q, two_grid(A, Q, v, 2, 20), 2).max()
    assert after < 0.8 * before
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 8}, "window must be odd"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"channels": 0}, "channels must be at least 1"),
    ],
)
def test_training_options_are_checked(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MultigridTraining(**changes)  # type: ignore[arg-type]


def test_what_does_not_suit_is_refused(tmp_path: Path) -> None:
    A = cells(12)
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
    for bad, message in (([skew], "symmetric positive"), ([], "a matrix"), ([A], "does not fit")):
        with pytest.raises(InputError, match=message):
            train_learned_multigrid(MultigridTraining(), bad, tmp_path / "run")


def test_preconditions_cg_as_an_option(tmp_path: Path) -> None:
    import sciml

    A = cells(30)
    b = torch.randn(A.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solver = CG(preconditioner=LearnedMultigrid(saved(noisy(0, 0.05), tmp_path)))
    solution = sciml.solve(sciml.core.linear.LinearSystem(A, b), solver)
    assert solution.converged
    assert float((b - A.apply(solution.value)).norm() / b.norm()) < 1e-8
