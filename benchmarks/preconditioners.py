"""Preconditioners side by side: one table per family of systems, baselines and learned ones.

    OPENBLAS_NUM_THREADS=1 python benchmarks/preconditioners.py obstacles-2d --sizes 128 256
    ... obstacles-3d --sizes 32 64 --directions poisson-3d --learned runs/multigrid-3d

Every method runs to the same relative residuals, 1e-6 and 1e-10, recomputed in float64; the right
side is white noise, zero in holes. Seconds are CPU seconds of one thread, the least of ``--rounds``
runs, the methods in turn; what takes more than ten seconds runs once, and what takes more than
``--limit`` is stopped. Training of learned methods is what their weights say it took; that of
deflation is the solution of ten other systems with the same matrix. ``--directions`` names weights
of deep conjugate directions, ``--learned`` of learned multigrid; each takes several.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sciml.app.bench import coefficient
from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Obstacle, Problem
from sciml.discretization import discretize
from sciml.solvers import (
    AMG,
    CG,
    FCG,
    SSOR,
    ConjugateDirections,
    Deflation,
    IncompleteCholesky,
    Jacobi,
    LearnedMultigrid,
    Multigrid,
)
from sciml.solvers.learned.conjugate_directions import KIND as DIRECTIONS
from sciml.solvers.learned.conjugate_directions import linked
from sciml.solvers.learned.multigrid import KIND as MULTIGRID
from sciml.solvers.learned.weights import read_stored
from sciml.solvers.linear.deflation import principal_directions
from sciml.solvers.linear.inverse import Inverse

TOLERANCES = (1e-6, 1e-10)
EARLIER = 10  # solutions that deflation knows
ONCE = 10.0  # seconds; what takes longer is not repeated


def box(dimension: int) -> tuple[Box, dict[str, Condition]]:
    """The unit box, zero on its sides."""
    domain = Box((0.0,) * dimension, (1.0,) * dimension)
    return domain, {side: Condition(dirichlet=0.0) for side in domain.sides}


def obstacles(dimension: int) -> Callable[[int], tuple[Problem, Grid]]:
    """Poisson's equation around a ball, a bar and an open ring; zero on their rims."""
    ball = "(x - 0.25)**2 + (y - 0.7)**2"
    ring = "(x - 0.65)**2 + (y - 0.4)**2"
    if dimension == 3:
        ball += " + (z - 0.5)**2"
    slab = "" if dimension == 2 else " and z > 0.3 and z < 0.7"
    inside = " or ".join(
        (
            f"{ball} < 0.02",
            f"(y > 0.1 and y < 0.15 and x > 0.1 and x < 0.6{slab})",
            f"({ring} < 0.06 and {ring} > 0.04 and x < 0.8{slab})",
        )
    )

    def family(n: int) -> tuple[Problem, Grid]:
        domain, walls = box(dimension)
        hole = Obstacle(inside, Condition(dirichlet=0.0))
        problem = Problem(domain, Equation(K=1.0, f=1.0), walls, obstacle=hole)
        return problem, Grid((n,) * dimension, "cell")

    return family


def contrast(kind: str) -> Callable[[int], tuple[Problem, Grid]]:
    """-div(K grad u) with a K of contrast 1e4, on cells."""

    def family(n: int) -> tuple[Problem, Grid]:
        domain, walls = box(2)
        K = torch.from_numpy(coefficient(kind, n, 2))
        return Problem(domain, Equation(K=K, f=1.0), walls), Grid((n, n), "cell")

    return family


def rotated(n: int) -> tuple[Problem, Grid]:
    """Anisotropy 1:1000, turned by 30 degrees, n^2 unknowns on nodes."""
    domain, walls = box(2)
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    K = ((1000 * c * c + s * s, 999 * c * s), (999 * c * s, 1000 * s * s + c * c))
    return Problem(domain, Equation(K=K, f=1.0), walls), Grid((n + 2, n + 2))


@dataclass(frozen=True)
class Family:
    """From a size to a problem and its grid; ``poisson``: whether all that varies are holes."""

    make: Callable[[int], tuple[Problem, Grid]]
    sizes: tuple[int, ...]
    poisson: bool = False


FAMILIES = {
    "obstacles-2d": Family(obstacles(2), (128, 256, 512), poisson=True),
    "obstacles-3d": Family(obstacles(3), (32, 64, 128), poisson=True),
    "blocks": Family(contrast("blocks"), (127, 255, 511)),
    "gaussian": Family(contrast("field"), (127, 255, 511)),
    "cells": Family(contrast("cells"), (127, 255, 511)),
    "rotated": Family(rotated, (127, 255, 511)),
}


@dataclass(frozen=True)
class EmbeddedBox:
    """Multigrid for the box without its holes, ``whole``, as a preconditioner beside the holes.

    z = P M P r + (I - P) D^-1 r, where P sets holes to zero: symmetric positive definite.
    """

    whole: LinearMap
    kind: str = "embedded_box"

    def setup(self, A: LinearMap) -> Inverse:
        """The hierarchy of the whole box."""
        assert isinstance(A, Stencil)
        return EmbeddedInverse(A, Multigrid().setup(self.whole))


class EmbeddedInverse(Inverse):
    """See :class:`EmbeddedBox`."""

    def __init__(self, A: Stencil, M: LinearMap) -> None:
        super().__init__(A, symmetric=True, definite=True)
        self.M, self.mask = M, linked(A).double()
        self.rest = (1 - self.mask) / A.diagonal()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``B u``; u (*shape)."""
        return self.mask * self.M.apply(self.mask * u).double() + self.rest * u

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """The same: B is symmetric."""
        return self.apply(u)


@dataclass(frozen=True)
class Method:
    """A Krylov method with its preconditioner; ``training``: CPU seconds before the set-up."""

    name: str
    solver: CG | FCG
    training: float | None = None


def noise(A: LinearMap, seed: int) -> torch.Tensor:
    """White noise, zero in holes."""
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(A.shape, generator=generator, dtype=torch.float64)
    return b * linked(A) if isinstance(A, Stencil) else b


def deflation(A: LinearMap) -> Method:
    """The span of earlier solutions, solved exactly, beside Jacobi."""
    start = time.process_time()
    solver = CG(preconditioner=Multigrid(), rtol=1e-8)
    state = solver.init(LinearSystem(A, noise(A, 1)))
    earlier = [solver.run(state, b=noise(A, 1 + i)).value for i in range(EARLIER)]
    directions = principal_directions(torch.stack(earlier), EARLIER)
    training = time.process_time() - start
    return Method(
        f"deflation ({EARLIER}), Jacobi-CG", CG(Deflation(directions, Jacobi())), training
    )


def trained(path: str, name: str, solver: CG | FCG, kind: str) -> Method:
    """A learned method, with the training that its weights tell of."""
    return Method(name, solver, read_stored(path, kind).provenance.get("cpu_seconds"))


def methods(
    family: Family, n: int, A: LinearMap, directions: list[str], learned: list[str]
) -> list[Method]:
    """All that can be said about this system."""
    found = [
        Method("CG", CG()),
        Method("Jacobi-CG", CG(Jacobi())),
        Method("IC(0)-CG", CG(IncompleteCholesky())),
        Method("SSOR-CG, omega 1.5", CG(SSOR(1.5))),
        Method("SSOR-CG, omega 1.9", CG(SSOR(1.9))),
        Method("PyAMG RS-CG", CG(AMG(method="ruge_stuben"))),
        Method("PyAMG SA-CG", CG(AMG(method="smoothed_aggregation"))),
        Method("multigrid-CG", CG(Multigrid())),
        deflation(A),
    ]
    if family.poisson:
        problem, grid = family.make(n)
        whole = discretize(replace(problem, obstacle=None), grid).A
        found.append(Method("multigrid-CG, embedded box", CG(EmbeddedBox(whole))))  # type: ignore[arg-type]
        found += [
            trained(path, f"DCDM, {path}", FCG(ConjugateDirections(path), directions=2), DIRECTIONS)
            for path in directions
        ]
    found += [
        trained(path, f"learned multigrid, {path}", CG(LearnedMultigrid(path)), MULTIGRID)
        for path in learned
    ]
    return found


class TooLong(Exception):
    """The limit of seconds has passed."""


@dataclass
class Row:
    """What a method took: CPU seconds of set-up, and per tolerance iterations and CPU seconds.

    ``residual``: the largest, in units of the tolerance. ``remark``: why there is no figure;
    ``replaced``: what a guard said.
    """

    setup: float = math.inf
    solves: tuple[tuple[int, float], ...] = ()
    residual: float = 0.0
    remark: str = ""
    replaced: str = ""

    def add(self, setup: float, solves: list[tuple[int, float]]) -> None:
        """Another round: the least counts."""
        self.setup = min(self.setup, setup)
        if self.solves:
            pairs = zip(self.solves, solves, strict=True)
            solves = [(count, min(before, now)) for (_, before), (count, now) in pairs]
        self.solves = tuple(solves)

    @property
    def done(self) -> bool:
        """Not to be run again: it failed, or takes long."""
        return bool(self.remark) or (bool(self.solves) and self.seconds > ONCE)

    @property
    def seconds(self) -> float:
        """Set-up and solves together."""
        return self.setup + sum(seconds for _, seconds in self.solves)


def measure(method: Method, system: LinearSystem, row: Row, limit: float) -> None:
    """One round of one method."""
    solves = []
    start = time.process_time()
    try:
        state = method.solver.init(system)
        setup = time.process_time() - start
        for rtol in TOLERANCES:
            begun = time.process_time()

            def watch(_step: int, _residual: float, begun: float = begun) -> None:
                if time.process_time() - begun > limit:
                    raise TooLong

            solver = replace(method.solver, rtol=rtol)
            solution = solver.run(state, progress=watch)
            count = int(solution.stats.iterations)
            if not solution.converged:
                row.remark = f"{solution.status.name.lower()} after {count} at {rtol:g}"
                return
            solves.append((count, time.process_time() - begun))
            row.residual = max(row.residual, float(solution.residual) / rtol)
            row.replaced = next((f"{n} ({rtol:g})" for n in solution.notes if "took over" in n), "")
    except TooLong:
        row.remark = f"stopped after {limit:g} s"
    except InputError as error:
        row.remark = error.message
    else:
        row.add(setup, solves)


def table(name: str, sizes: list[int] | None, options: argparse.Namespace) -> None:
    """The rows of one family, each printed as soon as its size is done."""
    family = FAMILIES[name]
    print(f"\n### {name}\n")
    print("| size | method | training s | set-up s | its, s to 1e-6 | its, s to 1e-10 | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for n in sizes or family.sizes:
        system = discretize(*family.make(n))
        system = LinearSystem(system.A, noise(system.A, 0))
        found = methods(family, n, system.A, options.directions, options.learned)
        rows = [Row() for _ in found]
        for _ in range(options.rounds):
            for method, row in zip(found, rows, strict=True):
                if not row.done:
                    measure(method, system, row, options.limit)
        for method, row in zip(found, rows, strict=True):
            print(line(f"{n}^{len(system.A.shape)}", method, row), flush=True)


def line(size: str, method: Method, row: Row) -> str:
    """A row in Markdown."""
    solves = [f"{count}, {seconds:.3g}" for count, seconds in row.solves] or ["–"] * len(TOLERANCES)
    training = "" if method.training is None else f"{method.training:.3g}"
    setup = f"{row.setup:.3g}" if row.solves else "–"
    wrong = "residual above the tolerance" if row.residual > 1 else ""
    remarks = "; ".join(filter(None, (row.remark, row.replaced, wrong)))
    cells = [size, method.name, training, setup, *solves, remarks]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Tables of the families that are named, or of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("families", nargs="*", choices=[*FAMILIES, []], default=[])
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--directions", nargs="+", default=[])
    parser.add_argument("--learned", nargs="+", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.families or FAMILIES:
        table(name, options.sizes, options)


if __name__ == "__main__":
    main()
