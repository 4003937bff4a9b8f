"""Curved elements, quadrilaterals and hexahedra: their orders, what they contain, their files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import meshio
import numpy as np
import pytest
import skfem
import torch

import sciml
from sciml.app.figures import triangles
from sciml.app.surface import surface
from sciml.core.errors import InputError
from sciml.core.problem.cells import FACETS
from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.geometry import Geometry
from sciml.core.problem.grid import SIDES, Box
from sciml.core.problem.mesh import Mesh, mesh_of, refined, sample, vtk_order
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import Condition, Problem, Robin
from sciml.core.problem.quadrature import on_facets, relative_error, slopes, whole
from sciml.core.problem.reader import Normal
from sciml.core.run.quantities import Quantity
from sciml.core.run.solution import load_solution
from sciml.core.run.status import Doubt
from sciml.discretization.elements.data import evaluate, mesh_data
from sciml.discretization.elements.elasticity import nodal_stress, strain_energy
from sciml.discretization.elements.functionals import measures_of_solid, measures_on_mesh


def observed(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


def disk(n: int, element: str = "P2", curved: bool = True) -> Mesh:
    """The unit disk, the middles of its outer edges on the circle."""
    made = skfem.MeshTri.init_circle(n)
    mesh = Mesh(made.p.T.copy(), made.t.T.copy(), element=element)  # type: ignore[arg-type]
    middles, outer = mesh.points[mesh.parents[0]].mean(axis=1), made.boundary_facets()
    middles[outer] /= np.linalg.norm(middles[outer], axis=1, keepdims=True)
    return replace(mesh, middles=middles) if curved else mesh


def blocks(n: int, d: int, element: str = "P1", bent: float = 0.0) -> Mesh:
    """The unit square or cube in n^d quadrilaterals or hexahedra, of which none is a cube.

    ``bent``: how far sides that were straight are moved inside, by a smooth map.
    """
    tick = np.linspace(0, 1, n + 1)
    points = np.stack([g.ravel() for g in np.meshgrid(*[tick] * d, indexing="ij")], axis=1)
    number = np.arange(len(points)).reshape([n + 1] * d)
    ends = [(0, 0), (1, 0), (1, 1), (0, 1)]
    corners = ends if d == 2 else [(*e, k) for k in (0, 1) for e in ends]
    cells = np.stack(
        [number[tuple(slice(c, n + c) for c in corner)].ravel() for corner in corners], axis=1
    )
    mesh = Mesh(points, cells)
    facets = mesh.topology.facets[:, mesh.topology.boundary_facets()].T
    sides = {
        name: facets[(points[facets][:, :, axis] == end).all(axis=1)]
        for axis, names in enumerate(SIDES[:d])
        for end, name in enumerate(names)
    }

    def moved(x: np.ndarray) -> np.ndarray:
        wave = np.prod(np.sin(math.pi * x), axis=1, keepdims=True)
        return x + wave * (0.1 * (1 - bent) + bent * np.sin(5 * x[:, ::-1]))

    straight = Mesh(moved(points), cells, {}, sides, element)  # type: ignore[arg-type]
    if not bent:
        return straight
    return replace(straight, middles=moved(mesh.places(2)[len(points) :]))


CURVED = "sin(2*x)*exp(y)*(1 - x**2 - y**2)"
CURVED_SOURCE = "(sin(2*x)*(7 - 3*x**2 - 3*y**2 + 4*y) + 8*x*cos(2*x))*exp(y)"


def curved_truth(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sin(2 * x) * torch.exp(y) * (1 - x**2 - y**2)


def test_p2_on_a_disk_is_of_third_order() -> None:
    problem = Problem(
        None, Equation(f=CURVED_SOURCE), {"boundary": Condition(dirichlet=0.0)}, exact=CURVED
    )
    errors: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for curved in (True, False):
        for n in (2, 3, 4):
            mesh = disk(n, curved=curved)
            solution = sciml.solve(problem, on=mesh)
            assert solution.converged
            assert any("round" in note for note in solution.notes) is not curved
            errors[curved].append(
                tuple(
                    float(relative_error(mesh, solution.value, curved_truth, slope=slope))
                    for slope in (False, True)
                )
            )
    in_l2, in_h1 = ([e[k] for e in errors[True]] for k in (0, 1))
    assert observed(in_l2) == pytest.approx(3.0, abs=0.1)
    assert observed(in_h1) == pytest.approx(2.0, abs=0.1)
    # Straight elements lose an order, and P2 is no better there than P1.
    assert observed([e[0] for e in errors[False]]) == pytest.approx(2.0, abs=0.1)


def test_area_rim_and_normals_of_a_curved_disk() -> None:
    for n, tolerance in ((3, 1e-5), (4, 1e-6)):
        mesh = disk(n)
        facets = on_facets(mesh, mesh.facets["boundary"], 6)
        assert float(whole(mesh, 4).measure.sum()) == pytest.approx(math.pi, abs=tolerance)
        assert float(facets.measure.sum()) == pytest.approx(2 * math.pi, abs=2 * tolerance)
        # Gauss: the integral of x n_x + y n_y over the rim is twice the area, to rounding.
        x, y = facets.points
        flux = (x * facets.normal["nx"] + y * facets.normal["ny"]) * facets.measure
        assert float(flux.sum()) == pytest.approx(2 * float(whole(mesh, 4).measure.sum()))


def test_a_flux_through_a_curved_rim_balances_the_source() -> None:
    mesh = disk(3)
    problem = Problem(None, Equation(f=1.0), {"boundary": Condition(dirichlet=0.0)})
    value = sciml.solve(problem, on=mesh).value
    flux = measures_on_mesh(problem, mesh)(Quantity(flux="u", on="boundary"), "q")(value, None)
    assert float(flux.value) == pytest.approx(float(whole(mesh, 4).measure.sum()), rel=1e-10)


def test_middles_that_lie_midway_leave_a_mesh_straight() -> None:
    straight = disk(2, curved=False)
    again = replace(straight, middles=straight.nodes[len(straight.points) :])
    assert again.middles is None and again.affine
    assert not disk(2).affine and replace(disk(2), element="P1").affine


def test_a_curved_element_that_folds_is_refused_with_its_place() -> None:
    mesh = disk(2)
    middles = mesh.middles.copy()
    inner = np.setdiff1d(np.arange(len(middles)), mesh.topology.boundary_facets())[0]
    middles[inner] += 0.9
    with pytest.raises(InputError, match=r"element \d+ at x = .* is folded: its curved sides"):
        replace(mesh, middles=middles)
    with pytest.raises(InputError, match="do not agree on their side"):
        places = mesh.nodes[mesh.cell_nodes[:, 3:]].copy()
        places[0] += 0.01
        mesh.curved(places)
    square = np.array([[0.0, 0], [1, 0], [0.2, 0.2], [0, 1]])
    with pytest.raises(InputError, match=r"element 0 at x = .* it is not convex"):
        Mesh(square, [[0, 1, 2, 3]])


def test_refining_keeps_the_curve_and_sampling_finds_it() -> None:
    mesh = disk(2)
    finer = refined(mesh)
    assert finer.middles is not None and len(finer.cells) == 4 * len(mesh.cells)
    areas = [float(whole(m, 4).measure.sum()) for m in (mesh, finer)]
    assert areas[1] == pytest.approx(areas[0], rel=1e-12)
    angle = torch.linspace(0.1, 6.0, 7, dtype=torch.float64)
    for radius in (0.3, 0.999, 1.0):
        points = radius * torch.stack([torch.cos(angle), torch.sin(angle)], 1)
        x = torch.from_numpy(mesh.nodes)
        found = sample(mesh, torch.stack([x[:, 0], x[:, 1]]), points)
        assert torch.allclose(found.T, points, atol=1e-3 if radius == 1.0 else 1e-8)
    with pytest.raises(InputError, match="outside the mesh"):
        sample(mesh, torch.zeros(mesh.shape), torch.tensor([[1.05, 0.0]]))


def test_gmsh_files_of_second_order_keep_their_curves(tmp_path: Path) -> None:
    mesh = disk(2)
    points = np.pad(mesh.nodes, ((0, 0), (0, 1)))
    rim = mesh.facet_nodes(mesh.facets["boundary"])
    cells = [("triangle6", mesh.cell_nodes), ("line3", rim)]
    tags = [np.full(len(c), 1, dtype=np.int32) for _, c in cells]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    for name, version in (("m.msh", "gmsh22"), ("m.vtu", "vtu")):
        meshio.write(
            tmp_path / name, meshio.Mesh(points, cells, cell_data=data), file_format=version
        )
        found = read_mesh(tmp_path / name)
        assert found.element == "P2" and found.middles is not None
        np.testing.assert_allclose(np.sort(found.nodes, 0), np.sort(mesh.nodes, 0), atol=1e-14)
        assert float(whole(found, 4).measure.sum()) == pytest.approx(math.pi, abs=1e-3)
        assert read_mesh(tmp_path / name, "P1").affine


def test_a_geometry_in_second_order_is_round() -> None:
    pytest.importorskip("gmsh", exc_type=ImportError)
    for shape, centre, measure in (
        ("disk", (1.0, 1.0), math.pi),
        ("ball", (0.0, 0.0, 0.0), 4 / 3 * math.pi),
    ):
        made = Geometry(0.4, shape, centre=centre, radius=1.0, element="P2").mesh()
        assert float(whole(made, 4).measure.sum()) == pytest.approx(measure, rel=1e-3)


# Quadrilaterals and hexahedra.


def smooth(*x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.sin(a + 0.3) for a in x]).prod(0)


SMOOTH = {2: "sin(x + 0.3)*sin(y + 0.3)", 3: "sin(x + 0.3)*sin(y + 0.3)*sin(z + 0.3)"}


@pytest.mark.parametrize(
    ("d", "element", "bent", "sizes"),
    [
        (2, "Q1", 0.0, (8, 16)),
        (2, "Q2", 0.0, (8, 16)),
        (2, "Q2", 0.02, (8, 16)),
        (3, "Q1", 0.0, (4, 8)),
        (3, "Q2", 0.0, (3, 6)),
        (3, "Q2", 0.02, (3, 6)),
    ],
)
def test_orders_on_blocks(d: int, element: str, bent: float, sizes: tuple[int, int]) -> None:
    others = "*".join(f"sin({a} + 0.3)" for a in "yz"[: d - 1])
    equation = Equation(K="1 + x", f=f"({d}*(1 + x))*{SMOOTH[d]} - cos(x + 0.3)*{others}")
    errors: list[tuple[float, ...]] = []
    for n in sizes:
        mesh = blocks(n, d, element, bent)
        boundary = dict.fromkeys(mesh.boundaries, Condition(dirichlet=SMOOTH[d]))
        boundary["left"] = Condition(neumann=f"-cos(0.3)*{others}")
        value = sciml.solve(Problem(None, equation, boundary), on=mesh).value
        errors.append(
            tuple(float(relative_error(mesh, value, smooth, slope=s)) for s in (False, True))
        )
    p = int(element[1])
    assert observed([e[0] for e in errors]) == pytest.approx(p + 1, abs=0.25)
    assert observed([e[1] for e in errors]) == pytest.approx(p, abs=0.25)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("element", ["Q1", "Q2"])
def test_constant_stress_is_exact_on_blocks(d: int, element: str) -> None:
    mesh = blocks(3, d, element)
    stretch = ("0.01*x + 0.002*y", "-0.003*y", "0.001*z")[:d]
    problem = Problem(
        None,
        Elasticity(2.0, 0.3),
        dict.fromkeys(mesh.boundaries, Condition(dirichlet=stretch)),
    )
    solution = sciml.solve(problem, on=mesh)
    E, nu = 2.0, 0.3
    lam, mu = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
    trace = 0.01 - 0.003 + (0.001 if d == 3 else 0.0)
    wanted = torch.full((), lam * trace + 2 * mu * 0.01, dtype=torch.float64)
    found = nodal_stress(problem, mesh, solution.value)
    assert torch.allclose(found[..., 0, 0], wanted, atol=1e-7)
    assert torch.allclose(found[..., 0, 1], wanted * 0 + mu * 0.002, atol=1e-7)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("element", ["Q1", "Q2"])
def test_blocks_come_back_from_files(d: int, element: str, tmp_path: Path) -> None:
    mesh = blocks(2, d, element, 0.02 if element == "Q2" else 0.0)
    boundary = dict.fromkeys(mesh.boundaries, Condition(dirichlet=SMOOTH[d]))
    solution = sciml.solve(Problem(None, Equation(f=1.0), boundary), on=mesh)
    solution.save(tmp_path / "solution.h5")
    loaded = load_solution(tmp_path / "solution.h5").on
    assert isinstance(loaded, Mesh) and loaded.element == element
    np.testing.assert_array_equal(loaded.nodes, mesh.nodes)
    again = mesh_of(mesh.nodes, mesh.cell_nodes)
    np.testing.assert_array_equal(again.nodes, mesh.nodes)
    np.testing.assert_array_equal(again.cell_nodes, mesh.cell_nodes)

    nodes = np.pad(mesh.nodes, ((0, 0), (0, 3 - d)))
    kind, facet = mesh.kind.files[mesh.degree - 1], FACETS[2 * (d - 1)].files[mesh.degree - 1]
    cells = [(kind, mesh.cell_nodes[:, vtk_order(mesh)])]
    for number in mesh.facets.values():
        cells.append((facet, mesh.facet_nodes(number)))
    tags = [np.full(len(c), k, dtype=np.int32) for k, (_, c) in enumerate(cells, start=1)]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    sides = {name: np.array([k, d - 1]) for k, name in enumerate(mesh.boundaries, start=2)}
    for version in ("gmsh22", "vtu"):
        written = tmp_path / ("m.msh" if version == "gmsh22" else "m.vtu")
        made = meshio.Mesh(nodes, cells, cell_data=data, field_data=sides)
        meshio.write(written, made, file_format=version)
        found = read_mesh(written, element)  # type: ignore[arg-type]
        volume = float(whole(mesh, 6).measure.sum())
        assert float(whole(found, 6).measure.sum()) == pytest.approx(volume, rel=1e-12)
        assert len(found.boundaries) == 2 * d
        np.testing.assert_allclose(np.sort(found.nodes, 0), np.sort(mesh.nodes, 0), atol=1e-14)
    assert set(read_mesh(tmp_path / "m.msh").boundaries) == set(mesh.boundaries)


@pytest.mark.parametrize("d", [2, 3])
def test_blocks_are_refined_sampled_and_drawn(d: int) -> None:
    mesh = blocks(2, d, "Q2", 0.02)
    finer = refined(mesh)
    assert len(finer.cells) == 2**d * len(mesh.cells) and set(finer.boundaries) == set(
        mesh.boundaries
    )
    volume = float(whole(mesh, 8).measure.sum())
    assert float(whole(finer, 8).measure.sum()) == pytest.approx(volume, rel=1e-12)
    # The normals of all sides of a closed body cancel: Gauss, for x, y and z.
    for a, axis in enumerate("xyz"[:d]):
        parts = [on_facets(finer, f, 8) for f in finer.facets.values()]
        flux = sum(float((p.points[a] * p.normal[f"n{axis}"] * p.measure).sum()) for p in parts)
        assert flux == pytest.approx(volume, rel=1e-9)
    points = torch.from_numpy(np.random.default_rng(0).uniform(0.0, 1.0, (20, d)))
    nodal = torch.from_numpy(mesh.nodes).T
    assert torch.allclose(sample(mesh, nodal, points).T, points, atol=1e-12)
    # What is drawn covers the square, or the cube's six sides.
    drawn = mesh.nodes[triangles(mesh)] if d == 2 else surface(mesh, mesh.nodes[:, 0], cut=False)[0]
    edges = np.pad(drawn[:, 1:] - drawn[:, :1], ((0, 0), (0, 0), (0, 3 - d)))
    area = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1).sum() / 2
    assert area == pytest.approx({2: 1.0, 3: 6.0}[d])


def test_elements_of_one_kind_and_their_names() -> None:
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert Mesh(square, [[0, 1, 2, 3]]).element == "Q1"
    assert Mesh(square, [[0, 3, 2, 1]], element="P2").element == "Q2"
    assert Mesh(square, [[3, 2, 1, 0]]).cells.tolist() == [[3, 0, 1, 2]]
    with pytest.raises(InputError, match="triangles have P1 and P2; got 'Q2'"):
        Mesh(square, [[0, 1, 2], [0, 2, 3]], element="Q2")
    with pytest.raises(InputError, match="overlap"):
        Mesh(np.vstack([square, [[1.5, 0.2], [1.4, 0.9]]]), [[0, 1, 2, 3], [0, 4, 5, 3]])


# Bodies of revolution.


def revolved(n: int, inner: float = 0.0) -> Mesh:
    """The ring r from ``inner`` to ``inner`` + 1, z from 0 to 1, in n x n quadrilaterals of Q2."""
    mesh = blocks(n, 2, "Q2")
    return replace(mesh, points=mesh.points + np.array([inner, 0.0]), axisymmetric=True)


def test_a_problem_about_an_axis_is_of_third_order_and_balances() -> None:
    truth = "cos(x)*cos(y)"

    def exact(r: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.cos(r) * torch.cos(z)

    errors: list[tuple[float, ...]] = []
    for n in (6, 12):
        mesh = revolved(n)
        boundary = dict.fromkeys(mesh.boundaries, Condition(dirichlet=truth))
        boundary["left"] = boundary["bottom"] = Condition(neumann=0.0)
        problem = Problem(
            None, Equation(f="(2*cos(x) + sin(x)/x)*cos(y)"), boundary, exact=truth
        )  # fmt: skip
        value = sciml.solve(problem, on=mesh).value
        errors.append(
            tuple(float(relative_error(mesh, value, exact, slope=s)) for s in (False, True))
        )
    assert observed([e[0] for e in errors]) == pytest.approx(3.0, abs=0.1)
    assert observed([e[1] for e in errors]) == pytest.approx(2.0, abs=0.1)
    # -2 pi r u_r at r = 1 over the height, and what leaves through the top.
    out = {
        side: float(
            measures_on_mesh(problem, mesh)(Quantity(flux="u", on=side), "q")(value, None).value
        )
        for side in ("right", "top")
    }
    assert out["right"] == pytest.approx(2 * math.pi * math.sin(1) ** 2, rel=1e-4)
    radial = math.cos(1) + math.sin(1) - 1
    assert out["top"] == pytest.approx(2 * math.pi * radial * math.sin(1), rel=1e-4)


def test_a_thick_cylinder_under_pressure_is_lames() -> None:
    E, nu, A, B = 1000.0, 0.3, 1 / 3, 4 / 3

    def moved(r: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.stack([(1 + nu) / E * ((1 - 2 * nu) * A * r + B / r), 0 * r])

    errors: list[tuple[float, ...]] = []
    for n in (4, 8):
        mesh = revolved(n, 1.0)
        ends = Condition(dirichlet=(None, 0.0))
        boundary = {"bottom": ends, "top": ends, "right": Condition(neumann=0.0)}
        boundary["left"] = Condition(neumann=(1.0, 0.0))
        problem = Problem(None, Elasticity(E, nu), boundary)
        value = sciml.solve(problem, on=mesh).value
        errors.append(
            tuple(float(relative_error(mesh, value, moved, slope=s)) for s in (False, True))
        )
    assert observed([e[0] for e in errors]) == pytest.approx(3.0, abs=0.1)
    assert observed([e[1] for e in errors]) == pytest.approx(2.0, abs=0.1)
    hoop = nodal_stress(problem, mesh, value)[:, 2, 2]
    assert torch.allclose(hoop, A + B / torch.from_numpy(mesh.nodes[:, 0]) ** 2, atol=0.01)
    # The pressure's work.
    work = 0.5 * 2 * math.pi * float(moved(torch.ones(1), torch.zeros(1))[0])
    assert float(strain_energy(problem, mesh, value)) == pytest.approx(work, rel=1e-4)


def test_a_body_that_reaches_its_axis() -> None:
    mesh = revolved(3)
    press = {"right": Condition(neumann=(-1.0, 0.0)), "top": Condition(neumann=(0.0, -1.0))}
    bottom = {"bottom": Condition(dirichlet=(None, 0.0)), "left": Condition(neumann=0.0)}
    problem = Problem(None, Elasticity(10.0, 0.3), {**press, **bottom})
    value = sciml.solve(problem, on=mesh).value
    minus = -torch.eye(3, dtype=torch.float64).expand(len(mesh.nodes), 3, 3)
    assert torch.allclose(nodal_stress(problem, mesh, value), minus, atol=1e-7)
    assert bool((value[0, torch.from_numpy(mesh.nodes[:, 0] == 0)] == 0).all())
    force = measures_of_solid(problem, mesh)(Quantity(force=(0.0, 1.0), on="bottom"), "q")
    assert float(force(value, None).value) == pytest.approx(math.pi)
    with pytest.raises(InputError, match=r"stop 0 of its 1 rigid motions"):
        sciml.solve(
            replace(problem, boundary={**problem.boundary, "bottom": Condition(neumann=0.0)}),
            on=mesh,
        )
    with pytest.raises(InputError, match="leave plane out"):
        sciml.solve(replace(problem, equation=Elasticity(10.0, 0.3, plane="stress")), on=mesh)
    with pytest.raises(InputError, match=r"reaches x = -0.5; keep the half"):
        replace(mesh, points=mesh.points - 0.5)
    with pytest.raises(InputError, match="this one has 3 dimensions"):
        replace(blocks(1, 3), axisymmetric=True)


# Advection that dominates.


def test_supg_keeps_the_order_where_advection_dominates() -> None:
    truth = "sin(2*x + 0.3)*sin(y + 0.5)"
    slope = "2*cos(2*x + 0.3)*sin(y + 0.5)*(1 + y) + sin(2*x + 0.3)*cos(y + 0.5)*x"
    K, minus_div = "1e-6*(1 + x)", "-2e-6*cos(2*x + 0.3)*sin(y + 0.5) + 5e-6*(1 + x)"
    equation = Equation(K=K, b=("1 + y", "x"), f=f"{slope} + {minus_div}*({truth})")

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(2 * x + 0.3) * torch.sin(y + 0.5)

    for element, p in (("Q1", 1), ("Q2", 2)):
        errors = []
        for n in (8, 16):
            mesh = blocks(n, 2, element)
            boundary = dict.fromkeys(mesh.boundaries, Condition(dirichlet=truth))
            problem = Problem(None, equation, boundary)
            solution = sciml.solve(problem, on=mesh)
            assert any("stabilised by SUPG" in note for note in solution.notes)
            assert not any(isinstance(note, Doubt) for note in solution.notes)
            errors.append(float(relative_error(mesh, solution.value, exact)))
        assert observed(errors) == pytest.approx(p + 1, abs=0.2)
        galerkin = sciml.solve(problem, on=replace(mesh, scheme="galerkin"))
        assert any(isinstance(note, Doubt) and "Peclet" in note for note in galerkin.notes)
        assert float(relative_error(mesh, galerkin.value, exact)) > 10 * errors[-1]
        # What leaves is what the weak form leaves, SUPG's part of it too: all of it balances.
        out = sum(
            float(
                measures_on_mesh(problem, mesh)(Quantity(flux="u", on=side), "q")(
                    solution.value, None
                ).value
            )
            for side in mesh.boundaries
        )
        part = whole(mesh, 2 * p)
        x, y = part.points
        carried = (slopes(part, solution.value).movedim(-3, 0) * torch.stack([1 + y, x])).sum(0)
        f = evaluate(equation.f, part, mesh_data(problem, mesh), "f")
        source = (part.measure * (f - carried)).sum()
        assert out == pytest.approx(float(source), rel=1e-6)


def test_supg_on_a_line_is_exact_at_the_nodes() -> None:
    points = np.linspace(0, 1, 11)[:, None]
    cells = np.stack([np.arange(10), np.arange(1, 11)], axis=1)
    mesh = Mesh(points, cells)
    zero = {"boundary": Condition(dirichlet=0.0)}
    value = sciml.solve(Problem(None, Equation(K=1e-3, b=(1.0,), f=1.0), zero), on=mesh).value
    x = points[:, 0]
    wanted = x - (np.exp((x - 1) / 1e-3) - math.exp(-1e3)) / (1 - math.exp(-1e3))
    np.testing.assert_allclose(value.numpy(), wanted, atol=1e-9)


def test_an_unknown_scheme_is_told() -> None:
    with pytest.raises(InputError, match="unknown scheme 'upwind'; known: galerkin, supg"):
        replace(blocks(1, 2), scheme="upwind")


# Conditions on the sides of bodies.


def test_a_disk_on_springs_under_pressure_shrinks_evenly() -> None:
    E, nu, k, p = 10.0, 0.25, 3.0, 0.5
    bulk = E / ((1 + nu) * (1 - 2 * nu))  # 2 (lambda + mu)
    mesh, body = disk(4), Elasticity(E, nu)
    problem = Problem(None, body, {"boundary": Condition(robin=Robin(k, Normal(-p)))})
    value = sciml.solve(problem, on=mesh).value
    wanted = -p / (k + bulk) * torch.from_numpy(mesh.nodes).T
    assert torch.allclose(value, wanted, atol=1e-6)
    sigma = nodal_stress(problem, mesh, value)
    assert torch.allclose(sigma[:, 0, 0], torch.tensor(-p / (k + bulk) * bulk).double(), atol=1e-4)


def test_springs_for_each_axis_carry_the_load() -> None:
    mesh = blocks(3, 2, "Q2")
    free = Condition(neumann=0.0)
    boundary = {"top": free, "bottom": free, "right": Condition(neumann=(1.0, 0.2))}
    boundary["left"] = Condition(robin=Robin((5.0, 50.0)))
    problem = Problem(None, Elasticity(100.0, 0.3), boundary)
    value = sciml.solve(problem, on=mesh).value

    def measured(quantity: Quantity) -> float:
        return float(measures_of_solid(problem, mesh)(quantity, "q")(value, None).value)

    assert measured(Quantity(force=(1.0, 0.0), on="left")) == pytest.approx(-1.0)
    assert measured(Quantity(force=(0.0, 1.0), on="left")) == pytest.approx(-0.2)
    assert measured(Quantity(mean="u", on="left")) == pytest.approx(1 / 5)
    with pytest.raises(InputError, match="stop 1 of its 3 rigid motions"):
        only = {**boundary, "left": Condition(robin=Robin((0.0, 50.0)))}
        sciml.solve(replace(problem, boundary=only), on=mesh)


def test_a_condition_on_a_part_of_a_side() -> None:
    mesh = blocks(4, 2, "Q2")
    where = "y > 0.5"
    left = mesh.boundaries["left"]
    upper = mesh.points[left][:, :, 1].mean(axis=1) > 0.5
    split = replace(mesh, boundaries={**mesh.boundaries, "hot": left[upper], "left": left[~upper]})
    free, cold = Condition(neumann=0.0), Condition(dirichlet=0.0)
    others = {"left": free, "top": free, "bottom": free, "right": cold}
    hot = Condition(dirichlet=1.0)
    named = Problem(None, Equation(), {**others, "hot": hot})
    partly = Condition(dirichlet=1.0, where=f"x < 1e-9 and {where}")
    stated = replace(named, boundary={**others, "hot": partly})
    inside = replace(named, boundary={**others, "left": replace(partly, where=where), "rest": free})
    wanted = sciml.solve(named, on=split).value
    assert torch.equal(sciml.solve(stated, on=mesh).value, wanted)
    flux = measures_on_mesh(stated, mesh)(Quantity(flux="u", on="hot"), "q")(wanted, None)
    out = measures_on_mesh(stated, mesh)(Quantity(flux="u", on="right"), "q")(wanted, None)
    assert float(flux.value) == pytest.approx(-float(out.value))
    for problem, message in (
        (inside, "the mesh has no boundary 'rest'"),
        (replace(inside, boundary={**others, "left": partly}), "on the rest of left"),
        (replace(stated, boundary={**others, "hot": replace(hot, where="x > 2")}), "no facet has"),
        (
            replace(stated, boundary={**others, "hot": replace(hot, where="x < 1e-9")}),
            "nothing is left of 'left'",
        ),
    ):
        with pytest.raises(InputError, match=message):
            sciml.solve(problem, on=mesh)
    with pytest.raises(InputError, match="where: is for the boundary of a mesh"):
        box = Box((0.0, 0.0), (1.0, 1.0))
        Problem(box, Equation(), {side: partly for side in box.sides})


@pytest.mark.parametrize("plane", ["strain", "stress", "axis"])
def test_heating_strains_a_free_body_and_stresses_a_held_one(plane: str) -> None:
    mesh = replace(blocks(2, 2, "Q2"), axisymmetric=plane == "axis")
    E, nu, hot = 7.0, 0.3, 0.01
    thin = "stress" if plane == "stress" else "strain"
    body = Elasticity(E, nu, plane=thin, thermal_strain=f"{hot} + 0*x")  # type: ignore[arg-type]
    free = {"left": Condition(dirichlet=(0.0, None)), "bottom": Condition(dirichlet=(None, 0.0))}
    free |= dict.fromkeys(("right", "top"), Condition(neumann=0.0))
    problem = Problem(None, body, free)
    value = sciml.solve(problem, on=mesh).value
    # In plane strain the axis that is held pushes out what it may not have itself.
    grown = hot * (1 + nu) if plane == "strain" else hot
    assert torch.allclose(value, grown * torch.from_numpy(mesh.nodes).T, atol=1e-9)
    sigma = nodal_stress(problem, mesh, value)
    wanted = torch.zeros(3, 3, dtype=torch.float64)
    wanted[2, 2] = -E * hot if plane == "strain" else 0.0
    assert torch.allclose(sigma, wanted.expand_as(sigma), atol=1e-8)
    energy = (E * hot**2 / 2 if plane == "strain" else 0.0) * float(whole(mesh, 4).measure.sum())
    assert float(strain_energy(problem, mesh, value)) == pytest.approx(energy, abs=1e-9)
    held = replace(problem, boundary=dict.fromkeys(free, Condition(dirichlet=0.0)))
    sigma = nodal_stress(held, mesh, sciml.solve(held, on=mesh).value)
    pressed = -E * hot / (1 - nu) if plane == "stress" else -E * hot / (1 - 2 * nu)
    assert torch.allclose(sigma[:, 0, 0], torch.tensor(pressed).double(), atol=1e-8)


def test_points_and_lines_carry_loads_and_hold() -> None:
    # A cube on its bottom's four edges: a weight along one edge of the top and one at a corner.
    mesh = blocks(2, 3, "Q2")
    x, edges = mesh.points, mesh.topology.edges.T
    along = (np.abs(x[edges][:, :, 1:] - 1.0) < 1e-12).all(axis=(1, 2))
    low = (np.abs(x[edges][:, :, 2]) < 1e-12).all(axis=1)
    foot = low & ((np.abs(x[edges][:, :, :2] - 0.0) < 1e-12).all(axis=1).any(axis=1))
    corner = np.flatnonzero((x == 1.0).all(axis=1))[:, None]
    mesh = replace(mesh, supports={"rail": edges[along], "foot": edges[foot], "tip": corner})
    finer = refined(mesh)
    assert len(finer.supports["rail"]) == 2 * len(mesh.supports["rail"])
    free = dict.fromkeys(mesh.boundaries, Condition(neumann=0.0))
    given = {
        "foot": Condition(dirichlet=(0.0, 0.0, 0.0)),
        "rail": Condition(neumann=(0.0, 0.0, "-2*x")),
        "tip": Condition(neumann=(0.0, 0.5, 0.0)),
    }
    problem = Problem(None, Elasticity(10.0, 0.3), {**free, **given})
    value = sciml.solve(problem, on=mesh).value
    prepared = measures_of_solid(problem, mesh)
    total = [
        float(prepared(Quantity(force=way, on="foot"), "q")(value, None).value)
        for way in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    assert total == pytest.approx([0.0, -0.5, 1.0], abs=1e-7)
    with pytest.raises(InputError, match=r"'rail' has an edge at .* that is no element's"):
        replace(mesh, supports={"rail": np.array([[0, len(x) - 1]])})


def test_a_named_point_is_a_well(tmp_path: Path) -> None:
    mesh = blocks(4, 2)
    nodes = np.pad(mesh.points, ((0, 0), (0, 1)))
    middle = [[int(np.argmin(np.abs(mesh.points - 0.5).sum(axis=1)))]]
    rim = mesh.topology.facets[:, mesh.topology.boundary_facets()].T
    cells = [("quad", mesh.cells), ("line", rim), ("vertex", np.array(middle))]
    tags = [np.full(len(c), k, dtype=np.int32) for k, (_, c) in enumerate(cells, start=1)]
    data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
    names = {"ground": np.array([1, 2]), "rim": np.array([2, 1]), "well": np.array([3, 0])}
    made = meshio.Mesh(nodes, cells, cell_data=data, field_data=names)
    meshio.write(tmp_path / "m.msh", made, file_format="gmsh22")
    found = read_mesh(tmp_path / "m.msh")
    assert found.supports["well"].shape == (1, 1)
    boundary = {"rim": Condition(dirichlet=0.0), "well": Condition(neumann=-3.0)}
    problem = Problem(None, Equation(), boundary)
    solution = sciml.solve(problem, on=found)
    prepared = measures_on_mesh(problem, found)
    out = prepared(Quantity(flux="u", on="rim"), "q")(solution.value, None)
    assert float(out.value) == pytest.approx(-3.0)
    solution.save(tmp_path / "s.h5")
    again = load_solution(tmp_path / "s.h5").on
    assert isinstance(again, Mesh)
    np.testing.assert_array_equal(again.supports["well"], found.supports["well"])


# Values that are not free of one another.


def test_periodic_sides_carry_a_wave_round() -> None:
    truth = "sin(2*pi*x + 1)*y*(1 - y)"

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(2 * math.pi * x + 1) * y * (1 - y)

    errors = []
    for n in (6, 12):
        mesh = blocks(n, 2, "Q2")
        round_, zero = Condition(periodic=True), Condition(dirichlet=0.0)
        boundary = {"left": round_, "right": round_, "bottom": zero, "top": zero}
        f = "4*pi**2*sin(2*pi*x + 1)*y*(1 - y) + 2*sin(2*pi*x + 1)"
        problem = Problem(None, Equation(f=f), boundary, exact=truth)
        solution = sciml.solve(problem, on=mesh)
        assert solution.converged
        errors.append(float(relative_error(mesh, solution.value, exact)))
    assert observed(errors) == pytest.approx(3.0, abs=0.15)
    at = {side: mesh.nodes[:, 0] == end for side, end in (("left", 0.0), ("right", 1.0))}
    ends = [np.sort(solution.value.numpy()[mask]) for mask in at.values()]
    np.testing.assert_array_equal(*ends)
    prepared = measures_on_mesh(problem, mesh)
    left, right, low, high = (
        float(prepared(Quantity(flux="u", on=side), "q")(solution.value, None).value)
        for side in ("left", "right", "bottom", "top")
    )
    # -u_x over the left side is 2 pi cos(1) / 6 there, outwards against x.
    assert left == pytest.approx(2 * math.pi * math.cos(1) / 6, rel=0.03)
    assert right == pytest.approx(-left, rel=0.05)
    assert left + right + low + high == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(InputError, match="no other periodic side is 'left' moved by one vector"):
        sciml.solve(replace(problem, exact=None, boundary={**boundary, "right": zero}), on=mesh)


def test_a_torus_has_a_solution_up_to_a_constant() -> None:
    mesh = blocks(8, 2, "Q2")
    boundary = dict.fromkeys(mesh.boundaries, Condition(periodic=True))
    problem = Problem(None, Equation(f="8*pi**2*cos(2*pi*x)*cos(2*pi*y)"), boundary)
    solution = sciml.solve(problem, on=mesh)
    assert solution.converged

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * math.pi * x) * torch.cos(2 * math.pi * y)

    assert float(relative_error(mesh, solution.value, exact)) < 0.01
    part = whole(mesh, 4)
    assert float((part.measure * part.at_points(solution.value)).sum()) == pytest.approx(
        0, abs=1e-8
    )


def test_a_periodic_body_shears_evenly() -> None:
    mesh = blocks(3, 2, "Q2")
    boundary = dict.fromkeys(("left", "right"), Condition(periodic=True))
    boundary |= {"bottom": Condition(dirichlet=0.0), "top": Condition(neumann=(0.6, 0.0))}
    problem = Problem(None, Elasticity(3.0, 0.25), boundary)
    value = sciml.solve(problem, on=mesh).value
    shear = 3.0 / 2.5
    assert torch.allclose(value[0], 0.6 / shear * torch.from_numpy(mesh.nodes[:, 1]), atol=1e-8)
    assert torch.allclose(value[1], torch.zeros(()).double(), atol=1e-8)
    with pytest.raises(InputError, match="stop 1 of its 2 rigid motions"):
        sciml.solve(
            replace(problem, boundary={**boundary, "bottom": Condition(dirichlet=(None, 0.0))}),
            on=mesh,
        )


@pytest.mark.parametrize("d", [2, 3])
def test_a_block_between_inclined_walls_slides(d: int) -> None:
    # Pressed between smooth walls at right angles, turned as a whole.
    E, nu, p = 5.0, 0.3, 0.1
    square = blocks(2, d, "Q2")
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(d, d)))[0]
    turn *= np.sign(np.linalg.det(turn))
    mesh = replace(square, points=square.points @ turn.T)
    walls = ("left", "bottom", "back")[:d]
    free = dict.fromkeys(mesh.boundaries, Condition(neumann=0.0))
    boundary = free | dict.fromkeys(walls, Condition(dirichlet=Normal(0.0)))
    boundary["left"] = Condition(dirichlet=Normal("0.02 + 0*x"))
    boundary["right"] = Condition(neumann=Normal(-p))
    problem = Problem(None, Elasticity(E, nu), boundary)
    solution = sciml.solve(problem, on=mesh)
    rates = (-(1 - nu**2) / E, nu * (1 + nu) / E) if d == 2 else (-1 / E, nu / E, nu / E)
    local = torch.from_numpy(square.nodes) * p * torch.tensor(rates, dtype=torch.float64)
    local[:, 0] -= 0.02
    wanted = torch.from_numpy(turn) @ local.T
    assert torch.allclose(solution.value, wanted, atol=1e-7)
    prepared = measures_of_solid(problem, mesh)
    way = tuple(map(float, turn[:, 0]))
    push = prepared(Quantity(force=way, on="left"), "q")(solution.value, None)
    assert float(push.value) == pytest.approx(p, rel=1e-6)


def test_only_vectors_slide_along_walls() -> None:
    mesh = blocks(1, 2, "Q2")
    boundary = dict.fromkeys(mesh.boundaries, Condition(dirichlet=Normal(0.0)))
    for equation in (Equation(), Equation(c="u**2")):
        with pytest.raises(InputError, match="for the sides of a body or a flow"):
            sciml.solve(Problem(None, equation, boundary), on=mesh)


# Several kinds in one file.

CUBE = [(x, y, z) for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
PLANE = [(0, 0, 0), (1, 0, 0), (1.2, 1, 0), (0, 1, 0), (2, 0.1, 0), (2, 1, 0)]
MIXED = {
    # A hexahedron with a prism at its right, a pyramid above it and a tetrahedron at that.
    "space": (
        [*CUBE, (2, 0, 0), (2, 0, 1), (0.5, 0.5, 1.5), (0.5, -0.5, 1.5)],
        [
            ("hexahedron", [list(range(8))]),
            ("wedge", [[1, 8, 2, 5, 9, 6]]),
            ("pyramid", [[4, 5, 6, 7, 10]]),
            ("tetra", [[4, 5, 10, 11]]),
        ],
        1 + 0.5 + 0.5 / 3 + 0.5 / 6,
        20,
    ),
    "plane": (
        PLANE,
        [("quad", [[0, 1, 2, 3]]), ("triangle", [[1, 4, 2], [4, 5, 2]])],
        2.0 - 0.05,
        6,
    ),
}


@pytest.mark.parametrize("turn", range(4))
@pytest.mark.parametrize("name", MIXED)
def test_several_kinds_of_elements_become_simplices_that_fit(
    name: str, turn: int, tmp_path: Path
) -> None:
    """In any numbering: the volume, no facet inside, and a linear function exact."""
    points, blocks, volume, facets = MIXED[name]
    order = np.random.default_rng(turn).permutation(len(points))
    place = np.argsort(order)
    cells = [(kind, place[np.array(rows)]) for kind, rows in blocks]
    meshio.write(tmp_path / "m.vtu", meshio.Mesh(np.array(points, float)[order], cells))
    mesh = read_mesh(tmp_path / "m.vtu", "P2")
    assert mesh.kind.simplex and any("all became" in note for note in mesh.notes)
    assert float(whole(mesh, 2).measure.sum()) == pytest.approx(volume)
    outward = on_facets(mesh, mesh.topology.boundary_facets(), 2)
    assert len(outward.nodes) == facets
    # Of a closed surface the normals sum to zero and x . n to d times the volume.
    for n in outward.normal.values():
        assert float((n * outward.measure).sum()) == pytest.approx(0, abs=1e-12)
    flux = sum(x * n for x, n in zip(outward.points, outward.normal.values(), strict=True))
    assert float((flux * outward.measure).sum()) == pytest.approx(mesh.dimension * volume)
    linear = "1 + x - 2*y"
    problem = Problem(None, Equation(), {"boundary": Condition(dirichlet=linear)})
    found = sciml.solve(problem, on=refined(mesh))
    x, y = found.on.nodes[:, 0], found.on.nodes[:, 1]  # type: ignore[union-attr]
    np.testing.assert_allclose(found.value, 1 + x - 2 * y, atol=1e-9)
    assert any("all became" in note for note in found.notes)


@pytest.mark.parametrize("kind", ["triangle6", "quad9", "tetra10"])
def test_curved_elements_of_a_file_may_be_numbered_either_way(kind: str, tmp_path: Path) -> None:
    """Their middles go with the corners that they stand between."""
    rows = {
        "triangle6": ([(0, 0), (1, 0), (0, 1)], ((0, 1), (1, 2), (0, 2)), (0, 2, 1)),
        "quad9": (
            [(0, 0), (1, 0), (1, 1), (0, 1)],
            ((0, 1), (1, 2), (2, 3), (0, 3), (0, 1, 2, 3)),
            (0, 3, 2, 1),
        ),
        "tetra10": (
            [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)],
            ((0, 1), (1, 2), (0, 2), (0, 3), (1, 3), (2, 3)),
            (0, 2, 1, 3),
        ),
    }
    corners, middles, order = rows[kind]
    corner = np.array(corners, float)
    bend = [0.1 * np.sin(1 + np.arange(corner.shape[1]) + k) for k in range(len(middles))]
    points = [*corner, *(corner[list(m)].mean(0) + b for m, b in zip(middles, bend, strict=True))]
    sets = [frozenset(m) for m in middles]
    turned = [*order, *(len(corner) + sets.index(frozenset(order[c] for c in m)) for m in middles)]
    flat = np.zeros((len(points), 3))
    flat[:, : corner.shape[1]] = points
    found = []
    for name, row in (("a", list(range(len(points)))), ("b", turned)):
        meshio.write(tmp_path / f"{name}.vtu", meshio.Mesh(flat, [(kind, [row])]))
        found.append(whole(read_mesh(tmp_path / f"{name}.vtu", "P2"), 6))
    assert float(found[0].measure.sum()) == pytest.approx(float(found[1].measure.sum()))
    for axis in range(corner.shape[1]):
        moments = [float((part.measure * part.points[axis]).sum()) for part in found]
        assert moments[0] == pytest.approx(moments[1])
