"""A problem stated once: domain, equation, boundary conditions, named parameters.

The equation is the coefficient form

    m u_tt + d u_t - div(K grad u) + b . grad u + c u = f,

of which the steady linear part is solved by the classical solvers of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sciml.core.errors import InputError
from sciml.core.grid import Box


@dataclass(frozen=True)
class FieldFile:
    """Values read from a ``.npy`` file, or from ``dataset`` of an HDF5 file.

    The array's trailing axes are x, y, z; leading axes are batch. Values on the problem's own
    grid are taken as they are, others are interpolated linearly from a grid that spans the domain.
    """

    file: str
    dataset: str | None = None


# A number, an expression of x, y, z and the parameters, a file, a tensor or array on the grid
# (batch dimensions lead), or (Python only) a function of the coordinate tensors x, y, z.
Coefficient = Any
Vector = tuple[Coefficient, ...]
Matrix = tuple[tuple[Coefficient, ...], ...]


@dataclass(frozen=True)
class Robin:
    """``alpha u + n . K grad u = g`` with the outward normal n."""

    alpha: Coefficient
    g: Coefficient = 0.0


@dataclass(frozen=True)
class Condition:
    """What holds on one side; exactly one of the four is given.

    ``dirichlet``: u = value. ``neumann``: n . K grad u = value, n outward. ``robin``: see
    :class:`Robin`. ``periodic``: on both sides of a pair.
    """

    dirichlet: Coefficient | None = None
    neumann: Coefficient | None = None
    robin: Robin | None = None
    periodic: bool = False

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        given = [name for name, v in values.items() if v is not None and v is not False]
        if len(given) != 1:
            raise InputError(
                "a boundary condition is exactly one of dirichlet, neumann, robin, periodic: true; "
                f"got {', '.join(given) or 'none'}"
            )

    @property
    def kind(self) -> Literal["dirichlet", "neumann", "robin", "periodic"]:
        """Which of the four it is."""
        if self.dirichlet is not None:
            return "dirichlet"
        if self.neumann is not None:
            return "neumann"
        return "robin" if self.robin is not None else "periodic"


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


_ALLOWED = {
    "poisson": {"f"},
    "darcy": {"K", "f"},
    "diffusion": {"K", "f"},
    "reaction_diffusion": {"K", "c", "f"},
    "convection_diffusion": {"K", "b", "f"},
    "general": {"m", "d", "K", "b", "c", "f"},
}


@dataclass(frozen=True)
class Equation:
    """``m u_tt + d u_t - div(K grad u) + b . grad u + c u = f``.

    ``K`` is a scalar, a list of d entries (diagonal) or d lists of d (full symmetric tensor);
    ``b`` a list of d entries. ``kind`` names a preset, which admits only the coefficients that
    its equation has.
    """

    K: Coefficient | Vector | Matrix = 1.0
    b: Vector | None = None
    c: Coefficient = 0.0
    f: Coefficient = 0.0
    m: Coefficient = 0.0
    d: Coefficient = 0.0
    kind: Literal[
        "general", "poisson", "darcy", "diffusion", "reaction_diffusion", "convection_diffusion"
    ] = "general"

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name == "kind" or entry.name in _ALLOWED[self.kind]:
                continue
            value = getattr(self, entry.name)
            if value is not entry.default and not _equals(value, entry.default):
                raise InputError(
                    f"equation kind '{self.kind}' has no coefficient '{entry.name}' "
                    f"(it has {', '.join(sorted(_ALLOWED[self.kind]))}); use kind: general",
                    f"problem.equation.{entry.name}",
                )


def _equals(value: Any, default: Any) -> bool:
    return isinstance(value, (int, float)) and value == default


@dataclass(frozen=True)
class Problem:
    """A boundary-value problem, free of grids, devices and solvers.

    ``boundary`` maps every side of the domain (``left``, ``right``, ``bottom``, ``top``, ``back``,
    ``front``) to its :class:`Condition`. ``parameters`` are names usable in every expression; a
    parameter given as a sequence makes a batch of problems. ``exact`` makes every run print its
    error. Raises InputError for a missing, unknown or one-sided periodic side.
    """

    domain: Box
    equation: Equation
    boundary: Mapping[str, Condition]
    obstacle: Obstacle | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    exact: str | float | Callable[..., Any] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        from sciml.core.errors import did_you_mean

        sides = self.domain.sides
        for side in self.boundary:
            if side not in sides:
                raise InputError(
                    f"unknown side '{side}'{did_you_mean(side, sides)}", f"problem.boundary.{side}"
                )
        missing = [side for side in sides if side not in self.boundary]
        if missing:
            raise InputError(
                f"no boundary condition on {', '.join(missing)}; give each side one of dirichlet, "
                "neumann, robin, periodic: true",
                "problem.boundary",
            )
        for low, high in zip(sides[::2], sides[1::2], strict=True):
            kinds = self.boundary[low].kind, self.boundary[high].kind
            if kinds.count("periodic") == 1:
                raise InputError(
                    f"periodic needs both sides of a pair: {low} is {kinds[0]}, {high} is "
                    f"{kinds[1]}",
                    f"problem.boundary.{low}",
                )

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes are periodic."""
        return tuple(self.boundary[s].kind == "periodic" for s in self.domain.sides[::2])
