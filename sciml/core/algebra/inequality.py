"""Inequalities: u between two bounds, and F(u) = 0 where it touches neither.

    l <= u <= h,    F(u)_i >= 0 where u_i = l_i,    F(u)_i <= 0 where u_i = h_i,    else F(u)_i = 0,

as one equation whose residual is zero at the solution alone (Hintermueller, Ito and Kunisch 2003),

    Phi(u)_i = c_i (u_i - l_i)    where u_i - F(u)_i / c_i < l_i,
             = c_i (u_i - h_i)    where u_i - F(u)_i / c_i > h_i,
             = F(u)_i             elsewhere,

c > 0 the diagonal of dF/du, so that bounds and forces are measured in one unit. F is what holds u
back: the multiplier, a contact force.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sciml.core.algebra.kernels.reference import shifted
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import Inequality, NonlinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError


def between(free: NonlinearSystem, lower: torch.Tensor, upper: torch.Tensor) -> NonlinearSystem:
    """The steady system ``free`` with its unknowns between bounds (*batch, *shape): Phi(u) = 0.

    Raises InputError where F does not change with the level of u, which bounds would hold.
    """
    if free.level is not None:
        raise InputError(
            "nothing but an obstacle holds the level of u, on which K depends: give a dirichlet or "
            "robin condition",
            "problem.boundary",
        )
    start = torch.zeros(free.shape, dtype=torch.float64).clamp(lower.detach(), upper.detach())
    diagonal = free.linearise(start, 0.0).detach().diagonal().abs()
    if free.guess is not None:
        # Where K vanishes with the slopes nothing is stiff at the start.
        diagonal = torch.maximum(diagonal, free.guess.A.detach().diagonal().abs())
    usable = torch.isfinite(diagonal) & (diagonal > 0)
    c = torch.where(usable, diagonal, torch.ones_like(diagonal))
    held = Inequality(free, lower, upper, c)

    def residual(u: torch.Tensor, t: float) -> torch.Tensor:
        F = free.residual(u, t)
        below, above = touching(held, u, F)
        # What is infinite is never chosen, but its gradient would be no number.
        low, high = (torch.where(torch.isfinite(v), v, 0.0) for v in (lower, upper))
        return torch.where(below, c * (u - low), torch.where(above, c * (u - high), F))

    def derivative(J: LinearMap, u: torch.Tensor, t: float) -> LinearMap:
        below, above = touching(held, u, free.residual(u, t))
        return with_rows(J, below | above, c)

    batch = torch.broadcast_shapes(free.batch, lower.shape[: -len(free.shape)])
    return replace(
        free,
        residual=residual,
        linearise=lambda u, t: derivative(free.linearise(u, t), u, t),
        diffusion=lambda u, t: derivative(free.diffusion(u, t), u, t),
        batch=tuple(batch),
        potential=None,
        affine=False,
        symmetric=False,
        freezes=False,
        guess=None,
        measure=None,
        inequality=held,
    )


def touching(
    held: Inequality, u: torch.Tensor, F: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where u would pass the lower and the upper bound if F were followed, (*batch, *shape)."""
    ahead = u.detach() - F.detach() / held.weights
    return ahead < held.lower.detach(), ahead > held.upper.detach()


def with_rows(
    A: LinearMap, held: torch.Tensor, c: torch.Tensor, columns: bool = False
) -> LinearMap:
    """A with c on the diagonal of the rows ``held`` (*batch, *shape) and nothing else there.

    ``columns``: their columns too are emptied, which keeps A symmetric and definite.
    """
    keep = (~held).to(A.dtype)
    stopped = bool(held.flatten(-len(A.shape)).any(-1).all())
    return _changed(
        A,
        keep,
        keep if columns else torch.ones((), dtype=A.dtype),
        torch.where(held, c, 0.0),
        symmetric=columns and A.symmetric,
        definite=columns and (A.definite or (A.nullspace and stopped)),
    )


def with_springs(A: LinearMap, stiffness: torch.Tensor) -> LinearMap:
    """A + diag(stiffness), which is not negative, (*batch, *shape)."""
    one = torch.ones((), dtype=A.dtype)
    stopped = bool((stiffness > 0).flatten(-len(A.shape)).any(-1).all())
    definite = A.definite or (A.nullspace and stopped)
    return _changed(A, one, one, stiffness, symmetric=A.symmetric, definite=definite)


def _changed(
    A: LinearMap,
    left: torch.Tensor,
    right: torch.Tensor,
    added: torch.Tensor,
    *,
    symmetric: bool,
    definite: bool,
) -> LinearMap:
    """diag(left) A diag(right) + diag(added), each (*batch, *shape) or of shape ()."""
    if isinstance(A, PatternMatrix):
        rows, columns = A.places()
        near = A.near_nullspace
        if near is not None and left.ndim == 1:
            near = left.numpy()[:, None] * near
        left, right = (v if v.ndim == 0 else v[..., i] for v, i in ((left, rows), (right, columns)))
        values = A.values * left * right + torch.where(rows == columns, added[..., rows], 0.0)
        return PatternMatrix(
            A.indptr,
            A.columns,
            values,
            symmetric=symmetric,
            definite=definite,
            near_nullspace=near,
        )
    if not isinstance(A, Stencil):
        raise InputError("an obstacle is for one field on a grid, or for any on a mesh")
    planes = []
    for offset in A.offsets:
        plane = A.entry(offset) * left
        plane = plane * (right if right.ndim == 0 else shifted(right, offset, A.periodic))
        planes.append(plane if any(offset) else plane + added)
    return Stencil(
        torch.stack(list(torch.broadcast_tensors(*planes)), -A.dimension - 1),
        A.offsets,
        periodic=A.periodic,
        symmetric=symmetric,
        definite=definite,
    )
