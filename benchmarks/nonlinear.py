"""Nonlinear steady problems against exact solutions: errors, orders, Newton's iterations.

OMP_NUM_THREADS=1 python benchmarks/nonlinear.py > results.md
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem
from sciml.core.run.solution import Solution
from sciml.discretization.fields import values_on
from sciml.solvers import Newton
from sciml.solvers.nonlinear.descent import Continuation
from sciml.solvers.solve import solve

SIZES = (33, 65, 129, 257)
RADIAL = "-(p - 1)/p*0.5**(1/(p - 1))*(x**2 + y**2)**(p/(2*p - 2))"
SCHERK = "log(cos(x)/cos(y))"


def given(domain: Box, value: str | float) -> dict[str, Condition]:
    """The value on every side."""
    return dict.fromkeys(domain.sides, Condition(dirichlet=value))


def p_laplace(p: float, equation: Equation) -> Problem:
    """``-div(|grad u|^(p-2) grad u) = 1`` around the origin."""
    domain = Box((-1.0, -1.0), (1.0, 1.0))
    return Problem(domain, equation, given(domain, RADIAL), parameters={"p": p}, exact=RADIAL)


def scherk(equation: Equation) -> Problem:
    """The minimal surface over a square inside (-pi/2, pi/2)^2."""
    domain = Box((-1.2, -1.2), (1.2, 1.2))
    return Problem(domain, equation, given(domain, SCHERK), exact=SCHERK)


def bratu(lam: float, dimension: int) -> Problem:
    """``-Lap u = lam exp(u)`` on the unit box, zero on its sides."""
    domain = Box((0.0,) * dimension, (1.0,) * dimension)
    return Problem(domain, Equation(kind="bratu"), given(domain, 0.0), parameters={"lam": lam})


def timed(problem: Problem, n: int) -> tuple[Solution, float]:
    """The solution on n nodes per axis, and the least seconds of three runs."""
    runs = []
    for _ in range(3):
        begun = time.perf_counter()
        solution = solve(problem, Newton(), on=Grid((n,) * problem.box.dimension), throw=False)
        runs.append(time.perf_counter() - begun)
    return solution, min(runs)


def table(title: str, problem: Problem, expected: str, sizes: Sequence[int] = SIZES) -> None:
    """Errors and orders on a row of grids."""
    print(f"\n{title}; order expected in the maximum norm {expected}\n")
    print("| nodes | max error | order | L2 error (relative) | order | iterations | inner | s |")
    print("|---|---|---|---|---|---|---|---|")
    before: tuple[float, float] | None = None
    for n in sizes:
        solution, seconds = timed(problem, n)
        grid = Grid((n, n)).bind(problem.box)
        exact = values_on(problem, grid, problem.exact, "problem.exact")
        errors = float((solution.value - exact).abs().max()), float(solution.error(exact))
        orders = (
            ["", ""]
            if before is None
            else [order(a, b) for a, b in zip(before, errors, strict=True)]
        )
        before = errors
        state = "" if solution.converged else f" {solution.status.name.lower()}"
        print(
            f"| {n}^2 | {errors[0]:.3e} | {orders[0]} | {errors[1]:.3e} | {orders[1]} | "
            f"{int(solution.stats.iterations)}{state} | {inner(solution)} | {seconds:.2f} |",
            flush=True,
        )


def order(coarse: float, fine: float) -> str:
    """Observed order of an error under halving of the spacing."""
    return f"{math.log2(coarse / fine):.2f}"


def inner(solution: Solution) -> str:
    """The linear solver's iterations as the solution notes them."""
    (note,) = [note for note in solution.notes if note.startswith("newton:")]
    return note.removeprefix("newton: linear systems by ").removesuffix(" in all")


def peaks() -> None:
    """Bratu's lower branch, and where continuation stops at the fold."""
    print("\nBratu's problem on the lower branch: the largest u\n")
    print("| lam | d | nodes | max u | iterations |\n|---|---|---|---|---|")
    for lam, d, sizes in ((1.0, 1, (129, 513)), (1.0, 2, (129, 257)), (6.8, 2, (65, 129, 257))):
        for n in sizes:
            solution, _ = timed(bratu(lam, d), n)
            peak = float(solution.value.max())
            print(f"| {lam:g} | {d} | {n}^{d} | {peak:.6f} | {int(solution.stats.iterations)} |")
    a = 0.0
    for _ in range(200):
        a = math.sqrt(1 / 8) * math.cosh(a)
    print(f"\nClosed form in one dimension at lam = 1: {2 * math.log(math.cosh(a)):.6f}.")
    print("\nContinuation from lam = 1 towards 8 (fold of the continuous problem: 6.808124)\n")
    print("| nodes | status | note | s |\n|---|---|---|---|")
    for n in (33, 65, 129):
        solver = Newton(continuation=Continuation("lam", 1.0, 7))
        begun = time.perf_counter()
        solution = solve(bratu(8.0, 2), solver, on=Grid((n, n)), throw=False)
        seconds = time.perf_counter() - begun
        print(f"| {n}^2 | {solution.status.name.lower()} | {solution.notes[-1]} | {seconds:.1f} |")


def main() -> None:
    """Print Markdown tables."""
    torch.set_num_threads(1)
    solve(bratu(1.0, 2), Newton(), on=Grid((65, 65)))  # kernels are compiled here
    print("Newton's method, rtol 1e-8; iterations include up to 4 of Picard's; least of 3 runs.")
    for p in (1.5, 3.0, 4.0):
        rate = f"{min(2.0, p / (p - 1)):.2f}"
        preset = Equation(kind="p_laplace", f=1.0)
        energy = Equation(energy="(ux**2 + uy**2 + 1e-12)**(p/2)/p - u")
        table(f"p-Laplace, p = {p:g}, fluxes", p_laplace(p, preset), rate)
        table(f"p-Laplace, p = {p:g}, energy", p_laplace(p, energy), rate)
    table("Scherk's surface, fluxes", scherk(Equation(kind="minimal_surface")), "2")
    table("Scherk's surface, energy", scherk(Equation(energy="sqrt(1 + ux**2 + uy**2)")), "2")
    peaks()


if __name__ == "__main__":
    main()
