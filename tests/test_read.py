"""One reader for all specs: it tells their kind, and every command takes its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sciml.app import cli
from sciml.app.read import (
    FAMILY,
    KINDS,
    OPERATOR,
    PRECONDITIONER,
    PROBLEM,
    kind_of,
    load,
    read,
    read_family,
    read_spec,
    read_training,
)
from sciml.app.yaml import SpecError, parse_yaml, read_yaml
from sciml.solvers.linear.preconditioner import preconditioners

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ALL = sorted(CONFIGS.rglob("*.yaml"))
SPECS = {
    PROBLEM: CONFIGS / "poisson.yaml",
    FAMILY: CONFIGS / "datasets" / "heat.yaml",
    OPERATOR: CONFIGS / "train" / "mgno-darcy.yaml",
    PRECONDITIONER: CONFIGS / "train" / "neural-ic.yaml",
}
COMMANDS = {
    "solve": ("solve", []),
    "generate": ("generate", ["--out", "data"]),
    "train": ("train", ["--out", "run"]),
}


def sciml_run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.parametrize("path", ALL, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_every_config_is_of_a_kind_and_read_without_saying_which(path: Path) -> None:
    kind = kind_of(read_yaml(path))
    assert kind in KINDS
    assert isinstance(load(path), kind.parts()[0])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_given_the_spec_of_another_says_which_takes_it(
    kind: object, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for found, path in SPECS.items():
        if found is kind and found.command != command:
            word, options = COMMANDS[command]
            done = sciml_run(word, path, *options)
            assert done.exit_code == 2
            assert f"is for sciml {found.command}, not for sciml {command}" in done.output
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("poisson.yaml", "a problem: Poisson"),
        ("datasets/heat.yaml", "a family of problems: heat"),
        ("train/mgno-darcy.yaml", "a training spec: mgno on darcy, 100 epochs"),
        ("train/neural-ic.yaml", "a training spec of a preconditioner: neural_ic on"),
        ("train/dcdm-poisson-2d.yaml", "conjugate_directions on poisson-obstacles"),
        ("train/mgno-darcy-stream.yaml", "a training spec: mgno on darcy"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "info"])
def test_any_spec_is_told_by_its_kind(
    name: str, said: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = sciml_run(command, CONFIGS / name)
    assert done.exit_code == 0, done.output
    assert said in done.output.splitlines()[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "override", "said"),
    [
        (PROBLEM, "problem.equation.f=sin(", "--set problem.equation.f=sin(: problem.equation.f:"),
        (FAMILY, "problem.time.end=-1", "--set problem.time.end=-1: problem.time.end:"),
        (FAMILY, "dataset.splits.train=0", "dataset.splits.train: a split needs at least one"),
        (OPERATOR, "operator.levels=x", "operator.levels: expected a whole number"),
        (OPERATOR, "operator.kind=mgn", "unknown kind 'mgn'; did you mean 'mgno'?"),
        (PRECONDITIONER, "data.kind=matrix", "unknown kind 'matrix'; did you mean 'matrices'?"),
        (PRECONDITIONER, "preconditioner.round=3", "unknown key 'round'; did you mean 'rounds'?"),
    ],
)
def test_a_fault_in_any_spec_is_told_at_its_key(kind: object, override: str, said: str) -> None:
    (path,) = (path for found, path in SPECS.items() if found is kind)
    done = sciml_run("validate", path, "--set", override)
    assert done.exit_code == 2 and said in done.output, done.output
    assert "Traceback" not in done.output


def test_a_faulty_spec_that_another_names_is_told_in_its_own_file(tmp_path: Path) -> None:
    text = (CONFIGS / "datasets" / "heat.yaml").read_text()
    (tmp_path / "heat.yaml").write_text(text.replace("kind: heat", "kind: heet"))
    training = (CONFIGS / "train" / "mgno-darcy-stream.yaml").read_text()
    training = training.replace("../datasets/darcy.yaml", "heat.yaml")
    assert "family: heat.yaml" in training
    (tmp_path / "train.yaml").write_text(training)
    done = sciml_run("validate", tmp_path / "train.yaml")
    assert done.exit_code == 2 and f"{tmp_path}/heat.yaml:" in done.output, done.output
    assert "did you mean 'heat'" in done.output


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("mgno-darcy-stream", "{kind: stream, batches: 1, family: none.yaml}"),
        ("learned-multigrid", "{kind: family, count: 1, family: none.yaml}"),
        ("neural-ic", "{kind: problem, spec: none.yaml}"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "train"])
def test_a_spec_that_is_not_there_is_told_where_it_is_named(
    name: str, data: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = CONFIGS / "train" / f"{name}.yaml"
    done = sciml_run(command, path, "--set", f"data={data}")
    missing = f"there is no file '{path.parent}/none.yaml'"
    assert done.exit_code == 2
    assert re.search(rf"data\.(family|spec): {re.escape(missing)}", done.output), done.output


@pytest.mark.parametrize("text", ["", "- 1", "3", "{}", "grid: {shape: [5]}", "dataset: {}"])
@pytest.mark.parametrize("reader", [read, read_spec, read_family, read_training])
def test_what_is_no_spec_is_one_line_at_its_place(text: str, reader: object) -> None:
    with pytest.raises(SpecError) as caught:
        reader(parse_yaml(text, "s.yaml"))  # type: ignore[operator]
    assert str(caught.value).startswith("s.yaml:1:") and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["ssor", "sor", "direct", "multigrid", "cg", "deflation"])
def test_a_preconditioner_is_what_sets_up_a_map(kind: str) -> None:
    """Of what is exported, but for what only Python can fill: deflation takes vectors."""
    text = POISSON.format(kind=kind)
    if kind in {cls.kind for cls in preconditioners()} - {"deflation"}:
        assert read(parse_yaml(text, "a.yaml")).solver.preconditioner.kind == kind
        return
    with pytest.raises(SpecError, match=f"preconditioner.kind: unknown kind '{kind}'"):
        read(parse_yaml(text, "a.yaml"))


POISSON = """
problem:
  domain: {{kind: box, lower: [0], upper: [1]}}
  equation: {{kind: poisson, f: 1}}
  boundary: {{all: {{dirichlet: 0}}}}
grid: {{shape: [9]}}
solver: {{kind: gmres, preconditioner: {{kind: {kind}}}}}
"""
