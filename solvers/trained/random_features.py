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
2207.13380, row scaling).

B decides the accuracy, and the residual at points that were not fitted decides B: from B = 4 on,
all axes or one of them are made twice as wide or half as wide, as long as the residual that half of
the features leave falls. Features of bounded frequency span a space whose dimension is, up to
rounding, finite: the number of singular values of the scaled columns above 1e-13 of the largest
(arXiv 2409.16697). More features than that bring nothing at this B; a note says how many there are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from sciml.solvers.trained.objective import Ansatz, Objective, PlacedPiece
from sciml.solvers.trained.solver import Collocation, at_least
from sciml.solvers.trained.verify import Fresh, scales_of

_PER_FEATURE = 3  # points inside for each unknown weight
_BALANCE = 200  # points from which the conditions' scales are read
_HELD_OUT = 1000
_LEAST = 1e-13  # a fall of the residual to this share of the first is rounding
_KEPT = 0.5  # a step whose linear model left this share of the residual was the last
_FALL = 0.9  # a step that left more than this share of the residual, too
_TRIALS = 12
_FEWEST, _ORDINARY, _MOST = 150, 600, 2400  # weights of a field; of all fields at most
_FIRST = 4.0  # the bandwidth that the search begins with
_RANGE = 0.1, 1000.0
_SEARCHED = 40  # bandwidths tried for one number of features
_ROUNDED = 1e-12  # a residual that no bandwidth makes smaller
_HALTED = 0.5  # a doubling that left this share of the residual is the last
_INDEPENDENT = 1e-13  # singular values above this share of the largest
_SPARED = 0.9  # a rank below this share of the features has reached its bound
Bandwidth = float | tuple[float, ...]


@dataclass(frozen=True)
class RandomFeatures(Collocation):
    """Least squares, and Newton's method, on ``count`` random features a field; float64.

    ``count``: by itself doubled from 150 until rounding is reached or, from 600 on, ``rtol``; to
    2400 of all fields at most, and no further once a doubling does not halve the residual.
    ``bandwidths``: the largest frequencies, radians per half side of the box; found for every axis
    by itself, or the best of candidates, one for all axes or one for each (time last).
    ``points`` inside: None, 3 a weight. ``weights``: relative to rows as long as the equation's.
    ``rtol``: as in ``Collocation``; the residual is made as small as it gets in any case. The
    others: see ``Collocation``. Time 2 N M^2 a step and memory
    8 (1 + D + second derivatives) N M bytes, for N points and M features.
    """

    count: int | Literal["auto"] = "auto"
    activation: Activation = "sin"
    bandwidths: tuple[Bandwidth, ...] | Literal["auto"] = "auto"
    max_iterations: int = 30
    kind: Literal["random_features"] = "random_features"
    _: KW_ONLY
    rtol: float = 1e-6

    def check(self) -> None:
        """Raise InputError for an option that is out of range."""
        at_least(self, 1, *(() if self.count == "auto" else ("count",)), "points", "max_iterations")
        if self.bandwidths == "auto":
            return
        check_bandwidths(self.bandwidths, "solver.bandwidths")

    def ansatz(self, form: StrongForm) -> RandomNetwork:
        """One feature, to begin with."""
        bandwidth = _FIRST if self.bandwidths == "auto" else self.bandwidths[0]
        return random_network(form, 1, bandwidth, self.activation, self.seed)

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """Choose the bandwidth, then fit; from a function that was kept, fit its features."""
        if objective.begun:
            count = len(objective.ansatz.network.blocks()[0].weight[0])
            if self.count not in (count, "auto"):
                raise InputError(
                    f"the function in '{self.start}' has {count} features; write count: {count}",
                    "solver.start",
                )
            return self._fit(objective, None, count, budget, self.points)
        begun = time.perf_counter()
        search, stated = _Search(self, objective, budget.seconds), objective.weights
        before = now = math.inf
        for count in self._counts(objective):
            objective.batches, objective.weights = [], stated
            bandwidth = search.best(count)
            own = replace(budget, seconds=search.left)
            result = self._fit(objective, bandwidth, count, own, self.points)
            if self.count != "auto":
                break
            now = search.held_out(objective)
            late = search.left == 0
            if now <= (self.rtol if count >= _ORDINARY else _ROUNDED):
                break
            if late or (count >= _ORDINARY and not now < _HALTED * before):
                break
            before = now
        notes = [*result.notes, search.note]
        if self.count == "auto":
            rank = independent(objective.jacobian()[1], len(objective.form.fields), count)
            notes.append(_limit(count, rank, now <= self.rtol))
        return replace(result, seconds=time.perf_counter() - begun, notes=tuple(notes))

    def _counts(self, objective: Objective) -> list[int]:
        """The numbers of features to try, one after the other."""
        if self.count != "auto":
            return [self.count]
        most = max(_MOST // len(objective.form.fields), _ORDINARY)
        if self.points is not None:
            most = max(min(most, self.points // _PER_FEATURE), 1)
        counts = [_FEWEST]
        while 2 * counts[-1] <= most:
            counts.append(2 * counts[-1])
        return counts if counts[0] <= most else [most]

    def _fit(
        self,
        objective: Objective,
        bandwidth: Bandwidth | None,
        count: int,
        budget: Budget,
        points: int | None,
    ) -> OptimiserResult:
        """The least residual on ``count`` features; None: on those that there are."""
        if bandwidth is not None:
            network = random_network(objective.form, count, bandwidth, self.activation, self.seed)
            objective.ansatz = Ansatz(network, objective.ansatz.built_in)
        generator = torch.Generator().manual_seed(self.seed)
        objective.weigh(_balanced(objective, generator))
        counts = self.counts(objective, points or _PER_FEATURE * (count + 1))
        minimisation = Minimisation(
            self.sampler,
            counts,
            generator,
            tolerance=0.0,
            seconds=budget.seconds,
            progress=budget.progress,
        )
        if budget.progress is not None:
            # Without a source, and with soft conditions, every term of the first iterate is zero.
            scale = scales_of(objective).equation or 1.0
            minimisation.relative = lambda loss: loss**0.5 / scale
        return newton(objective, minimisation, self.max_iterations)


class _Search:
    """The bandwidth with the least residual at held-out points of a fit with half the features."""

    def __init__(self, solver: RandomFeatures, objective: Objective, seconds: float | None) -> None:
        self.solver, self.objective = solver, objective
        self.begun, self.seconds = time.perf_counter(), seconds
        self.note, self.least = "", math.inf
        self.fresh = Fresh(objective, _HELD_OUT, solver.seed + 1)
        self.placed: dict[int, list[PlacedPiece]] = {}  # by the number of features
        self.chosen: tuple[float, ...] = (_FIRST,) * len(extent(objective.form)[0])

    @property
    def left(self) -> float | None:
        """The wall time that is left."""
        if self.seconds is None:
            return None
        return max(self.seconds - (time.perf_counter() - self.begun), 0.0)

    def held_out(self, objective: Objective) -> float:
        """The residuals at held-out points."""
        total = sum(self.fresh.relative(objective).values())
        return total if total == total else math.inf

    def best(self, count: int, enough: float = _ROUNDED) -> Bandwidth:
        """Of ``count`` features; a residual that is small ``enough`` ends the search."""
        listed = self.solver.bandwidths
        if listed != "auto" and len(listed) == 1:
            self.note = f"bandwidth {_written(listed[0])}"
            return listed[0]
        found: dict[Bandwidth, float] = {}
        # Half the time is the fit's.
        until = None if self.left is None else time.perf_counter() + self.left / 2
        if listed != "auto":
            for bandwidth in listed:
                found[bandwidth] = self._left_by(bandwidth, count, until)
            tried = ", ".join(f"{_written(each)}: {total:.1e}" for each, total in found.items())
            best = min(found, key=lambda bandwidth: found[bandwidth])
            self.note = f"bandwidth {_written(best)}; residuals with half the features {tried}"
            return best
        now = found[self.chosen] = self._left_by(self.chosen, count, until)
        while now > enough and len(found) < _SEARCHED:
            for near in self._around():
                late = until is not None and time.perf_counter() > until
                if near not in found and not late:
                    found[near] = self._left_by(near, count, until)
            nearest = min(found, key=lambda bandwidth: found[bandwidth])
            if not found[nearest] < now:
                break
            now, self.chosen = found[nearest], _per_axis(nearest, len(self.chosen))
        self.least = now
        self.note = (
            f"bandwidth {_written(self.chosen)}, the best of {len(found)}; residual with half the "
            f"features {now:.1e}"
        )
        return self.chosen

    def _around(self) -> Iterator[tuple[float, ...]]:
        """All axes, or one of them, twice as wide or half."""
        axes = range(len(self.chosen))
        moved = [(*axes,), *((axis,) for axis in axes)] if len(self.chosen) > 1 else [(0,)]
        for which in moved:
            for by in (2.0, 0.5):
                near = [b * by if axis in which else b for axis, b in enumerate(self.chosen)]
                if _RANGE[0] <= min(near) and max(near) <= _RANGE[1]:
                    yield tuple(near)

    def _left_by(self, bandwidth: Bandwidth, count: int, until: float | None) -> float:
        """The residual at held-out points."""
        solver, objective = self.solver, self.objective
        unknown = {name: nn.Parameter(p.detach().clone()) for name, p in objective.unknown.items()}
        half = max(1, count // 2)
        trial = replace(objective, unknown=unknown, batches=list(self.placed.get(half, ())))
        share = Budget(None if until is None else max(until - time.perf_counter(), 0.0))
        # As many points for each feature in the trials as in the fit.
        points = None if solver.points is None else max(1, solver.points * half // count)
        solver._fit(trial, bandwidth, half, share, points)
        if not solver.sampler.every:  # else they are the trial's own
            self.placed = {half: trial.batches}
        return self.held_out(trial)


def frequencies(
    solver: RandomFeatures, objective: Objective, enough: float
) -> tuple[tuple[float, ...], float]:
    """Of every axis the largest frequency of a solution, and the residual that features leave."""
    search = _Search(solver, objective, solver.seconds)
    search.best(_ORDINARY, enough)
    return search.chosen, search.least


def independent(J: Tensor, fields: int, count: int) -> int:
    """How many of the features are independent, of the field with the fewest."""
    weights = J[:, : fields * count]
    ranks = []
    for k in range(fields):
        own = weights[:, k * count : (k + 1) * count]
        own = own / own.norm(dim=0).clamp(min=1e-300)
        sizes = torch.linalg.svdvals(torch.linalg.qr(own, mode="r").R)
        ranks.append(int((sizes > _INDEPENDENT * sizes[0]).sum()))
    return min(ranks)


def _limit(count: int, rank: int, met: bool) -> str:
    """What the number of features comes to, and what more of them would bring."""
    said = f"{count} features, {rank} of them independent"
    if met:
        return said
    return f"{said}: " + (
        "frequencies this low cannot do more" if rank < _SPARED * count else "more would do more"
    )


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


def check_bandwidths(bandwidths: Sequence[Bandwidth], key: str) -> None:
    """Raise InputError where there is none, or one that is no positive number."""
    listed = [b for bandwidth in bandwidths for b in _per_axis(bandwidth, 1)]
    if not listed or not all(0 < b < math.inf for b in listed):
        name = key.rpartition(".")[2]
        raise InputError(f"{name} must be one or more positive numbers; got {[*bandwidths]}", key)


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
