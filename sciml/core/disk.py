"""Files on disk: written whole or not at all, sealed by a hash; a folder held by one run.

A file of ours in HDF5 begins with a block of 512 bytes (HDF5's user block, which every reader of
HDF5 skips) that holds a SHA-256 over all bytes after it. It is checked before HDF5 sees the file,
so that a damaged one is refused in one line: a library that follows a damaged length may fill the
memory or die. The hash is that of the hashes of 4 MB each, which are taken at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from sciml.core.errors import InputError

if TYPE_CHECKING:
    import h5py

BLOCK = 512  # bytes before HDF5's own; a power of two
_OVERHEAD = 1 << 17
_SEALED = b"sciml sealed 1 sha256 "
_PART = 1 << 22
_COMMENT = b"\n<!-- sciml sha256 %s -->\n"
_SUMS = ".sha256"
# As HDF5 and safetensors tell it, the older one last.
_NUMBER = re.compile(r"(?:errno = |os error |Os \{ code: )(\d+)")
# What atomic_write leaves when its process is killed.
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}(\.\w+)?")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix, renamed to it on leaving the block.

    The directory is made where it is missing. The temporary file is new and its name drawn, so that
    nobody can put a link in its place beforehand. When the block raises, it goes and ``path`` stays
    as it was. What libraries raise of a failing disk, each as it likes, is an OSError with its
    number.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_directory(path.parent)
    except Exception as error:
        found = _NUMBER.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_room(path: str | Path, size: int) -> None:
    """Raise OSError where a file of ``size`` bytes and HDF5's own 128 kB has no room at ``path``.

    HDF5 must not find out by itself: what it cannot close it keeps, and ends the process later.
    """
    place = Path(path).parent
    place.mkdir(parents=True, exist_ok=True)
    limits = {errno.EFBIG: _largest_file(), errno.ENOSPC: shutil.disk_usage(place).free}
    for number, room in limits.items():
        if size + _OVERHEAD > room:
            raise OSError(number, os.strerror(number), str(path))


def _largest_file() -> float:
    """The bytes that this process may write into a file; Windows sets no limit."""
    try:
        import resource
    except ImportError:
        return math.inf
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if most == resource.RLIM_INFINITY else most


def lock(handle: int, *, of_process: bool = False) -> bool:
    """Keep others from locking an open file or folder; False where one has.

    True where files cannot be locked. The lock goes when the handle is closed, or, ``of_process``,
    when this process closes the file under any handle: that is POSIX's, for files alone.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        (fcntl.lockf if of_process else fcntl.flock)(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _open_directory(directory: Path) -> int | None:
    """A handle, None where the system gives none for directories."""
    try:
        return os.open(directory, os.O_RDONLY)
    except PermissionError:
        if os.name == "nt":
            return None
        raise


def _sync_directory(directory: Path) -> None:
    handle = _open_directory(directory)
    if handle is not None:
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` as indented JSON; what JSON does not know is written as its text."""
    write_text(path, json.dumps(record, indent=2, default=str) + "\n")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write ``record`` as JSON with a hash of it, ``sha256``."""
    plain = json.loads(json.dumps(record, default=str))
    write_json(path, {**plain, "sha256": hash_of(plain)})


def read_record(path: Path, *, sealed: bool = True) -> dict[str, Any]:
    """What :func:`write_record` wrote, without the hash; raises ValueError where it is not that.

    ``sealed``: whether there must be a hash; one that is there is checked in any case.
    """
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError("it was written by another program")
    stored = record.pop("sha256", None)
    if (sealed or stored is not None) and stored != hash_of(record):
        raise ValueError("it was damaged or edited since it was written")
    return record


def hash_of(record: Mapping[str, Any]) -> str:
    """The SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def remove_litter(paths: Iterable[Path]) -> None:
    """Take away those files that killed processes were writing."""
    for path in [p for p in paths if _TEMPORARY.fullmatch(p.name)]:
        path.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path, doing: str) -> Iterator[None]:
    """The folder, made where missing and held against a second run; a killed run's litter goes.

    ``doing``: such as "solving in". Raises InputError where another process holds it. The lock goes
    with the process, however it dies. A folder that is still empty at the end goes again.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open_directory(folder)
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror}", "out") from None
    try:
        if handle is not None and not lock(handle):
            raise InputError(
                f"another run is {doing} '{folder}'; wait for it, or name another folder", "out"
            )
        remove_litter((*folder.glob(".*"), *folder.glob("*/.*")))
        yield
    finally:
        if handle is not None:
            os.close(handle)
        with suppress(OSError):
            for place in missing:
                place.rmdir()


def digest(path: Path) -> str:
    """The SHA-256 hash of a file; of a sealed one that which it is sealed by, unchecked."""
    with open(path, "rb") as file:
        block = file.read(BLOCK)
        if block.startswith(_SEALED):
            return block[len(_SEALED) :][:64].decode("ascii", "replace")
        value = hashlib.sha256(block)
        while part := file.read(1 << 20):
            value.update(part)
    return value.hexdigest()


def seal(path: Path) -> None:
    """Fill the first block of a file with the hash of what follows."""
    with open(path, "rb+") as file, ThreadPoolExecutor(1) as pool:
        # The disk works while the processor does.
        flushed = pool.submit(os.fsync, file.fileno())
        block = _block(_hash_of_rest(path))
        flushed.result()
        file.write(block)


def is_sealed(path: Path) -> bool:
    """Whether a file is sealed and whole; raises InputError where it is sealed and damaged."""
    with open(path, "rb") as file:
        block = file.read(BLOCK)
    if not block.startswith(_SEALED[:6]):
        return False
    if block != _block(_hash_of_rest(path)):
        raise InputError(f"'{path}' was damaged or changed since it was written")
    return True


def as_attribute(name: str) -> str:
    """A name as it stands between the double quotes of XML; meshio writes it as it is given."""
    return escape(name, {'"': "&quot;"})


def seal_xml(path: Path) -> None:
    """Append the hash of an XML file to it, as a comment, which every reader of XML skips."""
    with open(path, "rb") as file:
        value = _hash_of_part(path, 0, file.seek(0, os.SEEK_END))
    with open(path, "ab") as file:
        file.write(_COMMENT % value.encode())


def check_xml(path: Path) -> None:
    """Raise InputError where an XML file of ours is damaged; one without a hash may be anybody's.

    A fault in the comment itself leaves the values as they were.
    """
    length = len(_COMMENT % (b"0" * 64))
    end = path.stat().st_size - length
    with open(path, "rb") as file:
        file.seek(max(0, end))
        tail = file.read(length)
    if (
        tail.startswith(_COMMENT.partition(b"%")[0])
        and tail != _COMMENT % _hash_of_part(path, 0, end).encode()
    ):
        raise InputError(f"'{path}' was damaged or changed since it was written")


class GrowingFile:
    """A text that grows by parts, each vouched for once it is there.

    Beside ``path`` lies ``path.sha256``: in its first line ``mark``, one line that says what the
    text is of; then for every part a line with the bytes up to its end, and the SHA-256 of mark and
    text up to there. That line is written after its part, so that a process that dies between the
    two leaves a part that nothing vouches for. Nothing is flushed to the disk: where the power
    fails, parts may be missing at the end.
    """

    def __init__(self, path: Path, mark: str, text: str) -> None:
        """Begin anew, with ``text``."""
        self.path, first = path, mark.encode() + b"\n"
        self._hash, self._size = hashlib.sha256(first), 0
        with atomic_write(path) as temporary:
            temporary.write_bytes(text.encode())
        with atomic_write(_sums_of(path)) as temporary:
            temporary.write_bytes(first + self._sum(text.encode()))
        self._text, self._sums = FileIO(path, "a"), FileIO(_sums_of(path), "a")

    def append(self, text: str) -> None:
        """Add a part; raises OSError, with the path, where the disk does not take it."""
        raw = text.encode()
        for file, left in ((self._text, raw), (self._sums, self._sum(raw))):
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(self.path)) from None

    def _sum(self, raw: bytes) -> bytes:
        self._hash.update(raw)
        self._size += len(raw)
        return _line(self._size, self._hash.hexdigest())

    def close(self) -> None:
        """Nothing more will come."""
        self._text.close()
        self._sums.close()


def vouched(path: Path) -> tuple[str, str]:
    """The mark of a :class:`GrowingFile`, and its text as far as it is what was written.

    Both empty where nothing is: a part whose hash is missing or another is not read, and what
    comes after a damaged one is not either.
    """
    try:
        raw = path.read_bytes()
        first, *lines = _sums_of(path).read_bytes().split(b"\n")
        mark = first.decode()
    except (OSError, UnicodeDecodeError):
        return "", ""
    value, hashed, whole = hashlib.sha256(first + b"\n"), 0, -1
    for line in lines:
        size = line.split(b" ")[0]
        if not size.isdigit() or len(size) > 18 or not hashed <= int(size) <= len(raw):
            continue
        value.update(raw[hashed : int(size)])
        hashed = int(size)
        if line + b"\n" == _line(hashed, value.hexdigest()):
            whole = hashed
    return (mark, raw[:whole].decode()) if whole >= 0 else ("", "")


def _sums_of(path: Path) -> Path:
    return path.with_name(path.name + _SUMS)


def _line(size: int, value: str) -> bytes:
    return f"{size} {value}\n".encode()


def _block(value: str) -> bytes:
    return (_SEALED + value.encode() + b"\n").ljust(BLOCK, b"\0")


def _hash_of_rest(path: Path) -> str:
    return _hash_of_part(path, BLOCK, path.stat().st_size)


def _hash_of_part(path: Path, first: int, end: int) -> str:
    """Of the bytes from ``first`` to ``end``."""

    def part(start: int) -> bytes:
        with open(path, "rb", buffering=0) as file:
            file.seek(start)
            return hashlib.sha256(file.read(min(_PART, end - start))).digest()

    starts = range(first, end, _PART)
    with ThreadPoolExecutor(max(1, min(8, len(starts)))) as pool:
        return hashlib.sha256(b"".join(pool.map(part, starts))).hexdigest()


def refuse_links(file: h5py.File, name: str, key: str | None = None) -> None:
    """Raise InputError where an HDF5 file keeps values in another one.

    That is an external link, external raw storage, or a virtual dataset: who made the file would
    choose what is read on this machine.
    """
    import h5py

    known: set[Any] = set()
    left = [file["/"]]
    while left:
        group = left.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in known:  # hard links may make a circle
            continue
        known.add(place)
        for entry in group:
            link = group.get(entry, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise InputError(f"{name}: '{entry}' links to another file", key)
            if isinstance(link, h5py.SoftLink):
                continue
            inner = group[entry]
            if isinstance(inner, h5py.Group):
                left.append(inner)
            elif isinstance(inner, h5py.Dataset) and (inner.external or inner.is_virtual):
                raise InputError(f"{name}: the values of '{entry}' lie in another file", key)
