"""Samples of a dataset on disk, for training: functions on grids, or at points.

Nothing is read before it is asked for. Every process has its own handles, so that workers of a
DataLoader, spawned or forked, share none. A trajectory gives as many samples as there are windows
of its frames.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import AXES
from sciml.datasets.foreign import Foreign, ForeignSamples, foreign_splits, is_foreign
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import (
    MANIFEST,
    Entry,
    existing,
    explained,
    open_shard,
    read_header,
    read_manifest,
    read_unstructured,
)

_OPEN = 128  # files that a process keeps open


@dataclass(frozen=True)
class Times:
    """Which frames of a trajectory are input and which output, relative to each of ``starts``.

    Left as it is: the first frame in, the last one out. Frames below 0 count from the end.
    """

    inputs: tuple[int, ...] = (0,)
    outputs: tuple[int, ...] = (-1,)
    starts: tuple[int, ...] = (0,)

    @classmethod
    def windows(cls, frames: int, inputs: int = 1, outputs: int = 1) -> Times:
        """Every run of ``inputs`` frames in and the next ``outputs`` out, of ``frames`` in all."""
        starts = tuple(range(frames - inputs - outputs + 1))
        return cls(tuple(range(inputs)), tuple(range(inputs, inputs + outputs)), starts)

    def resolved(self, frames: int) -> Times:
        """With frames counted from the start; raises InputError for one that is not there."""
        parts = [tuple(f + frames if f < 0 else f for f in p) for p in (self.inputs, self.outputs)]
        if not self.starts or not self.outputs:
            raise InputError(f"no window of these frames fits into {frames}")
        known = [f + start for part in parts for f in part for start in self.starts]
        if min(known) < 0 or max(known) >= frames:
            raise InputError(f"there are {frames} frames; got frame {max(known)} in {self}")
        return Times(parts[0], parts[1], self.starts)


@dataclass(frozen=True)
class Channel:
    """One channel: a field or scalar, the index of its component, and its frame, where it has."""

    field: str
    component: tuple[int, ...] = ()
    frame: int | None = None

    @property
    def name(self) -> str:
        """``u``, or ``velocity.0`` for a component, counted through."""
        return ".".join((self.field, *map(str, self.component)))


class Shards:
    """The shards of one split, read sample by sample; raises InputError for a damaged one."""

    def __init__(self, folder: Path, split: str) -> None:
        self.paths, counts = _files(folder, split)
        self.ends = list(accumulate(counts))
        self._opened: OrderedDict[int, dict[str, h5py.Dataset]] = OrderedDict()
        self._process = os.getpid()
        with explained(self.paths[0]), open_shard(self.paths[0]) as file:
            self.header = read_header(file)
            self.axes = tuple(file[name][()] for name in AXES if name in file)
            self.mesh = read_unstructured(file)
            self.time = file["time"][()]
            fields = {name: file[self.header.place(name)] for name in self.header.orders}
            self.components = {
                name: entry.shape[entry.ndim - self.header.orders[name] :]
                for name, entry in fields.items()
            }

    def __len__(self) -> int:
        return self.ends[-1]

    def read(self, sample: int, spans: Mapping[str, slice | None]) -> dict[str, np.ndarray]:
        """Fields and scalars of one sample; of those with a slice, these frames."""
        shard = bisect_right(self.ends, sample)
        row = sample - (self.ends[shard - 1] if shard else 0)
        with explained(self.paths[shard]):
            entries = self._open(shard)
            return {
                name: entries[name][row] if span is None else entries[name][row, span]
                for name, span in spans.items()
            }

    def _open(self, shard: int) -> Mapping[str, h5py.Dataset]:
        if self._process != os.getpid():  # forked: the parent's handles are not ours
            self._opened, self._process = OrderedDict(), os.getpid()
        if shard in self._opened:
            self._opened.move_to_end(shard)
            return self._opened[shard]
        if len(self._opened) >= _OPEN:
            self._opened.popitem(last=False)[1]["sample"].file.close()
        file = open_shard(self.paths[shard])
        if file["sample"].shape[0] != self.ends[shard] - (self.ends[shard - 1] if shard else 0):
            raise ValueError("it has not the number of samples that the manifest says")
        names = (*self.header.orders, *self.header.scalars)
        entries = {name: file[self.header.place(name)] for name in names}
        self._opened[shard] = {**entries, "sample": file["sample"]}
        return self._opened[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": OrderedDict()}


class OperatorData(Dataset[dict[str, torch.Tensor]]):
    """Inputs and outputs of one split: ``{"x": (C, *grid), "y": (C, *grid)}``, float32.

    On a mesh the grid is (nodes,).

    ``folder``: a dataset's, or that of a further resolution in it; or data that another program
    wrote (:mod:`sciml.datasets.foreign`), a file or folder. ``inputs``, ``outputs``: names
    of fields or scalars, the dataset's own if left out; a scalar is a constant channel. Channels
    are ordered by name, component, then frame (``input_channels``, ``output_channels``).
    ``subsample``: every so many points. ``coordinates``: channels x, y, z after the inputs.
    ``normaliser``: applied to both. ``times``: a :class:`Times`. Where a field is NaN, in a hole,
    it is 0 after that. Raises InputError for unknown names and missing or damaged files.
    """

    def __init__(
        self,
        folder: str | Path | Foreign,
        split: str,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        subsample: int = 1,
        coordinates: bool = False,
        normaliser: Normaliser | None = None,
        times: Times | None = None,
    ) -> None:
        given = at_home(folder)
        self.folder = given.path if isinstance(given, Foreign) else given
        self.reader: Shards | ForeignSamples = (
            ForeignSamples(given, split) if isinstance(given, Foreign) else Shards(given, split)
        )
        header = self.reader.header
        self.time = self.reader.time
        self.times = (times or Times()).resolved(len(self.time))
        self.cut, self._axes = self._subsampled(subsample)
        self.inward = self._channels(tuple(inputs) or header.inputs, self.times.inputs)
        self.outward = self._channels(tuple(outputs) or header.outputs, self.times.outputs)
        self.coordinates = self._coordinates() if coordinates else ()
        names = AXES[: len(self.coordinates)]
        self.input_channels = (*(c.name for c in self.inward), *names)
        self.output_channels = tuple(c.name for c in self.outward)
        self.normaliser = normaliser
        if normaliser is not None:
            normaliser.check([channel.field for channel in (*self.inward, *self.outward)])
        self._spans = _spans((*self.inward, *self.outward))
        self._factors = {part: self._columns(part) for part in (self.inward, self.outward)}

    @property
    def axes(self) -> tuple[np.ndarray, ...]:
        """The grid's coordinates, one vector each; raises InputError on a mesh."""
        if self.reader.mesh is not None:
            raise InputError(
                f"'{self.folder}' is on a mesh, this is for grids; PointData reads values at nodes"
            )
        return self._axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The grid's points along each axis, or (nodes,)."""
        mesh = self.reader.mesh
        return tuple(map(len, self._axes)) if mesh is None else (len(mesh.points),)

    @property
    def points(self) -> np.ndarray:
        """Where the values are, (points, d) float32, in the order of a flattened channel."""
        return np.stack([c.ravel() for c in self._coordinates()], axis=-1)

    def __len__(self) -> int:
        return len(self.reader) * len(self.times.starts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        sample, window = divmod(index % len(self), len(self.times.starts))
        start = self.times.starts[window]
        spans = {
            name: None if span is None else slice(span.start + start, span.stop + start)
            for name, span in self._spans.items()
        }
        read = self.reader.read(sample, spans)
        x = self._filled(self.inward, read, self.coordinates)
        y = self._filled(self.outward, read, ())
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    def _subsampled(self, step: int) -> tuple[tuple[slice, ...], tuple[np.ndarray, ...]]:
        """What is kept of every axis of the arrays, and the grid's axes that this leaves."""
        if self.reader.mesh is not None:
            if step != 1:
                raise InputError(f"subsample is for grids; '{self.folder}' is on a mesh")
            return (slice(None),), ()
        cut = tuple(_every(len(axis), step) for axis in self.reader.axes)
        return cut, tuple(a[c] for a, c in zip(self.reader.axes, cut, strict=True))

    def _coordinates(self) -> tuple[np.ndarray, ...]:
        """x, y, z of the shape of a channel, float32."""
        mesh = self.reader.mesh
        if mesh is not None:
            return tuple(mesh.points.T.astype(np.float32))
        return tuple(np.meshgrid(*self._axes, indexing="ij"))

    def _channels(self, names: Sequence[str], frames: Sequence[int]) -> tuple[Channel, ...]:
        header, found = self.reader.header, []
        for name in names:
            if name in header.scalars:
                found.append(Channel(name))
                continue
            if name not in header.orders:
                known = (*header.orders, *header.scalars)
                raise InputError(f"'{self.folder}' has no '{name}'{did_you_mean(name, known)}")
            own = (None,) if name in header.constant else tuple(frames)
            components = np.ndindex(self.reader.components[name])
            found += [Channel(name, component, f) for component in components for f in own]
        if not found:
            raise InputError(f"'{self.folder}' does not say what is input and output; name them")
        return tuple(found)

    def _columns(self, channels: Sequence[Channel]) -> tuple[np.ndarray, np.ndarray] | None:
        """Mean and deviation of the channels, (C, 1, ...)."""
        if self.normaliser is None:
            return None
        pair = self.normaliser.factors([channel.name for channel in channels])
        form = (-1, *(1 for _ in self.shape))
        mean, std = (part.astype(np.float32).reshape(form) for part in pair)
        return mean, std

    def _filled(
        self,
        channels: tuple[Channel, ...],
        read: Mapping[str, np.ndarray],
        coordinates: Sequence[np.ndarray],
    ) -> np.ndarray:
        out = np.empty((len(channels) + len(coordinates), *self.shape), dtype=np.float32)
        for row, channel in zip(out, channels, strict=False):
            values = read[channel.field]
            span = self._spans[channel.field]
            if span is not None and channel.frame is not None:
                values = values[channel.frame - span.start]
            at: tuple[Any, ...] = (*self.cut, *channel.component)
            row[...] = values[at] if values.ndim else values
        values = out[: len(channels)]
        factors = self._factors[channels]
        if factors is not None:
            values -= factors[0]
            values /= factors[1]
        if any(channel.field in self.reader.header.holes for channel in channels):
            np.nan_to_num(values, copy=False, nan=0.0)
        out[len(channels) :] = coordinates if coordinates else 0.0
        return out


class PointData(Dataset[dict[str, torch.Tensor]]):
    """Functions at points, for DeepONet: ``{"x": (C, *grid), "points": (P, d), "y": (C, P)}``.

    On a mesh ``x`` is (C, nodes). ``points``: how many of the grid's points, or of the nodes, drawn
    without replacement; all of them if left out. Aligned data has the same points for all functions
    (their coordinates are also ``grid_points``); otherwise sample i draws its own by (seed, i).
    With several frames as output, a point is (x, ..., t), and frames are no channels.
    """

    def __init__(
        self, data: OperatorData, points: int | None = None, aligned: bool = True, seed: int = 0
    ) -> None:
        self.data = data
        self.aligned = aligned
        self.seed = seed
        frames = data.times.outputs
        timed = len(frames) > 1 and all(c.frame is not None for c in data.outward)
        self.frames = len(frames) if timed else 1
        self.grid_points = data.points
        if timed:
            times = np.tile(data.time[list(frames)], len(data.points))[:, None]
            each = np.repeat(data.points, self.frames, axis=0)
            self.grid_points = np.concatenate([each, times], axis=1).astype(np.float32)
        self.points = len(self.grid_points) if points is None else points
        if not 1 <= self.points <= len(self.grid_points):
            raise InputError(f"there are {len(self.grid_points)} points; {points} were asked for")
        self.output_channels = data.output_channels[:: self.frames]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sample = self.data[index]
        chosen = self.chosen(index % len(self))
        y = sample["y"]
        if self.frames > 1:
            y = y.reshape(-1, self.frames, *self.data.shape).movedim(1, -1)
        points = torch.from_numpy(self.grid_points[chosen])
        return {"x": sample["x"], "points": points, "y": y.flatten(1)[:, chosen]}

    def chosen(self, index: int) -> np.ndarray:
        """The numbers of the points of sample ``index``, in order."""
        total = len(self.grid_points)
        if self.points == total:
            return np.arange(total)
        key = (self.seed,) if self.aligned else (self.seed, index)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        return np.sort(generator.choice(total, self.points, replace=False))


def _files(folder: Path, split: str) -> tuple[list[Path], list[int]]:
    """The split's files and their numbers of samples; none of them is opened."""
    home, here = _entries(folder)
    found = [entry for entry in here if entry.split == split]
    if not found:
        known = {entry.split for entry in here}
        raise InputError(f"'{folder}' has no split '{split}'{did_you_mean(split, known)}")
    return [existing(home, entry) for entry in found], [entry.samples for entry in found]


def at_home(folder: str | Path | Foreign) -> Path | Foreign:
    """A dataset's folder as it is; what is there in its place as the work of another program."""
    if isinstance(folder, Foreign):
        return folder
    path = Path(folder)
    return Foreign(path) if is_foreign(path) else path


def stored_splits(folder: Path | Foreign) -> tuple[str, ...]:
    """The splits that have samples in a dataset's folder, or in that of a further resolution."""
    given = at_home(folder)
    if isinstance(given, Foreign):
        return foreign_splits(given)
    folder = given
    return tuple(dict.fromkeys(entry.split for entry in _entries(folder)[1]))


def _entries(folder: Path) -> tuple[Path, list[Entry]]:
    """The dataset's own folder, and what its manifest says of the files at this resolution."""
    inner = folder.name.startswith("at-") and not (folder / MANIFEST).is_file()
    home, prefix = (folder.parent, f"{folder.name}/") if inner else (folder, "")
    manifest = read_manifest(home)
    if manifest is None:
        raise InputError(f"'{folder}' is no dataset: no {MANIFEST}; sciml generate makes one")
    return home, [e for e in manifest.shards if e.samples and e.path.startswith(f"{prefix}data/")]


def _every(points: int, step: int) -> slice:
    """Every ``step``-th of so many points: both ends kept, or of cells the middle ones."""
    if step >= 1 and (points - 1) % step == 0:
        return slice(None, None, step)
    if step >= 1 and points % step == 0:
        return slice((step - 1) // 2, None, step)
    fitting = [s for s in range(1, points) if (points - 1) % s == 0 or points % s == 0]
    raise InputError(f"subsample {step} does not fit {points} points; these do: {fitting}")


def _spans(channels: Sequence[Channel]) -> dict[str, slice | None]:
    """The run of frames that is read of each field, from the first needed to the last."""
    frames: dict[str, list[int]] = {}
    for channel in channels:
        own = frames.setdefault(channel.field, [])
        if channel.frame is not None:
            own.append(channel.frame)
    return {n: slice(min(own), max(own) + 1) if own else None for n, own in frames.items()}
