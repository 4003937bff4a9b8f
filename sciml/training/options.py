"""How to train: optimisers, learning rates over the steps, and everything else that ``fit`` reads.

A schedule is a function from the step k = 0, 1, ..., K - 1 to the factor by which the optimiser's
rate is multiplied, so that a run resumed at step k needs no state of it. With
cos(a, b; t) = b + (a - b) (1 + cos(pi t)) / 2, the cosine from a at t = 0 to b at t = 1:

    one_cycle   cos(start, 1; k / p) up to p = share K - 1, then cos(1, end; (k - p) / (K - 1 - p))
                (Smith and Topin 2018, arXiv 1708.07120, as in torch, but the momentum stays)
    cosine      cos(1, end; k / K)
    steps       multiply^floor(epoch / every)
    constant    1
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Union

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.operators.losses import Loss, RelativeL2


def _positive(value: float, name: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name.rpartition('.')[2]} must be positive; got {value:g}", name)


def _at_least(value: float, least: float, name: str) -> None:
    if not (math.isfinite(value) and value >= least):
        raise InputError(f"{name.rpartition('.')[2]} must be at least {least:g}; got {value}", name)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015); ``weight_decay`` is added to the gradient.

    rate: the highest learning rate, at which a schedule's factor is 1.
    """

    rate: float = 1e-3
    weight_decay: float = 0.0
    kind: Literal["adam"] = "adam"

    def __post_init__(self) -> None:
        _positive(self.rate, "training.optimiser.rate")
        _at_least(self.weight_decay, 0, "training.optimiser.weight_decay")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        chosen = list(parameters)
        return torch.optim.Adam(
            chosen, self.rate, weight_decay=self.weight_decay, fused=_fusable(chosen)
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); options as of ``Adam``."""

    rate: float = 1e-3
    weight_decay: float = 1e-2
    kind: Literal["adam_w"] = "adam_w"

    def __post_init__(self) -> None:
        _positive(self.rate, "training.optimiser.rate")
        _at_least(self.weight_decay, 0, "training.optimiser.weight_decay")

    def build(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        """The optimiser of these parameters."""
        chosen = list(parameters)
        return torch.optim.AdamW(
            chosen, self.rate, weight_decay=self.weight_decay, fused=_fusable(chosen)
        )


def _fusable(parameters: list[Tensor]) -> bool:
    return all(parameter.is_floating_point() for parameter in parameters)


@dataclass(frozen=True)
class OneCycle:
    """From ``start`` times the rate up to it over ``share`` of the steps, then down to ``end``.

    The defaults are those of MgNO's program; torch's are share 0.3, start 0.04, end 4e-6 of the
    rate.
    """

    share: float = 0.2
    start: float = 0.5
    end: float = 0.005
    kind: Literal["one_cycle"] = "one_cycle"
    over_all: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(
                f"share must lie between 0 and 1; got {self.share:g}", "training.schedule.share"
            )
        _positive(self.start, "training.schedule.start")
        _at_least(self.end, 0, "training.schedule.end")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The factor of the rate at ``step`` of ``steps``."""
        peak, last = self.share * steps - 1, steps - 1
        if step <= peak:
            return _cosine(self.start, 1.0, step / peak if peak > 0 else 1.0)
        return _cosine(1.0, self.end, (step - peak) / max(last - peak, 1e-9))


@dataclass(frozen=True)
class Cosine:
    """Down along a cosine, to ``end`` times the rate."""

    end: float = 0.0
    kind: Literal["cosine"] = "cosine"
    over_all: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _at_least(self.end, 0, "training.schedule.end")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The factor of the rate at ``step`` of ``steps``."""
        return _cosine(1.0, self.end, step / steps)


@dataclass(frozen=True)
class Steps:
    """Multiplied by ``multiply`` after every so many epochs."""

    every: int = 100
    multiply: float = 0.5
    kind: Literal["steps"] = "steps"
    over_all: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _at_least(self.every, 1, "training.schedule.every")
        _positive(self.multiply, "training.schedule.multiply")

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The factor of the rate at ``step`` of ``steps``."""
        return self.multiply ** (step // per_epoch // self.every)


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    kind: Literal["constant"] = "constant"
    over_all: ClassVar[bool] = False

    def factor(self, step: int, steps: int, per_epoch: int) -> float:
        """The factor of the rate at ``step`` of ``steps``."""
        return 1.0


def _cosine(start: float, end: float, t: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


Optimiser = Union[Adam, AdamW]  # noqa: UP007  (read by the schema)
Schedule = Union[OneCycle, Cosine, Steps, Constant]  # noqa: UP007  (read by the schema)


@dataclass(frozen=True)
class Training:
    """How an operator is trained.

    epochs: passes over the samples. batch: samples per step, of all processes together.
    clip: the largest norm of the gradient; a longer one is scaled to it.
    precision: ``bfloat16`` computes the network in it and keeps weights and loss in float32;
    ``float64`` has everything in it.
    compile: by ``torch.compile``, which needs a C++ compiler on a CPU.
    seed: of the first weights and of the order of the samples.
    checkpoint: seconds between two checkpoints. validate: epochs between two validations.
    tensorboard: curves for TensorBoard too, in the run's folder.
    """

    epochs: int = 500
    batch: int = 8
    optimiser: Optimiser = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=OneCycle)
    loss: Loss = field(default_factory=RelativeL2)
    clip: float | None = None
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    compile: bool = False
    seed: int = 0
    checkpoint: float = 60.0
    validate: int = 1
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _at_least(self.epochs, 1, "training.epochs")
        _at_least(self.batch, 1, "training.batch")
        _at_least(self.seed, 0, "training.seed")
        _at_least(self.checkpoint, 0, "training.checkpoint")
        _at_least(self.validate, 1, "training.validate")
        if self.clip is not None:
            _positive(self.clip, "training.clip")
        if self.precision not in ("float32", "bfloat16", "float64"):
            raise InputError(
                f"precision is float32, bfloat16 or float64; got '{self.precision}'",
                "training.precision",
            )
