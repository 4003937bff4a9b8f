"""Where collocation points lie: evenly, or drawn to where the residual of the equation is large.

Evenly: at random, on Sobol's sequence, on a Latin hypercube. By the residual,

    RAR  adds those points of a random pool where |r| is largest (Lu, Meng, Mao, Karniadakis 2021,
         algorithm 2),
    RAD  draws all points anew from a random pool, with the odds |r|^k / mean |r|^k + c (Wu, Zhu,
         Tan, Kartha, Lu 2023, eq. 2),
    R3   retains the points where |r| is above its mean and draws the others anew, uniformly (Daw,
         Bu, Wang, Perdikaris, Karpatne 2023, algorithm 1).

and the loss is the mean of r^2 over the points, wherever they are, as in these papers. Points of
soft conditions are on Sobol's sequence, new ones at every exchange.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.trained.objective import Objective


@dataclass(frozen=True)
class UniformSampling:
    """Independent uniform points; new ones every ``every`` iterations (0: never)."""

    every: int = 0
    kind: Literal["uniform"] = "uniform"

    def __post_init__(self) -> None:
        _check_every(self.every)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece."""
        check_bounded(objective)
        return [
            piece.place(torch.rand(n, piece.free, dtype=torch.float64, generator=generator))
            for piece, n in zip(objective.pieces, counts, strict=True)
        ]


@dataclass(frozen=True)
class Sobol:
    """Scrambled Sobol points, which fill evenly; new ones every ``every`` iterations (0: never)."""

    every: int = 0
    kind: Literal["sobol"] = "sobol"

    def __post_init__(self) -> None:
        _check_every(self.every)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece."""
        check_bounded(objective)
        return [
            piece.place(sobol(n, piece.free, generator))
            for piece, n in zip(objective.pieces, counts, strict=True)
        ]


@dataclass(frozen=True)
class LatinHypercube:
    """One point in each of N slices of every axis; new ones every ``every`` iterations."""

    every: int = 0
    kind: Literal["latin_hypercube"] = "latin_hypercube"

    def __post_init__(self) -> None:
        _check_every(self.every)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece."""
        check_bounded(objective)
        found = []
        for piece, n in zip(objective.pieces, counts, strict=True):
            if piece.free == 0:
                found.append(piece.place(torch.zeros(n, 0, dtype=torch.float64)))
                continue
            cube = qmc.LatinHypercube(piece.free, rng=_seed(generator)).random(n)
            found.append(piece.place(torch.from_numpy(cube)))
        return found


def _check_every(every: int) -> None:
    if every < 0:
        raise InputError(
            f"iterations between exchanges, 0 for none; got {every}", "solver.sampler.every"
        )


def check_bounded(objective: Objective) -> None:
    """Raise InputError where the equation's box is infinite along an axis."""
    piece = objective.pieces[0]
    if not bool(torch.isfinite(piece.upper - piece.lower).all()):
        raise InputError(
            "collocation points are drawn in a bounded domain; "
            f"got {piece.lower.tolist()} to {piece.upper.tolist()}",
            "problem.domain",
        )


def sobol(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    """Scrambled Sobol points of the unit cube, (count, dimension) float64."""
    if dimension == 0:
        return torch.zeros(count, 0, dtype=torch.float64)
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=_seed(generator))
    return engine.draw(count, dtype=torch.float64)


def gauss_legendre(count: int, breaks: Tensor) -> tuple[Tensor, Tensor]:
    """At least ``count`` points (N, D) of the unit cube and their weights (N,).

    A tensor product; each axis is cut in two at ``breaks`` (D,), with a rule on either side.
    """
    if not len(breaks):
        return breaks.new_zeros(1, 0), breaks.new_ones(1)
    each = max(1, math.ceil(count ** (1 / len(breaks)) / 2 - 1e-9))
    nodes, weights = np.polynomial.legendre.leggauss(each)
    x, w = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    axes = [torch.cat([b * x, b + (1 - b) * x]) for b in breaks]
    shares = [torch.cat([b * w, (1 - b) * w]) for b in breaks]
    cube = torch.cartesian_prod(*axes).reshape(-1, len(breaks))
    return cube, torch.cartesian_prod(*shares).reshape(-1, len(breaks)).prod(1)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=generator))


def grown(
    objective: Objective,
    counts: Sequence[int],
    generator: torch.Generator,
    start: float,
    added: float,
    chosen: Callable[[int], Tensor],
) -> list[Tensor]:
    """The share ``start`` of the points by Sobol, then at each exchange ``added`` more, as chosen.

    ``chosen(more)`` gives so many new points (more, D) of the equation.
    """
    held = held_points(objective)
    if held is None:
        first = share_of(start, counts[0])
        return Sobol().points(objective, [first, *counts[1:]], generator)
    more = min(counts[0] - len(held), share_of(added, counts[0]))
    if more > 0:
        held = torch.cat([held, chosen(more)])
    return with_sides(objective, counts, generator, held)


_CHUNK = 2**14  # points at which residuals are evaluated at once


@dataclass(frozen=True)
class RAR:
    """Starts from the share ``start`` of the points; adds the share ``added`` at each exchange.

    Points are added until there are as many as asked for, each time those with the largest
    residual of ``pool`` candidates. An exchange is every ``every`` iterations.
    """

    every: int = 50
    start: float = 0.5
    added: float = 0.05
    pool: int = 10_000
    kind: Literal["rar"] = "rar"

    def __post_init__(self) -> None:
        _check_exchange(self.every, self.pool)
        check_share("start", self.start)
        check_share("added", self.added)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; fewer than asked for in the equation's at first."""

        def largest(more: int) -> Tensor:
            pool = uniform(objective, max(self.pool, more), generator)
            return pool[residuals(objective, pool).topk(more).indices]

        return grown(objective, counts, generator, self.start, self.added, largest)


@dataclass(frozen=True)
class RAD:
    """Draws every point anew with the odds ``|r|^power / mean |r|^power + floor``.

    From ``pool`` uniform candidates, or ten a point if these are more, without replacement. An
    exchange is every ``every`` iterations.
    """

    every: int = 50
    power: float = 1.0
    floor: float = 1.0
    pool: int = 10_000
    kind: Literal["rad"] = "rad"

    def __post_init__(self) -> None:
        _check_exchange(self.every, self.pool)
        if not (0 <= self.power < math.inf and 0 <= self.floor < math.inf):
            raise InputError(
                f"power and floor must be finite, not negative; got {self.power} and {self.floor}",
                "solver.sampler",
            )

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; on Sobol's sequence at first."""
        if held_points(objective) is None:
            return Sobol().points(objective, counts, generator)
        pool = uniform(objective, max(self.pool, 10 * counts[0]), generator)
        odds = residuals(objective, pool).pow(self.power)
        odds = odds / odds.mean().clamp(min=1e-300) + self.floor + 1e-12
        drawn = torch.multinomial(odds, counts[0], generator=generator)
        return with_sides(objective, counts, generator, pool[drawn])


@dataclass(frozen=True)
class R3:
    """Retains the points where |r| is above its mean; draws the others anew, uniformly.

    An exchange is every ``every`` iterations.
    """

    every: int = 10
    kind: Literal["r3"] = "r3"

    def __post_init__(self) -> None:
        _check_exchange(self.every, 1)

    def points(
        self, objective: Objective, counts: Sequence[int], generator: torch.Generator
    ) -> list[Tensor]:
        """One tensor (N, D) per piece; on Sobol's sequence at first."""
        held = held_points(objective)
        if held is None:
            return Sobol().points(objective, counts, generator)
        size = residuals(objective, held)
        kept = held[size > size.mean()]
        fresh = uniform(objective, counts[0] - len(kept), generator)
        return with_sides(objective, counts, generator, torch.cat([kept, fresh]))


def held_points(objective: Objective) -> Tensor | None:
    """The equation's points (N, D) as they are, None before the first."""
    return objective.batches[0].own if objective.batches else None


def residuals(objective: Objective, points: Tensor) -> Tensor:
    """|r| of the equation at points (N, D), (N,), without a graph; zero where it is not finite."""
    with torch.no_grad():
        found = torch.cat([objective.pointwise(part) for part in points.split(_CHUNK)])
    return found.detach().nan_to_num(0.0, 0.0, 0.0)


def uniform(objective: Objective, count: int, generator: torch.Generator) -> Tensor:
    """Independent uniform points of the equation's box, (count, D)."""
    piece = objective.pieces[0]
    return piece.place(torch.rand(count, piece.free, dtype=torch.float64, generator=generator))


def with_sides(
    objective: Objective, counts: Sequence[int], generator: torch.Generator, points: Tensor
) -> list[Tensor]:
    """These points for the equation, and new ones for every other piece."""
    return [points, *Sobol().points(objective, [1, *counts[1:]], generator)[1:]]


def share_of(share: float, count: int) -> int:
    """That share of a count, at least 1."""
    return max(1, round(share * count))


def _check_exchange(every: int, pool: int) -> None:
    if every < 1:
        raise InputError(
            f"points are exchanged every so many iterations, at least 1; got {every}",
            "solver.sampler.every",
        )
    if pool < 1:
        raise InputError(f"pool must be at least 1; got {pool}", "solver.sampler.pool")


def check_share(name: str, share: float) -> None:
    """Raise InputError unless it is above 0 and at most 1."""
    if not 0 < share <= 1:
        raise InputError(f"{name} is a share, above 0, at most 1; got {share}",
                         f"solver.sampler.{name}")  # fmt: skip
