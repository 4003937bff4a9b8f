"""Figures of an operator's errors: best, median and worst case, their distribution, resolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from sciml.app.plot import STYLE, normalise, save, symbol
from sciml.training.evaluation import ResolutionTransfer


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
        figure = _lines(cases, axes[0], names) if len(axes) == 1 else _maps(cases, axes, names)
        save(figure, file)
    return figure


def _lines(cases: Sequence[Case], x: np.ndarray, names: tuple[str, str]) -> Figure:
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


def _maps(cases: Sequence[Case], axes: tuple[np.ndarray, ...], names: tuple[str, str]) -> Figure:
    extent = (axes[0][0], axes[0][-1], axes[1][0], axes[1][-1])
    figure = Figure(figsize=(11.0, 2.5 * len(cases)), layout="compressed")
    panels = figure.subplots(len(cases), 4, squeeze=False, sharex=True, sharey=True)
    titles = (f"input {symbol(names[0])}", f"truth {symbol(names[1])}", "prediction", "difference")
    for case, row in zip(cases, panels, strict=True):
        values = [_plane(v) for v in (case.input, case.truth, case.prediction)]
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


def _plane(values: np.ndarray) -> np.ndarray:
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
