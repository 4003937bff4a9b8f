"""The primal-dual active set method for obstacles and contact (Hintermueller, Ito, Kunisch 2003).

    l <= u <= h,     F(u) = 0 where u touches neither, and pushes from what it touches.

About an iterate F is linear, A u - b, and what touches is guessed: there u is the bound, elsewhere
A u = b. Then a value beyond a bound touches it next, and one that would have to be pulled towards
its bound is let go, until nothing changes; this is Newton's method for a semismooth equation. Where
these exchanges do not lessen the number of wrong guesses for a while, one at a time is exchanged
instead, which ends for every matrix whose principal minors are positive (Judice and Pires 1994).

A guess that is too large shrinks by a layer of unknowns a step, the more steps the finer they lie.
So the first one comes from bounds that are springs of stiffness gamma c, made three times stiffer
with each system until they are as stiff as the equation itself (Hintermueller and Kunisch 2006):
the steps grow like the logarithm of the unknowns.

Of a nonlinear F the step to that solution is Newton's (Josephy 1979), its length found by a line
search on ||Phi||, the residual of complementarity (:mod:`sciml.core.algebra.inequality`), which is
also what is reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from sciml.core.algebra.inequality import touching, with_rows, with_springs
from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import Inequality, NonlinearSystem
from sciml.core.errors import InputError
from sciml.core.problem.mesh import Mesh
from sciml.core.run.solve import Progress
from sciml.solvers.linear.direct import Direct, affordable
from sciml.solvers.linear.iteration import LinearSolver, check_options, spread
from sciml.solvers.linear.krylov import CG, GMRES
from sciml.solvers.nonlinear.descent import (
    Continuation,
    Course,
    Iterate,
    NonlinearSolver,
    coarsened,
    descend,
)

_PATIENCE = 10  # exchanges of all wrong guesses at once that need not lessen their number
_SOFT, _STIFFER = 10.0, 3.0  # the first springs, of h^2 of the equation's stiffness; their ratio
_FREE = 1e12  # by how much the answer's own forces exceed those given where nothing holds it
_ROUNDING = 1e-12  # of the largest force


@dataclass(frozen=True)
class ActiveSet(NonlinearSolver):
    """The primal-dual active set, within Newton's method where the equation is nonlinear.

    ``rtol``: ||Phi(u)|| relative to the right-hand side of the linear problem frozen at u.
    ``max_iterations``: of Newton's method. ``exchanges``: the most guesses of what touches in one
    of its steps. ``continuation``: see :class:`Continuation`.
    """

    kind: Literal["active_set"] = "active_set"
    rtol: float = 1e-8
    max_iterations: int = 50
    exchanges: int = 200
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.exchanges < 1:
            raise InputError(
                f"active_set: exchanges counts guesses, at least one; got {self.exchanges}",
                "solver.exchanges",
            )

    def iterate(
        self, system: NonlinearSystem, u: torch.Tensor, progress: Progress | None
    ) -> tuple[Course, str]:
        """Newton's steps, each to the solution of a linear inequality."""
        if system.inequality is None:
            raise InputError(
                "active_set is for obstacles and contact, of which the problem has none: "
                "solver: {kind: newton}",
                "solver.kind",
            )
        held = system.inequality
        inner = Exchange(held, self)
        course = descend(
            system,
            u.clamp(held.lower, held.upper),
            inner.direction,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            progress=progress,
        )
        F = held.free.residual(course.u, 0.0)
        below, above = touching(held, course.u, F)
        many = torch.isfinite(held.lower) | torch.isfinite(held.upper)
        note = (
            f"active_set: {inner.steps} guesses of what touches, each a linear system by "
            f"{inner.name}; {int((below | above).sum())} of {int(many.expand(F.shape).sum())} "
            "bounded unknowns touch"
        )
        return replace(course, iterations=torch.full_like(course.iterations, inner.steps)), note


class Exchange:
    """Solves the linear inequality of a step; counts its guesses."""

    def __init__(self, held: Inequality, options: ActiveSet) -> None:
        self.held, self.options = held, options
        self.steps, self.name = 0, "none"
        self._touched: tuple[torch.Tensor, torch.Tensor] | None = None

    def direction(self, here: Iterate, running: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """d, and nowhere a direction of negative curvature."""
        held, u = self.held, here.u
        dims = len(held.free.shape)
        F, J = held.free.residual(u, 0.0), held.free.linearise(u, 0.0).detach()
        below, above = self._touched or self._softly(J, u, F)
        low, high = (
            torch.where(torch.isfinite(v), v.detach(), 0.0) for v in (held.lower, held.upper)
        )
        flat = tuple(range(-dims, 0))
        best = torch.full(running.shape, below[0].numel() * 10**6, dtype=torch.int64)
        left = torch.full(running.shape, _PATIENCE, dtype=torch.int64)
        d = torch.zeros_like(u)
        for _ in range(self.options.exchanges):
            d = self._solved(J, F, below, above, low - u, high - u)
            F_next = F + J.apply(d)
            z = u + d
            force = held.weights * z.abs()
            slack = _ROUNDING * force.amax(flat, keepdim=True)
            c = held.weights
            free = ~(below | above)
            enters = free & (c * (held.lower - z) > slack), free & (c * (z - held.upper) > slack)
            leaves = below & (F_next < -slack), above & (F_next > slack)
            wrong = enters[0] | enters[1] | leaves[0] | leaves[1]
            count = wrong.sum(flat)
            if not bool((count > 0).any()):
                break
            left = torch.where(count < best, _PATIENCE, left - 1)
            best = torch.minimum(best, count)
            changed = torch.where(spread(left > 0, dims), wrong, _last(wrong, dims))
            below = (below & ~(leaves[0] & changed)) | (enters[0] & changed)
            above = (above & ~(leaves[1] & changed)) | (enters[1] & changed)
        self._touched = (below, above)
        return d * spread(running.to(d.dtype), dims), torch.zeros_like(running)

    def _softly(
        self, J: LinearMap, u: torch.Tensor, F: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where springs in the place of the bounds are pressed, at last as stiff as J itself."""
        held = self.held
        c = held.weights
        below, above = (
            torch.isfinite(v).expand(u.shape) for v in (held.lower.detach(), held.upper.detach())
        )
        above = above & ~below
        on = held.free.on
        gamma = _SOFT * J.size ** (-2 / (on.dimension if isinstance(on, Mesh) else len(on.shape)))
        while gamma < 1:
            springs = gamma * c * (below | above)
            pull = torch.where(below, held.lower - u, torch.where(above, held.upper - u, 0.0))
            z = u + self._solve(with_springs(J, springs), springs * pull - F)
            below, above = z < held.lower, z > held.upper
            gamma *= _STIFFER
        return below, above

    def _solved(
        self,
        J: LinearMap,
        F: torch.Tensor,
        below: torch.Tensor,
        above: torch.Tensor,
        down: torch.Tensor,
        up: torch.Tensor,
    ) -> torch.Tensor:
        """d, the given one where u touches, J d = -F elsewhere."""
        touched = below | above
        given = torch.where(below, down, torch.where(above, up, 0.0))
        c = self.held.weights
        right = torch.where(touched, c * given, -F - J.apply(given))
        return self._solve(with_rows(J, touched, c, columns=True), right)

    def _solve(self, A: LinearMap, right: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        solver: LinearSolver = Direct()
        if not affordable(A):
            M = coarsened(A)
            few = 0.1 * self.options.rtol
            solver = CG(preconditioner=M, rtol=few) if A.definite else GMRES(
                preconditioner=M, rtol=few
            )  # fmt: skip
        self.name = solver.kind
        try:
            found = solver.iterate(A, solver.setup(A), right, None, None).x
            size = (self.held.weights * found).abs().max()
            if bool(size <= _FREE * right.abs().max()):
                return found
        except InputError:
            pass
        raise InputError(
            "nothing holds the answer where it touches nothing: give a dirichlet or robin "
            "condition, or loads that press it against what it touches",
            "problem.boundary",
        )


def _last(wrong: torch.Tensor, dims: int) -> torch.Tensor:
    """Of every sample the last that is true alone."""
    flat = wrong.flatten(-dims)
    size = flat.shape[-1]
    place = torch.where(flat, torch.arange(size), -1).amax(-1, keepdim=True)
    last: torch.Tensor = (torch.arange(size) == place).unflatten(
        -1, wrong.shape[wrong.ndim - dims :]
    )
    return last
