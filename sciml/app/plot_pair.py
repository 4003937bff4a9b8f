"""Figures that set two runs beside each other: their fields on one scale, their convergence.

In one dimension both are lines in one picture. In two they are maps on one colour scale, with their
difference beside them where they live on one grid; in three the middle plane in z. Of a batch the
first sample is shown, of a problem in time the last frame, of several fields the first, of a
complex field the real part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from sciml.app.figures import STYLE, colour_bar, draw_map, normalise, save, symbol
from sciml.core.grid import Grid
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.solution import Solution

Pair = Mapping[str, Solution]


def plot_fields(pair: Pair, file: str | Path | None = None) -> Figure | None:
    """Both fields on one scale; None where they have not the same number of dimensions."""
    dimensions = {_dimension(solution) for solution in pair.values()}
    if len(dimensions) != 1 or 0 in dimensions:
        return None
    flat = dimensions == {1}
    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        (_draw_lines if flat else _draw_maps)(figure, pair)
        save(figure, file)
    return figure


def plot_courses(pair: Pair, file: str | Path | None = None) -> Figure:
    """The residuals of both by iteration, of a batch the slowest sample's."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for label, solution in pair.items():
            counts = solution.stats.iterations.flatten()
            slowest = int(counts.argmax())
            history = solution.stats.residuals.detach().double()
            residuals = history.reshape(len(history), -1)[: int(counts[slowest]) + 1, slowest]
            marker = "o" if len(residuals) <= 60 else ""
            axes.semilogy(residuals.numpy(), "-", marker=marker, ms=3.5, lw=1.3, label=label)
        axes.set_xlabel("iteration or step")
        axes.set_ylabel("relative residual")
        axes.grid(True, which="major", color="0.88", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, file)
    return figure


def _dimension(solution: Solution) -> int:
    """Of what is drawn; 0 where nothing can be."""
    on = solution.on
    if isinstance(on, Mesh):
        return on.dimension if on.dimension < 3 else 0
    if isinstance(on, Points):
        return min(on.box.dimension, 2)
    return 0 if on is None else min(len(on.shape), 2)


def values(solution: Solution) -> np.ndarray:
    """The real field that is drawn: first sample, last frame, first field, middle plane."""
    value = solution.last.detach().cpu()[(0,) * solution.residual.ndim]
    if len(solution.fields) > 1:
        value = value[0]
    shown = (value.real if value.is_complex() else value).numpy()
    return shown[..., shown.shape[-1] // 2] if shown.ndim == 3 else shown


def _draw_lines(figure: Figure, pair: Pair) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    for style, (label, solution) in zip(("-", "--"), pair.items(), strict=True):
        x = _positions(solution)
        order = np.argsort(x)
        axes.plot(x[order], values(solution)[order], style, lw=1.6, label=label)
    axes.set_xlabel("$x$")
    axes.set_ylabel(symbol(next(iter(pair.values())).fields[0]))
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9)


def _positions(solution: Solution) -> np.ndarray:
    on = solution.on
    assert on is not None
    return np.asarray(on.nodes[:, 0] if isinstance(on, Mesh) else on.coordinates()[0].numpy())


def _draw_maps(figure: Figure, pair: Pair) -> None:
    shown = {label: values(solution) for label, solution in pair.items()}
    difference = _difference(pair, shown)
    norm = normalise(np.concatenate([field.ravel() for field in shown.values()]))
    count = 2 if difference is None else 3
    figure.set_size_inches(4.4 * count, 4.0)
    panels = list(figure.subplots(1, count))
    for axes, (label, solution) in zip(panels, pair.items(), strict=False):
        image = _draw(axes, shown[label], solution, norm)
        axes.set_title(label, fontsize=11)
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
    colour_bar(figure, image, panels[:2], next(iter(pair.values())).fields[0])
    if difference is not None:
        top = float(np.nanmax(np.abs(difference))) or 1.0
        with matplotlib.rc_context({"image.cmap": "RdBu_r"}):
            image = _draw(panels[2], difference, next(iter(pair.values())), Normalize(-top, top))
        panels[2].set_title("second less first", fontsize=11)
        panels[2].set_xlabel("$x$")
        colour_bar(figure, image, panels[2:], "difference")


def _difference(pair: Pair, shown: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Of the second from the first, where both have the same points."""
    first, second = pair.values()
    a, b = shown.values()
    if type(first.on) is not type(second.on) or a.shape != b.shape:
        return None
    assert first.on is not None and second.on is not None
    same = all(
        np.array_equal(np.asarray(x), np.asarray(y))
        for x, y in zip(first.on.coordinates(), second.on.coordinates(), strict=True)
    )
    return b - a if same else None


def _draw(axes: Axes, field: np.ndarray, solution: Solution, norm: Normalize) -> Any:
    on = solution.on
    if isinstance(on, Mesh):
        from sciml.app.figures import draw_triangles

        return draw_triangles(axes, field, on, norm)
    if isinstance(on, Points):
        columns = [column.numpy() for column in on.coordinates()]
        return axes.scatter(columns[0], columns[1], c=field, s=6, norm=norm)
    assert isinstance(on, Grid)
    return draw_map(axes, field, on, (0, 1), norm)
