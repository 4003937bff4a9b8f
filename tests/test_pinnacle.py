"""PINNacle's problems: every spec is one, rows are right and kept, files are read as they are."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from sciml.app import pinnacle
from sciml.app.cli import app
from sciml.app.pinnacle import CASES, HEAD, Case, read_answer, spec_of
from sciml.app.read import load_spec
from sciml.app.run import check
from sciml.core.errors import InputError

# u_t = u_xx / pi^2 with the solution sin(pi x) exp(-t).
_TINY = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: heat, K: 1/pi**2}
  boundary: {all: {dirichlet: 0}}
  time: {end: 1, frames: 3}
  initial: "sin(pi*x)"
grid: {shape: [17]}
solver: {kind: random_features, count: 40, bandwidths: [4]}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A benchmark of one small problem, whose file is its solution at two instants, 1 % off."""
    spec, files = tmp_path / "tiny.yaml", tmp_path / "files"
    spec.write_text(_TINY)
    files.mkdir()
    rows = [f"{x / 8} " + " ".join(_off(x / 8, t) for t in (0, 1)) for x in range(9)]
    text = "\n".join(["% Model: tiny", "% X  u (1) @ t=0  u (1) @ t=1", *rows])
    (files / "tiny.dat.gz").write_bytes(gzip.compress(text.encode()))
    case = Case(0.5, ("solver={kind: sdirk, rtol: 1.0e-5}", "grid={shape: [65]}"), file="tiny")
    monkeypatch.setattr(pinnacle, "CASES", {"tiny": case, "lost": Case(0.1, missing="its data")})
    monkeypatch.setattr(pinnacle, "spec_of", lambda name: spec)
    return tmp_path


def _off(x: float, t: float) -> str:
    return repr(1.01 * math.sin(math.pi * x) * math.exp(-t))


def test_a_row_is_made_kept_and_gone_on_from(tiny: Path) -> None:
    kept, told = tiny / "rows.json", []
    lost, row = pinnacle.pinnacle(["lost", "tiny"], 2, None, kept, told.append)
    assert "its data" in lost[1] and told == ["tiny, seed 0", "tiny, seed 1"]
    found = dict(zip(HEAD, row, strict=True))
    # The reference's error is that of 65 nodes: pi^2 h^2 / 12 = 2e-4 in the exponent.
    assert float(found["error"]) < 5e-4 and found["to the file"] == ""
    assert float(found["published / ours"]) == pytest.approx(0.5 / float(found["error"]), rel=0.05)
    assert "sdirk" in found["classical"]
    assert list(pinnacle.pinnacle(["tiny"], 2, None, kept, told.append)) == [row]
    assert len(told) == 2
    # A seed that was lost is found again, the other is not; a file that comes later is compared.
    stored = json.loads(kept.read_text())
    del stored["cases"]["tiny"]["seeds"]["1"]
    kept.write_text(json.dumps(stored))
    [again] = pinnacle.pinnacle(["tiny"], 2, None, kept, told.append)
    assert told[2:] == ["tiny, seed 1"] and again[2] == row[2]
    [filed] = pinnacle.pinnacle(["tiny"], 1, tiny / "files", kept, told.append)
    assert told[3:] == ["tiny, seed 0"]
    assert float(filed[HEAD.index("to the file")]) == pytest.approx(0.01 / 1.01, rel=0.02)
    # Another spec is another problem.
    spec = tiny / "tiny.yaml"
    spec.write_text(_TINY.replace("count: 40", "count: 41"))
    list(pinnacle.pinnacle(["tiny"], 1, None, kept, told.append))
    assert told[4:] == ["tiny, seed 0"]


def test_files_are_read_field_by_field(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_text("% x  u @ t=0  v @ t=0  u @ t=0.5  v @ t=0.5\n0 1 2 3 4\n1 5 6 7 8\n")
    points, values = read_answer(path, 1, timed=True)
    assert points.tolist() == [[0, 0], [1, 0], [0, 0.5], [1, 0.5]]
    assert torch.equal(values, torch.tensor([[1, 2], [5, 6], [3, 4], [7, 8]]).double())


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.missing])
def test_every_problem_is_one_and_so_is_its_classical_twin(name: str) -> None:
    check(load_spec(spec_of(name), ["solver.seed=1"]))
    if CASES[name].classical and "geometry:" not in spec_of(name).read_text():
        twin = load_spec(spec_of(name), CASES[name].classical)
        assert not twin.solver.kind.startswith(("pinn", "random"))


def test_there_are_22_and_no_spec_without_a_row() -> None:
    assert len(CASES) == 22
    folder = spec_of("poisson-nd").parent
    stated = {name for name, case in CASES.items() if not case.missing}
    assert {path.stem for path in folder.glob("*.yaml")} == stated


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'gray-scott'"):
        list(pinnacle.pinnacle(["gray-scot"]))
    (tmp_path / "rows.json").write_text("[1]")
    with pytest.raises(InputError, match="holds no figures"):
        list(pinnacle.pinnacle(["poisson-nd"], kept=tmp_path / "rows.json"))
    result = CliRunner().invoke(app, ["bench", "reference", "--seeds", "2"])
    assert result.exit_code and "sciml bench pinnacle" in f"{result.output}{result.exception}"
