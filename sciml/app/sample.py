"""The values of a run's answer at points of somebody's own, from a CSV file and into one.

A trained function is evaluated itself, at any instant; other values are interpolated, in time at
the frames alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from sciml.app import record
from sciml.app.run import read_solution, run_spec
from sciml.core.disk import write_text
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import AXES
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.table import read_columns
from sciml.core.run.solution import Solution


def sampled(run: Path, points: Path) -> dict[str, torch.Tensor]:
    """Columns (rows,) by name: the coordinates, ``t`` of an answer in time, and the fields.

    Without a ``t`` among the points every frame is told. Raises InputError for points outside, for
    columns that are no coordinates, and for a ``t`` at which nothing is known.
    """
    solution, given = _read(run), read_columns(points)
    axes, timed = _axes(solution), solution.times is not None
    for name in given:
        if name not in axes and not (timed and name == "t"):
            told = (*axes, "t") if timed else axes
            raise InputError(
                f"'{points}': '{name}' is no coordinate here{did_you_mean(name, told)}"
            )
    missing = [axis for axis in axes if axis not in given]
    if missing:
        raise InputError(f"'{points}' has no column {', '.join(missing)}")
    columns = {name: torch.tensor(column, dtype=torch.float64) for name, column in given.items()}
    places = torch.stack([columns[axis] for axis in axes], -1)
    _check_inside(solution, axes, places, points)
    known = {axis: columns[axis] for axis in axes}
    if "t" in columns:
        return {**known, "t": columns["t"]} | _at(solution, places, columns["t"])
    values = solution.sample(places)
    if isinstance(solution.on, Mesh) and solution.function is not None:
        rows = values.isnan().reshape(-1, len(places)).any(0).nonzero()[:, 0]
        if len(rows):
            raise InputError(f"'{points}', point {int(rows[0]) + 1} lies outside the domain")
    if solution.times is None:
        return known | _fields(solution, values)
    batch, count = solution.residual.ndim, len(solution.times)
    repeated = {axis: column.repeat(count) for axis, column in known.items()}
    times = solution.times.repeat_interleave(len(places))
    # Frames next to the points, so that a row is a point at an instant.
    flat = values.movedim(batch, -2).flatten(-2)
    return {**repeated, "t": times} | _fields(solution, flat)


def _read(run: Path) -> Solution:
    """A run's answer, with its problem, by which values beside an obstacle are interpolated."""
    solution = read_solution(run)
    if solution.function is not None or not (run / record.FILE).is_file():
        return solution
    return replace(solution, problem=run_spec(run).problem)


def write(columns: Mapping[str, torch.Tensor], path: Path) -> Path:
    """Write columns as CSV, every digit of them; the path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    write_text(path, text.getvalue())
    return path


def _axes(solution: Solution) -> tuple[str, ...]:
    if solution.on is None:
        raise InputError("a bare vector has no points between its own")
    if isinstance(solution.on, Mesh):
        return AXES[: solution.on.dimension]
    return solution.on.box.axes


def _check_inside(
    solution: Solution, axes: tuple[str, ...], places: torch.Tensor, file: Path
) -> None:
    if solution.on is None or isinstance(solution.on, Mesh):
        return  # a mesh says itself which points it does not hold
    box = solution.on.box
    for k, (low, high) in enumerate(zip(box.lower, box.upper, strict=True)):
        outside = ((places[:, k] < low) | (places[:, k] > high)).nonzero()[:, 0]
        if len(outside):
            row = int(outside[0])
            raise InputError(
                f"'{file}', point {row + 1}: {axes[k]} = {float(places[row, k]):g} lies outside "
                f"the domain, which goes from {low:g} to {high:g}"
            )


def _at(solution: Solution, places: torch.Tensor, t: torch.Tensor) -> dict[str, torch.Tensor]:
    """The fields at instants of their own."""
    assert solution.times is not None
    if solution.function is None:
        raise InputError("between the frames of this run nothing is known; leave the column t out")
    start, end = float(solution.times[0]), float(solution.times[-1])
    if not bool(((t >= start) & (t <= end)).all()):
        raise InputError(f"the column t goes beyond the run's time, {start:g} to {end:g}")
    found = solution.function(torch.cat([places, t[:, None]], -1)).detach()
    return dict(zip(solution.fields, found.unbind(-1), strict=True))


def _fields(solution: Solution, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """Columns of values (*batch, [fields], rows), of a batch one for each sample."""
    names, batch = solution.fields, solution.residual.ndim
    if len(names) == 1:
        values = values.unsqueeze(-2)
    rows = values.detach().reshape(-1, *values.shape[batch:])
    single = batch == 0
    return {
        name if single else f"{name}_{sample}": row[k]
        for sample, row in enumerate(rows)
        for k, name in enumerate(names)
    }
