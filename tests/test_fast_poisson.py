"""Fast transforms against SciPy's direct solution, for every pair of ends in 1, 2 and 3 D.

The matrices are built here from control volumes, by Kronecker products, and only then turned into
stencils: nothing is shared with the recogniser.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

import sciml
from sciml import solvers
from sciml.core.algebra.maps import SparseMatrix
from sciml.core.algebra.stencil import Stencil, box_offsets, cross_offsets
from sciml.core.errors import InputError
from sciml.solvers.linear.fast_poisson import recognise

torch.set_num_threads(1)

PAIRS = [
    ("dirichlet node", "dirichlet node"),
    ("neumann node", "neumann node"),
    ("dirichlet node", "neumann node"),
    ("neumann node", "dirichlet node"),
    ("dirichlet cell", "dirichlet cell"),
    ("neumann cell", "neumann cell"),
    ("dirichlet cell", "neumann cell"),
    ("neumann cell", "dirichlet cell"),
    ("periodic", "periodic"),
]
Pair = tuple[str, str]


def axis_matrices(pair: Pair, n: int, h: float) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """The 1-D stiffness (sum of face conductances) and control volumes of n unknowns."""
    T = scipy.sparse.lil_matrix((n, n))
    for i in range(n if pair[0] == "periodic" else n - 1):
        j = (i + 1) % n
        T[i, i] += 1 / h
        T[j, j] += 1 / h
        T[i, j] -= 1 / h
        T[j, i] -= 1 / h
    volumes = np.full(n, h)
    for end, i in zip(pair, (0, n - 1), strict=True):
        if end == "dirichlet node":
            T[i, i] += 1 / h
        if end == "dirichlet cell":
            T[i, i] += 2 / h
        if end == "neumann node":
            volumes[i] = h / 2
    return T.tocsr(), volumes


def matrix_of(
    pairs: tuple[Pair, ...], shape: tuple[int, ...], K: tuple[float, ...], c: float
) -> scipy.sparse.csr_matrix:
    size = int(np.prod(shape))
    A = scipy.sparse.csr_matrix((size, size))
    spacings = [0.1, 0.25, 0.4]
    parts = [axis_matrices(p, n, h) for p, n, h in zip(pairs, shape, spacings, strict=False)]
    for axis in range(len(shape)):
        term = scipy.sparse.identity(1)
        for b, (T, volumes) in enumerate(parts):
            term = scipy.sparse.kron(term, K[axis] * T if b == axis else np.diag(volumes))
        A = A + term
    total = np.ones(1)
    for _, volumes in parts:
        total = np.kron(total, volumes)
    return (A + c * scipy.sparse.diags(total)).tocsr()


def stencil_of(
    matrix: scipy.sparse.csr_matrix,
    shape: tuple[int, ...],
    periodic: tuple[bool, ...],
    outside: float = 7.0,
    nullspace: bool = False,
) -> Stencil:
    """The planes of a matrix; entries that point outside hold a number that must not matter."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    planes = []
    for offset in cross_offsets(len(shape)):
        neighbour = np.roll(index, [-s for s in offset], axis=tuple(range(len(shape))))
        plane = np.asarray(matrix[index.ravel(), neighbour.ravel()]).reshape(shape).copy()
        for axis, step in enumerate(offset):
            if step and not periodic[axis]:
                edge = [slice(None)] * len(shape)
                edge[axis] = slice(-1, None) if step > 0 else slice(0, 1)
                plane[tuple(edge)] = outside
        planes.append(torch.from_numpy(plane))
    return Stencil(
        torch.stack(planes),
        cross_offsets(len(shape)),
        periodic=periodic,
        symmetric=True,
        definite=True,
        nullspace=nullspace,
    )


def system(
    pairs: tuple[Pair, ...],
    shape: tuple[int, ...],
    K: tuple[float, ...] = (1.0, 2.0, 0.3),
    c: float = 0.0,
) -> tuple[Stencil, scipy.sparse.csr_matrix]:
    matrix = matrix_of(pairs, shape, K, c)
    singular = c == 0 and all(e.startswith("neumann") or e == "periodic" for p in pairs for e in p)
    periodic = tuple(p[0] == "periodic" for p in pairs)
    return stencil_of(matrix, shape, periodic, nullspace=singular), matrix


def check(pairs: tuple[Pair, ...], shape: tuple[int, ...], c: float) -> None:
    A, matrix = system(pairs, shape, c=c)
    generator = np.random.default_rng(sum(shape))
    b = matrix @ generator.standard_normal(A.size)
    solution = sciml.solve(A, b.reshape(shape), solvers.FastPoisson(rtol=1e-11))
    if A.nullspace:
        truth = np.linalg.lstsq(matrix.toarray(), b, rcond=1e-12)[0]
        truth = truth - truth.mean()
    else:
        truth = scipy.sparse.linalg.spsolve(matrix.tocsc(), b)
    assert np.abs(solution.value.numpy().ravel() - truth).max() <= 1e-10 * np.abs(truth).max()


@pytest.mark.parametrize("c", [0.0, 3.0])
@pytest.mark.parametrize("n", [3, 8, 17])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_1d(pair: Pair, n: int, c: float) -> None:
    check((pair,), (n,), c)


@pytest.mark.parametrize("c", [0.0, 3.0])
@pytest.mark.parametrize("first", PAIRS, ids="-".join)
def test_2d(first: Pair, c: float) -> None:
    for second in PAIRS:
        check((first, second), (7, 4), c)


@pytest.mark.parametrize("first", PAIRS, ids="-".join)
def test_3d(first: Pair) -> None:
    for second, third in product(PAIRS, repeat=2):
        check((first, second, third), (3, 5, 4), 0.0)


@pytest.mark.parametrize("c", [0.0, 2.0])
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_ends_are_recognised(pair: Pair, c: float) -> None:
    A, _ = system((pair, PAIRS[0]), (6, 5), c=c)
    found = recognise(A)
    assert found.ends == (pair, PAIRS[0])
    # Couplings K_a / h_a times the other axis' h, reaction c times the cell's area.
    assert np.allclose([float(k) for k in found.coupling], [1.0 / 0.1 * 0.25, 2.0 / 0.25 * 0.1])
    assert float(found.reaction) == pytest.approx(c * 0.1 * 0.25, abs=1e-12)


@pytest.mark.parametrize("pairs", [(PAIRS[1], PAIRS[8]), (PAIRS[2], PAIRS[6])])
def test_inverse_equals_dense_inverse(pairs: tuple[Pair, ...]) -> None:
    A, matrix = system(pairs, (5, 6), c=1.5)
    inverse = solvers.FastPoisson().setup(A).to_scipy().toarray()
    assert np.allclose(inverse, np.linalg.inv(matrix.toarray()), rtol=1e-9)
    assert np.allclose(inverse, inverse.T, rtol=1e-10)


def test_constant_stencils_stored_once_are_taken_as_they_are() -> None:
    planes = torch.tensor([6.0, -1, -1, -2, -2], dtype=torch.float64)[:, None, None]
    A = Stencil(planes.expand(5, 33, 20), cross_offsets(2), symmetric=True, definite=True)
    generator = torch.Generator().manual_seed(0)
    b = torch.randn(33, 20, generator=generator, dtype=torch.float64)
    x = sciml.solve(A, b, solvers.FastPoisson()).value
    truth = scipy.sparse.linalg.spsolve(A.to_scipy().tocsc(), b.flatten().numpy())
    assert np.allclose(x.flatten().numpy(), truth)


def test_box_stencils_with_empty_corners_are_taken() -> None:
    A, _ = system((PAIRS[0], PAIRS[1]), (6, 5))
    wide = torch.zeros(9, 6, 5, dtype=torch.float64)
    for offset in A.offsets:
        wide[box_offsets(2).index(offset)] = A.entry(offset)
    assert recognise(Stencil(wide, box_offsets(2))).ends == (PAIRS[0], PAIRS[1])


def test_right_hand_sides_and_operators_come_in_batches() -> None:
    pairs = (PAIRS[3], PAIRS[8])
    singles = [system(pairs, (6, 7), K=(k, 1.0, 1.0), c=k)[0] for k in (0.5, 2.0, 9.0)]
    A = Stencil(
        torch.stack([s.coefficients for s in singles]),
        singles[0].offsets,
        periodic=singles[0].periodic,
        symmetric=True,
        definite=True,
    )
    generator = torch.Generator().manual_seed(2)
    b = torch.randn(4, 3, 6, 7, generator=generator, dtype=torch.float64)
    x = sciml.solve(A, b, solvers.FastPoisson()).value
    assert x.shape == b.shape
    for k, single in enumerate(singles):
        for i in range(4):
            alone = sciml.solve(single, b[i, k], solvers.Direct()).value
            assert torch.allclose(x[i, k], alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("pairs", [(PAIRS[1], PAIRS[0]), (PAIRS[8], PAIRS[5])])
def test_it_is_an_exact_preconditioner(pairs: tuple[Pair, ...]) -> None:
    A, matrix = system(pairs, (8, 9))
    report = sciml.check_preconditioner(solvers.FastPoisson(), A)
    assert report.linear and report.symmetric and report.definite and report.deterministic
    b = torch.from_numpy(matrix @ np.random.default_rng(0).standard_normal(72)).reshape(8, 9)
    solution = sciml.solve(A, b, solvers.CG(preconditioner=solvers.FastPoisson()))
    assert int(solution.stats.iterations) == 1


def test_the_given_arrays_stay_as_they_are() -> None:
    A, _ = system((PAIRS[0], PAIRS[4]), (6, 5))
    b = torch.ones(6, 5, dtype=torch.float64)
    inverse = solvers.FastPoisson().setup(A)
    inverse.apply(b)
    assert torch.equal(b, torch.ones_like(b))


def test_an_indefinite_shift_is_solved_and_tagged() -> None:
    A, matrix = system((PAIRS[0], PAIRS[0]), (9, 8), c=-300.0)
    assert np.linalg.eigvalsh(matrix.toarray())[0] < 0
    assert not solvers.FastPoisson().setup(A).definite
    b = np.random.default_rng(0).standard_normal(72)
    x = sciml.solve(A, b.reshape(9, 8), solvers.FastPoisson()).value
    assert np.allclose(x.flatten().numpy(), scipy.sparse.linalg.spsolve(matrix.tocsc(), b))


def _varied(number: int, where: tuple[int, ...], factor: float) -> Stencil:
    A, _ = system((PAIRS[0], PAIRS[1]), (8, 9), c=1.0)
    A.coefficients[(number, *where)] *= factor
    return A


def _robin(place: int) -> Stencil:
    A, _ = system((PAIRS[1], PAIRS[1]), (8, 9), c=1.0)
    A.coefficients[0, place, :] += 0.3
    return A


def _tensor() -> Stencil:
    wide = torch.full((9, 6, 6), -1.0, dtype=torch.float64)
    wide[4] = 8.0
    return Stencil(wide, box_offsets(2), symmetric=True)


def _advective() -> Stencil:
    A, _ = system((PAIRS[0], PAIRS[0]), (6, 6))
    A.coefficients[1] *= 1.5
    A.symmetric = False
    return A


@pytest.mark.parametrize(
    ("A", "reason"),
    [
        (_varied(0, (3, 4), 1.01), "varies inside"),
        (_varied(2, (3, 4), 1.01), "varies inside"),
        (_varied(0, (0, 2), 1.01), "changes along its side"),
        (_varied(3, (7, 2), 0.99), "changes along its side"),
        (_robin(0), "left side"),
        (_robin(-1), "right side"),
        (_tensor(), "full tensor"),
        (_advective(), "advection"),
        (SparseMatrix(scipy.sparse.identity(9)), "matrix"),
        (system((PAIRS[0],), (2,))[0], "fewer than 3"),
        (Stencil(-system((PAIRS[0],), (5,))[0].coefficients, cross_offsets(1)), "negative sign"),
    ],
)
def test_what_breaks_separability_is_named(A: Stencil, reason: str) -> None:
    with pytest.raises(InputError, match="fast_poisson needs constant") as caught:
        solvers.FastPoisson().setup(A)
    assert reason in str(caught.value)
    assert "multigrid" in str(caught.value)


# --- on the stencils that discretize makes

KINDS = {
    "dirichlet": lambda: sciml.Condition(dirichlet="x + 1"),
    "neumann": lambda: sciml.Condition(neumann="0"),
    "periodic": lambda: sciml.Condition(periodic=True),
}
SIDE_PAIRS = [*product(("dirichlet", "neumann"), repeat=2), ("periodic", "periodic")]


def _problem(pairs: tuple[Pair, ...], c: float, K: object = None) -> sciml.Problem:
    dimension = len(pairs)
    box = sciml.Box((0.0,) * dimension, (1.0, 1.5, 0.8)[:dimension])
    return sciml.Problem(
        box,
        sciml.Equation(K=K or (1.0, 2.0, 0.5)[:dimension], c=c, f="cos(2*pi*x)"),
        {s: KINDS[kind]() for s, kind in zip(box.sides, sum(pairs, ()), strict=True)},
    )


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("c", [0.0, 2.0])
@pytest.mark.parametrize("first", SIDE_PAIRS, ids="-".join)
def test_discretised_problems_are_recognised(first: Pair, c: float, centring: str) -> None:
    problems = [((first,), (9,)), *(((first, s), (7, 8)) for s in SIDE_PAIRS)]
    problems += [((first, s, t), (5, 6, 7)) for s, t in product(SIDE_PAIRS[1:4], SIDE_PAIRS[3:])]
    for pairs, shape in problems:
        on = sciml.Grid(shape, centring=centring)  # type: ignore[arg-type]
        problem = _problem(pairs, c)
        fast = sciml.solve(problem, solvers.FastPoisson(), on=on, throw=False)
        direct = sciml.solve(problem, solvers.Direct(), on=on, throw=False)
        assert fast.converged and direct.converged
        assert torch.allclose(fast.value, direct.value, rtol=1e-9, atol=1e-10)


def test_unsuitable_problems_are_refused() -> None:
    on = sciml.Grid((12, 12))
    sides = (("dirichlet", "neumann"), ("dirichlet", "dirichlet"))
    varying = _problem(sides, 0.0, K="1 + x")
    with pytest.raises(InputError, match="varies inside"):
        sciml.solve(varying, solvers.FastPoisson(), on=on)
    plain = _problem(sides, 0.0)
    robin = {**plain.boundary, "right": sciml.Condition(robin=sciml.Robin(1.0, 0.0))}
    with pytest.raises(InputError, match="right side"):
        sciml.solve(
            sciml.Problem(plain.domain, plain.equation, robin), solvers.FastPoisson(), on=on
        )
    hole = sciml.Obstacle("(x - 0.5)**2 + (y - 0.7)**2 < 0.04", sciml.Condition(dirichlet=0.0))
    with pytest.raises(InputError, match="fast_poisson needs"):
        sciml.solve(
            sciml.Problem(plain.domain, plain.equation, plain.boundary, obstacle=hole),
            solvers.FastPoisson(),
            on=on,
        )


def test_the_automatic_choice_takes_it() -> None:
    problem = _problem((SIDE_PAIRS[0], SIDE_PAIRS[1]), 0.0)
    solution = sciml.solve(problem, on=sciml.Grid((65, 50)))
    assert any(note.startswith("auto: fast_poisson") for note in solution.notes)
