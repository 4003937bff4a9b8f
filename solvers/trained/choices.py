"""What may stand as ``sampler:`` and ``optimiser:`` in the options of a solver: the two lists."""

from __future__ import annotations

from sciml.solvers.trained.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.trained.gauss_newton import EnergyNaturalGradient, GaussNewton
from sciml.solvers.trained.gradient_methods import LBFGS, AdamDescent, SelfScaledBroyden
from sciml.solvers.trained.sampling import R3, RAD, RAR, LatinHypercube, Sobol, UniformSampling
from sciml.solvers.trained.variable_projection import VariableProjection

AnySampler = (
    UniformSampling | Sobol | LatinHypercube | RAR | RAD | R3 | AdversarialSampling | DASG | DASR
)
AnyOptimiser = (
    GaussNewton
    | VariableProjection
    | EnergyNaturalGradient
    | LBFGS
    | SelfScaledBroyden
    | AdamDescent
)
