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
    from sciml.core.algebra.maps import LinearMap as LinearMap
    from sciml.core.algebra.maps import LinearSystem as LinearSystem
    from sciml.core.algebra.maps import SparseMatrix as SparseMatrix
    from sciml.core.errors import InputError as InputError
    from sciml.core.errors import SolveError as SolveError
    from sciml.core.problem.equation import Elasticity as Elasticity
    from sciml.core.problem.equation import Equation as Equation
    from sciml.core.problem.equation import Helmholtz as Helmholtz
    from sciml.core.problem.equation import Integral as Integral
    from sciml.core.problem.equation import NavierStokes as NavierStokes
    from sciml.core.problem.equation import Sponge as Sponge
    from sciml.core.problem.equation import System as System
    from sciml.core.problem.equation import WrittenOut as WrittenOut
    from sciml.core.problem.geometry import Arc as Arc
    from sciml.core.problem.geometry import Cylinder as Cylinder
    from sciml.core.problem.geometry import Geometry as Geometry
    from sciml.core.problem.geometry import Primitive as Primitive
    from sciml.core.problem.grid import Box as Box
    from sciml.core.problem.grid import Grid as Grid
    from sciml.core.problem.mesh import Mesh as Mesh
    from sciml.core.problem.mesh_file import read_mesh as read_mesh
    from sciml.core.problem.problem import Condition as Condition
    from sciml.core.problem.problem import Obstacle as Obstacle
    from sciml.core.problem.problem import Problem as Problem
    from sciml.core.problem.problem import Robin as Robin
    from sciml.core.problem.problem import Time as Time
    from sciml.core.problem.reader import FieldFile as FieldFile
    from sciml.core.problem.reader import Regions as Regions
    from sciml.core.problem.table import Table as Table
    from sciml.core.run.eigenmodes import Eigenmodes as Eigenmodes
    from sciml.core.run.solution import Solution as Solution
    from sciml.core.run.solution import load_solution as load_solution
    from sciml.core.run.status import Status as Status
    from sciml.discretization import discretize as discretize
    from sciml.discretization.elements.elasticity import stress as stress
    from sciml.discretization.elements.elasticity import von_mises as von_mises
    from sciml.solvers.eigen.buckling import buckling as buckling
    from sciml.solvers.eigen.modes import eigenmodes as eigenmodes
    from sciml.solvers.fit.fit import fit as fit
    from sciml.solvers.linear.certify import certify as certify
    from sciml.solvers.linear.interop import as_petsc as as_petsc
    from sciml.solvers.linear.interop import as_scipy as as_scipy
    from sciml.solvers.linear.interop import cg as cg
    from sciml.solvers.linear.interop import fcg as fcg
    from sciml.solvers.linear.safeguard import check_preconditioner as check_preconditioner
    from sciml.solvers.solve import init as init
    from sciml.solvers.solve import solve as solve
    from sciml.solvers.trained.load import load_function as load_function

__version__ = "0.1.0"

__getattr__, __dir__ = attach(__name__, __file__, ("__version__",))
