"""Quantities: the numbers that an answer is asked for, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sciml.core.errors import InputError
from sciml.core.problem.problem import Coefficient

if TYPE_CHECKING:
    import torch

_KINDS = ("integral", "mean", "max", "min", "flux", "force", "at", "formula")


@dataclass(frozen=True)
class Quantity:
    """A functional of an answer; exactly one of the first eight is given.

    ``integral``, ``mean``, ``max``, ``min``: of an expression of the coordinates, t, the
    parameters, the fields, their slopes (``u``, ``ux``) and the components of what is derived from
    them (``qx``, ``vorticity``, ``sxx``, ``mises``), on a side of the outward normal too.
    ``flux``: the field of which it is what leaves through ``on``, the integral of -n . K grad u.
    ``force``: a direction, the integral of its product with the traction that acts on an elastic
    body at ``on``, or with that of a flow on a wall or an obstacle. ``at``: a point, where the
    value of ``of`` is wanted, the first field unless given. ``formula``: an expression of the
    quantities that stand before it.

    ``on``: a side, a named boundary, or ``obstacle``, in place of the whole domain. ``region``: the
    part of the domain, on a grid a condition such as ``x < 0.5``, on a mesh the name of a
    subdomain. ``over_time``: of a problem in time one number in place of one for every frame, the
    ``max``, ``min`` or ``mean`` over all steps, or the ``frequency``, from ``after`` on.
    ``published``: what others report, to stand beside. ``raw``: on a mesh the extreme at the
    quadrature points inside the elements, in place of that at the nodes, to which slopes, fluxes
    and stresses are recovered.
    """

    integral: Coefficient | None = None
    mean: Coefficient | None = None
    max: Coefficient | None = None
    min: Coefficient | None = None
    flux: str | None = None
    force: tuple[float, ...] | None = None
    at: tuple[float, ...] | None = None
    formula: str | None = None
    of: Coefficient | None = None
    on: str | None = None
    region: str | None = None
    over_time: Literal["max", "min", "mean", "frequency"] | None = None
    after: float | None = None
    published: float | None = None
    raw: bool = False

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise InputError(
                f"a quantity is exactly one of {', '.join(_KINDS)}; got "
                f"{', '.join(given) or 'none'}"
            )
        if self.kind in ("flux", "force") and self.on is None:
            raise InputError(f"{self.kind} is of a part of the boundary: give on:")
        if self.at is not None and self.on is not None:
            raise InputError("at: is a point itself; leave on: out")
        whole = self.on is None and self.kind in ("integral", "mean", "max", "min")
        if self.region is not None and not whole:
            raise InputError("region: is for integral, mean, max and min over the domain")
        if self.of is not None and self.at is None:
            raise InputError("of: says what is wanted at a point; give at: too")
        if self.raw and not (whole and self.kind in ("max", "min")):
            raise InputError("raw: is for max and min over the domain or a region")
        if self.after is not None and self.over_time is None:
            raise InputError("after: is for over_time: max, min, mean or frequency")
        if self.formula is not None and (self.over_time or self.on):
            raise InputError("a formula is of other quantities alone; leave on: and over_time: out")

    @property
    def kind(self) -> str:
        """Which of the eight it is."""
        return next(name for name in _KINDS if getattr(self, name) is not None)

    @property
    def what(self) -> Any:
        """What it is of: an expression, a field, a direction."""
        return self.of if self.at is not None else getattr(self, self.kind)

    def __str__(self) -> str:
        """``max of u on top``, ``u at (1, 0.5)``."""
        when = f", {self.over_time} over time" if self.over_time else ""
        when += f" from {self.after:g} on" if self.after is not None else ""
        if self.at is not None:
            return f"{self.of or 'value'} at ({', '.join(f'{x:g}' for x in self.at)}){when}"
        if self.formula is not None:
            return self.formula
        what = self.what
        what = f"({', '.join(f'{x:g}' for x in what)})" if isinstance(what, tuple) else what
        where = f" on {self.on}" if self.on else f" over {self.region}" if self.region else ""
        which = " at quadrature points, not recovered" if self.raw else ""
        return f"{self.kind} of {what}{where}{which}{when}"


@dataclass(frozen=True)
class Line:
    """A straight line on which values are wanted, at ``points`` evenly spaced places.

    ``of``: expressions as a :class:`Quantity` takes, in place of all fields.
    """

    start: tuple[float, ...]
    end: tuple[float, ...]
    points: int = 101
    of: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.start) != len(self.end) or self.start == self.end:
            raise InputError("a line needs two different ends of as many coordinates each")
        if self.points < 2:
            raise InputError(f"a line needs at least 2 points; got {self.points}", ".points")
        twice = next((what for what in self.of if self.of.count(what) > 1), None)
        if twice is not None:
            raise InputError(f"'{twice}' is asked for twice", ".of")


@dataclass(frozen=True)
class Output:
    """What a run reports, by names of one's own.

    ``probes``: points at which the fields are wanted, in time at every step. ``lines``: straight
    lines along which they are. ``quantities``: see :class:`Quantity`. ``fields``: derived ones,
    such as ``flux`` or ``stress``, to be written and drawn beside the answer. ``animation``: the
    frames as a moving picture too. Raises InputError for a name given twice.
    """

    probes: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    lines: Mapping[str, Line] = field(default_factory=dict)
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    fields: tuple[str, ...] = ()
    animation: bool = False

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        named = {"probes": self.probes, "lines": self.lines, "quantities": self.quantities}
        for kind, entries in named.items():
            for name in entries:
                if not name or name[0] == "." or any(sign in name for sign in "/\\\n\0"):
                    raise InputError(
                        f"'{name}' is no name for a file; write letters, digits, spaces, - and _",
                        f"output.{kind}",
                    )
                if name in seen:
                    raise InputError(
                        f"'{name}' is among {seen[name]} and {kind}; give each its own name",
                        f"output.{kind}.{name}",
                    )
                seen[name] = kind
        twice = next((name for name in self.fields if self.fields.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"'{twice}' is asked for twice", "output.fields")


@dataclass(frozen=True)
class Measurement:
    """What a quantity came to.

    ``value``: (*batch, [frames]); of a quantity over time without frames. ``place``: of an extremum
    where it is, (*batch, [frames], d). ``error``: of a frequency its uncertainty. ``why``: the
    reason for a NaN.
    """

    value: torch.Tensor
    place: torch.Tensor | None = None
    error: torch.Tensor | None = None
    why: str = ""

    def __float__(self) -> float:
        """The value where there is one; raises ValueError for several."""
        if self.value.numel() != 1:
            raise ValueError(f"there are {self.value.numel()} values; take .value")
        return float(self.value)


def is_constant(low: float, high: float) -> bool:
    """Whether the extremes of a quantity differ by rounding alone."""
    return high - low <= 1e-9 * max(abs(low), abs(high))


# A value (*batch, [fields], *place) and its time to what was measured.
Measure = Callable[["torch.Tensor", "float | None"], Measurement]
# A quantity and its key to how it is measured.
Prepare = Callable[[Quantity, str], Measure]
