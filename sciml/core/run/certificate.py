"""What is certain about the error of an answer.

:mod:`sciml.solvers.linear.certify` finds the distance to the discrete solution,
:mod:`sciml.solvers.linear.equilibrated` that to the solution of the differential equation.
"""

from __future__ import annotations

import math
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


def relative(
    low: torch.Tensor, high: torch.Tensor, own: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of |u - v| / |u| from those of |u - v| and from |v|, ``own``."""
    most, least = own + high, (own - high).clamp(min=0)
    lower = torch.where(most > 0, low / most, 0.0)
    upper = torch.where(
        least > 0, high / least.clamp(min=1e-300), torch.where(high > 0, math.inf, 0.0)
    )
    return lower, upper


@dataclass(frozen=True)
class PdeCertificate:
    """Bounds of |u - v|_E, u the solution of the differential equation; float64, shape batch.

    |e|_E^2 is the integral of K |grad e|^2 + c e^2, and of alpha e^2 over Robin sides.
    ``relative_lower``, ``relative_upper`` are relative to |u|_E. Of ``upper`` these are the parts,
    added as :mod:`sciml.solvers.linear.equilibrated` says: ``flux``, how far K grad v is from a
    flux in balance; ``oscillation``, what the data do within a cell or a face; ``reaction``, by
    how much v misses the balance where there is c or alpha; ``boundary``, the energy of what v
    misses on Dirichlet sides; ``algebra``, rounding. ``cells``: the share of each
    cell in the bound, (*batch, *cells). ``notes``: what is assumed. ``reason``: why ``upper`` is
    infinite, where it is; "" elsewhere.
    """

    lower: torch.Tensor
    upper: torch.Tensor
    relative_lower: torch.Tensor
    relative_upper: torch.Tensor
    flux: torch.Tensor
    oscillation: torch.Tensor
    reaction: torch.Tensor
    boundary: torch.Tensor
    algebra: torch.Tensor
    cells: torch.Tensor
    notes: tuple[str, ...] = ()
    reason: str = ""

    def __repr__(self) -> str:
        low, high = float(self.relative_lower.min()), float(self.relative_upper.max())
        count = self.lower.numel()
        return (
            f"PdeCertificate(relative error between {low:.3g} and {high:.3g} in the energy norm, "
            f"{count} sample{'' if count == 1 else 's'})"
        )

    def __str__(self) -> str:
        samples = self.lower.numel()
        which = "The" if samples == 1 else f"In each of {samples} samples the"
        head = f"{which} energy-norm distance to the solution of the differential equation is "
        if self.reason:
            return f"{head}at least {float(self.lower.min()):.3g}. {_sentence(self.reason)}"
        parts = ", ".join(
            f"{name} {float(getattr(self, name).max()):.2g}"
            for name in ("flux", "oscillation", "reaction", "boundary", "algebra")
            if float(getattr(self, name).max()) > 0
        )
        assumed = "".join(f" {_sentence(note)}" for note in self.notes)
        return (
            f"{head}between {_span(self.lower, self.upper)}, that is "
            f"{_span(100 * self.relative_lower, 100 * self.relative_upper)} % of the solution's "
            f"own norm. Upper bound: {parts}.{assumed}"
        )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _span(low: torch.Tensor, high: torch.Tensor) -> str:
    """Three digits, rounded outward."""
    ends = (float(low.min()), ROUND_FLOOR), (float(high.max()), ROUND_CEILING)
    digits = [Context(3, way).create_decimal_from_float(value) for value, way in ends]
    return " and ".join(f"{float(value):.3g}" for value in digits)
