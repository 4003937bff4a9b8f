from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from sciml.core.errors import InputError
from sciml.training import Adam, AdamW, Constant, Cosine, OneCycle, Steps, Training

EPOCHS, PER_EPOCH = 7, 5
TOTAL = EPOCHS * PER_EPOCH


def rates(build: Callable[[torch.optim.Optimizer], Any], every: int = 1) -> list[float]:
    """The learning rates of one of torch's schedulers, over the full rate 1."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = build(optimiser)
    found = []
    for step in range(TOTAL):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "peer", "every"),
    [
        (
            OneCycle(0.3, 0.04, 4e-6),
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, cycle_momentum=False),
            1,
        ),
        (
            OneCycle(),
            lambda o: lr_scheduler.OneCycleLR(
                o, 1.0, TOTAL, pct_start=0.2, div_factor=2, final_div_factor=100,
                cycle_momentum=False,
            ),
            1,
        ),
        (Cosine(0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.1), 1),
        (Steps(3, 0.5), lambda o: lr_scheduler.StepLR(o, 3, 0.5), PER_EPOCH),
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, 1.0), 1),
    ],
)  # fmt: skip
def test_schedules_are_those_of_torch(schedule: Any, peer: Any, every: int) -> None:
    own = [schedule.factor(step, TOTAL, PER_EPOCH) for step in range(TOTAL)]
    expected = rates(peer, every)
    assert own == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(st.integers(1, 500), st.floats(0.01, 0.99))
def test_one_cycle_stays_within_its_bounds(steps: int, share: float) -> None:
    schedule = OneCycle(share)
    factors = [schedule.factor(k, steps, 1) for k in range(steps)]
    assert all(schedule.end - 1e-12 <= f <= 1 + 1e-12 and math.isfinite(f) for f in factors)


@pytest.mark.parametrize("options", [Adam(0.1, 0.01), AdamW(0.1, 0.01)])
def test_optimisers_are_those_of_the_papers(options: Adam | AdamW) -> None:
    """One step from w = 1 with gradient 1: the bias-corrected moments give g / |g| = 1."""
    w = torch.ones(1, requires_grad=True)
    optimiser = options.build([w])
    w.grad = torch.ones(1)
    optimiser.step()
    decay = 0.1 * 0.01 if isinstance(options, AdamW) else 0.0
    assert w.item() == pytest.approx(1 - 0.1 - decay, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Training(epochs=0), "training.epochs"),
        (lambda: Training(batch=0), "training.batch"),
        (lambda: Training(validate=0), "training.validate"),
        (lambda: Training(clip=-1.0), "training.clip"),
        (lambda: Training(precision="half"), "training.precision"),  # type: ignore[arg-type]
        (lambda: Training(seed=-1), "training.seed"),
        (lambda: Adam(rate=0.0), "training.optimiser.rate"),
        (lambda: AdamW(weight_decay=-1.0), "training.optimiser.weight_decay"),
        (lambda: OneCycle(share=1.0), "training.schedule.share"),
        (lambda: OneCycle(start=0.0), "training.schedule.start"),
        (lambda: Cosine(end=float("nan")), "training.schedule.end"),
        (lambda: Steps(every=0), "training.schedule.every"),
        (lambda: Steps(multiply=0.0), "training.schedule.multiply"),
    ],
)
def test_bad_options_name_their_key(make: Callable[[], Any], key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
