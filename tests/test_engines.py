"""A cluster's workers make the same bytes as one process; skipped where there is no Dask or MPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_generate import contents
from typer.testing import CliRunner

from sciml.app.cli import app

ROOT = Path(__file__).resolve().parents[1]
TINY = [
    "generate", str(ROOT / "configs/datasets/darcy.yaml"), "--count", "40",
    "--set", "grid.shape=[17,17]", "--set", "dataset.shapes=[]", "--set", "dataset.shard=5",
]  # fmt: skip


def make(out: Path, *more: str) -> dict[str, str]:
    """What the command line makes, every file with its hash."""
    made = CliRunner().invoke(app, [*TINY, "--out", str(out), *more])
    assert made.exit_code == 0, made.output
    return contents(out)


@pytest.mark.parametrize(
    ("workers", "threads"), [pytest.param(2, 1, id="processes"), pytest.param(1, 2, id="threads")]
)
def test_dask_makes_the_same_bytes(tmp_path: Path, workers: int, threads: int) -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=workers, threads_per_worker=threads, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        assert make(tmp_path / "dask", "--engine", f"dask://{address}") == make(tmp_path / "here")


def test_mpi_makes_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py.futures")
    beside = Path(sys.executable).parent
    launcher = shutil.which("mpiexec", path=os.pathsep.join((str(beside), os.environ["PATH"])))
    if launcher is None:
        pytest.skip("there is no mpiexec")
    ranks = [launcher, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", "sciml.app.cli"]
    options = ["--out", str(tmp_path / "mpi"), "--engine", "mpi"]
    made = subprocess.run(
        [*ranks, *TINY, *options], check=False, cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert contents(tmp_path / "mpi") == make(tmp_path / "here")
