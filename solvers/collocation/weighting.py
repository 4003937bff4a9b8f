"""How the equation, its conditions and the times of a problem are weighed against each other.

*Causal* (Wang, Sankaran, Perdikaris 2024, arXiv 2203.07404, eq. 14): with L_k the relative mean
square of the equation's residual in the k-th slice of time, the points of slice i count

    w_i = exp(-epsilon sum_{k < i} L_k),

so that late times wait for early ones. *Gradient norms* and the *neural tangent kernel* (Wang,
Sankaran, Wang, Perdikaris 2023, arXiv 2308.08468, eq. 4.3 and 4.6): piece k counts

    sum_j |dL_j/dtheta| / |dL_k/dtheta|,        or  sum_j tr K_j / tr K_k,

K_k = J_k J_k^T / N_k the tangent kernel of its residuals, as a running mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.solvers.collocation.objective import Objective

Relative = Callable[[float], float]


@dataclass(frozen=True)
class Causal:
    """Weights of ``slices`` of time; slice i opens as the L before it fall below 1 / ``epsilon``.

    The loss is another at every iteration: for ``GaussNewton`` and ``Adam``, not for ``LBFGS``,
    which starts anew each time.
    """

    epsilon: float = 100.0
    slices: int = 32
    kind: Literal["causal"] = "causal"

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise InputError(f"epsilon must be positive; got {self.epsilon:g}", "solver.causal")
        if self.slices < 2:
            raise InputError(f"slices must be at least 2; got {self.slices}", "solver.causal")

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New factors at the equation's points. Raises InputError for a problem without time."""
        time = objective.form.problem.time
        if time is None:
            raise InputError("causal weights need a problem in time", "solver.causal")
        batch = objective.batches[0]
        with torch.no_grad():
            squares = objective.residual(batch).square().sum(-1)
        part = (batch.points[:, -1] - time.start) / (time.end - time.start) * self.slices
        index = part.long().clamp(0, self.slices - 1)
        zero = squares.new_zeros(self.slices)
        counts = zero.index_add(0, index, torch.ones_like(squares)).clamp(min=1)
        means = zero.index_add(0, index, squares) / counts * relative(1.0) ** 2
        before = means.cumsum(0) - means
        share = (-self.epsilon * before.nan_to_num(0.0)).exp()[index]
        profile = objective.profile(batch.piece, batch.points)
        share = share if profile is None else profile * share
        objective.batches[0] = replace(batch, share=share)
        return True


@dataclass(frozen=True)
class GradientNorm:
    """Weights of pieces by the norm of their loss's gradient, every ``every`` iterations."""

    every: int = 50
    memory: float = 0.9
    kind: Literal["gradient_norm"] = "gradient_norm"

    def __post_init__(self) -> None:
        _check(self.every, self.memory)

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New weights of all pieces, where it is time."""
        if iteration % self.every:
            return False
        sizes = {}
        for batch in objective.batches:
            with torch.enable_grad():
                loss = objective.residual(batch).square().sum(-1).mean()
                parts = torch.autograd.grad(
                    loss, objective.columns, allow_unused=True, materialize_grads=True
                )
            sizes[batch.piece.name] = float(torch.cat([p.flatten() for p in parts]).norm())
        _balance(objective, sizes, self.memory if iteration else 0.0)
        return True


@dataclass(frozen=True)
class NeuralTangent:
    """Weights of pieces by the trace of their tangent kernel, every ``every`` iterations."""

    every: int = 50
    memory: float = 0.9
    kind: Literal["neural_tangent"] = "neural_tangent"

    def __post_init__(self) -> None:
        _check(self.every, self.memory)

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New weights of all pieces, where it is time."""
        if iteration % self.every:
            return False
        sizes = {
            batch.piece.name: sum(
                float(J.square().sum()) / len(J) for _, J in objective.rows(batch)
            )
            for batch in objective.batches
        }
        _balance(objective, sizes, self.memory if iteration else 0.0)
        return True


AnyBalance = GradientNorm | NeuralTangent


def _balance(objective: Objective, sizes: Mapping[str, float], memory: float) -> None:
    """Weigh by the running mean of sum / size; pieces without a size keep their weight."""
    total = sum(sizes.values())
    fresh = {name: total / size for name, size in sizes.items() if size > 0}
    old = objective.weights
    objective.weigh(
        {name: memory * old.get(name, 1.0) + (1 - memory) * new for name, new in fresh.items()}
    )


def _check(every: int, memory: float) -> None:
    if every < 1:
        raise InputError(f"every must be at least 1; got {every}", "solver.balance.every")
    if not 0 <= memory < 1:
        raise InputError(f"memory must be in [0, 1); got {memory:g}", "solver.balance.memory")
