"""Functions trained on the equation itself, at points: no grid, no discretisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sciml.core.lazy import attach

if TYPE_CHECKING:
    from sciml.solvers.trained.adversarial import DASG as DASG
    from sciml.solvers.trained.adversarial import DASR as DASR
    from sciml.solvers.trained.adversarial import AdversarialSampling as AdversarialSampling
    from sciml.solvers.trained.deep_ritz import DeepRitz as DeepRitz
    from sciml.solvers.trained.deep_ritz import NaturalGradient as NaturalGradient
    from sciml.solvers.trained.function_descent import FunctionDescent as FunctionDescent
    from sciml.solvers.trained.function_descent import NetworkProjection as NetworkProjection
    from sciml.solvers.trained.gauss_newton import (
        EnergyNaturalGradient as EnergyNaturalGradient,
    )
    from sciml.solvers.trained.gauss_newton import GaussNewton as GaussNewton
    from sciml.solvers.trained.gaussians import Gaussians as Gaussians
    from sciml.solvers.trained.gradient_methods import LBFGS as LBFGS
    from sciml.solvers.trained.gradient_methods import AdamDescent as AdamDescent
    from sciml.solvers.trained.gradient_methods import SelfScaledBroyden as SelfScaledBroyden
    from sciml.solvers.trained.objective import Causal as Causal
    from sciml.solvers.trained.objective import GradientNorm as GradientNorm
    from sciml.solvers.trained.objective import NeuralTangent as NeuralTangent
    from sciml.solvers.trained.pinn import PINN as PINN
    from sciml.solvers.trained.random_features import RandomFeatures as RandomFeatures
    from sciml.solvers.trained.sampling import R3 as R3
    from sciml.solvers.trained.sampling import RAD as RAD
    from sciml.solvers.trained.sampling import RAR as RAR
    from sciml.solvers.trained.sampling import LatinHypercube as LatinHypercube
    from sciml.solvers.trained.sampling import Sobol as Sobol
    from sciml.solvers.trained.sampling import UniformSampling as UniformSampling
    from sciml.solvers.trained.variable_projection import (
        VariableProjection as VariableProjection,
    )

__getattr__, __dir__ = attach(__name__, __file__)
