"""The handful of loops that all time is spent in, each one pass over its arrays.

Two twins with the same functions: ``reference`` (torch: batched, differentiable, any device) and
``compiled`` (numba, for CPU tensors that need no gradient). Tests hold them equal.
"""

from __future__ import annotations

from types import ModuleType

import torch


def of(u: torch.Tensor) -> ModuleType:
    """The kernels for this tensor: compiled on the CPU, reference elsewhere or where derived.

    Derived: under autograd, or inside a transform of torch.func.
    """
    recorded = u.requires_grad and torch.is_grad_enabled()
    if u.device.type == "cpu" and not recorded and torch.func.debug_unwrap(u) is u:
        from sciml.core.algebra.kernels import compiled

        return compiled
    from sciml.core.algebra.kernels import reference

    return reference
