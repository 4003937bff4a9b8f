"""Networks from elsewhere: trained, kept, evaluated and solving, and never run unasked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn
from training.waves import data, family
from typer.testing import CliRunner

from sciml.app.cli import app
from sciml.app.generate import generate
from sciml.app.read import load_training
from sciml.core.errors import InputError
from sciml.core.run.status import Doubt
from sciml.operators import Operator, load_operator
from sciml.operators.module import Module, architecture, choices, trusted
from sciml.solvers import Surrogate
from sciml.solvers.solve import solve
from sciml.training import Constant, Files, Training, fit, open_data

CODE = """
from pathlib import Path
import torch
Path("was_imported").touch()

class Net(torch.nn.Module):
    def __init__(self, signature, width=4, sizes=(3,), out=None):
        super().__init__()
        make = (torch.nn.Conv1d, torch.nn.Conv2d)[signature.dimension - 1]
        self.inner = make(len(signature.inputs), width, sizes[0], padding=sizes[0] // 2)
        self.outer = make(width, out or len(signature.outputs), 1)

    def forward(self, x):
        return self.outer(torch.tanh(self.inner(x)))

class WithExtras(Net):
    # As neuraloperator's: complex weights, and a dict among the state.
    def __init__(self, signature):
        super().__init__(signature)
        self.spectral = torch.nn.Parameter(torch.ones(1, dtype=torch.cfloat))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(super().forward(x)) * self.spectral, x.shape[-1])

    def state_dict(self, destination=None, prefix="", keep_vars=False):
        found = super().state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        found["_metadata"] = {"width": 4}
        return found

def plain(width):
    return width
"""
SHORT = Training(epochs=2, batch=4)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, in which somebody's module lies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_networks.py").write_text(CODE)
    yield tmp_path
    sys.modules.pop("my_networks", None)


@architecture
@dataclass(frozen=True)
class Pointwise:
    """A linear map of every point's channels."""

    bias: bool = True
    kind: Literal["pointwise"] = "pointwise"

    def build(self, signature: Any) -> nn.Module:
        """A convolution of width one."""
        return nn.Conv1d(len(signature.inputs), len(signature.outputs), 1, bias=self.bias)


def test_a_registered_architecture_is_like_ours(tmp_path: Path) -> None:
    operator = fit(Pointwise(bias=False), data(), SHORT, tmp_path / "run")
    again = load_operator(tmp_path / "run")
    x = data().train[0]["x"][None]
    assert torch.equal(operator(x), again(x)) and again.options == Pointwise(bias=False)
    assert operator.provenance["code"]["import"].endswith("test_foreign_networks.Pointwise")
    (tmp_path / "s.yaml").write_text(
        "data: {kind: files, folder: d}\noperator: {kind: pointwise, bias: false}\n"
    )
    assert load_training(tmp_path / "s.yaml").operator == Pointwise(bias=False)
    assert Pointwise in choices()
    with pytest.raises(InputError, match="needs kind"):
        architecture(Operator)


def test_a_module_is_kept_with_its_code_and_trains_to_the_same_bits(elsewhere: Path) -> None:
    options = Module("my_networks.Net", {"width": 3, "sizes": (5,)})
    with trusted():
        operator = fit(options, data(), SHORT, "run")
        again = load_operator("run")
        x = data().train[0]["x"][None]
        assert torch.equal(operator(x), again(x)) and not again.notes
        assert again.options == options and len(again.provenance["code"]["sha256"]) == 64
        (elsewhere / "my_networks.py").write_text(CODE.replace("tanh", "sin"))
        assert "has changed since" in load_operator("run").notes[0]
        with pytest.raises(InputError, match=r"code\.sha256 was"):
            fit(options, data(), SHORT, "run")
    with pytest.raises(InputError, match="importing it runs it"):
        load_operator("run")


def test_complex_weights_and_a_state_with_more_than_tensors_are_kept(elsewhere: Path) -> None:
    x, training = data().train[0]["x"][None], Training(epochs=2, batch=4, schedule=Constant())
    with trusted():
        options = Module("my_networks.WithExtras")
        operator = fit(options, data(), training, "run")
        spectral = dict(operator.named_parameters())["network.spectral"]
        assert spectral.is_complex() and float(spectral.detach().imag.abs()) > 0
        assert torch.equal(load_operator("run")(x), operator(x))
        more = Training(epochs=3, batch=4, schedule=Constant())
        assert torch.equal(fit(options, data(), more, "run")(x), fit(options, data(), more)(x))
        fit(options, data(), more, "on", start="run")


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("my_network.Net", {}, "cannot import"),
        ("my_networks.Nets", {}, "did you mean 'Net'"),
        ("Net", {}, "no import path"),
        ("my_networks.Net", {"widht": 3}, "did you mean 'width'"),
        ("my_networks.plain", {}, "missing 1 required"),
        ("my_networks.plain", {"width": 3}, "makes a int, not a torch.nn.Module"),
        ("my_networks.Net", {"out": 2}, r"it must give \[\d+, 1, 9\]"),
        ("my_networks.Net", {"sizes": (2,)}, r"it must give \[\d+, 1, 9\]"),
    ],
)
def test_a_network_that_does_not_fit_is_one_line(
    path: str, options: dict[str, Any], said: str, elsewhere: Path
) -> None:
    with trusted(), pytest.raises(InputError, match=said) as error:
        fit(Module(path, options), data(), SHORT)
    assert "\n" not in str(error.value)


def call(*words: str, code: int = 0) -> str:
    """A command, as in a process that has not imported the network."""
    sys.modules.pop("my_networks", None)
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == code, result.output
    return result.output


def test_a_fresh_process_loads_with_trust_alone(elsewhere: Path) -> None:
    with trusted():
        operator = fit(Module("my_networks.Net"), data(), SHORT, "run")
    Path("was_imported").unlink()
    program = (
        "from sciml.core.errors import InputError\n"
        "from sciml.operators import load_operator\n"
        "from sciml.operators.module import trusted\n"
        "try:\n    load_operator('run')\nexcept InputError as error:\n    print(error)\n"
        "import os, torch\nprint(os.path.exists('was_imported'))\n"
        "with trusted():\n    f = load_operator('run')\n"
        "print(f(torch.ones(1, 1, 9)).sum().item())\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, imported, total = said.stdout.splitlines()
    assert "importing it runs it" in first and imported == "False"
    assert float(total) == float(operator(torch.ones(1, 1, 9)).sum().detach())


def test_a_spec_runs_code_with_trust_alone(elsewhere: Path) -> None:
    x = torch.rand(6, 9, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez("d.npz", x=x, y=x**2)
    Path("s.yaml").write_text(
        "data: {kind: files, file: d.npz, train: 4, valid: 1}\n"
        "operator: {kind: module, import: my_networks.Net, options: {width: 3, sizes: [3]}}\n"
        "training: {epochs: 1, batch: 4}\n"
    )
    told = call("train", "s.yaml", "--out", "run", code=2)
    assert "s.yaml:2" in told and "--trust" in told and not Path("was_imported").exists()
    with trusted():
        fit(load_training("s.yaml").operator, open_data(Files(file="d.npz", train=4)), SHORT, "run")
    Path("my_networks.py").write_text(CODE + "\n# changed\n")
    Path("was_imported").unlink()
    assert "--trust" in call("evaluate", "run", "--data", "d.npz", code=2)
    assert not Path("was_imported").exists()
    assert "has changed since" in call("evaluate", "run", "--data", "d.npz", "--trust")
    found = json.loads(Path("run/evaluation/evaluation.json").read_text())
    assert found["notes"] and found["kind"] == "module"


def test_a_module_answers_as_a_surrogate(elsewhere: Path) -> None:
    made = family()
    generate(made.with_count(3), "data")
    with trusted():
        fit(Module("my_networks.Net"), open_data(Files("data"), made), SHORT, "run")
        Path("my_networks.py").write_text(CODE + "\n# changed\n")
        problem = made.sample(9, [0])
        answer = solve(problem, Surrogate("run"), on=made.grid, throw=False)
    assert answer.certificate is not None
    assert any(isinstance(note, Doubt) and "has changed" in note for note in answer.notes)
    with pytest.raises(InputError, match="importing it runs it"):
        solve(problem, Surrogate("run"), on=made.grid, throw=False)
