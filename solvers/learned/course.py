"""The course of a training: its steps, its time, its history, and a state to go on from.

In the folder of a run: the weights for use, ``STATE`` with the network, the optimiser and the
counts, and ``HISTORY`` with one row for each epoch or round.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, SolveError
from sciml.core.files import write_text
from sciml.solvers.learned.weights import FILE, read_stored, write_weights

# progress(epoch, epochs, row of the history)
Progress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
STATE = "checkpoint.safetensors"
HISTORY = "history.csv"


class Course:
    """A network on its way under Adam, taken up where the folder ``out`` says it was left.

    ``settings``: plain data that a run may not change. ``carried``: numbers of the caller's own,
    saved and restored with the rest. Raises InputError for a folder with another run.
    """

    def __init__(
        self, kind: str, out: Path, settings: Mapping[str, Any], network: nn.Module, rate: float
    ) -> None:
        self.kind, self.out, self.network = kind, out, network
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.optimiser = torch.optim.Adam(network.parameters(), lr=rate)
        self.steps, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.history: list[dict[str, float]] = []
        self.carried: dict[str, float | None] = {}
        if (out / STATE).is_file():
            self._restore()
        self._since = (time.perf_counter(), time.process_time())

    def descend(self, loss: Tensor, *, rate: float | None = None, clip: float = math.inf) -> float:
        """One step of Adam; the loss. Raises SolveError where that is no number."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise SolveError(
                f"the loss is {value} at step {self.steps + 1}; the last good state is in "
                f"'{self.out}'. Try a lower rate"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = group["lr"] if rate is None else rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if clip < math.inf:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip)
        self.optimiser.step()
        self.steps += 1
        return value

    def record(self, name: str, **values: float) -> dict[str, float]:
        """A row of the history: the number of this epoch (or ``name``), steps, time, values."""
        self._count_time()
        row = {
            name: len(self.history) + 1.0,
            "steps": float(self.steps),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            **values,
        }
        self.history.append(row)
        return row

    def write(self, options: Mapping[str, Any]) -> Path:
        """The weights as they are now, for use; their file."""
        origin = {"training": self.settings, **self.history[-1]}
        write_weights(self.out / FILE, self.kind, options, self.network.state_dict(), origin)
        return self.out / FILE

    def save(self) -> None:
        """The state and the history."""
        self._count_time()
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        counts = {name: getattr(self, name) for name in _COUNTS}
        write_weights(self.out / STATE, f"{self.kind} training", self.settings, tensors, counts)
        if self.history:
            rows = [[f"{value:.9g}" for value in row.values()] for row in self.history]
            lines = [",".join(row) for row in [list(self.history[0]), *rows]]
            write_text(self.out / HISTORY, "\n".join(lines) + "\n")

    def _count_time(self) -> None:
        now = (time.perf_counter(), time.process_time())
        self.seconds += now[0] - self._since[0]
        self.cpu_seconds += now[1] - self._since[1]
        self._since = now

    def _restore(self) -> None:
        stored = read_stored(self.out / STATE, f"{self.kind} training")
        if set(stored.provenance) != set(_COUNTS):
            raise InputError(
                f"'{self.out / STATE}' was left by another version; name another folder", "out"
            )
        changed = [
            f"{name} was {stored.options.get(name)!r}, now {value!r}"
            for name, value in self.settings.items()
            if stored.options.get(name) != value
        ]
        if changed:
            raise InputError(
                f"'{self.out}' holds a run with other settings: {'; '.join(changed)}. Name another "
                "folder",
                "out",
            )
        network, state = dict[str, Tensor](), dict[int, dict[str, Tensor]]()
        for name, value in stored.tensors.items():
            owner, _, key = name.partition(".")
            if owner == "network":
                network[key] = value
            else:
                index, _, entry = key.partition(".")
                state.setdefault(int(index), {})[entry] = value
        self.network.load_state_dict(network)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        for name in _COUNTS:
            setattr(self, name, stored.provenance[name])


_COUNTS = ("steps", "seconds", "cpu_seconds", "history", "carried")
