"""Figures of what follows from an answer: derived fields, deformed shapes, streamlines, lines.

A vector is drawn as arrows over its length. A solid is drawn as it is deformed, its displacements
enlarged by a round number that the title states, over its outline before. A flow: streamlines over
its speed. Values along a line: curves, of a batch one for each sample, in time one for each of a
few instants. Frames: a moving picture, on one colour scale.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import LinearTriInterpolator, Triangulation
from PIL import Image

from sciml.app.figures import (
    SAMPLES,
    STYLE,
    Picture,
    chosen_instants,
    colour_bar,
    colour_bars,
    draw_map,
    draw_solid,
    draw_triangles,
    frames_and_fields,
    labelled,
    names_of_samples,
    normalise,
    outlines,
    plot_field,
    plot_solution,
    scales,
    shown,
    solid_axes,
    symbol,
    triangles,
    within,
)
from sciml.core.disk import atomic_write
from sciml.core.errors import InputError
from sciml.core.problem.equation import COMPONENTS
from sciml.core.problem.grid import AXES, Grid, Points
from sciml.core.problem.mesh import Mesh
from sciml.core.run.derived import Derived
from sciml.core.run.eigenmodes import Eigenmodes
from sciml.core.run.labels import Label, unit_of
from sciml.core.run.solution import Solution

_STEEP = 0.02  # of the values may lie beyond a scale
_ARROWS = 22  # along the longer side
_SHARE = 0.08  # of the body's size, which the largest displacement is enlarged to at most
_SEEN = 0.02  # a share that is seen without being enlarged
_SECONDS, _FEWEST, _MOST = 8.0, 2.0, 20.0  # of a moving picture, and its frames per second
_MOVES, _MOVES_OF_SOLIDS = 200, 40  # frames of it
_RASTER = 160  # points along the longer side, from which streamlines start and are followed


def plot_derived(solution: Solution, name: str, file: str | Path | None = None) -> Figure:
    """A figure of a derived field, its components as an answer's fields are drawn."""
    found, on = solution.derived(name), solution.on
    several = len(found.components) > 1
    drawn = replace(
        solution,
        value=found.value,
        fields=found.components if several else (name,),
        kept={},
        trained=None,
    )
    plane = on is not None and len(on.coordinates()) == 2 and not isinstance(on, Points)
    labels = {**_symbols(solution, name, found.components), **solution.labels}
    if found.vector and plane and not found.value.is_complex():
        vectors, called = _vectors(solution, found)
        return labelled(_plot_arrows(vectors, on, name, called), labels, file)
    if found.value.is_complex():
        drawn = replace(
            drawn, value=found.value.real, fields=tuple(f"Re {field}" for field in drawn.fields)
        )
    return plot_solution(replace(drawn, labels=labels), file)


def _symbols(solution: Solution, name: str, components: Sequence[str]) -> dict[str, Label]:
    """What components are called where nobody says: sigma_xx, eps_1, in the field's unit."""
    unit = unit_of(solution.labels, name) or None
    letter = {"stress": r"\sigma", "strain": r"\varepsilon"}.get(name.removeprefix("principal_"))
    if letter is not None:
        found = {c: Label(f"${letter}_{{{c[1:]}}}$", unit_of(solution.labels, c) or unit)
                 for c in components}  # fmt: skip
    else:  # u_x of ux, q_{x,u} of qx_u
        split = {c: re.fullmatch(r"(\w)([xyz])(?:_(\w+))?", c) for c in components}
        found = {
            c: Label(f"${m[1]}_{{{m[2]}{',' + m[3] if m[3] else ''}}}$", unit)
            for c, m in split.items() if m is not None
        }  # fmt: skip
    return {**found, "mises": Label("von Mises stress", unit if name == "mises" else None)}


def _vectors(solution: Solution, found: Derived) -> tuple[np.ndarray, list[str]]:
    """Samples at the last instant, or instants of a single one, (k, 2, *grid); their names."""
    value, axis, times = found.value.detach().cpu().double(), solution.residual.ndim, solution.times
    if axis:
        last = value if times is None else value.select(axis, -1)
        rows = last.flatten(0, axis - 1)[:SAMPLES].numpy()
        return rows, list(map(shown, names_of_samples(solution)[: len(rows)]))
    if times is None:
        return value[None].numpy(), [""]
    chosen = chosen_instants(len(times))
    return value.numpy()[chosen], [f"$t = {float(times[k]):.3g}$" for k in chosen]


def _plot_arrows(vectors: np.ndarray, on: Any, name: str, called: Sequence[str]) -> Figure:
    """A panel for each of the vectors (k, 2, *grid), on one scale unless that blanks some."""
    lengths = np.sqrt((vectors**2).sum(axis=1))
    norms, images = scales(lengths), []
    if all(norm is norms[0] for norm in norms):
        # A front that is steep at its start would leave nothing to be seen of the rest.
        norms = [within(lengths, _STEEP)] * len(norms)
    columns = -(-len(vectors) // _rows_of(len(vectors), on))
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(on, len(vectors), columns)
        for axes, vector, length, norm, text in zip(
            panels, vectors, lengths, norms, called, strict=True
        ):
            if isinstance(on, Grid):
                images.append(draw_map(axes, length, on, (0, 1), norm, contours=False))
            else:
                images.append(draw_triangles(axes, length, on, norm))
            _draw_arrows(axes, vector, on)
            axes.set_xlabel("$x$")
            axes.set_ylabel("$y$")
            axes.set_title(text or f"{name}: its size, and arrows along it", fontsize=10)
        if len(panels) > 1:
            figure.suptitle(f"{name}: its size, and arrows along it", fontsize=11)
        colour_bars(figure, images, list(panels), norms, name)
    return figure


def _draw_arrows(axes: Any, vector: np.ndarray, on: Grid | Mesh) -> None:
    places, arrows = _sparse(vector, on)
    top = float(np.quantile(np.hypot(*arrows), 0.95)) if arrows.size else 0.0
    if top > 0:
        step = max(np.ptp(places[0]), np.ptp(places[1])) / _ARROWS
        # Longer arrows than nearly all would hide the rest.
        arrows = arrows / np.maximum(np.hypot(*arrows) / top, 1.0)
        axes.quiver(
            *places, *arrows, color="white", angles="xy", scale_units="xy", pivot="mid",
            scale=top / step, width=0.004, edgecolor="0.25", linewidth=0.3,
        )  # fmt: skip


def _rows_of(count: int, on: Grid | Mesh) -> int:
    """Into how many rows so many panels go: below each other where the domain is wide."""
    width, height = _size(on)
    return max(1, min(count, round(math.sqrt(count * width / height))))


def _panels(on: Grid | Mesh, count: int, columns: int) -> tuple[Picture, np.ndarray]:
    """A figure with so many panels of a plane or solid domain, the others left out."""
    flat = len(on.coordinates()) == 2
    width, height = _size(on) if flat else (6.5, 5.6)
    rows, share = -(-count // columns), 1.0 if count == 1 else max(0.45, 1.2 / columns)
    figure = Picture(
        figsize=(share * width * columns, share * height * rows),
        layout="compressed" if flat else "constrained",
    )
    options: dict[str, Any] = {} if flat else {"subplot_kw": solid_axes()}
    panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
    for axes in panels[count:]:
        axes.remove()
    return figure, panels[:count]


def _size(on: Grid | Mesh) -> tuple[float, float]:
    """Inches of a figure with one panel of a plane domain."""
    points = on.nodes if isinstance(on, Mesh) else np.array([on.box.lower, on.box.upper])
    width, height = np.ptp(points[:, :2], axis=0)
    aspect = float(np.clip(height / width, 0.15, 2.0))
    across = 6.5 if aspect > 0.5 else 10.0
    return (across, 0.86 * across * aspect + 0.9) if aspect <= 1 else (5.6 / aspect + 1.9, 6.5)


def _sparse(vector: np.ndarray, on: Grid | Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Places (2, n) evenly over the domain, and vectors (2, n) there, where there are any."""
    if isinstance(on, Grid):
        step = max(1, max(on.shape) // _ARROWS)
        picks = [np.arange((n % step or step) // 2, n, step) for n in on.shape]
        grid = np.meshgrid(*picks, indexing="ij")
        places = np.stack([on.axes()[a].numpy()[grid[a]] for a in (0, 1)]).reshape(2, -1)
        arrows = vector[:, grid[0], grid[1]].reshape(2, -1)
    else:
        low, high = on.nodes.min(axis=0), on.nodes.max(axis=0)
        step = (high - low).max() / _ARROWS
        ticks = [np.arange(a + step / 2, b, step) for a, b in zip(low, high, strict=True)]
        places = np.stack(np.meshgrid(*ticks, indexing="ij")).reshape(2, -1)
        drawn = Triangulation(on.nodes[:, 0], on.nodes[:, 1], triangles(on))
        looks = [LinearTriInterpolator(drawn, part)(*places) for part in vector]
        arrows = np.stack([np.ma.filled(look, np.nan) for look in looks])
    known = np.isfinite(arrows).all(axis=0)
    return places[:, known], arrows[:, known]


# --- Deformed shapes ------------------------------------------------------------------------------


def is_displacement(solution: Solution) -> bool:
    """Whether an answer has the displacement of a solid in two or three dimensions."""
    return isinstance(solution.on, Mesh) and bool(_components(solution, "displacement"))


def _components(solution: Solution, vector: str) -> list[int]:
    """Which of the fields are a velocity, or a displacement; none where there is not one."""
    fields, on = solution.fields, solution.on
    if not isinstance(on, (Grid, Mesh)):
        return []
    d = len(on.coordinates())
    if solution.problem is not None:
        known = dict(solution.problem.equation.vectors(d))
    else:  # of a file
        flows = {"velocity": COMPONENTS[:d]} if fields == (*COMPONENTS[:d], "p") else {}
        known = flows or {"displacement": COMPONENTS[:d] if fields == COMPONENTS[:d] else ()}
    names = known.get(vector, ())
    return [fields.index(name) for name in names] if set(names) <= set(fields) else []


def plot_deformed(solution: Solution, file: str | Path | None = None) -> Figure:
    """Every sample's deformed shape, coloured by von Mises' stress where that is kept.

    All are enlarged alike and on one scale of colours; in time it is the last frame.
    """
    mesh, batch = solution.on, solution.residual.ndim
    assert isinstance(mesh, Mesh)
    last = solution.last.detach().cpu().double()
    last = last[..., _components(solution, "displacement"), :]
    moved = last.reshape(-1, *last.shape[-2:])[:SAMPLES].numpy().swapaxes(1, 2)
    kept = solution.kept.get("mises")
    if kept is None:
        colours, name = np.linalg.norm(moved, axis=2), "displacement"
    else:
        value = kept.value.detach().cpu().double()
        value = value if solution.times is None else value.select(batch, -1)
        colours, name = value.reshape(-1, value.shape[-1])[:SAMPLES].numpy(), "mises"
    scale = _enlarged(moved.reshape(-1, moved.shape[-1]), mesh)
    norms, images = scales(colours), []
    flat, count = mesh.dimension == 2, len(moved)
    columns = -(-count // _rows_of(count, mesh)) if flat else min(count, 3)
    stated = "displacements true to scale" if scale == 1 else f"displacements x {scale:g}"
    when = "" if solution.times is None else f"$t = {float(solution.times[-1]):.3g}$; "
    with matplotlib.rc_context(STYLE):
        figure, panels = _panels(mesh, count, columns)
        for axes, own, colour, norm, of in zip(
            panels, moved, colours, norms, names_of_samples(solution), strict=False
        ):
            places = mesh.nodes + scale * own
            if flat:
                images.append(draw_triangles(axes, colour, mesh, norm, places))
                rim = mesh.nodes[outlines(mesh, mesh.topology.boundary_facets())]
                axes.add_collection(LineCollection(rim, colors="0.55", linewidths=0.8, zorder=0))
                axes.autoscale_view()
            else:
                images.append(draw_solid(axes, colour, mesh, norm, places, cut=False))
            axes.set_xlabel("$x$")
            axes.set_ylabel("$y$")
            axes.set_title(shown(of) if batch else f"{when}{stated}", fontsize=10)
        if batch:
            figure.suptitle(f"{when}{stated}", fontsize=11)
        colour_bars(figure, images, list(panels), norms, name)
    return labelled(figure, {**_symbols(solution, name, ()), **solution.labels}, file)


# --- Modes ----------------------------------------------------------------------------------------


def plot_modes(
    modes: Eigenmodes,
    file: str | Path | None = None,
    title: str = "",
    unit: str = "",
    labels: Mapping[str, Label] = MappingProxyType({}),
) -> Figure:
    """The first modes side by side, of a batch those of its first sample.

    Those of a body as it is deformed, by a twelfth of its size. ``unit``: of frequencies;
    ``labels``: of axes and fields.
    """
    lead = modes.values.ndim - 1
    first = (0,) * lead
    numbers = modes.values if modes.frequencies is None else modes.frequencies
    letter = r"\lambda" if modes.frequencies is None else "f"
    called = [
        f"${letter}_{{{k + 1}}}$ = {value:.5g}{f' {unit}' if unit else ''}"
        for k, value in enumerate(numbers.detach()[first].tolist())
    ]
    fields, on = modes.fields[first], modes.on
    if len(modes.names) == 1:
        figure = plot_field(fields, on, modes.names[0], None, title, called)
        return labelled(figure, labels, file)
    assert isinstance(on, Mesh)
    shapes = fields[:SAMPLES].double().numpy()
    columns = min(len(shapes), 3)
    rows = -(-len(shapes) // columns)
    flat = on.dimension == 2
    width, height = _size(on) if flat else (4.2, 3.8)
    with matplotlib.rc_context(STYLE):
        figure = Picture(
            figsize=(0.6 * width * columns, 0.6 * height * rows + 0.4),
            layout="compressed" if flat else "constrained",
        )
        options: dict[str, Any] = {} if flat else {"subplot_kw": solid_axes()}
        panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
        for axes, shape, name in zip(panels, shapes, called, strict=False):
            moved = shape.T
            length = np.linalg.norm(moved, axis=1)
            scale = _SHARE * float(np.ptp(on.nodes, axis=0).max()) / max(length.max(), 1e-300)
            draw = draw_triangles if flat else partial(draw_solid, cut=False)
            draw(axes, length, on, normalise(length[None]), on.nodes + scale * moved)
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=7)
            axes.set_xlabel("$x$")
            axes.set_ylabel("$y$")
        for axes in panels[len(shapes) :]:
            axes.set_axis_off()
        if title:
            figure.suptitle(shown(title), fontsize=12)
    return labelled(figure, labels, file)


def _enlarged(moved: np.ndarray, mesh: Mesh) -> float:
    """The round number by which displacements (nodes, d) are enlarged to be seen."""
    size = float(np.ptp(mesh.nodes, axis=0).max())
    largest = float(np.linalg.norm(moved, axis=1).max())
    if not 0 < largest < np.inf or _SEEN * size <= largest <= 3 * _SHARE * size:
        return 1.0
    wanted = _SHARE * size / largest
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max(k * power for k in (1, 2, 5) if k * power <= wanted))


# --- Flows ----------------------------------------------------------------------------------------


def is_flow(solution: Solution) -> bool:
    """Whether an answer has the velocity of a plane flow."""
    return len(_components(solution, "velocity")) == 2


def plot_streamlines(solution: Solution, file: str | Path | None = None) -> Figure:
    """Streamlines over the speed, of the first sample's last frame."""
    on = solution.on
    assert isinstance(on, (Grid, Mesh))
    last = solution.last.detach().cpu().double()[(0,) * solution.residual.ndim]
    u, v = last[_components(solution, "velocity")].numpy()
    speed = np.hypot(u, v)
    top = float(np.nanmax(speed))
    norm = Normalize(0, top or 1)
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=_size(on), layout="compressed")
        axes = figure.subplots()
        if isinstance(on, Grid):
            image = draw_map(axes, speed, on, (0, 1), norm, contours=False)
            low, high = on.box.lower, on.box.upper
        else:
            image = draw_triangles(axes, speed, on, norm)
            low, high = (tuple(f(axis=0).tolist()) for f in (on.nodes.min, on.nodes.max))
        if top > 0:
            x, y, across, up = (
                _to_walls(solution, on, u) if isinstance(on, Grid) else _rastered(on, u, v)
            )
            span = [b - a for a, b in zip(low, high, strict=True)]
            dense = tuple(1.2 * float(np.clip(s / min(span), 1, 3)) for s in span)
            axes.streamplot(
                x, y, across, up, color="white", linewidth=0.7, arrowsize=0.7,
                density=(dense[0], dense[1]),
            )  # fmt: skip
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(low[1], high[1])
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        of = [shown(names_of_samples(solution)[0])] if solution.residual.ndim else []
        when = [] if solution.times is None else [f"$t = {float(solution.times[-1]):.3g}$"]
        axes.set_title(", ".join([*when, *of]), fontsize=10)
        colour_bar(figure, image, [axes], "speed")
    return labelled(figure, solution.labels, file)


def _rastered(mesh: Mesh, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, ...]:
    """Evenly spaced places over a plane mesh, and both velocities there, masked outside it."""
    low, high = mesh.nodes.min(axis=0), mesh.nodes.max(axis=0)
    step = (high - low).max() / _RASTER
    axes = [
        np.linspace(a, b, max(2, round((b - a) / step) + 1)) for a, b in zip(low, high, strict=True)
    ]
    drawn = Triangulation(mesh.nodes[:, 0], mesh.nodes[:, 1], triangles(mesh))
    places = np.meshgrid(*axes)
    return (*axes, *(LinearTriInterpolator(drawn, part)(*places) for part in (u, v)))


def _to_walls(solution: Solution, on: Grid, u: np.ndarray) -> tuple[np.ndarray, ...]:
    """Evenly spaced places from side to side, and both velocities there, masked in an obstacle."""
    batch, times, value = solution.residual.ndim, solution.times, solution.value
    if times is not None:
        value, times = value.narrow(batch, len(times) - 1, 1), times[-1:]
    one = replace(solution, value=value, times=times)
    axes = [
        np.linspace(a, b, n + 1)
        for a, b, n in zip(on.box.lower, on.box.upper, on.shape, strict=True)
    ]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    found = one.sample(torch.from_numpy(points)).detach().numpy().reshape(-1, 3, *map(len, axes))[0]
    dry = np.pad(~np.isfinite(u), 1, mode="edge")
    hidden = dry[1:, 1:] & dry[:-1, 1:] & dry[1:, :-1] & dry[:-1, :-1]
    parts = (np.ma.masked_invalid(np.where(hidden, np.nan, part).T) for part in found[:2])
    return (*axes, *parts)


# --- Lines ----------------------------------------------------------------------------------------


def plot_along(
    solution: Solution,
    places: torch.Tensor,
    fields: Mapping[str, torch.Tensor],
    file: str | Path | None = None,
) -> Figure:
    """Fields (*batch, [frames], n) by name along a line of ``places`` (n, d), a panel for each."""
    along, axis = _along(places)
    complex_ = any(values.is_complex() for values in fields.values())
    drawn = {n: v.abs() if complex_ else v for n, v in fields.items()}
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=(6.4, 0.9 + 2.9 * len(drawn)), layout="constrained")
        panels = figure.subplots(len(drawn), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, values) in zip(panels, drawn.items(), strict=True):
            for label, curve in _curves(solution, values):
                axes.plot(along, curve, lw=1.5, label=label)
            axes.set_ylabel(f"|{name}|" if complex_ else symbol(name))
            axes.set_xlim(along[0], along[-1])
            axes.grid(True, color="0.9", lw=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            if len(axes.lines) > 1:
                axes.legend(fontsize=9)
        panels[-1].set_xlabel(axis)
    return labelled(figure, solution.labels, file)


def _along(places: torch.Tensor) -> tuple[np.ndarray, str]:
    """What a line is drawn against: a coordinate where only that varies, or the distance."""
    moved = (places - places[:1]).detach().cpu().numpy()
    varying = [a for a in range(moved.shape[1]) if np.abs(moved[:, a]).max() > 0]
    if len(varying) == 1 and moved.shape[1] <= len(AXES):
        return places[:, varying[0]].numpy(), f"${AXES[varying[0]]}$"
    return np.linalg.norm(moved, axis=1), "distance along the line"


def _curves(solution: Solution, values: torch.Tensor) -> Sequence[tuple[str | None, np.ndarray]]:
    """The samples of a batch at the last instant, or a few instants of a single one."""
    values = values.detach().cpu().double()
    if solution.residual.ndim:
        last = values if solution.times is None else values.select(-2, -1)
        rows = last.reshape(-1, last.shape[-1]).numpy()[:SAMPLES]
        return list(zip(map(shown, names_of_samples(solution)), rows, strict=False))
    if solution.times is None:
        return [(None, values.numpy())]
    times = solution.times.tolist()
    return [(f"$t = {times[k]:.3g}$", values[k].numpy()) for k in chosen_instants(len(times))]


# --- Moving pictures ------------------------------------------------------------------------------


def animate(solution: Solution, file: str | Path) -> None:
    """The first sample's frames as a GIF, every field in a panel, on one scale for all time."""
    on, times = solution.on, solution.times
    if times is None or not isinstance(on, (Grid, Mesh)) or solution.value.is_complex():
        raise InputError("a moving picture is of real frames in time on a grid or a mesh")
    values, solid = frames_and_fields(solution), isinstance(on, Mesh) and on.dimension == 3
    most = _MOVES_OF_SOLIDS if solid else _MOVES
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), most)).astype(int))
    values, instants = values[chosen], times.numpy()[chosen]
    if values.ndim == 5:
        values = values[..., values.shape[-1] // 2]
    count, plane = values.shape[1], len(on.coordinates()) > 1
    rate = float(np.clip(len(values) / _SECONDS, _FEWEST, _MOST))
    with matplotlib.rc_context({**STYLE, "savefig.bbox": "standard"}):
        width, height = _size(on) if plane and not solid else (6.4, 4.0)
        figure = Figure((0.8 * width * count, 0.8 * height), dpi=90, layout="compressed")
        options: dict[str, Any] = {"subplot_kw": solid_axes()} if solid else {}
        panels = figure.subplots(1, count, squeeze=False, **options)[0]
        moving = [
            _begun(figure, axes, field, on, name)
            for axes, name, field in zip(
                panels, solution.fields, values.swapaxes(0, 1), strict=True
            )
        ]
        panels[0].set_title(f"$t = {instants[-1]:.3g}$", fontsize=10)
        labelled(figure, solution.labels)
        tail = panels[0].get_title().rpartition("$")[2]
        pictures = []
        for k, t in enumerate(instants):
            for move in moving:
                move(k)
            panels[0].set_title(f"$t = {t:.3g}${tail}", fontsize=10)
            buffer = BytesIO()
            figure.savefig(buffer, format="png", dpi=90)
            pictures.append(Image.open(buffer).convert("RGB").quantize(128))
    with atomic_write(file) as temporary:
        pictures[0].save(
            temporary, format="GIF", save_all=True, append_images=pictures[1:],
            duration=round(1000 / rate), loop=0,
        )  # fmt: skip


def _begun(
    figure: Figure, axes: Any, field: np.ndarray, on: Grid | Mesh, name: str
) -> Callable[[int], None]:
    """Draws a field's frames (frames, *grid) in a panel; gives what shows the one of a number."""
    axes.set_xlabel("$x$")
    if len(on.coordinates()) == 1:
        x = on.coordinates()[0].numpy()
        order = np.argsort(x)
        (line,) = axes.plot(x[order], field[0][order], lw=1.6)
        low, high = float(np.nanmin(field)), float(np.nanmax(field))
        ends = (on.box.lower[0], on.box.upper[0]) if isinstance(on, Grid) else (x.min(), x.max())
        axes.set_xlim(*ends)
        pad = 0.03 * (high - low) or 1.0
        axes.set_ylim(low - pad, high + pad)
        axes.set_ylabel(symbol(name))
        axes.grid(True, color="0.9", lw=0.6)
        return lambda k: line.set_ydata(field[k][order])
    axes.set_ylabel("$y$")
    norm = within(field)
    if isinstance(on, Grid):
        image = draw_map(axes, field[-1], on, (0, 1), norm, contours=False)
        colour_bar(figure, image, [axes], name)
        return lambda k: image.set_data(np.ma.masked_invalid(field[k].T))
    if on.dimension == 2:
        image = draw_triangles(axes, field[-1], on, norm)
        colour_bar(figure, image, [axes], name)
        return lambda k: image.set_array(field[k])
    image = draw_solid(axes, field[-1], on, norm)
    colour_bar(figure, image, [axes], name)
    return partial(_redrawn, axes, field, on, norm)


def _redrawn(axes: Any, field: np.ndarray, on: Mesh, norm: Normalize, k: int) -> None:
    for drawn in (*axes.collections, *axes.images):
        drawn.remove()
    draw_solid(axes, field[k], on, norm)
