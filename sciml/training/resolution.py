"""One operator at several resolutions of the same functions.

Let f be trained on n points along an axis, R_m the passage to m points (linear interpolation, which
for nested grids is taking every so many points), a_m an input given on m points and u_m the truth
there. Per sample, in relative L2:

    error          ||f(a_m) - u_m|| / ||u_m||,
    interpolated   ||R_m f(R_n a_m) - u_m|| / ||u_m||, what a fixed grid and interpolation give,
    drift          ||R_k f(a_m) - R_k f(R_n a)|| / ||R_k f(R_n a)||, k = min(m, n): f of the
                   restriction against the restriction of f, a being the finest input there is.

An operator on functions has errors that do not grow with m and a drift that is small beside them
(arXiv 2506.10973); a network whose kernels are fixed in pixels need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData, Times
from sciml.operators.losses import RelativeL2
from sciml.operators.operator import Operator, Signature, resample
from sciml.training.data import Shape, batches, open_split, resolutions
from sciml.training.evaluation import roll_out, spread


@dataclass(frozen=True)
class AtResolution:
    """What became of one resolution; (N,) float64 each, empty where ``refused`` says why."""

    shape: Shape
    error: Tensor
    interpolated: Tensor
    drift: Tensor
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        if self.refused:
            return {"shape": list(self.shape), "refused": self.refused}
        parts = {"error": self.error, "interpolated": self.interpolated, "drift": self.drift}
        return {"shape": list(self.shape), **{name: spread(e) for name, e in parts.items()}}


@dataclass(frozen=True)
class Transfer:
    """The resolutions from coarse to fine, and the one of the training."""

    trained: Shape
    rows: tuple[AtResolution, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"trained": list(self.trained), "rows": [row.to_json() for row in self.rows]}


def on_shape(signature: Signature, values: Tensor, shape: Shape) -> Tensor:
    """``values`` (..., *grid) on a grid of ``shape`` with the same box, centring and seams."""
    if tuple(values.shape[values.ndim - len(shape) :]) == tuple(shape):
        return values
    opened = [n - repeated for n, repeated in zip(shape, signature.repeated, strict=True)]
    return signature.close(resample(signature.open(values), signature, opened))


@torch.no_grad()
def transfer(
    operator: Operator,
    folder: str | Path,
    shapes: Sequence[Shape] = (),
    *,
    split: str = "test",
    samples: int | None = None,
    times: Times | None = None,
    batch: int = 16,
) -> Transfer:
    """Measure ``operator`` on the stored resolutions of one dataset, all of them if left out.

    ``samples``: the first so many. Raises InputError for a resolution that is not stored; one that
    the network cannot take is reported, not raised.
    """
    stored = resolutions(folder, split)
    wanted = [tuple(shape) for shape in shapes] or list(stored)
    for shape in wanted:
        if shape not in stored:
            known = ", ".join(str(list(s)) for s in stored)
            raise InputError(f"'{folder}' is not stored at {list(shape)}; at {known}")
    wanted.sort(key=prod)
    signature = operator.signature
    finest = _inputs(
        open_split(signature, stored[wanted[-1]], split, times), operator, batch, samples
    )
    rows = []
    for shape in wanted:
        data = open_split(signature, stored[shape], split, times)
        try:
            rows.append(_measured(operator, data, finest, batch))
        except InputError as error:
            none = torch.empty(0, dtype=torch.float64)
            rows.append(AtResolution(shape, none, none, none, str(error)))
    return Transfer(signature.grid.shape, tuple(rows))


def _inputs(data: OperatorData, operator: Operator, batch: int, samples: int | None) -> Tensor:
    """The first ``samples`` inputs on the operator's own grid, (N, C, *grid)."""
    signature, parts, count = operator.signature, [], 0
    for x, _ in batches(data, batch, operator.input_mean.device):
        parts.append(on_shape(signature, x, signature.grid.shape))
        count += len(x)
        if samples is not None and count >= samples:
            break
    return torch.cat(parts)[:samples]


def _measured(operator: Operator, data: OperatorData, finest: Tensor, batch: int) -> AtResolution:
    signature = operator.signature
    own, distance = signature.grid.shape, RelativeL2().build(signature)
    coarser = tuple(map(min, own, data.shape))
    parts: list[Tensor] = []
    start = 0
    for whole_x, whole_y in batches(data, batch, operator.input_mean.device):
        reference_input = finest[start : start + len(whole_x)]
        start += len(whole_x)
        x, y = whole_x[: len(reference_input)], whole_y[: len(reference_input)]
        if not len(x):
            break
        here, fixed, reference = (
            roll_out(operator, given, y.shape[1])
            for given in (x, on_shape(signature, x, own), reference_input)
        )
        fixed = on_shape(signature, fixed, data.shape)
        here_cut, reference = (on_shape(signature, u, coarser) for u in (here, reference))
        drift = distance(here_cut, reference, reference)
        found = [distance(here, y, x), distance(fixed, y, x), drift]
        parts.append(torch.stack(found).double().cpu())
    error, interpolated, drift = torch.cat(parts, 1)
    return AtResolution(data.shape, error, interpolated, drift)
