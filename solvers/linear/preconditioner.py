"""Which options may stand as a preconditioner, and the map M ~ A^-1 that they set up."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.solvers.learned.conjugate_directions import ConjugateDirections
from sciml.solvers.learned.multigrid import LearnedMultigrid
from sciml.solvers.learned.neural_ic import NeuralIC
from sciml.solvers.linear.amg import AMG
from sciml.solvers.linear.direct import Direct
from sciml.solvers.linear.fast_poisson import FastPoisson
from sciml.solvers.linear.incomplete import ILU, IncompleteCholesky
from sciml.solvers.linear.multigrid import Multigrid
from sciml.solvers.linear.relaxation import SSOR, Jacobi
from sciml.solvers.linear.shifted_laplacian import ShiftedLaplacian

Preconditioner: TypeAlias = (
    Direct
    | AMG
    | FastPoisson
    | Multigrid
    | Jacobi
    | SSOR
    | IncompleteCholesky
    | ILU
    | ConjugateDirections
    | LearnedMultigrid
    | NeuralIC
    | ShiftedLaplacian
)


def setup_preconditioner(preconditioner: Any, A: LinearMap) -> LinearMap | None:
    """The map ``M ~ A^-1`` of a preconditioner's options, of a LinearMap (itself), or of None.

    Raises InputError for anything else, and for a map that does not act on A's arrays.
    """
    if preconditioner is None:
        return None
    if isinstance(preconditioner, LinearMap):
        return _fitting(preconditioner, A)
    if isinstance(preconditioner, type) or not hasattr(preconditioner, "setup"):
        raise InputError(
            f"{preconditioner!r} is no preconditioner; pass an instance such as Multigrid()",
            "solver.preconditioner",
        )
    try:
        M = preconditioner.setup(A)
    except (np.linalg.LinAlgError, torch.linalg.LinAlgError) as error:
        raise InputError(
            f"{preconditioner.kind} cannot be set up, the operator or a coarse one being singular; "
            "use jacobi",
            "solver.preconditioner",
        ) from error
    if not isinstance(M, LinearMap):
        raise InputError(
            f"{preconditioner.kind} is no preconditioner: it is not a fixed approximate inverse; "
            "use multigrid, amg, fast_poisson, direct or jacobi",
            "solver.preconditioner",
        )
    return _fitting(M, A)


def _fitting(M: LinearMap, A: LinearMap) -> LinearMap:
    if M.shape != A.shape or M.batch not in ((), A.batch):
        raise InputError(
            f"the preconditioner acts on arrays {[*M.batch, *M.shape]} and the operator on "
            f"{[*A.batch, *A.shape]}",
            "solver.preconditioner",
        )
    return M
