"""Pages of equations: what they state is the reference case that they name, in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_docs import blocks_of

from sciml.app.read import load_spec
from sciml.app.yaml import parse_yaml
from sciml.core.problem.problem import Problem
from sciml.core.run.serialise import dump

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "equations").glob("*.md"))


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "index"], ids=lambda p: p.stem)
def test_a_page_states_its_case_in_yaml_and_in_python(page: Path) -> None:
    stated, written = blocks_of(page.read_text())
    assert (stated.kind, written.kind) == ("yaml", "python") and stated.title
    case = ROOT / stated.title
    assert parse_yaml(stated.text, "page").data == parse_yaml(case.read_text(), "case").data
    names: dict[str, object] = {}
    exec(compile(written.text, str(page), "exec"), names)
    problem, spec = names["problem"], load_spec(case)
    assert isinstance(problem, Problem)
    assert dump(problem.equation) == dump(spec.problem.equation)
    for part in ("parameters", "time", "first"):
        assert dump(getattr(problem, part)) == dump(getattr(spec.problem, part)), part
    assert dump(problem.boundary) == dump(spec.problem.boundary)


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "equations" / "index.md").read_text()
    assert [p.stem for p in PAGES if f"({p.name})" not in index] == ["index"]
