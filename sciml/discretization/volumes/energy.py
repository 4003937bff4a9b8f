"""Problems given by an energy: E(u) = int e(x, u, grad u) dx is made stationary.

On a node grid u is multilinear on every cell, and the integral is taken by Gauss' rule with two
points per axis, at which u and its slopes are u_q = sum_p B_0p u_p and d_a u = sum_p B_ap u_p over
the cell's corners p. Sides add the integral of alpha u^2 / 2 - g u by the trapezoidal rule, so that
n . de/d(grad u) = g - alpha u there. The residual is F = dE/du by reverse differentiation, and

    dF/du = sum_q w_q B^T H_q B,      H_q the second derivatives of e by u and its slopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch

from sciml.core.algebra.stencil import Stencil, box_offsets
from sciml.core.errors import InputError
from sciml.core.problem.condition import BESIDE_ENERGY
from sciml.core.problem.problem import Problem
from sciml.core.run.differentiate import local_graph
from sciml.discretization.volumes.affine import AtTime
from sciml.discretization.volumes.boundary import (
    SideData,
    condition_at,
    ends_of_state,
    joined,
    side_data,
)
from sciml.discretization.volumes.coefficients import Data, evaluate
from sciml.discretization.volumes.layout import Layout, Points, at_end

_KEY = "problem.equation.energy"
_GAUSS = (0.5 - 0.5 / math.sqrt(3), 0.5 + 0.5 / math.sqrt(3))
# Curvature below this share of the largest counts as zero.
_FLAT = 1e-12

Corner = tuple[int, ...]
State = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class QuadraturePoint:
    """One Gauss point of every cell: its place, and B of shape (d + 1, 2^d), u first."""

    points: Points
    shares: tuple[float, ...]
    B: torch.Tensor


class Energy:
    """The energy of a problem on a node grid, with its first and second derivatives."""

    def __init__(self, problem: Problem, info: Data) -> None:
        lay = info.layout
        if lay.cells:
            raise InputError("an energy needs a node grid: use centring: node", "grid.centring")
        if problem.obstacle is not None:
            raise InputError("an energy does not go with an obstacle", "problem.obstacle")
        for axis, end in ends_of_state(problem, info):
            _, key = condition_at(problem, axis, end)
            raise InputError(BESIDE_ENERGY, key)
        self.problem, self.info, self.lay = problem, info, lay
        self.spacing = [axis.spacing for axis in lay.axes]
        self.corners = tuple(product((0, 1), repeat=lay.dimension))
        self.quadrature = [
            _quadrature_point(lay, shares, self.corners, info.dtype)
            for shares in product(_GAUSS, repeat=lay.dimension)
        ]
        self.weight = math.prod(self.spacing) / len(self.quadrature)
        self._sides: AtTime[SideData] = AtTime()

    def at_time(self, t: float) -> Data:
        """The evaluation context at time t."""
        return self.info if self.problem.time is None else self.info.at_time(t)

    def sides(self, t: float) -> SideData:
        """The sides' data at time t."""
        return self._sides.get(t, lambda: side_data(self.problem, self.at_time(t)))

    def value(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """E(u, t) per sample, for u (*batch, *shape)."""
        d, info, sides = self.lay.dimension, self.at_time(t), self.sides(t)
        nodes = all_nodes(u, sides, self.lay)
        total = torch.zeros((), dtype=u.dtype, device=u.device)
        for point in self.quadrature:
            state = self._state(nodes, point.shares)
            total = total + self.weight * self._density(point, info)(*state).flatten(-d).sum(-1)
        for (axis, end), (alpha, g) in sides.flux.items():
            own = at_end(u, axis, d, end)
            held = self.lay.measure(without=axis) * own * (0.5 * alpha * own - g)
            total = total + held.flatten(-d).sum(-1)
        return total

    def gradient(self, u: torch.Tensor, t: float) -> torch.Tensor:
        """F = dE/du, (*batch, *shape)."""
        if torch.func.debug_unwrap(u) is not u or (
            torch.is_grad_enabled() and self.value(u, t).requires_grad
        ):
            slope: torch.Tensor = torch.func.grad(lambda v: self.value(v, t).sum())(u)
            return slope
        with local_graph():
            v = u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.value(v, t).sum(), v)
        return slope

    def _density(self, point: QuadraturePoint, info: Data) -> Callable[..., torch.Tensor]:
        energy = self.problem.form.energy

        def density(u: torch.Tensor, *slopes: torch.Tensor) -> torch.Tensor:
            e = evaluate(energy, point.points, info.with_state(u, slopes), _KEY)
            return e.expand(torch.broadcast_shapes(e.shape, u.shape))

        return density

    def _state(self, nodes: torch.Tensor, shares: Sequence[float]) -> State:
        """u and its slopes at one Gauss point of every cell, (*batch, *cells)."""
        d = self.lay.dimension
        found = []
        for derived in (None, *range(d)):
            value = nodes
            for axis, share in enumerate(shares):
                n = value.shape[axis - d] - 1
                low, high = value.narrow(axis - d, 0, n), value.narrow(axis - d, 1, n)
                if axis == derived:
                    value = (high - low) / self.spacing[axis]
                else:
                    value = (1 - share) * low + share * high
            found.append(value)
        return tuple(found)

    def hessian(self, u: torch.Tensor, t: float, convex: bool = False) -> Stencil:
        """dF/du at u; with ``convex`` a definite one near it, the same where e is convex."""
        d, lay, sides, info = self.lay.dimension, self.lay, self.sides(t), self.at_time(t)
        nodes = all_nodes(u, sides, lay)
        pairs: torch.Tensor | float = 0.0
        definite, level_free = True, True
        for point in self.quadrature:
            H = _second(self._density(point, info), self._state(nodes, point.shares))
            found = _convex(H)
            if convex and not bool(found.all()):
                H, found = _convex_part(H, found), torch.ones_like(found)
            definite &= bool(found.all())
            level_free &= not any(bool((entry != 0).any()) for entry in H[0])
            pairs = pairs + self._pairs(H, point.B)
        assert isinstance(pairs, torch.Tensor)
        planes = self._assemble(pairs)
        grounded = any("value" in axis.ends for axis in lay.axes)
        centre = planes.select(-d - 1, box_offsets(d).index((0,) * d))
        for (axis, end), (alpha, _) in sides.flux.items():
            held = alpha.clamp(min=0.0) if convex else alpha
            at_end(centre, axis, d, end).add_(held * lay.measure(without=axis))
            grounded |= bool((alpha != 0).any())
            definite &= bool((held >= 0).all())
        return Stencil(
            planes,
            box_offsets(d),
            periodic=lay.periodic,
            symmetric=True,
            definite=definite,
            nullspace=not grounded and level_free,
        )

    def _pairs(self, H: list[list[torch.Tensor]], B: torch.Tensor) -> torch.Tensor:
        """The element matrices of one Gauss point: (corner, corner, *batch, *cells)."""
        n = len(H)
        flat = torch.stack([torch.stack(row) for row in H]).flatten(0, 1)
        weights = torch.einsum("ap,br->prab", B, B).reshape(-1, n * n) * self.weight
        found = weights.to(flat) @ flat.flatten(1)
        corners = len(self.corners)
        return found.reshape(corners, corners, *flat.shape[1:])

    def _assemble(self, pairs: torch.Tensor) -> torch.Tensor:
        """Planes in box order from the element matrices."""
        lay, d = self.lay, self.lay.dimension
        offsets = box_offsets(d)
        nodes = [len(axis.points) for axis in lay.axes]
        planes = pairs.new_zeros(*pairs.shape[2:-d], len(offsets), *nodes)
        for i, p in enumerate(self.corners):
            for j, r in enumerate(self.corners):
                offset = tuple(b - a for a, b in zip(p, r, strict=True))
                rows = planes.select(-d - 1, offsets.index(offset))
                for axis, s in enumerate(p):
                    rows = rows.narrow(axis - d, s, nodes[axis] - 1)
                rows.add_(pairs[i, j])
        for axis, wraps in enumerate(lay.periodic):
            if wraps:
                at_end(planes, axis, d, 0).add_(at_end(planes, axis, d, 1).clone())
        return lay.to_unknowns(planes).contiguous()


def _quadrature_point(
    lay: Layout, shares: Sequence[float], corners: Sequence[Corner], dtype: torch.dtype
) -> QuadraturePoint:
    places = {
        k: a.points[:-1] + s * a.spacing
        for k, (a, s) in enumerate(zip(lay.axes, shares, strict=True))
    }
    rows = []
    for derived in (None, *range(lay.dimension)):
        row = []
        for corner in corners:
            factors = []
            for axis, (c, s) in enumerate(zip(corner, shares, strict=True)):
                if axis == derived:
                    factors.append((2 * c - 1) / lay.axes[axis].spacing)
                else:
                    factors.append(s if c else 1 - s)
            row.append(math.prod(factors))
        rows.append(row)
    B = torch.tensor(rows, dtype=dtype, device=lay.axes[0].points.device)
    return QuadraturePoint(lay.points(places), tuple(shares), B)


def all_nodes(u: torch.Tensor, sides: SideData, lay: Layout) -> torch.Tensor:
    """``u`` with the boundary nodes whose values are known, or those that wrap, in place."""
    d, result = lay.dimension, u
    known = {(axis, end): whole for axis, end, whole in sides.known}
    for axis in reversed(range(d)):
        ends: list[torch.Tensor | None] = []
        for end, kind in enumerate(lay.axes[axis].ends):
            if kind == "value":
                slab = known[axis, end]
                for other in range(axis):
                    line = lay.axes[other]
                    if slab.shape[other - d] == len(line.points):
                        slab = slab.narrow(other - d, line.start, line.count)
                ends.append(slab)
            elif kind == "wrap" and end == 1:
                ends.append(at_end(result, axis, d, 0))
            else:
                ends.append(None)
        parts = [p for p in (ends[0], result, ends[1]) if p is not None]
        result = joined(parts, axis, d)
    return result


def _second(density: Callable[..., torch.Tensor], state: State) -> list[list[torch.Tensor]]:
    """The matrix of second derivatives of the density by u and its slopes, point by point."""
    kept = torch.is_grad_enabled() and any(v.requires_grad for v in (*state, density(*state)))
    if not kept:
        with local_graph():
            own = [s.detach().requires_grad_() for s in state]
            slopes = torch.autograd.grad(
                density(*own).sum(),
                own,
                create_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return [list(_slopes_of(slope, own)) for slope in slopes]
    every = tuple(range(len(state)))
    first = torch.func.grad(lambda *s: density(*s).sum(), argnums=every)
    zeros = [torch.zeros_like(s) for s in state]
    columns = []
    for k in every:
        ones = tuple(
            torch.ones_like(s) if j == k else z
            for j, (s, z) in enumerate(zip(state, zeros, strict=True))
        )
        columns.append(list(torch.func.jvp(first, state, ones)[1]))
    return columns


def _slopes_of(value: torch.Tensor, by: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The derivatives of the sum of a value that may not depend on anything."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(v) for v in by)
    return torch.autograd.grad(
        value.sum(), by, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def _convex(H: list[list[torch.Tensor]]) -> torch.Tensor:
    """Where H is positive semidefinite, by elimination."""
    n = len(H)
    rows = [list(row) for row in H]
    tiny = _FLAT * torch.stack([H[k][k].abs() for k in range(n)]).amax(0)
    good = torch.ones_like(tiny, dtype=torch.bool)
    for k in reversed(range(n)):
        pivot = rows[k][k]
        some = pivot > tiny
        good &= pivot >= -tiny
        for i in range(k):
            good &= some | (rows[k][i].abs() <= tiny)
            factor = torch.where(some, rows[i][k] / torch.where(some, pivot, 1.0), 0.0)
            for j in range(k):
                rows[i][j] = rows[i][j] - factor * rows[k][j]
    return good


def _convex_part(H: list[list[torch.Tensor]], convex: torch.Tensor) -> list[list[torch.Tensor]]:
    """H where it is convex; elsewhere |H_00| and the block by the slopes, or its diagonal."""
    n = len(H)
    block = _convex([row[1:] for row in H[1:]])
    result = []
    for i in range(n):
        row = []
        for j in range(n):
            zero = torch.zeros_like(H[i][j])
            if i == j == 0:
                other = H[0][0].abs()
            elif 0 in (i, j):
                other = zero
            else:
                other = torch.where(block, H[i][j], H[i][j].abs() if i == j else zero)
            row.append(torch.where(convex, H[i][j], other))
        result.append(row)
    return result
