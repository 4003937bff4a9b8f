"""A dataset at a glance: its facts, and a few of its samples as thumbnails.

Thumbnails have a column for each sample and a row for each input and output, with the first and
the last frame of what varies in time; a row has one colour scale. On a mesh the nodes' values are
shaded between them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from sciml.app.plot import STYLE, normalise, save, symbol
from sciml.app.plot_mesh import draw_surface, draw_triangles
from sciml.core.errors import InputError
from sciml.core.mesh import PLURALS, Mesh
from sciml.datasets.loader import Shards
from sciml.datasets.samples import SPLITS
from sciml.datasets.statistics import FILE as STATISTICS
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import Manifest, existing, explained, open_shard, read_manifest

_SAMPLES = 5
_MOST = 6  # rows of the figure


@dataclass(frozen=True)
class Row:
    """A field's component at one frame: its title, and its values (sample, *grid or nodes)."""

    title: str
    values: np.ndarray


def summarise(folder: Path) -> dict[str, str]:
    """The facts of a dataset, and ``samples.png`` with a few of its samples in its folder."""
    facts = describe_dataset(folder)
    if "inputs" in facts:
        facts["picture"] = str(folder / "samples.png")
        plot_samples(folder, facts["picture"])
    return facts


def describe_dataset(folder: Path) -> dict[str, str]:
    """The facts of a dataset, for a table; every file's hash is checked on the way.

    Raises InputError for a damaged or missing file.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"'{folder}' is no dataset; sciml generate makes one")
    manifest.check(folder)
    entries = [entry for entry in manifest.shards if entry.samples]
    own = [entry for entry in entries if entry.path.startswith("data/")]
    if not own:
        return {"samples": "none yet", "rejected": _rejects(manifest)}
    splits: Counter[str] = Counter({split: 0 for split in SPLITS})
    for entry in own:
        splits[entry.split] += entry.samples
    reader = Shards(folder, own[0].split)
    header = reader.header
    facts = {
        "dataset": header.name,
        "samples": ", ".join(f"{count:,} {split}" for split, count in splits.items() if count),
        **_place(folder, reader),
        "inputs": ", ".join(header.inputs),
        "outputs": ", ".join(header.outputs),
        "boundary": ", ".join(f"{side} {kind}" for side, kind in header.boundary.items()),
    }
    if len(reader.time) > 1:
        first, last = reader.time[0], reader.time[-1]
        facts["time"] = f"{len(reader.time)} frames from {first:.4g} to {last:.4g}"
    if (folder / STATISTICS).is_file():
        statistics = Normaliser.read(folder)
        for name, mean in statistics.mean.items():
            pairs = zip(mean, statistics.std[name], strict=True)
            facts[f"  {name}"] = ", ".join(f"{m:.4g} +- {s:.3g}" for m, s in pairs)
    size = sum((folder / entry.path).stat().st_size for entry in entries)
    facts["true relative residual"] = f"{_worst(folder, manifest):.2e} at most"
    facts["rejected"] = _rejects(manifest)
    facts["files"] = f"{len(entries)}, {size / 1e6:,.4g} MB; all as they were written"
    return facts


def _place(folder: Path, reader: Shards) -> dict[str, str]:
    """The resolutions, or the mesh."""
    if reader.mesh is not None:
        mesh = reader.mesh.mesh
        what = f"{mesh.element} {PLURALS[mesh.dimension]}"
        return {"mesh": f"{mesh.shape[0]:,} nodes, {len(mesh.cells):,} {what}"}
    coarser = sorted(place.name.removeprefix("at-") for place in folder.glob("at-*"))
    own = "x".join(str(len(axis)) for axis in reader.axes)
    return {"resolutions": ", ".join([own, *coarser])}


def _worst(folder: Path, manifest: Manifest) -> float:
    """The largest residual of all samples."""
    worst = 0.0
    for entry in manifest.shards:
        if entry.samples and entry.path.startswith("data/"):
            path = existing(folder, entry)
            with explained(path), open_shard(path) as file:
                worst = max(worst, float(file["residual"][()].max()))
    return worst


def _rejects(manifest: Manifest) -> str:
    reasons = Counter(manifest.rejects.values())
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none"


def plot_samples(folder: Path, file: str | Path | None = None) -> Figure:
    """A figure of the first few samples; written to ``file`` where one is named."""
    manifest = read_manifest(folder)
    splits = [] if manifest is None else [entry.split for entry in manifest.shards if entry.samples]
    reader = Shards(folder, "train" if "train" in splits or not splits else splits[0])
    rows = _rows(reader)
    samples = len(rows[0].values)
    mesh = None if reader.mesh is None else reader.mesh.mesh
    # A volume's panels stand on axes of their own: theirs cannot be shared.
    solid = mesh is not None and mesh.dimension == 3
    options: dict[str, Any] = {"sharex": True, "sharey": "row"}
    if solid:
        options = {"subplot_kw": {"projection": "3d"}}
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
                _draw_lines(beside, x[order], row.values[:, order])
            else:
                _draw_maps(figure, beside, reader.axes, row)
        save(figure, file)
    return figure


def _rows(reader: Shards) -> list[Row]:
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
                rows.append(Row(f"{symbol(label)}{instant}", values[at]))
    if not rows:
        raise InputError("there is no field to draw; the dataset names no inputs and outputs")
    return rows[:_MOST]


def _draw_lines(panels: np.ndarray, x: np.ndarray, values: np.ndarray) -> None:
    for axes, line in zip(panels, values, strict=True):
        axes.plot(x, line, lw=1.3)
        axes.grid(True, color="0.9", lw=0.6)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_maps(figure: Figure, panels: np.ndarray, axes: tuple[np.ndarray, ...], row: Row) -> None:
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


def _draw_on_mesh(figure: Figure, panels: np.ndarray, mesh: Mesh, row: Row) -> None:
    """Triangles, or half of a solid."""
    draw = draw_triangles if mesh.dimension == 2 else draw_surface
    norm = normalise(row.values)
    for panel, values in zip(panels, row.values, strict=True):
        image = draw(panel, values.astype(np.float64), mesh, norm)
        panel.set_axis_off()
    _colour_bar(figure, image, panels, row)


def _colour_bar(figure: Figure, image: Any, panels: np.ndarray, row: Row) -> None:
    bar = figure.colorbar(image, ax=list(panels), fraction=0.05, pad=0.01, aspect=22)
    bar.set_label(row.title)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_linewidth(0.5)
