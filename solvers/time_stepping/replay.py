"""Gradients through a march in time: its steps once more, with a graph.

The march itself keeps no graph, and its choice of steps is not differentiated. Its steps are then
taken again, frame by frame, each interval under a checkpoint: the backward pass keeps one state per
frame and recomputes the steps between two of them (Griewank and Walther 2000). For an equation
given by an energy all steps are kept. Implicit stages are differentiated by the implicit function
theorem.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from sciml.core.nonlinear import NonlinearSystem
from sciml.solvers.time_stepping.first_order import first_state
from sciml.solvers.time_stepping.march import Journal
from sciml.solvers.time_stepping.scheme import Memory, Scheme


def wants_gradient(system: NonlinearSystem, start: float) -> bool:
    """Whether a gradient may be asked for: something in the system has a graph."""
    if not torch.is_grad_enabled():
        return False
    y = first_state(system)
    given = [y, system.residual(y[0], start), system.lift(y[0], start)]
    given += [m for m in (system.mass, system.inertia) if m is not None]
    return any(tensor.requires_grad for tensor in given)


def replay(
    scheme: Scheme, system: NonlinearSystem, times: tuple[float, ...], journal: Journal
) -> list[torch.Tensor]:
    """u at every frame, with a graph; the steps are those of ``journal``."""
    y = first_state(system)
    memory = scheme.begin(y, times[0])
    states, done = [y[0]], 0
    for start, mark in zip(times, journal.marks, strict=False):
        sizes = tuple(journal.sizes[done:mark])
        done = mark

        def interval(
            y: torch.Tensor,
            *memory: torch.Tensor,
            start: float = start,
            sizes: tuple[float, ...] = sizes,
        ) -> tuple[torch.Tensor, ...]:
            return _steps(scheme, y, memory, start, sizes, len(system.shape))

        if system.potential is None:
            y, *rest = checkpoint(interval, y, *memory, use_reentrant=False)
        else:  # the gradient of an energy cannot be taken under a checkpoint
            y, *rest = interval(y, *memory)
        memory = tuple(rest)
        states.append(y[0])
    return states


def _steps(
    scheme: Scheme,
    y: torch.Tensor,
    memory: Memory,
    start: float,
    sizes: tuple[float, ...],
    dimension: int,
) -> tuple[torch.Tensor, ...]:
    scheme.forget()
    alive = torch.ones(y.shape[1 : y.ndim - dimension], dtype=torch.bool)
    t = start
    for h in sizes:
        attempt = scheme.advance(y, memory, t, h, alive)
        y, memory, t = attempt.y, attempt.memory, t + h
    return y, *memory
