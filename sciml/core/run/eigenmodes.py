"""Modes, with the evidence for them, and their file.

``modes.h5``: ``values`` (*batch, count), ``residuals``, ``bounds`` (*batch, count, 2),
``multiplicities``, ``fields`` (*batch, count, [components], *place), float64, with the grid or mesh
as in ``solution.h5``, sealed by a hash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from sciml.core.run.labels import Label
from sciml.core.run.status import Status

if TYPE_CHECKING:
    from sciml.core.problem.grid import Grid
    from sciml.core.problem.mesh import Mesh
    from sciml.core.problem.problem import Problem

NEAR = 1e-3  # relative: values nearer to each other may be one that the grid or mesh splits


@dataclass(frozen=True)
class Eigenmodes:
    """The lowest eigenvalues of ``A u = lambda M u``, ascending, and their modes.

    ``values`` (*batch, count); ``fields`` (*batch, count, [components], *place) on the place,
    M-orthonormal, the entry largest in size positive; NaN inside obstacles. ``residuals``
    (*batch, count): |A u - lambda M u| in M^-1's norm, in the unit of lambda: an eigenvalue lies
    that near. ``bounds`` (*batch, count, 2): between which the discrete problem's own eigenvalue
    lies; NaN where no lower one is certain. ``multiplicities`` (*batch, count): how many of these
    eigenvalues, itself included, its bounds do not tell it from. ``counted`` (*batch): whether all
    that lie below the bounds' end were counted; where not, the lower bounds rest on none having
    been missed. ``iterations``: shape batch. ``names``: those of the components. ``oscillates``:
    whether lambda is a squared angular frequency.
    """

    values: torch.Tensor
    fields: torch.Tensor
    residuals: torch.Tensor
    bounds: torch.Tensor
    multiplicities: torch.Tensor
    counted: torch.Tensor
    iterations: torch.Tensor
    statuses: tuple[Status, ...]
    on: Grid | Mesh
    names: tuple[str, ...] = ("u",)
    oscillates: bool = False
    notes: tuple[str, ...] = ()
    problem: Problem | None = field(default=None, repr=False, compare=False)
    labels: Mapping[str, Label] = field(default_factory=dict, repr=False)
    seconds: float = field(default=0.0, compare=False)

    def __repr__(self) -> str:
        shown = ", ".join(f"{v:.6g}" for v in self.values.detach().flatten()[:6].tolist())
        more = ", ..." if self.values.numel() > 6 else ""
        return f"Eigenmodes({self.status.name.lower()}, values {shown}{more})"

    @property
    def status(self) -> Status:
        """The first that is not a success, or CONVERGED."""
        return next((s for s in self.statuses if not s.success), Status.CONVERGED)

    @property
    def frequencies(self) -> torch.Tensor | None:
        """sqrt(lambda) / 2 pi where lambda is a squared angular frequency, else None."""
        if not self.oscillates:
            return None
        return self.values.clamp(min=0.0).sqrt() / (2 * math.pi)

    @property
    def groups(self) -> torch.Tensor:
        """(*batch, count): how many values lie in one row with steps below 1e-3 of them.

        A multiple eigenvalue that a mesh splits is such a row; so are two that differ by little.
        """
        values = self.values.detach()
        scale = values.abs().maximum(values.abs().amax(-1, keepdim=True) * 1e-12)
        near = values.diff(dim=-1) <= NEAR * scale[..., 1:]
        return rows_of(near)


def rows_of(joined: torch.Tensor) -> torch.Tensor:
    """How long the row is that each of n entries stands in, from bool (*batch, n - 1)."""
    flat = joined.reshape(math.prod(joined.shape[:-1]), joined.shape[-1])
    lengths = torch.ones(len(flat), flat.shape[-1] + 1, dtype=torch.int64)
    for row, links in zip(lengths, flat.tolist(), strict=True):
        start = 0
        for k, link in enumerate([*links, False]):
            if not link:
                row[start : k + 1] = k + 1 - start
                start = k + 1
    return lengths.reshape(*joined.shape[:-1], joined.shape[-1] + 1)
