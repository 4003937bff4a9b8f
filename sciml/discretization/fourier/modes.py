"""The Fourier modes of a grid that is periodic along all axes.

On m points of an axis of length l a real function is sum_j U_j exp(i k_j x), k_j = 2 pi j / l. Of
products of two functions the modes j and j +- m fall together on the grid (aliasing). Where only
the modes 3 |j| < m take part, those of a product reach to 2 m / 3 and fall onto modes that are then
cut: quadratic terms are exact (the 2/3 rule, Orszag 1971); of higher powers a part is left.

The mode j = m / 2 of an even m has no sign, so that odd derivatives of it are zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization.volumes.layout import lie_along


@dataclass(frozen=True)
class Fourier:
    """Values (*batch, *shape), float64, and coefficients (*batch, *modes), complex128.

    ``grid``: as the user gave it; on node grids the last node of an axis is its first, so that
    ``shape`` is one less. ``k``: per axis the wavenumbers that odd derivatives see; ``squares``:
    per axis k^2, the unpaired mode included; both broadcast to ``modes``. ``kept``: 1.0 for the
    modes of the 2/3 rule, else 0.0.
    """

    grid: Grid
    shape: tuple[int, ...]
    k: tuple[torch.Tensor, ...]
    squares: tuple[torch.Tensor, ...]
    kept: torch.Tensor
    device: torch.device

    @property
    def dimension(self) -> int:
        """Number of space dimensions d."""
        return len(self.shape)

    @property
    def modes(self) -> tuple[int, ...]:
        """The coefficients' axes: the last holds only modes that are not conjugate to another."""
        return (*self.shape[:-1], self.shape[-1] // 2 + 1)

    @property
    def points(self) -> tuple[torch.Tensor, ...]:
        """Coordinates of the unknowns, one tensor per axis; they broadcast to ``shape``."""
        return tuple(
            lie_along(axis[:n].to(self.device), i, self.dimension)
            for i, (axis, n) in enumerate(zip(self.grid.axes(), self.shape, strict=True))
        )

    @property
    def laplacian(self) -> torch.Tensor:
        """The symbol of the Laplacian, -|k|^2, of shape ``modes``."""
        return -sum(self.squares[1:], start=self.squares[0])

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Values to coefficients, normalised by the number of points."""
        # Of a value that is expanded MKL says "inconsistent configuration" up to torch 2.7.
        found: torch.Tensor = torch.fft.rfftn(value.contiguous(), dim=self._axes, norm="forward")
        return found

    def backward(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Coefficients to values."""
        s, dim = self.shape, self._axes
        found: torch.Tensor = torch.fft.irfftn(coefficients, s=s, dim=dim, norm="forward")
        return found

    def restrict(self, value: torch.Tensor) -> torch.Tensor:
        """Of a value on the grid, (*batch, *grid.shape), that at the unknowns."""
        for i, n in enumerate(self.shape):
            value = value.narrow(i - self.dimension, 0, n)
        return value.to(self.device, torch.float64)

    def lift(self, value: torch.Tensor) -> torch.Tensor:
        """Values at the unknowns on the whole grid: the first node is repeated as the last."""
        for i, n in enumerate(self.grid.shape):
            dim = i - self.dimension
            if n > value.shape[dim]:
                value = torch.cat([value, value.narrow(dim, 0, 1)], dim=dim)
        return value

    def tail(self, coefficients: torch.Tensor, limited: bool, rest: torch.Tensor) -> torch.Tensor:
        """Norm of the highest third of the modes relative to all but the mean; shape batch.

        ``limited``: of those that the 2/3 rule keeps, and all beyond; zero for a constant.
        ``rest``, which broadcasts to batch: a norm below which a field is at rest, and what is in
        its modes is rounding.
        """
        reach = 2 / 3 if limited else 1.0
        high = torch.zeros(self.modes, dtype=torch.bool, device=self.device)
        for squared in self.squares:
            high = high | (squared > (2 / 3 * reach) ** 2 * squared.max())
        energy = coefficients.abs().square() * self._multiplicity
        total = energy.flatten(-self.dimension).sum(-1)
        total = total - energy.flatten(-self.dimension)[..., 0]
        share = (energy * high).flatten(-self.dimension).sum(-1)
        least = rest.square().clamp_min(torch.finfo(total.dtype).tiny)
        return (share / torch.maximum(total, least)).sqrt()

    def norm(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Root mean square of the function, shape batch."""
        energy = coefficients.abs().square() * self._multiplicity
        return energy.flatten(-self.dimension).sum(-1).sqrt()

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-self.dimension, 0))

    @property
    def _multiplicity(self) -> torch.Tensor:
        """2 for modes of the last axis that stand for their conjugates too, else 1."""
        n = self.shape[-1]
        j = torch.arange(n // 2 + 1, device=self.device)
        return torch.where((j == 0) | (2 * j == n), 1.0, 2.0).to(torch.float64)


def fourier(problem: Problem, grid: Grid, device: torch.device) -> Fourier:
    """The modes of a bound grid; raises InputError for sides that are not periodic, or a hole."""
    for side, condition in problem.boundary.items():
        if condition.kind != "periodic":
            raise InputError(
                f"etdrk4 needs periodic: true on all sides; {side} is {condition.kind}",
                f"problem.boundary.{side}",
            )
    if problem.obstacle is not None:
        raise InputError(
            "etdrk4 knows no obstacles: its modes span the whole box", "problem.obstacle"
        )
    shape = tuple(n - (grid.centring == "node") for n in grid.shape)
    d = len(shape)
    lengths = [b - a for a, b in zip(grid.box.lower, grid.box.upper, strict=True)]
    k, squares = [], []
    kept = torch.ones((), dtype=torch.float64, device=device)
    for i, (n, length) in enumerate(zip(shape, lengths, strict=True)):
        j = torch.arange(n, dtype=torch.float64, device=device)
        j = torch.where(2 * j < n, j, j - n)[: n // 2 + 1 if i == d - 1 else n]
        scaled = 2 * math.pi / length * j
        k.append(lie_along(torch.where(2 * j.abs() == n, 0.0, scaled), i, d))
        squares.append(lie_along(scaled.square(), i, d))
        kept = kept * lie_along((3 * j.abs() < n).to(torch.float64), i, d)
    return Fourier(grid, shape, tuple(k), tuple(squares), kept, device)
