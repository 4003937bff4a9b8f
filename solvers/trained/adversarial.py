"""Collocation points from a density that is trained against the solution, or fitted to r^2.

Adversarial adaptive sampling (Tang, Zhai, Wan, Yang, ICLR 2024, arXiv 2305.18702): with the box
scaled to the unit cube and the residual to E(r^2) = 1 under the uniform density,

    min over u, max over p of   int r^2 p dx - beta int |grad p|^2 dx,

p a flow (``KRnet``), the two in turn. Without the penalty p would be a point mass at the largest
residual; with it p - 1 = (-Lap)^-1 (r^2 - 1) / (2 beta), the residual smoothed, as long as that is
positive. A residual at one point draws all points into the ball of radius 2 sqrt((D + 2) beta)
around it: where -2 beta Lap p = delta - c and p = 0, dp/dn = 0 on its surface, by Green's formula
with |x|^2.

Deep adaptive sampling (Tang, Wan, Yang 2023, arXiv 2112.14038) fits the flow to r^2 instead,

    max over p of   int r^2 log p dx,

and adds points drawn from it (DAS-G) or replaces all points by them (DAS-R).

The loss of u is the mean of r^2 over the points: E_p(r^2). Integrals over the cube are taken at
candidates, half of them uniform, half from p as it was, with q = (1 + p) / 2 as their density.

*KRnet*, the density on a box as a triangular map to uniform ones, in its bounded form.

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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from sciml.core.errors import InputError
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.sampling import (
    Sobol,
    check_share,
    grown,
    held_points,
    residuals,
    share_of,
    sobol,
    with_sides,
)

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
        log_density: Tensor = self(points)[1]
        return log_density

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

    def _shapes(self, z: Tensor) -> QuadraticDistribution:
        return QuadraticDistribution.of(self.raw.expand(len(z), -1, -1))


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

    def _shapes(self, z: Tensor) -> QuadraticDistribution:
        raw = self.network(2 * z[:, self.given] - 1)
        return QuadraticDistribution.of(raw.view(len(z), len(self.moved), -1))


class QuadraticDistribution:
    """Piecewise-quadratic distribution functions on [0, 1], one per entry of (N, K).

    ``edges`` of the bins, ``heights`` of g there, ``values`` of F there: (N, K, bins + 1) each.
    """

    def __init__(self, edges: Tensor, heights: Tensor, values: Tensor) -> None:
        self.edges, self.heights, self.values = edges, heights, values

    @classmethod
    def of(cls, raw: Tensor) -> QuadraticDistribution:
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


_KEY = "solver.sampler"


@dataclass(frozen=True)
class DensityTraining:
    """How the density is made and trained between two exchanges of points.

    ``layers``, ``width``, ``bins``: see ``KRnet``. In each of ``rounds`` the ``candidates`` are
    drawn anew, and Adam takes ``steps`` steps at the rate ``rate``, each on ``batch`` of them.
    """

    layers: int = 4
    width: int = 24
    bins: int = 32
    rounds: int = 2
    steps: int = 15
    rate: float = 0.015
    batch: int = 400
    candidates: int = 8000

    def __post_init__(self) -> None:
        for name in ("layers", "width", "bins", "rounds", "steps", "batch", "candidates"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"{_KEY}.flow.{name}"
                )
        if not self.rate > 0:
            raise InputError(f"rate must be positive; got {self.rate}", f"{_KEY}.flow.rate")


@dataclass(frozen=True)
class AdversarialSampling:
    """Replaces points, every ``every`` iterations, by points of the adversary's density.

    ``beta``: the penalty, with lengths as shares of the box's; see the module. ``renewed``: the
    share of the points that is replaced, the oldest first; the others are of the densities before,
    an average that keeps the two players from chasing each other.
    """

    every: int = 50
    beta: float = 1e-2
    renewed: float = 0.5
    flow: DensityTraining = field(default_factory=DensityTraining)
    kind: Literal["aas"] = "aas"

    def __post_init__(self) -> None:
        _check_every(self.every)
        if not self.beta > 0:
            raise InputError(
                f"beta must be positive, or the density shrinks to a point; got {self.beta}",
                f"{_KEY}.beta",
            )
        check_share("renewed", self.renewed)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; on Sobol's sequence at first."""
        held = held_points(objective)
        if held is None:
            return Sobol().points(objective, counts, generator)

        def loss(density: KRnet, pool: Candidates) -> Tensor:
            return adversarial_loss(density, pool, self.beta, self.flow.batch, generator)

        density = trained(objective, self.flow, loss, generator)
        count = share_of(self.renewed, counts[0])
        fresh = drawn(objective, density, count, generator)
        return with_sides(objective, counts, generator, torch.cat([held[count:], fresh]))


@dataclass(frozen=True)
class DASG:
    """Starts from the share ``start`` of the points; adds the share ``added`` at each exchange.

    The points added have the density fitted to r^2; an exchange is every ``every`` iterations,
    until there are as many points as asked for.
    """

    every: int = 50
    start: float = 0.2
    added: float = 0.2
    flow: DensityTraining = field(default_factory=DensityTraining)
    kind: Literal["das_g"] = "das_g"

    def __post_init__(self) -> None:
        _check_every(self.every)
        check_share("start", self.start)
        check_share("added", self.added)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; fewer than asked for in the equation's at first."""

        def of_density(more: int) -> Tensor:
            return drawn(objective, fitted(objective, self.flow, generator), more, generator)

        return grown(objective, counts, generator, self.start, self.added, of_density)


@dataclass(frozen=True)
class DASR:
    """Replaces all points, every ``every`` iterations, by points of the density fitted to r^2."""

    every: int = 50
    flow: DensityTraining = field(default_factory=DensityTraining)
    kind: Literal["das_r"] = "das_r"

    def __post_init__(self) -> None:
        _check_every(self.every)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; on Sobol's sequence at first."""
        if held_points(objective) is None:
            return Sobol().points(objective, counts, generator)
        density = fitted(objective, self.flow, generator)
        return with_sides(
            objective, counts, generator, drawn(objective, density, counts[0], generator)
        )


@dataclass(frozen=True)
class Candidates:
    """Points of the unit cube (M, D), their density q (M,), and r^2 as a law over them (M,)."""

    points: Tensor
    density: Tensor
    law: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Points with the density r^2 / int r^2, (count, D)."""
        return self.points[
            torch.multinomial(self.law, count, replacement=True, generator=generator)
        ]


def candidates(
    objective: Objective, density: KRnet, count: int, generator: torch.Generator
) -> Candidates:
    """Half of them uniform, half from ``density``; uniform law where the residual vanishes."""
    dimension, half = objective.pieces[0].free, (count + 1) // 2
    mapped = density.inverse(sobol(half, dimension, generator))
    points = torch.cat([sobol(half, dimension, generator), mapped])
    with torch.no_grad():
        q = (1 + density.log_density(points).exp()) / 2
    square = residuals(objective, objective.pieces[0].place(points)).square()
    law = square / square.max().clamp(min=1e-300) / q
    return Candidates(points, q, law if bool(law.sum() > 0) else 1 / q)


def adversarial_loss(
    density: KRnet, pool: Candidates, beta: float, batch: int, generator: torch.Generator
) -> Tensor:
    """What the adversary lowers: (-int r^2 p + beta int |grad p|^2) over the first's size."""
    at = torch.randint(len(pool.points), (batch,), generator=generator)
    x = pool.points[at].requires_grad_()
    p = density.log_density(torch.cat([x, pool.draw(batch, generator)])).exp()
    (slope,) = torch.autograd.grad(p[:batch].sum(), x, create_graph=True)
    roughness = (slope.square().sum(1) / pool.density[at]).mean()
    gain = p[batch:].mean()
    return (beta * roughness - gain) / gain.detach()


def entropy_loss(
    density: KRnet, pool: Candidates, batch: int, generator: torch.Generator
) -> Tensor:
    """-int r^2 log p, the cross-entropy between the residual's law and the density."""
    return -density.log_density(pool.draw(batch, generator)).mean()


def fitted(objective: Objective, flow: DensityTraining, generator: torch.Generator) -> KRnet:
    """The density after a fit to r^2 as it is now."""

    def loss(density: KRnet, pool: Candidates) -> Tensor:
        return entropy_loss(density, pool, flow.batch, generator)

    return trained(objective, flow, loss, generator)


def trained(
    objective: Objective,
    flow: DensityTraining,
    loss: Callable[[KRnet, Candidates], Tensor],
    generator: torch.Generator,
) -> KRnet:
    """The objective's density, made where there is none, after a training on the loss."""
    if objective.density is None:
        objective.density = _untrained(objective, flow, generator)
    density: KRnet = objective.density
    adam = torch.optim.Adam(density.parameters(), flow.rate)
    for _ in range(flow.rounds):
        pool = candidates(objective, density, flow.candidates, generator)
        for _ in range(flow.steps):
            adam.zero_grad()
            with torch.enable_grad():
                loss(density, pool).backward()
            adam.step()
    return density


def drawn(objective: Objective, density: KRnet, count: int, generator: torch.Generator) -> Tensor:
    """Points (count, D) of the equation's box with that density."""
    piece = objective.pieces[0]
    return piece.place(density.inverse(sobol(count, piece.free, generator)))


def _untrained(objective: Objective, flow: DensityTraining, generator: torch.Generator) -> KRnet:
    dimension = objective.pieces[0].free
    low, high = torch.zeros(dimension), torch.ones(dimension)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return KRnet(low, high, flow.layers, flow.width, flow.bins)


def _check_every(every: int) -> None:
    if every < 1:
        raise InputError(
            f"points are exchanged every so many iterations, at least 1; got {every}",
            f"{_KEY}.every",
        )
