"""Shards of samples in HDF5, in the layout of The Well, and the manifest that vouches for them.

One shard holds consecutive samples of one split. Its root has the coordinates as dimension scales,
so that xarray reads it; groups ``t0_fields`` (scalar), ``t1_fields`` and ``t2_fields`` hold float32
fields (sample, time, x, y[, z]), without the axis time where a field does not vary in it; group
``scalars`` one number per sample. Links ``tensor`` and ``nu`` at the root are what PDEBench calls
the first output and the first input.

A shard is written to a temporary file, flushed and renamed. Every chunk has a checksum, and the
manifest the hash of every file: a damaged shard is an error, never wrong data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sciml.core.errors import InputError
from sciml.core.files import atomic_write, write_json
from sciml.core.grid import AXES

FORMAT = "sciml dataset 1"
MANIFEST = "manifest.json"
_WELL = {"dirichlet": "WALL", "neumann": "WALL", "robin": "WALL", "absorbing": "OPEN"}


@dataclass(frozen=True)
class Shard:
    """Samples of one file.

    ``fields``: float arrays (sample, [time], *grid) by name, of which ``constant`` have no axis
    time. ``scalars``: (sample,). ``time``: (times,). ``axes``: the coordinates, one vector each.
    ``boundary``: the kind of condition by side. ``indices``: the samples' numbers. ``residuals``:
    their true relative residuals. ``inputs`` and ``outputs`` name the fields that play these parts.
    """

    name: str
    fields: Mapping[str, np.ndarray]
    constant: tuple[str, ...]
    scalars: Mapping[str, np.ndarray]
    time: np.ndarray
    axes: tuple[np.ndarray, ...]
    boundary: Mapping[str, str]
    indices: np.ndarray
    residuals: np.ndarray
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return len(self.indices)


@dataclass(frozen=True)
class Entry:
    """A finished shard in the manifest; ``path`` is relative to the dataset's folder."""

    path: str
    split: str
    samples: int
    sha256: str


@dataclass
class Manifest:
    """What a dataset was made from, and the shards that are done.

    ``spec``: the family as plain data. ``rejects``: sample numbers and why they were not stored.
    """

    spec: Mapping[str, Any]
    versions: Mapping[str, str]
    shards: list[Entry] = field(default_factory=list)
    rejects: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Replace the manifest in ``folder``, whole or not at all."""
        write_json(folder / MANIFEST, {"format": FORMAT, **asdict(self)})

    def check(self, folder: Path) -> None:
        """Raise InputError unless every shard is there with the hash that it had."""
        for entry in self.shards:
            path = folder / entry.path
            if not entry.samples:
                continue  # nothing converged: there is no file
            if not path.is_file():
                raise InputError(f"{path} is missing; make the dataset again by the same command")
            if digest(path) != entry.sha256:
                raise InputError(f"{path} was damaged or changed since it was written")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in ``folder``, or None; raises InputError for one that cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.pop("format") != FORMAT:
            raise KeyError("format")
        shards = [Entry(**entry) for entry in record.pop("shards")]
        return Manifest(shards=shards, **record)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no manifest of a dataset: {error}") from None


def digest(path: Path) -> str:
    """The SHA-256 hash of a file."""
    value = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def write_shard(path: Path, shard: Shard) -> str:
    """Write one shard atomically; returns its hash."""
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", track_order=True) as file:
            _write(file, shard)
        value = digest(temporary)
    return value


def _write(file: h5py.File, shard: Shard) -> None:
    dimension = len(shard.axes)
    names = AXES[:dimension]
    file.attrs.update(
        {
            "format": FORMAT,
            "dataset_name": shard.name,
            "grid_type": "cartesian",
            "n_spatial_dims": dimension,
            "n_trajectories": len(shard.indices),
            "simulation_parameters": list(shard.scalars),
            "inputs": list(shard.inputs),
            "outputs": list(shard.outputs),
        }
    )
    scales = {"sample": shard.indices.astype(np.int64), "time": shard.time.astype(np.float32)}
    scales |= {name: axis.astype(np.float32) for name, axis in zip(names, shard.axes, strict=True)}
    for name, values in scales.items():
        file.create_dataset(name, data=values).make_scale(name)
    _write_dimensions(file, names)
    _write_boundary(file, shard.boundary, names)
    scalars = file.create_group("scalars")
    scalars.attrs["field_names"] = list(shard.scalars)
    for name, values in shard.scalars.items():
        entry = scalars.create_dataset(name, data=values.astype(np.float32))
        entry.attrs.update(sample_varying=True, time_varying=False)
        entry.dims[0].attach_scale(file["sample"])
    _write_fields(file, shard, names)
    file.create_dataset("residual", data=shard.residuals.astype(np.float64))


def _write_dimensions(file: h5py.File, names: tuple[str, ...]) -> None:
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = list(names)
    for name in ("time", *names):
        group[name] = file[name]
        group[name].attrs.update(sample_varying=False, time_varying=False)
        # PDEBench's readers look for copies under these names.
        file.create_dataset(f"{name[0]}-coordinate", data=file[name][()])


def _write_boundary(file: h5py.File, boundary: Mapping[str, str], names: tuple[str, ...]) -> None:
    group = file.create_group("boundary_conditions")
    for axis, name in enumerate(names):
        pair = list(boundary.values())[2 * axis : 2 * axis + 2]
        size = len(file[name])
        for end, kind in zip(("lower", "upper"), pair, strict=True):
            entry = group.create_group(f"{name}_{end}_{kind}")
            mask = np.zeros(size, dtype=bool)
            mask[0 if end == "lower" else -1] = True
            entry.attrs.update(
                associated_dims=[name],
                associated_fields=np.array([], dtype=h5py.string_dtype()),
                bc_type="PERIODIC" if kind == "periodic" else _WELL[kind],
                exact_type=kind,
                sample_varying=False,
                time_varying=False,
            )
            entry["mask"] = mask
            entry["values"] = np.zeros(int(mask.sum()), dtype=np.float32)


def _write_fields(file: h5py.File, shard: Shard, names: tuple[str, ...]) -> None:
    group = file.create_group("t0_fields")
    group.attrs["field_names"] = list(shard.fields)
    for name, values in shard.fields.items():
        steady = name in shard.constant
        entry = group.create_dataset(
            name,
            data=values.astype(np.float32),
            chunks=(1, *values.shape[1:]),
            fletcher32=True,
        )
        entry.attrs.update(
            dim_varying=[True] * len(names), sample_varying=True, time_varying=not steady
        )
        for position, scale in enumerate(("sample", *(() if steady else ("time",)), *names)):
            entry.dims[position].attach_scale(file[scale])
    for order in (1, 2):
        file.create_group(f"t{order}_fields").attrs["field_names"] = np.array(
            [], dtype=h5py.string_dtype()
        )
    for link, part in (("tensor", shard.outputs), ("nu", shard.inputs)):
        if part and part[0] in shard.fields:
            file[link] = group[part[0]]


def read_shard(path: Path) -> Shard:
    """One shard, all of it in memory; raises InputError where it is damaged or foreign."""
    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except (OSError, KeyError) as error:
        raise InputError(f"{path} is damaged, or no shard of a dataset: {error}") from None


def _read(file: h5py.File) -> Shard:
    names = AXES[: int(file.attrs["n_spatial_dims"])]
    fields, constant = {}, []
    for name in file["t0_fields"].attrs["field_names"]:
        entry = file["t0_fields"][name]
        fields[str(name)] = entry[()]
        if not entry.attrs["time_varying"]:
            constant.append(str(name))
    boundary = {
        f"{name}_{end}": kind for name, end, kind in _boundary_names(file["boundary_conditions"])
    }
    return Shard(
        name=str(file.attrs["dataset_name"]),
        fields=fields,
        constant=tuple(constant),
        scalars={str(name): file["scalars"][name][()] for name in file["scalars"]},
        time=file["time"][()],
        axes=tuple(file[name][()] for name in names),
        boundary=boundary,
        indices=file["sample"][()],
        residuals=file["residual"][()],
        inputs=tuple(map(str, file.attrs["inputs"])),
        outputs=tuple(map(str, file.attrs["outputs"])),
    )


def _boundary_names(group: h5py.Group) -> Iterator[tuple[str, str, str]]:
    for name in group:
        axis, end, kind = name.split("_", 2)
        yield axis, end, kind
