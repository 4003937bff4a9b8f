"""The curves of a training run: its loss and its validation errors, by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sciml.app.figures import STYLE, save

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
