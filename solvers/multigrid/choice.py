"""Which cycle pays: V, or the alternating one, by a trial on a coarse level.

With the spectrum of B A in [1 - rho, 1], conjugate gradients take some

    n(rho) = 1 / log((1 + sqrt(1 - rho)) / (1 - sqrt(1 - rho)))

iterations per factor e. Both cycles' rho is measured in a few steps from a random error, on a level
so coarse that it costs little. Where V degrades with depth, as it does for large blocks and for
anisotropy across the grid, it does so there too; two levels further down that no longer showed.
"""

from __future__ import annotations

import math

import torch

from sciml.core.stencil import Stencil
from sciml.solvers.multigrid.cycle import MultigridCycle, Smoother
from sciml.solvers.multigrid.hierarchy import Hierarchy

# The ratio of V's iterations to the other's in the trial above which the latter is taken. Where it
# took less time (random blocks, checkerboards, rotated anisotropy) it was 1.09 to 1.60; elsewhere
# 0.97 to 1.06.
PAYS = 1.08
GOOD = 0.14  # a contraction of V that needs no trial of the other cycle
DEPTH = 2  # the level of the trial: a sixteenth of the points in two dimensions
_STEPS = 5


@torch.no_grad()
def choose(
    A: Stencil, hierarchy: Hierarchy, smoother: Smoother, sweeps: int, full: bool = True
) -> MultigridCycle:
    """The V-cycle, or the alternating one where it pays; one choice for all samples."""
    V = MultigridCycle(A, hierarchy, "V", smoother, sweeps, full)
    if not A.definite or _alike(hierarchy):
        return V
    rho = float(V.contraction(DEPTH, _STEPS).max())
    if rho < GOOD:
        return V
    alternating = MultigridCycle(A, hierarchy, "alternating", smoother, sweeps, full)
    other = float(alternating.contraction(DEPTH, _STEPS).max())
    return alternating if iterations(rho) > PAYS * iterations(other) else V


def _alike(hierarchy: Hierarchy) -> bool:
    """Whether nothing is to be chosen: few levels, or a cross of constants (no rotation)."""
    A = hierarchy.levels[0].A
    constant = all(s == 0 for s in A.coefficients.stride()[-A.dimension :])
    cross = len(A.offsets) <= 2 * A.dimension + 1
    return len(hierarchy.levels) < DEPTH + 3 or (constant and cross)


def iterations(rho: float) -> float:
    """Iterations of conjugate gradients per factor e, for a contraction rho: see the module."""
    gap = math.sqrt(max(1 - rho, 1e-12))
    return 1 / math.log((1 + gap) / max(1 - gap, 1e-12))
