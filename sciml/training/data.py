"""What an operator is trained on: stored samples, tensors, or problems solved meanwhile.

``open_data`` turns the options of a spec into :class:`TrainingData`: samples to learn from, samples
to validate on, and the signature of an operator between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, Literal, Union

import torch
from torch import Tensor
from torch.utils.data import Subset

from sciml.core.errors import InputError
from sciml.core.grid import SIDES, Box, Grid
from sciml.core.plain import dump
from sciml.datasets.family import Family
from sciml.datasets.loader import OperatorData, PointData, Times
from sciml.datasets.samples import attempt, numbers
from sciml.datasets.store import MANIFEST, Manifest, read_manifest
from sciml.datasets.stream import Stream
from sciml.operators.operator import Side, Signature
from sciml.training.stored import resolutions, source


@dataclass(frozen=True)
class Files:
    """Samples that ``sciml generate`` stored.

    folder: the dataset's. inputs, outputs: names of fields, the dataset's own if left out.
    shape: a stored resolution, or one within it; the folder's own if left out.
    train, valid: use the first so many samples. times: frames in and out of trajectories.
    points: train on values at so many points of the grid (DeepONet), the same for all samples if
    ``aligned``.
    """

    folder: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    train: int | None = None
    valid: int | None = None
    times: Times | None = None
    points: int | None = None
    aligned: bool = True
    kind: Literal["files"] = "files"

    def __post_init__(self) -> None:
        for name in ("train", "valid", "points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1; got {value}", f"data.{name}")


@dataclass(frozen=True)
class Fresh:
    """Problems of a family, solved while the network trains; no sample comes twice.

    batches: in an epoch. seed: of all samples. valid: validation samples, solved once.
    """

    family: Family
    batches: int
    seed: int = 0
    valid: int = 100
    times: Times | None = None
    kind: Literal["stream"] = "stream"

    def __post_init__(self) -> None:
        for name in ("batches", "valid"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} must be at least 1; got {getattr(self, name)}", f"data.{name}"
                )


@dataclass(frozen=True)
class TensorData:
    """Samples in memory: ``x (N, C, *grid)`` and ``y (N, C, *grid)``.

    With ``points``, (P, d) for all samples or (N, P, d), ``y`` is (N, C, P).
    """

    x: Tensor
    y: Tensor
    points: Tensor | None = None

    def __post_init__(self) -> None:
        own = [] if self.points is None or self.points.ndim == 2 else [self.points]
        if any(len(part) != len(self.x) for part in (self.y, *own)):
            raise InputError("inputs, outputs and points need the same number of samples", "data")
        if self.points is not None and self.points.shape[-2] != self.y.shape[-1]:
            raise InputError(
                f"there are {self.points.shape[-2]} points and values at {self.y.shape[-1]}", "data"
            )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = {"x": self.x[index], "y": self.y[index]}
        if self.points is None:
            return sample
        return {**sample, "points": self.points if self.points.ndim == 2 else self.points[index]}


Stored = Union[OperatorData, PointData, TensorData, Subset[dict[str, Tensor]]]  # noqa: UP007


@dataclass(frozen=True)
class TrainingData:
    """Samples to learn from and to validate on.

    batches: of a stream in an epoch. places: the dotted key in the problem of every input field,
    where known. spec: the problem as plain data. times: frames in and out, where they were named.
    valid is on the grid.
    """

    train: Stored | Stream
    valid: OperatorData | TensorData | Subset[dict[str, Tensor]] | None
    signature: Signature
    places: Mapping[str, str] = field(default_factory=dict)
    family: Family | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    batches: int = 0
    times: Times | None = None


def open_data(options: Files | Fresh, family: Family | None = None) -> TrainingData:
    """The data that the options name; ``family``: that of a stored dataset, where it is wanted.

    Raises InputError for missing files, fields and resolutions.
    """
    return _fresh(options) if isinstance(options, Fresh) else _stored(options, family)


def _stored(options: Files, family: Family | None) -> TrainingData:
    home, manifest = _manifest(Path(options.folder))
    spec = dict(manifest.spec)
    centring = spec.get("grid", {}).get("centring", "node")
    train, valid = (_split(options, home, manifest, centring, s) for s in ("train", "valid"))
    if train is None:
        raise InputError(f"'{options.folder}' has no split 'train'", "data.folder")
    samples: Stored = train
    if options.points is not None or not options.aligned:
        samples = PointData(train, options.points, options.aligned)
        if samples.frames > 1:
            raise InputError("values at points need one output frame, not several", "data.times")
    header = train.reader.header
    grid = _grid(train, centring, spec)
    return TrainingData(
        train=_first(samples, options.train, "train"),
        valid=None if valid is None else _first(valid, options.valid, "valid"),
        signature=Signature(
            train.input_channels,
            train.output_channels,
            grid,
            _ends(header.boundary, len(grid.shape)),
        ),
        places=dict(spec.get("dataset", {}).get("inputs", {}) if family is None else family.inputs),
        family=family,
        spec=dict(spec.get("problem", {})),
        name=header.name or home.name,
        times=options.times,
    )


def _manifest(folder: Path) -> tuple[Path, Manifest]:
    """The dataset's own folder, of which ``folder`` may be a resolution, and its manifest."""
    home = folder
    if folder.name.startswith("at-") and not (folder / MANIFEST).is_file():
        home = folder.parent
    manifest = read_manifest(home)
    if manifest is None:
        raise InputError(
            f"'{folder}' is no dataset: no {MANIFEST}; sciml generate makes one", "data.folder"
        )
    return home, manifest


def _split(
    options: Files, home: Path, manifest: Manifest, centring: str, split: str
) -> OperatorData | None:
    """A split at the resolution asked for; None where the dataset has no such split."""
    if split not in {entry.split for entry in manifest.shards if entry.samples}:
        return None
    place, step = Path(options.folder), 1
    if options.shape is not None:
        place, step = source(resolutions(home, split), options.shape, centring, "data.shape")
    return OperatorData(place, split, options.inputs, options.outputs, step, times=options.times)


def _first(data: Any, count: int | None, name: str) -> Any:
    if count is None or count == len(data):
        return data
    if count > len(data):
        raise InputError(
            f"{count} samples were asked for; there are {len(data)} in {name}", f"data.{name}"
        )
    return Subset(data, range(count))


def _grid(data: OperatorData, centring: Literal["node", "cell"], spec: Mapping[str, Any]) -> Grid:
    """The data's points, on the problem's domain where it is known."""
    domain = spec.get("problem", {}).get("domain")
    if domain:
        return Grid(data.shape, centring, Box(tuple(domain["lower"]), tuple(domain["upper"])))
    half = [
        (axis[-1] - axis[0]) / (len(axis) - 1) / 2 if centring == "cell" else 0.0
        for axis in data.axes
    ]
    lower = tuple(float(axis[0] - h) for axis, h in zip(data.axes, half, strict=True))
    upper = tuple(float(axis[-1] + h) for axis, h in zip(data.axes, half, strict=True))
    return Grid(data.shape, centring, Box(lower, upper))


def _ends(boundary: Mapping[str, str], dimension: int) -> tuple[Side, ...]:
    """How the outputs behave at both ends of every axis."""
    found: list[Side] = []
    for pair in SIDES[:dimension]:
        kinds = {boundary.get(side, "neumann") for side in pair}
        if kinds == {"periodic"}:
            found.append("periodic")
        else:
            found.append("dirichlet" if kinds == {"dirichlet"} else "neumann")
    return tuple(found)


def _fresh(options: Fresh) -> TrainingData:
    family, times = options.family, options.times or Times()
    grid = family.on_grid
    first = numbers("valid", 0, 1).start
    valid = next(
        iter(Stream(family, options.seed, options.valid, length=1, first=first, times=times))
    )
    shard = attempt(family, options.seed, [first]).accepted
    frames = 1 if family.problem.time is None else family.problem.time.frames
    resolved = times.resolved(frames)
    steady = (*family.inputs,)
    outputs = tuple(name for name in (shard.outputs if shard else ("u",)) for _ in resolved.outputs)
    boundary = {side: c.kind for side, c in family.problem.boundary.items()}
    return TrainingData(
        train=Stream(family, options.seed, times=times),
        valid=TensorData(valid["x"], valid["y"]),
        signature=Signature(steady, outputs, grid, _ends(boundary, len(grid.shape))),
        places=family.inputs,
        family=family,
        spec=dump(family.problem),
        name=family.dataset.name or family.problem.name,
        batches=options.batches,
        times=options.times,
    )


def stacked(data: Stored, count: int) -> TensorData:
    """The first ``count`` samples in memory."""
    if isinstance(data, TensorData):
        points = data.points
        if points is not None and points.ndim == 3:
            points = points[:count]
        return TensorData(data.x[:count], data.y[:count], points)
    first = data[0]
    shared = "points" in first and _points_of(data).aligned
    keys = [key for key in first if not (key == "points" and shared)]
    full = {key: torch.empty(count, *first[key].shape) for key in keys}
    for index in range(count):
        sample = data[index]
        for key, value in full.items():
            value[index] = sample[key]
    points = first["points"] if shared else full.get("points")
    return TensorData(full["x"], full["y"], points)


def _points_of(data: Any) -> PointData:
    found = data.dataset if isinstance(data, Subset) else data
    assert isinstance(found, PointData)
    return found


def on_grid(data: Stored) -> Stored:
    """The same samples with their outputs on the grid, where these are stored."""
    if isinstance(data, Subset) and isinstance(data.dataset, PointData):
        return Subset(data.dataset.data, data.indices)
    return data.data if isinstance(data, PointData) else data


def sample_bytes(data: Stored) -> int:
    """What one sample takes in memory."""
    return sum(4 * prod(value.shape) for value in data[0].values())
