"""Tensors on disk that are read back: one safetensors file that says what it is.

The metadata entry ``sciml`` is JSON: format, kind, options, provenance, and a SHA-256 over all of
these and every tensor's name, type, shape and bytes. Nothing in it can hold code. A file is written
whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sciml.core.disk import atomic_write
from sciml.core.errors import InputError

FILE = "weights.safetensors"  # in the folder of what was trained
FORMAT = "sciml weights 1"
PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ENTRIES = {"format", "kind", "options", "provenance", "sha256"}
# A zip archive, which is what torch.save writes, and the protocols of pickle.
_PICKLE_STARTS = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(1, 6)))


@dataclass(frozen=True)
class StoredWeights:
    """What a file of weights holds; ``path`` is where it was found."""

    path: Path
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    provenance: dict[str, Any]


def write_weights(
    path: str | Path,
    kind: str,
    options: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
) -> None:
    """Write ``tensors`` with what describes them, in place of the file that may be there.

    ``options`` and ``provenance``: plain data. Tensors keep their dtype.
    """
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    described = {"format": FORMAT, "kind": kind, "options": options, "provenance": provenance}
    record: dict[str, Any] = json.loads(json.dumps(described))
    record["sha256"] = _hash(record, stored)
    with atomic_write(path) as temporary:
        save_file(stored, temporary, {"sciml": json.dumps(record)})


def read_file(file: Path, kind: str) -> StoredWeights:
    """All that ``file`` holds, checked.

    Raises InputError for what is missing, damaged, a pickle, of another kind, or not finite.
    """
    refuse_pickle(file)
    try:
        # Mapped, not read: a file of Ritz vectors may be larger than what else fits into memory.
        with safe_open(file, "pt") as opened:
            record = json.loads((opened.metadata() or {})["sciml"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if not isinstance(record, dict) or set(record) != _ENTRIES or record["format"] != FORMAT:
            raise ValueError("its header is another one")
        if not isinstance(record["provenance"], dict):
            raise ValueError(f"its provenance is no mapping but {record['provenance']!r}")
        if record.pop("sha256") != _hash(record, tensors):
            raise ValueError("it was damaged or changed since it was written")
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        said = "it has no header of ours" if isinstance(error, KeyError) else str(error)
        raise InputError(f"'{file}' holds no weights: {said}") from None
    if record["kind"] != kind:
        raise InputError(f"'{file}' holds weights of kind '{record['kind']}', not '{kind}'")
    check_finite(tensors, file)
    return StoredWeights(file, record["options"], tensors, record["provenance"])


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, without what some put beside the tensors, as neuraloperator's do."""
    return {n: value for n, value in module.state_dict().items() if isinstance(value, Tensor)}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Give ``module`` its weights; raises InputError, naming the first tensor that does not fit."""
    misfit = misfit_of(module.state_dict(), tensors)
    if misfit is not None:
        raise InputError(f"'{path}' does not fit its own options: {misfit}")
    module.load_state_dict(dict(tensors))


def check_fit(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError where the weights are not those of the module that ``make`` makes.

    It is made without memory here: options that name a network of any size cannot fill a machine.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        misfit = misfit_of(make().state_dict(), tensors)
    if misfit is not None:
        raise InputError(f"'{path}' does not fit its own options: {misfit}")


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError where a weight is no number."""
    bad = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
    if bad is not None:
        raise InputError(f"'{path}' is of no use: {bad} holds a NaN or an infinity; train again")


def misfit_of(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is missing, of another shape, or too many."""
    for name, value in own.items():
        if name not in given:
            return f"{name} is missing"
        if given[name].shape != value.shape:
            return f"{name} is {list(given[name].shape)}, not {list(value.shape)}"
    return next((f"{name} has no place" for name in given if name not in own), None)


def refuse_pickle(path: Path, instead: str = "weights in safetensors") -> None:
    """Raise InputError for a file that is a pickle by its name or its first bytes."""
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(9)
        # The header's length, with which safetensors begin, can look like a pickle's first bytes.
        looks = start.startswith(_PICKLE_STARTS) and start[8:] != b"{"
        if looks or path.suffix.lower() in PICKLES:
            raise InputError(
                f"refused: '{path}' is a pickle, and opening one can run any code; give {instead}"
            )


def _hash(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    value = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        value.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return value.hexdigest()
