"""Linear systems as other programs make them: what an answer, a tag or a refusal must hold for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

import sciml
from sciml import Status
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.solvers import (
    AMG,
    CG,
    FCG,
    GMRES,
    ILU,
    MINRES,
    SOR,
    BiCGStab,
    Direct,
    IncompleteCholesky,
    Jacobi,
)

torch.set_num_threads(1)
N = 24


def laplacian(n: int = N) -> sp.csr_matrix:
    """-4 times the five-point stencil, without h."""
    T = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n))
    return sp.csr_matrix(sp.kronsum(T, T))


def convection(n: int = N, speed: float = 0.7) -> sp.csr_matrix:
    T = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n))
    D = sp.diags([-speed, speed], [-1, 1], (n, n))
    return sp.csr_matrix(sp.kronsum(T, T + D))


def penalised(n: int = N) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """u = 1 on a side by 1e30 on its diagonal, 100 elsewhere; and the answer."""
    A, b = laplacian(n).tolil(), np.full(n * n, 100.0)
    for k in range(n):
        A[k, k] = b[k] = 1e30
    A = sp.csr_matrix(A)
    return A, b, scipy.sparse.linalg.spsolve(A.tocsc(), b)


METHODS = {
    "cg": CG(),
    "cg-amg": CG(AMG()),
    "cg-ic": CG(IncompleteCholesky()),
    "fcg": FCG(Jacobi()),
    "minres": MINRES(),
    "gmres-ilu": GMRES(ILU()),
    "gmres": GMRES(restart=60),
    "bicgstab": BiCGStab(),
    "amg": AMG(),
    "sor": SOR(omega=1.7),
    "direct": Direct(),
    "auto": None,
}


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_a_penalty_do_not_hide_the_others(name: str) -> None:
    A, b, x = penalised()
    found = sciml.solve(A, b, METHODS[name])
    assert np.abs(found.value.numpy() - x).max() < 1e-4 * np.abs(x).max()
    # What was computed may be zero; what is known of it is not.
    assert float(found.residual) >= 2.0**-53


def test_a_penalty_in_one_sample_of_a_batch_leaves_the_others_alone() -> None:
    A, b, x = penalised()
    right = np.stack([b, A @ np.linspace(0, 1, len(b))])
    both = sciml.solve(A, right, CG(AMG()))
    alone = sciml.solve(A, right[1], CG(AMG()))
    assert np.abs(both.value[0].numpy() - x).max() < 1e-4 * np.abs(x).max()
    assert torch.allclose(both.value[1], alone.value, rtol=1e-9)


def test_a_scaled_residual_that_cannot_be_met_is_no_convergence() -> None:
    A, b, _ = penalised()
    found = sciml.solve(A, b, CG(max_iterations=5), throw=False)
    assert not found.status.success
    assert float(found.residual) > 1e-6


def test_rows_of_one_size_take_the_iterations_they_took() -> None:
    # The verification is at the end: the history of the method ends where its tolerance is met.
    found = sciml.solve(laplacian(), np.ones(N * N), CG())
    assert len(found.stats.residuals) == int(found.stats.iterations) + 1
    assert float(found.stats.residuals[-2]) > 1e-8 >= float(found.residual)


def test_no_residual_is_below_the_rounding_of_the_product() -> None:
    # x = 1e20 everywhere but for a little: every row cancels to what rounding leaves.
    A = sp.csr_matrix(np.array([[1.0, -1.0], [-1.0, 1.0 + 2.0**-52]]))
    b = np.array([1.0, 1.0])
    found = sciml.solve(A, b, Direct(), throw=False)
    assert found.status is not Status.CONVERGED or float(found.residual) > 0


@pytest.mark.parametrize("huge", [1e14, 1e30])
def test_symmetry_is_judged_beside_the_diagonal(huge: float) -> None:
    A = convection().tolil()
    A[7, 7] = huge
    operator = SparseMatrix(A)
    assert not operator.symmetric
    b = np.ones(N * N)
    b[7] = huge
    x = scipy.sparse.linalg.spsolve(sp.csc_matrix(A), b)
    found = sciml.solve(operator, b)
    assert np.abs(found.value.numpy() - x).max() < 1e-5 * np.abs(x).max()


def test_rounding_is_no_asymmetry() -> None:
    rng = np.random.default_rng(0)
    S = sp.diags(10.0 ** rng.uniform(-8, 8, N * N))
    A = sp.csr_matrix(S @ laplacian() @ S)
    A.data *= 1 + 1e-15 * rng.standard_normal(A.nnz)
    assert SparseMatrix(A).symmetric
    saddle = sp.bmat([[laplacian(4), np.ones((16, 1))], [np.ones((1, 16)), None]])
    assert SparseMatrix(saddle).symmetric
    assert not SparseMatrix(saddle).definite


def test_a_minor_that_is_negative_is_not_definite() -> None:
    assert not SparseMatrix(np.array([[1.0, 2.0], [2.0, 1.0]])).definite
    assert SparseMatrix(laplacian()).definite


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_the_callers_matrix_is_left_as_it_is(kind: str) -> None:
    rows, columns = np.array([1, 0, 0, 1, 0, 2]), np.array([1, 1, 0, 0, 0, 2])
    values = np.array([4.0, -1.0, 2.0, -1.0, 2.0, 3.0])
    coo = sp.coo_matrix((values, (rows, columns)), (3, 3))
    if kind == "csr":  # unsorted, with a duplicate
        A: Any = sp.csr_matrix((values[[1, 2, 4, 0, 3, 5]], [1, 0, 0, 1, 0, 2], [0, 3, 5, 6]))
    else:
        A = coo if kind == "coo" else coo.tocsc()
    before = {name: part.copy() for name, part in vars(A).items() if isinstance(part, np.ndarray)}
    for solver in (Direct(), CG(IncompleteCholesky()), CG(AMG())):
        found = sciml.solve(A, np.ones(3), solver)
        assert np.allclose(coo.toarray() @ found.value.numpy(), 1)
    sciml.as_scipy(Jacobi(), A) @ np.ones(3)
    for name, part in before.items():
        assert np.array_equal(getattr(A, name), part), name


def test_what_was_set_up_is_not_changed_from_outside() -> None:
    A, b = laplacian(), np.ones(N * N)
    x = scipy.sparse.linalg.spsolve(A.tocsc(), b)
    operator = SparseMatrix(A)
    solver = CG(AMG())
    state = solver.init(LinearSystem(operator, torch.from_numpy(b)))
    A.data[:] *= 3
    assert np.allclose(solver.run(state).value.numpy(), x)
    with pytest.raises(ValueError, match="read-only"):
        operator.to_scipy().data[0] = 7.0
