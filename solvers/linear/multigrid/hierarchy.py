"""The levels of black-box multigrid: semi-coarsening, transfers, Galerkin operators, islands.

An axis is coarsened where its coupling is not weak beside the strongest one, so that a point
smoother suffices on grid-aligned anisotropy. Where the stencil is constant and the coarse points
fit (odd sizes, even periodic ones) so is everything below it: the set-up is then done on a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import scipy.sparse.linalg
import torch

from sciml.core.algebra import kernels
from sciml.core.algebra.stencil import Stencil
from sciml.core.algebra.transfer import Transfer, coarse_shape
from sciml.solvers.linear.multigrid.islands import Islands, find

WEAK = 0.3  # an axis whose coupling is below this share of the strongest is not coarsened
SAMPLED = 100  # points per axis at which couplings are compared
COARSEST = 256  # unknowns at which the recursion ends
DENSE = 1024  # unknowns up to which the coarsest operator is inverted as a dense matrix
_PATCH = {1: 17, 2: 17, 3: 9}  # points per axis by dimension

# Transfer and coarse operator for an operator and the factors of its axes.
Coarsening: TypeAlias = Callable[[Stencil, tuple[int, ...]], tuple[Transfer, Stencil]]


@dataclass(frozen=True, eq=False)
class Level:
    """One grid: its operator, the transfer to the next (None on the last), islands if any."""

    A: Stencil
    P: Transfer | None
    islands: Islands | None


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """All levels, finest first, and the coarsest solve: a dense inverse or a factorisation."""

    levels: tuple[Level, ...]
    coarsest: torch.Tensor | tuple[scipy.sparse.linalg.SuperLU, ...]

    def __str__(self) -> str:
        """A table of the levels with the grid and operator complexities, as PyAMG prints it."""
        first = self.levels[0].A
        lines = [f"{'level':>5}  {'grid':<16} {'unknowns':>10}  stencil"]
        unknowns, entries = 0, 0
        for i, level in enumerate(self.levels):
            shape = " x ".join(map(str, level.A.shape))
            unknowns += level.A.size
            entries += level.A.size * len(level.A.offsets)
            islands = f", {len(level.islands)} islands" if level.islands else ""
            stencil = f"{len(level.A.offsets)}-point"
            lines.append(f"{i:>5}  {shape:<16} {level.A.size:>10}  {stencil}{islands}")
        lines.append(
            f"grid complexity {unknowns / first.size:.2f}, operator complexity "
            f"{entries / (first.size * len(first.offsets)):.2f}"
        )
        return "\n".join(lines)


def black_box(A: Stencil, factors: tuple[int, ...]) -> tuple[Transfer, Stencil]:
    """The transfer of ``core.algebra.transfer`` and the Galerkin product."""
    P = kernels.of(A.coefficients).interpolate(A, factors)
    return P, kernels.of(A.coefficients).galerkin(A, P)


def build(A: Stencil, dtype: torch.dtype, constant: Coarsening = black_box) -> Hierarchy:
    """Coarsen until few unknowns remain or no axis can be; the products are formed in ``dtype``.

    ``constant``: how a constant stencil is coarsened, given a patch of it.
    """
    levels: list[Level] = []
    current = A.to(dtype)
    while True:
        factors = _factors(current) if current.size > COARSEST else None
        P, coarse = (None, None) if factors is None else _coarsen(current, factors, constant)
        # The finest islands come from A itself: in single precision their energies may vanish.
        islands = None if P is None else find(current if levels else A, dtype)
        levels.append(Level(current, P, islands))
        if coarse is None:
            return Hierarchy(tuple(levels), _coarsest(current))
        current = coarse


def _strengths(A: Stencil) -> list[float]:
    """Mean coupling along each axis over a sample of points, the stencil summed over the others."""
    sample: tuple[Any, ...] = (..., *(slice(None, None, max(1, n // SAMPLED)) for n in A.shape))
    result = []
    for axis in range(A.dimension):
        couplings = [A.entry(o)[sample] for o in A.offsets if o[axis] == 1]
        result.append(float(sum(couplings[1:], couplings[0]).abs().mean()))
    return result


def _factors(A: Stencil) -> tuple[int, ...] | None:
    """Which axes to coarsen (factor 2), or None where none can be.

    An odd periodic axis has no alternate points all round and is left alone.
    """
    able = [
        n >= (4 if ring else 3) and not (ring and n % 2)
        for n, ring in zip(A.shape, A.periodic, strict=True)
    ]
    if not any(able):
        return None
    strengths = _strengths(A)
    strongest = max(s for s, ok in zip(strengths, able, strict=True) if ok)
    return tuple(
        2 if ok and s >= WEAK * strongest else 1 for s, ok in zip(strengths, able, strict=True)
    )


def _coarsen(
    A: Stencil, factors: tuple[int, ...], constant: Coarsening
) -> tuple[Transfer, Stencil]:
    if stays_constant(A, factors):
        return _coarsen_constant(A, factors, constant)
    return black_box(A, factors)


def stays_constant(A: Stencil, factors: tuple[int, ...]) -> bool:
    """Whether the stencil is constant and coarsened as if the grid had no end."""
    constant = all(s == 0 for s in A.coefficients.stride()[-A.dimension :])
    return constant and all(
        f == 1 or n % 2 == (0 if ring else 1)
        for f, n, ring in zip(factors, A.shape, A.periodic, strict=True)
    )


def _coarsen_constant(
    A: Stencil, factors: tuple[int, ...], constant: Coarsening
) -> tuple[Transfer, Stencil]:
    """The set-up on a patch of the infinite grid, expanded to the whole."""
    d = A.dimension
    first: tuple[Any, ...] = (..., *(slice(0, 1),) * d)
    planes = A.coefficients[first]
    patch = Stencil(planes.expand(*planes.shape[:-d], *(_PATCH[d],) * d).contiguous(), A.offsets)
    P, product = constant(patch, factors)
    shape = coarse_shape(A.shape, factors)
    centre = _PATCH[d] // 2
    middle: tuple[Any, ...] = (..., *(slice(centre // f, centre // f + 1) for f in factors))
    planes = product.coefficients[middle].expand(*product.coefficients.shape[:-d], *shape)
    weights = P.weights[middle].expand(*P.weights.shape[:-d], *shape)
    return Transfer(weights, factors, A.periodic, A.shape), A.like(planes, product.offsets)


def _coarsest(A: Stencil) -> torch.Tensor | tuple[scipy.sparse.linalg.SuperLU, ...]:
    """The inverse of the last operator, (*batch, n, n); constants are shifted out of a kernel."""
    n = A.size
    if n > DENSE:
        regular = (_regular(m.to_scipy(), A.nullspace) for m in samples(A.to(torch.float64)))
        try:
            return tuple(scipy.sparse.linalg.splu(matrix.tocsc()) for matrix in regular)
        except RuntimeError as error:
            raise torch.linalg.LinAlgError(str(error)) from error
    identity = torch.eye(n, dtype=torch.float64, device=A.device).reshape(
        n, *(1,) * len(A.batch), *A.shape
    )
    columns = kernels.of(A.coefficients).apply(
        A.to(torch.float64), identity.expand(n, *A.batch, *A.shape)
    )
    dense = columns.reshape(n, *A.batch, n).movedim(0, -1)
    if A.nullspace:
        scale = dense.diagonal(dim1=-2, dim2=-1).mean(-1)
        dense = dense + scale[..., None, None] / n
    return _inverse(dense).to(A.dtype)


def _inverse(matrices: torch.Tensor) -> torch.Tensor:
    if matrices.device.type != "cpu":
        inverses: torch.Tensor = torch.linalg.inv(matrices)
        return inverses
    # One by one: torch's batched inverse was seen to fail under several threads (test_threads.py).
    single = matrices.reshape(-1, *matrices.shape[-2:])
    return torch.stack([torch.linalg.inv(matrix) for matrix in single]).reshape(matrices.shape)


def _regular(matrix: scipy.sparse.csr_matrix, nullspace: bool) -> scipy.sparse.csr_matrix:
    if not nullspace:
        return matrix
    # One pinned unknown makes a kernel of constants regular without filling the matrix.
    pin = scipy.sparse.coo_matrix(([matrix.diagonal().mean()], ([0], [0])), shape=matrix.shape)
    return matrix + pin.tocsr()


def samples(A: Stencil) -> list[Stencil]:
    """The stencils of a batch, one by one."""
    flat = A.coefficients.reshape(-1, *A.coefficients.shape[-A.dimension - 1 :])
    return [A.like(c) for c in flat]
