"""Algebraic multigrid by PyAMG: Ruge-Stuben (1987) or smoothed aggregation (Vanek et al. 1996).

A hierarchy per sample is built from the matrix; one symmetric V cycle with symmetric Gauss-Seidel
before and after each coarse correction is the preconditioner, and repeated it is the solver. Where
a map knows a subspace of lower degree, as elements of degree 2 have that of degree 1, the first
coarse level is that (p-multigrid): an M-matrix where the first one is none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import scipy.sparse

from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Action, PerSample, matrices, projected
from sciml.solvers.linear.iteration import StationaryMethod, check_options, singular_symmetric


@dataclass(frozen=True)
class AMG(StationaryMethod):
    """V cycles of PyAMG: on their own, or far better as ``CG(preconditioner=AMG())``.

    ``setup`` returns the cycle as a LinearMap. Hierarchies are built sample by sample. ``method``
    None: smoothed aggregation where there is a near-nullspace that Ruge and Stuben's interpolation
    does not have, or no subspace of lower degree; else theirs.
    ``near_nullspace``: (n, k) vectors that A makes small, such as rigid motions in elasticity, for
    Python only; those that A brings along (finite elements) unless it is given. ``block``: unknowns
    per node, where they stand together.
    """

    kind: Literal["amg"] = "amg"
    method: Literal["ruge_stuben", "smoothed_aggregation"] | None = None
    rtol: float = 1e-8
    max_iterations: int = 200
    near_nullspace: Any = field(default=None, repr=False, compare=False, metadata={"yaml": False})
    block: int | None = field(default=None, metadata={"yaml": False})
    window = 50

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations, block=self.block or 1)
        if self.near_nullspace is not None and self.method == "ruge_stuben":
            raise InputError(
                "amg: only smoothed_aggregation takes a near_nullspace", "solver.near_nullspace"
            )

    def _modes(self, A: LinearMap) -> tuple[np.ndarray | None, int]:
        """The near-nullspace and the block of A; InputError where they do not fit it."""
        block = A.block if self.block is None else self.block
        if A.size % block:
            raise InputError(f"amg: {A.size} unknowns are no whole number of blocks of {block}")
        if self.near_nullspace is None:
            return A.near_nullspace, block
        try:
            vectors = np.array(self.near_nullspace, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError("amg: near_nullspace must hold numbers") from error
        vectors = vectors.reshape(-1, 1) if vectors.ndim == 1 else vectors
        if vectors.ndim != 2 or len(vectors) != A.size or not np.isfinite(vectors).all():
            raise InputError(
                f"amg: near_nullspace must be finite vectors as columns, ({A.size}, k); got shape "
                f"{vectors.shape}",
                "solver.near_nullspace",
            )
        return vectors, block

    def setup(self, A: LinearMap) -> PerSample:
        """Build the hierarchies; raises InputError for a complex operator."""
        if A.dtype.is_complex:
            raise InputError(
                "amg needs a real operator; for a complex one use gmres with shifted_laplacian, "
                "or direct",
                "solver.kind",
            )
        samples = matrices(A)
        near, block = self._modes(A)
        actions = [_cycle(matrix, self.method, near, block, A) for matrix in samples]
        adjoints = actions if A.symmetric else None
        return PerSample(
            A, actions, adjoints, symmetric=A.symmetric, definite=A.symmetric and A.definite
        )


def _vertices(down: scipy.sparse.csr_matrix) -> np.ndarray:
    """For every function of the subspace the unknown that is its value at its own node."""
    single = np.flatnonzero(np.diff(down.indptr) == 1)
    own = single[np.isclose(down.data[down.indptr[single]], 1.0)]
    found = np.zeros(down.shape[1], dtype=np.int64)
    found[down.indices[down.indptr[own]]] = own
    return found


def _on_top(
    hierarchy: Any, fine: scipy.sparse.csr_matrix, down: scipy.sparse.csr_matrix, smoother: Any
) -> None:
    """Put one more level on a hierarchy."""
    import pyamg

    level = pyamg.MultilevelSolver.Level()
    level.A, level.P, level.R = fine, down, down.T.tocsr()
    hierarchy.levels.insert(0, level)
    pyamg.relaxation.smoothing.change_smoothers(hierarchy, smoother, smoother)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _cycle(
    matrix: scipy.sparse.csr_matrix,
    method: str | None,
    near_nullspace: np.ndarray | None,
    block: int,
    A: LinearMap,
) -> Action:
    import pyamg

    smoother = ("gauss_seidel", {"sweep": "symmetric"})
    options: dict[str, Any] = {"presmoother": smoother, "postsmoother": smoother}
    singular = singular_symmetric(A)
    fine, down = matrix, A.coarse
    if down is not None:
        matrix = (down.T @ matrix @ down).tocsr()
        if near_nullspace is not None:
            kept = _vertices(down)
            near_nullspace = near_nullspace[kept]
            constant = near_nullspace.shape[1] == 1 and np.ptp(near_nullspace) == 0
            near_nullspace = None if constant else near_nullspace
    if singular:
        # At its default cut-off pinv inverts the rounding left of the zero eigenvalue.
        cut = {"rtol": 1e-10, "atol": 1e-12 * float(abs(matrix).max())}
        options["coarse_solver"] = ("pinv", cut)
    near = near_nullspace
    try:
        if method == "ruge_stuben" or (method is None and near is None):
            hierarchy = pyamg.ruge_stuben_solver(matrix, **options)
        else:
            options["symmetry"] = "symmetric" if A.symmetric else "nonsymmetric"
            blocked = matrix.tobsr((block, block)) if block > 1 else matrix
            hierarchy = pyamg.smoothed_aggregation_solver(blocked, B=near, **options)
        if down is not None:
            _on_top(hierarchy, fine, down, smoother)
        operator = hierarchy.aspreconditioner(cycle="V")
        # The coarsest matrix is inverted in the first cycle.
        operator.matvec(np.zeros(len(fine.indptr) - 1))
    except (ArithmeticError, ValueError, IndexError, RuntimeError) as error:
        raise InputError(
            f"amg: no hierarchy can be built for this matrix ({_first_line(error)}); "
            "use direct, or gmres with ilu",
            "solver.kind",
        ) from error

    def action(right: np.ndarray) -> np.ndarray:
        if singular:
            right = projected(A, right)
        try:
            columns = [operator.matvec(np.ascontiguousarray(column)) for column in right.T]
        except (ArithmeticError, ValueError):
            return np.full_like(right, np.nan)  # which the method then says
        image = np.stack(columns, axis=1) if columns else np.empty_like(right)
        return projected(A, image) if singular else image

    return action
