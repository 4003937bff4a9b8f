"""A PDE is stated once; any solver, classical or learned, answers it; every answer is verified.

    solution = sciml.solve(problem, solver, on=grid)

Names load on first use (PEP 562): importing this package loads neither torch nor matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciml import solvers
    from sciml.app.families import generate, load_family
    from sciml.app.spec import load_spec
    from sciml.core.discretize import discretize
    from sciml.core.discretize.elements_elasticity import stress, von_mises
    from sciml.core.equation import (
        Elasticity,
        Equation,
        Helmholtz,
        NavierStokes,
        Sponge,
        System,
    )
    from sciml.core.grid import Box, Grid
    from sciml.core.linear import LinearMap, LinearSystem
    from sciml.core.mesh import Mesh
    from sciml.core.mesh_file import read_mesh
    from sciml.core.mesh_geometry import Geometry
    from sciml.core.problem import Condition, Obstacle, Problem, Robin, Time
    from sciml.core.reader import FieldFile, Regions
    from sciml.core.solution import Solution
    from sciml.core.status import Status
    from sciml.core.table import Table
    from sciml.solvers.certify import certify
    from sciml.solvers.interop import as_petsc, as_scipy, cg, fcg
    from sciml.solvers.probing import check_preconditioner

__version__ = "0.1.0"

_MODULES = {
    "Box": "core.grid",
    "Condition": "core.problem",
    "Elasticity": "core.equation",
    "Equation": "core.equation",
    "FieldFile": "core.reader",
    "Geometry": "core.mesh_geometry",
    "Grid": "core.grid",
    "Helmholtz": "core.equation",
    "LinearMap": "core.linear",
    "LinearSystem": "core.linear",
    "Mesh": "core.mesh",
    "NavierStokes": "core.equation",
    "Obstacle": "core.problem",
    "Problem": "core.problem",
    "Regions": "core.reader",
    "Robin": "core.problem",
    "Solution": "core.solution",
    "Sponge": "core.equation",
    "Status": "core.status",
    "System": "core.equation",
    "Table": "core.table",
    "Time": "core.problem",
    "as_petsc": "solvers.interop",
    "as_scipy": "solvers.interop",
    "certify": "solvers.certify",
    "cg": "solvers.interop",
    "check_preconditioner": "solvers.probing",
    "discretize": "core.discretize",
    "fcg": "solvers.interop",
    "generate": "app.families",
    "load_family": "app.families",
    "load_spec": "app.spec",
    "read_mesh": "core.mesh_file",
    "stress": "core.discretize.elements_elasticity",
    "von_mises": "core.discretize.elements_elasticity",
}

__all__ = [
    "Box",
    "Condition",
    "Elasticity",
    "Equation",
    "FieldFile",
    "Geometry",
    "Grid",
    "Helmholtz",
    "LinearMap",
    "LinearSystem",
    "Mesh",
    "NavierStokes",
    "Obstacle",
    "Problem",
    "Regions",
    "Robin",
    "Solution",
    "Sponge",
    "Status",
    "System",
    "Table",
    "Time",
    "__version__",
    "as_petsc",
    "as_scipy",
    "certify",
    "cg",
    "check_preconditioner",
    "discretize",
    "fcg",
    "generate",
    "init",
    "load_family",
    "load_spec",
    "read_mesh",
    "solve",
    "solvers",
    "stress",
    "von_mises",
]


def solve(
    problem: Any,
    *arguments: Any,
    solver: Any = None,
    on: Grid | Mesh | None = None,
    initial: Any = None,
    throw: bool = True,
    progress: Any = None,
    frames: Any = None,
) -> Solution:
    """Solve ``solve(problem, solver, on=grid)`` or ``solve(A, b, solver)``; ``Auto()`` by default.

    ``problem``: a Problem or a LinearSystem; ``A``: a LinearMap or a SciPy sparse matrix, ``b`` a
    vector. ``initial``: a first guess on the grid. ``throw=True`` raises SolveError where a sample
    has not converged; with False the Solution says so. ``progress(iteration, residual)`` is called
    once per iteration, ``progress(step, t)`` once per step in time. ``frames``: the file that keeps
    the frames of a problem in time while they come, and from which the same call goes on after an
    interruption. Values are float64 of shape (*batch, [frames], [fields], *grid).
    """
    from sciml.core.solve import Solver
    from sciml.core.solve import solve as solve_with

    for entry in (*arguments, solver):
        _refuse_class(entry)
    if solver is None and not any(isinstance(entry, Solver) for entry in arguments):
        solver = _default_solver()
    return solve_with(
        problem,
        *arguments,
        solver=solver,
        on=on,
        initial=initial,
        throw=throw,
        progress=progress,
        frames=frames,
    )


def init(problem: Any, solver: Any = None, on: Grid | Mesh | None = None) -> Any:
    """Set-up once for many right-hand sides, with ``Auto()`` by default.

    Answer them with ``solver.run(state, b=...)``.
    """
    _refuse_class(solver)
    return (solver or _default_solver()).init(problem, on)


def _refuse_class(entry: Any) -> None:
    if isinstance(entry, type):
        from sciml.core.errors import InputError

        name = entry.__name__
        raise InputError(f"pass {name}(), a solver with its options, not the class {name}")


def _default_solver() -> Any:
    return importlib.import_module("sciml.solvers.auto").Auto()


def __getattr__(name: str) -> Any:
    if name == "solvers":
        return importlib.import_module("sciml.solvers")
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
