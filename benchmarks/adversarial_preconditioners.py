"""1,000 ways to misuse a preconditioner, and what comes of each.

A use is a system (definite, indefinite, singular, nonsymmetric, damaged, of another dtype or size),
a preconditioner (untrained, corrupted, indefinite, singular, NaN, of the wrong size or dtype,
changing with time) and a Krylov method, ours or SciPy's through ``as_scipy``. It ends in

    right     success is claimed, and the residual recomputed here bears it out;
    typed     InputError, SolveError, a status other than converged, SciPy's info != 0;
    wrong     success is claimed and is not true;
    crash     any other exception.

The last two must not happen.

    OMP_NUM_THREADS=1 python benchmarks/adversarial_preconditioners.py --count 1000
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import torch

import sciml
from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError, SolveError
from sciml.solvers import GMRES, MINRES, BiCGStab, Jacobi, Multigrid
from sciml.solvers.linear.foreign import as_map
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.safeguard import as_preconditioner

RTOL, ITERATIONS = 1e-7, 600
FINE = ("definite", "jumps", "single precision", "integers")


# --- systems


@dataclass(frozen=True)
class System:
    """A matrix with its grid, and a right-hand side."""

    matrix: Any
    b: Any
    shape: tuple[int, int]


def laplacian(shape: tuple[int, int], K: np.ndarray, walls: bool = True) -> sp.csr_matrix:
    """-div(K grad u) on cells, K (rows + 2, columns + 2); Dirichlet or Neumann all round."""
    size, index = shape[0] * shape[1], np.arange(shape[0] * shape[1]).reshape(shape)
    A = sp.lil_matrix((size, size))
    for (i, j), row in np.ndenumerate(index):
        for di, dj in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            a, c = K[i + 1, j + 1], K[i + 1 + di, j + 1 + dj]
            face = 2 * a * c / (a + c)
            inside = 0 <= i + di < shape[0] and 0 <= j + dj < shape[1]
            if inside:
                A[row, index[i + di, j + dj]] = -face
            if inside or walls:
                A[row, row] += face
    return A.tocsr()


def system(kind: str, rng: np.random.Generator) -> System:
    """One of the kinds in ``SYSTEMS``."""
    shape = (int(rng.integers(3, 10)), int(rng.integers(3, 10)))
    size = shape[0] * shape[1]
    K = np.ones((shape[0] + 2, shape[1] + 2))
    if kind not in ("definite", "integers"):
        K = 10 ** rng.uniform(-2, 2, K.shape)
    A = laplacian(shape, K, walls=not kind.startswith("singular"))
    b: Any = rng.standard_normal(size)
    if kind == "indefinite":
        A = A - sp.identity(size) * float(rng.uniform(0.5, 2)) * A.diagonal().mean() / 4
    elif kind == "negative":
        A = -A
    elif kind == "singular":
        b = b - b.mean()
    elif kind == "nonsymmetric":
        A = A + sp.diags([float(rng.uniform(0.1, 3))], [1], shape=A.shape)
    elif kind == "nan in A":
        A.data[rng.integers(A.nnz)] = rng.choice([np.nan, np.inf])
    elif kind == "zero on the diagonal":
        A = A.tolil()
        A[0, 0] = 0
    elif kind == "complex A":
        A = A.astype(complex) + 0.1j * sp.identity(size)
    elif kind == "single precision":
        A, b = A.astype(np.float32), b.astype(np.float32)
    elif kind == "integers":
        A, b = A.astype(np.int32), np.arange(size) - size // 2
    elif kind == "b of wrong size":
        b = b[: size - int(rng.integers(1, size))]
    elif kind == "nan in b":
        b[rng.integers(size)] = rng.choice([np.nan, np.inf])
    elif kind == "complex b":
        b = b + 1j * rng.standard_normal(size)
    elif kind == "tiny or huge b":
        b = b * 10.0 ** float(rng.choice([-300, -180, -150, -120, 120, 160, 300]))
    elif kind == "zero b":
        b = 0 * b
    elif kind == "not square":
        A = A[:-1]
    return System(A.tocsr(), b, shape)


SYSTEMS = (
    *FINE,
    "indefinite",
    "negative",
    "singular",
    "singular, incompatible",
    "nonsymmetric",
    "nan in A",
    "zero on the diagonal",
    "complex A",
    "b of wrong size",
    "nan in b",
    "complex b",
    "tiny or huge b",
    "zero b",
    "not square",
)

# What SciPy's methods are not tried with: they check b by themselves, and iterate in A's precision.
SCIPYS_OWN = ("b of wrong size", "not square", "nan in b", "single precision")


# --- preconditioners


class Network(Inverse):
    """A small convolutional network on the normalised residual, with whatever tags it claims."""

    trusted = False

    def __init__(self, A: LinearMap, weights: list[torch.Tensor], linear: bool) -> None:
        super().__init__(A, symmetric=linear, definite=linear, linear=linear)
        self.weights = weights

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """Three convolutions and two rectifiers."""
        size = u.norm()
        v = (u / size.clamp(min=1e-300)).float().reshape(1, 1, -1)
        for k, w in enumerate(self.weights):
            v = torch.nn.functional.conv1d(v if k == 0 else v.relu(), w, padding=1)
        return (size * v.double()).reshape(u.shape)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """None: it is not linear."""
        raise InputError("a network has no adjoint")


def network(A: LinearMap, rng: np.random.Generator, damage: str) -> LinearMap:
    """Random weights, damaged or not; half of them claim to be linear."""
    channels = ((4, 1, 3), (4, 4, 3), (1, 4, 3))
    weights = [torch.tensor(rng.standard_normal(c), dtype=torch.float32) for c in channels]
    if damage == "nan":
        weights[1][0, 0, 0] = torch.nan
    elif damage == "huge":
        weights[0] *= 1e30
        weights[2] *= 1e30
    elif damage == "zero":
        weights[1].zero_()
    elif damage == "bits":
        raw = weights[2].view(torch.int32)
        raw ^= torch.tensor(rng.integers(0, 2**31, tuple(raw.shape)), dtype=torch.int32)
    return Network(A, weights, linear=bool(rng.integers(2)))


def late_failure(rng: np.random.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """A fine map for some calls, then something else."""
    calls, first = [0], int(rng.integers(1, 40))
    after = rng.choice(["nan", "zero", "minus", "noise"])
    noise = torch.Generator().manual_seed(0)

    def apply(r: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] <= first:
            return r
        if after == "noise":
            return torch.randn(r.shape, generator=noise, dtype=torch.float64)
        return {"nan": torch.nan, "zero": 0.0, "minus": -1.0}[after] * r

    return apply


def overwriting(r: torch.Tensor) -> torch.Tensor:
    """Spoils what it is given."""
    return r.mul_(2.0)


def preconditioner(kind: str, A: LinearMap, rng: np.random.Generator) -> Any:
    """One of the kinds in ``PRECONDITIONERS``, for A."""
    n = A.size
    if kind.startswith("network"):
        return network(A, rng, kind.partition(" ")[2])
    if kind == "late failure":
        return late_failure(rng)
    if kind == "overwriting":
        return overwriting
    Q = rng.standard_normal((n, n))
    half = Q[:, : n // 2 + 1]
    factor = float(rng.choice([1e-30, 1e-8, -1.0, 1e8, 1e30]))
    makers: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "multigrid": Multigrid,
        "jacobi": Jacobi,
        "random symmetric": lambda: Q + Q.T,
        "random nonsymmetric": lambda: Q,
        "singular": lambda: half @ half.T,
        "zero": lambda: sp.csr_matrix((n, n)),
        "nearly definite": lambda: np.diag(np.r_[-1e-3, np.ones(n - 1)]),
        "scaled": lambda: sp.identity(n) * factor,
        "nan": lambda: lambda r: r * torch.nan,
        "nan at times": lambda: (
            lambda r: torch.where(r.real > r.real.mean() + 2 * r.real.std(), torch.nan, r)
        ),
        "infinite": lambda: lambda r: r / 0.0,
        "rectified": lambda: lambda r: r + float(rng.uniform(0, 30)) * r.relu(),
        "power": lambda: lambda r: r.sign() * r.abs() ** 3,
        "constant": lambda: lambda r: torch.ones_like(r),
        "noise": lambda: lambda r: r + torch.randn(r.shape, dtype=torch.float64) * r.norm(),
        "matrix of wrong size": lambda: sp.identity(n + int(rng.choice([-1, 1]))),
        "image of wrong size": lambda: lambda r: r.flatten()[:-1],
        "scalar": lambda: lambda r: r.norm(),
        "nothing": lambda: lambda r: None,
        "text": lambda: "multigrid",
        "class": lambda: Multigrid,
        "a solver": lambda: MINRES(),
        "single precision": lambda: lambda r: r.float(),
        "half precision": lambda: lambda r: r.half(),
        "whole numbers": lambda: lambda r: r.int(),
        "truth values": lambda: lambda r: r > 0,
        "complex": lambda: lambda r: r * 1j,
        "array": lambda: lambda r: r.numpy().copy(),
        "linear operator": lambda: spl.LinearOperator((n, n), matvec=lambda r: r / (1 + n)),
        "of another operator": lambda: Jacobi().setup(as_map(sp.identity(n + 2))),
    }
    return makers[kind]()


PRECONDITIONERS = (
    "none",
    "multigrid",
    "jacobi",
    "network untrained",
    "network nan",
    "network huge",
    "network zero",
    "network bits",
    "late failure",
    "overwriting",
    "random symmetric",
    "random nonsymmetric",
    "singular",
    "zero",
    "nearly definite",
    "scaled",
    "nan",
    "nan at times",
    "infinite",
    "rectified",
    "power",
    "constant",
    "noise",
    "matrix of wrong size",
    "image of wrong size",
    "scalar",
    "nothing",
    "text",
    "class",
    "a solver",
    "single precision",
    "half precision",
    "whole numbers",
    "truth values",
    "complex",
    "array",
    "linear operator",
    "of another operator",
)
# What no method can work with: refused, whatever the system.
UNUSABLE = (
    "matrix of wrong size",
    "image of wrong size",
    "scalar",
    "nothing",
    "text",
    "class",
    "a solver",
    "complex",
    "of another operator",
)


# --- methods


def by_solver(kind: Any) -> Callable[[System, str, np.random.Generator], tuple[bool, Any]]:
    """One of our solvers, with M given as a map."""

    def run(given: System, name: str, rng: np.random.Generator) -> tuple[bool, Any]:
        A = as_map(given.matrix, given.shape)
        M = as_preconditioner(preconditioner(name, A, rng), A)
        b = torch.as_tensor(given.b)
        b = b.reshape(A.shape) if b.numel() == A.size else b
        solver = kind(preconditioner=M, rtol=RTOL, max_iterations=ITERATIONS)
        solution = sciml.solve(A, b, solver, throw=False)
        return solution.status.success, solution.value.flatten().numpy()

    return run


def by_name(solve: Any) -> Callable[[System, str, np.random.Generator], tuple[bool, Any]]:
    """``sciml.cg`` or ``sciml.fcg``, on a grid or without."""

    def run(given: System, name: str, rng: np.random.Generator) -> tuple[bool, Any]:
        shape = (
            given.shape if name.startswith(("multigrid", "network")) or rng.integers(2) else None
        )
        M = preconditioner(name, as_map(given.matrix, shape), rng)
        solution = solve(given.matrix, given.b, M=M, shape=shape, rtol=RTOL, maxiter=ITERATIONS)
        return solution.status.success, solution.value.numpy()

    return run


def by_scipy(solve: Any, flexible: bool) -> Callable[..., tuple[bool, Any]]:
    """A method of SciPy's with M from ``as_scipy``."""

    def run(given: System, name: str, rng: np.random.Generator) -> tuple[bool, Any]:
        A = as_map(given.matrix, given.shape)
        M = sciml.as_scipy(preconditioner(name, A, rng), A, flexible=flexible)
        x, info = solve(given.matrix, given.b, rtol=RTOL, maxiter=ITERATIONS, M=M)
        return info == 0, x

    return run


METHODS = {
    "sciml.cg": by_name(sciml.cg),
    "sciml.fcg": by_name(sciml.fcg),
    "gmres": by_solver(GMRES),
    "minres": by_solver(MINRES),
    "bicgstab": by_solver(BiCGStab),
    "SciPy cg": by_scipy(spl.cg, flexible=False),
    "SciPy gcrotmk": by_scipy(spl.gcrotmk, flexible=True),
}


# --- one use


@dataclass(frozen=True)
class Use:
    """What was tried, and what came of it."""

    system: str
    preconditioner: str
    method: str
    outcome: str
    detail: str

    @property
    def must_succeed(self) -> bool:
        """A flexible method of ours on a system without fault: a bad M must not stop it."""
        flexible = self.method in ("sciml.fcg", "gmres")
        return flexible and self.system in FINE and self.preconditioner not in UNUSABLE


def use(seed: int) -> Use:
    """The use of that number."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    # Every other use takes a system without fault, so that the preconditioner is what is tried.
    kinds = FINE if seed % 2 else SYSTEMS
    names = (str(rng.choice(kinds)), str(rng.choice(PRECONDITIONERS)), str(rng.choice([*METHODS])))
    given = system(names[0], rng)
    if names[2].startswith("SciPy") and names[0] in SCIPYS_OWN:
        given = system("definite", rng)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            success, x = METHODS[names[2]](given, names[1], rng)
    except (InputError, SolveError) as error:
        return Use(*names, "typed", f"{type(error).__name__}: {error}")
    except Exception as error:
        return Use(*names, "crash", f"{type(error).__name__}: {error}")
    if not success:
        return Use(*names, "typed", "a status other than converged")
    residual = true_residual(given, x)
    return Use(*names, "right" if residual <= 1.5 * RTOL else "wrong", f"residual {residual:.1e}")


def true_residual(given: System, x: np.ndarray) -> float:
    """||b - A x|| / ||b||, with everything scaled so that no square under- or overflows."""
    b = np.asarray(given.b).astype(np.clongdouble)
    scale = np.abs(b).max() or 1.0
    A = given.matrix.toarray().astype(np.clongdouble)
    residual = np.linalg.norm(((b - A @ x) / scale).astype(complex))
    return float(residual / (np.linalg.norm((b / scale).astype(complex)) or 1.0))


def main() -> None:
    """Run the uses and print how they ended, by method and by preconditioner."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    start, uses = time.perf_counter(), []
    for seed in range(options.first, options.first + options.count):
        uses.append(use(seed))
        if uses[-1].outcome in ("wrong", "crash") or (
            uses[-1].must_succeed and uses[-1].outcome != "right"
        ):
            print(f"seed {seed}: {uses[-1]}")
    seconds = time.perf_counter() - start
    for title, key in (("method", "method"), ("preconditioner", "preconditioner")):
        print(f"\n| {title} | uses | right | typed failure | silently wrong | crash |")
        print("|---|---|---|---|---|---|")
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for one in uses:
            for name in (getattr(one, key), "all"):
                counts[name][one.outcome] += 1
        for name in sorted(counts, key=lambda n: (n == "all", n)):
            row = [counts[name][o] for o in ("right", "typed", "wrong", "crash")]
            print(f"| {name} | {sum(row)} | {' | '.join(map(str, row))} |")
    must = [one for one in uses if one.must_succeed]
    print(
        f"\nOf {len(must)} uses of a flexible method with an unfit but well-shaped preconditioner "
        f"on a sound system {sum(one.outcome == 'right' for one in must)} gave the right answer. "
        f"{seconds:.0f} s."
    )


if __name__ == "__main__":
    main()
