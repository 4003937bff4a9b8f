"""What an engineer meets: names, reasons, lines through holes, walls, time refined with space."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import skfem
import torch

import sciml
from sciml.app import output, record
from sciml.app.converge import converge, refinement
from sciml.app.figures import plot_maps
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, recorded
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes
from sciml.core.problem.grid import Box, Grid, Points
from sciml.core.problem.mesh import Mesh, inside
from sciml.core.problem.problem import Condition, Problem, Time
from sciml.core.run.labels import Label, unit_of
from sciml.core.run.quantities import Line, Quantity
from sciml.core.run.series import over_time
from sciml.core.run.solution import Solution, Statistics
from sciml.core.run.status import Status
from sciml.discretization.volumes import functionals

matplotlib.use("agg")
BAR = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: general, f: k}
  parameters: {k: 2}
  boundary: {all: {dirichlet: 0}}
grid: {shape: [33]}
output:
  quantities: {most: {max: u}}
"""


def spec(text: str, *overrides: str) -> Any:
    return read_spec(parse_yaml(text, "spec.yaml"), overrides)


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as fault:
        output.check(spec(text, *overrides))
    return str(fault.value)


@pytest.mark.parametrize("kind", ["quantities", "probes"])
@pytest.mark.parametrize("name", ["pi", "u", "x", "k", "sin"])
def test_names_that_mean_something_are_taken(kind: str, name: str) -> None:
    value = "{max: u}" if kind == "quantities" else "[0.5]"
    assert f"'{name}' is the name of" in refused(BAR, f"output.{kind}.{name}={value}")


def test_what_is_left_over_names_the_way_to_remove_it() -> None:
    assert "--set labels=" in refused(BAR, "labels={gone: {unit: K}}")
    with pytest.raises(InputError, match="--set sweep="):
        over = "sweep={over: {k: {low: 1, high: 2}}}"
        spec(BAR, over, "problem.parameters.k=[1, 2]")


def test_several_initial_data_go_by_name() -> None:
    wave = BAR.replace("kind: general, f: k", "kind: wave, K: k")
    with pytest.raises(InputError, match=r"\{u: \.\.\., ut: \.\.\.\}"):
        spec(wave, "problem.time={end: 1}", "problem.initial=[x, 0]")


def told(text: str, *overrides: str) -> dict[str, str]:
    return output.facts(recorded(answer(spec(text, *overrides), Setting())))


def test_numbers_are_told_beside_what_is_none() -> None:
    asked = "output.quantities.root={integral: 'sqrt(k - 2.5)'}"
    few = told(BAR, asked, "problem.parameters.k=[2, 3.5]")["root"]
    assert few.startswith("-, 1; 1 of 2 cannot be told: ")
    many = told(BAR, asked, "problem.parameters.k=[1, 2.5, 3.5, 4, 5, 6, 6.5]")["root"]
    assert many.startswith("0 to 2 over 6 samples; 1 of 7 cannot be told: ")
    assert "root" in told(BAR, asked)["root"] and "cannot be told: it" in told(BAR, asked)["root"]


def test_a_frequency_that_is_none_says_why() -> None:
    t = torch.linspace(0, 3.2, 400, dtype=torch.float64)
    assert over_time("frequency", t, torch.sin(2 * math.pi * t)).why == ""
    assert "two periods" in over_time("frequency", t, t).why
    chirp = torch.sin(math.pi * t**4 / 3)
    assert "no oscillation" in over_time("frequency", t, chirp).why


def test_probes_are_told_in_their_unit() -> None:
    asked = "output.probes={P: [0.5]}", "labels={u: {unit: K}}"
    assert told(BAR, *asked)["P"] == "u 0.25 K  (at (0.5))"
    wave = BAR.replace("kind: general, f: k", "kind: helmholtz, wavenumber: k, f: 1")
    assert "0i K  (at" in told(wave, *asked, "output.quantities={q: {at: [0.3]}}")["P"]


def test_a_mean_over_time_is_exact_for_cubics_and_its_error_falls_with_the_fourth_power() -> None:
    t = torch.linspace(0, 2, 9, dtype=torch.float64)
    assert float(over_time("mean", t, t**3 - t).value) == pytest.approx(1.0, abs=1e-13)
    errors = []
    for n in (40, 80):
        s = torch.linspace(0, 3, n + 1, dtype=torch.float64)
        uneven = s + 0.2 * torch.sin(2 * s)
        exact = (1 - math.cos(4 * float(uneven[-1]))) / 4 / float(uneven[-1])
        errors.append(abs(float(over_time("mean", uneven, torch.sin(4 * uneven)).value) - exact))
    assert math.log2(errors[0] / errors[1]) > 3.4
    # A step next to one that is hardly any is not made worse.
    nearly = torch.tensor([0.0, 0.5, 0.5 + 1e-12, 1.0], dtype=torch.float64)
    noise = torch.tensor([0.0, 1e-9, 0.0, 0.0], dtype=torch.float64)
    assert abs(float(over_time("mean", nearly, nearly + noise).value) - 0.5) < 1e-8


COOLING = """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: heat, K: 1}
  boundary: {all: {dirichlet: 0}}
  time: {end: 0.1}
  initial: "sin(pi*x)"
grid: {shape: [17]}
solver: {kind: bdf, step: 0.01, rtol: 0.01}
output:
  quantities:
    end: {at: [0.5]}
    average: {at: [0.5], over_time: mean}
"""


def test_steps_in_time_are_refined_with_the_spacing() -> None:
    """exp(-pi^2 t) in the middle; with steps left alone the limit would be theirs."""
    cooling = spec(COOLING)
    assert "step from 0.01 to 0.0025" in refinement(cooling)
    trends = {t.name: t for t in converge(cooling, Setting())[0]}
    rate = math.pi**2 * 0.1
    exact = {"end": math.exp(-rate), "average": (1 - math.exp(-rate)) / rate}
    for name, value in exact.items():
        t = trends[name]
        gaps = [abs(v - value) for v in t.values]
        assert gaps[2] < gaps[0] / 4 and gaps[2] < 4e-4 * value, (name, gaps)
    assert "rtol from 1e-06 to 6.25e-08" in refinement(spec(COOLING, "solver="))


def holed() -> Mesh:
    """The unit square without its middle ninth."""
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, 1, 13), np.linspace(0, 1, 13))
    x, y = mesh.p[:, mesh.t].mean(1)
    gone = (abs(x - 0.5) < 1 / 6) & (abs(y - 0.5) < 1 / 6)
    kept = mesh.remove_elements(np.flatnonzero(gone))
    return Mesh(kept.p.T, kept.t.T, {}, {}, "P1")


def test_a_line_through_the_hole_of_a_mesh_is_told_where_there_is_an_answer() -> None:
    mesh = holed()
    p = Problem(None, sciml.Equation(f=1.0), {"boundary": Condition(dirichlet="x")})
    s = sciml.solve(p, on=mesh)
    places, found = output.along(s, Line((0.0, 0.5), (1.0, 0.5), 25))
    within = (places[:, 0] - 0.5).abs() < 1 / 6 - 1e-9
    assert torch.equal(found["u"].isnan(), within) and int(within.sum()) > 5
    rim = torch.tensor([[-1e-17, 0.3], [1 + 1e-16, 0.5], [0.5, 0.5], [1 + 1e-6, 0.5]])
    assert inside(mesh, rim.double()).tolist() == [True, True, False, False]
    assert float(s.sample(rim[1:2].double())) == pytest.approx(1.0)


def test_a_value_at_a_point_of_a_mesh_has_a_gradient() -> None:
    mesh = holed()
    f = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    p = Problem(
        None, sciml.Equation(f="f"), {"boundary": Condition(dirichlet=0.0)}, parameters={"f": f}
    )
    q = sciml.solve(p, on=mesh).quantity(at=(0.2, 0.2)).value
    (slope,) = torch.autograd.grad(q, f)
    assert float(slope) == pytest.approx(float(q.detach()))


def test_a_flow_tends_to_what_its_walls_give() -> None:
    """Poiseuille's flow is 4 y (1 - y), linear only over half a cell."""
    inflow = Condition(dirichlet=["4*y*(1 - y)", 0.0])
    wall, slides = Condition(dirichlet=[0.0, 0.0]), Condition(neumann=0.0)
    sides = {"left": inflow, "right": slides, "bottom": wall, "top": wall}
    p = Problem(
        Box((0.0, 0.0), (2.0, 1.0)),
        NavierStokes(viscosity=0.1),
        sides,
        time=Time(0.1),
        initial={"u": "4*y*(1 - y)", "v": 0.0},
    )
    s = sciml.solve(p, on=Grid((16, 8), "cell"))
    ys = torch.tensor([0.0, 0.02, 1 / 16, 0.5, 1.0], dtype=torch.float64)
    points = torch.stack([torch.full_like(ys, 1.0), ys], -1)
    u = s.sample(points)[-1, 0]
    assert u[0] == u[-1] == 0 and (u - 4 * ys * (1 - ys)).abs().max() < 4 / 16**2 + 1e-9
    assert u[1] == pytest.approx(0.32 * float(u[2]), rel=1e-9)
    assert float(s.quantity(at=(1.0, 0.02), of="u").value[-1]) == float(u[1])
    assert float(s.quantity(at=(0.0, 0.3), of="u").value[-1]) == pytest.approx(0.84)


def test_maps_stand_in_rows_with_named_axes() -> None:
    line = np.linspace(1, 2, 5)
    maps = {f"q{k}": np.full((5, 5), 1.0 + (k > 0) * line) for k in range(4)}
    figure = plot_maps(line, line, maps, ("k", "a"))
    panels = [a for a in figure.axes if a.get_label() != "<colorbar>"]
    assert [(a.get_xlabel(), a.get_ylabel()) for a in panels] == [("k", "a")] * 4
    assert figure.get_size_inches()[0] < 14


def test_a_run_that_replaces_another_says_what_differs(tmp_path: Path) -> None:
    assert record.replaced(tmp_path, spec(BAR)) is None
    record.write(tmp_path, recorded(answer(spec(BAR), Setting())))
    assert record.replaced(tmp_path, spec(BAR)) is None
    other = record.replaced(tmp_path, spec(BAR, "problem.parameters.k=3"))
    assert other is not None and other.endswith("spec: problem.parameters.k was 2.0, now 3.0")


def test_what_is_measured_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid is laid out once before the first step, whatever is asked for at every one."""
    laid, place_of = [], functionals.place_of
    monkeypatch.setattr(functionals, "place_of", lambda *a: laid.append(a) or place_of(*a))
    asked = "output.probes={P: [0.3], Q: [0.4]}"
    result = answer(spec(COOLING, asked), Setting())
    assert len(laid) == 1 and result.measured is not None


def test_units_of_stresses_go_along() -> None:
    field_of = output._field_of(Quantity(max="syy"), ("u", "v"))
    assert unit_of({"stress": Label(unit="MPa")}, "peak", *field_of) == "MPa"


def test_a_trained_function_is_measured_where_it_is_asked() -> None:
    """u = x1^2 + x2 x3 + t in four dimensions, of the function itself and of scattered values."""
    box = Box((0.0,) * 4, (1.0, 1.0, 2.0, 1.0))
    p = Problem(
        box,
        sciml.Equation(kind="heat"),
        {"all": Condition(dirichlet=0.0)},
        time=Time(1.0),
        initial=0.0,
    )

    def function(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] ** 2 + x[:, 1] * x[:, 2] + x[:, 4])[:, None]

    on = Points(2048).bind(box)
    cloud = torch.stack(on.coordinates(), -1)
    ends = (0.0, 1.0)
    value = torch.stack(
        [function(torch.cat([cloud, torch.full_like(cloud[:, :1], t)], -1))[:, 0] for t in ends]
    )
    s = Solution(
        value,
        torch.tensor(0.0),
        (Status.CONVERGED,),
        Statistics(torch.tensor(1), torch.ones(1), 0.0, 0.0),
        on,
        times=torch.tensor(ends, dtype=torch.float64),
        function=function,
        problem=p,
    )
    at = (0.3, 0.4, 1.5, 0.2)
    assert s.quantity(at=at).value.tolist() == pytest.approx([0.69, 1.69])
    assert s.quantity(at=at, of="ux1 + ux2*x1").value.tolist() == pytest.approx([0.6 + 0.45] * 2)
    assert s.sample(torch.tensor([at]))[:, 0].tolist() == pytest.approx([0.69, 1.69])
    for known in (s, dataclasses.replace(s, function=None)):
        total = known.quantity(integral="u")
        assert total.value.tolist() == pytest.approx([2 / 3 + 1, 2 / 3 + 3], abs=2e-3)
        half = known.quantity(mean="u", region="x1 < 0.5").value
        assert half.tolist() == pytest.approx([1 / 12 + 0.5, 1 / 12 + 1.5], abs=5e-3)
        assert float(known.quantity(max="u", over_time="max").value) == pytest.approx(4, abs=0.4)
    # Through x1 = 1 leaves 2 x1 of the gradient on an area of 2.
    assert s.quantity(integral="ux1*nx", on="x1_high").value.tolist() == pytest.approx([4.0] * 2)
    with pytest.raises(InputError, match="only the trained function tells"):
        dataclasses.replace(s, function=None).quantity(at=at)
    with pytest.raises(InputError, match="outside the domain"):
        s.quantity(at=(2.0, 0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="written out"):
        s.quantity(flux="u", on="x1_high")
