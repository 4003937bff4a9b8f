"""``sciml evaluate`` from a user's side, and the figures it draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluated import family, stored
from shards import dataset
from typer.testing import CliRunner, Result

from sciml.app import cli
from sciml.app.console import aligned
from sciml.app.evaluate import FILE, markdown
from sciml.app.figures_learning import Case, plot_cases, plot_errors, plot_transfer
from sciml.core.problem.grid import Box, Grid
from sciml.core.run.serialise import dump
from sciml.datasets.loader import OperatorData, Times
from sciml.operators import MgNO, Operator, Signature, save_operator
from sciml.training import ResolutionTransfer, evaluate
from sciml.training.data import at_trained_shape
from sciml.training.evaluation import AtResolution

SQUARE = Box((0.0, 0.0), (1.0, 1.0))


def sciml_evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("smooth"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator that was told where it comes from, and trained on nothing."""
    signature = Signature(("a",), ("u",), Grid((9, 9), domain=SQUARE), ("dirichlet",) * 2)
    operator = Operator.build(MgNO(width=3, layers=1, levels=2), signature)
    operator.output_std.fill_(0.01)
    operator.provenance = {
        "places": family().inputs,
        "spec": json.loads(json.dumps(dump(family())))["problem"],
    }
    folder = tmp_path_factory.mktemp("run")
    save_operator(operator, folder)
    return folder


@pytest.fixture(scope="module")
def found(run: Path, data: Path) -> tuple[Result, Path]:
    out = run / "report"
    result = sciml_evaluate(
        run, "--data", data, "--transfer", "--certify", "--samples", 2, "--out", out
    )
    return result, out


def test_everything_measured_is_recorded(found: tuple[Result, Path], run: Path, data: Path) -> None:
    result, out = found
    assert result.exit_code == 0, result.output
    record = json.loads((out / FILE).read_text())
    from sciml.operators import load_operator

    operator = load_operator(run)
    expected = evaluate(operator, at_trained_shape(operator.signature, data, "test"))
    (own,) = record["evaluations"].values()
    assert own["relative_l2"] == pytest.approx(expected.relative_l2.tolist(), rel=1e-6)
    assert own["relative_h1"] == pytest.approx(expected.relative_h1.tolist(), rel=1e-6)
    assert own["samples"] == 4 and own["parameters"] == expected.parameters
    assert {row["method"] for row in record["multigrid"]} == {"full_multigrid", "cg"}
    assert [row["shape"] for row in record["transfer"]["rows"]] == [[9, 9], [17, 17], [33, 33]]
    assert [part["held"] for part in record["certificates"]] == [1.0, 1.0]
    assert record["polishing"]["iterations"]["residual"] > 0
    for name in ("cases.png", "errors.png", "transfer.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_tables_name_what_was_measured(found: tuple[Result, Path]) -> None:
    text = found[0].output
    for part in (
        "Relative errors", "mgno,", "full multigrid", "9x9 (trained)", "2 of 2",
        "Multigrid-CG to 1e-06", "the stored truth",
    ):  # fmt: skip
        assert part in text


def test_frames_are_rolled_out(tmp_path: Path) -> None:
    dataset(tmp_path / "moving", frames=5)
    box = Box((0.0, 0.0), (1.0, 2.0))
    signature = Signature(("u",), ("u",), Grid((9, 5), domain=box), ("dirichlet",) * 2)
    save_operator(Operator.build(MgNO(width=2, layers=1, levels=1), signature), tmp_path / "run")
    result = sciml_evaluate(
        tmp_path / "run", "--data", tmp_path / "moving", "--frames", 3, "--start", 1
    )
    assert result.exit_code == 0, result.output
    assert "no multigrid to compare with" in result.output
    assert (tmp_path / "run" / "evaluation" / FILE).is_file()
    late = sciml_evaluate(tmp_path / "run", "--data", tmp_path / "moving", "--frames", 9)
    assert late.exit_code == 2 and "5 frames" in late.output


def test_frames_are_those_of_the_training(tmp_path: Path) -> None:
    """Frame 2 from 1 and 4 from 3, where nothing else is asked for."""
    dataset(tmp_path / "moving", frames=5)
    box = Box((0.0, 0.0), (1.0, 2.0))
    signature = Signature(("u",), ("u",), Grid((9, 5), domain=box), ("dirichlet",) * 2)
    operator = Operator.build(MgNO(width=2, layers=1, levels=1), signature)
    operator.provenance = {"times": {"inputs": [0], "outputs": [1], "starts": [1, 3]}}
    save_operator(operator, tmp_path / "run")
    assert sciml_evaluate(tmp_path / "run", "--data", tmp_path / "moving").exit_code == 0
    record = json.loads((tmp_path / "run" / "evaluation" / FILE).read_text())
    pairs = OperatorData(tmp_path / "moving", "test", ("u",), times=Times((0,), (1,), (1, 3)))
    (own,) = record["evaluations"].values()
    assert own["relative_l2"] == pytest.approx(evaluate(operator, pairs).relative_l2.tolist())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"run": "nowhere"}, "nowhere"),
        ({"data": "nowhere"}, "'nowhere' is no dataset"),
        ({"split": "tset"}, "did you mean 'test'"),
        ({"split": "valid"}, "has no split 'valid'"),
    ],
)
def test_mistakes_are_told_in_one_line(
    run: Path, data: Path, change: dict[str, str], told: str
) -> None:
    given = {"run": run, "data": data, "split": "test", **change}
    result = sciml_evaluate(given["run"], "--data", given["data"], "--split", given["split"])
    assert result.exit_code == 2 and told in result.output
    assert len(result.output.strip().splitlines()) == 1 and "Traceback" not in result.output


def test_a_dataset_of_another_problem_is_not_certified(run: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from sciml.core.problem.equation import Equation
    from sciml.datasets.generate import generate

    other = family(((9, 9),), 1)
    equation = replace(other.problem.equation, f=2.0)
    assert isinstance(equation, Equation)
    other = replace(other, problem=replace(other.problem, equation=equation), grid=Grid((9, 9)))
    generate(other, tmp_path / "other", spec=dump(other), versions={})
    result = sciml_evaluate(run, "--data", tmp_path / "other", "--certify")
    assert result.exit_code == 2 and "problem.equation.f" in result.output


def test_columns_stand_under_their_heads() -> None:
    rows = [("a", "bb"), ("ccc", "d")]
    assert aligned(rows) == "a    bb\nccc  d"
    assert markdown(rows) == "| a | bb |\n|---|---|\n| ccc | d |"


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_cases_are_drawn_in_every_dimension(dimension: int) -> None:
    shape = (9, 7, 5)[:dimension]
    values = np.random.default_rng(0).normal(size=(3, *shape))
    axes = tuple(np.linspace(0, 1, n) for n in shape)
    cases = [Case(name, *values) for name in ("best", "worst")]
    figure = plot_cases(cases, axes, ("a", "u"))
    titles = [panel.get_title() for panel in figure.axes]
    assert sum("$u$" in title for title in titles) == 1
    if dimension == 1:
        assert len(figure.axes) == 6
        _, drawn = figure.axes[2].lines[0].get_data()
        np.testing.assert_array_equal(drawn, values[2] - values[1])
    else:
        images = [image for panel in figure.axes for image in panel.images]
        middle = values[2] - values[1]
        middle = middle if dimension == 2 else middle[..., 2]
        np.testing.assert_allclose(images[3].get_array(), middle.T)


def test_histograms_hold_every_sample() -> None:
    errors = np.array([1e-3, 2e-3, 5e-2, np.nan, 0.0])
    figure = plot_errors({"$L^2$": {"one": errors, "other": errors[:1]}})
    heights = [patch.get_height() for patch in figure.axes[0].patches[:24]]
    assert sum(heights) == 3
    assert "2.00e-03" in figure.axes[0].get_legend().get_texts()[0].get_text()
    assert plot_errors({"$L^2$": {"none": np.array([0.0])}}).axes


def test_resolutions_are_drawn_as_measured() -> None:
    def row(n: int, refused: str = "") -> AtResolution:
        error = torch.full((2,), 1.0 / n, dtype=torch.float64)
        return AtResolution((n, n), error, 2 * error, 3 * error, refused)

    figure = plot_transfer(
        {"mgno": ResolutionTransfer((17, 17), (row(9), row(17), row(33, "too fine")))}
    )
    error, interpolated, drift = figure.axes[0].lines[:3]
    np.testing.assert_allclose(error.get_data(), [[9, 17], [1 / 9, 1 / 17]])
    np.testing.assert_allclose(interpolated.get_ydata(), [2 / 9, 2 / 17])
    np.testing.assert_allclose(drift.get_data(), [[9], [3 / 9]])
