"""Attack the linear solvers: hundreds of hostile systems, each by every solver.

    python benchmarks/attack_systems.py [--systems 310] [--journal FILE]

Random, indefinite, singular, scaled, penalised, saddle-point, convection, complex, disconnected and
nearly singular matrices, with right-hand sides that suit them and such that do not, each solved by
every method with every preconditioner, and certified. What says that it converged must have a small
residual in extended precision, in the norm of b and row by row, and must be as near to the answer
by elimination in extended precision as its residual and the condition allow. Everything else must
say so by a status or in one line. Lost is what the automatic choice does not answer although the
matrix is regular.

A case that the journal has is not tried again.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from attack import ANSWERED, LOST, REFUSED, TRACEBACK, WRONG, Journal

import sciml
from sciml.core.algebra.maps import LinearMap, LinearSystem, SparseMatrix
from sciml.core.algebra.stencil import stencil_of
from sciml.core.errors import InputError
from sciml.solvers import (
    AMG,
    CG,
    FCG,
    GMRES,
    ILU,
    MINRES,
    SOR,
    SSOR,
    Auto,
    BiCGStab,
    DeflatedCG,
    Direct,
    FastPoisson,
    IncompleteCholesky,
    Jacobi,
    Multigrid,
)

EXTENDED, RTOL, STEPS = np.clongdouble, 1e-8, 1000
# Rows may be a hundred times worse than the whole; and a residual was seen in double precision.
ROWS, ROUNDING = 200 * RTOL, 4.0
REGULAR = 1e10  # the condition up to which an answer is owed

SOLVERS: dict[str, Any] = {
    "auto": Auto(),
    "direct": Direct(),
    "cg": CG(max_iterations=STEPS),
    "cg jacobi": CG(Jacobi(), max_iterations=STEPS),
    "cg ssor": CG(SSOR(), max_iterations=STEPS),
    "cg ic": CG(IncompleteCholesky(), max_iterations=STEPS),
    "cg relaxed ic": CG(IncompleteCholesky(0.98, "reverse_cuthill_mckee"), max_iterations=STEPS),
    "cg amg": CG(AMG(), max_iterations=STEPS),
    "cg aggregation": CG(AMG(method="smoothed_aggregation"), max_iterations=STEPS),
    "cg direct": CG(Direct(), max_iterations=STEPS),
    "cg multigrid": CG(Multigrid(), max_iterations=STEPS),
    "fcg amg": FCG(AMG(), max_iterations=STEPS),
    "fcg multigrid": FCG(Multigrid(), max_iterations=STEPS),
    "deflated cg": DeflatedCG(max_iterations=STEPS),
    "minres": MINRES(max_iterations=STEPS),
    "minres jacobi": MINRES(Jacobi(), max_iterations=STEPS),
    "minres amg": MINRES(AMG(), max_iterations=STEPS),
    "gmres": GMRES(max_iterations=STEPS),
    "gmres ilu": GMRES(ILU(), max_iterations=STEPS),
    "gmres amg": GMRES(AMG(), max_iterations=STEPS),
    "gmres multigrid": GMRES(Multigrid(), max_iterations=STEPS),
    "bicgstab": BiCGStab(max_iterations=STEPS),
    "bicgstab ilu": BiCGStab(ILU(), max_iterations=STEPS),
    "amg": AMG(),
    "multigrid": Multigrid(),
    "sor": SOR(max_iterations=STEPS),
    "fast poisson": FastPoisson(),
}


@dataclass(frozen=True)
class Given:
    """A system: the matrix, the right-hand side, and the grid that the matrix lives on, if any."""

    A: sp.csr_matrix
    b: np.ndarray
    shape: tuple[int, ...] | None = None


def laplacian(shape: tuple[int, ...], coefficient: np.ndarray | None = None) -> sp.csr_matrix:
    """-div(K grad u) on a grid with Dirichlet sides, h = 1; K given on the points."""
    n = int(np.prod(shape))
    K = np.ones(shape) if coefficient is None else coefficient.reshape(shape)
    A = sp.csr_matrix((n, n))
    index = np.arange(n).reshape(shape)
    for axis in range(len(shape)):
        low = np.take(index, range(shape[axis] - 1), axis).ravel()
        high = np.take(index, range(1, shape[axis]), axis).ravel()
        k = 2 / (1 / K.ravel()[low] + 1 / K.ravel()[high])
        links = sp.csr_matrix((k, (low, high)), (n, n))
        ends = np.zeros(n)
        for end in (0, shape[axis] - 1):
            rim = np.take(index, end, axis).ravel()
            ends[rim] += K.ravel()[rim]
        sums = np.asarray((links + links.T).sum(1)).ravel()
        A = A + sp.diags(sums + ends) - links - links.T
    return sp.csr_matrix(A)


def neumann(shape: tuple[int, ...]) -> sp.csr_matrix:
    """The same without what the sides add: constants are its kernel."""
    A = laplacian(shape)
    return sp.csr_matrix(A - sp.diags(np.asarray(A.sum(1)).ravel()))


def grid(rng: np.random.Generator) -> tuple[int, ...]:
    d = int(rng.integers(1, 4))
    most = {1: 200, 2: 19, 3: 7}[d]
    return tuple(int(n) for n in rng.integers(3, most, d))


def suiting(rng: np.random.Generator, A: sp.csr_matrix) -> np.ndarray:
    """A right-hand side that is A x for some x, or noise, or zero but in one place."""
    n = A.shape[0]
    kind = rng.integers(4)
    if kind == 0:
        return rng.standard_normal(n)
    if kind == 1:
        return np.eye(1, n, int(rng.integers(n)))[0]
    return np.asarray(A @ (rng.standard_normal(n) if kind == 2 else np.ones(n)))


def poisson(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape, 10.0 ** rng.uniform(0, rng.choice([0, 3, 8]), shape))
    return Given(A, suiting(rng, A), shape)


def random_dense(rng: np.random.Generator) -> Given:
    n = int(rng.integers(1, 40))
    A = sp.csr_matrix(rng.standard_normal((n, n)))
    if rng.random() < 0.5:
        A = sp.csr_matrix(A @ A.T)
    return Given(A, suiting(rng, A))


def random_sparse(rng: np.random.Generator) -> Given:
    n = int(rng.integers(5, 200))
    A = sp.random(n, n, 3 / n, random_state=rng, data_rvs=rng.standard_normal)
    A = sp.csr_matrix(A + sp.diags(rng.standard_normal(n)) * 2)
    return Given(A, suiting(rng, A))


def indefinite(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape)
    A = sp.csr_matrix(A - rng.uniform(0.1, 3) * sp.identity(A.shape[0]))
    return Given(A, suiting(rng, A), shape)


def singular(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = neumann(shape)
    return Given(A, suiting(rng, A), shape)


def nearly_singular(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = neumann(shape)
    A = sp.csr_matrix(A + 10.0 ** rng.uniform(-18, -4) * sp.identity(A.shape[0]))
    return Given(A, suiting(rng, A), shape)


def deficient(rng: np.random.Generator) -> Given:
    n = int(rng.integers(4, 40))
    half = rng.standard_normal((n, max(1, n - int(rng.integers(1, 4)))))
    other = half if rng.random() < 0.5 else rng.standard_normal(half.shape)
    A = sp.csr_matrix(half @ other.T)
    return Given(A, suiting(rng, A))


def scaled(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape)
    n = A.shape[0]
    S = sp.diags(10.0 ** rng.uniform(-1, 1, n) ** rng.choice([1, 9]))
    rows = sp.diags(10.0 ** rng.uniform(-8, 8, n)) if rng.random() < 0.4 else S
    A = sp.csr_matrix(rows @ A @ S)
    return Given(A, suiting(rng, A), shape)


def penalised(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A, b = laplacian(shape).tolil(), np.full(int(np.prod(shape)), 100.0)
    penalty = 10.0 ** rng.choice([8, 14, 30])
    for k in rng.choice(len(b), max(1, len(b) // 10), replace=False):
        A[k, k] = penalty
        b[k] = penalty * rng.choice([0.0, 1.0, rng.standard_normal()])
    return Given(sp.csr_matrix(A), b, shape)


def saddle(rng: np.random.Generator) -> Given:
    n = int(rng.integers(6, 80))
    m = int(rng.integers(1, n // 2))
    H = laplacian((n,))
    B = sp.csr_matrix(rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.4))
    corner = rng.choice([0.0, 1e-6, -1e-6, 1.0]) * sp.identity(m)
    A = sp.csr_matrix(sp.bmat([[H, B.T], [B, corner]]))
    return Given(A, suiting(rng, A))


def convection(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape)
    speed = 10.0 ** rng.uniform(-1, 3)
    ahead = sp.diags([speed, -speed], [1, -1], A.shape)
    A = sp.csr_matrix(A + ahead.multiply(abs(A) > 0))
    if rng.random() < 0.3:
        A = A.tolil()
        A[0, 0] = 1e14
    return Given(sp.csr_matrix(A), suiting(rng, sp.csr_matrix(A)), shape)


def complex_(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape)
    n = A.shape[0]
    kind = rng.integers(3)
    if kind == 0:  # a wave
        A = sp.csr_matrix(A - (0.5 + 0.1j) * sp.identity(n))
    elif kind == 1:  # Hermitian
        turned = sp.diags(np.exp(1j * rng.uniform(0, 6, n)))
        A = sp.csr_matrix(turned @ A @ turned.conj())
    b = suiting(rng, A) + 1j * rng.standard_normal(n)
    return Given(A, b, shape)


def disconnected(rng: np.random.Generator) -> Given:
    parts = [laplacian(grid(rng)), neumann(grid(rng))]
    if rng.random() < 0.3:
        parts.append(sp.csr_matrix((3, 3)))
    A = sp.csr_matrix(sp.block_diag(parts[int(rng.random() < 0.3) :]))
    order = rng.permutation(A.shape[0])
    A = sp.csr_matrix(A[order][:, order])
    return Given(A, suiting(rng, A))


def extreme(rng: np.random.Generator) -> Given:
    shape = grid(rng)
    A = laplacian(shape) * float(rng.choice([1e-300, 1e-160, 1e-30, 1e30, 1e150, 1e300]))
    b = rng.standard_normal(A.shape[0]) * float(rng.choice([1e-200, 1e-100, 1.0, 1e100, 1e200]))
    return Given(sp.csr_matrix(A), b, shape)


def tiny(rng: np.random.Generator) -> Given:
    matrices = [
        [[0.0]], [[1e-320]], [[-3.0]], [[0, 1], [1, 0]], [[0, 1], [0, 0]], [[1, 1], [1, 1]],
        [[1, 1], [1, 1 + 2.0**-52]], [[1, 2], [3, 4]], [[1, 0], [0, -1]], [[2, -1], [-1, 0.5]],
    ]  # fmt: skip
    A = sp.csr_matrix(np.array(matrices[int(rng.integers(len(matrices)))], dtype=float))
    return Given(A, suiting(rng, A))


FAMILIES: dict[str, Callable[[np.random.Generator], Given]] = {
    "diffusion": poisson,
    "dense": random_dense,
    "random": random_sparse,
    "indefinite": indefinite,
    "singular": singular,
    "nearly singular": nearly_singular,
    "rank-deficient": deficient,
    "scaled": scaled,
    "penalised": penalised,
    "saddle point": saddle,
    "convection": convection,
    "complex": complex_,
    "disconnected": disconnected,
    "extreme numbers": extreme,
    "tiny": tiny,
}


@dataclass(frozen=True)
class Truth:
    """What elimination in extended precision says: x, and the condition of the scaled matrix."""

    x: np.ndarray | None
    condition: float


def eliminated(A: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """A^-1 b by Gauss's elimination with pivoting, all in extended precision."""
    U, y = A.astype(EXTENDED), b.astype(EXTENDED)
    n = len(y)
    for k in range(n):
        p = k + int(np.argmax(np.abs(U[k:, k])))
        if U[p, k] == 0:
            return None
        U[[k, p]], y[[k, p]] = U[[p, k]], y[[p, k]]
        share = U[k + 1 :, k] / U[k, k]
        U[k + 1 :, k:] -= share[:, None] * U[k, k:]
        y[k + 1 :] -= share * y[k]
    for k in range(n - 1, -1, -1):
        y[k] = (y[k] - U[k, k + 1 :] @ y[k + 1 :]) / U[k, k]
    return y


def truth(given: Given) -> Truth:
    A = given.A.toarray().astype(EXTENDED)
    rows = np.abs(A).sum(1)
    rows = np.where(rows > 0, rows, 1)
    even = A / rows[:, None]
    columns = np.abs(even).max(0)
    even = even / np.where(columns > 0, columns, 1)
    values = np.linalg.svd(even.astype(np.complex128), compute_uv=False)
    condition = float(values[0] / values[-1]) if values[-1] > 0 else np.inf
    return Truth(eliminated(A / rows[:, None], given.b.astype(EXTENDED) / rows), condition)


def judged(given: Given, exact: Truth, x: np.ndarray, claimed: float) -> str:
    """The verdict on an answer that calls itself converged."""
    A, b = given.A.toarray().astype(EXTENDED), given.b.astype(EXTENDED)
    x = x.reshape(-1).astype(EXTENDED)
    if not np.isfinite(x).all():
        return WRONG
    r = b - A @ x
    noise = 2.0**-53 * (np.abs(A) @ np.abs(x))
    size = np.linalg.norm(b) or 1.0
    whole = np.linalg.norm(r) / size
    if whole > ROUNDING * (max(RTOL, claimed) + np.linalg.norm(noise) / size):
        return WRONG
    rows = np.abs(A).sum(1)
    rows = np.where(rows > 0, rows, 1)
    scale = np.linalg.norm(b / rows) or 1.0
    share = np.linalg.norm(r / rows) / scale
    if share > ROWS * ROUNDING + ROUNDING * np.linalg.norm(noise / rows) / scale:
        return WRONG
    if exact.x is not None and exact.condition < 1e14:
        error = np.linalg.norm(x - exact.x) / (np.linalg.norm(exact.x) or 1.0)
        if error > ROUNDING * ROWS * max(exact.condition, 1.0) + 1e-6:
            return WRONG
    return ANSWERED


def operator(given: Given) -> LinearMap:
    """On its grid where it has one, so that multigrid may be tried."""
    matrix = SparseMatrix(given.A)
    return matrix if given.shape is None else stencil_of(matrix, given.shape)


def is_owed(given: Given, exact: Truth) -> bool:
    """Whether Auto owes an answer: a regular matrix, ordinary numbers, an A x that rounds to b."""
    if exact.x is None:
        return False
    noise = 2.0**-53 * np.linalg.norm(np.abs(given.A.toarray()) @ np.abs(exact.x))
    if noise > RTOL * np.linalg.norm(given.b):
        return False
    sizes = [np.linalg.norm(given.b), *np.abs(given.A.data)]
    ordinary = all(size == 0 or 1e-100 < size < 1e100 for size in sizes)
    return ordinary and exact.condition < REGULAR


def attempt(given: Given, exact: Truth, solver: Any, flat: bool) -> tuple[str, str]:
    """Verdict, and what was said."""
    try:
        A = SparseMatrix(given.A) if flat else operator(given)
        b = torch.from_numpy(given.b).reshape(A.shape)
        found = sciml.solve(LinearSystem(A, b), solver, throw=False)
    except InputError as error:
        owed = isinstance(solver, Auto) and is_owed(given, exact)
        return LOST if owed else REFUSED, str(error)
    except Exception:
        return TRACEBACK, traceback.format_exc()[-900:]
    if found.status.success:
        verdict = judged(given, exact, found.value.numpy(), float(found.residual))
        return verdict, repr(found)
    owed = isinstance(solver, Auto) and is_owed(given, exact)
    return LOST if owed else REFUSED, f"{found.status.name} {'; '.join(found.notes)}"


def certified(given: Given, exact: Truth) -> tuple[str, str]:
    """Whether the interval for u = 0 holds the energy norm of the answer."""
    try:
        A = operator(given)
        bound = sciml.certify(
            torch.zeros(A.shape),
            LinearSystem(A, torch.from_numpy(given.b).reshape(A.shape)),
            steps=2,
        )
    except InputError as error:
        return REFUSED, str(error)
    except Exception:
        return TRACEBACK, traceback.format_exc()[-900:]
    if exact.x is None or not np.isfinite(float(bound.upper)):
        return REFUSED, str(bound)
    energy = float(np.sqrt(np.abs((exact.x.conj() @ given.b.astype(EXTENDED)).real)))
    good = float(bound.lower) <= energy * (1 + 1e-9) and energy <= float(bound.upper) * (1 + 1e-9)
    return ANSWERED if good or exact.condition > 1e15 else WRONG, f"{bound} {energy}"


def cases(count: int) -> Iterator[tuple[str, int]]:
    for number in range(count):
        names = list(FAMILIES)
        yield names[number % len(names)], number


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--systems", type=int, default=310)
    parser.add_argument("--only", default="", help="one family")
    parser.add_argument("--journal", type=Path, default=Path("runs/attack/systems.jsonl"))
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    journal = Journal(chosen.journal)
    done = journal.done()
    for name, number in cases(chosen.systems):
        family = f"systems: {name}"
        wanted = [
            kind for kind in (*SOLVERS, "certify") if (family, f"{number} {kind}") not in done
        ]
        if (chosen.only and name != chosen.only) or not wanted:
            continue
        given = FAMILIES[name](np.random.default_rng(number))
        with np.errstate(all="ignore"):
            exact = truth(given)
            for kind in wanted:
                begin = time.perf_counter()
                if kind == "certify":
                    verdict, said = certified(given, exact)
                else:
                    # Every other system without its grid, as a SciPy user has it.
                    flat = "multigrid" not in kind and number % 2 == 1
                    verdict, said = attempt(given, exact, SOLVERS[kind], flat)
                seconds = time.perf_counter() - begin
                journal.add(family, f"{number} {kind}", verdict, said=said, seconds=seconds)
    for family, counts in journal.counts().items():
        print(family, dict(counts))


if __name__ == "__main__":
    main()
