"""Where collocation draws its points: a box, or what an obstacle leaves of it.

A hole is the level set phi of a condition, negative inside. Points inside the domain are those of
the box with phi > 0, others drawn in the place of those in the hole. Points of the rim are the
nearest of many by |phi| / |grad phi|, a thin shell about it and so even along it, moved onto it by
Newton's method, x <- x - phi grad phi / |grad phi|^2. The normal is that out of the domain, into
the hole: -grad phi / |grad phi|.

What must vanish on the rim and be smooth beside it, the factor of a function with its data built
in, is phi with Rvachev's functions in the place of max and min (Rvachev 1963; Sukumar and
Srivastava 2022), over its largest value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.expression import Expression, level_set
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import Unknown, expression, free_names
from sciml.discretization.points.pointwise import Pointwise

KEY = "problem.obstacle.inside"
_POOL = 20  # points for each that is wanted on the rim
_NEWTON = 40
_ROUNDS = 100  # of new points for those in the hole
_TRIED = 4096
_ROUNDING = 1e-12  # of phi's size: on the rim


@dataclass(frozen=True)
class Hole:
    """The hole ``inside`` of a box; points (N, D) have its d coordinates first."""

    data: Pointwise
    inside: str

    @cached_property
    def _levels(self) -> tuple[Expression, Expression]:
        """phi, and its smooth form."""
        try:
            read = expression(self.inside, self.data.context(solved=False))
            if "t" in read.names:
                raise InputError("an obstacle does not move; leave t out")
            return level_set(read), level_set(read, smooth=True)
        except InputError as error:
            raise InputError(error.message, KEY) from None

    @cached_property
    def size(self) -> float:
        """The largest value of the smooth phi in the box, which is its unit."""
        box = self.data.problem.box
        generator = torch.Generator().manual_seed(0)
        cube = torch.rand(_TRIED, box.dimension, dtype=torch.float64, generator=generator)
        low, high = (torch.tensor(corner, dtype=torch.float64) for corner in (box.lower, box.upper))
        largest = float(self._value(self._levels[1], low + cube * (high - low)).max())
        if not largest > 0:
            raise InputError("the obstacle leaves nothing of the domain", KEY)
        return largest

    def level(self, points: Tensor) -> Tensor:
        """phi, (N,)."""
        return self._value(self._levels[0], points)

    def distance(self, points: Tensor) -> Tensor:
        """The smooth phi over its size, (N,): zero on the rim, at most about one."""
        return self._value(self._levels[1], points) / self.size

    def outside(self, points: Tensor) -> Tensor:
        """Whether points lie in the domain, bool (N,); those on the rim do, up to rounding."""
        return self.level(points) >= -_ROUNDING * self.size

    def normal(self, points: Tensor) -> list[Tensor]:
        """Out of the domain, one tensor (N,) per axis; at points of the rim."""
        _, slope = self._sloped(points)
        return list((-slope / slope.norm(dim=1, keepdim=True)).unbind(1))

    def cleared(self, points: Tensor, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """The points (N, D), those in the hole replaced by such as ``draw`` gives.

        Raises InputError where there is next to no room beside the hole.
        """
        found = points
        for round_ in range(_ROUNDS):
            rows = (~self.outside(found)).nonzero()[:, 0]
            if not len(rows):
                return found
            found = found.clone() if found is points else found
            found[rows] = draw(len(rows), torch.Generator().manual_seed(_seed(points) + round_))
        raise InputError("the obstacle covers a side, or all of the domain, but for a sliver", KEY)

    def rim(self, points: Tensor, draw: Callable[[int, torch.Generator], Tensor]) -> Tensor:
        """As many points (N, D) of the rim as are given; InputError where none is in the box."""
        pool = draw(_POOL * max(len(points), 50), torch.Generator().manual_seed(_seed(points)))
        phi, slope = self._sloped(pool)
        near = (phi.abs() / slope.norm(dim=1).clamp_min(1e-300)).nan_to_num(torch.inf).argsort()
        pool = pool[near[: 2 * max(len(points), 50)]]
        d = slope.shape[1]
        for _ in range(_NEWTON):
            phi, slope = self._sloped(pool)
            step = phi[:, None] * slope / slope.square().sum(1, keepdim=True).clamp_min(1e-300)
            pool = torch.cat([pool[:, :d] - step, pool[:, d:]], 1)
        box = self.data.problem.box
        low, high = (pool.new_tensor(corner) for corner in (box.lower, box.upper))
        kept = (self.level(pool).abs() <= 1e-9 * self.size) & (
            (pool[:, :d] >= low) & (pool[:, :d] <= high)
        ).all(1)
        pool = pool[kept]
        if not len(pool):
            raise InputError("no rim of this obstacle is found in the domain", KEY)
        return pool[torch.arange(len(points)) * len(pool) // max(len(points), 1) % len(pool)]

    def _value(self, level: Expression, points: Tensor) -> Tensor:
        known: dict[str, Tensor] = dict(zip(self.data.problem.box.axes, points.T, strict=False))
        numbers: Mapping[str, object] = self.data.parameters
        known |= {
            name: torch.as_tensor(p, dtype=points.dtype, device=points.device)
            for name, p in numbers.items()
            if name in level.names
        }
        found: Tensor = level(**{name: v for name, v in known.items() if name in level.names})
        return found.expand(points.shape[0])

    def _sloped(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """phi (N,) and its slopes (N, d)."""
        d = self.data.problem.box.dimension
        with torch.enable_grad():
            x = points.detach().requires_grad_()
            phi = self.level(x)
            (slope,) = torch.autograd.grad(phi.sum(), x)
        return phi.detach(), slope[:, :d]


def hole_of(data: Pointwise) -> Hole | None:
    """That of a problem; raises InputError for one whose shape is to be found."""
    problem: Problem = data.problem
    if problem.obstacle is None:
        return None
    inside = problem.obstacle.inside
    for name in sorted(free_names(inside)):
        if isinstance(problem.parameters.get(name), Unknown):
            raise InputError(f"the shape of an obstacle is not found: '{name}' is unknown", KEY)
    hole = Hole(data, inside)
    if not hole.size > 0:
        raise InputError("the obstacle leaves nothing of the domain", KEY)
    return hole


def _seed(points: Tensor) -> int:
    """One that belongs to these points, so that what is drawn beside them is drawn again."""
    return int(points.detach().abs().sum().mul(1e6).remainder(2**31)) if points.numel() else 0
