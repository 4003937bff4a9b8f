"""From a nonlinear or time-dependent problem and a grid to ``inertia u'' + mass u' + F(u, t) = 0``.

F is the equation integrated over the control volumes. Where only c and f depend on u,

    F(u, t) = A(t) u - b(t) + V (c(u) u - f(u)),      V the control volumes,

with the A and b of the linear discretisation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy as np
import torch

from sciml.core.algebra.inequality import between
from sciml.core.algebra.maps import LinearMap, LinearSystem, free_mean
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.stencil import Stencil, box_offsets
from sciml.core.errors import IncompatibleData, InputError, did_you_mean
from sciml.core.problem.dispatch import semidiscretises
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Equation, Problem
from sciml.discretization.volumes.affine import Affine, AtTime
from sciml.discretization.volumes.assemble import Assembly, assemble, compatible, right
from sciml.discretization.volumes.averages import over_volumes
from sciml.discretization.volumes.boundary import (
    SideData,
    admittances,
    ends_of_state,
    insulated,
    names_of_rim,
    names_of_sides,
    open_ends,
    padded,
    rim_of_state,
    side_data,
    state_residual,
)
from sciml.discretization.volumes.coefficients import (
    SLOPES,
    STATE,
    Data,
    check_order,
    data,
    depends_on,
    evaluate,
)
from sciml.discretization.volumes.energy import Energy
from sciml.discretization.volumes.fluxes import SCHEMES, limited_flux
from sciml.discretization.volumes.jacobian import box_jacobian, derivative
from sciml.discretization.volumes.layout import (
    Embedding,
    Layout,
    high_faces,
    layout,
    low_faces,
    measure_of,
)
from sciml.discretization.volumes.memory import check_form, check_memory, is_matrix
from sciml.discretization.volumes.obstacle import Cut, rim_of, rim_residual
from sciml.discretization.volumes.quasilinear import Quasilinear, face_jump

_KEY = "problem.equation"


@semidiscretises(Equation, Grid)
def semidiscretize(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> NonlinearSystem:
    """Lower a problem of the coefficient form, or one given by an energy, to a system of ODEs."""
    grid = on.bind(problem.box)
    check_form(problem, grid)
    check_memory(problem, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(problem, lay, dtype, device)
    _check_data(problem, info)
    ends = open_ends(problem, lay)
    damped = None
    waves = not (isinstance(problem.form.m, Real) and problem.form.m == 0)
    waves = waves and not depends_on(problem.form.K, info, f"{_KEY}.K")
    if ends and waves and problem.time is not None:
        damped = admittances(problem, ends, info)
        problem = insulated(problem, ends)
    if problem.form.energy is not None:
        system = energy_system(problem, info)
    elif _quasilinear(problem, info):
        system = flux_system(problem, info)
    else:
        system = _semilinear(problem, info)
    if damped is not None:
        assert not isinstance(system.mass, LinearMap)
        system = replace(system, mass=damped if system.mass is None else system.mass + damped)
    system = replace(system, outside=lambda: tuple(sorted(info.left)))
    return _between_obstacles(problem, info, system) if problem.bounded else system


def _between_obstacles(problem: Problem, info: Data, system: NonlinearSystem) -> NonlinearSystem:
    """``lower`` <= u <= ``upper`` at the unknowns; InputError where they or given values cross."""
    if problem.obstacle is not None:
        raise InputError(
            "a hole and bounds of the solution do not go together on a grid; take a mesh",
            "problem.obstacle",
        )
    lay, found = info.layout, []
    whole = lay.grid.shape
    for name, none in (("lower", -torch.inf), ("upper", torch.inf)):
        given = getattr(problem.form, name)
        key = f"{_KEY}.{name}"
        if given is None:
            found.append(torch.full(whole, none, dtype=info.dtype, device=info.device))
            continue
        if depends_on(given, info, key):
            raise InputError(f"{name} may depend on the coordinates only", key)
        value = evaluate(given, info.own, info, key)
        found.append(value.expand(*value.shape[: -lay.dimension], *whole))
    lower, upper = torch.broadcast_tensors(*found)
    check_order(lower, upper, info.own, f"{_KEY}.lower")
    numbers = torch.arange(math.prod(whole)).reshape(whole)
    given = torch.ones(math.prod(whole), dtype=torch.bool)
    given[lay.to_unknowns(numbers).flatten()] = False
    u = system.lift(torch.zeros(system.shape, dtype=info.dtype), 0.0)
    u = torch.where(given.reshape(whole), u, torch.nan)
    check_order(lower, u, info.own, f"{_KEY}.lower", "the value given on the boundary")
    check_order(u, upper, info.own, "problem.boundary")
    return between(system, lay.to_unknowns(lower), lay.to_unknowns(upper))


def _quasilinear(problem: Problem, info: Data) -> bool:
    """Whether face fluxes are wanted: K or b depend on u, c or f on slopes, or K is zero."""
    form = problem.form
    state = depends_on((form.K, form.b or ()), info, _KEY) & set(STATE)
    slopes = depends_on((form.c, form.f), info, _KEY) & set(SLOPES)
    return bool(state or slopes or (isinstance(form.K, Real) and form.K == 0))


def _check_data(problem: Problem, info: Data) -> None:
    """Refuse time and the solution in the mass."""
    for name in ("m", "d"):
        key = f"{_KEY}.{name}"
        value = getattr(problem.form, name)
        if depends_on(value, info, key):
            raise InputError(f"{name} may depend on the coordinates only", key)
        if problem.time is None and not (isinstance(value, Real) and value == 0):
            raise InputError(
                f"the equation depends on time: give time: and initial:, or leave {name} out", key
            )


def _semilinear(problem: Problem, info: Data) -> NonlinearSystem:
    """c, f and conditions may depend on u; K and b on the coordinates and t."""
    form, lay = problem.form, info.layout
    nonlinear = {
        name: "u" in depends_on(getattr(form, name), info, f"{_KEY}.{name}") for name in ("c", "f")
    }
    dropped: dict[str, Any] = {name: 0.0 for name, found in nonlinear.items() if found}
    bare: dict[str, Any] = {"m": 0.0, "d": 0.0, "kind": "general"}
    ends, rimmed = ends_of_state(problem, info), rim_of_state(problem)
    pointwise = bool(dropped or ends or rimmed)
    linear = insulated(replace(problem, equation=replace(form, **dropped, **bare)), ends)
    affine = Affine(linear, info, balanced=not pointwise)
    plain = affine
    if form.b is not None or not (isinstance(form.c, Real) and form.c == 0):
        stripped = replace(form, c=0.0, f=0.0, b=None, **bare)
        plain = Affine(replace(linear, equation=stripped), info, balanced=False)
    parts = affine.at(_start(problem)).parts
    weights = _weights(parts)
    shape = lay.shape
    rim = rim_of(parts.hole, lay) if rimmed and parts.hole is not None else None
    # A limiter that has nothing to do now may have where the operator changes.
    limiting = any(part is not None for part in parts.limited) or (
        affine.moving and form.b is not None and SCHEMES[parts.scheme].limiter is not None
    )
    limiter = Limiter(linear, affine) if limiting else None

    def at_time(t: float) -> Data:
        return info if problem.time is None else info.at_time(t)

    def reaction(u: torch.Tensor, t: float) -> torch.Tensor:
        """V (c u - f) and the sides' fluxes, of what depends on u."""
        here = at_time(t)
        total = torch.zeros_like(u)
        if nonlinear["c"]:
            total = total + over_volumes(form.c, here.with_state(u), f"{_KEY}.c", parts.hole) * u
        if nonlinear["f"]:
            total = total - over_volumes(form.f, here.with_state(u), f"{_KEY}.f", parts.hole)
        total = weights * total
        if ends:
            total = total + state_residual(problem, ends, u, here, parts.scheme, parts.openings)
        if rim is not None:
            K = affine.at(t).parts.K
            assert K is not None
            total = total + rim_residual(problem, rim, u, here, K)
        return total

    def slope(u: torch.Tensor, t: float) -> torch.Tensor:
        return derivative(lambda v: reaction(v, t), u, torch.ones_like(u))

    def residual(u: torch.Tensor, t: float) -> torch.Tensor:
        instant = affine.at(t)
        value = instant.parts.A.apply(spread(u, instant.parts.A)) - instant.b
        value = value + reaction(u, t) if pointwise else value
        return value if limiter is None else value + limiter.residual(u, t)

    def linearise(u: torch.Tensor, t: float) -> Stencil:
        A = affine.at(t).parts.A
        return add_diagonal(A, slope(u, t)) if pointwise else A

    def diffusion(u: torch.Tensor, t: float) -> Stencil:
        D = plain.at(t).parts.A
        lift = slope(u, t) if pointwise else torch.zeros((), dtype=u.dtype, device=u.device)
        if not nonlinear["c"]:
            lift = lift + weights * over_volumes(form.c, at_time(t), f"{_KEY}.c", parts.hole)
        # Without a level of its own D borrows one, whatever the sign.
        lift = lift.abs() if D.nullspace else lift.clamp(min=0)
        return add_diagonal(D, lift) if bool((lift > 0).any()) else D

    instant = affine.at(_start(problem))
    held = instant.b / parts.A.diagonal() if parts.hole is not None else None
    first = initial(problem, info, parts.hole, held)
    mass, inertia = masses(problem, info, parts.volume, parts.hole)
    leads = [instant.b.shape, parts.A.batch + shape]
    zero = torch.zeros(shape, dtype=info.dtype, device=info.device)
    if pointwise:
        leads.append(reaction(zero, _start(problem)).shape)
    moving = affine.moving or any(_in_reaction(problem, info, nonlinear))
    if ends or rimmed:
        sides, of_rim = names_of_sides(problem, info), names_of_rim(problem, info)
        moving |= "t" in sides.data | sides.alpha | of_rim.data | of_rim.alpha
    return NonlinearSystem(
        residual=residual,
        linearise=linearise,
        diffusion=diffusion,
        shape=shape,
        batch=batch_of(info, *leads, *(v.shape for v in first), mass, inertia),
        on=lay.grid,
        lift=lambda u, t: affine.at(t).parts.embedding.lift(u),
        restrict=parts.embedding.restrict,
        first=first,
        mass=mass,
        inertia=inertia,
        affine=not pointwise and limiter is None,
        steady=not moving,
        symmetric=parts.A.symmetric,
        notes=tuple(info.notes),
        measure=_free(problem, lay, parts.volume, parts.A.nullspace and not pointwise),
    )


class Limiter:
    """The fluxes that a limiter adds to those of the linear part."""

    def __init__(self, problem: Problem, affine: Affine) -> None:
        self.problem, self.affine = problem, affine
        self._sides: AtTime[SideData] = AtTime()

    def residual(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """Their balance over the control volumes, (*batch, *shape)."""
        parts, lay = self.affine.at(t).parts, self.affine.info.layout
        limiter = SCHEMES[parts.scheme].limiter
        assert limiter is not None
        sides = self._sides.get(t, lambda: side_data(self.problem, self.affine.info.at_time(t)))
        whole, d = padded(u, sides, lay), lay.dimension
        total = torch.zeros_like(u)
        for axis, part in enumerate(parts.limited):
            if part is not None:
                flux = limited_flux(part, face_jump(whole, axis, lay), limiter, lay, axis)
                total = total + high_faces(flux, axis, d) - low_faces(flux, axis, d)
        return total


def _in_reaction(problem: Problem, info: Data, nonlinear: dict[str, bool]) -> list[bool]:
    form = problem.form
    return [
        "t" in depends_on(getattr(form, name), info, f"{_KEY}.{name}")
        for name, found in nonlinear.items()
        if found
    ]


def _start(problem: Problem) -> float:
    return 0.0 if problem.time is None else problem.time.start


def spread(u: torch.Tensor, A: Stencil) -> torch.Tensor:
    """``u`` with A's batch leading."""
    d = len(A.shape)
    return u.expand(*np.broadcast_shapes(u.shape[:-d], A.batch), *u.shape[-d:])


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
    batch = np.broadcast_shapes(A.batch, values.shape[:-d])
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
    problem: Problem, info: Data, volume: float | torch.Tensor, hole: Cut | None = None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """What stands before u' and u'': d and m times the control volumes, or None.

    Unknowns inside a hole, which are held by their own equation, count with a whole volume.
    """
    lay = info.layout
    if hole is not None and hole.volumes is not None:
        volume = torch.where(hole.solid, torch.as_tensor(lay.measure()), torch.as_tensor(volume))
    found = []
    for name in ("d", "m"):
        value = getattr(problem.form, name)
        value = over_volumes(
            value,
            info,
            f"{_KEY}.{name}",
            hole,
            fill=0.0 if isinstance(value, Real) and value == 0 else 1.0,
        )
        present = bool((value != 0).any()) and problem.time is not None
        found.append((value * volume).to(info.dtype) if present else None)
    return found[0], found[1]


def initial(
    problem: Problem, info: Data, hole: Cut | None = None, held: torch.Tensor | None = None
) -> tuple[torch.Tensor, ...]:
    """u, and u' where the equation has m, at the start; zero velocity unless given.

    Inside a hole u is ``held``, and the velocity zero.
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
    lay = info.layout
    states = []
    for name in known:
        unused = None if hole is None else hole.unused
        value = evaluate(given.get(name, 0.0), info.own, info, f"problem.initial.{name}", unused)
        value = lay.to_unknowns(value.expand(*value.shape[: -lay.dimension], *lay.grid.shape))
        if hole is not None and held is not None:
            value = torch.where(hole.solid, held if name == "u" else torch.zeros_like(held), value)
        states.append(value.contiguous())
    return tuple(states)


def flux_system(problem: Problem, info: Data) -> NonlinearSystem:
    """K, b may depend on u and its slopes, c and f on the slopes too."""
    form = problem.form
    if problem.obstacle is not None:
        raise InputError(
            "obstacles need K and b that do not depend on the solution, and K > 0",
            "problem.obstacle",
        )
    if is_matrix(form.K):
        raise InputError(
            "a full tensor K may not depend on the solution; use a scalar or diagonal K",
            f"{_KEY}.K",
        )
    fluxes = Quasilinear(problem, info)
    shape, lay = info.layout.shape, info.layout
    found = depends_on((form.K, form.b or (), form.c, form.f), info, _KEY)
    limited = any(fluxes.carried) and SCHEMES[fluxes.scheme].limiter is not None
    affine = not (found & set(STATE) or limited or fluxes.state_ends)
    sides = names_of_sides(problem, info)
    of_sides = sides.alpha | sides.data if fluxes.state_ends else sides.alpha
    source = depends_on(form.f, info, _KEY)
    operator = depends_on((form.K, form.b or (), form.c), info, _KEY)
    steady = "t" not in operator | of_sides | (source if source & set(STATE) else frozenset())
    start = _start(problem)
    first = initial(problem, info)
    mass, inertia = masses(problem, info, fluxes.volume)
    zero = torch.zeros(shape, dtype=info.dtype, device=info.device)
    at_rest = fluxes.residual(zero, start)
    batch = batch_of(info, at_rest.shape, *(v.shape for v in first), mass, inertia)
    # Without a level in the equation or at a side that of u is free: with K alone of the solution
    # F has no mean whatever u is, and unless K names u dF/du has the constants in its kernel.
    level = depends_on((form.b or (), form.c, form.f), info, _KEY)
    reaction = bool(fluxes.state_ends) or not (isinstance(form.c, Real) and form.c == 0)
    free = not reaction and "u" not in level and fluxes.frozen(zero, start).nullspace
    carried = any(fluxes.carried)
    # What a constant velocity carries round a periodic box has no mean either.
    carried &= not (all(lay.periodic) and all(isinstance(v, Real) for v in fluxes.b))
    balanced = free and problem.time is None and not (level & set(STATE) or carried)
    floating = balanced and "u" in found
    lacking: torch.Tensor | None = None
    if balanced:
        b, _ = compatible(-at_rest, fluxes.volume, info)
        lacking = -at_rest - b
    if floating:
        info.notes.append(
            "nothing holds the level of u, on which K depends: the answer is that of zero integral"
        )
    kept: list[Stencil] = []
    volumes = torch.as_tensor(fluxes.volume, dtype=info.dtype, device=info.device).expand(shape)

    def levelled(u: torch.Tensor) -> torch.Tensor:
        return u - free_mean(u, volumes, lay.dimension) if floating else u

    def residual(u: torch.Tensor, t: float) -> torch.Tensor:
        value = fluxes.residual(levelled(u), t)
        return value if lacking is None else value + lacking

    def linearise(u: torch.Tensor, t: float) -> Stencil:
        if kept and affine and steady:
            return kept[0]
        u = levelled(u)
        u = u.expand(*np.broadcast_shapes(batch, u.shape[: -lay.dimension]), *shape)
        planes = box_jacobian(lambda v: fluxes.residual(v, t, compact=True), u, lay.periodic)
        kernel = free and not floating
        J = Stencil(planes, box_offsets(lay.dimension), periodic=lay.periodic, nullspace=kernel)
        kept[:] = [J]
        return J

    return NonlinearSystem(
        residual=residual,
        linearise=linearise,
        diffusion=lambda u, t: fluxes.frozen(levelled(u), t),
        shape=shape,
        batch=batch,
        on=lay.grid,
        lift=lambda u, t: Embedding(lay, fluxes.sides(t).known, None).lift(levelled(u)),
        restrict=Embedding(lay, (), None).restrict,
        first=first,
        mass=mass,
        inertia=inertia,
        level=volumes if floating else None,
        affine=affine,
        steady=steady,
        notes=tuple(info.notes),
        remarks=lambda u, t: fluxes.remarks(levelled(u), t),
        guess=guess(problem, info) if any(fluxes.state_K) else None,
        freezes=any(fluxes.state_K),
        measure=_free(problem, lay, fluxes.volume, free and not floating),
    )


def energy_system(problem: Problem, info: Data) -> NonlinearSystem:
    """F is the gradient of an energy."""
    energy, lay = Energy(problem, info), info.layout
    start = _start(problem)
    first = initial(problem, info)
    mass, inertia = masses(problem, info, lay.measure())
    zero = torch.zeros(lay.shape, dtype=info.dtype, device=info.device)
    each = energy.value(zero, start).shape + lay.shape
    batch = batch_of(info, each, *(v.shape for v in first), mass, inertia)
    moving = depends_on(problem.form.energy, info, f"{_KEY}.energy")
    moving |= names_of_sides(problem, info).alpha

    def whole(u: torch.Tensor) -> torch.Tensor:
        return u.expand(*np.broadcast_shapes(batch, u.shape[: -lay.dimension]), *lay.shape)

    # At u = 0 the second derivatives of a power of u vanish, so that another state is asked.
    bounded = problem.time is not None or any("value" in axis.ends for axis in lay.axes)
    ramp = torch.linspace(0.1, 1.0, zero.numel(), dtype=zero.dtype, device=zero.device)
    floating = not bounded and energy.hessian(whole(ramp.view_as(zero)), start).nullspace
    lacking = torch.zeros((), dtype=zero.dtype, device=zero.device)
    if floating:
        # The slopes' part of the gradient sums to zero, whatever u is.
        load = -energy.gradient(whole(zero), start)
        try:
            b, _ = compatible(load, lay.measure(), info)
        except IncompatibleData as error:
            raise IncompatibleData(error.message, f"{_KEY}.energy") from None
        lacking = load - b

    def potential(u: torch.Tensor, t: float) -> torch.Tensor:
        value = energy.value(whole(u), t)
        return value + (lacking * u).flatten(-lay.dimension).sum(-1) if floating else value

    return NonlinearSystem(
        residual=lambda u, t: energy.gradient(whole(u), t) + lacking,
        linearise=lambda u, t: energy.hessian(whole(u), t),
        diffusion=lambda u, t: energy.hessian(whole(u), t, convex=True),
        shape=lay.shape,
        batch=batch,
        on=lay.grid,
        lift=lambda u, t: Embedding(lay, energy.sides(t).known, None).lift(u),
        restrict=Embedding(lay, (), None).restrict,
        first=first,
        mass=mass,
        inertia=inertia,
        potential=potential,
        steady="t" not in moving,
        symmetric=True,
        notes=tuple(info.notes),
        guess=guess(problem, info),
        measure=_free(problem, lay, lay.measure(), floating),
    )


def _free(
    problem: Problem, lay: Layout, volume: float | torch.Tensor, floating: bool
) -> torch.Tensor | None:
    """The control volumes where a steady problem leaves a constant free."""
    return measure_of(lay, volume) if floating and problem.time is None else None


def guess(problem: Problem, info: Data) -> LinearSystem | None:
    """The steady problem with K = 1 and no more than the source besides, where that has a level.

    Where K depends on the slopes, u = 0 may be a degenerate state to start from.
    """
    if problem.time is not None:
        return None
    f = problem.form.f
    source = 0.0 if depends_on(f, info, f"{_KEY}.f") else f
    simple = insulated(replace(problem, equation=Equation(f=source)), ends_of_state(problem, info))
    parts = assemble(simple, replace(info, notes=[]))
    if parts.A.nullspace:
        return None
    return LinearSystem(parts.A, right(simple, parts, info), info.layout.grid)


def batch_of(info: Data, *given: Sequence[int] | torch.Tensor | None) -> tuple[int, ...]:
    """The batch that shapes (*batch, *shape) have in common."""
    d = info.layout.dimension
    shapes: list[Any] = [v.shape if isinstance(v, torch.Tensor) else v for v in given]
    return tuple(np.broadcast_shapes(*(tuple(s[:-d]) for s in shapes if s is not None)))
