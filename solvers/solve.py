"""The verb: ``solve(problem, solver, on=grid)``, which is ``run . init`` of the solver.

``init`` does the set-up that many right-hand sides can share, ``run`` answers one of them (as in
CommonSolve.jl and lineax). What the verb needs is imported when it is used, so that
``from sciml import solve`` loads no torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sciml.core.problem.grid import Grid, Points
    from sciml.core.problem.mesh import Mesh
    from sciml.core.run.solution import Solution
    from sciml.core.run.solve import Progress, Solver

_FORMS = "solve takes (problem, solver, on=grid) or (A, b, solver)"
_OWN = ("solver", "on", "initial", "throw", "progress", "nullspace")


def solve(
    problem: Any,
    *arguments: Any,
    solver: Solver | None = None,
    on: Grid | Mesh | Points | None = None,
    initial: torch.Tensor | None = None,
    throw: bool = True,
    progress: Progress | None = None,
    nullspace: Any = None,
    **more: Any,
) -> Solution:
    """Solve ``solve(problem, solver, on=grid)`` or ``solve(A, b, solver)``; ``Auto()`` by default.

    ``problem``: a Problem or a LinearSystem; ``A``: a LinearMap, a sparse or dense matrix, or a
    small LinearOperator, ``b`` a vector or rows of them; with ``on`` it is read as a stencil on
    that grid. ``nullspace``: of a singular matrix, True where its kernel is the constants, or the
    vector (n,) or vectors (n, k) that span it; the answer is then orthogonal to them, and b has to
    be where the matrix is symmetric. ``initial``: a first guess on the grid. ``throw=True`` raises
    SolveError where a sample has not converged; with False the Solution says so.
    ``progress(iteration, residual)`` is called once per iteration, ``progress(step, t)`` once per
    step in time. ``more``: what the solver's ``run`` takes besides; of a problem in time
    ``frames``, the file that keeps its frames while they come, and from which the same call goes on
    after an interruption. Values are float64 of shape (*batch, [frames], [fields], *grid). Raises
    InputError for arguments that do not fit.
    """
    from sciml.core.errors import SolveError
    from sciml.core.problem.problem import Problem
    from sciml.core.problem.unknown import put
    from sciml.solvers.resolution import resolved

    problem, solver = _stated(problem, arguments, solver, on, nullspace)
    if initial is not None:
        initial = _guess(initial, problem)
    more = _wanted(more, problem, solver)
    solution = solver.run(solver.init(problem, on), initial=initial, progress=progress, **more)
    if isinstance(problem, Problem):
        known = {**problem.parameters, **solution.parameters}
        whole = put(replace(problem, parameters=known), solution.functions)
        solution = replace(solution, problem=whole)
    if initial is None:
        solution = resolved(problem, on, solution)
    if throw and not solution.status.success:
        worst = float(solution.residual.max())
        outside = "".join(f"; {found}" for found in solution.outside)
        raise SolveError(f"{solution.status} (worst relative residual {worst:.2e}){outside}")
    return solution


def init(problem: Any, solver: Solver | None = None, on: Grid | Mesh | Points | None = None) -> Any:
    """Set-up once for many right-hand sides, with ``Auto()`` by default.

    Answer them with ``solver.run(state, b=...)``.
    """
    _refuse_spec(problem)
    return _chosen(solver).init(problem, on)


def _refuse_spec(given: Any) -> None:
    """What states a problem among other things is told from the problem."""
    from sciml.core.algebra.maps import LinearSystem
    from sciml.core.errors import InputError
    from sciml.core.problem.problem import Problem

    stated = None if isinstance(given, LinearSystem) else getattr(given, "problem", None)
    if isinstance(stated, Problem):
        name = type(given).__name__
        raise InputError(
            f"a {name} is no problem but states one: write solve(spec.problem, spec.solver, "
            "on=spec.on)"
        )


def _guess(initial: Any, problem: Any) -> torch.Tensor:
    """A first guess as a tensor; of a matrix on a grid it may be flat."""
    from sciml.core.algebra.maps import LinearSystem
    from sciml.solvers.linear.foreign import as_numbers

    guess = as_numbers(initial, "initial")
    if isinstance(problem, LinearSystem) and problem.problem is None:
        A = problem.A
        if guess.shape in ((A.size,), (A.size, 1)):
            guess = guess.reshape(A.shape)
    return guess


def _stated(
    problem: Any, arguments: tuple[Any, ...], solver: Any, on: Any, nullspace: Any
) -> tuple[Any, Solver]:
    """The problem, a matrix and its right-hand side as a system, and the solver."""
    from sciml.core.algebra.maps import LinearMap, LinearSystem
    from sciml.core.errors import InputError
    from sciml.core.problem.grid import Box, Grid
    from sciml.core.run.solve import Solver
    from sciml.solvers.linear.foreign import as_map, as_vector, is_matrix

    rest = list(arguments)
    _refuse_spec(problem)
    if nullspace is not None and not is_matrix(problem):
        raise InputError("nullspace is that of a matrix: solve(A, b, nullspace=...)", "nullspace")
    if is_matrix(problem):
        if not rest or isinstance(rest[0], Solver):
            raise InputError("solve(A, b, solver) needs the right-hand side b after the matrix")
        if on is not None and not isinstance(on, Grid):
            raise InputError(f"a matrix lives on a Grid; got on={type(on).__name__}", "on")
        own = isinstance(problem, LinearMap)
        A = as_map(problem, None if on is None else on.shape, nullspace)
        b = as_vector(rest.pop(0), "b", A, flat=not own)
        if on is not None and on.domain is None:
            on = on.bind(Box((0.0,) * len(on.shape), (1.0,) * len(on.shape)))
        problem = LinearSystem(A, b, on)
    if len(rest) > 1 or (rest and solver is not None):
        raise InputError(_FORMS)
    return problem, _chosen(rest[0] if rest else solver)


def _chosen(solver: Any) -> Solver:
    """The solver itself, ``Auto()`` for None; InputError for what is none."""
    from sciml.core.errors import InputError
    from sciml.core.run.solve import Solver

    if solver is None:
        from sciml.solvers.auto import Auto

        return Auto()
    if isinstance(solver, type):
        name = solver.__name__
        raise InputError(f"pass {name}(), a solver with its options, not the class {name}")
    if not isinstance(solver, Solver):
        raise InputError(f"{type(solver).__name__} is no solver such as CG(); {_FORMS}")
    return solver


def _wanted(more: Mapping[str, Any], problem: Any, solver: Solver) -> dict[str, Any]:
    """What of ``more`` was given; InputError for what the solver or the problem has no use for."""
    from sciml.core.errors import InputError, did_you_mean
    from sciml.core.problem.problem import Problem

    taken = inspect.signature(solver.run).parameters
    for name in more:
        if name != "frames" and (name not in taken or name in ("state", "b")):
            raise InputError(f"solve takes no '{name}'{did_you_mean(name, (*_OWN, 'frames'))}")
    in_time = isinstance(problem, Problem) and problem.time is not None
    if more.get("frames") is not None and not in_time:
        raise InputError("frames are kept for a problem in time; this one has no time")
    return {name: value for name, value in more.items() if value is not None}
