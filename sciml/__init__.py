"""A PDE is stated once; any solver, classical or learned, answers it; every answer is verified.

    solution = sciml.solve(problem, solver, on=grid)

Names load on first use (PEP 562): importing this package loads neither torch nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    from sciml.core.equation import Regions as Regions
    from sciml.core.equation import Sponge as Sponge
    from sciml.core.equation import System as System
    from sciml.core.grid import Box as Box
    from sciml.core.grid import Grid as Grid
    from sciml.core.linear import LinearMap as LinearMap
    from sciml.core.linear import LinearSystem as LinearSystem
    from sciml.core.mesh import Mesh as Mesh
    from sciml.core.mesh_file import read_mesh as read_mesh
    from sciml.core.mesh_geometry import Geometry as Geometry
    from sciml.core.problem import Condition as Condition
    from sciml.core.problem import Obstacle as Obstacle
    from sciml.core.problem import Problem as Problem
    from sciml.core.problem import Robin as Robin
    from sciml.core.problem import Time as Time
    from sciml.core.solution import Solution as Solution
    from sciml.core.status import Status as Status
    from sciml.solvers.certify import certify as certify
    from sciml.solvers.interop import as_petsc as as_petsc
    from sciml.solvers.interop import as_scipy as as_scipy
    from sciml.solvers.interop import cg as cg
    from sciml.solvers.interop import fcg as fcg
    from sciml.solvers.probing import check_preconditioner as check_preconditioner

__version__ = "0.1.0"


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
    from sciml.solvers.auto import Auto

    return Auto()


__getattr__, __dir__ = attach(__name__, __file__, ("__version__", "init", "solve"))
