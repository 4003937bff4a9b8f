"""Functions trained on the equation itself, at points: no grid, no discretisation."""

from __future__ import annotations

from sciml.solvers.collocation.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.collocation.gauss_newton import GaussNewton
from sciml.solvers.collocation.pinn import PINN
from sciml.solvers.collocation.residual_sampling import R3, RAD, RAR
from sciml.solvers.collocation.sampling import LatinHypercube, Sobol, Uniform

__all__ = [
    "DASG",
    "DASR",
    "PINN",
    "R3",
    "RAD",
    "RAR",
    "AdversarialSampling",
    "GaussNewton",
    "LatinHypercube",
    "Sobol",
    "Uniform",
]
