"""Training of deep conjugate directions (Kaneda et al. 2023), without a single solution.

    minimise  mean_b || b - A q <q, b> / <q, A q> ||^2,      q = net(b),  ||b|| = 1,

the squared residual after one step along q with exact line search, whatever the length of q. The b
are random combinations of Ritz vectors of A (``ritz``), never of A times something known. A is
scaled to a unit diagonal, as where the network is used. The paper trains on one matrix; several,
each with its own Ritz vectors, go with the cells as an input. A batch is of one matrix.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.kernels.reference import shifted
from sciml.core.linear import LinearMap
from sciml.core.stencil import Stencil
from sciml.solvers.iteration import dot, spread
from sciml.solvers.learned.conjugate_directions import (
    KIND,
    DirectionModule,
    DirectionNetwork,
    linked,
    plain,
)
from sciml.solvers.learned.course import (
    Course,
    Matrices,
    Progress,
    check_training,
    symmetric_matrices,
    unfit,
)
from sciml.solvers.learned.ritz import RitzPairs, cached_ritz_pairs, training_vectors

WARM_UP = 100  # steps


@dataclass(frozen=True)
class ConjugateTraining:
    """How to train a network for deep conjugate directions; the defaults are the paper's.

    ``channels``, ``convolutions``, ``mask``, ``repeat``: of the network, :class:`DirectionNetwork`.
    ``ritz``: Lanczos steps per matrix, at most its unknowns. ``vectors``: training vectors over all
    matrices; ``valid`` more, never trained on, choose the epoch that is kept. ``rate``: Adam's.
    ``cosine``: let the rate rise over the first steps, then fall to zero along a cosine over all
    epochs. ``seed``: of weights, vectors, order. ``checkpoint``: seconds between two states.
    """

    channels: int = 16
    convolutions: tuple[int, ...] = (4, 6, 4)
    mask: bool = False
    repeat: bool = False
    ritz: int = 10_000
    vectors: int = 20_000
    valid: int = 200
    epochs: int = 50
    batch: int = 10
    rate: float = 1e-4
    cosine: bool = False
    seed: int = 0
    checkpoint: float = 60.0
    kind: Literal["conjugate_directions"] = "conjugate_directions"

    def __post_init__(self) -> None:
        check_training(self, ("ritz", "vectors", "valid", "epochs", "batch"))
        self.network(2)  # checks its options

    def network(self, dimension: int) -> DirectionNetwork:
        """The options of the network for grids of this dimension."""
        return DirectionNetwork(dimension, self.channels, self.convolutions, self.mask, self.repeat)

    def train(
        self,
        matrices: Matrices,
        out: str | Path,
        *,
        device: torch.device | str = "cpu",
        progress: Progress | None = None,
        cache: str | Path | None = None,
    ) -> Path:
        """Train on ``matrices``, stencils of one shape; the weights' file in the folder ``out``.

        The weights of the best epoch, by the validation vectors, are there from the first epoch on;
        the same call goes on where one was stopped, on a CPU to the same bits. ``cache``: the
        folder of the Ritz vectors, ``out`` by default. Raises InputError for matrices that do not
        fit, or a folder with another run, and SolveError where the loss is no longer a number.
        """
        stencils = [_scaled(name, A).to(device) for name, A in _checked(matrices)]
        A = Stencil(
            torch.stack([part.coefficients for part in stencils]),
            stencils[0].offsets,
            periodic=stencils[0].periodic,
            symmetric=True,
            definite=True,
        )
        pairs = cached_ritz_pairs(A, self.ritz, 0, torch.float32, cache or out)
        run = _Run(self, stencils, pairs, out, device)
        return run.course.run(self.epochs, run.epoch, progress)


def line_searched_loss(A: LinearMap, q: Tensor, b: Tensor) -> Tensor:
    """||b - A q <q, b> / <q, A q>||^2 per sample; q and b (*batch, *A.shape)."""
    d = len(A.shape)
    image = A.apply(q)
    gap = b - spread(dot(q, b, d) / dot(q, image, d), d) * image
    return dot(gap, gap, d)


@dataclass(frozen=True)
class _Scaled:
    """D^-1/2 A D^-1/2 off the holes, and the cells that are none (*shape), float32."""

    coefficients: Tensor
    offsets: Sequence[tuple[int, ...]]
    periodic: Sequence[bool]
    cells: Tensor

    def to(self, device: torch.device | str) -> _Scaled:
        return replace(self, coefficients=self.coefficients.to(device), cells=self.cells.to(device))

    @property
    def stencil(self) -> Stencil:
        return Stencil(
            self.coefficients,
            self.offsets,
            periodic=self.periodic,
            symmetric=True,
            definite=True,
        )


class _Run:
    """One call of the training: what is built before the first step, and the state that moves."""

    def __init__(
        self,
        options: ConjugateTraining,
        matrices: Sequence[_Scaled],
        pairs: Sequence[RitzPairs],
        out: str | Path,
        device: torch.device | str,
    ) -> None:
        self.options, self.matrices, self.pairs = options, matrices, pairs
        self.per_matrix = max(1, options.vectors // len(matrices))
        self.stencils = [matrix.stencil for matrix in matrices]
        network = options.network(matrices[0].cells.ndim)
        settings = {
            **asdict(replace(options, epochs=1, checkpoint=0.0)),
            "matrices": len(matrices),
            "shape": list(matrices[0].cells.shape),
        }
        self.course = Course(
            KIND, out, settings, lambda: DirectionModule(network), plain(network), device
        )

    def epoch(self) -> dict[str, float]:
        """What is left of an epoch; the mean losses."""
        course, epoch = self.course, len(self.course.history)
        batches = self._order(epoch)
        total, saved = course.carried.get("total", 0.0), time.monotonic()
        while course.steps < (epoch + 1) * len(batches):
            matrix, indices = batches[course.steps - epoch * len(batches)]
            rate = self._rate(course.steps, self.options.epochs * len(batches))
            total += course.descend(self._loss(matrix, indices).mean(), rate=rate)
            course.carried["total"] = total
            if time.monotonic() - saved >= self.options.checkpoint:
                course.save()
                saved = time.monotonic()
        course.carried["total"] = 0.0
        return {"loss": total / len(batches), "valid_loss": self._validated()}

    def _order(self, epoch: int) -> list[tuple[int, list[int]]]:
        """The batches of an epoch: a matrix, and the numbers of its vectors."""
        order = np.random.default_rng((self.options.seed, 1, epoch))
        batches = []
        for k in range(len(self.matrices)):
            shuffled = (k * self.per_matrix + order.permutation(self.per_matrix)).tolist()
            batches += [
                (k, shuffled[i : i + self.options.batch])
                for i in range(0, self.per_matrix, self.options.batch)
            ]
        return [batches[i] for i in order.permutation(len(batches))]

    def _loss(self, matrix: int, indices: Sequence[int]) -> Tensor:
        b = training_vectors(self.pairs[matrix], self.options.seed, indices)
        cells = self.matrices[matrix].cells.expand(b.shape)
        return line_searched_loss(self.stencils[matrix], self.course.network(b, cells), b)

    def _rate(self, step: int, steps: int) -> float:
        """Adam's at this step of all."""
        if not self.options.cosine:
            return self.options.rate
        rise = min(1.0, (step + 1) / WARM_UP)
        return self.options.rate * rise * (1 + math.cos(math.pi * step / steps)) / 2

    @torch.no_grad()
    def _validated(self) -> float:
        """The mean loss over the validation vectors, which are no training vectors."""
        count = len(self.matrices)
        first = count * self.per_matrix
        total, size = 0.0, self.options.batch
        for k in range(count):
            own = range(first + k, first + self.options.valid, count)
            for i in range(0, len(own), size):
                total += float(self._loss(k, own[i : i + size]).sum())
        return total / self.options.valid


def _checked(matrices: Matrices) -> list[tuple[str, Stencil]]:
    """Every sample of every matrix as a stencil of its own; InputError where they do not fit."""
    parts: list[tuple[str, Stencil]] = []
    for name, A in symmetric_matrices(KIND, matrices).items():
        if not isinstance(A, Stencil):
            raise InputError(
                f"{name}: {KIND} is trained on problems on grids, not on bare matrices", "data"
            )
        if not A.definite:
            raise unfit(KIND, name, A, "not positive definite")
        for index in np.ndindex(*A.batch):
            parts.append((name, Stencil(A.coefficients[index], A.offsets, periodic=A.periodic)))
    first = parts[0][1]
    for name, A in parts:
        if (A.shape, A.offsets, A.periodic) != (first.shape, first.offsets, first.periodic):
            raise InputError(
                f"{name}: {KIND} is trained on operators of one shape; got {list(first.shape)} and "
                f"{list(A.shape)}",
                "data",
            )
    return parts


def _scaled(name: str, A: Stencil) -> _Scaled:
    """The scaled stencil; its rows in holes are zero."""
    cells = linked(A)
    diagonal = A.diagonal().double()
    if not bool((diagonal > 0).all()):
        raise InputError(f"{name}: {KIND} needs a positive diagonal", "data")
    root = diagonal.rsqrt() * cells
    planes = [
        (A.entry(offset).double() * root * shifted(root, offset, A.periodic)).float()
        for offset in A.offsets
    ]
    return _Scaled(torch.stack(planes), A.offsets, A.periodic, cells.float())
