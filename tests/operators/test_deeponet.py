"""DeepONet: sums of products, aligned as unaligned, sensors, hard and periodic boundaries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import DeepONet, Operator, PODDeepONet, Signature
from sciml.operators.operator import Side, at_places, resample, ticks

BOXES = (Box((0.0,), (2.0,)), Box((0.0, -1.0), (2.0, 1.0)), Box((0.0, -1.0, 3.0), (2.0, 1.0, 4.0)))


def signature(
    shape: tuple[int, ...],
    boundary: tuple[Side, ...],
    centring: str = "node",
    outputs: tuple[str, ...] = ("u",),
) -> Signature:
    grid = Grid(shape, centring, BOXES[len(shape) - 1])  # type: ignore[arg-type]
    return Signature(("a",), outputs, grid, boundary)


def grid_points(on: Grid) -> Tensor:
    return torch.stack([c.flatten() for c in on.coordinates()], dim=-1)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


SMALL = DeepONet(modes=6, branch=(8,), trunk=(8,), fourier_features=3)
OPTIONS = (SMALL, PODDeepONet(modes=6, branch=(8,)))
SIGNATURES = (
    signature((9,), ("dirichlet",)),
    signature((9, 7), ("periodic", "neumann"), outputs=("u", "v")),
    signature((8, 6), ("periodic", "dirichlet"), centring="cell"),
    signature((5, 6, 7), ("neumann", "periodic", "dirichlet")),
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.kind)
@pytest.mark.parametrize("on", SIGNATURES, ids=str)
def test_values_at_the_grid_points_are_the_values_on_the_grid(
    options: DeepONet | PODDeepONet, on: Signature
) -> None:
    operator = Operator.build(options, on).double()
    x = drawn(3, 1, *on.grid.shape)
    operator.prepare(x, drawn(12, len(on.outputs), *on.grid.shape, seed=1))
    points = grid_points(on.grid)
    grid = operator(x).flatten(2)
    shared = operator(x, points)
    torch.testing.assert_close(shared, grid, rtol=1e-6, atol=1e-6)  # coordinates are float32
    torch.testing.assert_close(operator(x, points.expand(3, -1, -1)), shared)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.kind)
def test_each_input_is_answered_at_points_of_its_own(options: DeepONet | PODDeepONet) -> None:
    on = SIGNATURES[1]
    operator = Operator.build(options, on).double()
    x, points = drawn(3, 1, 9, 7), drawn(3, 5, 2, seed=2).sigmoid()
    together = operator(x, points)
    for i in range(3):
        torch.testing.assert_close(together[i], operator(x[i : i + 1], points[i])[0])


def test_answer_is_the_sum_of_products() -> None:
    on = signature((9,), ("neumann",), outputs=("u", "v"))
    network = Operator.build(SMALL, on, seed=3).double().network
    z, places = drawn(2, 1, 9), drawn(4, 1, seed=1).sigmoid()
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.5, -2.0]))
    b, t = network.branch(z), network.trunk(places)
    for sample, channel, point in [(0, 0, 0), (1, 1, 3), (0, 1, 2)]:
        row = b[sample, 6 * channel : 6 * channel + 6]
        expected = (row * t[point]).sum() / math.sqrt(6) + network.bias[channel]
        torch.testing.assert_close(network(z, places)[sample, channel, point], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.kind)
@pytest.mark.parametrize("fourier", (0, 4))
def test_answers_are_periodic_on_periodic_axes(
    options: DeepONet | PODDeepONet, fourier: int
) -> None:
    on = signature((9, 7), ("periodic", "neumann"))
    if isinstance(options, DeepONet):
        options = DeepONet(modes=6, branch=(8,), trunk=(8,), fourier_features=fourier)
    operator = Operator.build(options, on).double()
    x, points = drawn(2, 1, 9, 7), drawn(5, 2, seed=1).sigmoid()
    left, right = points.clone(), points.clone()
    left[:, 0], right[:, 0] = 0.0, 2.0
    torch.testing.assert_close(operator(x, left), operator(x, right), rtol=1e-6, atol=1e-6)


def test_hard_boundary_vanishes_exactly_on_dirichlet_sides_alone() -> None:
    on = signature((9, 7), ("dirichlet", "neumann"))
    operator = Operator.build(DeepONet(modes=4, trunk=(8,), hard_boundary=True), on)
    x = drawn(2, 1, 9, 7)
    bubble = torch.sin(torch.pi * torch.linspace(0, 1, 9, dtype=torch.float64))[:, None]
    operator.prepare(x, bubble * (3.0 + drawn(2, 1, 9, 7, seed=1)) + 1e-9)
    value = operator(x)
    assert torch.equal(value[:, :, [0, -1]], torch.zeros(2, 1, 2, 7))
    assert value[:, :, 1:-1, [0, -1]].abs().min() > 0
    ends = torch.tensor([[0.0, 0.3], [2.0, -0.9]])
    assert torch.equal(operator(x, ends), torch.zeros(2, 1, 2))


def test_hard_boundary_is_refused_where_it_does_not_hold() -> None:
    hard = DeepONet(modes=4, hard_boundary=True)
    with pytest.raises(InputError, match="an axis with Dirichlet ends"):
        Operator.build(hard, signature((9,), ("periodic",)))
    operator = Operator.build(hard, signature((9,), ("dirichlet",)))
    x = drawn(4, 1, 9)
    with pytest.raises(InputError, match="training outputs do not") as caught:
        operator.prepare(x, 1.0 + x)
    assert caught.value.key == "operator.hard_boundary"


@pytest.mark.parametrize("centring", ("node", "cell"))
@pytest.mark.parametrize("boundary", (("neumann", "dirichlet"), ("periodic", "neumann")))
@given(n=st.integers(3, 9), m=st.integers(3, 9))
@settings(max_examples=15, deadline=None)
def test_resampling_is_exact_for_what_is_linear(
    centring: str, boundary: tuple[Side, ...], n: int, m: int
) -> None:
    on = signature((7, 5), boundary, centring=centring)
    x, y = torch.meshgrid(*ticks(on, on.opened), indexing="ij")
    fine = torch.meshgrid(*ticks(on, (n, m)), indexing="ij")
    linear = [2 - y if boundary[0] == "periodic" else 3 * x - y, torch.ones_like(x)]
    expected = [2 - fine[1] if boundary[0] == "periodic" else 3 * fine[0] - fine[1]]
    result = resample(torch.stack(linear), on, (n, m))
    torch.testing.assert_close(result[0], expected[0])
    torch.testing.assert_close(result[1], torch.ones_like(fine[0]))


def test_interpolation_wraps_round_a_periodic_axis() -> None:
    """Between the last opened point, 3/4, and the first, lies their mean."""
    on = signature((5,), ("periodic",))
    values = torch.tensor([1.0, 5.0, 7.0, 3.0])
    middle = at_places(values, on, [torch.tensor([0.875, -0.125, 0.125])])
    torch.testing.assert_close(middle, torch.tensor([2.0, 2.0, 3.0]))


def test_sensors_of_its_own_see_an_input_of_any_resolution() -> None:
    """A function linear between sensors gives the same answer from every finer grid."""
    on = signature((9,), ("neumann",))
    operator = Operator.build(DeepONet(modes=4, sensors=(3,)), on).double()
    answers = []
    for points in (3, 5, 9, 17):
        s = torch.linspace(0, 2, points, dtype=torch.float64)
        answers.append(operator((s - 1).abs()[None, None], torch.tensor([[0.3], [1.7]])))
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0])


def test_one_sensor_along_an_axis_sees_its_start() -> None:
    on = signature((9, 7), ("periodic", "neumann"))
    operator = Operator.build(DeepONet(modes=4, sensors=(8, 1)), on)
    x = drawn(1, 1, 9, 7)
    other = drawn(1, 1, 9, 7, seed=1)
    other[..., 0] = x[..., 0]
    assert torch.equal(operator(x), operator(other))
    assert not torch.equal(operator(x), operator(other + 1))


def test_antiderivative_is_learned_from_triples() -> None:
    """Unaligned: of every function one value alone; 100 steps leave little of the variance."""
    on = Signature(("u",), ("s",), Grid((17,), "node", Box((0.0,), (1.0,))), ("neumann",))
    waves = torch.arange(1, 4, dtype=torch.float64)
    x = torch.linspace(0, 1, 17, dtype=torch.float64)
    amplitude = drawn(256, 1, 3)
    points = torch.rand(256, 1, 1, generator=torch.Generator().manual_seed(1)).double()
    inputs = (amplitude[:, :, None] * torch.cos(waves * x[:, None])).sum(-1)
    outputs = (amplitude * torch.sin(waves * points) / waves).sum(-1, keepdim=True)
    operator = Operator.build(DeepONet(modes=16, branch=(32,), trunk=(32,)), on)
    operator.prepare(inputs, outputs.expand(-1, -1, 17))
    optimiser = torch.optim.Adam(operator.parameters(), lr=1e-2)
    for _ in range(100):
        loss = ((operator(inputs, points) - outputs) ** 2).mean() / outputs.var()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.02


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"modes": 0}, "operator.modes"),
        ({"branch": (8, 0)}, "operator.branch"),
        ({"activation": "geluu"}, "operator.activation"),
        ({"fourier_features": -1}, "operator.fourier_features"),
        ({"fourier_features": 2, "fourier_scale": 0.0}, "operator.fourier_features"),
    ],
)
def test_wrong_options_name_their_key(options: dict[str, object], key: str) -> None:
    with pytest.raises(InputError) as caught:
        DeepONet(**options)  # type: ignore[arg-type]
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (DeepONet(convolutions=(4, 4)), r"needs at least 13 points along each axis.*\[9, 12\]"),
        (DeepONet(sensors=(9,)), r"one number per axis, 2; got \[9\]"),
        (PODDeepONet(convolutions=(4, 4)), "needs at least 13 points"),
    ],
)
def test_grid_that_the_branch_cannot_take(options: DeepONet | PODDeepONet, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Operator.build(options, signature((9, 12), ("dirichlet", "neumann")))


def test_thirteen_points_do_for_two_convolutions() -> None:
    on = signature((13, 14), ("dirichlet", "neumann"))
    operator = Operator.build(DeepONet(convolutions=(2, 3)), on)
    assert operator(drawn(2, 1, 13, 14)).shape == (2, 1, 13, 14)


def test_points_of_another_number_of_inputs_are_refused() -> None:
    operator = Operator.build(SMALL, SIGNATURES[0])
    with pytest.raises(InputError, match=r"\(P, d\), or \(3, P, d\) for 3 inputs"):
        operator(drawn(3, 1, 9), drawn(2, 5, 1))
