"""The training specs: every one loads, comes back equal, fits its data, and trains a little."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import scipy.sparse
from test_generate import SMALL

from sciml.app.generate import generate
from sciml.app.read import OPERATOR, kind_of, load_family, load_training, read_training
from sciml.app.train import train
from sciml.app.training_spec import Solved
from sciml.app.yaml import parse_yaml, read_yaml
from sciml.core.problem.grid import Grid
from sciml.core.run.serialise import dump
from sciml.datasets.family import Family
from sciml.operators.operator import Side, Signature, architectures

ROOT = Path(__file__).resolve().parents[1]
ALL = sorted((ROOT / "configs" / "train").glob("*.yaml"))
CONFIGS = [path for path in ALL if kind_of(read_yaml(path)) is OPERATOR]
FAMILIES = sorted((ROOT / "configs" / "datasets").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_loads_and_comes_back(path: Path) -> None:
    spec = load_training(path)
    assert spec.name
    assert spec == read_training(parse_yaml(json.dumps(dump(spec)), str(path)))


def family_of(path: Path) -> Family:
    """The family that the spec's data is made from: a folder is named after it."""
    data = load_training(path).data
    if isinstance(data, Solved):
        return load_family(path.parent / data.family, data.changes)
    name = Path(data.folder).name
    found = [spec for spec in FAMILIES if name.startswith(spec.stem)]
    family = load_family(max(found, key=lambda spec: len(spec.stem)))
    if name.removeprefix("darcy-").isdecimal():
        size = int(name.removeprefix("darcy-"))
        dataset = dataclasses.replace(family.dataset, shapes=((size, size),))
        return dataclasses.replace(family, grid=Grid((size, size)), dataset=dataset)
    return family


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_the_network_can_be_built_on_the_grid_of_its_data(path: Path) -> None:
    spec, family = load_training(path), family_of(path)
    shape = getattr(spec.data, "shape", None) or next(iter(family.dataset.shapes), None)
    grid = Grid(shape or family.grid.shape, family.grid.centring, family.problem.box)
    assert all((n - 1) % (m - 1) == 0 or n % m == 0
               for n, m in zip(family.grid.shape, grid.shape, strict=True))  # fmt: skip
    periodic = family.problem.boundary["left"].periodic
    side: Side = "periodic" if periodic else "dirichlet"
    signature = Signature(("a",), ("u",), grid, (side,) * len(grid.shape))
    network = spec.operator.build(signature)
    assert sum(p.numel() for p in network.parameters()) > 1000


def test_the_configs_cover_every_architecture_and_what_is_promised() -> None:
    kinds = {type(load_training(path).operator).__name__ for path in CONFIGS}
    assert kinds == {cls.__name__ for cls in architectures()}
    promised = {"mgno-darcy", "fno-darcy", "unet-darcy", "deeponet-darcy", "pod-deeponet-darcy",
                "lsm-darcy", "mgno-darcy-211", "mgno-darcy-rough", "lsm-darcy-85",
                "mgno-navier-stokes", "mgno-darcy-stream"}  # fmt: skip
    assert promised <= {path.stem for path in CONFIGS}


# Beside the sizes at which the families themselves are tried, the frames that a training asks for.
FRAMES = {
    "advection": ("grid.shape=[40]", "solver.rtol=0.01"),
    "navier-stokes-1e-5": ("grid.shape=[16,16]", "problem.time={end: 0.1, frames: 21}"),
}
# Of every architecture a small one: these options, where it has them.
OPERATOR = {"levels": 2, "layers": 1, "width": 8, "modes": 2, "trunk": "[8]", "branch": "[8]"}


def small(path: Path, folder: Path) -> list[str]:
    """Changes of a training spec: data of its own family in ``folder``, four samples, one epoch."""
    spec = load_training(path)
    taken = ["training.epochs=1", "training.batch=2", "data.valid=1"]
    taken += [
        f"operator.{name}={value}"
        for name, value in OPERATOR.items()
        if isinstance(getattr(spec.operator, name, None), type(parse_yaml(f"{value}").data))
    ]
    if getattr(spec.operator, "convolutions", ()):
        taken.append("operator.convolutions=[2]")
    if isinstance(spec.data, Solved):
        changes = '["grid.shape=[17,17]", "dataset.shapes=[]"]'
        return [*taken, "data.batches=1", f"data.changes={changes}"]
    name = Path(spec.data.folder).name
    family = max((f for f in SMALL if name.startswith(f)), key=len)
    changes = FRAMES.get(family, ("grid.shape=[17,17]", "dataset.shapes=[]"))
    if not (folder / family).exists():
        source = ROOT / f"configs/datasets/{family}.yaml"
        generate(load_family(source, changes).with_count(12), folder / family)
    shape = [] if spec.data.shape is None else ["data.shape=[9,9]"]
    return [*taken, *shape, "data.train=2", f"data.folder={folder / family}"]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_trains_for_an_epoch(path: Path, datasets: Path, tmp_path: Path) -> None:
    record = train(load_training(path, small(path, datasets)), tmp_path)
    assert record is not None
    assert record["epochs"] == 1 and record["last"]["loss"] > 0
    assert (tmp_path / "weights.safetensors").is_file() and (tmp_path / "report.html").is_file()


PRECONDITIONERS = {
    "dcdm-poisson-2d": (
        'data.changes=["grid={shape: [12, 12], centring: cell}"]', "data.count=1",
        "preconditioner.ritz=10", "preconditioner.vectors=8", "preconditioner.epochs=1",
    ),
    "dcdm-poisson-3d": (
        'data.changes=["grid={shape: [12, 12, 12], centring: cell}"]', "data.count=1",
        "preconditioner.ritz=8", "preconditioner.vectors=6", "preconditioner.epochs=1",
    ),
    "learned-multigrid": (
        'data.changes=["grid={shape: [9, 9]}"]', "data.count=1",
        "preconditioner.points=15", "preconditioner.rounds=1", "preconditioner.steps=1",
    ),
    "neural-ic": ("preconditioner.rounds=1", "preconditioner.steps=1", "preconditioner.batch=1"),
}  # fmt: skip


@pytest.mark.parametrize("path", [p for p in ALL if p not in CONFIGS], ids=lambda p: p.stem)
def test_every_preconditioner_is_trained_a_little(path: Path, tmp_path: Path) -> None:
    changes = [*PRECONDITIONERS[path.stem]]
    if path.stem == "neural-ic":
        line = scipy.sparse.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(40, 40))
        for index in range(4):
            (tmp_path / "matrices").mkdir(exist_ok=True)
            matrix = scipy.sparse.csr_array(line * (1 + index))
            scipy.sparse.save_npz(tmp_path / f"matrices/{index}.npz", matrix)
        changes.append(f"data.folder={tmp_path / 'matrices'}")
    record = train(load_training(path, changes), tmp_path / "run")
    assert record is not None and record["weights"] == "weights.safetensors"
    assert (tmp_path / "run" / "weights.safetensors").is_file()
