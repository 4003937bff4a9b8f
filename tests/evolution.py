"""Systems of ODEs with a known solution, and problems in time to be marched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.stencil import Stencil, cross_offsets
from sciml.core.problem.grid import Box, Grid
from sciml.core.problem.problem import Condition, Equation, Problem, Time
from sciml.core.run.solution import Solution
from sciml.solvers.time.march import TimeState

Force = Callable[[torch.Tensor, float], torch.Tensor]


def pointwise(
    force: Force, slope: Force, first: tuple[torch.Tensor, ...], damping: float = 0.0
) -> NonlinearSystem:
    """``u' + force = 0``, or ``u'' + damping u' + force = 0``, at each of the points by itself."""
    n = first[0].shape[-1]
    one = torch.ones(n, dtype=torch.float64)

    def diagonal(values: torch.Tensor) -> Stencil:
        planes = torch.zeros(*values.shape[:-1], 3, n, dtype=torch.float64)
        planes[..., 0, :] = values
        return Stencil(planes, cross_offsets(1), symmetric=True, definite=True)

    second = len(first) == 2
    return NonlinearSystem(
        residual=force,
        linearise=lambda u, t: diagonal(slope(u, t)),
        diffusion=lambda u, t: diagonal(torch.ones_like(u)),
        shape=(n,),
        batch=tuple(first[0].shape[:-1]),
        on=Grid((n,), domain=Box((0.0,), (1.0,))),
        lift=lambda u, t: u,
        restrict=lambda value: value,
        first=first,
        mass=one if not second else (damping * one if damping else None),
        inertia=one if second else None,
        symmetric=True,
        steady=False,
    )


FIRST = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
PHASE = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)


def decay() -> NonlinearSystem:
    """u' = -(1 + sin(t) / 2) u^2."""
    weight = lambda t: 1 + 0.5 * math.sin(t)  # noqa: E731
    return pointwise(lambda u, t: weight(t) * u**2, lambda u, t: 2 * weight(t) * u, (FIRST,))


def decayed(t: float) -> torch.Tensor:
    return 1 / (1 / FIRST + t + 0.5 * (1 - math.cos(t)))


def oscillator() -> NonlinearSystem:
    """u'' + 0.3 u' + u^3 / 2 = g(t), so that u = sin(t + phase)."""

    def force(u: torch.Tensor, t: float) -> torch.Tensor:
        s = torch.sin(t + PHASE)
        return u**3 / 2 - (-s + 0.3 * torch.cos(t + PHASE) + s**3 / 2)

    first = (torch.sin(PHASE), torch.cos(PHASE))
    return pointwise(force, lambda u, t: 1.5 * u**2, first, damping=0.3)


def swung(t: float) -> torch.Tensor:
    return torch.sin(t + PHASE)


def march(system: NonlinearSystem, integrator: Any, *times: float, **more: Any) -> Solution:
    return integrator.run(TimeState(system, tuple(times)), **more)


def on_line(equation: Equation, side: Condition | str, end: float, initial: Any, **more: Any):
    """A problem on [0, 1] with the same condition on both sides, or on the given ``box``."""
    box = more.pop("box", Box((0.0,), (1.0,)))
    frames = more.pop("frames", 2)
    condition = {
        "periodic": Condition(periodic=True),
        "dirichlet": Condition(dirichlet=0.0),
        "neumann": Condition(neumann=0.0),
    }.get(side, side)  # type: ignore[arg-type]
    boundary = dict.fromkeys(box.sides, condition)
    return Problem(box, equation, boundary, time=Time(end, frames=frames), initial=initial, **more)


def evolve(problem: Problem, integrator: Any, *shape: int, **more: Any) -> Solution:
    return integrator.run(integrator.init(problem, Grid(shape)), **more)


def order(errors: list[float], ratio: float = 2.0) -> float:
    return math.log(errors[-2] / errors[-1]) / math.log(ratio)
