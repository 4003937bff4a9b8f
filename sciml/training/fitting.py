"""``fit``: an operator from data, by gradient descent on the mean of a loss over batches.

    theta <- step(theta, (1/B) sum_{i in batch} grad loss(f_theta(x_i), y_i, x_i))

A run is a function of its options, its data and its seed. The loop, its record and its state are
``core.run.training_run``'s; beside them the folder has the operator, ``weights.safetensors``.
Validation gives the mean relative errors on samples that it is not trained on.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sciml.core.disk import claimed
from sciml.core.errors import InputError
from sciml.core.run.serialise import differences, dump
from sciml.core.run.training_run import TRAINING, EpochProgress, Step, TrainingRun, seeded
from sciml.core.run.weights import misfit_of, tensors_of
from sciml.datasets.stream import Stream
from sciml.operators.checkpoint import load_operator, save_operator
from sciml.operators.losses import LossFunction, RelativeH1, RelativeL2, needs_equation
from sciml.operators.module import code_of
from sciml.operators.operator import Operator, Options
from sciml.operators.seen import span
from sciml.training.conformal import ConformalSet, calibrated, scores
from sciml.training.data import TensorData, TrainingData, hold, open_batches
from sciml.training.distributed import World, world
from sciml.training.options import Training
from sciml.training.residual import residual_of


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

    @torch.no_grad()
    def conformal(self, operator: Operator) -> ConformalSet | None:
        """The set that has nine tenths of the truths; None where there are too few samples."""
        found = []
        operator.eval()
        for start in range(0, len(self.data), self.batch):
            x, y = self._read(slice(start, min(start + self.batch, len(self.data))))
            found.append(scores(operator(x), y))
        operator.train()
        return calibrated(torch.cat(found))

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


_DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


def fit(
    options: Options,
    data: TrainingData,
    training: Training = Training(),  # noqa: B008  (frozen)
    out: str | Path | None = None,
    *,
    start: str | Path | None = None,
    device: torch.device | str = "cpu",
    progress: EpochProgress | None = None,
) -> Operator:
    """Train the operator that ``options`` describe on ``data``; in eval mode, on ``device``.

    ``out``: a folder for its history, its state while under way, and the operator; the same call
    goes on where one was stopped, on a CPU to the same bits; so does one with more epochs, where
    the schedule is not laid out over all of them. ``start``: the folder of an operator with the
    same options and channels, whose weights and scaling this one begins with.
    ``progress(epoch, epochs, row)`` is called after every epoch, by the first process. Under
    torchrun, all processes make the same call. Raises InputError for options that do not fit
    together or a folder with another run, and TrainingError
    where a loss or weight is no longer a number; the last state before is kept.
    """
    with world(device) as here, seeded(training.seed, here.device):
        folder = None if out is None else Path(out)
        with claimed(folder, TRAINING) if folder is not None and here.writes else nullcontext():
            first = None if start is None else _start(Path(start), folder, options, data)
            task = _OperatorTask(options, data, training, here, first)
            run = TrainingRun(
                task.operator,
                training.optimiser.build(task.operator.parameters()),
                task,
                {
                    "operator": dump(options),
                    "training": dump(replace(training, checkpoint=0.0, tensorboard=False)),
                    "data": _identity(data),
                    **({"code": code} if (code := code_of(options)) else {}),
                    **({"start": _hash(first)} if first is not None else {}),
                },
                folder,
                free={"training.epochs": _why_not_more(training)},
                checkpoint=training.checkpoint,
                clip=training.clip,
                writes=here.writes,
                board=training.tensorboard,
            )
            if task.operator.solved and run.epoch == 0:
                run.seconds, run.cpu_seconds = task.preparing
            epochs = 1 if task.operator.solved else training.epochs
            run.finish(epochs, progress if here.writes else None)
            task.operator.provenance = task.provenance(run)
            if first is not None:
                task.operator.provenance["start"] = {"path": str(start), "weights": _hash(first)}
            if folder is not None and here.writes:
                save_operator(task.operator, folder)
            return task.operator.eval()


class _OperatorTask:
    """The losses of an operator on batches of data, and its errors on others."""

    columns = ("loss",)
    validated = ("valid_l2", "valid_h1")

    def __init__(
        self,
        options: Options,
        data: TrainingData,
        training: Training,
        here: World,
        first: Operator | None,
    ) -> None:
        self.data, self.training, self.here = data, training, here
        dtype = _DTYPES[training.precision]
        self.loss = _loss(training, data)
        self.batches = open_batches(data, training.batch, training.seed, dtype, here)
        self.per_epoch = self.batches.per_epoch
        self.operator = Operator.build(options, data.signature, seed=training.seed)
        # to(dtype) would cut complex weights down to their real parts.
        (self.operator.double if dtype == torch.float64 else self.operator.float)()
        if self.operator.solved:
            _check_solved(options, data, first)
        known = self.batches.first()
        clock = time.perf_counter(), time.process_time()
        _prepare(self.operator, known, data)
        self.preparing = time.perf_counter() - clock[0], time.process_time() - clock[1]
        self.seen = span(known.x.cpu(), data.signature)
        if first is not None:  # its weights mean something with its scaling alone
            self.operator.load_state_dict(tensors_of(first))
        self.operator.to(here.device)
        self.validation = open_validation(data, training.batch, dtype, here)
        module = here.wrap(self.operator)
        self.module: Callable[..., Tensor] = torch.compile(module) if training.compile else module

    def steps(self, epoch: int, first: int) -> Iterator[Step]:
        """The mean loss of every batch that is left of an epoch."""
        half = self.training.precision == "bfloat16"
        for batch in self.batches.epoch(epoch, first):
            with torch.autocast(self.here.device.type, torch.bfloat16, enabled=half):
                given = () if batch.points is None else (batch.points,)
                prediction = self.module(batch.x, *given)
            losses = self.loss(prediction, batch.y, batch.x)[: len(batch.samples)]
            mean = losses.sum() / batch.total
            # Of the whole batch, so that all processes see the same and the state holds all of it.
            whole = self.here.sum(mean.detach().clone())
            # DDP divides by the number of processes what is to be summed.
            yield Step(
                mean * self.here.size, (whole,), partial(_where, batch.samples, losses.detach())
            )

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted through all epochs."""
        training, per_epoch = self.training, self.per_epoch
        factor = training.schedule.factor(step, training.epochs * per_epoch, per_epoch)
        return training.optimiser.rate * factor

    def validate(self, epoch: int) -> Mapping[str, float]:
        """The errors, where it is time to and there are samples."""
        last = epoch == self.training.epochs
        if self.validation is None or not (last or epoch % self.training.validate == 0):
            return {}
        return self.validation.errors(self.operator)

    def keep(self, row: Mapping[str, float], rows: Sequence[Mapping[str, float]]) -> bool:
        """Nothing: the operator of the last epoch is written."""
        return False

    def provenance(self, run: TrainingRun) -> dict[str, Any]:
        """What the operator was made of, as plain data."""
        return {
            "dataset": self.data.name,
            "places": dict(self.data.places),
            "spec": dict(self.data.spec),
            "times": dump(self.data.times),
            "foreign": dict(self.data.foreign),
            "code": code_of(self.operator.options),
            "training": dump(self.training),
            "seed": self.training.seed,
            "processes": self.here.size,
            "versions": _versions(),
            "epochs": run.epoch,
            "seconds": run.seconds,
            "seen": self.seen,
            **({"left_out": found} if (found := self.operator.left_out) is not None else {}),
            **({"conformal": near.to_json()} if (near := self.conformal()) is not None else {}),
        }

    def conformal(self) -> ConformalSet | None:
        """Where the truth lies, by the samples to validate on."""
        return None if self.validation is None else self.validation.conformal(self.operator)


def _start(folder: Path, out: Path | None, options: Options, data: TrainingData) -> Operator:
    """The operator to begin with; InputError where it is another one."""
    if (
        out is not None
        and out.resolve() == (folder if folder.is_dir() else folder.parent).resolve()
    ):
        raise InputError(
            f"a run cannot start from its own folder '{folder}'; without start: it goes on", "start"
        )
    try:
        found = load_operator(folder)
    except InputError as error:
        raise InputError(error.message, "start") from None
    for key, old, new in differences(dump(found.options), dump(options), "operator"):
        raise InputError(f"'{folder}' has {key} {old!r}, and not {new!r} as here", "start")
    for name in ("inputs", "outputs", "boundary"):
        old, new = (getattr(part.signature, name) for part in (found, data))
        if old != new:
            told = [", ".join(part) for part in (old, new)]
            raise InputError(
                f"'{folder}' has the {name} {told[0]}; the data have {told[1]}", "start"
            )
    own = tensors_of(Operator.build(options, data.signature))
    misfit = misfit_of(own, tensors_of(found))
    if misfit is not None:
        raise InputError(f"the weights in '{folder}' do not fit on this grid: {misfit}", "start")
    return found


def _hash(operator: Operator) -> str:
    value = hashlib.sha256()
    for name, tensor in sorted(tensors_of(operator).items()):
        value.update(name.encode())
        value.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return value.hexdigest()


def _why_not_more(training: Training) -> str:
    """Why a run cannot have more epochs in its folder; nothing where it can."""
    if not training.schedule.over_all:
        return ""
    return (
        f"{training.schedule.kind} is laid out over all epochs; constant and steps go on, and "
        "start: takes the weights into another folder"
    )


def _where(samples: Tensor, losses: Tensor) -> str:
    bad = samples[~losses.isfinite().cpu()].tolist()
    return f"at the samples {', '.join(map(str, bad))}" if bad else "in another process"


def _check_solved(options: Options, data: TrainingData, first: Operator | None) -> None:
    """InputError where an operator is solved for that cannot be from such data."""
    if first is not None:
        raise InputError(f"a {options.kind} is solved for: it starts from no other", "start")
    if isinstance(data.train, Stream):
        raise InputError(
            f"a {options.kind} is solved from stored samples; kind: stream has none", "data.kind"
        )


def _prepare(operator: Operator, known: TensorData, data: TrainingData) -> None:
    """Set the scaling of the operator from the samples ``known``, or solve for all of it."""
    stored = data.train
    if operator.solved and not isinstance(stored, Stream) and len(known) < len(stored):
        raise InputError(
            f"a {operator.options.kind} needs all samples in memory, which holds {len(known)} of "
            f"{len(stored)}; data.train takes fewer",
            "data.train",
        )
    y = known.y
    for name, values in (("inputs", known.x), ("outputs", y)):
        bad = (~values.isfinite().flatten(1).all(1)).nonzero().flatten().tolist()
        if bad:
            shown = ", ".join(map(str, bad[:10]))
            raise InputError(
                f"the {name} of these training samples are not finite: {shown}", "data"
            )
    if known.points is not None:
        # Values at points: only their distribution matters, so that any axes will do.
        y = y[(..., *(None,) * (operator.signature.dimension - 1))]
        y = y.expand(*y.shape[:3], *(2,) * (y.ndim - 3))
    operator.prepare(known.x, y)


def _loss(training: Training, data: TrainingData) -> LossFunction:
    residual = None
    if data.family is not None and needs_equation(training.loss):
        residual = residual_of(data.family, data.signature)
    return training.loss.build(data.signature, residual)


def _identity(data: TrainingData) -> dict[str, Any]:
    """What tells these data from others, as plain data."""
    record = {"name": data.name, **data.signature.to_json(), "times": dump(data.times)}
    if data.foreign:
        record["foreign"] = data.foreign["sha256"]
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
