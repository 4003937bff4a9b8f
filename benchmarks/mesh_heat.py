"""Heat in time on a million triangles, beside a loop of one's own: scikit-fem and PyAMG.

    python benchmarks/mesh_heat.py [--side 708] [--steps 50] [--rounds 3]

Both march the two-step backward differentiation formula with the same fixed step; the loop solves
every step by conjugate gradients with smoothed aggregation to a relative residual of 1e-8, started
from the step before. In turn, the least of the rounds counts.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import pyamg
import scipy.sparse.linalg
import skfem
from skfem.helpers import dot, grad

import sciml
from sciml.solvers import BDF

END, CONDUCTIVITY = 0.2, 0.1


def ours(mesh: skfem.MeshTri, steps: int) -> tuple[np.ndarray, float]:
    """The last frame and the seconds, reading the mesh aside."""
    edges = mesh.facets[:, mesh.boundary_facets()].T
    place = sciml.Mesh(mesh.p.T, mesh.t.T, boundaries={"rim": edges})
    problem = sciml.Problem(
        None,
        sciml.Equation(d=1.0, K=CONDUCTIVITY),
        {"rim": sciml.Condition(dirichlet=0.0)},
        time=sciml.Time(END),
        initial="sin(pi*x)*sin(pi*y)",
    )
    start = time.perf_counter()
    solver = BDF(rtol=1e-5, step=END / steps)  # stages are solved to a hundredth of rtol
    solution = solver.run(solver.init(problem, place))
    return solution.value[-1].numpy(), time.perf_counter() - start


def loop(mesh: skfem.MeshTri, steps: int) -> tuple[np.ndarray, float]:
    """The same by hand."""
    start = time.perf_counter()
    basis = skfem.Basis(mesh, skfem.ElementTriP1())
    K = skfem.BilinearForm(lambda u, v, w: CONDUCTIVITY * dot(grad(u), grad(v))).assemble(basis)
    M = skfem.BilinearForm(lambda u, v, w: u * v).assemble(basis)
    inner = basis.complement_dofs(basis.get_dofs())
    K, M = (matrix[inner][:, inner].tocsr() for matrix in (K, M))
    h = END / steps
    x, y = mesh.p[:, inner]
    before = np.sin(np.pi * x) * np.sin(np.pi * y)

    def solver(A: scipy.sparse.csr_matrix):
        cycle = pyamg.smoothed_aggregation_solver(A, B=np.ones((A.shape[0], 1))).aspreconditioner()
        return lambda b, guess: scipy.sparse.linalg.cg(A, b, guess, rtol=1e-8, M=cycle)[0]

    now = solver(M + h * K)(M @ before, before)
    solve = solver((M + 2 / 3 * h * K).tocsr())
    for _ in range(steps - 1):
        before, now = now, solve(M @ ((4 * now - before) / 3), 2 * now - before)
    whole = np.zeros(mesh.p.shape[1])
    whole[inner] = now
    return whole, time.perf_counter() - start


def main() -> None:
    """Print times, their ratio, and both errors."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=708)
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    line = np.linspace(0, 1, given.side + 1)
    mesh = skfem.MeshTri.init_tensor(line, line)
    exact = math.exp(-2 * CONDUCTIVITY * math.pi**2 * END)
    exact = exact * np.sin(np.pi * mesh.p[0]) * np.sin(np.pi * mesh.p[1])
    times: dict[str, list[float]] = {"sciml": [], "scikit-fem + PyAMG": []}
    for _ in range(given.rounds):
        for name, run in (("sciml", ours), ("scikit-fem + PyAMG", loop)):
            value, seconds = run(mesh, given.steps)
            error = float(np.linalg.norm(value - exact) / np.linalg.norm(exact))
            times[name].append(seconds)
            print(f"{name}: {seconds:.2f} s, error {error:.1e}", flush=True)
    least = {name: min(t) for name, t in times.items()}
    ratio = least["sciml"] / least["scikit-fem + PyAMG"]
    print(f"{mesh.t.shape[1]} triangles, {given.steps} steps: {least}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
