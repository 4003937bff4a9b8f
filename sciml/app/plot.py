"""Figures of a solution and of how it converged, in the way a paper would show them.

One dimension: a line. Two: a colour map with contour lines, equal axes, the hole hatched. Three:
the three mid-planes. A batch: small multiples of its first nine samples on one colour scale.
Everything goes through Figure objects; matplotlib's global state is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from sciml.core.errors import InputError
from sciml.core.files import atomic_write
from sciml.core.grid import AXES, Grid
from sciml.core.mesh import Mesh
from sciml.core.points import Points
from sciml.core.solution import Solution

SAMPLES = 9
# A positive field is coloured by its logarithm where it is that much smaller than its maximum on
# this share of the points: a pressure that falls to zero at one side is not.
LOG_RATIO, LOG_SHARE = 100.0, 0.05
_DECADES = 1e-6
_RESIDUAL = r"relative residual $\|b - Au\| \,/\, \|b\|$"
_INK = "#1f2933"
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "axes.edgecolor": _INK,
    "axes.linewidth": 0.8,
    "text.color": _INK,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "image.cmap": "viridis",
    "mathtext.fontset": "cm",
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.08,
}


class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()


def plot_solution(solution: Solution, file: str | Path | None = None, title: str = "") -> Figure:
    """A figure of the value; written to ``file`` where one is named."""
    if solution.on is None:
        raise InputError("a bare vector has no grid to be plotted on")
    if isinstance(solution.on, Points):
        from sciml.app.plot_scattered import plot_scattered

        return plot_scattered(solution, solution.on, file, title)
    if isinstance(solution.on, Grid) and (solution.times is not None or len(solution.fields) > 1):
        from sciml.app.plot_frames import plot_frames

        return plot_frames(solution, solution.on, file, title)
    if isinstance(solution.on, Mesh):
        from sciml.app.plot_mesh import plot_on_mesh

        return plot_on_mesh(solution.value, solution.on, solution.fields, file, title)
    if solution.value.is_complex():
        from sciml.app.plot_waves import plot_waves

        return plot_waves(solution.value, solution.on, file, title)
    return plot_field(solution.value, solution.on, "u", file, title)


def plot_field(
    value: torch.Tensor, on: Grid | Mesh, name: str, file: str | Path | None = None, title: str = ""
) -> Figure:
    """A figure of a field (*batch, *grid); its points that are NaN are shown as a hole."""
    if isinstance(on, Mesh):
        from sciml.app.plot_mesh import plot_on_mesh

        return plot_on_mesh(value, on, (name,), file, title)
    samples = value.detach().cpu().double().numpy().reshape(-1, *on.shape)[:SAMPLES]
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed")
        draw = (_draw_lines, _draw_maps, _draw_slices)[len(on.shape) - 1]
        draw(figure, samples, on, name)
        if title and len(figure.axes) <= 2 and len(on.shape) < 3:
            figure.axes[0].set_title(title, fontsize=13, pad=9)
        elif title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def plot_residual(
    value: torch.Tensor, on: Grid | Mesh, name: str, file: str | Path | None = None
) -> Figure:
    """A figure of the size of a residual (*batch, *grid), on a logarithmic scale of six decades."""
    size = value.detach().abs()
    top = float(size.nan_to_num(0.0).max()) or 1.0
    return plot_field(size.clamp_min(_DECADES * top), on, name, file)


def plot_convergence(solution: Solution, file: str | Path | None = None) -> Figure:
    """The relative residual by iteration, with the tolerance and the mean contraction factor."""
    history = solution.stats.residuals.detach().cpu().double().numpy()
    history = history.reshape(len(history), -1)[:, :SAMPLES]
    counts = solution.stats.iterations.flatten().tolist()
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.subplots()
        longest = 1
        for sample, (residuals, count) in enumerate(zip(history.T, counts, strict=False)):
            shown = residuals[: int(count) + 1]
            steps = np.flatnonzero(np.isfinite(shown) & (shown > 0))
            label = _rate_label(shown[steps], steps)
            label = f"sample {sample}: {label}" if len(counts) > 1 else label
            marker = "o" if len(steps) <= 60 else ""
            axes.semilogy(steps, shown[steps], "-", marker=marker, ms=3.5, lw=1.3, label=label)
            longest = max(longest, int(steps.max(initial=1)))
        rtol = _tolerance(solution.solver)
        if rtol is not None:
            axes.axhline(rtol, color=_INK, lw=0.9, ls="--", label=f"tolerance {rtol:.0e}")
        in_time = solution.times is not None and solution.function is None
        axes.set_xlabel("time step" if in_time else "iteration")
        axes.set_ylabel("relative error or residual of the step" if in_time else _RESIDUAL)
        axes.set_xlim(-0.02 * longest, 1.02 * longest)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True, which="major", color="0.88", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, file)
    return figure


def contraction_factor(residuals: np.ndarray, steps: np.ndarray) -> float:
    """Geometric mean of the residual's reduction per iteration; NaN with fewer than two values."""
    if len(steps) < 2:
        return float("nan")
    return float((residuals[-1] / residuals[0]) ** (1 / (steps[-1] - steps[0])))


def _rate_label(residuals: np.ndarray, steps: np.ndarray) -> str:
    factor = contraction_factor(residuals, steps)
    if np.isnan(factor):
        return "residual"
    return f"{steps[-1]} iteration{'s' if steps[-1] > 1 else ''}, mean factor {factor:.2g}"


def _tolerance(solver: Any) -> float | None:
    """``rtol`` of a solver, or of its description in a file."""
    if isinstance(solver, str):
        _, found, tail = solver.partition("rtol=")
        text = tail.split(",")[0].split(")")[0]
        return float(text) if found and text != "None" else None
    return getattr(solver, "rtol", None)


def save(figure: Figure, file: str | Path | None) -> None:
    """Write a figure, whole or not at all, where a file is named."""
    if file is not None:
        with atomic_write(file) as temporary:
            figure.savefig(temporary)


def _draw_lines(figure: Figure, samples: np.ndarray, on: Grid, name: str) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    (x,) = on.axes()
    for index, values in enumerate(samples):
        axes.plot(x.numpy(), values, lw=1.6, label=f"sample {index}")
    axes.set_xlim(on.box.lower[0], on.box.upper[0])
    axes.set_xlabel("$x$")
    axes.set_ylabel(f"{symbol(name)}$(x)$")
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(samples) > 1:
        axes.legend(fontsize=9)


def _draw_maps(figure: Figure, samples: np.ndarray, on: Grid, name: str) -> None:
    columns = int(np.ceil(np.sqrt(len(samples))))
    rows = int(np.ceil(len(samples) / columns))
    lower, upper = on.box.lower, on.box.upper
    aspect = float(np.clip((upper[1] - lower[1]) / (upper[0] - lower[0]), 0.3, 2.5))
    width = 5.6 if len(samples) == 1 else 2.9 * columns
    figure.set_size_inches(width + 0.9, width / columns * aspect * rows + 0.9)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    norm = normalise(samples)
    for index, (axes, values) in enumerate(zip(panels, samples, strict=False)):
        image = draw_map(axes, values, on, (0, 1), norm)
        if len(samples) > 1:
            axes.set_title(f"sample {index}", fontsize=9)
        if len(samples) > 1:
            axes.tick_params(labelsize=8)
        if index // columns == rows - 1:
            axes.set_xlabel("$x$")
        if index % columns == 0:
            axes.set_ylabel("$y$")
    for axes in panels[len(samples) :]:
        axes.set_axis_off()
    colour_bar(figure, image, list(panels), name)


def _draw_slices(figure: Figure, samples: np.ndarray, on: Grid, name: str) -> None:
    samples = samples[:3]
    figure.set_size_inches(11.5, 3.9 * len(samples))
    panels = np.atleast_2d(figure.subplots(len(samples), 3))
    norm = normalise(samples)
    for row, values in zip(panels, samples, strict=True):
        for axes, normal in zip(row, (2, 1, 0), strict=True):
            middle = on.shape[normal] // 2
            across = tuple(a for a in range(3) if a != normal)
            plane = np.take(values, middle, axis=normal)
            image = draw_map(axes, plane, on, across, norm)
            position = float(on.axes()[normal][middle])
            axes.set_title(f"${AXES[normal]} = {position:.3g}$")
            axes.set_xlabel(f"${AXES[across[0]]}$")
            axes.set_ylabel(f"${AXES[across[1]]}$")
    colour_bar(figure, image, list(panels.ravel()), name)


def draw_map(
    axes: Axes, values: np.ndarray, on: Grid, across: Sequence[int], norm: Normalize
) -> Any:
    """One plane as a colour map with contour lines; NaN is left to the hatched ground."""
    lower, upper = ([side[a] for a in across] for side in (on.box.lower, on.box.upper))
    # A pixel is a control volume: around a node it reaches half a spacing past the boundary.
    reach = [on.spacing[a] / 2 if on.centring == "node" else 0.0 for a in across]
    extent = (
        lower[0] - reach[0], upper[0] + reach[0], lower[1] - reach[1], upper[1] + reach[1],
    )  # fmt: skip
    if np.isnan(values).any():
        axes.add_patch(
            Rectangle(
                (lower[0], lower[1]), upper[0] - lower[0], upper[1] - lower[1],
                facecolor="0.9", edgecolor="0.6", hatch="////", lw=0, zorder=-1,
            )
        )  # fmt: skip
    image = axes.imshow(
        np.ma.masked_invalid(values.T), origin="lower", extent=extent, norm=norm, zorder=0
    )
    levels = _levels(norm, values)
    x, y = (on.axes()[a].numpy() for a in across)
    if len(levels) and min(values.shape) > 1:
        axes.contour(
            x, y, np.ma.masked_invalid(values.T), levels=levels, colors="white",
            linewidths=0.6, alpha=0.65, linestyles="solid", zorder=1,
        )  # fmt: skip
    axes.set_xlim(lower[0], upper[0])
    axes.set_ylim(lower[1], upper[1])
    axes.set_aspect("equal")
    return image


def normalise(samples: np.ndarray) -> Normalize:
    """The colour scale of all samples: logarithmic where a positive field spans decades."""
    known = samples[np.isfinite(samples)]
    if not known.size:
        return Normalize(0, 1)
    low, high = float(known.min()), float(known.max())
    if low > 0 and high >= LOG_RATIO * float(np.quantile(known, LOG_SHARE)):
        return LogNorm(low, high)
    pad = 0.0 if high > low else max(abs(low), 1.0) * 0.5
    return Normalize(low - pad, high + pad)


def _levels(norm: Normalize, values: np.ndarray) -> np.ndarray:
    """Contour levels at round numbers; none on a logarithmic scale, where the fields jump.

    None either on a plane that is as good as flat, where a contour would trace noise.
    """
    if isinstance(norm, LogNorm) or norm.vmin is None or norm.vmax is None:
        return np.array([])
    known = values[np.isfinite(values)]
    if not known.size or np.ptp(known) < 1e-3 * (norm.vmax - norm.vmin):
        return np.array([])
    inner = np.asarray(MaxNLocator(12).tick_values(norm.vmin, norm.vmax))
    return inner[(inner > norm.vmin) & (inner < norm.vmax)]


def colour_bar(figure: Figure, image: Any, panels: list[Axes], name: str) -> None:
    """A slim colour bar beside the panels."""
    single = len(panels) == 1
    bar = figure.colorbar(
        image, ax=panels[0] if single else panels, fraction=0.05, pad=0.02, aspect=28
    )
    short = len(name) <= 2
    bar.set_label(symbol(name), rotation=0 if short else 90, labelpad=10 if short else 5)
    bar.outline.set_linewidth(0.5)


def symbol(name: str) -> str:
    """A field's name as it is set: ``u`` and ``K_x`` as mathematics, a word as a word."""
    return f"${name}$" if len(name) == 1 or "_" in name else name
