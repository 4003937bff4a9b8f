"""Files of the repository outside ``docs/`` that pages link to, at their own paths in the site.

A link is written as on GitHub: ``../benchmarks/RESULTS.md`` in ``docs/index.md``. In the site
``docs/`` is the root, so that a link which leaves it is turned to where the file lies there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
_SHOWN = (
    "benchmarks/RESULTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "configs/**/*.yaml",
    "examples/*.py",
)
_LINK = re.compile(r"(\]\()([^)\s:#]+)(#[^)\s]*)?(\))")
# Docstrings name what they refer to in Sphinx's way.
_ROLE = re.compile(r":(?:func|class|meth|mod|attr):<code>~?([^<]*)</code>")


def on_config(config: Any) -> Any:
    """Fill in the folders of the navigation, such as ``Methods: methods/``."""
    for entry in config.nav:
        for title, place in entry.items():
            if isinstance(place, str) and place.endswith("/"):
                entry[title] = pages_in(place)
    return config


def pages_in(folder: str) -> list[str]:
    """The pages of a folder of ``docs/``, or the notebooks of one beside it; the index first."""
    pages = [f"{folder}{path.name}" for path in (ROOT / "docs" / folder).glob("*.md")]
    pages += [f"{folder}{path.stem}.md" for path in (ROOT / folder).glob("*.ipynb")]
    return sorted(pages, key=lambda page: (not page.endswith("index.md"), page))


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files named above."""
    for pattern in _SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Turn links that leave ``docs/``, and those that enter it from outside."""
    here = page.file.src_uri
    source = written_in(page.file)

    def turned(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        place = target.removeprefix("docs/")
        if files.get_file_from_path(place) is None:
            return link[0]
        there = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{link[1]}{there}{link[3] or ''}{link[4]}"

    return _LINK.sub(turned, markdown)


def written_in(file: File) -> str:
    """The path in the repository from which a page's links are to be read."""
    if file.abs_src_path is not None:
        return Path(file.abs_src_path).relative_to(ROOT).as_posix()
    notebook = Path(file.src_uri).with_suffix(".ipynb")
    return notebook.as_posix() if (ROOT / notebook).is_file() else f"docs/{file.src_uri}"


def on_page_content(html: str, **_: Any) -> str:
    """Show Sphinx's roles of docstrings as the names they hold."""
    return _ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)
