"""From a problem and a grid to a linear system, by second-order finite volumes.

The equation is integrated over the control volume C_i of every unknown,

    int_{C_i} -div(K grad u) + b . grad u + c u = int_{C_i} f,

so that A is symmetric where the equation is self-adjoint, and the entries of b are integrals. Which
points are unknowns is said in ``layout``, fluxes in ``faces`` and ``tensor``, sides in
``boundary``, holes in ``obstacle``.
"""

from __future__ import annotations

from sciml.core.discretize.assemble import discretize
from sciml.core.discretize.memory import memory_estimate
from sciml.core.discretize.nonlinear import semidiscretize

__all__ = ["discretize", "memory_estimate", "semidiscretize"]
