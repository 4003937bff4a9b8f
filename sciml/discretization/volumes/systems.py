"""Several fields on one grid, coupled through reaction and sources.

    mass_k u_k' + A_k(t) u_k - b_k(t) + V (c_k(u) u_k - f_k(u)) = 0,      u = (u_1, u_2, ...),

every A_k and b_k from the linear discretisation of its own equation. Fields stand in the last batch
dimension, so that what solves a batch of scalar equations solves the implicit part of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.dispatch import semidiscretises
from sciml.core.problem.equation import Equation, System
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import state_names
from sciml.discretization.volumes.averages import over_volumes
from sciml.discretization.volumes.boundary import (
    End,
    ends_of_state,
    insulated,
    state_residual,
)
from sciml.discretization.volumes.coefficients import Data, data, depends_on
from sciml.discretization.volumes.fluxes import scheme_of
from sciml.discretization.volumes.jacobian import derivative
from sciml.discretization.volumes.layout import layout
from sciml.discretization.volumes.memory import check_memory
from sciml.discretization.volumes.nonlinear import add_diagonal, semidiscretize

_ALONE = "problem.equation"
_KEY = f"{_ALONE}.equations"
_COEFFICIENTS = ("m", "d", "K", "b", "c", "f")


@dataclass(frozen=True)
class _Field:
    """One field: its uncoupled part and problem, what of c and f and which sides name a field."""

    system: NonlinearSystem
    problem: Problem
    c: Any
    f: Any
    ends: tuple[End, ...]


@semidiscretises(System, Grid)
def semidiscretize_fields(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> NonlinearSystem:
    """Lower a :class:`System` in time to one system of ODEs.

    Its batch is (*batch, fields) and ``fields`` their names. ``linearise`` leaves the coupling
    between fields out. Raises InputError for an obstacle, for K or b that depend on a field, and
    for fields without initial data.
    """
    equation = problem.equation_as(System)
    check_memory(problem, on.bind(problem.box), dtype, device)
    if problem.obstacle is not None:
        raise InputError(
            "systems of several fields are solved without obstacles", "problem.obstacle"
        )
    names = tuple(equation.forms)
    if problem.time is None:
        raise InputError(
            "a system is solved in time: give time: {end: ...} and initial: "
            f"{{{', '.join(f'{name}: ...' for name in names)}}}",
            "problem.time",
        )
    _check_initial(problem, names)
    every = {name: by_itself(problem, own, name) for name, own in equation.forms.items()}
    grid = on.bind(problem.box)
    layouts = [layout(alone, grid, dtype, device) for alone in every.values()]
    if any(lay.shape != layouts[0].shape for lay in layouts):
        raise InputError(
            "on a node grid a side is dirichlet for all fields or for none; use centring: cell",
            "grid.centring",
        )
    info = data(every[names[0]], layouts[0], dtype, device)
    for name in set(state_names(names)) & set(problem.parameters):
        raise InputError(
            f"a parameter cannot be called '{name}': the name is taken",
            f"problem.parameters.{name}",
        )
    info = replace(info, fields=names)
    fields = {name: _field(problem, name, on, info, names) for name in names}
    return _Coupled(fields, info).system(grid)


def _check_initial(problem: Problem, names: tuple[str, ...]) -> None:
    given = problem.first
    for name in given:
        if name not in names:
            raise InputError(
                f"the system has no field '{name}'{did_you_mean(name, names)}",
                f"problem.initial.{name}",
            )
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(
            f"give {', '.join(missing)} at the start: initial: "
            f"{{{', '.join(f'{name}: ...' for name in names)}}}",
            "problem.initial",
        )


def by_itself(problem: Problem, equation: Equation, name: str) -> Problem:
    """The problem of one field by itself."""
    bare = replace(equation, kind="general")
    return replace(
        problem,
        equation=bare,
        boundary=problem.boundary_of(name),
        initial=problem.first[name],
        exact=None,
    )


@contextmanager
def _keyed(name: str) -> Iterator[None]:
    """What is wrong with the equation of a field by itself stands at that field's key."""
    try:
        yield
    except InputError as error:
        key = error.key or ""
        if not key.startswith(f"{_ALONE}.") or key.startswith(f"{_KEY}."):
            raise
        raise InputError(error.message, f"{_KEY}.{name}{key.removeprefix(_ALONE)}") from None


def _field(
    problem: Problem,
    name: str,
    on: Grid,
    info: Data,
    names: tuple[str, ...],
) -> _Field:
    equation = problem.equation_as(System).forms[name]
    own: dict[str, Any] = {}
    for entry in _COEFFICIENTS:
        key, coefficient = f"{_KEY}.{name}.{entry}", getattr(equation, entry)
        used = depends_on(coefficient, info, key) - {"t"}
        if used and entry not in ("c", "f"):
            raise InputError(
                f"{entry} may depend on the coordinates and t, not on {sorted(used)[0]}", key
            )
        if used - set(names):
            raise InputError(
                f"{entry} may depend on the fields {', '.join(names)}, not on their slopes: "
                f"not on {sorted(used - set(names))[0]}",
                key,
            )
        if used:
            own[entry] = coefficient
    rest: dict[str, Any] = dict.fromkeys(own, 0.0)
    uncoupled = replace(equation, kind="general", **rest)
    alone = by_itself(problem, uncoupled, name)
    with _keyed(name):
        ends = ends_of_state(alone, info)
        system = semidiscretize(insulated(alone, ends), on, dtype=info.dtype, device=info.device)
    if system.inertia is not None or system.mass is None:
        raise InputError("every field needs d (before its u_t) and no m", f"{_KEY}.{name}.d")
    return _Field(system, alone, own.get("c"), own.get("f"), ends)


class _Coupled:
    """The residual of all fields, and the parts of it by field."""

    def __init__(self, fields: dict[str, _Field], info: Data) -> None:
        self.fields, self.info = fields, info
        self.names, self.dimension = tuple(fields), info.layout.dimension
        self.volume = info.layout.measure()

    @property
    def _parts(self) -> list[NonlinearSystem]:
        return [field.system for field in self.fields.values()]

    def _each(self, values: list[torch.Tensor]) -> torch.Tensor:
        """Per-field values (*batch, *shape) as one tensor (*batch, fields, *shape)."""
        return torch.stack(torch.broadcast_tensors(*values), -self.dimension - 1)

    def reaction(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """V (c u - f) and the sides' fluxes, of what names a field."""
        states = dict(zip(self.names, u.unbind(-self.dimension - 1), strict=True))
        now = self.info.at_time(t)
        here = replace(now, variables={**now.variables, **states})
        values = []
        for name, field in self.fields.items():
            total = torch.zeros_like(states[name])
            if field.c is not None:
                total = total + over_volumes(field.c, here, f"{_KEY}.{name}.c") * states[name]
            if field.f is not None:
                total = total - over_volumes(field.f, here, f"{_KEY}.{name}.f")
            total = self.volume * total
            if field.ends:
                scheme = scheme_of(field.problem, self.info.layout.grid)
                total = total + state_residual(
                    field.problem, field.ends, states[name], now, scheme, fields=states, own=name
                )
            values.append(total)
        return self._each(values)

    def residual(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """F(u, t) for u (*batch, fields, *shape)."""
        states = u.unbind(-self.dimension - 1)
        own = []
        for (name, field), v in zip(self.fields.items(), states, strict=True):
            with _keyed(name):
                own.append(field.system.residual(v, t))
        return self._each(own) + self.reaction(u, t)

    def _stencil(
        self, part: Callable[[NonlinearSystem, torch.Tensor], LinearMap], u: torch.Tensor
    ) -> Stencil:
        """The stencils of the fields with one batch dimension more."""
        states = u.unbind(-self.dimension - 1)
        maps = [part(system, v) for system, v in zip(self._parts, states, strict=True)]
        found = [A for A in maps if isinstance(A, Stencil)]
        planes = torch.broadcast_tensors(*(A.coefficients for A in found))
        return Stencil(
            torch.stack(planes, -self.dimension - 2),
            found[0].offsets,
            periodic=found[0].periodic,
            symmetric=all(A.symmetric for A in found),
            definite=all(A.definite for A in found),
        )

    def diffusion(self, u: torch.Tensor, t: float) -> Stencil:
        """The diffusion of every field by itself."""
        return self._stencil(lambda system, v: system.diffusion(v, t), u)

    def linearise(self, u: torch.Tensor, t: float) -> Stencil:
        """dF_k/du_k, without the coupling."""
        own = torch.zeros_like(u)
        for k in range(len(self.names)):
            probe = torch.zeros_like(u)
            probe.select(-self.dimension - 1, k).fill_(1.0)
            product = derivative(lambda v: self.reaction(v, t), u, probe)
            own.select(-self.dimension - 1, k).copy_(product.select(-self.dimension - 1, k))
        return add_diagonal(self._stencil(lambda system, v: system.linearise(v, t), u), own)

    def system(self, grid: Grid) -> NonlinearSystem:
        """All of it as one system of ODEs."""
        shape, parts = self.info.layout.shape, self._parts
        first = self._each([part.first[0].expand(*part.batch, *shape) for part in parts])
        mass = self._each([torch.as_tensor(part.mass).expand(shape) for part in parts])
        batch = torch.broadcast_shapes(
            first.shape[: -len(shape)],
            self.residual(first, float(self.info.variables["t"])).shape[: -len(shape)],
        )
        return NonlinearSystem(
            residual=self.residual,
            linearise=self.linearise,
            diffusion=self.diffusion,
            shape=shape,
            batch=tuple(batch),
            on=grid,
            lift=self._lift,
            restrict=parts[0].restrict,
            first=(first,),
            mass=mass,
            steady=False,
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            remarks=self.remarks,
            outside=self.outside,
            fields=self.names,
        )

    def remarks(self, u: torch.Tensor, t: float) -> tuple[str, ...]:
        """Those on the scheme of every field."""
        states = zip(self.fields.items(), u.unbind(-self.dimension - 1), strict=True)
        return tuple(
            type(remark)(f"{name}: {remark}")
            for (name, field), v in states
            for remark in field.system.remarks(v, t)
        )

    def outside(self) -> tuple[str, ...]:
        """The ranges of tables that a field has been outside."""
        own = (found for part in self._parts for found in part.outside())
        return tuple(sorted({*self.info.left, *own}))

    def _lift(self, u: torch.Tensor, t: float) -> torch.Tensor:
        states = u.unbind(-self.dimension - 1)
        return self._each([p.lift(v, t) for p, v in zip(self._parts, states, strict=True)])
