"""The command line from a user's side: every config, every command, every exit code."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import sciml
from sciml.app import cli
from sciml.app.run import Setting, answer
from sciml.core.run.solution import load_solution

COMMANDS = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))
PRODUCTS = (
    "solution.h5",
    "solution.png",
    "convergence.png",
    "run.json",
    "report.html",
)
SPEC = """\
problem:
  domain: {kind: box, lower: [0, 0], upper: [1, 1]}
  equation: {kind: diffusion, K: "1 + x", f: 1}
  boundary:
    left: {dirichlet: 0}
    right: {dirichlet: 0}
    bottom: {dirichlet: 0}
    top: {neumann: 0}
grid: {shape: [33, 33]}
solver: {kind: cg, rtol: 1.0e-8}
"""


def sciml_run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "spec.yaml").write_text(SPEC)
    assert sciml_run("solve", folder / "spec.yaml", "--out", folder / "out").exit_code == 0
    return folder / "out"


def small(config: Path) -> str:
    spec = sciml.load_spec(config)
    grid = spec.grid
    if spec.accuracy is not None:
        return "accuracy.error=0.2"
    if spec.points is not None:
        return "points.count=200"
    if spec.problem.of_time_alone:
        return "solver.points=300"
    if grid is None:
        return "solver.kind=auto"
    size = {1: 129, 2: 20, 3: 9}[len(grid.shape)]
    # A lens and its source are narrow: a grid that does not see them is refused.
    size = 64 if config.stem == "helmholtz" else size
    dimension = len(grid.shape)
    return f"grid.shape={[size] * dimension}"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_is_solved_and_written_whole(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = sciml_run("solve", config, "--set", small(config), "--out", out)
    assert result.exit_code == 0, result.output
    assert "converged" in result.output or "certified" in result.output
    assert all((out / name).stat().st_size > 0 for name in PRODUCTS)
    spec = sciml.load_spec(config)
    timed = spec.problem.time is not None
    # These have too many coordinates for ParaView, or none.
    if spec.points is None and not spec.problem.of_time_alone:
        assert (out / ("solution.pvd" if timed else "solution.vtu")).stat().st_size > 0
    assert not (out / "frames.h5").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    record = json.loads((out / "run.json").read_text())
    solution = load_solution(out)
    assert record["residual"] == solution.residual.tolist()
    inner = spec.solver if spec.accuracy is None else spec.solver.solver
    rtol = inner.rtol or (1e-4 if timed else 1e-8)
    assert float(solution.residual.max()) <= 1.01 * rtol
    page = (out / "report.html").read_text()
    assert html.escape(record["title"]) in page
    links = re.findall(r"""(?:src|href)="([^"]*)\"""", page)
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"url\(|@import|<script [^>]*src", page)
    assert len(links) >= 2


def test_a_batch_takes_as_many_iterations_as_its_samples_alone() -> None:
    (config,) = (path for path in CONFIGS if path.stem == "batch")
    values = [1.0, 200.0]
    counts = []
    for contrast in (values, *values):
        spec = sciml.load_spec(
            config, ["grid.shape=[65, 65]", f"problem.parameters.contrast={contrast}"]
        )
        counts.append(sciml.solve(spec.problem, spec.solver, on=spec.on).stats.iterations.tolist())
    assert counts[0] == counts[1:]


def test_the_printed_error_is_the_error(tmp_path: Path) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "neumann")
    errors = []
    for n in (16, 32):
        sciml_run("solve", config, "--set", f"grid.shape=[{n}, {n}]", "--out", tmp_path)
        errors.append(json.loads((tmp_path / "run.json").read_text())["error"])
    solution = load_solution(tmp_path)
    x, y = solution.on.coordinates()
    exact = torch.cos(torch.pi * x) * torch.cos(2 * torch.pi * y)
    assert errors[1] == pytest.approx(float(solution.error(exact)), rel=1e-6)
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_a_free_constant_is_no_error() -> None:
    (config,) = (path for path in CONFIGS if path.stem == "neumann")
    errors = []
    for shift in ("0", "5"):
        exact = f"problem.exact={shift} + cos(pi*x)*cos(2*pi*y)"
        result = answer(sciml.load_spec(config, ["grid.shape=[32, 32]", exact]), Setting())
        assert result.error is not None
        errors.append(float(result.error))
    assert errors[0] == pytest.approx(errors[1], rel=1e-9)


def test_the_hole_holds_no_answer(tmp_path: Path) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "obstacle")
    sciml_run("solve", config, "--set", "grid.shape=[41, 21]", "--out", tmp_path)
    solution = load_solution(tmp_path)
    x, y = solution.on.coordinates()
    hole = ((x + 0.4) ** 2 + (y - 0.1) ** 2 < 0.04) | ((x - 0.4) ** 2 + (y + 0.1) ** 2 < 0.04)
    assert torch.equal(solution.value.isnan(), hole)


def test_not_solved_is_exit_code_1_with_advice(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = sciml_run("solve", spec, "--set", "solver.max_iterations=2", "--out", out)
    assert result.exit_code == 1
    assert "raise max_iterations" in result.output
    assert json.loads((out / "run.json").read_text())["status"] == "max_iterations"
    assert load_solution(out).converged is False


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["problem.equation.K=0 - x"], r"spec\.yaml|--set.*K"),
        (["problem.equation.K=1 + w"], "'w'"),
        (["solver.kind=cgg"], "did you mean 'cg'"),
        (["solver.rtoll=1"], "did you mean 'rtol'"),
        (["grid.shape=[2, 2]"], "at least 3 points"),
        (["grid.shape=[300000, 300000]"], "GB are free"),
        (["grid.shape"], "key.path=value"),
        (["solver={kind: multigrid, cycle: X}"], "cycle"),
        (["problem.equation.K={file: none.npy}"], "cannot find the file"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_nothing_is_written(
    spec: Path, tmp_path: Path, overrides: list[str], said: str
) -> None:
    out = tmp_path / "out"
    settings = [word for text in overrides for word in ("--set", text)]
    result = sciml_run("solve", spec, *settings, "--out", out)
    assert result.exit_code == 2, result.output
    complaint = [line for line in result.output.splitlines() if line.startswith("sciml: ")]
    assert len(complaint) == 1
    assert re.search(said, complaint[0])
    assert "Traceback" not in result.output
    assert not out.exists()


def test_a_fault_in_the_file_has_line_and_column(spec: Path) -> None:
    spec.write_text(SPEC.replace("K: ", "k: "))
    result = sciml_run("validate", spec)
    assert result.exit_code == 2
    assert f"{spec}:3:31: problem.equation.k: unknown key 'k'" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["solve", "missing.yaml"],
        ["solve", "."],
        ["validate", "missing.yaml"],
        ["info", "missing"],
        ["plot", "missing"],
        ["certify", "."],
        ["bench", "eliptic"],
    ],
    ids=" ".join,
)
def test_what_is_not_there_is_exit_code_2(arguments: list[str]) -> None:
    result = sciml_run(*arguments)
    assert result.exit_code == 2
    assert result.output.startswith("sciml: ")
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize(
    "option", [("--device", "gpu"), ("--dtype", "float46"), ("--out", __file__)]
)
def test_a_wrong_option_is_exit_code_2(spec: Path, option: tuple[str, str]) -> None:
    result = sciml_run("solve", spec, *option)
    assert result.exit_code == 2
    assert f"sciml: {option[0]}" in result.output


def test_single_precision_rounds_the_system_where_asked(spec: Path, tmp_path: Path) -> None:
    values = []
    for dtype in ("float64", "float32"):
        out = tmp_path / dtype
        options = ("--dtype", dtype, "--set", "solver.rtol=1e-4", "--out", out)
        done = sciml_run("solve", spec, *options)
        assert done.exit_code == 0, done.output
        assert json.loads((out / "run.json").read_text())["dtype"] == dtype
        assert ("the rounded system" in done.output) == (dtype == "float32")
        values.append(load_solution(out).value)
    gap = float((values[0] - values[1]).norm() / values[0].norm())
    assert 1e-9 < gap < 1e-4


def test_single_precision_solves_the_rounded_system_and_says_so(spec: Path, tmp_path: Path) -> None:
    done = sciml_run("solve", spec, "--dtype", "float32", "--out", tmp_path / "run")
    assert done.exit_code == 0
    assert "use float64" in done.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["residual"] <= 1.01e-8


def test_the_record_repeats_the_run(run: Path, tmp_path: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    (tmp_path / "again.yaml").write_text(json.dumps(record["spec"]))
    out = tmp_path / "out"
    assert sciml_run("solve", tmp_path / "again.yaml", "--out", out).exit_code == 0
    assert torch.equal(load_solution(out).value, load_solution(run).value)


def test_validate_checks_without_solving(spec: Path, tmp_path: Path) -> None:
    result = sciml_run("validate", spec, "--set", "solver={kind: direct}")
    assert result.exit_code == 0, result.output
    assert "992" in result.output and "symmetric, definite" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["spec.yaml"]


@pytest.mark.parametrize(
    "changes",
    [
        ["solver={kind: sdirk}"],
        ["solver={kind: newton}"],
        ["solver={kind: fast_poisson}"],
        ["problem.equation={kind: convection_diffusion, b: [1, 0]}", "solver={kind: cg}"],
        ["problem.equation={kind: helmholtz, wavenumber: 5}", "solver={kind: multigrid}"],
        ["problem.equation={kind: poisson}", "modes={count: 5000}"],
    ],
)
def test_validate_refuses_what_solve_and_modes_refuse_and_in_their_words(
    spec: Path, tmp_path: Path, changes: list[str]
) -> None:
    options = [part for change in changes for part in ("--set", change)]
    command = "modes" if changes[-1].startswith("modes") else "solve"
    told = sciml_run("validate", spec, *options)
    refused = sciml_run(command, spec, *options, "--out", tmp_path / "out")
    assert told.exit_code == refused.exit_code == 2
    assert told.output.splitlines()[-1] == refused.output.splitlines()[-1]


def test_a_mesh_of_another_problem_is_said_before_quantities(tmp_path: Path) -> None:
    block = Path(__file__).parents[1] / "configs" / "reference" / "meshes" / "block.msh"
    asked, path = {"quantities": {"middle": {"at": [0.5, 0.5]}}}, tmp_path / "flat.yaml"
    plate = {"kind": "elasticity", "young": 1}
    scalar, far = {"kind": "poisson", "f": 1}, "the mesh lies in 3 dimensions, and this"
    for equation, boundary, said in (
        (scalar, {"left": {"dirichlet": 0}}, "the mesh has no boundary 'left'"),
        (plate, {"surface": {"dirichlet": [0, 0]}}, f"{far} list has 2"),
        (scalar, {"surface": {"dirichlet": 0}}, f"{far} point has 2"),
    ):
        problem = {"equation": equation, "boundary": boundary}
        spec = {"problem": problem, "mesh": {"file": str(block)}, "output": asked}
        path.write_text(json.dumps(spec))
        for command in ("validate", "solve"):
            result = sciml_run(command, path)
            assert result.exit_code == 2 and said in result.output


def test_schema_is_json_that_names_every_solver() -> None:
    result = sciml_run("schema")
    schema = json.loads(result.stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert all(f'"{kind}"' in result.stdout for kind in ("cg", "multigrid", "fast_poisson"))


def test_info_tells_a_run_a_file_and_a_spec(run: Path, spec: Path) -> None:
    for what in (run, run / "solution.h5"):
        result = sciml_run("info", what)
        assert result.exit_code == 0
        assert "converged" in result.output and "true relative residual" in result.output
    assert "33 x 33 nodes" in sciml_run("info", spec).output


def test_plot_draws_the_figures_again(run: Path, tmp_path: Path) -> None:
    result = sciml_run("plot", run, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "solution.png",
        "convergence.png",
        "residual.png",
        "K.png",
    }


def test_certify_brackets_the_distance_to_the_direct_solution(run: Path) -> None:
    result = sciml_run("certify", run, "--steps", 2)
    assert result.exit_code == 0, result.output
    between = re.search(r"is between (\S+) and (\S+), that is", result.output)
    assert between is not None
    low, high = map(float, between.groups())
    spec = sciml.load_spec(run.parent / "spec.yaml")
    system = sciml.discretize(spec.problem, spec.on)
    exact = system.restrict(sciml.solve(system, sciml.solvers.Direct()).value)
    gap = exact - system.restrict(load_solution(run).value)
    distance = float((gap * system.A.apply(gap)).sum().sqrt())
    assert low <= 1.01 * distance  # three digits are printed
    assert 0.99 * distance <= high <= 1.5 * distance


def test_certify_says_when_the_solve_beneath_did_not_converge(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "problem:\n  domain: {kind: box, lower: [0, 0], upper: [1, 1]}\n"
        "  equation: {kind: poisson, f: 1}\n"
        "  boundary: {all: {dirichlet: 0}}\ngrid: {shape: [17, 17]}\n"
        "solver: {kind: cg, rtol: 1.0e-12, max_iterations: 2}\n"
    )
    result = sciml_run("certify", spec)
    assert "the solve beneath did not converge (max_iterations)" in result.output


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = sciml_run(command, "--help")
    assert result.exit_code == 0
    assert f"Example:  sciml {command}" in result.output


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["slove", "a.yaml"], "solve"),
        (["solve", "a.yaml", "--dtyp", "float32"], "--dtype"),
        (["generate", "a.yaml", "--worker", "2"], "--workers"),
        (["new", "navier_stoks"], "navier-stokes"),
        (["bench", "eliptic"], "elliptic"),
        (["export", "data", "--to", "npy", "--out", "a"], "npz"),
        (["solve", "a.yaml", "--dtype", "float46"], "float64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slip_of_the_pen_is_told_what_was_meant(arguments: list[str], meant: str) -> None:
    result = sciml_run(*arguments)
    assert result.exit_code == 2
    assert re.search(rf"(did you mean|Did you mean|Possible options).*{meant}", result.output)


@pytest.mark.parametrize(("words", "offered"), [("sciml so", "solve"), ("sciml new dar", "darcy")])
def test_shells_complete_commands_and_presets(words: str, offered: str) -> None:
    complete = {
        "_SCIML_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    code = "import sys; sys.argv = ['sciml']; from sciml.app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **complete}, capture_output=True, text=True
    )
    assert done.stdout.split() == [offered], done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["solve", CONFIGS[0].parent / "poison.yaml"], "did you mean '.*poisson.yaml'"),
        (["solve", "nowhere/spec.yaml"], "start one with sciml new"),
        (["solve", CONFIGS[0].parent], "is a directory; name a YAML file"),
        (["certify", CONFIGS[0].parent / "heat.yaml"], "for steady linear problems"),
        (["certify", "runs/nope"], "'runs/nope' does not exist; name the directory that sciml"),
        (["certify", "nope.yaml"], "there is no file 'nope.yaml'"),
        (["evaluate", ".", "--data", "."], "name a folder that sciml train wrote"),
        (["export", ".", "--to", "npz", "--out", "a"], "sciml generate makes one"),
        (["info", __file__], "none of what info reads"),
        (["new", "poisson", "--out", Path(__file__) / "a.yaml"], "is a file; name a directory"),
        (["train", CONFIGS[0]], "this spec is for sciml solve, not for sciml train"),
        (["generate", CONFIGS[0].parent / "train/fno-darcy.yaml", "--out", "a"], "for sciml train"),
        (["generate", CONFIGS[0].parent / "datasets/darcy.yaml", "--out", __file__],
         "is a file; name a directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_what_would_be_right(arguments: list[object], said: str) -> None:
    result = sciml_run(*arguments)
    assert result.exit_code == 2, result.output
    assert len(result.output.splitlines()) == 1 and re.search(said, result.output), result.output


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("problem.equation.K=k.npy", "{file: k.npy}"),
        ("problem.observations={x: [1, 2], u: [1]}", "x 2"),
        ("problem.observations={x: [1, a]}", "expected a number; got the text 'a'"),
        ("problem.observations=3", "a CSV file, or columns"),
    ],
)
def test_a_wrong_value_is_told_with_what_would_be_right(
    spec: Path, override: str, said: str
) -> None:
    result = sciml_run("validate", spec, "--set", override)
    assert result.exit_code == 2 and said in result.output, result.output


def test_a_folder_below_a_file_is_refused_before_anything_is_solved(spec: Path) -> None:
    result = sciml_run("solve", spec, "--out", spec / "run")
    assert result.exit_code == 2
    assert result.output.startswith("sciml: --out")


def test_version() -> None:
    assert sciml_run("--version").output == f"sciml {sciml.__version__}\n"


def test_an_interrupt_is_exit_code_130_without_a_traceback(spec: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from sciml.app import cli, run\n"
        "run.answer = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        f"cli.app(['solve', {str(spec)!r}, '--out', {str(tmp_path / 'out')!r}])\n"
    )
    # A shell that starts a job in the background makes it ignore interrupts.
    reset = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    done = subprocess.run(
        [sys.executable, "-c", reset + code], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
