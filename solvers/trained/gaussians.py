"""A sum of Gaussians whose places and shapes are trained too: a mesh that moves to where it counts.

    u = G + phi sum_i w_i g_i,

or a small network of several such sums (Kang et al., ICLR 2025, arXiv 2412.05994). Every derivative
is in closed form, the weights are solved for exactly at every step
(``variable_projection``).

*The layer*: Gaussians with trained means and shapes, their derivatives in closed form.

    g(x) = exp(-z . P z / 2),    z = x - mean,    P = L L^T,    L = (I + T) diag(1/width),

T strictly lower triangular, zero where the covariance is diagonal. With q = P z

    g_a = -q_a g,    g_ab = (q_a q_b - P_ab) g.

The Jacobian's rows need the derivatives, by mean and shape, of S = sum_c delta_c d_c g. Writing
S = s g, s = delta_0 - delta . q + sum_ab delta_ab (q_a q_b - P_ab), and v = ds/dq,

    dS = g (s q - P v) . dmean + g tr(M dP),    M = -s z z^T / 2 + (v z^T + z v^T) / 2 - Delta,

Delta the symmetric matrix of the delta_ab; then dS/dL = 2 g M L. The third derivatives of g are in
there and are never formed. Along a periodic axis z is taken to the nearest copy of the mean, and
its two neighbours are added: exact to rounding for widths up to a fifth of the period.

A channel is a weighted sum of Gaussians of its own; a small network may follow (Kang et al., ICLR
2025, arXiv 2412.05994, eq. 4-6).

*Between stages* Gaussians are dropped where they count for nothing and added where the residual is
largest. Those whose weighted rms over the box is below a share of the largest are left out. New
ones go to the largest residuals among many points, one at a time, each keeping others out of its
surroundings; a new one is a copy of the widest-reaching Gaussian there, moved, narrower, of weight
zero: the answer is the same until the next step gives it a weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import product
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError
from sciml.core.run.status import Status
from sciml.discretization.points.jet import Jet, Pairs, coordinates
from sciml.discretization.points.strong import StrongForm
from sciml.solvers.trained.choices import AnyOptimiser
from sciml.solvers.trained.conditions import extent
from sciml.solvers.trained.minimisation import Budget, OptimiserResult
from sciml.solvers.trained.networks import ACTIVATIONS, Dense, Tape, rebuilds
from sciml.solvers.trained.objective import Ansatz, Objective
from sciml.solvers.trained.sampling import sobol
from sciml.solvers.trained.solver import Collocation, at_least
from sciml.solvers.trained.variable_projection import VariableProjection, Weights

_PORTION = 2**16  # points times Gaussians treated at once


@dataclass(frozen=True)
class Shape:
    """G Gaussians: where, how wide, how turned, and of which channel.

    ``means`` (G, D), ``sharpness`` (G, D), the logarithm of 1/width, ``channel`` (G,), and
    ``shear`` (G, D (D - 1) / 2), the entries of T by rows, None where the covariance is diagonal.
    """

    means: Tensor
    sharpness: Tensor
    channel: Tensor
    shear: Tensor | None = None

    def select(self, rows: Tensor) -> Shape:
        """Some of them, by number or by a bool each."""
        shear = None if self.shear is None else self.shear[rows]
        return Shape(self.means[rows], self.sharpness[rows], self.channel[rows], shear)

    def joined(self, other: Shape) -> Shape:
        """These, then the others."""
        shear = None
        if self.shear is not None and other.shear is not None:
            shear = torch.cat([self.shear, other.shear])
        return Shape(
            torch.cat([self.means, other.means]), torch.cat([self.sharpness, other.sharpness]),
            torch.cat([self.channel, other.channel]), shear,
        )  # fmt: skip

    def sheared(self) -> Shape:
        """The same functions, free to turn."""
        count, dimension = self.means.shape
        shear = self.means.new_zeros(count, dimension * (dimension - 1) // 2)
        return Shape(self.means, self.sharpness, self.channel, shear)


class GaussianBank(nn.Module):
    """The jets of G Gaussians; ``periods``: per axis, None where it is not periodic.

    ``unit`` (D,): the length in which the means are counted, so that a step of one means as much
    for a place as for the logarithm of a width.
    """

    unit: Tensor
    channel: Tensor

    def __init__(self, shape: Shape, unit: Tensor, periods: tuple[float | None, ...]) -> None:
        super().__init__()
        self.register_buffer("unit", unit)
        self.places = nn.Parameter(shape.means / unit)
        self.sharpness = nn.Parameter(shape.sharpness.clone())
        self.shear = None if shape.shear is None else nn.Parameter(shape.shear.clone())
        self.register_buffer("channel", shape.channel)
        self.periods = periods

    @property
    def means(self) -> Tensor:
        """(G, D)."""
        return self.places.detach() * self.unit

    @property
    def shape(self) -> Shape:
        """What they are now."""
        shear = None if self.shear is None else self.shear.detach().clone()
        return Shape(self.means, self.sharpness.detach().clone(), self.channel, shear)

    def forward(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet (C, N, G); its graph is the closed form of ``jacobian``.

        Where the points have a graph, plain differentiation goes through to them instead; frozen
        Gaussians need none.
        """
        if points.requires_grad or not self.places.requires_grad:
            data = self.evaluate(points, pairs)
        else:
            data = _closed(self, points, pairs, *self.columns())
        if tape is not None:
            tape.append((self, coordinates(points, pairs), data))
        return Jet(data, points.shape[1], pairs)

    def columns(self) -> list[nn.Parameter]:
        """The parameters in the order of the Jacobian's columns."""
        return [self.places, self.sharpness, *(() if self.shear is None else (self.shear,))]

    def evaluate(self, points: Tensor, pairs: Pairs) -> Tensor:
        """(C, N, G)."""
        _, P = self._factor()
        if torch.compiler.is_exporting():
            return self._jets(P, points, pairs)
        parts = [self._jets(P, points[rows], pairs) for rows in self._parts(len(points))]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def _jets(self, P: Tensor, points: Tensor, pairs: Pairs) -> Tensor:
        total = P.new_zeros(())
        for z in self._offsets(points):
            q = _times(P, z, self.shear is None)
            g = (-0.5 * (z * q).sum(0)).exp()
            second = [(q[a] * q[b] - P[a, b]) * g for a, b in pairs]
            total = total + torch.stack([g, *(-q * g), *second])
        return total

    @torch.no_grad()
    def jacobian(self, given: Jet, delta: Tensor) -> Tensor:
        """(N, P) from the jet of the points and delta (C, N, G); see the module."""
        (L, P), points = self._factor(), given.value
        found = points.new_zeros(len(points), sum(p.numel() for p in self.columns()))
        for rows in self._parts(len(points)):
            for z in self._offsets(points[rows]):
                found[rows] += self._rows(L, P, z, given.pairs, delta[:, rows])
        return found

    def _rows(self, L: Tensor, P: Tensor, z: Tensor, pairs: Pairs, delta: Tensor) -> Tensor:
        d = len(z)
        q = _times(P, z, self.shear is None)
        g = (-0.5 * (z * q).sum(0)).exp()
        s, v = delta[0] - (delta[1 : 1 + d] * q).sum(0), -delta[1 : 1 + d]
        curvature = dict(zip(pairs, delta[1 + d :], strict=True))
        for (a, b), weight in curvature.items():
            s = s + weight * (q[a] * q[b] - P[a, b])
            v[a] += weight * q[b]
            v[b] += weight * q[a]
        Pv = _times(P, v, self.shear is None)
        means = [self.unit[a] * g * (s * q[a] - Pv[a]) for a in range(d)]
        if self.shear is None:
            own = [
                (v[a] - 0.5 * s * z[a]) * z[a] - curvature.get((a, a), 0.0) for a in range(d)
            ]  # fmt: skip
            shape = [2 * P[a, a] * g * own[a] for a in range(d)]
        else:
            shape = self._turned(L, s * z, v, z, curvature)
            shape = [g * part for part in shape]
        return torch.cat([torch.stack(part, -1).flatten(1) for part in _blocks(means, shape)], 1)

    def _turned(
        self, L: Tensor, sz: Tensor, v: Tensor, z: Tensor, curvature: dict[tuple[int, ...], Tensor]
    ) -> list[Tensor]:
        """tr(2 M dP) / g by the sharpness of every axis, then by the entries of T."""
        d = len(z)
        M: dict[tuple[int, int], Tensor] = {}
        for a, b in product(range(d), repeat=2):
            M[a, b] = 0.5 * (v[a] * z[b] + z[a] * v[b] - sz[a] * z[b])
            pair = (min(a, b), max(a, b))
            if pair in curvature:
                M[a, b] = M[a, b] - (1.0 if a == b else 0.5) * curvature[pair]
        low = [(a, b) for b in range(d) for a in range(b, d)]
        by = {
            (a, b): 2 * sum((M[a, c] * L[c, b] for c in range(b, d)), torch.zeros(()))
            for a, b in low
        }
        sharp = [sum((by[a, b] * L[a, b] for a in range(b, d)), torch.zeros(())) for b in range(d)]
        scale = self.sharpness.exp().T
        return [*sharp, *(by[a, b] * scale[b] for a in range(d) for b in range(a))]

    def _parts(self, count: int) -> Iterator[slice]:
        """Points in portions whose arrays stay in the cache."""
        size = max(1, _PORTION // len(self.means))
        return (slice(k, k + size) for k in range(0, max(count, 1), size))

    def _factor(self) -> tuple[Tensor, Tensor]:
        """L and P, (D, D, G) each."""
        count, d = self.means.shape
        scale = self.sharpness.exp().T
        L = self.means.new_zeros(d, d, count)
        for a in range(d):
            L[a, a] = scale[a]
        if self.shear is not None:
            below = [(row, column) for row in range(d) for column in range(row)]
            for k, (row, column) in enumerate(below):
                L[row, column] = self.shear[:, k] * scale[column]
        return L, torch.einsum("acg,bcg->abg", L, L)

    def _offsets(self, points: Tensor) -> Iterator[Tensor]:
        """z of every copy that counts, (D, N, G) each."""
        z = points.T[:, :, None] - (self.places * self.unit).T[:, None, :]
        for a, period in enumerate(self.periods):
            if period is not None:
                z[a] -= period * (z[a] / period).round()
        shifts = [(0.0,) if p is None else (-p, 0.0, p) for p in self.periods]
        for shift in product(*shifts):
            yield z + z.new_tensor(shift)[:, None, None]


def _times(P: Tensor, z: Tensor, diagonal: bool) -> Tensor:
    """P z, (D, N, G), leaving out the zeros of ``diagonal`` matrices."""
    d = len(z)
    rows = []
    for a in range(d):
        row = P[a, a] * z[a]
        for b in range(d):
            if b != a and not diagonal:
                row = row + P[a, b] * z[b]
        rows.append(row)
    return torch.stack(rows)


def _blocks(means: list[Tensor], shape: list[Tensor]) -> list[list[Tensor]]:
    """Per parameter the columns of its trailing axis."""
    d = len(means)
    return [means, shape[:d], *([shape[d:]] if shape[d:] else [])]


class _Closed(torch.autograd.Function):
    """The jets of a bank, with ``GaussianBank.jacobian`` as their derivative."""

    @staticmethod
    def forward(ctx: Any, bank: GaussianBank, points: Tensor, pairs: Pairs, *_: Tensor) -> Tensor:
        ctx.bank, ctx.given = bank, coordinates(points, pairs)
        return bank.evaluate(points, pairs)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> Any:
        total = ctx.bank.jacobian(ctx.given, delta).sum(0)
        sizes = [p.numel() for p in ctx.bank.columns()]
        parts = zip(total.split(sizes), ctx.bank.columns(), strict=True)
        return None, None, None, *(part.view_as(p) for part, p in parts)


_closed: Callable[..., Tensor] = _Closed.apply


class Channels(nn.Module):
    """k weighted sums of Gaussians, each of its own: ``channel`` (G,) says which."""

    channel: Tensor
    members: Tensor

    def __init__(self, weights: Tensor, channel: Tensor, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(weights.clone())
        self.register_buffer("channel", channel)
        self.register_buffer("members", nn.functional.one_hot(channel, count).to(weights))

    def forward(self, jet: Jet, tape: Tape | None) -> Jet:
        """(C, N, G) to (C, N, k)."""
        data = jet.data @ (self.weight[:, None] * self.members)
        if tape is not None:
            tape.append((self, jet.data, data))
        return jet.like(data)

    def columns(self) -> list[nn.Parameter]:
        """The weights."""
        return [self.weight]

    def jacobian(self, given: Tensor, delta: Tensor) -> Tensor:
        """(N, G)."""
        spread = delta if delta.shape[-1] == 1 else delta[..., self.channel]
        return (given * spread).sum(0)


class GaussianNetwork(nn.Module):
    """Gaussians, their channels and, with ``hidden`` units, a network of one tanh layer after them.

    Without it there is one channel per field, and the answer is linear in the weights.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Tensor,
        unit: Tensor,
        periods: tuple[float | None, ...],
        channels: int,
        outputs: int,
        hidden: int,
    ) -> None:
        super().__init__()
        self.bank = GaussianBank(shape, unit, periods)
        self.channels = Channels(weights, shape.channel, channels)
        self.options = {
            "kind": "gaussians", "periods": periods, "channels": channels, "outputs": outputs,
            "hidden": hidden,
        }  # fmt: skip
        sizes = [(channels, hidden), (hidden, outputs)] if hidden else []
        self.mixing = nn.ModuleList(Dense(a, b).double() for a, b in sizes)

    def forward(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet of the outputs at the points (N, D)."""
        jet: Jet = self.channels(self.bank(points, pairs, tape), tape)
        if len(self.mixing):
            first, last = cast("list[Dense]", list(self.mixing))
            jet = last(ACTIVATIONS["tanh"](first(jet, tape)), tape)
        return jet

    def blocks(self) -> list[Any]:
        """Every layer with parameters; the answer is linear in the last one's."""
        return [self.bank, self.channels, *self.mixing]

    def replaced(self, shape: Shape, weights: Tensor) -> GaussianNetwork:
        """The same network of other Gaussians; the layers after them are shared."""
        unit, periods = self.bank.unit, self.bank.periods
        found = GaussianNetwork(shape, weights, unit, periods, self.members, self.members, 0)
        found.mixing, found.options = self.mixing, self.options
        return found

    @property
    def members(self) -> int:
        """Number of channels."""
        return int(self.channels.members.shape[1])


@rebuilds("gaussians")
def _gaussians(options: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GaussianNetwork:
    sheared = tensors.get("bank.shear")
    shape = Shape(
        torch.zeros_like(tensors["bank.places"]),
        torch.zeros_like(tensors["bank.sharpness"]),
        torch.zeros_like(tensors["bank.channel"]),
        None if sheared is None else torch.zeros_like(sheared),
    )
    weights, unit = torch.zeros(len(shape.means)), torch.ones_like(tensors["bank.unit"])
    return GaussianNetwork(
        shape, weights, unit, tuple(options["periods"]), options["channels"], options["outputs"],
        options["hidden"],
    )  # fmt: skip


_CANDIDATES = 20  # points per Gaussian
_NARROWER = 0.7
_APART = 0.7  # distance that a new Gaussian keeps from the next, in its parent's widths


def refined(objective: Objective, drop: float, grow: float, full: bool) -> GaussianNetwork:
    """The objective's network with Gaussians dropped and a share ``grow`` added."""
    network = cast(GaussianNetwork, objective.ansatz.network)
    piece = objective.pieces[0]
    count = max(2000, _CANDIDATES * len(network.bank.means))
    points = piece.place(sobol(count, piece.free, torch.Generator().manual_seed(count)))
    network = pruned(network, points, drop)
    with torch.no_grad():
        residual = objective.pointwise(points)
    network = grown(network, points, residual, round(grow * len(network.bank.means)))
    if full and network.bank.shear is None:
        network = network.replaced(network.bank.shape.sheared(), network.channels.weight.detach())
    return network


@torch.no_grad()
def contribution(network: GaussianNetwork, points: Tensor) -> Tensor:
    """rms of every weighted Gaussian over the points (N, D), (G,)."""
    g = network.bank.evaluate(points, ())[0]
    return network.channels.weight.detach().abs() * g.square().mean(0).sqrt()


def pruned(network: GaussianNetwork, points: Tensor, drop: float) -> GaussianNetwork:
    """Without the Gaussians whose contribution is at most ``drop`` of the largest."""
    size = contribution(network, points)
    keep = size > drop * size.max()
    weights = network.channels.weight.detach()
    return network.replaced(network.bank.shape.select(keep), weights[keep])


@torch.no_grad()
def grown(
    network: GaussianNetwork, points: Tensor, residual: Tensor, count: int
) -> GaussianNetwork:
    """With ``count`` more of weight zero at the largest of the residuals (N,)."""
    shape, weights = network.bank.shape, network.channels.weight.detach()
    parents = network.bank.evaluate(points, ())[0].argmax(1)
    left, chosen = residual.clone(), []
    for _ in range(count):
        k = int(left.argmax())
        if float(left[k]) <= 0:
            break
        chosen.append(k)
        gap = (points - points[k]) * shape.sharpness[parents[k]].exp()
        left[gap.square().sum(1) < _APART**2] = 0.0
    if not chosen:
        return network
    rows = torch.tensor(chosen)
    parent = shape.select(parents[rows])
    # A channel gets its share in turn, whichever the parent's is.
    channel = torch.arange(len(rows)) % network.members
    new = replace(
        parent, means=points[rows], sharpness=parent.sharpness - torch.tensor(_NARROWER).log(),
        channel=channel,
    )  # fmt: skip
    return network.replaced(shape.joined(new), torch.cat([weights, weights.new_zeros(len(rows))]))


_MARGIN = 0.1  # of the extent, on either side, within which the first means lie
_OVERLAPS = (1.5, 2.2, 3.2, 4.7, 7.0)  # first widths tried, over the mean distance


@dataclass(frozen=True)
class Gaussians(Collocation):
    """Gaussians trained on the equation itself; float64.

    ``count``: of each channel at the start. ``width``: their first widths, in the units of the
    coordinates, one or one per axis (time last); None: the one of several multiples of the mean
    distance whose residual is least. ``covariance``: "full" lets
    them turn, from the second stage on. ``channels``, ``hidden``: sums that a tanh layer of that
    many units takes in; 0: one sum per field, the answer is linear in the weights. ``points``
    inside (0: three per parameter at the start). ``stages`` of the optimiser's iterations each;
    before the next, Gaussians below ``drop`` of the largest are left out and a share ``grow`` is
    added. The others: see ``Collocation``.
    """

    count: int = 100
    width: float | tuple[float, ...] | None = None
    covariance: Literal["diagonal", "full"] = "diagonal"
    channels: int = 4
    hidden: int = 0
    stages: int = 1
    drop: float = 1e-8
    grow: float = 0.25
    optimiser: VariableProjection | AnyOptimiser = field(default_factory=VariableProjection)
    kind: Literal["gaussians"] = "gaussians"
    _: KW_ONLY
    points: int = 0
    boundary_points: int = 100

    def check(self) -> None:
        """Raise InputError for an option that is out of range."""
        at_least(self, 1, "count", "channels", "stages")
        at_least(self, 0, "hidden", "drop", "grow", "points")
        if not self.drop < 1:
            raise InputError(f"drop is a share, below 1; got {self.drop:g}", "solver.drop")
        if self.covariance == "full" and self.stages == 1:
            raise InputError(
                "a full covariance starts from the diagonal fit; give stages: 2 or more",
                "solver.covariance",
            )

    def minimise(self, objective: Objective, budget: Budget) -> OptimiserResult:
        """Stage by stage."""
        if not objective.begun:  # those of a window before lie in its own time
            objective.ansatz = Ansatz(self.ansatz(objective.form), objective.ansatz.built_in)
        inside = self.points or 3 * len(objective.theta)
        generator = torch.Generator().manual_seed(self.seed)
        per_piece = self.counts(objective, inside)
        objective.place(self.sampler.points(objective, per_piece, generator))
        if not objective.begun:
            _start(objective, _OVERLAPS if self.width is None else (_OVERLAPS[0],))
        total = self.stages * self.optimiser.iterations
        minimisation = self.minimisation(objective, inside, generator, budget, total)
        numbers = [_count(objective)]
        result = self.optimiser.minimise(objective, minimisation)
        for _ in range(1, self.stages):
            if minimisation.late or result.status in (Status.CONVERGED, Status.NOT_FINITE):
                break
            self._refine(objective)
            numbers.append(_count(objective))
            minimisation.status = Status.TRAINING_ENDED
            result = self.optimiser.minimise(objective, minimisation)
        said = "Gaussians by stage: " + ", ".join(map(str, numbers))
        return replace(result, notes=(*result.notes, said))

    def _refine(self, objective: Objective) -> None:
        network = refined(objective, self.drop, self.grow, self.covariance == "full")
        objective.ansatz = Ansatz(network, objective.ansatz.built_in)

    def ansatz(self, form: StrongForm) -> GaussianNetwork:
        """The first Gaussians; InputError for widths that are none, and derivatives too high."""
        if any(len(axes) > 2 for axes in form.pairs):
            raise InputError(
                "Gaussians have derivatives to the second here; use pinn or random_features",
                "solver.kind",
            )
        lower, upper = extent(form)
        fields = len(form.fields)
        channels = self.channels if self.hidden else fields
        sizes = upper - lower
        axes = (*form.data.periodic, *(() if form.problem.time is None else (False,)))
        periods = tuple(float(s) if p else None for s, p in zip(sizes, axes, strict=True))
        margin = torch.tensor([0.0 if p else _MARGIN for p in axes], dtype=torch.float64) * sizes
        generator = torch.Generator().manual_seed(self.seed)
        total = channels * self.count
        cubes = [sobol(self.count, len(sizes), generator) for _ in range(channels)]
        means = lower - margin + torch.cat(cubes) * (sizes + 2 * margin)
        widths = self._widths(sizes)
        shape = Shape(
            means,
            (-widths.log()).expand(total, -1),
            torch.arange(channels).repeat_interleave(self.count),
        )
        weights = torch.zeros(total, dtype=torch.float64)
        if self.hidden:
            weights = torch.randn(total, dtype=torch.float64, generator=generator)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return GaussianNetwork(
                shape, weights / self.count**0.5, widths, periods, channels, fields, self.hidden
            )

    def _widths(self, sizes: Tensor) -> Tensor:
        """The first widths, (D,)."""
        if self.width is None:
            widths: Tensor = _OVERLAPS[0] * sizes * self.count ** (-1 / len(sizes))
            return widths
        given = self.width if isinstance(self.width, tuple) else (self.width,) * len(sizes)
        if len(given) != len(sizes) or not all(0 < width < math.inf for width in given):
            raise InputError(
                f"needs a positive number, or {len(sizes)} of them, time last; got {self.width}",
                "solver.width",
            )
        return torch.tensor(given, dtype=torch.float64)


def _start(objective: Objective, overlaps: Sequence[float]) -> None:
    """Solve for the weights, with that one of these widths which leaves the least residual.

    ``overlaps``: widths, the present ones counted as the first.
    """
    bank, weights = objective.ansatz.network.blocks()[0], Weights.of(objective)
    first, found = objective.theta, []
    sharpness = bank.sharpness.detach().clone()
    for overlap in overlaps:
        objective.assign(first)
        with torch.no_grad():
            bank.sharpness.copy_(sharpness - math.log(overlap / overlaps[0]))
        weights.solve()
        r = objective.vector()
        found.append((float(r @ r), objective.theta))
    objective.assign(min(found, key=lambda pair: pair[0])[1])


def _count(objective: Objective) -> int:
    return len(objective.ansatz.network.blocks()[0].means)
