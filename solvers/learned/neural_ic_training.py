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

from sciml.core.errors import InputError
from sciml.solvers.incomplete import factorise, reordered
from sciml.solvers.inverse import matrices as samples
from sciml.solvers.learned.course import (
    Course,
    Matrices,
    Progress,
    check_training,
    falling,
    symmetric_matrices,
    unfit,
)
from sciml.solvers.learned.neural_ic import (
    KIND,
    FactorGraph,
    FactorModule,
    FactorNetwork,
    corrected,
    plain,
)
from sciml.solvers.learned.neural_ic_losses import Batch, Loss, loss_of

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
        check_training(self, ("depth", "vectors", "rounds", "steps", "batch"))
        if self.vectors > _SIDES:
            raise InputError(
                f"vectors must be at most {_SIDES}; got {self.vectors}", "preconditioner.vectors"
            )
        self.network()  # checks its options

    def network(self) -> FactorNetwork:
        """The options of the network."""
        return FactorNetwork(self.channels, self.messages, self.relaxation)

    def train(
        self,
        matrices: Matrices,
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
    ) -> Path:
        """Train on ``matrices`` of any sizes; the file of weights in the folder ``out``.

        The weights of the best round are there from the first one on; the same call goes on where
        one was stopped, to the same bits. Raises InputError for matrices that are not real,
        symmetric and positive definite, for a device other than the CPU, and for a folder with
        another run, and SolveError where the loss is no longer a number.
        """
        if torch.device(device).type != "cpu":
            raise InputError(f"{KIND} is trained on the CPU: triangular systems are sequential")
        parts = _prepared(self, matrices)
        unknowns = sum(part.matrix.shape[0] for part in parts)
        settings = {**asdict(self), "matrices": len(parts), "unknowns": unknowns}
        network = self.network()
        course = Course(KIND, out, settings, lambda: FactorModule(network), plain(network))
        held = parts[_HELD_OUT - 1 :: _HELD_OUT] or parts
        kept = [part for k, part in enumerate(parts, 1) if k % _HELD_OUT]

        def turn() -> dict[str, float]:
            loss = float(np.mean([_step(self, kept, course) for _ in range(self.steps)]))
            with torch.no_grad():
                valid = [float(_loss(self, [part], course.network)) for part in held]
            return {"loss": loss, "valid_loss": float(np.mean(valid))}

        return course.run(self.rounds, turn, progress)


def _step(options: NeuralICTraining, parts: Sequence[Batch], course: Course) -> float:
    random = np.random.default_rng((options.seed, 1, course.steps))
    chosen = random.choice(len(parts), min(options.batch, len(parts)), replace=False)
    loss = _loss(
        options, [_some(parts[k], random, options.vectors) for k in chosen], course.network
    )
    rate = falling(options.rate, course.steps, options.rounds * options.steps)
    return course.descend(loss, rate=rate, clip=1.0)


def _loss(options: NeuralICTraining, parts: Sequence[Batch], network: nn.Module) -> Tensor:
    batch = Batch.of(parts)
    factor = corrected(batch.graph, *network(batch.graph))
    return loss_of(options.loss, batch, *factor, options.depth)


def _some(part: Batch, random: np.random.Generator, count: int) -> Batch:
    """The same matrix with ``count`` of its right-hand sides."""
    sides = torch.from_numpy(random.choice(len(part.b), count, replace=False))
    return Batch(part.graph, part.matrix, part.block, part.b[sides], part.x[sides])


def _prepared(options: NeuralICTraining, matrices: Matrices) -> list[Batch]:
    """Every sample of every matrix with its graph and solutions; InputError where one is unfit."""
    parts = []
    for number, (name, A) in enumerate(symmetric_matrices(KIND, matrices).items(), 1):
        if A.nullspace:
            raise unfit(KIND, name, A, "singular")
        for index, matrix in enumerate(samples(A)):
            _, moved = reordered(matrix)
            random = np.random.default_rng((options.seed, 0, number, index))
            b = random.standard_normal((_SIDES, A.size))
            x = _solved(moved, b)
            if x is None:
                raise unfit(KIND, name, A, "not positive definite")
            graph = FactorGraph.of(moved, factorise(moved, options.relaxation))
            block = torch.zeros(A.size, dtype=torch.int64)
            parts.append(Batch(graph, moved, block, torch.from_numpy(b), torch.from_numpy(x)))
    return parts


def _solved(matrix: scipy.sparse.csr_matrix, b: np.ndarray) -> np.ndarray | None:
    """A^-1 b by L D L^T; None where a pivot says that A is not definite. b (vectors, n)."""
    try:
        factors = scipy.sparse.linalg.splu(
            matrix.tocsc(),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:
        return None
    moved = not np.array_equal(factors.perm_r, factors.perm_c)
    if moved or not (factors.U.diagonal() > 0).all():
        return None
    return np.ascontiguousarray(factors.solve(b.T).T)
