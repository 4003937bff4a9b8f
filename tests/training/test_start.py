"""Runs that begin with another's weights, and runs that get more epochs."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from training.waves import data

from sciml.core.errors import InputError
from sciml.operators import FNO, load_operator
from sciml.training import Constant, Steps, Training, TrainingData, fit

NET = FNO(modes=2, width=4, layers=1)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("schedule", [Constant(), Steps(every=2)])
def test_more_epochs_in_the_same_folder_are_those_of_one_run(
    schedule: Constant | Steps, tmp_path: Path
) -> None:
    short, long = (Training(epochs=n, batch=5, schedule=schedule) for n in (3, 5))
    fit(NET, data(), short, tmp_path / "run")
    more = fit(NET, data(), long, tmp_path / "run")
    assert same(more, fit(NET, data(), long))
    assert same(more, load_operator(tmp_path / "run"))
    with open(tmp_path / "run" / "history.csv", encoding="utf-8") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("12345")
    with pytest.raises(InputError, match="5 epochs done already"):
        fit(NET, data(), short, tmp_path / "run")


def test_a_schedule_over_all_epochs_cannot_have_more(tmp_path: Path) -> None:
    fit(NET, data(), Training(epochs=1), tmp_path)
    with pytest.raises(InputError, match="one_cycle is laid out over all epochs"):
        fit(NET, data(), Training(epochs=2), tmp_path)


def test_a_run_starts_with_the_weights_of_another(tmp_path: Path) -> None:
    training = Training(epochs=2, batch=5, schedule=Constant())
    first = fit(NET, data(), training, tmp_path / "a")
    other = data(6)
    still = TrainingData(other.train, other.valid, other.signature)
    rested = fit(NET, still, Training(epochs=1, batch=6, clip=1e-30), start=tmp_path / "a")
    moved = max(
        float((a - b).abs().max())
        for a, b in zip(first.state_dict().values(), rested.state_dict().values(), strict=True)
    )
    assert moved < 2e-3  # one step of Adam at half of the rate 1e-3
    on = fit(NET, data(6), training, tmp_path / "b", start=tmp_path / "a")
    assert on.provenance["start"]["path"] == str(tmp_path / "a")
    assert torch.equal(on.input_std, first.input_std)  # weights go with their own scaling
    assert same(on, fit(NET, data(6), training, start=tmp_path / "a"))
    with pytest.raises(InputError, match="start was"):
        fit(NET, data(6), training, tmp_path / "b")


def test_a_start_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    fit(NET, data(), Training(epochs=1), tmp_path / "a")
    plane = data(dimension=2)
    for options, given, out, said in (
        (FNO(modes=2, width=5, layers=1), data(), "b", "has operator.width 4, and not 5"),
        (NET, plane, "b", "has the boundary dirichlet; the data have dirichlet, dirichlet"),
        (NET, data(), "a", "its own folder"),
    ):
        with pytest.raises(InputError, match=said) as error:
            fit(options, given, Training(epochs=1), tmp_path / out, start=tmp_path / "a")
        assert error.value.key == "start" and "\n" not in str(error.value)
    with pytest.raises(InputError, match="no operator at"):
        fit(NET, data(), Training(epochs=1), start=tmp_path / "none")
