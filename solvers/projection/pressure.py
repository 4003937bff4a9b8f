"""The pressure's Poisson problem: -Lap phi = -D u* / dt, discretised and solved by the core.

n . grad phi = 0 on walls and rims, phi = 0 on outlets. On a whole box fast transforms invert it;
around obstacles, where the open shares of the faces weigh the links, multigrid-CG does, from the
last increment as its guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from sciml.core.discretize import discretize
from sciml.core.discretize.obstacle import Cut
from sciml.core.equation import Equation
from sciml.core.grid import SIDES, Grid
from sciml.core.problem import Condition, Obstacle, Problem
from sciml.core.stencil import Stencil, cross_offsets
from sciml.solvers.fast_poisson import FastPoisson, SpectralInverse
from sciml.solvers.krylov import CG, KrylovState
from sciml.solvers.multigrid import Multigrid
from sciml.solvers.projection.sides import End

# Small beside 1, yet seen in single precision: what regularises the operator for multigrid.
_SLIGHT = 1e-5
_OF_END = {
    "wall": Condition(neumann=0.0),
    "outlet": Condition(dirichlet=0.0),
    "periodic": Condition(periodic=True),
}


def pressure_problem(problem: Problem, ends: tuple[tuple[End, End], ...]) -> Problem:
    """What the pressure increment solves, its source left out."""
    boundary = {
        name: _OF_END[kind]
        for names, kinds in zip(SIDES, ends, strict=False)
        for name, kind in zip(names, kinds, strict=True)
    }
    hole = None
    if problem.obstacle is not None:
        hole = Obstacle(problem.obstacle.inside, Condition(neumann=0.0))
    return Problem(
        problem.box, Equation(kind="poisson"), boundary, hole, parameters=problem.parameters
    )


@dataclass(frozen=True)
class Pressure:
    """The solver of the pressure's system, set up once.

    ``dry``: cells without an open face. ``singular``: p is known but for a constant.
    """

    A: Stencil
    singular: bool
    inverse: SpectralInverse | None
    solver: CG
    prepared: KrylovState | None
    dry: np.ndarray

    def solve(self, b: np.ndarray, guess: np.ndarray | None, tolerance: np.ndarray) -> np.ndarray:
        """``A phi = b`` to a residual ``tolerance``, one per sample; b (samples, *cells)."""
        right = torch.from_numpy(b)
        if self.inverse is not None:
            return self.inverse.apply(right).numpy()
        assert self.prepared is not None
        size = np.linalg.norm(b.reshape(len(b), -1), axis=1)
        rtol = float((tolerance / np.where(size > 0, size, 1.0)).min())
        solver = replace(self.solver, rtol=min(max(rtol, 1e-14), 0.5))
        first = None if guess is None else torch.from_numpy(guess)
        phi = solver.iterate(self.A, self.prepared, right, first, None).x.numpy()
        return phi * ~self.dry

    @property
    def name(self) -> str:
        """The kind of solver, for the log."""
        return "fast_poisson" if self.inverse is not None else "cg with multigrid"


def set_up(
    problem: Problem, grid: Grid, hole: Cut | None, openings: tuple[np.ndarray, np.ndarray]
) -> Pressure:
    """Discretise ``pressure_problem`` on the cells; ``openings`` weigh the faces of x and of y."""
    A = discretize(replace(problem, obstacle=None), grid).A
    assert isinstance(A, Stencil)
    dry = np.zeros(grid.shape, dtype=bool)
    if hole is None:
        return Pressure(A, A.nullspace, FastPoisson().setup(A), CG(), None, dry)
    shares = [torch.from_numpy(share) for share in openings]
    touched = [
        s.narrow(k, 0, n) + s.narrow(k, 1, n) for k, (s, n) in enumerate(zip(shares, A.shape))
    ]
    wet = touched[0] + touched[1] != 0
    exact = _weighed(A, shares)
    solver = CG(preconditioner=Multigrid(), max_iterations=200)
    prepared = solver.setup(_regular(A, shares, wet))
    return Pressure(exact, A.nullspace, None, solver, prepared, ~wet.numpy())


def _weighed(A: Stencil, shares: Sequence[torch.Tensor]) -> Stencil:
    """The stencil with its links weighed.

    Cells that have none left have an empty row: their part of the right-hand side is zero, and no
    residual ever has another there. Constants need no care either, since residuals have no mean.
    """
    planes = A.coefficients.clone(memory_format=torch.contiguous_format)
    for axis, (share, n) in enumerate(zip(shares, A.shape, strict=True)):
        planes[1 + 2 * axis] *= share.narrow(axis, 0, n)
        planes[2 + 2 * axis] *= share.narrow(axis, 1, n)
    planes[0] = -planes[1:].sum(0)
    return Stencil(planes, cross_offsets(2), periodic=A.periodic, symmetric=True, definite=True)


def _regular(A: Stencil, shares: Sequence[torch.Tensor], wet: torch.Tensor) -> Stencil:
    """A nearby operator that multigrid can coarsen and invert.

    Interpolation divides by what couples a point across, of which a cell open along one axis has
    none: it gets a small share along the other. Empty rows get a diagonal entry. Where p is known
    but for a constant, the diagonal is raised a little.
    """
    near = [
        torch.where(_both(wet, axis), share.clamp(min=_SLIGHT), share)
        for axis, share in enumerate(shares)
    ]
    planes = _weighed(A, near).coefficients
    planes[0] = torch.where(planes[0] == 0, A.diagonal(), planes[0])
    if A.nullspace:
        planes[0] *= 1 + _SLIGHT
    return Stencil(planes, cross_offsets(2), periodic=A.periodic, symmetric=True, definite=True)


def _both(mask: torch.Tensor, axis: int) -> torch.Tensor:
    """Of the faces of an axis, those between two cells of the mask; the axis counts as a ring."""
    first, last = mask.narrow(axis, 0, 1), mask.narrow(axis, mask.shape[axis] - 1, 1)
    return torch.cat([last, mask], axis) & torch.cat([mask, first], axis)
