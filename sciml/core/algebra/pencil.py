"""Eigenvalue problems ``A u = lambda M u`` of two symmetric maps, M positive.

What discretisations make of an equation whose data are zero: A is its operator, M the mass.
Unknowns without mass lie inside an obstacle; A couples them with no others, and no mode reaches
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError

if TYPE_CHECKING:
    from sciml.core.problem.grid import Grid
    from sciml.core.problem.mesh import Mesh


@dataclass(frozen=True)
class Pencil:
    """``A u = lambda M u`` with what is known beforehand; A and M may be batches.

    ``candidates``: (k, *A.shape) vectors among whose combinations the kernel of A lies, such as
    rigid motions. ``share``: M >= share diag(M), between 0 and 1. ``scale``: roughly the lowest
    eigenvalue that is not zero, ``floor``: at most 0, what no eigenvalue is far below; both only
    shift what is preconditioned. ``lift`` maps unknowns (*batch, *A.shape) to the value on ``on``.
    ``fields``: the names of the value's fields. ``oscillates``: whether lambda is a squared angular
    frequency.
    """

    A: LinearMap
    M: LinearMap
    candidates: torch.Tensor
    share: float
    scale: float
    floor: float
    on: Grid | Mesh
    lift: Callable[[torch.Tensor], torch.Tensor]
    notes: tuple[str, ...] = ()
    fields: tuple[str, ...] = ("u",)
    oscillates: bool = False

    @property
    def batch(self) -> tuple[int, ...]:
        """That of A and M together."""
        return tuple(torch.broadcast_shapes(self.A.batch, self.M.batch))

    @property
    def requires_grad(self) -> bool:
        """Whether gradients are wanted with respect to A or M."""
        return self.A.requires_grad or self.M.requires_grad

    def samples(self) -> Iterator[Pencil]:
        """One after the other, in row-major order of ``batch``."""
        batch = self.batch
        for index in torch.cartesian_prod(*map(torch.arange, batch)) if batch else [None]:
            place = () if index is None else tuple(index.reshape(-1).tolist())
            A, M = (of_sample(map_, batch, place) for map_ in (self.A, self.M))
            yield replace(self, A=A, M=M)


def of_sample(A: LinearMap, batch: tuple[int, ...], place: tuple[int, ...]) -> LinearMap:
    """A without its batch: that of the sample at ``place`` of a batch which A's broadcasts to."""
    if not A.batch:
        return A
    own = tuple(
        min(i, n - 1) for i, n in zip(place[len(batch) - len(A.batch) :], A.batch, strict=True)
    )
    if isinstance(A, Stencil):
        return A.like(A.coefficients[own])
    assert isinstance(A, PatternMatrix)
    return A.like(A.values[own])


def shifted(A: LinearMap, M: LinearMap, shift: float) -> LinearMap:
    """``A + shift M``, which the caller knows to be definite; for single maps of the same kind."""
    if isinstance(A, Stencil) and isinstance(M, Stencil):
        planes = A.coefficients.clone(memory_format=torch.contiguous_format)
        planes[A.offsets.index((0,) * A.dimension)] += shift * M.diagonal()
        return Stencil(planes, A.offsets, periodic=A.periodic, symmetric=True, definite=True)
    if not isinstance(A, PatternMatrix):
        raise InputError(f"modes of a {type(A).__name__} are not found")
    matrix = (A.to_scipy() + shift * M.to_scipy()).tocsr()
    matrix.sort_indices()
    return PatternMatrix(
        matrix.indptr,
        matrix.indices,
        torch.from_numpy(matrix.data),
        symmetric=True,
        definite=True,
        near_nullspace=A.near_nullspace,
        block=A.block,
    )
