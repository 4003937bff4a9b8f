"""The floor plan, held: who may import whom, and what help may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("core", "operators", "solvers", "datasets", "training", "app")
FOLDERS = {
    "core": ROOT / "sciml" / "core",
    "training": ROOT / "sciml" / "training",
    "app": ROOT / "sciml" / "app",
    "operators": ROOT / "operators",
    "solvers": ROOT / "solvers",
    "datasets": ROOT / "datasets",
}
MODULES = [
    pytest.param(floor, path, id=str(path.relative_to(ROOT)))
    for floor, folder in FOLDERS.items()
    for path in sorted(folder.rglob("*.py"))
]


def imported_names(tree: ast.AST) -> list[str]:
    """Every absolute module name that an import statement anywhere in ``tree`` mentions."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def floor_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "sciml" and len(parts) > 1 and parts[1] in FLOORS else None


def misplaced(floor: str, names: list[str]) -> list[str]:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    bare = ("solvers", "operators", "datasets")
    return [n for n in names if floor_of(n) in above or n.split(".")[0] in bare]


@pytest.mark.parametrize(("floor", "path"), MODULES)
def test_imports_go_down(floor: str, path: Path) -> None:
    assert misplaced(floor, imported_names(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(("floor", "path"), MODULES)
def test_module_postpones_annotations(floor: str, path: Path) -> None:
    text = path.read_text()
    if text.strip() and ast.parse(text).body[1:]:
        assert "from __future__ import annotations" in text


@pytest.mark.parametrize(
    ("floor", "line"),
    [
        ("core", "from sciml.solvers import CG"),
        ("core", "def f():\n    import sciml.app.figures"),
        ("operators", "from sciml.solvers.krylov import CG"),
        ("datasets", "from sciml.training import fit"),
        ("solvers", "from sciml.app import cli"),
        ("app", "from solvers.krylov import CG"),
    ],
)
def test_the_rule_catches_what_it_should(floor: str, line: str) -> None:
    assert misplaced(floor, imported_names(ast.parse(line)))


@pytest.mark.parametrize("package", ["solvers", "operators", "datasets"])
def test_top_level_folders_refuse_their_bare_name(package: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"import {package}"], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 1
    assert f"import this package as sciml.{package}" in found.stderr


def test_links_lead_to_the_real_folders() -> None:
    for package in ("solvers", "operators", "datasets"):
        link = ROOT / "sciml" / package
        assert link.is_symlink()
        assert not link.readlink().is_absolute()
        assert link.resolve() == ROOT / package


def test_help_loads_nothing_of_weight() -> None:
    code = (
        "import sys\n"
        "from sciml.app import cli\n"
        "try:\n    cli.app(['--help'])\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'pydantic', 'numba', 'h5py'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "solve" in done.stdout
