"""Who has finished an iteration and why: the ledger's verdicts, on residuals that are made up."""

from __future__ import annotations

import torch

from sciml.core.status import Status
from sciml.solvers.iteration import Ledger

SMALL = 1e-9  # a residual below the tolerance


def ledger(samples: int, window: int = 3, most: int = 100) -> Ledger:
    begun = Ledger(torch.ones(samples), 1e-6, most, window, None)
    begun.start(torch.ones(samples))
    return begun


def statuses(book: Ledger) -> tuple[Status, ...]:
    return book.result(torch.zeros(1)).statuses


def test_stagnation_is_a_window_without_a_fall_of_one_per_cent() -> None:
    book = ledger(3)
    for count in range(1, 7):
        book.record(torch.tensor([0.98**count, 0.9985**count, 1.0 if count < 4 else 0.5]))
    # 2 % each time goes on, 0.15 % does not, and a fall after the window comes too late.
    assert book.running.tolist() == [True, False, False]
    assert book.iterations.tolist() == [6, 3, 3]
    book.record(torch.tensor([SMALL, SMALL, SMALL]))
    book.verify(torch.tensor([SMALL, 1.0, 1.0]))
    assert statuses(book) == (Status.CONVERGED, Status.STAGNATED, Status.STAGNATED)


def test_stagnation_is_counted_from_the_last_fall() -> None:
    book = ledger(1)
    for value in (0.5, 0.5, 0.5, 0.49, 0.49, 0.49):
        book.record(torch.tensor([value]))
        assert book.active
    book.record(torch.tensor([0.49]))
    assert statuses(book) == (Status.STAGNATED,)


def test_stagnation_of_the_true_residual_refuses_a_claim() -> None:
    book = ledger(3)
    book.record(torch.full((3,), SMALL))
    assert not book.active
    # The first is as small as it claims; the second fell by half and goes on; the third did not.
    book.verify(torch.tensor([SMALL, 0.4, 0.6]))
    assert book.running.tolist() == [False, True, False]
    book.stop(book.running, Status.MAX_ITERATIONS)
    expected = (Status.CONVERGED, Status.MAX_ITERATIONS, Status.STAGNATED)
    assert book.result(torch.zeros(1)).statuses == expected


def test_the_limit_and_a_nan_are_told_apart() -> None:
    book = ledger(2, window=50, most=2)
    book.record(torch.tensor([0.5, 0.5]))
    book.record(torch.tensor([0.25, torch.nan]))
    book.verify(torch.tensor([0.25, torch.nan]))
    expected = (Status.MAX_ITERATIONS, Status.NOT_FINITE)
    assert book.result(torch.zeros(1)).statuses == expected
