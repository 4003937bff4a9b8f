"""Random features: a network of one layer, of which only the output weights are found.

    u = G + phi sum_m c_m s(w_m . z + b_m),       z in [-1, 1]^D (angles on periodic axes),

with w_m uniform in [-B, B]^D, or with a B of its own for every axis, and b_m such that the m-th
feature varies somewhere in the box. The
residual is linear in c where the equation is, so that one least-squares problem over all points
gives c; where it is not, Newton's method linearises the equation at the iterate,

    min_s | r(c) + J s |,      J_nm = sum_k (dr/d jet_k)(x_n) (jet_k of phi s_m)(x_n),

a row per point. Columns are scaled to length one and the rows of each condition to those of the
equation; then the QR factorisation is backward stable however dependent the features are: weights
that it cannot tell apart change the residual by rounding alone. Sources: Huang, Zhu, Siew (2006,
extreme learning machines), Dong and Li (2021, arXiv 2012.02895), Chen, Chi, E, Yang (2022, arXiv
2207.13380, row scaling). B decides the accuracy, and the residual at points that were not fitted
decides B.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.discretization.points.jet import Jet, Pairs
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.conditions import extent
from sciml.solvers.trained.minimisation import Budget, Minimisation, OptimiserResult
from sciml.solvers.trained.networks import (
    Activation,
    Dense,
    InputScaling,
    Tape,
    rebuilds,
    scaling_of,
    tanh_derivatives,
)
from sciml.solvers.trained.objective import Ansatz, Objective
from sciml.solvers.trained.solver import Collocation, at_least
from sciml.solvers.trained.verify import measure, scales_of

_PER_FEATURE = 3  # points inside for each unknown weight
_BALANCE = 200  # points from which the conditions' scales are read
_HELD_OUT = 1000
_LEAST = 1e-13  # a fall of the residual to this share of the first is rounding
_KEPT = 0.5  # a step whose linear model left this share of the residual was the last
_FALL = 0.9  # a step that left more than this share of the residual, too
_TRIALS = 12
Bandwidth = float | tuple[float, ...]


@dataclass(frozen=True)
class RandomFeatures(Collocation):
    """Least squares, and Newton's method, on ``count`` random features a field; float64.

    ``bandwidths``: candidates for the largest frequency, radians per half side of the box, one for
    all axes or one for each (time last); of several candidates, the one with the least residual at
    held-out points of a run with half the features.
    ``points`` inside: None, 3 a weight. ``weights``: relative to rows as long as the equation's.
    ``rtol``: as in ``Collocation``; the residual is made as small as it gets in any case. The
    others: see ``Collocation``. Time 2 N M^2 a step and memory
    8 (1 + D + second derivatives) N M bytes, for N points and M features.
    """

    count: int = 600
    activation: Activation = "sin"
    bandwidths: tuple[Bandwidth, ...] = (2.0, 4.0, 8.0, 16.0, 32.0)
    max_iterations: int = 30
    kind: Literal["random_features"] = "random_features"
    _: KW_ONLY
    rtol: float = 1e-6

    def check(self) -> None:
        """Raise InputError for an option that is out of range."""
        at_least(self, 1, "count", "points", "max_iterations")
        listed = [b for bandwidth in self.bandwidths for b in _per_axis(bandwidth, 1)]
        if not listed or not all(0 < b < math.inf for b in listed):
            raise InputError(
                f"bandwidths must be one or more positive numbers; got {list(self.bandwidths)}",
                "solver.bandwidths",
            )

    def ansatz(self, form: StrongForm) -> RandomNetwork:
        """One feature, to begin with."""
        return random_network(form, 1, self.bandwidths[0], self.activation, self.seed)

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """Choose the bandwidth, then fit; from a function that was kept, fit its features."""
        if objective.begun:
            count = len(objective.ansatz.network.blocks()[0].weight[0])
            if count != self.count:
                raise InputError(
                    f"the function in '{self.start}' has {count} features; write count: {count}",
                    "solver.start",
                )
            return self._fit(objective, None, count, budget)
        begun, left = time.perf_counter(), budget.seconds
        bandwidth, note = self._bandwidth(objective, left)
        if left is not None:
            left = max(left - (time.perf_counter() - begun), 0.0)
        result = self._fit(objective, bandwidth, self.count, replace(budget, seconds=left))
        return replace(result, seconds=time.perf_counter() - begun, notes=(*result.notes, note))

    def _bandwidth(self, objective: Objective, seconds: float | None) -> tuple[Bandwidth, str]:
        """The candidate with the least residual at held-out points, and what to say of it."""
        if len(self.bandwidths) == 1:
            return self.bandwidths[0], f"bandwidth {_written(self.bandwidths[0])}"
        found = {}
        share = Budget(None if seconds is None else seconds / (1 + len(self.bandwidths)))
        for bandwidth in self.bandwidths:
            unknown = {
                name: nn.Parameter(p.detach().clone()) for name, p in objective.unknown.items()
            }
            trial = replace(objective, unknown=unknown, batches=[])
            self._fit(trial, bandwidth, max(1, self.count // 2), share)
            total = sum(measure(trial, _HELD_OUT, self.seed + 1).values())
            found[bandwidth] = total if total == total else float("inf")
        best = min(found, key=lambda bandwidth: found[bandwidth])
        tried = ", ".join(f"{_written(each)}: {total:.1e}" for each, total in found.items())
        return best, f"bandwidth {_written(best)}; residuals with half the features {tried}"

    def _fit(
        self, objective: Objective, bandwidth: Bandwidth | None, count: int, budget: Budget
    ) -> OptimiserResult:
        """The least residual on ``count`` features; None: on those that there are."""
        if bandwidth is not None:
            network = random_network(objective.form, count, bandwidth, self.activation, self.seed)
            objective.ansatz = Ansatz(network, objective.ansatz.built_in)
        generator = torch.Generator().manual_seed(self.seed)
        objective.weights = _balanced(objective, generator)
        inside = _PER_FEATURE * (count + 1)
        if self.points is not None:
            # As many points for each feature in the trial runs as in the last.
            inside = max(1, self.points * count // self.count)
        counts = self.counts(objective, inside)
        minimisation = Minimisation(
            self.sampler,
            counts,
            generator,
            tolerance=0.0,
            seconds=budget.seconds,
            progress=budget.progress,
        )
        # Without a source, and with soft conditions, every term of the first iterate is zero.
        scale = scales_of(objective).equation or 1.0
        minimisation.relative = lambda loss: loss**0.5 / scale
        return newton(objective, minimisation, self.max_iterations)


class RandomNetwork(nn.Module):
    """``s(W z + b)`` with fixed W and b, and a last layer whose weights are the only ones found.

    ``waves`` (M, inputs), ``shifts`` (M,).
    """

    waves: Tensor
    shifts: Tensor

    def __init__(
        self,
        embedding: InputScaling,
        waves: Tensor,
        shifts: Tensor,
        activation: Activation,
        last: Dense,
    ) -> None:
        super().__init__()
        self.options = {
            "kind": "random_features", "embedding": embedding.options, "count": len(waves),
            "outputs": len(last.bias), "activation": activation,
        }  # fmt: skip
        self.embedding, self.activation, self.last = embedding, activation, last
        self.register_buffer("waves", waves)
        self.register_buffer("shifts", shifts)

    def forward(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet of the outputs at the points (N, D)."""
        jet: Jet = self.last(self.features(points, pairs), tape)
        return jet

    def features(self, points: Tensor, pairs: Pairs) -> Jet:
        """The jet of every feature, overwriting that of W z + b: the arrays are large.

        Not where the points have a graph.
        """
        jet: Jet = self.embedding(points, pairs)
        data, d = jet.data @ self.waves.T, 1 + jet.dimension
        value, slope, bend, *more = _SCALARS[self.activation](data[0] + self.shifts, jet.order)
        if data.requires_grad or more:
            return jet.like(data).through(value, slope, bend, *more)
        for k, (i, j) in enumerate(pairs):
            data[d + k].mul_(slope).addcmul_(bend * data[1 + i], data[1 + j])
        data[1:d].mul_(slope)
        data[0] = value
        return jet.like(data)

    def blocks(self) -> list[Dense]:
        """The last layer."""
        return [self.last]


def _sin(z: Tensor, order: int) -> tuple[Tensor, ...]:
    s, c = z.sin(), z.cos()
    return (s, c, -s) if order < 3 else (s, c, -s, -c, s)


# s, s' and s'', and the next two where the order is above.
_SCALARS: dict[str, Callable[[Tensor, int], tuple[Tensor, ...]]] = {
    "sin": _sin,
    "tanh": tanh_derivatives,
}


@rebuilds("random_features")
def _random(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> RandomNetwork:
    embedding, count = scaling_of(options["embedding"]), options["count"]
    waves, last = torch.zeros(count, embedding.size), Dense(count, options["outputs"])
    return RandomNetwork(embedding, waves, torch.zeros(count), options["activation"], last)


def random_network(
    form: StrongForm, count: int, bandwidth: Bandwidth, activation: Activation, seed: int
) -> RandomNetwork:
    """``count`` features of frequencies up to ``bandwidth``; their weights are zero.

    Raises InputError where there are several bandwidths and not one for each axis.
    """
    lower, upper = extent(form)
    largest = _per_axis(bandwidth, len(lower))
    if len(largest) != len(lower):
        raise InputError(
            f"a bandwidth is a number, or {len(lower)} of them, time last; got {list(largest)}",
            "solver.bandwidths",
        )
    axes = (*form.data.periodic, *(() if form.problem.time is None else (False,)))
    embedding = InputScaling(lower, upper, axes)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, dtype=torch.float64, generator=generator) - 1

    # A periodic axis is two inputs.
    inputs = [b for b, periodic in zip(largest, axes, strict=True) for _ in range(1 + periodic)]
    waves = torch.tensor(inputs, dtype=torch.float64) * draw(count, embedding.size)
    centres = draw(count, embedding.size)
    with torch.random.fork_rng(), torch.no_grad():
        last = Dense(count, len(form.fields)).double()
        last.weight.zero_()
    # Each feature passes through zero at a random point of the box.
    return RandomNetwork(embedding, waves, -(waves * centres).sum(1), activation, last)


def _per_axis(bandwidth: Bandwidth, axes: int) -> tuple[float, ...]:
    return bandwidth if isinstance(bandwidth, tuple) else (bandwidth,) * axes


def _written(bandwidth: Bandwidth) -> str:
    return " x ".join(f"{b:g}" for b in _per_axis(bandwidth, 1))


def newton(
    objective: Objective, minimisation: Minimisation, max_iterations: int
) -> OptimiserResult:
    """Newton's method on the weights: a least-squares problem a step, the residual falling.

    Of a linear equation the first step is the last. Ends where a step's linear model has left at
    least half of the residual that there is, or the residual hardly falls.
    """
    theta, first = objective.theta, None
    for _ in range(max_iterations):
        exchanged = minimisation.exchange(objective)
        r, J = objective.jacobian()
        size = float(r.norm())
        first = size if first is None else first
        if minimisation.ended(size**2, objective):
            return minimisation.result()
        if not bool(torch.isfinite(J.norm(dim=0)).all()):
            return minimisation.overflowed("the derivatives of the residuals")
        # Where a parameter multiplies the weights, large ones that cancel do harm.
        step = least_squares(J, -r, shortest=bool(objective.unknown))
        taken = _line_search(objective, theta, step, size)
        if taken is None:
            objective.assign(theta)
            return minimisation.stalled()
        length, after = taken
        theta = theta + length * step
        left, promised = float(after.norm()), r + J @ step
        kept = length == 1.0 and float((after - promised).norm()) <= _KEPT * left
        # A parameter may have had no influence yet, where the weights were zero.
        over = (kept and not objective.unknown) or left <= _LEAST * first or left > _FALL * size
        if over and not (minimisation.sampler.every and exchanged):
            minimisation.ended(left**2, objective)
            return minimisation.stalled()
    return minimisation.result()


def least_squares(A: Tensor, b: Tensor, shortest: bool = False) -> Tensor:
    """argmin |A x - b|: by QR of the scaled columns, or by their SVD the ``shortest``.

    By the SVD, too, where columns are dependent.
    """
    length = A.norm(dim=0)
    length = torch.where(length > 0, length, 1.0)
    scaled, right = A / length, b[:, None]
    try:
        driver = "gelsd" if shortest else "gels"
        found: Tensor = torch.linalg.lstsq(scaled, right, driver=driver).solution
    except torch.linalg.LinAlgError:
        found = torch.linalg.lstsq(scaled, right, driver="gelsd").solution
    return found[:, 0] / length


def _line_search(
    objective: Objective, theta: Tensor, step: Tensor, before: float
) -> tuple[float, Tensor] | None:
    """The longest of 1, 1/2, 1/4 ... that lowers the residual, and the residual there."""
    length = 1.0
    for _ in range(_TRIALS):
        objective.assign(theta + length * step)
        after = objective.vector()
        if float(after.norm()) <= (1 - 1e-4 * length) * before:
            return length, after
        length /= 2
    return None


def _balanced(objective: Objective, generator: torch.Generator) -> dict[str, float]:
    """The weights, times those that make every condition's rows as long as the equation's."""
    sizes = {}
    for piece in objective.pieces:
        own = Objective(objective.form, objective.ansatz, [piece])
        cube = torch.rand(_BALANCE, piece.free, dtype=torch.float64, generator=generator)
        own.place([piece.place(cube)])
        sizes[piece.name] = float(own.jacobian()[1].norm())
    # Readings where u is known anyway have rows of zeros, which no weight makes longer.
    least = _LEAST * sizes["equation"]
    longer = {n: (sizes["equation"] / s) ** 2 if s > least else 1.0 for n, s in sizes.items()}
    return {name: objective.weights.get(name, 1.0) * by for name, by in longer.items()}
