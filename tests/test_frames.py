"""Frames on disk: whole or not counted, whenever the process dies, and a run that goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from sciml.app.console import Watch
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, write_run
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.files import save_solution
from sciml.core.run.frames import _BLOCK, Frames, _block, fingerprint, keep_state
from sciml.solvers import BDF, IMEX, SDIRK, RungeKutta, Verlet

TIMES = (0.0, 0.5, 1.0, 1.5)
ROOT = Path(__file__).parent.parent


def state(k: int) -> tuple[torch.Tensor, ...]:
    u = torch.arange(12, dtype=torch.float64).reshape(2, 2, 3) + k
    return u, 10 * u, torch.tensor(k), torch.tensor([0.5 * k, 1.0])


def filled(path: Path, count: int) -> Frames:
    frames = Frames(TIMES, path, "this run")
    for k in range(count):
        frames.append(*state(k))
    return frames


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    written = filled(path, 3)
    read = Frames(TIMES, path, "this run")
    assert read.count == written.count == 3
    assert not read.complete
    for a, b in zip(read.states[-1], state(2), strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    assert torch.equal(read.stack(1), torch.stack([state(k)[0] for k in range(3)], dim=-2))
    assert torch.equal(read.stack(1), written.stack(1))
    read.append(*state(3))
    assert Frames(TIMES, path, "this run").complete


def test_any_reader_of_hdf5_opens_the_file(tmp_path: Path) -> None:
    filled(tmp_path / "frames.h5", 2)
    with h5py.File(tmp_path / "frames.h5") as file:
        assert file["count"][0] == 2
        assert file["state/0"].shape == (4, 2, 2, 3)
        np.testing.assert_array_equal(file["state/0"][1], state(1)[0].numpy())
        np.testing.assert_array_equal(file["times"][()], TIMES)


def test_in_memory_there_is_no_file() -> None:
    frames = Frames(TIMES)
    frames.append(*state(0))
    assert frames.count == 1
    assert frames.path is None


def test_complex_states_come_back(tmp_path: Path) -> None:
    frames = Frames(TIMES, tmp_path / "frames.h5")
    spectrum = torch.fft.rfft(torch.rand(3, 8, dtype=torch.float64))
    frames.append(spectrum)
    assert torch.equal(Frames(TIMES, tmp_path / "frames.h5").states[0][0], spectrum)


def test_a_file_of_another_run_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    filled(path, 2)
    before = path.read_bytes()
    for times, mark in ((TIMES, "another"), ((*TIMES[:-1], 2.0), "this run")):
        with pytest.raises(InputError, match="another problem, grid or solver"):
            Frames(times, path, mark)
    assert path.read_bytes() == before


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    path.write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        Frames(TIMES, path)
    with h5py.File(path, "w") as file:
        file["u"] = [1.0]
    with pytest.raises(InputError, match="no frames written by this package"):
        Frames(TIMES, path)


def test_frames_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    """Though the file's own hash is right: who made it would choose what is read here."""
    filled(tmp_path / "whole.h5", 2)
    for name in ("link", "storage"):
        path = tmp_path / f"{name}.h5"
        with (
            h5py.File(tmp_path / "whole.h5") as old,
            h5py.File(path, "w", userblock_size=_BLOCK) as new,
        ):
            for entry in old:
                old.copy(entry, new)
            new.attrs.update(old.attrs)
            del new["state/0"]
            if name == "link":
                new["state/0"] = h5py.ExternalLink(str(tmp_path / "whole.h5"), "/state/0")
            else:
                outside = [(str(tmp_path / "whole.h5"), 0, 384)]
                new.create_dataset("state/0", (4, 2, 2, 3), "<f8", external=outside)
        block = _block(path, [])
        with open(path, "rb+") as raw:
            raw.write(block)
        with pytest.raises(InputError, match="another file"):
            Frames(TIMES, path, "this run")


def test_a_frame_cut_off_by_death_is_not_counted(tmp_path: Path) -> None:
    """The bytes of a third frame are half there, its number is not."""
    path = tmp_path / "frames.h5"
    frames = filled(path, 2)
    assert frames._file is not None
    with open(path, "rb+") as file:
        file.seek(frames._file.offsets[0] + 2 * frames._file.sizes[0])
        file.write(b"\xff" * (frames._file.sizes[0] // 2))
    again = Frames(TIMES, path, "this run")
    assert again.count == 2
    again.append(*state(2))
    assert torch.equal(Frames(TIMES, path, "this run").states[-1][0], state(2)[0])


def test_a_flipped_bit_is_refused_or_its_frame_computed_again(tmp_path: Path) -> None:
    """Of 300 single faults anywhere in the file none is a frame that differs from what it was."""
    path, draw = tmp_path / "frames.h5", np.random.default_rng(0)
    frames = filled(path, 3)
    assert frames._file is not None
    whole = path.read_bytes()
    places = draw.integers(len(whole), size=250).tolist()
    ends = [frames._file.count_at, frames._file.hashes_at]
    places += [a + k for a in (*frames._file.offsets, *ends) for k in draw.integers(8, size=9)]
    del frames
    kept = []
    for place in places:
        data = bytearray(whole)
        data[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)
        try:
            again = Frames(TIMES, path, "this run")
        except InputError as error:
            assert "\n" not in error.message
            kept.append(-1)
            continue
        for k, found in enumerate(again.states):
            for a, b in zip(found, state(k), strict=False):
                assert torch.equal(a, b)
        kept.append(again.count)
    assert set(kept) == {-1, 0, 1, 2, 3}


def test_frames_without_hashes_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file.attrs["format"] = "sciml frames 1"
    with pytest.raises(InputError, match="another version, without hashes; remove it to start"):
        Frames(TIMES, tmp_path / "frames.h5")


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "frames.h5"
    frames = filled(path, 2)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(InputError, match="No space left on device; 2 of 4 frames are kept: run"):
        frames.append(*state(2))
    assert Frames(TIMES, path, "this run").count == 2


def test_a_second_process_may_not_write_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    frames = filled(path, 1)
    code = (
        "import sys\n"
        "from sciml.core.errors import InputError\n"
        "from sciml.core.run.frames import Frames\n"
        "try:\n    Frames((0.0, 0.5, 1.0, 1.5), sys.argv[1], 'this run')\n"
        "except InputError as error:\n    print(error.message)\n"
    )
    run = [sys.executable, "-c", code, str(path)]
    busy = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "being written by another run" in busy.stdout
    del frames
    free = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True)
    assert free.stdout == ""


def problem(**more: Any) -> Problem:
    return Problem(
        Box((0.0,), (1.0,)),
        Equation(kind="allen_cahn", K=0.01),
        dict.fromkeys(("left", "right"), Condition(neumann=0.0)),
        time=Time(1.0, frames=9),
        initial=more.pop("initial", "0.3*cos(3*pi*x) - 0.1"),
        **more,
    )


def wave() -> Problem:
    return Problem(
        Box((0.0,), (1.0,)),
        Equation(kind="wave"),
        dict.fromkeys(("left", "right"), Condition(dirichlet=0.0)),
        time=Time(1.0, frames=9),
        initial={"u": "x*(1 - x)", "ut": "sin(pi*x)"},
    )


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "integrator",
    [SDIRK(), IMEX(), BDF(), RungeKutta(), SDIRK(step=0.03, rtol=1e-2), Verlet()],
    ids=lambda i: f"{i.kind}{'' if i.step is None else '-fixed'}",
)
def test_a_run_taken_up_is_the_uninterrupted_one_bit_for_bit(
    integrator: Any, tmp_path: Path
) -> None:
    stated = wave() if integrator.kind == "verlet" else problem()
    whole = integrator.run(integrator.init(stated, Grid((33,))))
    path = tmp_path / "frames.h5"

    def kill(step: int, t: float) -> None:
        if t > 0.55:
            raise Killed

    with pytest.raises(Killed):
        integrator.run(integrator.init(stated, Grid((33,))), frames=path, progress=kill)
    state = integrator.init(stated, Grid((33,)))
    again = integrator.run(state, frames=path)
    assert torch.equal(again.value, whole.value)
    assert torch.equal(again.residual, whole.residual)
    assert torch.equal(again.stats.iterations, whole.stats.iterations)
    assert any("went on from frame 5" in note for note in again.notes)
    seen: list[int] = []
    complete = integrator.run(state, frames=path, progress=lambda step, t: seen.append(step))
    assert torch.equal(complete.value, whole.value)
    assert complete.statuses == whole.statuses
    assert not seen


_VICTIM = """
import sys, time
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.test_frames import Grid, IMEX, problem
solver = IMEX()
state = solver.init(problem(), Grid((33,)))
solver.run(state, frames={path!r}, progress=lambda step, t: time.sleep(0.02))
"""


def test_a_run_killed_by_the_system_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    victim = subprocess.Popen(
        [sys.executable, "-c", _VICTIM.format(root=str(ROOT), path=str(path))], cwd=ROOT
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and counted(path) < 3:
            time.sleep(0.005)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    found = counted(path)
    assert 3 <= found < 9
    solver = IMEX()
    state = solver.init(problem(), Grid((33,)))
    again = solver.run(state, frames=path)
    assert any(f"went on from frame {found} " in note for note in again.notes)
    assert torch.equal(again.value, solver.run(state).value)


def counted(path: Path) -> int:
    if not path.exists():
        return 0
    with h5py.File(path, locking=False) as file:
        return int(file["count"][0])


def test_the_fingerprint_knows_problem_grid_solver_and_data() -> None:
    base = (problem(), Grid((33,)), SDIRK())
    same = fingerprint(problem(), Grid((33,)), SDIRK())
    assert fingerprint(*base) == same
    field = torch.linspace(0, 1, 33)
    others = [
        (replace(base[0], initial="0.3"), *base[1:]),
        (base[0], Grid((17,)), base[2]),
        (*base[:2], SDIRK(rtol=1e-5)),
        (problem(initial=field), *base[1:]),
        (problem(initial=field + 1), *base[1:]),
        (problem(initial=lambda x: x), *base[1:]),
        (problem(initial=lambda x: 2 * x), *base[1:]),
    ]
    marks = [same, *(fingerprint(*other) for other in others)]
    assert len(set(marks)) == len(marks)


def test_a_changed_problem_does_not_go_on_in_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    solver = RungeKutta()
    solver.run(solver.init(problem(), Grid((17,))), frames=path)
    with pytest.raises(InputError, match="another problem") as caught:
        solver.run(solver.init(problem(initial="0.2"), Grid((17,))), frames=path)
    assert caught.value.key == "frames"


HEAT = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: heat, K: 1}
  boundary: {all: {dirichlet: 0}}
  time: {end: 0.05, frames: 6}
  initial: "sin(pi*x)"
grid: {shape: [17]}
"""
FLOW = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: navier_stokes, viscosity: 0.1}
  boundary:
    left: {dirichlet: ["4*y*(1-y)", 0]}
    right: {neumann: 0}
    bottom: {dirichlet: [0, 0]}
    top: {dirichlet: [0, 0]}
  obstacle: {inside: "(x-0.5)**2+(y-0.45)**2<0.03", boundary: {dirichlet: [0, 0]}}
  time: {end: 0.05, frames: 6}
  initial: 0
grid: {shape: [12, 12], centring: cell}
output:
  quantities:
    drag: {force: [1, 0], on: obstacle}
    most: {force: [1, 0], on: obstacle, over_time: max}
"""


@pytest.mark.parametrize("text", [HEAT, FLOW])
def test_a_later_end_goes_on_as_one_long_run(text: str, tmp_path: Path) -> None:
    longer = ["problem.time.end=0.1", "problem.time.frames=11"]
    first = read_spec(parse_yaml(text, "spec.yaml"))
    whole = read_spec(parse_yaml(text, "spec.yaml"), longer)
    done = answer(first, Setting(), frames=tmp_path / "frames.h5").solution
    keep_state(tmp_path / "frames.h5", save_solution(done, tmp_path)[0], text == FLOW)
    (tmp_path / "frames.h5").unlink()
    steps: list[float] = []
    watch = Watch(lambda line, reached: steps.append(reached), whole.problem.time)
    result = answer(whole, Setting(), watch, tmp_path / "frames.h5")
    expected = answer(whole, Setting(), frames=tmp_path / "other" / "frames.h5")
    assert min(steps) > 0.05
    assert torch.equal(result.solution.value.nan_to_num(), expected.solution.value.nan_to_num())
    for name, found in (result.measured.quantities if result.measured else {}).items():
        assert torch.equal(found.value, expected.measured.quantities[name].value)
    # Frames that are not among the old ones, and other data, are begun anew.
    for change in ("problem.time.frames=10", "grid.shape=[14]"):
        if text == HEAT:
            (tmp_path / "frames.h5").unlink()
            steps.clear()
            other = read_spec(parse_yaml(text, "spec.yaml"), [*longer, change])
            answer(other, Setting(), watch, tmp_path / "frames.h5")
            assert min(steps) < 0.05


def test_a_run_begins_from_the_last_frame_of_another(tmp_path: Path) -> None:
    text = HEAT.replace("sin(pi*x)", "k*sin(pi*x)").replace(
        "  time:", "  parameters: {k: [1, 2]}\n  time:"
    )
    spec = read_spec(parse_yaml(text, "spec.yaml"))
    done = answer(spec, Setting())
    write_run(done, tmp_path / "a")
    other = text.replace('"k*sin(pi*x)"', f"{{run: {tmp_path / 'a'}}}")
    going = answer(read_spec(parse_yaml(other, "spec.yaml")), Setting())
    assert torch.equal(going.solution.value[:, 0], done.solution.value[:, -1])
    series = text.replace(
        '"k*sin(pi*x)"', f"{{file: {tmp_path / 'a' / 'solution.h5'}, dataset: u}}"
    )
    with pytest.raises(InputError, match="6 frames of a run, not a batch"):
        answer(read_spec(parse_yaml(series, "spec.yaml")), Setting())
    wide = read_spec(parse_yaml(other.replace("upper: [1", "upper: [2"), "spec.yaml"))
    with pytest.raises(InputError, match="is on the box"):
        answer(wide, Setting())
    with pytest.raises(InputError, match="written over"):
        answer(read_spec(parse_yaml(other, "spec.yaml")), Setting(), None, tmp_path / "a" / "f.h5")
    wave = other.replace("kind: heat, K: 1", "kind: wave")
    with pytest.raises(InputError, match="keeps u, not u_t"):
        read_spec(parse_yaml(wave, "spec.yaml"))
    with pytest.raises(InputError, match="does not exist"):
        read_spec(parse_yaml(other.replace("/a}", "/b}"), "spec.yaml"))
