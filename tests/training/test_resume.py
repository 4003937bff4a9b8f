from __future__ import annotations

import csv
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from waves import data, family, stopped_after

from sciml.operators import FNO, LSM, DeepONet, MgNO, RelativeL2, Residual
from sciml.training import (
    Adam,
    AdamW,
    Fresh,
    Training,
    TrainingData,
    fit,
    open_data,
)

# Four batches an epoch, the last of them smaller; a checkpoint after every step.
TRAINING = Training(epochs=3, batch=3, optimiser=Adam(1e-2), checkpoint=0)
NETS = [
    FNO(modes=4, width=4, layers=1),
    MgNO(width=4, layers=1, levels=2),
    DeepONet(),
    LSM(width=8, scales=2, basis=2),
]


def table(folder: Path) -> list[list[str]]:
    """The history without its times."""
    with open(folder / "history.csv", encoding="utf-8") as file:
        return [row[:2] + row[4:] for row in csv.reader(file)]


def assert_equal(one: torch.nn.Module, two: torch.nn.Module) -> None:
    for (name, a), (_, b) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
@pytest.mark.parametrize("saves", [1, 4, 5, 12])
def test_a_resumed_run_is_equal_to_the_bit(
    net: Any, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(net, data(11), TRAINING, tmp_path / "whole")
    stopped_after(saves, monkeypatch, net, data(11), TRAINING, tmp_path / "parts")
    parts = fit(net, data(11), TRAINING, tmp_path / "parts")
    assert_equal(whole, parts)
    assert table(tmp_path / "whole") == table(tmp_path / "parts")


@pytest.mark.parametrize(
    "change",
    [{"precision": "float64"}, {"precision": "bfloat16"}, {"optimiser": AdamW(1e-2), "clip": 0.1}],
    ids=str,
)
def test_with_other_settings_too(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(TRAINING, **change)
    whole = fit(NETS[1], data(11), training)
    for saves in (2, 3):  # stopped twice
        stopped_after(saves, monkeypatch, NETS[1], data(11), training, tmp_path)
    assert_equal(whole, fit(NETS[1], data(11), training, tmp_path))


@pytest.mark.parametrize("loss", [RelativeL2(), Residual()], ids=lambda loss: loss.kind)
def test_problems_solved_meanwhile_go_on(
    loss: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = open_data(Fresh(family(), batches=2, valid=3))
    training = replace(TRAINING, epochs=2, batch=2, loss=loss)
    whole = fit(NETS[1], fresh, training, tmp_path / "whole")
    stopped_after(3, monkeypatch, NETS[1], fresh, training, tmp_path / "parts")
    parts = fit(NETS[1], fresh, training, tmp_path / "parts")
    assert_equal(whole, parts)
    assert table(tmp_path / "whole") == table(tmp_path / "parts")
    assert whole.provenance["places"] == {"K": "problem.equation.K"}
    assert whole.provenance["spec"]["equation"]["f"] == 1.0


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    whole = fit(NETS[0], data(11), TRAINING, tmp_path)
    calls: list[Any] = []
    again = fit(NETS[0], data(11), TRAINING, tmp_path, progress=lambda *call: calls.append(call))
    assert_equal(whole, again)
    assert not calls and again.provenance["seconds"] == whole.provenance["seconds"] > 0


def test_seconds_are_summed_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped_after(9, monkeypatch, NETS[0], data(11), TRAINING, tmp_path)
    with open(tmp_path / "history.csv", encoding="utf-8") as file:
        before = [float(row["seconds"]) for row in csv.DictReader(file)]
    operator = fit(NETS[0], data(11), TRAINING, tmp_path)
    assert 0 < before[0] < before[1] < operator.provenance["seconds"]


def _train(given: TrainingData, training: Training, folder: str) -> None:
    torch.set_num_threads(1)
    fit(NETS[1], given, training, folder)


def test_killed_runs_go_on(tmp_path: Path) -> None:
    """Three times kill -9 at a random moment after the first step."""
    training = replace(TRAINING, epochs=60)
    whole = fit(NETS[1], data(11), replace(training, checkpoint=1e9))
    context, moment = multiprocessing.get_context("fork"), random.Random(0)
    state = tmp_path / "checkpoint.safetensors"
    for _ in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = context.Process(target=_train, args=(data(11), training, str(tmp_path)))
        process.start()
        while process.is_alive() and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.002)
        time.sleep(moment.uniform(0, 0.05))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it was to be killed before its end"
    assert not (tmp_path / "weights.safetensors").exists()
    assert_equal(whole, fit(NETS[1], data(11), replace(training, checkpoint=1e9), tmp_path))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
