"""The state of a run that is under way, in one file: ``checkpoint.safetensors``.

Tensors: the operator's weights and buffers, the optimiser's moments, the losses of the unfinished
epoch and torch's generator. Metadata (JSON): epoch and step, seconds so far, the rows of the
history, and the settings, with which a run that wants to go on is compared. Written whole or not at
all; a run that goes on from it does what it would have done, on a CPU to the last bit.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.files import atomic_write
from sciml.core.plain import differences

FORMAT = "sciml training 1"
FILE = "checkpoint.safetensors"
Row = dict[str, float]
# What atomic_write leaves when its process is killed.
_TEMPORARY = re.compile(r"\.(checkpoint|history|operator[-\w]*)\.\d+\.(safetensors|csv|json)")


@dataclass
class Position:
    """How far a run has come.

    epoch: finished epochs. step: steps done in the next one. seconds: of training alone, over all
    restarts; cpu_seconds: of the processor in the same spans. history: a row per epoch.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[Row] = field(default_factory=list)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """The folder, made where missing and held against a second run; a killed run's litter goes.

    Raises InputError where another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror}", "out") from None
    try:
        _lock(handle, folder)
        for path in [p for p in folder.glob(".*") if _TEMPORARY.fullmatch(p.name)]:
            path.unlink(missing_ok=True)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"another run is training in '{folder}'", "out") from None


def save_state(
    folder: Path,
    position: Position,
    settings: Mapping[str, Any],
    operator: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Tensor,
) -> None:
    """Write the state of a run into its folder."""
    tensors = {f"operator.{name}": value for name, value in operator.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    tensors["losses"] = losses
    tensors |= {f"generator.{name}": value for name, value in _generators(losses.device).items()}
    packed = {name: _packed(value) for name, value in tensors.items()}
    record = {"format": FORMAT, "position": asdict(position), "settings": dict(settings)}
    with atomic_write(folder / FILE) as temporary:
        temporary.write_bytes(save(packed, {"state": json.dumps(record)}))


def load_state(
    folder: Path,
    settings: Mapping[str, Any],
    operator: nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Tensor,
) -> Position | None:
    """Put the state in ``folder`` back in place; None where there is none.

    Raises InputError for a damaged file and for the state of a run with other settings.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    record, tensors = _read(path)
    changed = [
        f"{key} was {old!r}, now {new!r}"
        for key, old, new in differences(record["settings"], json.loads(json.dumps(settings)))
    ]
    if changed:
        raise InputError(
            f"'{folder}' holds a run with other settings: {'; '.join(changed)}. Name another folder"
        )
    try:
        with torch.no_grad():
            for name, value in operator.state_dict().items():
                _unpack(tensors[f"operator.{name}"], value)
            _unpack(tensors["losses"], losses)
        _restore_optimiser(optimiser, tensors)
        _restore_generators(losses.device, tensors)
        return Position(**record["position"])
    except (KeyError, RuntimeError, TypeError) as error:
        raise InputError(f"'{path}' does not fit this operator: {error}") from None


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            record: dict[str, Any] = json.loads((file.metadata() or {})["state"])
            if record["format"] != FORMAT:
                raise ValueError("another format")
            return record, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"'{path}' is damaged, or no state of a training run: {error}") from None


def _packed(value: Tensor) -> Tensor:
    value = value.detach()
    real = torch.view_as_real(value) if value.is_complex() else value
    return real.cpu().contiguous().clone()


def _unpack(value: Tensor, into: Tensor) -> None:
    (torch.view_as_real(into) if into.is_complex() else into).copy_(value)


def _restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    plain = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind != "optimiser":
            continue
        index, _, key = rest.partition(".")
        parameter = parameters[int(index)]
        if key != "step" and parameter.is_complex():
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
