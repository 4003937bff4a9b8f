"""Files: equal after a round trip, read by others, and never half a file."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import meshio
import numpy as np
import pytest
import torch
from shards import shard

from sciml.core import disk
from sciml.core.disk import GrowingFile, atomic_write, vouched, write_json
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import FieldFile
from sciml.core.problem.reader import load
from sciml.core.run import files
from sciml.core.run.files import load_fields, save_solution
from sciml.core.run.frames import Frames
from sciml.core.run.solution import Solution, Statistics, load_solution
from sciml.core.run.status import Status
from sciml.core.run.weights import write_weights
from sciml.datasets.store import write_shard

GRIDS = [
    Grid((5,), "node", Box((0.0,), (1.0,))),
    Grid((4, 6), "node", Box((-1.0, 0.0), (1.0, 3.0))),
    Grid((4, 6), "cell", Box((-1.0, 0.0), (1.0, 3.0))),
    Grid((3, 4, 5), "node", Box((0.0, 0.0, 1.0), (1.0, 2.0, 2.0))),
    Grid((3, 4, 5), "cell", Box((0.0, 0.0, 1.0), (1.0, 2.0, 2.0))),
]
MESH = Mesh(
    np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
)
NAMES = ["1D node", "2D node", "2D cell", "3D node", "3D cell"]


def solution_on(grid: Grid | Mesh | None, batch: tuple[int, ...] = (), seed: int = 0) -> Solution:
    shape = grid.shape if grid is not None else (7,)
    draw = torch.Generator().manual_seed(seed)
    value = torch.rand(*batch, *shape, generator=draw, dtype=torch.float64)
    count = int(np.prod(batch))
    statuses = tuple((Status.CONVERGED, Status.STAGNATED)[i % 2] for i in range(count))
    stats = Statistics(
        torch.full(batch, 3), torch.rand(4, *batch, generator=draw).double(), 0.25, 0.5, 12.0
    )
    residual = torch.rand(batch, generator=draw, dtype=torch.float64)
    return Solution(value, residual, statuses, stats, grid, "CG(rtol=1e-08)", ("a note", "π"))


def assert_equal(one: Solution, other: Solution) -> None:
    assert one.value.dtype == other.value.dtype
    assert torch.equal(one.value.nan_to_num(7.5), other.value.nan_to_num(7.5))
    assert torch.equal(one.residual, other.residual)
    assert one.statuses == other.statuses
    assert (one.on, one.notes) == (other.on, other.notes)
    for entry in fields(Statistics):
        mine, theirs = getattr(one.stats, entry.name), getattr(other.stats, entry.name)
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype
        else:
            assert mine == theirs


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=["single", "batch", "batch of batches"])
@pytest.mark.parametrize("grid", [*GRIDS, None], ids=[*NAMES, "bare vector"])
def test_solution_is_equal_after_a_round_trip(
    tmp_path: Path, grid: Grid | None, batch: tuple[int, ...]
) -> None:
    before = solution_on(grid, batch)
    before.value[..., 0] = torch.nan
    save_solution(before, tmp_path)
    after = load_solution(tmp_path)
    assert_equal(before, after)
    assert after.solver == repr(before.solver)
    assert_equal(after, load_solution(tmp_path / "solution.h5"))


def test_another_program_reads_the_h5_file(tmp_path: Path) -> None:
    solution = solution_on(GRIDS[1])
    save_solution(solution, tmp_path, {"K": solution.value + 1})
    with h5py.File(tmp_path / "solution.h5") as file:
        np.testing.assert_array_equal(file["u"][()], solution.value.numpy())
        np.testing.assert_array_equal(file["fields/K"][()], solution.value.numpy() + 1)
        assert list(file["u"].attrs["lower"]) == [-1.0, 0.0]
    assert torch.equal(load_fields(tmp_path)["K"], solution.value + 1)


def centroids(mesh: meshio.Mesh) -> np.ndarray:
    return mesh.points[mesh.cells[0].data].mean(axis=1)


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_meshio_reads_every_value_at_its_place(tmp_path: Path, grid: Grid) -> None:
    x = grid.coordinates()
    place = sum(((10.0**k) * axis for k, axis in enumerate(x)), torch.zeros(()))
    solution = solution_on(grid)
    save_solution(Solution(place, *list(vars(solution).values())[1:]), tmp_path)
    mesh = meshio.read(tmp_path / "solution.vtu")
    if grid.centring == "cell":
        points, values = centroids(mesh), mesh.cell_data["u"][0]
    else:
        points, values = mesh.points, mesh.point_data["u"]
    assert len(values) == place.numel()
    expected = points[:, : len(x)] @ 10.0 ** np.arange(len(x))
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_cells_fill_the_domain_and_are_not_inside_out(tmp_path: Path, grid: Grid) -> None:
    save_solution(solution_on(grid), tmp_path)
    mesh = meshio.read(tmp_path / "solution.vtu")
    corners = mesh.points[mesh.cells[0].data]
    d = len(grid.shape)
    neighbours = {1: [1], 2: [1, 3], 3: [1, 3, 4]}[d]
    edges = np.stack([corners[:, n, :d] - corners[:, 0, :d] for n in neighbours], axis=1)
    volumes = np.linalg.det(edges)
    assert (volumes > 0).all()
    sides = np.subtract(grid.box.upper, grid.box.lower)
    assert volumes.sum() == pytest.approx(np.prod(sides))


def test_a_hole_is_left_out_and_a_batch_is_named(tmp_path: Path) -> None:
    solution = solution_on(GRIDS[2], (12,))
    solution.value[:, 1, 2] = torch.nan
    save_solution(solution, tmp_path)
    mesh = meshio.read(tmp_path / "solution.vtu")
    assert set(mesh.cell_data) == {f"u_{i}" for i in range(files.BATCH_ARRAYS)}
    assert len(mesh.cells[0].data) == 4 * 6 - 1
    assert np.isfinite(mesh.cell_data["u_0"][0]).all()


@pytest.mark.parametrize("grid", GRIDS, ids=NAMES)
def test_large_grids_become_image_data(
    tmp_path: Path, grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "VTU_POINTS", 1)
    solution = solution_on(grid)
    paths = save_solution(solution, tmp_path, {"K": solution.value + 1})
    assert paths[1].name == "solution.vti"
    raw = paths[1].read_bytes()
    head, _, tail = raw.partition(b'<AppendedData encoding="raw">_')
    size = 8 * solution.value.numel()
    for k, expected in enumerate((solution.value, solution.value + 1)):
        start = k * (8 + size)
        assert f'offset="{start}"'.encode() in head
        assert int.from_bytes(tail[start : start + 8], "little") == size
        block = np.frombuffer(tail[start + 8 : start + 8 + size])
        np.testing.assert_array_equal(block.reshape(grid.shape, order="F"), expected.numpy())
    assert (b"CellData" in head) == (grid.centring == "cell")


def test_no_file_is_left_by_a_write_that_fails(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"n": 1})
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("{")
        raise RuntimeError
    assert json.loads(target.read_text()) == {"n": 1}
    assert list(tmp_path.iterdir()) == [target]


def test_a_process_killed_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    before = solution_on(GRIDS[3])
    save_solution(before, tmp_path)
    code = (
        "import sys, time, h5py\n"
        "from sciml.core.disk import atomic_write\n"
        f"with atomic_write({str(tmp_path / 'solution.h5')!r}) as part:\n"
        "    file = h5py.File(part, 'w')\n"
        "    file['u'] = [1.0]\n"
        "    file.flush()\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half\n"
        child.kill()
        assert child.wait() == -9
    assert_equal(before, load_solution(tmp_path))


@pytest.mark.parametrize("place", [GRIDS[1], MESH], ids=["grid", "mesh"])
def test_a_flipped_bit_is_refused(place: Grid | Mesh, tmp_path: Path) -> None:
    """Of 150 single faults none loads, in a solution as in the picture that may be read as a mesh.

    What differs from the original in a byte that holds nothing is refused too.
    """
    solution = solution_on(place)
    save_solution(solution, tmp_path)
    draw = np.random.default_rng(0)
    readers: dict[str, Any] = {"solution.h5": load_solution}
    if place is MESH:
        readers["solution.vtu"] = read_mesh
    for name, read in readers.items():
        whole = (tmp_path / name).read_bytes()
        before = read(tmp_path / name)
        refused = 0
        for _ in range(150 if name == "solution.h5" else 60):
            data = bytearray(whole)
            data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
            (tmp_path / name).write_bytes(data)
            try:
                found = read(tmp_path / name)
            except InputError as error:
                assert "\n" not in error.message
                refused += 1
                continue
            assert name == "solution.vtu" and np.array_equal(found.points, before.points)
        assert refused == 150 or (name == "solution.vtu" and refused > 50)


def test_a_solution_without_a_hash_is_read_with_a_note(tmp_path: Path) -> None:
    """As earlier versions wrote it: the same file without the block before HDF5's own."""
    solution = solution_on(GRIDS[1])
    save_solution(solution, tmp_path)
    with h5py.File(tmp_path / "solution.h5") as new, h5py.File(tmp_path / "old.h5", "w") as old:
        for name in new:
            new.copy(name, old)
        old.attrs.update(new.attrs)
    found = load_solution(tmp_path / "old.h5")
    assert torch.equal(found.value, solution.value)
    assert found.notes[:-1] == solution.notes and "without a hash" in found.notes[-1]


def test_values_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\0" * 64)
    for name in ("link", "external"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs["format"] = files.FORMAT
            if name == "link":
                file["u"] = h5py.ExternalLink("raw", "/u")
            else:
                file.create_dataset("u", (8,), "<f8", external=[(str(tmp_path / "raw"), 0, 64)])
        with pytest.raises(InputError, match="another file"):
            load_solution(tmp_path / f"{name}.h5")
        with pytest.raises(InputError, match="another file"):
            load(FieldFile(str(tmp_path / f"{name}.h5"), "u"), "problem.equation.K")


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """Files of so many bytes at most."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 1000, 3000, 20_000])
def test_a_full_disk_is_an_error_of_the_system(size: int, tmp_path: Path) -> None:
    """Whether HDF5 meets it in writing or in closing; and nothing is left behind."""
    solution = solution_on(Grid((60, 60), "node", Box((0.0, 0.0), (1.0, 1.0))))
    weights = {"w": torch.zeros(9000)}
    for write in (
        lambda: save_solution(solution, tmp_path),
        lambda: write_weights(tmp_path / "w.safetensors", "x", {}, weights, {}),
        lambda: write_shard(tmp_path / "0.hdf5", shard(9, (60, 60))),
    ):
        with small_disk(size), pytest.raises(OSError, match="File too large") as caught:
            write()
        assert caught.value.errno == errno.EFBIG and caught.value.strerror == "File too large"
    frames = Frames((0.0, 1.0), tmp_path / "frames.h5")
    with small_disk(size), pytest.raises(InputError, match=r"File too large; 0 of 2 frames"):
        frames.append(solution.value)
    assert not [path for path in tmp_path.iterdir() if path.name != "frames.h5"]


def test_a_temporary_name_cannot_be_known_beforehand(tmp_path: Path) -> None:
    names = set()
    for _ in range(5):
        with atomic_write(tmp_path / "solution.h5") as temporary:
            names.add(temporary.name)
    assert len(names) == 5 and not any(str(os.getpid()) in name for name in names)


@pytest.mark.parametrize("content", [None, b"no HDF5", "foreign"], ids=["missing", "text", "other"])
def test_what_is_no_solution_is_refused_in_one_line(
    tmp_path: Path, content: bytes | str | None
) -> None:
    path = tmp_path / "solution.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        with h5py.File(path, "w") as file:
            file["u"] = [1.0]
    with pytest.raises(InputError) as caught:
        load_solution(tmp_path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_any_flipped_bit_of_a_growing_file_is_seen(tmp_path: Path) -> None:
    path, parts = tmp_path / "a.csv", ["t,u\r\n", "0,1\r\n", "0.5,2\r\n", "1,4\r\n"]
    file = GrowingFile(path, "mark", parts[0])
    for part in parts[1:]:
        file.append(part)
    file.close()
    begun = {"".join(parts[:k]) for k in range(len(parts) + 1)}
    assert vouched(path) == ("mark", "".join(parts))
    for flipped in (path, path.with_name("a.csv.sha256")):
        raw = flipped.read_bytes()
        for bit in range(8 * len(raw)):
            place = bit // 8
            flipped.write_bytes(raw[:place] + bytes([raw[place] ^ 1 << bit % 8]) + raw[place + 1 :])
            mark, text = vouched(path)
            assert text in begun and mark in ("mark", "")
            assert flipped != path or len(text) <= place
        flipped.write_bytes(raw)


def test_a_system_without_unix_writes_files_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fcntl", "resource"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr(os, "pread")
    found = importlib.util.spec_from_file_location("disk_elsewhere", disk.__file__)
    assert found is not None and found.loader is not None
    elsewhere = importlib.util.module_from_spec(found)
    found.loader.exec_module(elsewhere)
    elsewhere.check_room(tmp_path / "a.h5", 1)
    with elsewhere.claimed(tmp_path / "run", "solving in"):
        elsewhere.write_json(tmp_path / "run" / "run.json", {"a": 1})
    (tmp_path / "a.h5").write_bytes(bytes(10**7))
    elsewhere.seal(tmp_path / "a.h5")
    assert disk.is_sealed(tmp_path / "a.h5")
