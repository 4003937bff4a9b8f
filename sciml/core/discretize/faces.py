"""Fluxes through the faces of the control volumes, for scalar and diagonal K.

Integrated over the control volume C_i, with u_j the neighbour across face f of area |f|,

    int -div(K grad u) + b . grad u  ~  sum_f -K_f |f| (u_j - u_i) / l_f + b_f . n |f| (u_f - u_i),

K_f the harmonic mean of the two points' values (exact in 1-D for K that jumps at the face). Every
face k thus has two off-diagonal entries: ``up[k]``, in the row below it, and ``down[k]``, in the
row above it; they differ only by advection. u_f is the central average where the face Peclet
number |b| h / K is at most 2, and the upwind value elsewhere, so that the entries stay negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch

from sciml.core.discretize.coefficients import Data, evaluate
from sciml.core.discretize.layout import Layout, at_end, lie_along
from sciml.core.problem import Coefficient


@dataclass(frozen=True)
class Faces:
    """Off-diagonal entries of the faces 0 .. m of one axis, shape (*batch, ..., m + 1, ...).

    Axes on which nothing varies have size 1. ``diffusive`` is their symmetric part.
    """

    up: torch.Tensor
    down: torch.Tensor
    diffusive: torch.Tensor


@dataclass(frozen=True)
class Upwinding:
    """How many faces are upwinded, of how many, and the largest cell Peclet number."""

    upwinded: int
    faces: int
    peclet: float


def diffusion(half_resistance: torch.Tensor, layout: Layout, axis: int) -> torch.Tensor:
    """``-K_f |f| / l_f`` on the faces 0 .. m; zero on closed ends.

    ``half_resistance`` is -1 / (2 K) at the grid's points: the harmonic mean of K is minus the
    reciprocal of the sum of two of them.
    """
    line, dim = layout.axes[axis], axis - layout.dimension
    area = layout.measure(without=axis)
    r = layout.to_unknowns(half_resistance, skip=axis)
    plain = not layout.cells and "closed" not in line.ends
    if r.shape[dim] == 1:
        if plain:
            return 0.5 / r * (area / line.spacing)
        r = r.expand([len(line.points) if k == dim % r.ndim else n for k, n in enumerate(r.shape)])
    if line.ends[0] == "wrap":
        r = r.narrow(dim, 0, line.count)
        r = torch.cat([r.narrow(dim, -1, 1), r, r.narrow(dim, 0, 1)], dim)
    n = r.shape[dim]
    inner = r.narrow(dim, 0, n - 1) + r.narrow(dim, 1, n - 1)
    # In place on fresh tensors: half the memory traffic, and autograd allows it.
    if isinstance(area, float):
        if area != line.spacing:
            inner.mul_(line.spacing / area)
        inner.reciprocal_()
    else:
        inner = inner.reciprocal_() * (area / line.spacing)
    if plain or line.ends[0] == "wrap":
        return inner
    return torch.cat(_with_ends(inner, r, layout, axis, area / line.spacing), dim)


def _with_ends(
    inner: torch.Tensor, r: torch.Tensor, layout: Layout, axis: int, scale: float | torch.Tensor
) -> list[torch.Tensor]:
    """The inner faces between those of the two ends, where the array of faces needs them.

    On node grids a Dirichlet end's face is an inner one already.
    """
    parts = [inner]
    for end, kind in enumerate(layout.axes[axis].ends):
        if kind == "value" and not layout.cells:
            continue
        face = at_end(inner, axis, layout.dimension, end)
        slab = torch.zeros_like(face)
        if kind == "value":
            # l_f = h / 2, and K is that of the cell.
            slab = at_end(r, axis, layout.dimension, end).reciprocal() * scale
        parts.insert(0 if end == 0 else len(parts), slab)
    return parts


def advection(
    off: torch.Tensor, velocity: Coefficient, layout: Layout, axis: int, data: Data
) -> tuple[Faces, Upwinding]:
    """The faces' entries with ``b . grad u`` added to the diffusive ones, ``off``.

    The velocity is taken at the faces' own midpoints.
    """
    line = layout.axes[axis]
    v = evaluate(velocity, layout.points({axis: line.edges}), data, f"problem.equation.b[{axis}]")
    flow = v * layout.measure(without=axis)
    share = _neighbour_share(layout, axis, flow)
    if isinstance(share, torch.Tensor):
        # Through a closed end u_f - u_i is left to the boundary condition.
        flow = flow * (share > 0)
    off, central, flow = torch.broadcast_tensors(off, flow * share, flow)
    upwind = central.abs() > -off
    up = off + torch.where(upwind, flow.clamp(max=0.0), central)
    down = off - torch.where(upwind, flow.clamp(min=0.0), central)
    open_faces = off.detach() < 0
    ratio = central.detach().abs()[open_faces] / -off.detach()[open_faces]
    # One number stands for all faces where nothing varies along an axis.
    repeat = prod(
        n + (k == axis) for k, n in enumerate(layout.shape) if off.shape[k - layout.dimension] == 1
    )
    return Faces(up, down, off), Upwinding(
        int((ratio > 1).sum()) * repeat, ratio.numel() * repeat, 2.0 * float(ratio.max())
    )


def _neighbour_share(layout: Layout, axis: int, like: torch.Tensor) -> float | torch.Tensor:
    """Weight of the neighbour in the central u_f: 1/2, all on a cell grid's Dirichlet face."""
    line = layout.axes[axis]
    if "closed" not in line.ends and not (layout.cells and "value" in line.ends):
        return 0.5
    weights = torch.full_like(line.edges, 0.5)
    for place, kind in ((0, line.ends[0]), (-1, line.ends[1])):
        if kind == "closed":
            weights[place] = 0.0
        elif kind == "value" and layout.cells:
            weights[place] = 1.0
    return lie_along(weights, axis, layout.dimension).to(like.dtype)
