"""Latent spectral models against their formulas and their authors' figures."""

from __future__ import annotations

import math

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators.lsm import LSM, SpectralBlock, attend, fitting_scales
from sciml.operators.operator import Operator, Signature

SMALL = LSM(width=4, scales=3, basis=3, tokens=2, heads=2)


def signature(shape: tuple[int, ...]) -> Signature:
    d = len(shape)
    grid = Grid(shape, domain=Box((0.0,) * d, (1.0,) * d))
    return Signature(("a",), ("u",), grid, ("dirichlet",) * d)


@pytest.mark.parametrize(
    ("shape", "patch"),
    # The authors' Darcy, Navier-Stokes, pipe, airfoil and interpolated elasticity.
    [
        ((85, 85), (6, 6)),
        ((64, 64), (4, 4)),
        ((129, 129), (9, 9)),
        ((221, 51), (14, 4)),
        ((41, 41), (3, 3)),
    ],
)
def test_patches_are_those_of_the_authors(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = LSM().build(signature(shape))
    assert network.patch == patch
    assert network.coarsening == 16


def test_parameters_are_those_of_the_authors() -> None:
    with torch.device("meta"):
        network = LSM().build(signature((85, 85)))
    assert sum(p.numel() for p in network.parameters()) == 19_187_457


@pytest.mark.parametrize(("n", "scales"), [(3, 1), (5, 2), (9, 3), (29, 4), (31, 4), (33, 5)])
def test_scales_fit_the_grid(n: int, scales: int) -> None:
    assert fitting_scales((n, 100), 5) == scales
    assert fitting_scales((100, n), 2) == min(scales, 2)


def test_attention_is_softmax_attention_without_scaling() -> None:
    q, k, v = (torch.randn(3, 2, n, 4) for n in (5, 7, 7))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)
    assert torch.allclose(attend(q, k, v), exact, atol=1e-6)


def block_on_points(block: SpectralBlock, points: torch.Tensor) -> torch.Tensor:
    """The docstring's formulas for one patch, head by head; ``points (L, width)``."""
    found = []
    heads, _, c = block.query.shape
    for h in range(heads):
        own = slice(h * c, (h + 1) * c)
        encoded = block.encode(points)[:, 2 * h * c : 2 * (h + 1) * c]
        keys, values = encoded[:, :c], encoded[:, c:]
        q = block.query[h]
        t = q + torch.softmax(q @ keys.T, -1) @ values
        sum_ = torch.zeros_like(t)
        for m in range(block.basis):
            angle = math.pi * m / block.basis * t
            sum_ = sum_ + block.weights[h, :, m] * angle.sin()
            sum_ = sum_ + block.weights[h, :, block.basis + m] * angle.cos()
        t = t + sum_
        found.append(torch.softmax(block.decode(points)[:, own] @ t.T, -1) @ t)
    return points + torch.cat(found, -1)


@pytest.mark.parametrize("patch", [(3,), (3, 2), (2, 3, 4)])
def test_block_is_the_formula_in_every_patch(patch: tuple[int, ...]) -> None:
    block = SpectralBlock(4, patch, SMALL).double()
    counts = (2, 3, 2)[: len(patch)]
    v = torch.randn(2, 4, *(p * c for p, c in zip(patch, counts, strict=True))).double()
    found = block(v)
    for corner in torch.cartesian_prod(*(torch.arange(c) for c in counts)).view(-1, len(patch)):
        starts = zip(corner.tolist(), patch, strict=True)
        window = (slice(None), *(slice(i * p, (i + 1) * p) for i, p in starts))
        for sample in range(2):
            points = v[sample][window].flatten(1).T
            exact = block_on_points(block, points).T.view(4, *patch)
            assert torch.allclose(found[sample][window], exact, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (14,), (3, 3), (13, 10), (9, 12), (6, 5, 7)])
def test_any_grid_and_a_gradient_for_every_parameter(shape: tuple[int, ...]) -> None:
    operator = Operator.build(SMALL, signature(shape))
    for grown in (0, 1, 8):
        x = torch.randn(2, 1, *(n + grown for n in shape))
        assert operator(x).shape == x.shape
    operator(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in operator.parameters())


def test_samples_do_not_meet_when_evaluated() -> None:
    operator = Operator.build(SMALL, signature((11, 9))).eval()
    x = torch.randn(3, 1, 11, 9)
    alone = torch.cat([operator(x[i : i + 1]) for i in range(3)])
    assert torch.allclose(operator(x), alone, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"width": 0}, "operator.width"),
        ({"width": 20}, "operator.width"),
        ({"scales": 0}, "operator.scales"),
        ({"basis": 0}, "operator.basis"),
        ({"tokens": 0}, "operator.tokens"),
        ({"heads": 0}, "operator.heads"),
    ],
)
def test_bad_options_are_refused(options: dict[str, int], key: str) -> None:
    with pytest.raises(InputError) as error:
        LSM(**options)
    assert error.value.key == key
