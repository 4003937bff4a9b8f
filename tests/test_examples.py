"""The examples do what they promise, run as a reader would run them."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def output_of(example: str, folder: Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / example)]
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_inverse_problem_is_solved_to_its_noise(tmp_path: Path) -> None:
    text = output_of("inverse_diffusion.py", tmp_path)
    misfit, found, before = (float(n) for n in re.findall(r"\d\.\d+", text))
    assert 0.7 < misfit < 1.2
    assert found < 0.1 < before
    assert (tmp_path / "inverse.png").is_file()


# Programs written without this package, and the same with one line changed; what each needs.
PAIRS = [
    ("scipy_heat", "scipy"),
    ("pyamg_krylov", "pyamg"),
    ("petsc_ksp", "petsc4py"),
]


@pytest.mark.parametrize(("program", "needs"), PAIRS)
def test_one_line_and_an_import_make_the_difference(program: str, needs: str) -> None:
    without, using = (
        (ROOT / "examples" / f"{program}{tail}.py").read_text().splitlines()
        for tail in ("", "_sciml")
    )
    changes = [
        line for line in difflib.ndiff(without, using) if line[0] in "+-" and line[2:].strip()
    ]
    added = [line[2:] for line in changes if line[0] == "+"]
    removed = [line[2:] for line in changes if line[0] == "-"]
    assert len(removed) == 1 and len(added) == 2
    assert added[0] == "import sciml" and "sciml.as_" in added[1]


@pytest.mark.parametrize(("program", "needs"), PAIRS)
def test_the_one_line_saves_iterations(program: str, needs: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(needs) is None:
        pytest.skip(f"needs {needs}")
    found = []
    for tail in ("", "_sciml"):
        text = output_of(f"{program}{tail}.py", tmp_path)
        numbers = re.search(r"(\d+) iterations, residual (\S+), mean.* (\S+)$", text.strip())
        assert numbers is not None, text
        assert float(numbers[2]) < 2e-8
        found.append((int(numbers[1]), float(numbers[3])))
    (before, mean), (after, same) = found
    assert after < 0.8 * before
    assert same == pytest.approx(mean, rel=1e-5)
