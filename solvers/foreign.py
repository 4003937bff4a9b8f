"""Other people's matrices and preconditioners as linear maps.

What a user hands over as ``M`` may be anything that takes r to z ~ A^-1 r. Its claims cannot be
read off, so that the map is tagged untrusted: Krylov methods probe it or watch it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap, SparseMatrix
from sciml.core.stencil_matrix import stencil_of
from sciml.solvers.inverse import Inverse
from sciml.solvers.preconditioner import setup_preconditioner


def as_map(A: Any, shape: Sequence[int] | None = None) -> LinearMap:
    """``A`` as a LinearMap: one already, a LinearSystem's, or a matrix (n, n).

    Matrices: SciPy's sparse ones and arrays, NumPy arrays, PETSc's on one process. ``shape``: the
    grid that a matrix lives on, which makes a Stencil of it. Raises InputError for anything else.
    """
    if isinstance(A, LinearMap):
        operator = A
    elif isinstance(getattr(A, "A", None), LinearMap):
        operator = A.A
    elif scipy.sparse.issparse(A) or (isinstance(A, np.ndarray) and A.ndim == 2):
        operator = SparseMatrix(A)
    elif hasattr(A, "getValuesCSR"):
        operator = SparseMatrix(_petsc_matrix(A))
    else:
        raise InputError(
            f"A must be a LinearMap, a LinearSystem or a sparse matrix; got {type(A).__name__}"
        )
    if shape is None or (not isinstance(operator, SparseMatrix) and operator.shape == tuple(shape)):
        return operator
    if not isinstance(operator, SparseMatrix):
        raise InputError(
            f"shape is for matrices; this operator's own is {operator.shape}, not {tuple(shape)}",
            "shape",
        )
    return stencil_of(operator, shape)


def _petsc_matrix(A: Any) -> scipy.sparse.csr_matrix:
    indptr, indices, values = A.getValuesCSR()
    rows, columns = A.getSize()
    if len(indptr) != rows + 1:
        raise InputError("a PETSc matrix spread over several processes cannot be taken; run on one")
    return scipy.sparse.csr_matrix((values, indices, indptr), shape=(rows, columns))


def as_preconditioner(M: Any, A: LinearMap) -> LinearMap | None:
    """``M`` as a LinearMap: options set up for A, a LinearMap, None, or foreign code.

    Foreign code: a matrix or LinearOperator of SciPy's (n, n), or a function of a tensor of shape
    (*batch, *A.shape) in A's dtype or better. Raises InputError for anything else.
    """
    if M is None or isinstance(M, (LinearMap, type)) or hasattr(M, "setup"):
        return setup_preconditioner(M, A)
    if callable(M) and not hasattr(M, "matvec"):
        return Foreign(A, M)
    try:
        operator = scipy.sparse.linalg.aslinearoperator(M)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"M must be a preconditioner's options such as Multigrid(), a LinearMap, a matrix, a "
            f"LinearOperator or a function; got {type(M).__name__}",
            "M",
        ) from error
    if operator.shape != (A.size, A.size):
        raise InputError(
            f"M has shape {operator.shape}; A has {A.size} unknowns, so {(A.size, A.size)} is "
            "needed",
            "M",
        )
    return Foreign(A, _by_rows(operator.matvec, A.size), _by_rows(operator.rmatvec, A.size))


Function = Callable[[torch.Tensor], Any]


class Foreign(Inverse):
    """A user's function as a map, claimed to be linear, symmetric and definite, and untrusted."""

    trusted = False

    def __init__(self, A: LinearMap, function: Function, transposed: Function | None = None):
        super().__init__(A, symmetric=True, definite=True)
        self.function, self.transposed = function, transposed

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``M u``; InputError where the image has not the shape or the field of u."""
        return self._call(self.function, u)

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``M^T u``; InputError where only a function is known."""
        if self.transposed is None:
            raise InputError("a function given as preconditioner has no adjoint")
        return self._call(self.transposed, u)

    def _call(self, function: Function, u: torch.Tensor) -> torch.Tensor:
        given = u.to(torch.promote_types(u.dtype, self.dtype))
        # A copy: the function may overwrite what it gets, or hand it back.
        image = function(given.clone() if given is u else given)
        try:
            z = torch.as_tensor(image)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the preconditioner returned {type(image).__name__}", "M") from error
        if z.shape != u.shape:
            raise InputError(
                f"the preconditioner took shape {list(u.shape)} and returned {list(z.shape)}", "M"
            )
        if z.is_complex() and not given.is_complex():
            raise InputError("the preconditioner made complex numbers of real ones", "M")
        return z.detach().to(given.device, given.dtype)


def _by_rows(function: Callable[[np.ndarray], np.ndarray], size: int) -> Function:
    def apply(u: torch.Tensor) -> torch.Tensor:
        rows = u.detach().cpu().reshape(-1, size).numpy()
        images = np.stack([np.asarray(function(row.copy())).reshape(-1) for row in rows])
        return torch.from_numpy(images).reshape(u.shape)

    return apply
