"""Variable projection: Gauss-Newton for the nonlinear parameters, the linear ones solved exactly.

The residual r(theta, w) of a linear problem is affine in the last layer's weights w: r = A w + r_0.
Put the best weights in and what is left to minimise is a function of theta alone (Golub and Pereyra
1973), whose Jacobian, up to a term that is orthogonal to r, is (Kaufman 1975)

    K = (I - Q Q^T) B,    A = Q R,    B = dr/dtheta at the best weights.

K^T r is the exact gradient. A step solves (K^T K + mu I) s = -K^T r; the weights follow by
w <- w - A^+ r, which for a nonlinear problem is one Gauss-Newton step of theirs (started from the
prediction -A^+ (r + B s)), for a linear one exact. Columns of A that are all but dependent are held
by a relative Tikhonov term of the order of rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.problem import Problem
from sciml.solvers.trained.minimisation import Minimisation, OptimiserResult
from sciml.solvers.trained.objective import Objective

_ROUNDING = 1e-13  # of the Tikhonov term, relative to a column's norm
_LARGEST, _LEAST = 1e8, 1e-13  # damping, relative to the largest diagonal
_REACH = 1.0  # of a step, in any one parameter: further the linear model says nothing
_SOLVES = 4  # Gauss-Newton steps for the weights at new points


def linear_in_weights(problem: Problem) -> bool:
    """Whether residuals are affine in the last layer's weights, in time too."""
    equation = problem.equation
    if problem.bounded or not equation.linear_with(problem.parameters):
        return False
    return equation.always_linear or not problem.nonlinear_sides


@dataclass(frozen=True)
class VariableProjection:
    """Levenberg-Marquardt on what is left when the last layer's weights are solved for.

    For networks whose last block is linear. ``iterations``: 0 for the weights alone. ``damping``:
    the first mu over the largest diagonal of K^T K. Memory 2 R x P for R residuals and P
    parameters, N of them linear; time about 2 R P^2 + 8 R N^2 an iteration.
    """

    iterations: int = 200
    damping: float = 1e-6
    kind: Literal["variable_projection"] = "variable_projection"

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise InputError(
                f"iterations must not be negative; got {self.iterations}",
                "solver.optimiser.iterations",
            )
        if not 0 < self.damping < math.inf:
            raise InputError(
                f"damping must be positive; got {self.damping:g}", "solver.optimiser.damping"
            )

    def minimise(self, objective: Objective, minimisation: Minimisation) -> OptimiserResult:
        """Lower the objective's loss until the minimisation ends it."""
        weights, mu, growth = Weights.of(objective), self.damping, 2.0
        for k in range(self.iterations + 1):
            if minimisation.exchange(objective) or k == 0:
                weights.solve()
            r = objective.vector()
            before = float(r @ r)
            if minimisation.ended(before, objective) or k == self.iterations:
                break
            r, J = objective.jacobian()
            reduced = Reduced(r, J, weights.columns)
            theta = objective.theta
            while (gain := _try(weights, reduced, theta, mu, before)) is None:
                mu, growth = mu * growth, 2 * growth
                if mu > _LARGEST:
                    objective.assign(theta)
                    return minimisation.stalled()
            mu, growth = max(mu * max(1 / 3, 1 - (2 * gain - 1) ** 3), _LEAST), 2.0
        return minimisation.result()


def _try(
    weights: Weights, reduced: Reduced, theta: Tensor, mu: float, before: float
) -> float | None:
    """The gain ratio of a step that lowers the loss, taken; None if it does not."""
    step = reduced.step(mu)
    if step is None:
        return None
    weights.objective.assign(theta + step)
    after = weights.solve(1)
    return (before - after) / max(reduced.promised, 1e-300) if after < before else None


@dataclass(frozen=True)
class Weights:
    """The last block's parameters: ``columns`` of theta, in which the answer is linear."""

    objective: Objective
    block: Any
    columns: slice

    @classmethod
    def of(cls, objective: Objective) -> Weights:
        """Those of the objective's network."""
        *others, last = objective.ansatz.network.blocks()
        return cls(objective, last, slice(_size(others), _size(others) + _size([last])))

    def solve(self, steps: int = _SOLVES) -> float:
        """Least squares for the weights alone, again where the problem is not linear; the loss.

        A step of a nonlinear problem that does not lower the loss is halved, at most to a tenth.
        """
        linear, after = linear_in_weights(self.objective.form.problem), 0.0
        for _ in range(steps):
            r, A = self.objective.jacobian([self.block])
            theta, before, share = self.objective.theta, float(r @ r), 1.0
            step = torch.zeros_like(theta)
            step[self.columns] = -Basis(A).solve(r)
            while True:
                self.objective.assign(theta + share * step)
                trial = self.objective.vector()
                after = float(trial @ trial)
                if linear or after < before or share < 0.1:
                    break
                share /= 2
            if linear:
                break
        return after


class Basis:
    """An orthonormal basis of the columns of A, (R, N), held by the Tikhonov term."""

    def __init__(self, A: Tensor) -> None:
        rows, self.count = A.shape[0], A.shape[1]
        norms = A.square().sum(0).sqrt().clamp(min=1e-300)
        held = torch.cat([A, torch.diag(_ROUNDING * norms)])
        full, self.R = torch.linalg.qr(held)
        self.Q = full[:rows]

    def solve(self, right: Tensor) -> Tensor:
        """A^+ right, (N,) or (N, k)."""
        columns = right if right.ndim == 2 else right[:, None]
        found: Tensor = torch.linalg.solve_triangular(self.R, self.Q.T @ columns, upper=True)
        return found if right.ndim == 2 else found[:, 0]


class Reduced:
    """The residual with its best weights put in, linearised in the other parameters."""

    def __init__(self, r: Tensor, J: Tensor, columns: slice) -> None:
        self.columns, self.r = columns, r
        linear = torch.zeros(J.shape[1], dtype=torch.bool)
        linear[columns] = True
        self.linear = linear
        self.basis, self.B = Basis(J[:, linear]), J[:, ~linear]
        Q = self.basis.Q
        self.K = self.B - Q @ (Q.T @ self.B)
        self.slope = self.K.T @ r
        self.gram = self.K.T @ self.K
        self.scale = float(self.gram.diagonal().max())
        self.promised = 0.0

    def step(self, mu: float) -> Tensor | None:
        """Of all parameters, the weights by prediction; None where mu is too small."""
        damped = self.gram.clone()
        damped.diagonal().add_(mu * self.scale)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info):
            return None
        own = -torch.cholesky_solve(self.slope[:, None], factor)[:, 0]
        if not float(own.abs().max()) <= _REACH:
            return None
        self.promised = float(mu * self.scale * own @ own - own @ self.slope)
        found = self.slope.new_empty(len(self.linear))
        found[~self.linear] = own
        found[self.linear] = -self.basis.solve(self.r + self.B @ own)
        return found if bool(torch.isfinite(found).all()) else None


def _size(blocks: Sequence[Any]) -> int:
    return sum(p.numel() for block in blocks for p in block.columns())
