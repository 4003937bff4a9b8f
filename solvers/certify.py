"""How far any u is from the discrete solution: two-sided bounds in the energy norm.

Let A u* = f with A symmetric positive definite, r = f - A u, and B one symmetric multigrid
cycle in float64. With Galerkin coarse operators, an exact coarsest solve and adjoint smoothers,
I - B A is positive semidefinite in the energy inner product, so that the spectrum of B A lies in
[1 - rho, 1]:

    eta <= ||u* - u||_A <= eta / sqrt(1 - rho),      eta^2 = r . B r.

Multigrid-CG from u tightens both. With its step lengths a_j, slopes s_j = r_j . B r_j and
d_j = s_j / s_{j-1}, the Gauss-Radau rules with the node mu = 1 - rho (upper) or 1 (lower) give

    ||u* - u||_A^2 <=> sum_{j<k} a_j s_j + g_k s_k,
    g_0 = 1 / mu,   g_{j+1} = (g_j - a_j) / (mu (g_j - a_j) + d_{j+1})

(Golub and Meurant 1994; Meurant and Tichy 2013); k = 0 is the bound above.

1 - rho comes from the Lanczos process on B A with a random start r, as CG carries it out. Its Ritz
values theta_i are never below the spectrum, and the B-norm of its m-th residual is known:

    c^2 prod_i (1 - lambda / theta_i)^2 <= s_m,

with lambda the smallest eigenvalue and c the start's component along its eigenvector. Hence
lambda >= lambda*, where the left side equals s_m with a c that |c| is unlikely to be below (van
Dorsselaer, Hochstenbach and van der Vorst 2000, after Kuczynski and Wozniakowski 1992). The start
is r = (D + L) D^{-1/2} xi with xi normal: its covariance, the symmetric Gauss-Seidel matrix, is at
least B^{-1} for any number of sweeps, so that c is normal with variance at least 1, and
|c| < sqrt(pi / 2) p has probability at most p, whatever the operator. The process runs until
lambda* is close to theta_1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from sciml.core.certificate import Certificate
from sciml.core.errors import InputError
from sciml.core.grid import Grid
from sciml.core.kernels.reference import colours
from sciml.core.linear import LinearMap, LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.problem import Problem
from sciml.core.solution import Solution
from sciml.core.stencil import Stencil
from sciml.solvers.iteration import (
    axpy,
    dot,
    linear_system,
    ratio,
    remove_mean,
    singular_symmetric,
    xpay,
)
from sciml.solvers.multigrid import Multigrid

_CEILING = 1 + 1e-10  # the spectrum's upper end, with room for rounding
_LANCZOS_STEPS = 200  # where the process ends even if the margin is not met
_EXHAUSTED = 1e-30  # slopes below this share of the first are rounding, not Lanczos coefficients
_CHECK = 4  # Lanczos steps between two looks at the Ritz values


@torch.no_grad()
def certify(
    u: torch.Tensor | np.ndarray | Solution,
    problem: Problem | LinearSystem,
    on: Grid | Mesh | None = None,
    *,
    steps: int = 0,
    margin: float = 0.1,
    probability: float = 1e-3,
    seed: int = 0,
) -> Certificate:
    """Two-sided bounds of the energy-norm distance from ``u`` to the discrete solution.

    ``u``: values on the grid, (*batch, *grid), from anywhere; on Dirichlet nodes and in holes they
    are not looked at. ``steps`` of multigrid-CG tighten both bounds. 1 - rho is lowered by at most
    ``margin`` of itself where 200 Lanczos steps allow it; ``probability`` is the chance that this
    is too little. For a singular system u counts up to a constant. Raises InputError for an
    operator that is not symmetric definite or no stencil, and for a ``u`` of another shape.
    """
    if steps < 0:
        raise InputError(f"certify: steps must be at least 0; got {steps}")
    for name, value in (("margin", margin), ("probability", probability)):
        if not 0 < value < 1:
            raise InputError(f"certify: {name} must lie between 0 and 1; got {value:g}")
    system = linear_system(problem, on)
    A = _definite(system.A)
    x, b = torch.broadcast_tensors(_unknowns(u, system), system.b.double())
    r = b - A.apply(x.contiguous())
    if singular_symmetric(A):
        remove_mean(r, A.dimension)
    B = Multigrid(dtype="float64").setup(A)
    floor, used = _smallest_eigenvalue(A, B, margin, probability, seed)
    low, high = _error_squared(A, B, r, floor.expand(r.shape[: r.ndim - A.dimension]), steps)
    # ||u*||^2 = ||u* - u||^2 + 2 f.u - u.Au, so the relative error is a function of the error.
    gain = dot(x, b + r, A.dimension)
    ends = torch.stack([_relative(low, gain), _relative(high, gain)])
    return Certificate(
        low.sqrt(), high.sqrt(), ends.amin(0), ends.amax(0), 1 - floor, used, probability, steps
    )


def _definite(A: LinearMap) -> Stencil:
    """A itself; InputError, naming why, where the bounds do not hold for it."""
    if not A.symmetric:
        raise InputError(
            "certify needs a symmetric operator and this one is not (advection?): "
            "its energy norm does not exist"
        )
    if not A.definite:
        raise InputError(
            "certify needs a positive definite operator and this one is not tagged so "
            "(a negative reaction c?)"
        )
    if not isinstance(A, Stencil):
        raise InputError("certify needs a stencil on a tensor grid, not a sparse matrix")
    return A.to(torch.float64)


def _unknowns(u: torch.Tensor | np.ndarray | Solution, system: LinearSystem) -> torch.Tensor:
    value = torch.as_tensor(u.value if isinstance(u, Solution) else u).detach().double()
    shape = system.A.shape if system.on is None else system.on.shape
    if tuple(value.shape[value.ndim - len(shape) :]) != tuple(shape):
        raise InputError(
            f"u has shape {list(value.shape)}; it needs {list(shape)}, any batch dimensions first"
        )
    if isinstance(u, Solution):
        value = value.nan_to_num(0.0)  # inside holes, which hold no unknowns
    x = system.restrict(value.to(system.b.device))
    if not bool(torch.isfinite(x).all()):
        raise InputError("u holds a NaN or an infinity")
    try:
        torch.broadcast_shapes(x.shape, system.b.shape)
    except RuntimeError:
        batch = list(system.b.shape[: system.b.ndim - len(system.A.shape)])
        raise InputError(
            f"u has shape {list(value.shape)}; its batch does not fit the problem's {batch}"
        ) from None
    return x


def _relative(error: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    """sqrt(error / (error + gain)), infinite where the solution's norm may vanish."""
    whole = error + gain
    share = torch.where(whole > 0, error / whole, torch.inf)
    return torch.where(error > 0, share, 0.0).sqrt()


def _conjugate_gradients(
    A: Stencil, B: LinearMap, r: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Slopes s_j and step lengths a_j of preconditioned CG for A e = r, zero once r is."""
    r, d = r.clone(), A.dimension
    project = singular_symmetric(A)

    def preconditioned() -> torch.Tensor:
        z = B.apply(r)
        return remove_mean(z, d) if project else z

    z = preconditioned()
    p, slope = z.clone(), dot(r, z, d)
    while True:
        q = A.apply(p)
        alpha = ratio(slope, dot(p, q, d), slope > 0)
        yield slope, alpha
        axpy(-alpha, q, r)
        z = preconditioned()
        following = dot(r, z, d)
        xpay(z, ratio(following, slope, slope > 0), p)
        slope = following


def _error_squared(
    A: Stencil, B: LinearMap, r: torch.Tensor, floor: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The Gauss-Radau bounds of e . A e for A e = r."""
    nodes = torch.stack([torch.full_like(floor, _CEILING), floor])
    weights, total = nodes.reciprocal(), torch.zeros_like(floor)
    before = None
    for step, (slope, alpha) in enumerate(_conjugate_gradients(A, B, r)):
        if before is not None:
            gap = (weights - before[1]).clamp(min=0.0)
            ran = (before[0] > 0) & (slope > 0)
            fall = ratio(slope, before[0], ran)
            weights = torch.where(ran, gap / (nodes * gap + fall), 0.0)
        if step == steps:
            low, high = total + weights * slope
            return low, high
        total = total + alpha * slope
        before = slope, alpha
    raise AssertionError("conjugate gradients never end by themselves")


def _smallest_eigenvalue(
    A: Stencil, B: LinearMap, margin: float, probability: float, seed: int
) -> tuple[torch.Tensor, float]:
    """A probable lower bound of the spectrum of B A per operator, and the largest margin in it."""
    start = _random_start(A, seed)
    slopes: list[torch.Tensor] = []
    alphas: list[torch.Tensor] = []
    for step, (slope, alpha) in enumerate(_conjugate_gradients(A, B, start), 1):
        slopes.append(slope)
        alphas.append(alpha)
        ended = not bool((slope > _EXHAUSTED * slopes[0]).any()) or step >= _LANCZOS_STEPS
        if step == 1 or (step % _CHECK and not ended):
            continue
        pairs = [
            _probable_bound(s, a, probability)
            for s, a in zip(_columns(slopes), _columns(alphas), strict=True)
        ]
        used = max(share for _, share in pairs)
        if used <= margin or ended:
            floor = torch.tensor([bound for bound, _ in pairs], dtype=torch.float64)
            return floor.reshape(A.batch).to(A.device), used
    raise AssertionError("conjugate gradients never end by themselves")


def _columns(scalars: list[torch.Tensor]) -> np.ndarray:
    """One row of scalars per sample."""
    return torch.stack([s.flatten() for s in scalars], dim=-1).cpu().numpy()


def _random_start(A: Stencil, seed: int) -> torch.Tensor:
    """The start (D + L) D^{-1/2} xi, L the part of A below the diagonal in the colours' order."""
    generator = torch.Generator().manual_seed(seed)
    xi = torch.randn((*A.batch, *A.shape), generator=generator, dtype=torch.float64)
    y = xi.to(A.device) * A.diagonal().rsqrt()
    seen, r = torch.zeros_like(y), torch.empty_like(y)
    for colour in colours(A.shape, A.periodic):
        where: tuple[Any, ...] = (..., *colour)
        seen[where] = y[where]
        r[where] = A.apply(seen)[where]
    return remove_mean(r, A.dimension) if singular_symmetric(A) else r


def _probable_bound(
    slopes: np.ndarray, alphas: np.ndarray, probability: float
) -> tuple[float, float]:
    """lambda* and its distance below theta_1, relative to it; see the module."""
    spent = slopes <= _EXHAUSTED * slopes[0]
    m = int(np.argmax(spent)) if spent.any() else len(slopes) - 1
    a, falls = alphas[:m], slopes[1:m] / slopes[: m - 1]
    diagonal = 1 / a
    diagonal[1:] += falls / a[:-1]
    ritz = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(np.sqrt(falls) / a[:-1], -1))
    theta = min(float(ritz[0]), 1.0)
    # Beyond rounding the recursive slopes fall on; what they stand for does not.
    end = max(float(slopes[m]), _EXHAUSTED * float(slopes[0]))
    target = math.log(end) - 2 * math.log(math.sqrt(math.pi / 2) * probability)
    low, high = 0.0, theta
    for _ in range(60):
        middle = (low + high) / 2
        size = 2 * float(np.log(np.maximum(np.abs(1 - middle / ritz), 1e-300)).sum())
        low, high = (middle, high) if size > target else (low, middle)
    return low, 1 - low / theta
