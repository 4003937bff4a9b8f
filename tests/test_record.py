"""What a run leaves: written before it is told, whole, and refused when it is no longer that."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sciml.app import cli, compare, figures, record, run
from sciml.core.disk import claimed
from sciml.core.errors import InputError
from sciml.core.run.solution import load_solution

ROOT = Path(__file__).resolve().parents[1]
SOLVE = ["solve", str(ROOT / "configs" / "poisson.yaml"), "--set", "grid.shape=[17,17]"]


def sciml_run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("record") / "run"
    assert sciml_run(*SOLVE, "--out", out).exit_code == 0
    return out


def refuse(*_: object, **__: object) -> None:
    raise RuntimeError("no")


def test_a_figure_that_fails_loses_neither_the_solution_nor_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "plot_convergence", refuse)
    told = sciml_run(*SOLVE, "--out", tmp_path)
    assert told.exit_code == 0 and "convergence.png could not be drawn: no" in told.output
    found = record.read(tmp_path, record.RUN)
    assert found["status"] == "converged" and list(found["figures"].values()) == [
        "solution.png",
        "residual.png",
    ]
    assert (tmp_path / "report.html").is_file()
    assert load_solution(tmp_path).converged


@pytest.mark.parametrize(
    "change",
    ["problem.name='5$ for {10$'", "problem.boundary.left.dirichlet=1.7e308"],
    ids=["no formula", "overflow"],
)
def test_what_cannot_be_drawn_is_no_lost_run(change: str, tmp_path: Path) -> None:
    """A title that is no formula is drawn as it stands; what overflows a picture is a note."""
    told = sciml_run(*SOLVE, "--out", tmp_path, "--set", change, "--set", "problem.exact=")
    assert told.exit_code in (0, 1) and "Traceback" not in told.output
    assert ("could not be drawn" in told.output) is ("1.7e308" in change)
    assert (tmp_path / "report.html").is_file() and load_solution(tmp_path).value.ndim == 2


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    with claimed(tmp_path, "solving in"):
        told = sciml_run(*SOLVE, "--out", tmp_path)
    assert told.exit_code == 2 and f"another run is solving in '{tmp_path}'" in told.output
    assert list(tmp_path.iterdir()) == []
    assert sciml_run(*SOLVE, "--out", tmp_path).exit_code == 0


def test_a_comparison_that_fails_loses_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "baselines", refuse)
    assert isinstance(sciml_run(*SOLVE, "--compare", "--out", tmp_path).exception, RuntimeError)
    assert record.read(tmp_path, record.RUN)["baselines"] == []
    assert (tmp_path / "report.html").is_file()


def test_an_output_that_nobody_reads_loses_no_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sciml.app.cli", *SOLVE, "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
    assert "Traceback" not in told and "Exception" not in told
    assert process.returncode == 141
    assert first.startswith("Poisson")
    assert record.read(tmp_path / "run", record.RUN)["status"] == "converged"


def test_every_record_says_what_it_takes_to_repeat_it(folder: Path) -> None:
    found = record.read(folder, record.RUN)
    for key in ("format", "spec", "overrides", "versions", "finished", "command", "platform",
                "threads", "device", "dtype", "seed", "seconds", "hashes"):  # fmt: skip
        assert found[key] not in (None, "", {}), key
    assert found["spec"]["grid"]["shape"] == [17, 17]
    assert run.run_spec(folder).grid == run.run_spec(folder, ["solver={kind: cg}"]).grid


@pytest.mark.parametrize("words", [("plot",), ("certify",)])
def test_a_solution_that_was_changed_is_refused(
    words: tuple[str, ...], folder: Path, tmp_path: Path
) -> None:
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert sciml_run(*words, tmp_path).exit_code == 0
    data = bytearray((tmp_path / "solution.h5").read_bytes())
    data[-1] ^= 1
    (tmp_path / "solution.h5").write_bytes(data)
    told = sciml_run(*words, tmp_path)
    assert told.exit_code == 2 and "solution.h5' was damaged or changed" in told.output
    (tmp_path / "solution.h5").unlink()
    told = sciml_run(*words, tmp_path)
    assert told.exit_code == 2 and "is missing" in told.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "by another program"),
        ('{"format": "sciml training 1"}', "by sciml train; name a folder that sciml solve wrote"),
    ],
)
def test_a_record_of_something_else_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / record.FILE).write_text(text)
    with pytest.raises(InputError, match=said):
        record.read(tmp_path, record.RUN)


def test_a_certificate_is_added_and_nothing_else_is_changed(folder: Path) -> None:
    before = record.read(folder, record.RUN)
    assert sciml_run("certify", folder).exit_code == 0
    after = record.read(folder, record.RUN)
    assert after.pop("certificate")["upper"] > 0
    assert after == {key: value for key, value in before.items() if key != "certificate"}
    assert json.loads((folder / record.FILE).read_text())["certificate"]["steps"] == 0
