"""A PDE is stated once; any solver, classical or learned, answers it; every answer is verified.

    solution = sciml.solve(problem, solver, on=grid)

Names load on first use (PEP 562): importing this package loads neither torch nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if TYPE_CHECKING:
    from sciml import solvers as solvers
    from sciml.app.figures import plot as plot
    from sciml.app.generate import generate as generate
    from sciml.app.read import load_family as load_family
    from sciml.app.read import load_spec as load_spec
    from sciml.core.discretize import discretize as discretize
    from sciml.core.discretize.elements_elasticity import stress as stress
    from sciml.core.discretize.elements_elasticity import von_mises as von_mises
    from sciml.core.equation import Elasticity as Elasticity
    from sciml.core.equation import Equation as Equation
    from sciml.core.equation import Helmholtz as Helmholtz
    from sciml.core.equation import NavierStokes as NavierStokes
    from sciml.core.equation import Sponge as Sponge
    from sciml.core.equation import System as System
    from sciml.core.grid import Box as Box
    from sciml.core.grid import Grid as Grid
    from sciml.core.linear import LinearMap as LinearMap
    from sciml.core.linear import LinearSystem as LinearSystem
    from sciml.core.mesh import Geometry as Geometry
    from sciml.core.mesh import Mesh as Mesh
    from sciml.core.mesh_file import read_mesh as read_mesh
    from sciml.core.problem import Condition as Condition
    from sciml.core.problem import Obstacle as Obstacle
    from sciml.core.problem import Problem as Problem
    from sciml.core.problem import Robin as Robin
    from sciml.core.problem import Time as Time
    from sciml.core.reader import FieldFile as FieldFile
    from sciml.core.reader import Regions as Regions
    from sciml.core.solution import Solution as Solution
    from sciml.core.status import Status as Status
    from sciml.core.table import Table as Table
    from sciml.solvers.certify import certify as certify
    from sciml.solvers.interop import as_petsc as as_petsc
    from sciml.solvers.interop import as_scipy as as_scipy
    from sciml.solvers.interop import cg as cg
    from sciml.solvers.interop import fcg as fcg
    from sciml.solvers.safeguard import check_preconditioner as check_preconditioner
    from sciml.solvers.solve import init as init
    from sciml.solvers.solve import solve as solve

__version__ = "0.1.0"

__getattr__, __dir__ = attach(__name__, __file__, ("__version__",))
