"""MgNO: the published networks, linear cycles, and what their parts can be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import MgNO, Operator, Signature
from sciml.operators.convolution import coarse_shapes
from sciml.operators.mgno import Cycle, Smoothing


def signature(n: int, side: Any = "dirichlet", dimension: int = 2) -> Signature:
    box = Box((0.0,) * dimension, (1.0,) * dimension)
    return Signature(("a",), ("u",), Grid((n,) * dimension, domain=box), (side,) * dimension)


@pytest.mark.parametrize(
    ("n", "layers", "published"), [(211, 5, 678_093), (256, 4, 572_661)], ids=["smooth", "rough"]
)
def test_networks_have_the_published_numbers_of_parameters(n, layers, published) -> None:
    operator = Operator.build(MgNO(width=24, layers=layers), signature(n))
    assert operator.network.levels == 6
    assert sum(p.numel() for p in operator.parameters()) == published


@pytest.mark.parametrize(
    ("n", "levels"), [(3, 1), (7, 2), (29, 4), (64, 5), (85, 5), (211, 6), (1023, 6)]
)
def test_levels_follow_from_the_grid(n, levels) -> None:
    assert Operator.build(MgNO(width=1, layers=1), signature(n)).network.levels == levels


@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_cycles_are_linear(dimension, side) -> None:
    one = signature(11, side, dimension)
    cycle = Cycle(one, 2, 5, coarse_shapes(one.opened, 3)).double()
    f, g = torch.randn(2, 1, 2, *one.opened, dtype=torch.float64)
    torch.testing.assert_close(cycle(2 * f - 3 * g), 2 * cycle(f) - 3 * cycle(g))
    assert torch.equal(cycle(0 * f), torch.zeros(1, 5, *one.opened, dtype=torch.float64))


def test_a_step_of_smoothing_can_be_damped_jacobi() -> None:
    """A the five-point Laplacian and S = omega / 4: the error shrinks by known factors."""
    n, omega = 9, 0.8
    smooth = Smoothing(signature(n), 1, 1).double()
    laplace = torch.tensor([[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=torch.float64)
    with torch.no_grad():
        smooth.A.weight.copy_(laplace[None, None])
        smooth.S.weight.zero_()[..., 1, 1] = omega / 4
    i = torch.arange(1, n + 1, dtype=torch.float64)
    for k in (1, 4, 9):
        theta = torch.pi * k / (n + 1)
        mode = torch.outer(torch.sin(theta * i), torch.sin(theta * i))[None, None]
        factor = 1 - omega * (1 - torch.cos(torch.tensor(theta, dtype=torch.float64)))
        torch.testing.assert_close(smooth(mode, torch.zeros_like(mode)), factor * mode)


def test_the_whole_domain_is_seen_from_every_point() -> None:
    """One cycle carries a point's value everywhere once its coarsest kernels span the grid."""
    one = signature(29)
    cycle = Cycle(one, 1, 4, coarse_shapes(one.opened, None)).double()
    f = torch.zeros(1, 1, 29, 29, dtype=torch.float64)
    f[..., 0, 0] = 1
    assert bool((cycle(f)[0].abs().sum(0) > 0).all())


@pytest.mark.parametrize(
    ("options", "key"),
    [({"width": 0}, "width"), ({"layers": 0}, "layers"), ({"levels": 0}, "levels")],
)
def test_options_out_of_range_are_refused(options, key) -> None:
    with pytest.raises(InputError, match=f"{key} must be at least 1") as caught:
        MgNO(**options)
    assert caught.value.key == f"operator.{key}"


def test_grids_too_small_for_the_levels_are_refused() -> None:
    with pytest.raises(InputError, match="5 levels need at least 17 points"):
        MgNO(levels=5).build(signature(16))
    operator = Operator.build(MgNO(width=2, layers=1, levels=4), signature(17))
    with pytest.raises(InputError, match="at least 9 points per axis; the grid has 20 x 8"):
        operator(torch.zeros(1, 1, 20, 8))
