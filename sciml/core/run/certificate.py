"""What is certain about the error of an answer; :mod:`sciml.solvers.linear.certify` finds it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import torch


@dataclass(frozen=True)
class Certificate:
    """Bounds of ||u* - u||_A, u* the discrete solution; float64 tensors of shape batch.

    ``relative_lower``, ``relative_upper`` are relative to ||u*||_A. ``contraction``: the rho used
    in them. ``margin``: the largest share by which 1 - rho was lowered below its estimate.
    ``probability``: a bound on the probability, per operator, that this was too little and
    ``upper`` is no bound; ``lower`` always is one. Both make room for rounding. ``steps``: of
    multigrid-CG. ``reason``: why ``upper`` is infinite, where it is; "" elsewhere.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    relative_lower: torch.Tensor
    relative_upper: torch.Tensor
    contraction: torch.Tensor
    margin: float
    probability: float
    steps: int
    reason: str = ""

    def __repr__(self) -> str:
        low, high = float(self.relative_lower.min()), float(self.relative_upper.max())
        return (
            f"Certificate(relative error between {low:.3g} and {high:.3g} in the energy norm, "
            f"{self.lower.numel()} sample{'' if self.lower.numel() == 1 else 's'})"
        )

    def __str__(self) -> str:
        samples = self.lower.numel()
        which = "The" if samples == 1 else f"In each of {samples} samples the"
        if self.reason:
            return (
                f"{which} energy-norm distance to the discrete solution (not to that of the "
                f"differential equation) is at least {float(self.lower.min()):.3g}, that is "
                f"{100 * float(self.relative_lower.min()):.3g} % of the solution's own norm. "
                f"There is no upper bound: {self.reason}."
            )
        return (
            f"{which} energy-norm distance to the discrete solution (not to that of the "
            f"differential equation) is between {_span(self.lower, self.upper)}, that is "
            f"{_span(100 * self.relative_lower, 100 * self.relative_upper)} % of the solution's "
            f"own norm. The upper bound takes the multigrid cycle's contraction as "
            f"{float(self.contraction.max()):.3f}, a margin of {100 * self.margin:.0f} % "
            f"included, and fails with probability at most {self.probability:.1g} after "
            f"{self.steps} tightening step{'' if self.steps == 1 else 's'}."
        )


def _span(low: torch.Tensor, high: torch.Tensor) -> str:
    """Three digits, rounded outward."""
    ends = (float(low.min()), ROUND_FLOOR), (float(high.max()), ROUND_CEILING)
    digits = [Context(3, way).create_decimal_from_float(value) for value, way in ends]
    return " and ".join(f"{float(value):.3g}" for value in digits)
