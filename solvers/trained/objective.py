"""What is asked of an ansatz: the sum of weighted squares of all its residuals, and its Jacobian.

    loss = sum_k  weight_k / N_k  sum_n |r_k(x_n)|^2  =  |r|^2,

k over the pieces (the equation, the sides, the start). Rows of the Jacobian dr/dtheta come from one
backward sweep per equation (``networks``). Parameters of the problem that are to be found count as
parameters of the ansatz, and observations u(x_n) - u_n are one more piece.

The pieces are weighed against each other. *Causal* (Wang, Sankaran, Perdikaris 2024, arXiv
2203.07404, eq. 14): with L_k the relative mean square of the equation's residual in the k-th slice
of time, the points of slice i count

    w_i = exp(-epsilon sum_{k < i} L_k),

so that late times wait for early ones. *Gradient norms* and the *neural tangent kernel* (Wang,
Sankaran, Wang, Perdikaris 2023, arXiv 2308.08468, eq. 4.3 and 4.6): piece k counts

    sum_j |dL_j/dtheta| / |dL_k/dtheta|,        or  sum_j tr K_j / tr K_k,

K_k = J_k J_k^T / N_k the tangent kernel of its residuals, as a running mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from sciml.core.errors import InputError, did_you_mean
from sciml.core.problem.mesh import Mesh
from sciml.core.problem.problem import Problem
from sciml.core.problem.reader import free_names
from sciml.discretization.points.jet import Jet, Pairs
from sciml.discretization.points.pointwise import numeric_parameters
from sciml.discretization.points.region import Boxed
from sciml.discretization.points.strong import StrongForm, strong_form
from sciml.solvers.trained.conditions import (
    OBSTACLE,
    BuiltIn,
    Piece,
    Stated,
    built_in,
    disagreement,
    pieces,
)
from sciml.solvers.trained.networks import Tape, derivatives
from sciml.solvers.trained.observations import Observations, observations_of
from sciml.solvers.trained.unknowns import (
    beside,
    check_named,
    coordinate_of,
    unknowns_of,
    value_at,
)


class Network(Protocol):
    """A trained function on points, with its derivatives; float64 or float32 parameters."""

    def __call__(self, points: Tensor, pairs: Pairs, tape: Tape | None = None) -> Jet:
        """The jet at the points (N, D); each block's input and output go on the tape."""

    def blocks(self) -> Sequence[Any]:
        """Every layer with parameters, in the order of the Jacobian's columns."""


@dataclass(frozen=True)
class Ansatz:
    """u = G + phi N, or N alone."""

    network: Network
    built_in: BuiltIn | None = None

    def known(self, points: Tensor, pairs: Pairs) -> tuple[Jet, Jet] | None:
        """The jets of G and phi at points: computed once for points that are used again."""
        return None if self.built_in is None else self.built_in.jets(points, pairs)

    def jet(
        self,
        points: Tensor,
        pairs: Pairs,
        known: tuple[Jet, Jet] | None,
        tape: Tape | None = None,
    ) -> Jet:
        """The jet of u."""
        found = self.network(points, pairs, tape)
        if known is None or self.built_in is None:
            return found
        data = self.built_in.carried(points, pairs) if self.built_in.moving else known[0]
        return data + known[1] * found

    def __call__(self, points: Tensor) -> Tensor:
        """u at points (N, D), (N, F), with a graph where one is wanted."""
        if self.built_in is None:
            return self.network(points, ()).value
        known, distance = self.built_in.extension(points), self.built_in.distance(points)
        return known + distance * self.network(points, ()).value

    @torch.no_grad()
    def value(self, points: Tensor) -> Tensor:
        """The same without a graph."""
        return self(points)


@dataclass(frozen=True)
class PlacedPiece:
    """The points of one piece, those beside them too, the jets of what is built in, its weight.

    ``share``: factors of the weight at the points, (N,); one everywhere where None.
    """

    piece: Piece
    points: Tensor
    known: tuple[Jet, Jet] | None
    pairs: Pairs
    weight: float
    share: Tensor | None = None

    @property
    def own(self) -> Tensor:
        """The points without those beside them."""
        return self.points[: len(self.points) // self.piece.blocks]


@dataclass
class Objective:
    """The residuals of an ansatz at points that may be exchanged.

    ``weights``: per piece, 1 where not named. ``profiles``: factors of these that depend on the
    place, from points (N, D) to (N,). ``unknown``: the coordinates of parameters of the problem to
    be found, one-element tensors (see ``trained.unknowns``); the mapping of parameters that the
    strong form reads is kept in step. ``observed``: what was read of the solution.
    ``density``: what a sampler has learned of where the residual is, for its next exchange.
    ``notes``: remarks for the Solution. ``begun``: its function is not as it was drawn, but goes on
    from one that was kept.
    """

    form: StrongForm
    ansatz: Ansatz
    pieces: Sequence[Piece]
    weights: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    unknown: Mapping[str, nn.Parameter] = field(default_factory=dict)
    observed: Observations | None = None
    batches: list[PlacedPiece] = field(default_factory=list)
    density: Any = None
    notes: Sequence[str] = ()
    begun: bool = False

    def place(self, points: Sequence[Tensor]) -> None:
        """Take these points, one tensor (N, D) per piece."""
        self.batches = [self._batch(p, x) for p, x in zip(self.pieces, points, strict=True)]

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Take these weights of pieces, at the present points and at those to come."""
        self.weights = {**self.weights, **weights}
        self.batches = [
            replace(b, weight=self.weights.get(b.piece.name, 1.0)) for b in self.batches
        ]

    @property
    def found(self) -> dict[str, float]:
        """The unknown parameters as numbers."""
        stated = unknowns_of(self.form.problem)
        return {name: float(value_at(stated[name], s.detach())) for name, s in self.unknown.items()}

    @torch.no_grad()
    def restart(self, found: Mapping[str, float]) -> None:
        """Put the unknown parameters at these values, as far as they are among them.

        Raises InputError for one that does not keep its bounds.
        """
        stated = unknowns_of(self.form.problem)
        for name, s in self.unknown.items():
            if name in found:
                try:
                    s.fill_(coordinate_of(replace(stated[name], unknown=found[name])))
                except InputError as error:
                    raise InputError(error.message, f"problem.parameters.{name}") from None

    @property
    def columns(self) -> list[nn.Parameter]:
        """All parameters, in the order of the Jacobian's columns."""
        own = [p for block in self.ansatz.network.blocks() for p in block.columns()]
        return [*own, *self.unknown.values()]

    @property
    def theta(self) -> Tensor:
        """The parameters as one vector (P,)."""
        return torch.cat([p.detach().flatten() for p in self.columns])

    @torch.no_grad()
    def assign(self, theta: Tensor) -> None:
        """Set the parameters from one vector."""
        start = 0
        for p in self.columns:
            p.copy_(theta[start : start + p.numel()].view_as(p))
            start += p.numel()

    def residual(self, batch: PlacedPiece, tape: Tape | None = None) -> Tensor:
        """Of one piece, (N, E), without its weight; with a graph where one is wanted."""
        jet = self.ansatz.jet(batch.points, batch.pairs, batch.known, tape)
        return batch.piece.residual(batch.points, jet)

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        """The loss, with a graph, and the mean square of every piece by name."""
        total, parts = torch.zeros(()), {}
        for batch in self.batches:
            square = self._at(batch, None).square().sum(-1)
            parts[batch.piece.name] = float(square.detach().mean())
            share = 1.0 if batch.share is None else batch.share
            total = total + batch.weight * (share * square).mean()
        return total, parts

    @torch.no_grad()
    def vector(self) -> Tensor:
        """All weighted residuals r, (R,)."""
        return torch.cat([(row_scale(b) * self._at(b, None)).T.flatten() for b in self.batches])

    def jacobian(self, blocks: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
        """r (R,) and dr/dtheta (R, P); the columns of ``blocks`` alone where they are named."""
        values, rows = [], []
        for batch in self.batches:
            for r, J in self.rows(batch, blocks):
                values.append(row_scale(batch).squeeze(-1) * r)
                rows.append(row_scale(batch) * J)
        return torch.cat(values), torch.cat(rows)

    def profile(self, piece: Piece, points: Tensor) -> Tensor | None:
        """The factor of a piece's weight at points, (N,), if it has one."""
        return self.profiles[piece.name](points) if piece.name in self.profiles else None

    def pointwise(self, points: Tensor) -> Tensor:
        """|r| of the equation at any points (N, D), (N,), times the root of its profile."""
        self.settle()
        piece, pairs = self.pieces[0], self.form.pairs
        seen = piece.seen(points)
        jet = self.ansatz.jet(seen, pairs, self.ansatz.known(seen, pairs))
        found = piece.residual(seen, jet).square().sum(-1).sqrt()
        profile = self.profile(piece, points)
        return found if profile is None else profile.sqrt() * found

    def _batch(self, piece: Piece, points: Tensor) -> PlacedPiece:
        pairs = piece.pairs
        self.settle()
        share = self.profile(piece, points)
        points = piece.seen(points)
        weight = self.weights.get(piece.name, 1.0)
        return PlacedPiece(piece, points, self.ansatz.known(points, pairs), pairs, weight, share)

    def _at(self, batch: PlacedPiece, tape: Tape | None) -> Tensor:
        self.settle()
        return self.residual(batch, tape)

    def rows(
        self, batch: PlacedPiece, blocks: Sequence[Any] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Per equation the residuals of a piece, unweighted, (N,), and their derivatives (N, P)."""
        tape: Tape = []
        self.settle()
        extra = self._spread(len(batch.points)) if blocks is None else []
        wanted = self.ansatz.network.blocks() if blocks is None else blocks
        with torch.enable_grad():
            r = self.residual(batch, tape)
        self.settle()
        tape = [entry for entry in tape if any(entry[0] is block for block in wanted)]
        outputs = [z for _, _, z in tape] + extra
        for k in range(r.shape[1]):
            last = k == r.shape[1] - 1
            deltas = torch.autograd.grad(
                r[:, k].sum(), outputs, retain_graph=not last, materialize_grads=True,
                allow_unused=True,
            )  # fmt: skip
            with torch.no_grad():
                own = derivatives(tape, deltas[: len(tape)], wanted)
                J = torch.cat([own, *(d[:, None] for d in deltas[len(tape) :])], 1)
                J = J.unflatten(0, (batch.piece.blocks, len(r))).sum(0)
            yield r[:, k].detach(), J

    def settle(self) -> None:
        """The strong form reads the unknown parameters as they are now."""
        stated = unknowns_of(self.form.problem)
        for name, s in self.unknown.items():
            self.form.data.parameters[name] = value_at(stated[name], s)  # type: ignore[index]

    def _spread(self, count: int) -> list[Tensor]:
        """The coordinates, one copy per point; their values in the strong form's parameters."""
        stated, found = unknowns_of(self.form.problem), []
        for name, s in self.unknown.items():
            copies = s.detach().expand(count).clone().requires_grad_()
            self.form.data.parameters[name] = value_at(stated[name], copies)  # type: ignore[index]
            found.append(copies)
        return found


def row_scale(batch: PlacedPiece) -> Tensor:
    """The root of a residual's weight in the loss, () or (N, 1)."""
    scale = batch.points.new_tensor(batch.weight / len(batch.own)).sqrt()
    return scale if batch.share is None else scale * batch.share.sqrt()[:, None]


Relative = Callable[[float], float]


@dataclass(frozen=True)
class Causal:
    """Weights of ``slices`` of time; slice i opens as the L before it fall below 1 / ``epsilon``.

    The loss is another at every iteration: for ``GaussNewton`` and ``AdamDescent``, not for
    ``LBFGS``, which starts anew each time.
    """

    epsilon: float = 100.0
    slices: int = 32
    kind: Literal["causal"] = "causal"

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise InputError(f"epsilon must be positive; got {self.epsilon:g}", "solver.causal")
        if self.slices < 2:
            raise InputError(f"slices must be at least 2; got {self.slices}", "solver.causal")

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New factors at the equation's points. Raises InputError for a problem without time."""
        time = objective.form.problem.time
        if time is None:
            raise InputError("causal weights need a problem in time", "solver.causal")
        batch = objective.batches[0]
        with torch.no_grad():
            squares = objective.residual(batch).square().sum(-1)
        part = (batch.own[:, -1] - time.start) / (time.end - time.start) * self.slices
        index = part.long().clamp(0, self.slices - 1)
        zero = squares.new_zeros(self.slices)
        counts = zero.index_add(0, index, torch.ones_like(squares)).clamp(min=1)
        means = zero.index_add(0, index, squares) / counts * relative(1.0) ** 2
        before = means.cumsum(0) - means
        share = (-self.epsilon * before.nan_to_num(0.0)).exp()[index]
        profile = objective.profile(batch.piece, batch.own)
        share = share if profile is None else profile * share
        objective.batches[0] = replace(batch, share=share)
        return True


@dataclass(frozen=True)
class GradientNorm:
    """Weights of pieces by the norm of their loss's gradient, every ``every`` iterations."""

    every: int = 50
    memory: float = 0.9
    kind: Literal["gradient_norm"] = "gradient_norm"

    def __post_init__(self) -> None:
        _check(self.every, self.memory)

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New weights of all pieces, where it is time."""
        if iteration % self.every:
            return False
        sizes = {}
        for batch in objective.batches:
            with torch.enable_grad():
                objective.settle()
                loss = objective.residual(batch).square().sum(-1).mean()
                parts = torch.autograd.grad(
                    loss, objective.columns, allow_unused=True, materialize_grads=True
                )
            sizes[batch.piece.name] = float(torch.cat([p.flatten() for p in parts]).norm())
        _balance(objective, sizes, self.memory if iteration else 0.0)
        return True


@dataclass(frozen=True)
class NeuralTangent:
    """Weights of pieces by the trace of their tangent kernel, every ``every`` iterations."""

    every: int = 50
    memory: float = 0.9
    kind: Literal["neural_tangent"] = "neural_tangent"

    def __post_init__(self) -> None:
        _check(self.every, self.memory)

    def weigh(self, objective: Objective, iteration: int, relative: Relative) -> bool:
        """New weights of all pieces, where it is time."""
        if iteration % self.every:
            return False
        sizes = {
            batch.piece.name: sum(
                float(J.square().sum()) / len(J) for _, J in objective.rows(batch)
            )
            for batch in objective.batches
        }
        _balance(objective, sizes, self.memory if iteration else 0.0)
        return True


AnyBalance = GradientNorm | NeuralTangent


def _balance(objective: Objective, sizes: Mapping[str, float], memory: float) -> None:
    """Weigh by the running mean of sum / size; pieces without a size keep their weight."""
    total = sum(sizes.values())
    fresh = {name: total / size for name, size in sizes.items() if size > 0}
    old = objective.weights
    objective.weigh(
        {name: memory * old.get(name, 1.0) + (1 - memory) * new for name, new in fresh.items()}
    )


def _check(every: int, memory: float) -> None:
    if every < 1:
        raise InputError(f"every must be at least 1; got {every}", "solver.balance.every")
    if not 0 <= memory < 1:
        raise InputError(f"memory must be in [0, 1); got {memory:g}", "solver.balance.memory")


_TRIED = 1000  # places at which a weight is tried


def objective_of(
    problem: Problem,
    network: Callable[[StrongForm], Network],
    hard: bool | None,
    weights: Mapping[str, float | str],
    extension: Mapping[str, float | str] | None = None,
    mesh: Mesh | None = None,
) -> Objective:
    """The objective of a problem for the network that ``network(form)`` makes.

    ``hard``: of a domain that is no box None builds in the start alone. ``weights``: of the
    equation, the soft conditions (by side, or ``start``) and the observations,
    numbers or expressions of the place. ``extension``: what carries the data that are built in, by
    field, in place of their interpolation. ``mesh``: the domain where the
    problem has none. Raises InputError for a weight that belongs to nothing
    or is negative somewhere, for an extension that does not meet the data, and for an unknown that
    nothing depends on.
    """
    form = strong_form(problem, numeric_parameters(problem), mesh)
    check_named(form.problem, extension)
    walls = hard is True and not isinstance(form.region, Boxed)
    hard = hard is not False
    base, notes = (built_in(form, walls) if hard else None), []
    if extension is not None:
        base = _given(form, base if hard else None, extension)
    elif base is not None and _disagreement(form, base) is not None:
        base, hard = None, False
        notes.append("the data disagree where sides meet, so that the conditions are soft")
    parts, observed = pieces(form, hard, True, walls), None
    if problem.observations is not None:
        observed = observations_of(form)
        parts = (*parts, observed.piece())
    known = [piece.name for piece in parts]
    for name in weights:
        if name not in known and name not in (*form.region.sides, OBSTACLE, "start"):
            raise InputError(
                f"no condition is called '{name}'{did_you_mean(name, known)}",
                f"solver.weights.{name}",
            )
    unknown = {
        name: nn.Parameter(torch.tensor([coordinate_of(stated)], dtype=torch.float64))
        for name, stated in unknowns_of(problem).items()
    }
    numbered = {name: w for name, w in weights.items() if not isinstance(w, str)}
    profiles = {p.name: _profile(form, p, weights[p.name]) for p in parts
                if isinstance(weights.get(p.name), str)}  # fmt: skip
    ansatz = Ansatz(network(form), base)
    return Objective(form, ansatz, parts, numbered, profiles, unknown, observed, notes=notes)


def _disagreement(form: StrongForm, base: BuiltIn) -> str | None:
    """The condition that G does not meet, for the unknowns as guessed or for others."""
    missed = disagreement(form, base)
    if missed is not None or not base.moving:
        return missed
    parameters: Any = form.data.parameters
    guessed = dict(parameters)
    parameters.update(beside(unknowns_of(form.problem)))
    missed = disagreement(form, base)
    parameters.update(guessed)
    return missed


def _given(form: StrongForm, base: BuiltIn | None, extension: Mapping[str, float | str]) -> BuiltIn:
    """What is built in, its data carried by the ``extension``."""
    key = "solver.extension"
    if base is None:
        raise InputError("an extension carries data that are built in, and there are none", key)
    for name in extension:
        if name not in form.fields:
            raise InputError(f"no field is called '{name}'{did_you_mean(name, form.fields)}",
                             f"{key}.{name}")  # fmt: skip
        _check_place(form, extension[name], f"{key}.{name}", frozenset())
    unknown = frozenset(unknowns_of(form.problem))
    named = any(unknown & free_names(value) for value in extension.values())

    carried = Stated(
        form.data,
        tuple(extension.get(name, 0.0) for name in form.fields),
        tuple(f"{key}.{name}" for name in form.fields),
    )
    found = replace(base, given=carried, moving=base.moving or named)
    missed = _disagreement(form, found)
    if missed is not None:
        always = ", whatever the unknowns are" if found.moving else ""
        raise InputError(f"the extension does not meet the data of '{missed}'{always}", key)
    return found


def _profile(form: StrongForm, piece: Piece, weight: float | str) -> Callable[[Tensor], Tensor]:
    """A weight that depends on the place, from points (N, D) to (N,)."""
    key = f"solver.weights.{piece.name}"
    _check_place(form, weight, key, frozenset(unknowns_of(form.problem)))

    def at(points: Tensor) -> Tensor:
        return form.data(weight, key, points).expand(len(points))

    generator = torch.Generator().manual_seed(0)
    cube = torch.rand(_TRIED, piece.free, generator=generator, dtype=torch.float64)
    tried = piece.place(cube)
    least = at(tried)
    bad = ~(torch.isfinite(least) & (least >= 0))
    if bad.any():
        place = ", ".join(f"{c:.4g}" for c in tried[bad][0].tolist())
        raise InputError(f"a weight must not be negative; it is {float(least[bad][0]):.4g} "
                         f"at ({place})", key)  # fmt: skip
    return at


def _check_place(
    form: StrongForm, coefficient: float | str, key: str, unknown: frozenset[str]
) -> None:
    """Raise InputError for what depends on the solution, or on these unknowns."""
    for name in sorted(form.data.names(coefficient, key)):
        if name in form.fields or name in form.data.slopes or name in unknown:
            raise InputError(f"must depend on the place alone, not on '{name}'", key)
