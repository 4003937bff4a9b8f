"""Convolutions at boundaries, between grids, and with kernels of a size in space."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import MgNO, Operator, Signature, UNet
from sciml.operators.convolution import (
    Convolution,
    Prolongation,
    coarse_shapes,
    resampled,
    spacing_ratio,
)

LAPLACE = torch.tensor([-1.0, 2.0, -1.0], dtype=torch.float64)
SINES = {"dirichlet": torch.sin, "neumann": torch.cos, "periodic": torch.cos}


def signature(side: str, shape: tuple[int, ...], centring: Any = "node") -> Signature:
    """A signature whose opened grid has ``shape``."""
    repeated = side == "periodic" and centring == "node"
    closed = tuple(n + repeated for n in shape)
    boundary: Any = (side,) * len(shape)
    box = Box((0.0,) * len(shape), (1.0,) * len(shape))
    return Signature(("a",), ("u",), Grid(closed, centring, box), boundary)


def with_weight(module: Any, weight: Tensor) -> Any:
    module = module.double()
    with torch.no_grad():
        module.weight.copy_(weight.expand_as(module.weight))
    return module


def phase(side: str, centring: str, n: int) -> Tensor:
    """pi x with x from 0 to 1 between the points where the side's eigenfunctions start and end."""
    i = torch.arange(n, dtype=torch.float64)
    if side == "periodic":
        return 2 * math.pi * i / n
    if side == "dirichlet":
        return math.pi * (i + 1) / (n + 1)
    return math.pi * (i / (n - 1) if centring == "node" else (i + 0.5) / n)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("n", [8, 9])
@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
def test_second_differences_have_the_eigenfunctions_of_the_boundary(side, centring, n, k) -> None:
    second = with_weight(Convolution(signature(side, (n,), centring), 1, 1), LAPLACE)
    theta = phase(side, centring, n)
    u = SINES[side](k * theta)[None, None]
    eigenvalue = 2 - 2 * math.cos(k * float(theta[1] - theta[0]))
    torch.testing.assert_close(second(u), eigenvalue * u, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(7,), (6, 9), (4, 5, 6)])
@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
def test_stride_two_keeps_every_second_point(side, shape) -> None:
    one = signature(side, shape)
    full, half = Convolution(one, 2, 3), Convolution(one, 2, 3, stride=2)
    half.load_state_dict(full.state_dict())
    x = torch.randn(2, 2, *shape)
    every = (slice(None), slice(None), *(slice(None, None, 2),) * len(shape))
    torch.testing.assert_close(half(x), full(x)[every], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [8, 9, 14, 15])
@pytest.mark.parametrize("trained", [8, 9])
@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
def test_prolongation_is_the_adjoint_sum_over_coarse_points(side, trained, n) -> None:
    """y_i = sum_j w_{i - 2 j} x_j, with x continued beyond its ends as the boundary says."""
    coarse = -(-n // 2)
    prolong = Prolongation(signature(side, (trained,)), 1, 1, (trained,)).double()
    x = torch.randn(coarse, dtype=torch.float64)
    weight = prolong.weight[0, 0]
    assert len(weight) == (4 if trained % 2 == 0 else 3)
    y = torch.zeros(n, dtype=torch.float64)
    for i, j in itertools.product(range(n), range(-1, coarse + 1)):
        inside = 0 <= j < coarse
        if side == "dirichlet" and not inside:
            continue
        mirrored = j % coarse if side == "periodic" else coarse - 1 - abs(coarse - 1 - abs(j))
        if 0 <= i - 2 * j + 1 < len(weight):
            y[i] += weight[i - 2 * j + 1] * x[mirrored]
    torch.testing.assert_close(prolong(x[None, None], (n,))[0, 0], y)


def test_linear_interpolation_is_a_prolongation() -> None:
    weight = torch.tensor([0.5, 1.0, 0.5], dtype=torch.float64)
    prolong = with_weight(
        Prolongation(signature("neumann", (9, 9)), 1, 1, (9, 9)), torch.outer(weight, weight)
    )
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    expected = functional.interpolate(x, (9, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(prolong(x, (9, 9)), expected)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("size", [3, 4])
def test_resampled_kernels_keep_their_sum_and_on_grids_that_match_their_moment(ratio, size) -> None:
    weight = torch.randn(2, 3, size, size, dtype=torch.float64)
    kernel = resampled(weight, (ratio, 1.0))
    assert kernel.shape[3] == size
    torch.testing.assert_close(kernel.sum((2, 3)), weight.sum((2, 3)))
    if ratio == 1:
        assert torch.equal(kernel, weight)
    if (1 / ratio).is_integer() or ratio >= 1:
        width = max(ratio, 1.0)
        left = math.ceil((1 + width) / ratio - 1e-9) - 1
        place = (torch.arange(kernel.shape[2], dtype=torch.float64) - left) * ratio
        trained = torch.arange(size, dtype=torch.float64) - 1
        torch.testing.assert_close(
            torch.einsum("oixy,x->oiy", kernel, place),
            torch.einsum("oixy,x->oiy", weight, trained),
        )


def test_physical_kernels_converge_with_second_order() -> None:
    """Where the grid is refined the sum is a quadrature of one integral, at the same points."""
    convolve = Convolution(signature("periodic", (16,)), 1, 1).double()
    values = []
    for refinement in (1, 2, 4, 8, 16):
        n = 16 * refinement
        x = torch.exp(torch.sin(2 * math.pi * torch.arange(n, dtype=torch.float64) / n))
        ratio = spacing_ratio(convolve.signature, (n,), "physical")
        values.append(convolve(x[None, None], ratio)[0, 0, ::refinement].detach())
    steps = [(a - b).norm().item() for a, b in itertools.pairwise(values)]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(steps)]
    assert orders[-1] == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("side", ["dirichlet", "neumann", "periodic"])
@pytest.mark.parametrize("architecture", [MgNO, UNet])
def test_readings_of_a_kernel_differ_on_other_grids_only(architecture, side) -> None:
    shape = (16, 16) if side == "periodic" else (17, 17)
    one = signature(side, shape)
    options: Any = {"width": 4, "levels": 3}
    pixels, physical = (
        Operator.build(architecture(kernel=kernel, **options), one)
        for kernel in ("pixels", "physical")
    )
    x = one.close(torch.randn(1, 1, *shape))
    assert torch.equal(pixels(x), physical(x))
    fine = one.close(torch.randn(1, 1, *(2 * n - n % 2 for n in shape)))
    assert fine.shape == physical(fine).shape
    assert not torch.allclose(pixels(fine), physical(fine))


@pytest.mark.parametrize("architecture", [MgNO, UNet])
def test_physical_networks_change_less_with_the_grid(architecture) -> None:
    one = signature("periodic", (16, 16))
    drift = {}
    for kernel in ("pixels", "physical"):
        options = architecture(width=4, levels=2, kernel=kernel)
        operator = Operator.build(options, one).double()

        def answer(n: int, operator: Operator = operator) -> Tensor:
            x, y = torch.meshgrid(*2 * [torch.arange(n + 1) / n], indexing="ij")
            a = torch.sin(2 * math.pi * x) * torch.cos(2 * math.pi * y)
            return operator(a.double()[None, None])[..., :: n // 16, :: n // 16].detach()

        drift[kernel] = float((answer(32) - answer(64)).norm() / answer(64).norm())
    assert drift["physical"] < 0.3 * drift["pixels"]


def test_grids_and_kernels_that_cannot_be_are_refused() -> None:
    assert coarse_shapes((29, 30), None) == [(29, 30), (15, 15), (8, 8), (4, 4)]
    assert coarse_shapes((5,), 1) == [(5,)]
    assert coarse_shapes((5,), 3) == [(5,), (3,), (2,)]
    with pytest.raises(InputError, match="at least 9 points per axis; the grid has 20 x 8"):
        coarse_shapes((20, 8), 4)
    with pytest.raises(InputError, match="'pixels' or 'physical'") as caught:
        MgNO(kernel="metres")  # type: ignore[arg-type]
    assert caught.value.key == "operator.kernel"
