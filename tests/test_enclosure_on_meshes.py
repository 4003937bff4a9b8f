"""Bounds of the distance to the solution of the differential equation, on meshes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import sciml
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Equation, Problem, Regions, Robin
from sciml.core.problem.quadrature import whole
from sciml.discretization.elements.balance import elements_of, multipliers
from sciml.solvers.linear.equilibrated_mesh import _flux, _missed

WALLS = {"boundary": Condition(dirichlet=0.0)}
POISSON = Problem(None, Equation(f="2*pi**2*sin(pi*x)*sin(pi*y)"), WALLS)


def square(n: int, element: str = "P1", seed: int | None = 1, named: bool = False) -> Mesh:
    """The unit square in 2 n^2 triangles, the inner vertices moved; halves and sides by name."""
    ticks = np.linspace(0, 1, n + 1)
    points = np.stack([g.ravel() for g in np.meshgrid(ticks, ticks, indexing="ij")], 1)
    if seed is not None:
        inner = (points > 0).all(1) & (points < 1).all(1) & (np.abs(points[:, 0] - 0.5) > 1e-9)
        draw = np.random.default_rng(seed).random((int(inner.sum()), 2))
        points[inner] += (draw - 0.5) * 0.4 / n
    i = np.arange(n * (n + 1)).reshape(n, n + 1)[:, :n].ravel()
    cells = np.concatenate(
        [np.stack([i, i + n + 1, i + n + 2], 1), np.stack([i, i + n + 2, i + 1], 1)]
    )
    if not named:
        return Mesh(points, cells, element=element)  # type: ignore[arg-type]
    left = points[cells].mean(1)[:, 0] < 0.5
    whole_ = Mesh(points, cells)
    outer = whole_.boundaries["boundary"]
    middles = points[outer].mean(1)
    sides = {"left": middles[:, 0] < 1e-9, "right": middles[:, 0] > 1 - 1e-9}
    sides["rest"] = ~(sides["left"] | sides["right"])
    return Mesh(
        points, cells, {"west": np.flatnonzero(left), "east": np.flatnonzero(~left)},
        {name: outer[of] for name, of in sides.items()}, element=element,
    )  # type: ignore[arg-type]  # fmt: skip


def cube(n: int, element: str = "P1") -> Mesh:
    import skfem

    tets = skfem.MeshTet.init_tensor(*[np.linspace(0, 1, n + 1)] * 3)
    return Mesh(tets.p.T.copy(), tets.t.T.copy(), element=element)  # type: ignore[arg-type]


def energy_error(v, mesh, exact, K=1.0, c=0.0):  # type: ignore[no-untyped-def]
    """|u - v|_E without sides, of an exact solution of x, y(, z)."""
    part = whole(mesh, 8)
    local = torch.einsum("mn,qnl->mql", v[part.nodes], part.tables.slopes)
    slopes = local @ part.inverse[:, 0]
    x = [p.clone().requires_grad_() for p in part.points]
    u = exact(*x)
    wanted = torch.stack(torch.autograd.grad(u.sum(), x), -1)
    gap = (u - part.at_points(v)).square()
    density = K * (slopes - wanted).square().sum(-1) + c * gap
    return float((density * part.measure).sum().sqrt())


def wave(*x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.sin(math.pi * axis) for axis in x]).prod(0)


@pytest.mark.parametrize(("element", "most"), [("P1", 1.02), ("P2", 1.25)])
def test_finite_elements_of_a_sine_are_enclosed_tightly(element: str, most: float) -> None:
    mesh = square(12, element)
    solution = sciml.solve(POISSON, on=mesh)
    found = sciml.certify(solution, POISSON, mesh, of="pde")
    error = energy_error(solution.value, mesh, wave)
    assert 0.95 * error < float(found.lower) <= error * (1 + 1e-9)
    assert error * (1 - 1e-9) <= float(found.upper) < most * error
    assert float(found.cells.square().sum().sqrt()) == pytest.approx(float(found.upper))


def test_tetrahedra_too() -> None:
    problem = Problem(None, Equation(f="3*pi**2*sin(pi*x)*sin(pi*y)*sin(pi*z)"), WALLS)
    mesh = cube(5)
    v = wave(*mesh.coordinates()) * 1.3
    found = sciml.certify(v, problem, mesh, of="pde")
    error = energy_error(v, mesh, wave)
    assert 0.95 * error < float(found.lower) <= error <= float(found.upper) < 1.1 * error


def test_the_flux_is_in_balance_and_continuous() -> None:
    """div s = -f for f of degree 1, n . s = h on Neumann sides, and no jumps: tested by w in H1."""
    sides = {
        "left": Condition(dirichlet="y"),
        "right": Condition(neumann="1 + y"),
        "rest": Condition(robin=Robin(2.0, 1.0)),
    }
    K = Regions({"west": 1.0, "east": 50.0})
    mesh = square(6, named=True)
    here = elements_of(Problem(None, Equation(K=K, f="1 + 2*x - y"), sides), mesh)
    flux = _flux(here)
    torch.testing.assert_close(flux.divergence, -here.f, rtol=0, atol=1e-10)
    right = next(f for f in here.facets if f.side.name == "right")
    torch.testing.assert_close(flux.through(right), right.flux()[1], rtol=0, atol=1e-10)
    # int s . grad w + int div s w is what leaves by the sides, whatever w is.
    draw = np.random.default_rng(0).random(len(mesh.points))
    w = torch.from_numpy(draw)
    slopes = torch.einsum("mn,qnl->mql", w[here.part.nodes], here.part.tables.slopes)
    slopes = slopes @ here.part.inverse[:, 0]
    inner = (flux.inside * slopes).sum(-1) + flux.divergence * here.part.at_points(w)
    outer = sum(
        (flux.through(f) * f.part.at_points(w) * f.part.scale * f.part.tables.weights).sum()
        for f in here.facets
    )
    assert float(here.integral(inner).sum()) == pytest.approx(float(outer), abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_random_guesses_of_random_problems_are_enclosed(seed: int) -> None:
    """K jumps and is a tensor, c, all kinds of sides; v is random, near or far."""
    draw = np.random.default_rng(seed)
    p, q, r = map(float, draw.uniform(-2, 2, 3))
    east = float(10 ** draw.uniform(-3, 3))
    c = float(draw.choice([0.0, 3.0, 200.0]))
    element = str(draw.choice(["P1", "P2"]))

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x - 0.5) * (1 + (x < 0.5).double() * (east - 1)) * (p + q * y) + r * y

    # K u_x is continuous at x = 1/2, and u_yy = 0: f = c u, less what K u_xy does not have.
    u = f"(where(x < 0.5, (x - 0.5)*{east!r}, x - 0.5)*({p!r} + {q!r}*y) + {r!r}*y)"
    steep = f"({east!r}*({p!r} + {q!r}*y))"
    alpha = 2.5
    sides = {
        "left": Condition(dirichlet=u),
        "right": Condition(robin=Robin(alpha, f"{steep} + {alpha}*{u}")),
        "rest": Condition(
            neumann=f"ny*where(x < 0.5, 1, {east!r})*({r!r} + "
            f"{q!r}*where(x < 0.5, (x - 0.5)*{east!r}, x - 0.5))"
        ),
    }
    K = Regions({"west": 1.0, "east": east})
    problem = Problem(None, Equation(K=K, c=c, f=f"{c!r}*{u}"), sides)
    mesh = square(6, element, seed, named=True)
    x, y = mesh.coordinates()
    noise = torch.from_numpy(draw.standard_normal(len(x))) * 10 ** draw.uniform(-4, 1)
    v = exact(x, y) + noise * x
    found = sciml.certify(v, problem, mesh, of="pde")
    part = whole(mesh, 8)
    inside = 1 + (part.points[0] > 0.5).double() * (east - 1)
    error = energy_error(v, mesh, exact, inside, c)
    here = elements_of(problem, mesh)
    right = next(f for f in here.facets if f.side.name == "right")
    gap = exact(*right.part.points) - right.part.at_points(v)
    error = math.hypot(error, math.sqrt(float((alpha * gap**2 * right.part.measure).sum())))
    assert float(found.lower) <= error * (1 + 1e-9) + 1e-12
    assert float(found.upper) >= error * (1 - 1e-9) - 1e-12


def test_data_between_the_nodes_of_a_side_count() -> None:
    problem = Problem(None, Equation(), {"boundary": Condition(dirichlet="exp(x)*cos(y)")})
    mesh = square(10)
    solution = sciml.solve(problem, on=mesh)
    found = sciml.certify(solution, problem, mesh, of="pde")
    error = energy_error(solution.value, mesh, lambda x, y: torch.exp(x) * torch.cos(y))
    assert float(found.boundary) > 0.1 * error
    assert error <= float(found.upper) < 1.1 * error


def test_what_two_sides_of_one_element_miss_adds_up() -> None:
    """In a corner the extensions overlap, and the energy of their sum is not that of its parts."""
    mesh = Mesh(np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 2]]))
    problem = Problem(None, Equation(), {"boundary": Condition(dirichlet="(x + y)*(1 - x - y)")})
    zero = torch.zeros(3, dtype=torch.float64)
    found = float(_missed(zero, elements_of(problem, mesh)).layers.sum())
    x, y = (p.clone().requires_grad_() for p in whole(mesh, 12).points)
    psi = (1 - x - y) * (x / (1 - y) + y / (1 - x))
    steep = torch.autograd.grad(psi.sum(), (x, y))
    whole_ = whole(mesh, 12).measure
    energy = float(((steep[0] ** 2 + steep[1] ** 2) * whole_).sum().sqrt())
    assert energy <= found < 1.3 * energy


def test_the_bounds_of_a_guess_fall_onto_its_error() -> None:
    """Of a guess of 1 % the factor is below 1.1, as long as the mesh is not what errs."""
    mesh = square(32, "P2")
    v = wave(*mesh.coordinates()) * 1.01
    found = sciml.certify(v, POISSON, mesh, of="pde")
    error = energy_error(v, mesh, wave)
    assert 0.99 * error < float(found.lower) <= error <= float(found.upper) < 1.01 * error


def test_free_constants_need_balanced_sources() -> None:
    sides = {"boundary": Condition(neumann=0.0)}
    v = torch.zeros(49, dtype=torch.float64)
    mesh = square(6)
    right = Problem(None, Equation(f="cos(pi*x)"), sides)
    exact = lambda x, y: torch.cos(math.pi * x) / math.pi**2 + 0 * y  # noqa: E731
    found = sciml.certify(v, right, mesh, of="pde")
    assert float(found.lower) <= energy_error(v, mesh, exact) <= float(found.upper)
    with pytest.raises(IncompatibleData, match="holds a constant"):
        sciml.certify(v, Problem(None, Equation(f="1"), sides), mesh, of="pde")


def test_a_constant_that_is_hardly_held_is_not_trusted_to_quadrature() -> None:
    """What rules leave of a balance of sources is divided by the root of c."""
    c = 1e-10
    sides = {"boundary": Condition(neumann="9*cos(9*x)*nx")}
    problem = Problem(None, Equation(c=c, f=f"(81 + {c})*sin(9*x)"), sides)
    mesh = square(2)
    exact = lambda x, y: torch.sin(9 * x) + 0 * y  # noqa: E731
    v = exact(*mesh.coordinates())
    found = sciml.certify(v, problem, mesh, of="pde")
    error = energy_error(v, mesh, exact, c=c)
    assert 0.5 * error < float(found.lower) <= error <= float(found.upper)


def test_data_that_jump_on_facets_are_seen_from_within_in_space_too() -> None:
    mesh = cube(2)
    K = "where(x < 0.5, 100, 1)"
    problem = Problem(None, Equation(K=K), {"boundary": Condition(neumann="nx")})
    x = mesh.coordinates()[0]
    v = torch.where(x < 0.5, (x - 0.5) / 100, x - 0.5)
    found = sciml.certify(v, problem, mesh, of="pde")
    assert float(found.upper) < 1e-9
    found = sciml.certify(0 * v, problem, mesh, of="pde")
    error = math.sqrt(0.5 / 100 + 0.5)
    assert float(found.lower) == pytest.approx(error) == pytest.approx(float(found.upper))


def test_multipliers_are_symmetric_and_positive() -> None:
    A = multipliers(elements_of(POISSON, square(3))).A.to_scipy().toarray()
    np.testing.assert_allclose(A, A.T, atol=1e-12)
    assert np.linalg.eigvalsh(A).min() > 0


def test_what_has_no_bound_is_refused() -> None:
    mesh = square(3)
    zero = torch.zeros(16, dtype=torch.float64)

    def refused(match: str, equation: Equation = Equation(), on: Mesh = mesh) -> None:  # noqa: B008
        with pytest.raises(InputError, match=match):
            sciml.certify(torch.zeros(on.shape), Problem(None, equation, WALLS), on, of="pde")

    refused("without advection", Equation(b=(1.0, 0.0)))
    refused("at least 0", Equation(c=-1.0))
    refused("whole of an element", Equation(c="where(x < 0.4, 0, 1)"))
    refused("linear", Equation(c="u"))
    lost = Problem(None, Equation(), {"boundary": Condition(robin=Robin("max(0, x - 0.1)", 1.0))})
    with pytest.raises(InputError, match="whole of a facet"):
        sciml.certify(zero, lost, mesh, of="pde")
    quads = Mesh(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2, 3]]))
    refused("quadrilaterals", on=quads)
    corner = Problem(
        None, Equation(), {"left": Condition(dirichlet=1.0), "right": Condition(dirichlet=0.0),
                           "rest": Condition(dirichlet=0.0)},
    )  # fmt: skip
    found = sciml.certify(zero, corner, square(3, named=True), of="pde")
    assert math.isinf(float(found.upper)) and "no solution has finite energy" in found.reason
    with pytest.raises(InputError, match=r"needs the mesh's \[16\] nodes"):
        sciml.certify(torch.zeros(5), POISSON, mesh, of="pde")
