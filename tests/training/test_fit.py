from __future__ import annotations

import csv
import importlib.util
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from waves import data, samples, signature

from sciml.core.errors import InputError
from sciml.core.run.training_run import TrainingError
from sciml.operators import FNO, DeepONet, MgNO, RelativeH1, RelativeL2, load_operator
from sciml.operators.operator import Signature
from sciml.training import (
    Adam,
    AdamW,
    Constant,
    TensorData,
    Training,
    TrainingData,
    fit,
)
from sciml.training.data import order

NET = FNO(modes=4, width=6, layers=2)
QUICK = Training(epochs=2, batch=5)


@dataclass(frozen=True)
class Line:
    """One convolution; NaN for inputs more than six deviations away."""

    kind: Literal["line"] = "line"

    def build(self, signature: Signature) -> torch.nn.Module:
        return LineNetwork()


class LineNetwork(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        inside = (z.abs().amax((1, 2), keepdim=True) < 6).to(z.dtype)
        return self.layer(z) * inside / inside


class Watched(LineNetwork):
    """Records the type that its convolution answers in."""

    types: ClassVar[set[torch.dtype]] = set()

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        y = self.layer(z)
        if self.training:
            self.types.add(y.dtype)
        return y


@dataclass(frozen=True)
class WatchedLine:
    """A network that says what it was computed in."""

    kind: Literal["watched"] = "watched"

    def build(self, signature: Signature) -> torch.nn.Module:
        return Watched()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_the_network_is_computed_in_the_precision_asked_for(precision: Any) -> None:
    """Its weights are kept in it too, but in single for half."""
    Watched.types.clear()
    operator = fit(WatchedLine(), data(6), Training(epochs=1, batch=3, precision=precision))
    assert Watched.types == {getattr(torch, precision)}
    kept = torch.float64 if precision == "float64" else torch.float32
    assert {value.dtype for value in operator.parameters()} == {kept}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "history.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights(operator: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in operator.state_dict().items()}


@pytest.mark.parametrize(("net", "bound"), [(NET, 0.4), (MgNO(width=6, layers=2, levels=2), 0.1)])
def test_an_integral_operator_is_learnt(net: Any, bound: float, tmp_path: Path) -> None:
    training = Training(epochs=30, batch=8, optimiser=Adam(1e-2))
    operator = fit(net, data(48), training, tmp_path)
    held = samples(20, first=7)
    with torch.no_grad():
        error = RelativeL2().build(signature())(operator(held.x), held.y, held.x).mean()
    assert error < bound
    assert float(rows(tmp_path)[0]["valid_l2"]) > 2 * error


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first, before = weights(fit(NET, data(), QUICK)), torch.get_rng_state()
    torch.manual_seed(2)
    again = weights(fit(NET, data(), QUICK))
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"
    other = weights(fit(NET, data(), replace(QUICK, seed=1)))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_mean_over_a_batch_is_what_is_descended() -> None:
    """Adam's first step is the rate times the gradient over its magnitude."""
    one = Training(epochs=1, batch=7, schedule=Constant(), loss=RelativeH1(), precision="float64")
    operator = fit(NET, data(7), one)
    start = fit(NET, data(7), replace(one, optimiser=Adam(1e-30)))
    x, y = (value.double() for value in (samples(7).x, samples(7).y))
    RelativeH1().build(signature())(start(x), y, x).mean().backward()
    for moved, own in zip(operator.parameters(), start.parameters(), strict=True):
        assert own.grad is not None
        expected = own - 1e-3 * own.grad / (own.grad.abs() + 1e-8)
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-9)


def test_history_and_operator_are_written(tmp_path: Path) -> None:
    calls: list[tuple[int, int, dict[str, float]]] = []
    training = replace(QUICK, epochs=3, validate=2)
    operator = fit(NET, data(), training, tmp_path, progress=lambda *call: calls.append(call))
    table = rows(tmp_path)
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert [row["steps"] for row in table] == ["3", "6", "9"]
    assert [bool(row["valid_l2"]) for row in table] == [False, True, True]
    assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
    assert float(table[2]["valid_h1"]) == pytest.approx(calls[2][2]["valid_h1"])
    assert float(table[0]["seconds"]) < float(table[1]["seconds"])
    loaded = load_operator(tmp_path)
    x = samples(3).x
    torch.testing.assert_close(loaded(x), operator(x), rtol=0, atol=0)
    kept = loaded.provenance
    assert kept["dataset"] == "waves" and kept["epochs"] == 3 and kept["seed"] == 0
    assert kept["training"]["optimiser"]["kind"] == "adam" and "torch" in kept["versions"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_validation_is_the_mean_over_all_samples(tmp_path: Path) -> None:
    given = data()
    operator = fit(NET, given, QUICK, tmp_path)
    held = given.valid
    assert isinstance(held, TensorData)
    with torch.no_grad():
        found = operator(held.x)
    for name, loss in (("valid_l2", RelativeL2()), ("valid_h1", RelativeH1())):
        expected = loss.build(signature())(found, held.y, held.x).mean()
        assert float(rows(tmp_path)[-1][name]) == pytest.approx(float(expected), rel=1e-5)


def test_data_without_validation_is_trained_on(tmp_path: Path) -> None:
    fit(NET, replace(data(), valid=None), QUICK, tmp_path)
    assert [row["valid_l2"] for row in rows(tmp_path)] == ["", ""]


def test_gradients_are_clipped() -> None:
    """Adam with a tiny clip moves as if the gradient had just that length."""
    quick = Training(epochs=1, batch=12, optimiser=Adam(1.0), schedule=Constant(), clip=1e-12)
    start = fit(NET, data(), replace(quick, optimiser=Adam(1e-30)))
    moved = fit(NET, data(), quick)
    steps = [
        (a - b).abs().max() for a, b in zip(moved.parameters(), start.parameters(), strict=True)
    ]
    # Far below Adam's 1e-8, the step is gradient / 1e-8: at most the clip over it.
    assert max(steps) < 2e-4


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_precisions_reach_the_same_accuracy(precision: Any, tmp_path: Path) -> None:
    training = Training(epochs=12, batch=8, optimiser=Adam(1e-2))
    net = MgNO(width=6, layers=2, levels=2)
    fit(net, data(24), training, tmp_path / "plain")
    operator = fit(net, data(24), replace(training, precision=precision), tmp_path / precision)
    errors = [float(rows(tmp_path / name)[-1]["valid_l2"]) for name in ("plain", precision)]
    assert errors[1] < 1.3 * errors[0] + (0.01 if precision == "bfloat16" else 0.0)
    wanted = torch.float64 if precision == "float64" else torch.float32
    assert {p.dtype for p in operator.parameters()} == {wanted}
    loaded = load_operator(tmp_path / precision)
    x = samples(2).x
    torch.testing.assert_close(loaded(x), operator(x), rtol=0, atol=0)


@pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)
def test_compiled_is_as_accurate(tmp_path: Path) -> None:
    training, tables = Training(epochs=12, batch=4, optimiser=Adam(2e-2)), []
    for compiled in (False, True):
        choice = replace(training, compile=compiled)
        fit(Line(), data(8), choice, tmp_path / str(compiled))
        names = ("loss", "valid_l2", "valid_h1")
        table = rows(tmp_path / str(compiled))
        tables.append(torch.tensor([[float(row[name]) for name in names] for row in table]))
    assert tables[1][-1, 0] < 0.9 * tables[1][0, 0]
    torch.testing.assert_close(*tables, rtol=1e-4, atol=0)


@pytest.mark.parametrize("shared", [True, False])
def test_values_at_points_are_learnt(shared: bool) -> None:
    """A DeepONet from values at nodes learns as from the grid; here the nodes are the points."""
    grid, n = samples(40), 9
    nodes = torch.linspace(0, 1, n)[:, None]
    chosen = torch.stack([torch.randperm(n)[:6] for _ in range(40)])
    at = nodes if shared else nodes[chosen]
    y = grid.y if shared else grid.y.gather(2, chosen[:, None])
    given = TrainingData(TensorData(grid.x, y, at), samples(5, first=1), signature())
    rows: list[float] = []
    training = Training(epochs=60, batch=8, optimiser=Adam(5e-3))
    fit(
        DeepONet(), given, training, progress=lambda e, n, row: rows.append(row["valid_l2"])
    )  # fmt: skip
    assert rows[-1] < 0.15 < rows[0]


def test_the_first_nan_is_named(tmp_path: Path) -> None:
    given = data(12)
    assert isinstance(given.train, TensorData)
    given.train.x[7] *= 1000  # where Line divides zero by zero
    position = order(0, 0, 12).tolist().index(7) // 2 + 1
    told = f"nan in epoch 1, batch {position} of 6, at the samples 7; the last good state is in"
    with pytest.raises(TrainingError, match=told):
        fit(Line(), given, Training(epochs=2, batch=2), tmp_path)


@pytest.mark.parametrize("part", ["x", "y"])
def test_samples_that_are_not_finite_are_named(part: str) -> None:
    given = data(12)
    getattr(given.train, part)[7, 0, 4] = float("nan")
    with pytest.raises(InputError, match=r"puts of these training samples are not finite: 7$"):
        fit(NET, given, QUICK)


def test_weights_that_blow_up_are_not_kept(tmp_path: Path) -> None:
    wild = Training(epochs=20, batch=4, optimiser=AdamW(1e30), schedule=Constant(), checkpoint=0)
    with pytest.raises(TrainingError, match="last good state"):
        fit(NET, data(), wild, tmp_path)
    from safetensors.torch import load_file

    kept = tmp_path / "checkpoint.safetensors"
    if kept.is_file():
        assert all(v.isfinite().all() for v in load_file(kept).values() if v.is_floating_point())


def test_weights_that_the_last_step_spoils_are_never_returned() -> None:
    once = Training(epochs=1, batch=4, optimiser=Adam(1e39), schedule=Constant())
    with pytest.raises(TrainingError, match="is not finite after epoch 1"):
        fit(MgNO(width=2, layers=1, levels=1), data(4), once)


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    fit(NET, data(), QUICK, tmp_path)
    with pytest.raises(InputError, match=r"training\.batch was 5, now 4") as error:
        fit(NET, data(), replace(QUICK, batch=4), tmp_path)
    assert "operator" not in str(error.value)
    with pytest.raises(InputError, match=r"operator\.width was 6, now 4"):
        fit(replace(NET, width=4), data(), QUICK, tmp_path)
    with pytest.raises(InputError, match=r"data\.samples was 12, now 11"):
        fit(NET, data(11), QUICK, tmp_path)
    fit(NET, data(), replace(QUICK, checkpoint=1.0), tmp_path)


@pytest.mark.parametrize("damage", ["cut", "foreign", "weight", "header"])
def test_a_damaged_state_is_told(tmp_path: Path, damage: str) -> None:
    fit(NET, data(), QUICK, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    whole = path.read_bytes()
    changed = {
        "cut": whole[: len(whole) // 2],
        "foreign": b"no such thing",
        "weight": whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:],
        "header": whole.replace(b"cpu_seconds", b"cpu_secondz", 1),
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(InputError, match="is damaged, or no state of a training run"):
        fit(NET, data(), QUICK, tmp_path)


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    def again(epoch: int, epochs: int, row: Any) -> None:
        with pytest.raises(InputError, match="another run is training"):
            fit(NET, data(), QUICK, tmp_path)

    fit(NET, data(), replace(QUICK, epochs=1), tmp_path, progress=again)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is not None, reason="tensorboard is installed"
)
def test_a_missing_tensorboard_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pip install sciml-pde\[tensorboard\]") as error:
        fit(NET, data(), replace(QUICK, tensorboard=True), tmp_path)
    assert error.value.key == "training.tensorboard"


@pytest.mark.parametrize("device", ["gpu", "cuda"])
def test_a_missing_device_is_told(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError) as error:
        fit(NET, data(), QUICK, device=device)
    assert error.value.key == "device"
