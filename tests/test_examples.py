"""The examples do what they promise, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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
