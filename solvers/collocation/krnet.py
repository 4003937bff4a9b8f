"""A density on a box as a triangular map to uniform ones: KRnet in its bounded form.

A map T of the unit cube onto itself gives the density p(x) = |det dT/dx|; points with that density
are T^-1 of uniform ones. T is made of piecewise-quadratic distribution functions, one per axis,

    F(s) = int_0^s g,      g positive and linear between the edges of the bins,    F(1) = 1,

in the order of Knothe and Rosenblatt: in every stage first one F per axis, then couplings, where a
small network of one half of the axes gives the F of each axis of the other half; after a stage half
of the axes are left as they are (KRnet: Tang, Wan, Liao 2020; on boxes: Zeng, Wan, Zhou 2023, arXiv
2305.09063; piecewise-quadratic couplings: Mueller et al. 2019, arXiv 1808.03856). All is invertible
in closed form, and p integrates to one whatever the parameters are.

KRnet's affine couplings are for the whole space: taken to the box by a logistic map, one of slope
other than 1 makes the density infinite or zero on the sides, and its Sobolev norm infinite.
Here p lies between positive bounds and is Lipschitz; the untrained p is the uniform density.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from sciml.core.errors import InputError

# Shares of a bin's width and of g that training cannot take away.
_LEAST_WIDTH, _LEAST_DENSITY = 0.05, 0.01


class KRnet(nn.Module):
    """A density on the box from ``lower`` to ``upper``, (D,) each; float64.

    ``layers``: couplings per stage; ``width`` of their networks; ``bins`` of every F.
    """

    lower: Tensor
    upper: Tensor

    def __init__(
        self, lower: Tensor, upper: Tensor, layers: int = 6, width: int = 24, bins: int = 32
    ) -> None:
        super().__init__()
        if not bool((torch.isfinite(lower) & torch.isfinite(upper) & (lower < upper)).all()):
            raise InputError("a density needs a bounded domain, lower < upper along every axis")
        self.register_buffer("lower", lower.double())
        self.register_buffer("upper", upper.double())
        parts: list[nn.Module] = []
        active = len(lower)
        while active > 0:
            parts.append(Marginals(active, bins))
            parts += [Coupling(active, k, width, bins) for k in range(layers) if active > 1]
            active //= 2
        self.parts = nn.ModuleList(parts)
        self.double()

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """T of points (N, D) of the box, (N, D) in the cube, and log p there, (N,)."""
        size = self.upper - self.lower
        z = (points - self.lower) / size
        log_density = -size.log().sum().expand(len(z))
        for part in self._ordered():
            z, slope = part(z)
            log_density = log_density + slope
        return z, log_density

    def log_density(self, points: Tensor) -> Tensor:
        """log p at points (N, D) of the box, (N,)."""
        return self(points)[1]

    @torch.no_grad()
    def inverse(self, z: Tensor) -> Tensor:
        """T^-1 of points (N, D) of the unit cube: in the box, uniform ones to the density p."""
        for part in reversed(self._ordered()):
            z = part.inverse(z)
        return self.lower + z * (self.upper - self.lower)

    def _ordered(self) -> list[Any]:
        return list(self.parts)


class Marginals(nn.Module):
    """One distribution function for each of the first ``active`` axes."""

    def __init__(self, active: int, bins: int) -> None:
        super().__init__()
        self.active = active
        self.raw = nn.Parameter(torch.zeros(active, 2 * bins + 1))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped points (N, D) and the log of the determinant (N,)."""
        moved, slope = self._shapes(z)(z[:, : self.active])
        return torch.cat([moved, z[:, self.active :]], 1), slope.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Back, (N, D)."""
        moved = self._shapes(z).inverse(z[:, : self.active])
        return torch.cat([moved, z[:, self.active :]], 1)

    def _shapes(self, z: Tensor) -> Distribution:
        return Distribution.of(self.raw.expand(len(z), -1, -1))


class Coupling(nn.Module):
    """Distribution functions of every second active axis, given the active axes between them."""

    given: Tensor
    moved: Tensor

    def __init__(self, active: int, parity: int, width: int, bins: int) -> None:
        super().__init__()
        axes = torch.arange(active)
        self.register_buffer("given", axes[axes % 2 == parity % 2])
        self.register_buffer("moved", axes[axes % 2 != parity % 2])
        last = nn.Linear(width, len(self.moved) * (2 * bins + 1))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(
            nn.Linear(len(self.given), width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), last
        )

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The mapped points (N, D) and the log of the determinant (N,)."""
        moved, slope = self._shapes(z)(z[:, self.moved])
        return z.index_copy(1, self.moved, moved), slope.sum(1)

    def inverse(self, z: Tensor) -> Tensor:
        """Back, (N, D)."""
        return z.index_copy(1, self.moved, self._shapes(z).inverse(z[:, self.moved]))

    def _shapes(self, z: Tensor) -> Distribution:
        raw = self.network(2 * z[:, self.given] - 1)
        return Distribution.of(raw.view(len(z), len(self.moved), -1))


class Distribution:
    """Piecewise-quadratic distribution functions on [0, 1], one per entry of (N, K).

    ``edges`` of the bins, ``heights`` of g there, ``values`` of F there: (N, K, bins + 1) each.
    """

    def __init__(self, edges: Tensor, heights: Tensor, values: Tensor) -> None:
        self.edges, self.heights, self.values = edges, heights, values

    @classmethod
    def of(cls, raw: Tensor) -> Distribution:
        """From free numbers (N, K, 2 bins + 1): logits of the widths, logs of the heights."""
        bins = raw.shape[-1] // 2
        share = softmax(raw[..., :bins], -1)
        widths = _LEAST_WIDTH / bins + (1 - _LEAST_WIDTH) * share
        top = raw[..., bins:].amax(-1, keepdim=True).detach()
        heights = (raw[..., bins:] - top).exp()
        area = (widths * (heights[..., 1:] + heights[..., :-1])).sum(-1, keepdim=True) / 2
        heights = _LEAST_DENSITY + (1 - _LEAST_DENSITY) * heights / area
        masses = widths * (heights[..., 1:] + heights[..., :-1]) / 2
        return cls(_running(widths), heights, _running(masses))

    def __call__(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """F and log g at s, (N, K) each."""
        (low, width), (g, rise), (value, _) = self._bin(self.edges, s)
        t = (s - low) / width
        found = value + width * t * (g + rise * t / 2)
        return found.clamp(0.0, 1.0), (g + rise * t).log()

    def inverse(self, z: Tensor) -> Tensor:
        """s with F(s) = z, (N, K)."""
        (low, width), (g, rise), (value, _) = self._bin(self.values, z)
        c = (z - value) / width
        root = (g.square() + 2 * rise * c).clamp(min=0.0).sqrt()
        return (low + width * 2 * c / (g + root)).clamp(0.0, 1.0)

    def _bin(self, ticks: Tensor, s: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Where s lies among the ticks: left end and increment of edges, heights and values."""
        inner = ticks[..., 1:-1].detach().contiguous()
        at = torch.searchsorted(inner, s.detach()[..., None].contiguous(), right=True)
        found = []
        for table in (self.edges, self.heights, self.values):
            left, right = (table.gather(-1, at + k)[..., 0] for k in (0, 1))
            found.append((left, right - left))
        return found


def _running(parts: Tensor) -> Tensor:
    """0, and the sums of the first 1, 2, ... parts."""
    return torch.cat([torch.zeros_like(parts[..., :1]), parts.cumsum(-1)], -1)
