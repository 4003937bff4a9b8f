"""Samples that another program wrote, read as they are: arrays in files, with no manifest of ours.

    .pt, .pth      {name: tensor}, as neuraloperator's pairs {"x": (N, H, W), "y": (N, H, W)};
                   tensors alone are unpickled, so that no file can run code
    .npz           arrays by name, as ``a_train``, ``u_train``, ``a_test``, ``u_test``
    .h5, .hdf5     PDEBench's three layouts, The Well's, or arrays by name at the root

Axes are known in PDEBench's and The Well's files. Elsewhere arrays are (N, X), (N, H, W) or, with
channels first, (N, C, H, W) and (N, C, X, Y, Z); what cannot be told has to be named.

*Splits.* Where the names of files, of the folders they lie in, or of arrays say train, valid or
test, these are the splits. Else all samples, in the order of the files, are one pool: the first
eight tenths to train on, a tenth to validate, the rest to test, or as many as are asked for.

*Places.* PDEBench's coordinates are centres of cells, and so are those of periodic axes, whose last
point is not the first again; all others are nodes, on [0, 1] where no coordinates are given. Grids
are uniform. Who wrote the file knows the equation, the file does not: nothing is certified.

PDEBench: Takamoto et al. 2022. The Well: Ohana et al. 2024.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch

from sciml.core.disk import digest, refuse_links
from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import AXES, SIDES
from sciml.datasets.store import MANIFEST, Entry, Header, Manifest, Shard, write_shard

TENSORS, HDF5 = (".pt", ".pth"), (".h5", ".hdf5", ".hdf", ".he5")
SUFFIXES = (*TENSORS, ".npz", *HDF5)
NAMES = ("sample", "time", "channel", *AXES)  # of axes, as ``axes`` has them
_SPLITS = {
    "train": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "test": "test",
}
_WORD = re.compile(rf"(?:^|[^a-z])({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?![a-z])")
_PAIRS = (("x", "y"), ("a", "u"), ("input", "output"), ("inputs", "outputs"))
_FLUID = ("density", "Vx", "Vy", "Vz", "pressure")
_USUAL = {
    1: ("sample",),
    2: ("sample", "x"),
    3: ("sample", "x", "y"),
    4: ("sample", "channel", "x", "y"),
    5: ("sample", "channel", "x", "y", "z"),
}
_ENDS = ("dirichlet", "neumann", "periodic")
_SHARE = (0.8, 0.1)  # of a pool, to train on and to validate
_SHARD_BYTES = 64_000_000


@dataclass(frozen=True)
class Foreign:
    """Samples that another program wrote: ``path`` is a file, or a folder of them.

    ``axes``: names of the arrays' axes, of sample, time, channel, x, y, z; an array may lack time
    or channel. ``boundary``: one per axis of space, how the functions end there. ``train``,
    ``valid``: how many samples of a pool. ``grid``: which of several resolutions.
    """

    path: Path
    axes: tuple[str, ...] = ()
    boundary: tuple[str, ...] = ()
    train: int | None = None
    valid: int | None = None
    grid: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """The path, as errors name it."""
        return str(self.path)


def is_foreign(path: Path) -> bool:
    """Whether ``path`` is a file of data that is not ours, or a folder of such files."""
    if path.is_dir():
        ours = any((home / MANIFEST).is_file() for home in (path, path.parent))
        return not ours and (_is_zarr(path) or next(_inside(path), None) is not None)
    return path.suffix.lower() in SUFFIXES


def is_solution(path: Path) -> bool:
    """Whether an HDF5 file is an answer of ours, or damaged, and no data to train on."""
    if path.suffix.lower() not in HDF5 or not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file.userblock_size) > 0  # which holds the hash of the rest
    except OSError:
        return True


def digests(path: Path) -> dict[str, str]:
    """The SHA-256 of every file of data, by its name relative to ``path``."""
    if path.is_file():
        return {path.name: digest(path)}
    return {str(file.relative_to(path)): digest(file) for file in _files(path)}


@dataclass(frozen=True, eq=False)
class Field:
    """An array, whole or in a file, and the names of its axes."""

    values: Any
    axes: tuple[str, ...]

    @property
    def grid(self) -> tuple[int, ...]:
        """Points along each axis of space."""
        return tuple(self._size(name) for name in AXES if name in self.axes)

    @property
    def components(self) -> tuple[int, ...]:
        """Sizes of the axes of channels."""
        return tuple(n for n, a in zip(self._shape, self.axes, strict=True) if _is_channel(a))

    @property
    def samples(self) -> int | None:
        """How many; None where one function is that of all samples."""
        return self._size("sample") if "sample" in self.axes else None

    @property
    def frames(self) -> int | None:
        """How many; None where it does not vary in time."""
        return self._size("time") if "time" in self.axes else None

    def read(self, row: int, span: slice | None) -> np.ndarray:
        """One sample, ([time], *grid, *components), float32; of its frames those of ``span``."""
        index: list[Any] = [slice(None)] * len(self.axes)
        kept = list(self.axes)
        if "sample" in self.axes:
            index[self.axes.index("sample")] = row
            kept.remove("sample")
        if span is not None and "time" in self.axes:
            index[self.axes.index("time")] = span
        with np.errstate(over="ignore"):  # told as what is not finite
            found = np.asarray(self.values[tuple(index)], dtype=np.float32)
        order = sorted(range(len(kept)), key=lambda k: _rank(kept[k]))
        return found.transpose(order)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape)

    def _size(self, name: str) -> int:
        return self._shape[self.axes.index(name)]


def _is_channel(axis: str) -> bool:
    return axis.startswith("channel")


def _rank(axis: str) -> tuple[int, str]:
    """Time first, then space, then channels."""
    return (2 if _is_channel(axis) else 0 if axis == "time" else 1, axis)


class _Stack:
    """Arrays of one shape, one per sample, as one array with samples first."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.dtype = parts, parts[0].dtype
        self.shape = (len(parts), *parts[0].shape)
        odd = next((part for part in parts if part.shape != parts[0].shape), None)
        if odd is not None:
            raise ValueError(f"its samples differ: {odd.shape} is not {parts[0].shape}")

    def __getitem__(self, index: tuple[Any, ...]) -> Any:
        return self.parts[index[0]][index[1:]]


@dataclass(frozen=True, eq=False)
class _Part:
    """What one file holds of one split; ``split`` is empty where nothing says which.

    ``axes``: coordinates by name, where the file has them. ``boundary``: the condition by side.
    """

    path: Path
    layout: str
    fields: Mapping[str, Field]
    split: str = ""
    time: np.ndarray | None = None
    axes: Mapping[str, np.ndarray] | None = None
    boundary: Mapping[str, str] | None = None
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, ...]:
        return next((f.grid for f in self.fields.values() if f.grid), ())

    @property
    def samples(self) -> int:
        return next(f.samples for f in self.fields.values() if f.samples is not None)

    @property
    def frames(self) -> int:
        return next((f.frames for f in self.fields.values() if f.frames is not None), 1)


class ForeignSamples:
    """One split of foreign files, read sample by sample, as :class:`Shards` reads ours.

    Raises InputError, in one line, for files that hold no samples, whose arrays do not fit each
    other, or whose axes cannot be told; and, when it is read, for a sample that is not finite.
    """

    mesh = None

    def __init__(self, given: Foreign, split: str) -> None:
        parts = _parts(given)
        stated = {part.split for part in parts}
        if "" in stated and len(stated) > 1:
            lost = next(part for part in parts if not part.split)
            raise InputError(f"'{lost.path}' does not say whether it is train, valid or test")
        self.stated = "" not in stated
        if self.stated and split not in stated:
            known = sorted(stated)
            raise InputError(f"'{given}' has no split '{split}'{did_you_mean(split, known)}")
        parts = [p for p in parts if not self.stated or p.split == split]
        parts = _of_one_grid(given, parts)
        first = parts[0]
        for part in parts[1:]:
            _check_alike(first, part)
        self.given, self.first, self.split = given, first, split
        self.ends = list(accumulate(part.samples for part in parts))
        self.rows = range(self.ends[-1])
        if not self.stated:
            self.rows = _share(self.ends[-1], given, split)
        self._parts, self._process = parts, os.getpid()
        periodic = _ends(given, first)
        self.centring: Literal["node", "cell"] = (
            "cell" if first.layout == "PDEBench" or "periodic" in periodic.values() else "node"
        )
        self.axes = _coordinates(first, self.centring)
        self.time = np.arange(first.frames) if first.time is None else first.time
        self.components = {name: field.components for name, field in first.fields.items()}
        scalars = tuple(n for n, f in first.fields.items() if not f.grid)
        fields = {name: f for name, f in first.fields.items() if name not in scalars}
        inputs, outputs = _ends_of(first, tuple(fields))
        self.header = Header(
            name=given.path.stem,
            orders={name: len(field.components) for name, field in fields.items()},
            constant=tuple(name for name, field in fields.items() if field.frames is None),
            holes=(),
            scalars=scalars,
            boundary=periodic,
            inputs=inputs,
            outputs=outputs,
        )

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, sample: int, spans: Mapping[str, slice | None]) -> dict[str, np.ndarray]:
        """Fields and scalars of one sample; of those with a slice, these frames."""
        if self._process != os.getpid():  # forked: the parent's handles are not ours
            again = ForeignSamples(self.given, self.split)
            self._parts, self._process = again._parts, os.getpid()
        number = self.rows[sample]
        k = bisect_right(self.ends, number)
        row, part = number - (self.ends[k - 1] if k else 0), self._parts[k]
        found = {}
        for name, span in spans.items():
            with _explained(part.path):
                found[name] = part.fields[name].read(row, span)
            if not np.isfinite(found[name]).all():
                raise InputError(f"'{part.path}': sample {row} of '{name}' is not finite")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": [], "_process": -1}


def foreign_splits(given: Foreign) -> tuple[str, ...]:
    """The splits that have samples."""
    stated, parts = stated_splits(given), _parts(given)
    if stated:
        return stated
    total = sum(p.samples for p in _of_one_grid(given, parts))
    return tuple(s for s in ("train", "valid", "test") if len(_span(total, given, s)))


def stated_splits(given: Foreign) -> tuple[str, ...]:
    """The splits that the names of files, folders or arrays say; none of a pool."""
    stated = {part.split for part in _parts(given)}
    return tuple(s for s in ("train", "valid", "test") if s in stated)


def foreign_grids(given: Foreign, split: str) -> tuple[tuple[int, ...], ...]:
    """The grids that there are files of a split on; those of a pool for every split."""
    parts = _parts(given)
    stated = any(part.split for part in parts)
    return tuple(sorted({p.grid for p in parts if not stated or p.split == split}))


def _share(total: int, given: Foreign, split: str) -> range:
    """The samples of a pool that are a split's; InputError where there are none."""
    found = _span(total, given, split)
    if not len(found):
        raise InputError(
            f"'{given}' has no samples left for the split '{split}': it holds {total}; say how "
            "many by train and valid, or name other files"
        )
    return found


def _span(total: int, given: Foreign, split: str) -> range:
    if split not in ("train", "valid", "test"):
        raise InputError(
            f"'{given}' has no split '{split}'{did_you_mean(split, ('train', 'valid', 'test'))}"
        )
    valid = int(_SHARE[1] * total) if given.valid is None else given.valid
    train = max(1, int(_SHARE[0] * total)) if given.train is None else given.train
    if given.train is None:
        train = max(1, min(train, total - valid))
    elif given.valid is None:
        valid = min(valid, total - train)
    if train > total or train + valid > total:
        key = "data.train" if train > total else "data.valid"
        raise InputError(
            f"{train} samples to train on and {max(valid, 0)} to validate were asked for; there "
            f"are {total} in '{given}'",
            key,
        )
    ends = {"train": (0, train), "valid": (train, train + valid), "test": (train + valid, total)}
    return range(*ends[split])


def _of_one_grid(given: Foreign, parts: Sequence[_Part]) -> list[_Part]:
    grids = sorted({part.grid for part in parts})
    if given.grid is not None:
        return [part for part in parts if part.grid == given.grid]
    if len(grids) > 1:
        known = ", ".join(str(list(grid)) for grid in grids)
        raise InputError(f"'{given}' is there on several grids, {known}: say shape:", "data.shape")
    return list(parts)


def _check_alike(first: _Part, part: _Part) -> None:
    """Raise InputError unless a file has the fields of the first."""
    own, other = (
        {n: (f.grid, f.components, f.frames) for n, f in p.fields.items()} for p in (first, part)
    )
    if own != other:
        raise InputError(
            f"'{part.path}' does not hold what '{first.path}' does: {other}, not {own}"
        )


def _ends_of(part: _Part, fields: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Inputs and outputs, where the layout or the usual names say them."""
    if part.inputs or part.outputs:
        return part.inputs, part.outputs
    for pair in _PAIRS:
        if set(pair) <= set(fields):
            return (pair[0],), (pair[1],)
    return (), ()


def _ends(given: Foreign, part: _Part) -> dict[str, str]:
    """The condition by side: as it was given, else as the file says."""
    if not given.boundary:
        return dict(part.boundary or {})
    if len(given.boundary) != len(part.grid):
        raise InputError(
            f"boundary needs one entry per axis, of which '{given}' has {len(part.grid)}; got "
            f"{list(given.boundary)}",
            "data.boundary",
        )
    for kind in given.boundary:
        if kind not in _ENDS:
            message = f"unknown boundary '{kind}'{did_you_mean(kind, _ENDS)}"
            raise InputError(message, "data.boundary")
    pairs = zip(SIDES, given.boundary, strict=False)
    return {side: kind for sides, kind in pairs for side in sides}


def _coordinates(part: _Part, centring: str) -> tuple[np.ndarray, ...]:
    """Positions along each axis; InputError where they are no uniform grid."""
    found = []
    for name, n in zip(AXES, part.grid, strict=False):
        if n < 2:
            raise InputError(f"'{part.path}' has {n} point along {name}; a grid needs 2 at least")
        axis = (part.axes or {}).get(name)
        if axis is None:
            unit = np.linspace(0, 1, n) if centring == "node" else (np.arange(n) + 0.5) / n
            found.append(unit)
            continue
        axis = np.ravel(axis).astype(np.float64)
        if len(axis) not in (n, n + 1):
            raise InputError(
                f"'{part.path}' has {len(axis)} coordinates along {name} and values at {n} points"
            )
        axis = axis[:n]
        step = (axis[-1] - axis[0]) / (n - 1)
        if not (step > 0 and np.abs(np.diff(axis) - step).max() <= 1e-2 * step):
            raise InputError(
                f"'{part.path}' has coordinates along {name} that are not uniform; operators here "
                "live on uniform grids: interpolate first"
            )
        found.append(axis)
    return tuple(found)


def _files(path: Path) -> list[Path]:
    if _is_zarr(path):
        raise InputError(
            f"'{path}' is a zarr store, which is not read; convert it once: python -c \"import "
            "numpy, zarr; numpy.savez('data.npz', **dict(zarr.open('STORE').arrays()))\""
        )
    if not path.exists():
        raise InputError(f"no data at '{path}': there is no such file or folder")
    found = [path] if path.is_file() else sorted(_inside(path))
    if not found:
        raise InputError(
            f"no data in '{path}': no file that ends in {', '.join(SUFFIXES)}, and no dataset, of "
            "which sciml generate makes one"
        )
    return found


def _inside(folder: Path) -> Iterator[Path]:
    """The files of data of a folder, and of its splits, which The Well has in ``data``."""
    splits = [f"{home}{split}/*" for home in ("", "data/") for split in _SPLITS]
    for pattern in ("*", *splits):
        for file in folder.glob(pattern):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield file


def _is_zarr(path: Path) -> bool:
    marks = (".zgroup", ".zarray", "zarr.json")
    return path.is_dir() and any((path / mark).is_file() for mark in marks)


def _parts(given: Foreign) -> list[_Part]:
    """What the files hold, in the order of their names."""
    _check_axes(given.axes)
    found: list[_Part] = []
    for file in _files(given.path):
        word = ""
        if given.path.is_dir():
            words = _WORD.findall(str(file.relative_to(given.path)).lower())
            word = _SPLITS[words[-1]] if words else ""
        for part in _read(file, given.axes):
            _check_fit(part)
            found.append(replace(part, split=part.split or word))
    return found


def _check_axes(axes: tuple[str, ...]) -> None:
    for name in axes:
        if name not in NAMES:
            raise InputError(f"unknown axis '{name}'{did_you_mean(name, NAMES)}", "data.axes")
    if axes and ("sample" not in axes or "x" not in axes or len(set(axes)) != len(axes)):
        raise InputError(
            f"axes need sample and x, each name once; got {', '.join(axes)}", "data.axes"
        )


def _check_fit(part: _Part) -> None:
    """Raise InputError where the arrays of one file are not values of the same samples."""
    for name, field in part.fields.items():
        if field.values.dtype.kind not in "biuf":
            raise InputError(f"'{part.path}': '{name}' is of type {field.values.dtype}, no numbers")
        if len(field.values.shape) != len(field.axes):
            raise InputError(
                f"'{part.path}': '{name}' has shape {list(field.values.shape)}, which is not "
                f"{', '.join(field.axes)}"
            )
    for what, of in (("samples", "samples"), ("frames", "frames")):
        sizes = {n: getattr(f, of) for n, f in part.fields.items() if getattr(f, of) is not None}
        _check_equal(part.path, what, sizes)
    _check_equal(part.path, "grid points", {n: f.grid for n, f in part.fields.items() if f.grid})
    if not any(f.grid for f in part.fields.values()):
        raise InputError(f"'{part.path}' has no function on a grid")
    if not any(f.samples is not None for f in part.fields.values()) or not part.samples:
        raise InputError(f"'{part.path}' is empty: it has no samples")


def _check_equal(path: Path, what: str, sizes: Mapping[str, Any]) -> None:
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{_shown(size)} in '{name}'" for name, size in sizes.items())
        raise InputError(f"'{path}': the numbers of {what} differ: {told}")


def _shown(size: Any) -> str:
    return " x ".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _read(path: Path, axes: tuple[str, ...]) -> list[_Part]:
    suffix = path.suffix.lower()
    if suffix in TENSORS:
        return _by_name(path, "tensors", _tensors(path), axes)
    if suffix == ".npz":
        return _by_name(path, "npz", _archive(path), axes)
    if suffix in HDF5:
        return _hdf5(path, axes)
    raise InputError(f"'{path}' is no file of data; one ends in {', '.join(SUFFIXES)}")


def _tensors(path: Path) -> dict[str, Any]:
    """The tensors of a file that torch.save wrote; whatever else it pickles is not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other protocols of pickle, which are refused
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"refused: '{path}' pickles more than tensors, and opening that can run any code; who "
            "trusts it writes torch.save({'x': x, 'y': y}, 'data.pt') with the tensors alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"'{path}' is damaged, or torch did not write it: {said}") from None
    if not isinstance(found, dict):
        raise InputError(
            f"'{path}' holds a {type(found).__name__}, not tensors by name; write "
            "torch.save({'x': x, 'y': y}, 'data.pt')"
        )
    arrays = {}
    for name, value in found.items():
        if isinstance(value, torch.Tensor):
            try:
                plain = value.detach()
                plain = plain.float() if plain.dtype == torch.bfloat16 else plain
                arrays[str(name)] = plain.resolve_conj().numpy()
            except (TypeError, RuntimeError, NotImplementedError):
                raise InputError(
                    f"'{path}': '{name}' is a tensor of type {value.dtype}, {value.layout}; write "
                    "dense numbers, as by .to_dense().float()"
                ) from None
    return arrays


def _archive(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"refused: '{path}' pickles objects, and opening that can run any code; write "
                "numpy.savez with arrays of numbers alone"
            ) from None
        raise InputError(f"'{path}' is no archive of NumPy's: {error}") from None


def _by_name(
    path: Path, layout: str, arrays: Mapping[str, Any], axes: tuple[str, ...]
) -> list[_Part]:
    """Arrays that are told apart by their names alone, some of which say a split."""
    numeric = {n: v for n, v in arrays.items() if getattr(v.dtype, "kind", "O") in "biuf"}
    lost = next((n for n, v in arrays.items() if getattr(v.dtype, "kind", "O") == "c"), None)
    if lost is not None:
        raise InputError(f"'{path}': '{lost}' is complex; write its real and imaginary parts")
    if not numeric:
        raise InputError(f"'{path}' is empty: it holds no arrays of numbers")
    split: dict[str, dict[str, Field]] = {}
    for name, values in numeric.items():
        stem, _, word = name.rpartition("_")
        chosen, own = (_SPLITS[word], stem) if stem and word in _SPLITS else ("", name)
        if values.ndim == 0:
            continue
        found = Field(values, _axes_of(path, name, values.shape, axes))
        split.setdefault(chosen, {})[own] = found
    if not split:
        raise InputError(f"'{path}' is empty: it holds no arrays of numbers")
    return [_Part(path, layout, fields, chosen) for chosen, fields in split.items()]


def _axes_of(
    path: Path, name: str, shape: tuple[int, ...], axes: tuple[str, ...]
) -> tuple[str, ...]:
    """The names of an array's axes; raises InputError where they cannot be told."""
    told = f"'{path}': the array '{name}' has shape {list(shape)}"
    if not axes:
        usual = _USUAL.get(len(shape))
        if usual is None:
            raise InputError(f"{told}; name its axes, of {', '.join(NAMES)}", "data.axes")
        space = [n for n, a in zip(shape, usual, strict=True) if a in AXES]
        odd = len(shape) == 3 and 4 * min(space) <= max(space)
        odd = odd or ("channel" in usual and shape[1] > min(space))
        if odd:
            raise InputError(
                f"{told}, which need not be {', '.join(usual)}; name its axes", "data.axes"
            )
        return usual
    if len(shape) == 1:
        return ("sample",)
    free = [a for a in ("channel", "time") if a in axes]
    missing = len(axes) - len(shape)
    if missing == 0:
        return axes
    if 0 < missing == len(free):
        return tuple(a for a in axes if a not in free)
    why = "it may lack time or channel" if 0 < missing < len(free) else f"axes names {len(axes)}"
    raise InputError(f"{told} and does not fit the axes {', '.join(axes)}: {why}", "data.axes")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (
        OSError,
        KeyError,
        IndexError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
    ) as error:
        raise InputError(f"'{path}' is damaged, or in no layout that is known: {error}") from None


def _hdf5(path: Path, axes: tuple[str, ...]) -> list[_Part]:
    with _explained(path):
        file = h5py.File(path, "r", locking=False)
        refuse_links(file, str(path))
        known = next((f for f in (_well, _pdebench) if f(file, path) is not None), None)
        if known is not None and axes:
            raise InputError(f"the axes of '{path}' are known; leave axes out", "data.axes")
        part = None if known is None else known(file, path)
        if part is not None:
            return [part]
        arrays = {n: file[n] for n in file if isinstance(file[n], h5py.Dataset)}
        return _by_name(path, "HDF5", arrays, axes)


def _pdebench(file: h5py.File, path: Path) -> _Part | None:
    """Samples first, time next: ``tensor`` with ``nu``, an array a field, or a group a sample."""
    seeds = sorted(k for k in file if isinstance(file[k], h5py.Group) and "data" in file[k])
    if seeds:
        stack = _Stack([file[key]["data"] for key in seeds])
        space = AXES[: len(stack.shape) - 3]
        fields = {"data": Field(stack, ("sample", "time", *space, "channel"))}
        stored = file[seeds[0]].get("grid", {})
        coordinates = {name: stored[name][()] for name in stored}
    else:
        found = {n: file[n] for n in ("tensor", *_FLUID) if n in file}
        if not found:
            return None
        fields = {n: Field(v, ("sample", "time", *AXES[: v.ndim - 2])) for n, v in found.items()}
        if "nu" in file:
            fields["nu"] = Field(file["nu"], ("sample", *AXES[: file["nu"].ndim - 1]))
        coordinates = {n[0]: file[n][()] for n in file if n.endswith("-coordinate")}
    outputs = tuple(n for n in fields if n != "nu")
    inputs = ("nu",) if "nu" in fields else outputs
    frames = next(iter(fields.values())).frames or 1
    # PDEBench's times are those of the steps' edges, one more than there are frames.
    time = np.ravel(coordinates["t"])[:frames] if "t" in coordinates else None
    return _Part(
        path, "PDEBench", fields, time=time, axes=coordinates, inputs=inputs, outputs=outputs
    )


def _well(file: h5py.File, path: Path) -> _Part | None:
    """Groups by the order of tensors, whose arrays say along which axes they vary."""
    if not {"t0_fields", "dimensions"} <= set(file):
        return None
    kind = file.attrs.get("grid_type", "cartesian")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind != "cartesian":
        raise InputError(f"'{path}' is on a grid of type '{kind}'; only cartesian ones are read")
    names = [str(n) for n in np.atleast_1d(file["dimensions"].attrs["spatial_dims"])]
    if len(names) > len(AXES):
        raise InputError(f"'{path}' has {len(names)} axes of space; three is the most")
    space = AXES[: len(names)]
    fields: dict[str, Field] = {}
    for order in range(3):
        for name, entry in file.get(f"t{order}_fields", {}).items():
            varying = zip(space, np.atleast_1d(entry.attrs["dim_varying"]), strict=True)
            if not all(bool(v) for _, v in varying):
                raise InputError(f"'{path}': '{name}' does not vary along every axis of space")
            fields[name] = Field(entry, (*_leading(entry), *space, *_channels(order)))
    for name, entry in file.get("scalars", {}).items():
        if isinstance(entry, h5py.Dataset) and _leading(entry) == ("sample",):
            fields[name] = Field(entry, ("sample",))
    stored = file["dimensions"]
    coordinates = {a: stored[n][()] for a, n in zip(space, names, strict=True) if n in stored}
    coordinates = {a: v for a, v in coordinates.items() if np.ndim(v) == 1}
    time = np.ravel(stored["time"][()]) if "time" in stored else None
    if time is not None and len(time) != next((f.frames for f in fields.values() if f.frames), 1):
        time = None
    moving = tuple(n for n, f in fields.items() if f.frames is not None and f.grid)
    still = tuple(n for n, f in fields.items() if f.frames is None and f.grid)
    return _Part(
        path, "The Well", fields, time=time, axes=coordinates, boundary=_walls(file, names),
        inputs=(*still, *moving), outputs=moving,
    )  # fmt: skip


def _leading(entry: h5py.Dataset) -> tuple[str, ...]:
    flags = (("sample", "sample_varying"), ("time", "time_varying"))
    return tuple(axis for axis, flag in flags if bool(entry.attrs.get(flag, True)))


def _channels(order: int) -> tuple[str, ...]:
    return ("channel", "channel2")[:order]


def _walls(file: h5py.File, names: Sequence[str]) -> dict[str, str]:
    """The condition by side: periodic, or what a file of ours says beside The Well's WALL."""
    found: dict[str, str] = {}
    for entry in file.get("boundary_conditions", {}).values():
        kind = entry.attrs.get("exact_type", entry.attrs.get("bc_type", ""))
        kind = (kind.decode() if isinstance(kind, bytes) else str(kind)).lower()
        for given in np.atleast_1d(entry.attrs.get("associated_dims", [])):
            name = given.decode() if isinstance(given, bytes) else str(given)
            if name in names and kind in ("periodic", "dirichlet", "neumann"):
                found |= dict.fromkeys(SIDES[list(names).index(name)], kind)
    return found


def shard_of(samples: ForeignSamples, rows: range) -> Shard:
    """Some samples in memory, a channel of more than the vectors' number as a field of its own."""
    header, time = samples.header, {n: slice(None) for n in samples.header.orders}
    spans: dict[str, slice | None] = {
        n: None if n in header.constant else s for n, s in time.items()
    }
    spans |= dict.fromkeys(header.scalars)
    read = [samples.read(row, spans) for row in rows]
    values = {name: np.stack([one[name] for one in read]) for name in spans}
    fields: dict[str, np.ndarray] = {}
    renamed: dict[str, tuple[str, ...]] = {}
    for name in header.orders:
        components = samples.components[name]
        if all(n == len(samples.axes) for n in components):
            fields[name], renamed[name] = values[name], (name,)
            continue
        several = {
            f"{name}{'_'.join(map(str, at))}": values[name][(..., *at)]
            for at in np.ndindex(components)
        }
        fields, renamed[name] = {**fields, **several}, tuple(several)
    constant = tuple(n for name in header.constant for n in renamed[name])
    return Shard(
        name=header.name,
        fields=fields,
        constant=constant,
        scalars={name: values[name] for name in header.scalars},
        time=np.asarray(samples.time),
        axes=samples.axes,
        boundary=header.boundary,
        indices=np.asarray(list(samples.rows))[list(rows)],
        residuals=np.full(len(rows), np.nan),
        inputs=tuple(n for name in header.inputs for n in renamed.get(name, (name,))),
        outputs=tuple(n for name in header.outputs for n in renamed.get(name, (name,))),
    )


def import_foreign(given: Foreign, out: Path) -> Manifest:
    """Write foreign samples into the folder ``out`` in our layout, each file under its hash.

    The finest grid that all splits have is the dataset's own; others are further resolutions. The
    manifest keeps the digests of what was read. Raises InputError for a folder that holds something
    already; where it raises, nothing is left there.
    """
    if out.exists() and any(out.iterdir()):
        raise InputError(f"'{out}' is not empty; name another folder", "--as")
    splits = foreign_splits(given)
    grids = {split: foreign_grids(given, split) for split in splits}
    common = set.intersection(*(set(found) for found in grids.values()))
    if not common:
        raise InputError(f"the splits of '{given}' have no grid in common; import each by itself")
    own = max(common, key=prod)
    source = {"path": str(given.path), "sha256": digests(given.path)}
    first = ForeignSamples(replace(given, grid=own), splits[0])
    manifest = Manifest({"grid": {"centring": first.centring}, "source": source}, {})
    try:
        for split in splits:
            for grid in grids[split]:
                home = "" if grid == own else f"at-{'x'.join(map(str, grid))}/"
                samples = ForeignSamples(replace(given, grid=grid), split)
                manifest.shards += _shards(samples, out, f"{home}data/{split}", split)
        manifest.write(out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # it was empty, or not there
        raise
    return manifest


def _shards(samples: ForeignSamples, out: Path, home: str, split: str) -> Iterator[Entry]:
    """Write a split, file by file."""
    sizes = sum(prod(field.values.shape) for field in samples.first.fields.values())
    step = max(1, _SHARD_BYTES * samples.first.samples // (4 * sizes))
    (out / home).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(samples), step)):
        rows = range(start, min(start + step, len(samples)))
        path = f"{home}/{number:05d}.hdf5"
        yield Entry(path, split, len(rows), write_shard(out / path, shard_of(samples, rows)))
