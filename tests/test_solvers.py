"""Conformance of every linear solver, and each Krylov method against SciPy's own."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pyamg.krylov
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sciml
from sciml import Status, solvers
from sciml.app.coefficients import FIELD_TYPES
from sciml.app.read import solver_classes
from sciml.app.schema import adapter
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError, SolveError
from sciml.solvers.auto import choose
from sciml.solvers.linear.inverse import matrices

torch.set_num_threads(1)


def diffusion(
    shape: tuple[int, ...],
    *,
    batch: tuple[int, ...] = (),
    contrast: float = 100.0,
    seed: int = 0,
    neumann: bool = False,
    advection: float = 0.0,
    shift: float = 0.0,
    definite: bool | None = None,
) -> Stencil:
    """-div(K grad u) + advection u_x - shift u with random K on faces, Dirichlet or Neumann."""
    generator = torch.Generator().manual_seed(seed)
    dimension = len(shape)
    centre = torch.full((*batch, *shape), -shift, dtype=torch.float64)
    arms = []
    for axis in range(dimension):
        wide = (*batch, *(n + (a == axis) for a, n in enumerate(shape)))
        K = contrast ** torch.rand(wide, generator=generator, dtype=torch.float64)
        if neumann:
            for place in (0, shape[axis]):
                K.select(axis - dimension, place).zero_()
        low = K.narrow(axis - dimension, 0, shape[axis])
        high = K.narrow(axis - dimension, 1, shape[axis])
        upwind = advection if axis == 0 else 0.0
        centre = centre + low + high + upwind
        arms += [-low - upwind, -high]
    return Stencil(
        torch.stack([centre, *arms], dim=-dimension - 1),
        cross_offsets(dimension),
        symmetric=advection == 0,
        definite=(advection == 0 and shift == 0) if definite is None else definite,
        nullspace=neumann,
    )


def random_definite(n: int, seed: int = 0) -> SparseMatrix:
    generator = np.random.default_rng(seed)
    half = scipy.sparse.random(n, n, density=5 / n, random_state=generator)
    return SparseMatrix(half @ half.T + scipy.sparse.identity(n))


def right_side(A: LinearMap, seed: int = 1) -> torch.Tensor:
    """A random right-hand side in the range of A."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*A.batch, *A.shape, generator=generator, dtype=torch.float64)
    return A.apply(x)


def exact(A: LinearMap, b: torch.Tensor) -> np.ndarray:
    """SciPy's direct answer; of zero mean by least squares where A is singular."""
    rows = []
    for matrix, right in zip(matrices(A), b.reshape(-1, A.size).numpy(), strict=True):
        if A.nullspace:
            x = np.linalg.lstsq(matrix.toarray(), right, rcond=1e-12)[0]
            rows.append(x - x.mean())
        else:
            rows.append(scipy.sparse.linalg.spsolve(matrix.tocsc(), right))
    return np.stack(rows).reshape(b.shape)


DEFINITE = {
    "1d": lambda: diffusion((40,)),
    "2d": lambda: diffusion((17, 14)),
    "3d": lambda: diffusion((7, 6, 8)),
    "constant": lambda: diffusion((15, 18), contrast=1.0),
    "singular": lambda: diffusion((12, 13), neumann=True),
    "matrix": lambda: random_definite(150),
    "batch": lambda: diffusion((9, 11), batch=(3,)),
    "batch of batches": lambda: diffusion((8, 7), batch=(2, 2)),
}
INDEFINITE = {
    "helmholtz": lambda: diffusion((12, 12), contrast=1.0, shift=0.3),
    "helmholtz batch": lambda: diffusion((9, 8), contrast=3.0, batch=(2,), shift=0.7),
}
NONSYMMETRIC = {
    "convection": lambda: diffusion((14, 13), advection=20.0),
    "convection batch": lambda: diffusion((8, 9), advection=5.0, batch=(3,)),
}
SYSTEMS = {**DEFINITE, **INDEFINITE, **NONSYMMETRIC}

FOR_DEFINITE = [
    solvers.Direct(),
    solvers.CG(),
    solvers.CG(preconditioner=solvers.Jacobi()),
    solvers.CG(preconditioner=solvers.AMG()),
    solvers.FCG(preconditioner=solvers.AMG()),
    solvers.MINRES(preconditioner=solvers.Direct()),
    solvers.AMG(),
    solvers.AMG(method="smoothed_aggregation"),
    solvers.Auto(),
]
FOR_STENCILS = [
    solvers.Multigrid(),
    solvers.CG(preconditioner=solvers.Multigrid()),
    solvers.FCG(preconditioner=solvers.Multigrid()),
]
FOR_SYMMETRIC = [solvers.MINRES(), solvers.MINRES(max_iterations=5000, rtol=1e-10)]
FOR_ANY = [
    solvers.Direct(),
    solvers.BiCGStab(preconditioner=solvers.Direct()),
    solvers.GMRES(),
    solvers.GMRES(preconditioner=solvers.Direct(), restart=5),
    solvers.Auto(),
]
FOR_NONSYMMETRIC = [solvers.BiCGStab(), solvers.GMRES(preconditioner=solvers.AMG())]


def _cases() -> list[Any]:
    pairs = [(s, name) for s in FOR_DEFINITE + FOR_SYMMETRIC + FOR_ANY for name in DEFINITE]
    pairs += [(s, name) for s in FOR_STENCILS for name in DEFINITE if name != "matrix"]
    pairs += [(s, name) for s in FOR_SYMMETRIC + FOR_ANY for name in INDEFINITE]
    pairs += [(s, name) for s in FOR_ANY + FOR_NONSYMMETRIC for name in NONSYMMETRIC]
    return [pytest.param(s, n, id=f"{_name(s)}-{n}") for s, n in pairs]


def _name(solver: Any) -> str:
    inner = getattr(solver, "preconditioner", None)
    return solver.kind + (f"+{inner.kind}" if inner else "")


@pytest.mark.parametrize(("solver", "name"), _cases())
def test_conformance(solver: Any, name: str) -> None:
    A = SYSTEMS[name]()
    b = right_side(A)
    solution = sciml.solve(A, b, solver)
    lead = A.batch
    assert solution.value.dtype == torch.float64
    assert solution.residual.shape == lead
    assert solution.stats.iterations.shape == lead
    assert solution.stats.residuals.shape[1:] == lead
    assert len(solution.statuses) == max(1, int(np.prod(lead)))
    assert bool(torch.as_tensor(solution.converged).all())
    # The residual is the true one: recomputed here with SciPy's own matrix.
    flat = zip(
        matrices(A),
        solution.value.reshape(-1, A.size).numpy(),
        b.reshape(-1, A.size).numpy(),
        strict=True,
    )
    for (matrix, x, right), found in zip(flat, solution.residual.flatten().tolist(), strict=True):
        recomputed = np.linalg.norm(right - matrix @ x) / np.linalg.norm(right)
        assert found == pytest.approx(recomputed, rel=1e-3, abs=1e-14)
        assert recomputed <= 1.01 * (solver.rtol or 1e-8)
    truth = exact(A, b)
    assert np.abs(solution.value.numpy() - truth).max() <= 1e-3 * np.abs(truth).max()
    if A.nullspace:
        assert abs(float(solution.value.mean())) < 1e-12


@pytest.mark.parametrize(
    "solver",
    [
        solvers.Direct(),
        solvers.CG(),
        solvers.CG(preconditioner=solvers.AMG()),
        solvers.FCG(preconditioner=solvers.Jacobi()),
        solvers.MINRES(),
        solvers.BiCGStab(preconditioner=solvers.Jacobi()),
        solvers.GMRES(restart=7),
        solvers.AMG(),
    ],
    ids=_name,
)
def test_a_batch_equals_a_loop(solver: Any) -> None:
    A = diffusion((9, 8), batch=(3,), contrast=300.0)
    b = right_side(A) * torch.tensor([1.0, 0.0, 1e5], dtype=torch.float64)[:, None, None]
    together = sciml.solve(A, b, solver)
    assert int(together.stats.iterations[1]) == 0
    for i in range(3):
        one = Stencil(A.coefficients[i], A.offsets, symmetric=True, definite=True)
        alone = sciml.solve(one, b[i], solver)
        scale = max(1.0, float(alone.value.abs().max()))
        assert torch.allclose(together.value[i], alone.value, rtol=0, atol=1e-6 * scale)
        assert abs(int(together.stats.iterations[i]) - int(alone.stats.iterations)) <= 1


@pytest.mark.parametrize("solver", [solvers.CG(), solvers.Direct(), solvers.GMRES()], ids=_name)
def test_one_operator_takes_many_right_hand_sides(solver: Any) -> None:
    A = diffusion((8, 9))
    b = torch.stack([right_side(A, seed) for seed in range(4)])
    state = sciml.init(LinearSystem(A, b[0]), solver)
    answer = solver.run(state, b=b)
    for i in range(4):
        assert np.allclose(answer.value[i].numpy(), exact(A, b[i]), atol=1e-5)


# --- against SciPy's own methods, iterate by iterate


@pytest.mark.parametrize("preconditioned", [False, True])
def test_cg_counts_as_scipy(preconditioned: bool) -> None:
    A = diffusion((20, 21))
    b = right_side(A)
    M = solvers.Jacobi() if preconditioned else None
    steps: list[int] = []
    scipy.sparse.linalg.cg(
        A.to_scipy(),
        b.flatten().numpy(),
        rtol=1e-8,
        maxiter=5000,
        M=sciml.as_scipy(M, A) if M else None,
        callback=lambda x: steps.append(1),
    )
    ours = sciml.solve(A, b, solvers.CG(preconditioner=M))
    assert abs(int(ours.stats.iterations) - len(steps)) <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 8, 15])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("method", ["minres", "bicgstab", "gmres", "cg"])
def test_iterates_equal_scipys(method: str, preconditioned: bool, count: int) -> None:
    indefinite = method == "minres"
    if method in ("bicgstab", "gmres"):
        A = diffusion((9, 10), advection=10.0)
    else:
        # A shift keeps it indefinite; Jacobi needs the diagonal positive all the same.
        A = diffusion((9, 10), contrast=4.0, shift=1.5 if indefinite else 0.0)
    b = right_side(A)
    M = solvers.Jacobi() if preconditioned else None
    theirs = sciml.as_scipy(M, A) if M else None
    matrix, right = A.to_scipy(), b.flatten().numpy()
    if method == "gmres":
        # SciPy preconditions from the left, so the reference is built on A M itself.
        inverse = scipy.sparse.diags(1 / matrix.diagonal()) if M else scipy.sparse.identity(90)
        y, _ = scipy.sparse.linalg.gmres(
            matrix @ inverse, right, rtol=1e-14, restart=count, maxiter=1
        )
        x = inverse @ y
    else:
        solve = getattr(scipy.sparse.linalg, method)
        x, _ = solve(matrix, right, rtol=1e-14, maxiter=count, M=theirs)
    kinds = {
        "minres": solvers.MINRES,
        "bicgstab": solvers.BiCGStab,
        "gmres": solvers.GMRES,
        "cg": solvers.CG,
    }
    solver = kinds[method](preconditioner=M, rtol=1e-14, max_iterations=count)
    ours = sciml.solve(A, b, solver, throw=False)
    assert int(ours.stats.iterations) == count
    assert np.allclose(ours.value.flatten().numpy(), x, rtol=0, atol=1e-7 * np.abs(x).max())


@pytest.mark.parametrize(
    "solver", [solvers.MINRES(), solvers.GMRES(), solvers.GMRES(restart=4)], ids=_name
)
def test_minimal_residuals_never_rise(solver: Any) -> None:
    A = diffusion((12, 12), contrast=1.0, shift=0.3)
    history = sciml.solve(A, right_side(A), solver, throw=False).stats.residuals
    assert len(history) > 10
    assert bool((history[1:] <= history[:-1] * (1 + 1e-9)).all())


def test_recorded_residuals_are_true() -> None:
    A = diffusion((10, 11))
    b = right_side(A)
    solvers_at = [solvers.CG, solvers.FCG, solvers.MINRES, solvers.BiCGStab, solvers.GMRES]
    for kind in solvers_at:
        solver = kind(preconditioner=solvers.Jacobi(), max_iterations=9)
        solution = sciml.solve(A, b, solver, throw=False)
        last = float(solution.stats.residuals[-1])
        assert float(solution.residual) == pytest.approx(last, rel=1e-6)


# --- flexible methods and refusals


class Curved(LinearMap):
    """A nonlinear preconditioner: the cycle of another, scaled by a function of its input."""

    def __init__(self, inner: LinearMap) -> None:
        self.inner, self.linear = inner, False
        self.shape, self.batch = inner.shape, inner.batch
        self.dtype, self.device = inner.dtype, inner.device
        self.symmetric, self.definite, self.nullspace = False, False, False

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        z = self.inner.apply(u)
        return z + 0.3 * z.abs() * torch.sin(1e3 * u / u.norm())

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def diagonal(self) -> torch.Tensor:
        raise NotImplementedError

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [solvers.FCG, solvers.GMRES])
def test_flexible_methods_take_a_nonlinear_preconditioner(kind: Any) -> None:
    A = diffusion((20, 20))
    b = right_side(A)
    plain = sciml.solve(A, b, kind())
    curved = sciml.solve(A, b, kind(preconditioner=Curved(solvers.AMG().setup(A))))
    assert np.allclose(curved.value.numpy(), exact(A, b), atol=1e-4)
    assert int(curved.stats.iterations) < 0.5 * int(plain.stats.iterations)


def test_fcg_with_a_fixed_preconditioner_is_cg() -> None:
    A = diffusion((16, 15))
    b = right_side(A)
    M = solvers.AMG()
    ours = sciml.solve(A, b, solvers.FCG(preconditioner=M))
    reference = sciml.solve(A, b, solvers.CG(preconditioner=M))
    assert torch.equal(ours.stats.iterations, reference.stats.iterations)
    assert torch.allclose(ours.stats.residuals, reference.stats.residuals, rtol=1e-4, atol=1e-12)


def _map(symmetric: bool, definite: bool) -> Any:
    A = diffusion((6, 6))
    A.symmetric, A.definite = symmetric, definite
    return A


@pytest.mark.parametrize(
    ("solver", "A", "advice"),
    [
        (solvers.CG(), _map(False, False), "gmres"),
        (solvers.CG(), _map(True, False), "minres"),
        (solvers.FCG(), _map(True, False), "minres"),
        (solvers.MINRES(), _map(False, False), "gmres"),
        (solvers.CG(Curved(diffusion((6, 6)))), diffusion((6, 6)), "fcg"),  # type: ignore[arg-type]
        (solvers.CG(_map(False, False)), diffusion((6, 6)), "gmres"),
        (solvers.CG(_map(True, False)), diffusion((6, 6)), "gmres"),
        (solvers.MINRES(_map(True, False)), diffusion((6, 6)), "gmres"),
        (solvers.BiCGStab(Curved(diffusion((6, 6)))), diffusion((6, 6)), "gmres"),  # type: ignore[arg-type]
        (solvers.CG(solvers.CG()), diffusion((6, 6)), "multigrid"),  # type: ignore[arg-type]
        (solvers.CG(solvers.AMG), diffusion((6, 6)), "instance"),  # type: ignore[arg-type]
    ],
)
def test_broken_assumptions_are_refused_by_name(solver: Any, A: Any, advice: str) -> None:
    with pytest.raises(InputError, match=f"{solver.kind}|preconditioner") as caught:
        solver.setup(A)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: solvers.CG(rtol=0.0),
        lambda: solvers.Direct(rtol=2.0),
        lambda: solvers.GMRES(max_iterations=0),
        lambda: solvers.GMRES(restart=0),
        lambda: solvers.FCG(directions=0),
        lambda: solvers.AMG(rtol=float("nan")),
    ],
)
def test_senseless_options_are_refused(make: Any) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key is not None


@pytest.mark.parametrize("shape", [(5,), (6, 5), (3, 6, 6, 6)])
def test_a_misshapen_right_hand_side_is_refused(shape: tuple[int, ...]) -> None:
    A = diffusion((6, 6), batch=(2,))
    with pytest.raises(InputError, match="right-hand side"):
        sciml.solve(A, torch.ones(shape), solvers.CG())


# --- every status is reached

KRYLOV = [solvers.CG, solvers.FCG, solvers.MINRES, solvers.BiCGStab, solvers.GMRES]
ITERATIVE = [*KRYLOV, solvers.AMG]


@pytest.mark.parametrize("kind", ITERATIVE)
def test_max_iterations_is_reported(kind: Any) -> None:
    A = diffusion((20, 20), batch=(2,))
    b = right_side(A)
    b[1] = 0
    solution = sciml.solve(A, b, kind(max_iterations=1, rtol=1e-12), throw=False)
    assert solution.statuses == (Status.MAX_ITERATIONS, Status.CONVERGED)
    assert solution.stats.iterations.tolist() == [1, 0]
    with pytest.raises(SolveError, match="max iterations"):
        sciml.solve(A, b, kind(max_iterations=1, rtol=1e-12))


@pytest.mark.parametrize("kind", [*ITERATIVE, solvers.Direct])
def test_nan_stays_in_its_sample(kind: Any) -> None:
    A = diffusion((9, 9), batch=(2,))
    b = right_side(A)
    b[0, 3, 3] = torch.nan
    solution = sciml.solve(A, b, kind(), throw=False)
    assert solution.statuses == (Status.NOT_FINITE, Status.CONVERGED)
    assert np.allclose(solution.value[1].numpy(), exact(A, b)[1], atol=1e-4)


def test_nan_from_a_preconditioner_is_reported() -> None:
    A = diffusion((9, 9))
    M = solvers.Jacobi().setup(A)
    M.inverse[2, 2] = torch.nan
    for kind in KRYLOV:
        solution = sciml.solve(A, right_side(A), kind(preconditioner=M), throw=False)
        assert solution.status is Status.NOT_FINITE, kind


@pytest.mark.parametrize("kind", [solvers.CG, solvers.FCG])
def test_negative_curvature_is_reported(kind: Any) -> None:
    A = diffusion((12, 12), contrast=1.0, shift=3.0, definite=True)
    solution = sciml.solve(A, right_side(A), kind(), throw=False)
    assert solution.status is Status.INDEFINITE_OPERATOR


@pytest.mark.parametrize("kind", [solvers.CG, solvers.FCG, solvers.MINRES])
def test_an_indefinite_preconditioner_is_reported(kind: Any) -> None:
    A = diffusion((9, 9))
    M = solvers.Jacobi().setup(A)
    M.inverse = -M.inverse
    solution = sciml.solve(A, right_side(A), kind(preconditioner=M), throw=False)
    assert solution.status is Status.INDEFINITE_PRECONDITIONER


@pytest.mark.parametrize("kind", ITERATIVE)
def test_a_tolerance_below_precision_stagnates(kind: Any) -> None:
    A = diffusion((9, 9))
    solution = sciml.solve(A, right_side(A), kind(rtol=1e-25), throw=False)
    assert solution.status in (Status.STAGNATED, Status.BREAKDOWN)
    assert float(solution.residual) < 1e-12


def test_breakdowns_are_reported() -> None:
    rotation = SparseMatrix(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    b = torch.tensor([1.0, 0.0])
    assert sciml.solve(rotation, b, solvers.BiCGStab(), throw=False).status is Status.BREAKDOWN
    assert sciml.solve(rotation, b, solvers.GMRES()).converged
    nilpotent = SparseMatrix(np.array([[0.0, 1.0], [0.0, 0.0]]))
    # The answer (0, 1) is there, but A b = 0; for the other right-hand side there is none.
    solution = sciml.solve(nilpotent, b, solvers.GMRES(), throw=False)
    assert solution.status is Status.BREAKDOWN
    assert bool(torch.isfinite(solution.value).all())
    solution = sciml.solve(nilpotent, torch.tensor([0.0, 1.0]), solvers.GMRES(), throw=False)
    assert solution.status is Status.INCOMPATIBLE
    assert bool(torch.isfinite(solution.value).all())


def test_divergence_is_reported() -> None:
    A = diffusion((9, 9), shift=150.0)
    solution = sciml.solve(A, right_side(A), solvers.AMG(), throw=False)
    assert solution.status is Status.DIVERGED


def test_an_incompatible_singular_system_is_not_called_solved() -> None:
    A = diffusion((9, 9), neumann=True)
    b = right_side(A)
    b = b / b.norm()
    defect = 0.01
    for solver in (solvers.CG(), solvers.MINRES(), solvers.Direct()):
        solution = sciml.solve(A, b + defect / 9, solver, throw=False)
        assert not solution.status.success
        assert float(solution.residual) == pytest.approx(defect / np.hypot(1, defect), rel=1e-3)


def test_the_residual_is_replaced_where_it_drifts() -> None:
    # A huge initial guess costs the recursion its digits; only a restart regains them.
    A = diffusion((12, 12), contrast=1e4)
    b = right_side(A)
    generator = torch.Generator().manual_seed(3)
    far = 1e9 * torch.randn(A.shape, generator=generator, dtype=torch.float64)
    solution = sciml.solve(A, b, solvers.CG(rtol=1e-9), initial=far)
    assert float(solution.residual) <= 1.01e-9


def test_an_exact_first_guess_needs_no_iteration() -> None:
    A = diffusion((9, 9))
    b = right_side(A)
    guess = torch.from_numpy(exact(A, b))
    for kind in ITERATIVE:
        assert int(sciml.solve(A, b, kind(), initial=guess).stats.iterations) == 0


def test_progress_is_called_once_per_iteration() -> None:
    A = diffusion((9, 9))
    for kind in ITERATIVE:
        calls: list[tuple[int, float]] = []
        solution = sciml.solve(
            A, right_side(A), kind(), progress=lambda k, r, calls=calls: calls.append((k, r))
        )
        assert [k for k, _ in calls] == list(range(1, int(solution.stats.iterations) + 1))
        assert all(r > 0 for _, r in calls)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    exponent=st.floats(0, 3),
    kind=st.sampled_from(KRYLOV),
)
def test_krylov_methods_end_within_the_dimension(
    n: int, seed: int, exponent: float, kind: Any
) -> None:
    generator = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(generator.standard_normal((n, n)))
    matrix = (Q * 10 ** (exponent * generator.random(n))) @ Q.T
    A = SparseMatrix((matrix + matrix.T) / 2, definite=True)
    b = torch.from_numpy(generator.standard_normal(n))
    solution = sciml.solve(A, b, kind(rtol=1e-6), throw=False)
    assert solution.converged
    # Finite termination, with some room for rounding.
    assert int(solution.stats.iterations) <= 2 * n + 2


# --- direct


def test_direct_names_a_singular_matrix() -> None:
    A = SparseMatrix(scipy.sparse.diags([1.0, 0.0, 2.0]))
    with pytest.raises(InputError, match="singular"):
        solvers.Direct().setup(A)


def test_direct_names_a_nan_in_the_matrix() -> None:
    A = diffusion((5, 5))
    A.coefficients[0, 2, 2] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        solvers.Direct().setup(A)


def test_direct_takes_cholmod_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    factored: list[Any] = []

    def cholesky(matrix: Any) -> Any:
        factored.append(matrix)
        return scipy.sparse.linalg.splu(matrix).solve

    module = types.ModuleType("sksparse.cholmod")
    module.cholesky = cholesky  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sksparse", types.ModuleType("sksparse"))
    monkeypatch.setitem(sys.modules, "sksparse.cholmod", module)
    A = diffusion((6, 6))
    b = right_side(A)
    assert np.allclose(sciml.solve(A, b, solvers.Direct()).value.numpy(), exact(A, b))
    assert len(factored) == 1
    solvers.Direct().setup(diffusion((6, 6), advection=1.0))
    assert len(factored) == 1


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-9, 0.0])
def test_direct_keeps_small_pivots_off_the_diagonal(size: float) -> None:
    generator = np.random.default_rng(0)
    pattern = scipy.sparse.random(300, 300, 0.02, random_state=generator)
    A = scipy.sparse.csr_matrix(pattern + pattern.T)
    A.data = generator.standard_normal(A.nnz)
    every = np.ones(300)
    every[::5] = size  # some of the diagonal is small, or none
    A = scipy.sparse.csr_matrix(A - scipy.sparse.diags(A.diagonal()) + scipy.sparse.diags(every))
    b = torch.from_numpy(generator.standard_normal(300))
    found = solvers.Direct().setup(SparseMatrix(A)).apply(b).numpy()
    truth = np.linalg.solve(A.toarray(), b.numpy())
    assert np.linalg.norm(found - truth) < 1e-8 * np.linalg.norm(truth)


# --- preconditioners as maps, and in other people's methods

MAPS = [
    solvers.Jacobi(),
    solvers.Direct(),
    solvers.AMG(),
    solvers.AMG(method="smoothed_aggregation"),
    solvers.Multigrid(),
]


@pytest.mark.parametrize("M", MAPS, ids=lambda m: m.kind)
@pytest.mark.parametrize("neumann", [False, True])
def test_preconditioners_keep_their_tags(M: Any, neumann: bool) -> None:
    A = diffusion((9, 8), neumann=neumann)
    report = sciml.check_preconditioner(M, A)
    assert report.linear and report.symmetric and report.definite and report.deterministic
    prepared = M.setup(A)
    assert prepared.symmetric and prepared.definite and prepared.linear
    dense = prepared.to_scipy().toarray()
    diagonal = prepared.diagonal().flatten().numpy()
    assert np.allclose(dense.diagonal(), diagonal, rtol=1e-4)
    precision = 1e-5 if isinstance(M, solvers.Multigrid) else 1e-10  # its cycle is in float32
    assert np.allclose(dense, dense.T, rtol=0, atol=precision * np.abs(dense).max())


@pytest.mark.parametrize("M", [solvers.Jacobi(), solvers.Direct()], ids=lambda m: m.kind)
def test_adjoints_of_nonsymmetric_inverses(M: Any) -> None:
    A = diffusion((7, 8), advection=8.0, batch=(2,))
    B = M.setup(A)
    u, v = right_side(A, 5), right_side(A, 6)
    left, right = (B.apply(u) * v).sum((1, 2)), (u * B.adjoint(v)).sum((1, 2))
    assert torch.allclose(left, right, rtol=1e-10)
    diagonal = B.diagonal()
    assert diagonal.shape == (2, 7, 8)
    one = Stencil(A.coefficients[1], A.offsets)
    assert np.allclose(diagonal[1].flatten().numpy(), M.setup(one).to_scipy().diagonal())


def test_check_preconditioner_finds_what_is_wrong() -> None:
    A = diffusion((10, 10))
    inner = solvers.Direct().setup(A)
    curved = sciml.check_preconditioner(Curved(inner), A)
    assert not curved.linear and curved.suits == ("fcg", "gmres")
    # Forward Gauss-Seidel is linear but not symmetric.
    lower = scipy.sparse.tril(A.to_scipy()).tocsr()
    forward = scipy.sparse.linalg.LinearOperator(
        lower.shape, matvec=lambda r: scipy.sparse.linalg.spsolve_triangular(lower, r)
    )
    nonsymmetric = sciml.check_preconditioner(forward, A)
    assert nonsymmetric.linear and not nonsymmetric.symmetric
    negative = sciml.check_preconditioner(lambda r: -inner.apply(r), A)
    assert negative.symmetric and not negative.definite and negative.suits == ("bicgstab", "gmres")
    noise = torch.Generator().manual_seed(0)
    random = sciml.check_preconditioner(
        lambda r: r + 1e-3 * torch.randn(r.shape, generator=noise, dtype=r.dtype), A
    )
    assert not random.deterministic
    single = sciml.check_preconditioner(lambda r: inner.apply(r).float(), A)
    assert single.linear and single.symmetric and single.definite
    assert "suits cg" in str(single)


@pytest.mark.parametrize("M", MAPS, ids=lambda m: m.kind)
def test_as_scipy_serves_scipy_and_pyamg(M: Any) -> None:
    A = diffusion((20, 20), contrast=1000.0)
    matrix, right = A.to_scipy(), right_side(A).flatten().numpy()
    needs_stencil = isinstance(M, solvers.Multigrid)
    for given_A in (A, LinearSystem(A, right_side(A)), A if needs_stencil else matrix):
        operator = sciml.as_scipy(M, given_A)
        assert operator.shape == matrix.shape and operator.dtype == np.float64
        steps: list[np.ndarray] = []
        x, info = scipy.sparse.linalg.cg(
            matrix, right, rtol=1e-8, maxiter=300, M=operator, callback=steps.append
        )
        assert info == 0
        assert np.linalg.norm(right - matrix @ x) <= 1e-7 * np.linalg.norm(right)
        ours = sciml.solve(A, right_side(A), solvers.CG(preconditioner=M))
        assert abs(len(steps) - int(ours.stats.iterations)) <= 1
    y, info = pyamg.krylov.cg(matrix, right, tol=1e-8, maxiter=300, M=sciml.as_scipy(M, A))
    assert info == 0
    assert np.linalg.norm(right - matrix @ y) <= 1e-6 * np.linalg.norm(right)
    assert np.allclose(operator.rmatvec(right), operator.matvec(right), rtol=1e-4)


def test_as_scipy_refuses_what_cannot_be() -> None:
    with pytest.raises(InputError, match="batch"):
        sciml.as_scipy(solvers.Jacobi(), diffusion((5, 5), batch=(2,)))
    with pytest.raises(InputError, match="no preconditioner"):
        sciml.as_scipy(solvers.CG(), diffusion((5, 5)))
    with pytest.raises(InputError, match="LinearMap"):
        sciml.as_scipy(solvers.Jacobi(), "A")


# --- the automatic choice


@pytest.mark.parametrize(
    ("A", "kind"),
    [
        (diffusion((60, 60), contrast=1.0), "fast_poisson"),
        (diffusion((10, 10)), "direct"),
        (diffusion((3000,)), "direct"),
        (diffusion((50, 50)), "cg"),
        (diffusion((50, 50), shift=0.2), "minres"),
        (diffusion((50, 50), advection=3.0), "gmres"),
        (random_definite(2100), "cg"),
    ],
)
def test_auto_chooses_and_says_why(A: Any, kind: str) -> None:
    solver, note = choose(A, 1e-7)
    assert solver.kind == kind
    assert solver.rtol == 1e-7
    assert note.startswith(f"auto: {kind}") and ", because " in note and "\n" not in note


def test_auto_solves_and_leaves_its_note() -> None:
    A = diffusion((50, 50))
    b = right_side(A)
    solution = sciml.solve(A, b, solvers.Auto(rtol=1e-6))
    assert solution.converged
    assert solution.solver == solvers.Auto(rtol=1e-6)
    assert any(note.startswith("auto: cg with multigrid") for note in solution.notes)


# --- options as data


def test_options_are_a_pydantic_spec() -> None:
    classes = solver_classes()
    solver = adapter(solvers.CG, classes, FIELD_TYPES).validate_python(
        {"kind": "cg", "preconditioner": {"kind": "amg", "method": "smoothed_aggregation"}}
    )
    assert solver == solvers.CG(preconditioner=solvers.AMG(method="smoothed_aggregation"))
    for kind in classes:
        needed = {"path": "runs/mgno"} if kind in (solvers.Surrogate, solvers.HINTS) else {}
        read = adapter(kind, classes, FIELD_TYPES).validate_python({"kind": kind.kind, **needed})
        assert read == kind(**needed)
