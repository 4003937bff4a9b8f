"""The certificate's bounds bracket the true error, from a direct solve, whatever u is."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sciml
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import Stencil, stencil_of
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.discretization import discretize
from sciml.solvers import Direct
from sciml.solvers.linear import certify
from sciml.solvers.linear.multigrid import hierarchy

ROUNDING = 1e-6  # of a bound that has closed in on the error


def field(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor:
    if kind == "constant":
        values = np.ones(shape)
    elif kind == "lognoise":
        values = 1e4 ** rng.random(shape)
    else:
        values = np.where(rng.random([-(-n // 4) for n in shape]) < 0.5, 1e4, 1.0)
        for axis in range(len(shape)):
            values = values.repeat(4, axis=axis)
        values = np.ascontiguousarray(values[tuple(slice(0, n) for n in shape)])
    return torch.as_tensor(values)


def diffusion(K, shape, condition="dirichlet", centring="cell", f="1", obstacle=None):
    box = Box((0.0,) * len(shape), (1.0,) * len(shape))
    boundary = {side: Condition(**{condition: 0.0}) for side in box.sides}
    return discretize(
        Problem(box, Equation(K=K, f=f), boundary, obstacle=obstacle), Grid(shape, centring)
    )


def guess(kind: str, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "smooth":
        ramp = torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)
        return x + x.abs().max() * torch.sin(3 * ramp)
    noise = torch.as_tensor(rng.standard_normal(x.shape)) * x.abs().max()
    return x + noise if kind == "random" else x + 1e-5 * noise


def true_error(system: LinearSystem, u: torch.Tensor, x: torch.Tensor):
    """The energy norms of u - x and of x; u and x without their boundary values."""
    dims = tuple(range(-len(system.A.shape), 0))
    gap = system.restrict(u) - system.restrict(x)
    own = system.restrict(x)
    return tuple((v * system.A.apply(v)).sum(dims).sqrt() for v in (gap, own))


def assert_brackets(certificate: certify.Certificate, error: torch.Tensor, norm: torch.Tensor):
    share = error / norm
    assert (certificate.lower <= error * (1 + ROUNDING)).all()
    assert (error <= certificate.upper * (1 + ROUNDING)).all()
    assert (certificate.relative_lower <= share * (1 + ROUNDING)).all()
    assert (share <= certificate.relative_upper * (1 + ROUNDING)).all()


CASES = [
    (kind, shape, condition)
    for kind in ("constant", "blocks", "lognoise")
    for shape in ((101,), (23, 18), (9, 8, 7))
    for condition in ("dirichlet", "neumann", "periodic")
]


@pytest.mark.parametrize(("kind", "shape", "condition"), CASES)
def test_bounds_bracket_the_true_error(kind: str, shape, condition: str) -> None:
    rng = np.random.default_rng(len(shape))
    f = "1" if condition == "dirichlet" else "cos(2*pi*x)"
    system = diffusion(field(kind, shape, rng), shape, condition, f=f)
    x = sciml.solve(system, Direct()).value
    for name in ("zero", "smooth", "random", "near"):
        u = guess(name, x, rng)
        for steps in (0, 3):
            assert_brackets(certify.certify(u, system, steps=steps), *true_error(system, u, x))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shape=st.lists(st.integers(4, 24), min_size=1, max_size=2),
    contrast=st.floats(1, 1e6),
    steps=st.integers(0, 6),
)
def test_bounds_bracket_on_random_problems(seed, shape, contrast, steps) -> None:
    rng = np.random.default_rng(seed)
    system = diffusion(torch.as_tensor(contrast ** rng.random(shape)), tuple(shape))
    x = sciml.solve(system, Direct()).value
    u = guess("random", x, rng)
    assert_brackets(certify.certify(u, system, steps=steps), *true_error(system, u, x))


@pytest.mark.parametrize("condition", ["dirichlet", "neumann"])
def test_obstacle(condition: str) -> None:
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", Condition(**{condition: 0.0}))
    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(
        box, Equation(f=1.0), {s: Condition(dirichlet=1.0) for s in box.sides}, obstacle=hole
    )
    grid = Grid((25, 27))
    solution = sciml.solve(problem, Direct(), on=grid)
    u = solution.value + 0.1 * torch.rand_like(solution.value)
    certificate = sciml.certify(u.nan_to_num(0.0), problem, grid, steps=1)
    system = discretize(problem, grid)
    truth = solution.value.nan_to_num(0.0)
    assert_brackets(certificate, *true_error(system, u.nan_to_num(0.0), truth))
    assert sciml.certify(solution, problem, grid).upper < 1e-8


def test_full_tensor_without_diagonal_dominance() -> None:
    K = ((0.75, 0.43), (0.43, 0.26))
    box = Box((0.0, 0.0), (1.0, 1.0))
    problem = Problem(box, Equation(K=K, f=1.0), {s: Condition(dirichlet=0.0) for s in box.sides})
    system = discretize(problem, Grid((33, 33)))
    x = sciml.solve(system, Direct()).value
    for steps in (0, 2):
        u = torch.rand_like(x)
        assert_brackets(certify.certify(u, system, steps=steps), *true_error(system, u, x))


def test_a_batch_gives_what_its_members_give() -> None:
    rng = np.random.default_rng(5)
    K = torch.stack([field(kind, (20, 17), rng) for kind in ("constant", "blocks", "lognoise")])
    system = diffusion(K, (20, 17))
    x = sciml.solve(system, Direct()).value
    u = torch.as_tensor(rng.random((2, *x.shape)))
    together = certify.certify(u, system, steps=2)
    assert together.lower.shape == (2, 3) and together.contraction.shape == (3,)
    assert_brackets(together, *true_error(system, u, x))
    for k in range(3):
        alone = certify.certify(u[0, k], diffusion(K[k], (20, 17)), steps=2)
        torch.testing.assert_close(alone.lower, together.lower[0, k], rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", ["constant", "blocks", "lognoise"])
def test_steps_tighten_both_bounds(kind: str) -> None:
    rng = np.random.default_rng(1)
    system = diffusion(field(kind, (31, 31), rng), (31, 31))
    u = torch.as_tensor(rng.standard_normal((31, 31)))
    all_ = [certify.certify(u, system, steps=steps) for steps in range(6)]
    lower, upper = (torch.stack([getattr(c, end) for c in all_]) for end in ("lower", "upper"))
    assert (lower[1:] >= lower[:-1] * (1 - 1e-10)).all()
    assert (upper[1:] <= upper[:-1] * (1 + 1e-10)).all()
    assert upper[5] - lower[5] < 0.01 * (upper[0] - lower[0])


@pytest.mark.parametrize("kind", ["constant", "blocks", "lognoise"])
def test_the_floor_is_below_the_spectrum_and_within_its_margin(kind: str, monkeypatch) -> None:
    # On so small a grid the cycle would be an exact solve, and its spectrum 1.
    monkeypatch.setattr(hierarchy, "COARSEST", 20)
    rng = np.random.default_rng(2)
    system = diffusion(field(kind, (15, 14), rng), (15, 14))
    B = sciml.solvers.Multigrid(dtype="float64").setup(system.A).to_scipy().toarray()
    spectrum = np.linalg.eigvals(B @ system.A.to_scipy().toarray()).real
    assert spectrum.min() < 0.99 and spectrum.max() <= 1 + 1e-10
    for seed in range(5):
        certificate = certify.certify(torch.zeros(15, 14), system, seed=seed)
        floor = 1 - float(certificate.contraction)
        assert floor <= spectrum.min() <= 1.001 * floor / (1 - certificate.margin)


def test_the_start_has_the_covariance_that_the_margin_needs(monkeypatch) -> None:
    monkeypatch.setattr(hierarchy, "COARSEST", 20)
    rng = np.random.default_rng(3)
    A = diffusion(field("lognoise", (9, 8), rng), (9, 8)).A
    starts = np.stack([certify._random_start(A, seed).flatten().numpy() for seed in range(4000)])
    covariance = starts.T @ starts / len(starts)
    B = sciml.solvers.Multigrid(dtype="float64").setup(A).to_scipy().toarray()
    smallest = np.linalg.eigvals(B @ covariance).real.min()
    assert smallest >= 0.7  # 1 less the noise of 4000 samples of 72 numbers


def test_it_reads_as_two_sentences() -> None:
    text = str(certify.certify(torch.zeros(12, 12), diffusion(1.0, (12, 12))))
    assert text.count(". ") == 1 and text.endswith(".") and "discrete solution" in text


def test_refusals_name_the_reason() -> None:
    box = Box((0.0, 0.0), (1.0, 1.0))
    sides = {s: Condition(dirichlet=0.0) for s in box.sides}
    grid, u = Grid((9, 9)), torch.zeros(9, 9)
    with pytest.raises(InputError, match="symmetric"):
        sciml.certify(u, Problem(box, Equation(b=(1.0, 0.0), f=1.0), sides), grid)
    with pytest.raises(InputError, match="definite"):
        sciml.certify(u, Problem(box, Equation(c=-50.0, f=1.0), sides), grid)
    plain = Problem(box, Equation(f=1.0), sides)
    with pytest.raises(InputError, match="needs \\[9, 9\\]"):
        sciml.certify(torch.zeros(8, 9), plain, grid)
    with pytest.raises(InputError, match="NaN"):
        sciml.certify(torch.full((9, 9), torch.nan), plain, grid)
    with pytest.raises(InputError, match="steps"):
        sciml.certify(u, plain, grid, steps=-1)
    matrix = SparseMatrix(discretize(plain, grid).A.to_scipy())
    with pytest.raises(InputError, match="stencil"):
        sciml.certify(torch.zeros(49), LinearSystem(matrix, torch.ones(49)))


# Rounding.


def exact_energy(A: scipy.sparse.csr_matrix, b: np.ndarray) -> float:
    """||A^{-1} b||_A of the matrix as it is stored: Gaussian elimination in rational arithmetic."""
    n, band = A.shape[0], int(max(abs(A.tocoo().row - A.tocoo().col)))
    rows = [{j: Fraction(float(v)) for j, v in zip(r.indices, r.data, strict=True)} for r in A]
    y, square = [Fraction(float(v)) for v in b], Fraction(0)
    for k in range(n):
        square += y[k] ** 2 / rows[k][k]
        for i in range(k + 1, min(n, k + band + 1)):
            if factor := rows[i].get(k):
                factor /= rows[k][k]
                for j, value in rows[k].items():
                    if j > k:
                        rows[i][j] = rows[i].get(j, Fraction(0)) - factor * value
                y[i] -= factor * y[k]
    # b . A^{-1} b = y . D^{-1} y with b = L y.
    return math.sqrt(square)


def striped(n: int, c: float, contrast: float = 1e6) -> LinearSystem:
    K = np.ones((n, n))
    K[:, ::2] = contrast
    box = Box((0.0, 0.0), (1.0, 1.0))
    boundary = {side: Condition(neumann=0.0) for side in box.sides}
    problem = Problem(box, Equation(K=torch.as_tensor(K), c=c, f=1.0), boundary)
    return discretize(problem, Grid((n, n), "cell"))


def flat(aspect: float, c: float) -> LinearSystem:
    box = Box((0.0, 0.0), (1.0, aspect))
    boundary = {side: Condition(neumann=0.0) for side in box.sides}
    return discretize(Problem(box, Equation(c=c, f=1.0), boundary), Grid((6, 5), "cell"))


@pytest.mark.parametrize(
    ("system", "bounded"),
    [
        (striped(6, 1e-2), True),
        (striped(6, 1e-6), True),
        (striped(6, 1e-8), False),
        (flat(1e-3, 1e-4), True),
        (flat(1e-6, 1e-3), False),
    ],
    ids=["1e10", "1e14", "1e16", "flat", "flatter"],
)
def test_ill_conditioned_intervals_hold_the_truth(system: LinearSystem, bounded: bool) -> None:
    """Conditions from 1e10 to 1e16; more steps never make an interval wrong."""
    truth = exact_energy(system.A.to_scipy(), system.b.flatten().numpy())
    for steps in (0, 3, 60):
        found = certify.certify(torch.zeros(system.A.shape), system, steps=steps)
        assert float(found.lower) <= truth <= float(found.upper)
        assert float(found.relative_lower) <= 1 <= float(found.relative_upper)
        if not torch.isfinite(found.upper):
            assert found.reason
            assert found.reason in str(found)
        if bounded:
            assert float(found.upper) < 1.05 * truth
            assert float(found.lower) > 0.95 * truth


def laplacian_minus(shift: float, n: int = 31) -> LinearSystem:
    one = scipy.sparse.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1])
    eye = scipy.sparse.eye(n)
    A = scipy.sparse.kron(one, eye) + scipy.sparse.kron(eye, one)
    matrix = SparseMatrix(A - shift * scipy.sparse.eye(n * n), definite=True)
    return LinearSystem(stencil_of(matrix, (n, n)), torch.ones(n, n, dtype=torch.float64))


LOWEST = 4 - 4 * math.cos(math.pi / 32)


@pytest.mark.parametrize("shift", [1.0, 1.5 * LOWEST, (1 + 1e-3) * LOWEST, (1 + 1e-9) * LOWEST])
def test_an_indefinite_operator_is_refused_whatever_its_tag(shift: float) -> None:
    with pytest.raises(InputError, match=r"this one is not: a (coarse|direction)"):
        certify.certify(torch.zeros(31, 31), laplacian_minus(shift))


def test_a_nearly_singular_definite_operator_is_not_refused() -> None:
    assert bool(
        torch.isfinite(
            certify.certify(torch.zeros(31, 31), laplacian_minus((1 - 1e-6) * LOWEST)).upper
        )
    )


def _levelled(shift: float) -> Stencil:
    """A Laplacian between insulated ends on 8 points, with a reaction."""
    n = 8
    off = np.ones(n - 1)
    matrix = scipy.sparse.diags([off, off], [-1, 1])
    matrix = scipy.sparse.diags(np.asarray(matrix.sum(1)).ravel() + shift) - matrix
    return stencil_of(SparseMatrix(scipy.sparse.csr_matrix(matrix)), (n,))


def test_a_level_that_hardly_anything_fixes_is_no_kernel() -> None:
    """The mean of b = 1 is lifted to 1/shift: an energy of sqrt(8 / shift)."""
    shift = 2.0**-43  # to the last bit in a diagonal of 1 and 2
    A, b = _levelled(shift), torch.ones(8, dtype=torch.float64)
    assert not A.nullspace
    found = sciml.certify(torch.zeros(8), LinearSystem(A, b), steps=2)
    assert float(found.lower) <= math.sqrt(8 / shift) <= float(found.upper) < math.inf


def test_a_singular_system_without_a_solution_has_no_certificate() -> None:
    A = _levelled(0.0)
    assert A.nullspace
    with pytest.raises(InputError, match=r"1.0e\+00 of its norm along them: there is no solution"):
        sciml.certify(torch.zeros(8), LinearSystem(A, torch.ones(8, dtype=torch.float64)))
    b = torch.linspace(-1, 1, 8, dtype=torch.float64)
    truth = np.linalg.lstsq(A.to_scipy().toarray(), b.numpy(), rcond=1e-12)[0]
    energy = math.sqrt(truth @ b.numpy())
    found = sciml.certify(torch.zeros(8), LinearSystem(A, b), steps=1)
    assert float(found.lower) <= energy <= float(found.upper)


def test_a_nan_in_the_operator_is_refused() -> None:
    system = diffusion(1.0, (9, 9))
    planes = system.A.coefficients.clone()
    planes[0, 3, 3] = torch.nan
    A = Stencil(planes, system.A.offsets, symmetric=True, definite=True)
    with pytest.raises(InputError, match="NaN"):
        certify.certify(torch.zeros(9, 9), LinearSystem(A, torch.ones(9, 9)))


# The probability.


class Known(LinearMap):
    """B of a diagonal A, such that B A has a given spectrum."""

    def __init__(self, A: Stencil, spectrum: torch.Tensor) -> None:
        self.shape, self.batch, self.dtype, self.device = A.shape, A.batch, A.dtype, A.device
        self.symmetric, self.definite, self.nullspace = True, True, False
        self.values = spectrum / A.diagonal()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        return self.values * u

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        return self.values * u

    def diagonal(self) -> torch.Tensor:
        return self.values

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        return scipy.sparse.diags(self.values).tocsr()


def failures(rest: torch.Tensor, probability: float, starts: int) -> int:
    """Starts after which, at any of the first six steps, the bound lies above the spectrum."""
    spectrum = torch.cat([torch.ones(1), rest]).double()
    planes = torch.zeros(3, len(spectrum), dtype=torch.float64)
    planes[0] = torch.linspace(1, 3, len(spectrum))
    size = starts // 10
    A = Stencil(
        planes.expand(size, *planes.shape), ((0,), (-1,), (1,)), symmetric=True, definite=True
    )
    failed = 0
    for seed in range(10):
        slopes, alphas, wrong = [], [], np.zeros(size, dtype=bool)
        process = certify._conjugate_gradients(
            A, Known(A, spectrum), certify._random_start(A, seed), False
        )
        for now in islice(process, 6):
            slopes.append(now.slope)
            alphas.append(now.alpha)
            if len(slopes) > 1:
                known = certify._columns(slopes), certify._columns(alphas)
                wrong |= certify._probable_bounds(*known, probability)[0] > 1 + 1e-12
        failed += int(wrong.sum())
    return failed


@pytest.mark.parametrize(
    "rest", [10 + torch.linspace(0, 1e-5, 20), torch.linspace(5, 10, 20)], ids=["sharp", "spread"]
)
@pytest.mark.parametrize("probability", [1e-3, 0.05])
def test_the_stated_probability_of_failure(rest: torch.Tensor, probability: float) -> None:
    """At most the stated one, within four deviations; in the sharp case that."""
    starts = 20_000 if probability < 0.01 else 5_000
    failed, expected = failures(rest, probability, starts), probability * starts
    assert failed <= expected + 4 * math.sqrt(expected)
    if rest[-1] - rest[0] < 1e-3:
        assert failed >= expected - 4 * math.sqrt(expected)
    # Without the term, p = sqrt(2 / pi), more than half of the starts fail.
    assert failures(rest, math.sqrt(2 / math.pi), 1000) > 500


def lanczos(spectrum: np.ndarray, r: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Slopes and step lengths of CG for a diagonal matrix, one row each."""
    p, slopes, alphas = r.copy(), [r @ r], []
    for _ in range(count):
        alphas.append(slopes[-1] / (p @ (spectrum * p)))
        r = r - alphas[-1] * spectrum * p
        slopes.append(r @ r)
        p = r + slopes[-1] / slopes[-2] * p
    return np.array([slopes]), np.array([[*alphas, 0.0]])


@pytest.mark.parametrize("count", [8, 12, 20])
def test_the_smallest_ritz_value_is_that_of_the_krylov_space(count: int) -> None:
    """Rayleigh and Ritz on an orthonormal basis give what CG's numbers give by themselves."""
    rng = np.random.default_rng(count)
    spectrum, start = np.sort(rng.uniform(0.1, 1.0, 40)), rng.standard_normal(40)
    powers = [start / np.linalg.norm(start)]
    for _ in range(count - 1):
        power = spectrum * powers[-1]
        for _ in range(2):
            power = power - np.array(powers).T @ (np.array(powers) @ power)
        powers.append(power / np.linalg.norm(power))
    ritz = np.linalg.eigvalsh(np.array(powers) @ np.diag(spectrum) @ np.array(powers).T)
    bound, share = certify._probable_bounds(*lanczos(spectrum, start, count), 0.5)
    assert bound[0] / (1 - share[0]) == pytest.approx(ritz[0], rel=1e-9)


def test_the_gauss_radau_rule_bounds_what_is_left_of_the_error() -> None:
    """With the smallest eigenvalue as its node: above the truth after every step, and near it."""
    spectrum = torch.linspace(0.02, 1, 60, dtype=torch.float64)
    planes = torch.zeros(3, 60, dtype=torch.float64)
    planes[0] = torch.linspace(1, 3, 60)
    A = Stencil(planes, ((0,), (-1,), (1,)), symmetric=True, definite=True)
    r = np.random.default_rng(0).standard_normal(60) * np.sqrt(planes[0].numpy())
    e = r / planes[0].numpy()
    one = torch.ones((), dtype=torch.float64)
    known = certify._Spectrum(0.02 * one, 0.0 * one, one, one.bool(), 0.0, False)
    for steps in range(12):
        v, _, _, rest = certify._corrections(A, Known(A, spectrum), r, known, steps, torch.Size())
        truth = np.sqrt(((e - v) ** 2 * planes[0].numpy()).sum())
        assert truth <= float(rest) * (1 + 1e-9)
        assert float(rest) < 6 * truth


@pytest.mark.parametrize("unit", ["1e-190", "1e190"])
def test_what_has_no_squares_is_refused(unit: str) -> None:
    with pytest.raises(InputError, match="leave the range of numbers"):
        sciml.certify(torch.zeros(9, 9), diffusion(1.0, (9, 9), f=unit))
