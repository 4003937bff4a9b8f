"""Scattered points of a box of any dimension, where a trained function's answer is wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sciml.core.errors import InputError
from sciml.core.grid import Box

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Points:
    """``count`` points of Sobol's sequence, scrambled by ``seed``, inside the problem's box.

    For problems that no grid can hold: in ten dimensions a grid of 9 points per axis has 3.5e9.
    """

    count: int
    seed: int = 0
    domain: Box | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"count must be at least 1; got {self.count}", "points.count")

    @property
    def shape(self) -> tuple[int, ...]:
        """One axis: the points."""
        return (self.count,)

    @property
    def box(self) -> Box:
        """The domain; raises InputError while the points are not bound to one."""
        if self.domain is None:
            raise InputError("these points have no domain yet: use points.bind(problem.domain)")
        return self.domain

    def bind(self, domain: Box) -> Points:
        """These points in ``domain``."""
        return self if self.domain is not None else replace(self, domain=domain)

    def coordinates(self) -> tuple[torch.Tensor, ...]:
        """One tensor (count,) per axis, float64."""
        import torch

        box = self.box
        engine = torch.quasirandom.SobolEngine(box.dimension, scramble=True, seed=self.seed)
        cube = engine.draw(self.count, dtype=torch.float64)
        low, high = (torch.tensor(c, dtype=torch.float64) for c in (box.lower, box.upper))
        return tuple((low + cube * (high - low)).unbind(1))
