"""Functions trained on the equation itself, at points: no grid, no discretisation."""

from sciml.solvers.collocation.gauss_newton import GaussNewton
from sciml.solvers.collocation.pinn import PINN
from sciml.solvers.collocation.sampling import LatinHypercube, Sobol, Uniform

__all__ = ["PINN", "GaussNewton", "LatinHypercube", "Sobol", "Uniform"]
