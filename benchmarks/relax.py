"""Learning to Relax on an implicit heat simulation, against fixed omegas and deflation.

    u_t = c(t) Lap u + f,    c(t) = max(0.1 sin 2 pi t, -10 sin 2 pi t),

on the unit square, zero on its sides, a bump moving in a circle as the source, Crank-Nicolson: the
simulation of arXiv 2310.02246, section 4.2, with 200 steps of 0.025. Every step is a new matrix,
I - c dt/2 Lap, started from the last solution. Counted: iterations of all steps to a relative
residual of 1e-8; regret against the best fixed omega, which is known afterwards only.

OMP_NUM_THREADS=1 python benchmarks/relax.py [--points 63] > results.md
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.run.solution import Solution
from sciml.solvers import CG, SSOR, DeflatedCG, IncompleteCholesky, LearnToRelax, Multigrid
from sciml.solvers.linear.iteration import LinearSolver, LinearState

STEPS, END = 200, 5.0
SEEDS = (0, 1, 2)
CONTEXTS = (-3.0, 1.01)  # the logarithm of c


def coefficient(t: float) -> float:
    """The diffusion coefficient c."""
    return max(0.1 * math.sin(2 * math.pi * t), -10 * math.sin(2 * math.pi * t), 1e-3)


def bump(points: int, centre: tuple[float, float], width: float) -> torch.Tensor:
    """A smooth bump of height one on the interior nodes."""
    x = torch.arange(1, points + 1, dtype=torch.float64) / (points + 1)
    square = ((x[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2
    return torch.where(square < 1, torch.exp(1 - 1 / (1 - square).clamp(min=1e-9)), 0.0)


def laplacian(points: int) -> Stencil:
    """-Lap on the interior nodes."""
    planes = torch.tensor([4.0, -1.0, -1.0, -1.0, -1.0], dtype=torch.float64) * (points + 1) ** 2
    wide = planes[:, None, None].expand(5, points, points)
    return Stencil(wide, cross_offsets(2), symmetric=True, definite=True)


def step_matrix(K: Stencil, scale: float) -> Stencil:
    """``I + scale K``."""
    planes = scale * K.coefficients[:, :1, :1]
    planes = planes + torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)[:, None, None]
    return Stencil(planes.expand(5, *K.shape), K.offsets, symmetric=True, definite=True)


Answer = Callable[[LinearSystem, float, torch.Tensor], Solution]


def simulate(points: int, answer: Answer) -> Iterator[Solution]:
    """The solutions of all steps, each answered by ``answer(system, context, initial)``."""
    K, dt = laplacian(points), END / STEPS
    u = bump(points, (0.5, 0.5), 0.25)
    for k in range(STEPS):
        t = (k + 0.5) * dt
        c, angle = coefficient(t), 16 * math.pi * t
        place = 0.5 + math.cos(angle) / 4, 0.5 + math.sin(angle) / 4
        source = 32 * bump(points, place, 0.125)
        b = u - 0.5 * c * dt * K.apply(u) + dt * source
        solution = answer(LinearSystem(step_matrix(K, 0.5 * c * dt), b), math.log10(c), u)
        u = solution.value
        yield solution


def fixed(solver: LinearSolver) -> Answer:
    """Every step set up and solved on its own."""
    return lambda system, context, u: solver.run(solver.init(system), initial=u)


def learning(solver: Any) -> Answer:
    """Every step's set-up follows that of the step before."""
    held: list[LinearState] = []

    def answer(system: LinearSystem, context: float, u: torch.Tensor) -> Solution:
        own = {"context": context} if isinstance(solver, LearnToRelax) else {}
        begin = solver.begin if own else solver.init
        state = solver.follow(held.pop(), system, **own) if held else begin(system, **own)
        held.append(state)
        return solver.run(state, initial=u)

    return answer


def total(points: int, answer: Answer) -> tuple[list[int], float, float]:
    """Iterations of every step, the products that deflation's bases took, and seconds."""
    begun, counts, more = time.process_time(), [], 0.0
    for solution in simulate(points, answer):
        assert solution.converged, solution.status
        counts.append(int(solution.stats.iterations))
        if isinstance(solution.solver, DeflatedCG):
            more += (solution.stats.work_units or 0.0) - counts[-1]
    return counts, more, time.process_time() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=63)
    points = parser.parse_args().points
    omegas = LearnToRelax().grid.tolist()
    found = {omega: total(points, fixed(CG(SSOR(omega)))) for omega in (*omegas, 1.5)}
    best = min(omegas, key=lambda omega: sum(found[omega][0]))
    target = sum(found[best][0])
    ideal = sum(min(costs) for costs in zip(*(found[o][0] for o in omegas), strict=True))

    def row(name: str, counts: list[int], more: float, seconds: float) -> None:
        whole = sum(counts)
        half = sum(counts[STEPS // 2 :]) - sum(found[best][0][STEPS // 2 :])
        print(
            f"| {name} | {whole} | {more:.0f} | {whole - target:+d} | {half:+d} | {seconds:.1f} |",
            flush=True,
        )

    print(f"{STEPS} steps, {points}^2 unknowns, relative residual 1e-8; omegas {omegas[0]:.3g} to")
    print(f"{omegas[-1]:.3g}, {len(omegas)} of them\n")
    print("| | iterations | other products | regret | in the second half | CPU s |")
    print("|---|---|---|---|---|---|")
    row("CG", *total(points, fixed(CG())))
    row("IC(0)-CG", *total(points, fixed(CG(IncompleteCholesky()))))
    for omega in (1.0, 1.5):
        row(f"SSOR-CG, omega {omega:g}", *found[omega])
    row(f"SSOR-CG, best fixed omega ({best:.3g})", *found[best])
    mean = sum(sum(found[o][0]) for o in omegas) / len(omegas)
    print(
        f"| SSOR-CG, omega drawn at random (expected) | {mean:.0f} | | {mean - target:+.0f} | | |"
    )
    print(f"| SSOR-CG, best omega of every step | {ideal} | | {ideal - target:+d} | | |")
    for seed in SEEDS:
        row(f"Tsallis-INF, seed {seed}", *total(points, learning(LearnToRelax(seed=seed))))
    for seed in SEEDS:
        solver = LearnToRelax(contexts=CONTEXTS, seed=seed)
        row(f"ChebCB, context log c, seed {seed}", *total(points, learning(solver)))
    for inner in (None, SSOR(1.5)):
        name = "deflated CG, last 10" + (", SSOR 1.5" if inner else "")
        row(name, *total(points, learning(DeflatedCG(preconditioner=inner))))
    row("multigrid-CG", *total(points, fixed(CG(Multigrid()))))


if __name__ == "__main__":
    main()
