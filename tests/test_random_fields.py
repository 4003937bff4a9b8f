"""Random fields have their covariance, resolutions share them, and distributions keep to ranges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.datasets.distributions import (
    Blocks,
    Choice,
    Distribution,
    GaussianField,
    Inclusions,
    LogUniform,
    Multiscale,
    Normal,
    SquareWave,
    Uniform,
    stream,
)
from sciml.datasets.random_fields import gaussian_field, mode_count

KINDS = ("neumann", "dirichlet", "periodic")
CENTRINGS = ("node", "cell")
UNIT = Box((0.0, 0.0), (1.0, 1.0))
LONG = Box((-1.0, 0.5), (1.0, 2.0))


class OneMode:
    """A source of numbers that are all 0 but one, which is 1."""

    def __init__(self, place: int) -> None:
        self.place = place

    def standard_normal(self, size: int) -> np.ndarray:
        return np.eye(1, size, self.place)[0]


def eigenpairs(kind: str, x: np.ndarray, low: float, high: float, count: int) -> Any:
    """Eigenvalues of -d2/dx2, and its normalised eigenfunctions at x, written out one by one."""
    length, s = high - low, (x - low) / (high - low)
    values, functions = [], []
    for k in range(count):
        if kind == "neumann":
            values.append((math.pi * k / length) ** 2)
            functions.append(np.cos(math.pi * k * s) * math.sqrt((1 if k == 0 else 2) / length))
        elif kind == "dirichlet":
            values.append((math.pi * k / length) ** 2)
            functions.append(np.sin(math.pi * k * s) * math.sqrt(2 / length))
        else:
            waves, wave = (k + 1) // 2, np.cos if k % 2 else np.sin
            values.append((2 * math.pi * waves / length) ** 2)
            functions.append(
                np.full_like(s, math.sqrt(1 / length))
                if k == 0
                else wave(2 * math.pi * waves * s) * math.sqrt(2 / length)
            )
    return np.array(values), np.array(functions)


def theory(on: Grid, kind: str, alpha: float, tau: float, scale: float) -> np.ndarray:
    """The covariance matrix of the grid's points, summed over the modes that the grid carries."""
    pairs = [
        eigenpairs(kind, axis.numpy(), low, high, mode_count(n, on.centring, kind))
        for axis, low, high, n in zip(on.axes(), on.box.lower, on.box.upper, on.shape, strict=True)
    ]
    (a, phi), (b, psi) = pairs
    total = a[:, None] + b[None, :]
    variance = scale * (total + tau**2) ** -alpha
    if kind != "dirichlet":
        variance[0, 0] = 0.0
    modes = np.einsum("ki,lj->klij", phi, psi).reshape(-1, math.prod(on.shape))
    return (modes.T * variance.ravel()) @ modes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centring", CENTRINGS)
@pytest.mark.parametrize("box", [pytest.param(UNIT, id="unit"), pytest.param(LONG, id="long")])
def test_covariance_is_exactly_the_stated_one(kind: Any, centring: Any, box: Box) -> None:
    """A field is linear in its normal numbers: F F^T, with F the image of each of them."""
    on = Grid((7, 6), centring).bind(box)
    sources: Any = [OneMode(i) for i in range(49)]
    fields = gaussian_field(sources, on, alpha=2.0, tau=3.0, scale=5.0, kind=kind)
    image = fields.reshape(49, -1).numpy()
    expected = theory(on, kind, 2.0, 3.0, 5.0)
    assert np.abs(image.T @ image - expected).max() < 1e-12 * expected.max()


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_fields_have_mean_zero_and_this_covariance(kind: Any) -> None:
    """Within five standard errors at every pair of points: sqrt((C_ii C_jj + C_ij^2) / n)."""
    on, count = Grid((6, 5)).bind(UNIT), 4000
    field = GaussianField(alpha=2.0, tau=3.0, boundary=kind)
    values = field.draw([stream(0, i, "K") for i in range(count)], on).reshape(count, -1).numpy()
    expected = theory(on, kind, 2.0, 3.0, 9.0)
    variance = np.diag(expected)
    error = np.sqrt((variance[:, None] * variance + expected**2) / count)
    assert np.all(np.abs(values.T @ values / count - expected) <= 5 * error + 1e-14)
    assert np.all(np.abs(values.mean(axis=0)) <= 5 * np.sqrt(variance / count) + 1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centring", CENTRINGS)
def test_a_truncated_field_is_the_same_at_every_resolution(kind: Any, centring: Any) -> None:
    shapes = ((9, 7), (33, 25)) if centring == "node" else ((8, 6), (40, 30))
    coarse, fine = (
        gaussian_field(
            [stream(3, 1, "K")],
            Grid(shape, centring).bind(LONG),
            alpha=1.5, tau=2.0, scale=1.0, kind=kind, terms=10,
        )[0]
        for shape in shapes
    )  # fmt: skip
    cut = slice(None, None, 4) if centring == "node" else slice(2, None, 5)
    assert torch.allclose(fine[cut, cut], coarse, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finer_grid_only_adds_small_modes(kind: Any) -> None:
    """The mean square difference at shared points is the variance of the added modes."""
    grids = [Grid((n, n)).bind(UNIT) for n in (9, 17)]
    options: Any = {"alpha": 2.0, "tau": 3.0, "scale": 1.0, "kind": kind}
    sources: Any = [OneMode(i) for i in range(17**2)]
    coarse, fine = (gaussian_field(sources, on, **options) for on in grids)
    gap = (fine[:, ::2, ::2] - coarse).square().sum(0)
    added = np.diag(theory(grids[1], kind, 2.0, 3.0, 1.0)).reshape(17, 17)[::2, ::2]
    added = added - np.diag(theory(grids[0], kind, 2.0, 3.0, 1.0)).reshape(9, 9)
    assert np.allclose(gap.numpy(), added, rtol=0, atol=1e-14)
    assert gap.max() < 0.1 * fine.square().sum(0).max()


@pytest.mark.parametrize("terms", [1, 5, 20])
def test_karhunen_loeve_keeps_the_largest_variances(terms: int) -> None:
    """The kept variance, the integral of the pointwise one, is the sum of the largest."""
    on = Grid((24, 24), "cell").bind(UNIT)
    sources: Any = [OneMode(i) for i in range(24**2)]
    fields = gaussian_field(sources, on, alpha=2.0, tau=3.0, scale=1.0, kind="neumann", terms=terms)
    k = np.arange(24) ** 2 * math.pi**2
    variances = np.sort((k[:, None] + k[None, :] + 9.0).ravel() ** -2.0)[::-1][1:]
    kept = float(fields.square().sum(0).mean())
    assert kept == pytest.approx(variances[:terms].sum(), rel=1e-12)
    assert int((fields.abs().amax((1, 2)) > 0).sum()) == terms


@pytest.mark.parametrize(
    ("kind", "zero"), [pytest.param("dirichlet", 0.0, id="0"), pytest.param("periodic", None)]
)
def test_fields_meet_their_boundary(kind: Any, zero: float | None) -> None:
    on = Grid((9, 9)).bind(UNIT)
    field = GaussianField(boundary=kind).draw([stream(0, 0, "K")], on)[0]
    ends = torch.stack([field[0], field[-1], field[:, 0], field[:, -1]])
    if zero is None:
        assert torch.equal(ends[0], ends[1])
        assert torch.equal(ends[2], ends[3])
    else:
        assert ends.abs().max() < 1e-14


@pytest.mark.parametrize("boundary", [k for k in KINDS if k != "dirichlet"])
def test_fields_have_no_mean(boundary: Any) -> None:
    on = Grid((16, 12), "cell").bind(LONG)
    field = GaussianField(boundary=boundary).draw([stream(0, i, "K") for i in range(5)], on)
    assert field.mean((1, 2)).abs().max() < 1e-14


def test_one_and_three_dimensions() -> None:
    for shape in ((33,), (7, 6, 5)):
        on = Grid(shape).bind(Box((0.0,) * len(shape), (1.0,) * len(shape)))
        size = max(shape) ** len(shape)
        sources: Any = [OneMode(i) for i in range(size)]
        fields = gaussian_field(sources, on, alpha=2.0, tau=3.0, scale=1.0, kind="dirichlet")
        variance, place = 0.0, [axis[len(axis) // 3] for axis in on.axes()]
        for index in np.ndindex(*(n - 1 for n in shape)):
            k = np.array(index)
            pairs = zip(k, place, strict=True)
            wave = np.prod([2 * math.sin(math.pi * j * float(p)) ** 2 for j, p in pairs])
            variance += wave * float((math.pi**2 * (k**2).sum() + 9.0) ** -2.0)
        key = tuple(n // 3 for n in shape)
        assert float(fields[(slice(None), *key)].square().sum()) == pytest.approx(variance)


EVERY = [
    Uniform(-1.0, 2.0),
    LogUniform(0.1, 10.0),
    Normal(1.0, 2.0),
    Choice((1.0, 5.0)),
    GaussianField(through="where(a > 0, 12, 3)"),
    Blocks(3, LogUniform(0.1, 10.0)),
    Inclusions(4, Uniform(0.05, 0.2), 10.0, 1.0),
    Multiscale(),
    SquareWave(Uniform(1, 2), Uniform(0.3, 0.6), Uniform(0.3, 0.7)),
]
EACH = pytest.mark.parametrize("distribution", EVERY, ids=lambda d: d.kind)


def draws(distribution: Distribution, indices: Sequence[int], seed: int = 7) -> torch.Tensor:
    on = Grid((13, 11)).bind(UNIT)
    return distribution.draw([stream(seed, i, "K") for i in indices], on)


@EACH
def test_a_sample_is_its_seed_and_number_alone(distribution: Distribution) -> None:
    """Bit for bit the same alone, in any batch, in any order."""
    batch = draws(distribution, range(6))
    assert torch.equal(batch, draws(distribution, range(6)))
    assert torch.equal(batch.flip(0), draws(distribution, range(5, -1, -1)))
    for i in range(6):
        assert torch.equal(batch[i], draws(distribution, [i])[0])


@EACH
def test_another_seed_number_or_place_is_another_sample(distribution: Distribution) -> None:
    first = draws(distribution, range(20))
    assert not torch.equal(first, draws(distribution, range(20), seed=8))
    assert not torch.equal(first, draws(distribution, range(20, 40)))
    on = Grid((13, 11)).bind(UNIT)
    elsewhere = distribution.draw([stream(7, i, "f") for i in range(20)], on)
    assert not torch.equal(first, elsewhere)


@EACH
def test_shape_and_type(distribution: Distribution) -> None:
    value = draws(distribution, range(3))
    scalar = isinstance(distribution, (Uniform, LogUniform, Normal, Choice))
    assert value.shape == ((3,) if scalar else (3, 13, 11))
    assert value.dtype == torch.float64


def test_ranges() -> None:
    many = range(300)
    assert draws(Uniform(-1.0, 2.0), many).min() >= -1
    assert draws(Uniform(-1.0, 2.0), many).max() <= 2
    logs = draws(LogUniform(0.1, 10.0), many).log10()
    assert logs.min() >= -1 and logs.max() <= 1
    assert abs(float(logs.mean())) < 5 * math.sqrt(1 / 3 / 300)
    assert set(draws(Choice((1.0, 5.0)), many).tolist()) == {1.0, 5.0}
    fields = draws(GaussianField(through="where(a > 0, 12, 3)"), range(9))
    assert set(fields.ravel().tolist()) == {3.0, 12.0}
    assert draws(GaussianField(through="exp(a)"), range(9)).min() > 0
    assert set(draws(EVERY[6], range(9)).ravel().tolist()) == {1.0, 10.0}
    assert draws(Multiscale(), range(9)).min() > 0


def test_normal_numbers_have_their_moments() -> None:
    values = draws(Normal(1.0, 2.0), range(2000))
    assert abs(float(values.mean()) - 1) < 5 * 2 / math.sqrt(2000)
    assert abs(float(values.var()) - 4) < 5 * 4 * math.sqrt(2 / 2000)


def test_blocks_are_constant_inside_and_resolution_free() -> None:
    blocks = Blocks(3, Uniform(0, 1))
    source = [stream(0, 0, "K")]
    cells = blocks.draw(source, Grid((9, 9), "cell").bind(UNIT))[0]
    assert torch.equal(cells, cells[1::3, 1::3].repeat_interleave(3, 0).repeat_interleave(3, 1))
    coarse = blocks.draw([stream(0, 0, "K")], Grid((3, 3), "cell").bind(UNIT))[0]
    assert torch.equal(coarse, cells[1::3, 1::3])


def test_inclusions_are_as_large_as_they_say() -> None:
    """One ball, clear of the edge or cut by it: never more than pi r^2 of the area."""
    on = Grid((200, 200), "cell").bind(UNIT)
    ball = Inclusions(1, Choice((0.1,)), 1.0, 0.0)
    areas = ball.draw([stream(0, i, "K") for i in range(20)], on).mean((1, 2))
    assert areas.max() == pytest.approx(math.pi * 0.01, rel=0.02)
    assert areas.min() > math.pi * 0.01 / 4.2


def test_multiscale_is_its_formula() -> None:
    on = Grid((5, 4)).bind(UNIT)
    value = Multiscale(2).draw([stream(1, 2, "K")], on)[0]
    source = stream(1, 2, "K")
    a = [source.uniform(2.0**k, 1.5 * 2.0**k) for k in range(2)]
    for i, x in enumerate(on.axes()[0].tolist()):
        for j, y in enumerate(on.axes()[1].tolist()):
            expected = math.prod(
                (1 + math.cos(q * math.pi * (x + y)) / 2)
                * (1 + math.sin(q * math.pi * (y - 3 * x)) / 2)
                for q in a
            )
            assert float(value[i, j]) == pytest.approx(expected, rel=1e-13)


def test_square_waves_have_height_width_and_centre() -> None:
    on = Grid((4000,), "cell").bind(Box((0.0,), (1.0,)))
    wave = SquareWave(Choice((1.5,)), Choice((0.4,)), Choice((0.5,)))
    value = wave.draw([stream(0, 0, "u")], on)[0]
    assert float(value.mean()) == pytest.approx(0.6, abs=1e-3)
    assert float((value * on.axes()[0]).mean() / value.mean()) == pytest.approx(0.5, abs=1e-3)
    assert set(value.tolist()) == {0.0, 1.5}


@given(st.integers(0, 2**31), st.integers(0, 3 * 10**9), st.text(min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_streams_are_functions_of_seed_number_and_place(seed: int, index: int, path: str) -> None:
    first, again = (stream(seed, index, path).standard_normal(4) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, stream(seed, index + 1, path).standard_normal(4))
    assert not np.array_equal(first, stream(seed + 1, index, path).standard_normal(4))
    assert not np.array_equal(first, stream(seed, index, path + "x").standard_normal(4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        pytest.param(lambda: Uniform(2, 1), "low must be below high", id="order"),
        pytest.param(lambda: LogUniform(0, 1), "low must be positive", id="log"),
        pytest.param(lambda: Normal(0, 0), "deviation must be positive", id="deviation"),
        pytest.param(lambda: Choice(()), "values is empty", id="choice"),
        pytest.param(lambda: GaussianField(tau=0), "tau must be positive", id="tau"),
        pytest.param(lambda: GaussianField(through="b"), "unknown name 'b'", id="through"),
        pytest.param(lambda: Blocks(0, Uniform(0, 1)), "count must be at least 1", id="blocks"),
        pytest.param(lambda: draws(GaussianField(alpha=1), [0]), "alpha must be above 1", id="a"),
    ],
)
def test_mistakes_are_named(make: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()
