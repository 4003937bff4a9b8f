"""Training data without files: fresh batches, solved while they are asked for.

Batches hold verified samples only, in the order of their numbers, and no number comes twice,
however often the stream is iterated. A sample is its seed and its number, as on disk:
``attempt(family, seed, [i])`` makes it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sciml.datasets.family import Family
from sciml.datasets.loader import Times
from sciml.datasets.samples import attempt, check_yield
from sciml.datasets.statistics import Normaliser
from sciml.datasets.store import Shard


class Stream:
    """Batches ``{"x": (B, C, *grid), "y": (B, C, *grid)}``, float32 on ``device``.

    Channels are as in :class:`~sciml.datasets.loader.OperatorData`: a number is a constant channel,
    a field that varies in time has one channel for each frame in ``times``, a hole is 0. On a mesh
    the grid is (nodes,).
    ``length``: batches until an iteration ends (the next one goes on), for ever if None. ``first``:
    the number of the first sample. ``rejects``: numbers of those left out so far, and why.
    Iterating raises InputError where more samples are rejected than kept, and 20 at least.
    """

    def __init__(
        self,
        family: Family,
        seed: int = 0,
        batch: int = 16,
        device: str = "cpu",
        length: int | None = None,
        first: int = 0,
        normaliser: Normaliser | None = None,
        times: Times | None = None,
    ) -> None:
        self.family, self.seed, self.batch, self.device = family, seed, batch, device
        self.length, self.next, self.normaliser = length, first, normaliser
        self.times = times or Times()
        self.rejects: dict[int, str] = {}
        self.kept = 0
        self._waiting: dict[str, torch.Tensor] = {}

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        made = 0
        while self.length is None or made < self.length:
            yield self._batch()
            made += 1

    def _batch(self) -> dict[str, torch.Tensor]:
        """The next batch; samples beyond it wait for the one after."""
        while not self._waiting or len(self._waiting["x"]) < self.batch:
            self._solve()
        whole = self._waiting
        self._waiting = {name: value[self.batch :] for name, value in whole.items()}
        return {name: value[: self.batch] for name, value in whole.items()}

    def _solve(self) -> None:
        """Try the next ``batch`` numbers."""
        indices = range(self.next, self.next + self.batch)
        found = attempt(self.family, self.seed, indices, self.device)
        self.next = indices.stop
        self.rejects |= found.rejects
        if found.accepted is not None:
            self.kept += found.accepted.samples
            self._append(found.accepted)
        check_yield(self.rejects, self.kept)

    def _append(self, shard: Shard) -> None:
        times = self.times.resolved(len(shard.time))
        parts = {
            "x": self._channels(shard, shard.inputs, times.inputs),
            "y": self._channels(shard, shard.outputs, times.outputs),
        }
        for name, part in parts.items():
            before = [self._waiting[name]] if name in self._waiting else []
            self._waiting[name] = torch.cat([*before, part])

    def _channels(self, shard: Shard, names: Sequence[str], frames: Sequence[int]) -> torch.Tensor:
        channels: list[np.ndarray] = []
        labels: list[str] = []
        grid = shard.grid
        for name in names:
            if name in shard.scalars:
                lifted = shard.scalars[name].reshape(-1, *(1 for _ in grid))
                own = [np.broadcast_to(lifted, (shard.samples, *grid))]
            elif name in shard.constant:
                own = [shard.fields[name]]
            else:
                own = [shard.fields[name][:, frame] for frame in frames]
            channels += own
            labels += [name] * len(own)
        value = torch.from_numpy(np.stack(channels, axis=1).astype(np.float32))
        if self.normaliser is not None:
            self.normaliser.check(labels)
            value = self.normaliser.encode(value, labels, axis=1)
        return value.nan_to_num(nan=0.0).to(self.device)
