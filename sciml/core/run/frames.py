"""Frames of a run in time: kept in memory, and in a file from which a killed run goes on.

The file is HDF5 with one contiguous dataset per component of the state, made whole for all frames
before the first one. After that its structure never changes: a frame and its SHA-256 are written to
their places in the file, flushed to the disk, and counted only then. Whenever the process dies,
what is counted is there, and any HDF5 reader opens it, also while the run goes on. A block before
HDF5's own says which bytes these are, and holds a hash of all others: a damaged file is refused
before HDF5 sees it, and of damaged frames a run goes on from the last whole one before.

Of a run that came to its end ``state.h5`` is kept beside the solution: the last frame, whole. The
same problem with a later end goes on from there, where the new frames up to the old end are among
the old ones. Where its steps end at the same instants, it is bit for bit one long run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Number
from pathlib import Path
from types import FunctionType
from typing import Any

import h5py
import numpy as np
import torch

from sciml.core.disk import atomic_write, check_room, digest, lock, refuse_links
from sciml.core.errors import InputError
from sciml.core.problem.problem import Problem, Time

FORMAT = "sciml frames 2"
_BLOCK = 2048  # bytes before HDF5's own; a power of two
_MARK = b"sciml frames 2 "
STATE = "state.h5"
_STATE_FORMAT = "sciml state 1"
_SAME = 1e-12  # of the time's length: instants that differ by less are the same


@dataclass(frozen=True)
class Lineage:
    """A run in time without its end: what a run of the same that ended earlier is known by.

    ``mark``: see :func:`lineage_of`. ``state``: the first part of a frame's state, from the value
    (*batch, [fields], *grid) of the solution there.
    """

    mark: str
    state: Callable[[torch.Tensor], torch.Tensor]


class Frames:
    """The states at ``times`` so far, each a tuple of tensors whose first is (*batch, *shape).

    ``states[-1]`` is whole; of the earlier states only the first component is kept in memory. With
    ``path`` they are also in that file; where it holds frames of the same ``fingerprint`` (a text
    that identifies problem, grid and solver) these are taken over, and ``count`` says how many.
    Where there is no such file, the frames of a run of the same ``lineage`` that ended earlier are,
    from ``state.h5`` and the solution beside it. Raises InputError where the file belongs to
    another run, is no such file, or is being written by another process.
    """

    def __init__(
        self,
        times: Sequence[float],
        path: str | Path | None = None,
        fingerprint: str = "",
        lineage: Lineage | None = None,
    ) -> None:
        self.times = tuple(float(t) for t in times)
        self.path = None if path is None else Path(path)
        self.fingerprint, self.lineage = fingerprint, lineage
        self.states: list[tuple[torch.Tensor, ...]] = []
        self._file: _File | None = None
        if self.path is not None and self.path.exists():
            self._file = _File(self.path)
            self.states = self._file.load(self.times, fingerprint)
            self._file.lock()
        elif self.path is not None and lineage is not None:
            self.states = _earlier(self.path.with_name(STATE), self.times, lineage)

    @property
    def count(self) -> int:
        """How many frames there are."""
        return len(self.states)

    @property
    def complete(self) -> bool:
        """Whether every frame is there."""
        return self.count == len(self.times)

    def append(self, *state: torch.Tensor) -> None:
        """Add the next frame; it is on the disk when this returns."""
        kept = tuple(part.detach().clone() for part in state)
        if self.path is not None:
            arrays = [np.asarray(part.cpu().numpy(), order="C") for part in kept]
            if self._file is None:
                marks = self.fingerprint, "" if self.lineage is None else self.lineage.mark
                with self._writing():
                    _create(self.path, self.times, marks, arrays)
                self._file = _File(self.path)
                self._file.lock()
                with self._writing():
                    self._write_earlier(self._file, arrays)
            with self._writing():
                self._file.write(self.count, arrays)
        if self.states:
            self.states[-1] = self.states[-1][:1]
        self.states.append(kept)

    def _write_earlier(self, file: _File, arrays: Sequence[np.ndarray]) -> None:
        """The frames of the run that went before; nothing but the last is whole."""
        for k, state in enumerate(self.states):
            known = [np.asarray(part.cpu().numpy(), order="C") for part in state]
            file.write(k, [*known, *(np.zeros_like(a) for a in arrays[len(known) :])])

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns a failing disk into an InputError that says what is kept."""
        try:
            yield
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
            raise InputError(
                f"cannot write '{self.path}': {reason}; {self.count} of {len(self.times)} frames "
                "are kept: run the same command again to go on",
                "frames",
            ) from None

    def stack(self, dimension: int) -> torch.Tensor:
        """The first components, (*batch, frames, *shape) for ``dimension`` trailing axes."""
        return torch.stack([state[0] for state in self.states], dim=-dimension - 1)


class _File:
    """A file of frames, open for writing: where in it each component of each frame lies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            parts = [file[f"state/{k}"] for k in range(len(file["state"]))]
            self.offsets = [part.id.get_offset() for part in parts]
            self.sizes = [p.dtype.itemsize * int(np.prod(p.shape[1:])) for p in parts]
            self.hashes_at = file["sha256"].id.get_offset()
            self.count_at = file["count"].id.get_offset()
        self.handle = os.open(path, os.O_RDWR)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)

    def load(self, times: tuple[float, ...], fingerprint: str) -> list[tuple[torch.Tensor, ...]]:
        """The frames that are counted; raises InputError for a file of another run."""
        with self._opened() as file:
            if file.attrs["fingerprint"] != fingerprint or tuple(file["times"][()]) != times:
                raise InputError(
                    f"'{self.path}' holds the frames of another problem, grid or solver; "
                    "name another file, or remove this one to start afresh",
                    "frames",
                )
            parts = [file[f"state/{k}"] for k in range(len(file["state"]))]
            states: list[tuple[torch.Tensor, ...]] = []
            for k in range(min(int(file["count"][0]), len(times))):
                arrays = [np.asarray(part[k], order="C") for part in parts]
                if _hash(k, arrays) != file["sha256"][k].tobytes():
                    break
                states = [state[:1] for state in states]
                states.append(tuple(map(torch.from_numpy, arrays)))
        return states

    def lock(self) -> None:
        """Keep other processes from writing; raises InputError where one is writing already."""
        # The system drops this lock when this process closes the file under any handle, so it
        # comes after the reading.
        if not lock(self.handle, of_process=True):
            raise InputError(
                f"'{self.path}' is being written by another run; give each its own file", "frames"
            )

    def write(self, index: int, arrays: Sequence[np.ndarray]) -> None:
        """Frame ``index``, on the disk before it is counted."""
        if [array.nbytes for array in arrays] != self.sizes:
            raise ValueError("a frame differs in shape from those before")
        for array, offset, size in zip(arrays, self.offsets, self.sizes, strict=True):
            self._put(array.reshape(-1).view(np.uint8), offset + index * size)
        mark = np.frombuffer(_hash(index, arrays), dtype=np.uint8)
        self._put(mark, self.hashes_at + index * mark.nbytes)
        os.fsync(self.handle)
        self._put(np.array([index + 1], dtype="<i8").view(np.uint8), self.count_at)
        os.fsync(self.handle)

    def _put(self, raw: np.ndarray, offset: int) -> None:
        left = memoryview(raw.data)
        while left:
            written = os.pwrite(self.handle, left, offset)
            left, offset = left[written:], offset + written

    def _opened(self) -> h5py.File:
        with open(self.path, "rb") as raw:
            block = raw.read(_BLOCK)
        if block.startswith(_MARK):
            _check(self.path, block)
        try:
            file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise InputError(f"'{self.path}' is not a readable HDF5 file", "frames") from error
        found = file.attrs.get("format")
        if found != FORMAT or not block.startswith(_MARK):
            file.close()
            old = isinstance(found, str) and found.startswith("sciml frames ")
            raise InputError(
                f"'{self.path}' holds frames of another version, without hashes; remove it to "
                "start afresh"
                if old
                else f"'{self.path}' holds no frames written by this package",
                "frames",
            )
        try:
            refuse_links(file, f"'{self.path}'", "frames")
        except InputError:
            file.close()
            raise
        return file


def keep_state(path: Path, solution: Path, hidden: bool = False) -> None:
    """Keep of the frames in ``path``, if all are there, the last one, whole, beside ``solution``.

    ``solution``: where the values of all frames are, but for some that are ``hidden``, as inside an
    obstacle: then the first part of every frame is kept too.
    """
    target = solution.with_name(STATE)
    target.unlink(missing_ok=True)
    if not path.exists():
        return
    with h5py.File(path, "r", locking=False) as file:
        mark, count = file.attrs.get("lineage", ""), int(file["count"][0])
        if not mark or count < len(file["times"]):
            return
        parts = [np.asarray(file[f"state/{k}"][count - 1]) for k in range(len(file["state"]))]
        times = file["times"][()]
        parts += [np.asarray(file["state/0"][()])] if hidden else []
    with atomic_write(target) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["format"], file.attrs["lineage"] = _STATE_FORMAT, mark
        file.attrs["solution"], file.attrs["of"] = digest(solution), solution.name
        file.attrs["sha256"] = _hash(len(times), [times, *parts]).hex()
        file.attrs["hidden"] = hidden
        file["times"] = times
        for k, part in enumerate(parts):
            file[f"state/{k}"] = part


def _earlier(
    path: Path, times: tuple[float, ...], lineage: Lineage
) -> list[tuple[torch.Tensor, ...]]:
    """The states of a finished run up to its end; none where these times do not go on from it."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["format"] != _STATE_FORMAT or file.attrs["lineage"] != lineage.mark:
                return []
            known = file["times"][()]
            parts = [np.asarray(file[f"state/{k}"][()]) for k in range(len(file["state"]))]
            whole = file.attrs["sha256"] == _hash(len(known), [known, *parts]).hex()
            own = parts.pop() if file.attrs["hidden"] else None
            values = path.with_name(Path(str(file.attrs["of"])).name)
            if not whole or not values.is_file() or digest(values) != file.attrs["solution"]:
                return []
        near = _SAME * (known[-1] - known[0])
        old = [t for t in times if t <= known[-1] + near]
        places = [int(np.abs(known - t).argmin()) for t in old]
        met = all(abs(known[k] - t) <= near for k, t in zip(places, old, strict=True))
        if not met or len(old) == len(times) or not old or places[-1] != len(known) - 1:
            return []
        if own is None:
            with h5py.File(values, "r", locking=False) as file:
                frames = np.moveaxis(file["u"][()], file["residual"].ndim, 0)
    except (OSError, KeyError, ValueError):
        return []
    if own is not None:
        first = [torch.from_numpy(own[k]) for k in places[:-1]]
    else:
        first = [lineage.state(torch.from_numpy(np.array(frames[k]))) for k in places[:-1]]
    return [*((value,) for value in first), tuple(map(torch.from_numpy, parts))]


def lineage_of(problem: Problem, *parts: Any) -> str:
    """A fingerprint of a problem in time that does not depend on its end and its frames."""
    assert problem.time is not None
    start = problem.time.start
    begun = replace(problem, time=Time(start + 1.0 + abs(start), start))
    return fingerprint(begun, problem.time.breaks, *parts)


def _create(
    path: Path,
    times: tuple[float, ...],
    marks: tuple[str, str],
    arrays: Sequence[np.ndarray],
) -> None:
    """The file with room for every frame and none of them yet."""
    check_room(path, len(times) * sum(array.nbytes for array in arrays))
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=_BLOCK) as file:
            file.attrs["format"] = FORMAT
            file.attrs["fingerprint"], file.attrs["lineage"] = marks
            file["times"] = np.array(times)
            file.create_group("state")
            parts = [
                _allocate(file, f"state/{k}", (len(times), *array.shape), array.dtype)
                for k, array in enumerate(arrays)
            ]
            parts.append(_allocate(file, "sha256", (len(times), 32), np.dtype("u1")))
            parts.append(_allocate(file, "count", (1,), np.dtype("<i8")))
            file["count"][0] = 0
        # What changes later is what is not hashed here.
        block = _block(temporary, sorted(parts))
        with open(temporary, "rb+") as raw:
            raw.write(block)


def _hash(index: int, arrays: Sequence[np.ndarray]) -> bytes:
    """Of a frame, its number included."""
    value = hashlib.sha256(index.to_bytes(8, "little"))
    for array in arrays:
        value.update(array.reshape(-1).view(np.uint8).data)
    return value.digest()


def _block(path: Path, parts: Sequence[Sequence[int]]) -> bytes:
    """The first bytes of a file: where the ``parts`` are that change, and the hash of the others.

    ``parts``: offset and size of each, in ascending order.
    """
    named = json.dumps([list(part) for part in parts])
    value = hashlib.sha256(named.encode())
    with open(path, "rb") as file:
        at, end = _BLOCK, path.stat().st_size
        for offset, size in (*parts, (end, 0)):
            file.seek(at)
            value.update(file.read(max(0, min(offset, end) - at)))
            at = offset + size
    block = _MARK + json.dumps({"parts": named, "sha256": value.hexdigest()}).encode()
    if len(block) > _BLOCK:
        raise ValueError(f"a state of {len(parts)} parts is too many to name")
    return block.ljust(_BLOCK, b"\0")


def _check(path: Path, block: bytes) -> None:
    """Raise InputError where a file of frames is damaged but for the frames themselves."""
    try:
        parts = json.loads(json.loads(block[len(_MARK) :].rstrip(b"\0"))["parts"])
        whole = block == _block(path, parts)
    except (ValueError, TypeError, KeyError, OSError):
        whole = False
    if not whole:
        raise InputError(
            f"'{path}' was damaged since it was written; remove it to start afresh", "frames"
        )


def _allocate(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[int, int]:
    """A contiguous dataset whose place in the file is fixed at once, its values left as holes.

    Returns where it begins and how many bytes it has.
    """
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_layout(h5py.h5d.CONTIGUOUS)
    options.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    options.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    kind = h5py.h5t.py_create(dtype, logical=True)
    made = h5py.h5d.create(file.id, name.encode(), kind, space, options)
    return made.get_offset(), int(np.prod(shape)) * dtype.itemsize


def fingerprint(*parts: Any) -> str:
    """A text that is the same where problem, grid, solver and data are the same.

    Dataclasses are taken field by field, tensors and arrays by their bytes, functions by their
    name and code, files by their size and time of change.
    """
    digest = hashlib.sha256()
    for part in parts:
        _digest(part, digest.update)
    return digest.hexdigest()


def _digest(part: Any, update: Callable[[bytes], None]) -> None:
    update(f"<{type(part).__name__}>".encode())
    if isinstance(part, (torch.Tensor, np.ndarray)):
        array = np.ascontiguousarray(torch.as_tensor(part).detach().cpu().numpy())
        update(f"{array.dtype}{array.shape}".encode())
        update(array.tobytes())
    elif is_dataclass(part) and not isinstance(part, type):
        for entry in fields(part):
            update(entry.name.encode())
            _digest(getattr(part, entry.name), update)
        if isinstance(getattr(part, "file", None), str):
            _digest_file(Path(part.file), update)  # type: ignore[attr-defined]
    elif isinstance(part, Mapping):
        for name in sorted(part, key=str):
            update(str(name).encode())
            _digest(part[name], update)
    elif isinstance(part, (list, tuple)):
        for entry in part:
            _digest(entry, update)
    elif isinstance(part, FunctionType):
        update(f"{part.__module__}.{part.__qualname__}".encode() + part.__code__.co_code)
        held = [cell.cell_contents for cell in part.__closure__ or ()]
        for value in (*part.__code__.co_consts, *held):
            if isinstance(value, (Number, str, torch.Tensor, np.ndarray)):
                _digest(value, update)
    else:
        update(repr(part).encode())


def _digest_file(path: Path, update: Callable[[bytes], None]) -> None:
    if path.is_file():
        found = path.stat()
        update(f"{found.st_size} {found.st_mtime_ns}".encode())
