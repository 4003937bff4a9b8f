"""What all trainings of preconditioners share: the matrices' check, and the course of a run.

In the folder of a run: the weights for use, ``STATE`` with the network, the optimiser and the
counts, and ``HISTORY`` with one row for each epoch or round.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, SolveError
from sciml.core.files import write_text
from sciml.core.linear import LinearMap
from sciml.solvers.learned.weights import FILE, read_stored, write_weights

# progress(epoch, epochs, row of the history)
Progress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
# What is trained on: matrices by name, or in an order.
Matrices: TypeAlias = Mapping[str, LinearMap] | Sequence[LinearMap]
STATE = "checkpoint.safetensors"
HISTORY = "history.csv"


def symmetric_matrices(kind: str, matrices: Matrices) -> dict[str, LinearMap]:
    """The matrices by name; InputError where there are none, or one is complex or not symmetric."""
    if isinstance(matrices, Mapping):
        named = dict(matrices)
    else:
        named = {f"matrix {k} of {len(matrices)}": A for k, A in enumerate(matrices, 1)}
    if not named:
        raise InputError(f"{kind} needs a matrix to be trained on", "data")
    for name, A in named.items():
        if A.dtype.is_complex or not A.symmetric:
            trouble = "complex" if A.dtype.is_complex else "not symmetric"
            raise unfit(kind, name, A, trouble)
    return named


def unfit(kind: str, name: str, A: LinearMap, trouble: str) -> InputError:
    """The error for a matrix that is none of those a preconditioner is made for."""
    return InputError(
        f"{name} ({A.size:,} unknowns) is {trouble}; {kind} is trained on real symmetric positive "
        "definite matrices",
        "data",
    )


def check_training(options: Any, counts: Sequence[str]) -> None:
    """InputError unless the fields named in ``counts`` are at least 1 and the rate is positive."""
    for name in counts:
        if getattr(options, name) < 1:
            raise InputError(
                f"{name} must be at least 1; got {getattr(options, name)}",
                f"preconditioner.{name}",
            )
    if not options.rate > 0:
        raise InputError(f"rate must be positive; got {options.rate:g}", "preconditioner.rate")


def falling(rate: float, step: int, steps: int) -> float:
    """A rate that falls along a line, to a twentieth after all ``steps``."""
    return rate * (1 - 0.95 * step / steps)


class Course:
    """A network on its way under Adam, taken up where the folder ``out`` says it was left.

    ``build`` makes the network, its random numbers those of ``settings["seed"]``; ``settings``:
    plain data that a run may not change; ``described``: the network's options, for its file.
    ``carried``: numbers of the caller's own, saved and restored with the rest. Raises InputError
    for a folder with another run.
    """

    def __init__(
        self,
        kind: str,
        out: str | Path,
        settings: Mapping[str, Any],
        build: Callable[[], nn.Module],
        described: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> None:
        self.kind, self.out, self.described = kind, Path(out), described
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
            torch.manual_seed(settings["seed"])
            self.network = build().to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=settings["rate"])
        self.steps, self.seconds, self.cpu_seconds = 0, 0.0, 0.0
        self.history: list[dict[str, float]] = []
        self.carried: dict[str, float] = {}
        if (self.out / STATE).is_file():
            self._restore()
        self._since = (time.perf_counter(), time.process_time())

    def run(
        self, total: int, epoch: Callable[[], Mapping[str, float]], progress: Progress | None
    ) -> Path:
        """What is left of ``total`` epochs; the file of the weights.

        ``epoch`` makes its steps and returns what its row of the history says of them. The state is
        saved with every row, and the weights are written unless an earlier ``valid_loss`` was less.
        """
        named = "epoch" if "epochs" in self.settings else "round"
        while len(self.history) < total:
            values = epoch()
            if not math.isfinite(values.get("valid_loss", 0.0)):
                raise SolveError(f"the validation loss is {values['valid_loss']}. Try a lower rate")
            row = self._record(named, values)
            if "valid_loss" not in row or row["valid_loss"] <= self._least():
                self._write()
            self.save()
            if progress is not None:
                progress(len(self.history), total, row)
        return self.out / FILE

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

    def _record(self, named: str, values: Mapping[str, float]) -> dict[str, float]:
        self._count_time()
        row = {
            named: len(self.history) + 1.0,
            "steps": float(self.steps),
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            **values,
        }
        self.history.append(row)
        return row

    def _least(self) -> float:
        return min(row["valid_loss"] for row in self.history)

    def _write(self) -> None:
        origin = {"training": self.settings, **self.history[-1]}
        write_weights(self.out / FILE, self.kind, self.described, self.network.state_dict(), origin)

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
