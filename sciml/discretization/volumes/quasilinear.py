"""Quasilinear residuals: K and b may depend on u and its slopes, c and f on the slopes too.

With u given beyond its ends by the sides (``boundary``), the flux through a face of area |f| is

    K(x_f, u_f, grad u_f) |f| (u_j - u_i) / l_f,

u_f the mean of the two points, grad u_f the normal difference with the means of the tangential
differences. A K that does not depend on u is a harmonic mean, as in the linear scheme; so is
everything else about the fluxes (``fluxes``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch

from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.problem.problem import Problem
from sciml.discretization.volumes.affine import AtTime
from sciml.discretization.volumes.averages import over_faces, over_volumes
from sciml.discretization.volumes.boundary import (
    SideData,
    difference,
    ends_of_state,
    extended,
    flux_of_state,
    inside,
    outward_difference,
    padded,
    settled,
    side_data,
    with_end,
)
from sciml.discretization.volumes.coefficients import STATE, Data, depends_on, evaluate, require
from sciml.discretization.volumes.fluxes import (
    SCHEMES,
    FaceFlow,
    Upwinding,
    carried,
    counted,
    diagonal_entries,
    face_flow,
    limited,
    limited_flux,
    linear_weight,
    links,
    remark,
    scheme_of,
)
from sciml.discretization.volumes.jacobian import derivative
from sciml.discretization.volumes.layout import Layout, at_end, high_faces, lie_along, low_faces

_KEY = "problem.equation"


@dataclass(frozen=True)
class FaceState:
    """The solution at the faces 0 .. m of one axis: the jump u_j - u_i, u_f and grad u_f."""

    jump: torch.Tensor
    u: torch.Tensor
    slopes: tuple[torch.Tensor, ...]


class Quasilinear:
    """The residual of a quasilinear problem without obstacle, on the unknowns."""

    def __init__(self, problem: Problem, info: Data) -> None:
        self.problem, self.info, self.lay = problem, info, info.layout
        d = self.lay.dimension
        b = problem.form.b
        self.K = [entry for entry, _ in diagonal_entries(problem.form.K, d)]
        self.b: tuple[Any, ...] = tuple(b) if b is not None else (0.0,) * d
        self.carried = [not (isinstance(v, Real) and v == 0) for v in self.b]
        self.state_K = [bool(depends_on(k, info, f"{_KEY}.K") & set(STATE)) for k in self.K]
        self.state_ends = ends_of_state(problem, info)
        self.scheme = scheme_of(problem, self.lay.grid)
        self.volume = self.lay.measure()
        self._sides: AtTime[SideData] = AtTime()
        self._kept: dict[Any, AtTime[torch.Tensor]] = {}

    def at_time(self, t: float) -> Data:
        """The evaluation context at time t."""
        return self.info if self.problem.time is None else self.info.at_time(t)

    def sides(self, t: float) -> SideData:
        """The sides' data at time t."""
        return self._sides.get(t, lambda: side_data(self.problem, self.at_time(t), self.state_ends))

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
        d, limiter = lay.dimension, SCHEMES[self.scheme].limiter
        whole = padded(u, sides, self.lay)
        total = self.volume * self.reaction(u, whole, info)
        for axis in range(d):
            state = face_state(whole, axis, self.lay)
            conductance = self.conductance(state, axis, info)
            levels = self.levels(u, sides, axis, info)
            flux = self._with_conditions(conductance * state.jump, levels, sides, axis, info)
            total = total - high_faces(flux, axis, d) + low_faces(flux, axis, d)
            if self.carried[axis]:
                jump = state.jump
                if lay.cells:
                    state = _with_levels(state, levels, u, axis)
                face = self.face_flow(state, conductance, axis, info)
                weight = SCHEMES[self.scheme].weight(face)
                below, above = carried(face, weight)
                total = total + high_faces(below * state.jump, axis, d)
                total = total + low_faces(above * state.jump, axis, d)
                if limiter is not None and not compact:
                    part = limited(face, weight, lay, axis)
                    flux = limited_flux(part, jump, limiter, lay, axis)
                    total = total + high_faces(flux, axis, d) - low_faces(flux, axis, d)
        return total

    def reaction(self, u: torch.Tensor, whole: torch.Tensor, info: Data) -> torch.Tensor:
        """``c u - f`` at the unknowns."""
        form, lay = self.problem.form, self.lay
        slopes = [difference(whole, axis, lay) for axis in range(lay.dimension)]
        here = info.with_state(u, [without_ends(s, lay, k) for k, s in enumerate(slopes)])
        value = torch.zeros_like(u)
        for name in ("c", "f"):
            coefficient, key = getattr(form, name), f"{_KEY}.{name}"
            if depends_on(coefficient, info, key) & set(STATE):
                found = over_volumes(coefficient, here, key)
            else:
                make = partial(over_volumes, coefficient, info, key)
                found = self._keep(name, coefficient, info, make)
            value = value + found * u if name == "c" else value - found
        return value

    def conductance(self, state: FaceState, axis: int, info: Data) -> torch.Tensor:
        """``K |f| / l_f`` on the faces; on closed ends what the formula gives there."""
        lay, key = self.lay, f"{_KEY}.K"
        line = lay.axes[axis]
        if not self.state_K[axis]:
            K = self.K[axis]
            return self._keep(axis, K, info, lambda: harmonic(K, lay, axis, info))
        here = info.with_state(state.u, state.slopes)
        K = over_faces(self.K[axis], axis, line.edges, here, key)
        lengths = lie_along(line.lengths, axis, lay.dimension).to(info.dtype)
        return K * lay.measure(without=axis) / lengths

    def levels(
        self, u: torch.Tensor, sides: SideData, axis: int, info: Data
    ) -> dict[int, torch.Tensor]:
        """u on the closed ends of an axis.

        That of the node there; beside a cell u_f with k (u_f - u_i) = g - alpha u_f, k = 2 K / h,
        where alpha and g may depend on u_f.
        """
        lay, found = self.lay, {}
        d, line = lay.dimension, lay.axes[axis]
        for end, kind in enumerate(line.ends):
            if kind != "closed":
                continue
            found[end] = own = at_end(u, axis, d, end)
            if not lay.cells:
                continue
            slopes = [
                outward_difference(u, axis, end, lay)
                if other == axis
                else difference(extended(own, other, lay), other, lay)
                for other in range(d)
            ]
            here = info.with_state(own, slopes)
            k = 2 / line.spacing * evaluate(self.K[axis], inside(lay, axis, end), here, f"{_KEY}.K")
            if (axis, end) in self.state_ends:
                found[end] = settled(own, k, partial(self._outward, axis, end, info))
                continue
            alpha, g = sides.flux[axis, end]
            total = alpha + k
            some = total > 0
            found[end] = torch.where(some, (k * own + g) / torch.where(some, total, 1.0), own)
        return found

    def _outward(self, axis: int, end: int, info: Data, u: torch.Tensor) -> torch.Tensor:
        """``g - alpha u`` on a side whose data name u."""
        return flux_of_state(self.problem, axis, end, u, info)

    def _with_conditions(
        self,
        flux: torch.Tensor,
        levels: dict[int, torch.Tensor],
        sides: SideData,
        axis: int,
        info: Data,
    ) -> torch.Tensor:
        """The fluxes with those of Neumann and Robin sides in place: n . K grad u = g - alpha u."""
        for end, u in levels.items():
            if (axis, end) in self.state_ends:
                outward = self._outward(axis, end, info, u)
            else:
                alpha, g = sides.flux[axis, end]
                outward = g - alpha * u
            outward = outward * self.lay.measure(without=axis) * (1 if end else -1)
            flux = with_end(flux, outward, axis, end, self.lay.dimension)
        return flux

    def face_flow(
        self, state: FaceState, conductance: torch.Tensor, axis: int, info: Data
    ) -> FaceFlow:
        """What crosses the faces at this state."""
        here = info.with_state(state.u, state.slopes)
        key = f"{_KEY}.b[{axis}]"
        return face_flow(self.b[axis], conductance, axis, here, key, beyond=True)

    def remarks(self, u: torch.Tensor, t: float) -> tuple[str, ...]:
        """A line where the scheme is not of second order at this state."""
        info = self.at_time(t)
        whole = padded(u, self.sides(t), self.lay)
        counts: list[Upwinding] = []
        for axis in range(self.lay.dimension):
            if self.carried[axis]:
                state = face_state(whole, axis, self.lay)
                face = self.face_flow(state, self.conductance(state, axis, info), axis, info)
                counts.append(counted(face, SCHEMES[self.scheme].weight(face)))
        note = remark(self.scheme, counts, self.lay.grid.shape, refine=False)
        return () if note is None else (note,)

    def frozen(self, u: torch.Tensor, t: float) -> Stencil:
        """Diffusion with K as it is at u, sides included: symmetric and definite."""
        lay, d, info, sides = self.lay, self.lay.dimension, self.at_time(t), self.sides(t)
        whole = padded(u, sides, lay)
        every = [
            self.conductance(face_state(whole, axis, lay), axis, info).clamp(min=0.0)
            for axis in range(d)
        ]
        alphas = {
            (axis, end): self._alpha(u, sides, axis, end, info) * lay.measure(without=axis)
            for axis, line in enumerate(lay.axes)
            for end, kind in enumerate(line.ends)
            if kind == "closed"
        }
        given = (*every, *alphas.values())
        batch = torch.broadcast_shapes(u.shape[:-d], *(c.shape[:-d] for c in given))
        planes = u.new_zeros(*batch, 2 * d + 1, *lay.shape)
        grounded = False
        for axis, found in enumerate(every):
            sizes = [n + (k == axis) for k, n in enumerate(lay.shape)]
            links = found.expand(*batch, *sizes).clone()
            for end, kind in enumerate(lay.axes[axis].ends):
                grounded |= kind == "value"
                if kind == "closed":
                    alpha = alphas[axis, end]
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

    def _alpha(
        self, u: torch.Tensor, sides: SideData, axis: int, end: int, info: Data
    ) -> torch.Tensor:
        """The slope of alpha u - g at a side, as it is at u where that is positive.

        Of an alpha that does not depend on u the size: it holds the level whatever its sign.
        """
        if (axis, end) not in self.state_ends:
            return sides.flux[axis, end][0].abs()
        level = self.levels(u, sides, axis, info)[end]
        flux = partial(self._outward, axis, end, info)
        return (-derivative(flux, level, torch.ones_like(level))).clamp(min=0.0)


def harmonic(K: Any, lay: Layout, axis: int, info: Data) -> torch.Tensor:
    """``K |f| / l_f`` by harmonic means, for a K that does not depend on u; K may be zero."""
    value = evaluate(K, info.own, info, f"{_KEY}.K")
    if not bool((value != 0).any()):
        return torch.zeros_like(value)
    require(value, info.own, f"{_KEY}.K", positive=True)
    inner = -links(K, value, axis, info, f"{_KEY}.K")
    if not lay.cells or "closed" not in lay.axes[axis].ends:
        return inner
    d, dim = lay.dimension, axis - lay.dimension
    scale = 2 / lay.axes[axis].spacing * lay.measure(without=axis)
    parts = [inner.narrow(dim, 1, inner.shape[dim] - 2)]
    for end, kind in enumerate(lay.axes[axis].ends):
        own = at_end(value, axis, d, end) * scale
        slab = own.expand(at_end(inner, axis, d, end).shape)
        parts.insert(
            0 if end == 0 else len(parts), slab if kind == "closed" else at_end(inner, axis, d, end)
        )
    return torch.cat(parts, dim)


def face_state(whole: torch.Tensor, axis: int, lay: Layout) -> FaceState:
    """The solution at the faces of an axis, from its padded values."""
    d, line = lay.dimension, lay.axes[axis]
    dim = axis - d
    n = whole.shape[dim] - 1
    rows = without_ends(whole, lay, axis)
    low, high = rows.narrow(dim, 0, n), rows.narrow(dim, 1, n)
    weight = 1 - linear_weight(lay, axis, whole.dtype)
    slopes = []
    for other in range(d):
        if other == axis:
            slopes.append((high - low) / lie_along(line.lengths, axis, d).to(whole.dtype))
            continue
        slope = without_ends(difference(whole, other, lay), lay, axis, other)
        slopes.append(weight * slope.narrow(dim, 0, n) + (1 - weight) * slope.narrow(dim, 1, n))
    return FaceState(high - low, weight * low + (1 - weight) * high, tuple(slopes))


def face_jump(whole: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """The jumps of u across the faces 0 .. m of an axis, from its padded values."""
    dim, rows = axis - lay.dimension, without_ends(whole, lay, axis)
    n = rows.shape[dim] - 1
    return rows.narrow(dim, 1, n) - rows.narrow(dim, 0, n)


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


def without_ends(value: torch.Tensor, lay: Layout, *whole: int) -> torch.Tensor:
    """Padded values without their ends, but for the axes ``whole``."""
    for axis in range(lay.dimension):
        if axis not in whole:
            value = value.narrow(axis - lay.dimension, 1, lay.shape[axis])
    return value
