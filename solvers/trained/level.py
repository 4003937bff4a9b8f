"""Constants that a problem leaves free, and the trained function of zero integral.

Where neither the equation nor a condition, the start or what was observed changes with u + c a, for
fixed numbers a, one a field, a training ends at any c. The answer is the one of

    int a . u dx = 0,

at every instant of a problem in time (the pressure of a flow). These a, mostly a single field, are
found by trial: every residual, all conditions taken as soft ones, at random points for random jets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.problem.grid import Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.quadrature import load, whole
from sciml.discretization.points.jet import Jet
from sciml.discretization.points.region import Boxed
from sciml.solvers.trained.conditions import extent, pieces
from sciml.solvers.trained.objective import Ansatz, Objective
from sciml.solvers.trained.sampling import gauss_legendre, sobol

_TRIED = 16  # points of every condition
_ROUNDING = 1e-10
_NODES = 24  # of Gauss' rule on either half of an axis
_TENSOR = 2  # dimensions up to which a tensor product of it is taken
_SCATTERED = 2**14  # points beyond


@torch.no_grad()
def free_constants(objective: Objective) -> Tensor:
    """The orthogonal projection (F, F) onto the constants that are free."""
    form = objective.form
    asked = {piece.name: piece for piece in objective.pieces} | {
        piece.name: piece for piece in pieces(form, hard=False, periodic_built_in=True)
    }
    count = len(form.fields)
    changes = []
    generator = torch.Generator().manual_seed(0)
    for piece in asked.values():
        cube = torch.rand(_TRIED, piece.free, generator=generator, dtype=torch.float64)
        points = piece.place(cube)
        points = piece.seen(points)
        pairs = piece.pairs
        rows = 1 + points.shape[1] + len(pairs)
        data = torch.rand(rows, len(points), count, generator=generator, dtype=torch.float64)
        before = piece.residual(points, Jet(data, points.shape[1], pairs))
        columns = []
        for k in range(count):
            raised = data.clone()
            raised[0, :, k] += 1.0
            after = piece.residual(points, Jet(raised, points.shape[1], pairs))
            columns.append(((after - before) / (1 + before.abs())).flatten())
        changes.append(torch.stack(columns, -1))
    found = torch.cat(changes)
    if not bool(torch.isfinite(found).all()):
        return torch.zeros(count, count, dtype=torch.float64)
    _, sizes, rows = torch.linalg.svd(torch.linalg.qr(found).R)
    kernel = rows[sizes <= _ROUNDING]
    projection: Tensor = kernel.T @ kernel
    return projection


@dataclass(frozen=True)
class Level:
    """A trained function without its means along the constants that are ``free``, (F, F).

    ``points`` (M, d) and ``weights`` (M,) of sum one: a quadrature over the box; ``timed``: whether
    the function's points end with the time.
    """

    ansatz: Ansatz
    free: Tensor
    points: Tensor
    weights: Tensor
    timed: bool

    @classmethod
    def of(cls, objective: Objective) -> Level:
        """That of an objective's function as it is now."""
        timed = objective.form.problem.time is not None
        lower, upper = extent(objective.form)
        region = objective.form.region
        d = len(lower) - timed
        if not isinstance(region, Boxed):
            points = region.inside(sobol(_SCATTERED, d, torch.Generator().manual_seed(0)))
            even = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
            return cls(objective.ansatz, free_constants(objective), points, even, timed)
        if d <= _TENSOR:
            halves = torch.full((d,), 0.5, dtype=torch.float64)
            cube, weights = gauss_legendre((2 * _NODES) ** d, halves)
        else:
            cube = sobol(_SCATTERED, d, torch.Generator().manual_seed(0))
            weights = torch.full((len(cube),), 1 / len(cube), dtype=torch.float64)
        points = lower[:d] + cube * (upper - lower)[:d]
        hole = objective.form.hole
        if hole is not None:
            weights = torch.where(hole.outside(points), weights, 0.0)
            weights = weights / weights.sum()
        return cls(objective.ansatz, free_constants(objective), points, weights, timed)

    def __call__(self, points: Tensor) -> Tensor:
        """u at points (N, D), (N, F), of zero integral where a constant is free."""
        found = self.ansatz(points)
        if not self.timed:
            return found - self._mean(self.points)
        if points.requires_grad or torch.compiler.is_exporting():
            # The mean has a slope in time, to be had at every point by itself.
            shape = (points.shape[0], len(self.points))
            t = points[:, -1, None, None].expand(*shape, 1)
            there = torch.cat([self.points.expand(*shape, -1), t], -1).flatten(0, 1)
            each = torch.einsum("m,nmf->nf", self.weights, self.ansatz(there).unflatten(0, shape))
            return found - each @ self.free
        instants, which = points[:, -1].unique(return_inverse=True)
        means = [self._mean(self._at(t)) for t in instants]
        return found - torch.stack(means)[which] if means else found

    @torch.no_grad()
    def value(self, points: Tensor) -> Tensor:
        """The same without a graph."""
        return self(points) if bool(self.free.any()) else self.ansatz.value(points)

    def _at(self, t: Tensor) -> Tensor:
        return torch.cat([self.points, t.expand(len(self.points), 1)], -1)

    def _mean(self, points: Tensor) -> Tensor:
        """What is free of it, (F,)."""
        return self.free @ (self.weights @ self.ansatz(points))

    def measure(self, on: Grid | Points | Mesh) -> Tensor | None:
        """The volumes of a place's points, ([F], *shape), zero of fields that are not free.

        None where there is none that is free by itself.
        """
        alone = (self.free.diagonal() > 1 - _ROUNDING).double()
        if not bool(alone.any()):
            return None
        volumes = torch.ones(on.shape, dtype=torch.float64) / self.weights.new_ones(on.shape).sum()
        if isinstance(on, Mesh):
            cells = whole(on, on.degree)
            shares = load(cells, torch.ones(1, 1, dtype=torch.float64))
            flat, each = cells.nodes.flatten(), shares.expand(cells.nodes.shape).flatten()
            volumes = torch.zeros(on.shape, dtype=torch.float64).index_add(0, flat, each)
        if isinstance(on, Grid) and on.centring == "node":
            for axis in range(len(on.shape)):
                for end in (0, -1):
                    volumes.select(axis, end).div_(2)
        several = alone.reshape(-1, *[1] * volumes.ndim) * volumes
        return several if len(alone) > 1 else several[0]

    def notes(self, fields: Sequence[str]) -> tuple[str, ...]:
        """What is said of the constants."""
        named = [name for name, row in zip(fields, self.free, strict=True) if bool(row.any())]
        if not named:
            return ()
        return (f"{', '.join(named)}: known up to a constant, by which the integral is made zero",)
