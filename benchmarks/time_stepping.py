"""Integrators in time: observed orders, exact solutions, and cost beside SciPy's. Prints Markdown.

python benchmarks/time_stepping.py            # all tables, a few minutes on one core
python benchmarks/time_stepping.py cost       # one of: time, reduction, space, burgers, waves, cost
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.integrate
import torch

from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.solution import Solution
from sciml.solvers import BDF, IMEX, SDIRK, RungeKutta, Verlet

LINE, INTERVAL = Box((0.0,), (1.0,)), Box((-1.0,), (1.0,))
PERIODIC, ZERO = Condition(periodic=True), Condition(dirichlet=0.0)
FINE = 1e-11  # local error of the runs that stand for the exact solution of the ODEs


def stated(box: Box, equation: Equation, side: Condition, end: float, initial: Any) -> Problem:
    return Problem(box, equation, dict.fromkeys(box.sides, side), time=Time(end), initial=initial)


def last(problem: Problem, solver: Any, *shape: int) -> torch.Tensor:
    return run(problem, solver, *shape).value.select(-len(shape) - 1, -1)


def run(problem: Problem, solver: Any, *shape: int) -> Solution:
    return solver.run(solver.init(problem, Grid(shape)))


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def orders(errors: list[float]) -> list[str]:
    return [f"{math.log2(a / b):.2f}" for a, b in pairwise(errors)]


def order_rows(
    problem: Problem, n: int, cases: list[tuple[str, Callable[[float], Any], int, int]]
) -> list[list[str]]:
    """Errors in time alone, against a run with tiny steps on the same grid."""
    exact = last(problem, RungeKutta(rtol=FINE, atol=1e-15), n)
    rows = []
    for name, make, theory, steps in cases:
        assert problem.time is not None
        errors = [
            gap(last(problem, make(problem.time.end / (steps * 2**k)), n), exact) for k in range(4)
        ]
        rows.append(
            [
                name,
                str(theory),
                str(steps),
                *(f"{e:.2e}" for e in errors),
                ", ".join(orders(errors)),
            ]
        )
    return rows


HEAD = ["method", "theory", "steps", "error", "1/2", "1/4", "1/8 of the step", "orders"]
TIGHT = 1e-10
STIFF: list[tuple[str, Callable[[float], Any], int, int]] = [
    ("SDIRK, order 4", lambda h: SDIRK(step=h, rtol=TIGHT), 4, 8),
    ("SDIRK, order 3", lambda h: SDIRK(step=h, rtol=TIGHT, order=3), 3, 8),
    ("BDF", lambda h: BDF(step=h, rtol=TIGHT), 2, 16),
    ("IMEX, order 4", lambda h: IMEX(step=h, rtol=TIGHT), 4, 8),
    ("IMEX, order 3", lambda h: IMEX(step=h, rtol=TIGHT, order=3), 3, 8),
]


def explicit(method: Any) -> Callable[[float], Any]:
    return lambda h: RungeKutta(step=h, method=method)


def in_time() -> None:
    """Allen-Cahn, periodic: stiff methods. Klein-Gordon: methods for waves."""
    cahn = Equation(kind="allen_cahn", K=1e-2, f="5*u - 5*u**3")
    problem = stated(INTERVAL, cahn, PERIODIC, 1.0, "0.5*cos(pi*x) + 0.2*sin(2*pi*x)")
    table("Order in time: Allen-Cahn, periodic, 65 nodes.", HEAD, order_rows(problem, 65, STIFF))
    gordon = Equation(kind="klein_gordon", f="-u**3")
    problem = stated(INTERVAL, gordon, PERIODIC, 1.0, {"u": "cos(pi*x)", "ut": "sin(2*pi*x)"})
    waves: list[tuple[str, Callable[[float], Any], int, int]] = [
        ("Runge-Kutta, Dormand-Prince", explicit("dormand_prince"), 5, 36),
        ("Runge-Kutta, Bogacki-Shampine", explicit("bogacki_shampine"), 3, 64),
        ("Runge-Kutta, classical", explicit("classical"), 4, 32),
        ("Runge-Kutta, strong stability", explicit("strong_stability"), 3, 64),
        ("Verlet", lambda h: Verlet(step=h), 2, 32),
        ("SDIRK, order 4", lambda h: SDIRK(step=h, rtol=TIGHT), 4, 16),
        ("SDIRK, order 3", lambda h: SDIRK(step=h, rtol=TIGHT, order=3), 3, 16),
        ("BDF", lambda h: BDF(step=h, rtol=TIGHT), 2, 64),
    ]
    rows = order_rows(problem, 33, waves)
    table("Order in time: Klein-Gordon u_tt - u_xx + u + u^3 = 0, periodic, 33 nodes.", HEAD, rows)


def reduction() -> None:
    """u = exp(x/2) sin(4 t + x) prescribed at both ends."""
    exact = "exp(x/2)*sin(4*t + x)"
    source = "4*exp(x/2)*cos(4*t + x) - exp(x/2)*(cos(4*t + x) - 0.75*sin(4*t + x))"
    for n in (33, 257):
        problem = stated(
            LINE, Equation(kind="heat", f=source), Condition(dirichlet=exact), 1.0,
            "exp(x/2)*sin(x)",
        )  # fmt: skip
        fine = last(problem, SDIRK(step=1 / 4096, rtol=1e-12), n)
        rows = []
        for name, make, theory, steps in STIFF:
            errors = [gap(last(problem, make(1 / (steps * 2**k)), n), fine) for k in range(4)]
            figures = [f"{e:.2e}" for e in errors]
            rows.append([name, str(theory), str(steps), *figures, ", ".join(orders(errors))])
        table(f"Order reduction: heat, Dirichlet data that move, {n} nodes.", HEAD, rows)


def in_space() -> None:
    cases: list[tuple[str, Problem, Any, Callable[[torch.Tensor], torch.Tensor]]] = [
        (
            "heat, Dirichlet",
            stated(LINE, Equation(kind="heat"), ZERO, 0.1, "sin(pi*x)"),
            SDIRK(rtol=1e-8),
            lambda x: math.exp(-0.1 * math.pi**2) * torch.sin(math.pi * x),
        ),
        (
            "heat, Neumann",
            stated(LINE, Equation(kind="heat"), Condition(neumann=0.0), 0.1, "cos(pi*x)"),
            SDIRK(rtol=1e-8),
            lambda x: math.exp(-0.1 * math.pi**2) * torch.cos(math.pi * x),
        ),
        (
            "wave, Dirichlet",
            stated(LINE, Equation(kind="wave"), ZERO, 0.7, {"u": "sin(pi*x)"}),
            RungeKutta(rtol=1e-8),
            lambda x: math.cos(0.7 * math.pi) * torch.sin(math.pi * x),
        ),
        (
            "advection, periodic",
            stated(LINE, Equation(kind="advection", b=(1.0,)), PERIODIC, 1.0, "sin(2*pi*x)"),
            RungeKutta(rtol=1e-6),
            lambda x: torch.sin(2 * math.pi * x),
        ),
    ]
    rows = []
    for name, problem, solver, exact in cases:
        errors = []
        for n in (33, 65, 129, 257):
            solution = run(problem, solver, n)
            (x,) = solution.on.coordinates()  # type: ignore[union-attr]
            errors.append(gap(solution.value[-1], exact(x)))
        rows.append([name, *(f"{e:.2e}" for e in errors), ", ".join(orders(errors))])
    table("Order in space (relative L2 error).", ["", "33", "65", "129", "257", "orders"], rows)


def cole_hopf(x: torch.Tensor, t: float, nu: float) -> torch.Tensor:
    """Basdevant et al. 1986, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite.hermgauss(200)
    places = math.pi * (x[:, None] - torch.tensor(nodes * math.sqrt(4 * nu * t)))
    power = -torch.cos(places) / (2 * math.pi * nu)
    kernel = torch.tensor(weights) * torch.exp(power - power.amax(1, keepdim=True))
    return -(kernel * torch.sin(places)).sum(1) / kernel.sum(1)


def burgers() -> None:
    nu, rows = 0.01 / math.pi, []
    for n in (257, 513, 1025, 2049):
        for solver in (IMEX(rtol=1e-7), SDIRK(rtol=1e-7)):
            problem = stated(INTERVAL, Equation(kind="burgers", K=nu), ZERO, 1.0, "-sin(pi*x)")
            start = time.perf_counter()
            solution = run(problem, solver, n)
            seconds = time.perf_counter() - start
            (x,) = solution.on.coordinates()  # type: ignore[union-attr]
            error = solution.value[-1] - cole_hopf(x, 1.0, nu)
            relative = gap(solution.value[-1], cole_hopf(x, 1.0, nu))
            steps = int(solution.stats.iterations)
            rows.append(
                [str(n), solver.kind, str(steps), f"{relative:.2e}",
                 f"{float(error.abs().max()):.2e}", f"{seconds:.1f}"]
            )  # fmt: skip
    head = ["nodes", "solver", "steps", "relative L2 error", "largest error", "seconds"]
    table("Burgers, nu = 0.01 / pi, t = 1, against Cole and Hopf.", head, rows)


def waves() -> None:
    """The sine-Gordon breather, one period."""
    w = 0.8
    s = math.sqrt(1 - w * w)
    first = f"4*atan({s / w}*2/(exp({s}*x) + exp(-{s}*x)))"
    equation, rows = Equation(kind="klein_gordon", f="u - sin(u)"), []
    for n in (257, 513, 1025):
        for solver in (RungeKutta(rtol=1e-8), SDIRK(rtol=1e-8), Verlet()):
            problem = stated(Box((-20.0,), (20.0,)), equation, ZERO, 2 * math.pi / w, {"u": first})
            start = time.perf_counter()
            solution = run(problem, solver, n)
            seconds = time.perf_counter() - start
            error = gap(solution.value[-1], solution.value[0])
            steps = int(solution.stats.iterations)
            rows.append([str(n), solver.kind, str(steps), f"{error:.3e}", f"{seconds:.1f}"])
    head = ["nodes", "solver", "steps", "relative L2 error", "seconds"]
    table("Klein-Gordon u_tt - u_xx + sin u = 0: a breather after one period.", head, rows)


def cost() -> None:
    """Allen-Cahn in 2-D, 129 x 129 nodes, Neumann sides: error in time against seconds."""
    box = Box((0.0, 0.0), (1.0, 1.0))
    equation = Equation(kind="allen_cahn", K=1e-2, f="5*u - 5*u**3")
    first = "0.5*cos(3*pi*x)*cos(2*pi*y) + 0.1*cos(pi*x)"
    problem = stated(box, equation, Condition(neumann=0.0), 1.0, first)
    n = 129
    exact = last(problem, RungeKutta(rtol=1e-10), n, n)
    rows = []
    for solver in (
        IMEX(rtol=1e-4), IMEX(rtol=1e-6), SDIRK(rtol=1e-4), SDIRK(rtol=1e-6), BDF(rtol=1e-5),
        RungeKutta(rtol=1e-6),
    ):  # fmt: skip
        state = solver.init(problem, Grid((n, n)))
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            solution = solver.run(state)
            seconds.append(time.perf_counter() - start)
        note = next(note for note in solution.notes if note.startswith(solver.kind))
        rows.append(
            [f"{solver.kind}, rtol {solver.rtol:g}", str(int(solution.stats.iterations)),
             f"{gap(solution.value[-1], exact):.1e}", f"{min(seconds):.2f}", note.split("; ")[-1]]
        )  # fmt: skip
    rows += _scipy_rows(problem, n, exact)
    head = ["solver", "steps", "relative error in time", "seconds (least of 3)", "work"]
    table("Cost: Allen-Cahn in 2-D, 129 x 129 nodes, t = 1.", head, rows)


def _scipy_rows(problem: Problem, n: int, exact: torch.Tensor) -> list[list[str]]:
    """The same ODEs by SciPy with the sparse Jacobian of the same discretisation."""
    from sciml.discretization import semidiscretize

    system = semidiscretize(problem, Grid((n, n)))
    mass = system.mass.expand(system.shape)  # type: ignore[union-attr]

    def rate(t: float, y: np.ndarray) -> np.ndarray:
        u = torch.from_numpy(y.reshape(system.shape).copy())
        return (-system.residual(u, t) / mass).numpy().ravel()

    def jacobian(t: float, y: np.ndarray) -> Any:
        u = torch.from_numpy(y.reshape(system.shape).copy())
        matrix = system.linearise(u, t).to_scipy()
        return (-matrix.multiply(1 / mass.numpy().ravel()[:, None])).tocsc()

    rows = []
    for rtol in (1e-4, 1e-6):
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            found = scipy.integrate.solve_ivp(
                rate, (0, 1), system.first[0].numpy().ravel(), "BDF",
                rtol=rtol, atol=rtol * 1e-2, jac=jacobian, t_eval=[1.0],
            )  # fmt: skip
            seconds.append(time.perf_counter() - start)
        value = system.lift(torch.from_numpy(found.y[:, -1].reshape(system.shape)), 1.0)
        rows.append(
            [f"SciPy BDF, rtol {rtol:g}", "", f"{gap(value, exact):.1e}", f"{min(seconds):.2f}",
             f"{found.nlu} factorisations, {found.nfev} evaluations"]
        )  # fmt: skip
    return rows


TABLES = {
    "time": in_time,
    "reduction": reduction,
    "space": in_space,
    "burgers": burgers,
    "waves": waves,
    "cost": cost,
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or TABLES:
        TABLES[name]()


if __name__ == "__main__":
    main()
