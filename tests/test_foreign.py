"""Data that other programs wrote: the same numbers and weights, and one line for each fault."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from sciml.app.cli import app
from sciml.app.evaluate import Question, measure
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.datasets.foreign import Foreign, import_foreign
from sciml.datasets.loader import OperatorData, Times
from sciml.operators import FNO, load_operator
from sciml.operators.operator import Signature
from sciml.training import Files, TensorData, Training, TrainingData, evaluate, fit, open_data
from sciml.training.data import as_trained, at_trained_shape, resolutions

N, SHAPE = 10, (8, 8)
NET, SHORT = FNO(modes=2, width=4, layers=1), Training(epochs=2, batch=4)


def pairs(samples: int = N, shape: tuple[int, ...] = SHAPE, seed: int = 0) -> tuple[Any, Any]:
    """Random positive inputs and outputs that are no multiple of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, *shape, generator=generator) + 0.5
    return x, x.cumsum(-1) / x


def write_well(path: Path, x: np.ndarray, u: np.ndarray, kind: str = "PERIODIC") -> None:
    """As The Well's own scripts do: (trajectory, time, x, y), every array with its flags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="made", grid_type="cartesian", n_spatial_dims=2)
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = ["x", "y"]
        for name, size in (("time", u.shape[1]), ("x", SHAPE[0]), ("y", SHAPE[1])):
            group[name] = np.arange(size) / 8
        sides = file.create_group("boundary_conditions")
        for name in ("x", "y"):
            side = sides.create_group(f"{name}_{kind.lower()}")
            side.attrs.update(associated_dims=[name], bc_type=kind)
        for order in range(3):
            file.create_group(f"t{order}_fields")
        for name, values, moves in (("a", x, False), ("u", u, True)):
            entry = file["t0_fields"].create_dataset(name, data=values)
            entry.attrs.update(dim_varying=[True, True], sample_varying=True, time_varying=moves)
        entry = file["t1_fields"].create_dataset("v", data=np.stack([u, 2 * u], -1))
        entry.attrs.update(dim_varying=[True, True], sample_varying=True, time_varying=True)


def write(layout: str, folder: Path, x: torch.Tensor, y: torch.Tensor) -> tuple[Files, Any]:
    """The pairs in a layout, what a spec says of them, and their signature."""
    folder.mkdir(exist_ok=True)
    node = Grid(SHAPE, "node", Box((0.0, 0.0), (1.0, 1.0)))
    cell = Grid(SHAPE, "cell", Box((0.0, 0.0), (1.0, 1.0)))
    half = Grid(SHAPE, "cell", Box((-0.0625, -0.0625), (0.9375, 0.9375)))
    free: Any = ("neumann", "neumann")
    if layout == "pt":
        torch.save({"x": x, "y": y}, folder / "d.pt")
        return Files(file=str(folder / "d.pt")), Signature(("x",), ("y",), node, free)
    if layout == "npz":
        np.savez(folder / "d.npz", a=x.numpy(), sol=y.numpy().astype(np.float64))
        files = Files(file=str(folder / "d.npz"), inputs=("a",), outputs=("sol",))
        return files, Signature(("a",), ("sol",), node, free)
    if layout == "pdebench":
        with h5py.File(folder / "d.hdf5", "w") as file:
            file["nu"], file["tensor"] = x.numpy(), y.numpy()[:, None]
            file["x-coordinate"] = file["y-coordinate"] = (np.arange(8) + 0.5) / 8
        return Files(file=str(folder / "d.hdf5")), Signature(("nu",), ("tensor",), cell, free)
    u = np.stack([x.numpy() + 1, y.numpy()], 1)
    write_well(folder / "data" / "train" / "a.hdf5", x.numpy()[:8], u[:8])
    write_well(folder / "data" / "valid" / "a.hdf5", x.numpy()[8:9], u[8:9])
    write_well(folder / "data" / "test" / "a.hdf5", x.numpy()[9:], u[9:])
    files = Files(folder=str(folder), inputs=("a",), outputs=("u",))
    return files, Signature(("a",), ("u",), half, ("periodic", "periodic"))


@pytest.mark.parametrize("layout", ["pt", "npz", "pdebench", "well"])
def test_files_train_to_the_bits_of_the_same_tensors(layout: str, tmp_path: Path) -> None:
    x, y = pairs()
    files, signature = write(layout, tmp_path / "data", x, y)
    opened = open_data(files)
    assert opened.signature == signature
    x, y = x[:, None], y[:, None]
    given = TrainingData(TensorData(x[:8], y[:8]), TensorData(x[8:9], y[8:9]), signature)
    ours, theirs = fit(NET, given, SHORT), fit(NET, opened, SHORT, tmp_path / "run")
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name
    held = load_operator(tmp_path / "run")
    place = as_trained(held.provenance, files.path)
    found = evaluate(held, at_trained_shape(held.signature, place, "test"))
    prediction = ours(x[9:])
    error = (prediction - y[9:]).norm() / y[9:].norm()
    assert found.relative_l2.tolist() == pytest.approx([float(error.detach())], rel=1e-6)
    assert len(next(iter(held.provenance["foreign"]["sha256"].values()))) == 64


def test_trajectories_give_frames_and_vectors_channels(tmp_path: Path) -> None:
    u = np.random.default_rng(0).normal(size=(6, 4, *SHAPE)).astype(np.float32)
    with h5py.File(tmp_path / "cfd.h5", "w") as file:
        for k, name in enumerate(("density", "pressure", "Vx", "Vy")):
            file[name] = u + k
        file["x-coordinate"] = file["y-coordinate"] = (np.arange(8) + 0.5) / 8
        file["t-coordinate"] = np.linspace(0, 1, 5)
    data = OperatorData(
        tmp_path / "cfd.h5", "train", ("Vx",), ("density", "Vy"), times=Times((1,), (2, 3))
    )
    assert len(data) == 4 and data.output_channels == ("density", "density", "Vy", "Vy")
    np.testing.assert_array_equal(data[3]["x"], u[3, 1:2] + 2)
    np.testing.assert_array_equal(data[3]["y"], np.concatenate([u[3, 2:], u[3, 2:] + 3]))
    write_well(tmp_path / "well.hdf5", u[:, 0], u)
    well = OperatorData(tmp_path / "well.hdf5", "test", ("a",), ("v",))
    np.testing.assert_array_equal(well[1]["y"], np.stack([u[5, -1], 2 * u[5, -1]]))


def test_axes_that_are_named_are_put_in_order(tmp_path: Path) -> None:
    u = np.random.default_rng(1).normal(size=(8, 9, 2, 6)).astype(np.float32)  # x, y, channel, N
    np.savez(tmp_path / "d.npz", x=u[:, :, 0], y=u)
    place = Foreign(tmp_path / "d.npz", axes=("x", "y", "channel", "sample"), train=6)
    data = OperatorData(place, "train")
    assert data.output_channels == ("y.0", "y.1")
    np.testing.assert_array_equal(data[4]["y"], np.moveaxis(u[..., 4], 2, 0))
    np.testing.assert_array_equal(data[4]["x"][0], u[:, :, 0, 4])


def test_resolutions_of_pairs_are_told_apart(tmp_path: Path) -> None:
    for name, shape in (("train_9", (9, 9)), ("test_9", (9, 9)), ("test_17", (17, 17))):
        x, y = pairs(5, shape)
        torch.save({"x": x, "y": y}, tmp_path / f"darcy_{name}.pt")
    run = tmp_path / "run"
    fit(NET, open_data(Files(str(tmp_path))), SHORT, run)
    found = measure(Question(run, (tmp_path,), transfer=True))
    assert "states no equation" in str(found.rival) and found.transfer is not None
    assert [row.shape for row in found.transfer.rows] == [(9, 9), (17, 17)]
    import_foreign(Foreign(tmp_path), tmp_path / "ours" / "d")
    stored = resolutions(tmp_path / "ours" / "d", "test")
    assert [*stored] == [(9, 9), (17, 17)]
    assert torch.equal(OperatorData(stored[(17, 17)], "test")[4]["y"][0], y[4])


def test_a_spec_trains_evaluates_shows_exports_and_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = pairs()
    torch.save({"x": x > 1, "y": y}, "darcy.pt")  # neuraloperator's coefficients are booleans
    Path("spec.yaml").write_text(
        "data: {kind: files, file: darcy.pt, train: 6, valid: 2}\n"
        "operator: {kind: fno, modes: 2, width: 4, layers: 1}\n"
        "training: {epochs: 2, batch: 4}\n"
    )

    def call(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words))
        assert result.exit_code == code, result.output
        return result.output

    call("train", "spec.yaml", "--out", "run")
    told = call("evaluate", "run", "--data", "darcy.pt")
    found = json.loads(Path("run/evaluation/evaluation.json").read_text())
    assert found["evaluations"]["darcy.pt"]["samples"] == 2  # which nothing was trained on
    assert "states no equation" in told
    assert "states no equation" in call(
        "evaluate", "run", "--data", "darcy.pt", "--certify", code=2
    )
    assert "neumann, unless" in call("info", "darcy.pt") and "8 train" in call("info", "darcy.pt")
    call("export", "darcy.pt", "--to", "npz", "--out", "out.npz")
    with np.load("out.npz") as arrays:
        np.testing.assert_array_equal(arrays["u_train"], y[:8])
    wrong = ("import", "darcy.pt", "--as", "data", "--boundary", "dirichlet,peridic")
    assert "did you mean 'periodic'" in call(*wrong, code=2)
    call("import", "darcy.pt", "--as", "data", "--boundary", "dirichlet,dirichlet")
    data = OperatorData("data", "train")
    assert torch.equal(data[7]["y"][0], y[7]) and data.reader.header.boundary["top"] == "dirichlet"
    assert "states no equation" in call("info", "data")
    assert "is not empty" in call("import", "darcy.pt", "--as", "data", code=2)
    opened = open_data(Files("data"))
    assert opened.signature.boundary == ("dirichlet", "dirichlet")
    torch.save({"x": x, "y": y + 1}, "darcy.pt")
    assert "foreign.darcy.pt" in call("train", "spec.yaml", "--out", "run", code=2)


class Bomb:
    """Leaves a file behind where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("exploded",)


def faults() -> dict[str, tuple[dict[str, Any], dict[str, Any], str]]:
    """What is written, what is asked of it, and what is said."""
    x, y = pairs()
    bad = y.clone()
    bad[3, 2, 2] = torch.nan
    named = {"inputs": ("x",), "outputs": ("y",)}
    return {
        "name": ({"x": x, "pressure": y}, {**named, "outputs": ("presure",)}, "did you mean"),
        "unsaid": ({"k": x, "p": y}, {}, "does not say what is input and output"),
        "samples": ({"x": x, "y": y[:4]}, {}, "numbers of samples differ: 10 in 'x', 4 in 'y'"),
        "grid": ({"x": x, "y": y[:, :4, :4]}, {}, "grid points differ: 8 x 8 in 'x', 4 x 4 in 'y'"),
        "nan": ({"x": x, "y": bad}, {}, "sample 3 of 'y' is not finite"),
        "empty": ({"x": x[:0], "y": y[:0]}, {}, "is empty"),
        "nothing": ({}, {}, "holds no arrays"),
        "code": ({"x": x, "y": Bomb()}, {}, "refused: .* can run any code"),
        "sparse": ({"x": x.to_sparse(), "y": y}, {}, "write dense numbers"),
        "complex": ({"x": x, "y": y + 0j}, {}, "is complex"),
        "channels": ({"x": x[..., None], "y": y[..., None]}, {}, "name its axes"),
        "axis": ({"x": x, "y": y}, {"axes": ("sample", "tim", "x")}, "did you mean 'time'"),
        "misfit": ({"x": x, "y": y}, {"axes": ("sample", "x")}, "does not fit the axes"),
        "many": ({"x": x, "y": y}, {"train": 11}, "there are 10"),
        "same": ({"x": x, "y": y}, {**named, "outputs": ("x",)}, "input and output at once"),
        "ends": ({"x": x, "y": y}, {"boundary": ("periodic",)}, "one entry per axis"),
        "end": ({"x": x, "y": y}, {"boundary": ("periodc", "neumann")}, "did you mean 'periodic'"),
        "shape": ({"x": x, "y": y}, {"shape": (5, 5)}, r"no resolution \[5, 5\]"),
    }  # fmt: skip


@pytest.mark.parametrize("fault", faults())
def test_every_fault_is_one_line(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stored, options, said = faults()[fault]
    torch.save(stored, "d.pt")
    with pytest.raises(InputError, match=said) as error:
        fit(NET, open_data(Files(file="d.pt", **options)), SHORT)
    assert "\n" not in str(error.value) and not Path("exploded").exists()
    if fault == "nan":
        with pytest.raises(InputError, match=said):
            import_foreign(Foreign(Path("d.pt")), Path("ours"))
        assert not Path("ours").exists()


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "torn.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    (tmp_path / "torn.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "objects.npz", x=np.array([{}]), y=np.zeros((2, 3)))
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{}")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    for name, said in (
        ("torn.pt", "damaged"), ("torn.h5", "damaged"), ("torn.npz", "refused|no archive"),
        ("objects.npz", "can run any code"), ("a.zarr", "convert it once"), ("list.pt", "by name"),
        ("none.pt", "no such file"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said) as error:
            open_data(Files(file=str(tmp_path / name)))
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="a folder or a file"):
        Files()


def test_samples_that_were_trained_on_are_never_evaluated_on(tmp_path: Path) -> None:
    x, y = pairs()
    torch.save({"x": x, "y": y}, tmp_path / "a.pt")
    trained = open_data(Files(file=str(tmp_path / "a.pt"), train=9, valid=1))
    origin = {"foreign": dict(trained.foreign)}
    with pytest.raises(InputError, match="no samples left for the split 'test'"):
        OperatorData(as_trained(origin, tmp_path / "a.pt"), "test")
    torch.save({"x": x + 1, "y": y}, tmp_path / "b.pt")
    with pytest.raises(InputError, match="some of the files"):
        as_trained(origin, tmp_path)
    assert len(OperatorData(as_trained(origin, tmp_path / "b.pt"), "test")) == N
