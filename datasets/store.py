"""Shards of samples in HDF5, in the layout of The Well, and the manifest that vouches for them.

One shard holds consecutive samples of one split. Groups ``t0_fields`` (scalars), ``t1_fields``
(vectors) and ``t2_fields`` (matrices) hold float32 fields (sample, time, x, y[, z], *components),
without the axis time where a field does not vary in it; group ``scalars`` has one number per
sample. The coordinates stand at the root as dimension scales, which is what xarray reads, with
links to them in ``dimensions``; links ``tensor`` and ``nu`` are what PDEBench calls the first
output and the first input.

On a mesh ``grid_type`` is ``unstructured``: The Well's layout has no such grids; this is what lies
closest. A field is (sample, [time,] node, *components); ``dimensions`` holds ``points`` (node, d)
float64, where the values live, and ``cells`` (m, k) int64, the nodes of every element: its d + 1
corners first, for P2 then the middles of its edges. A boundary's group has a mask over the nodes
and, since the name of a group cannot hold all that a mesh's name can, its ``name``.

A damaged shard is an error, never wrong data: every array has checksums (Fletcher), and so has
the metadata of HDF5 1.10's format. Only texts of variable length have none. So a reader here takes
names from one attribute of fixed length, ``sciml``, and the others are there for other programs.
The manifest has the hash of every file, and its own. The same shard makes the same bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from sciml.core.disk import (
    atomic_write,
    check_room,
    digest,
    read_record,
    refuse_links,
    write_record,
)
from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES, SIDES

if TYPE_CHECKING:
    from sciml.core.problem.mesh import Mesh

FORMAT = "sciml dataset 1"
MANIFEST = "manifest.json"
_WELL = {
    "dirichlet": "WALL", "neumann": "WALL", "robin": "WALL",
    "absorbing": "OPEN", "periodic": "PERIODIC",
}  # fmt: skip
# A longer trajectory is read frame by frame.
_CHUNK_BYTES = 16_000_000
_TEXT = h5py.string_dtype()
# What h5py raises on damaged files.
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError)


@dataclass(frozen=True, eq=False)
class Unstructured:
    """``points`` (n, d) float64, ``cells`` (m, k) int64, and by boundary the nodes on it."""

    points: np.ndarray
    cells: np.ndarray
    sides: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, mesh: Mesh) -> Unstructured:
        """The nodes and elements of a mesh."""
        sides = {name: np.unique(mesh.facet_nodes(part)) for name, part in mesh.facets.items()}
        return cls(mesh.nodes, mesh.cell_nodes.astype(np.int64), sides)

    @property
    def dimension(self) -> int:
        """Number of space dimensions."""
        return int(self.points.shape[1])

    @property
    def mesh(self) -> Mesh:
        """The mesh again, without the names of its boundaries."""
        from sciml.core.problem.mesh import mesh_of

        return mesh_of(self.points, self.cells)

    def same(self, other: Unstructured) -> bool:
        """Whether nodes and elements are the very same."""
        return np.array_equal(self.points, other.points) and np.array_equal(self.cells, other.cells)


@dataclass(frozen=True)
class Shard:
    """Samples of one file.

    ``fields``: float arrays (sample, [time], *grid, *components) by name, of which ``constant``
    have no axis time; no components are a scalar field, one axis of them a vector, two a matrix.
    ``scalars``: (sample,). ``time``: (times,). ``axes``: the coordinates, one vector each; on a
    mesh there are none, ``mesh`` is given, and ``grid`` is (nodes,). ``boundary``: the kind of
    condition by side. ``indices``: the samples' numbers. ``residuals``: their true relative
    residuals. ``inputs`` and ``outputs`` name the fields that play these parts.
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
    mesh: Unstructured | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Points along each axis, or (nodes,)."""
        return tuple(map(len, self.axes)) if self.mesh is None else (len(self.mesh.points),)

    @property
    def dimension(self) -> int:
        """Number of space dimensions."""
        return len(self.axes) if self.mesh is None else self.mesh.dimension

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return len(self.indices)

    def order(self, name: str) -> int:
        """Axes of components of a field: 0 for a scalar, 1 for a vector, 2 for a matrix."""
        return self.fields[name].ndim - 1 - (name not in self.constant) - len(self.grid)


@dataclass(frozen=True)
class Header:
    """What a shard says of itself.

    ``orders``: the fields with their axes of components. ``holes``: fields that are NaN somewhere.
    The rest is as in :class:`Shard`.
    """

    name: str
    orders: Mapping[str, int]
    constant: tuple[str, ...]
    holes: tuple[str, ...]
    scalars: tuple[str, ...]
    boundary: Mapping[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def place(self, name: str) -> str:
        """Where a field or scalar stands in the file."""
        return f"t{self.orders[name]}_fields/{name}" if name in self.orders else f"scalars/{name}"


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
        write_record(folder / MANIFEST, {"format": FORMAT, **asdict(self)})

    def check(self, folder: Path) -> None:
        """Raise InputError unless every shard is there with the hash that it had."""
        for entry in self.shards:
            if not entry.samples:
                continue  # nothing converged: there is no file
            if digest(existing(folder, entry)) != entry.sha256:
                raise InputError(
                    f"'{folder / entry.path}' was damaged or changed since it was written"
                )


def existing(folder: Path, entry: Entry) -> Path:
    """The file of an entry; raises InputError where it is missing."""
    path = folder / entry.path
    if not path.is_file():
        raise InputError(f"'{path}' is missing; make the dataset again by the same command")
    return path


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in ``folder``, or None; raises InputError for one that cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        record = read_record(path)
        if record.pop("format") != FORMAT:
            raise KeyError("format")
        shards = [Entry(**entry) for entry in record.pop("shards")]
        return Manifest(shards=shards, **record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is no manifest of a dataset: {error}") from None


def write_shard(path: Path, shard: Shard) -> str:
    """Write one shard atomically; returns its hash."""
    _check(shard)
    check_room(path, sum(4 * values.size for values in shard.fields.values()))
    with atomic_write(path) as temporary:
        with h5py.File(temporary, "w", libver="v110", track_order=True) as file:
            _write(file, shard)
        value = digest(temporary)
    return value


def _check(shard: Shard) -> None:
    for name, values in shard.fields.items():
        lead = (shard.samples,) if name in shard.constant else (shard.samples, len(shard.time))
        wanted = lead + shard.grid + (shard.dimension,) * max(shard.order(name), 0)
        if shard.order(name) > 2 or values.shape != wanted:
            raise InputError(f"the field {name} has shape {values.shape}; wanted {wanted}")
    for name, values in {**shard.scalars, "residual": shard.residuals}.items():
        if values.shape != (shard.samples,):
            raise InputError(f"the scalar {name} has shape {values.shape}; wanted one per sample")


def _write(file: h5py.File, shard: Shard) -> None:
    names = AXES[: len(shard.axes)]
    header = Header(
        name=shard.name,
        orders={name: shard.order(name) for name in shard.fields},
        constant=shard.constant,
        holes=tuple(name for name, values in shard.fields.items() if np.isnan(values).any()),
        scalars=tuple(shard.scalars),
        boundary=dict(shard.boundary),
        inputs=shard.inputs,
        outputs=shard.outputs,
    )
    file.attrs["sciml"] = np.bytes_(json.dumps({"format": FORMAT, **asdict(header)}))
    file.attrs["dataset_name"] = shard.name
    file.attrs["grid_type"] = "cartesian" if shard.mesh is None else "unstructured"
    file.attrs["n_spatial_dims"] = shard.dimension
    file.attrs["n_trajectories"] = shard.samples
    file.attrs["simulation_parameters"] = np.array(header.scalars, dtype=_TEXT)
    scales: dict[str, np.ndarray] = {
        "sample": shard.indices.astype(np.int64),
        "time": shard.time.astype(np.float32),
    }
    scales |= {name: axis.astype(np.float32) for name, axis in zip(names, shard.axes, strict=True)}
    for name, values in scales.items():
        file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
        file[name].make_scale(name)
    if shard.mesh is None:
        _write_dimensions(file, names)
        _write_boundary(file, shard.boundary, names)
    else:
        write_unstructured(file, shard.mesh, shard.boundary, _WELL)
    scalars = file.create_group("scalars")
    scalars.attrs["field_names"] = np.array(header.scalars, dtype=_TEXT)
    for name, values in shard.scalars.items():
        entry = _vector(scalars, name, values.astype(np.float32), file["sample"])
        entry.attrs.update(sample_varying=True, time_varying=False)
    _write_fields(file, shard, header)
    _vector(file, "residual", shard.residuals.astype(np.float64), file["sample"])


def _vector(group: h5py.Group, name: str, values: np.ndarray, scale: h5py.Dataset) -> h5py.Dataset:
    entry = group.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
    entry.dims[0].attach_scale(scale)
    return entry


def _write_dimensions(file: h5py.File, names: tuple[str, ...]) -> None:
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = list(names)
    for name in ("time", *names):
        group[name] = file[name]
        group[name].attrs.update(sample_varying=False, time_varying=False)
        # PDEBench's readers look for copies under these names.
        _vector(file, f"{name[0]}-coordinate", file[name][()], file[name])


def _write_boundary(file: h5py.File, boundary: Mapping[str, str], names: tuple[str, ...]) -> None:
    group = file.create_group("boundary_conditions")
    for name, sides in zip(names, SIDES, strict=False):
        for side, end in zip(sides, (0, -1), strict=True):
            if side not in boundary:
                continue
            entry = group.create_group(f"{name}_{side}")
            mask = np.zeros(len(file[name]), dtype=bool)
            mask[end] = True
            entry.attrs["associated_dims"] = [name]
            entry.attrs["associated_fields"] = np.array([], dtype=_TEXT)
            entry.attrs["bc_type"] = _WELL.get(boundary[side], "WALL")
            entry.attrs["exact_type"] = boundary[side]
            entry.attrs.update(sample_varying=False, time_varying=False)
            entry["mask"] = mask
            entry["mask"].dims[0].attach_scale(file[name])
            entry["values"] = np.zeros(1, dtype=np.float32)
            entry["values"].make_scale("values")


def write_unstructured(
    file: h5py.File, place: Unstructured, kinds: Mapping[str, str], well: Mapping[str, str]
) -> None:
    """Points, cells and boundaries, whose conditions are ``kinds``; ``well``: The Well's names."""
    n, d = place.points.shape
    _scale(file, "node", n)
    _scale(file, "cell", len(place.cells))
    _scale(file, f"corner_{place.cells.shape[1]}", place.cells.shape[1])
    _scale(file, f"component_{d}", d)
    _array(file, "points", place.points.astype(np.float64), ("node", f"component_{d}"))
    corners = f"corner_{place.cells.shape[1]}"
    _array(file, "cells", place.cells.astype(np.int64), ("cell", corners))
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = ["points"]
    for name in ("time", "points", "cells"):
        group[name] = file[name]
        group[name].attrs.update(sample_varying=False, time_varying=False)
    group = file.create_group("boundary_conditions")
    for number, (name, nodes) in enumerate(place.sides.items()):
        entry = group.create_group(f"{number}_" + re.sub(r"\W", "_", name))
        entry.attrs["name"] = np.bytes_(name.encode())
        entry.attrs["associated_dims"] = ["node"]
        entry.attrs["associated_fields"] = np.array([], dtype=h5py.string_dtype())
        entry.attrs["bc_type"] = well.get(kinds.get(name, ""), "WALL")
        entry.attrs["exact_type"] = kinds.get(name, "neumann")
        entry.attrs.update(sample_varying=False, time_varying=False)
        mask = np.zeros(n, dtype=bool)
        mask[nodes] = True
        entry.create_dataset("mask", data=mask, chunks=mask.shape, fletcher32=True)
        entry["mask"].dims[0].attach_scale(file["node"])


def read_unstructured(file: h5py.File) -> Unstructured | None:
    """The mesh of an open shard; None for one on a grid."""
    if "cells" not in file:
        return None
    sides = {
        bytes(entry.attrs["name"]).decode(): np.flatnonzero(entry["mask"][()])
        for entry in file["boundary_conditions"].values()
    }
    return Unstructured(file["points"][()], file["cells"][()], sides)


def _scale(file: h5py.File, name: str, count: int) -> None:
    if name not in file:
        file.create_dataset(name, data=np.arange(count), chunks=(count,), fletcher32=True)
        file[name].make_scale(name)


def _array(file: h5py.File, name: str, values: np.ndarray, scales: tuple[str, ...]) -> None:
    entry = file.create_dataset(name, data=values, chunks=values.shape, fletcher32=True)
    for position, scale in enumerate(scales):
        entry.dims[position].attach_scale(file[scale])


def _write_fields(file: h5py.File, shard: Shard, header: Header) -> None:
    names = AXES[: len(shard.axes)] if shard.mesh is None else ("node",)
    for order in range(3):
        group = file.create_group(f"t{order}_fields")
        fields = [name for name, own in header.orders.items() if own == order]
        group.attrs["field_names"] = np.array(fields, dtype=_TEXT)
    for name in header.orders:
        values = shard.fields[name].astype(np.float32)
        steady = name in shard.constant
        long = not steady and 4 * prod(values.shape[1:]) > _CHUNK_BYTES
        chunk = (1, 1, *values.shape[2:]) if long else (1, *values.shape[1:])
        entry = file.create_dataset(header.place(name), data=values, chunks=chunk, fletcher32=True)
        entry.attrs["dim_varying"] = [True] * len(names)
        entry.attrs.update(sample_varying=True, time_varying=not steady)
        scales = ("sample", *(() if steady else ("time",)), *names)
        for position, scale in enumerate(scales):
            entry.dims[position].attach_scale(file[scale])
        for position in range(len(scales), values.ndim):
            entry.dims[position].attach_scale(_components(file, values.shape[position]))
    for link, part in (("tensor", shard.outputs), ("nu", shard.inputs)):
        # PDEBench's readers know grids only.
        if shard.mesh is None and part and part[0] in header.orders:
            file[link] = file[header.place(part[0])]


def _components(file: h5py.File, count: int) -> h5py.Dataset:
    """The scale of an axis of components."""
    name = f"component_{count}"
    if name not in file:
        file.create_dataset(name, data=np.arange(count), chunks=(count,), fletcher32=True)
        file[name].make_scale(name)
    return file[name]


def read_header(file: h5py.File) -> Header:
    """What an open shard says of itself; raises KeyError or ValueError where it is foreign."""
    record: dict[str, Any] = json.loads(bytes(file.attrs["sciml"]))
    if record.pop("format") != FORMAT:
        raise ValueError("another format")
    lists = {key: tuple(value) for key, value in record.items() if isinstance(value, list)}
    return Header(**{**record, **lists})


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what HDF5 raises on a damaged or foreign file at ``path`` into an InputError."""
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"'{path}' is damaged, or no shard of a dataset: {error}") from None


def open_shard(path: Path) -> h5py.File:
    """A shard to read from; samples are read once, so that HDF5's cache would only copy them.

    Raises InputError where it keeps values in another file, beside what HDF5 raises.
    """
    file = h5py.File(path, "r", rdcc_nbytes=0, locking=False)
    try:
        refuse_links(file, str(path))
    except BaseException:
        file.close()
        raise
    return file


def read_shard(path: Path) -> Shard:
    """One shard, all of it in memory; raises InputError where it is damaged or foreign."""
    with explained(path), open_shard(path) as file:
        header = read_header(file)
        return Shard(
            name=header.name,
            fields={name: file[header.place(name)][()] for name in header.orders},
            constant=header.constant,
            scalars={name: file[header.place(name)][()] for name in header.scalars},
            time=file["time"][()],
            axes=tuple(file[name][()] for name in AXES if name in file),
            boundary=header.boundary,
            indices=file["sample"][()],
            residuals=file["residual"][()],
            inputs=header.inputs,
            outputs=header.outputs,
            mesh=read_unstructured(file),
        )
