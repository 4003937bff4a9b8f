"""How the loops are compiled: numba's options, a variant for each kind of row, serial or parallel.

numba's disk cache looks at the file of a loop and at no other: after a change here or in ``rows``
the loops' ``__pycache__`` has to be emptied by hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, Protocol, TypeVar

import numpy as np
from numba import njit

FAST: dict[str, Any] = {
    "fastmath": {"contract", "reassoc", "nsz", "arcp"},
    "error_model": "numpy",
    "nogil": True,
}
F = TypeVar("F", bound=Callable[..., Any])


def fast(**options: Any) -> Callable[[F], F]:
    """numba's ``njit`` with these options besides ``FAST``; the function keeps its type.

    ``forceinline`` is for what is called once a row: calls with arrays cost as much as a short row.
    With ``cache`` machine code is kept beside the package, else in the user's cache or in
    ``NUMBA_CACHE_DIR``; where none of them can be written to, it is compiled once a process.
    """

    def decorate(function: F) -> F:
        try:
            compiled: F = njit(**FAST, **options)(function)
        except RuntimeError:  # "no locator available"
            compiled = njit(**FAST, **{**options, "cache": False})(function)
        return compiled

    return decorate


# Columns are counted in unsigned integers: numba would wrap negative ones around, with a select
# that keeps some loops from being vectorised.
U, ONE = np.uint64, np.uint64(1)


@fast()
def wrap(i: int, n: int, periodic: bool) -> int:
    """Index i on an axis of n, wrapped if periodic, -1 if outside."""
    if 0 <= i < n:
        return i
    return i % n if periodic else -1


# numba turns `t[:] = u` into a slow generic copy; these loops vectorise.
@fast()
def fill(t: np.ndarray, value: float) -> None:
    """t[:] = value."""
    for j in range(t.shape[0]):
        t[j] = value


@fast()
def copy(t: np.ndarray, u: np.ndarray) -> None:
    """t[:] = u."""
    for j in range(t.shape[0]):
        t[j] = u[j]


_ONE_CALLER = threading.Lock()


class Variant(Protocol):
    """Compiled functions that a loop nest calls by name, and a name for the set of them."""

    @property
    def name(self) -> str:
        """A valid identifier, another for each set."""

    @property
    def functions(self) -> dict[str, Any]:
        """The functions by the names under which the loop nest calls them."""


class Loop:
    """One loop nest, compiled on first use for each variant: serial, or parallel if worth it."""

    worth_threads = 250_000  # below this size starting the threads costs more than they save

    def __init__(self, nest: Any) -> None:
        self.nest = nest
        self.compiled: dict[tuple[Variant | None, bool], Any] = {}

    def __call__(
        self, threads: int, size: int, *arguments: Any, variant: Variant | None = None
    ) -> None:
        """Run on ``arguments``, ``size`` of which the work is proportional to."""
        parallel = threads > 1 and size > self.worth_threads
        kernel = self.compiled.get((variant, parallel))
        if kernel is None:
            kernel = self.compiled[variant, parallel] = self._compile(variant, parallel)
        if not parallel:
            kernel(*arguments)
            return
        # numba's own threads serve one caller at a time, and end the process where two call.
        with _ONE_CALLER:
            kernel(*arguments)

    def _compile(self, variant: Variant | None, parallel: bool) -> Any:
        # numba's disk cache tells functions apart by name only, not by options or what they call.
        name = self.nest.__name__
        space = self.nest.__globals__
        if variant is not None:
            name, space = f"{name}_{variant.name}", {**space, **variant.functions}
        name = f"{name}_parallel" if parallel else name
        alias = FunctionType(self.nest.__code__.replace(co_name=name), space)
        alias.__qualname__ = name
        return fast(cache=True, parallel=parallel)(alias)
