"""U-Net: levels, widths and refusals; the rest is in the conformance suite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.operators import Operator, Signature, UNet
from sciml.operators.unet import Block


def signature(n: int, side: Any = "dirichlet") -> Signature:
    return Signature(("a",), ("u",), Grid((n, n), domain=Box((0.0, 0.0), (1.0, 1.0))), (side, side))


@pytest.mark.parametrize(("n", "levels"), [(3, 1), (16, 3), (29, 4), (85, 5), (421, 5)])
def test_levels_follow_from_the_grid_and_channels_double(n, levels) -> None:
    network = UNet(width=2).build(signature(n))
    assert network.levels == levels
    assert [block.second.weight.shape[0] for block in network.encode] == [
        2 ** (level + 1) for level in range(1, levels)
    ]


def test_scaled_inputs_of_any_size_are_seen_as_they_are() -> None:
    """Group normalisation has no memory: training and evaluation are one function."""
    operator = Operator.build(UNet(width=4, levels=2), signature(11))
    x = torch.randn(3, 1, 11, 11)
    assert torch.equal(operator.train()(x), operator.eval()(x))


@pytest.mark.parametrize(("options", "key"), [({"width": 0}, "width"), ({"levels": 0}, "levels")])
def test_options_out_of_range_are_refused(options, key) -> None:
    with pytest.raises(InputError, match=f"{key} must be at least 1") as caught:
        UNet(**options)
    assert caught.value.key == f"operator.{key}"


def test_grids_too_small_for_the_levels_are_refused() -> None:
    with pytest.raises(InputError, match="4 levels need at least 9 points"):
        UNet(levels=4).build(signature(8))


@pytest.mark.parametrize(
    ("channels", "groups"), [(4, 4), (5, 1), (6, 2), (12, 4), (16, 8), (32, 8), (48, 8)]
)
@pytest.mark.parametrize("layer", ["first", "second"])
def test_each_group_of_channels_is_normalised_by_itself(channels, groups, layer) -> None:
    """Channels scaled alike change nothing where, and only where, they are whole groups.

    A normalisation divides out what all of a group's channels have in common. Fewer groups would
    see a scaled group beside others, more would not see the scaling of a part of one.
    """
    torch.manual_seed(0)
    block = Block(signature(7), 3, channels).double()
    convolution = block.get_submodule(layer)
    convolution.weight.data *= 1e3  # the normalisation's eps is nothing
    x = torch.randn(2, 3, 7, 7, dtype=torch.float64)
    size = channels // groups

    def change(scaled: slice) -> float:
        with torch.no_grad():
            before, kept = block(x), convolution.weight.clone()
            convolution.weight[scaled] *= 1.5
            after = block(x)
            convolution.weight.copy_(kept)
        return float((after - before).abs().max())

    for group in range(groups):
        first = group * size
        assert change(slice(first, first + size)) < 1e-4
        if size > 1:
            assert change(slice(first, first + 1)) > 1e-2


@pytest.mark.parametrize("layer", [0, 1])
def test_what_a_block_normalises_has_mean_zero_and_deviation_one(layer) -> None:
    """Of every sample and group, over its channels and all points."""
    torch.manual_seed(0)
    block, seen = Block(signature(9), 2, 12).double(), []
    block.norms[layer].register_forward_hook(lambda module, given, found: seen.append(found))
    block(5 + 100 * torch.randn(3, 2, 9, 9, dtype=torch.float64))
    parts = seen[0].reshape(3, 4, -1)
    zero, one = torch.zeros(3, 4).double(), torch.ones(3, 4).double()
    torch.testing.assert_close(parts.mean(-1), zero, rtol=0, atol=1e-10)
    torch.testing.assert_close(parts.var(-1, unbiased=False), one, rtol=0, atol=1e-3)
