"""Figures of operator learning: a dataset's samples, the course of a training, the errors after it.

Samples are thumbnails, a column for each and a row for each input and output, with the first and
the last frame of what varies in time; a row has one colour scale. Errors are shown by the best, the
median and the worst case, by their distribution, and by the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from sciml.app.figures import (
    STYLE,
    draw_solid,
    draw_triangles,
    normalise,
    save,
    solid_axes,
    symbol,
)
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh
from sciml.datasets.loader import Shards
from sciml.datasets.store import read_manifest
from sciml.training.evaluation import ResolutionTransfer

_SAMPLES = 5
_MOST = 6  # rows of the figure


@dataclass(frozen=True)
class SampleRow:
    """A field's component at one frame: its title, and its values (sample, *grid or nodes)."""

    title: str
    values: np.ndarray


def plot_samples(folder: Path, file: str | Path | None = None) -> Figure:
    """A figure of the first few samples; written to ``file`` where one is named."""
    manifest = read_manifest(folder)
    splits = [] if manifest is None else [entry.split for entry in manifest.shards if entry.samples]
    reader = Shards(folder, "train" if "train" in splits or not splits else splits[0])
    rows = _sample_rows(reader)
    samples = len(rows[0].values)
    mesh = None if reader.mesh is None else reader.mesh.mesh
    # A volume's panels stand on axes of their own: theirs cannot be shared.
    solid = mesh is not None and mesh.dimension == 3
    options: dict[str, Any] = {"sharex": True, "sharey": "row"}
    if solid:
        options = {"subplot_kw": solid_axes()}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.1 * samples + 0.8, 2.1 * len(rows)), layout="constrained")
        panels = figure.subplots(len(rows), samples, squeeze=False, **options)
        for row, beside in zip(rows, panels, strict=True):
            if mesh is not None and mesh.dimension > 1:
                _draw_on_mesh(figure, beside, mesh, row)
            elif mesh is not None or len(reader.axes) == 1:
                x = reader.axes[0] if mesh is None else mesh.nodes[:, 0]
                order = np.argsort(x)
                beside[0].set_ylabel(row.title, fontsize=10)
                _draw_thumbnail_lines(beside, x[order], row.values[:, order])
            else:
                _draw_thumbnails(figure, beside, reader.axes, row)
        save(figure, file)
    return figure


def _sample_rows(reader: Shards) -> list[SampleRow]:
    header, rows = reader.header, []
    last = len(reader.time) - 1
    names = dict.fromkeys((*header.inputs, *header.outputs))
    for name in (n for n in names if n in header.orders):
        frames = (0,) if name in header.constant or not last else (0, last)
        for frame in frames:
            span = None if name in header.constant else slice(frame, frame + 1)
            drawn = [reader.read(k, {name: span})[name] for k in range(min(_SAMPLES, len(reader)))]
            values = np.stack(drawn if span is None else [part[0] for part in drawn])
            instant = f", $t = {reader.time[frame]:.3g}$" if len(frames) > 1 else ""
            for component in np.ndindex(reader.components[name]):
                label = "_".join((name, *map(str, component)))
                at: tuple[Any, ...] = (..., *component)
                rows.append(SampleRow(f"{symbol(label)}{instant}", values[at]))
    if not rows:
        raise InputError("there is no field to draw; the dataset names no inputs and outputs")
    return rows[:_MOST]


def _draw_thumbnail_lines(panels: np.ndarray, x: np.ndarray, values: np.ndarray) -> None:
    for axes, line in zip(panels, values, strict=True):
        axes.plot(x, line, lw=1.3)
        axes.grid(True, color="0.9", lw=0.6)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_thumbnails(
    figure: Figure, panels: np.ndarray, axes: tuple[np.ndarray, ...], row: SampleRow
) -> None:
    """Maps in x and y, of a volume its middle plane; grey where there is a hole."""
    values = row.values if row.values.ndim == 3 else row.values[..., row.values.shape[-1] // 2]
    norm = normalise(values)
    extent = (axes[0][0], axes[0][-1], axes[1][0], axes[1][-1])
    for panel, plane in zip(panels, values, strict=True):
        panel.set_facecolor("0.85")
        image = panel.imshow(
            np.ma.masked_invalid(plane.T), origin="lower", extent=extent, norm=norm
        )
        panel.set_xticks([])
        panel.set_yticks([])
    _colour_bar(figure, image, panels, row)


def _draw_on_mesh(figure: Figure, panels: np.ndarray, mesh: Mesh, row: SampleRow) -> None:
    """Triangles, or half of a solid."""
    draw = draw_triangles if mesh.dimension == 2 else draw_solid
    norm = normalise(row.values)
    for panel, values in zip(panels, row.values, strict=True):
        image = draw(panel, values.astype(np.float64), mesh, norm)
        panel.set_axis_off()
    _colour_bar(figure, image, panels, row)


def _colour_bar(figure: Figure, image: Any, panels: np.ndarray, row: SampleRow) -> None:
    bar = figure.colorbar(image, ax=list(panels), fraction=0.05, pad=0.01, aspect=22)
    bar.set_label(row.title)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)


_LABELS = {
    "loss": "training loss ({})",
    "valid_loss": "validation loss",
    "valid_l2": "validation, relative $L^2$",
    "valid_h1": "validation, relative $H^1$",
}


def plot_training(
    history: Sequence[Mapping[str, float]],
    loss: str,
    file: str | Path | None = None,
    title: str = "",
) -> Figure:
    """Loss and errors of the rows ``history``; ``loss`` names what was minimised."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, label in _LABELS.items():
            points = [(row["epoch"], row[name]) for row in history if name in row]
            if points:
                epochs, values = zip(*points, strict=True)
                marker = "o" if len(points) <= 60 else ""
                text = label.format(loss.replace("_", " "))
                axes.semilogy(epochs, values, "-", marker=marker, ms=3, lw=1.3, label=text)
        axes.set_xlabel("epoch")
        axes.set_title(title, fontsize=13, pad=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, which="major", color="0.88", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, file)
    return figure


@dataclass(frozen=True)
class Case:
    """One sample: its title, and input, truth and prediction on the grid, with their names."""

    title: str
    input: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


def plot_cases(
    cases: Sequence[Case],
    axes: tuple[np.ndarray, ...],
    names: tuple[str, str],
    file: str | Path | None = None,
) -> Figure:
    """A row per case: input, truth, prediction and their difference; lines in one dimension.

    ``axes``: the coordinates. ``names``: of the input and the output. Of a volume the middle plane.
    """
    with matplotlib.rc_context(STYLE):
        figure = (
            _draw_case_lines(cases, axes[0], names)
            if len(axes) == 1
            else _draw_case_maps(cases, axes, names)
        )
        save(figure, file)
    return figure


def _draw_case_lines(cases: Sequence[Case], x: np.ndarray, names: tuple[str, str]) -> Figure:
    figure = Figure(figsize=(10.0, 2.5 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), 3, squeeze=False, sharex=True)
    for case, (left, middle, right) in zip(cases, panels, strict=True):
        left.plot(x, case.input, lw=1.3, color="0.3")
        left.set_ylabel(case.title, fontsize=9)
        middle.plot(x, case.truth, lw=1.8, label="truth")
        middle.plot(x, case.prediction, lw=1.2, ls="--", label="prediction")
        right.plot(x, case.prediction - case.truth, lw=1.2, color="tab:red")
        for panel in (left, middle, right):
            panel.grid(True, color="0.9", lw=0.6)
            panel.spines[["top", "right"]].set_visible(False)
            panel.tick_params(labelsize=8)
    panels[0][1].legend(fontsize=8)
    titles = (f"input {symbol(names[0])}", symbol(names[1]), "prediction less truth")
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10)
    return figure


def _draw_case_maps(
    cases: Sequence[Case], axes: tuple[np.ndarray, ...], names: tuple[str, str]
) -> Figure:
    extent = (axes[0][0], axes[0][-1], axes[1][0], axes[1][-1])
    figure = Figure(figsize=(11.0, 2.5 * len(cases)), layout="compressed")
    panels = figure.subplots(len(cases), 4, squeeze=False, sharex=True, sharey=True)
    titles = (f"input {symbol(names[0])}", f"truth {symbol(names[1])}", "prediction", "difference")
    for case, row in zip(cases, panels, strict=True):
        values = [_middle_plane(v) for v in (case.input, case.truth, case.prediction)]
        gap = values[2] - values[1]
        reach = float(np.nanmax(np.abs(gap))) or 1.0
        scale = normalise(np.stack(values[1:]))
        norms = (normalise(values[0]), scale, scale, matplotlib.colors.Normalize(-reach, reach))
        for panel, plane, norm in zip(row, [*values, gap], norms, strict=True):
            image = panel.imshow(
                np.ma.masked_invalid(plane.T), origin="lower", extent=extent, norm=norm,
                cmap="RdBu_r" if plane is gap else None,
            )  # fmt: skip
            panel.set_xticks([])
            panel.set_yticks([])
            panel.set_facecolor("0.85")
            bar = figure.colorbar(image, ax=panel, fraction=0.05, pad=0.02, aspect=20)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_linewidth(0.5)
        row[0].set_ylabel(case.title, fontsize=9)
    for panel, title in zip(panels[0], titles, strict=True):
        panel.set_title(title, fontsize=10)
    return figure


def _middle_plane(values: np.ndarray) -> np.ndarray:
    return values if values.ndim == 2 else values[..., values.shape[-1] // 2]


def plot_errors(
    errors: Mapping[str, Mapping[str, np.ndarray]], file: str | Path | None = None
) -> Figure:
    """A panel per norm: histograms on a logarithmic axis, an outline per dataset, its median."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(errors), 3.6), layout="constrained")
        panels = figure.subplots(1, len(errors), squeeze=False, sharey=True)[0]
        for panel, (norm, found) in zip(panels, errors.items(), strict=True):
            known = [values[np.isfinite(values) & (values > 0)] for values in found.values()]
            every = np.concatenate(known) if any(map(len, known)) else np.array([0.1, 1.0])
            bins = np.geomspace(every.min() / 1.05, every.max() * 1.05, 25)
            for index, (name, values) in enumerate(zip(found, known, strict=True)):
                colour = f"C{index}"
                panel.hist(values, bins=list(bins), color=colour, alpha=0.15)
                panel.hist(values, bins=list(bins), color=colour, lw=1.4, histtype="step")
                middle = float(np.median(values)) if len(values) else float("nan")
                panel.axvline(middle, color=colour, lw=1.3, ls="--", label=f"{name}: {middle:.2e}")
            panel.set_xscale("log")
            panel.set_xlabel(f"relative {norm} error, median dashed")
            panel.spines[["top", "right"]].set_visible(False)
            panel.legend(fontsize=8)
        panels[0].set_ylabel("samples")
        save(figure, file)
    return figure


def plot_transfer(
    transfers: Mapping[str, ResolutionTransfer], file: str | Path | None = None
) -> Figure:
    """Mean relative L2 against points along the first axis, one colour per operator.

    Dashed: what the training's grid and interpolation give. Dotted: the drift.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        ticks: set[int] = set()
        for index, (name, found) in enumerate(transfers.items()):
            rows = [row for row in found.rows if not row.refused]
            points = [row.shape[0] for row in rows]
            ticks.update(points)
            style: dict[str, Any] = {"color": f"C{index}", "marker": "o", "ms": 4, "lw": 1.4}
            axes.loglog(points, [float(r.error.mean()) for r in rows], label=name, **style)
            axes.loglog(points, [float(r.interpolated.mean()) for r in rows], ls="--", **style)
            moved = [row for row in rows if row.shape != found.trained]
            axes.loglog(
                [r.shape[0] for r in moved], [float(r.drift.mean()) for r in moved], ls=":", **style
            )
            axes.axvline(found.trained[0], color="0.8", lw=0.8, zorder=0)
        axes.set_xticks(sorted(ticks))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("points along an axis")
        axes.set_ylabel("mean relative $L^2$ error")
        axes.set_title("dashed: interpolated from the training's grid; dotted: drift", fontsize=9)
        axes.grid(True, which="major", color="0.9", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, file)
    return figure
