"""The batches of every epoch, as a function of (seed, epoch) and of nothing else.

Samples lie in one tensor on the device where they fit into half of its free memory, else in the
host's memory, else they are read from their files by worker processes, one batch ahead. The three
give the same batches. Those of a stream are solved when they are asked for: batch k, counted
through all epochs, has the numbers from 2 B k on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sciml.core.errors import InputError
from sciml.datasets.stream import Stream
from sciml.training.data import Stored, TensorData, TrainingData, on_grid, sample_bytes, stacked
from sciml.training.distributed import World

_HOST = torch.device("cpu")
_STATISTICS = 2**31  # bytes of samples that statistics are taken of; the same on every machine


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch; ``total`` counts the samples of all parts.

    samples: their numbers in the data; where x has more rows than there are numbers, the others do
    not count. points: where y is given, if not on the grid.
    """

    x: Tensor
    y: Tensor
    points: Tensor | None
    samples: Tensor
    total: int


class Batches(Protocol):
    """A source of batches."""

    @property
    def per_epoch(self) -> int:
        """How many there are in an epoch."""
        ...

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Those of an epoch from number ``first`` on."""
        ...

    def first(self) -> TensorData:
        """Samples in memory to take statistics of."""
        ...


def open_batches(
    data: TrainingData, batch: int, seed: int, dtype: torch.dtype, world: World
) -> Batches:
    """The source of batches for these data; see the module."""
    if isinstance(data.train, Stream):
        return Solving(data.train, batch, data.batches, dtype, world)
    held = hold(data.train, dtype, world.device)
    fields = on_grid(data.train)
    return Sampling(held, held if fields is data.train else fields, batch, seed, dtype, world)


def order(seed: int, epoch: int, count: int) -> Tensor:
    """A permutation of ``count`` samples; the same for ever."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    return torch.from_numpy(generator.permutation(count))


def hold(data: Stored, dtype: torch.dtype, device: torch.device) -> Stored:
    """``data`` as tensors on the device or in the host's memory, as it is where it fits neither."""
    need = len(data) * sample_bytes(data) * (2 if dtype == torch.float64 else 1)
    places = [p for p in dict.fromkeys((device, _HOST)) if need <= free_bytes(p) // 2]
    if not (places or isinstance(data, TensorData)):
        return data
    place, held = (places or [_HOST])[0], stacked(data, len(data))
    points = None if held.points is None else held.points.to(place, dtype)
    return TensorData(held.x.to(place, dtype), held.y.to(place, dtype), points)


def free_bytes(device: torch.device) -> int:
    """Free memory of a GPU, or of the host within the limit of this control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return max(0, min(_free_of_host(), _free_of_group()))


def _free_of_group() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{n}").read_text()) for n in ("max", "current"))
    except (OSError, ValueError):  # no such system, or the limit is the word max
        return sys.maxsize
    return limit - used


def _free_of_host() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line[:12] == "MemAvailable")
    except (OSError, StopIteration):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Sampling:
    """Stored samples in a new order every epoch."""

    def __init__(
        self,
        data: Stored,
        fields: Stored,
        batch: int,
        seed: int,
        dtype: torch.dtype,
        world: World,
    ) -> None:
        self.data, self.fields = data, fields
        self.batch, self.seed, self.dtype, self.world = batch, seed, dtype, world

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, the last of them perhaps smaller."""
        return -(-len(self.data) // self.batch)

    def first(self) -> TensorData:
        """The first samples, of at most 2 GiB, on the grid where possible."""
        fit = _STATISTICS // sample_bytes(self.fields)
        return stacked(self.fields, max(1, min(len(self.fields), fit)))

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of this epoch from number ``first`` on."""
        whole = order(self.seed, epoch, len(self.data)).split(self.batch)[first:]
        own = [part[self.world.share(len(part))] for part in whole]
        # DDP wants every process to compute something in every step.
        read = self._read([part if len(part) else part.new_zeros(1) for part in own])
        for part, chosen, (x, y, points) in zip(whole, own, read, strict=True):
            yield Batch(x, y, points, chosen, len(part))

    def _read(self, chosen: list[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        device = self.world.device
        if isinstance(self.data, TensorData):
            x, y, points = self.data.x, self.data.y, self.data.points
            for part in chosen:
                index = part.to(x.device)
                at = points[index] if points is not None and points.ndim == 3 else points
                at = at if at is None else at.to(device)
                yield x[index].to(device), y[index].to(device), at
            return
        workers = min(4, max(1, len(os.sched_getaffinity(0)) - 1))
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            self.data,
            batch_sampler=[part.tolist() for part in chosen],
            num_workers=workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the global one is part of a run's state
        )
        for found in loader:
            moved = {k: v.to(device, self.dtype, non_blocking=True) for k, v in found.items()}
            yield moved["x"], moved["y"], moved.get("points")


class Solving:
    """Fresh samples; batch k of B begins at number 2 B k, which leaves as many for rejects."""

    def __init__(
        self, stream: Stream, batch: int, batches: int, dtype: torch.dtype, world: World
    ) -> None:
        self.stream, self.batch, self.dtype, self.world = stream, batch, dtype, world
        self.per_epoch = batches
        if batch < world.size:
            raise InputError(
                f"{world.size} processes need batches of at least so many; got {batch}",
                "training.batch",
            )

    def first(self) -> TensorData:
        """The first 64 samples, or batch where that is larger."""
        found = self._solve(0, max(64, self.batch), _HOST)
        return TensorData(found["x"], found["y"])

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of this epoch from number ``first`` on."""
        share = self.world.share(self.batch)
        count = share.stop - share.start
        for k in range(epoch * self.per_epoch + first, (epoch + 1) * self.per_epoch):
            start = 2 * self.batch * k + share.start
            found = self._solve(start, count, self.world.device)
            x, y = (found[name].to(self.dtype) for name in ("x", "y"))
            yield Batch(x, y, None, torch.arange(start, start + count), self.batch)

    def _solve(self, first: int, count: int, device: torch.device) -> dict[str, Tensor]:
        stream = self.stream
        fresh = Stream(stream.family, stream.seed, count, str(device), 1, first, times=stream.times)
        return next(iter(fresh))
