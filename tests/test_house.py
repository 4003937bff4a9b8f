"""The floor plan, held: who may import whom, and what help may load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from mutants import FAULTS, Fault, Tree, staleness

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("core", "discretization", "operators", "solvers", "datasets", "training", "app")
FOLDERS = {
    "core": ROOT / "sciml" / "core",
    "discretization": ROOT / "sciml" / "discretization",
    "training": ROOT / "sciml" / "training",
    "app": ROOT / "sciml" / "app",
    "operators": ROOT / "operators",
    "solvers": ROOT / "solvers",
    "datasets": ROOT / "datasets",
}
UNIX = {"fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios"}
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


def linked_names(tree: ast.AST) -> list[str]:
    """Every module that a string in ``tree`` names, docstrings aside, and what is imported so."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
    ]
    named = [found for text in texts for found in _MODULE.findall(text)]
    return [*named, *(name for name in imported_by_string(tree) if name not in named)]


def imported_by_string(tree: ast.AST) -> list[str]:
    """What calls of ``import_module`` name: ``sciml.app.`` of f"sciml.app.{name}", else ``?``."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(_IMPORTERS):
            text = node.args[0]
            first = text.values[0] if isinstance(text, ast.JoinedStr) else text
            value = first.value if isinstance(first, ast.Constant) else "?"
            names.append(value if isinstance(value, str) and "." in value else "?")
    return names


_MODULE = re.compile(rf"\bsciml\.(?:{'|'.join(FLOORS)})\b[\w.]*")
_IMPORTERS = ("import_module", "__import__")
# These import what a list names, which type checkers read (sciml/core/lazy.py), or what a person
# names of his own, where he trusts it (operators/module.py).
_BY_LIST = {"sciml/core/lazy.py", "operators/module.py"}


def misplaced(floor: str, names: list[str]) -> list[str]:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    bare = ("solvers", "operators", "datasets")
    return [n for n in names if floor_of(n) in above or n.split(".")[0] in bare]


@pytest.mark.parametrize(("floor", "path"), MODULES)
def test_imports_go_down(floor: str, path: Path) -> None:
    assert misplaced(floor, imported_names(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(("floor", "path"), MODULES)
def test_links_by_string_go_down_too(floor: str, path: Path) -> None:
    names = linked_names(ast.parse(path.read_text()))
    assert misplaced(floor, names) == []
    assert "?" not in names or path.relative_to(ROOT).as_posix() in _BY_LIST


def module_name(path: Path) -> str:
    """``sciml.solvers.linear.krylov`` of ``solvers/linear/krylov.py``."""
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    return f"sciml.{name.removeprefix('sciml.')}".removesuffix(".__init__")


def graph(files: Mapping[str, str]) -> dict[str, set[str]]:
    """By module, the modules among ``files`` (texts by name) that it imports when it runs.

    Imports inside functions and by a string count, those for type checkers do not.
    """
    edges: dict[str, set[str]] = {}
    for name, text in files.items():
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
                node.body = [ast.Pass()]
        found = [*imported_names(tree), *imported_by_string(tree)]
        # ``from a import b`` is of the module a.b where there is one, else of a.
        used = {n if n in files else n.rpartition(".")[0] for n in found} & files.keys()
        edges[name] = used - {name}
    return edges


def circles(edges: Mapping[str, set[str]]) -> set[frozenset[str]]:
    """The sets of modules each of which imports all others, through others or directly."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        waiting, seen = [start], set()
        while waiting:
            for other in edges[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        reached[start] = seen
    return {
        frozenset({name, *(other for other in reached[name] if name in reached[other])})
        for name in edges
        if name in reached[name]
    }


@pytest.mark.parametrize(("floor", "path"), MODULES)
def test_what_only_unix_has_is_imported_where_it_is_used(floor: str, path: Path) -> None:
    body = ast.parse(path.read_text()).body
    first = ast.Module([n for n in body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    assert not UNIX & set(imported_names(first))


def test_imports_make_no_circle() -> None:
    paths = [path for folder in FOLDERS.values() for path in folder.rglob("*.py")]
    files = {module_name(path): path.read_text() for path in [ROOT / "sciml/__init__.py", *paths]}
    assert circles(graph(files)) == set()


def test_the_rule_against_circles_catches_what_it_should() -> None:
    files = {
        "sciml.a": "from sciml.b import x",
        "sciml.b": "def f():\n    import sciml.c",
        "sciml.c": "from sciml import a",
        "sciml.d": "if TYPE_CHECKING:\n    from sciml.e import x\nfrom sciml import a",
        "sciml.e": "from sciml.d import x",
    }
    assert circles(graph(files)) == {frozenset({"sciml.a", "sciml.b", "sciml.c"})}


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
        ("operators", "from sciml.solvers.linear.krylov import CG"),
        ("datasets", "from sciml.training import fit"),
        ("solvers", "from sciml.app import cli"),
        ("app", "from solvers.krylov import CG"),
    ],
)
def test_the_rule_catches_what_it_should(floor: str, line: str) -> None:
    assert misplaced(floor, imported_names(ast.parse(line)))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('import_module("sciml.app.figures")', ["sciml.app.figures"]),
        ('importlib.import_module(f"sciml.solvers.{name}")', ["sciml.solvers."]),
        ("importlib.import_module(name)", ["?"]),
        ('importlib.import_module("sciml" + name)', ["?"]),
        ('HOMES = {"CG": "sciml.solvers.linear.krylov"}', ["sciml.solvers.linear.krylov"]),
        ('"""It serves sciml.app.figures."""', []),
    ],
)
def test_links_by_string_are_seen(line: str, found: list[str]) -> None:
    assert linked_names(ast.parse(line)) == found


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


def test_lower_bounds_are_those_that_the_tests_run_with() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (listed,) = re.findall(r"^dependencies = \[(.*?)\]", text, re.M | re.S)
    bounds = dict(re.findall(r'"([\w.-]+)>=([\w.]+)"', listed))
    rows = re.findall(r"^([\w.-]+)==([\w.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.M)
    tested = {name: version.split(".") for name, version in rows}
    assert bounds.keys() == tested.keys()
    for name, version in bounds.items():
        parts = version.split(".")
        assert tested[name][: len(parts)] == parts
        assert set(tested[name][len(parts) :]) <= {"0"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_faults_of_the_mutation_check_can_be_put_in(fault: Fault) -> None:
    assert staleness(Tree(ROOT, ROOT), fault) == []
