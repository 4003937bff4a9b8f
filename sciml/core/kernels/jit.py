"""How the loops are compiled: numba's options, serial and parallel twins, what every row needs.

numba's disk cache looks at the file of a loop and not at this one: after a change here the loops'
``__pycache__`` has to be emptied by hand.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from numba import njit

FAST: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
}


@njit(**FAST)
def wrap(i, n, periodic):
    """Index i on an axis of n, wrapped if periodic, -1 if outside."""
    if 0 <= i < n:
        return i
    return i % n if periodic else -1


# numba turns `t[:] = u` into a slow generic copy; these loops vectorise.
@njit(**FAST)
def fill(t, value):
    """t[:] = value."""
    for j in range(t.shape[0]):
        t[j] = value


@njit(**FAST)
def copy(t, u):
    """t[:] = u."""
    for j in range(t.shape[0]):
        t[j] = u[j]


class Twin:
    """One loop nest compiled twice: serial, and parallel for arrays worth the threads' start."""

    worth_threads = 250_000

    def __init__(self, loops):
        # numba's disk cache tells functions apart by name only, not by their options.
        alias = FunctionType(
            loops.__code__.replace(co_name=f"{loops.__name__}_parallel"), loops.__globals__
        )
        alias.__qualname__ = alias.__name__
        self.serial = njit(cache=True, **FAST)(loops)
        self.parallel = njit(cache=True, parallel=True, **FAST)(alias)

    def __call__(self, threads, size, *arguments):
        """Run on ``arguments``, ``size`` of which the work is proportional to."""
        kernel = self.parallel if threads > 1 and size > self.worth_threads else self.serial
        kernel(*arguments)
