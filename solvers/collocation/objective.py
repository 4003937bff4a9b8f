"""The sum of weighted squares of all residuals of an ansatz, and the Jacobian of what is squared.

    loss = sum_k  weight_k / N_k  sum_n |r_k(x_n)|^2  =  |r|^2,

k over the pieces (the equation, the sides, the start). Rows of the Jacobian dr/dtheta come from one
backward sweep per equation (``networks``). Parameters of the problem that are to be found count as
parameters of the ansatz.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sciml.core.jet import Jet, Pairs
from sciml.core.strong import StrongForm
from sciml.solvers.collocation.conditions import BuiltIn, Piece
from sciml.solvers.collocation.networks import Tape


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
        return found if known is None else known[0] + known[1] * found

    @torch.no_grad()
    def value(self, points: Tensor) -> Tensor:
        """u at points (N, D), (N, F)."""
        if self.built_in is None:
            return self.network(points, ()).value
        known, distance = self.built_in.extension(points), self.built_in.distance(points)
        return known + distance * self.network(points, ()).value


@dataclass(frozen=True)
class Batch:
    """The points of one piece, the jets of what is built in there, and its weight.

    ``share``: factors of the weight at the points, (N,); one everywhere where None.
    """

    piece: Piece
    points: Tensor
    known: tuple[Jet, Jet] | None
    pairs: Pairs
    weight: float
    share: Tensor | None = None


@dataclass
class Objective:
    """The residuals of an ansatz at points that may be exchanged.

    ``weights``: per piece, 1 where not named. ``profiles``: factors of these that depend on the
    place, from points (N, D) to (N,). ``unknown``: parameters of the problem to be found,
    one-element tensors; the mapping of parameters that the strong form reads is kept in step.
    ``density``: what a sampler has learned of where the residual is, for its next exchange.
    ``notes``: remarks for the Solution.
    """

    form: StrongForm
    ansatz: Ansatz
    pieces: Sequence[Piece]
    weights: Mapping[str, float] = field(default_factory=dict)
    profiles: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    unknown: Mapping[str, nn.Parameter] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    density: Any = None
    notes: Sequence[str] = ()

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
        return {name: float(p.detach()) for name, p in self.unknown.items()}

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

    def residual(self, batch: Batch, tape: Tape | None = None) -> Tensor:
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
        return torch.cat([(_scale(b) * self._at(b, None)).T.flatten() for b in self.batches])

    def jacobian(self, blocks: Sequence[Any] | None = None) -> tuple[Tensor, Tensor]:
        """r (R,) and dr/dtheta (R, P); the columns of ``blocks`` alone where they are named."""
        values, rows = [], []
        for batch in self.batches:
            for r, J in self.rows(batch, blocks):
                values.append(_scale(batch).squeeze(-1) * r)
                rows.append(_scale(batch) * J)
        self._settle()
        return torch.cat(values), torch.cat(rows)

    def profile(self, piece: Piece, points: Tensor) -> Tensor | None:
        """The factor of a piece's weight at points, (N,), if it has one."""
        return self.profiles[piece.name](points) if piece.name in self.profiles else None

    def pointwise(self, points: Tensor) -> Tensor:
        """|r| of the equation at any points (N, D), (N,), times the root of its profile."""
        piece, pairs = self.pieces[0], self.form.pairs
        jet = self.ansatz.jet(points, pairs, self.ansatz.known(points, pairs))
        found = piece.residual(points, jet).square().sum(-1).sqrt()
        profile = self.profile(piece, points)
        return found if profile is None else profile.sqrt() * found

    def _batch(self, piece: Piece, points: Tensor) -> Batch:
        pairs = self.form.pairs if piece.name == "equation" else ()
        share = self.profile(piece, points)
        if piece.twins is not None:
            points = torch.cat([points, points + piece.twins])
        weight = self.weights.get(piece.name, 1.0)
        return Batch(piece, points, self.ansatz.known(points, pairs), pairs, weight, share)

    def _at(self, batch: Batch, tape: Tape | None) -> Tensor:
        self._settle()
        return self.residual(batch, tape)

    def rows(
        self, batch: Batch, blocks: Sequence[Any] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Per equation the residuals of a piece, unweighted, (N,), and their derivatives (N, P)."""
        tape: Tape = []
        extra = self._spread(len(batch.points)) if blocks is None else []
        wanted = self.ansatz.network.blocks() if blocks is None else blocks
        with torch.enable_grad():
            r = self.residual(batch, tape)
        tape = [entry for entry in tape if any(entry[0] is block for block in wanted)]
        outputs = [z for _, _, z in tape] + extra
        for k in range(r.shape[1]):
            last = k == r.shape[1] - 1
            deltas = torch.autograd.grad(
                r[:, k].sum(), outputs, retain_graph=not last, materialize_grads=True,
                allow_unused=True,
            )  # fmt: skip
            with torch.no_grad():
                found = {
                    id(block): block.jacobian(given, delta)
                    for (block, given, _), delta in zip(tape, deltas, strict=False)
                }
                order = [found[id(block)] for block in wanted]
                J = torch.cat([*order, *(d[:, None] for d in deltas[len(tape) :])], 1)
                if batch.piece.twins is not None:
                    J = J[: len(r)] + J[len(r) :]
            yield r[:, k].detach(), J

    def _settle(self) -> None:
        """The strong form reads the unknown parameters as they are now."""
        for name, parameter in self.unknown.items():
            self.form.data.parameters[name] = parameter  # type: ignore[index]

    def _spread(self, count: int) -> list[Tensor]:
        """The unknown parameters, one copy per point, in the strong form's place of numbers."""
        found = []
        for name, parameter in self.unknown.items():
            copies = parameter.detach().expand(count).clone().requires_grad_()
            self.form.data.parameters[name] = copies  # type: ignore[index]
            found.append(copies)
        return found


def _scale(batch: Batch) -> Tensor:
    """The root of a residual's weight in the loss, () or (N, 1)."""
    count = len(batch.points) // (1 if batch.piece.twins is None else 2)
    scale = batch.points.new_tensor(batch.weight / count).sqrt()
    return scale if batch.share is None else scale * batch.share.sqrt()[:, None]
