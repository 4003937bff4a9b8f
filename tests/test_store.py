from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import dataset, shard

from sciml.core.disk import digest
from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES
from sciml.datasets.loader import OperatorData
from sciml.datasets.statistics import Normaliser, field_statistics, moments
from sciml.datasets.store import (
    Manifest,
    Shard,
    read_manifest,
    read_shard,
    write_shard,
)

CASES = {
    "steady": dict(),
    "line in time": dict(grid=(17,), frames=4),
    "flow in time": dict(frames=3, vectors=True),
    "hole": dict(hole=True),
    "volume": dict(grid=(3, 5, 4), vectors=True),
    "one sample": dict(samples=1),
}


def test_a_hash_is_that_of_the_whole_file(tmp_path: Path) -> None:
    """Of a file of several blocks too, and of one that ends with a whole one."""
    path = tmp_path / "large"
    for size in (0, 1, 1 << 20, (2 << 20) + 17):
        content = np.random.default_rng(size).bytes(size)
        path.write_bytes(content)
        assert digest(path) == hashlib.sha256(content).hexdigest()


def assert_same(one: Shard, other: Shard) -> None:
    """Equal to the precision of the file."""
    for part in ("fields", "scalars"):
        left, right = getattr(one, part), getattr(other, part)
        assert list(left) == list(right)
        for name in left:
            np.testing.assert_array_equal(left[name].astype(np.float32), right[name])
    for name in ("name", "constant", "boundary", "inputs", "outputs"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.residuals, other.residuals)
    np.testing.assert_array_equal(one.time.astype(np.float32), other.time)
    for left, right in zip(one.axes, other.axes, strict=True):
        np.testing.assert_array_equal(left.astype(np.float32), right)


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_a_shard_is_read_as_it_was_written(tmp_path: Path, options: dict) -> None:
    written = shard(**options)
    assert write_shard(tmp_path / "s.hdf5", written) == digest(tmp_path / "s.hdf5")
    assert_same(written, read_shard(tmp_path / "s.hdf5"))
    assert [p.name for p in tmp_path.iterdir()] == ["s.hdf5"]


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_the_layout_is_that_of_the_well(tmp_path: Path, options: dict) -> None:
    written = shard(**options)
    write_shard(tmp_path / "s.hdf5", written)
    names = list(AXES[: len(written.axes)])
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert file.attrs["dataset_name"] == "Darcy"
        assert file.attrs["grid_type"] == "cartesian"
        assert file.attrs["n_spatial_dims"] == len(names)
        assert file.attrs["n_trajectories"] == written.samples
        assert list(file.attrs["simulation_parameters"]) == ["nu"]
        assert list(file["dimensions"].attrs["spatial_dims"]) == names
        for name in ("time", *names):
            assert file["dimensions"][name] == file[name]  # a hard link
            assert not file["dimensions"][name].attrs["sample_varying"]
            assert not file["dimensions"][name].attrs["time_varying"]
            np.testing.assert_array_equal(file[f"{name[0]}-coordinate"], file[name])
        for order in range(3):
            group = file[f"t{order}_fields"]
            assert set(group.attrs["field_names"]) == set(group)
            for name, entry in group.items():
                assert entry.dtype == np.float32 and entry.fletcher32
                assert entry.compression is None and entry.chunks[0] == 1
                assert list(entry.attrs["dim_varying"]) == [True] * len(names)
                assert entry.attrs["sample_varying"]
                assert bool(entry.attrs["time_varying"]) == (name not in written.constant)
        assert list(file["scalars"].attrs["field_names"]) == ["nu"]
        for entry in file["boundary_conditions"].values():
            assert entry.attrs["bc_type"] == "WALL" and entry.attrs["exact_type"] == "dirichlet"
            assert entry.attrs["associated_dims"][0] in names
            assert len(entry["values"]) == entry["mask"][()].sum() == 1
        assert len(file["boundary_conditions"]) == 2 * len(names)
        assert file["tensor"] == file["t0_fields/u"] and file["nu"] == file["t0_fields/a"]


@pytest.mark.parametrize("options", CASES.values(), ids=list(CASES))
def test_xarray_reads_every_group(tmp_path: Path, options: dict) -> None:
    written = shard(**options)
    write_shard(tmp_path / "s.hdf5", written)
    names = AXES[: len(written.axes)]
    with xarray.open_datatree(tmp_path / "s.hdf5", engine="h5netcdf", phony_dims=None) as tree:
        u = tree["t0_fields/u"]
        assert u.dims == ("sample", "time", *names)
        np.testing.assert_array_equal(u, written.fields["u"].astype(np.float32))
        for name, axis in zip(names, written.axes, strict=True):
            np.testing.assert_array_equal(u[name], axis.astype(np.float32))
        np.testing.assert_array_equal(u["sample"], written.indices)
        assert tree["t0_fields/a"].dims == ("sample", *names)
        np.testing.assert_array_equal(tree["residual"], written.residuals)
        np.testing.assert_array_equal(tree["tensor"], u)
        if "velocity" in written.fields:
            v = tree["t1_fields/velocity"]
            assert v.dims == ("sample", "time", *names, f"component_{len(names)}")
            np.testing.assert_array_equal(v, written.fields["velocity"].astype(np.float32))


def test_conditions_at_the_sides_are_named_for_others_and_kept_for_us(tmp_path: Path) -> None:
    kinds = {"top": "periodic", "bottom": "periodic", "right": "absorbing", "left": "robin"}
    write_shard(tmp_path / "s.hdf5", Shard(**{**vars(shard()), "boundary": kinds}))
    assert read_shard(tmp_path / "s.hdf5").boundary == kinds
    with h5py.File(tmp_path / "s.hdf5") as file:
        types = {n: e.attrs["bc_type"] for n, e in file["boundary_conditions"].items()}
        assert not file["boundary_conditions/x_left/mask"][-1]
        assert file["boundary_conditions/x_right/mask"][-1]
    assert types == {
        "x_left": "WALL", "x_right": "OPEN", "y_bottom": "PERIODIC", "y_top": "PERIODIC",
    }  # fmt: skip


def test_a_long_trajectory_is_read_frame_by_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sciml.datasets.store._CHUNK_BYTES", 4 * 45 * 2)
    write_shard(tmp_path / "short.hdf5", shard(frames=2))
    write_shard(tmp_path / "long.hdf5", shard(frames=3))
    with h5py.File(tmp_path / "short.hdf5") as file:
        assert file["t0_fields/u"].chunks == (1, 2, 9, 5)
    with h5py.File(tmp_path / "long.hdf5") as file:
        assert file["t0_fields/u"].chunks == (1, 1, 9, 5)


def test_another_process_writes_the_same_bytes_later(tmp_path: Path) -> None:
    value = write_shard(tmp_path / "here.hdf5", shard(frames=3, vectors=True))
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from pathlib import Path; from shards import shard\n"
        "from sciml.datasets.store import write_shard\n"
        "import time; time.sleep(1.1)\n"
        f"write_shard(Path({str(tmp_path / 'there.hdf5')!r}), shard(frames=3, vectors=True))\n"
    )
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
    assert digest(tmp_path / "there.hdf5") == value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(residuals=np.zeros(2)), "residual has shape"),
        (dict(scalars={"nu": np.zeros((3, 1))}), "nu has shape"),
        (dict(fields={"a": np.zeros((3, 9, 4))}), "a has shape"),
        (dict(fields={"a": np.zeros((3, 9, 5, 3))}), "a has shape"),
        (dict(fields={"a": np.zeros((3, 9))}), "a has shape"),
    ],
)
def test_shapes_that_disagree_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_shard(tmp_path / "s.hdf5", Shard(**{**vars(shard()), **change}))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, Shard]:
    folder = tmp_path_factory.mktemp("whole")
    (first, _) = dataset(folder, sizes=(2,), frames=2, vectors=True)
    return folder, (folder / "data/train/00000.hdf5").read_bytes(), first


def detected_or_harmless(folder: Path, first: Shard, data: bytes) -> bool:
    """Whether reading fails with InputError; if it does not, asserts that all numbers are right."""
    path = folder / "data/train/00000.hdf5"
    path.write_bytes(data)
    manifest = read_manifest(folder)
    assert manifest is not None
    with pytest.raises(InputError, match="damaged or changed"):
        manifest.check(folder)
    try:
        found = read_shard(path)
        samples = OperatorData(folder, "train", ("a", "nu", "velocity"), ("u",))
        x, y = samples[1]["x"].numpy(), samples[1]["y"].numpy()
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return True
    assert_same(first, found)
    np.testing.assert_array_equal(x[0], first.fields["a"][1].astype(np.float32))
    np.testing.assert_array_equal(x[3], first.fields["velocity"][1, 0, ..., 1].astype(np.float32))
    np.testing.assert_array_equal(y[0], first.fields["u"][1, -1].astype(np.float32))
    return False


@settings(max_examples=100, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_is_found_or_harms_no_number(
    whole: tuple[Path, bytes, Shard], position: float, bits: int
) -> None:
    folder, data, first = whole
    damaged = bytearray(data)
    damaged[int(position * len(data))] ^= bits
    detected_or_harmless(folder, first, bytes(damaged))


def test_a_flipped_byte_in_any_sample_is_found(whole: tuple[Path, bytes, Shard]) -> None:
    folder, data, first = whole
    for values in (first.fields["u"], first.fields["a"], first.fields["velocity"]):
        for k in range(len(values)):
            start = data.index(values[k].astype(np.float32).tobytes())
            damaged = bytearray(data)
            damaged[start + 4 * (values[k].size // 2)] ^= 16
            assert detected_or_harmless(folder, first, bytes(damaged))


@pytest.mark.parametrize("part", range(50))
def test_a_truncation_is_found(whole: tuple[Path, bytes, Shard], part: int) -> None:
    folder, data, first = whole
    assert detected_or_harmless(folder, first, data[: len(data) * part // 50])
    (folder / "data/train/00000.hdf5").write_bytes(data)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["manifest.json", "stats.yaml"]),
    position=st.floats(0, 1, exclude_max=True),
    bits=st.integers(1, 255),
)
def test_a_flipped_byte_in_the_texts_is_found(
    whole: tuple[Path, bytes, Shard], name: str, position: float, bits: int
) -> None:
    folder, _, _ = whole
    path = folder / name
    data = path.read_bytes()
    before = (read_manifest(folder), Normaliser.read(folder))
    damaged = bytearray(data)
    damaged[int(position * len(data))] ^= bits
    path.write_bytes(damaged)
    try:
        assert (read_manifest(folder), Normaliser.read(folder)) == before
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    finally:
        path.write_bytes(data)


def test_foreign_files_are_no_shards(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["u"] = np.zeros(3)
    (tmp_path / "text.hdf5").write_text("u")
    for name in ("other.hdf5", "text.hdf5", "none.hdf5"):
        with pytest.raises(InputError, match="damaged, or no shard"):
            read_shard(tmp_path / name)


def test_the_manifest_vouches_for_the_files(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    dataset(tmp_path)
    manifest = read_manifest(tmp_path)
    assert isinstance(manifest, Manifest) and len(manifest.shards) == 3
    manifest.check(tmp_path)
    (tmp_path / manifest.shards[1].path).unlink()
    with pytest.raises(InputError, match="is missing"):
        manifest.check(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}', '{"format": 1, "a": 2}'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="is no manifest"):
        read_manifest(tmp_path)


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    cut=st.integers(1, 29),
    shift=st.sampled_from([0.0, 1e9]),
)
def test_moments_merge_as_if_taken_at_once(values: list, cut: int, shift: float) -> None:
    array = np.array(values) + shift
    merged = moments(array[:cut]) + moments(array[cut:])
    assert merged.count == len(values)
    np.testing.assert_allclose(merged.mean, array.mean(), rtol=1e-14, atol=1e-10)
    np.testing.assert_allclose(merged.deviation, np.square(array - array.mean()).sum(), atol=1e-4)


def test_statistics_are_those_of_the_training_split(tmp_path: Path) -> None:
    first, second, _ = dataset(tmp_path, frames=3, vectors=True, hole=True)
    u = np.concatenate([first.fields["u"], second.fields["u"]])
    v = np.concatenate([first.fields["velocity"], second.fields["velocity"]])
    table = field_statistics(sorted((tmp_path / "data/train").glob("*")))
    np.testing.assert_allclose(table["mean"]["u"], np.nanmean(u), rtol=1e-6)
    np.testing.assert_allclose(table["std"]["u"], np.nanstd(u), rtol=1e-6)
    np.testing.assert_allclose(
        table["rms_delta"]["u"], np.sqrt(np.nanmean(np.diff(u, axis=1) ** 2)), rtol=1e-6
    )
    np.testing.assert_allclose(table["std"]["velocity"], v.std(axis=(0, 1, 2, 3)), rtol=1e-6)
    normaliser = Normaliser.read(tmp_path)
    assert normaliser.mean["u"] == (float(table["mean"]["u"][0]),)
    assert len(normaliser.std["velocity"]) == 2 and set(normaliser.mean) == {
        "a",
        "u",
        "velocity",
        "nu",
    }


def test_numbers_in_the_statistics_are_numbers_to_old_yaml(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    tiny = shard()
    fields = {"a": tiny.fields["a"] * 0 + 2.0**-30, "u": tiny.fields["u"] * 1e-7}
    write_shard(tmp_path / "s.hdf5", Shard(**{**vars(tiny), "fields": fields}))
    from sciml.datasets.statistics import _yaml

    text = _yaml(field_statistics([tmp_path / "s.hdf5"]))
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    record = reader.load(text)
    assert all(type(v) is float for part in record.values() for v in part.values()), text
    assert json.loads(json.dumps(record))["mean"]["a"] == 2.0**-30


def test_values_that_lie_in_another_file_are_refused(tmp_path: Path) -> None:
    for name in ("link", "storage"):
        folder = tmp_path / name
        dataset(folder, sizes=(3,))
        path = folder / "data" / "train" / "00000.hdf5"
        secret = tmp_path / f"{name}.h5"
        secret.write_bytes(path.read_bytes())
        with h5py.File(path, "r+") as file:
            entry = file["t0_fields/a"]
            shape, size = entry.shape, entry.size
            del file["t0_fields/a"]
            if name == "link":
                file["t0_fields/a"] = h5py.ExternalLink(str(secret), "/t0_fields/a")
            else:
                outside = [(str(secret), 0, 4 * size)]
                file["t0_fields"].create_dataset("a", shape, "<f4", external=outside)
        for read in (lambda f=folder: OperatorData(f, "train"), lambda p=path: read_shard(p)):
            with pytest.raises(InputError, match="another file"):
                read()
