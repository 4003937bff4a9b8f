"""Functions with few frequencies and their integrals, soon learnt, and runs that are stopped."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem
from sciml.core.run.training_run import TrainingRun
from sciml.datasets.distributions import GaussianField
from sciml.datasets.family import Family
from sciml.operators.operator import Signature
from sciml.solvers import CG
from sciml.training import TensorData, TrainingData, fit


def signature(n: int = 9, dimension: int = 1) -> Signature:
    box = Box((0.0,) * dimension, (1.0,) * dimension)
    return Signature(
        ("a",), ("u",), Grid((n,) * dimension, "node", box), ("dirichlet",) * dimension
    )


def samples(count: int, n: int = 9, first: int = 0, dimension: int = 1) -> TensorData:
    """u = sum_k c_k / k sin(pi k x) from a = sum_k c_k sin(pi k x), times the same along y."""
    c = torch.randn(count, 3, generator=torch.Generator().manual_seed(first))
    k = torch.arange(1, 4)
    modes = torch.sin(math.pi * k[:, None] * torch.linspace(0, 1, n))
    x, y = torch.einsum("bk,kx->bx", c, modes), torch.einsum("bk,kx->bx", c / k, modes)
    if dimension == 2:
        x, y = (v[:, :, None] * modes[0] for v in (x, y))
    return TensorData(x[:, None].contiguous(), y[:, None].contiguous())


def data(count: int = 12, n: int = 9, dimension: int = 1) -> TrainingData:
    return TrainingData(
        samples(count, n, dimension=dimension),
        samples(5, n, first=1, dimension=dimension),
        signature(n, dimension),
        name="waves",
    )


def family() -> Family:
    """Darcy flow on 9 x 9 points."""
    problem = Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        Equation(K=GaussianField(alpha=2.0, tau=3.0, through="exp(a)"), f=1.0),
        {side: Condition(dirichlet=0.0) for side in ("left", "right", "bottom", "top")},
    )
    return Family(problem, Grid((9, 9)), CG())


class Stop(Exception):
    """Raised where a run is to end."""


def stopped_after(saves: int, patch: pytest.MonkeyPatch, *call: Any) -> None:
    """Run ``fit`` until so many checkpoints are written."""
    left, save = [saves], TrainingRun.save

    def counted(run: TrainingRun) -> None:
        save(run)
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    with patch.context() as inner:
        inner.setattr(TrainingRun, "save", counted)
        with pytest.raises(Stop):
            fit(*call)
