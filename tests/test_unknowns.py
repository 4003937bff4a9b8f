"""Unknowns from observations: they move wherever they stand, and say how sure they are."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sciml import Status
from sciml.app import cli
from sciml.core.errors import InputError
from sciml.core.problem.equation import Equation, WrittenOut
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Problem, Robin, Time, Unknown
from sciml.solvers.solve import solve
from sciml.solvers.trained import PINN, Gaussians, GaussNewton, RandomFeatures
from sciml.solvers.trained.objective import Objective
from sciml.solvers.trained.observations import Observations, judge
from sciml.solvers.trained.sampling import sobol
from sciml.solvers.trained.unknowns import coordinate_of, value_at

LINE = Box((0.0,), (1.0,))
ZERO = dict.fromkeys(LINE.sides, Condition(0.0))
X = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
FEATURES = RandomFeatures(count=40, bandwidths=(4.0,), rtol=1e-4)
SOLVERS = (
    PINN(width=10, depth=1, points=150, rtol=1e-3, optimiser=GaussNewton(60)),
    Gaussians(count=25, rtol=1e-3),
    RandomFeatures(count=100, bandwidths=(2.0,), rtol=1e-4),
)


def kind(solver: Any) -> str:
    return str(solver.kind)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(), dtype=torch.float64)


@pytest.mark.parametrize("solver", SOLVERS, ids=kind)
def test_an_unknown_in_the_start_that_is_built_in_is_found(solver: Any) -> None:
    x, t = uniform(30, 2).unbind(1)
    t = 0.3 * t
    problem = Problem(
        LINE, Equation(d=1.0), ZERO, time=Time(0.3), initial="A*sin(pi*x)",
        parameters={"A": Unknown(1.0)}, exact="A*exp(-pi**2*t)*sin(pi*x)",
        observations={"x": x, "t": t, "u": 3 * (-(math.pi**2) * t).exp() * (math.pi * x).sin()},
    )  # fmt: skip
    solution = solve(problem, solver, on=Grid((9,)))
    assert solution.parameters["A"] == pytest.approx(3.0, abs=5e-3)
    assert abs(solution.parameters["A"] - 3) < 10 * solution.standard_errors["A"] + 1e-6


def line(**changes: Any) -> Problem:
    """-(K u')' = f with readings of ``u``; by default sin(pi x) where k is one."""
    u = changes.pop("u", (math.pi * X).sin())
    stated = {
        "equation": Equation(f="pi**2*sin(pi*x)"),
        "boundary": ZERO,
        "observations": {"x": X, "u": u},
        **changes,
    }
    return Problem(LINE, **stated)


SIN = (math.pi * X).sin()
PLACES = {
    "dirichlet": line(
        boundary={"left": Condition("2*A"), "right": Condition("A**2")},
        parameters={"A": Unknown(1.0)}, u=SIN + 6 + 3 * X,
    ),
    "neumann": line(
        boundary={"left": Condition(0.0), "right": Condition(neumann="A - pi")},
        parameters={"A": Unknown(1.0)}, u=SIN + 3 * X,
    ),
    "robin": line(
        boundary={"left": Condition(0.0), "right": Condition(robin=Robin("A", "3*A - pi"))},
        parameters={"A": Unknown(1.0)}, u=SIN + 3 * X * 3 / 4,
    ),
    "several": line(
        boundary={"left": Condition("A"), "right": Condition(neumann="A - pi")},
        parameters={"A": Unknown(1.0)}, u=SIN + 3 + 3 * X,
    ),
    "beside another": line(
        boundary={"left": Condition("A"), "right": Condition(0.0)},
        equation=Equation(K="k", f="pi**2*sin(pi*x)"),
        parameters={"A": Unknown(1.0, lower=0.0), "k": Unknown(0.8)}, u=SIN / 2 + 3 * (1 - X),
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_moves_wherever_it_stands(place: str) -> None:
    solution = solve(PLACES[place], FEATURES, on=Grid((9,)))
    assert solution.parameters["A"] == pytest.approx(3.0, abs=1e-4)
    if "k" in solution.parameters:
        assert solution.parameters["k"] == pytest.approx(2.0, abs=1e-4)


def test_an_unknown_in_the_rate_of_a_wave_that_is_built_in_is_found() -> None:
    x, t = uniform(20, 2).unbind(1)
    problem = Problem(
        LINE, Equation(m=1.0, K=1.0), ZERO, time=Time(1.0), initial={"u": 0.0, "ut": "A*sin(pi*x)"},
        parameters={"A": Unknown(1.0)},
        observations={"x": x, "t": t, "u": 3 / math.pi * (math.pi * x).sin() * (math.pi * t).sin()},
    )  # fmt: skip
    solution = solve(problem, RandomFeatures(count=150, bandwidths=(4.0,)), on=Grid((9,)))
    assert solution.parameters["A"] == pytest.approx(3.0, abs=1e-4)


def test_an_extension_moves_with_its_unknown() -> None:
    problem = PLACES["several"]
    fixed = replace(FEATURES, extension={"u": "1 + x"})
    with pytest.raises(InputError, match="whatever the unknowns are"):
        fixed.init(problem, Grid((9,)))
    moving = solve(problem, replace(FEATURES, extension={"u": "A*(1 + sin(x))"}), on=Grid((9,)))
    assert moving.parameters["A"] == pytest.approx(3.0, abs=1e-4)


def test_data_that_agree_at_the_guess_alone_are_soft() -> None:
    box = Box((0.0, 0.0), (1.0, 1.0))
    x, y = uniform(30, 2).unbind(1)
    sides = {"left": "1", "right": "1 + A", "bottom": "1 + x", "top": "1 + x"}
    wave = "sin(pi*x)*sin(pi*y)"
    u = 1 + x + (math.pi * x).sin() * (math.pi * y).sin()
    problem = Problem(
        box, Equation(f=f"2*pi**2*{wave}"), {side: Condition(v) for side, v in sides.items()},
        parameters={"A": Unknown(1.0)}, observations={"x": x, "y": y, "u": u},
    )  # fmt: skip
    solution = solve(problem, replace(FEATURES, count=100), on=Grid((5, 5)))
    assert any("conditions are soft" in note for note in solution.notes)
    assert solution.parameters["A"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"exact": "k*x"}, "problem.parameters.k"),
        ({"equation": Equation(f="kk")}, "problem.parameters.k"),
    ],
)
def test_an_unknown_that_nothing_depends_on_is_refused(changes: Any, key: str) -> None:
    problem = line(parameters={"k": Unknown(1.0), "kk": 2.0}, **changes)
    for solver in SOLVERS:
        with pytest.raises(InputError, match="neither the equation nor a condition") as caught:
            solver.init(problem, Grid((9,)))
        assert caught.value.key == key


def test_weights_may_not_be_unknown() -> None:
    problem = line(equation=Equation(K="k"), parameters={"k": Unknown(1.0)})
    with pytest.raises(InputError, match="not on 'k'"):
        replace(FEATURES, weights={"equation": "k"}).init(problem, Grid((9,)))


@pytest.mark.parametrize(
    "bounds", [{}, {"lower": 0.5}, {"upper": 4.0}, {"lower": 0.5, "upper": 4.0}]
)
def test_bounds_hold_and_the_jacobian_knows_them(bounds: dict[str, float]) -> None:
    """Every coordinate lies within; the columns are those of a difference quotient."""
    unknown = Unknown(2.0, **bounds)
    s = torch.linspace(-30, 30, 61, dtype=torch.float64)
    p = value_at(unknown, s)
    assert float(value_at(unknown, torch.tensor(coordinate_of(unknown)))) == pytest.approx(2.0)
    if bounds:
        assert float(p.min()) >= bounds.get("lower", -math.inf)
        assert float(p.max()) <= bounds.get("upper", math.inf)
    problem = line(
        equation=Equation(K="k*(1 + k*x)", c="k", f="1"), parameters={"k": unknown},
        boundary={"left": Condition("k**2"), "right": Condition(neumann="sin(k)")},
    )  # fmt: skip
    objective: Objective = SOLVERS[0].init(problem, Grid((9,))).objective
    objective.place([piece.place(sobol(7, piece.free, generator())) for piece in objective.pieces])
    theta, step = objective.theta, torch.zeros_like(objective.theta)
    step[-1] = 1e-6
    _, J = objective.jacobian()
    objective.assign(theta + step)
    after = objective.vector()
    objective.assign(theta - step)
    torch.testing.assert_close(J[:, -1], (after - objective.vector()) / 2e-6, rtol=1e-6, atol=1e-6)


def test_a_guess_outside_its_bounds_is_refused() -> None:
    for given in ({"unknown": 1.0, "lower": 1.0}, {"unknown": 3.0, "upper": 2.0},
                  {"unknown": math.nan}):  # fmt: skip
        with pytest.raises(InputError, match="the first guess must be"):
            Unknown(**given)


def layer(r: float = 20.0, count: int = 49) -> tuple[Tensor, Tensor]:
    x = torch.linspace(0.02, 0.98, count, dtype=torch.float64)
    return x, 1 - torch.cosh(r * (x - 0.5)) / math.cosh(r / 2)


def reaction(f: str, guess: float = 0.1, c: str = "1e-3/kk", **more: Any) -> Problem:
    x, u = layer()
    names = [name for name in ("nue", "kk", "F") if name in f"nue {c} {f}"]
    return line(
        equation=Equation(K="nue/0.4", c=c, f=f), observations={"x": x, "u": u},
        parameters={name: Unknown(guess, lower=0.0) for name in names}, **more,
    )  # fmt: skip


def test_both_coefficients_of_a_boundary_layer_are_found() -> None:
    solution = solve(reaction("1"), Gaussians(count=40), on=Grid((9,)))
    for name in ("nue", "kk"):
        assert solution.parameters[name] == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("problem", "said", "unsure"),
    [
        (reaction("kk*1e3", c="kk*1e3"), "only nue/kk is determined", {"nue", "kk"}),
        (reaction("1e-3/kk"), "only nue*kk is determined", {"nue", "kk"}),
        (reaction("1e-6/kk**2", c="1e-6/kk**2"), "only nue*kk**2 is determined", {"nue", "kk"}),
        (reaction("1", c="1 + 0*kk"), "kk is not determined", {"kk"}),
        (reaction("F"), "only 2 combinations of nue, kk and F", {"nue", "kk", "F"}),
    ],
)
def test_a_direction_that_the_data_leave_open_is_named(
    problem: Problem, said: str, unsure: set[str]
) -> None:
    solution = solve(problem, Gaussians(count=40), on=Grid((9,)), throw=False)
    assert solution.status is Status.UNDETERMINED
    assert any(said in note for note in solution.notes), solution.notes
    errors = solution.standard_errors
    assert {name for name, error in errors.items() if error == math.inf} == unsure


@pytest.mark.parametrize(
    ("boundary", "parameters", "readings"),
    [
        (ZERO, {"k": Unknown(0.8)}, {"x": [0.0, 1.0], "u": [0.0, 0.0]}),
        (
            {"left": Condition(0.0), "right": Condition("A")},
            {"k": Unknown(0.8), "A": Unknown(1.0)},
            {"x": [0.5], "u": [0.5]},
        ),
    ],
)
def test_readings_that_say_nothing_determine_nothing(
    boundary: Any, parameters: Any, readings: Any
) -> None:
    """Where u is known anyway, and fewer than unknowns; they are met to rounding all the same."""
    problem = line(
        equation=Equation(K="k", f="pi**2*sin(pi*x)"), boundary=boundary, parameters=parameters,
        observations=readings,
    )  # fmt: skip
    solution = solve(problem, FEATURES, on=Grid((9,)), throw=False)
    assert float(solution.residual) < 1e-9
    assert solution.status is Status.UNDETERMINED
    assert all(error == math.inf for error in solution.standard_errors.values())


def test_a_coefficient_that_is_zero_is_determined() -> None:
    """Nothing is known of its logarithm, and everything of itself."""
    x, u = layer()
    problem = line(
        equation=Equation(K=0.0025, b=("b",), c=1.0, f=1.0), observations={"x": x, "u": u},
        parameters={"b": Unknown(1.0)},
    )  # fmt: skip
    solution = solve(problem, Gaussians(count=40), on=Grid((9,)))
    assert abs(solution.parameters["b"]) < 1e-4
    assert solution.standard_errors["b"] < 1e-4


def test_a_standard_error_is_the_response_to_every_reading() -> None:
    """s^2 sum_n (dp/du_n)^2, the derivatives by solving again with every reading moved."""
    few = X[::2]
    truth = (math.pi * few).sin()
    solver = RandomFeatures(count=16, bandwidths=(3.0,), points=60, rtol=1e-2)

    def found(u: Tensor) -> Any:
        problem = line(
            equation=Equation(K="k", c="c", f="(pi**2 + 4)*sin(pi*x)"), noise=0.02,
            boundary={"left": Condition(0.0), "right": Condition("A")},
            parameters={"k": Unknown(0.9), "A": Unknown(0.1), "c": 4.0},
            observations={"x": few, "u": u},
        )  # fmt: skip
        return solve(problem, solver, on=Grid((3,)), throw=False)

    middle = found(truth)
    for name in ("k", "A"):
        assert middle.parameters[name] == pytest.approx({"k": 1.0, "A": 0.0}[name], abs=1e-3)
    squares = dict.fromkeys(("k", "A"), 0.0)
    for n in range(len(few)):
        moved = truth.clone()
        moved[n] += 1e-3
        after = found(moved).parameters
        for name in squares:
            squares[name] += ((after[name] - middle.parameters[name]) / 1e-3) ** 2
    for name, square in squares.items():
        assert middle.standard_errors[name] == pytest.approx(0.02 * square**0.5, rel=0.02)


def readings(seen: Tensor, points: Tensor, noise: float | None = None) -> Observations:
    stated = None if noise is None else torch.tensor([noise], dtype=torch.float64)
    extent = points.new_ones(points.shape[1])
    return Observations(points, seen[:, None], ("u",), (0,), stated, extent)


@pytest.mark.parametrize("dimension", [1, 2])
def test_noise_is_no_misfit_and_a_smooth_miss_is_one(dimension: int) -> None:
    """Of 200 samples of noise almost none is refused, of as many smooth misses almost all are."""
    refused = noticed = 0
    for seed in range(200):
        points = torch.rand(80, dimension, generator=generator(seed), dtype=torch.float64)
        u = (math.pi * points).sin().sum(-1)
        noise = 0.1 * torch.randn(80, generator=generator(seed + 1000), dtype=torch.float64)
        missed = noise + 0.25 * (2 * points.sum(-1)).cos()
        unsaid, stated = readings(u + noise, points), readings(u + noise, points, 0.1)
        refused += judged(unsaid, noise[:, None], 1e-4) is not None
        noticed += judged(unsaid, missed[:, None], 1e-4) is not None
        assert judged(stated, noise[:, None], 1e-4) is None
        assert judged(stated, missed[:, None], 1e-4) is not None
    assert refused <= 2 and noticed >= 195


def judged(observed: Observations, gap: Tensor, rtol: float) -> str | None:
    return judge(observed, gap, observed.spread(observed.seen), rtol, 1).fault


def test_a_handful_of_readings_needs_its_noise_stated() -> None:
    points = torch.tensor([[0.2], [0.5], [0.8]], dtype=torch.float64)
    seen, gap = torch.tensor([1.0, 2.0, 1.5]).double(), torch.full((3, 1), 0.05).double()
    assert "too few" in str(judged(readings(seen, points), gap, 1e-3))
    assert judged(readings(seen, points), gap * 1e-3, 1e-3) is None
    assert judged(readings(seen, points, 0.05), gap, 1e-3) is None
    assert "times their noise" in str(judged(readings(seen, points, 0.005), gap, 1e-3))


def test_readings_that_the_model_cannot_meet_are_a_misfit() -> None:
    """k is 0.7 and may not exceed 0.5; and a model without unknowns that is wrong."""
    problem = line(
        equation=Equation(K="k", f="pi**2*sin(pi*x)"), u=SIN / 0.7,
        parameters={"k": Unknown(0.3, upper=0.5)},
    )  # fmt: skip
    solution = solve(problem, FEATURES, on=Grid((9,)), throw=False)
    assert solution.parameters["k"] <= 0.5
    assert solution.status is not Status.CONVERGED
    known = line(equation=Equation(f="pi**2*sin(pi*x)"), u=1.3 * SIN, boundary=ZERO)
    found = solve(known, FEATURES, on=Grid((9,)), throw=False)
    assert found.status is not Status.CONVERGED


def test_the_misfit_is_a_status_where_the_equation_is_met() -> None:
    heavy = replace(FEATURES, weights={"equation": 1e8})
    known = line(equation=Equation(f="pi**2*sin(pi*x)"), u=1.3 * SIN)
    assert solve(known, heavy, on=Grid((9,)), throw=False).status is Status.MISFIT
    noisy = SIN + 0.01 * torch.randn(19, generator=generator(), dtype=torch.float64)
    stated = replace(known, observations={"x": X, "u": noisy})
    assert solve(stated, heavy, on=Grid((9,))).status is Status.CONVERGED
    assert solve(replace(stated, noise=0.01), heavy, on=Grid((9,))).status is Status.CONVERGED
    precise = solve(replace(stated, noise=0.001), heavy, on=Grid((9,)), throw=False)
    assert precise.status is Status.MISFIT


@pytest.mark.parametrize(
    ("noise", "said"),
    [(0.0, "positive"), (-1.0, "positive"), (math.nan, "positive"), ({"v": 1.0}, "no field 'v'")],
)
def test_a_noise_that_is_none_is_refused(noise: Any, said: str) -> None:
    problem = line(equation=Equation(K="k"), parameters={"k": Unknown(1.0)}, noise=noise)
    with pytest.raises(InputError, match=said):
        FEATURES.init(problem, Grid((9,)))
    with pytest.raises(InputError, match="there are none"):
        line(noise=1.0, observations=None)


SPEC = """\
problem:
  domain: {kind: box, lower: [0], upper: [1]}
  equation: {kind: general, K: k, f: "pi**2*sin(pi*x)"}
  boundary: {all: {dirichlet: 0}}
  parameters: {k: {unknown: 1, lower: 0, upper: 9}}
  observations: {x: [0.2, 0.4, 0.6, 0.9], u: [0.2938926, 0.4755283, 0.4755283, 0.1545085]}
  noise: 1.0e-6
grid: {shape: [9]}
solver: {kind: random_features, count: 40, bandwidths: [4], rtol: 1.0e-4}
"""


def test_a_run_records_what_was_found_and_how_surely(tmp_path: Path) -> None:
    def invoke(*words: str) -> Any:
        return CliRunner().invoke(cli.app, list(words))

    path = tmp_path / "s.yaml"
    path.write_text(SPEC)
    result = invoke("solve", str(path), "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    found = record["parameters"]["k"]
    assert found["value"] == pytest.approx(2.0, rel=1e-4)
    assert 0 < found["standard_error"] < 1e-4
    assert "found k" in result.output and "standard error" in result.output
    assert "found k" in (tmp_path / "run" / "report.html").read_text()
    for change, said in (("upper: 0.5", "first guess"), ("lowr: 0", "did you mean 'lower'")):
        path.write_text(SPEC.replace("lower: 0, upper: 9", change))
        refused = invoke("validate", str(path))
        assert refused.exit_code == 2 and said in refused.output, refused.output


def test_fields_are_read_where_they_are(tmp_path: Path) -> None:
    """A cheap model's readings at twenty places, an exact one's at five: v = r u + s (x - 1/2).

    Of a file with empty cells, of lists with nothing in the place of numbers, and of the same
    readings field by field the misfits are the same.
    """
    x = [k / 19 for k in range(20)]
    u = [math.sin(3 * a) for a in x]
    v: list[float | None] = [2 * b - 3 * (a - 0.5) for a, b in zip(x, u, strict=True)]
    v = [value if k % 4 == 0 else None for k, value in enumerate(v)]
    u_gaps = [None if k == 4 else value for k, value in enumerate(u)]
    free = Condition(residuals=())
    problem = Problem(
        Box((0.0,), (1.0,)),
        WrittenOut(("v - r*u - s*(x - 0.5)",), ("u", "v")),
        {"left": free, "right": free},
        parameters={"r": Unknown(1.0), "s": Unknown(0.0)},
        observations={"x": x, "u": u_gaps, "v": v},
        noise={"u": 1e-4, "v": 1e-3},
    )
    solver = RandomFeatures(count=30, bandwidths=(4.0,), rtol=1e-6)
    solution = solve(problem, solver, on=Grid((9,)))
    assert solution.parameters["r"] == pytest.approx(2, abs=1e-3)
    assert solution.parameters["s"] == pytest.approx(-3, abs=1e-3)
    rows = [f"{a},{'' if b is None else b},{'' if c is None else c}"
            for a, b, c in zip(x, u_gaps, v, strict=True)]  # fmt: skip
    (tmp_path / "a.csv").write_text("\n".join(["x,u,v", *rows]))
    again = solve(replace(problem, observations=str(tmp_path / "a.csv")), solver, on=Grid((9,)))
    assert again.parameters["r"] == pytest.approx(solution.parameters["r"], rel=1e-12)
    off = [None if value is None else value + 0.1 * (-1) ** k for k, value in enumerate(v[::4])]
    missed = replace(
        problem, observations={"x": x, "u": u_gaps, "v": [w for o in off for w in (o, *[None] * 3)]}
    )
    assert not solve(missed, solver, on=Grid((9,)), throw=False).converged


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ({"x": [0.1, None], "u": [1.0, 2.0]}, "observation 2 does not say its x"),
        ({"x": [0.1, 0.2], "u": [1.0, None]}, "observation 2 reads none of u"),
        ({"x": [0.1, 0.2], "u": [1.0, 2.0], "v": [None, None]}, "v is read nowhere"),
        ({"x": [0.1, 0.2], "u": [1.0, math.nan]}, "observation 2: u is not finite"),
    ],
)
def test_gaps_that_say_nothing_are_refused(readings: Any, said: str) -> None:
    free = Condition(residuals=())
    problem = Problem(
        Box((0.0,), (1.0,)), WrittenOut(("ux - v",), ("u", "v")),
        {"left": free, "right": free}, observations=readings,
    )  # fmt: skip
    with pytest.raises(InputError, match=said):
        solve(problem, FEATURES, on=Grid((9,)))
