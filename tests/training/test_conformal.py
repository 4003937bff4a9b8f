"""Conformal sets: the share of new samples that they hold is what they say, whatever the errors."""

from __future__ import annotations

import pytest
import torch

from sciml.core.problem.grid import Box, Grid
from sciml.operators import Signature
from sciml.operators.seen import span, unlike
from sciml.training.conformal import ConformalSet, calibrated, scores


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("samples", [19, 99])
def test_coverage_is_the_share_for_heavy_tails_too(samples: int, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    held = []
    for _ in range(2000):
        drawn = torch.rand(samples + 20, generator=generator, dtype=torch.float64) ** -2
        found = calibrated(drawn[:samples], share)
        assert found is not None
        held.append((drawn[samples:] <= found.radius).double().mean())
    mean = float(torch.stack(held).mean())
    # Between share and share + 1 / (n + 1), up to chance: 2,000 draws of 20.
    assert share - 0.01 < mean < share + 1 / (samples + 1) + 0.01, mean


def test_too_few_samples_give_no_set() -> None:
    assert calibrated(torch.rand(8), 0.9) is None
    assert calibrated(torch.rand(9), 0.9) is not None


def test_scores_are_relative_to_the_prediction() -> None:
    prediction = torch.ones(2, 1, 4)
    truth = torch.stack([torch.full((1, 4), 1.5), torch.zeros(1, 4)])
    assert scores(prediction, truth).tolist() == [0.5, 1.0]
    found = ConformalSet(0.25, 0.9, 10)
    assert ConformalSet.from_json(found.to_json()) == found


def test_inputs_unlike_all_that_were_seen_are_told_and_others_seldom() -> None:
    on = Signature(("a",), ("u",), Grid((33,), "node", Box((0.0,), (2.0,))), ("periodic",))
    generator = torch.Generator().manual_seed(0)

    def drawn(count: int) -> torch.Tensor:
        return on.close(torch.randn(count, 1, 32, generator=generator))

    seen = span(drawn(1000), on)
    strange = [told for told in unlike(seen, drawn(2000), on) if told]
    assert len(strange) <= 2000 * 10 / 1001 * 1.5  # the bound is 10 / (n + 1) of them, in the mean
    shifted, steeper = drawn(50) + 3, drawn(50) * 4
    assert all("mean of a" in told for told in unlike(seen, shifted, on))
    assert all(unlike(seen, steeper, on))
    smooth = on.close(torch.randn(20, 1, 32, generator=generator).sort(-1).values)
    assert all("mean slope of a" in told for told in unlike(seen, smooth, on) if told)
    assert sum(map(bool, unlike(seen, smooth, on))) == 20
    # On another grid the slopes of rough functions are others.
    assert sum("slope" in told for told in unlike(seen, smooth[..., ::2], on)) == 0
