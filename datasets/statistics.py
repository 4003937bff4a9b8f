"""Statistics of a dataset, from its training split alone, in the file that The Well's reader wants.

``stats.yaml`` has ``mean``, ``std`` and ``rms`` of every field and scalar, and of every field's
change from one time to the next (``mean_delta``, ``std_delta``, ``rms_delta``): a number, or one
for each component of a vector. Moments of files are merged by Chan, Golub and LeVeque's (1983)
update, so that a mean that is large beside the deviation costs no digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from sciml.core.disk import write_text
from sciml.core.errors import InputError, did_you_mean
from sciml.datasets.store import explained, open_shard, read_header

FILE = "stats.yaml"
_BLOCK = 4_000_000  # numbers in memory at once, or one sample
Array = TypeVar("Array", np.ndarray, torch.Tensor)
Table = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations, each (components,)."""

    count: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets of numbers together."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * share,
            self.deviation + other.deviation + gap**2 * self.count * share,
        )


def moments(values: np.ndarray, order: int = 0) -> Moments:
    """Moments of all numbers in ``values`` (..., *components); NaN, which is a hole, left out."""
    flat = values.astype(np.float64).reshape(-1, prod(values.shape[values.ndim - order :]))
    known = np.isfinite(flat)
    count = known.sum(axis=0).astype(np.float64)
    mean = np.where(known, flat, 0.0).sum(axis=0) / np.maximum(count, 1)
    return Moments(count, mean, np.where(known, flat - mean, 0.0).__pow__(2).sum(axis=0))


def write_statistics(folder: Path, split: str) -> None:
    """Write ``stats.yaml`` into a dataset's folder and into those of its further resolutions."""
    for place in (folder, *sorted(folder.glob("at-*"))):
        files = sorted((place / "data" / split).glob("*.hdf5"))
        if not files:
            raise InputError(f"'{place}' has no samples in the split {split}")
        text = _yaml(field_statistics(files))
        write_text(place / FILE, f"{_seal(text)}\n{text}")


def field_statistics(files: Sequence[Path]) -> Table:
    """mean, std, rms and those of the differences in time: name of the statistic, then field."""
    sums: dict[tuple[str, str], Moments] = {}
    for path in files:
        for key, part in _parts(path):
            sums[key] = sums[key] + part if key in sums else part
    table: Table = {}
    for (suffix, name), total in sums.items():
        known = total.count > 0
        variance = total.deviation / np.maximum(total.count, 1)
        rms = np.sqrt(variance + total.mean**2)
        summary = {"mean": total.mean, "std": np.sqrt(variance), "rms": rms}
        for statistic, value in summary.items():
            missing = 0.0 if statistic == "mean" else 1.0
            table.setdefault(statistic + suffix, {})[name] = np.where(known, value, missing)
    return table


def _parts(path: Path) -> Iterator[tuple[tuple[str, str], Moments]]:
    """Moments of the blocks of one file, by suffix of the statistic and name of the field."""
    with explained(path), open_shard(path) as file:
        header = read_header(file)
        for name, order in header.orders.items():
            entry = file[header.place(name)]
            step = max(1, _BLOCK // prod(entry.shape[1:]))
            for start in range(0, entry.shape[0], step):
                values = entry[start : start + step].astype(np.float64)
                change = values[:0] if name in header.constant else np.diff(values, axis=1)
                yield ("", name), moments(values, order)
                yield ("_delta", name), moments(change, order)
        for name in header.scalars:
            yield ("", name), moments(file[header.place(name)][()])


def _yaml(table: Table) -> str:
    lines = []
    for statistic, fields in sorted(table.items()):
        lines.append(f"{statistic}:")
        for name, value in sorted(fields.items()):
            texts = [_number(v) for v in value.tolist()]
            lines.append(f'  "{name}": {texts[0] if len(texts) == 1 else _list(texts)}')
    return "\n".join(lines) + "\n"


def _seal(text: str) -> str:
    """The first line of the file, by which damage to the others is found."""
    return f"# sha256 {hashlib.sha256(text.encode()).hexdigest()}"


def _number(value: float) -> str:
    """As YAML 1.1 wants it, to which 1e-05 is a text."""
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(texts)}]"


@dataclass(frozen=True)
class Normaliser:
    """Channels less their mean, over their deviation, both from the training split.

    ``mean`` and ``std``: by field, one number per component. A constant field is only shifted.
    Channels are named ``u``, or ``velocity.0`` for a component; those that are unknown here, such
    as coordinates, stay as they are.
    """

    mean: Mapping[str, tuple[float, ...]]
    std: Mapping[str, tuple[float, ...]]

    @classmethod
    def read(cls, folder: str | Path) -> Normaliser:
        """From a dataset's ``stats.yaml``; raises InputError where there is none."""
        from ruamel.yaml import YAML

        path = Path(folder) / FILE
        try:
            seal, _, text = path.read_text(encoding="utf-8").partition("\n")
            if seal != _seal(text):
                raise ValueError("it was damaged or edited")
            record = YAML(typ="safe", pure=True).load(text)
            mean, std = ({n: _tuple(v) for n, v in record[k].items()} for k in ("mean", "std"))
        except OSError:
            raise InputError(f"'{path}' is missing; name a dataset's folder") from None
        except ValueError as error:
            raise InputError(f"'{path}' has no statistics of fields: {error}") from None
        return cls(mean, std)

    def factors(self, channels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation of each channel, float64 (C,)."""
        mean = np.array([_of(self.mean, channel, 0.0) for channel in channels])
        std = np.array([_of(self.std, channel, 1.0) for channel in channels])
        return mean, np.where(std > 0, std, 1.0)

    def encode(self, values: Array, channels: Sequence[str], axis: int = 0) -> Array:
        """``values`` with the axis of ``channels`` at ``axis``, made of mean 0, deviation 1."""
        mean, std = self._like(values, channels, axis)
        encoded: Array = (values - mean) / std
        return encoded

    def decode(self, values: Array, channels: Sequence[str], axis: int = 0) -> Array:
        """The inverse of ``encode``."""
        mean, std = self._like(values, channels, axis)
        decoded: Array = values * std + mean
        return decoded

    def _like(self, values: Array, channels: Sequence[str], axis: int) -> tuple[Any, Any]:
        if values.shape[axis] != len(channels):
            raise InputError(
                f"axis {axis} of {tuple(values.shape)} has not the {len(channels)} channels "
                f"{', '.join(channels)}"
            )
        form = [1] * values.ndim
        form[axis] = -1
        pair = (part.reshape(form) for part in self.factors(channels))
        if isinstance(values, torch.Tensor):
            mean, std = (torch.as_tensor(p, dtype=values.dtype, device=values.device) for p in pair)
        else:
            mean, std = (p.astype(values.dtype) for p in pair)
        return mean, std

    def check(self, fields: Sequence[str]) -> None:
        """Raise InputError for a field without statistics."""
        for name in fields:
            if name not in self.mean or name not in self.std:
                raise InputError(f"no statistics of '{name}'{did_you_mean(name, self.mean)}")


def _tuple(value: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in np.ravel(value))


def _of(table: Mapping[str, tuple[float, ...]], channel: str, unknown: float) -> float:
    if channel in table:
        return table[channel][0]
    name, _, component = channel.rpartition(".")
    return table[name][int(component)] if name in table else unknown
