"""Geometries: measures of curved regions, names of their parts, and answers known exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import sciml
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, write_run
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.geometry import Arc, Cylinder, Geometry, Primitive
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.quadrature import whole

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DISC = Primitive(circle=(0.0, 0.0, 1.0))
BORE = Primitive(circle=(0.3, 0.0, 0.25))
SQUARE = Primitive(rectangle=((0.0, 0.0), (3.0, 3.0)))


def needs_gmsh() -> Any:
    return pytest.importorskip("gmsh", exc_type=ImportError)


def measure(mesh: Mesh, of: str | None = None) -> float:
    sizes = whole(mesh, 4).measure.sum(-1)
    return float(sizes.sum() if of is None else sizes[mesh.subdomains[of]].sum())


def test_the_area_of_a_ring_has_the_order_of_its_curved_sides() -> None:
    """Quadratic sides: the fourth order in the area, on triangles and quadrilaterals."""
    needs_gmsh()
    exact = math.pi * (1 - 0.25**2)
    parts: dict[str, Any] = {"shapes": {"disc": DISC, "bore": BORE}, "regions": {"a": "disc-bore"}}
    for element in ("P2", "Q2"):
        gaps = [
            measure(Geometry(size, element=element, **parts).mesh()) - exact for size in (0.1, 0.05)
        ]
        assert abs(gaps[1]) < 1e-6, element
        assert math.log2(abs(gaps[0] / gaps[1])) > 3.5, element


def test_a_geometry_gives_the_same_mesh_every_time() -> None:
    needs_gmsh()
    first, second = (
        Geometry(0.3, shapes={"disc": DISC, "bore": Primitive(circle=(0, 0, 0.3), size=0.05)},
                 regions={"a": "disc - bore"}).mesh()
        for _ in range(2)
    )  # fmt: skip
    np.testing.assert_array_equal(first.nodes, second.nodes)
    np.testing.assert_array_equal(first.cells, second.cells)


REGIONS = [
    ({"a": "disc * square"}, math.pi / 4, {"disc", "square", "square_left", "square_bottom"}),
    ({"a": "disc + square"}, 9 + 0.75 * math.pi, {"disc", "square"}),
    ({"a": "square - disc"}, 9 - math.pi / 4, {"disc", "square_top"}),
    ({"a": "(disc - bore)*square"}, 0.25 * math.pi - 0.125 * 0.25 * math.pi, {"bore"}),
]


@pytest.mark.parametrize(("regions", "area", "names"), REGIONS)
def test_unions_differences_and_intersections(
    regions: dict[str, str], area: float, names: set[str]
) -> None:
    needs_gmsh()
    shapes = {"disc": DISC, "square": SQUARE, "bore": BORE}
    mesh = Geometry(0.25, shapes=shapes, regions=regions, element="P2").mesh()
    assert names <= set(mesh.boundaries)
    assert measure(mesh) == pytest.approx(area, abs=2e-4)
    named = np.unique(np.concatenate(list(mesh.facets.values())))
    np.testing.assert_array_equal(named, mesh.topology.boundary_facets())


def test_regions_meet_at_shared_facets_and_what_lies_between_is_named() -> None:
    """Heat through two layers: u is linear in each, and the flux that of resistances in series."""
    needs_gmsh()
    bar = Primitive(rectangle=((0.0, 0.0), (3.0, 1.0)), sides=("left", "right", "low", "high"))
    core = Primitive(rectangle=((1.0, -1.0), (2.0, 2.0)))
    shapes, regions = {"bar": bar, "core": core}, {"steel": "bar - core", "cork": "bar*core"}
    mesh = Geometry(0.3, shapes=shapes, regions=regions, points={"probe": (1.5, 0.4)}).mesh()
    assert measure(mesh, "cork") == pytest.approx(1)
    assert measure(mesh, "steel") == pytest.approx(2)
    assert len(mesh.facets["core"]) > 5 and "core" in mesh.boundaries
    np.testing.assert_allclose(mesh.nodes[mesh.supports["probe"]], [[[1.5, 0.4]]], atol=1e-12)
    free = sciml.Condition(neumann=0.0)
    boundary = {"low": free, "high": free, "left": sciml.Condition(dirichlet=0.0)}
    boundary["right"] = sciml.Condition(dirichlet=1.0)
    equation = sciml.Equation(K=sciml.Regions({"steel": 10.0, "cork": 0.1}))
    found = sciml.solve(sciml.Problem(None, equation, boundary), on=mesh)
    x = mesh.nodes[:, 0]
    exact = np.interp(x, [0, 1, 2, 3], np.array([0, 0.1, 10.1, 10.2]) / 10.2)
    np.testing.assert_allclose(found.value, exact, atol=1e-7)


def test_arcs_polygons_and_bodies_in_space_have_their_measure_and_their_sides() -> None:
    needs_gmsh()
    slot = Primitive(polygon=((0, 0), (2, 0), Arc((2, 1), through=(2.5, 0.5)), (0, 1)))
    mesh = Geometry(0.2, shapes={"slot": slot}, element="P2").mesh()
    assert measure(mesh) == pytest.approx(2 + math.pi / 8, abs=1e-4)
    assert set(mesh.boundaries) == {"slot", *(f"slot_{k}" for k in (1, 2, 3, 4))}
    middle = mesh.points[mesh.topology.facets[:, mesh.facets["slot_2"]]].mean(axis=(0, 1))
    assert middle[0] > 2
    sector = Primitive(polygon=((0, 0), (1, 0), Arc((0, 1), centre=(0, 0))))
    quarter = Geometry(0.2, shapes={"sector": sector}, element="P2").mesh()
    assert measure(quarter) == pytest.approx(math.pi / 4, abs=1e-5)
    shapes = {
        "block": Primitive(box=((0, 0, 0), (1, 1, 1))),
        "bore": Primitive(cylinder=Cylinder((0.5, 0.5, 0), (0.5, 0.5, 1), 0.2)),
        "corner": Primitive(sphere=(0, 0, 0, 0.4)),
    }
    solid = Geometry(0.4, shapes=shapes, regions={"a": "block - bore - corner"}, element="P2")
    exact = 1 - math.pi * 0.04 - math.pi * 0.4**3 / 6
    assert measure(solid.mesh()) == pytest.approx(exact, rel=2e-3)
    assert {"bore_wall", "corner", "block_top"} <= set(solid.mesh().boundaries)


def test_a_part_has_elements_of_its_own_size() -> None:
    needs_gmsh()
    fine = Primitive(circle=(0.5, 0.0, 0.1), size=0.02)
    mesh = Geometry(0.4, shapes={"disc": DISC, "fine": fine}, regions={"a": "disc"}).mesh()
    size = np.linalg.norm(np.diff(mesh.points[mesh.topology.facets], axis=0)[0], axis=1)
    near = np.linalg.norm(mesh.points[mesh.topology.facets].mean(0) - [0.5, 0], axis=1) < 0.1
    assert np.median(size[near]) == pytest.approx(0.02, rel=0.3)
    assert size.max() > 0.2 and set(mesh.boundaries) == {"disc"}


def test_kirsch_from_a_geometry(tmp_path: Path) -> None:
    """Stress beside a hole in the infinite plate: 3 (Kirsch 1898), without any mesh file."""
    needs_gmsh()
    spec = yaml.safe_load((CONFIGS / "reference" / "kirsch.yaml").read_text())
    del spec["mesh"]
    spec["geometry"] = {
        "shapes": {
            "plate": {"rectangle": [[0, 0], [5, 5]], "sides": ["x0", "right", "y0", "top"]},
            "hole": {"circle": [0, 0, 1], "size": 0.08},
        },
        "regions": {"quarter": "plate - hole"},
        "size": 0.8,
    }
    boundary = spec["problem"]["boundary"]
    boundary["right"] = boundary["top"] = boundary.pop("outer")
    path = tmp_path / "kirsch.yaml"
    path.write_text(yaml.safe_dump(spec))
    result = answer(sciml.load_spec(path), Setting())
    assert result.measured is not None
    peak = float(result.measured.quantities["peak"].value)
    assert peak == pytest.approx(3, rel=3e-3)


def test_the_mesh_of_a_geometry_is_written_beside_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_gmsh()
    monkeypatch.setattr("sciml.app.run.draw_figures", lambda *args: ({}, []))
    path = tmp_path / "disc.yaml"
    path.write_text(
        "problem: {equation: {kind: poisson, f: 1}, boundary: {disc: {dirichlet: 0}}}\n"
        "geometry: {shapes: {disc: {circle: [0, 0, 1]}}, size: 0.5, element: P2}\n"
    )
    result = answer(sciml.load_spec(path), Setting())
    assert tmp_path / "run" / "mesh.msh" in write_run(result, tmp_path / "run")
    again = sciml.read_mesh(tmp_path / "run" / "mesh.msh", "P2")
    assert isinstance(result.solution.on, Mesh)
    np.testing.assert_array_equal(again.nodes, result.solution.on.nodes)
    assert float(result.solution.value.max()) == pytest.approx(0.25, rel=0.01)


SPEC = "problem: {equation: {kind: poisson}, boundary: {a: {dirichlet: 0}}}\ngeometry:\n  size: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shapes: {a: {circle: [0, 0, 1]}, b: {circle: [1, 0, 1]}}", r"regions: \{plate: a - b\}"),
        ("shapes: {a: {circle: [0, 0, 1]}}\n  regions: {r: a - c}", "no shape 'c'"),
        ("shapes: {a: {circle: [0, 0, 1]}}\n  regions: {r: a/a}", "by . .union., - "),
        ("shapes: {a: {circle: [0, 0, 1]}}\n  regions: {r: 'a -'}", "is no region"),
        ("shapes: {a: {circle: [0, 0, -1]}}", r"shapes.a.circle: radii must be positive"),
        ("shapes: {a: {circle: [0, 0, 1], sphere: [0, 0, 0, 1]}}", "exactly one of"),
        ("shapes: {a: {polygon: [[0, 0], [1, 1], [1, 0], [0, 1]]}}", "sides 1 and 3 cross"),
        ("shapes: {a: {polygon: [[0, 0], [1, 0], [1, 0], [0, 1]]}}", "lies on the one before"),
        ("shapes: {a: {polygon: [[0, 0], [1, 0], {to: [0, 2], centre: [0, 0]}]}}", "equally far"),
        ("shapes: {a: {circle: [0, 0, 1]}, b: {sphere: [0, 0, 0, 1]}}", "one is plane"),
        ("shapes: {a: {circle: [0, 0, 1]}}\n  lower: [0, 0]", "beside shapes: leave it out"),
        ("regions: {a: b}\n  lower: [0, 0]\n  upper: [1, 1]", "give shapes: too"),
        ("shapes: {a: {rectangle: [[0, 0], [1, 1]], sides: [b]}}", "has 4 sides; sides: names 1"),
        ("shapes: {a: {circel: [0, 0, 1]}}", "did you mean 'circle'"),
    ],
)
def test_faults_of_geometries_are_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_spec(parse_yaml(f"{SPEC}  {text}\n", "spec.yaml"))
    assert "\n" not in str(caught.value) and "spec.yaml:" in str(caught.value)


def test_what_gmsh_finds_is_one_line_too() -> None:
    needs_gmsh()
    far = Primitive(circle=(9.0, 0.0, 1.0))
    with pytest.raises(InputError, match="region 'r' is empty"):
        Geometry(0.5, shapes={"a": DISC, "b": far}, regions={"r": "a*b"}).mesh()
    with pytest.raises(InputError, match="outside the domain"):
        Geometry(0.5, shapes={"a": DISC}, points={"p": (5.0, 0.0)}).mesh()


def test_without_gmsh_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gmsh", None)
    with pytest.raises(InputError, match=r"pip install 'sciml-pde\[gmsh\]'"):
        Geometry(0.5, shapes={"a": DISC}).mesh()
