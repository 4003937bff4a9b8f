"""Newmark's method, and generalised alpha, which damps what is not resolved (Chung, Hulbert 1993).

For inertia u'' + mass u' + F(u, t) = 0, with a what stands for u'',

    u_new = u + h v + h^2 ((1/2 - beta) a + beta a_new),
    v_new = v + h ((1 - gamma) a + gamma a_new),
    inertia a_m + mass v_f + F(u_f, t_f) = 0,
    a_m = (1 - alpha_m) a_new + alpha_m a,    x_f = (1 - alpha_f) x_new + alpha_f x,

and from rho, by which a step multiplies the fastest modes,

    alpha_m = (2 rho - 1) / (rho + 1),    alpha_f = rho / (rho + 1),
    gamma = 1/2 - alpha_m + alpha_f,      beta = (1 - alpha_m + alpha_f)^2 / 4.

Of second order and stable for all steps. With rho = 1 it is the trapezoidal rule, beta = 1/4 and
gamma = 1/2 (Newmark 1959), which conserves the energy v . M v / 2 + u . A u / 2 of a linear body
exactly; alpha_m and alpha_f, which change nothing there, are zero then: with a half each, rounding
in a would stay for ever. Elsewhere a is u'' at t + (alpha_m - alpha_f) h, so that the local error
of u is

    (1/6 - beta - (alpha_m - alpha_f) / 2) h^2 (a_new - a)    (Zienkiewicz and Xie 1991),

by which steps are chosen: velocities jump where a load begins suddenly, displacements do not, and
steps that follow every wave that it sends out would be as short as the elements let them be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from sciml.core.algebra.nonlinear import Inertia, NonlinearSystem, times
from sciml.core.errors import InputError
from sciml.solvers.time.implicit import StageSolver, stage_remark, stage_tolerance, valued
from sciml.solvers.time.march import (
    Integrator,
    Memory,
    Scheme,
    TimeStep,
    check_time_options,
    divided,
    rate,
)


@dataclass(frozen=True)
class Newmark(Integrator):
    """Newmark's method for second order in time, or generalised alpha where ``rho_inf`` is below 1.

    ``rho_inf``: by how much a step multiplies modes that are much faster than it, from 0 (gone in
    one step) to 1 (kept, as all energy is). One linear solve a step where the equation is linear.
    """

    kind: Literal["newmark"] = "newmark"
    rtol: float = 1e-4
    atol: float | None = None
    step: float | None = None
    rho_inf: float = 1.0

    def __post_init__(self) -> None:
        check_time_options(self.kind, self.rtol, self.atol, self.step)
        if not 0 <= self.rho_inf <= 1:
            raise InputError(
                f"newmark: rho_inf lies between 0 and 1; got {self.rho_inf:g}", "solver.rho_inf"
            )

    def scheme(self, system: NonlinearSystem, start: float) -> Scheme:
        """The method for a system; raises InputError for one that is not of second order."""
        if system.inertia is None or bool((_diagonal(system.inertia) <= 0).any()):
            raise InputError(
                "newmark is for equations of second order in time, every field of them with m; use "
                "sdirk or bdf",
                "solver.kind",
            )
        if system.storage is not None:
            raise InputError(
                "newmark needs d that does not depend on the solution", "problem.equation.d"
            )
        return GeneralisedAlpha(system, self.rho_inf, self.rtol)


_SOLVED = 1e-8  # residual of a stage at most, or energy would not be kept by loose steps either


def _diagonal(inertia: Inertia) -> torch.Tensor:
    return inertia if isinstance(inertia, torch.Tensor) else inertia.diagonal()


class GeneralisedAlpha(Scheme):
    """Steps for one rho; the memory is a."""

    exponent, growth, frugal = 3, 2.0, True

    def __init__(self, system: NonlinearSystem, rho: float, rtol: float) -> None:
        self.system = system
        given = ((2 * rho - 1) / (rho + 1), rho / (rho + 1))
        self.alpha_m, self.alpha_f = (0.0, 0.0) if rho == 1 else given
        shift = self.alpha_m - self.alpha_f
        self.gamma, self.beta = 0.5 - shift, (1 - shift) ** 2 / 4
        self.share = 1 / 6 - self.beta - shift / 2
        self.name = "Newmark, trapezoidal" if rho == 1 else f"generalised alpha, rho {rho:g}"
        self.stages = StageSolver(system, min(stage_tolerance(rtol), _SOLVED), rtol)

    def begin(self, y: torch.Tensor, t: float) -> Memory:
        """u'' at the start."""
        return (rate(self.system, y, t)[1],)

    def advance(
        self, y: torch.Tensor, memory: Memory, t: float, h: float, alive: torch.Tensor
    ) -> TimeStep:
        """One stage: the unknown is u_f."""
        (u, v), (a,) = y, memory
        system, mass, alpha_m, alpha_f = self.system, self.system.mass, self.alpha_m, self.alpha_f
        kept_m, kept_f = 1 - alpha_m, 1 - alpha_f
        # u_f where a_m is zero, and v_f of that.
        still = -alpha_m / kept_m * a
        u_still = u + kept_f * (h * v + h**2 * ((0.5 - self.beta) * a + self.beta * still))
        v_still = v + kept_f * h * ((1 - self.gamma) * a + self.gamma * still)
        # From there a_m = (u_f - u_still) / tau^2 and v_f = v_still + pace (u_f - u_still) / tau.
        tau = h * (kept_f * self.beta / kept_m) ** 0.5
        pace = kept_f * h * self.gamma / (kept_m * tau)
        now = t + kept_f * h

        def residual(U: torch.Tensor, t: float) -> torch.Tensor:
            """F, and what of the damping is not that of a velocity (u_f - base) / tau."""
            force = system.residual(U, t)
            return force if mass is None else force + times(mass, (pace - 1) / tau * (U - u_still))

        base = torch.stack([u_still - tau * v_still, v_still])
        guess = u + kept_f * h * (v + h / 2 * a)
        found = self.stages.solve(tau, base, now, guess, alive, residual)
        a_m = (found.value.detach() - u_still.detach()) / tau**2
        if torch.is_grad_enabled():
            # As with other stages: the numbers of the difference, the gradient of the equation.
            force, leading = system.residual(found.value, now), system.inertia
            assert leading is not None
            if mass is not None:
                force = force + times(mass, v_still)
                leading = StageSolver.damped(leading, mass, pace * tau)
            a_m = valued(a_m, -divided(force, leading))
        a_new = (a_m - alpha_m * a) / kept_m
        moved = u + h * v + h**2 * ((0.5 - self.beta) * a + self.beta * a_new)
        velocity = v + h * ((1 - self.gamma) * a + self.gamma * a_new)
        error = torch.stack([self.share * h**2 * (a_new - a), torch.zeros_like(v)])
        return TimeStep(
            torch.stack([moved, velocity]), (a_new,), error, found.residual, found.solved
        )

    def forget(self) -> None:
        """Of nonlinear equations the Jacobian."""
        self.stages.forget()

    def remark(self) -> str:
        """Set-ups and solves."""
        return stage_remark(self.stages)
