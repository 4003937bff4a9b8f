"""Figures of values at scattered points."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sciml.app.plot import STYLE, Picture, save
from sciml.core.points import Points
from sciml.core.solution import Solution


def plot_scattered(
    solution: Solution, on: Points, file: str | Path | None = None, title: str = ""
) -> Figure:
    """The value over the first two coordinates, over x in one dimension; in time the last frame."""
    columns = [c.numpy() for c in on.coordinates()]
    names = on.box.axes
    value = solution.last.detach().cpu().double().numpy().reshape(-1, on.count)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(5.2 * len(value), 4.2), layout="constrained")
        for axes, u, field in zip(
            np.atleast_1d(figure.subplots(1, len(value))), value, solution.fields, strict=True
        ):
            axes.set_xlabel(f"${names[0]}$")
            if len(columns) == 1:
                order = np.argsort(columns[0])
                axes.plot(columns[0][order], u[order], lw=1.4)
                axes.set_ylabel(f"${field}$")
                continue
            # The largest on top: in many dimensions most points are far from where u is large.
            order = np.argsort(np.abs(u))
            shown = axes.scatter(columns[0][order], columns[1][order], c=u[order], s=6)
            axes.set_ylabel(f"${names[1]}$")
            figure.colorbar(shown, ax=axes, label=f"${field}$")
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure
