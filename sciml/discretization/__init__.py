"""From a problem and a place to a system of equations.

On a grid by finite volumes, on a mesh by finite elements, at points as a residual, for periodic
problems on Fourier coefficients. Which function answers is looked up by the types of equation and
place: :mod:`sciml.core.problem.dispatch`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from sciml.core.algebra.maps import LinearSystem
from sciml.core.algebra.nonlinear import NonlinearSystem
from sciml.core.algebra.pencil import Pencil
from sciml.core.problem.dispatch import discretises, poses_modes, semidiscretises
from sciml.core.problem.grid import Grid
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.place import discrete
from sciml.core.problem.problem import Problem

# Loaded for what they register.
from sciml.discretization.elements import derived as _derived_on_meshes  # noqa: F401
from sciml.discretization.elements import (  # noqa: F401
    elasticity,
    flow,
    galerkin,
    plasticity,
    scalar,
    solid,
)
from sciml.discretization.elements import functionals as _on_meshes  # noqa: F401
from sciml.discretization.elements import helmholtz as _waves_on_meshes  # noqa: F401
from sciml.discretization.elements import modes as _modes_on_meshes  # noqa: F401
from sciml.discretization.points import functionals as _at_points  # noqa: F401
from sciml.discretization.volumes import (  # noqa: F401
    assemble,
    helmholtz,
    nonlinear,
    systems,
)
from sciml.discretization.volumes import derived as _derived_on_grids  # noqa: F401
from sciml.discretization.volumes import functionals as _on_grids  # noqa: F401
from sciml.discretization.volumes import modes as _modes_on_grids  # noqa: F401
from sciml.discretization.volumes.memory import memory_estimate

__all__ = ["discretize", "memory_estimate", "pencil", "semidiscretize"]


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
    the one of zero integral over the domain. Both are differentiable in tensor coefficients. Raises
    InputError for coefficients, data or sizes that make no well-posed system.
    """
    problem.check_conditions()
    problem.check_unbounded()
    lower = discretises.look_up(problem.equation, type(on))
    system = lower(problem, on, dtype=dtype, device=torch.device(device))
    return replace(system, problem=problem)


def semidiscretize(
    problem: Problem,
    on: Grid | Mesh,
    *,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> NonlinearSystem:
    """Lower a problem in time, or a nonlinear one, to ``inertia u'' + mass u' + F(u, t) = 0``.

    Arrays are in ``dtype`` on ``device``; see :class:`NonlinearSystem` for their shapes. A steady
    problem has no mass. Raises InputError for coefficients or data that do not go together.
    """
    discrete(on)
    problem.check_conditions()
    lower = semidiscretises.look_up(problem.equation, type(on))
    return lower(problem, on, dtype=dtype, device=torch.device(device))


def pencil(problem: Problem, on: Grid | Mesh, *, device: torch.device | str = "cpu") -> Pencil:
    """The modes of a problem as ``A u = lambda M u``, float64.

    A and M are Stencils on a grid, PatternMatrices on a mesh, differentiable in tensor
    coefficients. Raises InputError for a problem that has no modes: one in time, nonlinear, not
    symmetric, or with a source or boundary data.
    """
    discrete(on)
    problem.check_unbounded()
    pose = poses_modes.look_up(problem.equation, type(on))
    return pose(problem, on, device=torch.device(device))
