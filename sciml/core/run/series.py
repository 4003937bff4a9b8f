"""What a quantity comes to over a time: its extremes, its mean, the frequency at which it swings.

A frequency is counted from zero crossings: of the values less the middle of their range, each
passage upwards at the time t_k that a straight line between its two instants gives, where the
values have been below a tenth of their amplitude in between, so that noise counts no period. Of
n + 1 passages f = n / (t_n - t_0); its uncertainty is the larger of the spread of the single
periods, as the standard error of their mean, and of an instant's resolution.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch

from sciml.core.run.quantities import Measurement

OverTime = Literal["max", "min", "mean", "frequency"]
_NOISE = 0.1  # of the amplitude
_FEWEST = 3  # passages, which are two periods
_NO_PERIOD = 0.3  # deviation of single periods, of their mean, beyond which they are noise


def over_time(kind: OverTime, times: torch.Tensor, values: torch.Tensor) -> Measurement:
    """``values`` (*batch, n) at ``times`` (n,), increasing, as one number each.

    A mean is the integral, by trapezoids, over the length. NaN where there are no values, or some
    are unknown; a frequency is where there are not two periods, or no more than noise.
    """
    if not len(times):
        return Measurement(values.new_full(values.shape[:-1], math.nan))
    if kind == "mean":
        if len(times) == 1:
            return Measurement(values[..., 0])
        return Measurement(torch.trapezoid(values, times) / (times[-1] - times[0]))
    if kind in ("max", "min"):
        return Measurement(values.amax(-1) if kind == "max" else values.amin(-1))
    flat = values.detach().reshape(-1, values.shape[-1]).tolist()
    found = torch.tensor([_frequency(times.tolist(), row) for row in flat], dtype=torch.float64)
    shape = values.shape[:-1]
    return Measurement(found[:, 0].reshape(shape), error=found[:, 1].reshape(shape))


def _frequency(times: list[float], values: list[float]) -> tuple[float, float]:
    """The frequency and its uncertainty."""
    if any(map(math.isnan, values)):
        return math.nan, math.nan
    low, high = min(values), max(values)
    middle, noise = (low + high) / 2, _NOISE * (high - low) / 2
    passages, resolutions, below = [], [], False
    for k in range(1, len(values)):
        before, now = values[k - 1] - middle, values[k] - middle
        below = below or before < -noise
        if below and before < 0 <= now:
            step = times[k] - times[k - 1]
            passages.append(times[k - 1] + step * before / (before - now))
            resolutions.append(step)
            below = False
    if len(passages) < _FEWEST:
        return math.nan, math.nan
    count = len(passages) - 1
    length = passages[-1] - passages[0]
    periods = [b - a for a, b in pairwise(passages)]
    mean = length / count
    deviation = math.sqrt(sum((p - mean) ** 2 for p in periods) / max(count - 1, 1))
    if deviation > _NO_PERIOD * mean:
        return math.nan, math.nan
    # A straight line between two instants misses a passage by less than an eighth of a step.
    missed = max(resolutions) / 8 / count
    return 1 / mean, max(deviation / math.sqrt(count), missed) / mean**2
