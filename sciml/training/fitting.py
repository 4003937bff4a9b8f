"""The mean relative errors of an operator on samples that it is not trained on.

``fit``: an operator from data, by gradient descent on the mean of a loss over batches.

    theta <- step(theta, (1/B) sum_{i in batch} grad loss(f_theta(x_i), y_i, x_i))

A run is a function of its options, its data and its seed. Its state is one file, written every so
often; the same call goes on from it. What the run has come to stands in ``history.csv``, the
operator in ``operator.json`` and its weights.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.core.plain import dump
from sciml.datasets.stream import Stream
from sciml.operators.checkpoint import save_operator
from sciml.operators.losses import LossFunction, RelativeH1, RelativeL2, needs_equation
from sciml.operators.operator import Operator, Options
from sciml.training.data import Batch, Batches, TrainingData, hold, open_batches
from sciml.training.distributed import World, world
from sciml.training.history import History
from sciml.training.options import Training, TrainingError
from sciml.training.residual import residual_of
from sciml.training.state import Position, claimed, load_state, save_state


@dataclass(frozen=True)
class Validation:
    """Samples on the grid, batch by batch, and what is measured on them; relative L2 and H1."""

    data: Any
    batch: int
    losses: dict[str, LossFunction]
    dtype: torch.dtype
    world: World

    @torch.no_grad()
    def errors(self, operator: Operator) -> dict[str, float]:
        """Means over all samples: ``valid_l2`` and ``valid_h1``; the same in every process."""
        share = self.world.share(len(self.data))
        device = self.world.device
        total = torch.zeros(len(self.losses), dtype=torch.float64, device=device)
        operator.eval()
        for start in range(share.start, share.stop, self.batch):
            x, y = self._read(slice(start, min(start + self.batch, share.stop)))
            prediction = operator(x)
            found = [loss(prediction, y, x).double().sum() for loss in self.losses.values()]
            total += torch.stack(found)
        operator.train()
        means = self.world.sum(total) / len(self.data)
        return dict(zip(self.losses, means.tolist(), strict=True))

    def _read(self, part: slice) -> tuple[Tensor, Tensor]:
        samples = [self.data[i] for i in range(part.start, part.stop)]
        x, y = (torch.stack([sample[name] for sample in samples]) for name in ("x", "y"))
        return x.to(self.world.device, self.dtype), y.to(self.world.device, self.dtype)


def open_validation(
    data: TrainingData, batch: int, dtype: torch.dtype, world: World
) -> Validation | None:
    """The samples to validate on, in memory where they fit; None where there are none."""
    if data.valid is None:
        return None
    losses = {
        "valid_l2": RelativeL2().build(data.signature),
        "valid_h1": RelativeH1().build(data.signature),
    }
    return Validation(hold(data.valid, dtype, world.device), batch, losses, dtype, world)


# progress(epoch, epochs, row of the history)
Progress = Callable[[int, int, Mapping[str, float]], None]
_LOOK = 16  # steps between two looks at the losses on a GPU, each of which waits for it
_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def fit(
    options: Options,
    data: TrainingData,
    training: Training = Training(),  # noqa: B008  (frozen)
    out: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Operator:
    """Train the operator that ``options`` describe on ``data``; in eval mode, on ``device``.

    ``out``: a folder for its history, its state while under way, and the operator; the same call
    goes on where one was stopped, on a CPU to the same bits. ``progress(epoch, epochs, row)`` is
    called after every epoch, by the first process. Under torchrun, all processes make the same
    call. Raises InputError for options that do not fit together or a folder with another run, and
    TrainingError where a loss or weight is no longer a number; the last state before is kept.
    """
    with world(device) as here:
        devices = [here.device] if here.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(training.seed)
            folder = None if out is None else Path(out)
            held = claimed(folder) if folder is not None and here.writes else nullcontext()
            with held:
                return _Run(options, data, training, folder, here).finish(progress)


class _Run:
    """One call of ``fit``: what is built before the first step, and the state that moves."""

    def __init__(
        self,
        options: Options,
        data: TrainingData,
        training: Training,
        out: Path | None,
        here: World,
    ) -> None:
        self.data, self.training, self.out, self.here = data, training, out, here
        dtype = _DTYPES[training.precision]
        self.loss = _loss(training, data)
        self.batches = open_batches(data, training.batch, training.seed, dtype, here)
        self.operator = Operator.build(options, data.signature, seed=training.seed)
        _prepare(self.operator, self.batches)
        self.operator.to(here.device, dtype)
        self.optimiser = training.optimiser.build(self.operator.parameters())
        self.losses = torch.zeros(self.batches.per_epoch, dtype=torch.float64, device=here.device)
        self.validation = open_validation(data, training.batch, dtype, here)
        self.settings = {
            "operator": dump(options),
            "training": dump(replace(training, checkpoint=0.0, tensorboard=False)),
            "data": _identity(data),
        }
        self.position = self._restored()
        self.recent: list[tuple[Batch, Tensor]] = []  # not looked at yet
        module = here.wrap(self.operator)
        self.module: Callable[..., Tensor] = torch.compile(module) if training.compile else module
        self.saved = time.monotonic()
        self.clock = (0.0, 0.0)

    def finish(self, progress: Progress | None) -> Operator:
        """The epochs that are left, then the operator."""
        history = None
        if self.out is not None and self.here.writes:
            history = History(self.out, self.position.history, self.training.tensorboard)
        while self.position.epoch < self.training.epochs:
            row = self._epoch()
            if history is not None:
                history.add(row)
            if progress is not None and self.here.writes:
                progress(self.position.epoch, self.training.epochs, row)
        self._check()
        self.optimiser.zero_grad(set_to_none=True)
        self.operator.provenance = self._provenance()
        if self.out is not None and history is not None:
            self._save(self.out)
            save_operator(self.operator, self.out)
            history.close()
        return self.operator.eval()

    def _restored(self) -> Position:
        if self.out is None:
            return Position()
        found = load_state(self.out, self.settings, self.operator, self.optimiser, self.losses)
        return found or Position()

    def _epoch(self) -> dict[str, float]:
        """What is left of an epoch; its row of the history."""
        position, look = self.position, 1 if self.here.device.type == "cpu" else _LOOK
        self.operator.train()
        self._start_clock()
        for batch in self.batches.epoch(position.epoch, position.step):
            self._step(batch)
            position.step += 1
            if len(self.recent) >= look:
                self._look()
            if self._due:
                self._stop_clock()
                self._save(self.out)
                self._start_clock()
        self._look()
        mean = float(self.losses.mean())
        self._stop_clock()
        row = self._row(mean)
        self.losses.zero_()
        position.epoch, position.step = position.epoch + 1, 0
        position.history.append(row)
        return row

    def _row(self, loss: float) -> dict[str, float]:
        done = self.position.epoch + 1
        row = {
            "epoch": done,
            "steps": done * self.batches.per_epoch,
            "seconds": self.position.seconds,
            "cpu_seconds": self.position.cpu_seconds,
            "rate": self._rate(done * self.batches.per_epoch - 1),
            "loss": loss,
        }
        last = done == self.training.epochs
        if self.validation is not None and (last or done % self.training.validate == 0):
            row |= self.validation.errors(self.operator)
        return row

    def _step(self, batch: Batch) -> None:
        """One step of the optimiser."""
        rate = self._rate(self.position.epoch * self.batches.per_epoch + self.position.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        half = self.training.precision == "bfloat16"
        with torch.autocast(self.here.device.type, torch.bfloat16, enabled=half):
            given = () if batch.points is None else (batch.points,)
            prediction = self.module(batch.x, *given)
        losses = self.loss(prediction, batch.y, batch.x)[: len(batch.samples)]
        mean = losses.sum() / batch.total
        # DDP divides by the number of processes what is to be summed.
        (mean * self.here.size).backward()
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.operator.parameters(), self.training.clip)
        # Of the whole batch, so that all processes see the same and the state holds all of it.
        self.losses[self.position.step] = self.here.sum(mean.detach())
        self.recent.append((batch, losses.detach()))
        self.optimiser.step()

    def _rate(self, step: int) -> float:
        """The learning rate of a step, counted through all epochs."""
        per_epoch, training = self.batches.per_epoch, self.training
        factor = training.schedule.factor(step, training.epochs * per_epoch, per_epoch)
        return training.optimiser.rate * factor

    def _look(self) -> None:
        """Raise TrainingError if one of the latest losses is not a number."""
        first, end = self.position.step - len(self.recent), self.position.step
        good = self.losses[first:end].isfinite()
        if not good.all():
            number = int((~good).nonzero()[0])
            batch, losses = self.recent[number]
            bad = batch.samples[~losses.isfinite().cpu()].tolist()
            place = f"at the samples {', '.join(map(str, bad))}" if bad else "in another process"
            raise TrainingError(
                f"the loss is {float(self.losses[first + number])} in epoch "
                f"{self.position.epoch + 1}, batch {first + number + 1} of "
                f"{self.batches.per_epoch}, {place}; {self._kept}. Try a lower rate or clip the "
                "gradient"
            )
        self.recent.clear()

    @property
    def _kept(self) -> str:
        return "nothing was kept" if self.out is None else f"the last good state is in '{self.out}'"

    @property
    def _due(self) -> bool:
        writes = self.out is not None and self.here.writes
        return writes and time.monotonic() - self.saved >= self.training.checkpoint

    def _save(self, out: Path | None) -> None:
        """Write the state, unless a weight is not a number: then raise TrainingError."""
        assert out is not None
        self._check()
        save_state(out, self.position, self.settings, self.operator, self.optimiser, self.losses)
        self.saved = time.monotonic()

    def _check(self) -> None:
        """Raise TrainingError if a loss or a weight is not a number."""
        self._look()
        for name, value in self.operator.state_dict().items():
            if not value.isfinite().all():
                raise TrainingError(
                    f"'{name}' is not finite after epoch {self.position.epoch}, batch "
                    f"{self.position.step}; {self._kept}"
                )

    def _start_clock(self) -> None:
        self.clock = (time.perf_counter(), time.process_time())

    def _stop_clock(self) -> None:
        self.position.seconds += time.perf_counter() - self.clock[0]
        self.position.cpu_seconds += time.process_time() - self.clock[1]

    def _provenance(self) -> dict[str, Any]:
        return {
            "dataset": self.data.name,
            "places": dict(self.data.places),
            "spec": dict(self.data.spec),
            "times": dump(self.data.times),
            "training": dump(self.training),
            "seed": self.training.seed,
            "processes": self.here.size,
            "versions": _versions(),
            "epochs": self.position.epoch,
            "seconds": self.position.seconds,
        }


def _prepare(operator: Operator, batches: Batches) -> None:
    """Set the scaling of the operator from samples."""
    data = batches.first()
    y = data.y
    for name, values in (("inputs", data.x), ("outputs", y)):
        bad = (~values.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if bad:
            shown = ", ".join(map(str, bad[:10]))
            raise InputError(
                f"the {name} of these training samples are not finite: {shown}", "data"
            )
    if data.points is not None:
        # Values at points: only their distribution matters, so that any axes will do.
        y = y[(..., *(None,) * (operator.signature.dimension - 1))]
        y = y.expand(*y.shape[:3], *(2,) * (y.ndim - 3))
    operator.prepare(data.x, y)


def _loss(training: Training, data: TrainingData) -> LossFunction:
    residual = None
    if data.family is not None and needs_equation(training.loss):
        residual = residual_of(data.family, data.signature)
    return training.loss.build(data.signature, residual)


def _identity(data: TrainingData) -> dict[str, Any]:
    """What tells these data from others, as plain data."""
    record = {"name": data.name, **data.signature.to_json(), "times": dump(data.times)}
    if isinstance(data.train, Stream):
        return {**record, "seed": data.train.seed, "batches": data.batches, "spec": dict(data.spec)}
    value = hashlib.sha256()
    for part in data.train[0].values():
        value.update(part.cpu().numpy().tobytes())
    return {**record, "samples": len(data.train), "first": value.hexdigest()[:16]}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("sciml-pde", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
