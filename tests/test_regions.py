"""Regions by their points: measures, the divergence theorem, answers of trained functions there."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import sciml
from sciml.core.errors import InputError
from sciml.core.problem.body import Body
from sciml.core.problem.equation import Equation
from sciml.core.problem.geometry import Arc, Cylinder, Geometry, Primitive
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.core.run.quantities import Quantity
from sciml.discretization.points.pointwise import Pointwise
from sciml.discretization.points.region import Meshed, Region, Shaped, region_of
from sciml.solvers.solve import solve
from sciml.solvers.trained import PINN, AdversarialSampling, GaussNewton, RandomFeatures
from sciml.solvers.trained.adversarial import DensityTraining

HARMONIC = "x**3 - 3*x*y**2 + 2*x*y"
FLUX = "(3*x**2 - 3*y**2 + 2*y)*nx + (-6*x*y + 2*x)*ny"
RING = Body(
    {"outer": Primitive(circle=(0, 0, 1)), "inner": Primitive(circle=(0.1, 0, 0.4))},
    "outer - inner",
)
ZERO = Condition(dirichlet=0.0)
WALL = Condition(dirichlet=HARMONIC)
FEATURES = RandomFeatures(count=200, bandwidths=(2.0,))


def cube(count: int, dimension: int) -> Tensor:
    engine = torch.quasirandom.SobolEngine(dimension, scramble=True, seed=5)
    return engine.draw(count, dtype=torch.float64)


def shaped(shapes: dict[str, Primitive], region: str | None = None) -> Region:
    body = Body(shapes, region)
    return region_of(Pointwise(Problem(body, Equation(), dict.fromkeys(shapes, ZERO)), ()))


def meshed(mesh: Mesh) -> Region:
    problem = Problem(None, Equation(), dict.fromkeys(mesh.boundaries, ZERO))
    return region_of(Pointwise(problem, ()), mesh)


@cache
def curved() -> Mesh:
    """An ellipse, whose shapes are forgotten."""
    shapes = {"rim": Primitive(ellipse=(0, 0, 1.5, 1))}
    return replace(Geometry(0.4, shapes=shapes, element="P2").mesh(), geometry=None)


def bricks() -> Mesh:
    """Two hexahedra whose sides are not at right angles."""
    x = np.array([(i + 0.3 * j * k, j - 0.2 * k * i, k + 0.1 * i) for i in range(3)
                  for j in range(2) for k in range(2)], dtype=float)  # fmt: skip
    row = np.array([0, 4, 6, 2, 1, 5, 7, 3])
    return Mesh(x, np.stack([row, row + 4]))


SPHERES = {"o": Primitive(ball=(0,) * 5 + (1,)), "i": Primitive(ball=(0,) * 5 + (0.5,))}
SQUARE = Primitive(rectangle=((-1, -1), (1, 1)))
QUARTER = Primitive(polygon=((0, 0), (1, 0), Arc((0, 1), centre=(0, 0))))
ROD = Primitive(cylinder=Cylinder((0, 0, 0), (1, 1, 1), 0.3))
CASES = {
    "ring": (shaped(dict(RING.shapes), RING.region), 0.84 * math.pi, 2.8 * math.pi),
    "L": (shaped({"a": SQUARE, "b": Primitive(rectangle=((0, 0), (1, 1)))}, "a - b"), 3, 8),
    "union": (
        shaped({"a": SQUARE, "b": Primitive(circle=(1, 1, 0.5))}, "a + b"),
        4 + 0.1875 * math.pi, 7 + 0.75 * math.pi,
    ),
    "lens": (
        shaped({"a": Primitive(circle=(0, 0, 1)), "b": Primitive(circle=(1, 0, 1))}, "a * b"),
        2 * math.pi / 3 - 3**0.5 / 2, 4 * math.pi / 3,
    ),
    "sector": (shaped({"a": QUARTER}), math.pi / 4, 2 + math.pi / 2),
    "shell in 5-D": (
        shaped(SPHERES, "o - i"), 8 * math.pi**2 / 15 * (1 - 1 / 32),
        8 * math.pi**2 / 3 * (1 + 1 / 16),
    ),
    "rod": (
        shaped({"a": ROD, "s": Primitive(sphere=(0.5, 0.5, 0.5, 0.1))}, "a - s"),
        math.pi * (0.09 * 3**0.5 - 0.004 / 3), math.pi * (0.6 * 3**0.5 + 0.18 + 0.04),
    ),
    "ball in 10-D": (
        shaped({"b": Primitive(ball=(0,) * 10 + (1,))}), math.pi**5 / 120, math.pi**5 / 12
    ),
    "curved mesh": (meshed(curved()), 1.5 * math.pi, 7.932719795),
    "mesh of bricks": (meshed(bricks()), None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_measures_and_the_divergence_theorem(name: str) -> None:
    region, volume, area = CASES[name]
    mesh = name.endswith("mesh")  # of polynomials, that meet the ellipse at their nodes
    rules = [side.rule() for side in region.sides.values()]
    if volume is None:  # of which nothing but this is known
        volume = sum(float(w @ (at * n).sum(1)) for at, n, w in rules) / region.box.dimension
    assert region.volume == pytest.approx(volume, rel=2e-3 if mesh else 1e-8)
    measure = sum(side.measure for side in region.sides.values())
    if area is not None:
        assert measure == pytest.approx(area, rel=2e-3 if mesh else 1e-8)
    d = region.box.dimension
    x = region.inside(cube(2**12, d))
    assert x.shape == (2**12, d) and bool(region.contains(x).all())

    # div F for F_i = x_i^2 + sum x, twice over: points inside, and points drawn on the sides.
    inside = region.volume * float((2 * x.sum(1) + d).mean())
    through = drawn = 0.0
    for side in region.sides.values():
        at, n, w = side.rule()
        there = side.place(cube(2**12, side.free))
        assert bool(region.contains(there).all()) and bool(region.contains(at).all())
        through += float(w @ ((at.square() + at.sum(1, keepdim=True)) * n).sum(1))
        flux = (there.square() + there.sum(1, keepdim=True)) * side.normal(there)
        drawn += side.measure * float(flux.sum(1).mean())
    scale = region.volume * float((2 * x.sum(1) + d).abs().mean())
    assert abs(inside - through) < 0.01 * scale
    assert abs(drawn - through) < 0.01 * scale


def test_what_is_clipped_in_space_is_counted() -> None:
    block, ball = Primitive(block=((0,) * 4, (1,) * 4)), Primitive(ball=(0,) * 4 + (0.5,))
    region = shaped({"block": block, "ball": ball}, "block - ball")
    assert region.volume == pytest.approx(1 - math.pi**2 / 512, rel=1e-3)
    assert region.sides["ball"].measure == pytest.approx(math.pi**2 / 64, rel=1e-2)


def harmonic(domain: Body | None, inner: str, outer: str) -> Problem:
    sides = {outer: WALL, inner: Condition(neumann=FLUX)}
    return Problem(domain, Equation(), sides, exact=HARMONIC)


def test_a_harmonic_polynomial_is_found_in_a_ring() -> None:
    solution = solve(harmonic(RING, "inner", "outer"), FEATURES, on=Points(500))
    points = torch.stack(solution.on.coordinates(), -1)  # type: ignore[union-attr]
    x, y = points.T
    assert bool(torch.isfinite(solution.value).all())
    assert solution.value.sub(x**3 - 3 * x * y**2 + 2 * x * y).abs().max() < 1e-9
    # Where it is no longer the domain it has no value.
    beside = torch.tensor([[0.1, 0.0], [0.9, 0.9], [0.7, 0.0]], dtype=torch.float64)
    assert solution.function(beside).isnan()[:, 0].tolist() == [True, True, False]  # type: ignore[misc]


def test_and_by_gauss_newton_with_points_of_an_adversary() -> None:
    flow = DensityTraining(layers=2, steps=2, rounds=1, candidates=200, batch=50)
    sampler = AdversarialSampling(every=10, flow=flow)
    solver = PINN(
        width=12, depth=1, points=200, sampler=sampler, optimiser=GaussNewton(25), rtol=1e-7
    )
    solution = solve(harmonic(RING, "inner", "outer"), solver, on=Points(500), throw=False)
    x, y = solution.on.coordinates()  # type: ignore[union-attr]
    assert solution.value.sub(x**3 - 3 * x * y**2 + 2 * x * y).abs().max() < 2e-2


@pytest.mark.parametrize("kind", ["shapes", "mesh"])
def test_an_l_and_what_its_elements_answer(kind: str) -> None:
    shapes = {"a": SQUARE, "b": Primitive(rectangle=((0, 0), (1, 1)))}
    mesh = Geometry(0.25, shapes=shapes, regions={"l": "a - b"}).mesh()
    mesh = mesh if kind == "shapes" else replace(mesh, geometry=None)
    problem = harmonic(None, "b", "a")
    trained, elements = solve(problem, FEATURES, on=mesh), solve(problem, on=mesh)
    assert isinstance(trained.trained.form.region, Shaped if kind == "shapes" else Meshed)
    exact = eval_harmonic
    assert float(trained.error(exact)) < 1e-9 < float(elements.error(exact)) < 2e-2
    gap = (trained.value - elements.value).norm() / elements.value.norm()
    assert float(gap) < float(elements.error(exact))


def eval_harmonic(x: Tensor, y: Tensor) -> Tensor:
    return x**3 - 3 * x * y**2 + 2 * x * y


def test_a_robin_condition_on_an_ellipse_of_curved_elements() -> None:
    robin = Condition(robin=Robin(alpha=1.0, g=f"{FLUX} + {HARMONIC}"))
    solution = solve(Problem(None, Equation(), {"rim": robin}), FEATURES, on=curved())
    assert float(solution.error(eval_harmonic)) < 1e-9


def test_a_shell_in_five_dimensions() -> None:
    exact = "x1**2 - x2**2 + x3*x4 + x5"
    problem = Problem(Body(SPHERES, "o - i"), Equation(), {"all": Condition(dirichlet=exact)})
    solver = RandomFeatures(count=600, bandwidths=(0.2,), boundary_points=1000)
    solution = solve(problem, solver, on=Points(500))
    a, b, c, e, f = solution.on.coordinates()  # type: ignore[union-attr]
    assert solution.value.sub(a**2 - b**2 + c * e + f).abs().max() < 1e-6


def test_heat_in_a_disk() -> None:
    """The start is built in, the side, of which n . x = 1, is not."""
    exact = "exp(0.5*(x**2 + y**2) + t)"
    problem = Problem(
        Body({"disk": Primitive(circle=(0, 0, 1))}),
        Equation(d=1.0, K=0.5, f=f"(1 - (2 + x**2 + y**2)/2)*{exact}"),
        {"disk": Condition(neumann=f"{exact}/2")},
        time=Time(end=1.0), initial="exp(0.5*(x**2 + y**2))", exact=exact,
    )  # fmt: skip
    solver = RandomFeatures(count=500, points=1500, bandwidths=(1.5,), rtol=1e-5)
    solution = solve(problem, solver, on=Points(300))
    x, y = solution.on.coordinates()  # type: ignore[union-attr]
    truth = torch.exp(0.5 * (x**2 + y**2) + 1)
    assert float((solution.last - truth).norm() / truth.norm()) < 1e-5
    assert [piece.name for piece in solution.trained.pieces] == ["equation", "disk"]


def test_quantities_are_those_of_the_function() -> None:
    mesh = Geometry(0.3, shapes=dict(RING.shapes), regions={"r": "outer - inner"}).mesh()
    sides = {"outer": Condition(dirichlet="x**2 + y**2"), "inner": Condition(neumann=0.0)}
    sides["inner"] = Condition(neumann="2*x*nx + 2*y*ny")
    problem = Problem(None, Equation(f=-4.0), sides)
    for place, known in ((mesh, problem), (Points(4000), replace(problem, domain=RING))):
        solution = solve(known, FEATURES, on=place)
        out = solution.quantity(Quantity(flux="u", on="outer"))
        assert float(out.value) == pytest.approx(-4 * math.pi, rel=1e-9)
        area = solution.quantity(Quantity(integral=1.0))
        assert float(area.value) == pytest.approx(0.84 * math.pi, rel=1e-9)
        total = solution.quantity(Quantity(integral="u"))
        # int r^2 over the disc, less that of the hole about its own centre.
        hole = math.pi * 0.16 * (0.08 + 0.01)
        assert float(total.value) == pytest.approx(math.pi / 2 - hole, rel=3e-3)
        most = solution.quantity(Quantity(max="u"))
        assert 0.98 < float(most.value) <= 1 + 1e-9


def test_a_function_in_shapes_or_a_mesh_is_kept(tmp_path) -> None:
    problem = Problem(None, Equation(), {"rim": WALL})
    for k, (known, on) in enumerate(
        ((problem, curved()), (replace(problem, domain=RING, boundary={"all": WALL}), Points(50)))
    ):
        solution = solve(known, FEATURES, on=on)
        solution.save(str(tmp_path / str(k)))
        again = sciml.load_function(tmp_path / str(k))
        x = 3 * cube(500, 2) - 1.5
        before, after = solution.function(x), again(x)  # type: ignore[misc]
        assert torch.equal(before.isnan(), after.isnan()) and bool(before.isnan().any())
        assert torch.equal(before.nan_to_num(), after.nan_to_num())


def test_what_does_not_fit_is_said() -> None:
    def error(problem: Problem, on: object) -> InputError:
        with pytest.raises(InputError) as caught:
            solve(problem, FEATURES, on=on)  # type: ignore[call-overload]
        return caught.value

    ring = replace(harmonic(RING, "inner", "outer"), exact=None)
    assert "no boundary condition on inner" in str(
        error(replace(ring, boundary={"outer": WALL}), Points(9))
    )
    missing = error(replace(ring, boundary={"outer": WALL, "iner": WALL}), Points(9))
    assert missing.key == "problem.boundary.iner" and "did you mean 'inner'" in str(missing)
    assert error(ring, Grid((9, 9))).key == "problem.domain"
    hole = replace(ring, obstacle=Obstacle("x < 0", ZERO))
    assert error(hole, Points(9)).key == "problem.obstacle"
    with pytest.raises(InputError, match="nothing is left"):
        shaped({"a": SQUARE, "b": Primitive(circle=(0, 0, 3))}, "a - b").sides  # noqa: B018
    with pytest.raises(InputError, match="the first shape has 2 dimensions, this one 3"):
        Body({"a": SQUARE, "b": Primitive(sphere=(0, 0, 0, 1))}, "a - b")
    with pytest.raises(InputError, match="this domain is no box"):
        solve(ring, on=Grid((9, 9)))
    with pytest.raises(InputError, match="a ball is of a domain without a mesh"):
        Geometry(0.1, shapes={"a": Primitive(ball=(0, 0, 1))})
    assert Box((0.0,), (1.0,)).box == Box((0.0,), (1.0,))


@pytest.mark.parametrize("name", ["ring", "L", "shell"])
def test_dirichlet_sides_built_in(name: str, tmp_path) -> None:
    """What is built in is met to rounding, whatever the network, and once it is kept."""
    corner = {"a": SQUARE, "b": Primitive(rectangle=((0, 0), (1, 1)))}
    body, data = {
        "ring": (RING, {"outer": "x", "inner": "y"}),
        "L": (Body(corner, "a - b"), {"a": "x + y*y", "b": "x + y*y"}),
        "shell": (Body(SPHERES, "o - i"), {"o": "x1", "i": "x2"}),
    }[name]
    sides = {side: Condition(dirichlet=given) for side, given in data.items()}
    problem = Problem(body, Equation(f=1.0), sides)
    solver = PINN(width=4, depth=1, points=50, hard=True, optimiser=GaussNewton(1))
    solution = solve(problem, solver, on=Points(50), throw=False)
    assert [piece.name for piece in solution.trained.pieces] == ["equation"]
    solution.save(str(tmp_path))
    function = sciml.load_function(tmp_path)
    region = solution.trained.form.region
    for side, given in data.items():
        x = region.sides[side].place(cube(200, body.dimension - 1))
        wanted = {"x": x[:, 0], "x1": x[:, 0], "y": x[:, 1], "x2": x[:, 1]}.get(given)
        wanted = x[:, 0] + x[:, 1] ** 2 if wanted is None else wanted
        assert function(x)[:, 0].sub(wanted).abs().max() < 1e-6


def test_hard_annulus_by_gauss_newton() -> None:
    problem = Problem(RING, Equation(), {"all": WALL})
    solver = PINN(width=12, depth=1, points=300, hard=True, optimiser=GaussNewton(25))
    solution = solve(problem, solver, on=Points(300), throw=False)
    x, y = solution.on.coordinates()  # type: ignore[union-attr]
    assert solution.value.sub(eval_harmonic(x, y)).abs().max() < 1e-4
    mesh = Problem(None, Equation(), {"rim": WALL})
    with pytest.raises(InputError, match="no whole side of shapes"):
        solve(mesh, replace(solver, hard=True), on=curved())


@pytest.mark.parametrize(
    ("name", "volume"),
    [
        ("poisson-2d-c", 1 - 0.04 * math.pi),
        ("poisson-2d-cg", 4 - 0.3 * math.pi),
        ("poisson-3d-cg", 1 - 4 / 3 * math.pi * 0.018),
        ("heat-2d-cg", 384 - 11.96 * math.pi),
        ("heat-nd", 8 * math.pi**2 / 15),
        ("flow-2d-cg", 6),
    ],
)
def test_the_shapes_of_pinnacle_are_as_large_as_they_are(name: str, volume: float) -> None:
    folder = Path(__file__).parents[1] / "configs" / "pinnacle"
    spec = sciml.load_spec(folder / f"{name}.yaml")
    domain = spec.problem.domain or Body.of(spec.geometry)
    region = shaped(dict(domain.shapes), domain.region)
    assert region.volume == pytest.approx(volume, rel=1e-9)
