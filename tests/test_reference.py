"""Published values: cheap cases of the table meet them, and an interrupted table goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sciml.app.reference import HEAD, cases, reference
from sciml.core.errors import InputError

# By case the largest difference, in per cent, of its extrapolated value or its finest.
_FAR = {"harmonic": 5e-3, "torsion": 1e-3, "laminate": 1e-6, "nafems-le1": 0.4}


def test_cheap_cases_meet_what_is_published_and_are_kept(tmp_path: Path) -> None:
    chosen, kept, told = [p for p in cases() if p.stem in _FAR], tmp_path / "rows.json", []
    rows = list(reference(chosen, kept, told.append))
    assert {row[0] for row in rows} == {*_FAR} == {*told}
    for row in rows:
        found = dict(zip(HEAD, row, strict=True))
        assert abs(float(found["difference"].removesuffix(" %"))) < _FAR[row[0]], row
    orders = {row[1]: float(row[HEAD.index("order")] or "nan") for row in rows}
    assert abs(orders["relative L2 error"] - 3) < 0.1
    [middle] = [row for row in rows if row[:2] == ["torsion", "middle"]]
    assert abs(float(middle[HEAD.index("order")]) - 2) < 0.1
    assert list(reference(chosen, kept, told.append)) == rows and len(told) == len(_FAR)
    stored = json.loads(kept.read_text())
    stored["cases"]["torsion"]["spec"] = "of another spec"
    kept.write_text(json.dumps(stored))
    next(reference([p for p in chosen if p.stem == "torsion"], kept, told.append))
    assert told[-1] == "torsion" and len(told) == len(_FAR) + 1


def test_rows_are_not_looked_for_in_another_file(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text("[1]")
    with pytest.raises(InputError, match="holds no rows"):
        list(reference(cases(), tmp_path / "rows.json"))


def test_every_case_is_of_something_published() -> None:
    for path in cases():
        assert "published:" in path.read_text() and path.read_text().count("# ") > 1, path
