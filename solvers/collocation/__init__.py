"""Functions trained on the equation itself, at points: no grid, no discretisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if TYPE_CHECKING:
    from sciml.solvers.collocation.adversarial import DASG as DASG
    from sciml.solvers.collocation.adversarial import DASR as DASR
    from sciml.solvers.collocation.adversarial import AdversarialSampling as AdversarialSampling
    from sciml.solvers.collocation.deep_ritz import DeepRitz as DeepRitz
    from sciml.solvers.collocation.deep_ritz import NaturalGradient as NaturalGradient
    from sciml.solvers.collocation.function_descent import FunctionDescent as FunctionDescent
    from sciml.solvers.collocation.function_descent import NetworkProjection as NetworkProjection
    from sciml.solvers.collocation.gauss_newton import (
        EnergyNaturalGradient as EnergyNaturalGradient,
    )
    from sciml.solvers.collocation.gauss_newton import GaussNewton as GaussNewton
    from sciml.solvers.collocation.gaussians import Gaussians as Gaussians
    from sciml.solvers.collocation.gradient_methods import LBFGS as LBFGS
    from sciml.solvers.collocation.gradient_methods import AdamDescent as AdamDescent
    from sciml.solvers.collocation.objective import Causal as Causal
    from sciml.solvers.collocation.objective import GradientNorm as GradientNorm
    from sciml.solvers.collocation.objective import NeuralTangent as NeuralTangent
    from sciml.solvers.collocation.pinn import PINN as PINN
    from sciml.solvers.collocation.random_features import RandomFeatures as RandomFeatures
    from sciml.solvers.collocation.sampling import R3 as R3
    from sciml.solvers.collocation.sampling import RAD as RAD
    from sciml.solvers.collocation.sampling import RAR as RAR
    from sciml.solvers.collocation.sampling import LatinHypercube as LatinHypercube
    from sciml.solvers.collocation.sampling import Sobol as Sobol
    from sciml.solvers.collocation.sampling import Uniform as Uniform
    from sciml.solvers.collocation.variable_projection import (
        VariableProjection as VariableProjection,
    )

__getattr__, __dir__ = attach(__name__, __file__)
