"""Statistics of a dataset's fields, from one split alone, in the file that The Well's reader wants.

``stats.yaml`` has ``mean``, ``std`` and ``rms`` of every field, and of its change from one time to
the next (``mean_delta``, ``std_delta``, ``rms_delta``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np

from sciml.core.errors import InputError
from sciml.core.files import write_text

FILE = "stats.yaml"


def write_statistics(folder: Path, split: str) -> None:
    """Write ``stats.yaml`` into a dataset's folder and into those of its further resolutions."""
    for place in (folder, *sorted(folder.glob("at-*"))):
        files = sorted((place / "data" / split).glob("*.hdf5"))
        if not files:
            raise InputError(f"'{place}' has no samples in the split {split}")
        write_text(place / FILE, _yaml(field_statistics(files)))


def field_statistics(files: list[Path]) -> Mapping[str, Mapping[str, float]]:
    """mean, std, rms and those of the differences in time: name of the statistic, then field."""
    sums: dict[str, np.ndarray] = {}
    for path in files:
        for name, values, change in _fields(path):
            moments = np.array([*_moments(values), *_moments(change)])
            sums[name] = sums.get(name, 0.0) + moments
    table: dict[str, dict[str, float]] = {}
    for name, total in sums.items():
        count, first, second, *change = total.tolist()
        for suffix, triple in (("", (count, first, second)), ("_delta", tuple(change))):
            for statistic, value in _summary(*triple).items():
                table.setdefault(statistic + suffix, {})[name] = value
    return table


def _fields(path: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    with h5py.File(path, "r") as file:
        for name, entry in file["t0_fields"].items():
            values = entry[()].astype(np.float64)
            timed = bool(entry.attrs["time_varying"])
            yield name, values, np.diff(values, axis=1) if timed else values[:0]


def _moments(values: np.ndarray) -> tuple[float, float, float]:
    known = values[np.isfinite(values)]
    return float(known.size), float(known.sum()), float(np.square(known).sum())


def _summary(count: float, first: float, second: float) -> Mapping[str, float]:
    if not count:
        return {"mean": 0.0, "std": 1.0, "rms": 1.0}
    mean, square = first / count, second / count
    return {"mean": mean, "std": math.sqrt(max(square - mean**2, 0.0)), "rms": math.sqrt(square)}


def _yaml(table: Mapping[str, Mapping[str, float]]) -> str:
    lines = []
    for statistic, fields in sorted(table.items()):
        lines.append(f"{statistic}:")
        lines += [f"  {name}: {value!r}" for name, value in sorted(fields.items())]
    return "\n".join(lines) + "\n"
