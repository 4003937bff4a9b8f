"""What a run has come to, epoch by epoch: ``history.csv``, and TensorBoard where asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sciml.core.errors import InputError
from sciml.core.files import write_text

FILE = "history.csv"
COLUMNS = (
    "epoch", "steps", "seconds", "cpu_seconds", "rate", "loss", "valid_l2", "valid_h1"
)  # fmt: skip


class History:
    """The table of a run in its folder, begun with the rows that there were before."""

    def __init__(
        self, folder: Path, rows: Sequence[Mapping[str, float]], tensorboard: bool
    ) -> None:
        self.path = folder / FILE
        write_text(self.path, "".join((f"{','.join(COLUMNS)}\n", *map(_line, rows))))
        self.board = _board(folder, rows) if tensorboard else None

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line(row))
        if self.board is not None:
            for name in COLUMNS[4:]:
                if name in row:
                    self.board.add_scalar(name, row[name], int(row["epoch"]))

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self.board is not None:
            self.board.close()


def _line(row: Mapping[str, float]) -> str:
    return ",".join(f"{row[name]:.9g}" if name in row else "" for name in COLUMNS) + "\n"


def _board(folder: Path, rows: Sequence[Mapping[str, float]]) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise InputError(
            "tensorboard is not installed: pip install sciml-pde[tensorboard]",
            "training.tensorboard",
        ) from None
    return module.SummaryWriter(str(folder / "tensorboard"), purge_step=len(rows) + 1)
