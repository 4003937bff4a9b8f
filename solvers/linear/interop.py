"""This package in other people's programs: their matrices here, our preconditioners there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.errors import InputError
from sciml.core.run.solution import Solution
from sciml.solvers.linear.foreign import as_map, as_vector
from sciml.solvers.linear.iteration import LinearSolver
from sciml.solvers.linear.krylov import CG, FCG
from sciml.solvers.linear.safeguard import (
    Guarded,
    as_preconditioner,
    check_preconditioner,
    guard,
)
from sciml.solvers.solve import solve

Action = Callable[[np.ndarray], np.ndarray]


def cg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    M: Any = None,
    shape: Sequence[int] | None = None,
    rtol: float = 1e-8,
    maxiter: int = 10_000,
    throw: bool = True,
) -> Solution:
    """``sciml.solve(A, b, CG(M, rtol, maxiter))``, called as ``scipy.sparse.linalg.cg``.

    ``A``: a sparse or dense matrix (n, n), a LinearMap or a LinearSystem. ``b``: (n,) or (n, 1), or
    a batch of right-hand sides (*batch, n); NumPy or torch. ``x0``: a first guess. ``M``: options
    such as ``Multigrid()``, a LinearMap, a SciPy matrix or LinearOperator, or a function of a
    tensor; untrusted ones are probed, and refused with the name of the method to use where they are
    not linear, symmetric and positive definite. ``shape``: the grid that a matrix lives on.

    The Solution holds the value (*batch, n), float64, its Status, the true residual and the
    iterations. ``throw``: raise SolveError where the tolerance is not met.
    """
    return _solve(CG, A, b, x0, M, shape, rtol, maxiter, throw)


def fcg(
    A: Any,
    b: Any,
    x0: Any = None,
    *,
    M: Any = None,
    shape: Sequence[int] | None = None,
    rtol: float = 1e-8,
    maxiter: int = 10_000,
    throw: bool = True,
) -> Solution:
    """``sciml.cg``'s flexible sister: ``M`` may be nonlinear or change from step to step.

    A nonlinear or untrusted ``M`` is watched; where it fails a classical one takes over and
    ``Solution.notes`` says so. The arguments are those of ``sciml.cg``.
    """
    return _solve(FCG, A, b, x0, M, shape, rtol, maxiter, throw)


def as_scipy(
    preconditioner: Any,
    A: Any,
    *,
    shape: Sequence[int] | None = None,
    flexible: bool = False,
) -> scipy.sparse.linalg.LinearOperator:
    """``M ~ A^-1`` as a LinearOperator (n, n), for SciPy's and PyAMG's Krylov methods.

    float64, or complex128 where A is complex.

    ``preconditioner``: options such as ``Multigrid()``, a LinearMap or a function. ``A``: a
    LinearMap without batch, a LinearSystem or a SciPy sparse matrix. Vectors are in row-major order
    of ``A.shape``. ``shape``: the grid that a matrix lives on, which is then read back as a
    stencil; multigrid needs one. ``flexible``: whether the method allows a preconditioner that is
    not linear (``scipy.sparse.linalg.gcrotmk``, ``pyamg.krylov.fgmres``); others get none such.
    """
    operator, M = _prepared(preconditioner, A, shape, flexible, "as_scipy")
    actions = _Actions(preconditioner, operator, M, flexible)
    return scipy.sparse.linalg.LinearOperator(
        (operator.size, operator.size),
        matvec=actions.forward,
        rmatvec=actions.backward,
        dtype=_vectors(operator),
    )


class _Actions:
    """``M`` on NumPy vectors; pickled as what it was made of, and set up anew where unpickled."""

    def __init__(self, given: Any, A: LinearMap, M: LinearMap, flexible: bool) -> None:
        self._given = given, A, flexible
        self._forward, self._backward = _on_vectors(M.apply, M, A), _on_vectors(M.adjoint, M, A)

    def forward(self, x: np.ndarray) -> np.ndarray:
        """``M x``."""
        return self._forward(x)

    def backward(self, x: np.ndarray) -> np.ndarray:
        """``M^H x``."""
        return self._backward(x)

    def __reduce__(self) -> tuple[Any, ...]:
        return _set_up_anew, self._given


def _set_up_anew(given: Any, A: LinearMap, flexible: bool) -> _Actions:
    _, M = _prepared(given, A, None, flexible, "as_scipy")
    return _Actions(given, A, M, flexible)


def as_petsc(
    preconditioner: Any,
    A: Any,
    *,
    shape: Sequence[int] | None = None,
    flexible: bool = False,
) -> PythonPC:
    """``M ~ A^-1`` as the context of a PETSc preconditioner of type python.

        ksp.setPC(PETSc.PC().createPython(sciml.as_petsc(Multigrid(), A, shape=(n, n))))

    ``A``: also a PETSc matrix, on one process. ``flexible``: whether the KSP allows a
    preconditioner that is not linear (``fcg``, ``fgmres``). The rest is as in ``as_scipy``.
    """
    operator, M = _prepared(preconditioner, A, shape, flexible, "as_petsc")
    return PythonPC(_on_vectors(M.apply, M, operator), _on_vectors(M.adjoint, M, operator))


class PythonPC:
    """What petsc4py's ``PC.setPythonContext`` takes; vectors are read and written in place."""

    def __init__(self, action: Action, transposed: Action) -> None:
        self._action, self._transposed = action, transposed

    def apply(self, pc: Any, x: Any, y: Any) -> None:
        """``y = M x``, x and y PETSc vectors."""
        y.setArray(self._action(x.getArray(readonly=True)))

    def applyTranspose(self, pc: Any, x: Any, y: Any) -> None:
        """``y = M^T x``, x and y PETSc vectors."""
        y.setArray(self._transposed(x.getArray(readonly=True)))


def _solve(
    kind: Callable[..., LinearSolver],
    A: Any,
    b: Any,
    x0: Any,
    M: Any,
    shape: Sequence[int] | None,
    rtol: float,
    maxiter: int,
    throw: bool,
) -> Solution:
    operator = as_map(A, shape)
    solver = kind(preconditioner=as_preconditioner(M, operator), rtol=rtol, max_iterations=maxiter)
    # A LinearMap's own arrays keep their shape; a matrix's vectors are laid out on its grid.
    flat = not (isinstance(A, LinearMap) or isinstance(getattr(A, "A", None), LinearMap))
    right = as_vector(b, "b", operator, flat=flat)
    guess = None if x0 is None else as_vector(x0, "x0", operator, flat=flat)
    dimension = len(operator.shape)
    lift = (lambda x: x.flatten(-dimension)) if flat else (lambda x: x)
    return solve(LinearSystem(operator, right, lift=lift), solver, initial=guess, throw=throw)


def _prepared(
    preconditioner: Any, A: Any, shape: Sequence[int] | None, flexible: bool, name: str
) -> tuple[LinearMap, LinearMap]:
    operator = as_map(A, shape)
    if operator.batch:
        raise InputError(
            f"{name} takes one operator; this one is a batch of shape {list(operator.batch)}"
        )
    M = as_preconditioner(preconditioner, operator)
    if M is None:
        raise InputError(f"{name} needs a preconditioner; got None")
    if not flexible:
        _require_linear(name, M, operator)
    guarded = guard(operator, M, descent=False)
    assert guarded is not None
    return operator, guarded


def _require_linear(name: str, M: LinearMap, A: LinearMap) -> None:
    linear = M.linear
    if linear and not M.trusted and not A.dtype.is_complex:
        report = check_preconditioner(M, A, probes=2)
        linear = report.linear and report.deterministic
        if not report.finite:
            raise InputError(f"{name}: {report}", "preconditioner")
    if not linear:
        raise InputError(
            f"{name}: the preconditioner is not linear, so that cg, minres, bicgstab and plain "
            "gmres would fail silently; use sciml.fcg, or a flexible method (SciPy's gcrotmk, "
            "PyAMG's fgmres, PETSc's fcg or fgmres) and say flexible=True",
            "preconditioner",
        )


def _vectors(A: LinearMap) -> type[np.number]:
    return np.complex128 if A.dtype.is_complex else np.float64


def _on_vectors(
    function: Callable[[torch.Tensor], torch.Tensor], M: LinearMap, A: LinearMap
) -> Action:
    """``function``, which is M's, on NumPy vectors; a warning where a guard has replaced M."""

    @torch.no_grad()
    def apply(vector: np.ndarray) -> np.ndarray:
        if np.iscomplexobj(vector) and not A.dtype.is_complex:
            return apply(vector.real) + 1j * apply(vector.imag)
        values = np.array(vector, dtype=_vectors(A)).reshape(A.shape)
        seen = len(M.events) if isinstance(M, Guarded) else 0
        image = function(torch.from_numpy(values).to(A.device)).cpu().numpy()
        if isinstance(M, Guarded):
            for event in M.events[seen:]:
                warnings.warn(event, RuntimeWarning, stacklevel=2)
        return image.astype(_vectors(A), copy=False).reshape(-1)

    return apply
