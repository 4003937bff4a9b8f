"""Unknown functions as functions of their coordinates: fields by nodal values, laws by networks.

A field is multilinear between the nodes of a grid over the domain's box. A law is

    N(v) = c + sum_j a_j tanh(w_j . v + b_j),        v the arguments, scaled to (-1, 1),

or its exponential. It begins at a constant, a = 0, with the knees of its functions spread evenly
over the range of v: near the start it is linear in a, so that the first steps are those of linear
regression. A monotone law has exp(a_j) and exp(w_j) for a_j and w_j.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml.core.problem.interpolation import on_box
from sciml.core.problem.unknown import Network, UnknownField
from sciml.core.run.solution import Solution

_SLOPE = 2.0  # of the hidden functions at the start, over half the range of an argument
_FLAT = -5.0  # of a monotone law the logarithm of a_j at the start


@dataclass(frozen=True)
class FieldFunction:
    """A field of the place with these ``values`` at the nodes, (*shape); see the module."""

    values: Tensor
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    log: bool

    def __call__(self, *axes: Tensor) -> Tensor:
        """At the coordinates, which broadcast together."""
        periodic = (False,) * len(axes)
        found = on_box(self.values, axes, self.lower, self.upper, None, periodic)
        return found.exp() if self.log else found

    def at_nodes(self) -> Tensor:
        """What it is at the nodes."""
        return self.values.exp() if self.log else self.values


@dataclass(frozen=True)
class LawFunction:
    """A law with these ``weights`` of a network; ``low``, ``high``: the ranges of its arguments.

    These are of the quantities that it is of, in their order.
    """

    network: Network
    weights: Tensor
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def __signature__(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(name, kind) for name in self.network.of])

    def __call__(self, *arguments: Tensor) -> Tensor:
        """At arguments that broadcast together."""
        w, b, a, c = _parted(self.network, self.weights)
        inner = b
        for i, (v, low, high) in enumerate(zip(arguments, self.low, self.high, strict=True)):
            slope = w[i] * (2 / (high - low))
            inner = inner + (v[..., None] * slope - slope * ((high + low) / 2))
        found = (torch.tanh(inner) * a).sum(-1) + c
        return found.exp() if self.network.positive else found


def field_start(stated: UnknownField, shape: Sequence[int]) -> Tensor:
    """The unknowns of a field at its start, flat."""
    start = math.log(stated.start) if stated.field == "log" else stated.start
    return torch.full((math.prod(shape),), start, dtype=torch.float64)


def law_start(network: Network) -> Tensor:
    """The unknowns of a law at its start: w, b, a and c, flat."""
    count, width = len(network.of), network.width
    knees = torch.linspace(-1, 1, width + 2, dtype=torch.float64)[1:-1]
    w = torch.full((count, width), _SLOPE, dtype=torch.float64)
    if count > 1 and not network.monotone:  # directions, none the same
        turn = torch.arange(width) * math.pi * (math.sqrt(5) - 1)
        w = _SLOPE * torch.stack([torch.cos(turn + k * math.pi / 2) for k in range(count)]).double()
    b = -w.mean(0) * knees
    a = torch.full((width,), _FLAT if network.monotone else 0.0, dtype=torch.float64)
    c = math.log(network.start) if network.positive else network.start
    w = w.log() if network.monotone else w
    return torch.cat([w.flatten(), b, a, torch.tensor([c], dtype=torch.float64)])


def _parted(network: Network, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    count, width = len(network.of), network.width
    w, b, a, c = weights.split([count * width, width, width, 1])
    w = w.reshape(count, width)
    if network.monotone:
        w, a = w.exp(), a.exp()
    return w, b, a, c[0]


def law_deviation(law: LawFunction, covariance: Tensor, *arguments: Tensor) -> Tensor:
    """The standard deviation of a law at arguments, of a positive one that of its logarithm.

    ``covariance``: of its weights, to first order.
    """
    shape = torch.broadcast_shapes(*(v.shape for v in arguments))
    flat = [v.expand(shape).flatten() for v in arguments]

    def told(weights: Tensor) -> Tensor:
        value = LawFunction(law.network, weights, law.low, law.high)(*flat)
        return value.log() if law.network.positive else value

    J = torch.func.jacfwd(told)(law.weights)
    variance: Tensor = ((J @ covariance) * J).sum(-1)
    return variance.clamp(min=0.0).sqrt().reshape(shape)


def reach(solution: Solution, name: str) -> tuple[float, float]:
    """The least and the largest value of a field of an answer."""
    assert solution.on is not None
    value = solution.value
    if len(solution.fields) > 1:
        axis = -len(solution.on.shape) - 1
        value = value.select(axis, solution.fields.index(name))
    finite = value[torch.isfinite(value)]
    return float(finite.min()), float(finite.max())
