"""Quasilinear residuals: K and b may depend on u and its slopes, c and f on the slopes too.

With u given beyond its ends by the sides (``padding``), the flux through a face of area |f| is

    K(x_f, u_f, grad u_f) |f| (u_j - u_i) / l_f,

u_f the mean of the two points, grad u_f the normal difference with the means of the tangential
differences. A K that does not depend on u is a harmonic mean, as in the linear scheme. Advection is
b_f . n |f| (u_f - u_i), central where the face Peclet number is at most 2, else as far upwind as
keeps the signs of the coefficients; in time lifted to second order again (``limited``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch

from sciml.core.discretize import faces
from sciml.core.discretize.coefficients import STATE, Data, depends_on, evaluate, require
from sciml.core.discretize.instant import AtTime
from sciml.core.discretize.layout import Layout, at_end, high_faces, lie_along, low_faces
from sciml.core.discretize.limited import limited_jump
from sciml.core.discretize.padding import (
    Sides,
    difference,
    extended,
    outward_difference,
    padded,
    side_data,
    with_end,
)
from sciml.core.problem import Problem
from sciml.core.stencil import Stencil, cross_offsets

_KEY = "problem.equation"


@dataclass(frozen=True)
class FaceState:
    """The solution at the faces 0 .. m of one axis: the jump u_j - u_i, u_f and grad u_f."""

    jump: torch.Tensor
    u: torch.Tensor
    slopes: tuple[torch.Tensor, ...]


class Fluxes:
    """The residual of a quasilinear problem without obstacle, on the unknowns."""

    def __init__(self, problem: Problem, info: Data) -> None:
        self.problem, self.info, self.lay = problem, info, info.layout
        d = self.lay.dimension
        K, b = problem.form.K, problem.form.b
        self.K: tuple[Any, ...] = tuple(K) if isinstance(K, (list, tuple)) else (K,) * d
        self.b: tuple[Any, ...] = tuple(b) if b is not None else (0.0,) * d
        self.carried = [not (isinstance(v, Real) and v == 0) for v in self.b]
        self.K = tuple(k[a] if isinstance(k, (list, tuple)) else k for a, k in enumerate(self.K))
        self.state_K = [bool(depends_on(k, info, f"{_KEY}.K") & set(STATE)) for k in self.K]
        self.volume = self.lay.measure()
        self._sides: AtTime[Sides] = AtTime()
        self._kept: dict[Any, AtTime[torch.Tensor]] = {}

    def at_time(self, t: float) -> Data:
        """The evaluation context at time t."""
        return self.info if self.problem.time is None else self.info.at_time(t)

    def sides(self, t: float) -> Sides:
        """The sides' data at time t."""
        return self._sides.get(t, lambda: side_data(self.problem, self.at_time(t)))

    def _keep(
        self, name: Any, coefficient: Any, info: Data, make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """What ``make`` gives, made anew only where the coefficient depends on t and t is new."""
        moving = "t" in depends_on(coefficient, info, _KEY)
        t = float(info.variables["t"]) if moving else 0.0
        return self._kept.setdefault(name, AtTime()).get(t, make)

    def residual(self, u: torch.Tensor, t: float, compact: bool = False) -> torch.Tensor:
        """F(u, t) for u (*batch, *shape); ``compact``: of nearest neighbours only."""
        lay, info, sides = self.lay, self.at_time(t), self.sides(t)
        d = lay.dimension
        whole = padded(u, sides, self.lay)
        total = self.volume * self.reaction(u, whole, info)
        for axis in range(d):
            state = face_state(whole, axis, self.lay)
            conductance = self.conductance(state, axis, info)
            levels = self.levels(u, sides, axis, info)
            flux = self._with_conditions(conductance * state.jump, levels, sides, axis)
            total = total - high_faces(flux, axis, d) + low_faces(flux, axis, d)
            if self.carried[axis]:
                if lay.cells:
                    state = _with_levels(state, levels, u, axis)
                below, above, central = self.advection(state, conductance, axis, info)
                total = total + high_faces(below * state.jump, axis, d)
                total = total + low_faces(above * state.jump, axis, d)
                if not compact and self.problem.time is not None:
                    flux = self._second_order(state.jump, below, above, central, axis)
                    total = total + high_faces(flux, axis, d) - low_faces(flux, axis, d)
        return total

    def _second_order(
        self,
        jump: torch.Tensor,
        below: torch.Tensor,
        above: torch.Tensor,
        central: torch.Tensor,
        axis: int,
    ) -> torch.Tensor:
        """What lifts upwind fluxes to second order, for solutions that move through the grid."""
        share, _ = neighbour_share(self.lay, axis, self.info)
        wraps = self.lay.axes[axis].ends[0] == "wrap"
        psi = limited_jump(jump, central > 0, axis, self.lay.dimension, wraps)
        return torch.where(share == 0.5, (above - below) / 2, 0.0) * psi

    def reaction(self, u: torch.Tensor, whole: torch.Tensor, info: Data) -> torch.Tensor:
        """``c u - f`` at the unknowns."""
        form, lay = self.problem.form, self.lay
        slopes = [difference(whole, axis, lay) for axis in range(lay.dimension)]
        here = info.with_state(u, [inner(s, lay, k) for k, s in enumerate(slopes)])
        value = torch.zeros_like(u)
        for name in ("c", "f"):
            coefficient, key = getattr(form, name), f"{_KEY}.{name}"
            if depends_on(coefficient, info, key) & set(STATE):
                found = evaluate(coefficient, lay.points(), here, key)
            else:
                make = partial(evaluate, coefficient, info.own, info, key)
                found = lay.to_unknowns(self._keep(name, coefficient, info, make))
            value = value + found * u if name == "c" else value - found
        return value

    def conductance(self, state: FaceState, axis: int, info: Data) -> torch.Tensor:
        """``K |f| / l_f`` on the faces; on closed ends what the formula gives there."""
        lay, key = self.lay, f"{_KEY}.K"
        line = lay.axes[axis]
        if not self.state_K[axis]:
            K = self.K[axis]
            return self._keep(axis, K, info, lambda: harmonic(K, lay, axis, info))
        points = lay.points({axis: line.edges})
        K = evaluate(self.K[axis], points, info.with_state(state.u, state.slopes), key)
        lengths = lie_along(line.lengths, axis, lay.dimension).to(info.dtype)
        return K * lay.measure(without=axis) / lengths

    def levels(
        self, u: torch.Tensor, sides: Sides, axis: int, info: Data
    ) -> dict[int, torch.Tensor]:
        """u on the closed ends of an axis.

        That of the node there; beside a cell u_f with k (u_f - u_i) = g - alpha u_f, k = 2 K / h.
        """
        lay, found = self.lay, {}
        d, line = lay.dimension, lay.axes[axis]
        for end, kind in enumerate(line.ends):
            if kind != "closed":
                continue
            found[end] = own = at_end(u, axis, d, end)
            if not lay.cells:
                continue
            alpha, g = sides.flux[axis, end]
            slopes = [
                outward_difference(u, axis, end, lay)
                if other == axis
                else difference(extended(own, other, lay), other, lay)
                for other in range(d)
            ]
            here = info.with_state(own, slopes)
            K = evaluate(self.K[axis], sides.inside[axis, end], here, f"{_KEY}.K")
            k = 2 / line.spacing * K
            total = alpha + k
            some = total > 0
            found[end] = torch.where(some, (k * own + g) / torch.where(some, total, 1.0), own)
        return found

    def _with_conditions(
        self, flux: torch.Tensor, levels: dict[int, torch.Tensor], sides: Sides, axis: int
    ) -> torch.Tensor:
        """The fluxes with those of Neumann and Robin sides in place: n . K grad u = g - alpha u."""
        for end, u in levels.items():
            alpha, g = sides.flux[axis, end]
            outward = (g - alpha * u) * self.lay.measure(without=axis) * (1 if end else -1)
            flux = with_end(flux, outward, axis, end, self.lay.dimension)
        return flux

    def advection(
        self, state: FaceState, conductance: torch.Tensor, axis: int, info: Data
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What multiplies the jump in the rows below and above each face, and centrally."""
        lay = self.lay
        points = lay.points({axis: lay.axes[axis].edges})
        here = info.with_state(state.u, state.slopes)
        flow = evaluate(self.b[axis], points, here, f"{_KEY}.b[{axis}]")
        flow = flow * lay.measure(without=axis)
        share, outward = neighbour_share(lay, axis, info)
        # Where the flow leaves through a closed side faster than it diffuses, u_f is u_i.
        flow = torch.where((outward * flow > conductance) & (outward != 0), 0.0, flow)
        central = flow * share
        # Just as much upwind as keeps the coefficients' signs, so that the flux is continuous in u.
        size = central.abs()
        blend = torch.where(size > conductance, conductance / torch.where(size > 0, size, 1.0), 1.0)
        below, above = (v * (share > 0) for v in (flow.clamp(max=0.0), flow.clamp(min=0.0)))
        return below + blend * (central - below), above + blend * (central - above), central

    def remarks(self, u: torch.Tensor, t: float) -> tuple[str, ...]:
        """A line where the scheme is upwind at this state."""
        info = self.at_time(t)
        whole = padded(u, self.sides(t), self.lay)
        ratios = []
        for axis in range(self.lay.dimension):
            if self.carried[axis]:
                state = face_state(whole, axis, self.lay)
                conductance = self.conductance(state, axis, info)
                size = self.advection(state, conductance, axis, info)[2].abs()
                ratios.append(torch.where(size == 0, 0.0, size / conductance).flatten())
        if not ratios or not bool((torch.cat(ratios) > 1).any()):
            return ()
        every = torch.cat(ratios)
        share, peclet = 100 * float((every > 1).double().mean()), 2 * float(every.max())
        how = "of first order" if self.problem.time is None else "limited to second order"
        return (
            f"upwind, {how}, on {share:.2g} % of the faces: the cell Peclet number "
            f"reaches {peclet:.3g}",
        )

    def frozen(self, u: torch.Tensor, t: float) -> Stencil:
        """Diffusion with K as it is at u, sides included: symmetric and definite."""
        lay, d, info, sides = self.lay, self.lay.dimension, self.at_time(t), self.sides(t)
        whole = padded(u, sides, lay)
        every = [
            self.conductance(face_state(whole, axis, lay), axis, info).clamp(min=0.0)
            for axis in range(d)
        ]
        batch = torch.broadcast_shapes(u.shape[:-d], *(c.shape[:-d] for c in every))
        planes = u.new_zeros(*batch, 2 * d + 1, *lay.shape)
        grounded = False
        for axis, found in enumerate(every):
            sizes = [n + (k == axis) for k, n in enumerate(lay.shape)]
            links = found.expand(*found.shape[:-d], *sizes).clone()
            for end, kind in enumerate(lay.axes[axis].ends):
                grounded |= kind == "value"
                if kind == "closed":
                    alpha = sides.flux[axis, end][0] * lay.measure(without=axis)
                    link = at_end(links, axis, d, end)
                    if lay.cells:
                        held = alpha * link / (alpha + link).clamp(min=torch.finfo(u.dtype).tiny)
                    else:
                        held = alpha
                    link.zero_()
                    grounded |= bool((alpha > 0).any())
                    at_end(planes.select(-d - 1, 0), axis, d, end).add_(held)
            low, high = low_faces(links, axis, d), high_faces(links, axis, d)
            planes.select(-d - 1, 2 * axis + 1).copy_(-low)
            planes.select(-d - 1, 2 * axis + 2).copy_(-high)
            planes.select(-d - 1, 0).add_(low + high)
        definite = bool((planes.select(-d - 1, 0) > 0).all())
        return Stencil(
            planes,
            cross_offsets(d),
            periodic=lay.periodic,
            symmetric=True,
            definite=definite,
            nullspace=not grounded,
        )


def harmonic(K: Any, lay: Layout, axis: int, info: Data) -> torch.Tensor:
    """``K |f| / l_f`` by harmonic means, for a K that does not depend on u; K may be zero."""
    value = evaluate(K, info.own, info, f"{_KEY}.K")
    if not bool((value != 0).any()):
        return torch.zeros_like(value)
    require(value, info.own, f"{_KEY}.K", positive=True)
    links = -faces.diffusion(-0.5 / value, lay, axis)
    if not lay.cells or "closed" not in lay.axes[axis].ends:
        return links
    d, dim = lay.dimension, axis - lay.dimension
    scale = 2 / lay.axes[axis].spacing * lay.measure(without=axis)
    parts = [links.narrow(dim, 1, links.shape[dim] - 2)]
    for end, kind in enumerate(lay.axes[axis].ends):
        own = at_end(value, axis, d, end) * scale
        slab = own.expand(at_end(links, axis, d, end).shape)
        parts.insert(
            0 if end == 0 else len(parts), slab if kind == "closed" else at_end(links, axis, d, end)
        )
    return torch.cat(parts, dim)


def face_state(whole: torch.Tensor, axis: int, lay: Layout) -> FaceState:
    """The solution at the faces of an axis, from its padded values."""
    d, line = lay.dimension, lay.axes[axis]
    dim = axis - d
    n = whole.shape[dim] - 1
    rows = inner(whole, lay, axis)
    low, high = rows.narrow(dim, 0, n), rows.narrow(dim, 1, n)
    weight = _low_weight(lay, axis, whole)
    slopes = []
    for other in range(d):
        if other == axis:
            slopes.append((high - low) / lie_along(line.lengths, axis, d).to(whole.dtype))
            continue
        slope = inner(difference(whole, other, lay), lay, axis, other)
        slopes.append(weight * slope.narrow(dim, 0, n) + (1 - weight) * slope.narrow(dim, 1, n))
    return FaceState(high - low, weight * low + (1 - weight) * high, tuple(slopes))


def _with_levels(
    state: FaceState, levels: dict[int, torch.Tensor], u: torch.Tensor, axis: int
) -> FaceState:
    """The state with u on the closed ends of an axis of cells as the conditions say."""
    d = len(state.slopes)
    for end, level in levels.items():
        jump = (level - at_end(u, axis, d, end)) * (1 if end else -1)
        state = FaceState(
            with_end(state.jump, jump, axis, end, d), with_end(state.u, level, axis, end, d),
            state.slopes,
        )  # fmt: skip
    return state


def inner(value: torch.Tensor, lay: Layout, *whole: int) -> torch.Tensor:
    """Padded values without their ends, but for the axes ``whole``."""
    for axis in range(lay.dimension):
        if axis not in whole:
            value = value.narrow(axis - lay.dimension, 1, lay.shape[axis])
    return value


def _low_weight(lay: Layout, axis: int, like: torch.Tensor) -> torch.Tensor:
    """Weight of the lower point in a face's mean; a side's own point stands for its face."""
    line = lay.axes[axis]
    weights = torch.full_like(line.edges, 0.5)
    for place, kind, first in ((0, line.ends[0], True), (-1, line.ends[1], False)):
        if kind != "wrap" and lay.cells:
            weights[place] = 1.0 if first else 0.0
        elif kind == "closed":
            weights[place] = 0.0 if first else 1.0
    return lie_along(weights, axis, lay.dimension).to(like.dtype)


def neighbour_share(lay: Layout, axis: int, info: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight of the neighbour in u_f on the faces, and the sign of n on closed sides of cells."""
    line = lay.axes[axis]
    share, outward = torch.full_like(line.edges, 0.5), torch.zeros_like(line.edges)
    for place, kind, sign in ((0, line.ends[0], -1.0), (-1, line.ends[1], 1.0)):
        if kind == "closed":
            share[place] = 1.0 if lay.cells else 0.0
            outward[place] = sign if lay.cells else 0.0
        elif kind == "value" and lay.cells:
            share[place] = 1.0
    d = lay.dimension
    return lie_along(share, axis, d).to(info.dtype), lie_along(outward, axis, d).to(info.dtype)
