"""Neural incomplete Cholesky: what no network may break, its losses, its training, its errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import scipy.sparse.csgraph
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import sciml
from sciml.app.cli import app
from sciml.core.algebra.maps import LinearMap, SparseMatrix
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError, SolveError
from sciml.core.run.training_run import CHECKPOINT, HISTORY
from sciml.core.run.weights import FILE, write_weights
from sciml.solvers import CG, IncompleteCholesky, NeuralIC, NeuralICTraining
from sciml.solvers.learned import neural_ic
from sciml.solvers.learned.neural_ic import (
    KIND,
    BlockSystems,
    FactorGraph,
    FactorLoss,
    FactorModule,
    FactorNetwork,
    corrected,
    learned_factor,
    load_factor,
    loss_of,
    plain,
)
from sciml.solvers.linear.incomplete import factorise, reordered

RCM = "reverse_cuthill_mckee"
SMALL = NeuralICTraining(channels=4, messages=1, depth=4, rounds=2, steps=4, batch=2, rate=5e-3)


def random_laplacian(n: int, seed: int) -> scipy.sparse.csr_matrix:
    """A weighted graph's Laplacian plus a small diagonal, weights over three decades."""
    random = np.random.default_rng(seed)
    points = random.random((n, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = distances < 1.8 / np.sqrt(n)
    weights = np.triu(np.where(near, 10 ** random.uniform(0, 3, (n, n)), 0.0), 1)
    weights += weights.T
    return scipy.sparse.csr_matrix(
        np.diag(weights.sum(1) + 0.01 + 0.1 * random.random(n)) - weights
    )


def indefinite_looking(n: int, seed: int) -> scipy.sparse.csr_matrix:
    """Definite, with entries of both signs, on which IC(0) may break down."""
    random = np.random.default_rng(seed)
    B = scipy.sparse.random(n, n, 4 / n, random_state=random, data_rvs=random.standard_normal)
    return (B @ B.T + 0.05 * scipy.sparse.eye(n)).tocsr()


def grid_matrix(n: int) -> scipy.sparse.csr_matrix:
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n))
    return scipy.sparse.kronsum(line, line).tocsr()


def noisy(seed: int, size: float = 1.0, options: FactorNetwork | None = None) -> FactorModule:
    """A network that says anything."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = FactorModule(options or FactorNetwork(5))
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=size)
    return module.eval().requires_grad_(False)


def saved(module: FactorModule, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    write_weights(folder / FILE, KIND, plain(module.options), module.state_dict(), {})
    return str(folder)


def dense(M: LinearMap) -> np.ndarray:
    return M.to_scipy().toarray()


def batch_of(matrix: scipy.sparse.csr_matrix, seed: int, vectors: int = 2) -> BlockSystems:
    _, moved = reordered(matrix)
    b = np.random.default_rng(seed).standard_normal((vectors, matrix.shape[0]))
    x = np.linalg.solve(moved.toarray(), b.T).T
    graph = FactorGraph.of(moved, factorise(moved, 0.9))
    block = torch.zeros(len(b[0]), dtype=torch.int64)
    return BlockSystems(graph, moved, block, torch.from_numpy(b), torch.from_numpy(x.copy()))


# --- the classical factor, relaxed and reordered


@pytest.mark.parametrize("make", [lambda: grid_matrix(9), lambda: random_laplacian(60, 1)])
def test_modified_factor_keeps_the_rows_sums(make) -> None:
    A = make()
    C = factorise(A, 1.0).matrix()
    np.testing.assert_allclose((C @ C.T - A).sum(1), 0, atol=1e-9 * abs(A).max())
    assert abs((C @ C.T - A).toarray()).max() > 1e-3
    half, plain_sums = (
        np.asarray((F @ F.T - A).sum(1)).max()
        for F in (factorise(A, 0.5).matrix(), factorise(A).matrix())
    )
    assert 0.1 * plain_sums < half < 0.9 * plain_sums


def test_reordered_incomplete_cholesky_is_that_of_the_reordered_matrix() -> None:
    A = random_laplacian(50, 2)
    order = scipy.sparse.csgraph.reverse_cuthill_mckee(A, True)
    C = factorise(A[order][:, order].tocsr(), 0.5).matrix().toarray()
    B = dense(IncompleteCholesky(0.5, RCM).setup(SparseMatrix(A)))
    np.testing.assert_allclose(B[np.ix_(order, order)], np.linalg.inv(C @ C.T), rtol=1e-8)


def test_relaxing_and_reordering_pay_on_a_mesh_in_random_order() -> None:
    A, random = grid_matrix(40), np.random.default_rng(0)
    order = random.permutation(A.shape[0])
    shuffled = SparseMatrix(A[order][:, order])
    b = torch.from_numpy(random.standard_normal(A.shape[0]))

    def count(M: IncompleteCholesky) -> int:
        return int(sciml.solve(shuffled, b, CG(M)).stats.iterations)

    assert count(IncompleteCholesky(0.98, RCM)) < 0.75 * count(IncompleteCholesky(0.0, RCM))
    assert count(IncompleteCholesky(0.0, RCM)) < 0.8 * count(IncompleteCholesky())


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_relaxation_is_checked(value: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        IncompleteCholesky(value)
    with pytest.raises(InputError, match="between 0 and 1"):
        FactorNetwork(relaxation=value)


# --- whatever the network says


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.sampled_from([0.1, 1.0, 30.0]),
    family=st.sampled_from([random_laplacian, indefinite_looking]),
)
def test_any_network_gives_a_symmetric_definite_map(seed: int, size: float, family) -> None:
    A = family(40, seed)
    _, moved = reordered(A)
    factor = learned_factor(noisy(seed, size), moved, factorise(moved, 0.9))
    C, L = factorise(moved, 0.9).matrix(), factor.matrix()
    assert (L.diagonal() > 0).all()
    assert np.array_equal(L.indices, C.indices) and np.array_equal(L.indptr, C.indptr)
    before, after = (
        (abs(F).sum(0) - F.diagonal()) / F.diagonal() for F in (C, L)
    )  # sums of columns below the diagonal
    assert (after <= np.maximum(before, 1) * (1 + 1e-12)).all()
    np.testing.assert_allclose(
        factor.solve(np.eye(40)) @ (L @ L.T).toarray(), np.eye(40), atol=1e-6
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cg_with_any_network_finds_the_answer(seed: int, tmp_path: Path) -> None:
    A = SparseMatrix(random_laplacian(80, seed))
    options = NeuralIC(saved(noisy(seed), tmp_path), trial=False)
    report = sciml.check_preconditioner(options, A)
    assert report.linear and report.symmetric and report.definite and report.deterministic
    b = torch.from_numpy(np.random.default_rng(seed).standard_normal(A.size))
    answer = sciml.solve(A, b, CG(options, rtol=1e-10))
    exact = np.linalg.solve(A.matrix.toarray(), b.numpy())
    np.testing.assert_allclose(answer.value.numpy(), exact, rtol=1e-6, atol=1e-8 * abs(exact).max())
    assert "the learned factor is used" in " ".join(answer.notes)


@pytest.mark.parametrize("relaxation", [0.0, 0.98])
def test_untrained_network_is_the_classical_factor(relaxation: float, tmp_path: Path) -> None:
    A = SparseMatrix(random_laplacian(70, 3))
    path = saved(FactorModule(FactorNetwork(4, relaxation=relaxation)), tmp_path)
    r = torch.from_numpy(np.random.default_rng(0).standard_normal((3, A.size)))
    learned = NeuralIC(path, trial=False).setup(A).apply(r)
    classical = IncompleteCholesky(relaxation, RCM).setup(A).apply(r)
    torch.testing.assert_close(learned, classical, rtol=1e-13, atol=0)


def test_scaled_matrix_gives_the_scaled_map(tmp_path: Path) -> None:
    A = random_laplacian(60, 4)
    options = NeuralIC(saved(noisy(1), tmp_path), trial=False)
    one = dense(options.setup(SparseMatrix(A)))
    for scale in (2.0**-20, 1e7):
        other = dense(options.setup(SparseMatrix(scale * A)))
        # The network is float32: another rounding of its inputs is another answer in the 7th digit.
        np.testing.assert_allclose(scale * other, one, rtol=1e-4, atol=1e-6 * abs(one).max())


def test_only_which_end_comes_first_is_known_of_the_order() -> None:
    A = random_laplacian(60, 5)
    # Levels of the elimination: any order by level keeps every entry's ends as they were.
    level, lower = np.zeros(60, dtype=int), scipy.sparse.tril(A, -1).tocsr()
    for i in range(60):
        mine = lower.indices[lower.indptr[i] : lower.indptr[i + 1]]
        level[i] = 1 + level[mine].max() if len(mine) else 0
    order = np.argsort(level, kind="stable")
    assert not np.array_equal(order, np.arange(60))
    moved = A[order][:, order].tocsr()
    module = noisy(2)
    L, permuted = (
        learned_factor(module, matrix, factorise(matrix, 0.9)).matrix().toarray()
        for matrix in (A, moved)
    )
    np.testing.assert_allclose(permuted, L[np.ix_(order, order)], rtol=1e-4, atol=1e-5)


def test_kinds_of_operators(tmp_path: Path) -> None:
    options = NeuralIC(saved(noisy(3, 0.3), tmp_path), trial=False)
    A = grid_matrix(6)
    expected = dense(options.setup(SparseMatrix(A)))
    offsets = [(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)]
    planes = torch.full((5, 6, 6), -1.0, dtype=torch.float64)
    planes[0] = 4.0
    planes[1, :, 0] = planes[2, :, -1] = planes[3, 0] = planes[4, -1] = 0
    stencil = Stencil(planes, offsets, symmetric=True, definite=True)
    assert abs(stencil.to_scipy() - A).max() == 0
    np.testing.assert_allclose(dense(options.setup(stencil)), expected, rtol=1e-12)
    A.sort_indices()
    values = torch.from_numpy(np.stack([A.data, 3 * A.data]))
    pattern = PatternMatrix(A.indptr, A.indices, values, symmetric=True, definite=True)
    r = torch.ones(2, 36, dtype=torch.float64)
    images = options.setup(pattern).apply(r)
    np.testing.assert_allclose(images[0], expected.sum(1), rtol=1e-10)
    np.testing.assert_allclose(images[1], expected.sum(1) / 3, rtol=1e-4)


def test_the_trial_takes_the_better_factor(tmp_path: Path) -> None:
    A = SparseMatrix(grid_matrix(30))
    b = torch.from_numpy(np.random.default_rng(0).standard_normal(A.size))
    bad = FactorModule(FactorNetwork(4))
    torch.nn.init.constant_(bad.on_edges.bias, -3.0)  # halves what is below the diagonal
    path = saved(bad, tmp_path)
    tried, untried, classical = (
        sciml.solve(A, b, CG(M))
        for M in (NeuralIC(path), NeuralIC(path, trial=False), IncompleteCholesky(0.98, RCM))
    )
    assert "the classical factor stays in 1 of 1" in " ".join(tried.notes)
    assert tried.stats.iterations == classical.stats.iterations < untried.stats.iterations


def test_what_is_not_definite_is_refused(tmp_path: Path) -> None:
    options = NeuralIC(saved(noisy(0), tmp_path))
    for entries in ([[1.0, 2.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]]):
        with pytest.raises(InputError, match="symmetric positive definite"):
            options.setup(SparseMatrix(scipy.sparse.csr_matrix(entries)))
    with pytest.raises(InputError, match="no such file") as caught:
        NeuralIC(str(tmp_path / "absent")).setup(SparseMatrix(grid_matrix(3)))
    assert caught.value.key == "solver.preconditioner.path"
    write_weights(tmp_path / "other", KIND, {"width": 3}, {}, {})
    with pytest.raises(InputError, match="describes no such network"):
        NeuralIC(str(tmp_path / "other")).setup(SparseMatrix(grid_matrix(3)))


# --- the losses


@pytest.mark.parametrize("kind", get_args(FactorLoss))
def test_gradient_of_the_loss_is_that_of_differences(kind: FactorLoss) -> None:
    batch = BlockSystems.of([batch_of(random_laplacian(50, 6), 0), batch_of(grid_matrix(7), 1)])
    generator = torch.Generator().manual_seed(0)
    graph = batch.graph
    diagonal = graph.diagonal.clone().requires_grad_()
    lower = graph.lower.clone().requires_grad_()
    loss_of(kind, batch, diagonal, lower, 5).backward()
    for _ in range(3):
        on = [
            t * torch.randn(t.shape, generator=generator, dtype=torch.float64)
            for t in (graph.diagonal, graph.lower)
        ]
        slope = float((diagonal.grad * on[0]).sum() + (lower.grad * on[1]).sum())

        def at(h: float, on: list[torch.Tensor] = on) -> float:
            return float(
                loss_of(kind, batch, graph.diagonal + h * on[0], graph.lower + h * on[1], 5)
            )

        assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-4, abs=1e-7)


def test_energy_left_is_that_of_conjugate_gradients() -> None:
    batch = batch_of(random_laplacian(60, 7), 3, vectors=1)
    graph, k = batch.graph, 6
    A, b, x = batch.matrix.toarray(), batch.b[0].numpy(), batch.x[0].numpy()
    L = np.diag(graph.diagonal.numpy())
    L[graph.rows, graph.columns] = graph.lower.numpy()
    basis = [np.linalg.solve(L @ L.T, b)]
    for _ in range(k - 1):
        basis.append(np.linalg.solve(L @ L.T, A @ basis[-1]))
    Q = np.linalg.qr(np.stack(basis, 1))[0]
    best = Q @ np.linalg.solve(Q.T @ A @ Q, Q.T @ b)
    left = (x - best) @ A @ (x - best) / (x @ b)
    found = loss_of("energy", batch, graph.diagonal, graph.lower, k)
    assert float(found) == pytest.approx(left ** (0.5 / k), rel=1e-6)


def test_a_batch_has_the_mean_of_its_parts_losses() -> None:
    parts = [batch_of(random_laplacian(n, n), n) for n in (30, 40, 45)]
    module = noisy(4, 0.3)
    for kind in get_args(FactorLoss):
        alone = [float(loss_of(kind, p, *corrected(p.graph, *module(p.graph)), 4)) for p in parts]
        whole = BlockSystems.of([BlockSystems.of(parts[:2]), parts[2]])
        together = loss_of(kind, whole, *corrected(whole.graph, *module(whole.graph)), 4)
        assert float(together) == pytest.approx(np.mean(alone), rel=1e-4)


# --- training


def given_matrices(count: int = 3) -> list[LinearMap]:
    return [SparseMatrix(random_laplacian(60, k)) for k in range(count)]


@pytest.mark.parametrize("kind", get_args(FactorLoss))
def test_training_reduces_the_loss(kind: FactorLoss, tmp_path: Path) -> None:
    given: list[LinearMap] = [SparseMatrix(grid_matrix(n)) for n in (9, 11, 12)]
    options = replace(SMALL, loss=kind, depth=6, rounds=2, steps=40, relaxation=0.0, rate=1e-2)
    rows: list[dict] = []
    options.train(given, tmp_path, progress=lambda done, of, row: rows.append(dict(row)))
    assert [row["epoch"] for row in rows] == [1, 2]
    part = batch_of(grid_matrix(10), 11, vectors=8)
    part = replace(part, graph=FactorGraph.of(part.matrix, factorise(part.matrix)))

    @torch.no_grad()
    def loss(network: FactorModule) -> float:
        return float(loss_of(kind, part, *corrected(part.graph, *network(part.graph)), 6))

    untrained = loss(FactorModule(options.network()))
    assert loss(load_factor(str(tmp_path))) < 0.97 * untrained


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    def stop(done: int, rounds: int, row: object) -> None:
        raise KeyboardInterrupt

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    SMALL.train(given_matrices(), whole)
    with pytest.raises(KeyboardInterrupt):
        SMALL.train(given_matrices(), parts, progress=stop)
    SMALL.train(given_matrices(), parts)
    from safetensors.torch import load_file

    for name in (FILE, CHECKPOINT):
        one, other = load_file(whole / name), load_file(parts / name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(InputError, match=r"rate was 0\.005, now 0\.1"):
        replace(SMALL, rate=0.1).train(given_matrices(), parts)
    losses = [line.split(",")[4:] for line in (whole / HISTORY).read_text().split()]
    assert losses == [line.split(",")[4:] for line in (parts / HISTORY).read_text().split()]


def test_a_loss_that_is_no_number_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def spoiled(*arguments: object) -> torch.Tensor:
        calls.append(arguments)
        loss = loss_of(*arguments)  # type: ignore[arg-type]
        return loss * float("nan") if len(calls) > 6 else loss

    monkeypatch.setattr(neural_ic, "loss_of", spoiled)
    with pytest.raises(SolveError, match=r"at step 4; the last good state is in .*lower rate"):
        replace(SMALL, steps=1, rounds=9).train(given_matrices(1), tmp_path)
    assert len((tmp_path / HISTORY).read_text().split()) == 1 + 3
    load_factor(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"vectors": 17}, "vectors must be at most 16"),
        ({"rate": 0.0}, "rate must be positive"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"messages": -1}, "messages must be at least 0"),
    ],
)
def test_options_are_checked(change: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(SMALL, **change)


SPEC = """
data: {{kind: matrices, folder: '{folder}'}}
preconditioner: {{kind: neural_ic, channels: 3, messages: 1, depth: 3, rounds: 2, steps: 3}}
"""


def trained_from(folder: Path) -> tuple[int, str]:
    """Exit code and output of ``sciml train`` on a folder of matrices."""
    spec = folder.parent / "spec.yaml"
    spec.write_text(SPEC.format(folder=folder))
    done = CliRunner().invoke(app, ["train", str(spec), "--out", str(folder.parent / "run")])
    return done.exit_code, " ".join(done.output.split())


def test_the_command_trains_on_a_folder_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "matrices"
    folder.mkdir()
    scipy.sparse.save_npz(folder / "a.npz", random_laplacian(40, 0))
    scipy.io.mmwrite(folder / "b.mtx", random_laplacian(50, 1), symmetry="symmetric")
    code, said = trained_from(folder)
    assert code == 0, said
    assert "2 of 40 to 50 unknowns" in said
    A = SparseMatrix(random_laplacian(60, 2))
    b = torch.ones(60, dtype=torch.float64)
    assert sciml.solve(A, b, CG(NeuralIC(str(tmp_path / "run")))).converged


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: None, "no matrix in"),
        (lambda f: (f / "a.mtx").write_text("no matrix"), "cannot read a matrix from"),
        (lambda f: (f / "a.npz").write_bytes(b"no matrix"), "a.npz"),
        (
            lambda f: scipy.sparse.save_npz(f / "a.npz", scipy.sparse.csr_matrix(np.eye(3, 4))),
            "a.npz': the matrix must be square",
        ),
        (
            lambda f: scipy.sparse.save_npz(
                f / "a.npz", scipy.sparse.csr_matrix([[2.0, 1.0], [0.0, 2.0]])
            ),
            "a.npz' (2 unknowns) is not symmetric",
        ),
        (
            lambda f: scipy.sparse.save_npz(
                f / "a.npz", scipy.sparse.csr_matrix([[1.0, 2.0], [2.0, 1.0]])
            ),
            "a.npz' (2 unknowns) is not positive definite",
        ),
        (
            lambda f: scipy.sparse.save_npz(
                f / "a.npz", scipy.sparse.csr_matrix([[np.nan, 0.0], [0.0, 1.0]])
            ),
            "a.npz': the matrix holds a NaN",
        ),
    ],
    ids=["empty", "text", "bytes", "oblong", "nonsymmetric", "indefinite", "nan"],
)
def test_a_bad_folder_is_told_in_one_line(make, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "matrices"
    folder.mkdir()
    make(folder)
    code, output = trained_from(folder)
    assert code == 2, output
    assert said in output
