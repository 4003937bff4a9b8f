"""Conditions on the sides: their data, evaluated here for all, and what follows from them.

Data may name the coordinates, t, the parameters, the outward normal nx, ny, nz and, in Neumann and
Robin conditions, u: alpha u + n . K grad u = g is then nonlinear. With |f| the area of a face,

* Dirichlet, u = g: the end face's entry times g goes to the right.
* Neumann and Robin on a boundary node: |f| alpha on the diagonal, |f| g on the right.
* The same on the boundary face of a cell, at distance h / 2, with k = 2 K / h: the face value u_f
  obeys k (u_f - u_i) = g - alpha u_f, so that the flux k (u_f - u_i) and the advection
  b.n (u_f - u_i) add (k - b.n) alpha / (alpha + k) and (k - b.n) g / (alpha + k).

For residuals u is padded by one value at each end of every axis, at the places ``Axis.extended``:

* ``value``: the Dirichlet value, on the boundary node or the boundary face of a cell;
* ``wrap``: the unknown at the other end;
* ``closed``: linear extrapolation, so that a central difference becomes one-sided. The flux through
  a closed side is its condition's own and never a difference of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.problem.condition import NO_WAVES, Condition, flux_data, names_state
from sciml.core.problem.grid import SIDES
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import NORMAL
from sciml.discretization.volumes.averages import over_faces
from sciml.discretization.volumes.coefficients import (
    Data,
    depends_on,
    describe,
    evaluate,
)
from sciml.discretization.volumes.fluxes import Faces, effective_outflow
from sciml.discretization.volumes.layout import Layout, Points, at_end, lie_along

_SETTLED, _STEPS = 1e-14, 60

End = tuple[int, int]  # axis, and 0 or 1 for its low or high end


# --- What the conditions say ----------------------------------------------------------------------


def facing(info: Data, normal: Sequence[torch.Tensor | float]) -> Data:
    """The context where the outward normal is known, one value or tensor per axis."""
    known = {
        name: n if isinstance(n, torch.Tensor) else _scalar(n, info.dtype, info.device)
        for name, n in zip(NORMAL, normal, strict=False)
    }
    return replace(info, variables={**info.variables, **known})


@lru_cache
def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(value, dtype=dtype, device=device)


def outward(info: Data, axis: int, end: int) -> Data:
    """The context on a side of the box, whose normal is known."""
    normal = _normal(info.layout.dimension, axis, end, info.dtype, info.device)
    return replace(info, variables={**info.variables, **normal})


@lru_cache
def _normal(
    dimension: int, axis: int, end: int, dtype: torch.dtype, device: torch.device
) -> Mapping[str, torch.Tensor]:
    out = 1.0 if end else -1.0
    return {
        name: torch.tensor(out if k == axis else 0.0, dtype=dtype, device=device)
        for k, name in enumerate(NORMAL[:dimension])
    }


def flux_at(problem: Problem, axis: int, end: int, info: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """(alpha, g) of a closed side, means over the faces of its unknowns, that axis of size 1."""
    condition, key = condition_at(problem, axis, end)
    here, place = outward(info, axis, end), _edge(info.layout, axis, end)

    def read(value: Any, name: str) -> torch.Tensor:
        return over_faces(value, axis, place, here, name)

    return flux_data(condition, key, read)


def dirichlet_at(
    problem: Problem, axis: int, end: int, info: Data
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Dirichlet values at the unknowns' places, that axis of size 1; of node grids on all too."""
    lay, (condition, key) = info.layout, condition_at(problem, axis, end)
    here = outward(info, axis, end)
    if lay.cells:
        return evaluate(
            condition.dirichlet, lay.points({axis: _edge(lay, axis, end)}), here, key
        ), None
    points = tuple(
        at_end(p, k, lay.dimension, end) if k == axis else p for k, p in enumerate(info.own)
    )
    whole = evaluate(condition.dirichlet, points, here, key)
    return lay.to_unknowns(whole, skip=axis), whole


def condition_at(problem: Problem, axis: int, end: int) -> tuple[Condition, str]:
    """The condition at an end of an axis, and the key of its value."""
    name = SIDES[axis][end]
    condition = problem.boundary[name]
    return condition, f"problem.boundary.{name}.{condition.kind}"


def _edge(lay: Layout, axis: int, end: int) -> torch.Tensor:
    line = lay.axes[axis]
    return (line.edges if line.ends[end] == "closed" else line.extended)[[0, -1]][end : end + 1]


@dataclass(frozen=True)
class SideData:
    """The sides' data by (axis, end), at the unknowns beside them, that axis having size 1.

    ``value``: Dirichlet values. ``known``: the same on whole sides of node grids. ``flux``:
    (alpha, g) of closed sides that do not name the state.
    """

    value: dict[End, torch.Tensor]
    known: tuple[tuple[int, int, torch.Tensor], ...]
    flux: dict[End, tuple[torch.Tensor, torch.Tensor]]


def side_data(problem: Problem, info: Data, without: Sequence[End] = ()) -> SideData:
    """The data of all sides at the time of ``info``, but for the fluxes of ``without``."""
    found = SideData({}, (), {})
    known = []
    for axis, end, kind in _ends(info.layout):
        name = SIDES[axis][end]
        if problem.boundary[name].kind == "absorbing":
            raise InputError(
                f"{NO_WAVES}; give dirichlet, neumann or robin",
                f"problem.boundary.{name}.absorbing",
            )
        if kind == "value":
            found.value[axis, end], whole = dirichlet_at(problem, axis, end, info)
            if whole is not None:
                known.append((axis, end, whole))
        elif kind == "closed" and (axis, end) not in without:
            found.flux[axis, end] = flux_at(problem, axis, end, info)
    return replace(found, known=tuple(known))


def _ends(lay: Layout) -> Iterator[tuple[int, int, str]]:
    for axis, line in enumerate(lay.axes):
        for end, kind in enumerate(line.ends):
            yield axis, end, kind


# --- What the conditions name ---------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """Which of t, u, ux, uy, uz the data and the Robin coefficients of conditions name."""

    data: frozenset[str]
    alpha: frozenset[str]


def names_of(condition: Condition, info: Data, key: str) -> Names:
    """What one condition names; ``key`` is that of its value."""
    here = facing(info, [0.0] * info.layout.dimension)
    if condition.robin is None:
        given = tuple(v for v in (condition.dirichlet, condition.neumann) if v is not None)
        return Names(depends_on(given, here, key), frozenset())
    robin = condition.robin
    return Names(
        depends_on(robin.g, here, f"{key}.g"), depends_on(robin.alpha, here, f"{key}.alpha")
    )


def names_of_sides(problem: Problem, info: Data) -> Names:
    """What the conditions on all sides name."""
    every = [
        names_of(condition, info, f"problem.boundary.{name}.{condition.kind}")
        for name, condition in problem.boundary.items()
    ]
    return Names(
        frozenset().union(*(names.data for names in every)),
        frozenset().union(*(names.alpha for names in every)),
    )


def names_of_rim(problem: Problem, info: Data) -> Names:
    """What the condition on an obstacle's rim names."""
    if problem.obstacle is None:
        return Names(frozenset(), frozenset())
    condition = problem.obstacle.boundary
    return names_of(condition, info, f"problem.obstacle.boundary.{condition.kind}")


def ends_of_state(problem: Problem, info: Data) -> tuple[End, ...]:
    """The closed sides whose data name a field."""
    return tuple(
        (axis, end)
        for axis, end, kind in _ends(info.layout)
        if kind == "closed"
        and names_state(condition_at(problem, axis, end)[0], info.fields, problem.parameters)
    )


def insulated(problem: Problem, ends: Sequence[End]) -> Problem:
    """The problem with n . K grad u = 0 on some sides, and on a rim whose data name u."""
    closed = {SIDES[axis][end]: Condition(neumann=0.0) for axis, end in ends}
    hole = problem.obstacle
    if hole is not None and rim_of_state(problem):
        hole = replace(hole, boundary=Condition(neumann=0.0))
    return replace(problem, boundary={**problem.boundary, **closed}, obstacle=hole)


def open_ends(problem: Problem, lay: Layout) -> tuple[End, ...]:
    """The sides through which waves leave."""
    return tuple(
        (axis, end)
        for axis, end, _ in _ends(lay)
        if problem.boundary[SIDES[axis][end]].kind == "absorbing"
    )


def admittances(problem: Problem, ends: Sequence[End], info: Data) -> torch.Tensor:
    """The integral of beta sqrt(m K) over ``ends``, at the unknowns (*batch, *shape).

    There n . K grad u = -beta sqrt(m K) u_t (Engquist and Majda 1977, the first order).
    """
    form, lay = problem.form, info.layout
    total = torch.zeros(lay.shape, dtype=info.dtype, device=info.device)
    for axis, end in ends:
        condition, key = condition_at(problem, axis, end)
        if lay.cells or problem.obstacle is not None:
            raise InputError(
                "in time waves leave through the sides of a grid of nodes without an obstacle; "
                "leave centring: cell out",
                key,
            )
        share: Any = 1.0 if condition.absorbing is True else condition.absorbing
        points, here = inside(lay, axis, end), outward(info, axis, end)
        beta = evaluate(share, points, here, key)
        if bool((beta < 0).any()):
            raise InputError("a side that absorbs less than nothing sends waves in", key)
        K = form.K[axis] if isinstance(form.K, (list, tuple)) else form.K
        K = K[axis] if isinstance(K, (list, tuple)) else K
        m, K = (
            evaluate(value, points, info, f"problem.equation.{name}")
            for name, value in (("m", form.m), ("K", K))
        )
        area: Any = lay.measure(without=axis)
        total = total + with_end(torch.zeros_like(total), beta * (m * K).sqrt() * area,
                                 axis, end, lay.dimension)  # fmt: skip
    return total


def rim_of_state(problem: Problem) -> bool:
    """Whether the data of an obstacle's rim name the solution."""
    hole = problem.obstacle
    return hole is not None and names_state(hole.boundary, problem.unknowns, problem.parameters)


# --- Conditions that name the solution ------------------------------------------------------------


def flux_of_state(
    problem: Problem, axis: int, end: int, u: torch.Tensor, info: Data, name: str = "u"
) -> torch.Tensor:
    """``g - alpha u``, n . K grad u, on a side where the solution, of that ``name``, is ``u``."""
    here = replace(info, variables={**info.variables, name: u})
    alpha, g = flux_at(problem, axis, end, here)
    return g - alpha * u


def settled(
    own: torch.Tensor, link: torch.Tensor, flux: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """u_f with ``link (u_f - own) = flux(u_f)``, by Newton's method; differentiable.

    The last step, with a graph, has the derivative of the answer by all that enters it.
    """

    def gap(v: torch.Tensor, own: torch.Tensor, link: torch.Tensor) -> torch.Tensor:
        return link * (v - own) - flux(v)

    with torch.no_grad():
        u, k = own.detach(), link.detach()
        v = u + torch.zeros_like(flux(u).detach())
        for _ in range(_STEPS):
            found = torch.func.jvp(lambda w: gap(w, u, k), (v,), (torch.ones_like(v),))
            slope = torch.where(found[1] == 0, 1.0, found[1]).detach()
            step = (found[0] / slope).detach()
            v = (v - step).detach()
            if bool((step.abs() <= _SETTLED * v.abs().clamp(min=1e-300)).all()):
                break
    return v - gap(v, own, link) / slope


def state_residual(
    problem: Problem,
    ends: Sequence[End],
    u: torch.Tensor,
    info: Data,
    scheme: str,
    openings: Sequence[torch.Tensor] | None = None,
    fields: Mapping[str, torch.Tensor] | None = None,
    own: str = "u",
) -> torch.Tensor:
    """What the conditions at ``ends`` add to the residual of :func:`insulated`, on the unknowns.

    ``u`` (*batch, *shape); K and b do not depend on it. ``own``: its name in the conditions, which
    may name the other ``fields`` on the same unknowns. ``openings``: as for :func:`sides`.
    """
    lay, total = info.layout, torch.zeros_like(u)
    d = lay.dimension
    for axis, end in ends:
        here_u = at_end(u, axis, d, end)
        beside = {name: _on_side(v, axis, end, lay) for name, v in (fields or {}).items()}
        here = replace(info, variables={**info.variables, **beside})
        flux = partial(flux_of_state, problem, axis, end, info=here, name=own)
        if lay.cells:
            link = side_link(problem, axis, end, info)
            through = link
            if problem.form.b is not None:
                b = problem.form.b[axis]
                through = link - effective_outflow(b, link, scheme, axis, end, info)
            added = through * (settled(here_u, link, flux) - here_u)
        else:
            added = flux(here_u)
        area: Any = lay.measure(without=axis)
        if openings is not None:
            area = area * at_end(openings[axis], axis, d, end)
        whole = torch.zeros(lay.shape, dtype=u.dtype, device=u.device)
        total = total - with_end(whole, added * area, axis, end, d)
    return total


def side_link(problem: Problem, axis: int, end: int, info: Data) -> torch.Tensor:
    """``2 K / h`` between the last cells and a side."""
    line, K = info.layout.axes[axis], problem.form.K
    K = K[axis] if isinstance(K, (list, tuple)) else K
    K = K[axis] if isinstance(K, (list, tuple)) else K
    return (
        2 / line.spacing * evaluate(K, inside(info.layout, axis, end), info, "problem.equation.K")
    )


def inside(lay: Layout, axis: int, end: int) -> Points:
    """The places of the unknowns next to a side."""
    return lay.points({axis: lay.axes[axis].positions[[0, -1]][end : end + 1]})


def _on_side(value: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """A field on a side: that of its nodes, or carried on from the last two cells."""
    own = at_end(value, axis, lay.dimension, end)
    if not lay.cells:
        return own
    way = outward_difference(value, axis, end, lay) * lay.axes[axis].spacing / 2
    return own + (way if end else -way)


# --- What the sides add to a linear system --------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """Additions to the diagonal and the right-hand side.

    Slabs are (axis, end, values): values on the unknowns next to one end of an axis, that axis
    having size 1. ``known`` are the Dirichlet values of node grids, on the whole side.
    ``grounded``: whether any side holds the level of u, so that A is not singular. ``definite``:
    whether no side has a negative alpha.
    """

    diagonal: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    right: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    known: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)
    grounded: bool = False
    definite: bool = True


def sides(
    problem: Problem,
    info: Data,
    faces: Sequence[Faces] | None,
    K: Sequence[torch.Tensor] | None,
    openings: Sequence[torch.Tensor] | None,
    scheme: str,
) -> Terms:
    """Terms of all sides of the box.

    ``faces``: entries per axis, None for a full tensor (whose Dirichlet terms are its own).
    ``K``: diagonal entries at the unknowns, wanted by cell grids. ``openings``: per axis the
    share of each face that an obstacle leaves open.
    """
    lay, terms, grounded, definite = info.layout, Terms(), False, True
    d = lay.dimension
    data = side_data(problem, info)
    for axis, end, kind in _ends(lay):
        grounded |= kind == "value"
        if kind == "value" and faces is not None:
            entry = at_end(faces[axis].up if end else faces[axis].down, axis, d, end)
            terms.right.append((axis, end, -entry * data.value[axis, end]))
        if kind != "closed":
            continue
        alpha, g = data.flux[axis, end]
        area: Any = lay.measure(without=axis)
        if openings is not None:
            area = area * at_end(openings[axis], axis, d, end)
        share = torch.as_tensor(area, dtype=info.dtype, device=info.device)
        if lay.cells:
            assert K is not None
            own = K[axis] if K[axis].shape[axis - d] == 1 else at_end(K[axis], axis, d, end)
            link = through = 2.0 * own / lay.axes[axis].spacing
            if problem.form.b is not None:
                b = problem.form.b[axis]
                through = link - effective_outflow(b, link, scheme, axis, end, info)
            _refuse_coarse(problem, alpha, link, axis, end, info)
            share = through / (alpha + link) * area
        terms.diagonal.append((axis, end, (share * alpha).to(info.dtype)))
        terms.right.append((axis, end, (share * g).to(info.dtype)))
        grounded |= bool((alpha.detach() != 0).any())
        definite &= bool((alpha.detach() >= 0).all())
    return Terms(terms.diagonal, terms.right, list(data.known), grounded, definite)


def _refuse_coarse(
    problem: Problem, alpha: torch.Tensor, link: torch.Tensor, axis: int, end: int, info: Data
) -> None:
    """Raise InputError where the value on the side is not found from that at the cell."""
    total = (alpha + link).detach()
    if bool((total <= 0).any()):
        _, key = condition_at(problem, axis, end)
        points = info.layout.points({axis: _edge(info.layout, axis, end)})
        where = describe(alpha.expand(total.shape), total <= 0, points, f"{key}.alpha")
        raise InputError(f"{where} (must be above -2 K / h: take smaller cells)", f"{key}.alpha")


# --- The solution beyond its unknowns, and its differences ----------------------------------------


def padded(u: torch.Tensor, sides: SideData, lay: Layout) -> torch.Tensor:
    """``u`` (*batch, *shape) with one more value at each end of every axis."""
    d, result = lay.dimension, u
    for axis, line in enumerate(lay.axes):
        ends = []
        for end, kind in enumerate(line.ends):
            if kind == "wrap":
                slab = at_end(result, axis, d, 1 - end)
            elif kind == "value":
                slab = sides.value[axis, end]
                for before in range(axis):
                    slab = extended(slab, before, lay)
            else:
                slab = _beyond(result, axis, end, lay)
            ends.append(slab)
        result = joined([ends[0], result, ends[1]], axis, d)
    return result


def joined(parts: Sequence[torch.Tensor], axis: int, d: int) -> torch.Tensor:
    """The parts one after the other along an axis, all other sizes broadcast."""
    lead = np.broadcast_shapes(*(p.shape[:-d] for p in parts))
    sizes = np.broadcast_shapes(
        *(tuple(1 if k == axis else n for k, n in enumerate(p.shape[-d:])) for p in parts)
    )
    whole = [
        p.expand(*lead, *(p.shape[k - d] if k == axis else n for k, n in enumerate(sizes)))
        for p in parts
    ]
    return torch.cat(whole, axis - d)


def _beyond(value: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """Linear extrapolation to the place beyond an end of the unknowns."""
    dim, line = axis - lay.dimension, lay.axes[axis]
    n = value.shape[dim]
    if n < 2:
        return value
    near, next_one = (n - 1, n - 2) if end else (0, 1)
    ratio = float(line.lengths[-1 if end else 0]) / line.spacing
    first = value.narrow(dim, near, 1)
    return first + ratio * (first - value.narrow(dim, next_one, 1))


def extended(slab: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """A side's values, one more at each end of another axis; size 1 stays."""
    d = lay.dimension
    if slab.shape[axis - d] == 1:
        return slab
    if lay.periodic[axis]:
        ends = [at_end(slab, axis, d, 1), at_end(slab, axis, d, 0)]
    else:
        ends = [_beyond(slab, axis, end, lay) for end in (0, 1)]
    return torch.cat([ends[0], slab, ends[1]], axis - d)


def difference(whole: torch.Tensor, axis: int, lay: Layout) -> torch.Tensor:
    """du/dx along a padded axis at its unknowns, exact for parabolas; other axes stay padded."""
    d, line = lay.dimension, lay.axes[axis]
    dim, n = axis - d, whole.shape[axis - d]
    if n == 1:
        return torch.zeros_like(whole)
    lengths = lie_along(line.lengths, axis, d).to(whole.dtype)
    below, above = lengths.narrow(dim, 0, n - 2), lengths.narrow(dim, 1, n - 2)
    low = (whole.narrow(dim, 1, n - 2) - whole.narrow(dim, 0, n - 2)) / below
    high = (whole.narrow(dim, 2, n - 2) - whole.narrow(dim, 1, n - 2)) / above
    return (above * low + below * high) / (below + above)


def outward_difference(u: torch.Tensor, axis: int, end: int, lay: Layout) -> torch.Tensor:
    """du/dx between the last two unknowns at an end of an axis."""
    dim, n = axis - lay.dimension, lay.shape[axis]
    if n == 1:
        return torch.zeros_like(u)
    low = n - 2 if end else 0
    return (u.narrow(dim, low + 1, 1) - u.narrow(dim, low, 1)) / lay.axes[axis].spacing


def with_end(value: torch.Tensor, slab: torch.Tensor, axis: int, end: int, d: int) -> torch.Tensor:
    """``value`` with another slab at one end of an axis."""
    dim = axis - d
    rest = value.narrow(dim, 1 - end, value.shape[dim] - 1)
    return joined([rest, slab] if end else [slab, rest], axis, d)
