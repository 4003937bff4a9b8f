from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from shards import dataset, shard
from typer.testing import CliRunner

from sciml.app.cli import app
from sciml.core.errors import InputError
from sciml.datasets.export import export_archive, export_pairs, read_pdebench
from sciml.datasets.loader import Times
from sciml.datasets.store import read_shard, write_shard


def test_pairs_are_those_of_neuraloperator(tmp_path: Path) -> None:
    shards = dataset(tmp_path / "data")
    paths = export_pairs(tmp_path / "data", tmp_path / "pairs", "darcy")
    assert {p.name for p in paths} == {"darcy_train_9.pt", "darcy_test_9.pt"}
    assert {p.name for p in (tmp_path / "pairs").iterdir()} == {p.name for p in paths}
    pair = torch.load(tmp_path / "pairs" / "darcy_train_9.pt", weights_only=True)
    assert set(pair) == {"x", "y"} and pair["x"].shape == pair["y"].shape == (5, 9, 5)
    a = np.concatenate([part.fields["a"] for part in shards[:2]]).astype(np.float32)
    u = np.concatenate([part.fields["u"][:, 0] for part in shards[:2]]).astype(np.float32)
    np.testing.assert_array_equal(pair["x"], a)
    np.testing.assert_array_equal(pair["y"], u)


def test_pairs_of_several_channels_keep_their_axis(tmp_path: Path) -> None:
    dataset(tmp_path, frames=4)
    export_pairs(tmp_path, tmp_path, "flow", ("u", "nu"), ("u",), Times((0, 1), (2, 3)))
    pair = torch.load(tmp_path / "flow_test_9.pt", weights_only=True)
    assert pair["x"].shape == (2, 3, 9, 5) and pair["y"].shape == (2, 2, 9, 5)
    with pytest.raises(InputError, match="is no dataset"):
        export_pairs(tmp_path / "none", tmp_path, "flow")


def test_an_archive_has_the_splits_side_by_side(tmp_path: Path) -> None:
    shards = dataset(tmp_path / "data")
    path = export_archive(tmp_path / "data", tmp_path / "darcy.npz")
    assert path == tmp_path / "darcy.npz"
    u = np.concatenate([part.fields["u"][:, 0] for part in shards]).astype(np.float32)
    with np.load(path) as found:
        assert set(found) == {"a_train", "u_train", "a_test", "u_test"}
        assert found["a_train"].shape == (5, 9, 5) and found["u_train"].dtype == np.float32
        np.testing.assert_array_equal(np.concatenate([found["u_train"], found["u_test"]]), u)
    with pytest.raises(InputError, match="is no dataset"):
        export_archive(tmp_path / "none", tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("to", "out", "made"),
    [
        pytest.param("npz", "new/darcy", ["darcy.npz"], id="npz"),
        pytest.param(
            "neuraloperator", "new/darcy", ["darcy_test_9.pt", "darcy_train_9.pt"], id="pt"
        ),
    ],
)
def test_the_command_line_exports(tmp_path: Path, to: str, out: str, made: list[str]) -> None:
    dataset(tmp_path / "data")
    where = ["export", str(tmp_path / "data"), "--out", str(tmp_path / out)]
    done = CliRunner().invoke(app, [*where, "--to", to])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == made
    for name in made:
        assert name in done.output.replace("\n", "")
    wrong = CliRunner().invoke(app, [*where, "--to", "np"])
    assert wrong.exit_code == 2 and "did you mean 'npz'" in wrong.output


NUMBERS = np.random.default_rng(0).normal(size=(4, 3, 8, 6)).astype(np.float32)


def coordinates(file: h5py.Group, suffix: str, *names: str) -> None:
    """PDEBench's: cell centres, and one time more than there are frames."""
    for name, n in zip(names, (8, 6), strict=False):
        file[f"{name}{suffix}"] = (np.arange(n) + 0.5) / n
    file[f"t{suffix}"] = np.linspace(0, 2, 4)


def test_pdebench_one_array(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "advection.hdf5", "w") as file:
        file["tensor"] = NUMBERS[..., 0]
        coordinates(file, "-coordinate", "x")
    found = read_pdebench(tmp_path / "advection.hdf5")
    assert found.name == "advection" and found.inputs == found.outputs == ("u",)
    np.testing.assert_array_equal(found.fields["u"], NUMBERS[..., 0])
    np.testing.assert_allclose(found.time, [0, 2 / 3, 4 / 3])
    np.testing.assert_allclose(found.axes[0], (np.arange(8) + 0.5) / 8)


def test_pdebench_darcy(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:
        file["tensor"], file["nu"] = NUMBERS[:, :1], NUMBERS[:, 1]
        coordinates(file, "-coordinate", "x", "y")
    found = read_pdebench(tmp_path / "darcy.hdf5", slice(1, 3))
    assert found.inputs == ("a",) and found.outputs == ("u",) and found.constant == ("a",)
    np.testing.assert_array_equal(found.fields["a"], NUMBERS[1:3, 1])
    np.testing.assert_array_equal(found.fields["u"], NUMBERS[1:3, :1])
    assert found.indices.tolist() == [1, 2] and np.isnan(found.residuals).all()
    write_shard(tmp_path / "ours.hdf5", found)
    np.testing.assert_array_equal(read_shard(tmp_path / "ours.hdf5").fields["u"], NUMBERS[1:3, :1])


def test_pdebench_one_array_per_field(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cfd.hdf5", "w") as file:
        for k, name in enumerate(("Vx", "Vy", "density", "pressure")):
            file[name] = NUMBERS + k
        coordinates(file, "-coordinate", "x", "y")
    found = read_pdebench(tmp_path / "cfd.hdf5")
    assert found.outputs == ("density", "Vx", "Vy", "pressure")
    np.testing.assert_array_equal(found.fields["pressure"], NUMBERS + 3)


def test_pdebench_one_group_per_sample(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "reaction.hdf5", "w") as file:
        for k in range(3):
            file[f"{k:04d}/data"] = np.stack([NUMBERS[k], -NUMBERS[k]], axis=-1)
            coordinates(file.create_group(f"{k:04d}/grid"), "", "x", "y")
    found = read_pdebench(tmp_path / "reaction.hdf5", slice(1, None))
    assert found.outputs == ("u0", "u1") and found.indices.tolist() == [1, 2]
    np.testing.assert_array_equal(found.fields["u1"], -NUMBERS[1:3])
    np.testing.assert_allclose(found.axes[1], (np.arange(6) + 0.5) / 6)


def test_our_shards_are_in_pdebenchs_layout_too(tmp_path: Path) -> None:
    written = shard(frames=3)
    write_shard(tmp_path / "s.hdf5", written)
    found = read_pdebench(tmp_path / "s.hdf5")
    np.testing.assert_array_equal(found.fields["u"], written.fields["u"].astype(np.float32))
    np.testing.assert_array_equal(found.fields["a"], written.fields["a"].astype(np.float32))
    np.testing.assert_allclose(found.time, written.time)
    np.testing.assert_allclose(found.axes[1], written.axes[1])


def test_other_files_are_not_pdebench(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["w"] = NUMBERS
    (tmp_path / "text.hdf5").write_text("w")
    for name in ("other.hdf5", "text.hdf5", "none.hdf5"):
        with pytest.raises(InputError, match="not in PDEBench's layout"):
            read_pdebench(tmp_path / name)


@pytest.mark.parametrize(
    "options",
    [dict(), dict(grid=(17,), frames=3), dict(grid=(4, 5, 3), vectors=True), dict(hole=True)],
    ids=["plane", "line in time", "volume", "hole"],
)
def test_info_sums_a_dataset_up_and_draws_it(tmp_path: Path, options: dict) -> None:
    dataset(tmp_path, **options)
    result = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "5 train, 2 test" in result.output and "1.00e-09 at most" in result.output
    assert (tmp_path / "samples.png").read_bytes()[1:4] == b"PNG"


def test_info_finds_damage(tmp_path: Path) -> None:
    dataset(tmp_path)
    path = tmp_path / "data/train/00001.hdf5"
    path.write_bytes(path.read_bytes()[:-1])
    result = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert result.exit_code == 2 and "damaged or changed" in result.output
