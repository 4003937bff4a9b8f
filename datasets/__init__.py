"""Families of problems, the data sets generated from them, and their samples for training.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "sciml.datasets":
    raise ImportError("import this package as sciml.datasets")

if TYPE_CHECKING:
    from sciml.datasets.export import export_archive, export_pairs, read_pdebench
    from sciml.datasets.family import DatasetOptions, Family
    from sciml.datasets.loader import OperatorData, PointData, Times
    from sciml.datasets.statistics import Normaliser
    from sciml.datasets.store import Shard, read_shard, write_shard
    from sciml.datasets.stream import Stream

_MODULES = {
    "DatasetOptions": "family",
    "Family": "family",
    "Normaliser": "statistics",
    "OperatorData": "loader",
    "PointData": "loader",
    "Shard": "store",
    "Stream": "stream",
    "Times": "loader",
    "export_archive": "export",
    "export_pairs": "export",
    "read_pdebench": "export",
    "read_shard": "store",
    "write_shard": "store",
}

__all__ = [
    "DatasetOptions",
    "Family",
    "Normaliser",
    "OperatorData",
    "PointData",
    "Shard",
    "Stream",
    "Times",
    "export_archive",
    "export_pairs",
    "read_pdebench",
    "read_shard",
    "write_shard",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml.datasets' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.datasets.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
