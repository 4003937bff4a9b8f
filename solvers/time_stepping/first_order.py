"""The system of ODEs as one of first order, y = (u) or y = (u, u').

    mass u' + F(u, t) = 0:                  u' = -F / mass
    inertia u'' + mass u' + F(u, t) = 0:    u' = v,  v' = -(F + mass v) / inertia

A state y is one tensor (parts, *batch, *shape) of one or two parts.
"""

from __future__ import annotations

import torch

from sciml.core.errors import InputError
from sciml.core.nonlinear import NonlinearSystem


def check_masses(system: NonlinearSystem) -> None:
    """Raise InputError unless there is a time derivative at every unknown."""
    leading, name = (system.mass, "d") if system.inertia is None else (system.inertia, "m")
    if leading is None:
        raise InputError(
            "the equation has no time derivative: give d (before u_t) or m (before u_tt)",
            "problem.equation",
        )
    if not bool((leading > 0).all()):
        raise InputError(
            f"{name} must be positive everywhere; it is {float(leading.min()):.3g} somewhere",
            f"problem.equation.{name}",
        )


def first_state(system: NonlinearSystem) -> torch.Tensor:
    """y at the start, with the whole batch leading."""
    parts = system.first if system.inertia is not None else system.first[:1]
    batch = torch.broadcast_shapes(
        system.batch, *(p.shape[: p.ndim - len(system.shape)] for p in parts)
    )
    return torch.stack([p.to(torch.float64).expand(*batch, *system.shape) for p in parts])


def rate(system: NonlinearSystem, y: torch.Tensor, t: float) -> torch.Tensor:
    """y' at time t."""
    force = system.residual(y[0], t)
    if system.inertia is None:
        assert system.mass is not None
        return (force / system.mass).neg_()[None]
    if system.mass is not None:
        force = force + system.mass * y[1]
    return torch.stack([y[1], -force / system.inertia])


# The rates k of a step: one tensor whose rows are filled, or a list where a graph is kept of them.
Rates = torch.Tensor | list[torch.Tensor]


def blank_rates(y: torch.Tensor, stages: int) -> Rates:
    """Room for the rates of a step, to be filled by index."""
    if torch.is_grad_enabled():
        return [y] * stages
    return y.new_empty(stages, *y.shape)


def combine(y: torch.Tensor, h: float, weights: torch.Tensor, rates: Rates) -> torch.Tensor:
    """y + h sum_j w_j k_j."""
    if not len(weights):
        return y
    known = rates[: len(weights)]
    stacked = torch.stack(known) if isinstance(known, list) else known
    return torch.add(y, torch.tensordot(weights, stacked, 1), alpha=h)
