"""A problem stated once: domain, equation, boundary and initial data, named parameters.

The equations themselves stand in :mod:`sciml.core.problem.equation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from typing import Any, TypeVar

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.body import Body
from sciml.core.problem.condition import (
    Condition,
    Robin,
    check_condition,
    data_of,
    names_state,
)
from sciml.core.problem.equation import (
    COMPONENTS,
    PDE,
    AnyEquation,
    Coefficient,
    Equation,
    FieldFile,
    Matrix,
    Regions,
    Vector,
)
from sciml.core.problem.grid import MOST_DIMENSIONS, Box
from sciml.core.problem.reader import RunField, Unknown, short
from sciml.core.problem.unknown import Law, leaves

__all__ = [
    "Coefficient",
    "Condition",
    "Equation",
    "FieldFile",
    "Matrix",
    "Obstacle",
    "Problem",
    "Regions",
    "Robin",
    "Time",
    "Unknown",
    "Vector",
]

MOST_FRAMES = 1_000_000

_Type = TypeVar("_Type", bound=PDE)
_SHORTEST = 1e-100  # a time whose square can be divided by


@dataclass(frozen=True)
class Obstacle:
    """A hole in the domain where the expression ``inside`` holds, e.g. ``x**2 + y**2 < 0.04``.

    ``boundary`` holds on the hole's rim; n points out of the fluid, into the hole.
    """

    inside: str
    boundary: Condition

    def __post_init__(self) -> None:
        if self.boundary.kind == "periodic":
            raise InputError("an obstacle cannot be periodic; give dirichlet, neumann or robin")


@dataclass(frozen=True)
class Time:
    """From ``start`` to ``end``, ``frames`` of them kept at equal distances, both ends included.

    ``breaks``: instants at which data jump. A step ends before each of them and another begins
    after it, so that no pulse of a source or a side falls between two steps.
    """

    end: float
    start: float = 0.0
    frames: int = 2
    breaks: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not (isfinite(self.start) and isfinite(self.end) and self.start < self.end):
            raise InputError(
                f"time must run forwards: start {self.start:g} is not below end {self.end:g}",
                "problem.time.end",
            )
        if not 2 <= self.frames <= MOST_FRAMES:
            raise InputError(
                f"frames counts the first and the last, 2 to {MOST_FRAMES:,}; got {self.frames}",
                "problem.time.frames",
            )
        length, far = self.end - self.start, max(abs(self.start), abs(self.end))
        if not (_SHORTEST < length < 1 / _SHORTEST) or length < 1e-12 * far * self.frames:
            raise InputError(
                f"from {self.start:g} to {self.end:g} is no time that can be cut into steps: in "
                "double precision they would not differ; choose other units of time",
                "problem.time.end",
            )
        wrong = [t for t in self.breaks if not self.start <= t <= self.end]
        if wrong:
            raise InputError(
                f"a break lies between start and end of time; got {wrong[0]:g}",
                "problem.time.breaks",
            )
        object.__setattr__(self, "breaks", tuple(sorted({float(t) for t in self.breaks})))

    @property
    def instants(self) -> tuple[float, ...]:
        """The times of the frames."""
        step = (self.end - self.start) / (self.frames - 1)
        return (*(self.start + k * step for k in range(self.frames - 1)), self.end)


@dataclass(frozen=True)
class Problem:
    """A boundary-value problem, in time too, free of grids, devices and solvers.

    ``boundary`` maps every side of the domain (``left``, ``right``, ``bottom``, ``top``, ``back``,
    ``front``), or every named boundary of a mesh, to its :class:`Condition`. ``domain`` is None for
    a problem on a mesh, and for functions of t alone, which have no boundary. Of a system a side
    may have a mapping of its fields to their own conditions instead. ``initial``: the field at
    ``time.start``, or a mapping such as ``{u: ..., ut: ...}`` where there is more than one.
    ``parameters`` are names usable in every expression; a parameter given as a sequence makes a
    batch of problems, one given as :class:`Unknown` is found from ``observations``: a CSV file
    whose first line names its columns, coordinates and fields such as ``x,y,u``, or a mapping
    of these names to numbers; ``noise`` is the standard deviation of these readings, in their
    units, one or one per field. ``exact`` makes every run print its error; a run is refused
    where it does not solve the problem. A box's side that is not named has the condition
    ``all``, if there is one. Raises InputError for a missing, unknown or one-sided periodic
    side, and for initial data that do not go with the equation.
    """

    domain: Box | Body | None
    equation: AnyEquation
    boundary: Mapping[str, Condition] = field(default_factory=dict)
    obstacle: Obstacle | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    exact: str | float | Callable[..., Any] | None = None
    name: str = ""
    time: Time | None = None
    initial: Coefficient | Mapping[str, Coefficient] | None = None
    observations: str | Mapping[str, Any] | None = None
    noise: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if self.domain is not None and not self.domain.dimension and self.time is None:
            raise InputError(
                f"a box needs lower and upper of the same length, 1 to {MOST_DIMENSIONS}; got none",
                "problem.domain",
            )
        stated = {side: self._stated(side, given) for side, given in self.boundary.items()}
        object.__setattr__(self, "boundary", stated)
        if isinstance(self.domain, Box):
            for side, condition in stated.items():
                if condition.where is not None:
                    raise InputError(
                        "where: is for the boundary of a mesh; on a grid the data may be "
                        "where(y > 0.5, a, b)",
                        f"problem.boundary.{side}.where",
                    )
            object.__setattr__(self, "boundary", _every_side(self.domain, self.boundary))
            _check_sides(self.domain, self.boundary)
        if isinstance(self.initial, Mapping):
            object.__setattr__(self, "initial", self._by_component(self.initial))
        unknown = [name for name, p in self.parameters.items() if isinstance(p, Unknown)]
        if unknown and self.observations is None:
            raise InputError(
                f"'{unknown[0]}' is unknown: give observations: data.csv to find it from",
                f"problem.parameters.{unknown[0]}",
            )
        function = next(iter(leaves(self, (Unknown, Law))), None)
        if function is not None and self.observations is None:
            raise InputError(
                f"{short(f'problem.{function}')} is unknown: give observations: data.csv to find "
                "it from",
                f"problem.{function}",
            )
        if self.noise is not None and self.observations is None:
            raise InputError("noise is that of observations, and there are none", "problem.noise")
        self._check_loads()
        if (self.time is None) != (self.initial is None):
            raise InputError(
                "a problem in time needs both time: {end: ...} and initial: ...; "
                f"{'time' if self.time is None else 'initial'} is missing",
                "problem",
            )

        self._check_start()
        self._check_bounds()
        self._check_written_out()

    def _check_written_out(self) -> None:
        """Refuse sides that state what the equation knows nothing of."""
        free = self.equation.written_out
        for key, condition in self.conditions:
            if free and condition.kind not in ("dirichlet", "periodic", "residuals"):
                raise InputError(
                    f"'{self.equation.kind}' says nothing of a flux: give dirichlet, periodic or "
                    'residuals, such as ["ux - 1"]',
                    key,
                )
            if condition.kind == "residuals" and not free:
                raise InputError("residuals are for the sides of an equation of kind residual", key)
        if self.equation.open_functions and self.observations is None:
            raise InputError(
                f"{len(self.unknowns)} functions need as many residuals, or observations to find "
                "what these leave open",
                "problem.equation.residuals",
            )
        if self.of_time_alone and self.time is None:
            raise InputError(
                "there is no domain: functions of t alone have time: {end: ...}, others a domain "
                "or a mesh, and boundary:",
                "problem.domain",
            )

    def _check_loads(self) -> None:
        """Of a body that remembers its loads: these are in time, and it begins without them."""
        if not self.equation.remembers:
            return
        if self.time is None:
            raise InputError(
                f"what '{self.equation.kind}' comes to depends on the way of the loads: give time: "
                "{end: 1}, and loads that name t",
                "problem.time",
            )
        if self.initial is None:
            object.__setattr__(self, "initial", 0.0)
        if not (isinstance(self.initial, Real) and self.initial == 0):
            raise InputError(
                f"a body of '{self.equation.kind}' begins at rest, without loads or strains that "
                "were before: leave initial out",
                "problem.initial",
            )

    def _check_bounds(self) -> None:
        """Refuse what no obstacle and no contact goes with."""
        touching = [key for key, condition in self.conditions if condition.kind == "contact"]
        if touching and not self.equation.touches:
            raise InputError(
                f"contact is of an elastic body; '{self.equation.kind}' is none: give dirichlet, "
                "neumann or robin",
                touching[0],
            )
        if self.bounded and "contact" in self.parameters:
            raise InputError(
                "a parameter cannot be called 'contact' here: that is what an obstacle pushes with",
                "problem.parameters.contact",
            )
        if self.bounded and self.time is not None:
            raise InputError(
                "obstacles and contact are for steady problems: leave time and initial out",
                touching[0] if touching else "problem.equation.lower",
            )

    @property
    def bounded(self) -> bool:
        """Whether an obstacle or contact bounds the answer, so that it solves an inequality."""
        return self.equation.bounded or any(c.kind == "contact" for _, c in self.conditions)

    def check_unbounded(self) -> None:
        """Raise InputError where an obstacle or contact bounds the answer."""
        if self.bounded:
            raise InputError(
                "an obstacle or contact makes this an inequality: solver: {kind: active_set}, on a "
                "grid or a mesh",
                "problem.equation.kind",
            )

    def _check_start(self) -> None:
        """A saved run keeps no u_t, without which an equation of second order does not go on."""
        saved = [
            v
            for v in self.first.values()
            if isinstance(v, RunField) or (isinstance(v, FieldFile) and v.saved_field is not None)
        ]
        if self.equation.of_second_order_in_time and saved and "ut" not in self.first:
            raise InputError(
                "a saved run keeps u, not u_t, from which an equation of second order in time goes "
                "on: give ut: too, or the run itself a longer end",
                "problem.initial",
            )

    def _by_component(self, initial: Mapping[str, Any]) -> Mapping[str, Any]:
        """Initial data, those of a vector such as ``velocity: [...]`` one for each component."""
        found = dict(initial)
        for name, values in initial.items():
            listed = isinstance(values, (list, tuple))
            size = len(values) if listed else len(COMPONENTS)
            size = size if self.domain is None else self.domain.dimension
            known = self.equation.vectors(min(size, len(COMPONENTS)))
            key = f"problem.initial.{name}"
            if not listed and name not in known:
                continue
            if not listed:
                raise InputError(f"{name} is a list, [{', '.join(known[name])}]", key)
            if name not in known:
                told = f"; {', '.join(known)} has" if known else ""
                raise InputError(f"'{name}' has no components{told}", key)
            if len(values) != len(known[name]):
                told = ", ".join(known[name])
                raise InputError(f"{name} is [{told}]; got {len(values)} values", key)
            twice = [part for part in known[name] if part in initial]
            if twice:
                raise InputError(f"{name} holds {twice[0]} too; give one of them", key)
            del found[name]
            found |= zip(known[name], values, strict=True)
        return found

    @property
    def of_time_alone(self) -> bool:
        """Whether its functions are of t alone: ordinary differential equations."""
        return self.domain is None and self.equation.written_out and not self.boundary

    @property
    def box(self) -> Box:
        """The domain, of functions of t alone a point; InputError for a problem on a mesh."""
        if self.of_time_alone:
            return Box((), ())
        if self.domain is None:
            raise InputError(
                "a problem on a grid needs domain: {kind: box, lower: [...], upper: [...]}; this "
                "one has none, and is for a mesh",
                "problem.domain",
            )
        if not isinstance(self.domain, Box):
            raise InputError(
                "this domain is no box: shapes are for trained functions at points:, such as "
                "random_features; on a mesh they are geometry:",
                "problem.domain",
            )
        return self.domain

    def equation_as(self, kind: type[_Type]) -> _Type:
        """The equation where it is of that type; raises InputError for another."""
        if type(self.equation) is not kind:
            raise InputError(
                f"'{self.equation.kind}' is not of {kind.title} that this solver takes",
                "problem.equation.kind",
            )
        return self.equation

    @property
    def form(self) -> Equation:
        """The equation in the coefficient form, or an energy; raises InputError for another."""
        return self.equation_as(Equation).reduced()

    @property
    def linear(self) -> bool:
        """Whether it is a steady linear problem: one system of linear equations."""
        linear = self.time is None and self.equation.linear_with(self.parameters)
        linear = linear and not self.bounded
        return linear and (self.equation.always_linear or not self.nonlinear_sides)

    @property
    def nonlinear_sides(self) -> bool:
        """Whether data of a side or of an obstacle's rim name the solution."""
        return any(
            names_state(condition, self.unknowns, self.parameters)
            for _, condition in self.conditions
            if condition.kind != "dirichlet"
        )

    @property
    def unknowns(self) -> tuple[str, ...]:
        """The names of the equation's fields."""
        dimension = 3 if self.domain is None else self.domain.dimension
        return self.equation.fields(dimension, self.first)

    @property
    def conditions(self) -> tuple[tuple[str, Condition], ...]:
        """All conditions, that of an obstacle's rim included, with the keys of their values."""
        stated = {}
        for side, given in self.boundary.items():
            if given.by_field is None:
                stated[f"problem.boundary.{side}"] = given
            for name, own in (given.by_field or {}).items():
                stated[f"problem.boundary.{side}.{name}"] = own
        if self.obstacle is not None:
            stated["problem.obstacle.boundary"] = self.obstacle.boundary
        return tuple((f"{key}.{given.kind}", given) for key, given in stated.items())

    def boundary_of(self, name: str) -> dict[str, Condition]:
        """The conditions for one field."""
        return {
            side: given if given.by_field is None else given.by_field[name]
            for side, given in self.boundary.items()
        }

    def _stated(self, side: str, given: Condition | Mapping[str, Condition]) -> Condition:
        """The condition of a side, one for all fields or one for each; InputError for others."""
        condition = Condition(by_field=given) if isinstance(given, Mapping) else given
        if condition.by_field is None:
            return condition
        key, own, known = f"problem.boundary.{side}", condition.by_field, self.equation.conditioned
        if not known:
            raise InputError(
                f"conditions by field are for systems; '{self.equation.kind}' has one a side", key
            )
        for name in own:
            if name not in known:
                raise InputError(
                    f"the system has no field '{name}'{did_you_mean(name, known)}", f"{key}.{name}"
                )
        missing = [name for name in known if name not in own]
        if missing:
            raise InputError(f"give a condition for {', '.join(missing)} too", key)
        for name, each in own.items():
            if each.kind in ("periodic", "by_field"):
                raise InputError(
                    "a side is periodic for all fields or for none: write periodic: true for it",
                    f"{key}.{name}",
                )
        return condition

    def check_conditions(self) -> None:
        """Raise InputError where the data of a condition name what they may not."""
        linear = self.equation.title if self.equation.always_linear else ""
        for key, condition in self.conditions:
            check_condition(condition, key, self.unknowns, self.parameters, linear)

    def check_unforced(self, sources: Mapping[str, Any]) -> None:
        """Raise InputError where the problem has no modes as it stands.

        ``sources``: the equation's own by key. In time, with data that are not zero, or that name
        the solution, there are none.
        """
        if self.time is not None:
            raise InputError(
                "modes are those of a problem without time: leave time and initial out "
                "(--set problem.time= --set problem.initial=)",
                "problem.time",
            )
        self.check_conditions()
        if not self.equation.linear_with(self.parameters) or self.nonlinear_sides:
            raise InputError(
                "modes are those of a linear problem: no coefficient and no side may name the "
                "solution",
                "problem.equation",
            )
        given = dict(sources)
        for key, condition in self.conditions:
            data = {place: datum for datum, place in data_of(condition, key)}
            # What stands before u drives nothing.
            given |= {k: datum for k, datum in data.items() if not k.startswith(f"{key}.alpha")}
        for key, datum in given.items():
            parts = datum if isinstance(datum, (list, tuple)) else (datum,)
            # A parameter stands for its number.
            parts = [self.parameters.get(p, p) if isinstance(p, str) else p for p in parts]
            if any(part is not None and not _is_zero(part) for part in parts):
                instead = f"leave it out (--set {key}=)" if key in sources else f"--set {key}=0"
                raise InputError(
                    "modes are what is left where nothing drives the solution: this must be 0; "
                    + instead,
                    key,
                )

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        return tuple(self.boundary[s].kind == "periodic" for s in self.box.sides[::2])

    @property
    def first(self) -> Mapping[str, Coefficient]:
        """Initial data by name: a single coefficient is ``u``."""
        if isinstance(self.initial, Mapping):
            return self.initial
        return {} if self.initial is None else {"u": self.initial}


def _is_zero(datum: Any) -> bool:
    return isinstance(datum, (int, float)) and datum == 0


def _every_side(domain: Box | Body, boundary: Mapping[str, Condition]) -> Mapping[str, Condition]:
    """The sides by name, those that are not named as ``all`` says."""
    if "all" not in boundary:
        return boundary
    named = {side: condition for side, condition in boundary.items() if side != "all"}
    return dict.fromkeys(domain.sides, boundary["all"]) | named


def _check_sides(domain: Box, boundary: Mapping[str, Condition]) -> None:
    sides = domain.sides
    for side in boundary:
        if side not in sides:
            raise InputError(
                f"unknown side '{side}'{did_you_mean(side, sides)}", f"problem.boundary.{side}"
            )
    missing = [side for side in sides if side not in boundary]
    if missing:
        raise InputError(
            f"no boundary condition on {', '.join(missing)}; give each side one of dirichlet, "
            "neumann, robin, periodic: true",
            "problem.boundary",
        )
    for low, high in zip(sides[::2], sides[1::2], strict=True):
        kinds = boundary[low].kind, boundary[high].kind
        if kinds.count("periodic") == 1:
            raise InputError(
                f"periodic needs both sides of a pair: {low} is {kinds[0]}, {high} is {kinds[1]}",
                f"problem.boundary.{low}",
            )
