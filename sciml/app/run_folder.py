"""The folder of a run: what a run writes, and what later commands read from it or add to it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sciml.app.report import SOLUTION, html
from sciml.app.run import FRAMES, RECORD_FORMAT, Answer, bounds, record
from sciml.app.spec import Spec, read_spec
from sciml.app.yaml import parse_yaml
from sciml.core.certificate import Certificate
from sciml.core.errors import InputError, did_you_mean
from sciml.core.files import save_solution, write_json, write_text
from sciml.core.place import discrete
from sciml.core.solution import Solution

RECORD, REPORT = "run.json", "report.html"
RESIDUAL, CONVERGENCE = "residual", "convergence"
_CAPTIONS = {
    "stress": "Von Mises stress",
    RESIDUAL: "Residual of the discrete equations, relative to the rms of their right-hand side",
}
_POINTS = "Residual of the equation, and the points it was trained at"


def write_run(
    result: Answer,
    directory: Path,
    overrides: Iterable[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write the solution, its figures, the record and the report; returns the paths.

    ``rows``: those of the comparison with other solvers, if one was asked for.
    """
    summary = record(result, overrides)
    solution = result.solution
    try:
        paths = list(save_solution(solution, directory, result.fields))
        (directory / FRAMES).unlink(missing_ok=True)  # all of them are in solution.h5 now
        (directory / f"{RESIDUAL}.png").unlink(missing_ok=True)  # that of an earlier run
        figures = draw_figures(solution, result.fields, directory, summary["title"])
        summary["figures"] = {caption: path.name for caption, path in figures.items()}
        summary["baselines"] = list(rows)
        write_json(directory / RECORD, summary)
        write_text(directory / REPORT, html(summary, figures))
    except OSError as error:
        raise InputError(f"cannot write to '{directory}': {error.strerror or error}") from None
    return [*paths, *figures.values(), directory / RECORD, directory / REPORT]


def draw_figures(
    solution: Solution, fields: Mapping[str, torch.Tensor], directory: Path, title: str = ""
) -> dict[str, Path]:
    """Draw the answer, its convergence and the fields beside it; files by caption."""
    from sciml.app.figures import plot_convergence, plot_field, plot_residual, plot_solution

    figures = {SOLUTION: directory / "solution.png"}
    plot_solution(solution, figures[SOLUTION], title)
    figures["Convergence"] = directory / f"{CONVERGENCE}.png"
    plot_convergence(solution, figures["Convergence"])
    for name, values in fields.items():
        assert solution.on is not None
        path = directory / f"{name}.png"
        figures[_CAPTIONS.get(name, f"Coefficient {name}")] = path
        draw = plot_residual if name == RESIDUAL else plot_field
        draw(values, discrete(solution.on), name, path)
    if solution.trained is not None and len(solution.trained.form.data.axes) > 1:
        from sciml.app.figures import plot_points

        figures[_POINTS] = directory / f"{RESIDUAL}.png"
        plot_points(solution.trained, file=figures[_POINTS])
    elif (directory / f"{RESIDUAL}.png").is_file() and RESIDUAL not in fields:
        figures[_POINTS] = directory / f"{RESIDUAL}.png"  # drawn when it was trained
    return figures


def read_run(directory: Path) -> dict[str, Any]:
    """What ``run.json`` in a run's directory says; raises InputError for another directory."""
    path = directory / RECORD
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise InputError(f"'{directory}' {what}; {_neighbours(directory)}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"'{directory}' holds no {RECORD}; {_neighbours(directory)}") from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError:
        raise InputError(f"'{path}' is not JSON; solve the spec again to mend it") from None
    kind = found.get("format", "") if isinstance(found, dict) else ""
    if kind != RECORD_FORMAT:
        training = str(kind).startswith(("sciml training", "sciml preconditioner"))
        hint = "of a training; see it with sciml info" if training else "by another program"
        raise InputError(f"'{path}' was written {hint if not training else 'for a run ' + hint}; "
                         "name the directory of a sciml solve")  # fmt: skip
    return found


def _neighbours(directory: Path) -> str:
    """What to write instead: a run nearby by a similar name, or how runs come to be."""
    home = directory.parent if directory.parent.is_dir() else Path("runs")
    runs = [str(path.parent) for path in sorted(home.glob(f"*/{RECORD}"))]
    if not runs:
        return "name the directory that sciml solve wrote, such as runs/darcy"
    return f"name the directory of a run{did_you_mean(str(directory), runs[:20])}"


def run_spec(directory: Path, overrides: Iterable[str] = ()) -> Spec:
    """The spec that a run recorded."""
    text = json.dumps(read_run(directory)["spec"])
    return read_spec(parse_yaml(text, str(directory / RECORD)), overrides)


def figures_of(directory: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """The figures in a run's directory by caption."""
    named = summary.get("figures") or {SOLUTION: "solution.png", "Convergence": "convergence.png"}
    return {caption: directory / Path(file).name for caption, file in named.items()}


def rewrite_report(directory: Path, out: Path | None = None) -> Path:
    """Write the report of a run anew from its record and figures."""
    summary = read_run(directory)
    path = out or directory / REPORT
    write_text(path, html(summary, figures_of(directory, summary)))
    return path


def keep_certificate(directory: Path, certificate: Certificate) -> Path:
    """Add the certificate to a run's record and report; returns the report's path."""
    summary = read_run(directory)
    write_json(directory / RECORD, {**summary, "certificate": bounds(certificate)})
    return rewrite_report(directory)
