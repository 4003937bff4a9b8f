"""The residual of a trained function over its box, and the points that it was trained at."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from torch import Tensor

from sciml.app.plot import STYLE, Picture, save
from sciml.core.errors import InputError
from sciml.core.solution import Solution
from sciml.solvers.collocation.conditions import Piece
from sciml.solvers.collocation.objective import Objective

NODES = 201
_DECADES = 1e6  # below the largest residual by this factor all is one colour


def plot_points(
    objective: Objective,
    points: Tensor | None = None,
    file: str | Path | None = None,
    title: str = "",
) -> Figure:
    """|residual| over x and y, or x and t, under ``points`` (N, D), by default those held now.

    In more than two dimensions over the first two coordinates, through the middle of the others.
    Written to ``file`` where one is named.
    """
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(5.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        image = draw_points(axes, objective, points)
        figure.colorbar(image, ax=axes, label="|residual|")
        axes.set_title(title)
        save(figure, file)
    return figure


def plot_trained(solution: Solution, file: str | Path | None = None, title: str = "") -> Figure:
    """The trained function, its first field, beside its residual under the points (N, D).

    Over the same two coordinates as :func:`plot_points`. Written to ``file`` where one is named.
    """
    objective: Objective = solution.trained
    piece = objective.pieces[0]
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(10.2, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        x, y, cube = _plane(piece, NODES)
        u = objective.ansatz.value(cube)[:, 0].detach().view(len(x), len(y)).numpy()
        image = left.pcolormesh(x, y, u.T, shading="gouraud", rasterized=True)
        figure.colorbar(image, ax=left, label=f"${solution.fields[0]}$")
        names = objective.form.data.axes
        left.set(xlabel=f"${names[0]}$", ylabel=f"${names[1]}$")
        figure.colorbar(draw_points(right, objective), ax=right, label="|residual|")
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def draw_points(
    axes: Axes,
    objective: Objective,
    points: Tensor | None = None,
    limits: tuple[float, float] | None = None,
) -> ScalarMappable:
    """The same into given axes; ``limits`` of the colours, by default those of the residual.

    Returns what a colour bar is made of. Raises InputError on an interval: it has one axis.
    """
    piece = objective.pieces[0]
    if piece.free < 2:
        raise InputError("points over the residual are drawn on boxes of at least two axes")
    if points is None:
        points = objective.batches[0].points if objective.batches else piece.lower.new_zeros(0, 2)
    x, y, size = residual_field(objective)
    top = max(float(size.max()), 1e-300)
    low, high = limits or (max(float(size.min()), top / _DECADES), top)
    image = axes.pcolormesh(
        x, y, np.clip(size.T, low, None), norm=LogNorm(low, max(high, 1.001 * low)),
        shading="gouraud", rasterized=True,
    )  # fmt: skip
    axes.scatter(points[:, 0], points[:, 1], s=2.5, c="white", linewidths=0, alpha=0.8)
    names = objective.form.data.axes
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=names[0], ylabel=names[1])
    return image


def residual_field(
    objective: Objective, nodes: int = NODES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions along the first two coordinates (n,) each, and |residual| there, (n, n)."""
    x, y, points = _plane(objective.pieces[0], nodes)
    with torch.no_grad():
        size = torch.cat([objective.pointwise(part) for part in points.split(2**14)])
    return x, y, size.detach().view(nodes, nodes).numpy()


def _plane(piece: Piece, nodes: int) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Positions along the first two coordinates, and the points there, others at their middle."""
    ticks = torch.linspace(0.0, 1.0, nodes, dtype=torch.float64)
    cube = torch.full((nodes * nodes, piece.free), 0.5, dtype=torch.float64)
    cube[:, :2] = torch.cartesian_prod(ticks, ticks)
    x, y = ((piece.lower[i] + ticks * (piece.upper[i] - piece.lower[i])).numpy() for i in (0, 1))
    return x, y, piece.place(cube)
