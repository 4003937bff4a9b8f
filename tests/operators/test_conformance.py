"""One suite for all neural operators: what the rest of the package takes for granted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conformance import SMALL, Case

from sciml.core.errors import InputError
from sciml.operators import FNO, Operator, load_operator, save_operator
from sciml.operators.operator import architectures

OPERATORS = [cls.__name__ for cls in architectures()]

CASES = [
    Case(name, shape, boundary, centring)
    for name in OPERATORS
    for shape, boundary, centring in (
        ((12,), "periodic", "node"),
        ((11, 14), "dirichlet", "node"),
        ((12, 10), "neumann", "cell"),
        ((9, 8, 10), "neumann", "node"),
    )
]
PLANE = [Case(name, (11, 14)) for name in OPERATORS]
CONVOLUTIONAL = ("MgNO", "UNet", "FNO")


def label(case: Case) -> str:
    return f"{case.name}-{len(case.shape)}d-{case.boundary}-{case.centring}"


def test_every_operator_is_here() -> None:
    assert set(SMALL) == set(OPERATORS)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_a_batch_gives_what_its_samples_give_alone(case: Case) -> None:
    operator, x = case.operator(), case.samples(3)
    y = operator(x)
    assert y.shape == x.shape and y.dtype == torch.float32
    alone = torch.cat([operator(one[None]) for one in x])
    torch.testing.assert_close(y, alone, rtol=1e-4, atol=1e-5)
    closed = case.signature()
    assert torch.equal(closed.close(closed.open(y)), y)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_double_precision_agrees_with_single(case: Case) -> None:
    operator, x = case.operator(), case.samples(2)
    single = operator(x)
    double = operator.double()(x)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_gradients_reach_every_parameter_or_it_has_none_to_train(case: Case) -> None:
    operator = case.operator().train()
    assert operator.solved == (case.name == "Kernel")
    if operator.solved:
        return
    operator(case.samples(3)).square().sum().backward()
    for name, parameter in operator.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize("case", PLANE, ids=label)
def test_the_seed_alone_decides_the_weights(case: Case) -> None:
    before = torch.get_rng_state()
    one = Operator.build(SMALL[case.name], case.signature(), seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.rand(3)
    again = Operator.build(SMALL[case.name], case.signature(), seed=1)
    other = Operator.build(SMALL[case.name], case.signature(), seed=2)
    first, second = dict(one.named_parameters()), dict(again.named_parameters())
    assert all(torch.equal(first[name], second[name]) for name in first)
    third = dict(other.named_parameters())
    assert one.solved or any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("case", PLANE, ids=label)
def test_a_saved_operator_is_the_same_when_read(case: Case, tmp_path: Path) -> None:
    operator, x = case.operator(), case.samples(2)
    save_operator(operator, tmp_path)
    again = load_operator(tmp_path)
    assert again.options == operator.options and again.signature == operator.signature
    assert torch.equal(again(x), operator(x))


@pytest.mark.parametrize("shape", [(11, 14), (10, 13), (16, 11), (21, 27), (33, 9)])
@pytest.mark.parametrize("name", OPERATORS)
def test_other_resolutions_are_answered_or_refused_with_the_sizes_taken(
    name: str, shape: tuple[int, ...]
) -> None:
    case = Case(name, (11, 14))
    operator, x = case.operator(), case.samples(2, shape)
    try:
        y = operator(x)
    except InputError as error:
        assert any(character.isdigit() for character in error.message)
        assert shape != case.shape
    else:
        assert y.shape == x.shape and bool(y.isfinite().all())


@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("centring", ["node", "cell"])
def test_periodic_networks_without_coordinates_commute_with_shifts(name, centring) -> None:
    points = 16
    case = Case(name, (points + (centring == "node"),) * 2, "periodic", centring)
    options = SMALL[name]
    if isinstance(options, FNO):
        options = dataclasses.replace(options, coordinates=False)
    operator, signature = Operator.build(options, case.signature()), case.signature()
    x = signature.open(case.samples(2))
    # Networks with three grids have every fourth point on all of them.
    shifted = operator(signature.close(x.roll((4, 8), (-2, -1))))
    plain = signature.open(operator(signature.close(x)))
    torch.testing.assert_close(
        signature.open(shifted), plain.roll((4, 8), (-2, -1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("case", PLANE, ids=label)
def test_points_are_answered_or_refused(case: Case) -> None:
    operator, x = case.operator(), case.samples(2)
    grid = torch.stack([c.reshape(-1) for c in case.signature().grid.coordinates()], -1)
    if getattr(operator.network, "takes_points", False):
        torch.testing.assert_close(operator(x, grid), operator(x).flatten(2), rtol=1e-3, atol=1e-4)
    else:
        with pytest.raises(InputError, match="on grids only"):
            operator(x, grid)


@pytest.mark.parametrize("case", PLANE, ids=label)
def test_channels_and_axes_that_do_not_fit_are_refused(case: Case) -> None:
    operator, x = case.operator(), case.samples(2)
    for wrong in (x[:, :1], x[0], x[..., 0]):
        with pytest.raises(InputError, match="2 for a, f"):
            operator(wrong)
