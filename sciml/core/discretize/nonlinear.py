"""From a nonlinear or time-dependent problem and a grid to ``inertia u'' + mass u' + F(u, t) = 0``.

F is the equation integrated over the control volumes. Where only c and f depend on u,

    F(u, t) = A(t) u - b(t) + V (c(u) u - f(u)),      V the control volumes,

with the A and b of the linear discretisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch

from sciml.core.discretize.affine import Affine, Instant
from sciml.core.discretize.assemble import Assembly
from sciml.core.discretize.checks import check_form
from sciml.core.discretize.coefficients import STATE, Data, data, depends_on, evaluate
from sciml.core.discretize.layout import layout
from sciml.core.discretize.memory import check_memory
from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import Grid
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.problem import Problem
from sciml.core.stencil import Stencil

_KEY = "problem.equation"


def semidiscretize(
    problem: Problem,
    on: Grid,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> NonlinearSystem:
    """Lower a problem of the coefficient form, or one given by an energy, to a system of ODEs.

    Arrays are in ``dtype`` on ``device``; see :class:`NonlinearSystem` for their shapes. A steady
    problem has no mass. Raises InputError for coefficients or data that do not go together.
    """
    device = torch.device(device)
    grid = on.bind(problem.box)
    check_form(problem, grid)
    check_memory(problem, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(problem, lay, dtype, device)
    _check_linear_data(problem, info)
    return _semilinear(problem, info)


def _check_linear_data(problem: Problem, info: Data) -> None:
    """Refuse the solution in boundary data, and time in the mass."""
    for name in ("m", "d"):
        key = f"{_KEY}.{name}"
        value = getattr(problem.form, name)
        if depends_on(value, info, key):
            raise InputError(f"{name} may depend on the coordinates only", key)
        if problem.time is None and not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"the equation depends on time: give time: and initial:, or leave {name} out", key
            )
    for name, condition in problem.boundary.items():
        robin = condition.robin
        values = (condition.dirichlet, condition.neumann, *((robin.alpha, robin.g) if robin else ()))
        key = f"problem.boundary.{name}.{condition.kind}"
        if depends_on(values, info, key) & set(STATE):
            raise InputError("boundary data may not depend on the solution", key)


def _semilinear(problem: Problem, info: Data) -> NonlinearSystem:
    """c and f may depend on u; K and b on the coordinates and t."""
    form = problem.form
    nonlinear = {
        name: "u" in depends_on(getattr(form, name), info, f"{_KEY}.{name}") for name in ("c", "f")
    }
    dropped = {name: 0.0 for name, found in nonlinear.items() if found}
    bare = {"m": 0.0, "d": 0.0, "kind": "general"}
    affine = Affine(
        replace(problem, equation=replace(form, **dropped, **bare)), info, balanced=not dropped
    )
    plain = affine
    if form.b is not None or not (isinstance(form.c, Real) and form.c == 0):
        stripped = replace(form, c=0.0, f=0.0, b=None, **bare)
        plain = Affine(replace(problem, equation=stripped), info, balanced=False)
    parts = affine.at(_start(problem)).parts
    weights = _weights(parts)
    shape = info.layout.shape

    def reaction(u: torch.Tensor, t: float) -> torch.Tensor:
        """V (c u - f), of what depends on u."""
        here = (info if problem.time is None else info.at_time(t)).with_state(u)
        points = info.layout.points()
        total = torch.zeros_like(u)
        if nonlinear["c"]:
            total = total + evaluate(form.c, points, here, f"{_KEY}.c") * u
        if nonlinear["f"]:
            total = total - evaluate(form.f, points, here, f"{_KEY}.f")
        return weights * total

    def slope(u: torch.Tensor, t: float) -> torch.Tensor:
        return torch.func.jvp(lambda v: reaction(v, t), (u,), (torch.ones_like(u),))[1]

    def residual(u: torch.Tensor, t: float) -> torch.Tensor:
        instant = affine.at(t)
        value = instant.parts.A.apply(_spread(u, instant.parts.A)) - instant.b
        return value + reaction(u, t) if dropped else value

    def linearise(u: torch.Tensor, t: float) -> Stencil:
        A = affine.at(t).parts.A
        return add_diagonal(A, slope(u, t)) if dropped else A

    def diffusion(u: torch.Tensor, t: float) -> Stencil:
        D = plain.at(t).parts.A
        lift = slope(u, t) if dropped else torch.zeros((), dtype=u.dtype, device=u.device)
        if not nonlinear["c"]:
            here = info if problem.time is None else info.at_time(t)
            unused = parts.hole.unused if parts.hole is not None else None
            c = evaluate(form.c, info.own, here, f"{_KEY}.c", unused)
            lift = lift + weights * info.layout.to_unknowns(c)
        return add_diagonal(D, lift.clamp(min=0)) if bool((lift > 0).any()) else D

    instant = affine.at(_start(problem))
    first = initial(problem, info, instant)
    mass, inertia = masses(problem, info, parts)
    leads = [instant.b.shape, parts.A.batch + shape]
    if dropped:
        leads.append(reaction(torch.zeros(shape, dtype=info.dtype, device=info.device), 0.0).shape)
    return NonlinearSystem(
        residual=residual,
        linearise=linearise,
        diffusion=diffusion,
        shape=shape,
        batch=batch_of(info, *leads, *(v.shape for v in first), mass, inertia),
        on=info.layout.grid,
        lift=lambda u, t: affine.at(t).parts.transfer.lift(u),
        restrict=parts.transfer.restrict,
        first=first,
        mass=mass,
        inertia=inertia,
        affine=not dropped,
        steady=not (affine.moving or any(_in_reaction(problem, info, nonlinear))),
        symmetric=parts.A.symmetric,
        notes=tuple(info.notes),
    )


def _in_reaction(problem: Problem, info: Data, nonlinear: dict[str, bool]) -> list[bool]:
    form = problem.form
    return [
        "t" in depends_on(getattr(form, name), info, f"{_KEY}.{name}")
        for name, found in nonlinear.items()
        if found
    ]


def _start(problem: Problem) -> float:
    return 0.0 if problem.time is None else problem.time.start


def _spread(u: torch.Tensor, A: Stencil) -> torch.Tensor:
    """``u`` with A's batch leading."""
    d = len(A.shape)
    return u.expand(*torch.broadcast_shapes(u.shape[:-d], A.batch), *u.shape[-d:])


def _weights(parts: Assembly) -> float | torch.Tensor:
    """The control volumes, zero where an unknown lies in a hole."""
    hole = parts.hole
    if hole is None or hole.volumes is not None:
        return parts.volume
    return parts.volume * ~hole.solid


def add_diagonal(A: Stencil, values: torch.Tensor) -> Stencil:
    """``A + diag(values)``, its tags set to what is then known."""
    d = A.dimension
    values = values.expand(*values.shape[:-d], *A.shape)
    batch = torch.broadcast_shapes(A.batch, values.shape[:-d])
    planes = A.coefficients.expand(*batch, len(A.offsets), *A.shape)
    planes = planes.clone(memory_format=torch.contiguous_format)
    planes.select(-d - 1, A.offsets.index((0,) * d)).add_(values)
    return Stencil(
        planes,
        A.offsets,
        periodic=A.periodic,
        symmetric=A.symmetric,
        definite=A.definite and bool((values >= 0).all()),
        nullspace=A.nullspace and not bool((values != 0).any()),
    )


def masses(
    problem: Problem, info: Data, parts: Assembly
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What stands before u' and u'': d and m times the control volumes, or None.

    Unknowns inside a hole, which are held by their own equation, count with a whole volume.
    """
    volume, hole = parts.volume, parts.hole
    if hole is not None and hole.volumes is not None:
        volume = torch.where(hole.solid, parts.layout.measure(), torch.as_tensor(volume))
    found = []
    for name in ("d", "m"):
        unused = None if hole is None else hole.unused
        key = f"{_KEY}.{name}"
        value = evaluate(getattr(problem.form, name), info.own, info, key, unused, fill=1.0)
        value = parts.layout.to_unknowns(value)
        present = bool((value != 0).any()) and problem.time is not None
        found.append((value * volume).to(info.dtype) if present else None)
    return found[0], found[1]


def initial(problem: Problem, info: Data, instant: Instant) -> tuple[torch.Tensor, ...]:
    """u, and u' where the equation has m, at the start; zero velocity unless given.

    Inside a hole u is what its own equation says, and the velocity zero.
    """
    if problem.time is None:
        return ()
    second = not (isinstance(problem.form.m, Real) and problem.form.m == 0)
    known = ("u", "ut") if second else ("u",)
    given = problem.first
    for name in given:
        if name not in known:
            raise InputError(
                f"the equation has no initial '{name}'{did_you_mean(name, known)}",
                f"problem.initial.{name}",
            )
    if "u" not in given:
        raise InputError("give u at the start", "problem.initial")
    lay, hole = info.layout, instant.parts.hole
    unused = None if hole is None else hole.unused
    states = []
    for name in known:
        value = evaluate(given.get(name, 0.0), info.own, info, f"problem.initial.{name}", unused)
        value = value.expand(*value.shape[: -lay.dimension], *lay.grid.shape)
        value = lay.to_unknowns(value).contiguous()
        if hole is not None:
            held = instant.b / instant.parts.A.diagonal() if name == "u" else 0.0 * value
            value = torch.where(hole.solid, held, value)
        states.append(value)
    return tuple(states)


def batch_of(info: Data, *given: Sequence[int] | torch.Tensor | None) -> tuple[int, ...]:
    """The batch that shapes (*batch, *shape) have in common."""
    d = info.layout.dimension
    shapes: list[Any] = [v.shape if isinstance(v, torch.Tensor) else v for v in given]
    return tuple(torch.broadcast_shapes(*(tuple(s[:-d]) for s in shapes if s is not None)))
