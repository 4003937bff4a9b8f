from __future__ import annotations

import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from waves import data, stopped_after

from sciml.core.errors import InputError
from sciml.operators import FNO, LSM, DeepONet, MgNO, load_operator
from sciml.operators.operator import Operator
from sciml.training import Adam, Training, fit
from sciml.training.distributed import World

TRAINING = Training(epochs=3, batch=4, optimiser=Adam(1e-2), precision="float64")
NETS = [FNO(modes=4, width=4, layers=1), MgNO(width=4, layers=1, levels=2), DeepONet()]


def _train(rank: int, port: int, call: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in found.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    fit(*call)


def two_processes(*call: Any) -> None:
    """The same call of ``fit`` in two processes, as torchrun makes it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_train, args=(rank, port, call)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def difference(one: Operator, two: Operator) -> float:
    """The largest relative difference of the weights and the scaling."""
    pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a.numel())


def history(folder: Path) -> torch.Tensor:
    """Rate, loss and validation errors of every epoch."""
    rows = [line.split(",")[4:] for line in (folder / "history.csv").read_text().split()[1:]]
    return torch.tensor([[float(value) for value in row] for row in rows])


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.kind)
@pytest.mark.parametrize(
    ("count", "change"),
    [
        (12, {}),
        (13, {"clip": 0.05}),  # the last batch has one sample, and one process none
        (10, {"batch": 5}),
    ],
    ids=["even", "one left", "odd"],
)
def test_two_processes_are_one(
    net: Any, count: int, change: dict[str, Any], tmp_path: Path
) -> None:
    training = replace(TRAINING, **change)
    alone = fit(net, data(count), training, tmp_path / "alone")
    two_processes(net, data(count), training, tmp_path / "two")
    together = load_operator(tmp_path / "two")
    assert together.provenance["processes"] == 2
    assert difference(alone, together) < 1e-9
    own, theirs = (history(tmp_path / name) for name in ("alone", "two"))
    torch.testing.assert_close(own, theirs, rtol=1e-6, atol=0)


def test_in_single_precision_to_rounding(tmp_path: Path) -> None:
    training = replace(TRAINING, precision="float32")
    alone = fit(NETS[1], data(), training)
    two_processes(NETS[1], data(), training, tmp_path)
    assert difference(alone, load_operator(tmp_path)) < 1e-3


@pytest.mark.parametrize("saves", [5, 6], ids=["in an epoch", "between epochs"])
def test_two_processes_go_on_where_one_stopped(
    saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(TRAINING, checkpoint=0)
    alone = fit(NETS[1], data(), training, tmp_path / "alone")
    stopped_after(saves, monkeypatch, NETS[1], data(), training, tmp_path / "two")
    two_processes(NETS[1], data(), training, tmp_path / "two")
    assert difference(alone, load_operator(tmp_path / "two")) < 1e-9
    own, theirs = (history(tmp_path / name) for name in ("alone", "two"))
    torch.testing.assert_close(own, theirs, rtol=1e-6, atol=0)


def test_batch_normalisation_is_not_shared_out() -> None:
    net = Operator.build(LSM(width=8, scales=2), data().signature)
    alone, one_of_two = (World(0, size, torch.device("cpu")) for size in (1, 2))
    assert alone.wrap(net) is net
    with pytest.raises(InputError, match="normalises over the whole batch"):
        one_of_two.wrap(net)
