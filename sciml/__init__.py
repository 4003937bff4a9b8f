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
        Regions,
        Sponge,
        System,
    )
    from sciml.core.grid import Box, Grid
    from sciml.core.linear import LinearMap, LinearSystem
    from sciml.core.mesh import Mesh
    from sciml.core.mesh_file import read_mesh
    from sciml.core.mesh_geometry import Geometry
    from sciml.core.problem import Condition, Obstacle, Problem, Robin, Time
    from sciml.core.solution import Solution
    from sciml.core.status import Status
    from sciml.solvers.certify import certify
    from sciml.solvers.interop import as_petsc, as_scipy, cg, fcg
    from sciml.solvers.safeguard import check_preconditioner
    from sciml.solvers.solve import init, solve

__version__ = "0.1.0"

_MODULES = {
    "Box": "core.grid",
    "Condition": "core.problem",
    "Elasticity": "core.equation",
    "Equation": "core.equation",
    "Geometry": "core.mesh_geometry",
    "Grid": "core.grid",
    "Helmholtz": "core.equation",
    "LinearMap": "core.linear",
    "LinearSystem": "core.linear",
    "Mesh": "core.mesh",
    "NavierStokes": "core.equation",
    "Obstacle": "core.problem",
    "Problem": "core.problem",
    "Regions": "core.equation",
    "Robin": "core.problem",
    "Solution": "core.solution",
    "Sponge": "core.equation",
    "Status": "core.status",
    "System": "core.equation",
    "Time": "core.problem",
    "as_petsc": "solvers.interop",
    "as_scipy": "solvers.interop",
    "certify": "solvers.certify",
    "cg": "solvers.interop",
    "check_preconditioner": "solvers.safeguard",
    "discretize": "core.discretize",
    "fcg": "solvers.interop",
    "generate": "app.families",
    "init": "solvers.solve",
    "load_family": "app.families",
    "load_spec": "app.spec",
    "read_mesh": "core.mesh_file",
    "solve": "solvers.solve",
    "stress": "core.discretize.elements_elasticity",
    "von_mises": "core.discretize.elements_elasticity",
}

__all__ = [
    "Box",
    "Condition",
    "Elasticity",
    "Equation",
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


def __getattr__(name: str) -> Any:
    if name == "solvers":
        return importlib.import_module("sciml.solvers")
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
