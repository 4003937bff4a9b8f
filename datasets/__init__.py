"""Families of problems, the data sets generated from them, and their samples for training.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if __name__ != "sciml.datasets":
    raise ImportError("import this package as sciml.datasets")

if TYPE_CHECKING:
    from sciml.datasets.export import export_archive as export_archive
    from sciml.datasets.export import export_pairs as export_pairs
    from sciml.datasets.export import read_pdebench as read_pdebench
    from sciml.datasets.family import DatasetOptions as DatasetOptions
    from sciml.datasets.family import Family as Family
    from sciml.datasets.loader import OperatorData as OperatorData
    from sciml.datasets.loader import PointData as PointData
    from sciml.datasets.loader import Times as Times
    from sciml.datasets.statistics import Normaliser as Normaliser
    from sciml.datasets.store import Shard as Shard
    from sciml.datasets.store import read_shard as read_shard
    from sciml.datasets.store import write_shard as write_shard
    from sciml.datasets.stream import Stream as Stream

__getattr__, __dir__ = attach(__name__, __file__)
