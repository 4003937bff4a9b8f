"""Samples of a dataset on disk, for training: functions on grids, or at points.

Nothing is read before it is asked for. Every process has its own handles, so that workers of a
DataLoader, spawned or forked, share none. A trajectory gives as many samples as there are windows
of its frames.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch.utils.data import Dataset

from sciml.core.errors import InputError, did_you_mean
from sciml.core.grid import AXES
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import (
    MANIFEST,
    Entry,
    Header,
    existing,
    explained,
    open_shard,
    read_header,
    read_manifest,
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


class OperatorData(Dataset[dict[str, torch.Tensor]]):
    """Inputs and outputs of one split: ``{"x": (C, *grid), "y": (C, *grid)}``, float32.

    ``folder``: a dataset's, or that of a further resolution in it. ``inputs``, ``outputs``: names
    of fields or scalars, the dataset's own if left out; a scalar is a constant channel. Channels
    are ordered by name, component, then frame (``input_channels``, ``output_channels``).
    ``subsample``: every so many points. ``coordinates``: channels x, y, z after the inputs.
    ``normaliser``: applied to both. ``times``: a :class:`Times`. Where a field is NaN, in a hole,
    it is 0 after that. Raises InputError for unknown names and missing or damaged files.
    """

    def __init__(
        self,
        folder: str | Path,
        split: str,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        subsample: int = 1,
        coordinates: bool = False,
        normaliser: Normaliser | None = None,
        times: Times | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.split = split
        self.paths, counts = _files(self.folder, split)
        self.ends = list(accumulate(counts))
        self._handles: OrderedDict[int, h5py.File] = OrderedDict()
        self._process = os.getpid()
        with explained(self.paths[0]), open_shard(self.paths[0]) as file:
            self.header = read_header(file)
            axes = [file[name][()] for name in AXES if name in file]
            self.time = file["time"][()]
            shapes = {n: file[self.header.place(n)].shape for n in self.header.orders}
        self.cut = tuple(_every(len(axis), subsample) for axis in axes)
        self.axes = tuple(a[c] for a, c in zip(axes, self.cut, strict=True))
        self.inputs = tuple(inputs) or self.header.inputs
        self.outputs = tuple(outputs) or self.header.outputs
        self.times = (times or Times()).resolved(len(self.time))
        self.inward = self._channels(self.inputs, self.times.inputs, shapes)
        self.outward = self._channels(self.outputs, self.times.outputs, shapes)
        self.coordinates = (
            np.stack(np.meshgrid(*self.axes, indexing="ij")) if coordinates else None
        )
        names = AXES[: len(axes)] if coordinates else ()
        self.input_channels = (*(c.name for c in self.inward), *names)
        self.output_channels = tuple(c.name for c in self.outward)
        self.normaliser = normaliser
        if normaliser is not None:
            normaliser.check([c.name.partition(".")[0] for c in (*self.inward, *self.outward)])
        self._scales = [self._factors(c.name for c in part) for part in (self.inward, self.outward)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The grid's points along each axis."""
        return tuple(map(len, self.axes))

    def __len__(self) -> int:
        return self.ends[-1] * len(self.times.starts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        trajectory, window = divmod(index % len(self), len(self.times.starts))
        start = self.times.starts[window]
        shard = bisect_right(self.ends, trajectory)
        with explained(self.paths[shard]):
            read = self._read(shard, trajectory - self.ends[shard], start)
        x = self._filled(self.inward, read, start, self._scales[0], self.coordinates)
        y = self._filled(self.outward, read, start, self._scales[1])
        return {"x": torch.from_numpy(x), "y": torch.from_numpy(y)}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handles": OrderedDict()}

    def _channels(
        self, names: Sequence[str], frames: Sequence[int], shapes: dict[str, tuple[int, ...]]
    ) -> tuple[Channel, ...]:
        header, found = self.header, []
        for name in names:
            if name in header.scalars:
                found.append(Channel(name))
                continue
            if name not in header.orders:
                known = (*header.orders, *header.scalars)
                raise InputError(f"'{self.folder}' has no '{name}'{did_you_mean(name, known)}")
            components = np.ndindex(shapes[name][len(shapes[name]) - header.orders[name] :])
            own = (None,) if name in header.constant else tuple(frames)
            found += [Channel(name, component, f) for component in components for f in own]
        if not found:
            raise InputError(f"'{self.folder}' does not say what is input and output; name them")
        return tuple(found)

    def _factors(self, names: Any) -> tuple[np.ndarray, np.ndarray]:
        names = list(names)
        empty = Normaliser({}, {})
        mean, std = (self.normaliser or empty).factors(names)
        return mean.astype(np.float32), (1 / std).astype(np.float32)

    def _read(self, shard: int, row: int, start: int) -> dict[str, tuple[int, np.ndarray]]:
        """The frames that are needed of each field, and the number of the first."""
        file, read = self._open(shard), {}
        spans: dict[str, list[int]] = {}
        for channel in (*self.inward, *self.outward):
            span = spans.setdefault(channel.field, [])
            if channel.frame is not None:
                span.append(channel.frame + start)
        row = row if row >= 0 else row + file["sample"].shape[0]
        for name, span in spans.items():
            entry = file[self.header.place(name)]
            if span:
                read[name] = min(span), entry[row, min(span) : max(span) + 1]
            else:
                read[name] = 0, entry[row]
        return read

    def _open(self, shard: int) -> h5py.File:
        if self._process != os.getpid():  # forked: the parent's handles are not ours
            self._handles, self._process = OrderedDict(), os.getpid()
        if shard in self._handles:
            self._handles.move_to_end(shard)
            return self._handles[shard]
        if len(self._handles) >= _OPEN:
            self._handles.popitem(last=False)[1].close()
        file = self._handles[shard] = open_shard(self.paths[shard])
        return file
