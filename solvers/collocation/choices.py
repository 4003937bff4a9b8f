"""What may stand as ``sampler:`` and ``optimiser:`` in the options of a solver: the two lists."""

from __future__ import annotations

from sciml.solvers.collocation.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.collocation.gauss_newton import EnergyNaturalGradient, GaussNewton
from sciml.solvers.collocation.gradient_methods import LBFGS, AdamDescent
from sciml.solvers.collocation.sampling import R3, RAD, RAR, LatinHypercube, Sobol, Uniform

AnySampler = Uniform | Sobol | LatinHypercube | RAR | RAD | R3 | AdversarialSampling | DASG | DASR
AnyOptimiser = GaussNewton | EnergyNaturalGradient | LBFGS | AdamDescent
