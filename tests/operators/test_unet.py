"""U-Net: levels, widths and refusals; the rest is in the conformance suite."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sciml.core.errors import InputError
from sciml.core.grid import Box, Grid
from sciml.operators import Operator, Signature, UNet


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
