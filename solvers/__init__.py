"""Solvers: frozen dataclasses of options, imported as ``sciml.solvers``.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if __name__ != "sciml.solvers":
    raise ImportError("import this package as sciml.solvers, not as solvers")

if TYPE_CHECKING:
    from sciml.solvers.amg import AMG as AMG
    from sciml.solvers.auto import Auto as Auto
    from sciml.solvers.collocation.deep_ritz import DeepRitz as DeepRitz
    from sciml.solvers.collocation.function_descent import FunctionDescent as FunctionDescent
    from sciml.solvers.collocation.gaussians import Gaussians as Gaussians
    from sciml.solvers.collocation.pinn import PINN as PINN
    from sciml.solvers.collocation.random_features import RandomFeatures as RandomFeatures
    from sciml.solvers.deflation import DeflatedCG as DeflatedCG
    from sciml.solvers.deflation import Deflation as Deflation
    from sciml.solvers.descent import Continuation as Continuation
    from sciml.solvers.direct import Direct as Direct
    from sciml.solvers.fast_poisson import FastPoisson as FastPoisson
    from sciml.solvers.incomplete import ILU as ILU
    from sciml.solvers.incomplete import IncompleteCholesky as IncompleteCholesky
    from sciml.solvers.krylov import CG as CG
    from sciml.solvers.krylov import FCG as FCG
    from sciml.solvers.krylov import GMRES as GMRES
    from sciml.solvers.krylov import MINRES as MINRES
    from sciml.solvers.krylov import BiCGStab as BiCGStab
    from sciml.solvers.learned.conjugate_directions import (
        ConjugateDirections as ConjugateDirections,
    )
    from sciml.solvers.learned.conjugate_directions import ConjugateTraining as ConjugateTraining
    from sciml.solvers.learned.hints import HINTS as HINTS
    from sciml.solvers.learned.learn_to_relax import LearnToRelax as LearnToRelax
    from sciml.solvers.learned.multigrid import LearnedMultigrid as LearnedMultigrid
    from sciml.solvers.learned.multigrid import MultigridTraining as MultigridTraining
    from sciml.solvers.learned.neural_ic import NeuralIC as NeuralIC
    from sciml.solvers.learned.neural_ic import NeuralICTraining as NeuralICTraining
    from sciml.solvers.learned.surrogate import Surrogate as Surrogate
    from sciml.solvers.multigrid import Multigrid as Multigrid
    from sciml.solvers.newton import Newton as Newton
    from sciml.solvers.newton import Picard as Picard
    from sciml.solvers.projection import Projection as Projection
    from sciml.solvers.relaxation import SOR as SOR
    from sciml.solvers.relaxation import SSOR as SSOR
    from sciml.solvers.relaxation import Jacobi as Jacobi
    from sciml.solvers.shifted_laplacian import ShiftedLaplacian as ShiftedLaplacian
    from sciml.solvers.spectral import ETDRK4 as ETDRK4
    from sciml.solvers.time_stepping import BDF as BDF
    from sciml.solvers.time_stepping import IMEX as IMEX
    from sciml.solvers.time_stepping import SDIRK as SDIRK
    from sciml.solvers.time_stepping import RungeKutta as RungeKutta
    from sciml.solvers.time_stepping import Verlet as Verlet

__getattr__, __dir__ = attach(__name__, __file__)
