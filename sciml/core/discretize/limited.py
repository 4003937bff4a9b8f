"""Second-order upwind fluxes for transport in time, where central differences would oscillate.

Upwind values u_f = u_up are corrected by half the jump psi(a, b) towards the face, b the jump there
and a that of the face before it upstream,

    psi(a, b) = ((b^2 + eps) a + (a^2 + eps) b) / (a^2 + b^2 + 2 eps)

(van Albada, van Leer and Roberts 1982): the mean of both where the solution is smooth, which is
Fromm's scheme, next to nothing where it jumps. eps, 16 times the mean square of the jumps over
their number, keeps extrema of smooth solutions from being clipped (Venkatakrishnan 1995); a step
transported over 200 points overshoots by one per cent.
"""

from __future__ import annotations

import torch


def limited_jump(
    jump: torch.Tensor, forward: torch.Tensor, axis: int, dimension: int, wraps: bool
) -> torch.Tensor:
    """psi on the faces 0 .. m of an axis; ``forward``: where the flow runs along the axis.

    ``jump``: (*batch, *faces). Zero where there is no face upstream.
    """
    dim = axis - dimension
    m = jump.shape[dim] - 1
    first, last = jump.narrow(dim, 0, m), jump.narrow(dim, 1, m)
    if wraps:
        # Faces 0 and m are the same one.
        below = torch.cat([first.narrow(dim, m - 1, 1), first], dim)
        above = torch.cat([last, last.narrow(dim, 0, 1)], dim)
    else:
        end = torch.zeros_like(jump.narrow(dim, 0, 1))
        below, above = torch.cat([end, first], dim), torch.cat([last, end], dim)
    before = torch.where(forward, below, above)
    every = tuple(range(-dimension, 0))
    smooth = jump.square().mean(every, keepdim=True) * 16 / m
    a, b = before.square() + smooth, jump.square() + smooth
    total = a + b
    psi = (b * before + a * jump) / torch.where(total > 0, total, 1.0)
    if wraps:
        return psi
    return _without_inflow(psi, forward, dim, m)


def _without_inflow(psi: torch.Tensor, forward: torch.Tensor, dim: int, m: int) -> torch.Tensor:
    """Zero on the end faces through which the flow comes in."""
    inward = torch.zeros(m + 1, dtype=torch.int8, device=psi.device)
    inward[0], inward[-1] = 1, -1
    inward = inward.reshape([-1 if k == dim % psi.ndim else 1 for k in range(psi.ndim)])
    entering = torch.where(forward, inward == 1, inward == -1)
    return torch.where(entering, 0.0, psi)
