"""Which inputs an operator has seen: the spans of five numbers of every training input.

Of each channel the mean, the deviation, the least and the largest value, and the mean size of the
difference between neighbouring points over the training grid's distance. A new input of the same
distribution lies outside the span that n samples have of one number with probability 2 / (n + 1) at
most, so that one of five C numbers is outside with 10 C / (n + 1) at most: what is outside more
often comes from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sciml.operators.operator import Signature

NUMBERS = ("mean", "deviation", "least value", "largest value", "mean slope")
_AT_ONCE = 256  # samples
_ROUNDING = 1e-5  # of a span's size: inputs are float32, and come from other grids' points


def numbers_of(x: Tensor, signature: Signature) -> Tensor:
    """The five numbers of every channel, (N, C, *grid) to (N, C, 5), float64."""
    x = signature.open(x).double()
    flat = x.flatten(2)
    shape = tuple(x.shape[2:])
    slopes = [
        x.diff(dim=axis).abs().flatten(2).mean(2) / h
        for axis, h in enumerate(signature.spacing(shape), 2)
        if x.shape[axis] > 1
    ]
    slope = torch.stack(slopes).mean(0) if slopes else flat.mean(2) * 0
    found = [flat.mean(2), flat.std(2, correction=0), flat.amin(2), flat.amax(2), slope]
    return torch.stack(found, -1)


def span(x: Tensor, signature: Signature) -> dict[str, Any]:
    """The spans over training inputs (N, C, *grid), as plain data."""
    # In parts: what there is of float32 may fill much of the memory.
    found = torch.cat([numbers_of(part, signature) for part in x.split(_AT_ONCE)])
    return {
        "samples": len(x),
        "shape": list(signature.open(x).shape[2:]),
        "lower": found.amin(0).tolist(),
        "upper": found.amax(0).tolist(),
    }


def unlike(seen: Mapping[str, Any], x: Tensor, signature: Signature) -> list[str]:
    """Of every input the first number outside its span, in words; empty where none is.

    Slopes are compared on the training grid alone.
    """
    found = numbers_of(x, signature)
    lower, upper = (torch.tensor(seen[end], dtype=torch.float64) for end in ("lower", "upper"))
    room = _ROUNDING * torch.maximum(upper - lower, torch.maximum(lower.abs(), upper.abs()))
    outside = (found < lower - room) | (found > upper + room)
    if list(signature.open(x).shape[2:]) != list(seen["shape"]):
        outside[..., -1] = False
    told = []
    for values, wrong in zip(found, outside, strict=True):
        if not bool(wrong.any()):
            told.append("")
            continue
        c, k = wrong.nonzero()[0].tolist()
        told.append(
            f"the {NUMBERS[k]} of {signature.inputs[c]}, {float(values[c, k]):.4g}, lies outside "
            f"{float(lower[c, k]):.4g} to {float(upper[c, k]):.4g}, where all "
            f"{seen['samples']:,} training inputs have it"
        )
    return told
