"""What a quantity comes to over a time: its extremes, its mean, the frequency at which it swings.

A frequency is counted from zero crossings: of the values less the middle of their range, each
passage upwards at the time t_k that a straight line between its two instants gives, where the
values have been below a tenth of their amplitude in between, so that noise counts no period. Of
n + 1 passages f = n / (t_n - t_0); its uncertainty is the larger of the spread of the single
periods, as the standard error of their mean, and of an instant's resolution.

A maximum lies between instants: it is that of the polynomial of degree four through the greatest
value and its four neighbours, whose error falls with the sixth power of the step where the values
are smooth; where their three second differences differ much, as beside a jump, it is the value.

A mean is an integral over the length. On each interval of length h it is the trapezoid less
h^3 / 6 times the divided second difference f[t_k-1, t_k, t_k+1], the mean of those at its two ends,
which is exact for cubics on even steps (Simpson's rule on others).
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
_SEEN = ("is none", "is one")
_UNEVEN = 0.1  # of its neighbour: a step that is shorter tells no second difference
_ALIKE = 3.0  # how much second differences of what is smooth differ
_PLACES = 401  # at which a polynomial is looked at between two instants
_NO_PERIOD = 0.3  # deviation of single periods, of their mean, beyond which they are noise


def over_time(kind: OverTime, times: torch.Tensor, values: torch.Tensor) -> Measurement:
    """``values`` (*batch, n) at ``times`` (n,), increasing, as one number each.

    NaN where there are no values, or some are unknown; a frequency is where there are not two
    periods, or no more than noise.
    """
    if not len(times):
        nothing = values.new_full(values.shape[:-1], math.nan)
        return Measurement(nothing, why="there are no values from then on")
    unknown = _UNKNOWN if bool(values.detach().isnan().any()) else ""
    if kind == "mean":
        if len(times) == 1:
            return Measurement(values[..., 0], why=unknown)
        whole = _integral(times, values) / (times[-1] - times[0])
        return Measurement(whole, why=unknown)
    if kind in ("max", "min"):
        extreme = _peak(times, values) if kind == "max" else -_peak(times, -values)
        return Measurement(extreme, why=unknown)
    flat = values.detach().reshape(-1, values.shape[-1]).tolist()
    found = [_frequency(times.tolist(), row) for row in flat]
    numbers = torch.tensor([pair for *pair, _ in found], dtype=torch.float64)
    shape, why = values.shape[:-1], next((why for *_, why in found if why), "")
    return Measurement(numbers[:, 0].reshape(shape), error=numbers[:, 1].reshape(shape), why=why)


_UNKNOWN = "at some instants it is not known"


def _peak(times: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The maximum over the times of values (*batch, n), (*batch)."""
    flat = values.reshape(-1, values.shape[-1])
    return torch.stack([_highest(times, row) for row in flat]).reshape(values.shape[:-1])


def _highest(times: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    top = row.amax()
    if len(row) < 5 or bool(top.isnan()):
        return top
    five, t = row.unfold(0, 5, 1), times.unfold(0, 5, 1)
    t = (t - t[:, 2:3]) / (t[:, 3:4] - t[:, 1:2])
    bends = -(five.diff() / t.diff()).diff() / (t[:, 2:] - t[:, :-2])
    # A comparison with NaN is false.
    smooth = (bends > 0).all(-1) & (bends.amax(-1) <= _ALIKE * bends.amin(-1))
    peaks = smooth & (five[:, 2] >= five[:, 1]) & (five[:, 2] >= five[:, 3])
    if not bool(peaks.any()):
        return top
    five, t = five[peaks], t[peaks, None]
    at = (
        t[..., 1:2]
        + (t[..., 3:4] - t[..., 1:2]) * torch.linspace(0, 1, _PLACES, dtype=t.dtype)[:, None]
    )
    shares = torch.ones(*at.shape[:2], 5, dtype=t.dtype)
    for j in range(5):
        for i in range(5):
            if i != j:
                shares[..., j] *= (at - t[..., i : i + 1])[..., 0] / (t[..., j] - t[..., i])
    return torch.maximum(top, (shares.to(row.dtype) @ five[..., None]).amax())


def _integral(times: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The integral over the times of values (*batch, n), (*batch)."""
    whole, h = torch.trapezoid(values, times), times.diff()
    if len(times) < 3:
        return whole
    slopes = values.diff(dim=-1) / h
    bends = slopes.diff(dim=-1) / (h[1:] + h[:-1])
    told = torch.minimum(h[1:], h[:-1]) >= _UNEVEN * torch.maximum(h[1:], h[:-1])
    bends = torch.where(told, bends, 0.0)
    edge = (1, 1)
    total = torch.nn.functional.pad(bends, edge)
    count = torch.nn.functional.pad(told.to(h.dtype), edge)
    both = (total[..., 1:] + total[..., :-1]) / (count[1:] + count[:-1]).clamp(min=1)
    return whole - (h**3 * both).sum(-1) / 6


def _frequency(times: list[float], values: list[float]) -> tuple[float, float, str]:
    """The frequency, its uncertainty, and why there is none."""
    if any(map(math.isnan, values)):
        return math.nan, math.nan, _UNKNOWN
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
        seen = _SEEN[max(len(passages) - 1, 0)]
        return math.nan, math.nan, f"it needs two periods, and there {seen}"
    count = len(passages) - 1
    length = passages[-1] - passages[0]
    periods = [b - a for a, b in pairwise(passages)]
    mean = length / count
    deviation = math.sqrt(sum((p - mean) ** 2 for p in periods) / max(count - 1, 1))
    if deviation > _NO_PERIOD * mean:
        share = f"{100 * deviation / mean:.0f} %"
        return math.nan, math.nan, f"its periods differ by {share}, which is no oscillation"
    # A straight line between two instants misses a passage by less than an eighth of a step.
    missed = max(resolutions) / 8 / count
    return 1 / mean, max(deviation / math.sqrt(count), missed) / mean**2, ""
