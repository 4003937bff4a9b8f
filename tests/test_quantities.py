"""Quantities: fluxes balance to rounding; orders, exact values, gradients; nonsense is one line."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import skfem
import torch
from typer.testing import CliRunner

import sciml
from sciml.app.cli import app
from sciml.app.console import Watch
from sciml.app.converge import converge
from sciml.app.read import load_spec, read_spec
from sciml.app.run import Setting, answer
from sciml.app.sweep import Solves, read_over, stated, sweep, traced, write
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import Elasticity, Equation, Helmholtz, System
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.mesh import Mesh, refined
from sciml.core.problem.problem import Condition, Obstacle, Problem, Robin, Time
from sciml.core.problem.quadrature import whole
from sciml.core.run.quantities import Quantity
from sciml.solvers import CG, SDIRK, Multigrid

SQUARE = Box((0.0, 0.0), (1.0, 1.0))
MIXED = {
    "left": Condition(dirichlet="y"),
    "right": Condition(dirichlet=0.0),
    "bottom": Condition(neumann="x"),
    "top": Condition(robin=Robin(2.0, "1 + x")),
}
TIGHT = CG(preconditioner=Multigrid(), rtol=1e-12)


def rectangle(nx: int, ny: int, length: float, height: float, element: str) -> Mesh:
    mesh = skfem.MeshTri.init_tensor(np.linspace(0, length, nx + 1), np.linspace(0, height, ny + 1))
    x, y = mesh.p[:, mesh.facets].mean(1)
    sides = {
        "left": x < 1e-9,
        "right": x > length - 1e-9,
        "bottom": y < 1e-9,
        "top": y > height - 1e-9,
    }
    named = {name: mesh.facets[:, there].T for name, there in sides.items()}
    return Mesh(mesh.p.T, mesh.t.T, {}, named, element)


@pytest.mark.parametrize("centring", ["node", "cell"])
@pytest.mark.parametrize("K", ["1 + x*y", ["1 + x", "2 - y"]])
def test_what_leaves_is_what_is_made(centring, K):
    p = Problem(SQUARE, Equation(K=K, f="sin(3*x) + y"), MIXED)
    s = sciml.solve(p, TIGHT, on=Grid((33, 29), centring))
    out = sum(float(s.quantity(flux="u", on=side)) for side in MIXED)
    assert out == pytest.approx(float(s.quantity(integral="sin(3*x) + y")), abs=1e-10)


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_a_nonlinear_flux_balances(centring):
    p = Problem(SQUARE, Equation(K="1 + u**2", f=1.0), {"all": Condition(dirichlet="x*y")})
    s = sciml.solve(p, on=Grid((25, 25), centring))
    out = sum(float(s.quantity(flux="u", on=side)) for side in p.boundary)
    assert out == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("rim", [Condition(dirichlet=1.0), Condition(robin=Robin(1.0, 2.0))])
def test_the_flux_through_a_rim_balances_the_rest(rim):
    hole = Obstacle("(x - 0.5)**2 + (y - 0.45)**2 < 0.04", rim)
    p = Problem(SQUARE, Equation(), {"all": Condition(dirichlet=0.0)}, obstacle=hole)
    s = sciml.solve(p, TIGHT, on=Grid((41, 41)))
    parts = [float(s.quantity(flux="u", on=name)) for name in (*p.boundary, "obstacle")]
    assert abs(sum(parts)) < 1e-8 < abs(parts[0])


def test_the_area_that_an_obstacle_leaves_converges_with_second_order():
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.09", Condition(dirichlet=1.0))
    p = Problem(SQUARE, Equation(), {"all": Condition(dirichlet=0.0)}, obstacle=hole)
    errors = []
    for n in (17, 65):
        s = sciml.solve(p, TIGHT, on=Grid((n, n)))
        errors.append(abs(float(s.quantity(integral=1)) - (1 - 0.09 * math.pi)))
    assert errors[1] < errors[0] / 8 or errors[1] < 1e-5


def test_between_points_near_a_rim_values_are_of_second_order():
    """u = log(r / 0.2) around a disc, at points just outside its rim."""
    exact = "0.5*log(((x - 0.5)**2 + (y - 0.5)**2)/0.04)"
    hole = Obstacle("(x - 0.5)**2 + (y - 0.5)**2 < 0.04", Condition(dirichlet=0.0))
    p = Problem(SQUARE, Equation(), {"all": Condition(dirichlet=exact)}, obstacle=hole)
    angles = torch.linspace(0, 2 * math.pi, 60, dtype=torch.float64)[:-1]
    errors = []
    for n in (33, 65, 129):
        s = sciml.solve(p, TIGHT, on=Grid((n, n)))
        worst = 0.0
        for a in angles.tolist():
            point = (0.5 + 0.201 * math.cos(a), 0.5 + 0.201 * math.sin(a))
            found = float(s.quantity(at=point))
            assert float(s.sample(torch.tensor([point], dtype=torch.float64))) == found
            worst = max(worst, abs(found - math.log(0.201 / 0.2)))
        errors.append(worst)
    assert math.log2(errors[0] / errors[2]) / 2 > 1.7


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_the_flux_converges_with_second_order(centring):
    """u = sin(pi x) cosh(y) with K = 1 + x: what leaves on the right is 2 pi sinh(1).

    Of cells, whose corners are an h / 2 from two sides, the error is h^2 log(1/h).
    """
    f = "-pi*cos(pi*x)*cosh(y) + (1 + x)*(pi**2 - 1)*sin(pi*x)*cosh(y)"
    p = Problem(SQUARE, Equation(K="1 + x", f=f), {"all": Condition(dirichlet="sin(pi*x)*cosh(y)")})
    errors = []
    for n in (32, 64):
        s = sciml.solve(p, TIGHT, on=Grid((n, n), centring))
        errors.append(abs(float(s.quantity(flux="u", on="right")) - 2 * math.pi * math.sinh(1)))
    order = 2 if centring == "node" else 2 - math.log2(math.log(64) / math.log(32))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_the_flux_of_a_moving_side_counts_what_is_stored_there():
    """u = exp(t) sinh(x) of u_t = u_xx: K u_x on the right is exp(t) cosh(1)."""
    errors = []
    for n in (17, 33):
        p = Problem(
            Box((0.0,), (1.0,)),
            Equation(d=1.0),
            {"left": Condition(dirichlet=0.0), "right": Condition(dirichlet="exp(t)*sinh(1)")},
            time=Time(0.5, frames=3),
            initial="sinh(x)",
        )
        s = sciml.solve(p, SDIRK(rtol=1e-9), on=Grid((n,)))
        found = s.quantity(flux="u", on="right").value
        assert found.shape == (3,)
        errors.append(float((found + torch.exp(s.times) * math.cosh(1)).abs().max()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)


def test_gradient_of_a_flux_by_K():
    def outflow(k: torch.Tensor) -> torch.Tensor:
        p = Problem(SQUARE, Equation(K=k, f=1.0), MIXED)
        s = sciml.solve(p, TIGHT, on=Grid((9, 9)))
        return s.quantity(flux="u", on="right").value

    k = 1 + torch.rand(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    way = torch.rand(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = k.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(outflow(given), given)
    numeric = (outflow(k + 1e-5 * way) - outflow(k - 1e-5 * way)) / 2e-5
    assert float((slope * way).sum()) == pytest.approx(float(numeric), rel=1e-6)


def test_regions_sides_slopes_and_where():
    p = Problem(SQUARE, Equation(), {"all": Condition(dirichlet="2*x + 3*y")})
    s = sciml.solve(p, TIGHT, on=Grid((21, 21)))
    assert float(s.quantity(integral="ux*uy")) == pytest.approx(6)
    assert float(s.quantity(integral=1, region="x + y < 1")) == pytest.approx(0.5)
    assert float(s.quantity(mean="u", on="top")) == pytest.approx(4)
    assert float(s.quantity(integral="nx*ux + ny*uy", on="left")) == pytest.approx(-2)
    top = s.quantity(max="u")
    assert float(top) == pytest.approx(5)
    assert top.place.tolist() == [1.0, 1.0]
    assert s.quantity(min="u - 10*x", on="bottom").place.tolist() == [1.0, 0.0]


def test_a_batch_gives_one_number_a_sample():
    p = Problem(
        SQUARE,
        Equation(K="k"),
        {"all": Condition(dirichlet="x")},
        parameters={"k": [1.0, 2.0, 5.0]},
    )
    s = sciml.solve(p, TIGHT, on=Grid((9, 9)))
    assert s.quantity(flux="u", on="left").value.tolist() == pytest.approx([1, 2, 5])
    assert s.quantity(max="k*u").value.tolist() == pytest.approx([1, 2, 5])


@pytest.mark.parametrize("element", ["P1", "P2"])
def test_fluxes_on_a_mesh_balance(element):
    p = Problem(
        None,
        Equation(K="1 + x", f="y", c=0.5),
        {**MIXED, "bottom": Condition(dirichlet=0.0), "right": Condition(neumann="x")},
    )
    s = sciml.solve(p, on=rectangle(12, 10, 1, 1, element))
    out = sum(float(s.quantity(flux="u", on=side)) for side in p.boundary)
    made = float(s.quantity(integral="y - 0.5*u"))
    assert out == pytest.approx(made, abs=1e-6)


@pytest.mark.parametrize(("element", "order"), [("P1", 2), ("P2", 3)])
def test_parts_that_meet_have_each_its_own_flux(element, order):
    """One side of four: by shares of area it would be of first order, with any elements."""
    u = "exp(x)*sin(2*y + 0.3)"
    p = Problem(None, Equation(f=f"3*{u}"), dict.fromkeys(MIXED, Condition(dirichlet=u)))
    exact = {
        "left": (math.cos(0.3) - math.cos(2.3)) / 2,
        "bottom": 2 * (math.e - 1) * math.cos(0.3),
    }
    sizes = (16, 32) if element == "P1" else (4, 8)
    found = [sciml.solve(p, on=rectangle(n, n, 1, 1, element)) for n in sizes]
    for side, wanted in exact.items():
        errors = [abs(float(s.quantity(flux="u", on=side)) - wanted) for s in found]
        assert math.log2(errors[0] / errors[1]) > order - 0.4 and errors[1] < 2e-3


def test_the_pull_on_one_of_four_sides_that_hold_a_body():
    E, nu = 5.0, 0.3
    first, second = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
    body = (
        f"{first + 2 * second}*sin(x)*y**2 - {second}*2*sin(x)",
        f"-{first + second}*2*cos(x)*y",
    )
    held = Condition(dirichlet=("sin(x)*y**2", 0.0))
    p = Problem(None, Elasticity(E, nu, force=body), dict.fromkeys(MIXED, held))
    errors = []
    for n in (4, 8):
        s = sciml.solve(p, on=rectangle(n, n, 1, 1, "P2"))
        pull = float(s.quantity(force=(1.0, 0.0), on="right"))
        errors.append(abs(pull - (first + 2 * second) * math.cos(1) / 3))
    assert math.log2(errors[0] / errors[1]) > 2.3 and errors[1] < 1e-3


def test_reactions_balance_the_loads():
    p = Problem(
        None,
        Elasticity(young=200.0, poisson_ratio=0.3, plane="stress", force=(0.5, -1.0)),
        {
            "left": Condition(dirichlet=(0.0, 0.0)),
            "right": Condition(neumann=(0.0, -3.0)),
            "top": Condition(neumann=0.0),
            "bottom": Condition(dirichlet=(None, 0.0)),
        },
    )
    s = sciml.solve(p, on=rectangle(16, 4, 2, 0.5, "P2"))
    for direction, load in (((1.0, 0.0), 0.5), ((0.0, 1.0), -1.0 - 1.5)):
        sides = [float(s.quantity(force=direction, on=name)) for name in p.boundary]
        body = {0.5: 0.5, -2.5: -1.0}[load]
        assert sum(sides) + body == pytest.approx(0, abs=1e-5)


def test_recovered_stress_of_a_quadratic_displacement_is_exact_at_the_nodes():
    """u = (x^2, x y): with lambda and mu of plane strain sigma_xx = (3 lambda + 4 mu) x."""
    E, nu = 1.0, 0.25
    lame, mu = E * nu / ((1 + nu) * (1 - 2 * nu)), E / (2 * (1 + nu))
    p = Problem(
        None,
        Elasticity(
            young=E, poisson_ratio=nu, plane="strain", force=(-(3 * lame + 4 * mu) - mu, 0.0)
        ),
        {"all": Condition(dirichlet=0.0)},
    )
    sides = dict.fromkeys(("left", "right", "bottom", "top"), Condition(dirichlet=("x**2", "x*y")))
    p = Problem(None, p.equation, sides)
    s = sciml.solve(p, TIGHT_MESH, on=rectangle(4, 3, 1, 1, "P2"))
    assert float(s.quantity(max="sxx")) == pytest.approx(3 * lame + 4 * mu, rel=1e-7)
    assert float(s.quantity(at=(0.5, 1.0), of="sxy")) == pytest.approx(mu, rel=1e-7)
    assert float(s.quantity(integral="sxx", on="right")) == pytest.approx(3 * lame + 4 * mu)
    assert float(s.quantity(integral="syy")) == pytest.approx((3 * lame + 2 * mu) / 2)


TIGHT_MESH = sciml.solvers.Direct()

WRONG = [
    (dict(max="w"), "unknown name 'w'"),
    (dict(flux="u", on="lefft"), "did you mean 'left'"),
    (dict(flux="T", on="left"), "no field 'T'"),
    (dict(flux="u"), "give on:"),
    (dict(at=(2.0, 0.0)), "outside"),
    (dict(at=(0.5,)), "2 coordinates"),
    (dict(force=(1.0, 0.0), on="left"), "elastic body"),
    (dict(max="u", min="u"), "exactly one"),
    (dict(max="nx"), "on a side only"),
    (dict(integral="u", region="x"), "condition"),
    (dict(integral="t"), "no time"),
]


@pytest.mark.parametrize(("stated", "message"), WRONG)
def test_nonsense_is_one_line(stated, message):
    p = Problem(SQUARE, Equation(), {"all": Condition(dirichlet="x")})
    s = sciml.solve(p, on=Grid((9, 9)))
    with pytest.raises(InputError, match=message):
        s.quantity(Quantity(**stated))


SPEC = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: poisson, f: 1}
  boundary:
    all: {dirichlet: 0}
grid: {shape: [33, 33]}
output:
  probes: {middle: [0.5, 0.5]}
  lines: {across: {start: [0, 0.5], end: [1, 0.5], points: 5}}
  quantities:
    out: {flux: u, on: left}
    hottest: {max: u}
"""


def test_a_spec_reports_what_it_asks_for(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(SPEC)
    run = CliRunner().invoke(app, ["solve", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "r")])
    assert run.exit_code == 0, run.output
    assert "hottest" in run.output
    with open(tmp_path / "r" / "quantities.csv") as file:
        row = next(csv.DictReader(file))
    assert float(row["out"]) == pytest.approx(0.25, abs=1e-6)
    assert float(row["hottest"]) == pytest.approx(0.0736713, rel=2e-3)
    with open(tmp_path / "r" / "line-across.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[2]["u"]) == pytest.approx(float(row["hottest"]))
    assert "Quantities" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("output.probes.middle=[3, 0]", "output.probes.middle"),
        ("output.quantities.out.on=west", "output.quantities.out.on"),
        ("output.quantities.middle={max: u}", "output.quantities.middle"),
        ("output.lines.across.end=[1, 2]", "output.lines.across.end"),
        ("output.quantities.hottest.max=v", "output.quantities.hottest.max"),
        ("output.quantities.hottest.region=x > 30", "output.quantities.hottest.region"),
        ('output.lines={"../across": {start: [0, 0], end: [1, 0]}}', "output.lines"),
    ],
)
def test_what_cannot_be_measured_is_said_before_the_solve(change, key, tmp_path: Path):
    (tmp_path / "p.yaml").write_text(SPEC)
    for command in ("validate", "solve"):
        arguments = [command, str(tmp_path / "p.yaml"), "--set", change]
        run = CliRunner().invoke(app, arguments)
        assert run.exit_code == 2
        assert f"{key}: " in run.output
        assert "iterations" not in run.output


HEAT = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: heat, K: 1}
  boundary:
    all: {dirichlet: 0}
  time: {end: 0.05, frames: 6}
  initial: "sin(pi*x)*sin(pi*y)"
grid: {shape: [17, 17]}
solver: {kind: sdirk, rtol: 1.0e-6}
output:
  probes: {middle: [0.5, 0.5]}
"""


def test_probes_see_every_step_and_a_killed_run_loses_none(tmp_path: Path):
    spec = read_spec(parse_yaml(HEAT, "heat.yaml"))
    whole = tmp_path / "whole" / "frames.h5"
    result = answer(spec, Setting(), frames=whole)
    expected = (tmp_path / "whole" / "probes.csv").read_text()
    rows = list(csv.reader(expected.splitlines()))[1:]
    assert len(rows) == int(result.solution.stats.iterations.max()) + 1
    assert float(rows[-1][1]) == pytest.approx(math.exp(-0.1 * math.pi**2), rel=4e-3)

    killed = tmp_path / "killed" / "frames.h5"
    killed.parent.mkdir()
    _killed(killed.parent, spec)
    assert (killed.parent / "probes.csv").read_text() != expected
    answer(spec, Setting(), frames=killed)
    assert (killed.parent / "probes.csv").read_text() == expected


def _killed(folder: Path, spec) -> list[list[str]]:
    """The folder of a run that is killed between two frames, and the rows it wrote."""

    class Killed(Exception):
        pass

    def dies(line: str, reached: float) -> None:
        if reached > 0.033:
            raise Killed

    with pytest.raises(Killed):
        answer(spec, Setting(), Watch(dies, spec.problem.time), folder / "frames.h5")
    return list(csv.reader((folder / "probes.csv").read_text().splitlines()))


PEAK = "output.quantities={most: {max: u, over_time: max}, late: {max: u, over_time: max, after: "


def test_a_row_that_nothing_vouches_for_is_unknown(tmp_path: Path):
    """Of what is damaged and what follows up to the frame from which the run goes on."""
    spec = read_spec(parse_yaml(HEAT, "heat.yaml"), [PEAK + "0.04}}"])
    rows = _killed(tmp_path, spec)
    table, sums = tmp_path / "probes.csv", tmp_path / "probes.csv.sha256"
    text, hashes = table.read_bytes(), sums.read_bytes()
    frames = (tmp_path / "frames.h5").read_bytes()

    def resumed() -> tuple[list[dict[str, str]], list[float], tuple[str, ...]]:
        (tmp_path / "frames.h5").write_bytes(frames)
        found = answer(spec, Setting(), frames=tmp_path / "frames.h5")
        told = [float(found.measured.quantities[name]) for name in ("most", "late")]
        with open(table) as file:
            said = tuple(n for n in found.solution.notes if n.startswith("probes.csv"))
            return list(csv.DictReader(file)), told, said

    whole = resumed()
    late = next(float(row["late"]) for row in whole[0] if float(row["t"]) >= 0.04)
    assert whole[1] == [1.0, late] and not whole[2]
    # Killed between a row and its hash: the row is measured again.
    table.write_bytes(text + b"0.035,9,9,9\r\n")
    sums.write_bytes(hashes)
    assert resumed() == whole
    # The power failed: the row at the frame is missing, and there may have been others.
    for cut in (text, text[: text.rstrip().rfind(b"\n") + 1]):
        table.write_bytes(cut)
        sums.write_bytes(hashes[: hashes.rstrip().rfind(b"\n") + 1])
        found, told, said = resumed()
        (gap,) = [float(row["t"]) for row in found if row["most"] == "nan"]
        assert 0.03 - 1e-10 < gap < 0.03
        assert math.isnan(told[0]) and told[1] == late and "between t = 0.025 and 0.03" in said[0]
    # A digit of the second row: the first alone stays, and the largest value cannot be told.
    place = text.index(rows[2][1].encode()) + 4
    table.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
    sums.write_bytes(hashes)
    found, told, said = resumed()
    assert [row["t"] for row in found[:1]] == ["0.0"] and found[1]["middle"] == "nan"
    assert found[2:] == whole[0][-len(found) + 2 :]
    assert math.isnan(told[0]) and told[1] == whole[1][1]
    assert said and "not as they were written" in said[0]
    assert math.isnan(resumed()[1][0])  # a second time, too


def test_a_probe_that_was_moved_is_unknown_before(tmp_path: Path):
    spec = read_spec(parse_yaml(HEAT, "heat.yaml"))
    _killed(tmp_path, spec)
    moved = read_spec(parse_yaml(HEAT, "heat.yaml"), ["output.probes.middle=[0.25, 0.5]"])
    notes = answer(moved, Setting(), frames=tmp_path / "frames.h5").solution.notes
    rows = list(csv.reader((tmp_path / "probes.csv").read_text().splitlines()))
    assert float(rows[1][0]) == pytest.approx(0.03)
    assert any("of middle nothing is known before t = 0.03" in note for note in notes)


def test_what_is_asked_only_of_a_later_part_cannot_be_told_of_the_whole(tmp_path: Path):
    (tmp_path / "p.yaml").write_text(HEAT)
    solve = ["solve", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "r")]
    over = "{max: u, over_time: max"
    more = f"output.quantities={{most: {over}}}, end: {over}, after: 0.06}}}}"
    assert CliRunner().invoke(app, solve).exit_code == 0
    later = ["--set", "problem.time.end=0.1", "--set", "problem.time.frames=11", "--set", more]
    run = CliRunner().invoke(app, [*solve, *later])
    assert run.exit_code == 0 and "went on from frame 6" in run.output
    with open(tmp_path / "r" / "probes.csv") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["middle"]) == 1.0 and rows[0]["most"] == "nan"
    told = json.loads((tmp_path / "r" / "run.json").read_text())["quantities"]
    assert told["most"]["value"] is None
    assert told["end"]["value"] == pytest.approx(math.exp(-2 * math.pi**2 * 0.06), rel=0.05)


def test_converge_finds_order_and_limit(tmp_path: Path):
    root = Path(__file__).parents[1] / "configs" / "reference"
    trends, _ = converge(load_spec(root / "torsion.yaml"), Setting())
    middle = next(t for t in trends if t.name == "middle")
    assert middle.order == pytest.approx(2, abs=0.1)
    assert middle.extrapolated == pytest.approx(middle.published, rel=1e-5)
    assert abs(middle.values[-1] - middle.published) < 1.5 * middle.error


def test_a_corner_is_told_by_its_order():
    """The energy of u = r^(2/3) sin(2 theta/3) converges with h^(4/3)."""
    root = Path(__file__).parents[1] / "configs" / "reference"
    trends, _ = converge(load_spec(root / "l-shape.yaml"), Setting())
    energy = next(t for t in trends if t.name == "energy")
    assert energy.order == pytest.approx(4 / 3, abs=0.1)


def test_a_refined_mesh_keeps_its_groups_and_its_measure():
    fine = refined(rectangle(3, 2, 1, 1, "P1"))
    assert len(fine.cells) == 4 * 12
    assert {n: len(f) for n, f in fine.facets.items()} == {
        "left": 4,
        "right": 4,
        "bottom": 6,
        "top": 6,
    }
    cube = skfem.MeshTet.init_tensor(*(np.linspace(0, 1, 3),) * 3)
    mesh = Mesh(cube.p.T, cube.t.T, {"half": np.arange(10)}, {}, "P1")
    fine = refined(mesh)
    part = whole(fine, 1).scale / 6
    assert float(part.sum()) == pytest.approx(1)
    half = float(part[torch.from_numpy(fine.subdomains["half"])].sum())
    assert half == pytest.approx(float((whole(mesh, 1).scale / 6)[:10].sum()))
    assert sum(len(f) for f in fine.facets.values()) == 4 * sum(
        len(f) for f in mesh.facets.values()
    )


def test_published_values(tmp_path: Path):
    """NAFEMS T4: 18.25 C at (0.6, 0.2), its heat balanced to rounding."""
    root = Path(__file__).parents[1] / "configs" / "reference"
    found = answer(load_spec(root / "nafems-t4.yaml"), Setting()).measured
    assert found is not None
    values = {name: float(m) for name, m in found.quantities.items()}
    assert values["T"] == pytest.approx(18.25, abs=0.02)
    parts = [values[name] for name in ("heat_in", "heat_right", "heat_top")]
    assert abs(sum(parts)) < 1e-6 * max(map(abs, parts))


def test_the_flux_of_a_side_that_radiates_balances_on_a_mesh():
    sides = {**MIXED, "right": Condition(robin=Robin("1 + u**3", "2*u"))}
    p = Problem(None, Equation(f=1.0), sides)
    s = sciml.solve(p, on=rectangle(8, 8, 1, 1, "P2"))
    assert sum(float(s.quantity(flux="u", on=side)) for side in sides) == pytest.approx(1, abs=1e-7)


def test_a_sweep_solves_where_the_curve_needs_it():
    """A smooth curve is a series of few points, one with a kink in its slope a spline."""
    over = read_over("k=0:1")

    def smooth(places: np.ndarray) -> np.ndarray:
        return np.exp(over.at(places))[:, None]

    def kinked(places: np.ndarray) -> np.ndarray:
        return np.abs(over.at(places) - 0.4)[:, None] ** 1.5

    at = np.linspace(0, 1, 1001)
    curve = traced(smooth, ["u"], over, 1e-8)
    assert (curve.kind, len(curve.places)) == ("chebyshev", 17)
    assert np.abs(curve(at)[:, 0] - np.exp(at)).max() < 1e-8 * math.e
    curve = traced(kinked, ["u"], over, 1e-4)
    assert curve.kind == "spline"
    assert curve.converged
    assert len(curve.places) < 150
    assert np.abs(curve(at)[:, 0] - np.abs(at - 0.4) ** 1.5).max() < 2e-4 * 0.6**1.5


def test_a_jump_is_not_said_to_be_found():
    over = read_over("k=0:1")
    curve = traced(lambda s: (over.at(s) > 1 / 3)[:, None] * 1.0, ["u"], over, 1e-3)
    assert not curve.converged
    assert len(curve.places) < 1000


def test_a_sweep_of_a_spec_is_the_harmonic_mean(tmp_path: Path):
    spec = load_spec(Path(__file__).parents[1] / "configs" / "reference" / "laminate.yaml")
    curve = sweep(spec, read_over("k=1:100:log"), 1e-4, Setting())
    k = np.geomspace(1, 100, 37)
    assert np.abs(curve(k)[:, 0] - 2 * k / (1 + k)).max() < 2e-4 * 2


@pytest.mark.parametrize("text", ["k", "k=1", "k=2:1", "k=-1:1:log", "k=a:b", "k=1:2:lin"])
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--over"):
        read_over(text)


def test_the_modulus_of_a_complex_answer():
    wave = Helmholtz(wavenumber=4.0, f="exp(-50*((x - 0.5)**2 + (y - 0.5)**2))")
    p = Problem(SQUARE, wave, {"all": Condition(absorbing=True)})
    s = sciml.solve(p, on=Grid((17, 17)))
    assert float(s.quantity(max="abs(u)")) == pytest.approx(float(s.value.abs().max()))


def test_an_unknown_stands_in_a_quantity_as_it_was_found():
    """u(0) = A, observed to be 3: what is asked for of A is checked at its guess, told of 3."""
    spec = read_spec(
        parse_yaml(
            """
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: poisson, f: 0}
  boundary: {left: {dirichlet: A}, right: {dirichlet: 0}}
  parameters: {A: {unknown: 1}}
  observations: {x: [0.25, 0.5, 0.75], u: [2.25, 1.5, 0.75]}
grid: {shape: [9]}
solver: {kind: random_features, count: 30, points: 60}
output:
  quantities:
    twice: {max: "2*A + 0*u"}
""",
            "unknown.yaml",
        )
    )
    found = answer(spec, Setting()).measured
    assert found is not None
    assert float(found.quantities["twice"]) == pytest.approx(6, rel=1e-3)
    s = sciml.solve(spec.problem, spec.solver, on=spec.on, throw=False)
    assert float(s.quantity(max="2*A + 0*u")) == pytest.approx(6, rel=1e-3)


PLANE = """
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: general, K: k, f: "exp(q*x)", c: 1}
  parameters: {k: 1, q: 0}
  boundary:
    all: {neumann: 0}
grid: {shape: [9, 9]}
output:
  quantities:
    total: {integral: u}
    rest: {formula: total/2}
sweep:
  over: {k: {low: 0.5, high: 2, log: true}, q: {low: -1, high: 1}}
  tolerance: 1.0e-7
"""


def test_a_table_over_two_parameters(tmp_path: Path):
    """What is lost is what is made: the integral of u is that of f, (exp(q) - 1)/q, for every k."""
    (tmp_path / "plane.yaml").write_text(PLANE)
    arguments = ["sweep", str(tmp_path / "plane.yaml"), "--out", str(tmp_path / "s")]
    spec = load_spec(tmp_path / "plane.yaml")
    overs, tolerance = stated(spec, (), None)
    table = sweep(spec, overs, tolerance, Setting())
    assert table.shape == (5, 17)
    write(table, tmp_path)
    with open(tmp_path / "sweep.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 85
    assert float(rows[1]["q"]) == pytest.approx(-math.cos(math.pi / 16))
    q = np.linspace(-0.95, 0.95, 8)
    h = 1 / 8  # of the points, whose mean over a volume f is
    exact = np.expm1(q) / q
    found = table(np.array([0.6, 1.7]), q)
    assert found.shape == (2, 8, 2)
    assert np.abs(found[..., 0] / exact - 1).max() < h**2 / 12
    assert np.abs(found[0] - found[1]).max() < 1e-7
    assert np.abs(found[..., 1] - found[..., 0] / 2).max() < 1e-12
    (least, low), (most, high) = table.extremes()["total"]
    assert (low[1], high[1]) == (-1, 1)
    assert least < 1 < most
    for wrong, why in (("over.z={low: 1, high: 2}", "no parameter 'z'"), ("over.k.low=3", "below")):
        message = CliRunner().invoke(app, [*arguments, "--set", f"sweep.{wrong}"])
        assert message.exit_code == 2
        assert why in message.output
        assert "sweep.over" in message.output


REFERENCE = Path(__file__).parents[1] / "configs" / "reference"


def test_a_sweep_goes_round_the_fold_of_bratus_problem():
    spec = load_spec(REFERENCE / "bratu-fold.yaml", ["grid.shape=[65]"])
    (over,), tolerance = stated(spec, (), 1e-3)
    (_, (fold, (where,))) = sweep(spec, over, tolerance, Setting()).extremes()["lam"]
    assert fold == pytest.approx(3.513830719, rel=2e-4)
    assert where == pytest.approx(4, abs=2e-2)


def test_answers_around_start_the_next():
    changes = ["solver={kind: cg, preconditioner: {kind: multigrid}}"]
    spec = load_spec(REFERENCE / "laminate.yaml", changes)
    counts = []
    for started in (True, False):
        solves = Solves(spec, (read_over("k=1:100:log"),), Setting(), started=started)
        for n in (4, 8, 16):
            places = -np.cos(np.pi * np.arange(n + 1) / n)
            solves((places if n == 4 else places[1::2])[:, None])
        counts.append(solves.iterations)
    assert counts[0] < 0.6 * counts[1]


@pytest.mark.parametrize("centring", ["node", "cell"])
def test_the_fluxes_of_a_systems_fields_balance(centring):
    """Held values, Robin data that name the other field, and a flux that is given; at rest."""
    held = Condition(by_field={"a": Condition(dirichlet=0.5), "b": Condition(dirichlet=0.2)})
    robin = Condition(robin=Robin(1.0, "b"))
    mixed = Condition(by_field={"a": robin, "b": Condition(neumann=0.1)})
    equations = {"a": Equation(d=1.0, f="1 - a*b"), "b": Equation(d=1.0, K=0.5, f="a*b")}
    p = Problem(
        SQUARE,
        System(equations),
        {"left": held, "right": mixed, "bottom": held, "top": held},
        time=Time(2.0),
        initial={"a": 0.5, "b": 0.2},
    )
    s = sciml.solve(p, on=Grid((7, 7), centring))
    for field, made in (("a", "1 - a*b"), ("b", "a*b")):
        out = sum(float(s.quantity(flux=field, on=side).value[-1]) for side in p.boundary)
        assert out == pytest.approx(float(s.quantity(integral=made).value[-1]), rel=2e-4)
    assert float(s.quantity(flux="b", on="right").value[-1]) == pytest.approx(-0.1)
    with pytest.raises(InputError, match="there is no field 'c'; there is a, b"):
        s.quantity(flux="c", on="right")
