"""Collocation points from a density that is trained against the solution, or fitted to r^2.

Adversarial adaptive sampling (Tang, Zhai, Wan, Yang, ICLR 2024, arXiv 2305.18702): with the box
scaled to the unit cube and the residual to E(r^2) = 1 under the uniform density,

    min over u, max over p of   int r^2 p dx - beta int |grad p|^2 dx,

p a flow (``krnet``), the two in turn. Without the penalty p would be a point mass at the largest
residual; with it p - 1 = (-Lap)^-1 (r^2 - 1) / (2 beta), the residual smoothed, as long as that is
positive. A residual at one point draws all points into the ball of radius 2 sqrt((D + 2) beta)
around it: where -2 beta Lap p = delta - c and p = 0, dp/dn = 0 on its surface, by Green's formula
with |x|^2.

Deep adaptive sampling (Tang, Wan, Yang 2023, arXiv 2112.14038) fits the flow to r^2 instead,

    max over p of   int r^2 log p dx,

and adds points drawn from it (DAS-G) or replaces all points by them (DAS-R).

The loss of u is the mean of r^2 over the points: E_p(r^2). Integrals over the cube are taken at
candidates, half of them uniform, half from p as it was, with q = (1 + p) / 2 as their density.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.collocation.krnet import KRnet
from sciml.solvers.collocation.objective import Objective
from sciml.solvers.collocation.sampling import (
    Sobol,
    check_share,
    held_points,
    residuals,
    share_of,
    sobol,
    with_sides,
)

_KEY = "solver.sampler"


@dataclass(frozen=True)
class Flow:
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
    flow: Flow = field(default_factory=Flow)
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
    flow: Flow = field(default_factory=Flow)
    kind: Literal["das_g"] = "das_g"

    def __post_init__(self) -> None:
        _check_every(self.every)
        check_share("start", self.start)
        check_share("added", self.added)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; fewer than asked for in the equation's at first."""
        held = held_points(objective)
        if held is None:
            first = share_of(self.start, counts[0])
            return Sobol().points(objective, [first, *counts[1:]], generator)
        more = min(counts[0] - len(held), share_of(self.added, counts[0]))
        if more > 0:
            density = fitted(objective, self.flow, generator)
            held = torch.cat([held, drawn(objective, density, more, generator)])
        return with_sides(objective, counts, generator, held)


@dataclass(frozen=True)
class DASR:
    """Replaces all points, every ``every`` iterations, by points of the density fitted to r^2."""

    every: int = 50
    flow: Flow = field(default_factory=Flow)
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


def fitted(objective: Objective, flow: Flow, generator: torch.Generator) -> KRnet:
    """The density after a fit to r^2 as it is now."""

    def loss(density: KRnet, pool: Candidates) -> Tensor:
        return entropy_loss(density, pool, flow.batch, generator)

    return trained(objective, flow, loss, generator)


def trained(
    objective: Objective,
    flow: Flow,
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


def _untrained(objective: Objective, flow: Flow, generator: torch.Generator) -> KRnet:
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
