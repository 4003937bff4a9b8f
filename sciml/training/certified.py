"""A prediction's certificate against its true error, and what it saves a solver.

Let u* be the discrete solution, e = u* - u the error of a prediction u, and ||e||_A^2 = e . A e. A
certificate claims lower <= ||e||_A <= upper. The true error is known from a solution v of the same
system solved to 1e-13, whose own distance to u* is certified too, to delta: by the triangle
inequality a bound is found wrong only where it misses ||v - u||_A by more than delta.

Multigrid-CG is run from t u, t = u . b / u . A u the multiple nearest to u* in the energy norm, and
from zero. Two counts are kept, iterations to a relative
residual ||b - A u|| / ||b|| and to a relative error ||e||_A / ||u*||_A: a network's error is rough,
which the residual weighs by the eigenvalues of A, so that a prediction near in energy can begin
with a residual above that of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml.core.certificate import Certificate
from sciml.core.discretize import discretize
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Problem
from sciml.solvers.certify import certify
from sciml.solvers.iteration import relative_residual
from sciml.solvers.krylov import CG
from sciml.solvers.multigrid import Multigrid
from sciml.training.evaluation import spread

_TIGHT = 1e-13
_UNREACHED = 1e-15
_MOST = 50


@dataclass(frozen=True)
class Bracket:
    """Bounds and the true error, relative to ||u*||_A; (N,) float64.

    ``held``: mask of the samples whose error lies between its bounds. ``steps``: of tightening.
    """

    lower: Tensor
    upper: Tensor
    error: Tensor
    held: Tensor
    steps: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "steps": self.steps,
            "held": float(self.held.double().mean()),
            "lower": spread(self.lower),
            "error": spread(self.error),
            "upper": spread(self.upper),
            "lower_over_error": spread(self.lower / self.error),
            "upper_over_error": spread(self.upper / self.error),
        }


@torch.no_grad()
def bracket(u: Tensor, certificate: Certificate, problem: Problem, on: Grid) -> Bracket:
    """Whether ``certificate`` holds the true error of ``u`` (N, *grid) between its bounds."""
    system = discretize(problem, on)
    tight = _solved(system)
    own = certify(system.lift(tight), system)
    size = _energy(system, tight)
    error = _energy(system, tight - system.restrict(u.double()))
    lower, upper = certificate.lower.reshape(-1), certificate.upper.reshape(-1)
    slack = own.upper.reshape(-1)
    held = (lower <= error + slack) & (error - slack <= upper)
    return Bracket(lower / size, upper / size, error / size, held, certificate.steps)


@dataclass(frozen=True)
class Polishing:
    """Multigrid-CG to ``rtol`` from a prediction and from zero; (N,) each.

    ``residual`` and ``energy``: relative residual and relative energy error of the prediction (zero
    has 1 in both). Iterations to a relative residual, and to a relative energy error, of ``rtol``.
    """

    rtol: float
    residual: Tensor
    energy: Tensor
    by_residual: Tensor
    by_residual_from_zero: Tensor
    by_energy: Tensor
    by_energy_from_zero: Tensor

    @property
    def saved(self) -> float:
        """The share of iterations saved to the residual, over all samples."""
        return 1 - float(self.by_residual.sum() / self.by_residual_from_zero.sum())

    @property
    def saved_in_energy(self) -> float:
        """The share of iterations saved to the energy error, over all samples."""
        return 1 - float(self.by_energy.sum() / self.by_energy_from_zero.sum())

    def to_json(self) -> dict[str, Any]:
        """Plain data; iterations as means."""
        return {
            "rtol": self.rtol,
            "residual": spread(self.residual),
            "energy": spread(self.energy),
            "iterations": {
                "residual": float(self.by_residual.double().mean()),
                "residual_from_zero": float(self.by_residual_from_zero.double().mean()),
                "energy": float(self.by_energy.double().mean()),
                "energy_from_zero": float(self.by_energy_from_zero.double().mean()),
            },
            "saved": self.saved,
            "saved_in_energy": self.saved_in_energy,
        }


@torch.no_grad()
def polishing(u: Tensor, problem: Problem, on: Grid, rtol: float = 1e-6) -> Polishing:
    """Iterations of multigrid-CG from the best multiple of ``u`` (N, *grid), and from zero."""
    system = discretize(problem, on)
    guess = system.restrict(u.double())
    tight = _solved(system)
    square = _inner(guess, system.A.apply(guess))
    nearest = torch.where(square > 0, _inner(guess, system.b) / square, 0.0)
    start = nearest[(..., *(None,) * len(system.A.shape))] * guess
    zero = torch.zeros_like(tight)
    size = _energy(system, tight)
    starts = [_counts(system, x, tight, rtol) for x in (start, zero)]
    return Polishing(
        rtol,
        relative_residual(system.A, guess, system.b),
        _energy(system, tight - guess) / size,
        starts[0][0],
        starts[1][0],
        starts[0][1],
        starts[1][1],
    )


def _solved(system: LinearSystem) -> Tensor:
    """The unknowns to 1e-13, or as near as rounding lets them come."""
    solver = CG(preconditioner=Multigrid(), rtol=_TIGHT)
    return solver.iterate(system.A, solver.setup(system.A), system.b, None, None).x


def _energy(system: LinearSystem, v: Tensor) -> Tensor:
    """||v||_A per sample."""
    return _inner(v, system.A.apply(v)).clamp(min=0.0).sqrt()


def _inner(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(1)


def _counts(
    system: LinearSystem, start: Tensor, tight: Tensor, rtol: float
) -> tuple[Tensor, Tensor]:
    """Iterations from ``start`` to the residual and to the energy error, 50 at most; (B,)."""
    prepared = CG(preconditioner=Multigrid()).setup(system.A)
    size = _energy(system, tight)
    counts = torch.full((2, len(start)), _MOST)
    waiting = torch.ones_like(counts, dtype=torch.bool)
    x = start
    for k in range(_MOST + 1):
        if k:
            solver = CG(preconditioner=Multigrid(), rtol=_UNREACHED, max_iterations=k)
            x = solver.iterate(system.A, prepared, system.b, start, None).x
        reached = torch.stack(
            [
                relative_residual(system.A, x, system.b) <= rtol,
                _energy(system, tight - x) / size <= rtol,
            ]
        )
        counts[waiting & reached] = k
        waiting &= ~reached
        if not bool(waiting.any()):
            break
    return counts[0], counts[1]
