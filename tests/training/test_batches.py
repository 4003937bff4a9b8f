from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from shards import dataset
from waves import data, family, samples, signature

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData
from sciml.datasets.stream import Stream
from sciml.training import Files, Fresh, TensorData, TrainingData, open_data
from sciml.training import data as training_data
from sciml.training.data import Batch, Sampling, Solving, open_batches, order
from sciml.training.distributed import World

CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)


def numbers(found: list[Batch]) -> list[int]:
    return torch.cat([batch.samples for batch in found]).tolist()


@pytest.mark.parametrize("batch", [1, 4, 5, 12, 20])
def test_an_epoch_has_every_sample_once(batch: int) -> None:
    source = open_batches(data(12), batch, 0, torch.float32, ALONE)
    found = list(source.epoch(3, 0))
    assert len(found) == source.per_epoch and sorted(numbers(found)) == list(range(12))
    for part in found:
        torch.testing.assert_close(part.x, samples(12).x[part.samples], rtol=0, atol=0)
        torch.testing.assert_close(part.y, samples(12).y[part.samples], rtol=0, atol=0)
        assert part.total == len(part.x)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert order(0, 0, 50).tolist() == order(0, 0, 50).tolist()
    orders = {tuple(order(seed, epoch, 50).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("batch", [2, 5, 7])
def test_processes_share_a_batch(size: int, batch: int) -> None:
    def epoch(world: World) -> list[Batch]:
        return list(open_batches(data(12), batch, 1, torch.float32, world).epoch(0, 1))

    parts = [epoch(World(rank, size, CPU)) for rank in range(size)]
    for whole, *own in zip(epoch(ALONE), *parts, strict=True):
        assert torch.cat([part.samples for part in own]).tolist() == whole.samples.tolist()
        assert {part.total for part in own} == {whole.total}
        # Every process has something to compute, even where it does not count.
        assert all(len(part.x) == max(1, len(part.samples)) for part in own)


def test_memory_and_files_give_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset(tmp_path)
    stored = TrainingData(OperatorData(tmp_path, "train"), None, signature(9, 2))
    held = open_batches(stored, 2, 0, torch.float32, ALONE)
    monkeypatch.setattr(training_data, "free_bytes", lambda device: 100)
    read = open_batches(stored, 2, 0, torch.float32, ALONE)
    assert isinstance(held, Sampling) and isinstance(held.data, TensorData)
    assert isinstance(read, Sampling) and isinstance(read.data, OperatorData)
    for ours, theirs in zip(held.epoch(2, 1), read.epoch(2, 1), strict=True):
        assert ours.samples.tolist() == theirs.samples.tolist()
        torch.testing.assert_close(ours.x, theirs.x, rtol=0, atol=0)
        torch.testing.assert_close(ours.y, theirs.y, rtol=0, atol=0)


@pytest.mark.parametrize("aligned", [True, False])
def test_values_at_points(tmp_path: Path, aligned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset(tmp_path)
    opened = open_data(Files(str(tmp_path), points=7, aligned=aligned))
    held = open_batches(opened, 2, 0, torch.float32, ALONE)
    assert held.first().y.shape == (5, 1, 9, 5)
    monkeypatch.setattr(training_data, "free_bytes", lambda device: 100)
    read = open_batches(opened, 2, 0, torch.float32, ALONE)
    assert isinstance(read, Sampling) and not isinstance(read.data, TensorData)
    for ours, theirs in zip(held.epoch(0, 0), read.epoch(0, 0), strict=True):
        count = len(ours.x)
        assert ours.points is not None and theirs.points is not None
        assert ours.points.shape == ((7, 2) if aligned else (count, 7, 2))
        torch.testing.assert_close(ours.points.expand(count, 7, 2), theirs.points)
        torch.testing.assert_close(ours.y, theirs.y)


def test_a_stream_solves_new_samples_and_needs_no_state() -> None:
    opened = open_data(Fresh(family(), batches=2, valid=3))
    assert opened.signature.inputs == ("K",) and opened.signature.outputs == ("u",)
    assert opened.signature.boundary == ("dirichlet", "dirichlet") and opened.batches == 2
    assert isinstance(opened.train, Stream) and isinstance(opened.valid, TensorData)
    source = open_batches(opened, 4, 0, torch.float32, ALONE)
    assert isinstance(source, Solving) and source.per_epoch == 2
    found = [batch for epoch in range(3) for batch in source.epoch(epoch, 0)]
    assert max(Counter(numbers(found)).values()) == 1
    again = next(iter(source.epoch(1, 1)))
    torch.testing.assert_close(again.x, found[3].x, rtol=0, atol=0)
    torch.testing.assert_close(again.y, found[3].y, rtol=0, atol=0)
    parts = [
        next(iter(open_batches(opened, 4, 0, torch.float32, World(rank, 3, CPU)).epoch(1, 1)))
        for rank in range(3)
    ]
    assert torch.cat([part.samples for part in parts]).tolist() == found[3].samples.tolist()
    torch.testing.assert_close(torch.cat([part.x for part in parts]), found[3].x)
    assert not any((opened.valid.x[0] == batch.x).flatten(1).all(1).any() for batch in found)


def test_more_processes_than_a_streams_batch_are_refused() -> None:
    opened = open_data(Fresh(family(), batches=2, valid=1))
    with pytest.raises(InputError, match="3 processes need batches"):
        open_batches(opened, 2, 0, torch.float32, World(0, 3, CPU))
