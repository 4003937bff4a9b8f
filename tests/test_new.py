"""``sciml new``: every preset is written once, is commented, and runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import sciml
from sciml.app import cli
from sciml.app.presets import preset, presets
from sciml.core.errors import InputError

PRESETS = [found.name for found in presets()]
SOLVED = [name for name in PRESETS if name not in ("dataset", "train", "surrogate")]
MESHED = {"mesh", "elasticity"}
SMALL = {
    "burgers": ["grid.shape=[65]", "problem.time.end=0.1"],
    "heat": ["grid.shape=[13,13]", "problem.time.end=0.2", "solver.rtol=1e-3"],
    "helmholtz": ["grid.shape=[33,33]"],
    "inverse": ["solver.points=100", "grid.shape=[9]"],
    "navier-stokes": ["grid.shape=[12,12]", "problem.time.end=0.5"],
    "pinn": ["grid.shape=[9,9]", "solver.points=150", "solver.rtol=1e-2"],
    "wave": ["grid.shape=[17,17]", "problem.time.end=0.1"],
    "mesh": ["geometry.size=0.3"],
    "elasticity": ["geometry.size=0.5"],
    "poisson": ["grid.shape=[17,17]"],
    "darcy": ["grid.shape=[16,16]"],
}


def sciml_run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


def written(name: str, folder: Path) -> Path:
    path = folder / f"{name}.yaml"
    result = sciml_run("new", name, "--out", path)
    assert result.exit_code == 0, result.output
    return path


def options(name: str) -> list[str]:
    return [word for text in SMALL[name] for word in ("--set", text)]


@pytest.mark.parametrize("name", SOLVED)
def test_every_preset_is_solved(name: str, tmp_path: Path) -> None:
    if name in MESHED and importlib.util.find_spec("gmsh") is None:
        pytest.skip("needs gmsh")
    path = written(name, tmp_path)
    result = sciml_run("solve", path, *options(name), "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_measurements_of_the_inverse_preset_give_the_conductivity(tmp_path: Path) -> None:
    spec = sciml.load_spec(written("inverse", tmp_path), SMALL["inverse"])
    found = sciml.solve(spec.problem, spec.solver, on=spec.on)
    assert found.parameters["k"] == pytest.approx(0.7, rel=0.02)


def test_dataset_train_and_surrogate_follow_one_another(tmp_path: Path) -> None:
    family, training, surrogate = (
        written(name, tmp_path) for name in ("dataset", "train", "surrogate")
    )
    data, run = tmp_path / "data", tmp_path / "network"
    made = sciml_run("generate", family, "--out", data, "--count", 10,
                     "--set", "grid.shape=[9,9]", "--set", "dataset.shapes=[]")  # fmt: skip
    assert made.exit_code == 0, made.output
    smaller = ["data.changes=[\"grid.shape=[9,9]\", \"dataset.shapes=[]\"]", "data.batches=1",
               "data.valid=2", "training.epochs=1", "operator.width=4", "operator.levels=2",
               "operator.layers=1"]  # fmt: skip
    sets = [word for text in smaller for word in ("--set", text)]
    trained = sciml_run("train", training, "--out", run, *sets)
    assert trained.exit_code == 0, trained.output
    solved = sciml_run("solve", surrogate, "--set", f"solver.path={run}", "--set",
                       "grid.shape=[9,9]", "--out", tmp_path / "solved", "--compare")  # fmt: skip
    assert solved.exit_code == 0, solved.output
    assert "PyAMG RS + cg" in solved.output
    assert "Certificate" in (tmp_path / "solved" / "report.html").read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_says_what_it_is_and_how_to_run_it(name: str) -> None:
    text = preset(name).text
    assert text.startswith("# ") and 20 < len(preset(name).title) < 90
    assert re.search(rf"^#   sciml \w+ {name}\.yaml", text, re.MULTILINE)
    assert text.count("#") >= 6  # commented
    assert all(len(line) <= 110 for line in text.splitlines())


def test_the_list_names_every_preset() -> None:
    result = sciml_run("new", "--list")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.output.splitlines()] == PRESETS


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = written("poisson", tmp_path)
    path.write_text("mine")
    result = sciml_run("new", "darcy", "--out", path)
    assert result.exit_code == 2 and "left as it is" in result.output
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "said"), [("posson", "did you mean 'poisson'"), ("zzz", "known: burgers, darcy")]
)
def test_an_unknown_preset_is_told_the_known_ones(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        preset(name)
    assert sciml_run("new", name).exit_code == 2


def test_a_preset_is_asked_for_where_none_is_named() -> None:
    result = sciml_run("new")
    assert result.exit_code == 2 and "name a preset" in result.output
