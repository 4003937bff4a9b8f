"""What depends on the time alone, kept until another time is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Value = TypeVar("Value")


class AtTime(Generic[Value]):
    """One value with its time. Where a graph is recorded it is made anew: a graph serves one pass.

    A value made without a graph would otherwise stand in for one with it, and its gradient be lost.
    """

    def __init__(self) -> None:
        self._last: tuple[float, Value] | None = None

    def get(self, t: float, make: Callable[[], Value]) -> Value:
        """The value at ``t``, by ``make`` where it is not at hand."""
        if torch.is_grad_enabled() or self._last is None or self._last[0] != t:
            self._last = (t, make())
        return self._last[1]
