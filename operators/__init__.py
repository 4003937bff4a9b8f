"""Neural operators: maps between functions as networks, and nothing else.

Imported as ``sciml.operators``. Names load on first use (PEP 562), so that importing this package
loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "sciml.operators":
    raise ImportError("import this package as sciml.operators, not as operators")

if TYPE_CHECKING:
    from sciml.operators.checkpoint import load_operator, save_operator
    from sciml.operators.deeponet import DeepONet, PODDeepONet
    from sciml.operators.fno import FNO
    from sciml.operators.losses import Combined, RelativeH1, RelativeL2, Residual, Weighted
    from sciml.operators.lsm import LSM
    from sciml.operators.mgno import MgNO
    from sciml.operators.operator import Operator, Signature
    from sciml.operators.unet import UNet

# What may stand as `operator:` in a spec, and as `loss:`; the loader builds its unions from these.
OPERATORS: tuple[str, ...] = ("MgNO", "UNet", "FNO", "LSM", "DeepONet", "PODDeepONet")
LOSSES: tuple[str, ...] = ("RelativeL2", "RelativeH1", "Residual", "Combined")

_MODULES = {
    "Combined": "losses",
    "DeepONet": "deeponet",
    "FNO": "fno",
    "LSM": "lsm",
    "MgNO": "mgno",
    "Operator": "operator",
    "PODDeepONet": "deeponet",
    "RelativeH1": "losses",
    "RelativeL2": "losses",
    "Residual": "losses",
    "Signature": "operator",
    "UNet": "unet",
    "Weighted": "losses",
    "load_operator": "checkpoint",
    "save_operator": "checkpoint",
}

__all__ = [
    "FNO",
    "LOSSES",
    "LSM",
    "OPERATORS",
    "Combined",
    "DeepONet",
    "MgNO",
    "Operator",
    "PODDeepONet",
    "RelativeH1",
    "RelativeL2",
    "Residual",
    "Signature",
    "UNet",
    "Weighted",
    "load_operator",
    "save_operator",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml.operators' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.operators.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
