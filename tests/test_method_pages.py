"""The method pages, the comparison and "coming from": what they show runs, figures are measured."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_docs import blocks_of, run_command

import sciml
from sciml.app.read import read, read_spec
from sciml.app.spec import Spec
from sciml.app.yaml import parse_yaml
from sciml.operators.operator import architectures

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
METHODS = sorted((DOCS / "methods").glob("*.md"))
OTHERS = sorted((DOCS / "coming-from").glob("*.md"))
PAGES = [*METHODS, DOCS / "comparison.md", *OTHERS]
RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text()
# Code of other people's programs stands in blocks called py; these run where the program is there.
PEER = ROOT / ".peers" / "neuraloperator" / "bin" / "python"

# What a snippet that is a solver alone is read with.
BASE = """\
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: poisson, f: 1}
  boundary: {all: {dirichlet: 0}}
grid: {shape: [17, 17]}
"""


def every(language: str, pages: list[Path]) -> list[Any]:
    return [
        pytest.param(block.text, id=f"{page.parent.name}/{page.stem}-{block.line}")
        for page in pages
        for block in blocks_of(page.read_text())
        if block.kind == language
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, from which the example specs are seen as from the repository."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", every("python", METHODS))
def test_every_snippet_of_a_method_runs_on_its_own(block: str, folder: Path) -> None:
    exec(compile(block, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.stem)
def test_both_sides_run_from_top_to_bottom(page: Path, folder: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    blocks = list(blocks_of(page.read_text()))
    for block in blocks:
        if block.kind == "python":
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
        elif block.kind == "sh":
            for command in re.sub(r"\\\n\s*", "", block.text).splitlines():
                run_command(command)
    if page.stem == "neuraloperator" and PEER.exists():
        for block in blocks:
            if block.kind == "py":
                run_peer(block.text, folder)


def run_peer(program: str, folder: Path) -> None:
    command = [PEER, "-c", program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", every("yaml", PAGES))
def test_yaml_is_a_spec_and_what_it_states_is_solved(block: str, folder: Path) -> None:
    source = parse_yaml(block)
    if set(source.data) == {"solver"}:
        assert read_spec(parse_yaml(BASE + block)).solver is not None
        return
    spec = read(source)
    if isinstance(spec, Spec):
        if spec.geometry is not None:
            pytest.importorskip("gmsh", exc_type=ImportError)
        assert sciml.solve(spec.problem, spec.solver, on=spec.on).converged


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_of_figures_are_those_of_the_benchmarks(page: Path) -> None:
    measured = page.read_text().partition("## Measured")[2].partition("\n## ")[0]
    assert measured or page not in METHODS or page.stem == "index", "nothing was measured"
    lines = RESULTS.splitlines()
    known = set(lines)
    for line in measured.splitlines():
        if line.startswith("|") and not set(line) <= set("|- "):
            assert line in known, f"{line}\nnearest: {difflib.get_close_matches(line, lines, 1)}"
        elif line.startswith("    "):
            assert line.strip() in RESULTS, f"no such command in RESULTS.md: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere_in_the_repository(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("https://"):
            assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_formulas_are_such_as_the_site_can_show(page: Path) -> None:
    """One to a display, closed, and without environments, which the converter does not know."""
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    assert "\\begin" not in text and text.count("$") % 2 == 0


def test_every_solver_and_operator_has_a_page_and_every_page_is_in_the_table() -> None:
    index = (DOCS / "methods" / "index.md").read_text()
    text = "\n".join(page.read_text() for page in METHODS)
    for name in (*sciml.solvers.__all__, *(cls.__name__ for cls in architectures())):
        assert re.search(rf"\b{name}\b", text), f"no page names {name}"
    for page in METHODS:
        assert page.stem == "index" or f"({page.name})" in index, f"index.md has no {page.name}"
