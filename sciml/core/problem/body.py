"""A domain made of shapes, without a mesh: in the plane, in space, in up to ten dimensions.

Its shapes and the operations between them are those of :mod:`sciml.core.problem.geometry`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from sciml.core.errors import InputError
from sciml.core.problem.geometry import Geometry, Primitive, tree_of
from sciml.core.problem.grid import MOST_DIMENSIONS, Box, axis_names

if TYPE_CHECKING:
    import torch

    from sciml.core.problem.solids import Solids

_KEY = "problem.domain"


@dataclass(frozen=True)
class Body:
    """A domain made of ``shapes``; ``region``: how, such as ``ball - hole``; of one left out.

    Its sides are called as those of a geometry: by the shape, or by the shape and its own side
    (``block_left``). ``names``: of the faces of every shape, where they have others. Trained
    functions know such a domain; grids need a box, and meshes are made of ``geometry:``.
    """

    shapes: Mapping[str, Primitive]
    region: str | None = None
    kind: Literal["shapes"] = "shapes"
    names: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.shapes:
            raise InputError("a domain of shapes needs one: shapes: {disk: {circle: [0, 0, 1]}}",
                             f"{_KEY}.shapes")  # fmt: skip
        if self.region is None and len(self.shapes) > 1:
            told = " - ".join(list(self.shapes)[:2])
            raise InputError(
                f"with several shapes say what the domain is made of, region: {told}",
                f"{_KEY}.region",
            )
        for name, shape in self.shapes.items():
            if not name.isidentifier():
                raise InputError(
                    f"a shape's name is one word, letters first; got '{name}'",
                    f"{_KEY}.shapes.{name}",
                )
            if shape.dimension != self.dimension:
                raise InputError(
                    f"the first shape has {self.dimension} dimensions, this one {shape.dimension}",
                    f"{_KEY}.shapes.{name}",
                )
        if not 2 <= self.dimension <= MOST_DIMENSIONS:
            raise InputError(
                f"a domain of shapes has 2 to {MOST_DIMENSIONS} dimensions; got {self.dimension}",
                f"{_KEY}.shapes",
            )
        tree_of(self.made_of, self.shapes, f"{_KEY}.region")

    @classmethod
    def of(cls, geometry: Geometry) -> Body:
        """That of a geometry, all its regions together."""
        parts, regions = geometry.parts(), geometry.domain()
        return cls(
            {name: primitive for name, (primitive, _) in parts.items()},
            " + ".join(f"({text})" for text in regions.values()),
            names={name: names for name, (_, names) in parts.items()},
        )

    @property
    def made_of(self) -> str:
        """The region as a text."""
        return next(iter(self.shapes)) if self.region is None else self.region

    @property
    def dimension(self) -> int:
        """2 to 10."""
        return next(iter(self.shapes.values())).dimension

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the coordinates."""
        return axis_names(self.dimension)

    @property
    def sides(self) -> tuple[str, ...]:
        """All names that its sides may be called by, whether something of them is left or not."""
        return tuple(dict.fromkeys(n for faces in self._called.values() for f in faces for n in f))

    @property
    def _called(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        found = {}
        for name, shape in self.shapes.items():
            own = shape.sides or [f"{name}_{side}" for side in shape.own_sides]
            found[name] = self.names.get(name) or (
                tuple((name, side) for side in own) or ((name,),)
            )
        return found

    @cached_property
    def points(self) -> Solids:
        """Which points lie in it and on its sides."""
        from sciml.core.problem.solids import Solids

        return Solids(self.shapes, self.made_of, self._called)

    @property
    def box(self) -> Box:
        """One around it."""
        return self.points.box

    def spread(self, cube: torch.Tensor) -> torch.Tensor:
        """Uniform points (N, d) for points (N, d) of the unit cube."""
        return self.points.inside(cube)
