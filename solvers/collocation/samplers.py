"""All samplers as one type, for the options of solvers."""

from __future__ import annotations

from sciml.solvers.collocation.adversarial import DASG, DASR, AdversarialSampling
from sciml.solvers.collocation.sampling import R3, RAD, RAR, LatinHypercube, Sobol, Uniform

AnySampler = Uniform | Sobol | LatinHypercube | RAR | RAD | R3 | AdversarialSampling | DASG | DASR
