"""Gauss-Newton methods: least squares of residuals whose Jacobian is at hand.

*Levenberg-Marquardt with geodesic acceleration.* With columns scaled, J = (dr/dtheta) D^-1, D the
norm of each column but no less than a tenth of the largest,

    (J^T J + mu I) s = -J^T r,      or, if there are fewer residuals than parameters,
    s = -J^T (J J^T + mu I)^-1 r,
    (J^T J + mu I) a = -J^T r''/2,       r'' = d^2/dh^2 r(theta + h D^-1 s),

the step is s + a where a is smaller than s, else s (Transtrum and Sethna 2012, arXiv 1201.5885,
eq. 8-15). Once J^T J is formed, another mu costs one factorisation: mu is searched in factors of
four, down as long as the loss falls, at every iteration. Where J^T J + mu I is not definite in this
precision, J stacked on sqrt(mu) I is decomposed into Q R instead.

*Energy natural gradient* of the residuals' energy (Mueller and Zeinhofer, ICML 2023, arXiv
2302.13163, algorithm 1): the step s = -(J^T J)^+ J^T r, its length the best of 1, 1/2, 1/4, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.trained.minimisation import Minimisation, OptimiserResult
from sciml.solvers.trained.objective import Objective

_FLOOR = 0.1  # of a column's scale, over the largest
_FACTOR = 4.0  # between the dampings that are tried
_LARGEST, _LEAST = 1e12, 1e-20
_PROBE = 0.1  # of the step, where r'' is measured
_BENT = 0.75  # the acceleration over the step beyond which it is left out
_HALVINGS = 31
_EXHAUSTED = 1e-6  # the least pivot of a Cholesky factor over the largest: the square is rounding


@dataclass(frozen=True)
class GaussNewton:
    """Levenberg-Marquardt steps; ``damping``: the first mu, where the largest column has norm one.

    Memory R x P for R residuals and P parameters, time min(R, P)^2 max(R, P) an iteration.
    """

    iterations: int = 200
    damping: float = 1e-3
    kind: Literal["gauss_newton"] = "gauss_newton"

    def __post_init__(self) -> None:
        _counted(self.iterations)
        if not 0 < self.damping < math.inf:
            raise InputError(
                f"damping must be positive; got {self.damping:g}", "solver.optimiser.damping"
            )

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        theta, mu = objective.theta, self.damping
        for _ in range(self.iterations):
            minimisation.exchange(objective)
            r, J = objective.jacobian()
            before = float(r @ r)
            if minimisation.ended(before, objective):
                break
            found = _Search(objective, theta, r, J).best(mu, before)
            objective.assign(theta if found is None else found.theta)
            if found is None:
                return minimisation.stalled()
            theta, mu = found.theta, found.mu
        return minimisation.result()


@dataclass(frozen=True)
class EnergyNaturalGradient:
    """Undamped natural gradient steps with a line search; for small networks, float64.

    ``cutoff``: singular values of J^T J, over the largest, below which directions are left out.
    Memory R x P for R residuals and P parameters, time 2 R P^2 + 9 P^3 an iteration.
    """

    iterations: int = 200
    cutoff: float = 1e-8
    kind: Literal["energy_natural_gradient"] = "energy_natural_gradient"

    def __post_init__(self) -> None:
        _counted(self.iterations)
        if not 0 <= self.cutoff < 1:
            raise InputError(
                f"cutoff is a share, in [0, 1); got {self.cutoff:g}", "solver.optimiser.cutoff"
            )

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        theta = objective.theta
        for _ in range(self.iterations):
            minimisation.exchange(objective)
            r, J = objective.jacobian()
            before = float(r @ r)
            if minimisation.ended(before, objective):
                break
            if not bool(torch.isfinite(J).all()):
                return minimisation.overflowed("the derivatives of the residuals")
            step = self._step(r, J)
            trials = [_trial(objective, theta + 0.5**k * step, 0.0) for k in range(_HALVINGS)]
            found = min(trials, key=lambda trial: trial.loss)
            if not found.loss < before:
                objective.assign(theta)
                return minimisation.stalled()
            theta = found.theta
            objective.assign(theta)
        return minimisation.result()

    def _step(self, r: Tensor, J: Tensor) -> Tensor:
        wide = J.shape[0] < J.shape[1]
        values, vectors = torch.linalg.eigh(J @ J.T if wide else J.T @ J)
        kept = values > self.cutoff * values[-1]
        right = r if wide else J.T @ r
        inverse = torch.where(kept, 1 / values.where(kept, torch.ones_like(values)), 0.0)
        found: Tensor = vectors @ (inverse * (vectors.T @ right))
        return -(J.T @ found) if wide else -found


class _Trial(NamedTuple):
    loss: float
    theta: Tensor
    mu: float


def _trial(objective: Objective, theta: Tensor, mu: float) -> _Trial:
    objective.assign(theta)
    r = objective.vector()
    loss = float(r @ r)
    return _Trial(loss if loss == loss else float("inf"), theta, mu)


class _Search:
    """The damped steps from one point."""

    def __init__(self, objective: Objective, theta: Tensor, r: Tensor, J: Tensor) -> None:
        self.objective, self.theta, self.r = objective, theta, r
        norms = J.norm(dim=0)
        self.scale = norms.clamp_min(max(_FLOOR * float(norms.max()), 1e-300))
        self.system = DampedSystem(J / self.scale)

    def best(self, mu: float, before: float) -> _Trial | None:
        """The lowest loss found, below ``before``; None where there is none."""
        found = self._at(mu)
        if found is None or not found.loss < before:
            return self._upwards(mu, before)
        for factor in (1 / _FACTOR, _FACTOR):
            start = found
            while found.mu > _LEAST:
                trial = self._at(found.mu * factor)
                if trial is None or not trial.loss < found.loss:
                    break
                found = trial
            if found is not start:
                break
        return found

    def _upwards(self, mu: float, before: float) -> _Trial | None:
        while mu < _LARGEST:
            mu *= _FACTOR
            found = self._at(mu)
            if found is not None and found.loss < before:
                return found
        return None

    def _at(self, mu: float) -> _Trial | None:
        """The better of the step and the accelerated one."""
        if not self.system.damp(mu):
            return None
        step = self.system.solve(-self.r)
        if not bool(torch.isfinite(step).all()):
            return None
        plain = _trial(self.objective, self.theta + step / self.scale, mu)
        self.objective.assign(self.theta + _PROBE * step / self.scale)
        along = (self.objective.vector() - self.r) / _PROBE
        bend = 2 / _PROBE * (along - self.system.J @ step)
        turn = self.system.solve(-0.5 * bend)
        if not float(turn.norm()) < _BENT * float(step.norm()):
            return plain
        turned = _trial(self.objective, self.theta + (step + turn) / self.scale, mu)
        return min(plain, turned, key=lambda trial: trial.loss)


class DampedSystem:
    """min |J s - b|^2 + mu |s|^2 for several mu and b, ``J`` (R, P).

    By a Cholesky factor of J^T J + mu I, or of J J^T + mu I where that is smaller, and where this
    is not definite in this precision by a QR decomposition.
    """

    def __init__(self, J: Tensor) -> None:
        self.J = J
        self.wide = J.shape[0] < J.shape[1]
        self.gram = J @ J.T if self.wide else J.T @ J
        self.factor = self.gram
        self.basis: Tensor | None = None

    def damp(self, mu: float) -> bool:
        """Factorise for this mu; whether that worked."""
        damped = self.gram.clone()
        damped.diagonal().add_(mu)
        self.basis = None
        self.factor, info = torch.linalg.cholesky_ex(damped)
        pivots = self.factor.diagonal()
        if int(info) or float(pivots.min()) < _EXHAUSTED * float(pivots.max()):
            thin = self.J.T if self.wide else self.J
            below = mu**0.5 * torch.eye(thin.shape[1], dtype=thin.dtype, device=thin.device)
            Q, self.factor = torch.linalg.qr(torch.cat([thin, below]))
            self.basis = Q[: len(thin)]
        return bool(self.factor.diagonal().abs().min() > 0)

    def solve(self, b: Tensor) -> Tensor:
        """s, (P,)."""
        if self.basis is None and self.wide:
            return self.J.T @ torch.cholesky_solve(b[:, None], self.factor)[:, 0]
        if self.basis is None:
            return torch.cholesky_solve((self.J.T @ b)[:, None], self.factor)[:, 0]
        if self.wide:
            lower = self.factor.T
            right: Tensor = torch.linalg.solve_triangular(lower, b[:, None], upper=False)
            return self.basis @ right[:, 0]
        right = (self.basis.T @ b)[:, None]
        s: Tensor = torch.linalg.solve_triangular(self.factor, right, upper=True)
        return s[:, 0]


def _counted(iterations: int) -> None:
    if iterations < 1:
        raise InputError(
            f"iterations must be at least 1; got {iterations}", "solver.optimiser.iterations"
        )
