"""From a problem and a grid to a linear system, by second-order finite volumes.

(On a mesh by finite elements: ``elements``.) Which function does so is looked up by the types of
equation and place: :mod:`sciml.core.dispatch`.

The equation is integrated over the control volume C_i of every unknown,

    int_{C_i} -div(K grad u) + b . grad u + c u = int_{C_i} f,

so that A is symmetric where the equation is self-adjoint, and the entries of b are integrals. Which
points are unknowns is said in ``layout``, fluxes in ``fluxes`` and ``tensor``, sides in
``boundary``, holes in ``obstacle``.
"""

from __future__ import annotations

from dataclasses import replace

import torch

# Loaded for what they register.
from sciml.core.discretize import (  # noqa: F401
    assemble,
    elements,
    elements_elasticity,
    helmholtz,
    nonlinear,
    systems,
)
from sciml.core.discretize.memory import memory_estimate
from sciml.core.dispatch import discretises, semidiscretises
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
from sciml.core.nonlinear import NonlinearSystem
from sciml.core.problem import Problem

__all__ = ["discretize", "memory_estimate", "semidiscretize"]


def discretize(
    problem: Problem,
    on: Grid | Mesh,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> LinearSystem:
    """Lower a steady linear problem to ``A x = b``; A and b in ``dtype`` on ``device``.

    On a grid ``A`` is a :class:`Stencil` of shape (*unknowns), on a mesh a :class:`PatternMatrix`
    of shape (unknowns,); b has shape (*batch, *A.shape). Dirichlet values are no unknowns; ``lift``
    puts them back. Where constants are in the kernel of A, b is made compatible and the solution is
    the one with zero mean over the unknowns. Both are differentiable in tensor coefficients. Raises
    InputError for coefficients, data or sizes that make no well-posed system.
    """
    lower = discretises.look_up(problem.equation, type(on))
    system = lower(problem, on, dtype=dtype, device=torch.device(device))
    return replace(system, problem=problem)


def semidiscretize(
    problem: Problem,
    on: Grid,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> NonlinearSystem:
    """Lower a problem in time, or a nonlinear one, to ``inertia u'' + mass u' + F(u, t) = 0``.

    Arrays are in ``dtype`` on ``device``; see :class:`NonlinearSystem` for their shapes. A steady
    problem has no mass. Raises InputError for coefficients or data that do not go together.
    """
    lower = semidiscretises.look_up(problem.equation, type(on))
    return lower(problem, on, dtype=dtype, device=torch.device(device))
