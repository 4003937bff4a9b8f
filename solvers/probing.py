"""What a preconditioner is, found by applying it to random vectors.

A conjugate gradient method needs ``M`` to be linear, symmetric and positive definite. On random
vectors u, v: M(a u + v) = a M u + M v, <M u, v> = <u, M v>, and the Rayleigh-Ritz values of M on
the span of the probes are positive. A batch is probed as one block-diagonal map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciml.core.errors import InputError
from sciml.core.linear import LinearMap
from sciml.solvers.foreign import as_map, as_preconditioner

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
    if operator.dtype.is_complex:
        raise InputError("check_preconditioner probes real operators; this one is complex")
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
    noise = torch.randn((probes, size), generator=generator, dtype=torch.float64)
    # Residuals of random errors are rough: beside white noise they probe the top of the spectrum.
    rough = torch.stack([_flat_apply(A, u) for u in noise])
    inputs = torch.cat([noise, rough / rough.norm(dim=1, keepdim=True).clamp(min=1e-300)])
    inputs = inputs / inputs.norm(dim=1, keepdim=True)
    if A.nullspace:
        inputs = torch.stack([_without_mean(A, u) for u in inputs])
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
    """``M`` as a function of flat float64 tensors."""

    def apply(u: torch.Tensor) -> torch.Tensor:
        image = M.apply(u.reshape(*A.batch, *A.shape).to(A.device))
        image = image.flatten().to("cpu", torch.float64, copy=True)
        # With a kernel of constants an image counts up to a constant, which may be any number.
        return _without_mean(A, image) if A.nullspace else image

    return apply


def _flat_apply(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    image = A.apply(u.reshape(*A.batch, *A.shape).to(A.device))
    return image.flatten().to("cpu", torch.float64)


def _without_mean(A: LinearMap, u: torch.Tensor) -> torch.Tensor:
    samples = u.reshape(-1, A.size)
    return (samples - samples.mean(dim=1, keepdim=True)).flatten()


def _gap(u: torch.Tensor, v: torch.Tensor) -> float:
    return float((u - v).norm() / v.norm().clamp(min=1e-300))


def _largest(values: Any) -> float:
    """The maximum, infinite where one is not a number."""
    return max(v if v == v else math.inf for v in values)


def _linearity_defect(
    action: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, images: torch.Tensor
) -> float:
    # A factor far from one finds maps that are positively homogeneous only near where they learned.
    return _largest(
        _gap(action(-3.7 * inputs[i] + inputs[i + 1]), -3.7 * images[i] + images[i + 1])
        for i in range(len(inputs) - 1)
    )


def _symmetry_defect(inputs: torch.Tensor, images: torch.Tensor) -> float:
    images = images / _scale(images)
    products = images @ inputs.T
    scale = images.norm(dim=1)[:, None] * inputs.norm(dim=1)[None, :]
    defects = (products - products.T).abs() / scale.clamp(min=1e-300)
    # <M u, v> of random vectors is smaller than its bound by about sqrt(n): undone here.
    return float(defects.max()) * inputs.shape[1] ** 0.5


def _ritz_values(inputs: torch.Tensor, images: torch.Tensor) -> tuple[float, float]:
    # No more probes than dimensions, and of those the independent ones.
    scale, dimensions = _scale(images), inputs.shape[1]
    inputs, images = inputs[:dimensions], images[:dimensions] / scale
    basis, triangle = torch.linalg.qr(inputs.T)
    usable = triangle.diagonal().abs() > 1e-10
    if not bool(usable.all()):
        basis, images = inputs[usable].T, images[usable]
        basis, triangle = torch.linalg.qr(basis)
    projected = torch.linalg.solve_triangular(triangle, basis.T @ images.T, upper=True, left=False)
    values = torch.linalg.eigvalsh((projected + projected.T) / 2) * scale
    return float(values[0]), float(values[-1])


def _scale(images: torch.Tensor) -> float:
    return max(float(images.abs().max()), 1e-300)
