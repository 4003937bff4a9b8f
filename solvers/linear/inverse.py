"""Approximate inverses as linear maps: what a preconditioner's ``setup`` returns.

    z = B r,      B ~ A^-1,

with the tags that a Krylov method looks at: symmetric, definite, linear.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearMap, without_kernel
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError

Action = Callable[[np.ndarray], np.ndarray]


class Inverse(LinearMap):
    """An approximate inverse of ``A``; a leaf gives ``apply`` and ``adjoint``.

    Shape, batch, device and nullspace are those of ``A``; vectors are float64, complex128 for a
    complex ``A``. ``notes``: one-line remarks of the set-up, for the user.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        A: LinearMap,
        *,
        symmetric: bool,
        definite: bool,
        hermitian: bool = False,
        linear: bool = True,
    ) -> None:
        self.shape, self.batch, self.device = A.shape, A.batch, A.device
        self.dtype = torch.promote_types(A.dtype, torch.float64)
        self.symmetric, self.definite, self.linear = symmetric, definite, linear
        self.nullspace, self.kernel, self.hermitian = A.nullspace, A.kernel, hermitian

    @abstractmethod
    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``B u``; u (*batch, *shape)."""

    @abstractmethod
    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``B^T u``, conjugated where A is complex; u (*batch, *shape)."""

    def diagonal(self) -> torch.Tensor:
        """The diagonal, shape (*batch, *shape), from one application per unknown."""
        unit = torch.eye(self.size, dtype=self.dtype, device=self.device)
        lead = (self.size, *(1 for _ in self.batch), *self.shape)
        columns = self.apply(unit.reshape(lead).expand(self.size, *self.batch, *self.shape))
        flat = columns.reshape(self.size, *self.batch, self.size)
        return flat.diagonal(dim1=0, dim2=-1).reshape(*self.batch, *self.shape)

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """The dense matrix in sparse storage, for small maps; InputError for a batch."""
        if self.batch:
            raise InputError(
                f"a batch of {self.batch} maps is no single SciPy matrix; index it first"
            )
        unit = torch.eye(self.size, dtype=self.dtype, device=self.device)
        columns = self.apply(unit.reshape(self.size, *self.shape)).reshape(self.size, self.size)
        return scipy.sparse.csr_matrix(columns.T.cpu().numpy())


class PerSample(Inverse):
    """One action per sample of ``A``, on NumPy arrays (n, columns), applied in a loop.

    ``actions`` and ``adjoints`` hold one callable per sample in row-major order of ``A.batch``;
    ``adjoints`` is None where there is no exact one.
    """

    def __init__(
        self,
        A: LinearMap,
        actions: Sequence[Action],
        adjoints: Sequence[Action] | None,
        *,
        symmetric: bool,
        definite: bool,
        hermitian: bool = False,
    ) -> None:
        super().__init__(A, symmetric=symmetric, definite=definite, hermitian=hermitian)
        self.actions, self.adjoints = actions, adjoints

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``B u``; u (*batch, *shape)."""
        return self._map(self.actions, u)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``B^T u``, conjugated where A is complex; u (*batch, *shape)."""
        if self.adjoints is None:
            raise InputError("this nonsymmetric cycle has no adjoint; use direct or jacobi")
        return self._map(self.adjoints, u)

    def _map(self, actions: Sequence[Action], u: torch.Tensor) -> torch.Tensor:
        if u.is_complex() and not self.dtype.is_complex:
            return torch.complex(self._map(actions, u.real), self._map(actions, u.imag))
        lead = u.shape[: u.ndim - len(self.shape)]
        dtype = torch.promote_types(u.dtype, self.dtype)
        rows = u.detach().to("cpu", dtype).reshape(-1, self.size).numpy()
        which = np.arange(len(actions)).reshape(self.batch)
        which = np.broadcast_to(which, lead).ravel()
        result = np.empty_like(rows)
        for k, action in enumerate(actions):
            mine = which == k
            result[mine] = action(rows[mine].T).T
        return torch.from_numpy(result).reshape(u.shape).to(u.device)


def projected(A: LinearMap, columns: np.ndarray) -> np.ndarray:
    """Columns (n, samples) without the kernel of a singular A."""
    rows = torch.from_numpy(np.array(columns.T, order="C")).reshape(-1, *A.shape)
    return without_kernel(A, rows).flatten(1).numpy().T


def matrices(A: LinearMap) -> list[scipy.sparse.csr_matrix]:
    """One SciPy matrix per sample of ``A``; InputError where a batch cannot be taken apart."""
    if not A.batch:
        return [_finite(A.to_scipy())]
    if isinstance(A, PatternMatrix):
        return [_finite(matrix) for matrix in A.matrices()]
    if not isinstance(A, Stencil):
        raise InputError("only a batch of stencils can be taken apart into matrices")
    return [
        _finite(Stencil(A.coefficients[index], A.offsets, periodic=A.periodic).to_scipy())
        for index in np.ndindex(*A.batch)
    ]


def _finite(matrix: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    if not np.isfinite(matrix.data).all():
        raise InputError("the matrix holds a NaN or an infinity; look for one in the coefficients")
    return matrix.astype(np.complex128 if matrix.dtype.kind == "c" else np.float64)
