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
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.fft
import torch

from sciml.core.linear import LinearMap
from sciml.solvers.inverse import Inverse
from sciml.solvers.iteration import DirectMethod, check_options
from sciml.solvers.separable import Ends, Separable, recognise

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
