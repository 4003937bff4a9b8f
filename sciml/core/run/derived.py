"""Fields derived from an answer: its slopes, fluxes, vorticity, stresses, on its own place.

Which there are, and how they are found, an equation's discretisation says by ``derives`` of
:mod:`sciml.core.problem.dispatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Derived:
    """A field derived from an answer.

    ``value``: (*batch, [frames], [components], *grid), at the points of the grid or the nodes of
    the mesh; NaN inside obstacles. ``components``: their names, one for a scalar. ``inner``: on a
    mesh the means over the elements, (*batch, [components], m), of which ``value`` is the
    recovery. ``vector``: whether the components are along x, y, z. ``peaks``: on a mesh of stresses
    the largest in size at the quadrature points of each element, as ``inner``, before recovery.
    """

    value: torch.Tensor
    components: tuple[str, ...]
    inner: torch.Tensor | None = None
    vector: bool = False
    peaks: torch.Tensor | None = None


# A value (*batch, [fields], *grid) and its time to the field's (*batch, [components], *grid).
Derive = Callable[[torch.Tensor, float | None], torch.Tensor]


@dataclass(frozen=True)
class Derivation:
    """How a field is derived; ``usual``: whether it belongs to an answer without being asked for.

    ``inner`` and ``peaks`` give (*batch, [components], m); the rest is as in :class:`Derived`.
    """

    components: tuple[str, ...]
    value: Derive
    inner: Derive | None = None
    vector: bool = False
    usual: bool = False
    peaks: Derive | None = None
