"""The least squares of misfits by few unknowns, after Levenberg and Marquardt.

A step solves (J^T J + lambda D) p = -J^T rho, D the largest squares of J's columns so far, lambda
after Nielsen (1999). It ends where what the linear model could still gain, |P rho| with P onto the
range of J, is below 1e-4 of what is noise per degree of freedom (the relative offset of Bates and
Watts 1981), or below 1e-7 of the readings where these have none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.errors import InputError, SolveError
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.fit.sensitivities import Answer, Experiment, jacobian, solved

_OFFSET = 1e-4  # of the noise per degree of freedom, that a step may still gain
_ACCEPTED = 1e-2  # of it, where the answers are not accurate enough to gain anything
_EXACT = 1e-7  # of the readings' size: as exact as they are read
_FIRST, _LARGEST = 1e-3, 1e12  # dampings
_RANK = 1e-10  # of the largest singular value of J with columns of length one
_REWEIGHED = 3  # times that several fields' noises are found anew


@dataclass(frozen=True)
class Course:
    """Where a search ended: its ``answer``, the ``status`` of the search, and J, (N f, P).

    ``weights`` (N f,): what misfits were divided by; ``misfits``: relative, of every step.
    ``strength``: of a prior, and ``covariance`` of the unknowns, R^-1 / strength less what was
    learned, as a function of a matrix (P, k) of directions; None without one.
    """

    answer: Answer
    status: Status
    J: Tensor
    weights: Tensor
    misfits: tuple[float, ...]
    solves: int
    strength: float | None = None
    covariance: Callable[[Tensor], Tensor] | None = None


class Trials:
    """Answers of an experiment at one guess after another; counts them, and tells of misfits."""

    def __init__(self, experiment: Experiment, iterations: int, progress: Progress | None) -> None:
        self.experiment, self.iterations, self.progress = experiment, iterations, progress
        self.seen = experiment.observed.seen.flatten()
        self.solves = 0
        self.misfits: list[float] = []

    def first(self, s: Tensor, initial: Tensor | None) -> Answer:
        """The answer at the start; InputError where it has no readings."""
        self.solves += 1
        answer = solved(self.experiment, s, initial)
        bad = (~torch.isfinite(answer.readings)).nonzero()
        if answer.solution.status.success and len(bad):
            raise InputError(
                f"observation {int(bad[0]) + 1} lies where there is no answer, as in an obstacle",
                "problem.observations",
            )
        return answer

    def beyond(self, answer: Answer, p: Tensor) -> Answer:
        """The answer a step on, or this one where there is none: a step too far."""
        self.solves += 1
        try:
            trial = solved(self.experiment, answer.s.detach() + p, answer.solution.value)
        except (InputError, SolveError):
            return answer
        return trial if trial.solution.status.success else answer

    def misfit(self, answer: Answer, weights: Tensor) -> Tensor:
        """rho (N f,)."""
        return (answer.readings - self.seen) / weights

    def told(self, rho: Tensor, size: float) -> None:
        """Keep and tell the misfit of a step, relative to the readings' ``size``."""
        self.misfits.append(float(rho.norm()) / size)
        if self.progress is not None:
            self.progress(len(self.misfits) - 1, self.misfits[-1])

    def ended(self, answer: Answer, status: Status, J: Tensor, weights: Tensor) -> Course:
        """The course that ends here."""
        return Course(answer, status, J, weights, tuple(self.misfits), self.solves)

    def unanswered(self, answer: Answer) -> Course:
        """The course that ends at a start that has no answer."""
        J = torch.zeros(len(self.seen), len(answer.s), dtype=torch.float64)
        return self.ended(answer, answer.solution.status, J, torch.ones_like(self.seen))


def least_squares(trials: Trials, start: Tensor, initial: Tensor | None) -> Course:
    """From ``start``; with several fields whose noise is not stated, weighed anew."""
    observed = trials.experiment.observed
    answer = trials.first(start, initial)
    if not answer.solution.status.success:
        return trials.unanswered(answer)
    fields = observed.seen.shape[1]
    own = observed.noise if observed.noise is not None else spread_of(observed.seen)
    for _ in range(_REWEIGHED if observed.noise is None and fields > 1 else 1):
        weights = own.expand_as(observed.seen).flatten()
        answer, status, J = _least(trials, answer, weights)
        gap = (answer.readings - trials.seen).reshape(-1, fields)
        own = torch.maximum(gap.square().mean(0).sqrt(), _EXACT * spread_of(observed.seen))
        if status is not Status.CONVERGED:
            break
    return trials.ended(answer, status, J, weights)


def _least(trials: Trials, answer: Answer, weights: Tensor) -> tuple[Answer, Status, Tensor]:
    """The least squares from an answer, with misfits divided by ``weights``."""
    size = float((trials.seen / weights).norm()) or 1.0
    damping, growth = _FIRST, 2.0
    J, rho = jacobian(trials.experiment, answer), trials.misfit(answer, weights)
    D = torch.zeros_like(answer.s, requires_grad=False)
    trials.told(rho, size)
    for _ in range(trials.iterations):
        A = J / weights[:, None]
        gain = _gain(A, rho)
        noise = float(rho.norm()) * (len(D) / max(len(rho) - len(D), 1)) ** 0.5
        if gain <= max(_OFFSET * noise, _EXACT * size):
            return answer, Status.CONVERGED, J
        D = torch.maximum(D, A.square().sum(0))
        scale = D.where(D > 0, torch.ones_like(D)).sqrt()
        while True:
            p = _step(A, rho, scale, damping)
            trial = trials.beyond(answer, p)
            new = trials.misfit(trial, weights)
            predicted = float(rho.square().sum() - (rho + A @ p).square().sum())
            fell = float(rho.square().sum() - new.square().sum())
            if trial is not answer and math.isfinite(fell) and fell > 0:
                damping *= max(1 / 3, 1 - (2 * fell / predicted - 1) ** 3)
                growth = 2.0
                break
            if gain <= max(_ACCEPTED * noise, 100 * _EXACT * size):
                return answer, Status.CONVERGED, J
            damping, growth = damping * growth, growth * 2
            if damping > _LARGEST:
                return answer, Status.STAGNATED, J
        answer, rho = trial, new
        trials.told(rho, size)
        J = jacobian(trials.experiment, answer)
    return answer, Status.MAX_ITERATIONS, J


def _gain(A: Tensor, rho: Tensor) -> float:
    """|P rho|, P onto the range of A (n, p), directions left out that it all but lacks."""
    length = A.norm(dim=0)
    U, s, _ = torch.linalg.svd(A / length.where(length > 0, torch.ones_like(length)),
                               full_matrices=False)  # fmt: skip
    return float((U[:, s > _RANK * s[0]].T @ rho).norm())


def _step(A: Tensor, rho: Tensor, scale: Tensor, damping: float) -> Tensor:
    """The least |rho + A p|^2 + damping |scale p|^2, by orthogonal transformations."""
    rows = torch.cat([A, damping**0.5 * torch.diag(scale)])
    right = torch.cat([-rho, torch.zeros_like(scale)])
    found: Tensor = torch.linalg.lstsq(rows, right[:, None]).solution[:, 0]
    return found


def spread_of(seen: Tensor) -> Tensor:
    """The deviation of each field's readings (f,), or where they do not deviate their size."""
    own, size = seen.std(0, correction=0), seen.square().mean(0).sqrt()
    found = own.where(own > 0, size)
    return found.where(found > 0, torch.ones_like(found))
