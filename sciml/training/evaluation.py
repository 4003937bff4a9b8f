"""How far an operator f is from the truth y on samples x that it has not seen, and how fast it is.

    relative L2 of a sample:  ||f(x) - y|| / ||y||,     relative H1:  the same with the norm
    (||y||^2 + ||grad y||^2)^(1/2),

over all channels and points, by the losses of training (plain sums; differences for the gradient,
through the seam on periodic axes). An operator whose outputs are the frames after its inputs is
rolled out: its answers are its next inputs, until as many frames are there as the data has.

Seconds can be compared: one thread, the fastest of several runs, the device waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData
from sciml.operators.losses import RelativeH1, RelativeL2
from sciml.operators.operator import Operator
from sciml.training.data import batches, first_samples

Result = TypeVar("Result")
_REPEATS = 5


@dataclass(frozen=True)
class Evaluation:
    """Errors on one split at one resolution, and what they cost.

    ``relative_l2``, ``relative_h1``: (N,), float64. ``seconds``: the fastest of five answers to
    one sample. ``seconds_batched``: per sample of a batch of ``batch``, likewise.
    """

    relative_l2: Tensor
    relative_h1: Tensor
    shape: tuple[int, ...]
    parameters: int
    seconds: float
    seconds_batched: float
    batch: int
    device: str

    @property
    def ranked(self) -> tuple[int, ...]:
        """The samples' positions from the best to the worst relative L2."""
        return tuple(self.relative_l2.argsort(stable=True).tolist())

    def summary(self) -> dict[str, dict[str, float]]:
        """The distribution of both errors."""
        return {"relative_l2": spread(self.relative_l2), "relative_h1": spread(self.relative_h1)}

    def to_json(self) -> dict[str, Any]:
        """Plain data: the summary and every number."""
        return {
            "samples": len(self.relative_l2),
            "shape": list(self.shape),
            "parameters": self.parameters,
            "device": self.device,
            "seconds": self.seconds,
            "seconds_batched": self.seconds_batched,
            "batch": self.batch,
            "summary": self.summary(),
            "relative_l2": self.relative_l2.tolist(),
            "relative_h1": self.relative_h1.tolist(),
        }


def spread(errors: Tensor) -> dict[str, float]:
    """Mean, median, 90th and 99th percentile and the worst of ``errors`` (N,)."""
    errors = errors.double()
    return {
        "mean": float(errors.mean()),
        "median": float(errors.quantile(0.5)),
        "p90": float(errors.quantile(0.9)),
        "p99": float(errors.quantile(0.99)),
        "worst": float(errors.max()),
    }


@torch.no_grad()
def evaluate(operator: Operator, data: OperatorData, *, batch: int = 16) -> Evaluation:
    """The errors of every sample of ``data``, on the operator's device, and seconds per sample.

    Raises InputError where the operator cannot take the grid or the channels.
    """
    l2, h1 = RelativeL2().build(operator.signature), RelativeH1().build(operator.signature)
    errors: list[Tensor] = []
    device = operator.input_mean.device
    for x, y in batches(data, batch, device):
        prediction = roll_out(operator, x, y.shape[1])
        errors.append(torch.stack([l2(prediction, y, x), h1(prediction, y, x)]).double().cpu())
    both = torch.cat(errors, 1)
    first, _ = first_samples(data, batch, device)
    return Evaluation(
        both[0],
        both[1],
        data.shape,
        sum(p.numel() for p in operator.parameters()),
        inference_seconds(operator, first[:1]),
        inference_seconds(operator, first),
        len(first),
        str(device),
    )


def roll_out(operator: Operator, x: Tensor, channels: int) -> Tensor:
    """``operator(x)``, its answers fed back until there are so many output channels.

    Fed back are the last frames, as many as it takes, of inputs and answers together. Raises
    InputError where inputs and outputs are not the same single field.
    """
    own = len(operator.signature.outputs)
    if channels == own:
        return answer(operator, x)
    names = {*operator.signature.inputs, *operator.signature.outputs}
    if len(names) > 1 or channels % own:
        raise InputError(
            f"the data has {channels} output channels and the operator gives {own}; only an "
            "operator from frames of one field to its next frames can be rolled out"
        )
    frames = x
    for _ in range(channels // own):
        frames = torch.cat([frames, answer(operator, frames[:, -x.shape[1] :])], 1)
    return frames[:, x.shape[1] :]


@torch.no_grad()
def answer(operator: Operator, x: Tensor) -> Tensor:
    """``operator(x)`` in evaluation mode, left as it was."""
    training = operator.training
    try:
        y: Tensor = operator.eval()(x)
    finally:
        operator.train(training)
    return y


def inference_seconds(operator: Operator, x: Tensor) -> float:
    """Seconds per sample of ``operator(x)``: on one thread, the fastest of five warm runs."""
    with one_thread():
        answer(operator, x)
        _, seconds = fastest(lambda: answer(operator, x), _REPEATS, x.device)
    return seconds / len(x)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch, and the compiled kernels that follow it, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def fastest(
    work: Callable[[], Result], repeats: int, device: torch.device | None = None
) -> tuple[Result, float]:
    """What ``work`` returns, and the wall seconds of the fastest of ``repeats`` runs."""
    best = float("inf")
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        result = work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return result, best


def _wait(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
