"""Trained functions: modules with derivatives, kept on disk, gone on from, used elsewhere."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import sciml
from sciml import Box, Condition, Equation, FieldFile, Grid, Problem, Solution, Table, Time
from sciml.app import record
from sciml.app.cli import app
from sciml.app.read import read_spec
from sciml.app.run import Setting, answer, read_solution, recorded, regridded
from sciml.app.sample import sampled
from sciml.app.yaml import parse_yaml
from sciml.core.errors import InputError
from sciml.core.problem.equation import NavierStokes, System, WrittenOut
from sciml.core.problem.grid import Points
from sciml.core.problem.problem import Unknown
from sciml.core.run.files import save_solution
from sciml.core.run.serialise import dump
from sciml.core.run.weights import read_file, write_weights
from sciml.solvers import CG
from sciml.solvers.trained import (
    PINN,
    AdversarialSampling,
    DeepRitz,
    FunctionDescent,
    Gaussians,
    GaussNewton,
    NaturalGradient,
    NetworkProjection,
    RandomFeatures,
)
from sciml.solvers.trained.conditions import built_in
from sciml.solvers.trained.function import FUNCTION, TrainedFunction

SQUARE, LINE = Box((0.0, 0.0), (1.0, 2.0)), Box((-1.0,), (1.0,))
WALLS = dict.fromkeys(SQUARE.sides, Condition("x*y**2"))
POISSON = Problem(SQUARE, Equation(f="10*sin(x*y)"), WALLS)
ENDS = dict.fromkeys(LINE.sides, Condition(0.0))
HEAT = Problem(
    LINE, Equation(d=1.0, K="k"), ENDS, parameters={"k": 0.1}, time=Time(0.5, 0.1),
    initial={"u": "sin(pi*x)"},
)  # fmt: skip
WAVE = replace(HEAT, equation=Equation(m=1.0), initial={"u": "sin(pi*x)", "ut": "sin(2*pi*x)"})
RING = replace(POISSON, boundary={**WALLS, "left": Condition(periodic=True),
                                  "right": Condition(periodic=True)})  # fmt: skip
STEP = GaussNewton(iterations=2)
SMALL = PINN(width=5, depth=1, points=40, boundary_points=10, optimiser=STEP)


def flow() -> Problem:
    still = dict.fromkeys(SQUARE.sides, Condition((0.0, 0.0)))
    return Problem(SQUARE, NavierStokes(viscosity=0.1, force=("y", "x*y")), still)


def pair() -> Problem:
    system = System({"u": Equation(d=1.0, c="v"), "v": Equation(d=1.0, K=0.1)})
    return replace(HEAT, equation=system, initial={"u": "sin(pi*x)", "v": 0.0})


def found() -> Problem:
    read = {"x": [0.1, 0.2, 0.5], "t": [0.2, 0.3, 0.4], "u": [0.2, 0.3, 0.4]}
    k = Unknown(0.2, lower=0.0)
    return replace(HEAT, initial={"u": "k*sin(pi*x)"}, parameters={"k": k}, observations=read)


CASES: dict[str, Callable[[], tuple[Problem, Any, Any]]] = {
    "pinn": lambda: (POISSON, replace(SMALL, modified=True, factorised=True), Grid((5, 5))),
    "sine features": lambda: (RING, replace(SMALL, features=3, activation="sin"), Grid((5, 5))),
    "soft, adversarial": lambda: (
        POISSON, replace(SMALL, hard=False, sampler=AdversarialSampling(every=2)), Points(9)),
    "extension": lambda: (POISSON, replace(SMALL, extension={"u": "x*y**2"}), Points(9)),
    "gaussians": lambda: (RING, Gaussians(count=9, points=60), Points(9)),
    "turned gaussians": lambda: (
        POISSON, Gaussians(count=9, hidden=3, stages=2, covariance="full", optimiser=STEP),
        Points(9)),
    "random features": lambda: (POISSON, RandomFeatures(count=20, bandwidths=(3.0,)), Points(9)),
    "deep ritz": lambda: (POISSON, DeepRitz(width=5, points=50,
                                            optimiser=NaturalGradient(iterations=2)), Points(9)),
    "windows": lambda: (HEAT, replace(SMALL, windows=2), Grid((5,))),
    "waves": lambda: (WAVE, replace(SMALL, windows=2), Grid((5,))),
    "flow": lambda: (flow(), SMALL, Points(9)),
    "system": lambda: (pair(), SMALL, Points(9)),
    "unknown": lambda: (found(), SMALL, Points(9)),
    "written out": lambda: (
        replace(HEAT, equation=WrittenOut(("ut - v*uxxx", "k*vx - u"), ("u", "v")),
                boundary=dict.fromkeys(LINE.sides, Condition(residuals=("u", "v + ux*nx"))),
                initial={"u": "sin(pi*x)"}), SMALL, Points(9)),
    "of time alone": lambda: (
        Problem(None, WrittenOut(("utt + sin(u)",)), time=Time(3.0), initial={"u": 1.0, "ut": 0.0}),
        replace(SMALL, windows=2), None),
    "in function space": lambda: (
        replace(POISSON, equation=Equation(c="u**2", f=1.0)),
        FunctionDescent(max_iterations=2, projection=NetworkProjection(width=4)), Grid((5, 5))),
}  # fmt: skip


def trained(case: str) -> Solution:
    problem, solver, on = CASES[case]()
    return sciml.solve(problem, solver, on=on, throw=False)


def within(function: TrainedFunction, count: int = 17) -> Tensor:
    """Points (N, D) of a function's box and time."""
    problem = function.data.problem
    span = () if problem.time is None else ((problem.time.start, problem.time.end),)
    low, high = torch.tensor([*zip(problem.box.lower, problem.box.upper, strict=True), *span]).T
    cube = torch.rand(count, len(low), dtype=torch.float64, generator=torch.manual_seed(0))
    return low + cube * (high - low)


def slopes(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(function(x).square().sum(), x)[0]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Solution]]:
    """Every kind, saved: a folder each."""
    home = tmp_path_factory.mktemp("kept")
    solutions = {case: trained(case) for case in CASES}
    for case, solution in solutions.items():
        solution.save(str(home / case))
    return home, solutions


FRESH = """
import sys, numpy, torch, sciml
from pathlib import Path
for folder in Path(sys.argv[1]).iterdir():
    function = sciml.load_function(folder)
    x = torch.from_numpy(numpy.load(folder / "x.npy")).requires_grad_()
    value = function(x)
    (slope,) = torch.autograd.grad(value.square().sum(), x)
    numpy.save(folder / "value.npy", value.detach().numpy())
    numpy.save(folder / "slope.npy", slope.numpy())
"""


def test_a_fresh_process_has_the_same_function_to_the_last_bit(
    kept: tuple[Path, dict[str, Solution]],
) -> None:
    home, solutions = kept
    for case, solution in solutions.items():
        np.save(home / case / "x.npy", within(solution.function))
    subprocess.run([sys.executable, "-c", FRESH, str(home)], check=True)
    for case, solution in solutions.items():
        function, x = solution.function, within(solution.function)
        assert isinstance(function, nn.Module)
        assert np.array_equal(np.load(home / case / "value.npy"), function(x).numpy()), case
        assert np.array_equal(np.load(home / case / "slope.npy"), slopes(function, x)), case


@pytest.mark.parametrize("case", CASES)
def test_derivatives_are_those_of_differences(
    kept: tuple[Path, dict[str, Solution]], case: str
) -> None:
    function = kept[1][case].function
    assert isinstance(function, TrainedFunction)
    x, h = within(function, 5), 1e-5
    jet = function.jet(x, ((0, 0),))
    for i, unit in enumerate(torch.eye(x.shape[1], dtype=torch.float64)):
        ahead, behind = function(x + h * unit), function(x - h * unit)
        scale = 1e-7 * (1 + function(x).abs().max())
        assert float((jet.gradient[i] - (ahead - behind) / (2 * h)).abs().max()) < 100 * scale
        if i == 0:
            bend = (ahead - 2 * function(x) + behind) / h**2
            assert float((jet.second(0, 0) - bend).abs().max()) < 3e4 * scale


def test_weights_are_frozen_until_they_are_thawed(
    kept: tuple[Path, dict[str, Solution]],
) -> None:
    for case in ("pinn", "turned gaussians", "windows"):
        function = sciml.load_function(kept[0] / case)
        x = within(function)
        assert not function(x).requires_grad
        function.requires_grad_()
        function(x.requires_grad_()).square().sum().backward()
        for name, p in function.named_parameters():
            assert p.grad is not None and float(p.grad.abs().max()) > 0, (case, name)


def test_training_on_leaves_an_answer_alone() -> None:
    state = SMALL.init(POISSON, Points(9))
    first = SMALL.run(state)
    x = within(first.function)
    before = first.function(x)
    SMALL.run(state)
    state.objective.assign(state.objective.theta + 1.0)
    assert torch.equal(first.function(x), before)


@pytest.mark.parametrize("byte", [100, -9])
def test_damaged_files_are_refused(
    kept: tuple[Path, dict[str, Solution]], tmp_path: Path, byte: int
) -> None:
    raw = bytearray((kept[0] / "pinn" / FUNCTION).read_bytes())
    raw[byte] ^= 1
    (tmp_path / FUNCTION).write_bytes(raw)
    with pytest.raises(InputError, match=r"holds no weights|damaged"):
        sciml.load_function(tmp_path)


def test_what_is_no_function_is_refused(
    kept: tuple[Path, dict[str, Solution]], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds no trained function"):
        sciml.load_function(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / FUNCTION)
    with pytest.raises(InputError, match="is a pickle"):
        sciml.load_function(tmp_path)
    save_file(load_file(kept[0] / "pinn" / FUNCTION), tmp_path / FUNCTION)
    with pytest.raises(InputError, match="no header"):
        sciml.load_function(tmp_path)
    for options in ({}, {"lower": [0], "upper": [1]}, []):
        write_weights(tmp_path / FUNCTION, "trained function", options, {}, {})  # type: ignore[arg-type]
        with pytest.raises(InputError, match="holds no function"):
            sciml.load_function(tmp_path)


def test_a_file_of_ours_cannot_name_a_network_of_any_size(
    kept: tuple[Path, dict[str, Solution]], tmp_path: Path
) -> None:
    stored = read_file(kept[0] / "pinn" / FUNCTION, "trained function")
    stored.options["networks"][0]["width"] = 10**7
    write_weights(tmp_path / FUNCTION, "trained function", stored.options, stored.tensors, {})
    with pytest.raises(InputError, match="does not fit its own options"):
        sciml.load_function(tmp_path)


def test_a_function_without_one_leaves_no_file(
    kept: tuple[Path, dict[str, Solution]], tmp_path: Path
) -> None:
    """A folder that is written over has not the function of the run before."""
    shutil.copy(kept[0] / "pinn" / FUNCTION, tmp_path)
    sciml.solve(POISSON, CG(), on=Grid((5, 5))).save(str(tmp_path))
    assert not (tmp_path / FUNCTION).exists()


def test_files_tables_and_arrays_go_along(tmp_path: Path) -> None:
    np.save(tmp_path / "wall.npy", np.linspace(0, 1, 15).reshape(5, 3) ** 2)
    (tmp_path / "steel.csv").write_text("x,g\n0,1\n0.5,3\n1,2\n")
    sides = {
        "left": Condition(FieldFile(str(tmp_path / "wall.npy"))),
        "right": Condition(1.0),
        "bottom": Condition("k(x)"),
        "top": Condition(Table(str(tmp_path / "steel.csv"), of="x")),
    }
    table = Table(str(tmp_path / "steel.csv"), of="x")
    problem = replace(POISSON, boundary=sides, parameters={"k": table})
    built = SMALL.init(problem, Points(9)).objective
    # These disagree in the corners, where solve makes them soft: built in by hand.
    built.ansatz = replace(built.ansatz, built_in=built_in(built.form))
    function = TrainedFunction.of(built)
    function.save(tmp_path)
    x = within(function)
    assert torch.equal(function(x), built.ansatz.value(x))
    for name in ("wall.npy", "steel.csv"):
        (tmp_path / name).unlink()
    assert torch.equal(sciml.load_function(tmp_path)(x), function(x))


def test_python_functions_are_asked_for_again(tmp_path: Path) -> None:
    problem = replace(HEAT, initial={"u": lambda x: (torch.pi * x).sin()})
    solution = sciml.solve(problem, SMALL, on=Points(9), throw=False)
    solution.save(str(tmp_path))
    with pytest.raises(InputError, match=r"problem.initial was a Python function"):
        sciml.load_function(tmp_path)
    x = within(solution.function)
    assert torch.equal(sciml.load_function(tmp_path, problem)(x), solution.function(x))
    with pytest.raises(InputError, match="this problem has none there"):
        sciml.load_function(tmp_path, HEAT)


class TestGoingOn:
    @pytest.mark.parametrize("case", ["pinn", "turned gaussians", "windows", "unknown"])
    def test_begins_where_the_run_ended(
        self, kept: tuple[Path, dict[str, Solution]], case: str
    ) -> None:
        problem, solver, on = CASES[case]()
        before = kept[1][case]
        objective = replace(solver, start=str(kept[0] / case)).init(problem, on).objective
        assert objective.begun
        network = before.function.networks[0].state_dict()
        if case != "windows":  # of which the whole is glued after training
            for name, value in objective.ansatz.network.state_dict().items():
                assert torch.equal(value, network[name])
        assert objective.found == pytest.approx(dict(before.parameters), rel=1e-12)

    def test_lowers_the_loss_further(self, kept: tuple[Path, dict[str, Solution]]) -> None:
        problem, solver, on = CASES["windows"]()
        going = replace(solver, start=str(kept[0] / "windows"))
        after = sciml.solve(problem, going, on=on, throw=False)
        # Two iterations in each of two windows: the first of a window is where the run ended.
        assert float(after.stats.residuals[0]) < float(kept[1]["windows"].stats.residuals[1])

    def test_random_features_keep_theirs(self, kept: tuple[Path, dict[str, Solution]]) -> None:
        problem, solver, on = CASES["random features"]()
        going = replace(solver, bandwidths=(9.0,), start=str(kept[0] / "random features"))
        after = sciml.solve(problem, going, on=on, throw=False)
        torch.testing.assert_close(after.value, kept[1]["random features"].value)

    def test_of_another_network_is_refused(self, kept: tuple[Path, dict[str, Solution]]) -> None:
        wider = replace(SMALL, width=6, start=str(kept[0] / "pinn"))
        with pytest.raises(InputError, match=r"is another: .*width was 5, is 6"):
            wider.init(POISSON, Points(9))
        for case, told in (("windows", "windows: 2"), ("system", "is of u, v"), ("none", "holds")):
            with pytest.raises(InputError, match=told) as caught:
                replace(SMALL, start=str(kept[0] / case)).init(HEAT, Points(9))
            assert caught.value.key == "solver.start"


class TestElsewhere:
    def test_is_a_coefficient_of_another_problem(
        self, kept: tuple[Path, dict[str, Solution]]
    ) -> None:
        """-Lap v = u with u the kept function, by a grid, and at points where K needs slopes."""
        function = sciml.load_function(kept[0] / "pinn")
        u = function.field("u")
        other = replace(POISSON, equation=Equation(f=u))
        on = Grid((9, 9)).bind(SQUARE)
        x, y = on.coordinates()
        values = function(torch.stack([x.flatten(), y.flatten()], -1)).reshape(9, 9)
        by_array = replace(POISSON, equation=Equation(f=values))
        torch.testing.assert_close(
            sciml.solve(other, CG(rtol=1e-12), on=on).value,
            sciml.solve(by_array, CG(rtol=1e-12), on=on).value,
            atol=1e-3, rtol=0,
        )  # fmt: skip
        conducting = replace(POISSON, equation=Equation(K=lambda x, y: 2 + u(x, y)))
        state = SMALL.init(conducting, Points(9))
        assert torch.isfinite(state.objective.pointwise(within(function))).all()
        line = replace(HEAT, equation=Equation(d=1.0), initial=u)
        with pytest.raises(InputError, match="of another dimension"):
            sciml.solve(line, on=Grid((9,)))
        with pytest.raises(InputError, match="is known for x from 0 to 1; asked at"):
            sciml.solve(replace(other, domain=Box((0.0, 0.0), (2.0, 2.0))), CG(), on=Grid((9, 9)))

    def test_begins_another_that_is_kept_with_it(
        self, kept: tuple[Path, dict[str, Solution]], tmp_path: Path
    ) -> None:
        first = sciml.load_function(kept[0] / "waves")
        data = {"u": first.field("u"), "ut": first.field("u", rate=True)}
        after = replace(WAVE, time=Time(1.0, 0.5), initial=data)
        second = TrainedFunction.of(SMALL.init(after, Points(9)).objective)
        x = torch.linspace(-1, 1, 9, dtype=torch.float64)
        joint = torch.stack([x, torch.full_like(x, 0.5)], -1)
        torch.testing.assert_close(first.jet(joint).data, second.jet(joint).data)
        second.save(tmp_path)
        assert torch.equal(sciml.load_function(tmp_path)(joint), second(joint))

    def test_is_a_program(self, kept: tuple[Path, dict[str, Solution]]) -> None:
        many = {0: torch.export.Dim("n", min=2)}
        function = sciml.load_function(kept[0] / "windows")
        x = within(function)
        program = torch.export.export(function, (x,), dynamic_shapes=(many,)).module()
        torch.testing.assert_close(program(x[:5]), function(x[:5]), rtol=1e-14, atol=1e-14)

    @pytest.mark.skipif(
        importlib.util.find_spec("onnxscript") is None, reason="onnxscript is not installed"
    )
    def test_is_an_onnx_model(self, kept: tuple[Path, dict[str, Solution]], tmp_path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        function = sciml.load_function(kept[0] / "pinn")
        x = within(function)
        torch.onnx.export(function, (x,), tmp_path / "u.onnx", dynamo=True, verbose=False)
        model = ReferenceEvaluator(str(tmp_path / "u.onnx"))
        (name,) = model.input_names
        np.testing.assert_allclose(model.run(None, {name: x.numpy()})[0], function(x), rtol=1e-12)


SPEC = """
problem:
  domain: {kind: box, lower: [-1], upper: [1]}
  parameters: {k: 0.1}
  equation: {d: 1, K: k}
  boundary: {all: {dirichlet: 0}}
  time: {end: 0.5, frames: 2}
  initial: sin(pi*x)
grid: {shape: [5]}
solver: {kind: pinn, width: 5, depth: 1, points: 40, rtol: 0.9, optimiser: {kind: gauss_newton,
         iterations: 4}}
"""


def test_a_run_is_evaluated_drawn_and_begun_from(tmp_path: Path) -> None:
    spec, run, points = tmp_path / "heat.yaml", tmp_path / "a", tmp_path / "points.csv"
    spec.write_text(SPEC)
    result = answer(sciml.load_spec(spec), Setting())
    files = save_solution(result.solution, run)
    hashes = record.hashes(run, *(path.name for path in files[:2]))
    record.write(run, {**recorded(result), "hashes": hashes})
    points.write_text("x,t\n0.5,0.1\n-0.3,0.37\n")
    assert CliRunner().invoke(app, ["sample", str(run), str(points)]).exit_code == 0
    columns = np.loadtxt(run / "sampled.csv", delimiter=",", skiprows=1)
    function = sciml.load_function(run)
    assert np.array_equal(columns[:, 2], function(columns[:, :2])[:, 0])
    points.write_text("x\n0.5\n7\n")
    with pytest.raises(InputError, match="point 2: x = 7 lies outside"):
        sampled(run, points)
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    at_end = function(torch.stack([x, torch.full_like(x, 0.5)], -1))[:, 0]
    assert torch.equal(regridded(read_solution(run), (9,)).last, at_end)
    begun = SPEC.replace("initial: sin(pi*x)", f"initial: {{run: {run}}}")
    spec.write_text(begun.replace("K: k", f"K: k, f: {{run: {run}}}"))
    stated = sciml.load_spec(spec)
    again = read_spec(parse_yaml(json.dumps(dump(stated)), "run.json"))
    for problem in (stated.problem, again.problem):
        for data in (problem.first["u"], problem.form.f):
            assert torch.equal(data(x), at_end)  # type: ignore[operator]
    (run / FUNCTION).write_bytes(b"not any more")
    with pytest.raises(InputError, match=r"f.run: .*was damaged or changed"):
        sciml.load_spec(spec)
