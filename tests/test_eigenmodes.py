"""Modes: equal to LAPACK's and ARPACK's, orthonormal, bounded from both sides, none missed."""

from __future__ import annotations

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import meshio
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg
import skfem
import torch
from typer.testing import CliRunner

from sciml.app.cli import app
from sciml.app.converge import converge
from sciml.app.read import load_spec
from sciml.app.run import Setting
from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity, Equation, Helmholtz, System
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.core.run.files import load_modes
from sciml.discretization import pencil
from sciml.solvers.eigen import bounds, modes
from sciml.solvers.eigen.lobpcg import LOBPCG
from sciml.solvers.eigen.modes import eigenmodes

FIXED, FREE = Condition(dirichlet=0), Condition(neumann=0)
SIDES = ("left", "right", "bottom", "top")


def box(side: Condition = FIXED, axes: int = 2, **equation: Any) -> Problem:
    return Problem(Box((0.0,) * axes, (1.0,) * axes), Equation(**equation), {"all": side})


def rectangle(n: int, element: str, length: float = 1.0, across: int | None = None) -> Mesh:
    """[0, length] x [0, 1] in triangles, its sides named."""
    axes = np.linspace(0, length, n + 1), np.linspace(0, 1, (across or n) + 1)
    mesh = skfem.MeshTri.init_tensor(*axes)
    places = {"left": (0, 0.0), "right": (0, length), "bottom": (1, 0.0), "top": (1, 1.0)}
    sides = {
        name: mesh.facets[:, mesh.facets_satisfying(lambda x, a=a, v=v: abs(x[a] - v) < 1e-9)].T
        for name, (a, v) in places.items()
    }
    return Mesh(mesh.p.T.copy(), mesh.t.T.copy(), {}, sides, element)


def on_mesh(equation: Any, side: Condition = FREE, **others: Condition) -> Problem:
    return Problem(None, equation, dict.fromkeys(SIDES, side) | others)


STEEL = Elasticity(200.0, 0.3, density="1 + x")
HOLE = Obstacle("(x - 0.4)**2 + (y - 0.5)**2 < 0.04", FREE)
CASES = {
    "fixed": (box(), Grid((25, 25))),
    "free": (box(FREE), Grid((25, 25))),
    "cells": (box(Condition(robin=Robin(2.0))), Grid((25, 25), "cell")),
    "periodic": (box(Condition(periodic=True)), Grid((24, 26))),
    "varied": (box(K="1 + x*y", c="x - 3", d="1 + y"), Grid((25, 31))),
    "well": (box(FREE, c="-400*exp(-50*(x - 0.3)**2)"), Grid((25, 25))),
    "deep": (box(c=-1e6), Grid((25, 25))),
    "stiff island": (box(K="where((x - 0.5)**2 + (y - 0.5)**2 < 0.05, 1e6, 1)"), Grid((25, 25))),
    "fed": (box(Condition(robin=Robin(-2.0))), Grid((25, 25))),
    "tensor": (box(K=((1.0, 0.4), (0.4, 2.0)), m=3.0), Grid((25, 25))),
    "hole": (
        Problem(Box((0.0, 0.0), (1.0, 1.0)), Equation(), {"all": FREE}, obstacle=HOLE),
        Grid((33, 33)),
    ),
    "disk": (
        Problem(
            Box((-1.0, -1.0), (1.0, 1.0)),
            Equation(),
            {"all": FIXED},
            obstacle=Obstacle("x**2 + y**2 > 0.9", FIXED),
        ),
        Grid((33, 33)),
    ),
    "space": (box(axes=3), Grid((9, 9, 9))),
    "P1": (on_mesh(Equation(K="1 + x", c=1.0), left=FIXED), rectangle(25, "P1")),
    "P2": (on_mesh(Equation(d="1 + x")), rectangle(13, "P2")),
    "P2, fed": (on_mesh(Equation(), left=Condition(robin=Robin(-3.0))), rectangle(13, "P2")),
    "springs": (on_mesh(STEEL, bottom=Condition(robin=Robin((0.0, 5.0)))), rectangle(9, "P2")),
    "pushed": (on_mesh(STEEL, bottom=Condition(robin=Robin(-5.0))), rectangle(9, "P2")),
    "free body": (on_mesh(STEEL), rectangle(9, "P2")),
    "rollers": (on_mesh(STEEL, left=Condition(dirichlet=(0, None))), rectangle(9, "P2")),
}


@cache
def dense(name: str) -> np.ndarray:
    """All eigenvalues of a case by LAPACK, of the unknowns that have mass."""
    posed = pencil(*CASES[name])
    A, M = (m.to_scipy() for m in (posed.A, posed.M))
    has = M.diagonal() > 0
    A, M = (m[has][:, has].toarray() for m in (A, M))
    return scipy.linalg.eigh(A, M, eigvals_only=True)


@pytest.fixture(params=CASES, scope="module")
def found(request: pytest.FixtureRequest) -> Any:
    """Of every case its name, the modes by iteration, and all eigenvalues."""
    problem, on = CASES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "_DENSE", 50)
        return request.param, eigenmodes(problem, on, 7), dense(request.param)


def test_bounds_contain_the_discrete_eigenvalues(found: Any) -> None:
    """The dense ones are off by some eps of the largest; the bounds are hardly wider than that."""
    _, ours, truth = found
    values, noise = torch.from_numpy(truth[:7]), 1e-14 * np.abs(truth).max()
    low, high = ours.bounds.unbind(-1)
    assert bool(ours.counted) and int(ours.iterations) > 0
    assert (low <= values + noise).all() and (values - noise <= high).all()
    scale = float(values.abs().max())
    assert float((high - low).max()) < 1e-9 * scale + 20 * noise
    assert float((ours.values - values).abs().max()) < 1e-10 * scale + noise
    # An eigenvalue lies as near as the residual says.
    gaps = (ours.values[:, None] - torch.from_numpy(truth)).abs().amin(1)
    assert (gaps <= ours.residuals + noise).all()


def test_multiplicities_are_those_of_the_dense_problem(found: Any) -> None:
    """An eigenvalue's own copies; zero as often as there are rigid motions."""
    name, ours, truth = found
    scale = np.abs(truth[:7]).max()
    copies = (np.abs(truth[:7, None] - truth) < 1e-9 * scale).sum(1)
    assert ours.multiplicities.tolist() == copies.tolist()
    zeros = {"free": 1, "periodic": 1, "hole": 1, "P2": 1, "springs": 1, "free body": 3,
             "rollers": 1}  # fmt: skip
    assert int((ours.values == 0).sum()) == zeros.get(name, 0)


def test_modes_are_orthonormal_in_the_mass(found: Any) -> None:
    name, ours, _ = found
    problem, on = CASES[name]
    posed = pencil(problem, on)
    one = torch.arange(1.0, posed.A.size + 1, dtype=torch.float64).reshape(posed.A.shape)
    place = torch.nan_to_num(posed.lift(one))
    # Where the unknowns stand on the place, each once.
    flat = ours.fields.nan_to_num(0.0).flatten(1)
    rows = torch.zeros(7, posed.A.size, dtype=torch.float64)
    rows[:, (place.flatten()[place.flatten() > 0] - 1).long()] = flat[:, place.flatten() > 0]
    gram = rows @ posed.M.apply(rows.reshape(7, *posed.M.shape)).flatten(1).T
    assert float((gram - torch.eye(7)).abs().max()) < 1e-10
    assert (rows.abs().amax(1) <= rows.amax(1) * (1 + 1e-6)).all()


def test_a_case_as_arpack_has_it() -> None:
    """Shift and invert at zero."""
    problem, on = on_mesh(Equation(K="1 + x*y"), left=FIXED), rectangle(20, "P2")
    posed = pencil(problem, on)
    A, M = posed.A.to_scipy().tocsc(), posed.M.to_scipy().tocsc()
    theirs = np.sort(scipy.sparse.linalg.eigsh(A, 8, M, sigma=0.0, return_eigenvectors=False))
    ours = eigenmodes(problem, on, 8)
    np.testing.assert_allclose(ours.values.numpy(), theirs, rtol=1e-10)


def test_the_mass_is_that_of_scikit_fem() -> None:
    mesh = rectangle(4, "P2")
    basis = skfem.Basis(mesh.topology, skfem.ElementTriP2(), intorder=4)
    theirs = skfem.BilinearForm(lambda u, v, w: (1 + w.x[0]) * u * v).assemble(basis)
    ours = pencil(on_mesh(Equation(d="1 + x")), mesh).M
    values = np.sort(scipy.linalg.eigvalsh(theirs.toarray()))
    np.testing.assert_allclose(np.sort(scipy.linalg.eigvalsh(ours.to_scipy().toarray())), values)
    body = pencil(on_mesh(STEEL), mesh).M.to_scipy().toarray()
    np.testing.assert_allclose(scipy.linalg.eigvalsh(body)[::2], values)


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_mass_is_bounded_by_its_diagonal(element: str) -> None:
    """What every residual norm and the error of the count rest on."""
    posed = pencil(on_mesh(Equation(d="1 + 50*x")), rectangle(5, element))
    M = posed.M.to_scipy().toarray()
    least = scipy.linalg.eigh(M, np.diag(M.diagonal()), eigvals_only=True)[0]
    assert 0 < posed.share <= least < 4 * posed.share


def quadrilaterals(n: int) -> Mesh:
    """The unit square in Q2."""
    mesh = skfem.MeshQuad.init_tensor(*(np.linspace(0, 1, n + 1),) * 2)
    rim = mesh.facets[:, mesh.boundary_facets()].T
    return Mesh(mesh.p.T.copy(), mesh.t.T.copy(), {}, {"rim": rim}, "Q2")


def disk(level: int) -> Mesh:
    """The unit disk in curved P2."""
    mesh = skfem.MeshTri.init_circle(level)
    points, rim = mesh.p.T.copy(), mesh.facets[:, mesh.boundary_facets()].T
    straight = Mesh(points, mesh.t.T.copy(), {}, {"rim": rim}, "P2")
    middles = straight.nodes[len(points) :].copy()
    round_ = straight.facet_nodes(straight.facets["rim"])[:, 2] - len(points)
    middles[round_] /= np.linalg.norm(middles[round_], axis=1)[:, None]
    return Mesh(points, mesh.t.T.copy(), {}, {"rim": rim}, "P2", middles)


# Squares of the zeros of J_0, J_1 and J_2.
DISK = np.array([5.783185962946783, 14.681970642123895, 14.681970642123895, 26.374616427163392])


@pytest.mark.parametrize("shape", ["quadrilaterals", "disk"])
def test_orders_on_quadrilaterals_and_curved_elements(shape: str) -> None:
    place, sizes, exact = {
        "quadrilaterals": (quadrilaterals, (8, 16), SQUARE),
        "disk": (disk, (3, 4), DISK),
    }[shape]
    problem = Problem(None, Equation(), {"rim": FIXED})
    levels = [eigenmodes(problem, place(n), len(exact)).values for n in sizes]
    assert np.abs(orders(levels, exact) - 4).max() < 0.1
    assert eigenmodes(problem, place(sizes[0]), 4).groups.tolist() == [1, 2, 2, 1]


SQUARE = math.pi**2 * np.sort([a * a + b * b for a in range(1, 6) for b in range(1, 6)])[:6]


def orders(values: list[torch.Tensor], exact: np.ndarray) -> np.ndarray:
    errors = [np.abs(v.numpy() / exact - 1) for v in values]
    return np.log2(errors[-2] / errors[-1])


@pytest.mark.parametrize(("element", "expected"), [("P1", 2.0), ("P2", 4.0)])
def test_orders_on_meshes(element: str, expected: float) -> None:
    problem = on_mesh(Equation(), FIXED)
    levels = [eigenmodes(problem, rectangle(n, element), 6).values for n in (12, 24)]
    assert np.abs(orders(levels, SQUARE) - expected).max() < 0.1
    # Of a conforming element the eigenvalues come from above.
    assert (levels[-1].numpy() > SQUARE).all()


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_orders_on_grids(centring: Any) -> None:
    levels = [eigenmodes(box(), Grid((n, n), centring), 6).values for n in (32, 64)]
    scale = np.log2((64 - (centring == "node")) / (32 - (centring == "node")))
    assert np.abs(orders(levels, SQUARE) / scale - 2).max() < 0.1
    assert eigenmodes(box(), Grid((33, 33)), 6).multiplicities.tolist() == [1, 2, 2, 1, 2, 2]


def test_a_squares_vibration_that_is_exact() -> None:
    """Lame's: u = (cos kx sin ky, -sin kx cos ky), k = pi, has no divergence and no traction.

    omega^2 = 2 k^2 mu / density, of order 4.
    """
    body = Elasticity(2.6, 0.3, density=2.0)
    exact = 2 * math.pi**2 * 1.0 / 2.0
    errors = []
    problem = Problem(None, body, {"rim": FREE})
    for n in (7, 14):
        ours = eigenmodes(problem, quadrilaterals(n), 7)
        assert ours.frequencies is not None and ours.values[:3].tolist() == [0, 0, 0]
        errors.append(float((ours.values / exact - 1).abs().min()))
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.1
    f = math.sqrt(exact) / (2 * math.pi)
    assert float((ours.frequencies / f - 1).abs().min()) < 1e-4


def test_iterations_do_not_grow_with_the_mesh() -> None:
    on_grids = [int(eigenmodes(box(), Grid((n, n)), 6).iterations) for n in (33, 97)]
    assert max(on_grids) <= 16 and on_grids[-1] <= on_grids[0] + 3
    problem = on_mesh(Equation(), FIXED)
    on_meshes = [int(eigenmodes(problem, rectangle(n, "P1"), 6).iterations) for n in (30, 60)]
    assert on_meshes[1] <= 1.5 * on_meshes[0]


def test_a_missed_eigenvalue_is_found_by_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that starts orthogonal to the lowest mode grows until nothing is missing."""
    problem, on = CASES["fixed"]
    x = torch.linspace(0, 1, 25, dtype=torch.float64)[1:-1]
    lowest = (torch.sin(math.pi * x)[:, None] * torch.sin(math.pi * x)).flatten()
    drawn, reached = modes._Search.random, []

    def without(self: Any, rows: int, again: int) -> torch.Tensor:
        found = drawn(self, rows, again)
        reached.append(again)
        if again:
            return found
        return found - torch.outer(found @ lowest, lowest) / (lowest @ lowest)

    monkeypatch.setattr(modes, "_DENSE", 50)
    monkeypatch.setattr(modes._Search, "random", without)
    ours = eigenmodes(problem, on, 5, LOBPCG(rtol=1e-4))
    assert bool(ours.counted)
    assert float(ours.values[0]) == pytest.approx(dense("fixed")[0], rel=1e-6)


def test_without_a_count_the_bounds_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "AFFORDABLE", dict.fromkeys((1, 2, 3), 0))
    ours = eigenmodes(box(), Grid((33, 33)), 4)
    assert not bool(ours.counted) and bool(ours.bounds.isfinite().all())


def test_inertia_is_what_lapack_counts() -> None:
    for name in ("varied", "hole", "P2, fed", "rollers"):
        problem, on = CASES[name]
        posed, truth = pencil(problem, on), dense(name)
        A, M = posed.A.to_scipy(), posed.M.to_scipy()
        for k in (3, 12, 40):
            rho = (truth[k] + truth[k + 1]) / 2
            count = bounds.count_below(A, M, rho, posed.share)
            assert count is not None and count.below == k + 1
            assert count.error < 1e-8 * truth[-1]


def test_temple_is_lehmann_of_one_vector() -> None:
    found = bounds.Evidence(
        *(torch.tensor([v], dtype=torch.float64) for v in (2.0, 0.1)),
        torch.tensor([[0.01]], dtype=torch.float64),
        *(torch.zeros(1, dtype=torch.float64) for _ in range(2)),
    )
    assert float(bounds.lower_bounds(found, 1, 3.0)) == pytest.approx(2.0 - 0.01 / 1.0)


def test_batches_and_gradients() -> None:
    """One problem a sample; d lambda / d K of -K Lap u on a box is lambda / K."""
    stated = Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        Equation(K="k"),
        {"all": FIXED},
        parameters={"k": torch.tensor([1.0, 3.0], dtype=torch.float64, requires_grad=True)},
    )
    ours = eigenmodes(stated, Grid((17, 17)), 2)
    assert ours.values.shape == (2, 2) and ours.fields.shape == (2, 2, 17, 17)
    assert ours.bounds.shape == (2, 2, 2) and ours.counted.shape == (2,)
    torch.testing.assert_close(ours.values[1], 3 * ours.values[0])
    (slope,) = torch.autograd.grad(ours.values[:, 0].sum(), stated.parameters["k"])
    torch.testing.assert_close(slope, ours.values[0, 0].detach().expand(2))


def test_the_same_call_gives_the_same_modes() -> None:
    first, second = (eigenmodes(box(), Grid((33, 33)), 5) for _ in range(2))
    assert torch.equal(first.fields, second.fields)


SYSTEM = System({"u": Equation(d=1.0), "v": Equation(d=1.0)})
REFUSED = {
    "count": (box(), 0, "count", "whole number"),
    "too many": (box(), 26, "count", "no more than 25"),
    "source": (box(f=1), 2, "problem.equation.f", "must be 0"),
    "data": (box(Condition(dirichlet=1)), 2, "problem.boundary.left.dirichlet", "must be 0"),
    "flux": (box(Condition(neumann="x")), 2, "problem.boundary.left.neumann", "must be 0"),
    "robin": (box(Condition(robin=Robin(1, 2))), 2, "problem.boundary.left.robin.g", "must be 0"),
    "advection": (box(b=(1.0, 0.0)), 2, "problem.equation.b", "symmetric"),
    "nonlinear": (box(K="1 + u**2"), 2, "problem.equation", "linear"),
    "energy": (box(energy="ux**2"), 2, "problem.equation", "linear"),
    "a flux": (box(flux=("ux", "uy")), 2, "problem.equation.flux", "coefficient form"),
    "damped": (box(m=1.0, d=1.0), 2, "problem.equation.d", "damped"),
    "no mass": (box(d="x - 0.5"), 2, "problem.equation.d", "positive"),
    "complex": (
        Problem(Box((0.0, 0.0), (1.0, 1.0)), Helmholtz(3.0), {"all": FIXED}),
        2,
        "problem.equation.kind",
        "only such equations are solved for modes",
    ),
    "system": (
        Problem(Box((0.0, 0.0), (1.0, 1.0)), SYSTEM, {"all": FIXED}),
        2,
        "problem.equation.kind",
        "only such equations are solved for modes",
    ),
    "in time": (
        Problem(
            Box((0.0, 0.0), (1.0, 1.0)),
            Equation(kind="heat"),
            {"all": FIXED},
            time=Time(1.0),
            initial=0.0,
        ),
        2,
        "problem.time",
        "leave time and initial out",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line(name: str) -> None:
    problem, count, key, said = REFUSED[name]
    with pytest.raises(InputError) as told:
        eigenmodes(problem, Grid((7, 7)), count)
    assert told.value.key == key and said in str(told.value) and "\n" not in str(told.value)


def test_a_body_refuses_a_load() -> None:
    loaded = on_mesh(Elasticity(1.0, force=(0.0, -1.0)))
    with pytest.raises(InputError, match="must be 0"):
        eigenmodes(loaded, rectangle(2, "P2"), 2)
    hot = on_mesh(Elasticity(1.0, thermal_strain=1e-3))
    with pytest.raises(InputError, match=r"must be 0; leave it out.*thermal_strain="):
        eigenmodes(hot, rectangle(2, "P2"), 2)
    with pytest.raises(InputError, match="density"):
        eigenmodes(on_mesh(Elasticity(1.0, density="x - 1")), rectangle(2, "P2"), 2)


SPEC = """\
problem:
  name: Two modes
  equation: {kind: elasticity, young: 200, density: 2}
  boundary: {left: {neumann: 0}, right: {neumann: 0}, bottom: {neumann: 0}, top: {neumann: 0}}
mesh: {file: MESH}
labels: {frequency: {unit: Hz}}
modes: {count: 5, published: [0, null, null, 1.0405]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command says, and the folder that it leaves."""
    folder = tmp_path_factory.mktemp("modes")
    mesh = Path(__file__).parents[1] / "configs" / "reference" / "meshes" / "cantilever.msh"
    (folder / "beam.yaml").write_text(SPEC.replace("MESH", str(mesh)))
    told = CliRunner().invoke(app, ["modes", str(folder / "beam.yaml"), "--out", str(folder / "m")])
    assert told.exit_code == 0, told.output
    return told.output, folder / "m"


def test_the_command_tells_and_writes_all(run: tuple[str, Path]) -> None:
    told, folder = run
    rows = [line.split() for line in told.splitlines() if line[:1].isdigit()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [row[6] for row in rows] == ["3", "3", "3", "1", "1"]
    assert "frequency (Hz)" in told and "%)" in " ".join(rows[3]) and "were counted" in told
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "converged" and record["hashes"].keys() == {"modes.h5"}
    kept = load_modes(folder)
    assert kept.values.tolist() == record["values"] and kept.on.dimension == 2
    table = list(csv.DictReader((folder / "modes.csv").open()))
    assert [float(row["frequency"]) for row in table] == record["frequencies"]
    vtu = meshio.read(folder / "modes.vtu")
    np.testing.assert_array_equal(vtu.point_data["mode_4"][:, :2], kept.fields[3].numpy().T)
    assert (folder / "modes.png").stat().st_size > 10_000
    assert "<math>" in (folder / "report.html").read_text()
    again = CliRunner().invoke(app, ["info", str(folder)])
    assert [line for line in again.output.splitlines() if line[:1].isdigit()] == [
        line for line in told.splitlines() if line[:1].isdigit()
    ]


def test_damaged_modes_are_refused(run: tuple[str, Path], tmp_path: Path) -> None:
    data = bytearray((run[1] / "modes.h5").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "modes.h5").write_bytes(data)
    with pytest.raises(InputError, match=r"modes\.h5"):
        load_modes(tmp_path)


def test_what_is_wrong_is_told_at_its_place(run: tuple[str, Path]) -> None:
    spec = str(run[1].parent / "beam.yaml")
    for change, said in (
        ("problem.equation.force=[0, -1]", "problem.equation.force: modes are"),
        ("modes.count=1", "modes.published: 4 values are published of 1 modes"),
        ("modes.count=9999", "count: 9,999 modes are asked for, and 410 unknowns"),
        ("modes.rtol=0", "modes.rtol"),
    ):
        told = CliRunner().invoke(app, ["modes", spec, "--set", change])
        assert told.exit_code == 2 and said in told.output, told.output
        assert told.output.count("\n") <= 2


def test_modes_converge_as_quantities_do() -> None:
    spec = load_spec("configs/drum.yaml", ["grid.shape=[17, 17]", "modes.count=2"])
    trends, _ = converge(spec, Setting())
    assert [t.order for t in trends] == pytest.approx([2, 2], abs=0.1)
    assert trends[0].extrapolated == pytest.approx(2 * math.pi**2, rel=1e-5)
