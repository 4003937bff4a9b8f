"""Physics-informed networks: a network whose residual of the equation is made small at points.

Raissi, Perdikaris, Karniadakis (2019). Dirichlet data and the start are built in where ``hard``
(Lagaris et al. 1998; Sukumar and Srivastava 2022), periodic axes always. What decides the accuracy
is the optimiser: Gauss-Newton reaches 1e-7 where Adam stops at 1e-3.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.choices import AnyOptimiser
from sciml.solvers.trained.gauss_newton import GaussNewton
from sciml.solvers.trained.minimisation import Budget, OptimiserResult, train
from sciml.solvers.trained.networks import Activation, Perceptron, perceptron
from sciml.solvers.trained.objective import AnyBalance, Causal, Objective
from sciml.solvers.trained.solver import Collocation, at_least


@dataclass(frozen=True)
class PINN(Collocation):
    """A network trained on the equation itself; float64.

    ``features``: that many random Fourier features of deviation ``feature_scale``. ``modified``,
    ``factorised``: see ``trained.networks``. ``optimiser``: one, or several that follow one
    another. ``balance``: how the weights are chosen as training goes on. ``causal``: weights that
    let late times wait for early ones. The others: see ``Collocation``.
    """

    width: int = 24
    depth: int = 2
    activation: Activation = "tanh"
    features: int = 0
    feature_scale: float = 1.0
    modified: bool = False
    factorised: bool = False
    optimiser: AnyOptimiser | tuple[AnyOptimiser, ...] = field(default_factory=GaussNewton)
    balance: AnyBalance | None = None
    causal: Causal | None = None
    kind: Literal["pinn"] = "pinn"
    _: KW_ONLY
    points: int = 1000
    boundary_points: int = 100

    def check(self) -> None:
        """Raise InputError for an option that is out of range."""
        at_least(self, 1, "width", "depth", "points")
        at_least(self, 0, "features", "feature_scale")

    def ansatz(self, form: StrongForm) -> Perceptron:
        """The network with its first weights; InputError for causal weights without time."""
        if self.causal is not None and form.problem.time is None:
            raise InputError("causal is for problems in time", "solver.causal")
        return perceptron(
            form, self.seed, self.width, self.depth, self.activation, self.features,
            self.feature_scale, self.modified, self.factorised,
        )  # fmt: skip

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """One optimiser after the other."""
        optimisers = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        minimisation = self.minimisation(
            objective,
            self.points,
            torch.Generator().manual_seed(self.seed),
            budget,
            total=sum(optimiser.iterations for optimiser in optimisers),
            weightings=[w for w in (self.balance, self.causal) if w is not None],
        )
        return train(optimisers, objective, minimisation)
