"""Solvers: frozen dataclasses of options, imported as ``sciml.solvers``.

Names load on first use (PEP 562), so that importing this package loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if __name__ != "sciml.solvers":
    raise ImportError("import this package as sciml.solvers, not as solvers")

if TYPE_CHECKING:
    from sciml.solvers.adaptive import Adaptive as Adaptive
    from sciml.solvers.auto import Auto as Auto
    from sciml.solvers.eigen.lobpcg import LOBPCG as LOBPCG
    from sciml.solvers.fit.fit import Fit as Fit
    from sciml.solvers.flow import Projection as Projection
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
    from sciml.solvers.linear.amg import AMG as AMG
    from sciml.solvers.linear.deflation import DeflatedCG as DeflatedCG
    from sciml.solvers.linear.deflation import Deflation as Deflation
    from sciml.solvers.linear.direct import Direct as Direct
    from sciml.solvers.linear.fast_poisson import FastPoisson as FastPoisson
    from sciml.solvers.linear.incomplete import ILU as ILU
    from sciml.solvers.linear.incomplete import IncompleteCholesky as IncompleteCholesky
    from sciml.solvers.linear.krylov import CG as CG
    from sciml.solvers.linear.krylov import FCG as FCG
    from sciml.solvers.linear.krylov import GMRES as GMRES
    from sciml.solvers.linear.krylov import MINRES as MINRES
    from sciml.solvers.linear.krylov import BiCGStab as BiCGStab
    from sciml.solvers.linear.multigrid import Multigrid as Multigrid
    from sciml.solvers.linear.relaxation import SOR as SOR
    from sciml.solvers.linear.relaxation import SSOR as SSOR
    from sciml.solvers.linear.relaxation import Jacobi as Jacobi
    from sciml.solvers.linear.saddle import SaddlePoint as SaddlePoint
    from sciml.solvers.linear.shifted_laplacian import ShiftedLaplacian as ShiftedLaplacian
    from sciml.solvers.nonlinear.active_set import ActiveSet as ActiveSet
    from sciml.solvers.nonlinear.descent import Continuation as Continuation
    from sciml.solvers.nonlinear.newton import Newton as Newton
    from sciml.solvers.nonlinear.newton import Picard as Picard
    from sciml.solvers.time import BDF as BDF
    from sciml.solvers.time import IMEX as IMEX
    from sciml.solvers.time import SDIRK as SDIRK
    from sciml.solvers.time import Newmark as Newmark
    from sciml.solvers.time import QuasiStatic as QuasiStatic
    from sciml.solvers.time import RungeKutta as RungeKutta
    from sciml.solvers.time import Verlet as Verlet
    from sciml.solvers.time.etdrk4 import ETDRK4 as ETDRK4
    from sciml.solvers.trained.deep_ritz import DeepRitz as DeepRitz
    from sciml.solvers.trained.function_descent import FunctionDescent as FunctionDescent
    from sciml.solvers.trained.gaussians import Gaussians as Gaussians
    from sciml.solvers.trained.pinn import PINN as PINN
    from sciml.solvers.trained.random_features import RandomFeatures as RandomFeatures

__getattr__, __dir__ = attach(__name__, __file__)
