"""Recognising a separable constant-coefficient operator in a stencil's own numbers.

Along axis a, with coupling k_a and the other axes at interior points, the rows of

    A = sum_a k_a T_a (x) D_(b != a) + c (x) D_b

read (-k_a, 2 sum_b k_b + c, -k_a). At an end of the axis the second difference T_a has another
diagonal t and the control volume a fraction w:

    Dirichlet node t = 2, w = 1      Neumann node t = 1, w = 1/2
    Dirichlet cell t = 3, w = 1      Neumann cell t = 1, w = 1

These are read off, the operator is built again from them, and every coefficient is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch

from sciml.core.errors import InputError
from sciml.core.grid import SIDES
from sciml.core.linear import LinearMap
from sciml.core.stencil import Stencil, cross_offsets

Ends = tuple[str, str]

_END_OF = {
    (2.0, 1.0): "dirichlet node",
    (1.0, 0.5): "neumann node",
    (3.0, 1.0): "dirichlet cell",
    (1.0, 1.0): "neumann cell",
}
_ROW_OF = {end: row for row, end in _END_OF.items()}
_TOLERANCE = 1e-10
_VARIES = "a coefficient varies inside the box (variable K or c, or an obstacle)"


@dataclass(frozen=True)
class Separable:
    """``sum_a coupling_a T_a + reaction`` with the kind of both ends of every axis.

    ``coupling``: one array of shape batch per axis; ``reaction``: shape batch, float64. ``ends``:
    per axis two of ``dirichlet|neumann node|cell``, or ``periodic`` twice.
    """

    coupling: tuple[np.ndarray, ...]
    reaction: np.ndarray
    ends: tuple[Ends, ...]


def recognise(A: LinearMap) -> Separable:
    """The separable form of ``A``; raises InputError naming what breaks it."""
    if not isinstance(A, Stencil):
        raise _refusal("the operator is a matrix, not a stencil on a box")
    if A.dtype.is_complex:
        raise _refusal("the operator is complex")
    if any(n < 3 for n in A.shape):
        raise _refusal(f"an axis has fewer than 3 unknowns (shape {list(A.shape)})")
    planes = _cross_planes(A)
    middle = tuple(n // 2 for n in A.shape)
    coupling = _coupling(A, planes, middle)
    centre = _at(planes[0], middle)
    reaction = centre - 2 * np.sum(coupling, axis=0)
    # What rounding leaves of a difference of equal numbers is zero.
    reaction = np.where(np.abs(reaction) <= 1e-12 * np.abs(centre), 0.0, reaction)
    ends = tuple(
        ("periodic", "periodic") if wraps else _ends(planes, coupling, reaction, axis)
        for axis, wraps in enumerate(A.periodic)
    )
    parts = Separable(coupling, reaction, ends)
    _compare(A, planes, parts)
    return parts


def _refusal(reason: str) -> InputError:
    return InputError(
        f"fast_poisson needs constant coefficients on a whole box, but {reason}; "
        "use cg with multigrid",
        "solver.kind",
    )


def _cross_planes(A: Stencil) -> list[torch.Tensor]:
    """Planes of the cross offsets, each (*batch, *shape); anything else must be zero."""
    cross = cross_offsets(A.dimension)
    for offset in A.offsets:
        if offset not in cross and bool((A.entry(offset) != 0).any()):
            raise _refusal("K is a full tensor (diagonal neighbours are coupled)")
    missing = [offset for offset in cross if offset not in A.offsets]
    if missing:
        raise _refusal(f"the stencil has no entry for the offset {list(missing[0])}")
    return [A.entry(offset).cpu() for offset in cross]


def _at(plane: torch.Tensor, index: tuple[int, ...]) -> np.ndarray:
    place: Any = (..., *index)
    return np.asarray(plane[place].to(torch.float64).numpy())


def _coupling(
    A: Stencil, planes: list[torch.Tensor], middle: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    result = []
    for axis in range(A.dimension):
        low, high = (_at(planes[1 + 2 * axis + side], middle) for side in (0, 1))
        if not np.allclose(low, high, rtol=_TOLERANCE, atol=0):
            raise _refusal(_VARIES if A.symmetric else "there is advection")
        if not (low < 0).all():
            raise _refusal("neighbours are not coupled with a negative sign (K > 0 is needed)")
        result.append(-low)
    inner: Any = (..., *(slice(1, -1) for _ in A.shape))
    for plane in planes:
        if not _close(plane[inner], _at(plane, middle)):
            raise _refusal(_VARIES)
    return tuple(result)


def _close(actual: torch.Tensor, expected: np.ndarray) -> bool:
    """Whether values (*batch, *points) equal one number per sample."""
    dimension = actual.ndim - expected.ndim
    dims = tuple(range(-dimension, 0))
    if all(actual.stride(d) == 0 or actual.shape[d] == 1 for d in dims):
        origin: Any = (..., *(0,) * dimension)
        low = high = actual[origin]
    else:
        low, high = torch.amin(actual, dims), torch.amax(actual, dims)
    gap = np.maximum(np.abs(low.numpy() - expected), np.abs(high.numpy() - expected))
    return bool((gap <= _TOLERANCE * np.abs(expected)).all())


def _ends(
    planes: list[torch.Tensor], coupling: tuple[np.ndarray, ...], reaction: np.ndarray, axis: int
) -> Ends:
    last = planes[0].shape[axis - len(coupling)] - 1
    rows = [_rows_at(planes, coupling, reaction, axis, place) for place in (0, last)]
    for low, high in product(*rows):
        # Nodes and cells do not mix on one axis, though their Neumann rows can look alike.
        if low.split()[1] == high.split()[1]:
            return low, high
    sides = [name for name, row in zip(SIDES[axis], rows, strict=True) if not row]
    raise _refusal(
        f"the {' and '.join(sides or SIDES[axis])} side is neither dirichlet, neumann nor periodic "
        "(a robin side?)"
    )


def _rows_at(
    planes: list[torch.Tensor],
    coupling: tuple[np.ndarray, ...],
    reaction: np.ndarray,
    axis: int,
    place: int,
) -> list[str]:
    """The kinds of end whose diagonal (and, past 1-D, whose volume fraction) is found there."""
    shape = planes[0].shape[-len(coupling) :]
    index = tuple(place if a == axis else n // 2 for a, n in enumerate(shape))
    diagonal = _at(planes[0], index)
    others = [b for b in range(len(coupling)) if b != axis]
    rest = reaction + 2 * sum(coupling[b] for b in others)
    fitting = []
    for (t, w), end in _END_OF.items():
        found = np.allclose(diagonal, t * coupling[axis] + w * rest, rtol=_TOLERANCE, atol=0)
        for b in others:
            across = _at(planes[1 + 2 * b], index)
            found = found and np.allclose(across, -w * coupling[b], rtol=_TOLERANCE, atol=0)
        if found:
            fitting.append(end)
    return fitting


def _compare(A: Stencil, planes: list[torch.Tensor], parts: Separable) -> None:
    """Hold every coefficient that acts inside the array against the rebuilt operator."""
    if all(stride == 0 for plane in planes for stride in plane.stride()[-A.dimension :]) and all(
        pair in (("periodic", "periodic"), ("dirichlet node", "dirichlet node"))
        for pair in parts.ends
    ):
        return  # one stored number per plane, and it has been compared already
    scale = parts.reaction + sum(parts.coupling)
    for number, plane in enumerate(planes):
        expected = _plane(A.shape, parts, number)
        actual = plane.to(torch.float64).numpy()
        if number:
            axis, side = divmod(number - 1, 2)
            if not A.periodic[axis]:
                reach: list[Any] = [slice(None)] * A.dimension
                reach[axis] = slice(1, None) if side == 0 else slice(0, -1)
                expected, actual = expected[(..., *reach)], actual[(..., *reach)]
        limit = _TOLERANCE * np.abs(scale).reshape(*scale.shape, *(1,) * A.dimension)
        if not (np.abs(actual - expected) <= limit).all():
            raise _refusal("a boundary condition changes along its side")


def _plane(shape: tuple[int, ...], parts: Separable, number: int) -> np.ndarray:
    """The plane of the cross offset ``number``, (*batch, *shape)."""
    dimension = len(shape)
    volumes, differences = [], []
    for axis, (pair, n) in enumerate(zip(parts.ends, shape, strict=True)):
        volume, difference = np.ones(n), np.full(n, 2.0)
        for end, place in zip(pair, (0, -1), strict=True):
            if end != "periodic":
                difference[place], volume[place] = _ROW_OF[end]
        view = tuple(-1 if a == axis else 1 for a in range(dimension))
        volumes.append(volume.reshape(view))
        differences.append(difference.reshape(view))

    def volume_across(axis: int | None) -> np.ndarray:
        total = np.ones(shape)
        for b, fraction in enumerate(volumes):
            if b != axis:
                total *= fraction
        return total

    def wide(scalars: np.ndarray) -> np.ndarray:
        return scalars.reshape(*scalars.shape, *(1,) * dimension)

    if number:
        axis = (number - 1) // 2
        return -wide(parts.coupling[axis]) * volume_across(axis)
    total = wide(parts.reaction) * volume_across(None)
    for axis in range(dimension):
        total = total + wide(parts.coupling[axis]) * (differences[axis] * volume_across(axis))
    return total
