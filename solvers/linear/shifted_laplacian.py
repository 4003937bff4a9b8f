"""The complex shifted Laplacian: a preconditioner for the Helmholtz equation by multigrid.

    A = -div(K grad u) - k^2 u,      M = -div(K grad u) - (1 + i beta) k^2 u.

Multigrid fails on A, whose coarse grids know waves of another length, but not on M, whose waves die
out (Erlangga, Vuik and Oosterlee 2004; 2006): one cycle for M inside GMRES. The sign of the shift
is that of waves as exp(-i omega t), in which a lossy medium has Im k^2 > 0.

k^2 is read off the stencil: a row of a discretised -div(K grad u) sums to zero, so that what a row
lacks, times the control volume, is k^2. The transfers are those of the real diffusion part, which
black-box multigrid makes from its stencil; the coarse operators are Galerkin products. Damped
Jacobi smooths stably on every level, those included where a wave has no two points left;
Gauss-Seidel does not. Coarsening ends early, where a factorisation is cheap: the better M is
solved, the smaller beta may be, and the fewer the iterations (Gander, Graham and Spence 2015).

Sides without a Dirichlet value need their points on the coarse grids too, or a wave's phase is lost
there. Coarse points lie at odd indices, so before such a side 2^L - 1 rows that are linked to
nothing are put, which takes its points to odd indices on all L coarsened levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciml.core.algebra import kernels
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.stencil import Stencil
from sciml.core.algebra.transfer import Transfer
from sciml.core.errors import InputError
from sciml.solvers.linear.direct import Direct
from sciml.solvers.linear.inverse import Inverse

_DAMPING = 0.6
_COARSEST = {1: 70_000, 2: 70_000, 3: 10_000}  # unknowns, by dimension, factorised in about 1 s
_SMALL = 1000  # unknowns up to which nothing is coarsened
_SHORTEST = 5  # points of an axis that is still coarsened
# A row's surplus, relative to its diagonal, from which it is taken for one beside a Dirichlet side.
_LINKED = 0.2
_DTYPES = {"complex64": torch.complex64, "complex128": torch.complex128}


@dataclass(frozen=True)
class ShiftedLaplacian:
    """One multigrid cycle for the shifted Laplacian, as ``GMRES(preconditioner=...)`` takes it.

    ``beta``: the shift; 0.5 in the papers, where every level smooths, less with a coarsest grid
    that still sees the waves. ``cycle``: V, or W. ``sweeps`` of damped Jacobi before and after each
    coarse correction. ``dtype`` of the cycle.
    """

    kind: Literal["shifted_laplacian"] = "shifted_laplacian"
    beta: float = 0.2
    cycle: Literal["V", "W"] = "V"
    sweeps: int = 1
    dtype: Literal["complex64", "complex128"] = "complex64"

    def __post_init__(self) -> None:
        for name, least in (("beta", 0.0), ("sweeps", 1)):
            if not getattr(self, name) >= least:
                raise InputError(
                    f"shifted_laplacian: {name} must be at least {least:g}; "
                    f"got {getattr(self, name):g}",
                    f"solver.preconditioner.{name}",
                )

    @torch.no_grad()
    def setup(self, A: LinearMap) -> ShiftedCycle:
        """Build the hierarchy; raises InputError unless A is a complex stencil."""
        if not isinstance(A, Stencil) or not A.dtype.is_complex:
            raise InputError(
                "shifted_laplacian needs the complex stencil of a Helmholtz equation; use "
                "multigrid for a real stencil, direct for a matrix",
                "solver.preconditioner",
            )
        return ShiftedCycle(A, self)


@dataclass(frozen=True, eq=False)
class _Level:
    """A coarsened level: the operator, the transfer below, and the damped inverse diagonal."""

    A: Stencil
    P: Transfer
    step: torch.Tensor

    def relax(self, x: torch.Tensor, b: torch.Tensor) -> None:
        """x += damping D^-1 (b - A x)."""
        r = kernels.of(x).apply(self.A, x)
        x.add_(torch.sub(b, r, out=r).mul_(self.step))


class ShiftedCycle(Inverse):
    """The cycle as a linear map; the transposed map is itself where A is complex symmetric."""

    def __init__(self, A: Stencil, options: ShiftedLaplacian) -> None:
        super().__init__(A, symmetric=False, definite=False)
        self.A, self.options = A, options
        diffusion, mass = split(A)
        factors = _plan(A)
        self.pads = _pads(A, diffusion, factors)
        shifted = A.coefficients.clone()
        shifted.select(-A.dimension - 1, _centre(A)).sub_(1j * options.beta * mass)
        current = _padded(_like(A, shifted), self.pads).to(_DTYPES[options.dtype])
        real = _padded(diffusion, self.pads).to(current.coefficients.real.dtype)
        self.levels = []
        for factor in factors:
            P = kernels.of(real.coefficients).interpolate(real, factor)
            step = _DAMPING * current.diagonal().reciprocal()
            self.levels.append(_Level(current, P, step))
            current, real = _complex_galerkin(current, P), _galerkin(real, P)
        self.coarsest = Direct().setup(current.to(torch.complex128))

    @torch.no_grad()
    def apply(self, u: torch.Tensor) -> torch.Tensor:
        """One cycle from a zero guess; u (*batch, *shape), real or complex."""
        d = len(self.shape)
        lead = torch.broadcast_shapes(self.batch, u.shape[:-d])
        b = u.to(_DTYPES[self.options.dtype]).expand(*lead, *self.shape)
        b = torch.nn.functional.pad(b, _reach(self.pads)).contiguous()
        inner: Any = (..., *(slice(n, None) for n in self.pads))
        return self._cycle(0, b)[inner].to(self.dtype)

    def _cycle(self, index: int, b: torch.Tensor) -> torch.Tensor:
        if index == len(self.levels):
            return self.coarsest.apply(b).to(b.dtype)
        level, twin = self.levels[index], kernels.of(b)
        x = b * level.step
        for _ in range(self.options.sweeps - 1):
            level.relax(x, b)
        d = len(self.shape)
        right = b.new_empty(*b.shape[:-d], *level.P.shape)
        # The coarsest solve is exact, so that a second visit would find nothing left to do.
        twice = self.options.cycle == "W" and index + 1 < len(self.levels)
        for _ in range(2 if twice else 1):
            twin.restrict_residual(level.A, level.P, x, b, right)
            twin.prolong_add(level.P, x, self._cycle(index + 1, right))
        for _ in range(self.options.sweeps):
            level.relax(x, b)
        return x

    def adjoint(self, u: torch.Tensor) -> torch.Tensor:
        """``B^H u``; raises InputError where A is not equal to its transpose."""
        gap = self.A.transpose().coefficients - self.A.coefficients
        if bool(gap.abs().max() > 1e-12 * self.A.coefficients.abs().max()):
            raise InputError("this nonsymmetric cycle has no adjoint; use direct or jacobi")
        return self.apply(u.conj()).conj().resolve_conj()


def split(A: Stencil) -> tuple[Stencil, torch.Tensor]:
    """The real diffusion part of a Helmholtz stencil, and k^2 times the control volumes.

    In rows beside a Dirichlet side the link to it hides k^2, which is then taken as zero.
    """
    d, centre = A.dimension, _centre(A)
    planes = A.coefficients.real.contiguous().clone()
    total = planes.sum(-d - 1)
    planes.select(-d - 1, centre).sub_(total.clamp(max=0.0))
    return _like(A, planes, symmetric=True), (-total).clamp(min=0.0)


def _centre(A: Stencil) -> int:
    return A.offsets.index((0,) * A.dimension)


def _like(A: Stencil, planes: torch.Tensor, symmetric: bool = False) -> Stencil:
    return Stencil(planes, A.offsets, periodic=A.periodic, symmetric=symmetric)


def _plan(A: Stencil) -> list[tuple[int, ...]]:
    """Which axes each level coarsens, by 2, until few enough unknowns are left; once at least."""
    shape = list(A.shape)
    plan: list[tuple[int, ...]] = []
    while torch.Size(shape).numel() > (_COARSEST[A.dimension] if plan else _SMALL):
        factors = tuple(
            2 if n >= _SHORTEST and not (ring and n % 2) else 1
            for n, ring in zip(shape, A.periodic, strict=True)
        )
        if max(factors) == 1:
            break
        plan.append(factors)
        shape = [(n + 1) // 2 if f == 2 else n for n, f in zip(shape, factors, strict=True)]
    return plan


def _pads(A: Stencil, diffusion: Stencil, plan: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Rows put before each axis, such that its first point is one of every coarse grid."""
    d = A.dimension
    surplus = diffusion.coefficients.sum(-d - 1) / diffusion.diagonal()
    pads = []
    for axis in range(d):
        first = float(surplus.select(axis - d, 0).mean())
        depth = sum(factors[axis] == 2 for factors in plan)
        pads.append(0 if A.periodic[axis] or first > _LINKED else 2**depth - 1)
    return tuple(pads)


def _reach(pads: tuple[int, ...]) -> tuple[int, ...]:
    """The pads as ``torch.nn.functional.pad`` wants them: last axis first, before and after."""
    return tuple(n for pad in reversed(pads) for n in (pad, 0))


def _padded(A: Stencil, pads: tuple[int, ...]) -> Stencil:
    """``A`` with decoupled rows before it, which hold 1 on the diagonal."""
    if not any(pads):
        return A
    d = A.dimension
    planes = torch.nn.functional.pad(A.coefficients, _reach(pads))
    centre = planes.select(-d - 1, _centre(A))
    for axis, pad in enumerate(pads):
        centre.narrow(axis - d, 0, pad).fill_(1.0)
    return _like(A, planes, A.symmetric)


def _galerkin(A: Stencil, P: Transfer) -> Stencil:
    return kernels.of(A.coefficients).galerkin(A, P)


def _complex_galerkin(A: Stencil, P: Transfer) -> Stencil:
    """P^T A P of a complex stencil and a real prolongation, part by part."""
    parts = [
        _galerkin(_like(A, part.contiguous()), P)
        for part in (A.coefficients.real, A.coefficients.imag)
    ]
    return _like(parts[0], torch.complex(parts[0].coefficients, parts[1].coefficients))
