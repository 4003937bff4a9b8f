"""Diffusion with a full symmetric tensor K on node grids.

The matrix is the Hessian of an energy, and so symmetric, and positive definite where K is. On a
grid cell of volume V, with K taken at its centre and the trapezoidal rule over its 2^d corners c,

    E(u) = 1/2 sum_c V / 2^d  grad_c u . K grad_c u,

where grad_c holds the differences along the d edges of the cell that meet at c. The corner c sees
the nodes c and c with one coordinate flipped; collecting E's second derivatives gives, for every
pair p, q of a cell's corners, a fixed combination of the entries of K.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import torch

from sciml.core.algebra.kernels.reference import shifted
from sciml.core.algebra.stencil import box_offsets
from sciml.core.algebra.transfer import Offset
from sciml.core.errors import InputError
from sciml.discretization.volumes.coefficients import Data, describe, evaluate
from sciml.discretization.volumes.layout import Layout, Points, at_end

Corner = tuple[int, ...]
_KEY = "problem.equation.K"


def diffusion(
    K: Sequence[Sequence[Any]], layout: Layout, data: Data
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Planes (*batch, 3^d, *shape) in the order of ``box_offsets``, and K's diagonal on the cells.

    The trailing axes of the planes are all 1 where one row serves the whole array. Raises
    InputError where K is not symmetric or not positive definite, with the place.
    """
    d = layout.dimension
    middles = tuple(a.points[:-1] + a.spacing / 2 for a in layout.axes)
    points = layout.points(dict(enumerate(middles)))
    entries = {
        (a, b): evaluate(K[a][b], points, data, f"{_KEY}[{a}][{b}]")
        for a, b in product(range(d), repeat=2)
    }
    _check(entries, points, d)
    constant = all(max(k.shape[-d:]) == 1 for k in entries.values())
    if constant and not any("closed" in axis.ends for axis in layout.axes):
        planes = _constant_row(entries, layout)
    else:
        planes = _assemble(entries, layout)
    return planes, [entries[a, a] for a in range(d)]


def _check(entries: dict[tuple[int, int], torch.Tensor], points: Points, d: int) -> None:
    for a in range(d):
        for b in range(a):
            gap = (entries[a, b] - entries[b, a]).detach()
            size = entries[a, b].detach().abs() + entries[b, a].detach().abs()
            if bool((gap.abs() > 1e-6 * size).any()):
                where = describe(gap, gap.abs() > 1e-6 * size, points, _KEY)
                raise InputError(
                    f"K is not symmetric: K[{a}][{b}] - {where.replace('K', f'K[{b}][{a}]', 1)}; "
                    "give a symmetric tensor",
                    _KEY,
                )
    if all(bool((minor > 0).all()) for minor in _leading_minors(entries, d)):
        return
    lowest = torch.linalg.eigvalsh(_matrix(entries, d).detach())[..., 0]
    if bool((lowest <= 0).any()):
        where = describe(lowest, lowest <= 0, points, "the smallest eigenvalue of K")
        raise InputError(f"the equation is not elliptic: {where} (must be positive)", _KEY)


def _leading_minors(entries: dict[tuple[int, int], torch.Tensor], d: int) -> list[torch.Tensor]:
    """Sylvester's criterion: all positive where K is positive definite."""
    k = {name: value.detach() for name, value in entries.items()}
    minors = [k[0, 0]]
    if d > 1:
        minors.append(k[0, 0] * k[1, 1] - k[0, 1] * k[1, 0])
    if d > 2:
        first = k[0, 0] * (k[1, 1] * k[2, 2] - k[1, 2] * k[2, 1])
        second = k[0, 1] * (k[1, 0] * k[2, 2] - k[1, 2] * k[2, 0])
        minors.append(first - second + k[0, 2] * (k[1, 0] * k[2, 1] - k[1, 1] * k[2, 0]))
    return minors


def _matrix(entries: dict[tuple[int, int], torch.Tensor], d: int) -> torch.Tensor:
    spread = torch.broadcast_tensors(*entries.values())
    return torch.unflatten(torch.stack(spread, -1), -1, (d, d))


def _flip(corner: Corner, axis: int) -> Corner:
    return tuple(1 - s if k == axis else s for k, s in enumerate(corner))


def _pairs(
    entries: dict[tuple[int, int], torch.Tensor], layout: Layout
) -> dict[tuple[Corner, Corner], torch.Tensor]:
    """The element matrix: for corners p, q of a cell its entry, a combination of K's entries."""
    d, h = layout.dimension, [axis.spacing for axis in layout.axes]
    weights: dict[tuple[Corner, Corner], dict[tuple[int, int], float]] = {}
    for c in product((0, 1), repeat=d):
        for a, b in product(range(d), repeat=2):
            # The difference along a at c is +-(u[flipped] - u[c]) / h_a, plus where c_a = 0.
            sign = (1 - 2 * c[a]) * (1 - 2 * c[b])
            weight = sign * prod(h) / 2**d / (h[a] * h[b])
            for p, s in ((_flip(c, a), 1), (c, -1)):
                for q, t in ((_flip(c, b), 1), (c, -1)):
                    # Upper and lower entries agree; one name for both halves the work.
                    name = (min(a, b), max(a, b))
                    row = weights.setdefault((p, q), {})
                    row[name] = row.get(name, 0.0) + s * t * weight
    pairs = {}
    for pair, row in weights.items():
        terms = [w * entries[name] for name, w in row.items() if w]
        if terms:
            pairs[pair] = sum(terms[1:], start=terms[0])
    return pairs


def _offset(p: Corner, q: Corner) -> Offset:
    return tuple(t - s for s, t in zip(p, q, strict=True))


def _constant_row(entries: dict[tuple[int, int], torch.Tensor], layout: Layout) -> torch.Tensor:
    offsets = box_offsets(layout.dimension)
    batch = torch.broadcast_shapes(*(k.shape for k in entries.values()))
    like = entries[0, 0]
    rows = {o: like.new_zeros(batch) for o in offsets}
    for (p, q), value in _pairs(entries, layout).items():
        rows[_offset(p, q)] = rows[_offset(p, q)] + value
    return torch.stack([rows[o] for o in offsets], -layout.dimension - 1)


def _assemble(entries: dict[tuple[int, int], torch.Tensor], layout: Layout) -> torch.Tensor:
    d = layout.dimension
    offsets = box_offsets(d)
    batch = torch.broadcast_shapes(*(k.shape[:-d] for k in entries.values()))
    nodes = tuple(len(axis.points) for axis in layout.axes)
    planes = entries[0, 0].new_zeros(*batch, len(offsets), *nodes)
    for (p, q), value in _pairs(entries, layout).items():
        rows = planes.select(-d - 1, offsets.index(_offset(p, q)))
        for k, s in enumerate(p):
            rows = rows.narrow(k - d, s, nodes[k] - 1)
        rows.add_(value)
    for k, wraps in enumerate(layout.periodic):
        if wraps:
            at_end(planes, k, d, 0).add_(at_end(planes, k, d, 1).clone())
    return layout.to_unknowns(planes)


def known_values(
    planes: torch.Tensor, known: Sequence[tuple[int, int, torch.Tensor]], layout: Layout
) -> torch.Tensor | None:
    """``sum_o a_o[i] g[i + o]`` over the Dirichlet nodes, to be taken from the right-hand side."""
    if not known:
        return None
    d = layout.dimension
    batch = torch.broadcast_shapes(*(g.shape[:-d] for _, _, g in known))
    # A periodic axis wraps over its n - 1 different nodes.
    sizes = [len(a.points) - w for a, w in zip(layout.axes, layout.periodic, strict=True)]
    values = planes.new_zeros(*batch, *sizes)
    for axis, end, g in reversed(known):
        for k, n in enumerate(sizes):
            if g.shape[k - d] > n:
                g = g.narrow(k - d, 0, n)
        at_end(values, axis, d, end).copy_(g)
    total = torch.zeros((), dtype=planes.dtype, device=planes.device)
    for index, offset in enumerate(box_offsets(d)):
        if any(offset):
            beside = shifted(values, offset, layout.periodic)
            for k, line in enumerate(layout.axes):
                beside = beside.narrow(k - d, line.start, line.count)
            total = total + planes.select(-d - 1, index) * beside
    return total
