"""The loop by which networks are trained, its record, and the folder that both are kept in.

    theta <- step(theta, grad loss_k(theta), rate_k),      k = 0, 1, ... over all epochs,

for what a :class:`Task` says the losses and rates are: of an operator on data, of a preconditioner
on matrices. In the folder of a run:

    checkpoint.safetensors   the network, the optimiser's moments, what was measured in the
                             unfinished epoch, torch's generators, the history, and the settings
                             with which a run that wants to go on is compared; under a hash
    history.csv              a row per epoch
    and what the task keeps of the network.

Each is written whole or not at all. A run that goes on from its checkpoint does what it would have
done, on a CPU to the last bit.
"""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from sciml.core.disk import write_text
from sciml.core.errors import InputError, SolveError
from sciml.core.run.serialise import differences
from sciml.core.run.weights import read_file, tensors_of, write_weights

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.csv"
TRAINING = "training in"  # what a run does to its folder
_KIND = "training run"
_LOOK = 16  # steps between two looks at the losses on a GPU, each of which waits for it
_COUNTS = ("epoch", "steps", "seconds", "cpu_seconds", "rate")
_POSITION = ("epoch", "step", "seconds", "cpu_seconds", "history")

# progress(epoch, epochs, row of the history)
EpochProgress: TypeAlias = Callable[[int, int, Mapping[str, float]], None]


class TrainingError(SolveError):
    """Raised where the loss or a weight stops being a number; says when and on what."""


class Step(NamedTuple):
    """One step of a training.

    ``loss``: a scalar with a graph. ``measured``: scalars for the task's columns, the loss first.
    ``where``: what the step was taken on, for an error.
    """

    loss: Tensor
    measured: tuple[Tensor, ...]
    where: Callable[[], str]


class Task(Protocol):
    """What one training has of its own."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of the history: what every step measures, the loss first."""

    @property
    def validated(self) -> tuple[str, ...]:
        """Of the history: what is measured after an epoch."""

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""

    def steps(self, epoch: int, first: int) -> Iterator[Step]:
        """Those of an epoch from number ``first`` on, a function of the seed and these alone.

        Each is asked for after the one before was taken.
        """

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted through all epochs."""

    def validate(self, epoch: int) -> Mapping[str, float]:
        """What is measured after so many epochs."""

    def keep(self, row: Mapping[str, float], rows: Sequence[Mapping[str, float]]) -> bool:
        """Write what is worth keeping of the network; whether the state is to go with it."""


class TrainingRun:
    """A network on its way, taken up where the folder ``out`` says it was left.

    ``settings``: plain data that a run may not change. ``free``: the keys of those that it may, or
    why one may not be. ``checkpoint``: seconds between two states.
    ``clip``: the largest norm of the gradient; a longer one is scaled to it. ``writes``: whether
    this process is the one that writes. ``board``: curves for TensorBoard too. Raises InputError
    for a folder with another run, or a damaged one.
    """

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        task: Task,
        settings: Mapping[str, Any],
        out: Path | None,
        *,
        free: Mapping[str, str] | None = None,
        checkpoint: float = math.inf,
        clip: float | None = None,
        writes: bool = True,
        board: bool = False,
    ) -> None:
        self.network, self.optimiser, self.task = network, optimiser, task
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        self.free = free or {}
        self.out, self.writes = out, writes and out is not None
        self.checkpoint, self.clip, self.board = checkpoint, clip, board
        self.device = next(network.parameters()).device
        self.measured = torch.zeros(
            len(task.columns), task.per_epoch, dtype=torch.float64, device=self.device
        )
        self.epoch, self.step, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0
        self.history: list[dict[str, float]] = []
        if out is not None and (out / CHECKPOINT).is_file():
            self._restore(out / CHECKPOINT)
        self.recent: list[Step] = []  # not looked at yet
        self.saved, self.saved_at = time.monotonic(), (0, -1)
        self.clock = (0.0, 0.0)

    def finish(self, epochs: int, progress: EpochProgress | None = None) -> None:
        """What is left of so many epochs; the state is written at the end.

        Raises TrainingError where a loss or weight is no longer a number; the last state before is
        kept. Raises InputError where more epochs are done already.
        """
        if self.epoch > epochs:
            raise InputError(
                f"'{self.out}' has {self.epoch} epochs done already; name at least so many",
                "training.epochs",
            )
        table = None
        if self.out is not None and self.writes:
            names = (*_COUNTS, *self.task.columns, *self.task.validated)
            table = _History(self.out, names, self.history, self.board)
        while self.epoch < epochs:
            row = self._epoch()
            if table is not None:
                table.add(row)
                if self.task.keep(row, self.history):
                    self.save()
            if progress is not None:
                progress(self.epoch, epochs, row)
        self._check()
        self.optimiser.zero_grad(set_to_none=True)
        if table is not None:
            if self.saved_at != (self.epoch, self.step):
                self.save()
            table.close()

    def save(self) -> None:
        """Write the state, unless a weight is not a number: then raise TrainingError."""
        assert self.out is not None
        self._check()
        tensors = {f"network.{name}": value for name, value in tensors_of(self.network).items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        tensors["measured"] = self.measured
        tensors |= {f"generator.{name}": value for name, value in _generators(self.device).items()}
        packed = {n: _real(v.detach()).cpu().contiguous().clone() for n, v in tensors.items()}
        position = {name: getattr(self, name) for name in _POSITION}
        write_weights(self.out / CHECKPOINT, _KIND, self.settings, packed, position)
        self.saved, self.saved_at = time.monotonic(), (self.epoch, self.step)

    def _epoch(self) -> dict[str, float]:
        """What is left of an epoch; its row of the history."""
        look = 1 if self.device.type == "cpu" else _LOOK
        self.network.train()
        self._start_clock()
        for step in self.task.steps(self.epoch, self.step):
            self._take(step)
            self.step += 1
            if len(self.recent) >= look:
                self._look()
            if self.writes and time.monotonic() - self.saved >= self.checkpoint:
                self._stop_clock()
                self.save()
                self._start_clock()
        self._look()
        means = [float(part.mean()) for part in self.measured]
        self._stop_clock()
        done, steps = self.epoch + 1, (self.epoch + 1) * self.task.per_epoch
        row = {
            "epoch": done,
            "steps": steps,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "rate": self.task.rate(steps - 1),
            **dict(zip(self.task.columns, means, strict=True)),
            **self.task.validate(done),
        }
        self.measured.zero_()
        self.epoch, self.step = done, 0
        self.history.append(row)
        return row

    def _take(self, step: Step) -> None:
        """One step of the optimiser."""
        rate = self.task.rate(self.epoch * self.task.per_epoch + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        if step.loss.requires_grad:  # else the network was solved for, and is measured
            step.loss.backward()
        if self.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.clip)
        for part, value in zip(self.measured, step.measured, strict=True):
            part[self.step] = value
        self.recent.append(Step(step.loss.detach(), step.measured, step.where))
        self.optimiser.step()

    def _look(self) -> None:
        """Raise TrainingError if one of the latest losses is not a number."""
        first, end = self.step - len(self.recent), self.step
        good = self.measured[0, first:end].isfinite()
        if not good.all():
            number = int((~good).nonzero()[0])
            where = self.recent[number].where()
            raise TrainingError(
                f"the loss is {float(self.measured[0, first + number])} in epoch "
                f"{self.epoch + 1}, batch {first + number + 1} of {self.task.per_epoch}, {where}; "
                f"{self._kept}. Try a lower rate or clip the gradient"
            )
        self.recent.clear()

    @property
    def _kept(self) -> str:
        return "nothing was kept" if self.out is None else f"the last good state is in '{self.out}'"

    def _check(self) -> None:
        """Raise TrainingError if a loss or a weight is not a number."""
        self._look()
        for name, value in tensors_of(self.network).items():
            if not value.isfinite().all():
                raise TrainingError(
                    f"'{name}' is not finite after epoch {self.epoch}, batch {self.step}; "
                    f"{self._kept}"
                )

    def _start_clock(self) -> None:
        self.clock = (time.perf_counter(), time.process_time())

    def _stop_clock(self) -> None:
        self.seconds += time.perf_counter() - self.clock[0]
        self.cpu_seconds += time.process_time() - self.clock[1]

    def _restore(self, path: Path) -> None:
        """Put the state in a file back in place."""
        try:
            stored = read_file(path, _KIND)
        except InputError as error:
            raise InputError(
                f"'{path}' is damaged, or no state of a training run: {error.message}", "out"
            ) from None
        changed = [
            f"{key} was {old!r}, now {new!r}" + (f" ({why})" if (why := self.free.get(key)) else "")
            for key, old, new in differences(stored.options, self.settings)
            if self.free.get(key) != ""
        ]
        if changed:
            raise InputError(
                f"'{path.parent}' holds a run with other settings: {'; '.join(changed)}. Name "
                "another folder",
                "out",
            )
        tensors = stored.tensors
        try:
            with torch.no_grad():
                for name, value in tensors_of(self.network).items():
                    _real(value).copy_(tensors[f"network.{name}"])
                self.measured.copy_(tensors["measured"])
            _restore_optimiser(self.optimiser, tensors)
            _restore_generators(self.device, tensors)
            for name in _POSITION:
                setattr(self, name, stored.provenance[name])
        except (KeyError, RuntimeError, TypeError) as error:
            raise InputError(f"'{path}' does not fit this network: {error}", "out") from None


class _History:
    """The table of a run in its folder, begun with the rows that there were before."""

    def __init__(
        self,
        folder: Path,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, float]],
        board: bool,
    ) -> None:
        self.path, self.columns = folder / HISTORY, columns
        write_text(self.path, "".join((f"{','.join(columns)}\n", *map(self._line, rows))))
        self.board = _board(folder, rows) if board else None

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(self._line(row))
        if self.board is not None:
            for name in self.columns[4:]:
                if name in row:
                    self.board.add_scalar(name, row[name], int(row["epoch"]))

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self.board is not None:
            self.board.close()

    def _line(self, row: Mapping[str, float]) -> str:
        return ",".join(f"{row[n]:.9g}" if n in row else "" for n in self.columns) + "\n"


def _board(folder: Path, rows: Sequence[Mapping[str, float]]) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install sciml-pde[tensorboard]",
            "training.tensorboard",
        ) from None
    return module.SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1)


@contextmanager
def seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """torch's generators from this seed on, and as they were afterwards."""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    plain = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind != "optimiser":
            continue
        index, _, key = rest.partition(".")
        if key != "step" and parameters[int(index)].is_complex():
            value = torch.view_as_complex(value)
        plain["state"].setdefault(int(index), {})[key] = value
    optimiser.load_state_dict(plain)


def _generators(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_generators(device: torch.device, tensors: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(tensors["generator.cpu"])
    if device.type == "cuda" and "generator.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["generator.cuda"], device)
