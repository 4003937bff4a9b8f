"""Meshes: finite elements of the right order, exact on what they contain; files; bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import scipy.sparse.linalg
import skfem
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skfem.models.elasticity import linear_elasticity
from skfem.models.poisson import laplace, unit_load

import sciml
from sciml import solvers
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer
from sciml.app.yaml import parse_yaml
from sciml.core.algebra.maps import SparseMatrix
from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity, Equation, Regions
from sciml.core.problem.geometry import Geometry, Hole
from sciml.core.problem.grid import SIDES, Box
from sciml.core.problem.mesh import Mesh, edge_vectors
from sciml.core.problem.mesh_file import read_mesh
from sciml.core.problem.problem import Condition, Problem, Robin, Time
from sciml.core.problem.quadrature import relative_error
from sciml.core.run.serialise import dump
from sciml.core.run.solution import load_solution
from sciml.discretization.elements.elasticity import rigid_motions, stress, von_mises

Field = Callable[..., torch.Tensor]


def unit_mesh(n: int, d: int, element: str = "P1", jitter: float = 0.0) -> Mesh:
    """The unit cube in n^d cubes of simplices, its inner points moved at random."""
    ticks = [np.linspace(0, 1, n + 1)] * d
    kind = {1: skfem.MeshLine, 2: skfem.MeshTri, 3: skfem.MeshTet}[d]
    made = kind.init_tensor(*ticks)
    points, cells = made.p.T.copy(), made.t.T.astype(np.int64)
    negative = np.linalg.det(edge_vectors(points, cells)) < 0
    cells[negative] = cells[negative][:, [1, 0, *range(2, d + 1)]]
    facets = made.facets[:, made.boundary_facets()].T
    sides = {}
    for axis, names in enumerate(SIDES[:d]):
        for end, name in enumerate(names):
            sides[name] = facets[(np.abs(points[facets][:, :, axis] - end) < 1e-12).all(axis=1)]
    inside = ((points > 1e-12) & (points < 1 - 1e-12)).all(axis=1)
    shift = np.random.default_rng(0).uniform(-jitter / n, jitter / n, (inside.sum(), d))
    points[inside] += shift
    return Mesh(points, cells, {}, sides, element)  # type: ignore[arg-type]


def everywhere(mesh: Mesh, condition: Condition, **others: Condition) -> dict[str, Condition]:
    return {name: others.get(name, condition) for name in mesh.boundaries}


def observed(errors: list[float]) -> float:
    return math.log2(errors[-2] / errors[-1])


# Orders of convergence.


def smooth(*x: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.sin(a + 0.3) for a in x]).prod(0)


@pytest.mark.parametrize(
    ("d", "sizes"), [(1, (8, 16)), (2, (16, 32)), (3, (6, 12))], ids=["1d", "2d", "3d"]
)
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_scalar_orders(d: int, sizes: tuple[int, int], element: str) -> None:
    """-div(K grad u) + c u = f with K = 2 + x, all three kinds of conditions."""
    u = "*".join(f"sin({a}+0.3)" for a in "xyz"[:d])
    rest = "".join(f"*sin({a}+0.3)" for a in "xyz"[1:d])
    f = f"({d}*(2+x)+1)*{u} - cos(x+0.3){rest}"
    errors, slopes = [], []
    for n in sizes:
        mesh = unit_mesh(n, d, element)
        flux = f"3*cos(1.3){rest}"
        boundary = everywhere(
            mesh,
            Condition(dirichlet=u),
            right=Condition(neumann=flux),
            left=Condition(robin=Robin(2.0, f"2*{u} - 2*cos(0.3){rest}")),
        )
        problem = Problem(None, Equation(K="2+x", c=1.0, f=f), boundary)
        solution = sciml.solve(problem, on=mesh)
        errors.append(float(solution.error(smooth)))
        slopes.append(float(relative_error(mesh, solution.value, smooth, slope=True)))
    degree = mesh.degree
    assert observed(errors) == pytest.approx(degree + 1, abs=0.1)
    assert observed(slopes) == pytest.approx(degree, abs=0.1)


YOUNG, RATIO = 3.0, 0.3


def bent(*x: torch.Tensor) -> torch.Tensor:
    third = torch.exp(x[2] / 2) if len(x) == 3 else 1.0
    parts = [torch.sin(x[0]) * torch.cos(x[1]) * third, torch.cos(x[0] + 0.2) * x[1] ** 2]
    return torch.stack([*parts, x[0] * torch.sin(x[2]) * x[1]] if len(x) == 3 else parts)


def exact_stress(u: Field, plane: str, x: tuple[torch.Tensor, ...]) -> Any:
    """sigma and div sigma of a displacement by automatic differentiation."""
    x = tuple(a.detach().clone().requires_grad_() for a in x)
    d, unit = len(x), RATIO * YOUNG
    bulk = unit / ((1 - RATIO**2) if plane == "stress" else (1 + RATIO) * (1 - 2 * RATIO))
    shear = YOUNG / (2 * (1 + RATIO))

    def slope(v: torch.Tensor) -> list[torch.Tensor]:
        if not v.requires_grad:
            return [torch.zeros_like(a) for a in x]
        found = torch.autograd.grad(v.sum(), x, create_graph=True, allow_unused=True)
        return [torch.zeros_like(a) if g is None else g for g, a in zip(found, x, strict=True)]

    g = [slope(component) for component in u(*x)]
    trace = sum(g[a][a] for a in range(d))
    sigma = [
        [shear * (g[a][b] + g[b][a]) + (bulk * trace if a == b else 0.0) for b in range(d)]
        for a in range(d)
    ]
    return sigma, [sum(slope(sigma[a][b])[b] for b in range(d)) for a in range(d)]


@pytest.mark.parametrize(
    ("d", "plane", "sizes"),
    [(2, "strain", (12, 24)), (2, "stress", (12, 24)), (3, "strain", (4, 8))],
)
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_elastic_orders(d: int, plane: Any, sizes: tuple[int, int], element: str) -> None:
    errors, slopes = [], []
    for n in sizes:
        mesh = unit_mesh(n, d, element)
        force = tuple(lambda *x, a=a: -exact_stress(bent, plane, x)[1][a] for a in range(d))
        pull = tuple(lambda *x, a=a: exact_stress(bent, plane, x)[0][a][0] for a in range(d))
        given = tuple(lambda *x, a=a: bent(*x)[a] for a in range(d))
        boundary = everywhere(mesh, Condition(dirichlet=given), right=Condition(neumann=pull))
        problem = Problem(None, Elasticity(YOUNG, RATIO, force, plane), boundary)
        solution = sciml.solve(problem, solvers.CG(preconditioner=solvers.AMG()), on=mesh)
        assert solution.value.shape == (d, *mesh.shape)
        errors.append(float(solution.error(bent)))
        slopes.append(float(relative_error(mesh, solution.value, bent, slope=True)))
    assert observed(errors) == pytest.approx(mesh.degree + 1, abs=0.1)
    assert observed(slopes) == pytest.approx(mesh.degree, abs=0.1)


# Patch tests: what the elements contain they reproduce, on any mesh.


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("element", ["P1", "P2"])
@given(seed=st.integers(0, 1000))
@settings(max_examples=5, deadline=None)
def test_polynomials_are_exact(d: int, element: str, seed: int) -> None:
    """Linear u for P1, quadratic u for P2, with a full tensor K, advection and reaction."""
    rng = np.random.default_rng(seed)
    mesh = unit_mesh(3, d, element, jitter=0.2)
    root = rng.normal(size=(d, d))
    K = root @ root.T + np.eye(d)
    slope, speed = rng.normal(size=d), rng.normal(size=d)
    H = np.zeros((d, d))
    if element == "P2":
        H = rng.normal(size=(d, d))
        H = H + H.T

    def u(*x: torch.Tensor) -> torch.Tensor:
        linear = sum(s * a for s, a in zip(slope, x, strict=True))
        return 0.7 + linear + sum(H[i, j] * x[i] * x[j] / 2 for i in range(d) for j in range(d))

    def gradient(*x: torch.Tensor) -> list[torch.Tensor]:
        return [slope[i] + sum(H[i, j] * x[j] for j in range(d)) for i in range(d)]

    def f(*x: torch.Tensor) -> torch.Tensor:
        g = gradient(*x)
        moved = sum(b * v for b, v in zip(speed, g, strict=True))
        return -float((K * H).sum()) + moved + 0.5 * u(*x)

    def flux(*x: torch.Tensor) -> torch.Tensor:
        return sum(k * v for k, v in zip(K[0], gradient(*x), strict=True))  # type: ignore

    entries = tuple(tuple(row) for row in K.tolist())
    form = Equation(K=entries, b=tuple(speed.tolist()), c=0.5, f=f)
    boundary = everywhere(mesh, Condition(dirichlet=u), right=Condition(neumann=flux))
    solution = sciml.solve(Problem(None, form, boundary), solvers.Direct(rtol=1e-12), on=mesh)
    assert float(solution.error(u)) < 1e-11


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_constant_stress_is_exact(d: int, element: str) -> None:
    mesh = unit_mesh(3, d, element, jitter=0.2)
    slope = torch.from_numpy(np.random.default_rng(2).normal(size=(d, d)))

    def u(*x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ab,b...->a...", slope, torch.stack(x))

    sigma, _ = exact_stress(u, "strain", tuple(torch.zeros(1).double() for _ in range(d)))
    pull = tuple(float(sigma[a][0]) for a in range(d))
    given = tuple(lambda *x, a=a: u(*x)[a] for a in range(d))
    boundary = everywhere(mesh, Condition(dirichlet=given), right=Condition(neumann=pull))
    problem = Problem(None, Elasticity(YOUNG, RATIO), boundary)
    solution = sciml.solve(problem, solvers.Direct(rtol=1e-12), on=mesh)
    assert float(solution.error(u)) < 1e-11
    expected = torch.stack([torch.cat(row) for row in sigma]).detach()
    found = stress(problem, mesh, solution.value)
    torch.testing.assert_close(found, expected.expand_as(found), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_rigid_motions_give_no_stress_and_no_force(d: int, element: str) -> None:
    mesh = unit_mesh(2, d, element, jitter=0.2)
    corner = Condition(dirichlet=(0.0,) * d)
    problem = Problem(
        None, Elasticity(YOUNG, RATIO), everywhere(mesh, Condition(neumann=0.0), left=corner)
    )
    motions = torch.from_numpy(rigid_motions(mesh).T.copy()).unflatten(-1, (-1, d)).mT
    assert len(motions) == d * (d + 1) // 2
    assert float(stress(problem, mesh, motions).abs().max()) < 1e-12
    assert float(von_mises(problem, mesh, motions).abs().max()) < 1e-12
    system = sciml.discretize(problem, mesh)
    # The rows of nodes away from the fixed side see the whole motion.
    away = torch.from_numpy(mesh.nodes[:, 0] > 0.6)
    images = system.lift(system.A.apply(system.restrict(motions)))
    assert float(images[..., away].abs().max()) < 1e-12


# Against scikit-fem's own assembly, and the algebra.


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_matrices_equal_those_of_scikit_fem(element: str) -> None:
    mesh = unit_mesh(4, 2, element, jitter=0.2)
    scalar = skfem.ElementTriP1() if element == "P1" else skfem.ElementTriP2()
    basis = skfem.Basis(mesh.topology, scalar)
    fixed = basis.get_dofs().flatten()
    free = np.setdiff1d(np.arange(basis.N), fixed)
    problem = Problem(None, Equation(f=1.0), everywhere(mesh, Condition(dirichlet=0.0)))
    system = sciml.discretize(problem, mesh)
    gap = system.A.to_scipy() - laplace.assemble(basis)[free][:, free]
    assert abs(gap).max() < 1e-13
    np.testing.assert_allclose(system.b, unit_load.assemble(basis)[free], atol=1e-15)
    vector = skfem.Basis(mesh.topology, skfem.ElementVector(scalar))
    bulk, shear = YOUNG * RATIO / ((1 + RATIO) * (1 - 2 * RATIO)), YOUNG / (2 * (1 + RATIO))
    whole = linear_elasticity(bulk, shear).assemble(vector)
    free = np.setdiff1d(np.arange(vector.N), vector.get_dofs().flatten())
    elastic = replace(problem, equation=Elasticity(YOUNG, RATIO))
    A = sciml.discretize(elastic, mesh).A.to_scipy()
    assert A.shape == whole[free][:, free].shape
    if element == "P1":  # scikit-fem numbers P2's components apart
        assert abs(A - whole[free][:, free]).max() < 1e-12
    largest = [
        scipy.sparse.linalg.eigsh(m, k=1, return_eigenvectors=False)[0]
        for m in (A, whole[free][:, free])
    ]
    assert largest[0] == pytest.approx(largest[1], rel=1e-10)


def batch_problem(mesh: Mesh, k: Any) -> Problem:
    form = Equation(K="1 + k*x", b=("k", 1.0), f="k*y")
    boundary = everywhere(mesh, Condition(dirichlet="k + x"), top=Condition(neumann="k"))
    return Problem(None, form, boundary, parameters={"k": k})


@pytest.mark.parametrize("solver", [solvers.Direct(), solvers.GMRES(preconditioner=solvers.AMG())])
def test_a_batch_is_a_loop(solver: Any) -> None:
    mesh = unit_mesh(5, 2)
    batch = [0.5, 1.0, 3.0]
    together = sciml.solve(batch_problem(mesh, batch), solver, on=mesh)
    assert together.value.shape == (3, *mesh.shape)
    for value, k in zip(together.value, batch, strict=True):
        alone = sciml.solve(batch_problem(mesh, k), solver, on=mesh)
        torch.testing.assert_close(value, alone.value, rtol=1e-6, atol=1e-6)


def test_the_matrix_has_its_adjoint_and_diagonal() -> None:
    A = sciml.discretize(batch_problem(unit_mesh(4, 2), [0.5, 2.0]), unit_mesh(4, 2)).A
    u, v = torch.randn(2, 2, *A.shape, dtype=torch.float64, generator=torch.manual_seed(0))
    left, right = (A.apply(u) * v).sum(-1), (u * A.adjoint(v)).sum(-1)
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(A.transpose().apply(v), A.adjoint(v))
    for matrix, diagonal in zip(A.matrices(), A.diagonal(), strict=True):
        np.testing.assert_allclose(matrix.diagonal(), diagonal)
    with pytest.raises(InputError, match="batch"):
        A.to_scipy()


def test_gradients_equal_differences() -> None:
    """Of a functional of u in K per element, the source and the Dirichlet values."""
    mesh = unit_mesh(4, 2)
    solver = solvers.Direct(rtol=1e-13)

    def functional(K: torch.Tensor, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        boundary = everywhere(mesh, Condition(dirichlet=g), top=Condition(neumann=1.0))
        problem = Problem(None, Equation(K=K, b=(1.0, 2.0), f=f), boundary)
        return sciml.solve(problem, solver, on=mesh).value.square().sum()

    generator = torch.Generator().manual_seed(1)
    sizes = (len(mesh.cells), *mesh.shape, *mesh.shape)
    data = [1 + torch.rand(n, dtype=torch.float64, generator=generator) for n in sizes]
    for entry in data:
        entry.requires_grad_()
    functional(*data).backward()
    for which in range(3):
        direction = torch.randn(data[which].shape, dtype=torch.float64, generator=generator)
        ends = []
        for h in (1e-5, -1e-5):
            moved = [d.detach() + (h * direction if i == which else 0) for i, d in enumerate(data)]
            ends.append(float(functional(*moved)))
        slope = float((data[which].grad * direction).sum())
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_float32_is_the_rounded_system() -> None:
    mesh = unit_mesh(4, 2)
    exact = sciml.discretize(batch_problem(mesh, 1.0), mesh)
    rounded = sciml.discretize(batch_problem(mesh, 1.0), mesh, dtype=torch.float32)
    assert rounded.A.dtype == rounded.b.dtype == torch.float32
    torch.testing.assert_close(rounded.b.double(), exact.b, rtol=1e-6, atol=1e-6)


def test_pure_neumann_has_zero_mean_and_says_its_defect() -> None:
    mesh = unit_mesh(8, 2)
    problem = Problem(None, Equation(f="cos(pi*x)"), everywhere(mesh, Condition(neumann=0.0)))
    solution = sciml.solve(problem, on=mesh)
    assert abs(float(solution.value.mean())) < 1e-12
    assert sciml.discretize(problem, mesh).A.nullspace
    with pytest.raises(InputError, match="incompatible"):
        sciml.solve(replace(problem, equation=Equation(f=1.0)), on=mesh)


def two_layers(n: int = 4) -> Mesh:
    mesh = unit_mesh(n, 2)
    left = mesh.points[mesh.cells].mean(axis=1)[:, 0] < 0.5
    parts = {"copper": np.flatnonzero(left), "steel": np.flatnonzero(~left)}
    return Mesh(mesh.points, mesh.cells, parts, mesh.boundaries)


def layered(mesh: Mesh, **regions: Any) -> Problem:
    insulated = Condition(neumann=0.0)
    boundary = everywhere(
        mesh, insulated, left=Condition(dirichlet=0.0), right=Condition(dirichlet=1.0)
    )
    return Problem(None, Equation(K=Regions(regions)), boundary)


def test_materials_by_name() -> None:
    """Two layers in series: u is linear in each, the flux 2 / (1/4 + 1/1) through both."""
    mesh = two_layers()
    solution = sciml.solve(layered(mesh, copper=4.0, steel="1 + 0*x"), on=mesh)

    def u(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.where(x < 0.5, 0.4 * x, 0.2 + 1.6 * (x - 0.5))

    assert float(solution.error(u)) < 1e-12


def test_a_component_may_be_left_free() -> None:
    """A bar pulled by its right side, its left side free to shrink: uniaxial stress."""
    mesh = unit_mesh(3, 2, "P2")
    boundary = {
        "left": Condition(dirichlet=(0.0, None)),
        "bottom": Condition(dirichlet=(None, 0.0)),
        "right": Condition(neumann=(1.0, 0.0)),
        "top": Condition(neumann=0.0),
    }
    problem = Problem(None, Elasticity(YOUNG, RATIO, plane="stress"), boundary)
    solution = sciml.solve(problem, solvers.CG(preconditioner=solvers.AMG()), on=mesh)
    wanted = lambda x, y: torch.stack([x / YOUNG, -RATIO * y / YOUNG])  # noqa: E731
    assert float(solution.error(wanted)) < 1e-7
    assert von_mises(problem, mesh, solution.value).mean() == pytest.approx(1.0, rel=1e-6)


def test_amg_takes_rigid_motions() -> None:
    mesh = unit_mesh(40, 2)
    boundary = everywhere(mesh, Condition(neumann=0.0), left=Condition(dirichlet=(0.0, 0.0)))
    problem = Problem(None, Elasticity(1.0, 0.3, force=(0.0, -1.0)), boundary)
    system = sciml.discretize(problem, mesh)
    assert system.A.block == 2
    plain = SparseMatrix(system.A.to_scipy(), definite=True)
    counts = [
        int(sciml.solve(A, system.b, solvers.CG(preconditioner=M)).stats.iterations)
        for A, M in (
            (system.A, solvers.AMG()),
            (plain, solvers.AMG(method="smoothed_aggregation")),
        )
    ]
    assert counts[0] < 0.5 * counts[1]
    assert any("the solid is plane, and small" in note for note in sciml.solve(system).notes)


# The mesh itself.


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("element", ["P1", "P2"])
def test_sampling_gives_the_finite_element_function(d: int, element: str) -> None:
    mesh = unit_mesh(3, d, element, jitter=0.2)
    x = mesh.coordinates()
    u = sum(x) ** mesh.degree if d > 1 else x[0] ** mesh.degree  # type: ignore[arg-type]
    boundary = everywhere(mesh, Condition(dirichlet=0.0))
    solution = sciml.solve(Problem(None, Equation(f=1.0), boundary), on=mesh)
    solution = replace(solution, value=torch.stack([u, 2 * u]))
    points = torch.from_numpy(np.random.default_rng(0).random((7, d)))
    found = solution.sample(points)
    torch.testing.assert_close(found[1], 2 * points.sum(1) ** mesh.degree)
    with pytest.raises(InputError, match="outside"):
        solution.sample(points + 5)


def test_clockwise_meshes_are_turned_round() -> None:
    mesh = unit_mesh(3, 2)
    turned = Mesh(mesh.points, mesh.cells[:, ::-1], {}, mesh.boundaries)
    assert (np.linalg.det(edge_vectors(turned.points, turned.cells)) > 0).all()


def test_a_mesh_without_names_has_one_boundary() -> None:
    mesh = unit_mesh(3, 2)
    plain = Mesh(mesh.points, mesh.cells)
    assert list(plain.boundaries) == ["boundary"]
    assert len(plain.boundaries["boundary"]) == 12


SQUARE = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
TWO = np.array([[0, 1, 2], [0, 2, 3]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Mesh([*SQUARE[:3], [0.9, 0.5]], TWO),
            "1 facets have two on the same side, the first at x = 0.5, y = 0.5",
        ),
        (lambda: Mesh(SQUARE, [*TWO, [2, 0, 1]]), "elements 0 and 2 have the same vertices"),
        (lambda: Mesh(SQUARE * [1, 0], TWO), "has no area"),
        (lambda: Mesh(SQUARE * np.nan, TWO), "not finite"),
        (lambda: Mesh(SQUARE, TWO[:1]), "points that no element uses"),
        (lambda: Mesh(SQUARE, TWO + 1), "names point 4 of 4"),
        (lambda: Mesh(SQUARE, [[0, 1]]), "needs cells of triangles or quadrilaterals"),
        (lambda: Mesh(SQUARE, TWO, {}, {"rim": [[1, 3]]}), "'rim' has a facet .* no element's"),
        (lambda: Mesh(SQUARE, TWO, {"a": [7]}), "subdomain 'a' has elements that do not exist"),
        (lambda: Mesh(SQUARE, TWO, element="P3"), "known: P1, P2"),
        (
            lambda: Mesh(np.vstack([SQUARE, [[0.2, 0.9]]]), [*TWO, [0, 2, 4]]),
            "facets have more than two elements",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_meshes(make: Callable[[], Mesh], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def bad_problems() -> list[tuple[Problem, Mesh, str, str]]:
    mesh = unit_mesh(3, 2)
    form, zero = Equation(f=1.0), Condition(dirichlet=0.0)
    good = Problem(None, form, everywhere(mesh, zero))
    layers = two_layers()
    elastic = Problem(None, Elasticity(1.0), everywhere(mesh, Condition(dirichlet=(0.0, 0.0))))
    apart = Mesh(
        np.vstack([mesh.points, mesh.points + 3]),
        np.vstack([mesh.cells, mesh.cells + len(mesh.points)]),
        {},
        {"all": mesh.boundaries["left"]},
    )
    return [
        (
            replace(good, boundary={**good.boundary, "lft": zero}),
            mesh,
            "bottom, left, right, top; did you mean 'left'",
            "problem.boundary.lft",
        ),
        (
            replace(good, boundary={"left": zero}),
            mesh,
            "no boundary condition on bottom, right, top",
            "problem.boundary",
        ),
        (
            replace(good, boundary=everywhere(mesh, Condition(absorbing=True))),
            mesh,
            "absorbing is not for meshes",
            "problem.boundary.left",
        ),
        (replace(good, domain=Box((0.0, 0.0), (1.0, 1.0))), mesh, "no domain", "problem.domain"),
        (
            replace(good, equation=Equation(K=-1.0)),
            mesh,
            "K = -1 .*must be positive",
            "problem.equation.K",
        ),
        (
            replace(good, equation=Equation(K=(1.0, 1.0, 1.0))),
            mesh,
            "needs 2",
            "problem.equation.K",
        ),
        (
            replace(good, equation=Equation(K=((1.0, 2.0), (2.0, 1.0)))),
            mesh,
            "positive definite",
            "problem.equation.K",
        ),
        (
            replace(good, equation=Equation(K=((1.0, 0.5), (0.0, 1.0)))),
            mesh,
            "symmetric",
            "problem.equation.K",
        ),
        (replace(good, equation=Equation(d=1.0)), mesh, "depends on time", "problem.equation.d"),
        (
            replace(good, equation=Equation(f=torch.ones(7))),
            mesh,
            "the 16 nodes or the 18 elements",
            "problem.equation.f",
        ),
        (
            replace(good, time=Time(1.0), initial=0.0),
            mesh,
            "no time derivative",
            "problem.equation",
        ),
        (
            replace(good, boundary=everywhere(mesh, Condition(dirichlet=(0.0, 0.0)))),
            mesh,
            "not a list",
            "problem.boundary.left.dirichlet",
        ),
        (
            layered(layers, coper=4.0, steel=1.0),
            layers,
            "copper, steel; did you mean 'copper'",
            "problem.equation.K.regions.coper",
        ),
        (
            layered(layers, steel=1.0),
            layers,
            "16 elements are in none of the regions; copper is missing",
            "problem.equation.K.regions",
        ),
        (
            replace(elastic, equation=Elasticity(-1.0)),
            mesh,
            "must be positive",
            "problem.equation.young",
        ),
        (
            replace(elastic, equation=Elasticity(1.0, 0.5)),
            mesh,
            "between -1 and 0.5",
            "problem.equation.poisson_ratio",
        ),
        (
            replace(elastic, equation=Elasticity(1.0, force=(1.0,))),
            mesh,
            "list of 2",
            "problem.equation.force",
        ),
        (
            replace(elastic, boundary=everywhere(mesh, Condition(neumann=0.0))),
            mesh,
            "stop 0 of its 3 rigid motions",
            "problem.boundary",
        ),
        (
            replace(elastic, boundary=everywhere(mesh, Condition(robin=Robin((1.0,))))),
            mesh,
            "a list of 2 components",
            "problem.boundary.left.robin.alpha",
        ),
        (Problem(None, form, {"all": zero}), apart, "2 separate parts", "problem.boundary"),
    ]


@pytest.mark.parametrize("case", bad_problems(), ids=lambda case: case[2][:30])
def test_bad_problems(case: tuple[Problem, Mesh, str, str]) -> None:
    problem, mesh, message, key = case
    with pytest.raises(InputError, match=message) as caught:
        sciml.solve(problem, on=mesh)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


def test_conditions_inside_and_twice() -> None:
    mesh = unit_mesh(4, 2)
    middle = np.array([[a, b] for a, b in np.sort(mesh.topology.facets.T)])
    centre = middle[(np.abs(mesh.points[middle][:, :, 0] - 0.5) < 1e-12).all(axis=1)]
    inner = Mesh(mesh.points, mesh.cells, {}, {**mesh.boundaries, "wire": centre})
    zero = Condition(dirichlet=0.0)
    boundary = everywhere(inner, zero, wire=Condition(dirichlet=1.0))
    held = sciml.solve(Problem(None, Equation(), boundary), on=inner)
    assert float(held.sample(torch.tensor([[0.5, 0.5]])).detach()) == pytest.approx(1.0)
    # A source along the wire: half of it leaves to either side.
    cold = {"left": zero, "right": zero, "wire": Condition(neumann=1.0)}
    source = everywhere(inner, Condition(neumann=0.0), **cold)
    heated = sciml.solve(Problem(None, Equation(), source), on=inner).value
    wanted = (0.5 - (torch.from_numpy(inner.nodes[:, 0]) - 0.5).abs()) / 2
    assert torch.allclose(heated, wanted, atol=1e-9)
    with pytest.raises(InputError, match=r"unknown name 'nx'|outward normal"):
        sciml.solve(
            Problem(None, Equation(), {**boundary, "wire": Condition(neumann="nx")}), on=inner
        )
    twice = Mesh(mesh.points, mesh.cells, {}, {**mesh.boundaries, "again": mesh.boundaries["left"]})
    with pytest.raises(InputError, match="'again' and 'left' share facets"):
        sciml.solve(Problem(None, Equation(), everywhere(twice, zero)), on=twice)


def test_unnamed_facets_are_insulated_and_noted() -> None:
    mesh = unit_mesh(4, 2)
    some = Mesh(mesh.points, mesh.cells, {}, {"left": mesh.boundaries["left"]})
    problem = Problem(None, Equation(), {"left": Condition(dirichlet="y")})
    solution = sciml.solve(problem, on=some)
    assert any("12 boundary facets have no name" in note for note in solution.notes)


def test_advection_that_dominates_is_noted() -> None:
    mesh = unit_mesh(4, 2)
    fast = Equation(K=0.01, b=(1.0, 0.0), f=1.0)
    solution = sciml.solve(Problem(None, fast, everywhere(mesh, Condition(dirichlet=0.0))), on=mesh)
    assert any("Peclet" in note for note in solution.notes)


# Files.


def as_meshio(mesh: Mesh, named: str) -> meshio.Mesh:
    """The mesh as meshio writes it: physical groups with names, or an array per group."""
    d = mesh.dimension
    kinds = {1: "vertex", 2: "line", 3: "triangle", 4: "tetra"}
    cells = [(kinds[d + 1], mesh.cells)]
    cells += [(kinds[d], facets) for facets in mesh.boundaries.values()]
    sizes = [len(c) for _, c in cells]
    first = np.zeros(sizes[0], dtype=np.int32)
    for number, members in enumerate(mesh.subdomains.values(), start=1):
        first[members] = number
    tags = [first] + [np.full(n, 10 + k, dtype=np.int32) for k, n in enumerate(sizes[1:])]
    points = np.zeros((len(mesh.points), 3))
    points[:, :d] = mesh.points
    names = {name: np.array([k, d]) for k, name in enumerate(mesh.subdomains, start=1)}
    names |= {name: np.array([10 + k, d - 1]) for k, name in enumerate(mesh.boundaries)}
    if named == "entities":  # a block per group, the physical tag hung on its entity
        blocks = [
            ("tetra" if d == 3 else "triangle", mesh.cells[m]) for m in mesh.subdomains.values()
        ]
        blocks += cells[1:]
        owners = [[d, k] for k in range(1, len(mesh.subdomains) + 1)]
        owners += [[d - 1, 10 + k] for k in range(len(mesh.boundaries))]
        tags = [np.full(len(c), tag) for (_, c), (_, tag) in zip(blocks, owners, strict=True)]
        of_points = np.array(sorted(owners))[np.arange(len(points)) * len(owners) // len(points)]
        data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
        return meshio.Mesh(
            points, blocks, {"gmsh:dim_tags": of_points}, cell_data=data, field_data=names
        )
    if named == "physical":
        data = {"gmsh:physical": tags, "gmsh:geometrical": tags}
        return meshio.Mesh(points, cells, cell_data=data, field_data=names)
    arrays = {
        name: [(block == value[0]).astype(np.int32) for block in tags]
        for name, value in names.items()
    }
    return meshio.Mesh(points, cells, cell_data=arrays)


@pytest.mark.parametrize(
    ("suffix", "file_format", "named"),
    [
        (".msh", "gmsh22", "physical"),
        (".msh", "gmsh", "entities"),
        (".vtu", "vtu", "array"),
        (".xdmf", "xdmf", "array"),
    ],
)
@pytest.mark.parametrize("d", [2, 3])
def test_files_come_back(d: int, suffix: str, file_format: str, named: str, tmp_path: Path) -> None:
    made = unit_mesh(3, d)
    right = made.points[made.cells].mean(axis=1)[:, 0] > 0.5
    parts = {"one": np.arange((~right).sum()), "two": np.arange((~right).sum(), len(right))}
    cells = made.cells[np.argsort(right, kind="stable")]
    mesh = Mesh(made.points, cells, parts, made.boundaries)
    path = tmp_path / f"mesh{suffix}"
    meshio.write(path, as_meshio(mesh, named), file_format=file_format)
    found = read_mesh(path, "P2")
    assert found.element == "P2"
    np.testing.assert_allclose(found.points, mesh.points)
    np.testing.assert_array_equal(found.cells, mesh.cells)
    assert found.subdomains.keys() == parts.keys()
    for name, members in parts.items():
        np.testing.assert_array_equal(found.subdomains[name], members)
    assert found.boundaries.keys() == mesh.boundaries.keys()
    for name in mesh.boundaries:
        np.testing.assert_array_equal(found.facets[name], mesh.facets[name])


def test_groups_without_a_name_go_by_their_number(tmp_path: Path) -> None:
    mesh = unit_mesh(2, 2)
    plain = as_meshio(mesh, "physical")
    plain.field_data = {}
    meshio.write(tmp_path / "m.msh", plain, file_format="gmsh22")
    assert set(read_mesh(tmp_path / "m.msh").boundaries) == {"tag_10", "tag_11", "tag_12", "tag_13"}
    triangles = meshio.Mesh(
        plain.points, plain.cells[:1], cell_data={"part": [np.arange(8) // 4 + 3]}
    )
    meshio.write(tmp_path / "m.vtu", triangles)
    assert set(read_mesh(tmp_path / "m.vtu").subdomains) == {"part_3", "part_4"}


def test_quadratic_cells_give_their_corners(tmp_path: Path) -> None:
    mesh = unit_mesh(2, 2, "P2")
    points = np.pad(mesh.nodes, ((0, 0), (0, 1)))
    meshio.write(tmp_path / "m.vtu", meshio.Mesh(points, [("triangle6", mesh.cell_nodes)]))
    found = read_mesh(tmp_path / "m.vtu")
    np.testing.assert_array_equal(found.points, mesh.points)
    points[-1, :2] += 0.05
    meshio.write(tmp_path / "m.vtu", meshio.Mesh(points, [("triangle6", mesh.cell_nodes)]))
    found = read_mesh(tmp_path / "m.vtu")
    assert found.element == "P2"
    np.testing.assert_array_equal(found.nodes, points[:, :2])


def test_bad_files(tmp_path: Path) -> None:
    flat = np.pad(SQUARE, ((0, 0), (0, 1)))
    tilted = flat + np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0]])
    cases = {
        "wedges.vtu": (flat, [("wedge", [[0, 1, 2] * 2])], "not supported: wedge; use intervals"),
        "incomplete.vtu": (flat, [("quad8", [[0, 1, 2, 3] * 2])], "SecondOrderIncomplete = 0"),
        "mixed.vtu": (flat, [("quad", [[0, 1, 2, 3]]), ("triangle", TWO)], "elements of one kind"),
        "tilted.vtu": (tilted, [("triangle", TWO)], "must lie in a plane"),
        "points.vtu": (flat, [("vertex", [[0], [1]])], "has no elements"),
        "twice.vtu": (flat, [("triangle", [*TWO, TWO[0]])], "the same vertices"),
    }
    for name, (points, cells, message) in cases.items():
        meshio.write(tmp_path / name, meshio.Mesh(points, cells))
        with pytest.raises(InputError, match=message):
            read_mesh(tmp_path / name)
    (tmp_path / "broken.msh").write_text("$MeshFormat\n9.9 0 8\n$EndMeshFormat")
    for name, message in (
        ("broken.msh", "cannot read broken.msh"),
        ("none.msh", "not found"),
        ("mesh.stl", "ends in .msh, .vtu, .xdmf"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_mesh(tmp_path / name)
        assert caught.value.key == "mesh.file"


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("elastic", [False, True], ids=["scalar", "elastic"])
def test_saved_solutions_come_back(element: str, elastic: bool, tmp_path: Path) -> None:
    made = two_layers()
    mesh = Mesh(made.points, made.cells, made.subdomains, made.boundaries, element)  # type: ignore
    equation = Elasticity(1.0, force=(0.0, -1.0)) if elastic else Equation(f=1.0)
    boundary = everywhere(mesh, Condition(dirichlet=(0.0, 0.0) if elastic else 0.0))
    solution = sciml.solve(Problem(None, equation, boundary), on=mesh)
    solution.save(str(tmp_path))
    again = load_solution(tmp_path)
    torch.testing.assert_close(again.value, solution.value, rtol=0, atol=0)
    assert again.fields == solution.fields == (("u", "v") if elastic else ("u",))
    assert isinstance(again.on, Mesh)
    assert again.on.element == element
    np.testing.assert_array_equal(again.on.cells, mesh.cells)
    for name in mesh.boundaries:
        np.testing.assert_array_equal(again.on.facets[name], mesh.facets[name])
    points = torch.tensor([[0.3, 0.4]])
    torch.testing.assert_close(again.sample(points), solution.sample(points))
    shown = meshio.read(tmp_path / "solution.vtu")
    assert shown.cells[0].type == ("triangle" if element == "P1" else "triangle6")
    if elastic:
        np.testing.assert_allclose(shown.point_data["displacement"][:, :2].T, solution.value)
    else:
        np.testing.assert_allclose(shown.point_data["u"], solution.value)
    assert set(read_mesh(tmp_path / "solution.vtu").subdomains) == {"copper", "steel"}


@pytest.mark.parametrize("d", [1, 2, 3])
def test_figures_are_drawn(d: int, tmp_path: Path) -> None:
    mesh = unit_mesh(2, d, "P2")
    problem = Problem(None, Equation(f=1.0), everywhere(mesh, Condition(dirichlet=0.0)))
    sciml.plot(sciml.solve(problem, on=mesh), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


# Gmsh.


@pytest.mark.parametrize(
    ("geometry", "measure", "names"),
    [
        (
            Geometry(0.2, lower=(0.0, 0.0), upper=(2.0, 1.0), holes=(Hole((1.0, 0.5, 0.2)),)),
            2 - math.pi * 0.04,
            {"left", "right", "bottom", "top", "hole"},
        ),
        (
            Geometry(0.2, "disk", centre=(1.0, 1.0), radius=1.0, element="P2"),
            math.pi,
            {"boundary"},
        ),
        (
            Geometry(0.4, "box", lower=(0.0, 0.0, 0.0), upper=(1.0, 1.0, 1.0)),
            1.0,
            {"left", "right", "bottom", "top", "back", "front"},
        ),
    ],
    ids=["rectangle", "disk", "box"],
)
def test_geometries(geometry: Geometry, measure: float, names: set[str]) -> None:
    pytest.importorskip("gmsh", exc_type=ImportError)
    mesh = geometry.mesh()
    volumes = np.linalg.det(edge_vectors(mesh.points, mesh.cells))
    assert volumes.sum() / math.factorial(mesh.dimension) == pytest.approx(measure, rel=0.05)
    assert set(mesh.boundaries) == names
    outer = mesh.topology.boundary_facets()
    assert sum(len(f) for f in mesh.facets.values()) == len(outer)
    boundary = everywhere(mesh, Condition(dirichlet=0.0))
    assert sciml.solve(Problem(None, Equation(f=1.0), boundary), on=mesh).converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0.1}, "a rectangle needs lower"),
        ({"size": 0.0, "lower": (0, 0), "upper": (1, 1)}, "size must be positive"),
        ({"size": 0.1, "lower": (0, 0), "upper": (1, 0)}, "below its upper"),
        ({"size": 0.1, "lower": (0,), "upper": (1, 0)}, "lower needs 2 numbers"),
        ({"size": 0.1, "lower": (0, 0), "upper": (1, 1), "radius": 1.0}, "has no radius"),
        ({"size": 0.1, "shape": "disk", "centre": (0, 0), "radius": -1.0}, "must be positive"),
        (
            {"size": 0.1, "lower": (0, 0), "upper": (1, 1), "holes": (Hole((0.5, 0.5)),)},
            r"circle: \[x, y, r\]",
        ),
    ],
)
def test_bad_geometries(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Geometry(**options)


def test_gmsh_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gmsh", None)
    with pytest.raises(InputError, match=r"pip install 'sciml-pde\[gmsh\]'"):
        Geometry(0.2, lower=(0.0, 0.0), upper=(2.0, 1.0)).mesh()


# Specs.

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_two_materials_from_a_spec() -> None:
    result = answer(sciml.load_spec(CONFIGS / "mesh-poisson.yaml"), Setting())
    assert result.solution.converged
    assert result.error is not None
    assert float(result.error) < 1.5e-3
    assert result.fields["K"].unique().tolist() == [1.0, 10.0]


def test_stress_beside_a_hole() -> None:
    """A hole of 0.4 of the width: 3.7 times the pull (Peterson 1974, figure 4.1), at a point."""
    result = answer(sciml.load_spec(CONFIGS / "plate.yaml"), Setting())
    highest = float(result.solution.kept["mises"].value.max()) / 1e6
    assert 3.0 < highest < 3.8


PLACE = "mesh: {file: meshes/inclusion.msh}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("outer:", "outr:", r"8:11: problem.boundary.outr: .* it has outer; did you mean 'outer'"),
        ("disk: k", "dsk: k", r"6:46: problem.equation.K.regions.dsk: .* did you mean 'disk'"),
        ("inclusion.msh", "none.msh", r"13:14: mesh.file: cannot find the file"),
        ("inclusion.msh", "make.py", r"13:14: mesh.file: a mesh file ends in .msh, .vtu, .xdmf"),
        (PLACE, "", r"exactly one of grid: .* got none"),
        (PLACE, f"{PLACE}\ngrid: {{shape: [5, 5]}}", r"got grid and mesh"),
        (".msh}", ".msh, element: P3}", r"mesh.element: expected 'P1', 'P2', 'Q1' or 'Q2'"),
        (PLACE, "geometry: {shape: disk, size: 0.1, centre: [0, 0]}", r"geometry.radius: .* needs"),
        ("{regions: {disk: k, matrix: 1}}", "[1, 2, 3]", r"6:\d+: problem.equation.K: .* needs 2"),
    ],
)
def test_faults_of_specs_are_placed(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (CONFIGS / "mesh-poisson.yaml").read_text()
    assert old in text
    (tmp_path / "meshes").symlink_to(CONFIGS / "meshes")
    path = tmp_path / "spec.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        answer(sciml.load_spec(path), Setting())
    assert "\n" not in str(caught.value)


def test_a_geometry_in_a_spec(tmp_path: Path) -> None:
    pytest.importorskip("gmsh", exc_type=ImportError)
    path = tmp_path / "spec.yaml"
    path.write_text(
        "problem:\n"
        "  equation: {kind: elasticity, young: 1}\n"
        "  boundary:\n"
        "    left: {dirichlet: [0, null]}\n"
        "    bottom: {dirichlet: [null, 0]}\n"
        "    right: {neumann: [1, 0]}\n"
        "    top: {neumann: [0, 0]}\n"
        "    hole: {neumann: [0, 0]}\n"
        "geometry:\n"
        "  {lower: [0, 0], upper: [2, 1], holes: [{circle: [1, 0.5, 0.2]}], size: 0.2,\n"
        "   element: P2}\n"
    )
    spec = sciml.load_spec(path)
    assert spec == read_spec(parse_yaml(json.dumps(dump(spec)), str(path)))
    result = answer(spec, Setting())
    assert result.solution.converged
    assert result.solution.value.shape == (2, *result.spec.on.shape)


# Meshes of other people.

LINES = np.array([[0, 1], [1, 2], [2, 3], [3, 0]])

MSH2 = """$MeshFormat
2.2 0 8
$EndMeshFormat
{before}$Nodes
4
1 0 0 {z}
2 1 0 0
3 1 1 0
4 0 1 0
$EndNodes
$Elements
{count}
{elements}
$EndElements
{after}"""
NAMES = """$PhysicalNames
5
1 1 "rim"
1 2 "left"
2 1 "all"
2 2 "half"
2 3 "rim"
$EndPhysicalNames
"""
RIM = ["1 1 2 1 1 1 2", "2 1 2 1 2 2 3", "3 1 2 1 3 3 4", "4 1 2 1 4 4 1", "5 1 2 2 4 4 1"]
INSIDE = ["6 2 2 1 1 1 2 3", "7 2 2 1 1 1 3 4", "8 2 2 2 1 1 3 4", "9 2 2 3 1 1 3 4"]


def msh2(
    path: Path, elements: list[str], before: str = "", after: str = NAMES, z: float = 0
) -> Path:
    text = MSH2.format(
        before=before, after=after, z=z, count=len(elements), elements="\n".join(elements)
    )
    path.write_text(text)
    return path


MSH4 = """$MeshFormat
4.1 0 8
$EndMeshFormat
$Elements
6 6 1 6
1 1 1 1
1 1 2
1 2 1 1
2 2 3
1 3 1 1
3 3 4
1 4 1 1
4 4 1
2 1 2 1
5 1 2 3
2 2 2 1
6 1 3 4
$EndElements
$Nodes
1 4 1 4
2 1 0 4
1
2
3
4
0 0 0
1 0 0
1 1 0
0 1 0
$EndNodes
$Entities
0 4 2 0
1 0 0 0 1 0 0 1 1 0
2 0 0 0 1 0 0 1 1 0
3 0 0 0 1 0 0 1 1 0
4 0 0 0 1 0 0 2 1 2 0
1 0 0 0 1 0 0 {saved} 0
2 0 0 0 1 0 0 3 1 2 3 0
$EndEntities
{names}"""


@pytest.mark.parametrize("version", ["2.2", "2.2 names first", "4.1"])
def test_a_cell_and_a_facet_belong_to_several_groups(version: str, tmp_path: Path) -> None:
    """Whatever the order of the statements; one name for lines and surfaces stands for both."""
    path = tmp_path / "m.msh"
    if version == "4.1":
        path.write_text(MSH4.format(saved="1 1", names=NAMES))
    else:
        first = {"before": NAMES, "after": ""} if "first" in version else {}
        msh2(path, RIM + INSIDE, **first)
    mesh = read_mesh(path, "P2")
    assert len(mesh.cells) == 2
    assert {k: v.tolist() for k, v in mesh.subdomains.items()} == {
        "all": [0, 1],
        "half": [1],
        "rim": [1],
    }
    assert {k: len(v) for k, v in mesh.facets.items()} == {"rim": 4, "left": 1}
    boundary = {"rim": Condition(dirichlet=0.0)}
    assert sciml.solve(Problem(None, Equation(f=1.0), boundary), on=mesh).converged
    K = Regions({"all": 1.0, "half": 2.0})
    with pytest.raises(InputError, match="'all' and 'half' share 1 of 2 elements") as caught:
        sciml.solve(Problem(None, Equation(K=K, f=1.0), boundary), on=mesh)
    assert caught.value.key == "problem.equation.K.regions"


def test_elements_saved_without_a_group(tmp_path: Path) -> None:
    """Mesh.SaveAll: entities without a physical group among those that have one."""
    path = tmp_path / "m.msh"
    path.write_text(MSH4.format(saved="0", names=NAMES))
    mesh = read_mesh(path)
    assert len(mesh.cells) == 2
    assert mesh.subdomains["all"].tolist() == [1]


def test_gmsh_4_0(tmp_path: Path) -> None:
    text = MSH4.format(saved="1 1", names=NAMES).replace("4.1 0 8", "4.0 0 8")
    text = text.replace("6 6 1 6", "6 6").replace(
        "1 4 1 4\n2 1 0 4\n1\n2\n3\n4\n", "1 4\n1 2 0 4\n"
    )
    for number, old in enumerate(("0 0 0\n1 0 0", "1 0 0\n1 1 0", "1 1 0\n0 1 0"), start=1):
        text = text.replace(old, f"{number} {old}")
    text = text.replace("\n0 1 0\n$End", "\n4 0 1 0\n$End")
    swapped = [("1 2 1 1", "2 1 1 1"), ("1 3 1 1", "3 1 1 1"), ("1 4 1 1", "4 1 1 1")]
    for new, old in [*swapped, ("2 1 2 1", "1 2 2 1")]:
        text = text.replace(f"\n{new}\n", f"\n{old}\n", 1)
    (tmp_path / "m.msh").write_text(text)
    mesh = read_mesh(tmp_path / "m.msh")
    assert mesh.subdomains["half"].tolist() == [1]
    assert len(mesh.facets["rim"]) == 4


def test_noise_and_inverted_simplices(tmp_path: Path) -> None:
    turned = [*RIM, "6 2 2 1 1 1 3 2", "7 2 2 1 1 1 3 4"]
    mesh = read_mesh(msh2(tmp_path / "m.msh", turned, z=1e-9))
    assert mesh.dimension == 2
    assert (np.linalg.det(edge_vectors(mesh.points, mesh.cells)) > 0).all()


def test_a_boundary_without_its_surface_names_the_statement(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'add Physical Surface\("domain"\) = \{1\};'):
        read_mesh(msh2(tmp_path / "m.msh", RIM))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("6 2 2 1 1 1 2 3", "6 2 2 1 1 1 2 0", "names node 0, which does not exist"),
        ("6 2 2 1 1 1 2 3", "6 2 2 1 1 1 2 9", "names node 9, which does not exist"),
        ("6 2 2 1 1 1 2 3", "6 2 2 1 1 1 2 -3", "names node -3, which does not exist"),
        ("2 1 0 0", "1 1 0 0", "node 1 stands twice"),
        ("2 1 0 0", "2 1 x 0", "no number"),
        ("2 1 0 0", "2 1 nan 0", "not finite"),
        ("$EndElements", "", "does not end"),
        ("2.2 0 8", "2.2 0 7", "save it as 4.1"),
        ("6 2 2 1 1", "6 77 2 1 1", "type 77"),
        ("$Nodes\n4", "$Nodes\n40000000000", "no number|too early"),
    ],
)
def test_damaged_gmsh_files(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = msh2(tmp_path / "m.msh", RIM + INSIDE)
    assert path.read_text().count(old)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=message) as caught:
        read_mesh(path)
    assert caught.value.key in ("mesh", "mesh.file")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".vtu", ".xdmf"])
@pytest.mark.parametrize("number", [-1, 4])
def test_points_that_do_not_exist(suffix: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    flat = np.pad(SQUARE, ((0, 0), (0, 1)))
    cells = [("triangle", np.array([[0, 1, 2], [0, 2, number]]))]
    meshio.write(path, meshio.Mesh(flat, cells))
    with pytest.raises(InputError, match=f"names point {number}; there are 4"):
        read_mesh(path)


def two_squares(tmp_path: Path, gap: float = 0.0) -> Path:
    """Two unit squares side by side, meshed apart."""
    one = unit_mesh(4, 2)
    points = np.concatenate([one.points, one.points + np.array([1 + gap, 0])])
    sides = {"left": one.boundaries["left"], "right": one.boundaries["right"] + len(one.points)}
    cells = np.concatenate([one.cells, one.cells + len(one.points)])
    path = tmp_path / "m.msh"
    meshio.write(path, as_meshio(Mesh(points, cells, {}, sides), "physical"), file_format="gmsh22")
    return path


def test_parts_that_do_not_touch_are_noted_and_joined(tmp_path: Path) -> None:
    path = two_squares(tmp_path)
    boundary = {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet=1.0)}
    problem = Problem(None, Equation(), boundary)
    apart = sciml.solve(problem, on=read_mesh(path))
    assert any("2 parts that share no point" in note for note in apart.notes)
    assert any("5 pairs of the mesh's points lie in the same place" in n for n in apart.notes)
    mesh = read_mesh(path, merge=1e-9)
    assert len(mesh.points) == 45
    whole = sciml.solve(problem, on=mesh)
    assert not any("pairs" in note or "parts" in note for note in whole.notes)
    seam = np.abs(mesh.points[:, 0] - 1) < 1e-12
    np.testing.assert_allclose(whole.value[seam], 0.5, atol=1e-8)
    with pytest.raises(InputError, match="too far"):
        read_mesh(path, merge=0.3)


def test_merge_in_a_spec(tmp_path: Path) -> None:
    two_squares(tmp_path, gap=1e-10)
    path = tmp_path / "spec.yaml"
    path.write_text(
        "problem:\n  equation: {f: 0}\n"
        "  boundary: {left: {dirichlet: 0}, right: {dirichlet: 1}}\n"
        "mesh: {file: m.msh, merge: 1.0e-9}\n"
    )
    spec = sciml.load_spec(path)
    assert spec == read_spec(parse_yaml(json.dumps(dump(spec)), str(path)))
    assert len(spec.on.points) == 45
    path.write_text(path.read_text().replace("1.0e-9", "-1"))
    with pytest.raises(InputError, match="merge is a positive length"):
        sciml.load_spec(path)


def test_groups_survive_gmsh_to_vtu(tmp_path: Path) -> None:
    path = msh2(tmp_path / "m.msh", RIM[:4] + INSIDE[:2])
    meshio.write(tmp_path / "m.vtu", meshio.read(path))
    mesh = read_mesh(tmp_path / "m.vtu")
    assert len(mesh.facets["tag_1"]) == 4
    assert mesh.subdomains["tag_1"].tolist() == [0, 1]


@pytest.mark.parametrize("suffix", [".vtk", ".inp", ".bdf", ".mesh", ".med"])
def test_other_formats_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    raw = meshio.Mesh(np.pad(SQUARE, ((0, 0), (0, 1))), [("triangle", TWO)])
    meshio.write(path, raw)
    np.testing.assert_array_equal(read_mesh(path).cells, TWO)


def test_a_block_without_cells_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.inp"
    meshio.write(path, meshio.Mesh(np.pad(SQUARE, ((0, 0), (0, 1))), [("triangle", TWO)]))
    head = next(row for row in path.read_text().splitlines() if row.startswith("*ELEMENT"))
    path.write_text(path.read_text().replace(head, f"{head}\n{head}"))
    np.testing.assert_array_equal(read_mesh(path).cells, TWO)


@pytest.mark.parametrize("binary", [False, True])
def test_a_file_that_ends_too_early_is_told(binary: bool, tmp_path: Path) -> None:
    """meshio would look for what comes next for ever."""
    raw = meshio.Mesh(np.pad(SQUARE, ((0, 0), (0, 1))), [("triangle", TWO)])
    path = tmp_path / "m.msh"
    meshio.write(path, raw, "ansys", binary=binary)
    np.testing.assert_array_equal(read_mesh(path).cells, TWO)
    data = path.read_bytes()
    for end in range(20, len(data), 7):
        path.write_bytes(data[:end])
        with suppress(InputError):
            assert len(read_mesh(path).cells) <= len(TWO)
    path.write_bytes(b"(0 (a comment that nobody closes\n")
    with pytest.raises(InputError, match="ends within a part"):
        read_mesh(path)
    (tmp_path / "m.bdf").write_text("BEGIN BULK\n$ nothing\n\n")
    with pytest.raises(InputError, match="ends within a part"):
        read_mesh(tmp_path / "m.bdf")


def test_groups_of_other_formats(tmp_path: Path) -> None:
    """Element sets of Abaqus, families of MED, each with several groups, markers of SU2."""
    raw = meshio.Mesh(
        np.pad(SQUARE, ((0, 0), (0, 1))), [("triangle", TWO), ("line", LINES)],
        cell_data={"cell_tags": [np.array([-1, -2]), np.array([-3, -3, -4, -4])]},
    )  # fmt: skip
    raw.cell_tags = {-1: ["one", "all"], -2: ["two", "all"], -3: ["rim"], -4: ["rim", "top"]}
    meshio.write(tmp_path / "m.med", raw)
    med = read_mesh(tmp_path / "m.med")
    assert {k: v.tolist() for k, v in med.subdomains.items()} == {
        "one": [0],
        "two": [1],
        "all": [0, 1],
    }
    assert {k: len(v) for k, v in med.boundaries.items()} == {"rim": 4, "top": 2}

    rows = "".join(f"{k}, {x}, {y}, 0\n" for k, (x, y) in enumerate(SQUARE, start=1))
    (tmp_path / "m.inp").write_text(
        f"*NODE\n{rows}*ELEMENT, TYPE=T3D2, ELSET=rim\n1, 1, 2\n2, 2, 3\n"
        "*ELEMENT, TYPE=CPS3, ELSET=body\n5, 1, 2, 3\n6, 1, 3, 4\n*ELSET, ELSET=half\n6\n"
    )
    inp = read_mesh(tmp_path / "m.inp")
    assert {k: v.tolist() for k, v in inp.subdomains.items()} == {"body": [0, 1], "half": [1]}
    assert len(inp.boundaries["rim"]) == 2

    text = "NDIME= 2\nNELEM= 2\n5 0 1 2\n5 0 2 3\nNPOIN= 4\n"
    text += "".join(f"{x} {y}\n" for x, y in SQUARE)
    one = "MARKER_TAG= wall\nMARKER_ELEMS= 3\n3 0 1\n3 1 2\n3 2 3\n"
    two = "MARKER_TAG= {}\nMARKER_ELEMS= 1\n3 3 0\n"
    (tmp_path / "m.su2").write_text(f"{text}NMARK= 2\n{one}{two.format('inlet')}")
    su2 = read_mesh(tmp_path / "m.su2")
    assert {k: len(v) for k, v in su2.boundaries.items()} == {"wall": 3, "inlet": 1}
    (tmp_path / "m.su2").write_text(f"{text}NMARK= 1\n{one}")
    assert set(read_mesh(tmp_path / "m.su2").boundaries) == {"wall"}
    (tmp_path / "m.su2").write_text(f"{text}NMARK= 2\n{one}{two.format('1')}")
    with pytest.raises(InputError, match="another marker"):
        read_mesh(tmp_path / "m.su2")


def test_cgns_is_read_where_nothing_of_it_is_lost(tmp_path: Path) -> None:
    import h5py

    mesh = unit_mesh(2, 3)
    path = tmp_path / "m.cgns"
    with h5py.File(path, "w") as file:
        zone = file.create_group("Base/Zone1")
        for axis, x in zip("XYZ", mesh.points.T, strict=True):
            zone[f"GridCoordinates/Coordinate{axis}/ data"] = x
        zone["GridElements/ElementRange/ data"] = [1, len(mesh.cells)]
        zone["GridElements/ElementConnectivity/ data"] = mesh.cells.ravel() + 1
        zone["GridElements/ data"] = [10, 0]
    np.testing.assert_array_equal(read_mesh(path).cells, mesh.cells)
    for change in ("ZoneBC", "Wall/ElementConnectivity"):
        with h5py.File(path, "a") as file:
            file.create_group(f"Base/Zone1/{change}")
        with pytest.raises(InputError, match=r"one section of tetrahedra.* gmsh m.cgns -o m.msh"):
            read_mesh(path)
        with h5py.File(path, "a") as file:
            del file[f"Base/Zone1/{change.split('/')[0]}"]
    with h5py.File(path, "a") as file:
        file["Base/Zone1/GridElements/ data"][0] = 7  # quadrangles have four nodes too
    with pytest.raises(InputError, match="one section of tetrahedra"):
        read_mesh(path)


def test_universal_files_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "m.unv").write_text("    -1\n  2411\n    -1\n")
    text = "problem: {equation: {f: 1}, boundary: {a: {dirichlet: 0}}}\nmesh: {file: m.unv}\n"
    for read in (
        lambda: read_mesh(tmp_path / "m.unv"),
        lambda: read_spec(parse_yaml(text, str(tmp_path / "spec.yaml"))),
    ):
        with pytest.raises(InputError, match=r"convert it, gmsh m.unv -o m.msh -0"):
            read()


def test_data_outside_the_folder_are_refused(tmp_path: Path) -> None:
    import h5py

    folder = tmp_path / "inner"
    folder.mkdir()
    raw = meshio.Mesh(np.pad(SQUARE, ((0, 0), (0, 1))), [("triangle", TWO)])
    meshio.write(folder / "m.xdmf", raw)
    text = (folder / "m.xdmf").read_text()
    (folder / "m.h5").rename(tmp_path / "m.h5")
    (folder / "m.xdmf").write_text(text.replace("m.h5:", "../m.h5:"))
    with pytest.raises(InputError, match="outside its folder"):
        read_mesh(folder / "m.xdmf")
    (folder / "m.xdmf").write_text(text)
    np.zeros(12).tofile(tmp_path / "secret")
    with h5py.File(folder / "m.h5", "w") as file:
        file.create_dataset(
            "data0", (4, 3), dtype="f8", external=[(str(tmp_path / "secret"), 0, 96)]
        )
        file["data1"] = TWO
    with pytest.raises(InputError, match="lie in another file"):
        read_mesh(folder / "m.xdmf")
    with h5py.File(folder / "m.h5", "w") as file:
        file["data0"] = h5py.ExternalLink(str(tmp_path / "m.h5"), "data0")
    with pytest.raises(InputError, match="links to another file"):
        read_mesh(folder / "m.xdmf")
    meshio.write(tmp_path / "whole.inp", raw)
    (folder / "m.inp").write_text("*HEADING\n*include, input=../whole.inp\n")
    with pytest.raises(InputError, match=r"includes '../whole.inp', outside its folder"):
        read_mesh(folder / "m.inp")
    (tmp_path / "whole.inp").rename(folder / "whole.inp")
    (folder / "m.inp").write_text("*HEADING\n*INCLUDE, INPUT=whole.inp\n")
    np.testing.assert_array_equal(read_mesh(folder / "m.inp").cells, TWO)
    (folder / "m.inp").write_text("*INCLUDE, INPUT=m.inp\n")
    with pytest.raises(InputError, match=r"'m.inp' is included twice"):
        read_mesh(folder / "m.inp")


def test_beside_a_truth_of_zero_errors_are_absolute():
    mesh = unit_mesh(4, 2)
    value = torch.full(mesh.shape, 0.3, dtype=torch.float64)
    for truth in (lambda x, y: 0 * x, torch.zeros(mesh.shape)):
        assert float(relative_error(mesh, value, truth)) == pytest.approx(0.3)
        assert float(relative_error(mesh, 0 * value, truth)) == 0.0
    several = torch.stack([value, 0 * value])
    assert float(relative_error(mesh, several, lambda x, y: 0 * x)) == pytest.approx(
        0.3 / math.sqrt(2)
    )
