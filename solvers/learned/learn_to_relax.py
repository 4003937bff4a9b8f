"""Learning to Relax: omega chosen by a bandit over a sequence of systems (arXiv 2310.02246).

One omega of a grid per system; its cost is the number of iterations that the system took. Without a
context Tsallis-INF comes near the best fixed omega; with one, such as the diagonal shift c of
A + c I or the time step, ChebCB comes near the best omega for each context (Khodak, Chow, Balcan
and Talwalkar 2024, theorems 2.3 and 3.2). The answer to each system is what CG or SOR gives at that
omega, to its tolerance: learning changes the cost and nothing else.

*Bandits* choose one of d arms again and again, seeing only the cost of the arm chosen.

Tsallis-INF (Zimmert and Seldin 2021, algorithm 1) plays arm i at round t with probability

    w_i = 4 / (eta_t (L_i - x))^2,    x such that sum w_i = 1,    eta_t = 4 / sqrt(t),

L the sum of the reduced-variance estimates of the costs, in [0, 1],

    (l - B_i) [i = chosen] / w_i + B_i,      B_i = 1/2 where w_i >= eta_t^2, else 0.

Its regret is O(sqrt(d t)) whoever sets the costs, and O(log t) where they are drawn alike.

ChebCB (Khodak, Chow, Balcan and Talwalkar 2024, arXiv 2310.02246, algorithm 3) knows a number c
before every choice. It fits the costs of each arm by a Chebyshev series in c, of bounded
coefficients as those of a Lipschitz function are, and plays by SquareCB (Foster and Rakhlin 2020):

    w_i = 1 / (d + gamma_t (y_i(c) - min y)),  the rest of the probability to the arm of least y,

with gamma_t = 2 t sqrt(d t / (sum of squared errors of prediction + 2 alpha^2 t)) growing with t,
alpha the error of the series.

Costs are scaled by what was seen: to [0, 1] between the least and the greatest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from scipy.optimize import lsq_linear

from sciml.core.algebra.maps import LinearMap, LinearSystem
from sciml.core.errors import InputError
from sciml.core.run.solve import Progress
from sciml.solvers.linear.inverse import PerSample
from sciml.solvers.linear.iteration import LinearSolver, LinearState, Outcome, check_options
from sciml.solvers.linear.krylov import CG, KrylovState, require_definite
from sciml.solvers.linear.relaxation import SOR, Splitting, check_omega, sor, splittings, ssor

_NEWTON_STEPS = 60


class Bandit(Protocol):
    """Chooses an arm, then learns what it cost."""

    def choose(self, context: float | None = None) -> int:
        """The arm of this round."""

    def learn(self, cost: float) -> None:
        """Take in the cost of the arm chosen last."""


class TsallisINF:
    """Tsallis-INF with reduced-variance estimates over ``arms`` arms, for costs of any scale."""

    def __init__(self, arms: int, seed: int = 0) -> None:
        self.arms, self.random = arms, np.random.default_rng(seed)
        self.chosen: list[int] = []
        self.costs: list[float] = []
        self.weights = np.full(arms, 1 / arms)
        self.arm = 0
        # Sums over the rounds of cost / w, of 1 / w and of what holds no cost: L for any scale.
        self.paid, self.inverse, self.centres = np.zeros(arms), np.zeros(arms), np.zeros(arms)

    def choose(self, context: float | None = None) -> int:
        """Draw the arm of this round; a context is not looked at."""
        self.weights = tsallis_weights(self._losses(), 4 / np.sqrt(len(self.costs) + 1))
        self.arm = int(self.random.choice(self.arms, p=self.weights))
        return self.arm

    def learn(self, cost: float) -> None:
        """Take in the cost of the arm chosen last."""
        arm, own = self.arm, self.weights[self.arm]
        centre = np.where(self.weights >= 16 / (len(self.costs) + 1), 0.5, 0.0)
        self.paid[arm] += cost / own
        self.inverse[arm] += 1 / own
        self.centres += centre
        self.centres[arm] -= centre[arm] / own
        self.chosen.append(arm)
        self.costs.append(float(cost))

    def _losses(self) -> np.ndarray:
        """L, the costs of all rounds scaled by the range seen so far."""
        low, high = min(self.costs, default=0.0), max(self.costs, default=0.0)
        if not high > low:
            return self.centres
        return (self.paid - low * self.inverse) / (high - low) + self.centres


class ChebCB:
    """Chebyshev regression on a context in ``interval``, ``terms`` coefficients per arm."""

    def __init__(
        self, arms: int, interval: tuple[float, float], terms: int = 4, seed: int = 0
    ) -> None:
        self.arms, self.interval, self.terms = arms, interval, terms
        self.random = np.random.default_rng(seed)
        self.coefficients = np.zeros((arms, terms))
        self.chosen: list[int] = []
        self.costs: list[float] = []
        self.features: list[np.ndarray] = []
        self.predicted: list[float] = []
        self.exploration = 0.0
        self.round: tuple[int, np.ndarray, float] = (0, np.zeros(terms), 0.0)

    def choose(self, context: float | None = None) -> int:
        """Draw the arm of this round; raises InputError without a context in the interval."""
        low, high = self.interval
        if context is None or not low <= context <= high:
            raise InputError(
                f"the context must be a number between {low:g} and {high:g}; got {context}",
                "solver.contexts",
            )
        features = chebvander(2 * (context - low) / (high - low) - 1, self.terms - 1).ravel()
        expected = self.coefficients @ features
        best = int(expected.argmin())
        weights = 1 / (self.arms + self.exploration * (expected - expected[best]))
        weights[best] += 1 - weights.sum()
        arm = int(self.random.choice(self.arms, p=weights))
        self.round = arm, features, float(expected[arm])
        return arm

    def learn(self, cost: float) -> None:
        """Take in the cost of the arm chosen last; fit it again, and all where the scale moved."""
        moved = not self.costs or not min(self.costs) <= cost <= max(self.costs)
        chosen, known, predicted = self.round
        self.chosen.append(chosen)
        self.features.append(known)
        self.predicted.append(predicted)
        self.costs.append(float(cost))
        costs, features = _scaled(self.costs), np.stack(self.features)
        # |coefficient j| <= 2 L / j (Trefethen 2013, theorem 7.1); L, as in the paper's program, is
        # the range, 1, over the interval's length, 2.
        orders = np.arange(1, self.terms)
        bounds = np.concatenate([[1.0], 1 / orders])
        for arm in range(self.arms):
            own = np.array(self.chosen) == arm
            if own[-1] or (moved and own.any()):
                self.coefficients[arm] = _fit(features[own], costs[own], bounds)
        t = len(costs)
        alpha = (np.pi + 2 / np.pi * np.log(2 * self.terms + 1)) / (2 * (self.terms + 1))
        missed = float(np.square(np.array(self.predicted) - costs).sum())
        self.exploration = 2 * t * np.sqrt(self.arms * t / (missed + 2 * alpha**2 * t))


def tsallis_weights(losses: np.ndarray, eta: float) -> np.ndarray:
    """``4 / (eta (losses - x))^2``, of sum one; by Newton's method on x."""
    # Right of the root, where the sum is at least one; convex and rising, so that x only falls.
    gaps = losses - losses.min() + 2 / eta
    for _ in range(_NEWTON_STEPS):
        weights = 4 / np.square(eta * gaps)
        excess = weights.sum() - 1
        if excess <= 1e-12:
            break
        gaps = gaps + excess / (eta * (weights**1.5).sum())
    shares: np.ndarray = weights / weights.sum()
    return shares


def _scaled(costs: list[float]) -> np.ndarray:
    known = np.array(costs)
    low, high = known.min(), known.max()
    return (known - low) / (high - low) if high > low else np.zeros_like(known)


def _fit(features: np.ndarray, costs: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """The least-squares coefficients of least norm, within bounds."""
    free: np.ndarray = np.linalg.lstsq(features, costs, rcond=1e-10)[0]
    if (np.abs(free) <= bounds).all():
        return free
    bounded: np.ndarray = lsq_linear(features, costs, (-bounds, bounds)).x
    return bounded


@dataclass(frozen=True)
class LearnToRelax(LinearSolver):
    """SSOR-preconditioned CG, or SOR, whose omega is learned while a sequence is solved.

    The set-up remembers: each ``run`` chooses an omega and learns from its iterations, and
    ``follow`` hands on what was learned to the set-up of the next system. ``choices``: as many
    omegas from ``omegas[0]`` to ``omegas[1]``. ``contexts``: the range of the context that
    ``follow`` is given; without it the best fixed omega is sought. A batch has one omega, and costs
    what its samples take on average.
    """

    method: Literal["cg", "sor"] = "cg"
    omegas: tuple[float, float] = (1.0, 1.95)
    choices: int = 10
    contexts: tuple[float, float] | None = None
    seed: int = 0
    kind: Literal["learn_to_relax"] = "learn_to_relax"
    rtol: float = 1e-8
    max_iterations: int = 10_000

    def __post_init__(self) -> None:
        check_options(self.kind, self.rtol, self.max_iterations)
        for omega in self.omegas:
            check_omega(self.kind, omega, "solver.omegas")
        if not self.omegas[0] < self.omegas[1]:
            raise InputError(f"{self.kind}: omegas must rise", "solver.omegas")
        if self.choices < 2:
            raise InputError(
                f"{self.kind}: choices must be at least 2; got {self.choices}", "solver.choices"
            )
        if self.contexts is not None and not self.contexts[0] < self.contexts[1]:
            raise InputError(f"{self.kind}: contexts must rise", "solver.contexts")

    @property
    def grid(self) -> np.ndarray:
        """The omegas to choose from."""
        return np.linspace(*self.omegas, self.choices)

    def setup(self, A: LinearMap) -> Relaxing:
        """Split the matrix; nothing is known of omega yet."""
        if self.contexts is None:
            return self._relaxing(A, TsallisINF(self.choices, self.seed))
        return self._relaxing(A, ChebCB(self.choices, self.contexts, seed=self.seed))

    def begin(self, system: LinearSystem, context: float | None = None) -> LinearState:
        """The set-up of the first system, with its context."""
        state = self.init(system)
        return replace(state, prepared=replace(state.prepared, context=context))

    def follow(
        self, state: LinearState, system: LinearSystem, context: float | None = None
    ) -> LinearState:
        """The set-up of the next system, with its context, that knows what was learned before."""
        following = self.begin(system, context)
        prepared = replace(following.prepared, bandit=state.prepared.bandit)
        return replace(following, prepared=prepared)

    def _relaxing(self, A: LinearMap, bandit: Bandit) -> Relaxing:
        if A.dtype.is_complex:
            raise InputError(f"{self.kind} needs a real operator", "solver.kind")
        require_definite(self.kind, A)
        return Relaxing(bandit, splittings(A))

    def iterate(
        self,
        A: LinearMap,
        prepared: Relaxing,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        """Choose an omega, solve, learn from the iterations it took."""
        omega = float(self.grid[prepared.bandit.choose(prepared.context)])
        result = self._solve(A, prepared.parts, omega, b, initial, progress)
        prepared.bandit.learn(float(result.iterations.double().mean()))
        return replace(result, notes=(*result.notes, f"omega {omega:.3g}"))

    def _solve(
        self,
        A: LinearMap,
        parts: list[Splitting],
        omega: float,
        b: torch.Tensor,
        initial: torch.Tensor | None,
        progress: Progress | None,
    ) -> Outcome:
        options = {"rtol": self.rtol, "max_iterations": self.max_iterations}
        if self.method == "cg":
            M: PerSample = ssor(A, parts, omega)
            return CG(**options).iterate(A, KrylovState(M), b, initial, progress)  # type: ignore[arg-type]
        step = sor(A, parts, omega)
        return SOR(omega, **options).iterate(A, step, b, initial, progress)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Relaxing:
    """The bandit, the splittings of A's samples, and this system's context."""

    bandit: Bandit
    parts: list[Splitting]
    context: float | None = None
