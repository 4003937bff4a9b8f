"""What is shown while a problem is solved or a function is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

import sciml
from sciml.app.console import Watch, training_line
from sciml.app.figures import plot_trained
from sciml.app.run import Setting, answer, draw_figures
from sciml.core.problem.problem import Time

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "pinn.yaml"
TERMS = {"equation": 3e-2, "left": 1e-4, "right": 2e-4, "top": 5e-3, "bottom": 1e-6}


def test_a_training_tells_its_largest_terms_its_error_and_the_time_left() -> None:
    record = {"terms": TERMS, "error": 1.5e-3, "left": 75.0}
    assert training_line(7, 0.25, record) == (
        "iteration 7, relative residual 2.50e-01 (equation 3.0e-02, top 5.0e-03, right 2.0e-04, "
        "left 1.0e-04, 1 more), error 1.50e-03, at most 1 min left"
    )


@pytest.mark.parametrize("missing", ["error", "left"])
def test_what_is_not_known_is_not_told(missing: str) -> None:
    record = {"terms": {"equation": 1.0}, "error": 0.5, "left": 3.0, missing: None}
    assert {"error": "error", "left": " left"}[missing] not in training_line(1, 1.0, record)


def test_other_solvers_tell_their_residual_or_their_time() -> None:
    lines: list[str] = []
    Watch(lambda line, _: lines.append(line), None)(3, 1e-4)
    Watch(lambda line, _: lines.append(line), Time(end=2.0))(4, 0.5)
    assert lines == ["iteration 3, relative residual 1.00e-04", "step 4, t = 0.5 of 2"]


def test_the_training_of_a_run_is_told_and_drawn_with_its_points(tmp_path: Path) -> None:
    changes = ["grid.shape=[9,9]", "solver.points=100", "solver.rtol=1e-2"]
    spec = sciml.load_spec(CONFIG, changes)
    lines: list[str] = []
    result = answer(spec, Setting(), Watch(lambda line, _: lines.append(line), None))
    assert all("equation" in line and ", error " in line and " left" in line for line in lines)
    assert len(lines) == int(result.solution.stats.iterations)

    figures, _ = draw_figures(result.solution, {}, tmp_path)
    assert (tmp_path / "residual.png") in figures.values()
    figure = sciml.plot(result.solution, tmp_path / "both.png")
    drawn = [collection for axes in figure.axes for collection in axes.collections]
    counts = [len(c.get_offsets()) for c in drawn if c.__class__.__name__ == "PathCollection"]
    assert counts == [100]
    assert len(plot_trained(result.solution).axes) == 4  # two panels, two colour bars
