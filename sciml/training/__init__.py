"""Training: operators fitted to data, and what they are worth afterwards.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciml.training.data import Files, Fresh, TensorData, TrainingData, open_data
    from sciml.training.evaluation import (
        Bracket,
        Evaluation,
        MultigridTime,
        Polishing,
        ResolutionTransfer,
        bracket,
        evaluate,
        multigrid_time,
        polishing,
        resolution_transfer,
    )
    from sciml.training.fitting import fit
    from sciml.training.options import (
        Adam,
        AdamW,
        Constant,
        Cosine,
        OneCycle,
        Steps,
        Training,
    )

_MODULES = {
    "Adam": "options",
    "AdamW": "options",
    "Bracket": "evaluation",
    "Constant": "options",
    "Cosine": "options",
    "Evaluation": "evaluation",
    "Files": "data",
    "Fresh": "data",
    "MultigridTime": "evaluation",
    "OneCycle": "options",
    "Polishing": "evaluation",
    "Steps": "options",
    "TensorData": "data",
    "Training": "options",
    "TrainingData": "data",
    "ResolutionTransfer": "evaluation",
    "bracket": "evaluation",
    "evaluate": "evaluation",
    "fit": "fitting",
    "multigrid_time": "evaluation",
    "open_data": "data",
    "polishing": "evaluation",
    "resolution_transfer": "evaluation",
}

__all__ = [
    "Adam",
    "AdamW",
    "Bracket",
    "Constant",
    "Cosine",
    "Evaluation",
    "Files",
    "Fresh",
    "MultigridTime",
    "OneCycle",
    "Polishing",
    "ResolutionTransfer",
    "Steps",
    "TensorData",
    "Training",
    "TrainingData",
    "bracket",
    "evaluate",
    "fit",
    "multigrid_time",
    "open_data",
    "polishing",
    "resolution_transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml.training' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.training.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
