"""Figures of what follows from an answer: derived fields, deformed shapes, streamlines, lines.

A vector is drawn as arrows over its length. A solid is drawn as it is deformed, its displacements
enlarged by a round number that the title states, over its outline before. A flow: streamlines over
its speed. Values along a line: curves, of a batch one for each sample, in time one for each of a
few instants. Frames: a moving picture, on one colour scale.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
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
    draw_map,
    draw_surface,
    draw_triangles,
    frames_and_fields,
    labelled,
    names_of_samples,
    normalise,
    outlines,
    plot_field,
    plot_solution,
    save,
    shown,
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

_ARROWS = 22  # along the longer side
_SHARE = 0.08  # of the body's size, which the largest displacement is enlarged to at most
_SEEN = 0.02  # a share that is seen without being enlarged
_SECONDS, _FEWEST, _MOST = 8.0, 2.0, 20.0  # of a moving picture, and its frames per second
_MOVES = 200  # frames of it


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
    single = solution.times is None and solution.residual.ndim == 0
    plane = on is not None and len(on.coordinates()) == 2 and not isinstance(on, Points)
    labels = {**_symbols(solution, name, found.components), **solution.labels}
    if found.vector and single and plane and not found.value.is_complex():
        return labelled(_plot_arrows(found, on, name), labels, file)
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


def _plot_arrows(found: Derived, on: Any, name: str) -> Figure:
    vector = found.value.detach().cpu().double().numpy()
    length = np.sqrt((vector**2).sum(axis=0))
    norm = normalise(length[None])
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=_size(on), layout="compressed")
        axes = figure.subplots()
        if isinstance(on, Grid):
            image = draw_map(axes, length, on, (0, 1), norm, contours=False)
        else:
            image = draw_triangles(axes, length, on, norm)
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
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        axes.set_title(f"{name}: its size, and arrows along it", fontsize=10)
        colour_bar(figure, image, [axes], name)
    return figure


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
    """Whether an answer is that of a solid in two or three dimensions."""
    on = solution.on
    return (
        isinstance(on, Mesh) and on.dimension > 1 and solution.fields == COMPONENTS[: on.dimension]
    )


def plot_deformed(solution: Solution, file: str | Path | None = None) -> Figure:
    """The first sample's deformed shape, coloured by von Mises' stress where that is kept."""
    mesh = solution.on
    assert isinstance(mesh, Mesh)
    first = (0,) * solution.residual.ndim
    moved = solution.value.detach().cpu().double()[first].numpy().T
    kept = solution.kept.get("mises")
    if kept is None:
        colour, name = np.linalg.norm(moved, axis=1), "displacement"
    else:
        colour, name = kept.value.detach().cpu().double()[first].numpy(), "mises"
    scale = _enlarged(moved, mesh)
    places = mesh.nodes + scale * moved
    norm = normalise(colour[None])
    with matplotlib.rc_context(STYLE):
        flat = mesh.dimension == 2
        figure = Picture(
            figsize=_size(mesh) if flat else (6.5, 5.6),
            layout="compressed" if flat else "constrained",
        )
        if flat:
            axes = figure.subplots()
            image = draw_triangles(axes, colour, mesh, norm, places)
            rim = mesh.nodes[outlines(mesh, mesh.topology.boundary_facets())]
            axes.add_collection(LineCollection(rim, colors="0.55", linewidths=0.8, zorder=0))
            axes.autoscale_view()
        else:
            axes = figure.add_subplot(projection="3d")
            image = draw_surface(axes, colour, mesh, norm, places, cut=False)
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        colour_bar(figure, image, [axes], name)
        of = f"{names_of_samples(solution)[0]}; " if solution.residual.ndim else ""
        stated = "displacements true to scale" if scale == 1 else f"displacements x {scale:g}"
        axes.set_title(f"{shown(of)}{stated}", fontsize=10)
    return labelled(figure, {**_symbols(solution, name, ()), **solution.labels}, file)


# --- Modes ----------------------------------------------------------------------------------------


def plot_modes(
    modes: Eigenmodes, file: str | Path | None = None, title: str = "", unit: str = ""
) -> Figure:
    """The first modes side by side, of a batch those of its first sample.

    Those of a body as it is deformed, by a twelfth of its size. ``unit``: of frequencies.
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
        return plot_field(fields, on, modes.names[0], file, title, called)
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
        options: dict[str, Any] = {} if flat else {"subplot_kw": {"projection": "3d"}}
        panels = figure.subplots(rows, columns, squeeze=False, **options).ravel()
        for axes, shape, name in zip(panels, shapes, called, strict=False):
            moved = shape.T
            length = np.linalg.norm(moved, axis=1)
            scale = _SHARE * float(np.ptp(on.nodes, axis=0).max()) / max(length.max(), 1e-300)
            draw = draw_triangles if flat else partial(draw_surface, cut=False)
            draw(axes, length, on, normalise(length[None]), on.nodes + scale * moved)
            axes.set_title(name, fontsize=9)
            axes.tick_params(labelsize=7)
        for axes in panels[len(shapes) :]:
            axes.set_axis_off()
        if title:
            figure.suptitle(shown(title), fontsize=12)
        save(figure, file)
    return figure


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
    """Whether an answer is that of a plane flow by its velocity."""
    return isinstance(solution.on, Grid) and solution.fields == ("u", "v", "p")


def plot_streamlines(solution: Solution, file: str | Path | None = None) -> Figure:
    """Streamlines over the speed, of the first sample's last frame."""
    on = solution.on
    assert isinstance(on, Grid)
    u, v, _ = solution.last.detach().cpu().double()[(0,) * solution.residual.ndim].numpy()
    speed = np.hypot(u, v)
    top = float(np.nanmax(speed))
    with matplotlib.rc_context(STYLE):
        figure = Picture(figsize=_size(on), layout="compressed")
        axes = figure.subplots()
        image = draw_map(axes, speed, on, (0, 1), Normalize(0, top or 1), contours=False)
        if top > 0:
            x, y, across, up = _to_walls(solution, on, u)
            span = [b - a for a, b in zip(on.box.lower, on.box.upper, strict=True)]
            dense = tuple(1.2 * float(np.clip(s / min(span), 1, 3)) for s in span)
            axes.streamplot(
                x, y, across, up, color="white", linewidth=0.7, arrowsize=0.7,
                density=(dense[0], dense[1]),
            )  # fmt: skip
            axes.set_xlim(on.box.lower[0], on.box.upper[0])
            axes.set_ylim(on.box.lower[1], on.box.upper[1])
        axes.set_xlabel("$x$")
        axes.set_ylabel("$y$")
        of = [shown(names_of_samples(solution)[0])] if solution.residual.ndim else []
        when = [] if solution.times is None else [f"$t = {float(solution.times[-1]):.3g}$"]
        axes.set_title(", ".join([*when, *of]), fontsize=10)
        colour_bar(figure, image, [axes], "speed")
    return labelled(figure, solution.labels, file)


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
    if times is None or not isinstance(on, Grid) or solution.value.is_complex():
        raise InputError("a moving picture is of frames in time on a grid")
    values = frames_and_fields(solution)
    chosen = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOVES)).astype(int))
    values, instants = values[chosen], times.numpy()[chosen]
    if values.ndim == 5:
        values = values[..., values.shape[-1] // 2]
    count, plane = values.shape[1], values.ndim == 4
    rate = float(np.clip(len(values) / _SECONDS, _FEWEST, _MOST))
    with matplotlib.rc_context({**STYLE, "savefig.bbox": "standard"}):
        width, height = _size(on) if plane else (6.4, 4.0)
        figure = Figure((0.8 * width * count, 0.8 * height), dpi=90, layout="compressed")
        panels = figure.subplots(1, count, squeeze=False)[0]
        moving: list[Callable[[int], None]] = []
        for axes, name, field in zip(panels, solution.fields, values.swapaxes(0, 1), strict=True):
            axes.set_xlabel("$x$")
            if plane:
                image = draw_map(axes, field[-1], on, (0, 1), within(field), contours=False)
                axes.set_ylabel("$y$")
                colour_bar(figure, image, [axes], name)
                moving.append(partial(_recolour, image, field))
            else:
                (line,) = axes.plot(on.axes()[0].numpy(), field[0], lw=1.6)
                low, high = float(np.nanmin(field)), float(np.nanmax(field))
                axes.set_xlim(on.box.lower[0], on.box.upper[0])
                pad = 0.03 * (high - low) or 1.0
                axes.set_ylim(low - pad, high + pad)
                axes.set_ylabel(symbol(name))
                axes.grid(True, color="0.9", lw=0.6)
                moving.append(partial(_reshape, line, field))
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


def _recolour(image: Any, field: np.ndarray, k: int) -> None:
    image.set_data(np.ma.masked_invalid(field[k].T))


def _reshape(line: Any, field: np.ndarray, k: int) -> None:
    line.set_ydata(field[k])
