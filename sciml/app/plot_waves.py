"""Figures of a complex field: its real part, which is the wave at one instant, and its modulus.

One dimension: both as lines, the modulus as an envelope. Two: two maps side by side. Three: the
same of the middle plane z. A batch: one row for each of its first three samples.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from sciml.app.plot import STYLE, Picture, save
from sciml.core.grid import Grid

_ROWS = 3


def plot_waves(
    value: torch.Tensor, on: Grid, file: str | Path | None = None, title: str = ""
) -> Figure:
    """A figure of a complex field (*batch, *grid); its points that are NaN are left blank."""
    samples = value.detach().cpu().numpy().reshape(-1, *on.shape)[:_ROWS]
    if len(on.shape) == 3:
        samples = samples[..., on.shape[2] // 2]
        title = " ".join([title, f"(z = {float(on.axes()[2][on.shape[2] // 2]):.3g})"]).strip()
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed")
        (_draw_lines if len(on.shape) == 1 else _draw_maps)(figure, samples, on)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _draw_lines(figure: Figure, samples: np.ndarray, on: Grid) -> None:
    figure.set_size_inches(6.4, 1.0 + 3.0 * len(samples))
    x = on.axes()[0].numpy()
    for axes, u in zip(np.atleast_1d(figure.subplots(len(samples))), samples, strict=True):
        axes.plot(x, u.real, lw=1.4, label=r"$\mathrm{Re}\,u$")
        axes.plot(x, np.abs(u), lw=1.0, ls="--", label=r"$|u|$")
        axes.set_xlim(on.box.lower[0], on.box.upper[0])
        axes.set_xlabel("$x$")
        axes.grid(True, color="0.9", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)


def _draw_maps(figure: Figure, samples: np.ndarray, on: Grid) -> None:
    width, height = (b - a for a, b in zip(on.box.lower[:2], on.box.upper[:2], strict=True))
    figure.set_size_inches(
        10.4, 0.9 + 4.3 * float(np.clip(height / width, 0.3, 2.5)) * len(samples)
    )
    panels = np.atleast_2d(figure.subplots(len(samples), 2, sharey=True))
    modulus = np.abs(samples)
    # A source is far louder than its waves: the scale is that of all but the loudest points.
    top = float(np.nanquantile(modulus, 0.995)) or 1.0
    for row, u, size in zip(panels, samples, modulus, strict=True):
        _map(figure, row[0], u.real, on, "RdBu_r", Normalize(-top, top), r"$\mathrm{Re}\,u$")
        _map(figure, row[1], size, on, "magma", Normalize(0.0, top), r"$|u|$")
        row[0].set_ylabel("$y$")


def _map(
    figure: Figure, axes: Axes, values: np.ndarray, on: Grid, colours: str, norm: Normalize,
    label: str,
) -> None:  # fmt: skip
    reach = [h / 2 if on.centring == "node" else 0.0 for h in on.spacing[:2]]
    (left, bottom), (right, top) = on.box.lower[:2], on.box.upper[:2]
    extent = (left - reach[0], right + reach[0], bottom - reach[1], top + reach[1])
    image = axes.imshow(
        np.ma.masked_invalid(values.T), origin="lower", extent=extent, cmap=colours, norm=norm
    )
    axes.set_facecolor("0.8")
    axes.set_title(label)
    axes.set_xlabel("$x$")
    figure.colorbar(
        image, ax=axes, fraction=0.05, pad=0.02, aspect=28, extend="max"
    ).outline.set_linewidth(0.5)
