"""``sciml train`` of preconditioners: from a spec to weights, and one line for what is wrong."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from typer.testing import CliRunner, Result

from sciml.app.cli import app
from sciml.app.read import PRECONDITIONER, kind_of, load_training, read_training
from sciml.app.train import matrices, read_history
from sciml.app.yaml import parse_yaml, read_yaml
from sciml.core.algebra.maps import SparseMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.run.serialise import dump

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = [
    path
    for path in sorted((ROOT / "configs" / "train").glob("*.yaml"))
    if kind_of(read_yaml(path)) is PRECONDITIONER
]
PROBLEM = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: poisson, f: 1}
  boundary: {left: {dirichlet: 0}, right: {dirichlet: 0},
    bottom: {dirichlet: 0}, top: {dirichlet: 0}}
  obstacle: {inside: "(x - %s)**2 + (y - 0.5)**2 < 0.04", boundary: {dirichlet: 1}}
  parameters: {c: %s}
grid: {shape: [10, 10], centring: cell}
"""
SPEC = """
name: Small
data: {kind: problem, spec: problem.yaml}
preconditioner: {kind: conjugate_directions, channels: 3, convolutions: [2, 2, 2], ritz: 20,
  vectors: 20, valid: 4, epochs: 2}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a problem, a family, and a spec."""
    (tmp_path / "problem.yaml").write_text(PROBLEM % ("c", "0.5"))
    (tmp_path / "family.yaml").write_text(
        PROBLEM % ("c", "{kind: uniform, low: 0.3, high: 0.7}") + "dataset: {splits: {train: 2}}"
    )
    (tmp_path / "spec.yaml").write_text(SPEC)
    return tmp_path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_comes_back(path: Path) -> None:
    spec = load_training(path)
    assert spec.name
    assert spec == read_training(parse_yaml(json.dumps(dump(spec)), str(path)))


def test_a_run_leaves_weights_a_record_and_a_report(home: Path) -> None:
    out = home / "run"
    done = run("train", home / "spec.yaml", "--out", out, "--seed", 3)
    assert done.exit_code == 0, done.output
    assert str(out / "weights.safetensors") in done.output
    assert [row["epoch"] for row in read_history(out)] == [1, 2]
    record = json.loads((out / "run.json").read_text())
    assert record["seed"] == record["spec"]["preconditioner"]["seed"] == 3
    assert record["last"] == read_history(out)[-1]
    assert "data:image/png" in (out / "report.html").read_text()
    told = run("info", out)
    assert told.exit_code == 0, told.output
    assert f"{record['last']['valid_loss']:.3e}" in told.output
    again = run("train", home / "spec.yaml", "--out", out)
    assert again.exit_code == 2
    assert "seed was 3, now 0" in again.output
    # The weights serve in a spec of a problem.
    solver = f"solver: {{kind: fcg, preconditioner: {{kind: conjugate_directions, path: '{out}'}}}}"
    (home / "solved.yaml").write_text((home / "problem.yaml").read_text() + solver)
    solved = run("solve", home / "solved.yaml", "--out", home / "solved")
    assert solved.exit_code == 0, solved.output


def test_the_matrices_of_a_family_have_domains_of_their_own(home: Path) -> None:
    text = SPEC.replace("{kind: problem, spec: problem.yaml}",
                        "{kind: family, family: family.yaml, count: 3, seed: 1}")  # fmt: skip
    found = matrices(read_training(parse_yaml(text, str(home / "spec.yaml"))))
    assert list(found) == [f"sample {k} of 'family.yaml'" for k in range(3)]
    assert all(isinstance(A, Stencil) and A.shape == (10, 10) for A in found.values())
    diagonals = [A.diagonal() for A in found.values()]
    assert all((a - b).abs().max() > 0.1 for a, b in pairwise(diagonals))


def test_matrices_in_files_are_read_in_order(home: Path) -> None:
    folder = home / "matrices"
    folder.mkdir()
    scipy.io.mmwrite(folder / "b.mtx", scipy.sparse.diags([2.0, 2.0]))
    scipy.sparse.save_npz(folder / "a.npz", scipy.sparse.csr_matrix(np.eye(3)))
    text = SPEC.replace("{kind: problem, spec: problem.yaml}",
                        f"{{kind: matrices, folder: '{folder}'}}")  # fmt: skip
    source = parse_yaml(text, str(home / "spec.yaml"))
    found = matrices(read_training(source))
    assert all(isinstance(A, SparseMatrix) for A in found.values())
    assert {name: A.size for name, A in found.items()} == {
        f"'{folder / 'a.npz'}'": 3,
        f"'{folder / 'b.mtx'}'": 2,
    }
    (folder / "c.mtx").write_text("no matrix")
    with pytest.raises(InputError, match="cannot read a matrix from"):
        matrices(read_training(source))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("channels: 3", "chanels: 3", "did you mean 'channels'"),
        ("channels: 3", "channels: 3.5", "expected a whole number"),
        ("epochs: 2", "epochs: 0", "epochs must be at least 1"),
        ("conjugate_directions", "conjugate_direction", "kind"),
        ("problem.yaml", "absent.yaml", "absent.yaml"),
        ("[2, 2, 2]", "[2, 3, 2]", "even numbers"),
        ("{kind: problem, spec: problem.yaml}", "{kind: matrices, folder: '.'}", "no matrix in"),
    ],
)
def test_a_mistake_is_told_in_one_line(home: Path, old: str, new: str, said: str) -> None:
    assert old in SPEC
    (home / "spec.yaml").write_text(SPEC.replace(old, new))
    done = run("train", home / "spec.yaml", "--out", home / "run")
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())


def test_the_spec_of_a_preconditioner_is_not_for_solving(home: Path) -> None:
    done = run("solve", home / "spec.yaml")
    assert done.exit_code == 2
    assert "this spec is for sciml train" in done.output
