"""Physics-informed networks: a network whose residual of the equation is made small at points.

Raissi, Perdikaris, Karniadakis (2019). Dirichlet data and the start are built in where ``hard``
(Lagaris et al. 1998; Sukumar and Srivastava 2022), periodic axes always. What decides the accuracy
is the optimiser: Gauss-Newton reaches 1e-7 where Adam stops at 1e-3.

A network whose first layer is smooth learns waves late, or never. Of a linear equation the
frequencies that the solution has are cheap to find: those of random features (``random_features``)
that leave the least residual. Where they are high the first layer is drawn from them, as a sine,
and the last layer is solved for at every step (``variable_projection``).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

import torch

from sciml.core.errors import InputError
from sciml.discretization.points.region import Meshed
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.choices import AnyOptimiser
from sciml.solvers.trained.conditions import extent
from sciml.solvers.trained.gauss_newton import GaussNewton
from sciml.solvers.trained.minimisation import Budget, OptimiserResult, train
from sciml.solvers.trained.networks import Activation, Perceptron, perceptron
from sciml.solvers.trained.objective import AnyBalance, Causal, Objective
from sciml.solvers.trained.random_features import (
    Bandwidth,
    RandomFeatures,
    check_bandwidths,
    frequencies,
    random_network,
)
from sciml.solvers.trained.solver import Collocation, at_least
from sciml.solvers.trained.unknowns import unknowns_of
from sciml.solvers.trained.variable_projection import VariableProjection, linear_in_weights

_SEARCHED = 3  # axes, time among them, up to which frequencies are looked for
_HIGH = 8.0  # radians per half side that a first layer as it is drawn else learns late
_LAYERS, _WAVES = (2, 24), (1, 128)  # depth and width
_PROJECTED = 30  # iterations before Gauss-Newton's
_ENOUGH, _FITTED = 1e-6, 0.1  # residuals: of a smooth solution, of one whose frequencies are known


@dataclass(frozen=True)
class PINN(Collocation):
    """A network trained on the equation itself; float64.

    ``width``, ``depth``: of the hidden layers, 2 x 24, or one of 128 where both are left out and
    the first layer is drawn from a band of frequencies. ``activation``: tanh, or sin there.
    ``bandwidth``: these, as for ``RandomFeatures``; found by themselves of linear equations in up
    to three dimensions, and taken where they are 8 or more; None to leave the first layer alone.
    ``features``: that many random Fourier features of deviation ``feature_scale``. ``modified``,
    ``factorised``: see ``trained.networks``. ``optimiser``: one, or several that follow one
    another; Gauss-Newton's, after variable projection where frequencies were found to be high.
    ``balance``: how the weights are chosen as training goes on. ``causal``: weights that let late
    times wait for early ones. The others: see ``Collocation``.
    """

    width: int | None = None
    depth: int | None = None
    activation: Activation | Literal["auto"] = "auto"
    bandwidth: Bandwidth | Literal["auto"] | None = "auto"
    features: int = 0
    feature_scale: float = 1.0
    modified: bool = False
    factorised: bool = False
    optimiser: AnyOptimiser | tuple[AnyOptimiser, ...] | None = None
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
        listed = self.optimiser if isinstance(self.optimiser, tuple) else (self.optimiser,)
        if self.factorised and any(isinstance(each, VariableProjection) for each in listed):
            raise InputError(
                "variable_projection needs a last layer that is linear in its weights; leave "
                "factorised out",
                "solver.optimiser",
            )
        if self.bandwidth is None or self.bandwidth == "auto":
            return
        if self.features:
            raise InputError("bandwidth is of a first layer without features", "solver.bandwidth")
        check_bandwidths([self.bandwidth], "solver.bandwidth")

    def ansatz(self, form: StrongForm) -> Perceptron:
        """The network with its first weights; InputError for causal weights without time."""
        if self.causal is not None and form.problem.time is None:
            raise InputError("causal is for problems in time", "solver.causal")
        band = self._found(form) if self.bandwidth == "auto" else self.bandwidth
        activation = self.activation
        if activation == "auto":
            activation = "tanh" if band is None else "sin"
        free = self.width is None and self.depth is None
        ordinary = _WAVES if free and band is not None else _LAYERS
        depth, width = self.depth or ordinary[0], self.width or ordinary[1]
        network = perceptron(
            form, self.seed, width, depth, activation, self.features, self.feature_scale,
            self.modified, self.factorised,
        )  # fmt: skip
        if band is not None:
            drawn = random_network(form, width, band, activation, self.seed)
            network.begin(drawn.waves, drawn.shifts)
        return network

    def _found(self, form: StrongForm) -> Bandwidth | None:
        """The frequencies of a linear equation's solution, where they are high."""
        problem, region = form.problem, form.region
        known = self.features or self.windows > 1 or self.weights or problem.observations
        if known or unknowns_of(problem) or not linear_in_weights(problem):
            return None
        if len(extent(form)[0]) > _SEARCHED:
            return None
        alike = RandomFeatures(hard=self.hard, extension=self.extension, seed=self.seed)
        mesh = region.mesh if isinstance(region, Meshed) else None
        found, left = frequencies(alike, alike.pose(problem, mesh), _ENOUGH)
        return found if left <= _FITTED and max(found) >= _HIGH else None

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """One optimiser after the other."""
        chosen, network = self.optimiser, objective.ansatz.network
        waves = isinstance(network, Perceptron) and network.options["activation"] == "sin"
        if chosen is None:
            linear = linear_in_weights(objective.form.problem) and not objective.unknown
            solved = waves and linear and not self.factorised
            chosen = GaussNewton()
            if solved:
                chosen = (VariableProjection(iterations=_PROJECTED), chosen)
        optimisers = chosen if isinstance(chosen, tuple) else (chosen,)
        minimisation = self.minimisation(
            objective,
            self.points,
            torch.Generator().manual_seed(self.seed),
            budget,
            total=sum(optimiser.iterations for optimiser in optimisers),
            weightings=[w for w in (self.balance, self.causal) if w is not None],
        )
        result = train(optimisers, objective, minimisation)
        if not (waves and self.activation == "auto" and self.bandwidth == "auto"):
            return result
        note = "the first layer is a sine of the frequencies that random features found"
        return replace(result, notes=(*result.notes, note))
