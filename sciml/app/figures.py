"""Figures of a solution and of how it converged, in the way a paper would show them.

One dimension: a line. Two: a colour map with contour lines, equal axes, the hole hatched. Three:
the three mid-planes. A batch: small multiples of its first nine samples, each under its parameters,
on one colour scale, or on their own where one would blank the others.
A complex field: its real part, which is the wave at one instant, and its modulus. In time, or of
several fields: a panel for each instant and field of the first sample, in one dimension the field
over the (x, t) plane beside a few of its profiles. On a mesh: coloured triangles, or the half of a
solid behind a cut; values at the nodes are shaded between them, those of elements fill them. Axes,
bars and legends have the names and units of the solution's labels. A trained
function: with its residual beside it, under the points that it was trained at. Two runs: beside
each other on one colour scale, with their difference where they share a grid; of each the first
sample, the last frame, the first field, the real part, the middle plane.

Everything goes through Figure objects; matplotlib's global state is left alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from torch import Tensor

from sciml.app.surface import brightness, surface
from sciml.core.disk import atomic_write
from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.run.labels import Labels, named, unit_of
from sciml.core.run.quantities import is_constant
from sciml.core.run.solution import Solution, sample_names

if TYPE_CHECKING:
    from sciml.solvers.trained.conditions import Piece
    from sciml.solvers.trained.objective import Objective


SAMPLES = 9
# A positive field is coloured by its logarithm where it is that much smaller than its maximum on
# this share of the points: a pressure that falls to zero at one side is not.
LOG_RATIO, LOG_SHARE = 100.0, 0.05
_DECADES = 1e-6
# Panels have scales of their own where half of them span less than this share of the widest.
_BLANKED = 0.15
_WIDE = 0.4  # height over width of a domain that is wide
_PLATEAU = 0.3  # share of a plane that has one value, at which there is no contour
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


_MARKERS = "osD^v<>pX"


class Picture(Figure):
    """A figure that a notebook shows by itself, whether or not pyplot was imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        with matplotlib.rc_context(STYLE):
            self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()


def plot(solution: Solution, file: str | Path | None = None, title: str = "") -> Figure:
    """A figure of a solution; written to ``file`` where one is named.

    Of a trained function with its residual beside it, under the points it was trained at. Raises
    InputError for a bare vector, which has no grid to be plotted on.
    """
    if solution.trained is not None and len(solution.trained.form.data.axes) > 1:
        return plot_trained(solution, file, title)
    return plot_solution(solution, file, title)


def plot_solution(solution: Solution, file: str | Path | None = None, title: str = "") -> Figure:
    """A figure of the value; written to ``file`` where one is named."""
    on, value, samples = solution.on, solution.value, names_of_samples(solution)
    if on is None:
        raise InputError("a bare vector has no grid to be plotted on")
    title = shown(title)
    if isinstance(on, Points):
        figure = plot_scattered(solution, on, title=title)
    elif isinstance(on, Grid) and (solution.times is not None or len(solution.fields) > 1):
        title = ", ".join(part for part in (title, *samples[: solution.residual.ndim > 0]) if part)
        figure = plot_frames(solution, on, title=title)
    elif isinstance(on, Mesh) and solution.times is not None:
        title = ", ".join(part for part in (title, *samples[: solution.residual.ndim > 0]) if part)
        figure = _plot_frames_on_mesh(solution, on, solution.times, title)
    elif isinstance(on, Mesh):
        figure = plot_on_mesh(value, on, solution.fields, title=title, samples=samples)
    elif value.is_complex():
        figure = plot_waves(value, on, title=title, samples=samples)
    else:
        figure = plot_field(value, on, solution.fields[0], title=title, samples=samples)
    return labelled(figure, solution.labels, file)


def names_of_samples(solution: Solution) -> tuple[str, ...]:
    """What tells the samples of a batch apart: parameters where these do, else their numbers."""
    count, names = solution.residual.numel(), solution.samples
    if not names and solution.problem is not None:
        batch = tuple(solution.residual.shape)
        names = sample_names(solution.problem, batch, solution.labels)
    return names or tuple(f"sample {k}" for k in range(count))


def labelled(figure: Figure, labels: Labels, file: str | Path | None = None) -> Figure:
    """The figure, symbols on its axes, bars and legends replaced by names and units.

    Instants in titles and legends get the unit of t. Written to ``file`` where one is named.
    """
    texts: dict[str, str] = {}
    for key in labels:
        words = shown(named(labels, key))
        texts |= dict.fromkeys((key, symbol(key), f"${key}$", f"{symbol(key)}$(x)$"), words)
        texts |= {rf"$\mathrm{{Re}}\,{key}$": f"{words}, real part"}
        texts |= dict.fromkeys((f"|{key}|", f"$|{key}|$"), f"{words}, modulus")
    instant = unit_of(labels, "t")
    for axes in figure.axes:
        legend = axes.get_legend()
        entries = [] if legend is None else legend.get_texts()
        depth = getattr(axes, "zaxis", None)
        ends = [axis.label for axis in (axes.xaxis, axes.yaxis, depth) if axis is not None]
        for text in (*ends, *entries, axes.title):
            # Before a colon stands what tells a sample from the others.
            head, colon, tail = text.get_text().rpartition(": ")
            if tail in texts:
                text.set_text(f"{head}{colon}{texts[tail]}")
                if text is axes.yaxis.label:
                    text.set_rotation(90)
            elif instant and tail.startswith("$t = "):
                now, _, rest = tail[1:].partition("$")
                text.set_text(f"${now}$ {shown(instant)}{rest}")
    with matplotlib.rc_context(STYLE):
        save(figure, file)
    return figure


def plot_field(
    value: torch.Tensor,
    on: Grid | Mesh,
    name: str,
    file: str | Path | None = None,
    title: str = "",
    samples: Sequence[str] = (),
) -> Figure:
    """A figure of a field (*batch, *grid); its points that are NaN are shown as a hole.

    ``samples``: what those of a batch are called.
    """
    if isinstance(on, Mesh):
        return plot_on_mesh(value, on, (name,), file, title, samples)
    values = value.detach().cpu().double().numpy().reshape(-1, *on.shape)[:SAMPLES]
    called = _called(samples, len(values))
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed")
        draw = (_draw_lines, _draw_maps, _draw_slices)[len(on.shape) - 1]
        draw(figure, values, on, name, called)
        if title and len(figure.axes) <= 2 and len(on.shape) < 3:
            figure.axes[0].set_title(title, fontsize=13, pad=9)
        elif title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _called(samples: Sequence[str], count: int) -> list[str]:
    """Titles of so many samples."""
    return [shown(name) for name in samples[:count]] or [f"sample {k}" for k in range(count)]


def shown(text: str) -> str:
    """A title; its dollar signs as they are where they enclose no formula."""
    try:
        MathTextParser("path").parse(text)
    except ValueError:
        return text.replace("$", r"\$")
    return text


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


def plot_curves(
    along: np.ndarray,
    curves: Mapping[str, np.ndarray],
    name: str,
    file: str | Path | None = None,
    *,
    marks: tuple[np.ndarray, Mapping[str, np.ndarray]] | None = None,
    log: bool = False,
    band: tuple[np.ndarray, np.ndarray] | None = None,
) -> Figure:
    """Curves (n,) by name against ``along`` (n,), called ``name``, one below the other.

    ``marks``: places of their own and values there, drawn as points. ``log``: of the axis.
    ``band``: two curves between which is shaded.
    """
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(6.4, 1.2 + 2.4 * len(curves)), layout="constrained")
        rows = figure.subplots(len(curves), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (label, values) in zip(rows, curves.items(), strict=True):
            axes.plot(along, values, "-", lw=1.4)
            if band is not None:
                axes.fill_between(along, *band, alpha=0.2, lw=0)
            if marks is not None:
                axes.plot(marks[0], marks[1][label], "o", ms=3, color=_INK)
            axes.set_ylabel(label)
            if is_constant(float(values.min()), float(values.max())):
                axes.set_ylim(*_apart(float(values.min()), float(values.max())))
            axes.grid(True, color="0.88", lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if log:
                axes.set_xscale("log")
        rows[-1].set_xlabel(name)
        save(figure, file)
    return figure


def plot_errors(
    trends: Mapping[str, tuple[Sequence[float], float | None, float | None]],
    file: str | Path | None = None,
) -> Figure:
    """Values on levels that halve the spacing, their limit and order, by name: the errors.

    Relative to the finest value; without a limit the differences from level to level, dashed.
    """
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.subplots()
        for number, (name, (values, limit, order)) in enumerate(trends.items()):
            size = abs(values[-1]) or 1.0
            spacing = 0.5 ** np.arange(len(values))
            if limit is None:
                gaps, style, told = np.abs(np.diff(values)), "--", "no order"
                spacing = spacing[:-1]
            else:
                gaps, style, told = np.abs(np.asarray(values) - limit), "-", f"order {order:.2f}"
            # What is rounding would be the whole of the scale.
            gaps = np.where(gaps > 1e-12 * size, gaps / size, np.nan)
            axes.loglog(
                spacing, gaps, style, marker=_MARKERS[number % len(_MARKERS)], ms=4, lw=1.3,
                label=f"{shown(name)}: {told}",
            )  # fmt: skip
        axes.set_xlabel("spacing, of the first level's")
        axes.set_ylabel("error, of the finest value (dashed: difference)")
        ticks = [1, 1 / 2, 1 / 4]
        axes.set_xticks(ticks, ["1", "1/2", "1/4"])
        axes.minorticks_off()
        axes.grid(True, which="major", color="0.88", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)
        save(figure, file)
    return figure


def plot_maps(
    x: np.ndarray,
    y: np.ndarray,
    maps: Mapping[str, np.ndarray],
    names: tuple[str, str],
    file: str | Path | None = None,
    *,
    logs: tuple[bool, bool] = (False, False),
) -> Figure:
    """Values (n, m) by name over ``x`` (n,) and ``y`` (m,), called ``names``, three in a row."""
    columns = min(len(maps), 3)
    rows = -(-len(maps) // columns)
    with matplotlib.rc_context(STYLE):
        size = 0.6 + 4.2 * columns, 3.6 * rows
        figure = Picture(figsize=size, layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes, (label, values) in zip(panels, maps.items(), strict=False):
            low, high = _apart(float(values.min()), float(values.max()))
            image = axes.pcolormesh(
                x, y, values.T, shading="gouraud", rasterized=True, vmin=low, vmax=high
            )
            figure.colorbar(image, ax=axes, label=label)
            axes.set_xlabel(names[0])
            axes.set_ylabel(names[1])
            axes.set_xscale("log" if logs[0] else "linear")
            axes.set_yscale("log" if logs[1] else "linear")
        for axes in panels[len(maps) :]:
            axes.remove()
        save(figure, file)
    return figure


def _apart(low: float, high: float) -> tuple[float, float]:
    """The ends of a scale: of what is constant but for rounding they lie around it."""
    if is_constant(low, high):
        around = 0.05 * max(abs(low), abs(high)) or 1.0
        return low - around, high + around
    return low, high


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


def _draw_lines(
    figure: Figure, samples: np.ndarray, on: Grid, name: str, called: Sequence[str]
) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    (x,) = on.axes()
    for label, values in zip(called, samples, strict=True):
        axes.plot(x.numpy(), values, lw=1.6, label=label)
    axes.set_xlim(on.box.lower[0], on.box.upper[0])
    axes.set_xlabel("$x$")
    axes.set_ylabel(f"{symbol(name)}$(x)$")
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(samples) > 1:
        axes.legend(fontsize=9)


def _draw_maps(
    figure: Figure, samples: np.ndarray, on: Grid, name: str, called: Sequence[str]
) -> None:
    columns = int(np.ceil(np.sqrt(len(samples))))
    rows = int(np.ceil(len(samples) / columns))
    lower, upper = on.box.lower, on.box.upper
    aspect = float(np.clip((upper[1] - lower[1]) / (upper[0] - lower[0]), 0.3, 2.5))
    width = 5.6 if len(samples) == 1 else 2.9 * columns
    figure.set_size_inches(width + 0.9, width / columns * aspect * rows + 0.9)
    panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    norms, images = scales(samples), []
    for index, (axes, values) in enumerate(zip(panels, samples, strict=False)):
        images.append(draw_map(axes, values, on, (0, 1), norms[index]))
        if len(samples) > 1:
            axes.set_title(called[index], fontsize=9)
            axes.tick_params(labelsize=8)
        if index // columns == rows - 1:
            axes.set_xlabel("$x$")
        if index % columns == 0:
            axes.set_ylabel("$y$")
    for axes in panels[len(samples) :]:
        axes.set_axis_off()
    colour_bars(figure, images, list(panels), norms, name)


def _draw_slices(
    figure: Figure, samples: np.ndarray, on: Grid, name: str, called: Sequence[str]
) -> None:
    samples = samples[:3]
    figure.set_size_inches(11.5, 3.9 * len(samples))
    panels = np.atleast_2d(figure.subplots(len(samples), 3))
    norm = normalise(samples)
    for row, label, values in zip(panels, called, samples, strict=False):
        for axes, normal in zip(row, (2, 1, 0), strict=True):
            middle = on.shape[normal] // 2
            across = tuple(a for a in range(3) if a != normal)
            plane = np.take(values, middle, axis=normal)
            image = draw_map(axes, plane, on, across, norm)
            position = float(on.axes()[normal][middle])
            before = f"{label}, " if len(samples) > 1 else ""
            axes.set_title(f"{before}${AXES[normal]} = {position:.3g}$")
            axes.set_xlabel(f"${AXES[across[0]]}$")
            axes.set_ylabel(f"${AXES[across[1]]}$")
    colour_bar(figure, image, list(panels.ravel()), name)


def draw_map(
    axes: Axes,
    values: np.ndarray,
    on: Grid,
    across: Sequence[int],
    norm: Normalize,
    contours: bool = True,
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
    levels = _levels(norm, values) if contours else np.array([])
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


def scales(panels: Sequence[np.ndarray] | np.ndarray) -> list[Normalize]:
    """A colour scale for every panel: one for all, or each its own where one blanks the others.

    Scales of their own leave out the one per cent at either end where that holds most of the range,
    as a pressure's peaks at corners do.
    """
    spans = [high - low for low, high in (_quantiles(panel, 0.05) for panel in panels)]
    if len(spans) < 2 or not 0 < float(np.median(spans)) < _BLANKED * max(spans):
        return [normalise(np.stack(list(panels)))] * len(spans)
    return [within(panel) for panel in panels]


def within(values: np.ndarray, share: float = 0.01) -> Normalize:
    """The scale of values without that share at either end, where these hold most of the range."""
    low, high = _quantiles(values, share)
    norm = normalise(values[None])
    assert norm.vmin is not None and norm.vmax is not None
    return Normalize(low, high) if 0 < high - low < (norm.vmax - norm.vmin) / 2 else norm


def _quantiles(values: np.ndarray, share: float) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = np.quantile(known, (share, 1 - share)) if known.size else (0.0, 0.0)
    return float(low), float(high)


def colour_bars(
    figure: Figure, images: Sequence[Any], panels: list[Axes], norms: list[Normalize], name: str
) -> None:
    """One bar beside all panels, or one beside each where their scales differ."""
    if all(norm is norms[0] for norm in norms):
        colour_bar(figure, images[0], panels, name, images)
        return
    for image, axes in zip(images, panels, strict=False):
        colour_bar(figure, image, [axes], name if image is images[-1] else "")


def _levels(norm: Normalize, values: np.ndarray) -> np.ndarray:
    """Contour levels at round numbers; none on a logarithmic scale, where the fields jump.

    None either on a plane that is as good as flat, or at a value that much of it has, where a
    contour would trace noise.
    """
    if isinstance(norm, LogNorm) or norm.vmin is None or norm.vmax is None:
        return np.array([])
    known = values[np.isfinite(values)]
    if not known.size or np.ptp(known) < 1e-3 * (norm.vmax - norm.vmin):
        return np.array([])
    ticks = np.asarray(MaxNLocator(12).tick_values(norm.vmin, norm.vmax))
    inner = ticks[(ticks > norm.vmin) & (ticks < norm.vmax)]
    near = np.abs(known[:, None] - inner) < 2e-3 * (norm.vmax - norm.vmin)
    levels: np.ndarray = inner[near.mean(axis=0) < _PLATEAU]
    return levels


def colour_bar(
    figure: Figure, image: Any, panels: list[Axes], name: str, others: Sequence[Any] = ()
) -> None:
    """A slim colour bar beside the panels; ``others``: the images of all of them."""
    single = len(panels) == 1
    shown = [np.ma.masked_invalid(i.get_array()).compressed() for i in others or [image]]
    known = np.concatenate(shown)
    below = bool(known.size) and known.min() < image.norm.vmin
    above = bool(known.size) and known.max() > image.norm.vmax
    extend = "both" if below and above else "min" if below else "max" if above else "neither"
    bar = figure.colorbar(
        image, ax=panels[0] if single else panels, fraction=0.05, pad=0.02, aspect=28,
        extend=extend if single or others else "neither",
    )  # fmt: skip
    short = len(name) <= 2
    bar.set_label(symbol(name), rotation=0 if short else 90, labelpad=10 if short else 5)
    bar.outline.set_linewidth(0.5)


def symbol(name: str) -> str:
    """A field's name as it is set: ``u`` and ``K_x`` as mathematics, words as words."""
    head, _, tail = name.partition("_")
    if len(name) == 1:
        return f"${name}$"
    if len(head) == 1 and tail:
        return f"${head}_{tail}$" if len(tail) == 1 else rf"${head}_\mathrm{{{tail}}}$"
    return name.replace("_", " ")


_WAVES = 3


def plot_waves(
    value: torch.Tensor,
    on: Grid,
    file: str | Path | None = None,
    title: str = "",
    samples: Sequence[str] = (),
) -> Figure:
    """A figure of a complex field (*batch, *grid); its points that are NaN are left blank."""
    waves = value.detach().cpu().numpy().reshape(-1, *on.shape)[:_WAVES]
    called = _called(samples, len(waves)) if len(waves) > 1 else [""]
    if len(on.shape) == 3:
        waves = waves[..., on.shape[2] // 2]
        title = " ".join([title, f"(z = {float(on.axes()[2][on.shape[2] // 2]):.3g})"]).strip()
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed")
        (_draw_wave_lines if len(on.shape) == 1 else _draw_wave_maps)(figure, waves, on, called)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _draw_wave_lines(figure: Figure, samples: np.ndarray, on: Grid, called: Sequence[str]) -> None:
    figure.set_size_inches(6.4, 1.0 + 3.0 * len(samples))
    x = on.axes()[0].numpy()
    panels = np.atleast_1d(figure.subplots(len(samples)))
    for axes, u, label in zip(panels, samples, called, strict=True):
        axes.set_title(label)
        axes.plot(x, u.real, lw=1.4, label=r"$\mathrm{Re}\,u$")
        axes.plot(x, np.abs(u), lw=1.0, ls="--", label=r"$|u|$")
        axes.set_xlim(on.box.lower[0], on.box.upper[0])
        axes.set_xlabel("$x$")
        axes.grid(True, color="0.9", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=9)


def _draw_wave_maps(figure: Figure, samples: np.ndarray, on: Grid, called: Sequence[str]) -> None:
    width, height = (b - a for a, b in zip(on.box.lower[:2], on.box.upper[:2], strict=True))
    figure.set_size_inches(
        10.4, 0.9 + 4.3 * float(np.clip(height / width, 0.3, 2.5)) * len(samples)
    )
    panels = np.atleast_2d(figure.subplots(len(samples), 2, sharey=True))
    modulus = np.abs(samples)
    # A source is far louder than its waves: the scale is that of all but the loudest points.
    top = float(np.nanquantile(modulus, 0.995)) or 1.0
    for row, u, size, label in zip(panels, samples, modulus, called, strict=True):
        before = f"{label}: " if label else ""
        _draw_wave_map(
            figure, row[0], u.real, on, "RdBu_r", Normalize(-top, top),
            rf"{before}$\mathrm{{Re}}\,u$",
        )  # fmt: skip
        _draw_wave_map(figure, row[1], size, on, "magma", Normalize(0.0, top), f"{before}$|u|$")
        row[0].set_ylabel("$y$")


def _draw_wave_map(
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


def plot_scattered(
    solution: Solution, on: Points, file: str | Path | None = None, title: str = ""
) -> Figure:
    """The value over the first two coordinates, over x in one dimension; in time the last frame.

    Functions of t alone over t.
    """
    if not on.box.dimension:
        return _plot_over_time(solution, file, title)
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


def _plot_over_time(solution: Solution, file: str | Path | None, title: str) -> Figure:
    """Functions of t alone, each in a panel of its own, all over t."""
    assert solution.times is not None
    values = solution.value.detach().cpu().double().reshape(len(solution.times), -1).numpy()
    times = solution.times.numpy()
    with matplotlib.rc_context(STYLE):
        count = values.shape[1]
        figure = Picture(figsize=(6.4, 1.2 + 2.2 * count), layout="constrained")
        panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
        for axes, u, field in zip(panels, values.T, solution.fields, strict=True):
            axes.plot(times, u, lw=1.4)
            axes.set_ylabel(f"${field}$")
        panels[-1].set_xlabel("$t$")
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


_INSTANTS = 5


def plot_frames(
    solution: Solution, on: Grid, file: str | Path | None = None, title: str = ""
) -> Figure:
    """A figure of the frames and fields of a solution's first sample."""
    values = frames_and_fields(solution)
    if values.ndim == 5:
        middle = float(on.axes()[2][on.shape[2] // 2])
        title = ", ".join(part for part in (title, f"$z = {middle:.3g}$") if part)
    times = None if solution.times is None else solution.times.detach().cpu().numpy()
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="constrained" if values.ndim == 3 else "compressed")
        if values.ndim == 3 and times is not None:
            _draw_space_time(figure, values, times, on, solution.fields)
        elif values.ndim == 3:
            _draw_profiles(figure, values, on, solution.fields)
        else:
            _draw_frames(figure, values, times, on, solution.fields)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _plot_frames_on_mesh(solution: Solution, mesh: Mesh, times: torch.Tensor, title: str) -> Figure:
    """A few frames of every field of a solution's first sample."""
    # All fields of an instant are drawn, or none.
    most = max(2, SAMPLES // len(solution.fields))
    chosen = chosen_instants(len(times))
    if len(chosen) > most:
        chosen = np.unique(np.linspace(0, len(times) - 1, most).round().astype(int))
    values = torch.from_numpy(frames_and_fields(solution)[chosen])
    values = values if len(solution.fields) > 1 else values[:, 0]
    called = [f"$t = {float(times[k]):.3g}$" for k in chosen]
    return plot_on_mesh(values, mesh, solution.fields, title=title, samples=called)


def frames_and_fields(solution: Solution) -> np.ndarray:
    """The first sample as (frames, fields, *grid)."""
    value = solution.value.detach().cpu()
    value = value[(0,) * solution.residual.ndim]
    if solution.times is None:
        value = value.unsqueeze(0)
    if len(solution.fields) == 1:
        value = value.unsqueeze(1)
    return value.numpy()


def chosen_instants(count: int) -> np.ndarray:
    """The numbers of a few frames, evenly over so many."""
    return np.unique(np.linspace(0, count - 1, min(count, _INSTANTS)).round().astype(int))


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
        for k in chosen_instants(len(times)):
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


def _draw_frames(
    figure: Figure,
    values: np.ndarray,
    times: np.ndarray | None,
    on: Grid,
    names: tuple[str, ...],
) -> None:
    if values.ndim == 5:
        values = values[..., values.shape[-1] // 2]
    chosen = chosen_instants(len(values))
    lower, upper = on.box.lower, on.box.upper
    aspect = float(np.clip((upper[1] - lower[1]) / (upper[0] - lower[0]), 0.15, 2.5))
    size = 3.0 if len(chosen) > 2 else 4.2
    # The instants of one field go below each other where the domain is wide.
    stacked = len(names) == 1 and aspect < _WIDE
    if stacked:
        figure.set_size_inches(9.0, 0.6 + (7.6 * aspect + 0.35) * len(chosen))
        panels = figure.subplots(len(chosen), 1, sharex=True, squeeze=False).T
    else:
        figure.set_size_inches(size * len(chosen) + 1.0, (size * aspect + 0.4) * len(names))
        panels = figure.subplots(len(names), len(chosen), sharex=True, sharey=True, squeeze=False)
    for row, name, field in zip(panels, names, values.swapaxes(0, 1), strict=True):
        norms = scales(field[chosen])
        images = [
            draw_map(axes, field[k], on, (0, 1), norm)
            for axes, k, norm in zip(row, chosen, norms, strict=True)
        ]
        for axes in row[: len(row) if stacked else 1]:
            axes.set_ylabel("$y$")
        colour_bars(figure, images, list(row), norms, name)
    for axes in panels[-1][-1 if stacked else 0 :]:
        axes.set_xlabel("$x$")
    for above, k in zip(panels[0], chosen, strict=True):
        if times is not None:
            above.set_title(f"$t = {times[k]:.3g}$", fontsize=10)


# The four triangles between the six nodes of a P2 one.
# Up to so many elements their edges are drawn too.
_EDGES = 3000


def plot_on_mesh(
    value: torch.Tensor,
    mesh: Mesh,
    names: tuple[str, ...],
    file: str | Path | None = None,
    title: str = "",
    samples: Sequence[str] = (),
) -> Figure:
    """A figure of ``value`` (*batch, [fields,] nodes or elements), one panel per field or sample.

    ``names``: the fields', a single one for a value without an axis of fields. ``samples``: what
    those of a batch are called.
    """
    rows = value.detach().cpu().double().reshape(-1, value.shape[-1]).numpy()[:SAMPLES]
    labels = [names[k % len(names)] for k in range(len(rows))]
    count = -(-len(rows) // len(names))
    called = [name for name in _called(samples, count) for _ in names] if count > 1 else []
    with matplotlib.rc_context(STYLE):
        figure = Picture(layout="compressed" if mesh.dimension < 3 else "constrained")
        if mesh.dimension == 1:
            _draw_mesh_lines(figure, rows, mesh, labels, called)
        else:
            _draw_mesh_panels(figure, rows, mesh, labels, called, several=len(names) > 1)
        if title:
            figure.suptitle(title, fontsize=13)
        save(figure, file)
    return figure


def _draw_mesh_lines(
    figure: Figure, rows: np.ndarray, mesh: Mesh, labels: list[str], called: list[str]
) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    nodal = rows.shape[-1] == len(mesh.nodes)
    x = mesh.nodes[:, 0] if nodal else mesh.points[mesh.cells].mean(axis=1)[:, 0]
    order = np.argsort(x)
    for index, values in enumerate(rows):
        axes.plot(x[order], values[order], lw=1.6, label=called[index] if called else None)
    axes.set_xlabel("$x$")
    axes.set_ylabel(f"{symbol(labels[0])}$(x)$")
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if called:
        axes.legend(fontsize=9)


def _draw_mesh_panels(
    figure: Figure,
    rows: np.ndarray,
    mesh: Mesh,
    labels: list[str],
    called: list[str],
    several: bool,
) -> None:
    columns = int(np.ceil(np.sqrt(len(rows))))
    lines = int(np.ceil(len(rows) / columns))
    extent = np.ptp(mesh.points, axis=0)
    aspect = float(np.clip(extent[1] / extent[0], 0.3, 2.5)) if mesh.dimension == 2 else 0.85
    width = 5.6 if len(rows) == 1 else 3.9 * columns
    figure.set_size_inches(width + 0.9, width / columns * aspect * lines + 0.9)
    options: dict[str, Any] = solid_axes() if mesh.dimension == 3 else {}
    panels = np.atleast_1d(figure.subplots(lines, columns, subplot_kw=options)).ravel()
    norms, images = _by_field(rows, labels) if several else scales(rows), []
    for index, (axes, values) in enumerate(zip(panels, rows, strict=False)):
        draw = draw_triangles if mesh.dimension == 2 else draw_solid
        images.append(draw(axes, values, mesh, norms[index]))
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        if called:
            axes.set_title(called[index], fontsize=9)
        if several:
            colour_bar(figure, images[-1], [axes], labels[index])
    if not several:
        colour_bars(figure, images, list(panels[: len(rows)]), norms, labels[0])
    for axes in panels[len(rows) :]:
        axes.set_axis_off()


def _by_field(rows: np.ndarray, labels: list[str]) -> list[Any]:
    """A scale for every field, over all of its panels."""
    every = np.array(labels)
    own = {name: scales(rows[every == name]) for name in dict.fromkeys(labels)}
    return [own[name].pop(0) for name in labels]


def triangles(mesh: Mesh) -> np.ndarray:
    """The nodes (k, 3) of triangles that fill a plane mesh, between all nodes of its elements."""
    cells, kind = mesh.cell_nodes, mesh.kind
    for parts in (kind.children if mesh.degree == 2 else (), kind.simplices):
        cells = np.concatenate([cells[:, part] for part in parts]) if parts else cells
    return cells


def outlines(mesh: Mesh, facets: np.ndarray) -> np.ndarray:
    """The nodes along edges of a plane mesh, by their numbers: (k, 2), of degree 2 (k, 3)."""
    nodes = mesh.facet_nodes(facets)
    return nodes[:, [0, 2, 1]] if mesh.degree == 2 else nodes


def draw_triangles(
    axes: Any, values: np.ndarray, mesh: Mesh, norm: Any, points: np.ndarray | None = None
) -> Any:
    """Values of nodes or elements on a plane mesh; gives what a colour bar is made of.

    ``points`` (nodes, 2): where the nodes are, by default the mesh's.
    """
    places = mesh.nodes if points is None else points
    x, y = places.T
    if len(values) != len(mesh.nodes):
        parts = mesh.cells if mesh.affine else triangles(mesh)
        filled = np.tile(values, len(parts) // len(values))
        image = axes.tripcolor(Triangulation(x, y, parts), facecolors=filled, norm=norm)
    else:
        drawn = Triangulation(x, y, triangles(mesh))
        image = axes.tripcolor(drawn, values, norm=norm, shading="gouraud")
    if len(mesh.cells) <= _EDGES:
        if mesh.affine:
            axes.triplot(x, y, mesh.cells, color="white", lw=0.25, alpha=0.5)
        else:
            lines = places[outlines(mesh, np.arange(mesh.topology.facets.shape[1]))]
            axes.add_collection(LineCollection(lines, colors="white", lw=0.25, alpha=0.5))
    axes.margins(0.02)
    axes.set_aspect("equal")
    return image


@cache
def draws_by_pyvista() -> bool:
    """Whether solids are drawn by PyVista, an extra that needs OpenGL, off the screen too."""
    if importlib.util.find_spec("pyvista") is None:
        return False
    try:
        import pyvista

        plotter = pyvista.Plotter(off_screen=True, window_size=[32, 32])
        plotter.screenshot(return_img=True)
        plotter.close()
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def solid_axes() -> dict[str, Any]:
    """What axes need to be for :func:`draw_solid`: matplotlib's in space, or a plain picture."""
    return {} if draws_by_pyvista() else {"projection": "3d"}


def draw_solid(
    axes: Any,
    values: np.ndarray,
    mesh: Mesh,
    norm: Any,
    points: np.ndarray | None = None,
    cut: bool = True,
) -> Any:
    """The surface of the half beyond the middle y, so that the inside is seen, or of all.

    ``points`` (nodes, 3): where the nodes are, by default the mesh's. Gives what a colour bar is
    made of.
    """
    places = mesh.nodes if points is None else points
    corners, shown = surface(mesh, values, places, cut)
    image = ScalarMappable(norm)
    image.set_array(shown)
    if draws_by_pyvista():
        axes.imshow(_rendered(corners, shown, image))
        axes.set_axis_off()
        return image
    _draw_surface(axes, corners, shown, image, places)
    return image


def _rendered(corners: np.ndarray, shown: np.ndarray, image: ScalarMappable) -> np.ndarray:
    """A picture (height, width, 3) of triangles (T, 3, 3) with values (T, 3), by PyVista."""
    import pyvista

    sides = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(sides, axis=1)
    # Slivers, whose normals are rounding, would be seen as scratches.
    corners, shown = (array[area > 1e-6 * area.max()] for array in (corners, shown))
    count = len(corners)
    faces = np.column_stack([np.full(count, 3), np.arange(3 * count).reshape(count, 3)])
    body = pyvista.PolyData(corners.reshape(-1, 3), faces.ravel())
    body["colour"] = np.asarray(255 * image.to_rgba(shown.ravel()), dtype=np.uint8)
    body = body.clean(tolerance=1e-9).compute_normals(
        cell_normals=False, split_vertices=True, consistent_normals=False
    )
    plotter = pyvista.Plotter(off_screen=True, window_size=[1100, 900])
    plotter.set_background("white")
    plotter.add_mesh(
        body, scalars="colour", rgba=True, smooth_shading=True, specular=0.1, ambient=0.35,
    )  # fmt: skip
    plotter.show_bounds(
        xtitle="x", ytitle="y", ztitle="z", color="black", font_size=24, bold=False,
        n_xlabels=3, n_ylabels=3, n_zlabels=3, location="outer",
    )  # fmt: skip
    plotter.view_vector((0.7, -1.2, 0.75))
    plotter.camera.zoom(1.15)
    picture = np.asarray(plotter.screenshot(return_img=True))
    plotter.close()
    return picture


def _draw_surface(
    axes: Any, corners: np.ndarray, shown: np.ndarray, image: ScalarMappable, places: np.ndarray
) -> None:
    """The same by matplotlib, lit where it is round."""
    from mpl_toolkits.mplot3d.art3d import Poly3DCollection

    colours = image.to_rgba(shown.mean(axis=1))
    colours[:, :3] *= brightness(corners)[:, None]
    # Edges of the same colour close the gaps that are left between neighbours.
    polygons = Poly3DCollection(corners, facecolors=colours, edgecolors=colours, linewidths=0.3)
    polygons.set_rasterized(True)
    axes.add_collection3d(polygons)
    extents = np.maximum(np.ptp(places, axis=0), 1e-9)
    for k, axis in enumerate((axes.xaxis, axes.yaxis, axes.zaxis)):
        axis.set_view_interval(places[:, k].min(), places[:, k].max(), ignore=True)
        axis.set_major_locator(MaxNLocator(max(2, round(6 * extents[k] / extents.max()))))
        axis.labelpad = 8
    axes.set_box_aspect(extents)
    axes.set_zlabel("$z$")


NODES = 201
_RESIDUAL_RANGE = 1e6  # below the largest residual by this factor all is one colour


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
    return labelled(figure, solution.labels, file)


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
    low, high = limits or (max(float(size.min()), top / _RESIDUAL_RANGE), top)
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


Pair = Mapping[str, Solution]


def plot_fields(pair: Pair, file: str | Path | None = None) -> Figure | None:
    """Both fields on one scale; None where they have not the same number of dimensions."""
    dimensions = {_drawn_dimension(solution) for solution in pair.values()}
    if len(dimensions) != 1 or 0 in dimensions:
        return None
    flat = dimensions == {1}
    with matplotlib.rc_context(STYLE):
        figure = Figure(layout="constrained")
        (_draw_pair_lines if flat else _draw_pair_maps)(figure, pair)
    return labelled(figure, next(iter(pair.values())).labels, file)


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


def _drawn_dimension(solution: Solution) -> int:
    """Of what is drawn; 0 where nothing can be."""
    on = solution.on
    if isinstance(on, Mesh):
        return on.dimension if on.dimension < 3 else 0
    if isinstance(on, Points):
        return min(on.box.dimension, 2)
    return 0 if on is None else min(len(on.shape), 2)


def real_field(solution: Solution) -> np.ndarray:
    """The real field that is drawn: first sample, last frame, first field, middle plane."""
    value = solution.last.detach().cpu()[(0,) * solution.residual.ndim]
    if len(solution.fields) > 1:
        value = value[0]
    shown = (value.real if value.is_complex() else value).numpy()
    return shown[..., shown.shape[-1] // 2] if shown.ndim == 3 else shown


def _draw_pair_lines(figure: Figure, pair: Pair) -> None:
    figure.set_size_inches(6.4, 4.0)
    axes = figure.subplots()
    for style, (label, solution) in zip(("-", "--"), pair.items(), strict=True):
        x = _positions_along_x(solution)
        order = np.argsort(x)
        axes.plot(x[order], real_field(solution)[order], style, lw=1.6, label=label)
    axes.set_xlabel("$x$")
    axes.set_ylabel(symbol(next(iter(pair.values())).fields[0]))
    axes.grid(True, color="0.9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9)


def _positions_along_x(solution: Solution) -> np.ndarray:
    on = solution.on
    assert on is not None
    return np.asarray(on.nodes[:, 0] if isinstance(on, Mesh) else on.coordinates()[0].numpy())


def _draw_pair_maps(figure: Figure, pair: Pair) -> None:
    shown = {label: real_field(solution) for label, solution in pair.items()}
    difference = _difference_of(pair, shown)
    norm = normalise(np.concatenate([field.ravel() for field in shown.values()]))
    count = 2 if difference is None else 3
    figure.set_size_inches(4.4 * count, 4.0)
    panels = list(figure.subplots(1, count))
    for axes, (label, solution) in zip(panels, pair.items(), strict=False):
        image = _draw_field_of(axes, shown[label], solution, norm)
        axes.set_title(label, fontsize=11)
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
    colour_bar(figure, image, panels[:2], next(iter(pair.values())).fields[0])
    if difference is not None:
        top = float(np.nanmax(np.abs(difference))) or 1.0
        with matplotlib.rc_context({"image.cmap": "RdBu_r"}):
            image = _draw_field_of(
                panels[2], difference, next(iter(pair.values())), Normalize(-top, top)
            )
        panels[2].set_title("second less first", fontsize=11)
        panels[2].set_xlabel("$x$")
        colour_bar(figure, image, panels[2:], "difference")


def _difference_of(pair: Pair, shown: Mapping[str, np.ndarray]) -> np.ndarray | None:
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


def _draw_field_of(axes: Axes, field: np.ndarray, solution: Solution, norm: Normalize) -> Any:
    on = solution.on
    if isinstance(on, Mesh):
        return draw_triangles(axes, field, on, norm)
    if isinstance(on, Points):
        columns = [column.numpy() for column in on.coordinates()]
        return axes.scatter(columns[0], columns[1], c=field, s=6, norm=norm)
    assert isinstance(on, Grid)
    return draw_map(axes, field, on, (0, 1), norm)
