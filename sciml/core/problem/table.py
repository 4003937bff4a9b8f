"""Tables of measured values: monotone interpolation, differentiable in its argument.

Between the knots x_0 < ... < x_n the value is the cubic with the values y_i and the slopes d_i at
both ends. Where the secants m_i = (y_(i+1) - y_i) / h_i on both sides of a knot have one sign, its
slope is their weighted harmonic mean, elsewhere zero,

    (w_1 + w_2) / d_i = w_1 / m_(i-1) + w_2 / m_i,  w_1 = 2 h_i + h_(i-1),  w_2 = h_i + 2 h_(i-1),

so that the interpolant is monotone where the data are (PCHIP; Fritsch and Butland 1984). The outer
slopes are those of a parabola, limited.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sciml.core.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import torch

# Of the range's length, how far an argument may lie outside by rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Table:
    """Values of a coefficient by those of one variable, interpolated monotonically.

    Either ``table``, a CSV file whose first line names its columns, or ``columns``, numbers by
    name. ``of``: the column of the variable, called as expressions call it: a coordinate, ``t``, a
    field, a slope or a parameter. ``column``: that of the values, where there are others too.
    ``outside`` the range of the variable a value is refused, or the nearest end's is held.
    """

    table: str | None = None
    columns: Mapping[str, Any] | None = None
    of: str = ""
    column: str | None = None
    outside: Literal["refuse", "hold"] = "refuse"

    def __post_init__(self) -> None:
        if (self.table is None) == (self.columns is None):
            raise InputError("a table is either a CSV file or columns: {T: [...], k: [...]}")
        if not self.of:
            raise InputError("say what the table is of: the name of its variable's column")
        if self.outside not in ("refuse", "hold"):
            raise InputError(f"outside is refuse or hold; got {self.outside!r}", ".outside")
        if self.columns is not None:
            object.__setattr__(
                self, "columns", {n: _numbers(n, v) for n, v in self.columns.items()}
            )

    def __hash__(self) -> int:
        return hash((self.table, self.of, self.column, self.outside))

    @property
    def name(self) -> str:
        """What messages call it."""
        return "the table" if self.table is None else f"the table {Path(self.table).name}"


@dataclass(frozen=True, eq=False)
class Curve:
    """A table, read: ``curve(x)`` is its value, NaN outside its range unless the ends are held.

    ``knots``, ``values`` and ``slopes`` are float64 (n,).
    """

    table: Table
    knots: torch.Tensor
    values: torch.Tensor
    slopes: torch.Tensor

    @property
    def of(self) -> str:
        """The name of its variable."""
        return self.table.of

    @property
    def range(self) -> str:
        """``the table steel.csv is of T from 20 to 800``."""
        low, high = float(self.knots[0]), float(self.knots[-1])
        return f"{self.table.name} is of {self.of} from {low:g} to {high:g}"

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The value at x, of its shape, dtype and device; differentiable."""
        import torch

        knots, values, slopes = (part.to(x) for part in (self.knots, self.values, self.slopes))
        low, high = self.knots[0].item(), self.knots[-1].item()
        held = x.clamp(low, high) if self.table.outside == "hold" else x
        # The number of the interval has no derivative, and is not asked for one.
        left = torch.bucketize(held.detach().contiguous(), knots[1:-1], right=True)
        right = left + 1
        h = knots[right] - knots[left]
        s = (held - knots[left]) / h
        secant = (values[right] - values[left]) / h
        square = 3 * secant - 2 * slopes[left] - slopes[right]
        cube = slopes[left] + slopes[right] - 2 * secant
        found = values[left] + h * s * (slopes[left] + s * (square + s * cube))
        if self.table.outside == "hold":
            return found
        margin = _ROUNDING * (high - low)
        inside = (x >= low - margin) & (x <= high + margin)
        return torch.where(inside, found, torch.nan)


def looked_up_outside(ranges: Iterable[str]) -> tuple[str, ...]:
    """A line on each of the ranges of tables that an iterate or a stage has been outside."""
    return tuple(f"an iterate was outside: {r}; outside: hold keeps its ends" for r in ranges)


def curve(table: Table) -> Curve:
    """The table, its file read once as long as it does not change.

    Raises InputError, with keys relative to the table's own, for a file or a column that is
    missing, for values that are no finite numbers, and for a variable that does not increase.
    """
    stamp = None
    if table.table is not None:
        path = Path(table.table)
        if not path.is_file():
            raise InputError(f"file not found: {table.table}", ".table")
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_size)
    return _curve(table, stamp)


@lru_cache(maxsize=64)
def _curve(table: Table, stamp: tuple[int, int] | None) -> Curve:
    import numpy as np
    import torch

    if table.table is not None:
        try:
            columns: Mapping[str, Any] = read_columns(Path(table.table))
        except InputError as error:
            raise InputError(error.message, ".table") from None
    else:
        columns = table.columns or {}
    x, y = (np.array(column, dtype=np.float64) for column in _pair(table, columns))
    where = table.name
    if len(x) != len(y):
        raise InputError(f"columns are equally long; those of {where} have {len(x)} and {len(y)}")
    if len(x) < 2:
        raise InputError(f"{where} needs at least two rows; it has {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        row = int(np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))[0])
        raise InputError(f"{where} must hold finite numbers; row {row + 1} has {x[row]}, {y[row]}")
    if (np.diff(x) <= 0).any():
        row = int(np.flatnonzero(np.diff(x) <= 0)[0])
        fault = "occurs twice" if x[row] == x[row + 1] else f"is followed by {x[row + 1]:g}"
        raise InputError(f"{table.of} must increase down {where}: {x[row]:g} {fault}")
    return Curve(table, *(torch.from_numpy(part) for part in (x, y, _slopes(x, y))))


def _pair(table: Table, columns: Mapping[str, Any]) -> tuple[Any, Any]:
    """The columns of the variable and of the values."""
    listed = ", ".join(columns)
    for name, key in ((table.of, ".of"), (table.column, ".column")):
        if name is not None and name not in columns:
            tail = did_you_mean(name, columns)
            tail = tail if "did you mean" in tail else f"; it has {listed}"
            raise InputError(f"{table.name} has no column '{name}'{tail}", key)
    others = [name for name in columns if name != table.of]
    if table.column is None and len(others) != 1:
        raise InputError(f"say which column: of {table.name} holds the values; it has {listed}")
    return columns[table.of], columns[table.column or others[0]]


def read_columns(path: Path, *, gaps: bool = False) -> dict[str, list[float]]:
    """The columns of a CSV file by the names in its first line, equally long.

    ``gaps``: an empty cell is NaN.
    Raises InputError for a file that cannot be read or holds anything but finite numbers.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(k, row) for k, row in enumerate(csv.reader(file), 1) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read '{path}': {error}") from None
    if len(lines) < 2:
        raise InputError(f"'{path}' needs a line of names and at least one of numbers")
    names = [cell.strip() for cell in lines[0][1]]
    if len(set(names)) < len(names):
        raise InputError(f"'{path}' names a column twice: {', '.join(names)}")
    rows = []
    for number, line in lines[1:]:
        try:
            row = [0.0 if gaps and not cell.strip() else _number(cell) for cell in line]
        except ValueError:
            row = []
        if len(row) != len(names) or not all(map(math.isfinite, row)):
            raise InputError(
                f"'{path}', line {number}: expected {len(names)} finite numbers "
                f"({', '.join(names)}); got '{','.join(line)[:60]}'"
            )
        rows.append([x if cell.strip() else math.nan for x, cell in zip(row, line, strict=True)])
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _number(text: str) -> float:
    """As spreadsheets and other languages write numbers: Python alone takes 0_1 for 1."""
    if not (text.isascii() and "_" not in text):
        raise ValueError(text)
    return float(text)


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InputError(f"column {name} must be a list of numbers", f".columns.{name}") from None


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """d_i at the knots."""
    import numpy as np

    h = np.diff(x)
    m = np.diff(y) / h
    if len(m) == 1:
        return np.array([m[0], m[0]])
    d = np.zeros_like(x)
    one_sign = np.sign(m[1:]) * np.sign(m[:-1]) > 0
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    before, after = (np.where(one_sign, part, 1.0) for part in (m[:-1], m[1:]))
    d[1:-1] = np.where(one_sign, (w1 + w2) / (w1 / before + w2 / after), 0.0)
    d[0] = _outer(h[0], h[1], m[0], m[1])
    d[-1] = _outer(h[-1], h[-2], m[-1], m[-2])
    return d


def _outer(h0: float, h1: float, m0: float, m1: float) -> float:
    """The slope at an end, whose interval is h0 long with the secant m0."""
    d = ((2 * h0 + h1) * m0 - h0 * m1) / (h0 + h1)
    if (d > 0) != (m0 > 0):
        return 0.0
    return 3 * m0 if (m0 > 0) != (m1 > 0) and abs(d) > 3 * abs(m0) else d
