"""Where an answer lives without a mesh: on uniform tensor grids, or at scattered points of a box.

Axis order is ``x, y, z``: axis 0 of an array is x, so ``value[i, j]`` is u(x_i, y_j). Node grids
include the boundary nodes (x_i = lower + i h, h = (upper - lower) / (n - 1)); cell grids hold the
cell centres (x_i = lower + (i + 1/2) h, h = (upper - lower) / n). Grids have one to three
dimensions, scattered points up to ten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from sciml.core.errors import InputError

if TYPE_CHECKING:
    import torch


AXES = ("x", "y", "z")
SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))
# Lengths whose squares, and their inverses, are far from under- and overflow; and how near to the
# origin, so that a thousand points keep nine digits between them.
_SHORTEST, _NEAREST = 1e-60, 1e-10
MOST_DIMENSIONS = 10  # of a box; a grid has at most three


def axis_names(dimension: int) -> tuple[str, ...]:
    """``x, y, z``; of more than three axes ``x1, x2, ...``."""
    return AXES[:dimension] if dimension <= 3 else tuple(f"x{i + 1}" for i in range(dimension))


@dataclass(frozen=True)
class Box:
    """An axis-aligned box, a problem's domain; ``lower`` and ``upper`` in the problem's units.

    Up to ten dimensions: grids have three at most, but trained functions need no grid.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    kind: Literal["box"] = "box"

    def __post_init__(self) -> None:
        # Of no axes it is the point at which functions of t alone live: see ``Problem.box``.
        if len(self.lower) > MOST_DIMENSIONS or len(self.lower) != len(self.upper):
            raise InputError(
                f"a box needs lower and upper of the same length, 1 to {MOST_DIMENSIONS}; "
                f"got {len(self.lower)} and {len(self.upper)} numbers",
                "problem.domain",
            )
        if not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise InputError(
                f"each lower must be below its upper; got {list(self.lower)} and "
                f"{list(self.upper)}",
                "problem.domain",
            )
        for axis, a, b in zip(self.axes, self.lower, self.upper, strict=True):
            if not _SHORTEST <= b - a <= 1 / _SHORTEST:
                raise InputError(
                    f"along {axis} the box is {b - a:g} long, and derivatives would leave the "
                    "range of numbers; choose units in which it is "
                    f"{_SHORTEST:g} to {1 / _SHORTEST:g}",
                    "problem.domain",
                )
            if b - a < _NEAREST * max(abs(a), abs(b)):
                raise InputError(
                    f"along {axis} the box is {b - a:g} long at {a:g}, where neighbouring points "
                    "would be rounded to the same; move the origin nearer",
                    "problem.domain",
                )

    @property
    def dimension(self) -> int:
        """Number of space dimensions, 1 to 10."""
        return len(self.lower)

    @property
    def sides(self) -> tuple[str, ...]:
        """Left, right, bottom, top, back, front; beyond three axes ``x1_low``, ``x1_high``, ..."""
        if self.dimension > 3:
            return tuple(f"{axis}_{end}" for axis in self.axes for end in ("low", "high"))
        return tuple(name for pair in SIDES[: self.dimension] for name in pair)

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return axis_names(self.dimension)

    @property
    def box(self) -> Box:
        """Itself."""
        return self

    def spread(self, cube: torch.Tensor) -> torch.Tensor:
        """Uniform points (N, d) for points (N, d) of the unit cube."""
        low, high = (cube.new_tensor(corner) for corner in (self.lower, self.upper))
        return low + cube * (high - low)


class Domain(Protocol):
    """What a domain is, whatever its shape."""

    @property
    def dimension(self) -> int:
        """Number of space dimensions."""

    @property
    def box(self) -> Box:
        """The smallest box around it."""

    def spread(self, cube: torch.Tensor) -> torch.Tensor:
        """Uniform points (N, d) for points (N, d) of the unit cube."""


@dataclass(frozen=True)
class Grid:
    """A uniform tensor grid; ``shape`` counts nodes, or cells with ``centring="cell"``.

    ``domain`` may be left out: the problem's own is taken when the two meet. ``scheme`` names the
    fluxes of advection by finite volumes: ``central``, ``upwind``, ``hybrid`` (central where the
    cell Peclet number allows, the default of steady problems) or ``limited`` (of second order
    without oscillations, the default in time).
    """

    shape: tuple[int, ...]
    centring: Literal["node", "cell"] = "node"
    domain: Box | None = None
    scheme: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.shape) <= 3 or any(n < 3 for n in self.shape):
            raise InputError(
                f"a grid needs 1 to 3 axes of at least 3 points each; got shape {list(self.shape)}",
                "grid.shape",
            )

    def bind(self, domain: Box) -> Grid:
        """This grid on ``domain``; raises InputError where the dimensions differ."""
        if self.domain is not None:
            return self
        if len(self.shape) != domain.dimension:
            raise InputError(
                f"the domain has {domain.dimension} dimensions but the grid's shape "
                f"{list(self.shape)} has {len(self.shape)}",
                "grid.shape",
            )
        return replace(self, domain=domain)

    @property
    def cells(self) -> Grid:
        """The cells between its nodes; a grid of cells itself."""
        if self.centring == "cell":
            return self
        return replace(self, shape=tuple(n - 1 for n in self.shape), centring="cell")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance h between neighbouring points along each axis."""
        domain = self.box
        gaps = (n - 1 if self.centring == "node" else n for n in self.shape)
        return tuple((b - a) / g for a, b, g in zip(domain.lower, domain.upper, gaps, strict=True))

    @property
    def box(self) -> Box:
        """The domain; raises InputError while the grid is not bound to one."""
        if self.domain is None:
            raise InputError("this grid has no domain yet: use grid.bind(problem.domain)")
        return self.domain

    def axes(self, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, ...]:
        """One float64 tensor of positions per axis, each of shape (n,)."""
        import torch

        shift = 0.0 if self.centring == "node" else 0.5
        return tuple(
            a + h * (torch.arange(n, dtype=dtype or torch.float64) + shift)
            for a, h, n in zip(self.box.lower, self.spacing, self.shape, strict=True)
        )

    def coordinates(self) -> tuple[torch.Tensor, ...]:
        """Tensors x, y, z of shape ``shape`` each, float64."""
        import torch

        return tuple(torch.meshgrid(*self.axes(), indexing="ij"))


@dataclass(frozen=True)
class Points:
    """``count`` points of Sobol's sequence, scrambled by ``seed``, inside the problem's domain.

    For problems that no grid can hold: in ten dimensions a grid of 9 points per axis has 3.5e9.
    """

    count: int
    seed: int = 0
    domain: Domain | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count must be at least 1; got {self.count}", "points.count")

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis: the points."""
        return (self.count,)

    @property
    def box(self) -> Box:
        """The domain, or the one around it; InputError while the points are not bound to one."""
        return self._bound.box

    @property
    def _bound(self) -> Domain:
        if self.domain is None:
            raise InputError("these points have no domain yet: use points.bind(problem.domain)")
        return self.domain

    def bind(self, domain: Domain) -> Points:
        """These points in ``domain``."""
        return self if self.domain is not None else replace(self, domain=domain)

    def coordinates(self) -> tuple[torch.Tensor, ...]:
        """One tensor (count,) per axis, float64."""
        import torch

        domain = self._bound
        if not domain.dimension:
            return ()
        engine = torch.quasirandom.SobolEngine(domain.dimension, scramble=True, seed=self.seed)
        cube = engine.draw(self.count, dtype=torch.float64)
        return tuple(domain.spread(cube).unbind(1))
