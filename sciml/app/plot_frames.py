"""Figures of a solution in time, or of several fields: a panel for each instant and field.

One dimension: the field over the (x, t) plane, beside a few of its profiles. Two: maps of up to
five instants, a row for each field on a colour scale of its own. Three: the middle plane in z.
A batch shows its first sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sciml.app.plot import STYLE, Picture, colour_bar, draw_map, normalise, save, symbol
from sciml.core.grid import Grid
from sciml.core.solution import Solution

_COLUMNS = 5


def plot_frames(
    solution: Solution, on: Grid, file: str | Path | None = None, title: str = ""
) -> Figure:
    """A figure of the frames and fields of a solution's first sample."""
    values = _frames_and_fields(solution)
    times = None if solution.times is None else solution.times.detach().cpu().numpy()
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="constrained")
        if values.ndim == 3 and times is not None:
            _draw_space_time(figure, values, times, on, solution.fields)
        elif values.ndim == 3:
            _draw_profiles(figure, values, on, solution.fields)
        else:
            _draw_panels(figure, values, times, on, solution.fields)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _frames_and_fields(solution: Solution) -> np.ndarray:
    """The first sample as (frames, fields, *grid)."""
    value = solution.value.detach().cpu()
    value = value[(0,) * solution.residual.ndim]
    if solution.times is None:
        value = value.unsqueeze(0)
    if len(solution.fields) == 1:
        value = value.unsqueeze(1)
    return value.numpy()


def _chosen(count: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, _COLUMNS)).round().astype(int))


def _draw_space_time(
    figure: Figure, values: np.ndarray, times: np.ndarray, on: Grid, names: tuple[str, ...]
) -> None:
    figure.set_size_inches(10.5, 3.9 * len(names))
    panels = np.atleast_2d(figure.subplots(len(names), 2))
    x = on.axes()[0].numpy()
    for row, name, field in zip(panels, names, values.swapaxes(0, 1), strict=True):
        image = row[0].pcolormesh(x, times, field, shading="nearest", rasterized=True)
        row[0].set_xlabel("$x$")
        row[0].set_ylabel("$t$")
        colour_bar(figure, image, [row[0]], name)
        for k in _chosen(len(times)):
            row[1].plot(x, field[k], lw=1.4, label=f"$t = {times[k]:.3g}$")
        _finish_profiles(row[1], on, name)


def _draw_profiles(figure: Figure, values: np.ndarray, on: Grid, names: tuple[str, ...]) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    for name, field in zip(names, values[0], strict=True):
        axes.plot(on.axes()[0].numpy(), field, lw=1.6, label=symbol(name))
    _finish_profiles(axes, on, ", ".join(names))


def _finish_profiles(axes: Any, on: Grid, name: str) -> None:
    axes.set_xlim(on.box.lower[0], on.box.upper[0])
    axes.set_xlabel("$x$")
    axes.set_ylabel(symbol(name))
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9)


def _draw_panels(
    figure: Figure,
    values: np.ndarray,
    times: np.ndarray | None,
    on: Grid,
    names: tuple[str, ...],
) -> None:
    if values.ndim == 5:
        values = values[..., values.shape[-1] // 2]
    chosen = _chosen(len(values))
    lower, upper = on.box.lower, on.box.upper
    aspect = float(np.clip((upper[1] - lower[1]) / (upper[0] - lower[0]), 0.3, 2.5))
    size = 2.6 if len(chosen) > 2 else 4.2
    figure.set_size_inches(size * len(chosen) + 1.0, (size * aspect + 0.4) * len(names))
    panels = np.atleast_1d(figure.subplots(len(names), len(chosen), sharex=True, sharey=True))
    panels = panels.reshape(len(names), len(chosen))
    for row, name, field in zip(panels, names, values.swapaxes(0, 1), strict=True):
        norm = normalise(field[chosen])
        for axes, k in zip(row, chosen, strict=True):
            image = draw_map(axes, field[k], on, (0, 1), norm)
        row[0].set_ylabel("$y$")
        colour_bar(figure, image, list(row), name)
    for above, below, k in zip(panels[0], panels[-1], chosen, strict=True):
        below.set_xlabel("$x$")
        if times is not None:
            above.set_title(f"$t = {times[k]:.3g}$", fontsize=10)
