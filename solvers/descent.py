"""The outer iteration that Newton's and Picard's methods share, a batch in lockstep.

    u <- u + s d,      s = 1, 1/2, 1/4, ... until the merit falls enough,

the merit being the energy where there is one (Armijo: E(u + s d) <= E(u) + 1e-4 s F . d), else
||F||. The relative residual is ||F(u)|| / ||P(u) u - F(u)||, P the diffusion linearised at u: the
denominator is the right-hand side of the linear problem frozen at u, so that for a linear problem
this is ||b - A u|| / ||b||, whatever the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sciml.core.nonlinear import NonlinearSystem
from sciml.core.solve import Progress
from sciml.core.status import Status
from sciml.core.stencil import Stencil
from sciml.solvers.iteration import dot, norm, spread

_STATUSES = tuple(Status)
_RUNNING = -1
_TRIALS = 14
# Relative to the energy's own size: what rounding may add to it.
_ROUNDING = 1e-13
# A line search that fails this near to the tolerance has met the precision, not a bad direction.
_NEAR = 1e3


@dataclass(frozen=True)
class Iterate:
    """Where the iteration stands: u and F(u), (*batch, *shape); what is dear is made on demand."""

    system: NonlinearSystem
    u: torch.Tensor
    F: torch.Tensor

    @cached_property
    def J(self) -> Stencil:
        """dF/du at u."""
        return self.system.linearise(self.u, 0.0).detach()

    @cached_property
    def P(self) -> Stencil:
        """J where that is symmetric and definite, else the diffusion linearised at u."""
        if self.system.symmetric and self.J.definite:
            return self.J
        return self.system.diffusion(self.u, 0.0).detach()

    @cached_property
    def relative(self) -> torch.Tensor:
        """||F|| relative to the frozen right-hand side, per sample."""
        d, affine = len(self.system.shape), self.system.affine
        zero = torch.zeros_like(self.u)
        right = -self.system.residual(zero, 0.0) if affine else self.P.apply(self.u) - self.F
        scale = norm(right, d)
        usable = (scale > 0) & torch.isfinite(scale)
        return norm(self.F, d) / torch.where(usable, scale, torch.ones_like(scale))


# direction(iterate, running): the step d for all samples, and where the energy is seen to be
# not convex; (*batch, *shape) and (*batch).
Direction = Callable[[Iterate, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Course:
    """The outcome: u, statuses and iterations per sample, relative residuals (steps, *batch).

    ``convex``: per sample whether no direction of negative curvature was met at the last step.
    """

    u: torch.Tensor
    statuses: tuple[Status, ...]
    iterations: torch.Tensor
    residuals: torch.Tensor
    relative: torch.Tensor
    convex: torch.Tensor

    def then(self, other: Course) -> Course:
        """This course and one that began where it ended, as one."""
        residuals = torch.cat([self.residuals, other.residuals[1:]])
        iterations = self.iterations + other.iterations
        return replace(other, iterations=iterations, residuals=residuals)

    @property
    def success(self) -> bool:
        """Whether every sample has converged."""
        return all(status.success for status in self.statuses)


def at(system: NonlinearSystem, u: torch.Tensor) -> Iterate:
    """The iterate at u, its residual evaluated anew."""
    return Iterate(system, u, system.residual(u, 0.0))


@torch.no_grad()
def descend(
    system: NonlinearSystem,
    u: torch.Tensor,
    direction: Direction,
    *,
    rtol: float,
    max_iterations: int,
    progress: Progress | None,
    sufficient: float = 1e-4,
) -> Course:
    """Iterate from ``u`` (*batch, *shape) until no sample runs.

    ``sufficient``: the share of the merit's predicted fall with which a step is content.
    """
    here = at(system, u)
    codes = torch.full(here.relative.shape, _RUNNING, dtype=torch.int64, device=u.device)
    iterations, history = torch.zeros_like(codes), [here.relative]
    curved = torch.zeros_like(codes, dtype=torch.bool)

    def stop(where: torch.Tensor, status: Status) -> None:
        nonlocal codes
        codes = torch.where((codes == _RUNNING) & where, _STATUSES.index(status), codes)

    for step in range(1, max_iterations + 1):
        stop(~torch.isfinite(here.relative), Status.NOT_FINITE)
        stop(here.relative <= rtol, Status.CONVERGED)
        running = codes == _RUNNING
        if not bool(running.any()):
            break
        d, curved = direction(here, running)
        length, failed = _line_search(system, here, d, running, sufficient)
        stop(failed & (here.relative <= _NEAR * rtol), Status.STAGNATED)
        if system.potential is not None and not here.J.definite:
            stop(failed, Status.NOT_CONVEX)
        stop(failed, Status.LINE_SEARCH_FAILED)
        if not bool((codes == _RUNNING).any()):
            break
        here = at(system, here.u + spread(length, len(system.shape)) * d)
        history.append(here.relative)
        iterations = iterations + (codes == _RUNNING)
        if progress is not None:
            progress(step, float(here.relative.max()))
    stop(~torch.isfinite(here.relative), Status.NOT_FINITE)
    stop(here.relative <= rtol, Status.CONVERGED)
    if system.potential is not None:
        stop(curved, Status.NOT_CONVEX)
    stop(codes == _RUNNING, Status.MAX_ITERATIONS)
    statuses = tuple(_STATUSES[code] for code in codes.flatten().tolist())
    residuals = torch.stack(history).cpu()
    return Course(here.u, statuses, iterations.cpu(), residuals, here.relative, ~curved)


def _line_search(
    system: NonlinearSystem,
    here: Iterate,
    d: torch.Tensor,
    running: torch.Tensor,
    sufficient: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Step lengths per sample, zero where none was found or none wanted; and where none was."""
    dims = len(system.shape)
    energy = system.potential
    length = torch.where(running, 1.0, 0.0).to(here.F.dtype)
    if energy is None:
        before, slope = norm(here.F, dims), -norm(here.F, dims)
        slack = torch.zeros_like(before)
    else:
        before, slope = energy(here.u, 0.0), dot(here.F, d, dims)
        slack = _ROUNDING * before.abs()
    pending = running & (slope < 0)
    failed = running & ~pending
    for _ in range(_TRIALS):
        if not bool(pending.any()):
            break
        trial = here.u + spread(length, dims) * d
        after = norm(system.residual(trial, 0.0), dims) if energy is None else energy(trial, 0.0)
        enough = after <= before + sufficient * length * slope + slack
        pending &= ~(enough & torch.isfinite(after))
        length = torch.where(pending, _shorter(length, before, slope, after), length)
    failed |= pending
    return torch.where(failed, 0.0, length), failed


def _shorter(
    length: torch.Tensor, before: torch.Tensor, slope: torch.Tensor, after: torch.Tensor
) -> torch.Tensor:
    """Where the parabola through what is known is least, from a tenth to a half of ``length``."""
    excess = after - before - length * slope
    least = -0.5 * slope * length.square() / excess
    least = torch.where(torch.isfinite(least) & (excess > 0), least, 0.5 * length)
    return torch.minimum(torch.maximum(least, 0.1 * length), 0.5 * length)
