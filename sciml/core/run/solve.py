"""The face that every solver shows the verb ``sciml.solve``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from sciml.core.run.solution import Solution

Progress = Callable[[int, float], None]
# A time that a run in time has come to, and what gives the value there.
Observe = Callable[[float, Callable[[], "torch.Tensor"]], None]


@runtime_checkable
class Solver(Protocol):
    """Anything that answers a problem: a frozen dataclass of options with these two methods.

    ``run`` may take more by name, as solvers of problems in time do: ``frames``, and ``observe``,
    which is called after every step.
    """

    @property
    def kind(self) -> str:
        """Its name in a spec."""

    def init(self, problem: Any, on: Any = None) -> Any:
        """Set-up, reusable over right-hand sides; ``on``: a grid, a mesh or points."""

    def run(
        self,
        state: Any,
        *,
        initial: torch.Tensor | None = None,
        b: torch.Tensor | None = None,
        progress: Progress | None = None,
    ) -> Solution:
        """Answer one right-hand side."""
