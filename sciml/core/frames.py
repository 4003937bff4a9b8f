"""Frames of a run in time: kept in memory, and in a file from which a killed run goes on.

The file is HDF5, one dataset per component of the state (u, and its velocity where the equation
has inertia) that grows by one frame at a time; every frame is flushed to the disk, and counts only
once its number has been written after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from sciml.core.errors import InputError


class Frames:
    """The states at ``times`` so far, each a tuple of tensors (*batch, *shape) of one dtype.

    With ``path`` they are also in that file; where it holds frames of the same ``fingerprint``
    (a text that identifies problem, grid and solver) these are taken over, and ``count`` says how
    many. Raises InputError where the file belongs to another run.
    """

    def __init__(
        self, times: Sequence[float], path: str | Path | None = None, fingerprint: str = ""
    ) -> None:
        self.times = tuple(times)
        self.path = None if path is None else Path(path)
        self.fingerprint = fingerprint
        self.states: list[tuple[torch.Tensor, ...]] = []
        if self.path is not None and self.path.exists():
            raise InputError(f"'{self.path}' exists already")

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.states)

    def append(self, *state: torch.Tensor) -> None:
        """Add the next frame."""
        self.states.append(tuple(part.detach().clone() for part in state))

    def stack(self, dimension: int) -> torch.Tensor:
        """The first components, (*batch, frames, *shape) for ``dimension`` trailing axes."""
        return torch.stack([state[0] for state in self.states], dim=-dimension - 1)
