"""What is checked before anything is evaluated or allocated: form, grid and memory."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.memory import free_bytes
from sciml.core.problem.dispatch import estimates_memory
from sciml.core.problem.equation import Equation, NavierStokes, System
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import FieldFile, Problem

_GB = 1e9
_KEY = "problem.equation"


def memory_estimate(problem: Problem, on: Grid | Mesh, itemsize: int = 8) -> int:
    """Bytes at the peak of ``discretize(problem, on)``: the stencil, the source and temporaries.

    Of a problem in time the frames count too, as they are kept and as they are put together.
    ``itemsize`` is that of the dtype. Parameters and arrays in memory count with their batch;
    files are not opened.
    """
    needed = estimates_memory.look_up(problem.equation, type(on))(problem, on, itemsize)
    return needed + _of_frames(problem, on, itemsize)


def _of_frames(problem: Problem, on: Grid | Mesh, itemsize: int) -> int:
    if problem.time is None:
        return 0
    fields = len(problem.unknowns)
    values = math.prod(on.shape) * fields * samples(problem, (), len(on.shape))
    return 2 * problem.time.frames * values * itemsize


@estimates_memory(Equation, Grid)
def _of_stencils(problem: Problem, on: Grid, itemsize: int) -> int:
    d, operator = len(on.shape), _operator_entries(problem.form)
    batch = samples(problem, (*operator, problem.form.f), d)
    entries = 3**d if is_matrix(problem.form.K) else 2 * d + 1
    constant = (
        on.centring == "node"
        and problem.obstacle is None
        and all(c.kind in ("dirichlet", "periodic") for c in problem.boundary.values())
        and all(isinstance(value, (int, float)) for value in operator)
    )
    words = 4 if constant else entries + 6
    if not problem.form.linear_with(problem.parameters):
        # The Jacobian, its multigrid, and the residual's temporaries.
        words = 3 * 3**d + 40
    return math.prod(on.shape) * batch * words * itemsize


@estimates_memory(System, Grid)
def _of_systems(problem: Problem, on: Grid, itemsize: int) -> int:
    d = len(on.shape)
    count, batch = len(problem.equation.fields(d)), samples(problem, (), d)
    # The Jacobian couples all fields; its multigrid and temporaries are of each field.
    words: int = 3**d * count * count + 40 * count
    return math.prod(on.shape) * batch * words * itemsize


@estimates_memory(NavierStokes, Grid)
def _of_flows(problem: Problem, on: Grid, itemsize: int) -> int:
    # Velocities and their stages, the pressure's multigrid; of a vorticity, spectra on 3/2 points.
    return math.prod(on.shape) * samples(problem, (), len(on.shape)) * 40 * itemsize


def check_memory(
    problem: Problem,
    on: Grid,
    dtype: torch.dtype,
    device: torch.device,
    words: int | None = None,
) -> None:
    """Raise InputError where the estimate exceeds the memory that is free.

    ``words``: numbers for every point and sample, of a solver that assembles nothing.
    """
    kept = _of_frames(problem, on, dtype.itemsize)
    if words is None:
        needed = memory_estimate(problem, on, dtype.itemsize)
    else:
        batch = samples(problem, (), len(on.shape))
        needed = kept + math.prod(on.shape) * batch * words * dtype.itemsize
    free = free_bytes(device)
    if needed <= free:
        return
    shape = " x ".join(str(n) for n in on.shape)
    if problem.time is not None and kept > needed / 2:
        raise InputError(
            f"{problem.time.frames} frames of {shape} points need about {needed / _GB:.3g} GB; "
            f"{free / _GB:.3g} GB are free: keep fewer frames",
            "problem.time.frames",
        )
    scale = (free / needed) ** (1 / len(on.shape))
    most = max(3, int(scale * max(on.shape)))
    raise InputError(
        f"the grid {shape} needs about {needed / _GB:.3g} GB; "
        f"{free / _GB:.3g} GB are free: use at most {most} points per axis",
        "grid.shape",
    )


def is_matrix(K: Any) -> bool:
    """Whether K is a tensor with a nonzero entry off its diagonal."""
    if not isinstance(K, (list, tuple)) or not all(isinstance(row, (list, tuple)) for row in K):
        return False
    return any(
        not (isinstance(entry, (int, float)) and entry == 0)
        for a, row in enumerate(K)
        for b, entry in enumerate(row)
        if a != b
    )


def _operator_entries(equation: Equation) -> list[Any]:
    entries: list[Any] = [equation.c]
    for value in (equation.K, equation.b):
        rows = value if isinstance(value, (list, tuple)) else [0.0 if value is None else value]
        for row in rows:
            entries += row if isinstance(row, (list, tuple)) else [row]
    return entries


def samples(problem: Problem, coefficients: Iterable[Any], d: int) -> int:
    """How many the parameters, and coefficients that are arrays on a grid of d axes, stand for."""
    shapes = [np.shape(value) for value in problem.parameters.values()]
    for value in coefficients:
        if not isinstance(value, FieldFile) and hasattr(value, "shape"):
            shapes.append(tuple(value.shape[: max(0, len(value.shape) - d)]))
    try:
        return math.prod(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        return 1


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
