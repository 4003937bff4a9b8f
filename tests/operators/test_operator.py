"""Signature and scaling: what stands around a network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Operator, Signature

BOX = Box((0.0, -1.0), (2.0, 1.0))


@dataclass(frozen=True)
class Mixing:
    """A linear map of the channels and, at points, of the point's place."""

    hard_boundary: bool = False
    kind: Literal["mixing"] = "mixing"

    def build(self, signature: Signature) -> nn.Module:
        return MixingNetwork(len(signature.inputs), len(signature.outputs))


class MixingNetwork(nn.Module):
    takes_points = True

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.seen = torch.zeros(())

    def prepare(self, z: Tensor) -> None:
        self.seen = z

    def forward(self, z: Tensor, points: Tensor | None = None) -> Tensor:
        if points is not None:
            place = points.expand(len(z), *points.shape[-2:]).sum(-1)
            return self.weight.sum() * place[:, None].expand(-1, len(self.weight), -1)
        return torch.einsum("oi,bi...->bo...", self.weight, z)


def signature(boundary: Any, centring: Any = "node", shape: Any = (7, 6)) -> Signature:
    return Signature(("a", "f"), ("u", "v"), Grid(shape, centring, BOX), boundary)


def samples(of: Signature, count: int = 5) -> Tensor:
    x = torch.randn(count, 2, *of.opened, generator=torch.Generator().manual_seed(4))
    return of.close(x)


SIDES = st.tuples(*2 * [st.sampled_from(["dirichlet", "neumann", "periodic"])])


@given(SIDES, st.sampled_from(["node", "cell"]), st.tuples(*2 * [st.integers(3, 9)]))
@settings(max_examples=40, deadline=None)
def test_signatures_survive_json_and_closing_undoes_opening(boundary, centring, shape) -> None:
    one = signature(boundary, centring, shape)
    assert Signature.from_json(json.loads(json.dumps(one.to_json()))) == one
    x = samples(one)
    assert x.shape[2:] == shape and one.open(x).shape[2:] == one.opened
    assert torch.equal(one.close(one.open(x)), x)


@given(SIDES, st.sampled_from(["node", "cell"]), st.tuples(*2 * [st.integers(3, 9)]))
@settings(max_examples=40, deadline=None)
def test_coordinates_and_spacing_are_those_of_the_grid(boundary, centring, shape) -> None:
    one = signature(boundary, centring, shape)
    physical = torch.stack(one.grid.coordinates())
    lower, length = torch.tensor(BOX.lower), torch.tensor(BOX.upper) - torch.tensor(BOX.lower)
    scaled = (physical - lower[:, None, None]) / length[:, None, None]
    torch.testing.assert_close(one.coordinates(one.opened), one.open(scaled).float())
    assert one.spacing(one.opened) == pytest.approx(one.grid.spacing)


@pytest.mark.parametrize("boundary", [("dirichlet", "neumann"), ("periodic", "dirichlet")])
def test_networks_see_and_give_channels_of_mean_zero_and_deviation_one(boundary) -> None:
    one = signature(boundary)
    operator = Operator.build(Mixing(), one)
    x = samples(one) * torch.tensor([3.0, 0.2])[:, None, None] + 7
    operator.prepare(x, x.flip(1))
    seen = operator.network.seen
    torch.testing.assert_close(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.std((0, 2, 3), correction=0), torch.ones(2))
    with torch.no_grad():
        operator.network.weight.copy_(torch.eye(2).flip(0))
    torch.testing.assert_close(operator(x), x.flip(1))


def test_scaling_is_kept_in_double_precision_while_it_is_measured() -> None:
    one = signature(("dirichlet", "dirichlet"))
    x = 1e4 + samples(one)
    operator = Operator.build(Mixing(), one)
    operator.prepare(x, x)
    expected = x.double().std((0, 2, 3), correction=0).float()
    torch.testing.assert_close(operator.input_std, expected, rtol=1e-6, atol=0)


def test_constant_channels_keep_deviation_one_and_hard_boundaries_mean_zero() -> None:
    one = signature(("dirichlet", "dirichlet"))
    x = samples(one)
    x[:, 1] = 0.1
    operator = Operator.build(Mixing(hard_boundary=True), one)
    operator.prepare(x, x + 5)
    assert operator.input_std[1] == 1 and operator.input_mean[1] == pytest.approx(0.1)
    assert torch.equal(operator.output_mean, torch.zeros(2))


def test_points_reach_the_network_in_the_unit_box() -> None:
    one = signature(("dirichlet", "dirichlet"))
    operator = Operator.build(Mixing(), one)
    corners = torch.tensor([[0.0, -1.0], [2.0, -1.0], [2.0, 1.0]], dtype=torch.float64)
    shared = operator(samples(one), corners)
    expected = operator.network.weight.sum() * torch.tensor([0.0, 1.0, 2.0])
    torch.testing.assert_close(shared, expected.expand(5, 2, 3))
    assert torch.equal(operator(samples(one), corners.expand(5, 3, 2)), shared)
    with pytest.raises(InputError, match="2 coordinates"):
        operator(samples(one), corners[:, :1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boundary": ("dirichlet",)}, "one boundary per axis"),
        ({"boundary": ("dirichlet", "robin")}, "got 'robin'"),
        ({"outputs": ()}, "at least one input and one output"),
    ],
)
def test_signatures_that_make_no_sense_are_refused(change, message) -> None:
    given_ = {
        "inputs": ("a",),
        "outputs": ("u",),
        "grid": Grid((5, 5), domain=BOX),
        "boundary": ("dirichlet", "periodic"),
    }
    with pytest.raises(InputError, match=message):
        Signature(**{**given_, **change})
    data = Signature(**given_).to_json()
    del data["lower"]
    with pytest.raises(InputError, match="lower missing"):
        Signature.from_json(data)
