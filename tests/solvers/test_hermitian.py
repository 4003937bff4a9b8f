"""Hermitian matrices: conjugate gradients and minimal residuals, and who else is refused."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

import sciml
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.run.status import Status
from sciml.solvers import AMG, CG, FCG, GMRES, MINRES, SSOR, Direct, IncompleteCholesky, Jacobi
from sciml.solvers.auto import choose

SHIFT = 1.7  # among the eigenvalues


def magnetic(n: int, dimension: int, phase: float = 0.3) -> scipy.sparse.csr_matrix:
    """-(grad - i a)^2, the Laplacian in a magnetic field: Hermitian, not symmetric."""
    ones = np.ones(n - 1)
    turned = np.exp(1j * phase) * ones
    along = scipy.sparse.diags([-turned.conj(), np.full(n, 2.0), -turned], [-1, 0, 1])
    across = scipy.sparse.diags([-ones, np.full(n, 2.0), -ones], [-1, 0, 1])
    I = scipy.sparse.identity(n)  # noqa: E741
    if dimension == 2:
        return (scipy.sparse.kron(along, I) + scipy.sparse.kron(I, across)).tocsr()
    terms = [(along, I, I), (I, across, I), (I, I, across)]
    return sum(scipy.sparse.kron(scipy.sparse.kron(a, b), c) for a, b, c in terms).tocsr()


def right_side(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=n) + 1j * rng.normal(size=n)


A = magnetic(15, 2)
B = A - SHIFT * scipy.sparse.identity(A.shape[0])
b = right_side(A.shape[0])


def test_tags() -> None:
    found = SparseMatrix(A)
    assert found.hermitian and found.self_adjoint and found.definite and not found.symmetric
    symmetric = SparseMatrix(A + A.T + 1j * scipy.sparse.identity(A.shape[0]))
    assert symmetric.symmetric and not symmetric.hermitian and not symmetric.definite
    assert not SparseMatrix(A + 1e-9 * scipy.sparse.eye(A.shape[0], k=1)).hermitian
    assert SparseMatrix(A.real.tocsr()).self_adjoint


def test_cg_takes_the_steps_of_scipy() -> None:
    for count in (5, 20):
        wanted, _ = scipy.sparse.linalg.cg(A, b, rtol=0.0, atol=0.0, maxiter=count)
        found = sciml.solve(A, b, CG(max_iterations=count, rtol=1e-12), throw=False)
        np.testing.assert_allclose(found.value.numpy(), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "solver",
    [CG(), CG(Jacobi()), CG(SSOR()), CG(Direct()), FCG(Jacobi()), MINRES(), MINRES(SSOR())],
    ids=lambda s: f"{s.kind}-{getattr(s.preconditioner, 'kind', 'plain')}",
)
def test_batches_equal_scipy(solver: CG) -> None:
    right = np.stack([b, 2j * b, b.conj(), b.real])
    found = sciml.solve(A, right, solver)
    wanted = scipy.sparse.linalg.spsolve(A.tocsc(), right.T).T
    np.testing.assert_allclose(found.value.numpy(), wanted, rtol=0, atol=1e-6)
    again = np.linalg.norm(right.T - A @ found.value.numpy().T, axis=0)
    np.testing.assert_allclose(
        found.residual.numpy(), again / np.linalg.norm(right, axis=1), rtol=1e-4, atol=1e-15
    )


def test_indefinite_ones() -> None:
    wanted = scipy.sparse.linalg.spsolve(B.tocsc(), b)
    assert np.linalg.eigvalsh(B.toarray())[0] < -1
    for solver in (MINRES(), MINRES(Jacobi()), None):
        found = sciml.solve(B, b, solver)
        np.testing.assert_allclose(found.value.numpy(), wanted, rtol=0, atol=1e-6)
    refused = sciml.solve(B, b, CG(), throw=False)
    assert refused.status is Status.INDEFINITE_OPERATOR


def test_auto_chooses_by_the_tags() -> None:
    space = magnetic(13, 3)
    off = 1j * scipy.sparse.diags(np.linspace(0, 1, space.shape[0]))
    assert isinstance(choose(SparseMatrix(space), 1e-8)[0], CG)
    assert isinstance(choose(SparseMatrix(space, definite=False), 1e-8)[0], MINRES)
    assert not isinstance(choose(SparseMatrix(space + off), 1e-8)[0], (CG, MINRES))
    large = magnetic(28, 3) + 1j * scipy.sparse.identity(28**3)
    assert isinstance(choose(SparseMatrix(large), 1e-8)[0], GMRES)
    assert np.allclose(space @ sciml.solve(space, right_side(space.shape[0])).value.numpy(),
                       right_side(space.shape[0]), atol=1e-6)  # fmt: skip


def test_on_a_grid_it_is_a_hermitian_stencil() -> None:
    found = sciml.solve(A, b, CG(), on=Grid((15, 15)))
    wanted = scipy.sparse.linalg.spsolve(A.tocsc(), b)
    np.testing.assert_allclose(found.value.numpy().ravel(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", [CG(), MINRES(Jacobi()), Direct()], ids=lambda s: s.kind)
def test_gradients_go_through(solver: CG) -> None:
    weights = torch.from_numpy(right_side(A.shape[0])).conj().resolve_conj()
    right = torch.from_numpy(b).requires_grad_()
    value = sciml.solve(LinearSystem(SparseMatrix(A), right), solver).value
    (found,) = torch.autograd.grad((weights.conj() * value).sum().real, right)
    wanted = scipy.sparse.linalg.spsolve(A.conj().T.tocsc(), weights.numpy())
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "solver", "message"),
    [
        (A + 1j * scipy.sparse.identity(A.shape[0]), CG(), "cg needs a Hermitian operator.*gmres"),
        (A + 1j * scipy.sparse.identity(A.shape[0]), MINRES(), "needs a Hermitian operator"),
        (A, CG(IncompleteCholesky()), "incomplete_cholesky needs a real"),
        (A, CG(AMG()), "amg needs a real operator"),
    ],
)
def test_what_does_not_suit_is_refused_by_name(matrix, solver, message) -> None:
    with pytest.raises(InputError, match=message):
        sciml.solve(matrix, b, solver)


def test_foreign_preconditioners_are_probed_with_complex_vectors() -> None:
    D = scipy.sparse.diags(1 / np.linspace(2.0, 5.0, A.shape[0]))
    skew = D + 0.2j * scipy.sparse.diags(np.linspace(-1, 1, A.shape[0]))
    report = sciml.check_preconditioner(D, A)
    assert report.linear and report.symmetric and report.definite
    assert not sciml.check_preconditioner(skew, A).symmetric
    assert not sciml.check_preconditioner(lambda r: r.conj(), A).linear
    found = sciml.cg(A, b, M=D)
    np.testing.assert_allclose(A @ found.value.numpy(), b, atol=1e-6)
    with pytest.raises(InputError, match="not symmetric"):
        sciml.cg(A, b, M=skew)


def test_certificates_are_for_real_operators() -> None:
    system = LinearSystem(SparseMatrix(A), torch.from_numpy(b))
    with pytest.raises(InputError, match="certify needs"):
        sciml.certify(torch.from_numpy(b), system)
