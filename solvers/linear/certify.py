"""How far any u is from the discrete solution: two-sided bounds in the energy norm.

Let A u* = f with A symmetric positive definite, r = f - A u, e = u* - u. For any v,

    (v . r) / ||v||_A <= ||e||_A,      ||e||_A^2 = v . (r + r_v) + ||e - v||_A^2,   r_v = r - A v.

Let B be one symmetric multigrid cycle in float64. In exact arithmetic the spectrum of B A lies in
[1 - rho, 1]. Conjugate gradients preconditioned by it, from u, give v: that of one step more than
``steps`` below (the first alone is at least eta^2 = r . B r), that of ``steps`` above, where the
rest is bounded by the Gauss-Radau rule with the node mu = 1 - rho: with CG's step lengths a_j,
slopes s_j = r_j . B r_j and d_j = s_j / s_{j-1},

    ||e - v_k||_A^2 <= g_k s_k,
    g_0 = 1 / mu,   g_{j+1} = (g_j - a_j) / (mu (g_j - a_j) + d_{j+1})

(Golub and Meurant 1994; Meurant and Tichy 2013). For k = 0 the upper bound is eta / sqrt(1 - rho).

1 - rho comes from the Lanczos process on B A with a random start r, as CG carries it out. Its Ritz
values theta_i are never below the spectrum, and the B-norm of its m-th residual is known:

    c^2 prod_i (1 - lambda / theta_i)^2 <= s_m,

with lambda the smallest eigenvalue and c the start's component along its eigenvector. Hence
lambda >= lambda*, where the left side equals s_m with a c that |c| is unlikely to be below (van
Dorsselaer, Hochstenbach and van der Vorst 2000, after Kuczynski and Wozniakowski 1992). The start
is r = (D + L) D^{-1/2} xi with xi normal: its covariance, the symmetric Gauss-Seidel matrix, is at
least B^{-1} for any number of sweeps, so that c is normal with variance at least 1, and
|c| < sqrt(pi / 2) p has probability at most p, whatever the operator. The process runs until
lambda* is close to theta_1. With D > 0 and a positive definite coarsest inverse B is positive
definite for any symmetric A, so that the same inequality excludes eigenvalues below zero.

Rounding. r, r_v and the products with v are evaluated in extended precision, once. With W the row
sums of |A| and gamma = (entries of a row + log2 n + 2) eps, their errors are at most (Higham 2002,
sections 3.1 and 12.1)

    |error of r| <= w = gamma (|A| |u| + |f|),      |error of v . A v| <= gamma v . W v,

which moves ||e||_A by at most ||w||_{A^-1} <= sqrt(kappa w . W^{-1} w), with the norm of the
inverse kappa = max v . W v / v . A v. The Lanczos directions p_j estimate it from below, by
p_j . W p_j / p_j . A p_j: B of a random vector is rich in what A makes small. Tenfold, it is what
is used. What the recursive residual has lost of the true one (Greenbaum 1997), d = r_v - r_k, is
added by the triangle inequality, ||d||_{A^-1} <= sqrt(d . B d / mu). In the process itself a
product with A is wrong by tau_j = gamma p_j . W p_j / p_j . A p_j of its energy, and local
orthogonality is lost by omega_j = |r_{j+1} . B r_j| / s_j, on which alone such estimates depend in
finite precision (Strakos and Tichy 2002): lambda* is lowered, and the rest raised, by their sums.
Where tau exceeds 1e-5 the process is repeated with products in extended precision. Where a tenth
of lambda* is lost all the same there is no upper bound, and the certificate says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import scipy.sparse.linalg
import torch

from sciml.core.algebra.kernels.reference import colours
from sciml.core.algebra.maps import LinearMap, LinearSystem, without_kernel
from sciml.core.algebra.stencil import Stencil
from sciml.core.errors import InputError
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.run.certificate import Certificate, PdeCertificate
from sciml.core.run.solution import Solution
from sciml.solvers.linear.equilibrated import Function, certify_pde
from sciml.solvers.linear.iteration import (
    axpy,
    dot,
    linear_system,
    ratio,
    singular_symmetric,
    xpay,
)
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.multigrid.cycle import MultigridCycle
from sciml.solvers.linear.multigrid.hierarchy import samples

_EXTENDED = np.longdouble
_LANCZOS_STEPS = 200  # where the process ends even if the margin is not met
_EXHAUSTED = 1e-30  # slopes below this share of the first are rounding, not Lanczos coefficients
_CHECK = 4  # Lanczos steps between two looks at the Ritz values
_PLAIN = 1e-5  # the rounding of products in double precision above which they are extended
_LEAST = 1e-140  # a number whose square is near the end of the range of numbers
_LOST = 0.1  # the share of lambda* above which rounding leaves no upper bound
_SAFETY = 10.0  # of the estimate of kappa
_COMPATIBLE = 1e-8  # of a right-hand side: so much along the kernel is rounding
_INDEFINITE = 1e-6  # a coarse eigenvalue below minus this share of the largest is no rounding


@overload
def certify(
    u: torch.Tensor | np.ndarray | Solution,
    problem: Problem | LinearSystem,
    on: Grid | Mesh | None = None,
    *,
    of: Literal["discrete"] = "discrete",
    steps: int = 0,
    margin: float = 0.1,
    probability: float = 1e-3,
    seed: int = 0,
) -> Certificate: ...


@overload
def certify(
    u: torch.Tensor | np.ndarray | Solution | Function,
    problem: Problem | LinearSystem,
    on: Grid | Mesh | None = None,
    *,
    of: Literal["pde"],
) -> PdeCertificate: ...


@torch.no_grad()
def certify(
    u: torch.Tensor | np.ndarray | Solution | Function,
    problem: Problem | LinearSystem,
    on: Grid | Mesh | None = None,
    *,
    of: Literal["discrete", "pde"] = "discrete",
    steps: int = 0,
    margin: float = 0.1,
    probability: float = 1e-3,
    seed: int = 0,
) -> Certificate | PdeCertificate:
    """Two-sided bounds of the energy-norm distance from ``u`` to the discrete solution.

    With ``of="pde"`` to the solution of the differential equation; ``u`` may then be a function of
    points too, and no other option counts: see :mod:`sciml.solvers.linear.equilibrated`.

    ``u``: values on the grid, (*batch, *grid), from anywhere; on Dirichlet nodes and in holes they
    are not looked at. ``steps`` of multigrid-CG tighten both bounds. 1 - rho is lowered by at most
    ``margin`` of itself where 200 Lanczos steps allow it; ``probability`` is the chance that this
    is too little. For a singular system u counts up to a constant. Where rounding or the cycle
    leave no upper bound, ``upper`` is infinite and the certificate's ``reason`` says why. Raises
    InputError for an operator that is not symmetric definite, found out on the way too, or no
    stencil, for a singular system without a solution, and for a ``u`` of another shape.
    """
    if of == "pde":
        if not isinstance(problem, Problem) or on is None:
            raise InputError(
                'certify: of="pde" needs the problem and its grid: a matrix has no PDE'
            )
        return certify_pde(u, problem, on)
    if of != "discrete":
        raise InputError(f"certify: of must be discrete or pde; got {of!r}")
    if not isinstance(u, (torch.Tensor, np.ndarray, Solution)):
        raise InputError('certify: a function is judged against the equation: pass of="pde"')
    if steps < 0:
        raise InputError(f"certify: steps must be at least 0; got {steps}")
    for name, value in (("margin", margin), ("probability", probability)):
        if not 0 < value < 1:
            raise InputError(f"certify: {name} must lie between 0 and 1; got {value:g}")
    system = linear_system(problem, on)
    A = _definite(system.A)
    if system.b.is_complex():
        raise InputError("certify needs a real right-hand side and this one is complex")
    x, b = torch.broadcast_tensors(_unknowns(u, system), system.b.double())
    for name, values in (("operator", A.diagonal()), ("right-hand side", b), ("answer", x)):
        _refuse_extreme(name, values, len(A.shape))
    _check_compatible(A, b)
    B, sound = _positive_cycle(A)
    spectrum = _smallest_eigenvalue(A, B, margin, probability, seed)
    spectrum = replace(spectrum, usable=spectrum.usable & sound)
    low, high, ends = _error(A, B, x, b, spectrum, steps)
    lost = torch.isinf(high)
    reason = spectrum.reason(bool(lost.any()))
    floor = torch.where(spectrum.usable, spectrum.floor, 0.0)
    return Certificate(low, high, *ends, 1 - floor, spectrum.margin, probability, steps, reason)


@dataclass(frozen=True)
class _Spectrum:
    """What the Lanczos process says of B A per operator, all of shape A.batch.

    ``floor``: the probable lower bound lambda*, lowered by ``rounding``; ``kappa``: the estimated
    norm of the inverse in W; ``usable``: whether an upper bound may be built on them; ``margin``:
    the largest of lambda*; ``extended``: whether products need more than double precision.
    """

    floor: torch.Tensor
    rounding: torch.Tensor
    kappa: torch.Tensor
    usable: torch.Tensor
    margin: float
    extended: bool

    def reason(self, lost: bool) -> str:
        """Why there is no upper bound, if one was ``lost``."""
        if not lost:
            return ""
        worst = float(self.kappa.nan_to_num(torch.inf).max())
        if bool((self.rounding <= _LOST).all()):
            return "the multigrid cycle was not shown to contract"
        return f"rounding leaves none at a condition of the operator of about {worst:.0e}"


def _refuse_extreme(name: str, values: torch.Tensor, dimension: int) -> None:
    # An energy is a product of such numbers: it underflows to zero, which would pass for exact.
    size = values.abs().flatten(-dimension).amax(-1)
    extreme = (size > 0) & torch.isfinite(size) & ((size < _LEAST) | (size > 1 / _LEAST))
    if bool(extreme.any()):
        raise InputError(
            f"certify: products of numbers as the {name}'s, {float(size[extreme][0]):.1g}, leave "
            "the range of numbers; scale the system and the answer"
        )


def _definite(A: LinearMap) -> Stencil:
    """A itself; InputError, naming why, where the bounds do not hold for it."""
    if A.dtype.is_complex:
        raise InputError("certify needs a real operator and this one is complex")
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
    if not bool(torch.isfinite(A.coefficients).all()):
        raise InputError("certify: the operator holds a NaN or an infinity")
    if bool((A.diagonal() <= 0).any()):
        raise _indefinite("an entry of its diagonal is not positive")
    return A.to(torch.float64)


def _check_compatible(A: Stencil, b: torch.Tensor) -> None:
    """Raise InputError where there is no solution that u could be near to."""
    if not singular_symmetric(A):
        return
    flat = b.flatten(-A.dimension)
    share = flat.mean(-1).abs() * A.size**0.5 / flat.norm(dim=-1).clamp_min(1e-300)
    if float(share.max()) > _COMPATIBLE:
        raise InputError(
            "certify: the operator is singular, constants are its kernel, and the right-hand side "
            f"has {float(share.max()):.1e} of its norm along them: there is no solution"
        )


def _indefinite(why: str) -> InputError:
    return InputError(f"certify needs a positive definite operator and this one is not: {why}")


def _positive_cycle(A: Stencil) -> tuple[MultigridCycle, torch.Tensor]:
    """A multigrid cycle in float64, and where it is positive definite, of shape A.batch.

    A coarse operator P^T A P that is indefinite proves the same of A: InputError.
    """
    try:
        B = Multigrid(dtype="float64").setup(A)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError):
        raise InputError(
            "certify: a coarse operator of multigrid is singular, and so, to rounding, is the "
            "operator itself; without a level that is fixed it has no energy norm"
        ) from None
    sound = torch.ones(A.batch, dtype=torch.bool, device=A.device)
    for level in B.hierarchy.levels:
        diagonal = level.A.diagonal().flatten(-A.dimension)
        smallest, largest = diagonal.amin(-1), diagonal.abs().amax(-1)
        if bool((smallest < -_INDEFINITE * largest).any()):
            raise _indefinite("a coarse operator has a negative diagonal")
        sound = sound & (smallest > 0) & torch.isfinite(largest)
    inverse = B.hierarchy.coarsest
    if not isinstance(inverse, torch.Tensor):
        if not all(_has_positive_pivots(coarse) for coarse in samples(B.hierarchy.levels[-1].A)):
            raise _indefinite("a coarse operator has a pivot that is not positive")
        return B, sound
    _, failed = torch.linalg.cholesky_ex((inverse + inverse.mT) / 2)
    sound = sound & (failed == 0) & torch.isfinite(inverse).flatten(-2).all(-1)
    if not bool(sound.all()):
        # Below zero by rounding, or for good?
        coarse = _dense(B.hierarchy.levels[-1].A)
        known = torch.isfinite(coarse).flatten(-2).all(-1)[..., None, None]
        eigenvalues = torch.linalg.eigvalsh(torch.where(known, coarse + coarse.mT, 0.0))
        if bool((eigenvalues[..., 0] < -_INDEFINITE * eigenvalues.abs().amax(-1)).any()):
            raise _indefinite("a coarse operator has a negative eigenvalue")
    return B, sound


def _has_positive_pivots(A: Stencil) -> bool:
    """Whether elimination on the diagonal, L D L^T, meets positive pivots alone (Sylvester).

    With a kernel of constants one unknown is fixed, as where the operator is solved with.
    """
    matrix = A.to_scipy()
    symmetric = {"options": {"SymmetricMode": True}, "diag_pivot_thresh": 0.0}
    kept = matrix[1:, 1:] if A.nullspace else matrix
    try:
        factors = scipy.sparse.linalg.splu(kept.tocsc(), "MMD_AT_PLUS_A", **symmetric)
    except RuntimeError:
        return False
    on_diagonal = np.array_equal(factors.perm_r, factors.perm_c)
    return on_diagonal and bool((factors.U.diagonal() > 0).all())


def _dense(A: Stencil) -> torch.Tensor:
    """The matrices of a small operator, (*batch, n, n)."""
    identity = torch.eye(A.size, dtype=A.dtype, device=A.device)
    columns = identity.reshape(A.size, *(1,) * len(A.batch), *A.shape)
    images = A.apply(columns.expand(A.size, *A.batch, *A.shape).contiguous())
    return images.reshape(A.size, *A.batch, A.size).movedim(0, -1)


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


class _Step(NamedTuple):
    """One step of conjugate gradients, before it is taken; scalars of shape batch.

    ``noise``: of ``curvature``, p . A p, by rounding; ``loss`` of local orthogonality in the step
    before. ``p``, ``r`` change in place afterwards.
    """

    slope: torch.Tensor
    alpha: torch.Tensor
    curvature: torch.Tensor
    weight: torch.Tensor
    noise: torch.Tensor
    loss: torch.Tensor
    running: torch.Tensor
    p: torch.Tensor
    r: torch.Tensor


def _conjugate_gradients(
    A: Stencil, B: LinearMap, r: torch.Tensor, extended: bool
) -> Iterator[_Step]:
    """Preconditioned CG for A e = r; a sample stands still once its slope is rounding."""
    r, d = r.clone(), A.dimension
    project, W = singular_symmetric(A), _row_sums(A)
    gamma = _gamma(A, extended)

    def preconditioned() -> torch.Tensor:
        z = B.apply(r)
        return without_kernel(A, z) if project else z

    z = preconditioned()
    p, slope = z.clone(), dot(r, z, d)
    first, loss = slope, torch.zeros_like(slope)
    while True:
        if extended:
            image = _product(A, p)
            curvature = _scalars(_sum(_long(p) * image, d), p)
            q = torch.from_numpy(image.astype(np.float64)).to(p.device)
        else:
            q = A.apply(p)
            curvature = dot(p, q, d)
        running = (slope > _EXHAUSTED * first) & (curvature > 0)
        alpha = ratio(slope, curvature, running)
        weight = dot(p, W * p, d)
        yield _Step(slope, alpha, curvature, weight, gamma * weight, loss, running, p, r)
        axpy(-alpha, q, r)
        before, z = z, preconditioned()
        loss = ratio(dot(r, before, d).abs(), slope, running)
        following = dot(r, z, d)
        xpay(z, ratio(following, slope, running), p)
        slope = following


def _row_sums(A: Stencil) -> torch.Tensor:
    """W, the row sums of |A|: |p| . |A| |p| <= p . W p where A is symmetric."""
    return A.coefficients.abs().sum(-A.dimension - 1)


def _gamma(A: Stencil, extended: bool) -> float:
    eps = float(np.finfo(_EXTENDED if extended else np.float64).eps)
    return (len(A.offsets) + math.log2(A.size) + 2) * eps


def _product(A: Stencil, u: torch.Tensor | np.ndarray) -> np.ndarray:
    """A u in extended precision."""
    wide, d = _long(u), A.dimension
    planes = np.moveaxis(A.coefficients.cpu().numpy(), -d - 1, 0)
    total = np.zeros(np.broadcast_shapes(planes.shape[1:], wide.shape), dtype=_EXTENDED)
    for plane, offset in zip(planes, A.offsets, strict=True):
        moved, here, there = wide, [slice(None)] * d, [slice(None)] * d
        for axis, step in enumerate(offset):
            if step and A.periodic[axis]:
                moved = np.roll(moved, -step, axis=axis - d)
            elif step:
                here[axis] = slice(max(0, -step), -step if step > 0 else None)
                there[axis] = slice(max(0, step), step if step < 0 else None)
        at: Any = (..., *here)
        from_there: Any = (..., *there)
        total[at] += plane[at] * moved[from_there]
    return total


def _long(u: torch.Tensor | np.ndarray) -> np.ndarray:
    return (u.cpu().numpy() if isinstance(u, torch.Tensor) else u).astype(_EXTENDED, copy=False)


def _sum(values: np.ndarray, dimension: int) -> np.ndarray:
    return np.asarray(values.reshape(*values.shape[: values.ndim - dimension], -1).sum(-1))


def _scalars(values: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float64)).to(like.device)


def _error(
    A: Stencil, B: LinearMap, x: torch.Tensor, b: torch.Tensor, spectrum: _Spectrum, steps: int
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """Bounds of ||e||_A, and of ||e||_A / ||u*||_A, rounding included."""
    d, gamma, W = A.dimension, _gamma(A, True), _long(_row_sums(A))
    project = singular_symmetric(A)
    lead = x.shape[: x.ndim - d]
    if project:
        x, b = (without_kernel(A, t.clone()) for t in (x, b))
    wide = _long(x)
    r = _long(b) - _product(A, wide)
    if project:
        r -= r.mean(tuple(range(-d, 0)), keepdims=True)
    sizes = np.abs(wide), np.abs(_long(b))
    noise = gamma * (_long(_absolute(A).apply(x.abs().contiguous())) + sizes[1])
    kappa = _long(spectrum.kappa.expand(lead))
    slip = np.sqrt(_SAFETY * kappa * _sum(noise**2 / W, d))
    v, onward, remaining, rest = _corrections(A, B, r, spectrum, steps, lead)
    # Below: the best multiple of the correction with one step more.
    image = _product(A, onward)
    along, energy = _sum(onward * r, d), _sum(onward * image, d)
    along = np.abs(along) - gamma * _sum(np.abs(onward) * np.abs(r), d)
    energy = energy + gamma * _sum(W * onward**2, d)
    low = np.where(energy > 0, np.maximum(along, 0) / np.sqrt(np.where(energy > 0, energy, 1)), 0)
    # Above: what v has explained, and a bound of the rest.
    known = _sum(v * (r + remaining), d)
    known += gamma * (_sum(np.abs(v) * (np.abs(r) + np.abs(remaining)) + W * v**2, d))
    high = np.sqrt(np.maximum(known, 0) + rest**2) + slip
    low = np.maximum(low - slip, 0)
    rounded = 4 * np.finfo(np.float64).eps
    low, high = low * (1 - rounded), high * (1 + rounded)
    usable = spectrum.usable.expand(lead).cpu().numpy() & np.isfinite(high) & (high >= low)
    low, high = np.where(np.isfinite(low), low, 0), np.where(usable, high, np.inf)
    # ||u*||^2 = ||e||^2 + u . (f + r), so the relative error is a function of the error.
    gain = _sum(wide * (_long(b) + r), d)
    spread = _sum(sizes[0] * (noise + gamma * (sizes[1] + np.abs(r))), d)
    shares = np.stack(
        [_relative(end, gain + way) for end in (low, high) for way in (-spread, spread)]
    )
    ends = shares.min(0), np.where(usable, shares.max(0), np.inf)
    made = [_scalars(value, x) for value in (low, high, *ends)]
    return made[0], made[1], (made[2], made[3])


def _absolute(A: Stencil) -> Stencil:
    return Stencil(A.coefficients.abs(), A.offsets, periodic=A.periodic)


def _relative(error: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """error / sqrt(error^2 + gain), infinite where the solution's norm may vanish."""
    endless, error = np.isinf(error), np.where(np.isinf(error), 0.0, error)
    whole = error**2 + gain
    share = np.where(whole > 0, error / np.sqrt(np.where(whole > 0, whole, 1)), np.inf)
    return np.where(endless, 1.0, np.where(error > 0, share, 0.0))


def _corrections(
    A: Stencil,
    B: LinearMap,
    r: np.ndarray,
    spectrum: _Spectrum,
    steps: int,
    lead: torch.Size,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """CG's corrections v after ``steps`` and one more, r - A v, and a bound of ||e - v||_A."""
    start = torch.from_numpy(r.astype(np.float64)).to(A.device)
    floor = torch.where(spectrum.usable, spectrum.floor, torch.nan).expand(lead)
    weights, v = floor.reciprocal(), torch.zeros_like(start)
    slack = spectrum.rounding.expand(lead).clone()
    before: tuple[torch.Tensor, torch.Tensor] | None = None
    first = torch.zeros(lead, dtype=torch.float64)
    for step, now in enumerate(_conjugate_gradients(A, B, start, spectrum.extended)):
        slack = slack + ratio(now.noise, now.curvature, now.running) + now.loss
        if before is None:
            first = now.slope
        else:
            slope, alpha = before
            gap = (weights - alpha) + slack * alpha
            fall = ratio(now.slope, slope, slope > 0)
            tight = (alpha > 0) & (gap > 0) & (fall > 0)
            weights = torch.where(tight, gap / (floor * gap + fall), floor.reciprocal())
        if step == steps:
            slope = torch.maximum(now.slope, _EXHAUSTED * first)
            # A cycle that gives no descent direction is not the one whose spectrum was bounded.
            slope = torch.where(now.slope >= -_LOST * slope, slope, torch.nan)
            rest = _long((weights * slope * (1 + slack)).sqrt())
            onward = v + _spread(now.alpha, v) * now.p
            remaining = r - _product(A, v) if steps else r
            lost = torch.from_numpy((remaining - _long(now.r)).astype(np.float64)).to(A.device)
            if singular_symmetric(A):
                without_kernel(A, lost)
            drift = dot(lost, B.apply(lost), A.dimension).clamp(min=0.0) / floor
            rest += _long((drift * (1 + slack)).sqrt())
            return _long(v), _long(onward), remaining, rest
        axpy(now.alpha, now.p, v)
        before = now.slope, now.alpha
    raise AssertionError("conjugate gradients never end by themselves")


def _spread(scalars: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return scalars[(..., *(None,) * (like.ndim - scalars.ndim))]


def _smallest_eigenvalue(
    A: Stencil, B: LinearMap, margin: float, probability: float, seed: int
) -> _Spectrum:
    """A probable lower bound of the spectrum of B A per operator, rounding taken off."""
    found = _lanczos(A, B, margin, probability, seed, extended=False)
    return found or _lanczos(A, B, margin, probability, seed, extended=True)  # type: ignore


def _lanczos(
    A: Stencil, B: LinearMap, margin: float, probability: float, seed: int, *, extended: bool
) -> _Spectrum | None:
    """The process; None where double precision does not do."""
    start = _random_start(A, seed)
    slopes: list[torch.Tensor] = []
    alphas: list[torch.Tensor] = []
    kappa = torch.zeros(A.batch, dtype=torch.float64, device=A.device)
    tau, omega, sound = kappa, kappa, torch.ones_like(kappa, dtype=torch.bool)
    for step, now in enumerate(_conjugate_gradients(A, B, start, extended), 1):
        slopes.append(now.slope)
        alphas.append(now.alpha)
        alive = now.slope > _EXHAUSTED * slopes[0]
        if bool((alive & (now.curvature < -now.noise)).any()):
            raise _indefinite("a direction of negative curvature was met")
        tau = tau + torch.where(alive, now.noise / now.curvature.clamp(min=1e-300), 0.0)
        kappa = torch.maximum(kappa, ratio(now.weight, now.curvature, now.running))
        omega = omega + now.loss
        sound = sound & (slopes[0] > 0) & (now.slope >= -1e-20 * slopes[0])
        if not extended and bool((tau > _PLAIN).any()):
            return None
        ended = not bool(now.running.any()) or step >= _LANCZOS_STEPS
        if not ended and (step == 1 or step % _CHECK):
            continue
        bounds, margins = _probable_bounds(_columns(slopes), _columns(alphas), probability)
        used = float(margins.max())
        if used <= margin or ended:
            floor = torch.from_numpy(bounds).reshape(A.batch).to(A.device)
            lowered = floor * (1 - tau) - omega
            rounding = tau + ratio(omega, floor, floor > 0)
            usable = sound & (rounding <= _LOST) & (lowered > 0)
            return _Spectrum(lowered, rounding, kappa, usable, used, extended)
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
    return without_kernel(A, r) if singular_symmetric(A) else r


def _probable_bounds(
    slopes: np.ndarray, alphas: np.ndarray, probability: float
) -> tuple[np.ndarray, np.ndarray]:
    """lambda* and its distance below theta_1, relative to it, per row; see the module."""
    rows, steps = slopes.shape
    spent = (slopes <= _EXHAUSTED * slopes[:, :1]) | (alphas <= 0)
    # A last column that is not spent serves as s_m.
    spent[:, -1] = True
    m = np.argmax(spent, axis=1)
    used = np.arange(steps) < m[:, None]
    both = used[:, 1:]
    a = np.where(used, alphas, 1.0)
    falls = np.where(both, slopes[:, 1:] / np.where(both, slopes[:, :-1], 1.0), 0.0)
    T = np.zeros((rows, steps, steps))
    k = np.arange(steps)
    T[:, k, k] = 1 / a
    T[:, k[1:], k[1:]] += falls / a[:, :-1]
    T[:, k[1:], k[:-1]] = np.sqrt(falls) / a[:, :-1]
    # What is not used is put above the Ritz values.
    T[:, k, k] = np.where(used, T[:, k, k], 4 * np.max(T, axis=(1, 2))[:, None])
    ritz = np.linalg.eigvalsh(T)
    known = m > 0
    theta = np.where(known, ritz[:, 0], 0.0)
    # Beyond rounding the recursive slopes fall on; what they stand for does not.
    end = np.maximum(slopes[np.arange(rows), m], _EXHAUSTED * slopes[:, 0])
    with np.errstate(divide="ignore", invalid="ignore"):
        target = np.log(end) - 2 * math.log(math.sqrt(math.pi / 2) * probability)
        low, high = np.zeros(rows), np.maximum(theta, 0.0)
        for _ in range(60):
            middle = (low + high) / 2
            terms = np.log(np.maximum(np.abs(1 - middle[:, None] / ritz), 1e-300))
            above = 2 * np.where(used, terms, 0.0).sum(1) > target
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        margins = np.where(theta > 0, 1 - low / theta, 1.0)
    return np.where(known & np.isfinite(target), low, 0.0), margins
