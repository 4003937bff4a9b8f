"""Numerical fluxes through the faces of the control volumes: one function a scheme.

Integrated over the control volume C_i, with u_j the neighbour across face f of area |f|,

    int -div(K grad u) + b . grad u  ~  sum_f -D_f (u_j - u_i) + F_f (u_f - u_i),
    D_f = K_f |f| / l_f,      F_f = |f| b_f . n.

K_f is the harmonic mean of the two points' values (exact in 1-D for K that jumps at the face);
where K may jump at the points themselves, that of two values inside the cells, averaged along the
face.

A scheme says how far u_f lies from the point upstream of the face towards the one downstream,

    u_f = u_up + w (u_down - u_up) + (m - w) psi,

m being the weight of linear interpolation, 1/2 between two unknowns. ``w`` does not depend on u and
gives the stencil's entries; psi, where a scheme has it, is a limited jump and makes the scheme
nonlinear. A new scheme is one function of a :class:`FaceFlow` and its line in ``SCHEMES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import torch

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.core.run.status import Doubt
from sciml.discretization.volumes.averages import may_jump, over_faces
from sciml.discretization.volumes.coefficients import Data, evaluate, require
from sciml.discretization.volumes.layout import Layout, at_end, lie_along

if TYPE_CHECKING:
    from sciml.discretization.volumes.obstacle import Cut

Weight = torch.Tensor | float

# --- Schemes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaceFlow:
    """What crosses the faces 0 .. m of one axis; tensors (*batch, *faces), sizes of 1 stay.

    ``flow``: F along the axis, zero where a condition closes the face. ``conductance``: D, zero or
    positive. ``linear``: m, the weight of the point downstream in linear interpolation.
    """

    flow: torch.Tensor
    conductance: torch.Tensor
    linear: Weight


def central(face: FaceFlow) -> Weight:
    """Linear interpolation: second order; oscillates where the cell Peclet number exceeds 2."""
    return face.linear


def upwind(face: FaceFlow) -> Weight:
    """The value upstream: first order, monotone."""
    return 0.0


def hybrid(face: FaceFlow) -> Weight:
    """Central, but only as far as the entry downstream keeps its sign: |F| w <= D (Spalding 1972).

    Central where the cell Peclet number |b| h / K is at most 2; the flux is continuous in F.
    """
    size = face.flow.abs()
    over = size * face.linear > face.conductance
    if not bool(over.any()):
        return face.linear
    return torch.where(over, face.conductance / torch.where(over, size, 1.0), face.linear)


def van_albada(upstream: torch.Tensor, here: torch.Tensor, smooth: torch.Tensor) -> torch.Tensor:
    """psi = ((b^2 + eps) a + (a^2 + eps) b) / (a^2 + b^2 + 2 eps), of jumps a upstream, b here.

    The mean of both where the solution is smooth, which is Fromm's scheme, next to nothing where it
    jumps (van Albada, van Leer and Roberts 1982). ``smooth``, eps, keeps smooth extrema from being
    clipped (Venkatakrishnan 1995).
    """
    a, b = upstream.square() + smooth, here.square() + smooth
    total = a + b
    return (b * upstream + a * here) / torch.where(total > 0, total, 1.0)


@dataclass(frozen=True)
class FluxScheme:
    """The weight w, and the limiter that gives psi, if any."""

    weight: Callable[[FaceFlow], Weight]
    limiter: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None


SCHEMES = {
    "central": FluxScheme(central),
    "upwind": FluxScheme(upwind),
    "hybrid": FluxScheme(hybrid),
    "limited": FluxScheme(hybrid, van_albada),
}


def scheme_of(problem: Problem, grid: Grid) -> str:
    """The name of a problem's scheme on a grid: ``limited`` in time, else ``hybrid``, by default.

    Raises InputError for a name that is none, and for a limiter in a steady problem.
    """
    name = grid.scheme or ("hybrid" if problem.time is None else "limited")
    if name not in SCHEMES:
        raise InputError(f"unknown scheme '{name}'{did_you_mean(name, SCHEMES)}", "grid.scheme")
    if problem.time is None and SCHEMES[name].limiter is not None:
        linear = ", ".join(other for other, scheme in SCHEMES.items() if scheme.limiter is None)
        raise InputError(
            f"{name} fluxes are for problems in time; a steady one takes one of: {linear}",
            "grid.scheme",
        )
    return name


# --- Diffusion ------------------------------------------------------------------------------------


def diagonal_entries(K: Any, dimension: int) -> list[tuple[Any, str]]:
    """K's diagonal, one coefficient per axis, each with the end of its key."""
    if not isinstance(K, (list, tuple)):
        return [(K, "")] * dimension
    return [
        (row[a] if isinstance(row, (list, tuple)) else row, f"[{a}]") for a, row in enumerate(K)
    ]


def links(
    K: Any,
    at_points: torch.Tensor,
    axis: int,
    info: Data,
    key: str,
    cut: Cut | None = None,
    kept: dict[int, torch.Tensor] | None = None,
) -> torch.Tensor:
    """``-K_f |f| / l_f`` on the faces 0 .. m of an axis; zero on closed ends.

    ``at_points``: K at the grid's points, positive. ``kept``: what axes with the same K share.
    """
    kept = {} if kept is None else kept
    shared = kept.get(id(at_points))
    if not info.layout.cells and may_jump(K, info, key):
        shared = _in_parts(K, info, key, cut) if shared is None else shared
        kept[id(at_points)] = shared
        return _by_parts(shared, info.layout, axis)
    shared = -0.5 / at_points if shared is None else shared
    kept[id(at_points)] = shared
    return _harmonic(shared, info.layout, axis)


def _harmonic(half_resistance: torch.Tensor, layout: Layout, axis: int) -> torch.Tensor:
    """The links from -1 / (2 K) at the grid's points.

    The harmonic mean of K is minus the reciprocal of the sum of two of them.
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


def _in_parts(K: Any, info: Data, key: str, cut: Cut | None) -> torch.Tensor:
    """K in the middles of the halves between neighbouring nodes, 2 (n - 1) along an axis.

    Those of unused nodes have the mean of the others.
    """
    axes = info.layout.axes
    quarters = [(a.points[:-1, None] + a.spacing * _quarters(a.points)).flatten() for a in axes]
    points = tuple(lie_along(q, k, len(axes)) for k, q in enumerate(quarters))
    unused = None
    if cut is not None:
        # Every node has the halves on both of its sides.
        unused = cut.unused
        for k in range(len(axes)):
            unused = unused.repeat_interleave(2, k).narrow(k, 1, 2 * unused.shape[k] - 2)
    value = evaluate(K, points, info, key, unused, fill=1.0)
    require(value, points, key, positive=True)
    return value if unused is None else with_mean(value, unused)


def _quarters(like: torch.Tensor) -> torch.Tensor:
    return torch.tensor((0.25, 0.75), dtype=like.dtype, device=like.device)


def with_mean(value: torch.Tensor, unused: torch.Tensor) -> torch.Tensor:
    """``value`` with its mean over the points in use where ``unused`` holds."""
    fluid = ~unused.expand(torch.broadcast_shapes(unused.shape, value.shape))
    every = tuple(range(-unused.ndim, 0))
    mean = (value * fluid).sum(every, keepdim=True) / fluid.sum(every, keepdim=True)
    return torch.where(fluid, value, mean)


def _by_parts(parts: torch.Tensor, layout: Layout, axis: int) -> torch.Tensor:
    """The links from K in the halves: harmonic along the axis, the mean along the face."""
    d = layout.dimension
    for k, line in enumerate(layout.axes):
        dim, wraps = k - d, line.ends[0] == "wrap"
        if k == axis:
            sizes = list(parts.shape)
            sizes[dim] = 2 * (len(line.points) - 1)
            low, high = _pairs(parts.expand(sizes), dim)
            between = 2 * low * high / (low + high)
            closed = torch.zeros_like(between.narrow(dim, 0, 1))
            first = [between.narrow(dim, -1, 1)] if wraps else [closed][: line.ends[0] == "closed"]
            parts = torch.cat([*first, between, *[closed][: line.ends[1] == "closed"]], dim)
        elif parts.shape[dim] > 1:
            ends = [at_end(parts, k, d, 1 - end if wraps else end) for end in (0, 1)]
            low, high = _pairs(torch.cat([ends[0], parts, ends[1]], dim), dim)
            parts = ((low + high) / 2).narrow(dim, line.start, line.count)
    return -parts * (layout.measure(without=axis) / layout.axes[axis].spacing)


def _pairs(value: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The even and the odd entries along an axis ``dim`` counted from the end."""
    pairs = value.unflatten(dim, (-1, 2))
    return pairs.select(dim, 0), pairs.select(dim, 1)


# --- Advection ------------------------------------------------------------------------------------


def linear_weight(layout: Layout, axis: int, dtype: torch.dtype) -> torch.Tensor:
    """Weight of the upper point in a face's linear mean; a side's own point stands for its face.

    On a closed end of a node grid that is the unknown there; beside a cell what lies beyond it.
    """
    line = layout.axes[axis]
    weights = torch.full_like(line.edges, 0.5)
    for place, kind, first in ((0, line.ends[0], True), (-1, line.ends[1], False)):
        if kind != "wrap" and layout.cells:
            weights[place] = 0.0 if first else 1.0
        elif kind == "closed":
            weights[place] = 1.0 if first else 0.0
    return lie_along(weights, axis, layout.dimension).to(dtype)


def face_flow(
    velocity: Any,
    conductance: torch.Tensor,
    axis: int,
    info: Data,
    key: str,
    beyond: bool = False,
) -> FaceFlow:
    """What the velocity, taken at the faces' middles, carries through them.

    ``beyond``: whether closed faces beside cells have a value of u and the conductance of the half
    cell. Where the flow leaves there faster than it diffuses, u_f is u_i, and nothing is carried.
    """
    lay = info.layout
    line, d = lay.axes[axis], lay.dimension
    flow = over_faces(velocity, axis, line.edges, info, key) * lay.measure(without=axis)
    if not lay.cells and "closed" not in line.ends:
        return FaceFlow(flow, conductance, 0.5)
    open_faces, outward = torch.ones_like(line.edges), torch.zeros_like(line.edges)
    for place, kind, sign in ((0, line.ends[0], -1.0), (-1, line.ends[1], 1.0)):
        if kind == "closed":
            # Through a closed end u_f - u_i is left to the boundary condition.
            open_faces[place] = float(lay.cells and beyond)
            outward[place] = sign
    flow = flow * lie_along(open_faces, axis, d).to(flow.dtype)
    if lay.cells and beyond:
        outward = lie_along(outward, axis, d).to(flow.dtype)
        flow = torch.where((outward * flow > conductance) & (outward != 0), 0.0, flow)
    upper = linear_weight(lay, axis, info.dtype)
    return FaceFlow(flow, conductance, torch.where(flow > 0, upper, 1 - upper))


def carried(face: FaceFlow, weight: Weight) -> tuple[torch.Tensor, torch.Tensor]:
    """``below`` and ``above``: what multiplies the jump across a face in the two rows beside it.

    F (u_f - u_i) = below (u_above - u_below) in the row below the face, above (u_above - u_below)
    in the row above it, of the part of u_f that is linear in u.
    """
    down = face.flow * weight
    if isinstance(weight, float) and weight == 0.5:
        return down, down
    up = face.flow - down
    forward = face.flow > 0
    return torch.where(forward, down, up), torch.where(forward, up, down)


@dataclass(frozen=True)
class Limited:
    """The part of a scheme's flux that a limiter makes: ``strength`` psi, F (m - w) in size.

    ``forward``: where the flow runs along the axis; ``open_faces``: those whose jumps count, or
    None. Both (*batch, *faces).
    """

    strength: torch.Tensor
    forward: torch.Tensor
    open_faces: torch.Tensor | None = None


def limited(face: FaceFlow, weight: Weight, layout: Layout, axis: int) -> Limited:
    """What a limiter has to make up: on the faces between unknowns, none at a side of cells."""
    strength = face.flow.abs() * (face.linear - weight)
    if layout.cells and layout.axes[axis].ends[0] != "wrap":
        inner = linear_weight(layout, axis, strength.dtype) == 0.5
        strength = torch.where(inner, strength, 0.0)
    return Limited(strength, face.flow > 0)


def limited_flux(
    part: Limited,
    jump: torch.Tensor,
    limiter: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    layout: Layout,
    axis: int,
) -> torch.Tensor:
    """The flux along the axis that a limiter adds, from the jumps of u (*batch, *faces).

    Zero where there is no face upstream. The limiter's eps is 16 times the mean square of the jumps
    over their number: a step transported over 200 points overshoots by one per cent.
    """
    d, line = layout.dimension, layout.axes[axis]
    dim = axis - d
    m = jump.shape[dim] - 1
    if layout.cells and line.ends[0] != "wrap":
        # A side of cells is half as far away as another cell.
        jump = jump * lie_along(line.spacing / line.lengths, axis, d).to(jump.dtype)
    if part.open_faces is not None:
        jump = jump * part.open_faces
    first, last = jump.narrow(dim, 0, m), jump.narrow(dim, 1, m)
    if line.ends[0] == "wrap":
        # Faces 0 and m are the same one.
        below = torch.cat([first.narrow(dim, m - 1, 1), first], dim)
        above = torch.cat([last, last.narrow(dim, 0, 1)], dim)
    else:
        end = torch.zeros_like(jump.narrow(dim, 0, 1))
        below, above = torch.cat([end, first], dim), torch.cat([last, end], dim)
    smooth = jump.square().mean(tuple(range(-d, 0)), keepdim=True) * 16 / m
    psi = limiter(torch.where(part.forward, below, above), jump, smooth)
    if line.ends[0] != "wrap":
        inward = torch.zeros(m + 1, dtype=torch.int8, device=psi.device)
        inward[0], inward[-1] = 1, -1
        inward = lie_along(inward, axis, d)
        entering = torch.where(part.forward, inward == 1, inward == -1)
        psi = torch.where(entering, 0.0, psi)
    return part.strength * psi


# --- The stencil's entries ------------------------------------------------------------------------


@dataclass(frozen=True)
class Faces:
    """Off-diagonal entries of the faces 0 .. m of one axis, shape (*batch, ..., m + 1, ...).

    ``up``, in the row below a face, and ``down``, in the row above it, differ only by advection;
    ``diffusive`` is their symmetric part. Axes on which nothing varies have size 1. ``limited``:
    what a limiter adds to the flux, nonlinear in u, or None.
    """

    up: torch.Tensor
    down: torch.Tensor
    diffusive: torch.Tensor
    limited: Limited | None = None

    def opened(self, share: torch.Tensor) -> Faces:
        """The same where only a share of every face is open."""
        share = share.to(self.up.dtype)
        part = self.limited
        if part is not None:
            part = Limited(part.strength * share, part.forward, share > 0)
        return Faces(self.up * share, self.down * share, self.diffusive * share, part)


@dataclass(frozen=True)
class Upwinding:
    """How many faces lie upwind of the linear mean, of how many, and the largest Peclet number."""

    upwinded: int
    faces: int
    peclet: float


def faces_of(
    velocity: Any, off: torch.Tensor, scheme: str, axis: int, info: Data
) -> tuple[Faces, Upwinding]:
    """The faces' entries with ``b . grad u`` added to those of diffusion, ``off``."""
    lay = info.layout
    face = face_flow(velocity, -off, axis, info, f"problem.equation.b[{axis}]")
    weight = SCHEMES[scheme].weight(face)
    below, above = carried(face, weight)
    part = None
    if SCHEMES[scheme].limiter is not None and weight is not face.linear:
        part = limited(face, weight, lay, axis)
        part = part if bool((part.strength > 0).any()) else None
    # One number stands for all faces where nothing varies along an axis.
    sizes = torch.broadcast_shapes(off.shape, face.flow.shape)
    repeat = prod(n + (k == axis) for k, n in enumerate(lay.shape) if sizes[k - lay.dimension] == 1)
    return Faces(off + below, off - above, off, part), counted(face, weight, repeat)


def counted(face: FaceFlow, weight: Weight, repeat: int = 1) -> Upwinding:
    """How far a scheme is from linear interpolation, on the faces that carry something.

    The Peclet number counts as zero where it is at most 2 throughout.
    """
    flow, link = face.flow.detach(), face.conductance.detach()
    size, linear = flow.abs() * face.linear, face.linear
    away = linear - (weight.detach() if isinstance(weight, torch.Tensor) else weight)
    if weight is linear and not bool((size > link).any()):
        return Upwinding(0, repeat * torch.broadcast_shapes(size.shape, link.shape).numel(), 0.0)
    size, link, away = torch.broadcast_tensors(size, link, torch.as_tensor(away).to(size))
    # Where the flow comes in through a side of cells there is nothing to choose.
    some = ((link > 0) | (size > 0)) & (torch.as_tensor(linear, device=size.device) > 0)
    if not bool(some.any()):
        return Upwinding(0, int(some.numel()) * repeat, 0.0)
    upwinded = int((away * size > 0)[some].sum()) * repeat
    peclet = 2.0 * float((size[some] / link[some]).max())
    return Upwinding(upwinded, int(some.sum()) * repeat, peclet)


def remark(
    scheme: str, counts: Sequence[Upwinding], shape: Sequence[int], refine: bool
) -> str | None:
    """A line where a scheme is not of second order, or may oscillate; None where neither.

    ``refine``: whether to say which grid would be fine enough.
    """
    peclet = max((count.peclet for count in counts), default=0.0)
    upwinded = sum(count.upwinded for count in counts)
    if not upwinded and peclet <= 2:
        return None
    reached = f"the cell Peclet number reaches {peclet:.3g}"
    finer = ""
    if refine and isfinite(peclet):
        sizes = zip(shape, counts, strict=True)
        finer = " x ".join(str(int(n * max(1.0, c.peclet / 2)) + 1) for n, c in sizes)
        finer = f"; refine to {finer}"
    if not upwinded:
        return Doubt(f"{scheme} differences may oscillate: {reached}, more than 2{finer}")
    share = 100 * upwinded / sum(count.faces for count in counts)
    if SCHEMES[scheme].limiter is not None:
        return f"upwind, limited to second order, on {share:.2g} % of the faces: {reached}"
    finer = f"{finer} for central differences" if finer and scheme == "hybrid" else ""
    return f"upwind on {share:.2g} % of the faces: {reached}{finer}"


def effective_outflow(
    velocity: Any,
    link: torch.Tensor,
    scheme: str,
    axis: int,
    end: int,
    info: Data,
) -> torch.Tensor:
    """What multiplies u_f - u_i in a cell beside a closed side: n . b as far as a scheme takes u_f.

    ``link``: 2 K / h. Zero where the flow leaves faster than it diffuses.
    """
    edge = info.layout.axes[axis].edges[[0, -1]][end : end + 1]
    flow = over_faces(velocity, axis, edge, info, f"problem.equation.b[{axis}]")
    flow = flow if end else -flow
    flow = torch.where(flow > link, 0.0, flow)
    face = FaceFlow(flow, link, (flow > 0).to(flow.dtype))
    return carried(face, SCHEMES[scheme].weight(face))[0]
