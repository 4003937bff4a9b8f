"""Algebraic multigrid by PyAMG: Ruge-Stuben (1987) or smoothed aggregation (Vanek et al. 1996).

A hierarchy per sample is built from the matrix; one symmetric V cycle with symmetric Gauss-Seidel
before and after each coarse correction is the preconditioner, and repeated it is the solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse

from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.solvers.linear.inverse import Action, PerSample, matrices
from sciml.solvers.linear.iteration import StationaryMethod, check_options, singular_symmetric


@dataclass(frozen=True)
class AMG(StationaryMethod):
    """V cycles of PyAMG: on their own, or far better as ``CG(preconditioner=AMG())``.

    ``setup`` returns the cycle as a LinearMap. Hierarchies are built sample by sample. ``method``
    None: smoothed aggregation where A brings a near-nullspace (finite elements), else Ruge-Stuben.
    """

    kind: Literal["amg"] = "amg"
    method: Literal["ruge_stuben", "smoothed_aggregation"] | None = None
    rtol: float = 1e-8
    max_iterations: int = 200
    window = 50

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)

    def setup(self, A: LinearMap) -> PerSample:
        """Build the hierarchies; raises InputError for a complex operator."""
        if A.dtype.is_complex:
            raise InputError(
                "amg needs a real operator; for a complex one use gmres with shifted_laplacian, "
                "or direct",
                "solver.kind",
            )
        samples = matrices(A)
        actions = [_cycle(matrix, self.method, A) for matrix in samples]
        adjoints = actions if A.symmetric else None
        return PerSample(
            A, actions, adjoints, symmetric=A.symmetric, definite=A.symmetric and A.definite
        )


def _cycle(matrix: scipy.sparse.csr_matrix, method: str | None, A: LinearMap) -> Action:
    import pyamg

    smoother = ("gauss_seidel", {"sweep": "symmetric"})
    options: dict[str, Any] = {"presmoother": smoother, "postsmoother": smoother}
    singular = singular_symmetric(A)
    if singular:
        # At its default cut-off pinv inverts the rounding left of the zero eigenvalue.
        cut = {"rtol": 1e-10, "atol": 1e-12 * float(abs(matrix).max())}
        options["coarse_solver"] = ("pinv", cut)
    if method == "ruge_stuben" or (method is None and A.near_nullspace is None):
        hierarchy = pyamg.ruge_stuben_solver(matrix, **options)
    else:
        options["symmetry"] = "symmetric" if A.symmetric else "nonsymmetric"
        blocked = matrix.tobsr((A.block, A.block)) if A.block > 1 else matrix
        hierarchy = pyamg.smoothed_aggregation_solver(blocked, B=A.near_nullspace, **options)
    operator = hierarchy.aspreconditioner(cycle="V")

    def action(right: np.ndarray) -> np.ndarray:
        if singular:
            right = right - right.mean(axis=0)
        columns = [operator.matvec(np.ascontiguousarray(column)) for column in right.T]
        image = np.stack(columns, axis=1) if columns else np.empty_like(right)
        return image - image.mean(axis=0) if singular else image

    return action
