"""Singular matrices whose kernel is said: right-hand sides in the range, and others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

import sciml
from sciml.core.algebra.maps import SparseMatrix
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.run.status import Status
from sciml.solvers import (
    AMG,
    CG,
    FCG,
    GMRES,
    MINRES,
    SSOR,
    Direct,
    IncompleteCholesky,
    Jacobi,
)


def weighted(n: int, seed: int) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """D L D, L the graph Laplacian of an n x n grid, and D^-1 1, which spans its kernel."""
    line = scipy.sparse.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n)).tolil()
    line[0, 0] = line[-1, -1] = 1.0
    D = scipy.sparse.diags(np.random.default_rng(seed).uniform(0.5, 2, n * n))
    return (D @ scipy.sparse.kronsum(line, line) @ D).tocsr(), 1 / D.diagonal()


ONE, FIRST = weighted(8, 0)
OTHER, SECOND = weighted(7, 1)
A = scipy.sparse.block_diag([ONE, OTHER]).tocsr()
N = scipy.linalg.block_diag(FIRST[:, None], SECOND[:, None])
b = A @ np.random.default_rng(2).normal(size=(A.shape[0], 2))
WANTED = np.linalg.pinv(A.toarray()) @ b


@pytest.mark.parametrize(
    "solver",
    [
        None, Direct(), CG(), CG(Jacobi()), CG(SSOR()), CG(AMG()), CG(IncompleteCholesky()),
        FCG(Jacobi()), MINRES(), MINRES(Jacobi()), GMRES(Jacobi(), restart=60), AMG(),
    ],
    ids=lambda s: "auto" if s is None else f"{s.kind}-{getattr(s, 'preconditioner', None)}"[:20],
)  # fmt: skip
def test_the_answer_is_that_of_the_pseudo_inverse(solver) -> None:
    found = sciml.solve(A, b.T, solver, nullspace=N)
    np.testing.assert_allclose(found.value.numpy(), WANTED.T, rtol=0, atol=2e-5)
    assert float((found.value @ torch.from_numpy(N)).abs().max()) < 1e-12


@pytest.mark.parametrize("solver", [None, CG(Jacobi()), MINRES(), Direct(), AMG()])
def test_what_lies_outside_the_range_has_no_solution(solver) -> None:
    right = np.stack([b[:, 0], b[:, 0] + 0.1 * N[:, 1]])
    found = sciml.solve(A, right, solver, nullspace=N, throw=False)
    assert found.statuses == (Status.CONVERGED, Status.INCOMPATIBLE)
    share = 0.1 * np.linalg.norm(N[:, 1]) / np.linalg.norm(right[1])
    assert float(found.residual[1]) == pytest.approx(share, rel=1e-5)
    assert f"{share:.1e} of the right-hand side lies in the nullspace" in " ".join(found.notes)


def test_hermitian_matrices_have_complex_kernels() -> None:
    turn = np.exp(1j * np.arange(A.shape[0]))
    H = scipy.sparse.diags(turn) @ A @ scipy.sparse.diags(turn.conj())
    kernel, right = turn[:, None] * N, turn * b[:, 0]
    for solver in (Direct(), CG(Jacobi()), MINRES()):
        found = sciml.solve(H, right, solver, nullspace=kernel).value.numpy()
        np.testing.assert_allclose(found, turn * WANTED[:, 0], rtol=0, atol=2e-5)


def test_one_vector_constants_and_repeated_ones() -> None:
    right = b[: ONE.shape[0], 0]
    wanted = np.linalg.pinv(ONE.toarray()) @ right
    for kernel in (FIRST, np.stack([FIRST, -2 * FIRST], -1)):
        found = sciml.solve(ONE, right, nullspace=kernel).value
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-10)
    L = scipy.sparse.diags(FIRST) @ ONE @ scipy.sparse.diags(FIRST)
    flat = L @ np.arange(64.0)
    answers = [sciml.solve(L, flat, nullspace=k).value for k in (True, np.ones(64))]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-10)
    on_grid = sciml.solve(L, flat, CG(), nullspace=True, on=Grid((8, 8))).value
    torch.testing.assert_close(on_grid.flatten(), answers[0], rtol=0, atol=1e-5)
    turned = sciml.solve(ONE, right, nullspace=(1 + 2j) * FIRST).value
    np.testing.assert_allclose(turned.numpy(), wanted, rtol=0, atol=1e-10)
    same = SparseMatrix(ONE, nullspace=FIRST)
    np.testing.assert_allclose(sciml.solve(same, right).value.numpy(), wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones(64), "column 0 of nullspace is not in the kernel"),
        (True, "column 0 of nullspace is not in the kernel"),
        (np.ones(3), "as columns"),
        (np.zeros(64), "none is zero"),
        ("constants", "vectors of numbers"),
    ],
)
def test_what_is_no_kernel_is_refused(kernel, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        sciml.solve(ONE, np.zeros(64), nullspace=kernel)
    assert caught.value.key == "nullspace"


def test_where_it_means_nothing() -> None:
    with pytest.raises(InputError, match="on a grid"):
        sciml.solve(ONE, np.zeros(64), nullspace=FIRST, on=Grid((8, 8)))
    problem = sciml.load_spec("configs/poisson.yaml")
    with pytest.raises(InputError, match="that of a matrix"):
        sciml.solve(problem.problem, on=problem.on, nullspace=True)
