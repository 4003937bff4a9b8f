"""Newton's and Picard's methods for nonlinear steady problems.

    Newton:  J(u_k) d = -F(u_k)  to the relative residual eta_k,      u_{k+1} = u_k + s_k d

with the exact Jacobian as a stencil and the forcing terms of Eisenstat and Walker (1996, choice 2),

    eta_k = 0.9 (||F_k|| / ||F_{k-1}||)^2,   at least 0.9 eta_{k-1}^2 where that exceeds 0.1,

which keep the convergence quadratic without solving early systems better than they deserve. The
line search is that of ``descent``. Where the problem has an energy and conjugate gradients meet
negative curvature, their iterate so far is a direction of descent still (Dembo and Steihaug 1983).

    Picard:  P(u_k) d = -F(u_k),      u_{k+1} = u_k + s_k d,

P the diffusion with K(u_k), which for F(u) = P(u) u - b and s = 1 is P(u_k) u_{k+1} = b. It
converges linearly where it does, and needs no derivative of K: for degenerate equations far from
the solution, or to start Newton's method.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.sparse import PatternMatrix
from sciml.core.errors import InputError
from sciml.core.run.solve import Progress
from sciml.core.run.status import Status
from sciml.solvers.linear.direct import Direct, quickest, small
from sciml.solvers.linear.iteration import (
    LinearSolver,
    check_options,
    iterate_verified,
    norm,
    spread,
)
from sciml.solvers.linear.krylov import CG, GMRES, BiCGStab
from sciml.solvers.linear.saddle import Patience
from sciml.solvers.nonlinear.descent import (
    Continuation,
    Course,
    Iterate,
    NonlinearSolver,
    OnZeroMean,
    coarsened,
    descend,
    inverse,
)

_FIRST, _MOST, _SAFE = 0.1, 0.5, 0.1
_INNER = 300


@dataclass(frozen=True)
class Newton(NonlinearSolver):
    """Inexact Newton with a line search (Eisenstat and Walker 1996).

    ``linear``: the solver of the linearised systems, its rtol set by the method; by default a
    factorisation of small systems, else CG with multigrid where the Jacobian is symmetric, else
    GMRES with multigrid on the linearised diffusion. ``continuation``: see :class:`Continuation`.
    ``picard``: steps of Picard's method before the first, where K depends on the solution and there
    is no energy: Newton's own first steps may be short there. ``rtol``: ||F(u)|| relative to the
    right-hand side of the linear problem frozen at u.
    """

    kind: Literal["newton"] = "newton"
    rtol: float = 1e-8
    max_iterations: int = 50
    linear: CG | GMRES | BiCGStab | Direct | None = None
    continuation: Continuation | None = None
    picard: int = 4

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        if self.picard < 0:
            raise InputError(f"newton: picard counts steps; got {self.picard}", "solver.picard")

    def iterate(
        self, system: NonlinearSystem, u: torch.Tensor, progress: Progress | None
    ) -> tuple[Course, str]:
        """Some steps of Picard's method where they help, then Newton's."""
        inner, before = Correction(system, self), None
        if self.picard and system.freezes and system.potential is None:
            before = frozen(system, u, self.rtol, self.picard, progress)
            u = before.u
        last = descend(
            system,
            u,
            inner.direction,
            rtol=self.rtol,
            max_iterations=self.max_iterations,
            progress=progress,
        )
        steps = 0 if before is None else int(before.iterations.max())
        return last if before is None else before.then(last), inner.note(steps)


class Correction:
    """Solves ``J d = -F`` to the forcing term; counts its iterations."""

    def __init__(self, system: NonlinearSystem, options: Newton) -> None:
        self.system, self.options = system, options
        self.inner, self.name = 0, ""
        self._patience = Patience()
        self._before: tuple[float, float] | None = None

    def note(self, before: int) -> str:
        """One line on the linear solvers; ``before``: how many steps of Picard's came first."""
        first = f"{before} linear systems of picard's steps first" if before else ""
        if not self.inner:
            return f"newton: {first or 'no linear system was solved'}"
        own = f"linear systems by {self.name}, {self.inner} iterations in all"
        return f"newton: {first}, then {own}" if first else f"newton: {own}"

    def forcing(self, here: Iterate, running: torch.Tensor) -> float:
        """eta_k for the worst of the running samples."""
        worst = float(here.relative[running].max() if here.relative.ndim else here.relative)
        least = 0.5 * self.options.rtol / worst
        if self.system.affine:
            return max(min(least, _FIRST), 1e-14)
        eta = _FIRST
        if self._before is not None:
            relative, previous = self._before
            eta = 0.9 * (worst / relative) ** 2
            if 0.9 * previous**2 > _SAFE:
                eta = max(eta, 0.9 * previous**2)
        eta = max(min(eta, _MOST, _FIRST), min(least, _FIRST))
        self._before = (worst, eta)
        return eta

    def direction(self, here: Iterate, running: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """d, and where conjugate gradients met negative curvature of an energy."""
        eta, d = self.forcing(here, running), len(self.system.shape)
        right = -here.F * spread(running.to(here.F.dtype), d)
        none = torch.zeros_like(running)
        if self.system.level is not None:
            return self._on_zero_mean(here, right, eta), none
        if self.options.linear is not None:
            return self._by(replace(self.options.linear, rtol=eta), here.J, right), none
        # Only conjugate gradients tell whether a stationary point is a minimum.
        unsure = self.system.potential is not None and not here.J.definite
        if _eliminated(here.J) and not unsure:
            try:
                return self._by(Direct(), here.J, right), none
            except InputError:
                pass  # A singular Jacobian may still have a least-squares step.
        if here.J.saddle is not None:
            return self._of_saddle(here, right, eta), none
        M = inverse(here.P)
        if here.J.symmetric:
            step, curved = self._conjugate_gradients(here, right, eta, M)
            if self.system.potential is not None or not bool(curved.any()):
                return step, curved
        solver = GMRES(preconditioner=M, rtol=eta, max_iterations=_INNER)  # type: ignore[arg-type]
        return self._by(solver, here.J, right), none

    def _on_zero_mean(self, here: Iterate, right: torch.Tensor, eta: float) -> torch.Tensor:
        """The step of a system whose level is free, by GMRES with the diffusion's inverse."""
        given = self.options.linear
        if not isinstance(given, GMRES | None):
            raise InputError(
                f"newton: nothing holds the level of u, and {given.kind} cannot solve the linear "
                "systems then; leave linear out, or take gmres",
                "solver.linear",
            )
        M: Any = inverse(here.P)
        solver = replace(given or GMRES(max_iterations=_INNER), rtol=eta, preconditioner=M)
        assert self.system.level is not None
        return self._by(solver, OnZeroMean(here.J, self.system.level), right)

    def _of_saddle(self, here: Iterate, right: torch.Tensor, eta: float) -> torch.Tensor:
        """By blocks; once these are slow, as beside strong convection, by factorisations."""
        solver = self._patience.method(here.J, eta, _INNER)
        if isinstance(solver, Direct):
            return self._by(solver, here.J, right)
        result = solver.iterate(here.J, solver.setup(here.J), right, None, None)
        self.inner += int(result.iterations.max())
        self.name = "gmres with saddle_point"
        if self._patience.ends(here.J, result.statuses):
            return self._by(Direct(), here.J, right)
        return result.x

    def _by(self, solver: LinearSolver, A: LinearMap, right: torch.Tensor) -> torch.Tensor:
        result = solver.iterate(A, solver.setup(A), right, None, None)
        self.inner += int(result.iterations.max())
        self.name = solver.kind
        preconditioner = getattr(solver, "preconditioner", None)
        if preconditioner is not None:
            J = A.J if isinstance(A, OnZeroMean) else A
            inner = "direct" if small(J) else coarsened(J).kind
            self.name += f" with {getattr(preconditioner, 'kind', inner)}"
        return result.x

    def _conjugate_gradients(
        self, here: Iterate, right: torch.Tensor, eta: float, M: LinearMap
    ) -> tuple[torch.Tensor, torch.Tensor]:
        result = iterate_verified(
            CG().method,
            here.J,
            M,
            right,
            None,
            rtol=eta,
            max_iterations=_INNER,
            window=_INNER,
            progress=None,
        )
        self.inner += int(result.iterations.max())
        self.name = f"cg with {'direct' if small(here.P) else coarsened(here.P).kind}"
        curved = torch.tensor(
            [s is Status.INDEFINITE_OPERATOR for s in result.statuses], device=right.device
        ).reshape(result.iterations.shape)
        d = len(self.system.shape)
        # Curvature met in the very first direction leaves d = 0: take that direction itself.
        empty = spread(curved & (norm(result.x, d) == 0), d)
        return torch.where(empty, M.apply(right), result.x), curved


def _eliminated(J: LinearMap) -> bool:
    """Of small systems, and on meshes of what is not definite, a factorisation is the best."""
    return small(J) or (isinstance(J, PatternMatrix) and not J.definite and quickest(J))


_FORCING = 0.01
# Where the full step overshoots, ||F|| falls a little for ever: a shorter one is worth its trial.
_SUFFICIENT = 0.3


@dataclass(frozen=True)
class Picard(NonlinearSolver):
    """Fixed-point iteration on the coefficients, with a line search.

    ``rtol`` and ``continuation`` as for Newton.
    """

    kind: Literal["picard"] = "picard"
    rtol: float = 1e-8
    max_iterations: int = 500
    continuation: Continuation | None = None

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def iterate(
        self, system: NonlinearSystem, u: torch.Tensor, progress: Progress | None
    ) -> tuple[Course, str]:
        """Freeze, solve, step."""
        course = frozen(system, u, self.rtol, self.max_iterations, progress)
        return course, "picard: coefficients frozen"


def frozen(
    system: NonlinearSystem,
    u: torch.Tensor,
    rtol: float,
    max_iterations: int,
    progress: Progress | None,
) -> Course:
    """Picard's iteration from ``u`` (*batch, *shape)."""
    return descend(
        system,
        u,
        frozen_direction,
        rtol=rtol,
        max_iterations=max_iterations,
        progress=progress,
        sufficient=_SUFFICIENT,
    )


def frozen_direction(here: Iterate, running: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """d, and nowhere a direction of negative curvature."""
    right = -here.F * spread(running.to(here.F.dtype), len(here.P.shape))
    solver: LinearSolver = Direct()
    if not small(here.P):
        solver = CG(preconditioner=coarsened(here.P), rtol=_FORCING)
    found = solver.iterate(here.P, solver.setup(here.P), right, None, None)
    return found.x, torch.zeros_like(running)
