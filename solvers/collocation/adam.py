"""Adam (Kingma and Ba 2015, algorithm 1) on the loss at the present points.

    g = dL/dtheta,  m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
    theta = theta - rate_k  m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + 1e-8).

A minibatch is what the sampler draws: with ``every`` 1 each step sees points of its own. Slow, but
it takes any number of points and parameters; it comes before Gauss-Newton, which finishes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.collocation.objective import Objective
from sciml.solvers.collocation.training import Course, Training

Decay = Literal["none", "exponential", "cosine"]
_EPSILON = 1e-8


@dataclass(frozen=True)
class Adam:
    """``rate`` falls to the share ``last`` of itself over the ``iterations``, along ``decay``."""

    iterations: int = 10_000
    rate: float = 1e-3
    decay: Decay = "exponential"
    last: float = 1e-2
    momentum: float = 0.9
    memory: float = 0.999
    kind: Literal["adam"] = "adam"

    def __post_init__(self) -> None:
        key = "solver.optimiser"
        if self.iterations < 1:
            raise InputError(
                f"iterations must be at least 1; got {self.iterations}", f"{key}.iterations"
            )
        for name in ("rate", "last"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be positive; got {getattr(self, name)}", key)
        for name in ("momentum", "memory"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} must be in [0, 1); got {getattr(self, name)}", key)

    def minimise(self, objective: Objective, training: Training) -> Course:
        """Lower the objective's loss until the training ends it."""
        theta = objective.theta
        mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
        for k in range(1, self.iterations + 1):
            training.exchange(objective)
            loss, slope = value_and_gradient(objective)
            if training.ended(loss, objective):
                break
            mean.lerp_(slope, 1 - self.momentum)
            square.lerp_(slope.square(), 1 - self.memory)
            spread = (square / (1 - self.memory**k)).sqrt() + _EPSILON
            theta = theta - self.rate_at(k - 1) * mean / (1 - self.momentum**k) / spread
            objective.assign(theta)
        return training.course()

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from zero."""
        share = step / max(self.iterations - 1, 1)
        if self.decay == "exponential":
            return self.rate * self.last**share
        if self.decay == "cosine":
            return self.rate * (self.last + (1 - self.last) * (1 + math.cos(math.pi * share)) / 2)
        return self.rate


def value_and_gradient(objective: Objective) -> tuple[float, Tensor]:
    """The loss and its gradient by the parameters, (P,)."""
    with torch.enable_grad():
        loss, _ = objective.loss()
        parts = torch.autograd.grad(
            loss, objective.columns, allow_unused=True, materialize_grads=True
        )
    return float(loss.detach()), torch.cat([part.flatten() for part in parts])
