"""Whether a problem's coefficients go with its grid, before anything is evaluated."""

from __future__ import annotations

from numbers import Real

from sciml.core.discretize.memory import is_matrix
from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.problem import Problem

_KEY = "problem.equation"


def check_steady(problem: Problem) -> None:
    """Raise InputError for a problem in time, or one given by an energy."""
    if problem.time is not None:
        raise InputError(
            "this solver is for steady problems; use auto, or leave time and initial out",
            "solver.kind",
        )
    for name in ("m", "d"):
        value = getattr(problem.form, name)
        if not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"the equation depends on time: give time: and initial:, or leave {name} out",
                f"{_KEY}.{name}",
            )
    if problem.form.energy is not None:
        raise InputError("an energy needs a nonlinear solver: use newton or auto", "solver.kind")


def check_form(problem: Problem, grid: Grid) -> None:
    """Raise InputError where coefficients have a wrong shape or do not go with the grid."""
    equation, d = problem.form, problem.box.dimension
    if grid.domain != problem.box or len(grid.shape) != d:
        raise InputError("the grid lies on another domain than the problem's", "grid")
    for name in ("dispersion", "biharmonic"):
        value = getattr(equation, name)
        if not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"{name} needs a spectral solver on a periodic domain", f"{_KEY}.{name}"
            )
    for name in ("K", "b"):
        value = getattr(equation, name)
        if isinstance(value, (list, tuple)) and len(value) != d:
            raise InputError(f"{name} has {len(value)} entries; it needs {d}", f"{_KEY}.{name}")
    if equation.b is not None and not isinstance(equation.b, (list, tuple)):
        raise InputError(f"b must be a list of {d} entries", f"{_KEY}.b")
    K = equation.K
    if isinstance(K, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in K):
        if not all(isinstance(row, (list, tuple)) and len(row) == d for row in K):
            raise InputError(f"a tensor K needs {d} rows of {d} entries", f"{_KEY}.K")
        if is_matrix(K) and grid.centring == "cell":
            raise InputError(
                "a full tensor K needs a node grid: use centring: node", "grid.centring"
            )
        if is_matrix(K) and problem.obstacle is not None:
            raise InputError(
                "obstacles need a scalar or diagonal K, not a full tensor", f"{_KEY}.K"
            )
