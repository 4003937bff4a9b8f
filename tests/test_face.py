"""The package's face: lazy names, the automatic default, and the three linked folders."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

import sciml
from sciml import solvers
from sciml.app.read import solver_classes
from sciml.core.algebra.maps import LinearSystem, SparseMatrix
from sciml.core.errors import InputError
from sciml.core.lazy import exported

ROOT = Path(__file__).resolve().parents[1]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import sciml; sciml.__version__; dir(sciml)",
        "import sciml.solvers as s; s.__all__; dir(s)",
        "from sciml import Box, Grid, Problem, Equation, Condition, Robin, Obstacle, Status",
        "from sciml import solve, init, solvers",
    ],
)
def test_light_imports_load_no_heavy_library(statement: str) -> None:
    heavy = "('torch', 'matplotlib', 'numba', 'pyamg', 'scipy', 'pydantic')"
    result = run(f"{statement}\nimport sys\nprint([m for m in {heavy} if m in sys.modules])")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sciml.__all__)
def test_every_name_on_the_face_resolves(name: str) -> None:
    assert getattr(sciml, name) is not None
    assert name in dir(sciml)


@pytest.mark.parametrize("name", solvers.__all__)
def test_every_solver_resolves(name: str) -> None:
    assert getattr(solvers, name) is not None
    assert name in dir(solvers)


def test_solvers_are_named_after_their_class() -> None:
    for cls in solver_classes():
        assert cls.kind.replace("_", "") == cls.__name__.lower()


PACKAGES = ("sciml", "sciml.solvers", "sciml.solvers.trained", "sciml.operators",
            "sciml.datasets", "sciml.training")  # fmt: skip


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_each_name_once_and_gives_them_all(package: str) -> None:
    module = importlib.import_module(package)
    text = Path(str(module.__file__)).read_text().partition("\ndef ")[0]
    listed = re.findall(r"^    from sciml\S* import (\w+)(?: as (\w+))?$", text, re.M)
    assert listed and all(name == again for name, again in listed)
    assert len(module.__all__) == len(set(module.__all__)) >= len(listed)
    assert {name for name, _ in listed} <= set(module.__all__) == set(dir(module))
    names: dict[str, object] = {}
    exec(f"from {package} import *", names)
    assert set(module.__all__) <= names.keys()
    assert all(names[name] is getattr(module, name) for name in module.__all__)


def test_a_class_in_the_list_of_a_package_is_all_that_a_new_solver_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house").mkdir()
    (tmp_path / "house" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\nfrom sciml.core.lazy import attach\n"
        "if TYPE_CHECKING:\n"
        "    from house import rooms as rooms\n"
        "    from house.rooms import Kitchen as Kitchen\n"
        "    from house.rooms import Cellar as Cellar\n"
        "    from house.rooms import Hidden\n"
        "__getattr__, __dir__ = attach(__name__, __file__)\n"
    )
    (tmp_path / "house" / "rooms.py").write_text(
        "class Kitchen:\n    def run(self): ...\nclass Cellar: ...\nHidden = Cellar\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    house = importlib.import_module("house")
    assert "house.rooms" not in sys.modules
    assert house.__all__ == ["rooms", "Kitchen", "Cellar"]
    assert exported(house, "run") == [house.Kitchen]
    assert house.rooms is sys.modules["house.rooms"]
    with pytest.raises(AttributeError, match="no attribute 'Hidden'"):
        house.Hidden  # noqa: B018


@pytest.mark.parametrize("module", [sciml, solvers])
def test_unknown_names_are_attribute_errors(module: object) -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        module.Nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_the_bare_folder_name_is_refused() -> None:
    result = run("import solvers")
    assert result.returncode != 0
    assert "import this package as sciml.solvers" in result.stderr


def _system() -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    matrix = scipy.sparse.diags([-1.0, 2.5, -1.0], [-1, 0, 1], shape=(30, 30)).tocsr()
    return matrix, matrix @ np.arange(30.0)


def test_the_default_solver_is_the_automatic_one() -> None:
    matrix, b = _system()
    for given in (matrix, SparseMatrix(matrix)):
        solution = sciml.solve(given, b)
        assert solution.solver == solvers.Auto()
        assert np.allclose(solution.value.numpy(), np.arange(30.0))
    system = LinearSystem(SparseMatrix(matrix), torch.from_numpy(b))
    assert sciml.solve(system).solver == solvers.Auto()
    state = sciml.init(system)
    double = solvers.Auto().run(state, b=2 * system.b)
    assert np.allclose(double.value.numpy(), 2 * np.arange(30.0))


def test_a_named_solver_is_kept() -> None:
    matrix, b = _system()
    cg = solvers.CG()
    assert sciml.solve(matrix, b, cg).solver is cg
    assert sciml.solve(matrix, b, solver=cg).solver is cg


def test_a_class_in_place_of_its_options_is_named() -> None:
    matrix, b = _system()
    with pytest.raises(InputError, match=r"CG\(\)"):
        sciml.solve(matrix, b, solvers.CG)
    with pytest.raises(InputError, match=r"CG\(\)"):
        sciml.init(LinearSystem(SparseMatrix(matrix), torch.from_numpy(b)), solvers.CG)


HEAT = sciml.Problem(
    sciml.Box((0.0,), (1.0,)),
    sciml.Equation(kind="heat"),
    {"all": sciml.Condition(dirichlet=0.0)},
    time=sciml.Time(0.01, frames=3),
    initial="sin(pi*x)",
)


def test_the_verb_is_written_once_and_shows_its_signature() -> None:
    shown = inspect.signature(sciml.solve)
    assert list(shown.parameters)[:2] == ["problem", "arguments"]
    assert {"solver", "on", "initial", "throw", "progress"} < set(shown.parameters)
    assert "frames" in (sciml.solve.__doc__ or "")
    found = [
        path
        for folder in ("sciml/core", "solvers", "datasets", "operators", "sciml/training")
        for path in (ROOT / folder).rglob("*.py")
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "solve"
            for node in ast.parse(path.read_text()).body
        )
    ]
    assert [path.relative_to(ROOT).as_posix() for path in found] == ["solvers/solve.py"]


@pytest.mark.parametrize("solver", [solvers.SDIRK(), solvers.Auto(), None])
def test_frames_are_kept_for_a_problem_in_time(solver: Any, tmp_path: Path) -> None:
    file = tmp_path / "frames.h5"
    solution = sciml.solve(HEAT, solver, on=sciml.Grid((17,)), frames=str(file))
    assert file.is_file() and solution.value.shape == (3, 17)
    again = sciml.solve(HEAT, solver, on=sciml.Grid((17,)), frames=file)
    assert torch.equal(solution.value, again.value)


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        ((solvers.CG(),), {"frames": "f.h5"}, "frames are kept for a problem in time"),
        ((), {"frames": "f.h5"}, "frames are kept for a problem in time"),
        ((), {"frame": "f.h5"}, "solve takes no 'frame'; did you mean 'frames'"),
        ((), {"intial": None}, "solve takes no 'intial'; did you mean 'initial'"),
        ((), {"b": 1.0}, "solve takes no 'b'"),
        (("cg",), {}, r"str is no solver such as CG\(\)"),
        ((solvers.CG(), 3), {}, "solve takes"),
        ((solvers.CG(),), {"solver": solvers.GMRES()}, "solve takes"),
    ],
)
def test_what_the_verb_does_not_take_is_refused(
    arguments: tuple[Any, ...], more: dict[str, Any], message: str
) -> None:
    matrix, b = _system()
    with pytest.raises(InputError, match=message):
        sciml.solve(matrix, b, *arguments, **more)


@pytest.mark.parametrize("solver", [None, solvers.CG(), solvers.Auto()])
@pytest.mark.parametrize("on", [None, sciml.Grid((9,))])
def test_what_is_no_problem_is_named(solver: Any, on: Any) -> None:
    for given, name in ((None, "NoneType"), (SparseMatrix(np.eye(3)), "SparseMatrix")):
        with pytest.raises(InputError, match=rf"a Problem or a LinearSystem.*{name}"):
            sciml.init(given, solver, on)


@pytest.mark.parametrize("verb", [sciml.solve, sciml.init])
@pytest.mark.parametrize("solver", [None, solvers.CG(), solvers.Newton()])
def test_a_spec_is_told_from_its_problem(verb: Any, solver: Any) -> None:
    spec = sciml.load_spec(Path(__file__).parents[1] / "configs" / "poisson.yaml")
    with pytest.raises(InputError, match=r"solve\(spec.problem, spec.solver, on=spec.on\)"):
        verb(spec, solver)


def test_a_first_guess_may_be_an_array() -> None:
    box = sciml.Box((0.0, 0.0), (1.0, 1.0))
    walls = {"all": sciml.Condition(dirichlet=0.0)}
    problem, grid = sciml.Problem(box, sciml.Equation(f=1.0), walls), sciml.Grid((9, 9))
    answer = sciml.solve(problem, on=grid).value
    again = sciml.solve(problem, sciml.solvers.CG(), on=grid, initial=answer.numpy())
    assert int(again.stats.iterations) == 0
