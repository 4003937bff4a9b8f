"""The training loop: steps, rates and rows as they are on paper, whatever interrupts them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from sciml.core.disk import claimed
from sciml.core.errors import InputError
from sciml.core.run.training_run import (
    CHECKPOINT,
    HISTORY,
    TRAINING,
    Step,
    TrainingError,
    TrainingRun,
    seeded,
)
from sciml.core.run.weights import FILE, read_file
from sciml.solvers.learned.preconditioner_training import PreconditionerTask
from sciml.solvers.learned.weights import read_stored


class Parabola:
    """(w - 1)^2 / 2 from w = 0, three steps an epoch, at the rates 1/2, 1/3, 1/4, ..."""

    columns = ("loss", "distance")
    validated = ("valid_loss",)
    per_epoch = 3

    def __init__(self) -> None:
        self.network = torch.nn.Linear(1, 1, bias=False).double()
        self.network.weight.data.zero_()
        self.kept: list[float] = []
        self.asked: list[tuple[int, int]] = []

    def steps(self, epoch: int, first: int) -> Iterator[Step]:
        for number in range(first, self.per_epoch):
            self.asked.append((epoch, number))
            gap = (self.network.weight - 1).sum()
            loss = gap**2 / 2
            yield Step(loss, (loss.detach(), gap.detach().abs()), lambda: "nowhere")

    def rate(self, step: int) -> float:
        return 1 / (step + 2)

    def validate(self, epoch: int) -> Mapping[str, float]:
        return {"valid_loss": float(self.network.weight)} if epoch % 2 else {}

    def keep(self, row: Mapping[str, float], rows: Sequence[Mapping[str, float]]) -> bool:
        self.kept.append(row["epoch"])
        return len(self.kept) == 2


def run(task: Parabola, out: Path | None, **options: float) -> TrainingRun:
    optimiser = torch.optim.SGD(task.network.parameters(), lr=1.0)
    return TrainingRun(task.network, optimiser, task, {"seed": 0}, out, **options)  # type: ignore[arg-type]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / HISTORY, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_steps_rates_and_rows_are_those_of_paper(tmp_path: Path) -> None:
    """At the rate 1 / (k + 2) the distance 1 becomes prod (1 - 1 / (k + 2)) = 1 / (k + 2)."""
    task = Parabola()
    run(task, tmp_path).finish(3)
    assert float(task.network.weight) == pytest.approx(1 - 1 / 10)
    assert task.asked == [(epoch, number) for epoch in range(3) for number in range(3)]
    table = rows(tmp_path)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [row["steps"] for row in table] == ["3", "6", "9"]
    for k, row in enumerate(table):
        distances = [1 / (3 * k + i + 1) for i in range(3)]
        assert float(row["rate"]) == pytest.approx(1 / (3 * k + 4))
        assert float(row["distance"]) == pytest.approx(math.fsum(distances) / 3)
        assert float(row["loss"]) == pytest.approx(math.fsum(d * d / 2 for d in distances) / 3)
    assert [bool(row["valid_loss"]) for row in table] == [True, False, True]
    assert float(table[2]["valid_loss"]) == pytest.approx(0.9)
    assert task.kept == [1, 2, 3]


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_run_that_stopped_anywhere_goes_on(stop: int, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    class Stopping(Parabola):
        def rate(self, step: int) -> float:
            if step == stop and len(self.asked) == stop + 1:
                raise Stopped
            return super().rate(step)

    with pytest.raises(Stopped):
        run(Stopping(), tmp_path, checkpoint=0.0).finish(3)
    state = read_file(tmp_path / CHECKPOINT, "training run")
    assert 3 * state.provenance["epoch"] + state.provenance["step"] == stop
    task = Parabola()
    run(task, tmp_path).finish(3)
    assert task.asked[0] == divmod(stop, 3) or stop % 3 == 0
    assert float(task.network.weight) == pytest.approx(1 - 1 / 10, abs=1e-15)
    whole = Parabola()
    run(whole, tmp_path / "whole").finish(3)
    assert torch.equal(whole.network.weight, task.network.weight)
    one, other = rows(tmp_path), rows(tmp_path / "whole")
    for name in ("epoch", "steps", "rate", "loss", "distance", "valid_loss"):
        assert [row[name] for row in one] == [row[name] for row in other]


def test_the_state_goes_with_what_is_kept(tmp_path: Path) -> None:
    """The task kept after the second epoch alone; nothing else was due."""
    epochs = []

    def look(epoch: int, total: int, row: Mapping[str, float]) -> None:
        there = (tmp_path / CHECKPOINT).is_file()
        found = read_file(tmp_path / CHECKPOINT, "training run").provenance if there else {}
        epochs.append(found.get("epoch"))

    run(Parabola(), tmp_path).finish(3, look)
    assert epochs == [None, 2, 2]


def test_a_loss_or_a_weight_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    class Broken(Parabola):
        def rate(self, step: int) -> float:
            return math.inf if step == 4 else super().rate(step)

    for out, told in ((None, "nothing was kept"), (tmp_path, "the last good state is in")):
        with pytest.raises(TrainingError, match=f"epoch 2, batch 3 of 3, nowhere; {told}"):
            run(Broken(), out, checkpoint=1e9).finish(3)
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_claimed_folder_is_anothers_and_litter_goes(tmp_path: Path) -> None:
    litter = [
        tmp_path / f".{name}"
        for name in (f"checkpoint.{0:016x}.safetensors", f"weights.{77:016x}.safetensors")
    ]
    with claimed(tmp_path, TRAINING):
        pass
    for path in (*litter, tmp_path / ".mine"):
        path.write_text("")
    with claimed(tmp_path, TRAINING):
        assert not any(path.exists() for path in litter) and (tmp_path / ".mine").exists()
        with (
            pytest.raises(InputError, match="another run is training"),
            claimed(tmp_path, TRAINING),
        ):
            pass


def test_a_seed_leaves_the_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    with seeded(3):
        first = torch.rand(4)
    assert torch.equal(before, torch.get_rng_state())
    with seeded(3):
        assert torch.equal(first, torch.rand(4))


def test_the_weights_of_the_best_epoch_are_kept(tmp_path: Path) -> None:
    """By the validation loss; where two are equal, the later."""
    network = torch.nn.Linear(1, 1, bias=False)
    losses = iter([3.0, 1.0, 2.0, 1.0, 5.0])
    seen: list[torch.Tensor] = []

    def measure() -> dict[str, float]:
        seen.append(network.weight.detach().clone())
        return {"valid_loss": next(losses)}

    task = PreconditionerTask(
        "some", tmp_path, {"seed": 0, "rate": 0.1}, {}, network, 2,
        lambda step: ((network.weight + step).square().sum(),), lambda step: 0.1, measure,
        validated=("valid_loss",),
    )  # fmt: skip
    best = []
    task.train(5, lambda *_: best.append(read_stored(tmp_path / FILE, "some").tensors["weight"]))
    for epoch, kept in enumerate((0, 1, 1, 3, 3)):
        assert torch.equal(best[epoch], seen[kept])


def test_a_validation_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    task = PreconditionerTask(
        "some", tmp_path, {"seed": 0, "rate": 0.1}, {}, network, 1,
        lambda step: (network.weight.square().sum(),), lambda step: 0.1,
        lambda: {"valid_loss": math.nan}, validated=("valid_loss",),
    )  # fmt: skip
    with pytest.raises(TrainingError, match="valid_loss is nan after epoch 1"):
        task.train(3, None)
    assert not (tmp_path / FILE).exists()
