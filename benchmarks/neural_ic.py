"""Neural incomplete Cholesky on finite elements: unseen meshes with random coefficients.

    python benchmarks/neural_ic.py matrices FOLDER --first 0 --count 64 --unknowns 400 1200
    sciml train configs/train/neural-ic.yaml --set data.folder=FOLDER --out runs/neural-ic-0
    OPENBLAS_NUM_THREADS=1 python benchmarks/neural_ic.py table --weights runs/neural-ic-{0,1,2}

Each matrix is of -div(K grad u) with P1 elements on a rectangle with up to three round holes, held
on some of its sides and rims; K is per element, lognormal or of two materials of contrast 10 to
1e4. The table is of 20 others, of 2,000 to 10,000 unknowns in Gmsh's order, with a right-hand side
of N(0, 1). Iterations to two relative residuals, recomputed in float64, are means; seconds are CPU
seconds of one thread, the least of ``--rounds`` with the methods in turn, and the mean over the
matrices. Where a method does not reach 1e-10 within 1,000 iterations, the table says so.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.problem.equation import Equation
from sciml.core.problem.geometry import Geometry, Hole
from sciml.core.problem.problem import Condition, Problem
from sciml.discretization import discretize
from sciml.solvers import AMG, CG, ILU, SSOR, BiCGStab, IncompleteCholesky, Jacobi, NeuralIC
from sciml.solvers.learned.neural_ic import KIND
from sciml.solvers.learned.weights import read_stored

TOLERANCES = (1e-6, 1e-10)
FIRST_TEST = 10_000
WAVES = 200
LONGEST = 1000  # iterations


def matrix(seed: int, smallest: float, largest: float) -> scipy.sparse.csr_matrix:
    """One matrix of the family, with about that many unknowns."""
    random = np.random.default_rng(seed)
    unknowns = np.exp(random.uniform(np.log(smallest), np.log(largest)))
    width = random.uniform(1, 2)
    holes: list[Hole] = []
    for _ in range(random.integers(0, 4)):
        x, y, r = random.uniform((0.2, 0.2, 0.05), (width - 0.2, 0.8, 0.18)).tolist()
        if all(np.hypot(x - h.circle[0], y - h.circle[1]) > r + h.circle[2] + 0.05 for h in holes):
            holes.append(Hole((x, y, r), name=f"hole {len(holes)}"))
    area = width - sum(np.pi * hole.circle[2] ** 2 for hole in holes)
    size = float(np.sqrt(area / (0.866 * unknowns)))  # of equilateral triangles
    mesh = Geometry(size, lower=(0.0, 0.0), upper=(width, 1.0), holes=tuple(holes)).mesh()
    field = waves(mesh.points[mesh.cells].mean(1), random)
    if seed % 2:
        contrast = 10 ** random.uniform(1, 4)
        K = np.where(field > random.uniform(-0.5, 0.5), contrast, 1.0)
    else:
        K = np.exp(random.uniform(0.5, 2) * field)
    held = [name for name in mesh.boundaries if random.random() < 0.6] or list(mesh.boundaries)[:1]
    sides = {
        name: Condition(dirichlet=0.0) if name in held else Condition(neumann=0.0)
        for name in mesh.boundaries
    }
    problem = Problem(None, Equation(K=torch.from_numpy(K), f=1.0), sides)
    found = discretize(problem, mesh).A.to_scipy()
    found.sum_duplicates()
    return found


def waves(points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A nearly Gaussian field of variance 1 at the points, of random correlation length."""
    length = np.exp(random.uniform(np.log(0.1), 0.0))
    frequencies = random.normal(size=(WAVES, 2)) * 2 * np.pi / length
    phases = random.uniform(0, 2 * np.pi, WAVES)
    return np.sqrt(2 / WAVES) * np.cos(points @ frequencies.T + phases).sum(1)


def write(folder: Path, first: int, count: int, unknowns: tuple[float, float]) -> None:
    """The matrices ``first`` to ``first + count`` as .npz."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        made = matrix(seed, *unknowns)
        scipy.sparse.save_npz(folder / f"{seed:05}.npz", made)
        print(f"{seed}: {made.shape[0]} unknowns", flush=True)


@dataclass(frozen=True)
class Row:
    """A method, and per matrix its set-up seconds and per tolerance (iterations, seconds)."""

    name: str
    solver: Any
    training: float | None = None
    setups: list[float] = field(default_factory=list)
    runs: dict[float, list[tuple[int, float]]] = field(
        default_factory=lambda: {t: [] for t in TOLERANCES}
    )
    failed: list[int] = field(default_factory=list)

    def measure(self, system: LinearSystem, number: int) -> None:
        """One more matrix; repeated measurements of one are merged by ``least``."""
        start = time.process_time()
        state = self.solver(TOLERANCES[-1]).init(system)
        self.setups.append(time.process_time() - start)
        for tolerance in TOLERANCES:
            solver = self.solver(tolerance)
            start = time.process_time()
            solution = solver.run(state)
            self.runs[tolerance].append(
                (int(solution.stats.iterations), time.process_time() - start)
            )
            if not solution.converged and number not in self.failed:
                self.failed.append(number)

    def least(self, rounds: int) -> None:
        """The last ``rounds`` measurements, of one matrix, as one."""
        self.setups[-rounds:] = [min(self.setups[-rounds:])]
        for own in self.runs.values():
            own[-rounds:] = [(own[-1][0], min(seconds for _, seconds in own[-rounds:]))]

    def markdown(self) -> str:
        """The table's line."""
        cells = [f"{1e3 * np.mean(self.setups):.1f}"]
        for own in self.runs.values():
            iterations, seconds = np.mean(own, axis=0)
            cells += [f"{iterations:.1f}", f"{1e3 * seconds:.1f}"]
        training = "" if self.training is None else f"{self.training:.0f} s"
        note = f" ({len(self.failed)} not solved)" if self.failed else ""
        return f"| {self.name}{note} | " + " | ".join([*cells, training]) + " |"


def methods(weights: list[str], baselines: bool) -> list[Row]:
    """What is compared; without ``baselines`` only the nearest of them."""
    ordering = "reverse_cuthill_mckee"
    known = {
        "CG": None,
        "Jacobi-CG": Jacobi(),
        "SSOR-CG": SSOR(),
        "IC(0)-CG": IncompleteCholesky(),
        "IC(0)-CG, reordered": IncompleteCholesky(ordering=ordering),
        "relaxed IC(0)-CG, 0.98": IncompleteCholesky(0.98),
        "relaxed IC(0)-CG, 0.98, reordered": IncompleteCholesky(0.98, ordering),
        "PyAMG SA-CG": AMG(method="smoothed_aggregation"),
        "PyAMG RS-CG": AMG(method="ruge_stuben"),
    }
    rows = [Row(k, conjugate(M)) for k, M in known.items() if baselines or "reordered" in k]
    if baselines:
        rows.append(Row("ILU-BiCGStab", unsymmetric))
    for path in weights:
        how = read_stored(path, KIND).provenance["training"]
        base = f"relaxed {how['relaxation']:g}" if how["relaxation"] else "plain"
        name = f"neural IC-CG on {base} IC(0), {how['loss']}, seed {how['seed']}"
        rows.append(Row(name, conjugate(NeuralIC(path)), trained(path)))
    return rows


def conjugate(M: Any) -> Any:
    """CG with the preconditioner, for a tolerance."""
    return lambda rtol: CG(M, rtol=rtol, max_iterations=LONGEST)


def unsymmetric(rtol: float) -> BiCGStab:
    """ILU's factor is not symmetric."""
    return BiCGStab(ILU(), rtol=rtol, max_iterations=LONGEST)


def trained(path: str) -> float:
    """CPU seconds of the whole training."""
    history = Path(path) / "history.csv"
    names, *rows = history.read_text().split()
    return float(rows[-1].split(",")[names.split(",").index("cpu_seconds")])


def table(weights: list[str], count: int, rounds: int, baselines: bool) -> None:
    """Measure, and print after every matrix."""
    rows = methods(weights, baselines)
    sizes = []
    for number in range(count):
        A = SparseMatrix(matrix(FIRST_TEST + number, 2000, 10_000), symmetric=True, definite=True)
        b = np.random.default_rng(number).standard_normal(A.size)
        system = LinearSystem(A, torch.from_numpy(b))
        sizes.append(A.size)
        if number == 0:  # kernels are compiled or read from disk
            for row in rows:
                row.solver(0.1).run(row.solver(0.1).init(system))
        for _ in range(rounds):
            for row in rows:
                row.measure(system, number)
        for row in rows:
            row.least(rounds)
        report(rows, sizes)


def report(rows: list[Row], sizes: list[int]) -> None:
    """The table so far."""
    print(f"\n{len(sizes)} matrices of {min(sizes):,} to {max(sizes):,} unknowns\n")
    print("| | set-up ms | iterations, 1e-6 | ms | iterations, 1e-10 | ms | training |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(row.markdown() for row in rows), flush=True)


def main() -> None:
    """Make matrices, or tabulate."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("matrices")
    making.add_argument("folder", type=Path)
    making.add_argument("--first", type=int, default=0)
    making.add_argument("--count", type=int, default=64)
    making.add_argument("--unknowns", type=float, nargs=2, default=(400, 1200))
    tabling = commands.add_parser("table")
    tabling.add_argument("--weights", nargs="*", default=[])
    tabling.add_argument("--count", type=int, default=20)
    tabling.add_argument("--rounds", type=int, default=3)
    tabling.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    if given.command == "matrices":
        write(given.folder, given.first, given.count, tuple(given.unknowns))
    else:
        table(given.weights, given.count, given.rounds, given.baselines)


if __name__ == "__main__":
    main()
