"""Split conformal sets: how far the truth may lie from a prediction, for a stated share of cases.

Of n samples that the operator was not trained on, scores

    s_i = ||y_i - f(x_i)|| / ||f(x_i)||,          r the ceil((n + 1) share)-th smallest of them.

For a new sample from the same distribution ||y - f(x)|| <= r ||f(x)|| with probability at least
``share``, and at most share + 1 / (n + 1) where no two scores are equal, whatever the operator and
whatever the distribution (Vovk, Gammerman and Shafer 2005; Lei, G'Sell, Rinaldo, Tibshirani and
Wasserman 2018, theorem 2.2). That is over samples drawn with the calibration's; of the problems of
another family it says nothing, and of one prediction less than a certificate, which needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

SHARE = 0.9


@dataclass(frozen=True)
class ConformalSet:
    """All y with ||y - f(x)|| <= ``radius`` ||f(x)||; has ``share`` of the truths, by ``samples``.

    Norms are over all channels and points of the grid that it was calibrated on.
    """

    radius: float
    share: float
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ConformalSet:
        """What :meth:`to_json` wrote."""
        return ConformalSet(float(data["radius"]), float(data["share"]), int(data["samples"]))


def scores(prediction: Tensor, truth: Tensor) -> Tensor:
    """The relative distance of every truth from its prediction, (N, C, *grid) to (N,), float64."""
    prediction, truth = prediction.double().flatten(1), truth.double().flatten(1)
    found: Tensor = (truth - prediction).norm(dim=1) / prediction.norm(dim=1).clamp_min(1e-300)
    return found


def calibrated(found: Tensor, share: float = SHARE) -> ConformalSet | None:
    """The set from the scores (n,) of samples not trained on; None where they are too few."""
    rank = math.ceil((len(found) + 1) * share)
    if rank > len(found):
        return None
    return ConformalSet(float(torch.sort(found).values[rank - 1]), share, len(found))
