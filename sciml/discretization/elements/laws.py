"""What every equation says of itself on a mesh: laws F and s at points, and what a side says.

For every scalar field  m u_tt + d u_t - div F = s,  F and s functions of x, t, all fields and
slopes. An equation gives one :class:`Balance` for each of its fields (:data:`balances`), and
nothing else; :mod:`sciml.discretization.elements.galerkin` tests them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import torch

from sciml.core.errors import InputError
from sciml.core.problem.condition import NO_WAVES, flux_condition
from sciml.core.problem.dispatch import Dispatch
from sciml.core.problem.equation import Equation, System
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Coefficient, Problem
from sciml.core.problem.quadrature import (
    Quadrature,
)
from sciml.core.problem.reader import Normal, free_names, state_names
from sciml.core.run.differentiate import local_graph
from sciml.discretization.elements.boundary import (
    Side,
)
from sciml.discretization.elements.data import MeshData, evaluate

_KEY = "problem.equation"
# (problem, mesh, equation, name, fields, key): one Balance for each scalar field of an equation,
# the problem's own or one that its system calls ``name``; ``fields``: all those of the problem.
balances: Dispatch[tuple[Balance, ...]] = Dispatch("solved in its general form")


@dataclass(frozen=True)
class Point:
    """Where F and s are evaluated: the quadrature points of all elements, at one time and state.

    ``state``: fields and slopes by name, (*batch, k, Q). ``parameters``: the problem's. ``known``:
    by their keys the coefficients that name none of these, as far as they were read before.
    ``traced``: whether the state is differentiated by a graph that ends with it. ``history``: what
    a body remembers there, (*batch, k, Q, c), None of one that is elastic. ``shared``: what the
    laws of several fields have in common at this state.
    """

    part: Quadrature
    data: MeshData
    state: Mapping[str, torch.Tensor]
    parameters: Mapping[str, Any]
    known: dict[str, torch.Tensor] = field(default_factory=dict)
    traced: bool = False
    history: torch.Tensor | None = None
    shared: dict[str, Any] = field(default_factory=dict)

    def read(self, coefficient: Coefficient, key: str) -> torch.Tensor:
        """A coefficient there, (*batch, k, Q) or broadcastable."""
        if free_names(coefficient, self.parameters) & self.state.keys():
            return evaluate(coefficient, self.part, self.data, key, state=self.state)
        if key not in self.known:
            self.known[key] = evaluate(coefficient, self.part, self.data, key)
        return self.known[key]


class Law(ABC):
    """F and s of one field, and what they name."""

    @property
    @abstractmethod
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""

    @property
    @abstractmethod
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""

    @property
    @abstractmethod
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""

    @property
    @abstractmethod
    def affine(self) -> bool:
        """Whether F and s are known to be affine in these."""

    @abstractmethod
    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F, one tensor per axis, and s; each (*batch, k, Q) or broadcastable."""


@dataclass(frozen=True)
class Stated:
    """What a side says of one field: its value, or alpha u + n . F = g; with keys.

    ``normal``: of a component of a vector, what the vector is along the normal; nothing is then
    said of the other directions, along which the wall lets it slide. ``absorbing``: beta where it
    is n . F = -beta sqrt(m K) u_t.
    """

    value: Coefficient | None = None
    alpha: Coefficient = 0.0
    g: Coefficient = 0.0
    key: str = ""
    robin: bool = False
    absorbing: Coefficient | bool = False
    normal: Coefficient | None = None

    @property
    def held(self) -> bool:
        """Whether the field is given, alone or along the normal with others."""
        return self.value is not None or self.normal is not None

    @property
    def alpha_key(self) -> str:
        """The key of alpha."""
        return f"{self.key}.alpha"

    @property
    def g_key(self) -> str:
        """The key of g."""
        return f"{self.key}.g" if self.robin else self.key


@dataclass(frozen=True)
class Recall:
    """What a body remembers: ``count`` internal variables at every quadrature point.

    ``after(point)``: these after a step to the state there, (*batch, k, Q, count).
    ``strain(point)``: the strain there, (*batch, k, Q, n), which they are measured by.
    """

    count: int
    after: Callable[[Point], torch.Tensor]
    strain: Callable[[Point], torch.Tensor]


@dataclass(frozen=True)
class Balance:
    """The equation of one scalar field.

    ``stated(side)``: what a side says of it. ``degree``: of its polynomials, None for the mesh's.
    ``key``: of its equation in a spec. ``energy``: its density at points, where it has one.
    ``level_of``: of a multiplier the fields that make a vector; where all sides give what passes
    through them, nothing holds its level, which is then that of zero mean. ``pushes``: what
    -int n . F is times this, a component of a force: 1 of a flow on a part, -1 on a solid at one.
    ``lower``, ``upper``: obstacles. ``recall``: what a body remembers of its loads.
    """

    name: str
    law: Law
    stated: Callable[[Side], Stated]
    d: Coefficient = 0.0
    m: Coefficient = 0.0
    degree: int | None = None
    key: str = _KEY
    energy: Callable[[Point], torch.Tensor] | None = None
    level_of: tuple[str, ...] = ()
    pushes: float = 0.0
    lower: Coefficient | None = None
    upper: Coefficient | None = None
    recall: Recall | None = None


# --- What equations say ---------------------------------------------------------------------------


@dataclass(frozen=True)
class CoefficientLaw(Law):
    """F = K grad u, s = f - b . grad u - c u."""

    name: str
    axes: tuple[str, ...]
    form: Equation
    key: str
    known: frozenset[str]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        form = self.form
        return [(getattr(form, name), f"{self.key}.{name}") for name in ("K", "b", "c", "f")]

    def _names(self, *coefficients: Any) -> frozenset[str]:
        return free_names(coefficients, self.parameters) & self.known

    @property
    def quasilinear(self) -> bool:
        """Whether K names a field or a slope."""
        return bool(self._names(self.form.K))

    @property
    def _slopes(self) -> frozenset[str]:
        return frozenset(f"{self.name}{axis}" for axis in self.axes)

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        return self._names(self.form.K) | self._slopes

    @property
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""
        form, found = self.form, self._names(self.form.b, self.form.c, self.form.f)
        if form.b is not None:
            found |= self._slopes
        return found if is_zero(form.c) else found | {self.name}

    @property
    def affine(self) -> bool:
        """Whether no coefficient names a field."""
        return not self._names(self.form.K, self.form.b, self.form.c, self.form.f)

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        form, key = self.form, self.key
        slope = [point.state[f"{self.name}{axis}"] for axis in self.axes]
        source = point.read(form.f, f"{key}.f")
        if form.b is not None:
            for axis, speed in enumerate(form.b):
                source = source - point.read(speed, f"{key}.b.{axis}") * slope[axis]
        if not is_zero(form.c):
            source = source - point.read(form.c, f"{key}.c") * point.state[self.name]
        return self._flux(point, slope), source

    def advected(self, point: Point) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """K, (*batch, k, Q, 1, 1) or (..., d, d), b (*batch, k, Q, d) and c at the points."""
        form, key, d = self.form, self.key, len(self.axes)
        assert form.b is not None
        c = point.read(form.c, f"{key}.c")
        entries = [point.read(v, f"{key}.b.{a}") for a, v in enumerate(form.b)]
        b = torch.stack(list(torch.broadcast_tensors(*entries)), -1)
        if not isinstance(form.K, (list, tuple)):
            return point.read(form.K, f"{key}.K")[..., None, None], b, c
        one = torch.ones((), dtype=torch.float64)
        # Column by column, from what F makes of the unit slopes.
        columns = [self._flux(point, [one * (a == k) for a in range(d)]) for k in range(d)]
        shape = torch.broadcast_shapes(*(v.shape for column in columns for v in column), (1, 1))
        return (
            torch.stack([torch.stack([v.expand(shape) for v in col], -1) for col in columns], -1),
            b,
            c,
        )

    def _flux(self, point: Point, slope: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        K, key = self.form.K, f"{self.key}.K"
        if not isinstance(K, (list, tuple)):
            conductivity = point.read(K, key)
            return tuple(conductivity * s for s in slope)
        if not isinstance(K[0], (list, tuple)):
            return tuple(point.read(v, f"{key}.{a}") * slope[a] for a, v in enumerate(K))
        return tuple(
            sum(
                (point.read(v, f"{key}.{a}.{b}") * slope[b] for b, v in enumerate(row)),
                torch.zeros((), dtype=torch.float64),
            )
            for a, row in enumerate(K)
        )


@dataclass(frozen=True)
class GivenLaw(Law):
    """F and s as they are written."""

    flux: tuple[Coefficient, ...]
    source: Coefficient
    key: str
    known: frozenset[str]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        entries = [(v, f"{self.key}.flux.{a}") for a, v in enumerate(self.flux)]
        return [*entries, (self.source, f"{self.key}.source")]

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        return free_names(self.flux, self.parameters) & self.known

    @property
    def source_names(self) -> frozenset[str]:
        """Which fields and slopes s changes with."""
        return free_names(self.source, self.parameters) & self.known

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        flux = tuple(point.read(v, f"{self.key}.flux.{a}") for a, v in enumerate(self.flux))
        return flux, point.read(self.source, f"{self.key}.source")

    @property
    def affine(self) -> bool:
        """Nobody can say."""
        return False


@dataclass(frozen=True)
class EnergyLaw(Law):
    """F = de/d(grad u), s = -de/du of an energy density e."""

    name: str
    axes: tuple[str, ...]
    density: str
    key: str
    known: frozenset[str]

    @property
    def coefficients(self) -> Sequence[tuple[Coefficient, str]]:
        """All that is read, with keys."""
        return [(self.density, f"{self.key}.energy")]

    @property
    def flux_names(self) -> frozenset[str]:
        """Which fields and slopes F changes with."""
        return free_names(self.density) & self.known

    @property
    def source_names(self) -> frozenset[str]:
        """The same."""
        return self.flux_names

    @property
    def affine(self) -> bool:
        """Nobody can say."""
        return False

    def value(self, point: Point) -> torch.Tensor:
        """e at the points."""
        return point.read(self.density, f"{self.key}.energy")

    def at(self, point: Point) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """F and s at the points."""
        slots = (self.name, *(f"{self.name}{axis}" for axis in self.axes))
        own = tuple(name for name in slots if name in point.state)

        def total(*values: torch.Tensor) -> torch.Tensor:
            state = {**point.state, **dict(zip(own, values, strict=True))}
            return self.value(replace(point, state=state)).expand(values[0].shape).sum()

        values = tuple(point.state[name] for name in own)
        slopes: Sequence[torch.Tensor]
        if point.traced:
            slopes = torch.autograd.grad(
                total(*values), values, create_graph=True, allow_unused=True, materialize_grads=True
            )
        elif torch.is_grad_enabled():
            slopes = torch.func.grad(total, argnums=tuple(range(len(own))))(*values)
        else:
            with local_graph():
                given = [v.detach().requires_grad_() for v in values]
                slopes = torch.autograd.grad(
                    total(*given), given, allow_unused=True, materialize_grads=True
                )
        found, zero = dict(zip(own, slopes, strict=True)), torch.zeros(1, 1, dtype=torch.float64)
        return tuple(found.get(name, zero) for name in slots[1:]), -found.get(self.name, zero)


def is_zero(coefficient: Any) -> bool:
    """Whether it is the number 0."""
    return isinstance(coefficient, Real) and coefficient == 0


def of_scalar(name: str, waves: bool = False) -> Callable[[Side], Stated]:
    """What sides say of a scalar field, of ``waves`` too that they let them out."""

    def stated(side: Side) -> Stated:
        condition, key = side.own(name)
        if isinstance(condition.dirichlet, (list, tuple)) or isinstance(
            condition.neumann, (list, tuple)
        ):
            raise InputError("a scalar equation needs one value, not a list", key)
        if condition.dirichlet is not None:
            return Stated(value=condition.dirichlet, key=key)
        if condition.kind == "periodic":
            return Stated(g=0.0, key=key)
        if condition.kind == "absorbing" and not waves:
            raise InputError(f"{NO_WAVES}; give dirichlet, neumann or robin", key)
        if condition.kind == "absorbing":
            if not side.facets.normal:
                raise InputError("waves leave through a side, not within the mesh", key)
            return Stated(g=0.0, key=key, absorbing=condition.absorbing)
        if condition.kind not in ("neumann", "robin"):
            raise InputError(
                f"{condition.kind} is not for meshes; give dirichlet, neumann or robin", key
            )
        robin = flux_condition(condition)
        return Stated(alpha=robin.alpha, g=robin.g, key=key, robin=condition.robin is not None)

    return stated


def of_vector(number: int, d: int, name: str, what: str) -> Callable[[Side], Stated]:
    """What sides say of component ``number`` of a velocity or a displacement in d dimensions.

    ``name``: what its equation is called in a system; ``what`` it is of, for messages.
    """

    def stated(side: Side) -> Stated:
        condition, key = side.own(name)
        if condition.contact is not None or condition.kind == "periodic":
            return Stated(g=0.0, key=key)
        if condition.robin is not None:
            alpha = condition.robin.alpha
            if isinstance(alpha, Normal):
                raise InputError(f"the springs of {what} are one for each axis here", key)
            alpha = alpha[number] if isinstance(alpha, (list, tuple)) else alpha
            g = _component(condition.robin.g, number, d, f"{key}.g")
            return Stated(alpha=alpha, g=g, key=key, robin=True)
        if condition.kind not in ("dirichlet", "neumann"):
            raise InputError(
                f"the sides of {what} take dirichlet: [...], with null for what is free, "
                "{normal: ...} for a wall along which it slides, neumann: [...], robin, or "
                "periodic: true",
                key,
            )
        if isinstance(condition.dirichlet, Normal):
            return Stated(g=0.0, key=f"{key}.normal", normal=condition.dirichlet.normal)
        given = condition.dirichlet if condition.neumann is None else condition.neumann
        own, place = _component(given, number, d, key), f"{key}.{number}"
        if condition.dirichlet is None:
            return Stated(g=own, key=place)
        return Stated(key=place) if own is None else Stated(value=own, key=place)

    return stated


def _component(given: Any, number: int, d: int, key: str) -> Any:
    """A component of what is given as 0, a list, or along the normal alone."""
    if isinstance(given, Normal):
        if not isinstance(given.normal, (str, Real)):
            raise InputError("what is along the normal is a number or a text here", key)
        return f"({given.normal})*n{AXES[number]}"
    entries = (0.0,) * d if is_zero(given) else given
    if not isinstance(entries, (list, tuple)) or len(entries) != d:
        raise InputError(f"needs a list of {d} components, one per axis", key)
    return entries[number]


def balance_of(
    form: Equation,
    name: str,
    fields: Sequence[str],
    d: int,
    key: str,
    parameters: Mapping[str, Any],
) -> Balance:
    """The balance of a field whose equation is an :class:`Equation`; InputError where none."""
    for entry in ("dispersion", "biharmonic"):
        if not is_zero(getattr(form, entry)):
            raise InputError(
                f"an equation with {entry} is not solved on meshes; use a grid", f"{key}.{entry}"
            )
    for entry in ("K", "b", "flux"):
        value = getattr(form, entry)
        rows = [value] if isinstance(value, (list, tuple)) else []
        rows += [row for row in value if isinstance(row, (list, tuple))] if rows else []
        if any(len(row) != d for row in rows):
            raise InputError(
                f"{entry} has {len(value)} entries; a mesh in {d} dimensions needs {d}",
                f"{key}.{entry}",
            )
    axes, known = AXES[:d], frozenset(state_names(fields, AXES[:d]))
    law: Law
    energy = None
    if form.energy is not None:
        law = EnergyLaw(name, axes, form.energy, key, known)
        energy = law.value
    elif form.flux is not None:
        law = GivenLaw(tuple(form.flux), form.source, key, known, parameters)
    else:
        law = CoefficientLaw(name, axes, form, key, known, parameters)
    linear = isinstance(law, CoefficientLaw) and not law.quasilinear
    waves = linear and not is_zero(form.m)
    return Balance(
        name,
        law,
        of_scalar(name, waves),
        form.d,
        form.m,
        key=key,
        energy=energy,
        lower=form.lower,
        upper=form.upper,
    )


@balances(Equation, Mesh)
def _of_scalar_field(
    problem: Problem, mesh: Mesh, form: Equation, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    return (balance_of(form, name, fields, mesh.dimension, key, problem.parameters),)


@balances(System, Mesh)
def _of_several(
    problem: Problem, mesh: Mesh, system: System, name: str, fields: Sequence[str], key: str
) -> tuple[Balance, ...]:
    """Those of every equation by itself, whose coefficients may name the fields of all."""
    found: list[Balance] = []
    for own, part in system.equations.items():
        look = balances.look_up(part, Mesh)
        found += look(problem, mesh, part, own, fields, f"{key}.equations.{own}")
    return tuple(found)
