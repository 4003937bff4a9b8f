"""``sciml train``: from a dataset to an operator on disk, and one line for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from sciml.app.cli import app
from sciml.app.read import dataset_family, load_family, load_training
from sciml.app.train import opened, read_history
from sciml.core.errors import InputError
from sciml.operators import load_operator

FAMILY = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: darcy, K: {kind: gaussian_field, alpha: 2, tau: 3, through: "exp(a)"}, f: 1}
  boundary: {left: {dirichlet: 0}, right: {dirichlet: 0},
    bottom: {dirichlet: 0}, top: {dirichlet: 0}}
grid: {shape: [9, 9]}
dataset: {name: small, inputs: {a: problem.equation.K}, splits: {train: 8, valid: 2}, shard: 5}
"""
SPEC = """
name: Small
data: {kind: files, folder: "%s", train: 6}
operator: {kind: mgno, width: 4, layers: 1, levels: 2}
training: {epochs: 3, batch: 2, schedule: {kind: constant}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a family, its dataset, and a spec to train on it."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "family.yaml").write_text(FAMILY)
    done = run("generate", folder / "family.yaml", "--out", folder / "data")
    assert done.exit_code == 0, done.output
    (folder / "spec.yaml").write_text(SPEC % (folder / "data"))
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_run_leaves_an_operator_its_history_and_a_report(home: Path, tmp_path: Path) -> None:
    done = run("train", home / "spec.yaml", "--out", tmp_path / "run", "--seed", 3)
    assert done.exit_code == 0, done.output
    operator = load_operator(tmp_path / "run")
    assert operator(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)
    rows = read_history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["seed"] == 3
    assert record["last"] == rows[-1]
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
    again = run("info", tmp_path / "run")
    assert "mgno" in again.output
    assert f"{rows[-1]['valid_l2']:.3e}" in again.output


def test_the_seed_and_the_settings_decide_the_run(home: Path, tmp_path: Path) -> None:
    def weights(name: str, *more: object) -> torch.Tensor:
        done = run("train", home / "spec.yaml", "--out", tmp_path / name, *more)
        assert done.exit_code == 0, done.output
        return torch.cat([p.flatten() for p in load_operator(tmp_path / name).parameters()])

    first = weights("a")
    assert torch.equal(first, weights("a"))  # finished: nothing is left to do
    assert torch.equal(first, weights("b", "--set", "training.checkpoint=0"))
    assert not torch.equal(first, weights("c", "--seed", 1))
    other = run("train", home / "spec.yaml", "--out", tmp_path / "a", "--set", "training.batch=3")
    assert other.exit_code == 2
    assert "training.batch was 2, now 3" in other.output


def test_a_stream_finds_its_family_beside_the_spec(home: Path) -> None:
    text = (home / "spec.yaml").read_text().splitlines()
    text[2] = (
        'data: {kind: stream, family: family.yaml, changes: ["grid.shape=[5,5]"], batches: 2, valid: 2}'  # noqa: E501
    )
    (home / "stream.yaml").write_text("\n".join(text))
    data = opened(load_training(home / "stream.yaml"))
    assert data.signature.grid.shape == (5, 5)
    assert data.batches == 2


def test_the_residual_is_that_of_the_equation_in_the_manifest(home: Path, tmp_path: Path) -> None:
    loss = "training.loss={kind: combined, terms: [{loss: {kind: residual}, weight: 0.5}]}"
    done = run("train", home / "spec.yaml", "--out", tmp_path / "run", "--set", loss)
    assert done.exit_code == 0, done.output
    whole = [row["loss"] for row in read_history(tmp_path / "run")]
    assert whole[-1] < whole[0]


def test_one_of_several_processes_tells(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    done = run("train", home / "spec.yaml", "--out", tmp_path / "run")
    assert done.exit_code == 0 and done.output == ""
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_dataset_gives_its_family_back(home: Path) -> None:
    family = dataset_family(home / "data")
    assert family == load_family(home / "family.yaml")
    assert dataset_family(home / "data" / "at-5x5") == family
    with pytest.raises(InputError, match="is no dataset"):
        dataset_family(home)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("data.folder=nowhere", "data.folder: 'nowhere' is no dataset"),
        ("data.inputs=[b]", "has no 'b'; known: a, u"),
        ("data.shape=[7,7]", "data.shape: "),
        ("data.train=9", "data.train: 9 samples were asked for; there are 8"),
        ("operator.kind=mgn0", "operator.kind: unknown kind 'mgn0'; did you mean 'mgno'?"),
        ("operator.levels=9", "operator.levels: "),
        ("operator.breadth=4", "operator.breadth: unknown key 'breadth'"),
        ("training.optimiser.kind=sgd", "training.optimiser.kind: unknown kind 'sgd'"),
        ("training.optimiser={kind: adam, rate: -1}", "training.optimiser.rate: rate must be "),
        ("training.loss.kind=relative_l1", "did you mean 'relative_l2'?"),
        ("training.epochs=some", "training.epochs: expected a whole number"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(
    home: Path, tmp_path: Path, change: str, told: str
) -> None:
    done = run("train", home / "spec.yaml", "--out", tmp_path / "run", "--set", change)
    assert done.exit_code == 2
    assert told in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_mistake_in_the_file_has_line_and_column(home: Path, tmp_path: Path) -> None:
    (home / "wrong.yaml").write_text(
        (home / "spec.yaml").read_text().replace("width: 4", "width: 0")
    )
    done = run("train", home / "wrong.yaml", "--out", tmp_path)
    assert "wrong.yaml:4:31: operator.width: " in done.output


def test_a_loss_that_is_no_number_ends_the_run_with_its_samples(home: Path, tmp_path: Path) -> None:
    change = "training.optimiser={kind: adam, rate: 1.0e+30}"
    done = run("train", home / "spec.yaml", "--out", tmp_path / "run", "--set", change)
    assert done.exit_code == 1
    assert "epoch" in done.output
    assert done.output.count("sciml: ") == 1


SPECS: dict[str, Callable[[Path], Path]] = {
    "solve": lambda home: home / "spec.yaml",
    "generate": lambda home: home / "spec.yaml",
    "train": lambda home: home / "family.yaml",
}


@pytest.mark.parametrize("command", SPECS)
def test_a_spec_for_another_command_is_sent_there(home: Path, tmp_path: Path, command: str) -> None:
    done = run(command, SPECS[command](home), "--out", tmp_path / "run")
    right = "generate" if command == "train" else "train"
    assert done.exit_code == 2
    assert f"this spec is for sciml {right}, not for sciml {command}" in done.output
