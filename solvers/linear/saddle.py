"""Block preconditioners of saddle points, with algebraic multigrid for their blocks.

    A = [F  B^T],      M = [F'  B^T]^-1    or, of a symmetric A,    [F'  0 ]^-1
        [B  0  ]           [0   -S']                                [0   S']

(Silvester and Wathen 1994; Elman, Silvester and Wathen 2014, chapters 4 and 9). F' is one V cycle
for each field by itself. With Q the multiplier's mass matrix of density 1 / viscosity,
L = B T^-1 B^T, T the diagonal of the velocity's mass, and N = -int p w . grad q of the speed w,

    S'^-1 = Q^-1 + L^-1 (sigma + N Q^-1),

sigma what stands before the velocity itself: a resistance, or 1 / (step) in time. Without w and
sigma this is the mass matrix alone, exact up to a factor that does not depend on the mesh; with
sigma the preconditioner of Cahouet and Chabard (1988); with w that of pressure convection and
diffusion (Kay, Loghin and Wathen 2002), N with the condition of Elman and Tuminaro (2009) where the
flow comes in. Q^-1 is three symmetric Gauss-Seidel sweeps, L^-1 a V cycle.

Where every side gives the velocity one function of the multiplier is no unknown. Q^-1 is then the
inverse on all functions, between the maps that take constants out: what it is near is the inverse
of S without that row, and no eigenvalue strays from the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.sparse
import torch

from sciml.core.algebra.maps import LinearMap, SparseMatrix
from sciml.core.algebra.saddle import Saddle
from sciml.core.errors import InputError
from sciml.core.run.status import Status
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct, affordable
from sciml.solvers.linear.inverse import Action, PerSample, matrices
from sciml.solvers.linear.krylov import GMRES

_SWEEPS = 3
_LEAST = 1e-4  # of the largest resistance: beside it none is felt


@dataclass(frozen=True)
class SaddlePoint:
    """Blocks of a saddle point, such as a flow's on a mesh, by algebraic multigrid.

    ``form``: ``diagonal`` is symmetric and definite, for MINRES; ``triangular`` takes half of the
    steps, of GMRES. None: diagonal where the matrix is symmetric.
    """

    form: Literal["diagonal", "triangular"] | None = None
    kind: Literal["saddle_point"] = "saddle_point"

    def setup(self, A: LinearMap) -> PerSample:
        """The blocks' cycles; raises InputError for a matrix of which no blocks are known."""
        saddle = A.saddle
        if saddle is None or A.batch:
            raise InputError(
                "saddle_point needs one matrix whose blocks are known, of a flow on a mesh; use "
                "amg or direct",
                "solver.preconditioner",
            )
        diagonal = A.symmetric if self.form is None else self.form == "diagonal"
        if diagonal and not A.symmetric:
            raise InputError(
                "the diagonal blocks alone are for a symmetric matrix; use form: triangular",
                "solver.preconditioner.form",
            )
        action = _blocks(A, saddle, diagonal)
        return PerSample(A, [action], [action] if diagonal else None, symmetric=diagonal,
                         definite=diagonal)  # fmt: skip


_PATIENCE = 60  # steps by blocks, beyond which a factorisation that fits is the quicker one
_RESTART = 50  # more steps than a flow takes that the mesh resolves


def blocked(rtol: float) -> GMRES:
    """The method for a saddle point that is not factorised."""
    return GMRES(SaddlePoint("triangular"), rtol=rtol, restart=_RESTART)


class Patience:
    """By what the saddle points of one run are solved: blocks, until these are slow.

    As beside strong convection; from there on by factorisations, where they fit.
    """

    def __init__(self) -> None:
        self.slow = False

    def method(self, A: LinearMap, rtol: float, most: int) -> Direct | GMRES:
        """For the next matrix, in at most ``most`` steps."""
        if not affordable(A):
            return replace(blocked(rtol), max_iterations=most)
        return Direct() if self.slow else replace(blocked(rtol), max_iterations=_PATIENCE)

    def ends(self, A: LinearMap, statuses: Sequence[Status]) -> bool:
        """Whether what the blocks have come to is to be had from a factorisation instead."""
        self.slow = not all(status.success for status in statuses) and affordable(A)
        return self.slow


def _blocks(A: LinearMap, saddle: Saddle, diagonal: bool) -> Action:
    matrix = matrices(A)[0]
    rows = {int(j): np.flatnonzero(saddle.field == j) for j in np.unique(saddle.field)}
    held = rows.pop(saddle.multiplier)
    others = [j for j in rows if j not in saddle.constrained]
    # What drives the flow comes first, and then the flow, which knows it.
    order = [*others, *saddle.constrained]
    cycles = {j: _cycle(matrix, A, rows[j]) for j in order}
    schur = _schur(matrix, saddle, rows, held, A)
    couplings = {j: matrix[rows[j]] for j in order}

    def apply(right: np.ndarray) -> np.ndarray:
        found = np.zeros_like(right)
        found[held] = schur(right[held])
        if not diagonal:
            found[held] *= -1
        for j in order:
            mine = rows[j]
            own = right[mine] if diagonal else right[mine] - couplings[j] @ found
            found[mine] = cycles[j](own)
        return found

    return lambda columns: np.stack([apply(column) for column in columns.T], axis=1)


def _cycle(matrix: scipy.sparse.csr_matrix, A: LinearMap, rows: np.ndarray) -> Action:
    """A V cycle of the diagonal block of these rows."""
    coarse = None
    if A.coarse is not None:
        coarse = A.coarse[rows]
        coarse = coarse[:, np.unique(coarse.indices)]
    return _vcycle(matrix[rows][:, rows].tocsr(), A.symmetric, coarse)


def _vcycle(
    matrix: scipy.sparse.csr_matrix, symmetric: bool, coarse: scipy.sparse.csr_matrix | None
) -> Action:
    constants = np.ones((matrix.shape[0], 1))
    block = SparseMatrix(
        matrix,
        symmetric=symmetric,
        definite=symmetric,
        near_nullspace=constants,
        coarse=coarse,
    )
    cycle = AMG().setup(block)
    return lambda right: cycle.apply(torch.from_numpy(np.ascontiguousarray(right))).numpy()


def _schur(
    matrix: scipy.sparse.csr_matrix,
    saddle: Saddle,
    rows: dict[int, np.ndarray],
    held: np.ndarray,
    A: LinearMap,
) -> Action:
    """S'^-1 on the multiplier's unknowns."""
    from pyamg.relaxation.relaxation import gauss_seidel

    parts = saddle.schur()
    mass, first = parts.mass, int(saddle.anchored)

    def weighed(right: np.ndarray) -> np.ndarray:
        """Q^-1 on all functions of the multiplier, of unknowns."""
        whole = np.concatenate([[-right.sum()], right]) if first else right.copy()
        found = np.zeros_like(whole)
        gauss_seidel(mass, found, whole, iterations=_SWEEPS, sweep="symmetric")
        return found

    def unknowns(whole: np.ndarray) -> np.ndarray:
        return whole[1:] - whole[0] if first else whole

    if saddle.inertia is None and parts.carried is None:
        return lambda right: unknowns(weighed(right))
    mine = np.concatenate([rows[j] for j in saddle.constrained])
    share = 1.0
    weights = saddle.weights[mine]
    if saddle.inertia is not None:
        plain = weights
        sigma = saddle.inertia()[mine] / plain
        weights = np.maximum(sigma, _LEAST * sigma.max()) * plain
        share = float(1 / sigma.mean())
    B = matrix[held][:, mine].tocsr()
    scaled = scipy.sparse.diags(1 / weights)
    L = _vcycle((B @ scaled @ B.T).tocsr(), True, None)

    def carried_too(right: np.ndarray) -> np.ndarray:
        y = weighed(right)
        driven = right if saddle.inertia is not None else np.zeros_like(right)
        if parts.carried is None:
            return unknowns(y) + L(driven)
        if not saddle.turned:
            return unknowns(y) + L(driven + share * (parts.carried @ y)[first:])
        z = L(right)
        back = share * (parts.carried.T @ (np.concatenate([[0.0], z]) if first else z))
        found = np.zeros_like(y)
        whole = (np.concatenate([[-right.sum()], right]) if first else right) + back
        gauss_seidel(mass, found, whole, iterations=_SWEEPS, sweep="symmetric")
        return unknowns(found) + (z if saddle.inertia is not None else 0.0)

    return carried_too
