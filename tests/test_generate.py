"""Datasets come out the same whatever happens on the way, and hold what solving gives."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shards import shard
from typer.testing import CliRunner

import sciml
from sciml.app.cli import app
from sciml.app.read import load_family
from sciml.core import disk
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.datasets import generate as module
from sciml.datasets.distributions import GaussianField, Uniform
from sciml.datasets.family import DatasetOptions, Family
from sciml.datasets.generate import count_stored, generate
from sciml.datasets.samples import attempt, numbers, subsampled
from sciml.datasets.store import Manifest, read_manifest, read_shard
from sciml.datasets.stream import Stream
from sciml.solvers import CG, Jacobi, Multigrid

ROOT = Path(__file__).resolve().parents[1]
WALLS = {side: Condition(dirichlet=0.0) for side in ("left", "right", "bottom", "top")}
UNIT = Box((0.0, 0.0), (1.0, 1.0))
SPEC = {"problem": {"equation": {"kind": "darcy"}}}


def darcy(
    splits: Mapping[str, int] | None = None, solver: Any = None, shard: int = 4, **more: Any
) -> Family:
    """Darcy flow on 17 x 17 nodes, kept at 17 and 9."""
    rock = GaussianField(through="where(a > 0, 12, 3)")
    return Family(
        problem=Problem(UNIT, Equation(K=rock, f=1.0, kind="darcy"), WALLS),
        grid=Grid((17, 17)),
        solver=solver or CG(preconditioner=Multigrid(), rtol=1e-8),
        dataset=DatasetOptions(
            name="darcy",
            inputs={"a": "problem.equation.K"},
            shapes=((17, 17), (9, 9)),
            splits=splits or {"train": 10, "test": 3},
            shard=shard,
            **more,
        ),
    )


def make(family: Family, out: Path, **more: Any) -> Manifest:
    return generate(family, out, spec=SPEC, versions={"sciml": "0"}, **more)


def contents(folder: Path) -> dict[str, str]:
    """Every file of a dataset, hidden ones too, with its hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted dataset."""
    folder = tmp_path_factory.mktemp("whole")
    make(darcy(), folder)
    return folder


def test_stored_samples_are_solutions_of_the_family(whole: Path) -> None:
    """Each is remade from (seed, i), and solved directly to the stored digits."""
    family = darcy()
    shard = read_shard(whole / "data/train/00001.hdf5")
    assert shard.indices.tolist() == [4, 5, 6, 7]
    assert (shard.inputs, shard.outputs) == (("a",), ("u",))
    problem = family.sample(0, [5])
    exact = sciml.solve(problem, sciml.solvers.Direct(), on=family.on)
    assert np.array_equal(shard.fields["a"][1], problem.form.K[0].numpy().astype(np.float32))
    assert np.allclose(shard.fields["u"][1, 0], exact.value[0].numpy(), rtol=0, atol=1e-7)
    assert shard.residuals.max() <= 1e-8
    assert read_shard(whole / "data/test/00000.hdf5").indices.tolist() == list(
        numbers("test", 0, 3)
    )


def test_further_resolutions_are_every_other_point(whole: Path) -> None:
    for path in (whole / "data").rglob("*.hdf5"):
        fine, coarse = read_shard(path), read_shard(whole / "at-9x9" / path.relative_to(whole))
        for name, values in fine.fields.items():
            assert np.array_equal(values[..., ::2, ::2], coarse.fields[name])
        assert np.array_equal(fine.axes[0][::2], coarse.axes[0])


def test_the_manifest_vouches_for_every_file(whole: Path) -> None:
    manifest = read_manifest(whole)
    assert manifest is not None
    manifest.check(whole)
    assert count_stored(manifest) == 13
    assert {whole / entry.path for entry in manifest.shards} == set(whole.rglob("*.hdf5"))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_whatever_the_workers(whole: Path, tmp_path: Path, workers: int) -> None:
    make(darcy(), tmp_path, workers=workers)
    assert contents(tmp_path) == contents(whole)


def test_nothing_is_made_twice(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(whole)
    monkeypatch.setattr(module, "make_shard", None)
    make(darcy(), whole)
    assert contents(whole) == before


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-7]), id="cut"),
    ],
)
def test_a_lost_shard_is_made_again(
    whole: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    make(darcy(), tmp_path)
    harm(tmp_path / "at-9x9/data/train/00001.hdf5")
    make(darcy(), tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on(whole: Path, tmp_path: Path, workers: int) -> None:
    def stop(stored: int, wanted: int, rejects: int) -> None:
        if stored > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(darcy(), tmp_path, workers=workers, progress=stop)
    kept = read_manifest(tmp_path)
    assert kept is not None
    kept.check(tmp_path)
    assert 4 < count_stored(kept) < 13
    make(darcy(), tmp_path)
    assert contents(tmp_path) == contents(whole)


def _make_until_killed(out: Path, ready: Any) -> None:
    attempt(darcy(), 0, [0])  # loads what takes long
    ready.set()
    make(darcy(), out)
    time.sleep(60)


def test_kill_9_at_any_moment(whole: Path, tmp_path: Path) -> None:
    """Ten times one process is killed in the midst of a dataset, and another goes on."""
    moments = random.Random(0)
    server = get_context("forkserver")
    server.set_forkserver_preload(["sciml.datasets.generate", "sciml.solvers.linear.multigrid"])
    acknowledged: dict[str, str] = {}
    for _ in range(10):
        ready = server.Event()
        process = server.Process(target=_make_until_killed, args=(tmp_path, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.join()
        manifest = read_manifest(tmp_path)
        if manifest is not None:
            manifest.check(tmp_path)
            now = {entry.path: entry.sha256 for entry in manifest.shards}
            assert acknowledged.items() <= now.items()
            acknowledged = now
    make(darcy(), tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("write", range(10))
def test_a_full_disk_is_told_and_overcome(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """The disk is full from the n-th file on; then there is room again."""
    files_left = iter(range(write))

    def full(handle: int) -> None:
        if next(files_left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    monkeypatch.setattr(disk, "_sync_directory", lambda directory: None)
    with pytest.raises(InputError, match=rf"cannot write '{tmp_path}.*No space left on device"):
        make(darcy(), tmp_path)
    monkeypatch.undo()
    kept = read_manifest(tmp_path)
    if kept is not None:
        kept.check(tmp_path)
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]
    make(darcy(), tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which only root may")
def test_a_disk_that_is_really_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = ["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", str(tmp_path)]
    if subprocess.run(mounted, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk here")
    monkeypatch.setattr(module, "_check_disk", lambda *arguments: None)
    try:
        with pytest.raises(InputError, match="No space left on device"):
            make(darcy(), tmp_path)
        kept = read_manifest(tmp_path)
        assert kept is not None
        kept.check(tmp_path)
        assert 0 < count_stored(kept) < 13
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_too_little_disk_is_refused_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the dataset needs about .* GB"):
        make(darcy({"train": 10**12}), tmp_path)
    assert not contents(tmp_path)


def test_a_dataset_of_another_spec_is_refused(whole: Path) -> None:
    before = contents(whole)
    other = {"problem": {"equation": {"kind": "poisson"}}, "grid": {"shape": [3]}}
    with pytest.raises(InputError, match=r"differs in grid, problem\.equation\.kind"):
        generate(darcy(), whole, spec=other, versions={})
    assert contents(whole) == before


def test_the_command_line_makes_and_refuses(tmp_path: Path) -> None:
    spec = str(ROOT / "configs/datasets/darcy.yaml")
    small = ["--set", "grid.shape=[17,17]", "--set", "dataset.shapes=[]", "--out", str(tmp_path)]
    for _ in range(2):
        made = CliRunner().invoke(app, ["generate", spec, "--count", "12", *small])
        assert made.exit_code == 0
        assert "12 samples in" in made.output
    other = CliRunner().invoke(app, ["generate", spec, "--count", "13", *small])
    assert other.exit_code == 2
    assert "another spec; it differs in dataset.splits.train. Name another folder" in other.output


def test_data_without_a_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="data without a manifest"):
        make(darcy(), tmp_path)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    def again(*numbers: int) -> None:
        make(darcy(), tmp_path)

    with pytest.raises(InputError, match="another run is making the dataset"):
        make(darcy(), tmp_path, progress=again)


def hard(iterations: int, splits: Mapping[str, int] | None = None) -> Family:
    """A family that so many iterations solve only some of."""
    return darcy(splits, CG(preconditioner=Jacobi(), rtol=1e-8, max_iterations=iterations))


def test_rejects_are_named_and_replaced(tmp_path: Path) -> None:
    family = hard(56)
    manifest = make(family, tmp_path)
    assert count_stored(manifest) == 13
    found = attempt(family, 0, numbers("train", 0, 10))
    first = {int(i): why for i, why in manifest.rejects.items() if int(i) < 10}
    assert first == dict(found.rejects)
    assert set(manifest.rejects.values()) == {"max_iterations"}
    stored = [i for path in tmp_path.glob("data/*/*.hdf5") for i in read_shard(path).indices]
    assert len(set(stored)) == 13
    assert not set(map(str, stored)) & set(manifest.rejects)


def test_a_family_that_does_not_converge_is_given_up(tmp_path: Path) -> None:
    words = r"of the first \d+ samples did not converge \(\d+ of them: max_iterations\)"
    for _ in range(2):  # and so it is when asked again
        with pytest.raises(InputError, match=words):
            make(hard(2, {"train": 100}), tmp_path)
        manifest = read_manifest(tmp_path)
        assert manifest is not None
        assert len(manifest.rejects) == 20


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_keeps_its_message(tmp_path: Path, workers: int) -> None:
    """K <= 0 in some sample stops a run with one line that names the key."""
    family = darcy()
    problem = Problem(UNIT, Equation(K=GaussianField(), f=1.0, kind="darcy"), WALLS)
    wrong = Family(problem, family.grid, family.solver, family.dataset)
    with pytest.raises(InputError, match="positive") as caught:
        make(wrong, tmp_path, workers=workers)
    assert caught.value.key == "problem.equation.K"


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        pytest.param("slurm", "unknown engine 'slurm'", id="unknown"),
        pytest.param("dask://host:1", "needs pip install distributed", id="dask"),
        pytest.param("mpi", "needs pip install mpi4py", id="mpi"),
    ],
)
def test_engines_say_what_they_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, words: str
) -> None:
    for package in ("distributed", "mpi4py.futures"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=words):
        make(darcy(), tmp_path, engine=engine)


def test_batches_do_not_change_what_is_drawn() -> None:
    family = darcy()
    together = family.draw(0, [3, 1, 2])["problem.equation.K"]
    for k, i in enumerate((3, 1, 2)):
        assert torch.equal(together[k], family.draw(0, [i])["problem.equation.K"][0])


def test_every_random_thing_has_a_name_of_its_own() -> None:
    number = Uniform(1.0, 2.0)
    problem = Problem(
        UNIT,
        Equation(K=(number, Uniform(2.0, 3.0)), b=(number, 1.0), f=GaussianField()),
        {**WALLS, "left": Condition(dirichlet=number)},
        parameters={"q": number},
    )
    family = Family(problem, Grid((9, 9)))
    assert family.inputs == {
        "equation_K_0": "problem.equation.K.0",
        "equation_K_1": "problem.equation.K.1",
        "equation_b_0": "problem.equation.b.0",
        "f": "problem.equation.f",
        "dirichlet": "problem.boundary.left.dirichlet",
        "q": "problem.parameters.q",
    }
    found = attempt(family, 0, range(3))
    assert found.accepted is not None
    assert set(found.accepted.scalars) == set(family.inputs) - {"f"}


SMALL = {
    "darcy": ("grid.shape=[17,17]", "dataset.shapes=[[17,17],[9,9]]"),
    "darcy-rough": ("grid.shape=[17,17]", "dataset.shapes=[]"),
    "darcy-multiscale": ("grid.shape=[17,17]",),
    "poisson-obstacles": ("grid.shape=[17,17]",),
    "poisson-obstacles-3d": ("grid.shape=[13,13,13]",),
    "helmholtz": ("grid.shape=[33,33]",),
    "heat": ("grid.shape=[9,9]", "problem.time.frames=3", "solver.rtol=0.001"),
    "advection": ("grid.shape=[40]", "problem.time.frames=3", "solver.rtol=0.01"),
    "burgers": ("grid.shape=[65]", "dataset.shapes=[[65],[33]]"),
    "diffusion-reaction": ("grid.shape=[17]", "problem.time.frames=3", "solver.rtol=0.01"),
    "allen-cahn": ("grid.shape=[129]", "problem.time.frames=3", "solver.rtol=0.001"),
    "wave": ("grid.shape=[9,9]", "problem.time.frames=3", "solver.rtol=0.01"),
    "navier-stokes-1e-3": ("grid.shape=[32,32]", "problem.time.end=1", "problem.time.frames=3"),
    "navier-stokes-1e-5": ("grid.shape=[32,32]", "problem.time.end=1", "problem.time.frames=3"),
    "elasticity-hole": ("geometry.size=0.3", "geometry.holes=[{circle: [0.5, 0.5, 0.2]}]"),
}
OUTPUTS = {
    "elasticity-hole": ("u", "v"),
    "helmholtz": ("u_real", "u_imag"),
    "navier-stokes-1e-3": ("vorticity",),
    "navier-stokes-1e-5": ("vorticity",),
}


def test_every_preset_is_tried() -> None:
    assert set(SMALL) == {path.stem for path in (ROOT / "configs/datasets").glob("*.yaml")}


@pytest.mark.parametrize("name", SMALL)
def test_presets_make_samples(name: str, tmp_path: Path) -> None:
    family = load_family(ROOT / f"configs/datasets/{name}.yaml", SMALL[name]).with_count(2)
    if family.geometry is not None:
        pytest.importorskip("gmsh", exc_type=(ImportError, OSError))
    make(family, tmp_path)
    shard = read_shard(tmp_path / "data/train/00000.hdf5")
    assert shard.samples == 2
    assert shard.outputs == OUTPUTS.get(name, ("u",))
    assert len(shard.time) == (1 if family.problem.time is None else family.problem.time.frames)
    for field in shard.outputs:
        if field != "u_imag":  # between walls that reflect, waves are real
            assert not np.allclose(*shard.fields[field], equal_nan=True)
    for given in {"u0", "w0"} & set(shard.inputs):
        start, frame = shard.fields[given], shard.fields[shard.outputs[0]][:, 0]
        assert np.abs(frame - start).max() < 0.1 * np.abs(start).max()


def test_several_fields_and_numbers(tmp_path: Path) -> None:
    """u, v and p of a flow, whose viscosity is drawn."""
    spec = tmp_path / "cavity.yaml"
    spec.write_text(CAVITY)
    family = load_family(spec)
    make(family, tmp_path / "out")
    shard = read_shard(tmp_path / "out/data/train/00000.hdf5")
    assert set(shard.outputs) >= {"u", "v", "p"}
    assert shard.scalars["nu"].shape == (2,)
    assert shard.fields["u"].shape == (2, 2, 8, 8)
    assert not np.allclose(shard.fields["u"][0, -1], shard.fields["u"][1, -1])


CAVITY = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: navier_stokes, viscosity: nu}
  boundary:
    left: {dirichlet: [0, 0]}
    right: {dirichlet: [0, 0]}
    bottom: {dirichlet: [0, 0]}
    top: {dirichlet: [1, 0]}
  parameters: {nu: {kind: uniform, low: 0.02, high: 0.1}}
  time: {end: 0.2, frames: 2}
  initial: {u: 0, v: 0}
grid: {shape: [8, 8], centring: cell}
solver: {kind: projection, rtol: 0.05}
dataset: {splits: {train: 2}}
"""


def test_the_name_of_an_output_is_refused_for_an_input(tmp_path: Path) -> None:
    family = darcy()
    options = DatasetOptions(inputs={"u": "problem.equation.K"}, splits={"train": 2})
    with pytest.raises(InputError, match="an output is called 'u' too"):
        make(Family(family.problem, family.grid, family.solver, options), tmp_path)


@pytest.mark.parametrize(
    ("shapes", "centring"),
    [
        pytest.param(((8, 17),), "node", id="node"),
        pytest.param(((17,),), "node", id="dimension"),
        pytest.param(((8, 8),), "cell", id="even"),
    ],
)
def test_resolutions_must_be_within_the_grid(tmp_path: Path, shapes: Any, centring: Any) -> None:
    problem = darcy().problem
    grid = Grid((17, 17) if centring == "node" else (16, 16), centring)
    family = Family(problem, grid, CG(), DatasetOptions(shapes=shapes, splits={"train": 1}))
    with pytest.raises(InputError, match="is no resolution within"):
        make(family, tmp_path)


def test_resolutions_of_cells_are_their_middle_ones() -> None:
    """A coarse cell keeps the fine one at its centre: the axes are those of the coarse grid."""
    fine, coarse = Grid((9, 15), "cell").bind(UNIT), Grid((3, 5), "cell").bind(UNIT)
    axes = tuple(axis.numpy() for axis in fine.axes())
    ramp = 2 * axes[0][:, None] - axes[1]
    whole = dataclasses.replace(shard(2, (9, 15)), axes=axes, fields={"u": np.stack([[ramp]] * 2)})
    kept = subsampled(whole, fine, (3, 5))
    x, y = (axis.numpy() for axis in coarse.axes())
    np.testing.assert_allclose(kept.axes[0], x)
    np.testing.assert_allclose(kept.axes[1], y)
    np.testing.assert_allclose(kept.fields["u"][1, 0], 2 * x[:, None] - y)


def test_splits_share_a_count_and_no_samples() -> None:
    family = darcy({"train": 8, "valid": 1, "test": 1}).with_count(23)
    assert family.dataset.splits == {"train": 19, "valid": 2, "test": 2}
    ranges = [set(numbers(split, 0, 50)) for split in ("train", "valid", "test")]
    assert len(set.union(*ranges)) == 150


def test_a_stream_is_verified_batches_of_the_family() -> None:
    family = darcy()
    stream = Stream(family, seed=3, batch=4)
    batches = [batch for batch, _ in zip(stream, range(3), strict=False)]
    for batch in batches:
        assert batch["x"].shape == batch["y"].shape == (4, 1, 17, 17)
        assert batch["x"].dtype == batch["y"].dtype == torch.float32
    found = attempt(family, 3, range(4, 8)).accepted
    assert found is not None
    assert np.allclose(batches[1]["y"][:, 0].numpy(), found.fields["u"][:, 0], atol=1e-8)
    assert not torch.equal(batches[0]["x"], batches[1]["x"])
    again = next(iter(Stream(family, seed=3, batch=4)))
    assert torch.equal(again["y"], batches[0]["y"])


def test_a_stream_goes_on_where_it_was_told() -> None:
    whole = [b["x"] for b in Stream(darcy(), batch=2, length=4)]
    assert len(whole) == 4
    later = [b["x"] for b in Stream(darcy(), batch=2, length=2, first=4)]
    assert torch.equal(torch.cat(later), torch.cat(whole[2:]))


def test_a_stream_leaves_rejects_out() -> None:
    family = hard(56)
    stream = Stream(family, batch=5, length=3)
    values = torch.cat([b["x"] for b in stream])
    assert len(values) == 15
    assert stream.rejects
    kept = [i for i in range(40) if i not in attempt(family, 0, range(40)).rejects][:15]
    drawn = family.draw(0, kept)["problem.equation.K"].float()
    assert torch.equal(values[:, 0], drawn)


def test_a_stream_that_never_converges_says_so() -> None:
    with pytest.raises(InputError, match="did not converge"):
        next(iter(Stream(hard(2), batch=4)))


INTERRUPTED = """
from pathlib import Path
from test_generate import darcy, make
if __name__ == "__main__":
    tell = lambda stored, *_: print(stored, flush=True)
    make(darcy({{"train": 4000}}), Path({out!r}), workers=2, progress=tell)
"""


def test_ctrl_c_ends_the_workers_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED.format(out=str(tmp_path / "out")))
    process = subprocess.Popen(
        [sys.executable, str(program)], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        # A shell's background jobs ignore Ctrl-C, and hand that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    while int(process.stdout.readline()) < 8:
        pass
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=60)  # ends when no worker holds the pipe
    assert process.returncode != 0
    assert "KeyboardInterrupt" in words
    kept = read_manifest(tmp_path / "out")
    assert kept is not None
    kept.check(tmp_path / "out")


def test_a_killed_worker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Executor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor())
            return future

    monkeypatch.setattr(module, "executor", lambda engine, workers: nullcontext(Broken()))
    with pytest.raises(InputError, match=r"a worker was killed.*fewer workers"):
        make(darcy(), tmp_path)
