"""Tables of measured figures: what pages show is what the files hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import results  # noqa: E402

TABLE = results.Table("Two", "2026-11-21", "one core", "sciml bench", ["a", "b"], [["x", 0.12345]])


def test_every_page_shows_its_tables_and_every_table_is_shown() -> None:
    assert results.stale() == {}
    assert results.unseen() == []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one table, and a page that names it."""
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "FOLDER", tmp_path / "benchmarks" / "results")
    (tmp_path / "README.md").write_text("Before\n\n<!-- table: two -->\n<!-- end -->\n\nAfter\n")
    (tmp_path / "benchmarks" / "RESULTS.md").write_text("")
    results.keep("two", TABLE)
    return tmp_path


def test_a_table_is_written_where_it_is_named_and_nothing_else_is_touched(site: Path) -> None:
    (page,) = results.stale()
    page.write_text(results.stale()[page])
    text = page.read_text()
    assert text.startswith(
        "Before\n\n<!-- table: two -->\n\n    sciml bench\n\n| a | b |\n|---|---|\n"
    )
    assert "| x | 0.1235 |\n\n(2026-11-21, one core.)\n\n<!-- end -->\n\nAfter\n" in text
    assert results.stale() == {}


def test_a_changed_figure_a_missing_and_a_forgotten_table_are_noticed(site: Path) -> None:
    page = site / "README.md"
    page.write_text(results.stale()[page])
    page.write_text(page.read_text().replace("0.1235", "0.1234"))
    assert list(results.stale()) == [page]
    page.write_text("<!-- table: three -->\n<!-- end -->\n")
    with pytest.raises(ValueError, match="no table 'three'"):
        results.stale()
    assert results.unseen() == ["two"]


def test_a_row_that_is_too_short_is_refused(site: Path) -> None:
    path = results.FOLDER / "two.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": [["x"]]}))
    with pytest.raises(ValueError, match="has 2 columns"):
        results.load("two")


def test_the_check_fails_by_its_exit_code(site: Path) -> None:
    program = ROOT / "benchmarks" / "results.py"
    done = subprocess.run([sys.executable, program, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = (
        f"import pathlib, sys; sys.path.insert(0, {str(program.parent)!r}); import results; "
        f"results.ROOT = pathlib.Path({str(site)!r}); results.FOLDER = results.ROOT / "
        "'benchmarks/results'; sys.argv = ['results', '--check']; results.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "README.md" in done.stdout and "run python" in done.stderr
