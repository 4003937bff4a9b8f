"""Attack the certificate: operators up to condition 1e16, and 100,000 random starts.

    python benchmarks/attack_certificates.py [--tried 1000] [--starts 100000] [--journal FILE]

The first table counts certificates that do not hold the true energy error. The truth comes from a
Cholesky factorisation in extended precision and refinement with exact residuals (rational numbers),
so that it is right to many digits whatever the condition. The second counts how often the lower
bound of the spectrum is too high, against the stated probability, on operators whose spectrum is
given.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from attack import ANSWERED, REFUSED, WRONG, Journal

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.discretization import discretize
from sciml.solvers.linear import certify

EXTENDED = np.longdouble
DECADES = (1e4, 1e8, 1e12, 1e14, 1e15, 1e17)


def cholesky(A: np.ndarray) -> np.ndarray:
    """The lower factor in extended precision."""
    L = A.astype(EXTENDED)
    for k in range(len(L)):
        if not L[k, k] > 0:
            raise np.linalg.LinAlgError("not positive definite in extended precision")
        L[k, k] = np.sqrt(L[k, k])
        L[k + 1 :, k] /= L[k, k]
        L[k + 1 :, k + 1 :] -= np.outer(L[k + 1 :, k], L[k + 1 :, k])
    return np.tril(L)


def substitute(L: np.ndarray, r: np.ndarray) -> np.ndarray:
    """(L L^T)^{-1} r."""
    y = r.astype(EXTENDED)
    for k in range(len(y)):
        y[k] /= L[k, k]
        y[k + 1 :] -= L[k + 1 :, k] * y[k]
    for k in reversed(range(len(y))):
        y[k] /= L[k, k]
        y[:k] -= L[k, :k] * y[k]
    return y


@dataclass(frozen=True)
class Exact:
    """A vector of rational numbers, ``numbers`` times 2^``exponent``: doubles of any length."""

    numbers: list[int]
    exponent: int

    @classmethod
    def of(cls, values: np.ndarray) -> Exact:
        """Doubles, without an error."""
        parts = [math.frexp(float(value)) for value in values]
        least = min((e for m, e in parts if m), default=0) - 53
        return cls([int(m * 2.0**53) << (e - 53 - least) if m else 0 for m, e in parts], least)

    def at(self, exponent: int) -> list[int]:
        """The numbers at a lower exponent."""
        return [n << (self.exponent - exponent) for n in self.numbers]

    def less(self, other: Exact) -> Exact:
        """The difference."""
        e = min(self.exponent, other.exponent)
        return Exact([a - b for a, b in zip(self.at(e), other.at(e), strict=True)], e)

    def double(self, number: int) -> float:
        """One of the numbers, rounded once."""
        e = self.exponent
        return float(number << e) if e > 0 else number / (1 << -e)


def exact_energies(A: scipy.sparse.csr_matrix, b: np.ndarray, u: np.ndarray) -> tuple[float, float]:
    """||A^{-1} b - u||_A and ||A^{-1} b||_A of the matrix as it is stored."""
    A = A.tocsr()
    L, entries = cholesky(A.toarray()), Exact.of(A.data)
    ends, columns = A.indptr.tolist(), A.indices.tolist()

    def product(x: Exact) -> Exact:
        a, v = entries.numbers, x.numbers
        rows = (range(ends[i], ends[i + 1]) for i in range(len(v)))
        sums = [sum(a[k] * v[columns[k]] for k in row) for row in rows]
        return Exact(sums, entries.exponent + x.exponent)

    def energy(right: Exact) -> float:
        x, left = Exact([0] * len(right.numbers), 0), right
        for _ in range(8):
            rounded = np.array([left.double(n) for n in left.numbers])
            step = Exact.of(-substitute(L, rounded.astype(EXTENDED)).astype(np.float64))
            x = x.less(step)
            left = right.less(product(x))
        size = max(abs(right.double(n)) for n in right.numbers)
        assert max(abs(left.double(n)) for n in left.numbers) <= size * 1e-20
        square = sum(r * a for r, a in zip(right.numbers, x.numbers, strict=True))
        found = Exact([square], right.exponent + x.exponent)
        return float(EXTENDED(found.double(square)) ** EXTENDED(0.5))

    right = Exact.of(b)
    return energy(right.less(product(Exact.of(u)))), energy(right)


def field(rng: np.random.Generator, shape: tuple[int, ...], contrast: float) -> np.ndarray:
    kind = rng.integers(4)
    if kind == 0:
        return np.ones(shape)
    if kind == 1:
        values = np.ones(shape)
        values[(..., slice(None, None, 2))] = contrast
        return values
    if kind == 2:
        return contrast ** rng.random(shape)
    return np.where(rng.random(shape) < 0.4, contrast, 1.0)


def random_system(rng: np.random.Generator) -> tuple[LinearSystem, float]:
    """A diffusion problem whose condition is somewhere up to 1e17, and that condition."""
    d = int(rng.integers(1, 3))
    # Multigrid coarsens above 256 unknowns.
    sizes = (
        (rng.integers(5, 60, 1), rng.integers(257, 300, 1))
        if d == 1
        else (
            rng.integers(4, 12, 2),
            rng.integers(17, 19, 2),
        )
    )
    shape = tuple(int(n) for n in sizes[int(rng.random() < 0.3)])
    aim = 10 ** rng.uniform(2, 16)
    contrast = min(aim, 10 ** rng.uniform(0, 8)) if rng.random() < 0.7 else 1.0
    stretch = 10 ** rng.uniform(-4, 0) if rng.random() < 0.3 else 1.0
    box = Box((0.0,) * d, (1.0, stretch)[:d])
    K = field(rng, shape, contrast)
    which = rng.choice(["dirichlet", "neumann", "mixed", "periodic"])
    c, sides = 0.0, {}
    for number, side in enumerate(box.sides):
        if which == "periodic":
            sides[side] = Condition(periodic=True)
        elif which == "neumann" or (which == "mixed" and number):
            sides[side] = Condition(neumann=0.0)
        else:
            sides[side] = Condition(dirichlet=0.0)
    if which in ("neumann", "periodic"):
        spacing = min(s / n for s, n in zip((1.0, stretch), shape, strict=False))
        c = float(4 * K.max() / spacing**2 / aim)
    problem = Problem(box, Equation(K=torch.as_tensor(K), c=c, f=1.0), sides)
    system = discretize(problem, Grid(shape, "cell"))
    matrix = system.A.to_scipy().toarray()
    scale = 1 / np.sqrt(np.diag(matrix))
    smallest = np.linalg.eigvalsh(scale[:, None] * matrix * scale)[0]
    return system, 2 / max(float(smallest), 1e-17)


def random_guess(rng: np.random.Generator, system: LinearSystem) -> torch.Tensor:
    shape = system.A.shape
    kind = rng.integers(4)
    if kind == 0:
        return torch.zeros(shape, dtype=torch.float64)
    noise = torch.as_tensor(rng.standard_normal(shape))
    if kind == 1:
        return noise
    near = scipy.sparse.linalg.spsolve(system.A.to_scipy().tocsc(), system.b.flatten().numpy())
    x = torch.as_tensor(near).reshape(shape).nan_to_num(0.0, 0.0, 0.0)
    return x if kind == 2 else x * (1 + 10 ** rng.uniform(-12, -1) * noise)


def attack(tried: int, seed: int, journal: Journal) -> list[str]:
    """Rows of certificates tried, wrong, refused and without an upper bound, by condition.

    Those that the journal has already are not tried again, and not in the rows.
    """
    counts, widths, family = Counter(), {}, "certificates"
    done = journal.done()
    for number in range(tried):
        if (family, f"{seed}-{number}") in done:
            continue
        rng, before = np.random.default_rng((seed, number)), counts.copy()
        begin = time.perf_counter()
        system, condition = random_system(rng)
        u = random_guess(rng, system)
        row = next((c for c in DECADES if condition <= c), DECADES[-1])
        counts[row, "tried"] += 1
        try:
            error, norm = exact_energies(
                system.A.to_scipy(), system.b.flatten().numpy(), u.flatten().numpy()
            )
        except np.linalg.LinAlgError:
            error = None
        for steps in (0, 2, int(rng.integers(3, 80))):
            try:
                found = certify.certify(
                    system.lift(u), system, steps=steps, seed=int(rng.integers(99))
                )
            except InputError:
                counts[row, "refused"] += steps == 0
                break
            if error is None:
                # Rounded, it is not definite: no interval can be right.
                counts[row, "wrong"] += bool(torch.isfinite(found.upper))
                break
            ends = [float(v) for v in (found.lower, found.upper)]
            shares = [float(v) for v in (found.relative_lower, found.relative_upper)]
            good = ends[0] <= error <= ends[1] and shares[0] <= error / norm <= shares[1]
            counts[row, "wrong"] += not good
            if not good:
                print("WRONG", condition, steps, ends, error, shares, error / norm)
            counts[row, "open"] += steps == 0 and not np.isfinite(ends[1])
            if steps == 2 and np.isfinite(ends[1]) and error > 0:
                widths.setdefault(row, []).append((ends[1] - ends[0]) / error)
        new = counts - before
        verdict = WRONG if new[row, "wrong"] else REFUSED if new[row, "refused"] else ANSWERED
        seconds = time.perf_counter() - begin
        journal.add(family, f"{seed}-{number}", verdict, condition=condition, seconds=seconds)
    lines = [
        "| condition to | tried | wrong | no upper bound | refused | median width after 2 steps |",
        "|---|---|---|---|---|---|",
    ]
    for row in DECADES:
        cells = [counts[row, k] for k in ("tried", "wrong", "open", "refused")]
        width = f"{np.median(widths[row]):.1e}" if row in widths else ""
        lines.append(f"| {row:.0e} | " + " | ".join(map(str, cells)) + f" | {width} |")
    return lines


class Scaled(LinearMap):
    """The inverse of a diagonal operator times a spectrum: B with B A known."""

    def __init__(self, A: Stencil, spectrum: torch.Tensor) -> None:
        self.shape, self.batch, self.dtype, self.device = A.shape, A.batch, A.dtype, A.device
        self.symmetric, self.definite, self.nullspace = True, True, False
        self.values = spectrum / A.diagonal()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """B u."""
        return self.values * u

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """B u."""
        return self.apply(u)

    def diagonal(self) -> torch.Tensor:
        """Of B."""
        return self.values

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """Not one matrix."""
        raise InputError("a batch")


# The smallest eigenvalue is 1. Where the others are nearly one, the process has seen them after a
# step and the bound is as sharp as it can be: it fails as often as is stated, and no more.
SPECTRA = {
    "1, others within 1e-5 of 10": torch.cat(
        [torch.ones(1), torch.linspace(10, 10 + 1e-5, 39)]
    ).double(),
    "1, others from 5 to 10": torch.cat([torch.ones(1), torch.linspace(5, 10, 29)]).double(),
    "ten to 1.1, others from 20 to 50": torch.cat(
        [1 + 0.01 * torch.arange(10), torch.linspace(20, 50, 20)]
    ).double(),
    "even from 1 to 100": torch.linspace(1, 100, 40).double(),
}
_STEPS = 8


def failures(spectrum: torch.Tensor, probability: float, starts: int, seed: int = 0) -> int:
    """How many of so many starts give a lower bound above the smallest eigenvalue, 1.

    After any of the first eight steps: the process may stop at each of them.
    """
    n, failed, size = len(spectrum), 0, min(starts, 10_000)
    planes = torch.zeros(3, n, dtype=torch.float64)
    planes[0] = torch.linspace(1, 3, n)
    A = Stencil(planes.expand(size, 3, n), ((0,), (-1,), (1,)), symmetric=True, definite=True)
    B = Scaled(A, spectrum)
    for part in range(starts // size):
        slopes, alphas = [], []
        wrong = np.zeros(size, dtype=bool)
        start = certify._random_start(A, seed + part)
        for now in islice(certify._conjugate_gradients(A, B, start, False), _STEPS):
            slopes.append(now.slope)
            alphas.append(now.alpha)
            if len(slopes) > 1:
                columns = certify._columns(slopes), certify._columns(alphas)
                wrong |= certify._probable_bounds(*columns, probability)[0] > 1 + 1e-12
        failed += int(wrong.sum())
    return failed


def rates(starts: int, journal: Journal) -> list[str]:
    """Rows of failures against the stated probability."""
    family, done = "probabilities of certificates", journal.done()
    lines = ["| spectrum of B A | stated | starts | failed | rate |", "|---|---|---|---|---|"]
    for name, spectrum in SPECTRA.items():
        for probability in (1e-3, 1e-2, 0.1):
            case = f"{name}, {probability:g}, {starts}"
            if (family, case) in done:
                continue
            begin = time.perf_counter()
            failed = failures(spectrum, probability, starts)
            seconds = time.perf_counter() - begin
            # More than chance allows, at three standard deviations.
            most = starts * probability + 3 * (starts * probability) ** 0.5
            found = WRONG if failed > most else ANSWERED
            journal.add(family, case, found, failed=failed, seconds=seconds)
            lines.append(
                f"| {name} | {probability:g} | {starts:,} | {failed} | {failed / starts:.2g} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tried", type=int, default=1000)
    parser.add_argument("--starts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--journal", type=Path, default=Path("runs/attack/certificates.jsonl"))
    chosen = parser.parse_args()
    journal, start = Journal(chosen.journal), time.perf_counter()
    print("\n".join(attack(chosen.tried, chosen.seed, journal)))
    print(f"\n{time.perf_counter() - start:.0f} s\n")
    print("\n".join(rates(chosen.starts, journal)))
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
