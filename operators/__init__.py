"""Neural operators: maps between functions as networks, and nothing else.

Imported as ``sciml.operators``. Names load on first use (PEP 562), so that importing this package
loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if __name__ != "sciml.operators":
    raise ImportError("import this package as sciml.operators, not as operators")

if TYPE_CHECKING:
    from sciml.operators.checkpoint import load_operator as load_operator
    from sciml.operators.checkpoint import save_operator as save_operator
    from sciml.operators.deeponet import DeepONet as DeepONet
    from sciml.operators.deeponet import PODDeepONet as PODDeepONet
    from sciml.operators.fno import FNO as FNO
    from sciml.operators.kernel import Kernel as Kernel
    from sciml.operators.losses import Combined as Combined
    from sciml.operators.losses import RelativeH1 as RelativeH1
    from sciml.operators.losses import RelativeL2 as RelativeL2
    from sciml.operators.losses import Residual as Residual
    from sciml.operators.losses import Weighted as Weighted
    from sciml.operators.lsm import LSM as LSM
    from sciml.operators.mgno import MgNO as MgNO
    from sciml.operators.operator import Operator as Operator
    from sciml.operators.operator import Signature as Signature
    from sciml.operators.unet import UNet as UNet

__getattr__, __dir__ = attach(__name__, __file__)
