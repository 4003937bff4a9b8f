"""Operators on disk: options, signature, provenance and tensors in one file of weights.

The file is ``core.run.weights``'s, which cannot hold code and is written whole or not at all, under
the name that every trained part's has. Older versions wrote ``operator.json``, which names its
``operator-<hash>.safetensors``; those are still read, and the next save replaces them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import safetensors.torch
import torch
from safetensors import SafetensorError

from sciml.core.disk import read_record
from sciml.core.errors import InputError, did_you_mean
from sciml.core.run.weights import (
    FILE,
    PICKLES,
    StoredWeights,
    check_finite,
    misfit_of,
    read_file,
    refuse_pickle,
    tensors_of,
    write_weights,
)
from sciml.operators.module import Module, changed, check_trusted, code_of, registered
from sciml.operators.operator import Operator, Options, Signature, architectures

KIND = "operator"
OLDER = "operator.json"
_OLDER_FORMAT = "sciml operator 1"
_OLDER_WEIGHTS = "operator-*.safetensors"
_OLDER_KEYS = {"format", "options", "signature", "provenance", "weights", "weights_sha256"}


def save_operator(operator: Operator, folder: str | Path) -> None:
    """Write an operator into ``folder``, in place of the one that may be there.

    Weights keep their dtype. Killed at any moment, this leaves the old operator or the new one.
    """
    folder = Path(folder)
    described = {
        "options": dataclasses.asdict(operator.options),  # type: ignore[call-overload]
        "signature": operator.signature.to_json(),
    }
    # Views of one storage are refused by safetensors; a copy of each is none.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in tensors_of(operator).items()
    }
    provenance = json.loads(json.dumps(operator.provenance, default=str))
    write_weights(folder / FILE, KIND, described, tensors, provenance)
    for older in (folder / OLDER, *folder.glob(_OLDER_WEIGHTS)):
        older.unlink(missing_ok=True)


def load_operator(path: str | Path, device: torch.device | str = "cpu") -> Operator:
    """The operator in a folder, or of its file; on ``device``, in eval mode.

    Raises InputError for a missing or damaged file, a pickle, an unknown architecture or option,
    weights that do not fit, and a network from elsewhere outside ``trusted``. Where its code has
    changed since the training, the operator's notes say so.
    """
    stored = _read(Path(path))
    file, described = stored.path, stored.options
    if not isinstance(described, dict) or set(described) != {"options", "signature"}:
        raise InputError(f"'{file}' describes no operator: it has not the keys of one")
    code = stored.provenance.get("code") or {}
    options = _read_options(described["options"], file, code)
    signature = _read_signature(described["signature"], file)
    # Copies: what is read may be mapped, and change with a file that is written in place.
    tensors = {name: value.clone() for name, value in stored.tensors.items()}
    try:
        if not code_of(options):  # others' code need not know that device, and is trusted
            # No memory is taken here, whatever the options say.
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                empty = Operator(options, signature, options.build(signature))
            _check_weights(empty, tensors)
        operator = Operator.build(options, signature)
        _check_weights(operator, tensors)
    except InputError as error:
        raise InputError(f"'{file}': {error.message}") from None
    operator.provenance = stored.provenance
    operator.notes = changed(options, code)
    if any(value.dtype == torch.float64 for value in tensors.values()):
        operator.double()  # what is not among the tensors follows them
    try:
        operator.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        said = str(error).splitlines()[-1].strip()
        raise InputError(f"'{file}': the weights do not fit these options: {said}") from None
    return operator.to(device).eval()


def _check_weights(operator: Operator, tensors: Mapping[str, torch.Tensor]) -> None:
    misfit = misfit_of(tensors_of(operator), tensors)
    if misfit is not None:
        raise InputError(f"the weights do not fit these options: {misfit}")


def _read(given: Path) -> StoredWeights:
    """What the user named, checked; its options are those of the operator and its signature."""
    refuse_pickle(given, f"a folder with {FILE}")
    if not given.exists():
        raise InputError(
            f"no operator at '{given}': there is no such file or folder; sciml train makes one"
        )
    file = given
    if given.is_dir():
        file = next((f for f in (given / FILE, given / OLDER) if f.is_file()), given / FILE)
    older = file.with_name(OLDER)
    if older.is_file() and (file == older or file.match(_OLDER_WEIGHTS)):
        return _read_older(older, given)
    if file.is_file() and file.suffix == ".safetensors":
        return read_file(file, KIND)
    if file.is_file():
        raise InputError(f"'{given}' is no operator; give its folder, '{given.parent}'")
    pickles = sorted(p.name for p in given.glob("*") if p.suffix.lower() in PICKLES)
    tail = f"; {pickles[0]} is refused, as a pickle can run any code" if pickles else ""
    tail = tail or "; name a folder that sciml train wrote"
    raise InputError(f"no operator at '{given}': '{file}' is missing{tail}")


def _read_older(file: Path, given: Path) -> StoredWeights:
    """What older versions wrote: a record, and the weights that it names, each under a hash."""
    try:
        record = read_record(file)
        if record.get("format") != _OLDER_FORMAT:
            raise ValueError(f"its format is not '{_OLDER_FORMAT}'")
        if set(record) != _OLDER_KEYS or Path(record["weights"]).name != record["weights"]:
            raise ValueError("it has not the keys of one")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{file}' describes no operator: {error}") from None
    weights = file.with_name(record["weights"])
    if given.is_file() and given not in (file, weights):
        raise InputError(f"'{given}' is no operator; give its folder, '{given.parent}'")
    if not weights.is_file():
        raise InputError(f"'{weights}' is missing: the weights that {OLDER} names")
    refuse_pickle(weights)
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != record["weights_sha256"]:
        raise InputError(f"'{weights}' was damaged or changed since it was written")
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise InputError(f"'{weights}' holds no weights: {error}") from None
    check_finite(tensors, weights)
    described = {name: record[name] for name in ("options", "signature")}
    return StoredWeights(file, described, tensors, record["provenance"])


def _read_signature(data: Any, file: Path) -> Signature:
    try:
        return Signature.from_json(data)
    except InputError as error:
        raise InputError(f"'{file}': {error.message}") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"'{file}' describes no operator: its signature: {error}") from None


def _read_options(data: Any, file: Path, code: Mapping[str, str] | None = None) -> Options:
    """The options of an architecture, of ``sciml.operators`` or from elsewhere."""
    kind = data.get("kind") if isinstance(data, dict) else None
    known: dict[str, Any] = {}
    own = architectures()
    if kind == Module.kind:
        check_trusted(str(data.get("import_")))
        own = [Module]
    elif kind not in {cls.kind for cls in own}:
        found = registered(str(kind), code or {})
        own = own if found is None else [found]
    for cls in own:
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
    if origin is Mapping and isinstance(data, dict):
        return {str(name): _value(arguments[1], v, f"{key}.{name}") for name, v in data.items()}
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
