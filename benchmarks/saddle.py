"""Saddle points on meshes: steps and seconds by blocks, beside a factorisation of the same matrix.

    python benchmarks/saddle.py [--plane 32 64 128] [--space 4 8 12] [--most 40000] [--keep]

Stokes' flow through a square and a cube, Taylor and Hood's elements, to a relative residual of
1e-8; and Newton's method for the flow in a driven cavity, with the steps of its linear systems.
``--keep`` writes the tables into ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import datetime
import time

import numpy as np
import results
import scipy.sparse.linalg
import skfem

import sciml
from sciml.core.problem.equation import NavierStokes, Stokes
from sciml.discretization import discretize
from sciml.solvers import GMRES, MINRES, Newton
from sciml.solvers.linear.saddle import SaddlePoint, blocked

MACHINE = "2 shared x86-64 cores, one thread, no GPU"
NAMES = ("left", "right", "bottom", "top", "front", "back")


def mesh(d: int, n: int) -> sciml.Mesh:
    """The unit square or cube."""
    line = np.linspace(0, 1, n + 1)
    made = (skfem.MeshTri if d == 2 else skfem.MeshTet).init_tensor(*[line] * d)
    outer = made.boundary_facets()
    middle = made.p[:, made.facets[:, outer]].mean(1)
    sides = {
        NAMES[2 * a + k]: made.facets[:, outer[abs(middle[a] - k) < 1e-9]].T
        for a in range(d)
        for k in (0, 1)
    }
    return sciml.Mesh(made.p.T.copy(), made.t.T.copy(), boundaries=sides, element="P2")


def walls(d: int) -> dict[str, sciml.Condition]:
    """At rest on all sides."""
    return {name: sciml.Condition(dirichlet=0.0) for name in NAMES[: 2 * d]}


def stokes(d: int, n: int, most: int) -> list[str]:
    """Dimension, unknowns, steps and seconds by MINRES, by GMRES, and factorised."""
    across = "y*(1 - y)" + ("*z*(1 - z)" if d == 3 else "")
    through = {
        "left": sciml.Condition(dirichlet=[across, *[0.0] * (d - 1)]),
        "right": sciml.Condition(neumann=0.0),
    }
    system = discretize(sciml.Problem(None, Stokes(), {**walls(d), **through}), mesh(d, n))
    entries = [f"{d}", f"{system.A.size:,}"]
    solvers: tuple[MINRES | GMRES, ...] = (MINRES(SaddlePoint()), blocked(1e-8))
    for solver in solvers:
        begun = time.process_time()
        solution = solver.run(solver.init(system))
        entries.append(f"{int(solution.stats.iterations)}, {time.process_time() - begun:.2f} s")
        assert solution.converged
    direct = "-"
    if system.A.size <= most:
        begun = time.process_time()
        scipy.sparse.linalg.splu(system.A.to_scipy().tocsc()).solve(system.b.numpy())
        direct = f"{time.process_time() - begun:.2f} s"
    return [*entries, direct]


def cavity(n: int, viscosity: float) -> list[str]:
    """One row: unknowns, Newton's steps, what the linear systems took."""
    lid = sciml.Condition(dirichlet=["16*x**2*(1 - x)**2", 0])
    problem = sciml.Problem(None, NavierStokes(viscosity), {**walls(2), "top": lid})
    begun = time.process_time()
    place = mesh(2, n)
    solution = Newton().run(Newton().init(problem, place))
    note = next(line for line in solution.notes if line.startswith("newton"))
    seconds = time.process_time() - begun
    unknowns = 3 * place.shape[0]
    return [f"{unknowns:,}", f"{int(solution.stats.iterations)}", note, f"{seconds:.1f} s"]


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--plane", type=int, nargs="*", default=[32, 64, 128])
    options.add_argument("--space", type=int, nargs="*", default=[4, 8, 12])
    options.add_argument("--most", type=int, default=40_000)
    options.add_argument("--keep", action="store_true")
    given = options.parse_args()
    sizes = [(2, n) for n in given.plane] + [(3, n) for n in given.space]
    tables = {
        "saddle": results.Table(
            "Stokes by blocks",
            str(datetime.date.today()),
            MACHINE,
            "python benchmarks/saddle.py --keep",
            ("d", "unknowns", "MINRES", "GMRES", "factorised"),
            [stokes(d, n, given.most) for d, n in sizes],
            "Steps, and seconds of the processor, set-up included.",
        ),
        "saddle-newton": results.Table(
            "Newton's method, driven cavity at Re 100",
            str(datetime.date.today()),
            MACHINE,
            "python benchmarks/saddle.py --keep",
            ("unknowns", "Newton", "linear systems", "seconds"),
            [cavity(n, 0.01) for n in given.plane],
            "Seconds of the processor.",
        ),
    }
    for name, table in tables.items():
        print(table.markdown())
        if given.keep:
            results.keep(name, table)


if __name__ == "__main__":
    main()
