from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from shards import dataset
from torch.utils.data import Subset

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData, PointData, Times
from sciml.datasets.store import Entry, Manifest, read_manifest, write_shard
from sciml.training import Files, Fresh, TensorData, open_data
from sciml.training.data import on_grid, stacked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("stored")
    dataset(home)
    return home


def test_the_signature_is_that_of_the_dataset(folder: Path) -> None:
    opened = open_data(Files(str(folder), inputs=("a", "nu")))
    signature = opened.signature
    assert signature.inputs == ("a", "nu") and signature.outputs == ("u",)
    assert signature.grid.shape == (9, 5) and signature.grid.box.upper == (1.0, 2.0)
    assert signature.boundary == ("dirichlet", "dirichlet")
    assert opened.name == "Darcy" and opened.valid is None


@pytest.mark.parametrize("shape", [(9, 5), (5, 3), None])
def test_a_resolution_within_the_stored_one(folder: Path, shape: tuple[int, int] | None) -> None:
    opened = open_data(Files(str(folder), shape=shape))
    assert isinstance(opened.train, OperatorData)
    step = 1 if shape is None else 8 // (shape[0] - 1)
    whole = OperatorData(folder, "train")
    for k in range(5):
        torch.testing.assert_close(opened.train[k]["x"], whole[k]["x"][:, ::step, ::step])
    assert opened.signature.grid.shape == opened.train.shape


def test_a_further_stored_resolution(folder: Path, tmp_path: Path) -> None:
    """One in a folder of its own, and one within that one."""
    shards = [*dataset(tmp_path, grid=(7, 7)), *dataset(tmp_path / "fine", grid=(13, 13))]
    entries = []
    for part, (place, number) in zip(
        shards[:2] + shards[3:5],
        [("", 0), ("", 1), ("at-13x13/", 0), ("at-13x13/", 1)],
        strict=True,
    ):
        path = f"{place}data/train/{number:05d}.hdf5"
        entries.append(Entry(path, "train", part.samples, write_shard(tmp_path / path, part)))
    Manifest({}, {}, entries).write(tmp_path)
    for shape, source, step in (((13, 13), 3, 1), ((5, 5), 3, 3), ((4, 4), 0, 2)):
        train = open_data(Files(str(tmp_path), shape=shape)).train
        assert isinstance(train, OperatorData) and train.shape == shape
        expected = shards[source].fields["a"][0, ::step, ::step].astype(np.float32)
        np.testing.assert_array_equal(train[0]["x"][0], expected)


def test_cells_are_thinned_to_those_in_the_middle(tmp_path: Path) -> None:
    """Three of nine cells; five, every second one, would not span the box."""
    dataset(tmp_path, grid=(9, 9))
    Manifest({"grid": {"centring": "cell"}}, {}, read_manifest(tmp_path).shards).write(tmp_path)
    opened = open_data(Files(str(tmp_path), shape=(3, 3)))
    whole = OperatorData(tmp_path, "train")
    torch.testing.assert_close(opened.train[1]["x"], whole[1]["x"][:, 1::3, 1::3])
    with pytest.raises(InputError, match=r"no resolution \[5, 5\]"):
        open_data(Files(str(tmp_path), shape=(5, 5)))


def test_points_have_one_frame(tmp_path: Path) -> None:
    dataset(tmp_path, frames=4)
    with pytest.raises(InputError, match="one output frame") as error:
        open_data(Files(str(tmp_path), times=Times((0,), (1, 2)), points=3))
    assert error.value.key == "data.times"


def test_errors_say_what_there_is(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no resolution \[6, 6\]; stored: \[9, 5\]") as error:
        open_data(Files(str(folder), shape=(6, 6)))
    assert error.value.key == "data.shape"
    with pytest.raises(InputError, match="has no 'b'; known: a, nu, u"):
        open_data(Files(str(folder), inputs=("b",)))
    with pytest.raises(InputError, match="9 samples were asked for; there are 5 in train"):
        open_data(Files(str(folder), train=9))
    with pytest.raises(InputError, match="is no dataset"):
        open_data(Files(str(folder / "data")))
    with pytest.raises(InputError, match="train must be at least 1"):
        Files(str(folder), train=0)
    with pytest.raises(InputError, match="batches must be at least 1"):
        Fresh(None, batches=0)  # type: ignore[arg-type]


def test_the_first_so_many_samples(folder: Path) -> None:
    opened = open_data(Files(str(folder), train=2))
    assert isinstance(opened.train, Subset) and len(opened.train) == 2
    whole = OperatorData(folder, "train")
    held = stacked(opened.train, 2)
    torch.testing.assert_close(held.y, torch.stack([whole[k]["y"] for k in range(2)]))


def test_values_at_points_keep_their_grid(folder: Path) -> None:
    opened = open_data(Files(str(folder), points=4, aligned=False, train=3))
    assert isinstance(opened.train, Subset) and isinstance(opened.train.dataset, PointData)
    held, fields = stacked(opened.train, 3), stacked(on_grid(opened.train), 3)
    assert held.points is not None and held.points.shape == (3, 4, 2)
    for k in range(3):
        x, y = held.points[k].T
        at = (x * 8).round().long(), (y * 2).round().long()
        torch.testing.assert_close(held.y[k, 0], fields.y[k, 0][at])


def test_frames_are_channels(tmp_path: Path) -> None:
    dataset(tmp_path, frames=4)
    opened = open_data(Files(str(tmp_path), inputs=("u",), times=Times((0, 1), (2, 3))))
    assert opened.signature.inputs == ("u", "u") and opened.signature.outputs == ("u", "u")


def test_tensors_that_do_not_fit_are_refused() -> None:
    x, y = torch.zeros(3, 1, 9), torch.zeros(3, 1, 4)
    with pytest.raises(InputError, match="the same number of samples"):
        TensorData(x, y[:2])
    with pytest.raises(InputError, match="there are 5 points and values at 4"):
        TensorData(x, y, torch.zeros(5, 1))
    data = TensorData(x, y, torch.zeros(4, 1))
    assert len(data) == 3 and data[1]["points"].shape == (4, 1)
