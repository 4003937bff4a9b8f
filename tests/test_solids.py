"""Solids whose deflection is known, and what straight or stiff elements make of it."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import skfem

from sciml.core.problem.equation import Elasticity, Equation
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Condition, Problem
from sciml.core.problem.quadrature import whole
from sciml.discretization.elements.boundary import straightened
from sciml.solvers.resolution import with_stiffness
from sciml.solvers.solve import solve


def cooks(n: int, element: str) -> Mesh:
    """Cook's panel: 48 wide, 44 high on the left, 16 on the right, leaning upwards."""
    square = skfem.MeshTri.init_tensor(np.linspace(0, 1, n + 1), np.linspace(0, 1, n + 1))
    s, t = square.p
    points = np.stack([48 * s, 44 * s * (1 - t) + (44 + 16 * s) * t], -1)
    places = {"left": (0, 0), "right": (0, 1), "bottom": (1, 0), "top": (1, 1)}
    sides = {
        name: square.facets[:, square.facets_satisfying(lambda x, a=a, v=v: abs(x[a] - v) < 1e-9)].T
        for name, (a, v) in places.items()
    }
    return Mesh(points, square.t.T.copy(), {}, sides, element)


def panel(element: str) -> tuple[float, tuple[str, ...]]:
    """The middle of the right side, lifted by a unit shear load, nearly incompressible."""
    mesh = cooks(20, element)
    sides = {name: Condition(neumann=(0.0, 0.0)) for name in ("bottom", "top")}
    sides |= {"left": Condition(dirichlet=(0.0, 0.0)), "right": Condition(neumann=(0.0, 1 / 16))}
    problem = Problem(None, Elasticity(1.0, 0.4999), sides)
    found = with_stiffness(problem, mesh, solve(problem, on=mesh))
    middle = np.argmin(np.abs(mesh.nodes - [48, 52]).sum(1))
    return float(found.value[1, middle]), found.notes


def test_cooks_panel_near_incompressible() -> None:
    lifted, notes = panel(Elasticity.element)
    assert lifted == pytest.approx(18.4, rel=0.015)
    assert not any("less energy" in note for note in notes)
    locked, notes = panel("P1")
    said = re.search(r"P1 stores (\d+) % less energy than P2", " ".join(notes))
    # The load's work is twice the energy, so that shares of the deflection are shares of it.
    assert said and float(said[1]) == pytest.approx(100 * (1 - locked / lifted), abs=3)
    assert float(said[1]) > 50


def test_what_is_too_large_to_be_compared_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sciml.solvers.resolution._COMPARED", (700, 700, 700))
    assert any("how much it lacks here is not known" in note for note in panel("P1")[1])
    assert not any("compared" in note for note in panel("P2")[1])


def test_a_cantilever_in_space() -> None:
    axes = np.linspace(0, 1, 13), np.linspace(0, 0.1, 3), np.linspace(0, 0.1, 3)
    box = skfem.MeshTet.init_tensor(*axes)
    named = {
        name: box.facets[:, box.facets_satisfying(lambda x, at=at: abs(x[0] - at) < 1e-9)].T
        for name, at in (("left", 0.0), ("right", 1.0))
    }
    beam = Elasticity(210e9, 0.3)
    mesh = Mesh(box.p.T.copy(), box.t.T.copy(), {}, named, beam.element)
    sides = {
        "left": Condition(dirichlet=(0.0, 0.0, 0.0)), "right": Condition(neumann=(0.0, 0.0, -1e5))
    }  # fmt: skip
    found = solve(Problem(None, beam, sides), on=mesh)
    assert float(found.value[2].min()) == pytest.approx(-1.905e-4, rel=0.015)


def disk(n: int, element: str, radius: float = 1.0) -> Mesh:
    angles = 2 * np.pi * np.arange(n) / n
    points = np.concatenate([[[0.0, 0.0]], radius * np.stack([np.cos(angles), np.sin(angles)], -1)])
    around = np.arange(1, n + 1)
    edge = np.stack([around, np.roll(around, -1)], -1)
    cells = np.concatenate([np.zeros((n, 1), dtype=int), edge], 1)
    return Mesh(points, cells, {}, {"rim": edge}, element)


@pytest.mark.parametrize("n", [16, 64])
def test_straight_facets_of_a_round_part_are_noted_with_their_size(n: int) -> None:
    (note,) = straightened(disk(n, "P2", 3.0))
    off, share = (float(v) for v in re.findall(r"up to (\S+) off.*: (\S+) %", note)[0])
    assert note.startswith("rim is round")
    assert off == pytest.approx(3 * (1 - math.cos(math.pi / n)), rel=0.03)
    missing = 1 - math.sin(2 * math.pi / n) / (2 * math.pi / n)
    assert share == pytest.approx(100 * missing, rel=0.08)
    problem = Problem(None, Equation(f=1.0), {"rim": Condition(dirichlet=0.0)})
    found = solve(problem, on=disk(n, "P2", 3.0))
    assert note in found.notes


def test_the_volume_that_a_ball_lacks() -> None:
    ball = skfem.MeshTet.init_ball(3)
    mesh = Mesh(ball.p.T.copy(), ball.t.T.copy(), element="P2")
    (note,) = straightened(mesh)
    missing = 1 - float(whole(mesh, 1).measure.sum()) / (4 / 3 * math.pi)
    assert float(re.findall(r": (\S+) %", note)[0]) == pytest.approx(100 * missing, rel=0.15)


def test_corners_kinks_and_p1_are_not_round() -> None:
    box = skfem.MeshTet.init_tensor(*[np.linspace(0, 1, 4)] * 3)
    corner = skfem.MeshTri.init_lshaped().refined(2)
    for mesh in (box, corner):
        assert straightened(Mesh(mesh.p.T.copy(), mesh.t.T.copy(), element="P2")) == []
    assert straightened(cooks(6, "P2")) == []
    kinked = np.array([[0, 0], [1, 0], [2, 0.15], [2, 1], [1, 1], [0, 1]])
    cells = np.array([[0, 1, 4], [0, 4, 5], [1, 2, 3], [1, 3, 4]])
    assert straightened(Mesh(kinked, cells, element="P2")) == []
    assert straightened(disk(16, "P1")) == []
