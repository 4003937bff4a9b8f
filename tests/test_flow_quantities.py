"""Forces of a flow balance to rounding; series in time give extremes and frequencies."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sciml
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Obstacle, Problem, Time
from sciml.core.run.series import over_time
from sciml.solvers import Projection

WALL, ROUND = Condition(dirichlet=[0, 0]), Condition(periodic=True)
DIRECTIONS = (1.0, 0.0), (0.0, 1.0)


def forces(solution, parts) -> list[float]:
    return [
        sum(float(solution.quantity(force=d, on=part).value[-1]) for part in parts)
        for d in DIRECTIONS
    ]


@pytest.mark.parametrize("grid", [Grid((8, 7), "cell"), Grid((9, 8))])
def test_forces_on_the_walls_of_a_cavity_cancel(grid):
    lid = Condition(dirichlet=["16*x**2*(1 - x)**2", 0])
    boundary = {"left": WALL, "right": WALL, "bottom": WALL, "top": lid}
    box = Box((0.0, 0.0), (1.0, 1.0))
    p = Problem(box, NavierStokes(viscosity=0.1), boundary, time=Time(20.0), initial=0.0)
    s = sciml.solve(p, Projection(steady_tolerance=1e-11), on=grid)
    assert forces(s, p.boundary) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert abs(float(s.quantity(force=(1, 0), on="top").value[-1])) > 0.1


@pytest.mark.parametrize("shape", [(20, 10), (21, 10)])
def test_drag_and_lift_of_a_disc_and_the_shear_of_walls_are_what_drives_the_flow(shape):
    disc = Obstacle("(x - 0.93)**2 + (y - 0.52)**2 < 0.04", WALL)
    boundary = {"left": ROUND, "right": ROUND, "bottom": WALL, "top": WALL}
    equation, box = NavierStokes(viscosity=0.1, force=[1.0, 0.3]), Box((0.0, 0.0), (2.0, 1.0))
    p = Problem(box, equation, boundary, disc, time=Time(50.0), initial=0.0)
    s = sciml.solve(p, Projection(steady_tolerance=1e-10, rtol=1e-11), on=Grid(shape, "cell"))
    # The force acts on the free faces, on the half cells at the walls too.
    x, y = Grid(shape, "cell", box).coordinates()
    h, k = 2 / shape[0], 1 / shape[1]

    def free(x, y) -> int:
        return int(((x - 0.93) ** 2 + (y - 0.52) ** 2 >= 0.04).sum())

    along = free(x - h / 2, y) * h * k
    across = 0.3 * (free(x, y - k / 2) * h * k)
    assert forces(s, ("bottom", "top", "obstacle")) == pytest.approx([along, across], abs=1e-8)


def test_a_force_on_what_has_none_is_refused():
    boundary = {"left": Condition(dirichlet=[1, 0]), "right": Condition(neumann=0)}
    boundary |= {"bottom": WALL, "top": WALL}
    box = Box((0.0, 0.0), (1.0, 1.0))
    p = Problem(box, NavierStokes(viscosity=0.1), boundary, time=Time(0.01), initial=0.0)
    s = sciml.solve(p, on=Grid((8, 8), "cell"))
    for wrong, why in (
        (dict(force=(1, 0), on="right"), "outlet"),
        (dict(force=(1, 0), on="obstacle"), "there is no part"),
        (dict(force=(1, 0, 0), on="top"), "2 components"),
        (dict(flux="u", on="right"), "u\\*nx"),
    ):
        with pytest.raises(InputError, match=why):
            s.quantity(**wrong)


def test_the_frequency_of_a_swing_is_within_its_uncertainty():
    t = torch.cumsum(0.02 * torch.rand(2000, generator=torch.Generator().manual_seed(0)), 0)
    t = t.double()
    found = over_time("frequency", t, 3 + torch.sin(2 * math.pi * 1.7 * t + 0.3))
    assert float(found.value) == pytest.approx(1.7, abs=4 * float(found.error))
    assert float(found.error) < 1e-3
    assert math.isnan(float(over_time("frequency", t, torch.exp(-t)).value))
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0), dtype=t.dtype)
    assert math.isnan(float(over_time("frequency", t, noise).value))
    gap = torch.where(t > 1, torch.sin(9 * t), torch.nan)
    assert math.isnan(float(over_time("frequency", t, gap).value))
    mean = over_time("mean", t, 2 + t).value
    assert float(mean) == pytest.approx(2 + float(t[0] + t[-1]) / 2)
    assert float(over_time("max", t, t).value) == float(t[-1])


SWING = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: heat, K: 1}
  parameters: {k: [2, 3]}
  boundary: {left: {dirichlet: "k*sin(2*pi*5*t)"}, right: {dirichlet: 0}}
  time: {end: 0.7}
  initial: 0
grid: {shape: [21]}
solver: {kind: sdirk, step: 0.01}
output:
  quantities:
    swing: {at: [0.05], over_time: frequency, after: 0.05}
    highest: {at: [0.05], over_time: max, after: 0.2}
    inside: {integral: u}
    share: {formula: highest/k_at_side}
    k_at_side: {max: "k"}
"""


def test_over_time_every_step_counts_and_formulas_name_what_stands_before(tmp_path: Path):
    with pytest.raises(InputError, match="k_at_side"):
        answer(read_spec(parse_yaml(SWING, "swing.yaml")), Setting())
    stated = SWING.replace("    share: {formula: highest/k_at_side}\n", "")
    stated += "    share: {formula: highest/k_at_side}\n    rest: {formula: inside*highest}\n"
    spec = read_spec(parse_yaml(stated, "swing.yaml"))
    result = answer(spec, Setting(), frames=tmp_path / "frames.h5")
    found = result.measured.quantities
    assert found["swing"].value.tolist() == pytest.approx([5, 5], rel=2e-2)
    # Of the half space exp(-x sqrt(omega / 2)).
    decay = math.exp(-0.05 * math.sqrt(5 * math.pi))
    assert found["share"].value[:, -1].tolist() == pytest.approx([decay, decay], rel=2e-2)
    assert found["rest"].value.shape == (2, 2)
    header = (tmp_path / "probes.csv").read_text().splitlines()[0]
    assert header == "sample,t,swing,highest"
    # A run that found all its frames has its series from the table.
    again = answer(spec, Setting(), frames=tmp_path / "frames.h5").measured.quantities
    assert torch.equal(again["swing"].value, found["swing"].value)
    assert torch.equal(again["highest"].value, found["highest"].value)


def test_a_time_that_is_none_is_refused():
    spec = read_spec(parse_yaml(SWING.replace("after: 0.2}", "after: 2}"), "swing.yaml"))
    with pytest.raises(InputError, match=r"after: time runs from 0 to 0\.7"):
        answer(spec, Setting())
    steady = replace(spec.problem, time=None, initial=None)
    with pytest.raises(InputError, match="no time"):
        answer(replace(spec, problem=steady), Setting())


def test_a_vortex_leaves_through_an_outlet():
    """A blob of vorticity in a stream: it goes out, and the stream is left as it was."""
    x, y = "(x - 0.7)", "(y - 0.5)"
    blob = f"exp(-40*({x}**2 + {y}**2))"
    stream = Condition(dirichlet=[1, 0])
    boundary = {"left": stream, "right": Condition(neumann=0), "bottom": stream, "top": stream}
    p = Problem(
        Box((0.0, 0.0), (1.0, 1.0)),
        NavierStokes(viscosity=0.0005),
        boundary,
        time=Time(1.5, frames=7),
        initial={"u": f"1 - 20*{y}*{blob}", "v": f"20*{x}*{blob}"},
    )
    s = sciml.solve(p, on=Grid((24, 24), "cell"))
    fastest = s.value[:, :2].square().sum(1).sqrt().flatten(1).amax(1)
    assert fastest.max() == fastest[0]
    assert float((s.value[-1, 0] - 1).abs().max()) < 0.25


def test_a_maximum_lies_between_instants_where_values_are_smooth() -> None:
    errors = []
    for n in (10, 20):
        t = (torch.arange(5 * n, dtype=torch.float64) + 0.5) / n + 0.25
        wave = torch.stack([torch.sin(2 * math.pi * t), 3 - torch.sin(2 * math.pi * t)])
        errors.append(
            float((over_time("max", t, wave).value - torch.tensor([1.0, 4.0])).abs().max())
        )
        assert abs(float(over_time("min", t, -wave[0]).value) + 1) <= errors[-1] + 1e-12
    assert errors[0] < 5e-4 and errors[1] < errors[0] / 40
    uneven = t + 0.3 / 20 * torch.sin(9 * t)
    assert float(over_time("max", uneven, torch.sin(2 * math.pi * uneven)).value) == pytest.approx(
        1, abs=1e-5
    )
    # Beside a jump or a kink a polynomial would be larger than any value.
    assert float(over_time("max", t, (t > 1).double()).value) == 1
    assert float(over_time("max", t, -(t - 1.01).abs()).value) == float((-(t - 1.01).abs()).max())
