"""Relaxation, incomplete factors, deflation and learned relaxation against their definitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sciml
from sciml import solvers
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.solvers.learned.learn_to_relax import ChebCB, TsallisINF, tsallis_weights
from sciml.solvers.linear.deflation import principal_directions
from sciml.solvers.linear.incomplete import factorise

torch.set_num_threads(1)


def diffusion(
    shape: tuple[int, ...], *, batch: tuple[int, ...] = (), shift: float = 0.0, wind: float = 0.0
) -> Stencil:
    """-div(K grad u) + shift u + wind u_x with random K on faces; Dirichlet."""
    generator, dimension = torch.Generator().manual_seed(0), len(shape)
    centre = torch.full((*batch, *shape), shift, dtype=torch.float64)
    arms = []
    for axis in range(dimension):
        wide = (*batch, *(n + (a == axis) for a, n in enumerate(shape)))
        K = 100 ** torch.rand(wide, generator=generator, dtype=torch.float64)
        low = K.narrow(axis - dimension, 0, shape[axis])
        high = K.narrow(axis - dimension, 1, shape[axis])
        upwind = wind if axis == 0 else 0.0
        centre = centre + low + high + upwind
        arms += [-low - upwind, -high]
    planes = torch.stack([centre, *arms], dim=-dimension - 1)
    fair = wind == 0
    return Stencil(planes, cross_offsets(dimension), symmetric=fair, definite=fair)


def poisson(n: int) -> Stencil:
    planes = torch.tensor([4.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64)[:, None, None]
    return Stencil(planes.expand(5, n, n), cross_offsets(2), symmetric=True, definite=True)


def noise(*shape: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def mesh_matrix(n: int = 60) -> SparseMatrix:
    """A random sparse symmetric positive definite matrix, no M-matrix."""
    half = scipy.sparse.random(n, n, density=4 / n, random_state=np.random.default_rng(0))
    return SparseMatrix(half @ half.T + 0.1 * scipy.sparse.identity(n))


OPERATORS = {
    "1d": lambda: diffusion((12,)),
    "2d": lambda: diffusion((6, 7)),
    "3d": lambda: diffusion((3, 4, 5)),
    "matrix": mesh_matrix,
    "wind": lambda: diffusion((6, 7), wind=30.0),
}


def count(A: LinearMap, b: torch.Tensor, solver: Any) -> int:
    return int(sciml.solve(A, b, solver).stats.iterations)


# --- successive over-relaxation


@pytest.mark.parametrize("omega", [0.4, 1.0, 1.7])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_ssor_is_its_formula(name: str, omega: float) -> None:
    A = OPERATORS[name]()
    matrix = A.to_scipy().toarray()
    D, L, U = np.diag(np.diag(matrix)), np.tril(matrix, -1), np.triu(matrix, 1)
    outer = np.linalg.inv(D / omega + U) @ D @ np.linalg.inv(D / omega + L)
    B = solvers.SSOR(omega).setup(A)
    assert np.allclose(B.to_scipy().toarray(), (2 - omega) / omega * outer, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("options", [solvers.SSOR(1.6), solvers.SOR(1.6), solvers.ILU()])
@pytest.mark.parametrize("name", list(OPERATORS))
def test_adjoints(name: str, options: Any) -> None:
    A = OPERATORS[name]()
    B = options.setup(A)
    u, v = noise(*A.shape), noise(*A.shape, seed=2)
    assert float((B.apply(u) * v).sum()) == pytest.approx(float((u * B.adjoint(v)).sum()))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 1.95), st.sampled_from(["2d", "matrix"]))
def test_ssor_is_symmetric_definite(omega: float, name: str) -> None:
    report = sciml.check_preconditioner(solvers.SSOR(omega), OPERATORS[name]())
    assert report.linear and report.symmetric and report.definite and report.deterministic


def test_sor_at_youngs_omega_has_youngs_rate() -> None:
    n = 15
    A, b = poisson(n), noise(n, n)
    best = 2 / (1 + np.sin(np.pi / (n + 1)))
    step = solvers.SOR(best).setup(A).to_scipy().toarray()
    rate = np.abs(np.linalg.eigvals(np.eye(n * n) - step @ A.to_scipy().toarray())).max()
    # The eigenvalues there are defective, so that rounding moves them by its square root.
    assert rate == pytest.approx(best - 1, abs=2e-3)
    x = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), b.flatten().numpy())
    for omega in (1.0, best):
        answer = sciml.solve(A, b, solvers.SOR(omega, rtol=1e-9))
        assert np.allclose(answer.value.flatten().numpy(), x, atol=1e-6)
    assert count(A, b, solvers.SOR(best)) < 0.25 * count(A, b, solvers.SOR(1.0))


def test_over_relaxation_pays_in_ssor_cg() -> None:
    A, b = poisson(32), noise(32, 32)
    plain, gauss, over = (
        count(A, b, solvers.CG(M)) for M in (None, solvers.SSOR(1.0), solvers.SSOR(1.75))
    )
    assert over < 0.7 * gauss < 0.5 * plain


def test_a_batch_is_relaxed_sample_by_sample() -> None:
    A = diffusion((5, 6), batch=(3,))
    u = noise(3, 5, 6)
    for options in (solvers.SSOR(1.3), solvers.IncompleteCholesky()):
        together = options.setup(A).apply(u)
        for i in range(3):
            one = Stencil(A.coefficients[i], A.offsets, symmetric=True, definite=True)
            assert torch.allclose(together[i], options.setup(one).apply(u[i]))


@pytest.mark.parametrize("omega", [0.0, 2.0, -1.0, float("nan")])
def test_omega_is_checked(omega: float) -> None:
    for kind in (solvers.SSOR, solvers.SOR):
        with pytest.raises(InputError, match="between 0 and 2"):
            kind(omega)


def test_a_zero_diagonal_is_refused() -> None:
    A = SparseMatrix(scipy.sparse.csr_matrix([[0.0, 1.0], [1.0, 0.0]]), definite=True)
    with pytest.raises(InputError, match="diagonal"):
        solvers.SSOR().setup(A)
    with pytest.raises(InputError, match="diagonal"):
        solvers.IncompleteCholesky().setup(A)


# --- incomplete factorisations


def test_incomplete_cholesky_of_a_tridiagonal_matrix_is_exact() -> None:
    A = diffusion((30,)).to_scipy()
    assert np.allclose(factorise(A).matrix().toarray(), np.linalg.cholesky(A.toarray()), rtol=1e-12)


@pytest.mark.parametrize("shape", [(6, 7), (3, 4, 5)])
def test_incomplete_cholesky_equals_the_matrix_on_its_pattern(shape: tuple[int, ...]) -> None:
    A = diffusion(shape).to_scipy()
    factor = factorise(A)
    C = factor.matrix()
    assert factor.shift == 0
    assert (C != 0).nnz == (scipy.sparse.tril(A) != 0).nnz
    gap = (C @ C.T - A).toarray()
    assert np.abs(gap[A.toarray() != 0]).max() < 1e-11
    assert np.abs(gap).max() > 1e-3


def test_incomplete_cholesky_is_symmetric_definite_and_pays() -> None:
    A, b = diffusion((20, 20)), noise(20, 20)
    report = sciml.check_preconditioner(solvers.IncompleteCholesky(), A)
    assert report.linear and report.symmetric and report.definite
    incomplete = count(A, b, solvers.CG(solvers.IncompleteCholesky()))
    assert incomplete < 0.5 * count(A, b, solvers.CG(solvers.Jacobi()))


def test_a_breakdown_is_shifted_and_said() -> None:
    # Kershaw's example (1978): definite, but IC(0) has a negative pivot.
    matrix = np.array([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]])
    assert np.linalg.eigvalsh(matrix).min() > 0
    A, b = SparseMatrix(matrix), noise(4)
    answer = sciml.solve(A, b, solvers.CG(solvers.IncompleteCholesky()))
    assert np.allclose(answer.value.numpy(), np.linalg.solve(matrix, b.numpy()), atol=1e-6)
    assert any("broke down" in note for note in answer.notes)
    assert sciml.check_preconditioner(solvers.IncompleteCholesky(), A).definite


def test_what_no_factor_suits_is_refused() -> None:
    wind = diffusion((6, 7), wind=30.0)
    with pytest.raises(InputError, match="ilu"):
        solvers.IncompleteCholesky().setup(wind)
    with pytest.raises(InputError, match="symmetric"):
        sciml.solve(poisson(5), noise(5, 5), solvers.CG(solvers.ILU()))
    b = noise(6, 7)
    assert count(wind, b, solvers.GMRES(solvers.ILU())) < 0.3 * count(wind, b, solvers.GMRES())


def test_ilu_without_dropping_is_exact() -> None:
    A = diffusion((8, 9), wind=5.0)
    B = solvers.ILU(drop=0.0, fill=100.0).setup(A)
    u = noise(8, 9)
    assert torch.allclose(A.apply(B.apply(u)), u, atol=1e-9)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{kind: ssor, omega: 1.5}", solvers.SSOR(1.5)),
        ("{kind: incomplete_cholesky}", solvers.IncompleteCholesky()),
        ("{kind: ilu, drop: 1.0e-4}", solvers.ILU(drop=1e-4)),
    ],
)
def test_preconditioners_are_named_in_a_spec(line: str, wanted: Any, tmp_path: Path) -> None:
    spec = tmp_path / "s.yaml"
    spec.write_text(
        "problem:\n  domain: {kind: box, lower: [0], upper: [1]}\n"
        "  equation: {kind: poisson, f: 1}\n"
        "  boundary: {left: {dirichlet: 0}, right: {dirichlet: 0}}\n"
        f"grid: {{shape: [9]}}\nsolver: {{kind: cg, preconditioner: {line}}}\n"
    )
    assert sciml.load_spec(spec).solver.preconditioner == wanted


# --- deflation


@pytest.mark.parametrize("inner", [None, solvers.SSOR(1.5), solvers.AMG()])
def test_deflation_is_exact_on_its_subspace(inner: Any) -> None:
    A = diffusion((8, 7))
    vectors = noise(5, 8, 7)
    D = solvers.Deflation(vectors, inner)
    B = D.setup(A)
    image = torch.stack([B.apply(A.apply(v)) for v in vectors])
    assert torch.allclose(image, vectors, atol=1e-10)
    report = sciml.check_preconditioner(D, A)
    assert report.linear and report.symmetric and report.definite
    assert (B.symmetric, B.definite, B.linear) == (True, True, True)


def test_deflating_the_lowest_modes_removes_them_from_the_spectrum() -> None:
    A = diffusion((12, 12))
    values, modes = np.linalg.eigh(A.to_scipy().toarray())
    vectors = torch.from_numpy(modes[:, :8].T.copy()).reshape(8, 12, 12)
    B = solvers.Deflation(vectors).setup(A).to_scipy().toarray()
    found = np.sort(np.linalg.eigvals(B @ A.to_scipy().toarray()).real)
    assert np.allclose(found, np.sort(np.append(np.ones(8), values[8:])), rtol=1e-8)
    b = noise(12, 12)
    deflated = sciml.solve(A, b, solvers.CG(solvers.Deflation(vectors), rtol=1e-10))  # type: ignore[arg-type]
    plain = sciml.solve(A, b, solvers.CG(rtol=1e-10))
    assert torch.allclose(deflated.value, plain.value, atol=1e-8 * float(plain.value.abs().max()))
    assert int(deflated.stats.iterations) < 0.8 * int(plain.stats.iterations)


def test_deflation_of_a_batch_is_that_of_each_sample() -> None:
    A, vectors, u = diffusion((5, 6), batch=(2,)), noise(3, 5, 6), noise(2, 5, 6)
    together = solvers.Deflation(vectors, solvers.Jacobi()).setup(A).apply(u)
    for i in range(2):
        one = Stencil(A.coefficients[i], A.offsets, symmetric=True, definite=True)
        alone = solvers.Deflation(vectors, solvers.Jacobi()).setup(one).apply(u[i])
        assert torch.allclose(together[i], alone)


def test_dependent_and_zero_vectors_do_no_harm() -> None:
    A, b = diffusion((6, 6)), noise(6, 6)
    v = noise(6, 6)
    vectors = torch.stack([v, 1e9 * v, 0 * v])
    assert len(solvers.Deflation(vectors).setup(A).basis) == 1
    assert sciml.solve(A, b, solvers.CG(solvers.Deflation(vectors))).converged  # type: ignore[arg-type]
    nothing = solvers.Deflation(0 * v[None]).setup(A)
    assert torch.allclose(nothing.apply(v), v)
    hidden = Stencil(-A.coefficients, A.offsets, symmetric=True, definite=True)
    with pytest.raises(InputError, match="not positive definite"):
        solvers.Deflation(v[None]).setup(hidden)
    with pytest.raises(InputError, match="NaN"):
        solvers.Deflation(v[None] * torch.nan).setup(A)
    with pytest.raises(InputError, match="shape"):
        solvers.Deflation(noise(2, 5)).setup(A)


def test_principal_directions_are_the_best_subspace() -> None:
    basis, _ = torch.linalg.qr(noise(40, 3))
    solutions = noise(12, 3, seed=3) @ basis.mT + 1e-6 * noise(12, 40, seed=4)
    found = principal_directions(solutions, 3)
    assert torch.allclose(found @ found.mT, torch.eye(3, dtype=torch.float64), atol=1e-12)
    missed = solutions - solutions @ found.mT @ found
    assert float(missed.norm() / solutions.norm()) < 1e-5
    assert len(principal_directions(solutions, 12, threshold=1e-4)) == 3


def test_a_sequence_of_systems_is_deflated_by_its_own_answers() -> None:
    solver, counts, bare, state = solvers.DeflatedCG(count=6), [], [], None
    shapes = noise(3, 14, 14)
    for k in range(9):
        A = diffusion((14, 14), shift=1.0 + 0.01 * k)
        b = shapes[0] + np.cos(k / 3) * shapes[1] + np.sin(k / 5) * shapes[2]
        system = LinearSystem(A, b)
        state = solver.init(system) if state is None else solver.follow(state, system)
        answer = solver.run(state)
        plain = sciml.solve(A, b, solvers.CG())
        assert answer.converged
        assert torch.allclose(answer.value, plain.value, atol=1e-6 * float(plain.value.abs().max()))
        counts.append(int(answer.stats.iterations))
        bare.append(int(plain.stats.iterations))
    assert counts[0] == bare[0]
    assert max(counts[5:]) < 0.6 * min(bare)


# --- bandits


def play(bandit: Any, costs: np.ndarray, contexts: np.ndarray | None = None) -> np.ndarray:
    """The cost of every round."""
    paid = []
    for t, row in enumerate(costs):
        arm = bandit.choose(None if contexts is None else float(contexts[t]))
        bandit.learn(row[arm])
        paid.append(row[arm])
    return np.array(paid)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=12), st.floats(0.01, 4.0))
def test_tsallis_weights_minimise_the_regularised_loss(losses: list[float], eta: float) -> None:
    L = np.array(losses)
    w = tsallis_weights(L, eta)
    assert w.sum() == pytest.approx(1, abs=1e-9) and (w > 0).all()
    # Stationary: L_i - 2 / (eta sqrt(w_i)) is the same multiplier for every arm.
    multiplier = L - 2 / (eta * np.sqrt(w))
    assert np.ptp(multiplier) <= 1e-6 * max(1.0, np.abs(multiplier).max())


def test_tsallis_inf_has_sublinear_regret_and_repeats_itself() -> None:
    random = np.random.default_rng(0)
    means = np.array([30.0, 24.0, 40.0, 33.0, 28.0])
    costs = means + random.normal(0, 2.0, (2000, 5))
    regret = np.cumsum(play(TsallisINF(5, seed=3), costs) - costs[:, 1])
    drawn = means.mean() - means[1]
    assert regret[-1] < 0.12 * drawn * 2000
    # sqrt(t) from 500 to 2000 is a factor of two; linear would be four.
    assert regret[-1] < 2.5 * regret[499]
    again = np.cumsum(play(TsallisINF(5, seed=3), costs) - costs[:, 1])
    assert (regret == again).all()


def test_tsallis_inf_does_not_care_for_scale() -> None:
    costs = np.random.default_rng(1).random((200, 4))
    one, other = TsallisINF(4, seed=1), TsallisINF(4, seed=1)
    play(one, costs)
    play(other, 512.0 * costs + 64.0)
    assert one.chosen == other.chosen


def test_chebcb_beats_every_fixed_arm() -> None:
    random = np.random.default_rng(0)
    arms = np.linspace(0, 1, 6)
    contexts = random.random(400)
    costs = 20 + 40 * np.abs(arms - contexts[:, None]) + random.normal(0, 0.5, (400, 6))
    paid = play(ChebCB(6, (0.0, 1.0), seed=2), costs, contexts)
    assert paid[100:].sum() < 0.9 * costs[100:].sum(axis=0).min()
    assert (paid == play(ChebCB(6, (0.0, 1.0), seed=2), costs, contexts)).all()


# --- learning to relax


@pytest.mark.parametrize("method", ["cg", "sor"])
def test_learning_changes_nothing_but_the_cost(method: Any) -> None:
    solver, state, paid = solvers.LearnToRelax(method, choices=4, seed=0), None, []
    for k in range(25):
        A, b = poisson(9), noise(9, 9, seed=k)
        system = LinearSystem(A, b)
        state = solver.init(system) if state is None else solver.follow(state, system)
        answer = solver.run(state)
        truth = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), b.flatten().numpy())
        assert answer.converged
        assert np.allclose(answer.value.flatten().numpy(), truth, atol=1e-6)
        assert answer.notes[-1].startswith("omega ")
        paid.append(int(answer.stats.iterations))
    bandit = state.prepared.bandit
    assert bandit.costs == paid and len(set(bandit.chosen)) > 1


def test_one_matrix_with_many_right_sides_is_learned_too() -> None:
    A = poisson(8)
    solver = solvers.LearnToRelax(choices=3)
    state = sciml.init(LinearSystem(A, noise(8, 8)), solver)
    for seed in range(5):
        assert solver.run(state, b=noise(8, 8, seed=seed)).converged
    assert len(state.prepared.bandit.costs) == 5


def test_a_context_is_asked_for() -> None:
    solver = solvers.LearnToRelax(contexts=(0.0, 1.0))
    system = LinearSystem(poisson(5), noise(5, 5))
    with pytest.raises(InputError, match="context"):
        solver.run(solver.init(system))
    with pytest.raises(InputError, match="context"):
        solver.run(solver.begin(system, context=2.0))
    assert solver.run(solver.begin(system, context=0.5)).converged


@pytest.mark.parametrize(
    "options",
    [{"omegas": (1.5, 1.2)}, {"omegas": (1.0, 2.0)}, {"choices": 1}, {"contexts": (1.0, 1.0)}],
)
def test_options_of_learning_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        solvers.LearnToRelax(**options)
