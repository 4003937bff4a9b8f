"""``sciml generate``: the dataset of a family made, and what can be said of it afterwards."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciml.app.console import progress_line
from sciml.app.record import versions
from sciml.core.errors import InputError
from sciml.core.run.serialise import dump
from sciml.datasets.foreign import (
    Foreign,
    ForeignSamples,
    digests,
    foreign_grids,
    foreign_splits,
)
from sciml.datasets.loader import Shards
from sciml.datasets.samples import SPLITS
from sciml.datasets.statistics import FILE as STATISTICS
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import Manifest, existing, explained, open_shard, read_manifest

if TYPE_CHECKING:
    from sciml.datasets.family import Family
    from sciml.datasets.generate import Progress


def generate(
    family: Family,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Manifest:
    """Make, or go on making, the dataset of ``family`` in the folder ``out``; its manifest.

    ``engine``: ``local`` (``workers`` processes; 1 is this one), ``dask://host:port`` or ``mpi``.
    ``progress(stored, wanted, rejects)`` is called after every shard. Raises InputError for a
    foreign dataset, a disk too small or failing, or a family that does not converge.
    """
    from sciml.datasets.generate import generate as make

    return make(
        family,
        out,
        spec=_plain(family),
        versions=versions(),
        engine=engine,
        workers=workers,
        device=device,
        progress=progress,
    )


def make_dataset(family: Family, out: Path, *, engine: str, workers: int, device: str) -> None:
    """Generate with a progress bar (or plain lines), then say what there is."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from sciml.datasets.generate import count_stored

    total = sum(family.dataset.splits.values())
    console, start = Console(stderr=True), time.monotonic()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("generating", total=total)
        found: list[int] = []  # what an earlier run had stored

        def report(stored: int, wanted: int, rejects: int) -> None:
            found.append(stored)
            rate = (stored - found[0]) / (time.monotonic() - start)
            line = f"{rate:.3g} samples/s, {rejects} rejected"
            bar.update(task, completed=stored, description=line)
            if not console.is_terminal:
                progress_line(f"{stored} of {wanted}, {line}")

        manifest = generate(
            family, out, engine=engine, workers=workers, device=device, progress=report
        )
    line = f"{count_stored(manifest)} samples in {out}; {len(manifest.rejects)} rejected"
    progress_line(line)


def _plain(family: Family) -> dict[str, Any]:
    """As it can be read back from another folder."""
    if family.mesh is not None:
        path = str(Path(family.mesh.file).resolve())
        family = dataclasses.replace(family, mesh=dataclasses.replace(family.mesh, file=path))
    plain: dict[str, Any] = json.loads(json.dumps(dump(family)))
    return plain


def summarise(folder: Path) -> dict[str, str]:
    """The facts of a dataset, and ``samples.png`` with a few of its samples in its folder."""
    from sciml.app.figures_learning import plot_samples

    facts = describe_dataset(folder)
    if "inputs" in facts:
        facts["picture"] = str(folder / "samples.png")
        plot_samples(folder, facts["picture"])
    return facts


def describe_foreign(path: Path) -> dict[str, str]:
    """The facts of data that another program wrote, for a table.

    Raises InputError for what cannot be read, and for axes that cannot be told.
    """
    given = Foreign(path)
    splits = foreign_splits(given)
    readers = {
        split: ForeignSamples(
            dataclasses.replace(given, grid=foreign_grids(given, split)[-1]), split
        )
        for split in splits
    }
    first = readers[splits[0]]
    header, pool = first.header, "" if first.stated else " (of one pool, in this order)"
    spans = ", ".join(f"{axis[0]:.4g} to {axis[-1]:.4g}" for axis in first.axes)
    facts = {
        "layout": first.first.layout,
        "samples": ", ".join(f"{len(r):,} {split}" for split, r in readers.items()) + pool,
        "resolutions": ", ".join("x".join(map(str, g)) for g in foreign_grids(given, splits[0])),
        **{f"  {name}": _varies(first, name) for name in first.components},
        "inputs": ", ".join(header.inputs) or "not said: name them by inputs",
        "outputs": ", ".join(header.outputs) or "not said: name them by outputs",
        "boundary": ", ".join(f"{side} {kind}" for side, kind in header.boundary.items())
        or "not said: neumann, unless boundary names another",
        "points": f"{first.centring}s, from {spans}",
    }
    if len(first.time) > 1:
        facts["time"] = f"{len(first.time)} frames from {first.time[0]:.4g} to {first.time[-1]:.4g}"
    facts |= {f"sha256 {name}": value for name, value in digests(path).items()}
    return {**facts, "equation": "not said: nothing can be solved or certified by it"}


def _varies(samples: ForeignSamples, name: str) -> str:
    """How a field varies, and its channels."""
    if name in samples.header.scalars:
        return "one number per sample"
    kind = "constant" if name in samples.header.constant else "in time"
    sizes = " x ".join(map(str, samples.components[name]))
    return f"{kind}, {sizes} channels" if sizes else kind


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
    if "source" in manifest.spec:
        facts["source"] = f"{manifest.spec['source']['path']}, which states no equation"
    else:
        facts["true relative residual"] = f"{_worst(folder, manifest):.2e} at most"
    facts["rejected"] = _rejects(manifest)
    facts["files"] = f"{len(entries)}, {size / 1e6:,.4g} MB; all as they were written"
    return facts


def _place(folder: Path, reader: Shards) -> dict[str, str]:
    """The resolutions, or the mesh."""
    if reader.mesh is not None:
        mesh = reader.mesh.mesh
        what = f"{mesh.element} {mesh.kind.plural}"
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
