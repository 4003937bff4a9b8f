"""Packages whose names load on first use (PEP 562) and are listed once: where type checkers read.

A package imports what it exports under ``if TYPE_CHECKING:``, each name ``as`` itself, and takes
the rest from here. The list is read off the package's own text when the first name is asked for, so
that importing the package loads nothing. Scientific Python's SPEC 1 does the same with a stub.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any


def attach(
    package: str, file: str, own: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of the package ``package``, whose text is ``file``.

    ``__all__`` is every name that the text imports for type checkers, and those of ``own``, which
    it defines itself.
    """
    homes: dict[str, str] = {}

    def listed() -> dict[str, str]:
        if not homes:
            homes.update(_imports(file))
        return homes

    def find(name: str) -> Any:
        if name == "__all__":
            return [*own, *listed()]
        if name.startswith("__") or name not in listed():
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        home = homes[name]
        if home == package:
            return importlib.import_module(f"{package}.{name}")
        return getattr(importlib.import_module(home), name)

    return find, lambda: sorted([*own, *listed()])


def exported(package: ModuleType, method: str) -> list[type[Any]]:
    """The classes that ``package`` exports and that have ``method``, in the order of its list."""
    found = (getattr(package, name) for name in package.__all__)
    return [entry for entry in found if isinstance(entry, type) and method in dir(entry)]


def _imports(file: str) -> dict[str, str]:
    """The module of every name imported under ``if TYPE_CHECKING:`` as itself."""
    import ast
    from pathlib import Path

    blocks = [
        node
        for node in ast.parse(Path(file).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    return {
        alias.name: node.module
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname == alias.name
    }
