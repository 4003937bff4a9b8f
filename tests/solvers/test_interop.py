"""Other people's programs: their matrices read, our preconditioners in their methods, and back."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyamg
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sciml
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil, box_offsets, cross_offsets, stencil_of
from sciml.core.errors import InputError, SolveError
from sciml.solvers import AMG, CG, FCG, GMRES, MINRES, Auto, Jacobi, Multigrid
from sciml.solvers.linear.foreign import as_map
from sciml.solvers.linear.safeguard import as_preconditioner

ROOT = Path(__file__).resolve().parents[2]
N = 16


def second_difference(n: int) -> sp.csr_matrix:
    return sp.diags([-1.0, 2.0, -1.0], [-1, 0, 1], shape=(n, n)).tocsr()


def uneven(n: int = N, seed: int = 0) -> sp.csr_matrix:
    """A symmetric definite five-point matrix with jumps, as a SciPy program might build it."""
    T, k = second_difference(n), 10.0 ** np.random.default_rng(seed).uniform(0, 2, n * n)
    D = sp.diags(np.sqrt(k))
    return (D @ (sp.kron(T, sp.identity(n)) + sp.kron(sp.identity(n), T)) @ D).tocsr()


def noise(n: int = N * N, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


A, B = uneven(), noise()


# --- matrices of grids


@st.composite
def stencils(draw: Any) -> Stencil:
    dimension = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 6)) for _ in range(dimension))
    # A ring of two or three points meets itself: its matrix has other readings.
    periodic = tuple(n > 3 and draw(st.booleans()) for n in shape)
    offsets = draw(st.sampled_from([cross_offsets(dimension), box_offsets(dimension)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    constant = draw(st.booleans())
    stored = (1,) * dimension if constant else shape
    planes = torch.randn((len(offsets), *stored), generator=generator, dtype=torch.float64)
    return Stencil(planes.expand(len(offsets), *shape), offsets, periodic=periodic)


@settings(max_examples=60, deadline=None)
@given(stencils())
def test_a_stencils_matrix_is_read_back(stencil: Stencil) -> None:
    matrix = stencil.to_scipy()
    found = stencil_of(SparseMatrix(matrix), stencil.shape)
    assert found.shape == stencil.shape
    assert abs(found.to_scipy() - matrix).max() == 0
    u = torch.from_numpy(noise(stencil.size)).reshape(stencil.shape)
    assert torch.allclose(found.apply(u).flatten(), torch.from_numpy(matrix @ u.flatten().numpy()))


def test_constant_coefficients_are_stored_once() -> None:
    T = second_difference(N)
    constant = stencil_of(SparseMatrix(sp.kronsum(T, T)), (N, N))
    assert constant.coefficients.stride()[-2:] == (0, 0)
    assert len(constant.offsets) == 5 and constant.definite and not constant.nullspace
    varying = stencil_of(SparseMatrix(A), (N, N))
    assert 0 not in varying.coefficients.stride()
    nine = stencil_of(SparseMatrix(sp.kron(T, T)), (N, N))
    assert len(nine.offsets) == 9


def test_a_kernel_of_constants_is_found() -> None:
    T = second_difference(N).tolil()
    T[0, 0] = T[-1, -1] = 1
    neumann = sp.kronsum(T, T).tocsr()
    assert stencil_of(SparseMatrix(neumann), (N, N)).nullspace
    b = B - B.mean()
    solution = sciml.cg(neumann, b, M=Multigrid(), shape=(N, N))
    assert int(solution.stats.iterations) < 15
    assert np.linalg.norm(b - neumann @ solution.value.numpy()) < 2e-8 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("matrix", "shape", "words"),
    [
        (A, (N, N + 1), "272 points; the matrix has 256 rows"),
        (A, (N // 2, 2 * N), r"entry \(0, 16\) couples the points \(0, 0\) and \(0, 16\)"),
        (A, (N * N,), "not neighbours"),
        (A, (), "one to three positive integers"),
        (A, (N, -N), "positive integers"),
        (A, "ab", "positive integers"),
        (A, (16.5, 16), "positive integers"),
        (A, 256, "positive integers"),
        (sp.random(256, 256, 0.1, random_state=0), (N, N), "no stencil"),
    ],
)
def test_what_is_no_stencil_is_refused(matrix: Any, shape: Any, words: str) -> None:
    for call in (
        lambda: sciml.as_scipy(Multigrid(), matrix, shape=shape),
        lambda: sciml.as_petsc(Multigrid(), matrix, shape=shape),
        lambda: sciml.cg(matrix, B, M=Multigrid(), shape=shape),
        lambda: sciml.check_preconditioner(Multigrid(), matrix, shape=shape),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value) and caught.value.key == "shape"


def test_shape_is_for_matrices() -> None:
    stencil = stencil_of(SparseMatrix(A), (N, N))
    assert as_map(stencil, (N, N)) is stencil
    with pytest.raises(InputError, match="shape is for matrices"):
        as_map(stencil, (N * N,))


def test_multigrid_says_how_to_name_the_grid() -> None:
    with pytest.raises(InputError, match=r"shape=\(n, n\)"):
        sciml.cg(A, B, M=Multigrid())


# --- sciml.cg and sciml.fcg


@pytest.mark.parametrize(("function", "kind"), [(sciml.cg, CG), (sciml.fcg, FCG)])
@pytest.mark.parametrize("M", [None, Jacobi(), AMG()], ids=lambda m: getattr(m, "kind", "none"))
def test_cg_is_solve(function: Any, kind: Any, M: Any) -> None:
    short = function(A, B, M=M, rtol=1e-6, maxiter=500)
    full = sciml.solve(A, B, kind(preconditioner=M, rtol=1e-6, max_iterations=500))
    assert torch.equal(short.value, full.value)
    assert torch.equal(short.stats.residuals, full.stats.residuals)
    assert short.statuses == full.statuses and torch.equal(short.residual, full.residual)


def test_cg_takes_what_scipys_takes() -> None:
    ours, (theirs, info) = sciml.cg(A, B, rtol=1e-10), spl.cg(A, B, rtol=1e-10, maxiter=5000)
    assert info == 0
    assert np.allclose(ours.value.numpy(), theirs, atol=1e-7)
    jacobi = sp.diags(1 / A.diagonal()).tocsr()
    reference = sciml.cg(A, B, M=Jacobi())
    for M in (
        jacobi,
        sp.csr_array(jacobi),
        jacobi.toarray(),
        spl.aslinearoperator(jacobi),
        sciml.as_scipy(Jacobi(), A),
        Jacobi().setup(SparseMatrix(A)),
        lambda r: r / torch.from_numpy(A.diagonal()),
        lambda r: r.numpy() / A.diagonal(),
    ):
        solution = sciml.cg(A, B, M=M)
        assert solution.stats.iterations == reference.stats.iterations
        assert torch.allclose(solution.value, reference.value)
    for given_A in (A.tocoo(), A.toarray(), sp.csc_array(A), SparseMatrix(A), A.astype("f4")):
        assert torch.allclose(sciml.cg(given_A, B).value, reference.value, atol=1e-3)
    guess = reference.value.numpy()
    assert int(sciml.cg(A, B, guess, rtol=1e-6).stats.iterations) == 0
    assert int(sciml.cg(A, B[:, None], M=Jacobi()).stats.iterations) == reference.stats.iterations
    many = sciml.cg(A, np.stack([B, 2 * B]), M=Multigrid(), shape=(N, N))
    assert many.value.shape == (2, N * N)
    assert torch.allclose(many.value[0], reference.value, atol=1e-6)
    on_grid = sciml.cg(stencil_of(SparseMatrix(A), (N, N)), B.reshape(N, N))
    assert on_grid.value.shape == (N, N)


def test_pyamgs_hierarchy_serves_as_M() -> None:
    M = pyamg.ruge_stuben_solver(A).aspreconditioner()
    assert int(sciml.cg(A, B, M=M).stats.iterations) < 25


@pytest.mark.parametrize(
    ("M", "words"),
    [
        (lambda r: r + 3 * r.relu(), "not linear.*use fcg"),
        (lambda r: torch.roll(r, 1) + 3 * r, "not symmetric.*use bicgstab"),
        (lambda r: -r, "not definite.*use bicgstab"),
        (lambda r: r * torch.rand(()), "not deterministic.*use fcg"),
        (lambda r: r * torch.nan, "NaN"),
        (lambda r: r[1:], r"shape \[256\] and returned \[255\]"),
        (lambda r: None, "NoneType"),
        (lambda r: r * 1j, "complex"),
        (sp.identity(N), r"M has shape \(16, 16\)"),
        ("multigrid", "M must be"),
        (Multigrid, "instance"),
        (CG(), "no preconditioner"),
        (Jacobi().setup(SparseMatrix(sp.identity(3))), "acts on arrays"),
    ],
)
def test_cg_refuses_an_unfit_preconditioner(M: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        sciml.cg(A, B, M=M)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [CG, MINRES])
def test_untrusted_tags_are_probed(kind: Any) -> None:
    operator = SparseMatrix(A)
    M = Jacobi().setup(operator)
    M.inverse = M.inverse * torch.where(torch.arange(N * N) % 2 == 0, 1.0, -1.0)
    kind(preconditioner=M).setup(operator)  # believed: its tags say definite
    M.trusted = False
    with pytest.raises(InputError, match="not definite"):
        kind(preconditioner=M).setup(operator)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sciml.cg(A, B[1:]), "b has shape"),
        (lambda: sciml.cg(A, B, x0=B[1:]), "x0 has shape"),
        (lambda: sciml.cg(A, ["a"] * 256), "b must hold numbers"),
        (lambda: sciml.cg(A, None), "b must hold numbers"),
        (lambda: sciml.cg((1 + 1j) * A, B), "complex.*gmres"),
        (lambda: sciml.cg("A", B), "A must be"),
        (lambda: sciml.cg(A[1:], B), "square"),
        (lambda: sciml.cg(A * np.nan, B), "NaN"),
        (lambda: sciml.cg(np.full((256, 256), "a"), B), "hold numbers"),
        (lambda: sciml.cg(A, 1e-200 * B), "underflow"),
        (lambda: sciml.cg(sp.triu(A), B), "gmres"),
        (lambda: sciml.cg(A - 1e5 * sp.identity(256), B), "minres"),
        (lambda: sciml.solve(A, B, CG(), initial=torch.ones(3)), "first guess"),
    ],
)
def test_senseless_systems_are_refused(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_failures_are_thrown_or_returned() -> None:
    with pytest.raises(SolveError, match="max iterations"):
        sciml.cg(A, B, maxiter=2)
    assert not sciml.cg(A, B, maxiter=2, throw=False).converged


def test_odd_precisions_are_taken() -> None:
    reference = sciml.cg(A, B).value
    for dtype in (np.longdouble, np.float32):
        assert torch.allclose(sciml.cg(A.astype(dtype), B).value, reference, atol=1e-3)
    T = second_difference(N)
    assert sciml.cg(T.astype(np.int8), np.arange(N)).converged
    assert sciml.cg(T, np.arange(N) % 2 == 0).converged


# --- falling back


def test_a_failing_preconditioner_gives_way_to_multigrid() -> None:
    grid = {"shape": (N, N)}
    expected = sciml.fcg(A, B, M=Multigrid(), **grid)
    for M, words in (
        (lambda r: r * torch.nan, "NaN"),
        (lambda r: r * 0, "zero"),
        (lambda r: -r, "descent"),
    ):
        solution = sciml.fcg(A, B, M=M, **grid)
        assert solution.stats.iterations == expected.stats.iterations
        assert torch.allclose(solution.value, expected.value, atol=1e-6)
        (note,) = solution.notes
        assert words in note and note.endswith("at step 0; multigrid took over")
    assert sciml.cg(A, B, M=Multigrid(), **grid).notes == ()


def test_without_a_grid_jacobi_takes_over() -> None:
    solution = sciml.fcg(A, B, M=lambda r: r * torch.nan)
    assert solution.stats.iterations == sciml.cg(A, B, M=Jacobi()).stats.iterations
    assert solution.notes[0].endswith("jacobi took over")


@pytest.mark.parametrize("kind", [FCG, GMRES])
def test_slow_ones_are_replaced_and_quick_ones_kept(kind: Any) -> None:
    operator, right = as_map(A, (N, N)), torch.from_numpy(B).reshape(N, N)
    cycle = Multigrid().setup(operator)

    class Bent(type(cycle)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.__dict__.update(cycle.__dict__)
            self.linear = False

        def apply(self, u: torch.Tensor) -> torch.Tensor:
            return cycle.apply(u) * (1 + 0.5 * (u > 0))

    kept = sciml.solve(operator, right, kind(preconditioner=Bent()))
    assert kept.notes == () and int(kept.stats.iterations) < 30

    generator = torch.Generator().manual_seed(0)

    class Slow(Bent):
        def apply(self, u: torch.Tensor) -> torch.Tensor:
            wild = torch.randn(u.shape, generator=generator, dtype=torch.float64)
            return u / u.norm() + 0.05 * wild

    replaced = sciml.solve(operator, right, kind(preconditioner=Slow()))
    (note,) = replaced.notes
    assert "did not halve the residual in 20 steps" in note and "multigrid took over" in note
    step = re.search(r"at step (\d+)", note)
    assert step is not None and int(replaced.stats.iterations) - int(step[1]) < 20


def test_a_batch_falls_back_sample_by_sample() -> None:
    third = torch.arange(3)[:, None, None] == 2

    def fails_in_the_third(r: torch.Tensor) -> torch.Tensor:
        return torch.where(third, torch.nan, r)

    solution = sciml.fcg(A, np.stack([B, 0 * B, B]), M=fails_in_the_third, shape=(N, N))
    assert solution.converged.all()
    assert "in 1 of 3 samples" in solution.notes[0]
    assert solution.stats.iterations[1] == 0


def test_a_setup_serves_again_after_a_fall_back() -> None:
    fails = [True]
    operator = SparseMatrix(A)
    M = as_preconditioner(lambda r: r * torch.nan if fails[0] else r, operator)
    solver = FCG(preconditioner=M)
    state = solver.init(LinearSystem(operator, torch.from_numpy(B)))
    assert solver.run(state).notes
    fails[0] = False
    assert not solver.run(state).notes


# --- in SciPy's and PETSc's methods


def test_as_scipy_makes_multigrid_of_a_plain_matrix() -> None:
    M = sciml.as_scipy(Multigrid(), A, shape=(N, N))
    steps: list[np.ndarray] = []
    x, info = spl.cg(A, B, rtol=1e-8, M=M, callback=steps.append)
    assert info == 0 and len(steps) < 20
    assert np.linalg.norm(B - A @ x) < 2e-8 * np.linalg.norm(B)
    assert np.allclose(M @ (B + 1j * x), M @ B + 1j * (M @ x))


def test_plain_methods_get_no_nonlinear_map() -> None:
    def bent(r: torch.Tensor) -> torch.Tensor:
        return r + r.relu()

    for convert in (sciml.as_scipy, sciml.as_petsc):
        with pytest.raises(InputError, match=r"not linear.*sciml\.fcg.*flexible=True"):
            convert(bent, A)
    with pytest.raises(InputError, match="NaN"):
        sciml.as_scipy(lambda r: r * torch.nan, A)
    M = sciml.as_scipy(bent, A, flexible=True)
    x, info = spl.gcrotmk(A, B, rtol=1e-8, M=M, maxiter=500)
    assert info == 0
    assert np.linalg.norm(B - A @ x) < 2e-8 * np.linalg.norm(B)


def test_scipys_methods_are_warned_of_a_fall_back() -> None:
    M = sciml.as_scipy(lambda r: r * torch.nan, A, shape=(N, N), flexible=True)
    with pytest.warns(RuntimeWarning, match="NaN.*multigrid took over"):
        x, info = spl.cg(A, B, rtol=1e-8, M=M)
    assert info == 0
    assert np.linalg.norm(B - A @ x) < 2e-8 * np.linalg.norm(B)


class Vec:
    """As much of petsc4py's Vec as a Python preconditioner may touch; reading gives no copy."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def getArray(self, readonly: bool = False) -> np.ndarray:
        view = self._values.view()
        view.flags.writeable = not readonly
        return view

    def setArray(self, values: np.ndarray) -> None:
        assert values.shape == self._values.shape and values.dtype == self._values.dtype
        self._values[:] = values


class Mat:
    """As much of petsc4py's Mat as is read, with the rows of one of several processes."""

    def __init__(self, matrix: sp.csr_matrix, rows: slice = slice(None)) -> None:
        self.matrix, self.local = matrix, matrix[rows]

    def getValuesCSR(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.local.indptr, self.local.indices, self.local.data

    def getSize(self) -> tuple[int, int]:
        return self.matrix.shape


@pytest.mark.parametrize("given_A", [A, Mat(A)], ids=["SciPy", "PETSc"])
def test_as_petsc_speaks_petsc4pys_protocol(given_A: Any) -> None:
    context = sciml.as_petsc(Multigrid(), given_A, shape=(N, N))
    x, y = Vec(B.copy()), Vec(np.zeros_like(B))
    assert context.apply(None, x, y) is None
    assert np.array_equal(x.getArray(), B)
    assert np.array_equal(y.getArray(), sciml.as_scipy(Multigrid(), A, shape=(N, N)) @ B)
    z = Vec(np.zeros_like(B))
    context.applyTranspose(None, x, z)
    assert np.allclose(z.getArray(), y.getArray(), rtol=1e-4)


def test_as_petsc_refuses_what_it_cannot_take() -> None:
    with pytest.raises(InputError, match="several processes"):
        sciml.as_petsc(Jacobi(), Mat(A, slice(0, 100)))
    with pytest.raises(InputError, match="as_petsc needs a preconditioner"):
        sciml.as_petsc(None, A)


@pytest.mark.skipif(importlib.util.find_spec("petsc4py") is None, reason="needs petsc4py")
@pytest.mark.parametrize("method", ["cg", "fcg", "gmres"])
def test_as_petsc_in_petscs_own_methods(method: str) -> None:
    from petsc4py import PETSc

    matrix = PETSc.Mat().createAIJ(size=A.shape, csr=(A.indptr, A.indices, A.data))
    matrix.assemble()
    x, b = matrix.createVecs()
    b.setArray(B)
    ksp = PETSc.KSP().create()
    ksp.setType(method)
    context = sciml.as_petsc(Multigrid(), matrix, shape=(N, N))
    ksp.setPC(PETSc.PC().createPython(context))
    ksp.setOperators(matrix)
    ksp.setTolerances(rtol=1e-9)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0 and ksp.getIterationNumber() < 20
    ksp.destroy()
    # gmres stops by the preconditioned residual.
    assert np.linalg.norm(B - A @ x.getArray()) < 1e-5 * np.linalg.norm(B)


def test_sciml_needs_no_petsc4py() -> None:
    code = (
        "import sys; sys.modules['petsc4py'] = None\n"
        "import sciml, scipy.sparse as sp\n"
        "sciml.as_petsc(sciml.solvers.Jacobi(), sp.identity(4).tocsr())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the check


def test_check_preconditioner_takes_batches_and_small_systems() -> None:
    T = stencil_of(SparseMatrix(second_difference(4)), (4,))
    batch = Stencil(
        T.coefficients.expand(3, *T.coefficients.shape), T.offsets, symmetric=True, definite=True
    )
    assert sciml.check_preconditioner(Jacobi(), batch).suits[0] == "cg"
    for n in (1, 2, 3):
        report = sciml.check_preconditioner(Jacobi(), second_difference(n) if n > 1 else sp.eye(1))
        assert report.definite and report.symmetric
    broken = sciml.check_preconditioner(lambda r: r * torch.nan, T)
    assert broken.suits == () and "NaN" in str(broken)


def test_auto_solves_a_matrix_on_its_grid() -> None:
    solution = sciml.solve(stencil_of(SparseMatrix(A), (N, N)), B.reshape(N, N), Auto())
    assert solution.converged


# --- a thousand misuses (benchmarks/adversarial_preconditioners.py), some hundred of them here


def adversary() -> types.ModuleType:
    path = ROOT / "benchmarks" / "adversarial_preconditioners.py"
    spec = importlib.util.spec_from_file_location("adversarial_preconditioners", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ADVERSARY = adversary()


@pytest.mark.parametrize("seed", range(200))
def test_misuse_ends_in_the_right_answer_or_a_typed_failure(seed: int) -> None:
    use = ADVERSARY.use(seed)
    assert use.outcome in (("right",) if use.must_succeed else ("right", "typed")), use


def test_the_adversary_knows_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = {"SciPy cg": lambda given, name, rng: (True, np.zeros(given.matrix.shape[1]))}
    monkeypatch.setattr(ADVERSARY, "METHODS", liar)
    monkeypatch.setattr(ADVERSARY, "SYSTEMS", ("definite",))
    assert ADVERSARY.use(0).outcome == "wrong"
