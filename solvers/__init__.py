"""Solvers: frozen dataclasses of options, imported as ``sciml.solvers``.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ != "sciml.solvers":
    raise ImportError("import this package as sciml.solvers, not as solvers")

if TYPE_CHECKING:
    from sciml.solvers.amg import AMG
    from sciml.solvers.auto import Auto
    from sciml.solvers.collocation import (
        PINN,
        DeepRitz,
        FunctionDescent,
        Gaussians,
        RandomFeatures,
    )
    from sciml.solvers.deflation import DeflatedCG, Deflation
    from sciml.solvers.descent import Continuation
    from sciml.solvers.direct import Direct
    from sciml.solvers.fast_poisson import FastPoisson
    from sciml.solvers.incomplete import ILU, IncompleteCholesky
    from sciml.solvers.krylov import CG, FCG, GMRES, MINRES, BiCGStab
    from sciml.solvers.learned import ConjugateDirections, ConjugateTraining, Surrogate
    from sciml.solvers.learned.hints import HINTS
    from sciml.solvers.learned.learn_to_relax import LearnToRelax
    from sciml.solvers.learned.multigrid import LearnedMultigrid
    from sciml.solvers.learned.multigrid_training import MultigridTraining
    from sciml.solvers.learned.neural_ic import NeuralIC
    from sciml.solvers.learned.neural_ic_training import NeuralICTraining
    from sciml.solvers.multigrid import Multigrid
    from sciml.solvers.newton import Newton, Picard
    from sciml.solvers.projection import Projection
    from sciml.solvers.relaxation import SOR, SSOR, Jacobi
    from sciml.solvers.shifted_laplacian import ShiftedLaplacian
    from sciml.solvers.spectral import ETDRK4
    from sciml.solvers.time_stepping import BDF, IMEX, SDIRK, RungeKutta, Verlet

# What may stand as `solver:` in a spec; the loader builds its union from these classes.
SOLVERS: tuple[str, ...] = (
    "Auto",
    "Direct",
    "CG",
    "FCG",
    "DeflatedCG",
    "MINRES",
    "BiCGStab",
    "GMRES",
    "Multigrid",
    "AMG",
    "FastPoisson",
    "SOR",
    "LearnToRelax",
    "HINTS",
    "Newton",
    "Picard",
    "ETDRK4",
    "Projection",
    "SDIRK",
    "BDF",
    "IMEX",
    "RungeKutta",
    "Verlet",
    "Surrogate",
    "PINN",
    "Gaussians",
    "RandomFeatures",
    "DeepRitz",
    "FunctionDescent",
)

_MODULES = {
    "AMG": "amg",
    "Auto": "auto",
    "BDF": "time_stepping",
    "BiCGStab": "krylov",
    "CG": "krylov",
    "ConjugateDirections": "learned",
    "ConjugateTraining": "learned",
    "Continuation": "descent",
    "DeepRitz": "collocation",
    "DeflatedCG": "deflation",
    "Deflation": "deflation",
    "Direct": "direct",
    "ETDRK4": "spectral",
    "FCG": "krylov",
    "FastPoisson": "fast_poisson",
    "FunctionDescent": "collocation",
    "GMRES": "krylov",
    "Gaussians": "collocation",
    "HINTS": "learned.hints",
    "ILU": "incomplete",
    "IMEX": "time_stepping",
    "IncompleteCholesky": "incomplete",
    "Jacobi": "relaxation",
    "LearnToRelax": "learned.learn_to_relax",
    "MINRES": "krylov",
    "LearnedMultigrid": "learned.multigrid",
    "Multigrid": "multigrid",
    "MultigridTraining": "learned.multigrid_training",
    "NeuralIC": "learned.neural_ic",
    "NeuralICTraining": "learned.neural_ic_training",
    "Newton": "newton",
    "PINN": "collocation",
    "Picard": "newton",
    "Projection": "projection",
    "RandomFeatures": "collocation",
    "RungeKutta": "time_stepping",
    "SDIRK": "time_stepping",
    "SOR": "relaxation",
    "SSOR": "relaxation",
    "ShiftedLaplacian": "shifted_laplacian",
    "Surrogate": "learned",
    "Verlet": "time_stepping",
}

__all__ = [
    "AMG",
    "BDF",
    "CG",
    "ETDRK4",
    "FCG",
    "GMRES",
    "HINTS",
    "ILU",
    "IMEX",
    "MINRES",
    "PINN",
    "SDIRK",
    "SOLVERS",
    "SOR",
    "SSOR",
    "Auto",
    "BiCGStab",
    "ConjugateDirections",
    "ConjugateTraining",
    "Continuation",
    "DeepRitz",
    "DeflatedCG",
    "Deflation",
    "Direct",
    "FastPoisson",
    "FunctionDescent",
    "Gaussians",
    "IncompleteCholesky",
    "Jacobi",
    "LearnToRelax",
    "LearnedMultigrid",
    "Multigrid",
    "MultigridTraining",
    "NeuralIC",
    "NeuralICTraining",
    "Newton",
    "Picard",
    "Projection",
    "RandomFeatures",
    "RungeKutta",
    "ShiftedLaplacian",
    "Surrogate",
    "Verlet",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'sciml.solvers' has no attribute '{name}'")
    return getattr(importlib.import_module(f"sciml.solvers.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
