"""What an integrator gives to the march in time: one step, with an estimate of its error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

Memory = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Attempt:
    """One step taken on trial.

    ``y``: the new state (parts, *batch, *shape). ``memory``: what the next step wants to know of
    this one. ``error``: the estimated local error, shaped as y. ``residual``: the largest residual
    of the implicit stages, shape batch. ``solved``: whether all stages were, shape batch.
    """

    y: torch.Tensor
    memory: Memory
    error: torch.Tensor
    residual: torch.Tensor
    solved: torch.Tensor


class Scheme(ABC):
    """A method set up for one system; a leaf gives ``begin`` and ``advance``.

    ``exponent``: the error estimate is O(h^exponent). ``growth``: the largest factor from one step
    to the next. ``frugal``: a change of the step costs a set-up, so small ones are not made.
    ``fixed_step``: the step of a method that has no other, unless the user gives one.
    """

    name: str
    exponent: int
    growth: float = 5.0
    frugal: bool = False
    fixed_step: float | None = None

    @abstractmethod
    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """The memory before the first step; its shapes never change afterwards."""

    @abstractmethod
    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> Attempt:
        """The step from t to t + h; only the samples that are ``alive`` matter."""

    def forget(self) -> None:
        """Keep nothing that does not follow from state and memory: a run may be taken up here."""
        return None

    def remark(self) -> str:
        """What the steps were made with, as part of a note."""
        return ""
