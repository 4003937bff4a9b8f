"""Preconditioners in other people's Krylov methods, and a check of what they are.

A conjugate gradient method needs ``M`` to be linear, symmetric and positive definite. On random
vectors u, v: M(a u + v) = a M u + M v, <M u, v> = <u, M v>, and the Rayleigh-Ritz values of M on
the span of the probes are positive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap, SparseMatrix
from sciml.solvers.preconditioner import setup_preconditioner


def as_scipy(preconditioner: Any, A: Any) -> scipy.sparse.linalg.LinearOperator:
    """``M ~ A^-1`` as a LinearOperator (n, n), for SciPy's and PyAMG's Krylov methods.

    float64, or complex128 where A is complex.

    ``preconditioner``: options such as ``Multigrid()``, or a LinearMap. ``A``: a LinearMap without
    batch, a LinearSystem or a SciPy sparse matrix. Vectors are in row-major order of ``A.shape``.
    """
    operator = _as_map(A)
    if operator.batch:
        raise InputError(
            f"as_scipy takes one operator; this one is a batch of shape {list(operator.batch)}"
        )
    M = setup_preconditioner(preconditioner, operator)
    if M is None:
        raise InputError("as_scipy needs a preconditioner; got None")
    size = (operator.size, operator.size)
    return scipy.sparse.linalg.LinearOperator(
        size,
        matvec=_on_vectors(M.apply, operator),
        rmatvec=_on_vectors(M.adjoint, operator),
        dtype=_vectors(operator),
    )


@dataclass(frozen=True)
class PreconditionerReport:
    """What random probes found; the defects are relative (0 is perfect).

    ``smallest`` and ``largest`` are the extreme Rayleigh-Ritz values of M on the probes.
    """

    linear: bool
    symmetric: bool
    definite: bool
    deterministic: bool
    linearity_defect: float
    symmetry_defect: float
    repetition_defect: float
    smallest: float
    largest: float

    @property
    def suits(self) -> tuple[str, ...]:
        """The Krylov methods whose assumptions on a preconditioner hold."""
        fixed = self.linear and self.deterministic
        if fixed and self.symmetric and self.definite:
            return "cg", "fcg", "minres", "bicgstab", "gmres"
        flexible = ("fcg", "gmres") if self.definite else ("gmres",)
        return ("bicgstab", *flexible) if fixed else flexible

    def __str__(self) -> str:
        found = ", ".join(
            name if getattr(self, name) else f"not {name}"
            for name in ("linear", "symmetric", "definite", "deterministic")
        )
        return f"preconditioner: {found}; suits {', '.join(self.suits)}"


def check_preconditioner(
    M: Any, A: Any, *, probes: int = 8, seed: int = 0, tolerance: float = 1e-5
) -> PreconditionerReport:
    """Whether ``M`` is linear, symmetric, positive definite and deterministic, by random probes.

    ``M``: options such as ``Multigrid()``, a LinearMap, a SciPy LinearOperator or matrix, or a
    function of a float64 tensor of shape ``A.shape``. ``tolerance``: the relative defect allowed;
    the default leaves room for float32 inside.
    """
    operator = _as_map(A)
    if operator.batch:
        raise InputError(
            f"check_preconditioner takes one operator; this is a batch of {list(operator.batch)}"
        )
    if operator.dtype.is_complex:
        raise InputError("check_preconditioner probes real operators; this one is complex")
    action = _action(M, operator)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((probes, operator.size), generator=generator, dtype=torch.float64)
    # Residuals of random errors are rough: beside white noise they probe the top of the spectrum.
    rough = torch.stack([_flat_apply(operator, u) for u in noise])
    inputs = torch.cat([noise, rough / rough.norm(dim=1, keepdim=True).clamp(min=1e-300)])
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    if operator.nullspace:
        inputs = inputs - inputs.mean(dim=1, keepdim=True)
    images = torch.stack([action(u) for u in inputs])
    repeated = max(_gap(action(u), w) for u, w in zip(inputs[:2], images[:2], strict=True))
    linearity = _linearity_defect(action, inputs, images)
    symmetry = _symmetry_defect(inputs, images)
    low, high = _ritz_values(inputs, images)
    return PreconditionerReport(
        linear=linearity <= tolerance,
        symmetric=symmetry <= tolerance,
        definite=low > 0,
        deterministic=repeated <= 1e-12,
        linearity_defect=linearity,
        symmetry_defect=symmetry,
        repetition_defect=repeated,
        smallest=low,
        largest=high,
    )


def _as_map(A: Any) -> LinearMap:
    if isinstance(A, LinearMap):
        return A
    if isinstance(getattr(A, "A", None), LinearMap):
        return A.A
    if scipy.sparse.issparse(A) or isinstance(A, np.ndarray):
        return SparseMatrix(A)
    raise InputError(
        f"A must be a LinearMap, a LinearSystem or a sparse matrix; got {type(A).__name__}"
    )


def _vectors(A: LinearMap) -> type[np.number]:
    return np.complex128 if A.dtype.is_complex else np.float64


def _on_vectors(
    function: Callable[[torch.Tensor], torch.Tensor], A: LinearMap
) -> Callable[[np.ndarray], np.ndarray]:
    @torch.no_grad()
    def apply(vector: np.ndarray) -> np.ndarray:
        values = np.ascontiguousarray(vector, dtype=_vectors(A)).reshape(A.shape)
        image = function(torch.from_numpy(values.copy()).to(A.device)).cpu().numpy()
        return image.astype(_vectors(A)).reshape(-1)

    return apply


def _action(M: Any, A: LinearMap) -> Callable[[torch.Tensor], torch.Tensor]:
    """``M`` as a function of flat float64 tensors."""
    if isinstance(M, LinearMap) or hasattr(M, "setup"):
        prepared = setup_preconditioner(M, A)
        assert prepared is not None
        on_vectors = _on_vectors(prepared.apply, A)
    elif callable(M) and not hasattr(M, "matvec"):
        on_vectors = _on_vectors(M, A)
    else:
        on_vectors = scipy.sparse.linalg.aslinearoperator(M).matvec

    def apply(u: torch.Tensor) -> torch.Tensor:
        image = torch.from_numpy(np.array(on_vectors(u.numpy()), dtype=np.float64))
        # With a kernel of constants an image counts up to a constant, which may be any number.
        return image - image.mean() if A.nullspace else image

    return apply


def _flat_apply(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    return A.apply(u.reshape(A.shape).to(A.device)).flatten().to("cpu", torch.float64)


def _gap(u: torch.Tensor, v: torch.Tensor) -> float:
    return float((u - v).norm() / v.norm().clamp(min=1e-300))


def _linearity_defect(
    action: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, images: torch.Tensor
) -> float:
    # A factor far from one finds maps that are positively homogeneous only near where they learned.
    return max(
        _gap(action(-3.7 * inputs[i] + inputs[i + 1]), -3.7 * images[i] + images[i + 1])
        for i in range(len(inputs) - 1)
    )


def _symmetry_defect(inputs: torch.Tensor, images: torch.Tensor) -> float:
    products = images @ inputs.T
    scale = images.norm(dim=1)[:, None] * inputs.norm(dim=1)[None, :]
    # <M u, v> of random vectors is smaller than its bound by about sqrt(n): undone here.
    return float(((products - products.T).abs() / scale).max()) * inputs.shape[1] ** 0.5


def _ritz_values(inputs: torch.Tensor, images: torch.Tensor) -> tuple[float, float]:
    basis, triangle = torch.linalg.qr(inputs.T)
    usable = triangle.diagonal().abs() > 1e-10
    if not bool(usable.all()):
        # Few unknowns: more probes than dimensions; keep the independent ones.
        basis, images = inputs[usable].T, images[usable]
        basis, triangle = torch.linalg.qr(basis)
    projected = torch.linalg.solve_triangular(triangle, basis.T @ images.T, upper=True, left=False)
    values = torch.linalg.eigvalsh((projected + projected.T) / 2)
    return float(values[0]), float(values[-1])
