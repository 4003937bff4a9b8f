"""Losses: their formulas, their derivatives' orders, and what they leave out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Combined, RelativeH1, RelativeL2, Residual, Signature
from sciml.operators.losses import Weighted, _central, _spectral

ALL = [RelativeL2(), RelativeH1(), RelativeH1("spectral")]
LOWER, UPPER = (-0.5, 1.0, 0.0), (1.5, 2.0, 1.0)


def signature(
    shape: tuple[int, ...], *boundary: str, centring: str = "node", outputs: int = 1
) -> Signature:
    d = len(shape)
    grid = Grid(shape, centring, Box(LOWER[:d], UPPER[:d]))  # type: ignore[arg-type]
    names = tuple(f"u{k}" for k in range(outputs))
    return Signature(("a",), names, grid, boundary)  # type: ignore[arg-type]


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_relative_l2_is_its_formula() -> None:
    s = signature((7, 5), "dirichlet", "neumann", outputs=2)
    p, t, x = random(3, 2, 7, 5), random(3, 2, 7, 5, seed=1), random(3, 1, 7, 5)
    expected = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(p, t, strict=True)]
    assert RelativeL2().build(s)(p, t, x).tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("count", [11, 9])
def test_relative_l2_at_points_takes_them_all(count: int) -> None:
    s = signature((9,), "periodic")
    p, t, x = random(3, 1, count), random(3, 1, count, seed=1), random(3, 1, 10)
    expected = torch.linalg.vector_norm(p - t, dim=(1, 2)) / torch.linalg.vector_norm(t, dim=(1, 2))
    torch.testing.assert_close(RelativeL2().build(s)(p, t, x), expected)


def test_h1_at_points_is_refused() -> None:
    s = signature((9, 9), "dirichlet", "dirichlet")
    with pytest.raises(InputError, match="needs values on a grid, not at points"):
        RelativeH1().build(s)(random(3, 1, 20), random(3, 1, 20), random(3, 1, 9, 9))


@pytest.mark.parametrize("derivative", ["differences", "spectral"])
@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("boundary", ["dirichlet", "neumann", "periodic"])
def test_relative_h1_is_its_formula(derivative: Any, centring: str, boundary: str) -> None:
    """On an opened grid, with the derivatives of NumPy or of a Fourier matrix."""
    s = signature((8, 9), boundary, boundary, centring=centring)
    p, t = s.close(s.open(random(2, 1, 8, 9))), s.close(s.open(random(2, 1, 8, 9, seed=1)))
    loss = RelativeH1(derivative).build(s)(p, t, p)
    function = _central if derivative == "differences" else _spectral

    def norm(u: Tensor) -> np.ndarray:
        spacing = s.spacing(tuple(u.shape[2:]))
        slopes = [function(u, k, h, s).numpy() for k, h in enumerate(spacing)]
        return np.sqrt(sum((v**2).sum((1, 2, 3)) for v in (u.numpy(), *slopes)))

    expected = norm(s.open(p - t)) / norm(s.open(t))
    assert loss.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "dirichlet": (torch.exp, torch.exp),
    "neumann": (torch.sin, torch.cos),
    # periodic on every side of the box, whose lengths are 2, 1 and 1
    "periodic": (
        lambda x: torch.exp(torch.sin(2 * math.pi * x)),
        lambda x: 2 * math.pi * torch.cos(2 * math.pi * x) * torch.exp(torch.sin(2 * math.pi * x)),
    ),
}


def slope_error(function: Any, boundary: str, n: int, axis: int, d: int, centring: str) -> Tensor:
    s = signature((n,) * d, *(boundary,) * d, centring=centring)
    places = s.grid.coordinates()
    weight = sum((places[k] for k in range(d) if k != axis), start=torch.ones(()).double())
    u, slope = (f(places[axis]) * weight for f in FUNCTIONS[boundary])
    u, slope = s.open(u[None, None]), s.open(slope[None, None])
    h = s.spacing(tuple(u.shape[2:]))[axis]
    return function(u, axis, h, s) - slope


@pytest.mark.parametrize(("d", "axis"), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("boundary", FUNCTIONS)
def test_differences_are_of_second_order(boundary: str, centring: str, d: int, axis: int) -> None:
    n = 33 if d < 3 else 25
    coarse, fine = (
        float(slope_error(_central, boundary, m, axis, d, centring).abs().max())
        for m in (2 * n - 1, 4 * n - 3)
    )
    ratio = (4 * n - 4) / (2 * n - 2) if centring == "node" else (4 * n - 3) / (2 * n - 1)
    assert math.log(coarse / fine) / math.log(ratio) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("boundary", ["dirichlet", "neumann"])
@pytest.mark.parametrize("centring", ["node", "cell"])
@given(st.lists(st.floats(-3, 3), min_size=3, max_size=3), st.integers(3, 9))
@settings(max_examples=10, deadline=None)
def test_differences_are_exact_on_parabolas(
    boundary: str, centring: str, coefficients: list[float], n: int
) -> None:
    s = signature((n,), boundary, centring=centring)
    (x,) = s.grid.coordinates()
    a, b, c = coefficients
    slope = _central((a + b * x + c * x**2)[None, None], 0, s.grid.spacing[0], s)
    torch.testing.assert_close(slope[0, 0], b + 2 * c * x, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize("centring", ["node", "cell"])
def test_spectral_is_exact_on_waves(centring: str, n: int) -> None:
    s = signature((n,), "periodic", centring=centring)
    (x,) = s.grid.coordinates()
    k = math.pi * torch.arange(1.0, (n - 1) // 2, dtype=torch.float64)[:, None]  # the period is 2
    u, slope = torch.sin(k * x + 0.3), k * torch.cos(k * x + 0.3)
    found = _spectral(s.open(u[None]), 0, s.spacing((s.opened[0],))[0], s)
    torch.testing.assert_close(found, s.open(slope[None]), atol=1e-11, rtol=0)


@pytest.mark.parametrize("n", [9, 10])
def test_spectral_is_exact_on_lines_with_sines(n: int) -> None:
    """Whatever the values at the ends."""
    s = signature((n,), "dirichlet")
    (x,) = s.grid.coordinates()
    k = math.pi / 2 * torch.arange(1.0, n - 2, dtype=torch.float64)[:, None]
    u = 3 - 2 * x + torch.sin(k * (x + 0.5))
    found = _spectral(u[None], 0, s.grid.spacing[0], s)
    torch.testing.assert_close(found[0], -2 + k * torch.cos(k * (x + 0.5)), atol=1e-11, rtol=0)


def test_spectral_on_cells_is_exact_on_lines() -> None:
    s = signature((7,), "neumann", centring="cell")
    (x,) = s.grid.coordinates()
    found = _spectral((3 - 2 * x)[None, None], 0, s.grid.spacing[0], s)
    torch.testing.assert_close(found, torch.full_like(found, -2), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("boundary", "order"), [("periodic", math.inf), ("dirichlet", 1.5), ("neumann", 1.5)]
)
@pytest.mark.parametrize("centring", ["node", "cell"])
def test_spectral_order(boundary: str, order: float, centring: str) -> None:
    """In the mean square: a series with coefficients k^-3 loses what lies beyond the grid."""
    coarse, fine = (
        float(slope_error(_spectral, boundary, n, 1, 2, centring).square().mean().sqrt())
        for n in (65, 129)
    )
    if order == math.inf:
        assert max(coarse, fine) < 1e-10
    else:
        ratio = 2 if centring == "node" else 129 / 65
        assert math.log(coarse / fine) / math.log(ratio) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("boundary", ["dirichlet", "periodic"])
def test_losses_hardly_depend_on_the_resolution(loss: Any, boundary: str, centring: str) -> None:
    values = []
    for n in (64, 128):
        s = signature((n, n), boundary, boundary, centring=centring)
        x, y = s.grid.coordinates()
        t = (torch.sin(math.pi * x) * torch.cos(2 * math.pi * y))[None, None]
        p = t + 0.1 * torch.cos(math.pi * x)[None, None]
        # a signature bound to another resolution, as that of a trained operator is
        values.append(
            loss.build(signature((32, 32), boundary, boundary, centring=centring))(p, t, t)
        )
    torch.testing.assert_close(values[0], values[1], rtol=2e-2, atol=0)


@pytest.mark.parametrize("loss", ALL, ids=str)
@given(st.integers(0, 100), st.floats(1e-3, 1e3))
@settings(max_examples=10, deadline=None)
def test_losses_are_relative_distances(loss: Any, seed: int, factor: float) -> None:
    s = signature((6, 7), "periodic", "dirichlet")
    p, q, t = (s.close(s.open(random(2, 1, 6, 7, seed=3 * seed + k))) for k in range(3))
    distance = loss.build(s)
    assert (distance(t, t, t) == 0).all()
    torch.testing.assert_close(distance(0 * t, t, t), torch.ones(2).double())
    torch.testing.assert_close(distance(factor * p, factor * t, t), distance(p, t, t))
    # the triangle: |p - t| <= |p - q| + |q - t|, all measured by |t|
    between = distance(p - q + t, t, t)
    assert (distance(p, t, t) <= between + distance(q, t, t) + 1e-12).all()


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_repeated_points_of_periodic_axes_do_not_count(loss: Any) -> None:
    s = signature((9, 7), "periodic", "neumann")
    t = s.close(s.open(random(2, 1, 9, 7)))
    p = t.clone()
    p[:, :, -1] += 1e3
    assert (loss.build(s)(p, t, t) == 0).all()


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("centring", ["node", "cell"])
def test_gradients(loss: Any, centring: str) -> None:
    s = signature((4, 5), "periodic", "dirichlet", centring=centring)
    p, t = random(2, 1, 4, 5).requires_grad_(), random(2, 1, 4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda p: loss.build(s)(p, t, t), p)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradient_where_all_is_learnt_is_zero(loss: Any) -> None:
    s = signature((4, 5), "periodic", "dirichlet")
    t = random(2, 1, 4, 5)
    p = t.clone().requires_grad_()
    loss.build(s)(p, t, t).sum().backward()
    assert p.grad is not None
    assert (p.grad == 0).all()


@pytest.mark.parametrize("loss", ALL, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(loss: Any, dtype: torch.dtype) -> None:
    s = signature((16, 16), "periodic", "dirichlet")
    p, t = random(2, 1, 16, 16).to(dtype), random(2, 1, 16, 16, seed=1).to(dtype)
    found = loss.build(s)(p, t, t)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss.build(s)(p.double(), t.double(), t).float())


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_zero_truth(loss: Any) -> None:
    s = signature((4, 5), "periodic", "dirichlet")
    zero, p = torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5)
    assert loss.build(s)(zero, zero, zero).tolist() == [0.0]
    assert loss.build(s)(p, zero, zero).item() > 1e30


def test_combined_is_the_weighted_sum() -> None:
    s = signature((6, 7), "dirichlet", "dirichlet")
    p, t = random(2, 1, 6, 7).float(), random(2, 1, 6, 7, seed=1).float()
    combined = Combined(
        (Weighted(RelativeL2(), 2.0), Weighted(RelativeH1()), Weighted(Residual(), 0.5))
    ).build(s, lambda p, x: p.double().flatten(1).sum(1))
    expected = (
        2 * RelativeL2().build(s)(p, t, t)
        + RelativeH1().build(s)(p, t, t)
        + 0.5 * p.double().flatten(1).sum(1)
    )
    torch.testing.assert_close(combined(p, t, t), expected)


@pytest.mark.parametrize("loss", [Residual(), Combined((Weighted(Residual()),))])
def test_residual_needs_the_equation(loss: Any) -> None:
    with pytest.raises(InputError, match="needs the equation") as caught:
        loss.build(signature((6,), "dirichlet"))
    assert caught.value.key == "training.loss"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RelativeH1("fourier"), "is 'differences' or 'spectral'; got 'fourier'"),  # type: ignore[arg-type]
        (lambda: Combined(()), "at least one term"),
        (lambda: Weighted(RelativeL2(), 0.0), "positive and finite; got 0"),
        (lambda: Weighted(RelativeL2(), math.nan), "positive and finite; got nan"),
    ],
)
def test_bad_options(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
