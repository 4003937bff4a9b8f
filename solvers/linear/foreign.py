"""Matrices and vectors of other programs as ours.

A matrix is a SciPy sparse one, an array or nested lists of numbers, a PETSc matrix on one process,
or a LinearOperator; a vector is whatever NumPy makes one of, a sparse column included. Both are
copied, so that what is set up stays true whatever its owner does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearMap, SparseMatrix
from sciml.core.algebra.stencil import stencil_of
from sciml.core.errors import InputError

_ENTRIES = 3000  # unknowns up to which the entries of a LinearOperator are computed


def is_matrix(A: Any) -> bool:
    """Whether ``A`` is what ``as_map`` takes for an operator: a right-hand side has to follow."""
    if isinstance(A, LinearMap) or scipy.sparse.issparse(A) or hasattr(A, "getValuesCSR"):
        return True
    return isinstance(A, (np.ndarray, torch.Tensor, list, scipy.sparse.linalg.LinearOperator))


def as_map(
    A: Any, shape: Sequence[int] | None = None, nullspace: bool | np.ndarray | None = None
) -> LinearMap:
    """``A`` as a LinearMap: one already, a LinearSystem's, or a matrix (n, n).

    Matrices: SciPy's sparse ones and arrays, NumPy arrays and lists, PETSc's on one process, and
    LinearOperators up to 3000 unknowns, whose entries are computed. ``shape``: the grid that a
    matrix lives on, which makes a Stencil of it. ``nullspace``: as of a SparseMatrix, in place of
    what the matrix is tagged with. Raises InputError for anything else.
    """
    if isinstance(A, LinearMap):
        operator = A
    elif isinstance(getattr(A, "A", None), LinearMap):
        operator = A.A
    elif scipy.sparse.issparse(A):
        operator = SparseMatrix(A)
    elif isinstance(A, scipy.sparse.linalg.LinearOperator):
        operator = SparseMatrix(_entries(A))
    elif isinstance(A, (np.ndarray, torch.Tensor, list)):
        operator = SparseMatrix(_dense(A))
    elif hasattr(A, "getValuesCSR"):
        operator = SparseMatrix(_petsc_matrix(A))
    else:
        raise InputError(
            f"A must be a LinearMap, a LinearSystem or a sparse matrix; got {type(A).__name__}"
        )
    if nullspace is not None:
        operator = _singular(operator, nullspace)
    if shape is None or (not isinstance(operator, SparseMatrix) and operator.shape == tuple(shape)):
        return operator
    if not isinstance(operator, SparseMatrix):
        raise InputError(
            f"shape is for matrices; this operator's own is {operator.shape}, not {tuple(shape)}",
            "shape",
        )
    return stencil_of(operator, shape)


def _singular(A: LinearMap, nullspace: Any) -> SparseMatrix:
    if not isinstance(A, SparseMatrix):
        raise InputError(
            f"nullspace is for matrices; a {type(A).__name__} says itself what its kernel is",
            "nullspace",
        )
    if nullspace is True:
        _singular(A, np.ones(A.size))
    return SparseMatrix(
        A.matrix,
        symmetric=A.symmetric,
        hermitian=A.hermitian,
        definite=A.definite,
        nullspace=nullspace,
        near_nullspace=A.near_nullspace,
        block=A.block,
    )


def as_vector(values: Any, name: str, A: LinearMap, *, flat: bool) -> torch.Tensor:
    """``values`` (..., n), or (n, 1), as a float64 or complex128 tensor (..., *A.shape).

    With ``flat`` False they have A's own shape already, which is then not looked at.
    """
    vector = as_numbers(values, name)
    if not flat:
        return vector
    if vector.shape == (A.size, 1):
        vector = vector.squeeze(-1)
    if vector.ndim == 0 or vector.shape[-1] != A.size:
        turned = vector.ndim == 2 and len(vector) == A.size
        hint = "; right-hand sides lie in rows: pass its transpose" if turned else ""
        raise InputError(
            f"{name} has shape {tuple(vector.shape)}; the matrix has {A.size} rows{hint}", name
        )
    return vector.reshape(*vector.shape[:-1], *A.shape)


def as_numbers(values: Any, name: str) -> torch.Tensor:
    """A tensor of float64 or complex128; InputError where the values are no numbers."""
    try:
        if isinstance(values, torch.Tensor):
            vector = values
        else:
            dense = values.toarray() if scipy.sparse.issparse(values) else np.asarray(values)
            if dense.dtype.kind not in "biufc":
                raise TypeError(dense.dtype)
            # A copy: torch takes no negative strides, no foreign order of bytes, nothing locked.
            field = np.complex128 if dense.dtype.kind == "c" else np.float64
            vector = torch.from_numpy(np.array(dense, dtype=field, order="C"))
        return vector.to(torch.promote_types(vector.dtype, torch.float64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must hold numbers; got {type(values).__name__}", name) from error


def _dense(A: Any) -> np.ndarray:
    try:
        matrix = np.asarray(A.detach().cpu() if isinstance(A, torch.Tensor) else A)
    except ValueError as error:
        raise InputError(f"the matrix must hold numbers: {error}", "A") from error
    if matrix.ndim != 2:
        raise InputError(f"A must be a matrix (n, n); got shape {matrix.shape}", "A")
    return matrix


def _entries(A: scipy.sparse.linalg.LinearOperator) -> np.ndarray:
    rows, columns = A.shape
    if rows != columns:
        raise InputError(f"the matrix must be square; got {rows} x {columns}", "A")
    if rows > _ENTRIES:
        raise InputError(
            f"the entries of a LinearOperator are not known, and {rows} unknowns are too many to "
            "find them; pass a sparse matrix, or use SciPy's gmres with M=sciml.as_scipy(...)",
            "A",
        )
    return np.asarray(A @ np.eye(rows))


def _petsc_matrix(A: Any) -> scipy.sparse.csr_matrix:
    indptr, indices, values = A.getValuesCSR()
    rows, _ = A.getSize()
    if len(indptr) != rows + 1:
        raise InputError("a PETSc matrix spread over several processes cannot be taken; run on one")
    return scipy.sparse.csr_matrix((values, indices, indptr), shape=A.getSize())
