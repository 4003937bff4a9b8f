"""Where collocation points lie: at random, on Sobol's sequence, on a Latin hypercube."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.stats import qmc
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.collocation.objective import Objective


@dataclass(frozen=True)
class Uniform:
    """Independent uniform points; new ones every ``every`` iterations (0: never)."""

    every: int = 0
    kind: Literal["uniform"] = "uniform"

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


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (1,), generator=generator))
