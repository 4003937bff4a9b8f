"""Figures of a solution on a mesh: lines, coloured triangles, or half of a solid.

Values at the nodes are shaded between them, values of elements fill them; a P2 triangle is drawn as
four. A displacement has a panel for each component. A batch shows its first samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from sciml.app.plot import SAMPLES, STYLE, Picture, colour_bar, normalise, save, symbol
from sciml.core.mesh import Mesh

# The four triangles between the six nodes of a P2 one.
_QUARTERS = ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5))
# Up to so many elements their edges are drawn too.
_EDGES = 3000


def plot_on_mesh(
    value: torch.Tensor,
    mesh: Mesh,
    names: tuple[str, ...],
    file: str | Path | None = None,
    title: str = "",
) -> Figure:
    """A figure of ``value`` (*batch, [fields,] nodes or elements), one panel per field or sample.

    ``names``: the fields', a single one for a value without an axis of fields.
    """
    rows = value.detach().cpu().double().reshape(-1, value.shape[-1]).numpy()[:SAMPLES]
    labels = [names[k % len(names)] for k in range(len(rows))]
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed" if mesh.dimension < 3 else "constrained")
        if mesh.dimension == 1:
            _draw_lines(figure, rows, mesh, labels)
        else:
            _draw_panels(figure, rows, mesh, labels, several=len(names) > 1)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _draw_lines(figure: Figure, rows: np.ndarray, mesh: Mesh, labels: list[str]) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    nodal = rows.shape[-1] == len(mesh.nodes)
    x = mesh.nodes[:, 0] if nodal else mesh.points[mesh.cells].mean(axis=1)[:, 0]
    order = np.argsort(x)
    for index, values in enumerate(rows):
        axes.plot(x[order], values[order], lw=1.6, label=f"sample {index}")
    axes.set_xlabel("$x$")
    axes.set_ylabel(f"{symbol(labels[0])}$(x)$")
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(rows) > 1:
        axes.legend(fontsize=9)


def _draw_panels(
    figure: Figure, rows: np.ndarray, mesh: Mesh, labels: list[str], several: bool
) -> None:
    columns = int(np.ceil(np.sqrt(len(rows))))
    lines = int(np.ceil(len(rows) / columns))
    extent = np.ptp(mesh.points, axis=0)
    aspect = float(np.clip(extent[1] / extent[0], 0.3, 2.5)) if mesh.dimension == 2 else 0.85
    width = 5.6 if len(rows) == 1 else 3.9 * columns
    figure.set_size_inches(width + 0.9, width / columns * aspect * lines + 0.9)
    options: dict[str, Any] = {"projection": "3d"} if mesh.dimension == 3 else {}
    panels = np.atleast_1d(figure.subplots(lines, columns, subplot_kw=options)).ravel()
    shared = normalise(rows)
    for axes, values, label in zip(panels, rows, labels, strict=False):
        norm = normalise(values[None]) if several else shared
        draw = draw_triangles if mesh.dimension == 2 else draw_surface
        image = draw(axes, values, mesh, norm)
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        if several:
            colour_bar(figure, image, [axes], label)
    if not several:
        colour_bar(figure, image, list(panels[: len(rows)]), labels[0])
    for axes in panels[len(rows) :]:
        axes.set_axis_off()


def draw_triangles(axes: Any, values: np.ndarray, mesh: Mesh, norm: Any) -> Any:
    """Values of nodes or elements on a plane mesh; gives what a colour bar is made of."""
    if len(values) != len(mesh.nodes):
        drawn = Triangulation(mesh.points[:, 0], mesh.points[:, 1], mesh.cells)
        image = axes.tripcolor(drawn, facecolors=values, norm=norm)
    else:
        cells = mesh.cell_nodes
        if mesh.degree == 2:
            cells = np.concatenate([cells[:, part] for part in _QUARTERS])
        drawn = Triangulation(mesh.nodes[:, 0], mesh.nodes[:, 1], cells)
        image = axes.tripcolor(drawn, values, norm=norm, shading="gouraud")
    if len(mesh.cells) <= _EDGES:
        axes.triplot(*mesh.points.T, mesh.cells, color="white", lw=0.25, alpha=0.5)
    axes.margins(0.02)
    axes.set_aspect("equal")
    return image


def draw_surface(axes: Any, values: np.ndarray, mesh: Mesh, norm: Any) -> Any:
    """The surface of the half beyond the middle y, so that the inside is seen."""
    from matplotlib.cm import ScalarMappable
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    depth = mesh.points[mesh.cells].mean(axis=1)[:, 1]
    kept = depth >= (mesh.points[:, 1].min() + mesh.points[:, 1].max()) / 2
    first, second = mesh.topology.f2t
    # A boundary facet has -1 for its second element.
    inner = kept[first], kept[second] & (second >= 0)
    outer = np.flatnonzero(inner[0] != inner[1])
    corners = mesh.topology.facets[:, outer].T
    if len(values) == len(mesh.nodes):
        shown = values[mesh.facet_nodes(outer)].mean(axis=1)
    else:
        shown = values[np.where(inner[0], first, second)[outer]]
    image = ScalarMappable(norm)
    polygons = Poly3DCollection(mesh.points[corners], facecolors=image.to_rgba(shown))
    if len(corners) <= _EDGES:
        polygons.set_edgecolor((1, 1, 1, 0.4))
        polygons.set_linewidth(0.2)
    axes.add_collection3d(polygons)
    for k, name in enumerate("xyz"):
        getattr(axes, f"set_{name}lim")(mesh.points[:, k].min(), mesh.points[:, k].max())
    axes.set_box_aspect(np.maximum(np.ptp(mesh.points, axis=0), 1e-9))
    axes.set_zlabel("$z$")
    image.set_array(shown)
    return image
