"""The stencil and the right-hand side from their parts: fluxes, reaction, source, sides, holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.stencil import Stencil, box_offsets, cross_offsets
from sciml.core.errors import IncompatibleData, InputError
from sciml.core.problem.dispatch import discretises
from sciml.core.problem.equation import Equation
from sciml.core.problem.grid import Grid
from sciml.core.problem.problem import Problem
from sciml.discretization.volumes import boundary, obstacle, tensor
from sciml.discretization.volumes.averages import over_volumes
from sciml.discretization.volumes.coefficients import Data, data, evaluate, require
from sciml.discretization.volumes.fluxes import (
    Faces,
    Limited,
    diagonal_entries,
    faces_of,
    links,
    remark,
    scheme_of,
    with_mean,
)
from sciml.discretization.volumes.layout import (
    Embedding,
    Layout,
    high_faces,
    layout,
    low_faces,
    measure_of,
)
from sciml.discretization.volumes.memory import check_form, check_memory, check_steady, is_matrix
from sciml.discretization.volumes.obstacle import Cut, RimTerms

_KEY = "problem.equation"


@discretises(Equation, Grid)
def discretize(
    problem: Problem, on: Grid, *, dtype: torch.dtype, device: torch.device
) -> LinearSystem:
    """Lower a steady linear problem to ``A x = b`` on a grid.

    ``A`` is a :class:`Stencil` of shape (*unknowns) and batch (*A.batch), ``b`` has shape
    (*batch, *unknowns); both in ``dtype`` on ``device``. Dirichlet nodes are not unknowns; ``lift``
    puts them back. Where constants are in the kernel of A (pure Neumann, periodic), b is made
    compatible and the solution is the one of zero integral over the domain. ``A`` and ``b`` are
    differentiable in tensor coefficients. Raises InputError for coefficients, data or sizes that
    make no well-posed system.
    """
    grid = on.bind(problem.box)
    check_steady(problem)
    check_form(problem, grid)
    check_memory(problem, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(problem, lay, dtype, device)
    keys = [
        boundary.condition_at(problem, *end)[1] for end in boundary.ends_of_state(problem, info)
    ]
    if boundary.rim_of_state(problem):
        keys.append("problem.obstacle.boundary")
    for key in keys:
        raise InputError(
            "data of a side name the solution: the problem is nonlinear, use newton or auto", key
        )
    parts = assemble(problem, info)
    A, b = parts.A, right(problem, parts, info)
    defect = measure = None
    if A.nullspace:
        b, defect = compatible(b, parts.volume, info)
        measure = measure_of(lay, parts.volume)
    embedding = parts.embedding
    return LinearSystem(
        A, b, grid, embedding.lift, embedding.restrict, tuple(info.notes), defect, measure=measure
    )


@dataclass(frozen=True)
class Assembly:
    """A with what the right-hand side needs from it.

    ``cross`` is None for a full tensor; ``K`` is its diagonal on the unknowns, per axis.
    ``volume``: the control volumes, without their solid parts. ``limited``: per axis what a limiter
    adds to A's fluxes, or None.
    """

    A: Stencil
    cross: Sequence[Faces] | None
    terms: boundary.Terms
    rim: RimTerms | None
    K: Sequence[torch.Tensor] | None
    layout: Layout
    hole: Cut | None
    volume: float | torch.Tensor
    scheme: str
    limited: tuple[Limited | None, ...]

    @property
    def embedding(self) -> Embedding:
        """Between the unknowns and the value on the whole grid."""
        hole = self.hole
        mask = hole.unused if hole is not None and hole.volumes is not None else None
        return Embedding(self.layout, tuple(self.terms.known), mask)

    @property
    def openings(self) -> Sequence[torch.Tensor] | None:
        """Per axis the share of each face that an obstacle leaves open."""
        return self.hole.openings if self.hole is not None else None

    def at_time(self, problem: Problem, info: Data) -> Assembly:
        """The same with the sides' data at the time of ``info``; A and the rim do not change."""
        terms = boundary.sides(problem, info, self.cross, self.K, self.openings, self.scheme)
        return replace(self, terms=terms)


def assemble(
    problem: Problem, info: Data, joined: bool | None = None, hole: Cut | None = None
) -> Assembly:
    """The operator of a problem at the time of ``info``.

    ``joined``: whether the holes of a singular one stay linked to the fluid, as they do in what is
    steady, for which alone that matters. ``hole``: that of the obstacle, where it is known.
    """
    lay = info.layout
    hole = obstacle.cut(problem, lay, info) if hole is None else hole
    c = over_volumes(problem.form.c, info, f"{_KEY}.c", hole)
    volume = lay.measure()
    if hole is not None and hole.volumes is not None:
        volume = volume * hole.volumes
    reaction = None if bool((c == 0).all()) else c * volume
    joined = problem.time is None if joined is None else joined
    return _operator(problem, lay, info, hole, reaction, volume, joined)


def _conductivity(problem: Problem, info: Data, hole: Cut | None) -> list[torch.Tensor]:
    """K's diagonal at the grid's points, one tensor per axis; raises where it is not positive."""
    K, d = problem.form.K, problem.box.dimension
    unused = hole.unused if hole is not None else None
    entries = diagonal_entries(K, d)
    if not isinstance(K, (list, tuple)):
        return [_positive(K, f"{_KEY}.K", info, unused)] * d
    return [_positive(k, f"{_KEY}.K{end}", info, unused) for k, end in entries]


def _positive(coefficient: Any, key: str, info: Data, unused: torch.Tensor | None) -> torch.Tensor:
    value = evaluate(coefficient, info.own, info, key, unused, fill=1.0)
    require(value, info.own, key, positive=True)
    # Holes take the fluid's mean, so that their rows are scaled like the others.
    return value if unused is None else with_mean(value, unused)


def _velocity(problem: Problem) -> Sequence[Any] | None:
    b = problem.form.b
    if b is None or all(isinstance(v, Real) and v == 0 for v in b):
        return None
    return b


def _cross_faces(
    problem: Problem, K: Sequence[torch.Tensor], scheme: str, info: Data, hole: Cut | None
) -> list[Faces]:
    """The faces of every axis, with advection where there is one."""
    b = _velocity(problem)
    result, counts = [], []
    kept: dict[int, torch.Tensor] = {}
    for axis, (entry, end) in enumerate(diagonal_entries(problem.form.K, len(K))):
        off = links(entry, K[axis], axis, info, f"{_KEY}.K{end}", hole, kept)
        if b is None:
            result.append(Faces(off, off, off))
        else:
            face, count = faces_of(b[axis], off, scheme, axis, info)
            result.append(face)
            counts.append(count)
    note = remark(scheme, counts, info.layout.grid.shape, refine=True)
    if note is not None:
        info.notes.append(note)
    return result


def _operator(
    problem: Problem,
    lay: Layout,
    info: Data,
    hole: Cut | None,
    reaction: torch.Tensor | None,
    volume: float | torch.Tensor,
    joined: bool,
) -> Assembly:
    scheme = scheme_of(problem, lay.grid)
    if is_matrix(problem.form.K):
        return _tensor_operator(problem, lay, info, reaction, volume, scheme)
    K = _conductivity(problem, info, hole)
    inner = [lay.to_unknowns(k) for k in K]
    whole = _cross_faces(problem, K, scheme, info, hole)
    cross, rim = whole, None
    if hole is not None and hole.openings is None:
        cross, rim = obstacle.cut_links(hole, whole, lay, info, inner)
    elif hole is not None and hole.openings is not None:
        cross = [f.opened(o) for f, o in zip(whole, hole.openings, strict=True)]
        rim = obstacle.flux_rim(hole, lay, info, inner)
    openings = hole.openings if hole is not None else None
    terms = boundary.sides(problem, info, cross, inner, openings, scheme)
    grounded = terms.grounded or reaction is not None or (rim is not None and rim.grounded)
    # In time nothing is singular, and what leaks into a joined hole would add up.
    joined &= hole is not None and hole.openings is not None and not grounded
    if joined and hole is not None:
        cross = [f.opened(o) for f, o in zip(whole, obstacle.join_holes(hole, lay), strict=True)]
    planes = _cross_planes(cross, reaction, terms, rim, lay)
    if hole is not None and not joined:
        planes, grounded = _decouple(planes, whole, hole, lay), True
    positive = terms.definite and (rim is None or rim.definite)
    tags = _tags(problem, reaction, grounded, positive, lay)
    A = Stencil(planes, cross_offsets(lay.dimension), **tags)
    limited = tuple(face.limited for face in cross)
    return Assembly(A, cross, terms, rim, inner, lay, hole, volume, scheme, limited)


def _tags(
    problem: Problem,
    reaction: torch.Tensor | None,
    grounded: bool,
    positive: bool,
    lay: Layout,
) -> dict[str, Any]:
    """``positive``: whether no side has a negative alpha."""
    symmetric = _velocity(problem) is None
    positive = positive and (reaction is None or bool((reaction >= 0).all()))
    return {
        "periodic": lay.periodic,
        "symmetric": symmetric,
        "definite": symmetric and positive,
        "nullspace": not grounded,
    }


def _cross_planes(
    cross: Sequence[Faces],
    reaction: torch.Tensor | None,
    terms: boundary.Terms,
    rim: RimTerms | None,
    lay: Layout,
) -> torch.Tensor:
    """Planes in the order of ``cross_offsets``: one row where it serves the whole array."""
    d = lay.dimension
    lows = [low_faces(face.down, k, d) for k, face in enumerate(cross)]
    highs = [high_faces(face.up, k, d) for k, face in enumerate(cross)]
    given = [*lows, *highs, *([] if reaction is None else [reaction])]
    scattered = rim.diagonal if rim is not None else []
    leads = [t.shape[:-d] for t in given] + [v.shape[:-d] for _, _, v in terms.diagonal]
    batch = torch.broadcast_shapes(*leads, *(v.shape[:-1] for _, v in scattered))
    constant = all(max(t.shape[-d:]) == 1 for t in given)
    constant &= not terms.diagonal and not scattered
    shape = (1,) * d if constant else lay.shape
    planes = lows[0].new_empty(*batch, 2 * d + 1, *shape)
    planes.select(-d - 1, 0).copy_(lows[0].new_zeros(()) if reaction is None else reaction)
    for k, (low, high) in enumerate(zip(lows, highs, strict=True)):
        planes.select(-d - 1, 2 * k + 1).copy_(low)
        planes.select(-d - 1, 2 * k + 2).copy_(high)
        planes.select(-d - 1, 0).sub_(low).sub_(high)
    _add_terms(planes.select(-d - 1, 0), terms.diagonal, scattered, d)
    return planes.expand(*batch, 2 * d + 1, *lay.shape)


def _add_terms(
    target: torch.Tensor,
    slabs: Sequence[tuple[int, int, torch.Tensor]],
    scattered: Sequence[tuple[torch.Tensor, torch.Tensor]],
    d: int,
) -> None:
    """Add slabs and scattered values in place."""
    for axis, end, values in slabs:
        dim = axis - d
        target.narrow(dim, 0 if end == 0 else target.shape[dim] - 1, 1).add_(values)
    for flat, values in scattered:
        extra = target.new_zeros(*values.shape[:-1], target.shape[-d:].numel())
        extra = extra.index_add(-1, flat, values.expand(*values.shape[:-1], len(flat)))
        target.add_(extra.unflatten(-1, target.shape[-d:]))


def _decouple(planes: torch.Tensor, whole: Sequence[Faces], hole: Cut, lay: Layout) -> torch.Tensor:
    """Rows of solid points that hold only a diagonal entry, that of the uncut row."""
    d = lay.dimension
    uncut = torch.zeros((), dtype=planes.dtype, device=planes.device)
    for k, face in enumerate(whole):
        uncut = uncut - low_faces(face.diffusive, k, d) - high_faces(face.diffusive, k, d)
    only = torch.zeros_like(planes)
    only.select(-d - 1, 0).copy_(uncut)
    return torch.where(hole.solid, only, planes)


def _tensor_operator(
    problem: Problem,
    lay: Layout,
    info: Data,
    reaction: torch.Tensor | None,
    volume: float | torch.Tensor,
    scheme: str,
) -> Assembly:
    d = lay.dimension
    offsets = box_offsets(d)
    planes, _ = tensor.diffusion(problem.form.K, lay, info)
    terms = boundary.sides(problem, info, None, None, None, scheme)
    added = [] if reaction is None else [((0,) * d, reaction)]
    cross: Sequence[Faces] = ()
    if _velocity(problem) is not None:
        cross = _cross_faces(problem, _conductivity(problem, info, None), scheme, info, None)
        added += _advective(cross, d)
    leads = [v.shape[:-d] for _, v in added] + [v.shape[:-d] for _, _, v in terms.diagonal]
    batch = torch.broadcast_shapes(planes.shape[: -d - 1], *leads)
    constant = max(planes.shape[-d:]) == 1 and all(max(v.shape[-d:]) == 1 for _, v in added)
    shape = (1,) * d if constant and not terms.diagonal else lay.shape
    planes = planes.expand(*batch, len(offsets), *shape).clone(
        memory_format=torch.contiguous_format
    )
    for offset, value in added:
        planes.select(-d - 1, offsets.index(offset)).add_(value)
    _add_terms(planes.select(-d - 1, offsets.index((0,) * d)), terms.diagonal, [], d)
    planes = planes.expand(*batch, len(offsets), *lay.shape)
    grounded = terms.grounded or reaction is not None
    tags = _tags(problem, reaction, grounded, terms.definite, lay)
    A = Stencil(planes, offsets, **tags)
    limited = tuple(face.limited for face in cross) or (None,) * d
    return Assembly(A, None, terms, None, None, lay, None, volume, scheme, limited)


def _advective(cross: Sequence[Faces], d: int) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """(offset, values) that advection alone adds to the planes of a box."""
    added = []
    for k, face in enumerate(cross):
        low = low_faces(face.down - face.diffusive, k, d)
        high = high_faces(face.up - face.diffusive, k, d)
        for step, value in ((-1, low), (1, high)):
            added.append((tuple(step if a == k else 0 for a in range(d)), value))
        added.append(((0,) * d, -low - high))
    return added


def integrated_source(problem: Problem, parts: Assembly, info: Data) -> torch.Tensor:
    """f times the control volumes; sizes of 1 stay."""
    f = over_volumes(problem.form.f, info, f"{_KEY}.f", parts.hole)
    return (f * parts.volume).to(info.dtype)


def right(
    problem: Problem, parts: Assembly, info: Data, source: torch.Tensor | None = None
) -> torch.Tensor:
    """``b``: boundary data, rim data, and ``source``, the integrated source unless given."""
    lay, hole, A, terms = parts.layout, parts.hole, parts.A, parts.terms
    d = lay.dimension
    f = integrated_source(problem, parts, info) if source is None else source
    scattered = parts.rim.right if parts.rim is not None else []
    known = tensor.known_values(A.coefficients, terms.known, lay) if parts.cross is None else None
    inside = None
    if hole is not None and hole.openings is None:
        inside = lay.to_unknowns(obstacle.rim_value(hole, info.own, info, ~hole.unused))
    leads = [f.shape[:-d], A.batch, *(v.shape[:-d] for _, _, v in terms.right)]
    leads += [v.shape[:-1] for _, v in scattered]
    leads += [v.shape[:-d] for v in (known, inside) if v is not None]
    shape = (*torch.broadcast_shapes(*leads), *lay.shape)
    # A source handed in is used again.
    fresh = source is None and f.shape == shape
    b = f if fresh else f.expand(shape).clone()
    _add_terms(b, terms.right, scattered, d)
    if known is not None:
        b = b - known
    if inside is not None and hole is not None:
        b = torch.where(hole.solid, A.diagonal() * inside, b)
    return b


def compatible(
    b: torch.Tensor, volume: float | torch.Tensor, info: Data
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b`` less its mean over the volume, and the defect |sum b| / sum |b| that this removes."""
    lay = info.layout
    volume = torch.as_tensor(volume, dtype=info.dtype, device=info.device)
    dims = tuple(range(-lay.dimension, 0))
    total = b.sum(dims, keepdim=True)
    size = b.abs().sum(dims)
    defect = total.abs().sum(dims) / torch.where(size > 0, size, torch.ones_like(size))
    # Compatible data miss zero by the quadrature's h^2 on the grid.
    tolerated = 0.01 + 4 * sum(1 / n**2 for n in lay.grid.shape)
    worst = float(defect.detach().max())
    if worst > tolerated:
        first = int(defect.detach().flatten().argmax())
        where = f" in sample {first}" if defect.ndim else ""
        raise IncompatibleData(
            "incompatible data: the source, and the fluxes where there are sides, integrate to "
            f"{float(total.flatten()[first]):.4g}{where}, must be 0, "
            "since no side fixes the level of u",
            f"{_KEY}.f",
        )
    if worst > 1e-10:
        info.notes.append(
            f"made compatible: source and fluxes integrate to {worst:.1e} of their size, not 0"
        )
    weights = volume.expand(lay.shape)
    return b - weights * (total / weights.sum()), defect
