"""Preconditioners from outside: wrapped, probed before the solve, replaced where they fail in it.

What a user hands over as ``M`` may be anything that takes r to z ~ A^-1 r. Its claims cannot be
read off, so that the map is tagged untrusted.

*Probed.* A conjugate gradient method needs ``M`` to be linear, symmetric and positive definite. On
random vectors u, v: M(a u + v) = a M u + M v, <M u, v> = <u, M v>, and the Rayleigh-Ritz values of
M on the span of the probes are positive. A batch is probed as one block-diagonal map.

*Safeguarded.* Flexible methods allow a change of M. A nonlinear or untrusted z = M r is dropped,
sample by sample and for the rest of the solve, once

    z holds a NaN or an infinity, or is zero;
    <r, z> <= 0, where the method needs a descent direction;
    the residual has not halved for some steps, and the best multiple of the classical map's z makes
    ||r - alpha A z|| smaller than that of M's.

Classical is multigrid on a stencil, Jacobi on a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.core.algebra.maps import LinearMap, without_kernel
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.solvers.linear.foreign import as_map
from sciml.solvers.linear.inverse import Inverse
from sciml.solvers.linear.iteration import Ledger, Outcome, dot, norm, spread
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.preconditioner import setup_preconditioner
from sciml.solvers.linear.relaxation import Jacobi


def as_preconditioner(M: Any, A: LinearMap) -> LinearMap | None:
    """``M`` as a LinearMap: options set up for A, a LinearMap, None, or foreign code.

    Untrusted code: a matrix or LinearOperator of SciPy's (n, n), or a function of a tensor of shape
    (*batch, *A.shape) in A's dtype or better. Raises InputError for anything else.
    """
    if M is None or isinstance(M, (LinearMap, type)) or hasattr(M, "setup"):
        return setup_preconditioner(M, A)
    if callable(M) and not hasattr(M, "matvec"):
        return Untrusted(A, M)
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
    return Untrusted(A, _by_rows(operator.matvec, A.size), _by_rows(operator.rmatvec, A.size))


Function = Callable[[torch.Tensor], Any]


class Untrusted(Inverse):
    """A user's function as a map, claimed to be linear, symmetric and definite, and untrusted."""

    trusted = False

    def __init__(self, A: LinearMap, function: Function, transposed: Function | None = None):
        super().__init__(A, symmetric=True, definite=True, hermitian=True)
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


_FEW = 2  # probes that a Krylov method spends on an untrusted preconditioner


@dataclass(frozen=True)
class PreconditionerReport:
    """What random probes found; the defects are relative (0 is perfect).

    ``smallest`` and ``largest`` are the extreme Rayleigh-Ritz values of M on the probes. Where an
    image holds a NaN or an infinity, ``finite`` is False, and so is everything else.
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
    finite: bool = True

    def meets(self, need: Literal["flexible", "linear", "definite"]) -> bool:
        """Whether it is what a Krylov method's ``traits.preconditioner`` asks for."""
        fixed = self.finite and self.linear and self.deterministic
        if need == "definite":
            return fixed and self.symmetric and self.definite
        return self.finite and (fixed or need == "flexible")

    @property
    def suits(self) -> tuple[str, ...]:
        """The Krylov methods whose assumptions on a preconditioner hold."""
        if self.meets("definite"):
            return "cg", "fcg", "minres", "bicgstab", "gmres"
        if not self.meets("flexible"):
            return ()
        flexible = ("fcg", "gmres") if self.definite else ("gmres",)
        return ("bicgstab", *flexible) if self.meets("linear") else flexible

    def __str__(self) -> str:
        if not self.finite:
            return "preconditioner: returns a NaN or an infinity; suits no method"
        found = ", ".join(
            name if getattr(self, name) else f"not {name}"
            for name in ("linear", "symmetric", "definite", "deterministic")
        )
        return f"preconditioner: {found}; suits {', '.join(self.suits)}"


def check_preconditioner(
    M: Any,
    A: Any,
    *,
    shape: Sequence[int] | None = None,
    probes: int = 8,
    seed: int = 0,
    tolerance: float = 2e-4,
) -> PreconditionerReport:
    """Whether ``M`` is linear, symmetric, positive definite and deterministic, by random probes.

    ``M``: options such as ``Multigrid()``, a LinearMap, a SciPy LinearOperator or matrix, or a
    function of a float64 tensor of shape ``A.shape``. ``A``, ``shape``: as in ``sciml.as_scipy``.
    ``tolerance``: the relative defect allowed; the default leaves room for float32 inside, where a
    multigrid cycle on independent cells of contrast 1e4 leaves 2e-5 on 63^2 of them, 7e-5 on 255^2
    and up to 2e-4 on 400^2 (in float64 1e-12). That much does not disturb CG.
    """
    operator = as_map(A, shape)
    if operator.dtype.is_complex and not operator.hermitian:
        raise InputError(
            "check_preconditioner probes real and Hermitian operators; this one is complex"
        )
    prepared = as_preconditioner(M, operator)
    if prepared is None:
        raise InputError("check_preconditioner needs a preconditioner; got None")
    return _probe(prepared, operator, probes, seed, tolerance)


@torch.no_grad()
def _probe(
    M: LinearMap, A: LinearMap, probes: int, seed: int, tolerance: float
) -> PreconditionerReport:
    action = _action(M, A)
    generator = torch.Generator().manual_seed(seed)
    size = A.size * math.prod(A.batch)
    dtype = torch.promote_types(A.dtype, torch.float64)
    noise = torch.randn((probes, size), generator=generator, dtype=dtype)
    # Residuals of random errors are rough: beside white noise they probe the top of the spectrum.
    rough = torch.stack([_flat_apply(A, u) for u in noise])
    inputs = torch.cat([noise, rough / rough.norm(dim=1, keepdim=True).clamp(min=1e-300)])
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    if A.nullspace:
        inputs = torch.stack([_projected(A, u) for u in inputs])
    images = torch.stack([action(u) for u in inputs])
    if not bool(torch.isfinite(images).all()):
        return PreconditionerReport(
            linear=False,
            symmetric=False,
            definite=False,
            deterministic=False,
            linearity_defect=math.nan,
            symmetry_defect=math.nan,
            repetition_defect=math.nan,
            smallest=math.nan,
            largest=math.nan,
            finite=False,
        )
    repeated = _largest(_gap(action(u), w) for u, w in zip(inputs[:2], images[:2], strict=True))
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


def require_suitable(
    kind: str, need: Literal["linear", "definite"], M: LinearMap | None, A: LinearMap
) -> None:
    """Refuse an untrusted preconditioner that a few probes find not to be what ``kind`` needs.

    InputError names what was found and a method whose assumptions hold.
    """
    if M is None or M.trusted:
        return
    report = check_preconditioner(M, A, probes=_FEW)
    if report.meets(need):
        return
    if not report.finite:
        raise InputError(
            f"{kind}: the preconditioner returns a NaN or an infinity; "
            "use another one, or fcg, which falls back to a classical one",
            "solver.preconditioner",
        )
    found = str(report).partition(": ")[2].partition(";")[0]
    raise InputError(
        f"{kind}: random probes found the preconditioner {found}; use {report.suits[0]}",
        "solver.preconditioner",
    )


def _action(M: LinearMap, A: LinearMap) -> Callable[[torch.Tensor], torch.Tensor]:
    """``M`` as a function of flat tensors, float64 or complex128."""

    def apply(u: torch.Tensor) -> torch.Tensor:
        image = M.apply(u.reshape(*A.batch, *A.shape).to(A.device))
        image = image.flatten().to("cpu", torch.promote_types(A.dtype, torch.float64), copy=True)
        # An image counts up to what is of the kernel, which may be anything.
        return _projected(A, image) if A.nullspace else image

    return apply


def _flat_apply(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    image = A.apply(u.reshape(*A.batch, *A.shape).to(A.device))
    return image.flatten().to("cpu", torch.promote_types(A.dtype, torch.float64))


def _projected(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    return without_kernel(A, u.reshape(-1, *A.shape).clone()).flatten()


def _gap(u: torch.Tensor, v: torch.Tensor) -> float:
    return float((u - v).norm() / v.norm().clamp(min=1e-300))


def _largest(values: Any) -> float:
    """The maximum, infinite where one is not a number."""
    return max(v if v == v else math.inf for v in values)


def _linearity_defect(
    action: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, images: torch.Tensor
) -> float:
    # A factor far from one finds maps that are positively homogeneous only near where they learned.
    factor: complex = -3.7 + 1.3j if inputs.is_complex() else -3.7
    return _largest(
        _gap(action(factor * inputs[i] + inputs[i + 1]), factor * images[i] + images[i + 1])
        for i in range(len(inputs) - 1)
    )


def _symmetry_defect(inputs: torch.Tensor, images: torch.Tensor) -> float:
    images = images / _scale(images)
    products = images @ inputs.mH
    scale = images.norm(dim=1)[:, None] * inputs.norm(dim=1)[None, :]
    defects = (products - products.mH).abs() / scale.clamp(min=1e-300)
    # <M u, v> of random vectors is smaller than its bound by about sqrt(n): undone here.
    root: float = inputs.shape[1] ** 0.5
    return float(defects.max()) * root


def _ritz_values(inputs: torch.Tensor, images: torch.Tensor) -> tuple[float, float]:
    # No more probes than dimensions, and of those the independent ones.
    scale, dimensions = _scale(images), inputs.shape[1]
    inputs, images = inputs[:dimensions], images[:dimensions] / scale
    basis, triangle = torch.linalg.qr(inputs.T)
    usable = triangle.diagonal().abs() > 1e-10
    if not bool(usable.all()):
        basis, images = inputs[usable].T, images[usable]
        basis, triangle = torch.linalg.qr(basis)
    projected = torch.linalg.solve_triangular(triangle, basis.mH @ images.T, upper=True, left=False)
    values = torch.linalg.eigvalsh((projected + projected.mH) / 2) * scale
    return float(values[0]), float(values[-1])


def _scale(images: torch.Tensor) -> float:
    return max(float(images.abs().max()), 1e-300)


PATIENCE = 20  # steps in which the residual must halve


@dataclass(frozen=True)
class Classical:
    """What takes over: set up when it is first needed, and kept for later solves."""

    A: LinearMap

    @cached_property
    def chosen(self) -> tuple[str, LinearMap | None]:
        """Name and map: multigrid, Jacobi, or the identity for a diagonal with zeros."""
        A = self.A
        suits = isinstance(A, Stencil) and not A.dtype.is_complex
        for options in (Multigrid(),) * (suits and (A.definite or not A.symmetric)) + (Jacobi(),):
            try:
                return options.kind, setup_preconditioner(options, A)
            except InputError:
                continue
        return "the identity", None

    def apply(self, r: torch.Tensor) -> torch.Tensor:
        """``z ~ A^-1 r``."""
        M = self.chosen[1]
        return r if M is None else M.apply(r).to(r.dtype)


class Guarded(Inverse):
    """``M`` until it fails, then the classical map; one object per solve.

    ``descent``: whether <r, z> must be positive, as conjugate gradients need it.
    """

    def __init__(self, A: LinearMap, M: LinearMap, classical: Classical, *, descent: bool) -> None:
        super().__init__(A, symmetric=False, definite=False, linear=False)
        self.A, self.M, self.classical, self.descent = A, M, classical, descent
        # What M's set-up has to say; ``events`` holds what was dropped in this solve, and why.
        self.notes = getattr(M, "notes", ())
        self.events: list[str] = []
        self._dropped = self._running = torch.zeros(())
        self._mark = self._marked_at = torch.zeros(())
        self._step: int | None = None

    def fresh(self) -> Guarded:
        """The same for another solve: nothing dropped yet."""
        return Guarded(self.A, self.M, self.classical, descent=self.descent)

    def watch(self, r: torch.Tensor, ledger: Ledger) -> None:
        """Look at the residual before a step: has it halved lately?"""
        norms, self._running, self._step = norm(r, len(self.shape)), ledger.running, ledger.count
        if ledger.count == 0 or self._mark.shape != norms.shape:
            self._mark, self._marked_at = norms, torch.full_like(ledger.iterations, ledger.count)
        halved = norms <= 0.5 * self._mark
        late = self._watched(r) & ~halved & (ledger.count - self._marked_at >= PATIENCE)
        if bool(late.any()):
            weak = self._reduction(self.classical.apply(r), r) > self._reduction(self.M.apply(r), r)
            self._drop(late & weak, f"did not halve the residual in {PATIENCE} steps")
        self._mark = torch.where(halved | late, norms, self._mark)
        self._marked_at = torch.where(halved | late, ledger.count, self._marked_at)

    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """``M u``, in the samples where M has been dropped the classical map's."""
        watched = self._watched(u)
        if bool(self._dropped.all()):
            return self.classical.apply(u)
        z = self.M.apply(u)
        if z.shape != u.shape:
            raise InputError(
                f"the preconditioner took shape {list(u.shape)} and returned {list(z.shape)}",
                "solver.preconditioner",
            )
        z, dimension = z.to(u.dtype), len(self.shape)
        size = norm(z, dimension)
        self._drop(watched & ~torch.isfinite(size), "returned a NaN or an infinity")
        self._drop(watched & (size == 0), "returned zero")
        if self.descent:
            self._drop(watched & (dot(z, u, dimension).real <= 0), "gave no direction of descent")
        if not bool(self._dropped.any()):
            return z
        return torch.where(spread(self._dropped, dimension), self.classical.apply(u), z)

    def blame(self, where: torch.Tensor) -> bool:
        """Drop M in the samples ``where``; whether it was still in use in one of them."""
        found = len(self.events)
        self._drop(where, "broke the method down")
        return len(self.events) > found

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """Of M itself."""
        return self.M.adjoint(u)

    def _watched(self, u: torch.Tensor) -> torch.Tensor:
        """The samples that run, have a residual, and still use M."""
        size = norm(u, len(self.shape))
        there = (size > 0) & torch.isfinite(size)
        if self._dropped.shape != there.shape or self._dropped.dtype != torch.bool:
            self._dropped = torch.zeros_like(there)
        if self._running.shape == there.shape and self._running.dtype == torch.bool:
            there = there & self._running
        return there & ~self._dropped

    def _reduction(self, z: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        """cos^2 of the angle between r and A z: what the best multiple of z removes of ||r||^2."""
        image, dimension = self.A.apply(z.to(r.dtype)), len(self.shape)
        cosine = dot(image, r, dimension).abs() / (norm(image, dimension) * norm(r, dimension))
        return cosine.square().nan_to_num(0.0)

    def _drop(self, where: torch.Tensor, reason: str) -> None:
        where = where & ~self._dropped
        if not bool(where.any()):
            return
        self._dropped = self._dropped | where
        count = where.numel()
        samples = f" in {int(where.sum())} of {count} samples" if count > 1 else ""
        step = "" if self._step is None else f" at step {self._step}"
        self.events.append(
            f"the preconditioner {reason}{step}{samples}; {self.classical.chosen[0]} took over"
        )


def guard(A: LinearMap, M: LinearMap | None, *, descent: bool) -> LinearMap | None:
    """``M``, watched where it is nonlinear or untrusted."""
    if M is None or isinstance(M, Guarded) or (M.linear and M.trusted):
        return M
    return Guarded(A, M, Classical(A), descent=descent)


def for_one_solve(M: LinearMap | None) -> LinearMap | None:
    """``M`` as a solve begins: a guard that has dropped nothing."""
    return M.fresh() if isinstance(M, Guarded) else M


def watch(M: LinearMap | None, r: torch.Tensor, ledger: Ledger) -> None:
    """Show a guard the residual; anything else needs none."""
    if isinstance(M, Guarded):
        M.watch(r, ledger)


def blamed(M: LinearMap | None, where: torch.Tensor) -> bool:
    """Drop a guarded ``M`` in the samples ``where`` of a breakdown; whether it was still in use."""
    return isinstance(M, Guarded) and M.blame(where)


def noted(result: Outcome, M: LinearMap | None) -> Outcome:
    """The result, with what a guard has seen."""
    return replace(result, notes=(*result.notes, *M.events)) if isinstance(M, Guarded) else result
