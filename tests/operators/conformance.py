"""What every neural operator must do, whatever its architecture; used by test_conformance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sciml import operators
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Operator, Signature

SMALL: dict[str, Any] = {
    "MgNO": operators.MgNO(width=6, layers=2),
    "UNet": operators.UNet(width=4, levels=3),
    "FNO": operators.FNO(width=6, modes=3, layers=2),
    "LSM": operators.LSM(width=8, scales=2, basis=3, tokens=2, heads=2),
    "DeepONet": operators.DeepONet(modes=6, branch=(12,), trunk=(12,)),
    "PODDeepONet": operators.PODDeepONet(modes=4, branch=(12,)),
    "Kernel": operators.Kernel(modes=6, samples=9),
}


@dataclass(frozen=True)
class Case:
    """One architecture on one kind of grid."""

    name: str
    shape: tuple[int, ...]
    boundary: str = "dirichlet"
    centring: Any = "node"

    def signature(self) -> Signature:
        lower, upper = (-0.5,) * len(self.shape), (1.0, 2.0, 0.5)[: len(self.shape)]
        grid = Grid(self.shape, self.centring, Box(lower, upper))
        boundary: Any = (self.boundary,) * len(self.shape)
        return Signature(("a", "f"), ("u", "v"), grid, boundary)

    def operator(self, seed: int = 0) -> Operator:
        """A prepared operator in eval mode, without dropout or running statistics of its own."""
        operator = Operator.build(SMALL[self.name], self.signature(), seed=seed)
        x = self.samples(9, seed=1)
        operator.prepare(x, 3 + 2 * x.flip(1).cumsum(-1))
        return operator.eval()

    def samples(self, count: int, shape: tuple[int, ...] = (), seed: int = 0) -> Tensor:
        """Random inputs (count, 2, *grid), periodic where the signature is."""
        generator = torch.Generator().manual_seed(seed)
        signature = self.signature()
        closed = shape or self.shape
        opened = (n - r for n, r in zip(closed, signature.repeated, strict=True))
        return signature.close(torch.randn(count, 2, *opened, generator=generator))
