"""Modes on a grid: A u = lambda M u, A the volumes' operator, M the masses of these volumes.

    -div(K grad u) + c u = lambda w u,      M = diag(integral of w over each control volume),

w = m where the equation has u_tt, so that lambda is a squared angular frequency, else d, else 1.
Inside an obstacle there is no mass.
"""

from __future__ import annotations

import math
from dataclasses import replace
from numbers import Real

import torch

from sciml.core.algebra.pencil import Pencil
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.dispatch import poses_modes
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization.volumes.assemble import assemble
from sciml.discretization.volumes.averages import over_volumes
from sciml.discretization.volumes.coefficients import data, depends_on, require
from sciml.discretization.volumes.layout import Embedding, layout
from sciml.discretization.volumes.memory import check_form, check_memory, check_steady

_KEY = "problem.equation"


@poses_modes(Equation, Grid)
def modes_on_grid(problem: Problem, on: Grid, *, device: torch.device) -> Pencil:
    """The pencil of two Stencils, batch (*A.batch); raises InputError where there are no modes."""
    grid, dtype = on.bind(problem.box), torch.float64
    name = weight_of(problem)
    steady = without_mass(problem)
    check_steady(steady)
    check_form(problem, grid)
    check_memory(steady, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(steady, lay, dtype, device)
    parts = assemble(steady, info, joined=False)
    A, hole = parts.A, parts.hole
    key = f"{_KEY}.{name}"
    weight = getattr(problem.form, name) if name else 1.0
    if depends_on(weight, info, key):
        raise InputError(f"{name} may depend on the coordinates only", key)
    mean = over_volumes(weight, info, key, hole, fill=1.0)
    require(mean, lay.points(), key, positive=True)
    mass = torch.as_tensor(mean * parts.volume).to(dtype)
    mass = mass.expand(torch.broadcast_shapes(mass.shape, lay.shape))
    if hole is not None:
        mass = torch.where(hole.solid, 0.0, mass)
    M = Stencil(
        mass.unsqueeze(-lay.dimension - 1),
        ((0,) * lay.dimension,),
        periodic=lay.periodic,
        symmetric=True,
        definite=True,
    )
    one = torch.ones(lay.shape, dtype=dtype, device=device)
    has = mass.detach() > 0
    # But for a diagonal, A is a sum of squares of differences.
    rest = A.detach().apply(one.expand(*A.batch, *lay.shape)) / torch.where(has, mass.detach(), 1.0)
    floor = float(torch.where(has, rest, 0.0).min().clamp(max=0.0))
    return Pencil(
        A,
        M,
        candidates=one[None] if hole is None else _parts(A, has),
        share=1.0,
        scale=_scale(A.detach(), mass.detach(), grid),
        floor=floor,
        on=grid,
        lift=Embedding(lay, tuple(parts.terms.known), None if hole is None else hole.unused).lift,
        notes=tuple(info.notes),
        oscillates=name == "m",
    )


def weight_of(problem: Problem) -> str:
    """``m``, ``d`` or "" for what stands before lambda u; InputError for what has no modes."""
    form = problem.equation_as(Equation)
    if form.flux is not None:
        raise InputError(
            "modes are those of the coefficient form: write K and c in place of flux and source",
            f"{_KEY}.flux",
        )
    problem.check_unforced({f"{_KEY}.f": form.f})
    if form.b is not None and any(not _zero(entry) for entry in form.b):
        raise InputError(
            "modes are those of a symmetric operator: leave b out, advection makes it nonsymmetric",
            f"{_KEY}.b",
        )
    present = [name for name in ("m", "d") if not _zero(getattr(form, name))]
    if len(present) == 2:
        raise InputError(
            "with both m and d the modes are damped and complex, which are not found: leave d out "
            "for free vibration, m for decay",
            f"{_KEY}.d",
        )
    return present[0] if present else ""


def without_mass(problem: Problem) -> Problem:
    """The same without u_tt and u_t."""
    form = replace(problem.form, m=0.0, d=0.0, kind="general")
    return replace(problem, equation=form)


def _parts(A: Stencil, has: torch.Tensor) -> torch.Tensor:
    """Constants on every part of the unknowns that have mass, (k, *shape)."""
    # Most of what loads this module looks for no modes.
    from scipy.sparse.csgraph import connected_components

    planes = A.coefficients.detach().reshape(-1, len(A.offsets), *A.shape)[0]
    _, labels = connected_components(A.like(planes).to_scipy(), directed=False)
    numbers = torch.from_numpy(labels).to(has.device).reshape(A.shape)
    has = has.reshape(-1, *A.shape)[0]
    kept = torch.unique(numbers[has]).tolist()
    return torch.stack([((numbers == k) & has).to(A.dtype) for k in kept])


def _scale(A: Stencil, mass: torch.Tensor, grid: Grid) -> float:
    """(pi / L)^2 times the mean of K over that of the weight, L the longest side."""
    extents = [b - a for a, b in zip(grid.box.lower, grid.box.upper, strict=True)]
    axis = max(range(len(extents)), key=extents.__getitem__)
    step = tuple(1 if k == axis else 0 for k in range(A.dimension))
    stiff = -float(A.entry(step).mean()) * grid.spacing[axis] ** 2
    return abs(stiff) / float(mass.mean()) * (math.pi / extents[axis]) ** 2


def _zero(value: object) -> bool:
    return isinstance(value, Real) and value == 0
