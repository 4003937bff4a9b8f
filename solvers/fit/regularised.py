"""The simplest functions that explain the readings: a prior as strong as their noise allows.

With m = s - s_0 the distance of the unknowns from their start, R the prior's precision and rho the
misfits in units of their noise, N of them,

    min |rho(s)|^2 + alpha m^T R m.

A step of Gauss and Newton is taken in the space of the readings, of which there are fewer: with
W = R^-1 J^T, G = J W = V Lambda V^T and d = J m - rho,

    m_new = W V (Lambda + alpha)^-1 V^T d,    |J m_new - d|^2 = |alpha (Lambda + alpha)^-1 V^T d|^2,

so that J is the only thing that solves of the problem are needed for, and alpha is found at each
step from the second formula: the largest that lets the misfit be N, which is what noise alone
leaves (the discrepancy principle, Morozov 1966; so for nonlinear problems: Constable, Parker and
Constable 1987), or, while that is far, a tenth of what it was. Steps are halved until the function
falls. At the end the posterior's covariance is, to first order (Laplace's approximation),

    (J^T J + alpha R)^-1 = alpha^-1 (R^-1 - W V (Lambda + alpha)^-1 V^T W^T).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

from sciml.core.run.status import Status
from sciml.solvers.fit.least_squares import Course, Trials
from sciml.solvers.fit.sensitivities import jacobian

_SLOWLY = 0.1  # of the misfit's square, to which one step may bring it
_CLOSE = 0.02  # of the misfit's square to what noise leaves
_STILL = 3e-2  # of the noise of a reading, by which they still change
_SHORTEST = 2.0**-10
_LAGGED = 50  # times that a prior is looked at again within a step, which costs no solve
_WEAKEST, _STRONGEST = 1e-12, 1e12  # strengths beside the largest of Lambda

Precision = Callable[[Tensor], scipy.sparse.csc_matrix]


def regularised(
    trials: Trials,
    start: Tensor,
    initial: Tensor | None,
    precision: Precision,
    strength: float | None,
) -> Course:
    """From ``start``, where ``precision(s)`` is R at s; ``strength``: alpha, None to find it."""
    observed = trials.experiment.observed
    answer = trials.first(start, initial)
    if not answer.solution.status.success:
        return trials.unanswered(answer)
    assert observed.noise is not None
    weights = observed.noise.expand_as(observed.seen).flatten()
    size, count = float((trials.seen / weights).norm()) or 1.0, len(weights)
    rho, status = trials.misfit(answer, weights), Status.MAX_ITERATIONS
    trials.told(rho, size)
    for step in range(trials.iterations + 1):
        A = jacobian(trials.experiment, answer) / weights[:, None]
        m = answer.s.detach() - start
        square = float(rho.square().sum())
        R, p = precision(answer.s), torch.zeros_like(m)
        for _ in range(_LAGGED):
            model = _Linear(A, R, A @ m - rho)
            alpha = strength or model.strength(max(count, _SLOWLY * square))
            before, p = p, model.answer(alpha) - m
            ahead = precision(start + m + p)
            change = p - before
            if (ahead != R).nnz == 0 or alpha * _form(R, change) <= _STILL**2 * count / 10:
                break
            R = ahead
        change = A @ p
        moved = float(change.square().sum()) + alpha * _form(R, p)
        near = strength is not None or square <= (1 + _CLOSE) * count
        near = near or model.reached(alpha) > (1 - _CLOSE) * square  # no strength explains more
        if moved <= _STILL**2 * count and near:
            status = Status.CONVERGED
            break
        if step == trials.iterations:
            break
        merit, length = square + alpha * _form(R, m), 1.0
        while True:
            trial = trials.beyond(answer, length * p)
            new = trials.misfit(trial, weights)
            fell = merit - float(new.square().sum()) - alpha * _form(R, m + length * p)
            if trial is not answer and math.isfinite(fell) and fell > 0:
                break
            length /= 2
            if length < _SHORTEST:
                break
        if length < _SHORTEST:
            status = Status.CONVERGED if moved <= _CLOSE * count and near else Status.STAGNATED
            break
        answer, rho = trial, new
        trials.told(rho, size)
    ended = trials.ended(answer, status, A * weights[:, None], weights)
    return replace(ended, strength=alpha, covariance=lambda v: model.covariance(alpha, v))


def _form(R: scipy.sparse.csc_matrix, m: Tensor) -> float:
    return float(m.numpy() @ (R @ m.numpy()))


class _Linear:
    """min |A m - d|^2 + alpha m^T R m for any alpha; A (N, P), d (N,)."""

    def __init__(self, A: Tensor, R: scipy.sparse.csc_matrix, d: Tensor) -> None:
        self.A, self.d = A, d
        self.inverse = splu(R)
        self.W = torch.from_numpy(self.inverse.solve(np.ascontiguousarray(A.numpy().T)))
        values, self.V = torch.linalg.eigh(A @ self.W)
        self.values = values.clamp(min=0.0)
        self.along = self.V.T @ d

    def answer(self, alpha: float) -> Tensor:
        """m (P,)."""
        found: Tensor = self.W @ (self.V @ (self.along / (self.values + alpha)))
        return found

    def reached(self, alpha: float) -> float:
        """|A m - d|^2."""
        return float((alpha / (self.values + alpha) * self.along).square().sum())

    def strength(self, square: float) -> float:
        """The largest alpha at which |A m - d|^2 is this ``square``, or the best there is."""
        top = float(self.values.max()) or 1.0
        low, high = math.log(_WEAKEST * top), math.log(_STRONGEST * top)
        if self.reached(math.exp(low)) >= square:
            # What cannot be explained: as strong as leaves a hundredth more than nothing would.
            square = 1.01 * self.reached(math.exp(low))
        for _ in range(80):
            middle = (low + high) / 2
            low, high = (middle, high) if self.reached(math.exp(middle)) < square else (low, middle)
        return math.exp(low)

    def covariance(self, alpha: float, v: Tensor) -> Tensor:
        """The posterior's covariance of directions v (P, k), (P, k)."""
        before = torch.from_numpy(self.inverse.solve(np.ascontiguousarray(v.numpy())))
        seen = self.V.T @ (self.W.T @ v)
        learned: Tensor = self.W @ (self.V @ (seen / (self.values + alpha)[:, None]))
        return (before - learned) / alpha
