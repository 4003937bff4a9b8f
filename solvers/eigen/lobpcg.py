"""LOBPCG: the lowest eigenvalues of A u = lambda M u, all of a block at once.

With X the current approximations, W = B (A X - M X Theta) their preconditioned residuals and P the
directions in which X came to where it is, a step is the Rayleigh-Ritz method on

    span [X, P, W]                                             (Knyazev 2001).

The basis is kept M-orthonormal, so that the small problem is a standard one: W is made orthogonal
to X and P, twice, dropping what depends on the rest to rounding (Stathopoulos and Wu 2002; Duersch,
Shao, Yang and Gu 2018), and P comes from the small problem's eigenvectors, made orthogonal to
those of X among coefficients, which costs no product with M (Hetmaniuk and Lehoucq 2006). Pairs
that have converged give no more W and P but stay in X and in the small problem (soft locking), so
that they go on improving. A known kernel is kept out of the basis.

Vectors are rows, (k, n) float64. One cycle of multigrid or of AMG is B, which may be of lower
precision: nothing rests on its being exactly linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.core.run.status import Status

Map = Callable[[torch.Tensor], torch.Tensor]
_DEPENDENT = 1e-14  # of a Gram matrix's largest eigenvalue: a direction that is none
_RENEW = 20  # steps after which A X and M X are computed anew
_FLOOR = 4 * torch.finfo(torch.float64).eps  # of |A| |x|, below which no residual falls
_STAGNATION = 40  # steps without a residual that is the least so far


@dataclass(frozen=True)
class LOBPCG:
    """Options: a pair has converged where ``|A u - lambda M u| <= rtol lambda`` in M^-1's norm.

    Or where that is rounding; lambda counts from the spectrum's floor where that is nearer.
    ``preconditioner``: as of CG; by default multigrid on grids, AMG on meshes, a factorisation
    where the problem is small. ``seed``: of the first block.
    """

    kind: Literal["lobpcg"] = "lobpcg"
    rtol: float = 1e-8
    max_iterations: int = 500
    preconditioner: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1e-14 <= self.rtol < 1:
            raise InputError(f"rtol {self.rtol:g}: give one between 1e-14 and 1", "modes.rtol")
        if self.max_iterations < 1:
            raise InputError("max_iterations must be at least 1")


@dataclass(frozen=True)
class Form:
    """A, M and B as functions of rows (k, n), on the unknowns that have mass.

    ``weights``: M's diagonal, (n,), zero where there is no mass; ``kernel``: (k, n) M-orthonormal
    rows that A annihilates, which the block stays orthogonal to; ``floor``: at most 0, what no
    eigenvalue lies far below; ``scale``: roughly the lowest that is not 0, or 0 where all are
    positive.
    """

    A: Map
    M: Map
    B: Map
    magnitude: Map
    weights: torch.Tensor
    kernel: torch.Tensor
    floor: float
    scale: float

    def size(self, theta: torch.Tensor) -> torch.Tensor:
        """What residuals of eigenvalues ``theta`` are compared with."""
        return torch.minimum(theta - self.floor, theta.abs()).clamp(min=self.scale)

    def norm(self, r: torch.Tensor) -> torch.Tensor:
        """The norm of residuals (k, n) in diag(M)^-1, near that in M^-1."""
        has = self.weights > 0
        return (r.square() / torch.where(has, self.weights, 1.0) * has).sum(-1).sqrt()


@dataclass(frozen=True)
class Block:
    """Ritz pairs in ascending order: ``values`` (p,), ``vectors`` (p, n), M-orthonormal rows."""

    values: torch.Tensor
    vectors: torch.Tensor
    residuals: torch.Tensor
    iterations: int
    status: Status


def form_of(
    A: LinearMap,
    M: LinearMap,
    B: LinearMap,
    kernel: torch.Tensor,
    floor: float = 0.0,
    scale: float = 0.0,
) -> Form:
    """Maps on arrays as functions of rows."""
    weights = M.diagonal().detach().flatten()
    mask = (weights > 0).to(weights.dtype)

    def rows(apply: Map) -> Map:
        def of(u: torch.Tensor) -> torch.Tensor:
            if not len(u):
                return u
            return apply(u.reshape(-1, *A.shape)).reshape(len(u), -1) * mask

        return of

    def magnitude(u: torch.Tensor) -> torch.Tensor:
        found = A.magnitude(u)
        assert found is not None
        return found

    image, mass, inverse, sizes = map(rows, (A.apply, M.apply, B.apply, magnitude))
    return Form(image, mass, inverse, sizes, weights, kernel, floor, scale)


def orthonormal(
    V: torch.Tensor, form: Form, against: list[tuple[torch.Tensor, torch.Tensor]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """An M-orthonormal basis of rows V and its image under M.

    Orthogonal to the M-orthonormal rows ``against``, given with their images; what depends on these
    or on the others to rounding is dropped.
    """
    MV = V
    for again in range(3):
        before = (V.square() * form.weights).sum(-1).sqrt()
        for Q, MQ in against:
            V = V - (V @ MQ.T) @ Q
        MV = form.M(V)
        length = (V * MV).sum(-1).clamp(min=0).sqrt()
        # What is left of a vector that lay in the span of the others is rounding.
        kept = length > 1e-12 * before
        V, MV, length = V[kept], MV[kept], length[kept]
        if not len(V):
            break
        gram = (V @ MV.T) / length[:, None] / length
        values, turn = _eigh(gram)
        good = values > _DEPENDENT * len(V) * values[-1]
        turn = (turn[:, good] / values[good].sqrt() / length[:, None]).T
        V, MV = turn @ V, turn @ MV
        # Twice is enough (Parlett 1998, section 6.9), but for what was nearly dependent.
        if again and values[0] > 0.5:
            break
    return V, MV


def rayleigh_ritz(
    V: torch.Tensor, form: Form
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ritz values, M-orthonormal Ritz vectors X of the span of rows V, A X and M X, all anew."""
    V, MV = orthonormal(V, form, [(form.kernel, form.M(form.kernel))])
    AV = form.A(V)
    values, turn = _eigh(V @ AV.T)
    return values, turn.T @ V, turn.T @ AV, turn.T @ MV


def lobpcg(
    form: Form,
    X: torch.Tensor,
    options: LOBPCG,
    done: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], bool],
    progress: Callable[[int, float], None] | None = None,
) -> Block:
    """Iterate from the block X (p, n) until ``done(values, residuals, tolerances)``.

    The last two in the norm of diag(M)^-1; a residual above its tolerance has not converged.
    """
    theta, *images = rayleigh_ritz(X, form)
    count = len(images[0])
    # Rows of the basis, their images under A and under M: X first, then P, then W.
    basis = images[0].new_empty(3, 3 * count, X.shape[-1])
    spare = torch.empty_like(basis)
    basis[:, :count] = torch.stack(images)
    kernel = (form.kernel, form.M(form.kernel))
    has = form.weights > 0
    rows = form.magnitude(torch.ones_like(form.weights)[None])[0]
    high = _FLOOR * float((rows[has] / form.weights[has]).max())  # no rounding is above that
    least, since, kept, fresh = torch.inf, 0, count, 0
    for step in range(options.max_iterations + 1):
        if step - fresh == _RENEW:
            theta, kept, fresh = *_renewed(basis, count, kept, form), step
        X, AX, MX = basis[:, :count]
        R = AX - theta[:, None] * MX
        residual = form.norm(R)
        if not bool(torch.isfinite(residual).all()):
            return Block(theta, X.clone(), residual, step, Status.NOT_FINITE)
        size = form.size(theta)
        tolerance = options.rtol * size
        if bool(((residual > tolerance) & (residual < high)).any()):
            # Where one vector is stiff, combining it with others leaves rounding in all of them.
            tolerance = tolerance.clamp(min=_FLOOR * float(form.norm(form.magnitude(X)).max()))
        if progress is not None:
            progress(step, float((residual / size).max()))
        ended = done(theta, residual, tolerance)
        if ended and fresh != step:
            theta, kept, fresh = *_renewed(basis, count, kept, form), step
            X, AX, MX = basis[:, :count]
            R = AX - theta[:, None] * MX
            residual = form.norm(R)
            ended = done(theta, residual, tolerance)
        if ended:
            return Block(theta, X.clone(), residual, step, Status.CONVERGED)
        excess = float((residual / tolerance).log().clamp(min=0).sum())
        least, since = (excess, 0) if excess < 0.999 * least else (least, since + 1)
        if since > _STAGNATION:
            return Block(theta, X.clone(), residual, step, Status.STAGNATED)
        active = residual > tolerance
        W, MW = orthonormal(form.B(R[active]), form, [kernel, (basis[0, :kept], basis[2, :kept])])
        whole = kept + len(W)
        for rows, image in zip(basis, (W, form.A(W), MW), strict=True):
            rows[kept:whole] = image
        theta, turn = _eigh(basis[0, :whole] @ basis[1, :whole].T)
        theta, C = theta[:count], turn[:, :count]
        moved = C[:, active].clone()
        moved[:count] = 0
        mixed = torch.cat([C, _apart(moved, C)], dim=1)
        kept = mixed.shape[1]
        for rows, image in zip(basis, spare, strict=True):
            torch.mm(mixed.T, rows[:whole], out=image[:kept])
        basis, spare = spare, basis
    return Block(theta, X.clone(), residual, options.max_iterations, Status.MAX_ITERATIONS)


def _renewed(basis: torch.Tensor, count: int, kept: int, form: Form) -> tuple[torch.Tensor, int]:
    """X, P and their images computed anew, in place; the Ritz values, and how many rows are left.

    What a step combines of earlier products drifts from them by rounding.
    """
    theta, *images = rayleigh_ritz(basis[0, :count], form)
    others = [(form.kernel, form.M(form.kernel)), (images[0], images[2])]
    P, MP = orthonormal(basis[0, count:kept].clone(), form, others)
    basis[:, :count] = torch.stack(images)
    basis[:, count : count + len(P)] = torch.stack([P, form.A(P), MP])
    return theta, count + len(P)


def _eigh(T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    values, turn = torch.linalg.eigh((T + T.T) / 2)
    return values, turn


def _apart(V: torch.Tensor, C: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of the columns of V less what lies in the orthonormal columns C."""
    for _ in range(2):
        V = V - C @ (C.T @ V)
        left, values, _ = torch.linalg.svd(V, full_matrices=False)
        V = left[:, values > 1e-12 * max(float(values[0]) if len(values) else 0.0, 1e-300)]
    return V
