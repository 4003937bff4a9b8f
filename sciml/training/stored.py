"""The functions of a dataset that an operator takes and gives, at the resolutions stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from sciml.core.errors import InputError
from sciml.datasets.loader import OperatorData, Times
from sciml.operators.operator import Signature

Shape = tuple[int, ...]
_POINTS = 2_000_000  # of one batch of inputs, which bounds the memory


def resolutions(folder: str | Path, split: str) -> dict[Shape, Path]:
    """The stored resolutions of a dataset that have ``split``, from coarse to fine."""
    folder = Path(folder)
    own = OperatorData(folder, split).shape
    found = {own: folder}
    for place in folder.glob("at-*"):
        shape = tuple(int(n) for n in place.name.removeprefix("at-").split("x") if n.isdigit())
        if len(shape) == len(own) and (place / "data" / split).is_dir():
            found[shape] = place
    return dict(sorted(found.items(), key=lambda pair: prod(pair[0])))


def source(
    stored: Mapping[Shape, Path], shape: Shape, centring: str, key: str | None = None
) -> tuple[Path, int]:
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
    folder: str | Path,
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


def at_trained_shape(
    signature: Signature, folder: str | Path, split: str, times: Times | None = None
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
