"""Linear systems as other programs make them: what an answer, a tag or a refusal must hold for."""

from __future__ import annotations

import contextlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from pyamg.gallery import linear_elasticity

import sciml
from sciml import Status
from sciml.core.algebra.kernels.jit import fast
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
    Multigrid,
)
from sciml.solvers.linear.foreign import as_map

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
    "minres": MINRES(max_iterations=500),
    "gmres-ilu": GMRES(ILU()),
    "gmres": GMRES(restart=60, max_iterations=500),
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


SINGULAR = (laplacian(12) - sp.diags(np.asarray(laplacian(12).sum(1)).ravel())).tocsr()
PARTS = sp.csr_matrix(sp.block_diag([laplacian(9), SINGULAR]))


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sor"}))
def test_data_that_do_not_suit_a_kernel_are_told_which(name: str) -> None:
    whole = sciml.solve(SINGULAR, np.full(144, 0.5), METHODS[name], throw=False)
    assert whole.status is Status.INCOMPATIBLE
    assert any("sums to 72" in note and "all 144 unknowns" in note for note in whole.notes)
    part = sciml.solve(PARTS, np.ones(81 + 144), METHODS[name], throw=False)
    assert part.status is Status.INCOMPATIBLE
    assert any("a part of 144 of 225" in note and "81" in note for note in part.notes)


def test_a_kernel_that_is_no_constant_is_found() -> None:
    half = np.random.default_rng(0).standard_normal((30, 28))
    found = sciml.solve(half @ half.T, np.ones(30), throw=False)
    assert found.status is Status.INCOMPATIBLE
    assert any("2 of 30 dimensions" in note for note in found.notes)
    # Rows and columns of all sizes make no kernel.
    rng = np.random.default_rng(22)
    rows, columns = (sp.diags(10.0 ** rng.uniform(-8, 8, 144)) for _ in range(2))
    A = rows @ laplacian(12) @ columns
    far = sciml.solve(A, rng.standard_normal(144), GMRES(max_iterations=20), throw=False)
    assert far.status is not Status.INCOMPATIBLE


B_BLOCK = sp.random(60, N * N, 0.02, random_state=0)
BEYOND = {
    "indefinite": laplacian(60) - 0.3 * sp.identity(3600),
    "convection": laplacian(60) + sp.diags([-50.0, 50.0], [-1, 1], (3600, 3600)),
    "saddle point": sp.bmat([[laplacian(), B_BLOCK.T], [B_BLOCK, None]]),
    "regularised": sp.bmat([[laplacian(), B_BLOCK.T], [B_BLOCK, -1e-6 * sp.identity(60)]]),
}


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("field", [float, complex])
def test_the_automatic_choice_answers(name: str, field: type) -> None:
    A = sp.csr_matrix(BEYOND[name])
    b = np.random.default_rng(0).standard_normal(A.shape[0]).astype(field)
    b = b + 1j * b[::-1] if field is complex else b
    found = sciml.solve(A, b)
    x = scipy.sparse.linalg.splu(sp.csc_matrix(A.astype(field))).solve(b)
    assert np.abs(found.value.numpy() - x).max() < 1e-5 * np.abs(x).max()


def test_what_took_over_is_noted_and_samples_that_were_solved_stay() -> None:
    A = sp.csr_matrix(BEYOND["convection"])
    found = sciml.solve(A, np.ones(3600))
    assert any("direct took over" in note for note in found.notes)
    lucky = sciml.solve(A, np.stack([np.zeros(3600), np.ones(3600)]))
    assert lucky.converged.all()
    assert float(lucky.value[0].abs().max()) == 0
    assert any("in 1 of 2 samples" in note for note in lucky.notes)


@pytest.mark.parametrize(
    ("shape", "kind"), [((60, 60), "direct"), ((150, 150), "amg"), ((16, 16, 16), "incomplete")]
)
def test_the_choice_knows_a_surface_from_a_volume(shape: tuple[int, ...], kind: str) -> None:
    lines = [sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n)) for n in shape]
    A = lines[0]
    for line in lines[1:]:
        A = sp.kronsum(A, line)
    order = np.random.default_rng(0).permutation(A.shape[0])
    A = sp.csr_matrix(A)[order][:, order]
    found = sciml.solve(A, np.ones(A.shape[0]))
    assert kind in found.notes[-1]


@pytest.mark.parametrize(
    "write",
    [
        lambda A, b: (A.toarray(), b),
        lambda A, b: (A.toarray().tolist(), b.tolist()),
        lambda A, b: (scipy.sparse.linalg.aslinearoperator(A), b),
        lambda A, b: (A, b[::-1].copy()[::-1]),
        lambda A, b: (A, sp.csr_matrix(b).T),
        lambda A, b: (A, b[:, None]),
        lambda A, b: (A.astype(int), b.astype(int)),
        lambda A, b: (A.astype("f4"), b.astype("f4")),
        lambda A, b: (A, b.astype(">f8")),
        lambda A, b: (A, b.astype(np.longdouble)),
    ],
)
def test_a_matrix_and_a_vector_as_scipy_has_them(write: Any) -> None:
    A, b = laplacian(9), np.arange(1.0, 82.0)
    x = scipy.sparse.linalg.spsolve(A.tocsc(), b)
    given = write(A, b)
    assert np.allclose(sciml.solve(*given).value.numpy(), x)
    start = np.ones(81)[::-1]
    assert np.allclose(sciml.solve(*given, CG(), initial=start).value.numpy(), x)


def test_a_matrix_on_a_grid_is_its_stencil() -> None:
    A, b = laplacian(), np.arange(1.0, N * N + 1)
    found = sciml.solve(A, b, CG(Multigrid()), on=sciml.Grid((N, N)))
    x = scipy.sparse.linalg.spsolve(A.tocsc(), b)
    assert np.allclose(found.value.numpy().ravel(), x)
    assert found.value.shape == (N, N) and found.on.shape == (N, N)
    with pytest.raises(sciml.InputError, match="has 25 points; the matrix has 576 rows"):
        sciml.solve(A, b, on=sciml.Grid((5, 5)))


@pytest.mark.parametrize(
    ("b", "says"),
    [
        ("abc", "must hold numbers"),
        ([None] * 81, "must hold numbers"),
        (np.ones((81, 3)), "pass its transpose"),
        (np.ones(80), "81 rows"),
    ],
)
def test_what_is_no_right_hand_side_is_refused_by_name(b: Any, says: str) -> None:
    with pytest.raises(sciml.InputError, match=says):
        sciml.solve(laplacian(9), b)


def test_threads_share_a_preconditioner_and_a_set_up() -> None:
    A = laplacian(48)
    right = np.random.default_rng(0).standard_normal((3, 48 * 48))
    exact = [scipy.sparse.linalg.spsolve(A.tocsc(), b) for b in right]
    M = sciml.as_scipy(Multigrid(), A, shape=(48, 48))
    solver = CG(Multigrid())
    state = solver.init(LinearSystem(as_map(A, (48, 48)), torch.zeros(48, 48)))

    def error(k: int) -> float:
        b, x = right[k % 3], exact[k % 3]
        theirs = scipy.sparse.linalg.cg(A, b, M=M, rtol=1e-9, maxiter=50)[0]
        ours = solver.run(state, b=torch.from_numpy(b).reshape(48, 48)).value.numpy().ravel()
        return max(float(np.abs(y - x).max()) for y in (theirs, ours))

    with ThreadPoolExecutor(3) as pool:
        assert max(pool.map(error, range(12))) < 1e-6


@pytest.mark.parametrize("M", [Multigrid(), AMG(), Direct(), ILU(), IncompleteCholesky(), Jacobi()])
def test_operators_for_scipy_pickle(M: Any) -> None:
    operator, b = sciml.as_scipy(M, laplacian(), shape=(N, N)), np.ones(N * N)
    again = pickle.loads(pickle.dumps(operator))
    assert np.array_equal(operator @ b, again @ b)


def test_loops_compile_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])

    def double(t: np.ndarray) -> None:
        for i in range(t.shape[0]):
            t[i] *= 2

    values = np.ones(3)
    fast(cache=True)(double)(values)
    assert np.array_equal(values, [2, 2, 2])


def test_rigid_motions_are_what_aggregation_needs() -> None:
    A, B = linear_elasticity((40, 40))
    b = np.ones(A.shape[0])
    plain = sciml.solve(sp.csr_matrix(A), b, CG(AMG(method="smoothed_aggregation")))
    near = sciml.solve(sp.csr_matrix(A), b, CG(AMG(near_nullspace=B, block=2)))
    assert int(near.stats.iterations) < 0.4 * int(plain.stats.iterations)
    with pytest.raises(sciml.InputError, match="near_nullspace must be finite vectors"):
        sciml.solve(sp.csr_matrix(A), b, CG(AMG(near_nullspace=B[:7])))


@pytest.mark.parametrize("solver", [AMG(), Multigrid(), CG(AMG()), CG(Multigrid()), MINRES(AMG())])
@pytest.mark.parametrize("shift", [0.0, 1e-17, 1e-12])
def test_set_ups_of_nearly_singular_systems_refuse_or_answer(solver: Any, shift: float) -> None:
    A = SINGULAR + shift * sp.identity(144)
    system = LinearSystem(as_map(A, (12, 12)), torch.randn(12, 12, dtype=torch.float64))
    with contextlib.suppress(sciml.InputError):
        found = sciml.solve(system, solver, throw=False)
        assert not found.status.success or float(found.residual) <= 1e-8


def test_certificates_refuse_what_is_complex() -> None:
    A, b = as_map(laplacian(9), (9, 9)), torch.ones(9, 9, dtype=torch.complex128)
    with pytest.raises(sciml.InputError, match="real right-hand side"):
        sciml.certify(torch.zeros(9, 9), LinearSystem(A, b))


@pytest.mark.parametrize("solver", [CG(AMG()), CG(Multigrid()), FCG(), MINRES(), GMRES(ILU())])
def test_a_complex_right_hand_side_of_a_real_operator(solver: Any) -> None:
    A = laplacian()
    rng = np.random.default_rng(0)
    b = rng.standard_normal((3, N * N)) + 1j * rng.standard_normal((3, N * N))
    x = scipy.sparse.linalg.splu(A.tocsc().astype(complex)).solve(b.T).T
    shape = (3, N, N)
    found = sciml.solve(LinearSystem(as_map(A, (N, N)), torch.from_numpy(b).reshape(shape)), solver)
    assert np.abs(found.value.numpy().reshape(3, -1) - x).max() < 1e-5 * np.abs(x).max()


def test_the_certificate_looks_at_a_large_coarsest_level() -> None:
    # An odd ring is not coarsened.
    n = 1301
    ring = sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n)).tolil()
    ring[0, n - 1] = ring[n - 1, 0] = -1.0
    right = torch.linspace(-1, 1, n, dtype=torch.float64)
    for shift, sound in ((1e-3, True), (-1e-3, False), (0.0, True)):
        matrix = SparseMatrix(sp.csr_matrix(ring + shift * sp.identity(n)), definite=True)
        system = LinearSystem(as_map(matrix, (n,)), right)
        if sound:
            assert float(sciml.certify(torch.zeros(n), system).upper) > 0
            continue
        with pytest.raises(sciml.InputError, match="not positive"):
            sciml.certify(torch.zeros(n), system)
