"""Families on meshes: the fields drawn, the samples solved, stored, read, shown and exported."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import contents
from typer.testing import CliRunner

import sciml
from sciml.app.cli import app
from sciml.app.read import dataset_family, load_family
from sciml.core.errors import InputError
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.mesh_file import MeshFile, write_vtu
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.core.run.serialise import dump
from sciml.datasets.distributions import (
    Blocks,
    Distribution,
    GaussianField,
    Inclusions,
    Multiscale,
    SquareWave,
    Uniform,
    stream,
)
from sciml.datasets.family import DatasetOptions, Family
from sciml.datasets.generate import generate
from sciml.datasets.loader import OperatorData, PointData
from sciml.datasets.samples import attempt
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import Manifest, Shard, Unstructured, read_shard, write_shard
from sciml.datasets.stream import Stream
from sciml.solvers import AMG, CG, Direct

Wall = Condition(dirichlet=0.0)


def lattice(counts: tuple[int, ...], element: Any = "P1", tilt: float = 0.0) -> Mesh:
    """Intervals, triangles or tetrahedra on the unit box, inner points moved by ``tilt``."""
    axes = [np.linspace(0, 1, n + 1) for n in counts]
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], axis=-1)
    inner = np.all((points > 0) & (points < 1), axis=1)
    points[inner] += tilt * np.random.default_rng(0).uniform(-0.3, 0.3, (inner.sum(), len(counts)))
    number = np.arange(len(points)).reshape([n + 1 for n in counts])
    if len(counts) == 1:
        cells = np.stack([number[:-1], number[1:]], axis=1)
    elif len(counts) == 2:
        a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[1:, :-1],
                                                number[:-1, 1:], number[1:, 1:]))  # fmt: skip
        cells = np.concatenate([np.stack([a, b, d], axis=1), np.stack([a, d, c], axis=1)])
    else:
        from skfem import MeshTet

        solid = MeshTet.init_tensor(*axes)
        points, cells = solid.p.T, solid.t.T.copy()
        volumes = np.linalg.det(points[cells[:, 1:]] - points[cells[:, :1]])
        cells[volumes < 0] = cells[volumes < 0][:, [1, 0, 2, 3]]
    return Mesh(points, cells, element=element)


def draws(distribution: Distribution, on: Grid | Mesh, count: int = 3) -> torch.Tensor:
    return distribution.draw([stream(3, i, "problem.equation.K") for i in range(count)], on)


FIELDS = {
    "gaussian": GaussianField(alpha=3.0),
    "periodic": GaussianField(alpha=3.0, boundary="periodic"),
    "log-normal": GaussianField(alpha=3.0, through="exp(a) + x"),
    "blocks": Blocks(3, Uniform(1.0, 2.0)),
    "inclusions": Inclusions(4, Uniform(0.1, 0.2), 3.0, 1.0),
    "multiscale": Multiscale(3),
    "square wave": SquareWave(Uniform(1, 2), Uniform(0.3, 0.5), Uniform(0.4, 0.6)),
}


@pytest.mark.parametrize("distribution", FIELDS.values(), ids=list(FIELDS))
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_a_function_is_the_same_on_every_mesh_of_a_box(
    distribution: Distribution, element: Any
) -> None:
    """Where two meshes have a node in common, and at the points of the drawing's own grid."""
    coarse, fine = lattice((4, 4), element), lattice((16, 16))
    values, others = draws(distribution, coarse), draws(distribution, fine)
    assert values.shape == (3, len(coarse.nodes))
    where = [int(np.argmin(((fine.nodes - p) ** 2).sum(1))) for p in coarse.nodes]
    assert torch.equal(values, others[:, where])
    grid = Grid((257, 257), domain=Box((0.0, 0.0), (1.0, 1.0)))
    on_grid = draws(distribution, grid)
    index = np.rint(coarse.nodes * 256).astype(int)
    assert torch.allclose(values, on_grid[:, index[:, 0], index[:, 1]], atol=1e-12)


@pytest.mark.parametrize("counts", [(7,), (3, 5), (2, 3, 2)], ids=["1-D", "2-D", "3-D"])
def test_between_the_grids_points_a_gaussian_field_is_linear(counts: tuple[int, ...]) -> None:
    """Within the error of linear interpolation, at any point, of a field of one known mode."""
    mesh = lattice(counts, tilt=0.05)
    d = len(counts)
    terms = GaussianField(alpha=3.0, terms=1, tau=3.0)
    value = draws(terms, mesh, 1)[0]
    wave = torch.stack([torch.cos(math.pi * x) for x in mesh.coordinates()])
    # One mode has the largest variance, up to permutations of the axes: the first in the order.
    scale = [float((value @ w) / (w @ w)) for w in wave]
    best = min(range(d), key=lambda a: float((value - scale[a] * wave[a]).abs().max()))
    h = 1 / ({1: 2049, 2: 257, 3: 65}[d] - 1)
    bound = abs(scale[best]) * math.pi**2 * h**2 / 8
    assert float((value - scale[best] * wave[best]).abs().max()) <= 1.1 * bound + 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), index=st.integers(0, 10**9), batch=st.integers(1, 3))
def test_on_a_mesh_too_a_sample_is_its_seed_and_number(seed: int, index: int, batch: int) -> None:
    family = square()
    together = family.draw(seed, range(index, index + batch))
    alone = family.draw(seed, [index + batch - 1])
    for place, values in together.items():
        assert torch.equal(values[-1], alone[place][0])


def square(solver: Any = None, element: str = "P1", **options: Any) -> Family:
    """Darcy flow with a random source and conductivity, on triangles; the mesh is no file's."""
    problem = Problem(
        None,
        Equation(K=GaussianField(through="exp(a)"), f="s*(1 + x)", kind="darcy"),
        {"boundary": Wall},
        parameters={"s": Uniform(1.0, 2.0)},
    )
    chosen = DatasetOptions(
        name="square",
        inputs={"a": "problem.equation.K", "s": "problem.parameters.s"},
        **{"splits": {"train": 5, "test": 2}, "shard": 2, **options},
    )
    family = Family(problem, None, solver or Direct(), chosen, MeshFile("square.vtu"))
    # What reading the file would give; see test_a_mesh_is_read_relative_to_the_spec.
    family.__dict__["on"] = lattice((5, 4), element)
    return family


def make(family: Family, out: Path, **more: Any) -> Manifest:
    return generate(family, out, spec=dump(family), versions={"sciml": "0"}, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("square")
    make(square(), folder)
    return folder


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("solver", [None, CG(preconditioner=AMG(), rtol=1e-10)], ids=["lu", "amg"])
def test_stored_samples_are_solutions_at_the_nodes(
    tmp_path: Path, solver: Any, element: str
) -> None:
    family = square(solver, element)
    make(family, tmp_path)
    shard = read_shard(tmp_path / "data/train/00001.hdf5")
    assert shard.indices.tolist() == [2, 3] and shard.residuals.max() < 1e-8
    assert (shard.inputs, shard.outputs, shard.grid) == (("a", "s"), ("u",), family.on.shape)
    for row, index in enumerate(shard.indices.tolist()):
        exact = sciml.solve(family.sample(0, [index]), Direct(), on=family.on)
        value = exact.value[0].numpy()
        gap = np.abs(shard.fields["u"][row, 0] - value).max()
        assert gap < 1e-6 * np.abs(value).max()
    drawn = family.draw(0, [2, 3])
    np.testing.assert_array_equal(shard.fields["a"], drawn["problem.equation.K"].float())
    np.testing.assert_array_equal(shard.scalars["s"], drawn["problem.parameters.s"].float())


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_bytes_after_an_interruption(whole: Path, tmp_path: Path, workers: int) -> None:
    def stop(stored: int, wanted: int, rejects: int) -> None:
        if stored > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(square(), tmp_path, progress=stop)
    assert contents(tmp_path) != contents(whole)
    make(square(), tmp_path, workers=workers)
    assert contents(tmp_path) == contents(whole)


def test_another_mesh_under_the_same_name_is_refused(whole: Path) -> None:
    before = contents(whole)
    family = square()
    family.__dict__["on"] = lattice((5, 4), tilt=0.1)
    with pytest.raises(InputError, match="on another mesh") as caught:
        make(family, whole)
    assert caught.value.key == "mesh" and contents(whole) == before


def assert_same_place(one: Unstructured | None, other: Unstructured | None) -> None:
    assert one is not None and other is not None and one.same(other)
    assert list(one.sides) == list(other.sides)
    for name, nodes in one.sides.items():
        np.testing.assert_array_equal(nodes, other.sides[name])


def meshed(mesh: Mesh) -> Shard:
    """Three samples of numbers: a scalar field in time, a constant vector, a number."""
    generator = np.random.default_rng(1)
    n, d = mesh.nodes.shape
    return Shard(
        name="Numbers",
        fields={"u": generator.normal(size=(3, 1, n)), "w": generator.normal(size=(3, n, d))},
        constant=("w",),
        scalars={"nu": generator.uniform(size=3)},
        time=np.zeros(1),
        axes=(),
        boundary={"boundary": "dirichlet"},
        indices=np.arange(3),
        residuals=np.full(3, 1e-9),
        inputs=("w",),
        outputs=("u",),
        mesh=Unstructured.of(mesh),
    )


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("counts", [(4,), (3, 2), (2, 1, 1)], ids=["1-D", "2-D", "3-D"])
def test_a_shard_on_a_mesh_is_read_as_it_was_written(
    tmp_path: Path, counts: tuple[int, ...], element: Any
) -> None:
    mesh = lattice(counts, element)
    written = meshed(mesh)
    write_shard(tmp_path / "s.hdf5", written)
    found = read_shard(tmp_path / "s.hdf5")
    assert_same_place(written.mesh, found.mesh)
    assert found.axes == () and found.grid == mesh.shape and found.dimension == len(counts)
    for name, values in written.fields.items():
        np.testing.assert_array_equal(found.fields[name], values.astype(np.float32))
    assert found.mesh is not None
    again = found.mesh.mesh
    assert again.element == element
    np.testing.assert_array_equal(again.nodes, mesh.nodes)
    np.testing.assert_array_equal(again.cell_nodes, mesh.cell_nodes)


def test_the_layout_on_a_mesh(tmp_path: Path) -> None:
    mesh = lattice((3, 2), "P2")
    names = {
        "in/flow": mesh.boundaries["boundary"][:2],
        "out.flow": mesh.boundaries["boundary"][2:],
    }
    mesh = dataclasses.replace(mesh, boundaries=names)
    written = dataclasses.replace(meshed(mesh), boundary={"in/flow": "dirichlet"})
    write_shard(tmp_path / "s.hdf5", written)
    assert list(read_shard(tmp_path / "s.hdf5").mesh.sides) == list(names)  # type: ignore[union-attr]
    with h5py.File(tmp_path / "s.hdf5") as file:
        assert file.attrs["grid_type"] == "unstructured" and file.attrs["n_spatial_dims"] == 2
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["points"]
        np.testing.assert_array_equal(file["dimensions/points"], mesh.nodes)
        np.testing.assert_array_equal(file["dimensions/cells"], mesh.cell_nodes)
        assert file["t0_fields/u"].shape == (3, 1, len(mesh.nodes))
        assert file["t1_fields/w"].shape == (3, len(mesh.nodes), 2)
        assert "tensor" not in file
        sides = list(file["boundary_conditions"].values())
        assert [e.attrs["exact_type"] for e in sides] == ["dirichlet", "neumann"]
        for entry, rows in zip(sides, names.values(), strict=True):
            on_side = set(np.flatnonzero(entry["mask"]))
            assert on_side >= set(rows.ravel()) and len(on_side) == len(rows) * 2 + 1
    with xarray.open_datatree(tmp_path / "s.hdf5", engine="h5netcdf", phony_dims=None) as tree:
        assert tree["t0_fields/u"].dims == ("sample", "time", "node")
        assert tree["t1_fields/w"].dims == ("sample", "node", "component_2")
        assert tree["points"].dims == ("node", "component_2")
        np.testing.assert_array_equal(tree["cells"], mesh.cell_nodes)


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_of_a_mesh_is_found_or_harms_nothing(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, position: float, bits: int
) -> None:
    source = whole / "data/train/00000.hdf5"
    first, data = read_shard(source), bytearray(source.read_bytes())
    data[int(position * len(data))] ^= bits
    path = tmp_path_factory.mktemp("flipped") / "s.hdf5"
    path.write_bytes(bytes(data))
    try:
        found = read_shard(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert_same_place(first.mesh, found.mesh)
    for name, values in first.fields.items():
        np.testing.assert_array_equal(values, found.fields[name])


def test_statistics_and_normalised_channels(whole: Path) -> None:
    shards = [read_shard(path) for path in sorted((whole / "data/train").glob("*"))]
    u = np.concatenate([shard.fields["u"] for shard in shards])
    normaliser = Normaliser.read(whole)
    np.testing.assert_allclose(normaliser.mean["u"], u.mean(dtype=np.float64), rtol=1e-12)
    data = OperatorData(whole, "train", normaliser=normaliser)
    y = torch.stack([data[i]["y"] for i in range(len(data))]).double()
    assert abs(float(y.mean())) < 1e-6 and abs(float(y.std(correction=0)) - 1) < 1e-6


def test_samples_at_the_nodes(whole: Path) -> None:
    mesh = square().on
    n = mesh.shape[0]
    data = OperatorData(whole, "train", coordinates=True)
    first = read_shard(whole / "data/train/00000.hdf5")
    assert data.shape == (n,) and data.input_channels == ("a", "s", "x", "y")
    sample = data[1]
    assert sample["x"].shape == (4, n) and sample["y"].shape == (1, n)
    np.testing.assert_array_equal(sample["x"][0], first.fields["a"][1])
    assert set(sample["x"][1].tolist()) == {float(first.scalars["s"][1])}
    nodes = torch.from_numpy(mesh.nodes.astype(np.float32))  # type: ignore[union-attr]
    assert torch.equal(sample["x"][2:].T, nodes)
    points = PointData(OperatorData(whole, "train"))
    sample = points[3]
    assert torch.equal(sample["points"], nodes)
    assert sample["x"].shape == (2, n) and torch.equal(sample["y"], data[3]["y"])
    some = PointData(OperatorData(whole, "train"), points=7, aligned=False)[2]
    rows = [int(((nodes - p) ** 2).sum(1).argmin()) for p in some["points"]]
    assert torch.equal(some["y"], data[2]["y"][:, rows])


def test_a_stream_on_a_mesh() -> None:
    family = square()
    batch = next(iter(Stream(family, seed=4, batch=3)))
    assert batch["x"].shape == (3, 2, *family.on.shape) and batch["y"].shape[1] == 1
    found = attempt(family, 4, range(3)).accepted
    assert found is not None
    assert torch.allclose(batch["y"][:, 0].double(), torch.from_numpy(found.fields["u"][:, 0]))


def test_what_is_for_grids_alone_says_so(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="on a mesh, this is for grids"):
        OperatorData(whole, "train").axes  # noqa: B018
    with pytest.raises(InputError, match="subsample is for grids"):
        OperatorData(whole, "train", subsample=2)
    for form in ("neuraloperator", "npz"):
        done = CliRunner().invoke(app, ["export", str(whole), "--to", form, "--out", "out.npz"])
        assert done.exit_code == 2 and "this is for grids" in done.output
    with pytest.raises(InputError, match="one resolution") as caught:
        make(square(shapes=((5, 5),)), tmp_path)
    assert caught.value.key == "dataset.shapes"
    with pytest.raises(InputError, match="solved on the CPU"):
        attempt(square(), 0, [0], "cuda")
    with pytest.raises(InputError, match="needs a family on a grid"):
        square().on_grid  # noqa: B018


def test_info_sums_up_and_draws_on_the_mesh(whole: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["info", str(whole)])
    assert done.exit_code == 0, done.output
    assert "30 nodes, 40 P1 triangles" in done.output and "5 train, 2 test" in done.output
    assert (whole / "samples.png").read_bytes()[1:4] == b"PNG"
    (whole / "samples.png").unlink()


@pytest.mark.parametrize("counts", [(4,), (2, 1, 1)], ids=["line", "solid"])
def test_info_draws_lines_and_solids(tmp_path: Path, counts: tuple[int, ...]) -> None:
    family = square(splits={"train": 2})
    family.__dict__["on"] = lattice(counts, "P2")
    make(family, tmp_path)
    done = CliRunner().invoke(app, ["info", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "samples.png").stat().st_size > 5000


SPEC = """
problem:
  equation: {kind: darcy, K: {kind: uniform, low: 1, high: 2}, f: {kind: gaussian_field}}
  boundary: {boundary: {dirichlet: 0}}
mesh: {file: square.vtu, element: P2}
dataset: {splits: {train: 2}}
"""


def test_a_mesh_is_read_relative_to_the_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the dataset's own record of the family leads to it from anywhere."""
    write_vtu(tmp_path / "square.vtu", lattice((3, 3)), {})
    (tmp_path / "spec.yaml").write_text(SPEC)
    monkeypatch.chdir(tmp_path)
    made = CliRunner().invoke(app, ["generate", "spec.yaml", "--out", "out"])
    assert made.exit_code == 0, made.output
    shard = read_shard(tmp_path / "out/data/train/00000.hdf5")
    assert shard.grid == (49,) and shard.scalars["K"].shape == (2,)
    monkeypatch.chdir("/")
    again = dataset_family(tmp_path / "out")
    assert_same_place(Unstructured.of(again.on), shard.mesh)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(("mesh:", "grid: {shape: [9, 9]}\nmesh:"), "exactly one of grid", id="both"),
        pytest.param(("mesh: {file: square.vtu, element: P2}", ""), "got none", id="neither"),
        pytest.param(
            (
                "  boundary: {boundary: {dirichlet: 0}}",
                "  domain: {kind: box, lower: [0], upper: [1]}\n"
                "  boundary: {left: {dirichlet: 0}, right: {dirichlet: 0}}",
            ),
            "leave domain out",
            id="domain",
        ),
        pytest.param(("square.vtu", "round.vtu"), "cannot find the file", id="missing"),
    ],
)
def test_mistakes_are_placed(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    write_vtu(tmp_path / "square.vtu", lattice((3, 3)), {})
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC.replace(*change))
    with pytest.raises(InputError, match=words) as caught:
        load_family(path)
    assert "\n" not in str(caught.value) and "spec.yaml" in str(caught.value)
