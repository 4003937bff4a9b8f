"""Weights of learned parts on disk: one safetensors file that says what it is.

The metadata entry ``sciml`` is JSON: format, kind, options, provenance, and a SHA-256 over all of
these and every tensor's name, type, shape and bytes. Nothing in it can hold code. A file is written
whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.core.files import atomic_write
from sciml.operators.checkpoint import refuse_pickle

FORMAT = "sciml weights 1"
FILE = "weights.safetensors"
_ENTRIES = {"format", "kind", "options", "provenance", "sha256"}


@dataclass(frozen=True)
class Stored:
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


def read_weights(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options and tensors of the file ``path``, checked; see :func:`read_stored`."""
    stored = read_stored(path, kind)
    return stored.options, stored.tensors


def read_stored(path: str | Path, kind: str) -> Stored:
    """All that the file ``path`` holds; or ``FILE`` in a folder; or what is shipped by that name.

    Raises InputError for what is missing, damaged, a pickle, of another kind, or not finite.
    """
    file = _found(str(path))
    refuse_pickle(file)
    try:
        # Mapped, not read: a file of Ritz vectors may be larger than what else fits into memory.
        with safe_open(file, "pt") as opened:
            record = json.loads((opened.metadata() or {})["sciml"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if not isinstance(record, dict) or set(record) != _ENTRIES or record["format"] != FORMAT:
            raise ValueError("its header is another one")
        if record.pop("sha256") != _hash(record, tensors):
            raise ValueError("it was damaged or changed since it was written")
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        said = "it has no header of ours" if isinstance(error, KeyError) else str(error)
        raise InputError(f"'{file}' holds no weights: {said}") from None
    if record["kind"] != kind:
        raise InputError(f"'{file}' holds weights of kind '{record['kind']}', not '{kind}'")
    bad = next((name for name, value in tensors.items() if not value.isfinite().all()), None)
    if bad is not None:
        raise InputError(f"'{file}' is of no use: {bad} holds a NaN or an infinity; train again")
    return Stored(file, record["options"], tensors, record["provenance"])


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Give ``module`` its weights; raises InputError, naming the first tensor that does not fit."""
    own = module.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise InputError(f"'{path}' does not fit its own options: {name} is missing")
        if tensors[name].shape != value.shape:
            raise InputError(
                f"'{path}' does not fit its own options: {name} is {list(tensors[name].shape)}, "
                f"not {list(value.shape)}"
            )
    extra = next((name for name in tensors if name not in own), None)
    if extra is not None:
        raise InputError(f"'{path}' does not fit its own options: {extra} has no place")
    module.load_state_dict(dict(tensors))


def shipped() -> dict[str, Path]:
    """The weights that come with the package, by name."""
    folder = Path(str(files("sciml.solvers.learned"))) / "weights"
    return {file.stem: file for file in sorted(folder.glob("*.safetensors"))}


def _found(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        path = path / FILE
        if not path.is_file():
            raise InputError(f"no weights in '{name}': there is no {FILE}")
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
    tail = did_you_mean(name, known) or (f"; shipped: {', '.join(known)}" if known else "")
    raise InputError(f"no weights at '{name}': there is no such file or folder{tail}")


def _hash(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    value = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        value.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        value.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return value.hexdigest()
