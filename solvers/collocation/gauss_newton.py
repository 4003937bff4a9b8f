"""Levenberg-Marquardt: Gauss-Newton with damping, for residuals whose Jacobian is at hand.

    (J^T J + mu I) s = -J^T r,      or, if there are fewer residuals than parameters,
    s = -J^T (J J^T + mu I)^-1 r,

mu by the gain ratio of what the loss fell to what the linear model promised (Nielsen 1999). With mu
going to zero it is the energy natural gradient of a linear problem's least-squares loss (Mueller
and Zeinhofer, ICML 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.collocation.objective import Objective
from sciml.solvers.collocation.training import Course, Training

_LARGEST, _LEAST = 1e12, 1e-16


@dataclass(frozen=True)
class GaussNewton:
    """Levenberg-Marquardt steps; ``damping``: the first mu over the largest diagonal of J^T J.

    Memory R x P for R residuals and P parameters, time min(R, P)^2 max(R, P) an iteration.
    """

    iterations: int = 200
    damping: float = 1e-3
    kind: Literal["gauss_newton"] = "gauss_newton"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations must be at least 1; got {self.iterations}")

    def minimise(self, objective: Objective, training: Training) -> Course:
        """Lower the objective's loss until the training ends it."""
        theta, mu, growth = objective.theta, None, 2.0
        for _ in range(self.iterations):
            training.exchange(objective)
            r, J = objective.jacobian()
            before = float(r @ r)
            if training.ended(before, objective):
                break
            system = _System(r, J)
            mu = self.damping * system.scale if mu is None else mu
            while (taken := _try(objective, system, theta, mu, before)) is None:
                mu, growth = mu * growth, 2 * growth
                if mu > _LARGEST * system.scale:
                    objective.assign(theta)
                    return training.stalled()
            theta, gain = taken
            mu = max(mu * max(1 / 3, 1 - (2 * gain - 1) ** 3), _LEAST * system.scale)
            growth = 2.0
        return training.course()


def _try(
    objective: Objective, system: _System, theta: Tensor, mu: float, before: float
) -> tuple[Tensor, float] | None:
    """The parameters after a step that lowers the loss, and its gain ratio; None if it does not."""
    step = system.step(mu)
    if step is None:
        return None
    objective.assign(theta + step)
    trial = objective.vector()
    after = float(trial @ trial)
    promised = float(mu * step @ step - step @ system.slope)
    return (theta + step, (before - after) / max(promised, 1e-300)) if after < before else None


class _System:
    """The damped normal equations on the smaller side of J."""

    def __init__(self, r: Tensor, J: Tensor) -> None:
        self.r, self.J = r, J
        self.slope = J.T @ r
        self.wide = J.shape[0] < J.shape[1]
        self.gram = J @ J.T if self.wide else J.T @ J
        self.scale = float(self.gram.diagonal().max())

    def step(self, mu: float) -> Tensor | None:
        """s, or None where mu is too small for the precision."""
        damped = self.gram.clone()
        damped.diagonal().add_(mu)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info):
            return None
        right = self.r if self.wide else self.slope
        found = torch.cholesky_solve(right[:, None], factor)[:, 0]
        step = -(self.J.T @ found) if self.wide else -found
        return step if bool(torch.isfinite(step).all()) else None
