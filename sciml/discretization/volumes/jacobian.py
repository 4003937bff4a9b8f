"""The Jacobian of a residual on a box stencil, by coloured Jacobian-vector products.

Points of one colour lie at least three apart along an axis, so that their stencils do not overlap:
one product with a vector of ones on a colour gives all of their columns (Curtis, Powell and Reid
1974). Three colours per axis do; on a periodic axis whose length is no multiple of three the last
one or two points have colours of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sciml.core.algebra.kernels.reference import shifted
from sciml.core.algebra.stencil import box_offsets
from sciml.core.algebra.transfer import Offset
from sciml.discretization.volumes.layout import lie_along

Function = Callable[[torch.Tensor], torch.Tensor]

# How many numbers the products taken together may have: they keep dozens of arrays of that size.
_ENTRIES = 2**21


def derivative(function: Function, u: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """The derivative of ``function`` at u along ``direction``; both of u's shape."""
    along: torch.Tensor = torch.func.jvp(function, (u,), (direction,))[1]
    return along


def box_jacobian(function: Function, u: torch.Tensor, periodic: Sequence[bool]) -> torch.Tensor:
    """Planes (*batch, 3^d, *shape) of d function / du at u (*batch, *shape), in box order.

    ``function`` maps (*any, *batch, *shape) to the same shape, each entry from its neighbours.
    """
    d = len(periodic)
    shape = u.shape[-d:]
    lines = [_colours(n, wraps) for n, wraps in zip(shape, periodic, strict=True)]
    colour, count = torch.zeros(shape, dtype=torch.int64), 1
    for axis, line in enumerate(lines):
        colour = colour + count * lie_along(line, axis, d)
        count *= int(line.max()) + 1
    colour = colour.to(u.device)
    planes = u.new_zeros(*u.shape[:-d], 3**d, *shape)
    together = max(1, _ENTRIES // u.numel())
    for first in range(0, count, together):
        some = torch.arange(first, min(first + together, count), device=u.device)
        probes = (some.reshape(-1, *(1,) * u.ndim) == colour).to(u.dtype)
        many = u.expand(len(some), *u.shape).contiguous()
        columns = derivative(function, many, probes.expand_as(many).contiguous())
        for k, offset in enumerate(box_offsets(d)):
            _place(planes.select(-d - 1, k), columns, colour - first, offset, periodic)
    return planes


def _place(
    plane: torch.Tensor,
    columns: torch.Tensor,
    colour: torch.Tensor,
    offset: Offset,
    periodic: Sequence[bool],
) -> None:
    """Write the derivatives by the neighbour at ``offset``, if its colour is among the columns'."""
    axes = tuple(range(len(offset)))
    beside = torch.roll(colour, tuple(-s for s in offset), dims=axes)
    known = (beside >= 0) & (beside < len(columns))
    inside = shifted(torch.ones_like(colour, dtype=columns.dtype), offset, periodic) > 0
    index = beside.clamp(0, len(columns) - 1).expand(1, *columns.shape[1:])
    plane.copy_(torch.where(known & inside, columns.gather(0, index).squeeze(0), plane))


def _colours(n: int, wraps: bool) -> torch.Tensor:
    colours = torch.arange(n) % 3
    if wraps and n % 3:
        extra = n % 3
        colours[-extra:] = 3 + torch.arange(extra)
    return colours
