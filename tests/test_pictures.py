"""Pictures and pages: surfaces to rounding, panels that say what they show, conditions as read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import skfem
import torch
from PIL import Image

import sciml
from sciml import Box, Condition, Elasticity, Equation, Grid, Mesh, Problem
from sciml.app.figures import normalise, plot_field, scales
from sciml.app.figures_derived import plot_deformed, plot_derived, plot_streamlines
from sciml.app.formula import statement
from sciml.app.report import html
from sciml.app.surface import surface
from sciml.core.run.labels import Label
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.status import Doubt, Status

UNIT = Box((0.0, 0.0), (1.0, 1.0))


def cube(element: Any) -> Mesh:
    mesh = skfem.MeshTet.init_tensor(*[np.linspace(0, 1, 4)] * 3)
    return Mesh(mesh.p.T.copy(), mesh.t.T.copy(), element=element)


@pytest.mark.parametrize("element", ["P1", "P2"])
@pytest.mark.parametrize("cut", [True, False])
def test_the_surface_of_half_a_cube_is_whole_and_its_values_are_those_there(element, cut):
    mesh = cube(element)
    x, y, z = mesh.nodes.T
    corners, values = surface(mesh, 2 * x - y + 3 * z, cut=cut)
    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(sides, axis=1).sum()
    assert area == pytest.approx(4.0 if cut else 6.0)
    np.testing.assert_allclose(values, corners @ np.array([2.0, -1.0, 3.0]), atol=1e-12)
    if cut:
        assert corners[:, :, 1].min() == pytest.approx(0.5)
    of_elements = surface(mesh, np.arange(len(mesh.cells), dtype=float), cut=cut)[1]
    assert (of_elements == of_elements[:, :1]).all()


def test_a_frame_that_blanks_the_others_leaves_them_scales_of_their_own():
    ramp = np.linspace(0, 1, 100).reshape(10, 10)
    shared = scales([ramp, 0.5 * ramp, 2 * ramp])
    assert shared[0] is shared[1] is shared[2] and shared[0].vmax == 2
    impulse = scales([1000 * ramp, ramp, 1.1 * ramp])
    assert [norm.vmax for norm in impulse] == pytest.approx([1000, 1, 1.1])
    assert scales([ramp, 0 * ramp])[0].vmax == normalise(ramp).vmax  # nothing is nothing blanked


def test_every_panel_of_a_batch_says_its_parameter():
    problem = Problem(
        UNIT, Equation(K="k"), {"all": Condition(dirichlet=0.0)}, parameters={"k": [1.0, 2.5]}
    )
    value = torch.zeros(2, 5, 5, dtype=torch.float64)
    labels = {"k": Label("conductivity", "W/(m K)")}
    solution = answer_of(problem, Grid((5, 5)).bind(UNIT), value, (2,), labels=labels)
    titles = [axes.get_title() for axes in sciml.plot(solution).axes]
    assert titles[:2] == ["conductivity = 1 W/(m K)", "conductivity = 2.5 W/(m K)"]
    nameless = plot_field(value, Grid((5, 5)).bind(UNIT), "u")
    assert [axes.get_title() for axes in nameless.axes[:2]] == ["sample 0", "sample 1"]


def answer_of(
    problem: Problem | None, on: Any, value: torch.Tensor, batch: tuple[int, ...] = (), **more: Any
) -> Solution:
    stats = Statistics(torch.zeros(batch), torch.zeros(1, *batch), 0.0, 0.0)
    done = (Status.CONVERGED,) * max(1, int(np.prod(batch)))
    return Solution(value, torch.zeros(batch), done, stats, on, problem=problem, **more)


PLATE = Mesh(
    np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.array([[0, 1, 2], [0, 2, 3]])
)


@pytest.mark.parametrize(
    ("size", "factor", "stated"),
    [(2e-5, 2000, "displacements x 2000"), (0.05, 1, "displacements true to scale")],
)
def test_a_deformed_shape_states_its_scale(size, factor, stated):
    moved = torch.tensor([[0.0, size, size, 0.0], [0.0] * 4], dtype=torch.float64)
    figure = plot_deformed(answer_of(None, PLATE, moved, fields=("u", "v")))
    assert figure.axes[0].get_title() == stated
    places = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert places.xmax == pytest.approx(1 + factor * size)


def test_stresses_have_their_symbols_and_the_unit_of_the_whole():
    boundary = {"boundary": Condition(dirichlet=("0.1*x", 0.0))}
    solution = sciml.solve(
        Problem(None, Elasticity(1.0), boundary), on=replace(PLATE, element="P2")
    )
    solution = replace(solution, labels={"stress": Label(unit="MPa")})
    shown = {axes.get_ylabel() for axes in plot_derived(solution, "stress").axes}
    assert {r"$\sigma_{xx}$ (MPa)", r"$\sigma_{xy}$ (MPa)"} <= shown


def test_streamlines_follow_the_flow_and_rest_has_none():
    grid = Grid((8, 8), "cell").bind(UNIT)
    x, y = (c.expand(8, 8) for c in grid.coordinates())
    turn = torch.stack([y - 0.5, 0.5 - x, 0 * x])
    figure = plot_streamlines(answer_of(None, grid, turn, fields=("u", "v", "p")))
    lines = [c for c in figure.axes[0].collections if isinstance(c, LINES)]
    ends = np.concatenate([np.array(part) for part in lines[0].get_segments()])
    radii = np.hypot(*(ends - 0.5).T)
    assert len(ends) > 50 and radii.max() < 0.71
    twice = replace(
        answer_of(None, grid, torch.stack([turn, turn])[:, None], (2,), fields=("u", "v", "p")),
        times=torch.tensor([0.5]), samples=("Re = 1", "Re = 2"), labels={"t": Label(unit="s")},
    )  # fmt: skip
    assert plot_streamlines(twice).axes[0].get_title() == "$t = 0.5$ s, Re = 1"
    still = plot_streamlines(answer_of(None, grid, 0 * turn, fields=("u", "v", "p")))
    assert not [c for c in still.axes[0].collections if isinstance(c, LINES)]


LINES = matplotlib.collections.LineCollection


def conditions(equation: dict[str, Any], boundary: dict[str, Any]) -> list[str]:
    page = statement({"equation": equation, "boundary": boundary})
    rows = re.findall(r"<tr><th>on (.*?)</th><td>(.*?)</td></tr>", page)
    return [re.sub(r"<[^>]*>", "", shown) for _, shown in rows]


def test_conditions_are_written_as_the_equation_has_them():
    solid = {"kind": "elasticity", "young": 1.0}
    sides = {"a": {"dirichlet": [None, 0.0]}, "b": {"neumann": [1.0, 0.0]}, "c": {"neumann": 0.0}}
    assert conditions(solid, sides) == ["uy=0", "σ·n=(1,0)", "σ·n=0"]
    flow = {"kind": "navier_stokes", "viscosity": 1.0}
    walls = {"a": {"dirichlet": [0.0, 0.0]}, "b": {"dirichlet": [1.0, 0.0]}, "c": {"neumann": 0.0}}
    assert conditions(flow, walls) == ["u=0", "u=(1,0)", "∂nu=0,p=0"]
    robin = {"a": {"robin": {"alpha": 2.0, "g": 1.0}}}
    assert conditions({"kind": "poisson"}, robin) == ["2u+n·∇u=1"]
    assert conditions({"kind": "diffusion", "K": "1 + x"}, robin) == ["2u+n·K∇u=1"]
    system = {"kind": "system", "equations": {"T": {"K": 2.0}, "c": {}}}
    own = {"a": {"T": {"dirichlet": 1.0}, "c": {"neumann": 0.0}}}
    assert conditions(system, own) == ["T=1; n·∇c=0"]


@pytest.mark.parametrize(
    ("status", "doubts", "kind"),
    [("converged", [], "solved"), ("converged", ["space: 40 %"], "doubted"),
     ("stagnated", ["space: 40 %"], "unsolved")],
)  # fmt: skip
def test_a_report_with_a_doubt_is_not_green(status, doubts, kind):
    page = html(recorded(status, doubts), {})
    verdict = re.search(r'<p class="verdict (\w+)">(.*?)</p>', page)
    assert verdict is not None and verdict[1] == kind
    assert ("But: space: 40 %." in verdict[2]) == bool(doubts)


def recorded(status: str, doubts: list[str]) -> dict[str, Any]:
    return {
        "title": "t", "description": "", "status": status, "advice": "A sentence.",
        "statuses": [status], "iterations": 1, "residual": 0.0, "error": None, "defect": None,
        "unknowns": 1, "seconds": {}, "notes": doubts, "doubts": doubts, "spec_file": "",
        "spec": {"problem": {"equation": {"kind": "poisson"}}}, "device": "", "dtype": "",
        "threads": 1, "seed": 0, "finished": "", "versions": {}, "command": "",
    }  # fmt: skip


def test_what_shows_the_answer_stands_before_how_it_was_found(tmp_path: Path):
    captions = ("Convergence", "Deformed shape", "Solution", "All frames")
    files = {c: tmp_path / f"{k}.{'gif' if k == 3 else 'png'}" for k, c in enumerate(captions)}
    for file in files.values():
        Image.new("RGB", (40, 20)).save(file)
    page = html(recorded("converged", []), files)
    places = [page.index(f"<figcaption>{caption}<") for caption in captions]
    assert places[0] > page.index("How it was found") > max(places[1:])
    assert page.count('class="broad"') == 4  # all are twice as wide as high


def test_a_solid_of_stiff_elements_is_doubted():
    mesh = cube("P1")
    boundary = {"boundary": Condition(dirichlet=(0.0, 0.0, 0.0))}
    problem = Problem(None, Elasticity(1.0, 0.499, force=(0.0, 0.0, 1.0)), boundary)
    assert any(isinstance(note, Doubt) for note in sciml.solve(problem, on=mesh).notes)
    finer = sciml.solve(problem, on=cube("P2"))
    assert not any(isinstance(note, Doubt) for note in finer.notes)
