"""The Jacobian of a residual on a box stencil, by coloured Jacobian-vector products.

Points of one colour lie at least three apart along an axis, so that their stencils do not overlap:
one product with a vector of ones on a colour gives all of their columns (Curtis, Powell and Reid
1974). Three colours per axis do; on a periodic axis whose length is no multiple of three the last
one or two points have colours of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sciml.core.discretize.layout import lie_along
from sciml.core.stencil import Offset, box_offsets, shifted

Function = Callable[[torch.Tensor], torch.Tensor]


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
    probes = torch.arange(count, device=u.device).reshape(-1, *(1,) * u.ndim) == colour
    many = u.expand(count, *u.shape).contiguous()
    columns = torch.func.jvp(function, (many,), (probes.to(u.dtype).expand_as(many).contiguous(),))[
        1
    ]
    return torch.stack([_plane(columns, colour, o, periodic) for o in box_offsets(d)], -d - 1)


def _plane(
    columns: torch.Tensor, colour: torch.Tensor, offset: Offset, periodic: Sequence[bool]
) -> torch.Tensor:
    """The derivative by the neighbour at ``offset``: that neighbour's colour picks the product."""
    beside = torch.roll(colour, tuple(-s for s in offset), dims=tuple(range(len(offset))))
    index = beside.expand(1, *columns.shape[1:])
    picked = columns.gather(0, index).squeeze(0)
    inside = shifted(torch.ones_like(colour, dtype=columns.dtype), offset, periodic)
    return torch.where(inside > 0, picked, 0.0)


def _colours(n: int, wraps: bool) -> torch.Tensor:
    colours = torch.arange(n) % 3
    if wraps and n % 3:
        extra = n % 3
        colours[-extra:] = 3 + torch.arange(extra)
    return colours
