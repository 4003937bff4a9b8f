"""The notebooks: both of their forms agree, their outputs are fit to be shown, their names public.

That they run is for ``make notebooks``; what they show was stored by ``notebooks/build.py``.
"""

from __future__ import annotations

import ast
import base64
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import sciml

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
TEXTS = sorted(FOLDER.glob("[0-9]-*.py"))
PUBLIC = {
    "sciml",
    "sciml.datasets",
    "sciml.operators",
    "sciml.solvers",
    "sciml.solvers.trained",
    "sciml.training",
}
LARGEST = 100_000  # bytes of a picture
notebooks = pytest.mark.parametrize("text", TEXTS, ids=lambda path: path.stem)


def cells(text: Path) -> list[dict[str, Any]]:
    return json.loads(text.with_suffix(".ipynb").read_text())["cells"]


def outputs(text: Path) -> list[dict[str, Any]]:
    return [output for cell in cells(text) for output in cell.get("outputs", [])]


def pictures(found: list[dict[str, Any]]) -> list[bytes]:
    coded = (output.get("data", {}).get("image/png") for output in found)
    return [base64.b64decode("".join(picture)) for picture in coded if picture]


def test_there_are_six_each_in_two_forms() -> None:
    assert [path.stem[0] for path in TEXTS] == list("123456")
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == {path.stem for path in TEXTS}


@notebooks
def test_text_and_notebook_have_the_same_cells(text: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    written = jupytext.read(text, fmt="py:percent").cells
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in cells(text)]
    assert [(cell.cell_type, cell.source) for cell in written] == stored


def test_jupyter_keeps_them_paired() -> None:
    pytest.importorskip("jupytext")
    command = [sys.executable, "-m", "jupytext", "--paired-paths", TEXTS[0].with_suffix(".ipynb")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ROOT / done.stdout.strip()).resolve() == TEXTS[0], done.stderr


@notebooks
def test_every_cell_was_run_in_order_without_noise(text: Path) -> None:
    code = [cell for cell in cells(text) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in cells(text):
        assert not cell["metadata"]
    for output in outputs(text):
        assert output["output_type"] != "error" and output.get("name") != "stderr"
        said = json.dumps({**output, "data": {**output.get("data", {}), "image/png": ""}})
        assert "\\u001b" not in said and "\\r" not in said
        assert not re.search(r"/(work|tmp|home|root|Users|site-packages)\b", said), said


@notebooks
def test_pictures_are_small_and_the_last_cell_has_one(text: Path) -> None:
    sizes = [len(picture) for picture in pictures(outputs(text))]
    assert max(sizes) <= LARGEST, sizes
    assert pictures(cells(text)[-1]["outputs"])


@notebooks
def test_only_public_names_are_used(text: Path) -> None:
    tree = ast.parse(text.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            own = [alias.name for alias in node.names if alias.name.startswith("sciml")]
            assert set(own) <= PUBLIC
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("sciml"):
            assert node.module in PUBLIC
            module = importlib.import_module(str(node.module))
            assert {alias.name for alias in node.names} <= set(module.__all__)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "sciml" or node.attr in sciml.__all__, node.attr


@notebooks
def test_the_index_shows_it(text: Path) -> None:
    index = (ROOT / "docs" / "notebooks" / "index.md").read_text()
    assert f"../images/notebooks/{text.stem}.png" in index
    assert (ROOT / "docs" / "images" / "notebooks" / f"{text.stem}.png").is_file()


@pytest.fixture(scope="module")
def batch() -> sciml.Solution:
    box = sciml.Box((0.0, 0.0), (1.0, 1.0))
    K = torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None].expand(2, 9, 9)
    sides = {"all": sciml.Condition(dirichlet=0.0)}
    return sciml.solve(
        sciml.Problem(box, sciml.Equation(K=K, f=1.0), sides),
        sciml.solvers.Direct(),
        on=sciml.Grid((9, 9)),
    )


def test_a_solution_shows_itself_in_one_line(batch: sciml.Solution) -> None:
    pattern = r"Solution\(2 of 2 converged, iterations \d+, residual \S+, u of shape \(2, 9, 9\)\)"
    assert re.fullmatch(pattern, repr(batch))


def test_a_certificate_shows_itself_in_one_line(batch: sciml.Solution) -> None:
    box = sciml.Box((0.0, 0.0), (1.0, 1.0))
    problem = sciml.Problem(box, sciml.Equation(f=1.0), {"all": sciml.Condition(dirichlet=0.0)})
    found = sciml.certify(0.5 * batch.value[0], problem, sciml.Grid((9, 9)))
    numbers = re.search(r"between (\S+) and (\S+) in", repr(found))
    assert numbers is not None and float(numbers[1]) <= 0.5005 and float(numbers[2]) >= 0.4995
    assert "1 sample)" in repr(found)


def test_a_plot_is_a_picture_without_pyplot(batch: sciml.Solution) -> None:
    assert sciml.plot(batch)._repr_png_().startswith(b"\x89PNG")


def test_a_family_is_read_and_generated_from_python(tmp_path: Path) -> None:
    changes = ["grid.shape=[9,9]", "dataset.shapes=[]", "dataset.splits={train: 3}"]
    family = sciml.load_family(ROOT / "configs" / "datasets" / "darcy.yaml", changes)
    manifest = sciml.generate(family, tmp_path / "darcy")
    assert sum(shard.samples for shard in manifest.shards) == 3 and not manifest.rejects
    assert sciml.generate(family, tmp_path / "darcy") == manifest
