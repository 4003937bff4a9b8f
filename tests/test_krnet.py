"""The density on a box: invertible, exact, of mass one, and able to learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.solvers.trained.adversarial import KRnet, QuadraticDistribution

LOWER, UPPER = (-1.0, 0.5, -3.0, 2.0, 0.0), (2.0, 1.0, 4.0, 2.5, 1.0)


def net(dimension: int, layers: int = 4, spread: float = 0.3, bins: int = 8) -> KRnet:
    """With random parameters, far from the identity."""
    generator = torch.Generator().manual_seed(dimension)
    low, high = torch.tensor(LOWER[:dimension]), torch.tensor(UPPER[:dimension])
    density = KRnet(low, high, layers, 8, bins)
    with torch.no_grad():
        for p in density.parameters():
            drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            p.copy_(spread * drawn)
    return density


def inside(density: KRnet, count: int) -> Tensor:
    cube = torch.rand(
        count, len(density.lower), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return density.lower + cube * (density.upper - density.lower)


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_it_is_invertible_both_ways(dimension: int) -> None:
    density = net(dimension)
    x = inside(density, 500)
    z = density(x)[0].detach()
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1
    assert float((density.inverse(z) - x).abs().max()) < 1e-10
    cube = torch.rand(500, dimension, dtype=torch.float64)
    assert float((density(density.inverse(cube))[0].detach() - cube).abs().max()) < 1e-10
    assert float((z - (x - density.lower) / (density.upper - density.lower)).abs().max()) > 0.02


@pytest.mark.parametrize("dimension", [1, 2, 3, 5])
def test_the_density_is_the_determinant_of_the_map(dimension: int) -> None:
    density = net(dimension)
    x = inside(density, 20)
    rows = torch.autograd.functional.jacobian(lambda y: density(y)[0].sum(0), x)
    found = torch.linalg.det(rows.movedim(1, 0))
    assert torch.allclose(found, density.log_density(x).exp(), rtol=1e-9)


@pytest.mark.parametrize(("dimension", "nodes"), [(1, 4001), (2, 201)])
def test_it_integrates_to_one(dimension: int, nodes: int) -> None:
    density = net(dimension, spread=0.2)
    ticks = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    cube = torch.cartesian_prod(*[ticks] * dimension).view(-1, dimension)
    x = density.lower + cube * (density.upper - density.lower)
    volume = float((density.upper - density.lower).prod())
    with torch.no_grad():
        total = density.log_density(x).exp().mean() * volume
    assert float(total) == pytest.approx(1, abs=1e-3)


def test_sides_go_to_sides() -> None:
    density = net(2)
    corners = torch.cartesian_prod(*torch.stack([density.lower, density.upper], 1))
    expected = (corners - density.lower) / (density.upper - density.lower)
    assert torch.allclose(density(corners)[0], expected, atol=1e-12)
    assert torch.allclose(density.inverse(expected), corners, atol=1e-12)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_untrained_it_is_uniform(dimension: int) -> None:
    density = KRnet(torch.tensor(LOWER[:dimension]), torch.tensor(UPPER[:dimension]), 2)
    volume = float((density.upper - density.lower).prod())
    found = density.log_density(inside(density, 50)).exp() * volume
    assert torch.allclose(found, torch.ones(50, dtype=torch.float64))


def test_distribution_functions_are_what_they_say() -> None:
    """F' = g by differences, g linear between edges, F from 0 to 1."""
    raw = torch.randn(
        1, 3, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).expand(400, -1, -1)
    law = QuadraticDistribution.of(raw)
    s = torch.linspace(0.0, 1.0, 400, dtype=torch.float64)[:, None].expand(-1, 3)
    step = 1e-6
    inner = s.clamp(step, 1 - step)
    slope = (law(inner + step)[0] - law(inner - step)[0]) / (2 * step)
    assert torch.allclose(slope, law(inner)[1].exp(), atol=1e-4)
    assert torch.allclose(law(s)[0][[0, -1]], torch.tensor([[0.0], [1.0]]).double().expand(2, 3))
    middle = (law.edges[:1, :, 1:] + law.edges[:1, :, :-1]) / 2
    at = QuadraticDistribution.of(raw[:1].expand(8, -1, -1))(middle[0].T)[1].exp()
    expected = (law.heights[0, :, 1:] + law.heights[0, :, :-1]).T / 2
    assert torch.allclose(at, expected)


def test_a_fit_to_samples_lowers_the_divergence() -> None:
    """KL(p* | p) of a truncated bell beside a corner, from the uniform density."""
    generator = torch.Generator().manual_seed(0)
    centre, width = torch.tensor([0.7, 0.2], dtype=torch.float64), 0.08
    density = KRnet(torch.zeros(2), torch.ones(2), 2, 8, 16)
    adam = torch.optim.Adam(density.parameters(), 0.04)

    def draw(count: int) -> Tensor:
        x = centre + width * torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return x[((x > 0) & (x < 1)).all(1)]

    for _ in range(50):
        adam.zero_grad()
        (-density.log_density(draw(200)).mean()).backward()
        adam.step()
    x = draw(4000)
    with torch.no_grad():
        exact = (
            -((x - centre) / width).square().sum(1) / 2
            - torch.tensor(2 * torch.pi * width**2, dtype=torch.float64).log()
        )
        before = float(exact.mean())
        after = float((exact - density.log_density(x)).mean())
    assert before > 2
    assert after < 0.1 * before


@pytest.mark.parametrize(("low", "high"), [((0.0, 0.0), (1.0, float("inf"))), ((1.0,), (1.0,))])
def test_it_needs_a_bounded_domain(low: tuple[float, ...], high: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="bounded"):
        KRnet(torch.tensor(low), torch.tensor(high))
