"""Operators on disk: the weights in safetensors, everything else in JSON beside them.

    operator.json                        format, options, signature, provenance, the weights' hash
    operator-<hash>.safetensors          parameters, scaling and bases

Neither can hold code. A save writes the weights under a name of their own, then ``operator.json``,
which names them, and then removes those that it named before: a process that dies at any moment
leaves the old operator or the new one. Both files are checked by SHA-256 when they are read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sciml.core.disk import atomic_write, read_record, write_record
from sciml.core.errors import InputError, did_you_mean
from sciml.core.run.weights import PICKLES, check_finite, misfit_of, refuse_pickle
from sciml.operators.operator import Operator, Options, Signature, architectures

FORMAT = "sciml operator 1"
FILE = "operator.json"
_WEIGHTS = "operator-*.safetensors"
_KEYS = {"format", "options", "signature", "provenance", "weights", "weights_sha256"}


def save_operator(operator: Operator, folder: str | Path) -> None:
    """Write an operator into ``folder``, in place of the one that may be there.

    Weights keep their dtype. Killed at any moment, this leaves the old operator or the new one.
    """
    folder = Path(folder)
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in operator.state_dict().items()
    }
    data = safetensors.torch.save(tensors)
    value = hashlib.sha256(data).hexdigest()
    weights = folder / f"operator-{value[:16]}.safetensors"
    with atomic_write(weights) as temporary:
        temporary.write_bytes(data)
    record = {
        "format": FORMAT,
        "options": dataclasses.asdict(operator.options),  # type: ignore[call-overload]
        "signature": operator.signature.to_json(),
        "provenance": operator.provenance,
        "weights": weights.name,
        "weights_sha256": value,
    }
    write_record(folder / FILE, record)
    for old in folder.glob(_WEIGHTS):
        if old != weights:
            old.unlink(missing_ok=True)


def load_operator(path: str | Path, device: torch.device | str = "cpu") -> Operator:
    """The operator in a folder, or of one of its two files; on ``device``, in eval mode.

    Raises InputError for a missing or damaged file, a pickle, an unknown architecture or option,
    and weights that do not fit.
    """
    path = Path(path)
    refuse_pickle(path, f"a folder with {FILE} and its weights in safetensors")
    file = path / FILE if path.is_dir() else path.with_name(FILE)
    record = _read_record(file, path)
    options = _read_options(record["options"], file)
    tensors = _read_weights(file.with_name(record["weights"]), record["weights_sha256"])
    check_finite(tensors, file.with_name(record["weights"]))
    try:
        signature = Signature.from_json(record["signature"])
        # No memory is taken here, whatever the options say.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            empty = Operator(options, signature, options.build(signature))
        misfit = misfit_of(empty.state_dict(), tensors)
        if misfit is not None:
            raise InputError(f"the weights do not fit these options: {misfit}")
        operator = Operator.build(options, signature)
    except InputError as error:
        raise InputError(f"'{file}': {error.message}") from None
    operator.provenance = record["provenance"]
    if any(value.dtype == torch.float64 for value in tensors.values()):
        operator.double()  # what is not among the tensors follows them
    try:
        operator.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise InputError(f"'{file}': the weights do not fit these options: {said}") from None
    return operator.to(device).eval()


def _read_record(file: Path, given: Path) -> dict[str, Any]:
    """What ``file`` says, checked; ``given`` is what the user named."""
    if not given.exists():
        raise InputError(
            f"no operator at '{given}': there is no such file or folder; sciml train makes one"
        )
    if not file.is_file():
        pickles = sorted(p.name for p in file.parent.glob("*") if p.suffix.lower() in PICKLES)
        tail = f"; {pickles[0]} is refused, as a pickle can run any code" if pickles else ""
        tail = tail or "; name a folder that sciml train wrote"
        raise InputError(f"no operator at '{given}': '{file}' is missing{tail}")
    try:
        record = read_record(file)
        if record.get("format") != FORMAT:
            raise ValueError(f"its format is not '{FORMAT}'")
        if set(record) != _KEYS or Path(record["weights"]).name != record["weights"]:
            raise ValueError("it has not the keys of one")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{file}' describes no operator: {error}") from None
    if given.is_file() and given.name not in (FILE, record["weights"]):
        raise InputError(f"'{given}' is no operator; give its folder, '{given.parent}'")
    return record


def _read_weights(file: Path, expected: str) -> dict[str, Tensor]:
    if not file.is_file():
        raise InputError(f"'{file}' is missing: the weights that {FILE} names")
    refuse_pickle(file)
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != expected:
        raise InputError(f"'{file}' was damaged or changed since it was written")
    try:
        return safetensors.torch.load(data)
    except SafetensorError as error:
        raise InputError(f"'{file}' holds no weights: {error}") from None


def _read_options(data: Any, file: Path) -> Options:
    """The options of one of the architectures in ``sciml.operators``."""
    kind = data.get("kind") if isinstance(data, dict) else None
    known: dict[str, Any] = {}
    for cls in architectures():
        known[cls.kind] = cls
        if cls.kind == kind:
            try:
                options: Options = _dataclass(cls, data, "operator")
                return options
            except InputError as error:
                raise InputError(f"'{file}': {error.message}", error.key) from None
    raise InputError(
        f"'{file}': unknown kind '{kind}'{did_you_mean(str(kind), known)}", "operator.kind"
    )


def _dataclass(cls: type, data: Any, key: str) -> Any:
    """A dataclass from plain data with the same keys; raises InputError, with the key."""
    if not isinstance(data, dict):
        raise InputError(f"{key} must be a mapping; got {data!r}", key)
    hints, known = get_type_hints(cls), {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in known:
            raise InputError(f"unknown option '{name}'{did_you_mean(name, known)}", f"{key}.{name}")
    for name, field in known.items():
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise InputError(f"{key}.{name} is missing", f"{key}.{name}")
    return cls(**{name: _value(hints[name], v, f"{key}.{name}") for name, v in data.items()})


def _value(hint: Any, data: Any, key: str) -> Any:
    """Plain data as what an annotation asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _one_of(arguments, data, key)
    if origin is tuple and isinstance(data, list):
        return tuple(_value(a, v, key) for a, v in _paired(arguments, data, key))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _dataclass(hint, data, key)
    if origin is Literal and data in arguments:
        return data
    if hint is float and type(data) in (int, float):
        return float(data)
    if isinstance(hint, type) and type(data) is hint:
        return data
    raise InputError(f"{key} cannot be {data!r}", key)


def _one_of(hints: Iterable[Any], data: Any, key: str) -> Any:
    for hint in hints:
        try:
            return _value(hint, data, key)
        except InputError:
            continue
    raise InputError(f"{key} cannot be {data!r}", key)


def _paired(hints: tuple[Any, ...], data: list[Any], key: str) -> list[tuple[Any, Any]]:
    if hints[-1:] == (...,):
        return [(hints[0], value) for value in data]
    if len(hints) != len(data):
        raise InputError(f"{key} needs {len(hints)} values; got {len(data)}", key)
    return list(zip(hints, data, strict=True))
