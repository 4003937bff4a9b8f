"""One million triangles end to end, stage by stage, beside the same in plain libraries.

    python benchmarks/meshes.py [--side 708] [--repeat 3] [--only orders,poisson,elasticity]

Poisson and plane-strain elasticity (P1, a unit square, 2 side^2 triangles, tolerance 1e-8) from a
mesh file to the solution: this package; scikit-fem with PyAMG and SciPy's CG; TensorMesh with
torch-sla, where they can be imported. Programs take turns, are stopped after 300 CPU seconds, and
show the best of the repetitions.
``orders``: observed orders of convergence of all elements against smooth solutions.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import meshio
import numpy as np
import scipy.sparse.linalg
import skfem
import torch

import sciml
from sciml import solvers
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.mesh import Element, Mesh, determinants, edge_vectors
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import Condition, Problem
from sciml.core.problem.quadrature import relative_error

RTOL = 1e-8
LIMIT = 300.0  # CPU seconds for one program
BULK, SHEAR = 0.3 / (1.3 * 0.4), 1 / 2.6  # of E = 1, nu = 0.3
STAGES = ("read", "assemble", "set up", "solve")
Row = dict[str, float]


class Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self.row: Row = {}
        self.start = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.row[stage] = now - self.start
        self.start = time.perf_counter()


def write_square(path: Path, side: int) -> None:
    """The unit square, its inner points moved at random by up to a fifth of their distance."""
    ticks = np.linspace(0, 1, side + 1)
    made = skfem.MeshTri.init_tensor(ticks, ticks)
    points = np.pad(made.p.T, ((0, 0), (0, 1)))
    cells, outer = made.t.T.copy(), made.facets[:, made.boundary_facets()].T
    inner = ((points[:, :2] > 1e-12) & (points[:, :2] < 1 - 1e-12)).all(axis=1)
    shift = np.random.default_rng(0).uniform(-0.2 / side, 0.2 / side, (int(inner.sum()), 2))
    points[inner, :2] += shift
    a, b, c = (points[k] for k in cells.T)
    clockwise = np.cross(b - a, c - a)[:, 2] < 0
    cells[clockwise] = cells[clockwise][:, ::-1]
    left = (points[outer][:, :, 0] < 1e-12).all(axis=1)
    tags = [np.full(len(cells), 1), np.full(left.sum(), 2), np.full((~left).sum(), 3)]
    tags = [t.astype(np.int32) for t in tags]
    blocks = [("triangle", cells), ("line", outer[left]), ("line", outer[~left])]
    mesh = meshio.Mesh(
        points,
        blocks,
        cell_data={"gmsh:physical": tags, "gmsh:geometrical": tags},
        field_data={"square": np.array([1, 2]), "left": np.array([2, 1]), "rest": np.array([3, 1])},
    )
    meshio.write(path, mesh, file_format="gmsh22")


def ours(path: Path, elastic: bool) -> Row:
    clock = Clock()
    mesh = read_mesh(path)
    clock.lap("read")
    if elastic:
        boundary = {"left": Condition(dirichlet=(0.0, 0.0)), "rest": Condition(neumann=0.0)}
        problem = Problem(None, Elasticity(1.0, 0.3, (0.0, -1.0)), boundary)
    else:
        boundary = {"left": Condition(dirichlet=0.0), "rest": Condition(dirichlet=0.0)}
        problem = Problem(None, Equation(f=1.0), boundary)
    system = sciml.discretize(problem, mesh)
    clock.lap("assemble")
    solver = solvers.CG(preconditioner=solvers.AMG(), rtol=RTOL)
    state = solver.init(system)
    clock.lap("set up")
    solution = solver.run(state)
    clock.lap("solve")
    return {
        **clock.row,
        "iterations": float(solution.stats.iterations),
        "residual": float(solution.residual),
        "max": float(solution.value.abs().max()),
    }


def plain(path: Path, elastic: bool) -> Row:
    """scikit-fem and PyAMG as their documentation shows them."""
    import pyamg
    from skfem.models.elasticity import linear_elasticity
    from skfem.models.poisson import laplace, unit_load

    clock = Clock()
    mesh = skfem.MeshTri.load(path)
    clock.lap("read")
    if elastic:
        basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementTriP1()))
        A = linear_elasticity(BULK, SHEAR).assemble(basis)
        b = skfem.LinearForm(lambda v, _: -v[1]).assemble(basis)
        fixed = basis.get_dofs(lambda x: x[0] < 1e-12).flatten()
    else:
        basis = skfem.Basis(mesh, skfem.ElementTriP1())
        A, b = laplace.assemble(basis), unit_load.assemble(basis)
        fixed = basis.get_dofs().flatten()
    A, b, x, free = skfem.condense(A, b, D=fixed)
    clock.lap("assemble")
    if elastic:
        near = rigid(basis.doflocs[:, ::2].T)[free]
        hierarchy = pyamg.smoothed_aggregation_solver(A.tobsr((2, 2)), B=near)
    else:
        hierarchy = pyamg.smoothed_aggregation_solver(A)
    M = hierarchy.aspreconditioner()
    clock.lap("set up")
    count = [0]
    x[free], _ = scipy.sparse.linalg.cg(
        A, b, rtol=RTOL, M=M, callback=lambda _: count.__setitem__(0, count[0] + 1)
    )
    clock.lap("solve")
    residual = np.linalg.norm(b - A @ x[free]) / np.linalg.norm(b)
    return {
        **clock.row,
        "iterations": float(count[0]),
        "residual": float(residual),
        "max": float(np.abs(x).max()),
    }


def rigid(points: np.ndarray) -> np.ndarray:
    modes = np.zeros((len(points), 2, 3))
    modes[:, 0, 0] = modes[:, 1, 1] = 1
    modes[:, 0, 2], modes[:, 1, 2] = -points[:, 1], points[:, 0]
    return modes.reshape(-1, 3)


def tensormesh(path: Path, elastic: bool) -> Row:
    """TensorMesh's assembly, torch-sla's own conjugate gradients."""
    import tensormesh as tm

    torch.set_default_dtype(torch.float64)
    clock = Clock()
    raw = meshio.read(path)
    points, cells = raw.points[:, :2], [("triangle", raw.get_cells_type("triangle"))]
    mesh = tm.Mesh(meshio.Mesh(points, cells))
    clock.lap("read")
    x = mesh.points
    left = x[:, 0] < 1e-12
    if elastic:
        kind = tm.LinearElasticityElementAssembler
        K = kind.from_mesh(mesh, E=1.0, nu=0.3)(x)
        fixed = left[:, None].expand(-1, 2).reshape(-1)
    else:
        K = tm.LaplaceElementAssembler.from_mesh(mesh)(x)
        fixed = left | (x[:, 0] > 1 - 1e-12) | (x[:, 1] < 1e-12) | (x[:, 1] > 1 - 1e-12)
    load = tm.const_node_assembler(1.0).from_mesh(mesh)(x)
    if elastic:
        load = torch.stack([torch.zeros_like(load), -load], dim=-1).reshape(-1)
    condenser = tm.Condenser(fixed)
    A, b = condenser(K, load)
    clock.lap("assemble")
    clock.row["set up"] = 0.0
    # Its PyAMG backend repeats V cycles, which do not converge on these meshes.
    u = A.solve(b, backend="pytorch", method="cg", atol=RTOL * float(b.norm()), tol=RTOL)
    clock.lap("solve")
    return {
        **clock.row,
        "iterations": float("nan"),
        "residual": float((A @ u - b).norm() / b.norm()),
        "max": float(condenser.recover(u).abs().max()),
    }


PROGRAMS: dict[str, Callable[[Path, bool], Row]] = {
    "sciml": ours,
    "scikit-fem + PyAMG": plain,
    "TensorMesh + torch-sla": tensormesh,
}


def stop(number: int, frame: object) -> None:
    raise TimeoutError(f"stopped after {LIMIT} CPU seconds")


def timings(side: int, repeat: int, elastic: bool) -> str:
    names = ("program", *STAGES, "total", "iterations", "true residual", "max |u|")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    rows: dict[str, list[Row]] = {name: [] for name in PROGRAMS}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "square.msh"
        write_square(path, side)
        for _ in range(repeat):
            for name, program in PROGRAMS.items():
                if name in failed:
                    continue
                signal.setitimer(signal.ITIMER_PROF, LIMIT)
                try:
                    rows[name].append(program(path, elastic))
                except Exception as error:
                    failed[name] = f"{type(error).__name__}: {error}"[:100]
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0)
    for name, found in rows.items():
        if not found:
            lines.append(f"| {name} | not run: {failed[name]} |")
            continue
        best = min(found, key=lambda row: sum(row[s] for s in STAGES))
        cells = [f"{best[stage]:.2f}" for stage in STAGES]
        cells += [f"{sum(best[s] for s in STAGES):.2f}", f"{best['iterations']:.0f}"]
        lines.append(
            f"| {name} | {' | '.join(cells)} | {best['residual']:.1e} | {best['max']:.6g} |"
        )
    return "\n".join(lines)


def cube(n: int, d: int, element: Element) -> Mesh:
    kind = {1: skfem.MeshLine, 2: skfem.MeshTri, 3: skfem.MeshTet}[d]
    made = kind.init_tensor(*[np.linspace(0, 1, n + 1)] * d)
    points, cells = made.p.T.copy(), made.t.T.astype(np.int64)
    negative = determinants(edge_vectors(points, cells)) < 0
    cells[negative] = cells[negative][:, [1, 0, *range(2, d + 1)]]
    return Mesh(points, cells, element=element)


def wave_problem(d: int, elastic: bool) -> tuple[Problem, Callable[..., torch.Tensor]]:
    """u = a sin(k . x), which solves -Lap u + u = (k.k + 1) u, or elasticity of its own force."""
    k, a = np.array([2.0, 3.0, 1.0])[:d], np.array([1.0, -0.5, 0.7])[:d]
    phase = " + ".join(f"{s}*{x}" for s, x in zip(k, "xyz", strict=False))

    def scalar(*x: torch.Tensor) -> torch.Tensor:
        return torch.sin(sum(s * axis for s, axis in zip(k, x, strict=True)))  # type: ignore

    if not elastic:
        form = Equation(c=1.0, f=f"{k @ k + 1}*sin({phase})")
        return Problem(None, form, {"boundary": Condition(dirichlet=f"sin({phase})")}), scalar
    force = (BULK + SHEAR) * k * (k @ a) + SHEAR * (k @ k) * a
    body = Elasticity(1.0, 0.3, tuple(f"{s}*sin({phase})" for s in force))
    fixed = Condition(dirichlet=tuple(f"{s}*sin({phase})" for s in a))
    weights = torch.from_numpy(a)
    return Problem(None, body, {"boundary": fixed}), lambda *x: torch.stack(
        [weight * scalar(*x) for weight in weights]
    )


def orders() -> str:
    """Relative errors on two meshes and the order between them: of u in L2, of its gradient."""
    lines = [
        "| equation | element | cells | L2 error | order | H1 error | order |",
        "|---|---|---|---|---|---|---|",
    ]
    sizes: dict[int, tuple[int, int]] = {1: (64, 128), 2: (32, 64), 3: (8, 16)}
    cases = [(d, elastic) for elastic in (False, True) for d in (1, 2, 3) if d > elastic]
    for d, elastic in cases:
        for element in ("P1", "P2"):
            problem, exact = wave_problem(d, elastic)
            found = []
            for n in sizes[d]:
                mesh = cube(n, d, element)  # type: ignore[arg-type]
                solver = solvers.CG(preconditioner=solvers.AMG(), rtol=1e-10)
                value = sciml.solve(problem, solver, on=mesh).value
                pair = [relative_error(mesh, value, exact, slope=s) for s in (False, True)]
                found.append([float(error) for error in pair])
            rate = np.log2(np.array(found[0]) / np.array(found[1]))
            last, name = found[1], "elasticity" if elastic else "scalar"
            lines.append(
                f"| {name} {d}-D | {element} | {len(mesh.cells):,} "
                f"| {last[0]:.2e} | {rate[0]:.2f} | {last[1]:.2e} | {rate[1]:.2f} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=708)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default="orders,poisson,elasticity")
    given = parser.parse_args()
    signal.signal(signal.SIGPROF, stop)
    for name in given.only.split(","):
        if name == "orders":
            print(f"\nOrders of convergence\n\n{orders()}", flush=True)
            continue
        title = f"{name.capitalize()}, {2 * given.side**2:,} P1 triangles, seconds per stage"
        print(f"\n{title}\n\n{timings(given.side, given.repeat, name == 'elasticity')}", flush=True)


if __name__ == "__main__":
    main()
