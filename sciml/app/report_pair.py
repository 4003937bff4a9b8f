"""``sciml report A B``: two runs side by side on one page."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from sciml.app.figures import plot_courses, plot_fields
from sciml.app.formula import statement
from sciml.app.html_page import (
    columns_table,
    copied,
    document,
    figure,
    heading,
    note,
    section,
)
from sciml.app.report import facts, setting
from sciml.app.run_folder import read_run
from sciml.app.yaml import one_line, to_yaml
from sciml.core.errors import InputError
from sciml.core.files import load_solution, write_text
from sciml.core.plain import differences

Record = Mapping[str, Any]


def write_pair(first: Path, second: Path, out: Path) -> Path:
    """Write the page that compares two runs' directories; returns its path."""
    if first.resolve() == second.resolve():
        raise InputError(f"'{first}' is compared with itself; name two runs")
    records = {name: read_run(path) for name, path in _labels(first, second).items()}
    paths = dict(zip(records, (first, second), strict=True))
    solutions = {name: load_solution(path) for name, path in paths.items()}
    with tempfile.TemporaryDirectory() as folder:
        fields, courses = Path(folder) / "fields.png", Path(folder) / "courses.png"
        drawn = plot_fields(solutions, fields) is not None
        plot_courses(solutions, courses)
        text = _page(records, {
            "One colour scale for both, and their difference where they share a grid": fields
        } if drawn else {}, {"Residuals as each solver saw them": courses})  # fmt: skip
    write_text(out, text)
    return out


def _labels(first: Path, second: Path) -> dict[str, Path]:
    """Short names that tell the two apart."""
    if first.name != second.name:
        return {first.name: first, second.name: second}
    return {str(first): first, str(second): second}


def _page(
    records: Mapping[str, Record], fields: Mapping[str, Path], courses: Mapping[str, Path]
) -> str:
    title = " and ".join(records)
    a, b = records.values()
    return document(
        title,
        [
            heading(title, " against ".join(record["description"] for record in records.values())),
            section("What was solved", _stated(records)),
            section("The answers", *(figure(name, file) for name, file in fields.items())),
            section("In numbers", _rows(records, {n: facts(r) for n, r in records.items()})),
            section("Convergence", *(figure(name, file) for name, file in courses.items())),
            section("Where the specs differ", _spec_differences(a, b, list(records))),
            section("The specs, every option written out", _specs(records)),
            section("The runs", _rows(records, {n: setting(r) for n, r in records.items()})),
        ],
    )


def _stated(records: Mapping[str, Record]) -> str:
    """The problem once where both solved the same, else one beside the other."""
    texts = {name: statement(record["spec"]["problem"]) for name, record in records.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values())) + note("Both runs solved this problem.")
    return _beside({name: text for name, text in texts.items()})


def _beside(parts: Mapping[str, str]) -> str:
    inner = "".join(f"<div>{note(name)}{part}</div>" for name, part in parts.items())
    return f'<div class="pair">{inner}</div>'


def _rows(records: Mapping[str, Record], columns: Mapping[str, Mapping[str, str]]) -> str:
    """A line for every name, a column for every run; lines that differ stand out."""
    names = list(dict.fromkeys(name for lines in columns.values() for name in lines))
    rows = [[name, *(lines.get(name, "–") for lines in columns.values())] for name in names]
    return columns_table(["", *records], rows, [row[1] != row[2] for row in rows], wraps=True)


def _spec_differences(a: Record, b: Record, names: list[str]) -> str:
    found = [
        [key, *("–" if value is None else one_line(value) for value in pair)]
        for key, *pair in differences(a["spec"], b["spec"])
    ]
    if not found:
        return note("Nowhere: the specs are equal.")
    return columns_table(["key", *names], found, [True] * len(found), wraps=True)


def _specs(records: Mapping[str, Record]) -> str:
    texts = [to_yaml(record["spec"]) for record in records.values()]
    first, second = (text.splitlines() for text in texts)
    equal = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    shared = (
        {block.a + k for block in equal for k in range(block.size)},
        {block.b + k for block in equal for k in range(block.size)},
    )
    return _beside(
        {
            name: copied(text, [k not in kept for k in range(len(text.splitlines()))])
            for name, text, kept in zip(records, texts, shared, strict=True)
        }
    )
