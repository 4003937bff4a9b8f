"""Training of neural incomplete Cholesky on any symmetric positive definite matrices.

    minimise  mean loss(L, A, b),    b of N(0, 1),

over the weights of the network that gives L (``neural_ic``); the losses are in
``neural_ic_losses``. Each matrix is factorised once, exactly, for the solutions of a few right-hand
sides. Every eighth matrix is not trained on; its loss chooses the round whose weights are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, SolveError
from sciml.core.linear import LinearMap
from sciml.solvers.incomplete import factorise, reordered
from sciml.solvers.inverse import matrices as samples
from sciml.solvers.learned.course import Course, Progress
from sciml.solvers.learned.neural_ic import (
    KIND,
    FactorGraph,
    FactorModule,
    FactorNetwork,
    corrected,
    plain,
)
from sciml.solvers.learned.neural_ic_losses import Batch, Loss, loss_of
from sciml.solvers.learned.weights import FILE

_SIDES = 16  # right-hand sides per matrix
_HELD_OUT = 8


@dataclass(frozen=True)
class NeuralICTraining:
    """How to train a network for :class:`NeuralIC`.

    ``channels``, ``messages``, ``relaxation``: of the network, see :class:`FactorNetwork`.
    ``loss``: what is left of the error's energy norm after ``depth`` steps of CG, or a distance of
    L L^T from A. ``vectors``: right-hand sides per matrix and step. ``rounds`` of ``steps`` of
    ``batch`` matrices; the state is saved with every round. ``rate``: Adam's, falling linearly.
    """

    channels: int = 12
    messages: int = 2
    relaxation: float = 0.98
    loss: Loss = "energy"
    depth: int = 10
    vectors: int = 2
    rounds: int = 12
    steps: int = 100
    batch: int = 4
    rate: float = 2e-3
    seed: int = 0
    kind: Literal["neural_ic"] = "neural_ic"

    def __post_init__(self) -> None:
        for name in ("depth", "vectors", "rounds", "steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}",
                    f"preconditioner.{name}",
                )
        if self.vectors > _SIDES:
            raise InputError(
                f"vectors must be at most {_SIDES}; got {self.vectors}", "preconditioner.vectors"
            )
        if not self.rate > 0:
            raise InputError(f"rate must be positive; got {self.rate:g}", "preconditioner.rate")
        self.network()  # checks its options

    def network(self) -> FactorNetwork:
        """The options of the network."""
        return FactorNetwork(self.channels, self.messages, self.relaxation)

    def train(
        self,
        matrices: Sequence[LinearMap],
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Path:
        """See :func:`train_neural_ic`."""
        return train_neural_ic(self, matrices, out, device=device, progress=progress)


def train_neural_ic(
    options: NeuralICTraining,
    matrices: Sequence[LinearMap],
    out: str | Path,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Train on ``matrices`` of any sizes; the file of weights in the folder ``out``.

    The weights of the best round are there from the first one on; the same call goes on where one
    was stopped, to the same bits. Raises InputError for matrices that are not real, symmetric and
    positive definite, for a device other than the CPU, and for a folder with another run, and
    SolveError where the loss is no longer a number.
    """
    if torch.device(device).type != "cpu":
        raise InputError(f"{KIND} is trained on the CPU: triangular systems are sequential")
    parts = _prepared(options, matrices)
    with torch.random.fork_rng([]):
        torch.manual_seed(options.seed)
        network = FactorModule(options.network())
    unknowns = sum(part.matrix.shape[0] for part in parts)
    settings = {**asdict(options), "matrices": len(parts), "unknowns": unknowns}
    course = Course(KIND, Path(out), settings, network, options.rate)
    while len(course.history) < options.rounds:
        row = _round(options, parts, course)
        if progress is not None:
            progress(len(course.history), options.rounds, row)
    return course.out / FILE


def _round(options: NeuralICTraining, parts: Sequence[Batch], course: Course) -> dict[str, float]:
    """The steps of a round, and its row; the weights are written where they are the best so far."""
    held = parts[_HELD_OUT - 1 :: _HELD_OUT] or parts
    kept = [part for k, part in enumerate(parts, 1) if k % _HELD_OUT]
    losses = [_step(options, kept, course) for _ in range(options.steps)]
    with torch.no_grad():
        valid = float(np.mean([float(_loss(options, [part], course.network)) for part in held]))
    if not np.isfinite(valid):
        raise SolveError(f"the validation loss is {valid}. Try a lower rate")
    row = course.record("round", loss=float(np.mean(losses)), valid_loss=valid)
    best = course.carried.get("best")
    if best is None or valid < best:
        course.carried["best"] = valid
        course.write(plain(options.network()))
    course.save()
    return row


def _step(options: NeuralICTraining, parts: Sequence[Batch], course: Course) -> float:
    random = np.random.default_rng((options.seed, 1, course.steps))
    chosen = random.choice(len(parts), min(options.batch, len(parts)), replace=False)
    loss = _loss(
        options, [_some(parts[k], random, options.vectors) for k in chosen], course.network
    )
    rate = options.rate * (1 - 0.95 * course.steps / (options.rounds * options.steps))
    return course.descend(loss, rate=rate, clip=1.0)


def _loss(options: NeuralICTraining, parts: Sequence[Batch], network: nn.Module) -> Tensor:
    batch = Batch.of(parts)
    factor = corrected(batch.graph, *network(batch.graph))
    return loss_of(options.loss, batch, *factor, options.depth)


def _some(part: Batch, random: np.random.Generator, count: int) -> Batch:
    """The same matrix with ``count`` of its right-hand sides."""
    sides = torch.from_numpy(random.choice(len(part.b), count, replace=False))
    return Batch(part.graph, part.matrix, part.block, part.b[sides], part.x[sides])


def _prepared(options: NeuralICTraining, matrices: Sequence[LinearMap]) -> list[Batch]:
    """Every sample of every matrix with its graph and solutions; InputError where one is unfit."""
    parts = []
    for number, A in enumerate(matrices, 1):
        name = f"matrix {number} of {len(matrices)} ({A.size:,} unknowns)"
        if A.dtype.is_complex or not A.symmetric or A.nullspace:
            trouble = (
                "complex" if A.dtype.is_complex else "singular" if A.symmetric else "not symmetric"
            )
            raise InputError(
                f"{name} is {trouble}; {KIND} is trained on real symmetric positive definite ones",
                "data",
            )
        for index, matrix in enumerate(samples(A)):
            _, moved = reordered(matrix)
            random = np.random.default_rng((options.seed, 0, number, index))
            b = random.standard_normal((_SIDES, A.size))
            x = _solved(moved, b, name)
            graph = FactorGraph.of(moved, factorise(moved, options.relaxation))
            block = torch.zeros(A.size, dtype=torch.int64)
            parts.append(Batch(graph, moved, block, torch.from_numpy(b), torch.from_numpy(x)))
    if not parts:
        raise InputError(f"{KIND} needs a matrix to be trained on", "data")
    return parts


def _solved(matrix: scipy.sparse.csr_matrix, b: np.ndarray, name: str) -> np.ndarray:
    """A^-1 b by L D L^T, whose pivots say whether A is definite; b (vectors, n)."""
    try:
        factors = scipy.sparse.linalg.splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:
        factors = None
    if (
        factors is None
        or not np.array_equal(factors.perm_r, factors.perm_c)
        or not (factors.U.diagonal() > 0).all()
    ):
        raise InputError(
            f"{name} is not positive definite; {KIND} is trained on matrices that are", "data"
        )
    return np.ascontiguousarray(factors.solve(b.T).T)
