"""Fluxes that are in balance with the source in every cell, from a solution by finite volumes.

On a grid of cells the flux of the scheme through a face is the coupling times the difference of the
two values beside it. The lowest-order Raviart-Thomas function with these normal fluxes lies in
H(div), and its divergence is, cell by cell, what A u - b = 0 says: c u - f on the mean. What an
iteration has left of b - A u is carried to a side that lets it out, axis by axis, by sums along
rows, so that the balance holds to rounding however early the iteration stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import is_array
from sciml.discretization.volumes import boundary
from sciml.discretization.volumes.assemble import Assembly, assemble, discretize
from sciml.discretization.volumes.averages import may_jump
from sciml.discretization.volumes.coefficients import Data, data, evaluate
from sciml.discretization.volumes.layout import Layout, at_end, layout

End = tuple[int, int]


@dataclass(frozen=True)
class Cells:
    """A problem's data anywhere in the cells of a grid, by the place relative to each of them."""

    problem: Problem
    info: Data

    @property
    def layout(self) -> Layout:
        """Of the cells."""
        return self.info.layout

    def inside(self, coefficient: Any, key: str, place: Sequence[float]) -> torch.Tensor:
        """A coefficient at ``place``, in [0, 1] along each axis, of every cell; sizes of 1 stay.

        An array with a value for each cell is constant in it.
        """
        points = self.info.own if self.by_cell(coefficient) else self.points(place)
        return evaluate(coefficient, points, self.info, key)

    def by_cell(self, coefficient: Any) -> bool:
        """Whether it is an array with a value for each cell."""
        return is_array(coefficient) and (
            tuple(coefficient.shape[-self.layout.dimension :]) == self.layout.shape
        )

    def on_side(self, coefficient: Any, key: str, end: End, place: Sequence[float]) -> torch.Tensor:
        """The same on the faces of one side; ``place`` along the side's own axis is not looked at.

        The side's axis has size 1.
        """
        axis, which = end
        if self.by_cell(coefficient):
            value = evaluate(coefficient, self.info.own, self.info, key)
            return at_end(value, axis, self.layout.dimension, which)
        points = self.points([float(which) if k == axis else p for k, p in enumerate(place)])
        here = tuple(
            at_end(p, axis, self.layout.dimension, which) if k == axis else p
            for k, p in enumerate(points)
        )
        return evaluate(coefficient, here, boundary.outward(self.info, axis, which), key)

    def points(self, place: Sequence[float]) -> tuple[torch.Tensor, ...]:
        """The coordinates of ``place`` in every cell; they broadcast."""
        return self.layout.points(
            {
                k: axis.edges[:-1] + share * axis.widths
                for k, (axis, share) in enumerate(zip(self.layout.axes, place, strict=True))
            }
        )

    def jumps(self, coefficient: Any, key: str) -> bool:
        """Whether a coefficient may jump."""
        return may_jump(coefficient, self.info, key)


def cells_of(problem: Problem, on: Grid) -> Cells:
    """The data of a problem in the cells of a bound grid of cells, in float64 on the CPU."""
    lay = layout(problem, on, torch.float64, "cpu")
    return Cells(problem, data(problem, lay, torch.float64, torch.device("cpu")))


@dataclass(frozen=True)
class Equilibrium:
    """The scheme's system on cells, and the fluxes of its solutions."""

    system: LinearSystem
    parts: Assembly

    def fluxes(self, u: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Per axis the integral of K du/dx over the faces 0 .. m, in balance to rounding.

        ``u``: unknowns, (*batch, *cells). On Neumann sides they are the data's own.
        """
        rest = self.system.b - self.system.A.apply(u)
        lay, u = self.parts.layout, u.expand_as(rest)
        added = carried(rest, lay, self._open())
        return tuple(self._through(u, k) + t for k, t in enumerate(added))

    def _through(self, u: torch.Tensor, axis: int) -> torch.Tensor:
        """By the scheme alone."""
        lay, cross, terms = self.parts.layout, self.parts.cross, self.parts.terms
        assert cross is not None
        d = lay.dimension
        dim, coupling = axis - d, -cross[axis].diffusive
        low, high = at_end(u, axis, d, 0), at_end(u, axis, d, 1)
        wraps = lay.periodic[axis]
        padded = torch.cat([high if wraps else low, u, low if wraps else high], dim)
        q = coupling * padded.diff(dim=dim)
        for end, kind in enumerate(lay.axes[axis].ends):
            if kind == "wrap":
                continue
            if kind == "value":
                slope: Any = at_end(coupling, axis, d, end)
            else:
                slope = sum(v for a, e, v in terms.diagonal if (a, e) == (axis, end))
            given: Any = sum(v for a, e, v in terms.right if (a, e) == (axis, end))
            inward = given - slope * (high if end else low)
            at_end(q, axis, d, end).copy_(inward if end else -inward)
        return q

    def _open(self) -> dict[End, bool]:
        """Which ends of which axes let a flux out that no condition prescribes."""
        lay, terms = self.parts.layout, self.parts.terms
        held = {(a, e): bool((v > 0).all()) for a, e, v in terms.diagonal}
        return {
            (k, end): kind == "value" or held.get((k, end), False)
            for k, axis in enumerate(lay.axes)
            for end, kind in enumerate(axis.ends)
        }


def equilibrium(problem: Problem, on: Grid) -> Equilibrium:
    """A steady diffusion problem on a bound grid of cells, with its fluxes, in float64."""
    device = torch.device("cpu")
    system = discretize(problem, on, dtype=torch.float64, device=device)
    info = data(problem, layout(problem, on, torch.float64, device), torch.float64, device)
    return Equilibrium(system, assemble(problem, info))


def carried(
    rest: torch.Tensor, lay: Layout, open_ends: dict[End, bool]
) -> tuple[torch.Tensor, ...]:
    """Fluxes through the faces of every axis whose sum out of each cell is minus ``rest``.

    They leave by an end that is open; where there is none, what ``rest`` has on the mean over the
    whole box stays.
    """
    d = lay.dimension
    exits = [end for end, is_open in open_ends.items() if is_open]
    order = [*({exits[0][0]} if exits else ()), *range(d)]
    done: dict[int, torch.Tensor] = {}
    for axis in dict.fromkeys(order):
        dim = axis - d
        out = bool(exits) and axis == exits[0][0]
        mean = torch.zeros_like(rest) if out else rest.mean(dim, keepdim=True).expand_as(rest)
        here = rest - mean
        zero = here.narrow(dim, 0, 1) * 0
        if out and exits[0][1] == 0:
            t = torch.cat([here.flip(dim).cumsum(dim).flip(dim), zero], dim)
        else:
            t = torch.cat([zero, -here.cumsum(dim)], dim)
            if not out:
                t.narrow(dim, t.shape[dim] - 1, 1).zero_()
        done[axis], rest = t, mean
    return tuple(done[axis] for axis in range(d))
