"""Conditions on sides: what they are, and what their data may name, wherever they stand.

The data of every condition may name the coordinates, t, the parameters and the outward normal nx,
ny, nz. Neumann and Robin data may name the fields too,

    alpha(u) u + n . K grad u = g(u),

which makes the problem nonlinear; an equation that is linear whatever its coefficients refuses
them. A Dirichlet value names no field, since it is what the field is, and nothing names a slope.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from sciml.core.errors import InputError
from sciml.core.problem.equation import Coefficient, Vector
from sciml.core.problem.reader import Normal, free_names, state_names

T = TypeVar("T")

DIRICHLET_OF_STATE = (
    "a Dirichlet value may not depend on the solution; neumann and robin data may depend on it"
)
NO_WAVES = "absorbing is for waves: the Helmholtz equation, and what has u_tt and is linear"
SENDS_WAVES = "a side that absorbs less than nothing would send waves in"
BESIDE_ENERGY = "beside an energy the data of a side may not depend on the solution"


@dataclass(frozen=True)
class Robin:
    """``alpha u + n . K grad u = g`` with the outward normal n.

    Of an elastic body, a bed of springs: ``alpha`` is one stiffness, one for each axis, or
    :class:`Normal`, and ``g`` a traction, as with ``neumann``.
    """

    alpha: Coefficient | Vector | Normal
    g: Coefficient | Vector | Normal = 0.0


@dataclass(frozen=True)
class Condition:
    """What holds on one side; exactly one of the eight is given.

    ``dirichlet``: u = value, a list for a velocity or a displacement, or of a wall along which a
    body or a fluid slides :class:`Normal`, ``{normal: 0}``. ``neumann``: n . K grad u =
    value, n outward; of an elastic body a list, the traction, or :class:`Normal`, so that
    ``{normal: -p}`` is a pressure p. ``robin``: see :class:`Robin`. ``periodic``: on both sides of
    a pair. ``absorbing``: waves leave, of the Helmholtz equation and of a linear one with u_tt;
    in the place of true a share of a wave's own admittance, of which (1 - share)/(1 + share) comes
    back of a wave that meets the side at a right angle. ``contact``: the gap, along the
    outward normal, between an elastic body and a rigid one that it may touch and slide along, but
    not enter (Signorini's condition): u . n <= gap, and the traction is a pressure, zero where they
    do not touch. ``residuals``: of an equation that is written out, as many as are needed, what
    vanishes there, such as ``("u", "ux")`` of a clamped beam, and none where nothing is asked.
    ``by_field``: of a system one
    condition for each of its fields, none of them periodic. ``where``, beside them: on a mesh the
    condition holds on the part of the side, or of the whole boundary where no side has this name,
    where this expression of x, y, z is true at the middle of a facet; other conditions have the
    rest.
    """

    dirichlet: Coefficient | Vector | Normal | None = None
    neumann: Coefficient | Vector | Normal | None = None
    robin: Robin | None = None
    periodic: bool = False
    absorbing: bool | Coefficient = False
    contact: Coefficient | None = None
    residuals: tuple[Coefficient, ...] | None = None
    by_field: Mapping[str, Condition] | None = field(default=None, metadata={"yaml": False})
    where: str | None = None

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "where"}
        given = [name for name, v in values.items() if v is not None and v is not False]
        if len(given) != 1:
            raise InputError(
                "a boundary condition is exactly one of dirichlet, neumann, robin, periodic: true, "
                f"absorbing: true, contact, residuals; got {', '.join(given) or 'none'}"
            )
        if self.residuals is not None and not isinstance(self.residuals, (list, tuple)):
            raise InputError('residuals is a list of what vanishes, such as ["u", "ux"]')
        if self.residuals is not None:
            object.__setattr__(self, "residuals", tuple(self.residuals))

    @property
    def kind(
        self,
    ) -> Literal[
        "dirichlet", "neumann", "robin", "periodic", "absorbing", "contact", "residuals", "by_field"
    ]:
        """Which of the eight it is."""
        if self.residuals is not None:
            return "residuals"
        if self.contact is not None:
            return "contact"
        if self.by_field is not None:
            return "by_field"
        if self.dirichlet is not None:
            return "dirichlet"
        if self.neumann is not None:
            return "neumann"
        if self.robin is not None:
            return "robin"
        return "periodic" if self.absorbing is False else "absorbing"


def data_of(condition: Condition, key: str) -> Iterator[tuple[Any, str]]:
    """Every datum of a condition with its own key; ``key`` is that of the condition's value."""
    if condition.robin is not None:
        yield from _entries(condition.robin.alpha, f"{key}.alpha")
        yield from _entries(condition.robin.g, f"{key}.g")
        return
    given = (condition.dirichlet, condition.neumann, condition.contact)
    yield from _entries(next((value for value in given if value is not None), None), key)


def _entries(value: Any, key: str) -> Iterator[tuple[Any, str]]:
    if isinstance(value, (list, tuple)):
        yield from ((entry, f"{key}[{i}]") for i, entry in enumerate(value))
    elif isinstance(value, Normal):
        yield value.normal, f"{key}.normal"
    elif value is not None:
        yield value, key


def names_state(
    condition: Condition, unknowns: Sequence[str], parameters: Mapping[str, Any]
) -> bool:
    """Whether any of its data name one of the fields ``unknowns`` or a slope of one."""
    state = frozenset(state_names(unknowns))
    return any(free_names(datum, parameters) & state for datum, _ in data_of(condition, ""))


def check_condition(
    condition: Condition,
    key: str,
    unknowns: Sequence[str],
    parameters: Mapping[str, Any],
    linear: str = "",
) -> None:
    """Raise InputError where data name what they may not.

    ``key``: that of the condition's value; ``unknowns``: the names of the equation's fields;
    ``linear``: what the equation is called, if its sides may not name the solution.
    """
    state = frozenset(state_names(unknowns))
    for datum, place in data_of(condition, key):
        named = free_names(datum, parameters) & state
        if not named:
            continue
        if condition.kind == "dirichlet":
            raise InputError(DIRICHLET_OF_STATE, place)
        if condition.kind == "contact":
            raise InputError("a gap may not depend on the displacement", place)
        if linear:
            raise InputError(
                f"{linear} is linear: the data of its sides may not depend on the solution", place
            )
        if named - set(unknowns):
            raise InputError(
                f"boundary data may name {', '.join(unknowns)}, but not its slopes"
                if len(unknowns) == 1
                else f"boundary data may name {', '.join(unknowns)}, but not their slopes",
                place,
            )


def flux_condition(condition: Condition) -> Robin:
    """A Neumann condition as a Robin condition without alpha; a Robin condition itself."""
    return condition.robin if condition.robin is not None else Robin(0.0, condition.neumann)


def flux_data(condition: Condition, key: str, read: Callable[[Any, str], T]) -> tuple[T, T]:
    """(alpha, g) by ``read(coefficient, key)``; ``key`` is that of the condition's value."""
    robin = flux_condition(condition)
    g_key = f"{key}.g" if condition.kind == "robin" else key
    return read(robin.alpha, f"{key}.alpha"), read(robin.g, g_key)
