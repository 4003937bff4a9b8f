"""Jacobi preconditioning: z_i = r_i / a_ii."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import scipy.sparse
import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap


@dataclass(frozen=True)
class Jacobi:
    """The inverse of the diagonal as a preconditioner; InputError for a zero on the diagonal."""

    kind: Literal["jacobi"] = "jacobi"

    def setup(self, A: LinearMap) -> DiagonalInverse:
        """Invert the diagonal."""
        return DiagonalInverse(A)


class DiagonalInverse(LinearMap):
    """``diag(A)^-1``; definite where every diagonal entry is positive."""

    def __init__(self, A: LinearMap) -> None:
        diagonal = A.diagonal().to(torch.promote_types(A.dtype, torch.float64))
        if bool((diagonal == 0).any()):
            raise InputError("jacobi needs a diagonal without zeros; use another preconditioner")
        self.shape, self.batch, self.device = A.shape, A.batch, A.device
        self.dtype = diagonal.dtype
        self.symmetric, self.nullspace = not self.dtype.is_complex, False
        self.definite = self.symmetric and bool((diagonal > 0).all())
        self.inverse = diagonal.reciprocal()

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``u / diag(A)``; u (*batch, *shape)."""
        return self.inverse * u

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """The same, conjugated where complex: a diagonal is symmetric."""
        return self.inverse.conj() * u

    def diagonal(self) -> torch.Tensor:
        """The reciprocals, shape (*batch, *shape)."""
        return self.inverse

    def to_scipy(self) -> scipy.sparse.csr_matrix:
        """A diagonal matrix; InputError for a batch."""
        if self.batch:
            raise InputError(f"a batch of {self.batch} maps is no single SciPy matrix")
        return scipy.sparse.diags(self.inverse.flatten().cpu().numpy()).tocsr()
