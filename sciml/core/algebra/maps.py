"""Linear maps with leading batch dimensions, and linear systems made of them.

A map acts on arrays ``(*batch, *shape)``; a solver looks only at ``apply`` and the tags.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse
import torch

from sciml.core.errors import InputError

if TYPE_CHECKING:
    from sciml.core.problem.grid import Grid
    from sciml.core.problem.mesh import Mesh
    from sciml.core.problem.problem import Problem


class LinearMap(ABC):
    """A linear operator from arrays ``(*batch, *shape)`` to arrays of the same shape.

    Tags: ``symmetric``; ``definite`` (positive definite, or semidefinite with ``nullspace``);
    ``nullspace`` (True where constants are in the kernel); ``linear`` (False for a learned or
    truncated map that is not linear: Krylov methods then need a flexible variant); ``trusted``
    (False where weights or foreign code decide what the map is: a Krylov method then probes the
    other tags, and a flexible one falls back from the map where it fails).
    """

    shape: tuple[int, ...]
    batch: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    symmetric: bool
    definite: bool
    nullspace: bool
    linear: bool = True
    trusted: bool = True
    # (n, k) vectors that the map makes small, such as rigid motions, and unknowns per node: what
    # algebraic multigrid can use.
    near_nullspace: np.ndarray | None = None
    block: int = 1

    @abstractmethod
    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u`` for ``u`` of shape (*batch, *shape), in ``u``'s dtype or better."""

    def apply_into(self, u: torch.Tensor, out: torch.Tensor) -> None:
        """``out = A u``; maps that can do so without allocating say so by their own version."""
        out.copy_(self.apply(u))

    def apply_scaled(
        self, u: torch.Tensor, norms: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``A u = factor v`` as (v, factor per sample), given the norms of u.

        v may be of lower precision than u, and is overwritten by the next call.
        """
        return self.apply(u), torch.ones_like(norms)

    def first_guess(self, b: torch.Tensor) -> torch.Tensor | None:
        """Of an approximate inverse: a guess at the solution, closer to it than one application.

        ``b``: the right-hand side. None where the map has no such guess.
        """
        return None

    @property
    def work_units(self) -> float | None:
        """Of an approximate inverse: the cost of one application, in those of what it inverts.

        None where the map does not count it.
        """
        return None

    @property
    def first_guess_units(self) -> float:
        """What ``first_guess`` costs, in the same unit."""
        return 0.0

    @abstractmethod
    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u`` (``A^H u`` where complex), such that <A u, v> = <u, A^T v> over ``shape``."""

    @abstractmethod
    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (*batch, *shape)."""

    @abstractmethod
    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix in row-major (C) order of ``shape``; raises InputError for a batch."""

    def transpose(self) -> LinearMap:
        """The adjoint as a map of its own; for a symmetric one, the map itself."""
        if self.symmetric:
            return self
        raise InputError(
            f"a gradient through a nonsymmetric {type(self).__name__} needs its transpose"
        )

    def detach(self) -> LinearMap:
        """The same map without a graph for gradients."""
        return self

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient is wanted with respect to the map itself."""
        return False

    @property
    def size(self) -> int:
        """Unknowns per sample."""
        return int(np.prod(self.shape))


class SparseMatrix(LinearMap):
    """A SciPy sparse matrix as a LinearMap on vectors of shape (n,); any batch leads.

    ``symmetric`` is found by comparing with the transpose unless given; ``definite`` is taken
    from the user, or guessed from symmetry and a positive diagonal.
    """

    def __init__(
        self,
        matrix: scipy.sparse.spmatrix | scipy.sparse.sparray | np.ndarray,
        *,
        symmetric: bool | None = None,
        definite: bool | None = None,
        nullspace: bool = False,
    ) -> None:
        try:
            csr = scipy.sparse.csr_matrix(matrix)
        except (TypeError, ValueError) as error:
            raise InputError(f"the matrix must hold numbers: {error}") from error
        if csr.shape[0] != csr.shape[1]:
            raise InputError(f"the matrix must be square; got {csr.shape[0]} x {csr.shape[1]}")
        if csr.dtype not in (np.float32, np.float64, np.complex64, np.complex128):
            csr = csr.astype(np.complex128 if csr.dtype.kind == "c" else np.float64)
        if not np.isfinite(csr.data).all():
            raise InputError("the matrix holds a NaN or an infinity; look for one in its entries")
        self.matrix = csr
        self.shape, self.batch = (csr.shape[0],), ()
        self.dtype = torch.from_numpy(self.matrix.data[:0].copy()).dtype
        self.device = torch.device("cpu")
        if symmetric is None:
            gap = abs(self.matrix - self.matrix.T)
            scale = abs(self.matrix).max() if self.matrix.nnz else 1.0
            symmetric = bool(gap.nnz == 0 or gap.max() <= 1e-12 * scale)
        self.symmetric = symmetric
        positive = bool((self.matrix.diagonal().real > 0).all())
        self.definite = symmetric and positive if definite is None else definite
        self.nullspace = nullspace

    def _times(self, matrix: scipy.sparse.csr_matrix, u: torch.Tensor) -> torch.Tensor:
        flat = u.detach().reshape(-1, self.size).numpy()
        return torch.from_numpy(np.ascontiguousarray((matrix @ flat.T).T)).reshape(u.shape)

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``A u``; u of shape (*batch, n)."""
        return self._times(self.matrix, u)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``A^T u``, the conjugate transpose where A is complex."""
        return self._times(self.matrix.conj().T.tocsr(), u)

    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (n,)."""
        return torch.from_numpy(np.ascontiguousarray(self.matrix.diagonal()))

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The matrix itself."""
        return self.matrix


@dataclass(frozen=True)
class LinearSystem:
    """``A x = b`` with what is needed to turn ``x`` back into a field.

    ``b``: (*batch, *A.shape) float64. ``lift`` maps the unknowns to the value on ``on`` (adding
    the boundary values known beforehand); ``restrict`` is its left inverse. ``notes``: one-line
    remarks of the discretisation, printed by the command line. ``defect``: for a singular
    system, what was subtracted per sample to make the data compatible, relative to the source.
    ``fields``: the names of the value's fields. ``problem``: what was discretised, None for a bare
    matrix. ``measure``: where the solution is free up to a constant, the volume that belongs to
    each entry of the value, over which its integral is then zero; None elsewhere.
    """

    A: LinearMap
    b: torch.Tensor
    on: Grid | Mesh | None = None
    lift: Callable[[torch.Tensor], torch.Tensor] = lambda x: x
    restrict: Callable[[torch.Tensor], torch.Tensor] = lambda value: value
    notes: tuple[str, ...] = ()
    defect: torch.Tensor | None = None
    fields: tuple[str, ...] = ("u",)
    problem: Problem | None = None
    measure: torch.Tensor | None = None

    def value(self, x: torch.Tensor) -> torch.Tensor:
        """The value on ``on`` for unknowns ``x``, of zero integral where a constant is free."""
        value = self.lift(x)
        if self.measure is None:
            return value
        return value - free_mean(value, self.measure, self.measure.ndim)


def free_mean(value: torch.Tensor, measure: torch.Tensor, dimension: int) -> torch.Tensor:
    """The mean of ``value`` over its last ``dimension`` axes, kept with size 1.

    Weighted by ``measure``, which broadcasts against the value; NaN does not count. Zero where the
    weights are zero: a field whose constant is not free.
    """
    weights = torch.where(torch.isfinite(value), measure.to(value), 0.0)
    dims = tuple(range(-dimension, 0))
    total = weights.sum(dims, keepdim=True)
    sums = (weights * torch.where(torch.isfinite(value), value, 0.0)).sum(dims, keepdim=True)
    return torch.where(total > 0, sums / torch.where(total > 0, total, 1.0), 0.0)
