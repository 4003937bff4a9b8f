"""What an operator is trained and measured on: stored samples, tensors, problems solved meanwhile.

``open_data`` turns the options of a spec into :class:`TrainingData`: samples to learn from, samples
to validate on, and the signature of an operator between them. ``open_split`` gives an operator that
is there its functions, at the resolutions stored.

The batches of every epoch are a function of (seed, epoch) and of nothing else. Samples lie in one
tensor on the device where they fit into half of its free memory, else in the host's memory, else
they are read from their files by worker processes, one batch ahead. The three give the same
batches. Those of a stream are solved when they are asked for: batch k, counted through all epochs,
has the numbers from 2 B k on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, Literal, Protocol, Union

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from sciml.core.errors import InputError, did_you_mean
from sciml.core.memory import free_bytes
from sciml.core.problem.grid import SIDES, Box, Grid
from sciml.core.run.serialise import dump
from sciml.datasets.family import Family
from sciml.datasets.foreign import Foreign, ForeignSamples, digests, foreign_grids, stated_splits
from sciml.datasets.loader import OperatorData, PointData, Times, at_home, stored_splits
from sciml.datasets.samples import attempt, numbers
from sciml.datasets.store import MANIFEST, Manifest, read_manifest
from sciml.datasets.stream import Stream
from sciml.operators.operator import SIDES as ENDS
from sciml.operators.operator import Side, Signature
from sciml.training.distributed import World


@dataclass(frozen=True)
class Files:
    """Samples that ``sciml generate`` stored, or that another program wrote.

    folder: the dataset's, or one of such files; file: a single one, in its place.
    inputs, outputs: names of fields, the dataset's own if left out.
    shape: a stored resolution, or one within it; the folder's own if left out.
    train, valid: use the first so many samples. times: frames in and out of trajectories.
    points: train on values at so many points of the grid (DeepONet), the same for all samples if
    ``aligned``.
    axes, boundary: of foreign data, what its files do not say: the names of the arrays' axes
    (sample, time, channel, x, y, z), and how the functions end along each axis of space.
    """

    folder: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    shape: tuple[int, ...] | None = None
    train: int | None = None
    valid: int | None = None
    times: Times | None = None
    points: int | None = None
    aligned: bool = True
    file: str = ""
    axes: tuple[str, ...] = ()
    boundary: tuple[Side, ...] = ()
    kind: Literal["files"] = "files"

    def __post_init__(self) -> None:
        if bool(self.folder) == bool(self.file):
            raise InputError("name a folder or a file of data, one of them", "data.folder")
        for side in self.boundary:
            if side not in ENDS:
                raise InputError(
                    f"unknown boundary '{side}'{did_you_mean(side, ENDS)}", "data.boundary"
                )
        for name in ("train", "valid", "points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1; got {value}", f"data.{name}")
        if self.shape is not None and min(self.shape, default=0) < 1:
            raise InputError(
                f"shape must be points per axis, at least 1 each; got {list(self.shape)}",
                "data.shape",
            )

    @property
    def path(self) -> str:
        """The folder, or the file."""
        return self.folder or self.file


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
    """Samples in memory: ``x (N, C, *grid)`` and ``y (N, C, *grid)``, float32 as a rule.

    With ``points``, (P, d) for all samples or (N, P, d), ``y`` is (N, C, P). A run on them needs a
    signature too, which says what the channels are called and where the points lie::

        box = Box((0.0, 0.0), (1.0, 1.0))
        signature = Signature(("a",), ("u",), Grid((64, 64), "node", box), ("dirichlet",) * 2)
        data = TrainingData(TensorData(x, y), TensorData(x_valid, y_valid), signature)
        operator = fit(FNO(), data, Training(epochs=10))

    Raises InputError where the numbers of samples or points differ.
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


StoredSamples = Union[OperatorData, PointData, TensorData, Subset[dict[str, Tensor]]]  # noqa: UP007


@dataclass(frozen=True)
class TrainingData:
    """Samples to learn from and to validate on.

    batches: of a stream in an epoch. places: the dotted key in the problem of every input field,
    where known. spec: the problem as plain data. times: frames in and out, where they were named.
    foreign: of data that another program wrote, where it lies and the digest of every file.
    valid is on the grid.
    """

    train: StoredSamples | Stream
    valid: OperatorData | TensorData | Subset[dict[str, Tensor]] | None
    signature: Signature
    places: Mapping[str, str] = field(default_factory=dict)
    family: Family | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    batches: int = 0
    times: Times | None = None
    foreign: Mapping[str, Any] = field(default_factory=dict)


def open_data(options: Files | Fresh, family: Family | None = None) -> TrainingData:
    """The data that the options name; ``family``: that of a stored dataset, where it is wanted.

    Raises InputError for missing files, fields and resolutions.
    """
    return _fresh(options) if isinstance(options, Fresh) else _stored(options, family)


def _stored(options: Files, family: Family | None) -> TrainingData:
    given = at_home(options.path)
    if isinstance(given, Foreign):
        return _of_others(options, given.path)
    if options.axes or options.boundary:
        raise InputError(
            f"'{options.path}' says its axes and its boundary itself; leave them out",
            f"data.{'axes' if options.axes else 'boundary'}",
        )
    home, manifest = _manifest(Path(options.path))
    spec = dict(manifest.spec)
    centring = spec.get("grid", {}).get("centring", "node")
    train, valid = (_split(options, home, manifest, centring, s) for s in ("train", "valid"))
    if train is None:
        raise InputError(f"'{options.path}' has no split 'train'", "data.folder")
    samples = _at_points(options, train)
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


def _at_points(options: Files, train: OperatorData) -> OperatorData | PointData:
    """The samples with their outputs on the grid, or at points where the options say so."""
    if options.points is None and options.aligned:
        return train
    samples = PointData(train, options.points, options.aligned)
    if samples.frames > 1:
        raise InputError("values at points need one output frame, not several", "data.times")
    return samples


def _of_others(options: Files, path: Path) -> TrainingData:
    """Samples that another program wrote."""
    place = Foreign(path, options.axes, options.boundary, options.train, options.valid)
    train = _foreign_split(options, place, "train")
    valid = _foreign_split(options, place, "valid") if "valid" in stored_splits(place) else None
    same = sorted({*train.inward} & {*train.outward}, key=str)
    if same:
        frame = "" if same[0].frame is None else f", frame {same[0].frame}"
        raise InputError(
            f"'{same[0].name}'{frame} is input and output at once; name inputs, outputs or times",
            "data.outputs",
        )
    reader = _foreign_reader(train)
    stated = reader.stated
    return TrainingData(
        train=_first(_at_points(options, train), options.train if stated else None, "train"),
        valid=None if valid is None else _first(valid, options.valid if stated else None, "valid"),
        signature=Signature(
            train.input_channels,
            train.output_channels,
            _grid(train, reader.centring, {}),
            _ends(reader.header.boundary, len(train.shape)),
        ),
        name=path.stem,
        times=options.times,
        foreign={
            "path": str(path),
            "sha256": digests(path),
            "axes": list(options.axes),
            "boundary": list(options.boundary),
            "train": options.train,
            "valid": options.valid,
        },
    )


def _foreign_split(options: Files, place: Foreign, split: str) -> OperatorData:
    try:
        if options.shape is not None:
            found = resolutions(place, split)
            finest = OperatorData([*found.values()][-1], split)
            centring = _foreign_reader(finest).centring
            at, step = source(found, options.shape, centring, "data.shape")
            return OperatorData(
                at, split, options.inputs, options.outputs, step, times=options.times
            )
        return OperatorData(place, split, options.inputs, options.outputs, times=options.times)
    except InputError as error:
        key = error.key or ("data.file" if options.file else "data.folder")
        raise InputError(error.message, key) from None


def _foreign_reader(data: OperatorData) -> ForeignSamples:
    assert isinstance(data.reader, ForeignSamples)
    return data.reader


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
    place: Path | Foreign = Path(options.path)
    step = 1
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


def stacked(data: StoredSamples, count: int) -> TensorData:
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


def on_grid(data: StoredSamples) -> StoredSamples:
    """The same samples with their outputs on the grid, where these are stored."""
    if isinstance(data, Subset) and isinstance(data.dataset, PointData):
        return Subset(data.dataset.data, data.indices)
    return data.data if isinstance(data, PointData) else data


def sample_bytes(data: StoredSamples) -> int:
    """What one sample takes in memory."""
    return sum(4 * prod(value.shape) for value in data[0].values())


Shape = tuple[int, ...]
_POINTS = 2_000_000  # of one batch of inputs, which bounds the memory


def resolutions(folder: str | Path | Foreign, split: str) -> dict[Shape, Path | Foreign]:
    """The stored resolutions of a dataset that have ``split``, from coarse to fine."""
    folder = at_home(folder)
    if isinstance(folder, Foreign):
        grids = foreign_grids(folder, split)
        return {grid: replace(folder, grid=grid) for grid in sorted(grids, key=prod)}
    own = OperatorData(folder, split).shape
    found: dict[Shape, Path | Foreign] = {own: folder}
    for place in folder.glob("at-*"):
        shape = tuple(int(n) for n in place.name.removeprefix("at-").split("x") if n.isdigit())
        if len(shape) == len(own) and (place / "data" / split).is_dir():
            found[shape] = place
    return dict(sorted(found.items(), key=lambda pair: prod(pair[0])))


def source(
    stored: Mapping[Shape, Path | Foreign], shape: Shape, centring: str, key: str | None = None
) -> tuple[Path | Foreign, int]:
    """The folder that gives functions at ``shape``, and every how many of its points.

    Raises InputError, naming what is stored, where there is none.
    """
    if shape in stored:
        return stored[shape], 1
    for fine, place in stored.items():
        step = _step(fine, shape, centring)
        if step is not None:
            return place, step
    known = ", ".join(str(list(s)) for s in stored)
    raise InputError(
        f"there is no resolution {list(shape)}; stored: {known}, and what every so many of their "
        "points give",
        key,
    )


def _step(points: Shape, wanted: Shape, centring: str) -> int | None:
    """Every how many of the points make a grid of ``wanted`` on the same box.

    Both ends of nodes are kept, and of cells the middle ones, which an even number has not.
    """
    ends = int(centring == "node")
    if len(points) != len(wanted) or min(wanted) <= ends:
        return None
    steps = {divmod(n - ends, m - ends) for n, m in zip(points, wanted, strict=True)}
    step, rest = steps.pop()
    fits = not steps and not rest and step >= 1 and (ends or step % 2)
    return step if fits else None


def open_split(
    signature: Signature,
    folder: str | Path | Foreign,
    split: str,
    times: Times | None = None,
    subsample: int = 1,
) -> OperatorData:
    """The functions of a split that an operator takes and gives, at the folder's resolution.

    ``times``: first frame in, last one out, if left out. Raises InputError where the dataset lacks
    one of the operator's fields, gives other channels, or lives on another box.
    """
    inputs, outputs = _fields(signature.inputs), _fields(signature.outputs)
    data = OperatorData(folder, split, inputs, outputs, subsample, times=times)
    _check_box(signature, data)
    if len(data.input_channels) != len(signature.inputs):
        raise InputError(
            f"'{folder}' gives the inputs {', '.join(data.input_channels)}; the operator takes "
            f"{', '.join(signature.inputs)}"
        )
    return data


def as_trained(
    provenance: Mapping[str, Any], folder: str | Path, split: str = "test"
) -> Path | Foreign:
    """Data as an operator was trained on them: foreign ones with the axes and ends named then.

    Of the very files of the training, a pool is shared out as it was; other files are all to test
    on. Raises InputError where some of the files are those of the training and some are not, for
    then nobody can say which samples are new.
    """
    place = at_home(folder)
    trained = provenance.get("foreign") or {}
    if not isinstance(place, Foreign):
        return place
    axes, boundary = (tuple(trained.get(name, ())) for name in ("axes", "boundary"))
    place = replace(place, axes=axes, boundary=boundary)
    if len(stated_splits(place)):
        return place
    own, before = set(digests(place.path).values()), set(trained.get("sha256", {}).values())
    if own == before:
        return replace(place, train=trained["train"], valid=trained["valid"])
    if own & before:
        raise InputError(
            f"some of the files in '{folder}' were trained on and some were not; name those of the "
            "training, or others"
        )
    return replace(place, train=0, valid=0) if split == "test" else place


def at_trained_shape(
    signature: Signature, folder: str | Path | Foreign, split: str, times: Times | None = None
) -> OperatorData:
    """The split at the resolution of the training: stored, or every so many points.

    Raises InputError, naming what is stored, where it is neither.
    """
    grid = signature.grid
    place, step = source(resolutions(folder, split), grid.shape, grid.centring)
    return open_split(signature, place, split, times, step)


def batches(
    data: OperatorData, batch: int, device: torch.device | str = "cpu"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and outputs (B, C, *grid) in order, on ``device``."""
    size = max(1, min(batch, _POINTS // prod(data.shape)))
    for start in range(0, len(data), size):
        yield _stacked(data, range(start, min(start + size, len(data))), device)


def first_samples(
    data: OperatorData, count: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Inputs and outputs of the first ``count`` samples, on ``device``."""
    return _stacked(data, range(min(count, len(data))), device)


def _stacked(data: OperatorData, which: range, device: torch.device | str) -> tuple[Tensor, Tensor]:
    samples = [data[i] for i in which]
    x, y = (torch.stack([sample[name] for sample in samples]) for name in ("x", "y"))
    return x.to(device), y.to(device)


def _fields(channels: Sequence[str]) -> tuple[str, ...]:
    """The fields that channels such as velocity.0 belong to."""
    return tuple(dict.fromkeys(channel.partition(".")[0] for channel in channels))


def _check_box(signature: Signature, data: OperatorData) -> None:
    """Raise InputError unless the data's points span the operator's box."""
    box = signature.grid.box
    if len(data.axes) != box.dimension:
        raise InputError(
            f"'{data.folder}' has {len(data.axes)} space axes and the operator was trained on "
            f"{box.dimension}"
        )
    cells = signature.grid.centring == "cell"
    for axis, low, high in zip(data.axes, box.lower, box.upper, strict=True):
        half = (axis[-1] - axis[0]) / (len(axis) - 1) / 2 if cells else 0.0
        gap = max(abs(axis[0] - half - low), abs(axis[-1] + half - high))
        if gap > 1e-5 * (high - low):
            raise InputError(
                f"'{data.folder}' spans {axis[0] - half:.6g} to {axis[-1] + half:.6g} and the "
                f"operator was trained on {low:.6g} to {high:.6g}"
            )


_HOST = torch.device("cpu")
_STATISTICS = 2**31  # bytes of samples that statistics are taken of; the same on every machine


@dataclass(frozen=True)
class Batch:
    """This process's part of a batch; ``total`` counts the samples of all parts.

    samples: their numbers in the data; where x has more rows than there are numbers, the others do
    not count. points: where y is given, if not on the grid.
    """

    x: Tensor
    y: Tensor
    points: Tensor | None
    samples: Tensor
    total: int


class Batches(Protocol):
    """A source of batches."""

    @property
    def per_epoch(self) -> int:
        """How many there are in an epoch."""
        ...

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Those of an epoch from number ``first`` on."""
        ...

    def first(self) -> TensorData:
        """Samples in memory to take statistics of."""
        ...


def open_batches(
    data: TrainingData, batch: int, seed: int, dtype: torch.dtype, world: World
) -> Batches:
    """The source of batches for these data; see the module."""
    if isinstance(data.train, Stream):
        return Solving(data.train, batch, data.batches, dtype, world)
    held = hold(data.train, dtype, world.device)
    fields = on_grid(data.train)
    return Sampling(held, held if fields is data.train else fields, batch, seed, dtype, world)


def order(seed: int, epoch: int, count: int) -> Tensor:
    """A permutation of ``count`` samples; the same for ever."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, epoch))))
    return torch.from_numpy(generator.permutation(count))


def hold(data: StoredSamples, dtype: torch.dtype, device: torch.device) -> StoredSamples:
    """``data`` as tensors on the device or in the host's memory, as it is where it fits neither."""
    need = len(data) * sample_bytes(data) * (2 if dtype == torch.float64 else 1)
    places = [p for p in dict.fromkeys((device, _HOST)) if need <= free_bytes(p) // 2]
    if not (places or isinstance(data, TensorData)):
        return data
    place, held = (places or [_HOST])[0], stacked(data, len(data))
    points = None if held.points is None else held.points.to(place, dtype)
    return TensorData(held.x.to(place, dtype), held.y.to(place, dtype), points)


class Sampling:
    """StoredSamples samples in a new order every epoch."""

    def __init__(
        self,
        data: StoredSamples,
        fields: StoredSamples,
        batch: int,
        seed: int,
        dtype: torch.dtype,
        world: World,
    ) -> None:
        self.data, self.fields = data, fields
        self.batch, self.seed, self.dtype, self.world = batch, seed, dtype, world

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, the last of them perhaps smaller."""
        return -(-len(self.data) // self.batch)

    def first(self) -> TensorData:
        """The first samples, of at most 2 GiB, on the grid where possible."""
        fit = _STATISTICS // sample_bytes(self.fields)
        return stacked(self.fields, max(1, min(len(self.fields), fit)))

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of this epoch from number ``first`` on."""
        whole = order(self.seed, epoch, len(self.data)).split(self.batch)[first:]
        own = [part[self.world.share(len(part))] for part in whole]
        # DDP wants every process to compute something in every step.
        read = self._read([part if len(part) else part.new_zeros(1) for part in own])
        for part, chosen, (x, y, points) in zip(whole, own, read, strict=True):
            yield Batch(x, y, points, chosen, len(part))

    def _read(self, chosen: list[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        device = self.world.device
        if isinstance(self.data, TensorData):
            x, y, points = self.data.x, self.data.y, self.data.points
            for part in chosen:
                index = part.to(x.device)
                at = points[index] if points is not None and points.ndim == 3 else points
                at = at if at is None else at.to(device)
                yield x[index].to(device), y[index].to(device), at
            return
        workers = min(4, max(1, len(os.sched_getaffinity(0)) - 1))
        loader: DataLoader[dict[str, Tensor]] = DataLoader(
            self.data,
            batch_sampler=[part.tolist() for part in chosen],
            num_workers=workers,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the global one is part of a run's state
        )
        for found in loader:
            moved = {k: v.to(device, self.dtype, non_blocking=True) for k, v in found.items()}
            yield moved["x"], moved["y"], moved.get("points")


class Solving:
    """Fresh samples; batch k of B begins at number 2 B k, which leaves as many for rejects."""

    def __init__(
        self, stream: Stream, batch: int, batches: int, dtype: torch.dtype, world: World
    ) -> None:
        self.stream, self.batch, self.dtype, self.world = stream, batch, dtype, world
        self.per_epoch = batches
        if batch < world.size:
            raise InputError(
                f"{world.size} processes need batches of at least so many; got {batch}",
                "training.batch",
            )

    def first(self) -> TensorData:
        """The first 64 samples, or batch where that is larger."""
        found = self._solve(0, max(64, self.batch), _HOST)
        return TensorData(found["x"], found["y"])

    def epoch(self, epoch: int, first: int) -> Iterator[Batch]:
        """Batches of this epoch from number ``first`` on."""
        share = self.world.share(self.batch)
        count = share.stop - share.start
        for k in range(epoch * self.per_epoch + first, (epoch + 1) * self.per_epoch):
            start = 2 * self.batch * k + share.start
            found = self._solve(start, count, self.world.device)
            x, y = (found[name].to(self.dtype) for name in ("x", "y"))
            yield Batch(x, y, None, torch.arange(start, start + count), self.batch)

    def _solve(self, first: int, count: int, device: torch.device) -> dict[str, Tensor]:
        stream = self.stream
        fresh = Stream(stream.family, stream.seed, count, str(device), 1, first, times=stream.times)
        return next(iter(fresh))
