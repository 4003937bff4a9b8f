"""Learned solvers and preconditioners: what a network says, made safe by what is proven.

Names load on first use, since preconditioners stand below the Krylov methods and ``Surrogate``
above.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sciml.solvers.learned.conjugate_directions import ConjugateDirections, ConjugateTraining
    from sciml.solvers.learned.hints import HINTS
    from sciml.solvers.learned.learn_to_relax import LearnToRelax
    from sciml.solvers.learned.multigrid import LearnedMultigrid, MultigridTraining
    from sciml.solvers.learned.neural_ic import NeuralIC, NeuralICTraining
    from sciml.solvers.learned.surrogate import Surrogate

# What may stand as `preconditioner:` in a spec of `sciml train`.
TRAININGS: tuple[str, ...] = ("ConjugateTraining", "MultigridTraining", "NeuralICTraining")

_MODULES = {
    "ConjugateDirections": "conjugate_directions",
    "ConjugateTraining": "conjugate_directions",
    "HINTS": "hints",
    "LearnToRelax": "learn_to_relax",
    "LearnedMultigrid": "multigrid",
    "MultigridTraining": "multigrid",
    "NeuralIC": "neural_ic",
    "NeuralICTraining": "neural_ic",
    "Surrogate": "surrogate",
}

__all__ = [
    "HINTS",
    "TRAININGS",
    "ConjugateDirections",
    "ConjugateTraining",
    "LearnToRelax",
    "LearnedMultigrid",
    "MultigridTraining",
    "NeuralIC",
    "NeuralICTraining",
    "Surrogate",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml.solvers.learned' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.solvers.learned.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
