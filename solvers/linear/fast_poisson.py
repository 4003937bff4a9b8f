"""Direct solution of separable constant-coefficient problems by fast transforms.

With D_a the diagonal of control-volume fractions along axis a (1/2 at a Neumann node, else 1) and
T_a the tridiagonal or circulant second difference with its boundary rows,

    A = sum_a k_a T_a (x) D_(b != a) + c (x) D_b
      = D^1/2 (sum_a k_a S_a + c) D^1/2,      S_a = D_a^-1/2 T_a D_a^-1/2,   D = (x) D_b.

Every S_a is diagonalised by an orthonormal fast transform (Swarztrauber 1977; Strang 1999):

    Dirichlet-Dirichlet  node DST-I      cell DST-II     2 - 2 cos(pi k / (n + 1)),  .../ n
    Neumann-Neumann      node DCT-I      cell DCT-II     2 - 2 cos(pi k / (n - 1)),  .../ n
    Dirichlet-Neumann    node DST-III    cell DST-IV     2 - 2 cos(pi (k + 1/2) / n)
    Neumann-Dirichlet    node DCT-III    cell DCT-IV     2 - 2 cos(pi (k + 1/2) / n)
    periodic             FFT                             2 - 2 cos(2 pi k / n)

so that a solve is a transform, a product and the transform back: O(n log n), on the CPU.

Which conditions an operator has is read off its own numbers. Along axis a, with the other axes at
interior points, its rows read (-k_a, 2 sum_b k_b + c, -k_a); at an end T_a has another diagonal t
and the control volume a fraction w:

    Dirichlet node t = 2, w = 1      Neumann node t = 1, w = 1/2
    Dirichlet cell t = 3, w = 1      Neumann cell t = 1, w = 1

The operator is built again from what was found, and every coefficient is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import scipy.fft
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.errors import InputError
from sciml.core.problem.grid import SIDES
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import DirectMethod, check_options

# (low end, high end) -> (family, type) of the transform from values to coefficients
_TRANSFORMS: dict[Ends, tuple[str, int]] = {
    ("dirichlet node", "dirichlet node"): ("dst", 1),
    ("neumann node", "neumann node"): ("dct", 1),
    ("dirichlet node", "neumann node"): ("dst", 3),
    ("neumann node", "dirichlet node"): ("dct", 3),
    ("dirichlet cell", "dirichlet cell"): ("dst", 2),
    ("neumann cell", "neumann cell"): ("dct", 2),
    ("dirichlet cell", "neumann cell"): ("dst", 4),
    ("neumann cell", "dirichlet cell"): ("dct", 4),
}


@dataclass(frozen=True)
class FastPoisson(DirectMethod):
    """Fast sine, cosine and Fourier transforms, chosen per axis from the boundary rows found.

    For a constant diagonal K and constant c on a whole box; raises InputError naming what breaks
    that. ``setup`` returns the inverse as a LinearMap (the pseudo-inverse of a singular operator).
    """

    kind: Literal["fast_poisson"] = "fast_poisson"
    rtol: float = 1e-8
    refinements = 0

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol)

    def setup(self, A: LinearMap) -> SpectralInverse:
        """Recognise the boundary conditions and compute the eigenvalues."""
        return SpectralInverse(A, recognise(A))


class SpectralInverse(Inverse):
    """``A^-1`` of a separable stencil by fast transforms, on float64 arrays (*batch, *shape)."""

    def __init__(self, A: LinearMap, parts: Separable) -> None:
        self.periodic = tuple(ends[0] == "periodic" for ends in parts.ends)
        self.groups = _transform_groups(parts.ends, len(A.shape))
        spectrum = _spectrum(parts, A.shape)
        largest = np.abs(spectrum).max()
        zero = np.abs(spectrum) <= 1e-13 * largest
        super().__init__(A, symmetric=True, definite=bool((spectrum[~zero] > 0).all()))
        self.reciprocal = np.where(zero, 0.0, 1.0 / np.where(zero, 1.0, spectrum))
        self.half_weights = _half_weights(parts.ends, A.shape)

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A^-1 u``; u (*batch, *shape); transforms use as many threads as torch does."""
        values = u.detach().to("cpu", torch.float64).numpy()
        if self.half_weights is not None:
            values = values * self.half_weights
        workers = torch.get_num_threads()
        fresh = self.half_weights is not None
        for forward, _, kind, axes in self.groups:
            values = forward(values, type=kind, axes=axes, overwrite_x=fresh, workers=workers)
            fresh = True
        axes = tuple(a - len(self.periodic) for a, wraps in enumerate(self.periodic) if wraps)
        if axes:
            values = scipy.fft.rfftn(values, axes=axes, workers=workers)
        values = np.multiply(values, self.reciprocal, out=values)
        if axes:
            sizes = tuple(self.shape[a] for a in axes)
            values = scipy.fft.irfftn(values, s=sizes, axes=axes, workers=workers)
        for _, backward, kind, along in self.groups:
            values = backward(values, type=kind, axes=along, overwrite_x=True, workers=workers)
        if self.half_weights is not None:
            values *= self.half_weights
        return torch.from_numpy(np.ascontiguousarray(values)).to(u.device)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """The same: the inverse is symmetric."""
        return self.apply(u)


_Group = tuple[Callable[..., np.ndarray], Callable[..., np.ndarray], int, tuple[int, ...]]


def _transform_groups(ends: tuple[Ends, ...], dimension: int) -> list[_Group]:
    """Axes of the same transform together: (forward, backward, type, axes counted from the end)."""
    axes_of: dict[tuple[str, int], list[int]] = {}
    for axis, pair in enumerate(ends):
        if pair[0] != "periodic":
            axes_of.setdefault(_TRANSFORMS[pair], []).append(axis - dimension)
    functions: dict[str, tuple[Any, Any]] = {
        "dst": (_orthonormal(scipy.fft.dstn), _orthonormal(scipy.fft.idstn)),
        "dct": (_orthonormal(scipy.fft.dctn), _orthonormal(scipy.fft.idctn)),
    }
    return [(*functions[family], kind, tuple(axes)) for (family, kind), axes in axes_of.items()]


def _orthonormal(transform: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def apply(values: np.ndarray, **options: Any) -> np.ndarray:
        return transform(values, norm="ortho", **options)

    return apply


def _spectrum(parts: Separable, shape: tuple[int, ...]) -> np.ndarray:
    """Eigenvalues in transform order, (*batch, *transform shape); the last periodic axis halved."""
    dimension = len(shape)
    wrapped = [a for a in range(dimension) if parts.ends[a][0] == "periodic"]
    total = parts.reaction.reshape(*parts.reaction.shape, *(1,) * dimension)
    for axis, (pair, n) in enumerate(zip(parts.ends, shape, strict=True)):
        values = _eigenvalues(pair, n)
        if wrapped and axis == wrapped[-1]:
            values = values[: n // 2 + 1]
        along = values.reshape(tuple(-1 if a == axis else 1 for a in range(dimension)))
        scale = parts.coupling[axis]
        total = total + scale.reshape(*scale.shape, *(1,) * dimension) * along
    return total


def _eigenvalues(ends: Ends, n: int) -> np.ndarray:
    k = np.arange(n)
    if ends[0] == "periodic":
        angle = 2 * k / n
    elif ends == ("dirichlet node", "dirichlet node"):
        angle = (k + 1) / (n + 1)
    elif ends == ("neumann node", "neumann node"):
        angle = k / (n - 1)
    elif ends == ("dirichlet cell", "dirichlet cell"):
        angle = (k + 1) / n
    elif ends == ("neumann cell", "neumann cell"):
        angle = k / n
    else:
        angle = (k + 0.5) / n
    return 4 * np.sin(np.pi * angle / 2) ** 2  # 2 - 2 cos, without its cancellation


def _half_weights(ends: tuple[Ends, ...], shape: tuple[int, ...]) -> np.ndarray | None:
    """``D^-1/2``, or None where it is the identity."""
    if not any("neumann node" in pair for pair in ends):
        return None
    weights = np.ones(shape)
    for axis, pair in enumerate(ends):
        for end, place in zip(pair, (0, -1), strict=True):
            if end == "neumann node":
                edge: list[Any] = [slice(None)] * len(shape)
                edge[axis] = place
                weights[tuple(edge)] *= np.sqrt(2.0)
    return weights


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
        across: np.ndarray = -wide(parts.coupling[axis]) * volume_across(axis)
        return across
    total: np.ndarray = wide(parts.reaction) * volume_across(None)
    for axis in range(dimension):
        total = total + wide(parts.coupling[axis]) * (differences[axis] * volume_across(axis))
    return total
