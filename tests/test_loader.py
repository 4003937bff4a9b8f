from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shards import dataset
from torch.utils.data import DataLoader, DistributedSampler

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData, PointData, Times
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import Shard, read_manifest


def joined(shards: Sequence[Shard], name: str) -> np.ndarray:
    parts = [{**s.fields, **s.scalars}[name] for s in shards]
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Shard]]:
    folder = tmp_path_factory.mktemp("steady")
    return folder, dataset(folder)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Shard]]:
    folder = tmp_path_factory.mktemp("moving")
    return folder, dataset(folder, frames=6, vectors=True)


def test_samples_come_in_order_across_shards(steady: tuple[Path, list[Shard]]) -> None:
    folder, shards = steady
    data = OperatorData(folder, "train")
    assert len(data) == 5 and data.shape == (9, 5)
    a, u = joined(shards, "a"), joined(shards, "u")
    for i in range(-5, 5):
        sample = data[i]
        assert sample["x"].dtype == sample["y"].dtype == torch.float32
        np.testing.assert_array_equal(sample["x"], a[i % 5, None])
        np.testing.assert_array_equal(sample["y"], u[i % 5])
    np.testing.assert_array_equal(OperatorData(folder, "test")[1]["x"], a[6, None])
    for i in (5, -6):
        with pytest.raises(IndexError):
            data[i]


def test_scalars_and_coordinates_are_channels(steady: tuple[Path, list[Shard]]) -> None:
    folder, shards = steady
    data = OperatorData(folder, "train", ("nu", "a"), coordinates=True)
    assert data.input_channels == ("nu", "a", "x", "y") and data.output_channels == ("u",)
    x = data[4]["x"].numpy()
    assert (x[0] == joined(shards, "nu")[4]).all()
    np.testing.assert_array_equal(x[1], joined(shards, "a")[4])
    np.testing.assert_array_equal(x[2], np.linspace(0, 1, 9, dtype=np.float32)[:, None] + 0 * x[2])
    np.testing.assert_array_equal(x[3], np.linspace(0, 2, 5, dtype=np.float32) + 0 * x[3])


@pytest.mark.parametrize("step", [1, 2, 4])
def test_subsampling_keeps_both_ends(steady: tuple[Path, list[Shard]], step: int) -> None:
    folder, shards = steady
    data = OperatorData(folder, "train", subsample=step, coordinates=True)
    np.testing.assert_array_equal(data[1]["x"][0], joined(shards, "a")[1, ::step, ::step])
    assert [axis[-1] for axis in data.axes] == [1, 2] and data.shape == (
        8 // step + 1,
        4 // step + 1,
    )
    assert data[1]["x"].shape == (3, *data.shape) and data[1]["y"].shape == (1, *data.shape)


def test_cells_are_subsampled_at_their_middle(tmp_path: Path) -> None:
    dataset(tmp_path, grid=(9, 6))
    data = OperatorData(tmp_path, "train", subsample=3)
    whole = OperatorData(tmp_path, "train")
    assert data.shape == (3, 2)
    np.testing.assert_array_equal(data[0]["x"], whole[0]["x"][:, 1::3, 1::3])
    with pytest.raises(
        InputError, match=r"subsample 4 does not fit 6 points; these do: \[1, 2, 3, 5\]"
    ):
        OperatorData(tmp_path, "train", subsample=4)


def test_frames_by_default_are_the_first_and_the_last(moving: tuple[Path, list[Shard]]) -> None:
    folder, shards = moving
    u = joined(shards, "u")
    sample = OperatorData(folder, "train", ("u",), ("u",))[3]
    np.testing.assert_array_equal(sample["x"], u[3, :1])
    np.testing.assert_array_equal(sample["y"], u[3, -1:])


@settings(max_examples=25, deadline=None)
@given(inputs=st.integers(1, 3), outputs=st.integers(1, 3), index=st.integers(0, 4))
def test_windows_slide_along_trajectories(
    moving: tuple[Path, list[Shard]], inputs: int, outputs: int, index: int
) -> None:
    folder, shards = moving
    times = Times.windows(6, inputs, outputs)
    data = OperatorData(folder, "train", ("u", "a"), ("u",), times=times)
    each = 6 - inputs - outputs + 1
    assert len(data) == 5 * each
    u, a = joined(shards, "u"), joined(shards, "a")
    for start in range(each):
        sample = data[index * each + start]
        middle = start + inputs
        np.testing.assert_array_equal(sample["x"], np.stack([*u[index, start:middle], a[index]]))
        np.testing.assert_array_equal(sample["y"], u[index, middle : middle + outputs])


def test_channels_of_vectors_go_by_component_then_frame(
    moving: tuple[Path, list[Shard]],
) -> None:
    folder, shards = moving
    data = OperatorData(folder, "train", ("a",), ("velocity", "u"), times=Times(outputs=(1, 4)))
    names = ("velocity.0", "velocity.0", "velocity.1", "velocity.1", "u", "u")
    assert data.output_channels == names
    v, u = joined(shards, "velocity")[2], joined(shards, "u")[2]
    wanted = [v[1, ..., 0], v[4, ..., 0], v[1, ..., 1], v[4, ..., 1], u[1], u[4]]
    np.testing.assert_array_equal(data[2]["y"], np.stack(wanted))


@pytest.mark.parametrize(
    "times",
    [Times(outputs=(6,)), Times(inputs=(-7,)), Times((0,), (1,), (5,)), Times.windows(3, 2, 2)],
)
def test_frames_that_are_not_there_are_refused(
    moving: tuple[Path, list[Shard]], times: Times
) -> None:
    with pytest.raises(InputError, match="frame"):
        OperatorData(moving[0], "train", ("u",), ("u",), times=times)


def test_normalised_channels_have_mean_zero_and_deviation_one(
    moving: tuple[Path, list[Shard]],
) -> None:
    folder, _ = moving
    normaliser = Normaliser.read(folder)
    every = Times(inputs=tuple(range(6)), outputs=tuple(range(6)))
    data = OperatorData(
        folder, "train", ("a", "nu"), ("u", "velocity"), normaliser=normaliser, times=every
    )
    x = torch.stack([data[i]["x"] for i in range(len(data))]).double()
    y = torch.stack([data[i]["y"] for i in range(len(data))]).double().unflatten(1, (3, 6))
    for values in (x.movedim(1, 0).flatten(1), y.movedim(1, 0).flatten(1)):
        torch.testing.assert_close(values.mean(1), values.new_zeros(len(values)), atol=1e-6, rtol=0)
        std = values.std(1, correction=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-6, rtol=0)
    plain = OperatorData(folder, "train", ("a", "nu"), ("u", "velocity"), times=every)
    decoded = normaliser.decode(data[2]["y"][None], data.output_channels, axis=1)[0]
    torch.testing.assert_close(decoded, plain[2]["y"])


@settings(max_examples=30, deadline=None)
@given(
    mean=st.floats(-1e3, 1e3),
    std=st.one_of(st.just(0.0), st.floats(1e-3, 1e3)),
    torch_=st.booleans(),
)
def test_decoding_undoes_encoding(mean: float, std: float, torch_: bool) -> None:
    normaliser = Normaliser({"u": (mean,), "v": (1.0, mean)}, {"u": (std,), "v": (2.0, std)})
    channels = ("u", "v.1", "x")
    values = np.random.default_rng(0).normal(size=(2, 3, 4))
    given_ = torch.from_numpy(values) if torch_ else values
    encoded = normaliser.encode(given_, channels, axis=1)
    assert type(encoded) is type(given_)
    np.testing.assert_array_equal(encoded[:, 2], values[:, 2])  # coordinates stay
    np.testing.assert_array_equal(encoded[:, 0], (values[:, 0] - mean) / (std or 1.0))
    np.testing.assert_allclose(normaliser.decode(encoded, channels, axis=1), values, atol=1e-12)
    with pytest.raises(InputError, match="has not the 3 channels"):
        normaliser.encode(given_, channels)


def test_holes_are_zero(tmp_path: Path) -> None:
    shards = dataset(tmp_path, hole=True)
    data = OperatorData(tmp_path, "train", normaliser=Normaliser.read(tmp_path))
    assert np.isnan(shards[0].fields["u"][0, 0, 4, 2])
    assert data[0]["y"][0, 4, 2] == 0 and data[0]["y"].isfinite().all()


def test_a_resolution_is_a_dataset_in_its_own_folder(tmp_path: Path) -> None:
    dataset(tmp_path)
    dataset(tmp_path / "at-5x3", grid=(5, 3))
    manifest, inner = read_manifest(tmp_path), read_manifest(tmp_path / "at-5x3")
    assert manifest is not None and inner is not None
    for entry in inner.shards:
        manifest.shards.append(type(entry)(**{**vars(entry), "path": f"at-5x3/{entry.path}"}))
    (tmp_path / "at-5x3" / "manifest.json").unlink()
    manifest.write(tmp_path)
    assert OperatorData(tmp_path, "train").shape == (9, 5)
    coarse = OperatorData(tmp_path / "at-5x3", "train")
    assert coarse.shape == (5, 3) and len(coarse) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(split="tain"), "no split 'tain'; did you mean 'train'"),
        (dict(inputs=("nuu",)), "has no 'nuu'; did you mean 'nu'"),
        (dict(outputs=("w",)), "has no 'w'; known: a, nu, u"),
        (dict(normaliser=Normaliser({}, {})), "no statistics of 'a'"),
        (dict(folder="nowhere"), "is no dataset"),
    ],
)
def test_mistakes_are_named(steady: tuple[Path, list[Shard]], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        OperatorData(**{"folder": steady[0], "split": "train", **options})


def test_statistics_that_are_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        Normaliser.read(tmp_path)
    for text in ("", "mean: 3", "mean: {u: x}\nstd: {u: 1.0}", "a: [", "mean: {u: 1.0}"):
        (tmp_path / "stats.yaml").write_text(text)
        with pytest.raises(InputError, match="no statistics of fields"):
            Normaliser.read(tmp_path)


def test_a_missing_or_foreign_shard_is_an_error_not_a_gap(tmp_path: Path) -> None:
    dataset(tmp_path)
    data = OperatorData(tmp_path, "train")
    first, second = (tmp_path / f"data/train/0000{k}.hdf5" for k in (0, 1))
    kept = second.read_bytes()
    second.write_bytes(first.read_bytes())  # three samples instead of two
    with pytest.raises(InputError, match="number of samples"):
        data[4]
    second.unlink()
    with pytest.raises(InputError, match="is missing"):
        OperatorData(tmp_path, "train")
    second.write_bytes(kept)
    assert data[4]["x"].shape == (1, 9, 5)


def test_only_so_many_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.datasets.loader._OPEN", 2)
    shards = dataset(tmp_path, sizes=(1, 1, 1, 1))
    data = OperatorData(tmp_path, "train")
    for i in (0, 1, 2, 3, 0, 2, 1):
        np.testing.assert_array_equal(data[i]["x"][0], joined(shards, "a")[i])
        assert len(data.reader._opened) <= 2


def test_copies_share_no_handles(steady: tuple[Path, list[Shard]]) -> None:
    data = OperatorData(steady[0], "train")
    data[0]
    copy = pickle.loads(pickle.dumps(data))
    assert data.reader._opened and not copy.reader._opened
    torch.testing.assert_close(copy[3], data[3])


def _sample_into(data: OperatorData, queue: multiprocessing.SimpleQueue) -> None:
    queue.put(data[4]["x"].numpy())


def test_a_fork_opens_files_of_its_own(steady: tuple[Path, list[Shard]]) -> None:
    data = OperatorData(steady[0], "train")
    data[0]
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_sample_into, args=(data, queue))
    process.start()
    np.testing.assert_array_equal(queue.get(), data[4]["x"])
    process.join()
    assert process.exitcode == 0


def test_spawned_workers_give_the_same_batches(steady: tuple[Path, list[Shard]]) -> None:
    data = OperatorData(steady[0], "train", coordinates=True)
    loaded = DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context="spawn", shuffle=False
    )
    for ours, theirs in zip(DataLoader(data, batch_size=2), loaded, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_ranks_share_out_the_samples(steady: tuple[Path, list[Shard]]) -> None:
    data = OperatorData(steady[0], "train")
    seen = []
    for rank in range(2):
        sampler = DistributedSampler(data, num_replicas=2, rank=rank, seed=3)
        seen += [b["x"] for b in DataLoader(data, batch_size=1, sampler=sampler)]
    assert len(seen) == 6 and len({float(x.sum()) for x in seen}) == 5


def test_aligned_points_are_the_same_for_all(steady: tuple[Path, list[Shard]]) -> None:
    folder, shards = steady
    data = PointData(OperatorData(folder, "train"))
    sample = data[2]
    assert sample["points"].shape == (45, 2) and sample["y"].shape == (1, 45)
    np.testing.assert_array_equal(sample["y"][0], joined(shards, "u")[2, 0].ravel())
    some = PointData(OperatorData(folder, "train"), points=7, seed=1)
    assert some[0]["points"].shape == (7, 2)
    torch.testing.assert_close(some[0]["points"], some[4]["points"], rtol=0, atol=0)


def test_unaligned_points_depend_on_seed_and_sample_alone(
    steady: tuple[Path, list[Shard]],
) -> None:
    operator = OperatorData(steady[0], "train")
    data = PointData(operator, points=20, aligned=False, seed=5)
    again = PointData(operator, points=20, aligned=False, seed=5)
    assert not torch.equal(data[0]["points"], data[1]["points"])
    for i in (3, 0, -1):
        torch.testing.assert_close(data[i], again[i % 5], rtol=0, atol=0)
    other = PointData(operator, points=20, aligned=False, seed=6)
    assert not torch.equal(data[0]["points"], other[0]["points"])
    axes = [torch.as_tensor(axis) for axis in operator.axes]
    for i in range(5):  # the values are those at the points
        row = [torch.searchsorted(a, p.contiguous()) for a, p in zip(axes, data[i]["points"].T)]
        torch.testing.assert_close(data[i]["y"][0], operator[i]["y"][0][tuple(row)])
        assert len({tuple(p) for p in data[i]["points"].tolist()}) == 20


def test_points_in_time_have_its_coordinate(moving: tuple[Path, list[Shard]]) -> None:
    folder, shards = moving
    times = Times(outputs=(1, 3, 5))
    operator = OperatorData(folder, "train", ("a",), ("u", "velocity"), times=times)
    data = PointData(operator)
    sample = data[1]
    assert data.output_channels == ("u", "velocity.0", "velocity.1")
    assert sample["points"].shape == (135, 3) and sample["y"].shape == (3, 135)
    u = joined(shards, "u")[1, [1, 3, 5]]
    np.testing.assert_array_equal(sample["y"][0], np.moveaxis(u, 0, -1).ravel())
    assert set(sample["points"][:, 2].tolist()) == set(operator.time[[1, 3, 5]].tolist())


def test_more_points_than_there_are_is_a_mistake(steady: tuple[Path, list[Shard]]) -> None:
    for points in (0, 46):
        with pytest.raises(InputError, match="there are 45 points"):
            PointData(OperatorData(steady[0], "train"), points=points)
