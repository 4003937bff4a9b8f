"""All samplers as one type, for the options of solvers."""

from __future__ import annotations

from sciml.solvers.collocation.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.collocation.residual_sampling import R3, RAD, RAR
from sciml.solvers.collocation.sampling import LatinHypercube, Sobol, Uniform

AnySampler = Uniform | Sobol | LatinHypercube | RAR | RAD | R3 | AdversarialSampling | DASG | DASR
