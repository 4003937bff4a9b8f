"""From a problem and a grid to a linear system, by second-order finite volumes.

(On a mesh by finite elements: ``elements``.)

The equation is integrated over the control volume C_i of every unknown,

    int_{C_i} -div(K grad u) + b . grad u + c u = int_{C_i} f,

so that A is symmetric where the equation is self-adjoint, and the entries of b are integrals. Which
points are unknowns is said in ``layout``, fluxes in ``fluxes`` and ``tensor``, sides in
``boundary``, holes in ``obstacle``.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sciml.core.discretize.assemble import discretize as _discretize_on_grid
from sciml.core.discretize.memory import memory_estimate
from sciml.core.discretize.nonlinear import semidiscretize
from sciml.core.grid import Grid
from sciml.core.linear import LinearSystem
from sciml.core.mesh import Mesh
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
    if isinstance(on, Mesh):
        from sciml.core.discretize.elements import discretize_on_mesh

        system = discretize_on_mesh(problem, on, dtype=dtype, device=device)
    else:
        system = _discretize_on_grid(problem, on, dtype=dtype, device=device)
    return replace(system, problem=problem)
