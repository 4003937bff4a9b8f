"""The training specs: every one loads, comes back equal, and fits the grid of its data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sciml.app.families import load_family
from sciml.app.learn import is_learning
from sciml.app.train import Solved, load_training, read_training
from sciml.app.yaml_source import parse_yaml, read_yaml
from sciml.core.grid import Grid
from sciml.core.plain import dump
from sciml.datasets.family import Family
from sciml.operators import OPERATORS
from sciml.operators.operator import Side, Signature

ROOT = Path(__file__).resolve().parents[1]
ALL = sorted((ROOT / "configs" / "train").glob("*.yaml"))
CONFIGS = [path for path in ALL if not is_learning(read_yaml(path))]
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
    assert kinds == set(OPERATORS)
    promised = {"mgno-darcy", "fno-darcy", "unet-darcy", "deeponet-darcy", "pod-deeponet-darcy",
                "lsm-darcy", "mgno-darcy-211", "mgno-darcy-rough", "lsm-darcy-85",
                "mgno-navier-stokes", "mgno-darcy-stream"}  # fmt: skip
    assert promised <= {path.stem for path in CONFIGS}
