"""Numbers at points, along lines and inside elements: of what is derived, of systems, raw."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import skfem
import torch
from typer.testing import CliRunner

from sciml import (
    Box,
    Condition,
    Elasticity,
    Equation,
    Grid,
    InputError,
    Mesh,
    NavierStokes,
    Problem,
    Regions,
    System,
    Time,
)
from sciml.app import meshes
from sciml.app.cli import app
from sciml.app.converge import Trend
from sciml.core.problem.equation import Hyperelasticity
from sciml.core.problem.mesh import located, sample
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.status import Status
from sciml.discretization.elements import recovery

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SQUARE = Box((0.0, 0.0), (1.0, 2.0))


def mesh_of(kind: Any = skfem.MeshTri, element: Any = "P2", halves: bool = False) -> Mesh:
    made = kind().refined(2)
    left = made.p[0][made.t].mean(0) < 0.5
    regions = {"left": np.flatnonzero(left), "right": np.flatnonzero(~left)}
    return Mesh(made.p.T.copy(), made.t.T.copy(), regions if halves else {}, element=element)


def answered(problem: Problem, on: Any, value: torch.Tensor, **more: Any) -> Solution:
    """A value as if it had been solved for."""
    stats = Statistics(torch.zeros(()), torch.zeros(1), 0.0, 0.0)
    on = on.bind(problem.box) if isinstance(on, Grid) else on
    return Solution(value, torch.zeros(()), (Status.CONVERGED,), stats, on, problem=problem, **more)


def held(equation: Any, on: Mesh, **more: Any) -> Problem:
    zero = [0.0] * on.dimension
    return Problem(None, equation, {"boundary": Condition(dirichlet=zero)}, **more)


def displaced(mesh: Mesh, *rows: Any) -> torch.Tensor:
    return torch.stack([f(*mesh.coordinates()) for f in rows]).double()


@pytest.mark.parametrize(
    ("kind", "element"),
    [(skfem.MeshTri, "P1"), (skfem.MeshTri, "P2"), (skfem.MeshTet, "P2"), (skfem.MeshQuad, "Q2")],
)
def test_recovery_at_a_place_is_the_recovered_function_there(kind: Any, element: str) -> None:
    mesh = mesh_of(kind, element)
    torch.manual_seed(0)
    points = torch.rand(3, mesh.dimension, dtype=torch.float64)
    points[0] = 0.5
    middle = mesh.points[mesh.cells].mean(1)[:, 0]
    inner = torch.rand(2, *recovery.superconvergent(mesh).points[0].shape, dtype=torch.float64)
    for material in (np.zeros(len(mesh.cells), dtype=int), (middle > 0.5).astype(int)):
        found = recovery.around(mesh, *located(mesh, points), material)
        wanted = sample(mesh, recovery.at_nodes(mesh, inner, material), points)
        assert found.part.members is not None and len(found.part.members) <= len(mesh.cells)
        assert torch.allclose(found.of(inner[:, found.part.members]), wanted, atol=1e-11)


def test_what_is_derived_is_told_at_points_along_lines_and_at_its_largest_on_grids() -> None:
    flow = Problem(
        SQUARE,
        NavierStokes(viscosity=0.1),
        {"all": Condition(dirichlet=[0.0, 0.0])},
        time=Time(1.0),
        initial={"u": 0.0, "v": 0.0},
    )
    grid = Grid((20, 40), centring="cell")
    x, y = grid.bind(SQUARE).coordinates()
    value = torch.stack([x * y + 0 * y, x**2 - y**2, 0 * x * y])
    solution = answered(flow, grid, value[None], times=torch.tensor([0.0]))
    for stated in ({"at": (0.41, 0.77)}, {"max": ""}, {"mean": ""}):
        kind = next(iter(stated))
        named, spelled = (
            solution.quantity(**stated, of=what)
            if kind == "at"
            else solution.quantity(**{kind: what})
            for what in ("vorticity", "vx - uy")
        )
        assert torch.allclose(named.value, spelled.value, atol=1e-12)
    points = torch.tensor([[0.2, 0.3], [0.7, 1.6], [3.0, 1.0]], dtype=torch.float64)
    along = solution.sample(points, "vorticity")[0]
    assert torch.allclose(along[:2], points[:2, 0], atol=1e-10) and bool(along[2].isnan())

    heat = Problem(SQUARE, Equation(kind="darcy", K="1 + x"), {"all": Condition(dirichlet="x*y")})
    nodes = Grid((21, 41))
    field = torch.as_tensor((lambda x, y: x * y)(*nodes.bind(SQUARE).coordinates()))
    flux = answered(heat, nodes, field).quantity(at=(0.5, 1.0), of="sqrt(qx**2 + qy**2)")
    assert float(flux) == pytest.approx(1.5 * np.hypot(1.0, 0.5), rel=1e-3)
    with pytest.raises(InputError, match="leave raw"):
        answered(heat, nodes, field).quantity(max="qx", raw=True)


def test_a_solid_in_a_system_has_the_stresses_of_one_by_itself() -> None:
    mesh = mesh_of(element="P2")
    alone = Elasticity(young=3.0, poisson_ratio=0.3, thermal_strain="0.1*x", plane="stress")
    system = System({"w": alone, "T": Equation(f=1.0)})
    moved = displaced(mesh, lambda x, y: 0.1 * x**2 + 0.2 * y, lambda x, y: x * y - 0.3 * y)
    both = torch.cat([moved, mesh.coordinates()[0][None]])
    here = held(alone, mesh)
    there = Problem(
        None,
        system,
        {
            "boundary": Condition(
                by_field={"w": Condition(dirichlet=[0, 0]), "T": Condition(dirichlet=0)}
            )
        },
    )
    one, two = answered(here, mesh, moved), answered(there, mesh, both)
    for name in ("stress", "strain", "principal_stress", "mises"):
        first, second = one.derived(name), two.derived(name)
        assert first.components == second.components
        for a, b in ((first.value, second.value), (first.inner, second.inner)):
            assert a is not None and b is not None and torch.allclose(a, b, atol=1e-12)
    assert "mises" in two.with_derived().kept
    for stated in ({"max": "mises"}, {"at": (0.3, 0.4), "of": "sxx"}, {"mean": "s1"}):
        assert float(one.quantity(**stated)) == pytest.approx(float(two.quantity(**stated)))
    assert float(two.quantity(at=(0.3, 0.4), of="Tqx")) == pytest.approx(-1.0)


def test_cauchy_stress_of_a_stretched_neo_hookean_body() -> None:
    mesh, stretch = mesh_of(), 1.2
    solid = Hyperelasticity(young=2.0, poisson_ratio=0.25)
    solution = answered(
        held(solid, mesh), mesh, displaced(mesh, lambda x, y: (stretch - 1) * x, lambda x, y: 0 * y)
    )
    first, second = 2 * 0.25 / (1.25 * 0.5), 2 / 2.5
    bulk = first * np.log(stretch) / stretch
    value = solution.derived("stress").value[:, 0]
    wanted = [second * (stretch**2 - 1) / stretch + bulk, bulk, bulk, 0.0]
    assert torch.allclose(value, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)


def test_a_coefficient_by_region_holds_on_a_region_alone() -> None:
    mesh = mesh_of(halves=True)
    solid = Elasticity(young=Regions({"left": 1.0, "right": 10.0}), poisson_ratio=0.0)
    strained = displaced(mesh, lambda x, y: 0.01 * x, lambda x, y: 0 * y)
    solution = answered(held(solid, mesh), mesh, strained)
    for name, young in (("left", 1.0), ("right", 10.0)):
        assert float(solution.quantity(mean="sxx", region=name)) == pytest.approx(0.01 * young)
    x = torch.tensor([0.1, 0.3], dtype=torch.float64)
    assert float(solution.quantity(at=tuple(x.tolist()), of="sxx")) == pytest.approx(0.01)


def test_the_largest_stress_inside_elements_is_told_apart_from_the_recovered(
    tmp_path: Path,
) -> None:
    mesh = mesh_of(element="P2")
    solid = Elasticity(young=1.0, poisson_ratio=0.0)
    value = displaced(mesh, lambda x, y: x**2 / 2, lambda x, y: 0 * y)
    solution = answered(held(solid, mesh), mesh, value).with_derived("stress")
    recovered, raw = solution.quantity(max="sxx"), solution.quantity(max="sxx", raw=True)
    peaks = solution.kept["stress"].peaks
    assert peaks is not None
    assert float(recovered) == pytest.approx(1.0, abs=1e-9)
    assert raw.place is not None and 0.9 < float(raw) < 1.0
    assert float(raw) == pytest.approx(float(raw.place[0]))
    assert float(raw) == pytest.approx(float(peaks[0].max()))
    solution.save(str(tmp_path))
    arrays = meshio.read(tmp_path / "solution.vtu").cell_data
    assert float(arrays["sxx (peaks in elements, not recovered)"][0].max()) == pytest.approx(
        float(raw)
    )
    in_time = answered(
        held(solid, mesh, time=Time(1.0, frames=2), initial={"u": 0.0, "v": 0.0}),
        mesh,
        torch.stack([0 * value, value]),
        times=torch.tensor([0.0, 1.0]),
    )
    in_time.save(str(tmp_path / "time"))
    frames = [meshio.read(tmp_path / "time" / "frames" / f"000{k}.vtu").cell_data for k in (0, 1)]
    largest = [float(frame["mises (elements)"][0].max()) for frame in frames]
    assert largest == pytest.approx([0.0, float(solution.kept["mises"].inner.max())])


def test_the_stream_function_on_a_mesh_is_exact_where_it_can_be() -> None:
    mesh = mesh_of(element="P2")
    flow = held(NavierStokes(viscosity=1.0), mesh)
    x, y = mesh.coordinates()
    value = torch.stack([x + 2 * y, -y, 0 * x]).double().requires_grad_()
    psi = answered(flow, mesh, value).derived("stream_function").value
    wanted = x * y + y**2
    assert torch.allclose(psi, wanted - wanted[0], atol=1e-12)
    direction = torch.rand(value.shape, dtype=torch.float64)
    weights = torch.rand(psi.shape, dtype=torch.float64)
    (slope,) = torch.autograd.grad((psi * weights).sum(), value)
    moved = answered(flow, mesh, (value + direction).detach()).derived("stream_function").value
    change = ((moved - psi.detach()) * weights).sum()
    assert float((slope * direction).sum()) == pytest.approx(float(change))


@pytest.mark.parametrize(
    ("values", "order", "why"),
    [
        ((1.16, 1.04, 1.01), 2.0, ""),
        ((1.0, 1.0, 1.0), None, "all levels agree"),
        ((1.0, 1.1, 1.1), None, "the two finer levels agree"),
        ((1.0, 1.0, 1.1), None, "only the finest level differs"),
        ((1.0, 1.2, 1.1), None, "change sign"),
        ((1.0, 1.1, 1.3), None, "do not fall"),
        ((1.0, float("nan"), 1.3), None, "cannot be told"),
    ],
)
def test_where_there_is_no_order_it_says_why(values: Any, order: Any, why: str) -> None:
    trend = Trend("q", values)
    assert trend.order == (None if order is None else pytest.approx(order))
    assert (why in trend.why) and bool(trend.why) == bool(why)


def test_converge_leaves_a_table_and_a_picture(tmp_path: Path) -> None:
    text = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: poisson, f: 1}
  boundary: {all: {dirichlet: 0}}
grid: {shape: [5, 5]}
output: {quantities: {middle: {at: [0.5, 0.5]}, out: {flux: u, on: left}, no: {min: u, on: top}}}
"""
    path = tmp_path / "square.yaml"
    path.write_text(text)
    done = CliRunner().invoke(app, ["converge", str(path), "--out", str(tmp_path / "found")])
    assert done.exit_code == 0 and "out has no order: all levels agree" in done.output
    kept = json.loads((tmp_path / "found" / "converge.json").read_text())["quantities"]
    rows = list(csv.reader((tmp_path / "found" / "converge.csv").open()))
    assert rows[0][1] == "5 x 5 nodes" and float(rows[1][4]) == kept["middle"]["order"] > 1.8
    assert kept["out"]["order"] is None and "agree" in kept["out"]["why"]
    assert (tmp_path / "found" / "converge.png").stat().st_size > 5000


def test_info_lists_what_a_mesh_is_made_of() -> None:
    mesh = mesh_of(halves=True)
    rows = {row[0]: row for row in meshes.groups(mesh)[1:]}
    assert rows["left"][1:] == ["region", "16 triangles", "area 0.5", "0 to 0.5", "0 to 1"]
    assert rows["boundary"][1:4] == ["boundary", "16 facets", "length 4"]
    told = CliRunner().invoke(app, ["info", str(CONFIGS / "meshes" / "plate.msh")])
    assert told.exit_code == 0 and "42 facets" in told.output and "hole" in told.output
