"""Examples of other programs as specs: each is one, and has its row in a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sciml.app.read import load, load_family

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import deepxde  # noqa: E402
import records  # noqa: E402

STATED = sorted((ROOT / "configs" / "deepxde").glob("*.yaml"))
RECORDS = sorted((ROOT / "configs" / "records").glob("*.yaml"))


@pytest.mark.parametrize("path", [*STATED, *RECORDS], ids=lambda path: path.stem)
def test_every_spec_is_one_and_says_whose(path: Path) -> None:
    load(path)
    if path in STATED:
        lines = path.read_text().splitlines()
        said = next(line for line in lines if not line.startswith("# yaml-language-server"))
        assert said.startswith((f"# {path.stem}.py: ", f"# {path.stem}.ipynb: "))


def test_every_family_is_one() -> None:
    for path in sorted((ROOT / "configs" / "deepxde" / "families").glob("*.yaml")):
        load_family(path)


def test_there_are_70_programs_and_a_notebook_and_no_spec_without_a_row() -> None:
    listed = deepxde.programs_of(None)
    assert len(listed) == 71
    stated = {name for name, program in listed.items() if not program.missing}
    assert {path.stem for path in STATED} == stated
    assert len(stated) >= 56
    assert {path.stem for path in RECORDS} == set(records.CASES)
