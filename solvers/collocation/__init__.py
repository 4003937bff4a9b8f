"""Functions trained on the equation itself, at points: no grid, no discretisation."""

from __future__ import annotations

from sciml.solvers.collocation.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.collocation.deep_ritz import DeepRitz, NaturalGradient
from sciml.solvers.collocation.function_descent import FunctionDescent, NetworkProjection
from sciml.solvers.collocation.gauss_newton import EnergyNaturalGradient, GaussNewton
from sciml.solvers.collocation.gaussians import Gaussians
from sciml.solvers.collocation.gradient_methods import LBFGS, AdamDescent
from sciml.solvers.collocation.objective import Causal, GradientNorm, NeuralTangent
from sciml.solvers.collocation.pinn import PINN
from sciml.solvers.collocation.random_features import RandomFeatures
from sciml.solvers.collocation.sampling import R3, RAD, RAR, LatinHypercube, Sobol, Uniform
from sciml.solvers.collocation.variable_projection import VariableProjection

__all__ = [
    "DASG",
    "DASR",
    "LBFGS",
    "PINN",
    "R3",
    "RAD",
    "RAR",
    "AdamDescent",
    "AdversarialSampling",
    "Causal",
    "DeepRitz",
    "EnergyNaturalGradient",
    "FunctionDescent",
    "GaussNewton",
    "Gaussians",
    "GradientNorm",
    "LatinHypercube",
    "NaturalGradient",
    "NetworkProjection",
    "NeuralTangent",
    "RandomFeatures",
    "Sobol",
    "Uniform",
    "VariableProjection",
]
