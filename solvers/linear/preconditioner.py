"""Which options may stand as a preconditioner, and the map M ~ A^-1 that they set up."""

from __future__ import annotations

from typing import Any, Protocol, get_type_hints, runtime_checkable

import numpy as np
import torch

from sciml.core.algebra.maps import LinearMap
from sciml.core.errors import InputError
from sciml.core.lazy import exported


@runtime_checkable
class Preconditioner(Protocol):
    """Options whose ``setup`` gives a map M ~ A^-1, as a LinearMap.

    Those that ``sciml.solvers`` exports may stand as ``preconditioner:`` (:func:`preconditioners`).
    """

    @property
    def kind(self) -> str:
        """Its name in a spec."""

    def setup(self, A: LinearMap) -> LinearMap:
        """The map; raises InputError for an operator that it cannot precondition."""


def preconditioners() -> list[type[Any]]:
    """The exported classes whose ``setup`` says that it gives a LinearMap, in their order."""
    import sciml.solvers

    return [cls for cls in exported(sciml.solvers, "setup") if _gives_map(cls)]


def _gives_map(cls: type[Any]) -> bool:
    given = get_type_hints(cls.setup).get("return")
    return isinstance(given, type) and issubclass(given, LinearMap)


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
