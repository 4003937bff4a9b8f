"""Other people's layouts: neuraloperator's pairs of tensors, NumPy's archives; PDEBench's HDF5 in.

neuraloperator reads ``<name>_{train,test}_{points}.pt``, each {"x": (N, H, W), "y": (N, H, W)}. An
archive ``.npz`` has ``a_train``, ``u_train``, ``a_test``, ``u_test``, inputs and outputs (N, H, W).

PDEBench has three layouts, all with samples first and time next: one array ``tensor`` (with an
input ``nu`` for Darcy flow); one array per field (``density``, ``Vx``, ``Vy``, ``Vz``,
``pressure``); or one group per sample with ``data`` (time, *grid, channels) and ``grid``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from sciml.core.disk import atomic_write, refuse_links
from sciml.core.errors import InputError
from sciml.core.problem.grid import AXES
from sciml.datasets.loader import OperatorData, Times, stored_splits
from sciml.datasets.store import Shard

_FIELDS = ("density", "Vx", "Vy", "Vz", "pressure")


def export_pairs(
    folder: str | Path,
    out: str | Path,
    name: str,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    times: Times | None = None,
) -> tuple[Path, ...]:
    """Write neuraloperator's pairs of a dataset, for every split and resolution; the paths.

    The resolution in a file's name is the number of points along x. Arrays are (N, *grid) where
    there is one channel, else (N, C, *grid). Everything of one file is in memory at once.
    """
    folder, out = Path(folder), Path(out)
    paths = []
    for place in (folder, *sorted(folder.glob("at-*"))):
        for split, points, x, y in _splits(place, inputs, outputs, times):
            paths.append(out / f"{name}_{split}_{points}.pt")
            with atomic_write(paths[-1]) as temporary:
                torch.save({"x": x, "y": y}, temporary)
    return tuple(paths)


def export_archive(
    folder: str | Path,
    out: str | Path,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    times: Times | None = None,
) -> Path:
    """Write a dataset, or one of its further resolutions, as one ``.npz`` archive; its path.

    ``a_<split>`` and ``u_<split>`` for every split, shaped as in :func:`export_pairs`.
    """
    out = Path(out).with_suffix(".npz")
    arrays: dict[str, Any] = {}
    for split, _, x, y in _splits(Path(folder), inputs, outputs, times):
        arrays |= {f"a_{split}": x.numpy(), f"u_{split}": y.numpy()}
    with atomic_write(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return out


def _splits(
    folder: Path, inputs: Sequence[str], outputs: Sequence[str], times: Times | None
) -> Iterator[tuple[str, int, torch.Tensor, torch.Tensor]]:
    """Every split, the points along x, its inputs and its outputs (N, [C,] *grid)."""
    for split in stored_splits(folder):
        data = OperatorData(folder, split, inputs, outputs, times=times)
        points = len(data.axes[0])
        samples = [data[i] for i in range(len(data))]
        x, y = (torch.stack([s[k] for s in samples]).squeeze(1).contiguous() for k in ("x", "y"))
        yield split, points, x, y


def read_pdebench(path: str | Path, samples: slice = slice(None)) -> Shard:
    """The ``samples`` of a file in one of PDEBench's layouts, in memory.

    Fields are ``u`` with the input ``a`` for Darcy flow, or under the file's own names; channels of
    the third layout are ``u0``, ``u1``, ... Residuals are NaN: nobody has checked them.
    Raises InputError where the file has none of these layouts.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            refuse_links(file, str(path))
            return _read(file, path, samples)
    except (OSError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"'{path}' is not in PDEBench's layout: {error}") from None


def _read(file: h5py.File, path: Path, samples: slice) -> Shard:
    seeds = sorted(key for key in file if isinstance(file[key], h5py.Group) and "data" in file[key])
    if seeds:
        picked = seeds[samples]
        stacked = np.stack([file[key]["data"][()] for key in picked])
        fields = {f"u{k}": stacked[..., k] for k in range(stacked.shape[-1])}
        grid = file[picked[0]]["grid"]
        return _shard(path, fields, {n: grid[n][()] for n in grid}, samples, len(seeds))
    fields = {n: file[n][samples] for n in ("tensor", "nu", *_FIELDS) if n in file}
    if not set(fields) - {"nu"}:
        raise KeyError("it has neither tensor, nor density, Vx, Vy, pressure, nor groups with data")
    names = {"tensor": "u", "nu": "a"}
    coordinates = {n[0]: file[n][()] for n in file if n.endswith("-coordinate")}
    first = next(n for n in fields if n != "nu")
    named = {names.get(n, n): values for n, values in fields.items()}
    return _shard(path, named, coordinates, samples, file[first].shape[0])


def _shard(
    path: Path,
    fields: Mapping[str, np.ndarray],
    coordinates: Mapping[str, np.ndarray],
    samples: slice,
    total: int,
) -> Shard:
    """``fields`` are (sample, time, *grid), but for an input ``a``, which has no time."""
    values = next(v for n, v in fields.items() if n != "a")
    frames, grid = values.shape[1], values.shape[2:]
    constant = ("a",) if "a" in fields else ()
    # PDEBench's times are those of the steps' edges, one more than there are frames.
    time = np.ravel(coordinates.get("t", np.arange(frames)))[:frames]
    axes = tuple(
        np.ravel(coordinates.get(name, (np.arange(n) + 0.5) / n))[:n]
        for name, n in zip(AXES, grid, strict=False)
    )
    indices = np.arange(total)[samples]
    outputs = tuple(name for name in fields if name not in constant)
    return Shard(
        name=path.stem,
        fields=dict(fields),
        constant=constant,
        scalars={},
        time=time,
        axes=axes,
        boundary={},
        indices=indices,
        residuals=np.full(len(indices), np.nan),
        inputs=constant or outputs,
        outputs=outputs,
    )
