"""The energy natural gradient: Newton's method for an energy, on the tangent space of an ansatz.

    (G + mu I) s = -dE/dtheta,       theta <- theta + s,

G the Gram matrix of the ansatz's derivatives in the energy's own second derivative (``energy``): up
to mu the step in function space is the projection of Newton's onto the tangent space (Mueller and
Zeinhofer, ICML 2023, arXiv 2302.13163). mu by the gain ratio of what the energy fell to what the
quadratic model promised (Nielsen 1999).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.collocation.energy import EnergyObjective
from sciml.solvers.collocation.training import Course, Training

_LARGEST, _LEAST = 1e12, 1e-16
# A promised fall of the energy below this share of its size is lost in its rounding.
_ROUNDING = 1e-15


@dataclass(frozen=True)
class NaturalGradient:
    """Damped natural gradient steps; ``damping``: the first mu over the largest diagonal of G.

    Time 2 R P^2 + P^3 / 3 a step for P parameters and R = (1 + D) N rows.
    """

    iterations: int = 200
    damping: float = 1e-3
    kind: Literal["natural_gradient"] = "natural_gradient"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations must be at least 1; got {self.iterations}")

    def minimise(self, objective: EnergyObjective, training: Training) -> Course:
        """Lower the energy until the training ends it, or its rounding is reached."""
        theta, mu, growth = objective.theta, None, 2.0
        for _ in range(self.iterations):
            training.exchange(objective)  # type: ignore[arg-type]
            before, gradient, root = objective.derivatives()
            if training.ended(before, objective):  # type: ignore[arg-type]
                break
            G = root.T @ root
            scale = float(G.diagonal().max())
            mu = self.damping * scale if mu is None else mu
            while (taken := _try(objective, theta, G, gradient, mu, before)) is None:
                mu, growth = mu * growth, 2 * growth
                if mu > _LARGEST * scale:
                    objective.assign(theta)
                    return training.stalled()
            step, fall, promised = taken
            if promised <= _ROUNDING * abs(before):
                objective.assign(theta)
                return training.stalled()
            theta = theta + step
            mu = max(mu * max(1 / 3, 1 - (2 * fall / promised - 1) ** 3), _LEAST * scale)
            growth = 2.0
        return training.course()


def _try(
    objective: EnergyObjective,
    theta: Tensor,
    G: Tensor,
    gradient: Tensor,
    mu: float,
    before: float,
) -> tuple[Tensor, float, float] | None:
    """A step that lowers the energy, by how much, and what was promised; None if it does not.

    Where so little is promised that rounding hides it, the step stands whatever it does.
    """
    step = _step(G, gradient, mu)
    if step is None:
        return None
    promised = 0.5 * float(mu * step @ step - gradient @ step)
    objective.assign(theta + step)
    fall = before - objective.value()
    return (step, fall, promised) if fall > 0 or promised <= _ROUNDING * abs(before) else None


def _step(G: Tensor, gradient: Tensor, mu: float) -> Tensor | None:
    """-(G + mu I)^-1 gradient, or None where mu is too small for the precision."""
    damped = G.clone()
    damped.diagonal().add_(mu)
    factor, info = torch.linalg.cholesky_ex(damped)
    if int(info):
        return None
    found = -torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    return found if bool(torch.isfinite(found).all()) else None
