"""Where the weights of a learned part are: in a file, in a run's folder, or shipped by name."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from torch import Tensor

from sciml.core.errors import InputError, did_you_mean
from sciml.core.run.weights import FILE, StoredWeights, read_file


def read_weights(path: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options and tensors of the file ``path``, checked; see :func:`read_stored`."""
    stored = read_stored(path, kind)
    return stored.options, stored.tensors


def read_stored(path: str | Path, kind: str) -> StoredWeights:
    """All that the file ``path`` holds; or ``FILE`` in a folder; or what is shipped by that name.

    Raises InputError for what is missing, damaged, a pickle, of another kind, or not finite.
    """
    stored = read_file(_found(str(path)), kind)
    if not isinstance(stored.options, dict):
        raise InputError(f"'{stored.path}': its options are no mapping but {stored.options!r}")
    return stored


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
