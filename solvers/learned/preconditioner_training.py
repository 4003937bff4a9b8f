"""What all trainings of preconditioners share: the matrices' check, and the run.

In the folder of a run (``core.run.training_run``), beside its checkpoint and its history: the
weights for use, those of the best epoch where there is a validation loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sciml.core.algebra.maps import LinearMap
from sciml.core.disk import claimed
from sciml.core.errors import InputError
from sciml.core.run.training_run import (
    TRAINING,
    EpochProgress,
    Step,
    TrainingError,
    TrainingRun,
    seeded,
)
from sciml.core.run.weights import FILE, write_weights

# What is trained on: matrices by name, or in an order.
Matrices: TypeAlias = Mapping[str, LinearMap] | Sequence[LinearMap]


def symmetric_matrices(kind: str, matrices: Matrices) -> dict[str, LinearMap]:
    """The matrices by name; InputError where there are none, or one is complex or not symmetric."""
    if isinstance(matrices, Mapping):
        named = dict(matrices)
    else:
        named = {f"matrix {k} of {len(matrices)}": A for k, A in enumerate(matrices, 1)}
    if not named:
        raise InputError(f"{kind} needs a matrix to be trained on", "data")
    for name, A in named.items():
        if A.dtype.is_complex or not A.symmetric:
            trouble = "complex" if A.dtype.is_complex else "not symmetric"
            raise unfit(kind, name, A, trouble)
    return named


def unfit(kind: str, name: str, A: LinearMap, trouble: str) -> InputError:
    """The error for a matrix that is none of those a preconditioner is made for."""
    return InputError(
        f"{name} ({A.size:,} unknowns) is {trouble}; {kind} is trained on real symmetric positive "
        "definite matrices",
        "data",
    )


def check_training(options: Any, counts: Sequence[str]) -> None:
    """InputError unless the fields named in ``counts`` are at least 1 and the rate is positive."""
    for name in counts:
        if getattr(options, name) < 1:
            raise InputError(
                f"{name} must be at least 1; got {getattr(options, name)}",
                f"preconditioner.{name}",
            )
    if not options.rate > 0:
        raise InputError(f"rate must be positive; got {options.rate:g}", "preconditioner.rate")


def falling(rate: float, step: int, steps: int) -> float:
    """A rate that falls along a line, to a twentieth after all ``steps``."""
    return rate * (1 - 0.95 * step / steps)


@dataclass(frozen=True)
class PreconditionerTask:
    """The losses of one preconditioner's network on matrices.

    ``settings``: plain data that a run may not change, with the seed and the rate. ``described``:
    the network's options, for the file of its weights. ``loss``: of a step counted through all
    epochs, a scalar with a graph, and the other ``columns``. ``rate``: Adam's at a step.
    ``measure``: the losses on what is not trained on, by column.
    """

    kind: str
    out: Path
    settings: Mapping[str, Any]
    described: Mapping[str, Any]
    network: nn.Module
    per_epoch: int
    loss: Callable[[int], tuple[Tensor, ...]]
    rate: Callable[[int], float]
    measure: Callable[[], Mapping[str, float]] = dict
    columns: tuple[str, ...] = ("loss",)
    validated: tuple[str, ...] = ()

    def steps(self, epoch: int, first: int) -> Iterator[Step]:
        """Those of an epoch from number ``first`` on."""
        for at in range(epoch * self.per_epoch + first, (epoch + 1) * self.per_epoch):
            measured = self.loss(at)
            yield Step(
                measured[0],
                tuple(m.detach() for m in measured),
                partial("at step {}".format, at + 1),
            )

    def validate(self, epoch: int) -> Mapping[str, float]:
        """After every epoch; raises TrainingError where a loss is no number."""
        with torch.no_grad():
            found = self.measure()
        for name, value in found.items():
            if not math.isfinite(value):
                raise TrainingError(f"{name} is {value} after epoch {epoch}. Try a lower rate")
        return found

    def keep(self, row: Mapping[str, float], rows: Sequence[Mapping[str, float]]) -> bool:
        """Write the weights, unless an earlier ``valid_loss`` was less; the state in any case."""
        if "valid_loss" not in row or row["valid_loss"] <= min(r["valid_loss"] for r in rows):
            origin = {"training": self.settings, **row}
            tensors = self.network.state_dict()
            write_weights(self.out / FILE, self.kind, self.described, tensors, origin)
        return True

    def train(
        self,
        epochs: int,
        progress: EpochProgress | None,
        *,
        checkpoint: float = math.inf,
        clip: float | None = None,
    ) -> Path:
        """What is left of so many epochs; the file of the weights.

        Raises InputError for a folder with another run, and TrainingError where a loss is no
        number.
        """
        device = next(self.network.parameters()).device
        with seeded(self.settings["seed"], device), claimed(self.out, TRAINING):
            optimiser = torch.optim.Adam(self.network.parameters(), lr=self.settings["rate"])
            run = TrainingRun(
                self.network, optimiser, self, self.settings, self.out,
                checkpoint=checkpoint, clip=clip,
            )  # fmt: skip
            run.finish(epochs, progress)
        return self.out / FILE
