"""The documentation: its snippets run as a reader would run them, its generated pages are whole.

Snippets run page by page, from top to bottom. On a page the blocks of Python share their names, the
commands a folder with the repository's ``configs``, and a block of YAML with a title is a file
there. What the comment ``<!-- not run: why -->`` stands above is left out.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import markdown
import pytest
from typer.testing import CliRunner

from sciml.app.cli import app
from sciml.app.read import load_spec, solver_classes

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("index", "engineer", "researcher", "developer", "quantities", "wrong_elsewhere")
_BLOCK = re.compile(
    r"(?P<skip><!-- not run: [^>]+ -->\n+)?^(?P<indent> *)```(?P<kind>\w+)"
    r"(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^(?P=indent)```",
    re.M | re.S,
)


@dataclass(frozen=True)
class Block:
    kind: str
    title: str | None
    text: str
    line: int
    run: bool


def blocks_of(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        body = "".join(line[indent:] or "\n" for line in match["text"].splitlines(keepends=True))
        line = text.count("\n", 0, match.start("text")) + 1
        yield Block(match["kind"], match["title"], body, line, match["skip"] is None)


def run_command(command: str) -> None:
    program, *arguments = shlex.split(command, comments=True)
    assert program == "sciml", f"only sciml's own commands are run here, not {program}"
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception}"


@pytest.mark.parametrize("page", PAGES)
def test_every_snippet_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    names: dict[str, object] = {"__name__": page}
    source = ROOT / "docs" / f"{page}.md"
    ran = 0
    for block in blocks_of(source.read_text()):
        if block.kind == "yaml" and block.title:
            (tmp_path / block.title).write_text(block.text)
        elif block.kind == "python" and block.run:
            exec(compile("\n" * (block.line - 1) + block.text, str(source), "exec"), names)
            ran += 1
        elif block.kind == "sh" and block.run:
            for command in re.sub(r"\\\n\s*", "", block.text).splitlines():
                if command.strip():
                    run_command(command)
            ran += 1
    assert ran >= 3


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {"__name__": "readme"}
    for block in blocks_of((ROOT / "README.md").read_text()):
        if block.kind == "python":
            exec(compile("\n" * (block.line - 1) + block.text, "README.md", "exec"), names)
    assert names["failed"] == 0 and names["K"].grad is not None  # type: ignore[attr-defined]


# What a page names: a module or what stands in one, a file of Python, a folder.
_NAME = re.compile(r"(?<![\w/.])sciml(?:\.[A-Za-z_]\w*)+")
_PATH = re.compile(r"(?<![\w/.-])(?:[\w-]+/)+[\w-]+\.py\b|(?<=`)(?:[\w-]+/)+(?=`)")
NAMING = sorted(
    str(file.relative_to(ROOT))
    for file in (*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md")
)


def unknown(text: str) -> list[str]:
    """The names and paths in it that do not exist; paths begin at the repository or the package."""
    names = {name for name in _NAME.findall(text) if not can_be_named(name)}
    paths = {
        path
        for path in _PATH.findall(text)
        if not (ROOT / path).exists() and not (ROOT / "sciml" / path).exists()
    }
    return sorted(names | paths)


def can_be_named(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", NAMING)
def test_every_module_and_path_that_a_page_names_exists(page: str) -> None:
    assert unknown((ROOT / page).read_text(encoding="utf-8")) == []


def test_what_does_not_exist_is_found() -> None:
    text = (
        "`sciml.solve` of `sciml.solvers.CG`, `sciml.core.errors.InputError`, [a](x/sciml.md); "
        "`sciml.solver`, sciml.solvers.collocation and `sciml.solvers.CG.no`; "
        "`core/errors.py`, sciml/core/errors.py, `docs/methods/`, https://a.b/c/d.py; "
        "`core/linear.py`, tests/test_nothing.py and `solvers/spectral/`."
    )
    assert unknown(text) == [
        "core/linear.py",
        "sciml.solver",
        "sciml.solvers.CG.no",
        "sciml.solvers.collocation",
        "solvers/spectral/",
        "tests/test_nothing.py",
    ]


def test_blocks_are_found_with_their_titles_and_marks() -> None:
    text = (
        '```yaml title="a.yaml"\nx: 1\n```\n\n<!-- not run: long -->\n```sh\nsleep 9\n```\n'
        "    ```python\n    if a:\n        b\n    ```\n"
    )
    yaml, shell, python = blocks_of(text)
    assert (yaml.kind, yaml.title, yaml.text) == ("yaml", "a.yaml", "x: 1\n")
    assert (shell.run, python.run) == (False, True)
    assert python.text == "if a:\n    b\n"
    assert python.line == 10


def load(path: str) -> ModuleType:
    """A program of ``docs/``, which is no package."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "docs" / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_gallery_shows_what_its_program_makes() -> None:
    gallery = load("make_gallery.py")
    assert gallery.page() == gallery.PAGE.read_text(), "python docs/make_gallery.py"
    for part in gallery.GALLERY:
        for picture in part.pictures:
            load_spec(ROOT / "configs" / f"{picture.config}.yaml", picture.changes)
            assert 0 < picture.file.stat().st_size < gallery.MOST_BYTES
    shown = {picture.file for part in gallery.GALLERY for picture in part.pictures}
    assert shown == set(gallery.PICTURES.glob("*.png"))


def test_the_spec_reference_has_every_kind_with_its_keys_and_defaults() -> None:
    reference = load("hooks/spec_reference.py")
    book = reference.solving()
    pages = {c.file: "\n\n".join(reference.pages(book, c)) for c in book.chapters}
    placed = [name for chapter in book.chapters for name in chapter.names]
    assert len(placed) == len(set(placed))
    assert {*placed} == {"Spec", *book.schema["$defs"]} - {"AnySolver"}
    for name in (cls.__name__ for cls in solver_classes()):
        kind = book.schema["$defs"][name]["properties"]["kind"]["const"]
        assert f"## `{kind}` {{ #{name.lower()} }}" in pages["solvers.md"]
    assert "| `rtol` | number | `1e-08` | Relative residual" in pages["solvers.md"]
    assert "[`diffusion`]" not in pages["solvers.md"]
    for linked in re.findall(r"\]\((\w+\.md)#", "".join(pages.values())):
        assert linked in pages
    for chapter in (*reference.generating().chapters, *reference.training().chapters):
        assert len(chapter.names) == len(set(chapter.names)) > 5


def test_the_python_reference_names_what_can_be_imported() -> None:
    reference = load("hooks/python_reference.py")
    for package in reference.PACKAGES:
        module = importlib.import_module(package)
        named = re.findall(rf"^::: {re.escape(package)}\.(\w+)$", reference.page(package), re.M)
        assert named
        constants = {"__version__", "solvers"}
        assert set(named) == set(module.__all__) - constants
        assert all(hasattr(module, name) for name in named)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("an order $h^2$ here", 1),
        ("$$\n-\\nabla \\cdot (K \\nabla u) = f\n$$", 1),
        ("from $5 to $6, and `$a$` in code", 0),
        ("`$OUT` and $HOME", 0),
        ("$a$ and $b$", 2),
    ],
)
def test_formulas_become_mathml(text: str, found: int) -> None:
    html = markdown.markdown(text, extensions=[load("hooks/formulas.py").Formulas()])
    assert html.count("<math ") == found
    assert html.count("</math>") == found


def test_links_out_of_the_documentation_lead_to_the_same_file() -> None:
    turn = load("hooks/repository.py").on_page_markdown
    known = ("benchmarks/RESULTS.md", "architecture.md", "methods/pinn.md")
    files = Mock(get_file_from_path=lambda path: path if path in known else None)

    def page(source: str, place: str) -> Mock:
        return Mock(file=Mock(abs_src_path=str(ROOT / source), src_uri=place))

    inside = page("docs/methods/pinn.md", "methods/pinn.md")
    assert turn("[a](../../benchmarks/RESULTS.md#b)", page=inside, files=files) == (
        "[a](../benchmarks/RESULTS.md#b)"
    )
    assert turn("[a](../architecture.md)", page=inside, files=files) == "[a](../architecture.md)"
    outside = page("CONTRIBUTING.md", "CONTRIBUTING.md")
    assert turn("[a](docs/methods/pinn.md)", page=outside, files=files) == "[a](methods/pinn.md)"
    assert turn("[a](https://b.c/d)", page=outside, files=files) == "[a](https://b.c/d)"


def test_a_notebook_becomes_a_page_with_its_pictures(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["solved\n"]},
        {"output_type": "stream", "name": "stderr", "text": ["a warning\n"]},
        {"output_type": "display_data", "data": {"image/png": "AAAA", "text/plain": "<Figure>"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n"]},
        {"cell_type": "code", "source": ["1 + 1"], "outputs": outputs},
    ]
    (tmp_path / "one.ipynb").write_text(json.dumps({"cells": cells}))
    pictures: list[tuple[str, bytes]] = []
    text = "\n".join(load("hooks/notebook_pages.py").page(tmp_path / "one.ipynb", pictures))
    assert text.startswith("# Title\n```python\n1 + 1\n```\n```text\nsolved\n```\n![")
    assert "warning" not in text
    assert pictures == [("one-1.png", b"\x00\x00\x00")]


def test_the_map_of_the_house_is_true() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_map.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, "python docs/make_map.py writes the map anew"
