"""The stencil and the right-hand side from their parts: fluxes, reaction, source, sides, holes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from sciml.core.discretize import boundary, faces, obstacle, tensor
from sciml.core.discretize.coefficients import Data, data, evaluate, require
from sciml.core.discretize.faces import Faces, Upwinding
from sciml.core.discretize.layout import Layout, Transfer, high_faces, layout, low_faces
from sciml.core.discretize.memory import check_memory, is_matrix
from sciml.core.discretize.obstacle import Cut, RimTerms
from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.problem import Problem
from sciml.core.stencil import Stencil, box_offsets, cross_offsets

_KEY = "problem.equation"


def discretize(
    problem: Problem,
    on: Grid,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> LinearSystem:
    """Lower a steady linear problem to ``A x = b`` on a grid.

    ``A`` is a :class:`Stencil` of shape (*unknowns) and batch (*A.batch), ``b`` has shape
    (*batch, *unknowns); both in ``dtype`` on ``device``. Dirichlet nodes are not unknowns; ``lift``
    puts them back. Where constants are in the kernel of A (pure Neumann, periodic), b is made
    compatible and the solution is the one with zero mean over the unknowns. ``A`` and ``b`` are
    differentiable in tensor coefficients. Raises InputError for coefficients, data or sizes that
    make no well-posed system.
    """
    device = torch.device(device)
    grid = on.bind(problem.box)
    _check(problem, grid)
    check_memory(problem, grid, dtype, device)
    lay = layout(problem, grid, dtype, device)
    info = data(problem, lay, dtype, device)
    hole = obstacle.cut(problem, lay, info)
    c = _on_unknowns(problem.form.c, "c", lay, info, hole)
    volume = lay.measure()
    if hole is not None and hole.volumes is not None:
        volume = volume * hole.volumes
    reaction = None if bool((c == 0).all()) else c * volume
    parts = _operator(problem, lay, info, hole, reaction)
    A, b = parts.A, _right(problem, parts, lay, info, hole, volume)
    defect = None
    if A.nullspace:
        b, defect = _compatible(b, torch.as_tensor(volume, dtype=dtype, device=device), lay, info)
    mask = hole.unused if hole is not None and hole.volumes is not None else None
    transfer = Transfer(lay, tuple(parts.terms.known), mask)
    return LinearSystem(A, b, grid, transfer.lift, transfer.restrict, tuple(info.notes), defect)


def _check(problem: Problem, grid: Grid) -> None:
    equation, d = problem.form, problem.box.dimension
    if grid.domain != problem.box or len(grid.shape) != d:
        raise InputError("the grid lies on another domain than the problem's", "grid")
    for name in ("m", "d"):
        value = getattr(equation, name)
        if not (isinstance(value, Real) and value == 0):
            raise InputError(
                "time-dependent problems are not solved yet: leave m and d out", f"{_KEY}.{name}"
            )
    for name in ("K", "b"):
        value = getattr(equation, name)
        if isinstance(value, (list, tuple)) and len(value) != d:
            raise InputError(f"{name} has {len(value)} entries; it needs {d}", f"{_KEY}.{name}")
    if equation.b is not None and not isinstance(equation.b, (list, tuple)):
        raise InputError(f"b must be a list of {d} entries", f"{_KEY}.b")
    K = equation.K
    if isinstance(K, (list, tuple)) and any(isinstance(row, (list, tuple)) for row in K):
        if not all(isinstance(row, (list, tuple)) and len(row) == d for row in K):
            raise InputError(f"a tensor K needs {d} rows of {d} entries", f"{_KEY}.K")
        if is_matrix(K) and grid.centring == "cell":
            raise InputError(
                "a full tensor K needs a node grid: use centring: node", "grid.centring"
            )
        if is_matrix(K) and problem.obstacle is not None:
            raise InputError(
                "obstacles need a scalar or diagonal K, not a full tensor", f"{_KEY}.K"
            )


@dataclass(frozen=True)
class _Operator:
    """A with what the right-hand side needs from it; ``cross`` is None for a full tensor."""

    A: Stencil
    cross: Sequence[Faces] | None
    terms: boundary.Terms
    rim: RimTerms | None


def _on_unknowns(
    coefficient: Any, name: str, lay: Layout, info: Data, hole: Cut | None
) -> torch.Tensor:
    unused = hole.unused if hole is not None else None
    value = evaluate(coefficient, info.own, info, f"{_KEY}.{name}", unused)
    return lay.to_unknowns(value)


def _conductivity(problem: Problem, info: Data, hole: Cut | None) -> list[torch.Tensor]:
    """K's diagonal at the grid's points, one tensor per axis; raises where it is not positive."""
    K, d = problem.form.K, problem.box.dimension
    unused = hole.unused if hole is not None else None
    if not isinstance(K, (list, tuple)):
        return [_positive(K, f"{_KEY}.K", info, unused)] * d
    entries = [row[a] if isinstance(row, (list, tuple)) else row for a, row in enumerate(K)]
    return [_positive(k, f"{_KEY}.K[{a}]", info, unused) for a, k in enumerate(entries)]


def _positive(coefficient: Any, key: str, info: Data, unused: torch.Tensor | None) -> torch.Tensor:
    value = evaluate(coefficient, info.own, info, key, unused, fill=1.0)
    require(value, info.own, key, positive=True)
    if unused is not None:
        # Holes take the fluid's mean, so that their rows are scaled like the others.
        fluid = ~unused.expand(torch.broadcast_shapes(unused.shape, value.shape))
        every = tuple(range(-info.layout.dimension, 0))
        mean = (value * fluid).sum(every, keepdim=True) / fluid.sum(every, keepdim=True)
        value = torch.where(fluid, value, mean)
    return value


def _velocity(problem: Problem) -> Sequence[Any] | None:
    b = problem.form.b
    if b is None or all(isinstance(v, Real) and v == 0 for v in b):
        return None
    return b


def _cross_faces(
    problem: Problem, K: Sequence[torch.Tensor], lay: Layout, info: Data
) -> list[Faces]:
    """The faces of every axis, with advection where there is one."""
    b = _velocity(problem)
    result, counts = [], []
    half_resistance = [-0.5 / K[0]]
    half_resistance += [half_resistance[0] if k is K[0] else -0.5 / k for k in K[1:]]
    for axis, r in enumerate(half_resistance):
        off = faces.diffusion(r, lay, axis)
        if b is None:
            result.append(Faces(off, off, off))
        else:
            face, count = faces.advection(off, b[axis], lay, axis, info)
            result.append(face)
            counts.append(count)
    _note_upwinding(counts, lay, info)
    return result


def _note_upwinding(counts: Sequence[Upwinding], lay: Layout, info: Data) -> None:
    upwinded = sum(count.upwinded for count in counts)
    if not upwinded:
        return
    share = 100 * upwinded / sum(count.faces for count in counts)
    sizes = [
        int(n * max(1.0, count.peclet / 2)) + 1
        for n, count in zip(lay.grid.shape, counts, strict=True)
    ]
    peclet = max(count.peclet for count in counts)
    info.notes.append(
        f"upwind on {share:.2g} % of the faces: the cell Peclet number reaches {peclet:.3g}; "
        f"refine to {' x '.join(map(str, sizes))} for central differences"
    )


def _operator(
    problem: Problem, lay: Layout, info: Data, hole: Cut | None, reaction: torch.Tensor | None
) -> _Operator:
    if is_matrix(problem.form.K):
        return _tensor_operator(problem, lay, info, reaction)
    K = _conductivity(problem, info, hole)
    inner = [lay.to_unknowns(k) for k in K]
    whole = _cross_faces(problem, K, lay, info)
    cross, rim = whole, None
    if hole is not None and hole.openings is None:
        cross, rim = obstacle.cut_links(hole, whole, lay, info, inner)
    elif hole is not None and hole.openings is not None:
        cross = [_times(f, o) for f, o in zip(whole, hole.openings, strict=True)]
        rim = obstacle.flux_rim(hole, lay, info, inner)
    openings = hole.openings if hole is not None else None
    terms = boundary.sides(problem, lay, info, cross, inner, openings)
    grounded = terms.grounded or reaction is not None or (rim is not None and rim.grounded)
    joined = hole is not None and hole.openings is not None and not grounded
    if joined and hole is not None:
        cross = [_times(f, o) for f, o in zip(whole, obstacle.join_holes(hole, lay), strict=True)]
    planes = _cross_planes(cross, reaction, terms, rim, lay)
    if hole is not None and not joined:
        planes = _decouple(planes, whole, hole, lay)
    A = Stencil(planes, cross_offsets(lay.dimension), **_tags(problem, reaction, grounded, lay))
    return _Operator(A, cross, terms, rim)


def _tags(
    problem: Problem, reaction: torch.Tensor | None, grounded: bool, lay: Layout
) -> dict[str, Any]:
    symmetric = _velocity(problem) is None
    positive = reaction is None or bool((reaction >= 0).all())
    return {
        "periodic": lay.periodic,
        "symmetric": symmetric,
        "definite": symmetric and positive,
        "nullspace": not grounded,
    }


def _times(face: Faces, opening: torch.Tensor) -> Faces:
    share = opening.to(face.up.dtype)
    return Faces(face.up * share, face.down * share, face.diffusive * share)


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
    problem: Problem, lay: Layout, info: Data, reaction: torch.Tensor | None
) -> _Operator:
    d = lay.dimension
    offsets = box_offsets(d)
    planes, _ = tensor.diffusion(problem.form.K, lay, info)
    terms = boundary.sides(problem, lay, info, None, None, None)
    added = [] if reaction is None else [((0,) * d, reaction)]
    added += _tensor_advection(problem, lay, info)
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
    A = Stencil(planes, offsets, **_tags(problem, reaction, grounded, lay))
    return _Operator(A, None, terms, None)


def _tensor_advection(
    problem: Problem, lay: Layout, info: Data
) -> list[tuple[tuple[int, ...], torch.Tensor]]:
    """(offset, values) that advection adds to the planes of a full tensor."""
    if _velocity(problem) is None:
        return []
    d = lay.dimension
    cross = _cross_faces(problem, _conductivity(problem, info, None), lay, info)
    added = []
    for k, face in enumerate(cross):
        low = low_faces(face.down - face.diffusive, k, d)
        high = high_faces(face.up - face.diffusive, k, d)
        for step, value in ((-1, low), (1, high)):
            added.append((tuple(step if a == k else 0 for a in range(d)), value))
        added.append(((0,) * d, -low - high))
    return added


def _right(
    problem: Problem,
    parts: _Operator,
    lay: Layout,
    info: Data,
    hole: Cut | None,
    volume: float | torch.Tensor,
) -> torch.Tensor:
    """``b``: source, boundary data, rim data."""
    d, A, terms = lay.dimension, parts.A, parts.terms
    f = (_on_unknowns(problem.form.f, "f", lay, info, hole) * volume).to(info.dtype)
    scattered = parts.rim.right if parts.rim is not None else []
    known = tensor.known_values(A.coefficients, terms.known, lay) if parts.cross is None else None
    inside = None
    if hole is not None and hole.openings is None:
        key = "problem.obstacle.boundary.dirichlet"
        fluid = ~hole.unused
        inside = lay.to_unknowns(
            evaluate(hole.obstacle.boundary.dirichlet, info.own, info, key, fluid)
        )
    leads = [f.shape[:-d], A.batch, *(v.shape[:-d] for _, _, v in terms.right)]
    leads += [v.shape[:-1] for _, v in scattered]
    leads += [v.shape[:-d] for v in (known, inside) if v is not None]
    shape = (*torch.broadcast_shapes(*leads), *lay.shape)
    b = f if f.shape == shape else f.expand(shape).clone()
    _add_terms(b, terms.right, scattered, d)
    if known is not None:
        b = b - known
    if inside is not None and hole is not None:
        b = torch.where(hole.solid, A.diagonal() * inside, b)
    return b


def _compatible(
    b: torch.Tensor, volume: torch.Tensor, lay: Layout, info: Data
) -> tuple[torch.Tensor, torch.Tensor]:
    """``b`` less its mean over the volume, and the defect |sum b| / sum |b| that this removes."""
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
        raise InputError(
            "incompatible Neumann data: source and fluxes integrate to "
            f"{float(total.flatten()[first]):.4g}{where}, must be 0",
            f"{_KEY}.f",
        )
    if worst > 1e-10:
        info.notes.append(
            f"made compatible: source and fluxes integrate to {worst:.1e} of their size, not 0"
        )
    weights = volume.expand(lay.shape)
    return b - weights * (total / weights.sum()), defect
