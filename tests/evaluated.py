"""Networks whose answers are known in closed form, and a small dataset of one diffusion problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem
from sciml.core.run.serialise import dump
from sciml.datasets.distributions import GaussianField
from sciml.datasets.family import DatasetOptions, Family
from sciml.datasets.generate import generate
from sciml.operators.operator import Operator, Side, Signature
from sciml.solvers import CG, Multigrid
from sciml.solvers.solve import solve

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
SIDES = ("left", "right", "bottom", "top")
SHAPES = ((33, 33), (17, 17), (9, 9))


@dataclass(frozen=True)
class Known:
    """Options of a network that is a function of tensors."""

    function: Callable[[Tensor], Tensor]
    kind: str = "known"

    def build(self, signature: Signature) -> nn.Module:
        return Network(self.function)


class Network(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


def operator(
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...] = (17, 17),
    inputs: tuple[str, ...] = ("a",),
    outputs: tuple[str, ...] = ("u",),
    box: Box | None = None,
    side: Side = "dirichlet",
) -> Operator:
    box = box or Box((0.0,) * len(shape), (1.0,) * len(shape))
    signature = Signature(inputs, outputs, Grid(shape, domain=box), (side,) * len(shape))
    return Operator.build(Known(function), signature)


def family(shapes: tuple[tuple[int, ...], ...] = SHAPES, count: int = 4) -> Family:
    """Diffusion with a smooth random coefficient, and zero on the boundary."""
    field = GaussianField(alpha=5.0, tau=3.0, through="2 + tanh(20*a)")
    zero = Condition(dirichlet=0.0)
    problem = Problem(SQUARE, Equation(K=field, f=1.0), dict.fromkeys(SIDES, zero))
    options = DatasetOptions(
        "smooth", {"a": "problem.equation.K"}, shapes, {"train": 2, "test": count}
    )
    solver = CG(preconditioner=Multigrid(), rtol=1e-10)
    return Family(problem, Grid((65, 65)), solver, options)


def stored(folder: Path) -> Path:
    """The dataset of ``family``, solved on 65 x 65 nodes."""
    generate(family(), folder, spec=dump(family()), versions={})
    return folder


def solving(z: Tensor) -> Tensor:
    """The discrete solution on whatever grid z has: an operator without an error of its own."""
    given = family()
    problem = given.problems({"problem.equation.K": z[:, 0].double()})
    on = Grid(tuple(z.shape[2:]))
    return solve(problem, CG(preconditioner=Multigrid(), rtol=1e-10), on=on).value[:, None].float()
