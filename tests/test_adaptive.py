"""As fine as an accuracy asks for: local refinement, and answers whose error is guaranteed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_enclosure_on_meshes import POISSON, cube, energy_error, square, wave

import sciml
from sciml.app.console import Watch
from sciml.app.read import load_spec, read_spec
from sciml.app.run import Setting, answer
from sciml.app.validate import validated
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.bisection import bisected
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Equation, Problem
from sciml.core.run.certificate import PdeCertificate
from sciml.core.run.status import Status
from sciml.solvers.adaptive import Adaptive, marked

CORNER = "(x**2 + y**2)**(1/3)*sin(2/3*mod(atan2(y, x) + 2*pi, 2*pi))"
BOX = Problem(
    Box((0.0, 0.0), (1.0, 1.0)),
    Equation(f="2*pi**2*sin(pi*x)*sin(pi*y)"),
    {"all": Condition(dirichlet=0.0)},
)


def l_shape(n: int, element: str) -> Mesh:
    whole = square(2 * n, seed=None)
    points = 2 * whole.points - 1
    middles = points[whole.cells].mean(1)
    cells = whole.cells[~((middles[:, 0] > 0) & (middles[:, 1] < 0))]
    used, cells = np.unique(cells, return_inverse=True)
    return Mesh(points[used], cells.reshape(-1, 3), element=element)  # type: ignore[arg-type]


def angles(mesh: Mesh) -> float:
    p = mesh.points[mesh.cells]
    found = []
    for k in range(3):
        a, b = (p[:, (k + j) % 3] - p[:, k] for j in (1, 2))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        found.append(np.arccos(cosine).min())
    return float(min(found))


def test_bisection_keeps_the_mesh_conforming_its_parts_and_its_angles() -> None:
    mesh, draw = square(4, "P2", seed=3, named=True), np.random.default_rng(0)
    first = angles(mesh)
    for _ in range(6):
        before = mesh
        chosen = draw.choice(len(mesh.cells), 1 + len(mesh.cells) // 10, replace=False)
        mesh = bisected(mesh, chosen)
        size = np.linalg.det(np.diff(mesh.points[mesh.cells], axis=1)) / 2
        assert size.min() > 0 and size.sum() == pytest.approx(1)
        west = mesh.subdomains["west"]
        assert (mesh.points[mesh.cells[west]].mean(1)[:, 0] < 0.5).all()
        assert size[west].sum() == pytest.approx(0.5)
        # No vertex hangs: the facets with one element are those of the named sides.
        named = np.concatenate(list(mesh.facets.values()))
        assert set(mesh.topology.boundary_facets()) == set(named)
        assert (mesh.points[mesh.boundaries["left"]][:, :, 0] == 0).all()
        # Every edge of a chosen element was halved.
        corners = before.points[before.cells[chosen]]
        middles = (corners + np.roll(corners, 1, axis=1)).reshape(-1, 2) / 2
        gaps = np.abs(mesh.points[:, None] - middles[None]).max(axis=2).min(axis=0)
        assert gaps.max() < 1e-12
    assert angles(mesh) > first / 2


def test_bisection_in_space() -> None:
    mesh, draw = cube(2), np.random.default_rng(0)
    for _ in range(2):
        mesh = bisected(mesh, draw.choice(len(mesh.cells), len(mesh.cells) // 10, replace=False))
        corners = mesh.points[mesh.cells]
        assert np.linalg.det(np.diff(corners, axis=1)).sum() / 6 == pytest.approx(1)
        named = np.concatenate(list(mesh.facets.values()))
        assert set(mesh.topology.boundary_facets()) == set(named)


def test_the_fewest_elements_with_a_share_of_the_bound_are_marked() -> None:
    square_ = np.array([1.0, 8.0, 2.0, 4.0, 1.0])
    assert list(marked(square_, 0.5)) == [1]
    assert sorted(marked(square_, 0.76)) == [1, 2, 3]
    assert len(marked(square_, 1.0)) == 5


@pytest.mark.parametrize(("element", "error", "slope"), [("P1", 0.02, -0.5), ("P2", 2e-3, -1.0)])
def test_at_a_corner_the_error_falls_as_fast_as_polynomials_can(
    element: str, error: float, slope: float
) -> None:
    problem = Problem(None, Equation(), {"boundary": Condition(dirichlet=CORNER)})
    bounds: list[float] = []
    solution = sciml.solve(
        problem, Adaptive(error), on=l_shape(2, element),
        progress=lambda level, upper: bounds.append(upper),
    )  # fmt: skip
    assert solution.status is Status.CERTIFIED
    assert error / 2 < bounds[-1] <= error
    counts = [
        float(note.split()[0].replace(",", ""))
        for note in solution.notes
        if "unknowns: an error" in note
    ]
    seen = np.polyfit(np.log(counts), np.log(bounds[-len(counts) :]), 1)[0]
    assert slope - 0.25 < seen < slope + 0.1

    def exact(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        angle = torch.remainder(torch.atan2(y, x), 2 * math.pi)
        return (x**2 + y**2) ** (1 / 3) * torch.sin(2 / 3 * angle)

    assert isinstance(solution.on, Mesh) and solution.certificate is not None
    true = energy_error(solution.value, solution.on, exact)
    assert 0.9 * float(solution.certificate.lower) <= true <= float(solution.certificate.upper)


def test_a_grid_is_made_as_fine_as_is_asked_and_no_finer_than_twice() -> None:
    solution = sciml.solve(BOX, Adaptive(0.02), on=Grid((9, 9)))
    assert solution.status is Status.CERTIFIED and solution.certificate is not None
    assert 0.01 < float(solution.certificate.relative_upper) <= 0.02
    # |u - I u|_E = h pi^2 / sqrt(24) of a norm of pi / sqrt(2).
    h = 1 / (solution.value.shape[0] - 1)
    assert float(solution.certificate.lower) <= 1.02 * h * math.pi**2 / math.sqrt(24)


def test_what_cannot_be_reached_is_told() -> None:
    solution = sciml.solve(BOX, Adaptive(1e-4, most=500), on=Grid((9, 9)), throw=False)
    assert solution.status is Status.INACCURATE
    corner = Problem(None, Equation(), {"left": Condition(dirichlet=1.0),
                                        "right": Condition(dirichlet=0.0),
                                        "rest": Condition(dirichlet=0.0)})  # fmt: skip
    solution = sciml.solve(corner, Adaptive(1e-1), on=square(3, named=True), throw=False)
    assert solution.status is Status.INACCURATE
    assert any("no solution has finite energy" in note for note in solution.notes)


def test_the_mesh_of_a_smooth_answer_is_refined_everywhere() -> None:
    mesh = square(4)
    solution = sciml.solve(POISSON, Adaptive(0.1), on=mesh)
    assert solution.status is Status.CERTIFIED and isinstance(solution.on, Mesh)
    assert energy_error(solution.value, solution.on, wave) < 0.1 * math.pi / math.sqrt(2)
    sizes = np.linalg.det(np.diff(solution.on.points[solution.on.cells], axis=1))
    assert sizes.max() < np.linalg.det(np.diff(mesh.points[mesh.cells], axis=1)).min()


SPEC = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: poisson, f: 1}
  boundary: {all: {dirichlet: 0}}
accuracy: {error: 0.05}
output: {quantities: {middle: {at: [0.5, 0.5]}}}
"""


def test_a_spec_may_ask_for_an_accuracy_in_place_of_a_grid(tmp_path: Path) -> None:
    spec = read_spec(parse_yaml(SPEC, "spec.yaml"))
    found = answer(spec, Setting())
    assert found.solution.status is Status.CERTIFIED and found.solution.certificate is not None
    assert float(found.solution.certificate.relative_upper) <= 0.05
    assert found.measured is not None
    assert float(found.measured.quantities["middle"].value) == pytest.approx(0.0736713, rel=5e-3)
    found.solution.save(tmp_path)
    stored = sciml.load_solution(tmp_path)
    assert stored.certificate is not None and stored.status is Status.CERTIFIED
    torch.testing.assert_close(stored.certificate.upper, found.solution.certificate.upper)


def test_a_spec_may_ask_for_bounds_and_shows_where_the_error_may_be() -> None:
    text = SPEC.replace("accuracy: {error: 0.05}", "grid: {shape: [17, 17]}\ncertify: pde")
    found = answer(read_spec(parse_yaml(text, "spec.yaml")), Setting())
    bounds = found.solution.certificate
    assert isinstance(bounds, PdeCertificate) and found.solution.status is Status.CONVERGED
    shares = found.fields["error_bound"]
    assert shares.shape == (17, 17)
    assert float(shares.square().sum().sqrt()) == pytest.approx(float(bounds.upper))
    text = text.replace("kind: poisson", "kind: nonlinear_poisson, c: u")
    with pytest.raises(InputError, match="is for linear problems"):
        answer(read_spec(parse_yaml(text, "spec.yaml")), Setting())


def test_validate_refuses_what_solve_does_and_the_progress_is_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    for old, new, match in (
        ("f: 1}", "f: u}", "linear"),
        ("{all: {dirichlet: 0}}", "{all: {neumann: 0}}", "integrate to"),
        ("error: 0.05", "error: -1", "positive"),
        ("output:", "solver: {kind: adaptive, error: 0.5}\noutput:", "another error"),
        ("output:", "modes: {}\noutput:", "not for modes"),
    ):
        path.write_text(
            SPEC.replace(old, new).replace("kind: poisson, f: u", "kind: general, c: u")
        )
        with pytest.raises(InputError, match=match):
            validated(path, (), Setting())
    lines: list[str] = []
    spec = read_spec(parse_yaml(SPEC, "spec.yaml"))
    Watch(lambda line, _: lines.append(line), None, words=spec.solver.progresses)(3, 1e-4)
    assert lines == ["mesh 3, an error of at most 1.00e-04"]


def test_a_bound_that_does_not_fall_ends_the_refinement() -> None:
    """Of a constant, whose norm is zero; and a step may not pass over all that is allowed."""
    flat = Problem(BOX.domain, Equation(), {"all": Condition(dirichlet=3.0)})
    solution = sciml.solve(flat, Adaptive(0.1), on=Grid((9, 9)), throw=False)
    assert solution.status is Status.INACCURATE and solution.value.numel() < 10_000
    assert any("no longer falls" in note for note in solution.notes)
    solution = sciml.solve(BOX, Adaptive(0.01, most=3_000), on=Grid((9, 9)), throw=False)
    assert solution.status is Status.INACCURATE and 2_000 < solution.value.numel() <= 3_000


@pytest.mark.parametrize(("edge", "status"), [(0.5, "CERTIFIED"), (0.37, "INACCURATE")])
def test_what_jumps_within_cells_and_elements_is_not_certified(edge: float, status: str) -> None:
    equation = Equation(K=f"where(x < {edge}, 1, 10)", f=1.0)
    gridded = Problem(BOX.domain, equation, BOX.boundary)
    meshed = Problem(None, equation, {"boundary": Condition(dirichlet=0.0)})
    for problem, on in ((gridded, Grid((9, 9))), (meshed, square(4))):
        solution = sciml.solve(problem, Adaptive(0.5), on=on, throw=False)
        assert solution.status is Status[status]
        told = any("K may jump" in note for note in solution.notes)
        assert told == (status == "INACCURATE")


def test_what_makes_no_sense_is_refused() -> None:
    for wrong, match in (({"error": 0.0}, "positive"), ({"error": 1.0, "share": 0.0}, "share"),
                         ({"error": 1.0, "most": 0}, "most")):  # fmt: skip
        with pytest.raises(InputError, match=match):
            Adaptive(**wrong)
    with pytest.raises(InputError, match="grid or a mesh"):
        sciml.solve(BOX, Adaptive(0.1), on=Points(100))
    bent = Problem(BOX.domain, Equation(c="u"), BOX.boundary)
    with pytest.raises(InputError, match="linear"):
        sciml.solve(bent, Adaptive(0.1), on=Grid((9, 9)))
    with pytest.raises(InputError, match="accuracy is for linear problems"):
        read_spec(parse_yaml(SPEC + "solver: {kind: newton}\n", "spec.yaml"))
    quads = Mesh(np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), np.array([[0, 1, 2, 3]]))
    with pytest.raises(InputError, match="quadrilaterals"):
        bisected(quads, np.array([0]))


def test_the_examples_are_read() -> None:
    folder = Path(__file__).parent.parent / "configs"
    for name in ("accuracy", "l-shape"):
        assert load_spec(folder / f"{name}.yaml").solver.kind == "adaptive"
