"""The Python reference: a page for each package, with every public name that it exports.

The names are those that it imports ``as`` themselves, and its own functions; what stands on the
page is their signature and docstring, which mkdocstrings reads from the source.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# Those that the navigation names.
PACKAGES = tuple(
    re.findall(r"- (sciml[\w.]*): reference/python/", (ROOT / "mkdocs.yml").read_text("utf-8"))
)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages."""
    for package in PACKAGES:
        name = f"reference/python/{package.replace('.', '-')}.md"
        files.append(File.generated(config, name, content=page(package)))
    return files


def page(package: str) -> str:
    """Markdown with a directive for each public class and function."""
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text())
    blocks = [f"# {package}", ast.get_docstring(tree) or ""]
    blocks += [f"::: {package}.{name}" for name in sorted(public(tree), key=str.lower)]
    return "\n\n".join(blocks) + "\n"


def public(tree: ast.Module) -> set[str]:
    """The classes and functions that a package exports: no constants, no packages."""
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sciml.")
        for alias in node.names
        if alias.asname == alias.name
    }
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return imported | {name for name in own if not name.startswith("_")}
