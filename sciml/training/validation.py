"""The mean relative errors of an operator on samples that it is not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.operators.losses import LossFunction, RelativeH1, RelativeL2
from sciml.operators.operator import Operator
from sciml.training.data import TrainingData, hold
from sciml.training.distributed import World


@dataclass(frozen=True)
class Validation:
    """Samples on the grid, batch by batch, and what is measured on them; relative L2 and H1."""

    data: Any
    batch: int
    losses: dict[str, LossFunction]
    dtype: torch.dtype
    world: World

    @torch.no_grad()
    def errors(self, operator: Operator) -> dict[str, float]:
        """Means over all samples: ``valid_l2`` and ``valid_h1``; the same in every process."""
        share = self.world.share(len(self.data))
        device = self.world.device
        total = torch.zeros(len(self.losses), dtype=torch.float64, device=device)
        operator.eval()
        for start in range(share.start, share.stop, self.batch):
            x, y = self._read(slice(start, min(start + self.batch, share.stop)))
            prediction = operator(x)
            found = [loss(prediction, y, x).double().sum() for loss in self.losses.values()]
            total += torch.stack(found)
        operator.train()
        means = self.world.sum(total) / len(self.data)
        return dict(zip(self.losses, means.tolist(), strict=True))

    def _read(self, part: slice) -> tuple[Tensor, Tensor]:
        samples = [self.data[i] for i in range(part.start, part.stop)]
        x, y = (torch.stack([sample[name] for sample in samples]) for name in ("x", "y"))
        return x.to(self.world.device, self.dtype), y.to(self.world.device, self.dtype)


def open_validation(
    data: TrainingData, batch: int, dtype: torch.dtype, world: World
) -> Validation | None:
    """The samples to validate on, in memory where they fit; None where there are none."""
    if data.valid is None:
        return None
    losses = {
        "valid_l2": RelativeL2().build(data.signature),
        "valid_h1": RelativeH1().build(data.signature),
    }
    return Validation(hold(data.valid, dtype, world.device), batch, losses, dtype, world)
