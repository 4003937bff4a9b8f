"""Optimisers that need the loss and its gradient alone: any number of points and parameters.

*Adam* (Kingma and Ba 2015, algorithm 1) on the loss at the present points.

    g = dL/dtheta,  m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
    theta = theta - rate_k  m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + 1e-8).

A minibatch is what the sampler draws: with ``every`` 1 each step sees points of its own. Slow, but
robust; it comes before Gauss-Newton, which finishes.

*Limited-memory BFGS* with a strong Wolfe line search (Nocedal and Wright 2006, section 7.2).

The direction -H g from the last m pairs s = theta' - theta, y = g' - g by the two-loop recursion,
H_0 = s.y / y.y. The step fulfils

    phi(a) <= phi(0) + 1e-4 a phi'(0),      |phi'(a)| <= 0.9 |phi'(0)|      (algorithms 3.5, 3.6).

*Self-scaled Broyden* (Al-Baali and Khalfan 2005; Urban, Stefanou, Pons 2024, arXiv 2405.04230),
with H the whole matrix: of s, y as above, q = H y, a the step's length, g the old gradient,

    b = -a s.g / s.y,  h = y.q / s.y,  c = b h - 1,  rho = min(1, h (1 - sqrt(c / (1 + c)))),
    theta = max((rho - 1) / c, min(1 / rho, (1 - b) / b)),  sigma = 1 + c theta,
    phi = (1 - theta) / sigma,  tau = rho min(sigma^(-1/(P-1)), 1 / theta), for theta <= 0
    min(rho sigma^(-1/(P-1)), sigma),
    H <- (H - q q^T / y.q + phi y.q v v^T) / tau + s s^T / s.y,      v = s / s.y - q / y.q.

There is no absolute tolerance: a loss of 1e-12 is as far from its minimum as one of 1. Where the
line search fails, the pairs are forgotten once and steepest descent is tried; it ends where that
fails too. New points are a new function: the pairs are forgotten then as well.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.trained.minimisation import Minimisation, OptimiserResult
from sciml.solvers.trained.objective import Objective

Decay = Literal["none", "exponential", "cosine"]
_EPSILON = 1e-8


@dataclass(frozen=True)
class AdamDescent:
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

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        theta = objective.theta
        mean, square = torch.zeros_like(theta), torch.zeros_like(theta)
        for k in range(1, self.iterations + 1):
            minimisation.exchange(objective)
            loss, slope = value_and_gradient(objective)
            if minimisation.ended(loss, objective):
                break
            mean.lerp_(slope, 1 - self.momentum)
            square.lerp_(slope.square(), 1 - self.memory)
            spread = (square / (1 - self.memory**k)).sqrt() + _EPSILON
            theta = theta - self.rate_at(k - 1) * mean / (1 - self.momentum**k) / spread
            objective.assign(theta)
        return minimisation.result()

    def rate_at(self, step: int) -> float:
        """The rate of a step, counted from zero."""
        share = step / max(self.iterations - 1, 1)
        if self.decay == "exponential":
            fallen: float = self.last**share
            return self.rate * fallen
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


_DECREASE, _CURVATURE = 1e-4, 0.9
_TRIALS = 25
CurvaturePairs = deque[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class LBFGS:
    """Quasi-Newton steps from the last ``memory`` of them; float64.

    For networks and point sets whose Jacobian would not fit into memory.
    """

    iterations: int = 5000
    memory: int = 50
    kind: Literal["lbfgs"] = "lbfgs"

    def __post_init__(self) -> None:
        for name in ("iterations", "memory"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}",
                    f"solver.optimiser.{name}",
                )

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        pairs: CurvaturePairs = deque(maxlen=self.memory)
        theta, now = objective.theta, None
        for _ in range(self.iterations):
            if minimisation.exchange(objective) or now is None:
                pairs.clear()
                now = value_and_gradient(objective)
            loss, slope = now
            if minimisation.ended(loss, objective):
                break
            found = _step(objective, theta, loss, slope, -two_loops(slope, pairs), bool(pairs))
            if found is None and pairs:
                pairs.clear()
                found = _step(objective, theta, loss, slope, -slope, False)
            if found is None:
                objective.assign(theta)
                return minimisation.stalled()
            s, y = found.theta - theta, found.slope - slope
            if float(s @ y) > 1e-10 * float(s.norm() * y.norm()):
                pairs.append((s, y))
            theta, now = found.theta, (found.loss, found.slope)
            objective.assign(theta)
        return minimisation.result()


@dataclass(frozen=True)
class SelfScaledBroyden:
    """Quasi-Newton steps with the whole matrix, scaled at every one of them; float64.

    Memory P x P for P parameters, time two gradients or so and 6 P^2 an iteration.
    """

    iterations: int = 20_000
    kind: Literal["ssbroyden"] = "ssbroyden"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(
                f"iterations must be at least 1; got {self.iterations}",
                "solver.optimiser.iterations",
            )

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        theta, now, H = objective.theta, None, None
        direction = theta
        for _ in range(self.iterations):
            if minimisation.exchange(objective) or now is None:
                now = value_and_gradient(objective)
                direction = -now[1] if H is None else -(H @ now[1])
            loss, slope = now
            if minimisation.ended(loss, objective):
                break
            found = _step(objective, theta, loss, slope, direction, H is not None)
            if found is None and H is not None:
                H, direction = None, -slope
                found = _step(objective, theta, loss, slope, direction, False)
            if found is None:
                objective.assign(theta)
                return minimisation.stalled()
            s, y = found.theta - theta, found.slope - slope
            theta, now = found.theta, (found.loss, found.slope)
            objective.assign(theta)
            curved = float(s @ y) > 1e-10 * float(s.norm() * y.norm())
            if H is None and curved:
                H = torch.eye(len(s), dtype=s.dtype, device=s.device) * (s @ y / (y @ y))
                direction = -(H @ slope)
            if H is None:
                direction = -found.slope
            elif curved:
                after = H @ found.slope
                self_scaled(H, s, y, after + direction, found.at * float(-(s @ slope)))
                direction = -(H @ found.slope)
            else:
                direction = -(H @ found.slope)
        return minimisation.result()


def self_scaled(H: Tensor, s: Tensor, y: Tensor, q: Tensor, bent: float) -> None:
    """H after a step, in place; ``q`` H y, ``bent`` s . B s, B the inverse of H."""
    sy, yq = float(s @ y), float(y @ q)
    b, h = bent / sy, yq / sy
    c = max(b * h - 1, 1e-12)  # Cauchy-Schwarz: no less than zero but for rounding
    rho = min(1.0, h * (1 - math.sqrt(c / (1 + c))))
    theta = max((rho - 1) / c, min(1 / rho, (1 - b) / b))
    sigma = 1 + c * theta
    shrunk = sigma ** (-1 / max(len(s) - 1, 1))
    tau = min(rho * shrunk, sigma) if theta <= 0 else rho * min(shrunk, 1 / theta)
    phi = (1 - theta) / sigma
    columns = torch.stack([s, q], 1)
    mixed = (
        phi
        * yq
        * torch.tensor([[1 / sy**2, -1 / (sy * yq)], [-1 / (sy * yq), 1 / yq**2]], dtype=s.dtype)
    )
    mixed[1, 1] -= 1 / yq
    mixed /= tau
    mixed[0, 0] += 1 / sy
    H.addmm_(columns @ mixed.to(s.device), columns.T, beta=1 / tau)


class _Place(NamedTuple):
    at: float
    theta: Tensor
    loss: float
    slope: Tensor


class Probe(NamedTuple):
    """A point of a line search: its step, phi and phi'."""

    at: float
    value: float
    slope: float


def _step(
    objective: Objective,
    theta: Tensor,
    loss: float,
    slope: Tensor,
    direction: Tensor,
    scaled: bool,
) -> _Place | None:
    """Along a direction, whose length says something where it is ``scaled``."""
    rate = float(slope @ direction)
    if not rate < 0:
        return None
    places: dict[float, _Place] = {}

    def phi(at: float) -> Probe:
        objective.assign(theta + at * direction)
        value, gradient = value_and_gradient(objective)
        places[at] = _Place(at, theta + at * direction, value, gradient)
        return Probe(at, value if math.isfinite(value) else math.inf, float(gradient @ direction))

    first = 1.0 if scaled else 1 / float(slope.abs().sum())
    at = strong_wolfe(phi, Probe(0.0, loss, rate), first)
    return None if at is None else places[at]


def two_loops(slope: Tensor, pairs: CurvaturePairs) -> Tensor:
    """H g of the pairs (s, y), oldest first."""
    q, shares = slope.clone(), []
    for s, y in reversed(pairs):
        shares.append(float(s @ q) / float(s @ y))
        q = q - shares[-1] * y
    if pairs:
        s, y = pairs[-1]
        q = q * (float(s @ y) / float(y @ y))
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        q = q + (share - float(y @ q) / float(s @ y)) * s
    return q


def strong_wolfe(phi: Callable[[float], Probe], zero: Probe, first: float) -> float | None:
    """A step that fulfils the strong Wolfe conditions, or else lowers phi; None where none does."""
    low, at = zero, first
    for _ in range(_TRIALS):
        new = phi(at)
        if _too_high(new, zero) or (low.at > 0 and new.value >= low.value):
            return _zoom(phi, zero, low, new)
        if abs(new.slope) <= -_CURVATURE * zero.slope:
            return new.at
        if new.slope >= 0:
            return _zoom(phi, zero, new, low)
        low, at = new, 2 * at
    return low.at


def _zoom(phi: Callable[[float], Probe], zero: Probe, low: Probe, high: Probe) -> float | None:
    """Between ``low``, the best so far, and ``high``, beyond which phi rises."""
    for _ in range(_TRIALS):
        if low.at == high.at:
            break
        new = phi(_between(low, high))
        if _too_high(new, zero) or new.value >= low.value:
            high = new
            continue
        if abs(new.slope) <= -_CURVATURE * zero.slope:
            return new.at
        if new.slope * (high.at - low.at) >= 0:
            high = low
        low = new
    return low.at if low.at > 0 else None


def _too_high(new: Probe, zero: Probe) -> bool:
    return not new.value <= zero.value + _DECREASE * new.at * zero.slope


def _between(a: Probe, b: Probe) -> float:
    """Where the cubic through both is least, kept off the ends; half-way where there is none."""
    width = b.at - a.at
    if math.isfinite(b.value) and math.isfinite(b.slope):
        d = a.slope + b.slope - 3 * (a.value - b.value) / (a.at - b.at)
        square = d * d - a.slope * b.slope
        if square >= 0:
            root = math.copysign(math.sqrt(square), width)
            bottom = b.slope - a.slope + 2 * root
            if bottom != 0:
                share = 1 - (b.slope + root - d) / bottom
                return a.at + min(max(share, 0.1), 0.9) * width
    return a.at + 0.5 * width
